use bytes::{Bytes, BytesMut};

use super::cast::{index, offset};
use super::kind::{Node, ValueKind};

/// What few frames have: attributes, and streamed strings in one piece.
#[derive(Clone, Debug, Default)]
pub(super) struct SideTable {
    pub(super) attributes: Attributes,
    /// Streamed strings of several chunks, one behind the other. In the end they lie behind the
    /// frame's bytes.
    pub(super) joined: Vec<u8>,
    /// The frame as it came, when it has joined strings behind it.
    pub(super) wire: Option<Bytes>,
}

impl SideTable {
    /// Puts the joined strings behind the frame's bytes, where the tape can point to them.
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

/// Says where joined strings lie: before, they were counted from the first one.
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

/// The attributes in a frame, beside the tape, so that values cost nothing who have none.
#[derive(Clone, Debug, Default)]
pub(super) struct Attributes {
    /// One attribute behind the other, each with its pairs.
    pub(super) nodes: Vec<Node>,
    /// The place on the tape of the value that is described, and where its attribute begins. In
    /// order.
    index: Vec<(u32, u32)>,
}

impl Attributes {
    /// Adds what a tape has from a place on: an attribute, which describes the value that comes to
    /// that place.
    pub(super) fn add(&mut self, place: usize, attribute: &[Node]) {
        // Attributes in attributes are not kept.
        while self.index.last().is_some_and(|(last, _)| index(*last) > place) {
            if let Some((_, start)) = self.index.pop() {
                self.nodes.truncate(index(start));
            }
        }
        let Some((head, pairs)) = attribute.split_first() else { return };
        match self.index.last() {
            // A further one of the same value adds to the first.
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

    /// The attribute of the value at a place, and the nodes behind it.
    pub(super) fn of(&self, place: u32) -> Option<(&Node, &[Node])> {
        let found = self.index.binary_search_by_key(&place, |(place, _)| *place).ok()?;
        let (_, start) = self.index.get(found)?;
        self.nodes.get(index(*start)..)?.split_first()
    }

    /// Those of a part of the tape, as if it were a tape of its own.
    pub(super) fn within(&self, place: u32, span: usize) -> Self {
        let mut part = Self::default();
        // They are in order, so that a frame that is taken apart costs no more than its own length.
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

    /// What they take, in bytes.
    pub(super) fn memory(&self) -> usize {
        size_of_val(&self.nodes[..]).saturating_add(size_of_val(&self.index[..]))
    }

    /// Whether there is one of a value that would come to a place.
    pub(super) fn has_pending(&self, place: usize) -> bool {
        self.index.last().is_some_and(|(last, _)| index(*last) == place)
    }
}
