//! Reader and writer beside programs of other languages that do the same (`peers/`): from file to
//! file with and without an append-only file, and lines that come one by one. What counts is the
//! processor time of all processes, Redis included.
//!
//! redis-py and ioredis do what the writer does: the file is durable before entries are
//! acknowledged. rsyslog does less: it acknowledges entries before they are in the file, and syncs
//! nothing, or (`sync`) each batch.
//!
//! `CLIENTS_DIR` is the folder with the clients (`cargo xtask bench` sets it), `RSYSLOGD` the
//! program and `RSYSLOG_MODULES` the folder of its modules, if they are not the system's. What is
//! not there is skipped.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a bench that cannot do its work ends")]

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use benches::rounds::Unit::{Bytes, Percent, Seconds};
use benches::server::on_path;
use benches::stage::{GROUP, STREAM, scaled};
use benches::usage::{Running, processor};
use benches::{Figure, Framing, Measured, Rounds, Stage, text};

const SECTION: &str = "other programs";
/// The slowest of them needs a minute for a million.
const LINES: usize = 100_000;
/// Between two lone lines, and for how long they come.
const PAUSE: Duration = Duration::from_millis(1);
const LONE: Duration = Duration::from_secs(5);

fn main() {
    let mut rounds = Rounds::from_env();
    let peers = Peer::all();
    for (log, stage) in [("AOF off", Stage::set as fn() -> _), ("AOF everysec", Stage::set_with_log)] {
        let Some(stage) = stage() else { return };
        let peers: Vec<&Peer> = peers.iter().filter(|peer| peer.is_known(&stage)).collect();
        file_to_file(&mut rounds, &stage, log, &peers);
        if log == "AOF everysec" {
            lone_lines(&mut rounds, &stage, &peers);
        }
    }
}

/// A pair of programs, one that sends and one that receives.
enum Peer {
    Ours {
        name: &'static str,
        framing: Framing,
        flags: &'static [&'static str],
    },
    /// A script for a program; the folder that it needs is in a variable.
    Script {
        name: &'static str,
        program: PathBuf,
        script: PathBuf,
        variable: &'static str,
        folder: PathBuf,
    },
    Rsyslog {
        program: PathBuf,
        modules: PathBuf,
        is_synced: bool,
    },
}

impl Peer {
    /// All that are here.
    fn all() -> Vec<Self> {
        const EXCLUSIVE: &[&str] = &["--consume", "exclusive"];
        // The nearest to what rsyslog does.
        const UNSYNCED: &[&str] = &["--consume", "exclusive", "--fsync", "interval"];
        let mut all = vec![
            Self::Ours { name: "reader and writer, group", framing: Framing::Line, flags: &[] },
            Self::Ours { name: "reader and writer, exclusive", framing: Framing::Line, flags: EXCLUSIVE },
            Self::Ours { name: "the same, --fsync interval", framing: Framing::Line, flags: UNSYNCED },
            Self::Ours { name: "reader and writer, chunk", framing: Framing::Chunk, flags: EXCLUSIVE },
        ];
        let clients = named("CLIENTS_DIR").unwrap_or_default();
        for (name, program, script, variable, folder, sign) in [
            ("redis-py", "python3", "redis_py.py", "PYTHONPATH", "python", "hiredis"),
            ("ioredis", "node", "ioredis.mjs", "NODE_PEERS", "node", "node_modules/ioredis"),
        ] {
            let folder = clients.join(folder);
            match on_path(program).filter(|_| folder.join(sign).exists()) {
                Some(program) => all.push(Self::Script { name, program, script: file(script), variable, folder }),
                None => println!("skipped: {name}: {program} or the client is not here; `cargo xtask bench` gets it"),
            }
        }
        let program = named("RSYSLOGD").or_else(|| on_path("rsyslogd"));
        let modules = named("RSYSLOG_MODULES").or_else(|| {
            let folders =
                ["/usr/lib/x86_64-linux-gnu/rsyslog", "/usr/lib/aarch64-linux-gnu/rsyslog", "/usr/lib/rsyslog"];
            folders.into_iter().map(PathBuf::from).find(|folder| folder.is_dir())
        });
        match (program, modules.filter(|folder| folder.join("imhiredis.so").is_file())) {
            (Some(program), Some(modules)) => {
                let rsyslog =
                    |is_synced| Self::Rsyslog { program: program.clone(), modules: modules.clone(), is_synced };
                all.extend([false, true].map(rsyslog));
            }
            _ => println!("skipped: rsyslog: there is no rsyslogd with imhiredis here (8.2404 or later has it)"),
        }
        all
    }

    const fn name(&self) -> &'static str {
        match self {
            Self::Ours { name, .. } | Self::Script { name, .. } => name,
            Self::Rsyslog { is_synced: false, .. } => "rsyslog",
            Self::Rsyslog { is_synced: true, .. } => "rsyslog, sync",
        }
    }

    /// Whether the writer knows what it is asked for.
    fn is_known(&self, stage: &Stage) -> bool {
        match self {
            Self::Ours { flags, .. } => flags.first().is_none_or(|flag| stage.writer_knows(flag)),
            Self::Script { .. } | Self::Rsyslog { .. } => true,
        }
    }

    const fn is_ours(&self) -> bool {
        matches!(self, Self::Ours { .. })
    }

    /// Whether it follows the input.
    const fn follows(&self) -> bool {
        !matches!(self, Self::Script { .. })
    }

    /// The commands that receive and send; with `once`, ours does not follow the input.
    fn commands(&self, stage: &Stage, input: &Path, once: bool) -> [Command; 2] {
        match self {
            Self::Ours { framing, flags, .. } => {
                let mut writer = stage.writer(0);
                let mut reader = stage.reader(input, *framing);
                writer.args(*flags);
                reader.args(once.then_some("--once"));
                [writer, reader]
            }
            Self::Script { program, script, variable, folder, .. } => {
                let bytes = fs::metadata(input).unwrap().len().to_string();
                let url = stage.server().url();
                let command = |work: &str| {
                    let mut command = Command::new(program);
                    command.env(variable, folder).arg(script).args([work, &url, STREAM]);
                    command
                };
                let (mut receive, mut send) = (command("receive"), command("send"));
                receive.arg(GROUP).arg(stage.output(0)).args([&bytes, "line"]);
                send.arg(input).arg("line");
                [receive, send]
            }
            Self::Rsyslog { program, modules, is_synced } => ["receive", "send"].map(|work| {
                let folder = stage.path(&format!("state/{work}"));
                fs::create_dir_all(&folder).unwrap();
                let mut command = Command::new(program);
                command
                    .args(["-n", "-i", "NONE", "-M"])
                    .arg(modules)
                    .arg("-f")
                    .arg(file(&format!("rsyslog-{work}.conf")));
                command
                    .env("SYNC", if *is_synced { "on" } else { "off" })
                    .envs([("STREAM", STREAM), ("GROUP", GROUP), ("PORT", &stage.server().port().to_string())])
                    .envs([("FOLDER", &folder), ("INPUT", &input.to_owned()), ("OUTPUT", &stage.output(0))])
                    .stdout(Stdio::null());
                command
            }),
        }
    }

    /// Starts both.
    fn start(&self, stage: &Stage, input: &Path, once: bool) -> [Running; 2] {
        stage.clear();
        if matches!(self, Self::Rsyslog { .. }) {
            // It would make a group behind what is there already.
            let _ = stage.server().ask(&format!("XGROUP CREATE {STREAM} {GROUP} 0 MKSTREAM"));
        }
        self.commands(stage, input, once).map(|mut command| Running::start(self.name(), &mut command))
    }

    /// Ends both, and returns their processor time.
    fn end(&self, programs: [Running; 2], once: bool) -> Duration {
        let [receiver, sender] = &programs;
        if self.follows() {
            receiver.terminate();
        }
        if self.follows() && !(once && self.is_ours()) {
            sender.terminate();
        }
        programs.map(|program| program.ends_well().processor).iter().sum()
    }
}

fn named(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|path| !path.is_empty()).map(PathBuf::from)
}

/// A file of `peers/`.
fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("peers").join(name)
}

fn file_to_file(rounds: &mut Rounds, stage: &Stage, log: &str, peers: &[&Peer]) {
    let input = stage.path("peers.txt");
    let lines = scaled(rounds, 2000, LINES);
    text::write(&input, lines);
    let bytes = fs::metadata(&input).unwrap().len();
    let million = lines as f64 / 1e6;
    let names = ["time", "processor time of all", "processor time of Redis", "append-only file"];
    let names = names.map(|what| format!("a million lines, {log}: {what}"));
    let mut figures: Vec<Figure<'_>> = names
        .iter()
        .zip([Seconds, Seconds, Seconds, Bytes])
        .map(|(name, unit)| Figure { section: SECTION, name, unit })
        .collect();
    let has_log = stage.server().info("aof_enabled") == 1;
    if !has_log {
        figures.pop();
    }
    let run = |peer: &Peer| {
        let before = if has_log { stage.server().info("aof_current_size") } else { 0 };
        let (used, needed) = stage.needed(|| {
            let programs = peer.start(stage, &input, true);
            stage.wait_for_outputs(&programs[..1], bytes);
            peer.end(programs, true)
        });
        stage.is_delivered(&input, 1);
        let mut figures =
            vec![needed.wall.as_secs_f64(), (used + needed.redis).as_secs_f64(), needed.redis.as_secs_f64()];
        if has_log {
            figures.push((stage.server().info("aof_current_size") - before) as f64);
        }
        figures.into_iter().map(|figure| Some(figure / million)).collect()
    };
    let mut subjects: Vec<(&str, Measured<'_>)> =
        peers.iter().map(|peer| -> (&str, Measured<'_>) { (peer.name(), Box::new(|| run(peer))) }).collect();
    rounds.run_measured(&figures, &mut subjects);
}

/// A thousand lines a second.
fn lone_lines(rounds: &mut Rounds, stage: &Stage, peers: &[&Peer]) {
    let time = if rounds.is_test() { Duration::from_millis(300) } else { LONE };
    let names = ["sends", "receives", "Redis", "all"].map(|what| format!("1000 lines/s, of one core: {what}"));
    let figures = names.each_ref().map(|name| Figure { section: SECTION, name, unit: Percent });
    let mut subjects: Vec<(&str, Measured<'_>)> = peers
        .iter()
        .filter(|peer| peer.follows())
        .map(|peer| -> (&str, Measured<'_>) { (peer.name(), Box::new(|| lone(peer, stage, time).map(Some).into())) })
        .collect();
    rounds.run_measured(&figures, &mut subjects);
}

fn lone(peer: &Peer, stage: &Stage, time: Duration) -> [f64; 4] {
    let (input, line) = (
        stage.path("lone.txt"),
        b"a line of 86 bytes, as long as the lines of package lists are on average, no more l.s\n",
    );
    fs::write(&input, line).unwrap();
    let programs = peer.start(stage, &input, false);
    let mut end = line.len() as u64;
    stage.wait_for_outputs(&programs[..1], end);
    let ids = [programs[1].id(), programs[0].id(), stage.server().id()];
    let before = ids.map(processor);
    let mut file = File::options().append(true).open(&input).unwrap();
    let begun = Instant::now();
    let mut next = begun;
    while begun.elapsed() < time {
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
        file.write_all(line).unwrap();
        end += line.len() as u64;
        next += PAUSE;
    }
    stage.wait_for_outputs(&programs[..1], end);
    let took = begun.elapsed().as_secs_f64();
    let used = [0, 1, 2].map(|nth| processor(ids[nth]).saturating_sub(before[nth]).as_secs_f64() / took * 100.0);
    peer.end(programs, false);
    stage.is_delivered(&input, 1);
    [used[0], used[1], used[2], used.iter().sum()]
}
