//! What a source does while nothing comes: it gives its connection back, asks again a few times,
//! and is then parked until something wakes it.

use super::Shared;
use super::connections::Lent;
use super::source::{Source, State};
use delivery::consumer::Reply;
use resp::streams::GroupInfo;
use resp::{Connection, Error};
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
/// The same for a source that the reader is done with.
const KEEP_FINISHED_OPEN: Duration = Duration::from_millis(200);
/// How long a source that has much to do keeps its output open while others wait for a place.
const TURN: Duration = Duration::from_secs(1);

/// How long a source that is not parked waits after this number of reads that brought nothing.
/// After one that brought something, it only lets others use the connection.
fn pause_after(empty: usize) -> Duration {
    let nth = empty.saturating_sub(1).min(PAUSES.len().saturating_sub(1));
    if empty == 0 { Duration::ZERO } else { PAUSES.get(nth).copied().unwrap_or_default() }
}

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
    /// There may be new entries. The source gets a connection to read them over.
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
    /// When the first entries came since the output was opened.
    came_at: Option<Instant>,
    /// The epoch in which this session began.
    epoch: u64,
    /// How many reads brought nothing since one brought something.
    empty: usize,
    /// The next wait is one until it is woken.
    is_parked: bool,
    /// Why the stages end.
    pub(crate) closed: Closed,
}

impl<'a> Parking<'a> {
    pub(crate) fn new(shared: &'a Shared<'a>, source: &'a Rc<Source>) -> Self {
        Self { shared, source, came_at: None, epoch: 0, empty: 0, is_parked: false, closed: Closed::Done }
    }

    /// Begins a session.
    pub(crate) async fn begin(&mut self) -> Result<(Connection, Lent), Stop> {
        let borrowed = self.shared.borrow(self.source).await?;
        self.source.set_state(State::Active);
        (self.epoch, self.empty) = (self.present_epoch(), 0);
        Ok(borrowed)
    }

    pub(crate) fn lost(&self, error: &Error) {
        self.shared.lost(self.source, error);
    }

    fn present_epoch(&self) -> u64 {
        self.shared.node_of(self.source).connections.epoch()
    }

    /// The result of a read.
    pub(crate) fn came(&mut self, reply: Reply) {
        if reply.entries > 0 {
            self.empty = 0;
            self.came_at.get_or_insert_with(Instant::now);
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

    /// Whether the next wait is one until the source is woken. When others want its place, a source
    /// for which nothing comes does not ask again.
    pub(crate) fn is_to_park(&self) -> bool {
        self.empty > PAUSES.len() || self.empty > 0 && self.shared.slots.are_short()
    }

    /// From now on, whatever comes behind what the group has been given wakes the source. Returns
    /// whether it waits: not when something has come already.
    pub(crate) fn park(&mut self, group: &GroupInfo) -> bool {
        self.is_parked = group.lag.is_none_or(|lag| lag == 0);
        if self.is_parked {
            self.source.pending.set(group.pending);
            self.source.parked.set(Some(group.last_delivered_id));
            self.shared.node_of(self.source).park(self.source);
        } else {
            self.empty = 0;
        }
        self.is_parked
    }

    /// Waits until there may be something to read.
    pub(crate) async fn wait(&mut self, is_idle: bool) -> Result<Woken, Stop> {
        let shutdown = &self.shared.context.shutdown;
        if is_idle {
            // As it was when it was parked; others may have come since.
            let is_parked = std::mem::take(&mut self.is_parked);
            if is_parked && self.shared.slots.are_short() {
                return Ok(self.close(Closed::Idle));
            }
            let time = match is_parked {
                false => pause_after(self.empty),
                true if self.source.is_finished.get() => KEEP_FINISHED_OPEN,
                true => KEEP_OPEN,
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
        } else if self.shared.slots.are_short() && self.came_at.is_some_and(|at| at.elapsed() >= TURN) {
            return Ok(self.close(Closed::Yielded));
        }
        self.again().await
    }

    /// Borrows a connection again, to go on where the session was.
    pub(crate) async fn again(&self) -> Result<Woken, Stop> {
        if self.epoch != self.present_epoch() {
            return Ok(Woken::Over);
        }
        let (connection, lent) = self.shared.borrow(self.source).await?;
        Ok(Woken::Read(connection, lent))
    }

    fn close(&mut self, why: Closed) -> Woken {
        self.closed = why;
        Woken::Close
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_that_nothing_wakes_waits_for_a_short_time_only() {
        assert_eq!(pause_after(0), Duration::ZERO, "the last read brought entries, and more may be there");
        for empty in 1..100 {
            assert!(pause_after(empty) <= Duration::from_millis(80), "{empty}");
            assert!(pause_after(empty) >= pause_after(empty - 1), "{empty}");
        }
    }
}
