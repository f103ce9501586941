//! The service: a pipeline of three stages, which work on different batches at the same time.
//!
//! ```text
//! consume ──batch──► commit ──batch──► acknowledge
//!   ▲                                    │
//!   └────────── the empty batch ─────────┘
//! ```
//!
//! Each partition has its own consume and acknowledge stages, and a few batches that circulate. All
//! partitions share the commit stage. If the Redis of one partition is unreachable, the others
//! continue.
//!
//! If another program changes the output, or another writer may have taken over the entries in
//! progress, the pipeline drops its batches and starts again from what the output then contains.
//! Nothing in these batches was acknowledged, so Redis delivers the entries again.

use crate::acknowledge::Acknowledge;
use crate::args::{ConsumeMode, Fsync, WriterArgs};
use crate::commit::{Commit, Committed};
use crate::consume::{Consume, Link};
use crate::consume_log::ConsumeLog;
use crate::group::{Group, Seen};
use crate::metric_names;
use crate::output::{OneOfMany, OpenError, Opened, Output};
use crate::partition_check::PartitionCheck;
use crate::totals::Totals;
use delivery::consumer::{self, Batch, Consumer, Consumption, FileIdentity, Settings};
use delivery::entry::{Span, span_len};
use delivery::journal::Identity;
use delivery::manifest::HEAD_LEN;
use delivery::output::JournalWas;
use delivery::ranges::RangeSet;
use futures_util::future::try_join_all;
use metrics::{counter, gauge};
use resp::Backoff;
use service::advice::noun;
use service::args::ServiceArgs;
use service::{Context, Failure, Health, Shutdown, Stop, Stream};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs::File;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

/// The pauses between retries after a disk error.
pub(crate) fn disk_backoff() -> Backoff {
    Backoff::new(Duration::from_millis(50), Duration::from_secs(2))
}

/// If an output was undisturbed for this long, it is reopened without a pause after a disturbance.
pub(crate) const CALM: Duration = Duration::from_secs(10);
/// How long a thread of this process may keep the output locked after its work has ended: the time
/// of one commit on a slow disk.
const OWN_THREAD: Duration = Duration::from_secs(60);

/// A batch that is being committed. The permit marks the disk as busy.
pub(crate) type Handed = (Batch, OwnedSemaphorePermit);

/// Why the stages ended.
#[derive(Debug)]
pub(crate) enum Ended {
    /// The batches in progress are invalid: start again from what the output contains.
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

/// Maximum number of batches of a partition in progress: one is being committed, one acknowledged,
/// and one waits between them. A further one is being filled.
const BATCHES: usize = 3;

/// One of the partitions of this writer.
#[derive(Debug)]
pub(crate) struct PartitionWork {
    /// Its index among them.
    pub(crate) nth: usize,
    pub(crate) stream: Stream,
    pub(crate) group: Group,
    /// Whether the user had the permissions at startup. If they are withdrawn later, the writer
    /// waits.
    pub(crate) is_allowed: Cell<bool>,
}

/// Runs until the work is done or shutdown is requested.
pub(crate) async fn run(service: &ServiceArgs, args: &WriterArgs, context: Context) -> Result<(), Failure> {
    args.check(service)?;
    if let Some(folder) = &args.output_dir {
        return crate::many::run(service, args, folder, context).await;
    }
    gauge!(metric_names::CONSUMER, "consumer" => args.consumer()).set(1.0);
    let work = Work {
        service,
        args,
        context: &context,
        partitions: context
            .partitions
            .iter()
            .enumerate()
            .map(|(nth, &partition)| {
                let stream = context.stream(&service.stream, partition);
                let group = Group::new(stream.key.clone(), args.group.clone(), args.consumer());
                PartitionWork { nth, stream, group, is_allowed: Cell::default() }
            })
            .collect(),
        totals: Totals::new(&context.partitions),
        consume: match args.consume {
            ConsumeMode::Group => Consumption::Group,
            ConsumeMode::Exclusive => Consumption::Exclusive {
                token: format!("{:016x}", RandomState::new().build_hasher().finish()),
                lease: args.lease.0,
            },
        },
    };
    if service.partitions == 1 {
        // The record beside the only stream tells, and is read anyway.
        work.run().await
    } else {
        PartitionCheck::new(service).beside(context.connector.config(), work.run()).await
    }
}

/// The work of the service.
struct Work<'a> {
    service: &'a ServiceArgs,
    args: &'a WriterArgs,
    context: &'a Context,
    partitions: Vec<PartitionWork>,
    totals: Totals,
    consume: Consumption,
}

impl Work<'_> {
    async fn run(&self) -> Result<(), Failure> {
        let Self { service, args, context, .. } = self;
        let identity = Identity::new(&service.stream, &args.group, &context.partitions);
        // What the output held when it was last closed; nothing else may be missing from it when it
        // is opened again.
        let mut committed = None;
        let mut former = Vec::new();
        let mut backoff = disk_backoff();
        loop {
            let is_reopened = !former.is_empty();
            let opening = Opening {
                output: &args.output,
                identity: &identity,
                fsync: args.fsync,
                lock_wait: args.lock_wait.0,
                health: &context.health,
                shutdown: &context.shutdown,
                many: None,
            };
            let Some(opened) = opening.open(is_reopened).await? else { return Ok(()) };
            gauge!(metric_names::OUTPUT_SIZE).set(opened.output.len() as f64);
            let lost = tell(&opened, committed.as_ref(), &args.output, log::Level::Info);
            let opened_at = Instant::now();
            let output = for_consumer(&opened, lost, &args.output, &mut former);
            let (disturbed, state) = self.stages(opened, output).await;
            committed = state;
            match disturbed {
                Ok(()) | Err(Ended::Stop(Stop::Shutdown)) => return Ok(()),
                Err(Ended::Stop(Stop::Failure(failure))) => return Err(failure),
                Err(Ended::Again) => {}
            }
            // An output that another program keeps writing to never stays as it is.
            if opened_at.elapsed() >= CALM {
                backoff.reset();
            }
            tokio::select! {
                () = context.shutdown.requested() => return Ok(()),
                () = tokio::time::sleep(backoff.next_delay()) => {}
            }
        }
    }

    async fn stages(&self, opened: Opened, output: consumer::Output) -> (Result<(), Ended>, Committed) {
        let Self { context, partitions, .. } = self;
        let (to_commit, handed) = mpsc::channel::<Handed>(1);
        let disk = Arc::new(Semaphore::new(1));
        let (mut to_acknowledge, mut working) =
            (Vec::with_capacity(partitions.len()), Vec::with_capacity(partitions.len()));
        let seen: Vec<Rc<Seen>> = partitions.iter().map(|_| Rc::default()).collect();
        for (partition, seen) in partitions.iter().zip(&seen) {
            let (to_partition, committed) = mpsc::unbounded_channel();
            to_acknowledge.push(to_partition);
            let ends = Ends { to_commit: to_commit.clone(), disk: disk.clone(), committed };
            working.push(self.consume_and_acknowledge(partition, Rc::clone(seen), output.clone(), ends));
        }
        drop(to_commit);
        let leases = match self.consume {
            Consumption::Group => Vec::new(),
            Consumption::Exclusive { .. } => seen.iter().map(|seen| seen.lease.clone()).collect(),
        };
        // Others are configured alike, so they take over what we have left pending as we do.
        let stale_after = self.claim_idle().and_then(|idle| idle.checked_div(2));
        let mut commit = Commit::new(
            opened.output,
            seen,
            stale_after,
            leases,
            &context.health,
            &context.shutdown,
            context.hangup.clone(),
        );
        let committing = commit.run(handed, to_acknowledge);
        let ended = tokio::try_join!(committing, try_join_all(working)).map(|_| ());
        (ended, commit.into_committed())
    }

    /// The stages that a partition has for itself. A stop in one of them is no reason for other
    /// partitions to stop where they are.
    async fn consume_and_acknowledge(
        &self,
        partition: &PartitionWork,
        seen: Rc<Seen>,
        output: consumer::Output,
        Ends { to_commit, disk, committed }: Ends,
    ) -> Result<(), Ended> {
        let (give_back, empty) = mpsc::unbounded_channel();
        for _ in 0..BATCHES {
            // The receiver exists.
            let _ = give_back.send(Batch::of(partition.nth));
        }
        let settings = Settings {
            group: partition.group.name.clone(),
            consumer: partition.group.consumer.clone(),
            partitions: partition.stream.partition.is_whole().then_some(1),
            once: self.service.once,
            claim_idle: self.claim_idle(),
            consume: self.consume.clone(),
            output,
        };
        let mut fetch = Consume {
            group: &partition.group,
            output: &self.args.output,
            link: Link::Own(partition.stream.connector.clone()),
            health: &partition.stream.health,
            shutdown: &self.context.shutdown,
            claims: self.claim_idle().is_some(),
            is_allowed: &partition.is_allowed,
            consumer: Consumer::new(partition.stream.partition, settings),
            batch: Batch::of(partition.nth),
            seen: Rc::clone(&seen),
            log: ConsumeLog::default(),
            disk,
            to_commit,
            empty,
            spare: None,
        };
        let mut acknowledge = Acknowledge::new(partition, &self.context.shutdown, &self.totals, seen);
        let fetching = async {
            let ended = fetch.run().await;
            // Without the sender, the next stage ends when it is done with what it has.
            drop(fetch);
            ended
        };
        let acknowledging = acknowledge.run(committed, give_back);
        match tokio::try_join!(fetching, acknowledging) {
            Ok(_) | Err(Ended::Stop(Stop::Shutdown)) => Ok(()),
            Err(ended) => Err(ended),
        }
    }

    fn claim_idle(&self) -> Option<Duration> {
        self.args.claim_idle.and_then(|idle| idle.0)
    }
}

/// The channels between a partition's own stages and the shared commit stage.
struct Ends {
    to_commit: mpsc::Sender<Handed>,
    disk: Arc<Semaphore>,
    committed: mpsc::UnboundedReceiver<Batch>,
}

/// An output that is to be opened.
pub(crate) struct Opening<'a> {
    pub(crate) output: &'a Path,
    pub(crate) identity: &'a Identity,
    pub(crate) fsync: Fsync,
    pub(crate) lock_wait: Duration,
    pub(crate) health: &'a Health,
    pub(crate) shutdown: &'a Shutdown,
    /// It is one of many.
    pub(crate) many: Option<&'a OneOfMany>,
}

impl Opening<'_> {
    /// Opens the output, however long the disk refuses. `None`: the service is to stop.
    ///
    /// With `is_reopened`, this process had the output open before: a thread may still be writing
    /// to it, and keep its lock until then.
    pub(crate) async fn open(&self, is_reopened: bool) -> Result<Option<Opened>, Failure> {
        let Self { fsync, lock_wait, health, shutdown, .. } = *self;
        let mut backoff = disk_backoff();
        let begun = Instant::now();
        loop {
            health.progress();
            let (owned, of, many) = (self.output.to_owned(), self.identity.clone(), self.many.cloned());
            let thread = match &many {
                Some(many) => Arc::clone(&many.threads).acquire_owned().await.ok(),
                None => None,
            };
            let opened = tokio::task::spawn_blocking(move || {
                let opened = Output::open(&owned, &of, fsync, many.as_ref());
                drop(thread);
                opened
            })
            .await;
            match opened.map_err(|error| Failure::failed(format!("opening the output: {error}")))? {
                Ok(opened) => {
                    health.file(Ok(()));
                    return Ok(Some(opened));
                }
                Err(OpenError::Locked(_)) if is_reopened && begun.elapsed() < OWN_THREAD => {}
                Err(OpenError::Locked(text)) if begun.elapsed() < lock_wait => {
                    health.file(Err(format!("{text}; waiting for its end for at most {} s", lock_wait.as_secs_f64())));
                }
                Err(OpenError::Config(text) | OpenError::Locked(text)) => return Err(Failure::Config(text)),
                Err(error @ OpenError::Io { .. }) => {
                    service::metrics::error("disk");
                    let advice = match &error {
                        OpenError::Io { source, .. } => service::advice::io(source),
                        OpenError::Config(_) | OpenError::Locked(_) => "",
                    };
                    health.file(Err(format!("{error}; trying again within 2 s; {advice}")));
                }
            }
            tokio::select! {
                () = shutdown.requested() => return Ok(None),
                () = tokio::time::sleep(backoff.next_delay()) => {}
            }
        }
    }
}

/// Describes a newly opened output for the consumer. `former` contains the IDs of the outputs that
/// this process has written to at this path.
pub(crate) fn for_consumer(
    opened: &Opened,
    lost: Vec<(u64, Span)>,
    path: &Path,
    former: &mut Vec<String>,
) -> consumer::Output {
    let id = format!("{:016x}", opened.output.id());
    consumer::Output {
        id: id.clone(),
        former: std::mem::replace(former, vec![id]),
        file: file_of(path),
        // A refused start may have created an empty journal.
        journal_is_missing: opened.output.len() > 0 && opened.output.held().is_empty(),
        has_unknown_tail: opened.has_unknown_tail,
        held: opened.held.clone(),
        lost,
    }
}

/// The identity of the output file.
pub(crate) fn file_of(output: &Path) -> FileIdentity {
    // Opening a pipe would block until its other end is opened.
    let regular = std::fs::metadata(output).ok().filter(std::fs::Metadata::is_file);
    let opened = regular.and_then(|metadata| Some((metadata, File::open(output).ok()?)));
    let Some((metadata, file)) = opened else { return FileIdentity::default() };
    let (dev, ino) = (metadata.dev(), metadata.ino());
    let mut head = Vec::new();
    // An unreadable head is not compared.
    let _ = file.take(HEAD_LEN as u64).read_to_end(&mut head);
    FileIdentity { dev, ino, head }
}

/// Maximum number of lost ranges that are logged individually.
const LOST_LINES: usize = 10;

/// Logs the state of a newly opened output. Returns the ranges that were removed from it.
pub(crate) fn tell(
    opened: &Opened,
    before: Option<&BTreeMap<u64, RangeSet>>,
    path: &Path,
    level: log::Level,
) -> Vec<(u64, Span)> {
    let path = path.display();
    let len = opened.output.len();
    let contents = opened.held.len() as u64;
    let bytes: u64 = opened.held.values().map(RangeSet::bytes).sum();
    log::log!(
        level,
        "{path}: {len} {}; the journal lists {bytes} of them, from {contents} {}",
        noun(len, "byte"),
        noun(contents, "content")
    );
    match opened.journal {
        JournalWas::Missing => log::warn!(
            "{path}: its journal is missing, so the origin of these {len} bytes is unknown, and redelivered lines are written \
             again; if a writer wrote them, stop this one and restore the journal from the same backup as the output"
        ),
        JournalWas::Read { restored } if restored > 0 => {
            log::warn!("{path}: damaged records of its journal were restored: {restored}; check the disk");
        }
        JournalWas::New | JournalWas::Read { .. } => {}
    }
    if opened.behind > 0 && !opened.has_unknown_tail {
        log::warn!("{path}: cut off {} bytes of an unfinished commit", opened.behind);
    }
    let gone = before.map(|before| {
        let mut gone: BTreeMap<u64, RangeSet> = BTreeMap::new();
        for (&file, held) in before {
            let now = opened.held.get(&file).cloned().unwrap_or_default();
            for span in held.iter().flat_map(|span| now.missing(span).collect::<Vec<_>>()) {
                gone.entry(file).or_default().insert(span);
            }
        }
        gone
    });
    let lost = gone.as_ref().unwrap_or(&opened.lost);
    let bytes: u64 = lost.values().map(RangeSet::bytes).sum();
    counter!(metric_names::GAP_BYTES).increment(bytes);
    let ranges: Vec<_> = lost.iter().flat_map(|(file, lost)| lost.iter().map(move |span| (file, span))).collect();
    let (told, rest) = ranges.split_at(ranges.len().min(LOST_LINES));
    for (file, span) in told {
        log::error!(
            "{path}: truncated or replaced by another program: bytes {}..{} ({} bytes) of content {file} are lost; copy \
             them from the source; or stop this writer, and restore output and journal from one backup",
            span.start,
            span.end,
            span_len(span)
        );
    }
    if !rest.is_empty() {
        let bytes: u64 = rest.iter().map(|(_, span)| span_len(span)).sum();
        log::error!(
            "{path}: {} more {} ({bytes} bytes) are lost; `writer verify` lists them",
            rest.len(),
            noun(rest.len() as u64, "range")
        );
    }
    ranges.into_iter().map(|(&file, span)| (file, span)).collect()
}
