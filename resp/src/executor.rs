use crate::{Client, ClusterClient, Command, Connection, Error, Pipeline, Replies, Transaction};

/// What commands can be sent over: a [`Connection`], a [`Client`] or a [`ClusterClient`]. For code
/// that does not care which.
///
/// ```no_run
/// use resp::streams::{AddId, XAdd};
/// use resp::{Error, Executor, StreamId};
///
/// async fn announce(mut redis: impl Executor, text: &str) -> Result<StreamId, Error> {
///     redis.send(&XAdd::new("news", AddId::Auto, &[("text", text)])).await
/// }
///
/// # async fn example(client: resp::Client, mut connection: resp::Connection) -> Result<(), Error> {
/// announce(&client, "over the connection that all share").await?;
/// announce(&mut connection, "over this one").await?;
/// # Ok(())
/// # }
/// ```
pub trait Executor: Send {
    /// Sends a command and waits for its reply.
    ///
    /// # Errors
    ///
    /// An error reply, or that the connection broke: see [`Connection::send`].
    fn send<C: Command<Reply: Send> + Sync>(
        &mut self,
        command: &C,
    ) -> impl Future<Output = Result<C::Reply, Error>> + Send;

    /// Sends all commands of a pipeline together, and receives all replies.
    ///
    /// # Errors
    ///
    /// That the connection broke: see [`Connection::run`].
    fn run(&mut self, pipeline: &Pipeline) -> impl Future<Output = Result<Replies, Error>> + Send;

    /// Sends a transaction together, and receives its replies.
    ///
    /// # Errors
    ///
    /// That it was not executed: see [`Connection::exec`].
    fn exec(&mut self, transaction: &Transaction) -> impl Future<Output = Result<Replies, Error>> + Send;
}

macro_rules! executors {
    ($($type:ty),*) => {
        $(impl Executor for $type {
            async fn send<C: Command<Reply: Send> + Sync>(&mut self, command: &C) -> Result<C::Reply, Error> {
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
            async fn send<C: Command<Reply: Send> + Sync>(&mut self, command: &C) -> Result<C::Reply, Error> {
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
