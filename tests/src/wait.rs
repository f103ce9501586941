//! Waiting for a condition, with a deadline.

use std::time::{Duration, Instant};

/// How long a test waits for something that should happen soon. Generous for busy machines, because
/// only a failing test waits that long.
pub const SOON: Duration = Duration::from_secs(60);

/// How often a condition is checked.
const POLL: Duration = Duration::from_millis(5);

/// Waits until `condition` holds.
///
/// # Panics
///
/// If it does not hold within [`SOON`]; the message contains `what`.
#[track_caller]
pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    within(SOON, what, || condition().then_some(()));
}

/// Waits until `look` returns a value.
///
/// # Panics
///
/// If there is no value before the deadline; the message contains `what`.
#[track_caller]
pub fn within<T>(deadline: Duration, what: &str, look: impl FnMut() -> Option<T>) -> T {
    match try_within(deadline, look) {
        Some(found) => found,
        None => panic!("waited {deadline:?} in vain: {what}"),
    }
}

/// As [`within`], but returns `None` on timeout.
pub fn try_within<T>(deadline: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if begun.elapsed() > deadline {
            return None;
        }
        std::thread::sleep(POLL);
    }
}

/// Waits until `progress` returns at least `goal`, as long as the number changes.
///
/// # Errors
///
/// The number that did not change for [`SOON`].
pub fn progress_to(goal: u64, mut progress: impl FnMut() -> u64) -> Result<(), u64> {
    let mut last = progress();
    let mut changed = Instant::now();
    while last < goal {
        if changed.elapsed() > SOON {
            return Err(last);
        }
        std::thread::sleep(POLL);
        let now = progress();
        if now != last {
            last = now;
            changed = Instant::now();
        }
    }
    Ok(())
}

/// Sleeps for a random duration before a fault. Do not use it to wait for a condition.
pub fn random_moment(rng: &mut fastrand::Rng, millis: std::ops::Range<u64>) {
    std::thread::sleep(Duration::from_millis(rng.u64(millis)));
}
