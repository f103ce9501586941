//! Untyped commands.

use std::fmt;
use std::marker::PhantomData;

use bytes::BytesMut;

use super::{Command, CommandArg, CommandWriter, FromReply, Routing, keys};
use crate::{Error, Frame};

/// Creates an untyped command.
///
/// Each word of the name becomes an argument. The reply has the type that you ask for: see
/// [`FromReply`]. If nothing determines the type, name it: `cmd::<()>` ignores the reply, and
/// `cmd::<Frame>` accepts any shape.
///
/// ```no_run
/// # async fn example(connection: &mut resp::Connection) -> Result<(), resp::Error> {
/// use std::collections::HashMap;
/// use resp::cmd;
///
/// connection.send(cmd::<()>("SET").arg("visits").arg(41)).await?;
/// let visits: u64 = connection.send(cmd("INCR").arg("visits")).await?;
/// let settings: HashMap<String, String> = connection.send(cmd("CONFIG GET").arg("maxmemory*")).await?;
/// # Ok(())
/// # }
/// ```
#[must_use]
pub fn cmd<R>(name: &str) -> Cmd<R> {
    let mut cmd =
        Cmd { name: name.to_owned(), args: 0, encoded: BytesMut::with_capacity(64), keys: None, reply: PhantomData };
    for word in name.split_ascii_whitespace() {
        cmd = cmd.arg(word);
    }
    cmd
}

/// An untyped command with a reply of type `R`: see [`cmd()`].
pub struct Cmd<R = Frame> {
    name: String,
    args: usize,
    encoded: BytesMut,
    /// The routing of the arguments that were added as keys.
    keys: Option<Routing>,
    reply: PhantomData<fn() -> R>,
}

impl<R> Cmd<R> {
    /// Adds one argument, or the arguments of a list: see [`CommandArg`].
    #[must_use]
    pub fn arg(mut self, arg: impl CommandArg) -> Self {
        let mut request = CommandWriter::new(&mut self.encoded);
        arg.write(&mut request);
        self.args = self.args.saturating_add(request.written());
        self
    }

    /// Adds a key, by which a [`ClusterClient`](crate::ClusterClient) finds the node.
    ///
    /// Without this, the name of the command determines the keys, for all commands of Redis itself.
    /// Of an unknown command, the first argument is the key.
    ///
    /// ```
    /// use resp::{Command, Routing, cmd};
    ///
    /// assert_eq!(cmd::<()>("GET").arg("foo").routing(), Routing::of_key(b"foo"));
    /// assert_eq!(cmd::<()>("MODULE.DO").arg("option").key_arg("foo").routing(), Routing::of_key(b"foo"));
    /// assert_eq!(cmd::<()>("MGET").arg("foo").arg("bar").routing(), Routing::CrossSlot);
    /// ```
    #[must_use]
    pub fn key_arg(mut self, key: impl AsRef<[u8]>) -> Self {
        let key = key.as_ref();
        self.keys = Some(self.keys.unwrap_or(Routing::Anywhere).and(Routing::of_key(key)));
        self.arg(key)
    }

    /// Adds the arguments of an iterator. A pair of a map is two arguments.
    #[must_use]
    pub fn args<A: CommandArg>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        for arg in args {
            self = self.arg(arg);
        }
        self
    }
}

/// Shows only the name: an argument may be a password.
impl<R> fmt::Debug for Cmd<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} arguments)", crate::error::operation(&self.name, None), self.args)
    }
}

impl<R> Clone for Cmd<R> {
    fn clone(&self) -> Self {
        Self {
            name: self.name.clone(),
            args: self.args,
            encoded: self.encoded.clone(),
            keys: self.keys,
            reply: PhantomData,
        }
    }
}

impl<R: FromReply> Command for Cmd<R> {
    type Reply = R;

    fn name(&self) -> &str {
        &self.name
    }

    fn encode(&self, out: &mut CommandWriter<'_>) {
        out.encoded(self.args, &self.encoded);
    }

    /// The added keys decide, else the command's name.
    fn routing(&self) -> Routing {
        self.keys.unwrap_or_else(|| {
            let mut rest = &self.encoded[..];
            keys::routing(std::iter::from_fn(|| {
                let (word, behind) = split_arg(rest)?;
                rest = behind;
                Some(word)
            }))
        })
    }

    /// The first one or two words decide; a read of streams must not block.
    fn is_shareable(&self) -> bool {
        let (first, rest) = first_word(&self.encoded);
        if first.starts_with("XREAD") {
            return !self.encoded.windows(9).any(|part| part.eq_ignore_ascii_case(b"\r\nBLOCK\r\n"));
        }
        let first_two = format!("{first} {}", first_word(rest).0);
        super::is_shareable(&first) && super::is_shareable(&first_two)
    }

    fn decode(frame: Frame) -> Result<R, Error> {
        R::from_frame(frame)
    }
}

/// Returns the first encoded argument in upper case, and the rest.
fn first_word(encoded: &[u8]) -> (String, &[u8]) {
    let (word, rest) = split_arg(encoded).unwrap_or_default();
    (String::from_utf8_lossy(word).to_ascii_uppercase(), rest)
}

/// Returns the first encoded argument, and the rest.
pub(crate) fn split_arg(encoded: &[u8]) -> Option<(&[u8], &[u8])> {
    let header = memchr::memchr(b'\r', encoded)?;
    let len = usize::try_from(crate::protocol::number::parse_u64(encoded.get(1..header)?)?).ok()?;
    let (word, behind) = encoded.get(header.checked_add(2)?..)?.split_at_checked(len)?;
    Some((word, behind.get(2..)?))
}
