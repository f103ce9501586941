//! The metrics of the writer.

use service::Series;
use service::metrics::Metric;

/// Lines that begin in bytes newly written.
pub(crate) const LINES: &str = "lines_written_total";
/// Bytes newly written.
pub(crate) const BYTES: &str = "writer_bytes_written_total";
/// Commits.
pub(crate) const BATCHES: &str = "writer_batches_total";
/// How long a commit took.
pub(crate) const BATCH_DURATION: &str = "writer_batch_duration_seconds";
/// How long a sync took.
pub(crate) const FSYNC_DURATION: &str = "writer_fsync_duration_seconds";
/// Syncs that failed.
pub(crate) const FSYNC_ERRORS: &str = "writer_fsync_errors_total";
/// Entries delivered again that were held already.
pub(crate) const REDELIVERED: &str = "writer_redelivered_total";
/// Bytes that were never delivered, or that are lost.
pub(crate) const GAP_BYTES: &str = "writer_gap_bytes_total";
/// Entries that are no range of any content.
pub(crate) const FOREIGN: &str = "writer_foreign_entries_total";
/// Entries deleted while they were pending.
pub(crate) const DELETED: &str = "writer_deleted_entries_total";
/// The output's length.
pub(crate) const OUTPUT_SIZE: &str = "writer_output_size_bytes";
/// Room on the output's file system.
pub(crate) const OUTPUT_FREE: &str = "writer_output_free_bytes";
/// Size of the output's file system.
pub(crate) const OUTPUT_CAPACITY: &str = "writer_output_capacity_bytes";
/// Always 1; its label is the consumer's name.
pub(crate) const CONSUMER: &str = "writer_consumer_info";
/// Lag and pending.
pub(crate) const BACKLOG: &str = "line_stream_backlog_entries";
/// Lag and pending of each partition.
pub(crate) const PARTITION_BACKLOG: &str = "line_stream_partition_backlog_entries";
/// Not yet delivered.
pub(crate) const LAG: &str = "line_stream_lag_entries";
/// Delivered and not acknowledged.
pub(crate) const PENDING: &str = "line_stream_pending_entries";
/// How long ago the oldest pending entry was delivered.
pub(crate) const OLDEST_PENDING: &str = "line_stream_oldest_pending_seconds";
/// From sending a batch to its bytes being durable in the output.
pub(crate) const LATENCY: &str = "line_stream_latency_seconds";
/// In the stream.
pub(crate) const LENGTH: &str = "line_stream_length_entries";

/// All of them.
pub(crate) const ALL: &[Metric] = &[
    Metric::counter(LINES, "Lines written to the output, each counted once"),
    Metric::counter(BYTES, "Bytes written to the output"),
    Metric::counter(BATCHES, "Batches committed"),
    Metric::histogram(BATCH_DURATION, "How long committing a batch took: append, journal, sync"),
    Metric::histogram(FSYNC_DURATION, "How long making output and journal durable took"),
    Metric::counter(FSYNC_ERRORS, "Syncs of output or journal that failed"),
    Metric::counter(REDELIVERED, "Entries that were delivered again and are in the output already"),
    Metric::counter(GAP_BYTES, "Bytes of the source that were never delivered, or that somebody cut from the output"),
    Metric::counter(FOREIGN, "Entries that no reader wrote; acknowledged and not written"),
    Metric::counter(DELETED, "Entries that were deleted while they were pending"),
    Metric::gauge(OUTPUT_SIZE, "Length of the output up to the last commit").unknown(),
    Metric::gauge(OUTPUT_FREE, "Bytes that the writer may still use on the output's file system").unknown(),
    Metric::gauge(OUTPUT_CAPACITY, "Size of the output's file system").unknown(),
    Metric::gauge(CONSUMER, "Always 1; two with one name are a mistake").labelled(),
    Metric::gauge(BACKLOG, "Entries of the group that are not done: lag and pending; NaN while Redis cannot tell").unknown(),
    Metric::gauge(PARTITION_BACKLOG, "Lag and pending of each partition that this writer takes").labelled(),
    Metric::gauge(LAG, "Entries that were not delivered to the group yet; NaN while Redis cannot tell").unknown(),
    Metric::gauge(PENDING, "Entries that were delivered to the group and not acknowledged; NaN while Redis cannot tell").unknown(),
    Metric::gauge(
        OLDEST_PENDING,
        "Time since the pending entry with the smallest ID was last delivered; 0 when none is pending, NaN while Redis cannot tell",
    )
    .unknown(),
    Metric::histogram(
        LATENCY,
        "Time from when the reader sent a batch to when its last entry was durable in the output; one batch a second is measured",
    ),
    Metric::gauge(LENGTH, "Entries in the stream; NaN while Redis cannot tell").unknown(),
];

/// What the status page and the summary show.
pub(crate) const SERIES: Series = Series {
    lines: LINES,
    bytes: BYTES,
    backlog: BACKLOG,
    backlog_title: "Entries waiting",
    position: None,
    output: Some((OUTPUT_SIZE, OUTPUT_FREE)),
    waiting: None,
};
