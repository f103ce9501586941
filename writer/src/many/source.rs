//! One source: its output, and the stages that fill it while there is something to do.

use super::Shared;
use super::parking::{Closed, Parking};
use super::survey::{Backlog, show_latency};
use crate::check;
use crate::commit::{Commit, Committed};
use crate::consume::{Consume, Link};
use crate::consume_log::ConsumeLog;
use crate::group::{Group, Seen};
use crate::journal_file::folder_of;
use crate::latency::Latency;
use crate::run::{Ended, Opening, disk_backoff, for_consumer, tell};
use delivery::consumer::{Batch, Consumer, Consumption, Settings};
use delivery::journal::Identity;
use delivery::partition::Partition;
use delivery::source_name::SourceName;
use resp::StreamId;
use service::preflight::{Commands, must_be_allowed};
use service::{Failure, Health, Stop};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::time::Instant;

/// The maximum number of batches of a source in progress: one is being written or acknowledged.
/// Another one is being filled.
const BATCHES: usize = 1;
/// How soon a source that cannot go on is tried again.
const AGAIN: Duration = Duration::from_secs(5);

/// The state of a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// It waits for a place among the open outputs.
    Waiting,
    /// It reads.
    Active,
    /// Nothing comes; its output is open.
    Idle,
    /// Nothing comes; its output is closed.
    Closed,
    /// It cannot go on, and tries again.
    Failed,
    /// All of it is written (`--once`).
    Done,
}

impl State {
    /// The state in a word.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Active => "active",
            Self::Idle => "idle",
            Self::Closed => "closed",
            Self::Failed => "failed",
            Self::Done => "done",
        }
    }
}

/// One source.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) name: SourceName,
    pub(crate) group: Group,
    pub(crate) output: PathBuf,
    pub(crate) health: Health,
    identity: Identity,
    /// Notified when something may have come.
    pub(crate) woken: Notify,
    /// Notified when the output is to be closed.
    pub(crate) close: Notify,
    hangup: Arc<Notify>,
    /// It waits for what comes behind this entry.
    pub(crate) parked: Cell<Option<StreamId>>,
    pub(crate) has_long_entries: Cell<bool>,
    /// How many entries were pending when it was last parked or woken for them.
    pub(crate) pending: Cell<u64>,
    /// The epoch of the connections when it was last woken for what was pending.
    pub(crate) epoch: Cell<u64>,
    /// The reader is done with it.
    pub(crate) is_finished: Cell<bool>,
    /// The group knows this consumer.
    pub(crate) has_joined: Cell<bool>,
    pub(crate) backlog: Cell<Option<Backlog>>,
    pub(super) latency: RefCell<Latency>,
    /// Something was committed since the survey last asked when the reader sent it.
    pub(super) has_committed: Cell<bool>,
    /// The length of the output.
    pub(crate) size: Cell<u64>,
    state: Cell<(State, Instant)>,
    /// Why it cannot go on.
    pub(crate) reason: RefCell<Option<String>>,
}

impl Source {
    pub(crate) fn set_state(&self, state: State) {
        self.state.set((state, Instant::now()));
    }

    pub(crate) const fn state(&self) -> State {
        self.state.get().0
    }

    /// Since when it has nothing to do and its output open.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        let (state, since) = self.state.get();
        (state == State::Idle).then_some(since)
    }

    /// Whether it waits to be woken.
    pub(crate) const fn is_parked(&self) -> bool {
        matches!(self.state(), State::Idle | State::Closed)
    }

    /// Something may have come.
    pub(crate) fn wake(&self) {
        self.parked.set(None);
        self.woken.notify_one();
    }

    /// Closes the output of a source that is idle.
    pub(super) fn close(&self) {
        // Who comes next closes another one.
        self.set_state(State::Closed);
        self.close.notify_one();
    }

    /// The output may have been renamed.
    pub(super) fn hangup(&self) {
        self.hangup.notify_one();
    }
}

/// All sources that are known, by the keys of their streams.
#[derive(Debug, Default)]
pub(crate) struct Sources(RefCell<BTreeMap<String, Rc<Source>>>);

impl Sources {
    pub(crate) fn len(&self) -> usize {
        self.0.borrow().len()
    }

    /// All of them now.
    pub(crate) fn all(&self) -> impl Iterator<Item = Rc<Source>> + use<> {
        let all: Vec<_> = self.0.borrow().values().map(Rc::clone).collect();
        all.into_iter()
    }

    pub(crate) fn with_key(&self, key: &str) -> Option<Rc<Source>> {
        self.0.borrow().get(key).map(Rc::clone)
    }

    pub(super) fn add(&self, source: Rc<Source>) {
        self.0.borrow_mut().insert(source.group.stream.clone(), source);
    }
}

/// Why a source ends.
pub(crate) enum Failed {
    /// The source cannot go on, and `--once` does not wait.
    Source(Failure),
    /// No source can.
    All(Stop),
}

/// Takes up a source.
pub(super) fn new(shared: &Shared<'_>, name: SourceName, nth: usize) -> Rc<Source> {
    let output = shared.folder.join(name.path());
    let stream = name.key(&shared.service.stream);
    let identity = Identity::new(&stream, &shared.args.group, &[Partition::WHOLE]);
    let health = shared.context.health.for_source(nth, &name.escaped());
    shared.many.journals.add(&output);
    Rc::new(Source {
        group: Group::new(stream, shared.args.group.clone(), shared.args.consumer_of(&output)),
        name,
        output,
        health,
        identity,
        woken: Notify::new(),
        close: Notify::new(),
        hangup: Arc::default(),
        parked: Cell::new(None),
        has_long_entries: Cell::new(false),
        pending: Cell::new(0),
        epoch: Cell::new(0),
        is_finished: Cell::new(false),
        has_joined: Cell::new(false),
        backlog: Cell::new(None),
        latency: RefCell::new(Latency::of_source()),
        has_committed: Cell::default(),
        size: Cell::new(0),
        state: Cell::new((State::Waiting, Instant::now())),
        reason: RefCell::new(None),
    })
}

/// The state of an output while it is closed.
#[derive(Default)]
struct Kept {
    /// The contents of the output when it was closed.
    committed: Committed,
    /// IDs of outputs that this process has written to.
    former: Vec<String>,
}

/// Writes what comes of a source until the service stops or, with `--once`, until nothing is left.
pub(super) async fn run(shared: &Shared<'_>, source: Rc<Source>) -> Result<(), Failed> {
    let shutdown = &shared.context.shutdown;
    let mut kept = Kept::default();
    let mut backoff = disk_backoff();
    loop {
        let place = tokio::select! {
            biased;
            () = shutdown.requested() => return Ok(()),
            place = shared.slots.take(&shared.sources) => place,
        };
        let opened_at = Instant::now();
        let worked = work(shared, &source, &mut kept).await;
        drop(place);
        let pause = match worked {
            _ if shutdown.is_requested() => return Ok(()),
            Err(Failed::Source(failure)) => {
                if shared.service.once {
                    source.set_state(State::Failed);
                    return Err(Failed::Source(failure));
                }
                let text = failure.to_string();
                if source.reason.borrow().as_ref() != Some(&text) {
                    log::error!(
                        "source {}: {text}; the others go on, trying again every {} s",
                        source.name,
                        AGAIN.as_secs()
                    );
                }
                source.health.file(Err(text.clone()));
                source.reason.replace(Some(text));
                source.set_state(State::Failed);
                AGAIN
            }
            Err(failed) => return Err(failed),
            Ok(Some(Closed::Done)) => {
                source.set_state(State::Done);
                return Ok(());
            }
            Ok(Some(Closed::Idle)) => {
                source.set_state(State::Closed);
                tokio::select! {
                    () = shutdown.requested() => return Ok(()),
                    () = source.woken.notified() => {}
                }
                source.set_state(State::Waiting);
                continue;
            }
            Ok(Some(Closed::Yielded)) => {
                source.set_state(State::Waiting);
                continue;
            }
            Ok(None) => {
                if opened_at.elapsed() >= crate::run::CALM {
                    backoff.reset();
                }
                backoff.next_delay()
            }
        };
        tokio::select! {
            () = shutdown.requested() => return Ok(()),
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Opens the output, and works until it is to be closed. `None`: the batches in progress may be
/// wrong, so begin again with the contents of the output.
async fn work(shared: &Shared<'_>, source: &Rc<Source>, kept: &mut Kept) -> Result<Option<Closed>, Failed> {
    let Shared { context, args, service, .. } = *shared;
    let claim_idle = args.claim_idle.and_then(|idle| idle.0);
    if !shared.is_allowed.get() {
        let (mut connection, mut lent) = shared.borrow(source).await.map_err(Failed::All)?;
        let commands = check::commands(&source.group, claim_idle.is_some(), false);
        let needed = Commands { connection: &mut connection, watched: source.group.stream.clone(), commands };
        must_be_allowed(needed).await.map_err(|failure| Failed::All(failure.into()))?;
        lent.give_back(connection);
        shared.is_allowed.set(true);
    }
    make_folders(shared, source).await?;
    let opening = Opening {
        output: &source.output,
        identity: &source.identity,
        fsync: args.fsync,
        lock_wait: args.lock_wait.0,
        health: &source.health,
        shutdown: &context.shutdown,
        many: Some(&shared.many),
    };
    let is_reopened = !kept.former.is_empty();
    let opened = opening.open(is_reopened).await.map_err(Failed::Source)?;
    let Some(opened) = opened else { return Ok(Some(Closed::Done)) };
    source.reason.replace(None);
    source.size.set(opened.output.len());
    let lost = tell(&opened, kept.committed.as_ref(), &source.output, log::Level::Debug);
    let output = for_consumer(&opened, lost, &source.output, &mut kept.former);
    let seen = Rc::<Seen>::default();
    let (to_commit, handed) = mpsc::channel(1);
    let (to_acknowledge, mut committed) = mpsc::unbounded_channel::<Batch>();
    let (give_back, empty) = mpsc::unbounded_channel();
    for _ in 0..BATCHES {
        // The receiver exists.
        let _ = give_back.send(Batch::of(0));
    }
    let settings = Settings {
        group: source.group.name.clone(),
        consumer: source.group.consumer.clone(),
        partitions: Some(1),
        once: service.once,
        claim_idle,
        consume: Consumption::Group,
        output,
    };
    let mut fetch = Consume {
        group: &source.group,
        output: &source.output,
        link: Link::Shared(Parking::new(shared, source)),
        health: &source.health,
        shutdown: &context.shutdown,
        claims: claim_idle.is_some(),
        is_allowed: &shared.is_allowed,
        consumer: Consumer::new(Partition::WHOLE, settings),
        batch: Batch::of(0),
        seen: Rc::clone(&seen),
        log: ConsumeLog::of_source(),
        disk: Arc::new(Semaphore::new(1)),
        to_commit,
        empty,
        spare: None,
    };
    let mut commit = Commit::new(
        opened.output,
        vec![seen],
        claim_idle.and_then(|idle| idle.checked_div(2)),
        Vec::new(),
        &source.health,
        &context.shutdown,
        Arc::clone(&source.hangup),
    )
    .one_of(shared.many.clone());
    source.has_joined.set(true);
    let fetching = async {
        let ended = fetch.run().await;
        let closed = match &fetch.link {
            Link::Shared(parking) => parking.closed,
            Link::Own(_) => Closed::Done,
        };
        // Without the sender, the next stage ends when it is done with what it has.
        drop(fetch);
        ended.map(|()| closed)
    };
    let acknowledging = async {
        while let Some(mut batch) = committed.recv().await {
            let bytes: u64 = batch.runs.iter().map(|run| run.span.end.saturating_sub(run.span.start)).sum();
            source.size.set(source.size.get().saturating_add(bytes));
            source.latency.borrow_mut().committed(&batch);
            source.has_committed.set(true);
            show_latency(shared, source);
            let ids = std::mem::take(&mut batch.ids);
            if !ids.is_empty() && !shared.node_of(source).acknowledgements.add(source, ids).await {
                return Err(Ended::Stop(Stop::Shutdown));
            }
            // A fresh one: those of a thousand sources would keep much memory.
            let _ = give_back.send(Batch::of(0));
        }
        Ok(())
    };
    let ended = tokio::try_join!(fetching, commit.run(handed, vec![to_acknowledge]), acknowledging);
    if let Some(output) = commit.output() {
        source.size.set(output.len());
    }
    kept.committed = commit.into_committed();
    match ended {
        Ok((closed, (), ())) => Ok(Some(closed)),
        Err(Ended::Again) => Ok(None),
        Err(Ended::Stop(Stop::Shutdown)) => Ok(Some(Closed::Done)),
        Err(Ended::Stop(Stop::Failure(failure))) => Err(Failed::Source(failure)),
    }
}

/// Makes the folders of an output, durably.
async fn make_folders(shared: &Shared<'_>, source: &Source) -> Result<(), Failed> {
    let (folder, root) = (folder_of(&source.output).to_owned(), shared.folder.to_owned());
    if folder.is_dir() {
        return Ok(());
    }
    let thread = Arc::clone(&shared.many.threads).acquire_owned().await;
    let made = tokio::task::spawn_blocking(move || {
        let made = make(&root, &folder);
        drop(thread);
        made.map_err(|error| (folder, error))
    });
    let made = made.await.map_err(|error| Failed::Source(Failure::failed(format!("making folders: {error}"))))?;
    made.map_err(|(folder, error)| {
        Failed::Source(Failure::failed(format!(
            "making {}: {error}; {}",
            folder.display(),
            service::advice::io(&error)
        )))
    })
}

/// Makes `folder` and those above it up to `root`, each of them durable in the one above.
pub(super) fn make(root: &Path, folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    if folder != root && folder.starts_with(root) {
        make(root, folder_of(folder))?;
    }
    match std::fs::create_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && folder.is_dir() => {}
        made => made?,
    }
    File::open(folder_of(folder))?.sync_all()
}
