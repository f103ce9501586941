//! The names and descriptions of the writer's metrics.

use service::Series;
use service::metrics::Metric;

/// Lines that begin in newly written bytes.
pub(crate) const LINES: &str = "lines_written_total";
/// Newly written bytes.
pub(crate) const BYTES: &str = "writer_bytes_written_total";
/// Commits.
pub(crate) const BATCHES: &str = "writer_batches_total";
/// Duration of a commit.
pub(crate) const BATCH_DURATION: &str = "writer_batch_duration_seconds";
/// Duration of a sync.
pub(crate) const FSYNC_DURATION: &str = "writer_fsync_duration_seconds";
/// Failed syncs.
pub(crate) const FSYNC_ERRORS: &str = "writer_fsync_errors_total";
/// Redelivered entries that the output has already.
pub(crate) const REDELIVERED: &str = "writer_redelivered_total";
/// Bytes that were never delivered, or that are lost.
pub(crate) const GAP_BYTES: &str = "writer_gap_bytes_total";
/// Foreign entries: no reader wrote them.
pub(crate) const FOREIGN: &str = "writer_foreign_entries_total";
/// Entries deleted while pending.
pub(crate) const DELETED: &str = "writer_deleted_entries_total";
/// Length of the output.
pub(crate) const OUTPUT_SIZE: &str = "writer_output_size_bytes";
/// Free space on the output's file system.
pub(crate) const OUTPUT_FREE: &str = "writer_output_free_bytes";
/// Size of the output's file system.
pub(crate) const OUTPUT_CAPACITY: &str = "writer_output_capacity_bytes";
/// Always 1; its label is the consumer's name.
pub(crate) const CONSUMER: &str = "writer_consumer_info";
/// Lag plus pending entries.
pub(crate) const BACKLOG: &str = "line_stream_backlog_entries";
/// Lag plus pending entries of each partition.
pub(crate) const PARTITION_BACKLOG: &str = "line_stream_partition_backlog_entries";
/// Entries not delivered to the group yet.
pub(crate) const LAG: &str = "line_stream_lag_entries";
/// Entries delivered and not acknowledged.
pub(crate) const PENDING: &str = "line_stream_pending_entries";
/// Time since the oldest pending entry was delivered.
pub(crate) const OLDEST_PENDING: &str = "line_stream_oldest_pending_seconds";
/// From sending a batch to its bytes being durable in the output.
pub(crate) const LATENCY: &str = "line_stream_latency_seconds";
/// Entries in the stream.
pub(crate) const LENGTH: &str = "line_stream_length_entries";

/// All metrics of the writer.
pub(crate) const ALL: &[Metric] = &[
    Metric::counter(LINES, "Lines written to the output, each counted once"),
    Metric::counter(BYTES, "Bytes written to the output"),
    Metric::counter(BATCHES, "Batches committed"),
    Metric::histogram(BATCH_DURATION, "Duration of committing a batch: journal, append, sync"),
    Metric::histogram(FSYNC_DURATION, "Duration of syncing output and journal"),
    Metric::counter(FSYNC_ERRORS, "Failed syncs of output or journal"),
    Metric::counter(REDELIVERED, "Redelivered entries that were in the output already"),
    Metric::counter(GAP_BYTES, "Bytes of the source that were never delivered, or that were removed from the output"),
    Metric::counter(FOREIGN, "Entries that no reader wrote; acknowledged and not written"),
    Metric::counter(DELETED, "Entries deleted while they were pending"),
    Metric::gauge(OUTPUT_SIZE, "Length of the output up to the last commit").unknown(),
    Metric::gauge(OUTPUT_FREE, "Bytes that the writer may still use on the output's file system").unknown(),
    Metric::gauge(OUTPUT_CAPACITY, "Size of the output's file system").unknown(),
    Metric::gauge(CONSUMER, "Always 1; two writers with the same consumer name are an error").labelled(),
    Metric::gauge(BACKLOG, "Entries of the group not acknowledged yet: lag plus pending; NaN while unknown").unknown(),
    Metric::gauge(PARTITION_BACKLOG, "Lag plus pending of each partition that this writer consumes").labelled(),
    Metric::gauge(LAG, "Entries not delivered to the group yet; NaN while unknown").unknown(),
    Metric::gauge(PENDING, "Entries delivered to the group and not acknowledged; NaN while unknown").unknown(),
    Metric::gauge(
        OLDEST_PENDING,
        "Time since the pending entry with the smallest ID was last delivered; 0 if none is pending, NaN while unknown",
    )
    .unknown(),
    Metric::histogram(
        LATENCY,
        "Time from when the reader sent a batch to when its last entry was durable in the output; one batch a second is measured",
    ),
    Metric::gauge(LENGTH, "Entries in the stream; NaN while unknown").unknown(),
];

/// The metrics that the status page and the summary show.
pub(crate) const SERIES: Series = Series {
    lines: LINES,
    bytes: BYTES,
    backlog: BACKLOG,
    backlog_title: "Entries waiting",
    position: None,
    output: Some((OUTPUT_SIZE, OUTPUT_FREE)),
    waiting: None,
};
