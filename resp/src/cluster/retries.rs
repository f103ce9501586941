//! The limits of retries for one command.

use std::time::Duration;

use tokio::time::Instant;

use crate::connection::in_future;
use crate::discovery::MAX_REDIRECTS;
use crate::{Backoff, Error, Sent};

/// How long one command may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct TimeLimit {
    limit: Option<Duration>,
    deadline: Option<Instant>,
    /// Whether some of the time has been spent.
    is_begun: bool,
}

impl TimeLimit {
    /// Returns the deadline; `None` while the time limit of the connection is the same.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.deadline.filter(|_| self.is_begun)
    }

    /// Waits for `what` until the deadline at the latest.
    pub(super) async fn within<T>(&mut self, what: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        self.is_begun = true;
        let (Some(deadline), Some(limit)) = (self.deadline, self.limit) else { return what.await };
        tokio::time::timeout_at(deadline, what).await.unwrap_or_else(|_| Err(Error::timeout(limit)))
    }
}

/// The remaining retries and redirects of one command.
#[derive(Debug)]
pub(super) struct Retries {
    redirects: u32,
    backoff: Backoff,
    pub(super) time_limit: TimeLimit,
    /// Why the last attempt was postponed.
    last: Option<Error>,
}

impl Retries {
    pub(super) fn new(limit: Option<Duration>) -> Self {
        Self {
            redirects: MAX_REDIRECTS,
            backoff: Backoff::new(Duration::from_millis(10), Duration::from_secs(1)),
            time_limit: TimeLimit { limit, deadline: in_future(limit), is_begun: false },
            last: None,
        }
    }

    /// Returns the last error if there is no time for another attempt.
    pub(super) fn check(&mut self) -> Result<(), Error> {
        let is_over = self.time_limit.deadline().is_some_and(|deadline| deadline <= Instant::now());
        if is_over && let Some(last) = self.last.take() { Err(last) } else { Ok(()) }
    }

    /// Counts a redirect, or returns the error after too many.
    pub(super) fn redirect(&mut self, error: impl FnOnce() -> Error) -> Result<(), Error> {
        self.time_limit.is_begun = true;
        match self.redirects.checked_sub(1) {
            Some(left) => self.redirects = left,
            None => return Err(error()),
        }
        Ok(())
    }

    /// Waits before the next attempt, or returns the error if there is no time for one.
    pub(super) async fn wait(&mut self, error: impl FnOnce() -> Error) -> Result<(), Error> {
        self.time_limit.is_begun = true;
        let delay = self.backoff.next_delay();
        let error = error().with_sent(Sent::No);
        if self.time_limit.deadline.is_some_and(|deadline| deadline.saturating_duration_since(Instant::now()) <= delay)
        {
            return Err(error);
        }
        self.last = Some(error);
        tokio::time::sleep(delay).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn redirects_and_time_are_bounded() {
        let mut retries = Retries::new(Some(Duration::from_millis(30)));
        for _ in 0..MAX_REDIRECTS {
            retries.redirect(Error::closed).unwrap();
        }
        retries.redirect(Error::closed).unwrap_err();
        // Timers have a granularity of a millisecond, so the last pause can end after the limit.
        let mut ended = Ok(());
        while ended.is_ok() && retries.wait(Error::closed).await.is_ok() {
            ended = retries.check();
        }
        tokio::time::sleep(Duration::from_millis(30)).await;
        assert_eq!(ended.and_then(|()| retries.check()).unwrap_err().kind(), crate::ErrorKind::Closed);
        retries.time_limit.within(std::future::pending::<Result<(), Error>>()).await.unwrap_err();
    }
}
