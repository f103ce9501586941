//! Decimal numbers, parsed and written by hand: they are most of RESP. The decoder, the encoder and
//! [`StreamId`](crate::StreamId) use this module.

use super::cast::index;

/// Parses ASCII digits; `None` if there are none, other bytes, or too many.
#[inline]
#[expect(clippy::arithmetic_side_effects, reason = "the lengths are checked, and the digits are decimal")]
pub(crate) fn parse_u64(digits: &[u8]) -> Option<u64> {
    match digits.len() {
        1..=8 => parse_eight(load(digits), digits.len()),
        9..=16 => parse_sixteen(digits),
        17..=20 => {
            let (high, low) = digits.split_at_checked(digits.len() - 16)?;
            let high = parse_eight(load(high), high.len())?;
            high.checked_mul(10_000_000_000_000_000)?.checked_add(parse_sixteen(low)?)
        }
        _ => None,
    }
}

/// Parses 9 to 16 digits.
#[inline]
#[expect(clippy::arithmetic_side_effects, reason = "the lengths are checked, and the digits are decimal")]
fn parse_sixteen(digits: &[u8]) -> Option<u64> {
    let high = parse_eight(u64::from_le_bytes(*digits.first_chunk()?), digits.len() - 8)?;
    let low = parse_eight(u64::from_le_bytes(*digits.last_chunk()?), 8)?;
    Some(high * 100_000_000 + low)
}

/// Loads 1 to 8 bytes as one number, the first byte lowest. The loads may overlap: a byte always
/// lands in the same place.
#[inline]
#[expect(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    reason = "the lengths are checked, and the digits are decimal"
)]
fn load(bytes: &[u8]) -> u64 {
    let at = |byte: &u8, place: usize| u64::from(*byte) << (8 * place);
    if let Some(eight) = bytes.first_chunk() {
        u64::from_le_bytes(*eight)
    } else if let (Some(first), Some(last)) = (bytes.first_chunk(), bytes.last_chunk()) {
        u64::from(u32::from_le_bytes(*first)) | u64::from(u32::from_le_bytes(*last)) << (8 * (bytes.len() - 4))
    } else if let [first, .., last] = bytes {
        at(first, 0) | at(&bytes[bytes.len() / 2], bytes.len() / 2) | at(last, bytes.len() - 1)
    } else {
        bytes.first().map_or(0, |byte| at(byte, 0))
    }
}

/// Parses the first `count` of eight digits at once: each step joins neighbours.
#[inline]
#[expect(clippy::arithmetic_side_effects, reason = "the lengths are checked, and the digits are decimal")]
fn parse_eight(text: u64, count: usize) -> Option<u64> {
    const HIGH: u64 = 0xF0F0_F0F0_F0F0_F0F0;
    const ZEROS: u64 = 0x3030_3030_3030_3030;
    // Shorter numbers get leading zeros.
    let missing = 8 * (8 - count);
    let text = text << missing | ZEROS >> 1 >> (63 - missing);
    if text & HIGH != ZEROS || text.wrapping_add(0x0606_0606_0606_0606) & HIGH != ZEROS {
        return None;
    }
    let n = text - ZEROS;
    let n = n * 10 + (n >> 8);
    let low = (n & 0x0000_00FF_0000_00FF).wrapping_mul(0x000F_4240_0000_0064);
    let high = ((n >> 16) & 0x0000_00FF_0000_00FF).wrapping_mul(0x0000_2710_0000_0001);
    Some(low.wrapping_add(high) >> 32)
}

/// Parses a number with an optional sign.
pub(crate) fn parse_i64(text: &[u8]) -> Option<i64> {
    match text.split_first()? {
        (b'-', digits) => 0i64.checked_sub_unsigned(parse_u64(digits)?),
        (b'+', digits) => i64::try_from(parse_u64(digits)?).ok(),
        _ => i64::try_from(parse_u64(text)?).ok(),
    }
}

/// Text that is written from its end to its beginning into an array on the stack, so that its
/// length need not be known in advance.
pub(crate) struct Backwards<const N: usize> {
    bytes: [u8; N],
    start: usize,
}

const PAIRS: &[u8; 200] = b"\
    00010203040506070809101112131415161718192021222324252627282930313233343536373839\
    40414243444546474849505152535455565758596061626364656667686970717273747576777879\
    8081828384858687888990919293949596979899";

impl<const N: usize> Backwards<N> {
    #[inline]
    pub(crate) const fn new() -> Self {
        Self { bytes: [0; N], start: N }
    }

    /// Returns how many bytes were written.
    #[inline]
    #[expect(clippy::arithmetic_side_effects, reason = "the lengths are checked, and the digits are decimal")]
    pub(crate) const fn len(&self) -> usize {
        N - self.start
    }

    #[inline]
    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.bytes.get(self.start..).unwrap_or_default()
    }

    #[inline]
    pub(crate) fn push(&mut self, byte: u8) {
        if let Some(start) = self.start.checked_sub(1) {
            if let Some(slot) = self.bytes.get_mut(start) {
                *slot = byte;
            }
            self.start = start;
        }
    }

    #[inline]
    pub(crate) fn crlf(&mut self) {
        self.push(b'\n');
        self.push(b'\r');
    }

    #[inline]
    #[expect(
        clippy::arithmetic_side_effects,
        clippy::as_conversions,
        clippy::cast_possible_truncation,
        clippy::indexing_slicing,
        reason = "the lengths are checked, and the digits are decimal"
    )]
    pub(crate) fn number(&mut self, mut n: u64) {
        while n >= 100 {
            let pair = (n % 100) as usize * 2;
            n /= 100;
            self.push(PAIRS[pair + 1]);
            self.push(PAIRS[pair]);
        }
        if n >= 10 {
            let pair = n as usize * 2;
            self.push(PAIRS[pair + 1]);
            self.push(PAIRS[pair]);
        } else {
            self.push(b'0' + n as u8);
        }
    }
}

/// The digits of a number, and two more bytes at most behind them.
///
/// Eight digits at once, without a division for each pair of them: for the numbers that are written
/// for every entry of a stream.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Digits {
    bytes: [u8; 32],
    len: usize,
}

impl Digits {
    #[inline]
    #[expect(
        clippy::as_conversions,
        clippy::cast_possible_truncation,
        reason = "the parts of the number are below 10⁸"
    )]
    pub(crate) fn new(n: u64) -> Self {
        const EIGHT: u64 = 100_000_000;
        let mut digits = Self { bytes: [0; 32], len: 0 };
        if n < EIGHT {
            digits.first(n as u32);
        } else if n < EIGHT * EIGHT {
            digits.first((n / EIGHT) as u32);
            digits.put(ZEROS | eight_digits((n % EIGHT) as u32), 8);
        } else {
            digits.first((n / EIGHT / EIGHT) as u32);
            digits.put(ZEROS | eight_digits((n / EIGHT % EIGHT) as u32), 8);
            digits.put(ZEROS | eight_digits((n % EIGHT) as u32), 8);
        }
        digits
    }

    #[inline]
    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    /// The same with `\r\n` behind it.
    #[inline]
    pub(crate) fn with_crlf(mut self) -> Self {
        self.put(u64::from_le_bytes(*b"\r\n\0\0\0\0\0\0"), 2);
        self
    }

    /// Up to eight digits, without zeros before them.
    #[inline]
    #[expect(clippy::arithmetic_side_effects, reason = "there are at most seven zeros")]
    fn first(&mut self, n: u32) {
        let digits = eight_digits(n);
        // Of 0, the last digit is kept.
        let zeros = (digits.trailing_zeros() / 8).min(7);
        self.put((ZEROS | digits) >> (8 * zeros), 8 - index(zeros));
    }

    /// Copies eight bytes, and keeps the first ones of them.
    #[inline]
    #[expect(clippy::arithmetic_side_effects, reason = "there was room for eight bytes")]
    fn put(&mut self, bytes: u64, len: usize) {
        if let Some(room) = self.bytes.get_mut(self.len..).and_then(<[u8]>::first_chunk_mut) {
            *room = bytes.to_le_bytes();
            self.len += len;
        }
    }
}

/// How many digits a number has.
#[inline]
#[expect(clippy::arithmetic_side_effects, reason = "a logarithm is below 20")]
pub(crate) fn digits(n: u64) -> usize {
    n.checked_ilog10().map_or(1, |log| index(log) + 1)
}

/// The digit zero, eight times.
const ZEROS: u64 = 0x3030_3030_3030_3030;

/// The eight digits of a number below 10⁸ as numbers from 0 to 9, the first in the lowest byte.
/// Each step splits all parts at once; the factors are reciprocals that are exact for such parts.
#[inline]
fn eight_digits(n: u32) -> u64 {
    let fours = u64::from(n / 10_000) | u64::from(n % 10_000) << 32;
    let hundreds = (fours.wrapping_mul(10_486) >> 20) & 0x0000_007F_0000_007F;
    let pairs = hundreds | fours.wrapping_sub(hundreds.wrapping_mul(100)) << 16;
    let tens = (pairs.wrapping_mul(103) >> 10) & 0x000F_000F_000F_000F;
    tens | pairs.wrapping_sub(tens.wrapping_mul(10)) << 8
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn edges() {
        assert_eq!(parse_u64(b""), None);
        assert_eq!(parse_u64(b"18446744073709551615"), Some(u64::MAX));
        assert_eq!(parse_u64(b"18446744073709551616"), None);
        assert_eq!(parse_u64(b"99999999999999999999"), None);
        assert_eq!(parse_u64(b"1234567:"), None);
        assert_eq!(parse_u64(b"/2345678"), None);
        assert_eq!(parse_i64(b"-9223372036854775808"), Some(i64::MIN));
        assert_eq!(parse_i64(b"-9223372036854775809"), None);
        assert_eq!(parse_i64(b"9223372036854775808"), None);
        assert_eq!(parse_i64(b"+5"), Some(5));
        assert_eq!(parse_i64(b"-"), None);
        assert_eq!(parse_i64(b"--5"), None);
    }

    #[test]
    fn numbers_of_all_lengths() {
        let edges = (0..20).flat_map(|digits| [10u64.pow(digits) - 1, 10u64.pow(digits)]);
        for n in edges.chain(0..=10_000).chain([u64::MAX]) {
            let text = n.to_string();
            assert_eq!((Digits::new(n).as_bytes(), digits(n)), (text.as_bytes(), text.len()));
            assert_eq!(Digits::new(n).with_crlf().as_bytes(), format!("{n}\r\n").as_bytes());
        }
    }

    proptest! {
        #[test]
        fn numbers_round_trip(n: u64, m: i64) {
            let mut text = Backwards::<20>::new();
            text.number(n);
            prop_assert_eq!(String::from_utf8_lossy(text.as_bytes()), n.to_string());
            prop_assert_eq!(parse_u64(text.as_bytes()), Some(n));
            for n in [n, n >> 16, n >> 32, n >> 40] {
                let digits = Digits::new(n);
                prop_assert_eq!(String::from_utf8_lossy(digits.as_bytes()), n.to_string());
            }
            prop_assert_eq!(parse_i64(m.to_string().as_bytes()), Some(m));
        }

        #[test]
        fn agrees_with_std(text in "[0-9:/a]{0,21}") {
            prop_assert_eq!(parse_u64(text.as_bytes()), text.parse::<u64>().ok());
        }
    }
}
