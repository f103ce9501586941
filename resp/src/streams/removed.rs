//! Results of `XACKDEL` and `XDELEX`.

use crate::{Error, Frame};

/// The result of [`XAckDel`](super::XAckDel) or [`XDelEx`](super::XDelEx) for one entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Removed {
    /// The entry does not exist.
    Missing,
    /// The entry was removed.
    Removed,
    /// The entry was kept, because a consumer group still refers to it.
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
