//! Deadlines of calls on a connection. [`Wire`](super::Wire) enforces them.

use std::time::Duration;

use tokio::time::Instant;

/// The deadline of one call, whatever the call does until then.
///
/// It is fixed when the call first has to wait, so a call that finds its reply in the buffer does
/// not read the clock.
#[derive(Debug)]
pub(crate) struct Deadline {
    end: End,
    /// How much longer a reply may take that has begun by the deadline.
    extension: Option<Option<Duration>>,
    /// Whether the peer may send nothing until then, because the command blocks.
    may_be_silent: bool,
}

#[derive(Clone, Copy, Debug)]
enum End {
    Never,
    /// The clock has not started.
    After(Duration),
    At(Instant, Duration),
}

impl Deadline {
    /// Ends this long after the first wait; `None` never ends.
    pub(crate) fn after(limit: Option<Duration>) -> Self {
        Self { end: limit.map_or(End::Never, End::After), extension: None, may_be_silent: false }
    }

    /// For a blocking command. A reply that has begun after `limit` may take `extension` longer.
    pub(crate) const fn blocking(limit: Duration, extension: Option<Duration>) -> Self {
        Self { end: End::After(limit), extension: Some(extension), may_be_silent: true }
    }

    /// Never ends.
    pub(crate) const fn never() -> Self {
        Self { end: End::Never, extension: None, may_be_silent: true }
    }

    pub(super) const fn may_be_silent(&self) -> bool {
        self.may_be_silent
    }

    /// Returns when the call ends, and how long it may take.
    pub(super) fn fix(&mut self, now: Instant) -> Option<(Instant, Duration)> {
        if let End::After(limit) = self.end {
            self.end = now.checked_add(limit).map_or(End::Never, |at| End::At(at, limit));
        }
        match self.end {
            End::At(at, limit) => Some((at, limit)),
            End::Never | End::After(_) => None,
        }
    }

    /// Extends the deadline once, for a reply that has begun. Returns `false` if there is no
    /// extension, or no other one.
    pub(super) fn extend(&mut self) -> bool {
        let Some(extension) = self.extension.take() else { return false };
        *self = Self::after(extension);
        true
    }
}

/// Returns the instant `limit` from now; `None` when it is too far away to represent.
pub(crate) fn in_future(limit: Option<Duration>) -> Option<Instant> {
    Instant::now().checked_add(limit?)
}
