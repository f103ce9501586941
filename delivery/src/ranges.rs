//! [`RangeSet`]: a set of byte ranges. The writer keeps one per content for deduplication.

use crate::entry::Span;
use std::collections::BTreeMap;

/// A set of byte ranges of one content. Adjacent ranges are joined, so memory use depends on the
/// number of gaps, not of inserts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RangeSet {
    /// start → end; disjoint and not adjacent.
    ranges: BTreeMap<u64, u64>,
}

impl RangeSet {
    /// An empty set.
    #[must_use]
    pub const fn new() -> Self {
        Self { ranges: BTreeMap::new() }
    }

    /// Adds a range, which may overlap the set.
    pub fn insert(&mut self, span: Span) {
        if span.is_empty() {
            return;
        }
        let (mut start, mut end) = (span.start, span.end);
        // Fast path: the last range grows at its end.
        if let Some(mut last) = self.ranges.last_entry()
            && *last.get() == start
        {
            *last.get_mut() = end;
            return;
        }
        while let Some((&s, &e)) = self.ranges.range(..=end).next_back() {
            if e < start {
                break;
            }
            start = start.min(s);
            end = end.max(e);
            self.ranges.remove(&s);
        }
        self.ranges.insert(start, end);
    }

    /// The parts of `span` that are not in the set, in order.
    pub fn missing(&self, span: Span) -> impl Iterator<Item = Span> + '_ {
        let mut at = span.start;
        let end = span.end;
        // The range that contains the start, then the ranges that begin inside `span`.
        let first = self.ranges.range(..=at).next_back().filter(|&(_, &e)| e > at).map(|(&s, &e)| (s, e));
        let mut rest = self.ranges.range(at.saturating_add(1)..end.max(at.saturating_add(1))).map(|(&s, &e)| (s, e));
        let mut pending = first;
        std::iter::from_fn(move || {
            loop {
                if at >= end {
                    return None;
                }
                match pending.take().or_else(|| rest.next()) {
                    Some((s, e)) => {
                        let hole = at..s.min(end);
                        at = at.max(e);
                        if hole.start < hole.end {
                            return Some(hole);
                        }
                    }
                    None => {
                        let hole = at..end;
                        at = end;
                        return Some(hole);
                    }
                }
            }
        })
    }

    /// Whether the set contains every byte of `span`.
    #[must_use]
    pub fn contains(&self, span: Span) -> bool {
        self.missing(span).next().is_none()
    }

    /// The offset after the last byte; 0 if the set is empty.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.ranges.last_key_value().map_or(0, |(_, &e)| e)
    }

    /// The offset of the first byte.
    #[must_use]
    pub fn start(&self) -> Option<u64> {
        self.ranges.first_key_value().map(|(&s, _)| s)
    }

    /// The number of bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.iter().map(|range| range.end.saturating_sub(range.start)).sum()
    }

    /// Whether the set is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// The ranges, in order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = Span> + '_ {
        self.ranges.iter().map(|(&s, &e)| s..e)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Compares with a simple model: one flag per byte.
        #[test]
        fn agrees_with_a_bitmap(spans in prop::collection::vec((0u64..200, 0u64..40), 0..60), probe in (0u64..240, 0u64..60)) {
            let mut set = RangeSet::new();
            let mut model = [false; 400];
            for (start, len) in spans {
                let new: u64 = set.missing(start..start + len).map(|r| r.end - r.start).sum();
                let expected = (start..start + len).filter(|&i| !model[i as usize]).count() as u64;
                prop_assert_eq!(new, expected);
                set.insert(start..start + len);
                (start..start + len).for_each(|i| model[i as usize] = true);
            }
            prop_assert_eq!(set.bytes(), model.iter().filter(|b| **b).count() as u64);
            let ranges: Vec<_> = set.iter().collect();
            prop_assert!(ranges.windows(2).all(|w| w[0].end < w[1].start), "disjoint and joined: {:?}", ranges);
            let (start, len) = probe;
            let holes: Vec<u64> = set.missing(start..start + len).flatten().collect();
            let expected: Vec<u64> = (start..start + len).filter(|&i| !model[i as usize]).collect();
            prop_assert_eq!(holes, expected);
        }
    }
}
