//! `XCFGSET`.

use std::time::Duration;

use super::decode;
use crate::{Command, CommandWriter, Error, Frame};

/// `XCFGSET`: configures how long, and how many, producer IDs the server remembers for
/// [`XAdd::once`](super::XAdd::once). Redis 8.6.
///
/// It forgets the present ones.
///
/// ```no_run
/// # async fn example(connection: &mut resp::Connection) -> Result<(), resp::Error> {
/// use std::time::Duration;
/// use resp::streams::XCfgSet;
///
/// connection.send(XCfgSet::new("events").once_for(Duration::from_secs(600)).once_at_most(1000)).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct XCfgSet<'a> {
    key: &'a [u8],
    duration: Option<Duration>,
    max_size: Option<u64>,
}

impl<'a> XCfgSet<'a> {
    /// Creates the command without a setting, which the server refuses.
    pub fn new(key: &'a (impl AsRef<[u8]> + ?Sized)) -> Self {
        Self { key: key.as_ref(), duration: None, max_size: None }
    }

    /// Sets how long IDs are remembered, in whole seconds up to a day (`IDMP-DURATION`).
    #[must_use]
    pub const fn once_for(mut self, duration: Duration) -> Self {
        self.duration = Some(duration);
        self
    }

    /// Sets how many IDs are remembered per producer, up to 10,000 (`IDMP-MAXSIZE`).
    #[must_use]
    pub const fn once_at_most(mut self, names: u64) -> Self {
        self.max_size = Some(names);
        self
    }
}

impl Command for XCfgSet<'_> {
    type Reply = ();

    fn name(&self) -> &str {
        "XCFGSET"
    }

    fn key(&self) -> Option<&[u8]> {
        Some(self.key)
    }

    #[expect(clippy::arithmetic_side_effects, reason = "the counts are of arguments in memory")]
    fn encode(&self, out: &mut CommandWriter<'_>) {
        out.command("XCFGSET", 1 + 2 * usize::from(self.duration.is_some()) + 2 * usize::from(self.max_size.is_some()));
        out.arg(self.key);
        if let Some(duration) = self.duration {
            out.arg("IDMP-DURATION");
            out.arg_int(duration.as_secs());
        }
        if let Some(names) = self.max_size {
            out.arg("IDMP-MAXSIZE");
            out.arg_int(names);
        }
    }

    fn decode(frame: Frame) -> Result<(), Error> {
        decode::ok(&frame)
    }
}
