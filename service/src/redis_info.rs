//! What the Redis server says of itself, and who reads the stream: asked now and then, on a
//! connection that is there already.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::time::{Duration, Instant};

use resp::streams::{ConsumerInfo, XInfoConsumers, XInfoGroups};
use resp::{Config, Connection, Error, Frame, cmd};

use crate::health::{Health, Member};

/// How often it is asked.
const EVERY: Duration = Duration::from_secs(10);
/// The sections of `INFO` that are asked for. One command each: Redis before 7.0 takes one section
/// at a time.
const SECTIONS: [&str; 3] = ["server", "memory", "persistence"];
/// Of how many groups the consumers are asked for.
const GROUPS: usize = 8;

/// What `INFO` tells of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerState {
    /// Name and version: `Redis 7.4.1`.
    pub version: String,
    /// Bytes in use.
    pub used_memory: u64,
    /// Bytes that may be in use; `None` without a limit.
    pub max_memory: Option<u64>,
    /// What happens at the limit: `noeviction`, `allkeys-lru` …
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
        // Valkey says which Redis it can stand in for, too.
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

/// Asks a server about itself every ten seconds, for the status page.
///
/// The questions go out with whatever else goes out on the connection, and their answers come with
/// the others: nobody waits for them. A user who may not ask has no figures, and nothing else
/// changes.
#[derive(Debug)]
pub struct ServerWatch {
    health: Health,
    due: Instant,
    /// What of `INFO` is asked for.
    sections: &'static [&'static str],
    /// Whether answers are on their way.
    asked: bool,
    /// The stream whose groups are asked for.
    stream: Option<String>,
    /// The groups it had when they were last asked for.
    groups: Vec<Vec<u8>>,
}

impl ServerWatch {
    /// Tells `health` what it hears. Asks at once.
    #[must_use]
    pub fn new(health: Health) -> Self {
        Self { health, due: Instant::now(), sections: &SECTIONS, asked: false, stream: None, groups: Vec::new() }
    }

    /// Asks nothing of the server itself: of several, one is asked.
    #[must_use]
    pub fn without_server(mut self) -> Self {
        self.sections = &[];
        self
    }

    /// Asks for the stream's consumer groups, too.
    #[must_use]
    pub fn with_groups_of(mut self, stream: &str) -> Self {
        self.stream = Some(stream.to_owned());
        self
    }

    /// Asks on a connection of its own.
    #[must_use]
    pub fn over(self, config: Config) -> OwnConnection {
        OwnConnection { watch: self, config }
    }

    /// Puts the questions on the wire when it is time. Not between `MULTI` and `EXEC`.
    pub fn ask(&mut self, connection: &mut Connection) {
        if self.asked || Instant::now() < self.due {
            return;
        }
        self.asked = true;
        self.due = Instant::now() + EVERY;
        for section in self.sections {
            connection.queue(&cmd::<Frame>("INFO").arg(section));
        }
        if let Some(stream) = &self.stream {
            connection.queue(&XInfoGroups::new(stream));
            for group in &self.groups {
                connection.queue(&XInfoConsumers::new(stream, group));
            }
        }
    }

    /// Takes the answers off the wire, if questions were asked. To be called when everything that
    /// was asked for before them has been received.
    ///
    /// # Errors
    ///
    /// When the connection is lost. What Redis refuses to tell is not known, and no error.
    pub async fn hear(&mut self, connection: &mut Connection) -> Result<(), Error> {
        if !std::mem::take(&mut self.asked) {
            return Ok(());
        }
        let mut info = String::new();
        for _ in self.sections {
            let frame = connection.receive().await?;
            info += &String::from_utf8_lossy(frame.value().as_bytes().unwrap_or_default());
            info += "\n";
        }
        if !self.sections.is_empty() {
            self.health.set_server(ServerState::parse(&info));
        }
        let Some(stream) = &self.stream else { return Ok(()) };
        let groups = told(connection.receive_reply(&XInfoGroups::new(stream)).await)?.unwrap_or_default();
        let mut members = Vec::new();
        for group in &self.groups {
            let consumers = told(connection.receive_reply(&XInfoConsumers::new(stream, group)).await)?;
            members.extend(consumers.unwrap_or_default().iter().map(|consumer| Member::of(consumer, group)));
        }
        let groups: Vec<Vec<u8>> = groups.into_iter().map(|group| group.name.into()).take(GROUPS).collect();
        if groups == self.groups {
            self.health.set_group(members);
        } else {
            // Their consumers are asked for next.
            self.groups = groups;
            self.due = Instant::now();
        }
        Ok(())
    }
}

/// A [`ServerWatch`] with a connection of its own, so that the work's connections carry nothing but
/// work.
#[derive(Debug)]
pub struct OwnConnection {
    watch: ServerWatch,
    config: Config,
}

impl OwnConnection {
    /// Asks until it is dropped. A server that is away is asked again; whoever works with it
    /// reports that.
    pub async fn run(mut self) -> Infallible {
        loop {
            if let Ok(mut connection) = Connection::connect(&self.config).await {
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

/// What was told; `None` when it was refused.
fn told<T>(reply: Result<T, Error>) -> Result<Option<T>, Error> {
    match reply {
        Ok(told) => Ok(Some(told)),
        Err(error) if error.closes_connection() => Err(error),
        Err(_) => Ok(None),
    }
}

impl Member {
    /// From what `XINFO CONSUMERS` tells of one.
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
    fn valkey_is_called_by_its_name_and_a_limit_is_one() {
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
    fn nothing_is_known_of_a_server_that_refuses() {
        assert_eq!(ServerState::parse("\n\n\n"), None);
        assert_eq!(ServerState::parse("# Memory\r\nused_memory:7\r\n"), None);
    }
}
