//! Encoding of ID ranges for `XRANGE`, `XREVRANGE` and `XPENDING`.

use std::ops::{Bound, RangeBounds};

use crate::{CommandWriter, StreamId};

/// A range of IDs as an argument.
#[derive(Clone, Copy, Debug)]
pub(super) struct IdRange {
    pub(super) start: Bound<StreamId>,
    pub(super) end: Bound<StreamId>,
}

impl IdRange {
    pub(super) fn new(range: &impl RangeBounds<StreamId>) -> Self {
        Self { start: range.start_bound().cloned(), end: range.end_bound().cloned() }
    }

    pub(super) fn encode_start(&self, out: &mut CommandWriter<'_>) {
        bound(self.start, "-", out);
    }

    pub(super) fn encode_end(&self, out: &mut CommandWriter<'_>) {
        bound(self.end, "+", out);
    }
}

fn bound(bound: Bound<StreamId>, none: &str, out: &mut CommandWriter<'_>) {
    match bound {
        Bound::Included(id) => out.arg_id(id),
        Bound::Excluded(id) => out.arg_id_exclusive(id),
        Bound::Unbounded => out.arg(none),
    }
}
/// The arguments of `XRANGE` and `XREVRANGE`.
#[derive(Clone, Copy, Debug)]
pub(super) struct RangeRead<'a> {
    pub(super) key: &'a [u8],
    range: IdRange,
    pub(super) count: Option<u64>,
}

impl<'a> RangeRead<'a> {
    pub(super) fn new(key: &'a [u8], range: &impl RangeBounds<StreamId>) -> Self {
        Self { key, range: IdRange::new(range), count: None }
    }

    /// Writes the whole command; `from_end`: with the end of the range first.
    #[expect(clippy::arithmetic_side_effects, reason = "the counts are of arguments in memory")]
    pub(super) fn encode(&self, name: &str, from_end: bool, out: &mut CommandWriter<'_>) {
        out.command(name, 3 + 2 * usize::from(self.count.is_some()));
        out.arg(self.key);
        if from_end {
            self.range.encode_end(out);
            self.range.encode_start(out);
        } else {
            self.range.encode_start(out);
            self.range.encode_end(out);
        }
        if let Some(count) = self.count {
            out.arg("COUNT");
            out.arg_int(count);
        }
    }
}
