//! Asking the nodes, and sending them commands.

use std::time::Duration;

use resp::{Config, Connection, Endpoint, Error, Frame, TlsConfig, Value, cmd};

use crate::plan::Act;
use crate::view::{Report, Source, View};

/// How long a node has for a connection, and for each reply.
const PATIENCE: Duration = Duration::from_secs(5);
/// What `syslog-ident` begins with where it names the machine of a pod.
const MACHINE: &str = "machine=";

/// A configured node: `host:port`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seed {
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl Seed {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        (!host.is_empty()).then_some(())?;
        Some(Self { host: host.to_owned(), port: port.parse().ok().filter(|port| *port > 0)? })
    }
}

impl std::fmt::Display for Seed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// The addresses of the nodes, and the credentials for them.
#[derive(Debug)]
pub(crate) struct Nodes {
    seeds: Vec<(Seed, Config)>,
}

impl Nodes {
    /// With `tls`, all nodes are reached by TLS.
    pub(crate) fn new(seeds: &[Seed], password: Option<&str>, tls: Option<&TlsConfig>) -> Self {
        let config = |seed: &Seed| {
            let endpoint = if tls.is_some() { Endpoint::tls } else { Endpoint::tcp };
            let config = Config::new(endpoint(seed.host.clone(), seed.port))
                .tls(tls.cloned().unwrap_or_default())
                .client_name("reconciler")
                .connect_timeout(PATIENCE)
                .command_timeout(Some(PATIENCE));
            match password {
                Some(password) => config.password(password),
                None => config,
            }
        };
        Self { seeds: seeds.iter().map(|seed| (seed.clone(), config(seed))).collect() }
    }

    /// The reports of all nodes, which are asked at the same time.
    pub(crate) async fn views(&self) -> Vec<View> {
        let mut asked = Vec::new();
        for (seed, config) in &self.seeds {
            let config = config.clone();
            asked.push((seed.to_string(), tokio::spawn(async move { report(&config).await })));
        }
        let mut views = Vec::new();
        for (seed, report) in asked {
            let report = report.await.unwrap_or_else(|error| Err(error.to_string()));
            views.push(View { seed, report });
        }
        views
    }

    /// Sends a command to a node; its reply for the log.
    pub(crate) async fn perform(&self, act: &Act) -> String {
        let Some((seed, config)) = self.seeds.get(act.node) else { return String::new() };
        let words = act.command.join(" ");
        match send(config, &act.command).await {
            Ok(reply) => format!("{seed}: {words}: {}", text(reply.value()).unwrap_or_default()),
            Err(error) => format!("{seed}: {words}: {error}"),
        }
    }
}

async fn send(config: &Config, words: &[String]) -> Result<Frame, Error> {
    let mut connection = Connection::connect(config).await?;
    let Some((name, args)) = words.split_first() else { return connection.send(&cmd::<Frame>("PING")).await };
    connection.send(&cmd(name).args(args)).await
}

async fn report(config: &Config) -> Result<Report, String> {
    ask(config).await.map_err(|error| error.to_string())?.ok_or_else(|| "not a node of a Redis Cluster".to_owned())
}

async fn ask(config: &Config) -> Result<Option<Report>, Error> {
    let mut connection = Connection::connect(config).await?;
    let nodes = connection.send(&cmd::<Frame>("CLUSTER NODES")).await?;
    let Some(mut report) = text(nodes.value()).and_then(|nodes| Report::parse(&nodes)) else { return Ok(None) };
    report.source = source(connection.send(&cmd::<Frame>("ROLE")).await?.value());
    // Not every user may read the configuration, and nothing but the spread over machines depends
    // on it.
    if let Ok(ident) = connection.send(&cmd::<Frame>("CONFIG GET").arg("syslog-ident")).await {
        let ident = ident.value().get(b"syslog-ident").and_then(text);
        report.machine = ident.and_then(|ident| Some(ident.strip_prefix(MACHINE)?.to_owned()));
    }
    Ok(Some(report))
}

/// From the reply to `ROLE`: `slave`, the master's host and port, the state of the link, the
/// offset.
fn source(role: Value<'_>) -> Option<Source> {
    let mut fields = role.children();
    (text(fields.next()?)? == "slave").then_some(())?;
    let (host, port, state) = (text(fields.next()?)?, fields.next()?.as_u64()?, text(fields.next()?)?);
    let offset = fields.next().and_then(Value::as_int).unwrap_or(-1);
    Some(Source { host, port: u16::try_from(port).ok()?, is_connected: state == "connected", offset })
}

fn text(value: Value<'_>) -> Option<String> {
    Some(String::from_utf8_lossy(value.as_bytes()?).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_read() {
        let seed = |text| Seed::parse(text).map(|seed| (seed.host, seed.port));
        assert_eq!(seed("redis-0.redis:6379"), Some(("redis-0.redis".to_owned(), 6379)));
        assert_eq!(seed("[fd00::7]:6379"), Some(("fd00::7".to_owned(), 6379)));
        for wrong in ["", "redis", ":6379", "redis:", "redis:0", "redis:70000"] {
            assert_eq!(seed(wrong), None, "{wrong}");
        }
    }
}
