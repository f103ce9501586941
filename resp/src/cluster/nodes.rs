//! The nodes of a cluster, with a connection to each and the slot map.
//! [`ClusterClient`](super::ClusterClient) owns it.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::retries::TimeLimit;
use super::shared_attempt::SharedAttempt;

use crate::client::{Client, ClientOptions, EncodedCommands};
use crate::config::{Config, Endpoint};
use crate::discovery::{self, Discovery, Topology};
use crate::{Error, Frame, Routing, Sent, error};

/// The minimum time between two refreshes of the topology.
const BETWEEN: Duration = Duration::from_millis(100);

/// A connection that the first caller creates and all callers share.
enum Link {
    Connecting(SharedAttempt<Client>),
    Connected(Client),
}

/// A node, and whether the connection is for reads from a replica. A replica may be promoted and
/// demoted again, so a command for the master must not use the connection for reads.
type Target = (Endpoint, bool);

pub(super) struct Nodes {
    discovery: Discovery,
    seeds: Vec<Endpoint>,
    state: Mutex<State>,
    /// The next node for commands that may go anywhere.
    round_robin: AtomicUsize,
}

#[derive(Default)]
struct State {
    topology: Topology,
    /// Counts refreshes of the topology.
    version: u64,
    /// The refresh in progress, and the time of the last one.
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

    /// Returns how often the topology was refreshed.
    pub(super) fn version(&self) -> u64 {
        self.lock().version
    }

    pub(super) fn all(&self) -> Vec<Endpoint> {
        self.lock().topology.masters().to_vec()
    }

    pub(super) fn all_replicas(&self) -> Vec<Endpoint> {
        self.lock().topology.replicas().cloned().collect()
    }

    /// Returns a replica of the slot's owner, in round-robin order.
    pub(super) fn replica(&self, routing: Routing) -> Option<Endpoint> {
        let Routing::Slot(slot) = routing else { return None };
        let state = self.lock();
        let replicas = state.topology.replicas_of(slot);
        let next = self.round_robin.fetch_add(1, Ordering::Relaxed);
        replicas.get(next.checked_rem(replicas.len())?).cloned()
    }

    /// Returns the slots that a node owns.
    pub(super) fn slots_of(&self, node: &Endpoint) -> Vec<u16> {
        self.lock().topology.slots_of(node).collect()
    }

    /// Returns the node for a command.
    pub(super) fn owner(&self, routing: Routing) -> Option<Endpoint> {
        let state = self.lock();
        match routing {
            Routing::Slot(slot) => state.topology.owner(slot).cloned(),
            Routing::Anywhere | Routing::OneNode | Routing::CrossSlot => {
                let nodes = state.topology.masters();
                let next = self.round_robin.fetch_add(1, Ordering::Relaxed);
                nodes.get(next.checked_rem(nodes.len())?).cloned()
            }
        }
    }

    /// Records that a slot has moved.
    pub(super) fn moved(&self, slot: u16, to: &Endpoint) {
        self.lock().topology.set_owner(slot, to);
    }

    /// Sends commands to a node, and waits for their replies.
    pub(super) async fn exchange(
        self: &Arc<Self>,
        node: &Endpoint,
        commands: &EncodedCommands<'_>,
        time_limit: TimeLimit,
    ) -> Result<Vec<Frame>, Error> {
        self.exchange_with(&(node.clone(), false), commands, time_limit).await
    }

    /// Sends commands to a replica, which answers reads.
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
        let at = |error: Error| error.at_server(&format!("node {}", self.config().shown_server(&target.0)));
        let client = match self.connected(target) {
            Some(client) => client,
            None => time_limit.within(self.connect(target)).await.map_err(|error| at(error.with_sent(Sent::No)))?,
        };
        // A connected client enforces the full time limit itself.
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

    /// Redacts replies that may be redirects which are not followed.
    pub(super) fn redact(&self, replies: Vec<Frame>) -> Vec<Frame> {
        replies.into_iter().map(|reply| self.redact_one(reply)).collect()
    }

    /// Redacts a reply that may be a redirect which is not followed.
    pub(super) fn redact_one(&self, reply: Frame) -> Frame {
        if reply.kind().is_error() { error::redact_frame(reply, &self.config().secrets()) } else { reply }
    }

    /// Returns the error of a redirect that was not followed.
    pub(super) fn error_of(&self, reply: &Frame) -> Error {
        Error::server(reply.value()).redact(&self.config().secrets())
    }

    /// Returns the connection to a node, if there is one.
    fn connected(&self, target: &Target) -> Option<Client> {
        match self.lock().links.get(target)? {
            Link::Connected(client) => Some(client.clone()),
            Link::Connecting(_) => None,
        }
    }

    /// Connects to a node. Only one attempt runs at a time; other callers wait for its result.
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

    /// Makes one attempt to connect, and stores the connection.
    async fn attempt(self: Arc<Self>, target: Target) -> Result<Client, Error> {
        let (node, as_replica) = &target;
        let config = self.config().clone().with_endpoint(node.clone());
        let outcome = ClientOptions::new(config).once(*as_replica).connect().await;
        let mut state = self.lock();
        // The node may have left the cluster meanwhile.
        if matches!(state.links.get(&target), Some(Link::Connecting(_))) {
            match &outcome {
                Ok(client) => state.links.insert(target, Link::Connected(client.clone())),
                Err(_) => state.links.remove(&target),
            };
        }
        drop(state);
        outcome
    }

    /// Removes a dead connection; the next command makes another.
    fn forget(&self, target: &Target, client: &Client) {
        let mut state = self.lock();
        if matches!(state.links.get(target), Some(Link::Connected(known)) if known.is(client)) {
            state.links.remove(target);
        }
    }

    /// Refreshes the topology, unless it was refreshed since `version`. Only one refresh runs at a
    /// time.
    pub(super) async fn refresh(self: &Arc<Self>, version: u64) -> Result<(), Error> {
        match self.learning(version) {
            Some(attempt) => attempt.outcome().await,
            None => Ok(()),
        }
    }

    /// Returns the refresh in progress, or starts one.
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
        let there: HashSet<_> = topology.masters().iter().chain(topology.replicas()).collect();
        state.links.retain(|(node, _), _| there.contains(node));
        state.topology = topology;
        state.version = state.version.wrapping_add(1);
        Ok(())
    }

    /// Refreshes the topology. If no node answers, the known one stays.
    pub(super) async fn refresh_quietly(self: &Arc<Self>, version: u64, mut time_limit: TimeLimit) {
        let _ = time_limit.within(self.refresh(version)).await;
    }

    /// Starts a refresh without waiting for it.
    pub(super) fn refresh_behind(self: &Arc<Self>, version: u64) {
        self.learning(version);
    }
}
