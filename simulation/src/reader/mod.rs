//! A simulated reader: performs the steps of [`delivery::producer`]. It can be killed between any
//! two.

mod directory;
pub mod many;

use crate::administrators::Keys;
use crate::filesystem::ContentId;
use crate::redis::{AddId, Bytes, Command, Entry, Lost, Name, Origin, Refusal, Reply, Script, Session, bytes};
use crate::truth::Fate;
use crate::world::World;
use delivery::entry::{AFTER, Field, Piece};
use delivery::files;
use delivery::line_reader::ReadOptions;
use delivery::manifest::{GUARD_FIELD, Generation, Manifest};
use delivery::partition::Partition;
use delivery::producer::resume::{Observed, StreamState};
use delivery::producer::{
    self, BatchSize, Change, Changed, Expected, Fields, Limits, Notice, Options, Outcome, Producer, Step, StepError,
    Stored, Wait,
};
use delivery::split::Framing;
pub use directory::DISTINCT;
pub use directory::State;
use directory::{Noted, SimulatedDirectory};
use resp::StreamId;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

/// The configuration of the readers of a seed.
#[derive(Debug, Clone)]
pub struct Configuration {
    /// How lines are framed into entries.
    pub framing: Framing,
    /// The longest line that is sent as one entry.
    pub max_line: usize,
    /// The number of entries above which a reader waits; 0: no limit.
    pub max_backlog: u64,
    /// The partitions.
    pub partitions: Vec<Partition>,
    /// The key of the registry of contents, if there are several partitions.
    pub base: Option<Name>,
}

/// A reader, running or not.
#[derive(Debug)]
pub struct Reader {
    configuration: Configuration,
    nth: usize,
    /// The state files, one per partition. All readers share them.
    states: Vec<State>,
    partitions: Vec<PartitionWriter>,
    noted: Rc<RefCell<Noted>>,
    /// The lengths up to which the truth knows that this process has observed each content.
    seen: BTreeMap<ContentId, u64>,
    closed: u64,
    /// The contents that the partitions have observed.
    exchanged: producer::ObservedContents,
    /// Why it stopped with an error.
    pub refused: Option<String>,
    starts_at: u64,
    began_at: u64,
}

/// The state of one partition.
#[derive(Debug)]
struct PartitionWriter {
    name: String,
    keys: Keys,
    registry: Option<Registry>,
    producer: Producer<SimulatedDirectory>,
    session: Option<Session>,
    noted: Rc<RefCell<Noted>>,
    dies: Rc<Cell<bool>>,
    /// The reply to the comparison of the batch in flight.
    answers: Option<(Option<Bytes>, bool, bool)>,
    /// The number of its entries, and its end.
    queued: (usize, Vec<Origin>),
    /// The latest batch, if it is sent as a script.
    script: Option<Script>,
    /// Whether scripts may be used on this connection.
    may_script: bool,
    /// The outcome of the batch that was sent, until the reply is received.
    executed: Option<Executed>,
    sleeps_until: u64,
}

/// The registry of contents of a source with several partitions, as a process knows it.
#[derive(Debug, Clone)]
struct Registry {
    /// The key of the record that all partitions share.
    key: Name,
    contents: Rc<RefCell<Manifest>>,
}

impl Registry {
    /// Adds the contents that a partition knows, in case Redis lost them.
    fn learn(&self, manifest: &Manifest) {
        let mut contents = self.contents.borrow_mut();
        for generation in manifest.iter().filter(|known| known.generation == known.file_id) {
            if contents.get(generation.file_id).is_none() {
                contents.insert(shared(generation));
            }
        }
    }
}

/// The part of a content that all partitions share.
fn shared(generation: &Generation) -> Generation {
    Generation { previous_end: None, previous_guard: None, resumes: None, ..generation.clone() }
}

/// An entry to queue.
struct Queued {
    id: StreamId,
    field: Field,
    payload: Vec<u8>,
    after: Option<u64>,
    no_create: bool,
}

/// A batch whose execution was requested.
#[derive(Debug)]
enum Executed {
    /// The reply to `EXEC`, and the number of entries.
    Transaction(Reply, usize),
    /// The reply to the script.
    Script(Reply),
}

/// Why a step ended early.
enum Ended {
    /// The connection is lost.
    Lost,
    /// The state machine returned an error.
    StepError(StepError),
}

impl From<Lost> for Ended {
    fn from(_: Lost) -> Self {
        Self::Lost
    }
}

impl From<StepError> for Ended {
    fn from(trouble: StepError) -> Self {
        Self::StepError(trouble)
    }
}

impl Reader {
    /// A reader that has not started.
    #[must_use]
    pub fn new(nth: usize, configuration: Configuration, states: Vec<State>) -> Self {
        Self {
            configuration,
            nth,
            states,
            partitions: Vec::new(),
            noted: Rc::default(),
            seen: BTreeMap::new(),
            closed: 0,
            exchanged: producer::ObservedContents::default(),
            refused: None,
            starts_at: 0,
            began_at: 0,
        }
    }

    /// A state file that was never written.
    #[must_use]
    pub fn no_state() -> State {
        Rc::new(RefCell::new(Stored::Missing))
    }

    /// Kills the process.
    pub fn kill(&mut self, world: &mut World) {
        if !self.partitions.is_empty() {
            world.story.tell(|| format!("reader {} is killed", self.nth));
            self.end(world);
        }
        self.starts_at = world.elapsed + world.random.below(300);
    }

    fn end(&mut self, world: &mut World) {
        self.partitions.clear();
        self.noted = Rc::default();
        self.seen.clear();
        self.exchanged = producer::ObservedContents::default();
        // Bytes that only this process knew need not be reported any more, and files that only it
        // held open are gone.
        world.truth.forget_seen();
        let files = world.input.borrow();
        world.truth.observe(&files, true);
    }

    fn start(&mut self, world: &mut World) {
        world.story.tell(|| format!("reader {} starts", self.nth));
        self.began_at = world.elapsed;
        let configuration = self.configuration.clone();
        let registry = configuration.base.clone().map(|key| Registry { key, contents: Rc::default() });
        for (registry, state) in self.states.iter().filter_map(|state| Some((registry.as_ref()?, state))) {
            if let Stored::Manifest(known) = &*state.borrow() {
                registry.learn(known);
                self.exchanged.learn(known);
            }
        }
        for (nth, partition) in configuration.partitions.iter().enumerate() {
            let keys = world.keys[nth].clone();
            let directory = SimulatedDirectory::new(world.input.clone(), self.noted.clone(), self.states[nth].clone());
            let dies = directory.dies_storing.clone();
            let options = options(crate::programs::INPUT, &keys.stream, *partition, &configuration);
            let several = configuration.partitions.len() > 1;
            let name = if several { format!("reader {}/{nth}", self.nth) } else { format!("reader {}", self.nth) };
            let mut producer = Producer::new(options, directory);
            if let Some(registry) = &registry {
                producer.learn(&registry.contents.borrow());
            }
            self.exchanged.expect(*partition);
            let partition = PartitionWriter::new(name, keys, producer, self.noted.clone(), dies);
            self.partitions.push(PartitionWriter { registry: registry.clone(), ..partition });
        }
    }

    /// Performs one effect.
    pub fn step(&mut self, world: &mut World) {
        if self.partitions.is_empty() {
            if world.elapsed >= self.starts_at && self.refused.is_none() {
                self.start(world);
            }
            return;
        }
        let nth = world.random.index(self.partitions.len());
        let now = Duration::from_millis(world.elapsed - self.began_at);
        let partition = &mut self.partitions[nth];
        partition.dies.set(world.faulty && world.random.one_in(40));
        partition.producer.exchange(&mut self.exchanged);
        let refused = partition.step(world, now);
        partition.producer.exchange(&mut self.exchanged);
        for notice in partition.producer.take_notices() {
            partition.notice(world, &notice);
        }
        for (content, len) in std::mem::take(&mut self.noted.borrow_mut().seen) {
            let before = self.seen.insert(content, len).unwrap_or(0);
            if before < len {
                world.story.tell(|| format!("reader {} sees {len} bytes of content {content}", self.nth));
            }
            world.truth.note(content, before..len, Fate::SEEN);
        }
        {
            // Files that only this process held open may be gone.
            let files = world.input.borrow();
            if files.closed != self.closed {
                self.closed = files.closed;
                world.truth.observe(&files, false);
            }
        }
        match refused {
            Some(None) => {
                world.story.tell(|| format!("reader {} is killed before it writes its state file", self.nth));
                self.end(world);
            }
            Some(Some(why)) => {
                world.story.tell(|| format!("reader {} refuses: {why}", self.nth));
                self.refused = Some(why);
                self.end(world);
            }
            None => {}
        }
    }
}

fn options(input: &str, stream: &str, partition: Partition, configuration: &Configuration) -> Options {
    Options {
        input: input.to_owned(),
        state: "state".to_owned(),
        stream: stream.to_owned(),
        read: ReadOptions { framing: configuration.framing, partition, max_line: configuration.max_line, block: 64 },
        from_end: false,
        once: false,
        max_backlog: configuration.max_backlog,
        limits: Limits {
            batch: BatchSize { entries: 4, bytes: 200 },
            generations: 12,
            most_generations: 40,
            open_files: 3,
        },
    }
}

impl PartitionWriter {
    fn new(
        name: String,
        keys: Keys,
        producer: Producer<SimulatedDirectory>,
        noted: Rc<RefCell<Noted>>,
        dies: Rc<Cell<bool>>,
    ) -> Self {
        Self {
            name,
            keys,
            registry: None,
            producer,
            session: None,
            noted,
            dies,
            answers: None,
            queued: (0, Vec::new()),
            script: None,
            may_script: true,
            executed: None,
            sleeps_until: 0,
        }
    }

    /// Performs one step of a state machine. `Some`: the process ends, killed or with an error.
    fn step(&mut self, world: &mut World, now: Duration) -> Option<Option<String>> {
        if world.elapsed < self.sleeps_until {
            return None;
        }
        self.producer.look(now);
        let Some(mut session) = self.session.take() else {
            match world.connect() {
                Ok(session) => {
                    self.session = Some(session);
                    (self.answers, self.script, self.executed) = (None, None, None);
                    self.may_script = world.random.chance(70);
                    self.producer.restart();
                }
                Err(Lost) => self.sleeps_until = world.elapsed + 100,
            }
            return None;
        };
        let ended = match self.producer.step(now) {
            Ok(step) => self.perform(world, &mut session, step, now),
            Err(trouble) => Err(trouble.into()),
        };
        let trouble = match ended {
            Ok(()) => {
                self.session = Some(session);
                return None;
            }
            Err(Ended::Lost) => {
                world.story.tell(|| format!("{} loses its connection", self.name));
                self.sleeps_until = world.elapsed + 20;
                return None;
            }
            Err(Ended::StepError(trouble)) => trouble,
        };
        world.story.tell(|| format!("{}: {trouble:?}", self.name));
        match trouble {
            StepError::File { .. } if self.dies.get() => return Some(None),
            StepError::Refused(why) => return Some(Some(why)),
            StepError::File { .. } | StepError::Blocked(_) => self.sleeps_until = world.elapsed + 200,
            StepError::Changed(_) => {}
        }
        None
    }

    fn ask(&self, world: &mut World, session: &mut Session, command: Command) -> Result<Reply, Lost> {
        match world.call(session, command)? {
            Reply::Refused(refusal) => {
                world.story.tell(|| format!("{}: Redis refuses: {refusal:?}", self.name));
                Err(Lost)
            }
            reply => Ok(reply),
        }
    }

    fn perform(&mut self, world: &mut World, session: &mut Session, step: Step, now: Duration) -> Result<(), Ended> {
        match step {
            Step::Observe { below } => {
                let (observed, up_to) = self.observe(world, session, below)?;
                self.producer.observed(observed, up_to)?;
                if let Some(registry) = &self.registry {
                    registry.learn(self.producer.manifest());
                }
            }
            Step::Agree => {
                let contents = self.refresh(world, session)?;
                self.producer.agreed(contents);
            }
            Step::Name { named, after } => {
                let done = self.append(world, session, &named, after)?;
                self.producer.named(done);
            }
            Step::Clock => {
                let Reply::Time(now) = self.ask(world, session, Command::Time)? else { return Err(Ended::Lost) };
                self.producer.clock(now)?;
            }
            Step::Record(change) => {
                let done = self.record(world, session, &self.keys.record, &change)?;
                self.producer.recorded(*change, done)?;
            }
            Step::Fill => self.fill(world, session)?,
            Step::Execute => {
                let script = self.script.take();
                if script.is_some() {
                    self.producer.executes_if_expected();
                } else {
                    let (guard, link, stream) = self.answers.take().ok_or(Ended::Lost)?;
                    self.producer.may_execute(guard.as_deref(), link, stream)?;
                }
                for origin in &self.queued.1 {
                    world.truth.sent(origin.content, origin.span.end);
                }
                self.executed = Some(match script {
                    Some(script) => Executed::Script(world.script(session, &script)?),
                    None => Executed::Transaction(world.exec(session)?, self.queued.0),
                });
                world.progress += 1;
            }
            Step::Confirm => {
                let outcome = self.outcome(world)?;
                let batch = self.producer.confirmed(outcome)?;
                world.story.tell(|| {
                    let end = batch.map(|batch| (batch.entries, batch.end.generation, batch.end.offset));
                    format!("{} has added (entries, generation, end) {end:?}", self.name)
                });
            }
            Step::Check { stream } => {
                let expected = self.producer.expected_at_check();
                let expected = self.questions(world, session, &expected)?;
                let info = match world.call(session, Command::XInfoStream { key: self.keys.stream.clone() })? {
                    Reply::Stream(info) => Some(info),
                    Reply::Refused(Refusal::NoSuchKey) => None,
                    _ => return Err(Ended::Lost),
                };
                let state = info.map(state_of).filter(|_| stream);
                if self.registry.is_some() {
                    let contents = self.refresh(world, session)?;
                    self.producer.agreed(contents);
                }
                self.producer.checked(expected.0.as_deref(), expected.1, info.map(|info| info.length), state, now)?;
            }
            Step::Wait(wait) => {
                let millis = match wait {
                    Wait::Input => world.random.between(5, 300),
                    Wait::Room => 100,
                    Wait::Pause(pause) => u64::try_from(pause.as_millis()).unwrap_or(u64::MAX),
                };
                self.sleeps_until = world.elapsed + millis;
            }
            Step::Done | Step::Stopped => self.sleeps_until = world.elapsed + 100,
        }
        Ok(())
    }

    fn observe(
        &self,
        world: &mut World,
        session: &mut Session,
        below: Option<StreamId>,
    ) -> Result<(Observed, Option<StreamId>), Ended> {
        let key = self.keys.stream.clone();
        let stream = match world.call(session, Command::XInfoStream { key: key.clone() })? {
            Reply::Stream(info) => Some(state_of(info)),
            Reply::Refused(Refusal::NoSuchKey) => None,
            _ => return Err(Ended::Lost),
        };
        let record = self.manifest(world, session, self.keys.record.clone())?;
        let guard_field = world.redis.field(&self.keys.record, GUARD_FIELD.as_bytes()).map(|guard| guard.to_vec());
        let at = |id: StreamId| world.redis.stream_at(&key).and_then(|stream| stream.entries().get(&id)).cloned();
        let first = record.guard.as_ref().map(|guard| StreamId::new(guard.generation, guard.first));
        let is_ours = |entry: &Rc<Entry>| {
            entry.fields.iter().all(|(name, _)| **name == *AFTER || Field::from_name(name).is_some())
        };
        let behind = |first: StreamId| world.redis.stream_at(&key)?.entries().range(first..).next();
        let first_is_ours = first.and_then(behind).map(|(_, entry)| is_ours(entry));
        let last = stream.map(|stream| stream.last_id).and_then(at).filter(is_ours);
        let last_entry = last.and_then(|entry| {
            let (name, value) = entry.fields.first()?;
            Some((Field::from_name(name)?, value.to_vec()))
        });
        let up_to = below.and_then(|below| {
            let stream = world.redis.stream_at(&key)?;
            stream.entries().range(..=below).rev().find(|(_, entry)| is_ours(entry)).map(|(id, _)| *id)
        });
        Ok((Observed { record, guard_field, stream, first_is_ours, last_entry }, up_to))
    }

    fn manifest(&self, world: &mut World, session: &mut Session, key: Name) -> Result<Manifest, Ended> {
        let Reply::Pairs(pairs) = self.ask(world, session, Command::HGetAll { key })? else { return Err(Ended::Lost) };
        Manifest::from_fields(pairs.iter().map(|(name, value)| (&name[..], &value[..]))).map_err(|_| Ended::Lost)
    }

    /// Loads the registry, and adds missing contents.
    fn refresh(&self, world: &mut World, session: &mut Session) -> Result<Manifest, Ended> {
        let Some(Registry { key, contents }) = &self.registry else { return Ok(Manifest::default()) };
        let before = self.manifest(world, session, key.clone())?;
        before.iter().for_each(|content| contents.borrow_mut().insert(content.clone()));
        let after = contents.borrow().clone();
        let guard = world.redis.field(key, GUARD_FIELD.as_bytes()).map(|guard| guard.to_vec());
        let is_complete = before.same_generations(&after);
        let change = Change { before, guard, after: after.clone() };
        if !is_complete && !self.record(world, session, key, &change)? {
            return Err(StepError::Changed(Changed::OtherReader).into());
        }
        Ok(after)
    }

    /// Assigns the next file ID to a content. Returns false if another reader was faster.
    fn append(&self, world: &mut World, session: &mut Session, named: &Generation, last: u64) -> Result<bool, Ended> {
        let Some(Registry { key, contents }) = &self.registry else { return Ok(false) };
        // Another partition of this process may have assigned it meanwhile.
        let before = contents.borrow().clone();
        if before.last().map_or(0, |known| known.generation) != last {
            return Ok(false);
        }
        let guard = world.redis.field(key, GUARD_FIELD.as_bytes()).map(|guard| guard.to_vec());
        let mut after = before.clone();
        after.insert(shared(named));
        let done = self.record(world, session, key, &Change { before, guard, after: after.clone() })?;
        if done {
            *contents.borrow_mut() = after;
        }
        Ok(done)
    }

    fn record(&self, world: &mut World, session: &mut Session, key: &Name, change: &Change) -> Result<bool, Ended> {
        let key = key.clone();
        world.redis.watch(session, &key)?;
        let present = self.manifest(world, session, key.clone())?;
        let guard = world.redis.field(&key, GUARD_FIELD.as_bytes()).map(|guard| guard.to_vec());
        if !present.same_generations(&change.before) || guard != change.guard {
            world.redis.unwatch(session)?;
            return Ok(false);
        }
        let Ok(Fields { gone, set }) = change.fields() else { return Err(Ended::Lost) };
        if gone.is_empty() && set.is_empty() {
            world.redis.unwatch(session)?;
            return Ok(true);
        }
        world.redis.multi(session)?;
        if !gone.is_empty() {
            self.ask(world, session, Command::HDel { key: key.clone(), fields: gone.iter().map(bytes).collect() })?;
        }
        if !set.is_empty() {
            let pairs = set.iter().map(|(field, value)| (bytes(field), bytes(value))).collect();
            self.ask(world, session, Command::HSet { key, pairs })?;
        }
        match world.exec(session)? {
            Reply::Several(replies) if !replies.iter().any(|reply| matches!(reply, Reply::Refused(_))) => {
                world.progress += 1;
                Ok(true)
            }
            Reply::Nil => Ok(false),
            _ => Err(Ended::Lost),
        }
    }

    /// The record's guard, whether it names the newest generation, and whether there is a stream.
    fn questions(
        &self,
        world: &mut World,
        session: &mut Session,
        expected: &Expected,
    ) -> Result<(Option<Bytes>, bool, bool), Ended> {
        let fields = vec![bytes(GUARD_FIELD), bytes(expected.link.as_deref().unwrap_or_default())];
        let reply = self.ask(world, session, Command::HMGet { key: self.keys.record.clone(), fields })?;
        let Reply::Values(values) = reply else { return Err(Ended::Lost) };
        let exists = self.ask(world, session, Command::Exists { key: self.keys.stream.clone() })?;
        let guard = values.first().cloned().flatten();
        let link = values.get(1).is_some_and(Option::is_some);
        Ok((guard, link, matches!(exists, Reply::Number(1))))
    }

    fn fill(&mut self, world: &mut World, session: &mut Session) -> Result<(), Ended> {
        let mut entries: Vec<Queued> = Vec::new();
        let expected = self.producer.next_expected();
        let batch = self.producer.fill(|entry| {
            let (id, field, after, no_create) = (entry.id, entry.field, entry.after, entry.no_create);
            entries.push(Queued { id, field, payload: entry.payload.to_vec(), after, no_create });
        })?;
        let Some(batch) = batch else { return Ok(()) };
        let fields = batch.fields.clone();
        // Only small batches are sent as a script.
        let is_script = self.may_script && entries.len() < 4;
        let mut answers = None;
        if !is_script {
            world.redis.watch(session, &self.keys.record)?;
            answers = Some(self.questions(world, session, &expected)?);
            world.redis.multi(session)?;
        }
        let (mut origins, mut adds) = (Vec::new(), Vec::new());
        let count = entries.len();
        for Queued { id, field, payload, after, no_create } in entries {
            let origin = self.origin(world, id, field, &payload);
            let mut pairs = vec![(bytes(field.name()), bytes(&payload))];
            pairs.extend(after.map(|after| (bytes(AFTER), bytes(after.to_string()))));
            let entry = Rc::new(Entry { fields: pairs, origin: origin.clone() });
            origins.extend(origin);
            let key = self.keys.stream.clone();
            adds.push(Command::XAdd { key, id: AddId::Exact(id), entry, no_create });
        }
        let pairs = fields.iter().map(|(field, value)| (bytes(field), bytes(value))).collect();
        if is_script {
            self.script = Some(Script {
                stream: self.keys.stream.clone(),
                record: self.keys.record.clone(),
                guard: (bytes(GUARD_FIELD), expected.guard.as_deref().map(bytes)),
                link: bytes(expected.link.as_deref().unwrap_or_default()),
                entries: adds,
                pairs,
            });
        } else {
            for add in adds {
                self.ask(world, session, add)?;
            }
            self.ask(world, session, Command::HSet { key: self.keys.record.clone(), pairs })?;
            self.ask(world, session, Command::XLen { key: self.keys.stream.clone() })?;
        }
        world.story.tell(|| {
            let spans: Vec<_> = origins.iter().map(|origin| (origin.content, origin.span.clone())).collect();
            let how = if is_script { " for a script" } else { "" };
            format!("{} queues {count} entries{how} (content, bytes): {spans:?}", self.name)
        });
        self.answers = answers;
        self.queued = (count, origins);
        Ok(())
    }

    /// The origin of an entry's bytes: the content that is being read, if it has them.
    fn origin(&self, world: &mut World, id: StreamId, field: Field, payload: &[u8]) -> Option<Origin> {
        let piece = Piece::new(field.name(), payload, id.seq)?;
        let mut source = Vec::new();
        piece.append_from(piece.span.start, &mut source);
        let range = usize::try_from(piece.span.start).ok()?..usize::try_from(piece.span.end).ok()?;
        let has =
            |content: &usize| world.truth.get(*content).and_then(|c| c.bytes.get(range.clone())) == Some(&source[..]);
        let read = self.noted.borrow().read.filter(has);
        let known = world.ledger.content(id.ms).filter(has);
        let any = || (0..world.truth.contents().len()).rev().find(has);
        let content = known.or(read).or_else(any)?;
        world.ledger.sent(id.ms, content);
        world.truth.source_begins(content);
        Some(Origin { content, span: piece.span })
    }

    fn outcome(&mut self, world: &World) -> Result<Outcome, Ended> {
        let (reply, entries) = match self.executed.take().ok_or(Ended::Lost)? {
            Executed::Script(reply) => return self.script_outcome(world, &reply),
            Executed::Transaction(reply, entries) => (reply, entries),
        };
        let replies = match reply {
            Reply::Nil => return Ok(Outcome::Aborted),
            Reply::Several(replies) => replies,
            other => {
                world.story.tell(|| format!("{}: EXEC: {other:?}", self.name));
                return Err(Ended::Lost);
            }
        };
        for reply in &replies {
            if let Reply::Refused(refusal) = reply {
                world.story.tell(|| format!("{}: in EXEC: {refusal:?}", self.name));
                return if *refusal == Refusal::IdTooSmall { Ok(Outcome::Refused) } else { Err(Ended::Lost) };
            }
        }
        if replies.iter().take(entries).any(|reply| matches!(reply, Reply::Nil)) {
            return Ok(Outcome::NoStream);
        }
        match replies.last() {
            Some(Reply::Number(len)) => Ok(Outcome::Added { len: Some(*len) }),
            _ => Err(Ended::Lost),
        }
    }

    fn script_outcome(&self, world: &World, reply: &Reply) -> Result<Outcome, Ended> {
        match reply {
            // It need not be asked for.
            Reply::Number(len) => Ok(Outcome::Added { len: (len % 2 == 0).then_some(*len) }),
            Reply::Refused(Refusal::IdTooSmall) => Ok(Outcome::Refused),
            Reply::Several(held) => {
                let [Reply::Values(values), Reply::Number(stream)] = &held[..] else { return Err(Ended::Lost) };
                let guard = values.first().cloned().flatten().map(|guard| guard.to_vec());
                let link = values.get(1).is_some_and(Option::is_some);
                Ok(Outcome::Differs { guard, link, stream: *stream == 1 })
            }
            other => {
                world.story.tell(|| format!("{}: EVALSHA: {other:?}", self.name));
                Err(Ended::Lost)
            }
        }
    }

    fn notice(&self, world: &mut World, notice: &Notice) {
        world.story.tell(|| format!("{}: {notice}", self.name));
        match notice {
            Notice::Unreadable { file_id, start, end, .. } | Notice::Gone { file_id, start, end } => {
                world.reported(*file_id, *start..end.unwrap_or(u64::MAX));
            }
            Notice::Begun { generation, file_id, .. } => {
                let content = self.noted.borrow().read;
                for number in [*generation, *file_id] {
                    if let (None, Some(content)) = (world.ledger.content(number), content) {
                        world.ledger.sent(number, content);
                    }
                }
            }
            // The content was rotated before the source began, and is reported as such.
            Notice::File(files::Notice::LooksRotated { path, .. }) => {
                let content = |path: &str| world.input.borrow().at(path).and_then(|file| file.content);
                // A copy of the input may be all that is left of it when the source begins.
                for content in (0..content(crate::programs::INPUT).unwrap_or(0)).chain(content(path)) {
                    if world.truth.get(content).is_some_and(|known| known.sent == 0) {
                        world.truth.is_earlier(content);
                    }
                }
            }
            Notice::File(files::Notice::SameBeginning { path, bytes }) if self.may_be_either(world, path, *bytes) => {
                let content = world.input.borrow().at(path).and_then(|file| file.content);
                if let Some(content) = content {
                    // What another partition has sent is known to within an eighth.
                    let more = if world.keys.len() > 1 { bytes / 8 + 1 } else { 0 };
                    world.truth.note(content, 0..*bytes + more, Fate::REPEATABLE);
                    world.truth.comes_late(content);
                    world.truth.has_double(content);
                }
            }
            // The reader continues without this file. Bytes of it that Redis lost are a gap, unless
            // this process sends them again.
            Notice::File(files::Notice::Unreadable { path, .. }) => {
                if let Some(content) = world.input.borrow().at(path).and_then(|file| file.content) {
                    world.truth.note(content, 0..u64::MAX, Fate::REMOVED);
                }
            }
            Notice::File(files::Notice::Unlisted { .. }) => {
                let input = world.input.borrow().at(crate::programs::INPUT).and_then(|file| file.content);
                for content in (0..world.truth.contents().len()).filter(|content| Some(*content) != input) {
                    world.truth.note(content, 0..u64::MAX, Fate::REMOVED);
                }
            }
            Notice::File(files::Notice::StillWritten { path }) => {
                if let Some(content) = world.input.borrow().at(path).and_then(|file| file.content) {
                    world.truth.comes_late(content);
                }
            }
            _ => {}
        }
    }
}

impl PartitionWriter {
    /// Whether a file that shares its first bytes with an earlier content may be another content.
    /// Few bytes may be a common header. Many may belong to another content if the earlier one
    /// still exists.
    fn may_be_either(&self, world: &World, path: &str, bytes: u64) -> bool {
        let files = world.input.borrow();
        let (Ok(inode), Some(file)) = (files.resolve(path), files.at(path)) else { return false };
        let first = file.plain().get(..usize::try_from(bytes).unwrap_or(usize::MAX));
        let has_them = |other: &crate::filesystem::File| first.is_some_and(|first| other.plain().starts_with(first));
        let is_named = |other: u64| files.names_of(other).any(|name| !name.starts_with("backup/"));
        bytes <= DISTINCT || files.files().any(|(other, file)| other != inode && is_named(other) && has_them(file))
    }
}

fn state_of(info: crate::redis::StreamInfo) -> StreamState {
    StreamState {
        last_id: info.last_id,
        len: info.length,
        added: Some(info.entries_added),
        oldest: info.first.map(|first| first.ms),
    }
}
