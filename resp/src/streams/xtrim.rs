//! `XTRIM`.

use super::Trim;
use super::decode;
use crate::{Command, CommandWriter, Error, Frame};

/// `XTRIM`: removes the oldest entries of a stream. Redis 5.0.
///
/// The reply is how many entries were removed.
///
/// ```no_run
/// # async fn example(connection: &mut resp::Connection) -> Result<(), resp::Error> {
/// use resp::StreamId;
/// use resp::streams::{Trim, XTrim};
///
/// let keep = Trim::min_id(StreamId::new(1526919030474, 0)).approximately();
/// let removed = connection.send(XTrim::new("events", keep)).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct XTrim<'a> {
    key: &'a [u8],
    trim: Trim,
}

impl<'a> XTrim<'a> {
    /// Trims a stream.
    pub fn new(key: &'a (impl AsRef<[u8]> + ?Sized), trim: Trim) -> Self {
        Self { key: key.as_ref(), trim }
    }
}

impl Command for XTrim<'_> {
    type Reply = u64;

    fn name(&self) -> &str {
        "XTRIM"
    }

    fn key(&self) -> Option<&[u8]> {
        Some(self.key)
    }

    #[expect(clippy::arithmetic_side_effects, reason = "the counts are of arguments in memory")]
    fn encode(&self, out: &mut CommandWriter<'_>) {
        out.command("XTRIM", 1 + self.trim.args());
        out.arg(self.key);
        self.trim.encode(out);
    }

    fn decode(frame: Frame) -> Result<u64, Error> {
        decode::count(&frame)
    }
}
