//! Until when a call may take.

use std::time::Duration;

use tokio::time::Instant;

/// The end of one call, whatever it does until then.
///
/// It is fixed when the call first has to wait, so a call that finds its reply in the buffer asks
/// no clock.
#[derive(Debug)]
pub(crate) struct Deadline {
    end: End,
    /// How much longer a reply may take that has begun when the deadline comes.
    extension: Option<Option<Duration>>,
    /// Whether the peer may be silent until then, because it waits itself.
    may_be_silent: bool,
}

#[derive(Clone, Copy, Debug)]
enum End {
    Never,
    /// Not fixed yet.
    After(Duration),
    At(Instant, Duration),
}

impl Deadline {
    /// So long from the first wait on; `None` for ever.
    pub(crate) fn after(limit: Option<Duration>) -> Self {
        Self { end: limit.map_or(End::Never, End::After), extension: None, may_be_silent: false }
    }

    /// For what the peer answers when it has something: a reply that has begun after `limit` may
    /// take so much longer.
    pub(crate) const fn blocking(limit: Duration, extension: Option<Duration>) -> Self {
        Self { end: End::After(limit), extension: Some(extension), may_be_silent: true }
    }

    /// For what may never come.
    pub(crate) const fn never() -> Self {
        Self { end: End::Never, extension: None, may_be_silent: true }
    }

    pub(super) const fn may_be_silent(&self) -> bool {
        self.may_be_silent
    }

    /// When the call ends, and how long it may take.
    pub(super) fn fix(&mut self, now: Instant) -> Option<(Instant, Duration)> {
        if let End::After(limit) = self.end {
            self.end = now.checked_add(limit).map_or(End::Never, |at| End::At(at, limit));
        }
        match self.end {
            End::At(at, limit) => Some((at, limit)),
            End::Never | End::After(_) => None,
        }
    }

    /// Gives a reply that has begun its additional time, once. `false` when there is none.
    pub(super) fn extend(&mut self) -> bool {
        let Some(extension) = self.extension.take() else { return false };
        *self = Self::after(extension);
        true
    }
}

/// The moment so long from now; `None` when it is too far away to be told.
pub(crate) fn in_future(limit: Option<Duration>) -> Option<Instant> {
    Instant::now().checked_add(limit?)
}
