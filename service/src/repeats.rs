//! One fault, a few lines, also when each of many sources has it.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// This many sources have a line each.
const LINES: u64 = 5;
/// After this time the others are summed up in one line, and sources have lines again.
const WINDOW: Duration = Duration::from_secs(10);

static FAULTS: Mutex<Vec<Repeated>> = Mutex::new(Vec::new());

/// A fault that one source after the other has.
#[derive(Debug)]
struct Repeated {
    fault: &'static str,
    since: Instant,
    sources: u64,
}

/// Whether one of many sources may log this fault at its level. The others are counted, and logged
/// as one line.
#[must_use]
pub fn may_log(fault: &'static str) -> bool {
    count(&mut FAULTS.lock().unwrap_or_else(PoisonError::into_inner), fault, Instant::now())
}

fn count(faults: &mut Vec<Repeated>, fault: &'static str, now: Instant) -> bool {
    match faults.iter_mut().find(|known| known.fault == fault) {
        Some(known) => {
            known.sources = known.sources.saturating_add(1);
            known.sources <= LINES
        }
        None => {
            faults.push(Repeated { fault, since: now, sources: 1 });
            true
        }
    }
}

/// Logs how many more sources had a fault. Called periodically.
pub(crate) fn log() {
    let ended = ended(&mut FAULTS.lock().unwrap_or_else(PoisonError::into_inner), Instant::now());
    for (fault, more) in ended {
        log::warn!("{more} more sources: {fault}; --verbose lists them");
    }
}

/// The faults whose time is over, and how many sources had no line.
fn ended(faults: &mut Vec<Repeated>, now: Instant) -> Vec<(&'static str, u64)> {
    let ended = faults.extract_if(.., |known| now.saturating_duration_since(known.since) >= WINDOW);
    let more = ended.map(|known| (known.fault, known.sources.saturating_sub(LINES)));
    more.filter(|(_, more)| *more > 0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_of_many_sources_has_a_few_lines() {
        let (mut faults, now) = (Vec::new(), Instant::now());
        let lines = (0..100).filter(|_| count(&mut faults, "lost", now)).count();
        assert_eq!(lines as u64, LINES);
        assert!(count(&mut faults, "another", now));
        assert_eq!(ended(&mut faults, now), []);
        assert_eq!(ended(&mut faults, now + WINDOW), [("lost", 100 - LINES)]);
        assert!(count(&mut faults, "lost", now + WINDOW), "a new window begins");
    }
}
