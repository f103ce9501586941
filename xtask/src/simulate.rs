//! Runs the simulation: many seeds, or a single one with its log of events.

use clap::Args;

use crate::child::Child;
use crate::interrupt::Interrupt;
use crate::{Result, cargo};

#[derive(Args)]
pub(crate) struct SimulateArgs {
    /// Number of seeds to run
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    seeds: u64,

    /// The first seed
    #[arg(long, value_name = "N", default_value_t = 0)]
    first: u64,

    /// Run only this seed, and print its log of events
    #[arg(long, value_name = "S", conflicts_with_all = ["seeds", "first"])]
    seed: Option<u64>,

    /// Kinds of faults to disable: clocks,operates,…
    #[arg(long, value_name = "KINDS")]
    without: Option<String>,

    /// The world of many files
    #[arg(long)]
    many: bool,

    /// Continue after a failure
    #[arg(long)]
    keep_going: bool,
}

pub(crate) fn run(args: &SimulateArgs) -> Result<()> {
    let interrupt = Interrupt::watch()?;
    let mut command = cargo::command(&["run", "--quiet", "--release", "--package", "simulation", "--"])?;
    match args.seed {
        Some(seed) => command.arg("--seed").arg(seed.to_string()),
        None => command.arg("--seeds").arg(args.seeds.to_string()).arg("--first").arg(args.first.to_string()),
    };
    if let Some(kinds) = &args.without {
        command.arg("--without").arg(kinds);
    }
    if args.many {
        command.arg("--many");
    }
    if args.keep_going {
        command.arg("--keep-going");
    }
    Child::spawn("simulation", &mut command)?.must_succeed(&interrupt)
}
