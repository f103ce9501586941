use super::slot::slot;

/// Where in a cluster a command goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Routing {
    /// It has no key, and each node answers the same: to any one of them.
    Anywhere,
    /// It has no key, and is about the node that it reaches (`SCAN`, `INFO`, `FLUSHALL`, `CONFIG`):
    /// the caller says to which, with [`ClusterClient::send_to`](crate::ClusterClient::send_to) or
    /// [`send_to_masters`](crate::ClusterClient::send_to_masters).
    OneNode,
    /// To the node that has this slot.
    Slot(u16),
    /// Its keys lie in different slots, so no node can execute it.
    CrossSlot,
}

impl Routing {
    /// That of a command with one key.
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

    /// That of a command with several keys.
    #[must_use]
    pub fn of_keys(keys: impl IntoIterator<Item = impl AsRef<[u8]>>) -> Self {
        keys.into_iter().fold(Self::Anywhere, |all, key| all.and(Self::of_key(key.as_ref())))
    }

    /// That of both together.
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
