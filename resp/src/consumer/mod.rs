//! A consumer group's reader, with a connection of its own.

mod batch;
mod options;

pub use batch::{Batch, Origin};
pub use options::ConsumerOptions;

use std::fmt;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::connection::Deadline;
use crate::streams::{GroupFrom, XAck, XAutoClaim, XGroupCreate, XReadGroup};
use crate::{Block, Command, Connection, Error, ErrorKind, Frame, Sent, StreamId, command};

/// Reads a stream as a consumer of a group, for as long as it is to.
///
/// It gives first what it had pending, then what is new, and now and then what it has taken over from consumers that are gone.
/// When the connection breaks it is made again, and what is pending is given again: every entry comes **at least once** until
/// it is acknowledged.
///
/// Acknowledgements are collected by [`ack`](Self::ack) and travel with the next read. They are kept until the server has
/// confirmed them, so a broken connection loses none.
///
/// [`next`](Self::next) may be dropped at any time, as in `select!`; the next call goes on where it was. So that a consumer that ends leaves nothing
/// pending, end its loop by a [`Stopper`], or take what the server has given it already with [`take_last`](Self::take_last).
///
/// Whoever has rules of his own for connecting and waiting makes it [over](ConsumerOptions::over) a connection, and takes single steps with
/// [`read`](Self::read), [`read_ahead`](Self::read_ahead) and [`ask`](Self::ask).
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
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
    connection: Option<Connection>,
    /// Acknowledgements that the server has not confirmed.
    acks: Vec<StreamId>,
    /// What was asked and not answered.
    asked: Option<Asked>,
    /// The answer to what was asked, when it had to be received early.
    early: Option<Frame>,
    phase: Phase,
    /// Whether a lost connection is made again.
    reconnects: bool,
    /// Where the next look for entries of others begins, and when.
    claim_from: StreamId,
    claim_at: Instant,
    stop: Arc<watch::Sender<bool>>,
}

/// Where the consumer is.
#[derive(Clone, Copy, Debug)]
enum Phase {
    /// Reading its own pending entries behind this one.
    Pending(StreamId),
    /// Reading what is new.
    New,
}

/// What was asked in one go.
#[derive(Clone, Copy, Debug)]
struct Asked {
    /// So many acknowledgements, whose replies come first; 0 when they are here.
    acks: usize,
    /// So many of the oldest acknowledgements were refused, and are kept.
    refused: usize,
    what: What,
    /// How long the server waits for entries before it answers.
    block: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Pending,
    Claim,
    New,
}

/// At most so many IDs are acknowledged by one command.
const MAX_ACKS: usize = 10_000;

impl Consumer {
    async fn connect(options: ConsumerOptions) -> Result<Self, Error> {
        let mut consumer = Self::new(options, None);
        consumer.try_connect().await?;
        Ok(consumer)
    }

    fn new(options: ConsumerOptions, connection: Option<Connection>) -> Self {
        Self {
            options,
            reconnects: connection.is_none(),
            connection,
            acks: Vec::new(),
            asked: None,
            early: None,
            phase: Phase::Pending(StreamId::ZERO),
            claim_from: StreamId::ZERO,
            claim_at: Instant::now(),
            stop: Arc::new(watch::Sender::new(false)),
        }
    }

    /// The next entries; `None` when the consumer was stopped. Waits as long as there are none.
    ///
    /// A consumer that is stopped ends the read that waits in the server, gives what that read has brought, if anything, and then `None`: nothing
    /// is left pending that nobody has seen. After `None`, [`ack`](Self::ack) wants a [`flush`](Self::flush).
    ///
    /// # Errors
    ///
    /// What waiting does not cure: the key holds something else, the password is wrong, or the group is missing and is not to be
    /// made. Calling again tries again.
    pub async fn next(&mut self) -> Result<Option<Batch>, Error> {
        if let Some(batch) = self.next_unless_stopped().await {
            return batch.map(Some);
        }
        // Where it fails, the entries are pending, as after every lost connection.
        if let Ok(Some(batch)) = self.take_last().await {
            return Ok(Some(batch));
        }
        self.finish().await?;
        Ok(None)
    }

    /// What was asked for and not given yet: by [`read_ahead`](Self::read_ahead), or by a call that was dropped before it had its answer. `None` when
    /// nothing was, or nothing came. A read that waits in the server is ended (by `CLIENT UNBLOCK`; where that cannot be done, after its time).
    ///
    /// A consumer that is not read any more and leaves the answer to its last read behind, leaves those entries pending.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read).
    pub async fn take_last(&mut self) -> Result<Option<Batch>, Error> {
        let Some(asked) = self.asked else { return Ok(None) };
        if asked.block.is_some()
            && self.early.is_none()
            && let Some(unblock) = self.connection.as_ref().map(|connection| connection.unblock(&self.options.config))
        {
            unblock.await;
        }
        self.step(None).await
    }

    /// The next entries, or `None` as soon as the consumer is stopped.
    async fn next_unless_stopped(&mut self) -> Option<Result<Batch, Error>> {
        let mut stopped = self.stop.subscribe();
        let mut stopped = pin!(stopped.wait_for(|stopped| *stopped));
        let mut batch = pin!(self.next_batch());
        poll_fn(|cx| match stopped.as_mut().poll(cx) {
            Poll::Ready(_) => Poll::Ready(None),
            Poll::Pending => batch.as_mut().poll(cx).map(Some),
        })
        .await
    }

    async fn next_batch(&mut self) -> Result<Batch, Error> {
        loop {
            match self.step(Some(self.options.block)).await {
                Ok(Some(batch)) => {
                    self.options.backoff.reset();
                    return Ok(batch);
                }
                Ok(None) => {}
                // The key went away while the server waited; what there is now, the next read says.
                Err(error) if error.code() == "UNBLOCKED" => {}
                Err(error) if error.kind() == ErrorKind::NoGroup && self.options.create.is_some() => {
                    self.create().await?;
                }
                Err(error) if self.reconnects && (error.is_transient() || self.is_misled()) => {
                    self.disconnect();
                    tokio::time::sleep(self.options.backoff.next_delay()).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// One exchange with the server: what is pending next, or, once all of that was given, what is new. `None` when there was nothing:
    /// then all that was pending was given, or nothing new came for as long as `block` says (without it, nothing is there now).
    ///
    /// It neither connects again nor makes the group. May be dropped at any time; the next call receives what this one asked for.
    ///
    /// ```no_run
    /// # async fn example(connection: resp::Connection, options: resp::ConsumerOptions) -> Result<(), resp::Error> {
    /// // What there is now, and no more.
    /// let mut consumer = options.over(connection);
    /// loop {
    ///     let was_reading_pending = consumer.has_pending();
    ///     match consumer.read(None).await? {
    ///         Some(batch) => println!("{} entries", batch.entries().len()),
    ///         None if was_reading_pending => {}
    ///         None => break,
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// When the connection breaks, the group is missing, or the key holds something else.
    pub async fn read(&mut self, block: Option<Duration>) -> Result<Option<Batch>, Error> {
        self.step(block).await
    }

    /// Whether it may still have entries pending that [`read`](Self::read) has not given.
    #[must_use]
    pub const fn has_pending(&self) -> bool {
        matches!(self.phase, Phase::Pending(_))
    }

    /// Asks for new entries now, so that the server works on the answer while the last one is looked at. It does not wait for entries; the next
    /// [`read`](Self::read) receives the answer. Without effect when something was asked for already, or while pending entries are read.
    ///
    /// # Errors
    ///
    /// When the connection breaks.
    pub async fn read_ahead(&mut self) -> Result<(), Error> {
        if self.is_ahead() || self.has_pending() {
            return Ok(());
        }
        self.request(None)?;
        let Some(connection) = &mut self.connection else { return Err(Error::closed()) };
        connection.flush().await
    }

    /// Whether entries were asked for whose answer was not given yet.
    #[must_use]
    pub const fn is_ahead(&self) -> bool {
        self.asked.is_some()
    }

    /// Sends a command on the consumer's connection, between two reads. When entries were asked for, their answer is received first and kept
    /// for the next [`read`](Self::read); if that read waits in the server, so does this.
    ///
    /// # Errors
    ///
    /// As [`Connection::send`].
    pub async fn ask<C: Command>(&mut self, command: &C) -> Result<C::Reply, Error> {
        self.receive_early().await?;
        match &mut self.connection {
            Some(connection) => connection.send(command).await,
            None => Err(Error::closed().during(command.name(), command.key())),
        }
    }

    /// Changes how many entries the next batches have at most: see [`ConsumerOptions::count`].
    pub const fn set_count(&mut self, entries: u64) {
        self.options.count = entries;
    }

    /// Puts the next question on the wire, and the acknowledgements before it.
    fn request(&mut self, block: Option<Duration>) -> Result<(), Error> {
        let Some(connection) = &mut self.connection else { return Err(Error::closed()) };
        let ConsumerOptions { stream, group, name, count, claim_idle, .. } = &self.options;
        for acks in self.acks.chunks(MAX_ACKS) {
            connection.queue(&XAck::new(stream, group, acks));
        }
        let read = |from| XReadGroup::new(group, name, stream, from).count(*count);
        let mut asked = Asked { acks: self.acks.len(), refused: 0, what: What::New, block: None };
        match (self.phase, *claim_idle) {
            (Phase::Pending(after), _) => {
                connection.queue(&read(GroupFrom::Pending(after)));
                asked.what = What::Pending;
            }
            (Phase::New, Some(idle)) if Instant::now() >= self.claim_at => {
                connection.queue(&XAutoClaim::new(stream, group, name, idle, self.claim_from).count(*count));
                asked.what = What::Claim;
            }
            (Phase::New, _) => {
                match block {
                    Some(time) => connection.queue(read(GroupFrom::New).block(Block::For(time)).command()),
                    None => connection.queue(&read(GroupFrom::New)),
                }
                asked.block = block;
            }
        }
        self.asked = Some(asked);
        Ok(())
    }

    /// Receives the answer to what was asked, and keeps it.
    async fn receive_early(&mut self) -> Result<(), Error> {
        let Some(asked) = self.asked.filter(|_| self.early.is_none()) else { return Ok(()) };
        let Some(connection) = &mut self.connection else { return Err(Error::closed()) };
        Self::receive_acks(connection, &mut self.asked, &mut self.acks).await?;
        let deadline = match asked.block {
            Some(time) => connection.block_deadline(time),
            None => Deadline::after(connection.command_timeout()),
        };
        let named = |error: Error| error.during("XREADGROUP", Some(&self.options.stream));
        self.early = Some(connection.receive_until(deadline).await.map_err(named)?);
        Ok(())
    }

    /// Asks once, and says what came.
    async fn step(&mut self, block: Option<Duration>) -> Result<Option<Batch>, Error> {
        if self.connection.as_ref().is_none_or(Connection::is_closed) {
            self.disconnect();
            if !self.reconnects {
                return Err(Error::closed());
            }
            self.try_connect().await?;
        }
        // Ask, unless an earlier call has, and was dropped before the answer came.
        if self.asked.is_none() {
            self.request(block)?;
        }
        self.receive_early().await?;
        let (Some(asked), Some(frame)) = (self.asked.take(), self.early.take()) else { return Ok(None) };
        let ConsumerOptions { stream, group, name, claim_idle, .. } = &self.options;
        let claim_idle = *claim_idle;
        let read = XReadGroup::new(group, name, stream, GroupFrom::New);

        match asked.what {
            What::Claim => {
                let claim = XAutoClaim::new(stream, group, name, Duration::ZERO, StreamId::ZERO);
                let claimed = command::decode(&claim, frame)?;
                self.claim_from = claimed.next;
                if claimed.next == StreamId::ZERO {
                    // All were looked at. Half the time, so that nothing waits much longer than it must.
                    self.claim_at = Instant::now() + claim_idle.unwrap_or_default() / 2;
                }
                Ok(if claimed.entries.is_empty() { None } else { Some(Batch::claimed(claimed.entries)) })
            }
            What::Pending => {
                let entries = command::decode(&read, frame)?;
                let last = entries.ids().next_back();
                match last {
                    Some(last) => {
                        self.phase = Phase::Pending(last);
                        Ok(Some(Batch::read(Origin::Pending, entries)))
                    }
                    None => {
                        self.phase = Phase::New;
                        Ok(None)
                    }
                }
            }
            What::New => {
                let entries = command::decode(&read, frame)?;
                Ok(if entries.is_empty() { None } else { Some(Batch::read(Origin::New, entries)) })
            }
        }
    }

    /// Receives the replies to the acknowledgements that were sent, as far as they are still to come.
    async fn receive_acks(
        connection: &mut Connection,
        asked: &mut Option<Asked>,
        acks: &mut Vec<StreamId>,
    ) -> Result<(), Error> {
        let Some(asked) = asked else { return Ok(()) };
        while asked.acks > 0 {
            let reply = connection.receive().await?.into_result();
            let sent = asked.acks.min(MAX_ACKS);
            asked.acks -= sent;
            match reply {
                Ok(_) => drop(acks.drain(asked.refused..asked.refused + sent)),
                Err(error) => {
                    asked.refused += sent;
                    return Err(error.during("XACK", None));
                }
            }
        }
        Ok(())
    }

    /// Acknowledges entries: with the next call of [`next`](Self::next) or [`flush`](Self::flush).
    pub fn ack(&mut self, ids: impl IntoIterator<Item = StreamId>) {
        self.acks.extend(ids);
    }

    /// How many acknowledgements the server has not confirmed.
    #[must_use]
    pub fn unconfirmed(&self) -> usize {
        self.acks.len()
    }

    /// Sends all acknowledgements now, and waits until they are confirmed. While a read waits in the server on the consumer's own connection
    /// (because a future of [`next`](Self::next) was dropped), or that connection is gone, they travel over one that is made for it.
    ///
    /// # Errors
    ///
    /// When that fails; they are kept then.
    pub async fn flush(&mut self) -> Result<(), Error> {
        if let Some(connection) = &mut self.connection
            && Self::receive_acks(connection, &mut self.asked, &mut self.acks).await.is_err()
        {
            self.disconnect();
        }
        if self.acks.is_empty() {
            return Ok(());
        }
        if self.asked.is_none()
            && let Some(connection) = &mut self.connection
            && !connection.is_closed()
        {
            match Self::send_acks(connection, &self.options, &mut self.acks).await {
                Err(error) if error.closes_connection() || connection.is_closed() => self.disconnect(),
                done => return done,
            }
        }
        let mut connection = Connection::connect(&self.options.config).await?;
        Self::send_acks(&mut connection, &self.options, &mut self.acks).await
    }

    /// Sends all acknowledgements, and forgets those that are confirmed.
    async fn send_acks(
        connection: &mut Connection,
        options: &ConsumerOptions,
        acks: &mut Vec<StreamId>,
    ) -> Result<(), Error> {
        while !acks.is_empty() {
            let count = acks.len().min(MAX_ACKS);
            let ids = acks.iter().take(count);
            connection.send(&XAck::new(&options.stream, &options.group, ids)).await?;
            acks.drain(..count);
        }
        Ok(())
    }

    /// What stops this consumer, from another task.
    #[must_use]
    pub fn stopper(&self) -> Stopper {
        Stopper(Arc::clone(&self.stop))
    }

    /// The last acknowledgements, then the end.
    async fn finish(&mut self) -> Result<(), Error> {
        self.disconnect();
        self.flush().await
    }

    /// Whether the server has said that another one has its place.
    fn is_misled(&self) -> bool {
        self.connection.as_ref().is_some_and(Connection::is_misled)
    }

    fn disconnect(&mut self) {
        self.connection = None;
        self.asked = None;
        self.early = None;
        // What was delivered and got lost on the way is pending now.
        self.phase = Phase::Pending(StreamId::ZERO);
    }

    async fn try_connect(&mut self) -> Result<(), Error> {
        self.connection = Some(Connection::connect(&self.options.config).await?);
        if self.options.create.is_some() {
            self.create().await?;
        }
        Ok(())
    }

    /// Makes the group, unless it is there.
    async fn create(&mut self) -> Result<(), Error> {
        self.asked = None;
        self.early = None;
        self.phase = Phase::Pending(StreamId::ZERO);
        let (Some(connection), Some(start)) = (&mut self.connection, self.options.create) else {
            return Err(Error::closed().with_sent(Sent::No));
        };
        let create = XGroupCreate::new(&self.options.stream, &self.options.group, start).make_stream();
        match connection.send(&create).await {
            Err(error) if error.kind() != ErrorKind::BusyGroup => Err(error),
            _ => Ok(()),
        }
    }
}

impl fmt::Debug for Consumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer")
            .field("options", &self.options)
            .field("phase", &self.phase)
            .field("unconfirmed", &self.acks.len())
            .finish_non_exhaustive()
    }
}

/// Stops a [`Consumer`]: its [`next`](Consumer::next) gives what the server has given it already, confirms what was acknowledged, and gives
/// `None`.
#[derive(Clone, Debug)]
pub struct Stopper(Arc<watch::Sender<bool>>);

impl Stopper {
    /// Stops the consumer.
    pub fn stop(&self) {
        self.0.send_replace(true);
    }
}
