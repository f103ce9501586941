//! Generations, the identity of a content, and the source record.
//!
//! A *content* is one physical state of the input file: created, rotated in, or truncated and written anew. A *generation* is the
//! number under which a content's bytes travel. The list of generations is the source's *lineage*; it lies in Redis (the source
//! record) and in a small file beside the input.

use crate::{hash, partition};
use resp::StreamId;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// How many of a content's first bytes its fingerprint covers at most: 64 KiB.
pub const HEAD_LEN: usize = 64 << 10;
/// How many bytes before a position its guard covers at most: 1 KiB.
pub const GUARD_LEN: usize = 1 << 10;

/// The key of the source record of a stream; it has the stream's hash slot.
///
/// ```
/// use delivery::source::record_key;
/// assert_eq!(record_key("line_stream"), "{line_stream}:source");
/// assert_eq!(record_key("line_stream:{0}"), "line_stream:{0}:source");
/// ```
#[must_use]
pub fn record_key(stream: &str) -> String {
    let tagged = stream.find('{').is_some_and(|open| stream[open + 1..].find('}').is_some_and(|close| close > 0));
    // A brace that is no tag would end ours too early; such a stream gives up the common slot, which only a cluster asks for.
    if tagged || stream.contains('}') { format!("{stream}:source") } else { format!("{{{stream}}}:source") }
}

/// The source record's field that names the generation after `predecessor`.
#[must_use]
pub fn next_field(predecessor: u64) -> String {
    format!("next:{predecessor}")
}

/// The source record's field that holds the latest [`Guard`].
pub const GUARD_FIELD: &str = "guard";
/// The source record's field that holds a confirmed position.
pub const CONFIRMED_FIELD: &str = "confirmed";
/// The field of the record beside the base stream's key that holds how many partitions the source has; without it there is one.
pub const PARTITIONS_FIELD: &str = "partitions";

/// A place in the source: an offset within a generation's content.
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

    /// The position that an entry's ID is.
    #[must_use]
    pub const fn of(id: StreamId) -> Self {
        Self { generation: id.ms, offset: id.seq }
    }
}

/// What one generation is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Generation {
    /// Its number: milliseconds since the epoch, larger than every one before it.
    pub generation: u64,
    /// The content's name, which all its generations and all partitions share: the number of the generation that first named it.
    pub root: u64,
    /// The offset at which it begins.
    pub start: u64,
    /// Where the generation before it ended: of a partition, where its last entry did. `None` when that is not known.
    pub previous_end: Option<u64>,
    /// What the bytes before `previous_end` looked like, in the content before. It tells that content from another one with the same head.
    #[serde(default)]
    pub previous_guard: Option<Guard>,
    /// The absolute path of the input when this was written.
    pub path: String,
    /// The file's device.
    pub dev: u64,
    /// The file's inode.
    pub ino: u64,
    /// How many first bytes `head_hash` covers.
    pub head_len: u64,
    /// xxh3 of the content's first `head_len` bytes.
    pub head_hash: u64,
}

/// What the bytes before a position looked like. A statement on the content, not on what was delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guard {
    /// The generation of the content.
    pub generation: u64,
    /// The offset just behind the bytes.
    pub end: u64,
    /// How many bytes, at most [`GUARD_LEN`].
    pub len: u64,
    /// Their xxh3.
    pub hash: u64,
    /// The position of the first entry that went with it. When a foreign entry is found there, ours was refused, though later ones may
    /// have landed.
    pub first: u64,
}

impl Guard {
    /// The guard of `bytes`, which end at `end`; the last [`GUARD_LEN`] of them count. `first`: the end of the first entry that goes with it.
    #[must_use]
    pub fn new(generation: u64, first: u64, end: u64, bytes: &[u8]) -> Self {
        let bytes = &bytes[bytes.len().saturating_sub(GUARD_LEN)..];
        Self { generation, end, len: bytes.len() as u64, hash: hash(bytes), first }
    }

    /// Whether it was written with the entry that has this ID.
    #[must_use]
    pub const fn stands_at(&self, id: StreamId) -> bool {
        self.generation == id.ms && self.end == id.seq
    }
}

/// The generations of a source, oldest first, and what is known beside them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lineage {
    generations: BTreeMap<u64, Generation>,
    /// The latest guard.
    pub guard: Option<Guard>,
    /// A position of which it is certain that everything before it was added to the stream.
    pub confirmed: Option<Position>,
}

/// The source record holds something that no reader wrote.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the source record's field `{field}` is not readable: {why}")]
pub struct RecordError {
    /// The field.
    pub field: String,
    /// What is wrong with it.
    pub why: String,
}

/// How many partitions a source was begun with, as the fields of the record beside the base stream's key tell (those of `HGETALL`). `None`
/// when they do not: there is no record yet, or it holds only what somebody else wrote.
///
/// # Errors
/// When [`PARTITIONS_FIELD`] holds no number that a source can have.
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

impl Lineage {
    /// Reads the source record from its fields (those of `HGETALL`). Fields that are not known are left alone.
    ///
    /// # Errors
    /// When a field that we know cannot be read.
    pub fn from_fields<'a>(fields: impl IntoIterator<Item = (&'a [u8], &'a [u8])>) -> Result<Self, RecordError> {
        let mut lineage = Self::default();
        for (name, value) in fields {
            let field = String::from_utf8_lossy(name);
            let error = |why: String| RecordError { field: field.to_string(), why };
            if field.starts_with("next:") {
                lineage.insert(serde_json::from_slice(value).map_err(|e| error(e.to_string()))?);
            } else if field == GUARD_FIELD {
                lineage.guard = Some(serde_json::from_slice(value).map_err(|e| error(e.to_string()))?);
            } else if field == CONFIRMED_FIELD {
                let id = StreamId::parse(value).ok_or_else(|| error("not a position".to_owned()))?;
                lineage.confirmed = Some(Position::of(id));
            }
        }
        Ok(lineage)
    }

    /// Adds a generation.
    pub fn insert(&mut self, generation: Generation) {
        self.generations.insert(generation.generation, generation);
    }

    /// Forgets a generation.
    pub fn remove(&mut self, generation: u64) -> Option<Generation> {
        self.generations.remove(&generation)
    }

    /// The generations, oldest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Generation> + '_ {
        self.generations.values()
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
        self.generations.range(generation + 1..).next().map(|(_, g)| g)
    }

    /// The generation before this one.
    #[must_use]
    pub fn before(&self, generation: u64) -> Option<&Generation> {
        self.generations.range(..generation).next_back().map(|(_, g)| g)
    }

    /// The generations that first named a content, oldest first.
    pub fn contents(&self) -> impl Iterator<Item = &Generation> + '_ {
        let mut known = BTreeSet::new();
        self.generations.values().filter(move |generation| known.insert(generation.root))
    }

    /// What is known of a content beside its head: where it was finished, and a guard within it.
    #[must_use]
    pub fn seal(&self, root: u64) -> (Option<u64>, Option<Guard>) {
        let guard = self.guard.filter(|g| self.get(g.generation).is_some_and(|g| g.root == root));
        // The first one of the next content tells how this one ended.
        let next = self.generations.values().find(|g| g.root > root);
        (next.and_then(|g| g.previous_end), next.and_then(|g| g.previous_guard).or(guard))
    }

    /// Whether no generation is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.generations.is_empty()
    }

    /// Whether both know the same generations.
    #[must_use]
    pub fn same_generations(&self, other: &Self) -> bool {
        self.generations == other.generations
    }

    /// Whether the two describe the same source: they share a generation that says the same.
    #[must_use]
    pub fn shares(&self, other: &Self) -> bool {
        self.generations.iter().any(|(number, g)| other.generations.get(number) == Some(g))
    }

    /// The generations here that `redis` lacks and that can be added to it: those after the last one of `redis`. A generation that
    /// `redis` has in another form wins over ours.
    #[must_use]
    pub fn missing_in(&self, redis: &Self) -> Vec<Generation> {
        let last = redis.last().map_or(0, |g| g.generation);
        self.generations.range(last + 1..).map(|(_, g)| g.clone()).collect()
    }

    /// A number for the next generation: the millisecond before `now_ms` (Redis's clock, so that an entry that somebody else adds now or
    /// later gets another one), but larger than every generation known and than `last_id`.
    #[must_use]
    pub fn next_number(&self, now_ms: u64, last_id: StreamId) -> u64 {
        let least = last_id.ms.max(self.last().map_or(0, |g| g.generation)) + 1;
        least.max(now_ms.saturating_sub(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generation(number: u64) -> Generation {
        Generation {
            generation: number,
            root: number,
            start: 0,
            previous_end: None,
            previous_guard: None,
            path: "/data/input.txt".to_owned(),
            dev: 1,
            ino: 2,
            head_len: 3,
            head_hash: u64::MAX,
        }
    }

    #[test]
    fn the_record_is_read_back() {
        let json = serde_json::to_vec(&generation(7)).unwrap();
        let guard = Guard::new(7, 2000, 2000, &[b'x'; 2000]);
        assert_eq!(guard.len, GUARD_LEN as u64);
        let guard_json = serde_json::to_vec(&guard).unwrap();
        let fields = [
            (&b"next:0"[..], &json[..]),
            (b"guard", &guard_json),
            (b"confirmed", b"7-12"),
            (b"owner", b"somebody else's field"),
        ];
        let lineage = Lineage::from_fields(fields).unwrap();
        assert_eq!(lineage.last(), Some(&generation(7)));
        assert_eq!(lineage.guard, Some(guard));
        assert_eq!(lineage.confirmed, Some(Position { generation: 7, offset: 12 }));
    }

    #[test]
    fn a_content_is_sealed_by_what_follows_it() {
        let mut lineage = Lineage::default();
        lineage.insert(generation(5));
        let guard = Guard::new(5, 3, 3, b"abc");
        lineage.guard = Some(guard);
        assert_eq!(lineage.seal(5), (None, Some(guard)));
        let sealed = Guard::new(5, 9, 9, b"def");
        lineage.insert(Generation { previous_end: Some(9), previous_guard: Some(sealed), ..generation(8) });
        lineage.guard = Some(Guard::new(8, 1, 1, b"x"));
        assert_eq!(lineage.seal(5), (Some(9), Some(sealed)));
        assert_eq!(lineage.seal(8), (None, lineage.guard));
    }

    #[test]
    fn a_broken_field_is_named() {
        let error = Lineage::from_fields([(&b"next:0"[..], &b"{}"[..])]).unwrap_err();
        assert!(error.to_string().contains("next:0"), "{error}");
    }

    #[test]
    fn the_record_tells_how_many_partitions_the_source_was_begun_with() {
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
    fn numbers_only_grow() {
        let mut lineage = Lineage::default();
        assert_eq!(lineage.next_number(100, StreamId::ZERO), 99);
        lineage.insert(generation(500));
        assert_eq!(lineage.next_number(100, StreamId::ZERO), 501, "a clock that went back");
        assert_eq!(lineage.next_number(100, StreamId { ms: 900, seq: 3 }), 901, "a foreign entry");
    }
}
