//! Stage 1: reads the stream as a consumer, and fills batches.
//!
//! After every connect, what this consumer has pending comes first, then what is new. While there is plenty, the next read is on its
//! way before the reply to this one is looked at; that read never blocks, so that the connection is free for questions. When there is
//! nothing, a read blocks in Redis.

use crate::agreement::Agreement;
use crate::batch::{Batch, KEEP_CAPACITY};
use crate::contents::{Came, Contents, Taken};
use crate::gap_log::GapLog;
use crate::group::{Group, Others, lineage};
use crate::names;
use crate::run::{Ended, Handed};
use delivery::entry::AFTER;
use metrics::counter;
use resp::streams::{EntrySlice, XAutoClaim, XInfoStream};
use resp::{Backoff, Connection, Consumer, Error, ErrorKind, StreamId, cmd};
use service::{Connector, Failure, Health, Shutdown, Stop};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, mpsc};

/// A batch is handed over at this size, whatever the disk does: 1 MiB.
const BATCH_BYTES: usize = 1 << 20;
/// And at this many entries.
const BATCH_ENTRIES: usize = 50_000;
/// The COUNT of the first read. It grows while replies are full, and follows the size of the entries.
const FIRST_COUNT: u64 = 1;
/// The largest COUNT.
const MAX_COUNT: u64 = 1000;
/// How long a read blocks at most.
const BLOCK: Duration = Duration::from_secs(2);
/// How long a writer that is to stop waits for the answer to its last read; longer than the read waits in Redis.
const LAST_ANSWER: Duration = Duration::from_secs(4);
/// The name of this work, where health is concerned.
const WORK: &str = "reading";
/// Foreign entries are logged at most so often.
const FOREIGN_LOG: Duration = Duration::from_secs(60);

/// The stage.
pub(crate) struct Fetch<'a> {
    pub(crate) group: &'a Group,
    pub(crate) connector: Connector,
    pub(crate) health: &'a Health,
    pub(crate) shutdown: &'a Shutdown,
    /// With how many partitions the source was begun, when its record beside this stream is to say that.
    pub(crate) agreement: Option<&'a Agreement>,
    /// What is held, batches that are under way included.
    pub(crate) contents: Contents,
    /// What was taken and not handed over yet. It counts as held, so it outlives the connection that it came from.
    pub(crate) batch: Batch,
    /// Whether others in the group get entries too; the stage that acknowledges looks as well.
    pub(crate) others: Rc<Others>,
    pub(crate) once: bool,
    pub(crate) claim_idle: Option<Duration>,
    /// One permit: the disk has nothing to do. All partitions share it.
    pub(crate) disk: Arc<Semaphore>,
    pub(crate) to_commit: mpsc::Sender<Handed>,
    /// The batches that may be filled next. There are only so many, so that who cannot acknowledge does not go on for ever.
    pub(crate) empty: mpsc::UnboundedReceiver<Batch>,
    /// One that was taken from there and not filled yet.
    pub(crate) spare: Option<Batch>,
}

/// Why a session with Redis ended.
enum Broken {
    /// Redis, or the connection to it.
    Redis(Error),
    /// The group is gone: Redis lost its data.
    NoGroup,
    /// The service ends, or a later stage has.
    Ended(Ended),
}

impl From<Error> for Broken {
    fn from(error: Error) -> Self {
        // The key was deleted while a read waited on it; a primary that becomes a replica says UNBLOCKED, too.
        let is_gone = error.kind() == ErrorKind::NoGroup
            || error.code() == "UNBLOCKED" && error.message().contains("no longer exists");
        if is_gone { Self::NoGroup } else { Self::Redis(error) }
    }
}

impl From<Failure> for Broken {
    fn from(failure: Failure) -> Self {
        Self::Ended(failure.into())
    }
}

const SHUTDOWN: Broken = Broken::Ended(Ended::Stop(Stop::Shutdown));

impl Fetch<'_> {
    /// Reads until there is nothing more to do (`--once`), or until the service is to stop.
    pub(crate) async fn run(&mut self) -> Result<(), Ended> {
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(2));
        let mut count = FIRST_COUNT;
        let mut is_first = true;
        loop {
            let connection = match self.connector.connect().await {
                Ok(connection) => connection,
                Err(Stop::Shutdown) => return Ok(()),
                Err(stop) => return Err(stop.into()),
            };
            let mut session = Session::new(self, connection, count);
            let ended = session.run(is_first).await;
            session.gap_log.tell_rest();
            let got_on = session.got_on;
            is_first = is_first && !session.is_watching;
            if got_on {
                backoff.reset();
            }
            if self.hand_over(true).await.is_err() {
                return Ok(());
            }
            match ended {
                Ok(()) | Err(Broken::Ended(Ended::Stop(Stop::Shutdown))) => return Ok(()),
                Err(Broken::Ended(ended)) => return Err(ended),
                Err(Broken::NoGroup) => {
                    log::warn!(
                        "group {} is gone from {}: Redis lost data, or somebody deleted it; reading from the beginning, and what the output holds is not written again",
                        self.group.name,
                        self.group.stream
                    );
                    service::metrics::redis_error(ErrorKind::NoGroup);
                    continue;
                }
                Err(Broken::Redis(error)) => {
                    if error.kind() == ErrorKind::WrongType {
                        return Err(self.wrong_type().into());
                    }
                    // A reply that is too large for us: fewer entries at once.
                    count = if error.kind() == ErrorKind::Protocol { 1 } else { FIRST_COUNT };
                    self.connector.lost(&error);
                    self.health.redis_fails(WORK, service::in_words(&error));
                }
            }
            self.health.progress();
            tokio::select! {
                () = self.shutdown.requested() => return Ok(()),
                () = tokio::time::sleep(backoff.next_delay()) => {}
            }
        }
    }

    /// Hands the batch over when the disk is idle or the batch is large; with `now`, waits for the disk.
    async fn hand_over(&mut self, now: bool) -> Result<(), Broken> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let is_large = self.batch.data.len() >= BATCH_BYTES || self.batch.ids.len() >= BATCH_ENTRIES;
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
        // Who has the permit finds room here.
        self.to_commit.send((batch, idle)).await.map_err(|_| SHUTDOWN)?;
        if fills_memory {
            // One of this size at a time: the disk gives its permit back when the bytes are durable. Other partitions that wait for it go first.
            let _done = self.disk.acquire().await.map_err(|_| SHUTDOWN)?;
        }
        Ok(())
    }

    fn wrong_type(&self) -> Failure {
        let Group { stream, record, .. } = self.group;
        Failure::config(format!(
            "--stream {stream}: this key, or {record} beside it, holds something else; allowed: a stream, or a key that is free"
        ))
    }
}

/// One connection, from connecting to losing it.
struct Session<'s, 'a> {
    fetch: &'s mut Fetch<'a>,
    consumer: Consumer,
    count: u64,
    claimed_at: Instant,
    /// Redis answered to what it was asked.
    got_on: bool,
    /// The order of entries has been watched.
    is_watching: bool,
    foreign: Foreign,
    gap_log: GapLog,
    /// What could last not be read in the source record.
    complaint: Option<String>,
}

impl<'s, 'a> Session<'s, 'a> {
    fn new(fetch: &'s mut Fetch<'a>, connection: Connection, count: u64) -> Self {
        let consumer = fetch.group.consumer(fetch.connector.config(), connection);
        Self {
            fetch,
            consumer,
            count,
            claimed_at: Instant::now(),
            got_on: false,
            is_watching: false,
            foreign: Foreign::default(),
            gap_log: GapLog::default(),
            complaint: None,
        }
    }

    async fn run(&mut self, is_first: bool) -> Result<(), Broken> {
        let last_delivered = self.prepare().await?;
        let came = if self.fetch.contents.is_watching() { Came::New } else { Came::Again };
        self.read_pending(came).await?;
        if is_first || last_delivered > StreamId::ZERO && !self.fetch.contents.is_watching() {
            self.fetch.contents.watch_from(last_delivered);
        }
        self.is_watching = true;
        self.read_new().await
    }

    /// The group, the source record, and up to where the group has read.
    async fn prepare(&mut self) -> Result<StreamId, Broken> {
        let group = self.fetch.group;
        // First, so that nothing is made where it is not wanted.
        self.learn().await?;
        self.make_group().await?;
        let groups = self.consumer.ask(&group.ask_groups()).await?;
        let ours = groups.iter().find(|one| one.name == group.name.as_bytes());
        let consumers = self.consumer.ask(&group.ask_consumers()).await?;
        if self.fetch.others.look(group, &consumers) {
            self.fetch.contents.forget_order();
        }
        ours.map(|ours| ours.last_delivered_id).ok_or(Broken::NoGroup)
    }

    /// Makes the group, and the stream when there is none.
    async fn make_group(&mut self) -> Result<(), Broken> {
        let group = self.fetch.group;
        // Whether it is watched that there is no stream: the reader may make it meanwhile.
        let mut is_watched = false;
        loop {
            match self.consumer.ask(&group.create()).await {
                Ok(()) => log::info!("group {} created on {}", group.name, group.stream),
                Err(error) if error.kind() == ErrorKind::BusyGroup => {}
                Err(error) if error.kind() == ErrorKind::NoSuchKey && !is_watched => {
                    self.consumer.ask(&cmd("WATCH").arg(&group.stream)).await?;
                    is_watched = true;
                    continue;
                }
                Err(error) if error.kind() == ErrorKind::NoSuchKey => {
                    let mut done = false;
                    for command in group.create_with_stream() {
                        done = !self.consumer.ask(&command).await?.value().is_null();
                    }
                    is_watched = false;
                    if !done {
                        continue;
                    }
                    log::info!("stream {} and group {} created", group.stream, group.name);
                }
                Err(error) => return Err(error.into()),
            }
            if is_watched {
                self.consumer.ask(&cmd("UNWATCH")).await?;
            }
            return Ok(());
        }
    }

    /// Reads what this consumer has had and not acknowledged.
    async fn read_pending(&mut self, came: Came) -> Result<(), Broken> {
        loop {
            self.consumer.set_count(self.count);
            let batch = self.consumer.read(None).await?;
            self.got_on = true;
            self.fetch.health.redis_works(WORK);
            let Some(batch) = batch else { break };
            self.take(batch.entries(), came).await?;
            self.adapt(batch.entries());
            self.fetch.hand_over(false).await?;
            if self.fetch.shutdown.is_requested() {
                self.fetch.hand_over(true).await?;
                return Err(SHUTDOWN);
            }
        }
        self.fetch.hand_over(true).await
    }

    /// Reads new entries, for ever or (`--once`) until there are none.
    async fn read_new(&mut self) -> Result<(), Broken> {
        // The stream's last ID when it was idle; judged when nothing has come since.
        let mut idle_at = None;
        let mut judged = false;
        loop {
            if self.fetch.shutdown.is_requested() {
                self.take_last_answer().await?;
                self.fetch.hand_over(true).await?;
                return Ok(());
            }
            let batch = self.next().await?;
            self.fetch.health.progress();
            if self.fetch.others.are_there() {
                self.fetch.contents.forget_order();
            }
            if let Some(batch) = &batch {
                (idle_at, judged) = (None, false);
                let is_full = batch.entries().len() as u64 >= self.count;
                self.adapt(batch.entries());
                if is_full {
                    self.consumer.set_count(self.count);
                    self.consumer.read_ahead().await?;
                }
                self.take(batch.entries(), Came::New).await?;
            }
            let came = batch.is_some();
            // Its bytes are in our batch now.
            drop(batch);
            self.fetch.hand_over(!self.consumer.is_ahead()).await?;
            self.claim_when_due().await?;
            if came || self.consumer.is_ahead() {
                continue;
            }
            if self.fetch.agreement.is_some_and(Agreement::is_open) {
                self.learn().await?;
            }
            // Nothing came. What the stream's last ID says of the end counts when still nothing came after it was asked.
            match idle_at {
                None => {
                    let info = self.consumer.ask(&XInfoStream::new(&self.fetch.group.stream)).await?;
                    idle_at = Some(info.last_generated_id);
                }
                Some(last) if !judged => {
                    judged = true;
                    self.fetch.contents.ended_at(last);
                    self.tell_gaps().await?;
                    self.gap_log.tell_rest();
                    if self.fetch.once {
                        return Ok(());
                    }
                }
                Some(_) => {}
            }
        }
    }

    /// What comes next: what was asked for ahead, or what a read that waits in Redis brings.
    async fn next(&mut self) -> Result<Option<resp::Batch>, Broken> {
        self.consumer.set_count(self.count);
        if self.consumer.is_ahead() || self.fetch.once {
            return Ok(self.consumer.read(None).await?);
        }
        let block = self.fetch.claim_idle.map_or(BLOCK, |idle| (idle / 2).clamp(Duration::from_millis(100), BLOCK));
        tokio::select! {
            biased;
            () = self.fetch.shutdown.requested() => Ok(None),
            batch = self.consumer.read(Some(block)) => Ok(batch?),
        }
    }

    /// What Redis has given to this consumer, or is about to: one that is scaled away comes back never, and would leave it pending.
    async fn take_last_answer(&mut self) -> Result<(), Broken> {
        match tokio::time::timeout(LAST_ANSWER, self.consumer.take_last()).await {
            Ok(Ok(Some(batch))) => self.take(batch.entries(), Came::New).await,
            Ok(Ok(None)) => Ok(()),
            Ok(Err(error)) => Err(error.into()),
            Err(_) => {
                log::warn!("Redis does not answer; what it may have given to this consumer is read when it returns");
                Ok(())
            }
        }
    }

    async fn learn(&mut self) -> Result<(), Broken> {
        let reply = self.consumer.ask(&self.fetch.group.ask_record()).await?;
        let (lineage, mut complaint) = lineage(&reply);
        if let Some(agreement) = self.fetch.agreement {
            complaint = agreement.hear(&reply)?.or(complaint);
        }
        self.fetch.contents.learn(&lineage);
        // It is asked for again and again while there are entries of others.
        if complaint != self.complaint {
            if let Some(complaint) = &complaint {
                let key = &self.fetch.group.record;
                log::warn!(
                    "{key}: {complaint}; left out, the others are used; somebody else changes this key, remove what is not the reader's"
                );
            }
            self.complaint = complaint;
        }
        Ok(())
    }

    /// COUNT for the next read: about a batch's worth of entries of the size of the last one.
    fn adapt(&mut self, entries: EntrySlice<'_>) {
        let size = entries.last().and_then(|entry| entry.fields?.next()).map_or(0, |(_, payload)| payload.len());
        // From reply to reply it may fall at once, but rises slowly.
        let fits = (BATCH_BYTES / size.max(1)) as u64;
        let is_full = entries.len() as u64 >= self.count;
        self.count = if is_full { self.count * 4 } else { self.count }.min(fits).clamp(1, MAX_COUNT);
    }

    /// Takes entries into the batch.
    async fn take(&mut self, entries: EntrySlice<'_>, came: Came) -> Result<(), Broken> {
        let mut at = 0;
        // A reader writes a generation into the source record before its first entry, so a record that was read after these entries
        // knows all of theirs.
        let mut is_fresh = false;
        while let Some(unknown) = self.take_known(entries, &mut at, came, is_fresh) {
            log::debug!("generation {} is not known yet", unknown.ms);
            self.learn().await?;
            is_fresh = true;
        }
        self.fetch.contents.close();
        self.tell_gaps().await
    }

    /// Takes entries until one has a generation that is not known, unless nothing more can be known.
    fn take_known(&mut self, entries: EntrySlice<'_>, at: &mut usize, came: Came, is_fresh: bool) -> Option<StreamId> {
        let Fetch { contents, batch, .. } = &mut *self.fetch;
        batch.came_at.get_or_insert_with(Instant::now);
        let mut redelivered = 0;
        let (mut deleted, mut deleted_last) = (0, StreamId::ZERO);
        let mut unknown = None;
        for entry in entries.iter().skip(*at) {
            let taken = match entry.fields {
                Some(mut fields) => match (fields.next(), fields.next()) {
                    (Some((field, payload)), None) => contents.take(entry.id, field, payload, came, batch),
                    (Some(first), Some((AFTER, after))) if fields.next().is_none() => {
                        contents.take_after(entry.id, first, after, came, batch)
                    }
                    _ => Taken::Foreign,
                },
                None => {
                    deleted += 1;
                    deleted_last = entry.id;
                    contents.deleted(entry.id);
                    Taken::New
                }
            };
            match taken {
                Taken::New => {}
                Taken::Held => redelivered += 1,
                Taken::Unknown if !is_fresh => {
                    unknown = Some(entry.id);
                    break;
                }
                Taken::Foreign | Taken::Unknown => self.foreign.saw(entry.id),
            }
            batch.ids.push(entry.id);
            *at += 1;
        }
        if redelivered > 0 {
            counter!(names::REDELIVERED).increment(redelivered);
        }
        if deleted > 0 {
            counter!(names::DELETED).increment(deleted);
            log::warn!("{deleted} entries were deleted while they were pending, the last one {deleted_last}");
        }
        unknown
    }

    /// Reports gaps, when nobody else can have got what is missing.
    async fn tell_gaps(&mut self) -> Result<(), Broken> {
        if !self.fetch.contents.has_gaps() {
            return Ok(());
        }
        let consumers = self.consumer.ask(&self.fetch.group.ask_consumers()).await?;
        if self.fetch.others.look(self.fetch.group, &consumers) {
            self.fetch.contents.forget_order();
            return Ok(());
        }
        for gap in self.fetch.contents.take_gaps() {
            self.gap_log.saw(&gap, self.fetch.contents.path_of(gap.root));
        }
        Ok(())
    }

    /// Takes over what other consumers have left pending for too long.
    async fn claim_when_due(&mut self) -> Result<(), Broken> {
        let Some(idle) = self.fetch.claim_idle else { return Ok(()) };
        if self.claimed_at.elapsed() < idle / 2 {
            return Ok(());
        }
        self.claimed_at = Instant::now();
        let group = self.fetch.group;
        let consumers = self.consumer.ask(&group.ask_consumers()).await?;
        if !consumers.iter().any(|consumer| consumer.name != group.consumer.as_bytes() && consumer.pending > 0) {
            return Ok(());
        }
        let mut start = StreamId::ZERO;
        loop {
            let claim = XAutoClaim::new(&group.stream, &group.name, &group.consumer, idle, start).count(self.count);
            let claimed = self.consumer.ask(&claim).await?;
            if !claimed.entries.is_empty() {
                log::info!("{} entries taken over that another consumer left pending", claimed.entries.len());
                self.take(claimed.entries.as_slice(), Came::Again).await?;
                self.fetch.hand_over(false).await?;
            }
            if !claimed.deleted.is_empty() {
                counter!(names::DELETED).increment(claimed.deleted.len() as u64);
                log::warn!(
                    "{} entries of another consumer were deleted while they were pending",
                    claimed.deleted.len()
                );
            }
            start = claimed.next;
            if start == StreamId::ZERO {
                return self.fetch.hand_over(!self.consumer.is_ahead()).await;
            }
        }
    }
}

/// Entries that no reader wrote: counted, and logged now and then.
#[derive(Debug, Default)]
struct Foreign {
    unlogged: u64,
    logged_at: Option<Instant>,
}

impl Foreign {
    fn saw(&mut self, id: StreamId) {
        counter!(names::FOREIGN).increment(1);
        self.unlogged += 1;
        if self.logged_at.is_none_or(|at| at.elapsed() >= FOREIGN_LOG) {
            log::warn!(
                "{} foreign entries, the last one {id}: no reader wrote them; acknowledged, not written; give that program a stream of its own",
                self.unlogged
            );
            self.logged_at = Some(Instant::now());
            self.unlogged = 0;
        }
    }
}
