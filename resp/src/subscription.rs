//! Messages of channels, for as long as they are wanted.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;

use crate::{Backoff, Config, Connection, Discovery, Error, ErrorKind, Frame, RespVersion, Value, cmd};

/// What a [`Subscription`] subscribes to.
///
/// ```no_run
/// # async fn example() -> Result<(), resp::Error> {
/// use resp::{Config, SubscriptionEvent, SubscriptionOptions};
///
/// let config = Config::from_url("redis://localhost")?;
/// let mut subscription = SubscriptionOptions::new(config).channel("news").pattern("sport.*").connect().await?;
/// loop {
///     match subscription.next().await? {
///         SubscriptionEvent::Message(message) => println!("{:?}: {:?}", message.channel, message.payload),
///         SubscriptionEvent::Reconnected => println!("some messages may be missing"),
///     }
/// }
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct SubscriptionOptions {
    config: Config,
    channels: Vec<Vec<u8>>,
    patterns: Vec<Vec<u8>>,
    shard_channels: Vec<Vec<u8>>,
    backoff: Backoff,
    ping_after: Option<Duration>,
}

impl SubscriptionOptions {
    /// Nothing yet, on a connection of its own.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self {
            config,
            channels: Vec::new(),
            patterns: Vec::new(),
            shard_channels: Vec::new(),
            backoff: Backoff::default(),
            ping_after: Some(Duration::from_secs(30)),
        }
    }

    /// `SUBSCRIBE`: the messages of a channel.
    #[must_use]
    pub fn channel(mut self, name: impl AsRef<[u8]>) -> Self {
        self.channels.push(name.as_ref().to_vec());
        self
    }

    /// `PSUBSCRIBE`: the messages of all channels that a glob pattern matches.
    #[must_use]
    pub fn pattern(mut self, pattern: impl AsRef<[u8]>) -> Self {
        self.patterns.push(pattern.as_ref().to_vec());
        self
    }

    /// `SSUBSCRIBE`: the messages of a shard channel. In a cluster, the connection leads to the
    /// node that has its slot; several must lie in one slot. Redis 7.0.
    #[must_use]
    pub fn shard_channel(mut self, name: impl AsRef<[u8]>) -> Self {
        self.shard_channels.push(name.as_ref().to_vec());
        self
    }

    /// How long to wait between attempts to connect again.
    #[must_use]
    pub const fn backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }

    /// After so long without messages the server is asked whether it is there. Default 30 s.
    #[must_use]
    pub const fn ping_after(mut self, idle: Option<Duration>) -> Self {
        self.ping_after = idle;
        self
    }

    /// Connects and subscribes.
    ///
    /// # Errors
    ///
    /// When the first connection cannot be made, or a subscription is refused. [`ErrorKind::Usage`]
    /// when the server does not speak RESP3, or there is nothing to subscribe to.
    pub async fn connect(mut self) -> Result<Subscription, Error> {
        if let Some(first) = self.shard_channels.first() {
            self.config = self.config.for_key(first);
        }
        let discovery = Discovery::new(self.config.clone());
        let (connection, early) = self.subscribe(&discovery).await?;
        Ok(Subscription { options: self, discovery, connection: Some(connection), early })
    }

    /// A connection on which everything is confirmed, and the messages that came before the last
    /// confirmation.
    async fn subscribe(&self, discovery: &Discovery) -> Result<(Connection, VecDeque<PubSubMessage>), Error> {
        let mut connection = discovery.connect().await?;
        let usage = |text| Err(self.config.connect_error(Error::new(ErrorKind::Usage, text)));
        if connection.protocol() != RespVersion::Resp3 {
            return usage("subscriptions need RESP3, and this connection speaks RESP2");
        }
        let mut missing = 0usize;
        for (name, channels) in
            [("SUBSCRIBE", &self.channels), ("PSUBSCRIBE", &self.patterns), ("SSUBSCRIBE", &self.shard_channels)]
        {
            if !channels.is_empty() {
                connection.subscribe(&cmd::<()>(name).args(channels)).await?;
                missing = missing.saturating_add(channels.len());
            }
        }
        if missing == 0 {
            return usage("there is no channel and no pattern to subscribe to");
        }
        let mut early = VecDeque::new();
        let confirmed = async {
            while missing > 0 {
                match Push::of(&connection.next_push().await?) {
                    Push::Message(message) => early.push_back(message),
                    Push::Subscribed => missing = missing.saturating_sub(1),
                    Push::Unsubscribed | Push::Other => {}
                }
            }
            Ok(())
        };
        let limit = self.config.connect_timeout;
        let confirmed = tokio::time::timeout(limit, confirmed).await.unwrap_or_else(|_| Err(Error::timeout(limit)));
        confirmed.map_err(|error: Error| error.with_context("SUBSCRIBE", None))?;
        Ok((connection, early))
    }
}

/// Messages of channels: see [`SubscriptionOptions`].
///
/// It has a connection of its own. When that breaks, it is made again, and everything is subscribed
/// to again. Needs RESP3 (Redis 6).
///
/// Redis keeps no messages for who is away: what is published while there is no connection is lost.
/// What must not be lost belongs in a stream.
#[derive(Debug)]
pub struct Subscription {
    options: SubscriptionOptions,
    discovery: Discovery,
    connection: Option<Connection>,
    /// Messages that came with the confirmations.
    early: VecDeque<PubSubMessage>,
}

/// What comes from a [`Subscription`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SubscriptionEvent {
    /// Somebody has published this.
    Message(PubSubMessage),
    /// The connection was lost, and everything is subscribed to again: what was published between
    /// is missing.
    Reconnected,
}

/// What somebody has published on a channel. Its parts share the read buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PubSubMessage {
    /// The channel.
    pub channel: Bytes,
    /// The pattern that has matched it.
    pub pattern: Option<Bytes>,
    /// What was published.
    pub payload: Bytes,
}

impl Subscription {
    /// What comes next. Waits as long as there is nothing. May be dropped at any time.
    ///
    /// # Errors
    ///
    /// What waiting does not cure: the password is wrong, or a subscription is not allowed any
    /// more. Calling again tries again.
    pub async fn next(&mut self) -> Result<SubscriptionEvent, Error> {
        loop {
            if let Some(message) = self.early.pop_front() {
                return Ok(SubscriptionEvent::Message(message));
            }
            let Some(connection) = &mut self.connection else {
                match self.options.subscribe(&self.discovery).await {
                    Ok((connection, early)) => {
                        self.options.backoff.reset();
                        (self.connection, self.early) = (Some(connection), early);
                        return Ok(SubscriptionEvent::Reconnected);
                    }
                    // The slot of a shard channel moves; the next connection leads to where it is
                    // then.
                    Err(error) if error.is_transient() || error.kind() == ErrorKind::Moved => {}
                    Err(error) => return Err(error),
                }
                tokio::time::sleep(self.options.backoff.next_delay()).await;
                continue;
            };
            match next_push(connection, self.options.ping_after).await.as_ref().map(Push::of) {
                Ok(Push::Message(message)) => return Ok(SubscriptionEvent::Message(message)),
                Ok(Push::Subscribed | Push::Other) => {}
                // The node has given a shard channel's slot away.
                Ok(Push::Unsubscribed) | Err(_) => self.connection = None,
            }
        }
    }
}

/// The next push message. Where none comes, the server is asked whether it is there.
async fn next_push(connection: &mut Connection, ping_after: Option<Duration>) -> Result<Frame, Error> {
    loop {
        let Some(limit) = ping_after else { return connection.next_push().await };
        match tokio::time::timeout(limit, connection.next_push()).await {
            Ok(push) => return push,
            Err(_) => connection.send(&cmd::<()>("PING")).await?,
        }
    }
}

/// What a push message means.
enum Push {
    Message(PubSubMessage),
    Subscribed,
    Unsubscribed,
    Other,
}

impl Push {
    fn of(frame: &Frame) -> Self {
        let value = frame.value();
        let mut parts = value.children();
        let kind = parts.next().and_then(Value::as_bytes).unwrap_or_default();
        let mut part = || parts.next().map(|part| frame.slice(part));
        let message = match kind {
            b"subscribe" | b"psubscribe" | b"ssubscribe" => return Self::Subscribed,
            b"unsubscribe" | b"punsubscribe" | b"sunsubscribe" => return Self::Unsubscribed,
            b"message" | b"smessage" => (None, part(), part()),
            b"pmessage" => (part(), part(), part()),
            _ => return Self::Other,
        };
        match message {
            (pattern, Some(channel), Some(payload)) => Self::Message(PubSubMessage { channel, pattern, payload }),
            _ => Self::Other,
        }
    }
}
