//! Gauges of the group's backlog: of each partition that this writer consumes, and in total.

use crate::metric_names;
use delivery::partition::Partition;
use metrics::{Gauge, gauge};
use std::cell::RefCell;
use std::time::Duration;

/// The last measurement of one partition.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Measured {
    /// Entries in the stream.
    pub(crate) length: u64,
    /// Entries not delivered to the group yet.
    pub(crate) lag: u64,
    /// Entries delivered and not acknowledged.
    pub(crate) pending: u64,
    /// Time since the pending entry with the smallest ID was delivered.
    pub(crate) oldest: Duration,
}

impl Measured {
    /// Entries not acknowledged yet.
    const fn backlog(&self) -> u64 {
        self.lag.saturating_add(self.pending)
    }
}

/// The gauges of the backlog. Unknown values are NaN.
pub(crate) struct Totals {
    partitions: RefCell<Vec<(Option<Measured>, Gauge)>>,
}

impl Totals {
    /// The gauges of these partitions, all unknown.
    pub(crate) fn new(partitions: &[Partition]) -> Self {
        let gauges = partitions.iter().map(|partition| {
            let gauge = gauge!(metric_names::PARTITION_BACKLOG, "partition" => partition.index().to_string());
            gauge.set(f64::NAN);
            (None, gauge)
        });
        Self { partitions: RefCell::new(gauges.collect()) }
    }

    /// Sets the measurement of a partition, by its position in the list. `None`: the last
    /// measurement is stale.
    pub(crate) fn set(&self, partition: usize, measured: Option<Measured>) {
        let mut partitions = self.partitions.borrow_mut();
        let Some((old, backlog)) = partitions.get_mut(partition) else { return };
        *old = measured;
        backlog.set(measured.map_or(f64::NAN, |one| one.backlog() as f64));
        let all: Option<Measured> = sum(partitions.iter().map(|(measured, _)| *measured));
        let show = |name, of: fn(&Measured) -> f64| gauge!(name).set(all.as_ref().map_or(f64::NAN, of));
        show(metric_names::LENGTH, |all| all.length as f64);
        show(metric_names::LAG, |all| all.lag as f64);
        show(metric_names::PENDING, |all| all.pending as f64);
        show(metric_names::BACKLOG, |all| all.backlog() as f64);
        show(metric_names::OLDEST_PENDING, |all| all.oldest.as_secs_f64());
    }
}

/// Sums entries, and takes the maximum age. `None` while a partition is unknown.
fn sum(mut all: impl Iterator<Item = Option<Measured>>) -> Option<Measured> {
    all.try_fold(Measured::default(), |sum, one| {
        let one = one?;
        Some(Measured {
            length: sum.length.saturating_add(one.length),
            lag: sum.lag.saturating_add(one.lag),
            pending: sum.pending.saturating_add(one.pending),
            oldest: sum.oldest.max(one.oldest),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_sum_entries_and_take_the_maximum_age() {
        let measured =
            |length, lag, pending, oldest| Some(Measured { length, lag, pending, oldest: Duration::from_secs(oldest) });
        let all = sum([measured(10, 4, 2, 7), measured(1, 1, 0, 0)].into_iter()).unwrap();
        assert_eq!((all.length, all.lag, all.pending, all.oldest), (11, 5, 2, Duration::from_secs(7)));
        assert!(sum([measured(10, 4, 2, 7), None].into_iter()).is_none(), "one partition is unknown");
    }
}
