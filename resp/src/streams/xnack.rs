//! `XNACK`.

use std::borrow::Borrow;

use super::decode;
use crate::{Command, CommandWriter, Error, Frame, StreamId};

/// Why [`XNack`] returns entries, which decides how their deliveries are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NackReason {
    /// `SILENT`: the delivery does not count, as when a consumer shuts down.
    Silent,
    /// `FAIL`: the delivery counts; another consumer may succeed.
    Fail,
    /// `FATAL`: no consumer can process the entry, so its delivery count becomes the maximum.
    Fatal,
}

/// `XNACK`: returns pending entries to the group, for any consumer to read at once. Redis 8.8.
///
/// The reply is how many were returned.
///
/// ```no_run
/// # async fn example(connection: &mut resp::Connection) -> Result<(), resp::Error> {
/// use resp::StreamId;
/// use resp::streams::{NackReason, XNack};
///
/// let back = XNack::new("events", "workers", NackReason::Silent, [StreamId::new(7, 1)]);
/// let given_back = connection.send(&back).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct XNack<'a, I> {
    key: &'a [u8],
    group: &'a [u8],
    reason: NackReason,
    ids: I,
    retry_count: Option<u64>,
    force: bool,
}

impl<'a, I> XNack<'a, I>
where
    I: IntoIterator<Item: Borrow<StreamId>> + Clone,
{
    /// Returns these entries; there must be at least one.
    pub fn new(
        key: &'a (impl AsRef<[u8]> + ?Sized),
        group: &'a (impl AsRef<[u8]> + ?Sized),
        reason: NackReason,
        ids: I,
    ) -> Self {
        Self { key: key.as_ref(), group: group.as_ref(), reason, ids, retry_count: None, force: false }
    }

    /// Sets the number of deliveries (`RETRYCOUNT`).
    #[must_use]
    pub fn retry_count(mut self, deliveries: u64) -> Self {
        self.retry_count = Some(deliveries);
        self
    }

    /// Also makes entries pending that are not (`FORCE`).
    #[must_use]
    pub fn force(mut self) -> Self {
        self.force = true;
        self
    }
}

impl<I> Command for XNack<'_, I>
where
    I: IntoIterator<Item: Borrow<StreamId>> + Clone,
{
    type Reply = u64;

    fn name(&self) -> &str {
        "XNACK"
    }

    fn key(&self) -> Option<&[u8]> {
        Some(self.key)
    }

    #[expect(clippy::arithmetic_side_effects, reason = "the counts are of arguments in memory")]
    fn encode(&self, out: &mut CommandWriter<'_>) {
        let ids = self.ids.clone().into_iter().count();
        out.command("XNACK", 5 + ids + 2 * usize::from(self.retry_count.is_some()) + usize::from(self.force));
        out.arg(self.key);
        out.arg(self.group);
        out.arg(match self.reason {
            NackReason::Silent => "SILENT",
            NackReason::Fail => "FAIL",
            NackReason::Fatal => "FATAL",
        });
        super::encode_ids(&self.ids, ids, out);
        if let Some(deliveries) = self.retry_count {
            out.arg("RETRYCOUNT");
            out.arg_int(deliveries);
        }
        if self.force {
            out.arg("FORCE");
        }
    }

    fn decode(frame: Frame) -> Result<u64, Error> {
        decode::count(&frame)
    }
}
