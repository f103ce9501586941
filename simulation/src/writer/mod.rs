//! A simulated writer: a process with an output. It can be killed between any two effects.

mod output;
mod partition;

use crate::filesystem::{DiskFault, FileSystem};
use crate::oracle::Written;
use crate::redis::Name;
use crate::world::World;
use delivery::consumer::lease::LEASE_MIN;
use delivery::consumer::{Consumer, Consumption, FileIdentity, Lease, Output, Refusal, Settings};
use delivery::journal::{Identity, Parsed};
use delivery::output::{Job, JournalWas, Outcome, Verdict};
use delivery::partition::Partition;
use output::{FOLDER, Open, path};
use partition::{PartitionWriter, Step};
use std::time::Duration;

/// The configuration of a writer.
#[derive(Debug, Clone)]
pub struct Configuration {
    /// The stream of the source.
    pub stream: String,
    /// The group.
    pub group: Name,
    /// The consumer's name.
    pub consumer: Name,
    /// The file name of the output.
    pub output: String,
    /// The partitions that it takes.
    pub partitions: Vec<Partition>,
    /// The idle time in milliseconds after which it claims entries of other consumers.
    pub claim_idle: Option<u64>,
    /// The percentage of its starts that consume exclusively.
    pub exclusive: u64,
}

/// A writer, running or not.
#[derive(Debug)]
pub struct Writer {
    /// Its configuration.
    pub configuration: Configuration,
    nth: usize,
    process: u32,
    running: Option<Running>,
    /// Why it stopped with an error.
    pub refused: Option<String>,
    /// Whether it stopped on request.
    pub is_scaled_away: bool,
    starts_at: u64,
    /// The numbers that its processes gave to this output.
    ids: u64,
    /// The state of the current process: its fencing token, and the outputs that it had open.
    token: String,
    former: Vec<String>,
    /// The process is suspended (SIGSTOP) until this time.
    sleeps_until: u64,
}

#[derive(Debug)]
struct Running {
    partitions: Vec<PartitionWriter>,
    output: Open,
    is_stopping: bool,
    /// A failed commit is not retried before this time.
    disk_waits_until: u64,
}

impl Writer {
    /// A writer that has not started.
    #[must_use]
    pub fn new(nth: usize, configuration: Configuration) -> Self {
        let process = u32::try_from(nth).unwrap_or(0) * 1000 + 1000;
        Self {
            configuration,
            nth,
            process,
            running: None,
            refused: None,
            is_scaled_away: false,
            starts_at: 0,
            ids: 0,
            token: String::new(),
            former: Vec::new(),
            sleeps_until: 0,
        }
    }

    fn name(&self) -> String {
        format!("writer {}", self.nth)
    }

    /// Whether its process runs.
    #[must_use]
    pub const fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// Kills the process. Its writes stay visible.
    pub fn kill(&mut self, world: &mut World) {
        if let Some(running) = self.running.take() {
            world.story.tell(|| format!("{} is killed", self.name()));
            drop(running);
            world.outputs.unlock_all(self.process);
            world.is_group_behind = true;
            self.process += 1;
        }
        self.forget();
        self.starts_at = world.elapsed + world.random.below(200);
    }

    /// Starts another process.
    fn forget(&mut self) {
        (self.token, self.former, self.sleeps_until) = (String::new(), Vec::new(), 0);
    }

    /// Suspends the process (SIGSTOP) for some time.
    pub fn pause(&mut self, world: &World, millis: u64) {
        world.story.tell(|| format!("{} sleeps for {millis} ms", self.name()));
        self.sleeps_until = world.elapsed + millis;
    }

    /// Cuts the power of its machine, which ends the process. The caller cuts the power of the
    /// disk.
    pub fn lose_power(&mut self) {
        self.running = None;
        self.process += 1;
        self.forget();
    }

    /// Requests it to stop.
    pub fn stop(&mut self, world: &World) {
        if let Some(running) = &mut self.running {
            world.story.tell(|| format!("writer {} is asked to stop", self.nth));
            running.is_stopping = true;
            running.partitions.iter_mut().for_each(|partition| partition.consumer.stop());
        }
    }

    /// Performs one effect.
    pub fn step(&mut self, world: &mut World) {
        if world.elapsed < self.sleeps_until {
            return;
        }
        if self.running.is_none() {
            if world.elapsed >= self.starts_at && self.refused.is_none() && !self.is_scaled_away {
                self.start(world);
            }
            return;
        }
        let Some(running) = &mut self.running else { return };
        let partition = world.random.index(running.partitions.len());
        match world.random.below(3) {
            _ if running.partitions.is_empty() => self.step_disk(world),
            0 => running.partitions[partition].acknowledge(world),
            1 => self.step_disk(world),
            _ => self.step_lane(world, partition),
        }
    }

    /// Opens the output, and starts all partitions.
    fn start(&mut self, world: &mut World) {
        let Configuration { stream, group, consumer, output: name, partitions, claim_idle, exclusive } =
            self.configuration.clone();
        let identity = Identity::new(&stream, &group, &partitions);
        let fresh_id = world.random.below(u64::MAX);
        let verdict = output::startup(&mut world.outputs, self.process, name.as_bytes(), &identity, fresh_id);
        let mut at = name.as_bytes().to_vec();
        let opening = match verdict {
            Ok(Verdict::Open(opening)) => *opening,
            Ok(Verdict::Adopt(became, opening)) => {
                at = became;
                *opening
            }
            Ok(Verdict::Refuse(refusal)) => {
                world.story.tell(|| format!("{} refuses: {refusal}", self.name()));
                if world.restore_journals() {
                    world.story.tell(|| "an operator restores the journals");
                } else {
                    self.refused = Some(refusal.to_string());
                }
                return;
            }
            Err(errno) => {
                world.story.tell(|| format!("{} cannot start: {errno:?}", self.name()));
                self.starts_at = world.elapsed + 100;
                return;
            }
        };
        for (file, ranges) in &opening.lost {
            for span in ranges.iter() {
                world.story.tell(|| format!("{}: bytes {span:?} of file {file} are lost from its output", self.name()));
                world.reported(*file, span);
            }
        }
        world.forgot_rotated |= !opening.unusable.is_empty();
        let id = opening.ledger.owner().id;
        self.ids = id;
        let Some(output) = Open::new(&mut world.outputs, name.as_bytes(), &at, self.process, opening.ledger) else {
            world.story.tell(|| format!("{}: another writer has its output", self.name()));
            self.starts_at = world.elapsed + 100;
            return;
        };
        if at != name.as_bytes() {
            world.story.tell(|| format!("{} lets its journal follow {name}", self.name()));
            self.running = Some(Running { partitions: Vec::new(), output, is_stopping: false, disk_waits_until: 0 });
            return;
        }
        let head = world.outputs.file(output.inode()).map(|file| file.bytes().to_vec()).unwrap_or_default();
        if self.token.is_empty() {
            let is_exclusive = exclusive > 0 && world.random.chance(exclusive);
            self.token = if is_exclusive { format!("{}", world.random.below(u64::MAX)) } else { "shared".to_owned() };
        }
        let consume = match self.token.as_str() {
            "shared" => Consumption::Group,
            token => Consumption::Exclusive { token: token.to_owned(), lease: LEASE_MIN },
        };
        let claim_idle = claim_idle.filter(|_| consume == Consumption::Group);
        let settings = Settings {
            group: group.to_string(),
            consumer: consumer.to_string(),
            partitions: None,
            once: false,
            claim_idle: claim_idle.map(Duration::from_millis),
            consume,
            output: Output {
                id: id.to_string(),
                former: std::mem::replace(&mut self.former, vec![id.to_string()]),
                file: FileIdentity { dev: 2, ino: output.inode(), head },
                has_unknown_tail: opening.keep,
                journal_is_missing: opening.journal == JournalWas::Missing,
                held: opening.held,
                lost: opening.lost.iter().flat_map(|(file, ranges)| ranges.iter().map(|span| (*file, span))).collect(),
            },
        };
        let partitions = partitions.iter().enumerate().map(|(nth, partition)| {
            let keys = world.keys[partition.index() as usize].clone();
            let name =
                if partitions.len() == 1 { self.name() } else { format!("{}/{}", self.name(), partition.index()) };
            PartitionWriter::new(
                name,
                nth,
                keys,
                group.clone(),
                consumer.clone(),
                Consumer::new(*partition, settings.clone()),
            )
        });
        let partitions = partitions.collect();
        world.story.tell(|| format!("{} starts with {} bytes in {name}", self.name(), output.ledger.committed()));
        self.running = Some(Running { partitions, output, is_stopping: false, disk_waits_until: 0 });
    }

    fn step_lane(&mut self, world: &mut World, nth: usize) {
        let name = self.name();
        let Some(running) = &mut self.running else { return };
        let disk_is_idle = running.output.is_idle() && running.output.committing.is_none();
        match running.partitions[nth].step(world, disk_is_idle) {
            Step::Done => {}
            Step::HandOver(batch) => {
                world.story.tell(|| {
                    format!(
                        "{name} hands over {} entries, {} new bytes: {:?}",
                        batch.entries(),
                        batch.data.len(),
                        batch.runs
                    )
                });
                running.output.receive(batch);
            }
            Step::Ended if running.is_stopping => {
                if running.partitions.iter().all(PartitionWriter::is_at_rest) && running.output.is_idle() {
                    world.story.tell(|| format!("{name} ends"));
                    self.leave(world);
                }
            }
            Step::Ended => {}
            Step::Restart => {
                world.story.tell(|| format!("{name} has lost its lease and begins again"));
                self.open_again(world);
            }
            Step::Refused(refusal) => {
                world.story.tell(|| format!("{name} refuses: {refusal:?}"));
                if world.restore_journals() {
                    world.story.tell(|| "an operator restores the journals");
                } else if refusal == Refusal::JournalOlder && world.hazards.administrators {
                    // Entries that an administrator removed from the group look like acknowledged
                    // ones.
                    move_away(world, &path(self.configuration.output.as_bytes()), true);
                } else {
                    self.refused = Some(format!("{refusal:?}"));
                }
                self.running = None;
                world.outputs.unlock_all(self.process);
                self.process += 1;
            }
        }
    }

    /// Removes the consumer, if it has no pending entries.
    fn leave(&mut self, world: &mut World) {
        let Configuration { group, consumer, partitions, .. } = self.configuration.clone();
        for partition in &partitions {
            let lease = world.keys[partition.index() as usize].lease.clone();
            let token = world.redis.field(&lease, b"token").map(|token| token.to_vec());
            if token.is_some_and(|token| token == self.token.as_bytes()) {
                let fields = Lease::FIELDS.map(crate::redis::bytes).to_vec();
                world.redis.admin(crate::redis::Command::HDel { key: lease, fields });
            }
            let key = world.keys[partition.index() as usize].stream.clone();
            let stream = world.redis.stream_at(&key);
            let own = stream
                .and_then(|s| s.groups().get(&group))
                .map(|g| g.pending().filter(|(_, name)| **name == consumer).count());
            if own == Some(0) {
                let (group, consumer) = (group.clone(), consumer.clone());
                world.redis.admin(crate::redis::Command::XGroupDelConsumer { key, group, consumer });
            }
        }
        self.running = None;
        world.outputs.unlock_all(self.process);
        self.process += 1;
        self.forget();
        self.is_scaled_away = world.faulty;
    }

    fn step_disk(&mut self, world: &mut World) {
        let name = self.name();
        let Some(running) = &mut self.running else { return };
        if world.elapsed < running.disk_waits_until {
            return;
        }
        if running.output.is_idle()
            && let Some(batch) = &running.output.committing
            && !running.partitions[batch.partition].may_write(world)
        {
            world.story.tell(|| format!("{name} drops a batch, because its lease may have ended"));
            return self.open_again(world);
        }
        let stale = self.configuration.claim_idle.map(|idle| Duration::from_millis(idle / 2));
        if running.output.is_idle() {
            if let (Some(batch), Some(stale)) = (&running.output.committing, stale)
                && batch.came_at.is_some_and(|at| world.instant().saturating_duration_since(at) >= stale)
            {
                // Another consumer may have claimed it.
                world.story.tell(|| format!("{name} drops a batch that waited for too long"));
                return self.open_again(world);
            }
            if running.output.committing.is_some() {
                running.output.commit_received(true);
            } else if world.random.chance(5) {
                if running.partitions.iter().all(|partition| partition.consumer.has_name()) {
                    running.output.ledger.judged();
                }
                running.output.begin(Job::Maintain { sync: true });
            } else {
                return;
            }
        }
        match running.output.step(&mut world.outputs) {
            None => {}
            Some(Outcome::Done) => {
                if let Some(batch) = running.output.committing.take() {
                    world.progress += 1;
                    if !batch.data.is_empty() {
                        world.truth.written.insert(batch.partition);
                    }
                    world.story.tell(|| format!("{name} has committed {} bytes", running.output.ledger.committed()));
                    running.partitions[batch.partition].to_acknowledge.push_back(batch);
                }
            }
            Some(Outcome::Failed) => {
                world.story.tell(|| format!("{name}: the disk fails; it tries again"));
                running.disk_waits_until = world.elapsed + 50;
            }
            Some(outcome @ (Outcome::Disturbed(_) | Outcome::Rotated)) => {
                world.story.tell(|| format!("{name} opens its output again: {outcome:?}"));
                self.open_again(world);
            }
        }
    }

    /// Restarts from the state of the output, as a restarted process does.
    fn open_again(&mut self, world: &mut World) {
        self.running = None;
        world.outputs.unlock_all(self.process);
        self.process += 1;
        self.starts_at = world.elapsed;
    }

    /// The ranges that it is writing or has written, by file ID.
    pub fn has(&self, files: &FileSystem) -> Vec<(u64, std::ops::Range<u64>)> {
        let written = self.written(files).into_iter().map(|one| (one.file_id, one.span));
        let committing = self.running.iter().filter_map(|running| running.output.committing.as_ref());
        written
            .chain(committing.flat_map(|batch| batch.runs.iter().map(|run| (run.file_id, run.span.clone()))))
            .collect()
    }

    /// The bytes of its output and of its rotated outputs, in order.
    #[must_use]
    pub fn written(&self, files: &FileSystem) -> Vec<Written> {
        let mut written = Vec::new();
        let listed = files.list(FOLDER).unwrap_or_default();
        let own = path(self.configuration.output.as_bytes());
        let mut outputs: Vec<&str> = listed.iter().filter_map(|(name, _)| name.strip_suffix(".journal")).collect();
        outputs.retain(|name| *name == own || name.strip_prefix(&own).is_some_and(|rest| rest.starts_with(".r")));
        // Rotated names have increasing numbers; the current name has none.
        outputs.sort_by_key(|name| (*name == own, name.len()));
        for name in outputs {
            let Some(file) = files.at(name) else { continue };
            let journal = files.at(&format!("{name}.journal")).map(|file| file.bytes().to_vec()).unwrap_or_default();
            let Ok(Some(parsed)) = Parsed::read(&journal) else { continue };
            for record in parsed.records.iter().filter(|record| !record.is_mark()) {
                let range =
                    usize::try_from(record.offset).unwrap_or(0)..usize::try_from(record.output_end()).unwrap_or(0);
                let bytes = file.bytes().get(range).unwrap_or_default().to_vec();
                // An operator may have moved an output away that ended with a torn commit.
                if name != own && record.output_end() > parsed.durable() && delivery::hash(&bytes) != record.data_hash {
                    continue;
                }
                written.push(Written { output: self.nth, file_id: record.file, span: record.span.clone(), bytes });
            }
        }
        written
    }
}

/// The disk faults of one seed.
#[derive(Debug, Clone, Copy, Default)]
#[allow(clippy::struct_excessive_bools)]
pub struct DiskHazards {
    /// The power is cut.
    pub power: bool,
    /// The disk is full, or a sync fails.
    pub faults: bool,
    /// Bits flip.
    pub flips: bool,
    /// Outputs are rotated.
    pub rotates: bool,
}

/// Renames an output, with or without its journal.
fn move_away(world: &mut World, own: &str, with_journal: bool) {
    let nth = world.outputs.list(FOLDER).unwrap_or_default().len();
    let rotated = format!("{own}.r{}", "0".repeat(nth));
    world.story.tell(|| format!("{own} is renamed to {rotated}"));
    let _ = world.outputs.rename(own, &rotated);
    if with_journal {
        let _ = world.outputs.rename(&format!("{own}.journal"), &format!("{rotated}.journal"));
    }
}

/// Causes one fault of the disk with the outputs.
pub fn disturb(world: &mut World, writers: &mut [Writer], hazards: DiskHazards) {
    match world.random.below(10) {
        0..=2 if hazards.power => {
            world.story.tell(|| "the power of the writers' machine is cut");
            writers.iter_mut().for_each(Writer::lose_power);
            world.outputs.power_cut(&mut world.random);
        }
        3..=5 if hazards.faults => {
            let fault = if world.random.chance(50) { DiskFault::Full } else { DiskFault::Sync };
            world.story.tell(|| format!("the next write or sync of a writer fails: {fault:?}"));
            world.outputs.fault = Some(fault);
        }
        6..=7 if hazards.rotates => {
            let Some(writer) = writers.get(world.random.index(writers.len())) else { return };
            let own = path(writer.configuration.output.as_bytes());
            if world.outputs.at(&own).is_none_or(crate::filesystem::File::is_empty) {
                return;
            }
            move_away(world, &own, false);
        }
        8..=9 if hazards.flips => {
            let listed = world.outputs.list(FOLDER).unwrap_or_default();
            let journals: Vec<_> = listed.into_iter().filter(|(name, _)| name.ends_with(".journal")).collect();
            let Some((name, inode)) = world.random.pick(&journals).map(|(name, inode)| ((*name).to_owned(), *inode))
            else {
                return;
            };
            let len = world.outputs.file(inode).map_or(0, |file| file.bytes().len());
            let (at, bit) = (world.random.index(len), u32::try_from(world.random.below(8)).unwrap_or(0));
            if let Some(flip) = world.outputs.flip(inode, at, bit) {
                world.story.tell(|| format!("bit {bit} of byte {at} of {name} flips"));
                world.flips.push(flip);
            }
        }
        _ => {}
    }
}
