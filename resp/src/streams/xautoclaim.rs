//! `XAUTOCLAIM`.

use std::time::Duration;

use super::Entries;
use super::decode;
use super::entry;
use crate::{Command, CommandWriter, Error, Frame, StreamId, Value};

/// `XAUTOCLAIM`: claims pending entries of a group that were idle for too long. Redis 6.2.
///
/// ```no_run
/// # async fn example(connection: &mut resp::Connection) -> Result<(), resp::Error> {
/// use std::time::Duration;
/// use resp::StreamId;
/// use resp::streams::XAutoClaim;
///
/// let mut next = StreamId::ZERO;
/// loop {
///     let claim = XAutoClaim::new("events", "workers", "me", Duration::from_secs(60), next).count(100);
///     let claimed = connection.send(&claim).await?;
///     println!("now mine: {:?}, gone: {:?}", claimed.entries, claimed.deleted);
///     next = claimed.next;
///     if next == StreamId::ZERO {
///         break; // all were checked
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct XAutoClaim<'a> {
    key: &'a [u8],
    group: &'a [u8],
    consumer: &'a [u8],
    min_idle: Duration,
    start: StreamId,
    count: Option<u64>,
}

/// The reply to [`XAutoClaim`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct AutoClaimed {
    /// Where the next call continues; [`StreamId::ZERO`] at the end.
    pub next: StreamId,
    /// The claimed entries.
    pub entries: Entries,
    /// Entries that were deleted from the stream, and are no longer pending. Redis 7.0; empty
    /// before.
    pub deleted: Vec<StreamId>,
}

/// The reply to [`XAutoClaim::just_id`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AutoClaimedIds {
    /// Where the next call continues; [`StreamId::ZERO`] at the end.
    pub next: StreamId,
    /// The claimed entries.
    pub ids: Vec<StreamId>,
    /// Entries that were deleted from the stream, and are no longer pending. Redis 7.0; empty
    /// before.
    pub deleted: Vec<StreamId>,
}

impl<'a> XAutoClaim<'a> {
    /// Examines pending entries from `start` on, and claims those that were delivered at least
    /// `min_idle` ago.
    pub fn new(
        key: &'a (impl AsRef<[u8]> + ?Sized),
        group: &'a (impl AsRef<[u8]> + ?Sized),
        consumer: &'a (impl AsRef<[u8]> + ?Sized),
        min_idle: Duration,
        start: StreamId,
    ) -> Self {
        Self { key: key.as_ref(), group: group.as_ref(), consumer: consumer.as_ref(), min_idle, start, count: None }
    }

    /// Claims at most this many entries; 100 by default.
    #[must_use]
    pub const fn count(mut self, entries: u64) -> Self {
        self.count = Some(entries);
        self
    }

    /// Returns only the IDs, and does not count as a delivery (`JUSTID`).
    #[must_use]
    pub const fn just_id(self) -> XAutoClaimJustId<'a> {
        XAutoClaimJustId(self)
    }

    #[expect(clippy::arithmetic_side_effects, reason = "the counts are of arguments in memory")]
    fn write(&self, just_id: bool, out: &mut CommandWriter<'_>) {
        out.command("XAUTOCLAIM", 5 + 2 * usize::from(self.count.is_some()) + usize::from(just_id));
        out.arg(self.key);
        out.arg(self.group);
        out.arg(self.consumer);
        out.arg_int(super::millis(self.min_idle));
        out.arg_id(self.start);
        if let Some(count) = self.count {
            out.arg("COUNT");
            out.arg_int(count);
        }
        if just_id {
            out.arg("JUSTID");
        }
    }
}

/// Splits the reply into its parts; the third exists since Redis 7.0.
fn parts(reply: Value<'_>) -> Result<(StreamId, Value<'_>, Vec<StreamId>), Error> {
    let mut parts = reply.children();
    let (Some(next), Some(claimed)) = (parts.next(), parts.next()) else {
        return Err(Error::unexpected_reply("next ID, entries and deleted IDs", reply));
    };
    Ok((decode::id(next)?, claimed, parts.next().map_or(Ok(Vec::new()), decode::ids)?))
}

impl Command for XAutoClaim<'_> {
    type Reply = AutoClaimed;

    fn name(&self) -> &str {
        "XAUTOCLAIM"
    }

    fn key(&self) -> Option<&[u8]> {
        Some(self.key)
    }

    fn encode(&self, out: &mut CommandWriter<'_>) {
        self.write(false, out);
    }

    fn decode(frame: Frame) -> Result<AutoClaimed, Error> {
        let (next, claimed, deleted) = parts(frame.value())?;
        let mut index = Vec::new();
        entry::index(&frame, decode::list(claimed)?, &mut index)?;
        Ok(AutoClaimed { next, entries: Entries::from_index(frame, index), deleted })
    }
}

/// [`XAutoClaim`] with `JUSTID`.
#[derive(Clone, Copy, Debug)]
pub struct XAutoClaimJustId<'a>(XAutoClaim<'a>);

impl Command for XAutoClaimJustId<'_> {
    type Reply = AutoClaimedIds;

    fn name(&self) -> &str {
        "XAUTOCLAIM"
    }

    fn key(&self) -> Option<&[u8]> {
        Some(self.0.key)
    }

    fn encode(&self, out: &mut CommandWriter<'_>) {
        self.0.write(true, out);
    }

    fn decode(frame: Frame) -> Result<AutoClaimedIds, Error> {
        let (next, claimed, deleted) = parts(frame.value())?;
        Ok(AutoClaimedIds { next, ids: decode::ids(claimed)?, deleted })
    }
}
