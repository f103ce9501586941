//! The streams of a source: one per partition.

use delivery::partition::Partition;

use crate::{Connector, Context, Health};

/// A stream of a source: its key, how to connect to it, and where to report its state.
#[derive(Debug, Clone)]
pub struct Stream {
    /// The partition of the source that the stream carries.
    pub partition: Partition,
    /// The key of the stream.
    pub key: String,
    /// Connects to the node of the key.
    pub connector: Connector,
    /// Where to report the state; with several streams, reasons name the stream.
    pub health: Health,
}

impl Context {
    /// The stream of a partition of `source`, which is the key of the unpartitioned stream.
    #[must_use]
    pub fn stream(&self, source: &str, partition: Partition) -> Stream {
        let key = partition.stream(source);
        let health = match partition.is_whole() {
            true => self.health.clone(),
            false => self.health.for_stream(partition.index() as usize, &key),
        };
        let connector = self.connector.for_stream(&key, health.clone());
        Stream { partition, key, connector, health }
    }
}
