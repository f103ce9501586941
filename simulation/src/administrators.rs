//! Faults and changes of Redis from outside: by administrators, by other programs, and by crashes.
//!
//! Whatever removes entries, or makes the group skip them, is recorded in the
//! [truth](crate::truth): those bytes need not arrive, but they must be reported.

use crate::random::Random;
use crate::redis::{AddId, Command, Entry, Group, Name, Reply, Right, Server, Stream, bytes};
use crate::story::Story;
use crate::truth::{Fate, Truth};
use delivery::manifest::Manifest;
use resp::StreamId;
use std::rc::Rc;

/// The faults of Redis in one seed.
#[derive(Debug, Clone, Copy, Default)]
#[allow(clippy::struct_excessive_bools)]
pub struct Hazards {
    /// Redis is killed, and loses the tail of its log or all of it.
    pub crashes: bool,
    /// A tail may be cut in the middle of a transaction.
    pub tears: bool,
    /// Older states are restored, of all keys or of one.
    pub restores: bool,
    /// Keys, entries, groups, consumers and record fields are deleted, trimmed, moved, renamed.
    pub administrators: bool,
    /// Other programs add entries to the stream.
    pub foreign: bool,
    /// A foreign ID may be near the maximum, after which nothing can be added.
    pub exhausts: bool,
    /// Permissions are revoked, memory is full, or no command is served for a while.
    pub refusals: bool,
    /// Connections are lost, before or after a command is executed.
    pub disconnects: bool,
    /// Clocks jump.
    pub clocks: bool,
}

/// The keys of one partition.
#[derive(Debug, Clone)]
pub struct Keys {
    /// The stream.
    pub stream: Name,
    /// The source record.
    pub record: Name,
    /// The lease of a writer that has the group to itself.
    pub lease: Name,
}

/// Events that the oracle must know about.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools)]
pub struct Happened {
    /// Redis lost data or went back to an older state: several writers may get the same entries.
    pub redis_went_back: bool,
    /// Entries were removed, so reports are expected.
    pub removed: bool,
    /// An older state came back after Redis had lost something: it holds what the present state
    /// never had, so nobody can tell what the present one lacks.
    pub branched_off: bool,
    /// A stream can take no more entries.
    pub exhausted: bool,
    /// A foreign entry took an ID of the reader's present generation. It blocks some entries of a
    /// batch and not others, so the order is not guaranteed.
    pub collided: bool,
    /// An older state of a stream was restored, and another program added entries to it: there are
    /// as many as the reader expects, so it cannot know that some are missing. The writer reports
    /// them.
    pub masked: bool,
    /// A right was withdrawn inside a transaction: entries were added, and the record does not say
    /// so.
    pub in_part: bool,
}

/// Records that these entries may never arrive.
fn note_removed<'a>(truth: &mut Truth, entries: impl IntoIterator<Item = &'a Rc<Entry>>, fate: Fate) {
    for origin in entries.into_iter().filter_map(|entry| entry.origin.as_ref()) {
        truth.note(origin.content, origin.span.clone(), fate);
    }
}

fn all_entries(stream: Option<&Stream>) -> Vec<Rc<Entry>> {
    stream.map(|stream| stream.entries().values().cloned().collect()).unwrap_or_default()
}

/// The actors that change Redis from outside.
#[derive(Debug)]
pub struct Administrators {
    /// The keys of the source's partitions.
    pub partitions: Vec<Keys>,
    /// The writers' group.
    pub group: Name,
    /// The actions that this seed allows.
    pub hazards: Hazards,
    /// The actions so far.
    pub happened: Happened,
    /// Whether an older state of a stream alone was restored.
    pub is_stream_restored: bool,
    /// The log of events.
    pub story: Story,
}

impl Administrators {
    /// One action of an administrator or another program, or a crash.
    pub fn act(&mut self, server: &mut Server, truth: &mut Truth, random: &mut Random) {
        let Some(keys) = random.pick(&self.partitions).cloned() else { return };
        let hazards = self.hazards;
        match random.below(100) {
            0..=19 if hazards.crashes => self.crash(server, random),
            20..=29 if hazards.restores => self.restore(server, &keys, truth, random),
            30..=54 if hazards.administrators => self.administrate(server, &keys, truth, random),
            55..=69 if hazards.foreign => self.add_foreign(server, &keys, random),
            70..=84 if hazards.refusals => self.refuse(server, random),
            85..=94 if hazards.disconnects => {
                self.story.tell(|| "all connections to Redis are lost");
                server.disconnect_all();
            }
            95..=99 if hazards.restores => {
                self.story.tell(|| "a dump of Redis is kept");
                server.dump();
            }
            _ => {}
        }
    }

    /// Ends the faults: all commands are served again.
    pub fn settle(&self, server: &mut Server) {
        server.withdrawn.clear();
        (server.is_full, server.is_away) = (false, false);
    }

    fn crash(&mut self, server: &mut Server, random: &mut Random) {
        match random.below(10) {
            0 => {
                self.story.tell(|| "Redis is restarted and has lost everything");
                server.restart_empty();
                self.happened.redis_went_back = true;
            }
            1 => {
                self.story.tell(|| "FLUSHALL");
                server.admin(Command::FlushAll);
                self.happened.redis_went_back = true;
            }
            2..=4 => {
                self.story.tell(|| "Redis is restarted and has lost nothing");
                server.restart(0, false);
            }
            _ => {
                let lose = random.index(server.log_len().min(30) + 1);
                let torn = self.hazards.tears && random.chance(50);
                self.story.tell(|| {
                    let how = if torn { ", in the middle of a transaction perhaps" } else { "" };
                    format!("Redis is restarted and has lost its last {lose} commands{how}")
                });
                server.restart(lose, torn);
                self.happened.redis_went_back = true;
            }
        }
    }

    fn restore(&mut self, server: &mut Server, keys: &Keys, truth: &mut Truth, random: &mut Random) {
        let dump = random.index(server.dumps());
        if server.dumps() == 0 {
            return;
        }
        self.happened.branched_off |= self.happened.redis_went_back;
        self.happened.redis_went_back = true;
        match random.below(3) {
            0 => {
                self.story.tell(|| format!("an older state of {} alone is restored", keys.stream));
                server.restore_key(dump, &keys.stream);
                self.is_stream_restored = true;
            }
            1 => {
                self.story.tell(|| format!("an older state of {} alone is restored", keys.record));
                server.restore_key(dump, &keys.record);
                // A record that is complete says that nobody wrote the entries of other
                // generations.
                let Reply::Pairs(pairs) = server.admin(Command::HGetAll { key: keys.record.clone() }) else { return };
                let record = Manifest::from_fields(pairs.iter().map(|(name, value)| (&name[..], &value[..])));
                let Ok(record) = record else { return };
                let entries = server.stream_at(&keys.stream).into_iter().flat_map(Stream::entries);
                let unknown = entries.filter(|(id, _)| record.get(id.ms).is_none()).map(|(_, entry)| entry);
                note_removed(truth, unknown, Fate::REMOVED);
            }
            _ => {
                self.story.tell(|| "an older state of Redis is restored");
                server.restore(dump);
            }
        }
    }

    fn administrate(&mut self, server: &mut Server, keys: &Keys, truth: &mut Truth, random: &mut Random) {
        let Keys { stream: key, record, .. } = keys.clone();
        let stream = server.stream_at(&key);
        let ids: Vec<StreamId> = stream.map(|s| s.entries().keys().copied().collect()).unwrap_or_default();
        let some = random.pick(&ids).copied();
        // Before an output has lines, the start of the group is the administrator's choice: a moved
        // group is indistinguishable from one created there, and a deleted consumer from one that
        // never existed.
        let nth = self.partitions.iter().position(|one| one.stream == key).unwrap_or(0);
        let fate = if truth.written.contains(&nth) { Fate::REMOVED } else { Fate::OPTIONAL };
        let command = match random.below(14) {
            0 | 12 | 13 => {
                note_removed(truth, &all_entries(stream), fate);
                self.happened.redis_went_back = true;
                Command::Del { key }
            }
            1 => {
                self.happened.redis_went_back = true;
                Command::Del { key: record }
            }
            2 | 3 => {
                let Some(id) = some else { return };
                note_removed(truth, stream.and_then(|s| s.entries().get(&id)), fate);
                Command::XDel { key, ids: vec![id] }
            }
            4 => {
                let Some(min) = some else { return };
                note_removed(
                    truth,
                    stream.into_iter().flat_map(|s| s.entries().range(..min)).map(|(_, entry)| entry),
                    fate,
                );
                Command::XTrimMinId { key, min }
            }
            5 => {
                let Some(at) = some else { return };
                let passed: Vec<Rc<Entry>> =
                    stream.into_iter().flat_map(|s| s.entries().range(..=at)).map(|(_, entry)| entry.clone()).collect();
                note_removed(truth, &passed, fate);
                // What the group had passed is delivered again, perhaps after a report.
                let delivered = stream.and_then(|s| s.groups().get(&self.group)).map(Group::last_delivered);
                self.happened.redis_went_back |= delivered.is_some_and(|delivered| at < delivered);
                Command::XGroupSetId { key, group: self.group.clone(), at, entries_read: None }
            }
            6 => {
                // Everything is redelivered.
                self.happened.redis_went_back = true;
                Command::XGroupSetId { key, group: self.group.clone(), at: StreamId::ZERO, entries_read: None }
            }
            7 | 8 => {
                let Some(known) = stream.and_then(|s| s.groups().get(&self.group)) else { return };
                let consumers: Vec<Name> = known.consumer_infos(0).into_iter().map(|info| info.name).collect();
                let Some(consumer) = random.pick(&consumers).cloned() else { return };
                let pending = known.pending().filter(|(_, name)| **name == consumer);
                let entries: Vec<Rc<Entry>> =
                    pending.filter_map(|(id, _)| stream.and_then(|s| s.entries().get(&id)).cloned()).collect();
                note_removed(truth, &entries, fate);
                Command::XGroupDelConsumer { key, group: self.group.clone(), consumer }
            }
            9 => {
                self.happened.redis_went_back = true;
                Command::XGroupDestroy { key, group: self.group.clone() }
            }
            10 => {
                note_removed(truth, &all_entries(stream), fate);
                self.happened.redis_went_back = true;
                let to = Name::from(format!("{key}.old"));
                Command::Rename { key, to }
            }
            _ => {
                let fields: Vec<_> = match server.keys().get(&record) {
                    Some(crate::redis::Value::Hash(hash)) => hash.keys().cloned().collect(),
                    _ => return,
                };
                let Some(field) = random.pick(&fields).cloned() else { return };
                self.happened.redis_went_back = true;
                Command::HDel { key: record, fields: vec![field] }
            }
        };
        self.happened.removed = true;
        self.story.tell(|| format!("an administrator: {command:?}"));
        server.admin(command);
    }

    fn add_foreign(&mut self, server: &mut Server, keys: &Keys, random: &mut Random) {
        let last = server.stream_at(&keys.stream).map_or(StreamId::ZERO, Stream::last_id);
        let id = match random.below(10) {
            0..=4 => AddId::Auto,
            5..=6 => AddId::Exact(StreamId::new(last.ms, last.seq.saturating_add(random.between(1, 40)))),
            7 => AddId::Exact(StreamId::new(last.ms.saturating_add(random.between(1, 5000)), random.below(3))),
            8 if self.hazards.exhausts && random.chance(30) => {
                self.happened.exhausted = true;
                let below = StreamId::new(u64::MAX, u64::MAX - random.below(3));
                AddId::Exact(if random.chance(50) { StreamId::new(u64::MAX - random.below(2), 5) } else { below })
            }
            _ => AddId::Auto,
        };
        let field = *random.pick(&["message", "line", "lines", "part"]).unwrap_or(&"message");
        // A foreign entry with one of the reader's field names is indistinguishable from a reader's
        // entry only in a known generation. A program that adds such entries is a reader.
        let field = if matches!(id, AddId::Auto) && last.ms < server.now { field } else { "message" };
        let entry = Rc::new(Entry { fields: vec![(bytes(field), bytes("FOREIGN"))], origin: None });
        let is_above =
            matches!(id, AddId::Exact(id) if id.ms > last.ms) || matches!(id, AddId::Auto) && last.ms < server.now;
        self.happened.collided |= !is_above;
        self.happened.masked |= self.is_stream_restored;
        let reply = server.admin(Command::XAdd { key: keys.stream.clone(), id, entry, no_create: false });
        self.story.tell(|| format!("another program: XADD {} {id:?} {field} FOREIGN -> {reply:?}", keys.stream));
    }

    fn refuse(&mut self, server: &mut Server, random: &mut Random) {
        const RIGHTS: [Right; 7] =
            [Right::Add, Right::Hash, Right::Acknowledge, Right::Trim, Right::Group, Right::Read, Right::Script];
        if !server.withdrawn.is_empty() || server.is_full || server.is_away {
            self.story.tell(|| "Redis serves everybody again");
            return self.settle(server);
        }
        match random.below(4) {
            0 => {
                self.story.tell(|| "the memory of Redis is full");
                server.is_full = true;
            }
            1 => {
                self.story.tell(|| "Redis serves nobody");
                server.is_away = true;
            }
            _ => {
                let Some(right) = random.pick(&RIGHTS) else { return };
                self.story.tell(|| format!("the right to {right:?} is withdrawn"));
                self.happened.in_part |= *right == Right::Hash;
                server.withdrawn.insert(*right);
            }
        }
    }
}
