use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use tokio::sync::broadcast;

use super::Event;
use super::queue::{Call, Queue};
use crate::connection::{Wire, is_misled};
use crate::{Backoff, Config, Connection, Error, Kind, ProtocolError, Sent, cmd};

/// The task behind a client: writes what callers have queued, hands out replies, connects again.
pub(super) struct Driver {
    pub(super) queue: Arc<Queue>,
    pub(super) config: Config,
    pub(super) backoff: Backoff,
    pub(super) ping_after: Option<Duration>,
    /// Whether a lost connection is made again.
    pub(super) reconnects: bool,
    pub(super) events: broadcast::Sender<Event>,
}

/// The last client is gone, or the runtime that the driver was in: nobody must wait for it.
impl Drop for Driver {
    fn drop(&mut self) {
        self.queue.end();
    }
}

/// How often calls that wait for a connection are looked at.
const TICK: Duration = Duration::from_millis(50);

impl Driver {
    pub(super) async fn run(mut self, mut connection: Connection) {
        loop {
            let error = match Session::new(&self, connection).run().await {
                Ok(()) => return,
                Err(error) => error,
            };
            self.queue.set_connected(false);
            let _ = self.events.send(Event::Disconnected(error));
            if !self.reconnects {
                return;
            }
            connection = match self.connect().await {
                Some(connection) => connection,
                None => return,
            };
            self.queue.set_connected(true);
            let _ = self.events.send(Event::Connected);
        }
    }

    /// Connects until it works, or no client is left.
    async fn connect(&mut self) -> Option<Connection> {
        self.backoff.reset();
        loop {
            let attempt = self.while_expiring(Connection::connect(&self.config)).await?;
            match attempt {
                Ok(connection) => return Some(connection),
                Err(error) => {
                    if !error.is_transient() {
                        // Waiting does not help those who wait now.
                        self.queue.expire(None, || error.clone());
                    }
                    let _ = self.events.send(Event::AttemptFailed(error));
                }
            }
            let delay = self.backoff.next_delay();
            self.while_expiring(tokio::time::sleep(delay)).await?;
        }
    }

    /// Waits for something, while calls that wait for a connection run out of time. `None` when no client is left.
    async fn while_expiring<T>(&self, what: impl Future<Output = T>) -> Option<T> {
        let mut what = pin!(what);
        loop {
            if self.queue.is_closed() {
                return None;
            }
            match tokio::time::timeout(TICK, &mut what).await {
                Ok(done) => return Some(done),
                Err(_) => {
                    if let Some(limit) = self.config.command_timeout {
                        self.queue.expire(Some(limit), || Error::timeout(limit).with_sent(Sent::No));
                    }
                }
            }
        }
    }
}

/// What a client does with one connection.
struct Session<'a> {
    driver: &'a Driver,
    wire: Wire,
    /// Calls that are not answered, in order.
    calls: VecDeque<Call>,
    /// Where in all bytes ever queued the first call begins.
    begin: u64,
    /// Replies of the first call that have come.
    replied: usize,
    /// The reply to our own PING comes before those of all calls: it is sent when there are none.
    pinged: bool,
    moved: Instant,
    spare: BytesMut,
    wakers: Vec<std::task::Waker>,
    /// How many callers were given their replies the last time. They may be about to call again.
    served: usize,
    /// The callers that were served last have had their turn.
    stood_back: bool,
    /// The server has said that another one has its place.
    misled: Option<Error>,
}

/// Why a session stopped to wait.
enum Step {
    Moved,
    Closed,
    Failed(Error),
}

impl<'a> Session<'a> {
    fn new(driver: &'a Driver, connection: Connection) -> Self {
        let wire = connection.into_wire();
        Self {
            driver,
            begin: wire.queued(),
            wire,
            calls: VecDeque::new(),
            replied: 0,
            pinged: false,
            moved: Instant::now(),
            spare: BytesMut::new(),
            wakers: Vec::new(),
            served: 0,
            stood_back: false,
            misled: None,
        }
    }

    /// Until the connection breaks, or (`Ok`) no client is left.
    async fn run(mut self) -> Result<(), Error> {
        let error = loop {
            let awaits = self.pinged || !self.calls.is_empty();
            let limit = if awaits { self.driver.config.command_timeout } else { self.driver.ping_after };
            let step = poll_fn(|cx| self.poll(cx));
            let step = match limit {
                None => step.await,
                Some(limit) => match tokio::time::timeout(limit, step).await {
                    Ok(step) => step,
                    Err(_) if !awaits => {
                        self.ping();
                        Step::Moved
                    }
                    Err(_) if self.moved.elapsed() >= limit => Step::Failed(Error::timeout(limit)),
                    Err(_) => continue,
                },
            };
            match step {
                Step::Moved => self.moved = Instant::now(),
                Step::Closed => return Ok(()),
                Step::Failed(error) => break error,
            }
        };
        self.fail(&error);
        Err(error)
    }

    /// Asks the server whether it is there.
    fn ping(&mut self) {
        self.wire.queue(|out| crate::command::encode(&cmd::<()>("PING"), out));
        self.begin = self.wire.queued();
        self.pinged = true;
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Step> {
        // The first of many callers that go on at the same time wakes this task, which would run at once and write one command. So it stands
        // back for one turn, and then writes the commands of all of them with one system call.
        if self.served > 1 && !self.stood_back {
            self.stood_back = true;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.stood_back = false;
        let began_idle = self.calls.is_empty();
        if let Some(error) = &self.misled {
            // What is under way is answered; what comes now waits for the next connection.
            return match began_idle {
                true => Poll::Ready(Step::Failed(error.clone())),
                false => self.poll_wire(cx, began_idle),
            };
        }
        let open = self.driver.queue.take(&mut self.spare, &mut self.calls, cx.waker());
        if !self.spare.is_empty() {
            let Self { wire, spare, .. } = self;
            wire.queue_all(spare);
        } else if !open && self.calls.is_empty() && self.wire.buffered() == 0 {
            return Poll::Ready(Step::Closed);
        }
        self.poll_wire(cx, began_idle)
    }

    fn poll_wire(&mut self, cx: &mut Context<'_>, began_idle: bool) -> Poll<Step> {
        self.served = 0;
        // What else is written is no sign that the first call will ever be answered.
        let first = self.calls.front().map_or(0, |call| call.bytes);
        let is_writing_first = self.wire.sent(self.begin + first as u64) == Sent::No;
        let (mut wrote, mut read) = (false, false);
        let mut polled = Poll::Pending;
        // As much as is there, so that one wake-up serves many callers.
        for _ in 0..16 {
            polled = self.wire.poll_fill(cx, &mut wrote);
            match polled {
                Poll::Ready(Ok(())) => read = true,
                _ => break,
            }
            if let Err(error) = self.hand_out() {
                return Poll::Ready(Step::Failed(Error::protocol(error)));
            }
        }
        match polled {
            Poll::Ready(Err(error)) => Poll::Ready(Step::Failed(Error::io(error))),
            // The limits of time begin anew.
            _ if read || (wrote && is_writing_first) || (began_idle && !self.calls.is_empty()) => {
                Poll::Ready(Step::Moved)
            }
            _ => Poll::Pending,
        }
    }

    /// Gives callers their replies.
    fn hand_out(&mut self) -> Result<(), ProtocolError> {
        let mut released = 0;
        let result = loop {
            let frame = match self.wire.next_frame() {
                Ok(Some(frame)) => frame,
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            };
            if frame.kind() == Kind::Push {
                let _ = self.driver.events.send(Event::Push(frame));
                continue;
            }
            if self.pinged {
                self.pinged = false;
                continue;
            }
            match self.calls.front() {
                Some(call) => {
                    if self.replied == 0
                        && self.wire.sent(self.begin + call.bytes as u64) == Sent::No
                        && call.replies == 1
                    {
                        // It came before the command was sent as a whole: the server says why it will not read on.
                        if let Err(error) = frame.into_result()
                            && let Some(call) = self.calls.pop_front()
                        {
                            released += call.bytes;
                            self.begin += call.bytes as u64;
                            call.slot.fail(error.with_sent(Sent::No));
                        }
                        break Err(ProtocolError::UnexpectedReply);
                    }
                    if self.driver.config.is_found() && is_misled(&frame) {
                        self.misled = Some(Error::server(frame.value()));
                    }
                    let (done, waker) = call.slot.reply(frame);
                    self.wakers.extend(waker);
                    self.replied += 1;
                    if done || self.replied >= call.replies {
                        released += call.bytes;
                        self.begin += call.bytes as u64;
                        self.replied = 0;
                        self.calls.pop_front();
                    }
                }
                None => break Err(ProtocolError::UnexpectedReply),
            }
        };
        if released > 0 {
            self.driver.queue.release(released);
        }
        self.served = self.wakers.len().max(self.served);
        for waker in self.wakers.drain(..) {
            waker.wake();
        }
        result
    }

    /// Tells everybody who waits that the connection is gone.
    fn fail(&mut self, error: &Error) {
        let mut released = 0;
        let mut end = self.begin;
        for call in self.calls.drain(..) {
            end += call.bytes as u64;
            released += call.bytes;
            let first = end - (call.bytes - call.first) as u64;
            call.slot.fail(error.clone().with_sent(self.wire.sent(first)));
        }
        self.driver.queue.release(released);
    }
}

/// With the runtime that it was in.
impl Drop for Session<'_> {
    fn drop(&mut self) {
        if !self.calls.is_empty() {
            self.fail(&Error::closed());
        }
    }
}
