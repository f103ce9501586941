//! `XPENDING`.

use std::ops::RangeBounds;
use std::time::Duration;

use bytes::Bytes;

use super::decode;
use super::range::IdRange;
use crate::{Command, CommandWriter, Error, Frame, StreamId, Value, ValueKind};

/// `XPENDING` in its short form: summarises the pending entries of a group. Redis 5.0.
///
/// ```no_run
/// # async fn example(connection: &mut resp::Connection) -> Result<(), resp::Error> {
/// let pending = connection.send(resp::streams::XPending::new("events", "workers")).await?;
/// println!("{} entries from {:?}", pending.count, pending.first);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct XPending<'a> {
    key: &'a [u8],
    group: &'a [u8],
}

impl<'a> XPending<'a> {
    /// Summarises the pending entries of a group.
    pub fn new(key: &'a (impl AsRef<[u8]> + ?Sized), group: &'a (impl AsRef<[u8]> + ?Sized)) -> Self {
        Self { key: key.as_ref(), group: group.as_ref() }
    }

    /// Requests the long form: single entries, at most `count` of a range of IDs.
    pub fn entries(self, range: impl RangeBounds<StreamId>, count: u64) -> XPendingEntries<'a> {
        XPendingEntries {
            key: self.key,
            group: self.group,
            min_idle: None,
            range: IdRange::new(&range),
            count,
            consumer: None,
        }
    }
}

/// The reply to [`XPending`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PendingSummary {
    /// The number of pending entries.
    pub count: u64,
    /// The smallest pending ID.
    pub first: Option<StreamId>,
    /// The largest pending ID.
    pub last: Option<StreamId>,
    /// The consumers with pending entries, and how many each has.
    pub consumers: Vec<(Bytes, u64)>,
}

impl Command for XPending<'_> {
    type Reply = PendingSummary;

    fn name(&self) -> &str {
        "XPENDING"
    }

    fn key(&self) -> Option<&[u8]> {
        Some(self.key)
    }

    fn encode(&self, out: &mut CommandWriter<'_>) {
        out.command("XPENDING", 2);
        out.arg(self.key);
        out.arg(self.group);
    }

    fn decode(frame: Frame) -> Result<PendingSummary, Error> {
        let reply = frame.value();
        let wrong = || Error::unexpected_reply("count, first, last and consumers", reply);
        let mut parts = reply.children();
        let (Some(count), Some(first), Some(last), Some(consumers)) =
            (parts.next().and_then(Value::as_u64), parts.next(), parts.next(), parts.next())
        else {
            return Err(wrong());
        };
        let id = |value: Value<'_>| if value.is_null() { Ok(None) } else { decode::id(value).map(Some) };
        if !matches!(consumers.kind(), ValueKind::Array | ValueKind::Null) {
            return Err(wrong());
        }
        let consumers = consumers
            .children()
            .map(|consumer| {
                let mut parts = consumer.children();
                match (parts.next(), parts.next().and_then(Value::as_u64)) {
                    (Some(name), Some(count)) => Ok((frame.slice(name), count)),
                    _ => Err(wrong()),
                }
            })
            .collect::<Result<_, _>>()?;
        Ok(PendingSummary { count, first: id(first)?, last: id(last)?, consumers })
    }
}

/// `XPENDING` in its long form: lists pending entries. Redis 5.0.
///
/// ```no_run
/// # async fn example(connection: &mut resp::Connection) -> Result<(), resp::Error> {
/// use std::time::Duration;
/// use resp::streams::XPending;
///
/// let stuck = XPending::new("events", "workers").entries(.., 100).idle(Duration::from_secs(60));
/// for entry in connection.send(&stuck).await? {
///     println!("{} delivered {} times", entry.id, entry.deliveries);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct XPendingEntries<'a> {
    key: &'a [u8],
    group: &'a [u8],
    min_idle: Option<Duration>,
    range: IdRange,
    count: u64,
    consumer: Option<&'a [u8]>,
}

impl<'a> XPendingEntries<'a> {
    /// Only lists entries that were idle at least this long. Redis 6.2.
    #[must_use]
    pub const fn idle(mut self, min_idle: Duration) -> Self {
        self.min_idle = Some(min_idle);
        self
    }

    /// Only lists entries of this consumer.
    #[must_use]
    pub fn consumer(mut self, consumer: &'a (impl AsRef<[u8]> + ?Sized)) -> Self {
        self.consumer = Some(consumer.as_ref());
        self
    }
}

/// A pending entry: delivered and not acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PendingEntry {
    /// The entry's ID.
    pub id: StreamId,
    /// The consumer's name.
    pub consumer: Bytes,
    /// The time since the last delivery.
    pub idle: Duration,
    /// The number of deliveries.
    pub deliveries: u64,
}

impl Command for XPendingEntries<'_> {
    type Reply = Vec<PendingEntry>;

    fn name(&self) -> &str {
        "XPENDING"
    }

    fn key(&self) -> Option<&[u8]> {
        Some(self.key)
    }

    #[expect(clippy::arithmetic_side_effects, reason = "the counts are of arguments in memory")]
    fn encode(&self, out: &mut CommandWriter<'_>) {
        let options = 2 * usize::from(self.min_idle.is_some()) + usize::from(self.consumer.is_some());
        out.command("XPENDING", 5 + options);
        out.arg(self.key);
        out.arg(self.group);
        if let Some(min_idle) = self.min_idle {
            out.arg("IDLE");
            out.arg_int(super::millis(min_idle));
        }
        self.range.encode_start(out);
        self.range.encode_end(out);
        out.arg_int(self.count);
        if let Some(consumer) = self.consumer {
            out.arg(consumer);
        }
    }

    fn decode(frame: Frame) -> Result<Vec<PendingEntry>, Error> {
        let reply = frame.value();
        if !matches!(reply.kind(), ValueKind::Array | ValueKind::Null) {
            return Err(Error::unexpected_reply("pending entries", reply));
        }
        let entry = |entry: Value<'_>| {
            let mut parts = entry.children();
            let id = parts.next().and_then(Value::as_bytes).and_then(StreamId::parse)?;
            let consumer = frame.slice(parts.next()?);
            // It is negative if the server's clock was set back.
            let idle = Duration::from_millis(u64::try_from(parts.next()?.as_int()?).unwrap_or(0));
            Some(PendingEntry { id, consumer, idle, deliveries: parts.next()?.as_u64()? })
        };
        reply
            .children()
            .map(|value| entry(value).ok_or_else(|| Error::unexpected_reply("a pending entry", value)))
            .collect()
    }
}
