//! The source record in Redis: the one place where a manifest is loaded, changed, and compared.
//!
//! The reader resumes from it and extends it, partitions agree on contents by it, and both `check`
//! commands read it. The rules on what it means are [`delivery::manifest`]'s.

use delivery::entry::{AFTER, Field};
use delivery::manifest::{GUARD_FIELD, Manifest, RecordError, begun_with, record_key};
use delivery::producer::resume::{Observed, StreamState};
use delivery::producer::{Change, Fields};
use resp::streams::{Entry, XInfoStream, XRange, XRevRange};
use resp::{Connection, Error, ErrorKind, Frame, StreamId, Transaction, cmd};

use crate::Failure;

/// The record beside a stream.
#[derive(Debug, Clone)]
pub struct SourceRecord {
    /// The stream's key.
    pub stream: String,
    /// The record's key.
    pub key: String,
}

/// What a record holds.
#[derive(Debug, Clone, Default)]
pub struct Loaded {
    /// The manifest.
    pub manifest: Manifest,
    /// The bytes of the guard field.
    pub guard: Option<Vec<u8>>,
    /// How many partitions the source was begun with, if the record says that.
    pub partitions: Option<u32>,
}

/// Why a record cannot be used.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RecordFault {
    /// Redis refused, or the connection was lost.
    #[error(transparent)]
    Redis(#[from] Error),
    /// It holds something that no reader wrote.
    #[error(transparent)]
    Unreadable(#[from] RecordError),
}

impl SourceRecord {
    /// The record beside this stream.
    #[must_use]
    pub fn of(stream: &str) -> Self {
        Self { stream: stream.to_owned(), key: record_key(stream) }
    }

    /// That the record cannot be read, as a configuration error.
    #[must_use]
    pub fn unreadable(&self, error: &RecordError) -> Failure {
        let Self { stream, key } = self;
        Failure::config(format!(
            "--stream {stream}: {error}; remove what is not the reader's from the key {key}, or choose another --stream"
        ))
    }

    /// Loads the record.
    ///
    /// # Errors
    /// Those of Redis, or the field that no reader wrote.
    pub async fn load(&self, connection: &mut Connection) -> Result<Loaded, RecordFault> {
        Ok(loaded(&connection.send(&cmd::<Frame>("HGETALL").arg(&self.key)).await?)?)
    }

    /// Loads the record and the stream's state, as they are at one moment. `below`: also the last
    /// entry up to this ID.
    ///
    /// # Errors
    /// Those of Redis, or the field that no reader wrote.
    pub async fn observe(
        &self,
        connection: &mut Connection,
        below: Option<StreamId>,
    ) -> Result<(Observed, Option<u32>, Option<StreamId>), RecordFault> {
        let mut transaction = Transaction::new();
        let info = transaction.add(XInfoStream::new(&self.stream));
        let fields = transaction.add(cmd::<Frame>("HGETALL").arg(&self.key));
        let mut replies = connection.exec(&transaction).await?;
        let (stream, last_entry) = match replies.take(info) {
            Ok(info) => {
                let last = info.last_entry().filter(|entry| entry.id == info.last_generated_id).and_then(ours);
                (Some(state(&info)), last)
            }
            Err(error) if error.kind() == ErrorKind::NoSuchKey => (None, None),
            Err(error) => return Err(error.into()),
        };
        let loaded = loaded(&replies.take(fields)?)?;
        let first_is_ours = match &loaded.manifest.guard {
            Some(guard) => {
                let first = StreamId { ms: guard.generation, seq: guard.first };
                let last = stream.map_or(StreamId::ZERO, |stream: StreamState| stream.last_id);
                let entries = connection.send(&XRange::new(&self.stream, first..=last.max(first)).count(1)).await?;
                entries.first().map(|entry| ours(entry).is_some())
            }
            None => None,
        };
        let below = match below {
            Some(id) => {
                let entries = connection.send(&XRevRange::new(&self.stream, ..=id).count(1)).await?;
                entries.first().map(|entry| entry.id)
            }
            None => None,
        };
        let Loaded { manifest: record, guard: guard_field, partitions } = loaded;
        Ok((Observed { record, guard_field, stream, first_is_ours, last_entry }, partitions, below))
    }

    /// Changes the record, if it is what the change expects. `extra`: fields that are set with it.
    ///
    /// # Errors
    /// Those of Redis, or the field that no reader wrote.
    pub async fn change(
        &self,
        connection: &mut Connection,
        change: &Change,
        extra: &[(&str, String)],
    ) -> Result<bool, RecordFault> {
        connection.send(&cmd::<()>("WATCH").arg(&self.key)).await?;
        let present = self.load(connection).await?;
        let Fields { gone, set } =
            change.fields().map_err(|error| RecordError { field: "next".to_owned(), why: error.to_string() })?;
        if !present.manifest.same_generations(&change.before) || present.guard != change.guard {
            connection.send(&cmd::<()>("UNWATCH")).await?;
            return Ok(false);
        }
        let mut transaction = Transaction::new();
        if !gone.is_empty() {
            transaction.add(gone.iter().fold(cmd::<Frame>("HDEL").arg(&self.key), resp::Cmd::arg));
        }
        let set = set.iter().map(|(field, value)| (field.as_str(), value.as_slice()));
        let extra = extra.iter().map(|(field, value)| (*field, value.as_bytes()));
        let mut all = set.chain(extra).peekable();
        if all.peek().is_some() {
            transaction.add(
                all.fold(cmd::<Frame>("HSET").arg(&self.key), |command, (field, value)| command.arg(field).arg(value)),
            );
        }
        if transaction.is_empty() {
            connection.send(&cmd::<()>("UNWATCH")).await?;
            return Ok(true);
        }
        match connection.exec(&transaction).await {
            Ok(replies) => replies.check().map(|()| true).map_err(RecordFault::from),
            Err(error) if error.kind() == ErrorKind::WatchFailed => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

/// Redis's time, in milliseconds since the epoch.
///
/// # Errors
/// Those of Redis.
pub async fn time(connection: &mut Connection) -> Result<u64, Error> {
    let frame = connection.send(&cmd::<Frame>("TIME")).await?;
    let mut time = frame.value().children().map(|value| value.as_u64().unwrap_or(0));
    let (seconds, micros) = (time.next().unwrap_or(0), time.next().unwrap_or(0));
    Ok(seconds.saturating_mul(1000).saturating_add(micros / 1000))
}

/// The state of a stream.
#[must_use]
pub fn state(info: &resp::streams::StreamInfo) -> StreamState {
    StreamState {
        last_id: info.last_generated_id,
        len: info.length,
        added: info.entries_added,
        oldest: info.first_entry().map(|entry| entry.id.ms),
    }
}

/// What the reply to `HGETALL` says.
fn loaded(reply: &Frame) -> Result<Loaded, RecordError> {
    let manifest = Manifest::from_fields(fields(reply))?;
    let guard = fields(reply).find(|(name, _)| *name == GUARD_FIELD.as_bytes()).map(|(_, value)| value.to_vec());
    Ok(Loaded { manifest, guard, partitions: begun_with(fields(reply))? })
}

/// Names and values of a record, from the reply to `HGETALL`.
pub fn fields(reply: &Frame) -> impl Iterator<Item = (&[u8], &[u8])> {
    reply.value().pairs().filter_map(|(name, value)| Some((name.as_bytes()?, value.as_bytes()?)))
}

/// Field and payload of an entry that has the form of ours.
fn ours(entry: Entry<'_>) -> Option<(Field, Vec<u8>)> {
    let mut fields = entry.fields?;
    let (name, payload) = fields.next()?;
    let field = Field::from_name(name)?;
    fields.all(|(name, _)| name == AFTER).then(|| (field, payload.to_vec()))
}
