//! The consumer group: its names, and what it is asked.

use delivery::consumer::{Change, GroupState, GroupView, Member, Notes, Record, Refusal};
use delivery::manifest::{GUARD_FIELD, record_key};
use resp::streams::{ConsumerInfo, GroupFrom, GroupInfo, XAck, XGroupCreate, XInfoConsumers, XInfoGroups, XReadGroup};
use resp::{Cmd, Connection, Frame, GroupReader, StreamId, cmd};
use service::Failure;
use service::args::other_partitions;
use std::cell::{Cell, RefCell};
use std::path::Path;
use std::time::Instant;

/// What the two stages of a partition tell each other.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// How the stage that acknowledges last saw the group.
    pub(crate) view: RefCell<Option<GroupView>>,
    /// The consumer's name is ours.
    pub(crate) has_name: Cell<bool>,
}

/// The stream, the group and this consumer.
#[derive(Debug, Clone)]
pub(crate) struct Group {
    /// The stream's key.
    pub(crate) stream: String,
    /// The key of the source record.
    pub(crate) record: String,
    /// The group's name.
    pub(crate) name: String,
    /// This consumer's name.
    pub(crate) consumer: String,
}

impl Group {
    /// The group of these names.
    pub(crate) fn new(stream: String, name: String, consumer: String) -> Self {
        Self { record: record_key(&stream), stream, name, consumer }
    }

    /// Creates the group at the stream's beginning.
    pub(crate) fn create(&self) -> XGroupCreate<'_> {
        XGroupCreate::new(&self.stream, &self.name, StreamId::ZERO)
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

    /// What changes a note.
    pub(crate) fn write_note(&self, change: &Change) -> Cmd {
        match change {
            Change::Claim(field, value) => cmd::<Frame>("HSETNX").arg(&self.record).arg(field).arg(value),
            Change::Set(field, value) => cmd::<Frame>("HSET").arg(&self.record).arg(field).arg(value),
            Change::Remove(field) => cmd::<Frame>("HDEL").arg(&self.record).arg(field),
        }
    }

    /// Why the consumer ends, for people.
    pub(crate) fn failure(&self, refusal: &Refusal, output: &Path) -> Failure {
        let output = output.display();
        let Self { stream, record, name, consumer } = self;
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
            Refusal::RecordIncomplete(id) => Failure::failed(format!("{record}: {}", waits(*id))),
        }
    }

    /// Why nothing is written, for people.
    pub(crate) fn waits_for_record(&self, id: StreamId) -> String {
        format!("{}: {}", self.record, waits(id))
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
    ) -> GroupView {
        let member = |one: &ConsumerInfo| Member { name: one.name.to_vec(), pending: one.pending, idle: one.idle };
        GroupView {
            asked_at,
            last_delivered: ours.last_delivered_id,
            lag: ours.lag,
            entries_read: ours.entries_read,
            members: consumers.iter().map(member).collect(),
            notes: read_notes(notes),
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

/// Names and values of a record, from the reply to `HGETALL`.
pub(crate) fn pairs(reply: &Frame) -> impl Iterator<Item = (&[u8], &[u8])> + Clone {
    reply.value().pairs().filter_map(|(name, value)| Some((name.as_bytes()?, value.as_bytes()?)))
}
