//! The fields of an entry, and the byte range that it covers.
//!
//! The reader encodes entries with these types, and the writer and `verify` decode them.

use memchr::memchr_iter;
use std::ops::Range;

/// A byte range of a content: `start..end`, in bytes.
pub type Span = Range<u64>;

/// The number of bytes in a range; 0 for one that ends before it starts.
#[must_use]
pub const fn span_len(span: &Span) -> u64 {
    span.end.saturating_sub(span.start)
}

/// The longest line sent as one entry, in bytes without its newline: 64 MiB. Longer lines are
/// split.
pub const MAX_LINE: usize = 64 << 20;

/// The name of the second field of an entry that does not begin where the previous entry of its
/// stream ended. Its value is that end, as a decimal number. The bytes between belong to other
/// [partitions](crate::partition). Adjacent entries have no such field.
pub const AFTER: &[u8] = b"after";

/// Parses the value of a field [`AFTER`]; `None` if it is not a number.
#[must_use]
pub fn after(value: &[u8]) -> Option<u64> {
    std::str::from_utf8(value).ok()?.parse().ok()
}

/// The fields of an entry behind its first one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Further<'a> {
    /// Only fields for other consumers.
    Added,
    /// The value of [`AFTER`], and maybe fields for other consumers.
    After(&'a [u8]),
    /// No reader writes such an entry.
    Foreign,
}

impl<'a> Further<'a> {
    /// Judges the `second` field of an entry and the `rest`.
    pub fn new(second: (&[u8], &'a [u8]), mut rest: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Self {
        match (second, rest.any(|(name, _)| is_reserved(name))) {
            (_, true) => Self::Foreign,
            ((AFTER, after), false) => Self::After(after),
            ((name, _), false) if is_reserved(name) => Self::Foreign,
            _ => Self::Added,
        }
    }
}

/// Whether the protocol reserves this field name, so that `--add-field` may not use it.
#[must_use]
pub fn is_reserved(name: &[u8]) -> bool {
    name == AFTER || Field::from_name(name).is_some()
}

/// The kind of an entry's payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Field {
    /// One complete line, without its newline.
    Line,
    /// Several complete lines, with their newlines.
    Lines,
    /// The first piece of a line that is not sent whole: longer than [`MAX_LINE`], or last and
    /// without a newline.
    Part,
    /// A further piece of a line that began with a `Part`. It includes the newline, if the line has
    /// one.
    Rest,
}

impl Field {
    /// The name of the field in the entry.
    #[must_use]
    pub const fn name(self) -> &'static [u8] {
        match self {
            Self::Line => b"line",
            Self::Lines => b"lines",
            Self::Part => b"part",
            Self::Rest => b"rest",
        }
    }

    /// The field with this name; `None` for a foreign name.
    ///
    /// ```
    /// use delivery::entry::Field;
    /// assert_eq!(Field::from_name(b"line"), Some(Field::Line));
    /// assert_eq!(Field::from_name(b"payload"), None);
    /// ```
    #[must_use]
    pub fn from_name(name: &[u8]) -> Option<Self> {
        match name {
            b"line" => Some(Self::Line),
            b"lines" => Some(Self::Lines),
            b"part" => Some(Self::Part),
            b"rest" => Some(Self::Rest),
            _ => None,
        }
    }

    /// The number of source bytes that a payload of `len` bytes covers.
    #[must_use]
    pub const fn covered(self, len: usize) -> u64 {
        match self {
            Self::Line => (len as u64).saturating_add(1),
            Self::Lines | Self::Part | Self::Rest => len as u64,
        }
    }

    /// The number of lines in a payload. A line counts in the piece that contains its beginning.
    #[must_use]
    pub fn lines(self, payload: &[u8]) -> u64 {
        match self {
            Self::Line | Self::Part => 1,
            Self::Lines => memchr_iter(b'\n', payload).count() as u64,
            Self::Rest => 0,
        }
    }

    /// The newline that follows the payload in the source and is not part of it.
    #[must_use]
    pub const fn suffix(self) -> &'static [u8] {
        match self {
            Self::Line => b"\n",
            Self::Lines | Self::Part | Self::Rest => b"",
        }
    }
}

/// A decoded entry: its field, its payload, and the range that it covers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece<'a> {
    /// The kind of the payload.
    pub field: Field,
    /// The payload.
    pub payload: &'a [u8],
    /// The source bytes that it covers.
    pub span: Span,
}

impl<'a> Piece<'a> {
    /// Decodes an entry that ends at offset `end`. Returns `None` if no reader can have written it:
    /// the field is unknown, or the payload is longer than the bytes before `end`.
    #[must_use]
    pub fn new(field: &[u8], payload: &'a [u8], end: u64) -> Option<Self> {
        let field = Field::from_name(field)?;
        let covered = field.covered(payload.len());
        let start = end.checked_sub(covered)?;
        if covered == 0 {
            return None;
        }
        Some(Self { field, payload, span: start..end })
    }

    /// Appends the source bytes from offset `from` on, an offset within the span, to `out`.
    pub fn append_from(&self, from: u64, out: &mut Vec<u8>) {
        let skip = usize::try_from(from.saturating_sub(self.span.start)).unwrap_or(usize::MAX);
        out.extend_from_slice(self.payload.get(skip..).unwrap_or_default());
        let suffix = self.field.suffix();
        out.extend_from_slice(suffix.get(skip.saturating_sub(self.payload.len())..).unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_covers_its_newline() {
        let piece = Piece::new(b"line", b"abc", 10).unwrap();
        assert_eq!(piece.span, 6..10);
        let mut out = Vec::new();
        piece.append_from(6, &mut out);
        assert_eq!(out, b"abc\n");
    }

    #[test]
    fn append_from_skips_overlapping_bytes() {
        let piece = Piece::new(b"line", b"abc", 10).unwrap();
        for (from, expected) in [(7, &b"bc\n"[..]), (9, b"\n"), (10, b"")] {
            let mut out = Vec::new();
            piece.append_from(from, &mut out);
            assert_eq!(out, expected, "from {from}");
        }
    }

    #[test]
    fn impossible_entries_are_foreign() {
        assert_eq!(Piece::new(b"line", b"abc", 3), None, "longer than the bytes before its end");
        assert_eq!(Piece::new(b"rest", b"", 3), None, "covers nothing");
        assert_eq!(Piece::new(b"message", b"abc", 30), None, "unknown field");
    }

    #[test]
    fn fields_for_other_consumers_are_ignored_and_those_of_the_protocol_are_not() {
        let further = |fields: &[&'static [u8]]| {
            let mut fields = fields.iter().map(|&name| (name, &b"7"[..]));
            Further::new(fields.next().unwrap(), fields)
        };
        assert_eq!(further(&[b"host"]), Further::Added);
        assert_eq!(further(&[b"host", b"file"]), Further::Added);
        assert_eq!(further(&[b"after"]), Further::After(b"7"));
        assert_eq!(further(&[b"after", b"host", b"file"]), Further::After(b"7"));
        for foreign in
            [&[&b"line"[..]][..], &[b"rest"], &[b"host", b"after"], &[b"after", b"after"], &[b"host", b"part"]]
        {
            assert_eq!(further(foreign), Further::Foreign, "{foreign:?}");
        }
    }

    #[test]
    fn lines_count_in_the_piece_where_they_begin() {
        assert_eq!(Field::Lines.lines(b"a\nb\n"), 2);
        assert_eq!(Field::Part.lines(b"a") + Field::Rest.lines(b"b\n"), 1);
    }
}
