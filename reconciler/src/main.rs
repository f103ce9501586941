//! `reconciler`: makes a Redis Cluster of nodes whose addresses change, and repairs it.
//!
//! Every few seconds it asks every node what it knows, decides what is missing, and sends the
//! commands. In a complete cluster it does nothing, and the cluster works without it.
//!
//! # Layout
//!
//! | file | what it is |
//! |---|---|
//! | `args.rs` | flags and environment |
//! | `ask.rs` | asking the nodes, and sending them commands |
//! | `view.rs` | what a node reports |
//! | `plan.rs` | what is to be done: a pure function of the reports and the time |
//! | `model.rs` | tests: a model of the nodes, and random faults |

mod args;
mod ask;
#[cfg(test)]
mod model;
mod plan;
mod view;

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use args::{Args, Command};
use ask::Nodes;
use clap::Parser as _;
use log::info;
use plan::{Goal, Planner};
use resp::TlsConfig;
use tokio::signal::unix::{SignalKind, signal};

/// How old the last round may be for `reconciler alive`.
const ALIVE: Duration = Duration::from_secs(180);

fn main() -> ExitCode {
    let args = Args::parse();
    match args.command {
        Some(Command::Alive) => return verdict(is_recent(&args.state.join("alive"))),
        Some(Command::Complete) => return verdict(args.state.join("complete").exists()),
        None => {}
    }
    let log = env_logger::Env::default().default_filter_or("info");
    env_logger::Builder::from_env(log).format_target(false).init();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime.map_err(|error| error.to_string()).and_then(|runtime| runtime.block_on(run(&args))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            let _ = writeln!(std::io::stderr(), "reconciler: {why}");
            ExitCode::FAILURE
        }
    }
}

const fn verdict(holds: bool) -> ExitCode {
    if holds { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn is_recent(file: &Path) -> bool {
    let age = file.metadata().and_then(|metadata| metadata.modified()).map(|time| time.elapsed());
    // One that is newer than the clock says is recent.
    age.is_ok_and(|age| age.map_or(true, |age| age < ALIVE))
}

/// Rounds until a signal, or with `--once` until the cluster is complete.
async fn run(args: &Args) -> Result<(), String> {
    let mut terminate = signal(SignalKind::terminate()).map_err(|error| error.to_string())?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| error.to_string())?;
    tokio::select! {
        done = rounds(args) => done,
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    }
}

async fn rounds(args: &Args) -> Result<(), String> {
    let seeds = args.nodes.as_ref().map(|nodes| nodes.0.as_slice()).unwrap_or_default();
    let password = args.redis_password.as_deref().filter(|password| !password.is_empty());
    let tls = args.redis_ca.as_ref().map(|file| {
        let tls = TlsConfig::default().ca(file);
        args.redis_server_name.iter().fold(tls, TlsConfig::server_name)
    });
    if let Some(tls) = &tls {
        tls.check().map_err(|error| format!("--redis-ca: {error}; allowed: a file with certificates in PEM"))?;
    }
    let nodes = Nodes::new(seeds, password, tls.as_ref());
    let mut planner = Planner::new(Goal {
        masters: usize::from(args.masters),
        slots: args.slots.0.clone(),
        takeover_after: args.takeover_after,
        absent_after: args.absent_after,
        spread_after: args.spread_after,
    });
    let begun = Instant::now();
    let mut reported = None;
    loop {
        let round = planner.round(&nodes.views().await, begun.elapsed());
        let mut lines = round.waits.clone();
        for act in &round.acts {
            lines.push(nodes.perform(act).await);
        }
        if round.is_complete() {
            lines.push("the cluster is complete".to_owned());
        }
        // A state that lasts is logged once.
        if reported.as_ref() != Some(&lines) {
            lines.iter().for_each(|line| info!("{line}"));
            reported = Some(lines);
        }
        record(&args.state, round.is_complete())?;
        if args.once && round.is_complete() {
            return Ok(());
        }
        tokio::time::sleep(args.interval).await;
    }
}

/// The state that the probes report.
fn record(state: &Path, is_complete: bool) -> Result<(), String> {
    let complete = state.join("complete");
    let done = std::fs::write(state.join("alive"), "").and_then(|()| {
        if is_complete {
            return std::fs::write(&complete, "");
        }
        match std::fs::remove_file(&complete) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    });
    done.map_err(|error| format!("--state {}: {error}; allowed: a folder that can be written", state.display()))
}
