//! Which server is the master now: by asking Sentinels, and then the server itself.
//!
//! What a client has to do is described in Redis' guidelines for clients of Sentinel.

use std::time::Instant;

use crate::config::{Config, Endpoint};
use crate::turn::{self, Turns};
use crate::{Connection, Error, ErrorKind, Frame, Value, cmd};

/// Connects to the master of this name, which says itself that it is one.
pub(crate) async fn connect(
    config: &Config,
    sentinels: &[Endpoint],
    master: &str,
    deadline: Instant,
) -> Result<Connection, Error> {
    let mut turns = Turns::new(&config.known, sentinels, deadline);
    while let Some((sentinel, until)) = turns.next() {
        match try_one(config, &sentinel, master, until, deadline).await {
            Ok(connection) => return Ok(connection),
            Err(error) => turns.failed(&sentinel, error),
        }
    }
    Err(turns.into_error())
}

/// With the word of one Sentinel, which must come in its time.
async fn try_one(
    config: &Config,
    sentinel: &Endpoint,
    master: &str,
    until: Instant,
    deadline: Instant,
) -> Result<Connection, Error> {
    let found = turn::within(until, ask(config, sentinel, master)).await;
    let server = found.map_err(|error| error.at(&format!("Sentinel {sentinel}")))?;
    let connected = turn::within(deadline, connect_to(config, &server)).await;
    connected.map_err(|error| error.at(&format!("{server}, which Sentinel {sentinel} names as master {master}")))
}

/// The address of the master, as a Sentinel knows it.
pub(crate) async fn ask(config: &Config, sentinel: &Endpoint, master: &str) -> Result<Endpoint, Error> {
    let mut asking = Connection::connect_to(sentinel, &of_sentinel(config, sentinel)).await?;
    ask_over(&mut asking, config, master).await
}

/// The same over a connection to a Sentinel.
pub(crate) async fn ask_over(asking: &mut Connection, config: &Config, master: &str) -> Result<Endpoint, Error> {
    let reply = asking.send(&cmd::<Frame>("SENTINEL GET-MASTER-ADDR-BY-NAME").arg(master)).await?;
    let value = reply.value();
    if value.is_null() {
        return Err(Error::new(ErrorKind::UnknownMaster, format!("it knows no master {master:?}")));
    }
    let mut parts = value.children();
    let host = parts.next().and_then(Value::as_str).filter(|host| !host.is_empty());
    let port = parts.next().and_then(Value::as_u64).and_then(|port| u16::try_from(port).ok());
    match (host, port) {
        (Some(host), Some(port)) => Ok(Endpoint::server(host.to_owned(), port, config.endpoint.is_tls())),
        _ => Err(Error::unexpected_reply("a host and a port", value)),
    }
}

/// How to get into a Sentinel: it has users of its own, and no databases.
pub(crate) fn of_sentinel(config: &Config, sentinel: &Endpoint) -> Config {
    Config {
        endpoint: sentinel.clone(),
        user: config.sentinel_user.clone(),
        password: config.sentinel_password.clone(),
        database: 0,
        // Old Sentinels do not know the command.
        client_name: None,
        ..config.clone()
    }
}

/// A connection to a server that is the master. What Sentinels say may be a moment old.
pub(crate) async fn connect_to(config: &Config, server: &Endpoint) -> Result<Connection, Error> {
    let mut connection = Connection::connect_to(server, config).await?;
    let role = connection.send(&cmd::<Frame>("ROLE")).await?;
    match role.value().children().next().and_then(Value::as_str) {
        Some("master") => Ok(connection),
        Some(role) => Err(Error::new(ErrorKind::NotMaster, format!("its role is {role}"))),
        None => Err(Error::unexpected_reply("a role", role.value())),
    }
}
