//! The delivery rules of the project, without I/O and without clocks.
//!
//! The system stands on one idea: **the entry ID is the position in the source**. An entry
//! `<generation>-<end>` is the range of bytes that ends at `end` in one physical content of the
//! input file. Everything here follows from it.
//!
//! # Layout
//!
//! | module | subject |
//! |---|---|
//! | [`entry`] | the fields of an entry, and the byte range that an entry covers |
//! | [`fingerprint`] | hashes that tell a content in a file of any length |
//! | [`files`] | which file in a folder holds which content |
//! | [`rotated_names`] | which names rotation gives to an input, and their order |
//! | [`partition`] | which lines go to which of several streams |
//! | [`split`] | cutting a file's bytes into entries |
//! | [`ranges`] | sets of byte ranges: what is held, what is new, what is missing |
//! | [`manifest`] | the contents of a source and their generations; the source record |
//! | [`source_name`] | the names of many sources, and the keys of their streams |
//! | [`sources`] | which files are sources, and whose the others are |
//! | [`source_file`], [`read_buffer`], [`line_reader`] | an open input file, its bytes at hand, the pieces that one partition sends |
//! | [`producer`] | the producing side: locating, beginning, streaming, waiting, rotating, resuming |
//! | [`journal`] | the writer's commit journal: its format |
//! | [`output`] | what a journal and an output mean at startup, and how a commit proceeds |
//! | [`consumer`] | the consuming side: what to read, what is a duplicate, a gap or foreign, what may be trimmed |
//!
//! Both services and the tests use these rules, so that neither side can have a rule of its own.

// IDs, records and journals are untrusted: arithmetic on them neither overflows nor panics, and
// nothing is indexed or cut off. Exceptions are stated, with their reason.
#![cfg_attr(
    not(test),
    warn(
        clippy::arithmetic_side_effects,
        clippy::indexing_slicing,
        clippy::cast_possible_truncation,
        clippy::cast_possible_wrap,
        clippy::cast_sign_loss
    )
)]
// In tests a list of one range is just that.
#![cfg_attr(test, allow(clippy::single_range_in_vec_init))]

pub mod consumer;
pub mod entry;
pub mod files;
#[allow(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    reason = "checkpoints are computed from indices, and only 32 bits of a hash are kept"
)]
pub mod fingerprint;
pub mod journal;
#[allow(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "offsets in an open file, which are below 2^63, and in bytes at hand"
)]
pub mod line_reader;
pub mod manifest;
pub mod output;
pub mod partition;
#[allow(
    clippy::arithmetic_side_effects,
    reason = "offsets in an open file, which are below 2^63, and counts of what is in memory"
)]
pub mod producer;
pub mod ranges;
#[allow(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    reason = "indices of its own buffer, and offsets in an open file, which are below 2^63"
)]
pub mod read_buffer;
pub mod rotated_names;
#[allow(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    reason = "offsets in an open file, which are below 2^63"
)]
pub mod source_file;
pub mod source_name;
pub mod sources;
#[allow(clippy::arithmetic_side_effects, clippy::indexing_slicing, reason = "indices of the bytes at hand")]
pub mod split;

use std::time::{Duration, Instant};

/// The hash used for fingerprints, guards and journal records: xxh3, 64 bits.
///
/// It finds accidents (torn writes, another file), not attacks.
#[must_use]
pub fn hash(bytes: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(bytes)
}

/// The moment this long after another; the same moment if that cannot be represented.
#[must_use]
pub fn later(moment: Instant, time: Duration) -> Instant {
    moment.checked_add(time).unwrap_or(moment)
}

/// [`hash`] of bytes that come in pieces.
///
/// ```
/// let mut hasher = delivery::Hasher::default();
/// hasher.update(b"in ");
/// hasher.update(b"pieces");
/// assert_eq!(hasher.finish(), delivery::hash(b"in pieces"));
/// ```
#[derive(Default)]
pub struct Hasher(xxhash_rust::xxh3::Xxh3);

impl Hasher {
    /// Adds the next piece.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The hash of all pieces.
    #[must_use]
    pub fn finish(&self) -> u64 {
        self.0.digest()
    }
}
