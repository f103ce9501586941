//! A few connections to each node of Redis for many sources. A source with something to do takes
//! one, in the order of asking, and gives it back when nothing is on the wire.

use crate::error::Interrupt;
use crate::redis::Abilities;
use delivery::producer::Changed;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use resp::{Connection, Error, Frame, cmd};
use service::{Connector, Failure, Health, Node, Nodes, SourceRecord, Stop};
use std::cell::{Cell, RefCell};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How many connections a node has at most.
pub(crate) const CONNECTIONS: usize = 8;
/// A node that cannot be connected to for this long is unreachable.
const AWAY: Duration = Duration::from_secs(1);
/// How often the connection that watches a node is tried.
const PING: Duration = Duration::from_secs(2);
/// How soon a connection is tried again on which the first commands failed.
const AGAIN: Duration = Duration::from_millis(50);

/// The connections to all nodes.
#[derive(Debug)]
pub(crate) struct Pool {
    nodes: Nodes<NodePool>,
    /// How often a node of a cluster came, left or returned: it may have lost something.
    losses: Cell<u64>,
}

/// The connections to one node: to a master of a cluster, or to the only server.
#[derive(Debug)]
pub(crate) struct NodePool {
    node: Node,
    idle: RefCell<Vec<Idle>>,
    turns: Arc<Semaphore>,
    waiting: Cell<usize>,
    is_away: Cell<bool>,
}

#[derive(Debug)]
struct Idle {
    connection: Connection,
    abilities: Abilities,
}

/// A connection that was taken. It returns to the pool with [`Lease::give_back`], and is closed
/// when it is dropped.
#[derive(Debug)]
pub(crate) struct Lease {
    pub(crate) pool: Rc<NodePool>,
    pub(crate) connection: Connection,
    pub(crate) abilities: Abilities,
    _turn: OwnedSemaphorePermit,
}

impl Pool {
    pub(crate) fn new(connector: &Connector, health: &Health) -> Self {
        Self { nodes: Nodes::new(connector, health, NodePool::new), losses: Cell::new(0) }
    }

    /// Whether Redis is a cluster.
    pub(crate) const fn is_cluster(&self) -> bool {
        self.nodes.is_cluster()
    }

    /// Follows the changes of a cluster and watches its nodes, as long as it is polled.
    pub(crate) async fn follow(&self) {
        if !self.is_cluster() {
            return std::future::pending().await;
        }
        let watching = async {
            let mut known: Vec<Rc<NodePool>> = Vec::new();
            let mut watched = FuturesUnordered::new();
            loop {
                let nodes = self.nodes.all();
                for node in nodes.iter().filter(|node| !known.iter().any(|one| Rc::ptr_eq(one, node))) {
                    watched.push(self.watch(Rc::clone(node)));
                }
                known = nodes;
                tokio::select! {
                    _ = watched.next(), if !watched.is_empty() => {}
                    () = self.nodes.changed() => self.count_loss(),
                }
            }
        };
        tokio::select! {
            () = self.nodes.follow() => {}
            () = watching => {}
        }
    }

    /// Watches a node until it leaves the cluster.
    async fn watch(&self, node: Rc<NodePool>) {
        let watching = async {
            let mut connector = node.node.connector();
            loop {
                let connected = {
                    let mut connecting = pin!(connector.connect());
                    tokio::select! {
                        connected = &mut connecting => connected,
                        () = tokio::time::sleep(AWAY) => {
                            node.is_away.set(true);
                            connecting.await
                        }
                    }
                };
                // It stops.
                let Ok(mut connection) = connected else { return std::future::pending().await };
                node.is_away.set(false);
                self.count_loss();
                let error = loop {
                    tokio::time::sleep(PING).await;
                    if let Err(error) = connection.send(&cmd::<Frame>("PING")).await {
                        break error;
                    }
                };
                connector.lost(&error);
                self.nodes.suspect(&error);
            }
        };
        tokio::select! {
            () = watching => {}
            () = self.nodes.left(&node) => {}
        }
    }

    /// Waits until a node is known.
    pub(crate) async fn known(&self) {
        self.nodes.known().await;
    }

    /// The node that has a stream.
    pub(crate) fn of(&self, stream: &str) -> Rc<NodePool> {
        self.nodes.of(stream)
    }

    /// Waits for a connection to the node that has the stream of this record.
    pub(crate) async fn take(&self, record: &SourceRecord) -> Result<Lease, Stop> {
        let take = async |node: Rc<NodePool>| node.take(record, &self.nodes).await;
        self.nodes.at(&record.stream, take).await
    }

    /// How often a node of a cluster came, left or returned.
    pub(crate) fn losses(&self) -> u64 {
        self.losses.get()
    }

    /// An error of the work with a node.
    pub(crate) fn failed(&self, error: &Error) {
        self.nodes.suspect(error);
    }

    fn count_loss(&self) {
        self.losses.set(self.losses.get().saturating_add(1));
    }
}

impl NodePool {
    fn new(node: Node) -> Self {
        Self {
            node,
            idle: RefCell::default(),
            turns: Arc::new(Semaphore::new(CONNECTIONS)),
            waiting: Cell::new(0),
            is_away: Cell::new(false),
        }
    }

    /// Whether somebody waits for a connection.
    pub(crate) fn is_wanted(&self) -> bool {
        self.waiting.get() > 0
    }

    /// Whether it cannot be connected to.
    pub(crate) const fn is_away(&self) -> bool {
        self.is_away.get()
    }

    async fn take(self: Rc<Self>, record: &SourceRecord, nodes: &Nodes<Self>) -> Result<Lease, Stop> {
        let waiting = Waiting::new(&self.waiting);
        let turn = Arc::clone(&self.turns).acquire_owned().await.map_err(|_| Stop::Shutdown)?;
        drop(waiting);
        let found = {
            let mut idle = self.idle.borrow_mut();
            idle.retain(|idle| !idle.connection.is_closed());
            idle.pop()
        };
        if let Some(Idle { connection, abilities }) = found {
            return Ok(Lease { pool: self, connection, abilities, _turn: turn });
        }
        loop {
            let mut connector = self.node.connector();
            let mut connection = connector.connect().await?;
            match Abilities::try_out(&mut connection, record, true).await {
                Ok(abilities) => return Ok(Lease { pool: self, connection, abilities, _turn: turn }),
                Err(Interrupt::Failure(failure)) => return Err(failure.into()),
                Err(Interrupt::Redis(error)) => {
                    connector.lost(&error);
                    nodes.suspect(&error);
                    tokio::time::sleep(AGAIN).await;
                }
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
    pool: Rc<NodePool>,
    begun: Instant,
}

impl Turn {
    /// Begins now.
    pub(crate) fn new(pool: Rc<NodePool>) -> Self {
        Self { pool, begun: Instant::now() }
    }

    /// Whether the connection is to be given back, for somebody who waits for one.
    pub(crate) fn is_over(&self) -> bool {
        self.pool.is_wanted() && self.begun.elapsed() >= SLICE
    }
}

impl Lease {
    /// Gives the connection back. Nothing of the work with it may be on the wire.
    pub(crate) fn give_back(self) {
        let Self { pool, connection, abilities, _turn } = self;
        pool.idle.borrow_mut().push(Idle { connection, abilities });
    }
}

/// Counts one who waits.
struct Waiting<'c>(&'c Cell<usize>);

impl<'c> Waiting<'c> {
    fn new(count: &'c Cell<usize>) -> Self {
        count.set(count.get().saturating_add(1));
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}
