//! Stage 2: commits batches to the output in order, and retries disk errors.
//!
//! All partitions share one such stage. It owns the [`Output`], and passes committed batches to the
//! stage that acknowledges them.

use crate::disk_space;
use crate::group::{LeaseTime, Seen};
use crate::metric_names;
use crate::output::{self, CommitError, OneOfMany, Output};
use crate::run::{Ended, Handed, disk_backoff};
use delivery::consumer::Batch;
use delivery::ranges::RangeSet;
use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
use service::{Failure, Health, Shutdown};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::MissedTickBehavior;

/// How often an idle output is maintained: due syncs, and detection of changes by other programs.
const MAINTAIN: Duration = Duration::from_secs(1);

/// The same when there are many.
const MAINTAIN_MANY: Duration = Duration::from_secs(5);

/// The ranges in an output when it was closed; `None` if unknown.
pub(crate) type Committed = Option<BTreeMap<u64, RangeSet>>;

/// The commit stage.
pub(crate) struct Commit<'a> {
    /// `None` while a blocking thread uses it.
    output: Option<Output>,
    /// The state of each partition's consumer, as seen by its own stages.
    seen: Vec<Rc<Seen>>,
    health: &'a Health,
    shutdown: &'a Shutdown,
    /// Notified on SIGHUP: the output may have been renamed.
    hangup: Arc<Notify>,
    path: PathBuf,
    /// A batch delivered longer ago than this may have been taken over by another consumer.
    stale_after: Option<Duration>,
    /// Until when what was consumed exclusively may be written, of each partition.
    leases: Vec<LeaseTime>,
    /// The output is one of many.
    many: Option<OneOfMany>,
    /// The only user of the disk.
    disk: DiskThread,
    /// When the file system's room was measured.
    space_at: Option<Instant>,
    measured: Measured,
}

/// Handles of the metrics that every batch updates.
struct Measured {
    lines: Counter,
    bytes: Counter,
    batches: Counter,
    /// Of a single output.
    size: Option<Gauge>,
    duration: Histogram,
    fsync: Histogram,
}

/// A thread that does what may wait for the disk. It is woken by one system call for each commit,
/// and a thread of the runtime's pool by several.
#[derive(Debug, Default)]
struct DiskThread(Option<std::sync::mpsc::Sender<Work>>);

type Work = Box<dyn FnOnce() + Send>;

impl DiskThread {
    /// Does the work in the thread, which goes on when nobody waits any more.
    async fn run<T: Send + 'static>(&mut self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Failure> {
        let failed = |error: &dyn std::fmt::Display| Failure::failed(format!("writing the output: {error}"));
        let thread = match &self.0 {
            Some(thread) => thread,
            None => self.0.insert(Self::start().map_err(|error| failed(&error))?),
        };
        let (done, result) = oneshot::channel();
        let work = move || {
            // Nobody waits any more when the service is to stop.
            let _ = done.send(work());
        };
        thread.send(Box::new(work)).map_err(|error| failed(&error))?;
        result.await.map_err(|error| failed(&error))
    }

    fn start() -> std::io::Result<std::sync::mpsc::Sender<Work>> {
        let (thread, all) = std::sync::mpsc::channel::<Work>();
        std::thread::Builder::new().name("disk".to_owned()).spawn(move || all.into_iter().for_each(|work| work()))?;
        Ok(thread)
    }
}

impl<'a> Commit<'a> {
    /// The stage for this output.
    pub(crate) fn new(
        output: Output,
        seen: Vec<Rc<Seen>>,
        stale_after: Option<Duration>,
        leases: Vec<LeaseTime>,
        health: &'a Health,
        shutdown: &'a Shutdown,
        hangup: Arc<Notify>,
    ) -> Self {
        let measured = Measured {
            lines: counter!(metric_names::LINES),
            bytes: counter!(metric_names::BYTES),
            batches: counter!(metric_names::BATCHES),
            size: Some(gauge!(metric_names::OUTPUT_SIZE)),
            duration: histogram!(metric_names::BATCH_DURATION),
            fsync: histogram!(metric_names::FSYNC_DURATION),
        };
        let path = output.path().to_owned();
        Self {
            output: Some(output),
            seen,
            health,
            shutdown,
            hangup,
            path,
            stale_after,
            leases,
            many: None,
            disk: DiskThread::default(),
            space_at: None,
            measured,
        }
    }

    /// The output is one of many.
    pub(crate) fn one_of(mut self, many: OneOfMany) -> Self {
        self.measured.size = None;
        self.many = Some(many);
        self
    }

    /// The ranges in the output.
    pub(crate) fn into_committed(self) -> Committed {
        self.output.map(|output| output.held())
    }

    /// The output, unless a thread that used it died.
    pub(crate) const fn output(&self) -> Option<&Output> {
        self.output.as_ref()
    }

    /// Commits batches until the channel closes. Sends each committed batch to the acknowledging
    /// stage of its partition.
    pub(crate) async fn run(
        &mut self,
        mut handed: mpsc::Receiver<Handed>,
        to_acknowledge: Vec<mpsc::UnboundedSender<Batch>>,
    ) -> Result<(), Ended> {
        let mut ticks = tokio::time::interval(if self.many.is_some() { MAINTAIN_MANY } else { MAINTAIN });
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // If the first batch is stale already, later ones are too: commit it instead of waiting for
        // a fresh one forever.
        let mut is_proven = false;
        loop {
            let (batch, busy) = tokio::select! {
                biased;
                handed = handed.recv() => match handed {
                    Some(handed) => handed,
                    None => break,
                },
                () = self.hangup.notified() => {
                    self.maintain().await?;
                    continue;
                }
                _ = ticks.tick() => {
                    self.maintain().await?;
                    continue;
                }
            };
            let begun = Instant::now();
            let stale_after = self.stale_after.filter(|_| is_proven);
            let lease = self.leases.get(batch.partition).cloned();
            let commit = move |output: &mut Output, batch: &Batch| match (stale_after, batch.came_at) {
                (Some(after), Some(came_at)) if came_at.elapsed() >= after => Err(CommitError::Stale),
                _ if lease.as_ref().is_some_and(|lease| !lease.is_valid()) => Err(CommitError::Stale),
                _ => output.commit(batch),
            };
            let Some(mut batch) = self.retry(batch, commit).await? else { return Ok(()) };
            is_proven = true;
            if !batch.runs.is_empty() {
                let took = begun.elapsed();
                self.measured.duration.record(took);
                self.health.batch(batch.lines(), batch.data.len() as u64, took);
                log::debug!(
                    event = "batch", lines = batch.lines(), bytes = batch.data.len();
                    "{}: {} lines, {} bytes committed in {took:?}", self.path.display(), batch.lines(), batch.data.len()
                );
                self.measured.batches.increment(1);
                self.measured.bytes.increment(batch.data.len() as u64);
                self.measured.lines.increment(batch.lines());
            }
            batch.durable_at = Some(SystemTime::now());
            batch.release_data();
            drop(busy);
            self.health.progress();
            // The channel is unbounded so that no partition waits for the Redis of another; the
            // pool of batches bounds it. A closed channel means that this partition has ended: its
            // entries are redelivered.
            if let Some(to_acknowledge) = to_acknowledge.get(batch.partition) {
                let _ = to_acknowledge.send(batch);
            }
        }
        let is_judged = self.is_judged();
        self.retry(Batch::default(), move |output, _| output.finish(is_judged)).await?;
        Ok(())
    }

    async fn maintain(&mut self) -> Result<(), Ended> {
        let is_judged = self.is_judged();
        self.retry(Batch::default(), move |output, _| output.maintain(is_judged)).await?;
        Ok(())
    }

    /// Whether all partitions have verified that the output is theirs and its journal is not too
    /// old.
    fn is_judged(&self) -> bool {
        self.seen.iter().all(|seen| seen.has_name.get())
    }

    /// Retries an operation on the output until it succeeds. Returns `None` if shutdown is
    /// requested first.
    async fn retry(
        &mut self,
        mut batch: Batch,
        work: impl Fn(&mut Output, &Batch) -> Result<(), CommitError> + Send + Clone + 'static,
    ) -> Result<Option<Batch>, Ended> {
        let mut backoff = disk_backoff();
        loop {
            let is_space_due = self.space_at.is_none_or(|at| at.elapsed() >= MAINTAIN);
            if is_space_due {
                self.space_at = Some(Instant::now());
            }
            let Some(mut output) = self.output.take() else {
                return Err(Failure::failed("the output was lost when a thread died").into());
            };
            let work = work.clone();
            let thread = match &self.many {
                Some(many) => Arc::clone(&many.threads).acquire_owned().await.ok(),
                None => None,
            };
            let work = move || {
                let done = work(&mut output, &batch);
                drop(thread);
                if is_space_due {
                    disk_space::measure(output.path());
                }
                (output, batch, done)
            };
            let (mut output, same, done) = if self.many.is_some() {
                let done = tokio::task::spawn_blocking(work).await;
                done.map_err(|error| Failure::failed(format!("writing the output: {error}")))?
            } else {
                self.disk.run(work).await?
            };
            batch = same;
            if let Some(took) = output.sync_took() {
                self.measured.fsync.record(took);
            }
            if let Some(size) = &self.measured.size {
                size.set(output.len() as f64);
            }
            self.output = Some(output);
            match done {
                Ok(()) => {
                    self.health.file(Ok(()));
                    return Ok(Some(batch));
                }
                Err(CommitError::Rotated(became)) => {
                    log::info!(
                        "{}: renamed to {}; continuing in a new file; the journal was renamed too",
                        self.path.display(),
                        became.display()
                    );
                    return Err(Ended::Again);
                }
                Err(CommitError::Disturbed(what)) => {
                    service::metrics::error("disturbed");
                    // What that means for the bytes is reported when the output is opened again.
                    log::info!("{}: {what}; continuing from its present contents", self.path.display());
                    return Err(Ended::Again);
                }
                Err(CommitError::Stale) => {
                    log::warn!(
                        "a batch waited so long that another writer may have taken it over; reading the entries that are still pending for this one again"
                    );
                    return Err(Ended::Again);
                }
                Err(CommitError::Io { what, source }) => {
                    if output::is_of_sync(what) {
                        counter!(metric_names::FSYNC_ERRORS).increment(1);
                    }
                    service::metrics::error("disk");
                    self.health.progress();
                    let todo = service::advice::io(&source);
                    let (path, now) = (self.path.display(), "nothing of it is acknowledged, trying again within 2 s");
                    self.health.file_failed(format!("{path}: {what}: {source}; {now}; {todo}"), &source);
                }
            }
            tokio::select! {
                () = self.shutdown.requested() => return Ok(None),
                () = tokio::time::sleep(backoff.next_delay()) => {}
            }
        }
    }
}
