//! How long the way from the reader to the durable output takes.
//!
//! The reader notes in the source record when it sent its latest batch ([`Sent`]). The stage that
//! acknowledges reads that note once a second, with what it asks anyway, and compares it with the
//! commits: so one batch a second is measured, and no line costs anything.

use delivery::consumer::Batch;
use delivery::manifest::Sent;
use resp::StreamId;
use std::collections::VecDeque;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How many commits are remembered: some hundred milliseconds of a busy writer, for a note that is
/// read after its batch was committed.
const COMMITS: usize = 256;
/// The same of one of many sources, whose commits are fewer.
const COMMITS_OF_SOURCE: usize = 32;
/// How many notes may wait for their batch. Of a writer that is further behind, those that are read
/// meanwhile are left out.
const WAITING: usize = 64;
/// Clocks of two hosts differ, and clocks are set: what is measured is between 0 and a day.
const MOST: Duration = Duration::from_secs(24 * 60 * 60);

/// A commit: from which entry to which, and when it was durable.
#[derive(Debug, Clone, Copy)]
struct Commit {
    first: StreamId,
    last: StreamId,
    at: SystemTime,
}

impl Commit {
    fn holds(&self, id: StreamId) -> bool {
        (self.first..=self.last).contains(&id)
    }
}

/// The latency of one partition.
#[derive(Debug)]
pub(crate) struct Latency {
    commits: VecDeque<Commit>,
    /// How many commits are remembered.
    most: usize,
    /// Batches that were sent and are not committed yet, in the order in which they were seen.
    waiting: VecDeque<Sent>,
    /// The note that was read last.
    seen: Option<Sent>,
    measured: Vec<Duration>,
}

impl Default for Latency {
    fn default() -> Self {
        Self { commits: VecDeque::new(), most: COMMITS, waiting: VecDeque::new(), seen: None, measured: Vec::new() }
    }
}

impl Latency {
    /// The latency of one of many sources.
    pub(crate) fn of_source() -> Self {
        Self { most: COMMITS_OF_SOURCE, ..Self::default() }
    }

    /// The reader's note was read.
    pub(crate) fn sent(&mut self, sent: Sent) {
        if self.seen.replace(sent) == Some(sent) {
            return;
        }
        match self.commits.iter().rev().find(|commit| commit.holds(sent.last)) {
            Some(commit) => self.measured.push(between(sent, commit.at)),
            // It may have been committed so long ago that nobody remembers, or by another writer:
            // then it is dropped when something later is committed.
            None if self.waiting.len() < WAITING => self.waiting.push_back(sent),
            None => {}
        }
    }

    /// A batch is durable.
    pub(crate) fn committed(&mut self, batch: &Batch) {
        let (Some((first, last)), Some(at)) = (batch.entry_range(), batch.durable_at) else { return };
        if batch.runs.is_empty() {
            return;
        }
        let commit = Commit { first, last, at };
        if self.commits.len() == self.most {
            self.commits.pop_front();
        }
        self.commits.push_back(commit);
        let measured = &mut self.measured;
        self.waiting.retain(|sent| {
            if commit.holds(sent.last) {
                measured.push(between(*sent, at));
            }
            sent.last > last
        });
    }

    /// The measurements since the last call.
    pub(crate) fn measured(&mut self) -> impl Iterator<Item = Duration> + use<> {
        std::mem::take(&mut self.measured).into_iter()
    }
}

fn between(sent: Sent, durable_at: SystemTime) -> Duration {
    let durable_at = durable_at.duration_since(UNIX_EPOCH).unwrap_or_default();
    durable_at.saturating_sub(Duration::from_millis(sent.unix_ms)).min(MOST)
}

#[cfg(test)]
mod tests {
    use super::*;
    use delivery::consumer::Run;

    fn sent(seq: u64, unix_ms: u64) -> Sent {
        Sent { last: StreamId::new(5, seq), unix_ms }
    }

    /// Entries of ten bytes each, durable at this time.
    fn batch(ends: std::ops::RangeInclusive<u64>, unix_ms: u64) -> Batch {
        let ids: Vec<StreamId> = ends.step_by(10).map(|end| StreamId::new(5, end)).collect();
        let runs = vec![Run { file_id: 5, span: 0..10, lines: 1 }];
        Batch { ids, runs, durable_at: Some(UNIX_EPOCH + Duration::from_millis(unix_ms)), ..Batch::default() }
    }

    fn measured(latency: &mut Latency) -> Vec<u64> {
        latency.measured().map(|one| one.as_millis() as u64).collect()
    }

    #[test]
    fn a_batch_that_was_committed_before_its_note_was_read_is_measured() {
        let mut latency = Latency::default();
        latency.committed(&batch(10..=30, 1005));
        latency.committed(&batch(40..=60, 1025));
        latency.sent(sent(50, 1000));
        assert_eq!(measured(&mut latency), [25]);
        latency.sent(sent(50, 1000));
        assert_eq!(measured(&mut latency), [0_u64; 0], "once");
    }

    #[test]
    fn a_batch_that_waits_is_measured_when_it_is_committed() {
        let mut latency = Latency::default();
        latency.sent(sent(30, 1000));
        latency.sent(sent(90, 2000));
        assert_eq!(measured(&mut latency), [0_u64; 0]);
        latency.committed(&batch(10..=60, 61_000));
        latency.committed(&batch(70..=120, 62_000));
        assert_eq!(measured(&mut latency), [60_000, 60_000]);
    }

    #[test]
    fn what_another_writer_took_is_not_measured() {
        let mut latency = Latency::default();
        latency.sent(sent(30, 1000));
        latency.committed(&batch(40..=60, 9000));
        latency.sent(sent(20, 8000));
        latency.committed(&batch(70..=80, 9000));
        assert_eq!(measured(&mut latency), [0_u64; 0]);
        assert!(latency.waiting.is_empty());
    }

    #[test]
    fn clocks_that_differ_give_no_nonsense() {
        let mut latency = Latency::default();
        latency.committed(&batch(10..=10, 1000));
        latency.sent(sent(10, 5000));
        latency.committed(&batch(20..=20, 90_000_000_000));
        latency.sent(sent(20, 1));
        assert_eq!(measured(&mut latency), [0, 24 * 60 * 60 * 1000]);
    }

    #[test]
    fn a_writer_that_is_far_behind_remembers_no_more_than_it_may() {
        let mut latency = Latency::default();
        for nth in 1..=1000 {
            latency.sent(sent(nth * 10, nth));
            latency.committed(&batch(nth * 10_000..=nth * 10_000, 1));
            latency.sent(sent(1 << 40, nth));
        }
        assert!(latency.waiting.len() <= WAITING && latency.commits.len() <= COMMITS);
    }
}
