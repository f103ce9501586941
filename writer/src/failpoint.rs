//! Failpoints: places in the commit path where a test can abort the process, to simulate a power
//! loss.
//!
//! Compiled in only with the feature `failpoints`; a released writer has none.

/// Aborts the process if the environment variable `WRITER_FAILPOINT` names this place. `name:N`
/// skips the first N times.
#[cfg(feature = "failpoints")]
pub(crate) fn reach(name: &str) {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::sync::{LazyLock, Mutex, PoisonError};
    static ARMED: LazyLock<Option<(String, AtomicU64)>> = LazyLock::new(|| {
        let armed = std::env::var("WRITER_FAILPOINT").ok()?;
        let (name, passes) = armed.split_once(':').unwrap_or((&armed, "0"));
        Some((name.to_owned(), AtomicU64::new(passes.parse().unwrap_or(0))))
    });
    // Serialize the threads, so that the count is exact.
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((armed, passes)) = &*ARMED
        && armed == name
    {
        match passes.load(Ordering::Relaxed) {
            0 => std::process::abort(),
            left => passes.store(left.saturating_sub(1), Ordering::Relaxed),
        }
    }
}

/// Does nothing: this build has no failpoints.
#[cfg(not(feature = "failpoints"))]
pub(crate) const fn reach(_name: &str) {}
