//! The consumer group: its names, and the commands about it.

use delivery::consumer::{Change, GroupState, GroupView, Lease, Member, Move, Notes, Record, Refusal, Session};
use delivery::manifest::{GUARD_FIELD, record_key};
use resp::streams::{ConsumerInfo, GroupFrom, GroupInfo, XAck, XGroupCreate, XInfoConsumers, XInfoGroups, XReadGroup};
use resp::{Cmd, Connection, Frame, GroupReader, StreamId, cmd};
use service::Failure;
use service::args::other_partitions;
use std::cell::{Cell, RefCell};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use tokio::sync::Notify;

/// The state that the consume and acknowledge stages of a partition share.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// The acknowledge stage's latest view of the group.
    pub(crate) view: RefCell<Option<GroupView>>,
    /// Whether this writer owns the consumer's name.
    pub(crate) has_name: Cell<bool>,
    /// Whether the acknowledge stage must keep the consumer from looking idle.
    pub(crate) shows_life: Cell<bool>,
    /// The session of exclusive consumption that the consume stage has started.
    pub(crate) session: RefCell<Option<Session>>,
    /// Set by the acknowledge stage, which then wakes the consume stage, if the session has failed.
    pub(crate) is_session_over: Cell<bool>,
    pub(crate) wake: Notify,
    /// The time until which exclusively consumed entries may be written.
    pub(crate) lease: LeaseTime,
}

impl Seen {
    /// Ends a session that has failed.
    pub(crate) fn end_session(&self) {
        self.session.replace(None);
        self.is_session_over.set(true);
        self.wake.notify_one();
    }
}

/// The time until which this writer has the lease. The commit stage reads it in another thread.
#[derive(Debug, Clone, Default)]
pub(crate) struct LeaseTime(Arc<Mutex<Option<Instant>>>);

impl LeaseTime {
    /// The lease was renewed.
    pub(crate) fn extend(&self, until: Instant) {
        let mut time = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *time = Some(time.map_or(until, |before| before.max(until)));
    }

    /// The lease was lost.
    pub(crate) fn end(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Whether no other writer can have the lease now.
    pub(crate) fn is_valid(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|until| Instant::now() < until)
    }
}

/// The beginning of a command on this key that Redis executes even if its memory is full. The words
/// of the command follow.
fn when_full(key: &str) -> Cmd {
    cmd::<Frame>("EVAL").arg(ALLOW_OOM).arg(1).arg(key)
}

/// The stream, the group and this consumer.
#[derive(Debug, Clone)]
pub(crate) struct Group {
    /// The stream's key.
    pub(crate) stream: String,
    /// The key of the source record.
    pub(crate) record: String,
    /// The key of the lease.
    pub(crate) lease: String,
    /// The group's name.
    pub(crate) name: String,
    /// This consumer's name.
    pub(crate) consumer: String,
}

/// Does what a transaction of the [`Checkpoint`](delivery::consumer::Checkpoint) does.
///
/// Keys: the lease, the stream. Arguments: the token; the lease's time to expire, or nothing; the
/// arguments of `XGROUP SETID` after the key, or none.
const MOVE: &str = "\
if redis.call('HGET', KEYS[1], 'token') ~= ARGV[1] then
  return 0
end
if ARGV[2] ~= '' then
  redis.call('PEXPIREAT', KEYS[1], ARGV[2])
end
if #ARGV > 2 then
  redis.call('XGROUP', 'SETID', KEYS[2], unpack(ARGV, 3))
end
return 1
";

/// Executes a command even if Redis's memory is full (Redis 7.0 or later). Used for the few small
/// fields that a writer needs to start, because only a running writer makes room.
const ALLOW_OOM: &str = "#!lua flags=allow-oom\nreturn redis.call(unpack(ARGV))";

/// Takes a free lease, even if Redis's memory is full.
///
/// Key: the lease. Arguments: its time to expire, its fields and values.
const TAKE: &str = "\
#!lua flags=allow-oom
if redis.call('EXISTS', KEYS[1]) == 1 then
  return 0
end
redis.call('HSET', KEYS[1], unpack(ARGV, 2))
redis.call('PEXPIREAT', KEYS[1], ARGV[1])
return 1
";

impl Group {
    /// The group of these names.
    pub(crate) fn new(stream: String, name: String, consumer: String) -> Self {
        Self { record: record_key(&stream), lease: Lease::key(&stream, &name), stream, name, consumer }
    }

    /// Creates the group at the stream's beginning.
    pub(crate) fn create(&self) -> XGroupCreate<'_> {
        XGroupCreate::new(&self.stream, &self.name, StreamId::ZERO)
    }

    /// Creates the group although Redis's memory is full.
    pub(crate) fn create_when_full(&self) -> Cmd {
        when_full(&self.stream).arg("XGROUP").arg("CREATE").arg(&self.stream).arg(&self.name).arg("0")
    }

    /// Creates the group, and the stream when there is none. Who looks only whether there is a
    /// stream does not see then that it was deleted, so the source record says no more where its
    /// latest batch ends, and the reader looks at what there is.
    pub(crate) fn create_with_stream(&self) -> [Cmd; 4] {
        [
            cmd::<Frame>("MULTI"),
            cmd::<Frame>("HDEL").arg(&self.record).arg(GUARD_FIELD),
            cmd::<Frame>("XGROUP").arg("CREATE").arg(&self.stream).arg(&self.name).arg("0").arg("MKSTREAM"),
            cmd::<Frame>("EXEC"),
        ]
    }

    /// Reads as this consumer, on a connection.
    pub(crate) fn reader(&self, connection: Connection) -> GroupReader {
        GroupReader::new(connection, &self.stream, &self.name, &self.consumer)
    }

    /// Acknowledges.
    pub(crate) fn acknowledge<'a>(&'a self, ids: &'a [StreamId]) -> XAck<'a, &'a [StreamId]> {
        XAck::new(&self.stream, &self.name, ids)
    }

    /// Asks for the source record.
    pub(crate) fn ask_record(&self) -> Cmd {
        cmd::<Frame>("HGETALL").arg(&self.record)
    }

    /// The source record, from the reply to [`ask_record`](Self::ask_record).
    pub(crate) fn read_record(&self, reply: &Frame) -> Record {
        Record::read(pairs(reply), &self.name, &self.consumer)
    }

    /// Asks for nothing that there can be, so that Redis sees that this consumer is alive.
    pub(crate) fn show_life(&self) -> XReadGroup<'_> {
        // To Redis, the very largest ID is the same as `>`.
        let behind_all = StreamId::new(u64::MAX, u64::MAX - 1);
        XReadGroup::new(&self.stream, &self.name, &self.consumer, GroupFrom::Pending(behind_all)).count(1)
    }

    /// Asks for the notes in the source record.
    pub(crate) fn ask_notes(&self) -> Cmd {
        let fields = Notes::fields(&self.name, &self.consumer);
        fields.iter().fold(cmd::<Frame>("HMGET").arg(&self.record), Cmd::arg)
    }

    /// Asks for the lease.
    pub(crate) fn ask_lease(&self) -> Cmd {
        Lease::FIELDS.iter().fold(cmd::<Frame>("HMGET").arg(&self.lease), Cmd::arg)
    }

    /// Asks for the number of renewals of the lease.
    pub(crate) fn ask_renewals(&self) -> Cmd<i64> {
        cmd::<i64>("PEXPIRETIME").arg(&self.lease)
    }

    /// Renews the lease.
    pub(crate) fn renew_lease(&self, lease: &Lease) -> Cmd {
        cmd::<Frame>("PEXPIREAT").arg(&self.lease).arg(lease.expires())
    }

    /// Renews the lease of this token and moves the group, in a script: when its memory is full,
    /// Redis refuses every command in a transaction, and this is what makes room. Returns whether
    /// the lease has the token.
    pub(crate) fn execute_in_script(&self, token: &str, step: &Move) -> Cmd<bool> {
        let command = cmd::<bool>("EVAL").arg(MOVE).arg(2).arg(&self.lease).arg(&self.stream).arg(token);
        let expires = step.renew.as_ref().map(|lease| lease.expires().to_string());
        let command = command.arg(expires.as_deref().unwrap_or_default());
        match step.group {
            None => command,
            Some((at, None)) => command.arg(&self.name).arg(at),
            Some((at, Some(read))) => command.arg(&self.name).arg(at).arg("ENTRIESREAD").arg(read),
        }
    }

    /// The command that changes the lease that was read. A renewal takes no memory.
    pub(crate) fn write_lease(&self, seen: Option<&Lease>, lease: Option<&Lease>) -> Vec<Cmd> {
        let Some(lease) = lease else {
            return vec![Lease::FIELDS.iter().fold(cmd::<Frame>("HDEL").arg(&self.lease), Cmd::arg)];
        };
        let mut commands = Vec::with_capacity(2);
        if seen.is_none_or(|seen| !seen.is_of(lease)) {
            let hset = cmd::<Frame>("HSET").arg(&self.lease);
            commands.push(lease.pairs().iter().fold(hset, |hset, (field, value)| hset.arg(field).arg(value)));
        }
        commands.push(self.renew_lease(lease));
        commands
    }

    /// Takes a free lease, even if the memory of Redis is full. Returns whether nobody had
    /// it.
    pub(crate) fn take_lease_when_full(&self, lease: &Lease) -> Cmd<bool> {
        let take = cmd::<bool>("EVAL").arg(TAKE).arg(1).arg(&self.lease).arg(lease.expires());
        lease.pairs().iter().fold(take, |take, (field, value)| take.arg(field).arg(value))
    }

    /// The command that changes a note; with `is_full`, one that works although Redis's memory is
    /// full.
    pub(crate) fn write_note(&self, change: &Change, is_full: bool) -> Cmd {
        let command = |name: &'static str| match is_full {
            true => when_full(&self.record).arg(name),
            false => cmd::<Frame>(name),
        };
        match change {
            Change::Claim(field, value) => command("HSETNX").arg(&self.record).arg(field).arg(value),
            Change::Set(field, value) => command("HSET").arg(&self.record).arg(field).arg(value),
            Change::Remove(field) => command("HDEL").arg(&self.record).arg(field),
        }
    }

    /// Why the consumer ends, for people.
    pub(crate) fn failure(&self, refusal: &Refusal, output: &Path) -> Failure {
        let output = output.display();
        let Self { stream, record, name, consumer, .. } = self;
        match refusal {
            Refusal::OtherPartitions(begun) => Failure::config(other_partitions(stream, 1, *begun)),
            Refusal::OutputIsInput(path) => Failure::config(format!(
                "--output {output}: it is the source's input, {path}: it would feed itself and grow until the disk is full; allowed: another file"
            )),
            Refusal::JournalMissing => Failure::config(format!(
                "--output {output}: it holds bytes and its journal is missing, and group {name} has delivered entries before, so lines could be doubled or \
                 lost; put the journal back, or move the output away, or use another --group"
            )),
            Refusal::JournalOlder => Failure::config(format!(
                "--output {output}: its journal is older than the output: group {name} has acknowledged entries that the journal lacks; nothing was \
                 changed; restore the journal that belongs to the output, or move both away"
            )),
            Refusal::NameTaken => Failure::config(format!(
                "--consumer {consumer}: another writer with another output is at work as {consumer} in group {name} of {stream}; allowed: a name \
                 of its own for each writer"
            )),
            Refusal::NameLost => Failure::config(format!(
                "--consumer {consumer}: another writer with another output took this name over in group {name} of {stream}; give each writer a \
                 name of its own, then start this one again"
            )),
            Refusal::Leased(owner) => Failure::config(format!(
                "--group {name}: writer {owner} has this group of {stream} to itself (--consume exclusive); stop it first, or use another --group"
            )),
            Refusal::Shared(other) => Failure::config(format!(
                "--consume exclusive: consumer {other} is at work in group {name} of {stream}; stop it first, or use --consume group"
            )),
            Refusal::RecordIncomplete(id) => Failure::failed(format!("{record}: {}", waits(*id))),
        }
    }

    /// Why nothing is written, for people.
    pub(crate) fn waits_for_record(&self, id: StreamId) -> String {
        format!("{}: {}", self.record, waits(id))
    }

    /// Why it cannot be consumed exclusively, for people.
    pub(crate) fn too_old() -> Failure {
        Failure::config(
            "--consume exclusive: this Redis has no PEXPIRETIME; allowed: Redis 7.0 or newer, or --consume group",
        )
    }

    /// Why nothing is read while another writer has the group to itself, for people.
    pub(crate) fn waits_for_lease(&self, owner: &str) -> String {
        format!(
            "writer {owner} has group {} of {} to itself (--consume exclusive); waiting until it ends or its lease {} is not renewed any more",
            self.name, self.stream, self.lease
        )
    }

    /// Why nothing is read exclusively yet, for people.
    pub(crate) fn waits_for_consumer(&self, other: &str) -> String {
        format!(
            "--consume exclusive: consumer {other} is at work in group {} of {}; waiting until it has left; stop it, or use --consume group",
            self.name, self.stream
        )
    }

    /// Asks for all groups of the stream.
    pub(crate) fn ask_groups(&self) -> XInfoGroups<'_> {
        XInfoGroups::new(&self.stream)
    }

    /// Asks for the group's consumers.
    pub(crate) fn ask_consumers(&self) -> XInfoConsumers<'_> {
        XInfoConsumers::new(&self.stream, &self.name)
    }

    /// How the group is, from the replies to these questions.
    pub(crate) fn view(
        &self,
        asked_at: Instant,
        ours: &GroupInfo,
        consumers: &[ConsumerInfo],
        notes: &Frame,
        lease: &Frame,
    ) -> GroupView {
        let member = |one: &ConsumerInfo| Member { name: one.name.to_vec(), pending: one.pending, idle: one.idle };
        GroupView {
            asked_at,
            last_delivered: ours.last_delivered_id,
            lag: ours.lag,
            entries_read: ours.entries_read,
            members: consumers.iter().map(member).collect(),
            notes: read_notes(notes),
            lease: read_lease(lease, None),
        }
    }
}

fn waits(id: StreamId) -> String {
    format!(
        "the source record lacks generation {} of entry {id}, so nobody knows which bytes it holds; it is kept and not written until the record is \
         complete; start the reader with its state file, which restores the record",
        id.ms
    )
}

/// A group as `XINFO GROUPS` describes it.
pub(crate) fn state(info: &GroupInfo) -> GroupState {
    GroupState {
        name: info.name.to_vec(),
        last_delivered: info.last_delivered_id,
        pending: info.pending,
        first_pending: None,
        lag: info.lag,
    }
}

/// The notes, from the reply to [`Group::ask_notes`].
pub(crate) fn read_notes(reply: &Frame) -> Notes {
    Notes::read(reply.value().children().map(resp::Value::as_bytes))
}

/// The lease, from the replies to [`Group::ask_lease`] and, where its renewals count,
/// [`Group::ask_renewals`].
pub(crate) fn read_lease(reply: &Frame, renewals: Option<i64>) -> Option<Lease> {
    Lease::read(reply.value().children().map(resp::Value::as_bytes), renewals)
}

/// Names and values of a record, from the reply to `HGETALL`.
pub(crate) fn pairs(reply: &Frame) -> impl Iterator<Item = (&[u8], &[u8])> + Clone {
    reply.value().pairs().filter_map(|(name, value)| Some((name.as_bytes()?, value.as_bytes()?)))
}
