//! Trimming what every group has acknowledged.

use resp::StreamId;
use resp::streams::{GroupInfo, PendingSummary};

/// The smallest ID that some group still needs: everything below was acknowledged by all groups. `None`: nothing can be said.
///
/// Each group comes with what is pending in it, asked *after* the groups were: what was acknowledged meanwhile lies below its
/// last delivered ID then.
pub(crate) fn needed_from<'a>(
    groups: impl IntoIterator<Item = (&'a GroupInfo, &'a PendingSummary)>,
) -> Option<StreamId> {
    groups.into_iter().map(|(group, pending)| after_acknowledged(group.last_delivered_id, pending.first)).min()?
}

fn after_acknowledged(last_delivered: StreamId, first_pending: Option<StreamId>) -> Option<StreamId> {
    first_pending.or_else(|| last_delivered.next())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_pending_or_not_delivered_is_needed() {
        let id = |seq| StreamId::new(5, seq);
        assert_eq!(after_acknowledged(id(10), None), Some(id(11)));
        assert_eq!(after_acknowledged(id(10), Some(id(4))), Some(id(4)));
        assert_eq!(after_acknowledged(StreamId::MAX, None), None);
    }
}
