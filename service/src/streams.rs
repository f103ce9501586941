//! The streams that a source is spread over.

use delivery::partition::Partition;

use crate::{Connector, Context, Health};

/// One of the streams of a source: its key, how to reach it, and where to tell how it goes.
#[derive(Debug, Clone)]
pub struct Stream {
    /// Which part of the source it carries.
    pub partition: Partition,
    /// Its key.
    pub key: String,
    /// Makes connections to where it is.
    pub connector: Connector,
    /// Where to tell how the work on it goes; with several streams, reasons name it.
    pub health: Health,
}

impl Context {
    /// The stream of a partition of `source`, the key of the stream that would be the only one.
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
