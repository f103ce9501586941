//! The writer's commit journal: its format and its recovery.
//!
//! The journal lies beside the output and says which bytes of which content lie where in it. It is a header and records of
//! fixed size; a record stands for one run of contiguous source bytes that was appended to the output.
//!
//! Recovery trusts nothing: a record counts when its own hash is right, when it continues the output exactly where the one
//! before ended, and when the bytes it covers are those that it was written for. The last is checked only behind the length
//! that a later record knew to be durable, so that starting costs no more than the last batch.

use crate::entry::Span;
use crate::ranges::RangeSet;
use std::collections::BTreeMap;

/// The first bytes of every journal, its version in them.
pub const MAGIC: [u8; 8] = *b"LSJRNL01";
/// Size of the header in bytes.
pub const HEADER_LEN: usize = 32;
/// Size of a record in bytes.
pub const RECORD_LEN: usize = 64;

/// One run of contiguous source bytes in the output; or, without bytes, a mark that everything before it is durable.
///
/// A record cannot say of its own bytes that they are durable, so the last commit of a writer that becomes idle is followed by a mark.
/// Without it, recovery could not tell a last commit that somebody cut off from one that never reached the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The content, named by the generation that first named it.
    pub root: u64,
    /// The bytes of that content.
    pub span: Span,
    /// Where they lie in the output.
    pub offset: u64,
    /// The length of the output that was known to be durable when this was written.
    pub durable: u64,
    /// xxh3 of the bytes; 0 with `durable` at or behind the record's end: not to be checked any more (joined records).
    pub data_hash: u64,
    /// How many lines the run counts for.
    pub lines: u64,
}

impl Record {
    /// A mark that the output is durable up to `len`, its length.
    #[must_use]
    pub const fn mark(len: u64) -> Self {
        Self { root: 0, span: 0..0, offset: len, durable: len, data_hash: 0, lines: 0 }
    }

    /// Whether this is a mark, and no run of bytes.
    #[must_use]
    pub const fn is_mark(&self) -> bool {
        self.span.start == self.span.end
    }

    /// The offset in the output just behind this run.
    #[must_use]
    pub const fn output_end(&self) -> u64 {
        self.offset + (self.span.end - self.span.start)
    }

    /// Whether `next` goes on where this one ends, both in the source and in the output.
    #[must_use]
    pub fn precedes(&self, next: &Self) -> bool {
        self.root == next.root && self.span.end == next.span.start && self.output_end() == next.offset
    }

    /// The record's bytes. `index` is its place in the journal, counted from 0: a record that was copied elsewhere is not valid.
    #[must_use]
    pub fn encode(&self, index: u64) -> [u8; RECORD_LEN] {
        let mut out = [0; RECORD_LEN];
        let words = [self.root, self.span.start, self.span.end, self.offset, self.durable, self.data_hash, self.lines];
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
            root: word(body, 0)?,
            offset: word(body, 3)?,
            durable: word(body, 4)?,
            data_hash: word(body, 5)?,
            lines: word(body, 6)?,
            span,
        };
        let sane = record.span.start < record.span.end
            && record.offset.checked_add(record.span.end - record.span.start).is_some()
            || record == Self::mark(record.offset);
        sane.then_some(record)
    }
}

/// The header's bytes. `base` is the length of the output before the first record: bytes that are not ours.
#[must_use]
pub fn encode_header(base: u64) -> [u8; HEADER_LEN] {
    let mut out = [0; HEADER_LEN];
    out[..8].copy_from_slice(&MAGIC);
    out[8..16].copy_from_slice(&base.to_le_bytes());
    let seal = seal(&out[..24], u64::MAX);
    out[24..].copy_from_slice(&seal.to_le_bytes());
    out
}

fn decode_header(bytes: &[u8]) -> Option<u64> {
    let header = bytes.get(..HEADER_LEN)?;
    let right = header.starts_with(&MAGIC) && word(header, 3)? == seal(header.get(..24)?, u64::MAX);
    if right { word(header, 1) } else { None }
}

fn seal(bytes: &[u8], index: u64) -> u64 {
    xxhash_rust::xxh3::xxh3_64_with_seed(bytes, index)
}

fn word(bytes: &[u8], index: usize) -> Option<u64> {
    let chunk = bytes.get(index * 8..index * 8 + 8)?;
    chunk.try_into().ok().map(u64::from_le_bytes)
}

/// Why a journal cannot be used at all. (A torn or garbage *tail* is no error: it is cut off.)
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum JournalError {
    /// The file begins with something else.
    #[error("its first bytes are not those of a commit journal")]
    NotAJournal,
}

/// What the journal's bytes say, before the output was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parsed {
    /// The length of the output before the first record.
    pub base: u64,
    /// The records whose hashes and offsets are right, in order.
    pub records: Vec<Record>,
    /// Bytes behind the last of them: torn or garbage.
    pub torn: u64,
}

impl Parsed {
    /// Reads a journal. `None`: the header was never completed, so nothing was ever committed, and the journal is to be begun
    /// again.
    ///
    /// # Errors
    /// When a full header is there and it is not a journal's.
    pub fn read(bytes: &[u8]) -> Result<Option<Self>, JournalError> {
        if bytes.len() < HEADER_LEN {
            // A header torn by a crash begins like one (or is zeros, on some file systems); anything else is somebody's file.
            let known = bytes.len().min(MAGIC.len());
            let torn = bytes[..known] == MAGIC[..known] || bytes.iter().all(|&b| b == 0);
            return if torn { Ok(None) } else { Err(JournalError::NotAJournal) };
        }
        let Some(base) = decode_header(bytes) else {
            return if bytes.iter().all(|&b| b == 0) { Ok(None) } else { Err(JournalError::NotAJournal) };
        };
        let body = &bytes[HEADER_LEN..];
        let mut records: Vec<Record> = Vec::with_capacity(body.len() / RECORD_LEN);
        let mut end = base;
        for chunk in body.chunks_exact(RECORD_LEN) {
            match Record::decode(chunk, records.len() as u64) {
                Some(record) if record.offset == end => {
                    end = record.output_end();
                    records.push(record);
                }
                _ => break,
            }
        }
        let torn = (body.len() - records.len() * RECORD_LEN) as u64;
        Ok(Some(Self { base, records, torn }))
    }

    /// The length of the output that some record knew to be durable.
    #[must_use]
    pub fn durable(&self) -> u64 {
        self.records.iter().map(|r| r.durable).max().unwrap_or(0).max(self.base)
    }

    /// The output's length according to the last record.
    #[must_use]
    pub fn output_len(&self) -> u64 {
        self.records.last().map_or(self.base, Record::output_end)
    }

    /// Drops the records whose bytes are not in the output.
    ///
    /// `output_len` is the file's real length. `hash_of` gives the xxh3 of a range of the output; it is asked only for records
    /// behind the durable length. An error of `hash_of` is handed through.
    ///
    /// # Errors
    /// Those of `hash_of`.
    pub fn recover<E>(
        mut self,
        output_len: u64,
        mut hash_of: impl FnMut(Span) -> Result<u64, E>,
    ) -> Result<Recovered, E> {
        let durable = self.durable();
        let mut keep = 0;
        for record in &self.records {
            let end = record.output_end();
            if end > output_len || end > durable && hash_of(record.offset..end)? != record.data_hash {
                break;
            }
            keep += 1;
        }
        let mut lost = Vec::new();
        let dropped = self.records.split_off(keep);
        let changed = !dropped.is_empty();
        // What was durable once and is not there now was taken away by somebody; the rest is the usual torn tail.
        for mut record in dropped.into_iter().filter(|r| !r.is_mark() && r.output_end() <= durable) {
            // Of a run that was cut in the middle, the first bytes are still there.
            let kept = output_len.saturating_sub(record.offset).min(record.span.end - record.span.start);
            let cut = record.span.start + kept;
            lost.push((record.root, cut..record.span.end));
            if kept > 0 {
                record.span.end = cut;
                self.records.push(record);
            }
        }
        Ok(Recovered { base: self.base, records: self.records, lost, changed })
    }
}

/// What the output holds for certain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovered {
    /// The length of the output before the first record.
    pub base: u64,
    /// The valid records.
    pub records: Vec<Record>,
    /// Ranges (content, bytes) that were durable and are no longer in the output: somebody cut it.
    pub lost: Vec<(u64, Span)>,
    /// Whether the records are not those of the journal any more, so that it must be written anew.
    pub changed: bool,
}

impl Recovered {
    /// The length to cut the output back to.
    #[must_use]
    pub fn output_len(&self) -> u64 {
        self.records.last().map_or(self.base, Record::output_end)
    }

    /// The ranges held, by content.
    #[must_use]
    pub fn held(&self) -> BTreeMap<u64, RangeSet> {
        let mut held: BTreeMap<u64, RangeSet> = BTreeMap::new();
        for record in self.records.iter().filter(|r| !r.is_mark()) {
            held.entry(record.root).or_default().insert(record.span.clone());
        }
        held
    }
}

/// Joins records that are adjacent in the source and in the output. All of them must be durable: joined records carry
/// no hash.
#[must_use]
pub fn join(records: &[Record]) -> Vec<Record> {
    let mut joined: Vec<Record> = Vec::new();
    let durable = records.last().map_or(0, Record::output_end);
    for record in records.iter().filter(|r| !r.is_mark()) {
        match joined.last_mut() {
            Some(last) if last.precedes(record) => {
                last.span.end = record.span.end;
                last.lines += record.lines;
            }
            _ => joined.push(Record { durable, data_hash: 0, ..record.clone() }),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::convert::Infallible;

    /// A journal and its output, as a writer leaves them: `durable` trails by one commit.
    fn written(base: u64, sizes: &[u64]) -> (Vec<u8>, Vec<u8>) {
        let mut output: Vec<u8> = (0..base).map(|i| i as u8).collect();
        let mut journal = encode_header(base).to_vec();
        let mut at = 0;
        for (index, &size) in sizes.iter().enumerate() {
            let data: Vec<u8> = (0..size).map(|i| (i * 7 + index as u64) as u8).collect();
            let offset = output.len() as u64;
            output.extend_from_slice(&data);
            let record = Record {
                root: 5,
                span: at..at + size,
                offset,
                durable: offset,
                data_hash: crate::hash(&data),
                lines: 1,
            };
            journal.extend_from_slice(&record.encode(index as u64));
            at += size;
        }
        (journal, output)
    }

    fn recover(journal: &[u8], output: &[u8]) -> Recovered {
        let parsed = Parsed::read(journal).unwrap().unwrap();
        let hash_of = |span: Span| Ok::<_, Infallible>(crate::hash(&output[span.start as usize..span.end as usize]));
        parsed.recover(output.len() as u64, hash_of).unwrap()
    }

    #[test]
    fn a_whole_journal_is_read_back() {
        let (journal, output) = written(3, &[4, 5, 6]);
        let recovered = recover(&journal, &output);
        assert_eq!(recovered.output_len(), output.len() as u64);
        assert_eq!(recovered.held()[&5].iter().next(), Some(0..15));
        assert!(recovered.lost.is_empty());
    }

    #[test]
    fn another_file_is_refused_and_a_torn_header_is_not() {
        assert_eq!(Parsed::read(b"my notes"), Err(JournalError::NotAJournal));
        assert_eq!(Parsed::read(&[b'x'; 100]), Err(JournalError::NotAJournal));
        assert_eq!(Parsed::read(b""), Ok(None));
        assert_eq!(Parsed::read(&encode_header(9)[..20]), Ok(None));
        assert_eq!(Parsed::read(&[0; 64]), Ok(None));
    }

    #[test]
    fn a_record_at_another_place_is_not_valid() {
        let (journal, _) = written(0, &[4, 4]);
        let mut swapped = journal[..HEADER_LEN].to_vec();
        swapped.extend_from_slice(&journal[HEADER_LEN + RECORD_LEN..]);
        assert!(Parsed::read(&swapped).unwrap().unwrap().records.is_empty());
    }

    #[test]
    fn durable_bytes_that_are_gone_are_named() {
        let (journal, output) = written(0, &[10, 10, 10]);
        let recovered = recover(&journal, &output[..5]);
        assert_eq!(recovered.output_len(), 5);
        assert_eq!(recovered.lost, [(5, 5..10), (5, 10..20)], "the last record was never known to be durable");
        assert!(recovered.changed);
    }

    #[test]
    fn behind_a_mark_the_last_record_is_known_to_be_durable_too() {
        let (mut journal, output) = written(3, &[10, 10]);
        journal.extend_from_slice(&Record::mark(23).encode(2));
        let recovered = recover(&journal, &output);
        assert_eq!((recovered.changed, recovered.output_len()), (false, 23));
        assert_eq!(recovered.held().into_keys().collect::<Vec<_>>(), [5]);
        assert_eq!(join(&recovered.records).len(), 1);
        let cut = recover(&journal, &output[..20]);
        assert_eq!(cut.lost, [(5, 17..20)]);
        assert_eq!((cut.changed, cut.output_len()), (true, 20));
        // A commit after the mark is torn: what is before it stays.
        let torn = Record { root: 5, span: 20..30, offset: 23, durable: 23, data_hash: 1, lines: 1 };
        journal.extend_from_slice(&torn.encode(3));
        let recovered = recover(&journal, &[output, vec![0; 10]].concat());
        assert_eq!((recovered.output_len(), recovered.lost.len()), (23, 0));
    }

    #[test]
    fn joining_keeps_the_ranges() {
        let (journal, output) = written(0, &[10, 10, 10]);
        let recovered = recover(&journal, &output);
        let joined = join(&recovered.records);
        assert_eq!(joined.len(), 1);
        assert_eq!((joined[0].span.clone(), joined[0].lines), (0..30, 3));
    }

    proptest! {
        /// Power loss: the journal and the output each keep any prefix that includes what was durable, garbage behind it.
        #[test]
        fn what_survives_a_crash_is_a_prefix_of_the_commits(
            base in 0u64..5,
            sizes in prop::collection::vec(1u64..20, 1..12),
            journal_cut in 0usize..RECORD_LEN * 2,
            output_cut in 0usize..25,
            garbage in prop::collection::vec(any::<u8>(), 0..80),
            zeros in any::<bool>(),
        ) {
            let (journal, output) = written(base, &sizes);
            // Only the last commit was not durable.
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
            let len = recovered.output_len() as usize;
            prop_assert_eq!(&torn_output[..len], &output[..len], "only committed bytes stay");
            prop_assert!(recovered.records.len() + 1 >= sizes.len(), "at most the commit in flight is dropped");
            prop_assert!(recovered.lost.is_empty());
        }
    }
}
