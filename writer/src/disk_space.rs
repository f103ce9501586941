//! Metrics of the free space on the output's file system.

use crate::metric_names;
use metrics::gauge;
use std::path::Path;

/// Updates the gauges; they keep their values if the file system reports nothing.
pub(crate) fn measure(output: &Path) {
    let Ok(disk) = rustix::fs::statvfs(output) else { return };
    // `f_bavail` excludes the blocks reserved for root.
    gauge!(metric_names::OUTPUT_FREE).set(disk.f_bavail.saturating_mul(disk.f_frsize) as f64);
    gauge!(metric_names::OUTPUT_CAPACITY).set(disk.f_blocks.saturating_mul(disk.f_frsize) as f64);
}
