//! Settings: the server's address, credentials, timeouts, limits, TLS, hooks.
//!
//! [`Config`] is plain data that every connection gets. State of connecting lives in
//! [`Discovery`](crate::Discovery).

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

/// How to connect to a server, and the limits of connections to it.
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
#[derive(Clone)]
#[non_exhaustive]
pub struct Config {
    pub(crate) endpoint: Endpoint,
    pub(crate) user: Option<String>,
    pub(crate) password: Option<Secret>,
    /// Credentials for the Sentinels.
    pub(crate) sentinel_user: Option<String>,
    pub(crate) sentinel_password: Option<Secret>,
    /// In a cluster: the key whose owner connections go to.
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
    /// Creates a configuration for an endpoint, with defaults for everything else.
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

    /// Parses a URL.
    ///
    /// * `redis://[[user]:password@]host[:port][/database]`: a server, on port 6379 by default. An
    ///   IPv6 address needs brackets.
    /// * `rediss://…[?ca=FILE&cert=FILE&key=FILE&server_name=NAME]`: the same over TLS (cargo
    ///   feature `tls`); see `TlsConfig`
    /// * `unix:///path/to/socket[?db=N&user=U&pass=P]`: a Unix socket; `redis+unix://` is the same.
    /// * `redis-sentinel://[[user]:password@]host[:port],host[:port],…/master[/database]`: the
    ///   master of this name. Hosts and ports are those of the Sentinels, 26379 by default. User
    ///   and password before the `@` are for Redis; the parameters `sentinel_user` and
    ///   `sentinel_password` are for the Sentinels. `rediss-sentinel://` uses TLS for both.
    /// * `redis-cluster://[[user]:password@]host[:port],host[:port],…`: a Redis Cluster, by some of
    ///   its nodes; `rediss-cluster://` uses TLS.
    /// * `valkey://` and `valkeys://`: the same as `redis://` and `rediss://`.
    ///
    /// All forms also accept `protocol=2|3` (default: RESP3, or RESP2 if the server refuses it) and
    /// `client_name=NAME`. User, password, path, master name and parameters may be percent-encoded.
    ///
    /// # Errors
    ///
    /// The URL has none of these forms. The error says what is wrong and what is allowed, and never
    /// contains the password.
    pub fn from_url(url: &str) -> Result<Self, ConfigError> {
        url::parse(url)
    }

    /// Returns the endpoint.
    #[must_use]
    pub const fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Replaces the endpoint, for example by one node of a cluster. The [key](Self::for_key) is
    /// removed; credentials, timeouts, limits and TLS stay.
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

    /// Returns whether Sentinels or cluster nodes name the server.
    pub(crate) const fn is_discovered(&self) -> bool {
        matches!(self.endpoint, Endpoint::Sentinel { .. } | Endpoint::Cluster { .. })
    }

    /// Returns the passwords, which no error may repeat.
    pub(crate) fn secrets(&self) -> Secrets {
        Secrets::new([&self.password, &self.sentinel_password].into_iter().flatten())
    }

    /// Describes a server, which another server may have named, in errors.
    pub(crate) fn shown_server(&self, server: &Endpoint) -> String {
        let name = server.to_string();
        if self.secrets().occur_in_name(&name) { "***".to_owned() } else { name }
    }

    /// Adds to an error that it occurred while connecting to this configuration's endpoint.
    pub(crate) fn connect_error(&self, error: Error) -> Error {
        error.connecting(self, &self.secrets())
    }

    /// In a cluster: directs a [`Connection`](crate::Connection), [`Client`](crate::Client) or
    /// [`Consumer`](crate::Consumer) to the owner of this key. Keys with the same hash tag have the
    /// same owner. After the slot moves, calls fail with [`ErrorKind::Moved`](crate::ErrorKind) and
    /// the connection closes; the next one goes to the new owner. No effect outside of a cluster.
    #[must_use]
    pub fn for_key(mut self, key: impl AsRef<[u8]>) -> Self {
        self.key = Some(key.as_ref().to_vec());
        self
    }

    /// Sets the ACL user. Without a user, Redis applies a password to the user `default`. Without a
    /// password, the user must need none.
    #[must_use]
    pub fn user(mut self, user: impl Into<String>) -> Self {
        self.user = Some(user.into());
        self
    }

    /// Sets the password.
    #[must_use]
    pub fn password(mut self, password: impl Into<String>) -> Self {
        self.password = Some(Secret::new(password.into()));
        self
    }

    /// Reads the certificates and the key that a server with TLS needs, as connecting does. Use it
    /// to find a wrong path before there is a connection.
    ///
    /// # Errors
    ///
    /// Names the invalid file, and why.
    pub fn check(&self) -> Result<(), ConfigError> {
        #[cfg(feature = "tls")]
        if self.endpoint.is_tls() {
            return self.tls.check();
        }
        Ok(())
    }

    /// Returns whether there is a password for Redis, from the URL or from [`Self::password`].
    #[must_use]
    pub const fn has_password(&self) -> bool {
        self.password.is_some()
    }

    /// Sets the ACL user for the Sentinels, which have their own users. See [`Endpoint::Sentinel`].
    #[must_use]
    pub fn sentinel_user(mut self, user: impl Into<String>) -> Self {
        self.sentinel_user = Some(user.into());
        self
    }

    /// Sets the password for the Sentinels. The password of Redis is never sent to a Sentinel.
    #[must_use]
    pub fn sentinel_password(mut self, password: impl Into<String>) -> Self {
        self.sentinel_password = Some(Secret::new(password.into()));
        self
    }

    /// Sets the database. Default 0.
    #[must_use]
    pub const fn database(mut self, database: u32) -> Self {
        self.database = database;
        self
    }

    /// Sets the name that `CLIENT LIST` shows. Redis allows no spaces or line breaks in it.
    #[must_use]
    pub fn client_name(mut self, name: impl Into<String>) -> Self {
        self.client_name = Some(name.into());
        self
    }

    /// Sets the name that `CLIENT LIST` shows, unless one is already set, for example by the URL.
    #[must_use]
    pub fn default_client_name(self, name: impl Into<String>) -> Self {
        if self.client_name.is_some() { self } else { self.client_name(name) }
    }

    /// Uses RESP2 even if the server supports RESP3.
    #[must_use]
    pub const fn resp2(mut self, resp2: bool) -> Self {
        self.resp2 = resp2;
        self
    }

    /// Sets how long connecting may take, including Sentinel queries, TLS and authentication.
    /// Default 5 s.
    #[must_use]
    pub const fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// Sets how long a whole call may take: waiting for room or for a new connection, sending,
    /// cluster redirects, and receiving the reply, even while the server sends other data such as
    /// push messages. Default 30 s; `None` waits forever.
    ///
    /// A large reply over a slow link takes long. Set a long command timeout, or none, and a [stall
    /// timeout](Self::stall_timeout).
    ///
    /// [`flush`](crate::Connection::flush) and [`receive`](crate::Connection::receive) count as
    /// calls of their own. Blocking commands get [more time](Self::block_grace).
    #[must_use]
    pub const fn command_timeout(mut self, timeout: Option<Duration>) -> Self {
        self.command_timeout = timeout;
        self
    }

    /// Sets how long no byte may move, in either direction, while a reply is awaited. By default,
    /// only the [command timeout](Self::command_timeout) applies. For a blocking command, the stall
    /// timeout applies once the reply has begun.
    #[must_use]
    pub const fn stall_timeout(mut self, timeout: Option<Duration>) -> Self {
        self.stall_timeout = timeout;
        self
    }

    /// Sets how much later than `BLOCK` the reply to a blocking command must begin, because servers
    /// answer late under load. Default 5 s. A reply that has begun by then has the [command
    /// timeout](Self::command_timeout) to arrive.
    #[must_use]
    pub const fn block_grace(mut self, grace: Duration) -> Self {
        self.block_grace = grace;
        self
    }

    /// Sets the idle time before TCP keepalive probes, which detect half-open connections. Default
    /// 15 s; `None` disables them.
    #[must_use]
    pub const fn keepalive(mut self, after: Option<Duration>) -> Self {
        self.keepalive = after;
        self
    }

    /// Sets the trusted certificates and the client certificate for `rediss://`. Replaces what the
    /// URL configured.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn tls(mut self, tls: TlsConfig) -> Self {
        self.tls = tls;
        self
    }

    /// Opens connections by your own function: through a proxy or a tunnel, or in memory. It gets
    /// the endpoint of each server, of which a cluster or Sentinels have several, and must set up
    /// TLS itself.
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

    /// Reports calls and attempts to connect to an observer, for metrics and traces. A second
    /// observer replaces the first.
    #[must_use]
    pub fn observer(mut self, observer: impl Observer + 'static) -> Self {
        self.observer = Observed::by(observer);
        self
    }

    /// Limits what a reply may allocate.
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

/// Contains no password.
impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut config = f.debug_struct("Config");
        config
            .field("endpoint", &self.shown_server(&self.endpoint))
            .field("user", &self.user)
            .field("password", &self.password)
            .field("sentinel_user", &self.sentinel_user)
            .field("sentinel_password", &self.sentinel_password)
            .field("key", &self.key.as_ref().map(|key| key.escape_ascii().to_string()))
            .field("database", &self.database)
            .field("client_name", &self.client_name)
            .field("resp2", &self.resp2)
            .field("connect_timeout", &self.connect_timeout)
            .field("command_timeout", &self.command_timeout)
            .field("stall_timeout", &self.stall_timeout)
            .field("block_grace", &self.block_grace)
            .field("keepalive", &self.keepalive)
            .field("limits", &self.limits)
            .field("connector", &self.connector)
            .field("observer", &self.observer);
        #[cfg(feature = "tls")]
        config.field("tls", &self.tls);
        config.finish()
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
        f.write_str(&self.shown_server(&self.endpoint))?;
        if self.database == 0 { Ok(()) } else { write!(f, "/{}", self.database) }
    }
}
