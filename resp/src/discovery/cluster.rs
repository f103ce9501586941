//! Discovery in a cluster: any node names the owner of a key's slot, and the owner confirms it.
//!
//! [`connect`] serves [`Discovery`]; [`fn`] serves the
//! [`ClusterClient`](crate::ClusterClient), which keeps the whole slot map.

use std::time::Instant;

use super::candidates::Round;
use super::redirect::{MAX_REDIRECTS, Redirect};
use super::topology::{self, Topology};
use super::{Discovery, within};
use crate::command::slot::slot;
use crate::config::{Config, Endpoint};
use crate::{Connection, Error, ErrorKind, Frame, cmd};

/// Connects to the owner of the configuration's key; without a key, to any node.
pub(super) async fn connect(discovery: &Discovery, seeds: &[Endpoint], deadline: Instant) -> Result<Connection, Error> {
    let mut round = Round::new(&discovery.candidates, seeds, deadline);
    while let Some((node, answer_by)) = round.next() {
        match connect_by(discovery, &node, answer_by, deadline).await {
            Ok(connection) => return Ok(connection),
            Err(error) => round.failed(&node, error),
        }
    }
    Err(round.into_error())
}

/// Returns the topology that the first answering node reports.
pub(crate) async fn topology(discovery: &Discovery, seeds: &[Endpoint], deadline: Instant) -> Result<Topology, Error> {
    let mut round = Round::new(&discovery.candidates, seeds, deadline);
    while let Some((node, answer_by)) = round.next() {
        match query(discovery, &node, answer_by).await {
            Ok((topology, _)) => return Ok(topology),
            Err(error) => round.failed(&node, error),
        }
    }
    Err(round.into_error())
}

/// Queries the topology from one node, and learns the other nodes from it.
async fn query(discovery: &Discovery, node: &Endpoint, answer_by: Instant) -> Result<(Topology, Connection), Error> {
    let queried = within(answer_by, topology::query(&discovery.config, node)).await;
    let (topology, connection) =
        queried.map_err(|error| error.at_server(&format!("node {}", discovery.config.shown_server(node))))?;
    discovery.candidates.learn(topology.masters());
    Ok((topology, connection))
}

/// Connects to the owner of the key that one node names.
async fn connect_by(
    discovery: &Discovery,
    node: &Endpoint,
    answer_by: Instant,
    deadline: Instant,
) -> Result<Connection, Error> {
    let config = &discovery.config;
    let (topology, connection) = query(discovery, node, answer_by).await?;
    let Some(key) = &config.key else { return Ok(connection) };
    let slot = slot(key);
    let Some(owner) = topology.owner(slot) else {
        let node = config.shown_server(node);
        return Err(Error::new(ErrorKind::ClusterDown, format!("node {node}: no node serves slot {slot}")));
    };
    within(deadline, connect_to_owner(config, owner, key)).await
}

/// Connects to the owner of a key. The topology may be stale, so the node is asked for the key, and
/// `MOVED` is followed.
async fn connect_to_owner(config: &Config, owner: &Endpoint, key: &[u8]) -> Result<Connection, Error> {
    let mut node = owner.clone();
    for _ in 0..=MAX_REDIRECTS {
        let at = |error: Error| error.at_server(&format!("node {}", config.shown_server(&node)));
        let mut connection = Connection::connect_to(&node, config).await.map_err(at)?;
        connection.keep_redirects(true);
        connection.queue(cmd::<()>("EXISTS").key_arg(key));
        let answer = connection.receive().await.and_then(Frame::into_result);
        connection.keep_redirects(false);
        let error = match answer {
            Ok(_) => return Ok(connection),
            // The ACL may forbid EXISTS and still allow what the caller needs.
            Err(error) if error.kind() == ErrorKind::NoPerm => return Ok(connection),
            Err(error) => error,
        };
        node = match Redirect::of_error(&error, &node) {
            Some(Redirect::Moved { to, .. }) => to,
            _ => return Err(at(error.with_context("EXISTS", Some(key)))),
        };
    }
    Err(Error::new(ErrorKind::ClusterDown, "the nodes disagree on the owner of the slot"))
}
