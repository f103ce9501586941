//! `chaos --minutes N --seed S`: rounds of random faults while a file grows. Each round ends with a
//! comparison of output and input.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use e2e::chaos::{self, ClusterPlan, FilesPlan, Plan};

/// Injects random faults into reader, writers, Redis and the network while a file grows; then the
/// output must equal the input
#[derive(Debug, Parser)]
struct Args {
    /// Duration in minutes
    #[arg(long, default_value_t = 10.0)]
    minutes: f64,

    /// Repeats the run with this seed; further rounds use the following seeds
    #[arg(long, env = "SEED")]
    seed: Option<u64>,

    /// Length of a round in seconds; each round begins with new files
    #[arg(long, default_value_t = 30.0)]
    round: f64,

    /// Run partitions in a Redis Cluster whose masters fail
    #[arg(long)]
    cluster: bool,

    /// Mirror a tree of this many files, which are rotated, compressed, deleted and created
    #[arg(long, conflicts_with = "cluster", num_args = 0..=1, default_missing_value = "1000", value_name = "N")]
    files: Option<usize>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let first = args.seed.unwrap_or_else(|| fastrand::u64(..1 << 32));
    let end = Instant::now() + Duration::from_secs_f64(args.minutes * 60.0);
    let mut seed = first;
    while Instant::now() < end || seed == first {
        let time = Duration::from_secs_f64(args.round).min(end.saturating_duration_since(Instant::now()));
        match round(&args, seed, time) {
            Ok(report) => println!("{report}"),
            Err(wrong) => {
                let mode = match args.files {
                    Some(files) => format!(" --files {files}"),
                    None if args.cluster => " --cluster".to_owned(),
                    None => String::new(),
                };
                println!("{wrong}\nagain: SEED={seed} cargo xtask chaos{mode}");
                return ExitCode::FAILURE;
            }
        }
        seed += 1;
    }
    ExitCode::SUCCESS
}

fn round(args: &Args, seed: u64, time: Duration) -> Result<String, String> {
    if let Some(files) = args.files {
        let plan = FilesPlan::of_seed(seed, time, files);
        println!("{plan}");
        return chaos::run_with_files(plan);
    }
    if args.cluster {
        let plan = ClusterPlan::of_seed(seed, time);
        println!("{plan}");
        return chaos::run_in_cluster(plan)?.ok_or_else(|| "the server is too old".to_owned());
    }
    let plan = Plan::of_seed(seed, time);
    println!("{plan}");
    chaos::run(plan)
}
