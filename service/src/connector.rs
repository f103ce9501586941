//! A connection to Redis, however long it takes.

use crate::{Failure, Health, Shutdown};

/// Makes connections to Redis.
#[derive(Debug)]
pub struct Connector {
    health: Health,
    shutdown: Shutdown,
}

/// Why there is no connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stop {
    /// The service was asked to stop.
    Shutdown,
    /// The service cannot work like this.
    Failure(Failure),
}

impl Connector {
    pub(crate) fn new((): (), health: Health, shutdown: Shutdown) -> Self {
        Self { health, shutdown }
    }
}
