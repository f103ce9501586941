//! Where a reader goes on, from what Redis holds.
//!
//! Starting up and recovering from a fault are the same: look at what Redis holds, and decide. The
//! decision is pure; what it needs to know is in [`Observed`].

use crate::entry::{Field, Piece, Span};
use crate::manifest::{Generation, Manifest, Position};
use resp::StreamId;

/// The state of Redis in one transaction.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observed {
    /// The source record.
    pub record: Manifest,
    /// The bytes of the record's guard field.
    pub guard_field: Option<Vec<u8>>,
    /// The stream; `None` when there is none.
    pub stream: Option<StreamState>,
    /// Whether the first entry that is left at the guard's first position or behind it has the form
    /// of ours; `None` when there is none. If it is foreign, it has taken the ID of the guard's
    /// first entry.
    pub first_is_ours: Option<bool>,
    /// The entry at the stream's last ID, when it has the form of ours: its field and payload.
    pub last_entry: Option<(Field, Vec<u8>)>,
}

/// The state of the stream in Redis.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StreamState {
    /// The last-generated ID.
    pub last_id: StreamId,
    /// How many entries there are.
    pub len: u64,
    /// How many entries were ever added; `None` before Redis 7.0.
    pub added: Option<u64>,
    /// The first half of the first entry's ID; `None` when there is no entry.
    pub oldest: Option<u64>,
}

/// Where to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resume {
    /// No source is known: the input begins one.
    Fresh,
    /// At this position; the next entries carry its generation.
    At(Position),
    /// At this position, if the stream's last entry is what the content has there: a batch of ours
    /// that landed without its guard. Else from the other one, in a new generation.
    Verify(Position, Position),
    /// Foreign entries are above our last one. Go on from this position, in a new generation of the
    /// same content.
    Renumber(Position),
}

/// The generations that Redis lacks and that the state file has: to be written to the source record
/// again.
#[must_use]
pub fn lost(record: &Manifest, local: &Manifest) -> Vec<Generation> {
    // A state file of another source says nothing here; the path decides whether the input belongs
    // to this one.
    if record.is_empty() || record.shares(local) { local.missing_in(record) } else { Vec::new() }
}

impl Observed {
    /// Decides where to go on. `manifest`: the source record with the generations that were lost.
    #[must_use]
    pub fn resume(&self, manifest: &Manifest) -> Resume {
        let last_id = self.last_id();
        let Some(first) = manifest.first() else { return Resume::Fresh };
        let start = first.begin();
        let known = manifest.get(last_id.ms).is_some();
        if let Some(guard) = self.record.guard.as_ref().filter(|guard| manifest.get(guard.generation).is_some()) {
            // The guard is written together with the entries: where it stands, the last ID is ours.
            if known && guard.stands_at(last_id) && self.first_is_ours != Some(false) {
                return Resume::At(Position::of(last_id));
            }
            // Each command in a transaction can fail alone: the guard was set, no entry was added.
            let before = guard.before.filter(|before| (StreamId { ms: before.ms, seq: before.seq }) == last_id);
            if let Some(before) = before.filter(|_| self.first_is_ours.is_none()) {
                return Resume::At(Position { generation: guard.generation, offset: before.offset });
            }
        }
        if last_id.ms < first.generation {
            // Nothing of ours is in the stream, and nothing is above what we will send.
            return Resume::At(start);
        }
        let confirmed = manifest.confirmed.filter(|c| manifest.get(c.generation).is_some()).unwrap_or(start);
        // An older state of the stream was restored beside a newer record.
        let went_back = || {
            let generation = manifest.iter().rev().find(|generation| generation.generation <= last_id.ms);
            generation.map_or(start, Generation::begin)
        };
        let confirmed = if last_id < confirmed.id() { went_back() } else { confirmed };
        // An earlier attempt has begun a generation for this already, and added nothing to it.
        let begun = manifest.last().filter(|newest| {
            let file_id = manifest.get(confirmed.generation).map(|generation| generation.file_id);
            newest.generation > last_id.ms && Some(newest.file_id) == file_id && newest.start == confirmed.offset
        });
        match begun {
            Some(begun) => Resume::At(begun.begin()),
            None if known && self.last_span().is_some() && self.first_is_ours != Some(false) => {
                Resume::Verify(Position::of(last_id), confirmed)
            }
            None => Resume::Renumber(confirmed),
        }
    }

    /// Where a gap may begin that nobody has noticed: an older state of the stream was restored, a
    /// reader added to it, and ended before it looked. The stream then holds what the guard was
    /// written with, and another number of entries was added to it than the guard says. A torn
    /// transaction can leave entries of ours after those of the guard.
    #[must_use]
    pub fn doubtful_from(&self) -> Option<Position> {
        let guard = self.record.guard.as_ref()?;
        let (before, stream) = (guard.before?, self.stream?);
        let (added, expected, last_id) = (stream.added?, before.added?, self.last_id());
        let is_above = last_id.ms == guard.generation && last_id.seq > guard.tail.end && self.last_span().is_some();
        let differs = guard.stands_at(last_id) && added != expected || is_above && added <= expected;
        // With foreign entries above or among those of the batch, some of it was refused.
        before.whole.filter(|_| differs && self.first_is_ours != Some(false))
    }

    /// The stream's last-generated ID; zero when there is no stream.
    #[must_use]
    pub fn last_id(&self) -> StreamId {
        self.stream.map_or(StreamId::ZERO, |stream| stream.last_id)
    }

    /// The bytes that the last entry stands for, if it has the form of ours.
    #[must_use]
    pub fn last_span(&self) -> Option<Span> {
        let (field, payload) = self.last_entry.as_ref()?;
        Piece::new(field.name(), payload, self.last_id().seq).map(|piece| piece.span)
    }

    /// The bytes of the content that the last entry holds.
    #[must_use]
    pub fn last_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        if let Some((field, payload)) = &self.last_entry
            && let Some(piece) = Piece::new(field.name(), payload, self.last_id().seq)
        {
            piece.append_from(piece.span.start, &mut bytes);
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::{Before, Guard};

    fn generation(number: u64) -> Generation {
        Generation {
            generation: number,
            file_id: number,
            start: 0,
            previous_end: None,
            previous_guard: None,
            resumes: None,
            path: "/in".to_owned(),
            dev: 1,
            ino: number,
            created: None,
            real_path: None,
            head_len: 1,
            head_hash: number,
        }
    }

    fn manifest(numbers: &[u64]) -> Manifest {
        let mut manifest = Manifest::default();
        numbers.iter().for_each(|&n| manifest.insert(generation(n)));
        manifest
    }

    fn observed(record: &Manifest, ms: u64, seq: u64) -> Observed {
        let stream = StreamState { last_id: StreamId { ms, seq }, ..StreamState::default() };
        Observed { record: record.clone(), stream: Some(stream), ..Observed::default() }
    }

    /// With a guard at the last ID, as our own entries leave it.
    fn resume(record: &Manifest, local: &Manifest, ms: u64, seq: u64) -> (Resume, usize) {
        let mut record = record.clone();
        record.guard.get_or_insert(Guard::new(ms, seq, seq, b""));
        let lost = lost(&record, local);
        let mut whole = record.clone();
        lost.iter().for_each(|generation| whole.insert(generation.clone()));
        (observed(&record, ms, seq).resume(&whole), lost.len())
    }

    const fn at(generation: u64, offset: u64) -> Resume {
        Resume::At(Position { generation, offset })
    }

    #[test]
    fn nothing_known_is_a_fresh_source() {
        assert_eq!(resume(&Manifest::default(), &Manifest::default(), 0, 0), (Resume::Fresh, 0));
    }

    #[test]
    fn the_last_id_is_the_checkpoint() {
        assert_eq!(resume(&manifest(&[10, 20]), &manifest(&[10, 20]), 20, 77), (at(20, 77), 0));
    }

    #[test]
    fn a_stream_that_lost_its_tail_goes_back_a_generation() {
        assert_eq!(resume(&manifest(&[10, 20]), &manifest(&[10, 20]), 10, 5), (at(10, 5), 0));
    }

    #[test]
    fn an_emptied_redis_gets_its_records_back() {
        assert_eq!(resume(&Manifest::default(), &manifest(&[10, 20]), 0, 0), (at(10, 0), 2));
    }

    #[test]
    fn a_stale_replica_gets_the_newer_records() {
        assert_eq!(resume(&manifest(&[10]), &manifest(&[10, 20]), 10, 9), (at(10, 9), 1));
    }

    #[test]
    fn a_generation_that_somebody_removed_is_restored() {
        let (whole, mut redis) = (manifest(&[10, 20, 30]), manifest(&[30]));
        assert_eq!(lost(&redis, &whole), [], "they were dropped");
        redis.hole = Some(20);
        assert_eq!(lost(&redis, &whole), [generation(10), generation(20)]);
        let field = serde_json::to_vec(&generation(30)).unwrap();
        let read = Manifest::from_fields([(&b"next:20"[..], &field[..])]).unwrap();
        assert_eq!(read.hole, Some(20));
    }

    #[test]
    fn redis_wins_over_another_state_file() {
        assert_eq!(resume(&manifest(&[10]), &manifest(&[11, 12]), 10, 9).1, 0);
    }

    #[test]
    fn foreign_entries_above_ours_renumber_from_the_confirmed_position() {
        let mut redis = manifest(&[10]);
        redis.confirmed = Some(Position { generation: 10, offset: 44 });
        redis.guard = Some(Guard::new(10, 45, 50, b""));
        let expected = Resume::Renumber(Position { generation: 10, offset: 44 });
        assert_eq!(resume(&redis, &redis, 999, 0).0, expected);
        // The same when the foreign ID got our number, with a clock that is behind it: above our
        // last one, ...
        assert_eq!(resume(&redis, &redis, 10, 51).0, expected);
        // ... or in the place of the first of a batch, whose other entries landed.
        let seen = Observed { first_is_ours: Some(false), ..observed(&redis, 10, 50) };
        assert_eq!(seen.resume(&redis), expected);
    }

    #[test]
    fn foreign_entries_below_ours_do_not_matter() {
        assert_eq!(resume(&Manifest::default(), &manifest(&[10]), 5, 0), (at(10, 0), 1));
    }

    #[test]
    fn a_batch_whose_entries_were_all_refused_is_sent_again() {
        let mut redis = manifest(&[10]);
        redis.confirmed = Some(Position { generation: 10, offset: 30 });
        let before = Some(Before { ms: 10, seq: 44, offset: 44, added: None, whole: None });
        redis.guard = Some(Guard { before, ..Guard::new(10, 45, 50, b"") });
        assert_eq!(observed(&redis, 10, 44).resume(&redis), at(10, 44));
        // The first batch of a generation, above a foreign entry.
        redis.insert(Generation { file_id: 10, start: 44, ..generation(20) });
        let before = Some(Before { ms: 15, seq: 0, offset: 44, added: None, whole: None });
        redis.guard = Some(Guard { before, ..Guard::new(20, 45, 50, b"") });
        assert_eq!(observed(&redis, 15, 0).resume(&redis), at(20, 44));
    }

    #[test]
    fn an_older_stream_beside_a_newer_record_is_sent_again() {
        let mut redis = manifest(&[10, 20]);
        redis.confirmed = Some(Position { generation: 20, offset: 30 });
        redis.guard = Some(Guard::new(20, 31, 44, b""));
        let beginning = Position { generation: 10, offset: 0 };
        // The entry at the last ID is trimmed: whose it was cannot be told.
        assert_eq!(observed(&redis, 10, 5).resume(&redis), Resume::Renumber(beginning));
        let seen = Observed { last_entry: Some((Field::Line, b"abc".to_vec())), ..observed(&redis, 10, 5) };
        let last = Position { generation: 10, offset: 5 };
        assert_eq!(seen.resume(&redis), Resume::Verify(last, beginning));
        assert_eq!(observed(&redis, 15, 0).resume(&redis), Resume::Renumber(beginning), "a foreign one");
    }

    #[test]
    fn a_gap_below_a_batch_that_was_added_to_an_older_stream_is_noticed() {
        let mut redis = manifest(&[10]);
        let whole = Some(Position { generation: 10, offset: 20 });
        let before = Some(Before { ms: 10, seq: 44, offset: 44, added: Some(5), whole });
        redis.guard = Some(Guard { before, ..Guard::new(10, 50, 50, b"") });
        let doubtful = |seq: u64, added: Option<u64>| {
            let mut seen = observed(&redis, 10, seq);
            seen.stream.as_mut().unwrap().added = added;
            seen.doubtful_from()
        };
        assert_eq!(doubtful(50, Some(5)), None, "the batch and what was there before it");
        assert_eq!(doubtful(50, Some(9)), whole, "the batch, and another history before it");
        assert_eq!(doubtful(50, Some(4)), whole, "the batch, and three of four before it");
        assert_eq!(doubtful(44, Some(4)), None, "each command of the batch failed alone");
        assert_eq!(doubtful(30, Some(2)), None, "a tail that is lost is no gap");
        assert_eq!(doubtful(50, None), None, "an older Redis does not count");
        assert_eq!(doubtful(60, Some(4)), None, "a foreign entry above it");
        let torn = |added| {
            let last_entry = Some((Field::Line, b"abc".to_vec()));
            let mut seen = Observed { last_entry, ..observed(&redis, 10, 54) };
            seen.stream.as_mut().unwrap().added = Some(added);
            seen.doubtful_from()
        };
        assert_eq!(torn(5), whole, "an entry of the next batch, and one fewer before it");
        assert_eq!(torn(6), None);
    }

    #[test]
    fn a_generation_that_was_begun_for_it_is_used_again() {
        let mut redis = manifest(&[10]);
        redis.confirmed = Some(Position { generation: 10, offset: 44 });
        redis.insert(Generation { file_id: 10, start: 44, ..generation(20) });
        redis.guard = Some(Guard::new(10, 44, 44, b""));
        assert_eq!(observed(&redis, 15, 0).resume(&redis), at(20, 44));
    }

    #[test]
    fn a_batch_that_landed_without_its_guard_is_compared_with_the_content() {
        // A torn append-only file can hold the first entries of a transaction without the rest of
        // it.
        let mut redis = manifest(&[10]);
        redis.confirmed = Some(Position { generation: 10, offset: 30 });
        redis.guard = Some(Guard::new(10, 31, 44, b""));
        let seen = Observed { last_entry: Some((Field::Line, b"abc".to_vec())), ..observed(&redis, 10, 48) };
        let expected = Resume::Verify(Position { generation: 10, offset: 48 }, Position { generation: 10, offset: 30 });
        assert_eq!((seen.resume(&redis), seen.last_bytes()), (expected, b"abc\n".to_vec()));
    }
}
