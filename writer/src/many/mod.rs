//! `--output-dir`: mirrors all sources of a stream, an output with a journal for each.
//!
//! The stages of a source are those of a single one, and so are the machines that decide. What is
//! shared is what would be too many:
//!
//! * [connections]: a source borrows one of the few of its [node], and gives it back while nothing
//!   of it is on the wire.
//! * open files: when there are more sources than [slots], those that are idle are closed.
//! * threads that write and sync: a few, whose syncs the file system groups.
//! * [acknowledgements](acknowledge): those of all sources of a node that are durable go out
//!   together.
//!
//! A source for which nothing comes is [parked](parking). Redis reports when the stream of a parked
//! source changes, and the source is [woken](waker). A [survey] of all groups finds the changes
//! that Redis does not report. A fault of one
//! source, such as a journal that does not match or a disk that is full, leaves the others alone.

mod acknowledge;
mod check;
mod connections;
mod node;
mod parking;
mod registry;
mod slots;
mod source;
mod survey;
mod waker;

pub(crate) use check::check;
pub(crate) use connections::Lent;
pub(crate) use parking::{Parking, Woken};

use crate::args::WriterArgs;
use crate::metric_names;
use crate::output::OneOfMany;
use delivery::source_name::registry_key;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use globset::{GlobSet, GlobSetBuilder};
use metrics::gauge;
use node::Node;
use registry::{Listed, Registry};
use resp::{Connection, Error};
use service::advice::noun;
use service::args::ServiceArgs;
use service::{Context, Failure, Nodes, Stop};
use slots::Slots;
use source::{Failed, Source, Sources};
use std::cell::Cell;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use tokio::sync::Semaphore;

/// How many threads write and sync.
const THREADS: usize = 16;

/// State that all sources share.
pub(crate) struct Shared<'a> {
    service: &'a ServiceArgs,
    args: &'a WriterArgs,
    context: &'a Context,
    folder: &'a Path,
    /// Whether entries of other consumers are taken over.
    claims: bool,
    nodes: Nodes<Node>,
    sources: Sources,
    slots: Slots,
    many: OneOfMany,
    /// The user was found to have the rights that are needed.
    is_allowed: Cell<bool>,
    /// The registry was read.
    is_listed: Cell<bool>,
}

impl Shared<'_> {
    fn node_of(&self, source: &Source) -> Rc<Node> {
        self.nodes.of(&source.group.stream)
    }

    /// Borrows a connection to the node of a source.
    async fn borrow(&self, source: &Source) -> Result<(Connection, Lent), Stop> {
        self.nodes.at(&source.group.stream, async |node: Rc<Node>| node.connections.borrow().await).await
    }

    /// A connection of this source was lost, or Redis refused a command.
    fn lost(&self, source: &Source, error: &Error) {
        self.node_of(source).connections.lost(error);
        self.nodes.suspect(error);
    }

    /// The sources of a node.
    fn sources_of(&self, node: &Rc<Node>) -> impl Iterator<Item = Rc<Source>> {
        self.sources.all().filter(|source| Rc::ptr_eq(&self.node_of(source), node))
    }
}

/// Mirrors the sources until the service stops or, with `--once`, until all that the registry lists
/// are at their ends.
pub(crate) async fn run(
    service: &ServiceArgs,
    args: &WriterArgs,
    folder: &Path,
    context: Context,
) -> Result<(), Failure> {
    gauge!(metric_names::CONSUMER, "consumer" => args.consumer()).set(1.0);
    let wrong = |why: String| Failure::config(format!("--output-dir {}: {why}", folder.display()));
    if folder.symlink_metadata().is_ok() && !folder.is_dir() {
        return Err(wrong("it is not a folder; allowed: a folder, or one that can be created".to_owned()));
    }
    let wanted = wanted(args)?;
    source::make(folder, folder).map_err(|error| wrong(format!("{error}; {}", service::advice::io(&error))))?;
    context.health.file(Ok(()));
    let shared = Shared {
        service,
        args,
        context: &context,
        folder,
        claims: args.claim_idle.is_some_and(|idle| idle.0.is_some()),
        nodes: Nodes::new(&context.connector, &context.health, Node::new),
        sources: Sources::default(),
        slots: Slots::new(),
        many: OneOfMany { threads: Arc::new(Semaphore::new(THREADS)), journals: Arc::default() },
        is_allowed: Cell::default(),
        is_listed: Cell::default(),
    };
    let listing = context.connector.for_stream(&registry_key(&service.stream), context.health.clone());
    let mut registry = Registry::new(&service.stream, wanted.as_ref(), listing, &context.health);
    let ended = {
        let beside = async { tokio::join!(survey::show(&shared), pass_on_hangup(&shared)) };
        tokio::select! {
            ended = mirror(&shared, &mut registry) => ended,
            stop = node::run(&shared) => stop,
            _ = beside => Ok(()),
        }
    };
    if shared.sources.len() > 0 {
        acknowledge::leave(&shared).await;
    }
    match ended {
        Ok(()) | Err(Stop::Shutdown) => Ok(()),
        Err(Stop::Failure(failure)) => Err(failure),
    }
}

/// The names that `--sources` selects. `None`: all.
fn wanted(args: &WriterArgs) -> Result<Option<GlobSet>, Failure> {
    if args.sources.is_empty() {
        return Ok(None);
    }
    let mut globs = GlobSetBuilder::new();
    for glob in &args.sources {
        globs.add(glob.clone());
    }
    globs.build().map(Some).map_err(|error| Failure::config(format!("--sources: {error}; allowed: fewer patterns")))
}

async fn pass_on_hangup(shared: &Shared<'_>) {
    loop {
        shared.context.hangup.notified().await;
        shared.sources.all().for_each(|source| source.hangup());
    }
}

/// Takes up the sources that the registry lists.
async fn mirror(shared: &Shared<'_>, registry: &mut Registry<'_>) -> Result<(), Stop> {
    let shutdown = &shared.context.shutdown;
    registry.check().await?;
    tokio::select! {
        () = shared.nodes.known() => {}
        () = shutdown.requested() => return Err(Stop::Shutdown),
    }
    let mut running = FuturesUnordered::new();
    let mut failed: Option<Failure> = None;
    let take_up = |listed: Vec<Listed>| {
        shared.is_listed.set(true);
        let mut fresh = Vec::new();
        for Listed { name, is_finished } in listed {
            let source = match shared.sources.with_key(&name.key(&shared.service.stream)) {
                Some(known) => known,
                None => {
                    let source = source::new(shared, name, shared.sources.len().saturating_add(1));
                    shared.sources.add(Rc::clone(&source));
                    fresh.push(Rc::clone(&source));
                    source
                }
            };
            source.is_finished.set(is_finished);
        }
        if !fresh.is_empty() {
            let count = fresh.len() as u64;
            log::info!("{count} more {}; {} in all", noun(count, "source"), shared.sources.len());
        }
        fresh
    };
    loop {
        if shared.service.once && running.is_empty() && !shutdown.is_requested() {
            let fresh = take_up(registry.read_now().await?);
            if fresh.is_empty() {
                return failed.map_or(Ok(()), |failure| Err(failure.into()));
            }
            running.extend(fresh.into_iter().map(|source| source::run(shared, source)));
        }
        tokio::select! {
            () = shutdown.requested(), if running.is_empty() => return Err(Stop::Shutdown),
            listed = registry.changed(), if !shutdown.is_requested() && !shared.service.once => {
                let fresh = match listed {
                    Ok(listed) => take_up(listed),
                    // The sources end.
                    Err(Stop::Shutdown) => continue,
                    Err(stop) => return Err(stop),
                };
                running.extend(fresh.into_iter().map(|source| source::run(shared, source)));
            }
            Some(ended) = running.next(), if !running.is_empty() => match ended {
                Ok(()) => {}
                Err(Failed::All(stop)) => return Err(stop),
                Err(Failed::Source(failure)) => {
                    log::error!("{failure}");
                    failed.get_or_insert(failure);
                }
            },
        }
    }
}
