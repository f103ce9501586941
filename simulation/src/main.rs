//! Runs many seeds of the simulation, or a single one with its log of events. `cargo xtask
//! simulate` builds it in release mode and runs it.

use simulation::story::Story;
use simulation::sweep::{Run, Sweep, run_one};
use std::process::ExitCode;

const USAGE: &str =
    "usage: simulation [--many] [--seeds N] [--first N] [--seed N] [--keep-going] [--all] [--except FILE] [--without KINDS]
  --many         the world of many files
  --seeds N      how many seeds to run (10,000)
  --first N      the first of them (0)
  --seed N       run this one alone, and tell its story
  --keep-going   do not end with the first failure
  --all          show every failure, not only 20
  --except FILE  leave out the seeds in this file: numbers, separated by white space
  --without LIST leave out these kinds of faults: clocks,operates,…";
/// Maximum number of failures that are printed.
const SHOWN: usize = 20;

fn main() -> ExitCode {
    let (mut seeds, mut first, mut seed, mut stop, mut shown) = (10_000, 0, None, true, SHOWN);
    let mut without = Vec::new();
    let (mut run, mut is_many): (Run, bool) = (simulation::run, false);
    let mut except = std::collections::BTreeSet::new();
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        if arg == "--except" {
            let text = args.next().and_then(|path| std::fs::read_to_string(path).ok()).unwrap_or_default();
            except.extend(text.split_whitespace().filter_map(|number| number.parse::<u64>().ok()));
            continue;
        }
        if arg == "--without" {
            without.extend(args.next().unwrap_or_default().split(',').map(str::to_owned));
            continue;
        }
        let mut number = || args.next().and_then(|text| text.replace('_', "").parse().ok());
        let understood = match arg.as_str() {
            "--seeds" => number().map(|n| seeds = n).is_some(),
            "--first" => number().map(|n| first = n).is_some(),
            "--seed" => number().map(|n| seed = Some(n)).is_some(),
            "--many" => {
                (run, is_many) = (simulation::many::run, true);
                true
            }
            "--all" => {
                shown = usize::MAX;
                true
            }
            "--keep-going" => {
                stop = false;
                true
            }
            _ => false,
        };
        if !understood {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    }
    if let Some(seed) = seed {
        return tell(run, seed, &without);
    }
    // Failures are printed with their seeds, so the default panic message is not needed.
    std::panic::set_hook(Box::new(|_| {}));
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let swept = Sweep { first, seeds, threads, stop, except, without, run }.run(|ran, failed| {
        let failed: Vec<u64> = failed.iter().map(|(seed, _)| *seed).collect();
        eprintln!("{ran} seeds, failed: {failed:?}");
    });
    let world = if is_many { " --many" } else { "" };
    for (seed, why) in swept.failed.iter().take(shown) {
        println!("seed {seed} fails:\n{}\n  cargo xtask simulate{world} --seed {seed}\n", why.trim_end());
    }
    let rate = swept.ran as f64 / swept.took.as_secs_f64();
    let (ran, failed, took) = (swept.ran, swept.failed.len(), swept.took.as_secs_f64());
    println!("{ran} seeds in {took:.1} s ({rate:.0} a second): {failed} failed");
    if swept.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn tell(run: Run, seed: u64, without: &[String]) -> ExitCode {
    let story = Story::told();
    let result = run_one(run, seed, without, &story);
    for line in story.lines() {
        println!("{line}");
    }
    match result {
        Ok(()) => {
            println!("seed {seed} passes");
            ExitCode::SUCCESS
        }
        Err(why) => {
            println!("seed {seed} fails:\n{why}");
            ExitCode::FAILURE
        }
    }
}
