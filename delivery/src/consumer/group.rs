//! A view of the writer's own group: its members and pending entries.

use super::lease::Lease;
use super::record::Notes;
use resp::StreamId;
use std::time::{Duration, Instant};

/// The idle time after which a consumer without pending entries counts as gone.
pub const GONE: Duration = Duration::from_secs(10);
/// Allowance for late replies.
const SLACK: Duration = Duration::from_millis(250);

/// One consumer of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its name.
    pub name: Vec<u8>,
    /// The number of its pending entries.
    pub pending: u64,
    /// The time since its last read.
    pub idle: Duration,
}

impl Member {
    /// Whether it has read since `at`, when its idle time was `idle`. This member was measured at
    /// `now`. An idle time of zero proves nothing: Redis reports it for everybody while its clock
    /// is behind the time of the latest read.
    pub(super) fn is_awake(&self, idle: Duration, now: Instant, at: Instant) -> bool {
        !self.idle.is_zero() && self.idle.saturating_add(SLACK) < idle.saturating_add(now.saturating_duration_since(at))
    }
}

/// The state of the group at one moment.
#[derive(Debug, Clone)]
pub struct GroupView {
    /// When the queries were sent.
    pub asked_at: Instant,
    /// The last ID delivered to the group.
    pub last_delivered: StreamId,
    /// The number of entries not delivered yet, if Redis knows it.
    pub lag: Option<u64>,
    /// The number of entries ever delivered, if Redis knows it.
    pub entries_read: Option<u64>,
    /// The consumers.
    pub members: Vec<Member>,
    /// The notes in the source record.
    pub notes: Notes,
    /// The lease of an exclusive consumer.
    pub lease: Option<Lease>,
}

impl GroupView {
    /// The consumer with this name.
    #[must_use]
    pub fn member(&self, name: &str) -> Option<&Member> {
        self.members.iter().find(|member| member.name == name.as_bytes())
    }

    /// Whether any entry may have been acknowledged.
    pub(super) fn has_acknowledged(&self) -> bool {
        let pending = self.members.iter().map(|member| member.pending).fold(0, u64::saturating_add);
        self.last_delivered > StreamId::ZERO && self.entries_read.is_none_or(|read| read > pending)
    }

    /// Whether no other consumer reads from the group.
    #[must_use]
    pub fn is_alone(&self, consumer: &str) -> bool {
        let mut others = self.members.iter().filter(|member| member.name != consumer.as_bytes());
        others.all(|other| other.pending == 0 && other.idle >= GONE)
    }
}
