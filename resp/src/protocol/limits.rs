use super::cast::index;

/// What a peer may make the decoder hold, so that hostile or damaged input cannot exhaust memory.
///
/// Memory always follows the bytes that have arrived: a header that announces a large value is
/// given room for at most 64 times as many, and what they mean takes at most 32 times as much again
/// while a buffer grows.
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
    /// How deep arrays, maps, sets, pushes and attributes may nest. Default 128; at most 512.
    pub depth: usize,
    /// Longest bulk string, verbatim string, bulk error, chunk of a streamed string, or line, in
    /// bytes. Default 512 MiB, Redis' own default for `proto-max-bulk-len`.
    pub bulk: usize,
    /// Most elements in one aggregate; a map's keys and values count one each. Default 64 Mi.
    pub aggregate: usize,
    /// Most memory for a frame, in bytes: its own bytes, and 12 bytes for each value in it (and
    /// once more the content of streamed strings). Default 1 GiB; at most 4 GiB - 1. Buffers that
    /// grow can for a while have twice the room.
    pub frame: usize,
}

impl DecoderLimits {
    /// Sets the nesting depth.
    #[must_use]
    pub const fn depth(mut self, depth: usize) -> Self {
        self.depth = depth;
        self
    }

    /// Sets the longest bulk string, in bytes.
    #[must_use]
    pub const fn bulk(mut self, bytes: usize) -> Self {
        self.bulk = bytes;
        self
    }

    /// Sets the most elements in one aggregate.
    #[must_use]
    pub const fn aggregate(mut self, elements: usize) -> Self {
        self.aggregate = elements;
        self
    }

    /// Sets the most memory for a frame, in bytes.
    #[must_use]
    pub const fn frame(mut self, bytes: usize) -> Self {
        self.frame = bytes;
        self
    }

    /// The same limits, cut to what the tape's 32-bit offsets can say, and to the depth at which
    /// comparing and showing values, which are recursive, need little of a thread's stack.
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
