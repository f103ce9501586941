//! File events of folders, with the names of the files.

use log::debug;
use rustix::fd::OwnedFd;
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Room for the events of one read.
const EVENTS: usize = 32 << 10;

/// The watched folders.
#[derive(Debug)]
pub(crate) struct FolderEvents {
    /// `None` if the system provides no events.
    inotify: Option<AsyncFd<OwnedFd>>,
    folders: HashMap<i32, PathBuf>,
}

/// The event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    /// Something happened to the file at this path.
    File(PathBuf),
    /// Another file is at this path, or none.
    Name(PathBuf),
    /// A folder came or went, or events were lost: everything must be scanned.
    Unknown,
}

/// Whether the events of a folder come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Followed {
    /// The system provides none.
    No,
    /// As before.
    Already,
    /// From now on: what happened before is to be looked for.
    Newly,
}

impl FolderEvents {
    /// In a runtime.
    #[allow(deprecated, reason = "its successor is unsafe; an OwnedFd stays open while it is owned")]
    pub(crate) fn new() -> Self {
        let opened = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).map_err(io::Error::from);
        let opened = opened.and_then(|fd| AsyncFd::with_interest(fd, Interest::READABLE));
        let inotify = opened.inspect_err(|error| debug!("no file events: {error}")).ok();
        Self { inotify, folders: HashMap::new() }
    }

    /// Watches a folder, which may be another one than before. Returns whether its events will
    /// come.
    pub(crate) fn follow(&mut self, folder: &Path) -> Followed {
        let Some(inotify) = &self.inotify else { return Followed::No };
        let flags = WatchFlags::MODIFY
            | WatchFlags::CREATE
            | WatchFlags::MOVED_FROM
            | WatchFlags::MOVED_TO
            | WatchFlags::DELETE
            | WatchFlags::DELETE_SELF
            | WatchFlags::MOVE_SELF
            | WatchFlags::ONLYDIR;
        match inotify::add_watch(inotify, folder, flags) {
            Ok(watch) => {
                let before = self.folders.insert(watch, folder.to_owned());
                if before.as_deref() == Some(folder) { Followed::Already } else { Followed::Newly }
            }
            Err(error) => {
                debug!("no file events for {}: {error}", folder.display());
                Followed::No
            }
        }
    }

    /// Waits for events. Cancel-safe.
    pub(crate) async fn come(&mut self) -> Vec<Event> {
        loop {
            let Some(inotify) = &self.inotify else { return std::future::pending().await };
            let Ok(mut ready) = inotify.readable().await else { return std::future::pending().await };
            ready.clear_ready();
            drop(ready);
            let events = self.read();
            if !events.is_empty() {
                return events;
            }
        }
    }

    /// The events that have come.
    fn read(&mut self) -> Vec<Event> {
        let Some(inotify) = &self.inotify else { return Vec::new() };
        let mut buffer = [MaybeUninit::uninit(); EVENTS];
        let mut events = Vec::new();
        let mut reader = inotify::Reader::new(inotify.get_ref(), &mut buffer);
        loop {
            let event = match reader.next() {
                Ok(event) => event,
                Err(Errno::INTR) => continue,
                Err(_) => return events,
            };
            let (watch, flags) = (event.wd(), event.events());
            let Some(folder) = self.folders.get(&watch) else {
                if flags.contains(ReadFlags::QUEUE_OVERFLOW) {
                    events.push(Event::Unknown);
                }
                continue;
            };
            let event = match event.file_name() {
                Some(name) if !flags.contains(ReadFlags::ISDIR) => {
                    let path = folder.join(OsStr::from_bytes(name.to_bytes()));
                    if flags.contains(ReadFlags::MODIFY) { Event::File(path) } else { Event::Name(path) }
                }
                _ => Event::Unknown,
            };
            if flags.contains(ReadFlags::IGNORED) {
                self.folders.remove(&watch);
            }
            // One write follows another.
            if events.last() != Some(&event) {
                events.push(event);
            }
        }
    }
}
