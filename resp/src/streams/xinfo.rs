//! `XINFO STREAM`, `XINFO GROUPS` and `XINFO CONSUMERS`.

use std::time::Duration;

use bytes::Bytes;

use super::decode;
use super::entry;
use super::{Entries, Entry};
use crate::{Command, CommandWriter, Error, Frame, StreamId, Value, ValueKind};

/// `XINFO STREAM`: describes a stream. Redis 5.0.
///
/// If the stream does not exist, the error is
/// [`ErrorKind::NoSuchKey`](crate::ErrorKind::NoSuchKey).
///
/// ```no_run
/// # async fn example(connection: &mut resp::Connection) -> Result<(), resp::Error> {
/// let info = connection.send(resp::streams::XInfoStream::new("events")).await?;
/// println!("{} entries, the last was {}", info.length, info.last_generated_id);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct XInfoStream<'a> {
    pub(super) key: &'a [u8],
}

impl<'a> XInfoStream<'a> {
    /// Describes a stream.
    pub fn new(key: &'a (impl AsRef<[u8]> + ?Sized)) -> Self {
        Self { key: key.as_ref() }
    }
}

/// The reply to [`XInfoStream`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct StreamInfo {
    /// The number of entries.
    pub length: u64,
    /// The largest ID of any entry so far, including removed ones.
    pub last_generated_id: StreamId,
    /// The largest ID of a deleted entry. Redis 7.0.
    pub max_deleted_entry_id: Option<StreamId>,
    /// The number of entries ever added. Redis 7.0.
    pub entries_added: Option<u64>,
    /// The first entry's ID, as recorded by the server. Redis 7.0.
    pub recorded_first_entry_id: Option<StreamId>,
    /// The number of consumer groups.
    pub groups: u64,
    /// The number of keys in the stream's radix tree.
    pub radix_tree_keys: u64,
    /// The number of nodes in the stream's radix tree.
    pub radix_tree_nodes: u64,
    entries: Entries,
    has_first: bool,
    has_last: bool,
}

impl StreamInfo {
    /// The first entry.
    #[must_use]
    pub fn first_entry(&self) -> Option<Entry<'_>> {
        if self.has_first { self.entries.first() } else { None }
    }

    /// The last entry.
    #[must_use]
    pub fn last_entry(&self) -> Option<Entry<'_>> {
        if self.has_last { self.entries.last() } else { None }
    }
}

impl Command for XInfoStream<'_> {
    type Reply = StreamInfo;

    fn name(&self) -> &str {
        "XINFO STREAM"
    }

    fn key(&self) -> Option<&[u8]> {
        Some(self.key)
    }

    fn encode(&self, out: &mut CommandWriter<'_>) {
        out.command("XINFO", 2);
        out.arg("STREAM");
        out.arg(self.key);
    }

    fn decode(frame: Frame) -> Result<StreamInfo, Error> {
        let map = frame.value();
        let named = |name: &[u8]| map.get(name).filter(|entry| !entry.is_null());
        let (first, last) = (named(b"first-entry"), named(b"last-entry"));
        let mut index = Vec::new();
        entry::index(&frame, first.into_iter().chain(last), &mut index)?;
        Ok(StreamInfo {
            length: decode::number(map, "length")?,
            last_generated_id: decode::optional_id(map, "last-generated-id")
                .ok_or_else(|| decode::missing(map, "last-generated-id"))?,
            max_deleted_entry_id: decode::optional_id(map, "max-deleted-entry-id"),
            entries_added: decode::optional_number(map, "entries-added"),
            recorded_first_entry_id: decode::optional_id(map, "recorded-first-entry-id"),
            groups: decode::number(map, "groups")?,
            radix_tree_keys: decode::number(map, "radix-tree-keys")?,
            radix_tree_nodes: decode::number(map, "radix-tree-nodes")?,
            has_first: first.is_some(),
            has_last: last.is_some(),
            entries: Entries::from_index(frame, index),
        })
    }
}

/// `XINFO GROUPS`: lists the consumer groups of a stream. Redis 5.0.
///
/// If the stream does not exist, the error is
/// [`ErrorKind::NoSuchKey`](crate::ErrorKind::NoSuchKey).
///
/// ```no_run
/// # async fn example(connection: &mut resp::Connection) -> Result<(), resp::Error> {
/// for group in connection.send(resp::streams::XInfoGroups::new("events")).await? {
///     println!("{:?}: {} pending, {:?} to come", group.name, group.pending, group.lag);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct XInfoGroups<'a> {
    key: &'a [u8],
}

impl<'a> XInfoGroups<'a> {
    /// Lists the groups of a stream.
    pub fn new(key: &'a (impl AsRef<[u8]> + ?Sized)) -> Self {
        Self { key: key.as_ref() }
    }
}

/// A consumer group in the reply to [`XInfoGroups`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct GroupInfo {
    /// The group's name.
    pub name: Bytes,
    /// The number of consumers.
    pub consumers: u64,
    /// The number of pending entries.
    pub pending: u64,
    /// The last delivered ID.
    pub last_delivered_id: StreamId,
    /// The number of entries ever delivered; `None` if the server does not know, or is older than
    /// Redis 7.0.
    pub entries_read: Option<u64>,
    /// The number of entries that are not delivered yet; `None` if the server does not know, or is
    /// older than Redis 7.0.
    pub lag: Option<u64>,
}

impl Command for XInfoGroups<'_> {
    type Reply = Vec<GroupInfo>;

    fn name(&self) -> &str {
        "XINFO GROUPS"
    }

    fn key(&self) -> Option<&[u8]> {
        Some(self.key)
    }

    fn encode(&self, out: &mut CommandWriter<'_>) {
        out.command("XINFO", 2);
        out.arg("GROUPS");
        out.arg(self.key);
    }

    fn decode(frame: Frame) -> Result<Vec<GroupInfo>, Error> {
        maps(&frame)?
            .map(|map| {
                Ok(GroupInfo {
                    name: decode::bytes(&frame, map, "name")?,
                    consumers: decode::number(map, "consumers")?,
                    pending: decode::number(map, "pending")?,
                    last_delivered_id: decode::optional_id(map, "last-delivered-id")
                        .ok_or_else(|| decode::missing(map, "last-delivered-id"))?,
                    entries_read: decode::optional_number(map, "entries-read"),
                    lag: decode::optional_number(map, "lag"),
                })
            })
            .collect()
    }
}

/// `XINFO CONSUMERS`: lists the consumers of a group. Redis 5.0.
///
/// ```no_run
/// # async fn example(connection: &mut resp::Connection) -> Result<(), resp::Error> {
/// for consumer in connection.send(resp::streams::XInfoConsumers::new("events", "workers")).await? {
///     println!("{:?} has {} pending", consumer.name, consumer.pending);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct XInfoConsumers<'a> {
    key: &'a [u8],
    group: &'a [u8],
}

impl<'a> XInfoConsumers<'a> {
    /// Lists the consumers of a group.
    pub fn new(key: &'a (impl AsRef<[u8]> + ?Sized), group: &'a (impl AsRef<[u8]> + ?Sized)) -> Self {
        Self { key: key.as_ref(), group: group.as_ref() }
    }
}

/// A consumer in the reply to [`XInfoConsumers`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConsumerInfo {
    /// The consumer's name.
    pub name: Bytes,
    /// The number of pending entries.
    pub pending: u64,
    /// The time since the consumer's last attempt to read or claim.
    pub idle: Duration,
    /// The time since the consumer last got an entry; `None` if it never did, or the server is
    /// older than Redis 7.2.
    pub inactive: Option<Duration>,
}

impl Command for XInfoConsumers<'_> {
    type Reply = Vec<ConsumerInfo>;

    fn name(&self) -> &str {
        "XINFO CONSUMERS"
    }

    fn key(&self) -> Option<&[u8]> {
        Some(self.key)
    }

    fn encode(&self, out: &mut CommandWriter<'_>) {
        out.command("XINFO", 3);
        out.arg("CONSUMERS");
        out.arg(self.key);
        out.arg(self.group);
    }

    fn decode(frame: Frame) -> Result<Vec<ConsumerInfo>, Error> {
        maps(&frame)?
            .map(|map| {
                Ok(ConsumerInfo {
                    name: decode::bytes(&frame, map, "name")?,
                    pending: decode::number(map, "pending")?,
                    idle: Duration::from_millis(decode::optional_number(map, "idle").unwrap_or(0)),
                    // -1 means never.
                    inactive: decode::optional_number(map, "inactive").map(Duration::from_millis),
                })
            })
            .collect()
    }
}

/// Returns the elements of an array of maps.
fn maps(frame: &Frame) -> Result<impl Iterator<Item = Value<'_>>, Error> {
    let reply = frame.value();
    if reply.kind() == ValueKind::Array {
        Ok(reply.children())
    } else {
        Err(Error::unexpected_reply("an array of maps", reply))
    }
}
