//! What the group has still to do: of each partition that this writer takes, and of all of them.

use crate::names;
use delivery::partition::Partition;
use metrics::{Gauge, gauge};
use std::cell::RefCell;
use std::time::Duration;

/// What was last measured of one partition.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Measured {
    /// Entries in the stream.
    pub(crate) length: u64,
    /// Not delivered to the group yet.
    pub(crate) lag: u64,
    /// Delivered and not acknowledged.
    pub(crate) pending: u64,
    /// Since when the pending entry with the smallest ID is.
    pub(crate) oldest: Duration,
}

/// The gauges of the backlog. What cannot be measured keeps its last value.
pub(crate) struct Totals {
    partitions: RefCell<Vec<(Measured, Gauge)>>,
}

impl Totals {
    /// Those of these partitions.
    pub(crate) fn new(partitions: &[Partition]) -> Self {
        let gauges = partitions.iter().map(|partition| {
            let gauge = gauge!(names::PARTITION_BACKLOG, "partition" => partition.index().to_string());
            gauge.set(0.0);
            (Measured::default(), gauge)
        });
        Self { partitions: RefCell::new(gauges.collect()) }
    }

    /// Number `lane` of the partitions was measured.
    pub(crate) fn update(&self, lane: usize, change: impl FnOnce(&mut Measured)) {
        let mut partitions = self.partitions.borrow_mut();
        let Some((measured, backlog)) = partitions.get_mut(lane) else { return };
        change(measured);
        backlog.set((measured.lag + measured.pending) as f64);
        let all = sum(partitions.iter().map(|(measured, _)| measured));
        gauge!(names::LENGTH).set(all.length as f64);
        gauge!(names::LAG).set(all.lag as f64);
        gauge!(names::PENDING).set(all.pending as f64);
        gauge!(names::BACKLOG).set((all.lag + all.pending) as f64);
        gauge!(names::OLDEST_PENDING).set(all.oldest.as_secs_f64());
    }
}

/// All together: entries add up, and the oldest of all is the oldest.
fn sum<'a>(all: impl Iterator<Item = &'a Measured>) -> Measured {
    all.fold(Measured::default(), |sum, one| Measured {
        length: sum.length + one.length,
        lag: sum.lag + one.lag,
        pending: sum.pending + one.pending,
        oldest: sum.oldest.max(one.oldest),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_add_up_and_the_oldest_stays_the_oldest() {
        let totals = Totals::new(&Partition::all(3).collect::<Vec<_>>());
        let oldest = Duration::from_secs;
        totals.update(0, |one| *one = Measured { length: 10, lag: 5, pending: 2, oldest: oldest(7) });
        totals.update(2, |one| *one = Measured { length: 1, lag: 1, pending: 0, oldest: oldest(0) });
        totals.update(0, |one| one.lag = 4);
        let all = sum(totals.partitions.borrow().iter().map(|(measured, _)| measured));
        assert_eq!((all.length, all.lag, all.pending, all.oldest), (11, 5, 2, oldest(7)));
    }
}
