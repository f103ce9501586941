//! `XACK`.

use std::borrow::Borrow;

use super::decode;
use crate::{Command, CommandWriter, Error, Frame, StreamId};

/// `XACK`: acknowledges entries, which are then no longer pending. Redis 5.0.
///
/// The IDs are a slice or an iterator that can be cloned; they are not copied. The reply is how
/// many of them were pending.
///
/// ```no_run
/// # async fn example(connection: &mut resp::Connection) -> Result<(), resp::Error> {
/// use resp::streams::{GroupFrom, XAck, XReadGroup};
///
/// let read = connection.send(XReadGroup::new("events", "workers", "me", GroupFrom::New)).await?;
/// let acknowledged = connection.send(XAck::new("events", "workers", read.ids())).await?;
/// assert_eq!(acknowledged, read.len() as u64);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct XAck<'a, I> {
    key: &'a [u8],
    group: &'a [u8],
    ids: I,
}

impl<'a, I> XAck<'a, I>
where
    I: IntoIterator<Item: Borrow<StreamId>> + Clone,
{
    /// Acknowledges these entries; there must be at least one.
    pub fn new(key: &'a (impl AsRef<[u8]> + ?Sized), group: &'a (impl AsRef<[u8]> + ?Sized), ids: I) -> Self {
        Self { key: key.as_ref(), group: group.as_ref(), ids }
    }
}

impl<I> Command for XAck<'_, I>
where
    I: IntoIterator<Item: Borrow<StreamId>> + Clone,
{
    type Reply = u64;

    fn name(&self) -> &str {
        "XACK"
    }

    fn key(&self) -> Option<&[u8]> {
        Some(self.key)
    }

    #[expect(clippy::arithmetic_side_effects, reason = "the counts are of arguments in memory")]
    fn encode(&self, out: &mut CommandWriter<'_>) {
        out.command("XACK", 2 + self.ids.clone().into_iter().count());
        out.arg(self.key);
        out.arg(self.group);
        out.arg_ids(self.ids.clone().into_iter().map(|id| *id.borrow()));
    }

    fn decode(frame: Frame) -> Result<u64, Error> {
        decode::count(&frame)
    }
}
