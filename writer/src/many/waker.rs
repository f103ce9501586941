//! Wakes parked sources: Redis tells when one of their streams changes (`CLIENT TRACKING`), and a
//! look behind what the group has been given tells whether something came. That changes nothing in
//! Redis.
//!
//! With RESP2, or when the user may not track keys, the [survey](super::survey) wakes the sources.

use super::Shared;
use super::node::Node;
use super::source::Source;
use resp::streams::XRead;
use resp::{Connection, Error, Frame, Pipeline, RespVersion, Value, cmd};
use service::Stop;
use std::convert::Infallible;
use std::rc::Rc;
use std::time::Duration;

/// How long changes are collected before their streams are checked.
const GATHER: Duration = Duration::from_millis(5);
/// How many sources one round trip checks.
const TOGETHER: usize = 200;
/// How often a connection on which nothing comes is tried.
const PING: Duration = Duration::from_secs(5);
/// How soon the node is asked again to tell of changes, after it refused.
const REFUSED: Duration = Duration::from_secs(30);
/// Sources with longer entries are not checked here, because the check fetches an entry. The
/// [survey](super::survey) wakes them.
pub(crate) const LONG: usize = 64 << 10;

/// Wakes the sources of a node until the service stops.
pub(super) async fn run(shared: &Shared<'_>, node: &Rc<Node>) -> Result<(), Stop> {
    let mut connector = node.connections.connector();
    loop {
        let mut connection = connector.connect().await?;
        if connection.protocol() != RespVersion::Resp3 {
            return std::future::pending().await;
        }
        let Err(error) = watch(shared, node, &mut connection).await;
        if error.is_server() {
            tokio::time::sleep(REFUSED).await;
        } else {
            node.connections.lost(&error);
            shared.nodes.suspect(&error);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// Wakes sources as long as the connection holds.
async fn watch(shared: &Shared<'_>, node: &Rc<Node>, connection: &mut Connection) -> Result<Infallible, Error> {
    connection.send(&cmd::<()>("CLIENT").arg("TRACKING").arg("ON")).await?;
    // None is tracked yet.
    let mut changed: Vec<Rc<Source>> = shared.sources_of(node).collect();
    loop {
        // What was parked before is among these, or is tracked already.
        changed.extend(node.parked());
        look(shared, connection, &changed).await?;
        changed.clear();
        tokio::select! {
            push = connection.next_push() => read(shared, node, &push?, &mut changed),
            () = node.is_parked.notified() => {}
            () = tokio::time::sleep(PING) => drop(connection.send(&cmd::<Frame>("PING")).await?),
        }
        tokio::time::sleep(GATHER).await;
        while let Some(push) = connection.take_push() {
            read(shared, node, &push, &mut changed);
        }
    }
}

/// Looks whether something has come for parked sources. From now on, Redis tells of their next
/// change.
async fn look(shared: &Shared<'_>, connection: &mut Connection, sources: &[Rc<Source>]) -> Result<(), Error> {
    let parked = sources.iter().filter(|source| !source.has_long_entries.get());
    let parked: Vec<_> = parked.filter_map(|source| Some((source, source.parked.get()?))).collect();
    for parked in parked.chunks(TOGETHER) {
        let mut questions = Pipeline::new();
        let asked: Vec<_> = parked
            .iter()
            .map(|(source, behind)| questions.add(XRead::new(&source.group.stream, *behind).count(1)))
            .collect();
        let mut replies = connection.run(&questions).await?;
        for ((source, _), reply) in parked.iter().zip(asked) {
            match replies.take(reply) {
                Ok(reply) if reply.is_empty() => {}
                Ok(_) => source.wake(),
                Err(error) if error.is_server() => shared.nodes.suspect(&error),
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

/// Adds the sources whose streams have changed.
fn read(shared: &Shared<'_>, node: &Rc<Node>, push: &Frame, changed: &mut Vec<Rc<Source>>) {
    let mut parts = push.value().children();
    if parts.next().and_then(Value::as_bytes) != Some(b"invalidate") {
        return;
    }
    match parts.next() {
        Some(keys) if !keys.is_null() => {
            let keys = keys.children().filter_map(Value::as_str);
            changed.extend(keys.filter_map(|key| shared.sources.with_key(key)));
        }
        // All keys: the database was emptied.
        _ => changed.extend(shared.sources_of(node)),
    }
}
