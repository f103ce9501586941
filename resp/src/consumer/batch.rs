//! Entries that a consumer got at once, and why.

use bytes::Bytes;

use crate::StreamId;
use crate::streams::{Entries, EntryIter, EntrySlice, StreamEntries};

/// Why a consumer got the entries of an [`EntryBatch`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BatchOrigin {
    /// They were pending with this consumer: it got them before a restart or a reconnect, and has
    /// not acknowledged them.
    Pending,
    /// They were pending for too long, usually with another consumer, and this one claimed them.
    Claimed,
    /// No consumer of the group has had them.
    New,
}

/// Entries that a [`Consumer`](super::Consumer) read. They borrow from the read buffer.
#[derive(Clone, Debug)]
pub struct EntryBatch {
    origin: BatchOrigin,
    reply: Reply,
}

#[derive(Clone, Debug)]
enum Reply {
    Read(StreamEntries),
    Claimed(Entries),
}

impl EntryBatch {
    pub(super) const fn read(origin: BatchOrigin, reply: StreamEntries) -> Self {
        Self { origin, reply: Reply::Read(reply) }
    }

    pub(super) const fn claimed(entries: Entries) -> Self {
        Self { origin: BatchOrigin::Claimed, reply: Reply::Claimed(entries) }
    }

    /// Returns why the consumer got them.
    #[must_use]
    pub const fn origin(&self) -> BatchOrigin {
        self.origin
    }

    /// Returns the entries in order. An entry without fields was deleted while it was pending:
    /// acknowledge it.
    #[must_use]
    pub fn entries(&self) -> EntrySlice<'_> {
        match &self.reply {
            Reply::Read(reply) => reply.entries(),
            Reply::Claimed(entries) => entries.as_slice(),
        }
    }

    /// Returns the IDs in order.
    pub fn ids(&self) -> impl ExactSizeIterator<Item = StreamId> + DoubleEndedIterator + Clone + '_ {
        self.entries().ids()
    }

    /// Returns a part of an entry as [`Bytes`] that share the read buffer.
    #[must_use]
    pub fn share(&self, part: &[u8]) -> Bytes {
        match &self.reply {
            Reply::Read(reply) => reply.share(part),
            Reply::Claimed(entries) => entries.share(part),
        }
    }
}

impl<'a> IntoIterator for &'a EntryBatch {
    type Item = crate::streams::Entry<'a>;
    type IntoIter = EntryIter<'a>;

    fn into_iter(self) -> EntryIter<'a> {
        self.entries().iter()
    }
}
