//! Trimming: what every group of the stream has acknowledged, and which group holds up the others.

use resp::StreamId;
use std::time::{Duration, Instant};

/// A group that makes no progress for this long while it needs many entries is reported.
const STUCK: Duration = Duration::from_secs(5);
/// With fewer entries than [`MANY`], it is reported after this time.
const STUCK_WITH_FEW: Duration = Duration::from_secs(60);
/// Many entries.
const MANY: u64 = 1000;
/// How often the same group is reported.
const REPORT_EVERY: Duration = Duration::from_secs(300);

/// A group of the stream, ours or another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupState {
    /// Its name.
    pub name: Vec<u8>,
    /// The last ID that was delivered to it.
    pub last_delivered: StreamId,
    /// Entries delivered and not acknowledged.
    pub pending: u64,
    /// The smallest ID of them, when it was asked for.
    pub first_pending: Option<StreamId>,
    /// Entries that were not delivered yet, when Redis knows.
    pub lag: Option<u64>,
}

impl GroupState {
    /// Entries that are not delivered yet.
    ///
    /// Redis does not always know (`lag` is null after some deletions). Then it is nothing when the
    /// last entry was delivered, else at most what the stream holds without what is pending.
    #[must_use]
    pub fn lag(&self, length: u64, last_generated: Option<StreamId>) -> u64 {
        match self.lag {
            Some(lag) => lag.min(length),
            None if last_generated.is_some_and(|last| last <= self.last_delivered) => 0,
            None => length.saturating_sub(self.pending),
        }
    }

    /// The smallest ID that it still needs. Ask for what is pending *after* asking for the groups:
    /// what was acknowledged meanwhile is then below its last delivered ID.
    fn needs_from(&self) -> Option<StreamId> {
        self.first_pending.or_else(|| self.last_delivered.next())
    }
}

/// The ID below which every group has acknowledged everything. `None`: nothing can be said.
#[must_use]
pub fn trim_below<'a>(groups: impl IntoIterator<Item = &'a GroupState>) -> Option<StreamId> {
    groups.into_iter().map(GroupState::needs_from).min()?
}

/// Whether the stream holds entries that every group has acknowledged: another one was behind when
/// they were last trimmed, and is gone or got on since.
#[must_use]
pub fn can_trim(groups: &[GroupState], length: u64) -> bool {
    let needed = groups.iter().map(|group| group.lag(length, None).saturating_add(group.pending)).max();
    needed.is_some_and(|needed| needed < length)
}

/// A group that needs entries which ours has done, and makes no progress.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldUp {
    /// Its name.
    pub group: String,
    /// How many entries it needs.
    pub entries: u64,
    /// For how long it has made no progress, as far as this writer has seen.
    pub since: Duration,
}

/// Watches whether another group keeps entries in the stream that ours has done.
#[derive(Debug, Default)]
pub struct TrimWatch {
    last: Option<Holder>,
    reported_at: Option<Instant>,
}

#[derive(Debug)]
struct Holder {
    state: (Vec<u8>, StreamId, u64),
    since: Instant,
}

impl TrimWatch {
    /// The groups of a stream of this length at one moment. `Some`: report it.
    pub fn observe(&mut self, ours: &str, groups: &[GroupState], length: u64, now: Instant) -> Option<HeldUp> {
        let Some(holder) = holder(ours, groups) else {
            *self = Self::default();
            return None;
        };
        let state = (holder.name.clone(), holder.last_delivered, holder.pending);
        let last = self.last.take().filter(|last| last.state == state);
        let since = last.map_or(now, |last| last.since);
        self.last = Some(Holder { state, since });
        let held = now.saturating_duration_since(since);
        let entries = holder.lag(length, None).saturating_add(holder.pending);
        let is_due = held >= if entries >= MANY { STUCK } else { STUCK_WITH_FEW };
        let is_new = self.reported_at.is_none_or(|at| now.saturating_duration_since(at) >= REPORT_EVERY);
        if entries == 0 || !is_due || !is_new {
            return None;
        }
        self.reported_at = Some(now);
        Some(HeldUp { group: String::from_utf8_lossy(&holder.name).into_owned(), entries, since: held })
    }
}

/// Another group that needs entries which ours has done: of several, the one that is furthest
/// behind.
#[must_use]
pub fn holder<'a>(ours: &str, groups: &'a [GroupState]) -> Option<&'a GroupState> {
    let own = groups.iter().find(|group| group.name == ours.as_bytes())?;
    let others = groups.iter().filter(|group| group.name != ours.as_bytes());
    let behind = others.filter(|group| group.last_delivered < own.last_delivered || group.pending > 0);
    behind.min_by_key(|group| group.last_delivered)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(name: &str, last: u64, first_pending: Option<u64>, lag: Option<u64>, pending: u64) -> GroupState {
        let id = |seq| StreamId::new(5, seq);
        GroupState { name: name.into(), last_delivered: id(last), pending, first_pending: first_pending.map(id), lag }
    }

    #[test]
    fn a_lag_that_redis_does_not_know_is_bounded() {
        let lag = |lag, last, pending, end: Option<u64>| {
            group("g", last, None, lag, pending).lag(10, end.map(|seq| StreamId::new(5, seq)))
        };
        assert_eq!(lag(Some(3), 1, 2, None), 3);
        assert_eq!(lag(Some(30), 1, 2, None), 10, "never more than there is");
        assert_eq!(lag(None, 9, 2, Some(9)), 0, "all was delivered");
        assert_eq!(lag(None, 1, 2, Some(9)), 8);
        assert_eq!(lag(None, 1, 20, None), 0);
    }

    #[test]
    fn what_is_pending_or_not_delivered_is_needed() {
        let id = |seq| StreamId::new(5, seq);
        let groups = [group("a", 10, None, None, 0), group("b", 12, Some(4), None, 1)];
        assert_eq!(trim_below(&groups[..1]), Some(id(11)));
        assert_eq!(trim_below(&groups), Some(id(4)));
        assert_eq!(trim_below(&[]), None);
        let last = GroupState { last_delivered: StreamId::MAX, ..groups[0].clone() };
        assert_eq!(trim_below([&last]), None);
    }

    #[test]
    fn what_a_group_held_up_is_trimmed_when_that_is_gone() {
        let ours = group("ours", 10, None, Some(0), 0);
        let behind = group("behind", 0, None, Some(10), 0);
        assert!(!can_trim(&[ours.clone(), behind], 10), "another group needs all of it");
        assert!(can_trim(std::slice::from_ref(&ours), 10));
        assert!(!can_trim(&[ours], 0) && !can_trim(&[], 10));
        assert!(!can_trim(&[group("ours", 10, Some(8), None, 2)], 10), "nobody knows");
    }

    #[test]
    fn a_group_that_nobody_reads_is_reported_once_in_a_while() {
        let begun = Instant::now();
        let after = |seconds| begun + Duration::from_secs(seconds);
        let groups = [group("ours", 5000, None, Some(0), 0), group("old", 0, None, Some(5000), 0)];
        let mut watch = TrimWatch::default();
        assert_eq!(watch.observe("ours", &groups, 5000, begun), None);
        let held = watch.observe("ours", &groups, 5000, after(6)).unwrap();
        assert_eq!((held.group.as_str(), held.entries, held.since.as_secs()), ("old", 5000, 6));
        assert_eq!(watch.observe("ours", &groups, 5000, after(20)), None, "not again so soon");
        assert!(watch.observe("ours", &groups, 5000, after(310)).is_some());
    }

    #[test]
    fn a_group_that_is_only_slow_is_not_reported() {
        let begun = Instant::now();
        let mut watch = TrimWatch::default();
        for second in 0..100 {
            let groups = [group("ours", 5000, None, Some(0), 0), group("slow", second, None, Some(4000), 0)];
            assert_eq!(watch.observe("ours", &groups, 5000, begun + Duration::from_secs(second)), None);
        }
        let groups = [group("ours", 5000, None, Some(0), 0), group("even", 5000, None, Some(0), 0)];
        assert_eq!(watch.observe("ours", &groups, 5000, begun + Duration::from_secs(999)), None);
        let groups = [group("ours", 5000, None, Some(0), 0), group("dead", 5000, None, Some(0), 3)];
        let held =
            [0, 61].map(|seconds| watch.observe("ours", &groups, 5000, begun + Duration::from_secs(1200 + seconds)));
        assert_eq!(held[1].as_ref().map(|held| held.entries), Some(3), "it holds what it has not acknowledged");
        let groups = [group("ours", 5000, None, Some(0), 0), group("ahead", 6000, None, Some(0), 0)];
        assert_eq!(watch.observe("ours", &groups, 5000, begun + Duration::from_secs(1999)), None);
    }
}
