use std::time::Duration;

use super::Entries;
use super::decode;
use super::entry;
use crate::{Command, CommandWriter, Error, Frame, StreamId, Value};

/// `XAUTOCLAIM`: looks through a group's pending entries, and takes over those that are idle for
/// too long. Redis 6.2.
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
///         break; // all were looked at
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

/// What [`XAutoClaim`] answers.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct AutoClaimed {
    /// Where the next call goes on; [`StreamId::ZERO`] when all were looked at.
    pub next: StreamId,
    /// The entries that were taken over.
    pub entries: Entries,
    /// Entries that are deleted from the stream, and were taken off the pending ones. Redis 7.0;
    /// empty before.
    pub deleted: Vec<StreamId>,
}

/// What [`XAutoClaim::just_id`] answers.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AutoClaimedIds {
    /// Where the next call goes on; [`StreamId::ZERO`] when all were looked at.
    pub next: StreamId,
    /// The entries that were taken over.
    pub ids: Vec<StreamId>,
    /// Entries that are deleted from the stream, and were taken off the pending ones. Redis 7.0;
    /// empty before.
    pub deleted: Vec<StreamId>,
}

impl<'a> XAutoClaim<'a> {
    /// Looks at pending entries from `start` on, and takes over those that were delivered at least
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

    /// Takes over at most so many; 100 unless set.
    #[must_use]
    pub const fn count(mut self, entries: u64) -> Self {
        self.count = Some(entries);
        self
    }

    /// `JUSTID`: answers with the IDs only, and does not count as a delivery.
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

/// The three parts of the reply; the third came with Redis 7.0.
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
