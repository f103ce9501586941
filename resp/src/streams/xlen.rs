//! `XLEN`.

use super::decode;
use crate::{Command, CommandWriter, Error, Frame};

/// `XLEN`: the number of entries in a stream, 0 if it does not exist. Redis 5.0.
///
/// ```no_run
/// # async fn example(connection: &mut resp::Connection) -> Result<(), resp::Error> {
/// let entries = connection.send(resp::streams::XLen::new("events")).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct XLen<'a> {
    key: &'a [u8],
}

impl<'a> XLen<'a> {
    /// Counts the entries of a stream.
    pub fn new(key: &'a (impl AsRef<[u8]> + ?Sized)) -> Self {
        Self { key: key.as_ref() }
    }
}

impl Command for XLen<'_> {
    type Reply = u64;

    fn name(&self) -> &str {
        "XLEN"
    }

    fn key(&self) -> Option<&[u8]> {
        Some(self.key)
    }

    fn encode(&self, out: &mut CommandWriter<'_>) {
        out.command("XLEN", 1);
        out.arg(self.key);
    }

    fn decode(frame: Frame) -> Result<u64, Error> {
        decode::count(&frame)
    }
}
