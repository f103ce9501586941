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
