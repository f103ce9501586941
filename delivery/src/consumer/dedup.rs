//! From entries to bytes of contents: what is new is taken into the batch, what is held is not.

use super::batch::Batch;
use super::gaps::{Gap, GapWatch, missing_of};
use crate::entry::{self, Field, Piece, Span};
use crate::manifest::{Manifest, Position};
use crate::partition::Partition;
use crate::ranges::RangeSet;
use memchr::memchr_iter;
use resp::StreamId;
use std::collections::BTreeMap;

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// At least some of its bytes are new, and in the batch now.
    New,
    /// All of its bytes are held already.
    Held,
    /// Not of our form: no field of ours, or more bytes than there are before its end.
    Foreign,
    /// Of our form, but its generation is not known.
    Unknown,
}

/// How an entry came here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// For the first time: in the stream's order.
    New,
    /// Once more, after it was delivered to this consumer and not acknowledged: in the stream's
    /// order. What lies between two of them is held, unless others get entries, too.
    Again,
    /// Taken over from another consumer.
    Claimed,
}

/// The run that is being extended.
#[derive(Debug)]
struct Open {
    generation: u64,
    file_id: u64,
    span: Span,
    /// Where bytes begin that are held already.
    limit: u64,
    delivery: Delivery,
}

/// What this writer holds of which contents, as far as the entries of one partition are concerned.
#[derive(Debug)]
pub struct Dedup {
    partition: Partition,
    manifest: Manifest,
    /// Bytes of other partitions that were stepped over count as held, too: that is one range a
    /// content, and not one a block.
    held: BTreeMap<u64, RangeSet>,
    open: Option<Open>,
    watch: GapWatch,
    gaps: Vec<Gap>,
    /// The gaps noticed so far, by content: each is told once.
    noticed: BTreeMap<u64, RangeSet>,
}

impl Dedup {
    /// For an output that holds these ranges, and the entries of this partition. Ranges in `lost`
    /// are missing from the output, and were reported.
    #[must_use]
    pub fn new(partition: Partition, held: BTreeMap<u64, RangeSet>, lost: &[(u64, Span)]) -> Self {
        let mut noticed: BTreeMap<u64, RangeSet> = BTreeMap::new();
        for (file_id, span) in lost {
            // A block's first bytes can be the end of another partition's line.
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

    /// Adds what the source record says. A generation that is not in it any more stays known: its
    /// entries may be on their way.
    pub fn learn(&mut self, record: &Manifest) {
        for generation in record.iter() {
            self.manifest.insert(generation.clone());
        }
    }

    /// The order of entries is watched from here on: `last_delivered` is the group's. Call after
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

    /// The order of entries is watched from this position on, or from the source's beginning.
    pub(super) fn resume(&mut self, from: Option<Position>) {
        self.watch.forget();
        match from {
            Some(position) => self.watch.resume(position),
            None => self.watch.begin(),
        }
    }

    /// Whether the output lacks the end of this entry, as far as it is known which bytes it has.
    pub(super) fn lacks_end_of(&self, id: StreamId) -> bool {
        let (Some(file_id), Some(last)) = (self.file_id_of(id.ms), id.seq.checked_sub(1)) else { return false };
        !self.held.get(&file_id).is_some_and(|held| held.contains(last..id.seq))
    }

    /// Where this partition goes on: up to there, the output holds what it can hold, as far as the
    /// record says where its bytes belong; without one, each content is its first generation.
    pub(super) fn end_of_held(&self) -> Option<Position> {
        let end = |generation: u64, held: &RangeSet| {
            let offset = held.iter().rev().find_map(|range| self.partition.last_within(&range))?;
            Some(Position { generation, offset })
        };
        if self.manifest.is_empty() {
            return self.held.iter().rev().find_map(|(&file_id, held)| end(file_id, held));
        }
        let certain = self.manifest.iter().rev().find_map(|generation| {
            let held = self.held.get(&generation.file_id)?;
            end(generation.generation, held).filter(|end| end.offset > generation.start)
        });
        // Of this partition there may be nothing. What is older than all that is held may have been
        // in outputs that are gone, unless those are the source's first bytes.
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

    /// Whether the order of entries is watched.
    #[must_use]
    pub const fn is_watching(&self) -> bool {
        self.watch.is_watching()
    }

    /// Others get entries too: gaps cannot be told from what they got.
    pub fn forget_order(&mut self) {
        self.watch.forget();
        self.gaps.clear();
    }

    /// Takes an entry's new bytes into the batch. [`close`](Self::close) must be called before the
    /// batch is handed over.
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

    /// As [`take`](Self::take), for an entry whose second field holds where the previous one
    /// ended.
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

    /// An entry was deleted while it was pending: of its bytes, only the end is known.
    pub fn deleted(&mut self, id: StreamId) -> Outcome {
        self.close();
        let Some(file_id) = self.file_id_of(id.ms) else { return Outcome::Unknown };
        if self.watch.is_watching() {
            self.watch.advance(id.ms, id.seq);
        }
        // Entries were delivered in order, so what lies between the bytes held before it and its
        // end was in it or before it.
        let end = id.seq;
        let before = self.held.get(&file_id).and_then(|held| held.iter().take_while(|range| range.start < end).last());
        let from = before.map_or_else(|| self.manifest.get(id.ms).map_or(0, |g| g.start), |range| range.end);
        if from < end {
            let missing = missing_of(self.partition, None, from..end);
            self.gaps.extend(missing.map(|span| Gap { file_id, span }));
        }
        Outcome::New
    }

    /// The stream's last entry was this one, and everything was delivered: what is missing before
    /// it is a gap.
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

    /// The gaps noticed since the last call. The caller judges whether somebody else
    /// got those bytes.
    pub fn take_gaps(&mut self) -> Vec<Gap> {
        let mut untold = Vec::new();
        for Gap { file_id, span } in self.gaps.drain(..) {
            let noticed = self.noticed.entry(file_id).or_default();
            untold.extend(noticed.missing(span.clone()).map(|span| Gap { file_id, span }));
            noticed.insert(span);
        }
        untold
    }

    /// Whether gaps were noticed.
    #[must_use]
    pub const fn has_gaps(&self) -> bool {
        !self.gaps.is_empty()
    }

    /// The path of the file that a content came from, for people.
    #[must_use]
    pub fn path_of(&self, file_id: u64) -> &str {
        self.manifest.iter().find(|generation| generation.file_id == file_id).map_or("?", |generation| &generation.path)
    }

    /// Whether the entries of this generation can be placed.
    pub(super) fn knows(&self, generation: u64) -> bool {
        self.file_id_of(generation).is_some()
    }

    fn file_id_of(&self, generation: u64) -> Option<u64> {
        if let Some(open) = self.open.as_ref().filter(|open| open.generation == generation) {
            return Some(open.file_id);
        }
        // What the journal holds was of the source, even when its record is lost.
        let known = || self.held.contains_key(&generation).then_some(generation);
        self.manifest.get(generation).map(|generation| generation.file_id).or_else(known)
    }
}

/// How many lines count for a part of a piece: a line counts where it begins.
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
    use crate::manifest::Generation;

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

    const BLOCK: u64 = crate::partition::SMALL;

    /// Of a new group's second partition of three.
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
        assert!(!dedup.has_gaps(), "each is told once");
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
