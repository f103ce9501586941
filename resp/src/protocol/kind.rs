//! The types of RESP values, and the nodes of the tape.

use std::fmt;

use super::cast::index;

/// The type of a [`Value`](crate::Value), named as in the RESP specification.
///
/// RESP2's two nulls (`$-1` and `*-1`) and RESP3's `_` are all [`ValueKind::Null`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(u8)]
pub enum ValueKind {
    /// `+`: a short text without line breaks.
    SimpleString,
    /// `-`: an error in one line.
    SimpleError,
    /// `:`: a signed 64-bit integer.
    Integer,
    /// `$`: bytes of a known length.
    BulkString,
    /// `*`: values in order.
    Array,
    /// `_`, `$-1`, `*-1`: null.
    Null,
    /// `#`: true or false.
    Boolean,
    /// `,`: a floating point number.
    Double,
    /// `(`: an integer of any size.
    BigNumber,
    /// `!`: an error that may contain any bytes.
    BulkError,
    /// `=`: a text with a three-letter format.
    VerbatimString,
    /// `%`: pairs of key and value.
    Map,
    /// `~`: values without order.
    Set,
    /// `>`: data that the server sends unasked.
    Push,
    /// `$?`: a string in chunks.
    StreamedString,
    /// `|`: pairs that describe the next value.
    Attribute,
}

impl ValueKind {
    /// Returns whether values of this kind contain other values.
    #[must_use]
    pub const fn is_aggregate(self) -> bool {
        matches!(self, Self::Array | Self::Map | Self::Set | Self::Push | Self::StreamedString | Self::Attribute)
    }

    /// Returns whether values of this kind are errors.
    #[must_use]
    pub const fn is_error(self) -> bool {
        matches!(self, Self::SimpleError | Self::BulkError)
    }
}

/// The name in errors, which call every kind of string a string.
impl fmt::Display for ValueKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SimpleString | Self::BulkString | Self::VerbatimString | Self::StreamedString => "string",
            Self::SimpleError | Self::BulkError => "error",
            Self::Integer => "integer",
            Self::Array => "array",
            Self::Null => "null",
            Self::Boolean => "boolean",
            Self::Double => "double",
            Self::BigNumber => "big number",
            Self::Map => "map",
            Self::Set => "set",
            Self::Push => "push",
            Self::Attribute => "attribute",
        })
    }
}

/// One value on the tape. Its children follow it, depth first.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Node {
    /// Scalars: the start of the content in the frame. Aggregates: the number of children.
    pub(crate) a: u32,
    /// Scalars: the length of the content. Aggregates: the number of nodes, including this one.
    pub(crate) b: u32,
    pub(crate) kind: ValueKind,
}

impl Node {
    /// Returns the number of nodes that the value takes.
    #[inline]
    pub(crate) const fn span(self) -> usize {
        if self.kind.is_aggregate() { index(self.b) } else { 1 }
    }
}
