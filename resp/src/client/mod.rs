//! One connection that many tasks share.
//!
//! [`Client`] is the handle; its driver task owns the connection, reconnects, and reports events.
//! The cluster client holds one client for each node.

mod driver;
mod event;
mod queue;
mod response;
mod tracking;

pub use event::{ClientEvent, ClientEvents};

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::time::Instant;

use crate::command::{self, Command};
use crate::config::Observed;
use crate::connection::{Pipeline, Replies, Transaction, in_future};
use crate::discovery::{Discovery, MasterWatch};
use crate::{Backoff, Config, Endpoint, Error, ErrorKind, Sent, cmd};
use event::Reporter;
use queue::{Queue, Shape};
use response::Frames;
use tracking::Tracking;

/// Options of a [`Client`] beyond its [`Config`].
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
/// use resp::{Backoff, ClientOptions, Config};
///
/// let client = ClientOptions::new(Config::from_url("redis://localhost")?)
///     .max_bytes(4 * 1024 * 1024)
///     .backoff(Backoff::new(Duration::from_millis(10), Duration::from_secs(1)))
///     .connect()
///     .await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct ClientOptions {
    config: Config,
    max_bytes: usize,
    backoff: Backoff,
    ping_after: Option<Duration>,
    reconnects: bool,
    as_replica: bool,
    reconnect_on_readonly: bool,
}

impl ClientOptions {
    /// Creates the default options.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self {
            config,
            max_bytes: 16 << 20,
            backoff: Backoff::default(),
            ping_after: Some(Duration::from_secs(30)),
            reconnects: true,
            as_replica: false,
            reconnect_on_readonly: true,
        }
    }

    /// Sets how many bytes of commands may be queued and in flight. When there are more, callers
    /// wait, as long as the [command timeout](Config::command_timeout) allows. A single larger
    /// command is accepted. Default 16 MiB.
    #[must_use]
    pub const fn max_bytes(mut self, bytes: usize) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// Sets the delays between attempts to reconnect.
    #[must_use]
    pub const fn backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }

    /// Sets the idle time after which the client pings the server, so that it detects a dead link
    /// before the next command. Default 30 s.
    #[must_use]
    pub const fn ping_after(mut self, idle: Option<Duration>) -> Self {
        self.ping_after = idle;
        self
    }

    /// Sets whether the client reconnects, at most once a second, when the server replies
    /// `READONLY`: with a virtual IP or a managed Redis, another server may have become the master
    /// behind the address. The call itself fails with [`ErrorKind::ReadOnly`]. Default true; use
    /// false for a client that should stay with a replica. With Sentinels and in a cluster, the
    /// client always reconnects.
    #[must_use]
    pub const fn reconnect_on_readonly(mut self, reconnect: bool) -> Self {
        self.reconnect_on_readonly = reconnect;
        self
    }

    /// Does not reconnect. Cluster nodes use this; a replica's connection is read-only.
    pub(crate) const fn once(mut self, as_replica: bool) -> Self {
        self.reconnects = false;
        self.as_replica = as_replica;
        self.reconnect_on_readonly = false;
        self
    }

    /// Connects.
    ///
    /// # Errors
    ///
    /// The first connection cannot be made; later ones are retried without end.
    /// [`ErrorKind::Usage`] for a cluster without [a key](Config::for_key).
    pub async fn connect(self) -> Result<Client, Error> {
        if matches!(self.config.endpoint, Endpoint::Cluster { .. }) && self.config.key.is_none() {
            let error = Error::new(ErrorKind::Usage, "use a ClusterClient for a cluster, or set Config::for_key");
            return Err(self.config.connect_error(error));
        }
        let discovery = Discovery::new(self.config);
        let config = discovery.config();
        let mut connection = discovery.connect().await?;
        if self.as_replica {
            connection.send(cmd::<()>("READONLY")).await.map_err(|error| config.connect_error(error))?;
        }
        // The cluster client follows them.
        connection.keep_redirects(!self.reconnects);
        let queue = Arc::new(Queue::new(self.max_bytes));
        let events = Arc::new(Reporter::default());
        let command_timeout = config.command_timeout;
        let tracking = Arc::new(Tracking::default());
        let observer = config.observer.clone();
        let driver = driver::Driver {
            queue: Arc::clone(&queue),
            tracking: Arc::clone(&tracking),
            master_watch: MasterWatch::start(config).filter(|_| self.reconnects),
            reconnect_on_readonly: self.reconnect_on_readonly,
            last_demotion: None,
            discovery,
            backoff: self.backoff,
            ping_after: self.ping_after,
            reconnects: self.reconnects,
            events: Arc::clone(&events),
        };
        tokio::spawn(driver.run(connection));
        Ok(Client(Arc::new(Handle { queue, events, tracking, command_timeout, observer })))
    }
}

/// A connection that many tasks share: cheap to clone and thread-safe.
///
/// Commands of concurrent callers travel together (pipelining), so few system calls serve many
/// callers. When the connection breaks, the client reconnects. Commands that were certainly not
/// sent wait for the new connection; the others fail with [`Sent::Maybe`]. No command is sent
/// twice.
///
/// The client also reconnects when the server turns out to be a replica ([`ErrorKind::ReadOnly`];
/// see [`ClientOptions::reconnect_on_readonly`]). With Sentinels ([`Endpoint::Sentinel`]), it
/// reconnects as soon as one of them announces another master, so that a client that only reads
/// does not stay with the old one.
///
/// After a reconnect, the client enables client-side caching (`CLIENT TRACKING ON`) again.
/// Invalidations in between are lost, so empty the cache at [`ClientEvent::Disconnected`]. No other
/// state that commands set on the connection is restored.
///
/// A command that blocks would delay all other callers. A [`Blocking`](crate::Blocking) command
/// therefore needs its own [`Connection`](crate::Connection), and untyped commands that block or
/// change the connection's state are refused with [`ErrorKind::Usage`].
///
/// Futures may be dropped at any time; a queued command is sent all the same. The connection closes
/// with the last clone.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use resp::streams::{AddId, XAdd};
/// use resp::{Client, Config};
///
/// let client = Client::connect(&Config::from_url("redis://localhost")?).await?;
/// for n in 0..64 {
///     let client = client.clone();
///     tokio::spawn(async move {
///         let number = n.to_string();
///         client.send(XAdd::new("events", AddId::Auto, &[("number", &number)])).await
///     });
/// }
/// # Ok(())
/// # }
/// ```
///
/// A blocking read does not compile:
///
/// ```compile_fail
/// # async fn example(client: resp::Client) {
/// use resp::streams::{ReadFrom, XRead};
/// client.send(XRead::new("events", ReadFrom::New).block(resp::BlockTimeout::Forever)).await;
/// # }
/// ```
#[derive(Clone)]
pub struct Client(Arc<Handle>);

struct Handle {
    queue: Arc<Queue>,
    events: Arc<Reporter>,
    tracking: Arc<Tracking>,
    command_timeout: Option<Duration>,
    observer: Observed,
}

/// The last clone is dropped.
impl Drop for Handle {
    fn drop(&mut self) {
        self.queue.close();
    }
}

impl Client {
    /// Connects with the default [`ClientOptions`].
    ///
    /// # Errors
    ///
    /// The first connection cannot be made.
    pub async fn connect(config: &Config) -> Result<Self, Error> {
        ClientOptions::new(config.clone()).connect().await
    }

    /// Sends a command, given by value or by reference, and waits for its reply.
    ///
    /// The future borrows the client. For a task of its own, move a clone into it:
    /// `tokio::spawn(async move { client.send(cmd("GET").arg("key")).await })`.
    ///
    /// # Errors
    ///
    /// The server replied with an error, the connection broke, or there was no reply within the
    /// [command timeout](Config::command_timeout), which covers the whole call, including the wait
    /// for room and for a new connection. [`Error::sent`] says whether the server may have executed
    /// the command.
    pub async fn send<C: Command>(&self, command: C) -> Result<C::Reply, Error> {
        self.0.observer.call(command.name(), 1, self.send_unobserved(&command)).await
    }

    async fn send_unobserved<C: Command>(&self, command: &C) -> Result<C::Reply, Error> {
        let named = |error: Error| error.with_context(command.name(), command.key());
        if !command.is_shareable() {
            return Err(command::not_shareable(command));
        }
        let (mut refused, mut tracks) = (Ok(()), None);
        let encode = |out: &mut BytesMut| {
            let start = out.len();
            refused = command::encode_checked(command, out);
            match refused {
                Ok(()) => tracks = self.0.tracking.note(out.get(start..).unwrap_or_default()),
                Err(_) => out.extend_from_slice(command::REFUSED_COMMAND),
            }
        };
        let outcome = self.call(Shape::ONE, None, encode).await;
        refused?;
        let reply = match outcome {
            Ok(mut frames) => command::decode(command, frames.next().ok_or_else(Error::closed)?),
            Err(error) => Err(named(error)),
        };
        if let (Some(tracks), Err(_)) = (&tracks, &reply) {
            self.0.tracking.failed(tracks);
        }
        reply
    }

    /// Sends all commands of a pipeline together, and receives all replies.
    ///
    /// # Errors
    ///
    /// As [`Connection::run`](crate::Connection::run).
    pub async fn run(&self, pipeline: &Pipeline) -> Result<Replies, Error> {
        self.0.observer.call("pipeline", pipeline.len(), self.run_unobserved(pipeline)).await
    }

    async fn run_unobserved(&self, pipeline: &Pipeline) -> Result<Replies, Error> {
        if pipeline.is_empty() {
            return Ok(Replies::new(std::iter::empty(), pipeline));
        }
        pipeline.check()?;
        pipeline.check_shareable()?;
        pipeline.track(|command| drop(self.0.tracking.note(command)));
        let frames = self.exchange(&EncodedCommands::of(pipeline), None).await;
        let frames = frames.map_err(|error| error.with_context("pipeline", None))?;
        Ok(Replies::new(frames, pipeline))
    }

    /// Sends a transaction together, and receives its result.
    ///
    /// # Errors
    ///
    /// As [`Connection::exec`](crate::Connection::exec).
    pub async fn exec(&self, transaction: &Transaction) -> Result<Replies, Error> {
        self.0.observer.call("MULTI", transaction.len(), self.exec_unobserved(transaction)).await
    }

    async fn exec_unobserved(&self, transaction: &Transaction) -> Result<Replies, Error> {
        let pipeline = transaction.to_pipeline();
        pipeline.check()?;
        transaction.pipeline().check_shareable()?;
        transaction.pipeline().track(|command| drop(self.0.tracking.note(command)));
        let frames = self.exchange(&EncodedCommands::of_transaction(&pipeline), None).await;
        let frames = frames.map_err(|error| error.with_context("MULTI", None))?;
        Replies::new(frames, &pipeline).into_exec(&pipeline)
    }

    /// Sends encoded commands and receives their replies, within the command timeout or by an
    /// earlier deadline.
    pub(crate) async fn exchange(
        &self,
        commands: &EncodedCommands<'_>,
        deadline: Option<Instant>,
    ) -> Result<Frames, Error> {
        let EncodedCommands { encoded, replies, first, multi } = *commands;
        let shape = Shape { replies, first: Some(first), multi };
        self.call(shape, deadline, |out| out.extend_from_slice(encoded)).await
    }

    /// The driver checks timeouts of calls. A call only needs its own timer if it waits for room or
    /// has an earlier deadline.
    async fn call(
        &self,
        shape: Shape,
        deadline: Option<Instant>,
        encode: impl FnOnce(&mut BytesMut),
    ) -> Result<Frames, Error> {
        let Handle { queue, command_timeout, .. } = &*self.0;
        if deadline.is_none() && queue.has_room() {
            return queue.add(shape, encode).await;
        }
        let deadline = deadline.or_else(|| in_future(*command_timeout));
        Box::pin(self.call_until(shape, deadline, encode)).await
    }

    async fn call_until(
        &self,
        shape: Shape,
        deadline: Option<Instant>,
        encode: impl FnOnce(&mut BytesMut),
    ) -> Result<Frames, Error> {
        let Handle { queue, command_timeout, .. } = &*self.0;
        let timeout = || Error::timeout(command_timeout.unwrap_or_default());
        let Some(deadline) = deadline else {
            queue.room().await;
            return queue.add(shape, encode).await;
        };
        if tokio::time::timeout_at(deadline, queue.room()).await.is_err() {
            return Err(timeout().with_sent(Sent::No));
        }
        let outcome = queue.add(shape, encode);
        tokio::time::timeout_at(deadline, outcome).await.unwrap_or_else(|_| Err(timeout()))
    }

    /// Returns whether there is no connection, and none will be made.
    pub(crate) fn has_ended(&self) -> bool {
        self.0.queue.has_ended()
    }

    /// Returns whether both are clones of one client.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Subscribes to the events of the connection: lost, reconnected, push message.
    ///
    /// A slow receiver misses the oldest events: see [`ClientEvents`].
    #[must_use]
    pub fn events(&self) -> ClientEvents {
        self.0.events.subscribe()
    }
}

/// Encoded commands that are sent as a unit.
#[derive(Clone, Copy)]
pub(crate) struct EncodedCommands<'a> {
    pub(crate) encoded: &'a [u8],
    pub(crate) replies: usize,
    /// Once this many bytes are sent, a command may have been executed.
    pub(crate) first: usize,
    /// In a transaction: the index of the reply to `MULTI`.
    pub(crate) multi: Option<usize>,
}

impl<'a> EncodedCommands<'a> {
    /// One command.
    pub(crate) const fn of_command(encoded: &'a [u8]) -> Self {
        Self { encoded, replies: 1, first: encoded.len(), multi: None }
    }

    pub(crate) fn of(pipeline: &'a Pipeline) -> Self {
        Self { encoded: pipeline.encoded(), replies: pipeline.len(), first: pipeline.first(), multi: None }
    }

    /// A transaction as a pipeline, from `MULTI` to `EXEC`.
    pub(crate) fn of_transaction(pipeline: &'a Pipeline) -> Self {
        Self { multi: Some(0), ..Self::of(pipeline) }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}
