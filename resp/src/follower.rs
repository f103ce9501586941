//! Follows where the master is, while a connection to it is there: a master that was replaced may
//! still answer.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};
use std::time::Duration;

use tokio::task::JoinSet;

use crate::config::{Config, Endpoint};
use crate::{Backoff, Connection, Error, ErrorKind, Frame, Protocol, Value, sentinel, turn};

/// Where a Sentinel says that masters have moved.
const CHANNEL: &str = "+switch-master";
/// How often a Sentinel is asked beside its messages, of which one may have been lost.
const ASK: Duration = Duration::from_secs(10);
/// How often one is asked that does not send them.
const ASK_WITHOUT: Duration = Duration::from_secs(1);

/// What the Sentinels of a configuration say about its master, each over a connection of its own,
/// as long as this lives.
///
/// What counts is that a Sentinel changes its mind. One that lags, or is cut off from the others,
/// does not.
pub(crate) struct Follower {
    said: Arc<Said>,
    _listening: JoinSet<()>,
}

#[derive(Default)]
struct Said(Mutex<State>);

#[derive(Default)]
struct State {
    /// Where a Sentinel said last that the master is now, until that was tried.
    master: Option<Endpoint>,
    /// Whether the owner of the connection has not looked at it yet.
    is_news: bool,
    owner: Option<Waker>,
}

impl Said {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The master is there now.
    fn switched(&self, master: Endpoint) {
        let mut state = self.lock();
        state.master = Some(master);
        state.is_news = true;
        let owner = state.owner.take();
        drop(state);
        if let Some(owner) = owner {
            owner.wake();
        }
    }
}

impl Follower {
    /// Begins to listen; `None` when the endpoint is none of Sentinels.
    pub(crate) fn start(config: &Config) -> Option<Self> {
        let Endpoint::Sentinel { sentinels, master, .. } = config.endpoint() else { return None };
        let said = Arc::new(Said::default());
        let mut listening = JoinSet::new();
        for sentinel in sentinels {
            let one = Listener {
                config: config.clone(),
                sentinel: sentinel.clone(),
                name: master.clone(),
                said: Arc::clone(&said),
                last: None,
            };
            listening.spawn(one.run());
        }
        Some(Self { said, _listening: listening })
    }

    /// Whether the master has moved away from the server that a connection leads to. Wakes its
    /// owner when it does.
    pub(crate) fn poll_switch(&self, server: Option<&Endpoint>, cx: &Context<'_>) -> bool {
        let mut state = self.said.lock();
        if std::mem::take(&mut state.is_news) && state.master.as_ref() != server {
            return true;
        }
        match &mut state.owner {
            Some(owner) => owner.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        false
    }

    /// Connects to where the master has moved; else, and when it is not there, to where the
    /// Sentinels say.
    pub(crate) async fn connect(&self, config: &Config) -> Result<Connection, Error> {
        let master = {
            let mut state = self.said.lock();
            state.is_news = false;
            state.master.take()
        };
        if let Some(master) = master
            && let Ok(connection) =
                turn::within(turn::deadline(config.connect_timeout), sentinel::connect_to(config, &master)).await
        {
            return Ok(connection);
        }
        Connection::connect(config).await
    }
}

/// For a connection whose server is the master no longer.
pub(crate) fn switched() -> Error {
    Error::new(ErrorKind::NotMaster, "the Sentinels say that another server is the master now")
}

/// Listens to one Sentinel.
struct Listener {
    config: Config,
    sentinel: Endpoint,
    /// The name of the master.
    name: String,
    said: Arc<Said>,
    /// What the Sentinel has said last.
    last: Option<Endpoint>,
}

impl Listener {
    async fn run(mut self) {
        let mut backoff = Backoff::new(Duration::from_millis(100), ASK);
        loop {
            // Why it ends makes no difference: it begins again.
            let _ = self.listen(&mut backoff).await;
            tokio::time::sleep(backoff.next_delay()).await;
        }
    }

    async fn listen(&mut self, backoff: &mut Backoff) -> Result<(), Error> {
        let in_time = turn::deadline(self.config.connect_timeout);
        let config = sentinel::of_sentinel(&self.config, &self.sentinel);
        let mut connection = turn::within(in_time, Connection::connect_to(&self.sentinel, &config)).await?;
        // What happened while nobody listened.
        let master = sentinel::ask_over(&mut connection, &self.config, &self.name).await?;
        self.says(master);
        turn::within(in_time, connection.listen_to(CHANNEL)).await?;
        let is_listening = is_subscribed(&turn::within(in_time, connection.heard()).await?);
        if is_listening {
            backoff.reset();
        }
        let every = if is_listening { ASK } else { ASK_WITHOUT };
        loop {
            match tokio::time::timeout(every, connection.heard()).await {
                Ok(message) => {
                    if let Some(master) = self.switch(&message?) {
                        self.said.switched(master.clone());
                        self.last = Some(master);
                    }
                }
                Err(_) => {
                    let asked = match connection.protocol() {
                        Protocol::Resp3 => sentinel::ask_over(&mut connection, &self.config, &self.name).await,
                        // The connection takes nothing else while it is subscribed.
                        Protocol::Resp2 => {
                            let in_time = turn::deadline(self.config.connect_timeout);
                            turn::within(in_time, sentinel::ask(&self.config, &self.sentinel, &self.name)).await
                        }
                    };
                    self.says(asked?);
                }
            }
        }
    }

    /// What the Sentinel says when it is asked.
    fn says(&mut self, master: Endpoint) {
        if self.last.as_ref().is_some_and(|last| *last != master) {
            self.said.switched(master.clone());
        }
        self.last = Some(master);
    }

    /// The address in a message that says that our master has moved:
    /// `NAME OLD-HOST OLD-PORT HOST PORT`.
    fn switch(&self, message: &Frame) -> Option<Endpoint> {
        let mut parts = message.value().children().filter_map(Value::as_str);
        if (parts.next()?, parts.next()?) != ("message", CHANNEL) {
            return None;
        }
        let mut words = parts.next()?.strip_prefix(self.name.as_str())?.strip_prefix(' ')?.split(' ').skip(2);
        let (host, port) = (words.next()?, words.next()?.parse().ok()?);
        Some(Endpoint::server(host.to_owned(), port, self.config.endpoint().is_tls()))
    }
}

/// Whether a subscription was confirmed.
fn is_subscribed(reply: &Frame) -> bool {
    reply.value().children().next().and_then(Value::as_bytes) == Some(b"subscribe")
}
