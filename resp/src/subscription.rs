//! Pub/Sub: messages of channels and patterns, across reconnects.
//!
//! [`Subscription`] owns a connection that only listens.

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
    /// Creates options without a channel.
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

    /// Subscribes to a channel (`SUBSCRIBE`).
    #[must_use]
    pub fn channel(mut self, name: impl AsRef<[u8]>) -> Self {
        self.channels.push(name.as_ref().to_vec());
        self
    }

    /// Subscribes to all channels that match a glob pattern (`PSUBSCRIBE`).
    #[must_use]
    pub fn pattern(mut self, pattern: impl AsRef<[u8]>) -> Self {
        self.patterns.push(pattern.as_ref().to_vec());
        self
    }

    /// Subscribes to a shard channel (`SSUBSCRIBE`). In a cluster, the connection goes to the owner
    /// of its slot; several shard channels must be in one slot. Redis 7.0.
    #[must_use]
    pub fn shard_channel(mut self, name: impl AsRef<[u8]>) -> Self {
        self.shard_channels.push(name.as_ref().to_vec());
        self
    }

    /// Sets the delays between attempts to reconnect.
    #[must_use]
    pub const fn backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }

    /// Sets the idle time after which the server is pinged. Default 30 s.
    #[must_use]
    pub const fn ping_after(mut self, idle: Option<Duration>) -> Self {
        self.ping_after = idle;
        self
    }

    /// Connects and subscribes.
    ///
    /// # Errors
    ///
    /// The first connection cannot be made, or a subscription is refused. [`ErrorKind::Usage`] if
    /// the server does not support RESP3, or there is no channel.
    pub async fn connect(mut self) -> Result<Subscription, Error> {
        if let Some(first) = self.shard_channels.first() {
            self.config = self.config.for_key(first);
        }
        let discovery = Discovery::new(self.config.clone());
        let (connection, early) = self.subscribe(&discovery).await?;
        Ok(Subscription { options: self, discovery, connection: Some(connection), early })
    }

    /// Connects and waits for all confirmations. Returns the messages that came before the last
    /// one.
    async fn subscribe(&self, discovery: &Discovery) -> Result<(Connection, VecDeque<PubSubMessage>), Error> {
        let mut connection = discovery.connect().await?;
        let usage = |text| Err(self.config.connect_error(Error::new(ErrorKind::Usage, text)));
        if connection.protocol() != RespVersion::Resp3 {
            return usage(match self.config.resp2 {
                true => "subscriptions need RESP3, but the configuration asks for RESP2",
                false => "subscriptions need RESP3, but the server supports only RESP2",
            });
        }
        let mut missing = 0usize;
        for (name, channels) in
            [("SUBSCRIBE", &self.channels), ("PSUBSCRIBE", &self.patterns), ("SSUBSCRIBE", &self.shard_channels)]
        {
            if !channels.is_empty() {
                connection.subscribe(cmd::<()>(name).args(channels)).await?;
                missing = missing.saturating_add(channels.len());
            }
        }
        if missing == 0 {
            return usage("no channel and no pattern is set");
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

/// Receives messages of channels: see [`SubscriptionOptions`].
///
/// It has its own connection. When that breaks, it reconnects and subscribes again. It needs RESP3
/// (Redis 6).
///
/// Redis stores no messages for absent subscribers: messages that are published while there is no
/// connection are lost. Use a stream for what must not be lost.
#[derive(Debug)]
pub struct Subscription {
    options: SubscriptionOptions,
    discovery: Discovery,
    connection: Option<Connection>,
    /// Messages that arrived before the last confirmation.
    early: VecDeque<PubSubMessage>,
}

/// An item of a [`Subscription`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SubscriptionEvent {
    /// A published message.
    Message(PubSubMessage),
    /// The connection was lost and restored: messages in between are lost.
    Reconnected,
}

/// A published message. Its parts share the read buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PubSubMessage {
    /// The channel.
    pub channel: Bytes,
    /// The pattern that matched the channel.
    pub pattern: Option<Bytes>,
    /// The content.
    pub payload: Bytes,
}

impl Subscription {
    /// Waits for the next item. The future may be dropped at any time.
    ///
    /// # Errors
    ///
    /// Only permanent errors: the password is wrong, or the ACL no longer allows a subscription.
    /// Call again to retry.
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
                    // The slot of a shard channel has moved; the next connection goes to its new
                    // owner.
                    Err(error) if error.is_transient() || error.kind() == ErrorKind::Moved => {}
                    Err(error) => return Err(error),
                }
                tokio::time::sleep(self.options.backoff.next_delay()).await;
                continue;
            };
            match next_push(connection, self.options.ping_after).await.as_ref().map(Push::of) {
                Ok(Push::Message(message)) => return Ok(SubscriptionEvent::Message(message)),
                Ok(Push::Subscribed | Push::Other) => {}
                // The node gave away the slot of a shard channel.
                Ok(Push::Unsubscribed) | Err(_) => self.connection = None,
            }
        }
    }
}

/// Waits for the next push message. Pings an idle server.
async fn next_push(connection: &mut Connection, ping_after: Option<Duration>) -> Result<Frame, Error> {
    loop {
        let Some(limit) = ping_after else { return connection.next_push().await };
        match tokio::time::timeout(limit, connection.next_push()).await {
            Ok(push) => return push,
            Err(_) => connection.send(cmd::<()>("PING")).await?,
        }
    }
}

/// The meaning of a push message.
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
