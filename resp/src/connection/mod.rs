//! One connection, used by one owner.

mod bounded_queue;
mod deadline;
mod demoted;
mod handshake;
mod happy_eyeballs;
mod pipeline;
mod transaction;
mod transport;
mod wire;

pub use handshake::RespVersion;
pub use pipeline::{Pipeline, Replies, ReplyHandle};
pub use transaction::Transaction;
pub(crate) use transaction::{is_ok, leaves_transaction_open};

use std::fmt;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::command::{self, Blocking, Command};
use crate::config::Observed;
use crate::config::{Config, Endpoint};
use crate::{BlockTimeout, Error, ErrorKind, Frame, ProtocolError, Sent, ValueKind, cmd};
pub(crate) use bounded_queue::BoundedQueue;
pub(crate) use deadline::{Deadline, in_future};
pub(crate) use demoted::{is_demoted, is_read_only};
use transport::Transport;
pub(crate) use wire::Wire;

/// A connection to one server that belongs to one owner.
///
/// It has two levels, which can be mixed:
///
/// * [`send`](Self::send) and [`send_blocking`](Self::send_blocking) do one round trip and give the
///   typed reply. A [`Pipeline`] does one for many commands, a [`Transaction`] for many that are
///   executed as one.
/// * [`queue`](Self::queue), [`flush`](Self::flush) and [`receive`](Self::receive) are the pieces
///   of which pipelines are made by hand: commands are encoded into the write buffer, and each is
///   answered by one reply, in order.
///
/// # Dropped futures
///
/// Every future may be dropped at any moment. Replies are counted, so the reply of a call that was
/// given up is read and thrown away by a later one; it is never taken for another command's. After
/// giving up a blocking command, later calls wait until the server has answered it; it is often
/// better to drop the connection.
///
/// # Errors
///
/// After an error whose [`closes_connection`](Error::closes_connection) is true, every call gives
/// [`ErrorKind::Closed`]. So it is after [`ErrorKind::ReadOnly`] when Sentinels were asked for the
/// master ([`Endpoint::Sentinel`]): the server has been demoted, and another connection leads to
/// the one that took its place. In a cluster ([`Endpoint::Cluster`]) it is so after
/// [`ErrorKind::Moved`], [`ErrorKind::Ask`] and [`ErrorKind::ClusterDown`].
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use resp::streams::{AddId, XAdd};
/// use resp::{Config, Connection};
///
/// let mut connection = Connection::connect(&Config::from_url("redis://localhost")?).await?;
/// let id = connection.send(&XAdd::new("events", AddId::Auto, &[("type", "start")])).await?;
/// # Ok(())
/// # }
/// ```
pub struct Connection {
    wire: Wire,
    /// Replies that are still to come.
    owed: usize,
    /// So many of them, from the first, belong to nobody any more.
    stale: usize,
    protocol: RespVersion,
    /// The handshake is done.
    handshake_done: bool,
    command_timeout: Option<Duration>,
    block_grace: Duration,
    /// How to connect to the same server.
    origin: Option<Box<Config>>,
    /// Whether the server was found by asking others, so that another one may have its place by
    /// now.
    found: bool,
    /// It has said that it is no longer the one that was looked for: no more commands go there.
    demoted: bool,
    /// What the server calls the connection.
    client_id: Option<i64>,
    /// Of calls, once it is handshake_done.
    observer: Observed,
    pushes: BoundedQueue<Frame>,
}

impl Connection {
    /// Connects to one server, without a timeout of its own. What else the configuration says holds
    /// for it.
    pub(crate) async fn connect_to(server: &Endpoint, config: &Config) -> Result<Self, Error> {
        let transport = transport::connect(server, config).await?;
        let mut connection = Self::new(transport, config);
        connection.origin = Some(Box::new(Config { endpoint: server.clone(), ..config.clone() }));
        handshake::run(&mut connection, config).await?;
        connection.handshake_done = true;
        connection.observer = config.observer.clone();
        Ok(connection)
    }

    /// The same over a transport that is connected already: a tunnel, or a test's end of a pipe.
    ///
    /// # Errors
    ///
    /// As [`connect`](Self::connect).
    pub async fn from_transport<T>(transport: T, config: &Config) -> Result<Self, Error>
    where
        T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let mut connection = Self::new(Transport::Other(Box::new(transport)), config);
        let done = match tokio::time::timeout(config.connect_timeout, handshake::run(&mut connection, config)).await {
            Ok(done) => done,
            Err(_) => Err(Error::timeout(config.connect_timeout)),
        };
        done.map_err(|error| error.with_sent(Sent::No).redact(&config.secrets()))?;
        connection.handshake_done = true;
        connection.observer = config.observer.clone();
        Ok(connection)
    }

    fn new(transport: Transport, config: &Config) -> Self {
        Self {
            wire: Wire::new(transport, config),
            owed: 0,
            stale: 0,
            protocol: RespVersion::Resp2,
            handshake_done: false,
            command_timeout: config.command_timeout,
            block_grace: config.block_grace,
            origin: None,
            found: config.is_discovered(),
            demoted: false,
            client_id: None,
            observer: Observed::default(),
            pushes: BoundedQueue::new(),
        }
    }

    /// The bare wire, for a client; nothing may be owed.
    pub(crate) fn into_wire(self) -> Wire {
        self.wire
    }

    /// The version of RESP that was agreed on.
    #[must_use]
    pub const fn protocol(&self) -> RespVersion {
        self.protocol
    }

    /// The number under which the server knows this connection, for `CLIENT UNBLOCK` and others;
    /// `None` with RESP2, where `CLIENT ID` tells it.
    #[must_use]
    pub const fn client_id(&self) -> Option<i64> {
        self.client_id
    }

    /// Ends a command that waits in the server on this connection, by another connection to the
    /// same server: it answers as if its time were over. Where that cannot be done, it ends by
    /// itself.
    pub(crate) fn unblock(&self) -> impl Future<Output = ()> + use<> {
        let (id, origin) = (self.client_id, self.origin.clone());
        async move {
            let (Some(id), Some(config)) = (id, origin) else { return };
            let unblocking = async {
                let mut connection = Self::connect_to(&config.endpoint, &config).await?;
                connection.send(&cmd::<()>("CLIENT UNBLOCK").arg(id)).await
            };
            let _ = tokio::time::timeout(config.connect_timeout, unblocking).await;
        }
    }

    /// Whether an error has ended the connection. Replies that are owed may still be received after
    /// the one that says that another server has its place.
    #[must_use]
    pub const fn is_closed(&self) -> bool {
        self.wire.is_broken() || self.demoted
    }

    /// Whether the server has said that another one has its place.
    pub(crate) const fn is_demoted(&self) -> bool {
        self.demoted
    }

    /// Changes how long a call may take: see [`Config::command_timeout`].
    pub const fn set_command_timeout(&mut self, timeout: Option<Duration>) {
        self.command_timeout = timeout;
    }

    /// How long a call may take.
    pub(crate) const fn command_timeout(&self) -> Option<Duration> {
        self.command_timeout
    }

    // ---- one command at a time ----

    /// Sends a command and waits for its reply.
    ///
    /// Replies to commands that were [queued](Self::queue) and not received yet are thrown away.
    ///
    /// # Errors
    ///
    /// An error reply, or that the connection broke: [`Error::sent`] says whether the server can
    /// have executed the command.
    pub async fn send<C: Command>(&mut self, command: &C) -> Result<C::Reply, Error> {
        self.round_trip(command, Deadline::after(self.command_timeout)).await
    }

    /// Sends a command that waits in the server, and waits for its reply: as long as the command
    /// says, and the [grace](Config::block_grace).
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send).
    pub async fn send_blocking<C: Command>(&mut self, command: &Blocking<C>) -> Result<C::Reply, Error> {
        let deadline = match command.block() {
            BlockTimeout::For(time) => self.block_deadline(time),
            BlockTimeout::Forever => Deadline::never(),
        };
        self.round_trip(command.command(), deadline).await
    }

    /// How long to wait for the reply to a command that blocks so long.
    pub(crate) fn block_deadline(&self, block: Duration) -> Deadline {
        Deadline::blocking(block.saturating_add(self.block_grace), self.command_timeout)
    }

    async fn round_trip<C: Command>(&mut self, command: &C, deadline: Deadline) -> Result<C::Reply, Error> {
        let observer = self.observer.clone();
        observer.call(command.name(), 1, self.round_trip_unobserved(command, deadline)).await
    }

    async fn round_trip_unobserved<C: Command>(
        &mut self,
        command: &C,
        mut deadline: Deadline,
    ) -> Result<C::Reply, Error> {
        if self.is_closed() {
            return Err(Error::closed().with_context(command.name(), command.key()));
        }
        self.queue_checked(command)?;
        // Until it is here, the reply is nobody's: this future may be dropped.
        self.stale = self.owed;
        let mark = self.wire.queued();
        loop {
            match self.next_reply(&mut deadline).await {
                Ok(frame) if self.owed == 0 => {
                    if self.wire.sent(mark) == Sent::No {
                        // It was there before the command was. Servers that have too many clients
                        // say so in this way.
                        self.wire.close();
                        let error = match frame.into_result() {
                            Ok(_) => Error::protocol(ProtocolError::UnexpectedReply),
                            Err(error) => error,
                        };
                        return Err(error.with_sent(Sent::No).with_context(command.name(), command.key()));
                    }
                    return command::decode(command, frame);
                }
                Ok(frame) => self.wire.recycle(frame),
                Err(error) => {
                    let sent = self.wire.sent(mark);
                    return Err(error.with_sent(sent).with_context(command.name(), command.key()));
                }
            }
        }
    }

    // ---- pieces of pipelines ----

    /// Encodes a command into the write buffer. Its reply is owed to [`receive`](Self::receive).
    ///
    /// Nothing is written before [`flush`](Self::flush), `receive` or a send; see
    /// [`buffered`](Self::buffered).
    ///
    /// A command that has not [exactly one reply](Command) is not sent. In its place goes one that
    /// no server knows, so that its reply is an error ([`ErrorKind::UnknownCommand`]) and a
    /// transaction that it is in is not executed.
    #[inline]
    pub fn queue<C: Command + ?Sized>(&mut self, command: &C) {
        if !self.is_closed() && self.queue_checked(command).is_err() {
            self.wire.queue(|out| out.extend_from_slice(command::REFUSED_COMMAND));
            self.owed = self.owed.saturating_add(1);
        }
    }

    /// The same for a command that must have exactly one reply: others are refused.
    #[inline]
    fn queue_checked<C: Command + ?Sized>(&mut self, command: &C) -> Result<(), Error> {
        let mut queued = Ok(());
        // What is said first may change the version of RESP.
        match self.handshake_done {
            true => self.wire.queue(|out| queued = command::encode_checked(command, out)),
            false => self.wire.queue(|out| command::encode(command, out)),
        }
        if queued.is_ok() {
            self.owed = self.owed.saturating_add(1);
        }
        queued
    }

    /// Bytes of commands that are queued and not written yet.
    #[must_use]
    pub fn buffered(&self) -> usize {
        self.wire.buffered()
    }

    /// Replies that queued commands will still have.
    #[must_use]
    pub const fn owed(&self) -> usize {
        self.owed.saturating_sub(self.stale)
    }

    /// Writes all that is queued. Takes in what the server sends meanwhile, so that neither side
    /// can block the other.
    ///
    /// # Errors
    ///
    /// When the connection breaks, or it takes longer than the command timeout.
    pub async fn flush(&mut self) -> Result<(), Error> {
        self.wire.flush(&mut Deadline::after(self.command_timeout)).await
    }

    /// The next reply, while what is queued is being written.
    ///
    /// An error that the server sent is an ordinary frame here, so that the replies of a pipeline
    /// can be told apart; [`Frame::into_result`] makes an [`Error`] of it. No memory is allocated
    /// for a reply that is one scalar.
    ///
    /// # Errors
    ///
    /// When the connection broke, or ([`ErrorKind::Usage`]) no reply is owed.
    pub async fn receive(&mut self) -> Result<Frame, Error> {
        self.receive_until(Deadline::after(self.command_timeout)).await
    }

    /// The same with another deadline, for a command that blocks.
    pub(crate) async fn receive_until(&mut self, mut deadline: Deadline) -> Result<Frame, Error> {
        loop {
            let stale = self.stale > 0;
            let frame = self.next_reply(&mut deadline).await?;
            if !stale {
                return Ok(frame);
            }
        }
    }

    /// The next reply, decoded as that of `command`.
    ///
    /// # Errors
    ///
    /// An error reply, or as [`receive`](Self::receive).
    pub async fn receive_reply<C: Command>(&mut self, command: &C) -> Result<C::Reply, Error> {
        let frame = self.receive().await.map_err(|error| error.with_context(command.name(), command.key()))?;
        command::decode(command, frame)
    }

    /// Gives a frame's memory back for the next one. Never needed; saves an allocation where every
    /// one counts.
    pub fn recycle(&mut self, frame: Frame) {
        self.wire.recycle(frame);
    }

    // ---- push messages ----

    /// The next push message ([`ValueKind::Push`]) that came while replies were awaited. The last
    /// 1024 are kept, and at most 16 MiB of them (and the last one, whatever its size).
    pub fn take_push(&mut self) -> Option<Frame> {
        self.pushes.pop()
    }

    /// Sends `SUBSCRIBE`, `PSUBSCRIBE`, `SSUBSCRIBE` or one that takes them back: their answers are
    /// push messages, one for each channel, which [`next_push`](Self::next_push) gives, as the
    /// messages themselves. Commands of other kinds still work on the connection.
    ///
    /// A subscription ends with the connection, and messages are not kept for who is away: what
    /// must not be lost is better in a stream.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Usage`] for other commands, and when the server does not speak RESP3; or the
    /// connection breaks.
    ///
    /// ```no_run
    /// # async fn example(connection: &mut resp::Connection) -> Result<(), resp::Error> {
    /// use resp::cmd;
    /// connection.subscribe(&cmd::<()>("SUBSCRIBE").arg("news")).await?;
    /// loop {
    ///     let push = connection.next_push().await?;
    ///     let mut parts = push.value().children().filter_map(|part| part.as_bytes());
    ///     if let (Some(b"message"), Some(_channel), Some(message)) = (parts.next(), parts.next(), parts.next()) {
    ///         println!("{}", String::from_utf8_lossy(message));
    ///     }
    /// }
    /// # }
    /// ```
    pub async fn subscribe<C: Command + ?Sized>(&mut self, command: &C) -> Result<(), Error> {
        let named = |error: Error| error.with_context(command.name(), command.key());
        let usage = |text| Err(named(Error::new(ErrorKind::Usage, text).with_sent(Sent::No)));
        if self.is_closed() {
            return Err(named(Error::closed()));
        }
        let mut encoded = BytesMut::new();
        command::encode(command, &mut encoded);
        if !command::is_subscription(&encoded) {
            return usage("has a reply: Connection::send sends it");
        }
        if self.protocol != RespVersion::Resp3 {
            return usage("push messages need RESP3");
        }
        self.wire.queue_all(&mut encoded);
        self.flush().await.map_err(named)
    }

    /// The next push message, however long it takes: one that is kept already, or one that comes.
    /// Dropping the future loses nothing.
    ///
    /// That the server is gone without a word is noticed by TCP keepalive ([`Config::keepalive`]).
    ///
    /// # Errors
    ///
    /// When the connection breaks; the server's refusal of a subscription, after which the
    /// connection goes on; or ([`ErrorKind::Usage`]) when replies are owed, which are to be
    /// received first.
    pub async fn next_push(&mut self) -> Result<Frame, Error> {
        loop {
            if let Some(push) = self.pushes.pop() {
                return Ok(push);
            }
            if self.is_closed() {
                return Err(Error::closed());
            }
            if self.owed() > 0 {
                return Err(Error::new(ErrorKind::Usage, "replies are awaited; they are to be received first"));
            }
            match self.wire.next_frame() {
                Ok(Some(frame)) if frame.kind() == ValueKind::Push => return Ok(frame),
                // The reply to a command whose caller did not wait for it.
                Ok(Some(frame)) if self.owed > 0 => {
                    self.owed = self.owed.saturating_sub(1);
                    self.stale = self.stale.saturating_sub(1);
                    self.demoted |= self.found && is_demoted(&frame);
                }
                Ok(Some(frame)) => {
                    return Err(match frame.into_result() {
                        Err(refused) => refused,
                        Ok(_) => {
                            self.wire.close();
                            Error::protocol(ProtocolError::UnexpectedReply)
                        }
                    });
                }
                Ok(None) => self.wire.fill(&mut Deadline::never()).await?,
                Err(error) => {
                    self.wire.close();
                    return Err(Error::protocol(error));
                }
            }
        }
    }

    /// Subscribes to a channel on a connection that then mostly listens, in RESP2 too: see
    /// [`next_message`](Self::next_message).
    pub(crate) async fn subscribe_channel(&mut self, channel: &str) -> Result<(), Error> {
        self.wire.queue(|out| command::encode(&cmd::<()>("SUBSCRIBE").arg(channel), out));
        self.flush().await
    }

    /// Whatever comes next, while nothing is owed. Dropping the future loses nothing.
    pub(crate) async fn next_message(&mut self) -> Result<Frame, Error> {
        loop {
            if let Some(push) = self.pushes.pop() {
                return Ok(push);
            }
            match self.wire.next_frame() {
                Ok(Some(frame)) => return Ok(frame),
                Ok(None) => self.wire.fill(&mut Deadline::never()).await?,
                Err(error) => {
                    self.wire.close();
                    return Err(Error::protocol(error));
                }
            }
        }
    }

    /// Sends what is encoded as one command already.
    pub(crate) async fn send_encoded(&mut self, encoded: &[u8]) -> Result<Frame, Error> {
        self.wire.queue(|out| out.extend_from_slice(encoded));
        self.owed = self.owed.saturating_add(1);
        self.receive().await?.into_result()
    }

    /// The server that it leads to, if it made the way itself.
    pub(crate) fn server(&self) -> Option<&Endpoint> {
        self.origin.as_ref().map(|config| &config.endpoint)
    }

    /// The next reply, somebody's or nobody's. Dropping the future loses nothing.
    async fn next_reply(&mut self, deadline: &mut Deadline) -> Result<Frame, Error> {
        if self.owed == 0 {
            return Err(match self.is_closed() {
                true => Error::closed(),
                false => Error::new(ErrorKind::Usage, "no command awaits a reply"),
            });
        }
        loop {
            match self.wire.next_frame() {
                Ok(Some(frame)) if frame.kind() == ValueKind::Push => self.push(frame),
                Ok(Some(frame)) => {
                    self.owed = self.owed.saturating_sub(1);
                    self.stale = self.stale.saturating_sub(1);
                    self.demoted |= self.found && is_demoted(&frame);
                    return Ok(frame);
                }
                Ok(None) => self.wire.fill(deadline).await?,
                Err(error) => {
                    self.wire.close();
                    return Err(Error::protocol(error));
                }
            }
        }
    }

    fn push(&mut self, frame: Frame) {
        // It may be small, and lie in a large block of the read buffer.
        let frame = frame.compact();
        let bytes = frame.memory();
        self.pushes.push(frame, bytes);
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("endpoint", &self.origin.as_ref().map(|config| &config.endpoint))
            .field("protocol", &self.protocol)
            .field("closed", &self.is_closed())
            .field("owed", &self.owed)
            .field("buffered", &self.buffered())
            .finish_non_exhaustive()
    }
}
