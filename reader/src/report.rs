//! What the reader reports: notices and rates in the log, and the metrics that belong to them.

use crate::telemetry::{
    BATCH_SECONDS, BATCHES, BYTES, GENERATIONS, INPUT_SIZE, LINES, RESUMES, UNREADABLE, UNREADABLE_CONTENTS,
};
use delivery::partition::Partition;
use delivery::producer::resume::StreamState;
use delivery::producer::{Batch, Changed, Notice};
use log::{Level, info, log, warn};
use metrics::{counter, gauge, histogram};
use resp::streams::GroupInfo;
use std::time::{Duration, Instant};

/// How often the rate is logged at most.
const RATE: Duration = Duration::from_secs(10);
/// How often a change under the reader is logged. Two readers on one file see one all the time.
const CHANGED: Duration = Duration::from_secs(10);
/// How long the stream must have had room before it is logged again that it is full: one that
/// hovers at its bound is in one state.
const FULL: Duration = Duration::from_secs(60);

/// What is reported of one partition.
#[derive(Debug)]
pub(crate) struct Report {
    /// Names the stream at the beginning of what is logged; empty for the only one.
    name: String,
    stream: String,
    partition: Partition,
    since: Instant,
    lines: u64,
    bytes: u64,
    changed_at: Option<Instant>,
    full_at: Option<Instant>,
}

impl Report {
    pub(crate) fn new(partition: Partition, stream: &str) -> Self {
        Self {
            name: if partition.is_whole() { String::new() } else { format!("stream {stream}: ") },
            stream: stream.to_owned(),
            partition,
            since: Instant::now(),
            lines: 0,
            bytes: 0,
            changed_at: None,
            full_at: None,
        }
    }

    /// Logs and counts what a producer reports.
    pub(crate) fn notices(&self, notices: &[Notice]) {
        for notice in notices {
            let level = match notice {
                Notice::Resumed => {
                    counter!(RESUMES).increment(1);
                    continue;
                }
                Notice::Begun { .. } => {
                    counter!(GENERATIONS).increment(1);
                    Level::Info
                }
                Notice::Unreadable { bytes, .. } => {
                    counter!(UNREADABLE).increment(bytes.unwrap_or(0));
                    counter!(UNREADABLE_CONTENTS).increment(1);
                    Level::Error
                }
                Notice::Gone { .. } => {
                    counter!(UNREADABLE_CONTENTS).increment(1);
                    Level::Error
                }
                Notice::Reading { .. } | Notice::Copy { .. } => Level::Info,
                Notice::Restoring { .. }
                | Notice::Foreign { .. }
                | Notice::Truncated { .. }
                | Notice::StateUnreadable { .. }
                | Notice::File(_)
                | Notice::Changed(_) => Level::Warn,
            };
            if matches!(notice, Notice::Foreign { .. }) {
                service::metrics::error("foreign_entry");
            }
            log!(level, "{}{notice}", self.name);
        }
    }

    /// A batch was added.
    pub(crate) fn added(&mut self, batch: &Batch, took: Duration) {
        counter!(LINES).increment(batch.lines);
        counter!(BYTES).increment(batch.bytes);
        counter!(BATCHES).increment(1);
        histogram!(BATCH_SECONDS).record(took);
        self.lines += batch.lines;
        self.bytes += batch.bytes;
        if self.since.elapsed() >= RATE {
            let Self { stream, lines, bytes, .. } = self;
            info!("stream {stream}: {lines} lines ({bytes} bytes) more, up to {}", batch.end.id());
            (self.since, self.lines, self.bytes) = (Instant::now(), 0, 0);
        }
    }

    /// The length of the content that is read.
    pub(crate) fn input_size(&self, bytes: u64) {
        gauge!(INPUT_SIZE).set(bytes as f64);
    }

    /// Redis or the folder changed under the reader.
    pub(crate) fn changed(&mut self, changed: Changed) {
        let is_quiet = self.changed_at.is_some_and(|at| at.elapsed() < CHANGED);
        let level = if is_quiet { Level::Debug } else { Level::Info };
        log!(level, "{}{}", self.name, Notice::Changed(changed));
        if !is_quiet {
            self.changed_at = Some(Instant::now());
        }
    }

    /// The stream is full. Whether that is a new state.
    pub(crate) fn is_newly_full(&mut self) -> bool {
        let is_new = self.full_at.is_none_or(|at| at.elapsed() >= FULL);
        self.full_at = Some(Instant::now());
        is_new
    }

    /// Says that the stream is full, and which group holds it up. Returns the reason for `/readyz`.
    pub(crate) fn full(&self, stream: &StreamState, max_backlog: u64, groups: &[GroupInfo]) -> String {
        let share = if self.partition.is_whole() { "" } else { " for its share" };
        let why = full(&self.stream, share, stream, max_backlog, groups);
        warn!("{why}");
        why
    }
}

/// That a stream is full, which group holds it up, and what to do.
pub(crate) fn full(key: &str, share: &str, stream: &StreamState, max_backlog: u64, groups: &[GroupInfo]) -> String {
    let held_up = match slowest(groups, stream) {
        Some((name, waiting, consumers)) => format!(
            "group {name} holds it up ({waiting} entries not acknowledged, {consumers} consumers); start its writer, or remove the \
             group with XGROUP DESTROY if nobody needs it"
        ),
        None => "no group reads it; start a writer".to_owned(),
    };
    let len = stream.len;
    format!("stream {key}: {len} entries, as many as --max-backlog {max_backlog} allows{share}; waiting; {held_up}")
}

/// The group that has read or acknowledged least: its name, how many entries wait for it, and how many consumers it has.
fn slowest(groups: &[GroupInfo], stream: &StreamState) -> Option<(String, u64, u64)> {
    let waiting = |group: &GroupInfo| {
        let lag = group.lag.unwrap_or(if group.last_delivered_id >= stream.last_id { 0 } else { stream.len });
        lag.saturating_add(group.pending)
    };
    let slowest = groups.iter().max_by_key(|group| (waiting(group), std::cmp::Reverse(group.consumers)))?;
    let name = String::from_utf8_lossy(&slowest.name).escape_debug().to_string();
    Some((name, waiting(slowest), slowest.consumers))
}
