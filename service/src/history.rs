//! Samples of the metrics over the last minutes. The status page draws them, and the log gets a
//! summary per minute.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{HumanBytes, HumanCount, HumanDuration};

use crate::advice::noun;
use crate::metrics::Recorded;
use crate::trend::{Trend, trend};

/// Time between two samples.
pub(crate) const INTERVAL: Duration = Duration::from_secs(2);
/// Number of samples: ten minutes.
const SAMPLES: usize = 300;
/// Rates are averages over this many samples: ten seconds.
const RATE: usize = 5;
/// A summary is logged after this many samples: one minute.
const SUMMARY: u64 = 30;

/// The metrics that describe the work of a service.
#[derive(Debug, Clone, Copy)]
pub struct Series {
    /// Counter of lines.
    pub lines: &'static str,
    /// Counter of bytes.
    pub bytes: &'static str,
    /// Gauge of the backlog, in entries.
    pub backlog: &'static str,
    /// Title of the backlog on the status page.
    pub backlog_title: &'static str,
    /// Gauges of the position in the input and of its size, for a service that reads a file.
    pub position: Option<(&'static str, &'static str)>,
    /// Gauges of the output's size and of the free space on its disk, for a service that writes a
    /// file.
    pub output: Option<(&'static str, &'static str)>,
    /// Gauge that is 1 while the work waits for room in the stream.
    pub waiting: Option<&'static str>,
}

/// The values at one time.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Sample {
    /// Seconds since the service started.
    pub(crate) at: f64,
    pub(crate) lines: f64,
    pub(crate) bytes: f64,
    /// NaN when unknown.
    pub(crate) backlog: f64,
}

#[derive(Debug, Default)]
struct Inner {
    samples: VecDeque<Sample>,
    ticks: u64,
    /// The remaining work at the last summary.
    left: Option<Left>,
}

/// Remaining work: entries in the backlog, and unread bytes of the input.
type Left = (Option<u64>, Option<u64>);

/// The samples of the last minutes.
pub(crate) struct History {
    recorded: Recorded,
    series: Series,
    begun: Instant,
    inner: Mutex<Inner>,
}

impl History {
    pub(crate) fn new(recorded: Recorded, series: Series, begun: Instant) -> Self {
        Self { recorded, series, begun, inner: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The current values of all metrics.
    pub(crate) fn values(&self) -> BTreeMap<String, f64> {
        parse(&self.recorded.render_work())
    }

    /// A sample of these values.
    pub(crate) fn sample_of(&self, values: &BTreeMap<String, f64>) -> Sample {
        let value = |name: &str| values.get(name).copied().unwrap_or(0.0);
        Sample {
            at: self.begun.elapsed().as_secs_f64(),
            lines: value(self.series.lines),
            bytes: value(self.series.bytes),
            backlog: value(self.series.backlog),
        }
    }

    /// Position and size of the input, for a service that reads a file.
    pub(crate) fn position_of(&self, values: &BTreeMap<String, f64>) -> Option<(f64, f64)> {
        let (position, size) = self.series.position?;
        let (position, size) = (known(values, position)?, known(values, size)?);
        Some((position, size.max(position)))
    }

    /// Size of the output and free space on its disk, for a service that writes a file.
    fn output_of(&self, values: &BTreeMap<String, f64>) -> Option<(f64, f64)> {
        let (size, free) = self.series.output?;
        Some((known(values, size)?, known(values, free)?))
    }

    /// Takes a sample. Once per minute, returns a summary if lines were processed or the remaining
    /// work changed.
    pub(crate) fn tick(&self, redis_is_well: bool) -> Option<Summary> {
        let values = self.values();
        let sample = self.sample_of(&values);
        let position = self.position_of(&values);
        let mut inner = self.lock();
        if inner.samples.len() == SAMPLES {
            inner.samples.pop_front();
        }
        inner.samples.push_back(sample);
        inner.ticks = inner.ticks.saturating_add(1);
        if !inner.ticks.is_multiple_of(SUMMARY) {
            return None;
        }
        let since = inner.samples.iter().rev().nth(usize::try_from(SUMMARY).unwrap_or(0)).copied().unwrap_or_default();
        let summary = Summary::new(&since, &sample, position, redis_is_well);
        let was = inner.left.replace(summary.left());
        (summary.lines > 0 || was != Some(summary.left())).then_some(summary)
    }

    /// The backlog of each partition.
    pub(crate) fn partitions(&self) -> BTreeMap<u32, f64> {
        partitions(&self.recorded.render_work())
    }

    /// The data of the status page: the figures of now, and rates from the samples.
    pub(crate) fn snapshot(&self) -> Snapshot {
        let values = self.values();
        let samples: Vec<Sample> = self.lock().samples.iter().copied().collect();
        Snapshot {
            position: self.position_of(&values),
            has_position: self.series.position.is_some(),
            lines_per_second: rate_now(&samples, |s| s.lines),
            bytes_per_second: rate_now(&samples, |s| s.bytes),
            output: self.output_of(&values),
            backlog_title: self.series.backlog_title,
            is_waiting: self.series.waiting.is_some_and(|name| values.get(name) == Some(&1.0)),
            last: self.sample_of(&values),
            values,
            samples,
        }
    }
}

/// The data of the status page.
pub(crate) struct Snapshot {
    pub(crate) last: Sample,
    /// `None` if it is unknown, or if the service reads no file.
    pub(crate) position: Option<(f64, f64)>,
    /// Whether the service reads a file.
    pub(crate) has_position: bool,
    /// NaN when unknown, as after the start.
    pub(crate) lines_per_second: f64,
    /// NaN when unknown.
    pub(crate) bytes_per_second: f64,
    /// Size of the output, and free space on its disk.
    pub(crate) output: Option<(f64, f64)>,
    pub(crate) backlog_title: &'static str,
    /// Whether the work waits for room in the stream.
    pub(crate) is_waiting: bool,
    pub(crate) values: BTreeMap<String, f64>,
    pub(crate) samples: Vec<Sample>,
}

impl Snapshot {
    /// The trend of the backlog.
    pub(crate) fn trend(&self) -> Trend {
        trend(self.samples.iter().map(|sample| (sample.at, sample.backlog)), self.lines_per_second)
    }

    /// Estimated time to read the rest of the input, at the current rate.
    pub(crate) fn seconds_left(&self) -> Option<f64> {
        let (position, size) = self.position?;
        match size - position {
            0.0 => Some(0.0),
            left if self.bytes_per_second > 0.0 => Some(left / self.bytes_per_second),
            _ => None,
        }
    }

    /// The rate per second between consecutive samples.
    pub(crate) fn rates(&self, of: fn(&Sample) -> f64) -> Vec<f64> {
        let pairs = self.samples.windows(2);
        pairs.filter_map(|pair| Some(rate(pair.first()?, pair.get(1)?, of).max(0.0))).collect()
    }
}

/// The rate over the last seconds. NaN with fewer than two samples: 0 would look like a service at
/// rest.
fn rate_now(samples: &[Sample], of: fn(&Sample) -> f64) -> f64 {
    let [first, .., last] = samples else { return f64::NAN };
    rate(samples.iter().rev().nth(RATE).unwrap_or(first), last, of)
}

pub(crate) fn rate(earlier: &Sample, later: &Sample, of: fn(&Sample) -> f64) -> f64 {
    let time = later.at - earlier.at;
    if time > 0.0 { (of(later) - of(earlier)) / time } else { 0.0 }
}

/// Rounds to a whole, non-negative number.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "shown figures are whole, not negative")]
pub(crate) fn whole(number: f64) -> u64 {
    number.max(0.0).round() as u64
}

/// The value, unless it is missing or NaN.
fn known(values: &BTreeMap<String, f64>, name: &str) -> Option<f64> {
    values.get(name).copied().filter(|value| !value.is_nan())
}

/// The work of one minute, and what remains.
pub(crate) struct Summary {
    text: String,
    lines: u64,
    bytes: u64,
    per_second: u64,
    backlog: Option<u64>,
    input_left: Option<u64>,
}

impl Summary {
    fn new(since: &Sample, now: &Sample, position: Option<(f64, f64)>, redis_is_well: bool) -> Self {
        let (lines, bytes) = (whole(now.lines - since.lines), whole(now.bytes - since.bytes));
        let per_second = whole(rate(since, now, |s| s.lines));
        let backlog = Some(now.backlog).filter(|backlog| !backlog.is_nan()).map(whole);
        let input_left = position.map(|(position, size)| whole(size - position));
        let waiting = match backlog {
            None if !redis_is_well => "Redis cannot be used, so the backlog is unknown".to_owned(),
            None => "the backlog is unknown".to_owned(),
            Some(1) => "1 entry waits".to_owned(),
            Some(waiting) => format!("{} entries wait", HumanCount(waiting)),
        };
        let took = HumanDuration(Duration::from_secs_f64((now.at - since.at).max(0.0)));
        let mut text = format!(
            "in the last {took}: {} {} ({}), {} lines/s; {waiting}",
            HumanCount(lines),
            noun(lines, "line"),
            HumanBytes(bytes),
            HumanCount(per_second)
        );
        if let Some(left) = input_left {
            text += &format!("; {} of the input left", HumanBytes(left));
        }
        Self { text, lines, bytes, per_second, backlog, input_left }
    }

    const fn left(&self) -> Left {
        (self.backlog, self.input_left)
    }

    pub(crate) fn log(&self) {
        let Self { text, lines, bytes, per_second, .. } = self;
        // JSON shows NaN as null.
        let figure = |value: Option<u64>| value.map_or(f64::NAN, |value| value as f64);
        log::info!(
            event = "summary", lines = *lines, bytes = *bytes, lines_per_second = *per_second,
            backlog = figure(self.backlog), input_left = figure(self.input_left);
            "{text}"
        );
    }
}

/// Parses Prometheus' text format. Sums values over labels, and skips buckets.
fn parse(text: &str) -> BTreeMap<String, f64> {
    let mut values = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some((name, value)) = line.rsplit_once(' ') else { continue };
        let name = name.split('{').next().unwrap_or_default();
        if let Ok(value) = value.parse::<f64>()
            && !name.ends_with("_bucket")
        {
            *values.entry(name.to_owned()).or_insert(0.0) += value;
        }
    }
    values
}

/// The backlog by partition, for a service that exports it.
fn partitions(text: &str) -> BTreeMap<u32, f64> {
    let lines = text.lines().filter(|line| line.starts_with("line_stream_partition_backlog_entries{"));
    let of_line = |line: &str| {
        let (labels, value) = line.rsplit_once(' ')?;
        let (partition, _) = labels.split_once("partition=\"")?.1.split_once('"')?;
        Some((partition.parse().ok()?, value.parse().ok()?))
    };
    lines.filter_map(of_line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_backlog_is_read_per_partition() {
        let text = "line_stream_partition_backlog_entries{stream=\"s\",partition=\"10\"} 7\n\
                    line_stream_partition_backlog_entries{stream=\"s\",partition=\"2\"} NaN\nline_stream_lag_entries 1\n";
        let found = partitions(text);
        assert_eq!(found.keys().copied().collect::<Vec<_>>(), [2, 10]);
        assert!(found[&2].is_nan() && found[&10] == 7.0);
    }

    #[test]
    fn a_rate_is_unknown_until_there_are_two_samples() {
        let sample = |at| Sample { at, lines: at * 5.0, ..Sample::default() };
        let samples = [0.0, 2.0, 4.0].map(sample);
        let rate = |many: usize| rate_now(&samples[..many], |s| s.lines);
        assert!(rate(0).is_nan() && rate(1).is_nan());
        assert_eq!((rate(2), rate(3)), (5.0, 5.0));
    }

    #[test]
    fn values_are_summed_over_labels() {
        let values = parse("# HELP a b\na{kind=\"x\"} 1\na{kind=\"y z\"} 2\nb 3.5\nc_bucket{le=\"1\"} 9\n");
        assert_eq!(values, BTreeMap::from([("a".to_owned(), 3.0), ("b".to_owned(), 3.5)]));
    }

    #[test]
    fn a_summary_reports_throughput_and_backlog() {
        let since = Sample { at: 60.0, lines: 1000.0, bytes: 2048.0, ..Sample::default() };
        let now = Sample { at: 120.0, lines: 7000.0, bytes: 4096.0, backlog: 1234.0 };
        let text = |now: &Sample, position| Summary::new(&since, now, position, false).text;
        assert_eq!(
            text(&now, Some((10.0, 20.0))),
            "in the last 60 seconds: 6,000 lines (2.00 KiB), 100 lines/s; 1,234 entries wait; 10 B of the input left"
        );
        let now = Sample { lines: 1001.0, backlog: f64::NAN, ..now };
        assert_eq!(
            text(&now, None),
            "in the last 60 seconds: 1 line (2.00 KiB), 0 lines/s; Redis cannot be used, so the backlog is unknown"
        );
    }
}
