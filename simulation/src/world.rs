//! Everything outside the services, and the interface through which they reach it.

use crate::administrators::{Hazards, Keys};
use crate::filesystem::{FileSystem, Flip};
use crate::oracle::Ledger;
use crate::random::Random;
use crate::redis::{Command, Lost, Name, Reply, Script, Server, Session};
use crate::story::Story;
use crate::truth::{Fate, Truth};
use resp::StreamId;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// The world.
#[derive(Debug)]
pub struct World {
    /// The source of randomness.
    pub random: Random,
    /// The log of events.
    pub story: Story,
    /// Milliseconds since the beginning. Services measure time with monotonic clocks, which never
    /// jump.
    pub elapsed: u64,
    /// The reference for instants.
    origin: Instant,
    /// Redis.
    pub redis: Server,
    /// The machine of the input and of the reader's state file.
    pub input: Rc<RefCell<FileSystem>>,
    /// The machine of the outputs.
    pub outputs: FileSystem,
    /// The bytes that the application wrote.
    pub truth: Truth,
    /// The file IDs and generations that the reader assigned to contents.
    pub ledger: Ledger,
    /// The faults of Redis.
    pub hazards: Hazards,
    /// The keys of the partitions.
    pub keys: Vec<Keys>,
    /// Bits that were flipped in journals.
    pub flips: Vec<Flip>,
    /// A writer started while the journal of a rotated output was damaged: it does not know the
    /// ranges in that journal.
    pub forgot_rotated: bool,
    /// A writer took over entries of another one. If that writer was only slow, both may commit
    /// them.
    pub taken_over: bool,
    /// Whether an exclusive writer has ended, or lost its session, before it could move the group
    /// over all that it had written.
    pub is_group_behind: bool,
    /// Leases that were taken over from another writer since the last check.
    pub leases_taken: Vec<Keys>,
    /// Up to where writers have moved the group of each stream.
    pub moved: BTreeMap<Name, StreamId>,
    /// Whether faults still happen.
    pub faulty: bool,
    /// Counts changes. While it does not grow, all services are idle.
    pub progress: u64,
}

impl World {
    /// A world with empty folders and an empty Redis.
    #[must_use]
    pub fn new(random: Random, story: Story, hazards: Hazards, keys: Vec<Keys>, start: u64) -> Self {
        Self {
            random,
            story,
            elapsed: 0,
            origin: Instant::now(),
            redis: Server::new(start),
            input: Rc::new(RefCell::new(FileSystem::new(start, false))),
            outputs: FileSystem::new(start, true),
            truth: Truth::default(),
            ledger: Ledger::default(),
            hazards,
            keys,
            flips: Vec::new(),
            forgot_rotated: false,
            taken_over: false,
            is_group_behind: false,
            leases_taken: Vec::new(),
            moved: BTreeMap::new(),
            faulty: true,
            progress: 0,
        }
    }

    /// The present instant.
    #[must_use]
    pub fn instant(&self) -> Instant {
        self.instant_at(self.elapsed)
    }

    /// The instant this many milliseconds after the beginning.
    #[must_use]
    pub fn instant_at(&self, elapsed: u64) -> Instant {
        self.origin + Duration::from_millis(elapsed)
    }

    /// Advances all clocks.
    pub fn pass(&mut self, millis: u64) {
        self.elapsed += millis;
        self.redis.now = self.redis.now.saturating_add(millis);
        self.outputs.now = self.outputs.now.saturating_add(millis);
        let mut input = self.input.borrow_mut();
        input.now = input.now.saturating_add(millis);
    }

    /// Lets a clock jump: that of Redis, or that of a file system.
    pub fn jump(&mut self) {
        let far = if self.random.chance(50) { 10_000 } else { 100_000_000 };
        let millis = self.random.below(far);
        let back = self.random.chance(50);
        let jump = |clock: u64| if back { clock.saturating_sub(millis) } else { clock + millis };
        let how = if back { "back" } else { "forward" };
        if self.random.chance(50) {
            self.redis.now = jump(self.redis.now);
            self.story.tell(|| format!("the clock of Redis jumps {millis} ms {how}"));
        } else {
            let mut input = self.input.borrow_mut();
            input.now = jump(input.now);
            self.story.tell(|| format!("the clock of the input's file system jumps {millis} ms {how}"));
        }
    }

    /// Connects to Redis.
    ///
    /// # Errors
    /// If Redis is unreachable.
    pub fn connect(&mut self) -> Result<Session, Lost> {
        if self.is_cut() { Err(Lost) } else { self.redis.connect() }
    }

    /// Executes a command. The connection may be lost before it, or after it with the reply.
    ///
    /// # Errors
    /// If the connection is lost.
    pub fn call(&mut self, session: &mut Session, command: Command) -> Result<Reply, Lost> {
        if self.is_cut() {
            return Err(session.close());
        }
        let reply = self.redis.call(session, command)?;
        if self.is_cut() { Err(session.close()) } else { Ok(reply) }
    }

    /// `EXEC`, with the same risk.
    ///
    /// # Errors
    /// If the connection is lost.
    pub fn exec(&mut self, session: &mut Session) -> Result<Reply, Lost> {
        if self.is_cut() {
            return Err(session.close());
        }
        let added: Vec<_> = session.queued_entries().collect();
        let reply = self.redis.exec(session)?;
        if let Reply::Several(replies) = &reply {
            for (origin, reply) in added.iter().zip(replies) {
                if let (Some(origin), Reply::Id(_)) = (origin, reply) {
                    self.truth.note(origin.content, origin.span.clone(), Fate::ADDED);
                }
            }
        }
        if self.is_cut() {
            self.story.tell(|| "the reply to EXEC is lost");
            return Err(session.close());
        }
        Ok(reply)
    }

    /// `EVALSHA` of the reader's script, with the same risk.
    ///
    /// # Errors
    /// When the connection is lost.
    pub fn script(&mut self, session: &mut Session, script: &Script) -> Result<Reply, Lost> {
        if self.is_cut() {
            return Err(session.close());
        }
        let len = |world: &Self| world.redis.stream_at(&script.stream).map_or(0, |stream| stream.info().entries_added);
        let before = len(self);
        let reply = self.redis.script(session, script)?;
        let added = usize::try_from(len(self).saturating_sub(before)).unwrap_or(0);
        for command in script.entries.iter().take(added) {
            if let Command::XAdd { entry, .. } = command
                && let Some(origin) = &entry.origin
            {
                self.truth.note(origin.content, origin.span.clone(), Fate::ADDED);
            }
        }
        if self.is_cut() {
            self.story.tell(|| "the reply to EVALSHA is lost");
            return Err(session.close());
        }
        Ok(reply)
    }

    /// Restores all journals with flipped bits from a backup. Returns false if there were none.
    pub fn restore_journals(&mut self) -> bool {
        let flips = std::mem::take(&mut self.flips);
        flips.iter().rev().for_each(|flip| self.outputs.flip_back(flip));
        !flips.is_empty()
    }

    fn is_cut(&mut self) -> bool {
        self.faulty && self.hazards.disconnects && self.random.one_in(150)
    }

    /// Records a report that bytes of a content are missing. `file` is the file ID of the content.
    pub fn reported(&mut self, file: u64, span: Range<u64>) {
        let Some(content) = self.ledger.content(file) else { return };
        // A line that reaches into blocks of other partitions is reported only up to the end of its
        // own block.
        let mut end = span.end;
        if let Some(known) = self.truth.get(content).filter(|_| self.keys.len() > 1) {
            let rest = known.bytes.get(usize::try_from(end).unwrap_or(usize::MAX)..).unwrap_or_default();
            end += rest.iter().position(|&byte| byte == b'\n').map_or(0, |at| at as u64 + 1);
        }
        self.truth.note(content, span.start..end, Fate::REPORTED);
    }
}
