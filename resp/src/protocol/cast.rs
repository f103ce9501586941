//! Conversions between the widths of lengths and positions, stated in one place.
//!
//! The decoder, the encoder and the connections use them, so that no other code needs `as`.

/// Returns a length as 64 bits. A `usize` has at most 64 bits on all platforms of Rust.
#[inline]
#[expect(clippy::as_conversions, reason = "lossless: usize has at most 64 bits")]
pub(crate) const fn wide(n: usize) -> u64 {
    n as u64
}

/// Returns a position on a tape, or an offset in a frame, as an index.
#[inline]
#[expect(clippy::as_conversions, reason = "lossless: this crate needs a usize of 32 bits or more")]
pub(crate) const fn index(n: u32) -> usize {
    n as usize
}

/// Returns a position on a tape, or an offset in a frame, as it is stored.
///
/// [`DecoderLimits::effective`](super::DecoderLimits::effective) limits frames to what 32 bits can
/// hold.
#[inline]
#[expect(clippy::as_conversions, clippy::cast_possible_truncation, reason = "frames are limited to u32::MAX bytes")]
pub(crate) const fn offset(n: usize) -> u32 {
    debug_assert!(n <= index(u32::MAX));
    n as u32
}
