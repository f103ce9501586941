//! Reading a stream in a consumer group.
//!
//! [`Consumer`] manages its connection and retries; it wraps a [`GroupReader`], which does the
//! single steps.

mod batch;
mod group_reader;
mod options;
mod stream;

pub use batch::{BatchOrigin, EntryBatch};
pub use group_reader::GroupReader;
pub use options::ConsumerOptions;
pub use stream::{Acknowledger, ConsumerStream};

use std::fmt;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::sync::watch;

use crate::discovery::{Discovery, MasterWatch};
use crate::{Error, ErrorKind, StreamId};

/// Reads a stream as a consumer of a group, and manages its connection.
///
/// It creates the group if there is none. It returns the entries that are pending with this
/// consumer first, then new ones, and at times those that it claims from dead consumers. When the
/// connection breaks, it reconnects and returns pending entries again: every entry is delivered
/// **at least once** until you acknowledge it.
///
/// [`ack`](Self::ack) collects acknowledgements, which travel with the next read. They are kept
/// until the server confirms them, so a broken connection loses none.
///
/// The future of [`next`](Self::next) may be dropped at any time, as in `select!`; the next call
/// continues. To leave no entries pending at the end, stop the loop with a [`ConsumerStopper`], or
/// call [`drain`](Self::drain).
///
/// Use a [`GroupReader`] to manage connections and retries yourself.
///
/// ```no_run
/// # async fn example() -> Result<(), resp::Error> {
/// use resp::{Config, Consumer, ConsumerOptions};
///
/// let config = Config::from_url("redis://localhost")?;
/// let mut consumer = ConsumerOptions::new(config, "events", "workers", "me").connect().await?;
/// let stopper = consumer.stopper(); // stopper.stop() ends the loop
/// while let Some(batch) = consumer.next().await? {
///     for entry in &batch {
///         println!("{} {:?}", entry.id, entry.field(b"type"));
///     }
///     consumer.ack(batch.ids());
/// }
/// # Ok(())
/// # }
/// ```
pub struct Consumer {
    options: ConsumerOptions,
    discovery: Discovery,
    /// The reader over the current connection.
    reader: Option<GroupReader>,
    /// Unconfirmed acknowledgements while there is no connection.
    acks: Vec<StreamId>,
    stop: Arc<watch::Sender<bool>>,
    /// Learns from Sentinels that another server has become the master.
    master_watch: Option<Arc<MasterWatch>>,
}

/// How long a stopped consumer tries to confirm its last acknowledgements without a command
/// timeout.
const LAST_ACKS: Duration = Duration::from_secs(30);

/// How a wait for entries ends.
enum Next {
    Batch(Result<EntryBatch, Error>),
    Stopped,
    /// Another server has become the master.
    Switched,
}

impl Consumer {
    async fn connect(options: ConsumerOptions) -> Result<Self, Error> {
        let stop = Arc::new(watch::Sender::new(false));
        let discovery = Discovery::new(options.config.clone());
        let mut consumer = Self { options, discovery, reader: None, acks: Vec::new(), stop, master_watch: None };
        consumer.reconnect().await?;
        consumer.master_watch = MasterWatch::start(&consumer.options.config).map(Arc::new);
        Ok(consumer)
    }

    /// Waits for the next entries; `None` after the consumer was stopped.
    ///
    /// A stopped consumer ends the read that blocks in the server, returns the entries of that
    /// read, if any, and then `None`: it leaves no entry pending that you have not seen. Before
    /// `None`, it tries for the [command timeout](crate::Config::command_timeout) to confirm the
    /// last acknowledgements. Call [`flush`](Self::flush) for those that are still
    /// [unconfirmed](Self::unconfirmed) and for [later ones](Self::ack); otherwise these entries
    /// are delivered again.
    ///
    /// # Errors
    ///
    /// Only permanent errors: the key has another type, the password is wrong, or the group does
    /// not exist and is not to be created. No error [is transient](Error::is_transient). Call again
    /// to retry.
    pub async fn next(&mut self) -> Result<Option<EntryBatch>, Error> {
        if let Some(batch) = self.next_unless_stopped().await {
            return batch.map(Some);
        }
        // If this fails, the entries stay pending, as after every lost connection.
        if let Ok(Some(batch)) = self.drain().await {
            return Ok(Some(batch));
        }
        self.finish().await?;
        Ok(None)
    }

    /// Returns the batch of a request whose call was dropped. `None` if there is none, or its reply
    /// is empty. A request that blocks in the server is ended by `CLIENT UNBLOCK`; if that fails,
    /// it ends after its timeout.
    ///
    /// If you stop reading without this call, the entries of the last reply stay pending.
    ///
    /// # Errors
    ///
    /// The connection breaks: the entries stay pending.
    pub async fn drain(&mut self) -> Result<Option<EntryBatch>, Error> {
        match &mut self.reader {
            Some(reader) => reader.drain().await,
            None => Ok(None),
        }
    }

    /// Waits for the next entries; `None` as soon as the consumer is stopped.
    async fn next_unless_stopped(&mut self) -> Option<Result<EntryBatch, Error>> {
        let mut stopped = self.stop.subscribe();
        let mut stopped = pin!(stopped.wait_for(|stopped| *stopped));
        loop {
            let master_watch = self.master_watch.clone();
            let server = self.reader.as_ref().and_then(|reader| reader.connection.server()).cloned();
            let next = {
                let mut batch = pin!(self.next_batch());
                poll_fn(|cx| {
                    if stopped.as_mut().poll(cx).is_ready() {
                        return Poll::Ready(Next::Stopped);
                    }
                    if master_watch.as_ref().is_some_and(|master_watch| master_watch.poll_switch(server.as_ref(), cx)) {
                        return Poll::Ready(Next::Switched);
                    }
                    batch.as_mut().poll(cx).map(Next::Batch)
                })
                .await
            };
            match next {
                Next::Batch(batch) => return Some(batch),
                Next::Stopped => return None,
                // The old master may still answer.
                Next::Switched => {}
            }
            self.disconnect();
        }
    }

    async fn next_batch(&mut self) -> Result<EntryBatch, Error> {
        loop {
            let error = match self.read().await {
                Ok(Some(batch)) => {
                    self.options.backoff.reset();
                    return Ok(batch);
                }
                Ok(None) => continue,
                // The key was deleted while the server blocked; the next read tells what is there
                // now.
                Err(error) if error.code() == "UNBLOCKED" => continue,
                Err(error) if error.kind() == ErrorKind::NoGroup && self.options.create.is_some() => {
                    match self.create().await {
                        // It may be deleted again and again.
                        Ok(()) => {
                            tokio::time::sleep(self.options.backoff.next_delay()).await;
                            continue;
                        }
                        Err(error) => error,
                    }
                }
                Err(error) => error,
            };
            self.recover(error).await?;
        }
    }

    /// Waits before the next attempt over another connection. Returns a permanent error.
    async fn recover(&mut self, error: Error) -> Result<(), Error> {
        let is_elsewhere =
            self.is_demoted() || (self.options.config.is_discovered() && error.kind() == ErrorKind::Moved);
        if !error.is_transient() && !is_elsewhere {
            return Err(error);
        }
        self.disconnect();
        tokio::time::sleep(self.options.backoff.next_delay()).await;
        Ok(())
    }

    /// Reads once, after connecting if necessary.
    async fn read(&mut self) -> Result<Option<EntryBatch>, Error> {
        if self.reader.as_ref().is_none_or(GroupReader::is_closed) {
            self.disconnect();
            self.reconnect().await?;
        }
        match &mut self.reader {
            Some(reader) => reader.read(Some(self.options.block)).await,
            None => Err(Error::closed()),
        }
    }

    fn acks(&mut self) -> &mut Vec<StreamId> {
        self.reader.as_mut().map_or(&mut self.acks, |reader| &mut reader.acks)
    }

    /// Acknowledges entries with the next call of [`next`](Self::next) or [`flush`](Self::flush).
    pub fn ack(&mut self, ids: impl IntoIterator<Item = StreamId>) {
        self.acks().extend(ids);
    }

    /// Returns how many acknowledgements the server has not confirmed.
    #[must_use]
    pub fn unconfirmed(&self) -> usize {
        self.reader.as_ref().map_or(self.acks.len(), GroupReader::unconfirmed)
    }

    /// Sends all acknowledgements now, and waits for their confirmation. If the connection is lost,
    /// or still blocks because a future of [`next`](Self::next) was dropped, they travel over a new
    /// connection.
    ///
    /// # Errors
    ///
    /// The acknowledgements could not be confirmed; they are kept.
    pub async fn flush(&mut self) -> Result<(), Error> {
        if let Some(reader) = &mut self.reader
            && reader.receive_acks().await.is_err()
        {
            self.disconnect();
        }
        if self.unconfirmed() == 0 {
            return Ok(());
        }
        if let Some(reader) = &mut self.reader
            && !reader.has_read_in_flight()
            && !reader.is_closed()
        {
            match reader.flush().await {
                Err(error) if error.closes_connection() || reader.is_closed() => self.disconnect(),
                done => return done,
            }
        }
        let mut connection = self.discovery.connect().await?;
        let ConsumerOptions { stream, group, .. } = &self.options;
        let acks = self.reader.as_mut().map_or(&mut self.acks, |reader| &mut reader.acks);
        group_reader::send_acks(&mut connection, stream, group, acks).await
    }

    /// Turns the consumer into a [`Stream`](futures_core::Stream) of batches.
    #[must_use]
    pub fn into_stream(self) -> ConsumerStream {
        ConsumerStream::new(self)
    }

    /// Returns a handle that stops this consumer from another task.
    #[must_use]
    pub fn stopper(&self) -> ConsumerStopper {
        ConsumerStopper(Arc::clone(&self.stop))
    }

    /// Confirms the last acknowledgements. Those that cannot be confirmed in time stay unconfirmed.
    async fn finish(&mut self) -> Result<(), Error> {
        self.disconnect();
        let patience = self.options.config.command_timeout.unwrap_or(LAST_ACKS);
        let confirmed = tokio::time::timeout(patience, async {
            while let Err(error) = self.flush().await {
                self.recover(error).await?;
            }
            Ok(())
        });
        confirmed.await.unwrap_or(Ok(()))
    }

    /// Returns whether another server has taken over.
    fn is_demoted(&self) -> bool {
        self.reader.as_ref().is_some_and(|reader| reader.connection.is_demoted())
    }

    fn disconnect(&mut self) {
        if let Some(reader) = self.reader.take() {
            self.acks = reader.acks;
        }
    }

    async fn reconnect(&mut self) -> Result<(), Error> {
        let ConsumerOptions { stream, group, name, count, claim_idle, .. } = &self.options;
        let connection = match &self.master_watch {
            Some(master_watch) => master_watch.connect(&self.discovery).await?,
            None => self.discovery.connect().await?,
        };
        let mut reader = GroupReader::new(connection, stream, group, name).count(*count).claim_idle(*claim_idle);
        if let Some(start) = self.options.create {
            reader.create(start).await?;
        }
        reader.acks = std::mem::take(&mut self.acks);
        self.reader = Some(reader);
        Ok(())
    }

    /// Creates the group unless it exists.
    async fn create(&mut self) -> Result<(), Error> {
        match (&mut self.reader, self.options.create) {
            (Some(reader), Some(start)) => reader.create(start).await,
            _ => Err(Error::closed()),
        }
    }
}

impl fmt::Debug for Consumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer")
            .field("options", &self.options)
            .field("reader", &self.reader)
            .field("unconfirmed", &self.unconfirmed())
            .finish_non_exhaustive()
    }
}

/// Stops a [`Consumer`]: its [`next`](Consumer::next) returns the entries that the server has
/// already sent, confirms acknowledgements, and returns `None`.
#[derive(Clone, Debug)]
pub struct ConsumerStopper(Arc<watch::Sender<bool>>);

impl ConsumerStopper {
    /// Stops the consumer.
    pub fn stop(&self) {
        self.0.send_replace(true);
    }
}
