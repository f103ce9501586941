//! `XREAD`.

use super::StreamEntries;
use super::read::Read;
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
pub struct XRead<'a>(Read<'a, ReadFrom>);

impl<'a> XRead<'a> {
    /// Reads one stream.
    pub fn new(key: &'a (impl AsRef<[u8]> + ?Sized), from: impl Into<ReadFrom>) -> Self {
        Self(Read::new(key.as_ref(), from.into()))
    }

    /// Reads another stream too.
    #[must_use]
    pub fn and(mut self, key: &'a (impl AsRef<[u8]> + ?Sized), from: impl Into<ReadFrom>) -> Self {
        self.0.and(key.as_ref(), from.into());
        self
    }

    /// Returns at most this many entries per stream.
    #[must_use]
    pub const fn count(mut self, entries: u64) -> Self {
        self.0.count = Some(entries);
        self
    }

    /// Returns at most this many entries of all streams together (`MAXCOUNT`). Redis 8.10.
    #[must_use]
    pub const fn max_count(mut self, entries: u64) -> Self {
        self.0.max_count = Some(entries);
        self
    }

    /// Limits the reply to about this many bytes, but at least one entry (`MAXSIZE`). Redis 8.10.
    #[must_use]
    pub const fn max_size(mut self, bytes: u64) -> Self {
        self.0.max_size = Some(bytes);
        self
    }

    /// Blocks in the server until there is an entry.
    #[must_use]
    pub fn block(mut self, block: BlockTimeout) -> Blocking<Self> {
        self.0.block = Some(block);
        Blocking::new(self, block)
    }
}

impl Command for XRead<'_> {
    type Reply = StreamEntries;

    fn name(&self) -> &str {
        "XREAD"
    }

    fn key(&self) -> Option<&[u8]> {
        Some(self.0.key())
    }

    fn routing(&self) -> Routing {
        self.0.routing()
    }

    fn encode(&self, out: &mut CommandWriter<'_>) {
        out.command("XREAD", self.0.args());
        self.0.encode_limits(out);
        self.0.encode_streams(out, |from, out| match from {
            ReadFrom::After(id) => out.arg_id(id),
            ReadFrom::New => out.arg("$"),
            ReadFrom::Last => out.arg("+"),
        });
    }

    fn is_shareable(&self) -> bool {
        self.0.block.is_none()
    }

    fn decode(frame: Frame) -> Result<StreamEntries, Error> {
        StreamEntries::from_frame(frame)
    }
}
