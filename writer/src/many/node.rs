//! One node of Redis: its connections, and the work that is done for all its sources together.
//!
//! A Redis Cluster has a node for each master, anything else is a single node. Nodes share nothing,
//! so one that is away holds up its own sources only.

use super::acknowledge::{self, Acknowledgements};
use super::connections::Connections;
use super::source::Source;
use super::{Shared, survey, waker};
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use service::Stop;
use std::cell::RefCell;
use std::rc::Rc;
use tokio::sync::Notify;

/// One node.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) connections: Rc<Connections>,
    pub(crate) acknowledgements: Acknowledgements,
    /// Sources that were parked since the waker last took them.
    parked: RefCell<Vec<Rc<Source>>>,
    pub(super) is_parked: Notify,
}

impl Node {
    pub(super) fn new(node: service::Node) -> Self {
        Self {
            connections: Connections::new(node),
            acknowledgements: Acknowledgements::default(),
            parked: RefCell::default(),
            is_parked: Notify::new(),
        }
    }

    /// A source of this node waits to be woken.
    pub(super) fn park(&self, source: &Rc<Source>) {
        self.parked.borrow_mut().push(Rc::clone(source));
        self.is_parked.notify_one();
    }

    /// The sources that were parked since the last call.
    pub(super) fn parked(&self) -> Vec<Rc<Source>> {
        self.parked.take()
    }
}

/// Works for the sources of all nodes, until it is dropped.
pub(super) async fn run(shared: &Shared<'_>) -> Result<(), Stop> {
    let mut known: Vec<Rc<Node>> = Vec::new();
    let mut served = FuturesUnordered::new();
    let serving = async {
        loop {
            let nodes = shared.nodes.all();
            for node in &nodes {
                if !known.iter().any(|one| Rc::ptr_eq(one, node)) {
                    served.push(serve(shared, Rc::clone(node)));
                }
            }
            known = nodes;
            tokio::select! {
                Some(ended) = served.next(), if !served.is_empty() => ended?,
                () = shared.nodes.changed() => {
                    acknowledge::hand_over(shared, shared.nodes.rest());
                    // Where they are now, nothing waits for them yet.
                    for source in shared.sources.all().filter(|source| source.parked.get().is_some()) {
                        shared.node_of(&source).park(&source);
                    }
                }
            }
        }
    };
    tokio::select! {
        ended = serving => ended,
        () = shared.nodes.follow() => Ok(()),
    }
}

/// Works for the sources of a node until it leaves the cluster. What it does outlives a request to
/// stop.
async fn serve(shared: &Shared<'_>, node: Rc<Node>) -> Result<(), Stop> {
    let beside = async { tokio::join!(goes_on(survey::run(shared, &node)), goes_on(waker::run(shared, &node))) };
    let acknowledging = async {
        let ended = acknowledge::run(shared, &node).await;
        node.acknowledgements.close();
        match ended {
            // The sources of other nodes are still acknowledged.
            Err(Stop::Shutdown) => std::future::pending().await,
            ended => ended,
        }
    };
    let ended = tokio::select! {
        ended = acknowledging => ended,
        _ = beside => Ok(()),
        () = shared.nodes.left(&node) => Ok(()),
    };
    acknowledge::hand_over(shared, &node);
    ended
}

/// Ends for no other reason than that it must.
async fn goes_on(work: impl Future<Output = Result<(), Stop>>) {
    if work.await.is_err() {
        std::future::pending::<()>().await;
    }
}
