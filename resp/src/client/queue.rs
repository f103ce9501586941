use std::collections::VecDeque;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use tokio::sync::Notify;

use super::outcome::{Outcome, Slot};
use crate::Error;

/// What callers have encoded and the driver has not taken yet.
#[derive(Debug)]
pub(super) struct Queue {
    state: Mutex<State>,
    max_bytes: usize,
    room: Notify,
}

#[derive(Debug, Default)]
struct State {
    out: BytesMut,
    calls: VecDeque<Call>,
    /// Bytes queued, and bytes in flight.
    bytes: usize,
    /// Callers that wait for room.
    waiting: usize,
    driver: Option<Waker>,
    closed: bool,
    /// There is no driver any more.
    ended: bool,
    connected: bool,
}

/// One call: some commands that were queued together.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) slot: Arc<Slot>,
    pub(super) bytes: usize,
    /// When so many of them have been sent, something may have been done.
    pub(super) first: usize,
    pub(super) replies: usize,
    /// When it was queued; only noted while there is no connection.
    queued: Option<Instant>,
}

impl Queue {
    pub(super) fn new(max_bytes: usize) -> Self {
        Self { state: Mutex::new(State { connected: true, ..State::default() }), max_bytes, room: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until fewer bytes than allowed are queued and in flight.
    pub(super) async fn room(&self) {
        loop {
            let mut notified = pin!(self.room.notified());
            {
                let mut state = self.lock();
                if state.bytes < self.max_bytes {
                    return;
                }
                // In line before the lock is given back, so that no release is missed.
                notified.as_mut().enable();
                state.waiting += 1;
            }
            let waiting = Waiting(self);
            notified.await;
            drop(waiting);
        }
    }

    /// Queues commands with so many replies. When `first` bytes of them have been sent (unless given: all), something may have been done.
    pub(super) fn add(&self, replies: usize, first: Option<usize>, encode: impl FnOnce(&mut BytesMut)) -> Outcome {
        let slot = Arc::new(Slot::new(replies));
        let mut state = self.lock();
        if state.ended {
            drop(state);
            slot.fail(Error::closed());
            return Outcome(slot);
        }
        let before = state.out.len();
        encode(&mut state.out);
        let bytes = state.out.len() - before;
        state.bytes += bytes;
        let queued = if state.connected { None } else { Some(Instant::now()) };
        let first = first.unwrap_or(bytes).min(bytes);
        state.calls.push_back(Call { slot: Arc::clone(&slot), bytes, first, replies, queued });
        let driver = state.driver.take();
        drop(state);
        if let Some(driver) = driver {
            driver.wake();
        }
        Outcome(slot)
    }

    /// Moves everything that is queued to the driver, which is woken when there is more. `false` when there will be nothing any
    /// more.
    pub(super) fn take(&self, out: &mut BytesMut, calls: &mut VecDeque<Call>, waker: &Waker) -> bool {
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

    /// So many bytes are answered, or will never be.
    pub(super) fn release(&self, bytes: usize) {
        let mut state = self.lock();
        state.bytes = state.bytes.saturating_sub(bytes);
        let wake = if state.bytes < self.max_bytes { state.waiting } else { 0 };
        drop(state);
        for _ in 0..wake {
            self.room.notify_one();
        }
    }

    /// No client is left.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        if let Some(driver) = state.driver.take() {
            drop(state);
            driver.wake();
        }
    }

    /// There is no driver any more: what is queued, and what is to be queued, fails.
    pub(super) fn end(&self) {
        self.lock().ended = true;
        self.expire(None, Error::closed);
    }

    pub(super) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Says whether there is a connection: without one, calls are timed.
    pub(super) fn set_connected(&self, connected: bool) {
        let mut state = self.lock();
        state.connected = connected;
        let now = if connected { None } else { Some(Instant::now()) };
        for call in &mut state.calls {
            call.queued = now;
        }
    }

    /// Fails the calls that have waited too long for a connection, or all of them.
    pub(super) fn expire(&self, after: Option<Duration>, error: impl Fn() -> Error) {
        let mut state = self.lock();
        let mut expired = Vec::new();
        let mut bytes = 0;
        while let Some(call) = state.calls.front() {
            if let (Some(after), Some(queued)) = (after, call.queued)
                && queued.elapsed() < after
            {
                break;
            }
            bytes += call.bytes;
            expired.extend(state.calls.pop_front());
        }
        let _ = state.out.split_to(bytes);
        drop(state);
        for call in &expired {
            call.slot.fail(error());
        }
        if bytes > 0 {
            self.release(bytes);
        }
    }
}

/// A caller that waits for room, as long as it lives.
struct Waiting<'a>(&'a Queue);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.waiting = state.waiting.saturating_sub(1);
    }
}
