//! The source record in Redis: the only module that loads, changes and compares the manifest there.
//!
//! The reader resumes from the record and extends it, writers use it to check that partitions
//! agree, and both `check` commands read it. [`delivery::manifest`] defines its meaning.

use delivery::entry::{Field, Further};
use delivery::manifest::{GUARD_FIELD, Manifest, RecordError, begun_with, record_key};
use delivery::producer::resume::{Observed, StreamState};
use delivery::producer::{Change, Fields};
use resp::streams::{Entry, XInfoStream, XRange, XRevRange};
use resp::{Connection, Error, ErrorKind, Frame, StreamId, Transaction, cmd};

use crate::Failure;

/// The source record of a stream.
#[derive(Debug, Clone)]
pub struct SourceRecord {
    /// The stream's key.
    pub stream: String,
    /// The record's key.
    pub key: String,
}

/// The contents of a record.
#[derive(Debug, Clone, Default)]
pub struct Loaded {
    /// The manifest.
    pub manifest: Manifest,
    /// The raw value of the guard field.
    pub guard: Option<Vec<u8>>,
    /// The number of partitions that the source was started with, if the record contains it.
    pub partitions: Option<u32>,
}

/// Why a record cannot be loaded.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RecordFault {
    /// Redis refused a command, or the connection was lost.
    #[error(transparent)]
    Redis(#[from] Error),
    /// A field was not written by a reader.
    #[error(transparent)]
    Unreadable(#[from] RecordError),
}

impl SourceRecord {
    /// The record of this stream.
    #[must_use]
    pub fn of(stream: &str) -> Self {
        Self { stream: stream.to_owned(), key: record_key(stream) }
    }

    /// A configuration error about a record that cannot be parsed.
    #[must_use]
    pub fn unreadable(&self, error: &RecordError) -> Failure {
        let Self { stream, key } = self;
        Failure::config(format!(
            "--stream {stream}: {error}; remove foreign fields from the key {key}, or choose another --stream"
        ))
    }

    /// A configuration error about a key of another type: the stream's or the record's.
    #[must_use]
    pub fn wrong_type(&self, error: &Error) -> Failure {
        let Self { stream, key } = self;
        Failure::config(format!(
            "--stream {stream}: the key {stream} or {key} holds another type ({error}); choose another --stream, or \
             delete the key"
        ))
    }

    /// Loads the record.
    ///
    /// # Errors
    /// Errors from Redis, or a field that was not written by a reader.
    pub async fn load(&self, connection: &mut Connection) -> Result<Loaded, RecordFault> {
        Ok(loaded(&connection.send(&cmd::<Frame>("HGETALL").arg(&self.key)).await?)?)
    }

    /// Loads the record and the state of the stream atomically. With `below`, also finds the last
    /// entry up to this ID that has the form of the reader's entries.
    ///
    /// # Errors
    /// Errors from Redis, or a field that was not written by a reader.
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
                let last = info.last_entry().filter(|entry| entry.id == info.last_generated_id).and_then(as_own);
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
                entries.first().map(|entry| as_own(entry).is_some())
            }
            None => None,
        };
        let below = match below {
            Some(id) => self.last_own(connection, id).await?,
            None => None,
        };
        let Loaded { manifest: record, guard: guard_field, partitions } = loaded;
        Ok((Observed { record, guard_field, stream, first_is_ours, last_entry }, partitions, below))
    }

    /// The last entry up to this ID that has the form of the reader's entries. An entry can have 64
    /// MiB, so they are read one by one.
    async fn last_own(&self, connection: &mut Connection, mut up_to: StreamId) -> Result<Option<StreamId>, Error> {
        loop {
            let entries = connection.send(&XRevRange::new(&self.stream, ..=up_to).count(1)).await?;
            let Some(entry) = entries.first() else { return Ok(None) };
            let id = entry.id;
            if as_own(entry).is_some() {
                return Ok(Some(id));
            }
            let Some(before) = id.previous() else { return Ok(None) };
            up_to = before;
        }
    }

    /// Applies a change if the record is in the state that the change expects. Sets the fields of
    /// `extra` in the same transaction. Returns whether it was applied.
    ///
    /// # Errors
    /// Errors from Redis, or a field that was not written by a reader.
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

/// The clock of the server, in milliseconds since the Unix epoch.
///
/// # Errors
/// Errors from Redis.
pub async fn time(connection: &mut Connection) -> Result<u64, Error> {
    let frame = connection.send(&cmd::<Frame>("TIME")).await?;
    let mut time = frame.value().children().map(|value| value.as_u64().unwrap_or(0));
    let (seconds, micros) = (time.next().unwrap_or(0), time.next().unwrap_or(0));
    Ok(seconds.saturating_mul(1000).saturating_add(micros / 1000))
}

/// The state of a stream, from `XINFO STREAM`.
#[must_use]
pub fn state(info: &resp::streams::StreamInfo) -> StreamState {
    StreamState {
        last_id: info.last_generated_id,
        len: info.length,
        added: info.entries_added,
        oldest: info.first_entry().map(|entry| entry.id.ms),
    }
}

/// Parses the reply to `HGETALL`.
fn loaded(reply: &Frame) -> Result<Loaded, RecordError> {
    let manifest = Manifest::from_fields(fields(reply))?;
    let guard = fields(reply).find(|(name, _)| *name == GUARD_FIELD.as_bytes()).map(|(_, value)| value.to_vec());
    Ok(Loaded { manifest, guard, partitions: begun_with(fields(reply))? })
}

/// Names and values of the fields of a record, from the reply to `HGETALL`.
pub fn fields(reply: &Frame) -> impl Iterator<Item = (&[u8], &[u8])> {
    reply.value().pairs().filter_map(|(name, value)| Some((name.as_bytes()?, value.as_bytes()?)))
}

/// Field and payload of an entry, if it has the format of a reader's entries.
fn as_own(entry: Entry<'_>) -> Option<(Field, Vec<u8>)> {
    let mut fields = entry.fields?;
    let (name, payload) = fields.next()?;
    let field = Field::from_name(name)?;
    let is_own = fields.next().is_none_or(|second| Further::new(second, fields) != Further::Foreign);
    is_own.then(|| (field, payload.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use resp::testing::{Script, ScriptedServer, reply};

    #[tokio::test]
    async fn the_last_own_entry_is_below_those_of_other_programs() {
        let entry = |id: &str, field: &str| {
            let fields = reply::array([reply::bulk(field), reply::bulk("abc")]);
            reply::array([reply::array([reply::bulk(id), fields])])
        };
        let asked = |id: StreamId| XRevRange::new("s", ..=id).count(1);
        let script = Script::new()
            .on(asked(StreamId::new(5, 9)), entry("5-8", "message"))
            .on(asked(StreamId::new(5, 7)), entry("5-0", "message"))
            .on(asked(StreamId::new(4, u64::MAX)), entry("4-7", "line"))
            .on(asked(StreamId::new(4, 6)), reply::array([]));
        let server = ScriptedServer::new([script]);
        let mut connection = Connection::connect(&server.config()).await.unwrap();
        let record = SourceRecord { stream: "s".to_owned(), key: "k".to_owned() };
        let mut last_own = async |id| record.last_own(&mut connection, id).await.unwrap();
        assert_eq!(last_own(StreamId::new(5, 9)).await, Some(StreamId::new(4, 7)));
        assert_eq!(last_own(StreamId::new(4, 6)).await, None);
        server.finish().await.unwrap();
    }
}
