//! Violations of the protocol, and of its limits.

use std::fmt;

/// Why bytes are not valid RESP, or exceed the [`DecoderLimits`](crate::DecoderLimits).
///
/// A protocol error closes the connection, because the start of the next frame is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ProtocolError {
    /// A frame starts with a byte that is no RESP type.
    UnknownType(u8),
    /// A length or an element count is not a decimal number.
    InvalidLength,
    /// A line does not end with CR LF, or contains CR or LF.
    InvalidLine,
    /// A bulk string is not followed by CR LF.
    MissingTerminator,
    /// A `:` line is not a signed 64-bit integer.
    InvalidInteger,
    /// A `,` line is not a floating point number.
    InvalidDouble,
    /// A `(` line is not an integer.
    InvalidBigNumber,
    /// A `#` line is neither `t` nor `f`.
    InvalidBoolean,
    /// A `_` line is not empty.
    InvalidNull,
    /// A verbatim string has no three-letter format and colon.
    InvalidVerbatim,
    /// A streamed map ends after a key.
    OddMap,
    /// A chunk or an end marker outside of a streamed value, or another value inside of a streamed
    /// string.
    UnexpectedChunk,
    /// An attribute at the end of a streamed aggregate, where no value follows.
    AttributeOfNothing,
    /// Aggregates nest deeper than [`DecoderLimits::depth`](crate::DecoderLimits::depth).
    TooDeep,
    /// A string or line is longer than [`DecoderLimits::bulk`](crate::DecoderLimits::bulk).
    BulkTooLong,
    /// An aggregate has more elements than
    /// [`DecoderLimits::aggregate`](crate::DecoderLimits::aggregate).
    AggregateTooLong,
    /// A frame takes more memory than [`DecoderLimits::frame`](crate::DecoderLimits::frame).
    FrameTooLong,
    /// A reply arrived that no command requested.
    UnexpectedReply,
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::UnknownType(byte) => {
                return write!(f, "byte 0x{byte:02x} ({:?}) is no RESP type", char::from(*byte));
            }
            Self::InvalidLength => "a length is not a decimal number",
            Self::InvalidLine => "a line does not end with CR LF",
            Self::MissingTerminator => "a bulk string is not followed by CR LF",
            Self::InvalidInteger => "an integer is not a signed 64-bit number",
            Self::InvalidDouble => "a double is not a number",
            Self::InvalidBigNumber => "a big number is not an integer",
            Self::InvalidBoolean => "a boolean is neither t nor f",
            Self::InvalidNull => "a null has a value",
            Self::InvalidVerbatim => "a verbatim string has no format",
            Self::OddMap => "a streamed map ended after a key",
            Self::UnexpectedChunk => "a chunk or end marker has no streamed value",
            Self::AttributeOfNothing => "an attribute describes no value",
            Self::TooDeep => "aggregates nest deeper than the limit",
            Self::BulkTooLong => "a string is longer than the limit",
            Self::AggregateTooLong => "an aggregate has more elements than the limit",
            Self::FrameTooLong => "a frame takes more memory than the limit",
            Self::UnexpectedReply => "a reply arrived that no command requested",
        };
        f.write_str(text)
    }
}

impl std::error::Error for ProtocolError {}

impl From<ProtocolError> for std::io::Error {
    fn from(error: ProtocolError) -> Self {
        Self::new(std::io::ErrorKind::InvalidData, error)
    }
}
