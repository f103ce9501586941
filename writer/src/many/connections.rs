//! The few connections that all sources of a node share.
//!
//! A source borrows one for as long as it has something to ask, and gives it back whenever nothing
//! of it is on the wire. Sources that wait for one get it in order.

use resp::{Connection, Error};
use service::{Connector, Health, Node, Stop};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How many there are.
const CONNECTIONS: usize = 8;
/// How long a source keeps one while others wait.
const TURN: Duration = Duration::from_millis(20);

/// The epochs of all nodes: none has one that another had.
static EPOCHS: AtomicU64 = AtomicU64::new(1);

fn next_epoch() -> u64 {
    EPOCHS.fetch_add(1, Ordering::Relaxed)
}

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
    node: Node,
    /// Those that nobody has.
    free: RefCell<Vec<Line>>,
    turns: Arc<Semaphore>,
    waiting: Cell<usize>,
    /// Changes when a connection is lost: what was pending with a source may have changed then, and
    /// older connections are suspect.
    epoch: Cell<u64>,
}

impl Connections {
    pub(crate) fn new(node: Node) -> Rc<Self> {
        let free = (0..CONNECTIONS).map(|_| Line { connector: node.connector(), connection: None }).collect();
        Rc::new(Self {
            node,
            free: RefCell::new(free),
            turns: Arc::new(Semaphore::new(CONNECTIONS)),
            waiting: Cell::new(0),
            epoch: Cell::new(next_epoch()),
        })
    }

    /// A connector for a connection of one's own.
    pub(crate) fn connector(&self) -> Connector {
        self.node.connector()
    }

    /// Where to report the state of the work with the node.
    pub(crate) const fn health(&self) -> &Health {
        self.node.health()
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

    /// A connection was lost, or Redis refused a command on it.
    pub(crate) fn lost(&self, error: &Error) {
        if error.is_server() {
            // The refusal of one command says nothing about the others.
            service::metrics::redis_error(error.kind());
            return;
        }
        self.epoch.set(next_epoch());
        self.node.connector().lost(error);
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
