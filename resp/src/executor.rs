//! The trait over everything that executes commands.

use crate::{Client, ClusterClient, Command, Connection, Error, Pipeline, Replies, Transaction};

/// Anything that executes commands: a [`Connection`], a [`Client`] or a [`ClusterClient`]. For code
/// that works with all of them.
///
/// ```no_run
/// use resp::streams::{AddId, XAdd};
/// use resp::{Error, Executor, StreamId};
///
/// async fn announce(mut redis: impl Executor, text: &str) -> Result<StreamId, Error> {
///     redis.send(XAdd::new("news", AddId::Auto, &[("text", text)])).await
/// }
///
/// # async fn example(client: resp::Client, mut connection: resp::Connection) -> Result<(), Error> {
/// announce(&client, "over the connection that all share").await?;
/// announce(&mut connection, "over this one").await?;
/// # Ok(())
/// # }
/// ```
pub trait Executor: Send {
    /// Sends a command, given by value or by reference, and waits for its reply.
    ///
    /// # Errors
    ///
    /// The server replied with an error, or the connection broke: see [`Connection::send`].
    fn send<C: Command<Reply: Send> + Send + Sync>(
        &mut self,
        command: C,
    ) -> impl Future<Output = Result<C::Reply, Error>> + Send;

    /// Sends all commands of a pipeline together, and receives all replies.
    ///
    /// # Errors
    ///
    /// The connection broke: see [`Connection::run`].
    fn run(&mut self, pipeline: &Pipeline) -> impl Future<Output = Result<Replies, Error>> + Send;

    /// Sends a transaction together, and receives its replies.
    ///
    /// # Errors
    ///
    /// The transaction was not executed: see [`Connection::exec`].
    fn exec(&mut self, transaction: &Transaction) -> impl Future<Output = Result<Replies, Error>> + Send;
}

macro_rules! executors {
    ($($type:ty),*) => {
        $(impl Executor for $type {
            async fn send<C: Command<Reply: Send> + Send + Sync>(&mut self, command: C) -> Result<C::Reply, Error> {
                (**self).send(command).await
            }

            async fn run(&mut self, pipeline: &Pipeline) -> Result<Replies, Error> {
                (**self).run(pipeline).await
            }

            async fn exec(&mut self, transaction: &Transaction) -> Result<Replies, Error> {
                (**self).exec(transaction).await
            }
        })*
    };
}

executors!(&mut Connection, &Client, &mut Client, &ClusterClient, &mut ClusterClient);

macro_rules! owned {
    ($($type:ty),*) => {
        $(impl Executor for $type {
            async fn send<C: Command<Reply: Send> + Send + Sync>(&mut self, command: C) -> Result<C::Reply, Error> {
                Self::send(self, command).await
            }

            async fn run(&mut self, pipeline: &Pipeline) -> Result<Replies, Error> {
                Self::run(self, pipeline).await
            }

            async fn exec(&mut self, transaction: &Transaction) -> Result<Replies, Error> {
                Self::exec(self, transaction).await
            }
        })*
    };
}

owned!(Connection, Client, ClusterClient);
