//! Errors of URLs and settings.

use std::fmt;

/// An invalid URL or setting. It never contains a password.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConfigError {
    /// The URL has no `scheme://`.
    MissingScheme,
    /// The scheme is unknown.
    UnknownScheme(String),
    /// The URL has no host.
    MissingHost,
    /// The host contains invalid characters, or brackets that do not match.
    InvalidHost,
    /// The port is not a number from 1 to 65535.
    InvalidPort(String),
    /// The name of the master is missing after the list of Sentinels.
    MissingMaster,
    /// The RESP version is neither 2 nor 3.
    InvalidProtocol(String),
    /// The database is not a number.
    InvalidDatabase(String),
    /// The path of the Unix socket is missing.
    MissingPath,
    /// A query parameter is unknown.
    UnknownParameter(String),
    /// The user or password is not valid percent-encoded UTF-8.
    InvalidEncoding,
    /// The URL has a fragment (`#…`). Encode `#` in a password as `%23`.
    Fragment,
    /// The URL requires TLS, but the cargo feature `tls` is disabled.
    NoTls,
    /// A certificate, key or server name is invalid.
    Tls(String),
}

const SCHEMES: &str = "redis://, redis-sentinel://, redis-cluster://, the same with rediss for TLS, and unix://";

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MissingScheme => write!(f, "the URL has no scheme; allowed are {SCHEMES}"),
            Self::UnknownScheme(scheme) => write!(f, "unknown scheme {scheme:?}; allowed are {SCHEMES}"),
            Self::MissingHost => f.write_str("the URL has no host; it has the form redis://[user:password@]host[:port][/database]"),
            Self::InvalidHost => f.write_str("the URL's host is not valid; put an IPv6 address in brackets, percent-encode special characters in a password, and name several hosts only with redis-sentinel:// or redis-cluster://"),
            Self::InvalidPort(port) => write!(f, "the URL's port is {port:?}; allowed: a number from 1 to 65535"),
            Self::MissingMaster => {
                f.write_str("the URL names no master; it has the form redis-sentinel://[user:password@]host[:port],…/master[/database]")
            }
            Self::InvalidProtocol(version) => write!(f, "the URL's parameter protocol is {version:?}; allowed: 2 or 3"),
            Self::InvalidDatabase(database) => write!(f, "the URL's database is {database:?}; allowed: a number from 0"),
            Self::MissingPath => f.write_str("the URL has no socket path; it has the form unix:///path/to/socket[?db=N]"),
            Self::UnknownParameter(name) => write!(
                f,
                "the URL has an unknown parameter {name:?}; allowed are db, user, pass, protocol and client_name, with rediss:// ca, cert, key and \
                 server_name, and with redis-sentinel:// sentinel_user and sentinel_password"
            ),
            Self::InvalidEncoding => f.write_str("the URL's percent-encoding is not valid UTF-8; write a % in a password as %25"),
            Self::Fragment => f.write_str("the URL has a fragment; encode # in a password as %23"),
            Self::NoTls => f.write_str("rediss:// needs the cargo feature \"tls\""),
            Self::Tls(what) => write!(f, "TLS: {what}"),
        }
    }
}

impl std::error::Error for ConfigError {}
