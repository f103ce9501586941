//! The codec for tokio streams. It wraps the decoder and the encoder for users who do their own
//! I/O.

use bytes::BytesMut;
use tokio_util::codec;

use crate::command::{self, Command};
use crate::{Decoder, DecoderLimits, Error, Frame};

/// RESP as a [`tokio_util::codec`]: it decodes [`Frame`]s and encodes [`Command`]s.
///
/// It only delimits frames; [`Connection`](crate::Connection) also matches replies to commands.
///
/// ```
/// use bytes::BytesMut;
/// use resp::{RespCodec, cmd};
/// use tokio_util::codec::{Decoder, Encoder};
///
/// let mut codec = RespCodec::default();
/// let mut out = BytesMut::new();
/// codec.encode(&cmd::<String>("GET").arg("name"), &mut out)?;
/// assert_eq!(out, "*2\r\n$3\r\nGET\r\n$4\r\nname\r\n");
///
/// let frame = codec.decode(&mut BytesMut::from("$2\r\nhi\r\n"))?.expect("complete");
/// assert_eq!(frame.value().as_str(), Some("hi"));
/// # Ok::<(), resp::Error>(())
/// ```
#[derive(Debug, Default)]
pub struct RespCodec {
    decoder: Decoder,
}

impl RespCodec {
    /// Creates a codec with these limits.
    #[must_use]
    pub fn new(limits: DecoderLimits) -> Self {
        Self { decoder: Decoder::new(limits) }
    }
}

/// The error is a [`ProtocolError`](crate::ProtocolError), which [`Error::protocol_error`] returns,
/// or one of the transport.
impl codec::Decoder for RespCodec {
    type Item = Frame;
    type Error = Error;

    fn decode(&mut self, buf: &mut BytesMut) -> Result<Option<Frame>, Error> {
        self.decoder.decode(buf).map_err(Error::protocol)
    }
}

impl<C: Command> codec::Encoder<&C> for RespCodec {
    type Error = Error;

    fn encode(&mut self, command: &C, out: &mut BytesMut) -> Result<(), Error> {
        command::encode(command, out);
        Ok(())
    }
}
