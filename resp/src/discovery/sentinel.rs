//! Discovery by Sentinels: they name the address of a master, and the server confirms its role.
//!
//! The procedure is that of Redis' guidelines for Sentinel clients. [`connect`] runs it;
//! [`MasterWatch`](super::MasterWatch) uses the single steps.

use std::time::Instant;

use super::candidates::Round;
use super::{Discovery, within};
use crate::config::{Config, Endpoint};
use crate::{Connection, Error, ErrorKind, Frame, Value, cmd};

/// Connects to the master of this name, and verifies that the server is a master.
pub(super) async fn connect(
    discovery: &Discovery,
    sentinels: &[Endpoint],
    master: &str,
    deadline: Instant,
) -> Result<Connection, Error> {
    let mut round = Round::new(&discovery.candidates, sentinels, deadline);
    while let Some((sentinel, answer_by)) = round.next() {
        match connect_by(&discovery.config, &sentinel, master, answer_by, deadline).await {
            Ok(connection) => return Ok(connection),
            Err(error) => round.failed(&sentinel, error),
        }
    }
    Err(round.into_error())
}

/// Connects to the master that one Sentinel names.
async fn connect_by(
    config: &Config,
    sentinel: &Endpoint,
    master: &str,
    answer_by: Instant,
    deadline: Instant,
) -> Result<Connection, Error> {
    let found = within(answer_by, query(config, sentinel, master)).await;
    let server = found.map_err(|error| error.at_server(&format!("Sentinel {}", config.shown_server(sentinel))))?;
    let connected = within(deadline, connect_to_master(config, &server)).await;
    connected.map_err(|error| {
        let (server, sentinel) = (config.shown_server(&server), config.shown_server(sentinel));
        error.at_server(&format!("{server}, which Sentinel {sentinel} names as master {master}"))
    })
}

/// Connects to a Sentinel and queries the address of the master.
pub(super) async fn query(config: &Config, sentinel: &Endpoint, master: &str) -> Result<Endpoint, Error> {
    let mut connection = Connection::connect_to(sentinel, &sentinel_config(config, sentinel)).await?;
    query_over(&mut connection, config, master).await
}

/// Queries the address of the master over a connection to a Sentinel.
pub(super) async fn query_over(connection: &mut Connection, config: &Config, master: &str) -> Result<Endpoint, Error> {
    let reply = connection.send(cmd::<Frame>("SENTINEL GET-MASTER-ADDR-BY-NAME").arg(master)).await?;
    let value = reply.value();
    if value.is_null() {
        return Err(Error::new(ErrorKind::UnknownMaster, format!("does not know a master {master:?}")));
    }
    let mut parts = value.children();
    let host = parts.next().and_then(Value::as_str).filter(|host| !host.is_empty());
    let port = parts.next().and_then(Value::as_u64).and_then(|port| u16::try_from(port).ok()).filter(|port| *port != 0);
    match (host, port) {
        (Some(host), Some(port)) => Ok(Endpoint::server(host.to_owned(), port, config.endpoint.is_tls())),
        _ => Err(Error::unexpected_reply("a host and a port", value)),
    }
}

/// Returns the configuration for a Sentinel, which has its own users and no databases.
pub(super) fn sentinel_config(config: &Config, sentinel: &Endpoint) -> Config {
    Config {
        endpoint: sentinel.clone(),
        user: config.sentinel_user.clone(),
        password: config.sentinel_password.clone(),
        database: 0,
        // Old Sentinels do not support `CLIENT SETNAME`.
        client_name: None,
        ..config.clone()
    }
}

/// Connects to a server and verifies that it is a master: the answer of a Sentinel may be stale.
pub(super) async fn connect_to_master(config: &Config, server: &Endpoint) -> Result<Connection, Error> {
    let mut connection = Connection::connect_to(server, config).await?;
    let role = connection.send(cmd::<Frame>("ROLE")).await?;
    match role.value().children().next().and_then(Value::as_str) {
        Some("master") => Ok(connection),
        Some(role) => Err(Error::new(ErrorKind::NotMaster, format!("its role is {role}"))),
        None => Err(Error::unexpected_reply("a role", role.value())),
    }
}
