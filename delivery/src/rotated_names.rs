//! The names of rotated files: which names belong to an input, and their order.
//!
//! This module looks at names only; its caller [`crate::files`] also compares contents.

/// The kind of a file name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NameKind {
    /// The name of the input.
    Input,
    /// A name that log rotation gives to the input.
    Rotated(RotationOrder),
    /// A compressed input (`None`), or a compressed rotated file.
    Compressed(Option<RotationOrder>),
    /// A name that editors give to a backup copy.
    Backup,
    /// The file is still open, but has no name any more.
    Unlinked,
    /// Any other name.
    Other,
}

impl NameKind {
    /// Whether the name alone says that the file may have been the input.
    #[must_use]
    pub const fn is_rotated(&self) -> bool {
        matches!(self, Self::Rotated(_) | Self::Compressed(_))
    }
}

/// The position of a rotated name in the order of rotations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RotationOrder {
    /// The number in the name: larger is older.
    Index(u32),
    /// The digits of the date or time in the name: larger is newer.
    Date(String),
}

/// The extensions of compressed files that can be decompressed.
pub const COMPRESSED: [&str; 2] = [".gz", ".zst"];

/// Classifies the name of a file beside an input with the name `input`.
///
/// Rotation gives a file the full name of the input and a separator and a number of at most three
/// digits, a date or a Unix time (`input.txt.1`, `input.txt-20261123`), or puts them before its
/// extension (`input.1.txt`, `input-2026-11-23.txt`; a number there needs a dot). multilog, s6-log
/// and svlogd give a file `current` the time as its name (`@400000006a3c2b1f0a1b2c3d.s`).
///
/// ```
/// use delivery::rotated_names::{NameKind, RotationOrder, classify};
/// let index = |number| RotationOrder::Index(number);
/// assert_eq!(classify("app.log.2", "app.log"), NameKind::Rotated(index(2)));
/// assert_eq!(classify("app.log.1.gz", "app.log"), NameKind::Compressed(Some(index(1))));
/// let date = RotationOrder::Date("20261123".into());
/// assert_eq!(classify("app-2026-11-23.log", "app.log"), NameKind::Rotated(date));
/// let milliseconds = RotationOrder::Date("1796067570535".into());
/// assert_eq!(classify("app.log.1796067570535", "app.log"), NameKind::Rotated(milliseconds));
/// let label = "400000006a3c2b1f0a1b2c3d";
/// let tai64n = RotationOrder::Date(label.into());
/// assert_eq!(classify(&format!("@{label}.s"), "current"), NameKind::Rotated(tai64n));
/// assert_eq!(classify("app-2.log", "app.log"), NameKind::Other);
/// ```
#[must_use]
pub fn classify(name: &str, input: &str) -> NameKind {
    if let Some(rest) = name.strip_prefix(input)
        && ["~", ".bak", ".orig", ".save"].contains(&rest)
    {
        return NameKind::Backup;
    }
    let unpacked = COMPRESSED.iter().find_map(|ending| name.strip_suffix(ending));
    match unpacked {
        Some(name) if name == input => NameKind::Compressed(None),
        Some(name) if order(name, input).is_some() => NameKind::Compressed(order(name, input)),
        _ => order(name, input).map_or(NameKind::Other, NameKind::Rotated),
    }
}

fn order(name: &str, input: &str) -> Option<RotationOrder> {
    let behind = || {
        let tag = name.strip_prefix(input)?.strip_prefix(['.', '-', '_'])?;
        index(tag).or_else(|| date(tag))
    };
    let inside = || {
        let (stem, extension) = input.rfind('.').filter(|&dot| dot > 0).map(|dot| input.split_at(dot))?;
        let tag = name.strip_prefix(stem)?.strip_suffix(extension)?;
        tag.strip_prefix('.').and_then(index).or_else(|| tag.strip_prefix(['.', '-', '_']).and_then(date))
    };
    behind().or_else(inside).or_else(|| tai64n(name, input))
}

/// The beginning that the names of an input's rotated files have in common.
#[must_use]
pub fn prefix(input: &str) -> &str {
    if input == TAI64N_INPUT {
        return "@";
    }
    input.rfind('.').filter(|&dot| dot > 0).and_then(|dot| input.get(..dot)).unwrap_or(input)
}

/// The input whose rotated files have a TAI64N label as their name.
pub(crate) const TAI64N_INPUT: &str = "current";

fn tai64n(name: &str, input: &str) -> Option<RotationOrder> {
    let (label, ending) = name.strip_prefix('@').filter(|_| input == TAI64N_INPUT)?.split_at_checked(24)?;
    let is_label = label.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    (is_label && ["", ".s", ".u"].contains(&ending)).then(|| RotationOrder::Date(label.to_owned()))
}

fn index(tag: &str) -> Option<RotationOrder> {
    let digits = (1..=3).contains(&tag.len()) && tag.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| tag.parse().ok()).flatten().map(RotationOrder::Index)
}

/// A date, optionally followed by a time and a number; or seconds since the epoch, or fractions of
/// one.
fn date(tag: &str) -> Option<RotationOrder> {
    if !tag.bytes().all(|b| b.is_ascii_digit() || b"-_.:TZ+".contains(&b)) {
        return None;
    }
    let digits: String = tag.chars().filter(char::is_ascii_digit).collect();
    let number = |range: std::ops::Range<usize>| digits.get(range).and_then(|d| d.parse::<u32>().ok());
    let is_date = matches!((number(0..4), number(4..6), number(6..8)), (Some(1970..=2199), Some(1..=12), Some(1..=31)))
        && digits.len() <= 23;
    // Seconds, milliseconds, microseconds or nanoseconds.
    let is_epoch = digits == tag && matches!(digits.len(), 10 | 13 | 16 | 19) && digits.starts_with('1');
    (is_date || is_epoch).then_some(RotationOrder::Date(digits))
}
