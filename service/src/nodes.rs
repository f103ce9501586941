//! The masters of a Redis Cluster, and which of them has a key. Any other Redis is a single node
//! that has all keys.
//!
//! A service with many sources keeps something for each node, such as a pool of connections, so
//! that an unreachable node delays only its own sources.

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Shutdown;
    use bytes::Bytes;
    use resp::testing::{Script, ScriptedServer, reply};
    use resp::{Config, Discovery};

    /// The topologies of a cluster, one after the other: each is a list of masters, with the last
    /// slot of each.
    struct Cluster(Discovery);

    impl Cluster {
        fn new(topologies: &[&[(&str, i64)]]) -> Self {
            let script = |masters: &&[(&str, i64)]| Script::new().on_name("CLUSTER SHARDS", shards(masters));
            let server = ScriptedServer::new(topologies.iter().map(script));
            let seeds = Config::from_url("redis-cluster://seed:1").unwrap();
            Self(Discovery::new(server.at(seeds.endpoint().clone())))
        }

        async fn next(&self) -> Topology {
            self.0.topology().await.unwrap()
        }

        fn nodes(&self, health: &Health) -> Nodes<Node> {
            let config = self.0.config().clone();
            Nodes::new(&Connector::new(config, String::new(), health.clone(), Shutdown::new()), health, |node| node)
        }
    }

    fn shards(masters: &[(&str, i64)]) -> Bytes {
        let mut first = 0;
        reply::array(masters.iter().map(|(name, last)| {
            let slots = reply::array([reply::integer(std::mem::replace(&mut first, last + 1)), reply::integer(*last)]);
            let node = reply::map([
                reply::bulk("port"),
                reply::integer(6379),
                reply::bulk("endpoint"),
                reply::bulk(name),
                reply::bulk("role"),
                reply::bulk("master"),
                reply::bulk("health"),
                reply::bulk("online"),
            ]);
            reply::map([reply::bulk("slots"), slots, reply::bulk("nodes"), reply::array([node])])
        }))
    }

    /// A key whose slot this master has.
    fn key_of(topology: &Topology, master: &str) -> String {
        let is_owner = |key: &String| topology.owner_of(key).is_some_and(|owner| owner.to_string().contains(master));
        (0..100).map(|nth| nth.to_string()).find(is_owner).unwrap()
    }

    async fn is_done<R>(work: impl Future<Output = R>) -> Option<R> {
        tokio::time::timeout(Duration::ZERO, work).await.ok()
    }

    const HALVES: &[(&str, i64)] = &[("one", 8191), ("two", 16383)];

    #[tokio::test]
    async fn a_key_is_with_its_master_and_a_node_stays_as_long_as_it_is_one() {
        let cluster = Cluster::new(&[HALVES, &[("two", 16383)]]);
        let nodes = cluster.nodes(&Health::new());
        assert!(nodes.is_cluster() && nodes.all().is_empty());
        assert!(is_done(nodes.known()).await.is_none());
        assert!(Rc::ptr_eq(&nodes.of("k"), nodes.rest()), "before a master is known");

        let halves = cluster.next().await;
        let (first, second) = (key_of(&halves, "one"), key_of(&halves, "two"));
        nodes.learn(halves);
        assert!(is_done(nodes.known()).await.is_some());
        let (one, two) = (nodes.of(&first), nodes.of(&second));
        assert!(!Rc::ptr_eq(&one, &two) && !Rc::ptr_eq(&one, nodes.rest()));
        assert_eq!(nodes.all().len(), 2);
        assert!(is_done(nodes.left(&one)).await.is_none());

        nodes.learn(cluster.next().await);
        assert!(Rc::ptr_eq(&nodes.of(&first), &two) && Rc::ptr_eq(&nodes.of(&second), &two));
        assert!(is_done(nodes.left(&one)).await.is_some() && is_done(nodes.left(&two)).await.is_none());
    }

    #[tokio::test]
    async fn work_moves_with_its_key() {
        let cluster = Cluster::new(&[HALVES, &[("two", 16383)]]);
        let nodes = cluster.nodes(&Health::new());
        let halves = cluster.next().await;
        let (first, second) = (key_of(&halves, "one"), key_of(&halves, "two"));
        nodes.learn(halves);
        let (one, two) = (nodes.of(&first), nodes.of(&second));
        let begun = Cell::new(0);
        let work = nodes.at(&first, async |node: Rc<Node>| {
            begun.set(begun.get() + 1);
            if Rc::ptr_eq(&node, &one) { std::future::pending().await } else { node }
        });
        let mut work = std::pin::pin!(work);
        assert!(is_done(&mut work).await.is_none());
        nodes.learn(cluster.next().await);
        let done = is_done(&mut work).await.unwrap();
        assert!(Rc::ptr_eq(&done, &two));
        assert_eq!(begun.get(), 2);
    }

    #[tokio::test]
    async fn a_master_that_left_is_no_fault_any_more() {
        let cluster = Cluster::new(&[HALVES, &[("two", 16383)]]);
        let health = Health::new();
        health.redis(Ok(()));
        health.file(Ok(()));
        let nodes = cluster.nodes(&health);
        let halves = cluster.next().await;
        let first = key_of(&halves, "one");
        nodes.learn(halves);
        nodes.of(&first).health().redis_fails("work", "away".to_owned());
        let why = health.ready().unwrap_err();
        assert!(why.contains("node one:6379: away"), "{why}");
        nodes.learn(cluster.next().await);
        assert_eq!(health.ready(), Ok(()));
    }
}
