//! Delays between attempts. Clients, consumers and subscriptions keep one per connection.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// The delay between attempts: exponential with full jitter, so that many clients do not retry at
/// the same time.
///
/// It has no clock: it only computes the next delay.
///
/// ```
/// use std::time::Duration;
/// use resp::Backoff;
///
/// let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(5));
/// for _ in 0..100 {
///     assert!(backoff.next_delay() <= Duration::from_secs(5));
/// }
/// backoff.reset(); // it worked
/// assert!(backoff.next_delay() <= Duration::from_millis(50));
/// ```
#[derive(Clone, Debug)]
pub struct Backoff {
    min: Duration,
    max: Duration,
    /// The upper bound of the next delay.
    ceiling: Duration,
    random: u64,
}

impl Backoff {
    /// The first delay is at most `min`; the bound doubles with each one up to `max`.
    #[must_use]
    pub fn new(min: Duration, max: Duration) -> Self {
        Self::with_seed(min, max, RandomState::new().hash_one(0))
    }

    /// As [`new`](Self::new), with a fixed seed that gives the same delays every time, for tests.
    #[must_use]
    pub fn with_seed(min: Duration, max: Duration, seed: u64) -> Self {
        let min = min.min(max);
        Self { min, max, ceiling: min, random: seed | 1 }
    }

    /// Returns the next delay: between half a millisecond and the current bound, but never above
    /// the bound.
    #[expect(clippy::as_conversions, clippy::cast_precision_loss, reason = "53 bits fit in an f64")]
    pub fn next_delay(&mut self) -> Duration {
        let ceiling = self.ceiling;
        self.ceiling = ceiling.saturating_mul(2).clamp(self.min, self.max);
        // xorshift64 spreads clients well enough.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let part = (self.random >> 11) as f64 / (1u64 << 53) as f64;
        ceiling.mul_f64(part).max(Duration::from_micros(500).min(ceiling))
    }

    /// Resets the bound to the minimum, after a successful attempt.
    pub fn reset(&mut self) {
        self.ceiling = self.min;
    }
}

/// 50 ms to 5 s.
impl Default for Backoff {
    fn default() -> Self {
        Self::new(Duration::from_millis(50), Duration::from_secs(5))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_to_the_maximum_and_spreads() {
        let (min, max) = (Duration::from_millis(10), Duration::from_millis(1000));
        let mut backoff = Backoff::with_seed(min, max, 7);
        let mut bound = min;
        let mut delays = Vec::new();
        for _ in 0..200 {
            let delay = backoff.next_delay();
            assert!(delay <= bound, "{delay:?} above {bound:?}");
            bound = (bound * 2).min(max);
            delays.push(delay);
        }
        let late = &delays[20..];
        assert!(late.iter().any(|delay| *delay > max.mul_f64(0.8)));
        assert!(late.iter().any(|delay| *delay < max.mul_f64(0.2)));
    }

    #[test]
    fn extremes_do_not_overflow() {
        let mut backoff = Backoff::with_seed(Duration::MAX, Duration::MAX, 1);
        for _ in 0..10 {
            backoff.next_delay();
        }
        assert_eq!(Backoff::new(Duration::ZERO, Duration::ZERO).next_delay(), Duration::ZERO);
    }
}
