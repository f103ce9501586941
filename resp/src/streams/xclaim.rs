//! `XCLAIM`.

use std::borrow::Borrow;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::Entries;
use super::decode;
use crate::{Command, CommandWriter, Error, Frame, FromReply, StreamId};

/// `XCLAIM`: claims pending entries of other consumers. Redis 5.0.
///
/// The reply contains the claimed entries. Deleted entries are left out; since Redis 7.0 they are
/// no longer pending.
///
/// ```no_run
/// # async fn example(connection: &mut resp::Connection) -> Result<(), resp::Error> {
/// use std::time::Duration;
/// use resp::StreamId;
/// use resp::streams::XClaim;
///
/// let claim = XClaim::new("events", "workers", "me", Duration::from_secs(60), [StreamId::new(7, 1)]);
/// for entry in &connection.send(&claim).await? {
///     println!("now mine: {}", entry.id);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct XClaim<'a, I> {
    key: &'a [u8],
    group: &'a [u8],
    consumer: &'a [u8],
    min_idle: Duration,
    ids: I,
    delivered: Option<Delivered>,
    retry_count: Option<u64>,
    force: bool,
    last_id: Option<StreamId>,
}

#[derive(Clone, Copy, Debug)]
enum Delivered {
    Ago(Duration),
    At(SystemTime),
}

impl<'a, I> XClaim<'a, I>
where
    I: IntoIterator<Item: Borrow<StreamId>> + Clone,
{
    /// Claims those of these entries that were delivered at least `min_idle` ago.
    pub fn new(
        key: &'a (impl AsRef<[u8]> + ?Sized),
        group: &'a (impl AsRef<[u8]> + ?Sized),
        consumer: &'a (impl AsRef<[u8]> + ?Sized),
        min_idle: Duration,
        ids: I,
    ) -> Self {
        Self {
            key: key.as_ref(),
            group: group.as_ref(),
            consumer: consumer.as_ref(),
            min_idle,
            ids,
            delivered: None,
            retry_count: None,
            force: false,
            last_id: None,
        }
    }

    /// Sets the idle time of the entries (`IDLE`); 0 by default.
    #[must_use]
    pub const fn idle(mut self, ago: Duration) -> Self {
        self.delivered = Some(Delivered::Ago(ago));
        self
    }

    /// Sets the time of the last delivery (`TIME`).
    #[must_use]
    pub const fn time(mut self, at: SystemTime) -> Self {
        self.delivered = Some(Delivered::At(at));
        self
    }

    /// Sets the number of deliveries (`RETRYCOUNT`).
    #[must_use]
    pub const fn retry_count(mut self, deliveries: u64) -> Self {
        self.retry_count = Some(deliveries);
        self
    }

    /// Also claims entries that are not pending (`FORCE`).
    #[must_use]
    pub const fn force(mut self) -> Self {
        self.force = true;
        self
    }

    /// Advances the group's last delivered ID to this one (`LASTID`).
    #[must_use]
    pub const fn last_id(mut self, id: StreamId) -> Self {
        self.last_id = Some(id);
        self
    }

    /// Returns only the IDs, and does not count as a delivery (`JUSTID`).
    #[must_use]
    pub const fn just_id(self) -> XClaimJustId<'a, I> {
        XClaimJustId(self)
    }

    #[expect(clippy::arithmetic_side_effects, reason = "the counts are of arguments in memory")]
    fn write(&self, just_id: bool, out: &mut CommandWriter<'_>) {
        let options = 2 * usize::from(self.delivered.is_some())
            + 2 * usize::from(self.retry_count.is_some())
            + 2 * usize::from(self.last_id.is_some())
            + usize::from(self.force)
            + usize::from(just_id);
        out.command("XCLAIM", 4 + self.ids.clone().into_iter().count() + options);
        out.arg(self.key);
        out.arg(self.group);
        out.arg(self.consumer);
        out.arg_int(super::millis(self.min_idle));
        for id in self.ids.clone() {
            out.arg_id(*id.borrow());
        }
        match self.delivered {
            Some(Delivered::Ago(ago)) => {
                out.arg("IDLE");
                out.arg_int(super::millis(ago));
            }
            Some(Delivered::At(at)) => {
                out.arg("TIME");
                out.arg_int(super::millis(at.duration_since(UNIX_EPOCH).unwrap_or_default()));
            }
            None => {}
        }
        if let Some(deliveries) = self.retry_count {
            out.arg("RETRYCOUNT");
            out.arg_int(deliveries);
        }
        if self.force {
            out.arg("FORCE");
        }
        if just_id {
            out.arg("JUSTID");
        }
        if let Some(id) = self.last_id {
            out.arg("LASTID");
            out.arg_id(id);
        }
    }
}

impl<I> Command for XClaim<'_, I>
where
    I: IntoIterator<Item: Borrow<StreamId>> + Clone,
{
    type Reply = Entries;

    fn name(&self) -> &str {
        "XCLAIM"
    }

    fn key(&self) -> Option<&[u8]> {
        Some(self.key)
    }

    fn encode(&self, out: &mut CommandWriter<'_>) {
        self.write(false, out);
    }

    fn decode(frame: Frame) -> Result<Entries, Error> {
        Entries::from_frame(frame)
    }
}

/// [`XClaim`] with `JUSTID`: the reply is the IDs of the claimed entries.
#[derive(Clone, Copy, Debug)]
pub struct XClaimJustId<'a, I>(XClaim<'a, I>);

impl<I> Command for XClaimJustId<'_, I>
where
    I: IntoIterator<Item: Borrow<StreamId>> + Clone,
{
    type Reply = Vec<StreamId>;

    fn name(&self) -> &str {
        "XCLAIM"
    }

    fn key(&self) -> Option<&[u8]> {
        Some(self.0.key)
    }

    fn encode(&self, out: &mut CommandWriter<'_>) {
        self.0.write(true, out);
    }

    fn decode(frame: Frame) -> Result<Vec<StreamId>, Error> {
        decode::ids(frame.value())
    }
}
