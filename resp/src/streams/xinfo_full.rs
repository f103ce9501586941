//! `XINFO STREAM … FULL`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;

use super::decode;
use super::entry;
use super::{Entries, XInfoStream};
use crate::{Command, CommandWriter, Error, Frame, StreamId, Value};

/// `XINFO STREAM … FULL`: describes a stream with its entries, groups, consumers and pending
/// entries. Redis 6.0.
///
/// ```no_run
/// # async fn example(connection: &mut resp::Connection) -> Result<(), resp::Error> {
/// use resp::streams::XInfoStream;
///
/// let stream = connection.send(XInfoStream::new("events").full().count(10)).await?;
/// for group in &stream.groups {
///     println!("{:?} has {} consumers", group.name, group.consumers.len());
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct XInfoStreamFull<'a> {
    key: &'a [u8],
    count: Option<u64>,
}

impl<'a> XInfoStream<'a> {
    /// Requests the full form.
    #[must_use]
    pub const fn full(self) -> XInfoStreamFull<'a> {
        XInfoStreamFull { key: self.key, count: None }
    }
}

impl XInfoStreamFull<'_> {
    /// Returns at most this many entries, and pending entries per group and consumer; 10 by
    /// default, 0 for all.
    #[must_use]
    pub const fn count(mut self, entries: u64) -> Self {
        self.count = Some(entries);
        self
    }
}

/// The reply to [`XInfoStreamFull`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct FullStreamInfo {
    /// The number of entries.
    pub length: u64,
    /// The largest ID of any entry so far.
    pub last_generated_id: StreamId,
    /// The largest ID of a deleted entry. Redis 7.0.
    pub max_deleted_entry_id: Option<StreamId>,
    /// The number of entries ever added. Redis 7.0.
    pub entries_added: Option<u64>,
    /// The first entries.
    pub entries: Entries,
    /// The consumer groups.
    pub groups: Vec<FullGroupInfo>,
}

/// A consumer group in the reply to [`XInfoStreamFull`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FullGroupInfo {
    /// The group's name.
    pub name: Bytes,
    /// The last delivered ID.
    pub last_delivered_id: StreamId,
    /// The number of entries ever delivered; `None` if the server does not know, or is older than
    /// Redis 7.0.
    pub entries_read: Option<u64>,
    /// The number of entries that are not delivered yet; `None` if the server does not know, or is
    /// older than Redis 7.0.
    pub lag: Option<u64>,
    /// The number of pending entries.
    pub pending: u64,
    /// The first pending entries.
    pub pending_entries: Vec<FullPendingEntry>,
    /// The group's consumers.
    pub consumers: Vec<FullConsumerInfo>,
}

/// A consumer in the reply to [`XInfoStreamFull`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FullConsumerInfo {
    /// The consumer's name.
    pub name: Bytes,
    /// When the consumer last tried to read or claim.
    pub seen: SystemTime,
    /// When the consumer last got an entry; `None` if it never did, or the server is older than
    /// Redis 7.2.
    pub active: Option<SystemTime>,
    /// The number of pending entries.
    pub pending: u64,
    /// The first pending entries.
    pub pending_entries: Vec<FullPendingEntry>,
}

/// A pending entry in the reply to [`XInfoStreamFull`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FullPendingEntry {
    /// The entry's ID.
    pub id: StreamId,
    /// The consumer; `None` in a consumer's own list.
    pub consumer: Option<Bytes>,
    /// When it was last delivered.
    pub delivered: SystemTime,
    /// The number of deliveries.
    pub deliveries: u64,
}

impl Command for XInfoStreamFull<'_> {
    type Reply = FullStreamInfo;

    fn name(&self) -> &str {
        "XINFO STREAM"
    }

    fn key(&self) -> Option<&[u8]> {
        Some(self.key)
    }

    #[expect(clippy::arithmetic_side_effects, reason = "the counts are of arguments in memory")]
    fn encode(&self, out: &mut CommandWriter<'_>) {
        out.command("XINFO", 3 + 2 * usize::from(self.count.is_some()));
        out.arg("STREAM");
        out.arg(self.key);
        out.arg("FULL");
        if let Some(count) = self.count {
            out.arg("COUNT");
            out.arg_int(count);
        }
    }

    fn decode(frame: Frame) -> Result<FullStreamInfo, Error> {
        let map = frame.value();
        let mut index = Vec::new();
        entry::index(&frame, list(map, b"entries")?, &mut index)?;
        let groups = list(map, b"groups")?.map(|map| group(&frame, map)).collect::<Result<_, _>>()?;
        Ok(FullStreamInfo {
            length: decode::number(map, "length")?,
            last_generated_id: required_id(map, "last-generated-id")?,
            max_deleted_entry_id: decode::optional_id(map, "max-deleted-entry-id"),
            entries_added: decode::optional_number(map, "entries-added"),
            groups,
            entries: Entries::from_index(frame, index),
        })
    }
}

/// Returns the elements of a list member; none if it is missing.
fn list<'a>(map: Value<'a>, name: &[u8]) -> Result<impl Iterator<Item = Value<'a>>, Error> {
    let list = map.get(name).map(decode::list).transpose()?;
    Ok(list.into_iter().flatten())
}

fn required_id(map: Value<'_>, name: &str) -> Result<StreamId, Error> {
    decode::optional_id(map, name).ok_or_else(|| decode::missing(map, name))
}

fn time(millis: u64) -> SystemTime {
    UNIX_EPOCH.checked_add(Duration::from_millis(millis)).unwrap_or(UNIX_EPOCH)
}

fn group(frame: &Frame, map: Value<'_>) -> Result<FullGroupInfo, Error> {
    Ok(FullGroupInfo {
        name: decode::bytes(frame, map, "name")?,
        last_delivered_id: required_id(map, "last-delivered-id")?,
        entries_read: decode::optional_number(map, "entries-read"),
        lag: decode::optional_number(map, "lag"),
        pending: decode::number(map, "pel-count")?,
        pending_entries: pending(frame, map)?,
        consumers: list(map, b"consumers")?.map(|map| consumer(frame, map)).collect::<Result<_, _>>()?,
    })
}

fn consumer(frame: &Frame, map: Value<'_>) -> Result<FullConsumerInfo, Error> {
    Ok(FullConsumerInfo {
        name: decode::bytes(frame, map, "name")?,
        seen: time(decode::number(map, "seen-time")?),
        active: decode::optional_number(map, "active-time").map(time),
        pending: decode::number(map, "pel-count")?,
        pending_entries: pending(frame, map)?,
    })
}

/// Returns the pending entries of a consumer (`pending`) or a group (`pel`, with the consumer's
/// name in second place).
fn pending(frame: &Frame, map: Value<'_>) -> Result<Vec<FullPendingEntry>, Error> {
    let one = |entry: Value<'_>| {
        let mut parts = entry.children();
        let id = parts.next().and_then(Value::as_bytes).and_then(StreamId::parse)?;
        let consumer = if parts.len() == 3 { Some(frame.slice(parts.next()?)) } else { None };
        let delivered = time(parts.next()?.as_u64()?);
        Some(FullPendingEntry { id, consumer, delivered, deliveries: parts.next()?.as_u64()? })
    };
    list(map, b"pel")?
        .chain(list(map, b"pending")?)
        .map(|entry| one(entry).ok_or_else(|| Error::unexpected_reply("a pending entry", entry)))
        .collect()
}
