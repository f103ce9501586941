//! Looks at the groups of all sources of a node in turn: measures their backlogs, and wakes sources
//! that nothing else wakes, such as those whose group Redis has lost.

use super::Shared;
use super::node::Node;
use super::source::Source;
use crate::acknowledge::is_gone;
use crate::group::{read_notes, state};
use crate::metric_names;
use delivery::consumer::can_trim;
use metrics::{gauge, histogram};
use resp::streams::XLen;
use resp::{Connection, Error, Pipeline};
use service::{ServerWatch, SourceRow, Stop};
use std::rc::Rc;
use std::time::Duration;

/// How many sources one round trip queries.
const TOGETHER: usize = 100;
/// A round begins this often, or less often when there are many sources.
const ROUND: Duration = Duration::from_secs(1);
const FOR_EACH: Duration = Duration::from_millis(5);
/// How soon the sources are shown when they are not listed yet.
const SOON: Duration = Duration::from_millis(200);
const MEASURING: &str = "measuring";

/// The latest measurement of a source.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Backlog {
    pub(crate) length: u64,
    pub(crate) lag: u64,
    pub(crate) pending: u64,
    /// Consumers of the group.
    pub(crate) consumers: u64,
}

/// Looks at the sources of a node until the service stops.
pub(super) async fn run(shared: &Shared<'_>, node: &Rc<Node>) -> Result<(), Stop> {
    let mut connector = node.connections.connector();
    let mut server = ServerWatch::new(node.connections.health().clone());
    loop {
        let mut connection = connector.connect().await?;
        let error = loop {
            if let Err(error) = round(shared, node, &mut connection, &mut server).await {
                break error;
            }
            tokio::time::sleep(pause(shared)).await;
        };
        connector.lost(&error);
        shared.nodes.suspect(&error);
        node.connections.health().redis_failed(MEASURING, &error);
        shared.sources_of(node).for_each(|source| source.backlog.set(None));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// How long after a round the next one begins.
fn pause(shared: &Shared<'_>) -> Duration {
    ROUND.max(FOR_EACH.saturating_mul(u32::try_from(shared.sources.len()).unwrap_or(u32::MAX)))
}

async fn round(
    shared: &Shared<'_>,
    node: &Rc<Node>,
    connection: &mut Connection,
    server: &mut ServerWatch,
) -> Result<(), Error> {
    let sources: Vec<Rc<Source>> = shared.sources_of(node).collect();
    for sources in sources.chunks(TOGETHER) {
        look(shared, node, connection, sources).await?;
        shared.context.health.progress();
        tokio::task::yield_now().await;
    }
    server.ask(connection);
    server.hear(connection).await?;
    node.connections.health().redis_works(MEASURING);
    Ok(())
}

async fn look(
    shared: &Shared<'_>,
    node: &Node,
    connection: &mut Connection,
    sources: &[Rc<Source>],
) -> Result<(), Error> {
    let epoch = node.connections.epoch();
    let mut questions = Pipeline::new();
    let asked: Vec<_> = sources
        .iter()
        .map(|source| {
            let group = &source.group;
            // For those that have nothing to do, there is no latency to measure.
            let notes = source.has_committed.take().then(|| questions.add(group.ask_notes()));
            (questions.add(group.ask_groups()), questions.add(XLen::new(&group.stream)), notes)
        })
        .collect();
    let mut replies = connection.run(&questions).await?;
    for (source, (groups, length, notes)) in sources.iter().zip(asked) {
        if let Some(Ok(notes)) = notes.map(|notes| replies.take(notes))
            && let Some(sent) = read_notes(&notes).sent
        {
            source.latency.borrow_mut().sent(sent);
            show_latency(shared, source);
        }
        let (groups, length) = match (replies.take(groups), replies.take(length)) {
            (Ok(groups), Ok(length)) => (groups, length),
            (Err(error), _) if is_gone(&error) => (Vec::new(), 0),
            // The key has another type, which the source reports, or it has moved.
            (Err(error), _) | (_, Err(error)) if error.is_server() => {
                shared.nodes.suspect(&error);
                continue;
            }
            (Err(error), _) | (_, Err(error)) => return Err(error),
        };
        let states: Vec<_> = groups.iter().map(state).collect();
        if can_trim(&states, length) {
            node.acknowledgements.trim(source);
        }
        let ours = groups.iter().find(|one| one.name == source.group.name.as_bytes());
        let consumers = ours.map_or(0, |ours| ours.consumers);
        let Some(ours) = states.iter().find(|one| one.name == source.group.name.as_bytes()) else {
            source.backlog.set(Some(Backlog { length, lag: length, pending: 0, consumers }));
            // The others make the group, or find that it is gone, by themselves. Woken now, they
            // would open their outputs once more as soon as they are closed.
            if source.is_parked() {
                source.wake();
            }
            continue;
        };
        let lag = ours.lag(length, None);
        source.backlog.set(Some(Backlog { length, lag, pending: ours.pending, consumers }));
        let has_waited_for_us =
            ours.pending > 0 && (shared.claims || source.epoch.get() != epoch || ours.pending != source.pending.get());
        if source.is_parked() && (lag > 0 || has_waited_for_us) {
            source.epoch.set(epoch);
            source.pending.set(ours.pending);
            source.wake();
        }
    }
    Ok(())
}

/// Shows what was measured of a source. All of them share one histogram.
pub(super) fn show_latency(shared: &Shared<'_>, source: &Source) {
    for latency in source.latency.borrow_mut().measured() {
        histogram!(metric_names::LATENCY).record(latency);
        shared.context.health.set_latency(latency);
    }
}

fn row(source: &Source) -> SourceRow {
    let mut row = SourceRow::new(source.name.escaped(), source.state().name());
    row.bytes = source.size.get();
    row.backlog = source.backlog.get().map(|one| one.lag.saturating_add(one.pending));
    row.consumers = source.backlog.get().map(|one| one.consumers);
    row.reason = source.reason.borrow().clone().or_else(|| source.health.file_fault());
    row
}

/// Shows the sources and their totals until it is dropped.
pub(super) async fn show(shared: &Shared<'_>) {
    loop {
        show_now(shared);
        let pause = if shared.is_listed.get() { pause(shared) } else { SOON };
        tokio::time::sleep(pause).await;
    }
}

/// Sets the gauges of the totals; unknown while the list of sources or one of them is.
fn show_now(shared: &Shared<'_>) {
    let none = shared.is_listed.get().then(Backlog::default);
    let sum = shared.sources.all().fold(none, |sum, source| {
        let sum = sum?;
        let one = source.backlog.get()?;
        Some(Backlog {
            length: sum.length.saturating_add(one.length),
            lag: sum.lag.saturating_add(one.lag),
            pending: sum.pending.saturating_add(one.pending),
            consumers: 0,
        })
    });
    let show = |name, of: fn(Backlog) -> u64| gauge!(name).set(sum.map_or(f64::NAN, |sum| of(sum) as f64));
    show(metric_names::LENGTH, |sum| sum.length);
    show(metric_names::LAG, |sum| sum.lag);
    show(metric_names::PENDING, |sum| sum.pending);
    show(metric_names::BACKLOG, |sum| sum.lag.saturating_add(sum.pending));
    shared.context.sources.set(shared.sources.all().map(|source| row(&source)).collect());
    let size: u64 = shared.sources.all().map(|source| source.size.get()).sum();
    gauge!(metric_names::OUTPUT_SIZE).set(size as f64);
}
