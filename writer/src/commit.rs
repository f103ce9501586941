//! Stage 2: batches to the disk, in order, whatever the disk says.

use crate::disk_space;
use crate::group::Seen;
use crate::metric_names;
use crate::output::{self, CommitError, Output};
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
use tokio::sync::{Notify, mpsc};
use tokio::time::MissedTickBehavior;

/// How often the output is looked after while nothing is written: syncs that are due, somebody
/// else's changes.
const MAINTAIN: Duration = Duration::from_secs(1);

/// What an output held when it was given up; `None` when that is not known.
pub(crate) type Committed = Option<BTreeMap<u64, RangeSet>>;

/// The stage.
pub(crate) struct Commit<'a> {
    /// `None` while a blocking thread has it.
    output: Option<Output>,
    /// What the partitions' own stages have seen.
    seen: Vec<Rc<Seen>>,
    health: &'a Health,
    shutdown: &'a Shutdown,
    /// SIGHUP: the output may have been renamed.
    hangup: Arc<Notify>,
    path: PathBuf,
    /// A batch that came longer ago may have been taken over by another consumer.
    stale_after: Option<Duration>,
    measured: Measured,
}

/// The metrics of every batch, looked up once.
struct Measured {
    lines: Counter,
    bytes: Counter,
    batches: Counter,
    size: Gauge,
    duration: Histogram,
    fsync: Histogram,
}

impl<'a> Commit<'a> {
    /// The stage for this output.
    pub(crate) fn new(
        output: Output,
        seen: Vec<Rc<Seen>>,
        stale_after: Option<Duration>,
        health: &'a Health,
        shutdown: &'a Shutdown,
        hangup: Arc<Notify>,
    ) -> Self {
        let measured = Measured {
            lines: counter!(metric_names::LINES),
            bytes: counter!(metric_names::BYTES),
            batches: counter!(metric_names::BATCHES),
            size: gauge!(metric_names::OUTPUT_SIZE),
            duration: histogram!(metric_names::BATCH_DURATION),
            fsync: histogram!(metric_names::FSYNC_DURATION),
        };
        let path = output.path().to_owned();
        Self { output: Some(output), seen, health, shutdown, hangup, path, stale_after, measured }
    }

    /// What the output holds now.
    pub(crate) fn into_committed(self) -> Committed {
        self.output.map(|output| output.held())
    }

    /// Commits what is handed over, until nobody hands over any more. What is committed goes to the
    /// stage that acknowledges it, of which each partition has one.
    pub(crate) async fn run(
        &mut self,
        mut handed: mpsc::Receiver<Handed>,
        to_acknowledge: Vec<mpsc::UnboundedSender<Batch>>,
    ) -> Result<(), Ended> {
        let mut ticks = tokio::time::interval(MAINTAIN);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // When even the first batch is late, all will be, and waiting for a fresh one would be
        // waiting for ever.
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
            let commit = move |output: &mut Output, batch: &Batch| match (stale_after, batch.came_at) {
                (Some(after), Some(came_at)) if came_at.elapsed() >= after => Err(CommitError::Stale),
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
            // Never waits, so that no partition waits for another one's Redis; there are only so
            // many batches of each. When nobody takes it, that partition's part of the work has
            // ended, and it comes again.
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

    /// Whether all partitions have found that the output is theirs, and its journal not too old.
    fn is_judged(&self) -> bool {
        self.seen.iter().all(|seen| seen.has_name.get())
    }

    /// Does something with the output until it succeeds. `None`: it did not, and the service is to
    /// stop.
    async fn retry(
        &mut self,
        mut batch: Batch,
        work: impl Fn(&mut Output, &Batch) -> Result<(), CommitError> + Send + Copy + 'static,
    ) -> Result<Option<Batch>, Ended> {
        let mut backoff = disk_backoff();
        loop {
            let Some(mut output) = self.output.take() else {
                return Err(Failure::failed("the output was lost when a thread died").into());
            };
            let done = tokio::task::spawn_blocking(move || {
                let done = work(&mut output, &batch);
                disk_space::measure(output.path());
                (output, batch, done)
            })
            .await;
            let (mut output, same, done) =
                done.map_err(|error| Failure::failed(format!("writing the output: {error}")))?;
            batch = same;
            if let Some(took) = output.sync_took() {
                self.measured.fsync.record(took);
            }
            self.measured.size.set(output.len() as f64);
            self.output = Some(output);
            match done {
                Ok(()) => {
                    self.health.file(Ok(()));
                    return Ok(Some(batch));
                }
                Err(CommitError::Rotated(became)) => {
                    log::info!(
                        "{}: renamed to {}; going on in a new file, the journal of the old one went with it",
                        self.path.display(),
                        became.display()
                    );
                    return Err(Ended::Again);
                }
                Err(CommitError::Disturbed(what)) => {
                    service::metrics::error("disturbed");
                    log::error!("{}: {what}; going on from what it holds now", self.path.display());
                    return Err(Ended::Again);
                }
                Err(CommitError::Stale) => {
                    log::warn!(
                        "a batch waited so long that another writer may have taken it over; reading again what is still ours"
                    );
                    return Err(Ended::Again);
                }
                Err(CommitError::Io { what, source }) => {
                    if output::is_of_sync(what) {
                        counter!(metric_names::FSYNC_ERRORS).increment(1);
                    }
                    service::metrics::error("disk");
                    self.health.progress();
                    self.health.file(Err(format!(
                        "{}: {what}: {source}; nothing of it is acknowledged, trying again within 2 s; {}",
                        self.path.display(),
                        service::advice::io(&source)
                    )));
                }
            }
            tokio::select! {
                () = self.shutdown.requested() => return Ok(None),
                () = tokio::time::sleep(backoff.next_delay()) => {}
            }
        }
    }
}
