//! Gauges that combine all partitions of this process.

use crate::metric_names::{INPUT_POSITION, INPUT_SIZE, STREAM_LENGTH, WAITING};
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
    /// Of many sources only.
    size: Option<u64>,
}

/// What the reports of many sources add up to.
#[derive(Debug, Clone, Copy, Default)]
struct Sums {
    position: u64,
    size: u64,
    stream_len: u64,
    waiting: u64,
}

impl Sums {
    fn replace(&mut self, before: Reported, now: Reported) {
        let change = |sum: &mut u64, before: u64, now: u64| *sum = sum.saturating_sub(before).saturating_add(now);
        change(&mut self.position, before.position.unwrap_or(0), now.position.unwrap_or(0));
        change(&mut self.size, before.size.unwrap_or(0), now.size.unwrap_or(0));
        change(&mut self.stream_len, before.stream_len, now.stream_len);
        change(&mut self.waiting, u64::from(before.waiting), u64::from(now.waiting));
    }
}

/// The last reports of all partitions; this handle reports for one of them.
#[derive(Debug, Clone)]
pub(crate) struct Totals {
    all: Rc<RefCell<BTreeMap<u32, Reported>>>,
    index: u32,
    /// With many sources, gauges show sums.
    sums: Option<Rc<RefCell<Sums>>>,
}

impl Totals {
    /// No partitions yet.
    pub(crate) fn new() -> Self {
        Self { all: Rc::default(), index: 0, sums: None }
    }

    /// No sources yet, of many.
    pub(crate) fn of_many() -> Self {
        Self { sums: Some(Rc::default()), ..Self::new() }
    }

    /// A handle for this source, of many.
    pub(crate) fn of_source(&self, index: u32) -> Self {
        self.all.borrow_mut().entry(index).or_default();
        Self { all: Rc::clone(&self.all), index, sums: self.sums.clone() }
    }

    /// Whether there are no partitions.
    pub(crate) fn is_empty(&self) -> bool {
        self.all.borrow().is_empty()
    }

    /// A handle for this partition.
    pub(crate) fn of(&self, partition: Partition) -> Self {
        let index = partition.index();
        self.all.borrow_mut().entry(index).or_default();
        Self { all: Rc::clone(&self.all), index, sums: None }
    }

    /// Sets the confirmed position of this partition; the gauge shows the minimum of all
    /// partitions. `None`: there is no content.
    pub(crate) fn position(&self, position: Option<u64>) {
        self.report(|one| one.position = position);
        if let Some(sums) = &self.sums {
            return gauge!(INPUT_POSITION).set(sums.borrow().position as f64);
        }
        let slowest = self.all.borrow().values().map(|one| one.position).min().flatten();
        gauge!(INPUT_POSITION).set(slowest.map_or(f64::NAN, |position| position as f64));
    }

    /// Sets the length of the content being read; `None` if there is none.
    pub(crate) fn input_size(&self, bytes: Option<u64>) {
        let Some(sums) = &self.sums else {
            return gauge!(INPUT_SIZE).set(bytes.map_or(f64::NAN, |bytes| bytes as f64));
        };
        self.report(|one| one.size = bytes);
        gauge!(INPUT_SIZE).set(sums.borrow().size as f64);
    }

    /// Sets the length of this partition's stream; the gauge is the sum.
    pub(crate) fn stream_len(&self, entries: u64) {
        self.report(|one| (one.stream_len, one.is_current) = (entries, true));
        if let Some(sums) = &self.sums {
            return gauge!(STREAM_LENGTH).set(sums.borrow().stream_len as f64);
        }
        let is_current = self.all.borrow().values().all(|one| one.is_current);
        gauge!(STREAM_LENGTH).set(if is_current { self.sum() as f64 } else { f64::NAN });
    }

    /// Marks the length as stale, because there is no connection to Redis.
    pub(crate) fn disconnected(&self) {
        self.report(|one| one.is_current = false);
        gauge!(STREAM_LENGTH).set(f64::NAN);
    }

    /// The number of entries in all streams; of many sources, in this one's.
    pub(crate) fn sum(&self) -> u64 {
        match &self.sums {
            // The bound is one for each source.
            Some(_) => self.all.borrow().get(&self.index).map_or(0, |one| one.stream_len),
            None => self.all.borrow().values().map(|one| one.stream_len).sum(),
        }
    }

    /// Sets whether this partition waits for room in its stream; the gauge is 1 if any partition
    /// waits.
    pub(crate) fn waiting(&self, waiting: bool) {
        self.report(|one| one.waiting = waiting);
        let any = match &self.sums {
            Some(sums) => sums.borrow().waiting > 0,
            None => self.all.borrow().values().any(|one| one.waiting),
        };
        gauge!(WAITING).set(if any { 1.0 } else { 0.0 });
    }

    fn report(&self, change: impl FnOnce(&mut Reported)) {
        if let Some(one) = self.all.borrow_mut().get_mut(&self.index) {
            let before = *one;
            change(one);
            if let Some(sums) = &self.sums {
                sums.borrow_mut().replace(before, *one);
            }
        }
    }
}
