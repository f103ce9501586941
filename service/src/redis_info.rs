//! Periodic state of the Redis server and of the consumer groups of a stream, for the status page.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::time::{Duration, Instant};

use resp::streams::{ConsumerInfo, XInfoConsumers, XInfoGroups};
use resp::{Config, Connection, Discovery, Error, Frame, cmd};

use crate::health::{Health, Member};

/// How often the server is queried.
const EVERY: Duration = Duration::from_secs(10);
/// The sections of `INFO` that are requested. One command each: Redis before 7.0 accepts one
/// section per command.
const SECTIONS: [&str; 3] = ["server", "memory", "persistence"];
/// Maximum number of groups whose consumers are listed.
const GROUPS: usize = 8;

/// The state of a server, from `INFO`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerState {
    /// Name and version: `Redis 7.4.1`.
    pub version: String,
    /// Bytes in use.
    pub used_memory: u64,
    /// The memory limit in bytes; `None` without one.
    pub max_memory: Option<u64>,
    /// The eviction policy: `noeviction`, `allkeys-lru` …
    pub policy: String,
    /// Whether the append-only file is on.
    pub append_only: bool,
}

impl ServerState {
    /// From the text of `INFO`, sections in any order; `None` when it has no version.
    ///
    /// # Examples
    ///
    /// ```
    /// let info = "# Server\r\nredis_version:7.4.1\r\n# Memory\r\nused_memory:1000\r\nmaxmemory:0\r\nmaxmemory_policy:noeviction\r\n";
    /// let state = service::ServerState::parse(info).unwrap();
    /// assert_eq!((state.version.as_str(), state.used_memory, state.max_memory), ("Redis 7.4.1", 1000, None));
    /// ```
    #[must_use]
    pub fn parse(info: &str) -> Option<Self> {
        let fields = fields(info);
        let text = |name: &str| fields.get(name).copied().unwrap_or_default();
        let number = |name: &str| text(name).parse::<u64>().unwrap_or(0);
        // Valkey also reports the Redis version that it is compatible with.
        let version = match (text("valkey_version"), text("redis_version")) {
            ("", "") => return None,
            ("", redis) => format!("Redis {redis}"),
            (valkey, _) => format!("Valkey {valkey}"),
        };
        Some(Self {
            version,
            used_memory: number("used_memory"),
            max_memory: Some(number("maxmemory")).filter(|most| *most > 0),
            policy: text("maxmemory_policy").to_owned(),
            append_only: text("aof_enabled") == "1",
        })
    }
}

/// The fields of the text of `INFO`.
pub(crate) fn fields(info: &str) -> BTreeMap<&str, &str> {
    info.lines().filter_map(|line| line.trim_end().split_once(':')).collect()
}

/// Queries a server every ten seconds, for the status page.
///
/// The queries share a connection with the work: they are pipelined, so nobody waits for their
/// replies. If the ACL denies them, the figures are missing and nothing else changes.
#[derive(Debug)]
pub struct ServerWatch {
    health: Health,
    due: Instant,
    /// The requested sections of `INFO`.
    sections: &'static [&'static str],
    /// Whether replies are outstanding.
    asked: bool,
    /// The stream whose groups are listed.
    stream: Option<String>,
    /// The groups of the stream at the last query.
    groups: Vec<Vec<u8>>,
}

impl ServerWatch {
    /// Reports to `health`. The first query is due immediately.
    #[must_use]
    pub fn new(health: Health) -> Self {
        Self { health, due: Instant::now(), sections: &SECTIONS, asked: false, stream: None, groups: Vec::new() }
    }

    /// Skips `INFO`. With several streams on one server, one watch queries it.
    #[must_use]
    pub fn without_server(mut self) -> Self {
        self.sections = &[];
        self
    }

    /// Also lists the consumer groups of the stream.
    #[must_use]
    pub fn with_groups_of(mut self, stream: &str) -> Self {
        self.stream = Some(stream.to_owned());
        self
    }

    /// Queries on a connection of its own.
    #[must_use]
    pub fn over(self, config: Config) -> OwnConnection {
        OwnConnection { watch: self, discovery: Discovery::new(config) }
    }

    /// Queues the queries when they are due. Do not call it between `MULTI` and `EXEC`.
    pub fn ask(&mut self, connection: &mut Connection) {
        if self.asked || Instant::now() < self.due {
            return;
        }
        self.asked = true;
        self.due = delivery::later(Instant::now(), EVERY);
        for section in self.sections {
            connection.queue(cmd::<Frame>("INFO").arg(section));
        }
        if let Some(stream) = &self.stream {
            connection.queue(XInfoGroups::new(stream));
            for group in &self.groups {
                connection.queue(XInfoConsumers::new(stream, group));
            }
        }
    }

    /// Receives the replies, if queries are outstanding. Call it once the replies to all earlier
    /// commands have been received.
    ///
    /// # Errors
    ///
    /// When the connection is lost. A refused query is not an error.
    pub async fn hear(&mut self, connection: &mut Connection) -> Result<(), Error> {
        if !std::mem::take(&mut self.asked) {
            return Ok(());
        }
        let mut info = String::new();
        for _ in self.sections {
            let frame = connection.receive().await?;
            info.push_str(&String::from_utf8_lossy(frame.value().as_bytes().unwrap_or_default()));
            info.push('\n');
        }
        if !self.sections.is_empty() {
            self.health.set_server(ServerState::parse(&info));
        }
        let Some(stream) = &self.stream else { return Ok(()) };
        let groups = unless_refused(connection.receive_reply(&XInfoGroups::new(stream)).await)?.unwrap_or_default();
        let mut members = Vec::new();
        for group in &self.groups {
            let consumers = unless_refused(connection.receive_reply(&XInfoConsumers::new(stream, group)).await)?;
            members.extend(consumers.unwrap_or_default().iter().map(|consumer| Member::of(consumer, group)));
        }
        let groups: Vec<Vec<u8>> = groups.into_iter().map(|group| group.name.into()).take(GROUPS).collect();
        if groups == self.groups {
            self.health.set_group(members);
        } else {
            // Query the consumers of the new groups next.
            self.groups = groups;
            self.due = Instant::now();
        }
        Ok(())
    }
}

/// A [`ServerWatch`] with its own connection, so that the connections of the work carry nothing
/// else.
#[derive(Debug)]
pub struct OwnConnection {
    watch: ServerWatch,
    discovery: Discovery,
}

impl OwnConnection {
    /// Queries until dropped. Retries an unreachable server silently, because the work that uses it
    /// reports the outage.
    pub async fn run(mut self) -> Infallible {
        loop {
            if let Ok(mut connection) = self.discovery.connect().await {
                self.watch.asked = false;
                while self.ask_once(&mut connection).await.is_ok() {}
            }
            tokio::time::sleep(EVERY).await;
        }
    }

    async fn ask_once(&mut self, connection: &mut Connection) -> Result<(), Error> {
        tokio::time::sleep_until(self.watch.due.into()).await;
        self.watch.ask(connection);
        self.watch.hear(connection).await
    }
}

/// The reply; `None` if the server refused the command.
fn unless_refused<T>(reply: Result<T, Error>) -> Result<Option<T>, Error> {
    match reply {
        Ok(reply) => Ok(Some(reply)),
        Err(error) if error.closes_connection() => Err(error),
        Err(_) => Ok(None),
    }
}

impl Member {
    /// From an entry of `XINFO CONSUMERS`.
    #[must_use]
    pub fn of(consumer: &ConsumerInfo, group: impl AsRef<[u8]>) -> Self {
        Self {
            group: String::from_utf8_lossy(group.as_ref()).into_owned(),
            name: String::from_utf8_lossy(&consumer.name).into_owned(),
            pending: consumer.pending,
            idle: consumer.idle,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn valkey_and_a_memory_limit_are_parsed() {
        let info = "redis_version:7.2.4\r\nvalkey_version:8.0.1\r\nused_memory:5\r\nmaxmemory:9\r\n\
                    maxmemory_policy:allkeys-lru\r\naof_enabled:1\r\n";
        let state = ServerState {
            version: "Valkey 8.0.1".to_owned(),
            used_memory: 5,
            max_memory: Some(9),
            policy: "allkeys-lru".to_owned(),
            append_only: true,
        };
        assert_eq!(ServerState::parse(info), Some(state));
    }

    #[test]
    fn info_without_a_version_is_none() {
        assert_eq!(ServerState::parse("\n\n\n"), None);
        assert_eq!(ServerState::parse("# Memory\r\nused_memory:7\r\n"), None);
    }
}
