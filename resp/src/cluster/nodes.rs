//! The nodes, a connection to each, and what is known of their slots.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::retries::TimeLimit;
use super::shared_attempt::SharedAttempt;

use crate::client::{Client, ClientOptions, EncodedCommands};
use crate::config::{Config, Endpoint};
use crate::discovery::{self, Discovery, Topology};
use crate::{Error, Frame, Routing, Sent};

/// The cluster is asked at most so often who has which slot.
const BETWEEN: Duration = Duration::from_millis(100);

/// A connection that is made when it is first needed, for all who need it then.
enum Link {
    Connecting(SharedAttempt<Client>),
    Connected(Client),
}

/// A node, and whether it is to answer reads as a replica. That is a property of a connection, and
/// when the replica is promoted and demoted again, a command to the master must not be answered by
/// it.
type Target = (Endpoint, bool);

pub(super) struct Nodes {
    discovery: Discovery,
    seeds: Vec<Endpoint>,
    state: Mutex<State>,
    /// Whose turn it is with commands that go anywhere.
    round_robin: AtomicUsize,
}

#[derive(Default)]
struct State {
    topology: Topology,
    /// Counts how often it was learned.
    version: u64,
    /// One asks at a time; when it was last done.
    learning: Option<SharedAttempt<()>>,
    learned: Option<Instant>,
    links: HashMap<Target, Link>,
}

impl Nodes {
    pub(super) fn new(config: Config, seeds: Vec<Endpoint>) -> Self {
        Self { discovery: Discovery::new(config), seeds, state: Mutex::default(), round_robin: AtomicUsize::new(0) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) const fn config(&self) -> &Config {
        self.discovery.config()
    }

    pub(super) const fn discovery(&self) -> &Discovery {
        &self.discovery
    }

    /// How often it was learned who has which slot.
    pub(super) fn version(&self) -> u64 {
        self.lock().version
    }

    pub(super) fn all(&self) -> Vec<Endpoint> {
        self.lock().topology.nodes().to_vec()
    }

    pub(super) fn all_replicas(&self) -> Vec<Endpoint> {
        self.lock().topology.replicas().cloned().collect()
    }

    /// A replica of the node that has a slot, each in its turn.
    pub(super) fn replica(&self, routing: Routing) -> Option<Endpoint> {
        let Routing::Slot(slot) = routing else { return None };
        let state = self.lock();
        let replicas = state.topology.replicas_of(slot);
        let next = self.round_robin.fetch_add(1, Ordering::Relaxed);
        replicas.get(next.checked_rem(replicas.len())?).cloned()
    }

    /// The slots that a node has.
    pub(super) fn slots_of(&self, node: &Endpoint) -> Vec<u16> {
        self.lock().topology.slots_of(node).collect()
    }

    /// Where a command goes.
    pub(super) fn owner(&self, routing: Routing) -> Option<Endpoint> {
        let state = self.lock();
        match routing {
            Routing::Slot(slot) => state.topology.owner(slot).cloned(),
            Routing::Anywhere | Routing::OneNode | Routing::CrossSlot => {
                let nodes = state.topology.nodes();
                let next = self.round_robin.fetch_add(1, Ordering::Relaxed);
                nodes.get(next.checked_rem(nodes.len())?).cloned()
            }
        }
    }

    /// A node has said where a slot is now.
    pub(super) fn moved(&self, slot: u16, to: &Endpoint) {
        self.lock().topology.set_owner(slot, to);
    }

    /// Sends a piece to a node, and waits for its replies.
    pub(super) async fn exchange(
        self: &Arc<Self>,
        node: &Endpoint,
        commands: &EncodedCommands<'_>,
        time_limit: TimeLimit,
    ) -> Result<Vec<Frame>, Error> {
        self.exchange_with(&(node.clone(), false), commands, time_limit).await
    }

    /// The same with a replica, which answers reads.
    pub(super) async fn exchange_with_replica(
        self: &Arc<Self>,
        node: &Endpoint,
        commands: &EncodedCommands<'_>,
        time_limit: TimeLimit,
    ) -> Result<Vec<Frame>, Error> {
        self.exchange_with(&(node.clone(), true), commands, time_limit).await
    }

    async fn exchange_with(
        self: &Arc<Self>,
        target: &Target,
        commands: &EncodedCommands<'_>,
        mut time_limit: TimeLimit,
    ) -> Result<Vec<Frame>, Error> {
        let at = |error: Error| error.at_server(&format!("node {}", target.0));
        let client = match self.connected(target) {
            Some(client) => client,
            None => time_limit.within(self.connect(target)).await.map_err(|error| at(error.with_sent(Sent::No)))?,
        };
        // A connection that is there keeps the time itself, as long as none has been spent.
        match client.exchange(commands, time_limit.deadline()).await {
            Ok(frames) => Ok(frames.collect()),
            Err(error) => {
                if client.has_ended() {
                    self.forget(target, &client);
                }
                Err(at(error))
            }
        }
    }

    /// The connection to a node, if there is one.
    fn connected(&self, target: &Target) -> Option<Client> {
        match self.lock().links.get(target)? {
            Link::Connected(client) => Some(client.clone()),
            Link::Connecting(_) => None,
        }
    }

    /// Connects to a node. One attempt is made at a time, and who comes meanwhile waits for its
    /// outcome.
    async fn connect(self: &Arc<Self>, target: &Target) -> Result<Client, Error> {
        let attempt = {
            let mut state = self.lock();
            match state.links.get(target) {
                Some(Link::Connected(client)) => return Ok(client.clone()),
                Some(Link::Connecting(attempt)) if attempt.is_running() => attempt.clone(),
                _ => {
                    let attempt = SharedAttempt::begin(Arc::clone(self).attempt(target.clone()));
                    state.links.insert(target.clone(), Link::Connecting(attempt.clone()));
                    attempt
                }
            }
        };
        attempt.outcome().await
    }

    /// One attempt to connect, which leaves the connection to those who come later.
    async fn attempt(self: Arc<Self>, target: Target) -> Result<Client, Error> {
        let (node, as_replica) = &target;
        let config = self.config().clone().with_endpoint(node.clone());
        let outcome = ClientOptions::new(config).once(*as_replica).connect().await;
        let mut state = self.lock();
        // The node may be gone from the cluster meanwhile.
        if matches!(state.links.get(&target), Some(Link::Connecting(_))) {
            match &outcome {
                Ok(client) => state.links.insert(target, Link::Connected(client.clone())),
                Err(_) => state.links.remove(&target),
            };
        }
        drop(state);
        outcome
    }

    /// A connection that is of no more use; the next command makes another.
    fn forget(&self, target: &Target, client: &Client) {
        let mut state = self.lock();
        if matches!(state.links.get(target), Some(Link::Connected(known)) if known.is(client)) {
            state.links.remove(target);
        }
    }

    /// Learns who has which slot, unless that was done since `version`. One asks for all.
    pub(super) async fn refresh(self: &Arc<Self>, version: u64) -> Result<(), Error> {
        match self.learning(version) {
            Some(attempt) => attempt.outcome().await,
            None => Ok(()),
        }
    }

    /// The attempt to learn it that is under way, or a new one.
    fn learning(self: &Arc<Self>, version: u64) -> Option<SharedAttempt<()>> {
        let mut state = self.lock();
        if state.version != version {
            return None;
        }
        let running = state.learning.take().filter(SharedAttempt::is_running);
        let attempt = running.unwrap_or_else(|| SharedAttempt::begin(Arc::clone(self).learn(state.learned)));
        state.learning = Some(attempt.clone());
        Some(attempt)
    }

    async fn learn(self: Arc<Self>, last: Option<Instant>) -> Result<(), Error> {
        if let Some(last) = last {
            tokio::time::sleep(BETWEEN.saturating_sub(last.elapsed())).await;
        }
        let deadline = discovery::deadline(self.config().connect_timeout);
        let learned = discovery::topology(&self.discovery, &self.seeds, deadline).await;
        let mut state = self.lock();
        state.learning = None;
        state.learned = Some(Instant::now());
        let topology = learned?;
        let there: HashSet<_> = topology.nodes().iter().chain(topology.replicas()).collect();
        state.links.retain(|(node, _), _| there.contains(node));
        state.topology = topology;
        state.version = state.version.wrapping_add(1);
        Ok(())
    }

    /// The same, and when nobody answers, what is known stays.
    pub(super) async fn refresh_quietly(self: &Arc<Self>, version: u64, mut time_limit: TimeLimit) {
        let _ = time_limit.within(self.refresh(version)).await;
    }

    /// The same, and nobody waits for it.
    pub(super) fn refresh_behind(self: &Arc<Self>, version: u64) {
        self.learning(version);
    }
}
