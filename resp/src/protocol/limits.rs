//! Limits of the decoder.

use super::cast::index;

/// What a peer may make the decoder allocate, so that hostile or damaged input cannot exhaust
/// memory.
///
/// Memory follows the received bytes. The buffer is reserved for at most 64 times as many bytes as
/// were received, and the tape takes at most 32 times as much again while it grows.
///
/// ```
/// use resp::DecoderLimits;
///
/// let limits = DecoderLimits::default().bulk(16 * 1024 * 1024).depth(8);
/// assert_eq!(limits.bulk, 16 * 1024 * 1024);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DecoderLimits {
    /// The maximum nesting of arrays, maps, sets, pushes and attributes. Default 128; at most 512.
    pub depth: usize,
    /// The maximum length of a bulk string, verbatim string, bulk error, chunk or line, in bytes.
    /// Default 512 MiB, as Redis' `proto-max-bulk-len`.
    pub bulk: usize,
    /// The maximum number of elements in an aggregate; keys and values of a map count one each.
    /// Default 64 Mi.
    pub aggregate: usize,
    /// The maximum memory of a frame, in bytes: its own bytes, 12 bytes per value, and the content
    /// of streamed strings again. Default 1 GiB; at most 4 GiB - 1. A growing buffer may take twice
    /// as much for a short time.
    pub frame: usize,
}

impl DecoderLimits {
    /// Sets the maximum nesting.
    #[must_use]
    pub const fn depth(mut self, depth: usize) -> Self {
        self.depth = depth;
        self
    }

    /// Sets the maximum length of a bulk string, in bytes.
    #[must_use]
    pub const fn bulk(mut self, bytes: usize) -> Self {
        self.bulk = bytes;
        self
    }

    /// Sets the maximum number of elements in an aggregate.
    #[must_use]
    pub const fn aggregate(mut self, elements: usize) -> Self {
        self.aggregate = elements;
        self
    }

    /// Sets the maximum memory of a frame, in bytes.
    #[must_use]
    pub const fn frame(mut self, bytes: usize) -> Self {
        self.frame = bytes;
        self
    }

    /// Reduces the limits to what 32-bit offsets can represent, and to a depth at which the
    /// recursive comparison and formatting need little stack.
    pub(crate) fn effective(self) -> Self {
        const OFFSETS: usize = index(u32::MAX);
        Self {
            depth: self.depth.min(512),
            bulk: self.bulk.min(OFFSETS),
            aggregate: self.aggregate.min(OFFSETS / 4),
            frame: self.frame.min(OFFSETS),
        }
    }
}

impl Default for DecoderLimits {
    fn default() -> Self {
        Self { depth: 128, bulk: 512 << 20, aggregate: 64 << 20, frame: 1 << 30 }
    }
}
