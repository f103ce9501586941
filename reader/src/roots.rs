//! The names of contents, which all partitions of a source must share: outputs are put together by them.
//!
//! They lie in Redis, in the record beside the key of the stream that would be the only one, with the number of partitions. Each partition has a
//! source record of its own with everything else, so that nothing but the beginning of a content asks here.

use crate::batch::fields;
use crate::content::Content;
use crate::interrupt::Interrupt;
use delivery::source::{Generation, Lineage, PARTITIONS_FIELD, begun_with, next_field, record_key};
use resp::{Config, Connection, StreamId, Transaction, cmd};
use service::args::other_partitions;
use service::{Failure, Stop};
use std::cell::{Cell, RefCell};
use std::time::Duration;
use tokio::sync::{Mutex, Notify};

/// How often it is looked whether Redis still holds the record.
const EVERY: Duration = Duration::from_secs(5);
/// How long the work waits for the first look, before it makes anything in Redis. The record's node may be away, and others not.
const AT_ONCE: Duration = Duration::from_secs(1);
/// How many contents are known here before the oldest are forgotten.
const CONTENTS: usize = 1024;

/// The contents of a source with several partitions.
#[derive(Debug)]
pub(crate) struct Roots {
    /// Leads to the record.
    config: Config,
    /// The source: the key of the stream that would be the only one.
    source: String,
    record: String,
    partitions: u32,
    /// Whether Redis has said that the source has so many.
    agreed: Cell<bool>,
    /// Each with its name as its number.
    contents: RefCell<Lineage>,
    /// Who has it asks.
    connection: Mutex<Option<Connection>>,
    /// It was looked at once, whatever came of it.
    looked: Notify,
}

impl Roots {
    /// Those of this source. `config` leads to its key.
    pub(crate) fn new(config: Config, source: String, partitions: u32) -> Self {
        let record = record_key(&source);
        Self {
            config,
            source,
            record,
            partitions,
            agreed: Cell::new(false),
            contents: RefCell::default(),
            connection: Mutex::new(None),
            looked: Notify::new(),
        }
    }

    /// Does `work` beside looking after the record: another number of partitions is refused, and what Redis has lost is put back.
    pub(crate) async fn beside<T>(&self, work: impl Future<Output = Result<T, Stop>>) -> Result<T, Stop> {
        let refused = self.look_after();
        tokio::pin!(refused);
        tokio::select! {
            failure = &mut refused => return Err(failure.into()),
            () = self.looked.notified() => {}
            () = tokio::time::sleep(AT_ONCE) => {}
        }
        tokio::select! {
            biased;
            done = work => done,
            failure = &mut refused => Err(failure.into()),
        }
    }

    /// Ends only when the source was begun otherwise.
    async fn look_after(&self) -> Failure {
        loop {
            let looked = async {
                let mut held = self.connection.lock().await;
                self.refresh(self.connect(&mut held).await?).await
            };
            // Whoever needs the record tells of everything else.
            if let Err(Interrupt::Failure(failure)) = looked.await {
                return failure;
            }
            self.looked.notify_one();
            tokio::time::sleep(EVERY).await;
        }
    }

    /// Learns which contents there are, when that has not been done yet. A source with another number of partitions is refused.
    pub(crate) async fn agree(&self) -> Result<(), Interrupt> {
        let mut held = self.connection.lock().await;
        if self.agreed.get() { Ok(()) } else { self.refresh(self.connect(&mut held).await?).await }
    }

    /// The lineage of a partition, with the contents that only others know.
    pub(crate) fn with_others(&self, lineage: &Lineage) -> Lineage {
        let mut all = lineage.clone();
        for content in self.contents.borrow().iter() {
            if all.get(content.generation).is_some() || lineage.iter().any(|known| known.root == content.root) {
                continue;
            }
            let mut content = content.clone();
            // What the next one says of the one before it is not said of this one.
            let next = all.iter().find(|known| known.root > content.root).cloned();
            if let Some(mut next) = next {
                (content.previous_end, content.previous_guard) = (next.previous_end.take(), next.previous_guard.take());
                all.insert(next);
            }
            all.insert(content);
        }
        all
    }

    /// Whether no content is known.
    pub(crate) fn is_empty(&self) -> bool {
        self.contents.borrow().is_empty()
    }

    /// What a partition knows is known here, too, should Redis have lost it.
    pub(crate) fn learn(&self, lineage: &Lineage) {
        let mut contents = self.contents.borrow_mut();
        for generation in lineage.iter().filter(|known| known.generation == known.root) {
            if contents.get(generation.root).is_none() {
                contents.insert(nameable(generation));
            }
        }
    }

    /// A content that comes after that of `present`, by the name that another partition or reader has given it, else by a new one. `ours` says what
    /// it is.
    pub(crate) async fn name(
        &self,
        present: u64,
        content: &Content,
        ours: &Generation,
    ) -> Result<Generation, Interrupt> {
        let mut held = self.connection.lock().await;
        let connection = self.connect(&mut held).await?;
        self.refresh(connection).await?;
        let known = self.contents.borrow().clone();
        for known in known.iter().filter(|known| known.root > present) {
            let inode = content.inode();
            if (known.dev, known.ino) == (inode.dev, inode.ino)
                && content.has_head_of(known).map_err(|error| Interrupt::input("read", content.path(), &error))?
            {
                return Ok(known.clone());
            }
        }
        // What was looked at is not there any more: it has the name that others have given it, or none.
        if !content.has_head_of(ours).map_err(|error| Interrupt::input("read", content.path(), &error))? {
            return Err(Interrupt::Changed("the input was written anew"));
        }
        let frame = connection.send(&cmd("TIME")).await?;
        let mut time = frame.value().children().map(|value| value.as_u64().unwrap_or(0));
        let (seconds, micros) = (time.next().unwrap_or(0), time.next().unwrap_or(0));
        let number = known.next_number(seconds * 1000 + micros / 1000, StreamId::ZERO);
        let named = Generation { generation: number, root: number, ..nameable(ours) };
        let set = self.set_next(known.last().map_or(0, |last| last.generation), &named)?;
        if connection.send(&set).await?.value().as_u64() != Some(1) {
            return Err(Interrupt::Changed("another reader named a content"));
        }
        self.contents.borrow_mut().insert(named.clone());
        self.forget(connection).await?;
        Ok(named)
    }

    /// Reads the record, and adds what it lacks.
    async fn refresh(&self, connection: &mut Connection) -> Result<(), Interrupt> {
        let (source, record) = (&self.source, &self.record);
        let unreadable = |error: delivery::source::RecordError| {
            Interrupt::Failure(Failure::config(format!(
                "--stream {source}: {error}; remove what is not the reader's from the key {record}, or choose another --stream"
            )))
        };
        connection.send(&cmd("WATCH").arg(record)).await?;
        let frame = connection.send(&cmd("HGETALL").arg(record)).await?;
        let redis = Lineage::from_fields(fields(&frame)).map_err(unreadable)?;
        if let Some(begun) = begun_with(fields(&frame)).map_err(unreadable)?
            && begun != self.partitions
        {
            return Err(Interrupt::Failure(Failure::config(other_partitions(source, self.partitions, begun))));
        }
        let mut transaction = Transaction::new();
        if !fields(&frame).any(|(name, _)| name == PARTITIONS_FIELD.as_bytes()) {
            transaction.add(cmd("HSETNX").arg(record).arg(PARTITIONS_FIELD).arg(self.partitions.to_string()));
        }
        {
            let mut contents = self.contents.borrow_mut();
            redis.iter().for_each(|content| contents.insert(content.clone()));
            for content in contents.iter().filter(|content| redis.get(content.generation).is_none()) {
                let before = contents.before(content.generation).map_or(0, |before| before.generation);
                transaction.add(self.set_next(before, content)?);
            }
        }
        if transaction.is_empty() {
            connection.send(&cmd("UNWATCH")).await?;
        } else if connection.exec(&transaction).await?.is_none() {
            return Err(Interrupt::Changed("another reader named a content"));
        }
        self.agreed.set(true);
        Ok(())
    }

    /// The command that names the content after `before`.
    fn set_next(&self, before: u64, content: &Generation) -> Result<resp::Cmd, Interrupt> {
        let json = serde_json::to_vec(content).map_err(|error| Failure::failed(error.to_string()))?;
        Ok(cmd("HSETNX").arg(&self.record).arg(next_field(before)).arg(json))
    }

    /// Forgets the oldest when there are many.
    async fn forget(&self, connection: &mut Connection) -> Result<(), Interrupt> {
        let many = self.contents.borrow().iter().count().saturating_sub(CONTENTS);
        if many == 0 {
            return Ok(());
        }
        let oldest: Vec<u64> = self.contents.borrow().iter().take(many).map(|content| content.generation).collect();
        let frame = connection.send(&cmd("HGETALL").arg(&self.record)).await?;
        for (name, value) in fields(&frame).filter(|(name, _)| name.starts_with(b"next:")) {
            if serde_json::from_slice::<Generation>(value).is_ok_and(|content| oldest.contains(&content.generation)) {
                connection.send(&cmd("HDEL").arg(&self.record).arg(name)).await?;
            }
        }
        oldest.into_iter().for_each(|content| drop(self.contents.borrow_mut().remove(content)));
        Ok(())
    }

    async fn connect<'c>(&self, held: &'c mut Option<Connection>) -> Result<&'c mut Connection, resp::Error> {
        let connection = match held.take().filter(|connection| !connection.is_closed()) {
            Some(connection) => connection,
            None => Connection::connect(&self.config).await?,
        };
        Ok(held.insert(connection))
    }
}

/// What is said of a content here: nothing that is one partition's.
fn nameable(generation: &Generation) -> Generation {
    Generation { previous_end: None, previous_guard: None, ..generation.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use delivery::source::Guard;

    fn content(number: u64) -> Generation {
        Generation {
            generation: number,
            root: number,
            start: 0,
            previous_end: None,
            previous_guard: None,
            path: String::new(),
            dev: 0,
            ino: number,
            head_len: 0,
            head_hash: 0,
        }
    }

    #[test]
    fn what_is_known_of_an_end_stays_with_its_content() {
        let config = Config::from_url("redis://localhost").unwrap();
        let roots = Roots::new(config, "line_stream".to_owned(), 3);
        let mut others = Lineage::default();
        (5..9).for_each(|number| others.insert(content(number)));
        roots.learn(&others);
        let sealed = Guard::new(5, 9, 9, b"abc");
        let mut ours = Lineage::default();
        ours.insert(content(5));
        ours.insert(Generation { previous_end: Some(9), previous_guard: Some(sealed), ..content(7) });
        let all = roots.with_others(&ours);
        assert_eq!(all.contents().map(|content| content.root).collect::<Vec<_>>(), [5, 6, 7, 8]);
        assert_eq!(all.seal(5), (Some(9), Some(sealed)));
        assert_eq!(all.seal(6), (None, None), "it was not this partition that finished it");
        assert_eq!(all.seal(7), (None, None));
    }
}
