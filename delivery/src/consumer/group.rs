//! What Redis says of the writer's own group: who takes part, and what is pending.

use super::lease::Lease;
use super::record::Notes;
use resp::StreamId;
use std::time::{Duration, Instant};

/// A consumer that has nothing pending and did nothing for this long takes no part.
pub const GONE: Duration = Duration::from_secs(10);
/// Replies may be this late.
const SLACK: Duration = Duration::from_millis(250);

/// One consumer of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its name.
    pub name: Vec<u8>,
    /// Entries that it was given and has not acknowledged.
    pub pending: u64,
    /// Since when it has asked for nothing.
    pub idle: Duration,
}

impl Member {
    /// Whether it asked for entries since it was `idle` for that long `at` that moment; it was
    /// looked at again at `now`.
    pub(super) fn is_awake(&self, idle: Duration, now: Instant, at: Instant) -> bool {
        self.idle.saturating_add(SLACK) < idle.saturating_add(now.saturating_duration_since(at))
    }
}

/// What was seen of our group at one moment.
#[derive(Debug, Clone)]
pub struct GroupView {
    /// When the questions went out.
    pub asked_at: Instant,
    /// The last ID that was delivered to the group.
    pub last_delivered: StreamId,
    /// Entries that were not delivered yet, when Redis knows.
    pub lag: Option<u64>,
    /// Entries that were delivered to it in all, when Redis knows.
    pub entries_read: Option<u64>,
    /// Its consumers.
    pub members: Vec<Member>,
    /// The notes in the source record.
    pub notes: Notes,
    /// The lease of a writer that has the group to itself.
    pub lease: Option<Lease>,
}

impl GroupView {
    /// The consumer with this name.
    #[must_use]
    pub fn member(&self, name: &str) -> Option<&Member> {
        self.members.iter().find(|member| member.name == name.as_bytes())
    }

    /// Whether an entry may have been acknowledged.
    pub(super) fn has_acknowledged(&self) -> bool {
        let pending = self.members.iter().map(|member| member.pending).fold(0, u64::saturating_add);
        self.last_delivered > StreamId::ZERO && self.entries_read.is_none_or(|read| read > pending)
    }

    /// Whether no other consumer than this one gets entries.
    #[must_use]
    pub fn is_alone(&self, consumer: &str) -> bool {
        let mut others = self.members.iter().filter(|member| member.name != consumer.as_bytes());
        others.all(|other| other.pending == 0 && other.idle >= GONE)
    }
}
