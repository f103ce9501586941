//! The number after a type byte: the length of a bulk string, or the count of an aggregate. Only
//! the decoder uses it.

use super::ProtocolError;

/// The parsed number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Length {
    Of(usize),
    /// RESP2's `-1`.
    Null,
    /// RESP3's `?`.
    Streamed,
}

/// No valid count has more digits.
const MAX_DIGITS: usize = 19;

/// Parses the header whose type byte is at `at`. Returns the number and the end of the line; `None`
/// if bytes are missing.
#[inline]
#[expect(clippy::arithmetic_side_effects, reason = "positions lie in the buffer, and 19 digits fit in 64 bits")]
pub(super) fn read(buf: &[u8], at: usize) -> Result<Option<(Length, usize)>, ProtocolError> {
    let first = at + 1;
    let mut i = first;
    let mut n = 0u64;
    let byte = loop {
        let Some(&byte) = buf.get(i) else { return Ok(None) };
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            break byte;
        }
        if i - first == MAX_DIGITS {
            return Err(ProtocolError::InvalidLength);
        }
        n = n * 10 + u64::from(digit);
        i += 1;
    };
    let length = if i > first && byte == b'\r' {
        Length::Of(usize::try_from(n).unwrap_or(usize::MAX))
    } else if i == first && byte == b'?' {
        i += 1;
        Length::Streamed
    } else if i == first && byte == b'-' {
        match buf.get(i + 1) {
            None => return Ok(None),
            Some(b'1') => i += 2,
            Some(_) => return Err(ProtocolError::InvalidLength),
        }
        Length::Null
    } else {
        return Err(ProtocolError::InvalidLength);
    };
    match (buf.get(i), buf.get(i + 1)) {
        (Some(b'\r'), Some(b'\n')) => Ok(Some((length, i + 2))),
        (Some(b'\r') | None, None) => Ok(None),
        _ => Err(ProtocolError::InvalidLength),
    }
}

/// Parses a header of at most six digits that is followed by two more bytes; `None` for all others.
#[inline]
#[expect(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    reason = "positions lie in the buffer, and 19 digits fit in 64 bits"
)]
pub(super) fn read_short(buf: &[u8], at: usize) -> Option<(usize, usize)> {
    let text: &[u8; 8] = buf.get(at + 1..)?.first_chunk()?;
    let mut n = 0;
    for i in 0..7 {
        let digit = text[i].wrapping_sub(b'0');
        if digit > 9 {
            return (i > 0 && text[i] == b'\r' && text[i + 1] == b'\n').then_some((n, at + i + 3));
        }
        n = n * 10 + usize::from(digit);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers() {
        let read = |text: &str| read(text.as_bytes(), 0);
        assert_eq!(read("$0\r\n"), Ok(Some((Length::Of(0), 4))));
        assert_eq!(read("$123\r\nabc"), Ok(Some((Length::Of(123), 6))));
        assert_eq!(read("*-1\r\n"), Ok(Some((Length::Null, 5))));
        assert_eq!(read("*?\r\n"), Ok(Some((Length::Streamed, 4))));
        for partial in ["$", "$1", "$12\r", "*-", "*-1", "*-1\r", "*?", "*?\r"] {
            assert_eq!(read(partial), Ok(None), "{partial:?}");
        }
        for wrong in ["$\r\n", "$x", "$1x", "$-2", "$-1x", "$+1\r\n", "$1\n", "$1\rx", "*?x", "$12345678901234567890"] {
            assert_eq!(read(wrong), Err(ProtocolError::InvalidLength), "{wrong:?}");
        }
    }
}
