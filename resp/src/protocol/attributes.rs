//! The side table of a frame: RESP3 attributes and joined strings. The decoder fills it, and the
//! frame owns it.

use bytes::{Bytes, BytesMut};

use super::cast::{index, offset};
use super::kind::{Node, ValueKind};

/// Attributes and joined strings, which few frames have. The decoder fills the table; a
/// [`Frame`](super::Frame) owns it.
#[derive(Clone, Debug, Default)]
pub(super) struct SideTable {
    pub(super) attributes: Attributes,
    /// The joined content of streamed strings. In the finished frame it follows the received bytes.
    pub(super) joined: Vec<u8>,
    /// The frame as received, if joined strings follow it.
    pub(super) wire: Option<Bytes>,
}

impl SideTable {
    /// Appends the joined strings to the frame's bytes, where the tape can refer to them.
    pub(super) fn attach(&mut self, bytes: Bytes, nodes: &mut [Node]) -> Bytes {
        if self.joined.is_empty() {
            return bytes;
        }
        let mut both = BytesMut::with_capacity(bytes.len().saturating_add(self.joined.len()));
        both.extend_from_slice(&bytes);
        both.extend_from_slice(&self.joined);
        self.joined = Vec::new();
        move_joined(nodes, bytes.len());
        move_joined(&mut self.attributes.nodes, bytes.len());
        let both = both.freeze();
        self.wire = Some(both.slice(..bytes.len()));
        both
    }
}

/// Moves the offsets of joined strings, which were relative to the first one.
fn move_joined(nodes: &mut [Node], by: usize) {
    for place in 0..nodes.len() {
        let Some(Node { a: 2.., b: span, kind: ValueKind::StreamedString }) = nodes.get(place).copied() else {
            continue;
        };
        if let Some(joined) = place.checked_add(index(span).wrapping_sub(1)).and_then(|last| nodes.get_mut(last)) {
            joined.a = joined.a.saturating_add(offset(by));
        }
    }
}

/// The attributes of a frame. They are not on the tape, so values without attributes cost nothing.
#[derive(Clone, Debug, Default)]
pub(super) struct Attributes {
    /// All attributes, each followed by its pairs.
    pub(super) nodes: Vec<Node>,
    /// For each described value, its index on the tape and the start of its attribute, in order.
    index: Vec<(u32, u32)>,
}

impl Attributes {
    /// Adds an attribute from the tape. It describes the value that will be at this index.
    pub(super) fn add(&mut self, place: usize, attribute: &[Node]) {
        // Attributes of attributes are dropped.
        while self.index.last().is_some_and(|(last, _)| index(*last) > place) {
            if let Some((_, start)) = self.index.pop() {
                self.nodes.truncate(index(start));
            }
        }
        let Some((head, pairs)) = attribute.split_first() else { return };
        match self.index.last() {
            // A second attribute of a value extends the first.
            Some((last, start)) if index(*last) == place => {
                if let Some(first) = self.nodes.get_mut(index(*start)) {
                    first.a = first.a.saturating_add(head.a);
                    first.b = first.b.saturating_add(offset(pairs.len()));
                }
                self.nodes.extend_from_slice(pairs);
            }
            _ => {
                self.index.push((offset(place), offset(self.nodes.len())));
                self.nodes.push(Node { b: offset(attribute.len()), ..*head });
                self.nodes.extend_from_slice(pairs);
            }
        }
    }

    /// Returns the attribute of the value at an index, and the nodes after it.
    pub(super) fn of(&self, place: u32) -> Option<(&Node, &[Node])> {
        let found = self.index.binary_search_by_key(&place, |(place, _)| *place).ok()?;
        let (_, start) = self.index.get(found)?;
        self.nodes.get(index(*start)..)?.split_first()
    }

    /// Returns the attributes of a part of the tape, as if it were its own tape.
    pub(super) fn within(&self, place: u32, span: usize) -> Self {
        let mut part = Self::default();
        // The index is sorted, so splitting a frame costs no more than its length.
        let from = self.index.partition_point(|(of, _)| *of < place);
        let end = index(place).saturating_add(span);
        for (of, start) in self.index.iter().skip(from).take_while(|(of, _)| index(*of) < end) {
            if let Some((head, below)) = self.nodes.get(index(*start)..).and_then(<[Node]>::split_first) {
                part.index.push((of.saturating_sub(place), offset(part.nodes.len())));
                part.nodes.push(*head);
                part.nodes.extend_from_slice(below.get(..head.span().saturating_sub(1)).unwrap_or_default());
            }
        }
        part
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    pub(super) fn shrink_to_fit(&mut self) {
        self.nodes.shrink_to_fit();
        self.index.shrink_to_fit();
    }

    /// Returns how many bytes they take.
    pub(super) fn memory(&self) -> usize {
        size_of_val(&self.nodes[..]).saturating_add(size_of_val(&self.index[..]))
    }

    /// Returns whether an attribute waits for the value at this index.
    pub(super) fn has_pending(&self, place: usize) -> bool {
        self.index.last().is_some_and(|(last, _)| index(*last) == place)
    }
}
