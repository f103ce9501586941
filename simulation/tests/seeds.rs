//! A few thousand seeds, as part of the tests. `cargo xtask simulate` runs more.

use simulation::story::Story;
use simulation::sweep::{Sweep, run_one};
use std::collections::BTreeSet;

/// Kinds of faults in which seeds are known to fail. If you fix the last seed of a kind, remove the
/// kind.
const OPEN: [&str; 4] = ["headers", "operates", "partitions", "readers"];

#[test]
fn whatever_happens_every_byte_is_delivered_once_or_reported() {
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let sweep = Sweep {
        first: 0,
        seeds: 2000,
        threads,
        stop: true,
        except: BTreeSet::new(),
        without: OPEN.map(str::to_owned).to_vec(),
        run: simulation::run,
    };
    let swept = sweep.run(|_, _| {});
    if let Some((seed, why)) = swept.failed.first() {
        panic!("seed {seed}: {why}; its story: cargo xtask simulate --seed {seed} --without {}", OPEN.join(","));
    }
}

/// Many files: `cargo xtask simulate --many` runs more.
#[test]
fn whatever_happens_to_many_files_every_line_is_in_one_output_once() {
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let run = simulation::many::run;
    let sweep = Sweep { first: 0, seeds: 300, threads, stop: true, except: BTreeSet::new(), without: Vec::new(), run };
    if let Some((seed, why)) = sweep.run(|_, _| {}).failed.first() {
        panic!("seed {seed}: {why}; its story: cargo xtask simulate --many --seed {seed}");
    }
}

#[test]
fn a_seed_always_has_the_same_story() {
    for seed in 0..20 {
        let told = || {
            let story = Story::told();
            let result = run_one(simulation::run, seed, &[], &story);
            (story.lines(), result)
        };
        assert_eq!(told(), told(), "seed {seed}");
    }
}
