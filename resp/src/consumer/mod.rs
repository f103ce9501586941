//! Reading a stream in a consumer group: managed, or step by step.

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

/// Reads a stream as a consumer of a group, for as long as it is to, and looks after its
/// connection.
///
/// It makes the group when there is none. It gives first what it had pending, then what is new, and
/// now and then what it has taken over from consumers that are gone. When the connection breaks it
/// is made again, and what is pending is given again: every entry comes **at least once** until it
/// is acknowledged.
///
/// Acknowledgements are collected by [`ack`](Self::ack) and travel with the next read. They are
/// kept until the server has confirmed them, so a broken connection loses none.
///
/// [`next`](Self::next) may be dropped at any time, as in `select!`; the next call goes on where it
/// was. So that a consumer that ends leaves nothing pending, end its loop by a [`ConsumerStopper`],
/// or take what the server has given it already with [`drain`](Self::drain).
///
/// A [`GroupReader`] is for programs with rules of their own for connecting and waiting.
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
    /// Over the present connection.
    reader: Option<GroupReader>,
    /// Acknowledgements that the server has not confirmed, while there is no connection.
    acks: Vec<StreamId>,
    stop: Arc<watch::Sender<bool>>,
    /// Hears from Sentinels that the master has moved.
    master_watch: Option<Arc<MasterWatch>>,
}

/// So long a consumer that has ended tries to get its last acknowledgements confirmed, when no
/// command timeout is set.
const LAST_ACKS: Duration = Duration::from_secs(30);

/// How a wait for entries ends.
enum Next {
    Batch(Result<EntryBatch, Error>),
    Stopped,
    /// Another server is the master.
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

    /// The next entries; `None` when the consumer was stopped. Waits as long as there are none.
    ///
    /// A consumer that is stopped ends the read that waits in the server, gives what that read has
    /// brought, if anything, and then `None`: nothing is left pending that nobody has seen. Then it
    /// tries for the [command timeout](crate::Config::command_timeout) to get the last
    /// acknowledgements confirmed; after `None`, those that are still
    /// [unconfirmed](Self::unconfirmed), and what is [acknowledged](Self::ack) later, want a
    /// [`flush`](Self::flush), or the entries are given again.
    ///
    /// # Errors
    ///
    /// ReadKind waiting does not cure, and so none that [is transient](Error::is_transient): the
    /// key holds something else, the password is wrong, or the group is missing and is not to be
    /// made. Calling again tries again.
    pub async fn next(&mut self) -> Result<Option<EntryBatch>, Error> {
        if let Some(batch) = self.next_unless_stopped().await {
            return batch.map(Some);
        }
        // Where it fails, the entries are pending, as after every lost connection.
        if let Ok(Some(batch)) = self.drain().await {
            return Ok(Some(batch));
        }
        self.finish().await?;
        Ok(None)
    }

    /// ReadKind was in_flight for and not given yet, by a call that was dropped before it had its
    /// answer. `None` when nothing was, or nothing came. A read that waits in the server is ended
    /// (by `CLIENT UNBLOCK`; where that cannot be done, after its time).
    ///
    /// A consumer that is not read any more and leaves the answer to its last read behind, leaves
    /// those entries pending.
    ///
    /// # Errors
    ///
    /// When the connection breaks: the entries are pending then.
    pub async fn drain(&mut self) -> Result<Option<EntryBatch>, Error> {
        match &mut self.reader {
            Some(reader) => reader.drain().await,
            None => Ok(None),
        }
    }

    /// The next entries, or `None` as soon as the consumer is stopped.
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
                // The old master may still answer, as if nothing had happened.
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
                // The key went away while the server waited; what there is now, the next read says.
                Err(error) if error.code() == "UNBLOCKED" => continue,
                Err(error) if error.kind() == ErrorKind::NoGroup && self.options.create.is_some() => {
                    match self.create().await {
                        // It may be taken away again and again.
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

    /// Waits before the next attempt, over another connection; an error that waiting does not cure
    /// stands.
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

    /// Reads once, over a connection that is there or made.
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

    /// Acknowledges entries: with the next call of [`next`](Self::next) or [`flush`](Self::flush).
    pub fn ack(&mut self, ids: impl IntoIterator<Item = StreamId>) {
        self.acks().extend(ids);
    }

    /// How many acknowledgements the server has not confirmed.
    #[must_use]
    pub fn unconfirmed(&self) -> usize {
        self.reader.as_ref().map_or(self.acks.len(), GroupReader::unconfirmed)
    }

    /// Sends all acknowledgements now, and waits until they are confirmed. While a read waits in
    /// the server on the consumer's own connection (because a future of [`next`](Self::next) was
    /// dropped), or that connection is gone, they travel over one that is made for it.
    ///
    /// # Errors
    ///
    /// When that fails; they are kept then.
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

    /// The consumer as a [`Stream`](futures_core::Stream) of batches.
    #[must_use]
    pub fn into_stream(self) -> ConsumerStream {
        ConsumerStream::new(self)
    }

    /// ReadKind stops this consumer, from another task.
    #[must_use]
    pub fn stopper(&self) -> ConsumerStopper {
        ConsumerStopper(Arc::clone(&self.stop))
    }

    /// The last acknowledgements, then the end. ReadKind cannot be confirmed in time stays
    /// unconfirmed.
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

    /// Whether the server has said that another one has its place.
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

    /// Makes the group, unless it is there.
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

/// Stops a [`Consumer`]: its [`next`](Consumer::next) gives what the server has given it already,
/// confirms what was acknowledged, and gives `None`.
#[derive(Clone, Debug)]
pub struct ConsumerStopper(Arc<watch::Sender<bool>>);

impl ConsumerStopper {
    /// Stops the consumer.
    pub fn stop(&self) {
        self.0.send_replace(true);
    }
}
