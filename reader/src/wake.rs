//! File events: they make the reader look at once; without them it looks every [`TICK`].

use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

/// How long a look waits at most, with or without events: network file systems send none.
pub(crate) const TICK: Duration = Duration::from_millis(250);

/// Wakes the reader when the file changes.
#[derive(Debug)]
pub(crate) struct Wake {
    notify: Arc<Notify>,
    watcher: Option<(PathBuf, RecommendedWatcher)>,
}

impl Wake {
    pub(crate) fn new() -> Self {
        Self { notify: Arc::new(Notify::new()), watcher: None }
    }

    /// Watches the file that this path leads to now.
    pub(crate) fn watch(&mut self, path: &Path) {
        self.watcher = None;
        let notify = Arc::clone(&self.notify);
        let watched = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // Our own reads are no news.
            if !event.is_ok_and(|e| e.kind.is_access()) {
                notify.notify_one();
            }
        })
        .and_then(|mut watcher| watcher.watch(path, RecursiveMode::NonRecursive).map(|()| watcher));
        match watched {
            Ok(watcher) => self.watcher = Some((path.to_owned(), watcher)),
            Err(error) => log::debug!("no file events for {}: {error}; looking every {TICK:?}", path.display()),
        }
        // What happened before the watch began was not seen.
        self.notify.notify_one();
    }

    /// Waits for an event, a [`TICK`] at most.
    pub(crate) async fn wait(&self) {
        let _ = tokio::time::timeout(TICK, self.notify.notified()).await;
    }
}
