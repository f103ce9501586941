//! File events make the reader look at once; without them it looks every [`TICK`].

use log::debug;
use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::Notify;

/// How long a look waits at most, with or without events: network file systems send none.
pub(crate) const TICK: Duration = Duration::from_millis(250);

/// File events for all partitions: one watch for all that follow the same path.
#[derive(Debug, Clone)]
pub(crate) struct Events {
    listeners: Arc<Mutex<Vec<Weak<Notify>>>>,
    /// `None`: there are none to be had.
    watcher: Rc<RefCell<Option<RecommendedWatcher>>>,
}

impl Events {
    pub(crate) fn new() -> Self {
        let listeners: Arc<Mutex<Vec<Weak<Notify>>>> = Arc::default();
        let told = Arc::clone(&listeners);
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // Our own reads are no news.
            if !event.is_ok_and(|e| e.kind.is_access()) {
                let listeners = told.lock().unwrap_or_else(PoisonError::into_inner);
                listeners.iter().filter_map(Weak::upgrade).for_each(|listener| listener.notify_one());
            }
        });
        let watcher = watcher.inspect_err(|error| debug!("no file events: {error}; looking every {TICK:?}")).ok();
        Self { listeners, watcher: Rc::new(RefCell::new(watcher)) }
    }

    /// Wakes one partition.
    pub(crate) fn watch(&self) -> Watch {
        let notify = Arc::new(Notify::new());
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(&notify));
        Watch { notify, events: self.clone() }
    }

    fn follow(&self, path: &Path) {
        let mut watcher = self.watcher.borrow_mut();
        let Some(watcher) = watcher.as_mut() else { return };
        // Another file may lie there since it was watched for somebody else. That it was not
        // watched is no error.
        let _ = watcher.unwatch(path);
        if let Err(error) = watcher.watch(path, RecursiveMode::NonRecursive) {
            debug!("no file events for {}: {error}; looking every {TICK:?}", path.display());
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
        // What happened before the watch began was not seen.
        self.notify.notify_one();
    }

    /// Waits for an event, a [`TICK`] at most.
    pub(crate) async fn wait(&self) {
        let _ = tokio::time::timeout(TICK, self.notify.notified()).await;
    }
}
