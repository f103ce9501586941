//! Transactions: `MULTI`, commands, `EXEC`, and what their replies prove.
//!
//! [`Transaction`] owns the commands; [`Connection`] also offers the single steps, with which a
//! caller withholds `EXEC` until an earlier transaction is confirmed.

use super::{Connection, Deadline, Pipeline, Replies, ReplyHandle};
use crate::command::{self, Command};
use crate::{CommandWriter, Error, ErrorKind, Frame, Routing, Sent, ValueKind};

/// `MULTI` and `EXEC`.
pub(crate) struct BareCommand(&'static str);

impl Command for BareCommand {
    type Reply = Frame;

    fn name(&self) -> &str {
        self.0
    }

    fn encode(&self, out: &mut CommandWriter<'_>) {
        out.command(self.0, 0);
    }

    fn decode(frame: Frame) -> Result<Frame, Error> {
        Ok(frame)
    }
}

const MULTI: BareCommand = BareCommand("MULTI");
const EXEC: BareCommand = BareCommand("EXEC");
const QUEUED: &[u8] = b"+QUEUED\r\n";
const FEWER_OWED: &str = "fewer replies are outstanding";

/// Transactions in single steps: `MULTI`, commands, and a separate `EXEC`.
///
/// You can send the commands of the next transaction before the `EXEC` of this one is answered, so
/// that they travel while the server works. As long as you withhold their `EXEC`, dropping the
/// connection discards them.
///
/// ```no_run
/// # async fn example(connection: &mut resp::Connection) -> Result<(), resp::Error> {
/// use resp::cmd;
///
/// connection.queue_multi();
/// connection.queue(cmd::<i64>("INCR").arg("a"));
/// connection.queue_exec();
/// // The next one follows at once, its EXEC does not.
/// connection.queue_multi();
/// connection.queue(cmd::<i64>("INCR").arg("b"));
///
/// connection.receive_queued(1).await?;
/// let result = connection.receive_exec().await?;
/// // The first one is done; only now may the second one happen.
/// connection.queue_exec();
/// connection.receive_queued(1).await?;
/// let result = connection.receive_exec().await?;
/// # Ok(())
/// # }
/// ```
impl Connection {
    /// Queues `MULTI`.
    pub fn queue_multi(&mut self) {
        self.queue(MULTI);
    }

    /// Queues `EXEC`.
    pub fn queue_exec(&mut self) {
        self.queue(EXEC);
    }

    /// Receives the replies to `MULTI` and to the `commands` commands after it.
    ///
    /// Dropping the future abandons all of these replies: the next receive returns the reply to
    /// whatever was queued after them.
    ///
    /// # Errors
    ///
    /// * [`ErrorKind::NotAtomic`]: the server began no transaction, so it may have executed the
    ///   commands one by one. If `MULTI` was refused, the error comes at once, before the other
    ///   replies.
    ///
    /// * The first error reply to a command, after all replies were received; `EXEC` will be
    ///   refused.
    ///
    /// * The connection breaks, or ([`ErrorKind::Usage`]) fewer replies are owed.
    ///
    /// To keep the commands from being executed where `MULTI` may be refused, queue a command first
    /// that blocks outside of a transaction only, such as `WAIT 1000000 0`. Drop the connection
    /// after this error.
    pub async fn receive_queued(&mut self, commands: usize) -> Result<(), Error> {
        let mut left = commands.saturating_add(1);
        if left > self.owed() {
            let error = if self.is_closed() { Error::closed() } else { Error::new(ErrorKind::Usage, FEWER_OWED) };
            return Err(error.with_context("MULTI", None));
        }
        // Until all replies are here, they count as stale, because this future may be dropped.
        let mut stale = self.stale;
        self.stale = self.stale.saturating_add(left);
        let mut deadline = Deadline::after(self.command_timeout);
        let mut begun = MultiState::default();
        while left > 0 {
            if stale == 0 && left <= commands && self.received.is_empty() {
                let skipped = self.wire.skip_repeated(QUEUED, left);
                self.owed = self.owed.saturating_sub(skipped);
                self.stale = self.stale.saturating_sub(skipped);
                left = left.saturating_sub(skipped);
                if left == 0 {
                    break;
                }
            }
            let frame = self.next_reply(&mut deadline).await.map_err(|error| error.with_context("MULTI", None))?;
            if stale > 0 {
                stale = stale.saturating_sub(1);
                continue;
            }
            begun.reply(&frame, left > commands);
            left = left.saturating_sub(1);
            if let Some(refused) = begun.refused.take() {
                return Err(Error::not_atomic(Some(refused)).with_context("MULTI", None));
            }
        }
        begun.into_result().map_err(|error| error.with_context("MULTI", None))
    }

    /// Receives the reply to `EXEC`: an array with one reply per command, some of which may be
    /// errors. `None` means that a watched key changed and nothing was executed.
    ///
    /// # Errors
    ///
    /// * [`ErrorKind::ExecAbort`] and other refusals: nothing was executed.
    ///
    /// * [`ErrorKind::NotAtomic`]: the server knew of no transaction, so it may have executed the
    ///   commands one by one.
    ///
    /// * The connection breaks. After a refusal that leaves open whether the server still queues
    ///   commands, the connection is closed.
    pub async fn receive_exec(&mut self) -> Result<Option<Frame>, Error> {
        let frame = self.receive().await.map_err(|error| error.with_context("EXEC", None))?;
        if leaves_transaction_open(&frame) {
            self.wire.close();
        }
        let frame = command::decode(&EXEC, frame)?;
        match frame.kind() {
            ValueKind::Array => Ok(Some(frame)),
            ValueKind::Null => Ok(None),
            _ => Err(Error::unexpected_reply("an array or null", frame.value()).with_context("EXEC", None)),
        }
    }

    /// Sends a transaction at once, and receives its replies.
    ///
    /// # Errors
    ///
    /// * [`ErrorKind::WatchFailed`]: a watched key changed, and nothing was executed.
    ///
    /// * The first error reply to a command that the server did not queue: nothing was executed.
    ///
    /// * [`ErrorKind::NotAtomic`]: the server began no transaction, so it may have executed the
    ///   commands one by one.
    ///
    /// * The connection breaks.
    ///
    /// Errors of commands that failed during `EXEC` are in the [`Replies`]; the other commands were
    /// executed all the same.
    ///
    /// If `EXEC` is refused in a way that leaves open whether the server still queues commands, the
    /// connection is closed.
    pub async fn exec(&mut self, transaction: &Transaction) -> Result<Replies, Error> {
        let observer = self.observer.clone();
        observer.call("MULTI", transaction.len(), self.exec_unobserved(transaction)).await
    }

    async fn exec_unobserved(&mut self, transaction: &Transaction) -> Result<Replies, Error> {
        let pipeline = transaction.to_pipeline();
        let replies = self.run_unobserved(&pipeline).await?;
        if replies.leave_transaction_open() {
            self.wire.close();
        }
        replies.into_exec(&pipeline)
    }
}

/// Commands that are executed as a unit between `MULTI` and `EXEC`.
///
/// ```no_run
/// # async fn example(connection: &mut resp::Connection) -> Result<(), resp::Error> {
/// use resp::streams::{AddId, XAdd};
/// use resp::{Transaction, cmd};
///
/// let mut transaction = Transaction::new();
/// let added = transaction.add(XAdd::new("events", AddId::Auto, &[("type", "start")]));
/// transaction.add(cmd::<()>("HSET").arg("state").arg("type").arg("start"));
/// let mut replies = connection.exec(&transaction).await?;
/// println!("added as {}", replies.take(added)?);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct Transaction {
    pipeline: Pipeline,
}

impl Transaction {
    /// Creates an empty transaction.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a command, by value or by reference. The handle takes its reply from the [`Replies`].
    ///
    /// A transaction that contains `MULTI`, `EXEC`, `DISCARD` or `WATCH` is refused with
    /// [`ErrorKind::Usage`]: sending it adds `MULTI` and `EXEC`.
    pub fn add<C: Command>(&mut self, command: C) -> ReplyHandle<C::Reply> {
        let slot = self.pipeline.add(command);
        if self.pipeline.command(slot.index).is_some_and(command::is_transaction_control) {
            let error =
                Error::new(ErrorKind::Usage, "is not allowed in a Transaction, which adds MULTI and EXEC itself");
            self.pipeline.refused.get_or_insert(error.with_sent(Sent::No).with_operation(slot.operation.clone()));
        }
        slot
    }

    /// Returns the number of commands, without `MULTI` and `EXEC`.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.pipeline.len()
    }

    /// Returns whether there are no commands.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.pipeline.is_empty()
    }

    /// Returns the commands, without `MULTI` and `EXEC`.
    pub(crate) const fn pipeline(&self) -> &Pipeline {
        &self.pipeline
    }

    /// Returns the routing of all commands together.
    pub(crate) fn routing(&self) -> Routing {
        self.pipeline.routings().fold(Routing::Anywhere, Routing::and)
    }

    /// Returns the commands with `MULTI` and `EXEC`.
    pub(crate) fn to_pipeline(&self) -> Pipeline {
        let mut pipeline = Pipeline::new();
        pipeline.add(MULTI);
        pipeline.encoded.extend_from_slice(&self.pipeline.encoded);
        pipeline.commands = pipeline.commands.saturating_add(self.pipeline.commands);
        pipeline.refused.clone_from(&self.pipeline.refused);
        pipeline.secrets = self.pipeline.secrets.iter().map(|index| index.saturating_add(1)).collect();
        pipeline.add(EXEC);
        // Nothing is executed before EXEC arrives. If MULTI is refused, commands may be executed
        // earlier; `MultiState` detects that from the replies.
        pipeline.first = pipeline.encoded.len();
        pipeline
    }
}

impl Replies {
    /// Returns whether these replies leave open whether the server still queues commands.
    fn leave_transaction_open(&self) -> bool {
        let mut frames = self.frames();
        frames.next().is_some_and(is_ok) && frames.next_back().is_some_and(leaves_transaction_open)
    }

    /// Turns the replies from `MULTI` to `EXEC` into the replies of the commands between them.
    /// `pipeline` is the transaction with both.
    pub(crate) fn into_exec(self, pipeline: &Pipeline) -> Result<Self, Error> {
        let named = |error: Error| error.with_context("MULTI", None);
        let mut replies = self.replies.into_iter().flatten().collect::<Result<Vec<_>, _>>().map_err(named)?;
        let exec = replies.pop().ok_or_else(Error::closed)?;
        let mut begun = MultiState::default();
        for (nth, reply) in replies.iter().enumerate() {
            begun.reply(reply, nth == 0);
        }
        if exec.kind().is_error() {
            // An earlier reply says why EXEC was refused.
            begun.into_result().map_err(named)?;
            return Err(Error::server(exec.value()).with_context("EXEC", None));
        }
        // If a command was refused and EXEC was not, there was no transaction.
        begun.executed().into_result().map_err(named)?;
        if exec.value().is_null() {
            let error = Error::new(ErrorKind::WatchFailed, "a watched key changed, so nothing was executed");
            return Err(error.with_sent(Sent::No).with_context("EXEC", None));
        }
        let results: Vec<_> = exec.value().children().map(|reply| Some(Ok(exec.extract(reply)))).collect();
        if exec.kind() != ValueKind::Array || results.len().saturating_add(1) != replies.len() {
            return Err(Error::unexpected_reply("one reply per command", exec.value()).with_context("EXEC", None));
        }
        let secrets: Vec<_> = pipeline.secrets.iter().filter_map(|index| index.checked_sub(1)).collect();
        Ok(Self { replies: results }.withhold_secrets(&secrets))
    }
}

/// What the replies before `EXEC` prove about a transaction.
#[derive(Debug, Default)]
struct MultiState {
    /// Why `MULTI` was refused.
    refused: Option<Error>,
    /// The error of the first command that was refused.
    first: Option<Error>,
    /// Whether a command may have been executed.
    executed: bool,
}

impl MultiState {
    /// Records the reply to `MULTI`, or to the next command.
    fn reply(&mut self, reply: &Frame, is_multi: bool) {
        if is_multi {
            if !is_ok(reply) {
                self.refused = Some(match reply.kind().is_error() {
                    true => Error::server(reply.value()),
                    false => Error::unexpected_reply("OK", reply.value()),
                });
            }
        } else if reply.kind().is_error() {
            let error = Error::server(reply.value());
            // A failed script may have changed data. A command that is refused for the same reason
            // as MULTI has not.
            self.executed |= self.refused.as_ref().is_some_and(|refused| {
                refused.kind() != error.kind() || matches!(error.kind(), ErrorKind::Other | ErrorKind::UnexpectedReply)
            });
            self.first.get_or_insert(error);
        } else if self.refused.is_some() || reply.value().as_bytes() != Some(b"QUEUED") {
            self.executed = true;
        }
    }

    /// Records that `EXEC` was not refused.
    fn executed(mut self) -> Self {
        self.executed |= self.refused.is_some() || self.first.is_some();
        self
    }

    /// Returns why there was no transaction, or why `EXEC` will be refused.
    fn into_result(self) -> Result<(), Error> {
        let error = self.refused.or(self.first);
        match (self.executed, error) {
            (true, error) => Err(Error::not_atomic(error)),
            (false, Some(error)) => Err(error),
            (false, None) => Ok(()),
        }
    }
}

/// Returns whether the reply confirms `MULTI`.
pub(crate) fn is_ok(reply: &Frame) -> bool {
    reply.kind() == ValueKind::SimpleString && reply.value().as_bytes() == Some(b"OK")
}

/// Returns whether a refusal of `EXEC` may leave the server queueing commands. Redis itself ends
/// the transaction with each of its refusals.
pub(crate) fn leaves_transaction_open(exec: &Frame) -> bool {
    let error = Error::server(exec.value());
    exec.kind().is_error()
        && error.code() != "EXECABORT"
        && !matches!(
            error.kind(),
            ErrorKind::NotAtomic
                | ErrorKind::Moved
                | ErrorKind::Ask
                | ErrorKind::TryAgain
                | ErrorKind::ClusterDown
                | ErrorKind::CrossSlot
        )
}
