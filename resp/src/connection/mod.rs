//! A connection to one server, used by one owner.
//!
//! This layer knows transports, the handshake, deadlines, and which reply belongs to which command.
//! It does not know Sentinels or cluster topology: [`discovery`](crate::discovery) does.

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

use std::borrow::Borrow;
use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::task::Poll;
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

/// A connection to one server, with one owner.
///
/// It has two levels, which you can mix:
///
/// * [`send`](Self::send) and [`send_blocking`](Self::send_blocking) do one round trip and return
///   the typed reply. A [`Pipeline`] sends many commands in one round trip, and a [`Transaction`]
///   executes many as a unit.
/// * [`queue`](Self::queue), [`flush`](Self::flush) and [`receive`](Self::receive) build pipelines
///   by hand: commands are encoded into the write buffer, and each has one reply, in order.
///
/// # Dropped futures
///
/// Every future may be dropped at any time. The connection counts the replies it is owed. A later
/// call reads and discards the reply of an abandoned call, and never returns it for another
/// command. After you abandon a blocking command, later calls wait until the server has answered
/// it; often it is better to drop the connection.
///
/// # Errors
///
/// After an error whose [`closes_connection`](Error::closes_connection) is true, every call returns
/// [`ErrorKind::Closed`]. Two more kinds of errors close a connection that was discovered, because
/// another server has taken over: with Sentinels ([`Endpoint::Sentinel`]), [`ErrorKind::ReadOnly`];
/// in a cluster ([`Endpoint::Cluster`]), [`ErrorKind::Moved`], [`ErrorKind::Ask`] and
/// [`ErrorKind::ClusterDown`].
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use resp::streams::{AddId, XAdd};
/// use resp::{Config, Connection};
///
/// let mut connection = Connection::connect(&Config::from_url("redis://localhost")?).await?;
/// let id = connection.send(XAdd::new("events", AddId::Auto, &[("type", "start")])).await?;
/// # Ok(())
/// # }
/// ```
pub struct Connection {
    wire: Wire,
    /// Replies that are still to come.
    owed: usize,
    /// How many of them, from the first, belong to abandoned calls.
    stale: usize,
    protocol: RespVersion,
    /// Whether the handshake is done.
    handshake_done: bool,
    command_timeout: Option<Duration>,
    block_grace: Duration,
    /// How to connect to the same server again.
    origin: Option<Box<Config>>,
    /// Whether Sentinels or cluster nodes named the server, so that another one may take over.
    found: bool,
    /// Whether another server has taken over: no more commands are sent.
    demoted: bool,
    /// The server's ID of this connection.
    client_id: Option<i64>,
    /// Observes calls once the handshake is done.
    observer: Observed,
    pushes: BoundedQueue<Frame>,
    /// Replies that arrived during a flush, and are still owed.
    received: VecDeque<Frame>,
}

impl Connection {
    /// Connects to one server, without a timeout of its own. The other settings apply as
    /// configured.
    pub(crate) async fn connect_to(server: &Endpoint, config: &Config) -> Result<Self, Error> {
        let transport = transport::connect(server, config).await?;
        let mut connection = Self::new(transport, config);
        connection.origin = Some(Box::new(Config { endpoint: server.clone(), ..config.clone() }));
        handshake::run(&mut connection, config).await?;
        connection.handshake_done = true;
        connection.observer = config.observer.clone();
        Ok(connection)
    }

    /// Uses a transport that is already connected, such as a tunnel or one end of an in-memory
    /// pipe.
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
            received: VecDeque::new(),
        }
    }

    /// Returns the wire, for a client. No reply may be owed.
    pub(crate) fn into_wire(self) -> Wire {
        self.wire
    }

    /// Sets whether cluster redirects are kept as they are, even if they repeat a password: for an
    /// owner that follows them, and redacts what it shows.
    pub(crate) const fn keep_redirects(&mut self, keep: bool) {
        self.wire.keep_redirects(keep);
    }

    /// Returns the RESP version that was negotiated.
    #[must_use]
    pub const fn protocol(&self) -> RespVersion {
        self.protocol
    }

    /// Returns the server's ID of this connection, for `CLIENT UNBLOCK` and similar commands.
    /// `None` with RESP2, where `CLIENT ID` returns it.
    #[must_use]
    pub const fn client_id(&self) -> Option<i64> {
        self.client_id
    }

    /// Ends a blocking command of this connection by another connection to the same server: the
    /// command returns as if its timeout had expired. If that fails, the command ends after its
    /// timeout.
    pub(crate) fn unblock(&self) -> impl Future<Output = ()> + use<> {
        let (id, origin) = (self.client_id, self.origin.clone());
        async move {
            let (Some(id), Some(config)) = (id, origin) else { return };
            let unblocking = async {
                let mut connection = Self::connect_to(&config.endpoint, &config).await?;
                connection.send(cmd::<()>("CLIENT UNBLOCK").arg(id)).await
            };
            let _ = tokio::time::timeout(config.connect_timeout, unblocking).await;
        }
    }

    /// Returns whether an error has closed the connection. Replies that were owed when another
    /// server took over can still be received.
    #[must_use]
    pub const fn is_closed(&self) -> bool {
        self.wire.is_broken() || self.demoted
    }

    /// Closes the connection, because its replies can no longer be trusted.
    pub(crate) fn close(&mut self) {
        self.wire.close();
    }

    /// Returns whether another server has taken over.
    pub(crate) const fn is_demoted(&self) -> bool {
        self.demoted
    }

    /// Changes how long a call may take: see [`Config::command_timeout`].
    pub const fn set_command_timeout(&mut self, timeout: Option<Duration>) {
        self.command_timeout = timeout;
    }

    /// Returns how long a call may take.
    pub(crate) const fn command_timeout(&self) -> Option<Duration> {
        self.command_timeout
    }

    /// Sends a command, given by value or by reference, and waits for its reply.
    ///
    /// Replies to [queued](Self::queue) commands that were not received yet are discarded.
    ///
    /// # Errors
    ///
    /// The server replied with an error, or the connection broke: [`Error::sent`] says whether the
    /// server may have executed the command.
    pub async fn send<C: Command>(&mut self, command: C) -> Result<C::Reply, Error> {
        self.round_trip(&command, Deadline::after(self.command_timeout)).await
    }

    /// Sends a blocking command and waits for its reply: as long as the command blocks, plus the
    /// [grace](Config::block_grace).
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send).
    pub async fn send_blocking<C: Command>(&mut self, command: impl Borrow<Blocking<C>>) -> Result<C::Reply, Error> {
        let command = command.borrow();
        let deadline = match command.block() {
            BlockTimeout::For(time) => self.block_deadline(time),
            BlockTimeout::Forever => Deadline::never(),
        };
        self.round_trip(command.command(), deadline).await
    }

    /// Returns the deadline for the reply to a command that blocks this long.
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
        self.refuse_arrived().await.map_err(|error| error.with_context(command.name(), command.key()))?;
        self.queue_checked(command)?;
        // Until the reply is here it counts as stale, because this future may be dropped.
        self.stale = self.owed;
        let mark = self.wire.queued();
        loop {
            match self.next_reply(&mut deadline).await {
                Ok(frame) if self.owed == 0 => {
                    if self.wire.sent(mark) == Sent::No {
                        // The reply came before the command was sent. Servers report in this way
                        // that they have too many clients.
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

    /// Encodes a command into the write buffer. [`receive`](Self::receive) returns its reply.
    ///
    /// Nothing is written before [`flush`](Self::flush), `receive` or a send; see
    /// [`buffered`](Self::buffered).
    ///
    /// A command that does not have [exactly one reply](Command) is not sent. An unknown command
    /// takes its place, so the reply is an error ([`ErrorKind::UnknownCommand`]), and a transaction
    /// around it is not executed.
    #[inline]
    pub fn queue<C: Command>(&mut self, command: C) {
        // An error has closed the connection, and the next call reports that.
        if self.refuse_unrequested().is_ok() && !self.is_closed() && self.queue_checked(&command).is_err() {
            self.wire.queue(|out| out.extend_from_slice(command::REFUSED_COMMAND));
            self.owed = self.owed.saturating_add(1);
        }
    }

    /// Closes the connection if a reply is here that no command requested: it would be taken for
    /// that of the next command.
    #[inline]
    pub(super) fn refuse_unrequested(&mut self) -> Result<(), Error> {
        if self.owed > 0 {
            return Ok(());
        }
        self.decode_received().map_err(|refused| {
            let error = match self.received.pop_back().map(Frame::into_result) {
                // Servers report in this way that they close the connection.
                Some(Err(error)) => error,
                _ => refused,
            };
            error.with_sent(Sent::No)
        })
    }

    /// As [`refuse_unrequested`](Self::refuse_unrequested), and looks for what has arrived since
    /// the last read, without waiting. This also notices that the server has closed the connection,
    /// before a command is sent.
    pub(crate) async fn refuse_arrived(&mut self) -> Result<(), Error> {
        self.refuse_unrequested()?;
        while self.owed == 0 && !self.is_closed() && !self.wire.has_read_enough() {
            match poll_fn(|cx| Poll::Ready(self.wire.poll_read(cx))).await {
                Poll::Pending => break,
                Poll::Ready(Ok(())) => self.refuse_unrequested()?,
                Poll::Ready(Err(error)) => {
                    self.wire.close();
                    return Err(Error::io(error).with_sent(Sent::No));
                }
            }
        }
        Ok(())
    }

    /// Queues a command, or refuses one that does not have exactly one reply.
    #[inline]
    fn queue_checked<C: Command + ?Sized>(&mut self, command: &C) -> Result<(), Error> {
        let mut queued = Ok(());
        // The handshake may change the RESP version.
        match self.handshake_done {
            true => self.wire.queue(|out| queued = command::encode_checked(command, out)),
            false => self.wire.queue(|out| command::encode(command, out)),
        }
        if queued.is_ok() {
            self.owed = self.owed.saturating_add(1);
        }
        queued
    }

    /// Returns how many bytes of queued commands are not written yet.
    #[must_use]
    pub fn buffered(&self) -> usize {
        self.wire.buffered()
    }

    /// Returns how many replies to queued commands are still to come.
    #[must_use]
    pub const fn owed(&self) -> usize {
        self.owed.saturating_sub(self.stale)
    }

    /// Writes everything that is queued. Reads meanwhile, so that neither side can block the other.
    ///
    /// # Errors
    ///
    /// The connection breaks, or writing takes longer than the command timeout.
    pub async fn flush(&mut self) -> Result<(), Error> {
        let mut deadline = Deadline::after(self.command_timeout);
        while !self.wire.flush(&mut deadline).await? {
            self.decode_received()?;
        }
        Ok(())
    }

    /// Decodes what arrived during a flush: push messages are bounded, and replies are owed.
    fn decode_received(&mut self) -> Result<(), Error> {
        while self.received.len() <= self.owed {
            match self.wire.next_frame() {
                Ok(Some(frame)) if frame.kind() == ValueKind::Push => self.push(frame),
                Ok(Some(frame)) => self.received.push_back(frame),
                Ok(None) => return Ok(()),
                Err(error) => {
                    self.wire.close();
                    return Err(Error::protocol(error));
                }
            }
        }
        self.wire.close();
        Err(Error::protocol(ProtocolError::UnexpectedReply))
    }

    /// Returns the next frame that was received.
    fn next_frame(&mut self) -> Result<Option<Frame>, ProtocolError> {
        match self.received.pop_front() {
            Some(frame) => Ok(Some(frame)),
            None => self.wire.next_frame(),
        }
    }

    /// Receives the next reply. Writes queued commands meanwhile.
    ///
    /// An error reply is an ordinary frame here, so that you can match the replies of a pipeline to
    /// its commands; [`Frame::into_result`] turns it into an [`Error`]. A scalar reply allocates no
    /// memory.
    ///
    /// # Errors
    ///
    /// The connection breaks, or ([`ErrorKind::Usage`]) no reply is owed.
    pub async fn receive(&mut self) -> Result<Frame, Error> {
        self.receive_until(Deadline::after(self.command_timeout)).await
    }

    /// Receives the next reply with another deadline, for a command that blocks.
    pub(crate) async fn receive_until(&mut self, mut deadline: Deadline) -> Result<Frame, Error> {
        loop {
            let stale = self.stale > 0;
            let frame = self.next_reply(&mut deadline).await?;
            if !stale {
                return Ok(frame);
            }
        }
    }

    /// Receives the next reply and decodes it as that of `command`.
    ///
    /// # Errors
    ///
    /// The server replied with an error, or as [`receive`](Self::receive).
    pub async fn receive_reply<C: Command>(&mut self, command: C) -> Result<C::Reply, Error> {
        let frame = self.receive().await.map_err(|error| error.with_context(command.name(), command.key()))?;
        command::decode(&command, frame)
    }

    /// Returns a frame's memory to the connection for the next frame. This is optional, and saves
    /// an allocation.
    pub fn recycle(&mut self, frame: Frame) {
        self.wire.recycle(frame);
    }

    /// Takes the next push message ([`ValueKind::Push`]) that arrived while replies were awaited.
    /// The connection keeps the last 1024, and at most 16 MiB of them, but always the newest.
    pub fn take_push(&mut self) -> Option<Frame> {
        self.pushes.pop()
    }

    /// Sends `SUBSCRIBE`, `PSUBSCRIBE`, `SSUBSCRIBE` or their `UNSUBSCRIBE` forms. The server
    /// confirms each channel with a push message, which [`next_push`](Self::next_push) returns, as
    /// it returns the published messages. Other commands still work on the connection.
    ///
    /// A subscription ends with the connection, and the server stores no messages for absent
    /// subscribers. Use a stream for what must not be lost.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Usage`] for other commands, or if the server does not support RESP3. Otherwise
    /// the connection breaks.
    ///
    /// ```no_run
    /// # async fn example(connection: &mut resp::Connection) -> Result<(), resp::Error> {
    /// use resp::cmd;
    /// connection.subscribe(cmd::<()>("SUBSCRIBE").arg("news")).await?;
    /// loop {
    ///     let push = connection.next_push().await?;
    ///     let mut parts = push.value().children().filter_map(|part| part.as_bytes());
    ///     if let (Some(b"message"), Some(_channel), Some(message)) = (parts.next(), parts.next(), parts.next()) {
    ///         println!("{}", String::from_utf8_lossy(message));
    ///     }
    /// }
    /// # }
    /// ```
    pub async fn subscribe<C: Command>(&mut self, command: C) -> Result<(), Error> {
        let named = |error: Error| error.with_context(command.name(), command.key());
        let usage = |text| Err(named(Error::new(ErrorKind::Usage, text).with_sent(Sent::No)));
        if self.is_closed() {
            return Err(named(Error::closed()));
        }
        let mut encoded = BytesMut::new();
        command::encode(&command, &mut encoded);
        if !command::is_subscription(&encoded) {
            return usage("is not a subscription: use Connection::send");
        }
        if self.protocol != RespVersion::Resp3 {
            return usage("push messages need RESP3");
        }
        self.wire.queue_all(&mut encoded);
        self.flush().await.map_err(named)
    }

    /// Returns the next push message, stored or new, however long it takes. Dropping the future
    /// loses nothing.
    ///
    /// TCP keepalive ([`Config::keepalive`]) detects a server that vanished.
    ///
    /// # Errors
    ///
    /// The connection breaks; the server refuses a subscription (the connection stays usable); or
    /// ([`ErrorKind::Usage`]) replies are owed, which you must receive first.
    pub async fn next_push(&mut self) -> Result<Frame, Error> {
        loop {
            if let Some(push) = self.pushes.pop() {
                return Ok(push);
            }
            if self.is_closed() {
                return Err(Error::closed());
            }
            if self.owed() > 0 {
                return Err(Error::new(ErrorKind::Usage, "replies are outstanding; receive them first"));
            }
            match self.next_frame() {
                Ok(Some(frame)) if frame.kind() == ValueKind::Push => return Ok(frame),
                // The reply to an abandoned call.
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

    /// Subscribes to a channel on a connection that then only listens, in RESP2 too: see
    /// [`next_message`](Self::next_message).
    pub(crate) async fn subscribe_channel(&mut self, channel: &str) -> Result<(), Error> {
        self.wire.queue(|out| command::encode(&cmd::<()>("SUBSCRIBE").arg(channel), out));
        self.flush().await
    }

    /// Returns the next frame of any kind, while no reply is owed. Dropping the future loses
    /// nothing.
    pub(crate) async fn next_message(&mut self) -> Result<Frame, Error> {
        loop {
            if let Some(push) = self.pushes.pop() {
                return Ok(push);
            }
            match self.next_frame() {
                Ok(Some(frame)) => return Ok(frame),
                Ok(None) => self.wire.fill(&mut Deadline::never()).await?,
                Err(error) => {
                    self.wire.close();
                    return Err(Error::protocol(error));
                }
            }
        }
    }

    /// Sends one command that is already encoded.
    pub(crate) async fn send_encoded(&mut self, encoded: &[u8]) -> Result<Frame, Error> {
        self.wire.queue(|out| out.extend_from_slice(encoded));
        self.owed = self.owed.saturating_add(1);
        self.receive().await?.into_result()
    }

    /// Returns the server's address, unless the transport was given.
    pub(crate) fn server(&self) -> Option<&Endpoint> {
        self.origin.as_ref().map(|config| &config.endpoint)
    }

    /// Returns the next reply, stale or not. Dropping the future loses nothing.
    async fn next_reply(&mut self, deadline: &mut Deadline) -> Result<Frame, Error> {
        if self.owed == 0 {
            return Err(match self.is_closed() {
                true => Error::closed(),
                false => Error::new(ErrorKind::Usage, "no reply is outstanding"),
            });
        }
        loop {
            match self.next_frame() {
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
        // A small frame may keep a large block of the read buffer alive.
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
