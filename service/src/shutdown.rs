//! The request to stop.

use std::sync::Arc;

use tokio::sync::watch;

/// The request to stop, from a signal. Clones see the same request.
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

    /// Asks for the end: from now on [`Self::is_requested`] holds.
    pub fn request(&self) {
        self.sender.send_replace(true);
    }

    /// Whether the end was asked for.
    #[must_use]
    pub fn is_requested(&self) -> bool {
        *self.receiver.borrow()
    }

    /// Waits until the end is asked for. Cancel-safe; at once when it has been.
    pub async fn requested(&self) {
        // The sender lives as long as `self`, so this ends with a request only.
        let _ = self.receiver.clone().wait_for(|requested| *requested).await;
    }
}

impl Default for Shutdown {
    fn default() -> Self {
        Self::new()
    }
}
