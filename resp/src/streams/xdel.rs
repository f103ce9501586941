//! `XDEL`.

use std::borrow::Borrow;

use super::decode;
use crate::{Command, CommandWriter, Error, Frame, StreamId};

/// `XDEL`: removes entries from a stream. Redis 5.0.
///
/// The reply is how many of them existed.
///
/// ```no_run
/// # async fn example(connection: &mut resp::Connection) -> Result<(), resp::Error> {
/// use resp::StreamId;
/// use resp::streams::XDel;
///
/// let removed = connection.send(XDel::new("events", &[StreamId::new(7, 1)])).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct XDel<'a, I> {
    key: &'a [u8],
    ids: I,
}

impl<'a, I> XDel<'a, I>
where
    I: IntoIterator<Item: Borrow<StreamId>> + Clone,
{
    /// Removes these entries; there must be at least one.
    pub fn new(key: &'a (impl AsRef<[u8]> + ?Sized), ids: I) -> Self {
        Self { key: key.as_ref(), ids }
    }
}

impl<I> Command for XDel<'_, I>
where
    I: IntoIterator<Item: Borrow<StreamId>> + Clone,
{
    type Reply = u64;

    fn name(&self) -> &str {
        "XDEL"
    }

    fn key(&self) -> Option<&[u8]> {
        Some(self.key)
    }

    #[expect(clippy::arithmetic_side_effects, reason = "the counts are of arguments in memory")]
    fn encode(&self, out: &mut CommandWriter<'_>) {
        out.command("XDEL", 1 + self.ids.clone().into_iter().count());
        out.arg(self.key);
        for id in self.ids.clone() {
            out.arg_id(*id.borrow());
        }
    }

    fn decode(frame: Frame) -> Result<u64, Error> {
        decode::count(&frame)
    }
}
