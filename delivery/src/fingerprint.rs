//! Fingerprints: hashes that recognise a content in a file of any length.
//!
//! A [`Fingerprint`] has a hash at every [`checkpoint`] of a fixed grid of offsets that begins at
//! the first byte. Two files with a common prefix agree at every checkpoint inside it. Fingerprints
//! therefore give the length of the common prefix to within an eighth. A [`TailChecksum`] covers
//! the bytes before one position, the frontier, and locates the first difference in a file that
//! shrank by a few bytes almost exactly.
//!
//! The reader computes both with a few short reads, independently of the length of the content.

use crate::hash;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt::Write as _;

/// Maximum number of bytes covered by the hash at a checkpoint: 4 KiB.
pub const BLOCK: u64 = 4 << 10;
/// Maximum number of bytes covered by a tail checksum: 1 KiB.
pub const TAIL_LEN: u64 = 1 << 10;
/// How many of the last bytes are searched for in an edited file: 128.
pub const SHORT_LEN: u64 = 128;
/// Distances from the end of a tail checksum to the ends of its additional hashes.
const CUTS: [u64; 19] = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768];

/// A byte range to hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    /// The offset of the first byte.
    pub start: u64,
    /// The offset after the last byte.
    pub end: u64,
}

/// The offset of a checkpoint: 1 to 8, then eight per octave. `None` if it exceeds `u64`.
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
    // 15 << 59 is the last offset that fits.
    if index / 8 > 59 { None } else { Some((8 + (index % 8) as u64) << (index / 8)) }
}

/// The range that the hash at a checkpoint covers: up to [`BLOCK`] bytes that end there.
const fn span_of(checkpoint: u64) -> Span {
    Span { start: checkpoint.saturating_sub(BLOCK), end: checkpoint }
}

/// Truncates a hash to the stored part.
const fn short(hash: u64) -> u32 {
    hash as u32
}

/// The hashes of a content at its first checkpoints.
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
    /// The fingerprint of a content in memory.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        let mut prints = Self::default();
        for span in Self::default().missing(bytes.len() as u64) {
            prints.push(hash(slice(bytes, span)));
        }
        prints
    }

    /// The offset of its last checkpoint; 0 if it has none.
    #[must_use]
    pub fn covered(&self) -> u64 {
        self.hashes.len().checked_sub(1).and_then(checkpoint).unwrap_or(0)
    }

    /// The ranges to hash until the fingerprint covers a content of `len` bytes, in the order in
    /// which to [`push`](Fingerprint::push) the hashes.
    pub fn missing(&self, len: u64) -> impl Iterator<Item = Span> + use<> {
        (self.hashes.len()..).map_while(checkpoint).take_while(move |&end| end <= len).map(span_of)
    }

    /// Adds the hash of the next range.
    pub fn push(&mut self, hash: u64) {
        self.hashes.push(short(hash));
    }

    /// A hash of all its hashes.
    #[must_use]
    pub fn digest(&self) -> u64 {
        let bytes: Vec<u8> = self.hashes.iter().flat_map(|hash| hash.to_le_bytes()).collect();
        hash(&bytes)
    }

    /// Compares the fingerprints of two contents.
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

/// The result of comparing the fingerprints of two contents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Agreement {
    /// The last checkpoint that both have.
    pub compared: u64,
    /// The last checkpoint before the first difference.
    pub common: u64,
    /// The first checkpoint at which they differ.
    pub differs: Option<u64>,
    /// The number of bytes in the intervals before the checkpoints at which they agree.
    pub weight: u64,
}

/// A checksum of the bytes before a position, with hashes of prefixes of the same block.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TailChecksum {
    /// The offset after the block.
    pub end: u64,
    /// The length of the block, at most [`TAIL_LEN`].
    pub len: u64,
    /// xxh3 of the block.
    pub hash: u64,
    /// The hash of its last [`SHORT_LEN`] bytes. 0 if unknown, as in older records.
    #[serde(default)]
    pub short: u32,
    /// Hashes of the block without its last bytes. Empty in older records.
    #[serde(default, with = "hex")]
    pub cuts: Vec<u32>,
}

impl TailChecksum {
    /// The checksum of `bytes`, which end at `end`; only the last [`TAIL_LEN`] bytes count.
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

    /// Whether `bytes`, which end at `end`, match the checksum.
    #[must_use]
    pub fn matches(&self, end: u64, bytes: &[u8]) -> bool {
        let bytes = last(bytes, self.len.min(TAIL_LEN));
        end == self.end && bytes.len() as u64 == self.len && hash(bytes) == self.hash
    }

    /// Whether `bytes` end with the last bytes of the block.
    #[must_use]
    pub fn ends(&self, bytes: &[u8]) -> bool {
        let len = self.len.min(SHORT_LEN);
        let bytes = last(bytes, len);
        // An empty block would match everywhere.
        len > 0 && bytes.len() as u64 == len && self.short != 0 && short(hash(bytes)) == self.short
    }

    /// The range that the checksum covers.
    #[must_use]
    pub const fn span(&self) -> Span {
        Span { start: self.end.saturating_sub(self.len), end: self.end }
    }

    /// The ranges to hash to locate the first difference in a file, longest first.
    pub fn probes(&self) -> impl Iterator<Item = Span> + '_ {
        let Span { start, end } = self.span();
        let cuts = CUTS.iter().take(self.cuts.len()).map(move |cut| Span { start, end: end.saturating_sub(*cut) });
        std::iter::once(Span { start, end }).chain(cuts)
    }

    /// The offset up to which a file matches the block; `hash_of` hashes a range of the file.
    /// Returns `end` if the whole block matches, and `None` if no hash does.
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

/// Hashes as one string of hexadecimal digits, eight per hash.
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
    fn a_changed_byte_changes_only_the_blocks_that_cover_it() {
        let whole = text(100_000);
        let mut edited = whole.clone();
        edited[50_000] ^= 1;
        let agreement = Fingerprint::of(&whole).agreement(&Fingerprint::of(&edited));
        assert!(agreement.weight > 80_000, "{agreement:?}");
    }

    #[test]
    fn fingerprints_and_checksums_round_trip_as_json() {
        let prints = Fingerprint::of(&text(1000));
        let json = serde_json::to_string(&prints).unwrap();
        assert_eq!(serde_json::from_str::<Fingerprint>(&json).unwrap(), prints);
        let tail = TailChecksum::new(1000, &text(1000));
        let json = serde_json::to_string(&tail).unwrap();
        assert_eq!(serde_json::from_str::<TailChecksum>(&json).unwrap(), tail);
        for broken in ["\"123\"", "\"1234567g\"", "7", &format!("\"{}\"", "0".repeat(8 * 1000))] {
            assert!(serde_json::from_str::<Fingerprint>(broken).is_err(), "{broken}");
        }
        // The JSON of an older `Guard`.
        let old: TailChecksum = serde_json::from_str(r#"{"generation":7,"end":9,"len":9,"hash":5,"first":4}"#).unwrap();
        assert_eq!((old.end, old.len, old.hash, old.cuts.len()), (9, 9, 5, 0));
    }

    #[test]
    fn a_tail_checksum_locates_the_end_of_a_truncated_file() {
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
        assert!(!TailChecksum::new(0, b"").ends(&whole), "an empty block matches nowhere");
    }
}
