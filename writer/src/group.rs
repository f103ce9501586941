//! The consumer group: its names, and what it is asked.

use delivery::source::{GUARD_FIELD, Lineage, record_key};
use resp::streams::{ConsumerInfo, XAck, XGroupCreate, XInfoConsumers, XInfoGroups};
use resp::{Cmd, Config, Connection, Consumer, ConsumerOptions, Frame, StreamId, cmd};
use std::cell::Cell;
use std::time::{Duration, Instant};

/// A consumer that has nothing and did nothing for this long takes no part.
const GONE: Duration = Duration::from_secs(10);

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

    /// Creates the group, and the stream when there is none. Who looks only whether there is a stream does not see then that it was deleted, so the
    /// source record says no more where its latest batch ends, and the reader looks at what there is.
    pub(crate) fn create_with_stream(&self) -> [Cmd; 4] {
        [
            cmd("MULTI"),
            cmd("HDEL").arg(&self.record).arg(GUARD_FIELD),
            cmd("XGROUP").arg("CREATE").arg(&self.stream).arg(&self.name).arg("0").arg("MKSTREAM"),
            cmd("EXEC"),
        ]
    }

    /// Reads as this consumer, on a connection.
    pub(crate) fn consumer(&self, config: &Config, connection: Connection) -> Consumer {
        ConsumerOptions::new(config.clone(), &self.stream, &self.name, &self.consumer).over(connection)
    }

    /// Acknowledges.
    pub(crate) fn acknowledge<'a>(&'a self, ids: &'a [StreamId]) -> XAck<'a, &'a [StreamId]> {
        XAck::new(&self.stream, &self.name, ids)
    }

    /// Asks for the source record.
    pub(crate) fn ask_record(&self) -> Cmd {
        cmd("HGETALL").arg(&self.record)
    }

    /// Asks for all groups of the stream.
    pub(crate) fn ask_groups(&self) -> XInfoGroups<'_> {
        XInfoGroups::new(&self.stream)
    }

    /// Asks for the group's consumers.
    pub(crate) fn ask_consumers(&self) -> XInfoConsumers<'_> {
        XInfoConsumers::new(&self.stream, &self.name)
    }

    /// Whether nobody else in the group gets entries.
    pub(crate) fn is_alone(&self, consumers: &[ConsumerInfo]) -> bool {
        let others = consumers.iter().filter(|consumer| consumer.name != self.consumer.as_bytes());
        others.into_iter().all(|other| other.pending == 0 && other.idle >= GONE)
    }
}

/// Whether others in the group get entries. What somebody got who has left since is no gap, so it counts for a while longer.
#[derive(Debug, Default)]
pub(crate) struct Others {
    seen: Cell<Option<Instant>>,
}

impl Others {
    /// Looks at the group's consumers. Whether there are others, or were lately.
    pub(crate) fn look(&self, group: &Group, consumers: &[ConsumerInfo]) -> bool {
        if !group.is_alone(consumers) {
            self.seen.set(Some(Instant::now()));
        }
        self.are_there()
    }

    /// Whether there were others when it was last looked, or a little before.
    pub(crate) fn are_there(&self) -> bool {
        self.seen.get().is_some_and(|seen| seen.elapsed() < GONE)
    }
}

/// The source record from the reply to [`Group::ask_record`], without what cannot be read in it, and why that cannot be read.
pub(crate) fn lineage(reply: &Frame) -> (Lineage, Option<String>) {
    match Lineage::from_fields(pairs(reply)) {
        Ok(lineage) => (lineage, None),
        Err(error) => {
            let mut lineage = Lineage::default();
            for pair in pairs(reply) {
                if let Ok(one) = Lineage::from_fields([pair]) {
                    one.iter().for_each(|generation| lineage.insert(generation.clone()));
                }
            }
            (lineage, Some(error.to_string()))
        }
    }
}

/// Names and values of a record, from the reply to `HGETALL`.
pub(crate) fn pairs(reply: &Frame) -> impl Iterator<Item = (&[u8], &[u8])> {
    reply.value().pairs().filter_map(|(name, value)| Some((name.as_bytes()?, value.as_bytes()?)))
}
