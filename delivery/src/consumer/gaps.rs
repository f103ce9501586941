//! Detects bytes that were never delivered.
//!
//! Entries of a source arrive in order, so each one must begin where the previous one ended. If it
//! begins later, the bytes in between were deleted from the stream before delivery, by hand or by
//! trimming, and no one will send them again. This conclusion is valid only while no other consumer
//! of the group receives entries. In a source with several partitions, an entry states where the
//! previous one ended, so bytes of other partitions are not a gap.

use crate::entry::Span;
use crate::manifest::{Generation, Manifest, Position};
use crate::partition::Partition;
use crate::ranges::RangeSet;
use std::collections::BTreeMap;

/// Bytes of a content that were not delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    /// The file ID of the content.
    pub file_id: u64,
    /// The bytes.
    pub span: Span,
}

/// The position up to which bytes were delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cursor {
    /// Unknown: other consumers may have received the bytes before the next entry.
    Unknown,
    /// No entry was delivered to the group: the first entry is the first of the source.
    Beginning,
    /// All bytes before this position were delivered.
    At(Position),
}

/// Checks the order of delivered entries.
#[derive(Debug)]
pub(super) struct GapWatch {
    partition: Partition,
    cursor: Cursor,
}

impl GapWatch {
    /// The position is unknown until the next entry.
    pub(super) const fn new(partition: Partition) -> Self {
        Self { partition, cursor: Cursor::Unknown }
    }

    /// The group is new, so the first entry of the source comes first.
    pub(super) const fn begin(&mut self) {
        self.cursor = Cursor::Beginning;
    }

    /// All bytes up to this position were delivered to the group.
    pub(super) fn resume(&mut self, at: Position) {
        self.cursor = match self.cursor {
            Cursor::At(before) => Cursor::At(before.max(at)),
            Cursor::Unknown | Cursor::Beginning => Cursor::At(at),
        };
    }

    /// Other consumers receive entries too: the next entry need not follow the previous one.
    pub(super) const fn forget(&mut self) {
        self.cursor = Cursor::Unknown;
    }

    /// Whether the position after the delivered bytes is known.
    pub(super) const fn is_watching(&self) -> bool {
        !matches!(self.cursor, Cursor::Unknown)
    }

    /// The position after the delivered bytes, if it is known.
    pub(super) const fn position(&self) -> Option<Position> {
        match self.cursor {
            Cursor::At(at) => Some(at),
            Cursor::Unknown | Cursor::Beginning => None,
        }
    }

    /// Bytes of this generation up to `end` were delivered, without a gap before them.
    pub(super) fn advance(&mut self, generation: u64, end: u64) {
        self.resume(Position { generation, offset: end });
    }

    /// Reports an entry. `span` is the range from the end of the previous entry to the end of this
    /// one. Adds skipped bytes to `gaps`, except those in the output. An empty span at the stream's
    /// last ID checks for missing bytes at the end.
    pub(super) fn step(
        &mut self,
        manifest: &Manifest,
        held: &BTreeMap<u64, RangeSet>,
        generation: u64,
        span: &Span,
        gaps: &mut Vec<Gap>,
    ) {
        let at = match self.cursor {
            Cursor::At(at) => Some(at),
            Cursor::Beginning => manifest.first().map(Generation::begin),
            Cursor::Unknown => None,
        };
        let came = Position { generation, offset: span.end };
        self.cursor = Cursor::At(at.map_or(came, |at| at.max(came)));
        let Some(mut at) = at.filter(|&at| at < came) else { return };
        let mut missing = |generation: u64, span: Span| {
            let file_id = manifest.get(generation).map_or(generation, |g| g.file_id);
            gaps.extend(missing_of(self.partition, held.get(&file_id), span).map(|span| Gap { file_id, span }));
        };
        while at.generation < generation {
            let Some(next) = manifest.successor(at.generation) else { break };
            // In a partition, this is the end of its last entry, so the end of a line of another
            // partition is not a gap.
            if let Some(end) = manifest.end(at.generation) {
                missing(at.generation, at.offset..end.max(at.offset));
            }
            at = next.begin();
        }
        if at.generation == generation {
            missing(generation, at.offset..span.start.max(at.offset));
        }
    }
}

/// The missing bytes of `span`, which ends at the end of an entry of this partition: bytes in the
/// partition's own blocks that the output lacks. If there are none, and the end of the span is
/// missing, the missing bytes belong to a line that continues in blocks of other partitions.
pub(super) fn missing_of(partition: Partition, held: Option<&RangeSet>, span: Span) -> impl Iterator<Item = Span> {
    let none = RangeSet::new();
    let end = span.end;
    let not_held: Vec<Span> = held.unwrap_or(&none).missing(span).collect();
    let mut ours: Vec<Span> = not_held.iter().flat_map(|span| partition.within(span.clone())).collect();
    if ours.is_empty() {
        ours.extend(not_held.last().filter(|last| last.end == end).cloned());
    }
    ours.into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(generations: &[(u64, u64, u64, Option<u64>)]) -> Manifest {
        let mut manifest = Manifest::default();
        for &(generation, file_id, start, previous_end) in generations {
            manifest.insert(Generation {
                generation,
                file_id,
                start,
                previous_end,
                previous_guard: None,
                resumes: None,
                created: None,
                real_path: None,
                path: String::new(),
                dev: 0,
                ino: 0,
                head_len: 0,
                head_hash: 0,
            });
        }
        manifest
    }

    fn step(
        watch: &mut GapWatch,
        manifest: &Manifest,
        held: &[(u64, Span)],
        generation: u64,
        span: Span,
    ) -> Vec<(u64, Span)> {
        let mut map: BTreeMap<u64, RangeSet> = BTreeMap::new();
        held.iter().for_each(|(file_id, span)| map.entry(*file_id).or_default().insert(span.clone()));
        let mut gaps = Vec::new();
        watch.step(manifest, &map, generation, &span, &mut gaps);
        gaps.into_iter().map(|gap| (gap.file_id, gap.span)).collect()
    }

    #[test]
    fn what_is_stepped_over_is_a_gap() {
        let manifest = manifest(&[(5, 5, 0, None)]);
        let mut watch = GapWatch::new(Partition::WHOLE);
        assert_eq!(step(&mut watch, &manifest, &[], 5, 100..110), [], "nothing is known of what came before");
        assert_eq!(step(&mut watch, &manifest, &[], 5, 110..120), []);
        assert_eq!(step(&mut watch, &manifest, &[], 5, 150..160), [(5, 120..150)]);
        assert_eq!(step(&mut watch, &manifest, &[], 5, 130..140), [], "below: delivered again");
        assert_eq!(step(&mut watch, &manifest, &[], 5, 160..170), []);
    }

    #[test]
    fn a_new_group_expects_the_first_byte() {
        let manifest = manifest(&[(5, 5, 10, None)]);
        let mut watch = GapWatch::new(Partition::WHOLE);
        watch.begin();
        assert_eq!(step(&mut watch, &manifest, &[], 5, 30..40), [(5, 10..30)]);
        let mut watch = GapWatch::new(Partition::WHOLE);
        watch.begin();
        assert_eq!(step(&mut watch, &manifest, &[(5, 0..25)], 5, 30..40), [(5, 25..30)], "what is held is no gap");
    }

    #[test]
    fn a_new_generation_tells_where_the_one_before_ended() {
        let manifest = manifest(&[(5, 5, 0, None), (6, 6, 0, Some(100)), (7, 7, 0, Some(50)), (8, 8, 0, None)]);
        let mut watch = GapWatch::new(Partition::WHOLE);
        watch.resume(Position { generation: 5, offset: 90 });
        assert_eq!(step(&mut watch, &manifest, &[], 7, 20..30), [(5, 90..100), (6, 0..50), (7, 0..20)]);
        assert_eq!(step(&mut watch, &manifest, &[], 8, 0..30), [], "the previous end is not known");
    }

    #[test]
    fn a_content_that_goes_on_under_another_number_has_no_gap() {
        let manifest = manifest(&[(5, 5, 0, None), (6, 5, 80, None)]);
        let mut watch = GapWatch::new(Partition::WHOLE);
        watch.resume(Position { generation: 5, offset: 90 });
        assert_eq!(step(&mut watch, &manifest, &[(5, 0..90)], 6, 85..95), []);
    }

    #[test]
    fn with_others_in_the_group_nothing_is_expected() {
        let manifest = manifest(&[(5, 5, 0, None)]);
        let mut watch = GapWatch::new(Partition::WHOLE);
        watch.resume(Position { generation: 5, offset: 10 });
        watch.forget();
        assert_eq!(step(&mut watch, &manifest, &[], 5, 50..60), []);
        assert!(watch.is_watching(), "alone again: from here on, it is");
    }

    const BLOCK: u64 = crate::partition::SMALL;

    fn second_of_three() -> GapWatch {
        let mut watch = GapWatch::new(Partition::new(1, 3).unwrap());
        watch.begin();
        watch
    }

    #[test]
    fn a_step_over_other_partitions_is_no_gap() {
        let manifest = manifest(&[(5, 5, 0, None)]);
        let mut watch = second_of_three();
        assert_eq!(step(&mut watch, &manifest, &[], 5, 0..2 * BLOCK + 9), [], "it was the first");
        assert_eq!(step(&mut watch, &manifest, &[], 5, 2 * BLOCK + 9..4 * BLOCK + 50), []);
        assert_eq!(step(&mut watch, &manifest, &[], 5, 4 * BLOCK + 50..4 * BLOCK + 60), [], "it adjoined");
    }

    #[test]
    fn what_is_missing_before_a_step_is_a_gap_in_the_partitions_own_blocks() {
        let manifest = manifest(&[(5, 5, 0, None)]);
        let mut watch = second_of_three();
        let first = step(&mut watch, &manifest, &[], 5, 2 * BLOCK - 10..4 * BLOCK + 50);
        assert_eq!(first, [(5, BLOCK..2 * BLOCK - 10)]);
        let end = 8 * BLOCK + 7;
        let later = step(&mut watch, &manifest, &[(5, 0..4 * BLOCK + 80)], 5, end..10 * BLOCK + 5);
        assert_eq!(later, [(5, 4 * BLOCK + 80..5 * BLOCK), (5, 7 * BLOCK..8 * BLOCK)]);
        let line = step(&mut watch, &manifest, &[], 5, 11 * BLOCK + 70..11 * BLOCK + 80);
        assert_eq!(line, [(5, 10 * BLOCK + 5..11 * BLOCK)], "its end lies in the next block");
        let rest = step(&mut watch, &manifest, &[], 5, 12 * BLOCK + 90..13 * BLOCK + 10);
        assert_eq!(rest, [(5, 11 * BLOCK + 80..12 * BLOCK + 90)], "a piece of a line, in blocks of others");
    }

    #[test]
    fn what_other_partitions_have_not_written_is_no_gap() {
        let manifest = manifest(&[(5, 5, 0, None)]);
        let mut watch = second_of_three();
        // The output has the bytes of the second and third partition, and none of the first.
        watch.resume(Position { generation: 5, offset: 2 * BLOCK });
        let held = [(5, BLOCK..3 * BLOCK), (5, 4 * BLOCK..4 * BLOCK + 50)];
        assert_eq!(step(&mut watch, &manifest, &held, 5, 4 * BLOCK + 50..4 * BLOCK + 60), []);
    }

    #[test]
    fn where_a_partition_ended_in_a_content_tells_the_gap_there() {
        // Its last entry began in its block and extended over the next two blocks of others. Then
        // only lines of others followed.
        let end = 4 * BLOCK + 9;
        let manifest = manifest(&[(5, 5, 0, None), (6, 6, 0, Some(end)), (7, 7, 0, Some(0))]);
        let mut watch = second_of_three();
        watch.resume(Position { generation: 5, offset: end });
        assert_eq!(step(&mut watch, &manifest, &[], 7, 0..BLOCK + 9), [], "nothing of it was in the second content");
        let mut watch = second_of_three();
        watch.resume(Position { generation: 5, offset: 2 * BLOCK + 1 });
        let missing = step(&mut watch, &manifest, &[], 7, 0..BLOCK + 9);
        assert_eq!(missing, [(5, 4 * BLOCK..end)]);
    }
}
