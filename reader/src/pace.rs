//! A line in the log now and then, as long as data flows.

use std::time::{Duration, Instant};

use log::info;

use crate::batch::Batch;

/// How often it is told at most.
const EVERY: Duration = Duration::from_secs(10);

/// What was added since it was last told.
#[derive(Debug)]
pub(crate) struct Pace {
    since: Instant,
    lines: u64,
    bytes: u64,
}

impl Pace {
    /// Nothing yet.
    pub(crate) fn new() -> Self {
        Self { since: Instant::now(), lines: 0, bytes: 0 }
    }

    /// Adds a confirmed batch, and tells what there is when it is time.
    pub(crate) fn add(&mut self, stream: &str, batch: &Batch) {
        self.lines += batch.lines;
        self.bytes += batch.bytes;
        if self.since.elapsed() >= EVERY {
            let (lines, bytes) = (self.lines, self.bytes);
            info!("stream {stream}: {lines} lines ({bytes} bytes) more, up to {}", batch.end.id());
            *self = Self::new();
        }
    }
}
