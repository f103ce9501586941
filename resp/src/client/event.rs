//! Events of a client. The driver publishes them through a [`Reporter`], and each receiver owns a
//! bounded mailbox.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::Notify;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};

use crate::connection::BoundedQueue;
use crate::{Error, Frame};

/// What happens on the connection of a [`Client`](crate::Client).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ClientEvent {
    /// The connection is lost. Push messages until [`Connected`](Self::Connected) are lost too, so
    /// empty a cache that relies on invalidations.
    Disconnected(Error),
    /// An attempt to reconnect has failed.
    AttemptFailed(Error),
    /// The client has reconnected, and has enabled tracking (`CLIENT TRACKING ON`) again if it was
    /// enabled.
    Connected,
    /// The server refused to enable tracking on the new connection: it sends no more invalidations.
    TrackingLost(Error),
    /// The server sent a push message, such as an invalidation.
    Push(Frame),
}

impl ClientEvent {
    /// Detaches the event from the read buffer, and returns how much memory it takes.
    fn compact(self) -> (Self, usize) {
        match self {
            Self::Push(frame) => {
                let frame = frame.compact();
                let bytes = frame.memory();
                (Self::Push(frame), bytes)
            }
            Self::Disconnected(ref error) | Self::AttemptFailed(ref error) | Self::TrackingLost(ref error) => {
                let bytes = size_of::<Self>().saturating_add(error.memory());
                (self, bytes)
            }
            Self::Connected => (self, size_of::<Self>()),
        }
    }
}

/// Receives the [events](crate::Client::events) of a client from the time of the subscription. Each
/// receiver gets all of them.
///
/// A slow receiver keeps the last 1024 events, and at most 16 MiB of them, but always the newest.
/// [`RecvError::Lagged`] reports how many were dropped, as in [`tokio::sync::broadcast`].
pub struct ClientEvents(Arc<Mailbox>);

#[derive(Default)]
struct Mailbox {
    state: Mutex<State>,
    arrived: Notify,
}

struct State {
    events: BoundedQueue<ClientEvent>,
    missed: u64,
    /// Whether the client has ended.
    ended: bool,
}

impl Default for State {
    fn default() -> Self {
        Self { events: BoundedQueue::new(), missed: 0, ended: false }
    }
}

impl Mailbox {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientEvents {
    /// Waits for the next event. The future may be dropped at any time.
    ///
    /// # Errors
    ///
    /// Events before the next one were dropped because this receiver is slow, or the client has
    /// ended.
    pub async fn recv(&mut self) -> Result<ClientEvent, RecvError> {
        loop {
            match self.try_recv() {
                Ok(event) => return Ok(event),
                Err(TryRecvError::Lagged(missed)) => return Err(RecvError::Lagged(missed)),
                Err(TryRecvError::Closed) => return Err(RecvError::Closed),
                Err(TryRecvError::Empty) => self.0.arrived.notified().await,
            }
        }
    }

    /// Returns the next event, if there is one.
    ///
    /// # Errors
    ///
    /// As [`recv`](Self::recv), or there is no event yet.
    pub fn try_recv(&mut self) -> Result<ClientEvent, TryRecvError> {
        let mut state = self.0.lock();
        match std::mem::take(&mut state.missed) {
            0 => state.events.pop().ok_or(if state.ended { TryRecvError::Closed } else { TryRecvError::Empty }),
            missed => Err(TryRecvError::Lagged(missed)),
        }
    }
}

impl fmt::Debug for ClientEvents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientEvents").finish_non_exhaustive()
    }
}

/// Publishes events to all receivers. The driver owns it.
#[derive(Default)]
pub(super) struct Reporter {
    receivers: Mutex<Vec<Weak<Mailbox>>>,
    ended: AtomicBool,
}

impl Reporter {
    fn receivers(&self) -> MutexGuard<'_, Vec<Weak<Mailbox>>> {
        self.receivers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a receiver for events from now on.
    pub(super) fn subscribe(&self) -> ClientEvents {
        let mailbox = Arc::new(Mailbox::default());
        let mut receivers = self.receivers();
        receivers.retain(|receiver| receiver.strong_count() > 0);
        receivers.push(Arc::downgrade(&mailbox));
        mailbox.lock().ended = self.ended.load(Ordering::Relaxed);
        ClientEvents(mailbox)
    }

    /// Publishes an event.
    pub(super) fn report(&self, event: ClientEvent) {
        let mut receivers = self.receivers();
        if receivers.is_empty() {
            return;
        }
        let (event, bytes) = event.compact();
        receivers.retain(|receiver| {
            let Some(mailbox) = receiver.upgrade() else { return false };
            {
                let mut state = mailbox.lock();
                let dropped = state.events.push(event.clone(), bytes);
                state.missed = state.missed.saturating_add(dropped);
            }
            mailbox.arrived.notify_one();
            true
        });
    }

    /// Records that there are no more events.
    pub(super) fn end(&self) {
        let receivers = self.receivers();
        self.ended.store(true, Ordering::Relaxed);
        for mailbox in receivers.iter().filter_map(Weak::upgrade) {
            mailbox.lock().ended = true;
            mailbox.arrived.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Decoder, ValueKind};
    use bytes::BytesMut;

    /// A small push message in a large block.
    fn push(block: usize) -> ClientEvent {
        let mut input = BytesMut::with_capacity(block);
        input.extend_from_slice(b">2\r\n+invalidate\r\n*1\r\n$1\r\nk\r\n");
        ClientEvent::Push(Decoder::default().decode(&mut input).unwrap().unwrap())
    }

    #[tokio::test]
    async fn a_slow_receiver_is_bounded_and_told_what_it_missed() {
        let reporter = Reporter::default();
        reporter.report(push(100));
        let (mut slow, mut other) = (reporter.subscribe(), reporter.subscribe());
        let memory = allocation_counter::measure(|| {
            for _ in 0..3000 {
                reporter.report(push(256 << 10));
            }
        });
        assert!(memory.bytes_current < 1 << 20, "{} bytes kept", memory.bytes_current);
        let Err(RecvError::Lagged(missed)) = slow.recv().await else { panic!("some are missing") };
        assert_eq!(missed, 3000 - 1024);
        assert!(matches!(slow.recv().await, Ok(ClientEvent::Push(frame)) if frame.kind() == ValueKind::Push));
        drop(slow);
        while !matches!(other.try_recv(), Err(TryRecvError::Empty)) {}
        reporter.report(ClientEvent::Connected);
        reporter.end();
        assert!(matches!(other.recv().await, Ok(ClientEvent::Connected)));
        for mut events in [other, reporter.subscribe()] {
            assert!(matches!(events.recv().await, Err(RecvError::Closed)));
        }
    }
}
