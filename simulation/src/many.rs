//! Many files: applications write to a tree, it is rotated, renamed and linked, both services and
//! Redis fail. Then every line must be in one output, once, under a name that its file has had; and
//! the lines of a file in order.

use crate::administrators::Hazards;
use crate::filesystem::{ContentId, FileSystem, Inode};
use crate::random::Random;
use crate::reader::many::{ManyReader, keys};
use crate::redis::{Command, Name};
use crate::story::Story;
use crate::world::World;
use crate::writer::{Configuration, Writer};
use delivery::partition::Partition;
use delivery::source_name::SourceName;
use delivery::split::Framing;
use std::collections::{BTreeMap, BTreeSet};

const STREAM: &str = "lines";
/// The initial time of Redis' clock.
const START: u64 = 1_700_000_000_000;
/// Milliseconds without progress after which all services are idle.
const REST: u64 = 70_000;
/// Maximum number of steps until then.
const PATIENCE: u64 = 100_000;
/// Where applications write.
const PATHS: [&str; 4] = ["logs/app.log", "logs/web.log", "logs/deep/app.log", "logs/late.log"];

/// What happens to the files of a seed.
#[derive(Debug, Clone, Copy)]
#[allow(clippy::struct_excessive_bools)]
struct Habits {
    renames: bool,
    /// A new file comes later than the old one goes.
    nocreate: bool,
    copies: bool,
    compresses: bool,
    dateext: bool,
    deletes: bool,
    /// Files are swapped, and moved to other folders.
    moves: bool,
    links: bool,
    /// Files are renamed to names that a pattern matches.
    comes_in: bool,
    headers: bool,
}

/// A content that an application has written.
#[derive(Debug, Default)]
struct Written {
    lines: Vec<String>,
    /// The names that its files have had.
    names: BTreeSet<String>,
    /// It need not be sent, because it may have been rotated before its source began.
    is_earlier: bool,
}

struct Tree {
    habits: Habits,
    contents: Vec<Written>,
    rotations: u64,
    story: Story,
}

impl Tree {
    fn begin(&mut self, files: &mut FileSystem, path: &str) -> Inode {
        let inode = files.create(path);
        self.renew(files, inode, path);
        inode
    }

    /// The next bytes of a file belong to another content.
    fn renew(&mut self, files: &mut FileSystem, inode: Inode, path: &str) {
        self.contents.push(Written::default());
        if let Some(file) = files.file_mut(inode) {
            file.content = Some(self.contents.len() - 1);
        }
        if self.habits.headers {
            files.append(inode, b"#time level text\n");
        }
        self.name(files, path);
    }

    /// Remembers the name of a file.
    fn name(&mut self, files: &FileSystem, path: &str) {
        if let Some(content) = files.at(path).and_then(|file| file.content) {
            self.contents[content].names.insert(path.to_owned());
        }
    }

    fn append(&mut self, files: &mut FileSystem, path: &str, lines: u64) {
        let inode = files.resolve(path).unwrap_or_else(|_| self.begin(files, path));
        let Some(content) = files.file(inode).and_then(|file| file.content) else { return };
        for _ in 0..lines {
            let written = &mut self.contents[content];
            let line = format!("content {content} line {}\n", written.lines.len());
            files.append(inode, line.as_bytes());
            written.lines.push(line);
        }
        self.story.tell(|| format!("{lines} lines are appended to {path} (content {content}, inode {inode})"));
    }

    /// Whether every line of a content is in an output.
    fn is_delivered(&self, content: ContentId, delivered: &BTreeSet<&str>) -> bool {
        self.contents[content].lines.iter().all(|line| delivered.contains(line.as_str()))
    }

    /// Whether a source has begun with the file at this path: a rotated file that nobody has read
    /// from is not sent.
    fn is_begun(&self, files: &FileSystem, path: &str, delivered: &BTreeSet<&str>) -> bool {
        let content = files.at(path).and_then(|file| file.content);
        content.is_some_and(|content| self.contents[content].lines.iter().any(|line| delivered.contains(line.as_str())))
    }

    /// The rotated files of a path, newest first.
    fn rotated(files: &FileSystem, path: &str) -> Vec<String> {
        let mut rotated: Vec<(u64, String)> = files
            .paths()
            .filter(|other| other.strip_prefix(path).is_some_and(|rest| rest.starts_with(['.', '-'])))
            .filter(|other| !other.ends_with("-hard.log") && !other.ends_with("-link.log"))
            .map(|other| (files.at(other).map_or(0, |file| file.created), other.to_owned()))
            .collect();
        rotated.sort_by(|one, other| other.cmp(one));
        rotated.into_iter().map(|(_, path)| path).collect()
    }

    fn move_to(&mut self, files: &mut FileSystem, from: &str, to: &str) {
        if files.exists(to) || files.rename(from, to).is_err() {
            return;
        }
        self.story.tell(|| format!("{from} is renamed to {to}"));
        self.name(files, to);
    }

    /// The name of the newest rotated file, free for a new one.
    fn make_room(&mut self, files: &mut FileSystem, path: &str) -> String {
        self.rotations += 1;
        if self.habits.dateext {
            return format!("{path}-202611{:02}-{}", self.rotations % 28 + 1, 1_700_000_000 + self.rotations);
        }
        for nth in (1..20).rev() {
            for suffix in ["", ".gz"] {
                let (from, to) = (format!("{path}.{nth}{suffix}"), format!("{path}.{}{suffix}", nth + 1));
                self.move_to(files, &from, &to);
            }
        }
        format!("{path}.1")
    }

    fn act(&mut self, files: &mut FileSystem, delivered: &BTreeSet<&str>, random: &mut Random) {
        let path = *random.pick(&PATHS).unwrap_or(&PATHS[0]);
        let habits = self.habits;
        match random.below(100) {
            0..=59 => {
                let lines = random.between(1, 4);
                if files.exists(path) || random.chance(50) {
                    self.append(files, path, lines);
                }
            }
            60..=69 if habits.renames && self.is_begun(files, path, delivered) => {
                let to = self.make_room(files, path);
                self.move_to(files, path, &to);
                if !habits.nocreate {
                    self.begin(files, path);
                }
            }
            70..=75 if habits.copies && self.is_begun(files, path, delivered) => {
                let to = self.make_room(files, path);
                let (Ok(inode), Ok(_)) = (files.resolve(path), files.copy(path, &to)) else { return };
                self.story.tell(|| format!("{path} is copied to {to}, and truncated"));
                self.name(files, &to);
                files.set_len(inode, 0);
                self.renew(files, inode, path);
            }
            76..=81 if habits.compresses => {
                let plain = Self::rotated(files, path).into_iter().filter(|path| !path.ends_with(".gz"));
                let plain: Vec<String> = plain.filter(|path| self.is_begun(files, path, delivered)).collect();
                if let Some(one) = random.pick(&plain)
                    && files.compress(one).is_ok()
                {
                    self.story.tell(|| format!("{one} is compressed"));
                    self.name(files, &format!("{one}.gz"));
                }
            }
            82..=86 if habits.deletes => {
                let mut all = Self::rotated(files, path);
                all.push(path.to_owned());
                let Some(one) = random.pick(&all) else { return };
                let content = files.at(one).and_then(|file| file.content);
                if content.is_some_and(|content| self.is_delivered(content, delivered)) {
                    self.story.tell(|| format!("{one} is deleted"));
                    let _ = files.unlink(one);
                }
            }
            87..=92 if habits.moves => {
                let other = *random.pick(&PATHS).unwrap_or(&PATHS[1]);
                let both = [path, other].map(|path| self.is_begun(files, path, delivered));
                if both == [true, true] && path != other {
                    for (from, to) in [(path, "logs/.between"), (other, path), ("logs/.between", other)] {
                        self.move_to(files, from, to);
                    }
                } else if both == [true, false] && !files.exists(other) {
                    self.move_to(files, path, other);
                }
            }
            93..=95 if habits.links && files.exists(path) && self.is_begun(files, path, delivered) => {
                let (hard, link) = (format!("{path}-hard.log"), format!("{path}-link.log"));
                match random.below(3) {
                    0 => files.symlink(path, &link),
                    1 if files.link(path, &hard).is_ok() => self.name(files, &hard),
                    _ => drop((files.unlink(&hard), files.unlink(&link))),
                }
                self.story.tell(|| format!("{path} gets or loses another name"));
            }
            96..=99 if habits.comes_in => {
                // A file is written under another name, and gets its own when it is complete.
                let hidden = "logs/.part";
                let to = format!("logs/came-{}.log", self.contents.len());
                self.append(files, hidden, 2);
                self.move_to(files, hidden, &to);
            }
            _ => {}
        }
    }
}

struct Simulation {
    world: World,
    tree: Tree,
    reader: ManyReader,
    writers: BTreeMap<SourceName, Writer>,
    kills: bool,
    crashes: bool,
    is_wide: bool,
}

/// Runs one seed.
///
/// # Errors
/// What is wrong with the outputs.
pub fn run(seed: u64, without: &[String], story: &Story) -> Result<(), String> {
    let mut random = Random::new(seed);
    let mut has = |kind: &str, percent| random.chance(percent) && !without.iter().any(|one| one == kind);
    let (kills, crashes, is_wide) = (has("kills", 60), has("crashes", 40), has("wide", 60));
    let habits = Habits {
        renames: has("renames", 70),
        nocreate: has("nocreate", 30),
        copies: has("copies", 40),
        compresses: has("compresses", 50),
        dateext: has("dateext", 30),
        deletes: has("deletes", 50),
        moves: has("moves", 40),
        links: has("links", 30),
        comes_in: has("comes_in", 30),
        headers: has("headers", 0),
    };
    // Whose a copy of a file is that was moved before is not known.
    let is_copied = !habits.moves;
    let habits = Habits { copies: habits.copies && is_copied, compresses: habits.compresses && is_copied, ..habits };
    let hazards = Hazards { disconnects: has("disconnects", 30), ..Hazards::default() };
    let framing = if has("chunk", 40) { Framing::Chunk } else { Framing::Line };
    let steps = random.between(50, 300);
    story.tell(|| format!("{habits:?}; kills: {kills}, crashes: {crashes}, wide: {is_wide}"));
    let world = World::new(random, story.clone(), hazards, Vec::new(), START);
    let tree = Tree { habits, contents: Vec::new(), rotations: 0, story: story.clone() };
    let reader = ManyReader::new(STREAM.to_owned(), is_wide, framing);
    let mut simulation = Simulation { world, tree, reader, writers: BTreeMap::new(), kills, crashes, is_wide };
    simulation.run(steps)
}

impl Simulation {
    fn run(&mut self, steps: u64) -> Result<(), String> {
        // A rotated file before there is one that it could have been.
        if self.is_wide && self.world.random.chance(20) {
            self.tree.append(&mut self.world.input.borrow_mut(), "logs/late.log.1", 2);
            self.tree.contents[0].is_earlier = true;
            // An archive that is renamed twice has no name any more that tells of it.
            self.tree.habits.compresses = false;
        }
        for _ in 0..steps {
            self.act();
            for _ in 0..4 {
                self.serve();
            }
        }
        self.world.story.tell(|| "the faults end");
        self.world.faulty = false;
        // What was rotated last is sent when the file is there again.
        for path in PATHS {
            self.tree.append(&mut self.world.input.borrow_mut(), path, 1);
        }
        let (mut at, mut since, mut quiet) = (self.world.progress, self.world.elapsed, 0_u64);
        for _ in 0..PATIENCE {
            self.serve();
            if self.world.progress != at {
                (at, since, quiet) = (self.world.progress, self.world.elapsed, 0);
                continue;
            }
            quiet += 1;
            // Each service has had its turns.
            if quiet.is_multiple_of(128 + 64 * self.writers.len() as u64) {
                self.world.pass(1500);
            }
            if self.world.elapsed - since >= REST {
                return self.judge();
            }
        }
        Err("it never comes to rest".to_owned())
    }

    fn act(&mut self) {
        let world = &mut self.world;
        match world.random.below(100) {
            0..=49 => {
                let outputs = outputs(&self.writers, &world.outputs);
                let delivered = outputs.values().flat_map(|text| text.split_inclusive('\n')).collect();
                let mut files = world.input.borrow_mut();
                self.tree.act(&mut files, &delivered, &mut world.random);
            }
            50..=52 if self.kills => self.reader.kill(world),
            53..=54 if self.kills => self.writers.values_mut().for_each(|writer| writer.kill(world)),
            55..=56 if self.crashes => match world.random.below(3) {
                0 => {
                    world.story.tell(|| "FLUSHALL");
                    world.redis.admin(Command::FlushAll);
                }
                _ => {
                    let lose = world.random.index(world.redis.log_len().min(30) + 1);
                    world.story.tell(|| format!("Redis is restarted and has lost its last {lose} commands"));
                    world.redis.restart(lose, false);
                }
            },
            57..=59 => {
                let millis = world.random.below(3000);
                world.pass(millis);
            }
            _ => {}
        }
    }

    /// Performs one step of a service.
    fn serve(&mut self) {
        let world = &mut self.world;
        let millis = world.random.below(12);
        world.pass(millis);
        if world.random.chance(50) {
            self.reader.step(world);
            return;
        }
        for name in self.reader.names() {
            if !self.writers.contains_key(name) {
                let configuration = Configuration {
                    stream: name.key(STREAM),
                    group: Name::from("writers"),
                    consumer: Name::from("one"),
                    output: name.escaped().replace('/', "%2F"),
                    partitions: vec![Partition::WHOLE],
                    claim_idle: None,
                    exclusive: 0,
                };
                self.writers.insert(name.clone(), Writer::new(self.writers.len(), configuration));
            }
        }
        let nth = world.random.index(self.writers.len());
        if let Some((name, writer)) = self.writers.iter_mut().nth(nth) {
            world.keys = vec![keys(STREAM, name)];
            writer.step(world);
        }
    }

    fn judge(&self) -> Result<(), String> {
        let refused = self.writers.values().find_map(|writer| writer.refused.as_ref());
        if let Some(why) = refused.or(self.reader.refused.as_ref()) {
            return Err(format!("a service refused: {why}"));
        }
        let outputs = outputs(&self.writers, &self.world.outputs);
        // The outputs and offsets of each line.
        let mut places: BTreeMap<&str, Vec<(&SourceName, usize)>> = BTreeMap::new();
        for (name, text) in &outputs {
            for (at, line) in text.split_inclusive('\n').enumerate() {
                places.entry(line).or_default().push((name, at));
            }
        }
        let mut wrong = Vec::new();
        for (content, written) in self.tree.contents.iter().enumerate() {
            let mut last: Option<(&SourceName, usize)> = None;
            for line in &written.lines {
                let there = places.remove(line.as_str()).unwrap_or_default();
                if there.is_empty() && written.is_earlier {
                    continue;
                }
                let &[(name, at)] = &there[..] else {
                    let there: Vec<String> = there.iter().map(|(name, at)| format!("line {at} of {name}")).collect();
                    wrong.push(format!("{line:?} is there {} times: {}", there.len(), there.join(", ")));
                    continue;
                };
                if last.is_some_and(|(before, _)| before != name) {
                    wrong.push(format!("content {content} is in several outputs, also in {name}"));
                }
                if last.is_some_and(|(before, earlier)| before == name && earlier > at) {
                    wrong.push(format!("{line:?} comes before the line before it"));
                }
                last = Some((name, at));
            }
            if let Some((name, _)) = last
                && let path = format!("logs/{}", name.path().display())
                && !written.names.contains(path.trim_end_matches("-link.log"))
            {
                wrong.push(format!("content {content} is in {name}, and was called {:?}", written.names));
            }
        }
        if !self.tree.habits.headers {
            wrong.extend(places.keys().map(|line| format!("nobody has written {line:?}")));
        }
        wrong.truncate(6);
        if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
    }
}

fn outputs(writers: &BTreeMap<SourceName, Writer>, files: &FileSystem) -> BTreeMap<SourceName, String> {
    let bytes = |writer: &Writer| writer.written(files).into_iter().flat_map(|one| one.bytes).collect::<Vec<u8>>();
    writers.iter().map(|(name, writer)| (name.clone(), String::from_utf8_lossy(&bytes(writer)).into_owned())).collect()
}
