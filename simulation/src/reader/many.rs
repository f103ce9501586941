//! A simulated reader of many files: it looks at the tree, lets a few sources be active at a time,
//! and parks those that have nothing to do. What is a source, and whose a file is, is decided by
//! [`delivery::sources`].

use super::directory::{Noted, SimulatedDirectory, State};
use super::{Configuration, PartitionWriter, Reader, options};
use crate::administrators::Keys;
use crate::filesystem::{FileSystem, Inode};
use crate::redis::Name;
use crate::world::World;
use delivery::consumer::Lease;
use delivery::manifest::record_key;
use delivery::partition::Partition;
use delivery::producer::{Producer, Stored};
use delivery::source_name::SourceName;
use delivery::sources::{Effect, Sources};
use delivery::split::Framing;
use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

/// The folder of all inputs.
const BASE: &str = "logs/";
/// How many sources are active at most.
const ACTIVE: usize = 2;
/// The same times as in production.
const IDLE: u64 = 1000;
const UNNAMED_IDLE: u64 = 60_000;
const UNNAMED_IDLE_CROWDED: u64 = 3000;

/// A reader of many files, running or not.
#[derive(Debug)]
pub struct ManyReader {
    stream: String,
    /// Whether the pattern also matches names of rotated files: `*.log*`, or `*.log`.
    is_wide: bool,
    framing: Framing,
    /// The state files, by name.
    states: BTreeMap<SourceName, State>,
    running: Option<Running>,
    /// Why a source was refused.
    pub refused: Option<String>,
    starts_at: u64,
}

#[derive(Debug)]
struct Running {
    began_at: u64,
    sources: Rc<RefCell<Sources>>,
    /// First come, first served.
    queued: VecDeque<usize>,
    active: Vec<Active>,
    /// The file at the path of each parked source.
    parked: BTreeMap<usize, Seen>,
}

/// What shows that a file has changed.
type Seen = Option<(Inode, u64, u64)>;

#[derive(Debug)]
struct Active {
    source: usize,
    writer: PartitionWriter,
    /// When it last had something to do.
    active_at: u64,
    seen: Seen,
}

/// The keys of a source.
#[must_use]
pub fn keys(stream: &str, name: &SourceName) -> Keys {
    let stream = name.key(stream);
    Keys {
        record: Name::from(record_key(&stream)),
        lease: Name::from(Lease::key(&stream, "writers")),
        stream: Name::from(stream),
    }
}

impl ManyReader {
    /// A reader that has not started.
    #[must_use]
    pub const fn new(stream: String, is_wide: bool, framing: Framing) -> Self {
        Self { stream, is_wide, framing, states: BTreeMap::new(), running: None, refused: None, starts_at: 0 }
    }

    /// The names of all sources that it has ever followed.
    pub fn names(&self) -> impl Iterator<Item = &SourceName> {
        self.states.keys()
    }

    /// Kills the process.
    pub fn kill(&mut self, world: &mut World) {
        if self.running.take().is_some() {
            world.story.tell(|| "the reader is killed");
        }
        self.starts_at = world.elapsed + world.random.below(1500);
    }

    /// The name of a path, if the pattern matches it.
    #[must_use]
    pub fn name_of(&self, path: &str) -> Option<SourceName> {
        let below = path.strip_prefix(BASE)?;
        let file = below.rsplit('/').next()?;
        let matches = if self.is_wide { file.contains(".log") } else { file.ends_with(".log") };
        SourceName::new(below).ok().filter(|_| matches && !file.starts_with('.'))
    }

    /// Performs one effect.
    pub fn step(&mut self, world: &mut World) {
        if self.running.is_none() {
            if world.elapsed >= self.starts_at {
                self.start(world);
            }
            return;
        }
        match world.random.below(10) {
            0 => self.look(world),
            1 => self.sweep(world),
            _ => self.drive(world),
        }
    }

    fn start(&mut self, world: &mut World) {
        world.story.tell(|| "the reader starts");
        let mut sources = Sources::default();
        let mut queued = VecDeque::new();
        for (name, state) in &self.states {
            if let Stored::Manifest(manifest) = &*state.borrow() {
                let source = sources.add(PathBuf::from(format!("{BASE}{}", name.path().display())), name.clone());
                sources.know(source, manifest);
                queued.push_back(source);
            }
        }
        let sources = Rc::new(RefCell::new(sources));
        let (began_at, active, parked) = (world.elapsed, Vec::new(), BTreeMap::new());
        self.running = Some(Running { began_at, sources, queued, active, parked });
        self.look(world);
    }

    /// Looks at all files.
    fn look(&mut self, world: &World) {
        let files = world.input.borrow();
        let found = files.paths().filter(|path| files.resolve(path).is_ok());
        let found: BTreeMap<PathBuf, SourceName> =
            found.filter_map(|path| Some((PathBuf::from(path), self.name_of(path)?))).collect();
        let Some(running) = &mut self.running else { return };
        let effects = running.sources.borrow_mut().find(&found, true, &*files);
        for effect in effects {
            world.story.tell(|| format!("the reader: {effect:?}"));
            match effect {
                Effect::Follow(source) | Effect::Wake(source) => {
                    if let Some(name) = running.sources.borrow().name(source) {
                        self.states.entry(name.clone()).or_insert_with(Reader::no_state);
                    }
                    wake(&mut running.queued, source);
                }
                Effect::Moved(..) | Effect::SameName(..) => {}
            }
        }
    }

    /// Wakes parked sources whose files have changed.
    fn sweep(&mut self, world: &mut World) {
        let Some(running) = &mut self.running else { return };
        let all = world.random.one_in(20);
        let files = world.input.borrow();
        let sources = running.sources.borrow();
        for (source, seen) in &running.parked {
            let path = sources.path(*source).map(|path| path.to_string_lossy().into_owned()).unwrap_or_default();
            if all || seen_at(&files, &path) != *seen || sources.strays(*source).next().is_some() {
                wake(&mut running.queued, *source);
            }
        }
    }

    fn drive(&mut self, world: &mut World) {
        let Some(running) = &mut self.running else { return };
        let waiting = running.queued.iter().position(|source| !running.active.iter().any(|one| one.source == *source));
        if running.active.len() < ACTIVE
            && let Some(source) = waiting.and_then(|nth| running.queued.remove(nth))
        {
            running.parked.remove(&source);
            running.active.extend(activate(&self.stream, self.framing, &self.states, &running.sources, source, world));
            return;
        }
        if running.active.is_empty() {
            return;
        }
        let nth = world.random.index(running.active.len());
        let one = &mut running.active[nth];
        world.keys = vec![one.writer.keys.clone()];
        one.writer.dies.set(world.faulty && world.random.one_in(200));
        let (slept, progress) = (one.writer.sleeps_until, world.progress);
        let path = running.sources.borrow().path(one.source).map(|path| path.to_string_lossy().into_owned());
        let seen = seen_at(&world.input.borrow(), &path.unwrap_or_default());
        let ended = one.writer.step(world, Duration::from_millis(world.elapsed - running.began_at));
        for notice in one.writer.producer.take_notices() {
            world.story.tell(|| format!("{}: {notice}", one.writer.name));
        }
        running.sources.borrow_mut().know(one.source, one.writer.producer.manifest());
        match ended {
            Some(None) => return self.kill(world),
            Some(Some(why)) => {
                world.story.tell(|| format!("{} refuses: {why}", one.writer.name));
                self.refused = Some(format!("{}: {why}", one.writer.name));
                running.active.swap_remove(nth);
                return;
            }
            None => {}
        }
        if world.progress != progress {
            one.active_at = world.elapsed;
        }
        if one.writer.sleeps_until == slept {
            return;
        }
        let idle = world.elapsed - one.active_at;
        let is_crowded = !running.queued.is_empty();
        let rests = one.writer.producer.may_rest(false) && (is_crowded || idle >= IDLE)
            || one.writer.producer.may_rest(true)
                && idle >= if is_crowded { UNNAMED_IDLE_CROWDED } else { UNNAMED_IDLE };
        if rests {
            let (source, name) = (one.source, one.writer.name.clone());
            world.story.tell(|| format!("{name} is parked"));
            if one.seen != seen {
                wake(&mut running.queued, source);
            }
            running.parked.insert(source, seen);
            running.active.swap_remove(nth);
        } else {
            one.seen = seen;
        }
    }
}

fn wake(queued: &mut VecDeque<usize>, source: usize) {
    if !queued.contains(&source) {
        queued.push_back(source);
    }
}

fn seen_at(files: &FileSystem, path: &str) -> Seen {
    let inode = files.resolve(path).ok()?;
    files.file(inode).map(|file| (inode, file.len(), file.version))
}

fn activate(
    stream: &str,
    framing: Framing,
    states: &BTreeMap<SourceName, State>,
    sources: &Rc<RefCell<Sources>>,
    source: usize,
    world: &World,
) -> Option<Active> {
    let name = sources.borrow().name(source)?.clone();
    let noted: Rc<RefCell<Noted>> = Rc::default();
    let directory = SimulatedDirectory::new(world.input.clone(), noted.clone(), states.get(&name)?.clone());
    let directory = directory.among(sources.clone(), source);
    let dies = directory.dies_storing.clone();
    let keys = keys(stream, &name);
    let configuration =
        Configuration { framing, max_line: 1 << 20, max_backlog: 0, partitions: Vec::new(), base: None };
    let path = format!("{BASE}{}", name.path().display());
    let seen = seen_at(&world.input.borrow(), &path);
    let producer = Producer::new(options(&path, &keys.stream, Partition::WHOLE, &configuration), directory);
    let writer = PartitionWriter::new(format!("source {name}"), keys, producer, noted, dies);
    Some(Active { source, writer, active_at: world.elapsed, seen })
}
