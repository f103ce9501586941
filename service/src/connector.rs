//! Connecting to Redis with retries until a connection is usable.

use std::error::Error as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use log::debug;
use metrics::counter;
use resp::{Backoff, Config, ConfigError, Connection, Discovery, Endpoint, Error, ErrorKind, Frame, Topology, cmd};

use crate::args::origin;
use crate::metrics::{REDIS_RECONNECTS, redis_error};
use crate::{Failure, Health, Shutdown, advice};

/// Maximum time without any progress while a reply is awaited. Together with the connect timeout it
/// is well below [`crate::HEARTBEAT_LIMIT`], so an unresponsive Redis does not fail the liveness
/// probe.
const STALL_TIMEOUT: Duration = Duration::from_secs(15);
/// Maximum time of one command: enough for the longest line over a 2 Mbit/s link.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(300);
/// Maximum delay between two attempts.
const MAX_PAUSE: Duration = Duration::from_secs(5);
/// Upper bound of the first delay; it doubles with each attempt.
const MIN_PAUSE: Duration = Duration::from_millis(50);

/// Connects to Redis, and retries until a connection is usable.
///
/// One connector serves one connection at a time. For a second, concurrent connection, clone the
/// connector before its first use.
#[derive(Debug, Clone)]
pub struct Connector {
    discovery: Discovery,
    /// Where the password comes from, for messages.
    password_source: Arc<str>,
    backoff: Backoff,
    health: Health,
    shutdown: Shutdown,
    /// Whether any connection of this process succeeded: from then on the configuration is known to
    /// be valid.
    proven: Arc<AtomicBool>,
    /// Whether this connector has connected before.
    connected: bool,
}

/// Why the work ends early.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stop {
    /// Shutdown was requested.
    Shutdown,
    /// The service cannot continue.
    Failure(Failure),
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

impl Connector {
    /// A connector that reports to `health`. `password_source` says where the password comes from.
    #[must_use]
    pub fn new(config: Config, password_source: String, health: Health, shutdown: Shutdown) -> Self {
        let config = config.command_timeout(Some(COMMAND_TIMEOUT)).stall_timeout(Some(STALL_TIMEOUT));
        let backoff = Backoff::new(MIN_PAUSE, MAX_PAUSE);
        Self {
            discovery: Discovery::new(config),
            password_source: password_source.into(),
            backoff,
            health,
            shutdown,
            proven: Arc::default(),
            connected: false,
        }
    }

    /// A connector for another key, which may be on another node of a cluster. It reports to
    /// `health`.
    #[must_use]
    pub fn for_stream(&self, key: &str, health: Health) -> Self {
        Self { discovery: self.discovery.for_key(key), health, connected: false, ..self.clone() }
    }

    /// A connector for one node of a cluster. It reports to `health`.
    pub(crate) fn for_node(&self, node: &Endpoint, health: Health) -> Self {
        let discovery = Discovery::new(self.config().clone().with_endpoint(node.clone()));
        Self { discovery, health, connected: false, ..self.clone() }
    }

    /// The topology of the cluster, as the first answering node reports it.
    pub(crate) async fn topology(&self) -> Result<Topology, Error> {
        self.discovery.topology().await
    }

    /// The Redis address, without the password.
    #[must_use]
    pub const fn config(&self) -> &Config {
        self.discovery.config()
    }

    /// Reports that the connection was lost or abandoned because of `error`. Counts the error, and
    /// marks Redis as not ready until the next [`Self::connect`] succeeds.
    pub fn lost(&self, error: &Error) {
        redis_error(error.kind());
        self.down(error);
    }

    /// Connects, and retries with exponential backoff and jitter while Redis is unreachable,
    /// loading, or full. Logs changes of state only.
    ///
    /// The first connection of the process validates the configuration: until one succeeds, an
    /// error that means a wrong configuration (password, user, permissions, database, not a Redis
    /// server) is final. After that, such an error is retried, because an administrator may be
    /// changing the server.
    /// # Errors
    ///
    /// [`Stop::Shutdown`] when shutdown is requested meanwhile; [`Stop::Failure`] when the
    /// configuration is wrong.
    pub async fn connect(&mut self) -> Result<Connection, Stop> {
        let shutdown = self.shutdown.clone();
        loop {
            self.health.progress();
            let attempt = tokio::select! {
                biased;
                () = shutdown.requested() => return Err(Stop::Shutdown),
                attempt = usable(&self.discovery) => attempt,
            };
            let error = match attempt {
                Ok(connection) => {
                    self.up();
                    return Ok(connection);
                }
                Err(error) => error,
            };
            redis_error(error.kind());
            if !self.proven.load(Ordering::Relaxed) && is_final(&error) {
                return Err(Stop::Failure(self.wrong(&error)));
            }
            self.down(&error);
            let pause = self.backoff.next_delay();
            debug!("redis: {error}; trying again in {} ms", pause.as_millis());
            tokio::select! {
                biased;
                () = shutdown.requested() => return Err(Stop::Shutdown),
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Connects once, for the last commands on shutdown: no retry, and no longer than `within`.
    ///
    /// # Errors
    ///
    /// [`Stop::Shutdown`] when Redis is unreachable.
    pub async fn connect_to_end(&mut self, within: Duration) -> Result<Connection, Stop> {
        match tokio::time::timeout(within, usable(&self.discovery)).await {
            Ok(Ok(connection)) => {
                self.up();
                Ok(connection)
            }
            Ok(Err(error)) => {
                debug!("redis: {error}; not trying again, the service stops");
                Err(Stop::Shutdown)
            }
            Err(_) => Err(Stop::Shutdown),
        }
    }

    fn up(&mut self) {
        self.backoff.reset();
        self.proven.store(true, Ordering::Relaxed);
        if self.connected {
            counter!(REDIS_RECONNECTS).increment(1);
        }
        self.connected = true;
        self.health.progress();
        self.health.redis(Ok(()));
    }

    fn down(&self, error: &Error) {
        self.health.redis_down(error);
    }

    fn wrong(&self, error: &Error) -> Failure {
        let (config, from) = (self.config(), origin("redis-url"));
        let allowed = advice::redis_url(config, error, &self.password_source);
        Failure::Config(format!("--redis-url {config}{from}: {}; {allowed}", advice::reason(error)))
    }
}

/// A one-line message: what failed, why, what happens now, and what the user can do.
#[must_use]
pub fn describe(error: &Error) -> String {
    let what = match error.kind() {
        // The server's own text spans several lines.
        ErrorKind::NoAuth | ErrorKind::WrongPass => advice::reason(error),
        _ => error.to_string().into(),
    };
    format!("{what}; nothing is lost, trying again within {} s; {}", MAX_PAUSE.as_secs(), advice::redis(error.kind()))
}

/// Connects and sends `PING`: a server that is loading its data or has lost its master accepts
/// connections, but no commands.
async fn usable(discovery: &Discovery) -> Result<Connection, Error> {
    let mut connection = discovery.connect().await?;
    match connection.send(&cmd::<Frame>("PING")).await {
        // The ACL may deny PING and still allow the commands that matter.
        Err(error) if error.kind() != ErrorKind::NoPerm => Err(error),
        _ => Ok(connection),
    }
}

/// Whether a retry cannot succeed unless somebody changes the configuration.
pub(crate) fn is_final(error: &Error) -> bool {
    let is_answered = error.is_server() || matches!(error.kind(), ErrorKind::Protocol | ErrorKind::UnknownMaster);
    // Certificates that cannot be used. A handshake that fails may be the server's fault.
    let is_own = matches!(error.source(), Some(source) if source.is::<ConfigError>());
    (is_answered || is_own) && !error.is_transient()
}
