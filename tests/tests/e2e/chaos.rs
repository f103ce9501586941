//! A short run of the chaos that `cargo xtask chaos` does for longer.

use std::time::Duration;

use e2e::chaos::{Plan, run};

fn survives(chunk: bool) {
    let seed = e2e::seed();
    match run(Plan { time: Duration::from_secs(15), seed, chunk }) {
        Ok(report) => println!("{report}"),
        Err(wrong) => panic!("{wrong}"),
    }
}

#[test]
fn everything_dies_at_random_moments() {
    survives(false);
}

#[test]
fn everything_dies_at_random_moments_with_chunks() {
    survives(true);
}
