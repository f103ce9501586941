//! The line reader: splits a file into the pieces that one partition sends, and tracks its
//! position.
//!
//! The reader's driver opens one per content, and the simulation uses the same code.

use crate::entry::{MAX_LINE, Piece, Span};
use crate::partition::Partition;
use crate::read_buffer::{BLOCK, ReadBuffer};
use crate::source_file::SourceFile;
use crate::split::{Availability, Framing, Splitter};
use memchr::memchr;
use std::io;

/// How a file is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadOptions {
    /// How lines become entries.
    pub framing: Framing,
    /// The partition whose lines are returned.
    pub partition: Partition,
    /// The longest line sent as one entry, in bytes.
    pub max_line: usize,
    /// The size of a read.
    pub block: usize,
}

impl ReadOptions {
    /// The options used in production.
    #[must_use]
    pub const fn new(framing: Framing, partition: Partition) -> Self {
        Self { framing, partition, max_line: MAX_LINE, block: BLOCK }
    }

    const fn splitter(&self, offset: u64, inside_line: bool) -> Splitter {
        Splitter::new(self.framing, offset, inside_line).with_max_line(self.max_line)
    }
}

/// An open file and the position in it.
///
/// The read buffer advances through the file in order, and skips blocks of other partitions without
/// reading them. All lines of this partition that begin before the buffer have been returned.
#[derive(Debug)]
pub struct LineReader<F> {
    file: F,
    buffer: ReadBuffer,
    splitter: Splitter,
    /// Whether bytes follow the buffer, as far as known.
    available: Availability,
    /// Whether to return a last line without a newline.
    flush: bool,
    options: ReadOptions,
    /// Stop at this offset.
    until: u64,
    /// The end of this partition's latest entry, or the start of its generation.
    frontier: u64,
    /// The bytes before the frontier, once the buffer has moved past it.
    before: Vec<u8>,
    /// The length of the file when blocks of other partitions were last skipped.
    seen_len: u64,
    place: Place,
}

/// The position of the buffer relative to the blocks of partitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// There is one partition: all lines belong to it.
    Whole,
    /// In lines of this partition: all that begin before `limit`. The buffer has no newline between
    /// `limit` and `searched`.
    Own { limit: u64, searched: u64 },
    /// As `Own`, and the last line of this partition ends at this offset.
    OwnUntil(u64),
    /// In lines of other partitions: they end with the first newline from this offset on.
    Foreign { from: u64 },
}

impl<F: SourceFile> LineReader<F> {
    /// Opens a file at `offset`, to be read up to `until`.
    ///
    /// # Errors
    /// I/O errors of the file.
    pub fn open(file: F, options: ReadOptions, offset: u64, until: Option<u64>) -> io::Result<Self> {
        let buffer = ReadBuffer::open(&file, options.block, offset)?;
        // An entry ends inside a line only if the rest of the line belongs to the same partition.
        let inside_line = buffer.history().last().is_some_and(|&b| b != b'\n');
        let splitter = options.splitter(offset, inside_line);
        let partition = options.partition;
        let limit = partition.run_end(offset);
        let mut reader = Self {
            file,
            buffer,
            splitter,
            available: Availability::More,
            flush: false,
            options,
            until: until.unwrap_or(u64::MAX),
            frontier: offset,
            before: Vec::new(),
            seen_len: 0,
            place: if partition.is_whole() { Place::Whole } else { Place::Own { limit, searched: offset } },
        };
        if !inside_line {
            reader.begin_line();
        }
        Ok(reader)
    }

    /// The open file.
    pub const fn file(&self) -> &F {
        &self.file
    }

    /// Returns the open file.
    pub fn into_file(self) -> F {
        self.file
    }

    /// The offset up to which all lines of this partition have been returned.
    #[must_use]
    pub const fn offset(&self) -> u64 {
        self.buffer.offset()
    }

    /// The number of bytes that were read and not returned: at the end of the file, an unfinished
    /// line.
    #[must_use]
    pub fn pending(&self) -> u64 {
        self.buffer.bytes().len() as u64
    }

    /// Up to where the file is known to have had bytes: what was read, and its length if blocks of
    /// other partitions were skipped.
    #[must_use]
    pub fn seen(&self) -> u64 {
        self.seen_len.max(self.offset() + self.pending())
    }

    /// The last bytes before the position.
    #[must_use]
    pub fn history(&self) -> &[u8] {
        self.buffer.history()
    }

    /// Whether the file still has the bytes around the position.
    ///
    /// # Errors
    /// I/O errors of the file.
    pub fn unchanged(&self) -> io::Result<bool> {
        self.buffer.unchanged(&self.file)
    }

    /// Whether the reader has reached `until`.
    #[must_use]
    pub const fn is_at_limit(&self) -> bool {
        self.buffer.offset() >= self.until
    }

    /// Removes the limit `until`.
    pub const fn lift_limit(&mut self) {
        self.until = u64::MAX;
        self.available = Availability::More;
    }

    /// Reads again after the end of the file was reached, because the file may have grown.
    pub const fn expect_growth(&mut self) {
        self.available = Availability::More;
    }

    /// Passes the next pieces of this partition to `wanted`, each with the frontier before it,
    /// until no piece is available or `wanted` returns `false`. Every piece passed counts as
    /// returned.
    ///
    /// # Errors
    /// I/O errors of the file.
    #[inline]
    pub fn take_pieces(&mut self, mut wanted: impl FnMut(&Piece<'_>, u64) -> bool) -> io::Result<()> {
        loop {
            let (len, available) = self.own_bytes()?;
            let Some(piece) = self.splitter.next(&self.buffer.bytes()[..len], available) else {
                if !self.read_on()? {
                    return Ok(());
                }
                continue;
            };
            let go_on = wanted(&piece, self.frontier);
            let Span { start, end } = piece.span;
            self.buffer.take(end - start);
            self.frontier = end;
            if !go_on {
                return Ok(());
            }
        }
    }

    /// Restarts at another offset, which must be the start of a line.
    ///
    /// # Errors
    /// I/O errors of the file.
    pub fn begin_at(&mut self, offset: u64) -> io::Result<()> {
        self.buffer = ReadBuffer::open(&self.file, self.options.block, offset)?;
        self.splitter = self.options.splitter(offset, false);
        self.frontier = offset;
        self.available = Availability::More;
        self.begin_line();
        Ok(())
    }

    /// Determines which partition owns the line that begins at the buffer.
    fn begin_line(&mut self) {
        let at = self.buffer.offset();
        self.place = if self.options.partition.is_whole() {
            Place::Whole
        } else if self.options.partition.owns(at) {
            Place::Own { limit: self.options.partition.run_end(at), searched: at }
        } else {
            if at == self.frontier {
                self.before = self.buffer.history().to_vec();
            }
            // Start one byte early: the newline before the block may end a line that reaches into
            // it.
            Place::Foreign { from: self.options.partition.next(at) - 1 }
        };
    }

    /// The number of buffered bytes that belong to this partition, and what is known about the
    /// bytes after them. Skips lines of other partitions.
    #[inline]
    fn own_bytes(&mut self) -> io::Result<(usize, Availability)> {
        match self.place {
            // The usual case.
            Place::Whole => Ok(self.within_limit(self.buffer.bytes().len(), self.available)),
            Place::OwnUntil(end) if self.buffer.offset() < end => {
                Ok(self.within_limit((end - self.buffer.offset()) as usize, Availability::End))
            }
            _ => self.locate().map(|(len, available)| self.within_limit(len, available)),
        }
    }

    /// A generation that is sent again ends at the same offset as before, even inside a line.
    #[inline]
    fn within_limit(&self, len: usize, available: Availability) -> (usize, Availability) {
        let left = self.until.saturating_sub(self.buffer.offset());
        if len as u64 >= left { (usize::try_from(left).unwrap_or(len), Availability::End) } else { (len, available) }
    }

    fn locate(&mut self) -> io::Result<(usize, Availability)> {
        loop {
            let at = self.buffer.offset();
            let bytes = self.buffer.bytes();
            match self.place {
                Place::Whole => return Ok((bytes.len(), self.available)),
                // The last line ends with a newline, so nothing is split here.
                Place::OwnUntil(end) if at < end => return Ok(((end - at) as usize, Availability::End)),
                Place::OwnUntil(_) => self.begin_line(),
                Place::Own { limit, searched } => {
                    // The last line of this partition is the one that contains the byte before the
                    // limit.
                    let from = (limit - 1).max(searched).max(at);
                    let unsearched = usize::try_from(from - at).ok().and_then(|from| bytes.get(from..));
                    match unsearched.and_then(|bytes| memchr(b'\n', bytes)) {
                        Some(found) => self.place = Place::OwnUntil(from + found as u64 + 1),
                        None => {
                            self.place = Place::Own { limit, searched: searched.max(at + bytes.len() as u64) };
                            return Ok((bytes.len(), self.available));
                        }
                    }
                }
                Place::Foreign { from } => {
                    if !self.skip_to_line(from)? {
                        return Ok((0, self.available));
                    }
                    self.splitter = self.options.splitter(self.buffer.offset(), false);
                    self.begin_line();
                }
            }
        }
    }

    /// Advances to the line after the first newline from `from` on. Returns `false` if the file
    /// does not have that newline yet.
    fn skip_to_line(&mut self, from: u64) -> io::Result<bool> {
        loop {
            let at = self.buffer.offset();
            let buffered = self.buffer.bytes().len() as u64;
            if at < from {
                if from <= at + buffered {
                    self.buffer.take(from - at);
                } else if self.buffer.unchanged(&self.file)? {
                    let len = self.file.len()?;
                    self.seen_len = len.max(self.seen_len);
                    let target = from.min(len);
                    if target > at {
                        self.buffer = ReadBuffer::open(&self.file, self.options.block, target)?;
                    }
                    if target < from {
                        self.ends();
                        return Ok(false);
                    }
                } else {
                    // The file was rewritten, and holds another content now. The buffered bytes
                    // belong to other partitions; if they stayed, they would look like an
                    // unfinished line of this one.
                    self.buffer.take(buffered);
                    self.ends();
                    return Ok(false);
                }
                continue;
            }
            if let Some(found) = memchr(b'\n', self.buffer.bytes()) {
                self.buffer.take(found as u64 + 1);
                return Ok(true);
            }
            self.buffer.take(buffered);
            if self.buffer.fill(&self.file)? == 0 {
                self.ends();
                return Ok(false);
            }
        }
    }

    /// Reads more bytes. Returns whether to try again to find a piece.
    fn read_on(&mut self) -> io::Result<bool> {
        if self.available != Availability::More {
            return Ok(false);
        }
        if self.buffer.fill(&self.file)? == 0 {
            self.ends();
        }
        Ok(true)
    }

    const fn ends(&mut self) {
        self.available = if self.flush { Availability::End } else { Availability::NoneYet };
    }

    /// The end of this partition's latest entry, or the start of its generation.
    #[must_use]
    pub const fn frontier(&self) -> u64 {
        self.frontier
    }

    /// The last bytes before the frontier.
    #[must_use]
    pub fn before(&self) -> &[u8] {
        if self.buffer.offset() == self.frontier { self.buffer.history() } else { &self.before }
    }

    /// Returns the rest of the file, including a last line without a newline.
    pub const fn flush_rest(&mut self) {
        self.flush = true;
        self.available = Availability::End;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::Field;
    use crate::partition::{LARGE, LARGE_FROM, SMALL};
    use crate::source_file::memory::MemoryFile;

    type Reader = LineReader<MemoryFile>;

    /// The spans that a partition returns from a file, each with the frontier before it.
    fn pieces(reader: &mut Reader) -> Vec<(u64, Span)> {
        let mut spans = Vec::new();
        let keep = |piece: &Piece<'_>, frontier: u64| {
            assert!(piece.field != Field::Rest || frontier == piece.span.start);
            spans.push((frontier, piece.span.clone()));
            true
        };
        reader.take_pieces(keep).unwrap();
        spans
    }

    fn open(file: &MemoryFile, partition: Partition, framing: Framing, offset: u64) -> Reader {
        LineReader::open(file.clone(), ReadOptions::new(framing, partition), offset, None).unwrap()
    }

    /// Lines of random lengths, some longer than several blocks, with at least this many bytes in
    /// total.
    fn text(seed: u64, bytes: usize) -> Vec<u8> {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut text = Vec::new();
        while text.len() < bytes {
            let len = match rng.u32(0..1000) {
                0 => rng.usize(0..4 * SMALL as usize),
                1..300 => rng.usize(0..3000),
                _ => rng.usize(0..100),
            };
            text.extend(std::iter::repeat_with(|| rng.alphanumeric() as u8).take(len));
            text.push(b'\n');
        }
        text
    }

    #[test]
    fn partitions_return_every_line_exactly_once_from_any_restart() {
        for (seed, count, framing) in
            [(1, 3, Framing::Line), (2, 2, Framing::Chunk), (3, 7, Framing::Line), (4, 100, Framing::Chunk)]
        {
            let bytes = if seed == 1 { LARGE_FROM as usize + 5 * LARGE as usize } else { 3 << 20 };
            let mut text = text(seed, bytes);
            text.extend(b"a last line without newline");
            let path = MemoryFile::new(&text);
            let mut all = Vec::new();
            for partition in Partition::all(count) {
                let mut reader = open(&path, partition, framing, 0);
                let mut taken = pieces(&mut reader);
                assert_eq!((reader.pending() == 0), reader.offset() == text.len() as u64);
                reader.flush_rest();
                taken.extend(pieces(&mut reader));
                assert_eq!(reader.offset(), text.len() as u64, "the whole file was read");
                // A reader that starts after an entry continues with the same next entry.
                for step in taken.chunks(taken.len() / 5 + 1) {
                    let (frontier, next) = step[0].clone();
                    let mut again = open(&path, partition, Framing::Line, frontier);
                    let (_, first) = pieces(&mut again).into_iter().next().unwrap_or((0, next.clone()));
                    assert_eq!(first.start, next.start);
                }
                let mut before = 0;
                for (frontier, span) in taken {
                    assert_eq!(frontier, before, "where the previous one ended");
                    before = span.end;
                    assert!(text[..span.start as usize].last().is_none_or(|&b| b == b'\n'));
                    all.push(span);
                }
            }
            all.sort_by_key(|span| span.start);
            let mut at = 0;
            for span in all {
                assert_eq!(span.start, at, "seed {seed}");
                at = span.end;
            }
            assert_eq!(at, text.len() as u64);
        }
    }

    #[test]
    fn a_partition_waits_at_the_end_and_continues_with_new_lines() {
        let (first, second) = (Partition::new(0, 2).unwrap(), Partition::new(1, 2).unwrap());
        // A line that begins in the first block and ends in the second one.
        let mut text = vec![b'x'; SMALL as usize + 10];
        let path = MemoryFile::new(&text);
        let (mut one, mut two) = (open(&path, first, Framing::Line, 0), open(&path, second, Framing::Line, 0));
        assert_eq!(pieces(&mut one), []);
        assert_eq!(pieces(&mut two), []);
        assert_eq!((one.pending(), two.pending()), (text.len() as u64, 0));
        text.extend(b"y\nmine\n");
        path.set(&text);
        (one.available, two.available) = (Availability::More, Availability::More);
        let end = SMALL + 12;
        assert_eq!(pieces(&mut one), [(0, 0..end)]);
        assert_eq!(pieces(&mut two), [(0, end..end + 5)]);
        assert_eq!((one.frontier(), one.before()), (end, &text[..end as usize][(end as usize - 1024)..]));
    }

    #[test]
    fn bytes_of_others_are_not_pending_when_the_file_is_rewritten() {
        // The beginning of a line of the other partition was read, and the file truncated then.
        let second = Partition::new(1, 2).unwrap();
        let mut text = vec![b'x'; SMALL as usize];
        text.extend(b"\nmine\n");
        let end = text.len() as u64;
        text.resize(2 * SMALL as usize, b'x');
        text.extend(b"\nother");
        let file = MemoryFile::new(&text);
        let mut reader = open(&file, second, Framing::Line, 0);
        assert_eq!(pieces(&mut reader).first(), Some(&(0, SMALL + 1..end)));
        file.set(b"new\n");
        reader.expect_growth();
        reader.flush_rest();
        let _ = pieces(&mut reader);
        assert_eq!(reader.pending(), 0);
    }

    #[test]
    fn a_generation_sent_again_ends_at_the_same_offset() {
        for framing in [Framing::Line, Framing::Chunk] {
            let file = MemoryFile::new(b"one\ntwo\nthree\n");
            let mut reader = LineReader::open(file, ReadOptions::new(framing, Partition::WHOLE), 4, Some(10)).unwrap();
            let taken = pieces(&mut reader);
            assert_eq!(taken.last().map(|(_, span)| span.end), Some(10), "in the middle of a line, as before");
            assert!(reader.is_at_limit());
        }
    }
}
