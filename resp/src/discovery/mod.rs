//! Finding the server that a configuration means.
//!
//! A [`Config`] may name Sentinels or some nodes of a cluster in place of the server
//! itself. [`Discovery`] asks them, connects to the server that they name, and verifies its role.
//! It owns the list of [`candidates`], so that the next attempt asks a server last that
//! did not answer this time.
//!
//! This layer lies above [`connection`](crate::connection), which knows one server only. Clients,
//! consumers and subscriptions keep a `Discovery` for as long as they reconnect.

mod candidates;
mod cluster;
mod master_watch;
mod redirect;
mod sentinel;
mod topology;

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::{Config, Endpoint};
use crate::{Connection, Error, ErrorKind, Sent};
use candidates::Candidates;
pub(crate) use cluster::topology;
pub(crate) use master_watch::{MasterWatch, master_switched};
pub(crate) use redirect::{MAX_REDIRECTS, Redirect};
pub use topology::Topology;

/// Connects to the server that a configuration means, as often as it is asked.
///
/// [`Connection::connect`] does the same once. Use this type when you reconnect yourself: with
/// Sentinels ([`Endpoint::Sentinel`]) and in a cluster ([`Endpoint::Cluster`]) it remembers the
/// servers that did not answer and asks them last. Clones share that memory.
///
/// ```no_run
/// # async fn example() -> Result<(), resp::Error> {
/// use resp::{Backoff, Config, Discovery, cmd};
///
/// let discovery = Discovery::new(Config::from_url("redis-sentinel://a,b,c/mymaster")?);
/// let mut backoff = Backoff::default();
/// loop {
///     match discovery.connect().await {
///         Ok(mut connection) => println!("{}", connection.send(cmd::<String>("PING")).await?),
///         Err(error) if error.is_transient() => tokio::time::sleep(backoff.next_delay()).await,
///         Err(error) => return Err(error),
///     }
/// }
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Discovery {
    config: Config,
    candidates: Arc<Candidates>,
}

impl Discovery {
    /// Creates a discovery that has not asked any server yet.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self { config, candidates: Arc::default() }
    }

    /// Returns the configuration.
    #[must_use]
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// Finds the server and connects to it.
    ///
    /// # Errors
    ///
    /// As [`Connection::connect`].
    pub async fn connect(&self) -> Result<Connection, Error> {
        self.config.observer.connect(&self.config, self.connect_unobserved()).await
    }

    async fn connect_unobserved(&self) -> Result<Connection, Error> {
        let config = &self.config;
        let limit = config.connect_timeout;
        let connected = match &config.endpoint {
            Endpoint::Sentinel { sentinels, master, .. } => {
                sentinel::connect(self, sentinels, master, deadline(limit)).await
            }
            Endpoint::Cluster { seeds, .. } => cluster::connect(self, seeds, deadline(limit)).await,
            server => match tokio::time::timeout(limit, Connection::connect_to(server, config)).await {
                Ok(connected) => connected,
                Err(_) if server.is_tls() => Err(Error::timeout(limit)
                    .with_text(format!("no answer over TLS for {limit:?}; does this port speak TLS?"))),
                Err(_) => Err(Error::timeout(limit)),
            },
        };
        connected.map_err(|error| config.connect_error(error))
    }

    /// Returns the topology that the first answering node of a cluster reports. The nodes learn of
    /// a change one after the other, so it may be stale for a moment.
    ///
    /// # Errors
    ///
    /// No node answers within the [connect timeout](Config::connect_timeout), or
    /// ([`ErrorKind::Usage`]) the configuration means no cluster.
    pub async fn topology(&self) -> Result<Topology, Error> {
        let config = &self.config;
        let Endpoint::Cluster { seeds, .. } = &config.endpoint else {
            return Err(Error::new(ErrorKind::Usage, "only a cluster has a topology").with_sent(Sent::No));
        };
        let queried = topology(self, seeds, deadline(config.connect_timeout)).await;
        queried.map_err(|error| config.connect_error(error))
    }

    /// Returns a discovery for another [key](Config::for_key) of the same cluster, which shares the
    /// memory of servers that did not answer.
    #[must_use]
    pub fn for_key(&self, key: impl AsRef<[u8]>) -> Self {
        Self { config: self.config.clone().for_key(key), candidates: Arc::clone(&self.candidates) }
    }
}

impl Connection {
    /// Connects, negotiates the RESP version, authenticates and selects the database.
    ///
    /// With Sentinels or a cluster, the server is discovered first. To reconnect in a loop, keep a
    /// [`Discovery`], which remembers which of them did not answer.
    ///
    /// # Errors
    ///
    /// The server cannot be reached within the [connect timeout](Config::connect_timeout), or it
    /// refuses. [`Error::kind`] distinguishes a wrong password ([`ErrorKind::WrongPass`],
    /// [`ErrorKind::NoAuth`]) from a server that is unreachable.
    ///
    /// [`ErrorKind::WrongPass`]: crate::ErrorKind::WrongPass
    /// [`ErrorKind::NoAuth`]: crate::ErrorKind::NoAuth
    pub async fn connect(config: &Config) -> Result<Self, Error> {
        Discovery::new(config.clone()).connect().await
    }
}

/// The longest time that anything here waits.
const LONGEST_WAIT: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Returns the instant `limit` from now.
pub(crate) fn deadline(limit: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(limit.min(LONGEST_WAIT)).unwrap_or(now)
}

/// Waits for `work` until `deadline` at the latest.
pub(crate) async fn within<T>(deadline: Instant, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let limit = deadline.saturating_duration_since(Instant::now());
    match tokio::time::timeout(limit, work).await {
        Ok(done) => done,
        Err(_) => Err(Error::timeout(limit)),
    }
}
