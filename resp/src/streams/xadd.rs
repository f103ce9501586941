//! `XADD`.

use std::marker::PhantomData;

use super::{References, Trim};
use crate::{Command, CommandWriter, Error, Frame, FromReply, StreamId};

/// The ID of a new entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddId {
    /// `*`: the server assigns it, from its clock.
    Auto,
    /// `<ms>-*`: the server assigns the sequence. Redis 7.0.
    AutoSeq(u64),
    /// This ID. It must be larger than the stream's last, otherwise the error is
    /// [`ErrorKind::IdTooSmall`](crate::ErrorKind::IdTooSmall).
    Id(StreamId),
}

impl From<StreamId> for AddId {
    fn from(id: StreamId) -> Self {
        Self::Id(id)
    }
}

/// `XADD`: adds an entry to a stream. Redis 5.0.
///
/// It borrows all arguments, so it allocates nothing. The reply is the entry's ID; with
/// [`no_create`](Self::no_create), an `Option` that is `None` if the stream does not exist.
///
/// ```
/// use bytes::BytesMut;
/// use resp::streams::XAdd;
/// use resp::{RespCodec, StreamId};
/// use tokio_util::codec::Encoder;
///
/// let fields = [("line", "to be or not to be")];
/// let add = XAdd::new("play", StreamId::new(7, 1), &fields);
///
/// let mut out = BytesMut::new();
/// RespCodec::default().encode(&add, &mut out)?;
/// assert_eq!(out, "*5\r\n$4\r\nXADD\r\n$4\r\nplay\r\n$3\r\n7-1\r\n$4\r\nline\r\n$18\r\nto be or not to be\r\n");
/// # Ok::<(), resp::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct XAdd<'a, F = &'a [u8], V = &'a [u8], R = StreamId> {
    key: &'a [u8],
    id: AddId,
    fields: &'a [(F, V)],
    create: bool,
    references: Option<References>,
    once: Option<Once<'a>>,
    trim: Option<Trim>,
    reply: PhantomData<fn() -> R>,
}

/// How the server recognises a repeated entry.
#[derive(Clone, Copy, Debug)]
enum Once<'a> {
    /// By an ID that the producer assigns.
    Id(&'a [u8], &'a [u8]),
    /// By its content.
    Auto(&'a [u8]),
}

impl<'a, F: AsRef<[u8]>, V: AsRef<[u8]>> XAdd<'a, F, V> {
    /// Adds an entry with these fields; there must be at least one.
    pub fn new(key: &'a (impl AsRef<[u8]> + ?Sized), id: impl Into<AddId>, fields: &'a [(F, V)]) -> Self {
        Self {
            key: key.as_ref(),
            id: id.into(),
            fields,
            create: true,
            references: None,
            once: None,
            trim: None,
            reply: PhantomData,
        }
    }

    /// Does nothing if the stream does not exist (`NOMKSTREAM`); the reply is then `None`. Redis
    /// 6.2.
    ///
    /// ```no_run
    /// # async fn example(client: &resp::Client) -> Result<(), resp::Error> {
    /// use resp::StreamId;
    /// use resp::streams::{AddId, XAdd};
    ///
    /// let add = XAdd::new("events", AddId::Auto, &[("type", "start")]);
    /// let added: StreamId = client.send(&add).await?;
    /// let added: Option<StreamId> = client.send(&add.no_create()).await?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn no_create(self) -> XAdd<'a, F, V, Option<StreamId>> {
        let Self { key, id, fields, references, once, trim, .. } = self;
        XAdd { key, id, fields, create: false, references, once, trim, reply: PhantomData }
    }
}

impl<'a, F, V, R> XAdd<'a, F, V, R> {
    /// Sets what to do with references of consumer groups to trimmed entries. Redis 8.2.
    #[must_use]
    pub const fn references(mut self, references: References) -> Self {
        self.references = Some(references);
        self
    }

    /// Adds the entry only if this producer has not recently added one with the same ID (`IDMP`);
    /// otherwise the reply is the ID of that entry. Redis 8.6.
    #[must_use]
    pub fn once(mut self, producer: &'a (impl AsRef<[u8]> + ?Sized), name: &'a (impl AsRef<[u8]> + ?Sized)) -> Self {
        self.once = Some(Once::Id(producer.as_ref(), name.as_ref()));
        self
    }

    /// As [`once`](Self::once), but recognises the entry by its content (`IDMPAUTO`). Redis 8.6.
    #[must_use]
    pub fn once_by_content(mut self, producer: &'a (impl AsRef<[u8]> + ?Sized)) -> Self {
        self.once = Some(Once::Auto(producer.as_ref()));
        self
    }

    /// Trims the stream in the same step.
    #[must_use]
    pub const fn trim(mut self, trim: Trim) -> Self {
        self.trim = Some(trim);
        self
    }
}

impl<F: AsRef<[u8]>, V: AsRef<[u8]>, R: FromReply> Command for XAdd<'_, F, V, R> {
    type Reply = R;

    fn name(&self) -> &str {
        "XADD"
    }

    fn key(&self) -> Option<&[u8]> {
        Some(self.key)
    }

    #[inline]
    #[expect(clippy::arithmetic_side_effects, reason = "the counts are of arguments in memory")]
    fn encode(&self, out: &mut CommandWriter<'_>) {
        let options = usize::from(!self.create)
            + usize::from(self.references.is_some())
            + self.once.map_or(0, |once| if matches!(once, Once::Id(..)) { 3 } else { 2 })
            + self.trim.as_ref().map_or(0, Trim::args);
        out.command("XADD", 2 + options + 2 * self.fields.len());
        out.arg(self.key);
        if !self.create {
            out.arg("NOMKSTREAM");
        }
        if let Some(references) = self.references {
            out.arg(references.word());
        }
        match self.once {
            Some(Once::Id(producer, name)) => {
                out.arg("IDMP");
                out.arg(producer);
                out.arg(name);
            }
            Some(Once::Auto(producer)) => {
                out.arg("IDMPAUTO");
                out.arg(producer);
            }
            None => {}
        }
        if let Some(trim) = &self.trim {
            trim.encode(out);
        }
        match self.id {
            AddId::Id(id) => out.arg_id(id),
            AddId::Auto => out.arg("*"),
            AddId::AutoSeq(ms) => out.arg(format!("{ms}-*")),
        }
        for (field, value) in self.fields {
            out.arg(field);
            out.arg(value);
        }
    }

    fn decode(frame: Frame) -> Result<R, Error> {
        R::from_frame(frame)
    }
}
