//! The queue between the callers of a client and its driver. It bounds the bytes that are queued
//! and in flight.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Duration;

use bytes::BytesMut;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::response::{Response, ResponseSlot};
use crate::{Error, Sent};

/// Commands that callers have encoded and the driver has not taken yet. Callers add to it and wait
/// for room; the driver takes everything at once.
#[derive(Debug)]
pub(super) struct Queue {
    state: Mutex<State>,
    max_bytes: usize,
    room: Notify,
}

#[derive(Debug, Default)]
struct State {
    out: BytesMut,
    calls: VecDeque<PendingCall>,
    /// Bytes that are queued or in flight.
    bytes: usize,
    /// Callers that wait for room.
    waiting: usize,
    driver: Option<Waker>,
    closed: bool,
    /// Whether the driver has ended.
    ended: bool,
    connected: bool,
}

/// The commands that one caller queued together.
#[derive(Debug)]
pub(super) struct PendingCall {
    pub(super) slot: Arc<ResponseSlot>,
    pub(super) bytes: usize,
    /// Once this many bytes are sent, a command may have been executed.
    pub(super) first: usize,
    pub(super) replies: usize,
    /// In a transaction: the index of the reply to `MULTI`.
    pub(super) multi: Option<usize>,
    /// When the call was queued. Calls that the driver takes together have the time of the first.
    pub(super) queued: Instant,
}

impl PendingCall {
    /// Returns when the call times out, if there is a limit.
    pub(super) fn deadline(&self, limit: Option<Duration>) -> Option<Instant> {
        self.queued.checked_add(limit?)
    }
}

/// The number of replies, and what the driver must know about the commands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub(super) replies: usize,
    /// Once this many bytes are sent (`None`: all), a command may have been executed.
    pub(super) first: Option<usize>,
    /// In a transaction: the index of the reply to `MULTI`.
    pub(super) multi: Option<usize>,
}

impl Shape {
    pub(super) const ONE: Self = Self { replies: 1, first: None, multi: None };
}

impl Queue {
    pub(super) fn new(max_bytes: usize) -> Self {
        let state = Mutex::new(State { connected: true, ..State::default() });
        // A queue without capacity would never admit a caller.
        Self { state, max_bytes: max_bytes.max(1), room: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns whether fewer bytes than the maximum are queued and in flight.
    pub(super) fn has_room(&self) -> bool {
        self.lock().bytes < self.max_bytes
    }

    /// Waits until there is room.
    pub(super) async fn room(&self) {
        loop {
            let mut notified = pin!(self.room.notified());
            {
                let mut state = self.lock();
                if state.bytes < self.max_bytes {
                    return;
                }
                // Registered before the lock is released, so that no wake-up is missed.
                notified.as_mut().enable();
                state.waiting = state.waiting.saturating_add(1);
            }
            let waiting = Waiting(self);
            notified.await;
            drop(waiting);
        }
    }

    /// Queues commands.
    pub(super) fn add(&self, shape: Shape, encode: impl FnOnce(&mut BytesMut)) -> Response {
        let slot = Arc::new(ResponseSlot::new(shape.replies));
        let mut state = self.lock();
        if state.ended {
            drop(state);
            slot.fail(Error::closed());
            return Response(slot);
        }
        let before = state.out.len();
        encode(&mut state.out);
        let bytes = state.out.len().saturating_sub(before);
        state.bytes = state.bytes.saturating_add(bytes);
        // The driver takes queued calls at once, unless it has no connection.
        let queued = match state.calls.back() {
            Some(last) if state.connected => last.queued,
            _ => Instant::now(),
        };
        let Shape { replies, first, multi } = shape;
        let first = first.unwrap_or(bytes).min(bytes);
        state.calls.push_back(PendingCall { slot: Arc::clone(&slot), bytes, first, replies, multi, queued });
        let driver = state.driver.take();
        drop(state);
        if let Some(driver) = driver {
            driver.wake();
        }
        Response(slot)
    }

    /// Moves everything to the driver and registers its waker. Returns `false` when no client is
    /// left.
    pub(super) fn take(&self, out: &mut BytesMut, calls: &mut VecDeque<PendingCall>, waker: &Waker) -> bool {
        let mut state = self.lock();
        match &mut state.driver {
            Some(driver) => driver.clone_from(waker),
            none => *none = Some(waker.clone()),
        }
        if !state.out.is_empty() {
            std::mem::swap(out, &mut state.out);
            calls.append(&mut state.calls);
        }
        !state.closed
    }

    /// Releases bytes that are answered, or never will be.
    pub(super) fn release(&self, bytes: usize) {
        let mut state = self.lock();
        state.bytes = state.bytes.saturating_sub(bytes);
        let wake = if state.bytes < self.max_bytes { state.waiting } else { 0 };
        drop(state);
        for _ in 0..wake {
            self.room.notify_one();
        }
    }

    /// Records that no client is left.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        if let Some(driver) = state.driver.take() {
            drop(state);
            driver.wake();
        }
    }

    /// Records that the driver has ended: present and future calls fail.
    pub(super) fn end(&self) {
        self.lock().ended = true;
        self.fail(Error::closed);
    }

    pub(super) fn has_ended(&self) -> bool {
        self.lock().ended
    }

    pub(super) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Records whether there is a connection, so that the driver takes calls as soon as they are
    /// queued.
    pub(super) fn set_connected(&self, connected: bool) {
        self.lock().connected = connected;
    }

    /// Fails all calls.
    pub(super) fn fail(&self, error: impl Fn() -> Error) {
        self.fail_while(|_| true, error);
    }

    /// Fails the calls that have timed out.
    pub(super) fn expire(&self, limit: Duration) {
        let now = Instant::now();
        let is_over = |call: &PendingCall| call.deadline(Some(limit)).is_some_and(|deadline| deadline <= now);
        self.fail_while(is_over, || Error::timeout(limit).with_sent(Sent::No));
    }

    /// Fails the oldest calls as long as they match.
    fn fail_while(&self, is_such: impl Fn(&PendingCall) -> bool, error: impl Fn() -> Error) {
        let mut state = self.lock();
        let mut failed = Vec::new();
        let mut bytes = 0;
        while state.calls.front().is_some_and(&is_such) {
            let call = state.calls.pop_front();
            bytes = call.as_ref().map_or(0, |call| call.bytes).saturating_add(bytes);
            failed.extend(call);
        }
        let _ = state.out.split_to(bytes);
        drop(state);
        for call in &failed {
            call.slot.fail(error());
        }
        if bytes > 0 {
            self.release(bytes);
        }
    }
}

/// A caller that waits for room.
struct Waiting<'a>(&'a Queue);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.waiting = state.waiting.saturating_sub(1);
    }
}
