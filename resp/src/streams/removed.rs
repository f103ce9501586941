use crate::{Error, Frame};

/// What became of an entry that [`XAckDel`](super::XAckDel) or [`XDelEx`](super::XDelEx) was to
/// remove.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Removed {
    /// There is no such entry.
    Missing,
    /// It was removed.
    Removed,
    /// It stays, because a consumer group still refers to it.
    Referenced,
}

impl Removed {
    pub(super) fn list(frame: &Frame) -> Result<Vec<Self>, Error> {
        let one = |value: crate::Value<'_>| match value.as_int() {
            Some(-1) => Ok(Self::Missing),
            Some(1) => Ok(Self::Removed),
            Some(2) => Ok(Self::Referenced),
            _ => Err(Error::unexpected_reply("-1, 1 or 2", value)),
        };
        super::decode::list(frame.value())?.map(one).collect()
    }
}
