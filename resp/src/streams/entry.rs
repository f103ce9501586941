//! Entries of a stream in a reply, borrowed or shared. Most stream commands return them.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;

use crate::{Error, Frame, FromReply, StreamId, Value, ValueKind, ValuePairs};

/// One entry of a stream. It borrows from the reply; [`Entries::share`] returns a part as
/// [`Bytes`].
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct Entry<'a> {
    /// The entry's ID.
    pub id: StreamId,
    /// The ID as received.
    pub id_bytes: &'a [u8],
    /// Fields and values in order; `None` if the entry was deleted while it was pending.
    pub fields: Option<Fields<'a>>,
    /// The time since the last delivery; only with `XREADGROUP … CLAIM`.
    pub idle: Option<Duration>,
    /// The number of deliveries; only with `XREADGROUP … CLAIM`.
    pub deliveries: Option<u64>,
}

impl<'a> Entry<'a> {
    /// Returns the value of a field; the first one if the field is repeated.
    #[must_use]
    #[inline]
    pub fn field(&self, name: &[u8]) -> Option<&'a [u8]> {
        self.fields?.get(name)
    }
}

impl fmt::Debug for Entry<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}", self.id, self.fields)
    }
}

/// The fields and values of an entry in order, including repeated ones.
#[derive(Clone, Copy)]
pub struct Fields<'a>(ValuePairs<'a>);

impl<'a> Fields<'a> {
    /// Returns the value of a field; the first one if the field is repeated.
    #[must_use]
    #[inline]
    pub fn get(mut self, name: &[u8]) -> Option<&'a [u8]> {
        self.find(|(field, _)| *field == name).map(|(_, value)| value)
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = (&'a [u8], &'a [u8]);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let (field, value) = self.0.next()?;
        Some((field.as_bytes()?, value.as_bytes()?))
    }

    #[inline]
    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.size_hint()
    }
}

impl ExactSizeIterator for Fields<'_> {}

impl fmt::Debug for Fields<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The position of an entry in its frame, with the parsed ID.
#[derive(Clone, Copy, Debug)]
pub(super) struct EntryAt {
    id: StreamId,
    /// The index of the entry's array on the tape.
    place: u32,
}

/// Validates entries and records their positions, so that iterating over them cannot fail.
pub(super) fn index<'a>(
    frame: &Frame,
    entries: impl Iterator<Item = Value<'a>>,
    index: &mut Vec<EntryAt>,
) -> Result<(), Error> {
    index.reserve(entries.size_hint().0);
    for entry in entries {
        let Some(id) = check(entry) else {
            // XCLAIM of Redis before 7.0 returns null for a deleted entry.
            if entry.is_null() {
                continue;
            }
            return Err(Error::unexpected_reply("a stream entry", entry));
        };
        index.push(EntryAt { id, place: frame.place_of(entry) });
    }
    Ok(())
}

/// Returns the ID of a valid entry: `[id, fields]` or `[id, null]`, optionally with idle time and
/// delivery count.
#[inline]
fn check(entry: Value<'_>) -> Option<StreamId> {
    let mut children = entry.children();
    let id = StreamId::parse(children.next()?.as_bytes()?)?;
    let fields = children.next()?;
    let paired = match fields.kind() {
        ValueKind::Null => true,
        ValueKind::Array | ValueKind::Map => {
            fields.children().len() % 2 == 0 && fields.children().all(|part| part.as_bytes().is_some())
        }
        _ => false,
    };
    paired.then_some(id)
}

/// Entries of one stream, borrowed from a reply.
#[derive(Clone, Copy)]
pub struct EntrySlice<'a> {
    frame: &'a Frame,
    index: &'a [EntryAt],
}

impl<'a> EntrySlice<'a> {
    pub(super) const fn new(frame: &'a Frame, index: &'a [EntryAt]) -> Self {
        Self { frame, index }
    }

    /// Returns the number of entries.
    #[must_use]
    #[inline]
    pub const fn len(self) -> usize {
        self.index.len()
    }

    /// Returns whether there are no entries.
    #[must_use]
    #[inline]
    pub const fn is_empty(self) -> bool {
        self.index.is_empty()
    }

    /// Returns the entry at an index.
    #[must_use]
    pub fn get(self, position: usize) -> Option<Entry<'a>> {
        self.index.get(position).map(|at| entry(self.frame, at))
    }

    /// Returns the first entry.
    #[must_use]
    pub fn first(self) -> Option<Entry<'a>> {
        self.get(0)
    }

    /// Returns the last entry.
    #[must_use]
    pub fn last(self) -> Option<Entry<'a>> {
        self.get(self.len().checked_sub(1)?)
    }

    /// Iterates over the entries in order.
    #[must_use]
    pub fn iter(self) -> EntryIter<'a> {
        EntryIter { frame: self.frame, index: self.index.iter() }
    }

    /// Iterates over the IDs in order, without parsing the fields.
    pub fn ids(self) -> impl ExactSizeIterator<Item = StreamId> + DoubleEndedIterator + Clone + 'a {
        self.index.iter().map(|at| at.id)
    }
}

impl<'a> IntoIterator for EntrySlice<'a> {
    type Item = Entry<'a>;
    type IntoIter = EntryIter<'a>;

    fn into_iter(self) -> EntryIter<'a> {
        self.iter()
    }
}

impl fmt::Debug for EntrySlice<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// Iterates over entries in order.
#[derive(Clone)]
pub struct EntryIter<'a> {
    frame: &'a Frame,
    index: std::slice::Iter<'a, EntryAt>,
}

impl<'a> Iterator for EntryIter<'a> {
    type Item = Entry<'a>;

    #[inline]
    fn next(&mut self) -> Option<Entry<'a>> {
        self.index.next().map(|at| entry(self.frame, at))
    }

    #[inline]
    fn size_hint(&self) -> (usize, Option<usize>) {
        self.index.size_hint()
    }
}

impl DoubleEndedIterator for EntryIter<'_> {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.index.next_back().map(|at| entry(self.frame, at))
    }
}

impl ExactSizeIterator for EntryIter<'_> {}

impl fmt::Debug for EntryIter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.clone()).finish()
    }
}

#[inline]
fn entry<'a>(frame: &'a Frame, at: &EntryAt) -> Entry<'a> {
    let mut children = frame.value_at(at.place).children();
    let id_bytes = children.next().and_then(Value::as_bytes).unwrap_or_default();
    let fields = children.next().filter(|fields| !fields.is_null()).map(|fields| Fields(fields.pairs()));
    let idle = children.next().and_then(Value::as_u64).map(Duration::from_millis);
    let deliveries = children.next().and_then(Value::as_u64);
    Entry { id: at.id, id_bytes, fields, idle, deliveries }
}

/// The entries of a reply.
///
/// They share the read buffer, and iterating over them allocates nothing.
///
/// ```no_run
/// # async fn example(connection: &mut resp::Connection) -> Result<(), resp::Error> {
/// use resp::streams::XRange;
///
/// let entries = connection.send(XRange::new("events", ..).count(100)).await?;
/// for entry in &entries {
///     println!("{} {:?}", entry.id, entry.field(b"type"));
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Entries {
    frame: Frame,
    index: Vec<EntryAt>,
}

impl Entries {
    pub(super) const fn from_index(frame: Frame, index: Vec<EntryAt>) -> Self {
        Self { frame, index }
    }

    /// Returns a view that can be copied.
    #[must_use]
    #[inline]
    pub fn as_slice(&self) -> EntrySlice<'_> {
        EntrySlice::new(&self.frame, &self.index)
    }

    /// Returns the number of entries.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.index.len()
    }

    /// Returns whether there are no entries.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// Returns the entry at an index.
    #[must_use]
    pub fn get(&self, position: usize) -> Option<Entry<'_>> {
        self.as_slice().get(position)
    }

    /// Returns the first entry.
    #[must_use]
    pub fn first(&self) -> Option<Entry<'_>> {
        self.as_slice().first()
    }

    /// Returns the last entry.
    #[must_use]
    pub fn last(&self) -> Option<Entry<'_>> {
        self.as_slice().last()
    }

    /// Iterates over the entries in order.
    #[must_use]
    pub fn iter(&self) -> EntryIter<'_> {
        self.as_slice().iter()
    }

    /// Iterates over the IDs in order.
    pub fn ids(&self) -> impl ExactSizeIterator<Item = StreamId> + DoubleEndedIterator + Clone + '_ {
        self.as_slice().ids()
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

/// Accepts an array of entries, or null for none.
impl FromReply for Entries {
    fn from_value(value: Value<'_>, frame: &Frame) -> Result<Self, Error> {
        Self::from_frame(frame.extract(value))
    }

    fn from_frame(frame: Frame) -> Result<Self, Error> {
        let list = frame.value();
        if !matches!(list.kind(), ValueKind::Array | ValueKind::Null) {
            return Err(Error::unexpected_reply("an array of stream entries", list));
        }
        let mut places = Vec::new();
        index(&frame, list.children(), &mut places)?;
        Ok(Self { frame, index: places })
    }
}

impl<'a> IntoIterator for &'a Entries {
    type Item = Entry<'a>;
    type IntoIter = EntryIter<'a>;

    fn into_iter(self) -> EntryIter<'a> {
        self.iter()
    }
}

impl fmt::Debug for Entries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_slice().fmt(f)
    }
}
