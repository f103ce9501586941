//! How far a content was read, and what of it is this partition's.

use crate::content::Content;
use crate::interrupt::Interrupt;
use crate::resume::Begin;
use crate::window::Window;
use delivery::entry::Span;
use delivery::partition::Partition;
use delivery::source::{Guard, Lineage, Position};
use delivery::split::{Behind, Framing, Splitter};
use memchr::memchr;
use std::io;
use std::time::{Duration, Instant};

/// How long a content that was rotated away must be quiet before it counts as finished: whoever writes to it may not have
/// noticed yet.
const ROTATION_GRACE: Duration = Duration::from_secs(1);

/// A content that is being read, and how far.
///
/// The window goes through the content in order and leaves out, without reading them, blocks that are other partitions'. All lines of this partition
/// that begin before the window were taken.
#[derive(Debug)]
pub(crate) struct Cursor {
    pub(crate) content: Content,
    pub(crate) window: Window,
    pub(crate) splitter: Splitter,
    framing: Framing,
    /// `None`: not begun, for want of bytes.
    pub(crate) generation: Option<u64>,
    pub(crate) begin: Begin,
    /// What is known of the bytes behind the window.
    pub(crate) behind: Behind,
    /// Whether a last line without newline is to be sent.
    flush: bool,
    partition: Partition,
    /// Where this partition's latest entry ends, or its generation begins.
    frontier: u64,
    /// The bytes before the frontier, once the window has left it.
    before: Vec<u8>,
    place: Place,
    /// Since when another file has been at the input's path and this one has not grown.
    pub(crate) replaced: Option<Instant>,
    /// Why what follows cannot be read.
    pub(crate) blocked: Option<String>,
    /// The content's length when it was last looked at.
    pub(crate) len: u64,
    /// Whether the generation has just begun, and nothing was sent in it.
    pub(crate) fresh: bool,
    /// Whether it was told that the file was truncated.
    pub(crate) truncated: bool,
}

/// Where the window is, as partitions go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// In lines that are all ours.
    Whole,
    /// In lines of ours: all that begin before `limit`. None of the bytes at hand from there to `searched` is a newline.
    Ours { limit: u64, searched: u64 },
    /// The same, and the last one of them ends here.
    OursUntil(u64),
    /// In lines of others: the first newline from here on ends them.
    Others { from: u64 },
}

impl Cursor {
    pub(crate) fn open(
        content: Content,
        framing: Framing,
        partition: Partition,
        generation: Option<u64>,
        begin: Begin,
        offset: u64,
    ) -> io::Result<Self> {
        let window = Window::open(&content, offset)?;
        // Entries end inside a line only when the rest of it is ours, too.
        let inside_line = window.history().last().is_some_and(|&b| b != b'\n');
        let splitter = Splitter::new(framing, offset, inside_line);
        let len = content.len()?;
        let limit = partition.run_end(offset);
        let mut cursor = Self {
            content,
            window,
            splitter,
            framing,
            generation,
            begin,
            behind: Behind::More,
            flush: false,
            partition,
            frontier: offset,
            before: Vec::new(),
            place: if partition.is_whole() { Place::Whole } else { Place::Ours { limit, searched: offset } },
            replaced: None,
            blocked: None,
            len,
            fresh: false,
            truncated: false,
        };
        if !inside_line {
            cursor.begin_line();
        }
        Ok(cursor)
    }

    /// Begins again, at another offset, where a line begins.
    pub(crate) fn begin_at(&mut self, offset: u64) -> io::Result<()> {
        self.window = Window::open(&self.content, offset)?;
        self.splitter = Splitter::new(self.framing, offset, false);
        self.begin.start = offset;
        self.frontier = offset;
        self.behind = Behind::More;
        self.begin_line();
        Ok(())
    }

    /// The window is where a line begins: whose is it?
    fn begin_line(&mut self) {
        let at = self.window.offset();
        self.place = if self.partition.is_whole() {
            Place::Whole
        } else if self.partition.owns(at) {
            Place::Ours { limit: self.partition.run_end(at), searched: at }
        } else {
            if at == self.frontier {
                self.before = self.window.history().to_vec();
            }
            // The newline before it may be the end of a line that reaches over.
            Place::Others { from: self.partition.next(at) - 1 }
        };
    }

    /// How many of the bytes at hand are ours, and what is known of those behind them. Steps over what is others', as far as it is there.
    #[inline]
    pub(crate) fn at_hand(&mut self) -> io::Result<(usize, Behind)> {
        match self.place {
            // Nearly every time.
            Place::Whole => Ok((self.window.bytes().len(), self.behind)),
            Place::OursUntil(end) if self.window.offset() < end => {
                Ok(((end - self.window.offset()) as usize, Behind::End))
            }
            _ => self.look(),
        }
    }

    fn look(&mut self) -> io::Result<(usize, Behind)> {
        loop {
            let at = self.window.offset();
            let bytes = self.window.bytes();
            match self.place {
                Place::Whole => return Ok((bytes.len(), self.behind)),
                // It ends with a newline, so nothing is cut there.
                Place::OursUntil(end) if at < end => return Ok(((end - at) as usize, Behind::End)),
                Place::OursUntil(_) => self.begin_line(),
                Place::Ours { limit, searched } => {
                    // The line that has the byte before the limit is the last one.
                    let from = (limit - 1).max(searched).max(at);
                    let unsearched = usize::try_from(from - at).ok().and_then(|from| bytes.get(from..));
                    match unsearched.and_then(|bytes| memchr(b'\n', bytes)) {
                        Some(found) => self.place = Place::OursUntil(from + found as u64 + 1),
                        None => {
                            self.place = Place::Ours { limit, searched: searched.max(at + bytes.len() as u64) };
                            return Ok((bytes.len(), self.behind));
                        }
                    }
                }
                Place::Others { from } => {
                    if !self.step_over(from)? {
                        return Ok((0, self.behind));
                    }
                    self.splitter = Splitter::new(self.framing, self.window.offset(), false);
                    self.begin_line();
                }
            }
        }
    }

    /// Goes on to the line behind the first newline from `from` on. Whether it is there yet.
    fn step_over(&mut self, from: u64) -> io::Result<bool> {
        loop {
            let at = self.window.offset();
            let at_hand = self.window.bytes().len() as u64;
            if at < from {
                if from <= at + at_hand {
                    self.window.take(from - at);
                } else if self.window.unchanged(&self.content)? {
                    let there = from.min(self.content.len()?);
                    if there > at {
                        self.window = Window::open(&self.content, there)?;
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
            if let Some(found) = memchr(b'\n', self.window.bytes()) {
                self.window.take(found as u64 + 1);
                return Ok(true);
            }
            self.window.take(at_hand);
            if self.window.fill(&self.content)? == 0 {
                self.ends();
                return Ok(false);
            }
        }
    }

    /// Reads more bytes, which are needed to name the next piece. Whether it is worth while to try again.
    pub(crate) fn read_on(&mut self) -> io::Result<bool> {
        if self.behind != Behind::More {
            return Ok(false);
        }
        if self.window.fill(&self.content)? == 0 {
            self.ends();
        }
        Ok(true)
    }

    const fn ends(&mut self) {
        self.behind = if self.flush { Behind::End } else { Behind::NoneYet };
    }

    /// The bytes of a piece were taken.
    #[inline]
    pub(crate) fn take(&mut self, span: Span) {
        self.window.take(span.end - span.start);
        self.frontier = span.end;
    }

    /// Where this partition's latest entry ends, or its generation begins.
    pub(crate) const fn frontier(&self) -> u64 {
        self.frontier
    }

    /// The last bytes before the frontier.
    pub(crate) fn before(&self) -> &[u8] {
        if self.window.offset() == self.frontier { self.window.history() } else { &self.before }
    }

    /// What the last bytes that were looked at are, whosever they are: they tell the content from another one that begins alike.
    pub(crate) fn seen(&self) -> Option<Guard> {
        let end = self.window.offset();
        self.generation.map(|generation| Guard::new(generation, end, end, self.window.history()))
    }

    /// The confirmed position when nothing is on the wire.
    pub(crate) fn position(&self, lineage: &Lineage) -> Position {
        let generation = self.generation.or_else(|| lineage.last().map(|g| g.generation)).unwrap_or(0);
        Position { generation, offset: self.frontier }
    }

    pub(crate) fn has_bytes(&self) -> Result<bool, Interrupt> {
        let len = self.content.len().map_err(|e| Interrupt::input("read", self.content.path(), &e))?;
        Ok(len > self.window.offset())
    }

    /// Sends what is left, a line without newline included.
    pub(crate) const fn flush_rest(&mut self) {
        self.flush = true;
        self.behind = Behind::End;
    }

    /// Whether the content has not grown for long enough since another one took its place.
    pub(crate) fn quiet_since_replaced(&mut self, once: bool) -> bool {
        let since = *self.replaced.get_or_insert_with(Instant::now);
        once || since.elapsed() >= ROTATION_GRACE
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use delivery::entry::{Field, Piece};
    use delivery::partition::{LARGE, LARGE_FROM, SMALL};

    /// What a partition takes of a file: spans, each with the frontier before it.
    fn pieces(cursor: &mut Cursor) -> Vec<(u64, Span)> {
        let mut spans = Vec::new();
        loop {
            let (len, behind) = cursor.at_hand().unwrap();
            let Some(Piece { span, field, .. }) = cursor.splitter.next(&cursor.window.bytes()[..len], behind) else {
                if !cursor.read_on().unwrap() {
                    return spans;
                }
                continue;
            };
            assert!(field != Field::Rest || cursor.frontier() == span.start);
            spans.push((cursor.frontier(), span.clone()));
            cursor.take(span);
        }
    }

    fn open(path: &std::path::Path, partition: Partition, framing: Framing, offset: u64) -> Cursor {
        let content = Content::open(path).unwrap();
        Cursor::open(content, framing, partition, Some(1), Begin::default(), offset).unwrap()
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
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("input.txt");
        for (seed, count, framing) in
            [(1, 3, Framing::Line), (2, 2, Framing::Chunk), (3, 7, Framing::Line), (4, 100, Framing::Chunk)]
        {
            let bytes = if seed == 1 { LARGE_FROM as usize + 5 * LARGE as usize } else { 3 << 20 };
            let mut text = text(seed, bytes);
            text.extend(b"a last line without newline");
            std::fs::write(&path, &text).unwrap();
            let mut all = Vec::new();
            for partition in Partition::all(count) {
                let mut cursor = open(&path, partition, framing, 0);
                let mut taken = pieces(&mut cursor);
                assert_eq!(cursor.window.bytes().is_empty(), cursor.window.offset() == text.len() as u64);
                cursor.flush_rest();
                taken.extend(pieces(&mut cursor));
                assert_eq!(cursor.window.offset(), text.len() as u64, "all was looked at");
                // Everybody who begins behind an entry goes on with the same one.
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
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("input.txt");
        let (first, second) = (Partition::new(0, 2).unwrap(), Partition::new(1, 2).unwrap());
        // A line that begins in the first block and ends in the second one.
        let mut text = vec![b'x'; SMALL as usize + 10];
        std::fs::write(&path, &text).unwrap();
        let (mut one, mut two) = (open(&path, first, Framing::Line, 0), open(&path, second, Framing::Line, 0));
        assert_eq!(pieces(&mut one), []);
        assert_eq!(pieces(&mut two), []);
        assert_eq!((one.window.bytes().len(), two.window.bytes().len()), (text.len(), 0));
        text.extend(b"y\nmine\n");
        std::fs::write(&path, &text).unwrap();
        (one.behind, two.behind) = (Behind::More, Behind::More);
        let end = SMALL + 12;
        assert_eq!(pieces(&mut one), [(0, 0..end)]);
        assert_eq!(pieces(&mut two), [(0, end..end + 5)]);
        assert_eq!((one.frontier(), one.before()), (end, &text[..end as usize][(end as usize - 1024)..]));
    }
}
