//! Kills, freezes and disconnects all components at random times while a file grows.

use clap::Args;

use crate::child::Child;
use crate::install::Consent;
use crate::interrupt::Interrupt;
use crate::server::{self, REDIS_SERVER};
use crate::{Result, cargo};

#[derive(Args)]
pub(crate) struct ChaosArgs {
    #[command(flatten)]
    consent: Consent,
    /// Duration in minutes
    #[arg(long, value_name = "N", default_value_t = 10.0, value_parser = positive)]
    minutes: f64,

    /// The seed of a round to repeat; each round prints its own
    #[arg(long, env = "SEED")]
    seed: Option<u64>,

    /// Length of a round in seconds; each begins with new files
    #[arg(long, default_value_t = 30.0, value_parser = positive)]
    round: f64,

    /// Use partitions in a Redis Cluster, whose masters fail
    #[arg(long)]
    cluster: bool,

    /// Mirror a tree of N files, which are rotated, compressed, deleted and created
    #[arg(long, conflicts_with = "cluster", num_args = 0..=1, default_missing_value = "1000", value_name = "N")]
    files: Option<usize>,
}

fn positive(text: &str) -> std::result::Result<f64, String> {
    let allowed = || "allowed: a number above 0".to_owned();
    text.parse().ok().filter(|number: &f64| number.is_finite() && *number > 0.0).ok_or_else(allowed)
}

pub(crate) fn run(args: &ChaosArgs) -> Result<()> {
    let interrupt = Interrupt::watch()?;
    let server = server::find_or_install(args.consent, &interrupt)?;
    println!("redis-server: {}", server.display());
    println!("building reader and writer (release)");
    let binaries = cargo::build(true, &interrupt)?;
    let mut command = cargo::command(&["run", "--quiet", "--release", "--package", "e2e", "--bin", "chaos", "--"])?;
    command.env(REDIS_SERVER, &server).env("READER_BIN", &binaries.reader).env("WRITER_BIN", &binaries.writer);
    command.arg("--minutes").arg(args.minutes.to_string()).arg("--round").arg(args.round.to_string());
    if args.cluster {
        command.arg("--cluster");
    }
    if let Some(files) = args.files {
        command.arg("--files").arg(files.to_string());
    }
    match args.seed {
        Some(seed) => command.arg("--seed").arg(seed.to_string()),
        None => command.env_remove("SEED"),
    };
    Child::spawn("chaos", &mut command)?.must_succeed(&interrupt)
}
