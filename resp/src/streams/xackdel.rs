//! `XACKDEL`.

use std::borrow::Borrow;

use super::{References, Removed};
use crate::{Command, CommandWriter, Error, Frame, StreamId};

/// `XACKDEL`: acknowledges entries and removes them from the stream in one step. Redis 8.2.
///
/// The reply has one result per ID.
///
/// ```no_run
/// # async fn example(connection: &mut resp::Connection) -> Result<(), resp::Error> {
/// use resp::StreamId;
/// use resp::streams::{References, XAckDel};
///
/// let command = XAckDel::new("events", "workers", [StreamId::new(7, 1)]).references(References::Acknowledged);
/// let removed = connection.send(&command).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct XAckDel<'a, I> {
    key: &'a [u8],
    group: &'a [u8],
    references: Option<References>,
    ids: I,
}

impl<'a, I> XAckDel<'a, I>
where
    I: IntoIterator<Item: Borrow<StreamId>> + Clone,
{
    /// Acknowledges and removes these entries; there must be at least one.
    pub fn new(key: &'a (impl AsRef<[u8]> + ?Sized), group: &'a (impl AsRef<[u8]> + ?Sized), ids: I) -> Self {
        Self { key: key.as_ref(), group: group.as_ref(), references: None, ids }
    }

    /// Sets what to do with references of consumer groups.
    #[must_use]
    pub fn references(mut self, references: References) -> Self {
        self.references = Some(references);
        self
    }
}

impl<I> Command for XAckDel<'_, I>
where
    I: IntoIterator<Item: Borrow<StreamId>> + Clone,
{
    type Reply = Vec<Removed>;

    fn name(&self) -> &str {
        "XACKDEL"
    }

    fn key(&self) -> Option<&[u8]> {
        Some(self.key)
    }

    #[expect(clippy::arithmetic_side_effects, reason = "the counts are of arguments in memory")]
    fn encode(&self, out: &mut CommandWriter<'_>) {
        let ids = self.ids.clone().into_iter().count();
        out.command("XACKDEL", 4 + usize::from(self.references.is_some()) + ids);
        out.arg(self.key);
        out.arg(self.group);
        if let Some(references) = self.references {
            out.arg(references.word());
        }
        super::encode_ids(&self.ids, ids, out);
    }

    fn decode(frame: Frame) -> Result<Vec<Removed>, Error> {
        Removed::list(&frame)
    }
}
