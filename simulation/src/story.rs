//! What happened, in words: one line per event, written only when somebody wants to read it.

use std::cell::RefCell;
use std::fmt::Display;
use std::rc::Rc;

/// The story of one seed. Clones write to the same story.
#[derive(Debug, Clone, Default)]
pub struct Story {
    lines: Option<Rc<RefCell<Vec<String>>>>,
}

impl Story {
    /// A story that is not written down, as in a run of many seeds.
    #[must_use]
    pub const fn untold() -> Self {
        Self { lines: None }
    }

    /// A story that is kept.
    #[must_use]
    pub fn told() -> Self {
        Self { lines: Some(Rc::default()) }
    }

    /// Adds a line. The text is only made when the story is kept.
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

/// Bytes as a reader of the story wants to see them: the beginning, escaped.
#[must_use]
pub fn excerpt(bytes: &[u8]) -> String {
    const SHOWN: usize = 48;
    let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(SHOWN)]).escape_debug().to_string();
    if bytes.len() > SHOWN { format!("\"{shown}\"… ({} bytes)", bytes.len()) } else { format!("\"{shown}\"") }
}
