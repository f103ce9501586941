use std::time::Duration;

use bytes::BytesMut;

use crate::{Error, Frame, Request, Routing, text};

/// A command: how it is written, and what its reply means.
///
/// The trait is open: implement it for commands that this crate does not type (see [`Request`] for an example), or use
/// [`cmd`](crate::cmd()) for a quick one.
///
/// A command must be answered by exactly one reply. Those that are not (`SUBSCRIBE` in RESP2, `MONITOR`, `CLIENT REPLY OFF`)
/// cannot be sent this way.
pub trait Command {
    /// What the reply is decoded to.
    type Reply;

    /// The command's name, for errors.
    fn name(&self) -> &str;

    /// The key that the command is about, for errors.
    fn key(&self) -> Option<&[u8]> {
        None
    }

    /// Where in a cluster it goes: to the node that has its [`key`](Self::key). A command with several keys says
    /// [`Routing::of_keys`] of all of them.
    fn routing(&self) -> Routing {
        self.key().map_or(Routing::Anywhere, Routing::of_key)
    }

    /// Writes the command's name and arguments.
    fn encode(&self, out: &mut Request<'_>);

    /// Whether the command may go over a [`Client`](crate::Client)'s connection, which many share: not if it waits in the
    /// server, or changes the connection's state. Known by its name, unless this is overridden.
    fn is_shareable(&self) -> bool {
        is_shareable(self.name())
    }

    /// Makes the typed reply from a frame that is no error. The command itself is not asked: it may be gone by then, and what a reply
    /// means is seen from its shape.
    ///
    /// # Errors
    ///
    /// When the reply has a shape that the command does not know.
    fn decode(frame: Frame) -> Result<Self::Reply, Error>;
}

impl<C: Command + ?Sized> Command for &C {
    type Reply = C::Reply;

    fn name(&self) -> &str {
        (**self).name()
    }

    fn key(&self) -> Option<&[u8]> {
        (**self).key()
    }

    fn routing(&self) -> Routing {
        (**self).routing()
    }

    fn encode(&self, out: &mut Request<'_>) {
        (**self).encode(out);
    }

    fn is_shareable(&self) -> bool {
        (**self).is_shareable()
    }

    fn decode(frame: Frame) -> Result<Self::Reply, Error> {
        C::decode(frame)
    }
}

/// Whether a command of this name has no reply of its own: what answers it are push messages.
pub(crate) fn is_answered_by_pushes(name: &str) -> bool {
    const SUCH: [&str; 6] = ["PSUBSCRIBE", "PUNSUBSCRIBE", "SSUBSCRIBE", "SUBSCRIBE", "SUNSUBSCRIBE", "UNSUBSCRIBE"];
    SUCH.iter().any(|such| such.eq_ignore_ascii_case(name))
}

/// Whether a command of this name leaves the connection as it was, and lets others pass.
pub(crate) fn is_shareable(name: &str) -> bool {
    const NOT: [&str; 29] = [
        "AUTH",
        "BLMOVE",
        "BLMPOP",
        "BLPOP",
        "BRPOP",
        "BRPOPLPUSH",
        "BZMPOP",
        "BZPOPMAX",
        "BZPOPMIN",
        "CLIENT REPLY",
        "DISCARD",
        "EXEC",
        "HELLO",
        "MONITOR",
        "MULTI",
        "PSUBSCRIBE",
        "PSYNC",
        "PUNSUBSCRIBE",
        "QUIT",
        "RESET",
        "SELECT",
        "SSUBSCRIBE",
        "SUBSCRIBE",
        "SUNSUBSCRIBE",
        "SYNC",
        "UNSUBSCRIBE",
        "WAIT",
        "WAITAOF",
        "WATCH",
    ];
    // The stream commands, which are what this crate is for, pass at once.
    name.starts_with('X') || !NOT.iter().any(|word| name.eq_ignore_ascii_case(word))
}

/// Appends a command to a buffer.
#[inline]
pub(crate) fn encode<C: Command + ?Sized>(command: &C, buf: &mut BytesMut) {
    let mut request = Request::new(buf);
    command.encode(&mut request);
    request.finish();
}

/// The typed reply of a command, or the error that the server sent instead.
pub(crate) fn decode<C: Command + ?Sized>(command: &C, frame: Frame) -> Result<C::Reply, Error> {
    frame.into_result().and_then(C::decode).map_err(|error| {
        let error = if text::name_of_secretive(command.name()).is_some() { error.without_arguments() } else { error };
        error.during(command.name(), command.key())
    })
}

/// How long a blocking command may wait in the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Block {
    /// At most so long; rounded up to whole milliseconds, and at least one, because 0 means for ever.
    For(Duration),
    /// Until there is something.
    Forever,
}

impl Block {
    /// The number that `BLOCK` takes.
    pub(crate) fn millis(self) -> u64 {
        match self {
            Self::For(time) => {
                u64::try_from(time.as_micros().div_ceil(1000)).unwrap_or(u64::MAX).clamp(1, i64::MAX as u64)
            }
            Self::Forever => 0,
        }
    }
}

/// A command that waits in the server, and so needs a connection of its own.
///
/// It is no [`Command`]: [`Connection::send_blocking`](crate::Connection::send_blocking) takes it, nothing that is shared does.
///
/// ```
/// use std::time::Duration;
/// use resp::{Block, Blocking, cmd};
///
/// let pop = Blocking::new(cmd("BLPOP").arg("jobs").arg(5), Block::For(Duration::from_secs(5)));
/// ```
#[derive(Clone, Debug)]
pub struct Blocking<C> {
    command: C,
    block: Block,
}

impl<C: Command> Blocking<C> {
    /// Says that a command, which must itself carry the argument for it, blocks so long.
    pub const fn new(command: C, block: Block) -> Self {
        Self { command, block }
    }

    /// The command.
    pub const fn command(&self) -> &C {
        &self.command
    }

    /// How long it blocks.
    pub const fn block(&self) -> Block {
        self.block
    }
}
