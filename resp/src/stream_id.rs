//! IDs of stream entries: parsing, order and arithmetic. Stream commands and the encoder use them.

use std::fmt;
use std::str::FromStr;

use crate::protocol::number::{self, Backwards};

/// The ID of a stream entry: `<milliseconds>-<sequence>`.
///
/// ```
/// use resp::StreamId;
///
/// let id: StreamId = "1526919030474-55".parse()?;
/// assert_eq!((id.ms, id.seq), (1526919030474, 55));
/// assert_eq!(id.to_string(), "1526919030474-55");
/// assert!(id < StreamId::new(1526919030474, 56));
/// assert_eq!(id.next(), Some(StreamId::new(1526919030474, 56)));
/// # Ok::<(), resp::ParseStreamIdError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId {
    /// Milliseconds since the Unix epoch, by convention.
    pub ms: u64,
    /// Distinguishes entries of the same millisecond.
    pub seq: u64,
}

impl StreamId {
    /// `0-0`, which is before every entry. No entry can have it.
    pub const ZERO: Self = Self::new(0, 0);
    /// `0-1`, the smallest ID of an entry.
    pub const MIN: Self = Self::new(0, 1);
    /// The largest ID.
    pub const MAX: Self = Self::new(u64::MAX, u64::MAX);

    /// Creates an ID.
    #[must_use]
    pub const fn new(ms: u64, seq: u64) -> Self {
        Self { ms, seq }
    }

    /// Parses `<ms>-<seq>`; `None` for anything else.
    #[must_use]
    #[inline]
    pub fn parse(text: &[u8]) -> Option<Self> {
        // Milliseconds have 13 digits from 2001 to 2286.
        let dash = match text.get(13) {
            Some(b'-') => 13,
            _ => text.iter().position(|&byte| byte == b'-')?,
        };
        let (ms, seq) = text.split_at_checked(dash)?;
        Some(Self { ms: number::parse_u64(ms)?, seq: number::parse_u64(seq.get(1..)?)? })
    }

    /// Returns the next ID; `None` after the largest.
    #[must_use]
    pub const fn next(self) -> Option<Self> {
        match (self.seq.checked_add(1), self.ms.checked_add(1)) {
            (Some(seq), _) => Some(Self::new(self.ms, seq)),
            (None, Some(ms)) => Some(Self::new(ms, 0)),
            (None, None) => None,
        }
    }

    /// Returns the previous ID; `None` before `0-0`.
    #[must_use]
    pub const fn previous(self) -> Option<Self> {
        match (self.seq.checked_sub(1), self.ms.checked_sub(1)) {
            (Some(seq), _) => Some(Self::new(self.ms, seq)),
            (None, Some(ms)) => Some(Self::new(ms, u64::MAX)),
            (None, None) => None,
        }
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = Backwards::<41>::new();
        text.number(self.seq);
        text.push(b'-');
        text.number(self.ms);
        f.pad(std::str::from_utf8(text.as_bytes()).unwrap_or_default())
    }
}

/// The text is not `<ms>-<seq>` with two 64-bit numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ParseStreamIdError;

impl fmt::Display for ParseStreamIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a stream ID is two 64-bit numbers with a hyphen between them, such as 1526919030474-55")
    }
}

impl std::error::Error for ParseStreamIdError {}

impl FromStr for StreamId {
    type Err = ParseStreamIdError;

    fn from_str(text: &str) -> Result<Self, ParseStreamIdError> {
        Self::parse(text.as_bytes()).ok_or(ParseStreamIdError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_no_id() {
        for text in ["", "-", "1", "1-", "-1", "1-1-1", "+1-1", "1--1", "18446744073709551616-0", "1-1 ", "*", "$", ">"]
        {
            assert_eq!(text.parse::<StreamId>(), Err(ParseStreamIdError), "{text:?}");
        }
    }

    #[test]
    fn neighbours() {
        assert_eq!(StreamId::MAX.next(), None);
        assert_eq!(StreamId::ZERO.previous(), None);
        assert_eq!(StreamId::new(1, u64::MAX).next(), Some(StreamId::new(2, 0)));
        assert_eq!(StreamId::new(2, 0).previous(), Some(StreamId::new(1, u64::MAX)));
    }

    proptest! {
        #[test]
        fn comes_back(ms: u64, seq: u64) {
            let id = StreamId::new(ms, seq);
            prop_assert_eq!(id.to_string(), format!("{ms}-{seq}"));
            prop_assert_eq!(id.to_string().parse(), Ok(id));
        }
    }
}
