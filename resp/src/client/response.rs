//! The replies of one call, on their way from the driver to the caller.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::{Error, Frame};

/// Collects the replies of one call. The driver fills it; the caller waits for it.
#[derive(Debug)]
pub(super) struct ResponseSlot(Mutex<State>);

#[derive(Debug)]
struct State {
    first: Option<Frame>,
    rest: Vec<Frame>,
    missing: usize,
    error: Option<Error>,
    waker: Option<Waker>,
}

impl ResponseSlot {
    pub(super) const fn new(replies: usize) -> Self {
        Self(Mutex::new(State { first: None, rest: Vec::new(), missing: replies, error: None, waker: None }))
    }

    /// Adds a reply. Returns the waker of the caller with the last one.
    pub(super) fn reply(&self, frame: Frame) -> Option<Waker> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.missing == 0 {
            // The call has already failed.
            return None;
        }
        if state.first.is_none() {
            state.first = Some(frame);
        } else {
            state.rest.push(frame);
        }
        state.missing = state.missing.saturating_sub(1);
        if state.missing == 0 { state.waker.take() } else { None }
    }

    /// Ends the call with an error.
    pub(super) fn fail(&self, error: Error) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.missing == 0 {
            return;
        }
        state.error = Some(error);
        state.missing = 0;
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// The replies of one call.
pub(crate) type Frames = std::iter::Chain<std::option::IntoIter<Frame>, std::vec::IntoIter<Frame>>;

/// A future for the replies of one call. Dropping it discards the replies.
#[derive(Debug)]
pub(super) struct Response(pub(super) Arc<ResponseSlot>);

impl Future for Response {
    type Output = Result<Frames, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.missing > 0 {
            match &mut state.waker {
                Some(waker) => waker.clone_from(cx.waker()),
                none => *none = Some(cx.waker().clone()),
            }
            return Poll::Pending;
        }
        Poll::Ready(match state.error.take() {
            Some(error) => Err(error),
            None => Ok(state.first.take().into_iter().chain(std::mem::take(&mut state.rest))),
        })
    }
}
