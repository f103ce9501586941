//! The trend of the backlog: the slope over the last minute, and the estimated time until it is
//! empty.

use std::time::Duration;

use indicatif::HumanCount;

use crate::history::whole;

/// Length of the regression window, in seconds.
const WINDOW: f64 = 60.0;
/// Time constant of the weights, in seconds: a change of direction shows within a few samples.
const MEMORY: f64 = 15.0;
/// Minimum span of samples for a slope, in seconds.
const SHORTEST: f64 = 3.0;
/// A value that has not moved in the direction of the slope for this many seconds is steady.
const RECENT: f64 = 10.0;
/// A slope below this share of the throughput is noise.
const OF_RATE: f64 = 0.01;
/// A change over the window below this share of the backlog is noise.
const OF_BACKLOG: f64 = 0.01;

/// The trend of the backlog. Slopes are in entries per second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Trend {
    /// Too few samples.
    Unknown,
    /// The backlog is empty.
    Empty,
    /// It shrinks at this rate, and is empty after this many seconds.
    Draining { per_second: f64, seconds: f64 },
    /// It grows at this rate.
    Growing { per_second: f64 },
    /// No significant slope.
    Steady,
}

/// Computes the trend from pairs of time in seconds and backlog, newest last, and the rate of
/// processed entries.
///
/// The slope is that of a weighted regression line over the last minute, in which the newest
/// samples weigh most. A slope within the scatter of the samples counts as steady.
pub(crate) fn trend(samples: impl DoubleEndedIterator<Item = (f64, f64)>, rate: f64) -> Trend {
    let mut newest_first = samples.rev().peekable();
    let Some((now, waiting)) = newest_first.peek().copied().filter(|(_, waiting)| !waiting.is_nan()) else {
        return Trend::Unknown;
    };
    if waiting <= 0.0 {
        return Trend::Empty;
    }
    let recent: Vec<(f64, f64)> =
        newest_first.take_while(|(at, waiting)| now - at <= WINDOW && !waiting.is_nan()).collect();
    let span = recent.last().map_or(0.0, |(at, _)| now - at);
    if span < SHORTEST {
        return Trend::Unknown;
    }
    let weight = |at: f64| ((at - now) / MEMORY).exp();
    let sum = |of: &dyn Fn(f64, f64) -> f64| recent.iter().map(|(at, n)| weight(*at) * of(*at - now, *n)).sum::<f64>();
    let all = sum(&|_, _| 1.0);
    let (mean_at, mean) = (sum(&|at, _| at) / all, sum(&|_, n| n) / all);
    let slope = sum(&|at, n| (at - mean_at) * (n - mean)) / sum(&|at, _| (at - mean_at).powi(2));
    let scatter = (sum(&|at, n| (n - mean - slope * (at - mean_at)).powi(2)) / all).sqrt();
    let change = slope.abs() * span;
    // A step is not a slope: a backlog that does not move now is steady, whatever it was a minute
    // ago.
    let earlier = recent.iter().take_while(|(at, _)| now - at <= RECENT).last().map_or(waiting, |(_, n)| *n);
    if (waiting - earlier) * slope <= 0.0 {
        return Trend::Steady;
    }
    if change < 2.0 * scatter || change < OF_BACKLOG * mean || change < 1.0 || slope.abs() < OF_RATE * rate {
        return Trend::Steady;
    }
    if slope > 0.0 {
        Trend::Growing { per_second: slope }
    } else {
        Trend::Draining { per_second: -slope, seconds: waiting / -slope }
    }
}

impl Trend {
    /// Its name in `/status.json`.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Empty => "empty",
            Self::Draining { .. } => "draining",
            Self::Growing { .. } => "growing",
            Self::Steady => "steady",
        }
    }

    /// Entries per second; negative while it shrinks.
    pub(crate) const fn per_second(self) -> Option<f64> {
        match self {
            Self::Unknown => None,
            Self::Empty | Self::Steady => Some(0.0),
            Self::Draining { per_second, .. } => Some(-per_second),
            Self::Growing { per_second } => Some(per_second),
        }
    }

    /// Estimated time until the backlog is empty.
    pub(crate) const fn seconds_to_drain(self) -> Option<f64> {
        match self {
            Self::Empty => Some(0.0),
            Self::Draining { seconds, .. } => Some(seconds),
            _ => None,
        }
    }

    /// The trend as text.
    pub(crate) fn words(self) -> String {
        match self {
            Self::Unknown => "trend not known yet".to_owned(),
            Self::Empty => "nothing waits".to_owned(),
            Self::Draining { seconds, .. } => format!("empty in about {}", about(seconds)),
            Self::Growing { per_second } => format!("growing by {}/s", HumanCount(whole(per_second).max(1))),
            Self::Steady => "steady".to_owned(),
        }
    }
}

/// Formats an estimated duration in one unit.
pub(crate) fn about(seconds: f64) -> String {
    const UNITS: [(f64, &str); 3] = [(86_400.0, "days"), (3600.0, "h"), (60.0, "min")];
    let seconds = seconds.clamp(1.0, Duration::MAX.as_secs_f64());
    match UNITS.iter().find(|(unit, _)| seconds >= 1.5 * unit) {
        Some((unit, name)) => format!("{} {name}", HumanCount(whole(seconds / unit))),
        None => format!("{} s", whole(seconds)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The trend of a backlog sampled every two seconds for two minutes.
    fn of(backlog: impl Fn(f64) -> f64, rate: f64) -> Trend {
        trend((0..=60).map(|nth| f64::from(nth) * 2.0).map(|at| (at, backlog(at))), rate)
    }

    #[test]
    fn a_shrinking_backlog_has_an_estimated_end() {
        let found = of(|at| 30_000.0 - 100.0 * at, 1000.0);
        let Trend::Draining { per_second, seconds } = found else { panic!("{found:?}") };
        assert!((per_second - 100.0).abs() < 0.01 && (seconds - 180.0).abs() < 0.1, "{found:?}");
        assert_eq!(found.words(), "empty in about 3 min");
        assert_eq!((found.name(), found.seconds_to_drain().map(f64::round)), ("draining", Some(180.0)));
    }

    #[test]
    fn a_growing_backlog_has_a_rate() {
        let found = of(|at| 1200.0 * at, 5000.0);
        assert_eq!(found.words(), "growing by 1,200/s");
        assert_eq!((found.name(), found.seconds_to_drain()), ("growing", None));
        assert_eq!(of(|at| 10.0 + at / 50.0, 0.0).words(), "growing by 1/s");
    }

    #[test]
    fn only_the_last_minute_counts() {
        let found = of(|at| if at < 60.0 { 1e6 * (60.0 - at) } else { 500.0 + 10.0 * (at - 60.0) }, 0.0);
        assert_eq!(found.words(), "growing by 10/s");
    }

    #[test]
    fn a_recent_change_of_direction_is_detected() {
        let found = of(|at| if at < 96.0 { 100.0 * at } else { 9600.0 - 200.0 * (at - 96.0) }, 0.0);
        assert_eq!(found.name(), "draining", "{found:?}");
    }

    #[test]
    fn noise_is_steady() {
        assert_eq!(of(|_| 700.0, 100.0), Trend::Steady);
        let saw = |at: f64| if (at / 2.0) % 2.0 < 1.0 { 4000.0 } else { 100.0 };
        assert_eq!(of(saw, 0.0), Trend::Steady);
        assert_eq!(of(|at| 4000.0 + at, 50_000.0), Trend::Steady, "1 of 50,000 a second");
        assert_eq!(of(|at| 1e6 + at, 0.0), Trend::Steady, "60 of a million in a minute");
    }

    #[test]
    fn a_step_is_steady() {
        assert_eq!(of(|at| if at < 100.0 { 1.0 } else { 700.0 }, 0.0), Trend::Steady);
        assert_eq!(of(|at| if at < 108.0 { 9000.0 } else { 700.0 }, 0.0), Trend::Steady);
    }

    #[test]
    fn an_unknown_backlog_has_no_trend() {
        assert_eq!(of(|at| if at < 119.0 { 1.0 } else { f64::NAN }, 0.0), Trend::Unknown);
        let found = of(|at| if at < 100.0 { f64::NAN } else { 10.0 * at }, 0.0);
        assert_eq!(found.words(), "growing by 10/s", "samples since then");
    }

    #[test]
    fn an_empty_backlog_is_empty_whatever_its_history() {
        assert_eq!(of(|at| 120.0 - at, 1.0), Trend::Empty);
        assert_eq!(Trend::Empty.seconds_to_drain(), Some(0.0));
    }

    #[test]
    fn too_few_samples_have_no_trend() {
        assert_eq!(trend([].into_iter(), 0.0), Trend::Unknown);
        assert_eq!(trend([(0.0, 5.0)].into_iter(), 0.0), Trend::Unknown);
        assert_eq!(trend([(0.0, 5.0), (2.0, 9.0)].into_iter(), 0.0), Trend::Unknown);
        assert_eq!(trend([(7.0, 5.0), (7.0, 9.0)].into_iter(), 0.0), Trend::Unknown, "two samples at one time");
        assert_eq!(Trend::Unknown.per_second(), None);
    }

    #[test]
    fn estimates_have_one_unit() {
        let cases = [
            (0.2, "1 s"),
            (45.4, "45 s"),
            (89.0, "89 s"),
            (90.0, "2 min"),
            (5000.0, "83 min"),
            (7200.0, "2 h"),
            (400_000.0, "5 days"),
            (1e12, "11,574,074 days"),
            (f64::INFINITY, "213,503,982,334,601 days"),
        ];
        for (seconds, text) in cases {
            assert_eq!(about(seconds), text, "{seconds}");
        }
    }
}
