//! Errors. [`Error`] is the only error type that operations return; it redacts what servers repeat.

mod config_error;
mod describe;
mod kind;
mod reply;

pub use config_error::ConfigError;
use describe::description;
use kind::classify;
pub use kind::{ErrorKind, Sent};
use reply::{MAX_TEXT, server_text, withheld};
pub(crate) use reply::{error_reply, redact_frame};

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::redact::{self, Secrets};
use crate::{Frame, ParseStreamIdError, ProtocolError, Value};

/// The error of every operation of this crate. All other errors of the crate convert to it, so `?`
/// works on them.
///
/// The text names the operation, its target and the cause. It never contains a password of the
/// configuration, even if the server repeats it, and no control characters.
///
/// ```
/// # use resp::{Error, ErrorKind};
/// fn advice(error: &Error) -> &'static str {
///     match error.kind() {
///         ErrorKind::NoGroup => "create the group again",
///         kind if kind.is_transient() => "wait, then try again",
///         _ => "give up",
///     }
/// }
/// ```
#[derive(Clone)]
pub struct Error(Box<Inner>);

#[derive(Clone)]
struct Inner {
    kind: ErrorKind,
    sent: Sent,
    operation: String,
    message: Cow<'static, str>,
    code: String,
    source: Option<Source>,
}

#[derive(Clone, Debug)]
enum Source {
    Io(Arc<io::Error>),
    Protocol(ProtocolError),
    Config(ConfigError),
    StreamId(ParseStreamIdError),
}

/// What a `main` that returns the error prints: the whole text, and what a program can act on.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { kind, sent, code, source, .. } = &*self.0;
        let mut shown = f.debug_struct("Error");
        shown.field("text", &self.to_string()).field("kind", kind).field("sent", sent);
        if !code.is_empty() {
            shown.field("code", code);
        }
        if let Some(source) = source {
            shown.field("source", source);
        }
        shown.finish()
    }
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Inner {
            kind,
            sent: Sent::Maybe,
            operation: String::new(),
            message: redact::escape_control(message.into()),
            code: String::new(),
            source: None,
        }))
    }

    /// An error of the operating system, or of TLS: a refused certificate may be reported by the
    /// first read after the handshake.
    pub(crate) fn io(source: io::Error) -> Self {
        let error = match tls_refusal(&source) {
            Some(Refusal::NotTls) => Self::new(ErrorKind::Protocol, "this port does not speak TLS"),
            Some(Refusal::Other) => Self::new(ErrorKind::Tls, format!("TLS: {source}")),
            None => Self::new(ErrorKind::Io, source.to_string()),
        };
        error.with_source(Source::Io(Arc::new(source)))
    }

    fn with_source(mut self, source: Source) -> Self {
        self.0.source = Some(source);
        self
    }

    pub(crate) fn protocol(source: ProtocolError) -> Self {
        Self::new(ErrorKind::Protocol, source.to_string()).with_source(Source::Protocol(source))
    }

    pub(crate) fn timeout(time: Duration) -> Self {
        Self::new(ErrorKind::Timeout, format!("no result within {time:?}"))
    }

    pub(crate) fn stalled(time: Duration) -> Self {
        Self::new(ErrorKind::Timeout, format!("no data transferred for {time:?}"))
    }

    pub(crate) fn closed() -> Self {
        Self::new(ErrorKind::Closed, "an earlier error has closed the connection").with_sent(Sent::No)
    }

    /// Commands of a transaction may have been executed outside of one, because of a refusal.
    pub(crate) fn not_atomic(refused: Option<Self>) -> Self {
        const WHAT: &str = "the server began no transaction, so the commands may have been executed one by one";
        let Some(mut error) = refused else { return Self::new(ErrorKind::NotAtomic, WHAT) };
        error.0.kind = ErrorKind::NotAtomic;
        error.0.message = format!("{WHAT}: {}", error.0.message).into();
        error
    }

    /// Adds that the operation was connecting to `target`.
    pub(crate) fn connecting(mut self, target: impl fmt::Display, secrets: &Secrets) -> Self {
        self.0.operation = match self.0.operation.as_str() {
            "" => format!("connecting to {target}"),
            command => format!("connecting to {target}: {command}"),
        };
        self.0.sent = Sent::No;
        self.redact(secrets)
    }

    /// Adds which of several servers it was.
    pub(crate) fn at_server(mut self, place: &str) -> Self {
        self.0.operation = match self.0.operation.as_str() {
            "" => place.to_owned(),
            command => format!("{place}: {command}"),
        };
        self
    }

    /// Replaces the text.
    pub(crate) fn with_text(mut self, text: String) -> Self {
        self.0.operation = String::new();
        self.0.message = redact::escape_control(text.into());
        self
    }

    /// Parses an error reply.
    pub(crate) fn server(reply: Value<'_>) -> Self {
        let mut text = server_text(reply);
        let (kind, code) = classify(&text);
        let code = code.to_owned();
        if text.len() > MAX_TEXT {
            let end = (0..=MAX_TEXT).rev().find(|end| text.is_char_boundary(*end));
            text.truncate(end.unwrap_or_default());
            text.push('…');
        }
        let mut error = Self::new(kind, text);
        error.0.code = code;
        error
    }

    /// Creates the error for a reply of the wrong shape, in implementations of
    /// [`Command`](crate::Command) and [`FromReply`](crate::FromReply).
    ///
    /// The text contains the kinds and lengths of the values, and small integers. It does not
    /// contain strings: a reply may be a password, or personal data.
    #[must_use]
    pub fn unexpected_reply(expected: &str, got: Value<'_>) -> Self {
        Self::new(ErrorKind::UnexpectedReply, format!("expected {expected}, got {}", description(got)))
    }

    /// Withholds the error text of a command with a password, unless the text is known to repeat
    /// nothing.
    pub(crate) fn redact_arguments(mut self) -> Self {
        if self.is_server() && !redact::is_safe_auth_reply(&self.0.message) {
            self.withhold();
        }
        self
    }

    /// Withholds the text if it repeats a secret.
    pub(crate) fn redact(mut self, secrets: &Secrets) -> Self {
        let is_of_server = !matches!(self.0.kind, ErrorKind::Io | ErrorKind::Timeout);
        if is_of_server && secrets.occur_in(&self.0.message) {
            self.withhold();
        }
        self
    }

    /// Replaces the text by what the kind says.
    #[cold]
    fn withhold(&mut self) {
        if self.0.kind == ErrorKind::Other && self.0.code != "DENIED" && self.is_server() {
            "ERR".clone_into(&mut self.0.code);
        }
        self.0.message = withheld(self.0.kind, &self.0.code).into();
    }

    /// Adds the operation, unless an inner call did so.
    pub(crate) fn with_context(self, command: &str, key: Option<&[u8]>) -> Self {
        if self.0.operation.is_empty() { self.with_operation(operation(command, key)) } else { self }
    }

    /// Adds a described operation, unless an inner call did so.
    pub(crate) fn with_operation(mut self, operation: String) -> Self {
        if self.0.operation.is_empty() {
            self.0.operation = operation;
        }
        self
    }

    pub(crate) fn with_sent(mut self, sent: Sent) -> Self {
        self.0.sent = sent;
        self
    }

    /// Returns how many bytes the error takes.
    pub(crate) fn memory(&self) -> usize {
        let texts = [self.0.operation.len(), self.0.message.len(), self.0.code.len()];
        texts.into_iter().fold(size_of::<Inner>(), usize::saturating_add)
    }

    /// Returns the category.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Returns the first word of an error reply, such as `NOGROUP` or `ERR`; empty if the error is
    /// not the server's.
    #[must_use]
    pub fn code(&self) -> &str {
        &self.0.code
    }

    /// Returns the error reply (its first 4 KiB), or the cause, without the operation.
    ///
    /// Control characters and line breaks are escaped. Arguments that the server repeats, and texts
    /// that repeat a password, are left out.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// Returns whether the server may have executed the command.
    ///
    /// An error reply is [`Sent::Maybe`]: the server got the command, and some errors leave part of
    /// it done.
    #[must_use]
    pub fn sent(&self) -> Sent {
        self.0.sent
    }

    /// Returns whether a retry can succeed: see [`ErrorKind::is_transient`].
    #[must_use]
    pub fn is_transient(&self) -> bool {
        self.kind().is_transient()
    }

    /// Returns whether the connection is unusable: see [`ErrorKind::closes_connection`].
    #[must_use]
    pub fn closes_connection(&self) -> bool {
        self.kind().closes_connection()
    }

    /// Returns the protocol violation, if the [`kind`](Self::kind) is [`ErrorKind::Protocol`].
    #[must_use]
    pub fn protocol_error(&self) -> Option<ProtocolError> {
        match self.0.source {
            Some(Source::Protocol(error)) => Some(error),
            _ => None,
        }
    }

    /// Returns whether this is an error reply of the server.
    #[must_use]
    pub fn is_server(&self) -> bool {
        !self.0.code.is_empty()
    }
}

impl Frame {
    /// Turns an error frame into an [`Error`].
    ///
    /// # Errors
    ///
    /// The frame is an error that the server sent.
    pub fn into_result(self) -> Result<Self, Error> {
        if self.kind().is_error() { Err(Error::server(self.value())) } else { Ok(self) }
    }
}

/// Why TLS failed.
#[cfg_attr(not(feature = "tls"), allow(dead_code))]
enum Refusal {
    /// The data is not TLS.
    NotTls,
    Other,
}

#[cfg(feature = "tls")]
fn tls_refusal(error: &io::Error) -> Option<Refusal> {
    use tokio_rustls::rustls::Error as Tls;
    let cause = error.get_ref()?.downcast_ref::<Tls>()?;
    Some(if matches!(cause, Tls::InvalidMessage(_)) { Refusal::NotTls } else { Refusal::Other })
}

#[cfg(not(feature = "tls"))]
const fn tls_refusal(_: &io::Error) -> Option<Refusal> {
    None
}

/// Describes a command in errors.
pub(crate) fn operation(command: &str, key: Option<&[u8]>) -> String {
    let command = redact::command_name(command);
    match key {
        Some(key) => format!("{command} {}", key.escape_ascii()),
        None => command.to_owned(),
    }
}

impl From<ConfigError> for Error {
    fn from(error: ConfigError) -> Self {
        let kind = match error {
            ConfigError::Tls(_) | ConfigError::NoTls => ErrorKind::Tls,
            _ => ErrorKind::Config,
        };
        Self::new(kind, error.to_string()).with_sent(Sent::No).with_source(Source::Config(error))
    }
}

impl From<ParseStreamIdError> for Error {
    fn from(error: ParseStreamIdError) -> Self {
        Self::new(ErrorKind::Usage, error.to_string()).with_sent(Sent::No).with_source(Source::StreamId(error))
    }
}

impl From<ProtocolError> for Error {
    fn from(error: ProtocolError) -> Self {
        Self::protocol(error)
    }
}

/// [`ErrorKind::Io`].
impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Self::io(error)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.0.operation.is_empty() {
            write!(f, "{}: ", redact::escape_control(self.0.operation.clone().into()))?;
        }
        f.write_str(&self.0.message)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self.0.source.as_ref()? {
            Source::Io(error) => Some(&**error),
            Source::Protocol(error) => Some(error),
            Source::Config(error) => Some(error),
            Source::StreamId(error) => Some(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_replies_are_classified() {
        let table = [
            (
                "NOGROUP No such key 's' or consumer group 'g' in XREADGROUP with GROUP option",
                ErrorKind::NoGroup,
                "NOGROUP",
            ),
            ("WRONGTYPE Operation against a key holding the wrong kind of value", ErrorKind::WrongType, "WRONGTYPE"),
            (
                "ERR The ID specified in XADD is equal or smaller than the target stream top item",
                ErrorKind::IdTooSmall,
                "ERR",
            ),
            ("ERR no such key", ErrorKind::NoSuchKey, "ERR"),
            ("UNBLOCKED the stream key no longer exists", ErrorKind::NoSuchKey, "UNBLOCKED"),
            (
                "UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)",
                ErrorKind::NotMaster,
                "UNBLOCKED",
            ),
            ("UNBLOCKED client unblocked via CLIENT UNBLOCK", ErrorKind::Other, "UNBLOCKED"),
            ("ERR unknown command 'XNACK', with args beginning with: ", ErrorKind::UnknownCommand, "ERR"),
            ("ERR syntax error", ErrorKind::Syntax, "ERR"),
            ("ERR DB index is out of range", ErrorKind::NoSuchDatabase, "ERR"),
            ("ERR SELECT is not allowed in cluster mode", ErrorKind::NoSuchDatabase, "ERR"),
            ("ERR max number of clients reached", ErrorKind::MaxClients, "ERR"),
            ("EXECABORT Transaction discarded because of previous errors.", ErrorKind::ExecAbort, "EXECABORT"),
            ("EXECABORT Transaction discarded because of: BUSY Redis is busy", ErrorKind::Busy, "EXECABORT"),
            ("EXECABORT Transaction discarded because of: something new", ErrorKind::ExecAbort, "EXECABORT"),
            ("ERR something new", ErrorKind::Other, "ERR"),
            ("no code at all", ErrorKind::Other, "ERR"),
            ("", ErrorKind::Other, "ERR"),
            ("NEWCODE x", ErrorKind::Other, "NEWCODE"),
        ];
        for (text, kind, code) in table {
            assert_eq!(classify(text), (kind, code), "{text}");
        }
    }

    #[test]
    fn every_error_converts() {
        fn url(url: &str) -> Result<crate::Config, Error> {
            Ok(crate::Config::from_url(url)?)
        }
        fn id(id: &str) -> Result<crate::StreamId, Error> {
            Ok(id.parse()?)
        }
        use std::error::Error as _;
        let wrong = url("http://h").unwrap_err();
        assert_eq!((wrong.kind(), wrong.sent(), wrong.is_transient()), (ErrorKind::Config, Sent::No, false));
        assert!(wrong.source().is_some_and(<dyn std::error::Error>::is::<ConfigError>));
        assert_eq!(url("rediss://h?ca=").is_ok(), cfg!(feature = "tls"));
        assert_eq!(Error::from(ConfigError::NoTls).kind(), ErrorKind::Tls);
        assert_eq!(id("7").unwrap_err().kind(), ErrorKind::Usage);
        let protocol = Error::from(ProtocolError::TooDeep);
        assert_eq!((protocol.kind(), protocol.protocol_error()), (ErrorKind::Protocol, Some(ProtocolError::TooDeep)));
    }

    #[test]
    fn a_withheld_text_keeps_its_kind_and_code() {
        for text in [
            "ERR The ID specified in XADD is equal or smaller than the target stream top item",
            "ERR no such key",
            "ERR unknown command",
            "ERR syntax error",
            "ERR max number of clients reached",
            "WRONGPASS invalid username-password pair",
            "ERR invalid password",
            "NOAUTH Authentication required.",
            "ERR operation not permitted",
            "ERR EXEC without MULTI",
            "UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)",
            "ERR else",
            "READONLY x",
        ] {
            let (kind, code) = classify(text);
            assert_eq!(classify(&withheld(kind, code)), (kind, code), "{text}");
        }
    }

    #[test]
    fn the_text_names_the_operation() {
        let error = Error::new(ErrorKind::Oom, "OOM command not allowed").with_context("XADD", Some(b"my stream"));
        assert_eq!(error.to_string(), "XADD my stream: OOM command not allowed");
    }
}
