//! How to reach a server, and how long to wait for it.

mod connector;
mod endpoint;
mod observer;
#[cfg(feature = "tls")]
mod tls;
mod url;

pub(crate) use connector::{Connector, Io};
pub use endpoint::Endpoint;
pub(crate) use observer::Observed;
pub use observer::{CompletedCall, ConnectAttempt, Observer};
#[cfg(feature = "tls")]
pub use tls::TlsConfig;

use std::fmt;
use std::io;
use std::str::FromStr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};

use crate::redact::{Secret, Secrets};
use crate::{ConfigError, DecoderLimits, Error};

/// How to connect to a server.
///
/// ```
/// use std::time::Duration;
/// use resp::Config;
///
/// let config = Config::from_url("redis://app:s3cret@localhost:6380/2")?
///     .client_name("importer")
///     .command_timeout(Some(Duration::from_secs(10)));
/// // Neither Display nor Debug shows the password.
/// assert_eq!(config.to_string(), "redis://app:***@localhost:6380/2");
/// # Ok::<(), resp::ConfigError>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    pub(crate) endpoint: Endpoint,
    pub(crate) user: Option<String>,
    pub(crate) password: Option<Secret>,
    /// How to get into the Sentinels.
    pub(crate) sentinel_user: Option<String>,
    pub(crate) sentinel_password: Option<Secret>,
    /// In a cluster: the key that connections are for.
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) database: u32,
    pub(crate) client_name: Option<String>,
    pub(crate) resp2: bool,
    pub(crate) connect_timeout: Duration,
    pub(crate) command_timeout: Option<Duration>,
    pub(crate) stall_timeout: Option<Duration>,
    pub(crate) block_grace: Duration,
    pub(crate) keepalive: Option<Duration>,
    pub(crate) limits: DecoderLimits,
    pub(crate) connector: Option<Connector>,
    pub(crate) observer: Observed,
    #[cfg(feature = "tls")]
    pub(crate) tls: TlsConfig,
}

impl Config {
    /// A server at an endpoint, everything else at its default.
    #[must_use]
    pub fn new(endpoint: Endpoint) -> Self {
        Self {
            endpoint,
            user: None,
            password: None,
            sentinel_user: None,
            sentinel_password: None,
            key: None,
            database: 0,
            client_name: None,
            resp2: false,
            connect_timeout: Duration::from_secs(5),
            command_timeout: Some(Duration::from_secs(30)),
            stall_timeout: None,
            block_grace: Duration::from_secs(5),
            keepalive: Some(Duration::from_secs(15)),
            limits: DecoderLimits::default(),
            connector: None,
            observer: Observed::default(),
            #[cfg(feature = "tls")]
            tls: TlsConfig::default(),
        }
    }

    /// A server by URL.
    ///
    /// * `redis://[[user]:password@]host[:port][/database]`, the port 6379 unless given; an IPv6
    ///   host in brackets
    /// * `rediss://…[?ca=FILE&cert=FILE&key=FILE&server_name=NAME]`: the same over TLS (cargo
    ///   feature `tls`); see `TlsConfig`
    /// * `unix:///path/to/socket[?db=N&user=U&pass=P]`, also `redis+unix://`
    /// * `redis-sentinel://[[user]:password@]host[:port],host[:port],…/master[/database][?sentinel_user=U&sentinel_password=P]`:
    ///   the master that Sentinels watch under this name. The ports are those of the Sentinels,
    ///   26379 unless given. User and password before the `@` are for Redis, the parameters for the
    ///   Sentinels. `rediss-sentinel://` speaks TLS with both
    /// * `redis-cluster://[[user]:password@]host[:port],host[:port],…`: a Redis Cluster, by some of
    ///   its nodes; `rediss-cluster://` for TLS
    /// * `valkey://` and `valkeys://`, which mean the same as `redis://` and `rediss://`
    ///
    /// Each takes the parameters `protocol=2|3` (RESP2, or RESP3 where the server knows it, which
    /// is the default) and `client_name=NAME`, also. User, password, path, master's name and
    /// parameters may be percent-encoded.
    ///
    /// # Errors
    ///
    /// When the URL is none of these. The error says what is wrong and what is allowed, and never
    /// holds the password.
    pub fn from_url(url: &str) -> Result<Self, ConfigError> {
        url::parse(url)
    }

    /// Where the server is.
    #[must_use]
    pub const fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The same with another endpoint: how to get into one node of a cluster, or the server that a
    /// Sentinel has named. A [key](Self::for_key) is forgotten; credentials, times, limits and TLS
    /// stay.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// use resp::{ClusterClient, Config, Connection};
    ///
    /// let config = Config::from_url("redis-cluster://:s3cret@a,b")?;
    /// for node in ClusterClient::connect(&config).await?.nodes() {
    ///     let mut connection = Connection::connect(&config.clone().with_endpoint(node)).await?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn with_endpoint(mut self, endpoint: Endpoint) -> Self {
        self.endpoint = endpoint;
        self.key = None;
        self
    }

    /// Whether others are asked where the server is.
    pub(crate) const fn is_discovered(&self) -> bool {
        matches!(self.endpoint, Endpoint::Sentinel { .. } | Endpoint::Cluster { .. })
    }

    /// The passwords, which no error may repeat.
    pub(crate) fn secrets(&self) -> Secrets {
        Secrets::new([&self.password, &self.sentinel_password].into_iter().flatten())
    }

    /// Adds to an error that it occurred while connecting to this configuration's endpoint.
    pub(crate) fn connect_error(&self, error: Error) -> Error {
        error.connecting(self, &self.secrets())
    }

    /// In a cluster: a [`Connection`](crate::Connection), [`Client`](crate::Client) or
    /// [`Consumer`](crate::Consumer) is to lead to the node that has this key; keys with the same
    /// hash tag lie on the same node. When the slot has moved, the answer is
    /// [`ErrorKind::Moved`](crate::ErrorKind), the connection is closed, and the next one leads to
    /// where the slot is then. Without effect where there is no cluster.
    #[must_use]
    pub fn for_key(mut self, key: impl AsRef<[u8]>) -> Self {
        self.key = Some(key.as_ref().to_vec());
        self
    }

    /// The ACL user. Without one, Redis takes a password to be that of the user `default`; without
    /// a password, the user must be one that needs none.
    #[must_use]
    pub fn user(mut self, user: impl Into<String>) -> Self {
        self.user = Some(user.into());
        self
    }

    /// The password.
    #[must_use]
    pub fn password(mut self, password: impl Into<String>) -> Self {
        self.password = Some(Secret::new(password.into()));
        self
    }

    /// Whether there is a password for Redis, from the URL or from [`Self::password`].
    #[must_use]
    pub const fn has_password(&self) -> bool {
        self.password.is_some()
    }

    /// The ACL user of the Sentinels, which is none of Redis' own. See [`Endpoint::Sentinel`].
    #[must_use]
    pub fn sentinel_user(mut self, user: impl Into<String>) -> Self {
        self.sentinel_user = Some(user.into());
        self
    }

    /// The password of the Sentinels. Without one, nothing is said to them: Redis' own password is
    /// never sent to a Sentinel.
    #[must_use]
    pub fn sentinel_password(mut self, password: impl Into<String>) -> Self {
        self.sentinel_password = Some(Secret::new(password.into()));
        self
    }

    /// The database, 0 unless set.
    #[must_use]
    pub const fn database(mut self, database: u32) -> Self {
        self.database = database;
        self
    }

    /// The name that `CLIENT LIST` shows. Redis allows no spaces and line breaks in it.
    #[must_use]
    pub fn client_name(mut self, name: impl Into<String>) -> Self {
        self.client_name = Some(name.into());
        self
    }

    /// The name that `CLIENT LIST` shows, unless one was set already, as by the URL.
    #[must_use]
    pub fn default_client_name(self, name: impl Into<String>) -> Self {
        if self.client_name.is_some() { self } else { self.client_name(name) }
    }

    /// Speaks RESP2 even with a server that knows RESP3.
    #[must_use]
    pub const fn resp2(mut self, resp2: bool) -> Self {
        self.resp2 = resp2;
        self
    }

    /// How long connecting may take, TLS and authentication included, and asking Sentinels. Default
    /// 5 s.
    #[must_use]
    pub const fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// How long a call may take as a whole: waiting for room and for a new connection, sending,
    /// redirects of a cluster, and receiving the reply, however busy the server is with other
    /// things, such as push messages. Default 30 s; `None` waits for ever.
    ///
    /// A large reply over a slow link needs its time, too. Where that is to take as long as it
    /// takes, set a long command timeout, or none, and a [stall timeout](Self::stall_timeout).
    ///
    /// Of the pieces of pipelines, each ([`flush`](crate::Connection::flush),
    /// [`receive`](crate::Connection::receive)) is a call. A blocking command has [more
    /// time](Self::block_grace).
    #[must_use]
    pub const fn command_timeout(mut self, timeout: Option<Duration>) -> Self {
        self.command_timeout = timeout;
        self
    }

    /// How long nothing may move, in either direction, while a reply is awaited. By default there
    /// is no such limit beside the [command timeout](Self::command_timeout). Where a command blocks
    /// in the server, it holds only once its reply has begun.
    #[must_use]
    pub const fn stall_timeout(mut self, timeout: Option<Duration>) -> Self {
        self.stall_timeout = timeout;
        self
    }

    /// How much later than `BLOCK` says the reply to a blocking command must have begun. Default 5
    /// s: servers answer late under load. A reply that has begun by then has the [command
    /// timeout](Self::command_timeout) to arrive.
    #[must_use]
    pub const fn block_grace(mut self, grace: Duration) -> Self {
        self.block_grace = grace;
        self
    }

    /// TCP keepalive after so long without traffic, so that half-open connections are noticed.
    /// Default 15 s; `None` for none.
    #[must_use]
    pub const fn keepalive(mut self, after: Option<Duration>) -> Self {
        self.keepalive = after;
        self
    }

    /// What the TLS of `rediss://` trusts, and how it proves who it is. Replaces what the URL said
    /// about it.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn tls(mut self, tls: TlsConfig) -> Self {
        self.tls = tls;
        self
    }

    /// Makes the connections in place of the library: through a proxy or a tunnel, or in memory. It
    /// is given the server's endpoint, of which a cluster or Sentinels have several, and does what
    /// TLS there is to do.
    ///
    /// ```
    /// use resp::{Config, Endpoint};
    ///
    /// let config = Config::from_url("redis://redis.internal")?.connector(|endpoint| async move {
    ///     println!("{endpoint} by way of the bastion");
    ///     tokio::net::TcpStream::connect("bastion:7000").await
    /// });
    /// # Ok::<(), resp::ConfigError>(())
    /// ```
    #[must_use]
    pub fn connector<F, C, T>(mut self, connect: F) -> Self
    where
        F: Fn(Endpoint) -> C + Send + Sync + 'static,
        C: Future<Output = io::Result<T>> + Send + 'static,
        T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        self.connector = Some(Connector::new(connect));
        self
    }

    /// Tells an observer how calls and attempts to connect end, for metrics and traces. One
    /// observer: a new one takes its place.
    #[must_use]
    pub fn observer(mut self, observer: impl Observer + 'static) -> Self {
        self.observer = Observed::by(observer);
        self
    }

    /// What a reply may make the client hold in memory.
    #[must_use]
    pub const fn limits(mut self, limits: DecoderLimits) -> Self {
        self.limits = limits;
        self
    }
}

/// As [`Config::from_url`].
impl FromStr for Config {
    type Err = ConfigError;

    fn from_str(url: &str) -> Result<Self, ConfigError> {
        Self::from_url(url)
    }
}

/// The URL, with `***` for the password.
impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match &self.endpoint {
            Endpoint::Tcp { .. } => "redis",
            Endpoint::Tls { .. } => "rediss",
            Endpoint::Sentinel { tls: false, .. } => "redis-sentinel",
            Endpoint::Sentinel { tls: true, .. } => "rediss-sentinel",
            Endpoint::Cluster { tls: false, .. } => "redis-cluster",
            Endpoint::Cluster { tls: true, .. } => "rediss-cluster",
            Endpoint::Unix { path } => {
                write!(f, "unix://{}", path.display())?;
                return if self.database == 0 { Ok(()) } else { write!(f, "?db={}", self.database) };
            }
        };
        write!(f, "{scheme}://")?;
        match (&self.user, &self.password) {
            (None, None) => {}
            (user, None) => write!(f, "{}@", user.as_deref().unwrap_or_default())?,
            (user, Some(_)) => write!(f, "{}:***@", user.as_deref().unwrap_or_default())?,
        }
        self.endpoint.fmt(f)?;
        if self.database == 0 { Ok(()) } else { write!(f, "/{}", self.database) }
    }
}
