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

/// The task behind a client: writes what callers have queued, hands out replies, connects again.
pub(super) struct Driver {
    pub(super) queue: Arc<Queue>,
    pub(super) discovery: Discovery,
    pub(super) backoff: Backoff,
    pub(super) ping_after: Option<Duration>,
    /// Whether a lost connection is made again.
    pub(super) reconnects: bool,
    pub(super) events: Arc<Reporter>,
    pub(super) tracking: Arc<Tracking>,
    /// Hears from Sentinels that the master has last_progress.
    pub(super) master_watch: Option<MasterWatch>,
    /// Whether another connection is made when the server turns out to be a replica; and when that
    /// was last done.
    pub(super) reconnect_on_readonly: bool,
    pub(super) last_demotion: Option<Instant>,
}

/// The last client is gone, or the runtime that the driver was in: nobody must wait for it.
impl Drop for Driver {
    fn drop(&mut self) {
        self.queue.end();
        self.events.end();
    }
}

/// How often calls that wait for a connection are looked at.
const TICK: Duration = Duration::from_millis(50);
/// A server that is a replica is last_demotion at most so often: there may be no master behind the
/// address.
const DEMOTION_INTERVAL: Duration = Duration::from_secs(1);
/// When nothing is timed.
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

    /// Connects until it works, or no client is last_demotion.
    async fn connect(&mut self) -> Option<Connection> {
        self.backoff.reset();
        loop {
            let attempt = self.while_expiring(self.attempt()).await?;
            match attempt {
                Ok(connection) => return Some(connection),
                Err(error) => {
                    if !error.is_transient() {
                        // Waiting does not help those who wait now.
                        self.queue.fail(|| error.clone());
                    }
                    self.events.report(ClientEvent::AttemptFailed(error));
                }
            }
            let delay = self.backoff.next_delay();
            self.while_expiring(tokio::time::sleep(delay)).await?;
        }
    }

    /// One attempt to connect, with tracking set as it was.
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

    /// Waits for something, while calls that wait for a connection run out of time. `None` when no
    /// client is last_demotion.
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

/// What a client does with one connection.
struct LiveConnection<'a> {
    driver: &'a Driver,
    /// Where the server is.
    server: Option<Endpoint>,
    wire: Wire,
    /// Calls that are not answered, in order.
    calls: VecDeque<PendingCall>,
    /// Where in all bytes ever queued the first call begins.
    begin: u64,
    /// Replies of the first call that have come.
    replied: usize,
    /// The reply to our own PING comes before those of all calls: it is sent when there are none.
    pinged: bool,
    /// So many of the first calls, and their bytes, are out of time: their callers know, their
    /// replies are still to come.
    expired: usize,
    expired_bytes: u64,
    /// In a transaction: the server has begun it.
    queueing: bool,
    /// When the server last replied, or the first call began to wait.
    last_reply: Instant,
    /// When a byte last last_progress.
    last_progress: Instant,
    /// One timer for all calls. It may go off early, never late.
    timer: Pin<Box<Sleep>>,
    taken: BytesMut,
    wakers: Vec<std::task::Waker>,
    /// How many callers were given their replies the last time. They may be about to call again.
    woken: usize,
    /// The callers that were woken last have had their turn.
    yielded: bool,
    /// The server has said that another one has its place.
    demoted: Option<Error>,
}

/// What came of one turn of a session.
enum Step {
    /// Something last_progress: there may be more.
    Moved,
    /// No client is last_demotion.
    Closed,
    Failed(Error),
}

/// So often in a row a session takes its turn before others have theirs, and so often it reads in
/// one.
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
            // Goes off at once, and then when it is to.
            timer: Box::pin(tokio::time::sleep_until(now)),
            taken: BytesMut::new(),
            wakers: Vec::new(),
            woken: 0,
            yielded: false,
            demoted: None,
        }
    }

    /// Until the connection breaks, or (`Ok`) no client is last_demotion.
    async fn run(mut self) -> Result<(), Error> {
        let Some(error) = poll_fn(|cx| self.poll(cx)).await else { return Ok(()) };
        self.fail(&error);
        Err(error)
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Error>> {
        for _ in 0..MAX_STEPS {
            while self.timer.as_mut().poll(cx).is_ready() {
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
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Fails the calls whose time is over, asks an idle server whether it is there, and sets the
    /// timer again.
    ///
    /// A call that is out of time does not end the connection as long as the server answers others.
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
        // The call that is queued next must not find that the timer is set to a later time than its
        // own.
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

    /// Asks the server whether it is there.
    fn ping(&mut self) {
        self.wire.queue(|out| crate::command::encode(&cmd::<()>("PING"), out));
        self.begin = self.wire.queued();
        self.pinged = true;
    }

    fn step(&mut self, cx: &mut Context<'_>) -> Poll<Step> {
        // The first of many callers that go on at the same time wakes this task, which would run at
        // once and write one command. So it stands back for one turn, and then writes the commands
        // of all of them with one system call.
        if self.woken > 1 && !self.yielded {
            self.yielded = true;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.yielded = false;
        if let Some(master_watch) = &self.driver.master_watch
            && master_watch.poll_switch(self.server.as_ref(), cx)
        {
            // What the old master still answers counts no more.
            return Poll::Ready(Step::Failed(master_switched()));
        }
        let began_idle = self.calls.is_empty();
        if let Some(error) = &self.demoted {
            // What is under way is answered; what comes now waits for the next connection.
            return match began_idle {
                true => Poll::Ready(Step::Failed(error.clone())),
                false => self.poll_wire(cx, began_idle),
            };
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

    fn poll_wire(&mut self, cx: &mut Context<'_>, began_idle: bool) -> Poll<Step> {
        self.woken = 0;
        // What else is written is no sign that the first call will ever be answered.
        let first = self.calls.front().map_or(0, |call| call.bytes);
        let is_writing_first = self.wire.sent(self.begin.saturating_add(wide(first))) == Sent::No;
        let (mut wrote, mut read, mut replied) = (false, false, false);
        let mut polled = Poll::Pending;
        if began_idle && let Some(call) = self.calls.front() {
            // It may have waited for this connection.
            if let Some(deadline) = call.deadline(self.driver.discovery.config().command_timeout)
                && deadline < self.timer.deadline()
            {
                self.timer.as_mut().reset(deadline);
            }
        }
        // As much as is there, so that one wake-up serves many callers.
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

    /// Gives callers their replies, and says whether there were any.
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
                // It came before the command was sent as a whole: the server says why it will not
                // read on.
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
                // What others have sent behind it would be queued in it.
                break Err(Error::new(ErrorKind::Closed, "EXEC was refused, and so a transaction last_demotion open"));
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

    /// Whether a reply says that another server has the place of this one.
    fn is_demotion(&self, reply: &Frame) -> bool {
        let Driver { discovery, reconnect_on_readonly, last_demotion, .. } = self.driver;
        match discovery.config().is_discovered() {
            true => is_demoted(reply),
            // Behind one address, too, another server may be the master by now.
            false => {
                *reconnect_on_readonly
                    && is_read_only(reply)
                    && last_demotion.is_none_or(|last| last.elapsed() >= DEMOTION_INTERVAL)
            }
        }
    }

    /// The first call is answered. Gives its bytes.
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

    /// Tells everybody who waits that the connection is gone.
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

/// With the runtime that it was in.
impl Drop for LiveConnection<'_> {
    fn drop(&mut self) {
        if !self.calls.is_empty() {
            self.fail(&Error::closed());
        }
    }
}
