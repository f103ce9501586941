//! Commands: encoding, typed replies, and routing in a cluster.
//!
//! [`Command`] is the trait that every connection accepts. [`Cmd`] implements it for untyped
//! commands, and the files of [`streams`](crate::streams) for typed ones.

mod arg;
mod cmd;
mod from_reply;
mod keys;
mod routing;
pub(crate) mod slot;
pub(crate) mod writer;

pub use arg::CommandArg;
pub use cmd::{Cmd, cmd};
pub use from_reply::FromReply;
pub use routing::Routing;
pub use writer::CommandWriter;

use std::time::Duration;

use bytes::BytesMut;

use crate::{Error, ErrorKind, Frame, Sent};
use cmd::split_arg;

/// A command: how to encode it, and how to decode its reply.
///
/// Implement the trait for commands that this crate does not type (see [`CommandWriter`] for an
/// example), or use [`cmd`](crate::cmd()) for one-off commands.
///
/// A command must have exactly one reply, and must not change the replies to other commands. Others
/// are refused with [`ErrorKind::Usage`], however they are written: the `SUBSCRIBE` family (use
/// [`Connection::subscribe`](crate::Connection::subscribe)), `MONITOR`, `SYNC`, `PSYNC`,
/// `REPLCONF`, `CLIENT REPLY OFF` and `SKIP`, `QUIT`, `RESET`, and `HELLO` with a version.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a command that may be sent here",
    note = "send a `Blocking` command with `Connection::send_blocking`",
    note = "a `Cmd<R>` is a command if its reply `R` implements `FromReply`"
)]
pub trait Command {
    /// The decoded reply.
    type Reply;

    /// Returns the command's name, for errors.
    fn name(&self) -> &str;

    /// Returns the command's key, for errors and routing.
    fn key(&self) -> Option<&[u8]> {
        None
    }

    /// Returns the routing in a cluster: by default, to the owner of the [`key`](Self::key);
    /// without a key, the [`name`](Self::name) decides whether any node will do. For several keys,
    /// return [`Routing::of_keys`].
    fn routing(&self) -> Routing {
        let without_key = || keys::routing(self.name().split_ascii_whitespace().map(str::as_bytes));
        self.key().map_or_else(without_key, Routing::of_key)
    }

    /// Writes the command's name and arguments.
    fn encode(&self, out: &mut CommandWriter<'_>);

    /// Returns whether the command may use the shared connection of a [`Client`](crate::Client):
    /// not if it blocks, or changes the connection's state. The default decides by the name.
    fn is_shareable(&self) -> bool {
        is_shareable(self.name())
    }

    /// Decodes a reply that is no error. There is no `self`: the command may be gone by then, and
    /// the shape of the reply decides.
    ///
    /// # Errors
    ///
    /// The reply has an unexpected shape.
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

    fn encode(&self, out: &mut CommandWriter<'_>) {
        (**self).encode(out);
    }

    fn is_shareable(&self) -> bool {
        (**self).is_shareable()
    }

    fn decode(frame: Frame) -> Result<Self::Reply, Error> {
        C::decode(frame)
    }
}

/// Returns why an encoded command does not have exactly one reply, or changes other replies; `None`
/// for all others.
fn refusal(encoded: &[u8]) -> Option<&'static str> {
    // The stream commands, of which there may be millions, are seen at a glance.
    if let [b'*', _, b'\r', b'\n', b'$', _, b'\r', b'\n', b'X', ..] = encoded {
        return None;
    }
    let mut words = words(encoded);
    let name = words.next()?;
    // Few commands start with these letters, and no stream command does.
    if !matches!(name.first()?.to_ascii_uppercase(), b'C' | b'H' | b'M' | b'P' | b'Q' | b'R' | b'S' | b'U') {
        return None;
    }
    let mut capitals = [0; b"PUNSUBSCRIBE".len()];
    let capitals = capitals.get_mut(..name.len())?;
    capitals.copy_from_slice(name);
    capitals.make_ascii_uppercase();
    let mut is_next = |word: &str| words.next().is_some_and(|next| next.eq_ignore_ascii_case(word.as_bytes()));
    match &*capitals {
        b"SUBSCRIBE" | b"PSUBSCRIBE" | b"SSUBSCRIBE" | b"UNSUBSCRIBE" | b"PUNSUBSCRIBE" | b"SUNSUBSCRIBE" => {
            Some("is answered by push messages: use Connection::subscribe")
        }
        b"MONITOR" | b"SYNC" | b"PSYNC" | b"REPLCONF" => Some("does not have exactly one reply"),
        b"CLIENT" if is_next("REPLY") && !is_next("ON") => Some("suppresses replies"),
        b"QUIT" => Some("closes the connection: drop it instead"),
        b"RESET" => Some("changes the RESP version: reconnect instead"),
        b"HELLO" if words.next().is_some() => Some("changes the RESP version: use Config::resp2"),
        _ => None,
    }
}

/// Returns whether an encoded command is answered by push messages.
pub(crate) fn is_subscription(encoded: &[u8]) -> bool {
    let name = words(encoded).next().unwrap_or_default();
    let kind = name.len().checked_sub(b"SUBSCRIBE".len()).and_then(|at| name.split_at_checked(at));
    kind.is_some_and(|(kind, subscribe)| {
        subscribe.eq_ignore_ascii_case(b"SUBSCRIBE")
            && ["", "P", "S", "UN", "PUN", "SUN"].iter().any(|such| kind.eq_ignore_ascii_case(such.as_bytes()))
    })
}

/// Returns whether an encoded command enables (`true`) or disables client-side caching; `None` for
/// all others.
pub(crate) fn tracking(encoded: &[u8]) -> Option<bool> {
    let mut words = words(encoded);
    let mut is_next = |word: &str| words.next().is_some_and(|next| next.eq_ignore_ascii_case(word.as_bytes()));
    (is_next("CLIENT") && is_next("TRACKING")).then(|| is_next("ON"))
}

/// Returns whether an encoded command starts or ends a transaction.
pub(crate) fn is_transaction_control(encoded: &[u8]) -> bool {
    let name = words(encoded).next().unwrap_or_default();
    [&b"MULTI"[..], b"EXEC", b"DISCARD", b"WATCH"].iter().any(|word| name.eq_ignore_ascii_case(word))
}

/// Returns whether the arguments of a command may contain a password, however it is written.
#[cold]
fn holds_secret<C: Command + ?Sized>(command: &C) -> bool {
    let mut encoded = BytesMut::new();
    encode(command, &mut encoded);
    is_secret(&encoded)
}

/// Returns whether the arguments of an encoded command may contain a password.
pub(crate) fn is_secret(encoded: &[u8]) -> bool {
    const OPTIONS: [&[u8]; 7] =
        [b"AUTH", b"AUTH2", b"AUTH-PASS", b"REQUIREPASS", b"MASTERAUTH", b"PRIMARYAUTH", b"SENTINEL-PASS"];
    let mut words = words(encoded);
    let first = words.next().unwrap_or_default();
    let starts = first.first().map(u8::to_ascii_uppercase);
    if !matches!(starts, Some(b'A' | b'C' | b'H' | b'M' | b'S')) {
        return false;
    }
    let is = |name: &str| first.eq_ignore_ascii_case(name.as_bytes());
    if is("AUTH") || is("HELLO") {
        return true;
    }
    if is("ACL") {
        return words.next().is_some_and(|next| next.eq_ignore_ascii_case(b"SETUSER"));
    }
    let is_option = |word: &[u8]| {
        OPTIONS.iter().any(|option| word.eq_ignore_ascii_case(option))
            || (word.len() > b"KEY-FILE-PASS".len() && word.to_ascii_uppercase().ends_with(b"KEY-FILE-PASS"))
    };
    (is("CONFIG") || is("SENTINEL") || is("MIGRATE")) && words.any(is_option)
}

/// Returns the arguments of an encoded command, with the name first.
fn words(encoded: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest =
        memchr::memchr(b'\n', encoded).and_then(|end| encoded.get(end.checked_add(1)?..)).unwrap_or_default();
    std::iter::from_fn(move || {
        let (word, behind) = split_arg(rest)?;
        rest = behind;
        Some(word)
    })
}

/// Returns why a command of this name must not use a shared connection, and what to do instead;
/// `None` for all others.
fn sharing_refusal(name: &str) -> Option<&'static str> {
    const REFUSALS: [(&[&str], &str); 6] = [
        (
            &[
                "BLMOVE",
                "BLMPOP",
                "BLPOP",
                "BRPOP",
                "BRPOPLPUSH",
                "BZMPOP",
                "BZPOPMAX",
                "BZPOPMIN",
                "WAIT",
                "WAITAOF",
                "XREAD",
                "XREADGROUP",
            ],
            "blocks all callers: use Connection::send_blocking with a Blocking command",
        ),
        (
            &["DISCARD", "EXEC", "MULTI"],
            "changes the connection of all callers: use a Transaction, or a Connection of your own",
        ),
        (&["WATCH"], "changes the connection of all callers: use a Connection of your own, with Connection::exec"),
        (&["SELECT"], "changes the connection of all callers: set Config::database, or /N in the URL"),
        (&["AUTH"], "changes the connection of all callers: set Config::user and Config::password"),
        (
            &["ASKING", "READONLY", "READWRITE"],
            "changes the connection of all callers: use a ClusterClient, which does it for you",
        ),
    ];
    // Commands without exactly one reply, which `refusal` explains.
    const OTHERS: [&str; 14] = [
        "CLIENT REPLY",
        "HELLO",
        "MONITOR",
        "PSUBSCRIBE",
        "PSYNC",
        "PUNSUBSCRIBE",
        "QUIT",
        "REPLCONF",
        "RESET",
        "SSUBSCRIBE",
        "SUBSCRIBE",
        "SUNSUBSCRIBE",
        "SYNC",
        "UNSUBSCRIBE",
    ];
    let is = |word: &&str| name.eq_ignore_ascii_case(word);
    let why = REFUSALS.iter().find(|(names, _)| names.iter().any(is)).map(|(_, why)| *why);
    why.or_else(|| OTHERS.iter().any(is).then_some(NOT_SHAREABLE))
}

/// Why a command that says so of itself must not use a shared connection.
const NOT_SHAREABLE: &str = "must not use a shared connection: use a Connection of your own";

/// Returns whether a command of this name neither blocks nor changes the connection's state. Reads
/// of streams block only with an option.
pub(crate) fn is_shareable(name: &str) -> bool {
    // Fast path for stream commands.
    name.starts_with(['X', 'x']) || sharing_refusal(name).is_none()
}

/// Returns the error of a command that must not use a shared connection.
#[cold]
pub(crate) fn not_shareable<C: Command + ?Sized>(command: &C) -> Error {
    let mut encoded = BytesMut::new();
    let why = encode_checked(command, &mut encoded).err().unwrap_or_else(|| {
        let first = String::from_utf8_lossy(words(&encoded).next().unwrap_or_default());
        Error::new(ErrorKind::Usage, sharing_refusal(&first).unwrap_or(NOT_SHAREABLE))
    });
    why.with_sent(Sent::No).with_context(command.name(), command.key())
}

/// Appends a command to a buffer.
#[inline]
pub(crate) fn encode<C: Command + ?Sized>(command: &C, buf: &mut BytesMut) {
    let mut request = CommandWriter::new(buf);
    command.encode(&mut request);
    request.finish();
}

/// Appends a command that has exactly one reply. Appends nothing for others.
#[inline]
pub(crate) fn encode_checked<C: Command + ?Sized>(command: &C, buf: &mut BytesMut) -> Result<(), Error> {
    let start = buf.len();
    encode(command, buf);
    match refusal(buf.get(start..).unwrap_or_default()) {
        None => Ok(()),
        Some(why) => {
            buf.truncate(start);
            Err(Error::new(ErrorKind::Usage, why).with_sent(Sent::No).with_context(command.name(), command.key()))
        }
    }
}

/// Takes the place of a refused command whose reply is already promised. No server knows it, so the
/// reply is an error, and a transaction around it is not executed.
pub(crate) const REFUSED_COMMAND: &[u8] = b"*1\r\n$46\r\nrefused: the command has not exactly one reply\r\n";

/// Decodes the reply of a command, or returns the server's error.
pub(crate) fn decode<C: Command + ?Sized>(command: &C, frame: Frame) -> Result<C::Reply, Error> {
    frame.into_result().and_then(C::decode).map_err(|error| {
        let error = if error.is_server() && holds_secret(command) { error.redact_arguments() } else { error };
        error.with_context(command.name(), command.key())
    })
}

/// How long a blocking command may wait in the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockTimeout {
    /// At most this long, rounded up to whole milliseconds, and at least one, because 0 blocks
    /// forever.
    For(Duration),
    /// Until there is a reply.
    Forever,
}

impl BlockTimeout {
    /// Returns the argument of `BLOCK`.
    pub(crate) fn millis(self) -> u64 {
        match self {
            Self::For(time) => {
                u64::try_from(time.as_micros().div_ceil(1000)).unwrap_or(u64::MAX).clamp(1, i64::MAX.unsigned_abs())
            }
            Self::Forever => 0,
        }
    }
}

/// A command that blocks in the server, and therefore needs its own connection.
///
/// It does not implement [`Command`]: only
/// [`Connection::send_blocking`](crate::Connection::send_blocking) accepts it, and no shared
/// connection does.
///
/// ```
/// use std::time::Duration;
/// use resp::{BlockTimeout, Blocking, cmd};
///
/// let pop = Blocking::new(cmd::<Option<(String, String)>>("BLPOP").arg("jobs").arg(5), BlockTimeout::For(Duration::from_secs(5)));
/// ```
#[derive(Clone, Debug)]
pub struct Blocking<C> {
    command: C,
    block: BlockTimeout,
}

impl<C: Command> Blocking<C> {
    /// Declares how long a command blocks. The command must also contain that argument.
    pub const fn new(command: C, block: BlockTimeout) -> Self {
        Self { command, block }
    }

    /// Returns the command.
    pub const fn command(&self) -> &C {
        &self.command
    }

    /// Returns how long it blocks.
    pub const fn block(&self) -> BlockTimeout {
        self.block
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cmd;

    #[test]
    fn commands_with_passwords_are_known_however_they_are_written() {
        let is = |name: &str, args: &[&str]| holds_secret(&cmd::<()>(name).args(args));
        for (name, args) in [
            ("auth", &["s3cret"][..]),
            ("AUTH s3cret", &[]),
            ("HELLO", &["3", "AUTH", "me", "s3cret"]),
            ("ACL", &["SetUser", "me", ">s3cret"]),
            ("ACL SETUSER me", &[">s3cret"]),
            ("CONFIG", &["set", "requirepass", "s3cret"]),
            ("CONFIG SET", &["tls-client-key-file-pass", "s3cret"]),
            ("SENTINEL SET", &["m", "auth-pass", "s3cret"]),
            ("MIGRATE", &["h", "1", "k", "0", "1", "AUTH", "s3cret"]),
        ] {
            assert!(is(name, args), "{name} {args:?}");
        }
        for (name, args) in
            [("ACL", &["WHOAMI"][..]), ("CONFIG SET", &["maxmemory", "1"]), ("SET", &["AUTH", "a"]), ("", &[])]
        {
            assert!(!is(name, args), "{name} {args:?}");
        }
    }

    #[test]
    fn commands_without_exactly_one_reply_are_refused() {
        let refused = |command: &crate::Cmd| {
            let mut out = BytesMut::from("before");
            let refused = encode_checked(command, &mut out).is_err();
            assert!(!refused || out == "before");
            refused
        };
        for command in [
            "SUBSCRIBE a",
            "psubscribe a",
            "SSubscribe a",
            "UNSUBSCRIBE",
            "PUnsubscribe",
            "sunsubscribe a",
            "MONITOR",
            "monitor",
            "Sync",
            "PSYNC ? -1",
            "REPLCONF ack 1",
            "CLIENT REPLY OFF",
            "client Reply skip",
            "CLIENT reply",
            "QUIT",
            "quit",
            "RESET",
            "HELLO 3",
            "hello 2 AUTH a b",
        ] {
            let in_parts = command.split(' ').skip(1).fold(cmd(command.split(' ').next().unwrap()), crate::Cmd::arg);
            assert!(refused(&cmd(command)) && refused(&in_parts), "{command}");
        }
        for command in [
            "GET a",
            "HELLO",
            "CLIENT REPLY ON",
            "CLIENT ID",
            "PUBLISH a b",
            "SPUBLISH a b",
            "SELECT 1",
            "PING",
            "XADD s * a b",
            "MULTI",
            "REPLICAOF NO ONE",
            "PUBSUB CHANNELS",
            "ROLE",
            "GET MONITOR",
            "ECHO SUBSCRIBE",
            "RESTORE a 0 b",
            "",
        ] {
            assert!(!refused(&cmd(command)), "{command}");
        }
        assert!(!refused(&cmd("").arg("")));
    }

    /// The name that the command claims makes no difference.
    #[test]
    fn the_encoded_words_decide() {
        struct Liar;
        impl Command for Liar {
            type Reply = Frame;
            fn name(&self) -> &str {
                "XLEN"
            }
            fn encode(&self, out: &mut CommandWriter<'_>) {
                // Longer than announced.
                out.command("client", 0);
                out.arg("reply");
                out.arg("off");
            }
            fn decode(frame: Frame) -> Result<Frame, Error> {
                Ok(frame)
            }
        }
        encode_checked(&Liar, &mut BytesMut::new()).unwrap_err();
        let mut placeholder = BytesMut::from(REFUSED_COMMAND);
        let frame = crate::Decoder::default().decode(&mut placeholder).unwrap();
        assert!(placeholder.is_empty() && frame.is_some_and(|frame| frame.value().children().len() == 1));
    }

    #[test]
    fn subscriptions_are_recognised() {
        let is = |text: &str| {
            let mut out = BytesMut::new();
            encode(&cmd::<()>(text), &mut out);
            (is_subscription(&out), is_transaction_control(&out))
        };
        for text in ["SUBSCRIBE a", "unsubscribe", "PSUBSCRIBE a", "punsubscribe", "ssubscribe a", "SUNSUBSCRIBE"] {
            assert_eq!(is(text), (true, false), "{text}");
        }
        for text in ["XSUBSCRIBE", "SUB", "", "GET SUBSCRIBE"] {
            assert_eq!(is(text), (false, false), "{text}");
        }
        assert_eq!((is("exec"), is("Multi"), is("EXECUTE")), ((false, true), (false, true), (false, false)));
    }
}
