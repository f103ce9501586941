//! The progress bar of `--once` on a terminal.

use std::io::{IsTerminal as _, stderr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use indicatif::{HumanBytes, HumanCount, HumanDuration, ProgressBar, ProgressStyle};

use crate::advice::noun;
use crate::history::{History, Sample, rate, whole};

/// Time between two redraws.
pub(crate) const INTERVAL: Duration = Duration::from_millis(200);

/// The bar on the terminal. Log lines are printed above it.
static BAR: Mutex<Option<ProgressBar>> = Mutex::new(None);

fn bar() -> MutexGuard<'static, Option<ProgressBar>> {
    BAR.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Writes to standard error without garbling the bar.
pub(crate) fn aside<T>(write: impl FnOnce() -> T) -> T {
    match &*bar() {
        Some(bar) => bar.suspend(write),
        None => write(),
    }
}

/// The progress of the work.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Done {
    /// Bytes of the input: sent, and in total.
    Bytes { done: f64, of: f64 },
    /// Entries: processed, and the largest backlog seen.
    Entries { done: f64, of: f64 },
}

/// Shows a bar for the lifetime of this value.
#[derive(Debug)]
pub(crate) struct Progress;

impl Progress {
    /// Shows a bar if standard error is a terminal that supports it.
    pub(crate) fn on_terminal() -> Option<Self> {
        let dumb = std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
        if dumb || !stderr().is_terminal() {
            return None;
        }
        *bar() = Some(ProgressBar::new(0));
        Some(Self)
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        // The drawing task stops once the bar is removed.
        if let Some(bar) = bar().take() {
            bar.finish_and_clear();
        }
    }
}

/// Redraws the bar, and keeps what it needs between two redraws.
#[derive(Debug, Default)]
pub(crate) struct Drawing {
    first: Option<Sample>,
    /// The largest backlog seen.
    most: f64,
}

impl Drawing {
    /// Redraws the bar. Returns `false` once the bar is removed.
    pub(crate) fn draw(&mut self, history: &History) -> bool {
        let values = history.values();
        let sample = history.sample_of(&values);
        let since = *self.first.get_or_insert(sample);
        let done = self.done(&sample, history.position_of(&values));
        let bar = bar();
        let Some(bar) = &*bar else { return false };
        let (at, of, template) = match done {
            Done::Bytes { done, of } => (done, of, "{bar:20} {bytes} of {total_bytes}, {msg}, {eta} left"),
            Done::Entries { done, of } => (done, of, "{bar:14} {human_pos} of {human_len} entries, {msg}, {eta} left"),
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        if of <= 0.0 {
            // A bar of length 0 would look full.
            bar.set_style(ProgressStyle::with_template("{msg}").unwrap_or_else(|_| ProgressStyle::default_bar()));
        }
        bar.set_length(whole(of));
        bar.set_position(whole(at));
        bar.set_message(format!("{} lines/s", HumanCount(whole(rate(&since, &sample, |sample| sample.lines)))));
        true
    }

    fn done(&mut self, sample: &Sample, position: Option<(f64, f64)>) -> Done {
        self.most = self.most.max(sample.backlog);
        match position {
            Some((done, of)) => Done::Bytes { done, of },
            None if sample.backlog.is_nan() => Done::Entries { done: 0.0, of: 0.0 },
            None => Done::Entries { done: self.most - sample.backlog, of: self.most },
        }
    }
}

/// The final line: what was processed, and how fast.
pub(crate) fn total(sample: &Sample) -> String {
    let per_second = HumanCount(whole(rate(&Sample::default(), sample, |sample| sample.lines)));
    format!(
        "{} {} ({}) in {}, {per_second} lines/s",
        HumanCount(whole(sample.lines)),
        noun(whole(sample.lines), "line"),
        HumanBytes(whole(sample.bytes)),
        // Show fractions for short runs.
        if sample.at < 10.0 {
            format!("{:.1} s", sample.at)
        } else {
            HumanDuration(Duration::from_secs_f64(sample.at)).to_string()
        }
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_of_a_file_is_in_bytes_and_of_a_stream_in_entries() {
        let mut drawing = Drawing::default();
        let waiting = |backlog| Sample { backlog, ..Sample::default() };
        assert_eq!(drawing.done(&waiting(7.0), Some((3.0, 10.0))), Done::Bytes { done: 3.0, of: 10.0 });
        let mut drawing = Drawing::default();
        assert_eq!(drawing.done(&waiting(0.0), None), Done::Entries { done: 0.0, of: 0.0 });
        assert_eq!(drawing.done(&waiting(100.0), None), Done::Entries { done: 0.0, of: 100.0 });
        assert_eq!(drawing.done(&waiting(30.0), None), Done::Entries { done: 70.0, of: 100.0 });
    }

    #[test]
    fn the_total_has_lines_bytes_time_and_rate() {
        let sample = Sample { at: 2.0, lines: 5000.0, bytes: 2048.0, ..Sample::default() };
        assert_eq!(total(&sample), "5,000 lines (2.00 KiB) in 2.0 s, 2,500 lines/s");
    }
}
