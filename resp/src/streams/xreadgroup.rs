//! `XREADGROUP`.

use std::time::Duration;

use super::StreamEntries;
use super::read::Read;
use crate::{BlockTimeout, Blocking, Command, CommandWriter, Error, Frame, FromReply, Routing, StreamId};

/// Where [`XReadGroup`] starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupFrom {
    /// `>`: entries that were never delivered to a consumer of the group.
    New,
    /// This consumer's pending entries with larger IDs than this one; [`StreamId::ZERO`] for all.
    Pending(StreamId),
}

/// `XREADGROUP`: reads entries as a consumer of a group. Redis 5.0.
///
/// See [`StreamEntries`] for an example. If the group does not exist, the error is
/// [`ErrorKind::NoGroup`](crate::ErrorKind::NoGroup).
#[derive(Clone, Debug)]
pub struct XReadGroup<'a> {
    group: &'a [u8],
    consumer: &'a [u8],
    read: Read<'a, GroupFrom>,
    no_ack: bool,
    claim: Option<Duration>,
}

impl<'a> XReadGroup<'a> {
    /// Reads one stream.
    pub fn new(
        key: &'a (impl AsRef<[u8]> + ?Sized),
        group: &'a (impl AsRef<[u8]> + ?Sized),
        consumer: &'a (impl AsRef<[u8]> + ?Sized),
        from: GroupFrom,
    ) -> Self {
        Self {
            group: group.as_ref(),
            consumer: consumer.as_ref(),
            read: Read::new(key.as_ref(), from),
            no_ack: false,
            claim: None,
        }
    }

    /// Reads another stream too.
    #[must_use]
    pub fn and(mut self, key: &'a (impl AsRef<[u8]> + ?Sized), from: GroupFrom) -> Self {
        self.read.and(key.as_ref(), from);
        self
    }

    /// Returns at most this many entries per stream.
    #[must_use]
    pub const fn count(mut self, entries: u64) -> Self {
        self.read.count = Some(entries);
        self
    }

    /// Returns at most this many entries of all streams together (`MAXCOUNT`). Redis 8.10.
    #[must_use]
    pub const fn max_count(mut self, entries: u64) -> Self {
        self.read.max_count = Some(entries);
        self
    }

    /// Limits the reply to about this many bytes, but at least one entry (`MAXSIZE`). Redis 8.10.
    #[must_use]
    pub const fn max_size(mut self, bytes: u64) -> Self {
        self.read.max_size = Some(bytes);
        self
    }

    /// Acknowledges entries on delivery (`NOACK`): entries that get lost on the way are not
    /// delivered again.
    #[must_use]
    pub const fn no_ack(mut self) -> Self {
        self.no_ack = true;
        self
    }

    /// First claims entries that were pending this long with any consumer (`CLAIM`). Redis 8.4.
    #[must_use]
    pub const fn claim(mut self, min_idle: Duration) -> Self {
        self.claim = Some(min_idle);
        self
    }

    /// Blocks in the server until there is an entry. No effect on pending entries.
    #[must_use]
    pub fn block(mut self, block: BlockTimeout) -> Blocking<Self> {
        self.read.block = Some(block);
        Blocking::new(self, block)
    }
}

impl Command for XReadGroup<'_> {
    type Reply = StreamEntries;

    fn name(&self) -> &str {
        "XREADGROUP"
    }

    fn key(&self) -> Option<&[u8]> {
        Some(self.read.key())
    }

    fn routing(&self) -> Routing {
        self.read.routing()
    }

    #[expect(clippy::arithmetic_side_effects, reason = "the counts are of arguments in memory")]
    fn encode(&self, out: &mut CommandWriter<'_>) {
        let options = 2 * usize::from(self.claim.is_some()) + usize::from(self.no_ack);
        out.command("XREADGROUP", 3 + options + self.read.args());
        out.arg("GROUP");
        out.arg(self.group);
        out.arg(self.consumer);
        self.read.encode_limits(out);
        if let Some(min_idle) = self.claim {
            out.arg("CLAIM");
            out.arg_int(super::millis(min_idle));
        }
        if self.no_ack {
            out.arg("NOACK");
        }
        self.read.encode_streams(out, |from, out| match from {
            GroupFrom::New => out.arg(">"),
            GroupFrom::Pending(id) => out.arg_id(id),
        });
    }

    fn is_shareable(&self) -> bool {
        self.read.block.is_none()
    }

    fn decode(frame: Frame) -> Result<StreamEntries, Error> {
        StreamEntries::from_frame(frame)
    }
}
