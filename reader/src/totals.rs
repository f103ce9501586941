//! Gauges that combine all partitions of this process.

use crate::metric_names::{INPUT_POSITION, INPUT_SIZE, STREAM_LENGTH, WAITING};
use delivery::partition::Partition;
use metrics::gauge;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
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
    /// Of many sources only: whether position and size were reported.
    is_known: bool,
}

/// The sums over many sources.
#[derive(Debug, Clone, Copy, Default)]
struct Sums {
    position: u64,
    size: u64,
    waiting: u64,
    /// How many sources have not reported yet.
    unknown: u64,
}

impl Sums {
    fn replace(&mut self, before: Reported, now: Reported) {
        let change = |sum: &mut u64, before: u64, now: u64| *sum = sum.saturating_sub(before).saturating_add(now);
        change(&mut self.position, before.position.unwrap_or(0), now.position.unwrap_or(0));
        change(&mut self.size, before.size.unwrap_or(0), now.size.unwrap_or(0));
        change(&mut self.waiting, u64::from(before.waiting), u64::from(now.waiting));
        change(&mut self.unknown, u64::from(!before.is_known), u64::from(!now.is_known));
    }

    /// Position and size of all sources together; NaN while those of one are unknown.
    const fn progress(&self) -> (f64, f64) {
        match self.unknown {
            0 => (self.position as f64, self.size as f64),
            _ => (f64::NAN, f64::NAN),
        }
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

    /// A handle for this source, of many. The first one makes the sums unknown until the source has
    /// reported its position.
    pub(crate) fn of_source(&self, index: u32) -> Self {
        let handle = Self { all: Rc::clone(&self.all), index, sums: self.sums.clone() };
        let mut all = self.all.borrow_mut();
        if let (Entry::Vacant(entry), Some(sums)) = (all.entry(index), &self.sums) {
            entry.insert(Reported::default());
            let mut sums = sums.borrow_mut();
            sums.unknown = sums.unknown.saturating_add(1);
        }
        handle.show_progress();
        handle
    }

    /// The file of this source cannot be read, so nobody knows how much is left of it.
    pub(crate) fn forget(&self) {
        self.report(|one| (one.position, one.size, one.is_known) = (None, None, false));
        self.show_progress();
    }

    /// The file of this source, which is to be read, has this length by now.
    pub(crate) fn has_grown_to(&self, len: u64) {
        self.report(|one| {
            if one.position.is_some_and(|position| position <= len) {
                one.size = one.size.max(Some(len));
            }
        });
        self.show_progress();
    }

    fn show_progress(&self) {
        if let Some(sums) = &self.sums {
            let (position, size) = sums.borrow().progress();
            gauge!(INPUT_POSITION).set(position);
            gauge!(INPUT_SIZE).set(size);
        }
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
        self.report(|one| (one.position, one.is_known) = (position, true));
        if self.sums.is_some() {
            return self.show_progress();
        }
        let slowest = self.all.borrow().values().map(|one| one.position).min().flatten();
        gauge!(INPUT_POSITION).set(slowest.map_or(f64::NAN, |position| position as f64));
    }

    /// Sets the length of the content being read; `None` if there is none.
    pub(crate) fn input_size(&self, bytes: Option<u64>) {
        if self.sums.is_none() {
            return gauge!(INPUT_SIZE).set(bytes.map_or(f64::NAN, |bytes| bytes as f64));
        }
        self.report(|one| one.size = bytes);
        self.show_progress();
    }

    /// Sets the length of this partition's stream; the gauge is the sum. With many sources it stays
    /// unknown: those that are parked do not see how writers shorten their streams.
    pub(crate) fn stream_len(&self, entries: u64) {
        self.report(|one| (one.stream_len, one.is_current) = (entries, true));
        if self.sums.is_some() {
            return;
        }
        let is_current = self.all.borrow().values().all(|one| one.is_current);
        gauge!(STREAM_LENGTH).set(if is_current { self.sum() as f64 } else { f64::NAN });
    }

    /// Marks the length as stale, because there is no connection to Redis.
    pub(crate) fn disconnected(&self) {
        self.report(|one| one.is_current = false);
        gauge!(STREAM_LENGTH).set(f64::NAN);
    }

    /// The position and the size of one of many sources; `None` if they are unknown. Of a file that
    /// is gone, both are 0.
    pub(crate) fn progress_of(&self, index: u32) -> Option<(u64, u64)> {
        let all = self.all.borrow();
        let one = all.get(&index).filter(|one| one.is_known)?;
        Some((one.position.unwrap_or(0), one.size.unwrap_or(0)))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_sources_have_no_sum_until_each_is_known() {
        let totals = Totals::of_many();
        let progress = || totals.sums.as_ref().unwrap().borrow().progress();
        let (one, other) = (totals.of_source(0), totals.of_source(1));
        one.position(Some(10));
        one.input_size(Some(30));
        assert!(progress().0.is_nan() && progress().1.is_nan(), "the other has not reported");
        assert_eq!((totals.progress_of(0), totals.progress_of(1)), (Some((10, 30)), None));
        // Its file is gone: nothing is left of it.
        other.position(None);
        other.input_size(None);
        assert_eq!((progress(), totals.progress_of(1)), ((10.0, 30.0), Some((0, 0))));
        // Another handle changes nothing.
        totals.of_source(0).has_grown_to(50);
        assert_eq!(progress(), (10.0, 50.0));
        one.has_grown_to(5);
        assert_eq!(progress(), (10.0, 50.0), "a shorter file is another one");
        other.forget();
        assert!(progress().0.is_nan(), "it cannot be read");
        other.position(Some(1));
        other.input_size(Some(1));
        assert_eq!(progress(), (11.0, 51.0));
    }
}
