//! A consumer as a stream of the `futures` crate.

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use futures_core::Stream;
use futures_core::stream::FusedStream;

use super::{Consumer, ConsumerStopper, EntryBatch};
use crate::{Error, StreamId};

/// A [`Consumer`] as a [`Stream`] of batches, for the combinators of `futures` and `tokio-stream`.
/// It ends after the consumer is stopped.
///
/// Acknowledge entries with [`ack`](Self::ack), or with an [`Acknowledger`] if a combinator owns
/// the stream.
///
/// ```no_run
/// # use futures_util::{StreamExt as _, TryStreamExt as _};
/// # async fn example(consumer: resp::Consumer) -> Result<(), resp::Error> {
/// let batches = consumer.into_stream();
/// let acknowledger = batches.acknowledger();
/// batches
///     .try_for_each_concurrent(8, async |batch| {
///         println!("{} entries", batch.entries().len());
///         acknowledger.ack(batch.ids());
///         Ok(())
///     })
///     .await
/// # }
/// ```
///
/// An error does not end the stream: the next poll retries.
pub struct ConsumerStream {
    state: State,
    acks: Acknowledger,
    stopper: ConsumerStopper,
}

/// Returns the consumer with the result of a read.
type Read = (Box<Consumer>, Result<Option<EntryBatch>, Error>);

/// What the next poll does.
enum State {
    Idle(Box<Consumer>),
    Busy(Pin<Box<dyn Future<Output = Read> + Send>>),
    /// The consumer was stopped, or a poll panicked.
    Ended,
}

/// Acknowledges entries of a [`ConsumerStream`] from other tasks; cheap to clone. Acknowledgements
/// travel with the next read.
#[derive(Clone, Debug, Default)]
pub struct Acknowledger(Arc<Mutex<Vec<StreamId>>>);

impl Acknowledger {
    /// Acknowledges entries.
    pub fn ack(&self, ids: impl IntoIterator<Item = StreamId>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(ids);
    }

    fn take(&self) -> Vec<StreamId> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl ConsumerStream {
    pub(super) fn new(consumer: Consumer) -> Self {
        let stopper = consumer.stopper();
        Self { state: State::Idle(Box::new(consumer)), acks: Acknowledger::default(), stopper }
    }

    /// Acknowledges entries with the next read.
    pub fn ack(&self, ids: impl IntoIterator<Item = StreamId>) {
        self.acks.ack(ids);
    }

    /// Returns a handle that acknowledges entries from elsewhere.
    #[must_use]
    pub fn acknowledger(&self) -> Acknowledger {
        self.acks.clone()
    }

    /// Returns a handle that ends the stream from another task.
    #[must_use]
    pub fn stopper(&self) -> ConsumerStopper {
        self.stopper.clone()
    }
}

impl Stream for ConsumerStream {
    type Item = Result<EntryBatch, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut reading = match std::mem::replace(&mut self.state, State::Ended) {
            State::Ended => return Poll::Ready(None),
            State::Busy(reading) => reading,
            State::Idle(mut consumer) => {
                consumer.ack(self.acks.take());
                let acks = self.acks.clone();
                Box::pin(async move {
                    let mut batch = consumer.next().await;
                    if matches!(batch, Ok(None)) {
                        // Acknowledgements that came while the consumer stopped.
                        consumer.ack(acks.take());
                        batch = consumer.flush().await.map(|()| None);
                    }
                    (consumer, batch)
                })
            }
        };
        let Poll::Ready((consumer, batch)) = reading.as_mut().poll(cx) else {
            self.state = State::Busy(reading);
            return Poll::Pending;
        };
        if !matches!(batch, Ok(None)) {
            self.state = State::Idle(consumer);
        }
        Poll::Ready(batch.transpose())
    }
}

impl FusedStream for ConsumerStream {
    fn is_terminated(&self) -> bool {
        matches!(self.state, State::Ended)
    }
}

impl fmt::Debug for ConsumerStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConsumerStream").field("is_ended", &self.is_terminated()).finish_non_exhaustive()
    }
}
