//! The routing of a command in a cluster. Commands compute it; the cluster client acts on it.

use super::slot::slot;

/// The node for a command in a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Routing {
    /// Any node: the command has no key, and all nodes answer alike.
    Anywhere,
    /// The node that the caller names, with
    /// [`ClusterClient::send_to`](crate::ClusterClient::send_to) or
    /// [`send_to_masters`](crate::ClusterClient::send_to_masters): the command has no key, and is
    /// about the node itself (`SCAN`, `INFO`, `FLUSHALL`, `CONFIG`).
    OneNode,
    /// The owner of this slot.
    Slot(u16),
    /// No node: the keys are in different slots.
    CrossSlot,
}

impl Routing {
    /// Returns the routing for one key.
    ///
    /// ```
    /// use resp::Routing;
    ///
    /// assert_eq!(Routing::of_key(b"foo"), Routing::Slot(12182));
    /// assert_eq!(Routing::of_keys(["{foo}1", "{foo}2"]), Routing::Slot(12182));
    /// assert_eq!(Routing::of_keys(["foo", "bar"]), Routing::CrossSlot);
    /// ```
    #[must_use]
    pub fn of_key(key: &[u8]) -> Self {
        Self::Slot(slot(key))
    }

    /// Returns the routing for several keys.
    #[must_use]
    pub fn of_keys(keys: impl IntoIterator<Item = impl AsRef<[u8]>>) -> Self {
        keys.into_iter().fold(Self::Anywhere, |all, key| all.and(Self::of_key(key.as_ref())))
    }

    /// Returns the routing for both together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Anywhere, one) | (one, Self::Anywhere) => one,
            (Self::OneNode, _) | (_, Self::OneNode) => Self::OneNode,
            (one, other) if one == other => one,
            _ => Self::CrossSlot,
        }
    }
}
