//! The task that serves the calls of a client. It owns the connection, and shares the [`Queue`]
//! with the clients.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BytesMut;
use tokio::time::{Instant, Sleep};

use super::event::{ClientEvent, Reporter};
use super::queue::{PendingCall, Queue};
use super::tracking::Tracking;
use crate::config::{Config, Endpoint};
use crate::connection::{Wire, is_demoted, is_ok, is_read_only, leaves_transaction_open};
use crate::discovery::{Discovery, MasterWatch, master_switched};
use crate::protocol::cast::wide;
use crate::{Backoff, Connection, Error, ErrorKind, Frame, ProtocolError, Sent, ValueKind, cmd};

/// The task behind a [`Client`](super::Client): it writes queued commands, delivers replies, and
/// reconnects. It owns the connection; clients share the [`Queue`] with it.
pub(super) struct Driver {
    pub(super) queue: Arc<Queue>,
    pub(super) discovery: Discovery,
    pub(super) backoff: Backoff,
    pub(super) ping_after: Option<Duration>,
    /// Whether a lost connection is replaced.
    pub(super) reconnects: bool,
    pub(super) events: Arc<Reporter>,
    pub(super) tracking: Arc<Tracking>,
    /// Learns from Sentinels that another server has become the master.
    pub(super) master_watch: Option<MasterWatch>,
    /// Whether to reconnect when the server turns out to be a replica, and when that last happened.
    pub(super) reconnect_on_readonly: bool,
    pub(super) last_demotion: Option<Instant>,
}

/// The last client was dropped, or the runtime shut down: no caller may wait forever.
impl Drop for Driver {
    fn drop(&mut self) {
        self.queue.end();
        self.events.end();
    }
}

/// How often calls that wait for a connection are checked for their timeout.
const TICK: Duration = Duration::from_millis(50);
/// How often the client reconnects because of `READONLY` at most: there may be no master behind the
/// address.
const DEMOTION_INTERVAL: Duration = Duration::from_secs(1);
/// The timer's delay when there is no timeout.
const NO_LIMIT: Duration = Duration::from_secs(365 * 24 * 60 * 60);

impl Driver {
    pub(super) async fn run(mut self, mut connection: Connection) {
        loop {
            let error = match LiveConnection::new(&self, connection).run().await {
                Ok(()) => return,
                Err(error) => error,
            };
            if error.kind() == ErrorKind::ReadOnly {
                self.last_demotion = Some(Instant::now());
            }
            self.queue.set_connected(false);
            self.events.report(ClientEvent::Disconnected(error));
            if !self.reconnects {
                return;
            }
            connection = match self.connect().await {
                Some(connection) => connection,
                None => return,
            };
            self.queue.set_connected(true);
            self.events.report(ClientEvent::Connected);
        }
    }

    /// Connects until that succeeds, or no client is left.
    async fn connect(&mut self) -> Option<Connection> {
        self.backoff.reset();
        loop {
            let attempt = self.while_expiring(self.attempt()).await?;
            match attempt {
                Ok(connection) => return Some(connection),
                Err(error) => {
                    if !error.is_transient() {
                        // The error is permanent, so waiting callers fail now.
                        self.queue.fail(|| error.clone());
                    }
                    self.events.report(ClientEvent::AttemptFailed(error));
                }
            }
            let delay = self.backoff.next_delay();
            self.while_expiring(tokio::time::sleep(delay)).await?;
        }
    }

    /// Makes one attempt to connect, and enables tracking again.
    async fn attempt(&self) -> Result<Connection, Error> {
        let mut connection = match &self.master_watch {
            Some(master_watch) => master_watch.connect(&self.discovery).await?,
            None => self.discovery.connect().await?,
        };
        for command in self.tracking.commands() {
            match connection.send_encoded(&command).await {
                Err(error) if error.closes_connection() => return Err(error),
                Err(error) => {
                    self.events.report(ClientEvent::TrackingLost(error.with_context("CLIENT TRACKING", None)));
                }
                Ok(_) => {}
            }
        }
        Ok(connection)
    }

    /// Waits for `what` while waiting calls time out. Returns `None` when no client is left.
    async fn while_expiring<T>(&self, what: impl Future<Output = T>) -> Option<T> {
        let mut what = pin!(what);
        loop {
            if self.queue.is_closed() {
                return None;
            }
            match tokio::time::timeout(TICK, &mut what).await {
                Ok(done) => return Some(done),
                Err(_) => {
                    if let Some(limit) = self.discovery.config().command_timeout {
                        self.queue.expire(limit);
                    }
                }
            }
        }
    }
}

/// What the driver does with one connection.
struct LiveConnection<'a> {
    driver: &'a Driver,
    /// The server's address.
    server: Option<Endpoint>,
    wire: Wire,
    /// Unanswered calls, in order.
    calls: VecDeque<PendingCall>,
    /// The position of the first call among all bytes that were queued.
    begin: u64,
    /// How many replies to the first call have arrived.
    replied: usize,
    /// Whether a PING of the driver is unanswered. It is sent while there are no calls, so its
    /// reply comes first.
    pinged: bool,
    /// How many of the first calls have timed out, and their bytes. Their replies are still to
    /// come.
    expired: usize,
    expired_bytes: u64,
    /// Whether the server has begun the transaction of the first call.
    queueing: bool,
    /// When the last reply came, or the first call began to wait.
    last_reply: Instant,
    /// When a byte last moved.
    last_progress: Instant,
    /// One timer for all calls. It may fire early, never late.
    timer: Pin<Box<Sleep>>,
    taken: BytesMut,
    wakers: Vec<std::task::Waker>,
    /// How many callers were woken in the last step. They may be about to call again.
    woken: usize,
    /// Whether this task has yielded to the callers that it woke.
    yielded: bool,
    /// Why another server has taken over.
    demoted: Option<Error>,
}

/// The result of one step.
enum Step {
    /// Bytes moved: there may be more.
    Moved,
    /// No client is left.
    Closed,
    Failed(Error),
}

/// How many steps the task takes before it yields, and how many reads one step makes.
const MAX_STEPS: usize = 64;
const MAX_READS: usize = 16;

impl<'a> LiveConnection<'a> {
    fn new(driver: &'a Driver, connection: Connection) -> Self {
        let server = connection.server().cloned();
        let wire = connection.into_wire();
        let now = Instant::now();
        Self {
            driver,
            server,
            begin: wire.queued(),
            wire,
            calls: VecDeque::new(),
            replied: 0,
            pinged: false,
            expired: 0,
            expired_bytes: 0,
            queueing: false,
            last_reply: now,
            last_progress: now,
            // It fires at once, which sets it.
            timer: Box::pin(tokio::time::sleep_until(now)),
            taken: BytesMut::new(),
            wakers: Vec::new(),
            woken: 0,
            yielded: false,
            demoted: None,
        }
    }

    /// Runs until the connection breaks, or (`Ok`) no client is left.
    async fn run(mut self) -> Result<(), Error> {
        let Some(error) = poll_fn(|cx| self.poll(cx)).await else { return Ok(()) };
        self.fail(&error);
        Err(error)
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Error>> {
        // The runtime may be too busy to fire timers: with the bytes of this server, for example.
        let mut is_due = self.timer.deadline() <= Instant::now();
        for _ in 0..MAX_STEPS {
            while self.timer.as_mut().poll(cx).is_ready() || std::mem::take(&mut is_due) {
                if let Err(error) = self.check_timeouts() {
                    return Poll::Ready(Some(error));
                }
            }
            match self.step(cx) {
                Poll::Ready(Step::Moved) if self.wire.should_yield() => break,
                Poll::Ready(Step::Moved) => {}
                Poll::Ready(Step::Closed) => return Poll::Ready(None),
                Poll::Ready(Step::Failed(error)) => return Poll::Ready(Some(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
        // Unlike a plain wake-up, this lets the runtime look at timers and other sockets first.
        pin!(tokio::task::yield_now()).poll(cx).map(|()| None)
    }

    /// Fails calls that have timed out, pings an idle server, and sets the timer.
    ///
    /// A call that times out does not end the connection as long as the server answers others.
    fn check_timeouts(&mut self) -> Result<(), Error> {
        let now = Instant::now();
        let Config { command_timeout: limit, stall_timeout: stall, .. } = *self.driver.discovery.config();
        while let Some(call) = self.calls.get(self.expired)
            && let Some(limit) = limit.filter(|_| call.deadline(limit).is_some_and(|deadline| deadline <= now))
        {
            let sent = self.wire.sent(self.begin.saturating_add(self.expired_bytes).saturating_add(wide(call.first)));
            call.slot.fail(Error::timeout(limit).with_sent(sent));
            self.expired = self.expired.saturating_add(1);
            self.expired_bytes = self.expired_bytes.saturating_add(wide(call.bytes));
        }
        let awaits = self.pinged || !self.calls.is_empty();
        let is_over = |since: Instant, limit: Duration| now.saturating_duration_since(since) >= limit;
        if let Some(limit) = limit.filter(|limit| awaits && is_over(self.last_reply, *limit)) {
            return Err(Error::timeout(limit));
        }
        if let Some(stall) = stall.filter(|stall| awaits && is_over(self.last_progress, *stall)) {
            return Err(Error::stalled(stall));
        }
        let ping_after = self.driver.ping_after.filter(|_| !awaits);
        if ping_after.is_some_and(|after| is_over(self.last_reply, after)) {
            self.ping();
            (self.last_reply, self.last_progress) = (now, now);
        }
        if let (Some(limit), Some(_)) = (limit, &self.demoted) {
            self.driver.queue.expire(limit);
        }
        // The next call must not find the timer set to a later time than its own timeout.
        let after = |since: Instant, limit: Option<Duration>| since.checked_add(limit?);
        let next = [
            self.calls.get(self.expired).and_then(|call| call.deadline(limit)),
            after(self.last_reply, limit.filter(|_| awaits)),
            after(self.last_progress, stall.filter(|_| awaits)),
            after(self.last_reply, ping_after),
            after(now, limit),
            after(now, stall),
            after(now, self.demoted.as_ref().map(|_| TICK)),
        ];
        let next = next.into_iter().flatten().min().or_else(|| now.checked_add(NO_LIMIT)).unwrap_or(now);
        self.timer.as_mut().reset(next.max(now.checked_add(Duration::from_millis(1)).unwrap_or(now)));
        Ok(())
    }

    /// Sends a PING.
    fn ping(&mut self) {
        self.wire.queue(|out| crate::command::encode(&cmd::<()>("PING"), out));
        self.begin = self.wire.queued();
        self.pinged = true;
    }

    fn step(&mut self, cx: &mut Context<'_>) -> Poll<Step> {
        // The first of many callers that were woken together wakes this task again, and without
        // this it would write one command at a time. Yielding once lets all of them queue their
        // commands for one system call.
        if self.woken > 1 && !self.yielded {
            self.yielded = true;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.yielded = false;
        if let Some(master_watch) = &self.driver.master_watch
            && master_watch.poll_switch(self.server.as_ref(), cx)
        {
            // Replies of the old master no longer count.
            return Poll::Ready(Step::Failed(master_switched()));
        }
        let began_idle = self.calls.is_empty();
        if let Some(error) = &self.demoted {
            // Calls in flight are answered; new ones wait for the next connection.
            return match began_idle {
                true => Poll::Ready(Step::Failed(error.clone())),
                false => self.poll_wire(cx, began_idle),
            };
        }
        if began_idle && !self.pinged {
            // A reply that no command requested would be taken for that of the next command. A lost
            // connection is better noticed before commands are sent.
            if let Err(error) = self.poll_idle(cx) {
                return Poll::Ready(Step::Failed(error));
            }
        }
        let open = self.driver.queue.take(&mut self.taken, &mut self.calls, cx.waker());
        if !self.taken.is_empty() {
            let Self { wire, taken, .. } = self;
            wire.queue_all(taken);
        } else if !open && self.calls.is_empty() && self.wire.buffered() == 0 {
            return Poll::Ready(Step::Closed);
        }
        self.poll_wire(cx, began_idle)
    }

    /// Reads what has arrived while no reply is owed.
    fn poll_idle(&mut self, cx: &mut Context<'_>) -> Result<(), Error> {
        while !self.wire.has_read_enough() {
            match self.wire.poll_read(cx) {
                Poll::Pending => break,
                Poll::Ready(read) => read.map_err(Error::io)?,
            }
            self.deliver_replies()?;
        }
        Ok(())
    }

    fn poll_wire(&mut self, cx: &mut Context<'_>, began_idle: bool) -> Poll<Step> {
        self.woken = 0;
        // Bytes written for later calls are no progress of the first call.
        let first = self.calls.front().map_or(0, |call| call.bytes);
        let is_writing_first = self.wire.sent(self.begin.saturating_add(wide(first))) == Sent::No;
        let (mut wrote, mut read, mut replied) = (false, false, false);
        let mut polled = Poll::Pending;
        if began_idle && let Some(call) = self.calls.front() {
            // The call may have waited for this connection.
            if let Some(deadline) = call.deadline(self.driver.discovery.config().command_timeout)
                && deadline < self.timer.deadline()
            {
                self.timer.as_mut().reset(deadline);
            }
        }
        // Read as much as there is, so that one wake-up serves many callers.
        for _ in 0..MAX_READS {
            polled = self.wire.poll_fill(cx, &mut wrote);
            match polled {
                Poll::Ready(Ok(())) => read = true,
                _ => break,
            }
            match self.deliver_replies() {
                Ok(any) => replied |= any,
                Err(error) => return Poll::Ready(Step::Failed(error)),
            }
            if self.wire.has_read_enough() {
                break;
            }
        }
        let begins = began_idle && !self.calls.is_empty();
        let progressed = read || (wrote && is_writing_first) || begins;
        if progressed {
            let now = Instant::now();
            self.last_progress = now;
            if replied || begins {
                self.last_reply = now;
            }
        }
        match polled {
            Poll::Ready(Err(error)) => Poll::Ready(Step::Failed(Error::io(error))),
            _ if progressed => Poll::Ready(Step::Moved),
            _ => Poll::Pending,
        }
    }

    /// Delivers replies to callers. Returns whether there were any.
    fn deliver_replies(&mut self) -> Result<bool, Error> {
        let (mut released, mut any) = (0, false);
        let result = loop {
            let frame = match self.wire.next_frame() {
                Ok(Some(frame)) => frame,
                Ok(None) => break Ok(()),
                Err(error) => break Err(Error::protocol(error)),
            };
            if frame.kind() == ValueKind::Push {
                self.driver.events.report(ClientEvent::Push(frame));
                continue;
            }
            any = true;
            if self.pinged {
                self.pinged = false;
                continue;
            }
            let Some(call) = self.calls.front() else { break Err(Error::protocol(ProtocolError::UnexpectedReply)) };
            if self.replied == 0
                && self.wire.sent(self.begin.saturating_add(wide(call.bytes))) == Sent::No
                && call.replies == 1
            {
                // The reply came before the whole command was sent: the server says why it stops
                // reading.
                if let Err(error) = frame.into_result() {
                    call.slot.fail(error.with_sent(Sent::No));
                    released = self.pop().saturating_add(released);
                }
                break Err(Error::protocol(ProtocolError::UnexpectedReply));
            }
            if self.is_demotion(&frame) {
                self.demoted = Some(Error::server(frame.value()));
                self.driver.queue.set_connected(false);
            }
            if call.multi == Some(self.replied) {
                self.queueing = is_ok(&frame);
            }
            let replied = self.replied.saturating_add(1);
            let is_last = replied >= call.replies;
            let is_open = is_last && call.multi.is_some() && self.queueing && leaves_transaction_open(&frame);
            self.wakers.extend(call.slot.reply(frame));
            self.replied = replied;
            if is_last {
                released = self.pop().saturating_add(released);
            }
            if is_open {
                // The commands of other callers would be queued in the open transaction.
                break Err(Error::new(ErrorKind::Closed, "EXEC was refused, and so a transaction may be left open"));
            }
        };
        if released > 0 {
            self.driver.queue.release(released);
        }
        self.woken = self.wakers.len().max(self.woken);
        for waker in self.wakers.drain(..) {
            waker.wake();
        }
        result.map(|()| any)
    }

    /// Returns whether a reply says that another server has taken over.
    fn is_demotion(&self, reply: &Frame) -> bool {
        let Driver { discovery, reconnect_on_readonly, last_demotion, .. } = self.driver;
        match discovery.config().is_discovered() {
            true => is_demoted(reply),
            // Another server may have become the master behind the same address.
            false => {
                *reconnect_on_readonly
                    && is_read_only(reply)
                    && last_demotion.is_none_or(|last| last.elapsed() >= DEMOTION_INTERVAL)
            }
        }
    }

    /// Removes the first call, which is answered. Returns its bytes.
    fn pop(&mut self) -> usize {
        let bytes = self.calls.pop_front().map_or(0, |call| call.bytes);
        self.begin = self.begin.saturating_add(wide(bytes));
        self.replied = 0;
        if let Some(expired) = self.expired.checked_sub(1) {
            self.expired = expired;
            self.expired_bytes = self.expired_bytes.saturating_sub(wide(bytes));
        }
        bytes
    }

    /// Fails all calls, because the connection is lost.
    fn fail(&mut self, error: &Error) {
        let mut released = 0;
        let mut end = self.begin;
        for call in self.calls.drain(..) {
            end = end.saturating_add(wide(call.bytes));
            released = call.bytes.saturating_add(released);
            let first = end.saturating_sub(wide(call.bytes.saturating_sub(call.first)));
            call.slot.fail(error.clone().with_sent(self.wire.sent(first)));
        }
        self.driver.queue.release(released);
    }
}

/// The runtime shuts down.
impl Drop for LiveConnection<'_> {
    fn drop(&mut self) {
        if !self.calls.is_empty() {
            self.fail(&Error::closed());
        }
    }
}
