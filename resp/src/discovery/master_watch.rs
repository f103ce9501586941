//! Watches which server is the master while a connection is open: a demoted master may still
//! answer.
//!
//! The owner of the connection (the driver of a [`Client`](crate::Client), or a
//! [`Consumer`](crate::Consumer)) holds a [`MasterWatch`] and polls it beside its own I/O.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};
use std::time::Duration;

use tokio::task::JoinSet;

use super::{Discovery, deadline, sentinel, within};
use crate::config::{Config, Endpoint};
use crate::{Backoff, Connection, Error, ErrorKind, Frame, RespVersion, Value};

/// The channel on which a Sentinel announces a failover.
const CHANNEL: &str = "+switch-master";
/// How often a subscribed Sentinel is queried too, in case a message was lost.
const QUERY_INTERVAL: Duration = Duration::from_secs(10);
/// How often a Sentinel is queried that refuses the subscription.
const UNSUBSCRIBED_QUERY_INTERVAL: Duration = Duration::from_secs(1);
/// The first delay before a Sentinel is connected to again.
const RECONNECT_DELAY: Duration = Duration::from_millis(100);

/// Listens to all Sentinels of a configuration, each over its own connection, until it is dropped.
///
/// Only a change of a Sentinel's answer counts. A Sentinel that lags, or is partitioned from the
/// others, does not change its answer.
pub(crate) struct MasterWatch {
    shared: Arc<Shared>,
    _listeners: JoinSet<()>,
}

#[derive(Default)]
struct Shared(Mutex<State>);

#[derive(Default)]
struct State {
    /// The latest master that a Sentinel announced, until a connection to it is tried.
    master: Option<Endpoint>,
    /// Whether the owner has not seen the announcement yet.
    is_new: bool,
    owner: Option<Waker>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn announce(&self, master: Endpoint) {
        let mut state = self.lock();
        state.master = Some(master);
        state.is_new = true;
        let owner = state.owner.take();
        drop(state);
        if let Some(owner) = owner {
            owner.wake();
        }
    }
}

impl MasterWatch {
    /// Starts listening; `None` when the configuration names no Sentinels.
    pub(crate) fn start(config: &Config) -> Option<Self> {
        let Endpoint::Sentinel { sentinels, master, .. } = config.endpoint() else { return None };
        let shared = Arc::new(Shared::default());
        let mut listeners = JoinSet::new();
        for sentinel in sentinels {
            let listener = Listener {
                config: config.clone(),
                sentinel: sentinel.clone(),
                name: master.clone(),
                shared: Arc::clone(&shared),
                last: None,
            };
            listeners.spawn(listener.run());
        }
        Some(Self { shared, _listeners: listeners })
    }

    /// Returns whether another server than `server` has become the master. Otherwise wakes the
    /// task when that happens.
    pub(crate) fn poll_switch(&self, server: Option<&Endpoint>, cx: &Context<'_>) -> bool {
        let mut state = self.shared.lock();
        if std::mem::take(&mut state.is_new) && state.master.as_ref() != server {
            return true;
        }
        match &mut state.owner {
            Some(owner) => owner.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        false
    }

    /// Connects to the announced master. Without an announcement, or if that fails, discovers the
    /// master.
    pub(crate) async fn connect(&self, discovery: &Discovery) -> Result<Connection, Error> {
        let master = {
            let mut state = self.shared.lock();
            state.is_new = false;
            state.master.take()
        };
        let config = discovery.config();
        if let Some(master) = master
            && let Ok(connection) =
                within(deadline(config.connect_timeout), sentinel::connect_to_master(config, &master)).await
        {
            return Ok(connection);
        }
        discovery.connect().await
    }
}

/// Returns the error of a connection whose server is no longer the master.
pub(crate) fn master_switched() -> Error {
    Error::new(ErrorKind::NotMaster, "a Sentinel announced another master")
}

/// Listens to one Sentinel.
struct Listener {
    config: Config,
    sentinel: Endpoint,
    /// The name of the master.
    name: String,
    shared: Arc<Shared>,
    /// The last answer of this Sentinel.
    last: Option<Endpoint>,
}

impl Listener {
    async fn run(mut self) {
        let mut backoff = Backoff::new(RECONNECT_DELAY, QUERY_INTERVAL);
        loop {
            // Every error is handled alike: connect again.
            let _ = self.listen(&mut backoff).await;
            tokio::time::sleep(backoff.next_delay()).await;
        }
    }

    async fn listen(&mut self, backoff: &mut Backoff) -> Result<(), Error> {
        let by = deadline(self.config.connect_timeout);
        let config = sentinel::sentinel_config(&self.config, &self.sentinel);
        let mut connection = within(by, Connection::connect_to(&self.sentinel, &config)).await?;
        // The master may have switched while this listener was not connected.
        let master = sentinel::query_over(&mut connection, &self.config, &self.name).await?;
        self.compare(master);
        within(by, connection.subscribe_channel(CHANNEL)).await?;
        let is_subscribed = is_subscribed(&within(by, connection.next_message()).await?);
        if is_subscribed {
            backoff.reset();
        }
        let interval = if is_subscribed { QUERY_INTERVAL } else { UNSUBSCRIBED_QUERY_INTERVAL };
        loop {
            match tokio::time::timeout(interval, connection.next_message()).await {
                Ok(message) => {
                    if let Some(master) = self.parse_switch(&message?) {
                        self.shared.announce(master.clone());
                        self.last = Some(master);
                    }
                }
                Err(_) => {
                    let queried = match connection.protocol() {
                        RespVersion::Resp3 => sentinel::query_over(&mut connection, &self.config, &self.name).await,
                        // A subscribed RESP2 connection accepts no other commands.
                        RespVersion::Resp2 => {
                            let by = deadline(self.config.connect_timeout);
                            within(by, sentinel::query(&self.config, &self.sentinel, &self.name)).await
                        }
                    };
                    self.compare(queried?);
                }
            }
        }
    }

    /// Announces the master that a query returned, if it differs from the last answer.
    fn compare(&mut self, master: Endpoint) {
        if self.last.as_ref().is_some_and(|last| *last != master) {
            self.shared.announce(master.clone());
        }
        self.last = Some(master);
    }

    /// Parses the address of the new master from a message about this master:
    /// `NAME OLD-HOST OLD-PORT HOST PORT`.
    fn parse_switch(&self, message: &Frame) -> Option<Endpoint> {
        let mut parts = message.value().children().filter_map(Value::as_str);
        if (parts.next()?, parts.next()?) != ("message", CHANNEL) {
            return None;
        }
        let mut words = parts.next()?.strip_prefix(self.name.as_str())?.strip_prefix(' ')?.split(' ').skip(2);
        let (host, port) = (words.next()?, words.next()?.parse().ok()?);
        Some(Endpoint::server(host.to_owned(), port, self.config.endpoint().is_tls()))
    }
}

/// Returns whether a reply confirms a subscription.
fn is_subscribed(reply: &Frame) -> bool {
    reply.value().children().next().and_then(Value::as_bytes) == Some(b"subscribe")
}
