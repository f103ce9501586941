//! How much the group has still to do.

use resp::StreamId;
use resp::streams::GroupInfo;

/// Entries that are not delivered yet.
///
/// Redis does not always know (`lag` is null after some deletions). Then it is nothing when the last entry was delivered, else at most
/// what the stream holds without what is pending.
pub(crate) fn lag(group: &GroupInfo, length: u64, last_generated: Option<StreamId>) -> u64 {
    estimate(group.lag, group.last_delivered_id, group.pending, length, last_generated)
}

fn estimate(
    lag: Option<u64>,
    last_delivered: StreamId,
    pending: u64,
    length: u64,
    last_generated: Option<StreamId>,
) -> u64 {
    match lag {
        Some(lag) => lag.min(length),
        None if last_generated.is_some_and(|last| last <= last_delivered) => 0,
        None => length.saturating_sub(pending),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lag_that_redis_does_not_know_is_bounded() {
        let id = |seq| StreamId::new(5, seq);
        assert_eq!(estimate(Some(3), id(1), 2, 10, None), 3);
        assert_eq!(estimate(Some(30), id(1), 2, 10, None), 10, "never more than there is");
        assert_eq!(estimate(None, id(9), 2, 10, Some(id(9))), 0, "all was delivered");
        assert_eq!(estimate(None, id(1), 2, 10, Some(id(9))), 8);
        assert_eq!(estimate(None, id(1), 20, 10, None), 0);
    }
}
