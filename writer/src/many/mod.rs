//! `--output-dir`: mirrors all sources of a stream, an output with a journal for each.
//!
//! The stages of a source are those of a single one, and so are the machines that decide. What is
//! shared is what would be too many:
//!
//! * [connections]: a source borrows one of a few, and gives it back while nothing of
//!   it is on the wire.
//! * open files: when there are more sources than [slots], those that are idle are closed.
//! * threads that write and sync: a few, whose syncs the file system groups.
//! * [acknowledgements](acknowledge): those of all sources that are durable go out together.
//!
//! A source for which nothing comes is [parked](parking). One read that blocks in Redis
//! [wakes](waker) all of them, and a [survey] finds what that does not see. A fault of one
//! source, such as a journal that does not match or a disk that is full, leaves the others alone.

mod acknowledge;
mod check;
mod connections;
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
use acknowledge::Acknowledgements;
use connections::Connections;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use globset::{GlobSet, GlobSetBuilder};
use metrics::gauge;
use registry::{Listed, Registry};
use resp::Endpoint;
use service::args::ServiceArgs;
use service::{Context, Failure, Stop};
use slots::Slots;
use source::{Failed, Sources};
use std::cell::Cell;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use tokio::sync::{Notify, Semaphore};

/// How many threads write and sync.
const THREADS: usize = 16;

/// What all sources share.
pub(crate) struct Shared<'a> {
    service: &'a ServiceArgs,
    args: &'a WriterArgs,
    context: &'a Context,
    folder: &'a Path,
    /// Whether entries of other consumers are taken over.
    claims: bool,
    connections: Rc<Connections>,
    sources: Sources,
    slots: Slots,
    many: OneOfMany,
    acknowledgements: Acknowledgements,
    /// Notified when a source was parked.
    parked: Notify,
    /// The user was found to have the rights that are needed.
    is_allowed: Cell<bool>,
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
    if folder.exists() && !folder.is_dir() {
        return Err(wrong("it is not a folder; allowed: a folder, or one that can be created".to_owned()));
    }
    if matches!(context.connector.config().endpoint(), Endpoint::Cluster { .. }) {
        return Err(Failure::config(format!(
            "--redis-url {}: --output-dir does not work with a Redis Cluster yet; allowed: a single server, or Sentinels",
            context.connector.config()
        )));
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
        connections: Connections::new(&context.connector),
        sources: Sources::default(),
        slots: Slots::new(),
        many: OneOfMany { threads: Arc::new(Semaphore::new(THREADS)), journals: Arc::default() },
        acknowledgements: Acknowledgements::default(),
        parked: Notify::new(),
        is_allowed: Cell::default(),
    };
    let mut registry = Registry::new(&service.stream, wanted.as_ref(), context.connector.clone(), &context.health);
    let mut acknowledging = context.connector.clone();
    let ended = {
        let beside = async {
            let connector = || context.connector.clone();
            tokio::join!(
                goes_on(survey::run(&shared, connector())),
                goes_on(waker::run(&shared, connector(), connector())),
                pass_on_hangup(&shared)
            )
        };
        tokio::select! {
            ended = mirror(&shared, &mut registry) => ended,
            stop = acknowledge::run(&shared, &mut acknowledging) => stop,
            _ = beside => Ok(()),
        }
    };
    if shared.sources.len() > 0 {
        acknowledge::leave(&shared, &mut acknowledging).await;
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

/// Ends for no other reason than that it must: what it does for the sources outlives a stop.
async fn goes_on(work: impl Future<Output = Result<(), Stop>>) {
    if work.await.is_err() {
        std::future::pending::<()>().await;
    }
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
    let mut running = FuturesUnordered::new();
    let mut failed: Option<Failure> = None;
    let take_up = |listed: Vec<Listed>| {
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
            log::info!("{} more sources; {} in all", fresh.len(), shared.sources.len());
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
