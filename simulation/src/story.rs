//! The log of events of one seed: one line per event, formatted only if it is needed.

use std::cell::RefCell;
use std::fmt::Display;
use std::rc::Rc;

/// The log of one seed. Clones write to the same log.
#[derive(Debug, Clone, Default)]
pub struct Story {
    lines: Option<Rc<RefCell<Vec<String>>>>,
}

impl Story {
    /// A log that discards all events, for runs of many seeds.
    #[must_use]
    pub const fn untold() -> Self {
        Self { lines: None }
    }

    /// A log that keeps all events.
    #[must_use]
    pub fn told() -> Self {
        Self { lines: Some(Rc::default()) }
    }

    /// Adds a line. `line` is called only if the log is kept.
    pub fn tell<T: Display>(&self, line: impl FnOnce() -> T) {
        if let Some(lines) = &self.lines {
            lines.borrow_mut().push(line().to_string());
        }
    }

    /// The lines so far.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        self.lines.as_ref().map(|lines| lines.borrow().clone()).unwrap_or_default()
    }
}

/// The beginning of the bytes, escaped.
#[must_use]
pub fn excerpt(bytes: &[u8]) -> String {
    const SHOWN: usize = 48;
    let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(SHOWN)]).escape_debug().to_string();
    if bytes.len() > SHOWN { format!("\"{shown}\"… ({} bytes)", bytes.len()) } else { format!("\"{shown}\"") }
}
