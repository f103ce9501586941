//! The lease of a writer that consumes its group exclusively.
//!
//! An exclusive writer reads with `XREAD` and moves the group with `XGROUP SETID`. Redis does not
//! keep other writers out of the group, so the writer holds a lease: a hash beside the stream. Each
//! start of a writer creates a fencing token and stores it in the lease. To move the group, the
//! writer watches the lease and compares the token in the same transaction.
//!
//! The lease does not depend on the clock of Redis. The owner renews it regularly. Each renewal is
//! valid for a fixed time from the moment it was sent. Another writer takes the lease over when it
//! has observed no renewal for longer than that time.
//!
//! A renewal increments a counter that is stored as the expiry time of the key, in milliseconds
//! after a date in the far future. Redis executes `PEXPIREAT` even when its memory is full. An
//! owner that cannot renew its lease could not acknowledge and trim, so the memory would stay full.

use crate::later;
use crate::manifest::beside;
use resp::StreamId;
use std::time::{Duration, Instant};

/// How long a renewal is valid, by default.
pub const LEASE: Duration = Duration::from_secs(10);
/// The shortest time that can be configured.
pub const LEASE_MIN: Duration = Duration::from_secs(1);
/// The longest time that can be configured. A longer time in a lease in Redis is reduced to this.
pub const LEASE_MAX: Duration = Duration::from_secs(600);

/// The expiry time of a lease that was never renewed: a date in the year 2603, in milliseconds.
const NEVER: u64 = 20_000_000_000_000;

/// A lease, as stored in Redis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The owner's consumer name.
    pub consumer: String,
    /// The ID of the owner's output.
    pub output: String,
    /// The fencing token.
    pub token: String,
    /// The number of renewals.
    pub renewals: u64,
    /// How long a renewal is valid.
    pub time: Duration,
}

impl Lease {
    /// The fields of the hash, in the order that [`read`](Self::read) expects.
    pub const FIELDS: [&'static str; 4] = ["consumer", "output", "token", "milliseconds"];

    /// The key of the hash, in the stream's slot of a cluster.
    #[must_use]
    pub fn key(stream: &str, group: &str) -> String {
        beside(stream, &format!("lease:{group}"))
    }

    /// Parses the values of [`FIELDS`](Self::FIELDS) and the reply to `PEXPIRETIME`. `None` if
    /// there is no lease.
    #[must_use]
    pub fn read<'a>(values: impl IntoIterator<Item = Option<&'a [u8]>>, expires: Option<i64>) -> Option<Self> {
        let values: Vec<_> = values.into_iter().take(Self::FIELDS.len()).collect();
        if values.iter().all(Option::is_none) {
            return None;
        }
        let text =
            |nth: usize| String::from_utf8_lossy(values.get(nth).copied().flatten().unwrap_or_default()).into_owned();
        let time = text(3).parse().map_or(LEASE, Duration::from_millis);
        Some(Self {
            consumer: text(0),
            output: text(1),
            token: text(2),
            renewals: expires.and_then(|at| u64::try_from(at).ok()).map_or(0, |at| at.saturating_sub(NEVER)),
            time: time.clamp(LEASE_MIN, LEASE_MAX),
        })
    }

    /// The fields and values of the hash.
    #[must_use]
    pub fn pairs(&self) -> [(&'static str, String); 4] {
        let [consumer, output, token, time] = Self::FIELDS;
        [
            (consumer, self.consumer.clone()),
            (output, self.output.clone()),
            (token, self.token.clone()),
            (time, self.time.as_millis().to_string()),
        ]
    }

    /// The expiry time of the key, for `PEXPIREAT`.
    #[must_use]
    pub const fn expires(&self) -> u64 {
        NEVER.saturating_add(self.renewals)
    }

    /// This lease after one more renewal.
    #[must_use]
    pub fn renewed(&self) -> Self {
        Self { renewals: self.renewals.saturating_add(1), ..self.clone() }
    }

    /// Whether both leases have the same token, and so belong to the same start of a writer.
    #[must_use]
    pub fn is_of(&self, other: &Self) -> bool {
        self.token == other.token
    }
}

/// A quarter of the time of a lease: the interval of renewals, and the margin of a takeover.
fn quarter(time: Duration) -> Duration {
    time.checked_div(4).unwrap_or_default()
}

/// The state of another writer's lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LeaseState {
    /// The latest renewal is no longer valid.
    Expired,
    /// The owner may hold the lease.
    Held {
        /// Whether a renewal was observed, so the owner is alive.
        is_renewed: bool,
    },
}

/// Observes another writer's lease, to detect when it expires.
#[derive(Debug, Default)]
pub(super) struct LeaseWatch {
    /// The lease, when this value was first observed, and whether a renewal was observed.
    seen: Option<(Lease, Instant, bool)>,
}

impl LeaseWatch {
    /// The state of a lease that has this value now.
    pub(super) fn observe(&mut self, lease: &Lease, now: Instant) -> LeaseState {
        match &self.seen {
            Some((seen, since, is_renewed)) if seen == lease => {
                // For the owner the time begins when it sends the renewal, and here when the
                // renewal is observed, which is later. The margin allows for clocks of different
                // speed.
                if now.saturating_duration_since(*since) > lease.time.saturating_add(quarter(lease.time)) {
                    return LeaseState::Expired;
                }
                LeaseState::Held { is_renewed: *is_renewed }
            }
            other => {
                let is_renewed = other.as_ref().is_some_and(|(seen, ..)| seen.is_of(lease));
                self.seen = Some((lease.clone(), now, is_renewed));
                LeaseState::Held { is_renewed }
            }
        }
    }

    /// Forgets the lease, because it was removed or this writer holds it.
    pub(super) fn forget(&mut self) {
        self.seen = None;
    }
}

/// A period of exclusive reading on one connection: where the group was at its start, and the lease
/// under which the consumer moves it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// The number of the session. A consumer counts its sessions.
    pub number: u64,
    /// The lease, with the token of this consumer.
    pub lease: Lease,
    /// When the latest renewal was sent.
    pub renewed_at: Instant,
    /// The last ID that was delivered to the group.
    pub at: StreamId,
    /// The number of entries that the group has read up to `at`. `None` if Redis does not know it.
    pub entries_read: Option<u64>,
}

/// Entries that an exclusive consumer has read. The group moves past them when they are durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Advance {
    /// The session that read them.
    pub session: u64,
    /// The first ID.
    pub first: StreamId,
    /// The last ID.
    pub to: StreamId,
    /// The number of entries.
    pub entries: u64,
}

/// A transaction of the [`Checkpoint`]. Redis executes it only if the lease has not changed since
/// the connection began to watch it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Move {
    /// The renewed lease, if it is time to renew it.
    pub renew: Option<Lease>,
    /// The ID to which the group moves, and the number of entries read up to it.
    pub group: Option<(StreamId, Option<u64>)>,
}

/// The result of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moved {
    /// Redis executed it.
    Done,
    /// Redis did not execute it, because the lease changed. The consumer still holds the lease: try
    /// again.
    Retry,
    /// Another writer holds the lease, or it was removed.
    Lost,
}

/// Moves the group for an exclusive consumer, and renews its lease.
///
/// The driver uses one connection for both. It watches and reads the lease, and executes the
/// [`next`](Self::next) transaction. `EXEC` ends the watch, so the driver sends the next `WATCH`
/// along with it.
#[derive(Debug)]
pub struct Checkpoint {
    session: Session,
    /// The last durable ID, to which the group has not moved yet, and the entries read up to it.
    due: Option<(StreamId, Option<u64>)>,
}

impl Checkpoint {
    /// The checkpoint of a session.
    #[must_use]
    pub const fn new(session: Session) -> Self {
        Self { session, due: None }
    }

    /// The number of the session.
    #[must_use]
    pub const fn session(&self) -> u64 {
        self.session.number
    }

    /// The fencing token of the lease.
    #[must_use]
    pub fn token(&self) -> &str {
        &self.session.lease.token
    }

    /// The ID to which this consumer last moved the group.
    #[must_use]
    pub const fn at(&self) -> StreamId {
        self.session.at
    }

    /// Whether the group has moved past all durable entries.
    #[must_use]
    pub const fn is_settled(&self) -> bool {
        self.due.is_none()
    }

    /// The time until which the lease is valid.
    #[must_use]
    pub fn valid_until(&self) -> Instant {
        later(self.session.renewed_at, self.session.lease.time)
    }

    /// The time of the next renewal.
    #[must_use]
    pub fn renew_at(&self) -> Instant {
        later(self.session.renewed_at, quarter(self.session.lease.time))
    }

    /// Reports that the connection watches the lease, and its value. Returns whether this consumer
    /// holds it.
    pub fn watched(&mut self, lease: Option<&Lease>) -> bool {
        let is_ours = lease.is_some_and(|lease| lease.is_of(&self.session.lease));
        if let Some(lease) = lease.filter(|_| is_ours) {
            self.session.lease.renewals = self.session.lease.renewals.max(lease.renewals);
        }
        is_ours
    }

    /// Reports durable entries. Entries of an earlier session do not move the group, because this
    /// session reads them again. The group never moves back.
    pub fn advance(&mut self, advance: &Advance) {
        let (at, read) = self.due.unwrap_or((self.session.at, self.session.entries_read));
        if advance.session == self.session.number && advance.to > at {
            self.due = Some((advance.to, read.map(|read| read.saturating_add(advance.entries))));
        }
    }

    /// The next transaction, if one is due.
    #[must_use]
    pub fn next(&self, now: Instant) -> Option<Move> {
        let renew = (now >= self.renew_at()).then(|| self.session.lease.renewed());
        (renew.is_some() || self.due.is_some()).then_some(Move { renew, group: self.due })
    }

    /// Reports the result of a transaction that was sent at `sent_at`. `is_executed` is `false` if
    /// `EXEC` failed because the lease had changed. `lease` is the lease after the transaction,
    /// when the connection began to watch it again.
    pub fn done(&mut self, step: &Move, sent_at: Instant, is_executed: bool, lease: Option<&Lease>) -> Moved {
        if is_executed {
            if let Some(lease) = &step.renew {
                self.session.lease.renewals = lease.renewals;
                self.session.renewed_at = sent_at;
            }
            if let Some((at, read)) = step.group {
                (self.session.at, self.session.entries_read, self.due) = (at, read, None);
            }
        }
        match self.watched(lease) {
            false => Moved::Lost,
            true if is_executed => Moved::Done,
            true => Moved::Retry,
        }
    }

    /// Whether another program has moved the group, which is at `last_delivered`.
    #[must_use]
    pub fn is_moved(&self, last_delivered: StreamId) -> bool {
        last_delivered != self.session.at
    }

    /// Whether to query the number of entries of the stream: the group is at the end of the
    /// reader's latest batch, but Redis does not report a lag of 0.
    #[must_use]
    pub fn needs_count(&self, lag: Option<u64>, end: Option<StreamId>) -> bool {
        self.session.at > StreamId::ZERO && lag != Some(0) && end.is_none_or(|end| end <= self.session.at)
    }

    /// Whether the number of entries that the group has read is unknown, as in a new group.
    #[must_use]
    pub const fn lacks_count(&self) -> bool {
        self.session.entries_read.is_none()
    }

    /// Computes the number of entries read, from the entries ever added to the stream and the lag
    /// of the group. Both were measured while the group was at `at`.
    pub fn begin_count(&mut self, at: StreamId, added: Option<u64>, lag: Option<u64>) {
        if at == self.session.at {
            self.session.entries_read = added.zip(lag).and_then(|(added, lag)| added.checked_sub(lag));
        }
    }

    /// Corrects the number of entries read when the group is at the stream's `last` ID: then it has
    /// read all entries ever `added`. The number is too small after entries were deleted unread.
    pub fn count(&mut self, last: StreamId, added: Option<u64>) {
        if last == self.session.at && added.is_some() && self.due.is_none() && self.session.entries_read != added {
            self.session.entries_read = added;
            self.due = Some((last, added));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(token: &str) -> Lease {
        let (consumer, output) = ("one".to_owned(), "a".to_owned());
        Lease { consumer, output, token: token.to_owned(), renewals: 3, time: Duration::from_secs(5) }
    }

    fn id(seq: u64) -> StreamId {
        StreamId::new(5, seq)
    }

    fn session(now: Instant) -> Session {
        Session { number: 2, lease: lease("t"), renewed_at: now, at: id(10), entries_read: Some(7) }
    }

    fn checkpoint(now: Instant) -> Checkpoint {
        Checkpoint::new(session(now))
    }

    fn advance(session: u64, to: u64) -> Advance {
        Advance { session, first: id(1), to: id(to), entries: 4 }
    }

    #[test]
    fn a_lease_is_read_as_it_was_written() {
        let pairs = lease("t").pairs();
        let values = pairs.iter().map(|(_, value)| Some(value.as_bytes()));
        assert_eq!(Lease::read(values, i64::try_from(lease("t").expires()).ok()), Some(lease("t")));
        assert_eq!(Lease::read([None; 4], Some(-2)), None);
        let odd = Lease::read([None, None, None, Some(&b"99999999999"[..])], Some(-1)).unwrap();
        assert_eq!((odd.token.as_str(), odd.renewals, odd.time), ("", 0, LEASE_MAX), "the lease is held");
        assert_eq!(Lease::key("lines", "writers"), "{lines}:lease:writers");
        assert_eq!(Lease::key("parts:{0}", "writers"), "parts:{0}:lease:writers");
    }

    #[test]
    fn the_group_moves_forward_and_never_back() {
        let now = Instant::now();
        let mut checkpoint = checkpoint(now);
        assert_eq!(checkpoint.next(now), None);
        checkpoint.advance(&advance(1, 30));
        assert_eq!(checkpoint.next(now), None, "read in an earlier session");
        checkpoint.advance(&advance(2, 9));
        assert_eq!(checkpoint.next(now), None, "the group is there already");
        checkpoint.advance(&advance(2, 20));
        checkpoint.advance(&advance(2, 30));
        let step = checkpoint.next(now).unwrap();
        assert_eq!(step, Move { renew: None, group: Some((id(30), Some(15))) });
        assert_eq!(checkpoint.done(&step, now, true, Some(&lease("t"))), Moved::Done);
        assert_eq!((checkpoint.next(now), checkpoint.at()), (None, id(30)));
        assert!(checkpoint.is_moved(id(20)) && !checkpoint.is_moved(id(30)));
    }

    #[test]
    fn a_failed_transaction_is_retried_only_under_our_lease() {
        let now = Instant::now();
        let mut checkpoint = checkpoint(now);
        checkpoint.advance(&advance(2, 20));
        let step = checkpoint.next(now).unwrap();
        assert_eq!(checkpoint.done(&step, now, false, Some(&lease("t").renewed())), Moved::Retry);
        assert_eq!(checkpoint.next(now), Some(step.clone()));
        assert_eq!(checkpoint.done(&step, now, false, Some(&lease("u"))), Moved::Lost);
        assert_eq!(checkpoint.done(&step, now, false, None), Moved::Lost);
        assert!(!checkpoint.watched(Some(&lease("u"))) && !checkpoint.watched(None));
    }

    #[test]
    fn a_lease_is_renewed_long_before_it_expires() {
        let now = Instant::now();
        let mut checkpoint = checkpoint(now);
        let later = now + Duration::from_secs(2);
        let step = checkpoint.next(later).unwrap();
        assert_eq!(step, Move { renew: Some(lease("t").renewed()), group: None });
        assert_eq!(checkpoint.valid_until(), now + Duration::from_secs(5));
        checkpoint.done(&step, later, true, Some(&lease("t")));
        assert_eq!(checkpoint.valid_until(), later + Duration::from_secs(5));
        assert_eq!(checkpoint.next(later), None);
    }

    #[test]
    fn a_wrong_count_is_corrected_at_the_end_of_the_stream() {
        let now = Instant::now();
        let mut checkpoint = checkpoint(now);
        assert!(checkpoint.needs_count(Some(1), Some(id(10))) && checkpoint.needs_count(None, Some(id(10))));
        assert!(!checkpoint.needs_count(Some(0), Some(id(10))) && !checkpoint.needs_count(Some(1), Some(id(11))));
        checkpoint.count(id(11), Some(9));
        assert_eq!(checkpoint.next(now), None, "the group is not at the end");
        checkpoint.count(id(10), Some(9));
        assert_eq!(checkpoint.next(now), Some(Move { renew: None, group: Some((id(10), Some(9))) }));
        let mut unknown = Checkpoint::new(Session { entries_read: None, ..session(now) });
        assert!(unknown.lacks_count());
        unknown.begin_count(id(9), Some(30), Some(5));
        assert!(unknown.lacks_count(), "the group was moved");
        unknown.begin_count(id(10), Some(30), Some(5));
        unknown.advance(&advance(2, 20));
        assert_eq!(unknown.next(now), Some(Move { renew: None, group: Some((id(20), Some(29))) }));
    }
}
