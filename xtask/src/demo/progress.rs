//! The progress: a bar on a terminal, plain lines elsewhere.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::numbers::{grouped, rate};
use super::scrape::{Endpoint, value};

/// The pause between two plain lines.
const PLAIN: Duration = Duration::from_secs(1);

/// The figures that the services report.
#[derive(Default)]
pub(super) struct Seen {
    /// Bytes in the output.
    pub(super) bytes: u64,
    lines_read: u64,
    lines_written: u64,
    backlog: u64,
}

impl Seen {
    /// Reads the metrics of both services. Keeps the old figures of a service that does not answer.
    pub(super) fn read(&mut self, reader: &Endpoint, writer: &Endpoint) {
        if let Some(read) = reader.metrics().and_then(|text| count(&text, "lines_read_total")) {
            self.lines_read = read;
        }
        if let Some(text) = writer.metrics() {
            self.lines_written = count(&text, "lines_written_total").unwrap_or(self.lines_written);
            self.backlog = count(&text, "line_stream_backlog_entries").unwrap_or(self.backlog);
        }
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counts are whole and not negative")]
fn count(metrics: &str, name: &str) -> Option<u64> {
    value(metrics, name).filter(|value| *value >= 0.0).map(|value| value as u64)
}

/// The live display.
pub(super) struct Progress {
    bar: ProgressBar,
    begun: Instant,
    total: u64,
    shown: Instant,
}

impl Progress {
    pub(super) fn new(total: u64) -> Self {
        let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stdout_with_hz(10));
        if let Ok(style) = ProgressStyle::with_template("{wide_bar} {percent:>3} %  {bytes} of {total_bytes}  {msg}") {
            bar.set_style(style);
        }
        Self { bar, begun: Instant::now(), total, shown: Instant::now() }
    }

    pub(super) fn show(&mut self, seen: &Seen) {
        let lines_rate = grouped(rate(seen.lines_written, self.begun.elapsed()));
        let backlog = grouped(seen.backlog);
        if !self.bar.is_hidden() {
            self.bar.set_position(seen.bytes);
            self.bar.set_message(format!("{lines_rate} lines/s  backlog {backlog}"));
        } else if self.shown.elapsed() >= PLAIN {
            self.shown = Instant::now();
            println!(
                "{:>3} %  {} lines read  {} lines written  {lines_rate} lines/s  backlog {backlog}",
                seen.bytes * 100 / self.total.max(1),
                grouped(seen.lines_read),
                grouped(seen.lines_written),
            );
        }
    }

    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
