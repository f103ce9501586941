//! Reports of the reader: notices in the log, and the metrics that belong to them.

use crate::metric_names::{
    BATCH_SECONDS, BATCHES, BYTES, GENERATIONS, LINES, RESUMES, UNREADABLE, UNREADABLE_CONTENTS,
};
use delivery::partition::Partition;
use delivery::producer::resume::StreamState;
use delivery::producer::{Batch, Changed, Notice};
use log::{Level, debug, log, warn};
use metrics::{counter, histogram};
use resp::streams::GroupInfo;
use service::advice::noun;
use service::repeats;
use std::time::{Duration, Instant};

/// Minimum time between two logged changes by others. Two readers on one file cause them
/// continuously.
const CHANGED: Duration = Duration::from_secs(10);
/// Minimum time between two logged losses in Redis. One that evicts keys loses them continuously.
const RESTORING: Duration = Duration::from_secs(60);
/// How long the stream must have had room before a full stream is logged again, so that a stream at
/// its limit is logged once.
const FULL: Duration = Duration::from_secs(60);
/// A group that makes no progress for this long is stuck.
const STUCK: Duration = Duration::from_secs(5);

/// The reporter of one partition.
#[derive(Debug)]
pub(crate) struct Report {
    /// Prefix of log lines: the name of the stream, if there are several.
    name: String,
    stream: String,
    partition: Partition,
    changed_at: Option<Instant>,
    restoring_at: Option<Instant>,
    full_at: Option<Instant>,
    /// When the groups were last queried.
    asked_at: Instant,
    is_logged: bool,
    /// The slowest group at the last query.
    stuck: Option<Slowest>,
    /// Whether it is one of many sources, of which nobody wants to read the usual things.
    is_one_of_many: bool,
}

/// A group's name, the number of entries it has not acknowledged, and the number of its consumers.
type Slowest = (String, u64, u64);

impl Report {
    pub(crate) fn new(partition: Partition, stream: &str) -> Self {
        Self {
            name: if partition.is_whole() { String::new() } else { format!("stream {stream}: ") },
            stream: stream.to_owned(),
            partition,
            changed_at: None,
            restoring_at: None,
            full_at: None,
            asked_at: Instant::now(),
            is_logged: false,
            stuck: None,
            is_one_of_many: false,
        }
    }

    /// The reporter of one of many sources.
    pub(crate) fn of_source(stream: &str) -> Self {
        let report = Self::new(Partition::WHOLE, stream);
        Self { name: format!("stream {stream}: "), is_one_of_many: true, ..report }
    }

    /// Logs and counts the notices of a producer.
    pub(crate) fn notices(&mut self, notices: &[Notice]) {
        for notice in notices {
            let mut missing = 0;
            let (level, event) = match notice {
                Notice::Resumed => {
                    counter!(RESUMES).increment(1);
                    continue;
                }
                Notice::Begun { .. } => {
                    counter!(GENERATIONS).increment(1);
                    (Level::Info, "begun")
                }
                Notice::Unreadable { bytes, .. } => {
                    missing = bytes.unwrap_or(0);
                    counter!(UNREADABLE).increment(missing);
                    counter!(UNREADABLE_CONTENTS).increment(1);
                    (Level::Error, "unreadable")
                }
                Notice::Gone { .. } => {
                    counter!(UNREADABLE_CONTENTS).increment(1);
                    (Level::Error, "gone")
                }
                Notice::Reading { .. } => (Level::Info, "reading"),
                Notice::Copy { .. } => (Level::Info, "copy"),
                Notice::Restoring { .. } if self.restoring_at.is_some_and(|at| at.elapsed() < RESTORING) => continue,
                Notice::Restoring { .. } => {
                    self.restoring_at = Some(Instant::now());
                    (Level::Warn, "restoring")
                }
                Notice::Foreign { .. } => (Level::Warn, "foreign"),
                Notice::Truncated { .. } => (Level::Warn, "truncated"),
                Notice::StateUnreadable { .. } => (Level::Warn, "state_unreadable"),
                Notice::File(_) => (Level::Warn, "file"),
                Notice::Changed(_) => (Level::Warn, "changed"),
            };
            let is_loud = match notice {
                _ if !self.is_one_of_many => true,
                Notice::Restoring { .. } => repeats::may_log("Redis lost what they had sent; sending it again"),
                _ => level != Level::Info,
            };
            let level = if is_loud { level } else { Level::Debug };
            if matches!(notice, Notice::Foreign { .. }) {
                service::metrics::error("foreign_entry");
            }
            let Self { name, stream, .. } = self;
            if missing > 0 {
                log!(level, event = event, stream = stream.as_str(), bytes = missing; "{name}{notice}");
            } else {
                log!(level, event = event, stream = stream.as_str(); "{name}{notice}");
            }
        }
    }

    /// Records an added batch.
    pub(crate) fn added(&self, batch: &Batch, took: Duration) {
        counter!(LINES).increment(batch.lines);
        counter!(BYTES).increment(batch.bytes);
        counter!(BATCHES).increment(1);
        histogram!(BATCH_SECONDS).record(took);
        debug!(
            event = "batch", stream = self.stream.as_str(), lines = batch.lines, bytes = batch.bytes, offset = batch.read_to;
            "stream {}: {} {} ({} bytes) up to {} in {took:?}",
            self.stream, batch.lines, noun(batch.lines, "line"), batch.bytes, batch.end.id()
        );
    }

    /// Logs a change of Redis or of the folder by others.
    pub(crate) fn changed(&mut self, changed: Changed) {
        let is_quiet = self.changed_at.is_some_and(|at| at.elapsed() < CHANGED);
        let level = if is_quiet { Level::Debug } else { Level::Info };
        log!(level, "{}{}", self.name, Notice::Changed(changed));
        if !is_quiet {
            self.changed_at = Some(Instant::now());
        }
    }

    /// Records that the stream is full. Returns whether to query the groups now.
    pub(crate) fn is_full(&mut self) -> bool {
        let is_new = self.full_at.is_none_or(|at| at.elapsed() >= FULL);
        let is_due = is_new || self.asked_at.elapsed() >= STUCK;
        self.full_at = Some(Instant::now());
        if is_new {
            (self.is_logged, self.stuck) = (false, None);
        }
        if is_due {
            self.asked_at = Instant::now();
        }
        is_due
    }

    /// Logs once that the stream is full, and which group holds it up. Returns a reason not to be
    /// ready if that group has no consumers or makes no progress.
    pub(crate) fn full(&mut self, stream: &StreamState, max_backlog: u64, groups: &[GroupInfo]) -> Option<String> {
        let share = if self.partition.is_whole() { "" } else { " for its share" };
        let why = full(&self.stream, share, stream, max_backlog, groups);
        let slowest = slowest(groups, stream);
        let is_stuck = slowest.is_some() && self.stuck == slowest;
        let is_dead = is_stuck || slowest.as_ref().is_some_and(|(_, _, consumers)| *consumers == 0);
        self.stuck = slowest;
        if is_dead {
            self.is_logged = true;
            return Some(why);
        }
        if !std::mem::replace(&mut self.is_logged, true) {
            warn!("{why}");
        }
        None
    }
}

/// A message that a stream is full, which group holds it up, and what to do.
pub(crate) fn full(key: &str, share: &str, stream: &StreamState, max_backlog: u64, groups: &[GroupInfo]) -> String {
    let held_up = match slowest(groups, stream) {
        Some((_, 0, _)) => "all groups have acknowledged them, and a writer is about to trim them".to_owned(),
        Some((name, waiting, consumers)) => format!(
            "group {name} holds it up ({waiting} {} not acknowledged, {consumers} {}); start its writer, or remove the \
             group with XGROUP DESTROY if nobody needs it",
            noun(waiting, "entry"),
            noun(consumers, "consumer")
        ),
        None => "no group reads it; start a writer".to_owned(),
    };
    let len = stream.len;
    format!("stream {key}: {len} entries, as many as --max-backlog {max_backlog} allows{share}; waiting; {held_up}")
}

/// The group with the most entries that it has not acknowledged.
fn slowest(groups: &[GroupInfo], stream: &StreamState) -> Option<Slowest> {
    let waiting = |group: &GroupInfo| {
        let lag = group.lag.unwrap_or(if group.last_delivered_id >= stream.last_id { 0 } else { stream.len });
        lag.saturating_add(group.pending)
    };
    let slowest = groups.iter().max_by_key(|group| (waiting(group), std::cmp::Reverse(group.consumers)))?;
    let name = String::from_utf8_lossy(&slowest.name).escape_debug().to_string();
    Some((name, waiting(slowest), slowest.consumers))
}
