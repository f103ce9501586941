//! The fields of an entry and the byte range that it covers.

use memchr::memchr_iter;
use std::ops::Range;

/// A byte range of a content: `start..end`, offsets in bytes.
pub type Span = Range<u64>;

/// The longest line that travels as one entry, in bytes, newline not counted: 64 MiB. Longer lines
/// go in pieces.
pub const MAX_LINE: usize = 64 << 20;

/// The second field of an entry that does not begin where the previous entry of its stream ended:
/// the offset up to which this stream had its bytes, as a decimal number. What lies between belongs
/// to other [partitions](crate::partition). Where entries adjoin, there is no such field.
pub const AFTER: &[u8] = b"after";

/// The offset that a field [`AFTER`] holds; `None` when it holds something else.
#[must_use]
pub fn after(value: &[u8]) -> Option<u64> {
    std::str::from_utf8(value).ok()?.parse().ok()
}

/// What an entry's first field holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Field {
    /// One whole line, without its newline.
    Line,
    /// Many whole lines, newlines included.
    Lines,
    /// The first piece of a line that is not whole: longer than [`MAX_LINE`], or the last one
    /// without newline.
    Part,
    /// A further piece of a line that a `Part` began, its newline included when it has one.
    Rest,
}

impl Field {
    /// The field's name on the wire.
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

    /// How many bytes of the source a payload of `len` bytes stands for.
    #[must_use]
    pub const fn covered(self, len: usize) -> u64 {
        match self {
            Self::Line => (len as u64).saturating_add(1),
            Self::Lines | Self::Part | Self::Rest => len as u64,
        }
    }

    /// How many lines a payload counts for. A line counts where it begins, so that pieces add up.
    #[must_use]
    pub fn lines(self, payload: &[u8]) -> u64 {
        match self {
            Self::Line | Self::Part => 1,
            Self::Lines => memchr_iter(b'\n', payload).count() as u64,
            Self::Rest => 0,
        }
    }

    /// The newline that follows the payload in the source but is not in it.
    #[must_use]
    pub const fn suffix(self) -> &'static [u8] {
        match self {
            Self::Line => b"\n",
            Self::Lines | Self::Part | Self::Rest => b"",
        }
    }
}

/// One of our entries: a field, its payload, and the range it covers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece<'a> {
    /// What the payload is.
    pub field: Field,
    /// The bytes on the wire.
    pub payload: &'a [u8],
    /// The bytes of the source that it stands for.
    pub span: Span,
}

impl<'a> Piece<'a> {
    /// The piece that an entry with position `end` and this one field is; `None` when it cannot be
    /// one of ours (unknown field, or more payload than there are bytes before `end`).
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

    /// Appends the source bytes from offset `from` on (an offset within the span) to `out`.
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
    fn an_overlap_is_trimmed_to_its_new_bytes() {
        let piece = Piece::new(b"line", b"abc", 10).unwrap();
        for (from, expected) in [(7, &b"bc\n"[..]), (9, b"\n"), (10, b"")] {
            let mut out = Vec::new();
            piece.append_from(from, &mut out);
            assert_eq!(out, expected, "from {from}");
        }
    }

    #[test]
    fn what_cannot_be_a_range_is_none_of_ours() {
        assert_eq!(Piece::new(b"line", b"abc", 3), None, "longer than the bytes before its end");
        assert_eq!(Piece::new(b"rest", b"", 3), None, "covers nothing");
        assert_eq!(Piece::new(b"message", b"abc", 30), None, "unknown field");
    }

    #[test]
    fn lines_count_where_they_begin() {
        assert_eq!(Field::Lines.lines(b"a\nb\n"), 2);
        assert_eq!(Field::Part.lines(b"a") + Field::Rest.lines(b"b\n"), 1);
    }
}
