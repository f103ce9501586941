//! How often, and how long, a command is tried.

use std::time::{Duration, Instant};

use super::MAX_REDIRECTS;
use crate::{Backoff, Error, Sent};

/// The patience for one command.
#[derive(Debug)]
pub(super) struct Attempts {
    redirects: u32,
    backoff: Backoff,
    deadline: Option<Instant>,
}

impl Attempts {
    pub(super) fn new(limit: Option<Duration>) -> Self {
        Self {
            redirects: MAX_REDIRECTS,
            backoff: Backoff::new(Duration::from_millis(10), Duration::from_secs(1)),
            deadline: limit.map(|limit| Instant::now() + limit),
        }
    }

    /// One redirect more is followed, or, after too many, the error stands.
    pub(super) fn redirect(&mut self, error: impl FnOnce() -> Error) -> Result<(), Error> {
        match self.redirects.checked_sub(1) {
            Some(left) => self.redirects = left,
            None => return Err(error()),
        }
        Ok(())
    }

    /// Waits before the next attempt; when there is no time for one, the error stands.
    pub(super) async fn wait(&mut self, error: impl FnOnce() -> Error) -> Result<(), Error> {
        let delay = self.backoff.next_delay();
        if self.deadline.is_some_and(|deadline| Instant::now() + delay >= deadline) {
            return Err(error().with_sent(Sent::No));
        }
        tokio::time::sleep(delay).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn redirects_and_time_are_bounded() {
        let mut attempts = Attempts::new(Some(Duration::from_millis(30)));
        for _ in 0..MAX_REDIRECTS {
            attempts.redirect(Error::closed).unwrap();
        }
        attempts.redirect(Error::closed).unwrap_err();
        while attempts.wait(Error::closed).await.is_ok() {}
    }
}
