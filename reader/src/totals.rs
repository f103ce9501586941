//! Gauges over all partitions of this process.

use crate::metric_names::{INPUT_POSITION, STREAM_LENGTH, WAITING};
use delivery::partition::Partition;
use metrics::gauge;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

/// What was last told of a partition.
#[derive(Debug, Clone, Copy, Default)]
struct Told {
    position: Option<u64>,
    stream_len: u64,
    /// Whether that is what Redis holds now.
    is_current: bool,
    waiting: bool,
}

/// What was last told of each partition; here for one of them.
#[derive(Debug, Clone)]
pub(crate) struct Totals {
    all: Rc<RefCell<BTreeMap<u32, Told>>>,
    index: u32,
}

impl Totals {
    /// Nothing was told yet.
    pub(crate) fn new() -> Self {
        Self { all: Rc::default(), index: 0 }
    }

    /// Whether there is no partition yet.
    pub(crate) fn is_empty(&self) -> bool {
        self.all.borrow().is_empty()
    }

    /// For this partition.
    pub(crate) fn of(&self, partition: Partition) -> Self {
        let index = partition.index();
        self.all.borrow_mut().entry(index).or_default();
        Self { all: Rc::clone(&self.all), index }
    }

    /// Everything before this position of the input is confirmed. The slowest partition counts.
    /// `None`: there is no content.
    pub(crate) fn position(&self, position: Option<u64>) {
        self.tell(|told| told.position = position);
        let slowest = self.all.borrow().values().map(|told| told.position).min().flatten();
        gauge!(INPUT_POSITION).set(slowest.map_or(f64::NAN, |position| position as f64));
    }

    /// The stream holds so many entries. All count.
    pub(crate) fn stream_len(&self, entries: u64) {
        self.tell(|told| (told.stream_len, told.is_current) = (entries, true));
        let is_current = self.all.borrow().values().all(|told| told.is_current);
        gauge!(STREAM_LENGTH).set(if is_current { self.sum() as f64 } else { f64::NAN });
    }

    /// There is no connection to Redis: what it holds may have changed.
    pub(crate) fn disconnected(&self) {
        self.tell(|told| told.is_current = false);
        gauge!(STREAM_LENGTH).set(f64::NAN);
    }

    /// The entries of all streams together.
    pub(crate) fn sum(&self) -> u64 {
        self.all.borrow().values().map(|told| told.stream_len).sum()
    }

    /// The reader waits for room in the stream, or does not. Any partition counts.
    pub(crate) fn waiting(&self, waiting: bool) {
        self.tell(|told| told.waiting = waiting);
        let any = self.all.borrow().values().any(|told| told.waiting);
        gauge!(WAITING).set(if any { 1.0 } else { 0.0 });
    }

    fn tell(&self, change: impl FnOnce(&mut Told)) {
        if let Some(told) = self.all.borrow_mut().get_mut(&self.index) {
            change(told);
        }
    }
}
