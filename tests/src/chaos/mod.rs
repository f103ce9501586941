//! Random faults of all components at once, followed by a check of the output.

mod cluster;
mod fault;
mod files;
mod source;
mod stage;
mod tree;

use std::fmt;
use std::time::{Duration, Instant};

pub use cluster::{ClusterPlan, run_in_cluster};
pub use files::{FilesPlan, run_with_files};

use crate::redis::Persistence;
use crate::{check, wait};
use fault::Fault;
use stage::Stage;

/// The plan of a round.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// The duration.
    pub time: Duration,
    /// The seed of the random numbers. The times of the faults also depend on the machine.
    pub seed: u64,
    /// The persistence of Redis.
    pub persistence: Persistence,
    /// Whether the reader uses the framing `chunk`.
    pub chunk: bool,
    /// Whether the input is rotated.
    pub rotates: bool,
    /// The number of writers in the group.
    pub writers: usize,
}

impl Plan {
    /// The plan of a seed: consecutive seeds cover all combinations.
    #[must_use]
    pub const fn of_seed(seed: u64, time: Duration) -> Self {
        let persistence = match seed / 8 % 3 {
            0 => Persistence::Everysec,
            1 => Persistence::None,
            _ => Persistence::Always,
        };
        let writers = if seed & 4 == 0 { 1 } else { 3 };
        Self { time, seed, persistence, chunk: seed & 1 == 1, rotates: seed & 2 == 2, writers }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, persistence, chunk, rotates, writers, time } = self;
        write!(
            f,
            "seed {seed}, {:.0} s: append-only file {persistence:?}, framing {}, {}{writers} writer(s)",
            time.as_secs_f64(),
            if *chunk { "chunk" } else { "line" },
            if *rotates { "rotations, " } else { "" }
        )
    }
}

/// Lets a file grow and rotate while reader, writers, Redis and the network fail at random times.
/// Then checks that the output (or the merge of several outputs) equals everything written to the
/// input, that no entry is pending, and that the metrics report no loss. Returns a report.
///
/// # Errors
///
/// What is wrong, and the path of the files.
pub fn run(plan: Plan) -> Result<String, String> {
    let mut rng = fastrand::Rng::with_seed(plan.seed);
    let mut stage = Stage::new(plan);
    let possible: Vec<Fault> = Fault::ALL.into_iter().filter(|fault| plan.rotates || !fault.is_rotation()).collect();
    let counts = strike_at_random(&mut rng, plan.time, &possible, |fault, rng| stage.strike(fault, rng));
    let report = finish(&mut stage, plan)
        .map_err(|wrong| format!("{wrong}\n{plan}, kept: {}\n{}", stage.keep().display(), stage.logs()))?;
    Ok(report + &counts)
}

/// Lets these faults happen at random moments for this long. Returns a line for each with how often
/// it happened.
fn strike_at_random<F: Copy + std::fmt::Debug>(
    rng: &mut fastrand::Rng,
    time: Duration,
    possible: &[F],
    mut strike: impl FnMut(F, &mut fastrand::Rng),
) -> String {
    let mut times = vec![0; possible.len()];
    let begun = Instant::now();
    while begun.elapsed() < time {
        wait::random_moment(rng, 20..700);
        let nth = rng.usize(..possible.len());
        println!("{:7.3} s  {:?}", begun.elapsed().as_secs_f64(), possible[nth]);
        times[nth] += 1;
        strike(possible[nth], rng);
    }
    let lines = possible.iter().zip(&times).map(|(fault, times)| format!("\n{times:6} × {fault:?}"));
    lines.collect()
}

/// Waits until everything is delivered, stops the services, and checks the outputs.
fn finish(stage: &mut Stage, plan: Plan) -> Result<String, String> {
    let lines = stage.source.finish();
    let goal = crate::rig::len(&stage.all);
    wait::progress_to(goal, || stage.written())
        .map_err(|at| format!("the output stopped growing at {at} of {goal} bytes"))?;
    if wait::try_within(wait::SOON, || stage.done().ok()).is_none() {
        stage.done()?;
    }
    stage.check_metrics()?;
    stage.stop();
    let output = if plan.writers == 1 { stage.outputs()[0].clone() } else { stage.merge()? };
    check::identical(&stage.all, &output)?;
    let bytes = std::fs::read(&output).map_err(|error| format!("{}: {error}", output.display()))?;
    check::numbered(&bytes, lines)?;
    Ok(format!("{lines} lines, {goal} bytes: identical"))
}
