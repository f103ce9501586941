//! Bounds how many outputs are open: each has two files.
//!
//! When all places are taken, the output that had nothing to do for longest is closed for one that
//! has.

use super::connections::Waiting;
use super::source::Sources;
use rustix::process::{Resource, getrlimit};
use std::cell::Cell;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Files that are no outputs: connections, the HTTP endpoint, folders that are listed or synced.
const OTHER_FILES: u64 = 160;
/// More open outputs than this are of no use.
const MOST: u64 = 4096;

/// The places for open outputs.
#[derive(Debug)]
pub(crate) struct Slots {
    places: Arc<Semaphore>,
    waiting: Cell<usize>,
}

impl Slots {
    /// As many as the limit of open files allows.
    pub(crate) fn new() -> Self {
        let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let places = (files.saturating_sub(OTHER_FILES) / 2).clamp(4, MOST);
        Self { places: Arc::new(Semaphore::new(usize::try_from(places).unwrap_or(4))), waiting: Cell::new(0) }
    }

    /// Whether an output waits for a place.
    pub(crate) fn are_short(&self) -> bool {
        self.waiting.get() > 0
    }

    /// Takes a place, if need be that of the one of `sources` that is idle for longest.
    pub(crate) async fn take(&self, sources: &Sources) -> Option<OwnedSemaphorePermit> {
        if let Ok(place) = Arc::clone(&self.places).try_acquire_owned() {
            return Some(place);
        }
        let _waiting = Waiting::new(&self.waiting);
        let idle = sources.all().filter_map(|source| Some((source.idle_since()?, source)));
        if let Some((_, idle)) = idle.min_by_key(|(since, _)| *since) {
            idle.close();
        }
        Arc::clone(&self.places).acquire_owned().await.ok()
    }
}
