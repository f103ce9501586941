//! The shutdown request.

use std::sync::Arc;

use tokio::sync::watch;

/// The shutdown request, set by a signal. Clones share it.
///
/// # Examples
///
/// ```
/// # let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
/// # runtime.block_on(async {
/// let shutdown = service::Shutdown::new();
/// let seen = shutdown.clone();
/// assert!(!seen.is_requested());
/// shutdown.request();
/// seen.requested().await;
/// # });
/// ```
#[derive(Debug, Clone)]
pub struct Shutdown {
    sender: Arc<watch::Sender<bool>>,
    receiver: watch::Receiver<bool>,
}

impl Shutdown {
    /// Nothing is requested yet.
    #[must_use]
    pub fn new() -> Self {
        let (sender, receiver) = watch::channel(false);
        Self { sender: Arc::new(sender), receiver }
    }

    /// Requests shutdown.
    pub fn request(&self) {
        self.sender.send_replace(true);
    }

    /// Whether shutdown was requested.
    #[must_use]
    pub fn is_requested(&self) -> bool {
        *self.receiver.borrow()
    }

    /// Waits until shutdown is requested; returns immediately if it was. Cancel-safe.
    pub async fn requested(&self) {
        // The sender lives as long as `self`, so `wait_for` cannot fail.
        let _ = self.receiver.clone().wait_for(|requested| *requested).await;
    }
}

impl Default for Shutdown {
    fn default() -> Self {
        Self::new()
    }
}
