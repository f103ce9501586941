//! The nodes, a connection to each, and what is known of their slots.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::OnceCell;

use super::topology::Topology;
use super::{Parcel, Routing, owner};
use crate::client::{Client, ClientOptions};
use crate::config::{Config, Endpoint};
use crate::{Error, Frame, Sent};

/// The cluster is asked at most so often who has which slot.
const BETWEEN: Duration = Duration::from_millis(100);

/// A connection that is made when it is first needed, by the first who needs it.
type Lazy = Arc<OnceCell<Client>>;

pub(super) struct Nodes {
    config: Config,
    seeds: Vec<Endpoint>,
    state: Mutex<State>,
    /// One asks at a time; when it was last done.
    asking: tokio::sync::Mutex<Option<Instant>>,
    /// Whose turn it is with commands that go anywhere.
    turn: AtomicUsize,
}

#[derive(Default)]
struct State {
    topology: Topology,
    /// Counts how often it was learned.
    version: u64,
    clients: HashMap<Endpoint, Lazy>,
}

impl Nodes {
    pub(super) fn new(config: Config, seeds: Vec<Endpoint>) -> Self {
        Self {
            config,
            seeds,
            state: Mutex::default(),
            asking: tokio::sync::Mutex::default(),
            turn: AtomicUsize::new(0),
        }
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
    pub(super) async fn exchange(&self, node: &Endpoint, parcel: &Parcel<'_>) -> Result<Vec<Frame>, Error> {
        let lazy = Arc::clone(self.lock().clients.entry(node.clone()).or_default());
        let sent = async {
            let client =
                lazy.get_or_try_init(|| self.connect(node)).await.map_err(|error| error.with_sent(Sent::No))?;
            client.exchange(parcel.encoded, parcel.replies, parcel.first).await
        };
        match sent.await {
            Ok(frames) => Ok(frames.collect()),
            Err(error) => {
                if error.closes_connection() {
                    self.forget(node, &lazy);
                }
                Err(error.at(&format!("node {node}")))
            }
        }
    }

    async fn connect(&self, node: &Endpoint) -> Result<Client, Error> {
        let config = Config { endpoint: node.clone(), key: None, ..self.config.clone() };
        ClientOptions::new(config).once().connect().await
    }

    /// A connection that is of no more use; the next command makes another.
    fn forget(&self, node: &Endpoint, lazy: &Lazy) {
        let mut state = self.lock();
        if state.clients.get(node).is_some_and(|known| Arc::ptr_eq(known, lazy)) {
            state.clients.remove(node);
        }
    }

    /// Learns who has which slot, unless that was done since `version`. One asks for all.
    pub(super) async fn refresh(&self, version: u64) -> Result<(), Error> {
        let mut asked = self.asking.lock().await;
        if self.version() != version {
            return Ok(());
        }
        if let Some(asked) = *asked {
            tokio::time::sleep(BETWEEN.saturating_sub(asked.elapsed())).await;
        }
        *asked = Some(Instant::now());
        let deadline = Instant::now() + self.config.connect_timeout;
        let topology = owner::topology(&self.config, &self.seeds, deadline).await?;
        let mut state = self.lock();
        state.clients.retain(|node, _| topology.has_node(node));
        state.topology = topology;
        state.version += 1;
        Ok(())
    }

    /// The same, and when nobody answers, what is known stays.
    pub(super) async fn refresh_quietly(&self, version: u64) {
        let _ = self.refresh(version).await;
    }

    /// The same, and nobody waits for it.
    pub(super) fn refresh_behind(self: &Arc<Self>, version: u64) {
        if self.asking.try_lock().is_ok() {
            let nodes = Arc::clone(self);
            tokio::spawn(async move { nodes.refresh_quietly(version).await });
        }
    }
}
