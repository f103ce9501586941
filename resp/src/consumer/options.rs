use std::time::Duration;

use super::Consumer;
use crate::streams::GroupStart;
use crate::{Backoff, Config, Error, StreamId};

/// How a [`Consumer`] reads. The defaults lose nothing: the group begins at the stream's first
/// entry, and is made again when the server has lost it.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
/// use resp::{Config, ConsumerOptions};
///
/// let consumer = ConsumerOptions::new(Config::from_url("redis://localhost")?, "events", "workers", "me")
///     .count(100)
///     .claim_idle(Some(Duration::from_secs(60)))
///     .connect()
///     .await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct ConsumerOptions {
    pub(super) config: Config,
    pub(super) stream: Vec<u8>,
    pub(super) group: Vec<u8>,
    pub(super) name: Vec<u8>,
    pub(super) count: u64,
    pub(super) block: Duration,
    pub(super) create: Option<GroupStart>,
    pub(super) claim_idle: Option<Duration>,
    pub(super) backoff: Backoff,
}

impl ConsumerOptions {
    /// The default options: a consumer of this name in a group of a stream.
    #[must_use]
    pub fn new(config: Config, stream: impl AsRef<[u8]>, group: impl AsRef<[u8]>, name: impl AsRef<[u8]>) -> Self {
        Self {
            // In a cluster, to the node that has the stream.
            config: config.for_key(&stream),
            stream: stream.as_ref().to_vec(),
            group: group.as_ref().to_vec(),
            name: name.as_ref().to_vec(),
            count: 1000,
            block: Duration::from_secs(5),
            create: Some(StreamId::ZERO.into()),
            claim_idle: None,
            backoff: Backoff::default(),
        }
    }

    /// At most so many entries in one batch. Default 1000.
    #[must_use]
    pub const fn count(mut self, entries: u64) -> Self {
        self.count = entries;
        self
    }

    /// How long one read waits in the server. Default 5 s.
    #[must_use]
    pub const fn block(mut self, time: Duration) -> Self {
        self.block = time;
        self
    }

    /// Makes the group when there is none, at first and after the server has lost it, and the
    /// stream with it. Default: at the first entry. With `None`, a missing group is an error.
    #[must_use]
    pub const fn create_group(mut self, start: Option<GroupStart>) -> Self {
        self.create = start;
        self
    }

    /// Takes over entries that have been pending in the group for so long. Default: never. Redis
    /// 6.2.
    ///
    /// It must be longer than the work on a batch takes: what this consumer itself has not
    /// acknowledged for so long is given again too, as
    /// [`BatchOrigin::Claimed`](super::BatchOrigin::Claimed).
    #[must_use]
    pub const fn claim_idle(mut self, idle: Option<Duration>) -> Self {
        self.claim_idle = idle;
        self
    }

    /// How long to wait between attempts to connect again.
    #[must_use]
    pub const fn backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }

    /// Connects, and makes the group if it is to be made.
    ///
    /// # Errors
    ///
    /// When the first connection cannot be made, or the key holds something else. Later connections
    /// are made again and again.
    pub async fn connect(self) -> Result<Consumer, Error> {
        Consumer::connect(self).await
    }
}
