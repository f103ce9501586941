//! Stage 1: reads the stream as a consumer, and fills batches.
//!
//! [`Consumer`] decides what to read and what to do with it; this stage performs the steps. With a
//! backlog, the next read is sent before the reply to the previous one is decoded. That read never
//! blocks, so the connection stays free for queries. Without a backlog, a read blocks in Redis.

use crate::check;
use crate::consume_log::ConsumeLog;
use crate::group::{Group, Seen, read_lease, read_notes};
use crate::many::{Lent, Parking, Woken};
use crate::run::{Ended, Handed};
use delivery::consumer::batch::KEEP_CAPACITY;
use delivery::consumer::{BATCH_BYTES, Batch, Change, Consumer, Effect, Lease, Move, Reply, Report};
use delivery::source_name::registry_key;
use resp::streams::{Entries, EntrySlice, XAutoClaim, XInfoStream};
use resp::{Backoff, Connection, Error, ErrorKind, Frame, cmd};
use service::preflight::{Commands, must_be_allowed};
use service::{Connector, Health, Shutdown, SourceRecord, Stop};
use std::cell::Cell;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, mpsc};

/// A batch is handed over at this many entries, whatever the disk does.
const BATCH_ENTRIES: u64 = 50_000;
/// How long a writer that is to stop waits for the answer to its last read; longer than the read
/// waits in Redis.
const LAST_ANSWER: Duration = Duration::from_secs(4);
/// The names of the kinds of work, where health is concerned.
const WORK: &str = "reading";
const WAITING: &str = "waiting for the source record";
const WAITING_FOR_WRITER: &str = "waiting for another writer";

/// The stage.
pub(crate) struct Consume<'a> {
    pub(crate) group: &'a Group,
    /// The output's path, for messages.
    pub(crate) output: &'a Path,
    pub(crate) link: Link<'a>,
    pub(crate) health: &'a Health,
    pub(crate) shutdown: &'a Shutdown,
    /// Whether it takes over entries of others.
    pub(crate) claims: bool,
    pub(crate) is_allowed: &'a Cell<bool>,
    /// Decides what is done.
    pub(crate) consumer: Consumer,
    /// Entries that were taken and not handed over yet. They count as held, so they outlive the
    /// connection that they came from.
    pub(crate) batch: Batch,
    pub(crate) seen: Rc<Seen>,
    pub(crate) log: ConsumeLog,
    /// One permit: the disk has nothing to do. All partitions share it.
    pub(crate) disk: Arc<Semaphore>,
    pub(crate) to_commit: mpsc::Sender<Handed>,
    /// The batches that may be filled next. The pool is bounded, so a partition that cannot
    /// acknowledge stops reading.
    pub(crate) empty: mpsc::UnboundedReceiver<Batch>,
    /// One that was taken from there and not filled yet.
    pub(crate) spare: Option<Batch>,
}

/// Where the stage gets its connection.
#[allow(clippy::large_enum_variant, reason = "one for each source, never moved")]
pub(crate) enum Link<'a> {
    /// It has one for itself, on which reads block in Redis.
    Own(Connector),
    /// It shares a few with other sources, and gives its own back while nothing comes.
    Shared(Parking<'a>),
}

impl Link<'_> {
    async fn connect(&mut self) -> Result<(Connection, Option<Lent>), Stop> {
        match self {
            Self::Own(connector) => Ok((connector.connect().await?, None)),
            Self::Shared(parking) => {
                let (connection, lent) = parking.begin().await?;
                Ok((connection, Some(lent)))
            }
        }
    }

    fn lost(&self, error: &Error) {
        match self {
            Self::Own(connector) => connector.lost(error),
            Self::Shared(parking) => parking.lost(error),
        }
    }
}

/// Why a session with Redis ended.
enum Broken {
    /// Redis, or the connection to it.
    Redis(Error),
    /// The group is gone, or the stream: Redis lost its data.
    NoGroup,
    /// The service ends, or a later stage has.
    Ended(Ended),
}

impl From<Error> for Broken {
    fn from(error: Error) -> Self {
        let is_gone = matches!(error.kind(), ErrorKind::NoGroup | ErrorKind::NoSuchKey);
        if is_gone { Self::NoGroup } else { Self::Redis(error) }
    }
}

const SHUTDOWN: Broken = Broken::Ended(Ended::Stop(Stop::Shutdown));

/// How a session ended well.
enum Session {
    /// Another one is to follow at once.
    Over,
    /// The work is done.
    Done,
}

/// Entries that came and were not all taken yet.
enum OnHand {
    Read(resp::EntryBatch),
    Claimed(Entries),
}

impl OnHand {
    fn entries(&self) -> EntrySlice<'_> {
        match self {
            Self::Read(batch) => batch.entries(),
            Self::Claimed(entries) => entries.as_slice(),
        }
    }
}

impl Consume<'_> {
    /// Reads until there is nothing more to do (`--once`), or until the service is to stop.
    pub(crate) async fn run(&mut self) -> Result<(), Ended> {
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(2));
        loop {
            let (mut connection, lent) = match self.link.connect().await {
                Ok(connected) => connected,
                Err(Stop::Shutdown) => return Ok(()),
                Err(stop) => return Err(stop.into()),
            };
            if !self.is_allowed.get() {
                let (connection, watched) = (&mut connection, self.group.stream.clone());
                let commands = check::commands(self.group, self.claims, self.consumer.is_exclusive());
                must_be_allowed(Commands { connection, watched, commands }).await?;
                self.is_allowed.set(true);
            }
            let ended = self.session(connection, lent).await;
            self.log.end_gaps();
            if self.consumer.has_read() {
                backoff.reset();
            }
            if self.hand_over(true).await.is_err() {
                return Ok(());
            }
            match ended {
                Ok(Session::Over) => continue,
                Ok(Session::Done) | Err(Broken::Ended(Ended::Stop(Stop::Shutdown))) => return Ok(()),
                Err(Broken::Ended(ended)) => return Err(ended),
                Err(Broken::NoGroup) => {
                    self.log.group_is_gone(self.group);
                    service::metrics::redis_error(ErrorKind::NoGroup);
                }
                Err(Broken::Redis(error)) => {
                    if error.kind() == ErrorKind::WrongType {
                        return Err(SourceRecord::of(&self.group.stream).wrong_type(&error).into());
                    }
                    self.link.lost(&error);
                    self.health.redis_failed(WORK, &error);
                }
            }
            self.health.progress();
            tokio::select! {
                () = self.shutdown.requested() => return Ok(()),
                () = tokio::time::sleep(backoff.next_delay()) => {}
            }
        }
    }

    /// One connection: performs what the consumer asks for, until it is lost or not needed any
    /// more.
    async fn session(&mut self, connection: Connection, mut lent: Option<Lent>) -> Result<Session, Broken> {
        let group = self.group;
        let mut redis = group.reader(connection);
        let (mut on_hand, mut taken) = (None::<OnHand>, 0);
        self.consumer.connected(Instant::now());
        self.seen.is_session_over.set(false);
        loop {
            if self.shutdown.is_requested() {
                self.consumer.stop();
            }
            if self.seen.is_session_over.take() {
                self.consumer.end_session();
            }
            if let Some(view) = self.seen.view.take() {
                self.consumer.group_observed(&view, Instant::now());
            }
            self.seen.has_name.set(self.consumer.has_name());
            self.seen.shows_life.set(self.consumer.shows_life());
            self.show_session();
            self.report();
            match self.consumer.next(Instant::now()) {
                Effect::LoadRecord => {
                    let record = group.read_record(&redis.send(&group.ask_record()).await?);
                    let metadata = record.input_path().and_then(|path| std::fs::metadata(path).ok());
                    self.consumer.record_loaded(record, metadata.map(|file| (file.dev(), file.ino())));
                }
                Effect::MakeGroup => {
                    let is_new = make_group(&mut redis, group, &self.log).await?;
                    self.consumer.group_made(is_new);
                }
                Effect::ReadLease => {
                    let lease = self.seen_lease(&mut redis).await?;
                    self.health.progress();
                    self.consumer.lease_read(lease, Instant::now());
                }
                Effect::WriteLease { seen, lease } => {
                    let sent_at = Instant::now();
                    match self.write_lease(&mut redis, seen.as_ref(), lease.as_ref()).await {
                        Ok(is_written) => self.consumer.lease_written(is_written, sent_at),
                        Err(Broken::Redis(error))
                            if error.kind() == ErrorKind::Oom && self.consumer.lease_refused() => {}
                        Err(broken) => return Err(broken),
                    }
                    if let Some(until) = self.consumer.leased_until() {
                        self.seen.lease.extend(until);
                    }
                }
                Effect::InspectGroup => {
                    let asked_at = Instant::now();
                    let groups = redis.send(&group.ask_groups()).await?;
                    let consumers = redis.send(&group.ask_consumers()).await?;
                    let notes = redis.send(&group.ask_notes()).await?;
                    let lease = redis.send(&group.ask_lease()).await?;
                    let ours = groups.iter().find(|one| one.name == group.name.as_bytes()).ok_or(Broken::NoGroup)?;
                    let view = group.view(asked_at, ours, &consumers, &notes, &lease);
                    self.consumer.group_inspected(&view, Instant::now());
                }
                Effect::Join => {
                    redis.send(&group.show_life()).await?;
                    self.consumer.joined();
                }
                Effect::ReadNotes => {
                    let notes = redis.send(&group.ask_notes()).await?;
                    self.consumer.notes_read(&read_notes(&notes), Instant::now());
                }
                Effect::WriteNotes(changes) => {
                    let mut is_claimed = true;
                    for change in &changes {
                        let reply = write_note(&mut redis, group, change).await?;
                        is_claimed = !matches!(change, Change::Claim(..)) || reply.value().as_u64() == Some(1);
                        if !is_claimed {
                            break;
                        }
                    }
                    self.consumer.notes_written(is_claimed, Instant::now());
                }
                Effect::Pause(time) => {
                    self.health.progress();
                    tokio::select! {
                        () = self.shutdown.requested() => {}
                        () = tokio::time::sleep(time) => {}
                    }
                }
                // Others wait for this connection.
                Effect::ReadAhead { .. } if lent.as_ref().is_some_and(Lent::is_due) => {}
                Effect::ReadAhead { behind, count } => {
                    redis.set_behind(behind);
                    redis.set_count(count);
                    redis.prefetch().await?;
                }
                Effect::Read { pending, behind, count, mut block } => {
                    if let (Link::Shared(parking), Some(held)) = (&mut self.link, &mut lent) {
                        let is_idle = block.take().is_some();
                        let is_quiet = !redis.has_pending() && !redis.has_read_in_flight();
                        let mut gives_back = is_quiet && parking.gives_back(is_idle, held);
                        if gives_back && is_idle && parking.is_to_park() {
                            let groups = match redis.send(&group.ask_groups()).await {
                                Err(error) if error.kind() == ErrorKind::NoSuchKey => return Err(Broken::NoGroup),
                                groups => groups?,
                            };
                            let ours =
                                groups.iter().find(|one| one.name == group.name.as_bytes()).ok_or(Broken::NoGroup)?;
                            gives_back = parking.park(ours);
                        }
                        if gives_back {
                            let Some(connection) = redis.into_connection() else { return Ok(Session::Over) };
                            held.give_back(connection);
                            drop(lent.take());
                            match parking.wait(is_idle).await.map_err(|stop| Broken::Ended(stop.into()))? {
                                Woken::Read(connection, again) => {
                                    redis = group.reader(connection).skip_pending();
                                    lent = Some(again);
                                }
                                Woken::Over => return Ok(Session::Over),
                                Woken::Close => return Ok(Session::Done),
                            }
                        }
                    }
                    redis.set_behind(behind);
                    redis.set_count(count);
                    let batch = tokio::select! {
                        biased;
                        () = self.shutdown.requested(), if block.is_some() => continue,
                        () = self.seen.wake.notified(), if block.is_some() => continue,
                        batch = redis.read_once(block) => batch?,
                    };
                    self.health.redis_works(WORK);
                    self.health.progress();
                    on_hand = batch.map(OnHand::Read);
                    let reply = reply(on_hand.as_ref());
                    if let (Link::Shared(parking), false) = (&mut self.link, pending) {
                        parking.came(reply);
                    }
                    self.consumer.delivered(reply, Instant::now());
                }
                Effect::Drain => {
                    on_hand = match tokio::time::timeout(LAST_ANSWER, redis.drain()).await {
                        Ok(batch) => batch?.map(OnHand::Read),
                        Err(_) => {
                            log::warn!(
                                "Redis does not answer; what it may have given to this consumer is read when it returns"
                            );
                            None
                        }
                    };
                    self.consumer.delivered(reply(on_hand.as_ref()), Instant::now());
                }
                Effect::Claim { start, count, idle } => {
                    let claim = XAutoClaim::new(&group.stream, &group.name, &group.consumer, idle, start).count(count);
                    let claimed = redis.send(&claim).await?;
                    self.log.claimed(claimed.entries.len(), claimed.deleted.len());
                    self.consumer.claimed(claimed.entries.len() as u64, claimed.next);
                    on_hand = Some(OnHand::Claimed(claimed.entries));
                }
                Effect::Take => {
                    let Some(entries) = on_hand.as_ref().map(OnHand::entries) else { return Ok(Session::Over) };
                    let rest = entries.iter().skip(taken).map(|entry| (entry.id, entry.fields));
                    let done = self.consumer.take(rest, &mut self.batch);
                    self.log.took(&done);
                    taken = taken.saturating_add(done.entries);
                    if taken == entries.len() {
                        // Its bytes are in our batch now.
                        (on_hand, taken) = (None, 0);
                    }
                }
                Effect::HandOver { now } => {
                    let is_quiet = !redis.has_pending() && !redis.has_read_in_flight();
                    if let Some(held) = lent.as_mut().filter(|_| now && is_quiet && self.has_to_wait()) {
                        // Others use the connection while the disk is busy.
                        let Some(connection) = redis.into_connection() else { return Ok(Session::Over) };
                        held.give_back(connection);
                        drop(lent.take());
                        self.hand_over(now).await?;
                        self.consumer.handed_over(Instant::now());
                        let Link::Shared(parking) = &self.link else { return Ok(Session::Over) };
                        match parking.again().await.map_err(|stop| Broken::Ended(stop.into()))? {
                            Woken::Read(connection, again) => {
                                redis = group.reader(connection).skip_pending();
                                lent = Some(again);
                            }
                            Woken::Over => return Ok(Session::Over),
                            Woken::Close => return Ok(Session::Done),
                        }
                        continue;
                    }
                    self.hand_over(now).await?;
                    self.consumer.handed_over(Instant::now());
                }
                Effect::ReadLastId => {
                    let info = redis.send(&XInfoStream::new(&group.stream)).await?;
                    self.consumer.last_id(info.last_generated_id);
                }
                Effect::Reconnect => return Ok(Session::Over),
                Effect::Restart => {
                    log::warn!(
                        "group {} of {}: the lease was taken over or removed; going on from what the output holds",
                        group.name,
                        group.stream
                    );
                    return Err(Broken::Ended(Ended::Again));
                }
                Effect::Refuse(refusal) => return Err(Broken::Ended(group.failure(&refusal, self.output).into())),
                Effect::Done => return Ok(Session::Done),
            }
        }
    }

    /// The lease, with its renewals.
    async fn seen_lease(&self, redis: &mut resp::GroupReader) -> Result<Option<Lease>, Broken> {
        let lease = redis.send(&self.group.ask_lease()).await?;
        if !self.consumer.is_exclusive() && read_lease(&lease, None).is_none() {
            return Ok(None);
        }
        let renewals = match redis.send(&self.group.ask_renewals()).await {
            Ok(renewals) => renewals,
            Err(error) if error.kind() == ErrorKind::UnknownCommand => {
                return Err(Broken::Ended(Group::too_old().into()));
            }
            Err(error) => return Err(error.into()),
        };
        Ok(read_lease(&lease, Some(renewals)))
    }

    /// Changes the lease, if it is still as it was seen. Whether it was changed.
    async fn write_lease(
        &self,
        redis: &mut resp::GroupReader,
        seen: Option<&Lease>,
        lease: Option<&Lease>,
    ) -> Result<bool, Broken> {
        redis.send(&cmd::<()>("WATCH").arg(&self.group.lease)).await?;
        let is_as_seen = self.seen_lease(redis).await?.as_ref() == seen;
        redis.send(&cmd::<Frame>(if is_as_seen { "MULTI" } else { "UNWATCH" })).await?;
        if !is_as_seen {
            return Ok(false);
        }
        let mut refused = None;
        for command in self.group.write_lease(seen, lease) {
            refused = redis.send(&command).await.err().or(refused);
        }
        match refused {
            Some(error) => {
                redis.send(&cmd::<()>("DISCARD")).await?;
                match (seen, lease) {
                    // A renewal takes no memory.
                    (Some(seen), Some(lease)) if error.kind() == ErrorKind::Oom && lease.is_of(seen) => {
                        let step = Move { renew: Some(lease.clone()), group: None };
                        Ok(redis.send(&self.group.execute_in_script(&lease.token, &step)).await?)
                    }
                    (None, Some(lease)) if error.kind() == ErrorKind::Oom => {
                        Ok(redis.send(&self.group.take_lease_when_full(lease)).await.map_err(|_| error)?)
                    }
                    _ => Err(error.into()),
                }
            }
            None => Ok(!redis.send(&cmd::<Frame>("EXEC")).await?.value().is_null()),
        }
    }

    /// Lets the stage that acknowledges know where the exclusive consumption began.
    fn show_session(&self) {
        let session = self.consumer.session();
        let mut shown = self.seen.session.borrow_mut();
        if shown.as_ref().map(|shown| shown.number) != session.map(|session| session.number) {
            *shown = session.cloned();
        }
    }

    /// Tells what the consumer has noticed.
    fn report(&mut self) {
        for report in self.consumer.take_reports() {
            match report {
                Report::WaitsForRecord(id) => {
                    let reason = self.group.waits_for_record(id);
                    self.health.redis_fails(WAITING, reason);
                }
                Report::RecordComplete => self.health.redis_works(WAITING),
                Report::WaitsForLease(owner) => {
                    let reason = self.group.waits_for_lease(&owner);
                    self.health.redis_fails(WAITING_FOR_WRITER, reason);
                }
                Report::WaitsForConsumer(other) => {
                    let reason = self.group.waits_for_consumer(&other);
                    self.health.redis_fails(WAITING_FOR_WRITER, reason);
                }
                Report::WaitEnded => self.health.redis_works(WAITING_FOR_WRITER),
                report => self.log.tell(self.group, &report),
            }
        }
    }

    /// Hands the batch over when the disk is idle or the batch is large; with `now`, waits for the
    /// disk.
    async fn hand_over(&mut self, now: bool) -> Result<(), Broken> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let is_large = self.batch.data.len() >= BATCH_BYTES || self.batch.entries() >= BATCH_ENTRIES;
        let can_wait = !now && !is_large;
        // First what only this partition waits for, then what others wait for, too.
        let next = match self.spare.take().or_else(|| self.empty.try_recv().ok()) {
            Some(next) => next,
            None if can_wait => return Ok(()),
            None => self.empty.recv().await.ok_or(SHUTDOWN)?,
        };
        let idle = match self.disk.clone().try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) if can_wait => {
                self.spare = Some(next);
                return Ok(());
            }
            Err(_) => self.disk.clone().acquire_owned().await.map_err(|_| SHUTDOWN)?,
        };
        let batch = std::mem::replace(&mut self.batch, next);
        let fills_memory = batch.data.len() > KEEP_CAPACITY;
        // The holder of the permit finds room here.
        self.to_commit.send((batch, idle)).await.map_err(|_| SHUTDOWN)?;
        if fills_memory {
            // One of this size at a time: the disk gives its permit back when the bytes are
            // durable. Other partitions that wait for it go first.
            let _done = self.disk.acquire().await.map_err(|_| SHUTDOWN)?;
        }
        Ok(())
    }

    /// Whether the disk is busy with what was handed over before.
    fn has_to_wait(&self) -> bool {
        let has_room = (self.spare.is_some() || !self.empty.is_empty()) && self.disk.available_permits() > 0;
        !self.batch.is_empty() && !has_room
    }
}

/// Makes the group, and the stream when there is none. Whether the group was not there before.
async fn make_group(redis: &mut resp::GroupReader, group: &Group, log: &ConsumeLog) -> Result<bool, Error> {
    let mut is_new = true;
    // Whether it is watched that there is no stream: the reader may make it meanwhile.
    let mut is_watched = false;
    loop {
        match redis.send(&group.create()).await {
            Ok(()) => log.group_created(group, false),
            Err(error) if error.kind() == ErrorKind::BusyGroup => is_new = false,
            Err(error) if error.kind() == ErrorKind::NoSuchKey && !is_watched => {
                redis.send(&cmd::<()>("WATCH").arg(&group.stream)).await?;
                is_watched = true;
                continue;
            }
            Err(error) if error.kind() == ErrorKind::NoSuchKey => {
                let mut done = false;
                for command in group.create_with_stream() {
                    done = !redis.send(&command).await?.value().is_null();
                }
                is_watched = false;
                if !done {
                    continue;
                }
                log.group_created(group, true);
                // In a cluster the list may be on another node; nothing depends on it.
                let listed = redis.send(&cmd::<u64>("HLEN").arg(registry_key(&group.stream))).await;
                log.stream_is_new(group, listed.unwrap_or(0));
            }
            // Redis refuses the command even if the group exists, and the group may have to be read
            // to make room.
            Err(error) if error.kind() == ErrorKind::Oom => {
                is_new = !has_group(redis, group).await?;
                if is_new {
                    redis.send(&group.create_when_full()).await.map_err(|_| error)?;
                    log.group_created(group, false);
                }
            }
            Err(error) => return Err(error),
        }
        if is_watched {
            redis.send(&cmd::<()>("UNWATCH")).await?;
        }
        return Ok(is_new);
    }
}

/// Changes a note, also while Redis's memory is full.
async fn write_note(redis: &mut resp::GroupReader, group: &Group, change: &Change) -> Result<Frame, Error> {
    match redis.send(&group.write_note(change, false)).await {
        Err(error) if error.kind() == ErrorKind::Oom => {
            redis.send(&group.write_note(change, true)).await.map_err(|_| error)
        }
        reply => reply,
    }
}

async fn has_group(redis: &mut resp::GroupReader, group: &Group) -> Result<bool, Error> {
    match redis.send(&group.ask_groups()).await {
        Ok(groups) => Ok(groups.iter().any(|one| one.name == group.name.as_bytes())),
        Err(error) if error.kind() == ErrorKind::NoSuchKey => Ok(false),
        Err(error) => Err(error),
    }
}

/// The counts of a read.
fn reply(on_hand: Option<&OnHand>) -> Reply {
    let Some(entries) = on_hand.map(OnHand::entries) else { return Reply::default() };
    let Some(last) = entries.last() else { return Reply::default() };
    let size = last.fields.and_then(|mut fields| fields.next()).map_or(0, |(_, payload)| payload.len());
    Reply { entries: entries.len() as u64, last: last.id, last_size: size }
}
