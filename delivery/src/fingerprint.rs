//! Fingerprints: what is kept of a content's bytes, to recognise it in a file of any length.
//!
//! A [`Fingerprint`] holds a hash at every [`checkpoint`] of a universal grid of offsets, from the
//! first byte on. Two files that share a prefix agree at every checkpoint inside it, so
//! fingerprints tell how long the common prefix is, to within an eighth of its length. A
//! [`TailChecksum`] covers the bytes before one position, the frontier, and says nearly exactly
//! where a file that shrank by a few bytes differs.
//!
//! The reader computes both with a few short reads, however long the content is.

use crate::hash;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt::Write as _;

/// How many bytes the hash at a checkpoint covers at most: 4 KiB.
pub const BLOCK: u64 = 4 << 10;
/// How many bytes before its end a tail checksum covers at most: 1 KiB.
pub const TAIL_LEN: u64 = 1 << 10;
/// How many of the last bytes are searched for in a file that was edited: 128.
pub const SHORT_LEN: u64 = 128;
/// How many bytes before the end of a tail checksum its further hashes end.
const CUTS: [u64; 19] = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768];

/// A range of bytes whose hash is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    /// The offset of the first byte.
    pub start: u64,
    /// The offset behind the last byte.
    pub end: u64,
}

/// The offset of a checkpoint: each of the first eight, then eight in every octave. `None` beyond
/// what an offset can be.
///
/// ```
/// use delivery::fingerprint::checkpoint;
/// let first: Vec<_> = (0..12).filter_map(checkpoint).collect();
/// assert_eq!(first, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
/// assert_eq!(checkpoint(15), Some(16));
/// assert_eq!(checkpoint(16), Some(18));
/// ```
#[must_use]
pub const fn checkpoint(index: usize) -> Option<u64> {
    if index < 7 {
        return Some(index as u64 + 1);
    }
    let index = index - 7;
    // 15 << 59 is the last one that fits.
    if index / 8 > 59 { None } else { Some((8 + (index % 8) as u64) << (index / 8)) }
}

/// The bytes that the hash at a checkpoint covers: the block of up to [`BLOCK`] bytes that ends
/// there.
const fn span_of(checkpoint: u64) -> Span {
    Span { start: checkpoint.saturating_sub(BLOCK), end: checkpoint }
}

/// The part of a hash that is kept.
const fn short(hash: u64) -> u32 {
    hash as u32
}

/// The hashes of a content at its checkpoints, from the first on.
///
/// ```
/// use delivery::fingerprint::{Fingerprint, Span};
/// let mut prints = Fingerprint::default();
/// let bytes = b"one\ntwo\n";
/// for span in prints.missing(bytes.len() as u64).collect::<Vec<_>>() {
///     let Span { start, end } = span;
///     prints.push(delivery::hash(&bytes[start as usize..end as usize]));
/// }
/// assert_eq!(prints.covered(), 8);
/// assert_eq!(prints, Fingerprint::of(bytes));
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fingerprint {
    hashes: Vec<u32>,
}

impl Fingerprint {
    /// The fingerprint of a content that is all in memory.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        let mut prints = Self::default();
        for span in Self::default().missing(bytes.len() as u64) {
            prints.push(hash(slice(bytes, span)));
        }
        prints
    }

    /// The last checkpoint it has; 0 when it has none.
    #[must_use]
    pub fn covered(&self) -> u64 {
        self.hashes.len().checked_sub(1).and_then(checkpoint).unwrap_or(0)
    }

    /// The ranges whose hashes it lacks to cover a content of `len` bytes, in the order in which
    /// [`Fingerprint::push`] takes them.
    pub fn missing(&self, len: u64) -> impl Iterator<Item = Span> + use<> {
        (self.hashes.len()..).map_while(checkpoint).take_while(move |&end| end <= len).map(span_of)
    }

    /// Adds the hash of the next range.
    pub fn push(&mut self, hash: u64) {
        self.hashes.push(short(hash));
    }

    /// How two contents compare: see [`Agreement`].
    #[must_use]
    pub fn agreement(&self, other: &Self) -> Agreement {
        let mut agreement = Agreement { compared: 0, common: 0, differs: None, weight: 0 };
        for (index, (a, b)) in self.hashes.iter().zip(&other.hashes).enumerate() {
            let Some(at) = checkpoint(index) else { break };
            if a != b {
                agreement.differs = agreement.differs.or(Some(at));
            } else {
                if agreement.differs.is_none() {
                    agreement.common = at;
                }
                agreement.weight += at - agreement.compared;
            }
            agreement.compared = at;
        }
        agreement
    }

    /// A copy that covers at most the first `len` bytes.
    #[must_use]
    pub fn up_to(&self, len: u64) -> Self {
        let count = (0..self.hashes.len()).map_while(checkpoint).take_while(|&end| end <= len).count();
        Self { hashes: self.hashes.iter().take(count).copied().collect() }
    }
}

/// How the fingerprints of two contents compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Agreement {
    /// The last checkpoint that both have.
    pub compared: u64,
    /// The last checkpoint before the first difference.
    pub common: u64,
    /// The first checkpoint at which they differ.
    pub differs: Option<u64>,
    /// How many bytes lie before checkpoints at which they agree, back to the checkpoint before.
    pub weight: u64,
}

/// A checksum of the last bytes before a position, with hashes of the beginnings of the same block.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TailChecksum {
    /// The offset just behind the bytes.
    pub end: u64,
    /// How many bytes, at most [`TAIL_LEN`].
    pub len: u64,
    /// Their xxh3.
    pub hash: u64,
    /// The hash of the last [`SHORT_LEN`] of them. 0: not known, as in older records.
    #[serde(default)]
    pub short: u32,
    /// Hashes of the same block without its last bytes. Empty in older records.
    #[serde(default, with = "hex")]
    pub cuts: Vec<u32>,
}

impl TailChecksum {
    /// The checksum of `bytes`, which end at `end`; the last [`TAIL_LEN`] of them count.
    #[must_use]
    pub fn new(end: u64, bytes: &[u8]) -> Self {
        let bytes = last(bytes, TAIL_LEN);
        let cuts = CUTS.iter().filter_map(|&cut| bytes.len().checked_sub(cut as usize).filter(|&len| len > 0));
        Self {
            end,
            len: bytes.len() as u64,
            hash: hash(bytes),
            short: short(hash(last(bytes, SHORT_LEN))),
            cuts: cuts.filter_map(|len| bytes.get(..len)).map(|bytes| short(hash(bytes))).collect(),
        }
    }

    /// Whether `bytes`, which end at `end`, are the bytes that it was made of.
    #[must_use]
    pub fn matches(&self, end: u64, bytes: &[u8]) -> bool {
        let bytes = last(bytes, self.len.min(TAIL_LEN));
        end == self.end && bytes.len() as u64 == self.len && hash(bytes) == self.hash
    }

    /// Whether `bytes` end with the last bytes that it was made of.
    #[must_use]
    pub fn ends(&self, bytes: &[u8]) -> bool {
        let len = self.len.min(SHORT_LEN);
        let bytes = last(bytes, len);
        // Nothing ends everywhere.
        len > 0 && bytes.len() as u64 == len && self.short != 0 && short(hash(bytes)) == self.short
    }

    /// The range of bytes that it covers.
    #[must_use]
    pub const fn span(&self) -> Span {
        Span { start: self.end.saturating_sub(self.len), end: self.end }
    }

    /// The ranges whose hashes tell where a file differs, the longest first.
    pub fn probes(&self) -> impl Iterator<Item = Span> + '_ {
        let Span { start, end } = self.span();
        let cuts = CUTS.iter().take(self.cuts.len()).map(move |cut| Span { start, end: end.saturating_sub(*cut) });
        std::iter::once(Span { start, end }).chain(cuts)
    }

    /// Up to where a file has the same bytes, of which `hash_of` tells the hash of a range: `end`
    /// when all are the same, `None` when none of the checksum's hashes agrees.
    pub fn same_until(&self, hash_of: impl Fn(Span) -> Option<u64>) -> Option<u64> {
        let mut expected = std::iter::once(None).chain(self.cuts.iter().map(|&cut| Some(cut)));
        self.probes().find_map(|span| {
            let expected = expected.next()?;
            let found = hash_of(span)?;
            expected.map_or(found == self.hash, |cut| cut == short(found)).then_some(span.end)
        })
    }
}

fn slice(bytes: &[u8], span: Span) -> &[u8] {
    let at = |offset: u64| usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
    bytes.get(at(span.start)..at(span.end)).unwrap_or_default()
}

fn last(bytes: &[u8], len: u64) -> &[u8] {
    let len = usize::try_from(len).unwrap_or(usize::MAX);
    bytes.get(bytes.len().saturating_sub(len)..).unwrap_or_default()
}

/// Hashes as one string of hexadecimal digits, eight for each.
mod hex {
    use super::*;
    use serde::de::Error as _;

    pub(super) fn serialize<S: Serializer>(hashes: &[u32], serializer: S) -> Result<S::Ok, S::Error> {
        let mut text = String::with_capacity(hashes.len() * 8);
        for hash in hashes {
            write!(text, "{hash:08x}").map_err(serde::ser::Error::custom)?;
        }
        serializer.serialize_str(&text)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u32>, D::Error> {
        let text = String::deserialize(deserializer)?;
        let digits = |chunk: &[u8]| std::str::from_utf8(chunk).ok().and_then(|d| u32::from_str_radix(d, 16).ok());
        let hashes = text.as_bytes().chunks(8).map(|chunk| digits(chunk).filter(|_| chunk.len() == 8));
        hashes.collect::<Option<_>>().ok_or_else(|| D::Error::custom("not a list of hashes"))
    }
}

impl Serialize for Fingerprint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        hex::serialize(&self.hashes, serializer)
    }
}

impl<'de> Deserialize<'de> for Fingerprint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let hashes = hex::deserialize(deserializer)?;
        let possible = hashes.len().checked_sub(1).is_none_or(|last| checkpoint(last).is_some());
        if possible { Ok(Self { hashes }) } else { Err(serde::de::Error::custom("more checkpoints than there are")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(len: usize) -> Vec<u8> {
        (0..).flat_map(|n| format!("line {n}\n").into_bytes()).take(len).collect()
    }

    #[test]
    fn the_grid_grows_by_an_eighth_at_most() {
        let grid: Vec<u64> = (0..).map_while(checkpoint).collect();
        assert_eq!(grid.first(), Some(&1));
        assert!(grid.last() > Some(&(1 << 62)));
        for pair in grid.windows(2) {
            assert!(pair[0] < pair[1] && pair[1] - pair[0] <= (pair[0] / 8).max(1), "{pair:?}");
        }
    }

    #[test]
    fn the_common_prefix_is_found_within_an_eighth() {
        let whole = text(100_000);
        for common in [0, 1, 7, 8, 100, 4095, 4097, 50_000, 99_999] {
            let mut other = whole.clone();
            for byte in &mut other[common..] {
                *byte ^= 0x80;
            }
            let agreement = Fingerprint::of(&whole).agreement(&Fingerprint::of(&other));
            let slack = common as u64 - agreement.common;
            assert!(slack <= (common as u64).div_ceil(8), "{common}: {agreement:?}");
        }
    }

    #[test]
    fn a_changed_byte_changes_only_the_blocks_over_it() {
        let whole = text(100_000);
        let mut edited = whole.clone();
        edited[50_000] ^= 1;
        let agreement = Fingerprint::of(&whole).agreement(&Fingerprint::of(&edited));
        assert!(agreement.weight > 80_000, "{agreement:?}");
    }

    #[test]
    fn it_is_read_back() {
        let prints = Fingerprint::of(&text(1000));
        let json = serde_json::to_string(&prints).unwrap();
        assert_eq!(serde_json::from_str::<Fingerprint>(&json).unwrap(), prints);
        let tail = TailChecksum::new(1000, &text(1000));
        let json = serde_json::to_string(&tail).unwrap();
        assert_eq!(serde_json::from_str::<TailChecksum>(&json).unwrap(), tail);
        for broken in ["\"123\"", "\"1234567g\"", "7", &format!("\"{}\"", "0".repeat(8 * 1000))] {
            assert!(serde_json::from_str::<Fingerprint>(broken).is_err(), "{broken}");
        }
        // As `Guard` was written.
        let old: TailChecksum = serde_json::from_str(r#"{"generation":7,"end":9,"len":9,"hash":5,"first":4}"#).unwrap();
        assert_eq!((old.end, old.len, old.hash, old.cuts.len()), (9, 9, 5, 0));
    }

    #[test]
    fn a_tail_tells_where_a_shorter_file_ends() {
        let whole = text(5000);
        let tail = TailChecksum::new(5000, &whole);
        let until =
            |bytes: &[u8]| tail.same_until(|span| (span.end <= bytes.len() as u64).then(|| hash(slice(bytes, span))));
        assert!(tail.matches(5000, &whole) && !tail.matches(4999, &whole[..4999]));
        assert_eq!(until(&whole), Some(5000));
        for shrunk in [1, 2, 5, 10, 100, 600] {
            let cut = 5000 - shrunk;
            let mut other = whole[..cut as usize].to_vec();
            other.extend(std::iter::repeat_n(b'!', 2000));
            let found = until(&other).unwrap();
            assert!(found <= cut && cut - found <= shrunk / 2, "{shrunk}: {found}");
        }
        assert_eq!(until(&whole[..3000]), None);
        assert!(tail.ends(&whole) && !tail.ends(&whole[..4999]));
        assert!(!TailChecksum::new(0, b"").ends(&whole), "nothing ends everywhere");
    }
}
