//! The file registry: the file IDs of contents. All partitions of a source share it, so that their
//! outputs can be merged.
//!
//! The registry is stored in the source record beside the unpartitioned key, with the number of
//! partitions. Each partition has a source record of its own for everything else, so it needs the
//! registry only when a content begins.

use crate::error::Interrupt;
use delivery::manifest::{Generation, Manifest, PARTITIONS_FIELD};
use delivery::producer::{Change, Changed, ObservedContents};
use resp::{Config, Connection, Discovery};
use service::args::other_partitions;
use service::source_record::{Loaded, RecordFault};
use service::{Failure, SourceRecord, Stop};
use std::cell::{Cell, RefCell};
use std::time::Duration;
use tokio::sync::{Mutex, Notify};

/// How often Redis is queried for the record, to restore a lost one.
const EVERY: Duration = Duration::from_secs(5);
/// How long the work waits for the first reply before it creates anything in Redis. The node of the
/// record may be unreachable while others are not.
const AT_ONCE: Duration = Duration::from_secs(1);
/// Maximum number of contents; beyond it, the oldest are dropped.
const CONTENTS: usize = 1024;

/// The file registry of a source with several partitions.
#[derive(Debug)]
pub(crate) struct Registry {
    /// Leads to the record.
    discovery: Discovery,
    record: SourceRecord,
    partitions: u32,
    /// Each content, as a generation whose number is its file ID.
    contents: RefCell<Manifest>,
    /// The connection, used by one partition at a time.
    connection: Mutex<Option<Connection>>,
    /// Notified after the first query, whatever its result.
    asked: Notify,
    /// Whether Redis has answered since startup.
    has_answered: Cell<bool>,
    /// Contents that the partitions of this process know.
    pub(crate) seen: RefCell<ObservedContents>,
}

impl Registry {
    /// The registry of this source. `config` leads to its key.
    pub(crate) fn new(config: Config, source: &str, partitions: u32) -> Self {
        Self {
            discovery: Discovery::new(config),
            record: SourceRecord::of(source),
            partitions,
            contents: RefCell::default(),
            connection: Mutex::new(None),
            asked: Notify::new(),
            has_answered: Cell::new(false),
            seen: RefCell::default(),
        }
    }

    /// Runs `work`. Meanwhile, refuses a source with another number of partitions, and restores a
    /// record that Redis lost.
    pub(crate) async fn beside<T>(&self, work: impl Future<Output = Result<T, Stop>>) -> Result<T, Stop> {
        let refused = self.maintain();
        tokio::pin!(refused);
        tokio::select! {
            failure = &mut refused => return Err(failure.into()),
            () = self.asked.notified() => {}
            () = tokio::time::sleep(AT_ONCE) => {}
        }
        tokio::select! {
            biased;
            done = work => done,
            failure = &mut refused => Err(failure.into()),
        }
    }

    /// Refreshes the record periodically. Returns only if the number of partitions differs.
    async fn maintain(&self) -> Failure {
        loop {
            // The partition that needs the record reports all other errors.
            if let Err(Interrupt::Failure(failure)) = self.refresh().await {
                return failure;
            }
            self.asked.notify_one();
            tokio::time::sleep(EVERY).await;
        }
    }

    /// The known contents, once Redis has answered.
    pub(crate) fn agreed(&self) -> Option<Manifest> {
        self.has_answered.get().then(|| self.contents())
    }

    /// The known contents.
    pub(crate) fn contents(&self) -> Manifest {
        self.contents.borrow().clone()
    }

    /// Adds the contents that a partition knows, in case Redis lost them.
    pub(crate) fn learn(&self, manifest: &Manifest) {
        self.seen.borrow_mut().learn(manifest);
        let mut contents = self.contents.borrow_mut();
        for generation in manifest.iter().filter(|known| known.generation == known.file_id) {
            if contents.get(generation.file_id).is_none() {
                contents.insert(shared(generation));
            }
        }
    }

    /// Loads the record, and restores what is missing. Refuses a source with another number of
    /// partitions.
    pub(crate) async fn refresh(&self) -> Result<Manifest, Interrupt> {
        let mut held = self.connection.lock().await;
        let connection = self.connect(&mut held).await?;
        let Loaded { manifest, guard, partitions } = self.load(connection).await?;
        let (change, extra) = {
            let mut contents = self.contents.borrow_mut();
            manifest.iter().for_each(|content| contents.insert(content.clone()));
            let names_partitions = partitions.is_some();
            let extra = (!names_partitions).then(|| (PARTITIONS_FIELD, self.partitions.to_string()));
            (Change { before: manifest, guard, after: contents.clone() }, extra)
        };
        let is_complete = change.before.same_generations(&change.after) && extra.is_none();
        if !is_complete && !self.change(connection, &change, extra.as_slice()).await? {
            return Err(Interrupt::Changed(Changed::OtherReader));
        }
        self.has_answered.set(true);
        Ok(change.after)
    }

    /// Registers a content if `last` is the last known one. Returns `false` if another reader
    /// registered one first.
    pub(crate) async fn append(&self, named: &Generation, last: u64) -> Result<bool, Interrupt> {
        let mut held = self.connection.lock().await;
        let connection = self.connect(&mut held).await?;
        let before = self.contents();
        if before.last().map_or(0, |known| known.generation) != last {
            return Ok(false);
        }
        let guard = self.load(connection).await?.guard;
        let mut after = before.clone();
        after.insert(shared(named));
        let many = after.len().saturating_sub(CONTENTS);
        let oldest: Vec<u64> = after.iter().take(many).map(|content| content.generation).collect();
        after.drop_all(&oldest);
        let done = self.change(connection, &Change { before, guard, after: after.clone() }, &[]).await?;
        if done {
            *self.contents.borrow_mut() = after;
        }
        Ok(done)
    }

    async fn load(&self, connection: &mut Connection) -> Result<Loaded, Interrupt> {
        let loaded = self.record.load(connection).await.map_err(|fault| self.interrupt(fault))?;
        match loaded.partitions {
            Some(begun) if begun != self.partitions => {
                Err(Interrupt::Failure(Failure::config(other_partitions(&self.record.stream, self.partitions, begun))))
            }
            _ => Ok(loaded),
        }
    }

    async fn change(
        &self,
        connection: &mut Connection,
        change: &Change,
        extra: &[(&str, String)],
    ) -> Result<bool, Interrupt> {
        self.record.change(connection, change, extra).await.map_err(|fault| self.interrupt(fault))
    }

    fn interrupt(&self, fault: RecordFault) -> Interrupt {
        Interrupt::of_record(&self.record, fault)
    }

    async fn connect<'c>(&self, held: &'c mut Option<Connection>) -> Result<&'c mut Connection, resp::Error> {
        let connection = match held.take().filter(|connection| !connection.is_closed()) {
            Some(connection) => connection,
            None => self.discovery.connect().await?,
        };
        Ok(held.insert(connection))
    }
}

/// The properties of a content that all partitions share.
fn shared(generation: &Generation) -> Generation {
    Generation { previous_end: None, previous_guard: None, resumes: None, ..generation.clone() }
}
