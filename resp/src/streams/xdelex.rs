//! `XDELEX`.

use std::borrow::Borrow;

use super::{References, Removed};
use crate::{Command, CommandWriter, Error, Frame, StreamId};

/// `XDELEX`: removes entries from a stream, and controls references of consumer groups. Redis 8.2.
///
/// The reply has one result per ID.
///
/// ```no_run
/// # async fn example(connection: &mut resp::Connection) -> Result<(), resp::Error> {
/// use resp::StreamId;
/// use resp::streams::{References, XDelEx};
///
/// let command = XDelEx::new("events", [StreamId::new(7, 1)]).references(References::Delete);
/// let removed = connection.send(&command).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct XDelEx<'a, I> {
    key: &'a [u8],
    references: Option<References>,
    ids: I,
}

impl<'a, I> XDelEx<'a, I>
where
    I: IntoIterator<Item: Borrow<StreamId>> + Clone,
{
    /// Removes these entries; there must be at least one.
    pub fn new(key: &'a (impl AsRef<[u8]> + ?Sized), ids: I) -> Self {
        Self { key: key.as_ref(), references: None, ids }
    }

    /// Sets what to do with references of consumer groups.
    #[must_use]
    pub fn references(mut self, references: References) -> Self {
        self.references = Some(references);
        self
    }
}

impl<I> Command for XDelEx<'_, I>
where
    I: IntoIterator<Item: Borrow<StreamId>> + Clone,
{
    type Reply = Vec<Removed>;

    fn name(&self) -> &str {
        "XDELEX"
    }

    fn key(&self) -> Option<&[u8]> {
        Some(self.key)
    }

    #[expect(clippy::arithmetic_side_effects, reason = "the counts are of arguments in memory")]
    fn encode(&self, out: &mut CommandWriter<'_>) {
        let ids = self.ids.clone().into_iter().count();
        out.command("XDELEX", 3 + usize::from(self.references.is_some()) + ids);
        out.arg(self.key);
        if let Some(references) = self.references {
            out.arg(references.word());
        }
        super::encode_ids(&self.ids, ids, out);
    }

    fn decode(frame: Frame) -> Result<Vec<Removed>, Error> {
        Removed::list(&frame)
    }
}
