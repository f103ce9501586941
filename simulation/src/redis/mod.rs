//! A Redis server: streams, groups, hashes, transactions, and persistence.
//!
//! A [`Server`] executes [`Command`]s. A [`Session`] is one connection, with its watched keys and
//! queued commands. The server appends every command that changed data to a log, as Redis does with
//! its append-only file. A crash can cut off the end of the log between two commands, or in the
//! middle of a transaction. Redis leaves the latter when a file that was cut inside a `MULTI` is
//! appended to.

mod command;
mod stream;

pub use command::{
    AddId, Bytes, Command, ConsumerInfo, Delivered, Entry, GroupInfo, Name, Origin, PendingInfo, ReadFrom, Refusal,
    Reply, Right, Script, StreamInfo,
};
pub use stream::{Group, Stream};

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::rc::Rc;

// Commands on a group (reading, acknowledging, claiming, moving) do not touch watched keys, as in
// Redis 7.

/// The value of a key.
#[derive(Debug, Clone)]
pub enum Value {
    /// A stream.
    Stream(Stream),
    /// A hash.
    Hash(BTreeMap<Bytes, Bytes>),
}

/// The data of a server.
pub type Keys = BTreeMap<Name, Value>;

/// One executed command, for the log.
#[derive(Debug, Clone)]
struct Logged {
    command: Command,
    /// The time of execution.
    now: u64,
    /// Its transaction; a command outside of a transaction is one by itself.
    transaction: u64,
}

/// A server.
#[derive(Debug, Default)]
pub struct Server {
    keys: Keys,
    /// The number of the last change of each key.
    changed: BTreeMap<Name, u64>,
    changes: u64,
    /// Its clock, in milliseconds since the epoch.
    pub now: u64,
    /// Rights that the services currently lack.
    pub withdrawn: BTreeSet<Right>,
    /// Whether memory is full.
    pub is_full: bool,
    /// Whether the server is unreachable: loading, frozen or disconnected.
    pub is_away: bool,
    /// The number of restarts. A restart closes all connections.
    epoch: u64,
    transactions: u64,
    /// The data before the first command of the log.
    base: Keys,
    log: Vec<Logged>,
    /// Older states that can be restored.
    dumps: Vec<Keys>,
}

/// One connection.
#[derive(Debug, Clone, Default)]
pub struct Session {
    epoch: u64,
    watched: Vec<(Name, u64)>,
    queued: Option<Vec<Command>>,
    is_refused: bool,
}

impl Session {
    /// The queued commands, with the origin of the bytes of each `XADD`.
    pub fn queued_entries(&self) -> impl Iterator<Item = Option<Origin>> {
        self.queued.iter().flatten().map(|command| match command {
            Command::XAdd { entry, .. } => entry.origin.clone(),
            _ => None,
        })
    }

    /// The connection is lost.
    pub const fn close(&mut self) -> Lost {
        self.epoch = u64::MAX;
        Lost
    }
}

/// The connection is lost, perhaps together with a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lost;

/// The key under which the expiry time of a hash is stored. Only far dates are used, so nothing
/// expires.
const EXPIRES: &[u8] = b"\0expires";
/// The length at which the log is folded into the base.
const LOG: usize = 400;
/// Maximum number of older states.
const DUMPS: usize = 3;

impl Server {
    /// An empty server, with its clock at this time.
    #[must_use]
    pub fn new(now: u64) -> Self {
        Self { now, ..Self::default() }
    }

    /// A new connection.
    ///
    /// # Errors
    /// If the server is unreachable.
    pub fn connect(&self) -> Result<Session, Lost> {
        if self.is_away { Err(Lost) } else { Ok(Session { epoch: self.epoch, ..Session::default() }) }
    }

    /// Whether a connection is still open.
    #[must_use]
    pub const fn serves(&self, session: &Session) -> bool {
        session.epoch == self.epoch && !self.is_away
    }

    /// Executes or queues a command.
    ///
    /// # Errors
    /// If the connection is lost; the command was not executed.
    pub fn call(&mut self, session: &mut Session, command: Command) -> Result<Reply, Lost> {
        if !self.serves(session) {
            return Err(Lost);
        }
        if let Some(refusal) = self.refuses(&command) {
            session.is_refused |= session.queued.is_some();
            return Ok(Reply::Refused(refusal));
        }
        if let Some(queued) = &mut session.queued {
            queued.push(command);
            return Ok(Reply::Queued);
        }
        let transaction = self.begin_transaction();
        Ok(self.execute_logged(command, transaction))
    }

    fn refuses(&self, command: &Command) -> Option<Refusal> {
        if command.right().is_some_and(|right| self.withdrawn.contains(&right)) {
            return Some(Refusal::NoPermission);
        }
        (self.is_full && command.takes_memory()).then_some(Refusal::OutOfMemory)
    }

    /// `WATCH`.
    ///
    /// # Errors
    /// If the connection is lost.
    pub fn watch(&self, session: &mut Session, key: &Name) -> Result<(), Lost> {
        if !self.serves(session) {
            return Err(Lost);
        }
        session.watched.push((key.clone(), self.changed.get(key).copied().unwrap_or(0)));
        Ok(())
    }

    /// `UNWATCH`.
    ///
    /// # Errors
    /// If the connection is lost.
    pub fn unwatch(&self, session: &mut Session) -> Result<(), Lost> {
        session.watched.clear();
        if self.serves(session) { Ok(()) } else { Err(Lost) }
    }

    /// `MULTI`.
    ///
    /// # Errors
    /// If the connection is lost.
    pub fn multi(&self, session: &mut Session) -> Result<(), Lost> {
        if !self.serves(session) {
            return Err(Lost);
        }
        session.queued.get_or_insert_default();
        Ok(())
    }

    /// `DISCARD`.
    ///
    /// # Errors
    /// If the connection is lost.
    pub fn discard(&self, session: &mut Session) -> Result<(), Lost> {
        (session.queued, session.is_refused) = (None, false);
        self.unwatch(session)
    }

    /// `EXEC`. The reply is nil if a watched key has changed. No other command is executed in
    /// between, but each command may fail alone.
    ///
    /// # Errors
    /// If the connection is lost; nothing was executed.
    pub fn exec(&mut self, session: &mut Session) -> Result<Reply, Lost> {
        if !self.serves(session) {
            return Err(Lost);
        }
        let queued = session.queued.take().unwrap_or_default();
        let watched = std::mem::take(&mut session.watched);
        if std::mem::take(&mut session.is_refused) {
            return Ok(Reply::Refused(Refusal::ExecAbort));
        }
        if watched.iter().any(|(key, change)| self.changed.get(key).copied().unwrap_or(0) != *change) {
            return Ok(Reply::Nil);
        }
        let transaction = self.begin_transaction();
        let replies = queued.into_iter().map(|command| match command.right() {
            // Redis checks the rights again, but not the memory.
            Some(right) if self.withdrawn.contains(&right) => Reply::Refused(Refusal::NoPermission),
            _ => self.execute_logged(command, transaction),
        });
        Ok(Reply::Several(replies.collect()))
    }

    /// `EVALSHA` of the reader's script. No other command is executed in between. The reply is the
    /// length of the stream, or why the script ended early. If Redis does not hold what the script
    /// expects, the reply is the two fields of the record and whether the stream exists.
    ///
    /// # Errors
    /// If the connection is lost; nothing was executed.
    pub fn script(&mut self, session: &Session, script: &Script) -> Result<Reply, Lost> {
        if !self.serves(session) {
            return Err(Lost);
        }
        Ok(self.try_script(script).unwrap_or_else(Reply::Refused))
    }

    fn try_script(&mut self, script: &Script) -> Result<Reply, Refusal> {
        if self.withdrawn.contains(&Right::Script) {
            return Err(Refusal::NoPermission);
        }
        let Script { stream, record, guard: (guard, expected), link, entries, pairs } = script;
        let hash = self.hash(record)?;
        let held: Vec<_> = [guard, link].map(|field| hash.and_then(|hash| hash.get(field).cloned())).into();
        let differs =
            |there: bool| Ok(Reply::Several(vec![Reply::Values(held.clone()), Reply::Number(u64::from(there))]));
        if held[0] != *expected || held[1].is_some() == link.is_empty() {
            return differs(self.keys.contains_key(stream));
        }
        let transaction = self.begin_transaction();
        for add in entries {
            // Redis checks the memory only before the first change.
            if let Some(refusal) = self.refuses(add) {
                return Err(refusal);
            }
            match self.execute_logged(add.clone(), transaction) {
                Reply::Refused(refusal) => return Err(refusal),
                Reply::Nil => return differs(false),
                _ => {}
            }
        }
        if self.withdrawn.contains(&Right::Hash) {
            return Err(Refusal::NoPermission);
        }
        let set = Command::HSet { key: record.clone(), pairs: pairs.clone() };
        if let Reply::Refused(refusal) = self.execute_logged(set, transaction) {
            return Err(refusal);
        }
        self.try_execute(Command::XLen { key: stream.clone() }, self.now)
    }

    fn begin_transaction(&mut self) -> u64 {
        self.transactions += 1;
        self.transactions
    }

    /// Executes a command of an administrator: without a connection, and with all rights.
    pub fn admin(&mut self, command: Command) -> Reply {
        let transaction = self.begin_transaction();
        self.execute_logged(command, transaction)
    }

    fn execute_logged(&mut self, command: Command, transaction: u64) -> Reply {
        let logged = command.writes().then(|| Logged { command: command.clone(), now: self.now, transaction });
        let reply = self.execute(command, self.now);
        if let Some(logged) = logged
            && !matches!(reply, Reply::Refused(_))
        {
            self.log.push(logged);
            if self.log.len() > LOG {
                self.fold();
            }
        }
        reply
    }

    /// Drops the log, as a rewrite of the append-only file does.
    fn fold(&mut self) {
        self.base = self.keys.clone();
        self.log.clear();
    }

    fn touch(&mut self, key: &Name) {
        self.changes += 1;
        self.changed.insert(key.clone(), self.changes);
    }

    fn stream(&self, key: &Name) -> Result<Option<&Stream>, Refusal> {
        match self.keys.get(key) {
            Some(Value::Stream(stream)) => Ok(Some(stream)),
            Some(Value::Hash(_)) => Err(Refusal::WrongType),
            None => Ok(None),
        }
    }

    fn stream_mut(&mut self, key: &Name) -> Result<Option<&mut Stream>, Refusal> {
        match self.keys.get_mut(key) {
            Some(Value::Stream(stream)) => Ok(Some(stream)),
            Some(Value::Hash(_)) => Err(Refusal::WrongType),
            None => Ok(None),
        }
    }

    fn hash(&self, key: &Name) -> Result<Option<&BTreeMap<Bytes, Bytes>>, Refusal> {
        match self.keys.get(key) {
            Some(Value::Hash(hash)) => Ok(Some(hash)),
            Some(Value::Stream(_)) => Err(Refusal::WrongType),
            None => Ok(None),
        }
    }

    fn execute(&mut self, command: Command, now: u64) -> Reply {
        match self.try_execute(command, now) {
            Ok(reply) => reply,
            Err(refusal) => Reply::Refused(refusal),
        }
    }

    fn try_execute(&mut self, command: Command, now: u64) -> Result<Reply, Refusal> {
        Ok(match command {
            Command::XAdd { key, id, entry, no_create } => {
                if self.stream(&key)?.is_none() {
                    if no_create {
                        return Ok(Reply::Nil);
                    }
                    self.keys.insert(key.clone(), Value::Stream(Stream::default()));
                }
                let stream = self.stream_mut(&key)?.ok_or(Refusal::NoSuchKey)?;
                let id = match id {
                    AddId::Exact(id) => id,
                    AddId::Auto => stream.next_id(now)?,
                };
                stream.add(id, entry)?;
                self.touch(&key);
                Reply::Id(id)
            }
            Command::XDel { key, ids } => {
                let deleted = self.stream_mut(&key)?.map_or(0, |stream| stream.delete(&ids));
                if deleted > 0 {
                    self.touch(&key);
                }
                Reply::Number(deleted)
            }
            Command::XTrimMinId { key, min } => {
                let trimmed = self.stream_mut(&key)?.map_or(0, |stream| stream.trim_below(min));
                if trimmed > 0 {
                    self.touch(&key);
                }
                Reply::Number(trimmed)
            }
            Command::XTrimMaxLen { key, len } => {
                let trimmed = self.stream_mut(&key)?.map_or(0, |stream| stream.trim_to(len));
                if trimmed > 0 {
                    self.touch(&key);
                }
                Reply::Number(trimmed)
            }
            Command::XLen { key } => Reply::Number(self.stream(&key)?.map_or(0, |stream| stream.info().length)),
            Command::XRange { key, from, to, count } => {
                let Some(stream) = self.stream(&key)?.filter(|_| from <= to) else {
                    return Ok(Reply::Entries(Vec::new()));
                };
                let range = stream.entries().range(from..=to).take(count);
                Reply::Entries(range.map(|(id, entry)| (*id, Some(entry.clone()))).collect())
            }
            Command::XInfoStream { key } => Reply::Stream(self.stream(&key)?.ok_or(Refusal::NoSuchKey)?.info()),
            Command::XInfoGroups { key } => Reply::Groups(self.stream(&key)?.ok_or(Refusal::NoSuchKey)?.group_infos()),
            Command::XInfoConsumers { key, group } => {
                let stream = self.stream(&key)?.ok_or(Refusal::NoSuchKey)?;
                let group = stream.groups().get(&group).ok_or(Refusal::NoGroup)?;
                Reply::Consumers(group.consumer_infos(now))
            }
            Command::XGroupCreate { key, group, at, make_stream } => {
                if self.stream(&key)?.is_none() {
                    if !make_stream {
                        return Err(Refusal::NoSuchKey);
                    }
                    self.keys.insert(key.clone(), Value::Stream(Stream::default()));
                    self.touch(&key);
                }
                self.stream_mut(&key)?.ok_or(Refusal::NoSuchKey)?.create_group(&group, at)?;
                Reply::Ok
            }
            Command::XGroupSetId { key, group, at, entries_read } => {
                self.stream_mut(&key)?.ok_or(Refusal::NoSuchKey)?.group_mut(&group)?.set_id(at, entries_read);
                Reply::Ok
            }
            Command::XGroupDestroy { key, group } => {
                let there = self.stream_mut(&key)?.ok_or(Refusal::NoSuchKey)?.destroy_group(&group);
                Reply::Number(u64::from(there))
            }
            Command::XGroupDelConsumer { key, group, consumer } => {
                let stream = self.stream_mut(&key)?.ok_or(Refusal::NoSuchKey)?;
                let pending = stream.group_mut(&group)?.delete_consumer(&consumer);
                Reply::Number(pending)
            }
            Command::XReadGroup { key, group, consumer, from, count } => {
                let stream = self.stream_mut(&key)?.ok_or(Refusal::NoGroup)?;
                let entries = stream.read(&group, &consumer, from, count, now)?;
                Reply::Entries(entries)
            }
            Command::XRead { key, behind, count } => {
                let behind = (Bound::Excluded(behind), Bound::Unbounded);
                let entries = self.stream(&key)?.into_iter().flat_map(|stream| stream.entries().range(behind));
                Reply::Entries(entries.take(count).map(|(id, entry)| (*id, Some(entry.clone()))).collect())
            }
            Command::XAck { key, group, ids } => {
                let Some(stream) = self.stream_mut(&key)? else { return Ok(Reply::Number(0)) };
                let acknowledged = stream.group_mut(&group).map_or(0, |group| group.acknowledge(&ids));
                Reply::Number(acknowledged)
            }
            Command::XPending { key, group, consumer, count } => {
                let stream = self.stream(&key)?.ok_or(Refusal::NoGroup)?;
                let group = stream.groups().get(&group).ok_or(Refusal::NoGroup)?;
                Reply::Pending(group.pending_infos(consumer.as_ref(), count, now))
            }
            Command::XAutoClaim { key, group, consumer, idle, from, count } => {
                let stream = self.stream_mut(&key)?.ok_or(Refusal::NoGroup)?;
                let (next, entries, deleted) = stream.claim(&group, &consumer, idle, from, count, now)?;
                Reply::Claimed { next, entries, deleted }
            }
            Command::HSet { key, pairs } => {
                let hash = self.hash_mut(&key)?;
                let added =
                    pairs.into_iter().filter(|(field, value)| hash.insert(field.clone(), value.clone()).is_none());
                let added = added.count() as u64;
                self.touch(&key);
                Reply::Number(added)
            }
            Command::HSetNx { key, field, value } => {
                let hash = self.hash_mut(&key)?;
                if hash.contains_key(&field) {
                    return Ok(Reply::Number(0));
                }
                hash.insert(field, value);
                self.touch(&key);
                Reply::Number(1)
            }
            Command::HDel { key, fields } => {
                if self.hash(&key)?.is_none() {
                    return Ok(Reply::Number(0));
                }
                let hash = self.hash_mut(&key)?;
                let removed = fields.iter().filter(|field| hash.remove(*field).is_some()).count() as u64;
                if hash.keys().all(|field| field[..] == *EXPIRES) {
                    self.keys.remove(&key);
                }
                if removed > 0 {
                    self.touch(&key);
                }
                Reply::Number(removed)
            }
            Command::HMGet { key, fields } => {
                let hash = self.hash(&key)?;
                Reply::Values(fields.iter().map(|field| hash.and_then(|hash| hash.get(field).cloned())).collect())
            }
            Command::PExpireAt { key, at } => {
                let is_there = self.hash(&key)?.is_some();
                if is_there {
                    self.hash_mut(&key)?.insert(bytes(EXPIRES), bytes(at.to_string()));
                    self.touch(&key);
                }
                Reply::Number(u64::from(is_there))
            }
            Command::PExpireTime { key } => {
                let at = self.field(&key, EXPIRES).and_then(|at| std::str::from_utf8(at).ok()?.parse().ok());
                Reply::Number(at.unwrap_or(0))
            }
            Command::HGetAll { key } => {
                let pairs = self.hash(&key)?.into_iter().flatten();
                Reply::Pairs(pairs.map(|(field, value)| (field.clone(), value.clone())).collect())
            }
            Command::Exists { key } => Reply::Number(u64::from(self.keys.contains_key(&key))),
            Command::Del { key } => {
                let there = self.keys.remove(&key).is_some();
                if there {
                    self.touch(&key);
                }
                Reply::Number(u64::from(there))
            }
            Command::Rename { key, to } => {
                let value = self.keys.remove(&key).ok_or(Refusal::NoSuchKey)?;
                self.keys.insert(to.clone(), value);
                self.touch(&key);
                self.touch(&to);
                Reply::Ok
            }
            Command::FlushAll => {
                let keys: Vec<Name> = std::mem::take(&mut self.keys).into_keys().collect();
                keys.iter().for_each(|key| self.touch(key));
                Reply::Ok
            }
            Command::Time => Reply::Time(now),
        })
    }

    /// The hash of a key; creates it if necessary.
    fn hash_mut(&mut self, key: &Name) -> Result<&mut BTreeMap<Bytes, Bytes>, Refusal> {
        match self.keys.entry(key.clone()).or_insert_with(|| Value::Hash(BTreeMap::new())) {
            Value::Hash(hash) => Ok(hash),
            Value::Stream(_) => Err(Refusal::WrongType),
        }
    }

    // For the oracle and the faults.

    /// The data.
    #[must_use]
    pub const fn keys(&self) -> &Keys {
        &self.keys
    }

    /// The stream under a key, if there is one.
    #[must_use]
    pub fn stream_at(&self, key: &Name) -> Option<&Stream> {
        self.stream(key).ok().flatten()
    }

    /// A field of a hash.
    #[must_use]
    pub fn field(&self, key: &Name, field: &[u8]) -> Option<&Bytes> {
        self.hash(key).ok().flatten()?.get(field)
    }

    // Faults.

    /// Kills and restarts the process. The last `lose` commands of the log were not on the disk.
    /// With `torn`, the file is cut in the middle of a transaction, and Redis executes the first
    /// commands of it. Otherwise, Redis omits an incomplete transaction.
    pub fn restart(&mut self, lose: usize, torn: bool) {
        let mut keep = self.log.len().saturating_sub(lose);
        let cut = |keep: usize, log: &[Logged]| {
            keep > 0 && keep < log.len() && log[keep].transaction == log[keep - 1].transaction
        };
        while !torn && cut(keep, &self.log) {
            keep -= 1;
        }
        let lost = keep < self.log.len();
        self.log.truncate(keep);
        if lost {
            self.keys = self.base.clone();
            for Logged { command, now, .. } in self.log.clone() {
                self.execute(command, now);
            }
        }
        self.disconnect_all();
    }

    /// Loses all data, and restarts the process.
    pub fn restart_empty(&mut self) {
        self.keys.clear();
        self.fold();
        self.disconnect_all();
    }

    /// The number of commands that a crash can lose.
    #[must_use]
    pub const fn log_len(&self) -> usize {
        self.log.len()
    }

    /// Closes all connections.
    pub const fn disconnect_all(&mut self) {
        self.epoch += 1;
    }

    /// Saves the current state, to be restored later.
    pub fn dump(&mut self) {
        if self.dumps.len() == DUMPS {
            self.dumps.remove(0);
        }
        self.dumps.push(self.keys.clone());
    }

    /// The number of older states.
    #[must_use]
    pub const fn dumps(&self) -> usize {
        self.dumps.len()
    }

    /// Restores an older state and restarts the process, as if a stale replica became master or an
    /// old dump was loaded.
    pub fn restore(&mut self, dump: usize) {
        if let Some(keys) = self.dumps.get(dump) {
            self.keys = keys.clone();
            self.dumps.truncate(dump + 1);
            self.fold();
            self.disconnect_all();
        }
    }

    /// Restores an older state of one key while the server runs (`RESTORE … REPLACE`).
    pub fn restore_key(&mut self, dump: usize, key: &Name) {
        if let Some(value) = self.dumps.get(dump).and_then(|keys| keys.get(key)).cloned() {
            self.keys.insert(key.clone(), value);
            self.touch(key);
            self.fold();
        }
    }
}

/// A name or value from text.
#[must_use]
pub fn bytes(text: impl AsRef<[u8]>) -> Bytes {
    Rc::from(text.as_ref())
}

#[cfg(test)]
mod tests;
