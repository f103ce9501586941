//! From entries to bytes of contents: what is new is taken into the batch, what is held is not.

use crate::batch::Batch;
use crate::gaps::{Gap, GapWatch, missing_of};
use delivery::entry::{self, Field, Piece, Span};
use delivery::partition::Partition;
use delivery::ranges::RangeSet;
use delivery::source::{Lineage, Position};
use memchr::memchr_iter;
use resp::StreamId;
use std::collections::BTreeMap;

/// What an entry turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taken {
    /// At least some of its bytes are new, and in the batch now.
    New,
    /// All of its bytes are held already.
    Held,
    /// None of ours: no fields of ours, or more bytes than there are before its end.
    Foreign,
    /// Its generation is not known.
    Unknown,
}

/// How an entry came here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Came {
    /// For the first time: in the stream's order.
    New,
    /// Once more: it was delivered before, to this consumer or to another one, and never acknowledged.
    Again,
}

/// The run that is being extended.
#[derive(Debug)]
struct Open {
    generation: u64,
    root: u64,
    span: Span,
    /// Where bytes begin that are held already.
    limit: u64,
    came: Came,
}

/// What this writer holds of which contents, as far as the entries of one partition are concerned.
#[derive(Debug)]
pub(crate) struct Contents {
    partition: Partition,
    lineage: Lineage,
    /// Bytes of other partitions that were stepped over count as held, too: that is one range a content, and not one a block.
    held: BTreeMap<u64, RangeSet>,
    open: Option<Open>,
    watch: GapWatch,
    gaps: Vec<Gap>,
    /// The gaps noticed so far, by content: each is told once.
    noticed: BTreeMap<u64, RangeSet>,
}

impl Contents {
    /// Those of an output that holds these ranges, of the entries of this partition.
    pub(crate) fn new(partition: Partition, held: BTreeMap<u64, RangeSet>) -> Self {
        Self {
            partition,
            lineage: Lineage::default(),
            held,
            open: None,
            watch: GapWatch::new(partition),
            gaps: Vec::new(),
            noticed: BTreeMap::new(),
        }
    }

    /// Adds what the source record says. A generation that is not in it any more stays known: its entries may be on their way.
    pub(crate) fn learn(&mut self, record: &Lineage) {
        for generation in record.iter() {
            self.lineage.insert(generation.clone());
        }
    }

    /// The order of entries is watched from here on: `last_delivered` is the group's. Call after [`learn`](Self::learn).
    pub(crate) fn watch_from(&mut self, last_delivered: StreamId) {
        if last_delivered == StreamId::ZERO {
            if !self.watch.is_watching() {
                self.watch.begin();
            }
        } else if self.lineage.get(last_delivered.ms).is_some() {
            self.watch.resume(Position::of(last_delivered));
        }
    }

    /// Whether the order of entries is watched.
    pub(crate) const fn is_watching(&self) -> bool {
        self.watch.is_watching()
    }

    /// Others get entries too: gaps cannot be told from what they got.
    pub(crate) fn forget_order(&mut self) {
        self.watch.forget();
        self.gaps.clear();
    }

    /// Takes an entry's new bytes into the batch. [`close`](Self::close) must be called before the batch is handed over.
    #[inline]
    pub(crate) fn take(&mut self, id: StreamId, field: &[u8], payload: &[u8], came: Came, batch: &mut Batch) -> Taken {
        let Some(piece) = Piece::new(field, payload, id.seq) else {
            return if self.root_of(id.ms).is_some() { Taken::Foreign } else { Taken::Unknown };
        };
        // Nearly every entry goes on where the one before ended.
        if let Some(open) = &mut self.open
            && open.generation == id.ms
            && open.span.end == piece.span.start
            && piece.span.end <= open.limit
            && open.came == came
        {
            open.span.end = piece.span.end;
            piece.append_from(piece.span.start, &mut batch.data);
            batch.extend(open.root, piece.span, piece.field.lines(payload));
            return Taken::New;
        }
        self.take_elsewhere(id, &piece, piece.span.start, came, batch)
    }

    /// As [`take`](Self::take), for an entry whose second field holds where the one before it ended.
    pub(crate) fn take_after(
        &mut self,
        id: StreamId,
        (field, payload): (&[u8], &[u8]),
        after: &[u8],
        came: Came,
        batch: &mut Batch,
    ) -> Taken {
        let after = entry::after(after);
        match Piece::new(field, payload, id.seq).zip(after).filter(|(piece, after)| *after <= piece.span.start) {
            Some((piece, after)) => self.take_elsewhere(id, &piece, after, came, batch),
            None if self.root_of(id.ms).is_some() => Taken::Foreign,
            None => Taken::Unknown,
        }
    }

    fn take_elsewhere(&mut self, id: StreamId, piece: &Piece<'_>, after: u64, came: Came, batch: &mut Batch) -> Taken {
        let Some(root) = self.root_of(id.ms) else { return Taken::Unknown };
        self.close();
        if came == Came::New {
            self.watch.step(&self.lineage, &self.held, id.ms, &(after..piece.span.end), &mut self.gaps);
        }
        let held = self.held.entry(root).or_default();
        held.insert(after..piece.span.start);
        let holes: Vec<Span> = held.missing(piece.span.clone()).collect();
        for hole in &holes {
            let before = batch.data.len();
            piece.append_from(hole.start, &mut batch.data);
            let wanted = usize::try_from(hole.end - hole.start).unwrap_or(usize::MAX);
            batch.data.truncate(before.saturating_add(wanted));
            let lines = lines_beginning_in(piece, hole, batch.data.get(before..).unwrap_or_default());
            batch.extend(root, hole.clone(), lines);
            held.insert(hole.clone());
        }
        let Some(last) = holes.last() else { return Taken::Held };
        if last.end == piece.span.end {
            let limit =
                held.missing(last.end..u64::MAX).next().filter(|hole| hole.start == last.end).map(|hole| hole.end);
            self.open = limit.map(|limit| Open { generation: id.ms, root, span: last.clone(), limit, came });
        }
        Taken::New
    }

    /// An entry was deleted while it was pending: of its bytes, only the end is known.
    pub(crate) fn deleted(&mut self, id: StreamId) {
        self.close();
        let Some(root) = self.root_of(id.ms) else { return };
        if self.watch.is_watching() {
            self.watch.advance(id.ms, id.seq);
        }
        // Entries were delivered in order, so what lies between the bytes held before it and its end was in it or before it.
        let end = id.seq;
        let before = self.held.get(&root).and_then(|held| held.iter().take_while(|range| range.start < end).last());
        let from = before.map_or_else(|| self.lineage.get(id.ms).map_or(0, |g| g.start), |range| range.end);
        if from < end {
            let missing = missing_of(self.partition, None, from..end);
            self.gaps.extend(missing.map(|span| Gap { root, span }));
        }
    }

    /// The stream's last entry was this one, and everything was delivered: what is missing before it is a gap.
    pub(crate) fn ended_at(&mut self, last: StreamId) {
        self.close();
        if self.watch.is_watching() && self.lineage.get(last.ms).is_some() {
            self.watch.step(&self.lineage, &self.held, last.ms, &(last.seq..last.seq), &mut self.gaps);
        }
    }

    /// Ends the run that is being extended.
    pub(crate) fn close(&mut self) {
        if let Some(open) = self.open.take() {
            if open.came == Came::New {
                self.watch.advance(open.generation, open.span.end);
            }
            self.held.entry(open.root).or_default().insert(open.span);
        }
    }

    /// The gaps noticed since the last call. The caller judges whether somebody else
    /// got those bytes.
    pub(crate) fn take_gaps(&mut self) -> Vec<Gap> {
        let mut untold = Vec::new();
        for Gap { root, span } in self.gaps.drain(..) {
            let noticed = self.noticed.entry(root).or_default();
            untold.extend(noticed.missing(span.clone()).map(|span| Gap { root, span }));
            noticed.insert(span);
        }
        untold
    }

    /// Whether gaps were noticed.
    pub(crate) const fn has_gaps(&self) -> bool {
        !self.gaps.is_empty()
    }

    /// The path of the file that a content came from, for people.
    pub(crate) fn path_of(&self, root: u64) -> &str {
        self.lineage.iter().find(|generation| generation.root == root).map_or("?", |generation| &generation.path)
    }

    fn root_of(&self, generation: u64) -> Option<u64> {
        if let Some(open) = self.open.as_ref().filter(|open| open.generation == generation) {
            return Some(open.root);
        }
        // What the journal holds was of the source, even when its record is lost.
        let known = || self.held.contains_key(&generation).then_some(generation);
        self.lineage.get(generation).map(|generation| generation.root).or_else(known)
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
    use delivery::source::Generation;

    fn lineage(generations: &[(u64, u64)]) -> Lineage {
        let mut lineage = Lineage::default();
        for &(generation, root) in generations {
            lineage.insert(Generation {
                generation,
                root,
                start: 0,
                previous_end: None,
                previous_guard: None,
                path: "/in".to_owned(),
                dev: 0,
                ino: 0,
                head_len: 0,
                head_hash: 0,
            });
        }
        lineage
    }

    fn contents(held: &[(u64, Span)]) -> Contents {
        let mut map: BTreeMap<u64, RangeSet> = BTreeMap::new();
        held.iter().for_each(|(root, span)| map.entry(*root).or_default().insert(span.clone()));
        let mut contents = Contents::new(Partition::WHOLE, map);
        contents.learn(&lineage(&[(5, 5), (6, 5)]));
        contents
    }

    const BLOCK: u64 = delivery::partition::SMALL;

    /// Of a new group's second partition of three.
    fn second_of_three() -> Contents {
        let mut contents = Contents::new(Partition::new(1, 3).unwrap(), BTreeMap::new());
        contents.learn(&lineage(&[(5, 5)]));
        contents.watch_from(StreamId::ZERO);
        contents
    }

    fn take_after(contents: &mut Contents, batch: &mut Batch, seq: u64, payload: &[u8], after: &str) -> Taken {
        contents.take_after(StreamId { ms: 5, seq }, (b"lines", payload), after.as_bytes(), Came::New, batch)
    }

    fn take(contents: &mut Contents, batch: &mut Batch, ms: u64, seq: u64, field: &str, payload: &str) -> Taken {
        contents.take(StreamId { ms, seq }, field.as_bytes(), payload.as_bytes(), Came::New, batch)
    }

    fn runs(batch: &Batch) -> Vec<(u64, Span, u64)> {
        batch.runs.iter().map(|run| (run.root, run.span.clone(), run.lines)).collect()
    }

    #[test]
    fn lines_join_to_a_run() {
        let (mut contents, mut batch) = (contents(&[]), Batch::default());
        assert_eq!(take(&mut contents, &mut batch, 5, 4, "line", "abc"), Taken::New);
        assert_eq!(take(&mut contents, &mut batch, 5, 5, "line", ""), Taken::New);
        assert_eq!(take(&mut contents, &mut batch, 5, 9, "lines", "d\ne\n"), Taken::New);
        contents.close();
        assert_eq!(batch.data, b"abc\n\nd\ne\n");
        assert_eq!(runs(&batch), [(5, 0..9, 4)]);
    }

    #[test]
    fn what_is_held_is_skipped_and_an_overlap_trimmed() {
        let (mut contents, mut batch) = (contents(&[(5, 0..6), (5, 8..10)]), Batch::default());
        assert_eq!(take(&mut contents, &mut batch, 5, 4, "line", "abc"), Taken::Held);
        assert_eq!(take(&mut contents, &mut batch, 5, 12, "lines", "e\nf\nghi\n"), Taken::New);
        assert_eq!(batch.data, b"f\ni\n", "6..8 and 10..12");
        assert_eq!(runs(&batch), [(5, 6..8, 1), (5, 10..12, 1)]);
        assert_eq!(take(&mut contents, &mut batch, 5, 12, "lines", "e\nf\nghi\n"), Taken::Held, "delivered again");
    }

    #[test]
    fn a_run_stops_where_held_bytes_begin() {
        let (mut contents, mut batch) = (contents(&[(5, 6..8)]), Batch::default());
        for (seq, line) in [(4, "abc"), (8, "def"), (12, "ghi")] {
            take(&mut contents, &mut batch, 5, seq, "line", line);
        }
        assert_eq!(batch.data, b"abc\ndeghi\n");
        assert_eq!(runs(&batch), [(5, 0..6, 2), (5, 8..12, 1)]);
    }

    #[test]
    fn another_number_for_the_same_content_overlaps_with_it() {
        let (mut contents, mut batch) = (contents(&[]), Batch::default());
        take(&mut contents, &mut batch, 5, 4, "line", "abc");
        take(&mut contents, &mut batch, 5, 8, "line", "def");
        assert_eq!(take(&mut contents, &mut batch, 6, 8, "line", "def"), Taken::Held);
        assert_eq!(take(&mut contents, &mut batch, 6, 12, "line", "ghi"), Taken::New);
        assert_eq!(runs(&batch), [(5, 0..12, 3)]);
    }

    #[test]
    fn entries_of_others_are_told_apart() {
        let (mut contents, mut batch) = (contents(&[(3, 0..4)]), Batch::default());
        assert_eq!(take(&mut contents, &mut batch, 9, 4, "line", "abc"), Taken::Unknown);
        assert_eq!(take(&mut contents, &mut batch, 5, 4, "message", "abc"), Taken::Foreign);
        assert_eq!(take(&mut contents, &mut batch, 5, 2, "line", "abc"), Taken::Foreign);
        assert_eq!(take(&mut contents, &mut batch, 3, 8, "line", "abc"), Taken::New, "known from the journal");
    }

    #[test]
    fn gaps_are_noticed_between_runs() {
        let (mut contents, mut batch) = (contents(&[]), Batch::default());
        contents.watch_from(StreamId::ZERO);
        take(&mut contents, &mut batch, 5, 8, "line", "abc");
        take(&mut contents, &mut batch, 5, 12, "line", "abc");
        take(&mut contents, &mut batch, 5, 20, "line", "abc");
        contents.ended_at(StreamId { ms: 5, seq: 30 });
        let gaps: Vec<_> = contents.take_gaps().into_iter().map(|gap| gap.span).collect();
        assert_eq!(gaps, [0..4, 12..16, 20..30]);
        contents.ended_at(StreamId { ms: 5, seq: 30 });
        assert!(!contents.has_gaps(), "each is told once");
    }

    #[test]
    fn a_deleted_entry_ends_where_its_id_says() {
        let (mut contents, mut batch) = (contents(&[(5, 0..8)]), Batch::default());
        contents.deleted(StreamId { ms: 5, seq: 20 });
        contents.deleted(StreamId { ms: 5, seq: 22 });
        let spans: Vec<_> = contents.take_gaps().into_iter().map(|gap| gap.span).collect();
        assert_eq!(spans, [8..20, 20..22], "each byte once");
        contents.take(StreamId { ms: 5, seq: 26 }, b"line", b"abc", Came::Again, &mut batch);
        contents.deleted(StreamId { ms: 5, seq: 30 });
        assert_eq!(contents.take_gaps(), [Gap { root: 5, span: 26..30 }]);
    }

    #[test]
    fn a_step_is_no_gap_and_costs_no_memory() {
        let (mut contents, mut batch) = (second_of_three(), Batch::default());
        let block = vec![b'\n'; BLOCK as usize];
        for nth in 0..50 {
            let start = (1 + 3 * nth) * BLOCK;
            let after = if nth == 0 { 0 } else { start - 2 * BLOCK };
            assert_eq!(take_after(&mut contents, &mut batch, start + 1, &block[..1], &after.to_string()), Taken::New);
            assert_eq!(take(&mut contents, &mut batch, 5, start + BLOCK, "lines", str(&block[1..])), Taken::New);
        }
        contents.close();
        let end = 149 * BLOCK;
        contents.ended_at(StreamId { ms: 5, seq: end });
        assert_eq!(contents.take_gaps(), []);
        assert_eq!(batch.runs.len(), 50, "what is written is exact");
        assert!(batch.runs.iter().all(|run| run.span.start % (3 * BLOCK) == BLOCK && run.lines == BLOCK));
        assert_eq!(contents.held[&5].iter().collect::<Vec<_>>(), [0..end]);
        assert_eq!(take_after(&mut contents, &mut batch, BLOCK + 1, &block[..1], "0"), Taken::Held, "delivered again");
    }

    fn str(bytes: &[u8]) -> &str {
        std::str::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_missing_entry_before_a_step_is_a_gap() {
        let (mut contents, mut batch) = (second_of_three(), Batch::default());
        assert_eq!(take_after(&mut contents, &mut batch, BLOCK + 4, b"abc\n", "0"), Taken::New);
        let (start, after) = (4 * BLOCK + 20, 2 * BLOCK + 5);
        assert_eq!(take_after(&mut contents, &mut batch, start + 4, b"def\n", &after.to_string()), Taken::New);
        assert_eq!(contents.take_gaps(), [Gap { root: 5, span: BLOCK + 4..2 * BLOCK }]);
        assert_eq!(contents.held[&5].iter().collect::<Vec<_>>(), [0..BLOCK + 4, after..start + 4]);
        contents.deleted(StreamId { ms: 5, seq: 7 * BLOCK + 9 });
        let spans: Vec<_> = contents.take_gaps().into_iter().map(|gap| gap.span).collect();
        assert_eq!(spans, [start + 4..5 * BLOCK, 7 * BLOCK..7 * BLOCK + 9], "not what others have between them");
    }

    #[test]
    fn who_says_the_impossible_of_the_entry_before_is_foreign() {
        let (mut contents, mut batch) = (second_of_three(), Batch::default());
        for after in ["", "x", "-1", "1.5", "65537", "99999999999999999999"] {
            let taken = take_after(&mut contents, &mut batch, BLOCK + 4, b"abc\n", after);
            assert_eq!(taken, Taken::Foreign, "{after}");
        }
        let unknown = StreamId { ms: 9, seq: BLOCK + 4 };
        let taken = contents.take_after(unknown, (b"lines", b"abc\n"), b"0", Came::New, &mut batch);
        assert_eq!(taken, Taken::Unknown);
        assert!(batch.is_empty() && contents.take_gaps().is_empty());
    }
}
