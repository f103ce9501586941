//! Flags and environment.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Parser, Subcommand};

use crate::ask::Seed;
use crate::view::{self, SLOTS};

/// Makes a Redis Cluster of its nodes, and repairs it when their addresses or volumes change.
#[derive(Debug, Parser)]
#[command(name = "reconciler", version, subcommand_negates_reqs = true, args_conflicts_with_subcommands = true)]
pub(crate) struct Args {
    /// All nodes of the cluster, as HOST:PORT; the masters of a new cluster come first
    #[arg(long, env, required = true, value_name = "NODES", value_parser = nodes)]
    pub(crate) nodes: Option<Nodes>,

    /// The slots of a new cluster: a range for each of its masters
    #[arg(long, env, value_name = "RANGES", default_value = "0-5460 5461-10922 10923-16383", value_parser = ranges)]
    pub(crate) slots: Ranges,

    /// How many masters there are to be; all other nodes are replicas
    #[arg(long, env, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) masters: u16,

    /// The nodes' password
    #[arg(long, env, value_name = "PASSWORD", hide_env_values = true)]
    pub(crate) redis_password: Option<String>,

    /// Connects by TLS; the file has the certificate of the authority that signed the nodes'
    #[arg(long, env, value_name = "FILE")]
    pub(crate) redis_ca: Option<PathBuf>,

    /// With `--redis-ca`: the name in the nodes' certificates, if it is not each node's own host
    #[arg(long, env, value_name = "NAME", requires = "redis_ca")]
    pub(crate) redis_server_name: Option<String>,

    /// How many seconds Redis has to replace a master whose volume is lost, before its replica
    /// takes over
    #[arg(long, env, value_name = "SECONDS", default_value = "60", value_parser = seconds)]
    pub(crate) takeover_after: Duration,

    /// The same for a master that does not answer and may come back with its volume
    #[arg(long, env, value_name = "SECONDS", default_value = "300", value_parser = seconds)]
    pub(crate) absent_after: Duration,

    /// How many seconds the cluster must have been complete before replicas move off their master's
    /// machine
    #[arg(long, env, value_name = "SECONDS", default_value = "60", value_parser = seconds)]
    pub(crate) spread_after: Duration,

    /// How many seconds lie between two rounds
    #[arg(long, env, value_name = "SECONDS", default_value = "5", value_parser = seconds)]
    pub(crate) interval: Duration,

    /// Rounds until the cluster is complete, then exit
    #[arg(long, env, action = ArgAction::SetTrue)]
    pub(crate) once: bool,

    /// A folder for the files that the probes look at
    #[arg(long, env, global = true, value_name = "FOLDER", default_value = "/run/reconciler")]
    pub(crate) state: PathBuf,

    /// Instead of rounds.
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

/// Instead of rounds.
#[derive(Debug, Clone, Copy, Subcommand)]
pub(crate) enum Command {
    /// Exit 0 when a reconciler has finished a round within the last three minutes
    Alive,
    /// Exit 0 while the cluster is complete: all nodes answer, and all slots and replicas are there
    Complete,
}

/// All nodes.
#[derive(Debug, Clone)]
pub(crate) struct Nodes(pub(crate) Vec<Seed>);

/// Ranges of slots.
#[derive(Debug, Clone)]
pub(crate) struct Ranges(pub(crate) Vec<RangeInclusive<u16>>);

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split([' ', ',', '\n']).filter(|word| !word.is_empty())
}

fn nodes(text: &str) -> Result<Nodes, String> {
    let seed = |word: &str| {
        Seed::parse(word).ok_or_else(|| format!("{word:?} is no node; allowed: HOST:PORT, separated by spaces"))
    };
    let seeds = words(text).map(seed).collect::<Result<Vec<_>, _>>()?;
    if seeds.is_empty() { Err("allowed: HOST:PORT of at least one node".to_owned()) } else { Ok(Nodes(seeds)) }
}

fn ranges(text: &str) -> Result<Ranges, String> {
    let ranges: Option<Vec<_>> = words(text).map(view::range).collect();
    let ranges = ranges.ok_or_else(|| "allowed: ranges such as 0-5460, separated by spaces".to_owned())?;
    let mut next = 0;
    for range in &ranges {
        if usize::from(*range.start()) != next {
            return Err(format!(
                "{}-{} does not begin at {next}; allowed: ranges that cover 0 to 16383 in order",
                range.start(),
                range.end()
            ));
        }
        next = usize::from(*range.end()) + 1;
    }
    if next == SLOTS {
        Ok(Ranges(ranges))
    } else {
        Err(format!("the ranges end before {next}; allowed: ranges that cover 0 to 16383 in order"))
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    text.parse()
        .ok()
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .ok_or_else(|| "allowed: a number of seconds".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flags_are_consistent() {
        use clap::CommandFactory as _;
        Args::command().debug_assert();
    }

    #[test]
    fn ranges_cover_all_slots_in_order() {
        assert_eq!(ranges("0-5700 5701-16383").unwrap().0, [0..=5700, 5701..=16383]);
        for wrong in ["", "0-5700", "1-16383", "0-5 5-16383", "0-16383 0-5", "x"] {
            assert!(ranges(wrong).is_err(), "{wrong}");
        }
        assert_eq!(nodes("a:1 b:2,\nc:3").unwrap().0.len(), 3);
        assert!(nodes(" ").is_err() && nodes("a").is_err());
        assert!(seconds("1.5").is_ok() && seconds("-1").is_err() && seconds("x").is_err());
    }
}
