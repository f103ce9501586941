//! Iteration over all keys of a cluster.

use std::fmt;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::nobody;
use super::nodes::Nodes;
use super::retries::Retries;
use crate::client::EncodedCommands;
use crate::command::slot::SLOTS;
use crate::command::{self, Command};
use crate::config::Endpoint;
use crate::discovery::MAX_REDIRECTS;
use crate::{Cmd, Error, ErrorKind, Frame, Routing, Sent, Value, cmd};

/// Iterates over the keys of all masters of a cluster, with `SCAN` on one node after the other.
///
/// A key that exists during the whole iteration is returned at least once, even if slots move or a
/// replica is promoted meanwhile: at the end, slots that have moved are scanned again. Keys may be
/// returned several times. Keys of a slot that is migrating may be missed.
///
/// ```no_run
/// # async fn example(cluster: resp::ClusterClient) -> Result<(), resp::Error> {
/// let mut scan = cluster.scan().matching("events:*").kind("stream").count(1000);
/// while let Some(keys) = scan.next().await? {
///     for key in keys {
///         println!("{}", key.escape_ascii());
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[must_use]
pub struct Scan {
    nodes: Arc<Nodes>,
    pattern: Option<Vec<u8>>,
    count: Option<u64>,
    kind: Option<String>,
    /// For each slot, the node on which it was scanned.
    done: Vec<Option<Arc<Endpoint>>>,
    current: Option<Current>,
    /// How often the slots were checked for moves.
    passes: u32,
}

/// The node that is being scanned.
struct Current {
    node: Arc<Endpoint>,
    slots: Vec<u16>,
    cursor: u64,
}

impl Scan {
    pub(super) fn new(nodes: Arc<Nodes>) -> Self {
        let done = vec![None; usize::from(SLOTS)];
        Self { nodes, pattern: None, count: None, kind: None, done, current: None, passes: 0 }
    }

    /// Only returns keys that match a pattern (`MATCH`).
    pub fn matching(mut self, pattern: impl AsRef<[u8]>) -> Self {
        self.pattern = Some(pattern.as_ref().to_vec());
        self
    }

    /// Sets about how many keys the server examines per call (`COUNT`); 10 unless set.
    pub const fn count(mut self, keys: u64) -> Self {
        self.count = Some(keys);
        self
    }

    /// Only returns keys of this type (`TYPE`, Redis 6.0): `stream`, `string`, …
    pub fn kind(mut self, kind: impl Into<String>) -> Self {
        self.kind = Some(kind.into());
        self
    }

    /// Returns the next keys, possibly none; `None` at the end. The future may be dropped at any
    /// time.
    ///
    /// # Errors
    ///
    /// As [`ClusterClient::send`](crate::ClusterClient::send). Call again to continue.
    /// [`ErrorKind::ClusterDown`] if no node serves some slots, or slots move faster than they can
    /// be scanned.
    pub async fn next(&mut self) -> Result<Option<Vec<Bytes>>, Error> {
        self.page().await.map_err(|error| error.with_context("SCAN", None))
    }

    async fn page(&mut self) -> Result<Option<Vec<Bytes>>, Error> {
        let mut retries = Retries::new(self.nodes.config().command_timeout);
        loop {
            let version = self.nodes.version();
            let Some(current) = self.current.take().or_else(|| self.begin()) else {
                // The remaining slots have no owner.
                if self.done.iter().any(Option::is_none) {
                    retries.wait(nobody).await?;
                    self.nodes.refresh_quietly(version, retries.time_limit).await;
                    continue;
                }
                if self.is_over(&mut retries).await? {
                    return Ok(None);
                }
                continue;
            };
            let scan = self.command(current.cursor);
            let mut encoded = BytesMut::new();
            command::encode(&scan, &mut encoded);
            let current = self.current.insert(current);
            let sent =
                self.nodes.exchange(&current.node, &EncodedCommands::of_command(&encoded), retries.time_limit).await;
            let reply =
                sent.and_then(|frames| self.nodes.redact(frames).pop().ok_or_else(Error::closed)?.into_result());
            match reply {
                Ok(reply) => {
                    let (cursor, keys) =
                        page(&reply).ok_or_else(|| Error::unexpected_reply("a cursor and keys", reply.value()))?;
                    current.cursor = cursor;
                    if cursor == 0 {
                        self.finish();
                    }
                    return Ok(Some(keys));
                }
                // A read may be repeated, but the cursor is only valid on its node.
                Err(error) if error.is_transient() => {
                    self.current = None;
                    retries.wait(|| error.with_sent(Sent::No)).await?;
                    self.nodes.refresh_quietly(version, retries.time_limit).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn command(&self, cursor: u64) -> Cmd {
        let mut scan = cmd("SCAN").arg(cursor);
        if let Some(pattern) = &self.pattern {
            scan = scan.arg("MATCH").arg(pattern);
        }
        if let Some(count) = self.count {
            scan = scan.arg("COUNT").arg(count);
        }
        if let Some(kind) = &self.kind {
            scan = scan.arg("TYPE").arg(kind);
        }
        scan
    }

    /// Returns the owner of the first slot that is not scanned.
    fn begin(&self) -> Option<Current> {
        let node = (0..SLOTS).zip(&self.done).filter(|(_, done)| done.is_none());
        let node = node.map(|(slot, _)| self.nodes.owner(Routing::Slot(slot))).find(Option::is_some).flatten()?;
        let slots = self.nodes.slots_of(&node);
        Some(Current { node: Arc::new(node), slots, cursor: 0 })
    }

    /// Marks the slots of the current node as scanned.
    fn finish(&mut self) {
        let Some(Current { node, slots, .. }) = self.current.take() else { return };
        for slot in slots {
            if let Some(done) = self.done.get_mut(usize::from(slot)) {
                *done = Some(Arc::clone(&node));
            }
        }
    }

    /// Returns whether all slots were scanned on their current owner.
    async fn is_over(&mut self, retries: &mut Retries) -> Result<bool, Error> {
        retries.time_limit.within(self.nodes.refresh(self.nodes.version())).await?;
        let mut is_over = true;
        for (slot, done) in (0..SLOTS).zip(&mut self.done) {
            let is_there = match (&done, self.nodes.owner(Routing::Slot(slot))) {
                (Some(done), Some(owner)) => **done == owner,
                _ => false,
            };
            if !is_there {
                *done = None;
                is_over = false;
            }
        }
        self.passes = self.passes.saturating_add(1);
        if !is_over && self.passes > MAX_REDIRECTS {
            return Err(Error::new(ErrorKind::ClusterDown, "slots move faster than they can be scanned"));
        }
        Ok(is_over)
    }
}

/// The next cursor, and the keys.
fn page(reply: &Frame) -> Option<(u64, Vec<Bytes>)> {
    let mut parts = reply.value().children();
    let cursor = parts.next().and_then(Value::as_u64)?;
    let keys = parts.next()?.children().map(|key| key.as_bytes().map(|_| reply.slice(key))).collect::<Option<_>>()?;
    Some((cursor, keys))
}

impl fmt::Debug for Scan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let command = self.command(self.current.as_ref().map_or(0, |current| current.cursor));
        f.debug_struct("Scan").field("command", &command.name()).finish_non_exhaustive()
    }
}
