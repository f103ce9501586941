//! Runs many seeds on all cores.

use crate::story::Story;
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The seeds to run.
#[derive(Debug, Clone)]
pub struct Sweep {
    /// The first seed.
    pub first: u64,
    /// The number of seeds.
    pub seeds: u64,
    /// The number of threads.
    pub threads: usize,
    /// Stop at the first failure.
    pub stop: bool,
    /// Seeds to skip.
    pub except: BTreeSet<u64>,
    /// Kinds of faults to disable: see [`run`](crate::run).
    pub without: Vec<String>,
    /// The world of the seeds.
    pub run: Run,
}

/// Runs a seed of a world: [`crate::run`], or [`crate::many::run`].
pub type Run = fn(u64, &[String], &Story) -> Result<(), String>;

/// The result of a sweep.
#[derive(Debug, Default)]
pub struct Swept {
    /// The number of seeds that ran.
    pub ran: u64,
    /// The failed seeds in order, with their reasons.
    pub failed: Vec<(u64, String)>,
    /// The duration.
    pub took: Duration,
}

/// Runs one seed. A panic counts as a failure.
///
/// # Errors
/// A description of what is wrong.
pub fn run_one(run: Run, seed: u64, without: &[String], story: &Story) -> Result<(), String> {
    catch_unwind(AssertUnwindSafe(|| run(seed, without, story))).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|&text| text.to_owned()));
        Err(format!("panic: {}", text.unwrap_or_default()))
    })
}

impl Sweep {
    /// Runs the seeds. Calls `progress` periodically with the number of finished seeds, and the
    /// failed ones so far.
    pub fn run(&self, progress: impl Fn(u64, &[(u64, String)]) + Sync) -> Swept {
        const EVERY: Duration = Duration::from_secs(10);
        let begun = Instant::now();
        let (next, ran, ended) = (AtomicU64::new(self.first), AtomicU64::new(0), AtomicBool::new(false));
        let failed = Mutex::new(Vec::new());
        let last = self.first.saturating_add(self.seeds);
        std::thread::scope(|scope| {
            for thread in 0..self.threads.max(1) {
                let (next, ran, ended, failed, progress) = (&next, &ran, &ended, &failed, &progress);
                scope.spawn(move || {
                    let mut told = Instant::now();
                    while !ended.load(Ordering::Relaxed) {
                        let seed = next.fetch_add(1, Ordering::Relaxed);
                        if seed >= last {
                            break;
                        }
                        if self.except.contains(&seed) {
                            continue;
                        }
                        if let Err(why) = run_one(self.run, seed, &self.without, &Story::untold()) {
                            failed.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push((seed, why));
                            ended.store(self.stop, Ordering::Relaxed);
                        }
                        let ran = ran.fetch_add(1, Ordering::Relaxed) + 1;
                        if thread == 0 && told.elapsed() >= EVERY {
                            told = Instant::now();
                            progress(ran, &failed.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
                        }
                    }
                });
            }
        });
        let mut failed = failed.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        failed.sort();
        Swept { ran: ran.into_inner(), failed, took: begun.elapsed() }
    }
}
