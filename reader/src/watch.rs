//! File events trigger a scan at once; without events, the reader scans every [`TICK`].

use log::debug;
use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::Notify;

/// Maximum time between two scans. Network file systems send no events.
pub(crate) const TICK: Duration = Duration::from_millis(250);

/// File events for all partitions. All partitions share one watch per path.
#[derive(Debug, Clone)]
pub(crate) struct Events {
    listeners: Arc<Mutex<Vec<Weak<Notify>>>>,
    /// `None` if the system provides no events.
    watcher: Rc<RefCell<Option<RecommendedWatcher>>>,
}

impl Events {
    pub(crate) fn new() -> Self {
        let listeners: Arc<Mutex<Vec<Weak<Notify>>>> = Arc::default();
        let notified = Arc::clone(&listeners);
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // Ignore the reader's own reads.
            if !event.is_ok_and(|e| e.kind.is_access()) {
                let listeners = notified.lock().unwrap_or_else(PoisonError::into_inner);
                listeners.iter().filter_map(Weak::upgrade).for_each(|listener| listener.notify_one());
            }
        });
        let watcher = watcher.inspect_err(|error| debug!("no file events: {error}; scanning every {TICK:?}")).ok();
        Self { listeners, watcher: Rc::new(RefCell::new(watcher)) }
    }

    /// A watch that wakes one partition.
    pub(crate) fn watch(&self) -> Watch {
        let notify = Arc::new(Notify::new());
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(&notify));
        Watch { notify, events: self.clone() }
    }

    fn follow(&self, path: &Path) {
        let mut watcher = self.watcher.borrow_mut();
        let Some(watcher) = watcher.as_mut() else { return };
        // The path may lead to another file since it was watched last. `unwatch` fails if it was
        // not watched.
        let _ = watcher.unwatch(path);
        if let Err(error) = watcher.watch(path, RecursiveMode::NonRecursive) {
            debug!("no file events for {}: {error}; scanning every {TICK:?}", path.display());
        }
    }
}

/// Wakes a reader when a file changes.
#[derive(Debug)]
pub(crate) struct Watch {
    notify: Arc<Notify>,
    events: Events,
}

impl Watch {
    /// Watches the file that this path leads to now.
    pub(crate) fn follow(&self, path: &Path) {
        self.events.follow(path);
        // Changes before the watch began cause no event.
        self.notify.notify_one();
    }

    /// Waits for an event, at most one [`TICK`].
    pub(crate) async fn wait(&self) {
        let _ = tokio::time::timeout(TICK, self.notify.notified()).await;
    }
}
