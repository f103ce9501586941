//! What a source does while nothing comes: it gives its connection back, asks again a few times,
//! and is then parked until something wakes it.

use super::Shared;
use super::connections::Lent;
use super::source::{Source, State};
use delivery::consumer::Reply;
use resp::streams::GroupInfo;
use resp::{Connection, Error, StreamId};
use service::Stop;
use std::rc::Rc;
use std::time::Duration;
use tokio::time::Instant;

/// How long it waits before it asks again; after that it is parked.
const PAUSES: [Duration; 5] = [
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(20),
    Duration::from_millis(40),
    Duration::from_millis(80),
];
/// How long a source that is parked keeps its output open.
const KEEP_OPEN: Duration = Duration::from_secs(10);
/// How long a source keeps its output open at least while others wait for a place.
const TURN: Duration = Duration::from_secs(1);

/// Why the stages of a source end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Closed {
    /// Everything is done, or the service stops.
    Done,
    /// There is nothing to do until the source is woken.
    Idle,
    /// Others want its place.
    Yielded,
}

/// Why waiting ended.
#[allow(clippy::large_enum_variant, reason = "taken apart at once")]
pub(crate) enum Woken {
    /// Something may have come. The connection is another one.
    Read(Connection, Lent),
    /// A connection was lost since this session began.
    Over,
    /// The output is to be closed.
    Close,
}

/// The pauses of one source.
pub(crate) struct Parking<'a> {
    shared: &'a Shared<'a>,
    source: &'a Rc<Source>,
    opened_at: Instant,
    /// The epoch in which this session began.
    epoch: u64,
    /// How many reads brought nothing since one brought something.
    empty: usize,
    /// Why the stages end.
    pub(crate) closed: Closed,
}

impl<'a> Parking<'a> {
    pub(crate) fn new(shared: &'a Shared<'a>, source: &'a Rc<Source>) -> Self {
        Self { shared, source, opened_at: Instant::now(), epoch: 0, empty: 0, closed: Closed::Done }
    }

    /// Begins a session.
    pub(crate) async fn begin(&mut self) -> Result<(Connection, Lent), Stop> {
        let borrowed = self.shared.connections.borrow().await?;
        self.source.set_state(State::Active);
        (self.epoch, self.empty) = (self.shared.connections.epoch(), 0);
        Ok(borrowed)
    }

    pub(crate) fn lost(&self, error: &Error) {
        self.shared.connections.lost(error);
    }

    /// What a read brought.
    pub(crate) fn came(&mut self, reply: Reply) {
        if reply.entries > 0 {
            self.empty = 0;
            self.source.has_long_entries.set(reply.last_size > super::waker::LONG);
        } else {
            self.empty = self.empty.saturating_add(1);
        }
    }

    /// Whether the connection is given back before the next read. With `is_idle`, nothing is left
    /// to do but to read what comes.
    pub(crate) fn gives_back(&self, is_idle: bool, lent: &Lent) -> bool {
        is_idle && self.empty > 0 || lent.is_due()
    }

    /// Whether the next wait is one until the source is woken.
    pub(crate) const fn is_to_park(&self) -> bool {
        self.empty > PAUSES.len()
    }

    /// From now on, whatever comes behind what the group has been given wakes the source.
    pub(crate) fn park(&self, group: &GroupInfo) {
        self.source.pending.set(group.pending);
        // Something came just now.
        let behind = if group.lag.is_some_and(|lag| lag > 0) { None } else { Some(group.last_delivered_id) };
        self.source.parked.set(behind.map(|behind: StreamId| behind));
        if behind.is_some() {
            self.shared.parked.notify_one();
        } else {
            self.source.wake();
        }
    }

    /// Waits until there may be something to read.
    pub(crate) async fn wait(&mut self, is_idle: bool) -> Result<Woken, Stop> {
        let shutdown = &self.shared.context.shutdown;
        if is_idle {
            let is_parked = self.is_to_park();
            if self.shared.slots.are_short() && (is_parked || self.opened_at.elapsed() >= TURN) {
                return Ok(self.close(if is_parked { Closed::Idle } else { Closed::Yielded }));
            }
            let time = match self.empty.checked_sub(1).and_then(|nth| PAUSES.get(nth)) {
                Some(pause) => *pause,
                None if self.source.is_finished.get() => Duration::from_millis(200),
                None => KEEP_OPEN,
            };
            if is_parked {
                self.source.set_state(State::Idle);
            }
            let source = self.source;
            tokio::select! {
                () = shutdown.requested() => return Ok(Woken::Close),
                () = source.close.notified(), if is_parked => return Ok(self.close(Closed::Idle)),
                () = source.woken.notified(), if is_parked => {}
                () = tokio::time::sleep(time) => {
                    if is_parked {
                        return Ok(self.close(Closed::Idle));
                    }
                }
            }
            if is_parked {
                self.empty = 1;
            }
            source.set_state(State::Active);
        } else if self.shared.slots.are_short() && self.opened_at.elapsed() >= TURN {
            return Ok(self.close(Closed::Yielded));
        }
        if self.epoch != self.shared.connections.epoch() {
            return Ok(Woken::Over);
        }
        let (connection, lent) = self.shared.connections.borrow().await?;
        Ok(Woken::Read(connection, lent))
    }

    fn close(&mut self, why: Closed) -> Woken {
        self.closed = why;
        Woken::Close
    }
}
