//! The names and descriptions of the reader's metrics.

use service::Series;
use service::metrics::Metric;

/// Lines added to the stream and confirmed by Redis.
pub(crate) const LINES: &str = "lines_read_total";
/// Bytes of the input added to the stream and confirmed by Redis.
pub(crate) const BYTES: &str = "reader_bytes_read_total";
pub(crate) const BATCHES: &str = "reader_batches_total";
pub(crate) const BATCH_SECONDS: &str = "reader_batch_duration_seconds";
pub(crate) const INPUT_SIZE: &str = "reader_input_size_bytes";
pub(crate) const INPUT_POSITION: &str = "reader_input_position_bytes";
pub(crate) const GENERATIONS: &str = "reader_generations_total";
pub(crate) const UNREADABLE: &str = "reader_unreadable_bytes_total";
pub(crate) const UNREADABLE_CONTENTS: &str = "reader_unreadable_contents_total";
pub(crate) const RESUMES: &str = "reader_resumes_total";
pub(crate) const STREAM_LENGTH: &str = "line_stream_length_entries";
pub(crate) const WAITING: &str = "reader_backpressure";

/// All metrics of the reader.
pub(crate) const METRICS: [Metric; 12] = [
    Metric::counter(LINES, "Lines added to the stream and confirmed by Redis"),
    Metric::counter(BYTES, "Bytes of the input added to the stream and confirmed by Redis"),
    Metric::counter(BATCHES, "Transactions confirmed by Redis"),
    Metric::histogram(BATCH_SECONDS, "Time from the EXEC of a batch to its confirmation"),
    Metric::gauge(INPUT_SIZE, "Size of the content being read; NaN while there is none").unknown(),
    Metric::gauge(INPUT_POSITION, "Confirmed position in the content being read; NaN while there is none").unknown(),
    Metric::counter(GENERATIONS, "Generations started: new contents, and contents renumbered after foreign entries"),
    Metric::counter(UNREADABLE, "Bytes of the input that became unreadable before they were sent"),
    Metric::counter(UNREADABLE_CONTENTS, "Contents that disappeared before they were sent completely"),
    Metric::counter(RESUMES, "Number of times the position was loaded from Redis: once at startup, then after faults"),
    Metric::gauge(STREAM_LENGTH, "Entries in the stream; NaN while unknown").unknown(),
    Metric::gauge(WAITING, "1 while the stream holds --max-backlog entries and the reader waits, else 0"),
];

/// The metrics that the status page and the summary show.
pub(crate) const SERIES: Series = Series {
    lines: LINES,
    bytes: BYTES,
    backlog: STREAM_LENGTH,
    backlog_title: "Entries in the stream",
    position: Some((INPUT_POSITION, INPUT_SIZE)),
    output: None,
    waiting: Some(WAITING),
};
