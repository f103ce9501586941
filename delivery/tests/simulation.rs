//! The delivery rules against a simulated file, Redis, and disk: random faults, thousands of seeds a second. Whatever happened, the output
//! equals the contents in order, byte for byte.
//!
//! A failing seed is printed; `SEED=… cargo test -p delivery --test simulation` runs it alone, `SEEDS=…` sets how many are run.

// A simulation that cannot go on has found something: it panics.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use delivery::entry::{Field, Piece};
use delivery::hash;
use delivery::journal::{self, Header, Identity, Owner, Parsed, RECORD_LEN, Record};
use delivery::ranges::RangeSet;
use delivery::resume::{Resume, View, carried_by};
use delivery::source::{Generation, Guard, Lineage, Position};
use delivery::split::{Behind, Framing, Splitter};
use resp::StreamId;
use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;

/// xorshift64*: all a simulation needs.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) % bound.max(1)
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

#[derive(Clone)]
struct Entry {
    id: StreamId,
    field: &'static [u8],
    payload: Vec<u8>,
}

/// What Redis holds: the stream, the source record, one group.
#[derive(Clone, Default)]
struct Redis {
    entries: Vec<Entry>,
    last_id: StreamId,
    exists: bool,
    next: BTreeMap<u64, Generation>,
    guard: Option<Guard>,
    confirmed: Option<Position>,
    group: Option<StreamId>,
    pending: BTreeSet<StreamId>,
}

impl Redis {
    fn add(&mut self, entry: Entry) -> bool {
        let fits = entry.id > self.last_id;
        if fits {
            self.last_id = entry.id;
            self.exists = true;
            self.entries.push(entry);
        }
        fits
    }

    fn lineage(&self) -> Lineage {
        let mut lineage = Lineage::default();
        lineage.guard = self.guard;
        lineage.confirmed = self.confirmed;
        self.next.values().for_each(|g| lineage.insert(g.clone()));
        lineage
    }

    /// XREADGROUP: own pending entries behind `after`, or new ones.
    fn read(&mut self, after: Option<StreamId>, count: usize) -> Vec<Entry> {
        let group = *self.group.get_or_insert(StreamId::ZERO);
        self.exists = true;
        let found: Vec<Entry> = match after {
            Some(after) => self
                .entries
                .iter()
                .filter(|e| e.id > after && self.pending.contains(&e.id))
                .take(count)
                .cloned()
                .collect(),
            None => self.entries.iter().filter(|e| e.id > group).take(count).cloned().collect(),
        };
        if let (None, Some(last)) = (after, found.last()) {
            self.group = Some(last.id);
            self.pending.extend(found.iter().map(|e| e.id));
        }
        found
    }

    /// XTRIM MINID of what the group has acknowledged.
    fn trim(&mut self) {
        if let Some(delivered) = self.group {
            let keep = self.pending.first().copied();
            self.entries.retain(|e| e.id > delivered || keep.is_some_and(|k| e.id >= k));
        }
    }
}

/// The input: contents, one after the other; the last one may still grow.
struct Source {
    contents: Vec<Vec<u8>>,
}

/// A reader: what its state file holds survives it.
#[derive(Default)]
struct Reader {
    running: Option<Running>,
    /// The last batch was refused, though nobody else wrote the source record: a foreign entry stands in its way.
    refused: bool,
}

struct Running {
    lineage: Lineage,
    content: usize,
    generation: Option<u64>,
    begin: (Option<u64>, u64, Option<u64>),
    splitter: Splitter,
    expected: (Option<Guard>, bool),
    confirmed: Position,
    last_id: StreamId,
}

fn splitter(source: &Source, content: usize, offset: u64, framing: Framing) -> Splitter {
    let inside = offset > 0 && source.contents[content][offset as usize - 1] != b'\n';
    Splitter::new(framing, offset, inside).with_max_line(6)
}

impl Reader {
    fn resume(&mut self, redis: &mut Redis, state: &mut Lineage, source: &Source, framing: Framing) {
        let last_id = redis.last_id;
        let first = redis.guard.map(|guard| StreamId { ms: guard.generation, seq: guard.first });
        let told = redis.entries.iter().find(|e| Some(e.id) == first);
        let first_is_ours = told
            .map(|e| Field::from_name(e.field).is_some())
            .filter(|_| !self.refused)
            .or(self.refused.then_some(false));
        self.refused = false;
        let plan = View { redis: redis.lineage(), local: state.clone(), last_id, first_is_ours }.plan();
        for generation in &plan.restore {
            let before = plan.lineage.before(generation.generation).map_or(0, |g| g.generation);
            redis.next.insert(before, generation.clone());
        }
        let lineage = plan.lineage;
        let at = |position: Position| {
            let generation = lineage.get(position.generation).unwrap();
            (generation.ino as usize, position.offset, generation.root)
        };
        let (content, offset, generation, begin) = match plan.resume {
            Resume::Fresh => (0, 0, None, (None, 0, None)),
            Resume::At(position) => {
                let (content, offset, _) = at(position);
                (content, offset, Some(position.generation), (None, 0, None))
            }
            Resume::Renumber(position) => {
                let (content, offset, root) = at(position);
                (content, offset, None, (Some(root), offset, Some(offset)))
            }
        };
        *state = lineage.clone();
        self.running = Some(Running {
            confirmed: lineage.confirmed.unwrap_or(Position { generation: 0, offset: 0 }),
            splitter: splitter(source, content, offset, framing),
            expected: (redis.guard, redis.exists),
            content,
            generation,
            begin,
            lineage,
            last_id,
        });
    }

    /// One step: a batch, or the next content. `lost`: the batch lands and its reply does not come.
    fn step(
        &mut self,
        redis: &mut Redis,
        state: &mut Lineage,
        source: &Source,
        framing: Framing,
        clock: u64,
        random: &mut Random,
    ) {
        let Some(mut run) = self.running.take() else { return self.resume(redis, state, source, framing) };
        let named = run.generation.is_none_or(|number| redis.lineage().get(number).is_some());
        if !named || run.expected != (redis.guard, redis.exists) {
            return; // Changed: look again. An idle reader looks, too.
        }
        let bytes = &source.contents[run.content];
        let finished = run.content + 1 < source.contents.len();
        if run.generation.is_none() {
            if run.splitter.offset() as usize == bytes.len() && !finished {
                self.running = Some(run);
                return;
            }
            let number = run.lineage.next_number(clock, run.last_id);
            let (root, start, previous_end) = run.begin;
            let head = &bytes[..bytes.len().min(4)];
            let generation = Generation {
                generation: number,
                root: root.unwrap_or(number),
                start,
                previous_end,
                previous_guard: None,
                path: String::new(),
                dev: 0,
                ino: run.content as u64,
                head_len: head.len() as u64,
                head_hash: hash(head),
            };
            if !redis.lineage().same_generations(&run.lineage) || !state.missing_in(&run.lineage).is_empty() {
                return; // Another reader was faster, or Redis lost the record: look again.
            }
            let before = run.lineage.last().map_or(0, |g| g.generation);
            redis.next.insert(before, generation.clone());
            run.lineage.insert(generation);
            run.generation = Some(number);
            run.confirmed = Position { generation: number, offset: start };
            if random.chance(10) {
                return; // Killed before the state file was written.
            }
            *state = run.lineage.clone();
        }
        let generation = run.generation.unwrap();
        let mut batch = Vec::new();
        let behind = if finished || random.chance(20) { Behind::End } else { Behind::NoneYet };
        let count = 1 + random.below(4);
        while (batch.len() as u64) < count {
            let from = run.splitter.offset() as usize;
            let Some(piece) = run.splitter.next(&bytes[from..], behind) else { break };
            let id = StreamId { ms: generation, seq: piece.span.end };
            batch.push(Entry { id, field: piece.field.name(), payload: piece.payload.to_vec() });
        }
        let offset = run.splitter.offset();
        if batch.is_empty() {
            if finished && offset as usize == bytes.len() {
                run.next_content(source, offset, framing);
            }
            self.running = Some(run);
            return;
        }
        let end = Position { generation, offset };
        let first = batch.first().map_or(offset, |entry| entry.id.seq);
        let guard = Guard::new(generation, first, offset, &bytes[..offset as usize]);
        let landed = batch.into_iter().map(|entry| redis.add(entry)).fold(true, |all, fits| all & fits);
        redis.guard = Some(guard);
        redis.confirmed = Some(run.confirmed);
        if random.chance(10) {
            return; // The reply was lost: look again.
        }
        if !landed {
            self.refused = true;
            return;
        }
        run.confirmed = end;
        run.last_id = end.id();
        run.expected = (Some(guard), true);
        self.running = Some(run);
    }
}

impl Running {
    fn next_content(&mut self, source: &Source, offset: u64, framing: Framing) {
        let next = self.content + 1;
        let known: Vec<&Generation> = self.lineage.iter().filter(|g| g.ino as usize == next).collect();
        let present = self.generation.unwrap().max(self.last_id.ms);
        let carried = carried_by(known.iter().map(|g| g.generation), present);
        let root = known.first().map(|g| g.root);
        let start = carried.and_then(|n| self.lineage.get(n)).map_or(0, |g| g.start);
        self.begin = (root, start, Some(offset));
        self.generation = carried;
        self.content = next;
        self.splitter = splitter(source, next, start, framing);
        if let Some(generation) = carried {
            self.confirmed = Position { generation, offset: start };
        }
    }
}

/// A writer's files; behind the durable lengths a power loss may do anything.
#[derive(Default)]
struct Disk {
    output: Vec<u8>,
    journal: Vec<u8>,
    durable: (usize, usize),
}

impl Disk {
    fn power_loss(&mut self, random: &mut Random) {
        for (bytes, durable) in [(&mut self.output, self.durable.0), (&mut self.journal, self.durable.1)] {
            let unsure = bytes.len() - durable;
            let keep = durable + random.below(unsure as u64 + 1) as usize;
            match random.below(3) {
                0 => bytes.truncate(keep),
                1 => bytes[keep..].fill(0),
                _ => bytes[keep..].iter_mut().for_each(|b| *b = random.below(256) as u8),
            }
        }
    }
}

fn owner() -> Owner {
    let identity = Identity::new("line_stream", "writers", &[delivery::partition::Partition::WHOLE]);
    Owner { id: 1, name: b"output.txt".to_vec(), identity }
}

/// A writer that runs.
struct Writer {
    held: BTreeMap<u64, RangeSet>,
    records: u64,
    durable: u64,
    /// Own pending entries are read behind this, until there are none; then new ones.
    pending: Option<StreamId>,
}

impl Writer {
    fn start(disk: &mut Disk) -> Self {
        let parsed = match Parsed::read(&disk.journal).unwrap() {
            Some(parsed) => parsed,
            None => {
                disk.journal = Header::encode(disk.output.len() as u64, &owner());
                Parsed::read(&disk.journal).unwrap().unwrap()
            }
        };
        let output = &disk.output;
        let hash_of = |span: std::ops::Range<u64>| {
            Ok::<_, Infallible>(output.get(span.start as usize..span.end as usize).map(hash))
        };
        let recovered = parsed.recover(output.len() as u64, hash_of).unwrap().unwrap();
        assert!(recovered.lost.is_empty(), "nothing durable is ever missing");
        let held = journal::ranges(&recovered.records);
        disk.output.truncate(recovered.cut.start as usize);
        disk.journal.truncate(Header::len(&owner()) + recovered.records.len() * RECORD_LEN);
        disk.durable = (disk.output.len(), disk.journal.len());
        let durable = disk.output.len() as u64;
        Self { held, records: recovered.records.len() as u64, durable, pending: Some(StreamId::ZERO) }
    }

    /// One batch. False: killed on the way.
    fn step(&mut self, redis: &mut Redis, disk: &mut Disk, random: &mut Random) -> bool {
        if self.pending.is_none() && redis.group.is_none() {
            self.pending = Some(StreamId::ZERO); // NOGROUP: created again at 0.
        }
        let entries = redis.read(self.pending, 1 + random.below(5) as usize);
        match (&mut self.pending, entries.last()) {
            (Some(after), Some(last)) => *after = last.id,
            (Some(_), None) => self.pending = None,
            _ => {}
        }
        let lineage = redis.lineage();
        let offset = disk.output.len() as u64;
        for entry in &entries {
            let Some(generation) = lineage.get(entry.id.ms) else { continue };
            let Some(piece) = Piece::new(entry.field, &entry.payload, entry.id.seq) else { continue };
            let held = self.held.entry(generation.root).or_default();
            let missing: Vec<_> = held.missing(piece.span.clone()).collect();
            for span in missing {
                let mut data = Vec::new();
                piece.append_from(span.start, &mut data);
                data.truncate((span.end - span.start) as usize);
                let record = Record {
                    file: generation.root,
                    span: span.clone(),
                    offset: disk.output.len() as u64,
                    durable: self.durable,
                    data_hash: hash(&data),
                    lines: 1,
                };
                disk.output.extend_from_slice(&data);
                if random.chance(2) {
                    return false;
                }
                disk.journal.extend_from_slice(&record.encode(self.records));
                self.records += 1;
                held.insert(span);
            }
        }
        if random.chance(3) {
            return false;
        }
        disk.durable = (disk.output.len(), disk.journal.len());
        self.durable = offset.max(disk.output.len() as u64);
        if random.chance(3) {
            return false;
        }
        for entry in &entries {
            redis.pending.remove(&entry.id);
        }
        true
    }
}

fn grow(source: &mut Source, random: &mut Random) {
    let content = source.contents.last_mut().unwrap();
    for _ in 0..random.below(30) {
        content.push(if random.chance(25) { b'\n' } else { b'a' + random.below(26) as u8 });
    }
}

fn run(seed: u64) {
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let framing = if random.chance(50) { Framing::Line } else { Framing::Chunk };
    let mut source = Source { contents: vec![Vec::new()] };
    let mut redis = Redis::default();
    let mut past = vec![redis.clone()];
    let mut readers = [Reader::default(), Reader::default()];
    let mut state = Lineage::default();
    let mut disk = Disk::default();
    let mut writer = None;
    let mut clock = 1000;
    let steps = 20 + random.below(120);
    let two = random.chance(30);
    // A foreign entry took an ID in a generation of ours, which only a clock that stands behind allows: order is not promised then.
    let mut foreign = BTreeSet::new();
    let collided = |foreign: &BTreeSet<u64>, disk: &Disk, state: &Lineage| {
        let written = Parsed::read(&disk.journal).ok().flatten().map(|p| p.records).unwrap_or_default();
        state.iter().any(|g| foreign.contains(&g.generation)) || written.iter().any(|r| foreign.contains(&r.file))
    };
    for step in 0.. {
        let faults = step < steps;
        clock = (clock + random.below(5)).saturating_sub(random.below(3));
        let reader = usize::from(two && random.chance(50));
        if faults {
            match random.below(100) {
                0..=14 => grow(&mut source, &mut random),
                15..=17 if source.contents.len() < 4 && source.contents.last().is_some_and(|c| !c.is_empty()) => {
                    source.contents.push(Vec::new());
                }
                18..=20 => readers[reader].running = None,
                21..=23 => writer = None,
                24..=25 => {
                    writer = None;
                    disk.power_loss(&mut random);
                }
                // Redis loses its tail or everything; readers and writers reconnect, or (FLUSHALL) do not notice.
                26..=28 => {
                    let back = random.below(past.len() as u64) as usize;
                    redis = past.get(back).cloned().unwrap_or_default();
                    past.truncate(back + 1);
                    readers.iter_mut().for_each(|r| r.running = None);
                    writer = None;
                }
                29 => {
                    redis = Redis::default();
                    past.clear();
                }
                30..=31 => {
                    let ms = clock.max(redis.last_id.ms);
                    let seq = if ms == redis.last_id.ms { redis.last_id.seq + 1 } else { 0 };
                    foreign.insert(ms);
                    redis.add(Entry { id: StreamId { ms, seq }, field: b"foreign", payload: b"x".to_vec() });
                }
                // A foreign entry with an ID of ours that is trimmed before a killed reader saw it cannot be noticed.
                32..=35 if !collided(&foreign, &disk, &state) => redis.trim(),
                _ => {}
            }
        }
        readers[reader].step(&mut redis, &mut state, &source, framing, clock, &mut random);
        if random.chance(50) || !faults {
            let running = writer.get_or_insert_with(|| Writer::start(&mut disk));
            if !running.step(&mut redis, &mut disk, &mut random) {
                writer = None;
            }
        }
        past.push(redis.clone());
        if past.len() > 12 {
            past.remove(0);
        }
        let expected: usize = source.contents.iter().map(Vec::len).sum();
        if !faults && (disk.output.len() == expected && writer.is_some() || step > steps + 2000) {
            break;
        }
    }
    let expected = source.contents.concat();
    let output = if collided(&foreign, &disk, &state) { merged(&disk) } else { disk.output };
    assert!(
        output == expected,
        "seed {seed}: the output is {:?}, the input {:?}",
        String::from_utf8_lossy(&output),
        String::from_utf8_lossy(&expected)
    );
}

/// The output in source order.
fn merged(disk: &Disk) -> Vec<u8> {
    let mut records = Parsed::read(&disk.journal).unwrap().unwrap().records;
    records.sort_by_key(|r| (r.file, r.span.start));
    records.iter().flat_map(|r| &disk.output[r.offset as usize..r.output_end() as usize]).copied().collect()
}

#[test]
fn whatever_happens_the_output_is_the_input() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    if let Some(seed) = number("SEED") {
        return run(seed);
    }
    let seeds = number("SEEDS").unwrap_or(5_000);
    (0..seeds).for_each(run);
}
