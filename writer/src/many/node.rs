//! One node of Redis: its connections, and the work that is done for all its sources together.
//!
//! A Redis Cluster has a node for each master, anything else is a single node. Nodes share nothing,
//! so an unreachable one delays only its own sources.

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Args;
    use crate::many::slots::Slots;
    use crate::many::source::{self, Sources};
    use crate::output::OneOfMany;
    use clap::Parser as _;
    use delivery::source_name::SourceName;
    use futures_util::FutureExt as _;
    use resp::{Config, StreamId};
    use service::{Connector, Context, Health, Nodes, Shutdown, SourceList};
    use std::path::Path;
    use std::pin::pin;
    use std::sync::Arc;
    use std::time::Duration;
    use tokio::sync::Semaphore;

    const FOLDER: &str = "/nowhere/outputs";

    /// A service whose Redis cannot be reached.
    fn context() -> Context {
        let (health, shutdown) = (Health::new(), Shutdown::new());
        let config = Config::from_url("unix:///nowhere/redis.sock").unwrap();
        Context {
            connector: Connector::new(config, String::new(), health.clone(), shutdown.clone()),
            health,
            shutdown,
            partitions: Vec::new(),
            hangup: Arc::default(),
            sources: SourceList::new(0, "entries"),
        }
    }

    fn shared<'a>(cli: &'a Args, context: &'a Context) -> Shared<'a> {
        Shared {
            service: &cli.service,
            args: &cli.writer,
            context,
            folder: Path::new(FOLDER),
            claims: false,
            nodes: nodes(context),
            sources: Sources::default(),
            slots: Slots::new(),
            many: OneOfMany { threads: Arc::new(Semaphore::new(1)), journals: Arc::default() },
            is_allowed: std::cell::Cell::default(),
            is_listed: std::cell::Cell::default(),
        }
    }

    fn nodes(context: &Context) -> Nodes<Node> {
        Nodes::new(&context.connector, &context.health, Node::new)
    }

    fn cli() -> Args {
        Args::parse_from(["writer", "--output-dir", FOLDER])
    }

    fn a_source(shared: &Shared<'_>) -> Rc<Source> {
        let source = source::new(shared, SourceName::new("a.log").unwrap(), 1);
        shared.sources.add(Rc::clone(&source));
        source
    }

    const IDS: [StreamId; 1] = [StreamId { ms: 1, seq: 2 }];

    #[test]
    fn a_parked_source_is_taken_once_by_a_waker_that_was_busy() {
        let (cli, context) = (cli(), context());
        let shared = shared(&cli, &context);
        let source = a_source(&shared);
        let node = shared.node_of(&source);
        node.park(&source);
        assert!(node.is_parked.notified().now_or_never().is_some(), "the waker did not wait yet");
        assert_eq!(node.parked().len(), 1);
        assert!(node.parked().is_empty() && node.is_parked.notified().now_or_never().is_none());
    }

    /// A source whose node leaves the cluster is acknowledged by the node that has it now.
    #[tokio::test(start_paused = true)]
    async fn a_node_that_leaves_hands_over_what_it_has_not_acknowledged() {
        let (cli, context) = (cli(), context());
        let shared = shared(&cli, &context);
        let source = a_source(&shared);
        let gone = Rc::clone(nodes(&context).rest());
        let mut acknowledged = pin!(gone.acknowledgements.add(&source, IDS.to_vec()));
        assert!(acknowledged.as_mut().now_or_never().is_none());
        serve(&shared, Rc::clone(&gone)).await.unwrap();
        gone.acknowledgements.close();
        assert!(acknowledged.as_mut().now_or_never().is_none(), "it waits for the other node");
        shared.node_of(&source).acknowledgements.close();
        assert_eq!(acknowledged.now_or_never(), Some(false));
    }

    /// Its sources need not wait for it, and the other nodes go on.
    #[tokio::test(start_paused = true)]
    async fn an_unreachable_node_gives_up_when_the_service_stops_and_does_not_end_the_others() {
        let (cli, context) = (cli(), context());
        let shared = shared(&cli, &context);
        let source = a_source(&shared);
        let node = shared.node_of(&source);
        let mut serving = pin!(serve(&shared, Rc::clone(&node)));
        let mut acknowledged = pin!(node.acknowledgements.add(&source, IDS.to_vec()));
        let minute = Duration::from_secs(60);
        tokio::select! {
            biased;
            _ = &mut serving => panic!("it ended"),
            _ = &mut acknowledged => panic!("it gave up"),
            () = tokio::time::sleep(minute) => {}
        }
        context.shutdown.request();
        tokio::select! {
            biased;
            _ = &mut serving => panic!("it ended"),
            done = &mut acknowledged => assert!(!done),
            () = tokio::time::sleep(minute) => panic!("its source still waits"),
        }
        assert!(!node.acknowledgements.add(&source, IDS.to_vec()).await, "nothing is taken any more");
        assert!(tokio::time::timeout(minute, serving).await.is_err());
    }
}
