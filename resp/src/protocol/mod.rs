//! RESP without I/O: bytes in, frames out.
//!
//! [`Decoder`] parses bytes into a [`Frame`], which owns a flat tape of nodes; [`Value`] is the
//! view of one node. Connections own a decoder each.

mod attributes;
pub(crate) mod cast;
mod decoder;
mod error;
mod frame;
mod header;
mod kind;
mod limits;
pub(crate) mod number;
mod value;

pub use decoder::Decoder;
pub use error::ProtocolError;
pub use frame::Frame;
pub use kind::ValueKind;
pub use limits::DecoderLimits;
pub use value::{Value, ValueChildren, ValuePairs};
