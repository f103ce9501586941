//! The manifest of a source: the contents that the input has had, and the generations under which
//! their bytes are sent.
//!
//! A *content* is one physical state of the input file: created, rotated in, or truncated and
//! rewritten. Its *file ID* (`file_id`) names it permanently. A *generation* is the number under
//! which a range of a content's bytes is sent. The manifest lists the generations, oldest first,
//! and the fingerprints that recognise the contents.
//!
//! The reader owns the manifest. It is stored in Redis (the source record) and in the state file.
//! The writer reads it to map entries to contents.

use crate::files::Siblings;
use crate::fingerprint::{Fingerprint, TAIL_LEN, TailChecksum};
use crate::partition;
use resp::StreamId;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Maximum number of leading bytes that a content's fingerprint covers: 64 KiB.
pub const HEAD_LEN: usize = 64 << 10;
/// Maximum number of bytes that a tail checksum covers: 1 KiB.
#[allow(clippy::cast_possible_truncation, reason = "1,024")]
pub const GUARD_LEN: usize = TAIL_LEN as usize;

/// The key of a stream's source record. It has the hash slot of the stream.
///
/// ```
/// use delivery::manifest::record_key;
/// assert_eq!(record_key("line_stream"), "{line_stream}:source");
/// assert_eq!(record_key("line_stream:{0}"), "line_stream:{0}:source");
/// ```
#[must_use]
pub fn record_key(stream: &str) -> String {
    beside(stream, "source")
}

/// A key beside a stream, in the same slot of a cluster.
pub(crate) fn beside(stream: &str, what: &str) -> String {
    let tagged = stream.split_once('{').and_then(|(_, tag)| tag.find('}')).is_some_and(|close| close > 0);
    // A hash tag would end at a brace in the name, so such a stream gets no tag. The key may then
    // be in another slot, which matters only in a cluster.
    if tagged || stream.contains('}') { format!("{stream}:{what}") } else { format!("{{{stream}}}:{what}") }
}

/// The field of the source record that holds the generation after `predecessor`.
#[must_use]
pub fn next_field(predecessor: u64) -> String {
    format!("next:{predecessor}")
}

/// The field of the source record that holds the fingerprint of a content.
#[must_use]
pub fn prints_field(file_id: u64) -> String {
    format!("prints:{file_id}")
}

/// The field of the source record that holds the latest [`Guard`].
pub const GUARD_FIELD: &str = "guard";
/// The field of the source record that holds a confirmed position.
pub const CONFIRMED_FIELD: &str = "confirmed";
/// The field of the source record that holds the size of the largest payload so far, rounded up to
/// a power of two of at least [`SHORT`] bytes.
pub const LONGEST_FIELD: &str = "longest";
/// The field of the source record that holds the ID of the last entry with a payload above
/// [`SHORT`].
pub const LONG_FIELD: &str = "long";
/// The source record's field that says when the latest batch was sent: see [`Sent`].
pub const SENT_FIELD: &str = "sent";
/// A payload of at most this size is short: 64 KiB. A thousand of them fit into memory.
pub const SHORT: u64 = 64 << 10;
/// The field that holds the number of partitions. It is in the record of the unpartitioned key;
/// without it, there is one partition.
pub const PARTITIONS_FIELD: &str = "partitions";

/// When the reader put a batch on the wire, for measuring how long its way to the output takes. No
/// decision depends on it.
///
/// ```
/// use delivery::manifest::Sent;
/// let sent = Sent { last: resp::StreamId::new(5, 120), unix_ms: 1_796_050_472_322 };
/// assert_eq!(sent.to_string(), "5-120 1796050472322");
/// assert_eq!(Sent::parse(b"5-120 1796050472322"), Some(sent));
/// assert_eq!(Sent::parse(b"5-120"), None);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sent {
    /// The batch's last entry.
    pub last: StreamId,
    /// Milliseconds since 1970, by the clock of the reader's host.
    pub unix_ms: u64,
}

impl Sent {
    /// The value of [`SENT_FIELD`]; `None` if it is none.
    #[must_use]
    pub fn parse(value: &[u8]) -> Option<Self> {
        let (last, unix_ms) = std::str::from_utf8(value).ok()?.split_once(' ')?;
        Some(Self { last: StreamId::parse(last.as_bytes())?, unix_ms: unix_ms.parse().ok()? })
    }
}

impl fmt::Display for Sent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.last, self.unix_ms)
    }
}

/// A position in the source: an offset within the content of a generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Position {
    /// The generation.
    pub generation: u64,
    /// The byte offset in its content.
    pub offset: u64,
}

impl Position {
    /// The ID of an entry that ends here.
    #[must_use]
    pub const fn id(self) -> StreamId {
        StreamId { ms: self.generation, seq: self.offset }
    }

    /// The position that an entry ID encodes.
    #[must_use]
    pub const fn of(id: StreamId) -> Self {
        Self { generation: id.ms, offset: id.seq }
    }
}

/// A generation: a range of a content that is sent under one number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Generation {
    /// Its number: milliseconds since the epoch, larger than every earlier one.
    pub generation: u64,
    /// The file ID of the content, shared by all its generations and all partitions. It is the
    /// number of the content's first generation.
    #[serde(rename = "root")]
    pub file_id: u64,
    /// The offset at which it begins.
    pub start: u64,
    /// The end of the previous generation; in a partition, the end of its last entry. `None` if
    /// unknown.
    pub previous_end: Option<u64>,
    /// The last bytes that were read from the previous generation's content.
    #[serde(default)]
    pub previous_guard: Option<Guard>,
    /// The position up to which everything is delivered when this generation begins, if that is not
    /// the end of the previous one. The generations between are void: Redis lost their entries and
    /// has foreign entries above their numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resumes: Option<Position>,
    /// The absolute path of the input when the generation was recorded.
    pub path: String,
    /// The file's device.
    pub dev: u64,
    /// The file's inode.
    pub ino: u64,
    /// The creation time of the file in nanoseconds since the epoch on the file system's clock, if
    /// available.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<i64>,
    /// The path of the file with links resolved, if that differs from `path`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub real_path: Option<String>,
    /// The number of leading bytes that `head_hash` covers.
    pub head_len: u64,
    /// xxh3 of the first `head_len` bytes.
    pub head_hash: u64,
}

impl Generation {
    /// The position of its first entry.
    #[must_use]
    pub const fn begin(&self) -> Position {
        Position { generation: self.generation, offset: self.start }
    }
}

/// The tail checksum before a position of a generation, and the batch with which it was written.
/// The checksum describes the content, not what was delivered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guard {
    /// The generation of the content.
    pub generation: u64,
    /// The bytes before the position.
    #[serde(flatten)]
    pub tail: TailChecksum,
    /// The position of the first entry of the batch. If a foreign entry is found at this position
    /// or later, Redis refused that entry, although later ones may have been added.
    pub first: u64,
    /// The state before the batch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Before>,
}

/// The state before a batch: what Redis still has if every command of the batch failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Before {
    /// The first half of the stream's last ID.
    pub ms: u64,
    /// The second half of the stream's last ID.
    pub seq: u64,
    /// The offset at which the batch continues its content.
    pub offset: u64,
    /// The number of entries ever added to the stream, this batch included, as far as the reader
    /// knew. A stream that has fewer and yet contains the batch is an older state with a gap: the
    /// reader added to it before it detected that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub added: Option<u64>,
    /// The position up to which the stream was last found complete: a gap begins later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub whole: Option<Position>,
}

impl Guard {
    /// The guard of `bytes`, which end at `end`. `first` is the end of the first entry of the
    /// batch.
    #[must_use]
    pub fn new(generation: u64, first: u64, end: u64, bytes: &[u8]) -> Self {
        Self { generation, tail: TailChecksum::new(end, bytes), first, before: None }
    }

    /// Whether it was written with the entry of this ID.
    #[must_use]
    pub const fn stands_at(&self, id: StreamId) -> bool {
        self.generation == id.ms && self.tail.end == id.seq
    }
}

/// The generations of a source, oldest first, and related state.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Manifest {
    generations: BTreeMap<u64, Generation>,
    /// The fingerprints of the contents, by file ID.
    pub prints: BTreeMap<u64, Fingerprint>,
    /// The newest generation that another one names as its predecessor and that is missing.
    pub hole: Option<u64>,
    /// The latest guard.
    pub guard: Option<Guard>,
    /// A position up to which everything was certainly added to the stream.
    pub confirmed: Option<Position>,
    /// The size of the largest payload so far, rounded up to a power of two; 0 if unknown.
    pub longest: u64,
    /// When the source began, on the file system's clock. Only in the state file.
    pub began: Option<i64>,
    /// The files beside the input that hold no known content. Only in the state file.
    pub siblings: Siblings,
}

/// A field of the source record that no reader can have written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the source record's field `{field}` is not readable: {why}")]
pub struct RecordError {
    /// The name of the field.
    pub field: String,
    /// Why its value is wrong.
    pub why: String,
}

/// The number of partitions that the source was started with, from the fields of the record (a
/// reply to `HGETALL`) of the unpartitioned key. `None` if there is no record yet, or only fields
/// of other programs.
///
/// # Errors
/// If [`PARTITIONS_FIELD`] is not a valid number of partitions.
pub fn begun_with<'a>(fields: impl IntoIterator<Item = (&'a [u8], &'a [u8])>) -> Result<Option<u32>, RecordError> {
    let mut begun = None;
    for (name, value) in fields {
        if name == PARTITIONS_FIELD.as_bytes() {
            let count = std::str::from_utf8(value).ok().and_then(|value| value.parse().ok());
            return match count.filter(|count| (1..=partition::MAX).contains(count)) {
                Some(count) => Ok(Some(count)),
                None => Err(RecordError {
                    field: PARTITIONS_FIELD.to_owned(),
                    why: "not a number of partitions".to_owned(),
                }),
            };
        }
        if name.starts_with(b"next:") || name == GUARD_FIELD.as_bytes() || name == CONFIRMED_FIELD.as_bytes() {
            begun = Some(1);
        }
    }
    Ok(begun)
}

impl Manifest {
    /// Parses the fields of the source record (a reply to `HGETALL`). Ignores unknown fields.
    ///
    /// # Errors
    /// If a known field is invalid.
    pub fn from_fields<'a>(fields: impl IntoIterator<Item = (&'a [u8], &'a [u8])>) -> Result<Self, RecordError> {
        let mut manifest = Self::default();
        let mut named: Vec<u64> = Vec::new();
        for (name, value) in fields {
            let field = String::from_utf8_lossy(name);
            let error = |why: String| RecordError { field: field.to_string(), why };
            if let Some(predecessor) = field.strip_prefix("next:") {
                named.extend(predecessor.parse::<u64>().ok().filter(|&number| number > 0));
                manifest.insert(serde_json::from_slice(value).map_err(|e| error(e.to_string()))?);
            } else if let Some(file_id) = field.strip_prefix("prints:") {
                let file_id = file_id.parse().map_err(|_| error("not a file ID".to_owned()))?;
                manifest.prints.insert(file_id, serde_json::from_slice(value).map_err(|e| error(e.to_string()))?);
            } else if field == GUARD_FIELD {
                manifest.guard = Some(serde_json::from_slice(value).map_err(|e| error(e.to_string()))?);
            } else if field == CONFIRMED_FIELD {
                let id = StreamId::parse(value).ok_or_else(|| error("not a position".to_owned()))?;
                manifest.confirmed = Some(Position::of(id));
            } else if field == LONGEST_FIELD {
                let longest = std::str::from_utf8(value).ok().and_then(|value| value.parse().ok());
                manifest.longest = longest.ok_or_else(|| error("not a number of bytes".to_owned()))?;
            }
        }
        manifest.hole = named.into_iter().filter(|number| manifest.get(*number).is_none()).max();
        Ok(manifest)
    }

    /// Adds a generation.
    pub fn insert(&mut self, generation: Generation) {
        self.generations.insert(generation.generation, generation);
    }

    /// Removes a generation, and the fingerprint of its content if no other generation has that
    /// content.
    pub fn remove(&mut self, generation: u64) -> Option<Generation> {
        let removed = self.generations.remove(&generation)?;
        if !self.iter().any(|known| known.file_id == removed.file_id) {
            self.prints.remove(&removed.file_id);
        }
        Some(removed)
    }

    /// The generations, oldest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Generation> + '_ {
        self.generations.values()
    }

    /// The number of generations.
    #[must_use]
    pub fn len(&self) -> usize {
        self.generations.len()
    }

    /// A generation by its number.
    #[must_use]
    pub fn get(&self, generation: u64) -> Option<&Generation> {
        self.generations.get(&generation)
    }

    /// The oldest generation.
    #[must_use]
    pub fn first(&self) -> Option<&Generation> {
        self.generations.first_key_value().map(|(_, g)| g)
    }

    /// The newest generation.
    #[must_use]
    pub fn last(&self) -> Option<&Generation> {
        self.generations.last_key_value().map(|(_, g)| g)
    }

    /// The generation after this one.
    #[must_use]
    pub fn after(&self, generation: u64) -> Option<&Generation> {
        self.generations.range(generation.checked_add(1)?..).next().map(|(_, g)| g)
    }

    /// The generation before this one.
    #[must_use]
    pub fn before(&self, generation: u64) -> Option<&Generation> {
        self.generations.range(..generation).next_back().map(|(_, g)| g)
    }

    /// The generations that are not void, newest first.
    fn chain(&self) -> impl Iterator<Item = &Generation> + '_ {
        let before = |generation: &&Generation| match generation.resumes {
            Some(from) => self.get(from.generation),
            None => self.before(generation.generation),
        };
        std::iter::successors(self.last(), before)
    }

    /// Whether a later generation made this one void.
    #[must_use]
    pub fn is_void(&self, generation: u64) -> bool {
        self.chain().take_while(|known| known.generation >= generation).all(|known| known.generation != generation)
    }

    /// The next generation that is not void.
    #[must_use]
    pub fn successor(&self, generation: u64) -> Option<&Generation> {
        self.chain().take_while(|known| known.generation > generation).last()
    }

    /// The end of a generation; `None` if it has no successor, or if its end is unknown.
    #[must_use]
    pub fn end(&self, generation: u64) -> Option<u64> {
        let next = self.successor(generation)?;
        match next.resumes {
            Some(from) if from.generation == generation => Some(from.offset),
            Some(_) => None,
            None => next.previous_end,
        }
    }

    /// The last position up to this one that counts: a later generation has sent again what follows
    /// it.
    #[must_use]
    pub fn last_valid(&self, position: Position) -> Position {
        let Some(next) = self.successor(position.generation) else { return position };
        let end = match next.resumes {
            Some(from) => Some(from),
            None => next.previous_end.map(|offset| Position { offset, ..position }),
        };
        end.map_or(position, |end| end.min(position))
    }

    /// This position in the newest generation that goes on there: earlier attempts may have begun
    /// some, and added nothing.
    #[must_use]
    pub fn joined(&self, mut position: Position) -> Position {
        let file_of = |number: u64| self.get(number).map(|known| known.file_id);
        while self.end(position.generation) == Some(position.offset)
            && let Some(next) = self.successor(position.generation)
            && next.start == position.offset
            && Some(next.file_id) == file_of(position.generation)
        {
            position = next.begin();
        }
        position
    }

    /// The offset up to which each content (by file ID) is delivered when everything up to
    /// `position` is.
    #[must_use]
    pub fn delivered(&self, position: Position) -> BTreeMap<u64, u64> {
        let mut delivered = BTreeMap::new();
        let mut end = Some(position.offset);
        let mut at = position.generation;
        while let Some(generation) = self.get(at) {
            let offset = end.unwrap_or(generation.start).max(generation.start);
            let known = delivered.entry(generation.file_id).or_insert(offset);
            *known = offset.max(*known);
            let Some(before) = (match generation.resumes {
                Some(from) => Some((from.generation, Some(from.offset))),
                None => self.before(at).map(|before| (before.generation, generation.previous_end)),
            }) else {
                break;
            };
            (at, end) = before;
        }
        delivered
    }

    /// The tail checksum of a content with the highest end.
    #[must_use]
    pub fn tail(&self, file_id: u64) -> Option<&TailChecksum> {
        let of_content = self.tails().filter(|(of, _)| *of == file_id);
        of_content.map(|(_, tail)| tail).max_by_key(|tail| tail.end)
    }

    /// All tail checksums, each with its content's file ID.
    pub fn tails(&self) -> impl Iterator<Item = (u64, &TailChecksum)> {
        let guards = self.iter().filter_map(|generation| generation.previous_guard.as_ref()).chain(&self.guard);
        guards.filter_map(|guard| Some((self.get(guard.generation)?.file_id, &guard.tail)))
    }

    /// The newest generation of each content.
    pub fn contents(&self) -> impl Iterator<Item = &Generation> + '_ {
        let mut newest: BTreeMap<u64, &Generation> = BTreeMap::new();
        for generation in self.generations.values() {
            newest.insert(generation.file_id, generation);
        }
        newest.into_values()
    }

    /// Whether there are no generations.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.generations.is_empty()
    }

    /// Whether both have the same generations.
    #[must_use]
    pub fn same_generations(&self, other: &Self) -> bool {
        self.generations == other.generations
    }

    /// Whether both describe the same source: they have an equal generation.
    #[must_use]
    pub fn shares(&self, other: &Self) -> bool {
        self.generations.iter().any(|(number, g)| other.generations.get(number) == Some(g))
    }

    /// The generations that `redis` lacks and that can be added to it: those after its last one,
    /// and those up to its hole. If `redis` has a generation in another form, that form wins.
    #[must_use]
    pub fn missing_in(&self, redis: &Self) -> Vec<Generation> {
        let last = redis.last().map(|last| last.generation);
        let is_lost = |number: u64| Some(number) > last || redis.hole.is_some_and(|hole| number <= hole);
        let missing = self.iter().filter(|known| is_lost(known.generation) && redis.get(known.generation).is_none());
        missing.cloned().collect()
    }

    /// The generations, each with its field name in the source record.
    pub fn links(&self) -> impl Iterator<Item = (String, &Generation)> + '_ {
        let before = std::iter::once(0).chain(self.generations.keys().copied());
        before.zip(self.generations.values()).map(|(before, generation)| (next_field(before), generation))
    }

    /// The number of the next generation: the millisecond before `now_ms`, but larger than every
    /// known generation and than `last_id`. `now_ms` is Redis's clock, so that a foreign entry
    /// added now or later gets another number. `None`: the IDs are exhausted.
    #[must_use]
    pub fn next_number(&self, now_ms: u64, last_id: StreamId) -> Option<u64> {
        let least = last_id.ms.max(self.last().map_or(0, |g| g.generation)).checked_add(1)?;
        Some(least.max(now_ms.saturating_sub(1)))
    }

    /// The generations to drop so that at most `keep` are left. A generation can be dropped if its
    /// entries are all gone from the stream (`oldest` is the smallest generation that still has
    /// entries) and if it is superfluous: a later generation of the same content follows, a later
    /// one made it void, or `is_gone` says that the content is no longer readable.
    #[must_use]
    pub fn droppable(&self, keep: usize, oldest: u64, is_gone: impl Fn(u64) -> bool) -> Vec<u64> {
        let many = self.len().saturating_sub(keep);
        let newest = self.last().map_or(0, |last| last.generation);
        let chain: BTreeSet<u64> = self.chain().map(|generation| generation.generation).collect();
        let acknowledged = |generation: &&Generation| generation.generation < oldest.min(newest);
        let superfluous = |generation: &&Generation| {
            // Replaying adjacent generations of a content as one range gives the same bytes.
            let joins = self.after(generation.generation).is_some_and(|next| {
                next.file_id == generation.file_id && next.previous_end == Some(next.start) && next.resumes.is_none()
            });
            joins || !chain.contains(&generation.generation) || is_gone(generation.file_id)
        };
        let kept_by_resume = |generation: &&Generation| {
            self.chain().any(|later| later.resumes.is_some_and(|from| from.generation == generation.generation))
        };
        self.iter()
            .filter(acknowledged)
            .filter(superfluous)
            .filter(|generation| !kept_by_resume(generation))
            .take(many)
            .map(|generation| generation.generation)
            .collect()
    }

    /// Drops generations, and extends a later generation of the same content to the start of the
    /// dropped one.
    pub fn drop_all(&mut self, dropped: &[u64]) {
        for &number in dropped {
            let next = self.after(number).map(|next| next.generation);
            let Some(gone) = self.generations.remove(&number) else { continue };
            if let Some(next) = next.and_then(|next| self.generations.get_mut(&next)) {
                if next.file_id == gone.file_id && next.previous_end == Some(next.start) {
                    next.start = gone.start;
                }
                (next.previous_end, next.previous_guard) = (gone.previous_end, gone.previous_guard);
                next.resumes = next.resumes.or(gone.resumes);
            }
        }
        let known: Vec<u64> = self.contents().map(|content| content.file_id).collect();
        self.prints.retain(|file_id, _| known.binary_search(file_id).is_ok());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generation(number: u64) -> Generation {
        Generation {
            generation: number,
            file_id: number,
            start: 0,
            previous_end: None,
            previous_guard: None,
            resumes: None,
            path: "/data/input.txt".to_owned(),
            dev: 1,
            ino: 2,
            created: None,
            real_path: None,
            head_len: 3,
            head_hash: u64::MAX,
        }
    }

    #[test]
    fn the_record_round_trips() {
        let json = serde_json::to_vec(&generation(7)).unwrap();
        let guard = Guard::new(7, 2000, 2000, &[b'x'; 2000]);
        assert_eq!(guard.tail.len, GUARD_LEN as u64);
        let guard_json = serde_json::to_vec(&guard).unwrap();
        let fields = [
            (&b"next:0"[..], &json[..]),
            (b"guard", &guard_json),
            (b"confirmed", b"7-12"),
            (b"owner", b"somebody else's field"),
        ];
        let manifest = Manifest::from_fields(fields).unwrap();
        assert_eq!(manifest.last(), Some(&generation(7)));
        assert_eq!(manifest.guard, Some(guard));
        assert_eq!(manifest.confirmed, Some(Position { generation: 7, offset: 12 }));
    }

    fn chain(numbers: &[(u64, u64, u64, Option<u64>)]) -> Manifest {
        let mut manifest = Manifest::default();
        for &(number, file_id, start, previous_end) in numbers {
            manifest.insert(Generation { file_id, start, previous_end, ..generation(number) });
        }
        manifest
    }

    #[test]
    fn contents_are_delivered_up_to_the_end_of_their_generations() {
        // A rotated file, its successor, late lines of the first file, and the second file again.
        let manifest = chain(&[(1, 1, 0, None), (2, 2, 0, Some(50)), (3, 1, 50, Some(30)), (4, 2, 30, Some(60))]);
        let at = |generation, offset| Position { generation, offset };
        assert_eq!(manifest.delivered(at(4, 90)), BTreeMap::from([(1, 60), (2, 90)]));
        assert_eq!(manifest.delivered(at(3, 55)), BTreeMap::from([(1, 55), (2, 30)]));
        assert_eq!(manifest.delivered(at(1, 7)), BTreeMap::from([(1, 7)]), "what Redis lost is not delivered");
        assert_eq!((manifest.end(1), manifest.end(3), manifest.end(4)), (Some(50), Some(60), None));
    }

    #[test]
    fn generations_that_redis_lost_below_foreign_entries_are_void() {
        let mut manifest = chain(&[(1, 1, 0, None), (2, 2, 0, Some(50)), (3, 3, 0, Some(40))]);
        let resumes = Some(Position { generation: 1, offset: 20 });
        manifest.insert(Generation { file_id: 1, start: 20, resumes, ..generation(9) });
        assert!(manifest.is_void(2) && manifest.is_void(3) && !manifest.is_void(1) && !manifest.is_void(9));
        assert_eq!(manifest.successor(1).map(|next| next.generation), Some(9));
        assert_eq!(manifest.successor(2).map(|next| next.generation), Some(9));
        assert_eq!((manifest.end(1), manifest.end(2)), (Some(20), None));
        let delivered = manifest.delivered(Position { generation: 9, offset: 25 });
        assert_eq!(delivered, BTreeMap::from([(1, 25)]), "the entries of 2 and 3 are lost");
        let valid = |generation, offset| {
            let Position { generation, offset } = manifest.last_valid(Position { generation, offset });
            (generation, offset)
        };
        assert_eq!((valid(1, 10), valid(1, 45), valid(2, 7), valid(9, 30)), ((1, 10), (1, 20), (1, 20), (9, 30)));
    }

    #[test]
    fn a_position_is_joined_with_the_generations_that_go_on_there() {
        let manifest = chain(&[(1, 1, 0, None), (2, 1, 20, Some(20)), (3, 1, 20, Some(20)), (4, 4, 0, Some(50))]);
        let joined = |generation, offset| manifest.joined(Position { generation, offset }).generation;
        assert_eq!((joined(1, 20), joined(1, 10), joined(3, 20), joined(3, 50), joined(4, 0)), (3, 1, 3, 3, 4));
    }

    #[test]
    fn void_generations_are_dropped_when_their_entries_are_gone() {
        // Each attempt to send 2 again after 1 began a generation of each, and failed.
        let mut manifest = chain(&[(1, 1, 0, None), (2, 2, 0, Some(50))]);
        for attempt in [3, 5, 7] {
            let resumes = Some(Position { generation: 1, offset: 20 });
            manifest.insert(Generation { file_id: 1, start: 20, resumes, ..generation(attempt) });
            manifest.insert(Generation { file_id: 2, previous_end: Some(50), ..generation(attempt + 1) });
        }
        assert_eq!(manifest.droppable(4, 4, |_| false), [2, 3], "there are entries of 4");
        let dropped = manifest.droppable(4, 9, |_| false);
        assert_eq!(dropped, [2, 3, 4, 5]);
        let delivered = manifest.delivered(Position { generation: 8, offset: 9 });
        manifest.drop_all(&dropped);
        assert_eq!(manifest.delivered(Position { generation: 8, offset: 9 }), delivered);
        assert_eq!(manifest.droppable(1, 9, |_| false), [6], "1 and 7 belong to the chain");
    }

    #[test]
    fn dropped_generations_leave_an_unbroken_chain() {
        let mut manifest = chain(&[(1, 1, 0, None), (2, 1, 10, Some(10)), (3, 1, 30, Some(30)), (4, 4, 0, Some(50))]);
        assert_eq!(manifest.droppable(2, 2, |_| false), [1], "the entries of 2 are still in the stream");
        assert_eq!(manifest.droppable(2, 9, |_| false), [1, 2]);
        assert_eq!(manifest.droppable(1, 9, |file_id| file_id == 1), [1, 2, 3]);
        manifest.drop_all(&[1, 2]);
        assert_eq!(manifest.get(3).map(|g| (g.start, g.previous_end)), Some((0, None)));
        let links: Vec<_> = manifest.links().map(|(field, g)| (field, g.generation)).collect();
        assert_eq!(links, [("next:0".to_owned(), 3), ("next:3".to_owned(), 4)]);
        assert_eq!(manifest.delivered(Position { generation: 4, offset: 5 }), BTreeMap::from([(1, 50), (4, 5)]));
    }

    #[test]
    fn records_of_older_readers_are_read() {
        let next = br#"{"generation":7,"root":7,"start":0,"previous_end":null,"previous_guard":{"generation":5,"end":9,"len":9,"hash":1,"first":9},"path":"/data/input.txt","dev":1,"ino":2,"head_len":3,"head_hash":4}"#;
        let guard = br#"{"generation":7,"end":12,"len":12,"hash":99,"first":4}"#;
        let manifest = Manifest::from_fields([(&b"next:0"[..], &next[..]), (b"guard", guard)]).unwrap();
        assert_eq!(manifest.tail(7).map(|tail| (tail.end, tail.hash)), Some((12, 99)));
        assert_eq!(manifest.get(7).and_then(|g| g.previous_guard.as_ref()).map(|g| g.tail.end), Some(9));
    }

    #[test]
    fn an_error_names_the_broken_field() {
        let error = Manifest::from_fields([(&b"next:0"[..], &b"{}"[..])]).unwrap_err();
        assert!(error.to_string().contains("next:0"), "{error}");
    }

    #[test]
    fn the_record_contains_the_number_of_partitions() {
        let begun = |fields: &[(&'static str, &'static str)]| {
            begun_with(fields.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())))
                .map_err(|e| e.to_string())
        };
        assert_eq!(begun(&[]), Ok(None), "no record yet");
        assert_eq!(begun(&[("owner", "somebody else's field")]), Ok(None));
        assert_eq!(begun(&[("guard", "{}")]), Ok(Some(1)));
        assert_eq!(begun(&[("next:0", "{}"), ("confirmed", "7-12")]), Ok(Some(1)));
        assert_eq!(begun(&[("next:0", "{}"), ("partitions", "3")]), Ok(Some(3)));
        assert_eq!(begun(&[("partitions", "16384"), ("next:0", "{}")]), Ok(Some(16384)));
        for broken in ["", "0", "16385", "-1", "three"] {
            assert!(begun(&[("partitions", broken)]).unwrap_err().contains("`partitions`"), "{broken}");
        }
    }

    #[test]
    fn generation_numbers_only_grow() {
        let mut manifest = Manifest::default();
        assert_eq!(manifest.next_number(100, StreamId::ZERO), Some(99));
        manifest.insert(generation(500));
        assert_eq!(manifest.next_number(100, StreamId::ZERO), Some(501), "a clock that went back");
        assert_eq!(manifest.next_number(100, StreamId { ms: 900, seq: 3 }), Some(901), "a foreign entry");
        assert_eq!(manifest.next_number(100, StreamId { ms: u64::MAX, seq: 0 }), None, "exhausted");
    }
}
