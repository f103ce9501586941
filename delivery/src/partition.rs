//! Partitions: one source in several streams.
//!
//! A content is divided into blocks by offset alone: [`SMALL`] bytes each below [`LARGE_FROM`], so
//! that small files are distributed too, and [`LARGE`] bytes each from there on. A whole line
//! belongs to the block that contains its first byte. Block `b` belongs to partition `b mod N`.
//! So `N` and the content determine the partition of each line. Each partition is
//! a source of its own: ordered, and with the last ID of its stream as the checkpoint.

use crate::entry::Span;

/// The size of the first blocks: 64 KiB.
pub const SMALL: u64 = 64 << 10;
/// The offset from which on blocks have the larger size: 16 MiB.
pub const LARGE_FROM: u64 = 16 << 20;
/// The size of the larger blocks: 1 MiB.
pub const LARGE: u64 = 1 << 20;
/// Maximum number of partitions: the number of slots of a Redis Cluster.
pub const MAX: u32 = 16384;

/// The number of small blocks.
const SMALL_BLOCKS: u64 = LARGE_FROM / SMALL;

/// The index of the block that contains this offset.
const fn block_of(offset: u64) -> u64 {
    match offset.checked_sub(LARGE_FROM) {
        None => offset / SMALL,
        Some(behind) => (behind / LARGE).saturating_add(SMALL_BLOCKS),
    }
}

/// The start of a block; `u64::MAX` if it exceeds all offsets.
const fn start_of(block: u64) -> u64 {
    match block.checked_sub(SMALL_BLOCKS) {
        None => block.saturating_mul(SMALL),
        Some(large) => large.saturating_mul(LARGE).saturating_add(LARGE_FROM),
    }
}

/// A partition of a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Partition {
    index: u32,
    count: u32,
    /// The factor by which blocks are smaller than in production; 1 except in simulations.
    scale: u64,
}

impl Partition {
    /// The only partition of an unpartitioned source.
    pub const WHOLE: Self = Self { index: 0, count: 1, scale: 1 };

    /// Partition `index` of `count`. `None` unless `index < count` and `count` is at most [`MAX`].
    #[must_use]
    pub const fn new(index: u32, count: u32) -> Option<Self> {
        if index < count && count <= MAX { Some(Self { index, count, scale: 1 }) } else { None }
    }

    /// Makes blocks smaller by this factor, at least 1; for simulations of small files.
    #[must_use]
    pub const fn with_scale(self, scale: u64) -> Self {
        Self { scale: if scale == 0 { 1 } else { scale }, ..self }
    }

    const fn block_of(self, offset: u64) -> u64 {
        block_of(offset.saturating_mul(self.scale))
    }

    #[allow(clippy::arithmetic_side_effects, reason = "the scale is at least 1")]
    const fn start_of(self, block: u64) -> u64 {
        start_of(block) / self.scale
    }

    /// The index of the partition that has this block.
    #[allow(clippy::arithmetic_side_effects, reason = "there is at least one partition")]
    const fn owner_of(self, block: u64) -> u64 {
        block % self.count as u64
    }

    /// All `count` partitions.
    pub fn all(count: u32) -> impl Iterator<Item = Self> {
        (0..count).filter_map(move |index| Self::new(index, count))
    }

    /// The index, from 0.
    #[must_use]
    pub const fn index(self) -> u32 {
        self.index
    }

    /// The number of partitions.
    #[must_use]
    pub const fn count(self) -> u32 {
        self.count
    }

    /// Whether this is the only partition.
    #[must_use]
    pub const fn is_whole(self) -> bool {
        self.count == 1
    }

    /// The key of the partition's stream; `stream` is the key of the source. The only partition
    /// uses `stream` itself. Otherwise the key is `<stream>:{<index>}`, whose hash tag distributes
    /// the streams over a Redis Cluster.
    ///
    /// ```
    /// use delivery::partition::Partition;
    /// assert_eq!(Partition::WHOLE.stream("line_stream"), "line_stream");
    /// assert_eq!(Partition::new(2, 3).unwrap().stream("line_stream"), "line_stream:{2}");
    /// ```
    #[must_use]
    pub fn stream(self, stream: &str) -> String {
        if self.is_whole() { stream.to_owned() } else { format!("{stream}:{{{}}}", self.index) }
    }

    /// Whether a line that begins at this offset belongs to this partition.
    #[must_use]
    pub const fn owns(self, offset: u64) -> bool {
        self.is_whole() || self.owner_of(self.block_of(offset)) == self.index as u64
    }

    /// The end of the run of owned offsets that begins at `offset`; `offset` itself if this
    /// partition does not own it.
    #[must_use]
    pub const fn run_end(self, offset: u64) -> u64 {
        if self.is_whole() {
            u64::MAX
        } else if self.owns(offset) {
            self.start_of(self.block_of(offset).saturating_add(1))
        } else {
            offset
        }
    }

    /// The start of the block that contains `offset` if this partition owns it; else `offset`.
    #[must_use]
    pub const fn run_start(self, offset: u64) -> u64 {
        if self.is_whole() || !self.owns(offset) { offset } else { self.start_of(self.block_of(offset)) }
    }

    /// The first owned offset at or after `offset`.
    #[must_use]
    pub const fn next(self, offset: u64) -> u64 {
        if self.owns(offset) {
            return offset;
        }
        let (block, count, index) = (self.block_of(offset), self.count as u64, self.index as u64);
        let owner = self.owner_of(block);
        let blocks = if owner <= index {
            index.saturating_sub(owner)
        } else {
            index.saturating_add(count).saturating_sub(owner)
        };
        self.start_of(block.saturating_add(blocks))
    }

    /// The end of the last part of `span` that certainly contains lines of this partition: `span`
    /// begins inside the block of that part, or covers the block. The first bytes of a block alone
    /// may be the end of a line of another partition.
    #[must_use]
    pub fn last_within(self, span: &Span) -> Option<u64> {
        if self.is_whole() {
            return Some(span.end);
        }
        let last = self.block_of(span.end.checked_sub(1)?);
        let blocks = (self.block_of(span.start)..=last).rev().take((self.count as usize).saturating_mul(2));
        blocks.filter(|block| self.owns(self.start_of(*block))).find_map(|block| {
            let (start, end) = (self.start_of(block), self.start_of(block.saturating_add(1)));
            (span.start >= start || span.end >= end).then_some(end.min(span.end))
        })
    }

    /// The parts of `span` inside the blocks of this partition. Assigns bytes to the block that
    /// contains them, not to the block in which their line begins. The result is therefore exact
    /// except for one line per block.
    pub fn within(self, span: Span) -> impl Iterator<Item = Span> {
        let mut at = span.start;
        std::iter::from_fn(move || {
            at = self.next(at);
            let part = at..self.run_end(at).min(span.end);
            at = part.end;
            (part.start < part.end).then_some(part)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn offsets() -> impl Strategy<Value = u64> {
        prop_oneof![
            0..4 * SMALL,
            LARGE_FROM - 2 * SMALL..LARGE_FROM + 2 * LARGE,
            0u64..1 << 45,
            (0u64..1 << 20, -1i64..=1).prop_map(|(block, by)| start_of(block).saturating_add_signed(by)),
        ]
    }

    #[test]
    fn the_only_partition_owns_everything() {
        assert!(Partition::WHOLE.owns(0) && Partition::WHOLE.owns(u64::MAX));
        assert_eq!(Partition::WHOLE.next(77), 77);
        assert_eq!(Partition::WHOLE.run_end(77), u64::MAX);
        assert_eq!(Partition::WHOLE.run_start(77), 77);
        assert_eq!(Partition::new(3, 3), None);
        assert_eq!(Partition::new(0, MAX + 1), None);
    }

    #[test]
    fn blocks_are_larger_from_16_mib_on() {
        let third = Partition::new(2, 3).unwrap();
        assert_eq!(third.next(0), 2 * SMALL);
        assert_eq!(third.run_end(2 * SMALL), 3 * SMALL);
        // 256 small blocks: the 257th is the first large one, and 256 mod 3 is 1.
        let second = Partition::new(1, 3).unwrap();
        assert!(second.owns(LARGE_FROM));
        assert_eq!(second.run_end(LARGE_FROM), LARGE_FROM + LARGE);
        assert_eq!(second.next(LARGE_FROM + LARGE), LARGE_FROM + 3 * LARGE);
    }

    #[test]
    fn the_beginning_of_a_block_may_belong_to_another_partition() {
        let second = Partition::new(1, 3).unwrap();
        let last = |span: Span| second.last_within(&span);
        assert_eq!(last(0..SMALL + 7), None, "the end of the first one's last line");
        assert_eq!(last(0..2 * SMALL), Some(2 * SMALL));
        assert_eq!(last(0..3 * SMALL), Some(2 * SMALL));
        assert_eq!(last(SMALL + 7..SMALL + 99), Some(SMALL + 99));
        assert_eq!(last(0..4 * SMALL + 7), Some(2 * SMALL), "nothing is certain about the next block");
        assert_eq!(last(2 * SMALL..4 * SMALL + 7), None);
        assert_eq!((last(3 * SMALL..4 * SMALL), last(5..5), last(0..0)), (None, None, None));
        assert_eq!(Partition::WHOLE.last_within(&(3..9)), Some(9));
    }

    proptest! {
        #[test]
        fn every_offset_has_one_owner_and_all_methods_agree(offset in offsets(), count in 1u32..50) {
            let owners: Vec<_> = Partition::all(count).filter(|p| p.owns(offset)).collect();
            prop_assert_eq!(owners.len(), 1);
            for partition in Partition::all(count) {
                let next = partition.next(offset);
                prop_assert!(next >= offset && partition.owns(next));
                prop_assert!(next == offset || !partition.owns(next - 1));
                let end = partition.run_end(next);
                prop_assert!(end > next && partition.owns(end - 1));
                prop_assert!(count == 1 || !partition.owns(end));
            }
        }

        #[test]
        fn the_parts_of_a_span_add_up(start in 0..3 * LARGE_FROM, len in 0..5 * LARGE, count in 1u32..9) {
            let span = start..start + len;
            let mut parts: Vec<Span> = Partition::all(count).flat_map(|p| p.within(span.clone())).collect();
            parts.sort_by_key(|part| part.start);
            let mut at = span.start;
            for part in parts {
                prop_assert_eq!(part.start, at);
                at = part.end;
            }
            prop_assert_eq!(at, span.end);
        }
    }
}
