//! What a producer's steps are on the wire.
//!
//! A batch goes out in two steps. [`fill`] puts everything but the `EXEC` on the wire:
//!
//! ```text
//! WATCH <record>   HMGET <record> guard next:…   EXISTS <stream>   MULTI   WAIT …   XADD …   HSET <record> …   XLEN <stream>
//! ```
//!
//! The `EXEC` follows when the previous batch is confirmed and the record is what that batch left.
//! So a batch can neither overtake one that failed, nor land behind a gap when Redis lost data in
//! between, nor mix with another reader's. All of that needs transactions: [`try_transaction`] sees
//! that there are any, [`Fence`] keeps a batch from being executed without one, and [`outcome`]
//! tells.

use crate::error::Interrupt;
use delivery::entry::AFTER;
use delivery::manifest::{GUARD_FIELD, SENT_FIELD, Sent};
use delivery::producer::resume::StreamState;
use delivery::producer::{Directory, Expected, Outcome, Producer, Trouble};
use resp::streams::{XAdd, XInfoStream, XLen};
use resp::{Cmd, Connection, Error, ErrorKind, Frame, Transaction, cmd};
use service::source_record::state;
use service::{Failure, SourceRecord};
use std::time::{SystemTime, UNIX_EPOCH};

/// With more than this on its way to the socket, it goes out before the next batch is made: long
/// lines, which would pile up. 4 MiB, far more than a batch of short ones.
const SEND_FIRST: usize = 4 << 20;

/// What stands between `MULTI` and a batch, so that the batch cannot be executed without a
/// transaction.
///
/// Should `MULTI` be refused, as after a change of rights, the commands behind it would be executed
/// at once, before it is known what became of the previous batch. In a transaction `WAIT` only
/// tells a number; outside of one it waits, for more replicas than there can be, and nothing behind
/// it is executed before the connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fence {
    Wait,
    /// Redis or the user's rights have no `WAIT`.
    None,
}

impl Fence {
    /// How many commands it is.
    const fn commands(self) -> usize {
        match self {
            Self::Wait => 1,
            Self::None => 0,
        }
    }
}

/// More replicas than there can be.
const REPLICAS: i32 = i32::MAX;

fn wait() -> Cmd {
    cmd::<Frame>("WAIT").arg(REPLICAS).arg(0)
}

/// Tries an empty transaction, without which the reader must not begin, and then one with the
/// fence.
pub(crate) async fn try_transaction(connection: &mut Connection) -> Result<Fence, Interrupt> {
    match connection.exec(&Transaction::new()).await {
        Ok(_) => {}
        Err(error) if error.closes_connection() || error.is_transient() => return Err(error.into()),
        Err(error) => {
            let advice = service::advice::redis(ErrorKind::NotAtomic);
            return Err(Interrupt::Failure(Failure::config(format!("redis: no transactions: {error}; {advice}"))));
        }
    }
    let mut fenced = Transaction::new();
    fenced.add(wait());
    match connection.exec(&fenced).await {
        Ok(replies) if replies.check().is_ok() => Ok(Fence::Wait),
        Err(error) if error.closes_connection() => Err(error.into()),
        _ => Ok(Fence::None),
    }
}

/// What Redis answers to the questions of an [`Expected`].
#[derive(Debug)]
pub(crate) struct Answers {
    fields: Frame,
    /// Whether the stream exists.
    pub(crate) stream: bool,
}

impl Answers {
    /// The bytes of the guard field, and whether the link is there.
    pub(crate) fn fields(&self) -> (Option<&[u8]>, bool) {
        let mut fields = self.fields.value().children().map(resp::Value::as_bytes);
        (fields.next().flatten(), fields.next().flatten().is_some())
    }
}

/// Puts the questions on the wire.
fn ask(connection: &mut Connection, record: &SourceRecord, expected: &Expected) {
    let link = expected.link.as_deref().unwrap_or_default();
    connection.queue(&cmd::<Frame>("HMGET").arg(&record.key).arg(GUARD_FIELD).arg(link));
    connection.queue(&cmd::<Frame>("EXISTS").arg(&record.stream));
}

async fn answers(connection: &mut Connection) -> Result<Answers, Error> {
    let fields = connection.receive().await?.into_result()?;
    let exists = connection.receive().await?.into_result()?;
    Ok(Answers { fields, stream: exists.value().as_u64() == Some(1) })
}

/// Puts the next batch on the wire, all but its `EXEC`.
pub(crate) async fn fill<D: Directory>(
    connection: &mut Connection,
    record: &SourceRecord,
    producer: &mut Producer<D>,
    fence: Fence,
) -> Result<Result<(), Trouble>, Error> {
    if connection.buffered() > SEND_FIRST {
        connection.flush().await?;
    }
    let expected = producer.next_expected();
    let unix_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |passed| passed.as_millis());
    let mut sent = None;
    let filled = producer.fill(|entry| {
        let is_first = sent.is_none();
        sent = Some(Sent { last: entry.id, unix_ms: u64::try_from(unix_ms).unwrap_or(0) });
        if is_first {
            connection.queue(&cmd::<Frame>("WATCH").arg(&record.key));
            ask(connection, record, &expected);
            connection.queue_multi();
            if fence == Fence::Wait {
                connection.queue(&wait());
            }
        }
        // Nothing is allocated for entries that adjoin: nearly all.
        let after = entry.after.map_or_else(String::new, |after| after.to_string());
        let fields = [(entry.field.name(), entry.payload), (AFTER, after.as_bytes())];
        let [first, _] = &fields;
        let fields = if entry.after.is_some() { &fields[..] } else { std::slice::from_ref(first) };
        let add = XAdd::new(record.stream.as_bytes(), entry.id, fields);
        match entry.no_create {
            true => connection.queue(&add.no_create()),
            false => connection.queue(&add),
        }
    });
    match filled {
        Ok(Some(batch)) => {
            let mut set = cmd::<Frame>("HSET").arg(&record.key);
            if let Some(sent) = sent {
                set = set.arg(SENT_FIELD).arg(sent.to_string());
            }
            connection.queue(&batch.fields.iter().fold(set, |set, (field, value)| set.arg(field).arg(value)));
            connection.queue(&XLen::new(&record.stream));
            Ok(Ok(()))
        }
        Ok(None) => Ok(Ok(())),
        Err(trouble) => Ok(Err(trouble)),
    }
}

/// Receives what a batch expects.
pub(crate) async fn expectations(connection: &mut Connection) -> Result<Answers, Error> {
    // The reply to WATCH.
    connection.receive().await?.into_result()?;
    answers(connection).await
}

/// Waits for what became of a batch that has `entries` entries. [`ErrorKind::NotAtomic`]: Redis has
/// begun no transaction, so the batch may have been added without regard to what it expects.
pub(crate) async fn outcome(connection: &mut Connection, entries: u64, fence: Fence) -> Result<Outcome, Error> {
    let commands = usize::try_from(entries).unwrap_or(usize::MAX).saturating_add(2);
    connection.receive_queued(commands.saturating_add(fence.commands())).await?;
    let Some(frame) = connection.receive_exec().await? else { return Ok(Outcome::Aborted) };
    let mut len = 0;
    for (index, value) in frame.value().children().skip(fence.commands()).enumerate() {
        if value.as_error().is_some() {
            let Err(error) = frame.extract(value).into_result() else { continue };
            return if error.kind() == ErrorKind::IdTooSmall { Ok(Outcome::Refused) } else { Err(error) };
        }
        if (index as u64) < entries && value.is_null() {
            return Ok(Outcome::NoStream);
        }
        if index + 1 == commands {
            len = value.as_u64().unwrap_or(0);
        }
    }
    Ok(Outcome::Added { len })
}

/// Asks whether Redis holds what is expected. Also the stream's length (`None`: there is no
/// stream), and its state when that is asked for.
pub(crate) async fn check(
    connection: &mut Connection,
    record: &SourceRecord,
    expected: &Expected,
    with_state: bool,
) -> Result<(Answers, Option<u64>, Option<StreamState>), Error> {
    ask(connection, record, expected);
    let answers = answers(connection).await?;
    if !with_state {
        let len = connection.send(&XLen::new(&record.stream)).await?;
        let len = Some(len).filter(|_| answers.stream);
        return Ok((answers, len, None));
    }
    match connection.send(&XInfoStream::new(&record.stream)).await {
        Ok(info) => Ok((answers, Some(info.length), Some(state(&info)))),
        Err(error) if error.kind() == ErrorKind::NoSuchKey => Ok((answers, None, None)),
        Err(error) => Err(error),
    }
}
