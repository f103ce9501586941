//! The lease of a writer that has its group to itself.
//!
//! A writer that consumes exclusively reads with `XREAD` and moves the group with `XGROUP SETID`.
//! Redis does not keep others out of the group meanwhile, so the writer holds a lease: a hash
//! beside the stream. Its token is the fencing token: a new one for each start of a writer. To move
//! the group, a writer watches the lease and compares the token in the same transaction.
//!
//! No clock of Redis is involved. The owner changes the lease again and again, and counts on it
//! from the moment it sent the latest change. Another writer takes the lease over when it has not
//! seen a change for longer than the owner counts on it.
//!
//! What changes is the key's time to expire: a number of renewals, counted in milliseconds from a
//! date that never comes. Redis executes `PEXPIREAT` even if its memory is full, and then the owner
//! is the one who makes room.

use crate::later;
use crate::manifest::beside;
use resp::StreamId;
use std::time::{Duration, Instant};

/// How long an owner counts on its lease, unless it is configured otherwise.
pub const LEASE: Duration = Duration::from_secs(10);
/// The shortest time that can be configured.
pub const LEASE_MIN: Duration = Duration::from_secs(1);
/// The longest time that can be configured. What a lease in Redis says is cut to this.
pub const LEASE_MAX: Duration = Duration::from_secs(600);

/// The time to expire of a lease that was never renewed: a date in the year 2603, in milliseconds.
const NEVER: u64 = 20_000_000_000_000;

/// A lease, as it is in Redis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The owner's consumer name.
    pub consumer: String,
    /// The ID of the owner's output.
    pub output: String,
    /// The fencing token.
    pub token: String,
    /// How often it was renewed.
    pub renewals: u64,
    /// How long the owner counts on it after each change.
    pub time: Duration,
}

impl Lease {
    /// The fields of the hash, in the order in which [`read`](Self::read) takes their values.
    pub const FIELDS: [&'static str; 4] = ["consumer", "output", "token", "milliseconds"];

    /// The key of the hash, in the stream's slot of a cluster.
    #[must_use]
    pub fn key(stream: &str, group: &str) -> String {
        beside(stream, &format!("lease:{group}"))
    }

    /// Reads the values of [`FIELDS`](Self::FIELDS), and what `PEXPIRETIME` said. `None`: there is
    /// no lease.
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

    /// Fields and values of the hash.
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

    /// The key's time to expire (`PEXPIREAT`).
    #[must_use]
    pub const fn expires(&self) -> u64 {
        NEVER.saturating_add(self.renewals)
    }

    /// The same lease after one more renewal.
    #[must_use]
    pub fn renewed(&self) -> Self {
        Self { renewals: self.renewals.saturating_add(1), ..self.clone() }
    }

    /// Whether both are of the same start of the same writer.
    #[must_use]
    pub fn is_of(&self, other: &Self) -> bool {
        self.token == other.token
    }
}

/// The owner renews its lease after this part of its time.
fn quarter(time: Duration) -> Duration {
    time.checked_div(4).unwrap_or_default()
}

/// What is known of a lease that another writer has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LeaseState {
    /// It has not changed for longer than its owner counts on it.
    Ended,
    /// Its owner may count on it.
    Held {
        /// It changed since it was first seen, so its owner is alive.
        is_renewed: bool,
    },
}

/// Watches whether a lease that another writer has is renewed.
#[derive(Debug, Default)]
pub(super) struct LeaseWatch {
    /// The lease, when it was first seen like this, and whether it was seen otherwise before.
    seen: Option<(Lease, Instant, bool)>,
}

impl LeaseWatch {
    /// Judges the lease as it is at this moment.
    pub(super) fn observe(&mut self, lease: &Lease, now: Instant) -> LeaseState {
        match &self.seen {
            Some((seen, since, is_renewed)) if seen == lease => {
                // The owner counts from the sending, this writer from the first sight of it, which
                // is later. The margin is for clocks that run at different rates.
                if now.saturating_duration_since(*since) > lease.time.saturating_add(quarter(lease.time)) {
                    return LeaseState::Ended;
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

    /// Forgets the lease: it is gone, or this writer has it.
    pub(super) fn forget(&mut self) {
        self.seen = None;
    }
}

/// What an exclusive consumer found when it began to read: where the group is, and under which
/// lease it may be moved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// Sessions of a consumer are counted.
    pub number: u64,
    /// The lease, with the token of this consumer.
    pub lease: Lease,
    /// When the latest change of the lease was sent.
    pub renewed_at: Instant,
    /// The last ID that was delivered to the group.
    pub at: StreamId,
    /// How many entries of the stream were read up to there, when Redis knows.
    pub entries_read: Option<u64>,
}

/// Entries that an exclusive consumer has taken: when they are durable, the group moves behind
/// them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Advance {
    /// The session in which they were read.
    pub session: u64,
    /// The first one.
    pub first: StreamId,
    /// The last one.
    pub to: StreamId,
    /// How many they are.
    pub entries: u64,
}

/// A transaction of the [`Checkpoint`]. It is valid only if the lease did not change since the
/// connection began to watch it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Move {
    /// Renew the lease: its new state.
    pub renew: Option<Lease>,
    /// Move the group to this ID, and say how many entries were read up to there.
    pub group: Option<(StreamId, Option<u64>)>,
}

/// The outcome of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moved {
    /// It was executed.
    Done,
    /// It was not executed: the lease changed, but its token is still this consumer's. Try again.
    Again,
    /// Another writer has the lease, or it is gone.
    Lost,
}

/// Moves the group for an exclusive consumer, and keeps its lease.
///
/// One connection does both: it watches the lease, reads it, and asks for the [`next`](Self::next)
/// transaction. Each `EXEC` ends the watch, so the next one is begun along with it.
#[derive(Debug)]
pub struct Checkpoint {
    session: Session,
    /// What is durable and not in the group yet.
    due: Option<(StreamId, Option<u64>)>,
}

impl Checkpoint {
    /// The checkpoint of this session.
    #[must_use]
    pub const fn new(session: Session) -> Self {
        Self { session, due: None }
    }

    /// The session's number.
    #[must_use]
    pub const fn session(&self) -> u64 {
        self.session.number
    }

    /// The fencing token of the lease.
    #[must_use]
    pub fn token(&self) -> &str {
        &self.session.lease.token
    }

    /// Where the group is, as far as this consumer has moved it.
    #[must_use]
    pub const fn at(&self) -> StreamId {
        self.session.at
    }

    /// Whether the group is behind everything that is durable.
    #[must_use]
    pub const fn is_settled(&self) -> bool {
        self.due.is_none()
    }

    /// Until when the consumer may count on its lease.
    #[must_use]
    pub fn valid_until(&self) -> Instant {
        later(self.session.renewed_at, self.session.lease.time)
    }

    /// When the lease is to be renewed.
    #[must_use]
    pub fn renew_at(&self) -> Instant {
        later(self.session.renewed_at, quarter(self.session.lease.time))
    }

    /// The connection watches the lease, which had this value then. Returns whether this consumer
    /// has it.
    pub fn watched(&mut self, lease: Option<&Lease>) -> bool {
        let is_ours = lease.is_some_and(|lease| lease.is_of(&self.session.lease));
        if let Some(lease) = lease.filter(|_| is_ours) {
            self.session.lease.renewals = self.session.lease.renewals.max(lease.renewals);
        }
        is_ours
    }

    /// These entries are durable. What was read in an earlier session is read again in this one, so
    /// it does not move the group; and nothing moves it back.
    pub fn advance(&mut self, advance: &Advance) {
        let (at, read) = self.due.unwrap_or((self.session.at, self.session.entries_read));
        if advance.session == self.session.number && advance.to > at {
            self.due = Some((advance.to, read.map(|read| read.saturating_add(advance.entries))));
        }
    }

    /// The next transaction, if there is something to do.
    #[must_use]
    pub fn next(&self, now: Instant) -> Option<Move> {
        let renew = (now >= self.renew_at()).then(|| self.session.lease.renewed());
        (renew.is_some() || self.due.is_some()).then_some(Move { renew, group: self.due })
    }

    /// The transaction was sent at this moment. `is_executed`: `EXEC` was not refused because the
    /// lease had changed. `lease`: what the lease was afterwards, when the connection began to
    /// watch it again.
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
            true => Moved::Again,
        }
    }

    /// Whether somebody else has moved the group: it was seen at this ID.
    #[must_use]
    pub fn is_moved(&self, last_delivered: StreamId) -> bool {
        last_delivered != self.session.at
    }

    /// Whether to ask for the stream's number of entries: Redis does not say that nothing is left,
    /// and the group is where the reader's latest batch ended.
    #[must_use]
    pub fn needs_count(&self, lag: Option<u64>, end: Option<StreamId>) -> bool {
        self.session.at > StreamId::ZERO && lag != Some(0) && end.is_none_or(|end| end <= self.session.at)
    }

    /// Whether nobody knows how many entries were read up to where the group is, as in a new group.
    #[must_use]
    pub const fn lacks_count(&self) -> bool {
        self.session.entries_read.is_none()
    }

    /// How many entries were ever added to the stream, and how many are left for the group, which
    /// is at this ID at the same moment.
    pub fn begin_count(&mut self, at: StreamId, added: Option<u64>, lag: Option<u64>) {
        if at == self.session.at {
            self.session.entries_read = added.zip(lag).and_then(|(added, lag)| added.checked_sub(lag));
        }
    }

    /// The stream's last ID, and how many entries were ever added to it. When the group is there,
    /// that is the number of entries read: entries that were deleted before they were read made the
    /// count wrong.
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
        assert_eq!((odd.token.as_str(), odd.renewals, odd.time), ("", 0, LEASE_MAX), "somebody has it");
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
    fn a_transaction_that_was_not_executed_is_tried_again_under_our_lease_only() {
        let now = Instant::now();
        let mut checkpoint = checkpoint(now);
        checkpoint.advance(&advance(2, 20));
        let step = checkpoint.next(now).unwrap();
        assert_eq!(checkpoint.done(&step, now, false, Some(&lease("t").renewed())), Moved::Again);
        assert_eq!(checkpoint.next(now), Some(step.clone()));
        assert_eq!(checkpoint.done(&step, now, false, Some(&lease("u"))), Moved::Lost);
        assert_eq!(checkpoint.done(&step, now, false, None), Moved::Lost);
        assert!(!checkpoint.watched(Some(&lease("u"))) && !checkpoint.watched(None));
    }

    #[test]
    fn a_lease_is_renewed_long_before_it_ends() {
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
    fn a_count_that_went_wrong_is_put_right_at_the_end() {
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
