//! One of many sources while it is active: a producer that takes a connection when it has something
//! to do, and ends when only a change of its file can bring more.

use super::Shared;
use super::listing::{SharedListings, SourceListings};
use super::pool::Turn;
use crate::added_fields::AddedFields;
use crate::args::{From, ReaderArgs};
use crate::directory::InputDirectory;
use crate::driver::{Driver, FULL, WORK};
use crate::error::Interrupt;
use crate::report::Report;
use crate::scanner::Scanner;
use crate::source_file::{DiskFile, Format};
use crate::state::StateFile;
use crate::watch::Watch;
use delivery::files::Inode;
use delivery::line_reader::ReadOptions;
use delivery::partition::Partition;
use delivery::producer::{Directory as _, Limits, Options, Producer, Step, Wait};
use delivery::source_name::SourceName;
use log::{debug, warn};
use resp::streams::{XInfoGroups, XLen};
use service::{Failure, Stop};
use std::fs::{File, Metadata};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// A source that had nothing to do for this long is parked.
const IDLE: Duration = Duration::from_secs(1);
/// How often a source whose node is unreachable checks whether others wait for their turn to be
/// active.
const GIVE_WAY: Duration = Duration::from_millis(100);
/// How often a new source scans its folder while it waits for a connection.
const LOOK: Duration = Duration::from_millis(250);
/// How long a file without a name is kept open in case that somebody still writes to it.
const UNNAMED_IDLE: Duration = Duration::from_secs(60);
/// The same while others wait for their turn to be active.
const UNNAMED_IDLE_CROWDED: Duration = Duration::from_secs(3);
/// When to check a source again that was parked while its rotated file was still written to.
const QUIET: Duration = Duration::from_secs(10);
/// The size of a read: 64 KiB. There are many buffers.
const BLOCK: usize = 64 << 10;
/// How many files of earlier contents are kept open.
const OPEN_FILES: usize = 2;

/// A version of a file: if it is equal, the file has not changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileState {
    pub(crate) inode: Inode,
    pub(crate) len: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl FileState {
    pub(crate) fn of(path: &Path) -> Option<Self> {
        std::fs::metadata(path).ok().map(|metadata| Self::from(&metadata))
    }
}

impl std::convert::From<&Metadata> for FileState {
    fn from(metadata: &Metadata) -> Self {
        Self {
            inode: Inode { dev: metadata.dev(), ino: metadata.ino() },
            len: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// The next work for a source.
#[derive(Debug)]
pub(crate) struct Task {
    pub(crate) index: usize,
    pub(crate) name: SourceName,
    pub(crate) path: PathBuf,
    pub(crate) state_dir: PathBuf,
    pub(crate) from_end: bool,
    pub(crate) woken: Rc<Notify>,
    /// The file, opened as soon as it changed.
    pub(crate) held: Option<DiskFile>,
}

/// Why a source is not active any more.
#[derive(Debug)]
pub(crate) enum Ended {
    /// It has nothing to do until its file changes.
    Parked(Box<Parked>),
    /// Its node is unreachable, and others wait for their turn to be active.
    Away,
    /// `--once`: all is sent.
    Done,
    /// It cannot be followed.
    Refused(String),
    /// The service stops.
    Stopped(Stop),
}

/// The state of a parked source.
#[derive(Debug)]
pub(crate) struct Parked {
    /// Its file at the last check.
    pub(crate) seen: Option<FileState>,
    /// A hash of the guard in its record, if it has one: whether Redis still holds what it should.
    pub(crate) guard: Option<u64>,
    /// When to check it again, whether or not its file has changed by then.
    pub(crate) again_at: Option<Instant>,
}

/// The settings and the folder of a source's producer.
pub(crate) fn parts(
    args: &ReaderArgs,
    listings: &Arc<SharedListings>,
    source: usize,
    (name, path, state_dir): (&SourceName, &Path, &Path),
) -> (Options, InputDirectory) {
    let state = StateFile::of_source(state_dir, &args.service.stream, name);
    let state = state.in_state_dir(args.state_dir.as_deref());
    let limits = Limits { open_files: OPEN_FILES, ..Limits::default() };
    let options = Options {
        input: path.to_string_lossy().into_owned(),
        state: state.path().display().to_string(),
        stream: name.key(&args.service.stream),
        read: ReadOptions { block: BLOCK, ..ReadOptions::new(args.framing.framing(), Partition::WHOLE) },
        from_end: args.from == From::End,
        once: args.service.once,
        max_backlog: args.max_backlog,
        limits,
    };
    let listings = Arc::new(SourceListings { shared: Arc::clone(listings), source });
    (options, InputDirectory { scanner: Scanner::sharing(path.to_owned(), listings), state })
}

/// Works for a source until it has nothing to do.
pub(crate) async fn drive(shared: Rc<Shared>, mut task: Task) -> (usize, Ended) {
    let index = task.index;
    let added = match AddedFields::new(&shared.args.add_field, &task.path, &shared.host) {
        Ok(added) => added,
        Err(failure) => return (index, Ended::Refused(failure.to_string())),
    };
    let (options, mut directory) =
        parts(&shared.args, &shared.listings, index, (&task.name, &task.path, &task.state_dir));
    let options = Options { from_end: task.from_end, ..options };
    directory.state = directory.state.in_group(Arc::clone(&shared.states));
    let stream = options.stream.clone();
    let mut producer = Producer::new(options, directory);
    if let Some(file) = task.held.take() {
        producer.hold(file);
    }
    // The length of an archive is not that of its content.
    if Format::of(&task.path).is_none()
        && let Ok(metadata) = std::fs::metadata(&task.path)
        && let Ok(Some(inode)) = producer.directory().input()
    {
        producer.aim(inode, metadata.len());
    }
    let watch = Watch::woken_by(Rc::clone(&task.woken));
    let driver = Driver::new(producer, &stream, Partition::WHOLE, watch, shared.health.clone(), &shared.shutdown);
    let totals = shared.totals.of_source(u32::try_from(index).unwrap_or(u32::MAX));
    let driver = Driver {
        report: Report::of_source(&stream),
        added,
        totals,
        max_backlog: shared.args.max_backlog,
        input: task.path.clone(),
        group: Some(Arc::clone(&shared.states)),
        ..driver
    };
    let escaped = task.name.escaped();
    let mut active = Active {
        shared,
        task,
        escaped,
        driver,
        active_at: Instant::now(),
        is_script_barred: false,
        told: None,
        newest: None,
    };
    let ended = match active.run().await {
        Ok(ended) => ended,
        Err(Stop::Failure(Failure::Config(why))) => Ended::Refused(why),
        Err(stop) => Ended::Stopped(stop),
    };
    (index, ended)
}

struct Active {
    shared: Rc<Shared>,
    task: Task,
    escaped: String,
    driver: Driver,
    /// When it last had something to do.
    active_at: Instant,
    /// Whether the next batch goes out as a transaction, because a script failed.
    is_script_barred: bool,
    /// The last reported state of the file.
    told: Option<String>,
    /// The newest generation whose file is known to others.
    newest: Option<u64>,
}

impl Active {
    async fn run(&mut self) -> Result<Ended, Stop> {
        loop {
            // Before the look, so that what changes after it is noticed.
            let seen = FileState::of(&self.task.path);
            let step = match self.turn().await? {
                None => return Ok(Ended::Away),
                Some(Ok(step)) => step,
                Some(Err(interrupt)) => {
                    self.recover(interrupt).await?;
                    continue;
                }
            };
            match step {
                Step::Wait(Wait::Input) => {
                    self.show();
                    let is_once = self.shared.args.service.once;
                    if (is_once || self.may_park())
                        && let Some(why) = self.unreadable()
                    {
                        return Ok(Ended::Refused(why));
                    }
                    if self.may_park() {
                        return Ok(Ended::Parked(Box::new(self.parked(seen))));
                    }
                    tokio::select! {
                        () = self.driver.watch.wait() => {}
                        () = self.shared.shutdown.requested() => {}
                    }
                }
                Step::Wait(Wait::Room) => self.wait_for_room().await?,
                Step::Wait(Wait::Pause(pause)) => tokio::time::sleep(pause).await,
                Step::Done => {
                    self.show();
                    return Ok(self.unreadable().map_or(Ended::Done, Ended::Refused));
                }
                _ => return Err(Stop::Shutdown),
            }
        }
    }

    /// The next step, on a thread of its own where it may decompress a file: others go on
    /// meanwhile.
    async fn next_step(&mut self) -> Result<Step, Interrupt> {
        self.driver.is_slow = self.driver.producer.directory().scanner.may_decompress();
        if !self.driver.is_slow {
            return self.driver.next_step();
        }
        let Task { index, name, path, state_dir, .. } = &self.task;
        let (options, directory) = parts(&self.shared.args, &self.shared.listings, *index, (name, path, state_dir));
        self.driver.next_step_aside(Producer::new(options, directory)).await
    }

    /// Performs steps until one comes that needs no connection. `None`: others are to be active
    /// instead.
    async fn turn(&mut self) -> Result<Option<Result<Step, Interrupt>>, Stop> {
        if let Err(interrupt) = self.driver.flush_state().await {
            return Ok(Some(Err(interrupt)));
        }
        let next = match self.driver.next.take() {
            Some(step) => Ok(step),
            None => self.next_step().await,
        };
        match next {
            Ok(step @ (Step::Wait(_) | Step::Done | Step::Stopped)) => return Ok(Some(Ok(step))),
            Ok(step) => {
                if !matches!(step, Step::Check { .. }) {
                    self.active_at = Instant::now();
                }
                self.driver.next = Some(step);
            }
            Err(interrupt) => return Ok(Some(Err(interrupt))),
        }
        self.shared.registry.ensure(&self.escaped).await;
        let pool = Rc::clone(&self.shared.pool);
        let mut lease = {
            let mut taking = pin!(pool.take(&self.driver.record));
            loop {
                tokio::select! {
                    biased;
                    lease = &mut taking => break lease?,
                    () = self.is_to_give_way() => return Ok(None),
                    () = tokio::time::sleep(LOOK), if !self.driver.is_slow => {
                        self.driver.producer.look(self.driver.begun.elapsed());
                    }
                }
            }
        };
        self.driver.until = Some(Turn::new(Rc::clone(&lease.pool)));
        let is_script_barred = std::mem::take(&mut self.is_script_barred);
        if is_script_barred {
            lease.abilities.bar_script();
        }
        let done = self.driver.advance(&mut lease.connection, &lease.abilities).await;
        self.driver.until = None;
        let newest = self.driver.producer.manifest().last().map(|newest| newest.generation);
        if newest != self.newest {
            self.newest = newest;
            self.shared.listings.sources().know(self.task.index, self.driver.producer.manifest());
        }
        if done.is_ok() {
            self.shared.health.redis_works(WORK);
            if !is_script_barred {
                lease.give_back();
            }
        }
        if !self.shared.shutdown.is_requested() {
            self.driver.producer.go_on();
            if let Ok(Step::Stopped) = done {
                // It was others' turn.
                return Ok(Some(Ok(Step::Wait(Wait::Pause(Duration::ZERO)))));
            }
        }
        Ok(Some(done))
    }

    /// Waits until others are to be active instead, because the node is unreachable. The one that
    /// has the only name of a file stays.
    async fn is_to_give_way(&self) {
        let has_left = self.driver.producer.input_state().is_err() && self.driver.producer.position().is_some();
        loop {
            tokio::time::sleep(GIVE_WAY).await;
            let node = self.shared.pool.of(&self.driver.record.stream);
            if node.is_away() && self.shared.is_crowded.get() && !has_left {
                return;
            }
        }
    }

    /// Shows how far it is.
    fn show(&mut self) {
        self.driver.totals.waiting(false);
        let progress = self.driver.producer.position();
        let progress = progress.filter(|_| self.driver.producer.input_state().is_ok());
        self.driver.position.set(progress.map(|(position, _)| position));
        self.driver.totals.position(self.driver.position.get());
        self.driver.totals.input_size(progress.map(|(_, size)| size));
    }

    /// Why the file that is at the path cannot be read. A file that is gone is nothing unusual.
    fn unreadable(&self) -> Option<String> {
        let why = self.driver.producer.input_state().as_ref().err()?;
        // It may have come since the producer looked.
        let is_unreadable = match std::fs::metadata(&self.task.path) {
            Ok(found) => !found.is_file() || File::open(&self.task.path).is_err(),
            Err(error) => error.kind() != ErrorKind::NotFound,
        };
        is_unreadable.then(|| why.clone())
    }

    fn may_park(&self) -> bool {
        let idle = self.active_at.elapsed();
        let is_crowded = self.shared.is_crowded.get();
        if self.shared.args.service.once || idle < IDLE && !is_crowded {
            return false;
        }
        let producer = &self.driver.producer;
        let unnamed_idle = if is_crowded { UNNAMED_IDLE_CROWDED } else { UNNAMED_IDLE };
        producer.may_rest(false) || idle >= unnamed_idle && producer.may_rest(true)
    }

    fn parked(&self, seen: Option<FileState>) -> Parked {
        let guard = self.driver.producer.next_expected().guard.map(|guard| delivery::hash(&guard));
        let again_at = self.driver.producer.waits_for_quiet().then(|| Instant::now().checked_add(QUIET)).flatten();
        Parked { seen, guard, again_at }
    }

    async fn wait_for_room(&mut self) -> Result<(), Stop> {
        self.driver.totals.waiting(true);
        self.active_at = Instant::now();
        tokio::select! {
            () = tokio::time::sleep(FULL) => {}
            () = self.shared.shutdown.requested() => return Ok(()),
        }
        let pool = Rc::clone(&self.shared.pool);
        let mut lease = pool.take(&self.driver.record).await?;
        let stream = self.driver.record.stream.clone();
        if self.driver.report.is_full() {
            let groups = lease.connection.send(&XInfoGroups::new(&stream)).await.unwrap_or_default();
            let why = self.driver.report.full(self.driver.producer.stream(), self.driver.max_backlog, &groups);
            if let Some(why) = why {
                self.tell(why);
            }
        }
        match lease.connection.send(&XLen::new(&stream)).await {
            Ok(len) => {
                self.driver.producer.set_len(len);
                self.driver.totals.stream_len(len);
                lease.give_back();
                Ok(())
            }
            Err(error) => self.recover(Interrupt::Redis(error)).await,
        }
    }

    /// Warns about a condition once, however long it lasts.
    fn tell(&mut self, what: String) {
        if self.told.as_ref() != Some(&what) {
            warn!(event = "fault", stream = self.driver.record.stream.as_str(); "source {}: {what}", self.escaped);
            self.told = Some(what);
        }
    }

    /// After an interrupt: reports it, and waits as long as it makes sense. The connection is
    /// closed.
    async fn recover(&mut self, interrupt: Interrupt) -> Result<(), Stop> {
        let mut delay = self.driver.backoff.next_delay();
        match interrupt.or_failure(&self.driver.record) {
            Interrupt::Redis(error) => {
                service::metrics::error(if error.is_server() { "redis_refused" } else { "redis_connection" });
                self.shared.pool.failed(&error);
                self.driver.health.redis_failed(WORK, &error);
            }
            Interrupt::Script(error) => {
                debug!("redis: script: {error}; the batch is sent as a transaction");
                self.is_script_barred = true;
                delay = Duration::ZERO;
            }
            Interrupt::Changed(changed) => self.driver.report.changed(changed),
            Interrupt::Input(what) => {
                service::metrics::error("input");
                self.tell(what);
            }
            Interrupt::Blocked(what) => {
                service::metrics::error("blocked");
                self.tell(what);
            }
            Interrupt::Failure(failure) => return Err(Stop::Failure(failure)),
            Interrupt::Shutdown => return Err(Stop::Shutdown),
        }
        self.driver.report_notices();
        self.driver.producer.restart();
        self.driver.producer.go_on();
        (self.driver.next, self.driver.form) = (None, None);
        self.active_at = Instant::now();
        tokio::select! {
            () = tokio::time::sleep(delay) => Ok(()),
            () = self.shared.shutdown.requested() => Err(Stop::Shutdown),
        }
    }
}
