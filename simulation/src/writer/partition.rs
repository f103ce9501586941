//! One partition of a simulated writer: performs the effects of [`delivery::consumer`], one at a
//! time, and acknowledges committed entries.

use crate::administrators::Keys;
use crate::redis::{Bytes, Command, Delivered, Lost, Name, ReadFrom, Refusal, Reply, Session, bytes};
use crate::world::World;
use delivery::consumer::Reply as Came;
use delivery::consumer::{
    Batch, Change, Checkpoint, Consumer, Effect, GroupState, GroupView, Lease, Member, Move, Moved, Notes, Record,
    Refusal as Refused, Report, trim_below,
};
use resp::StreamId;
use std::collections::VecDeque;
use std::time::Duration;

/// Maximum number of batches of a partition in flight.
const BATCHES: usize = 3;

/// The result of a step.
#[derive(Debug)]
pub enum Step {
    /// The partition continues.
    Done,
    /// A batch is ready to commit.
    HandOver(Batch),
    /// The partition has stopped.
    Ended,
    /// The writer drops everything in flight and restarts.
    Restart,
    /// The partition stopped with an error.
    Refused(Refused),
}

/// The state of one partition.
#[derive(Debug)]
pub struct PartitionWriter {
    name: String,
    keys: Keys,
    group: Name,
    consumer_name: Name,
    /// The state machine.
    pub consumer: Consumer,
    session: Option<Session>,
    /// The entries of the latest reply, and the number of taken ones.
    reply: (Vec<Delivered>, usize),
    /// When the read of that reply was sent. Its entries are idle since then.
    asked_at: u64,
    /// The reply to a read that was sent ahead, and when it was sent.
    ahead: Option<(Vec<Delivered>, u64)>,
    batch: Batch,
    /// The number of batches that are not committed and acknowledged yet.
    pub under_way: usize,
    /// Committed batches whose entries are not acknowledged yet.
    pub to_acknowledge: VecDeque<Batch>,
    acknowledging: Option<Session>,
    is_trim_due: bool,
    sleeps_until: u64,
    /// When the current read times out.
    waits_until: Option<u64>,
    /// The ID after which it reads exclusively.
    waits_behind: Option<StreamId>,
    /// Moves the group during exclusive consumption.
    checkpoint: Option<Checkpoint>,
    /// Whether another writer holds or held the lease.
    is_lease_lost: bool,
    /// The ID after which it reads pending entries.
    pending_from: StreamId,
}

impl PartitionWriter {
    /// A partition that has not connected yet.
    #[must_use]
    pub fn new(name: String, nth: usize, keys: Keys, group: Name, consumer_name: Name, consumer: Consumer) -> Self {
        Self {
            name,
            keys,
            group,
            consumer_name,
            consumer,
            session: None,
            reply: (Vec::new(), 0),
            asked_at: 0,
            ahead: None,
            batch: Batch::of(nth),
            under_way: 0,
            to_acknowledge: VecDeque::new(),
            acknowledging: None,
            is_trim_due: false,
            sleeps_until: 0,
            waits_until: None,
            waits_behind: None,
            checkpoint: None,
            is_lease_lost: false,
            pending_from: StreamId::ZERO,
        }
    }

    /// Performs one effect. `disk_is_idle`: whether the disk can accept a batch at once.
    pub fn step(&mut self, world: &mut World, disk_is_idle: bool) -> Step {
        if self.is_lease_lost {
            return Step::Restart;
        }
        if world.elapsed < self.sleeps_until {
            return Step::Done;
        }
        let now = world.instant();
        if self.session.is_none() {
            match world.connect() {
                Ok(session) => {
                    self.session = Some(session);
                    (self.reply, self.ahead, self.waits_until) = ((Vec::new(), 0), None, None);
                    self.pending_from = StreamId::ZERO;
                    self.consumer.connected(now);
                }
                Err(Lost) => self.sleeps_until = world.elapsed + 100,
            }
            return Step::Done;
        }
        // A read that is blocked in Redis is not a new effect.
        let effect = match self.waits_until {
            Some(_) => {
                Effect::Read { pending: false, behind: self.waits_behind, count: 4, block: Some(Duration::ZERO) }
            }
            None => self.consumer.next(now),
        };
        let step = match effect {
            Effect::HandOver { now: must } => {
                let small = !must && !disk_is_idle;
                if self.batch.is_empty() || small {
                    self.consumer.handed_over(now);
                } else if disk_is_idle && self.under_way < BATCHES {
                    let nth = self.batch.partition;
                    let batch = std::mem::replace(&mut self.batch, Batch::of(nth));
                    self.under_way += 1;
                    self.consumer.handed_over(now);
                    return Step::HandOver(batch);
                }
                Ok(())
            }
            Effect::Refuse(refusal) => return Step::Refused(refusal),
            Effect::Restart => return Step::Restart,
            Effect::Done => return Step::Ended,
            Effect::Pause(pause) => {
                self.sleeps_until = world.elapsed + millis(pause);
                Ok(())
            }
            Effect::Reconnect => Err(Lost),
            effect => self.perform(world, effect),
        };
        for report in self.consumer.take_reports() {
            world.story.tell(|| format!("{} reports {report:?}", self.name));
            if let Report::Gap(gap, _) = report {
                world.reported(gap.file_id, gap.span);
            }
        }
        if step.is_err() {
            self.session = None;
            // What it has committed since it last moved the group is not acknowledged.
            world.is_group_behind |= self.consumer.is_exclusive();
            self.sleeps_until = world.elapsed + 50;
        }
        Step::Done
    }

    fn perform(&mut self, world: &mut World, effect: Effect) -> Result<(), Lost> {
        let (key, record) = (self.keys.stream.clone(), self.keys.record.clone());
        let (group, consumer) = (self.group.clone(), self.consumer_name.clone());
        let mut session = self.session.take().ok_or(Lost)?;
        let now = world.instant();
        match effect {
            Effect::LoadRecord => {
                let Reply::Pairs(pairs) = self.ask(world, &mut session, Command::HGetAll { key: record })? else {
                    return Err(Lost);
                };
                let fields = pairs.iter().map(|(name, value)| (&name[..], &value[..]));
                self.consumer.record_loaded(Record::read(fields, &group, &consumer), None);
            }
            Effect::MakeGroup => self.make_group(world, &mut session)?,
            Effect::ReadLease => {
                let lease = self.lease(world, &mut session)?;
                self.consumer.lease_read(lease, now);
            }
            Effect::WriteLease { seen, lease } => self.write_lease(world, &mut session, seen, lease)?,
            Effect::InspectGroup => {
                let Reply::Groups(groups) = self.ask(world, &mut session, Command::XInfoGroups { key: key.clone() })?
                else {
                    return Err(Lost);
                };
                let Reply::Consumers(members) =
                    self.ask(world, &mut session, Command::XInfoConsumers { key, group: group.clone() })?
                else {
                    return Err(Lost);
                };
                let ours = groups.iter().find(|one| one.name == group).ok_or(Lost)?;
                let notes = self.notes(world, &mut session)?;
                let lease = self.lease(world, &mut session)?;
                let members = members.iter().map(|one| Member {
                    name: one.name.as_bytes().to_vec(),
                    pending: one.pending,
                    idle: Duration::from_millis(one.idle),
                });
                let view = GroupView {
                    asked_at: now,
                    last_delivered: ours.last_delivered,
                    entries_read: ours.entries_read,
                    lag: None,
                    members: members.collect(),
                    notes,
                    lease,
                };
                world.story.tell(|| {
                    let names: Vec<_> = view.members.iter().map(|one| String::from_utf8_lossy(&one.name)).collect();
                    let (last, shared) = (view.last_delivered, view.notes.shared);
                    format!("{} looks at the group: {names:?}, delivered {last}, shared {shared:?}", self.name)
                });
                self.consumer.group_inspected(&view, now);
            }
            Effect::Join => {
                let from = ReadFrom::Pending(StreamId::new(u64::MAX, u64::MAX - 1));
                self.ask(world, &mut session, Command::XReadGroup { key, group, consumer, from, count: 1 })?;
                if world.is_group_behind {
                    // The lease of the writer that left it behind has expired, and is gone.
                    world.leases_taken.push(self.keys.clone());
                }
                self.consumer.joined();
            }
            Effect::ReadNotes => {
                let notes = self.notes(world, &mut session)?;
                self.consumer.notes_read(&notes, now);
            }
            Effect::WriteNotes(changes) => {
                let mut claimed = true;
                for change in changes {
                    let key = record.clone();
                    let command = match change {
                        Change::Claim(field, value) => {
                            Command::HSetNx { key, field: bytes(field), value: bytes(value) }
                        }
                        Change::Set(field, value) => Command::HSet { key, pairs: vec![(bytes(field), bytes(value))] },
                        Change::Remove(field) => Command::HDel { key, fields: vec![bytes(field)] },
                    };
                    let is_claim = matches!(command, Command::HSetNx { .. });
                    let reply = self.ask(world, &mut session, command)?;
                    if is_claim && matches!(reply, Reply::Number(0)) {
                        claimed = false;
                        break;
                    }
                }
                world.progress += 1;
                self.consumer.notes_written(claimed, now);
            }
            Effect::Read { pending, behind, count, block } => {
                self.waits_behind = behind;
                return self.read(world, session, pending, count, block);
            }
            Effect::ReadAhead { behind, count } => {
                let count = small(count);
                let command = match behind {
                    Some(behind) => Command::XRead { key, behind, count },
                    None => Command::XReadGroup { key, group, consumer, from: ReadFrom::New, count },
                };
                let Reply::Entries(entries) = self.ask(world, &mut session, command)? else { return Err(Lost) };
                world
                    .story
                    .tell(|| format!("{} reads {} entries ahead ({} ms)", self.name, entries.len(), world.elapsed));
                self.ahead = Some((entries, world.elapsed));
            }
            Effect::Drain => {
                let (entries, asked_at) = self.ahead.take().unwrap_or_default();
                self.arrived(world, entries, asked_at);
            }
            Effect::Take => {
                let (entries, done) = &mut self.reply;
                let rest = entries.iter().skip(*done).map(|(id, entry)| {
                    let fields =
                        entry.as_ref().map(|entry| entry.fields.iter().map(|(name, value)| (&name[..], &value[..])));
                    (*id, fields)
                });
                let taken = self.consumer.take(rest, &mut self.batch);
                *done += taken.entries;
                world.story.tell(|| format!("{} takes {taken:?}", self.name));
            }
            Effect::ReadLastId => match self.ask(world, &mut session, Command::XInfoStream { key })? {
                Reply::Stream(info) => self.consumer.last_id(info.last_id),
                _ => return Err(Lost),
            },
            Effect::Claim { start, count, idle } => {
                let command =
                    Command::XAutoClaim { key, group, consumer, idle: millis(idle), from: start, count: small(count) };
                let Reply::Claimed { next, entries, .. } = self.ask(world, &mut session, command)? else {
                    return Err(Lost);
                };
                world
                    .story
                    .tell(|| format!("{} takes over {} entries ({} ms)", self.name, entries.len(), world.elapsed));
                self.consumer.claimed(entries.len() as u64, next);
                world.progress += entries.len() as u64;
                world.taken_over |= !entries.is_empty();
                self.reply = (entries, 0);
                self.asked_at = world.elapsed;
            }
            Effect::HandOver { .. }
            | Effect::Refuse(_)
            | Effect::Done
            | Effect::Pause(_)
            | Effect::Reconnect
            | Effect::Restart => {}
        }
        self.session = Some(session);
        Ok(())
    }

    /// Executes a command. An error reply closes the connection, as any error does.
    fn ask(&self, world: &mut World, session: &mut Session, command: Command) -> Result<Reply, Lost> {
        match world.call(session, command)? {
            Reply::Refused(refusal) => {
                world.story.tell(|| format!("{}: Redis refuses: {refusal:?}", self.name));
                Err(Lost)
            }
            reply => Ok(reply),
        }
    }

    fn notes(&self, world: &mut World, session: &mut Session) -> Result<Notes, Lost> {
        let fields: Vec<Bytes> = Notes::fields(&self.group, &self.consumer_name).iter().map(bytes).collect();
        match self.ask(world, session, Command::HMGet { key: self.keys.record.clone(), fields })? {
            Reply::Values(values) => Ok(Notes::read(values.iter().map(|value| value.as_deref()))),
            _ => Err(Lost),
        }
    }

    /// `XGROUP CREATE … 0`. If it creates the stream, the same transaction removes the reader's
    /// guard.
    fn make_group(&mut self, world: &mut World, session: &mut Session) -> Result<(), Lost> {
        let (key, group) = (self.keys.stream.clone(), self.group.clone());
        let create = |make_stream| Command::XGroupCreate {
            key: key.clone(),
            group: group.clone(),
            at: StreamId::ZERO,
            make_stream,
        };
        let mut is_new = true;
        match world.call(session, create(false))? {
            Reply::Ok => world.progress += 1,
            Reply::Refused(Refusal::BusyGroup) => is_new = false,
            Reply::Refused(Refusal::NoSuchKey) => {
                world.redis.watch(session, &self.keys.stream)?;
                if !matches!(world.call(session, create(false))?, Reply::Refused(Refusal::NoSuchKey)) {
                    return Err(Lost);
                }
                world.redis.multi(session)?;
                let guard = bytes(delivery::manifest::GUARD_FIELD);
                world.call(session, Command::HDel { key: self.keys.record.clone(), fields: vec![guard] })?;
                world.call(session, create(true))?;
                match world.exec(session)? {
                    Reply::Several(replies) if !replies.iter().any(|reply| matches!(reply, Reply::Refused(_))) => {}
                    _ => return Err(Lost),
                }
                world.progress += 1;
                world.story.tell(|| format!("{} makes the stream and the group", self.name));
            }
            _ => return Err(Lost),
        }
        self.consumer.group_made(is_new);
        Ok(())
    }

    fn read(
        &mut self,
        world: &mut World,
        mut session: Session,
        pending: bool,
        count: u64,
        block: Option<Duration>,
    ) -> Result<(), Lost> {
        if let Some((entries, asked_at)) = self.ahead.take().filter(|_| !pending) {
            self.session = Some(session);
            self.arrived(world, entries, asked_at);
            return Ok(());
        }
        let from = if pending { ReadFrom::Pending(self.pending_from) } else { ReadFrom::New };
        let (key, count) = (self.keys.stream.clone(), small(count));
        let command = match self.waits_behind.filter(|_| !pending) {
            Some(behind) => Command::XRead { key, behind, count },
            None => {
                let (group, consumer) = (self.group.clone(), self.consumer_name.clone());
                Command::XReadGroup { key, group, consumer, from, count }
            }
        };
        let Reply::Entries(entries) = self.ask(world, &mut session, command)? else { return Err(Lost) };
        self.session = Some(session);
        if let (true, Some((last, _))) = (pending, entries.last()) {
            self.pending_from = *last;
        }
        let deadline = *self.waits_until.get_or_insert(world.elapsed + block.map_or(0, millis));
        if entries.is_empty() && world.elapsed < deadline {
            return Ok(());
        }
        self.waits_until = None;
        let now = world.elapsed;
        self.arrived(world, entries, now);
        Ok(())
    }

    fn arrived(&mut self, world: &mut World, entries: Vec<Delivered>, asked_at: u64) {
        self.asked_at = asked_at;
        world.progress += entries.len() as u64;
        let size =
            |(_, entry): &Delivered| entry.as_ref().and_then(|e| e.fields.first()).map_or(0, |(_, value)| value.len());
        let came = Came {
            entries: entries.len() as u64,
            last: entries.last().map_or(StreamId::ZERO, |(id, _)| *id),
            last_size: entries.last().map_or(0, size),
        };
        self.reply = (entries, 0);
        self.consumer.delivered(came, world.instant());
    }

    /// Acknowledges committed entries, or trims, with one command.
    pub fn acknowledge(&mut self, world: &mut World) {
        if self.consumer.is_exclusive() && self.keep_lease(world) {
            return;
        }
        if self.to_acknowledge.is_empty() && !self.is_trim_due {
            return;
        }
        let Some(mut session) = self.acknowledging.take().or_else(|| world.connect().ok()) else { return };
        let done = match self.to_acknowledge.front() {
            Some(batch) => {
                let ids = batch.ids.clone();
                let command = Command::XAck { key: self.keys.stream.clone(), group: self.group.clone(), ids };
                let done = match batch.ids.is_empty() {
                    true => Ok(()),
                    false => self.ask(world, &mut session, command).map(|_| ()),
                };
                if let (Ok(()), Some(advance), Some(checkpoint)) = (done, batch.advance, &mut self.checkpoint) {
                    checkpoint.advance(&advance);
                }
                if done.is_ok() {
                    let count = self.to_acknowledge.pop_front().map_or(0, |batch| batch.ids.len());
                    self.under_way -= 1;
                    world.progress += 1;
                    self.is_trim_due = true;
                    world.story.tell(|| format!("{} acknowledges {count} entries", self.name));
                }
                done
            }
            None => {
                self.is_trim_due = false;
                // What is not trimmed at once is there when the next writer takes the lease.
                match self.consumer.is_exclusive() && !world.random.one_in(3) {
                    true => Ok(()),
                    false => self.trim(world, &mut session),
                }
            }
        };
        self.acknowledging = done.is_ok().then_some(session);
    }

    fn trim(&self, world: &mut World, session: &mut Session) -> Result<(), Lost> {
        let key = self.keys.stream.clone();
        let Reply::Groups(groups) = self.ask(world, session, Command::XInfoGroups { key: key.clone() })? else {
            return Err(Lost);
        };
        let groups: Vec<GroupState> = groups
            .iter()
            .map(|group| GroupState {
                name: group.name.as_bytes().to_vec(),
                last_delivered: group.last_delivered,
                pending: group.pending,
                first_pending: group.first_pending,
                lag: None,
            })
            .collect();
        let most = self.checkpoint.as_ref().and_then(|checkpoint| checkpoint.at().next()).unwrap_or(StreamId::MAX);
        if let Some(min) = trim_below(&groups).map(|min| min.min(most)) {
            self.ask(world, session, Command::XTrimMinId { key, min })?;
            world.story.tell(|| format!("{} trims what is below {min}", self.name));
        }
        Ok(())
    }

    /// Whether this writer knows that no other writer can hold the lease now.
    #[must_use]
    pub fn may_write(&self, world: &World) -> bool {
        let until = self.consumer.leased_until().max(self.checkpoint.as_ref().map(Checkpoint::valid_until));
        !self.consumer.is_exclusive() || !self.is_lease_lost && until.is_some_and(|until| world.instant() < until)
    }

    fn lease(&self, world: &mut World, session: &mut Session) -> Result<Option<Lease>, Lost> {
        let (key, fields) = (self.keys.lease.clone(), Lease::FIELDS.map(bytes).to_vec());
        let Reply::Values(values) = self.ask(world, session, Command::HMGet { key: key.clone(), fields })? else {
            return Err(Lost);
        };
        let Reply::Number(expires) = self.ask(world, session, Command::PExpireTime { key })? else { return Err(Lost) };
        Ok(Lease::read(values.iter().map(|value| value.as_deref()), i64::try_from(expires).ok()))
    }

    fn write_lease(
        &mut self,
        world: &mut World,
        session: &mut Session,
        seen: Option<Lease>,
        lease: Option<Lease>,
    ) -> Result<(), Lost> {
        let (key, sent_at) = (self.keys.lease.clone(), world.instant());
        world.redis.watch(session, &key)?;
        if self.lease(world, session)? != seen {
            world.redis.unwatch(session)?;
            self.consumer.lease_written(false, sent_at);
            return Ok(());
        }
        world.redis.multi(session)?;
        let is_new = lease.as_ref().is_some_and(|lease| !seen.as_ref().is_some_and(|seen| seen.is_of(lease)));
        let mut is_refused = false;
        if let Some(lease) = &lease {
            if is_new {
                let pairs = lease.pairs().map(|(field, value)| (bytes(field), bytes(value))).to_vec();
                let reply = world.call(session, Command::HSet { key: key.clone(), pairs })?;
                is_refused = matches!(reply, Reply::Refused(_));
            }
            world.call(session, Command::PExpireAt { key, at: lease.expires() })?;
        } else {
            world.call(session, Command::HDel { key, fields: Lease::FIELDS.map(bytes).to_vec() })?;
        }
        if is_refused {
            return Err(Lost);
        }
        let is_written = match world.exec(session)? {
            Reply::Several(replies) if replies.iter().all(|reply| !matches!(reply, Reply::Refused(_))) => true,
            Reply::Nil => false,
            _ => return Err(Lost),
        };
        let is_of_another = match &seen {
            Some(seen) => !lease.as_ref().is_some_and(|lease| lease.is_of(seen)),
            // The lease of the writer that left the group behind has expired, and is gone.
            None => world.is_group_behind && lease.is_some(),
        };
        if is_written && is_of_another {
            world.story.tell(|| format!("{} takes over {seen:?}: {lease:?}", self.name));
            world.leases_taken.push(self.keys.clone());
        }
        self.consumer.lease_written(is_written, sent_at);
        Ok(())
    }

    /// Renews the lease and moves the group, if that is due. Returns whether it was.
    fn keep_lease(&mut self, world: &mut World) -> bool {
        let Some(session) = self.consumer.session().cloned() else {
            self.checkpoint = None;
            return false;
        };
        let known = self.checkpoint.take().filter(|checkpoint| checkpoint.session() == session.number);
        let Some(mut redis) = self.acknowledging.take().or_else(|| world.connect().ok()) else {
            self.end_session(world);
            return true;
        };
        let done = match known {
            None => self.watch(world, &mut redis).map(|lease| {
                let mut checkpoint = Checkpoint::new(session);
                self.is_lease_lost = !checkpoint.watched(lease.as_ref());
                Some(checkpoint)
            }),
            Some(mut checkpoint) => match checkpoint.next(world.instant()) {
                Some(step) => self.move_group(world, &mut redis, &mut checkpoint, &step).map(|()| Some(checkpoint)),
                None if world.random.one_in(8) => self.position(world, &mut redis).map(|at| {
                    let is_moved = at.is_none_or(|at| checkpoint.is_moved(at));
                    (!is_moved).then_some(checkpoint)
                }),
                None => {
                    (self.checkpoint, self.acknowledging) = (Some(checkpoint), Some(redis));
                    return false;
                }
            },
        };
        match done {
            Ok(Some(checkpoint)) => (self.checkpoint, self.acknowledging) = (Some(checkpoint), Some(redis)),
            Ok(None) | Err(Lost) => self.end_session(world),
        }
        true
    }

    fn end_session(&mut self, world: &mut World) {
        world.is_group_behind = true;
        (self.checkpoint, self.acknowledging, self.waits_until) = (None, None, None);
        self.consumer.end_session();
    }

    /// The last delivered ID of the group. `None`: the group does not exist.
    fn position(&self, world: &mut World, session: &mut Session) -> Result<Option<StreamId>, Lost> {
        let key = self.keys.stream.clone();
        let Reply::Groups(groups) = self.ask(world, session, Command::XInfoGroups { key })? else { return Err(Lost) };
        Ok(groups.iter().find(|one| one.name == self.group).map(|ours| ours.last_delivered))
    }

    fn watch(&self, world: &mut World, session: &mut Session) -> Result<Option<Lease>, Lost> {
        world.redis.unwatch(session)?;
        world.redis.watch(session, &self.keys.lease)?;
        self.lease(world, session)
    }

    fn move_group(
        &mut self,
        world: &mut World,
        session: &mut Session,
        checkpoint: &mut Checkpoint,
        step: &Move,
    ) -> Result<(), Lost> {
        let sent_at = world.instant();
        world.redis.multi(session)?;
        if let Some(lease) = &step.renew {
            world.call(session, Command::PExpireAt { key: self.keys.lease.clone(), at: lease.expires() })?;
        }
        if let Some((at, entries_read)) = step.group {
            let (key, group) = (self.keys.stream.clone(), self.group.clone());
            world.call(session, Command::XGroupSetId { key, group, at, entries_read })?;
        }
        let is_executed = match world.exec(session)? {
            Reply::Several(replies) if replies.iter().all(|reply| !matches!(reply, Reply::Refused(_))) => true,
            Reply::Nil => false,
            _ => return Err(Lost),
        };
        let lease = self.watch(world, session)?;
        match checkpoint.done(step, sent_at, is_executed, lease.as_ref()) {
            Moved::Lost => self.is_lease_lost = true,
            Moved::Retry => {}
            Moved::Done => {
                if let Some((at, _)) = step.group {
                    world.progress += 1;
                    self.is_trim_due = true;
                    let moved = world.moved.entry(self.keys.stream.clone()).or_default();
                    *moved = at.max(*moved);
                    world.story.tell(|| format!("{} moves the group to {at}", self.name));
                }
            }
        }
        Ok(())
    }

    /// Whether no batch is in flight. Entries that were only read stay pending.
    #[must_use]
    pub fn is_at_rest(&self) -> bool {
        self.under_way == 0 && self.checkpoint.as_ref().is_none_or(Checkpoint::is_settled)
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Small, so that many steps are taken.
fn small(count: u64) -> usize {
    usize::try_from(count.min(5)).unwrap_or(5)
}
