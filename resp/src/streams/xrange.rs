//! `XRANGE`.

use std::ops::RangeBounds;

use super::Entries;
use super::range::RangeRead;
use crate::{Command, CommandWriter, Error, Frame, FromReply, StreamId};

/// `XRANGE`: the entries in a range of IDs, in order. Redis 5.0.
///
/// The range is one of Rust's. Exclusive ends (`a..b`) need Redis 6.2.
///
/// ```no_run
/// # async fn example(connection: &mut resp::Connection) -> Result<(), resp::Error> {
/// use resp::StreamId;
/// use resp::streams::XRange;
///
/// let all = connection.send(XRange::new("events", ..)).await?;
/// let some = connection.send(XRange::new("events", StreamId::new(7, 0)..=StreamId::new(8, 0)).count(10)).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct XRange<'a>(RangeRead<'a>);

impl<'a> XRange<'a> {
    /// Reads a range of a stream.
    pub fn new(key: &'a (impl AsRef<[u8]> + ?Sized), range: impl RangeBounds<StreamId>) -> Self {
        Self(RangeRead::new(key.as_ref(), &range))
    }

    /// Returns at most this many entries.
    #[must_use]
    pub const fn count(mut self, entries: u64) -> Self {
        self.0.count = Some(entries);
        self
    }
}

impl Command for XRange<'_> {
    type Reply = Entries;

    fn name(&self) -> &str {
        "XRANGE"
    }

    fn key(&self) -> Option<&[u8]> {
        Some(self.0.key)
    }

    fn encode(&self, out: &mut CommandWriter<'_>) {
        self.0.encode(self.name(), false, out);
    }

    fn decode(frame: Frame) -> Result<Entries, Error> {
        Entries::from_frame(frame)
    }
}
