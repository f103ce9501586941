//! Stage 3: XACK or XGROUP SETID, and the housekeeping of the group: trimming, measuring, leaving.

use crate::failpoint;
use crate::group::{Group, Seen, read_lease, state};
use crate::latency::Latency;
use crate::metric_names;
use crate::run::{Ended, PartitionWork};
use crate::totals::{Measured, Totals};
use delivery::consumer::{
    Advance, Batch, Checkpoint, GroupState, HeldUp, Lease, Move, Moved, TrimWatch, can_trim, trim_below,
};
use metrics::histogram;
use resp::streams::{Trim, XGroupDelConsumer, XGroupSetId, XInfoStream, XLen, XPending, XTrim};
use resp::{Backoff, Connection, Error, ErrorKind, Frame, Pipeline, StreamId, Transaction, cmd};
use service::{Connector, Health, Member, ServerWatch, Shutdown, Stop};
use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};

/// Maximum number of IDs in one XACK. Redis serves no other client while it executes the command.
pub(crate) const IDS: usize = 1000;
/// Minimum time between two trims. A reader that waits for room (`--max-backlog`) depends on it.
const TRIM: Duration = Duration::from_millis(5);
/// The same after few acknowledged entries, to avoid three commands per line.
const TRIM_FEW: Duration = Duration::from_millis(50);
/// From this number on, entries are not few.
const FEW: u64 = 100;
/// How long a stopping writer tries to connect, to acknowledge what it has committed.
const LAST_CONNECT: Duration = Duration::from_secs(4);
/// How often the group is measured.
const MEASURE: Duration = Duration::from_secs(1);
/// Time until the first measurement after the consume stage has checked the permissions.
const SOON: Duration = Duration::from_millis(20);
/// Time until trimming is retried after Redis refused it.
const TRIM_AGAIN: Duration = Duration::from_secs(2);
/// The kinds of work, as reported to [`Health`].
const ACKNOWLEDGING: &str = "acknowledging";
const TRIMMING: &str = "trimming";
const MEASURING: &str = "measuring";
/// Leaving fails if the stream changes at that moment, so a busy stream needs several attempts.
const LEAVE_ATTEMPTS: u32 = 50;

/// The stage.
pub(crate) struct Acknowledge<'a> {
    group: &'a Group,
    connector: Connector,
    connection: Option<Connection>,
    backoff: Backoff,
    health: &'a Health,
    shutdown: &'a Shutdown,
    /// The state of the server for the status page, which shows one server.
    server: Option<ServerWatch>,
    totals: &'a Totals,
    /// Which of the partitions in `totals` it is.
    partition: usize,
    seen: Rc<Seen>,
    /// Moves the group, in a session of exclusive consumption.
    checkpoint: Option<Checkpoint>,
    /// Before the user was found to have the rights, nothing is asked.
    is_allowed: &'a Cell<bool>,
    latency: Latency,
    trim_watch: TrimWatch,
    /// When what was acknowledged is to be trimmed, if there is any.
    trim_at: Option<Instant>,
    trimmed_at: Instant,
    /// How many entries were acknowledged since then.
    untrimmed: u64,
    /// How many the group is to be moved past.
    moving: u64,
    /// The service is to stop, and a connection was lost since: there is no third attempt.
    is_last: bool,
}

impl<'a> Acknowledge<'a> {
    /// The stage for this partition, the first of which tells about its server. What is seen of the
    /// group goes to `seen`.
    pub(crate) fn new(
        partition: &'a PartitionWork,
        shutdown: &'a Shutdown,
        totals: &'a Totals,
        seen: Rc<Seen>,
    ) -> Self {
        let health = &partition.stream.health;
        Self {
            group: &partition.group,
            connector: partition.stream.connector.clone(),
            connection: None,
            backoff: Backoff::new(Duration::from_millis(50), Duration::from_secs(2)),
            health,
            server: (partition.nth == 0).then(|| ServerWatch::new(health.clone())),
            shutdown,
            totals,
            partition: partition.nth,
            seen,
            checkpoint: None,
            is_allowed: &partition.is_allowed,
            latency: Latency::default(),
            trim_watch: TrimWatch::default(),
            trim_at: None,
            trimmed_at: Instant::now(),
            untrimmed: 0,
            moving: 0,
            is_last: false,
        }
    }

    /// Acknowledges what was committed, until nothing more comes.
    pub(crate) async fn run(
        &mut self,
        mut committed: mpsc::UnboundedReceiver<Batch>,
        give_back: mpsc::UnboundedSender<Batch>,
    ) -> Result<(), Ended> {
        let mut ticks = tokio::time::interval(MEASURE);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // They stay armed beside all batches: a timer that is new, and due before all others,
        // interrupts the runtime, which costs two system calls.
        let (renewal, trimming) = (tokio::time::sleep(MEASURE), tokio::time::sleep(MEASURE));
        tokio::pin!(renewal, trimming);
        loop {
            let trim_at = self.trim_at;
            let renew_at = self.renew_at();
            for (timer, at) in [(&mut renewal, renew_at), (&mut trimming, trim_at)] {
                if let Some(at) = at.filter(|at| timer.deadline() != *at) {
                    timer.as_mut().reset(at);
                }
            }
            tokio::select! {
                biased;
                () = &mut renewal, if renew_at.is_some() => self.move_group().await?,
                _ = ticks.tick() => match self.is_allowed.get() {
                    true => self.look_after_group(true).await?,
                    false => ticks.reset_after(SOON),
                },
                () = &mut trimming, if trim_at.is_some() => self.look_after_group(false).await?,
                batch = committed.recv() => match batch {
                    Some(mut batch) => {
                        self.latency.committed(&batch);
                        self.show_latency();
                        self.acknowledge(&batch.ids).await?;
                        if let Some(advance) = &batch.advance {
                            self.advance(advance).await?;
                        }
                        batch.clear();
                        // When nobody takes it, it is not needed.
                        let _ = give_back.send(batch);
                    }
                    None => break,
                },
            }
        }
        // The last look. Should it fail, the next writer does it.
        if let Some(mut connection) = self.connection.take().filter(|connection| !connection.is_closed())
            && let Err(error) = self.leave(&mut connection).await
        {
            log::warn!("leaving the group: {error}");
        }
        Ok(())
    }

    /// Acknowledges, however often the connection is lost: what is acknowledged twice is
    /// acknowledged.
    async fn acknowledge(&mut self, ids: &[StreamId]) -> Result<(), Ended> {
        if ids.is_empty() {
            return Ok(());
        }
        loop {
            let group = self.group;
            let connection = self.connection().await?;
            match acknowledge_all(connection, group, ids).await {
                Ok(()) => {
                    failpoint::reach("after-acknowledge");
                    self.is_to_trim(ids.len() as u64);
                    self.backoff.reset();
                    self.health.redis_works(ACKNOWLEDGING);
                    return Ok(());
                }
                Err(error) => self.lost(ACKNOWLEDGING, &error).await?,
            }
        }
    }

    /// More entries wait to be trimmed.
    fn is_to_trim(&mut self, entries: u64) {
        self.untrimmed = self.untrimmed.saturating_add(entries);
        let pause = if self.untrimmed < FEW { TRIM_FEW } else { TRIM };
        // After Redis refused it, it comes later than either.
        self.trim_at = match self.trim_at {
            Some(at) if at > later(self.trimmed_at, TRIM_FEW) => Some(at),
            _ => Some(later(self.trimmed_at, pause)),
        };
    }

    /// When the lease is to be renewed.
    fn renew_at(&self) -> Option<Instant> {
        let session = self.seen.session.borrow();
        let number = session.as_ref()?.number;
        match self.checkpoint.as_ref().filter(|checkpoint| checkpoint.session() == number) {
            Some(checkpoint) => Some(checkpoint.renew_at().into()),
            // A new session is watched at once.
            None => Some(Instant::now()),
        }
    }

    /// Moves the group behind entries that were read exclusively. If the session has ended since
    /// they were read, they are read again.
    async fn advance(&mut self, advance: &Advance) -> Result<(), Ended> {
        if !self.watch_lease().await? {
            return Ok(());
        }
        if let Some(checkpoint) = &mut self.checkpoint {
            checkpoint.advance(advance);
            self.moving = self.moving.saturating_add(advance.entries);
        }
        self.move_group().await
    }

    /// Moves the group and renews the lease, as far as that is due. An error ends the session.
    async fn move_group(&mut self) -> Result<(), Ended> {
        while self.watch_lease().await? {
            let Some(checkpoint) = &self.checkpoint else { return Ok(()) };
            let sent_at = std::time::Instant::now();
            let Some(step) = checkpoint.next(sent_at) else { return Ok(()) };
            let (group, token) = (self.group, checkpoint.token().to_owned());
            let (is_executed, lease) = match execute(self.connection().await?, group, &token, &step).await {
                Ok(done) => done,
                Err(error) => return self.session_failed(&error).await,
            };
            let Some(checkpoint) = &mut self.checkpoint else { return Ok(()) };
            match checkpoint.done(&step, sent_at, is_executed, lease.as_ref()) {
                Moved::Retry => {}
                Moved::Lost => return self.lease_lost(),
                Moved::Done => {
                    self.seen.lease.extend(checkpoint.valid_until());
                    if step.group.is_some() {
                        failpoint::reach("after-acknowledge");
                        let entries = std::mem::take(&mut self.moving);
                        self.is_to_trim(entries);
                    }
                    self.backoff.reset();
                    self.health.redis_works(ACKNOWLEDGING);
                }
            }
        }
        Ok(())
    }

    /// Begins to watch the lease when a session has begun. Whether there is a session.
    async fn watch_lease(&mut self) -> Result<bool, Ended> {
        let Some(session) = self.seen.session.borrow().clone() else {
            self.checkpoint = None;
            return Ok(false);
        };
        if self.checkpoint.as_ref().is_some_and(|checkpoint| checkpoint.session() == session.number) {
            return Ok(true);
        }
        let (group, number) = (self.group, session.number);
        let mut checkpoint = Checkpoint::new(session);
        let lease = match watch(self.connection().await?, group, &mut checkpoint).await {
            Ok(lease) => lease,
            Err(error) => return self.session_failed(&error).await.map(|()| false),
        };
        if self.seen.session.borrow().as_ref().is_none_or(|session| session.number != number) {
            return Ok(false);
        }
        if !checkpoint.watched(lease.as_ref()) {
            return self.lease_lost().map(|()| false);
        }
        self.checkpoint = Some(checkpoint);
        Ok(true)
    }

    /// The session ends: the stage that reads begins another one with what Redis says then.
    fn end_session(&mut self) {
        if self.checkpoint.take().is_some() {
            self.seen.end_session();
        }
    }

    async fn session_failed(&mut self, error: &Error) -> Result<(), Ended> {
        self.checkpoint = None;
        self.seen.end_session();
        if is_gone(error) { Ok(()) } else { self.lost(ACKNOWLEDGING, error).await }
    }

    /// Another writer has the lease or had it, and the batches in progress may belong to it.
    fn lease_lost(&mut self) -> Result<(), Ended> {
        self.checkpoint = None;
        self.seen.lease.end();
        let Group { name, stream, .. } = self.group;
        log::warn!(
            "group {name} of {stream}: the lease was taken over or removed; going on from what the output holds"
        );
        Err(Ended::Again)
    }

    fn show_latency(&mut self) {
        for latency in self.latency.measured() {
            histogram!(metric_names::LATENCY).record(latency);
            self.health.set_latency(latency);
        }
    }

    async fn look_after_group(&mut self, measure: bool) -> Result<(), Ended> {
        let (group, health) = (self.group, self.health);
        let trim = self.trim_at.take().is_some();
        self.trimmed_at = Instant::now();
        self.untrimmed = 0;
        if trim {
            // Another program may move the group beyond what is durable here.
            let most = self.checkpoint.as_ref().map_or(StreamId::MAX, Checkpoint::at);
            match trim_acknowledged(self.connection().await?, group, most).await {
                Ok(()) => health.redis_works(TRIMMING),
                // The group is created again by the stage that reads.
                Err(error) if is_gone(&error) => self.end_session(),
                Err(error) => {
                    // Else it would be tried again, and found to work again, with the next
                    // acknowledgement only.
                    self.trim_at = Some(later(Instant::now(), TRIM_AGAIN));
                    self.lost(TRIMMING, &error).await?;
                }
            }
        }
        if measure {
            self.connection().await?;
            match self.measure().await {
                Ok(()) => health.redis_works(MEASURING),
                Err(error) if is_gone(&error) => self.end_session(),
                Err(error) => return self.lost(MEASURING, &error).await,
            }
        }
        Ok(())
    }

    /// On the connection that there is: measures the group's backlog, and asks the server about
    /// itself.
    async fn measure(&mut self) -> Result<(), Error> {
        let Some(mut connection) = self.connection.take() else { return Ok(()) };
        let mut measured = self.measure_on(&mut connection).await;
        if let Some(server) = self.server.as_mut().filter(|_| measured.is_ok()) {
            server.ask(&mut connection);
            measured = server.hear(&mut connection).await;
        }
        self.connection = Some(connection);
        measured
    }

    /// Measures the group's backlog, and looks who else is in it.
    async fn measure_on(&mut self, connection: &mut Connection) -> Result<(), Error> {
        let group = self.group;
        let asked_at = std::time::Instant::now();
        let mut questions = Pipeline::new();
        let groups = questions.add(group.ask_groups());
        let length = questions.add(XLen::new(&group.stream));
        let consumers = questions.add(group.ask_consumers());
        let notes = questions.add(group.ask_notes());
        let lease = questions.add(group.ask_lease());
        if self.seen.shows_life.get() {
            questions.add(group.show_life());
        }
        let mut replies = connection.run(&questions).await?;
        let (groups, length) = (replies.take(groups)?, replies.take(length)?);
        let (consumers, notes, lease) = (replies.take(consumers)?, replies.take(notes)?, replies.take(lease)?);
        self.health.set_group(consumers.iter().map(|one| Member::of(one, &group.name)).collect());
        let states: Vec<_> = groups.iter().map(state).collect();
        if can_trim(&states, length) {
            self.trim_at.get_or_insert(Instant::now());
        }
        if let Some(held_up) = self.trim_watch.observe(&group.name, &states, length, asked_at) {
            log::warn!("{}", held_up_by(&group.stream, &held_up));
        }
        if let Some(ours) = groups.iter().find(|one| one.name == group.name.as_bytes()) {
            let view = group.view(asked_at, ours, &consumers, &notes, &lease);
            self.look_at_position(connection, ours.last_delivered_id, ours.lag, view.notes.end).await?;
            let last = match (ours.lag, view.notes.end) {
                (Some(_), _) => None,
                (None, Some(end)) => Some(end),
                // Its answer holds two entries, however long they are.
                (None, None) => Some(connection.send(&XInfoStream::new(&group.stream)).await?.last_generated_id),
            };
            if let Some(sent) = view.notes.sent {
                self.latency.sent(sent);
                self.show_latency();
            }
            self.seen.view.replace(Some(view));
            let lag = state(ours).lag(length, last);
            let oldest = connection.send(&XPending::new(&group.stream, &group.name).entries(.., 1)).await?;
            let oldest = oldest.first().map_or(Duration::ZERO, |entry| entry.idle);
            let measured = Measured { length, lag, pending: ours.pending, oldest };
            self.totals.set(self.partition, Some(measured));
        }
        Ok(())
    }

    /// Where the group is, in a session of exclusive consumption: nobody else is to move it, and
    /// Redis is to know how many entries were read up to there.
    async fn look_at_position(
        &mut self,
        connection: &mut Connection,
        last_delivered: StreamId,
        lag: Option<u64>,
        end: Option<StreamId>,
    ) -> Result<(), Error> {
        let Some(checkpoint) = &mut self.checkpoint else { return Ok(()) };
        if checkpoint.is_moved(last_delivered) {
            let Group { name, stream, .. } = self.group;
            log::warn!(
                "group {name} of {stream} was moved to {last_delivered} by another program; reading on from there"
            );
            self.end_session();
        } else if checkpoint.needs_count(lag, end) {
            let info = connection.send(&XInfoStream::new(&self.group.stream)).await?;
            checkpoint.count(info.last_generated_id, info.entries_added);
        }
        Ok(())
    }

    /// Trims a last time, and leaves the group when this consumer has nothing pending.
    async fn leave(&mut self, connection: &mut Connection) -> Result<(), Error> {
        let group = self.group;
        let most = self.checkpoint.as_ref().map_or(StreamId::MAX, Checkpoint::at);
        match trim_acknowledged(connection, group, most).await {
            Err(error) if is_gone(&error) => return Ok(()),
            trimmed => trimmed?,
        }
        self.measure_on(connection).await?;
        if self.checkpoint.take().is_some() {
            // The connection watches the lease: one that is not ours any more stays.
            let mut release = Transaction::new();
            group.write_lease(None, None).into_iter().for_each(|command| drop(release.add(command)));
            match connection.exec(&release).await {
                Err(error) if error.kind() != ErrorKind::WatchFailed => return Err(error),
                _ => {}
            }
        }
        leave_group(connection, group, log::Level::Info).await
    }

    async fn connection(&mut self) -> Result<&mut Connection, Ended> {
        let connection = match self.connection.take().filter(|connection| !connection.is_closed()) {
            Some(connection) => connection,
            None => {
                // What was measured may have changed since.
                self.totals.set(self.partition, None);
                match self.connector.connect().await {
                    Ok(connection) => connection,
                    // What is committed is still to be acknowledged: a consumer that is scaled away
                    // never comes back to do it.
                    Err(Stop::Shutdown) => self.connector.connect_to_end(LAST_CONNECT).await?,
                    Err(stop) => return Err(stop.into()),
                }
            }
        };
        Ok(self.connection.insert(connection))
    }

    /// After an error: a new connection, a little later.
    async fn lost(&mut self, doing: &'static str, error: &Error) -> Result<(), Ended> {
        self.connection = None;
        self.totals.set(self.partition, None);
        self.connector.lost(error);
        self.health.redis_failed(doing, error);
        self.health.progress();
        if self.shutdown.is_requested() && !std::mem::replace(&mut self.is_last, true) {
            return Ok(());
        }
        tokio::select! {
            () = self.shutdown.requested() => Err(Ended::Stop(Stop::Shutdown)),
            () = tokio::time::sleep(self.backoff.next_delay()) => Ok(()),
        }
    }
}

/// `moment` plus `pause`, or `moment` if that overflows.
pub(crate) fn later(moment: Instant, pause: Duration) -> Instant {
    moment.checked_add(pause).unwrap_or(moment)
}

/// Leaves the group if this consumer has no pending entries.
pub(crate) async fn leave_group(connection: &mut Connection, group: &Group, level: log::Level) -> Result<(), Error> {
    // A consumer that is deleted takes what it has pending with it, so nothing may be delivered
    // to it between the question and the deletion: an entry that is added changes the stream.
    let mut leaving = Transaction::new();
    leaving.add(XGroupDelConsumer::new(&group.stream, &group.name, &group.consumer));
    for _ in 0..LEAVE_ATTEMPTS {
        connection.send(&cmd::<()>("WATCH").arg(&group.stream)).await?;
        let mine = XPending::new(&group.stream, &group.name).entries(.., 1).consumer(&group.consumer);
        if !connection.send(&mine).await?.is_empty() {
            log::log!(level, "consumer {} stays in group {}: it has entries pending", group.consumer, group.name);
            return Ok(());
        }
        match connection.exec(&leaving).await {
            Ok(_) => {
                log::log!(level, "consumer {} left group {}", group.consumer, group.name);
                return Ok(());
            }
            Err(error) if error.kind() == ErrorKind::WatchFailed => {}
            Err(error) => return Err(error),
        }
    }
    log::log!(level, "consumer {} stays in group {}: the stream is too busy to leave", group.consumer, group.name);
    Ok(())
}

async fn acknowledge_all(connection: &mut Connection, group: &Group, ids: &[StreamId]) -> Result<(), Error> {
    for chunk in ids.chunks(IDS) {
        connection.queue(group.acknowledge(chunk));
    }
    for _ in ids.chunks(IDS) {
        connection.receive_reply(&group.acknowledge(&[])).await?;
    }
    Ok(())
}

/// Whether the group or its stream does not exist.
pub(crate) fn is_gone(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::NoGroup | ErrorKind::NoSuchKey)
}

/// Begins to watch the lease, and reads it.
async fn watch(
    connection: &mut Connection,
    group: &Group,
    checkpoint: &mut Checkpoint,
) -> Result<Option<Lease>, Error> {
    if checkpoint.lacks_count() {
        let mut together = Transaction::new();
        let stream = together.add(XInfoStream::new(&group.stream));
        let groups = together.add(group.ask_groups());
        connection.send(&cmd::<Frame>("UNWATCH")).await?;
        let mut replies = connection.exec(&together).await?;
        let (stream, groups) = (replies.take(stream)?, replies.take(groups)?);
        if let Some(ours) = groups.iter().find(|one| one.name == group.name.as_bytes()) {
            checkpoint.begin_count(ours.last_delivered_id, stream.entries_added, ours.lag);
        }
    }
    watch_again(connection, group).await
}

/// Watches the lease and nothing else, and reads it.
async fn watch_again(connection: &mut Connection, group: &Group) -> Result<Option<Lease>, Error> {
    let mut questions = Pipeline::new();
    // What was watched before may have changed, which would spoil the next transaction.
    questions.add(cmd::<Frame>("UNWATCH"));
    let watch = questions.add(cmd::<Frame>("WATCH").arg(&group.lease));
    let lease = questions.add(group.ask_lease());
    let mut replies = connection.run(&questions).await?;
    replies.take(watch)?;
    Ok(read_lease(&replies.take(lease)?, None))
}

/// Executes a transaction of the checkpoint, and watches the lease again, in one round trip.
/// Returns whether it was executed, and the lease.
async fn execute(
    connection: &mut Connection,
    group: &Group,
    token: &str,
    step: &Move,
) -> Result<(bool, Option<Lease>), Error> {
    connection.queue_multi();
    if let Some(lease) = &step.renew {
        connection.queue(group.renew_lease(lease));
    }
    if let Some((at, entries_read)) = step.group {
        let mut move_to = XGroupSetId::new(&group.stream, &group.name, at);
        if let Some(entries) = entries_read {
            move_to = move_to.entries_read(entries);
        }
        connection.queue(move_to);
    }
    connection.queue_exec();
    connection.queue(cmd::<Frame>("WATCH").arg(&group.lease));
    connection.queue(group.ask_lease());
    let commands = usize::from(step.renew.is_some()).saturating_add(step.group.is_some().into());
    match connection.receive_queued(commands).await {
        Err(error) if error.kind() == ErrorKind::Oom => return execute_when_full(connection, group, token, step).await,
        queued => queued?,
    }
    let executed = connection.receive_exec().await?;
    connection.receive_reply(&cmd::<Frame>("WATCH")).await?;
    let lease = read_lease(&connection.receive_reply(&group.ask_lease()).await?, None);
    if let Some(replies) = &executed {
        for reply in replies.value().children() {
            if reply.as_error().is_some() {
                replies.extract(reply).into_result()?;
            }
        }
    }
    Ok((executed.is_some(), lease))
}

/// Executes a transaction that Redis refused to queue because its memory is full.
async fn execute_when_full(
    connection: &mut Connection,
    group: &Group,
    token: &str,
    step: &Move,
) -> Result<(bool, Option<Lease>), Error> {
    // The replies to the rest: EXEC, which is refused, and the new watch.
    let _ = connection.receive_exec().await;
    connection.receive_reply(&cmd::<Frame>("WATCH")).await?;
    connection.receive_reply(&group.ask_lease()).await?;
    let is_executed = connection.send(&group.execute_in_script(token, step)).await?;
    Ok((is_executed, watch_again(connection, group).await?))
}

/// Trims the entries that every group has acknowledged, up to `most`.
async fn trim_acknowledged(connection: &mut Connection, group: &Group, most: StreamId) -> Result<(), Error> {
    let groups = connection.send(&group.ask_groups()).await?;
    let mut questions = Pipeline::new();
    let slots: Vec<_> = groups.iter().map(|one| questions.add(XPending::new(&group.stream, &one.name))).collect();
    let mut replies = connection.run(&questions).await?;
    let mut states = Vec::with_capacity(groups.len());
    for (group, slot) in groups.iter().zip(slots) {
        states.push(GroupState { first_pending: replies.take(slot)?.first, ..state(group) });
    }
    if let Some(needed) = trim_below(&states).map(|needed| most.next().map_or(needed, |most| needed.min(most))) {
        connection.send(&XTrim::new(&group.stream, Trim::min_id(needed))).await?;
    }
    Ok(())
}

/// A message that another group keeps entries in the stream.
pub(crate) fn held_up_by(stream: &str, HeldUp { group, entries, since }: &HeldUp) -> String {
    format!(
        "group {group} of stream {stream} holds up trimming: {entries} entries wait for it, and it has made no progress for {} s; start its writer, \
         or remove it with XGROUP DESTROY {stream} {group}",
        since.as_secs()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Args;
    use clap::Parser as _;
    use delivery::partition::Partition;
    use e2e::{Persistence, RedisServer};
    use resp::Config;
    use resp::streams::{GroupFrom, XAdd, XReadGroup};
    use std::process::ExitCode;

    /// A signal may arrive before the stage has a connection. The stage still acknowledges what is
    /// committed, and leaves the group.
    #[test]
    fn who_is_to_stop_before_the_first_connection_acknowledges() {
        let folder = tempfile::tempdir().unwrap();
        let redis = RedisServer::start(&folder.path().join("redis"), Persistence::None);
        let group = Group::new("s".to_owned(), "g".to_owned(), "c".to_owned());
        let url = redis.url();
        let args = Args::try_parse_from(["writer", "--redis-url", &url, "--http-addr", "127.0.0.1:0"]).unwrap();
        let code = service::run(crate::about(&args), &args.service, async |context| {
            let mut connection = Connection::connect(&Config::from_url(&url).unwrap()).await.unwrap();
            connection.send(&group.create().make_stream()).await.unwrap();
            let id = StreamId::new(1, 1);
            connection.send(&XAdd::new("s", id, &[("line", "x")])).await.unwrap();
            connection.send(&XReadGroup::new("s", "g", "c", GroupFrom::New)).await.unwrap();
            context.shutdown.request();
            let (to_acknowledge, committed) = mpsc::unbounded_channel();
            to_acknowledge.send(Batch { ids: vec![id], ..Batch::default() }).unwrap();
            drop(to_acknowledge);
            let partition = PartitionWork {
                nth: 0,
                stream: context.stream("s", Partition::WHOLE),
                group: group.clone(),
                is_allowed: Cell::default(),
            };
            let totals = Totals::new(&[Partition::WHOLE]);
            let mut stage = Acknowledge::new(&partition, &context.shutdown, &totals, Rc::default());
            stage.run(committed, mpsc::unbounded_channel().0).await.unwrap();
            Ok::<(), service::Failure>(())
        });
        assert_eq!(code, ExitCode::SUCCESS);
        assert_eq!(redis.call(&["XPENDING", "s", "g"]).list()[0].int(), 0);
        assert_eq!(redis.call(&["XINFO", "CONSUMERS", "s", "g"]).list().len(), 0);
    }
}
