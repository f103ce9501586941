//! File events trigger a scan at once; without events, the reader scans every [`TICK`].

use log::debug;
use rustix::fd::OwnedFd;
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::Errno;
use std::cell::RefCell;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::time::Duration;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;
use tokio::time::{Instant, Sleep};

/// Maximum time between two scans. Network file systems send no events.
pub(crate) const TICK: Duration = Duration::from_millis(250);
/// Room for the events of one read. Their contents do not matter: any event causes one scan.
const EVENTS: usize = 4096;

/// File events for all partitions. All partitions share one watch per path.
#[derive(Debug, Clone)]
pub(crate) struct Events(Rc<Shared>);

#[derive(Debug)]
struct Shared {
    listeners: RefCell<Vec<Weak<Notify>>>,
    /// `None` if the system provides no events.
    inotify: Option<AsyncFd<OwnedFd>>,
    watched: RefCell<Vec<(PathBuf, i32)>>,
}

impl Events {
    /// In a runtime.
    #[allow(deprecated, reason = "its successor is unsafe; an OwnedFd stays open while it is owned")]
    pub(crate) fn new() -> Self {
        let opened = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).map_err(io::Error::from);
        let opened = opened.and_then(|fd| AsyncFd::with_interest(fd, Interest::READABLE));
        let inotify = opened.inspect_err(|error| debug!("no file events: {error}; scanning every {TICK:?}")).ok();
        Self(Rc::new(Shared { listeners: RefCell::default(), inotify, watched: RefCell::default() }))
    }

    /// A watch that wakes one partition.
    pub(crate) fn watch(&self) -> Watch {
        let notify = Rc::new(Notify::new());
        self.0.listeners.borrow_mut().push(Rc::downgrade(&notify));
        Watch { notify, events: Some(self.clone()), tick: None }
    }

    fn follow(&self, path: &Path) {
        let Some(inotify) = &self.0.inotify else { return };
        // A change of the bytes or of the name. That somebody opens or reads it is no news.
        let flags = WatchFlags::MODIFY | WatchFlags::ATTRIB | WatchFlags::MOVE_SELF | WatchFlags::DELETE_SELF;
        let mut watched = self.0.watched.borrow_mut();
        match inotify::add_watch(inotify, path, flags) {
            Ok(added) => {
                // The path may have led to another file when it was watched before. The same file
                // has the same watch, under all its names.
                let former = watched.extract_if(.., |(of, _)| of == path).map(|(_, watch)| watch).next();
                watched.push((path.to_owned(), added));
                if let Some(former) = former.filter(|former| watched.iter().all(|(_, watch)| watch != former)) {
                    // It has ended by itself when its file is gone.
                    let _ = inotify::remove_watch(inotify, former);
                }
            }
            Err(error) => debug!("no file events for {}: {error}; scanning every {TICK:?}", path.display()),
        }
    }

    /// Waits for events, and wakes all other partitions.
    async fn come(&self, own: &Rc<Notify>) {
        let Some(inotify) = &self.0.inotify else { return std::future::pending().await };
        let mut events = [0; EVENTS];
        loop {
            let Ok(mut ready) = inotify.readable().await else { return std::future::pending().await };
            match rustix::io::read(inotify.get_ref(), &mut events[..]) {
                // When this was all, the next event makes it ready again.
                Ok(len) if len < EVENTS / 2 => ready.clear_ready(),
                Err(Errno::AGAIN) => {
                    ready.clear_ready();
                    continue;
                }
                _ => {}
            }
            let listeners = self.0.listeners.borrow();
            let others = listeners.iter().filter_map(Weak::upgrade).filter(|listener| !Rc::ptr_eq(listener, own));
            return others.for_each(|listener| listener.notify_one());
        }
    }
}

/// Wakes a reader when a file changes.
#[derive(Debug)]
pub(crate) struct Watch {
    notify: Rc<Notify>,
    /// `None` when another watch looks for events.
    events: Option<Events>,
    /// Stays armed between two waits: a timer that is new, and due before all others, interrupts
    /// the runtime, which costs two system calls.
    tick: Option<Pin<Box<Sleep>>>,
}

impl Watch {
    /// A watch that its owner wakes.
    pub(crate) const fn woken_by(notify: Rc<Notify>) -> Self {
        Self { notify, events: None, tick: None }
    }

    /// Watches the file that this path leads to now.
    pub(crate) fn follow(&self, path: &Path) {
        if let Some(events) = &self.events {
            events.follow(path);
        }
        // Changes before the watch began cause no event.
        self.notify.notify_one();
    }

    /// Waits for an event, at most one [`TICK`].
    pub(crate) async fn wait(&mut self) {
        let tick = self.tick.get_or_insert_with(|| Box::pin(tokio::time::sleep(TICK)));
        tick.as_mut().reset(Instant::now().checked_add(TICK).unwrap_or_else(Instant::now));
        let woken = async {
            match &self.events {
                Some(events) => tokio::select! {
                    biased;
                    () = self.notify.notified() => {}
                    () = events.come(&self.notify) => {}
                },
                None => self.notify.notified().await,
            }
        };
        tokio::select! {
            biased;
            () = woken => {}
            () = tick => {}
        }
    }
}
