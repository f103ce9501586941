//! A few connections for many sources. Who has something to do takes one, in the order of asking,
//! and gives it back when nothing is on the wire.

use crate::error::Interrupt;
use crate::redis::Abilities;
use delivery::producer::Changed;
use resp::{Connection, Endpoint};
use service::{Connector, Failure, Health, SourceRecord, Stop};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, SemaphorePermit};

/// How many connections there are at most.
pub(crate) const CONNECTIONS: usize = 8;

/// The connections.
#[derive(Debug)]
pub(crate) struct Pool {
    connector: Connector,
    health: Health,
    idle: RefCell<Vec<Idle>>,
    turns: Semaphore,
    waiting: Cell<usize>,
}

#[derive(Debug)]
struct Idle {
    /// The stream whose node it leads to.
    stream: String,
    connection: Connection,
    abilities: Abilities,
}

/// A connection that was taken. It returns to the pool with [`Lease::give_back`], and is closed
/// when it is dropped.
#[derive(Debug)]
pub(crate) struct Lease<'p> {
    pool: &'p Pool,
    stream: String,
    pub(crate) connection: Connection,
    pub(crate) abilities: Abilities,
    _turn: SemaphorePermit<'p>,
}

impl Pool {
    pub(crate) fn new(connector: Connector, health: Health) -> Self {
        Self { connector, health, idle: RefCell::default(), turns: Semaphore::new(CONNECTIONS), waiting: Cell::new(0) }
    }

    /// Whether a connection leads to the node of one stream only.
    pub(crate) const fn is_cluster(&self) -> bool {
        matches!(self.connector.config().endpoint(), Endpoint::Cluster { .. })
    }

    /// Whether somebody waits for a connection.
    pub(crate) fn is_wanted(&self) -> bool {
        self.waiting.get() > 0
    }

    /// Waits for a connection that leads to the stream of this record.
    pub(crate) async fn take(&self, record: &SourceRecord) -> Result<Lease<'_>, Stop> {
        let waiting = Waiting::new(&self.waiting);
        let turn = self.turns.acquire().await.map_err(|_| Stop::Shutdown)?;
        drop(waiting);
        let found = {
            let mut idle = self.idle.borrow_mut();
            idle.retain(|idle| !idle.connection.is_closed());
            let at = idle.iter().rposition(|idle| !self.is_cluster() || idle.stream == record.stream);
            at.map(|at| idle.remove(at))
        };
        let stream = record.stream.clone();
        if let Some(Idle { connection, abilities, .. }) = found {
            return Ok(Lease { pool: self, stream, connection, abilities, _turn: turn });
        }
        loop {
            let mut connector = match self.is_cluster() {
                true => self.connector.for_stream(&record.stream, self.health.clone()),
                false => self.connector.clone(),
            };
            let mut connection = connector.connect().await?;
            match Abilities::try_out(&mut connection, record, true).await {
                Ok(abilities) => return Ok(Lease { pool: self, stream, connection, abilities, _turn: turn }),
                Err(Interrupt::Failure(failure)) => return Err(failure.into()),
                Err(Interrupt::Redis(error)) => connector.lost(&error),
                Err(_) => return Err(Failure::failed(Changed::RecordLost.to_string()).into()),
            }
        }
    }
}

/// How long a connection is used while others wait for one.
const SLICE: Duration = Duration::from_millis(10);

/// The time with a connection.
#[derive(Debug)]
pub(crate) struct Turn {
    pool: Rc<Pool>,
    until: Instant,
}

impl Turn {
    /// Begins now.
    pub(crate) fn new(pool: Rc<Pool>) -> Self {
        Self { pool, until: Instant::now() + SLICE }
    }

    /// Whether the connection is to be given back, for somebody who waits for one.
    pub(crate) fn is_over(&self) -> bool {
        self.pool.is_wanted() && Instant::now() >= self.until
    }
}

impl Lease<'_> {
    /// Gives the connection back. Nothing of the work with it may be on the wire.
    pub(crate) fn give_back(self) {
        let Self { pool, stream, connection, abilities, _turn } = self;
        let mut idle = pool.idle.borrow_mut();
        if idle.len() >= CONNECTIONS {
            idle.remove(0);
        }
        idle.push(Idle { stream, connection, abilities });
    }
}

/// Counts one who waits.
struct Waiting<'c>(&'c Cell<usize>);

impl<'c> Waiting<'c> {
    fn new(count: &'c Cell<usize>) -> Self {
        count.set(count.get() + 1);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}
