//! The subcommands of `XGROUP`.

use super::decode;
use crate::{Command, CommandWriter, Error, Frame, StreamId};

/// Where a consumer group starts to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupStart {
    /// `$`: at the next entry that is added.
    New,
    /// After this ID; [`StreamId::ZERO`] for the whole stream.
    After(StreamId),
}

impl From<StreamId> for GroupStart {
    fn from(id: StreamId) -> Self {
        Self::After(id)
    }
}

impl GroupStart {
    fn encode(self, out: &mut CommandWriter<'_>) {
        match self {
            Self::New => out.arg("$"),
            Self::After(id) => out.arg_id(id),
        }
    }
}

/// `XGROUP CREATE`: creates a consumer group. Redis 5.0.
///
/// If the group exists, the error is [`ErrorKind::BusyGroup`](crate::ErrorKind::BusyGroup); if the
/// stream does not exist, [`ErrorKind::NoSuchKey`](crate::ErrorKind::NoSuchKey).
///
/// ```no_run
/// # async fn example(connection: &mut resp::Connection) -> Result<(), resp::Error> {
/// use resp::streams::XGroupCreate;
/// use resp::{ErrorKind, StreamId};
///
/// let create = XGroupCreate::new("events", "workers", StreamId::ZERO).make_stream();
/// match connection.send(&create).await {
///     Err(error) if error.kind() == ErrorKind::BusyGroup => {} // it is there already
///     other => other?,
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct XGroupCreate<'a> {
    key: &'a [u8],
    group: &'a [u8],
    start: GroupStart,
    make_stream: bool,
    entries_read: Option<u64>,
}

impl<'a> XGroupCreate<'a> {
    /// Creates a group.
    pub fn new(
        key: &'a (impl AsRef<[u8]> + ?Sized),
        group: &'a (impl AsRef<[u8]> + ?Sized),
        start: impl Into<GroupStart>,
    ) -> Self {
        Self { key: key.as_ref(), group: group.as_ref(), start: start.into(), make_stream: false, entries_read: None }
    }

    /// Creates an empty stream if there is none (`MKSTREAM`).
    #[must_use]
    pub const fn make_stream(mut self) -> Self {
        self.make_stream = true;
        self
    }

    /// Sets how many entries the group counts as read, which determines its lag. Redis 7.0.
    #[must_use]
    pub const fn entries_read(mut self, entries: u64) -> Self {
        self.entries_read = Some(entries);
        self
    }
}

impl Command for XGroupCreate<'_> {
    type Reply = ();

    fn name(&self) -> &str {
        "XGROUP CREATE"
    }

    fn key(&self) -> Option<&[u8]> {
        Some(self.key)
    }

    #[expect(clippy::arithmetic_side_effects, reason = "the counts are of arguments in memory")]
    fn encode(&self, out: &mut CommandWriter<'_>) {
        out.command("XGROUP", 4 + usize::from(self.make_stream) + 2 * usize::from(self.entries_read.is_some()));
        out.arg("CREATE");
        out.arg(self.key);
        out.arg(self.group);
        self.start.encode(out);
        if self.make_stream {
            out.arg("MKSTREAM");
        }
        if let Some(entries) = self.entries_read {
            out.arg("ENTRIESREAD");
            out.arg_int(entries);
        }
    }

    fn decode(frame: Frame) -> Result<(), Error> {
        decode::ok(&frame)
    }
}

/// `XGROUP SETID`: sets the ID after which a group reads new entries. Redis 5.0.
///
/// ```no_run
/// # async fn example(connection: &mut resp::Connection) -> Result<(), resp::Error> {
/// use resp::StreamId;
/// use resp::streams::XGroupSetId;
///
/// connection.send(XGroupSetId::new("events", "workers", StreamId::ZERO)).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct XGroupSetId<'a> {
    key: &'a [u8],
    group: &'a [u8],
    start: GroupStart,
    entries_read: Option<u64>,
}

impl<'a> XGroupSetId<'a> {
    /// Sets the ID of a group.
    pub fn new(
        key: &'a (impl AsRef<[u8]> + ?Sized),
        group: &'a (impl AsRef<[u8]> + ?Sized),
        start: impl Into<GroupStart>,
    ) -> Self {
        Self { key: key.as_ref(), group: group.as_ref(), start: start.into(), entries_read: None }
    }

    /// Sets how many entries the group counts as read, which determines its lag. Redis 7.0.
    #[must_use]
    pub const fn entries_read(mut self, entries: u64) -> Self {
        self.entries_read = Some(entries);
        self
    }
}

impl Command for XGroupSetId<'_> {
    type Reply = ();

    fn name(&self) -> &str {
        "XGROUP SETID"
    }

    fn key(&self) -> Option<&[u8]> {
        Some(self.key)
    }

    #[expect(clippy::arithmetic_side_effects, reason = "the counts are of arguments in memory")]
    fn encode(&self, out: &mut CommandWriter<'_>) {
        out.command("XGROUP", 4 + 2 * usize::from(self.entries_read.is_some()));
        out.arg("SETID");
        out.arg(self.key);
        out.arg(self.group);
        self.start.encode(out);
        if let Some(entries) = self.entries_read {
            out.arg("ENTRIESREAD");
            out.arg_int(entries);
        }
    }

    fn decode(frame: Frame) -> Result<(), Error> {
        decode::ok(&frame)
    }
}

/// `XGROUP DESTROY`: removes a group and its pending entries. Redis 5.0.
///
/// The reply is whether the group existed.
///
/// ```no_run
/// # async fn example(connection: &mut resp::Connection) -> Result<(), resp::Error> {
/// let was_there = connection.send(resp::streams::XGroupDestroy::new("events", "workers")).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct XGroupDestroy<'a> {
    key: &'a [u8],
    group: &'a [u8],
}

impl<'a> XGroupDestroy<'a> {
    /// Removes a group.
    pub fn new(key: &'a (impl AsRef<[u8]> + ?Sized), group: &'a (impl AsRef<[u8]> + ?Sized)) -> Self {
        Self { key: key.as_ref(), group: group.as_ref() }
    }
}

impl Command for XGroupDestroy<'_> {
    type Reply = bool;

    fn name(&self) -> &str {
        "XGROUP DESTROY"
    }

    fn key(&self) -> Option<&[u8]> {
        Some(self.key)
    }

    fn encode(&self, out: &mut CommandWriter<'_>) {
        out.command("XGROUP", 3);
        out.arg("DESTROY");
        out.arg(self.key);
        out.arg(self.group);
    }

    fn decode(frame: Frame) -> Result<bool, Error> {
        decode::flag(&frame)
    }
}

/// `XGROUP CREATECONSUMER`: creates a consumer in a group. Reading creates it as well. Redis 6.2.
///
/// The reply is whether it is new.
///
/// ```no_run
/// # async fn example(connection: &mut resp::Connection) -> Result<(), resp::Error> {
/// let is_new = connection.send(resp::streams::XGroupCreateConsumer::new("events", "workers", "me")).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct XGroupCreateConsumer<'a> {
    key: &'a [u8],
    group: &'a [u8],
    consumer: &'a [u8],
}

impl<'a> XGroupCreateConsumer<'a> {
    /// Creates a consumer.
    pub fn new(
        key: &'a (impl AsRef<[u8]> + ?Sized),
        group: &'a (impl AsRef<[u8]> + ?Sized),
        consumer: &'a (impl AsRef<[u8]> + ?Sized),
    ) -> Self {
        Self { key: key.as_ref(), group: group.as_ref(), consumer: consumer.as_ref() }
    }
}

impl Command for XGroupCreateConsumer<'_> {
    type Reply = bool;

    fn name(&self) -> &str {
        "XGROUP CREATECONSUMER"
    }

    fn key(&self) -> Option<&[u8]> {
        Some(self.key)
    }

    fn encode(&self, out: &mut CommandWriter<'_>) {
        out.command("XGROUP", 4);
        out.arg("CREATECONSUMER");
        out.arg(self.key);
        out.arg(self.group);
        out.arg(self.consumer);
    }

    fn decode(frame: Frame) -> Result<bool, Error> {
        decode::flag(&frame)
    }
}

/// `XGROUP DELCONSUMER`: removes a consumer. Redis 5.0.
///
/// The reply is how many pending entries the consumer had. They are lost to the group; claim them
/// before.
///
/// ```no_run
/// # async fn example(connection: &mut resp::Connection) -> Result<(), resp::Error> {
/// let lost = connection.send(resp::streams::XGroupDelConsumer::new("events", "workers", "me")).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct XGroupDelConsumer<'a> {
    key: &'a [u8],
    group: &'a [u8],
    consumer: &'a [u8],
}

impl<'a> XGroupDelConsumer<'a> {
    /// Removes a consumer.
    pub fn new(
        key: &'a (impl AsRef<[u8]> + ?Sized),
        group: &'a (impl AsRef<[u8]> + ?Sized),
        consumer: &'a (impl AsRef<[u8]> + ?Sized),
    ) -> Self {
        Self { key: key.as_ref(), group: group.as_ref(), consumer: consumer.as_ref() }
    }
}

impl Command for XGroupDelConsumer<'_> {
    type Reply = u64;

    fn name(&self) -> &str {
        "XGROUP DELCONSUMER"
    }

    fn key(&self) -> Option<&[u8]> {
        Some(self.key)
    }

    fn encode(&self, out: &mut CommandWriter<'_>) {
        out.command("XGROUP", 4);
        out.arg("DELCONSUMER");
        out.arg(self.key);
        out.arg(self.group);
        out.arg(self.consumer);
    }

    fn decode(frame: Frame) -> Result<u64, Error> {
        decode::count(&frame)
    }
}
