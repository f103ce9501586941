//! Gauges that combine all partitions of this process.

use crate::metric_names::{INPUT_POSITION, STREAM_LENGTH, WAITING};
use delivery::partition::Partition;
use metrics::gauge;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

/// The last report of a partition.
#[derive(Debug, Clone, Copy, Default)]
struct Reported {
    position: Option<u64>,
    stream_len: u64,
    /// Whether `stream_len` is up to date.
    is_current: bool,
    waiting: bool,
}

/// The last reports of all partitions; this handle reports for one of them.
#[derive(Debug, Clone)]
pub(crate) struct Totals {
    all: Rc<RefCell<BTreeMap<u32, Reported>>>,
    index: u32,
}

impl Totals {
    /// No partitions yet.
    pub(crate) fn new() -> Self {
        Self { all: Rc::default(), index: 0 }
    }

    /// Whether there are no partitions.
    pub(crate) fn is_empty(&self) -> bool {
        self.all.borrow().is_empty()
    }

    /// A handle for this partition.
    pub(crate) fn of(&self, partition: Partition) -> Self {
        let index = partition.index();
        self.all.borrow_mut().entry(index).or_default();
        Self { all: Rc::clone(&self.all), index }
    }

    /// Sets the confirmed position of this partition; the gauge shows the minimum of all
    /// partitions. `None`: there is no content.
    pub(crate) fn position(&self, position: Option<u64>) {
        self.report(|one| one.position = position);
        let slowest = self.all.borrow().values().map(|one| one.position).min().flatten();
        gauge!(INPUT_POSITION).set(slowest.map_or(f64::NAN, |position| position as f64));
    }

    /// Sets the length of this partition's stream; the gauge is the sum.
    pub(crate) fn stream_len(&self, entries: u64) {
        self.report(|one| (one.stream_len, one.is_current) = (entries, true));
        let is_current = self.all.borrow().values().all(|one| one.is_current);
        gauge!(STREAM_LENGTH).set(if is_current { self.sum() as f64 } else { f64::NAN });
    }

    /// Marks the length as stale, because there is no connection to Redis.
    pub(crate) fn disconnected(&self) {
        self.report(|one| one.is_current = false);
        gauge!(STREAM_LENGTH).set(f64::NAN);
    }

    /// The number of entries in all streams.
    pub(crate) fn sum(&self) -> u64 {
        self.all.borrow().values().map(|one| one.stream_len).sum()
    }

    /// Sets whether this partition waits for room in its stream; the gauge is 1 if any partition
    /// waits.
    pub(crate) fn waiting(&self, waiting: bool) {
        self.report(|one| one.waiting = waiting);
        let any = self.all.borrow().values().any(|one| one.waiting);
        gauge!(WAITING).set(if any { 1.0 } else { 0.0 });
    }

    fn report(&self, change: impl FnOnce(&mut Reported)) {
        if let Some(one) = self.all.borrow_mut().get_mut(&self.index) {
            change(one);
        }
    }
}
