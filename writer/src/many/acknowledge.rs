//! Acknowledges what was committed, of all sources of a node in one pipeline, and trims what every
//! group has acknowledged.

use super::Shared;
use super::node::Node;
use super::source::Source;
use crate::acknowledge::{IDS, is_gone, later, leave_group};
use crate::failpoint;
use crate::group::state;
use delivery::consumer::{GroupState, trim_below};
use futures_util::future::join_all;
use resp::streams::{Trim, XPending, XTrim};
use resp::{Connection, Error, Pipeline, StreamId};
use service::advice::noun;
use service::{Connector, Stop};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

/// How many IDs one pipeline acknowledges, about.
const ROUND: usize = 20_000;
/// How often a source is trimmed.
const TRIM: Duration = Duration::from_millis(250);
/// How many sources are trimmed together.
const TOGETHER: usize = 100;
/// How long a writer that is to stop tries to connect.
const LAST_CONNECT: Duration = Duration::from_secs(4);
const ACKNOWLEDGING: &str = "acknowledging";
const TRIMMING: &str = "trimming";

/// Entries of one source whose bytes are durable.
#[derive(Debug)]
struct Durable {
    source: Rc<Source>,
    ids: Vec<StreamId>,
    done: oneshot::Sender<()>,
    /// It failed while the service was to stop.
    has_failed: bool,
}

/// The acknowledgements for a node.
#[derive(Debug, Default)]
pub(crate) struct Acknowledgements {
    queue: Queue<Durable>,
    /// Acknowledgements that failed and are sent again.
    failed: RefCell<Vec<Durable>>,
    /// Nothing is acknowledged any more.
    is_closed: Cell<bool>,
    /// The streams of these hold entries that their groups have acknowledged.
    untrimmed: RefCell<Vec<Rc<Source>>>,
}

impl Acknowledgements {
    /// Acknowledges entries, however often the connection is lost. Returns whether they were: not
    /// when the service stops without Redis.
    pub(crate) async fn add(&self, source: &Rc<Source>, ids: Vec<StreamId>) -> bool {
        let (done, acknowledged) = oneshot::channel();
        self.add_again(Durable { source: Rc::clone(source), ids, done, has_failed: false });
        acknowledged.await.is_ok()
    }

    fn add_again(&self, durable: Durable) {
        // Dropped, it tells the source.
        if !self.is_closed.get() {
            self.queue.add(durable);
        }
    }

    /// Leaves what waits, and what comes later, unacknowledged.
    pub(super) fn close(&self) {
        self.is_closed.set(true);
        drop(self.take());
    }

    fn take(&self) -> impl Iterator<Item = Durable> + use<> {
        let waiting = self.queue.waiting.take();
        self.failed.take().into_iter().chain(waiting)
    }

    /// The stream of this source can be trimmed.
    pub(crate) fn trim(&self, source: &Rc<Source>) {
        let mut untrimmed = self.untrimmed.borrow_mut();
        if !untrimmed.iter().any(|known| Rc::ptr_eq(known, source)) {
            untrimmed.push(Rc::clone(source));
        }
    }

    fn is_to_trim(&self) -> bool {
        !self.untrimmed.borrow().is_empty()
    }
}

/// The waiting acknowledgements, in rounds of bounded size.
#[derive(Debug)]
struct Queue<T> {
    waiting: RefCell<VecDeque<T>>,
    added: Notify,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self { waiting: RefCell::default(), added: Notify::new() }
    }
}

impl<T> Queue<T> {
    fn add(&self, one: T) {
        self.waiting.borrow_mut().push_back(one);
        self.added.notify_one();
    }

    /// The next round, from the oldest on: about [`ROUND`] of what `count` counts. Waits only while
    /// nothing is there.
    async fn next(&self, count: impl Fn(&T) -> usize) -> Vec<T> {
        loop {
            let mut sum = 0_usize;
            let is_in_round = |one: &&T| {
                let fits = sum < ROUND;
                sum = sum.saturating_add(count(one));
                fits
            };
            let many = self.waiting.borrow().iter().take_while(is_in_round).count();
            if many > 0 {
                return self.waiting.borrow_mut().drain(..many).collect();
            }
            self.added.notified().await;
        }
    }
}

/// Acknowledges and trims until it is dropped, or Redis is unreachable when the service stops.
pub(super) async fn run(shared: &Shared<'_>, node: &Node) -> Result<(), Stop> {
    let acknowledgements = &node.acknowledgements;
    let mut connector = node.connections.connector();
    let (mut trim_at, mut again_at) = (Instant::now(), Instant::now());
    let mut connection = None;
    loop {
        tokio::select! {
            durable = acknowledgements.queue.next(|durable| durable.ids.len()) => {
                let mut round = Round { durable, acknowledgements };
                let connection = connected(shared, &mut connector, &mut connection).await?;
                acknowledge(shared, node, connection, &mut round.durable).await;
                again_at = later(Instant::now(), TRIM);
            }
            () = tokio::time::sleep_until(again_at), if !acknowledgements.failed.borrow().is_empty() => {
                for durable in acknowledgements.failed.take() {
                    // Its key may have moved.
                    shared.node_of(&durable.source).acknowledgements.add_again(durable);
                }
            }
            () = tokio::time::sleep_until(trim_at), if acknowledgements.is_to_trim() => {
                let connection = connected(shared, &mut connector, &mut connection).await?;
                let trimmed = trim(connection, &acknowledgements.untrimmed.take()).await;
                trim_at = later(Instant::now(), TRIM);
                if let Err(error) = trimmed {
                    node.connections.lost(&error);
                    shared.nodes.suspect(&error);
                }
            }
        }
    }
}

/// Moves what waits for a node to the nodes that its sources are on now.
pub(super) fn hand_over(shared: &Shared<'_>, node: &Node) {
    for durable in node.acknowledgements.take() {
        shared.node_of(&durable.source).acknowledgements.add_again(durable);
    }
}

/// The acknowledgements in progress. Those that remain when it is dropped are tried again.
struct Round<'a> {
    durable: Vec<Durable>,
    acknowledgements: &'a Acknowledgements,
}

impl Drop for Round<'_> {
    fn drop(&mut self) {
        self.acknowledgements.failed.borrow_mut().append(&mut self.durable);
    }
}

async fn connected<'a>(
    shared: &Shared<'_>,
    connector: &mut Connector,
    connection: &'a mut Option<Connection>,
) -> Result<&'a mut Connection, Stop> {
    let ours = match connection.take().filter(|connection| !connection.is_closed()) {
        Some(connection) => connection,
        None => match connector.connect().await {
            Ok(connection) => connection,
            // What is committed is still to be acknowledged.
            Err(Stop::Shutdown) => connector.connect_to_end(LAST_CONNECT).await?,
            Err(stop) => return Err(stop),
        },
    };
    shared.context.health.progress();
    Ok(connection.insert(ours))
}

/// Acknowledges, and leaves what failed.
async fn acknowledge(shared: &Shared<'_>, node: &Node, connection: &mut Connection, durable: &mut Vec<Durable>) {
    let replies = match send(connection, durable).await {
        Ok(replies) => replies,
        Err(error) => {
            node.connections.lost(&error);
            shared.nodes.suspect(&error);
            durable.iter().map(|_| Err(error.clone())).collect()
        }
    };
    let is_last = shared.context.shutdown.is_requested();
    for (mut one, reply) in std::mem::take(durable).into_iter().zip(replies) {
        let Durable { source, .. } = &one;
        match reply {
            Err(error) if !is_gone(&error) => {
                if error.is_server() {
                    source.health.redis_failed(ACKNOWLEDGING, &error);
                    shared.nodes.suspect(&error);
                }
                if !(is_last && std::mem::replace(&mut one.has_failed, is_last)) {
                    durable.push(one);
                }
                continue;
            }
            _ => source.health.redis_works(ACKNOWLEDGING),
        }
        node.acknowledgements.trim(source);
        // Nobody waits when the stages of the source have ended.
        let _ = one.done.send(());
        failpoint::reach("after-acknowledge");
    }
}

/// Sends all acknowledgements, then receives the replies: for each source, the first error.
async fn send(connection: &mut Connection, durable: &[Durable]) -> Result<Vec<Result<(), Error>>, Error> {
    for Durable { source, ids, .. } in durable {
        for ids in ids.chunks(IDS) {
            connection.queue(source.group.acknowledge(ids));
        }
    }
    let mut replies = Vec::with_capacity(durable.len());
    for Durable { source, ids, .. } in durable {
        let mut of_source = Ok(());
        for _ in ids.chunks(IDS) {
            match connection.receive_reply(&source.group.acknowledge(&[])).await {
                Err(error) if !error.is_server() => return Err(error),
                Err(error) => of_source = Err(error),
                Ok(_) => {}
            }
        }
        replies.push(of_source);
    }
    Ok(replies)
}

/// Trims what every group of these sources has acknowledged.
async fn trim(connection: &mut Connection, sources: &[Rc<Source>]) -> Result<(), Error> {
    for sources in sources.chunks(TOGETHER) {
        let mut questions = Pipeline::new();
        let asked: Vec<_> = sources.iter().map(|source| questions.add(source.group.ask_groups())).collect();
        let mut replies = connection.run(&questions).await?;
        // Those that are gone need no trimming.
        let groups: Vec<_> = asked.into_iter().map(|groups| replies.take(groups).unwrap_or_default()).collect();
        let mut questions = Pipeline::new();
        let mut asked = Vec::new();
        for (source, groups) in sources.iter().zip(&groups) {
            let pending = groups.iter().map(|one| questions.add(XPending::new(&source.group.stream, &one.name)));
            asked.push(pending.collect::<Vec<_>>());
        }
        let mut replies = connection.run(&questions).await?;
        let mut trims = Pipeline::new();
        let mut trimmed = Vec::new();
        for ((source, groups), pending) in sources.iter().zip(&groups).zip(asked) {
            let states = groups.iter().zip(pending).map(|(group, pending)| {
                let first_pending = replies.take(pending)?.first;
                Ok(GroupState { first_pending, ..state(group) })
            });
            let Ok(states) = states.collect::<Result<Vec<_>, Error>>() else { continue };
            if let Some(needed) = trim_below(&states) {
                trimmed.push((source, trims.add(XTrim::new(&source.group.stream, Trim::min_id(needed)))));
            }
        }
        let mut replies = connection.run(&trims).await?;
        for (source, reply) in trimmed {
            match replies.take(reply) {
                Err(error) if !is_gone(&error) => source.health.redis_failed(TRIMMING, &error),
                _ => source.health.redis_works(TRIMMING),
            }
        }
    }
    Ok(())
}

/// Trims a last time, and leaves the groups in which nothing is pending.
pub(crate) async fn leave(shared: &Shared<'_>) {
    let left = join_all(shared.nodes.all().iter().map(|node| leave_node(shared, node))).await;
    match left.into_iter().sum::<Result<usize, Error>>() {
        Ok(0) => {}
        Ok(left) => log::info!("left the groups of {left} {}", noun(left as u64, "source")),
        Err(error) => log::warn!("leaving the groups: {error}"),
    }
}

async fn leave_node(shared: &Shared<'_>, node: &Rc<Node>) -> Result<usize, Error> {
    let joined: Vec<Rc<Source>> = shared.sources_of(node).filter(|source| source.has_joined.get()).collect();
    let mut connector = node.connections.connector();
    let Ok(mut connection) = connector.connect_to_end(LAST_CONNECT).await else { return Ok(0) };
    trim(&mut connection, &joined).await?;
    for source in &joined {
        match leave_group(&mut connection, &source.group, log::Level::Debug).await {
            Err(error) if !is_gone(&error) => return Err(error),
            _ => {}
        }
    }
    Ok(joined.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;

    #[test]
    fn what_a_round_leaves_is_in_the_next_one_without_more_being_added() {
        let queue = Queue::default();
        let next = || queue.next(|ids| *ids).now_or_never();
        assert_eq!(next(), None);
        [ROUND - 1, 2, 3].into_iter().for_each(|ids| queue.add(ids));
        assert_eq!(next(), Some(vec![ROUND - 1, 2]));
        assert_eq!(next(), Some(vec![3]));
        assert_eq!(next(), None);
    }
}
