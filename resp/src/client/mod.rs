//! One connection that many tasks share.

mod driver;
mod event;
mod outcome;
mod queue;

pub use event::{Event, Events};

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::command::{self, Command};
use crate::connection::{Pipeline, Replies, Transaction};
use crate::{Backoff, Config, Connection, Endpoint, Error, ErrorKind, Frame};
use event::Reporter;
use queue::Queue;

/// How a [`Client`] behaves beyond its [`Config`].
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
/// use resp::{Backoff, ClientOptions, Config};
///
/// let client = ClientOptions::new(Config::from_url("redis://localhost")?)
///     .max_bytes(4 * 1024 * 1024)
///     .backoff(Backoff::new(Duration::from_millis(10), Duration::from_secs(1)))
///     .connect()
///     .await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct ClientOptions {
    config: Config,
    max_bytes: usize,
    backoff: Backoff,
    ping_after: Option<Duration>,
    reconnects: bool,
}

impl ClientOptions {
    /// The default options.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self {
            config,
            max_bytes: 16 << 20,
            backoff: Backoff::default(),
            ping_after: Some(Duration::from_secs(30)),
            reconnects: true,
        }
    }

    /// How many bytes of commands may be queued and in flight; callers wait when there are more. One command may exceed it.
    /// Default 16 MiB.
    #[must_use]
    pub const fn max_bytes(mut self, bytes: usize) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// How long to wait between attempts to connect again.
    #[must_use]
    pub const fn backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }

    /// After so long without commands the server is asked whether it is there, so that a dead link is noticed before the next
    /// command. Default 30 s.
    #[must_use]
    pub const fn ping_after(mut self, idle: Option<Duration>) -> Self {
        self.ping_after = idle;
        self
    }

    /// Ends when its connection does.
    pub(crate) const fn once(mut self) -> Self {
        self.reconnects = false;
        self
    }

    /// Connects.
    ///
    /// # Errors
    ///
    /// When the first connection cannot be made. Later ones are made again and again. [`ErrorKind::Usage`] for a cluster without
    /// [a key](Config::for_key).
    pub async fn connect(self) -> Result<Client, Error> {
        if matches!(self.config.endpoint, Endpoint::Cluster { .. }) && self.config.key.is_none() {
            let error =
                Error::new(ErrorKind::Usage, "a cluster takes a ClusterClient, or a key whose node this client is for");
            return Err(error.connecting(&self.config));
        }
        let connection = Connection::connect(&self.config).await?;
        let queue = Arc::new(Queue::new(self.max_bytes));
        let events = Arc::new(Reporter::default());
        let driver = driver::Driver {
            queue: Arc::clone(&queue),
            config: self.config,
            backoff: self.backoff,
            ping_after: self.ping_after,
            reconnects: self.reconnects,
            events: Arc::clone(&events),
        };
        tokio::spawn(driver.run(connection));
        Ok(Client(Arc::new(Handle { queue, events })))
    }
}

/// A connection that many tasks share: cheap to clone, safe to use from anywhere.
///
/// Commands that are sent at the same time travel together (pipelining), so few system calls serve many callers. When the
/// connection breaks, it is made again; commands that were surely not sent wait for it, the others fail with
/// [`Sent::Maybe`](crate::Sent::Maybe). Nothing is sent twice.
///
/// A command that waits in the server would hold up everybody, so it does not fit here: a [`Blocking`](crate::Blocking)
/// command can only be sent over a [`Connection`] of its own, and untyped ones that block, or that change the connection, are
/// refused with [`ErrorKind::Usage`].
///
/// Futures may be dropped at any time; a command that was queued is sent all the same. The connection ends with the last clone.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use resp::streams::{AddId, XAdd};
/// use resp::{Client, Config};
///
/// let client = Client::connect(&Config::from_url("redis://localhost")?).await?;
/// for n in 0..64 {
///     let client = client.clone();
///     tokio::spawn(async move {
///         let number = n.to_string();
///         client.send(&XAdd::new("events", AddId::Auto, &[("number", &number)])).await
///     });
/// }
/// # Ok(())
/// # }
/// ```
///
/// A blocking read is not accepted:
///
/// ```compile_fail
/// # async fn example(client: resp::Client) {
/// use resp::streams::{ReadFrom, XRead};
/// client.send(&XRead::new("events", ReadFrom::New).block(resp::Block::Forever)).await;
/// # }
/// ```
#[derive(Clone)]
pub struct Client(Arc<Handle>);

struct Handle {
    queue: Arc<Queue>,
    events: Arc<Reporter>,
}

/// The last clone is gone.
impl Drop for Handle {
    fn drop(&mut self) {
        self.queue.close();
    }
}

impl Client {
    /// Connects with the default [`ClientOptions`].
    ///
    /// # Errors
    ///
    /// When the first connection cannot be made.
    pub async fn connect(config: &Config) -> Result<Self, Error> {
        ClientOptions::new(config.clone()).connect().await
    }

    /// Sends a command and waits for its reply.
    ///
    /// # Errors
    ///
    /// An error reply, or that the connection broke or nothing moved for the command timeout: [`Error::sent`] says whether the
    /// server can have executed the command.
    pub async fn send<C: Command>(&self, command: &C) -> Result<C::Reply, Error> {
        let named = |error: Error| error.during(command.name(), command.key());
        if !command.is_shareable() {
            return Err(named(needs_its_own()));
        }
        self.0.queue.room().await;
        let outcome = self.0.queue.add(1, None, |out| command::encode(command, out));
        match outcome.await {
            Ok(mut frames) => command::decode(command, frames.next().ok_or_else(Error::closed)?),
            Err(error) => Err(named(error)),
        }
    }

    /// Sends all commands of a pipeline together, and receives all replies.
    ///
    /// # Errors
    ///
    /// As [`Connection::run`].
    pub async fn run(&self, pipeline: &Pipeline) -> Result<Replies, Error> {
        if pipeline.is_empty() {
            return Ok(Replies::new(std::iter::empty()));
        }
        if !pipeline.is_shareable() {
            return Err(needs_its_own().during("pipeline", None));
        }
        let frames = self.exchange(pipeline.encoded(), pipeline.len(), pipeline.first()).await;
        let frames = frames.map_err(|error| error.during("pipeline", None))?;
        Ok(Replies::new(frames))
    }

    /// Sends a transaction together, and receives its result.
    ///
    /// # Errors
    ///
    /// As [`Connection::exec`].
    pub async fn exec(&self, transaction: &Transaction) -> Result<Replies, Error> {
        if !transaction.is_shareable() {
            return Err(needs_its_own().during("MULTI", None));
        }
        let (pipeline, exec) = transaction.to_pipeline();
        let frames = self.exchange(pipeline.encoded(), pipeline.len(), pipeline.first()).await;
        let frames = frames.map_err(|error| error.during("MULTI", None))?;
        match Replies::new(frames).into_exec(exec, transaction.len())? {
            Some(replies) => Ok(replies),
            None => Err(Error::new(ErrorKind::Usage, "somebody has set a WATCH on the shared connection")),
        }
    }

    /// Sends encoded commands, and receives so many replies. When `first` bytes have been sent, something may have been done.
    pub(crate) async fn exchange(
        &self,
        encoded: &[u8],
        replies: usize,
        first: usize,
    ) -> Result<impl Iterator<Item = Frame> + use<>, Error> {
        self.0.queue.room().await;
        self.0.queue.add(replies, Some(first), |out| out.extend_from_slice(encoded)).await
    }

    /// What happens on the connection: it breaks, it is there again, the server pushes something.
    ///
    /// A receiver that is slow misses the oldest events: see [`Events`].
    #[must_use]
    pub fn events(&self) -> Events {
        self.0.events.subscribe()
    }
}

/// For commands that would hold up others.
fn needs_its_own() -> Error {
    Error::new(ErrorKind::Usage, "needs a connection of its own").with_sent(crate::Sent::No)
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}
