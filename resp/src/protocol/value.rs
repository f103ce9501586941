//! Views of the values in a frame.

use std::fmt;

use super::cast::index;
use super::decoder::parse_double;
use super::kind::{Node, ValueKind};
use super::number;

/// A view of one value in a [`Frame`](super::Frame): cheap to copy, and borrows everything.
///
/// Methods that do not fit the value's kind return `None` or an empty iterator, so no reply makes
/// them fail.
///
/// ```
/// # use bytes::BytesMut;
/// # use resp::{Decoder, ValueKind};
/// let frame = Decoder::default().decode(&mut BytesMut::from("%1\r\n+length\r\n:3\r\n"))?.expect("complete");
/// let map = frame.value();
/// assert_eq!(map.kind(), ValueKind::Map);
/// assert_eq!(map.get(b"length").and_then(|n| n.as_int()), Some(3));
/// assert_eq!(map.as_int(), None);
/// # Ok::<(), resp::ProtocolError>(())
/// ```
#[derive(Clone, Copy)]
pub struct Value<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) node: &'a Node,
    /// All nodes after this one up to the end of the tape, its children first.
    pub(super) below: &'a [Node],
}

impl<'a> Value<'a> {
    #[inline]
    pub(super) const fn new(bytes: &'a [u8], node: &'a Node, below: &'a [Node]) -> Self {
        Self { bytes, node, below }
    }

    /// Returns the value's type.
    #[must_use]
    #[inline]
    pub const fn kind(self) -> ValueKind {
        self.node.kind
    }

    /// Returns whether the value is null.
    #[must_use]
    #[inline]
    pub const fn is_null(self) -> bool {
        matches!(self.node.kind, ValueKind::Null)
    }

    /// Returns the content of a string, number, boolean or error; `None` for null and aggregates. A
    /// streamed string is joined.
    #[must_use]
    #[inline]
    pub fn as_bytes(self) -> Option<&'a [u8]> {
        if self.node.kind.is_aggregate() || self.is_null() { self.joined() } else { Some(self.content(self.node)) }
    }

    /// Returns a streamed string in one piece.
    #[cold]
    fn joined(self) -> Option<&'a [u8]> {
        if self.kind() != ValueKind::StreamedString {
            return None;
        }
        // Its last node, after those of the chunks, is the joined string.
        self.below.get(self.node.span().checked_sub(2)?).map(|joined| self.content(joined))
    }

    #[inline]
    fn text(self) -> &'a [u8] {
        if self.kind() == ValueKind::StreamedString {
            self.joined().unwrap_or_default()
        } else {
            self.content(self.node)
        }
    }

    #[inline]
    fn content(self, node: &Node) -> &'a [u8] {
        let start = index(node.a);
        self.bytes.get(start..start.wrapping_add(index(node.b))).unwrap_or_default()
    }

    /// Returns the content as text, if it is UTF-8.
    #[must_use]
    pub fn as_str(self) -> Option<&'a str> {
        std::str::from_utf8(self.as_bytes()?).ok()
    }

    /// Returns the number of an integer, or of a string or big number in decimal.
    #[must_use]
    pub fn as_int(self) -> Option<i64> {
        match self.kind() {
            ValueKind::Integer
            | ValueKind::BulkString
            | ValueKind::SimpleString
            | ValueKind::StreamedString
            | ValueKind::BigNumber => number::parse_i64(self.text()),
            _ => None,
        }
    }

    /// Returns the number, if it is not negative.
    #[must_use]
    pub fn as_u64(self) -> Option<u64> {
        match self.kind() {
            ValueKind::Integer
            | ValueKind::BulkString
            | ValueKind::SimpleString
            | ValueKind::StreamedString
            | ValueKind::BigNumber => {
                let text = self.text();
                number::parse_u64(text.strip_prefix(b"+").unwrap_or(text))
            }
            _ => None,
        }
    }

    /// Returns the number of a double, or of an integer or string in decimal.
    #[must_use]
    pub fn as_f64(self) -> Option<f64> {
        match self.kind() {
            ValueKind::Double
            | ValueKind::Integer
            | ValueKind::BulkString
            | ValueKind::SimpleString
            | ValueKind::StreamedString => parse_double(self.text()),
            _ => None,
        }
    }

    /// Returns the value of a boolean, or of the integers 1 and 0 that replace it in RESP2.
    #[must_use]
    pub fn as_bool(self) -> Option<bool> {
        match (self.kind(), self.text()) {
            (ValueKind::Boolean, b"t") | (ValueKind::Integer, b"1") => Some(true),
            (ValueKind::Boolean, b"f") | (ValueKind::Integer, b"0") => Some(false),
            _ => None,
        }
    }

    /// Returns the text of an error.
    #[must_use]
    pub fn as_error(self) -> Option<&'a [u8]> {
        self.kind().is_error().then(|| self.text())
    }

    /// Returns the three-letter format of a verbatim string, such as `txt` or `mkd`.
    #[must_use]
    pub fn format(self) -> Option<&'a [u8]> {
        if self.kind() != ValueKind::VerbatimString {
            return None;
        }
        let start = index(self.node.a);
        self.bytes.get(start.checked_sub(4)?..start.checked_sub(1)?)
    }

    /// Returns the children in order: elements, alternating keys and values, or the chunks of a
    /// streamed string. Other values have none; the length of a string is that of
    /// [`as_bytes`](Self::as_bytes).
    ///
    /// ```
    /// # use bytes::BytesMut;
    /// # use resp::Decoder;
    /// let frame = Decoder::default().decode(&mut BytesMut::from("*2\r\n:1\r\n:2\r\n"))?.expect("complete");
    /// assert_eq!(frame.value().children().len(), 2);
    /// # Ok::<(), resp::ProtocolError>(())
    /// ```
    #[must_use]
    #[inline]
    pub const fn children(self) -> ValueChildren<'a> {
        let left = if self.node.kind.is_aggregate() { index(self.node.a) } else { 0 };
        ValueChildren { bytes: self.bytes, nodes: self.below, left }
    }

    /// Returns the children in pairs, of a map or of the flat array that replaces it in RESP2.
    #[must_use]
    pub fn pairs(self) -> ValuePairs<'a> {
        ValuePairs::new(self.children())
    }

    /// Returns the value of a key, in a map or in the flat array that replaces it in RESP2. The
    /// first one wins.
    #[must_use]
    pub fn get(self, key: &[u8]) -> Option<Self> {
        self.pairs().find(|(name, _)| name.as_bytes() == Some(key)).map(|(_, value)| value)
    }
}

/// Iterates over the children of a [`Value`].
#[derive(Clone, Copy)]
pub struct ValueChildren<'a> {
    bytes: &'a [u8],
    /// The next child, and everything after it.
    nodes: &'a [Node],
    left: usize,
}

impl<'a> Iterator for ValueChildren<'a> {
    type Item = Value<'a>;

    #[inline]
    fn next(&mut self) -> Option<Value<'a>> {
        self.left = self.left.checked_sub(1)?;
        let (node, below) = self.nodes.split_first()?;
        let value = Value { bytes: self.bytes, node, below };
        self.nodes = below.get(node.span().wrapping_sub(1)..).unwrap_or_default();
        Some(value)
    }

    #[inline]
    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for ValueChildren<'_> {}

impl fmt::Debug for ValueChildren<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(*self).finish()
    }
}

/// Iterates over keys and values of a [`Value`].
#[derive(Clone, Copy)]
pub struct ValuePairs<'a> {
    children: ValueChildren<'a>,
}

impl<'a> ValuePairs<'a> {
    const fn new(children: ValueChildren<'a>) -> Self {
        Self { children }
    }
}

impl<'a> Iterator for ValuePairs<'a> {
    type Item = (Value<'a>, Value<'a>);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        Some((self.children.next()?, self.children.next()?))
    }

    #[inline]
    fn size_hint(&self) -> (usize, Option<usize>) {
        let pairs = self.children.left / 2;
        (pairs, Some(pairs))
    }
}

impl fmt::Debug for ValuePairs<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(*self).finish()
    }
}

impl fmt::Debug for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind() {
            ValueKind::Null => f.write_str("null"),
            ValueKind::Map | ValueKind::Attribute => self.pairs().fmt(f),
            ValueKind::Array | ValueKind::Set | ValueKind::StreamedString => self.children().fmt(f),
            ValueKind::Push => write!(f, "push {:?}", self.children()),
            ValueKind::SimpleError | ValueKind::BulkError => write!(f, "error \"{}\"", self.text().escape_ascii()),
            ValueKind::BulkString | ValueKind::SimpleString | ValueKind::VerbatimString => {
                write!(f, "\"{}\"", self.text().escape_ascii())
            }
            ValueKind::Integer | ValueKind::Boolean | ValueKind::Double | ValueKind::BigNumber => {
                write!(f, "{}", self.text().escape_ascii())
            }
        }
    }
}

/// Values are equal if kind, content and children are.
impl PartialEq for Value<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.kind() == other.kind()
            && self.as_bytes() == other.as_bytes()
            && self.format() == other.format()
            && self.children().len() == other.children().len()
            && self.children().eq(other.children())
    }
}
