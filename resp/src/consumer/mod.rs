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

use crate::streams::{GroupFrom, XAck, XAutoClaim, XGroupCreate, XReadGroup};
use crate::{Block, Connection, Error, ErrorKind, Sent, StreamId, command};

/// Reads a stream as a consumer of a group, for as long as it is to.
///
/// It gives first what it had pending, then what is new, and now and then what it has taken over from consumers that are gone.
/// When the connection breaks it is made again, and what is pending is given again: every entry comes **at least once** until
/// it is acknowledged.
///
/// Acknowledgements are collected by [`ack`](Self::ack) and travel with the next read. They are kept until the server has
/// confirmed them, so a broken connection loses none.
///
/// [`next`](Self::next) may be dropped at any time, as in `select!`; the next call goes on where it was.
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
    phase: Phase,
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
    /// So many acknowledgements, whose reply comes first; 0 when it is here.
    acks: usize,
    what: What,
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
        let mut consumer = Self {
            options,
            connection: None,
            acks: Vec::new(),
            asked: None,
            phase: Phase::Pending(StreamId::ZERO),
            claim_from: StreamId::ZERO,
            claim_at: Instant::now(),
            stop: Arc::new(watch::Sender::new(false)),
        };
        consumer.try_connect().await?;
        Ok(consumer)
    }

    /// The next entries; `None` when the consumer was stopped. Waits as long as there are none.
    ///
    /// # Errors
    ///
    /// What waiting does not cure: the key holds something else, the password is wrong, or the group is missing and is not to be
    /// made. Calling again tries again.
    pub async fn next(&mut self) -> Result<Option<Batch>, Error> {
        if let Some(batch) = self.next_unless_stopped().await {
            return batch.map(Some);
        }
        self.finish().await?;
        Ok(None)
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
            match self.step().await {
                Ok(Some(batch)) => {
                    self.options.backoff.reset();
                    return Ok(batch);
                }
                Ok(None) => {}
                Err(error) if error.kind() == ErrorKind::NoGroup && self.options.create.is_some() => {
                    self.create().await?;
                }
                Err(error) if error.is_transient() => {
                    self.disconnect();
                    tokio::time::sleep(self.options.backoff.next_delay()).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Asks once, and says what came.
    async fn step(&mut self) -> Result<Option<Batch>, Error> {
        if self.connection.as_ref().is_none_or(Connection::is_closed) {
            self.disconnect();
            self.try_connect().await?;
        }
        let Some(connection) = &mut self.connection else { return Err(Error::closed()) };
        let ConsumerOptions { stream, group, name, count, block, claim_idle, .. } = &self.options;
        let read = XReadGroup::new(group, name, stream, GroupFrom::New).count(*count).block(Block::For(*block));
        let pending = |after| XReadGroup::new(group, name, stream, GroupFrom::Pending(after)).count(*count);
        let claim = |idle, from| XAutoClaim::new(stream, group, name, idle, from).count(*count);

        // Ask, unless an earlier call has, and was dropped before the answer came.
        let asked = match self.asked {
            Some(asked) => asked,
            None => {
                let acks = self.acks.len().min(MAX_ACKS);
                if acks > 0 {
                    connection.queue(&XAck::new(stream, group, self.acks.iter().take(acks)));
                }
                let what = match (self.phase, *claim_idle) {
                    (Phase::Pending(after), _) => {
                        connection.queue(&pending(after));
                        What::Pending
                    }
                    (Phase::New, Some(idle)) if Instant::now() >= self.claim_at => {
                        connection.queue(&claim(idle, self.claim_from));
                        What::Claim
                    }
                    (Phase::New, _) => {
                        connection.queue(read.command());
                        What::New
                    }
                };
                Asked { acks, what }
            }
        };
        self.asked = Some(asked);

        Self::receive_acks(connection, &mut self.asked, &mut self.acks).await?;
        let limit = match asked.what {
            What::New => Some(connection.block_limit(*block)),
            _ => self.options.config.command_timeout,
        };
        let frame = connection.receive_within(limit).await?;
        self.asked = None;

        match asked.what {
            What::Claim => {
                let claimed = command::decode(&claim(Duration::ZERO, StreamId::ZERO), frame)?;
                self.claim_from = claimed.next;
                if claimed.next == StreamId::ZERO {
                    // All were looked at. Half the time, so that nothing waits much longer than it must.
                    self.claim_at = Instant::now() + claim_idle.unwrap_or_default() / 2;
                }
                Ok(if claimed.entries.is_empty() { None } else { Some(Batch::claimed(claimed.entries)) })
            }
            What::Pending => {
                let entries = command::decode(&pending(StreamId::ZERO), frame)?;
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
                let entries = command::decode(read.command(), frame)?;
                Ok(if entries.is_empty() { None } else { Some(Batch::read(Origin::New, entries)) })
            }
        }
    }

    /// Receives the reply to the acknowledgements that were sent, if it is still to come.
    async fn receive_acks(
        connection: &mut Connection,
        asked: &mut Option<Asked>,
        acks: &mut Vec<StreamId>,
    ) -> Result<(), Error> {
        let Some(asked) = asked.as_mut().filter(|asked| asked.acks > 0) else { return Ok(()) };
        let reply = connection.receive().await?.into_result();
        let sent = std::mem::take(&mut asked.acks);
        reply.map_err(|error| error.during("XACK", None))?;
        acks.drain(..sent.min(acks.len()));
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

    /// Sends all acknowledgements now, over a connection for it, and waits until they are confirmed.
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
        // A read may be waiting in the server on the consumer's own connection.
        let mut connection = Connection::connect(&self.options.config).await?;
        while !self.acks.is_empty() {
            let acks = self.acks.len().min(MAX_ACKS);
            let ids = self.acks.iter().take(acks);
            connection.send(&XAck::new(&self.options.stream, &self.options.group, ids)).await?;
            self.acks.drain(..acks);
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

    fn disconnect(&mut self) {
        self.connection = None;
        self.asked = None;
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

/// Stops a [`Consumer`]: its [`next`](Consumer::next) confirms what was acknowledged, and gives `None`.
#[derive(Clone, Debug)]
pub struct Stopper(Arc<watch::Sender<bool>>);

impl Stopper {
    /// Stops the consumer.
    pub fn stop(&self) {
        self.0.send_replace(true);
    }
}
