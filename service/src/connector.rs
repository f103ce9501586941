//! A connection to Redis, however long it takes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use log::debug;
use metrics::counter;
use resp::{Backoff, Config, Connection, Error, ErrorKind, Frame, cmd};

use crate::args::origin;
use crate::metrics::{REDIS_RECONNECTS, redis_error};
use crate::{Failure, Health, Shutdown, advice};

/// How long nothing may move while a reply is awaited. With the time that connecting takes well
/// below [`crate::HEARTBEAT_LIMIT`], so that a Redis that hangs does not make the service look as
/// if it hung.
const STALL_TIMEOUT: Duration = Duration::from_secs(15);
/// How long one call may take: the longest line over a link of two megabits a second.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(300);
/// The longest pause between two attempts.
const MAX_PAUSE: Duration = Duration::from_secs(5);
/// The bound of the first pause; it doubles with each attempt.
const MIN_PAUSE: Duration = Duration::from_millis(50);

/// Makes connections to Redis, and waits as long as there is none to be had.
///
/// One connector is for one connection at a time; for a second connection beside it, clone it
/// before its first use.
#[derive(Debug, Clone)]
pub struct Connector {
    config: Config,
    /// Where the password comes from, for messages.
    password_source: Arc<str>,
    backoff: Backoff,
    health: Health,
    shutdown: Shutdown,
    /// Whether any connection of this process has been made: from then on the configuration is
    /// known to be good.
    proven: Arc<AtomicBool>,
    /// Whether this connector has made a connection.
    connected: bool,
}

/// Why the work ends early.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stop {
    /// The service was asked to stop.
    Shutdown,
    /// The service cannot go on.
    Failure(Failure),
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

impl Connector {
    pub(crate) fn new(config: Config, password_source: String, health: Health, shutdown: Shutdown) -> Self {
        let config = config.command_timeout(Some(COMMAND_TIMEOUT)).stall_timeout(Some(STALL_TIMEOUT));
        let backoff = Backoff::new(MIN_PAUSE, MAX_PAUSE);
        Self {
            config,
            password_source: password_source.into(),
            backoff,
            health,
            shutdown,
            proven: Arc::default(),
            connected: false,
        }
    }

    /// The same for another key, which in a cluster may lie on another node; `health` is told how
    /// that goes.
    pub(crate) fn for_stream(&self, key: &str, health: Health) -> Self {
        Self { config: self.config.clone().for_key(key), health, connected: false, ..self.clone() }
    }

    /// Where Redis is, without the password.
    #[must_use]
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// Says that the connection was lost, or is given up, because of this error: it is counted, and
    /// Redis is not ready until the next [`Self::connect`] succeeds.
    pub fn lost(&self, error: &Error) {
        redis_error(error.kind());
        self.down(error);
    }

    /// A connection, as soon as there is one. Redis that is away, starting, or full is waited for,
    /// with exponential backoff and jitter; the log tells changes of state only.
    ///
    /// The first connection of the process proves the configuration: until it has been made, an
    /// answer that says that the configuration is wrong (password, user, rights, database, not a
    /// Redis at all) is final. Later such an answer is waited out, because somebody is changing the
    /// server.
    ///
    /// # Errors
    ///
    /// [`Stop::Shutdown`] when the service is asked to stop meanwhile; [`Stop::Failure`] when the
    /// configuration is wrong.
    pub async fn connect(&mut self) -> Result<Connection, Stop> {
        let shutdown = self.shutdown.clone();
        loop {
            self.health.progress();
            let attempt = tokio::select! {
                biased;
                () = shutdown.requested() => return Err(Stop::Shutdown),
                attempt = usable(&self.config) => attempt,
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

    /// One attempt, for a service that is to stop and has something left to say to Redis: as
    /// [`Self::connect`], but it neither tries again nor outlasts `within`.
    ///
    /// # Errors
    ///
    /// [`Stop::Shutdown`] when Redis is not to be had now.
    pub async fn connect_to_end(&mut self, within: Duration) -> Result<Connection, Stop> {
        match tokio::time::timeout(within, usable(&self.config)).await {
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
        let (config, from) = (&self.config, origin("redis-url"));
        let allowed = advice::redis_url(config.endpoint(), error, &self.password_source);
        Failure::Config(format!("--redis-url {config}{from}: {}; {allowed}", advice::reason(error)))
    }
}

/// What failed and why, what happens now, and what can be done.
#[must_use]
pub fn in_words(error: &Error) -> String {
    let what = match error.kind() {
        // The server's own text takes several lines.
        ErrorKind::NoAuth | ErrorKind::WrongPass => advice::reason(error),
        _ => error.to_string().into(),
    };
    format!("{what}; nothing is lost, trying again within {} s; {}", MAX_PAUSE.as_secs(), advice::redis(error.kind()))
}

/// A connection to a Redis that answers commands: one that still loads its data, or has lost its
/// master, takes connections too.
async fn usable(config: &Config) -> Result<Connection, Error> {
    let mut connection = Connection::connect(config).await?;
    match connection.send(&cmd::<Frame>("PING")).await {
        // Who may not say PING may say what counts.
        Err(error) if error.kind() != ErrorKind::NoPerm => Err(error),
        _ => Ok(connection),
    }
}

/// Whether trying again cannot help, as long as nobody changes the configuration.
fn is_final(error: &Error) -> bool {
    let answered = error.is_server() || matches!(error.kind(), ErrorKind::Protocol | ErrorKind::UnknownMaster);
    answered && !error.is_transient()
}
