//! What a million lines cost Redis, in each way to send and to consume them: processor time, bytes
//! of its append-only file, bytes to a replica, and memory while the lines wait.
//!
//! Redis has an append-only file (`everysec`) and one replica. The reader adds the whole file
//! before the writer takes it, so that all lines wait at once.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a bench that cannot do its work ends")]

use std::time::{Duration, Instant};

use benches::rounds::Unit::{Bytes, Seconds};
use benches::server::Server;
use benches::stage::{STREAM, scaled};
use benches::usage::{Running, processor};
use benches::{Figure, Framing, Measured, Rounds, Stage, text};

const SECTION: &str = "cost of a million lines";
const LINES: usize = 886_323;
/// How long a replica may take to have everything.
const IN_SYNC: Duration = Duration::from_secs(60);

/// A way to send and to consume.
struct Mode {
    name: &'static str,
    framing: Framing,
    /// Flags of the writer that it needs.
    flags: &'static [&'static str],
}

const MODES: [Mode; 4] = [
    Mode { name: "line, group", framing: Framing::Line, flags: &[] },
    Mode { name: "line, exclusive", framing: Framing::Line, flags: &["--consume", "exclusive"] },
    Mode { name: "chunk, group", framing: Framing::Chunk, flags: &[] },
    Mode { name: "chunk, exclusive", framing: Framing::Chunk, flags: &["--consume", "exclusive"] },
];

fn main() {
    let Some(stage) = Stage::set_with_log() else { return };
    let Some(replica) = stage.server().start_replica() else { return };
    let mut rounds = Rounds::from_env();
    let input = stage.path("cost.txt");
    let lines = scaled(&rounds, 2000, LINES);
    text::write(&input, lines);
    let bench = Bench { stage, replica, million: lines as f64 / 1e6 };
    let figures = [
        ("processor time of Redis", Seconds),
        ("processor time of a replica", Seconds),
        ("processor time of reader and writer", Seconds),
        ("append-only file", Bytes),
        ("to a replica", Bytes),
        ("memory of Redis while they wait", Bytes),
    ];
    let figures = figures.map(|(name, unit)| Figure { section: SECTION, name, unit });
    let known = MODES.iter().filter(|mode| mode.flags.first().is_none_or(|flag| bench.stage.writer_knows(flag)));
    let mut subjects: Vec<(&str, Measured<'_>)> = known
        .map(|mode| -> (&str, Measured<'_>) { (mode.name, Box::new(|| bench.measure(mode, &input).map(Some).into())) })
        .collect();
    rounds.run_measured(&figures, &mut subjects);
}

struct Bench {
    stage: Stage,
    replica: Server,
    million: f64,
}

impl Bench {
    fn measure(&self, mode: &Mode, input: &std::path::Path) -> [f64; 6] {
        self.stage.clear();
        self.wait_in_sync();
        let servers = [self.stage.server(), &self.replica].map(Server::id);
        let (before, log, sent) = (
            servers.map(processor),
            self.stage.server().info("aof_current_size"),
            self.stage.server().info("master_repl_offset"),
        );
        let reader = Running::start("reader", self.stage.reader(input, mode.framing).arg("--once")).ends_well();
        let memory: f64 = self.stage.server().ask(&format!("MEMORY USAGE {STREAM} SAMPLES 0")).parse().unwrap();
        let writer = Running::start("writer", self.stage.writer(0).args(mode.flags).arg("--once")).ends_well();
        self.stage.is_delivered(input, 1);
        self.wait_in_sync();
        let used = [0, 1].map(|nth| processor(servers[nth]).saturating_sub(before[nth]).as_secs_f64());
        let figures = [
            used[0],
            used[1],
            (reader.processor + writer.processor).as_secs_f64(),
            (self.stage.server().info("aof_current_size") - log) as f64,
            (self.stage.server().info("master_repl_offset") - sent) as f64,
            memory,
        ];
        figures.map(|figure| figure / self.million)
    }

    /// Waits until the replica has everything.
    fn wait_in_sync(&self) {
        let (begun, server) = (Instant::now(), self.stage.server());
        let sent = || server.info("master_repl_offset");
        while !server.ask("INFO").contains(&format!("state=online,offset={},", sent())) {
            assert!(begun.elapsed() < IN_SYNC, "the replica does not follow");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
