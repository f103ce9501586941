use bytes::{Bytes, BytesMut};

use crate::command;
use crate::{Command, Error, Frame, Request, Routing, StreamId, cluster};

/// A command in words, for everything that is not typed. The reply is the [`Frame`] itself.
///
/// Words in the name become arguments of their own.
///
/// ```no_run
/// # async fn example(connection: &mut resp::Connection) -> Result<(), resp::Error> {
/// use resp::cmd;
///
/// let frame = connection.send(&cmd("CONFIG GET").arg("maxmemory")).await?;
/// let maxmemory = frame.value().get(b"maxmemory").and_then(|value| value.as_u64());
/// # Ok(())
/// # }
/// ```
#[must_use]
pub fn cmd(name: &str) -> Cmd {
    let mut cmd = Cmd { name: name.to_owned(), args: 0, encoded: BytesMut::with_capacity(64), keys: None };
    for word in name.split_ascii_whitespace() {
        cmd = cmd.arg(word);
    }
    cmd
}

/// A command in words: see [`cmd()`].
#[derive(Clone)]
pub struct Cmd {
    name: String,
    args: usize,
    encoded: BytesMut,
    /// Where the arguments that were said to be keys lie.
    keys: Option<Routing>,
}

impl Cmd {
    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, arg: impl Arg) -> Self {
        let mut request = Request::new(&mut self.encoded);
        arg.write(&mut request);
        self.args += 1;
        self
    }

    /// Adds an argument that is a key, by which a [`ClusterClient`](crate::ClusterClient) finds the node.
    ///
    /// Where no argument was said to be one, they are found by the command's name, as for all commands of Redis itself; of a command that is not
    /// known, the first argument is the key.
    ///
    /// ```
    /// use resp::{Command, Routing, cmd};
    ///
    /// assert_eq!(cmd("GET").arg("foo").routing(), Routing::of_key(b"foo"));
    /// assert_eq!(cmd("MODULE.DO").arg("option").key_arg("foo").routing(), Routing::of_key(b"foo"));
    /// assert_eq!(cmd("MGET").arg("foo").arg("bar").routing(), Routing::CrossSlot);
    /// ```
    #[must_use]
    pub fn key_arg(mut self, key: impl AsRef<[u8]>) -> Self {
        let key = key.as_ref();
        self.keys = Some(self.keys.unwrap_or(Routing::Anywhere).and(Routing::of_key(key)));
        self.arg(key)
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<A: Arg>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        for arg in args {
            self = self.arg(arg);
        }
        self
    }
}

/// Names the command only: an argument may be a password.
impl std::fmt::Debug for Cmd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({} arguments)", crate::error::doing(&self.name, None), self.args)
    }
}

impl Command for Cmd {
    type Reply = Frame;

    fn name(&self) -> &str {
        &self.name
    }

    fn encode(&self, out: &mut Request<'_>) {
        out.encoded(self.args, &self.encoded);
    }

    /// By the arguments that were said to be keys, else by the command's name.
    fn routing(&self) -> Routing {
        self.keys.unwrap_or_else(|| {
            let mut rest = &self.encoded[..];
            cluster::routing_of(std::iter::from_fn(|| {
                let (word, behind) = split_arg(rest)?;
                rest = behind;
                Some(word)
            }))
        })
    }

    /// By its first word, or first two; and a read of streams must not block.
    fn is_shareable(&self) -> bool {
        let (first, rest) = first_word(&self.encoded);
        if first.starts_with("XREAD") {
            return !self.encoded.windows(9).any(|part| part.eq_ignore_ascii_case(b"\r\nBLOCK\r\n"));
        }
        let first_two = format!("{first} {}", first_word(rest).0);
        command::is_shareable(&first) && command::is_shareable(&first_two)
    }

    fn decode(frame: Frame) -> Result<Frame, Error> {
        Ok(frame)
    }
}

/// The first of some encoded arguments, in capitals, and those behind it.
fn first_word(encoded: &[u8]) -> (String, &[u8]) {
    let (word, rest) = split_arg(encoded).unwrap_or_default();
    (String::from_utf8_lossy(word).to_ascii_uppercase(), rest)
}

/// The first of some encoded arguments, and those behind it.
fn split_arg(encoded: &[u8]) -> Option<(&[u8], &[u8])> {
    let header = memchr::memchr(b'\r', encoded)?;
    let len = usize::try_from(crate::number::parse_u64(encoded.get(1..header)?)?).ok()?;
    let start = header + 2;
    Some((encoded.get(start..start + len)?, encoded.get(start + len + 2..)?))
}

/// What can be an argument of a [`Cmd`]: bytes, text, whole numbers and stream IDs.
pub trait Arg {
    /// Writes it as one argument.
    fn write(&self, out: &mut Request<'_>);
}

impl<A: Arg + ?Sized> Arg for &A {
    fn write(&self, out: &mut Request<'_>) {
        (**self).write(out);
    }
}

impl<const N: usize> Arg for [u8; N] {
    fn write(&self, out: &mut Request<'_>) {
        out.arg(self);
    }
}

impl Arg for StreamId {
    fn write(&self, out: &mut Request<'_>) {
        out.arg_id(*self);
    }
}

impl Arg for usize {
    fn write(&self, out: &mut Request<'_>) {
        out.arg_int(*self as u64);
    }
}

macro_rules! args {
    ($write:ident: $($type:ty),*) => {
        $(impl Arg for $type {
            fn write(&self, out: &mut Request<'_>) {
                out.$write(self.clone());
            }
        })*
    };
}

args!(arg_int: u8, u16, u32, u64, i8, i16, i32, i64);

macro_rules! byte_args {
    ($($type:ty),*) => {
        $(impl Arg for $type {
            fn write(&self, out: &mut Request<'_>) {
                out.arg(self);
            }
        })*
    };
}

byte_args!(str, String, [u8], Vec<u8>, Bytes, BytesMut);
