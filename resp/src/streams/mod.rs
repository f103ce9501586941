//! The stream commands with typed replies, one per file.
//!
//! All commands borrow their arguments. Keys, groups, consumers, fields and values may be any
//! bytes. The shape of the reply decides how it is decoded, so RESP2 and RESP3 return the same
//! values.

use std::borrow::Borrow;

use crate::protocol::cast::wide;
use crate::{CommandWriter, StreamId};

mod decode;
mod entry;
mod range;
mod read;
mod removed;
mod stream_entries;
mod trim;
mod xack;
mod xackdel;
mod xadd;
mod xadd_series;
mod xautoclaim;
mod xcfgset;
mod xclaim;
mod xdel;
mod xdelex;
mod xgroup;
mod xinfo;
mod xinfo_full;
mod xlen;
mod xnack;
mod xpending;
mod xrange;
mod xread;
mod xreadgroup;
mod xrevrange;
mod xsetid;
mod xtrim;

pub use entry::{Entries, Entry, EntryIter, EntrySlice, Fields};
pub use removed::Removed;
pub use stream_entries::StreamEntries;
pub use trim::{References, Trim};
pub use xack::XAck;
pub use xackdel::XAckDel;
pub use xadd::{AddId, XAdd};
pub use xadd_series::{XAddNext, XAddSeries};
pub use xautoclaim::{AutoClaimed, AutoClaimedIds, XAutoClaim, XAutoClaimJustId};
pub use xcfgset::XCfgSet;
pub use xclaim::{XClaim, XClaimJustId};
pub use xdel::XDel;
pub use xdelex::XDelEx;
pub use xgroup::{GroupStart, XGroupCreate, XGroupCreateConsumer, XGroupDelConsumer, XGroupDestroy, XGroupSetId};
pub use xinfo::{ConsumerInfo, GroupInfo, StreamInfo, XInfoConsumers, XInfoGroups, XInfoStream};
pub use xinfo_full::{FullConsumerInfo, FullGroupInfo, FullPendingEntry, FullStreamInfo, XInfoStreamFull};
pub use xlen::XLen;
pub use xnack::{NackReason, XNack};
pub use xpending::{PendingEntry, PendingSummary, XPending, XPendingEntries};
pub use xrange::XRange;
pub use xread::{ReadFrom, XRead};
pub use xreadgroup::{GroupFrom, XReadGroup};
pub use xrevrange::XRevRange;
pub use xsetid::XSetId;
pub use xtrim::XTrim;

/// Writes `IDS numids id …`.
fn encode_ids<I>(ids: &I, count: usize, out: &mut CommandWriter<'_>)
where
    I: IntoIterator<Item: Borrow<StreamId>> + Clone,
{
    out.arg("IDS");
    out.arg_int(wide(count));
    for id in ids.clone() {
        out.arg_id(*id.borrow());
    }
}

/// Converts a duration to whole milliseconds, as Redis expects.
fn millis(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX).min(i64::MAX.unsigned_abs())
}
