use bytes::Bytes;

use crate::StreamId;
use crate::streams::{Entries, EntryIter, EntrySlice, StreamEntries};

/// Why a consumer has the entries of a [`EntryBatch`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BatchOrigin {
    /// It had them before, and has not acknowledged them: before it was started, or before it had
    /// to connect again.
    Pending,
    /// They had been pending for too long, mostly with another consumer, and were taken over.
    Claimed,
    /// Nobody in the group has had them.
    New,
}

/// Some entries that a [`Consumer`](super::Consumer) got. They lie in the read buffer as they came.
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

    /// Why the consumer has them.
    #[must_use]
    pub const fn origin(&self) -> BatchOrigin {
        self.origin
    }

    /// The entries in order. One without fields was deleted while it was pending: acknowledge it.
    #[must_use]
    pub fn entries(&self) -> EntrySlice<'_> {
        match &self.reply {
            Reply::Read(reply) => reply.entries(),
            Reply::Claimed(entries) => entries.as_slice(),
        }
    }

    /// The entries' IDs in order.
    pub fn ids(&self) -> impl ExactSizeIterator<Item = StreamId> + DoubleEndedIterator + Clone + '_ {
        self.entries().ids()
    }

    /// A part of an entry as a [`Bytes`] that shares the read buffer.
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
