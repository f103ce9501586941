//! `XREADGROUP`.

use std::time::Duration;

use super::StreamEntries;
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
    first: (&'a [u8], GroupFrom),
    more: Vec<(&'a [u8], GroupFrom)>,
    count: Option<u64>,
    max_count: Option<u64>,
    max_size: Option<u64>,
    no_ack: bool,
    claim: Option<Duration>,
    block: Option<BlockTimeout>,
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
            first: (key.as_ref(), from),
            more: Vec::new(),
            count: None,
            max_count: None,
            max_size: None,
            no_ack: false,
            claim: None,
            block: None,
        }
    }

    /// Reads another stream too.
    #[must_use]
    pub fn and(mut self, key: &'a (impl AsRef<[u8]> + ?Sized), from: GroupFrom) -> Self {
        self.more.push((key.as_ref(), from));
        self
    }

    /// Returns at most this many entries per stream.
    #[must_use]
    pub const fn count(mut self, entries: u64) -> Self {
        self.count = Some(entries);
        self
    }

    /// Returns at most this many entries of all streams together (`MAXCOUNT`). Redis 8.10.
    #[must_use]
    pub const fn max_count(mut self, entries: u64) -> Self {
        self.max_count = Some(entries);
        self
    }

    /// Limits the reply to about this many bytes, but at least one entry (`MAXSIZE`). Redis 8.10.
    #[must_use]
    pub const fn max_size(mut self, bytes: u64) -> Self {
        self.max_size = Some(bytes);
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
        self.block = Some(block);
        Blocking::new(self, block)
    }
}

impl Command for XReadGroup<'_> {
    type Reply = StreamEntries;

    fn name(&self) -> &str {
        "XREADGROUP"
    }

    fn key(&self) -> Option<&[u8]> {
        Some(self.first.0)
    }

    fn routing(&self) -> Routing {
        Routing::of_keys(std::iter::once(self.first.0).chain(self.more.iter().map(|(key, _)| *key)))
    }

    #[expect(clippy::arithmetic_side_effects, reason = "the counts are of arguments in memory")]
    fn encode(&self, out: &mut CommandWriter<'_>) {
        let streams = || std::iter::once(&self.first).chain(&self.more);
        let pairs = [&self.count, &self.max_count, &self.max_size].map(Option::is_some);
        let pairs = pairs.into_iter().chain([self.block.is_some(), self.claim.is_some()]);
        let options = 2 * pairs.filter(|set| *set).count() + usize::from(self.no_ack);
        out.command("XREADGROUP", 3 + options + 1 + 2 * (1 + self.more.len()));
        out.arg("GROUP");
        out.arg(self.group);
        out.arg(self.consumer);
        if let Some(count) = self.count {
            out.arg("COUNT");
            out.arg_int(count);
        }
        if let Some(entries) = self.max_count {
            out.arg("MAXCOUNT");
            out.arg_int(entries);
        }
        if let Some(bytes) = self.max_size {
            out.arg("MAXSIZE");
            out.arg_int(bytes);
        }
        if let Some(block) = self.block {
            out.arg("BLOCK");
            out.arg_int(block.millis());
        }
        if let Some(min_idle) = self.claim {
            out.arg("CLAIM");
            out.arg_int(super::millis(min_idle));
        }
        if self.no_ack {
            out.arg("NOACK");
        }
        out.arg("STREAMS");
        for (key, _) in streams() {
            out.arg(key);
        }
        for (_, from) in streams() {
            match from {
                GroupFrom::New => out.arg(">"),
                GroupFrom::Pending(id) => out.arg_id(*id),
            }
        }
    }

    fn decode(frame: Frame) -> Result<StreamEntries, Error> {
        StreamEntries::from_frame(frame)
    }
}
