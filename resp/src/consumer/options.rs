//! Options of a consumer.

use std::time::Duration;

use super::Consumer;
use crate::streams::GroupStart;
use crate::{Backoff, Config, Error, StreamId};

/// Options of a [`Consumer`]. The defaults lose nothing: the group starts at the first entry of the
/// stream, and is created again if the server loses it.
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
    /// Creates the default options for a consumer of this name.
    #[must_use]
    pub fn new(config: Config, stream: impl AsRef<[u8]>, group: impl AsRef<[u8]>, name: impl AsRef<[u8]>) -> Self {
        Self {
            // In a cluster, connect to the owner of the stream.
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

    /// Sets the maximum number of entries in a batch. Default 1000.
    #[must_use]
    pub const fn count(mut self, entries: u64) -> Self {
        self.count = entries;
        self
    }

    /// Sets how long one read blocks in the server. Default 5 s.
    #[must_use]
    pub const fn block(mut self, time: Duration) -> Self {
        self.block = time;
        self
    }

    /// Creates the group, and the stream, if they do not exist: at first, and after the server has
    /// lost them. Default: at the first entry. With `None`, a missing group is an error.
    #[must_use]
    pub const fn create_group(mut self, start: Option<GroupStart>) -> Self {
        self.create = start;
        self
    }

    /// Claims entries that were pending in the group for this long. Default: never. Redis 6.2.
    ///
    /// Set it longer than the processing of a batch takes. Entries that this consumer itself has
    /// not acknowledged for this long are returned again, as
    /// [`BatchOrigin::Claimed`](super::BatchOrigin::Claimed).
    #[must_use]
    pub const fn claim_idle(mut self, idle: Option<Duration>) -> Self {
        self.claim_idle = idle;
        self
    }

    /// Sets the delays between attempts to reconnect.
    #[must_use]
    pub const fn backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }

    /// Connects, and creates the group if requested.
    ///
    /// # Errors
    ///
    /// The first connection cannot be made, or the key has another type. Later connections are
    /// retried without end.
    pub async fn connect(self) -> Result<Consumer, Error> {
        Consumer::connect(self).await
    }
}
