//! The registry of sources, which readers keep in Redis.

use delivery::source_name::{SourceName, WrongName, registry_key};
use globset::GlobSet;
use resp::{Connection, Error, ErrorKind, Executor, Frame, cmd};
use service::preflight::{Commands, must_be_allowed};
use service::{Connector, Failure, Health, Stop};
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::time::Instant;

/// How often it is asked whether there are more sources.
const COUNT: Duration = Duration::from_millis(500);
/// How often all of it is read.
const READ: Duration = Duration::from_secs(10);
/// How many fields are read at once.
const FIELDS: u64 = 1000;
/// At most this many names that are refused are remembered, and logged.
const REFUSED: usize = 100;
const READING: &str = "reading the registry";

/// A source, as the registry lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) name: SourceName,
    /// The reader is done with it.
    pub(crate) is_finished: bool,
}

/// Reads the registry.
pub(crate) struct Registry<'a> {
    stream: &'a str,
    key: String,
    wanted: Option<&'a GlobSet>,
    connector: Connector,
    connection: Option<Connection>,
    health: &'a Health,
    count: Option<u64>,
    read_at: Option<Instant>,
    refused: BTreeSet<String>,
    /// Whether it was logged that there is only the stream of a single file.
    is_empty_reported: bool,
}

impl<'a> Registry<'a> {
    /// The registry of this stream; only sources whose names are `wanted`.
    pub(crate) fn new(stream: &'a str, wanted: Option<&'a GlobSet>, connector: Connector, health: &'a Health) -> Self {
        Self {
            stream,
            key: registry_key(stream),
            wanted,
            connector,
            connection: None,
            health,
            count: None,
            read_at: None,
            refused: BTreeSet::new(),
            is_empty_reported: false,
        }
    }

    /// Looks whether this user may read it.
    pub(crate) async fn check(&mut self) -> Result<(), Stop> {
        let connection = self.connected().await?;
        let key = self.key.clone();
        let commands = vec![cmd::<Frame>("HLEN").arg(&key), cmd::<Frame>("HSCAN").arg(&key).arg(0)];
        let connection = self.connection.insert(connection);
        must_be_allowed(Commands { connection, watched: key, commands }).await?;
        Ok(())
    }

    /// The sources, as soon as there may be others than at the last call.
    ///
    /// May be dropped: nothing is lost then.
    pub(crate) async fn changed(&mut self) -> Result<Vec<Listed>, Stop> {
        if self.count.is_some() {
            tokio::time::sleep(COUNT).await;
        }
        loop {
            let mut connection = self.connected().await?;
            match self.look(&mut connection).await {
                Ok(listed) => {
                    self.connection = Some(connection);
                    self.health.redis_works(READING);
                    if let Some(listed) = listed {
                        return Ok(listed);
                    }
                    self.health.progress();
                }
                Err(error) if error.kind() == ErrorKind::WrongType => {
                    return Err(Stop::Failure(Failure::config(format!(
                        "--stream: the key {} holds another type ({error}); allowed: a hash, or a key that does not \
                         exist",
                        self.key
                    ))));
                }
                Err(error) => {
                    self.read_at = None;
                    self.connector.lost(&error);
                    self.health.redis_failed(READING, &error);
                }
            }
            tokio::time::sleep(COUNT).await;
        }
    }

    /// The sources, now.
    pub(crate) async fn read_now(&mut self) -> Result<Vec<Listed>, Stop> {
        self.read_at = None;
        self.count = None;
        self.changed().await
    }

    async fn connected(&mut self) -> Result<Connection, Stop> {
        match self.connection.take().filter(|connection| !connection.is_closed()) {
            Some(connection) => Ok(connection),
            None => {
                self.read_at = None;
                self.connector.connect().await
            }
        }
    }

    async fn look(&mut self, connection: &mut Connection) -> Result<Option<Vec<Listed>>, Error> {
        let count = connection.send(&cmd::<i64>("HLEN").arg(&self.key)).await?.unsigned_abs();
        if self.count == Some(count) && self.read_at.is_some_and(|at| at.elapsed() < READ) {
            return Ok(None);
        }
        let fields = read(&mut *connection, &self.key).await?;
        if fields.is_empty()
            && !self.is_empty_reported
            && let Some(why) = single_file(connection, self.stream).await
        {
            self.is_empty_reported = true;
            log::warn!("{why}; to write that, use --output instead of --output-dir");
        }
        let listed = fields.iter().filter_map(|(field, entry)| self.listed(field, entry)).collect();
        self.count = Some(count);
        self.read_at = Some(Instant::now());
        Ok(Some(listed))
    }

    fn listed(&mut self, field: &[u8], entry: &[u8]) -> Option<Listed> {
        match listed(field, entry, self.wanted) {
            Ok(source) => source,
            Err(why) => {
                let name = String::from_utf8_lossy(field).into_owned();
                if self.refused.len() < REFUSED && self.refused.insert(name.clone()) {
                    log::error!("{}: source {name:?} has no output: {why}", self.key);
                }
                None
            }
        }
    }
}

/// Why a registry without sources is probably not what was meant: the stream is that of a single
/// file.
pub(super) async fn single_file(connection: &mut Connection, stream: &str) -> Option<String> {
    // The user may lack the permission; nothing depends on it.
    let exists = connection.send(&cmd::<u64>("EXISTS").arg(stream)).await.unwrap_or(0);
    (exists > 0)
        .then(|| format!("{} lists no source, and {stream} is the stream of a single file", registry_key(stream)))
}

/// The fields and values of the registry.
pub(super) async fn read(mut redis: impl Executor, key: &str) -> Result<Vec<(Vec<u8>, Vec<u8>)>, Error> {
    let mut found = Vec::new();
    let mut cursor = b"0".to_vec();
    loop {
        let scan = cmd::<Frame>("HSCAN").arg(key).arg(&cursor).arg("COUNT").arg(FIELDS);
        let reply = redis.send(&scan).await?;
        let mut parts = reply.value().children();
        cursor = parts.next().and_then(|cursor| cursor.as_bytes().map(<[u8]>::to_vec)).unwrap_or_default();
        let mut fields = parts.next().map(resp::Value::children).into_iter().flatten();
        while let (Some(name), Some(entry)) = (fields.next(), fields.next()) {
            let (Some(name), Some(entry)) = (name.as_bytes(), entry.as_bytes()) else { continue };
            found.push((name.to_vec(), entry.to_vec()));
        }
        if cursor.is_empty() || cursor == b"0" {
            return Ok(found);
        }
    }
}

/// A field of the registry, if it is of a source that is wanted; or why it can have no output.
pub(super) fn listed(field: &[u8], entry: &[u8], wanted: Option<&GlobSet>) -> Result<Option<Listed>, String> {
    let text = std::str::from_utf8(field).map_err(|_| WrongName::Escape.to_string())?;
    let name = SourceName::parse(text).map_err(|wrong| wrong.to_string())?;
    if name.is_writers_own() {
        return Err("a writer keeps files of its own under such names".to_owned());
    }
    if wanted.is_some_and(|wanted| !wanted.is_match(name.path())) {
        return Ok(None);
    }
    let entry: Option<serde_json::Value> = serde_json::from_slice(entry).ok();
    let is_finished = entry.is_some_and(|entry| entry.get("state").is_some_and(|state| state == "finished"));
    Ok(Some(Listed { name, is_finished }))
}
