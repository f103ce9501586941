//! Faults of a whole Redis Cluster, while lines flow through several partitions.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::source::Source;
use super::stage::{RATE, logs, merge, none};
use crate::client::Value;
use crate::cluster::Cluster;
use crate::rig::{self, Rig, STREAM};
use crate::service::{Launch, Service};
use crate::{check, wait};

/// Enough that every master has at least one.
const PARTITIONS: usize = 6;

/// The plan of a round in a cluster.
#[derive(Debug, Clone, Copy)]
pub struct ClusterPlan {
    /// The duration.
    pub time: Duration,
    /// The seed of the random numbers. The times of the faults also depend on the machine.
    pub seed: u64,
    /// Whether the reader uses the framing `chunk`.
    pub chunk: bool,
    /// Whether the input is rotated.
    pub rotates: bool,
    /// Whether each partition has its own writer.
    pub each: bool,
}

impl ClusterPlan {
    /// The plan of a seed: consecutive seeds cover all combinations.
    #[must_use]
    pub const fn of_seed(seed: u64, time: Duration) -> Self {
        Self { time, seed, chunk: seed & 4 == 4, rotates: seed & 2 == 2, each: seed & 1 == 0 }
    }
}

impl fmt::Display for ClusterPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, chunk, rotates, each, time } = self;
        write!(
            f,
            "seed {seed}, {:.0} s: a cluster, framing {}, {}{PARTITIONS} partitions, {}",
            time.as_secs_f64(),
            if *chunk { "chunk" } else { "line" },
            if *rotates { "rotations, " } else { "" },
            if *each { "a writer for each" } else { "one writer" }
        )
    }
}

/// A fault. Unless documented otherwise, the next fault comes when the cluster has recovered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    MasterKilled,
    /// A master is lost after its replica was disconnected for a while, so acknowledged entries are
    /// lost.
    MasterLost,
    MasterFrozen,
    /// A master hangs for a moment; its replica is not promoted.
    MasterHeldUp,
    /// A master is lost with its replica, and all data of both.
    PairLost,
    SlotMoved,
    ReaderKilled,
    ReaderStopped,
    WriterKilled,
    WriterStopped,
    Renamed,
    CopiedAndTruncated,
}

impl Fault {
    const ALL: [Self; 12] = [
        Self::MasterKilled,
        Self::MasterLost,
        Self::MasterFrozen,
        Self::MasterHeldUp,
        Self::PairLost,
        Self::SlotMoved,
        Self::ReaderKilled,
        Self::ReaderStopped,
        Self::WriterKilled,
        Self::WriterStopped,
        Self::Renamed,
        Self::CopiedAndTruncated,
    ];

    const fn is_rotation(self) -> bool {
        matches!(self, Self::Renamed | Self::CopiedAndTruncated)
    }

    const fn is_of_servers(self) -> bool {
        matches!(self, Self::MasterKilled | Self::MasterLost | Self::MasterFrozen | Self::MasterHeldUp | Self::PairLost)
    }
}

/// As [`run`](super::run), for partitions in a cluster. `None`: the server is too old.
///
/// # Errors
///
/// What is wrong, and the path of the files.
pub fn run_in_cluster(plan: ClusterPlan) -> Result<Option<String>, String> {
    let mut rng = fastrand::Rng::with_seed(plan.seed);
    let Some(mut stage) = Stage::new(plan) else { return Ok(None) };
    let possible: Vec<Fault> = Fault::ALL.into_iter().filter(|fault| plan.rotates || !fault.is_rotation()).collect();
    let counts = super::strike_at_random(&mut rng, plan.time, &possible, |fault, rng| stage.strike(fault, rng));
    let report = stage
        .finish()
        .map_err(|wrong| format!("{wrong}\n{plan}, kept: {}\n{}", stage.rig.folder.keep().display(), stage.logs()))?;
    Ok(Some(report + &counts))
}

struct Stage {
    // In drop order.
    reader: (Service, Launch),
    writers: Vec<(Service, Launch)>,
    outputs: Vec<PathBuf>,
    source: Source,
    /// All bytes ever written to the input.
    all: PathBuf,
    cluster: Cluster,
    rig: Rig,
}

impl Stage {
    fn new(plan: ClusterPlan) -> Option<Self> {
        let rig = Rig::new();
        let cluster = Cluster::start(&rig.folder.join("cluster"))?;
        cluster.serve_in_part();
        let (url, count) = (cluster.url(), PARTITIONS.to_string());
        let start = |launch: Launch| (launch.start(), launch);
        let reader = rig.reader().set("--framing", if plan.chunk { "chunk" } else { "line" });
        let reader = start(reader.set("--redis-url", &url).set("--partitions", &count));
        let writer = rig.writer().set("--redis-url", &url).set("--partitions", &count);
        let (mut writers, mut outputs) = (Vec::new(), Vec::new());
        for nth in 0..if plan.each { PARTITIONS } else { 1 } {
            let output = rig.folder.join(&format!("out/output-{nth}.txt"));
            let writer = writer.clone().set("--consumer", nth.to_string()).set("--output", &output);
            writers.push(start(if plan.each { writer.set("--partition", nth.to_string()) } else { writer }));
            outputs.push(output);
        }
        let all = rig.folder.join("all");
        let source = Source::start(&rig.input, &all, RATE, plan.seed);
        let (mut reader, again) = reader;
        // What is rotated away before a partition has seen it is only reported.
        for partition in 0..PARTITIONS {
            reader.wait_for_log(&[&stream(partition), "begins at byte 0"]);
        }
        let reader = (reader, again);
        Some(Self { reader, writers, outputs, source, all, cluster, rig })
    }

    /// Injects a fault, and ends it.
    fn strike(&mut self, fault: Fault, rng: &mut fastrand::Rng) {
        let Self { reader, writers, source, cluster, .. } = self;
        let masters = cluster.masters();
        let master = masters[rng.usize(..masters.len())];
        let replica = cluster.partner(master);
        let nth = rng.usize(..writers.len());
        let (writer, writer_again) = &mut writers[nth];
        match fault {
            Fault::MasterKilled | Fault::MasterLost => {
                if fault == Fault::MasterLost {
                    // Allow the replica to be promoted however old its data is.
                    cluster.servers[replica].config_set("cluster-replica-validity-factor", "0");
                    cluster.servers[replica].freeze();
                    // Replies on their way to the replica must not arrive after the thaw.
                    cluster.servers[master].call(&["CLIENT", "KILL", "TYPE", "REPLICA"]);
                    wait::random_moment(rng, 0..800);
                }
                cluster.servers[master].kill9();
                if fault == Fault::MasterLost {
                    cluster.servers[replica].thaw();
                }
                cluster.wait_replaced(master);
                wait::random_moment(rng, 0..500);
                cluster.servers[master].start_again();
            }
            Fault::MasterFrozen => {
                cluster.servers[master].freeze();
                cluster.wait_replaced(master);
                wait::random_moment(rng, 0..1000);
                cluster.servers[master].thaw();
            }
            Fault::MasterHeldUp => {
                cluster.servers[master].freeze();
                wait::random_moment(rng, 0..800);
                cluster.servers[master].thaw();
            }
            Fault::PairLost => {
                cluster.servers[replica].kill9();
                cluster.servers[master].kill9();
                wait::random_moment(rng, 0..500);
                cluster.servers[master].start_again();
                cluster.servers[replica].start_again();
            }
            Fault::SlotMoved => {
                let key = match rng.usize(..=PARTITIONS) {
                    PARTITIONS => STREAM.to_owned(),
                    nth => stream(nth),
                };
                let (slot, from) = (cluster.slot(&key), cluster.owner(&key));
                let others: Vec<usize> = masters.into_iter().filter(|&other| other != from).collect();
                let to = others[rng.usize(..others.len())];
                cluster.begin_move(&slot, from, to);
                wait::random_moment(rng, 0..300);
                if rng.bool() {
                    cluster.move_key(key.as_bytes(), from, to);
                    wait::random_moment(rng, 0..300);
                }
                cluster.finish_move(&slot, from, to);
            }
            Fault::ReaderKilled | Fault::ReaderStopped => {
                let (reader, again) = reader;
                if fault == Fault::ReaderKilled {
                    reader.kill9();
                } else {
                    reader.stop();
                }
                wait::random_moment(rng, 0..500);
                *reader = again.start();
            }
            Fault::WriterKilled | Fault::WriterStopped => {
                if fault == Fault::WriterKilled {
                    writer.kill9();
                } else {
                    writer.stop();
                }
                wait::random_moment(rng, 0..500);
                *writer = writer_again.start();
            }
            Fault::Renamed => source.rename(),
            Fault::CopiedAndTruncated => source.copy_and_truncate(),
        }
        // Half of the time, services fail while the cluster is still recovering.
        if fault.is_of_servers() {
            if rng.bool() {
                let (service, again) = if rng.bool() { (&mut reader.0, &reader.1) } else { (writer, &*writer_again) };
                service.kill9();
                *service = again.start();
            }
            cluster.wait_complete();
        }
    }

    /// Waits until everything is delivered, stops the services, and checks the outputs.
    fn finish(&mut self) -> Result<String, String> {
        let lines = self.source.finish();
        let goal = rig::len(&self.all);
        wait::progress_to(goal, || self.outputs.iter().map(|output| rig::len(output)).sum())
            .map_err(|at| format!("the outputs stand still at {at} of {goal} bytes"))?;
        if wait::try_within(wait::SOON, || self.done().ok()).is_none() {
            self.done()?;
        }
        for (writer, _) in &mut self.writers {
            none(writer, "writer_gap_bytes_total")?;
        }
        for name in ["reader_unreadable_bytes_total", "reader_unreadable_contents_total"] {
            none(&mut self.reader.0, name)?;
        }
        self.reader.0.stop();
        self.writers.iter_mut().for_each(|(writer, _)| writer.stop());
        let merged = merge(&self.rig, &self.outputs)?;
        check::identical(&self.all, &merged)?;
        let bytes = std::fs::read(&merged).map_err(|error| format!("{}: {error}", merged.display()))?;
        check::numbered(&bytes, lines)?;
        Ok(format!("{lines} lines, {goal} bytes: identical"))
    }

    /// Whether the reader has sent everything, and the group has acknowledged everything.
    ///
    /// # Errors
    ///
    /// What is missing.
    fn done(&mut self) -> Result<(), String> {
        let sent = self.reader.0.metric("reader_input_position_bytes");
        let size = rig::len(&self.rig.input);
        if sent != size as f64 {
            return Err(format!("the reader is at {sent} of {size} bytes"));
        }
        (0..PARTITIONS).map(stream).try_for_each(|stream| {
            let server = &self.cluster.servers[self.cluster.owner(&stream)];
            let last = server.call(&["XINFO", "STREAM", &stream]).field("last-generated-id").text();
            let groups = server.call(&["XINFO", "GROUPS", &stream]);
            let of_writers = |group: &&Value| group.field("name").text() == "writers";
            let group = groups.list().iter().find(of_writers).ok_or_else(|| format!("{stream}: no group"))?;
            let (delivered, pending) = (group.field("last-delivered-id").text(), group.field("pending").int());
            if delivered == last && pending == 0 {
                return Ok(());
            }
            Err(format!(
                "{stream}: the group was given the entries up to {delivered} of {last}, and {pending} are pending"
            ))
        })
    }

    fn logs(&self) -> String {
        let writers = self.writers.iter().map(|(writer, _)| ("writer", writer));
        logs([("reader", &self.reader.0)].into_iter().chain(writers))
    }
}

fn stream(partition: usize) -> String {
    format!("{STREAM}:{{{partition}}}")
}
