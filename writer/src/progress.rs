//! The progress bar of `verify` and `merge`; shown only on a terminal.

use indicatif::{ProgressBar, ProgressStyle};

/// A bar on standard error for this many bytes; `what` is what happens to them.
pub(crate) fn progress(what: &str, bytes: u64) -> ProgressBar {
    let bar = ProgressBar::new(bytes);
    match ProgressStyle::with_template(&format!("{{bar:40}} {{bytes}} of {{total_bytes}} {what}, {{bytes_per_sec}}")) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
