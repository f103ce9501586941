//! The few connections that all sources share.
//!
//! A source borrows one for as long as it has something to ask, and gives it back whenever nothing
//! of it is on the wire. Who has to wait for one gets it in order.

use resp::{Connection, Error};
use service::{Connector, Stop};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How many there are.
const CONNECTIONS: usize = 4;
/// How long a source keeps one while others wait.
const TURN: Duration = Duration::from_millis(20);

/// A place for a connection.
#[derive(Debug)]
struct Line {
    connector: Connector,
    /// With the [epoch](Connections::epoch) in which it was made.
    connection: Option<(Connection, u64)>,
}

/// The connections.
#[derive(Debug)]
pub(crate) struct Connections {
    /// Those that nobody has.
    free: RefCell<Vec<Line>>,
    turns: Arc<Semaphore>,
    waiting: Cell<usize>,
    /// How many connections were lost. What was pending with a source may have changed then, and
    /// older connections are suspect.
    epoch: Cell<u64>,
}

impl Connections {
    pub(crate) fn new(connector: &Connector) -> Rc<Self> {
        let free = (0..CONNECTIONS).map(|_| Line { connector: connector.clone(), connection: None }).collect();
        Rc::new(Self {
            free: RefCell::new(free),
            turns: Arc::new(Semaphore::new(CONNECTIONS)),
            waiting: Cell::new(0),
            epoch: Cell::new(0),
        })
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.epoch.get()
    }

    /// Borrows a connection, and makes it if need be.
    pub(crate) async fn borrow(self: &Rc<Self>) -> Result<(Connection, Lent), Stop> {
        let waiting = Waiting::new(&self.waiting);
        let turn = Arc::clone(&self.turns).acquire_owned().await.map_err(|_| Stop::Shutdown)?;
        drop(waiting);
        let line = self.free.borrow_mut().pop();
        let mut lent = Lent { line, of: Rc::clone(self), since: Instant::now(), epoch: 0, _turn: turn };
        // As many turns as lines.
        let Some(line) = &mut lent.line else { return Err(Stop::Shutdown) };
        let known =
            line.connection.take().filter(|(connection, epoch)| *epoch == self.epoch.get() && !connection.is_closed());
        let connection = match known {
            Some((connection, _)) => connection,
            None => line.connector.connect().await?,
        };
        lent.epoch = self.epoch.get();
        lent.since = Instant::now();
        Ok((connection, lent))
    }

    /// A connection was lost.
    pub(crate) fn lost(&self, error: &Error) {
        self.epoch.set(self.epoch.get().saturating_add(1));
        if let Some(line) = self.free.borrow().first() {
            line.connector.lost(error);
        } else {
            service::metrics::redis_error(error.kind());
        }
    }
}

/// The right to a connection.
#[derive(Debug)]
pub(crate) struct Lent {
    line: Option<Line>,
    of: Rc<Connections>,
    since: Instant,
    epoch: u64,
    _turn: OwnedSemaphorePermit,
}

impl Lent {
    /// Whether it was kept long enough, and others wait.
    pub(crate) fn is_due(&self) -> bool {
        self.of.waiting.get() > 0 && self.since.elapsed() >= TURN
    }

    /// The connection, with nothing on the wire, for others.
    pub(crate) fn give_back(&mut self, connection: Connection) {
        if let Some(line) = &mut self.line {
            line.connection = Some((connection, self.epoch));
        }
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.of.free.borrow_mut().extend(self.line.take());
    }
}

/// Counts who waits.
pub(super) struct Waiting<'a>(&'a Cell<usize>);

impl<'a> Waiting<'a> {
    pub(super) fn new(count: &'a Cell<usize>) -> Self {
        count.set(count.get().saturating_add(1));
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}
