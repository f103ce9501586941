//! How much room the output's file system has.

use crate::metric_names;
use metrics::gauge;
use std::path::Path;

/// Measures it. A file system that does not tell keeps the numbers it had.
pub(crate) fn measure(output: &Path) {
    let Ok(told) = rustix::fs::statvfs(output) else { return };
    // What is kept back for root is not for the writer.
    gauge!(metric_names::OUTPUT_FREE).set((told.f_bavail * told.f_frsize) as f64);
    gauge!(metric_names::OUTPUT_CAPACITY).set((told.f_blocks * told.f_frsize) as f64);
}
