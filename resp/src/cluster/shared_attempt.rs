//! Work that one caller begins and all wait for.

use tokio::sync::watch;

use crate::Error;

/// One attempt, whose outcome goes to all who wait for it. It goes on when they stop waiting.
#[derive(Clone, Debug)]
pub(super) struct SharedAttempt<T>(watch::Receiver<Option<Result<T, Error>>>);

impl<T: Clone + Send + Sync + 'static> SharedAttempt<T> {
    /// Begins it, in a task of its own.
    pub(super) fn begin(work: impl Future<Output = Result<T, Error>> + Send + 'static) -> Self {
        let (sender, receiver) = watch::channel(None);
        tokio::spawn(async move { sender.send_replace(Some(work.await)) });
        Self(receiver)
    }

    /// What came of it.
    pub(super) async fn outcome(mut self) -> Result<T, Error> {
        match self.0.wait_for(Option::is_some).await {
            Ok(outcome) => outcome.clone().unwrap_or_else(|| Err(Error::closed())),
            // The runtime that it was in has ended.
            Err(_) => Err(Error::closed()),
        }
    }

    /// Whether its outcome is still to come. Not so when the runtime that it was in has ended.
    pub(super) fn is_running(&self) -> bool {
        self.0.has_changed().is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    #[tokio::test]
    async fn all_get_the_outcome_of_one_attempt() {
        let begun = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&begun);
        let attempt = SharedAttempt::<()>::begin(async move {
            count.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(20)).await;
            Err(Error::closed())
        });
        assert!(attempt.is_running());
        // One gives up; the attempt goes on for the others.
        let first = attempt.clone();
        assert!(tokio::time::timeout(Duration::from_millis(1), first.outcome()).await.is_err());
        for _ in 0..3 {
            attempt.clone().outcome().await.unwrap_err();
        }
        assert_eq!(begun.load(Ordering::Relaxed), 1);
    }
}
