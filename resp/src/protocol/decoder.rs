//! The incremental decoder. Connections, the codec and the scripted server own one each.

use bytes::BytesMut;
use memchr::memchr2;

use super::attributes::SideTable;
use super::cast::{index, offset};
use super::frame::Frame;
use super::header::{self, Length};
use super::kind::{Node, ValueKind};
use super::number;
use super::{DecoderLimits, ProtocolError};

/// A resumable RESP2/RESP3 decoder without I/O.
///
/// The decoder examines each byte once, however the input is split: the parsed part of a frame is
/// on a flat tape, and the next call continues after it. A complete frame takes its bytes from the
/// buffer without a copy.
///
/// ```
/// use bytes::BytesMut;
/// use resp::Decoder;
///
/// let mut decoder = Decoder::default();
/// let mut buf = BytesMut::from("*2\r\n$5\r\nhello\r\n:4");
/// assert!(decoder.decode(&mut buf)?.is_none());
/// buf.extend_from_slice(b"2\r\n+OK\r\n");
///
/// let frame = decoder.decode(&mut buf)?.expect("complete now");
/// let children: Vec<_> = frame.value().children().collect();
/// assert_eq!(children[0].as_bytes(), Some(&b"hello"[..]));
/// assert_eq!(children[1].as_int(), Some(42));
/// assert_eq!(buf, "+OK\r\n"); // the next frame
/// # Ok::<(), resp::ProtocolError>(())
/// ```
#[derive(Debug)]
pub struct Decoder {
    limits: DecoderLimits,
    /// How many bytes of the current frame are parsed.
    pos: usize,
    /// How far the line at `pos` was searched for its end.
    scanned: usize,
    /// The buffer length below which a call cannot progress.
    needed: usize,
    /// The tape of the current frame.
    nodes: Vec<Node>,
    /// Attributes and joined strings of the current frame, if any.
    side_table: Option<Box<SideTable>>,
    /// How long the frame may become; the memory of its tape is subtracted.
    budget: usize,
    /// The innermost incomplete aggregate.
    top: Open,
    /// The aggregates around it, innermost last. The first one stands for the frame.
    outer: Vec<Open>,
    /// The length of the last tape, which is the initial capacity of the next.
    last_tape: usize,
    /// Whether the current frame contains an error, and whether the last one did.
    sees_error: bool,
    saw_error: bool,
    /// The buffer length at the last estimate of the frame's length.
    estimated: usize,
    failed: Option<ProtocolError>,
}

/// An incomplete aggregate.
#[derive(Clone, Copy, Debug)]
struct Open {
    /// Its index on the tape.
    node: u32,
    /// How many children are missing. For streamed aggregates, this counts down to the limit.
    missing: u32,
    /// The number of children.
    total: u32,
    /// Its start in the buffer.
    start: usize,
    kind: ValueKind,
    streamed: bool,
}

impl Open {
    /// The frame as the parent of its value: complete after one child.
    const FRAME: Self = Self { node: 0, missing: 1, total: 1, start: 0, kind: ValueKind::Null, streamed: false };
}

/// The buffer is reserved for the estimated frame length, but for at most this many times the
/// received bytes.
const MAX_GROWTH: usize = 64;

/// The maximum initial capacity of a tape in nodes (384 KiB).
const MAX_TAPE_START: usize = 32 * 1024;

/// The size of a value on the tape, in bytes.
const NODE: usize = size_of::<Node>();

/// What was parsed at the current position.
enum Step {
    /// A value without children: its node, and the position after it.
    Scalar(Node, usize),
    /// The header of an aggregate: kind, length, and the position after it.
    Header(ValueKind, Length, usize),
    /// The end of a streamed aggregate or string.
    End(usize),
    /// Incomplete: the buffer must become this long.
    Partial(usize),
}

impl Decoder {
    /// Creates a decoder with these limits.
    #[must_use]
    pub fn new(limits: DecoderLimits) -> Self {
        let limits = limits.effective();
        Self {
            limits,
            pos: 0,
            scanned: 0,
            needed: 0,
            nodes: Vec::new(),
            side_table: None,
            budget: limits.frame,
            top: Open::FRAME,
            outer: Vec::new(),
            last_tape: 0,
            sees_error: false,
            saw_error: false,
            estimated: 0,
            failed: None,
        }
    }

    /// Returns how long the buffer must be, from the start of the current frame, before a call can
    /// progress.
    ///
    /// The number is exact inside a bulk string, and a lower bound otherwise. Use it to reserve
    /// capacity.
    #[must_use]
    pub const fn needed(&self) -> usize {
        self.needed
    }

    /// Returns whether the decoder is between two frames.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.pos == 0 && self.needed <= 1
    }

    /// Takes the first frame from `buf`, if it is complete.
    ///
    /// Between calls, only append to `buf`.
    ///
    /// # Errors
    ///
    /// The bytes are not valid RESP, or exceed a limit. Every later call returns the same error.
    #[inline]
    pub fn decode(&mut self, buf: &mut BytesMut) -> Result<Option<Frame>, ProtocolError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        if buf.len() < self.needed {
            return Ok(None);
        }
        match self.advance(buf) {
            Ok(Some(scalar)) => {
                let bytes = buf.split_to(self.pos).freeze();
                self.restart();
                Ok(Some(Frame::scalar(bytes, scalar)))
            }
            Ok(None) if self.needed == 0 => {
                let bytes = buf.split_to(self.pos).freeze();
                self.last_tape = self.nodes.len();
                let mut nodes = std::mem::take(&mut self.nodes);
                let mut side_table = self.side_table.take();
                let bytes = match &mut side_table {
                    Some(side_table) => side_table.attach(bytes, &mut nodes),
                    None => bytes,
                };
                let frame = Frame::tree(bytes, nodes, side_table);
                self.restart();
                Ok(Some(frame))
            }
            Ok(None) => {
                self.make_room(buf);
                Ok(None)
            }
            Err(error) => {
                self.failed = Some(error);
                self.nodes = Vec::new();
                self.side_table = None;
                Err(error)
            }
        }
    }

    /// Reserves the buffer for the rest of the frame, so that a long frame is not copied
    /// repeatedly.
    #[expect(clippy::arithmetic_side_effects, reason = "positions lie in the buffer, counts within the limits")]
    fn make_room(&mut self, buf: &mut BytesMut) {
        // The estimate visits each level, which is too slow for many small reads.
        if buf.len() < buf.capacity() && buf.len() - self.estimated.min(buf.len()) <= self.estimated / 64 {
            return;
        }
        self.estimated = buf.len();
        let most = buf.len().saturating_mul(MAX_GROWTH).min(self.budget);
        buf.reserve(self.expected().min(most).saturating_sub(buf.len()));
    }

    /// Estimates the length of the frame: missing children are as long as the average of those
    /// received.
    #[expect(clippy::arithmetic_side_effects, reason = "positions lie in the buffer, counts within the limits")]
    fn expected(&self) -> usize {
        let mut end = self.needed.max(self.pos);
        let mut is_inside = end > self.pos;
        for open in std::iter::once(&self.top).chain(self.outer.iter().rev()) {
            if !open.streamed {
                // The child in progress counts as received.
                let missing = index(open.missing.saturating_sub(u32::from(is_inside)));
                let begun = (index(open.total) - missing).max(1);
                end = end.saturating_add((end - open.start).saturating_mul(missing) / begun);
            }
            is_inside = true;
        }
        end
    }

    /// Returns the tape of a frame to the decoder, to save an allocation.
    pub(crate) fn recycle(&mut self, frame: Frame) {
        if self.nodes.capacity() == 0 {
            let mut nodes = frame.into_tape();
            if nodes.capacity() <= MAX_TAPE_START {
                nodes.clear();
                self.nodes = nodes;
            }
        }
    }

    /// Returns whether the last frame contains an error.
    pub(crate) const fn saw_error(&self) -> bool {
        self.saw_error
    }

    fn restart(&mut self) {
        self.saw_error = std::mem::take(&mut self.sees_error);
        self.pos = 0;
        self.scanned = 0;
        self.needed = 0;
        self.estimated = 0;
        self.budget = self.limits.frame;
        self.top = Open::FRAME;
        self.outer.clear();
    }

    /// Parses until the frame is complete (`needed` is then 0), or bytes are missing. A frame that
    /// is one scalar is returned, and needs no tape.
    #[expect(clippy::arithmetic_side_effects, reason = "positions lie in the buffer, counts within the limits")]
    fn advance(&mut self, buf: &[u8]) -> Result<Option<Node>, ProtocolError> {
        loop {
            self.run(buf)?;
            if self.outer.is_empty() && self.top.missing == 0 {
                self.needed = 0;
                return Ok(None);
            }
            // Bytes after the longest allowed frame are ignored, so the result does not depend on
            // how much has arrived.
            match self.step(buf.get(..self.budget).unwrap_or(buf))? {
                Step::Partial(needed) => {
                    self.needed = needed;
                    if needed > self.budget {
                        return Err(ProtocolError::FrameTooLong);
                    }
                    return Ok(None);
                }
                Step::Scalar(node, end) => {
                    self.pos = end;
                    self.sees_error |= node.kind.is_error();
                    if self.outer.is_empty() && self.side_table.is_none() {
                        return Ok(Some(node));
                    }
                    self.nodes.push(node);
                    self.top.missing -= 1;
                    if self.top.streamed {
                        self.spend(NODE)?;
                    }
                }
                Step::Header(kind, length, end) => {
                    let own = match kind {
                        // The parent did not count this node, and the list of attributes needs an
                        // entry.
                        ValueKind::Attribute => 2,
                        _ => usize::from(self.top.streamed),
                    };
                    self.begin(kind, length)?;
                    self.pos = end;
                    let children = if self.top.streamed { 0 } else { index(self.top.total) };
                    self.spend(NODE.saturating_mul(own + children))?;
                }
                Step::End(end) => {
                    self.pos = end;
                    self.end_streamed(buf)?;
                }
            }
            self.close()?;
        }
    }

    /// Subtracts memory from the budget of the frame.
    fn spend(&mut self, bytes: usize) -> Result<(), ProtocolError> {
        self.budget = self.budget.saturating_sub(bytes);
        if self.pos > self.budget { Err(ProtocolError::FrameTooLong) } else { Ok(()) }
    }

    /// Fast path for arrays and bulk strings, which are most of what servers send. Everything else,
    /// and every error, is left to [`step`](Self::step).
    #[inline]
    #[expect(clippy::arithmetic_side_effects, reason = "positions lie in the buffer, counts within the limits")]
    fn run(&mut self, buf: &[u8]) -> Result<(), ProtocolError> {
        // Streamed aggregates are charged per child.
        if self.outer.is_empty() || self.top.streamed {
            return Ok(());
        }
        let Self { nodes, outer, limits, .. } = self;
        let (mut pos, mut top) = (self.pos, self.top);
        let buf = buf.get(..self.budget).unwrap_or(buf);
        // What the tape may take if all received bytes belong to the frame.
        let mut spare = self.budget - buf.len();
        loop {
            match buf.get(pos) {
                Some(b'$') => {
                    let Some((len, start)) = header::read_short(buf, pos) else { break };
                    let end = start + len;
                    if len > limits.bulk || buf.get(end..end + 2) != Some(b"\r\n") {
                        break;
                    }
                    nodes.push(Node { a: offset(start), b: offset(len), kind: ValueKind::BulkString });
                    pos = end + 2;
                    top.missing -= 1;
                }
                Some(b'*') => {
                    let Some((len, start)) = header::read_short(buf, pos) else { break };
                    if len == 0 || len > limits.aggregate || outer.len() >= limits.depth {
                        break;
                    }
                    let Some(left) = spare.checked_sub(len.saturating_mul(NODE)) else { break };
                    spare = left;
                    outer.push(top);
                    let node = offset(nodes.len());
                    top = Open {
                        node,
                        missing: offset(len),
                        total: offset(len),
                        start: pos,
                        kind: ValueKind::Array,
                        streamed: false,
                    };
                    nodes.push(Node { a: offset(len), b: 1, kind: ValueKind::Array });
                    pos = start;
                }
                _ => break,
            }
            if top.missing == 0 {
                // Attributes are not values, and streamed aggregates have an end marker; `close`
                // handles both.
                while top.missing == 0 && top.kind != ValueKind::Attribute && !top.streamed {
                    let Some(parent) = outer.pop() else { break };
                    let span = offset(nodes.len() - index(top.node));
                    if let Some(node) = nodes.get_mut(index(top.node)) {
                        node.b = span;
                    }
                    top = parent;
                    top.missing -= 1;
                }
                if outer.is_empty() || top.missing == 0 || top.streamed {
                    break;
                }
            }
        }
        self.pos = pos;
        self.top = top;
        self.budget = spare + buf.len();
        self.close()
    }

    /// Opens an aggregate.
    #[expect(clippy::arithmetic_side_effects, reason = "positions lie in the buffer, counts within the limits")]
    fn begin(&mut self, kind: ValueKind, length: Length) -> Result<(), ProtocolError> {
        if self.outer.len() >= self.limits.depth {
            return Err(ProtocolError::TooDeep);
        }
        let (missing, streamed) = match length {
            Length::Of(n) => {
                let n = if matches!(kind, ValueKind::Map | ValueKind::Attribute) { n.saturating_mul(2) } else { n };
                if n > self.limits.aggregate {
                    return Err(ProtocolError::AggregateTooLong);
                }
                (offset(n), false)
            }
            _ => (offset(self.limits.aggregate) + 1, true),
        };
        if self.nodes.capacity() == 0 {
            self.nodes.reserve(self.last_tape.clamp(8, MAX_TAPE_START));
        }
        self.outer.push(self.top);
        let node = offset(self.nodes.len());
        self.top = Open { node, missing, total: missing, start: self.pos, kind, streamed };
        self.nodes.push(Node { a: missing, b: 1, kind });
        Ok(())
    }

    /// Ends a streamed aggregate or string.
    #[expect(clippy::arithmetic_side_effects, reason = "positions lie in the buffer, counts within the limits")]
    fn end_streamed(&mut self, buf: &[u8]) -> Result<(), ProtocolError> {
        let top = self.top;
        if !top.streamed {
            return Err(ProtocolError::UnexpectedChunk);
        }
        if self.side_table.as_ref().is_some_and(|side_table| side_table.attributes.has_pending(self.nodes.len())) {
            return Err(ProtocolError::AttributeOfNothing);
        }
        let seen = offset(self.limits.aggregate) + 1 - top.missing;
        if matches!(top.kind, ValueKind::Map | ValueKind::Attribute) && seen % 2 == 1 {
            return Err(ProtocolError::OddMap);
        }
        if let Some(node) = self.nodes.get_mut(index(top.node)) {
            node.a = seen;
        }
        self.top.missing = 0;
        self.top.streamed = false;
        if top.kind == ValueKind::StreamedString { self.join(index(top.node) + 1, buf) } else { Ok(()) }
    }

    /// Appends the node of the joined string after the nodes of its chunks.
    #[expect(clippy::arithmetic_side_effects, reason = "positions lie in the buffer, counts within the limits")]
    fn join(&mut self, first: usize, buf: &[u8]) -> Result<(), ProtocolError> {
        let joined = match self.nodes.get(first..).unwrap_or_default() {
            [] => Node { a: 0, b: 0, kind: ValueKind::BulkString },
            [chunk] => *chunk,
            chunks => {
                let joined = &mut self.side_table.get_or_insert_default().joined;
                let start = joined.len();
                for chunk in chunks {
                    let at = index(chunk.a);
                    joined.extend_from_slice(buf.get(at..at + index(chunk.b)).unwrap_or_default());
                }
                Node { a: offset(start), b: offset(joined.len() - start), kind: ValueKind::BulkString }
            }
        };
        self.nodes.push(joined);
        self.spend(NODE + index(joined.b))
    }

    /// Closes the aggregates that are complete, from the innermost.
    #[expect(clippy::arithmetic_side_effects, reason = "positions lie in the buffer, counts within the limits")]
    fn close(&mut self) -> Result<(), ProtocolError> {
        while self.top.missing == 0 {
            if self.top.streamed {
                return Err(ProtocolError::AggregateTooLong);
            }
            let Some(parent) = self.outer.pop() else { break };
            let closed = std::mem::replace(&mut self.top, parent);
            let start = index(closed.node);
            if closed.kind == ValueKind::Attribute {
                // An attribute is not a value: its parent misses as many children as before.
                let attribute = self.nodes.get(start..).unwrap_or_default();
                self.side_table.get_or_insert_default().attributes.add(start, attribute);
                self.nodes.truncate(start);
                continue;
            }
            self.top.missing -= 1;
            let span = self.nodes.len() - start;
            if let Some(node) = self.nodes.get_mut(start) {
                node.b = offset(span);
            }
        }
        Ok(())
    }

    /// Parses the value at the current position.
    #[expect(clippy::arithmetic_side_effects, reason = "positions lie in the buffer, counts within the limits")]
    fn step(&mut self, buf: &[u8]) -> Result<Step, ProtocolError> {
        let at = self.pos;
        let in_string = self.top.kind == ValueKind::StreamedString;
        let Some(&marker) = buf.get(at) else { return Ok(Step::Partial(at + 1)) };
        if in_string && marker != b';' {
            return Err(ProtocolError::UnexpectedChunk);
        }
        match marker {
            b'$' => self.bulk(buf, at, ValueKind::BulkString),
            b'*' => Self::aggregate(buf, at, ValueKind::Array),
            b'%' => Self::aggregate(buf, at, ValueKind::Map),
            b'~' => Self::aggregate(buf, at, ValueKind::Set),
            b'>' => Self::aggregate(buf, at, ValueKind::Push),
            b'|' => Self::aggregate(buf, at, ValueKind::Attribute),
            b'=' => self.bulk(buf, at, ValueKind::VerbatimString),
            b'!' => self.bulk(buf, at, ValueKind::BulkError),
            b'+' => self.line(buf, at, ValueKind::SimpleString),
            b'-' => self.line(buf, at, ValueKind::SimpleError),
            b':' => self.line(buf, at, ValueKind::Integer),
            b'_' => self.line(buf, at, ValueKind::Null),
            b'#' => self.line(buf, at, ValueKind::Boolean),
            b',' => self.line(buf, at, ValueKind::Double),
            b'(' => self.line(buf, at, ValueKind::BigNumber),
            b';' if in_string => match header::read(buf, at)? {
                Some((Length::Of(0), end)) => Ok(Step::End(end)),
                _ => self.bulk(buf, at, ValueKind::BulkString),
            },
            b'.' if self.top.streamed => match (buf.get(at + 1), buf.get(at + 2)) {
                (Some(b'\r'), Some(b'\n')) => Ok(Step::End(at + 3)),
                (Some(b'\r') | None, None) => Ok(Step::Partial(buf.len() + 1)),
                _ => Err(ProtocolError::InvalidLine),
            },
            b';' | b'.' => Err(ProtocolError::UnexpectedChunk),
            other => Err(ProtocolError::UnknownType(other)),
        }
    }

    #[inline]
    #[expect(clippy::arithmetic_side_effects, reason = "positions lie in the buffer, counts within the limits")]
    fn aggregate(buf: &[u8], at: usize, kind: ValueKind) -> Result<Step, ProtocolError> {
        match header::read(buf, at)? {
            None => Ok(Step::Partial(buf.len() + 1)),
            Some((Length::Null, end)) if kind == ValueKind::Array => {
                Ok(Step::Scalar(Node { a: offset(end), b: 0, kind: ValueKind::Null }, end))
            }
            Some((Length::Null, _)) => Err(ProtocolError::InvalidLength),
            Some((length, end)) => Ok(Step::Header(kind, length, end)),
        }
    }

    #[inline]
    #[expect(clippy::arithmetic_side_effects, reason = "positions lie in the buffer, counts within the limits")]
    fn bulk(&self, buf: &[u8], at: usize, kind: ValueKind) -> Result<Step, ProtocolError> {
        let (len, start) = match header::read(buf, at)? {
            Some((Length::Of(len), start)) => (len, start),
            None => return Ok(Step::Partial(buf.len() + 1)),
            // A chunk (`;`) cannot be null or streamed itself.
            Some((Length::Null, end)) if buf.get(at) == Some(&b'$') => {
                return Ok(Step::Scalar(Node { a: offset(end), b: 0, kind: ValueKind::Null }, end));
            }
            Some((Length::Streamed, end)) if buf.get(at) == Some(&b'$') => {
                return Ok(Step::Header(ValueKind::StreamedString, Length::Streamed, end));
            }
            Some(_) => return Err(ProtocolError::InvalidLength),
        };
        if len > self.limits.bulk {
            return Err(ProtocolError::BulkTooLong);
        }
        let end = start.saturating_add(len).min(usize::MAX - 2);
        match buf.get(end..end + 2) {
            Some(b"\r\n") => {}
            Some(_) => return Err(ProtocolError::MissingTerminator),
            None => return Ok(Step::Partial(end + 2)),
        }
        if kind == ValueKind::VerbatimString {
            if len < 4 || buf.get(start + 3) != Some(&b':') {
                return Err(ProtocolError::InvalidVerbatim);
            }
            return Ok(Step::Scalar(Node { a: offset(start + 4), b: offset(len - 4), kind }, end + 2));
        }
        Ok(Step::Scalar(Node { a: offset(start), b: offset(len), kind }, end + 2))
    }

    #[expect(clippy::arithmetic_side_effects, reason = "positions lie in the buffer, counts within the limits")]
    fn line(&mut self, buf: &[u8], at: usize, kind: ValueKind) -> Result<Step, ProtocolError> {
        let start = at + 1;
        let from = self.scanned.max(start);
        // The longest line, and the first byte of its end.
        let window = buf.len().min(start.saturating_add(self.limits.bulk).saturating_add(1));
        let Some(found) = memchr2(b'\r', b'\n', buf.get(from..window).unwrap_or_default()) else {
            self.scanned = window;
            if window - start > self.limits.bulk {
                return Err(ProtocolError::BulkTooLong);
            }
            return Ok(Step::Partial(buf.len() + 1));
        };
        let end = from + found;
        match (buf.get(end), buf.get(end + 1)) {
            (Some(b'\r'), Some(b'\n')) => {}
            (Some(b'\r'), None) => {
                self.scanned = end;
                return Ok(Step::Partial(end + 2));
            }
            _ => return Err(ProtocolError::InvalidLine),
        }
        let text = buf.get(start..end).unwrap_or_default();
        match kind {
            ValueKind::Integer if number::parse_i64(text).is_none() => return Err(ProtocolError::InvalidInteger),
            ValueKind::Double if parse_double(text).is_none() => return Err(ProtocolError::InvalidDouble),
            ValueKind::BigNumber if !is_big_number(text) => return Err(ProtocolError::InvalidBigNumber),
            ValueKind::Boolean if !matches!(text, b"t" | b"f") => return Err(ProtocolError::InvalidBoolean),
            ValueKind::Null if !text.is_empty() => return Err(ProtocolError::InvalidNull),
            _ => {}
        }
        Ok(Step::Scalar(Node { a: offset(start), b: offset(end - start), kind }, end + 2))
    }
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new(DecoderLimits::default())
    }
}

/// Parses a RESP3 double. Redis before 7.2 could send `-nan`.
pub(super) fn parse_double(text: &[u8]) -> Option<f64> {
    if text == b"-nan" {
        return Some(f64::NAN);
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

fn is_big_number(text: &[u8]) -> bool {
    let digits = match text.split_first() {
        Some((b'+' | b'-', digits)) => digits,
        _ => text,
    };
    !digits.is_empty() && digits.iter().all(u8::is_ascii_digit)
}
