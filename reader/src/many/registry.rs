//! The registry of sources in Redis: a hash that tells writers which sources there are. It is a
//! directory; positions are in the source records.

use delivery::source_name::registry_key;
use resp::{Connection, ErrorKind, Frame, cmd};
use service::{Connector, Failure, Stop};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::Notify;

/// How often Redis is asked whether it still has the registry.
const EVERY: Duration = Duration::from_secs(2);
/// How many sources one command writes.
const AT_ONCE: usize = 500;

/// The sources of this process in the registry.
#[derive(Debug)]
pub(crate) struct SourceRegistry {
    key: String,
    /// By field.
    sources: RefCell<BTreeMap<String, Registered>>,
    changed: Notify,
    written: Notify,
    losses: Cell<u64>,
}

/// A source in the registry.
#[derive(Debug)]
struct Registered {
    state: &'static str,
    value: String,
    /// Whether Redis has it.
    is_written: bool,
}

impl SourceRegistry {
    pub(crate) fn new(stream: &str) -> Self {
        Self {
            key: registry_key(stream),
            sources: RefCell::default(),
            changed: Notify::new(),
            written: Notify::new(),
            losses: Cell::new(0),
        }
    }

    /// How often Redis was away or lost the registry: it may have lost other things as well.
    pub(crate) fn losses(&self) -> u64 {
        self.losses.get()
    }

    /// Sets the state of a source and its value, to be written soon.
    pub(crate) fn set(&self, name: &str, state: &'static str, value: String) {
        let mut sources = self.sources.borrow_mut();
        if sources.get(name).is_none_or(|known| known.state != state) {
            sources.insert(name.to_owned(), Registered { state, value, is_written: false });
            self.changed.notify_one();
        }
    }

    /// Waits until Redis has a source.
    pub(crate) async fn ensure(&self, name: &str) {
        loop {
            let written = self.written.notified();
            if self.sources.borrow().get(name).is_none_or(|known| known.is_written) {
                return;
            }
            written.await;
        }
    }

    /// Writes what changes, and writes all again when Redis lost it. Returns only to stop.
    pub(crate) async fn maintain(&self, mut connector: Connector) -> Stop {
        loop {
            let mut connection = match connector.connect().await {
                Ok(connection) => connection,
                Err(stop) => return stop,
            };
            self.forget();
            match self.work(&mut connection).await {
                Err(error) if error.kind() == ErrorKind::WrongType => {
                    return Stop::Failure(Failure::config(format!(
                        "--stream: the key {} holds another type ({error}); allowed: a hash, or a key that does not exist",
                        self.key
                    )));
                }
                Err(error) => {
                    connector.lost(&error);
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                Ok(()) => {}
            }
        }
    }

    /// Everything is to be written again.
    fn forget(&self) {
        self.losses.set(self.losses.get().saturating_add(1));
        self.sources.borrow_mut().values_mut().for_each(|known| known.is_written = false);
    }

    async fn work(&self, connection: &mut Connection) -> Result<(), resp::Error> {
        let mut known = 0;
        loop {
            self.write(connection).await?;
            let is_due = tokio::select! {
                () = self.changed.notified() => false,
                () = tokio::time::sleep(EVERY) => true,
            };
            if is_due {
                let own = self.sources.borrow().len() as u64;
                let len = connection.send(&cmd::<u64>("HLEN").arg(&self.key)).await?;
                if len < known.max(own) {
                    log::info!("Redis lost the registry of sources {}; writing it again", self.key);
                    self.forget();
                }
                known = len;
            }
        }
    }

    async fn write(&self, connection: &mut Connection) -> Result<(), resp::Error> {
        loop {
            let batch: Vec<(String, String)> = {
                let sources = self.sources.borrow();
                let missing = sources.iter().filter(|(_, known)| !known.is_written);
                missing.take(AT_ONCE).map(|(name, known)| (name.clone(), known.value.clone())).collect()
            };
            if batch.is_empty() {
                return Ok(());
            }
            let set = cmd::<Frame>("HSET").arg(&self.key);
            connection.send(&batch.iter().fold(set, |set, (name, value)| set.arg(name).arg(value))).await?;
            let mut sources = self.sources.borrow_mut();
            for (name, value) in &batch {
                if let Some(known) = sources.get_mut(name) {
                    known.is_written = known.value == *value;
                }
            }
            drop(sources);
            self.written.notify_waiters();
        }
    }
}
