//! The single steps of a consumer: read, claim, acknowledge. A [`Consumer`](super::Consumer) owns
//! one per connection.

use std::fmt;
use std::time::{Duration, Instant};

use super::{BatchOrigin, EntryBatch};
use crate::connection::Deadline;
use crate::streams::{GroupFrom, GroupStart, XAck, XAutoClaim, XGroupCreate, XRead, XReadGroup};
use crate::{BlockTimeout, Command, Connection, Error, ErrorKind, Frame, StreamId, command};

/// Reads a stream as a consumer of a group, step by step, over a given connection.
///
/// It first returns the entries that are pending with this consumer, then new ones. It does not
/// create the group, and it does not reconnect: when the connection breaks, its calls fail, and you
/// create another reader over another connection. [`Consumer`](super::Consumer) does all of that.
///
/// [`ack`](Self::ack) collects acknowledgements, which travel with the next read.
///
/// Futures may be dropped at any time; the next call receives the reply to an earlier request.
///
/// ```no_run
/// # async fn example(connection: resp::Connection) -> Result<(), resp::Error> {
/// use resp::GroupReader;
///
/// // Read the present entries, and do not wait for more.
/// let mut reader = GroupReader::new(connection, "events", "workers", "me").count(100);
/// while let Some(batch) = reader.read(None).await? {
///     reader.ack(batch.ids());
/// }
/// reader.flush().await?;
/// # Ok(())
/// # }
/// ```
pub struct GroupReader {
    pub(super) connection: Connection,
    stream: Vec<u8>,
    group: Vec<u8>,
    name: Vec<u8>,
    count: u64,
    claim_idle: Option<Duration>,
    /// New entries are read behind this one, and not from the group.
    behind: Option<StreamId>,
    /// Acknowledgements that the server has not confirmed.
    pub(super) acks: Vec<StreamId>,
    /// The request that is not answered yet.
    in_flight: Option<InFlight>,
    /// The reply to that request, if another call had to receive it.
    early_reply: Option<Frame>,
    phase: Phase,
    /// The position and time of the next claim.
    claim_from: StreamId,
    claim_at: Instant,
}

/// What the reader reads next.
#[derive(Clone, Copy, Debug)]
enum Phase {
    /// Its own pending entries after this ID.
    Pending(StreamId),
    /// New entries.
    New,
}

/// A request that is not answered yet.
#[derive(Clone, Copy, Debug)]
struct InFlight {
    /// How many acknowledgements it contains, whose replies come first; 0 once they have arrived.
    acks: usize,
    /// How many of the oldest acknowledgements were refused, and are kept.
    refused: usize,
    what: ReadKind,
    /// How long the server blocks.
    block: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ReadKind {
    Pending,
    Claim,
    New,
    Behind,
}

/// The longest that one request blocks. It only matters for callers that wait longer.
const LONG_BLOCK: Duration = Duration::from_secs(24 * 60 * 60);
/// The shortest time between two searches for entries to claim.
const MIN_CLAIM_PAUSE: Duration = Duration::from_millis(10);
/// The maximum number of IDs in one command.
const MAX_ACKS: usize = 10_000;

impl GroupReader {
    /// Creates a reader for a consumer of this name.
    #[must_use]
    pub fn new(
        connection: Connection,
        stream: impl AsRef<[u8]>,
        group: impl AsRef<[u8]>,
        name: impl AsRef<[u8]>,
    ) -> Self {
        Self {
            connection,
            stream: stream.as_ref().to_vec(),
            group: group.as_ref().to_vec(),
            name: name.as_ref().to_vec(),
            count: 1000,
            claim_idle: None,
            behind: None,
            acks: Vec::new(),
            in_flight: None,
            early_reply: None,
            phase: Phase::Pending(StreamId::ZERO),
            claim_from: StreamId::ZERO,
            claim_at: Instant::now(),
        }
    }

    /// Sets the maximum number of entries in a batch. Default 1000.
    #[must_use]
    pub const fn count(mut self, entries: u64) -> Self {
        self.count = entries;
        self
    }

    /// Claims entries that were pending for this long: see
    /// [`ConsumerOptions::claim_idle`](super::ConsumerOptions::claim_idle). Default: never.
    #[must_use]
    pub const fn claim_idle(mut self, idle: Option<Duration>) -> Self {
        self.claim_idle = idle;
        self
    }

    /// Changes the maximum number of entries in a batch.
    pub const fn set_count(&mut self, entries: u64) {
        self.count = entries;
    }

    /// Reads new entries after this ID with `XREAD`, from the next request on. They do not become
    /// pending, and the group stays where it is: for a consumer that has the group to itself and
    /// moves it with [`XGroupSetId`](crate::streams::XGroupSetId), which costs the server much less
    /// than acknowledging each entry. Each reply moves the position. With `None`, reads go through
    /// the group again.
    ///
    /// ```no_run
    /// # async fn example(mut reader: resp::GroupReader, at: resp::StreamId) -> Result<(), resp::Error> {
    /// use resp::streams::XGroupSetId;
    ///
    /// reader.set_behind(Some(at));
    /// if let Some(batch) = reader.read(None).await?
    ///     && let Some(last) = batch.ids().next_back()
    /// {
    ///     // Once the entries are processed:
    ///     reader.send(XGroupSetId::new("events", "workers", last)).await?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub const fn set_behind(&mut self, id: Option<StreamId>) {
        self.behind = id;
    }

    /// Returns the next entries: pending ones first, then claimed and new ones. Waits for up to
    /// `block` while there are none, and then returns `None`; without `block`, it does not wait.
    ///
    /// # Errors
    ///
    /// The connection breaks, the group does not exist, or the key has another type. A reply of an
    /// unexpected form closes the connection, because later replies may belong to other commands.
    pub async fn read(&mut self, block: Option<Duration>) -> Result<Option<EntryBatch>, Error> {
        let now = Instant::now();
        // A time that no clock reaches: wait for a day, again and again.
        let end = block.map(|time| now.checked_add(time));
        loop {
            let left = end.map(|end| end.map_or(LONG_BLOCK, |end| end.saturating_duration_since(Instant::now())));
            // Entries may be left pending for long enough while this call waits.
            let (kind, batch) = self.step(left.map(|left| left.min(self.until_claim()))).await?;
            let is_new = matches!(kind, ReadKind::New | ReadKind::Behind);
            let is_over = end.is_none_or(|end| end.is_some_and(|end| end <= Instant::now()));
            if batch.is_some() || (is_new && is_over) {
                return Ok(batch);
            }
        }
    }

    /// Makes one request. Unlike [`read`](Self::read), it also returns `None` at the end of the
    /// pending entries ([`has_pending`](Self::has_pending) is then false), and when there was
    /// nothing to claim.
    ///
    /// For callers that decide between two requests, for example whether to read new entries at
    /// all.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read).
    pub async fn read_once(&mut self, block: Option<Duration>) -> Result<Option<EntryBatch>, Error> {
        Ok(self.step(block).await?.1)
    }

    /// Makes one request, or receives the reply to an earlier one. Returns what was read.
    async fn step(&mut self, block: Option<Duration>) -> Result<(ReadKind, Option<EntryBatch>), Error> {
        if self.is_closed() {
            return Err(Error::closed());
        }
        // An earlier call may have sent the request before it was dropped.
        if self.in_flight.is_none() {
            self.connection.refuse_arrived().await?;
            self.request(block);
        }
        self.receive_in_flight().await?;
        let (Some(in_flight), Some(frame)) = (self.in_flight.take(), self.early_reply.take()) else {
            return Err(Error::closed());
        };
        let decoded = self.decode(in_flight.what, frame);
        if decoded.as_ref().is_err_and(|error| error.kind() == ErrorKind::UnexpectedReply) {
            // Nothing that a server replies to these commands looks like this: replies have
            // shifted.
            self.connection.close();
        }
        Ok((in_flight.what, decoded?))
    }

    /// Decodes a reply, and moves the position.
    fn decode(&mut self, what: ReadKind, frame: Frame) -> Result<Option<EntryBatch>, Error> {
        let Self { stream, group, name, claim_idle, .. } = self;
        let claim_idle = *claim_idle;
        let read = XReadGroup::new(stream, group, name, GroupFrom::New);
        match what {
            ReadKind::Claim => {
                let claim = XAutoClaim::new(stream, group, name, Duration::ZERO, StreamId::ZERO);
                let claimed = command::decode(&claim, frame)?;
                self.claim_from = claimed.next;
                if claimed.next == StreamId::ZERO {
                    // All entries were examined. Half of the idle time keeps the delay of a claim
                    // small. Without any pause, new entries would never be read.
                    let pause = claim_idle.unwrap_or_default().checked_div(2).unwrap_or_default();
                    let pause = pause.max(MIN_CLAIM_PAUSE);
                    let now = Instant::now();
                    self.claim_at = now.checked_add(pause).unwrap_or(now);
                }
                Ok(if claimed.entries.is_empty() { None } else { Some(EntryBatch::claimed(claimed.entries)) })
            }
            ReadKind::Pending => {
                let entries = command::decode(&read, frame)?;
                let last = entries.ids().next_back();
                match last {
                    Some(last) => {
                        self.phase = Phase::Pending(last);
                        Ok(Some(EntryBatch::read(BatchOrigin::Pending, entries)))
                    }
                    None => {
                        self.phase = Phase::New;
                        Ok(None)
                    }
                }
            }
            ReadKind::New => {
                let entries = command::decode(&read, frame)?;
                Ok(if entries.is_empty() { None } else { Some(EntryBatch::read(BatchOrigin::New, entries)) })
            }
            ReadKind::Behind => {
                let entries = command::decode(&XRead::new(stream, StreamId::ZERO), frame)?;
                self.behind = entries.ids().next_back().or(self.behind);
                Ok(if entries.is_empty() { None } else { Some(EntryBatch::read(BatchOrigin::New, entries)) })
            }
        }
    }

    /// Returns how long it takes until entries may be claimed.
    fn until_claim(&self) -> Duration {
        match self.claim_idle {
            Some(_) => self.claim_at.saturating_duration_since(Instant::now()),
            None => LONG_BLOCK,
        }
    }

    /// Returns whether there may be pending entries that no read has returned.
    #[must_use]
    pub const fn has_pending(&self) -> bool {
        matches!(self.phase, Phase::Pending(_))
    }

    /// Requests new entries now, so that the server prepares the reply while you process the
    /// current batch. The request does not block in the server; the next [`read`](Self::read)
    /// receives its reply. No effect while another request is unanswered, or while pending entries
    /// are read.
    ///
    /// # Errors
    ///
    /// The connection breaks.
    pub async fn prefetch(&mut self) -> Result<(), Error> {
        if self.has_read_in_flight() || self.has_pending() {
            return Ok(());
        }
        if self.is_closed() {
            return Err(Error::closed());
        }
        self.request(None);
        self.connection.flush().await
    }

    /// Returns whether a request is unanswered.
    #[must_use]
    pub const fn has_read_in_flight(&self) -> bool {
        self.in_flight.is_some()
    }

    /// Sends a command on the reader's connection, between two reads. The reply to an unanswered
    /// request is received first, and kept for the next [`read`](Self::read); if that request
    /// blocks in the server, so does this call.
    ///
    /// # Errors
    ///
    /// As [`Connection::send`].
    pub async fn send<C: Command>(&mut self, command: C) -> Result<C::Reply, Error> {
        self.receive_in_flight().await?;
        self.connection.send(command).await
    }

    /// Sends acknowledgements and the next read.
    fn request(&mut self, block: Option<Duration>) {
        let Self { connection, stream, group, name, count, claim_idle, .. } = self;
        for acks in self.acks.chunks(MAX_ACKS) {
            connection.queue(XAck::new(stream, group, acks));
        }
        let read = |from| XReadGroup::new(stream, group, name, from).count(*count);
        let mut in_flight = InFlight { acks: self.acks.len(), refused: 0, what: ReadKind::New, block: None };
        match (self.phase, *claim_idle) {
            (Phase::Pending(after), _) => {
                connection.queue(read(GroupFrom::Pending(after)));
                in_flight.what = ReadKind::Pending;
            }
            (Phase::New, Some(idle)) if Instant::now() >= self.claim_at => {
                connection.queue(XAutoClaim::new(stream, group, name, idle, self.claim_from).count(*count));
                in_flight.what = ReadKind::Claim;
            }
            (Phase::New, _) => {
                let behind = self.behind.map(|id| XRead::new(stream, id).count(*count));
                match (behind, block) {
                    (None, Some(time)) => {
                        connection.queue(read(GroupFrom::New).block(BlockTimeout::For(time)).command());
                    }
                    (None, None) => connection.queue(read(GroupFrom::New)),
                    (Some(behind), Some(time)) => connection.queue(behind.block(BlockTimeout::For(time)).command()),
                    (Some(behind), None) => connection.queue(behind),
                }
                in_flight.block = block;
                if self.behind.is_some() {
                    in_flight.what = ReadKind::Behind;
                }
            }
        }
        self.in_flight = Some(in_flight);
    }

    /// Receives the reply to the request, and keeps it.
    async fn receive_in_flight(&mut self) -> Result<(), Error> {
        let Some(in_flight) = self.in_flight.filter(|_| self.early_reply.is_none()) else { return Ok(()) };
        self.receive_acks().await?;
        let deadline = match in_flight.block {
            Some(time) => self.connection.block_deadline(time),
            None => Deadline::after(self.connection.command_timeout()),
        };
        let command = if in_flight.what == ReadKind::Behind { "XREAD" } else { "XREADGROUP" };
        let named = |error: Error| error.with_context(command, Some(&self.stream));
        self.early_reply = Some(self.connection.receive_until(deadline).await.map_err(named)?);
        Ok(())
    }

    /// Receives the outstanding replies to acknowledgements.
    pub(super) async fn receive_acks(&mut self) -> Result<(), Error> {
        let Self { connection, in_flight: Some(in_flight), acks, .. } = self else { return Ok(()) };
        while in_flight.acks > 0 {
            let reply = connection.receive().await?.into_result();
            let sent = in_flight.acks.min(MAX_ACKS);
            in_flight.acks = in_flight.acks.saturating_sub(sent);
            let behind = in_flight.refused.saturating_add(sent);
            match reply {
                Ok(_) => drop(acks.drain(in_flight.refused..behind)),
                Err(error) => {
                    in_flight.refused = behind;
                    return Err(error.with_context("XACK", None));
                }
            }
        }
        Ok(())
    }

    /// Returns the batch of an unanswered request, which was made by [`prefetch`](Self::prefetch)
    /// or by a dropped call. `None` if there is no request, or its reply is empty. A request that
    /// blocks in the server is ended by `CLIENT UNBLOCK`; if that fails, it ends after its timeout.
    ///
    /// If you stop reading without this call, the entries of the last reply stay pending.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read).
    pub async fn drain(&mut self) -> Result<Option<EntryBatch>, Error> {
        let Some(in_flight) = self.in_flight else { return Ok(None) };
        if in_flight.block.is_some() && self.early_reply.is_none() {
            self.connection.unblock().await;
        }
        self.read_once(None).await
    }

    /// Reads new entries only. Use it when the entries that are pending with this consumer are
    /// being processed already, such as after [`into_connection`](Self::into_connection).
    #[must_use]
    pub const fn skip_pending(mut self) -> Self {
        self.phase = Phase::New;
        self
    }

    /// Returns the connection, for other work. `None` while a request is unanswered, while
    /// acknowledgements are unconfirmed, or after an error has closed it.
    #[must_use]
    pub fn into_connection(self) -> Option<Connection> {
        (self.in_flight.is_none() && self.acks.is_empty() && !self.is_closed()).then_some(self.connection)
    }

    /// Acknowledges entries with the next [`read`](Self::read) or [`flush`](Self::flush).
    pub fn ack(&mut self, ids: impl IntoIterator<Item = StreamId>) {
        self.acks.extend(ids);
    }

    /// Returns how many acknowledgements the server has not confirmed.
    #[must_use]
    pub const fn unconfirmed(&self) -> usize {
        self.acks.len()
    }

    /// Sends all acknowledgements now, and waits for their confirmation. The reply to an unanswered
    /// request is received first, as by [`send`](Self::send).
    ///
    /// # Errors
    ///
    /// The acknowledgements could not be confirmed; they are kept.
    pub async fn flush(&mut self) -> Result<(), Error> {
        self.receive_in_flight().await?;
        send_acks(&mut self.connection, &self.stream, &self.group, &mut self.acks).await
    }

    /// Returns whether an error has closed the connection.
    #[must_use]
    pub const fn is_closed(&self) -> bool {
        self.connection.is_closed()
    }

    /// Creates the group unless it exists, and starts reading from the beginning.
    pub(super) async fn create(&mut self, start: GroupStart) -> Result<(), Error> {
        (self.in_flight, self.early_reply, self.phase) = (None, None, Phase::Pending(StreamId::ZERO));
        let create = XGroupCreate::new(&self.stream, &self.group, start).make_stream();
        match self.connection.send(&create).await {
            Err(error) if error.kind() != ErrorKind::BusyGroup => Err(error),
            _ => Ok(()),
        }
    }
}

/// Sends all acknowledgements, and removes those that are confirmed.
pub(super) async fn send_acks(
    connection: &mut Connection,
    stream: &[u8],
    group: &[u8],
    acks: &mut Vec<StreamId>,
) -> Result<(), Error> {
    while !acks.is_empty() {
        let count = acks.len().min(MAX_ACKS);
        connection.send(XAck::new(stream, group, acks.iter().take(count))).await?;
        acks.drain(..count);
    }
    Ok(())
}

impl fmt::Debug for GroupReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GroupReader")
            .field("connection", &self.connection)
            .field("phase", &self.phase)
            .field("unconfirmed", &self.acks.len())
            .finish_non_exhaustive()
    }
}
