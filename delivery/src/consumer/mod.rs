//! The consuming side: what to read from the group, which entries are new, duplicates, foreign, or
//! preceded by a gap, and when to wait or stop.
//!
//! [`Consumer`] decides for one partition. The driver calls [`next`](Consumer::next), performs the
//! effect, and reports the result. It performs one effect at a time:
//!
//! | [`Effect`] | the driver does | and reports |
//! |---|---|---|
//! | (connects) | | [`connected`](Consumer::connected) |
//! | `LoadRecord` | `HGETALL` of the source record | [`record_loaded`](Consumer::record_loaded) |
//! | `MakeGroup` | `XGROUP CREATE … 0`; also creates the stream | [`group_made`](Consumer::group_made) |
//! | `ReadLease` | `HMGET` and `PEXPIRETIME` of the lease | [`lease_read`](Consumer::lease_read) |
//! | `WriteLease` | `HSET`, `PEXPIREAT` or `HDEL` of the lease, if it has not changed | [`lease_written`](Consumer::lease_written) |
//! | `InspectGroup` | `XINFO GROUPS`, `XINFO CONSUMERS`, `HMGET` of the notes and the lease | [`group_inspected`](Consumer::group_inspected) |
//! | `Join` | `XREADGROUP` of pending entries after all IDs | [`joined`](Consumer::joined) |
//! | `ReadNotes` | `HMGET` of the notes | [`notes_read`](Consumer::notes_read) |
//! | `WriteNotes` | `HSETNX`, `HSET`, `HDEL` | [`notes_written`](Consumer::notes_written) |
//! | `Read`, `Drain` | `XREADGROUP` or `XREAD` | [`delivered`](Consumer::delivered) |
//! | `ReadAhead` | sends a read whose reply the next `Read` receives | |
//! | `Claim` | `XAUTOCLAIM` | [`claimed`](Consumer::claimed) |
//! | `Take` | passes the remaining entries of the reply | [`take`](Consumer::take) itself |
//! | `HandOver` | passes the batch to the stage that commits | [`handed_over`](Consumer::handed_over) |
//! | `ReadLastId` | `XINFO STREAM` | [`last_id`](Consumer::last_id) |
//! | `Pause` | waits | |
//! | `Reconnect` | closes the connection, and connects again | `connected` |
//! | `Restart` | drops everything in flight, and creates a new consumer | |
//! | `Refuse`, `Done` | stops | |
//!
//! After an error, or when the group was deleted, the driver closes the connection, waits, and
//! begins again with `connected`. Redis then delivers all pending entries again.
//!
//! An exclusive consumer ([`Consumption::Exclusive`]) does the same under a [`lease`]. It first
//! reads and acknowledges entries that were pending from before it became exclusive. It reads new
//! entries with `XREAD` after the group's last delivered ID. A [`Checkpoint`] moves that ID when
//! the entries are durable, so the group always shows which entries are done.
//!
//! # Layout
//!
//! | module | subject |
//! |---|---|
//! | [`batch`] | bytes that are committed together, and the IDs that are acknowledged together |
//! | [`effect`] | effects and reports |
//! | [`dedup`] | turns entries into byte ranges, and skips those that the output holds |
//! | [`gaps`] | detects bytes that were never delivered |
//! | [`record`] | the source record, and the notes of consumers in it |
//! | [`lease`] | exclusive consumption: the lease, and moving the group |
//! | [`group`] | the members of a group |
//! | [`trim`] | what can be trimmed, and which group delays trimming |
//! | `pace` | how many entries to read |

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

use crate::entry::{Further, Span};
use crate::manifest::Position;
use crate::partition::Partition;
use crate::ranges::RangeSet;
use lease::{LeaseState, LeaseWatch};
use pace::Pace;
use record::{output_field, shared_field};
use resp::StreamId;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Maximum time that a read blocks.
pub const BLOCK: Duration = Duration::from_secs(2);
/// An active writer reads more often than this.
pub const AT_WORK: Duration = Duration::from_secs(5);
/// Interval at which the group is inspected while another consumer has this one's name, or must
/// end.
const NAMESAKE_INTERVAL: Duration = Duration::from_millis(500);
/// Number of inspections after which a consumer that shows no life counts as gone, whatever its
/// idle time: the clock of Redis may have been set back.
const PROBES: u32 = 20;
/// Size at which a large reply is split into batches: 4 MiB.
const SPLIT: usize = 4 << 20;
/// Pauses before an incomplete source record is loaded again: the first, and the longest.
const RECORD_FIRST: Duration = Duration::from_millis(100);
const RECORD_LATER: Duration = Duration::from_secs(2);
/// Number of names in the record above which the names of removed consumers are deleted.
const NAMES: usize = 16;

/// The settings of a consumer.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// The group's name.
    pub group: String,
    /// This consumer's name.
    pub consumer: String,
    /// The number of partitions. A record with another number is refused.
    pub partitions: Option<u32>,
    /// Stop when no entries are left (`--once`).
    pub once: bool,
    /// Claim entries that have been pending with another consumer for this long.
    pub claim_idle: Option<Duration>,
    /// Whether the consumer shares the group.
    pub consume: Consumption,
    /// The output.
    pub output: Output,
}

/// Whether a consumer shares its group.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Consumption {
    /// The consumer shares the group with others.
    #[default]
    Group,
    /// Only this consumer reads from the group.
    Exclusive {
        /// The fencing token, unique for each start of a writer.
        token: String,
        /// How long a renewal of the lease is valid.
        lease: Duration,
    },
}

/// The output of a consumer.
#[derive(Debug, Clone, Default)]
pub struct Output {
    /// The ID of the output, from its journal.
    pub id: String,
    /// The IDs of outputs that this process wrote to before.
    pub former: Vec<String>,
    /// The file.
    pub file: FileIdentity,
    /// The output is not empty, and its journal describes none of its bytes.
    pub journal_is_missing: bool,
    /// After the bytes that its journal describes, the output has more bytes than an unfinished
    /// commit leaves behind.
    pub has_unknown_tail: bool,
    /// The ranges in the output, by file ID.
    pub held: BTreeMap<u64, RangeSet>,
    /// Ranges that were in the output and are lost. They were reported.
    pub lost: Vec<(u64, Span)>,
}

/// Why the consumer loads the source record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LoadReason {
    /// The connection is new.
    Connected,
    /// The generation of an entry is unknown.
    Unknown,
    /// An entry waits until the record has its generation.
    Waiting,
    /// A read returned nothing, and the number of partitions or the position of the group is
    /// unknown.
    Idle,
}

/// Why the consumer inspects the group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Inspection {
    /// Before the first read. `Some`: another consumer with this name was observed.
    First(Option<Namesake>),
    /// After this consumer joined. If two consumers of one name start at the same time, at least
    /// one of them sees the other here.
    Joined,
    /// Entries are missing, and another consumer may have them.
    Gaps,
    /// Other consumers may have stale pending entries.
    Claims,
    /// The group was not inspected for a while, and another consumer may hold the lease by now.
    Late,
}

/// The state of another consumer with this consumer's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Namesake {
    /// Its idle time, and when that was measured.
    idle: Duration,
    at: Instant,
    probes: u32,
    /// How often it had read since the previous inspection. A clock of Redis that is set back looks
    /// like that once.
    reads: u32,
}

/// The phase after a batch was handed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    /// Read more.
    GoOn,
    /// Take the rest of the reply.
    Take,
    /// All pending entries were read. Read new ones.
    BeginNew,
    /// Wait for the source record.
    Wait,
    /// Stop.
    End,
}

#[derive(Debug)]
enum Phase {
    Disconnected,
    Load(LoadReason),
    MakeGroup,
    Lease,
    /// Write [`Consumer::lease_change`].
    WriteLease,
    /// Wait until another consumer ends.
    Standby,
    /// The lease is lost.
    Restart,
    Inspect(Inspection),
    /// Find out whether another consumer with this name is alive.
    Probe(Namesake),
    /// Create this consumer in the group.
    Join,
    /// Write the first notes.
    Introduce,
    Read,
    /// `is_fresh`: the record was loaded after these entries arrived, so it has the generations of
    /// all entries that a reader wrote.
    Take {
        is_fresh: bool,
    },
    HandOver {
        now: bool,
        then: Then,
    },
    ReadLastId,
    Claim(StreamId),
    /// Wait until the source record has the generation of an entry.
    Wait {
        is_paused: bool,
    },
    Done,
}

/// The kind of the entries that are being read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    Pending,
    New,
    /// New entries, in the last read.
    Last,
    /// Claimed from other consumers. The next claim starts at this ID.
    Claimed(StreamId),
}

/// Whether the consumer has reached the end of the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Idle {
    /// No, or unknown.
    No,
    /// A read returned nothing. This was the last ID of the stream.
    Asked(StreamId),
    /// Gaps before this ID were reported. Also, the end of the reader's latest batch at that time.
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
    /// When the read of the current reply was sent. Its entries have been idle since then or a
    /// little later.
    asked_at: Option<Instant>,
    /// When the read was sent whose reply has not been received yet.
    ahead: Option<Instant>,
    /// The latest reply was full, so the next read is sent before the reply is taken.
    wants_ahead: bool,
    /// Whether a read succeeded on this connection.
    has_read: bool,
    /// Whether the latest read returned entries.
    came: bool,
    idle: Idle,
    /// Whether a connection got as far as reading new entries. From then on, the order of entries
    /// is checked.
    is_begun: bool,
    is_stopping: bool,
    refusal: Option<Refusal>,
    changes: Vec<Change>,
    reports: Vec<Report>,
    /// Whether the record has the number of partitions.
    partitions_known: bool,
    /// The last ID delivered to the group, at the last inspection.
    last_delivered: StreamId,
    /// The end of the output, as far as the group had delivered it when this consumer first joined.
    own_end: Option<Position>,
    knows_end: bool,
    /// Whether everything that the group delivered after the end of the output, or after the shared
    /// entries, was delivered to this output's consumer.
    is_resumed: bool,
    /// When the group was last inspected.
    inspected_at: Option<Instant>,
    /// Whether this consumer created the group, so that no other consumer received entries before.
    has_made_group: bool,
    /// When other consumers were last in the group. Entries that one of them received before it
    /// left are not gaps, so this counts for a while longer.
    others_at: Option<Instant>,
    /// The ID up to which entries were shared with other consumers, as far as this consumer knows.
    shared: Option<StreamId>,
    /// The output of a previous writer with this consumer name.
    replaced: Option<String>,
    /// Whether the notes assign the consumer name to this output.
    has_name: bool,
    /// When the notes were last written. Earlier views of the group are stale.
    written_at: Option<Instant>,
    /// The first entry that waits for the record, and the pause before the record is loaded again.
    waiting: Option<StreamId>,
    record_pause: Duration,
    claimed_at: Option<Instant>,
    /// The lease of this consumer, and when its latest renewal was sent.
    lease: Option<(Lease, Instant)>,
    /// The next change of the lease in Redis: the expected value, and the new one.
    lease_change: (Option<Lease>, Option<Lease>),
    lease_watch: LeaseWatch,
    /// The consumer whose lease was taken over, and its idle time at that moment.
    predecessor: Option<(String, Option<(Duration, Instant)>)>,
    /// Another active consumer, its idle time, and when that was measured.
    beside: Option<(String, Duration, Instant)>,
    /// The consumer that this one waits for, as reported.
    waits_for: Option<String>,
    /// When the group was first inspected under the current lease.
    joined_at: Option<Instant>,
    session: Option<Session>,
    sessions: u64,
    /// An exclusive consumer reads new entries after this ID.
    position: StreamId,
}

impl Consumer {
    /// A consumer of this partition.
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
            inspected_at: None,
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

    /// Returns the next effect.
    pub fn next(&mut self, now: Instant) -> Effect {
        if let Some(refusal) = self.refusal.take() {
            self.phase = Phase::Done;
            return Effect::Refuse(refusal);
        }
        match self.phase {
            Phase::Disconnected => Effect::Reconnect,
            Phase::Done => Effect::Done,
            // No entries were read, so there is no batch to hand over.
            Phase::Load(LoadReason::Connected | LoadReason::Waiting)
            | Phase::MakeGroup
            | Phase::Lease
            | Phase::WriteLease
            | Phase::Standby
            | Phase::Inspect(Inspection::First(_) | Inspection::Joined)
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
                Effect::Pause(NAMESAKE_INTERVAL)
            }
            Phase::Restart => Effect::Restart,
            Phase::Inspect(_) => Effect::InspectGroup,
            Phase::Probe(namesake) => {
                self.phase = Phase::Inspect(Inspection::First(Some(namesake)));
                Effect::Pause(NAMESAKE_INTERVAL)
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
            Phase::ReadLastId => Effect::ReadLastId,
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
                self.phase = Phase::Load(LoadReason::Waiting);
                Effect::LoadRecord
            }
        }
    }

    fn read(&mut self, now: Instant) -> Effect {
        self.phase = Phase::Read;
        if self.is_stopping && self.origin == Origin::New {
            self.origin = Origin::Last;
            self.asked_at = self.ahead.or(self.asked_at);
            return Effect::Drain;
        }
        if self.ahead.is_none() && self.pace.is_stale(now) {
            return Effect::ReadNotes;
        }
        let pending = self.origin == Origin::Pending;
        // The acknowledging stage inspects the group regularly, unless the process was suspended or
        // Redis did not reply.
        let is_late = self.inspected_at.is_none_or(|at| now.saturating_duration_since(at) > AT_WORK);
        if !pending && self.ahead.is_none() && self.session.is_none() && is_late {
            self.phase = Phase::Inspect(Inspection::Late);
            return Effect::InspectGroup;
        }
        let can_block = !(pending || self.ahead.is_some() || self.settings.once);
        let least = Duration::from_millis(10);
        // An entry that arrives late in a read seems older by the length of the read. Entries idle
        // for half of the claim time are not committed any more.
        let block =
            self.settings.claim_idle.map_or(BLOCK, |idle| idle.checked_div(4).unwrap_or_default().clamp(least, BLOCK));
        let count = if self.ahead.is_some() { self.pace.asked() } else { self.pace.count(now) };
        self.asked_at = self.ahead.or(Some(now));
        let behind = self.behind().filter(|_| !pending);
        Effect::Read { pending, behind, count, block: can_block.then_some(block) }
    }

    /// The ID after which an exclusive consumer reads new entries.
    fn behind(&self) -> Option<StreamId> {
        self.session.as_ref().map(|_| self.position)
    }

    /// Reports a new connection.
    pub fn connected(&mut self, now: Instant) {
        self.phase = Phase::Load(LoadReason::Connected);
        (self.origin, self.idle) = (Origin::Pending, Idle::No);
        (self.ahead, self.wants_ahead, self.has_read, self.came) = (None, false, false, false);
        self.session = None;
        self.changes.clear();
        self.claimed_at = Some(now);
        self.pace.restart();
    }

    /// Requests a stop. The consumer still takes entries that Redis has already delivered to it: if
    /// its consumer name is never used again, nobody else would read them.
    pub const fn stop(&mut self) {
        self.is_stopping = true;
    }

    /// Returns the reports since the last call.
    pub fn take_reports(&mut self) -> Vec<Report> {
        std::mem::take(&mut self.reports)
    }

    /// Whether the consumer name belongs to this output.
    #[must_use]
    pub const fn has_name(&self) -> bool {
        self.has_name
    }

    /// Whether the driver must keep this consumer active, with some read at least once a second.
    /// Redis 7.0 does not reset the idle time for an empty read. An exclusive consumer without a
    /// session may have lost its lease, so it does not.
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

    /// Reports the source record. `input_here`: device and inode of the file at the [input's
    /// path](Record::input_path) on this host.
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
            LoadReason::Connected => Phase::MakeGroup,
            // This is the first record since the start: read the pending entries again, now that it
            // can judge them.
            LoadReason::Unknown | LoadReason::Idle
                if self.origin == Origin::New && !self.is_begun && !self.record.manifest.is_empty() =>
            {
                Phase::Disconnected
            }
            LoadReason::Unknown => Phase::Take { is_fresh: true },
            LoadReason::Idle => Phase::ReadLastId,
            LoadReason::Waiting => match self.waiting {
                Some(id) if !self.dedup.knows(id.ms) && self.record.judge(id.ms) == Verdict::Missing => {
                    Phase::Wait { is_paused: false }
                }
                // The rest of the reply is pending, and is read again.
                _ => {
                    (self.waiting, self.record_pause) = (None, RECORD_FIRST);
                    self.reports.push(Report::RecordComplete);
                    Phase::Disconnected
                }
            },
        };
    }

    /// Reports that the group exists. `is_new`: the driver created it.
    pub const fn group_made(&mut self, is_new: bool) {
        self.has_made_group |= is_new;
        self.phase = Phase::Lease;
    }

    /// Reports the result of [`Effect::ReadLease`].
    pub fn lease_read(&mut self, lease: Option<Lease>, now: Instant) {
        if !matches!(self.phase, Phase::Lease) {
            return;
        }
        let own = self.own_lease(lease.as_ref());
        let is_mine = lease.as_ref().zip(own.as_ref()).is_some_and(|(lease, own)| lease.is_of(own));
        if self.lease.is_some() && !is_mine {
            // Another writer held the lease meanwhile, and may have received the entries that are
            // in flight.
            self.phase = Phase::Restart;
            return;
        }
        if let Some(other) = lease.as_ref().filter(|other| !is_mine && !self.is_of_this_output(other)) {
            match self.lease_watch.observe(other, now) {
                LeaseState::Held { is_renewed: true } if self.settings.once => {
                    self.refusal = Some(Refusal::Leased(other.consumer.clone()));
                    return;
                }
                LeaseState::Held { .. } => {
                    return self.wait_for(other.consumer.clone(), Report::WaitsForLease);
                }
                LeaseState::Expired => {}
            }
        }
        self.lease_watch.forget();
        self.phase =
            if lease.is_none() && own.is_none() { Phase::Inspect(Inspection::First(None)) } else { Phase::WriteLease };
        self.lease_change = (lease, own);
    }

    /// Reports the result of [`Effect::WriteLease`], which was sent at `sent_at`.
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
        self.phase = Phase::Inspect(Inspection::First(None));
    }

    /// Reports that Redis refused [`Effect::WriteLease`] because its memory is full. Only a working
    /// consumer can trim and free memory. So this consumer renews the lease of an earlier process
    /// with the same output instead. Returns whether there is such a lease.
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

    /// The lease that this consumer writes if Redis holds `seen`.
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

    /// Whether an earlier process with the same output held this lease. That process has ended,
    /// because this one has locked the output.
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

    /// Another consumer that has read recently.
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

    /// Whether this consumer is exclusive.
    #[must_use]
    pub const fn is_exclusive(&self) -> bool {
        matches!(self.settings.consume, Consumption::Exclusive { .. })
    }

    /// The time until which this consumer's lease is valid, as far as this state machine has
    /// renewed it. `None` without a lease.
    #[must_use]
    pub fn leased_until(&self) -> Option<Instant> {
        self.lease.as_ref().map(|(lease, at)| crate::later(*at, lease.time))
    }

    /// The session of an exclusive consumer on this connection.
    #[must_use]
    pub const fn session(&self) -> Option<&Session> {
        self.session.as_ref()
    }

    /// Ends the session, because another program moved the group, or the connection that moves it
    /// was lost.
    pub fn end_session(&mut self) {
        if self.session.take().is_some() && !matches!(self.phase, Phase::Done | Phase::Restart) {
            self.phase = Phase::Disconnected;
        }
    }

    /// Reports the result of [`Effect::InspectGroup`].
    pub fn group_inspected(&mut self, view: &GroupView, now: Instant) {
        let Phase::Inspect(inspection) = self.phase else { return };
        match inspection {
            Inspection::First(namesake) => return self.inspected_first(view, namesake, now),
            Inspection::Joined => return self.inspected_after_join(view, now),
            Inspection::Gaps | Inspection::Claims | Inspection::Late => {}
        }
        if !self.assess(view, now) {
            return;
        }
        if inspection == Inspection::Late {
            self.phase = Phase::Read;
            return;
        }
        if inspection == Inspection::Claims {
            let mut others = view.members.iter().filter(|one| one.name != self.settings.consumer.as_bytes());
            let is_left = others.any(|other| other.pending > 0);
            self.phase = if is_left { Phase::Claim(StreamId::ZERO) } else { self.follow() };
            return;
        }
        // No other consumer can have the missing entries, otherwise the gaps would have been
        // dropped.
        let gaps = self.dedup.take_gaps();
        if !gaps.is_empty() && !self.came {
            // A restarted writer must not report them again. The group may have been moved further
            // than the record, which is older than the view, has generations and ends for.
            let checked = self.dedup.checked_to().map(Position::id);
            self.set_shared(checked.map_or(view.last_delivered, |id| id.min(view.last_delivered)));
        }
        self.reports.extend(gaps.into_iter().map(|gap| {
            let path = self.dedup.path_of(gap.file_id).to_owned();
            Report::Gap(gap, path)
        }));
        if matches!(self.idle, Idle::Judged(..)) {
            self.reports.push(Report::GapsReported);
        }
        self.phase = self.taken();
    }

    /// Reports a view of the group that another stage measured.
    pub fn group_observed(&mut self, view: &GroupView, now: Instant) {
        if self.is_reading() {
            self.assess(view, now);
        }
    }

    /// Updates the state from a view. Returns whether the consumer can continue.
    fn assess(&mut self, view: &GroupView, now: Instant) -> bool {
        self.note_others(view, now);
        // Ignore a view from before this consumer held the lease.
        if self.joined_at.is_none_or(|joined| view.asked_at >= joined) && !self.has_lease_as(view) {
            // A consumer without a lease waits until the other one's ends.
            self.phase = if self.lease.is_some() { Phase::Restart } else { Phase::Disconnected };
            return false;
        }
        if self.lease.is_some() {
            self.report_intruder(view);
        }
        // A view from before the notes were written is stale.
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

    /// Whether the lease in Redis is this consumer's, or neither of them has one.
    fn has_lease_as(&self, view: &GroupView) -> bool {
        match (&view.lease, &self.lease) {
            (Some(seen), Some((own, _))) => seen.is_of(own),
            (None, None) => true,
            _ => false,
        }
    }

    /// Reports another consumer that reads from the group.
    fn report_intruder(&mut self, view: &GroupView) {
        let other = self.at_work_beside(view).map(|other| String::from_utf8_lossy(&other.name).into_owned());
        let known = self.beside.take().map(|(name, ..)| name);
        if let Some(name) = other {
            if known.as_ref() != Some(&name) {
                self.reports.push(Report::Intruder(name.clone()));
            }
            self.beside = Some((name, Duration::ZERO, view.asked_at));
        }
    }

    fn note_others(&mut self, view: &GroupView, now: Instant) {
        self.inspected_at = Some(view.asked_at);
        if !view.is_alone(&self.settings.consumer) {
            self.others_at = Some(now);
        }
        self.pace.noted(&view.notes, view.lag, now);
    }

    /// Inspects the group before the first read: whether the consumer name is free.
    fn inspected_first(&mut self, view: &GroupView, namesake: Option<Namesake>, now: Instant) {
        self.note_others(view, now);
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
        // Acknowledged entries were in the journal.
        let is_acknowledged = view.members.iter().all(|member| member.pending == 0)
            && !self.has_others(now)
            && view.notes.shared.is_none_or(|shared| shared < view.last_delivered)
            && self.dedup.lacks_end_of(view.last_delivered);
        if output.has_unknown_tail && noted.is_some_and(|noted| self.is_ours(noted)) && is_acknowledged {
            self.refusal = Some(Refusal::JournalOlder);
            return;
        }
        self.replaced = noted.filter(|noted| !self.is_ours(noted)).cloned();
        let namesake = member.filter(|member| self.replaced.is_some() && member.idle < AT_WORK).map(|member| {
            let has_read = |before: &Namesake| member.is_awake(before.idle, view.asked_at, before.at);
            Namesake {
                idle: member.idle,
                at: view.asked_at,
                probes: namesake.map_or(0, |before| before.probes.saturating_add(1)),
                reads: namesake.map_or(0, |before| before.reads.saturating_add(u32::from(has_read(&before)))),
            }
        });
        self.phase = match namesake {
            Some(namesake) if namesake.reads > 1 => {
                self.refusal = Some(Refusal::NameTaken);
                return;
            }
            Some(namesake) if namesake.probes < PROBES => Phase::Probe(namesake),
            _ => Phase::Join,
        };
    }

    /// Reports that the group has this consumer.
    pub const fn joined(&mut self) {
        self.phase = Phase::Inspect(Inspection::Joined);
    }

    /// Inspects the group after joining and before the first read: what the notes say.
    fn inspected_after_join(&mut self, view: &GroupView, now: Instant) {
        self.note_others(view, now);
        if !self.has_lease_as(view) {
            self.phase = Phase::Lease;
            return;
        }
        self.joined_at = Some(view.asked_at);
        self.last_delivered = view.last_delivered;
        if !std::mem::replace(&mut self.knows_end, true) {
            let delivered = self.record.clamp(view.last_delivered);
            self.own_end = self.dedup.end_of_held(delivered.filter(|_| view.last_delivered > StreamId::ZERO));
        }
        let Settings { consumer, output, group, .. } = &self.settings;
        let names = &self.record.names;
        if names.len() > NAMES {
            let gone = names.iter().filter(|(name, _)| name != consumer && view.member(name).is_none());
            self.changes.extend(gone.map(|(name, _)| Change::Remove(output_field(group, name))));
        }
        // The consumer name is often the host name, which changes when a container is recreated.
        let is_known = names.iter().any(|(_, output)| self.is_ours(output));
        // Another program has removed the notes, or the whole record.
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
                self.phase = Phase::Inspect(Inspection::First(None));
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
            self.reports.push(Report::WaitEnded);
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

    /// The next entries must follow the end of the output, or the shared entries.
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
        let field = shared_field(&self.settings.group);
        self.changes.retain(|change| !matches!(change, Change::Set(of, _) if *of == field));
        // First: once the record names this output, the output must have received every later
        // entry.
        self.changes.insert(0, Change::Set(field, id.to_string()));
    }

    fn change(&mut self, change: Change) {
        if !self.changes.contains(&change) {
            self.changes.push(change);
        }
    }

    /// Maintains the note about shared entries. It changes only when other consumers join or leave,
    /// because the reader reads the record again after each change.
    fn share(&mut self, view: &GroupView, now: Instant) {
        // No consumer removes the note.
        let noted = view.notes.shared.or(self.shared);
        let has_others = self.has_others(now);
        if has_others || noted != self.shared {
            // If the note changed, other consumers joined and left in the meantime.
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

    /// Reports the notes.
    pub fn notes_read(&mut self, notes: &Notes, now: Instant) {
        self.pace.noted(notes, None, now);
        self.wake(self.last_delivered, notes.end);
    }

    /// Reports that the notes were written. `is_claimed`: a [`Change::Claim`] succeeded.
    pub fn notes_written(&mut self, is_claimed: bool, now: Instant) {
        self.changes.clear();
        self.written_at = Some(now);
        if matches!(self.phase, Phase::Introduce) {
            self.has_name = is_claimed;
            self.phase = if is_claimed { Phase::Read } else { Phase::Load(LoadReason::Connected) };
        }
    }

    /// Checks for gaps at the end again when the reader, or a program that moves the group, has
    /// made progress.
    fn wake(&mut self, last_delivered: StreamId, end: Option<StreamId>) {
        if let Idle::Judged(delivered, until) = self.idle
            && (delivered, until) != (last_delivered, end)
        {
            self.idle = Idle::No;
        }
    }

    /// Reports the result of [`Effect::Read`] or [`Effect::Drain`].
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

    /// Reports the result of [`Effect::Claim`]: the number of entries, and where the next claim
    /// starts; zero at the end.
    pub fn claimed(&mut self, entries: u64, next: StreamId) {
        self.origin = Origin::Claimed(next);
        self.came = entries > 0;
        self.phase = if self.came { Phase::Take { is_fresh: false } } else { self.taken() };
    }

    /// Takes the remaining entries of a reply: ID and fields. An entry that was deleted while
    /// pending has no fields. New bytes are added to the batch.
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
                    (Some(first @ (field, payload)), Some(second)) => match Further::new(second, fields) {
                        Further::Added => self.dedup.take(id, field, payload, delivery, batch),
                        Further::After(after) => self.dedup.take_after(id, first, after, delivery, batch),
                        Further::Foreign => Outcome::Foreign,
                    },
                    (None, _) => Outcome::Foreign,
                },
                None => {
                    let outcome = self.dedup.deleted(self.bounded(id));
                    if outcome != Outcome::Unknown {
                        (taken.deleted, taken.deleted_last) = (taken.deleted.saturating_add(1), id);
                    }
                    outcome
                }
            };
            match outcome {
                Outcome::New => {}
                Outcome::Held => taken.redelivered = taken.redelivered.saturating_add(1),
                // A fresh record shows whether a reader wrote the entry. An unreadable field of the
                // record is reported.
                Outcome::Unknown | Outcome::Foreign if !is_fresh && !self.dedup.knows(id.ms) => {
                    stopped = Some(Phase::Load(LoadReason::Unknown));
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
            None if self.dedup.has_gaps() => Phase::Inspect(Inspection::Gaps),
            None => self.taken(),
        };
        taken
    }

    /// The whole reply was taken.
    const fn taken(&self) -> Phase {
        let can_wait = self.ahead.is_some() || matches!(self.origin, Origin::Pending | Origin::Claimed(_));
        Phase::HandOver { now: !can_wait, then: Then::GoOn }
    }

    /// Reports that the batch was handed over.
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
                    Phase::Inspect(Inspection::Claims)
                }
                _ => self.follow(),
            },
        };
    }

    fn is_claim_due(&self, idle: Duration, now: Instant) -> bool {
        self.claimed_at.is_none_or(|at| now.saturating_duration_since(at).saturating_mul(2) >= idle)
    }

    /// All pending entries were read. Entries that the group has delivered, that the output lacks,
    /// and that no other consumer can have, are missing.
    fn begin_new(&mut self) -> Phase {
        self.origin = Origin::New;
        let delivered = self.record.clamp(self.last_delivered);
        if !self.is_begun {
            self.resume();
            // Without the record, the position of the group in the source is unknown.
            self.is_begun = !self.record.manifest.is_empty() || self.last_delivered == StreamId::ZERO;
            match (delivered, self.is_resumed, self.others_at) {
                (Some(delivered), true, None) => self.dedup.ended_at(delivered.id()),
                _ => self.dedup.watch_from(self.last_delivered),
            }
        } else if self.last_delivered > StreamId::ZERO && !self.dedup.is_watching() {
            self.dedup.watch_from(self.last_delivered);
        }
        if self.dedup.has_gaps() { Phase::Inspect(Inspection::Gaps) } else { Phase::Read }
    }

    /// The phase after everything was handed over.
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
                Phase::Load(LoadReason::Idle)
            }
            Idle::No => Phase::ReadLastId,
            // No entry arrived since the query, so anything missing before this ID is a gap.
            Idle::Asked(last) => {
                self.idle = Idle::Judged(self.last_delivered, self.pace.end());
                self.dedup.ended_at(self.bounded(last));
                if self.dedup.has_gaps() {
                    return Phase::Inspect(Inspection::Gaps);
                }
                self.reports.push(Report::GapsReported);
                self.follow()
            }
            Idle::Judged(..) if self.settings.once => end,
            Idle::Judged(..) => Phase::Read,
        }
    }

    /// An ID, or the end of the reader's latest batch if that is smaller: what is behind it was not
    /// added by a reader, but by `XSETID` or a foreign `XADD`. The end may be of an earlier moment;
    /// the next one [wakes](Self::wake) the consumer.
    fn bounded(&self, id: StreamId) -> StreamId {
        self.pace.end().filter(|end| end.ms == id.ms).map_or(id, |end| id.min(end))
    }

    /// Reports the last-generated ID of the stream.
    pub fn last_id(&mut self, last: StreamId) {
        self.idle = Idle::Asked(last);
        self.phase = Phase::Read;
    }
}

#[cfg(test)]
mod tests;
