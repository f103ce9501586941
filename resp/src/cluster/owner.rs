//! A connection to the node that has a key.

use std::time::Instant;

use super::redirect::Redirect;
use super::topology::{self, Topology};
use super::{MAX_REDIRECTS, slot};
use crate::config::{Config, Endpoint};
use crate::turn::{self, Turns};
use crate::{Connection, Error, ErrorKind, cmd};

/// Connects to the node that has the configuration's key, which says itself that it has it. Without
/// a key, to any node.
pub(crate) async fn connect(config: &Config, seeds: &[Endpoint], deadline: Instant) -> Result<Connection, Error> {
    let mut turns = Turns::new(&config.known, seeds, deadline);
    while let Some((node, until)) = turns.next() {
        match try_one(config, &node, until, deadline).await {
            Ok(connection) => return Ok(connection),
            Err(error) => turns.failed(&node, error),
        }
    }
    Err(turns.into_error())
}

/// What the first node that answers knows.
pub(super) async fn topology(config: &Config, seeds: &[Endpoint], deadline: Instant) -> Result<Topology, Error> {
    let mut turns = Turns::new(&config.known, seeds, deadline);
    while let Some((node, until)) = turns.next() {
        match learn(config, &node, until).await {
            Ok((topology, _)) => return Ok(topology),
            Err(error) => turns.failed(&node, error),
        }
    }
    Err(turns.into_error())
}

async fn learn(config: &Config, node: &Endpoint, until: Instant) -> Result<(Topology, Connection), Error> {
    let learned = turn::within(until, topology::ask(config, node)).await;
    let learned = learned.map_err(|error| error.at(&format!("node {node}")))?;
    config.known.learn(learned.0.nodes());
    Ok(learned)
}

/// With the word of one node, which must come in its time.
async fn try_one(config: &Config, node: &Endpoint, until: Instant, deadline: Instant) -> Result<Connection, Error> {
    let (topology, connection) = learn(config, node, until).await?;
    let Some(key) = &config.key else { return Ok(connection) };
    let slot = slot(key);
    let Some(owner) = topology.owner(slot) else {
        return Err(Error::new(ErrorKind::ClusterDown, format!("node {node}: nobody has slot {slot}")));
    };
    turn::within(deadline, follow(config, owner, key)).await
}

/// What one node says of the slots may be a moment old, so the other one is asked for the key.
async fn follow(config: &Config, owner: &Endpoint, key: &[u8]) -> Result<Connection, Error> {
    let mut node = owner.clone();
    for _ in 0..=MAX_REDIRECTS {
        let at = |error: Error| error.at(&format!("node {node}"));
        let mut connection = Connection::connect_to(&node, config).await.map_err(at)?;
        let error = match connection.send(&cmd::<()>("EXISTS").key_arg(key)).await {
            Ok(_) => return Ok(connection),
            // Who may not look at the key may do what counts.
            Err(error) if error.kind() == ErrorKind::NoPerm => return Ok(connection),
            Err(error) => error,
        };
        node = match Redirect::of_error(&error, &node) {
            Some(Redirect::Moved { to, .. }) => to,
            _ => return Err(at(error)),
        };
    }
    Err(Error::new(ErrorKind::ClusterDown, "the nodes do not agree on who has the slot"))
}
