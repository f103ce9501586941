//! Splits the bytes of a file into entries.
//!
//! The splitter gets the bytes from an offset on, as far as they were read, and returns the next
//! piece. Its only state besides the offset is whether it is inside a line. It never copies. The
//! [line reader](crate::line_reader) owns it.

use crate::entry::{Field, MAX_LINE, Piece};
use memchr::{memchr, memrchr};

/// How lines become entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Framing {
    /// One entry per line.
    Line,
    /// Several complete lines per entry, about [`CHUNK`] bytes.
    Chunk,
}

/// The target size of a chunk in bytes: 64 KiB. A longer line makes a larger chunk.
pub const CHUNK: usize = 64 << 10;

/// Whether bytes follow the given ones, as far as known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Availability {
    /// More bytes can be read: an entry may wait until it is full.
    More,
    /// None for now: complete lines are sent at once, an unfinished line waits for its newline.
    NoneYet,
    /// No further bytes will be read: everything is sent, including an unfinished line.
    End,
}

/// The size of each further piece of an over-long line, in bytes: 1 MiB.
pub const REST: usize = 1 << 20;

/// Cuts bytes into pieces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Splitter {
    framing: Framing,
    offset: u64,
    inside_line: bool,
    max_line: usize,
    /// The number of bytes after the offset that are known to contain no newline, so that a long
    /// line is searched only once.
    searched: usize,
}

impl Splitter {
    /// A splitter that starts at `offset`. `inside_line`: a byte before the offset exists and is
    /// not a newline.
    #[must_use]
    pub const fn new(framing: Framing, offset: u64, inside_line: bool) -> Self {
        Self { framing, offset, inside_line, max_line: MAX_LINE, searched: 0 }
    }

    /// Sets the maximum length of a line that is sent as one entry, at least 1; for tests.
    #[must_use]
    pub const fn with_max_line(mut self, bytes: usize) -> Self {
        self.max_line = if bytes == 0 { 1 } else { bytes };
        self
    }

    /// The offset of the next piece.
    #[must_use]
    pub const fn offset(&self) -> u64 {
        self.offset
    }

    /// Returns the next piece of `bytes`, which begin at [`offset`](Self::offset). Returns `None`
    /// if that needs more bytes.
    pub fn next<'a>(&mut self, bytes: &'a [u8], available: Availability) -> Option<Piece<'a>> {
        let (field, payload_len) = self.name(bytes, available)?;
        let payload = &bytes[..payload_len];
        let start = self.offset;
        self.offset += field.covered(payload_len);
        self.searched = 0;
        self.inside_line = match field {
            Field::Line | Field::Lines => false,
            Field::Part => true,
            Field::Rest => payload.last() != Some(&b'\n'),
        };
        Some(Piece { field, payload, span: start..self.offset })
    }

    /// The field of the next piece, and the length of its payload.
    fn name(&mut self, bytes: &[u8], available: Availability) -> Option<(Field, usize)> {
        if bytes.is_empty() {
            return None;
        }
        if self.framing == Framing::Chunk && !self.inside_line {
            let head = &bytes[..bytes.len().min(CHUNK)];
            if let Some(at) = memrchr(b'\n', head) {
                // A chunk that can still grow waits for more bytes.
                let full = bytes.len() >= CHUNK || available != Availability::More;
                return full.then_some((Field::Lines, at + 1));
            }
        }
        let (cut, longest) =
            if self.inside_line { (Field::Rest, self.max_line.min(REST)) } else { (Field::Part, self.max_line) };
        let head = &bytes[..bytes.len().min(longest + 1)];
        let found = memchr(b'\n', head.get(self.searched..).unwrap_or_default()).map(|at| at + self.searched);
        match found {
            Some(at) if self.inside_line => Some((Field::Rest, at + 1)),
            Some(at) if self.framing == Framing::Chunk => Some((Field::Lines, at + 1)),
            Some(at) => Some((Field::Line, at)),
            None if bytes.len() > longest => Some((cut, longest)),
            None if available == Availability::End => Some((cut, bytes.len())),
            None => {
                self.searched = head.len();
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn owned(field: Field, payload: &[u8]) -> (Field, Vec<u8>) {
        (field, payload.to_vec())
    }

    /// Splits `text` as a reader does, while the visible part of it grows to each of `cuts`.
    fn split(framing: Framing, max_line: usize, text: &[u8], cuts: &[usize]) -> Vec<(Field, Vec<u8>)> {
        let mut splitter = Splitter::new(framing, 0, false).with_max_line(max_line);
        let mut pieces = Vec::new();
        let mut visible: Vec<usize> = cuts.iter().map(|c| c % (text.len() + 1)).collect();
        visible.sort_unstable();
        visible.push(text.len());
        for (index, &end) in visible.iter().enumerate() {
            let available = match (index + 1 == visible.len(), index % 2) {
                (true, _) => Availability::End,
                (false, 0) => Availability::NoneYet,
                (false, _) => Availability::More,
            };
            while let Some(piece) = splitter.next(&text[splitter.offset() as usize..end], available) {
                pieces.push(owned(piece.field, piece.payload));
            }
        }
        pieces
    }

    #[test]
    fn long_and_unfinished_lines_are_split_into_parts_and_rests() {
        use Field::{Line, Part, Rest};
        let pieces = split(Framing::Line, 4, b"ab\n\ncdefgh\nxyz", &[]);
        let expected =
            [owned(Line, b"ab"), owned(Line, b""), owned(Part, b"cdef"), owned(Rest, b"gh\n"), owned(Part, b"xyz")];
        assert_eq!(pieces, expected);
    }

    #[test]
    fn a_line_of_exactly_the_limit_is_whole() {
        assert_eq!(split(Framing::Line, 4, b"abcd\n", &[]), [owned(Field::Line, b"abcd")]);
    }

    #[test]
    fn an_unfinished_line_that_grows_continues_as_rest() {
        let mut splitter = Splitter::new(Framing::Line, 0, false);
        assert_eq!(splitter.next(b"abc", Availability::End).unwrap().field, Field::Part);
        let rest = splitter.next(b"def\nghi\n", Availability::NoneYet).unwrap();
        assert_eq!((rest.field, rest.payload, rest.span), (Field::Rest, &b"def\n"[..], 3..7));
        assert_eq!(splitter.next(b"ghi\n", Availability::NoneYet).unwrap().field, Field::Line);
    }

    #[test]
    fn chunks_hold_whole_lines() {
        let text = b"0123456789\n".repeat(10_000);
        let pieces = split(Framing::Chunk, MAX_LINE, &text, &[]);
        assert_eq!(pieces.len(), 2);
        assert!(pieces.iter().all(|(field, payload)| *field == Field::Lines && payload.ends_with(b"\n")));
    }

    proptest! {
        /// However the bytes become visible, the pieces cover them exactly once and in order, and
        /// decode to the original text.
        #[test]
        fn pieces_add_up(
            text in prop::collection::vec(prop_oneof![3 => any::<u8>(), 1 => Just(b'\n')], 0..400),
            cuts in prop::collection::vec(any::<usize>(), 0..5),
            max_line in 1usize..40,
            chunk in any::<bool>(),
        ) {
            let framing = if chunk { Framing::Chunk } else { Framing::Line };
            let pieces = split(framing, max_line, &text, &cuts);
            let mut out = Vec::new();
            let mut lines = 0;
            for (field, payload) in &pieces {
                let begins_line = out.last().is_none_or(|&b| b == b'\n');
                prop_assert_eq!(begins_line, *field != Field::Rest);
                let end = out.len() as u64 + field.covered(payload.len());
                let piece = Piece::new(field.name(), payload, end).unwrap();
                prop_assert_eq!(piece.span.start, out.len() as u64);
                lines += field.lines(payload);
                piece.append_from(piece.span.start, &mut out);
            }
            prop_assert_eq!(&out, &text);
            let expected = text.split_inclusive(|&b| b == b'\n').count() as u64;
            prop_assert_eq!(lines, expected);
        }
    }
}
