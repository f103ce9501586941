//! Random faults of everything at once, then the check.

mod cluster;
mod fault;
mod source;
mod stage;

use std::fmt;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

pub use cluster::{ClusterPlan, run_in_cluster};

use crate::redis::Persistence;
use crate::{check, wait};
use fault::Fault;
use stage::Stage;

/// What a round does.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// For how long.
    pub time: Duration,
    /// Where its random numbers begin. The moments of the faults depend on the machine, too.
    pub seed: u64,
    /// What Redis keeps.
    pub persistence: Persistence,
    /// Whether the reader packs many lines into an entry.
    pub chunk: bool,
    /// Whether the input is rotated.
    pub rotates: bool,
    /// How many writers share the group.
    pub writers: usize,
}

impl Plan {
    /// The plan of a seed: seeds that follow each other go through all kinds of rounds.
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

/// Lets a file grow and rotate while reader, writers, Redis and the network fail at random moments;
/// then checks that the output (of several writers: the merged one) is what was written to the
/// input, that nothing is left pending, and that the metrics tell of no loss. A report in words.
///
/// # Errors
///
/// What is wrong, and where the files lie.
pub fn run(plan: Plan) -> Result<String, String> {
    let mut rng = fastrand::Rng::with_seed(plan.seed);
    let mut stage = Stage::new(plan);
    let possible: Vec<Fault> = Fault::ALL.into_iter().filter(|fault| plan.rotates || !fault.is_rotation()).collect();
    let mut times = vec![0; possible.len()];
    let begun = Instant::now();
    while begun.elapsed() < plan.time {
        wait::random_moment(&mut rng, 20..700);
        let nth = rng.usize(..possible.len());
        println!("{:7.3} s  {:?}", begun.elapsed().as_secs_f64(), possible[nth]);
        times[nth] += 1;
        stage.strike(possible[nth], &mut rng);
    }
    let told = finish(&mut stage, plan);
    let mut report =
        told.map_err(|wrong| format!("{wrong}\n{plan}, kept: {}\n{}", stage.keep().display(), stage.logs()))?;
    for (fault, times) in possible.iter().zip(&times) {
        let _ = write!(report, "\n{times:6} × {fault:?}");
    }
    Ok(report)
}

/// Waits until everything is delivered, ends the services, and checks.
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
