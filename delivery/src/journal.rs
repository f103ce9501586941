//! The format of the writer's commit journal.
//!
//! The journal is stored beside the output. It records which bytes of which content are stored
//! where in the output. It consists of a header and records of fixed size; a record describes one
//! run of contiguous source bytes that was appended to the output. [`output`](crate::output)
//! decides what a journal means for its output, and is the only user of this module.
//!
//! The parser trusts nothing. A record counts only if its own hash is right, which includes its
//! index in the journal, and if it continues the output exactly where the previous record ended. A
//! damaged record is restored if only one value is possible. If it cannot be restored, later
//! records that claim durability distinguish damage from a torn tail.

use crate::entry::Span;
use crate::partition::Partition;
use crate::ranges::RangeSet;
use std::collections::BTreeMap;
use std::fmt;

/// The first bytes of every journal; they include its version.
pub const MAGIC: [u8; 8] = *b"LSJRNL02";
/// Size of a record in bytes.
pub const RECORD_LEN: usize = 64;
/// Maximum number of bytes covered by a tail checksum: 64 KiB.
pub const TAIL_LEN: u64 = 64 << 10;
/// Maximum size of a header: 2 MiB.
pub const MAX_HEADER_LEN: usize = 2 << 20;

/// The first bytes of a journal of version 1. Its header has 32 bytes and no owner.
const MAGIC_1: [u8; 8] = *b"LSJRNL01";
const HEADER_LEN_1: usize = 32;
/// Offset of the names in a copy of the header.
const NAMES_AT: usize = 48;
/// The length of a header copy is a multiple of this plus one half, so records begin at odd
/// multiples of 32 in both versions.
const COPY_STEP: usize = 32;

/// One run of contiguous source bytes in the output; without bytes, a mark that everything before
/// it is durable.
///
/// A record cannot claim durability for its own bytes. A writer that becomes idle therefore appends
/// a mark after its last commit. Without the mark, recovery could not distinguish a last commit
/// that was truncated later from one that never reached the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The file ID of the content.
    pub file: u64,
    /// The bytes of that content.
    pub span: Span,
    /// Where they begin in the output.
    pub offset: u64,
    /// The length of the output that was known to be durable when the record was written.
    pub durable: u64,
    /// xxh3 of the bytes; 0 if unknown (joined records). In a mark: the tail checksum.
    pub data_hash: u64,
    /// The number of lines in the run. In a mark: the number of bytes that the tail checksum
    /// covers.
    pub lines: u64,
}

impl Record {
    /// A mark that the output is durable up to `len`, its length. `hash` is the hash of the range
    /// that [`tail`] returns.
    #[must_use]
    pub const fn mark(len: u64, tail: Span, hash: u64) -> Self {
        let lines = tail.end.saturating_sub(tail.start);
        Self { file: 0, span: 0..0, offset: len, durable: len, data_hash: if lines > 0 { hash } else { 0 }, lines }
    }

    /// Whether this is a mark.
    #[must_use]
    pub const fn is_mark(&self) -> bool {
        self.span.start == self.span.end
    }

    /// How many bytes the run has.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.span.end.saturating_sub(self.span.start)
    }

    /// The offset in the output after this run.
    #[must_use]
    pub const fn output_end(&self) -> u64 {
        self.offset.saturating_add(self.bytes())
    }

    /// Whether `next` continues this run, both in the source and in the output.
    #[must_use]
    pub fn precedes(&self, next: &Self) -> bool {
        self.file == next.file && self.span.end == next.span.start && self.output_end() == next.offset
    }

    /// The part of the output whose hash this record contains, and the hash.
    #[must_use]
    pub fn evidence(&self) -> Option<(Span, u64)> {
        let start = if self.is_mark() { self.offset.checked_sub(self.lines)? } else { self.offset };
        let span = start..self.output_end();
        (!span.is_empty() && self.data_hash != 0).then_some((span, self.data_hash))
    }

    /// Encodes the record. `index` is its index in the journal, from 0: a record copied to another
    /// index is invalid.
    #[must_use]
    pub fn encode(&self, index: u64) -> [u8; RECORD_LEN] {
        let mut out = [0; RECORD_LEN];
        let words = [self.file, self.span.start, self.span.end, self.offset, self.durable, self.data_hash, self.lines];
        for (chunk, word) in out.chunks_exact_mut(8).zip(words) {
            chunk.copy_from_slice(&word.to_le_bytes());
        }
        let seal = seal(&out[..RECORD_LEN - 8], index);
        out[RECORD_LEN - 8..].copy_from_slice(&seal.to_le_bytes());
        out
    }

    fn decode(bytes: &[u8], index: u64) -> Option<Self> {
        let (body, sealed) = bytes.split_at_checked(RECORD_LEN - 8)?;
        if word(sealed, 0)? != seal(body, index) {
            return None;
        }
        let span = word(body, 1)?..word(body, 2)?;
        let record = Self {
            file: word(body, 0)?,
            offset: word(body, 3)?,
            durable: word(body, 4)?,
            data_hash: word(body, 5)?,
            lines: word(body, 6)?,
            span,
        };
        let is_run = record.bytes() > 0 && record.offset.checked_add(record.bytes()).is_some();
        let is_mark = (record.file, record.span.clone(), record.durable) == (0, 0..0, record.offset)
            && record.lines <= TAIL_LEN.min(record.offset);
        (is_run || is_mark).then_some(record)
    }
}

/// The range that a tail checksum of an output of this length covers. The writer did not write the
/// bytes below `base`.
#[must_use]
pub fn tail(base: u64, len: u64) -> Span {
    len.saturating_sub(TAIL_LEN).max(base).min(len)..len
}

/// The purpose of an output: these partitions of one source, delivered to one group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The key of the source's stream.
    pub stream: String,
    /// The consumer group.
    pub group: String,
    /// The partitions: `0-2,5 of 6`.
    pub partitions: String,
}

impl Identity {
    /// The identity of an output that `group` writes from these partitions, in order, of `stream`.
    ///
    /// ```
    /// use delivery::journal::Identity;
    /// use delivery::partition::Partition;
    /// let some: Vec<_> = Partition::all(6).filter(|one| one.index() < 3 || one.index() == 5).collect();
    /// assert_eq!(Identity::new("line_stream", "writers", &some).partitions, "0-2,5 of 6");
    /// ```
    #[must_use]
    pub fn new(stream: &str, group: &str, partitions: &[Partition]) -> Self {
        let mut ranges = RangeSet::new();
        partitions
            .iter()
            .map(|one| u64::from(one.index()))
            .for_each(|index| ranges.insert(index..index.saturating_add(1)));
        let ranges: Vec<String> = ranges
            .iter()
            .map(|range| match range.end.saturating_sub(1) {
                last if last == range.start => last.to_string(),
                last => format!("{}-{last}", range.start),
            })
            .collect();
        let count = partitions.first().map_or(1, |one| one.count());
        let partitions = format!("{} of {count}", ranges.join(","));
        Self { stream: stream.to_owned(), group: group.to_owned(), partitions }
    }
}

impl Identity {
    /// Whether a writer with identity `other` may continue an output with this identity: stream and
    /// group are equal, and the two have at least one partition in common.
    #[must_use]
    pub fn admits(&self, other: &Self) -> bool {
        let in_common = || {
            let ((own, count), (wanted, of)) = (self.parse()?, other.parse()?);
            Some(count == of && wanted.iter().any(|range| !own.missing(range.clone()).eq([range])))
        };
        (&self.stream, &self.group) == (&other.stream, &other.group)
            && (self.partitions == other.partitions || in_common() == Some(true))
    }

    /// The partitions, and their total number.
    fn parse(&self) -> Option<(RangeSet, u64)> {
        let (ranges, count) = self.partitions.split_once(" of ")?;
        let mut set = RangeSet::new();
        for range in ranges.split(',') {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            set.insert(first.parse().ok()?..last.parse::<u64>().ok()?.checked_add(1)?);
        }
        Some((set, count.parse().ok()?))
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "--stream {} --group {}", self.stream, self.group)?;
        if self.partitions == "0 of 1" { Ok(()) } else { write!(f, " (partitions {})", self.partitions) }
    }
}

/// The output that a journal belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// The ID of the output; rotation keeps it, so the journals of rotated files have it too.
    pub id: u64,
    /// The file name of the output when the journal was written.
    pub name: Vec<u8>,
    /// The purpose of the output.
    pub identity: Identity,
}

impl Owner {
    fn names(&self) -> [&[u8]; 4] {
        let Identity { stream, group, partitions } = &self.identity;
        [&self.name, stream.as_bytes(), group.as_bytes(), partitions.as_bytes()]
    }
}

/// The header of a journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// The length of the output before the first record: bytes that the writer did not write.
    pub base: u64,
    /// The output that it belongs to. `None` in version 1.
    pub owner: Option<Owner>,
}

impl Header {
    /// The length of a header with this owner.
    #[must_use]
    #[allow(clippy::arithmetic_side_effects, reason = "three names, which are in memory")]
    pub fn len(owner: &Owner) -> usize {
        let names = owner.names().map(<[u8]>::len).iter().sum::<usize>();
        2 * ((NAMES_AT + names + 8).next_multiple_of(COPY_STEP) + COPY_STEP / 2)
    }

    /// Encodes the header: two copies, so that one may be damaged.
    #[must_use]
    #[allow(clippy::arithmetic_side_effects, clippy::cast_possible_truncation, reason = "names of less than 4 GiB")]
    pub fn encode(base: u64, owner: &Owner) -> Vec<u8> {
        let (names, len) = (owner.names(), Self::len(owner) / 2);
        let mut copy = Vec::with_capacity(2 * len);
        copy.extend_from_slice(&MAGIC);
        copy.extend_from_slice(&(len as u64).to_le_bytes());
        copy.extend_from_slice(&base.to_le_bytes());
        copy.extend_from_slice(&owner.id.to_le_bytes());
        names.iter().for_each(|name| copy.extend_from_slice(&(name.len() as u32).to_le_bytes()));
        names.iter().for_each(|name| copy.extend_from_slice(name));
        copy.resize(len - 8, 0);
        let seal = seal(&copy, u64::MAX);
        copy.extend_from_slice(&seal.to_le_bytes());
        copy.extend_from_within(..);
        copy
    }

    /// Parses the header at the beginning of a journal. Also returns its length, and whether it had
    /// to be restored.
    #[must_use]
    pub fn read(bytes: &[u8]) -> Option<(Self, usize, bool)> {
        if let Some(base) = decode_1(bytes) {
            return Some((Self { base, owner: None }, HEADER_LEN_1, false));
        }
        if let Some((header, len)) = Self::decode_copy(bytes) {
            let both = len.saturating_mul(2);
            return Some((header, both, bytes.get(..len) != bytes.get(len..both)));
        }
        // The first copy is damaged, so the length comes from the second one.
        let most = bytes.len().min(MAX_HEADER_LEN / 2);
        let second = (COPY_STEP / 2..most).step_by(COPY_STEP).find_map(|at| {
            let (header, len) = Self::decode_copy(bytes.get(at..)?)?;
            (len == at).then_some((header, len.saturating_mul(2), true))
        });
        let of_1 = || {
            let base = restore(bytes.get(..HEADER_LEN_1)?, decode_1)?;
            Some((Self { base, owner: None }, HEADER_LEN_1, true))
        };
        second.or_else(of_1)
    }

    fn decode_copy(bytes: &[u8]) -> Option<(Self, usize)> {
        let len = usize::try_from(word(bytes, 1)?).ok().filter(|len| (NAMES_AT..=MAX_HEADER_LEN / 2).contains(len))?;
        let (body, sealed) = bytes.get(..len)?.split_at_checked(len.checked_sub(8)?)?;
        if !body.starts_with(&MAGIC) || word(sealed, 0)? != seal(body, u64::MAX) {
            return None;
        }
        let mut at = NAMES_AT;
        let mut name = |nth: usize| {
            let len = body.get(32..)?.chunks_exact(4).nth(nth)?;
            let len = u32::from_le_bytes(len.try_into().ok()?) as usize;
            let end = at.checked_add(len)?;
            let name = body.get(at..end)?;
            at = end;
            Some(name.to_vec())
        };
        let output = name(0)?;
        let mut text = |nth| String::from_utf8(name(nth)?).ok();
        let identity = Identity { stream: text(1)?, group: text(2)?, partitions: text(3)? };
        let owner = Owner { id: word(body, 3)?, name: output, identity };
        Some((Self { base: word(body, 2)?, owner: Some(owner) }, len))
    }
}

fn decode_1(bytes: &[u8]) -> Option<u64> {
    let header = bytes.get(..HEADER_LEN_1)?;
    let right = header.starts_with(&MAGIC_1) && word(header, 3)? == seal(header.get(..24)?, u64::MAX);
    if right { word(header, 1) } else { None }
}

/// Finds the value that decodes after flipping exactly one bit of `bytes`. A value carries a 64-bit
/// hash, so the probability of a wrong one is about 2⁻⁵⁵.
fn restore<T>(bytes: &[u8], decode: impl Fn(&[u8]) -> Option<T>) -> Option<T> {
    let mut bytes = bytes.to_vec();
    (0..bytes.len().saturating_mul(8)).find_map(|bit| {
        *bytes.get_mut(bit / 8)? ^= 1 << (bit % 8);
        let found = decode(&bytes);
        *bytes.get_mut(bit / 8)? ^= 1 << (bit % 8);
        found
    })
}

fn seal(bytes: &[u8], index: u64) -> u64 {
    xxhash_rust::xxh3::xxh3_64_with_seed(bytes, index)
}

fn word(bytes: &[u8], index: usize) -> Option<u64> {
    let chunk = bytes.chunks_exact(8).nth(index)?;
    chunk.try_into().ok().map(u64::from_le_bytes)
}

/// Not a journal, or the beginning is damaged beyond repair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("its first bytes are not those of a commit journal")]
pub struct NotAJournal;

/// Unreadable records, although later records prove that the bytes they describe were durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The number of records.
    pub records: u64,
    /// The part of the output that they describe.
    pub output: Span,
}

/// A parsed journal, before it is compared with the output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parsed {
    /// The header.
    pub header: Header,
    /// The length of the header.
    pub header_len: u64,
    /// The valid records in order, restored ones included.
    pub records: Vec<Record>,
    /// Bytes after the last record: torn or garbage.
    pub torn: u64,
    /// The number of damaged records and header copies that were restored.
    pub restored: u64,
    /// Damage in the middle that cannot be restored. `records` ends before it.
    pub damage: Option<Damage>,
}

/// Maximum number of damaged records that are restored bit by bit; a torn tail can be long.
const MOST_RESTORED: usize = 4096;

impl Parsed {
    /// Parses a journal. Returns `None` if the header was never completed: nothing was committed,
    /// and the journal starts over.
    ///
    /// # Errors
    /// If the bytes are more than a torn header, and not a journal.
    pub fn read(bytes: &[u8]) -> Result<Option<Self>, NotAJournal> {
        if bytes.len() <= HEADER_LEN_1 && decode_1(bytes).is_none() {
            // A torn header of version 1 begins like a complete one, or is zeros on some file
            // systems. A header of version 2 is written atomically.
            let is_beginning = bytes.iter().zip(&MAGIC_1).all(|(byte, magic)| byte == magic);
            if is_beginning && bytes.len() < HEADER_LEN_1 || bytes.iter().all(|&b| b == 0) {
                return Ok(None);
            }
        }
        let (header, header_len, is_restored) = Header::read(bytes).ok_or(NotAJournal)?;
        let body = bytes.get(header_len..).unwrap_or_default();
        let mut restorable = MOST_RESTORED;
        let slots: Vec<Slot> = body
            .chunks_exact(RECORD_LEN)
            .zip(0..)
            .map(|(chunk, index)| match Record::decode(chunk, index) {
                Some(record) => Slot::Intact(record),
                None if restorable > 0 && chunk.iter().any(|&b| b != 0) => {
                    restorable = restorable.saturating_sub(1);
                    restore(chunk, |chunk| Record::decode(chunk, index)).map_or(Slot::Damaged, Slot::Restored)
                }
                None => Slot::Damaged,
            })
            .collect();
        let base = header.base;
        let mut parsed = Self {
            header,
            header_len: header_len as u64,
            records: Vec::with_capacity(slots.len()),
            torn: 0,
            restored: u64::from(is_restored),
            damage: None,
        };
        let used = parsed.take(base, slots);
        parsed.torn = body.len().saturating_sub(used.saturating_mul(RECORD_LEN)) as u64;
        Ok(Some(parsed))
    }

    /// Keeps the records that are certain. Returns the number of slots that they occupy.
    #[allow(clippy::arithmetic_side_effects, reason = "counts of records, which are in memory")]
    fn take(&mut self, base: u64, slots: Vec<Slot>) -> usize {
        let durable = slots.iter().filter_map(Slot::record).map(|record| record.durable).max().unwrap_or(0);
        let is_damaged = slots.iter().any(|slot| matches!(slot, Slot::Damaged));
        let held = if is_damaged { ranges(slots.iter().filter_map(Slot::record)) } else { BTreeMap::new() };
        let (mut end, mut used, mut damaged) = (base, 0, 0);
        for (slot, place) in slots.into_iter().zip(1..) {
            let is_restored = matches!(slot, Slot::Restored(_));
            let Some(record) = slot.into_record().filter(|record| record.offset >= end) else {
                damaged += 1;
                continue;
            };
            if record.offset > end {
                match self.between(&record, end, &held).filter(|_| damaged > 0 && record.offset <= durable) {
                    Some(missing) => self.records.push(missing),
                    None => break,
                }
            }
            // A damaged slot that describes no bytes of the output was a mark.
            self.restored += damaged + u64::from(is_restored);
            (end, used, damaged) = (record.output_end(), place, 0);
            self.records.push(record);
        }
        // This is not a torn tail: durable bytes after the last certain record had records too.
        if durable > end {
            self.damage = Some(Damage { records: damaged.max(1), output: end..durable });
        }
        used
    }

    /// The record between the last one and `next`, if only one is possible: both belong to the same
    /// content, their distance in the source equals that in the output, and no other record
    /// contains those bytes.
    fn between(&self, next: &Record, end: u64, held: &BTreeMap<u64, RangeSet>) -> Option<Record> {
        let previous = self.records.iter().rev().find(|record| !record.is_mark())?;
        let span = previous.span.end..next.span.start;
        let fits = previous.file == next.file
            && !next.is_mark()
            && next.span.start.checked_sub(previous.span.end) == next.offset.checked_sub(end);
        let is_free = || held.get(&next.file).is_some_and(|held| held.missing(span.clone()).eq([span.clone()]));
        (fits && is_free()).then(|| Record {
            file: next.file,
            span: span.clone(),
            offset: end,
            durable: 0,
            data_hash: 0,
            lines: 0,
        })
    }

    /// The length of the output that is durable according to the records.
    #[must_use]
    pub fn durable(&self) -> u64 {
        self.records.iter().map(|r| r.durable).max().unwrap_or(0).max(self.header.base)
    }

    /// The length of the output according to the last record.
    #[must_use]
    pub fn output_len(&self) -> u64 {
        self.records.last().map_or(self.header.base, Record::output_end)
    }
}

/// A slot for a record in the journal.
enum Slot {
    Intact(Record),
    Restored(Record),
    Damaged,
}

impl Slot {
    const fn record(&self) -> Option<&Record> {
        match self {
            Self::Intact(record) | Self::Restored(record) => Some(record),
            Self::Damaged => None,
        }
    }

    fn into_record(self) -> Option<Record> {
        match self {
            Self::Intact(record) | Self::Restored(record) => Some(record),
            Self::Damaged => None,
        }
    }
}

/// The ranges of these records, by content.
pub fn ranges<'a>(records: impl IntoIterator<Item = &'a Record>) -> BTreeMap<u64, RangeSet> {
    let mut held: BTreeMap<u64, RangeSet> = BTreeMap::new();
    for record in records.into_iter().filter(|record| !record.is_mark()) {
        held.entry(record.file).or_default().insert(record.span.clone());
    }
    held
}

/// Appends a record to joined records. Extends the last one if the record continues it in both the
/// source and the output.
pub fn join(joined: &mut Vec<Record>, record: &Record) {
    if record.is_mark() {
        return;
    }
    match joined.last_mut() {
        Some(last) if last.precedes(record) => {
            last.span.end = record.span.end;
            last.lines = last.lines.saturating_add(record.lines);
        }
        // The hash of a part is useless for the whole.
        _ => joined.push(Record { durable: 0, data_hash: 0, ..record.clone() }),
    }
}

/// Encodes a journal of joined records and a mark. All of them must be durable in the output.
#[must_use]
pub fn encode(base: u64, owner: &Owner, joined: &[Record], mark: &Record) -> Vec<u8> {
    let mut bytes = Header::encode(base, owner);
    bytes.reserve(joined.len().saturating_add(1).saturating_mul(RECORD_LEN));
    // Every record states the durable length, so that a truncated journal is detected.
    let all = joined.iter().chain([mark]).map(|record| Record { durable: mark.durable, ..record.clone() });
    for (index, record) in (0..).zip(all) {
        bytes.extend_from_slice(&record.encode(index));
    }
    bytes
}

/// A header of version 1.
#[cfg(test)]
pub(crate) fn header_1(base: u64) -> Vec<u8> {
    let mut out = [&MAGIC_1[..], &base.to_le_bytes(), &[0; 8]].concat();
    let seal = seal(&out, u64::MAX);
    out.extend_from_slice(&seal.to_le_bytes());
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::{Recovered, Refusal};
    use proptest::prelude::*;
    use std::convert::Infallible;

    fn owner() -> Owner {
        let identity = Identity::new("line_stream", "writers", &[Partition::WHOLE]);
        Owner { id: 77, name: b"out".to_vec(), identity }
    }

    /// A journal and its output as a writer leaves them: `durable` is one commit behind.
    fn written(base: u64, sizes: &[u64]) -> (Vec<u8>, Vec<u8>) {
        let mut output: Vec<u8> = (0..base).map(|i| i as u8).collect();
        let mut journal = Header::encode(base, &owner());
        let mut at = 0;
        for (index, &size) in sizes.iter().enumerate() {
            let data: Vec<u8> = (0..size).map(|i| (i * 7 + index as u64) as u8).collect();
            let offset = output.len() as u64;
            output.extend_from_slice(&data);
            let span = at..at + size;
            let record = Record { file: 5, span, offset, durable: offset, data_hash: crate::hash(&data), lines: 1 };
            journal.extend_from_slice(&record.encode(index as u64));
            at += size;
        }
        (journal, output)
    }

    fn try_recover(journal: &[u8], output: &[u8]) -> Result<Recovered, Refusal> {
        let parsed = Parsed::read(journal)?.unwrap();
        let hash_of =
            |span: Span| Ok::<_, Infallible>(output.get(span.start as usize..span.end as usize).map(crate::hash));
        parsed.recover(output.len() as u64, hash_of).unwrap()
    }

    fn recover(journal: &[u8], output: &[u8]) -> Recovered {
        try_recover(journal, output).unwrap()
    }

    fn held(recovered: &Recovered) -> Vec<Span> {
        ranges(&recovered.records).get(&5).map(|held| held.iter().collect()).unwrap_or_default()
    }

    /// The byte range of a record in a journal with the header of [`owner`].
    fn place(index: usize) -> std::ops::Range<usize> {
        let at = Header::len(&owner()) + index * RECORD_LEN;
        at..at + RECORD_LEN
    }

    #[test]
    fn a_complete_journal_round_trips() {
        let (journal, output) = written(3, &[4, 5, 6]);
        let recovered = recover(&journal, &output);
        assert_eq!((recovered.base, recovered.cut.clone(), held(&recovered)), (3, 18..18, vec![0..15]));
        assert!(recovered.lost.is_empty());
        assert_eq!(Header::read(&journal).unwrap().0.owner, Some(owner()));
    }

    #[test]
    fn other_files_are_refused_and_torn_headers_are_accepted() {
        assert_eq!(Parsed::read(b"my notes"), Err(NotAJournal));
        assert_eq!(Parsed::read(&[b'x'; 100]), Err(NotAJournal));
        assert_eq!(Parsed::read(&[0; 64]), Err(NotAJournal), "a header is never that long without a record");
        assert_eq!(Parsed::read(b""), Ok(None));
        assert_eq!(Parsed::read(&header_1(9)[..20]), Ok(None));
        assert_eq!(Parsed::read(&[0; 32]), Ok(None));
    }

    #[test]
    fn a_journal_of_version_1_is_read() {
        let (journal, output) = written(3, &[4, 5, 6]);
        let journal = [&header_1(3), &journal[place(0).start..]].concat();
        let recovered = recover(&journal, &output);
        assert_eq!((recovered.cut.clone(), held(&recovered)), (18..18, vec![0..15]));
        for bit in 0..journal.len() * 8 {
            let mut flipped = journal.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(held(&recover(&flipped, &output)), [0..15], "bit {bit}");
        }
    }

    #[test]
    fn a_record_at_another_index_is_invalid() {
        let (journal, output) = written(0, &[4, 4]);
        let swapped = [&journal[..place(0).start], &journal[place(1)], &journal[place(0)]].concat();
        assert_eq!(held(&recover(&swapped, &output)), []);
    }

    #[test]
    fn lost_durable_bytes_are_reported() {
        let (journal, output) = written(0, &[10, 10, 10]);
        let recovered = recover(&journal, &output[..5]);
        assert_eq!((recovered.cut.clone(), held(&recovered)), (5..5, vec![0..5]));
        let lost: Vec<_> = recovered.lost[&5].iter().collect();
        assert_eq!(lost, [5..20], "one range; nothing proves that the last record was durable");
    }

    #[test]
    fn a_mark_proves_that_the_last_record_is_durable() {
        let (mut journal, output) = written(3, &[10, 10]);
        journal.extend_from_slice(&Record::mark(23, 3..23, crate::hash(&output[3..])).encode(2));
        let recovered = recover(&journal, &output);
        assert_eq!((recovered.cut.clone(), held(&recovered)), (23..23, vec![0..20]));
        let cut = recover(&journal, &output[..20]);
        assert_eq!((cut.cut.clone(), cut.lost[&5].iter().collect::<Vec<_>>()), (20..20, vec![17..20]));
        // A torn commit after the mark leaves everything before it in place.
        let torn = Record { file: 5, span: 20..30, offset: 23, durable: 23, data_hash: 1, lines: 1 };
        journal.extend_from_slice(&torn.encode(3));
        let recovered = recover(&journal, &[output, vec![0; 10]].concat());
        assert_eq!((recovered.cut.clone(), recovered.lost.len()), (23..33, 0));
    }

    #[test]
    fn joining_keeps_the_ranges() {
        let (journal, output) = written(0, &[10, 10, 10]);
        let mut joined = Vec::new();
        recover(&journal, &output).records.iter().for_each(|record| join(&mut joined, record));
        assert_eq!(joined.len(), 1);
        assert_eq!((joined[0].span.clone(), joined[0].lines), (0..30, 3));
        let whole = encode(0, &owner(), &joined, &Record::mark(30, 0..30, crate::hash(&output)));
        assert_eq!(held(&recover(&whole, &output)), [0..30]);
        let without_mark = recover(&whole[..whole.len() - RECORD_LEN], &output);
        assert_eq!(held(&without_mark), [0..30]);
        joined.push(Record { file: 6, span: 0..5, offset: 30, durable: 0, data_hash: 0, lines: 1 });
        let whole = encode(0, &owner(), &joined, &Record::mark(35, 0..0, 0));
        let shortened = try_recover(&whole[..place(1).start], &[&output[..], b"12345"].concat());
        assert_eq!(shortened, Err(Refusal::Damaged(Damage { records: 1, output: 30..35 })));
    }

    #[test]
    fn a_damaged_record_is_inferred_from_its_neighbours() {
        let (journal, output) = written(3, &[10, 10, 10, 10, 10]);
        let damaged = |records: &[usize]| {
            let mut journal = journal.clone();
            records.iter().for_each(|&index| journal[place(index)].fill(0x5a));
            try_recover(&journal, &output)
        };
        for some in [&[1][..], &[2], &[1, 2], &[1, 3]] {
            let recovered = damaged(some).unwrap();
            assert_eq!((held(&recovered), recovered.cut), (vec![0..50], 53..53), "{some:?}");
        }
        // Nothing says which content the first bytes belong to.
        assert_eq!(damaged(&[0]), Err(Refusal::Damaged(Damage { records: 1, output: 3..43 })));
        // The last record may be torn, so the bytes are kept in a file.
        let torn = damaged(&[4]).unwrap();
        assert_eq!((held(&torn), torn.cut, torn.keep), (vec![0..40], 43..53, true));
    }

    #[test]
    fn a_damaged_record_is_not_inferred_if_another_record_has_its_bytes() {
        // 10..20 of the content follows later; other bytes are between 0..10 and 20..30.
        let runs = [(0..10, 5), (0..10, 6), (20..30, 5), (10..20, 5)];
        let mut journal = Header::encode(0, &owner());
        for (index, (span, file)) in (0..).zip(runs) {
            let offset = 10 * index;
            let record = Record { file, span, offset, durable: offset, data_hash: 1, lines: 1 };
            journal.extend_from_slice(&record.encode(index));
        }
        journal.extend_from_slice(&Record::mark(40, 0..0, 0).encode(4));
        assert_eq!(held(&recover(&journal, &[0; 40])), [0..30]);
        journal[place(1)].fill(0x5a);
        let refused = try_recover(&journal, &[0; 40]);
        assert_eq!(refused, Err(Refusal::Damaged(Damage { records: 1, output: 10..40 })));
    }

    #[test]
    fn an_output_accepts_other_partitions_if_one_is_in_common() {
        let of = |stream: &str, count, some: &[u32]| {
            let partitions: Vec<_> = some.iter().filter_map(|&index| Partition::new(index, count)).collect();
            Identity::new(stream, "writers", &partitions)
        };
        let output = of("s", 6, &[0, 1, 2, 5]);
        for (other, admitted) in [
            (of("s", 6, &[0, 1, 2, 5]), true),
            (of("s", 6, &[5]), true),
            (of("s", 6, &[1, 3, 4]), true),
            (of("s", 6, &[3, 4]), false),
            (of("s", 7, &[0, 1, 2, 5]), false),
            (of("other", 6, &[0, 1, 2, 5]), false),
            (Identity { group: "others".to_owned(), ..output.clone() }, false),
        ] {
            assert_eq!(output.admits(&other), admitted, "{other}");
        }
    }

    #[test]
    fn two_damaged_copies_of_the_header_are_refused() {
        let (mut journal, _) = written(0, &[4]);
        let half = Header::len(&owner()) / 2;
        assert_eq!(Header::len(&owner()) % RECORD_LEN, HEADER_LEN_1, "records have the alignment of version 1");
        journal[50] ^= 3;
        assert!(Parsed::read(&journal).unwrap().unwrap().restored > 0);
        journal[half + 50] ^= 3;
        assert_eq!(Parsed::read(&journal), Err(NotAJournal));
    }

    proptest! {
        /// Power loss: the journal and the output each keep any prefix that includes the durable
        /// bytes, followed by garbage.
        #[test]
        fn a_crash_leaves_a_prefix_of_the_commits(
            base in 0u64..5,
            sizes in prop::collection::vec(1u64..20, 1..12),
            journal_cut in 0usize..RECORD_LEN * 2,
            output_cut in 0usize..25,
            garbage in prop::collection::vec(any::<u8>(), 0..80),
            zeros in any::<bool>(),
        ) {
            let (journal, output) = written(base, &sizes);
            // Only the last commit was not durable yet.
            let last = *sizes.last().unwrap() as usize;
            let output_keep = output.len() - output_cut.min(last);
            let journal_keep = journal.len() - journal_cut.min(RECORD_LEN);
            let mut torn_output = output[..output_keep].to_vec();
            let mut torn_journal = journal[..journal_keep].to_vec();
            if zeros {
                torn_output.resize(output.len(), 0);
            }
            torn_output.extend_from_slice(&garbage);
            torn_journal.extend_from_slice(&garbage);
            let recovered = recover(&torn_journal, &torn_output);
            let len = recovered.cut.start as usize;
            prop_assert_eq!(&torn_output[..len], &output[..len], "only committed bytes stay");
            prop_assert!(recovered.records.len() + 1 >= sizes.len(), "at most the commit in flight is dropped");
            prop_assert!(recovered.lost.is_empty());
        }

        /// Bit flips anywhere in the journal: recovered ranges are true, and no bytes are cut off
        /// without being kept.
        #[test]
        fn flipped_bits_never_cut_committed_bytes(
            base in 0u64..5,
            sizes in prop::collection::vec(1u64..20, 1..12),
            is_marked in any::<bool>(),
            flips in prop::collection::vec(any::<prop::sample::Index>(), 1..6),
        ) {
            let (mut journal, output) = written(base, &sizes);
            if is_marked {
                let len = output.len() as u64;
                let tail = tail(base, len);
                let mark = Record::mark(len, tail.clone(), crate::hash(&output[tail.start as usize..]));
                journal.extend_from_slice(&mark.encode(sizes.len() as u64));
            }
            let whole: u64 = sizes.iter().sum();
            let bits: Vec<usize> = flips.iter().map(|flip| flip.index(journal.len() * 8)).collect();
            for bit in &bits {
                journal[bit / 8] ^= 1 << (bit % 8);
            }
            match try_recover(&journal, &output) {
                Ok(recovered) => {
                    prop_assert!(recovered.lost.is_empty());
                    prop_assert!(recovered.cut.is_empty() || recovered.keep);
                    // In these journals, source and output offsets advance together.
                    let held = held(&recovered);
                    prop_assert!(held.len() <= 1 && held.iter().all(|held| held.start == 0 && held.end <= whole));
                    for record in recovered.records.iter().filter(|record| !record.is_mark()) {
                        prop_assert_eq!(record.offset, base + record.span.start);
                    }
                    prop_assert_eq!(recovered.cut.start, base + held.first().map_or(0, |held| held.end));
                    // With two flipped bits each, neither the last record nor its mark is readable.
                    let is_known = is_marked && bits.len() < 4;
                    prop_assert!(!is_known || recovered.cut.is_empty(), "it was known to be durable");
                }
                Err(refusal) => prop_assert!(bits.len() > 1, "one bit can always be restored: {refusal:?}"),
            }
        }
    }
}
