//! The masters of a Redis Cluster, and which of them has a key. Any other Redis is a single node
//! that has all keys.
//!
//! A service with many sources keeps something for each node, such as a pool of connections, so
//! that a node that is away holds up its own sources only.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use log::{debug, info};
use resp::{Endpoint, Error, ErrorKind, Topology};
use tokio::sync::Notify;

use crate::{Connector, Health};

/// How often the topology is queried.
const QUERY: Duration = Duration::from_secs(2);
/// How soon it is queried again when an error suggests that it has changed.
const AGAIN: Duration = Duration::from_millis(100);

/// One node: how to connect to it, and where to report its state.
#[derive(Debug)]
pub struct Node {
    connector: Connector,
    health: Health,
    is_of_cluster: bool,
}

impl Node {
    /// A connector for one more connection.
    #[must_use]
    pub fn connector(&self) -> Connector {
        self.connector.clone()
    }

    /// Where to report the state of the work with this node.
    #[must_use]
    pub const fn health(&self) -> &Health {
        &self.health
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if self.is_of_cluster {
            self.health.forget();
        }
    }
}

/// The nodes, with a `T` for each.
pub struct Nodes<T> {
    connector: Connector,
    health: Health,
    make: fn(Node) -> T,
    map: RefCell<Map<T>>,
    /// Serves the keys that no node is known to have: outside of a cluster, all of them.
    rest: Rc<T>,
    /// How many nodes were made.
    made: Cell<usize>,
    suspected: Notify,
    changed: Notify,
}

struct Map<T> {
    /// `None`: not known yet, or no cluster.
    topology: Option<Topology>,
    nodes: Vec<(Endpoint, Rc<T>)>,
}

impl<T> fmt::Debug for Nodes<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Nodes").field("connector", &self.connector).finish_non_exhaustive()
    }
}

impl<T> Nodes<T> {
    /// The nodes of the Redis that the connector leads to. In a cluster, none is known before
    /// [`Self::follow`] has learned of them.
    #[must_use]
    pub fn new(connector: &Connector, health: &Health, make: fn(Node) -> T) -> Self {
        let rest = Node { connector: connector.clone(), health: health.clone(), is_of_cluster: false };
        Self {
            connector: connector.clone(),
            health: health.clone(),
            make,
            map: RefCell::new(Map { topology: None, nodes: Vec::new() }),
            rest: Rc::new(make(rest)),
            made: Cell::new(0),
            suspected: Notify::new(),
            changed: Notify::new(),
        }
    }

    /// Whether Redis is a cluster.
    #[must_use]
    pub const fn is_cluster(&self) -> bool {
        matches!(self.connector.config().endpoint(), Endpoint::Cluster { .. })
    }

    /// The node that has a key.
    #[must_use]
    pub fn of(&self, key: &str) -> Rc<T> {
        let map = self.map.borrow();
        let owner = map.topology.as_ref().and_then(|topology| topology.owner_of(key));
        let found = owner.and_then(|owner| map.nodes.iter().find(|(address, _)| address == owner));
        Rc::clone(found.map_or(&self.rest, |(_, node)| node))
    }

    /// The node for keys that no other node is known to have.
    #[must_use]
    pub const fn rest(&self) -> &Rc<T> {
        &self.rest
    }

    /// All masters of the cluster, or the single node.
    #[must_use]
    pub fn all(&self) -> Vec<Rc<T>> {
        match self.is_cluster() {
            true => self.map.borrow().nodes.iter().map(|(_, node)| Rc::clone(node)).collect(),
            false => vec![Rc::clone(&self.rest)],
        }
    }

    /// Works with the node that has a key. If the key moves meanwhile, the work is dropped, and
    /// begun with the other node.
    pub async fn at<R>(&self, key: &str, work: impl AsyncFn(Rc<T>) -> R) -> R {
        loop {
            let node = self.of(key);
            tokio::select! {
                biased;
                done = work(Rc::clone(&node)) => return done,
                () = self.until(|nodes| !Rc::ptr_eq(&nodes.of(key), &node)) => {}
            }
        }
    }

    /// Waits until a master is known.
    pub async fn known(&self) {
        self.until(|nodes| !nodes.all().is_empty()).await;
    }

    /// Waits until this node is none of the masters any more.
    pub async fn left(&self, node: &Rc<T>) {
        self.until(|nodes| nodes.all().iter().all(|one| !Rc::ptr_eq(one, node))).await;
    }

    async fn until(&self, is_reached: impl Fn(&Self) -> bool) {
        loop {
            let changed = self.changed.notified();
            if is_reached(self) {
                return;
            }
            changed.await;
        }
    }

    /// Waits until keys may have moved.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Has the topology queried at once, if this error suggests that it has changed.
    pub fn suspect(&self, error: &Error) {
        if matches!(
            error.kind(),
            ErrorKind::Moved | ErrorKind::Ask | ErrorKind::ClusterDown | ErrorKind::MasterDown | ErrorKind::ReadOnly
        ) || !error.is_server()
        {
            self.suspected.notify_one();
        }
    }

    /// Follows the changes of a cluster, as long as it is polled.
    pub async fn follow(&self) {
        if !self.is_cluster() {
            return std::future::pending().await;
        }
        loop {
            match self.connector.topology().await {
                Ok(topology) => self.learn(topology),
                Err(error) => debug!("redis: {error}; the topology of the cluster stays as it was"),
            }
            tokio::time::sleep(AGAIN).await;
            tokio::select! {
                () = self.suspected.notified() => {}
                () = tokio::time::sleep(QUERY) => {}
            }
        }
    }

    fn learn(&self, topology: Topology) {
        let mut map = self.map.borrow_mut();
        if map.topology.as_ref() == Some(&topology) {
            return;
        }
        let mut known = std::mem::take(&mut map.nodes);
        let node = |address: &Endpoint| match known.iter().position(|(known, _)| known == address) {
            Some(at) => known.swap_remove(at),
            None => (address.clone(), Rc::new(self.make(address))),
        };
        map.nodes = topology.masters().iter().map(node).collect();
        map.topology = Some(topology);
        drop(map);
        for (address, _) in &known {
            info!("redis: node {address} is no master any more");
        }
        self.changed.notify_waiters();
    }

    fn make(&self, address: &Endpoint) -> T {
        info!("redis: node {address} is a master");
        let nth = self.made.get();
        self.made.set(nth.saturating_add(1));
        let health = self.health.for_node(nth, &address.to_string());
        let connector = self.connector.for_node(address, health.clone());
        (self.make)(Node { connector, health, is_of_cluster: true })
    }
}
