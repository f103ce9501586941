//! Many files over a Redis Cluster: the sources spread over the masters, which fail, or lose slots.

use std::path::PathBuf;
use std::time::Duration;

use e2e::rig::{append, len};
use e2e::{Cluster, Growth, Launch, Program, Rig, Service, assert_identical, text, wait};

/// Enough that every master has more than the number of connections to it.
const SOURCES: usize = 30;
/// The number of lines of each.
const LINES: u64 = 2500;

/// A tree that a reader sends to a cluster, and a writer mirrors.
struct Stage {
    // In drop order.
    reader: Service,
    writer: Service,
    growths: Vec<Growth>,
    cluster: Cluster,
    rig: Rig,
}

impl Stage {
    /// Lets all files grow for about `time`.
    fn start(time: Duration) -> Option<Self> {
        let rig = Rig::new();
        let cluster = Cluster::start(&rig.folder.join("cluster"))?;
        cluster.serve_in_part();
        let (reader, writer) = (reader(&rig, &cluster).start(), writer(&rig, &cluster).start());
        std::fs::create_dir(rig.folder.join("in/sub")).unwrap();
        let growth = |nth: usize| {
            let lines = text::numbered(0..LINES, nth as u64);
            Growth::of(&rig.folder.join("in").join(name(nth)), lines, time, nth as u64)
        };
        let growths = (0..SOURCES).map(growth).collect();
        Some(Self { reader, writer, growths, cluster, rig })
    }

    fn input(&self, nth: usize) -> PathBuf {
        self.rig.folder.join("in").join(name(nth))
    }

    fn output(&self, nth: usize) -> PathBuf {
        self.rig.folder.join("out").join(name(nth))
    }

    /// The sources that a master has.
    fn sources_of(&self, master: usize) -> Vec<usize> {
        (0..SOURCES).filter(|&nth| self.cluster.owner(&key(nth)) == master).collect()
    }

    #[track_caller]
    fn wait_mirrored(&self, sources: &[usize]) {
        for &nth in sources {
            self.rig.wait_len_of(&self.output(nth), len(&self.input(nth)));
            assert_identical(&self.input(nth), &self.output(nth));
        }
    }

    /// Waits until everything is mirrored and acknowledged, and proves it.
    fn finish(mut self) {
        self.growths.iter_mut().for_each(Growth::wait);
        self.wait_mirrored(&Vec::from_iter(0..SOURCES));
        self.writer.wait_for_metric("line_stream_backlog_entries", |entries| entries == 0.0);
        wait::until("both are ready", || self.reader.readyz().0 == 200 && self.writer.readyz().0 == 200);
        self.reader.stop();
        self.writer.stop();
        let verify = self.rig.command(Program::Writer).word("verify").set("--input-dir", self.rig.folder.join("in"));
        verify.set("--output-dir", self.rig.folder.join("out")).run_ok();
    }
}

fn name(nth: usize) -> String {
    if nth.is_multiple_of(3) { format!("sub/{nth}.log") } else { format!("{nth}.log") }
}

fn key(nth: usize) -> String {
    format!("line_stream:{{{}}}", name(nth))
}

fn reader(rig: &Rig, cluster: &Cluster) -> Launch {
    rig.service(Program::Reader).set("--redis-url", cluster.url()).set("--input", rig.folder.join("in/**/*.log"))
}

fn writer(rig: &Rig, cluster: &Cluster) -> Launch {
    rig.service(Program::Writer).set("--redis-url", cluster.url()).set("--output-dir", rig.folder.join("out"))
}

#[test]
fn sources_spread_over_the_masters() {
    let Some(mut stage) = Stage::start(Duration::from_millis(1000)) else { return };
    for master in 0..3 {
        assert_ne!(stage.sources_of(master), [0; 0], "master {master}");
    }
    stage.growths.iter_mut().for_each(Growth::wait);
    stage.wait_mirrored(&Vec::from_iter(0..SOURCES));
    // Sources that are parked on both sides wake.
    stage.writer.wait_for_metric("line_stream_backlog_entries", |entries| entries == 0.0);
    for nth in 0..SOURCES {
        append(&stage.input(nth), "later\n");
    }
    let (reader, writer) = (reader(&stage.rig, &stage.cluster), writer(&stage.rig, &stage.cluster));
    stage.wait_mirrored(&Vec::from_iter(0..SOURCES));
    reader.clone().word("check").run_ok();
    writer.clone().word("check").run_ok();
    stage.reader.stop();
    stage.writer.stop();
    append(&stage.input(1), "last\n");
    reader.once().run_ok();
    writer.once().run_ok();
    stage.wait_mirrored(&[1]);
}

#[test]
fn a_master_that_is_away_holds_up_its_own_sources_only() {
    let Some(mut stage) = Stage::start(Duration::from_millis(1500)) else { return };
    let of_second = stage.sources_of(1);
    let others: Vec<usize> = (0..SOURCES).filter(|nth| !of_second.contains(nth)).collect();
    // With its replica and all its data.
    stage.cluster.servers[4].kill9();
    stage.cluster.servers[1].kill9();
    for nth in 0..SOURCES {
        append(&stage.input(nth), text::numbered(LINES..LINES + 200, 7));
    }
    stage.growths.iter_mut().for_each(Growth::wait);
    stage.wait_mirrored(&others);
    let done = of_second.iter().filter(|&&nth| len(&stage.output(nth)) == len(&stage.input(nth)));
    assert_eq!(done.count(), 0);
    assert_ne!(stage.writer.readyz().0, 200);
    stage.cluster.servers[1].start_again();
    stage.cluster.servers[4].start_again();
    stage.finish();
}

#[test]
fn slots_move_and_a_replica_takes_over_while_lines_flow() {
    let seed = e2e::seed();
    let mut rng = fastrand::Rng::with_seed(seed);
    let Some(mut stage) = Stage::start(Duration::from_millis(2500)) else { return };
    for nth in 0..4 {
        let (slot, from) = (stage.cluster.slot(&key(nth)), stage.cluster.owner(&key(nth)));
        let to = (from + 1) % 3;
        stage.cluster.begin_move(&slot, from, to);
        wait::random_moment(&mut rng, 0..200);
        if rng.bool() {
            stage.cluster.move_key(key(nth).as_bytes(), from, to);
            wait::random_moment(&mut rng, 0..200);
        }
        stage.cluster.finish_move(&slot, from, to);
    }
    // The registry, too.
    let (slot, from) = (stage.cluster.slot("line_stream:sources"), stage.cluster.owner("line_stream:sources"));
    stage.cluster.move_slot(&slot, from, (from + 1) % 3);
    append(&stage.rig.folder.join("in/late.log"), "late\n");
    stage.rig.wait_len_of(&stage.rig.folder.join("out/late.log"), 5);

    let of_third = stage.sources_of(2);
    stage.cluster.servers[2].kill9();
    for &nth in &of_third {
        append(&stage.input(nth), text::numbered(LINES..LINES + 200, 7));
    }
    stage.cluster.wait_replaced(2);
    stage.finish();
}
