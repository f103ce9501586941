//! A client of a whole Redis Cluster.
//!
//! [`ClusterClient`] routes commands; it owns the slot map and a client for each node. Discovery of
//! the topology is in `discovery`, and the routing of commands in
//! `command`.

mod nodes;
mod pipeline;
mod retries;
mod scan;
mod shared_attempt;

pub use crate::command::slot::slot;
pub use scan::Scan;

use std::fmt;
use std::sync::Arc;

use bytes::BytesMut;
use tokio::task::JoinSet;

use crate::client::EncodedCommands;
use crate::command::{self, Command};
use crate::config::{Config, Endpoint};
use crate::connection::{Pipeline, Replies, Transaction, is_ok};
use crate::discovery::Redirect;
use crate::{Connection, Error, ErrorKind, Frame, Routing, Sent};
use nodes::Nodes;
use retries::Retries;

/// A client of all nodes of a Redis Cluster: cheap to clone and thread-safe.
///
/// Each command goes to the node that owns the slot of its key, over one shared connection per
/// node. The client fetches the slot map at startup, and refreshes it when a slot has moved or a
/// node is unreachable.
///
/// The client follows `MOVED` and `ASK`. It retries `TRYAGAIN`, `CLUSTERDOWN`, `LOADING`,
/// `MASTERDOWN`, `READONLY` of a demoted node, and unreachable nodes until the [command
/// timeout](Config::command_timeout), which covers the whole call. A command that may have been
/// executed is not sent again: the error then says [`Sent::Maybe`].
///
/// However many callers wait for a node, one attempt to connect runs at a time, and its result goes
/// to all of them.
///
/// A command without a key goes to any node if all nodes answer alike ([`Routing::Anywhere`]:
/// `PING`, `PUBLISH`, `CLUSTER SHARDS`). [`send`](Self::send) refuses a command about the node
/// itself ([`Routing::OneNode`]: `SCAN`, `DBSIZE`, `INFO`, `FLUSHALL`, `CONFIG`, `SCRIPT`). Use
/// [`send_to`](Self::send_to) for one node, [`send_to_masters`](Self::send_to_masters) for all
/// masters, and [`scan`](Self::scan) for the keys of all nodes.
///
/// Reads go to the masters, unless you use [`send_to_replica`](Self::send_to_replica).
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use resp::streams::{AddId, XAdd};
/// use resp::{ClusterClient, Config, ConsumerOptions};
///
/// let config = Config::from_url("redis-cluster://a:6379,b:6379")?;
/// let cluster = ClusterClient::connect(&config).await?;
/// for n in 0..64 {
///     let stream = format!("events:{{{n}}}");
///     cluster.send(XAdd::new(&stream, AddId::Auto, &[("type", "start")])).await?;
/// }
/// // A blocking read has a connection of its own, to the node that has the stream.
/// let mut consumer = ConsumerOptions::new(config, "events:{7}", "workers", "me").connect().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct ClusterClient(Arc<Nodes>);

impl ClusterClient {
    /// Fetches the slot map from the first seed that answers.
    ///
    /// # Errors
    ///
    /// No seed answers within the connect timeout, or it is no cluster. [`ErrorKind::Usage`] if the
    /// configuration names no cluster.
    pub async fn connect(config: &Config) -> Result<Self, Error> {
        let Endpoint::Cluster { seeds, .. } = config.endpoint() else {
            return Err(Error::new(ErrorKind::Usage, "the URL is not of a cluster; use redis-cluster://host,host")
                .with_sent(Sent::No));
        };
        let nodes = Arc::new(Nodes::new(config.clone(), seeds.clone()));
        nodes.refresh(nodes.version()).await.map_err(|error| config.connect_error(error))?;
        Ok(Self(nodes))
    }

    /// Sends a command, given by value or by reference, to the owner of its key, and waits for its
    /// reply.
    ///
    /// # Errors
    ///
    /// As [`Client::send`](crate::Client::send). Before anything is sent: [`ErrorKind::CrossSlot`]
    /// if its keys are in different slots, [`ErrorKind::Usage`] if the command is about one node.
    pub async fn send<C: Command>(&self, command: C) -> Result<C::Reply, Error> {
        self.deliver_one(&command, From::Master).await
    }

    /// Sends a read command to a replica of the key's owner, in round-robin order, and waits for
    /// its reply. The reply may be stale. Without a healthy replica, or if the command writes, the
    /// master executes it.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send).
    ///
    /// ```no_run
    /// # async fn example(cluster: resp::ClusterClient) -> Result<(), resp::Error> {
    /// use resp::streams::XRange;
    ///
    /// let entries = cluster.send_to_replica(XRange::new("events", ..).count(100)).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn send_to_replica<C: Command>(&self, command: C) -> Result<C::Reply, Error> {
        self.deliver_one(&command, From::Replica).await
    }

    async fn deliver_one<C: Command>(&self, command: &C, from: From) -> Result<C::Reply, Error> {
        self.0.config().observer.call(command.name(), 1, self.deliver_one_unobserved(command, from)).await
    }

    async fn deliver_one_unobserved<C: Command>(&self, command: &C, from: From) -> Result<C::Reply, Error> {
        let encoded = encode(command)?;
        let frames = self.deliver(command.routing(), &EncodedCommands::of_command(&encoded), from).await;
        let mut frames = frames.map_err(|error| error.with_context(command.name(), command.key()))?;
        command::decode(command, frames.pop().ok_or_else(Error::closed)?)
    }

    /// Sends a command to one node, a master or a replica, whatever its keys, and waits for its
    /// reply. Redirects are not followed: a node that does not own the slot replies
    /// [`ErrorKind::Moved`].
    ///
    /// # Errors
    ///
    /// As [`Client::send`](crate::Client::send).
    ///
    /// ```no_run
    /// # async fn example(cluster: resp::ClusterClient) -> Result<(), resp::Error> {
    /// use resp::{Frame, cmd};
    ///
    /// for node in cluster.nodes().iter().chain(&cluster.replicas()) {
    ///     let role = cluster.send_to(node, cmd::<Frame>("ROLE")).await?;
    ///     println!("{node}: {:?}", role.value().children().next());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn send_to<C: Command>(&self, node: &Endpoint, command: C) -> Result<C::Reply, Error> {
        let encoded = encode(&command)?;
        let time_limit = Retries::new(self.0.config().command_timeout).time_limit;
        let frames = self.0.exchange(node, &EncodedCommands::of_command(&encoded), time_limit).await;
        let frames = frames.map_err(|error| error.with_context(command.name(), command.key()))?;
        command::decode(&command, self.0.redact(frames).pop().ok_or_else(Error::closed)?)
    }

    /// Sends a command to all masters that own slots, after a refresh of the topology. Returns the
    /// reply of each.
    ///
    /// # Errors
    ///
    /// No node reports the topology, or the command is refused before anything is sent. The result
    /// of each node is next to the node.
    ///
    /// ```no_run
    /// # async fn example(cluster: resp::ClusterClient) -> Result<(), resp::Error> {
    /// use resp::cmd;
    ///
    /// let mut keys = 0;
    /// for (_node, size) in cluster.send_to_masters(cmd::<u64>("DBSIZE")).await? {
    ///     keys += size?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn send_to_masters<C: Command>(
        &self,
        command: C,
    ) -> Result<Vec<(Endpoint, Result<C::Reply, Error>)>, Error> {
        let named = |error: Error| error.with_context(command.name(), command.key());
        let encoded = encode(&command)?.freeze();
        let mut time_limit = Retries::new(self.0.config().command_timeout).time_limit;
        time_limit.within(self.0.refresh(self.0.version())).await.map_err(|error| named(error.with_sent(Sent::No)))?;
        let nodes = self.0.all();
        let mut sending = JoinSet::new();
        for (nth, node) in nodes.iter().cloned().enumerate() {
            let (all, encoded) = (Arc::clone(&self.0), encoded.clone());
            sending.spawn(async move {
                (nth, all.exchange(&node, &EncodedCommands::of_command(&encoded), time_limit).await)
            });
        }
        let mut outcomes: Vec<_> = nodes.into_iter().map(|node| (node, Err(Error::closed()))).collect();
        while let Some(done) = sending.join_next().await {
            let Ok((nth, sent)) = done else { continue };
            let reply = sent
                .map_err(named)
                .and_then(|frames| command::decode(&command, self.0.redact(frames).pop().ok_or_else(Error::closed)?));
            if let Some((_, outcome)) = outcomes.get_mut(nth) {
                *outcome = reply;
            }
        }
        Ok(outcomes)
    }

    /// Iterates over the keys of all masters: see [`Scan`].
    pub fn scan(&self) -> Scan {
        Scan::new(Arc::clone(&self.0))
    }

    /// Sends the commands of a pipeline, one batch per node, and returns the replies in the
    /// pipeline's order.
    ///
    /// Commands of one slot are executed in order, unless the slot is migrating: redirected and
    /// postponed commands are sent again after the others.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::CrossSlot`] if the keys of one command are in different slots, before anything
    /// is sent. The result of each command is in the [`Replies`], including lost connections.
    pub async fn run(&self, pipeline: &Pipeline) -> Result<Replies, Error> {
        self.0.config().observer.call("pipeline", pipeline.len(), self.run_unobserved(pipeline)).await
    }

    async fn run_unobserved(&self, pipeline: &Pipeline) -> Result<Replies, Error> {
        pipeline.check()?;
        pipeline.check_shareable()?;
        pipeline::run(&self.0, pipeline).await.map_err(|error| error.with_context("pipeline", None))
    }

    /// Sends a transaction to the node that owns the slot of all its keys, and receives its result.
    ///
    /// # Errors
    ///
    /// As [`Client::exec`](crate::Client::exec); [`ErrorKind::CrossSlot`] if its keys are in
    /// different slots, before anything is sent.
    pub async fn exec(&self, transaction: &Transaction) -> Result<Replies, Error> {
        self.0.config().observer.call("MULTI", transaction.len(), self.exec_unobserved(transaction)).await
    }

    async fn exec_unobserved(&self, transaction: &Transaction) -> Result<Replies, Error> {
        let named = |error: Error| error.with_context("MULTI", None);
        let pipeline = transaction.to_pipeline();
        pipeline.check()?;
        transaction.pipeline().check_shareable()?;
        let commands = EncodedCommands::of_transaction(&pipeline);
        let frames = self.deliver(transaction.routing(), &commands, From::Master).await.map_err(named)?;
        Replies::new(frames.into_iter(), &pipeline).into_exec(&pipeline)
    }

    /// Opens a connection to the owner of a key, for blocking reads and `WATCH`. It closes when the
    /// slot moves; connect again to reach the new owner.
    ///
    /// # Errors
    ///
    /// As [`Connection::connect`].
    pub async fn connection_for(&self, key: impl AsRef<[u8]>) -> Result<Connection, Error> {
        self.0.discovery().for_key(key.as_ref()).connect().await
    }

    /// Returns the masters that own slots, as of the last refresh.
    #[must_use]
    pub fn nodes(&self) -> Vec<Endpoint> {
        self.0.all()
    }

    /// Returns the healthy replicas of all masters, as of the last refresh.
    #[must_use]
    pub fn replicas(&self) -> Vec<Endpoint> {
        self.0.all_replicas()
    }

    /// Delivers commands to the owner of their slot.
    async fn deliver(&self, routing: Routing, commands: &EncodedCommands<'_>, from: From) -> Result<Vec<Frame>, Error> {
        let nodes = &self.0;
        check(routing)?;
        let mut retries = Retries::new(nodes.config().command_timeout);
        if from == From::Replica
            && let Some(replica) = nodes.replica(routing)
        {
            match nodes.exchange_with_replica(&replica, commands, retries.time_limit).await {
                // The master can answer what a replica cannot: it does not have the slot, is
                // loading, or has lost its master.
                Ok(frames) if !frames.iter().any(|frame| Redirect::of(frame, &replica).is_some()) => {
                    return Ok(nodes.redact(frames));
                }
                Err(error) if error.sent() != Sent::No || !error.is_transient() => return Err(error),
                _ => retries.redirect(nobody)?,
            }
        }
        let mut elsewhere = None;
        loop {
            retries.check()?;
            let version = nodes.version();
            let (node, asking) = match elsewhere.take() {
                Some(elsewhere) => elsewhere,
                None => match nodes.owner(routing) {
                    Some(node) => (node, false),
                    None => {
                        retries.wait(nobody).await?;
                        nodes.refresh_quietly(version, retries.time_limit).await;
                        continue;
                    }
                },
            };
            let delivered = if asking {
                let asked = asking_before(commands);
                let commands = EncodedCommands {
                    encoded: &asked,
                    replies: commands.replies.saturating_add(1),
                    first: ASKING.len().saturating_add(commands.first),
                    multi: commands.multi.map(|multi| multi.saturating_add(1)),
                };
                nodes.exchange(&node, &commands, retries.time_limit).await.map(|mut frames| {
                    frames.remove(0);
                    frames
                })
            } else {
                nodes.exchange(&node, commands, retries.time_limit).await
            };
            let frames = match delivered {
                Ok(frames) => frames,
                Err(error) if error.sent() == Sent::No && error.is_transient() => {
                    retries.wait(|| error).await?;
                    nodes.refresh_quietly(version, retries.time_limit).await;
                    continue;
                }
                Err(error) => {
                    nodes.refresh_behind(version);
                    return Err(error);
                }
            };
            if commands.multi.is_some() && !is_undone(&frames) {
                return Ok(nodes.redact(frames));
            }
            let redirect = frames.iter().find_map(|frame| Some((Redirect::of(frame, &node)?, frame)));
            let Some((redirect, frame)) = redirect else { return Ok(nodes.redact(frames)) };
            let error = || nodes.error_of(frame);
            match redirect {
                Redirect::Moved { slot, to } => {
                    retries.redirect(error)?;
                    nodes.moved(slot, &to);
                    nodes.refresh_behind(version);
                    elsewhere = Some((to, false));
                }
                Redirect::Ask { to } => {
                    retries.redirect(error)?;
                    elsewhere = Some((to, true));
                }
                Redirect::TryAgain => retries.wait(error).await?,
                Redirect::Down => {
                    retries.wait(error).await?;
                    nodes.refresh_quietly(version, retries.time_limit).await;
                }
            }
        }
    }
}

/// Returns whether the replies prove that nothing of a transaction was executed: only then may it
/// be sent again.
fn is_undone(replies: &[Frame]) -> bool {
    replies.first().is_some_and(is_ok) && replies.last().is_some_and(|exec| exec.kind().is_error())
}

/// Prepends `ASKING` in the same write, so that no other command comes between.
fn asking_before(commands: &EncodedCommands<'_>) -> BytesMut {
    let mut encoded = BytesMut::with_capacity(commands.encoded.len().saturating_add(ASKING.len()));
    encoded.extend_from_slice(ASKING);
    encoded.extend_from_slice(commands.encoded);
    encoded
}

const ASKING: &[u8] = b"*1\r\n$6\r\nASKING\r\n";

/// Whether the master or a replica answers.
#[derive(Clone, Copy, PartialEq, Eq)]
enum From {
    Master,
    Replica,
}

/// Encodes a command that may use a shared connection.
fn encode<C: Command>(command: &C) -> Result<BytesMut, Error> {
    let mut encoded = BytesMut::new();
    command::encode_checked(command, &mut encoded)?;
    if !command.is_shareable() {
        let error = command::not_shareable(command);
        let text = format!("{}; connection_for opens one to the owner of a key", error.message());
        return Err(Error::new(ErrorKind::Usage, text).with_sent(Sent::No).with_context(command.name(), command.key()));
    }
    if command::tracking(&encoded).is_some() {
        let text = "is lost when the connection to a node breaks: use a Client, or connection_for";
        let error = Error::new(ErrorKind::Usage, text).with_sent(Sent::No);
        return Err(error.with_context(command.name(), command.key()));
    }
    Ok(encoded)
}

/// Returns an error unless the command has one target node.
fn check(routing: Routing) -> Result<(), Error> {
    match routing {
        Routing::CrossSlot => Err(cross_slot()),
        Routing::OneNode => {
            let text = "is about one node: use send_to, send_to_masters or scan";
            Err(Error::new(ErrorKind::Usage, text).with_sent(Sent::No))
        }
        Routing::Anywhere | Routing::Slot(_) => Ok(()),
    }
}

fn cross_slot() -> Error {
    Error::new(ErrorKind::CrossSlot, "the keys are in different slots; use a {hash tag} to put them in one")
        .with_sent(Sent::No)
}

fn nobody() -> Error {
    Error::new(ErrorKind::ClusterDown, "no known node serves the slot")
}

impl fmt::Debug for ClusterClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterClient").field("nodes", &self.nodes()).finish_non_exhaustive()
    }
}
