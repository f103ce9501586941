use crate::{Error, Frame};

/// What happens on the connection of a [`Client`](crate::Client).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// The connection broke.
    Disconnected(Error),
    /// An attempt to connect again has failed.
    AttemptFailed(Error),
    /// The connection is there again.
    Connected,
    /// The server has sent something by itself: an invalidation, a message.
    Push(Frame),
}
