//! `XREAD`.

use super::StreamEntries;
use crate::{BlockTimeout, Blocking, Command, CommandWriter, Error, Frame, FromReply, Routing, StreamId};

/// Where [`XRead`] starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadFrom {
    /// Entries with larger IDs than this one; [`StreamId::ZERO`] for all.
    After(StreamId),
    /// `$`: entries that are added from now on; only useful with BLOCK.
    New,
    /// `+`: the last entry. Redis 7.4.
    Last,
}

impl From<StreamId> for ReadFrom {
    fn from(id: StreamId) -> Self {
        Self::After(id)
    }
}

/// `XREAD`: reads entries from one or several streams. Redis 5.0.
///
/// ```no_run
/// # async fn example(connection: &mut resp::Connection) -> Result<(), resp::Error> {
/// use std::time::Duration;
/// use resp::streams::{ReadFrom, XRead};
/// use resp::BlockTimeout;
///
/// let read = XRead::new("events", ReadFrom::New).count(10).block(BlockTimeout::For(Duration::from_secs(1)));
/// for entry in &connection.send_blocking(&read).await? {
///     println!("{entry:?}");
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct XRead<'a> {
    first: (&'a [u8], ReadFrom),
    more: Vec<(&'a [u8], ReadFrom)>,
    count: Option<u64>,
    max_count: Option<u64>,
    max_size: Option<u64>,
    block: Option<BlockTimeout>,
}

impl<'a> XRead<'a> {
    /// Reads one stream.
    pub fn new(key: &'a (impl AsRef<[u8]> + ?Sized), from: impl Into<ReadFrom>) -> Self {
        Self {
            first: (key.as_ref(), from.into()),
            more: Vec::new(),
            count: None,
            max_count: None,
            max_size: None,
            block: None,
        }
    }

    /// Reads another stream too.
    #[must_use]
    pub fn and(mut self, key: &'a (impl AsRef<[u8]> + ?Sized), from: impl Into<ReadFrom>) -> Self {
        self.more.push((key.as_ref(), from.into()));
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

    /// Blocks in the server until there is an entry.
    #[must_use]
    pub fn block(mut self, block: BlockTimeout) -> Blocking<Self> {
        self.block = Some(block);
        Blocking::new(self, block)
    }
}

impl Command for XRead<'_> {
    type Reply = StreamEntries;

    fn name(&self) -> &str {
        "XREAD"
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
        let pairs = [self.count.is_some(), self.max_count.is_some(), self.max_size.is_some(), self.block.is_some()];
        let options = 2 * pairs.iter().filter(|set| **set).count();
        out.command("XREAD", options + 1 + 2 * (1 + self.more.len()));
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
        out.arg("STREAMS");
        for (key, _) in streams() {
            out.arg(key);
        }
        for (_, from) in streams() {
            match from {
                ReadFrom::After(id) => out.arg_id(*id),
                ReadFrom::New => out.arg("$"),
                ReadFrom::Last => out.arg("+"),
            }
        }
    }

    fn decode(frame: Frame) -> Result<StreamEntries, Error> {
        StreamEntries::from_frame(frame)
    }
}
