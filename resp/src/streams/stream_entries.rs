//! Replies to `XREAD` and `XREADGROUP`.

use std::fmt;
use std::ops::Range;

use bytes::Bytes;

use super::entry::{self, EntryAt, EntryIter, EntrySlice};
use crate::{Error, Frame, FromReply, StreamId, Value, ValueKind};

/// The reply to `XREAD` and `XREADGROUP`: entries of one or several streams.
///
/// A null reply is empty. The entries share the read buffer, and iterating over them allocates
/// nothing.
///
/// ```no_run
/// # async fn example(connection: &mut resp::Connection) -> Result<(), resp::Error> {
/// use resp::streams::{GroupFrom, XReadGroup};
///
/// let read = XReadGroup::new("events", "workers", "me", GroupFrom::New).count(1000);
/// let reply = connection.send(&read).await?;
/// for entry in reply.entries() {
///     match entry.fields {
///         Some(fields) => println!("{}: {:?}", entry.id, fields.get(b"type")),
///         None => println!("{} was deleted while it was pending", entry.id),
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct StreamEntries {
    frame: Frame,
    index: Vec<EntryAt>,
    streams: Vec<StreamAt>,
}

/// The key of a stream, and the positions of its entries.
#[derive(Clone)]
struct StreamAt {
    key: u32,
    entries: Range<usize>,
}

impl StreamEntries {
    /// Returns the number of entries in all streams.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.index.len()
    }

    /// Returns whether there are no entries.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// Iterates over streams with their entries, in the server's order. The server may omit streams
    /// without entries.
    pub fn streams(&self) -> impl ExactSizeIterator<Item = (&[u8], EntrySlice<'_>)> + '_ {
        self.streams.iter().map(|stream| {
            let key = self.frame.value_at(stream.key).as_bytes().unwrap_or_default();
            let index = self.index.get(stream.entries.clone()).unwrap_or_default();
            (key, EntrySlice::new(&self.frame, index))
        })
    }

    /// Returns the entries of all streams, one stream after the other. Convenient for a single
    /// stream.
    #[must_use]
    #[inline]
    pub fn entries(&self) -> EntrySlice<'_> {
        EntrySlice::new(&self.frame, &self.index)
    }

    /// Iterates over the IDs of [`entries`](Self::entries).
    pub fn ids(&self) -> impl ExactSizeIterator<Item = StreamId> + DoubleEndedIterator + Clone + '_ {
        self.entries().ids()
    }

    /// Returns a part of an entry as [`Bytes`] that share the read buffer: see [`Frame::share`].
    #[must_use]
    pub fn share(&self, part: &[u8]) -> Bytes {
        self.frame.share(part)
    }

    /// Returns the reply.
    #[must_use]
    pub fn into_frame(self) -> Frame {
        self.frame
    }
}

/// Accepts the reply to `XREAD` and `XREADGROUP`.
impl FromReply for StreamEntries {
    fn from_value(value: Value<'_>, frame: &Frame) -> Result<Self, Error> {
        Self::from_frame(frame.extract(value))
    }

    fn from_frame(frame: Frame) -> Result<Self, Error> {
        let mut index = Vec::new();
        let mut streams = Vec::new();
        let reply = frame.value();
        let mut add = |key: Value<'_>, entries: Value<'_>| {
            if key.as_bytes().is_none() || !matches!(entries.kind(), ValueKind::Array | ValueKind::Null) {
                return Err(Error::unexpected_reply("a stream's key and its entries", entries));
            }
            let start = index.len();
            entry::index(&frame, entries.children(), &mut index)?;
            streams.push(StreamAt { key: frame.place_of(key), entries: start..index.len() });
            Ok(())
        };
        match reply.kind() {
            ValueKind::Null => {}
            ValueKind::Map => {
                for (key, entries) in reply.pairs() {
                    add(key, entries)?;
                }
            }
            ValueKind::Array => {
                for stream in reply.children() {
                    match (stream.children().next(), stream.children().nth(1)) {
                        (Some(key), Some(entries)) => add(key, entries)?,
                        _ => return Err(Error::unexpected_reply("a stream's key and its entries", stream)),
                    }
                }
            }
            _ => return Err(Error::unexpected_reply("streams with their entries", reply)),
        }
        Ok(Self { frame, index, streams })
    }
}

impl<'a> IntoIterator for &'a StreamEntries {
    type Item = super::Entry<'a>;
    type IntoIter = EntryIter<'a>;

    fn into_iter(self) -> EntryIter<'a> {
        self.entries().iter()
    }
}

impl fmt::Debug for StreamEntries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.streams().map(|(key, entries)| (key.escape_ascii().to_string(), entries))).finish()
    }
}
