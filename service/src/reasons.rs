//! Why something is unusable and what is allowed instead, as short phrases.

use std::borrow::Cow;
use std::error::Error as _;
use std::io;

use resp::{Config, Endpoint, Error, ErrorKind, ProtocolError};

/// Why Redis refused a command; shorter than the text of some servers.
#[must_use]
pub fn reason(error: &Error) -> Cow<'_, str> {
    match error.kind() {
        ErrorKind::NoAuth => "NOAUTH: this Redis requires a password".into(),
        ErrorKind::WrongPass => "WRONGPASS: this Redis does not know the user or the password".into(),
        ErrorKind::Protocol => match error.source().and_then(|source| source.downcast_ref()) {
            Some(ProtocolError::UnknownType(b'H' | b'<')) => "a web server answers there, not Redis".into(),
            Some(ProtocolError::UnknownType(b'S')) => "an SSH server answers there, not Redis".into(),
            Some(ProtocolError::UnknownType(0x15 | 0x16)) => "this port speaks TLS".into(),
            Some(ProtocolError::UnknownType(_)) => "the server there is not Redis".into(),
            _ => error.message().into(),
        },
        _ => error.message().into(),
    }
}

/// What is allowed instead of a `--redis-url` that caused this error. `password_source` says where
/// the password comes from.
#[must_use]
pub(crate) fn redis_url(config: &Config, error: &Error, password_source: &str) -> String {
    let is_server = error.is_server();
    match (error.kind(), config.endpoint()) {
        (ErrorKind::WrongPass, _) if !config.has_password() => {
            "--redis-url names a user and no password; give one with --redis-password-file".to_owned()
        }
        (ErrorKind::WrongPass, _) => {
            format!("allowed: a user and password that it accepts; the password is from {password_source}")
        }
        (ErrorKind::NoAuth, _) => "give it with --redis-password-file, or redis://[user]:password@host".to_owned(),
        (ErrorKind::NoPerm, _) => "allowed: a user with the permissions that streams need".to_owned(),
        (ErrorKind::Protocol, _) if error.source().is_some_and(is_tls) => "allowed: rediss:// for TLS".to_owned(),
        (ErrorKind::Protocol, Endpoint::Tls { .. }) => "allowed: redis:// for a port without TLS".to_owned(),
        (ErrorKind::Protocol, _) => "allowed: the address of a Redis".to_owned(),
        (ErrorKind::Tls, _) => CERTIFICATES.to_owned(),
        (ErrorKind::UnknownMaster, _) => "allowed: the name of a master that these Sentinels watch".to_owned(),
        (ErrorKind::NoSuchDatabase, Endpoint::Cluster { .. }) => {
            "allowed: no database in the URL, since a Redis Cluster has only number 0".to_owned()
        }
        (ErrorKind::NoSuchDatabase, _) => {
            "allowed: 0 to 15, unless this Redis has another number of `databases`".to_owned()
        }
        (ErrorKind::UnknownCommand, Endpoint::Sentinel { .. }) => {
            "this is not a Sentinel; allowed: redis:// for a Redis, or the Sentinels' port (26379)".to_owned()
        }
        (_, Endpoint::Cluster { .. }) if is_server => "allowed: redis:// for a Redis that is not a cluster".to_owned(),
        _ => "allowed: what this Redis accepts".to_owned(),
    }
}

/// What is allowed instead of certificates that cannot be read.
pub(crate) const CERTIFICATES: &str = "allowed: certificates and a key that can be read, in ca=, cert= and key=";

fn is_tls(source: &(dyn std::error::Error + 'static)) -> bool {
    matches!(source.downcast_ref(), Some(ProtocolError::UnknownType(0x15 | 0x16)))
}

/// What is allowed instead of an address that cannot be bound.
#[must_use]
pub fn listening(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => "allowed: a port from 1024, or the right to a smaller one, or off",
        io::ErrorKind::AddrInUse => "is the service running already? allowed: a free port, 0 to pick one, or off",
        io::ErrorKind::AddrNotAvailable => "allowed: an address of this machine, such as 0.0.0.0 or 127.0.0.1, or off",
        _ => "allowed: an address or a name of this machine with a free port, or off",
    }
}

/// Why a server with this memory limit (0: none) and eviction policy may lose the stream.
#[must_use]
pub(crate) fn evicts(max_memory: u64, policy: &str) -> Option<String> {
    let evicts = max_memory > 0 && policy.starts_with("allkeys");
    evicts.then(|| format!("maxmemory-policy {policy} may delete the whole stream when memory is short"))
}

/// What to do about eviction.
pub(crate) const NO_EVICTION: &str = "CONFIG SET maxmemory-policy noeviction";

/// A noun in the right number: `line` for 1, else `lines`; `entry` becomes `entries`.
///
/// ```
/// use service::advice::noun;
/// assert_eq!([1, 2].map(|n| format!("{n} {}", noun(n, "entry"))), ["1 entry", "2 entries"]);
/// ```
#[must_use]
pub fn noun(number: u64, one: &str) -> String {
    match (number, one.strip_suffix('y')) {
        (1, _) => one.to_owned(),
        (_, Some(stem)) => format!("{stem}ies"),
        (_, None) => format!("{one}s"),
    }
}
