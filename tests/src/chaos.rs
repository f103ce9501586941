//! Random kills of everything, then the check.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use crate::growth::Growth;
use crate::redis::Persistence;
use crate::rig::Rig;
use crate::service::{Launch, Service};
use crate::{check, wait};

/// Bytes a second by which the input grows.
const RATE: f64 = 2_000_000.0;

/// What a run does.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// For how long.
    pub time: Duration,
    /// Where its random numbers begin. The moments of the faults depend on the machine, too.
    pub seed: u64,
    /// Whether the reader packs many lines into an entry.
    pub chunk: bool,
}

/// A fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    ReaderKilled,
    ReaderStopped,
    ReaderFrozen,
    WriterKilled,
    WriterStopped,
    WriterFrozen,
    RedisKilled,
    RedisLosesTail,
    RedisFrozen,
    RedisFlushed,
    BothKilled,
    AllKilled,
}

impl Fault {
    const ALL: [Self; 12] = [
        Self::ReaderKilled,
        Self::ReaderStopped,
        Self::ReaderFrozen,
        Self::WriterKilled,
        Self::WriterStopped,
        Self::WriterFrozen,
        Self::RedisKilled,
        Self::RedisLosesTail,
        Self::RedisFrozen,
        Self::RedisFlushed,
        Self::BothKilled,
        Self::AllKilled,
    ];
}

/// Lets a file grow, and reader, writer and Redis (append-only file, synced every second) die and freeze at random moments; then checks that the
/// output is the input, and that nothing is left pending. A report in words.
///
/// # Errors
///
/// What is wrong, and where the files lie.
pub fn run(plan: Plan) -> Result<String, String> {
    let mut rng = fastrand::Rng::with_seed(plan.seed);
    let mut rig = Rig::with(Persistence::Everysec);
    let reader = rig.reader().set("--framing", if plan.chunk { "chunk" } else { "line" });
    let writer = rig.writer();
    let mut growth = Growth::of_lines(&rig.input, RATE, plan.seed);
    let mut stage = Stage { running: (reader.start(), writer.start()), reader, writer };
    let mut faults = vec![0; Fault::ALL.len()];
    let begun = Instant::now();
    while begun.elapsed() < plan.time {
        wait::random_moment(&mut rng, 20..700);
        let nth = rng.usize(..Fault::ALL.len());
        let fault = Fault::ALL[nth];
        println!("{:7.3} s  {fault:?}", begun.elapsed().as_secs_f64());
        faults[nth] += 1;
        stage.strike(fault, &mut rig, &mut rng);
    }
    let lines = growth.finish();
    let told = finish(&rig, &mut stage, lines).map_err(|wrong| {
        let logs = stage.logs();
        format!("{wrong}\nseed {}, kept: {}\n{logs}", plan.seed, rig.folder.keep().display())
    });
    let mut report = told?;
    for (fault, times) in Fault::ALL.iter().zip(&faults) {
        let _ = write!(report, "\n{times:6} × {fault:?}");
    }
    Ok(report)
}

/// What runs.
struct Stage {
    reader: Launch,
    writer: Launch,
    running: (Service, Service),
}

impl Stage {
    fn strike(&mut self, fault: Fault, rig: &mut Rig, rng: &mut fastrand::Rng) {
        let (reader, writer) = (&mut self.running.0, &mut self.running.1);
        match fault {
            Fault::ReaderKilled | Fault::BothKilled | Fault::AllKilled => reader.kill9(),
            Fault::ReaderStopped => end(reader),
            Fault::WriterKilled => writer.kill9(),
            Fault::WriterStopped => end(writer),
            Fault::ReaderFrozen => reader.freeze(),
            Fault::WriterFrozen => writer.freeze(),
            Fault::RedisKilled | Fault::RedisLosesTail => rig.redis.kill9(),
            Fault::RedisFrozen => rig.redis.freeze(),
            Fault::RedisFlushed => rig.redis.flushall(),
        }
        if matches!(fault, Fault::BothKilled | Fault::AllKilled) {
            writer.kill9();
        }
        if fault == Fault::AllKilled {
            rig.redis.kill9();
        }
        wait::random_moment(rng, 0..800);
        match fault {
            Fault::ReaderFrozen => reader.thaw(),
            Fault::WriterFrozen => writer.thaw(),
            Fault::RedisFrozen => rig.redis.thaw(),
            Fault::RedisKilled | Fault::AllKilled => rig.redis.start_again(),
            Fault::RedisLosesTail => {
                rig.redis.lose_tail(rng.u64(..2_000_000));
                rig.redis.start_again();
            }
            _ => {}
        }
        if matches!(fault, Fault::ReaderKilled | Fault::ReaderStopped | Fault::BothKilled | Fault::AllKilled) {
            *reader = self.reader.start();
        }
        if matches!(fault, Fault::WriterKilled | Fault::WriterStopped | Fault::BothKilled | Fault::AllKilled) {
            *writer = self.writer.start();
        }
    }

    fn logs(&self) -> String {
        let tail = |service: &Service| {
            let log = service.log();
            let lines: Vec<&str> = log.lines().collect();
            lines[lines.len().saturating_sub(20)..].join("\n")
        };
        format!("--- reader\n{}\n--- writer\n{}", tail(&self.running.0), tail(&self.running.1))
    }
}

/// SIGTERM. A service that does not end is a finding.
fn end(service: &mut Service) {
    service.stop();
}

/// Waits until everything is delivered, ends the services, and checks.
fn finish(rig: &Rig, stage: &mut Stage, lines: u64) -> Result<String, String> {
    let goal = crate::rig::len(&rig.input);
    wait::progress_to(goal, || crate::rig::len(&rig.output))
        .map_err(|at| format!("the output stands still at {at} of {goal} bytes"))?;
    let acknowledged = || (rig.pending() == 0).then_some(());
    wait::try_within(wait::SOON, acknowledged).ok_or("entries stay pending although the output is complete")?;
    stage.running.0.stop();
    stage.running.1.stop();
    check::identical(&rig.input, &rig.output)?;
    check::numbered(&rig.output_bytes(), lines)?;
    Ok(format!("{lines} lines, {goal} bytes: identical"))
}
