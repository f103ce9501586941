//! Waiting for a condition, with a deadline.

use std::time::{Duration, Instant};

/// How long a test waits for something that should happen soon. Generous, as machines may be busy:
/// it is only spent when a test fails.
pub const SOON: Duration = Duration::from_secs(60);

/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(5);

/// Waits until `condition` holds.
///
/// # Panics
///
/// When it does not within [`SOON`]; the text names `what`.
#[track_caller]
pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    within(SOON, what, || condition().then_some(()));
}

/// Waits until `look` finds something.
///
/// # Panics
///
/// When it does not before the deadline; the text names `what`.
#[track_caller]
pub fn within<T>(deadline: Duration, what: &str, look: impl FnMut() -> Option<T>) -> T {
    match try_within(deadline, look) {
        Some(found) => found,
        None => panic!("waited {deadline:?} in vain: {what}"),
    }
}

/// As [`within`], but gives up quietly.
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

/// Waits until the number that `progress` tells has reached `goal`, however long it takes, as long
/// as it changes.
///
/// # Errors
///
/// The number at which it stood still for [`SOON`].
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

/// A pause of random length: the moment at which a fault comes. Never a way to wait for something.
pub fn random_moment(rng: &mut fastrand::Rng, millis: std::ops::Range<u64>) {
    std::thread::sleep(Duration::from_millis(rng.u64(millis)));
}
