//! The nodes, a connection to each, and what is known of their slots.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::attempts::Patience;
use super::shared::Attempt;
use super::topology::Topology;
use super::{Routing, owner};
use crate::client::{Client, ClientOptions, Parcel};
use crate::config::{Config, Endpoint};
use crate::{Error, Frame, Sent, turn};

/// The cluster is asked at most so often who has which slot.
const BETWEEN: Duration = Duration::from_millis(100);

/// A connection that is made when it is first needed, for all who need it then.
enum Link {
    Connecting(Attempt<Client>),
    Connected(Client),
}

pub(super) struct Nodes {
    config: Config,
    seeds: Vec<Endpoint>,
    state: Mutex<State>,
    /// Whose turn it is with commands that go anywhere.
    turn: AtomicUsize,
}

#[derive(Default)]
struct State {
    topology: Topology,
    /// Counts how often it was learned.
    version: u64,
    /// One asks at a time; when it was last done.
    learning: Option<Attempt<()>>,
    learned: Option<Instant>,
    links: HashMap<Endpoint, Link>,
}

impl Nodes {
    pub(super) fn new(config: Config, seeds: Vec<Endpoint>) -> Self {
        Self { config, seeds, state: Mutex::default(), turn: AtomicUsize::new(0) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) const fn config(&self) -> &Config {
        &self.config
    }

    /// How often it was learned who has which slot.
    pub(super) fn version(&self) -> u64 {
        self.lock().version
    }

    pub(super) fn all(&self) -> Vec<Endpoint> {
        self.lock().topology.nodes().to_vec()
    }

    /// Where a command goes.
    pub(super) fn owner(&self, routing: Routing) -> Option<Endpoint> {
        let state = self.lock();
        match routing {
            Routing::Slot(slot) => state.topology.owner(slot).cloned(),
            Routing::Anywhere | Routing::CrossSlot => {
                let nodes = state.topology.nodes();
                let turn = self.turn.fetch_add(1, Ordering::Relaxed);
                nodes.get(turn % nodes.len().max(1)).cloned()
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
        parcel: &Parcel<'_>,
        mut patience: Patience,
    ) -> Result<Vec<Frame>, Error> {
        let at = |error: Error| error.at(&format!("node {node}"));
        let client = match self.connected(node) {
            Some(client) => client,
            None => patience.within(self.connect(node)).await.map_err(|error| at(error.with_sent(Sent::No)))?,
        };
        // A connection that is there keeps the time itself, as long as none has been spent.
        match client.exchange(parcel, patience.deadline()).await {
            Ok(frames) => Ok(frames.collect()),
            Err(error) => {
                if client.has_ended() {
                    self.forget(node, &client);
                }
                Err(at(error))
            }
        }
    }

    /// The connection to a node, if there is one.
    fn connected(&self, node: &Endpoint) -> Option<Client> {
        match self.lock().links.get(node)? {
            Link::Connected(client) => Some(client.clone()),
            Link::Connecting(_) => None,
        }
    }

    /// Connects to a node. One attempt is made at a time, and who comes meanwhile waits for its outcome.
    async fn connect(self: &Arc<Self>, node: &Endpoint) -> Result<Client, Error> {
        let attempt = {
            let mut state = self.lock();
            match state.links.get(node) {
                Some(Link::Connected(client)) => return Ok(client.clone()),
                Some(Link::Connecting(attempt)) if attempt.is_running() => attempt.clone(),
                _ => {
                    let attempt = Attempt::begin(Arc::clone(self).attempt(node.clone()));
                    state.links.insert(node.clone(), Link::Connecting(attempt.clone()));
                    attempt
                }
            }
        };
        attempt.outcome().await
    }

    /// One attempt to connect, which leaves the connection to those who come later.
    async fn attempt(self: Arc<Self>, node: Endpoint) -> Result<Client, Error> {
        let config = Config { endpoint: node.clone(), key: None, ..self.config.clone() };
        let outcome = ClientOptions::new(config).once().connect().await;
        let mut state = self.lock();
        // The node may be gone from the cluster meanwhile.
        if matches!(state.links.get(&node), Some(Link::Connecting(_))) {
            match &outcome {
                Ok(client) => state.links.insert(node, Link::Connected(client.clone())),
                Err(_) => state.links.remove(&node),
            };
        }
        drop(state);
        outcome
    }

    /// A connection that is of no more use; the next command makes another.
    fn forget(&self, node: &Endpoint, client: &Client) {
        let mut state = self.lock();
        if matches!(state.links.get(node), Some(Link::Connected(known)) if known.is(client)) {
            state.links.remove(node);
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
    fn learning(self: &Arc<Self>, version: u64) -> Option<Attempt<()>> {
        let mut state = self.lock();
        if state.version != version {
            return None;
        }
        let running = state.learning.take().filter(Attempt::is_running);
        let attempt = running.unwrap_or_else(|| Attempt::begin(Arc::clone(self).learn(state.learned)));
        state.learning = Some(attempt.clone());
        Some(attempt)
    }

    async fn learn(self: Arc<Self>, last: Option<Instant>) -> Result<(), Error> {
        if let Some(last) = last {
            tokio::time::sleep(BETWEEN.saturating_sub(last.elapsed())).await;
        }
        let deadline = turn::deadline(self.config.connect_timeout);
        let learned = owner::topology(&self.config, &self.seeds, deadline).await;
        let mut state = self.lock();
        state.learning = None;
        state.learned = Some(Instant::now());
        let topology = learned?;
        state.links.retain(|node, _| topology.nodes().contains(node));
        state.topology = topology;
        state.version += 1;
        Ok(())
    }

    /// The same, and when nobody answers, what is known stays.
    pub(super) async fn refresh_quietly(self: &Arc<Self>, version: u64, mut patience: Patience) {
        let _ = patience.within(self.refresh(version)).await;
    }

    /// The same, and nobody waits for it.
    pub(super) fn refresh_behind(self: &Arc<Self>, version: u64) {
        self.learning(version);
    }
}
