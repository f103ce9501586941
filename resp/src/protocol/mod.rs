//! RESP itself, without I/O: bytes in, frames out.

mod codec;
mod decoder;
mod error;
mod extra;
mod frame;
mod header;
mod limits;
mod node;
mod value;

pub use codec::RespCodec;
pub use decoder::Decoder;
pub use error::ProtocolError;
pub use frame::Frame;
pub use limits::Limits;
pub use node::Kind;
pub use value::{Children, Pairs, Value};
