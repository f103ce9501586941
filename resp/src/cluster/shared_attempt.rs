//! An operation that one caller starts and all callers wait for.

use tokio::sync::watch;

use crate::Error;

/// One attempt whose result goes to all who wait for it. It continues when they stop waiting.
#[derive(Clone, Debug)]
pub(super) struct SharedAttempt<T>(watch::Receiver<Option<Result<T, Error>>>);

impl<T: Clone + Send + Sync + 'static> SharedAttempt<T> {
    /// Starts the attempt in its own task.
    pub(super) fn begin(work: impl Future<Output = Result<T, Error>> + Send + 'static) -> Self {
        let (sender, receiver) = watch::channel(None);
        tokio::spawn(async move { sender.send_replace(Some(work.await)) });
        Self(receiver)
    }

    /// Waits for the result.
    pub(super) async fn outcome(mut self) -> Result<T, Error> {
        match self.0.wait_for(Option::is_some).await {
            Ok(outcome) => outcome.clone().unwrap_or_else(|| Err(Error::closed())),
            // The runtime shut down.
            Err(_) => Err(Error::closed()),
        }
    }

    /// Returns whether the attempt is running. It is not after its runtime shut down.
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
    async fn all_callers_get_the_result_of_one_attempt() {
        let begun = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&begun);
        let attempt = SharedAttempt::<()>::begin(async move {
            count.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(20)).await;
            Err(Error::closed())
        });
        assert!(attempt.is_running());
        // One caller gives up; the attempt continues for the others.
        let first = attempt.clone();
        assert!(tokio::time::timeout(Duration::from_millis(1), first.outcome()).await.is_err());
        for _ in 0..3 {
            attempt.clone().outcome().await.unwrap_err();
        }
        assert_eq!(begun.load(Ordering::Relaxed), 1);
    }
}
