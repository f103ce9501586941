//! A client of a whole Redis Cluster.

mod attempts;
mod keys;
mod nodes;
mod owner;
mod pipeline;
mod redirect;
mod routing;
mod shared;
mod slot;
mod topology;

pub(crate) use keys::routing as routing_of;
pub(crate) use owner::connect;
pub use routing::Routing;
pub use slot::slot;

use std::fmt;
use std::sync::Arc;

use bytes::BytesMut;

use crate::client::Parcel;
use crate::command::{self, Command};
use crate::config::{Config, Endpoint};
use crate::connection::{Pipeline, Replies, Transaction, is_ok};
use crate::{Connection, Error, ErrorKind, Frame, Sent};
use attempts::Attempts;
use nodes::Nodes;
use redirect::Redirect;

/// So many times in a row a command is sent elsewhere before the cluster counts as confused.
const MAX_REDIRECTS: u32 = 16;

/// All nodes of a Redis Cluster: cheap to clone, safe to use from anywhere.
///
/// Each command goes to the node that has the slot of its key, over one shared connection a node, which is made when it is first needed. Which
/// node that is is learned from the cluster, and again when a node says that a slot has moved or cannot be reached. What a node sends elsewhere
/// (`MOVED`, `ASK`) goes there, what is to come later (`TRYAGAIN`, `CLUSTERDOWN`, `LOADING`, `MASTERDOWN`, the `READONLY` of a node that has been
/// demoted, a node that is away while another takes its place) is tried again until the [command timeout](Config::command_timeout) is over, which
/// bounds the whole call. A command that may have been executed is not sent twice: then the error says [`Sent::Maybe`].
///
/// However many callers wait for a node that does not answer, one attempt to connect is made at a time, and its outcome goes to all of them.
///
/// A command without a key ([`Routing::Anywhere`]) goes to any one node.
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
///     cluster.send(&XAdd::new(&stream, AddId::Auto, &[("type", "start")])).await?;
/// }
/// // A blocking read has a connection of its own, to the node that has the stream.
/// let mut consumer = ConsumerOptions::new(config, "events:{7}", "workers", "me").connect().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct ClusterClient(Arc<Nodes>);

impl ClusterClient {
    /// Learns who has which slot from the first seed that answers.
    ///
    /// # Errors
    ///
    /// When none does within the connect timeout, or it is no cluster. [`ErrorKind::Usage`] when the configuration's endpoint is none of a cluster.
    pub async fn connect(config: &Config) -> Result<Self, Error> {
        let Endpoint::Cluster { seeds, .. } = config.endpoint() else {
            return Err(
                Error::new(ErrorKind::Usage, "not a cluster's endpoint: redis-cluster://host,host").with_sent(Sent::No)
            );
        };
        let nodes = Arc::new(Nodes::new(config.clone(), seeds.clone()));
        nodes.refresh(nodes.version()).await.map_err(|error| error.connecting(config))?;
        Ok(Self(nodes))
    }

    /// Sends a command to the node that has its key, and waits for its reply.
    ///
    /// # Errors
    ///
    /// As [`Client::send`](crate::Client::send); [`ErrorKind::CrossSlot`] when its keys lie in different slots, before anything is sent.
    pub async fn send<C: Command>(&self, command: &C) -> Result<C::Reply, Error> {
        let named = |error: Error| error.during(command.name(), command.key());
        if !command.is_shareable() {
            return Err(named(needs_its_own()));
        }
        let mut encoded = BytesMut::new();
        command::encode(command, &mut encoded);
        let parcel = Parcel::of_command(&encoded);
        let mut frames = self.deliver(command.routing(), &parcel).await.map_err(named)?;
        command::decode(command, frames.pop().ok_or_else(Error::closed)?)
    }

    /// Sends all commands of a pipeline, to each node its own together, and gives the replies in the pipeline's order.
    ///
    /// Commands of one slot are executed in order, unless the slot is moving: what a node sends elsewhere or puts off is sent again after the others.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::CrossSlot`] when the keys of one command lie in different slots, before anything is sent. What became of each command is found
    /// in the [`Replies`], the loss of a node's connection included.
    pub async fn run(&self, pipeline: &Pipeline) -> Result<Replies, Error> {
        if !pipeline.is_shareable() {
            return Err(needs_its_own().during("pipeline", None));
        }
        pipeline::run(&self.0, pipeline).await.map_err(|error| error.during("pipeline", None))
    }

    /// Sends a transaction to the node that has the slot of all its keys, and receives its result.
    ///
    /// # Errors
    ///
    /// As [`Client::exec`](crate::Client::exec); [`ErrorKind::CrossSlot`] when its keys lie in different slots, before anything is sent.
    pub async fn exec(&self, transaction: &Transaction) -> Result<Replies, Error> {
        let named = |error: Error| error.during("MULTI", None);
        if !transaction.is_shareable() {
            return Err(named(needs_its_own()));
        }
        let pipeline = transaction.to_pipeline();
        let parcel = Parcel::of_transaction(&pipeline);
        let frames = self.deliver(transaction.routing(), &parcel).await.map_err(named)?;
        match Replies::new(frames.into_iter()).into_exec()? {
            Some(replies) => Ok(replies),
            None => Err(named(Error::new(ErrorKind::Usage, "somebody has set a WATCH on the shared connection"))),
        }
    }

    /// A connection of its own to the node that has a key, for blocking reads and `WATCH`. It ends when the slot moves; another one leads to the
    /// node that has it then.
    ///
    /// # Errors
    ///
    /// As [`Connection::connect`].
    pub async fn connection_for(&self, key: impl AsRef<[u8]>) -> Result<Connection, Error> {
        Connection::connect(&self.0.config().clone().for_key(key.as_ref())).await
    }

    /// The nodes that have slots, as far as is known now.
    #[must_use]
    pub fn nodes(&self) -> Vec<Endpoint> {
        self.0.all()
    }

    /// Delivers one piece, wherever its slot is.
    async fn deliver(&self, routing: Routing, parcel: &Parcel<'_>) -> Result<Vec<Frame>, Error> {
        let nodes = &self.0;
        if routing == Routing::CrossSlot {
            return Err(cross_slot());
        }
        let mut attempts = Attempts::new(nodes.config().command_timeout);
        let mut elsewhere = None;
        loop {
            attempts.check()?;
            let version = nodes.version();
            let (node, asking) = match elsewhere.take() {
                Some(elsewhere) => elsewhere,
                None => match nodes.owner(routing) {
                    Some(node) => (node, false),
                    None => {
                        attempts.wait(nobody).await?;
                        nodes.refresh_quietly(version, attempts.patience).await;
                        continue;
                    }
                },
            };
            let delivered = if asking {
                let asked = asking_before(parcel);
                let parcel = Parcel {
                    encoded: &asked,
                    replies: parcel.replies + 1,
                    first: asked.len() - parcel.encoded.len() + parcel.first,
                    multi: parcel.multi.map(|multi| multi + 1),
                };
                nodes.exchange(&node, &parcel, attempts.patience).await.map(|mut frames| {
                    frames.remove(0);
                    frames
                })
            } else {
                nodes.exchange(&node, parcel, attempts.patience).await
            };
            let frames = match delivered {
                Ok(frames) => frames,
                Err(error) if error.sent() == Sent::No && error.is_transient() => {
                    attempts.wait(|| error).await?;
                    nodes.refresh_quietly(version, attempts.patience).await;
                    continue;
                }
                Err(error) => {
                    nodes.refresh_behind(version);
                    return Err(error);
                }
            };
            if parcel.multi.is_some() && !is_undone(&frames) {
                return Ok(frames);
            }
            let redirect = frames.iter().find_map(|frame| Some((Redirect::of(frame, &node)?, frame)));
            let Some((redirect, frame)) = redirect else { return Ok(frames) };
            let error = || Error::server(frame.value());
            match redirect {
                Redirect::Moved { slot, to } => {
                    attempts.redirect(error)?;
                    nodes.moved(slot, &to);
                    nodes.refresh_behind(version);
                    elsewhere = Some((to, false));
                }
                Redirect::Ask { to } => {
                    attempts.redirect(error)?;
                    elsewhere = Some((to, true));
                }
                Redirect::TryAgain => attempts.wait(error).await?,
                Redirect::Down => {
                    attempts.wait(error).await?;
                    nodes.refresh_quietly(version, attempts.patience).await;
                }
            }
        }
    }
}

/// Whether nothing of a transaction was done, as its replies say: only then may it be sent again.
fn is_undone(replies: &[Frame]) -> bool {
    replies.first().is_some_and(is_ok) && replies.last().is_some_and(|exec| exec.kind().is_error())
}

/// `ASKING` in front, in the same piece, so that nothing comes between.
fn asking_before(parcel: &Parcel<'_>) -> BytesMut {
    let mut encoded = BytesMut::with_capacity(parcel.encoded.len() + ASKING.len());
    encoded.extend_from_slice(ASKING);
    encoded.extend_from_slice(parcel.encoded);
    encoded
}

const ASKING: &[u8] = b"*1\r\n$6\r\nASKING\r\n";

fn cross_slot() -> Error {
    Error::new(ErrorKind::CrossSlot, "the keys lie in different slots; a {hash tag} puts them in one")
        .with_sent(Sent::No)
}

fn nobody() -> Error {
    Error::new(ErrorKind::ClusterDown, "no node is known to have the slot")
}

/// For commands that would hold up others.
fn needs_its_own() -> Error {
    Error::new(ErrorKind::Usage, "needs a connection of its own: connection_for").with_sent(Sent::No)
}

impl fmt::Debug for ClusterClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterClient").field("nodes", &self.nodes()).finish_non_exhaustive()
    }
}
