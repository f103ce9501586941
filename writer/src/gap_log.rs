//! Gaps in the log: a few lines, however many there are.

use crate::gaps::Gap;
use crate::names;
use metrics::counter;
use std::time::{Duration, Instant};

/// Gaps in the log: a few by themselves, then how many there are.
#[derive(Debug, Default)]
pub(crate) struct GapLog {
    since: Option<Instant>,
    lines: u32,
    untold: u64,
    untold_bytes: u64,
}

impl GapLog {
    /// So many gaps have a line each, in so much time.
    const LINES: u32 = 10;
    const TIME: Duration = Duration::from_secs(60);

    /// Counts and tells a gap in the content of this path.
    pub(crate) fn saw(&mut self, gap: &Gap, path: &str) {
        let Gap { root, span } = gap;
        let bytes = span.end - span.start;
        counter!(names::GAP_BYTES).increment(bytes);
        if self.since.is_none_or(|since| since.elapsed() >= Self::TIME) {
            self.tell_rest();
            (self.since, self.lines) = (Some(Instant::now()), 0);
        }
        if self.lines < Self::LINES {
            self.lines += 1;
            log::error!(
                "gap: bytes {}..{} ({bytes} bytes) of content {root} ({path}) were taken from the stream before they were delivered; \
                 take them from the source",
                span.start,
                span.end,
            );
        } else {
            self.untold += 1;
            self.untold_bytes += bytes;
        }
    }

    /// Tells what has not been told.
    pub(crate) fn tell_rest(&mut self) {
        if self.untold > 0 {
            let Self { untold, untold_bytes, .. } = self;
            log::error!("{untold} more gaps ({untold_bytes} bytes); `writer verify` names them all");
            (self.untold, self.untold_bytes) = (0, 0);
        }
    }
}
