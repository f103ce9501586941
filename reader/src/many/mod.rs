//! Many files: each is a source with a stream of its own.
//!
//! A source is *parked* while it has nothing to do: nothing is kept of it but its name, the state
//! of its file, and what Redis should hold. When its file or its folder changes, a driver as that
//! of a single file is made for it from its record, and ends when the source is idle. Nothing here
//! decides about contents or positions.
//!
//! | file | subject |
//! |---|---|
//! | `pattern.rs` | patterns of inputs, walks, exclusions |
//! | `events.rs` | file events of folders |
//! | `listing.rs` | folders listed once for all scanners |
//! | `source.rs` | an active source |
//! | `pool.rs` | the connections that active sources share |
//! | `registry.rs` | the list of sources in Redis |

mod events;
pub(crate) mod listing;
pub(crate) mod pattern;
pub(crate) mod pool;
mod registry;
pub(crate) mod source;

use crate::added_fields::{self, AddedFields};
use crate::args::{From, NO_FILE, ReaderArgs};
use crate::check;
use crate::driver::DRAIN;
use crate::source_file::{DiskFile, Format};
use crate::state::{StateFile, StateGroup};
use crate::totals::Totals;
use delivery::producer::Stored;
use delivery::source_name::SourceName;
use delivery::sources::{Effect, Sources};
use events::{Event, FolderEvents, Followed};
use futures_util::future::{LocalBoxFuture, try_join_all};
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use listing::{DiskTree, SharedListings};
use log::{debug, info, warn};
use pattern::{Excluded, Found, Pattern};
use pool::{NodePool, Pool};
use registry::SourceRegistry;
use resp::{Frame, Value, cmd};
use service::preflight::must_be_allowed;
use service::{Context, Failure, Health, Shutdown, SourceList, SourceRecord, SourceRow, Stop};
use source::{Ended, FileState, Parked, Task};
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::Notify;

/// How many sources are active at most.
const ACTIVE: usize = 128;
/// How many files are opened as soon as they change, before their sources are active.
const HELD: usize = 256;
/// How often parked sources and folders without events are checked, some at a time.
const TICK: Duration = Duration::from_millis(250);
/// After this many of them, every parked source's file was checked, for file systems without
/// events.
const SWEEP: usize = 20;
/// How often Redis is asked about some parked sources, and after how many times about all.
const ASK: Duration = Duration::from_secs(2);
const ASKS: usize = 100;
/// How often everything is walked, in case that events were lost.
const WALK: Duration = Duration::from_secs(30);
/// How often at most.
const WALK_PAUSE: Duration = Duration::from_millis(200);
/// How often the pages get a list of the sources at most.
const LIST: Duration = Duration::from_secs(2);
/// When a source that was refused is tried again.
const REFUSED: Duration = Duration::from_secs(60);
/// How many sources Redis is asked about at once.
const ASKED: usize = 256;

/// State that all sources share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) args: ReaderArgs,
    pub(crate) shutdown: Shutdown,
    pub(crate) health: Health,
    pub(crate) pool: Rc<Pool>,
    pub(crate) registry: SourceRegistry,
    pub(crate) totals: Totals,
    pub(crate) listings: Arc<SharedListings>,
    pub(crate) states: Arc<StateGroup>,
    /// Whether sources wait to be active.
    pub(crate) is_crowded: Cell<bool>,
    pub(crate) host: String,
}

/// Follows the files until there is nothing left to do (`--once`) or the service stops.
pub(crate) async fn run(args: ReaderArgs, context: Context) -> Result<(), Stop> {
    let many = Many::new(args, &context)?;
    let shutdown = context.shutdown.clone();
    let registry_connector = context
        .connector
        .for_stream(&delivery::source_name::registry_key(&many.shared.args.service.stream), context.health.clone());
    let shared = Rc::clone(&many.shared);
    let stop = async {
        shutdown.requested().await;
        tokio::time::sleep(DRAIN).await;
    };
    tokio::select! {
        biased;
        done = many.follow() => done,
        stopped = shared.registry.maintain(registry_connector), if !shutdown.is_requested() => Err(stopped),
        () = shared.pool.follow() => Err(Stop::Shutdown),
        () = stop => {
            info!("stopping with batches unconfirmed; the next start asks Redis what became of them");
            Err(Stop::Shutdown)
        }
    }
}

/// One of the sources.
#[derive(Debug)]
struct Source {
    name: SourceName,
    path: PathBuf,
    /// Where its pattern begins, and its state file is unless `--state-dir` says otherwise.
    base: PathBuf,
    phase: Phase,
    parked: Option<Box<Parked>>,
    /// Wakes it while it is active.
    woken: Rc<Notify>,
    /// Its file when it was last changed, so that it is still there when it is its turn.
    held: Option<DiskFile>,
    from_end: bool,
    is_urgent: bool,
    refused_at: Option<Instant>,
    /// Why it was refused.
    reason: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Parked,
    Queued,
    /// `again`: something has changed meanwhile.
    Active {
        again: bool,
    },
    /// `--once`: all is sent.
    Done,
}

type Work = FuturesUnordered<LocalBoxFuture<'static, (usize, Ended)>>;

/// The sources, and what is going on.
struct Many {
    shared: Rc<Shared>,
    patterns: Vec<Pattern>,
    excluded: Excluded,
    sources: Vec<Source>,
    queue: VecDeque<usize>,
    /// Those that a file event was about: they go first.
    urgent: VecDeque<usize>,
    active: Work,
    /// Those that gave way to others because their node is unreachable.
    away: BTreeSet<usize>,
    /// How many files are opened before their sources are active.
    held: usize,
    events: FolderEvents,
    /// Folders without events, or whose events may not tell all, with their times.
    polled: HashMap<PathBuf, Option<SystemTime>>,
    walked_at: Option<Instant>,
    must_walk: bool,
    /// Notices already reported, so that each is reported once.
    told: HashSet<String>,
    unlisted: Option<String>,
    swept: usize,
    refused: Option<String>,
    rows: SourceList,
    /// Whether the list of sources may have changed, and when it was last set.
    is_list_old: bool,
    listed_at: Option<Instant>,
}

/// The result of a walk.
#[derive(Debug, Default)]
struct Walked {
    folders: Vec<PathBuf>,
    files: BTreeSet<PathBuf>,
    /// How many files matched. Two patterns may match the same file.
    matched: usize,
    unlisted: Option<String>,
}

impl Found for Walked {
    fn folder(&mut self, path: &Path) {
        self.folders.push(path.to_owned());
    }

    fn file(&mut self, path: PathBuf) {
        self.matched = self.matched.saturating_add(1);
        self.files.insert(path);
    }

    fn unlisted(&mut self, path: &Path, error: io::Error) {
        let advice = service::advice::io(&error);
        self.unlisted = Some(format!("cannot list {}: {error}; {advice}", path.display()));
    }
}

/// The patterns of the inputs.
fn patterns(args: &ReaderArgs) -> Result<Vec<Pattern>, Failure> {
    if args.service.partitions > 1 {
        let (count, from) = (args.service.partitions, service::args::origin("partitions"));
        return Err(Failure::config(format!(
            "--partitions {count}{from}: with many files each has a stream of its own; allowed: 1, or one --input"
        )));
    }
    let pattern = |input: &PathBuf| {
        let from = service::args::origin("input");
        if input.as_os_str() == "-" {
            return Err(Failure::config(format!(
                "--input -{from}: standard input cannot be read again after a fault; allowed: a file's path, or a pattern"
            )));
        }
        let wrong = |why: String| Failure::config(format!("--input {}{from}: {why}", input.display()));
        let pattern = Pattern::new(input).map_err(wrong)?;
        match pattern.plain().and_then(|path| std::fs::metadata(path).ok()) {
            Some(found) if !found.is_file() => Err(wrong(NO_FILE.to_owned())),
            _ => Ok(pattern),
        }
    };
    args.input.iter().map(pattern).collect()
}

/// A file that would be a source: its name, its path, and the folder of its state file.
pub(crate) type Candidate = (SourceName, PathBuf, PathBuf);

/// The files that match now, and why a folder cannot be listed.
pub(crate) fn candidates(args: &ReaderArgs) -> Result<(Vec<Candidate>, SharedListings, Option<String>), Failure> {
    let excluded = Excluded::new(&args.exclude)?;
    let patterns = patterns(args)?;
    let mut walked = Walked::default();
    for pattern in &patterns {
        match pattern.plain() {
            Some(path) => drop(walked.files.insert(path)),
            None => pattern.walk(&mut walked),
        }
    }
    let (named, _) = named(&patterns, &excluded, &walked.files);
    let listings = SharedListings::default();
    let mut found = Vec::new();
    let effects = listings.sources().find(&names(&named), true, &DiskTree);
    for effect in effects {
        match effect {
            Effect::Follow(source) => found.push(source),
            Effect::SameName(path, source) => return Err(same_name(&listings.sources(), source, &path)),
            Effect::Wake(_) | Effect::Moved(..) => {}
        }
    }
    let sources = listings.sources();
    let candidate = |source| {
        let path = sources.path(source)?;
        let (name, base) = named.get(path)?;
        Some((name.clone(), path.to_owned(), args.state_dir.clone().unwrap_or_else(|| base.clone())))
    };
    let mut found: Vec<Candidate> = found.into_iter().filter_map(candidate).collect();
    found.sort();
    drop(sources);
    Ok((found, listings, walked.unlisted))
}

/// The stream is that of a single file.
pub(crate) fn carries_one_file(stream: &str, begun: u32) -> Failure {
    Failure::config(format!(
        "--stream {stream}: it carries a single file already (--partitions {begun}); allowed: another --stream for \
         many files"
    ))
}

/// The names of files, and the folder of each one's pattern.
type Named = BTreeMap<PathBuf, (SourceName, PathBuf)>;

/// The files that have a name by one of the patterns, and why others have none.
fn named(patterns: &[Pattern], excluded: &Excluded, files: &BTreeSet<PathBuf>) -> (Named, Vec<String>) {
    let (mut named, mut wrong) = (Named::new(), Vec::new());
    for path in files {
        let found = patterns.iter().find_map(|pattern| pattern.name_of(path).map(|name| (name, &pattern.base)));
        match found {
            Some((Ok(name), _)) if excluded.has(path, &name) => {}
            Some((Ok(name), base)) => drop(named.insert(path.clone(), (name, base.clone()))),
            Some((Err(why), _)) => wrong.push(format!("--input: {} is not followed: {why}", path.display())),
            None => {}
        }
    }
    (named, wrong)
}

fn names(named: &Named) -> BTreeMap<PathBuf, SourceName> {
    named.iter().map(|(path, (name, _))| (path.clone(), name.clone())).collect()
}

fn same_name(sources: &Sources, one: usize, other: &Path) -> Failure {
    let name = sources.name(one).map(ToString::to_string).unwrap_or_default();
    Failure::config(format!(
        "--input: {} and {} have the same name {name}; allowed: files with different names, or one pattern for both of \
         their folders",
        sources.path(one).unwrap_or(Path::new("")).display(),
        other.display()
    ))
}

impl Many {
    fn new(args: ReaderArgs, context: &Context) -> Result<Self, Failure> {
        let patterns = patterns(&args)?;
        let excluded = Excluded::new(&args.exclude)?;
        let host = added_fields::host();
        AddedFields::new(&args.add_field, Path::new(""), &host)?;
        for pattern in &patterns {
            let folder = args.state_dir.as_deref().unwrap_or(&pattern.base);
            StateFile::check_folder(folder, args.state_dir.is_some())?;
        }
        let registry = SourceRegistry::new(&args.service.stream);
        let shared = Shared {
            shutdown: context.shutdown.clone(),
            health: context.health.clone(),
            pool: Rc::new(Pool::new(&context.connector, &context.health)),
            registry,
            totals: Totals::of_many(),
            listings: Arc::default(),
            states: Arc::default(),
            is_crowded: Cell::new(false),
            host,
            args,
        };
        Ok(Self {
            shared: Rc::new(shared),
            patterns,
            excluded,
            sources: Vec::new(),
            queue: VecDeque::new(),
            urgent: VecDeque::new(),
            active: FuturesUnordered::new(),
            away: BTreeSet::new(),
            held: 0,
            events: FolderEvents::new(),
            polled: HashMap::new(),
            walked_at: None,
            must_walk: true,
            told: HashSet::new(),
            unlisted: None,
            swept: 0,
            refused: None,
            rows: context.sources.clone(),
            is_list_old: true,
            listed_at: None,
        })
    }

    async fn follow(mut self) -> Result<(), Stop> {
        self.find_known()?;
        self.walk(true)?;
        let (count, inputs) = (self.sources.len(), self.shared.args.inputs());
        match count {
            0 => info!("--input {inputs}: no file matches yet; waiting for one"),
            _ => info!("--input {inputs}: following {count} {}", service::advice::noun(count as u64, "file")),
        }
        self.list();
        let once = self.shared.args.service.once;
        let shutdown = self.shared.shutdown.clone();
        tokio::select! {
            () = self.shared.pool.known() => {}
            () = shutdown.requested() => return Err(Stop::Shutdown),
        }
        self.check_rights().await?;
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut asking: Option<LocalBoxFuture<'static, Result<Vec<usize>, resp::Error>>> = None;
        let mut to_ask: VecDeque<usize> = VecDeque::new();
        let mut asks_all = false;
        let mut losses = self.losses();
        let mut asked_at = Instant::now();
        let mut cursor: usize = 0;
        loop {
            self.start_queued();
            if once
                && [&self.queue, &self.urgent].iter().all(|queue| queue.is_empty())
                && self.active.is_empty()
                && self.away.is_empty()
            {
                return match self.refused.take() {
                    Some(why) => Err(Failure::config(why).into()),
                    None => Ok(()),
                };
            }
            if asking.is_none() && !to_ask.is_empty() {
                let batch: Vec<usize> = to_ask.drain(..to_ask.len().min(ASKED)).collect();
                asking = Some(self.ask(batch));
            }
            tokio::select! {
                biased;
                () = shutdown.requested() => break,
                Some(ended) = self.active.next(), if !self.active.is_empty() => self.ended(ended)?,
                changed = async { match &mut asking { Some(asking) => asking.await, None => std::future::pending().await } } => {
                    asking = None;
                    match changed {
                        Ok(changed) => {
                            if self.shared.pool.is_cluster() && !changed.is_empty() && !asks_all {
                                // Its node may have lost other things as well.
                                to_ask = (0..self.sources.len()).collect();
                                asks_all = true;
                            }
                            changed.into_iter().for_each(|index| self.wake(index));
                        }
                        // It is asked again when the registry has a connection.
                        Err(error) => debug!("asking about parked sources: {error}"),
                    }
                }
                events = self.events.come(), if !once => self.happened(&events)?,
                _ = ticks.tick() => {
                    self.shared.health.progress();
                    self.list();
                    self.wake_returned();
                    if once {
                        continue;
                    }
                    self.sweep()?;
                    if self.losses() > losses {
                        losses = self.losses();
                        to_ask = (0..self.sources.len()).collect();
                        asks_all = true;
                    } else if asked_at.elapsed() >= ASK && to_ask.is_empty() {
                        // A few at a time, for what somebody removed by hand.
                        asked_at = Instant::now();
                        let all = self.sources.len();
                        let end = cursor.saturating_add(all.div_ceil(ASKS)).min(all);
                        to_ask = (cursor..end).collect();
                        asks_all = false;
                        cursor = if end < all { end } else { 0 };
                    }
                }
            }
        }
        while let Some((_, ended)) = self.active.next().await {
            if let Ended::Stopped(stop @ Stop::Failure(_)) = ended {
                return Err(stop);
            }
        }
        Err(Stop::Shutdown)
    }

    /// How often Redis may have lost something.
    fn losses(&self) -> u64 {
        self.shared.registry.losses().saturating_add(self.shared.pool.losses())
    }

    /// Wakes the sources whose node is there again.
    fn wake_returned(&mut self) {
        let is_away = |index: &usize| self.is_away(*index);
        let returned: Vec<usize> = self.away.iter().copied().filter(|index| !is_away(index)).collect();
        for index in returned {
            self.away.remove(&index);
            self.wake(index);
        }
    }

    /// Whether the node of a source is unreachable.
    fn is_away(&self, index: usize) -> bool {
        let stream = &self.shared.args.service.stream;
        self.sources.get(index).is_some_and(|source| self.shared.pool.of(&source.name.key(stream)).is_away())
    }

    /// Checks that the user has the permissions that the reader needs, and that this stream does
    /// not belong to a partitioned source.
    async fn check_rights(&mut self) -> Result<(), Stop> {
        let stream = &self.shared.args.service.stream;
        let probe = self.sources.first().map_or_else(|| format!("{stream}:{{}}"), |source| source.name.key(stream));
        let record = SourceRecord::of(&probe);
        let mut lease = self.shared.pool.take(&record).await?;
        let base = SourceRecord::of(stream);
        let loaded = match self.shared.pool.is_cluster() {
            true => base.load(&mut self.shared.pool.take(&base).await?.connection).await,
            false => base.load(&mut lease.connection).await,
        };
        if let Ok(loaded) = loaded
            && let Some(begun) = loaded.partitions
        {
            return Err(carries_one_file(stream, begun).into());
        }
        must_be_allowed(check::commands(&mut lease.connection, &probe)).await?;
        lease.give_back();
        Ok(())
    }

    /// Adds the sources that have a state file: their files may be gone, or have another name.
    fn find_known(&mut self) -> Result<(), Failure> {
        let args = &self.shared.args;
        let mut found = Vec::new();
        for pattern in &self.patterns {
            let folder = args.state_dir.as_deref().unwrap_or(&pattern.base);
            let folder = StateFile::folder_of_sources(folder, &args.service.stream);
            let Ok(entries) = std::fs::read_dir(&folder) else { continue };
            for entry in entries.filter_map(Result::ok) {
                let file = entry.file_name();
                let name =
                    file.to_str().and_then(|name| name.strip_suffix(".json")).map(|name| name.replace("%2F", "/"));
                let Some(Ok(name)) = name.as_deref().map(SourceName::parse) else { continue };
                if !StateFile::of_source(&folder, &args.service.stream, &name).path().ends_with(&file) {
                    // It stands for a longer one.
                    continue;
                }
                let path = pattern.base.join(name.path());
                if pattern.name_of(&path).is_some_and(|of| of.as_ref() == Ok(&name)) {
                    found.push((path, name, pattern.base.clone()));
                }
            }
        }
        for (path, name, base) in found {
            if self.excluded.has(&path, &name) || self.shared.listings.sources().named(&name).is_some() {
                continue;
            }
            let state_dir = self.shared.args.state_dir.as_deref().unwrap_or(&base);
            let state = StateFile::of_source(state_dir, &self.shared.args.service.stream, &name);
            let known = state.load();
            let index = self.shared.listings.sources().add(path.clone(), name.clone());
            self.add(path, name, base, false);
            if let Ok(Stored::Manifest(manifest)) = known {
                self.shared.listings.sources().know(index, &manifest);
            }
        }
        Ok(())
    }

    /// Looks for files everywhere. `first`: at the start.
    fn walk(&mut self, first: bool) -> Result<(), Failure> {
        self.must_walk = false;
        self.walked_at = Some(Instant::now());
        let mut walked = Walked::default();
        for pattern in &self.patterns {
            if let Some(path) = pattern.plain() {
                // It is waited for.
                walked.folders.push(pattern.base.clone());
                walked.files.insert(path);
            } else {
                let before = walked.matched;
                pattern.walk(&mut walked);
                if first && self.shared.args.service.once && walked.matched == before {
                    let from = service::args::origin("input");
                    return Err(Failure::failed(format!(
                        "--input {}{from}: no file matches; --once sends what there is and does not wait for a file; correct the pattern",
                        pattern.text
                    )));
                }
            }
        }
        let Walked { folders, files, unlisted, .. } = walked;
        let mut new = HashSet::new();
        for folder in folders {
            match self.events.follow(&folder) {
                Followed::Already => {}
                Followed::Newly => drop(new.insert(folder)),
                Followed::No => drop(self.polled.insert(folder.clone(), modified(&folder))),
            }
        }
        self.found(&files, true, first)?;
        for index in 0..if new.is_empty() { 0 } else { self.sources.len() } {
            let Some(source) = self.sources.get(index) else { continue };
            let Some(parked) = source.parked.as_ref().filter(|_| source.phase == Phase::Parked) else { continue };
            let is_in = source.path.parent().is_some_and(|folder| new.contains(folder));
            if is_in && FileState::of(&source.path) != parked.seen {
                self.wake(index);
            }
        }
        self.shared.health.file(unlisted.clone().map_or(Ok(()), Err));
        self.unlisted = unlisted;
        Ok(())
    }

    /// Adds the files that are new sources, and wakes the sources that others belong to. `all`:
    /// these are all files.
    fn found(&mut self, files: &BTreeSet<PathBuf>, all: bool, first: bool) -> Result<(), Failure> {
        let (named, wrong) = named(&self.patterns, &self.excluded, files);
        wrong.iter().for_each(|why| self.tell(why));
        let listings = Arc::clone(&self.shared.listings);
        let effects = listings.sources().find(&names(&named), all, &DiskTree);
        for effect in effects {
            match effect {
                Effect::Follow(index) => {
                    let path = listings.sources().path(index).map(Path::to_owned).unwrap_or_default();
                    let Some((name, base)) = named.get(&path).cloned() else { continue };
                    let from_end = first && self.shared.args.from == From::End;
                    self.add(path, name, base, from_end);
                    if !first {
                        self.wake_first(index);
                    }
                }
                Effect::Wake(index) => self.wake(index),
                Effect::Moved(path, index) => {
                    let Some(source) = self.sources.get(index) else { continue };
                    let (name, path) = (&source.name, path.display());
                    info!("{path} is a file of the source {name}, and is read for that one");
                }
                Effect::SameName(path, index) => {
                    let why = same_name(&listings.sources(), index, &path);
                    if first {
                        return Err(why);
                    }
                    self.tell(&format!("{why}; the second is not read"));
                }
            }
        }
        Ok(())
    }

    /// Adds what a source needs here, in the order of their numbers.
    fn add(&mut self, path: PathBuf, name: SourceName, base: PathBuf, from_end: bool) {
        let index = self.sources.len();
        // Until it has reported, nobody knows how much is left of all.
        let _ = self.shared.totals.of_source(u32::try_from(index).unwrap_or(u32::MAX));
        self.sources.push(Source {
            name,
            path,
            base,
            phase: Phase::Parked,
            parked: None,
            woken: Rc::default(),
            held: None,
            from_end,
            is_urgent: false,
            refused_at: None,
            reason: None,
        });
        self.wake(index);
    }

    fn tell(&mut self, what: &str) {
        if self.told.len() < 1024 && self.told.insert(what.to_owned()) {
            warn!("{what}");
        }
    }

    /// Something about a source has changed.
    fn wake(&mut self, index: usize) {
        let may_hold = self.held < HELD && !self.shared.args.service.once;
        let is_away = self.away.contains(&index) && self.is_away(index);
        let Some(source) = self.sources.get_mut(index) else { return };
        match source.phase {
            Phase::Parked if is_away || source.refused_at.is_some_and(|at| at.elapsed() < REFUSED) => {}
            Phase::Parked => {
                source.phase = Phase::Queued;
                self.queue.push_back(index);
                if may_hold && self.active.len().saturating_add(self.queue.len()) > ACTIVE {
                    let is_own = self.shared.listings.sources().has_input(index, &DiskTree);
                    let is_plain = is_own && Format::of(&source.path).is_none();
                    source.held = is_plain.then(|| DiskFile::open(&source.path).ok()).flatten();
                    self.held = self.held.saturating_add(usize::from(source.held.is_some()));
                }
            }
            Phase::Active { .. } => {
                source.phase = Phase::Active { again: true };
                source.woken.notify_one();
            }
            Phase::Queued | Phase::Done => {}
        }
    }

    /// A file event was about a source.
    fn wake_first(&mut self, index: usize) {
        self.wake(index);
        if self.sources.get(index).is_some_and(|source| source.phase == Phase::Queued) && !self.urgent.contains(&index)
        {
            self.urgent.push_back(index);
        }
    }

    /// Lists the sources for the pages.
    fn list(&mut self) {
        self.is_list_old |= !(self.active.is_empty() && self.queue.is_empty() && self.away.is_empty());
        if self.is_list_old && self.listed_at.is_none_or(|at| at.elapsed() >= LIST) {
            (self.is_list_old, self.listed_at) = (false, Some(Instant::now()));
            self.list_now();
        }
    }

    fn list_now(&self) {
        let rows = self.sources.iter().enumerate().map(|(index, source)| {
            let nth = u32::try_from(index).unwrap_or(u32::MAX);
            let is_to_be_read = source.phase != Phase::Parked || self.away.contains(&index);
            if is_to_be_read
                && Format::of(&source.path).is_none()
                && let Ok(file) = std::fs::metadata(&source.path)
            {
                self.shared.totals.of_source(nth).has_grown_to(file.len());
            }
            let progress = self.shared.totals.progress_of(nth);
            let state = match source.phase {
                _ if source.reason.is_some() => "refused",
                Phase::Active { .. } => "active",
                Phase::Queued => "queued",
                Phase::Done => "done",
                Phase::Parked => match source.parked.as_ref().and_then(|parked| parked.seen) {
                    Some(_) => "idle",
                    None => "finished",
                },
            };
            let mut row = SourceRow::new(source.name.escaped(), state);
            row.bytes = progress.map_or(0, |(position, _)| position);
            row.backlog = progress.map(|(position, size)| size.saturating_sub(position));
            row.reason.clone_from(&source.reason);
            row
        });
        self.rows.set(rows.collect());
    }

    fn start_queued(&mut self) {
        while self.active.len() < ACTIVE
            && let Some(index) = self.urgent.pop_front().or_else(|| self.queue.pop_front())
        {
            let Some(source) = self.sources.get_mut(index) else { continue };
            if source.phase != Phase::Queued {
                // It was urgent, and came first.
                continue;
            }
            source.phase = Phase::Active { again: false };
            (source.refused_at, source.is_urgent) = (None, false);
            let held = source.held.take();
            self.held = self.held.saturating_sub(usize::from(held.is_some()));
            let task = Task {
                index,
                name: source.name.clone(),
                path: source.path.clone(),
                state_dir: self.shared.args.state_dir.clone().unwrap_or_else(|| source.base.clone()),
                from_end: source.from_end,
                woken: Rc::clone(&source.woken),
                held,
            };
            self.register(index, "followed");
            self.active.push(Box::pin(source::drive(Rc::clone(&self.shared), task)));
        }
        self.shared.is_crowded.set(!self.queue.is_empty() || !self.urgent.is_empty());
    }

    /// Tells the registry about a source.
    fn register(&self, index: usize, state: &'static str) {
        let Some(source) = self.sources.get(index) else { return };
        let since = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
        let value = serde_json::json!({
            "host": self.shared.host,
            "path": source.path.to_string_lossy(),
            "state": state,
            "since": u64::try_from(since).unwrap_or(0),
        });
        self.shared.registry.set(&source.name.escaped(), state, value.to_string());
    }

    fn ended(&mut self, (index, ended): (usize, Ended)) -> Result<(), Stop> {
        let once = self.shared.args.service.once;
        self.is_list_old = true;
        self.away.remove(&index);
        let Some(source) = self.sources.get_mut(index) else { return Ok(()) };
        let again = matches!(source.phase, Phase::Active { again: true });
        source.phase = Phase::Parked;
        match ended {
            Ended::Parked(parked) => {
                let seen = parked.seen;
                let is_changed = again || FileState::of(&source.path) != seen;
                source.parked = Some(parked);
                source.from_end = false;
                source.reason = None;
                if is_changed {
                    self.wake(index);
                } else {
                    self.register(index, if seen.is_some() { "followed" } else { "finished" });
                }
            }
            Ended::Away => drop(self.away.insert(index)),
            Ended::Done => source.phase = Phase::Done,
            Ended::Refused(why) => {
                source.refused_at = Some(Instant::now());
                let name = source.name.escaped();
                source.reason = Some(why.clone());
                self.shared.totals.of_source(u32::try_from(index).unwrap_or(u32::MAX)).forget();
                if once {
                    source.phase = Phase::Done;
                    self.refused = Some(why.clone());
                }
                self.tell(&format!("source {name}: {why}"));
            }
            Ended::Stopped(Stop::Shutdown) => {}
            Ended::Stopped(stop) => return Err(stop),
        }
        Ok(())
    }

    /// The meaning of file events.
    fn happened(&mut self, events: &[Event]) -> Result<(), Failure> {
        let mut new = BTreeSet::new();
        for event in events {
            let (Event::File(path) | Event::Name(path)) = event else {
                self.must_walk = true;
                continue;
            };
            let about: Vec<usize> = self.shared.listings.sources().about(path).collect();
            about.iter().for_each(|index| self.wake_first(*index));
            if (about.is_empty() || matches!(event, Event::Name(_)))
                && self.patterns.iter().any(|pattern| pattern.name_of(path).is_some())
                && path.is_file()
            {
                new.insert(path.clone());
            }
        }
        if new.is_empty() { Ok(()) } else { self.found(&new, false, false) }
    }

    /// Looks at some of the parked sources, and at folders without events.
    fn sweep(&mut self) -> Result<(), Failure> {
        let is_polled = self.polled.iter().any(|(folder, known)| known.is_none() || modified(folder) != *known);
        let is_old = self.walked_at.is_none_or(|at| at.elapsed() >= WALK);
        let may_walk = self.walked_at.is_none_or(|at| at.elapsed() >= WALK_PAUSE);
        if may_walk && (self.must_walk || is_polled) || is_old {
            self.walk(false)?;
        }
        let many = self.sources.len().div_ceil(SWEEP);
        for _ in 0..many.min(self.sources.len()) {
            let index = if self.swept < self.sources.len() { self.swept } else { 0 };
            self.swept = index.saturating_add(1);
            let Some(source) = self.sources.get(index) else { continue };
            let is_due = match source.phase {
                Phase::Parked => {
                    source.refused_at.is_some_and(|at| at.elapsed() >= REFUSED) || {
                        let parked = source.parked.as_ref();
                        FileState::of(&source.path) != parked.and_then(|parked| parked.seen)
                            || parked.and_then(|parked| parked.again_at).is_some_and(|at| at <= Instant::now())
                            || self.shared.listings.sources().strays(index).next().is_some()
                    }
                }
                _ => false,
            };
            if is_due {
                self.wake(index);
            }
        }
        Ok(())
    }

    /// Asks Redis whether it still holds what it should of these sources, and answers which have
    /// changed.
    fn ask(&self, indices: Vec<usize>) -> LocalBoxFuture<'static, Result<Vec<usize>, resp::Error>> {
        let stream = &self.shared.args.service.stream;
        let asked: Vec<Asked> = indices
            .into_iter()
            .filter_map(|index| self.sources.get(index).map(|source| (index, source)))
            .filter(|(_, source)| source.phase == Phase::Parked)
            .filter_map(|(index, source)| {
                let guard = source.parked.as_ref()?.guard;
                Some((index, SourceRecord::of(&source.name.key(stream)), guard))
            })
            .collect();
        let pool = Rc::clone(&self.shared.pool);
        let mut nodes: Vec<(Rc<NodePool>, Vec<Asked>)> = Vec::new();
        for one in asked {
            let node = pool.of(&one.1.stream);
            match nodes.iter_mut().find(|(known, _)| Rc::ptr_eq(known, &node)) {
                Some((_, asked)) => asked.push(one),
                None => nodes.push((node, vec![one])),
            }
        }
        Box::pin(async move {
            let asked = nodes.iter().map(|(_, asked)| ask_node(&pool, asked));
            Ok(try_join_all(asked).await?.concat())
        })
    }
}

/// A source that Redis is asked about, with a hash of the guard that its record should have.
type Asked = (usize, SourceRecord, Option<u64>);

/// Asks one node about its sources, and answers which have changed.
async fn ask_node(pool: &Pool, asked: &[Asked]) -> Result<Vec<usize>, resp::Error> {
    let Some((_, record, _)) = asked.first() else { return Ok(Vec::new()) };
    let taken = tokio::select! {
        taken = pool.take(record) => taken,
        // The others are not to wait. When this node is there again, it is asked about all.
        () = tokio::time::sleep(ASK), if pool.is_cluster() => return Ok(Vec::new()),
    };
    let Ok(mut lease) = taken else { return Ok(Vec::new()) };
    let connection = &mut lease.connection;
    for (_, record, _) in asked {
        connection.queue(cmd::<Frame>("HGET").arg(&record.key).arg(delivery::manifest::GUARD_FIELD));
        connection.queue(cmd::<Frame>("EXISTS").arg(&record.stream));
    }
    let mut changed = Vec::new();
    for (index, _, guard) in asked {
        let (held, exists) = (connection.receive().await?.into_result(), connection.receive().await?.into_result());
        let (held, exists) = match (held, exists) {
            (Ok(held), Ok(exists)) => (held, exists),
            (Err(error), _) | (_, Err(error)) if pool.is_cluster() => {
                // Its key may have moved. The driver finds out.
                pool.failed(&error);
                changed.push(*index);
                continue;
            }
            (Err(error), _) | (_, Err(error)) => return Err(error),
        };
        let held = Value::as_bytes(held.value()).map(delivery::hash);
        if held != *guard || guard.is_some() && exists.value().as_u64() != Some(1) {
            changed.push(*index);
        }
    }
    lease.give_back();
    Ok(changed)
}

fn modified(folder: &Path) -> Option<SystemTime> {
    std::fs::metadata(folder).and_then(|metadata| metadata.modified()).ok()
}
