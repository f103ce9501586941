use std::fmt;

/// What is wrong with a URL or a configuration. Never holds a password.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConfigError {
    /// There is no `scheme://`.
    MissingScheme,
    /// The scheme is none that is known.
    UnknownScheme(String),
    /// There is no host.
    MissingHost,
    /// The host has characters that no host has, or brackets that do not match.
    InvalidHost,
    /// The port is not a number from 1 to 65535.
    InvalidPort(String),
    /// A list of Sentinels is not followed by the master's name.
    MissingMaster,
    /// The version of RESP is neither 2 nor 3.
    InvalidProtocol(String),
    /// The database is not a number.
    InvalidDatabase(String),
    /// There is no path to a Unix socket.
    MissingPath,
    /// A query parameter is not known.
    UnknownParameter(String),
    /// User or password is not UTF-8 once its percent-encoding is undone, or `%` is not followed by
    /// two hex digits.
    InvalidEncoding,
    /// There is a fragment (`#…`), which means nothing here; in a password, `#` is written `%23`.
    Fragment,
    /// TLS was asked for, but this build has no TLS: cargo feature `tls`.
    NoTls,
    /// A certificate, key or server name cannot be used.
    Tls(String),
}

const SCHEMES: &str = "redis://, redis-sentinel://, redis-cluster://, the same with rediss for TLS, and unix://";

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MissingScheme => write!(f, "the URL has no scheme; allowed are {SCHEMES}"),
            Self::UnknownScheme(scheme) => write!(f, "unknown scheme {scheme:?}; allowed are {SCHEMES}"),
            Self::MissingHost => f.write_str("the URL has no host; it has the form redis://[user:password@]host[:port][/database]"),
            Self::InvalidHost => f.write_str("the URL's host is not valid; an IPv6 address stands in brackets, and @ : / in a password are percent-encoded"),
            Self::InvalidPort(port) => write!(f, "{port:?} is no port; allowed is 1 to 65535"),
            Self::MissingMaster => {
                f.write_str("the URL names no master; it has the form redis-sentinel://[user:password@]host[:port],…/master[/database]")
            }
            Self::InvalidProtocol(version) => write!(f, "{version:?} is no version of RESP; allowed are protocol=2 and protocol=3"),
            Self::InvalidDatabase(database) => write!(f, "{database:?} is no database; allowed is a number from 0"),
            Self::MissingPath => f.write_str("the URL has no socket path; it has the form unix:///path/to/socket[?db=N]"),
            Self::UnknownParameter(name) => write!(
                f,
                "unknown parameter {name:?}; allowed are db, user, pass, protocol and client_name, with TLS ca, cert, key and \
                 server_name, and for Sentinels sentinel_user and sentinel_password"
            ),
            Self::InvalidEncoding => f.write_str("the URL's percent-encoding is not valid UTF-8"),
            Self::Fragment => f.write_str("the URL has a fragment; a # in a password is written %23"),
            Self::NoTls => f.write_str("rediss:// needs the cargo feature \"tls\""),
            Self::Tls(what) => write!(f, "TLS: {what}"),
        }
    }
}

impl std::error::Error for ConfigError {}
