//! The service: fetching, committing and acknowledging, each batch after the other, and the three at the same time.
//!
//! ```text
//! fetch ──batch──► commit ──batch──► acknowledge
//!   ▲                                    │
//!   └────────── the empty batch ─────────┘
//! ```
//!
//! When somebody else changes the output, or may have taken over what is under way, all of that is dropped, and the service begins again
//! with what the output holds then; nothing of it was acknowledged, so what is still ours comes again.

use crate::acknowledge::Acknowledge;
use crate::args::{Fsync, WriterArgs};
use crate::batch::Batch;
use crate::commit::{Commit, Committed};
use crate::contents::Contents;
use crate::fetch::Fetch;
use crate::gaps::Gap;
use crate::group::Group;
use crate::names;
use crate::output::{OpenError, Opened, Output};
use metrics::{counter, gauge};
use resp::Backoff;
use service::args::ServiceArgs;
use service::{Context, Failure, Stop};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

/// The pauses between attempts to use a disk that refuses.
pub(crate) fn disk_backoff() -> Backoff {
    Backoff::new(Duration::from_millis(50), Duration::from_secs(2))
}

/// A batch on its way to the disk; the permit says that the disk is busy.
pub(crate) type Handed = (Batch, OwnedSemaphorePermit);

/// Why the stages ended.
#[derive(Debug)]
pub(crate) enum Ended {
    /// What is under way is not to be trusted: begin again with what the output holds.
    Again,
    /// The service ends.
    Stop(Stop),
}

impl From<Stop> for Ended {
    fn from(stop: Stop) -> Self {
        Self::Stop(stop)
    }
}

impl From<Failure> for Ended {
    fn from(failure: Failure) -> Self {
        Self::Stop(Stop::Failure(failure))
    }
}

/// Does the work until it is done, or until the service is asked to stop.
pub(crate) async fn run(service: &ServiceArgs, args: &WriterArgs, context: Context) -> Result<(), Failure> {
    let group = Group::new(service.stream.clone(), args.group.clone(), args.consumer.clone());
    // What the output held when it was last closed; nothing else may be missing from it when it is opened again.
    let mut committed = None;
    loop {
        let Some(opened) = open(&args.output, args.fsync, &context).await? else { return Ok(()) };
        tell(&opened, committed.as_ref(), &args.output);
        let (disturbed, state) = stages(service, args, &context, &group, opened).await;
        committed = state;
        match disturbed {
            Ok(()) | Err(Ended::Stop(Stop::Shutdown)) => return Ok(()),
            Err(Ended::Stop(Stop::Failure(failure))) => return Err(failure),
            Err(Ended::Again) => {}
        }
    }
}

async fn stages(
    service: &ServiceArgs,
    args: &WriterArgs,
    context: &Context,
    group: &Group,
    opened: Opened,
) -> (Result<(), Ended>, Committed) {
    let (to_commit, handed) = mpsc::channel::<Handed>(1);
    let (to_acknowledge, committed) = mpsc::channel::<Batch>(1);
    let (give_back, empty) = mpsc::unbounded_channel::<Batch>();
    let others = Rc::new(Cell::new(false));
    let mut fetch = Fetch {
        group,
        connector: context.connector.clone(),
        health: &context.health,
        shutdown: &context.shutdown,
        contents: Contents::new(opened.held),
        batch: Batch::default(),
        others: others.clone(),
        once: service.once,
        claim_idle: args.claim_idle.and_then(|idle| idle.0),
        disk: Arc::new(Semaphore::new(1)),
        to_commit,
        empty,
    };
    // Others are configured alike, so they take over what we have left pending as we do.
    let stale_after = fetch.claim_idle.map(|idle| idle / 2);
    let mut commit =
        Commit::new(opened.output, stale_after, &context.health, &context.shutdown, context.hangup.clone());
    let mut acknowledge = Acknowledge::new(group, context, others);
    let ended = {
        let fetching = async {
            let ended = fetch.run().await;
            // Without the sender, the next stage ends when it is done with what it has.
            drop(fetch);
            ended
        };
        let committing = commit.run(handed, to_acknowledge);
        let acknowledging = acknowledge.run(committed, give_back);
        tokio::try_join!(fetching, committing, acknowledging).map(|_| ())
    };
    (ended, commit.into_committed())
}

/// Opens the output, however long the disk refuses. `None`: the service is to stop.
async fn open(path: &Path, fsync: Fsync, context: &Context) -> Result<Option<Opened>, Failure> {
    let mut backoff = disk_backoff();
    loop {
        context.health.progress();
        let owned = path.to_owned();
        let opened = tokio::task::spawn_blocking(move || Output::open(&owned, fsync)).await;
        match opened.map_err(|error| Failure::failed(format!("opening the output: {error}")))? {
            Ok(opened) => {
                context.health.file(Ok(()));
                return Ok(Some(opened));
            }
            Err(OpenError::Config(text)) => return Err(Failure::Config(text)),
            Err(error @ OpenError::Io { .. }) => {
                service::metrics::error("disk");
                let advice = match &error {
                    OpenError::Io { source, .. } => service::words::io(source),
                    OpenError::Config(_) => "",
                };
                context.health.file(Err(format!("{error}; trying again within 2 s; {advice}")));
            }
        }
        tokio::select! {
            () = context.shutdown.requested() => return Ok(None),
            () = tokio::time::sleep(backoff.next_delay()) => {}
        }
    }
}

/// Says what is known of an output that was just opened.
fn tell(opened: &Opened, before: Option<&BTreeMap<u64, delivery::ranges::RangeSet>>, path: &Path) {
    let path = path.display();
    let len = opened.output.len();
    gauge!(names::OUTPUT_SIZE).set(len as f64);
    let contents = opened.held.len();
    let bytes: u64 = opened.held.values().map(delivery::ranges::RangeSet::bytes).sum();
    log::info!("{path}: {len} bytes, {bytes} of them of {contents} contents in the journal");
    if opened.torn > 0 {
        log::warn!("{path}: {} bytes behind the last commit cut off", opened.torn);
    }
    let gone = before.map(|before| {
        before.iter().flat_map(|(&root, held)| {
            let now = opened.held.get(&root).cloned().unwrap_or_default();
            held.iter().flat_map(move |span| now.missing(span).map(|span| Gap { root, span }).collect::<Vec<_>>())
        })
    });
    let lost: Vec<Gap> = match gone {
        Some(gone) => gone.collect(),
        None => opened.lost.iter().map(|(root, span)| Gap { root: *root, span: span.clone() }).collect(),
    };
    for Gap { root, span } in lost {
        let bytes = span.end - span.start;
        counter!(names::GAP_BYTES).increment(bytes);
        log::error!(
            "{path}: bytes {}..{} ({bytes} bytes) of content {root} were in it and are gone; somebody cut it or took it away; \
             take them from the source, or restore the output with its journal",
            span.start,
            span.end
        );
    }
}
