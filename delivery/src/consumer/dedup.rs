//! Turns entries into byte ranges of contents. New bytes are added to the batch, and duplicates are
//! skipped.

use super::batch::Batch;
use super::gaps::{Gap, GapWatch, missing_of};
use crate::entry::{self, Field, Piece, Span};
use crate::manifest::{Generation, Manifest, Position};
use crate::partition::Partition;
use crate::ranges::RangeSet;
use memchr::memchr_iter;
use resp::StreamId;
use std::collections::BTreeMap;

/// The kind of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Some of its bytes are new, and were added to the batch.
    New,
    /// All of its bytes are in the output: a duplicate.
    Held,
    /// It does not have the form of a reader's entry: no known field, or more bytes than its end
    /// allows.
    Foreign,
    /// It has the form of a reader's entry, but its generation is unknown.
    Unknown,
}

/// How an entry was delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// For the first time, in the order of the stream.
    New,
    /// Again, because it was pending with this consumer, in the order of the stream. The output has
    /// the bytes between two such entries, unless other consumers receive entries too.
    Again,
    /// Claimed from another consumer.
    Claimed,
}

/// The run that is being extended.
#[derive(Debug)]
struct Open {
    generation: u64,
    file_id: u64,
    span: Span,
    /// The start of the next bytes that are in the output.
    limit: u64,
    delivery: Delivery,
}

/// The ranges of contents that this output has, for the entries of one partition.
#[derive(Debug)]
pub struct Dedup {
    partition: Partition,
    manifest: Manifest,
    /// Skipped bytes of other partitions count as held, too. This keeps one range per content
    /// instead of one per block.
    held: BTreeMap<u64, RangeSet>,
    open: Option<Open>,
    watch: GapWatch,
    gaps: Vec<Gap>,
    /// The gaps found so far, by content. Each is reported once.
    noticed: BTreeMap<u64, RangeSet>,
}

impl Dedup {
    /// A filter for an output with the ranges `held`, and for the entries of this partition. The
    /// ranges in `lost` are missing from the output, and were reported.
    #[must_use]
    pub fn new(partition: Partition, held: BTreeMap<u64, RangeSet>, lost: &[(u64, Span)]) -> Self {
        let mut noticed: BTreeMap<u64, RangeSet> = BTreeMap::new();
        for (file_id, span) in lost {
            // The first bytes of a block can be the end of another partition's line.
            noticed.entry(*file_id).or_default().insert(partition.run_start(span.start)..span.end);
        }
        Self {
            partition,
            manifest: Manifest::default(),
            held,
            open: None,
            watch: GapWatch::new(partition),
            gaps: Vec::new(),
            noticed,
        }
    }

    /// Adds the generations of the source record. Generations that the record no longer has stay
    /// known, because their entries may still arrive.
    pub fn learn(&mut self, record: &Manifest) {
        for generation in record.iter() {
            self.manifest.insert(generation.clone());
        }
    }

    /// Starts to check the order of entries, after `last_delivered` of the group. Call it after
    /// [`learn`](Self::learn).
    pub fn watch_from(&mut self, last_delivered: StreamId) {
        if last_delivered == StreamId::ZERO {
            if !self.watch.is_watching() {
                self.watch.begin();
            }
        } else if self.manifest.get(last_delivered.ms).is_some() {
            self.watch.resume(Position::of(last_delivered));
        }
    }

    /// Starts to check the order of entries at this position, or at the beginning of the source.
    pub(super) fn resume(&mut self, from: Option<Position>) {
        self.watch.forget();
        match from {
            Some(position) => self.watch.resume(position),
            None => self.watch.begin(),
        }
    }

    /// Whether the output certainly lacks the end of this entry.
    pub(super) fn lacks_end_of(&self, id: StreamId) -> bool {
        let (Some(file_id), Some(last)) = (self.file_id_of(id.ms), id.seq.checked_sub(1)) else { return false };
        !self.held.get(&file_id).is_some_and(|held| held.contains(last..id.seq))
    }

    /// The position where this partition continues. Before it, the output has all bytes that it can
    /// have, as far as the record assigns them to generations. Without a record, each content
    /// counts as its first generation.
    ///
    /// The group has delivered everything before `delivered`, if that is known. A content can have
    /// several generations, so the output may have bytes after this position, and lack some before
    /// it.
    pub(super) fn end_of_held(&self, delivered: Option<Position>) -> Option<Position> {
        let end = |generation: u64, held: &RangeSet| {
            let until = match delivered {
                Some(at) if at.generation < generation => return None,
                Some(at) if at.generation == generation => at.offset,
                _ => u64::MAX,
            };
            let ranges = held.iter().rev().map(|range| range.start..range.end.min(until));
            let offset =
                ranges.filter(|range| range.start < until).find_map(|range| self.partition.last_within(&range))?;
            Some(Position { generation, offset })
        };
        if self.manifest.is_empty() {
            return self.held.iter().rev().find_map(|(&file_id, held)| end(file_id, held));
        }
        let certain =
            self.manifest.iter().rev().filter(|generation| self.is_evident(generation)).find_map(|generation| {
                let held = self.held.get(&generation.file_id)?;
                end(generation.generation, held).filter(|end| end.offset > generation.start)
            });
        // The output may have no bytes of this partition. Bytes older than all held ones may have
        // been in deleted outputs, unless they are the first of the source.
        certain.or_else(|| {
            self.manifest.iter().find_map(|generation| {
                let first = self.held.get(&generation.file_id)?.iter().find(|range| range.end > generation.start)?;
                let start = first.start.max(generation.start);
                let is_beginning = self.partition.within(generation.start..start).nth(1).is_none();
                let offset = if is_beginning { generation.start } else { start };
                Some(Position { generation: generation.generation, offset })
            })
        })
    }

    /// Whether the bytes that are held of a generation show that all before it was delivered. When
    /// its content was sent earlier, too, they may be from then, and what was sent in between may
    /// wait.
    fn is_evident(&self, generation: &Generation) -> bool {
        let Some(first) = self.manifest.iter().find(|known| known.file_id == generation.file_id) else { return true };
        let is_between = |known: &&Generation| {
            (first.generation..generation.generation).contains(&known.generation) && known.file_id != generation.file_id
        };
        self.manifest.iter().filter(is_between).all(|known| {
            let Some(end) = self.manifest.end(known.generation) else { return true };
            missing_of(self.partition, self.held.get(&known.file_id), known.start..end.max(known.start))
                .next()
                .is_none()
        })
    }

    /// Whether the order of entries is checked.
    #[must_use]
    pub const fn is_watching(&self) -> bool {
        self.watch.is_watching()
    }

    /// The position up to which gaps were looked for, if the order of entries is checked.
    pub(super) const fn checked_to(&self) -> Option<Position> {
        self.watch.position()
    }

    /// Stops checking the order, because other consumers receive entries too.
    pub fn forget_order(&mut self) {
        self.watch.forget();
        self.gaps.clear();
    }

    /// Adds the new bytes of an entry to the batch. Call [`close`](Self::close) before the batch is
    /// handed over.
    #[inline]
    pub fn take(
        &mut self,
        id: StreamId,
        field: &[u8],
        payload: &[u8],
        delivery: Delivery,
        batch: &mut Batch,
    ) -> Outcome {
        let Some(piece) = Piece::new(field, payload, id.seq) else { return Outcome::Foreign };
        // Nearly every entry begins where the previous one ended.
        if let Some(open) = &mut self.open
            && open.generation == id.ms
            && open.span.end == piece.span.start
            && piece.span.end <= open.limit
            && open.delivery == delivery
        {
            open.span.end = piece.span.end;
            piece.append_from(piece.span.start, &mut batch.data);
            batch.extend(open.file_id, piece.span, piece.field.lines(payload));
            return Outcome::New;
        }
        self.take_elsewhere(id, &piece, piece.span.start, delivery, batch)
    }

    /// Like [`take`](Self::take), for an entry whose second field is the end of the previous one.
    pub fn take_after(
        &mut self,
        id: StreamId,
        (field, payload): (&[u8], &[u8]),
        after: &[u8],
        delivery: Delivery,
        batch: &mut Batch,
    ) -> Outcome {
        let after = entry::after(after);
        match Piece::new(field, payload, id.seq).zip(after).filter(|(piece, after)| *after <= piece.span.start) {
            Some((piece, after)) => self.take_elsewhere(id, &piece, after, delivery, batch),
            None => Outcome::Foreign,
        }
    }

    fn take_elsewhere(
        &mut self,
        id: StreamId,
        piece: &Piece<'_>,
        after: u64,
        delivery: Delivery,
        batch: &mut Batch,
    ) -> Outcome {
        let Some(file_id) = self.file_id_of(id.ms) else { return Outcome::Unknown };
        self.close();
        if self.is_watched(delivery) {
            self.watch.step(&self.manifest, &self.held, id.ms, &(after..piece.span.end), &mut self.gaps);
        }
        let held = self.held.entry(file_id).or_default();
        held.insert(after..piece.span.start);
        let holes: Vec<Span> = held.missing(piece.span.clone()).collect();
        for hole in &holes {
            let before = batch.data.len();
            piece.append_from(hole.start, &mut batch.data);
            let wanted = usize::try_from(hole.end.saturating_sub(hole.start)).unwrap_or(usize::MAX);
            batch.data.truncate(before.saturating_add(wanted));
            let lines = lines_beginning_in(piece, hole, batch.data.get(before..).unwrap_or_default());
            batch.extend(file_id, hole.clone(), lines);
            held.insert(hole.clone());
        }
        let Some(last) = holes.last() else { return Outcome::Held };
        if last.end == piece.span.end {
            let limit =
                held.missing(last.end..u64::MAX).next().filter(|hole| hole.start == last.end).map(|hole| hole.end);
            self.open = limit.map(|limit| Open { generation: id.ms, file_id, span: last.clone(), limit, delivery });
        }
        Outcome::New
    }

    /// Reports an entry that was deleted while pending. Only the end of its bytes is known.
    pub fn deleted(&mut self, id: StreamId) -> Outcome {
        self.close();
        let Some(file_id) = self.file_id_of(id.ms) else { return Outcome::Unknown };
        if self.watch.is_watching() {
            self.watch.advance(id.ms, id.seq);
        }
        // Entries were delivered in order, so the bytes between the held ones before it and its end
        // were in it or before it.
        let end = id.seq;
        let before = self.held.get(&file_id).and_then(|held| held.iter().take_while(|range| range.start < end).last());
        let from = before.map_or_else(|| self.manifest.get(id.ms).map_or(0, |g| g.start), |range| range.end);
        if from < end {
            let missing = missing_of(self.partition, None, from..end);
            self.gaps.extend(missing.map(|span| Gap { file_id, span }));
        }
        Outcome::New
    }

    /// Reports the last entry of the stream, after everything was delivered: missing bytes before
    /// its end are a gap.
    pub fn ended_at(&mut self, last: StreamId) {
        self.close();
        if self.watch.is_watching() && self.manifest.get(last.ms).is_some() {
            self.watch.step(&self.manifest, &self.held, last.ms, &(last.seq..last.seq), &mut self.gaps);
        }
    }

    /// Ends the run that is being extended.
    pub fn close(&mut self) {
        if let Some(open) = self.open.take() {
            if self.is_watched(open.delivery) {
                self.watch.advance(open.generation, open.span.end);
            }
            self.held.entry(open.file_id).or_default().insert(open.span);
        }
    }

    const fn is_watched(&self, delivery: Delivery) -> bool {
        match delivery {
            Delivery::New => true,
            Delivery::Again => self.watch.is_watching(),
            Delivery::Claimed => false,
        }
    }

    /// Returns the gaps found since the last call. The caller decides whether another consumer
    /// received those bytes.
    pub fn take_gaps(&mut self) -> Vec<Gap> {
        let mut untold = Vec::new();
        for Gap { file_id, span } in self.gaps.drain(..) {
            let noticed = self.noticed.entry(file_id).or_default();
            untold.extend(noticed.missing(span.clone()).map(|span| Gap { file_id, span }));
            noticed.insert(span);
        }
        untold
    }

    /// Whether there are gaps.
    #[must_use]
    pub const fn has_gaps(&self) -> bool {
        !self.gaps.is_empty()
    }

    /// The path of the content's file, for messages.
    #[must_use]
    pub fn path_of(&self, file_id: u64) -> &str {
        self.manifest.iter().find(|generation| generation.file_id == file_id).map_or("?", |generation| &generation.path)
    }

    /// Whether the position of this generation's entries is known.
    pub(super) fn knows(&self, generation: u64) -> bool {
        self.file_id_of(generation).is_some()
    }

    fn file_id_of(&self, generation: u64) -> Option<u64> {
        if let Some(open) = self.open.as_ref().filter(|open| open.generation == generation) {
            return Some(open.file_id);
        }
        // Ranges in the journal are from the source, even if its record is lost.
        let known = || self.held.contains_key(&generation).then_some(generation);
        self.manifest.get(generation).map(|generation| generation.file_id).or_else(known)
    }
}

/// The number of lines in a part of a piece. A line counts where it begins.
fn lines_beginning_in(piece: &Piece<'_>, hole: &Span, bytes: &[u8]) -> u64 {
    match piece.field {
        Field::Lines => memchr_iter(b'\n', bytes).count() as u64,
        Field::Line | Field::Part => u64::from(hole.start == piece.span.start),
        Field::Rest => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(generations: &[(u64, u64)]) -> Manifest {
        let mut manifest = Manifest::default();
        for &(generation, file_id) in generations {
            manifest.insert(Generation {
                generation,
                file_id,
                start: 0,
                previous_end: None,
                previous_guard: None,
                resumes: None,
                created: None,
                real_path: None,
                path: "/in".to_owned(),
                dev: 0,
                ino: 0,
                head_len: 0,
                head_hash: 0,
            });
        }
        manifest
    }

    fn dedup(held: &[(u64, Span)]) -> Dedup {
        let mut map: BTreeMap<u64, RangeSet> = BTreeMap::new();
        held.iter().for_each(|(file_id, span)| map.entry(*file_id).or_default().insert(span.clone()));
        let mut dedup = Dedup::new(Partition::WHOLE, map, &[]);
        dedup.learn(&manifest(&[(5, 5), (6, 5)]));
        dedup
    }

    #[test]
    fn bytes_that_were_sent_before_do_not_show_that_what_was_sent_in_between_was_delivered() {
        let mut sent = manifest(&[(5, 5), (6, 6), (7, 5), (8, 8)]);
        for (generation, previous_end) in [(6, 40), (7, 267), (8, 196)] {
            let known = sent.get(generation).unwrap().clone();
            sent.insert(Generation { previous_end: Some(previous_end), ..known });
        }
        // Generation 7 sends the first content again, which the output has since generation 5.
        for (held, end) in [(175, (6, 175)), (267, (7, 196))] {
            let mut dedup = dedup(&[(5, 0..196), (6, 0..held)]);
            dedup.learn(&sent);
            let end = Position { generation: end.0, offset: end.1 };
            assert_eq!(dedup.end_of_held(None), Some(end), "{held} bytes of the second content");
        }
    }

    const BLOCK: u64 = crate::partition::SMALL;

    /// The second of three partitions, in a new group.
    fn second_of_three() -> Dedup {
        let mut dedup = Dedup::new(Partition::new(1, 3).unwrap(), BTreeMap::new(), &[]);
        dedup.learn(&manifest(&[(5, 5)]));
        dedup.watch_from(StreamId::ZERO);
        dedup
    }

    fn take_after(dedup: &mut Dedup, batch: &mut Batch, seq: u64, payload: &[u8], after: &str) -> Outcome {
        dedup.take_after(StreamId { ms: 5, seq }, (b"lines", payload), after.as_bytes(), Delivery::New, batch)
    }

    fn take(dedup: &mut Dedup, batch: &mut Batch, ms: u64, seq: u64, field: &str, payload: &str) -> Outcome {
        dedup.take(StreamId { ms, seq }, field.as_bytes(), payload.as_bytes(), Delivery::New, batch)
    }

    fn runs(batch: &Batch) -> Vec<(u64, Span, u64)> {
        batch.runs.iter().map(|run| (run.file_id, run.span.clone(), run.lines)).collect()
    }

    #[test]
    fn lines_join_to_a_run() {
        let (mut dedup, mut batch) = (dedup(&[]), Batch::default());
        assert_eq!(take(&mut dedup, &mut batch, 5, 4, "line", "abc"), Outcome::New);
        assert_eq!(take(&mut dedup, &mut batch, 5, 5, "line", ""), Outcome::New);
        assert_eq!(take(&mut dedup, &mut batch, 5, 9, "lines", "d\ne\n"), Outcome::New);
        dedup.close();
        assert_eq!(batch.data, b"abc\n\nd\ne\n");
        assert_eq!(runs(&batch), [(5, 0..9, 4)]);
    }

    #[test]
    fn what_is_held_is_skipped_and_an_overlap_trimmed() {
        let (mut dedup, mut batch) = (dedup(&[(5, 0..6), (5, 8..10)]), Batch::default());
        assert_eq!(take(&mut dedup, &mut batch, 5, 4, "line", "abc"), Outcome::Held);
        assert_eq!(take(&mut dedup, &mut batch, 5, 12, "lines", "e\nf\nghi\n"), Outcome::New);
        assert_eq!(batch.data, b"f\ni\n", "6..8 and 10..12");
        assert_eq!(runs(&batch), [(5, 6..8, 1), (5, 10..12, 1)]);
        assert_eq!(take(&mut dedup, &mut batch, 5, 12, "lines", "e\nf\nghi\n"), Outcome::Held, "delivered again");
    }

    #[test]
    fn a_run_stops_where_held_bytes_begin() {
        let (mut dedup, mut batch) = (dedup(&[(5, 6..8)]), Batch::default());
        for (seq, line) in [(4, "abc"), (8, "def"), (12, "ghi")] {
            take(&mut dedup, &mut batch, 5, seq, "line", line);
        }
        assert_eq!(batch.data, b"abc\ndeghi\n");
        assert_eq!(runs(&batch), [(5, 0..6, 2), (5, 8..12, 1)]);
    }

    #[test]
    fn another_number_for_the_same_content_overlaps_with_it() {
        let (mut dedup, mut batch) = (dedup(&[]), Batch::default());
        take(&mut dedup, &mut batch, 5, 4, "line", "abc");
        take(&mut dedup, &mut batch, 5, 8, "line", "def");
        assert_eq!(take(&mut dedup, &mut batch, 6, 8, "line", "def"), Outcome::Held);
        assert_eq!(take(&mut dedup, &mut batch, 6, 12, "line", "ghi"), Outcome::New);
        assert_eq!(runs(&batch), [(5, 0..12, 3)]);
    }

    #[test]
    fn entries_of_others_are_told_apart() {
        let (mut dedup, mut batch) = (dedup(&[(3, 0..4)]), Batch::default());
        assert_eq!(take(&mut dedup, &mut batch, 9, 4, "line", "abc"), Outcome::Unknown);
        assert_eq!(take(&mut dedup, &mut batch, 5, 4, "message", "abc"), Outcome::Foreign);
        assert_eq!(take(&mut dedup, &mut batch, 5, 2, "line", "abc"), Outcome::Foreign);
        assert_eq!(take(&mut dedup, &mut batch, 3, 8, "line", "abc"), Outcome::New, "known from the journal");
    }

    #[test]
    fn gaps_are_noticed_between_runs() {
        let (mut dedup, mut batch) = (dedup(&[]), Batch::default());
        dedup.watch_from(StreamId::ZERO);
        take(&mut dedup, &mut batch, 5, 8, "line", "abc");
        take(&mut dedup, &mut batch, 5, 12, "line", "abc");
        take(&mut dedup, &mut batch, 5, 20, "line", "abc");
        dedup.ended_at(StreamId { ms: 5, seq: 30 });
        let gaps: Vec<_> = dedup.take_gaps().into_iter().map(|gap| gap.span).collect();
        assert_eq!(gaps, [0..4, 12..16, 20..30]);
        dedup.ended_at(StreamId { ms: 5, seq: 30 });
        assert!(!dedup.has_gaps(), "each is reported once");
    }

    #[test]
    fn a_deleted_entry_ends_where_its_id_says() {
        let (mut dedup, mut batch) = (dedup(&[(5, 0..8)]), Batch::default());
        dedup.deleted(StreamId { ms: 5, seq: 20 });
        dedup.deleted(StreamId { ms: 5, seq: 22 });
        let spans: Vec<_> = dedup.take_gaps().into_iter().map(|gap| gap.span).collect();
        assert_eq!(spans, [8..20, 20..22], "each byte once");
        dedup.take(StreamId { ms: 5, seq: 26 }, b"line", b"abc", Delivery::Again, &mut batch);
        dedup.deleted(StreamId { ms: 5, seq: 30 });
        assert_eq!(dedup.take_gaps(), [Gap { file_id: 5, span: 26..30 }]);
    }

    #[test]
    fn a_step_is_no_gap_and_costs_no_memory() {
        let (mut dedup, mut batch) = (second_of_three(), Batch::default());
        let block = vec![b'\n'; BLOCK as usize];
        for nth in 0..50 {
            let start = (1 + 3 * nth) * BLOCK;
            let after = if nth == 0 { 0 } else { start - 2 * BLOCK };
            assert_eq!(take_after(&mut dedup, &mut batch, start + 1, &block[..1], &after.to_string()), Outcome::New);
            assert_eq!(take(&mut dedup, &mut batch, 5, start + BLOCK, "lines", str(&block[1..])), Outcome::New);
        }
        dedup.close();
        let end = 149 * BLOCK;
        dedup.ended_at(StreamId { ms: 5, seq: end });
        assert_eq!(dedup.take_gaps(), []);
        assert_eq!(batch.runs.len(), 50, "what is written is exact");
        assert!(batch.runs.iter().all(|run| run.span.start % (3 * BLOCK) == BLOCK && run.lines == BLOCK));
        assert_eq!(dedup.held[&5].iter().collect::<Vec<_>>(), [0..end]);
        assert_eq!(take_after(&mut dedup, &mut batch, BLOCK + 1, &block[..1], "0"), Outcome::Held, "delivered again");
    }

    fn str(bytes: &[u8]) -> &str {
        std::str::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_missing_entry_before_a_step_is_a_gap() {
        let (mut dedup, mut batch) = (second_of_three(), Batch::default());
        assert_eq!(take_after(&mut dedup, &mut batch, BLOCK + 4, b"abc\n", "0"), Outcome::New);
        let (start, after) = (4 * BLOCK + 20, 2 * BLOCK + 5);
        assert_eq!(take_after(&mut dedup, &mut batch, start + 4, b"def\n", &after.to_string()), Outcome::New);
        assert_eq!(dedup.take_gaps(), [Gap { file_id: 5, span: BLOCK + 4..2 * BLOCK }]);
        assert_eq!(dedup.held[&5].iter().collect::<Vec<_>>(), [0..BLOCK + 4, after..start + 4]);
        dedup.deleted(StreamId { ms: 5, seq: 7 * BLOCK + 9 });
        let spans: Vec<_> = dedup.take_gaps().into_iter().map(|gap| gap.span).collect();
        assert_eq!(spans, [start + 4..5 * BLOCK, 7 * BLOCK..7 * BLOCK + 9], "not what others have between them");
    }

    #[test]
    fn who_says_the_impossible_of_the_entry_before_is_foreign() {
        let (mut dedup, mut batch) = (second_of_three(), Batch::default());
        for after in ["", "x", "-1", "1.5", "65537", "99999999999999999999"] {
            let taken = take_after(&mut dedup, &mut batch, BLOCK + 4, b"abc\n", after);
            assert_eq!(taken, Outcome::Foreign, "{after}");
        }
        let unknown = StreamId { ms: 9, seq: BLOCK + 4 };
        let taken = dedup.take_after(unknown, (b"lines", b"abc\n"), b"0", Delivery::New, &mut batch);
        assert_eq!(taken, Outcome::Unknown);
        assert!(batch.is_empty() && dedup.take_gaps().is_empty());
    }
}
