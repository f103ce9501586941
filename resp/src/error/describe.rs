//! Descriptions of values without their contents, for errors about replies of the wrong type.

use std::fmt::{self, Write as _};

use crate::{Value, ValueKind};

/// How many characters an integer may have that an error shows. A longer one may be a password.
const MAX_DIGITS: usize = 5;

/// How long a description may be, in characters.
const MAX_DESCRIPTION: usize = 120;

/// Returns the kinds and lengths of a value and its children, and small integers.
pub(super) fn description(value: Value<'_>) -> String {
    let mut shown = Beginning { text: String::new(), room: MAX_DESCRIPTION };
    if describe(value, &mut shown).is_err() {
        shown.text.push('…');
    }
    shown.text
}

fn describe(value: Value<'_>, out: &mut Beginning) -> fmt::Result {
    let kind = value.kind();
    let text = value.as_bytes().unwrap_or_default();
    match kind {
        ValueKind::SimpleString if matches!(text, b"OK" | b"QUEUED" | b"PONG") => write!(out, "{kind} {value:?}"),
        ValueKind::SimpleString | ValueKind::BulkString | ValueKind::VerbatimString | ValueKind::StreamedString => {
            let s = if text.len() == 1 { "" } else { "s" };
            let is_text = std::str::from_utf8(text).is_ok();
            write!(out, "{kind} of {} byte{s}{}", text.len(), if is_text { "" } else { " that is not UTF-8" })
        }
        ValueKind::Integer if text.len() <= MAX_DIGITS => write!(out, "{kind} {value:?}"),
        ValueKind::Integer | ValueKind::BigNumber => write!(out, "{kind} of {} digits", text.len()),
        ValueKind::Boolean => write!(out, "{kind} {value:?}"),
        ValueKind::Map | ValueKind::Attribute => {
            write!(out, "{kind} {{")?;
            for (nth, (key, value)) in value.pairs().enumerate() {
                out.write_str(if nth == 0 { "" } else { ", " })?;
                describe(key, out)?;
                out.write_str(": ")?;
                describe(value, out)?;
            }
            out.write_str("}")
        }
        ValueKind::Array | ValueKind::Set | ValueKind::Push => {
            write!(out, "{kind} [")?;
            for (nth, element) in value.children().enumerate() {
                out.write_str(if nth == 0 { "" } else { ", " })?;
                describe(element, out)?;
            }
            out.write_str("]")
        }
        ValueKind::Null | ValueKind::Double | ValueKind::SimpleError | ValueKind::BulkError => write!(out, "{kind}"),
    }
}

/// Keeps the beginning of a text, so that the message for a large reply is short.
struct Beginning {
    text: String,
    /// How many characters may follow.
    room: usize,
}

impl fmt::Write for Beginning {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            self.room = self.room.checked_sub(1).ok_or(fmt::Error)?;
            self.text.push(c);
        }
        Ok(())
    }
}
