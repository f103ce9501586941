//! Many commands in one round trip.
//!
//! [`Pipeline`] owns the encoded commands; [`Replies`] owns what the server answered. All three
//! clients send pipelines, and a [`Transaction`](super::Transaction) is one between `MULTI` and
//! `EXEC`.

use std::fmt;

use bytes::BytesMut;

use super::{Connection, Deadline};
use crate::command::{self, Command};
use crate::protocol::cast::wide;
use crate::{Error, ErrorKind, Frame, Routing, error};

impl Connection {
    /// Sends all commands of a pipeline at once, and receives all replies.
    ///
    /// # Errors
    ///
    /// The connection breaks: [`Error::sent`] says whether the server may have executed any of the
    /// commands. Error replies are in the [`Replies`].
    pub async fn run(&mut self, pipeline: &Pipeline) -> Result<Replies, Error> {
        let observer = self.observer.clone();
        observer.call("pipeline", pipeline.len(), self.run_unobserved(pipeline)).await
    }

    pub(super) async fn run_unobserved(&mut self, pipeline: &Pipeline) -> Result<Replies, Error> {
        if self.is_closed() {
            return Err(Error::closed().with_context("pipeline", None));
        }
        pipeline.check()?;
        self.refuse_arrived().await.map_err(|error| error.with_context("pipeline", None))?;
        let mark = self.wire.queued().saturating_add(wide(pipeline.first));
        self.wire.queue(|out| out.extend_from_slice(&pipeline.encoded));
        self.owed = self.owed.saturating_add(pipeline.commands);
        let mut replies = Vec::with_capacity(pipeline.commands);
        // Stale replies come first. Until all replies are here, ours count as stale too, because
        // this future may be dropped.
        self.stale = self.owed;
        let mut deadline = Deadline::after(self.command_timeout);
        while self.owed > 0 {
            let is_ours = self.owed <= pipeline.commands;
            match self.next_reply(&mut deadline).await {
                Ok(frame) if is_ours => replies.push(Some(Ok(frame))),
                Ok(_) => {}
                Err(error) => return Err(error.with_sent(self.wire.sent(mark)).with_context("pipeline", None)),
            }
        }
        Ok(Replies { replies }.withhold_secrets(&pipeline.secrets))
    }
}

/// Commands that are sent in one round trip. Commands of other clients may be executed between
/// them.
///
/// A command is encoded when it is added, so it may borrow short-lived data.
///
/// ```no_run
/// # async fn example(connection: &mut resp::Connection) -> Result<(), resp::Error> {
/// use resp::streams::{XAck, XLen};
/// use resp::{Pipeline, StreamId};
///
/// let mut pipeline = Pipeline::new();
/// let acknowledged = pipeline.add(XAck::new("events", "workers", &[StreamId::MIN]));
/// let length = pipeline.add(XLen::new("events"));
/// let mut replies = connection.run(&pipeline).await?;
/// println!("{} acknowledged of {}", replies.take(acknowledged)?, replies.take(length)?);
///
/// // Many at once: each made of what lives in its turn of the loop only.
/// use resp::streams::{AddId, XAdd};
/// let mut pipeline = Pipeline::new();
/// let mut slots = Vec::new();
/// for n in 0..100 {
///     let number = n.to_string();
///     slots.push(pipeline.add(XAdd::new("events", AddId::Auto, &[("number", &number)])));
/// }
/// let mut replies = connection.run(&pipeline).await?;
/// for slot in slots {
///     println!("added as {}", replies.take(slot)?);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Default)]
pub struct Pipeline {
    pub(super) encoded: BytesMut,
    pub(super) commands: usize,
    /// Once this many bytes are sent, a command may have been executed.
    pub(super) first: usize,
    /// Why the first command that must not use a shared connection was refused there.
    not_shareable: Option<Error>,
    /// Why the first invalid command was refused.
    pub(super) refused: Option<Error>,
    /// Whether a command enables or disables client-side caching.
    tracks: bool,
    /// The commands whose arguments may contain a password.
    pub(super) secrets: Vec<usize>,
    /// The end of each command, and its routing in a cluster.
    ends: Vec<(usize, Routing)>,
}

impl Pipeline {
    /// Creates an empty pipeline.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a command, by value or by reference. The handle takes its reply from the [`Replies`].
    pub fn add<C: Command>(&mut self, command: C) -> ReplyHandle<C::Reply> {
        let start = self.encoded.len();
        if let Err(error) = command::encode_checked(&command, &mut self.encoded) {
            self.encoded.extend_from_slice(command::REFUSED_COMMAND);
            self.refused.get_or_insert(error);
        }
        if self.commands == 0 {
            self.first = self.encoded.len();
        }
        self.tracks |= self.encoded.get(start..).and_then(command::tracking).is_some();
        let index = self.commands;
        if self.encoded.get(start..).is_some_and(command::is_secret) {
            self.secrets.push(index);
        }
        self.commands = index.saturating_add(1);
        if !command.is_shareable() {
            self.not_shareable.get_or_insert_with(|| command::not_shareable(&command));
        }
        self.ends.push((self.encoded.len(), command.routing()));
        ReplyHandle { index, operation: error::operation(command.name(), command.key()), decode: C::decode }
    }

    /// Returns the number of commands.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.commands
    }

    /// Returns whether there are no commands.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.commands == 0
    }

    pub(crate) fn encoded(&self) -> &[u8] {
        &self.encoded
    }

    /// Returns one encoded command.
    pub(crate) fn command(&self, index: usize) -> Option<&[u8]> {
        let begin = index.checked_sub(1).map_or(Some(0), |before| Some(self.ends.get(before)?.0))?;
        self.encoded.get(begin..self.ends.get(index)?.0)
    }

    /// Returns the routing of each command.
    pub(crate) fn routings(&self) -> impl Iterator<Item = Routing> {
        self.ends.iter().map(|(_, routing)| *routing)
    }

    /// Returns how many bytes must be sent before a command may have been executed.
    pub(crate) const fn first(&self) -> usize {
        self.first
    }

    /// Returns an error if a command must not use a shared connection.
    pub(crate) fn check_shareable(&self) -> Result<(), Error> {
        self.not_shareable.clone().map_or(Ok(()), Err)
    }

    /// Calls `note` for each command, if one of them may change client-side caching.
    pub(crate) fn track(&self, note: impl FnMut(&[u8])) {
        if self.tracks {
            (0..self.commands).filter_map(|index| self.command(index)).for_each(note);
        }
    }

    /// Returns an error if a command does not have exactly one reply.
    pub(crate) fn check(&self) -> Result<(), Error> {
        self.refused.clone().map_or(Ok(()), Err)
    }
}

/// Shows no command: an argument may be a password.
impl fmt::Debug for Pipeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pipeline ({} commands)", self.commands)
    }
}

/// Identifies one command's reply, of type `R`, in the [`Replies`] of its pipeline or transaction.
pub struct ReplyHandle<R> {
    pub(super) index: usize,
    /// The command and its key, for errors.
    pub(super) operation: String,
    decode: fn(Frame) -> Result<R, Error>,
}

impl<R> Clone for ReplyHandle<R> {
    fn clone(&self) -> Self {
        Self { index: self.index, operation: self.operation.clone(), decode: self.decode }
    }
}

impl<R> fmt::Debug for ReplyHandle<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ReplyHandle({}, {:?})", self.index, self.operation)
    }
}

/// The replies of a [`Pipeline`] or [`Transaction`](super::Transaction).
#[derive(Debug)]
pub struct Replies {
    /// The replies that were received and not taken yet. In a cluster, one node may fail while the
    /// others reply.
    pub(super) replies: Vec<Option<Result<Frame, Error>>>,
}

impl Replies {
    /// The replies to a pipeline.
    pub(crate) fn new(frames: impl Iterator<Item = Frame>, pipeline: &Pipeline) -> Self {
        Self::of_each(frames.map(|frame| Some(Ok(frame))).collect(), pipeline)
    }

    pub(crate) fn of_each(replies: Vec<Option<Result<Frame, Error>>>, pipeline: &Pipeline) -> Self {
        Self { replies }.withhold_secrets(&pipeline.secrets)
    }

    /// Replaces error replies to commands with a password, unless they are known to repeat nothing.
    pub(super) fn withhold_secrets(mut self, secrets: &[usize]) -> Self {
        for index in secrets {
            if let Some(Some(Ok(reply))) = self.replies.get_mut(*index)
                && reply.kind().is_error()
            {
                let error = Error::server(reply.value()).redact_arguments();
                if let Some(withheld) = error::error_reply(error.message()) {
                    *reply = withheld;
                }
            }
        }
        self
    }

    /// Takes the reply of one command.
    ///
    /// # Errors
    ///
    /// The server replied with an error, or ([`ErrorKind::Usage`]) the handle belongs to another
    /// pipeline.
    pub fn take<R>(&mut self, slot: ReplyHandle<R>) -> Result<R, Error> {
        let frame = self.replies.get_mut(slot.index).and_then(Option::take);
        frame
            .unwrap_or_else(|| {
                Err(Error::new(ErrorKind::Usage, "the handle belongs to another pipeline, or its reply was taken"))
            })
            .and_then(Frame::into_result)
            .and_then(slot.decode)
            .map_err(|error| error.with_operation(slot.operation))
    }

    /// Checks the replies that were not taken for errors.
    ///
    /// # Errors
    ///
    /// The first error reply.
    pub fn check(&self) -> Result<(), Error> {
        self.replies.iter().flatten().try_for_each(|reply| match reply {
            Ok(frame) if frame.kind().is_error() => Err(Error::server(frame.value())),
            Ok(_) => Ok(()),
            Err(error) => Err(error.clone()),
        })
    }

    /// Returns the replies in order, without those that were taken.
    pub fn frames(&self) -> impl DoubleEndedIterator<Item = &Frame> {
        self.replies.iter().flatten().flatten()
    }
}
