//! The run of one seed: draws the world and its faults, lets all actors act, ends the faults, and
//! judges the outputs.

use crate::administrators::{Administrators, Happened, Hazards, Keys};
use crate::oracle::{Terms, judge};
use crate::programs::{Habits, Programs};
use crate::random::Random;
use crate::reader::{self, Reader};
use crate::redis::Name;
use crate::story::Story;
use crate::truth::Fate;
use crate::world::World;
use crate::writer::{self, DiskHazards, Writer, disturb};
use delivery::consumer::Lease;
use delivery::manifest::record_key;
use delivery::partition::Partition;
use delivery::split::Framing;
use resp::StreamId;
use std::ops::Bound;

/// The key of the source's stream.
const STREAM: &str = "lines";
/// The initial time of Redis' clock.
const START: u64 = 1_700_000_000_000;
/// The factor by which blocks of partitions are smaller than in production: 64 bytes.
const SCALE: u64 = 1024;
/// Milliseconds without progress after which all services are idle; longer than every delay of the
/// state machines.
const REST: u64 = 70_000;
/// Maximum number of steps until all services are idle after the faults have ended.
const PATIENCE: u64 = 200_000;

/// Runs one seed. `without` lists kinds of faults to disable: the names of the fields of
/// [`Hazards`], [`Habits`] and [`DiskHazards`], and `kills`, `pauses`, `partitions`, `writers`,
/// `readers`, `exclusive`.
///
/// # Errors
/// The findings of the oracle.
pub fn run(seed: u64, without: &[String], story: &Story) -> Result<(), String> {
    Simulation::new(seed, without, story).run()
}

/// Draws the world of a seed. Disabled kinds of faults are drawn too, so that everything else in
/// the seed is unchanged.
struct Draw<'a> {
    random: Random,
    without: &'a [String],
    /// Whether all kinds of faults are enabled.
    all: bool,
}

impl Draw<'_> {
    /// Whether this kind of fault is enabled, with a probability of `percent`.
    fn has(&mut self, kind: &str, percent: u64) -> bool {
        self.random.chance(if self.all { 60 } else { percent }) && !self.without.iter().any(|one| one == kind)
    }
}

struct Simulation {
    world: World,
    programs: Programs,
    administrators: Administrators,
    readers: Vec<Reader>,
    writers: Vec<Writer>,
    habits: Habits,
    disk: DiskHazards,
    kills: bool,
    pauses: bool,
    partitions: usize,
    /// Whether some writers have the group to themselves. If the clock of Redis jumps, leases
    /// expire early, and writers at work seem to be gone.
    is_exclusive: bool,
    steps: u64,
}

impl Simulation {
    fn new(seed: u64, without: &[String], story: &Story) -> Self {
        let mut draw = Draw { random: Random::new(seed), without, all: false };
        let hazards = draw_hazards(&mut draw);
        let habits = draw_habits(&mut draw);
        draw.all = false;
        let count = if draw.has("partitions", 20) { 2 } else { 1 };
        let partitions: Vec<Partition> = Partition::all(count).map(|one| one.with_scale(SCALE)).collect();
        let keys = partitions.iter().map(|partition| {
            let stream = partition.stream(STREAM);
            Keys {
                record: Name::from(record_key(&stream)),
                lease: Name::from(Lease::key(&stream, "writers")),
                stream: Name::from(stream),
            }
        });
        let keys: Vec<Keys> = keys.collect();
        let group = Name::from("writers");
        let disk = DiskHazards {
            power: draw.has("power", 30),
            faults: draw.has("faults", 20),
            flips: draw.has("flips", 10),
            rotates: draw.has("rotates", 15),
        };
        let kills = draw.has("kills", 70);
        let mut writers = draw_writers(&mut draw, &partitions, &group);
        let readers = draw_readers(&mut draw, &partitions);
        // Drawn apart, so that the rest of the seed is as it was before there was this kind.
        let mut random = std::mem::replace(&mut draw.random, Random::new(!seed));
        let is_exclusive = draw.has("exclusive", if writers.len() > 1 { 60 } else { 25 });
        if is_exclusive {
            let percent = *draw.random.pick(&[100, 60, 100]).unwrap_or(&100);
            writers.iter_mut().for_each(|writer| writer.configuration.exclusive = percent);
        }
        let pauses = draw.has("pauses", if is_exclusive { 60 } else { 20 });
        let steps = random.between(30, 300);
        story.tell(|| format!("{hazards:?}\n{habits:?}\n{disk:?}"));
        story.tell(|| {
            let (readers, writers) = (readers.len(), writers.len());
            format!(
                "{readers} readers, {writers} writers, {count} partitions, {steps} steps with faults, kills: {kills}, pauses: {pauses}"
            )
        });
        let mut world = World::new(random, story.clone(), hazards, keys.clone(), START);
        world.truth.several_holders = count > 1 || readers.len() > 1;
        let programs = {
            let mut files = world.input.borrow_mut();
            Programs::begin(habits, &mut files, &mut world.truth, &mut world.random, story.clone())
        };
        let happened = Happened::default();
        let administrators = Administrators {
            partitions: keys,
            group,
            hazards,
            happened,
            is_stream_restored: false,
            story: story.clone(),
        };
        let partitions = partitions.len();
        Self {
            world,
            programs,
            administrators,
            readers,
            writers,
            habits,
            disk,
            kills,
            pauses,
            partitions,
            is_exclusive,
            steps,
        }
    }

    fn run(mut self) -> Result<(), String> {
        for _ in 0..self.steps {
            self.act();
            for _ in 0..3 {
                self.serve();
            }
        }
        self.end_faults();
        // Each of them looks at the group much more often than a consumer that is gone.
        let lanes = (self.writers.len() * self.partitions) as u64;
        let (mut at, mut since, mut steps, mut quiet) = (self.world.progress, self.world.elapsed, 0_u64, 0_u64);
        while self.world.elapsed - since < REST {
            steps += 1;
            if steps > PATIENCE {
                return Err("it never comes to rest".to_owned());
            }
            self.serve();
            if self.world.progress != at {
                (at, since, quiet) = (self.world.progress, self.world.elapsed, 0);
                continue;
            }
            quiet += 1;
            // All services are waiting.
            if quiet > 128 && quiet.is_multiple_of(16 * lanes) {
                self.world.pass(1500);
            }
        }
        self.judge()
    }

    /// Performs one step of the world.
    fn act(&mut self) {
        let world = &mut self.world;
        match world.random.below(100) {
            0..=24 => {
                let mut files = world.input.borrow_mut();
                self.programs.write(&mut files, &mut world.truth, &mut world.random);
            }
            25..=31 => {
                let mut files = world.input.borrow_mut();
                self.programs.act(&mut files, &mut world.truth, &mut world.random);
            }
            32..=34 => self.administrators.act(&mut world.redis, &mut world.truth, &mut world.random),
            35 => disturb(world, &mut self.writers, self.disk),
            36 if self.kills => {
                let nth = world.random.index(self.writers.len());
                self.writers[nth].kill(world);
            }
            37 if self.kills => {
                let nth = world.random.index(self.readers.len());
                self.readers[nth].kill(world);
            }
            38 if world.random.chance(10) => {
                let nth = world.random.index(self.writers.len());
                self.writers[nth].stop(world);
            }
            39 if world.random.chance(20) => {
                let millis = world.random.below(5000);
                world.story.tell(|| format!("{millis} ms pass"));
                world.pass(millis);
            }
            40 if world.hazards.clocks => world.jump(),
            41..=43 if self.pauses && world.random.chance(50) => {
                let nth = world.random.index(self.writers.len());
                // A lease ends after a second.
                let most = if world.random.chance(50) { 1500 } else { 4000 };
                let millis = world.random.below(most);
                self.writers[nth].pause(world, millis);
            }
            _ => {}
        }
    }

    /// Performs one step of a service.
    fn serve(&mut self) {
        let world = &mut self.world;
        let millis = world.random.below(12);
        world.pass(millis);
        if world.random.chance(40) {
            let nth = world.random.index(self.readers.len());
            self.readers[nth].step(world);
        } else {
            let nth = world.random.index(self.writers.len());
            self.writers[nth].step(world);
            self.note_takeovers();
        }
    }

    /// When a lease is taken over, the new owner gets what the group does not know to be done. What
    /// others have written of that may be in two outputs.
    fn note_takeovers(&mut self) {
        for keys in std::mem::take(&mut self.world.leases_taken) {
            let Some(stream) = self.world.redis.stream_at(&keys.stream) else { continue };
            let Some(group) = stream.groups().get(&self.administrators.group) else { continue };
            // Nobody but a writer that has lost its lease would have moved it back.
            let moved = self.world.moved.get(&keys.stream).copied().unwrap_or(StreamId::ZERO);
            let behind = (Bound::Excluded(group.last_delivered().max(moved)), Bound::Unbounded);
            let left: Vec<_> = stream.entries().range(behind).filter_map(|(_, entry)| entry.origin.clone()).collect();
            for (file, span) in self.writers.iter().flat_map(|writer| writer.has(&self.world.outputs)) {
                for origin in left.iter().filter(|one| self.world.ledger.content(file) == Some(one.content)) {
                    let both = span.start.max(origin.span.start)..span.end.min(origin.span.end);
                    self.world.truth.note(origin.content, both, Fate::REPEATABLE);
                }
            }
        }
    }

    fn end_faults(&mut self) {
        let world = &mut self.world;
        world.story.tell(|| "the faults end");
        world.faulty = false;
        world.outputs.fault = None;
        self.administrators.settle(&mut world.redis);
        {
            let mut files = world.input.borrow_mut();
            self.programs.settle(&mut files, &mut world.truth, &mut world.random);
        }
        let several = self.writers.len() > 1;
        if several && self.writers.iter().any(|writer| writer.configuration.exclusive > 0) {
            // Redis may deliver entries that one writer wrote and did not acknowledge to any other.
            world.leases_taken.clone_from(&world.keys);
            self.note_takeovers();
        }
        let world = &mut self.world;
        for writer in &mut self.writers {
            writer.is_scaled_away = false;
            writer.pause(world, 0);
            if several && std::mem::take(&mut writer.configuration.exclusive) > 0 {
                // All of them are started again, as a group. Otherwise the entries that some have
                // pending would stay pending.
                writer.kill(world);
            }
        }
    }

    fn judge(&mut self) -> Result<(), String> {
        // The writer does not check the journals of rotated outputs again; their bit flips are left
        // to `verify`.
        self.world.restore_journals();
        let happened = self.administrators.happened;
        let refused = self.writers.iter().find_map(|writer| writer.refused.as_ref());
        if let Some(why) = refused.or_else(|| self.readers.iter().find_map(|reader| reader.refused.as_ref())) {
            return Err(format!("a service refused: {why}"));
        }
        let several = self.writers.len() > 1;
        let restores = self.administrators.hazards.restores;
        let habits = self.habits;
        let terms = Terms {
            several_writers: several,
            may_repeat: self.world.forgot_rotated
                || several
                    && (happened.redis_went_back
                        || happened.removed
                        || happened.in_part
                        || self.administrators.hazards.foreign
                        || self.administrators.hazards.clocks && self.is_exclusive
                        || self.world.taken_over),
            unordered: happened.removed || happened.collided || restores || self.partitions > 1,
            contents_unordered: happened.removed
                || restores
                || self.partitions > 1
                // Each of several readers sees other rotations.
                || self.readers.len() > 1
                || habits.late_lines
                || habits.permissions
                || habits.operates
                // Rotated files that nobody saw are sorted by their times, when their names do not
                // tell.
                || self.administrators.hazards.clocks,
            // After foreign entries, or after a transaction that took effect in part, a reader
            // continues at the last position that it is certain of. Without the source it cannot
            // know of a later one. A rotated file that cannot be read counts as gone until it can
            // be read. One of several readers may have a file open that is gone for the others.
            comes_back: self.world.forgot_rotated
                || happened.in_part
                || happened.redis_went_back
                || happened.collided
                || self.administrators.hazards.foreign
                || self.partitions > 1
                || self.readers.len() > 1
                || habits.operates
                || habits.permissions,
            branched_off: happened.branched_off || happened.masked,
            unfinished: happened.exhausted,
        };
        let written: Vec<_> = self.writers.iter().flat_map(|writer| writer.written(&self.world.outputs)).collect();
        judge(&self.world.truth, &self.world.ledger, &written, terms)
    }
}

/// Most seeds have few kinds of faults, so that one does not mask another.
fn draw_hazards(draw: &mut Draw<'_>) -> Hazards {
    draw.all = draw.random.chance(10);
    Hazards {
        crashes: draw.has("crashes", 35),
        tears: draw.has("tears", 25),
        restores: draw.has("restores", 12),
        administrators: draw.has("administrators", 15),
        foreign: draw.has("foreign", 15),
        exhausts: draw.has("exhausts", 4),
        refusals: draw.has("refusals", 15),
        disconnects: draw.has("disconnects", 40),
        clocks: draw.has("clocks", 15),
    }
}

fn draw_habits(draw: &mut Draw<'_>) -> Habits {
    draw.all = draw.random.chance(5);
    Habits {
        headers: draw.has("headers", 30),
        wild_lines: draw.has("wild_lines", 30),
        renames: draw.has("renames", 60),
        copytruncate: draw.has("copytruncate", 25),
        compresses: draw.has("compresses", 20),
        dateext: draw.has("dateext", 30),
        late_lines: draw.has("late_lines", 20),
        deletes: draw.has("deletes", 15),
        operates: draw.has("operates", 15),
        neighbours: draw.has("neighbours", 30),
        permissions: draw.has("permissions", 10),
        linked: draw.has("linked", 15),
    }
}

fn draw_writers(draw: &mut Draw<'_>, partitions: &[Partition], group: &Name) -> Vec<Writer> {
    let count = if draw.has("writers", 20) { draw.random.between(2, 3) } else { 1 };
    let claim_idle = (count > 1).then_some(4000);
    let writer = |nth: u64| {
        let output = if nth == 0 { "out.txt".to_owned() } else { format!("out.txt.{nth}") };
        let configuration = writer::Configuration {
            stream: STREAM.to_owned(),
            group: group.clone(),
            consumer: Name::from(format!("w{nth}")),
            output,
            partitions: partitions.to_vec(),
            claim_idle,
            exclusive: 0,
        };
        Writer::new(usize::try_from(nth).unwrap_or(0), configuration)
    };
    (0..count).map(writer).collect()
}

fn draw_readers(draw: &mut Draw<'_>, partitions: &[Partition]) -> Vec<Reader> {
    let count = if draw.has("readers", 15) { 2 } else { 1 };
    let configuration = reader::Configuration {
        framing: if draw.random.chance(60) { Framing::Line } else { Framing::Chunk },
        max_line: if draw.random.chance(50) { 24 } else { 1000 },
        max_backlog: if draw.random.chance(20) { draw.random.between(5, 40) } else { 0 },
        partitions: partitions.to_vec(),
        base: (partitions.len() > 1).then(|| Name::from(record_key(STREAM))),
    };
    let states: Vec<reader::State> = partitions.iter().map(|_| Reader::no_state()).collect();
    (0..count).map(|nth| Reader::new(nth, configuration.clone(), states.clone())).collect()
}
