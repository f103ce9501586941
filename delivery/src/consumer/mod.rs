//! The consuming side: what to read from the group, what of it is new, a duplicate, a gap or
//! foreign, and when to wait or to stop.
//!
//! [`Consumer`] decides for one partition. A driver asks it for the [`next`](Consumer::next)
//! effect, performs that, and reports what came of it, one after the other:
//!
//! | [`Effect`] | the driver does | and reports |
//! |---|---|---|
//! | (a connection was made) | | [`connected`](Consumer::connected) |
//! | `LoadRecord` | `HGETALL` of the source record | [`record_loaded`](Consumer::record_loaded) |
//! | `MakeGroup` | `XGROUP CREATE … 0`, the stream too when there is none | [`group_made`](Consumer::group_made) |
//! | `ReadLease` | `HMGET` and `PEXPIRETIME` of the lease | [`lease_seen`](Consumer::lease_seen) |
//! | `WriteLease` | `HSET`, `PEXPIREAT` or `HDEL` of the lease, if it is as it was seen | [`lease_written`](Consumer::lease_written) |
//! | `LookAtGroup` | `XINFO GROUPS`, `XINFO CONSUMERS`, `HMGET` of the notes and the lease | [`group_seen`](Consumer::group_seen) |
//! | `Join` | `XREADGROUP` for what is pending behind all entries | [`joined`](Consumer::joined) |
//! | `ReadNotes` | `HMGET` of the notes | [`notes_read`](Consumer::notes_read) |
//! | `WriteNotes` | `HSETNX`, `HSET`, `HDEL` | [`notes_written`](Consumer::notes_written) |
//! | `Read`, `TakeLast` | `XREADGROUP` or `XREAD` | [`delivered`](Consumer::delivered) |
//! | `ReadAhead` | sends a read whose reply the next `Read` receives | |
//! | `Claim` | `XAUTOCLAIM` | [`claimed`](Consumer::claimed) |
//! | `Take` | gives the rest of the reply's entries | [`take`](Consumer::take) itself |
//! | `HandOver` | gives the batch to the stage that commits | [`handed_over`](Consumer::handed_over) |
//! | `AskLastId` | `XINFO STREAM` | [`last_id`](Consumer::last_id) |
//! | `Pause` | waits | |
//! | `Reconnect` | closes the connection, and makes another one | `connected` |
//! | `Restart` | drops what is under way, and makes another machine | |
//! | `Refuse`, `Done` | ends | |
//!
//! After an error the driver closes the connection and begins again with `connected`, a little
//! later; so, too, when the group is gone. Everything that was delivered and not acknowledged is
//! then delivered again.
//!
//! A consumer that has the group to itself ([`Consumption::Exclusive`]) does all of that as well,
//! under a [`lease`]. What it had pending when it shared the group comes first, and is
//! acknowledged. New entries it reads with `XREAD` behind the group's last delivered ID. A
//! [`Checkpoint`] moves that ID when they are durable, so the group says at any time which entries
//! are done.
//!
//! # Layout
//!
//! | module | subject |
//! |---|---|
//! | [`batch`] | what is written and acknowledged together |
//! | [`effect`] | what the machine asks for, and what it reports |
//! | [`dedup`] | from entries to bytes of contents; what is held is skipped |
//! | [`gaps`] | noticing bytes that were never delivered |
//! | [`record`] | what the consuming side reads of the source record, and its own notes in it |
//! | [`lease`] | keeping others out of the group, and moving it |
//! | [`group`] | who takes part in a group, what can be trimmed, which group holds up the others |
//! | `pace` | how many entries to ask for |

#[allow(clippy::arithmetic_side_effects, reason = "counts of what is in memory")]
pub mod batch;
pub mod dedup;
pub mod effect;
pub mod gaps;
pub mod group;
pub mod lease;
#[allow(clippy::arithmetic_side_effects, reason = "divisors are at least 1")]
mod pace;
pub mod record;
pub mod trim;

pub use batch::{Batch, Run};
pub use dedup::{Dedup, Delivery, Outcome};
pub use effect::{Change, Effect, Refusal, Reply, Report, Taken};
pub use gaps::Gap;
pub use group::{GroupView, Member};
pub use lease::{Advance, Checkpoint, Lease, Move, Moved, Session};
pub use pace::{BATCH_BYTES, MAX_COUNT};
pub use record::{FileIdentity, Notes, Record, Verdict};
pub use trim::{GroupState, HeldUp, TrimWatch, can_trim, trim_below};

use crate::entry::{AFTER, Span};
use crate::manifest::Position;
use crate::partition::Partition;
use crate::ranges::RangeSet;
use lease::{LeaseWatch, Standing};
use pace::Pace;
use record::{output_field, shared_field};
use resp::StreamId;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How long a read blocks at most.
pub const BLOCK: Duration = Duration::from_secs(2);
/// A writer that is at work asks for entries more often than this.
pub const AT_WORK: Duration = Duration::from_secs(5);
/// How often a namesake is looked at.
const LOOK: Duration = Duration::from_millis(500);
/// A large reply is handed over in batches of about this size: 4 MiB.
const SPLIT: usize = 4 << 20;
/// How often a source record that is not complete is loaded.
const RECORD_FIRST: Duration = Duration::from_millis(100);
const RECORD_LATER: Duration = Duration::from_secs(2);
/// With more names than this in the record, those of consumers that are gone are removed.
const NAMES: usize = 16;

/// What a consumer is to do, and for which output.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// The group's name.
    pub group: String,
    /// This consumer's name.
    pub consumer: String,
    /// How many partitions the source must have been begun with, when this stream's record says
    /// that.
    pub partitions: Option<u32>,
    /// End when nothing is left.
    pub once: bool,
    /// Take over entries that another consumer has left pending for this long.
    pub claim_idle: Option<Duration>,
    /// Whether the group is shared.
    pub consume: Consumption,
    /// The output.
    pub output: Output,
}

/// How the entries of the group are consumed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Consumption {
    /// Together with other consumers.
    #[default]
    Group,
    /// By this consumer alone.
    Exclusive {
        /// The fencing token. No other start of a writer has the same.
        token: String,
        /// How long it counts on its lease.
        lease: Duration,
    },
}

/// The output that the entries are for.
#[derive(Debug, Clone, Default)]
pub struct Output {
    /// The ID that its journal gave it.
    pub id: String,
    /// IDs of outputs that this process has written to before.
    pub former: Vec<String>,
    /// The file.
    pub file: FileIdentity,
    /// There are bytes in it, and its journal says of none of them what they are.
    pub journal_is_missing: bool,
    /// There are bytes behind the last one that its journal describes, more than an unfinished
    /// commit may leave behind.
    pub has_unknown_tail: bool,
    /// The ranges that it holds, by content.
    pub held: BTreeMap<u64, RangeSet>,
    /// Ranges that it held once, which were reported.
    pub lost: Vec<(u64, Span)>,
}

/// Why the record is loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    /// A new connection.
    Connected,
    /// An entry's generation is not known.
    Unknown,
    /// The entry waits for it.
    Waiting,
    /// Nothing came; the number of partitions, or where the group is, is not known yet.
    Idle,
}

/// Why the group is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Look {
    /// Before the first read. `Some`: how idle a namesake was, and when.
    First(Option<(Duration, Instant)>),
    /// The group knows this consumer by now: of two that begin at the same time, the later one to
    /// look sees the other.
    Joined,
    /// Something is missing; somebody else may have it.
    Gaps,
    /// Others may have left entries pending.
    Claims,
    /// It was not looked at for so long that somebody may have it to itself by now.
    Late,
}

/// What follows when the batch was handed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    /// The next read.
    GoOn,
    /// The rest of the reply.
    Take,
    /// All pending entries have come: new ones follow.
    BeginNew,
    /// The source record.
    Wait,
    /// The end.
    End,
}

#[derive(Debug)]
enum Phase {
    Disconnected,
    Load(Why),
    MakeGroup,
    Lease,
    /// As [`Consumer::lease_change`] says.
    WriteLease,
    /// Somebody else is at work who must end first.
    Standby,
    /// The lease was lost.
    Restart,
    Look(Look),
    /// A namesake may be alive.
    Probe(Duration, Instant),
    /// The group is to know this consumer.
    Join,
    /// The first notes are to be written.
    Introduce,
    Read,
    /// `is_fresh`: the record was loaded after these entries came, so it knows the generations of
    /// all that a reader wrote.
    Take {
        is_fresh: bool,
    },
    HandOver {
        now: bool,
        then: Then,
    },
    AskLastId,
    Claim(StreamId),
    /// An entry waits for the source record.
    Wait {
        is_paused: bool,
    },
    Done,
}

/// Which entries are being read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    Pending,
    New,
    /// New ones, for the last time.
    Last,
    /// Taken over; the next ones begin there.
    Claimed(StreamId),
}

/// What is known of the stream's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Idle {
    /// Entries came, or it was not asked.
    No,
    /// The stream's last ID when nothing came.
    Asked(StreamId),
    /// What is missing before it was judged: with the group and the reader's latest batch being
    /// there.
    Judged(StreamId, Option<StreamId>),
}

/// The consuming side of one partition.
#[derive(Debug)]
pub struct Consumer {
    settings: Settings,
    dedup: Dedup,
    record: Record,
    pace: Pace,
    phase: Phase,
    origin: Origin,
    /// When the reply on hand was asked for. Its entries are idle since then or a little later.
    asked_at: Option<Instant>,
    /// When new entries were asked for whose reply was not received yet.
    ahead: Option<Instant>,
    /// The latest reply was full, so the next read goes out before it is taken.
    wants_ahead: bool,
    /// A read succeeded on this connection.
    has_read: bool,
    /// The latest read brought something.
    came: bool,
    idle: Idle,
    /// The order of entries is watched since the first connection that got that far.
    is_begun: bool,
    is_stopping: bool,
    refusal: Option<Refusal>,
    changes: Vec<Change>,
    reports: Vec<Report>,
    /// The record said with how many partitions the source was begun.
    partitions_known: bool,
    /// The last ID delivered to the group, when it was last looked at.
    last_delivered: StreamId,
    /// Where the output ended when the record was first loaded.
    own_end: Option<Position>,
    knows_end: bool,
    /// What the group has delivered behind the end of the output, or of what was shared, was
    /// delivered to this output's consumer.
    is_resumed: bool,
    /// When it was last asked how the group is.
    looked_at: Option<Instant>,
    /// This consumer has made the group, so nobody got an entry before.
    has_made_group: bool,
    /// When other consumers were last seen. What somebody got who has left since is no gap, so it
    /// counts for a while longer.
    others_at: Option<Instant>,
    /// Up to where entries were shared with others, as far as this consumer knows.
    shared: Option<StreamId>,
    /// The output of another writer that had this consumer's name and is gone.
    replaced: Option<String>,
    /// The notes say that this consumer's name is ours.
    has_name: bool,
    /// When the notes were last written: older views do not count.
    written_at: Option<Instant>,
    /// The first entry that waits for the record, and how long to wait before it is loaded again.
    waiting: Option<StreamId>,
    record_pause: Duration,
    claimed_at: Option<Instant>,
    /// Our lease, and when its latest change was sent.
    lease: Option<(Lease, Instant)>,
    /// What is to be changed in Redis: from what, and to what.
    lease_change: (Option<Lease>, Option<Lease>),
    lease_watch: LeaseWatch,
    /// The consumer whose lease was taken over, and how idle it was then.
    predecessor: Option<(String, Option<(Duration, Instant)>)>,
    /// Another consumer that is at work, and how idle it was.
    beside: Option<(String, Duration, Instant)>,
    /// Whom it was reported to wait for.
    waits_for: Option<String>,
    /// When the group was looked at under the present lease.
    joined_at: Option<Instant>,
    session: Option<Session>,
    sessions: u64,
    /// New entries are read exclusively behind this one.
    position: StreamId,
}

impl Consumer {
    /// The consuming side of this partition.
    #[must_use]
    pub fn new(partition: Partition, mut settings: Settings) -> Self {
        let held = std::mem::take(&mut settings.output.held);
        Self {
            dedup: Dedup::new(partition, held, &settings.output.lost),
            settings,
            record: Record::default(),
            pace: Pace::new(),
            phase: Phase::Disconnected,
            origin: Origin::Pending,
            asked_at: None,
            ahead: None,
            wants_ahead: false,
            has_read: false,
            came: false,
            idle: Idle::No,
            is_begun: false,
            is_stopping: false,
            refusal: None,
            changes: Vec::new(),
            reports: Vec::new(),
            partitions_known: false,
            last_delivered: StreamId::ZERO,
            own_end: None,
            knows_end: false,
            is_resumed: false,
            looked_at: None,
            has_made_group: false,
            others_at: None,
            shared: None,
            replaced: None,
            has_name: false,
            written_at: None,
            waiting: None,
            record_pause: RECORD_FIRST,
            claimed_at: None,
            lease: None,
            lease_change: (None, None),
            lease_watch: LeaseWatch::default(),
            predecessor: None,
            beside: None,
            waits_for: None,
            joined_at: None,
            session: None,
            sessions: 0,
            position: StreamId::ZERO,
        }
    }

    /// What to do next.
    pub fn next(&mut self, now: Instant) -> Effect {
        if let Some(refusal) = self.refusal.take() {
            self.phase = Phase::Done;
            return Effect::Refuse(refusal);
        }
        match self.phase {
            Phase::Disconnected => Effect::Reconnect,
            Phase::Done => Effect::Done,
            // Nothing was read that would have to be handed over.
            Phase::Load(Why::Connected | Why::Waiting)
            | Phase::MakeGroup
            | Phase::Lease
            | Phase::WriteLease
            | Phase::Standby
            | Phase::Look(Look::First(_) | Look::Joined)
            | Phase::Probe(..)
            | Phase::Join
            | Phase::Wait { .. }
                if self.is_stopping =>
            {
                Effect::Done
            }
            Phase::Load(_) => Effect::LoadRecord,
            Phase::MakeGroup => Effect::MakeGroup,
            Phase::Lease => Effect::ReadLease,
            Phase::WriteLease => {
                let (seen, lease) = self.lease_change.clone();
                Effect::WriteLease { seen, lease }
            }
            Phase::Standby => {
                self.phase = Phase::Lease;
                Effect::Pause(LOOK)
            }
            Phase::Restart => Effect::Restart,
            Phase::Look(_) => Effect::LookAtGroup,
            Phase::Probe(idle, at) => {
                self.phase = Phase::Look(Look::First(Some((idle, at))));
                Effect::Pause(LOOK)
            }
            Phase::Join => Effect::Join,
            Phase::Introduce | Phase::Read if !self.changes.is_empty() => Effect::WriteNotes(self.changes.clone()),
            Phase::Introduce | Phase::Read => self.read(now),
            Phase::Take { .. } if std::mem::take(&mut self.wants_ahead) => {
                self.ahead = Some(now);
                Effect::ReadAhead { behind: self.behind(), count: self.pace.count(now) }
            }
            Phase::Take { .. } => Effect::Take,
            Phase::HandOver { now, .. } => Effect::HandOver { now },
            Phase::AskLastId => Effect::AskLastId,
            Phase::Claim(start) => {
                self.asked_at = Some(now);
                Effect::Claim { start, count: self.pace.count(now), idle: self.settings.claim_idle.unwrap_or_default() }
            }
            Phase::Wait { is_paused: false } => {
                self.phase = Phase::Wait { is_paused: true };
                let later = self.record_pause.saturating_mul(2).min(RECORD_LATER);
                Effect::Pause(std::mem::replace(&mut self.record_pause, later))
            }
            Phase::Wait { is_paused: true } => {
                self.phase = Phase::Load(Why::Waiting);
                Effect::LoadRecord
            }
        }
    }

    fn read(&mut self, now: Instant) -> Effect {
        self.phase = Phase::Read;
        if self.is_stopping && self.origin == Origin::New {
            self.origin = Origin::Last;
            self.asked_at = self.ahead.or(self.asked_at);
            return Effect::TakeLast;
        }
        if self.ahead.is_none() && self.pace.is_stale(now) {
            return Effect::ReadNotes;
        }
        let pending = self.origin == Origin::Pending;
        // The driver looks beside the work, unless the process was stopped or Redis did not answer.
        let is_late = self.looked_at.is_none_or(|at| now.saturating_duration_since(at) > AT_WORK);
        if !pending && self.ahead.is_none() && self.session.is_none() && is_late {
            self.phase = Phase::Look(Look::Late);
            return Effect::LookAtGroup;
        }
        let can_block = !(pending || self.ahead.is_some() || self.settings.once);
        let least = Duration::from_millis(10);
        // Entries that come late in a read look older by its length, and from half of this time on
        // they are not committed any more.
        let block =
            self.settings.claim_idle.map_or(BLOCK, |idle| idle.checked_div(4).unwrap_or_default().clamp(least, BLOCK));
        let count = if self.ahead.is_some() { self.pace.asked() } else { self.pace.count(now) };
        self.asked_at = self.ahead.or(Some(now));
        let behind = self.behind().filter(|_| !pending);
        Effect::Read { pending, behind, count, block: can_block.then_some(block) }
    }

    /// Behind which entry new ones are read exclusively.
    fn behind(&self) -> Option<StreamId> {
        self.session.as_ref().map(|_| self.position)
    }

    /// A connection was made.
    pub fn connected(&mut self, now: Instant) {
        self.phase = Phase::Load(Why::Connected);
        (self.origin, self.idle) = (Origin::Pending, Idle::No);
        (self.ahead, self.wants_ahead, self.has_read, self.came) = (None, false, false, false);
        self.session = None;
        self.changes.clear();
        self.claimed_at = Some(now);
        self.pace.restart();
    }

    /// The service is to stop. What Redis has given to this consumer is still taken: one that is
    /// scaled away never comes back for it.
    pub const fn stop(&mut self) {
        self.is_stopping = true;
    }

    /// What happened since the last call.
    pub fn take_reports(&mut self) -> Vec<Report> {
        std::mem::take(&mut self.reports)
    }

    /// Whether this consumer's name is ours.
    #[must_use]
    pub const fn has_name(&self) -> bool {
        self.has_name
    }

    /// Whether the driver is to show that this consumer is alive, by asking for entries at least
    /// once a second in some way: Redis 7.0 counts no read that brings nothing. An exclusive
    /// consumer without a session may have lost its lease.
    #[must_use]
    pub const fn shows_life(&self) -> bool {
        self.has_name && (self.session.is_some() || !self.is_exclusive())
    }

    /// Whether a read succeeded on this connection.
    #[must_use]
    pub const fn has_read(&self) -> bool {
        self.has_read
    }

    const fn is_reading(&self) -> bool {
        matches!(self.phase, Phase::Read | Phase::Take { .. } | Phase::HandOver { .. })
    }

    /// The source record was loaded. `input_here`: device and inode of what this host has at the
    /// [input's path](Record::input_path).
    pub fn record_loaded(&mut self, record: Record, input_here: Option<(u64, u64)>) {
        let Phase::Load(why) = self.phase else { return };
        if record.complaint != self.record.complaint {
            self.reports.extend(record.complaint.clone().map(Report::RecordUnreadable));
        }
        self.dedup.learn(&record.manifest);
        self.record = record;
        if let Some(own) = self.record.is_read_from(&self.settings.output.file, input_here) {
            self.refusal = Some(Refusal::OutputIsInput(own.path.clone()));
        }
        if let Some(expected) = self.settings.partitions {
            match self.record.partitions {
                Some(begun) if begun != expected => self.refusal = Some(Refusal::OtherPartitions(begun)),
                begun => self.partitions_known = begun.is_some(),
            }
        }
        self.phase = match why {
            Why::Connected => {
                if !std::mem::replace(&mut self.knows_end, true) {
                    self.own_end = self.dedup.end_of_held();
                }
                Phase::MakeGroup
            }
            // It is the first record since this start: begin with what is pending again, and judge.
            Why::Unknown | Why::Idle
                if self.origin == Origin::New && !self.is_begun && !self.record.manifest.is_empty() =>
            {
                Phase::Disconnected
            }
            Why::Unknown => Phase::Take { is_fresh: true },
            Why::Idle => Phase::AskLastId,
            Why::Waiting => match self.waiting {
                Some(id) if !self.dedup.knows(id.ms) && self.record.judge(id.ms) == Verdict::Missing => {
                    Phase::Wait { is_paused: false }
                }
                // What was left of the reply is pending, and is read again.
                _ => {
                    (self.waiting, self.record_pause) = (None, RECORD_FIRST);
                    self.reports.push(Report::RecordComplete);
                    Phase::Disconnected
                }
            },
        };
    }

    /// The group is there. `is_new`: it was made, and not there before.
    pub const fn group_made(&mut self, is_new: bool) {
        self.has_made_group |= is_new;
        self.phase = Phase::Lease;
    }

    /// The lease, as [`Effect::ReadLease`] asks.
    pub fn lease_seen(&mut self, lease: Option<Lease>, now: Instant) {
        if !matches!(self.phase, Phase::Lease) {
            return;
        }
        let own = self.own_lease(lease.as_ref());
        let is_mine = lease.as_ref().zip(own.as_ref()).is_some_and(|(lease, own)| lease.is_of(own));
        if self.lease.is_some() && !is_mine {
            // The writer that had the lease meanwhile may have received the entries under way.
            self.phase = Phase::Restart;
            return;
        }
        if let Some(other) = lease.as_ref().filter(|other| !is_mine && !self.is_of_this_output(other)) {
            match self.lease_watch.look(other, now) {
                Standing::Held { is_renewed: true } if self.settings.once => {
                    self.refusal = Some(Refusal::Leased(other.consumer.clone()));
                    return;
                }
                Standing::Held { .. } => {
                    return self.wait_for(other.consumer.clone(), Report::WaitsForLease);
                }
                Standing::Ended => {}
            }
        }
        self.lease_watch.forget();
        self.phase = if lease.is_none() && own.is_none() { Phase::Look(Look::First(None)) } else { Phase::WriteLease };
        self.lease_change = (lease, own);
    }

    /// What came of [`Effect::WriteLease`], which was sent at this moment.
    pub fn lease_written(&mut self, is_written: bool, sent_at: Instant) {
        if !matches!(self.phase, Phase::WriteLease) {
            return;
        }
        let (before, lease) = std::mem::take(&mut self.lease_change);
        if !is_written {
            self.phase = Phase::Lease;
            return;
        }
        if let Some(before) = before.filter(|before| !lease.as_ref().is_some_and(|lease| lease.is_of(before))) {
            if !self.is_of_this_output(&before) {
                self.reports.push(Report::LeaseTakenOver(before.consumer.clone()));
            }
            self.predecessor = Some((before.consumer, None));
        }
        self.lease = lease.map(|lease| (lease, sent_at));
        self.phase = Phase::Look(Look::First(None));
    }

    /// Redis refused [`Effect::WriteLease`] because its memory is full. This consumer may have to
    /// make room, so it renews the lease of an earlier process with the same output instead.
    /// Returns whether there is one.
    pub fn lease_refused(&mut self) -> bool {
        let Some(seen) = self.lease_change.0.clone().filter(|seen| self.is_of_this_output(seen)) else { return false };
        let Consumption::Exclusive { token, .. } = &mut self.settings.consume else { return false };
        if *token == seen.token {
            return false;
        }
        token.clone_from(&seen.token);
        self.lease_change.1 = Some(seen.renewed());
        true
    }

    /// The lease that this consumer is to have, when that is `seen` now.
    fn own_lease(&self, seen: Option<&Lease>) -> Option<Lease> {
        let Settings { consume: Consumption::Exclusive { token, lease }, consumer, output, .. } = &self.settings else {
            return None;
        };
        Some(Lease {
            consumer: consumer.clone(),
            output: output.id.clone(),
            token: token.clone(),
            renewals: seen.map_or(0, |seen| seen.renewals.saturating_add(1)),
            time: *lease,
        })
    }

    /// Whether an earlier process had this lease for the same output. The output is locked, so that
    /// process is gone.
    fn is_of_this_output(&self, lease: &Lease) -> bool {
        self.settings.output.former.is_empty() && lease.output == self.settings.output.id
    }

    fn wait_for(&mut self, name: String, report: fn(String) -> Report) {
        if self.waits_for.as_ref() != Some(&name) {
            self.reports.push(report(name.clone()));
            self.waits_for = Some(name);
        }
        self.phase = Phase::Standby;
    }

    /// Another consumer that asked for entries lately.
    fn at_work_beside(&mut self, view: &GroupView) -> Option<Member> {
        let Self { settings, predecessor, .. } = self;
        let others = view.members.iter().filter(|one| one.name != settings.consumer.as_bytes());
        let mut at_work = others.filter(|one| one.idle < group::GONE);
        at_work
            .find(|one| match predecessor {
                Some((name, known)) if one.name == name.as_bytes() => {
                    let (idle, at) = *known.get_or_insert((one.idle, view.asked_at));
                    one.is_awake(idle, view.asked_at, at)
                }
                _ => true,
            })
            .cloned()
    }

    /// Whether it is to have the group to itself.
    #[must_use]
    pub const fn is_exclusive(&self) -> bool {
        matches!(self.settings.consume, Consumption::Exclusive { .. })
    }

    /// Until when the driver may count on this consumer's lease, as far as this machine has renewed
    /// it. `None`: it has none.
    #[must_use]
    pub fn leased_until(&self) -> Option<Instant> {
        self.lease.as_ref().map(|(lease, at)| lease::later(*at, lease.time))
    }

    /// Where an exclusive consumer began to read on this connection.
    #[must_use]
    pub const fn session(&self) -> Option<&Session> {
        self.session.as_ref()
    }

    /// The session cannot go on: somebody else moved the group, or the connection that moves it was
    /// lost.
    pub fn end_session(&mut self) {
        if self.session.take().is_some() && !matches!(self.phase, Phase::Done | Phase::Restart) {
            self.phase = Phase::Disconnected;
        }
    }

    /// The group was looked at, as [`Effect::LookAtGroup`] asks.
    pub fn group_seen(&mut self, view: &GroupView, now: Instant) {
        let Phase::Look(look) = self.phase else { return };
        match look {
            Look::First(namesake) => return self.first_seen(view, namesake, now),
            Look::Joined => return self.joined_seen(view, now),
            Look::Gaps | Look::Claims | Look::Late => {}
        }
        if !self.look_over(view, now) {
            return;
        }
        if look == Look::Late {
            self.phase = Phase::Read;
            return;
        }
        if look == Look::Claims {
            let mut others = view.members.iter().filter(|one| one.name != self.settings.consumer.as_bytes());
            let is_left = others.any(|other| other.pending > 0);
            self.phase = if is_left { Phase::Claim(StreamId::ZERO) } else { self.follow() };
            return;
        }
        // Nobody else can have what is missing, else the gaps were dropped.
        let gaps = self.dedup.take_gaps();
        if !gaps.is_empty() && !self.came {
            // A writer that is started again does not report them a second time.
            self.set_shared(view.last_delivered);
        }
        self.reports.extend(gaps.into_iter().map(|gap| {
            let path = self.dedup.path_of(gap.file_id).to_owned();
            Report::Gap(gap, path)
        }));
        if matches!(self.idle, Idle::Judged(..)) {
            self.reports.push(Report::Judged);
        }
        self.phase = self.taken();
    }

    /// The group was looked at beside the work.
    pub fn group_seen_beside(&mut self, view: &GroupView, now: Instant) {
        if self.is_reading() {
            self.look_over(view, now);
        }
    }

    /// Whether the work goes on.
    fn look_over(&mut self, view: &GroupView, now: Instant) -> bool {
        self.see_others(view, now);
        // A view from before the lease was taken does not count.
        if self.joined_at.is_none_or(|joined| view.asked_at >= joined) && !self.has_lease_as(view) {
            // Without a lease of its own, it waits for the end of the other one.
            self.phase = if self.lease.is_some() { Phase::Restart } else { Phase::Disconnected };
            return false;
        }
        if self.lease.is_some() {
            self.watch_out(view);
        }
        // What was asked before the notes were written is out of date.
        if self.written_at.is_none_or(|written| view.asked_at > written) {
            match &view.notes.output {
                Some(output) if !self.is_ours(output) => self.refusal = Some(Refusal::NameLost),
                None if !self.record.manifest.is_empty() => self.claim_name(),
                _ => {}
            }
            self.share(view, now);
        }
        self.wake(view.last_delivered, view.notes.end);
        self.last_delivered = view.last_delivered;
        true
    }

    /// Whether the lease is as it is to be: ours, or there is none.
    fn has_lease_as(&self, view: &GroupView) -> bool {
        match (&view.lease, &self.lease) {
            (Some(seen), Some((own, _))) => seen.is_of(own),
            (None, None) => true,
            _ => false,
        }
    }

    /// Reports another consumer that reads from the group.
    fn watch_out(&mut self, view: &GroupView) {
        let other = self.at_work_beside(view).map(|other| String::from_utf8_lossy(&other.name).into_owned());
        let known = self.beside.take().map(|(name, ..)| name);
        if let Some(name) = other {
            if known.as_ref() != Some(&name) {
                self.reports.push(Report::Intruder(name.clone()));
            }
            self.beside = Some((name, Duration::ZERO, view.asked_at));
        }
    }

    fn see_others(&mut self, view: &GroupView, now: Instant) {
        self.looked_at = Some(view.asked_at);
        if !view.is_alone(&self.settings.consumer) {
            self.others_at = Some(now);
        }
        self.pace.noted(&view.notes, view.lag, now);
    }

    /// The group before the first read: whether this consumer's name is free.
    fn first_seen(&mut self, view: &GroupView, namesake: Option<(Duration, Instant)>, now: Instant) {
        self.see_others(view, now);
        if self.lease.is_some()
            && let Some(other) = self.at_work_beside(view)
        {
            let name = String::from_utf8_lossy(&other.name).into_owned();
            let before = self.beside.replace((name.clone(), other.idle, view.asked_at));
            let is_awake =
                before.is_some_and(|(before, idle, at)| before == name && other.is_awake(idle, view.asked_at, at));
            if self.settings.once && is_awake {
                self.refusal = Some(Refusal::Shared(name));
                return;
            }
            return self.wait_for(name, Report::WaitsForConsumer);
        }
        let Settings { consumer, output, .. } = &self.settings;
        let member = view.member(consumer);
        let noted = view.notes.output.as_ref();
        let is_unknown = output.journal_is_missing && !noted.is_some_and(|noted| self.is_ours(noted));
        let was_here = member.is_some() || noted.is_some() || !self.has_others(now);
        if is_unknown && view.has_acknowledged() && was_here {
            self.refusal = Some(Refusal::JournalMissing);
            return;
        }
        // What is acknowledged was in the journal.
        let is_acknowledged = view.members.iter().all(|member| member.pending == 0)
            && !self.has_others(now)
            && view.notes.shared.is_none_or(|shared| shared < view.last_delivered)
            && self.dedup.lacks_end_of(view.last_delivered);
        if output.has_unknown_tail && noted.is_some_and(|noted| self.is_ours(noted)) && is_acknowledged {
            self.refusal = Some(Refusal::JournalOlder);
            return;
        }
        self.replaced = noted.filter(|noted| !self.is_ours(noted)).cloned();
        self.phase = match member.filter(|member| self.replaced.is_some() && member.idle < AT_WORK) {
            // It asked for entries since it was last looked at.
            Some(member) if namesake.is_some_and(|(idle, at)| member.is_awake(idle, view.asked_at, at)) => {
                self.refusal = Some(Refusal::NameTaken);
                return;
            }
            Some(member) => Phase::Probe(member.idle, view.asked_at),
            None => Phase::Join,
        };
    }

    /// The group knows this consumer.
    pub const fn joined(&mut self) {
        self.phase = Phase::Look(Look::Joined);
    }

    /// The group before the first read, now that it knows this consumer: what the notes say.
    fn joined_seen(&mut self, view: &GroupView, now: Instant) {
        self.see_others(view, now);
        if !self.has_lease_as(view) {
            self.phase = Phase::Lease;
            return;
        }
        self.joined_at = Some(view.asked_at);
        self.last_delivered = view.last_delivered;
        let Settings { consumer, output, group, .. } = &self.settings;
        let names = &self.record.names;
        if names.len() > NAMES {
            let gone = names.iter().filter(|(name, _)| name != consumer && view.member(name).is_none());
            self.changes.extend(gone.map(|(name, _)| Change::Remove(output_field(group, name))));
        }
        // The host's name is often the consumer's, and changes when a container is recreated.
        let is_known = names.iter().any(|(_, output)| self.is_ours(output));
        // Somebody has removed the notes, or the whole record.
        let are_notes_gone = names.is_empty() && view.notes.shared.is_none() && self.own_end.is_some();
        self.is_resumed = is_known || are_notes_gone || self.has_made_group;
        match &view.notes.output {
            None => self.claim_name(),
            Some(id) if self.is_ours(id) => {
                self.has_name = true;
                if *id != output.id {
                    self.take_name();
                }
            }
            noted if *noted == self.replaced => {
                self.reports.push(Report::NameTakenOver);
                self.take_name();
            }
            Some(_) => {
                self.phase = Phase::Look(Look::First(None));
                return;
            }
        }
        self.shared = view.notes.shared.or(self.shared);
        self.share(view, now);
        let has_waited = self.waits_for.take().is_some();
        if (!self.is_resumed || has_waited)
            && self.shared < Some(self.last_delivered)
            && self.last_delivered > StreamId::ZERO
        {
            // What was delivered before this output came is no gap when it is started again, nor is
            // what the writer got that was waited for.
            self.set_shared(self.last_delivered);
        }
        self.resume();
        if has_waited {
            self.reports.push(Report::WaitedForWriter);
        }
        if let Some((lease, renewed_at)) = self.lease.clone() {
            self.beside = None;
            self.position = view.last_delivered;
            self.sessions = self.sessions.saturating_add(1);
            let (number, at, entries_read) = (self.sessions, view.last_delivered, view.entries_read);
            self.session = Some(Session { number, lease, renewed_at, at, entries_read });
        }
        self.phase = Phase::Introduce;
    }

    /// What comes is expected to adjoin what the output holds, or what was shared.
    fn resume(&mut self) {
        if !self.is_begun && self.is_resumed && self.others_at.is_none() {
            self.dedup.resume(self.own_end.max(self.shared.map(Position::of)));
        }
    }

    fn is_ours(&self, output: &String) -> bool {
        *output == self.settings.output.id || self.settings.output.former.contains(output)
    }

    fn own_field(&self) -> (String, String) {
        (output_field(&self.settings.group, &self.settings.consumer), self.settings.output.id.clone())
    }

    fn claim_name(&mut self) {
        let (field, id) = self.own_field();
        self.change(Change::Claim(field, id));
    }

    fn take_name(&mut self) {
        let (field, id) = self.own_field();
        self.change(Change::Set(field, id));
    }

    fn set_shared(&mut self, id: StreamId) {
        self.shared = Some(id);
        self.change(Change::Set(shared_field(&self.settings.group), id.to_string()));
    }

    fn change(&mut self, change: Change) {
        if !self.changes.contains(&change) {
            self.changes.push(change);
        }
    }

    /// Keeps the note on what is shared with others. It changes when others come and when they are
    /// gone, not with every entry: each change makes the reader look at the record again.
    fn share(&mut self, view: &GroupView, now: Instant) {
        // Consumers never remove the note.
        let noted = view.notes.shared.or(self.shared);
        let has_others = self.has_others(now);
        if has_others || noted != self.shared {
            // When the note changed, others came and went meanwhile.
            self.dedup.forget_order();
        }
        self.shared = noted;
        if has_others && noted != Some(StreamId::MAX) {
            self.set_shared(StreamId::MAX);
        } else if !has_others && noted == Some(StreamId::MAX) {
            self.set_shared(view.last_delivered);
        }
    }

    fn has_others(&self, now: Instant) -> bool {
        self.others_at.is_some_and(|at| now.saturating_duration_since(at) < group::GONE)
    }

    /// The notes were read.
    pub fn notes_read(&mut self, notes: &Notes, now: Instant) {
        self.pace.noted(notes, None, now);
        self.wake(self.last_delivered, notes.end);
    }

    /// The notes were changed. `is_claimed`: a [`Change::Claim`] found the field free.
    pub fn notes_written(&mut self, is_claimed: bool, now: Instant) {
        self.changes.clear();
        self.written_at = Some(now);
        if matches!(self.phase, Phase::Introduce) {
            self.has_name = is_claimed;
            self.phase = if is_claimed { Phase::Read } else { Phase::Load(Why::Connected) };
        }
    }

    /// What is missing at the end is judged again when the reader or somebody who moves the group
    /// went on.
    fn wake(&mut self, last_delivered: StreamId, end: Option<StreamId>) {
        if let Idle::Judged(delivered, until) = self.idle
            && (delivered, until) != (last_delivered, end)
        {
            self.idle = Idle::No;
        }
    }

    /// What came of [`Effect::Read`] or [`Effect::TakeLast`].
    pub fn delivered(&mut self, reply: Reply, now: Instant) {
        if self.origin != Origin::Pending {
            self.ahead = None;
        }
        self.has_read = true;
        self.came = reply.entries > 0;
        if self.has_others(now) {
            self.dedup.forget_order();
        }
        if self.came {
            if self.origin != Origin::Pending {
                self.position = reply.last;
            }
            let is_full = self.pace.came(reply);
            self.wants_ahead = is_full && self.origin == Origin::New && !self.is_stopping;
            self.idle = Idle::No;
            self.phase = Phase::Take { is_fresh: false };
        } else {
            let then = if self.origin == Origin::Pending { Then::BeginNew } else { Then::GoOn };
            self.phase = Phase::HandOver { now: true, then };
        }
    }

    /// What came of [`Effect::Claim`]: how many entries, and where to go on; zero when all were
    /// looked at.
    pub fn claimed(&mut self, entries: u64, next: StreamId) {
        self.origin = Origin::Claimed(next);
        self.came = entries > 0;
        self.phase = if self.came { Phase::Take { is_fresh: false } } else { self.taken() };
    }

    /// Takes the entries of a reply that were not taken yet: ID and fields, without fields when the
    /// entry was deleted while it was pending. What is new goes into the batch.
    pub fn take<'a, F>(&mut self, entries: impl Iterator<Item = (StreamId, Option<F>)>, batch: &mut Batch) -> Taken
    where
        F: Iterator<Item = (&'a [u8], &'a [u8])>,
    {
        let mut taken = Taken::default();
        let Phase::Take { is_fresh } = self.phase else { return taken };
        let delivery = match self.origin {
            Origin::New | Origin::Last => Delivery::New,
            Origin::Pending => Delivery::Again,
            Origin::Claimed(_) => Delivery::Claimed,
        };
        batch.came_at = batch.came_at.or(self.asked_at);
        let session = self.session.as_ref().filter(|_| delivery == Delivery::New).map(|session| session.number);
        let (mut first, mut last) = (StreamId::ZERO, StreamId::ZERO);
        let mut stopped = None;
        for (id, fields) in entries {
            if batch.data.len() >= SPLIT {
                stopped = Some(Phase::HandOver { now: true, then: Then::Take });
                break;
            }
            let outcome = match fields {
                Some(mut fields) => match (fields.next(), fields.next()) {
                    (Some((field, payload)), None) => self.dedup.take(id, field, payload, delivery, batch),
                    (Some(first), Some((AFTER, after))) if fields.next().is_none() => {
                        self.dedup.take_after(id, first, after, delivery, batch)
                    }
                    _ => Outcome::Foreign,
                },
                None => {
                    let outcome = self.dedup.deleted(id);
                    if outcome != Outcome::Unknown {
                        (taken.deleted, taken.deleted_last) = (taken.deleted.saturating_add(1), id);
                    }
                    outcome
                }
            };
            match outcome {
                Outcome::New => {}
                Outcome::Held => taken.redelivered = taken.redelivered.saturating_add(1),
                // Whether a reader wrote it, a fresh record knows; and what in that cannot be read
                // is reported.
                Outcome::Unknown | Outcome::Foreign if !is_fresh && !self.dedup.knows(id.ms) => {
                    stopped = Some(Phase::Load(Why::Unknown));
                    break;
                }
                Outcome::Unknown if self.record.judge(id.ms) == Verdict::Missing => {
                    self.waiting = Some(id);
                    if !self.settings.once {
                        self.reports.push(Report::WaitsForRecord(id));
                    }
                    stopped = Some(Phase::HandOver { now: true, then: Then::Wait });
                    break;
                }
                Outcome::Foreign | Outcome::Unknown => {
                    (taken.foreign, taken.foreign_last) = (taken.foreign.saturating_add(1), id);
                }
            }
            if session.is_none() {
                batch.ids.push(id);
            } else if taken.entries == 0 {
                first = id;
            }
            last = id;
            taken.entries = taken.entries.saturating_add(1);
        }
        if let Some(session) = session.filter(|_| taken.entries > 0) {
            batch.advance(Advance { session, first, to: last, entries: taken.entries as u64 });
        }
        self.dedup.close();
        self.phase = match stopped {
            Some(phase) => phase,
            None if self.dedup.has_gaps() => Phase::Look(Look::Gaps),
            None => self.taken(),
        };
        taken
    }

    /// A reply was taken.
    const fn taken(&self) -> Phase {
        let can_wait = self.ahead.is_some() || matches!(self.origin, Origin::Pending | Origin::Claimed(_));
        Phase::HandOver { now: !can_wait, then: Then::GoOn }
    }

    /// The batch was handed over.
    pub fn handed_over(&mut self, now: Instant) {
        let Phase::HandOver { then, .. } = self.phase else { return };
        self.phase = match then {
            Then::Take => Phase::Take { is_fresh: false },
            Then::End => Phase::Done,
            Then::Wait if self.settings.once => {
                self.refusal = self.waiting.map(Refusal::RecordIncomplete);
                Phase::Done
            }
            Then::Wait => Phase::Wait { is_paused: false },
            Then::BeginNew => self.begin_new(),
            Then::GoOn => match self.settings.claim_idle {
                Some(idle) if self.origin == Origin::New && !self.is_stopping && self.is_claim_due(idle, now) => {
                    self.claimed_at = Some(now);
                    Phase::Look(Look::Claims)
                }
                _ => self.follow(),
            },
        };
    }

    fn is_claim_due(&self, idle: Duration, now: Instant) -> bool {
        self.claimed_at.is_none_or(|at| now.saturating_duration_since(at).saturating_mul(2) >= idle)
    }

    /// All that was pending has come. What the group has delivered beyond what we have, and nobody
    /// else can have, is missing.
    fn begin_new(&mut self) -> Phase {
        self.origin = Origin::New;
        let delivered = self.record.clamp(self.last_delivered);
        if !self.is_begun {
            self.resume();
            // Without its record, nobody knows where in the source the group is.
            self.is_begun = !self.record.manifest.is_empty() || self.last_delivered == StreamId::ZERO;
            match (delivered, self.is_resumed, self.others_at) {
                (Some(delivered), true, None) => self.dedup.ended_at(delivered.id()),
                _ => self.dedup.watch_from(self.last_delivered),
            }
        } else if self.last_delivered > StreamId::ZERO && !self.dedup.is_watching() {
            self.dedup.watch_from(self.last_delivered);
        }
        if self.dedup.has_gaps() { Phase::Look(Look::Gaps) } else { Phase::Read }
    }

    /// What follows when everything that came was handed over.
    fn follow(&mut self) -> Phase {
        let end = Phase::HandOver { now: true, then: Then::End };
        match self.origin {
            Origin::Last => return end,
            Origin::Pending if self.is_stopping => return end,
            Origin::Claimed(next) if next != StreamId::ZERO && !self.is_stopping => return Phase::Claim(next),
            Origin::Claimed(_) => {
                self.origin = Origin::New;
                self.came = true;
                return self.taken();
            }
            Origin::Pending | Origin::New if self.came || self.ahead.is_some() || self.is_stopping => {
                return Phase::Read;
            }
            Origin::Pending | Origin::New => {}
        }
        match self.idle {
            Idle::No if !self.is_begun || self.settings.partitions.is_some() && !self.partitions_known => {
                Phase::Load(Why::Idle)
            }
            Idle::No => Phase::AskLastId,
            // Nothing came since it was asked: what is missing before it is a gap.
            Idle::Asked(last) => {
                self.idle = Idle::Judged(self.last_delivered, self.pace.end());
                self.dedup.ended_at(last);
                if self.dedup.has_gaps() {
                    return Phase::Look(Look::Gaps);
                }
                self.reports.push(Report::Judged);
                self.follow()
            }
            Idle::Judged(..) if self.settings.once => end,
            Idle::Judged(..) => Phase::Read,
        }
    }

    /// The stream's last-generated ID.
    pub fn last_id(&mut self, last: StreamId) {
        self.idle = Idle::Asked(last);
        self.phase = Phase::Read;
    }
}

#[cfg(test)]
mod tests;
