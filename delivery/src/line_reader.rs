//! The line reader: cuts a file into the pieces that one partition sends, and keeps how far it got.

use crate::entry::{MAX_LINE, Piece, Span};
use crate::partition::Partition;
use crate::read_buffer::{BLOCK, ReadBuffer};
use crate::source_file::SourceFile;
use crate::split::{Availability, Framing, Splitter};
use memchr::memchr;
use std::io;

/// How files are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadOptions {
    /// How lines become entries.
    pub framing: Framing,
    /// Whose lines are taken.
    pub partition: Partition,
    /// The longest line that travels whole, in bytes.
    pub max_line: usize,
    /// How many bytes are read at once.
    pub block: usize,
}

impl ReadOptions {
    /// For production.
    #[must_use]
    pub const fn new(framing: Framing, partition: Partition) -> Self {
        Self { framing, partition, max_line: MAX_LINE, block: BLOCK }
    }

    const fn splitter(&self, offset: u64, inside_line: bool) -> Splitter {
        Splitter::new(self.framing, offset, inside_line).with_max_line(self.max_line)
    }
}

/// A file that is being read, and how far.
///
/// The read buffer goes through the file in order and leaves out, without reading them, blocks of
/// other partitions. All lines of this partition that begin before the buffer were taken.
#[derive(Debug)]
pub struct LineReader<F> {
    file: F,
    buffer: ReadBuffer,
    splitter: Splitter,
    /// What is known of the bytes available the buffer.
    available: Availability,
    /// Whether a last line without newline is to be sent.
    flush: bool,
    options: ReadOptions,
    /// Bytes from here on are not to be taken.
    until: u64,
    /// Where this partition's latest entry ends, or its generation begins.
    frontier: u64,
    /// The bytes before the frontier, once the buffer has left it.
    before: Vec<u8>,
    place: Place,
}

/// Where the buffer is, as partitions go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// In lines that are all ours.
    Whole,
    /// In lines of ours: all that begin before `limit`. None of the bytes at hand from there to
    /// `searched` is a newline.
    Ours { limit: u64, searched: u64 },
    /// The same, and the last one of them ends here.
    OursUntil(u64),
    /// In lines of others: the first newline from here on ends them.
    Others { from: u64 },
}

impl<F: SourceFile> LineReader<F> {
    /// Reads from `offset` on, and nothing from `until` on.
    ///
    /// # Errors
    /// Those of the file.
    pub fn open(file: F, options: ReadOptions, offset: u64, until: Option<u64>) -> io::Result<Self> {
        let buffer = ReadBuffer::open(&file, options.block, offset)?;
        // Entries end inside a line only when the rest of it is ours, too.
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
            place: if partition.is_whole() { Place::Whole } else { Place::Ours { limit, searched: offset } },
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

    /// Gives the open file back.
    pub fn into_file(self) -> F {
        self.file
    }

    /// The offset up to which everything that is this partition's was taken.
    #[must_use]
    pub const fn offset(&self) -> u64 {
        self.buffer.offset()
    }

    /// How many bytes were read and not taken: at the end of the file, those of an unfinished line.
    #[must_use]
    pub fn pending(&self) -> u64 {
        self.buffer.bytes().len() as u64
    }

    /// The last bytes that were looked at.
    #[must_use]
    pub fn history(&self) -> &[u8] {
        self.buffer.history()
    }

    /// Whether the bytes around the offset are still those of the file.
    ///
    /// # Errors
    /// Those of the file.
    pub fn unchanged(&self) -> io::Result<bool> {
        self.buffer.unchanged(&self.file)
    }

    /// Whether everything up to `until` was taken.
    #[must_use]
    pub const fn is_at_limit(&self) -> bool {
        self.buffer.offset() >= self.until
    }

    /// Takes what comes available `until`, too.
    pub const fn lift_limit(&mut self) {
        self.until = u64::MAX;
        self.available = Availability::More;
    }

    /// The file may have grown.
    pub const fn look_again(&mut self) {
        self.available = Availability::More;
    }

    /// Gives this partition's next pieces to `wanted`, each with the frontier before it, until
    /// there are none for now or `wanted` returns `false`. Every piece given counts as taken.
    ///
    /// # Errors
    /// Those of the file.
    #[inline]
    pub fn take_pieces(&mut self, mut wanted: impl FnMut(&Piece<'_>, u64) -> bool) -> io::Result<()> {
        loop {
            let (len, available) = self.at_hand()?;
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

    /// Begins again, at another offset, where a line begins.
    ///
    /// # Errors
    /// Those of the file.
    pub fn begin_at(&mut self, offset: u64) -> io::Result<()> {
        self.buffer = ReadBuffer::open(&self.file, self.options.block, offset)?;
        self.splitter = self.options.splitter(offset, false);
        self.frontier = offset;
        self.available = Availability::More;
        self.begin_line();
        Ok(())
    }

    /// The buffer is where a line begins: whose is it?
    fn begin_line(&mut self) {
        let at = self.buffer.offset();
        self.place = if self.options.partition.is_whole() {
            Place::Whole
        } else if self.options.partition.owns(at) {
            Place::Ours { limit: self.options.partition.run_end(at), searched: at }
        } else {
            if at == self.frontier {
                self.before = self.buffer.history().to_vec();
            }
            // The newline before it may be the end of a line that reaches over.
            Place::Others { from: self.options.partition.next(at) - 1 }
        };
    }

    /// How many of the bytes at hand are ours, and what is known of those available them. Steps
    /// over what is others', as far as it is there.
    #[inline]
    fn at_hand(&mut self) -> io::Result<(usize, Availability)> {
        match self.place {
            // Nearly every time.
            Place::Whole => Ok(self.within_limit(self.buffer.bytes().len(), self.available)),
            Place::OursUntil(end) if self.buffer.offset() < end => {
                Ok(self.within_limit((end - self.buffer.offset()) as usize, Availability::End))
            }
            _ => self.look().map(|(len, available)| self.within_limit(len, available)),
        }
    }

    /// A generation that is sent again ends where it ended before, a line without newline included.
    #[inline]
    fn within_limit(&self, len: usize, available: Availability) -> (usize, Availability) {
        let left = self.until.saturating_sub(self.buffer.offset());
        if len as u64 >= left { (usize::try_from(left).unwrap_or(len), Availability::End) } else { (len, available) }
    }

    fn look(&mut self) -> io::Result<(usize, Availability)> {
        loop {
            let at = self.buffer.offset();
            let bytes = self.buffer.bytes();
            match self.place {
                Place::Whole => return Ok((bytes.len(), self.available)),
                // It ends with a newline, so nothing is cut there.
                Place::OursUntil(end) if at < end => return Ok(((end - at) as usize, Availability::End)),
                Place::OursUntil(_) => self.begin_line(),
                Place::Ours { limit, searched } => {
                    // The line that has the byte before the limit is the last one.
                    let from = (limit - 1).max(searched).max(at);
                    let unsearched = usize::try_from(from - at).ok().and_then(|from| bytes.get(from..));
                    match unsearched.and_then(|bytes| memchr(b'\n', bytes)) {
                        Some(found) => self.place = Place::OursUntil(from + found as u64 + 1),
                        None => {
                            self.place = Place::Ours { limit, searched: searched.max(at + bytes.len() as u64) };
                            return Ok((bytes.len(), self.available));
                        }
                    }
                }
                Place::Others { from } => {
                    if !self.step_over(from)? {
                        return Ok((0, self.available));
                    }
                    self.splitter = self.options.splitter(self.buffer.offset(), false);
                    self.begin_line();
                }
            }
        }
    }

    /// Goes on to the line available the first newline from `from` on. Whether it is there yet.
    fn step_over(&mut self, from: u64) -> io::Result<bool> {
        loop {
            let at = self.buffer.offset();
            let at_hand = self.buffer.bytes().len() as u64;
            if at < from {
                if from <= at + at_hand {
                    self.buffer.take(from - at);
                } else if self.buffer.unchanged(&self.file)? {
                    let there = from.min(self.file.len()?);
                    if there > at {
                        self.buffer = ReadBuffer::open(&self.file, self.options.block, there)?;
                    }
                    if there < from {
                        self.ends();
                        return Ok(false);
                    }
                } else {
                    // Written anew: what is there now is another content.
                    self.ends();
                    return Ok(false);
                }
                continue;
            }
            if let Some(found) = memchr(b'\n', self.buffer.bytes()) {
                self.buffer.take(found as u64 + 1);
                return Ok(true);
            }
            self.buffer.take(at_hand);
            if self.buffer.fill(&self.file)? == 0 {
                self.ends();
                return Ok(false);
            }
        }
    }

    /// Reads more bytes, which are needed to name the next piece. Whether it is worth while to try
    /// again.
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

    /// Where this partition's latest entry ends, or its generation begins.
    #[must_use]
    pub const fn frontier(&self) -> u64 {
        self.frontier
    }

    /// The last bytes before the frontier.
    #[must_use]
    pub fn before(&self) -> &[u8] {
        if self.buffer.offset() == self.frontier { self.buffer.history() } else { &self.before }
    }

    /// Sends what is left, a line without newline included.
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

    /// What a partition takes of a file: spans, each with the frontier before it.
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

    /// Lines of random lengths, some longer than several blocks, until there are so many bytes.
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
    fn partitions_take_every_line_once_and_whole_wherever_they_begin_again() {
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
                assert_eq!(reader.offset(), text.len() as u64, "all was looked at");
                // Everybody who begins available an entry goes on with the same one.
                for step in taken.chunks(taken.len() / 5 + 1) {
                    let (frontier, next) = step[0].clone();
                    let mut again = open(&path, partition, Framing::Line, frontier);
                    let (_, first) = pieces(&mut again).into_iter().next().unwrap_or((0, next.clone()));
                    assert_eq!(first.start, next.start);
                }
                let mut before = 0;
                for (frontier, span) in taken {
                    assert_eq!(frontier, before, "where the one before ended");
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
    fn a_partition_waits_at_the_end_and_goes_on_when_its_lines_come() {
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
    fn a_generation_that_is_sent_again_ends_where_it_ended() {
        for framing in [Framing::Line, Framing::Chunk] {
            let file = MemoryFile::new(b"one\ntwo\nthree\n");
            let mut reader = LineReader::open(file, ReadOptions::new(framing, Partition::WHOLE), 4, Some(10)).unwrap();
            let taken = pieces(&mut reader);
            assert_eq!(taken.last().map(|(_, span)| span.end), Some(10), "in the middle of a line, as before");
            assert!(reader.is_at_limit());
        }
    }
}
