//! The number of entries per read: enough to keep the disk busy, with a bound on the bytes in
//! memory.

use super::Reply;
use super::record::Notes;
use crate::manifest::SHORT;
use resp::StreamId;
use std::time::{Duration, Instant};

/// The size at which a batch is handed over: 1 MiB.
pub const BATCH_BYTES: usize = 1 << 20;
/// Maximum size of a reply with long entries: 16 MiB.
const BUDGET: u64 = 16 << 20;
/// The COUNT of the first read. It grows while replies are full, and depends on the size of the
/// entries.
const FIRST_COUNT: u64 = 1;
/// Maximum COUNT.
pub const MAX_COUNT: u64 = 1000;
/// Maximum age of the notes for estimating the outstanding bytes.
const FRESH: Duration = Duration::from_millis(100);

/// Decides the COUNT.
#[derive(Debug)]
pub(super) struct Pace {
    count: u64,
    /// The COUNT of the latest read.
    asked: u64,
    notes: Notes,
    noted_at: Option<Instant>,
    /// The last ID of the latest reply.
    position: StreamId,
    /// The lag of the group at the last inspection.
    lag: Option<u64>,
}

impl Pace {
    pub(super) const fn new() -> Self {
        Self {
            count: FIRST_COUNT,
            asked: FIRST_COUNT,
            notes: Notes { output: None, shared: None, longest: None, long: None, end: None, sent: None },
            noted_at: None,
            position: StreamId::ZERO,
            lag: None,
        }
    }

    /// Starts again with a small COUNT and pending entries, on a new connection.
    pub(super) const fn restart(&mut self) {
        self.count = FIRST_COUNT;
        self.position = StreamId::ZERO;
    }

    /// The end of the reader's latest batch.
    pub(super) const fn end(&self) -> Option<StreamId> {
        self.notes.end
    }

    pub(super) fn noted(&mut self, notes: &Notes, lag: Option<u64>, now: Instant) {
        self.notes.clone_from(notes);
        self.noted_at = Some(now);
        self.lag = lag.or(self.lag);
    }

    /// Whether the notes are stale.
    pub(super) fn is_stale(&self, now: Instant) -> bool {
        self.noted_at.is_none_or(|at| now.saturating_duration_since(at) > FRESH)
    }

    /// Reports a reply. Returns whether to send the next read ahead: if this reply was full, and
    /// memory has room for both.
    pub(super) fn came(&mut self, reply: Reply) -> bool {
        let is_full = reply.entries >= self.asked;
        let fits = u64::try_from(BATCH_BYTES / reply.last_size.max(1)).unwrap_or(1);
        // COUNT falls at once, but rises slowly.
        self.count = if is_full { self.count.saturating_mul(4) } else { self.count }.min(fits).clamp(1, MAX_COUNT);
        self.position = self.position.max(reply.last);
        is_full && reply.last_size as u64 <= BUDGET
    }

    /// The COUNT of the latest read.
    pub(super) const fn asked(&self) -> u64 {
        self.asked
    }

    /// The COUNT of the next read.
    pub(super) fn count(&mut self, now: Instant) -> u64 {
        self.asked = self.count.min(self.most(now)).max(1);
        self.asked
    }

    /// The number of entries that always fit.
    fn most(&self, now: Instant) -> u64 {
        let Notes { longest, long, end, .. } = self.notes;
        let outstanding =
            end.filter(|end| end.ms == self.position.ms).map(|end| end.seq.saturating_sub(self.position.seq));
        match longest {
            Some(longest) if longest <= SHORT || long.is_some_and(|long| long <= self.position) => MAX_COUNT,
            // IDs are positions, so their difference bounds the bytes between them.
            Some(_) if outstanding.is_some_and(|bytes| bytes <= BUDGET) && !self.is_stale(now) => MAX_COUNT,
            Some(longest) => BUDGET / longest,
            // Without notes of the reader, only the average size is known. Single entries may be
            // far larger.
            None => match outstanding.zip(self.lag) {
                Some((bytes, lag)) => (BUDGET / 16 / (bytes / lag.max(1)).max(1)).max(16),
                None => MAX_COUNT,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grown(notes: &Notes, lag: u64) -> (Pace, Instant) {
        let now = Instant::now();
        let mut pace = Pace::new();
        pace.noted(notes, Some(lag), now);
        for _ in 0..10 {
            let count = pace.count(now);
            pace.came(Reply { entries: count, last: StreamId::new(5, 50_000), last_size: 50 });
        }
        (pace, now)
    }

    #[test]
    fn short_lines_come_by_the_thousand() {
        let notes = Notes { longest: Some(SHORT), end: Some(StreamId::new(5, 1 << 40)), ..Notes::default() };
        let (mut pace, now) = grown(&notes, 1);
        assert_eq!(pace.count(now), MAX_COUNT);
        let (mut pace, now) = grown(&Notes::default(), 1);
        assert_eq!(pace.count(now), MAX_COUNT, "nothing is known");
    }

    #[test]
    fn count_times_the_longest_stays_within_the_budget() {
        for longest in [128 << 10, 1 << 20, 4 << 20, 64 << 20] {
            let notes = Notes { longest: Some(longest), end: Some(StreamId::new(5, 1 << 40)), ..Notes::default() };
            let (mut pace, now) = grown(&notes, 1);
            let count = pace.count(now);
            assert!(count == 1 || count * longest <= BUDGET, "{count} of {longest}");
        }
    }

    #[test]
    fn what_is_outstanding_bounds_a_reply_while_it_is_fresh() {
        let end = Some(StreamId::new(5, 50_000 + BUDGET));
        let notes = Notes { longest: Some(4 << 20), end, ..Notes::default() };
        let (mut pace, now) = grown(&notes, 1);
        assert_eq!(pace.count(now), MAX_COUNT);
        assert_eq!(pace.count(now + Duration::from_secs(1)), 4, "more may have been added since");
    }

    #[test]
    fn behind_the_last_long_entry_all_are_short() {
        let end = Some(StreamId::new(5, 1 << 40));
        let long = |seq| Notes { longest: Some(64 << 20), long: Some(StreamId::new(5, seq)), end, ..Notes::default() };
        let (mut pace, now) = grown(&long(50_000), 1);
        assert_eq!(pace.count(now), MAX_COUNT);
        let (mut pace, now) = grown(&long(50_001), 1);
        assert_eq!(pace.count(now), 1);
    }

    #[test]
    fn an_old_record_makes_it_careful() {
        // 20,000 short lines, then 300 of 4 MB.
        let notes = Notes { end: Some(StreamId::new(5, 1_200_200_000)), ..Notes::default() };
        let (mut pace, now) = grown(&notes, 20_300);
        assert!(pace.count(now) * 4_000_000 < 100 << 20, "{}", pace.count(now));
        let notes = Notes { end: Some(StreamId::new(5, 100_000_000)), ..Notes::default() };
        assert_eq!(grown(&notes, 1_000_000).0.count(now), MAX_COUNT, "short lines");
    }
}
