//! A decoded frame, which owns its bytes and its tape.

use std::fmt;
use std::slice;

use bytes::{Bytes, BytesMut};

use super::attributes::SideTable;
use super::cast::{index, offset};
use super::kind::{Node, ValueKind};
use super::value::{Value, ValuePairs};

/// One complete RESP frame: its bytes, which share the read buffer, and its parsed structure.
///
/// A clone shares the bytes. A frame, or a [`Bytes`] taken from it, keeps the whole block of the
/// read buffer alive that it arrived in: up to 2 MiB, even for a few bytes. Copy what you keep for
/// long.
#[derive(Clone)]
pub struct Frame {
    bytes: Bytes,
    tape: Tape,
}

#[derive(Clone)]
enum Tape {
    /// Most replies are one scalar, which needs no allocation.
    Scalar(Node),
    /// Everything else.
    Tree { nodes: Vec<Node>, side_table: Option<Box<SideTable>> },
}

/// Replaces a missing value, which no decoded frame has.
static NOTHING: Node = Node { a: 0, b: 0, kind: ValueKind::Null };

impl Frame {
    pub(super) const fn scalar(bytes: Bytes, node: Node) -> Self {
        Self { bytes, tape: Tape::Scalar(node) }
    }

    pub(super) const fn tree(bytes: Bytes, nodes: Vec<Node>, side_table: Option<Box<SideTable>>) -> Self {
        Self { bytes, tape: Tape::Tree { nodes, side_table } }
    }

    pub(super) fn into_tape(self) -> Vec<Node> {
        match self.tape {
            Tape::Scalar(_) => Vec::new(),
            Tape::Tree { nodes, .. } => nodes,
        }
    }

    fn nodes(&self) -> &[Node] {
        match &self.tape {
            Tape::Scalar(node) => slice::from_ref(node),
            Tape::Tree { nodes, .. } => nodes,
        }
    }

    fn side_table(&self) -> Option<&SideTable> {
        match &self.tape {
            Tape::Tree { side_table, .. } => side_table.as_deref(),
            Tape::Scalar(_) => None,
        }
    }

    /// Returns the value of the frame.
    #[must_use]
    #[inline]
    pub fn value(&self) -> Value<'_> {
        match self.nodes().split_first() {
            Some((node, below)) => Value::new(&self.bytes, node, below),
            None => Value::new(&[], &NOTHING, &[]),
        }
    }

    /// Returns the value at an index on the tape.
    #[inline]
    pub(crate) fn value_at(&self, place: u32) -> Value<'_> {
        match self.nodes().get(index(place)..).and_then(<[Node]>::split_first) {
            Some((node, below)) => Value::new(&self.bytes, node, below),
            None => Value::new(&[], &NOTHING, &[]),
        }
    }

    /// Returns the index of a value on the tape.
    #[inline]
    pub(crate) fn place_of(&self, value: Value<'_>) -> u32 {
        offset(self.nodes().len().saturating_sub(value.below.len().saturating_add(1)))
    }

    /// Returns the pairs of the attributes (`|`) of the frame's value; usually none.
    #[must_use]
    pub fn attributes(&self) -> ValuePairs<'_> {
        self.attributes_of(self.value())
    }

    /// Returns the pairs of the attributes (`|`) of a value in this frame; usually none. Attributes
    /// of attributes are dropped.
    ///
    /// ```
    /// # use bytes::BytesMut;
    /// # use resp::Decoder;
    /// let wire = "*2\r\n:1\r\n|1\r\n+ttl\r\n:3600\r\n:2\r\n";
    /// let frame = Decoder::default().decode(&mut BytesMut::from(wire))?.expect("complete");
    /// for element in frame.value().children() {
    ///     let ttl = frame.attributes_of(element).next().and_then(|(_, value)| value.as_int());
    ///     assert_eq!(ttl, if element.as_int() == Some(2) { Some(3600) } else { None });
    /// }
    /// # Ok::<(), resp::ProtocolError>(())
    /// ```
    #[must_use]
    pub fn attributes_of<'a>(&'a self, value: Value<'a>) -> ValuePairs<'a> {
        let found = self.side_table().filter(|_| self.contains(value));
        let pairs = match found.and_then(|side_table| side_table.attributes.of(self.place_of(value))) {
            Some((attribute, below)) => Value::new(&self.bytes, attribute, below),
            None => Value::new(&[], &NOTHING, &[]),
        };
        pairs.pairs()
    }

    /// Returns whether a value is on this frame's tape.
    fn contains(&self, value: Value<'_>) -> bool {
        self.nodes().as_ptr_range().contains(&std::ptr::from_ref(value.node))
    }

    /// Returns the type of the value.
    #[must_use]
    #[inline]
    pub fn kind(&self) -> ValueKind {
        self.value().kind()
    }

    /// Returns the frame as received.
    #[must_use]
    pub fn as_wire(&self) -> &Bytes {
        self.side_table().and_then(|side_table| side_table.wire.as_ref()).unwrap_or(&self.bytes)
    }

    /// Returns a value's content as [`Bytes`] that share the frame's buffer. Copies if the value
    /// belongs to another frame; empty if the value has no content.
    ///
    /// ```
    /// # use bytes::BytesMut;
    /// # use resp::Decoder;
    /// let frame = Decoder::default().decode(&mut BytesMut::from("$5\r\nhello\r\n"))?.expect("complete");
    /// let text: bytes::Bytes = frame.slice(frame.value());
    /// drop(frame);
    /// assert_eq!(text, "hello");
    /// # Ok::<(), resp::ProtocolError>(())
    /// ```
    #[must_use]
    pub fn slice(&self, value: Value<'_>) -> Bytes {
        self.share(value.as_bytes().unwrap_or_default())
    }

    /// Returns a part of the frame as [`Bytes`] that share the frame's buffer. Copies if the part
    /// is elsewhere.
    #[must_use]
    pub fn share(&self, part: &[u8]) -> Bytes {
        let start = part.as_ptr().addr().wrapping_sub(self.bytes.as_ptr().addr());
        match start.checked_add(part.len()) {
            Some(end) if end <= self.bytes.len() => self.bytes.slice(start..end),
            _ => Bytes::copy_from_slice(part),
        }
    }

    /// Returns a value of this frame as a frame, which shares the bytes.
    #[must_use]
    pub fn extract(&self, value: Value<'_>) -> Self {
        if !std::ptr::eq(value.bytes, &raw const *self.bytes) {
            // Offsets of another frame mean nothing here.
            return Self { bytes: Bytes::copy_from_slice(value.bytes), tape: value.to_tape(None) };
        }
        let side_table = self.side_table().filter(|_| self.contains(value)).and_then(|side_table| {
            let attributes = side_table.attributes.within(self.place_of(value), value.node.span());
            let side_table = SideTable { attributes, joined: Vec::new(), wire: side_table.wire.clone() };
            (side_table.wire.is_some() || !side_table.attributes.is_empty()).then(|| Box::new(side_table))
        });
        Self { bytes: self.bytes.clone(), tape: value.to_tape(side_table) }
    }

    /// Replaces the texts of errors at any depth, also in attributes. Their received bytes are
    /// overwritten.
    pub(crate) fn replace_errors(mut self, mut replacement: impl FnMut(Value<'_>) -> Option<String>) -> Self {
        let Tape::Tree { nodes, side_table } = &mut self.tape else { return self };
        let attributes = side_table.iter().flat_map(|side_table| &side_table.attributes.nodes);
        let mut errors = nodes.iter().chain(attributes).filter(|node| node.kind.is_error());
        if !errors.any(|node| replacement(Value::new(&self.bytes, node, &[])).is_some()) {
            return self;
        }
        let side_table = side_table.get_or_insert_default();
        let received = side_table.wire.as_ref().map_or(self.bytes.len(), Bytes::len);
        let mut bytes = BytesMut::from(&*self.bytes);
        for node in nodes.iter_mut().chain(&mut side_table.attributes.nodes).filter(|node| node.kind.is_error()) {
            let Some(text) = replacement(Value::new(&self.bytes, node, &[])) else { continue };
            let start = index(node.a);
            if let Some(content) = bytes.get_mut(start..start.wrapping_add(index(node.b))) {
                content.fill(b'*');
            }
            // The tape refers to the new text after the received bytes.
            (node.a, node.b) = (offset(bytes.len()), offset(text.len()));
            bytes.extend_from_slice(text.as_bytes());
        }
        self.bytes = bytes.freeze();
        side_table.wire = Some(self.bytes.slice(..received));
        self
    }

    /// Copies the frame to memory of exactly its size, so that it keeps no block of the read buffer
    /// alive.
    pub(crate) fn compact(self) -> Self {
        let bytes = Bytes::copy_from_slice(&self.bytes);
        let tape = match self.tape {
            Tape::Tree { mut nodes, mut side_table } => {
                nodes.shrink_to_fit();
                if let Some(side_table) = &mut side_table {
                    side_table.attributes.shrink_to_fit();
                    side_table.wire = side_table.wire.as_ref().map(|wire| bytes.slice(..wire.len()));
                }
                Tape::Tree { nodes, side_table }
            }
            scalar @ Tape::Scalar(_) => scalar,
        };
        Self { bytes, tape }
    }

    /// Returns how many bytes a [compact](Self::compact) frame takes.
    pub(crate) fn memory(&self) -> usize {
        let attributes = self
            .side_table()
            .map_or(0, |side_table| size_of::<SideTable>().saturating_add(side_table.attributes.memory()));
        let parts = [self.bytes.len(), size_of_val(self.nodes()), attributes];
        parts.into_iter().fold(size_of::<Self>(), usize::saturating_add)
    }
}

impl Value<'_> {
    fn to_tape(self, side_table: Option<Box<SideTable>>) -> Tape {
        let span = self.node.span();
        if span == 1 && !self.kind().is_aggregate() && side_table.is_none() {
            return Tape::Scalar(*self.node);
        }
        let mut nodes = Vec::with_capacity(span);
        nodes.push(*self.node);
        nodes.extend_from_slice(self.below.get(..span.saturating_sub(1)).unwrap_or_default());
        Tape::Tree { nodes, side_table }
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value().fmt(f)
    }
}

/// Frames are equal if their values are, whatever their encoding.
impl PartialEq for Frame {
    fn eq(&self, other: &Self) -> bool {
        self.value() == other.value()
    }
}
