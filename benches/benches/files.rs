//! Many files in one reader and one writer: compared with one file of the same bytes; 10,000 files
//! that nobody writes to; the writer's outputs; and a quiet file beside a busy one.

#![allow(clippy::unwrap_used, missing_docs, reason = "a bench that cannot do its work ends")]

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use benches::rounds::Unit::{Bytes, Count, Percent, Seconds};
use benches::stage::{STREAM, scaled};
use benches::usage::{Running, Usage, open_files, processor, resident};
use benches::{Figure, Framing, Measured, Rounds, Stage, text};
use resp::streams::XLen;
use resp::{Config, Connection, cmd};
use tokio::runtime::{Builder, Runtime};

/// The lines of all files together.
const LINES: usize = 886_323;
/// Files that are written at once.
const BUSY: usize = 100;
/// Outputs of one writer.
const OUTPUTS: usize = 1000;
/// Files that are followed.
const FOLLOWED: usize = 10_000;
/// The pace of the busy file, in bytes per second.
const PACE: f64 = 40e6;
/// Between two questions for the length of a stream.
const LOOK: Duration = Duration::from_micros(500);
const LINE: &[u8] = b"a line of 86 bytes, as long as the lines of package lists are on average, no more l.s\n";

fn main() {
    let Some(stage) = Stage::set() else { return };
    let mut rounds = Rounds::from_env();
    let redis = Redis::connect(&stage);
    for framing in [Framing::Line, Framing::Chunk] {
        same_bytes(&stage, &mut rounds, framing);
    }
    outputs(&stage, &mut rounds);
    idle(&stage, &redis, &mut rounds);
    quiet_beside_busy(&stage, &redis, &mut rounds);
}

/// A connection to Redis, to see what arrives.
struct Redis {
    runtime: Runtime,
    connection: std::cell::RefCell<Connection>,
}

impl Redis {
    fn connect(stage: &Stage) -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let config = Config::from_url(&stage.server().url()).unwrap();
        let connection = runtime.block_on(Connection::connect(&config)).unwrap();
        Self { runtime, connection: connection.into() }
    }

    /// The number of entries of a source.
    fn entries(&self, name: &str) -> u64 {
        let key = format!("{STREAM}:{{{name}}}");
        self.runtime.block_on(self.connection.borrow_mut().send(&XLen::new(&key))).unwrap()
    }

    fn keys(&self) -> u64 {
        self.runtime.block_on(self.connection.borrow_mut().send(&cmd::<u64>("DBSIZE"))).unwrap()
    }

    fn clients(&self) -> usize {
        let list: String = self.runtime.block_on(self.connection.borrow_mut().send(&cmd("CLIENT LIST"))).unwrap();
        // One of them is this one.
        list.lines().count() - 1
    }

    /// How long until a source has more than this many entries.
    fn wait_for_more(&self, name: &str, than: u64) -> Duration {
        let begun = Instant::now();
        while self.entries(name) <= than {
            assert!(begun.elapsed() < Duration::from_secs(60), "{name}: nothing arrives");
            std::thread::sleep(LOOK);
        }
        begun.elapsed()
    }
}

/// Writes a text into this many files, in equal parts of whole lines. Returns the pattern.
fn parts(stage: &Stage, input: &Path, name: &str, count: usize) -> PathBuf {
    let folder = stage.path(name);
    fs::create_dir_all(&folder).unwrap();
    let text = fs::read(input).unwrap();
    let mut rest = &text[..];
    for nth in 0..count {
        let about = rest.len() / (count - nth);
        let end = rest[about.saturating_sub(1)..].iter().position(|&byte| byte == b'\n');
        let (part, after) = rest.split_at(end.map_or(rest.len(), |at| about.saturating_sub(1) + at + 1));
        fs::write(folder.join(format!("{nth}.log")), part).unwrap();
        rest = after;
    }
    folder.join("*.log")
}

/// The bytes of one file, and of as many files as are written at once.
fn same_bytes(stage: &Stage, rounds: &mut Rounds, framing: Framing) {
    let (name, factor) = match framing {
        Framing::Line => ("line", 1),
        Framing::Chunk => ("chunk", 4),
    };
    let case = |what: &str| format!("{name}: {what}");
    let figures =
        ["time per line", "reader, processor time of a million lines", "writer, processor time of a million lines"]
            .map(case);
    let sizes = ["reader, memory", "writer, memory"].map(case);
    let of = |unit| move |name| Figure { section: "many files", name, unit };
    let figures: Vec<Figure<'_>> = figures
        .iter()
        .map(|name| of(Seconds)(name.as_str()))
        .chain(sizes.iter().map(|name| of(Bytes)(name.as_str())))
        .collect();
    if !rounds.wants(figures[0].section, figures[0].name) {
        return;
    }
    let input = stage.path("input.txt");
    let lines = scaled(rounds, 2000, LINES * factor);
    text::write(&input, lines);
    let pattern = parts(stage, &input, "busy", scaled(rounds, 10, BUSY));
    let bytes = fs::metadata(&input).unwrap().len();
    let lines = lines as f64;
    let figures_of = |wall: Duration, reader: Usage, writer: Usage| {
        vec![
            Some(wall.as_secs_f64() / lines),
            Some(reader.processor.as_secs_f64() / lines * 1e6),
            Some(writer.processor.as_secs_f64() / lines * 1e6),
            Some(reader.peak as f64),
            Some(writer.peak as f64),
        ]
    };
    let many = format!("{} files", scaled(rounds, 10, BUSY));
    let mut subjects: Vec<(&str, Measured<'_>)> = vec![
        (
            "one file",
            Box::new(|| {
                let done = stage.file_to_file(&input, framing, 1);
                figures_of(done.needed.wall, done.reader, done.writer)
            }),
        ),
        (
            &many,
            Box::new(|| {
                stage.clear();
                let ((reader, writer), needed) = stage.needed(|| {
                    let writer = Running::start("writer", &mut stage.mirror());
                    let reader = Running::start("reader", stage.reader(&pattern, framing).arg("--once"));
                    stage.wait_for_mirror(&writer, bytes);
                    writer.terminate();
                    (reader.ends_well(), writer.ends_well())
                });
                stage.is_mirrored(pattern.parent().unwrap());
                figures_of(needed.wall, reader, writer)
            }),
        ),
    ];
    rounds.run_measured(&figures, &mut subjects);
    drop(subjects);
    fs::remove_dir_all(pattern.parent().unwrap()).unwrap();
}

/// A writer with many outputs, all of which have something to write.
fn outputs(stage: &Stage, rounds: &mut Rounds) {
    let count = scaled(rounds, 20, OUTPUTS);
    let names = [format!("{count} outputs: time per line"), format!("{count} outputs: writer, memory")];
    let figures = [(&names[0], Seconds), (&names[1], Bytes)];
    let figures = figures.map(|(name, unit)| Figure { section: "many files", name, unit });
    if !rounds.wants(figures[0].section, figures[0].name) {
        return;
    }
    let input = stage.path("input.txt");
    let lines = scaled(rounds, 2000, LINES);
    text::write(&input, lines);
    let pattern = parts(stage, &input, "outputs", count);
    let bytes = fs::metadata(&input).unwrap().len();
    let mut subjects: Vec<(&str, Measured<'_>)> = vec![(
        "writer",
        Box::new(|| {
            stage.clear();
            let reader = Running::start("reader", stage.reader(&pattern, Framing::Line).arg("--once"));
            let _ = reader.ends_well();
            let writer = Running::start("writer", &mut limited(&stage.mirror()));
            let begun = Instant::now();
            stage.wait_for_mirror(&writer, bytes);
            let wall = begun.elapsed();
            writer.terminate();
            let usage = writer.ends_well();
            stage.is_mirrored(pattern.parent().unwrap());
            vec![Some(wall.as_secs_f64() / lines as f64), Some(usage.peak as f64)]
        }),
    )];
    rounds.run_measured(&figures, &mut subjects);
    drop(subjects);
    fs::remove_dir_all(pattern.parent().unwrap()).unwrap();
}

/// Files that nobody writes to: what they need, and how fast something that happens is noticed.
fn idle(stage: &Stage, redis: &Redis, rounds: &mut Rounds) {
    let count = scaled(rounds, 100, FOLLOWED);
    let name = |what: &str| format!("{count} files: {what}");
    let names = [
        ("first start, until all are sent", Seconds),
        ("start, until a line appended meanwhile is sent", Seconds),
        ("new file, until it is sent", Seconds),
        ("idle, processor, of one core", Percent),
        ("idle, resident size", Bytes),
        ("idle, open files", Count),
        ("idle, connections", Count),
    ]
    .map(|(what, unit)| (name(what), unit));
    let figures: Vec<Figure<'_>> =
        names.iter().map(|(name, unit)| Figure { section: "many files", name, unit: *unit }).collect();
    if !rounds.wants(figures[0].section, figures[0].name) {
        return;
    }
    stage.clear();
    let folder = stage.path("followed");
    for nth in 0..count {
        let path = path_of(&folder, nth);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, format!("the first line of file {nth}\n")).unwrap();
    }
    let pattern = folder.join("**/*.log");
    let start = || Running::start("reader", &mut limited(&stage.reader(&pattern, Framing::Line)));
    let begun = Instant::now();
    let first = start();
    // Each source has a stream and a record; the registry is one more key.
    while redis.keys() < 2 * count as u64 + 1 {
        assert!(first.is_running() && begun.elapsed() < Duration::from_secs(300), "{} keys", redis.keys());
        std::thread::sleep(LOOK);
    }
    let sent = begun.elapsed();
    first.terminate();
    let _ = first.ends_well();
    rounds.tell(figures[0], &[("reader", vec![sent.as_secs_f64()])]);

    let (settle, time) = if rounds.is_test() { (0.5, 0.5) } else { (3.0, 10.0) };
    let mut nth_new = 0;
    let mut work = || {
        let nth = count - 1;
        File::options().append(true).open(path_of(&folder, nth)).unwrap().write_all(LINE).unwrap();
        let name = name_of(nth);
        let before = redis.entries(&name);
        let reader = start();
        let started = redis.wait_for_more(&name, before);
        std::thread::sleep(Duration::from_secs_f64(settle));
        let (id, begun, used) = (reader.id(), Instant::now(), processor(reader.id()));
        std::thread::sleep(Duration::from_secs_f64(time));
        let used = processor(id).saturating_sub(used).as_secs_f64() / begun.elapsed().as_secs_f64() * 100.0;
        let (size, files, clients) = (resident(id), open_files(id), redis.clients());
        nth_new += 1;
        fs::write(folder.join(format!("0/new-{nth_new}.log")), LINE).unwrap();
        let noticed = redis.wait_for_more(&format!("0/new-{nth_new}.log"), 0);
        reader.terminate();
        let _ = reader.ends_well();
        let figures = [started.as_secs_f64(), noticed.as_secs_f64(), used, size as f64, files as f64, clients as f64];
        figures.map(Some).into()
    };
    let mut subjects: Vec<(&str, Measured<'_>)> = vec![("reader", Box::new(&mut work))];
    rounds.run_measured(&figures[1..], &mut subjects);
    drop(subjects);
    fs::remove_dir_all(&folder).unwrap();
}

/// A hundred files in a folder.
fn name_of(nth: usize) -> String {
    format!("{}/{nth}.log", nth / 100)
}

fn path_of(folder: &Path, nth: usize) -> PathBuf {
    folder.join(name_of(nth))
}

/// From the append of a line to a file until it is in its stream.
fn quiet_beside_busy(stage: &Stage, redis: &Redis, rounds: &mut Rounds) {
    let names = ["a quiet file: p50", "a quiet file: largest"];
    let figures = names.map(|name| Figure { section: "many files", name, unit: Seconds });
    if !rounds.wants(figures[0].section, figures[0].name) {
        return;
    }
    let lines = scaled(rounds, 5, 60);
    let mut subjects: Vec<(&str, Measured<'_>)> = vec![
        ("alone", Box::new(|| quiet(stage, redis, lines, false))),
        ("beside a busy file", Box::new(|| quiet(stage, redis, lines, true))),
    ];
    rounds.run_measured(&figures, &mut subjects);
}

fn quiet(stage: &Stage, redis: &Redis, lines: usize, beside_busy: bool) -> Vec<Option<f64>> {
    stage.clear();
    let folder = stage.path("quiet");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    let [quiet, busy] = ["quiet.log", "busy.log"].map(|name| folder.join(name));
    for path in [&quiet, &busy] {
        fs::write(path, LINE).unwrap();
    }
    let mut reader = stage.reader(&folder.join("*.log"), Framing::Line);
    let reader = Running::start("reader", reader.args(["--max-backlog", "0"]));
    for name in ["quiet.log", "busy.log"] {
        redis.wait_for_more(name, 0);
    }
    let stop = AtomicBool::new(false);
    let mut times = std::thread::scope(|scope| {
        if beside_busy {
            scope.spawn(|| {
                let mut file = File::options().append(true).open(&busy).unwrap();
                let (block, begun, mut bytes) = (LINE.repeat(5000), Instant::now(), 0);
                while !stop.load(Ordering::Relaxed) {
                    file.write_all(&block).unwrap();
                    bytes += block.len();
                    let due = Duration::from_secs_f64(bytes as f64 / PACE);
                    std::thread::sleep(due.saturating_sub(begun.elapsed()));
                }
            });
        }
        let mut file = File::options().append(true).open(&quiet).unwrap();
        let mut times = Vec::new();
        for nth in 0..lines {
            std::thread::sleep(Duration::from_millis(50));
            file.write_all(LINE).unwrap();
            times.push(redis.wait_for_more("quiet.log", nth as u64 + 1));
        }
        stop.store(true, Ordering::Relaxed);
        times
    });
    reader.terminate();
    let _ = reader.ends_well();
    times.sort();
    vec![times.get(times.len() / 2).map(Duration::as_secs_f64), times.last().map(Duration::as_secs_f64)]
}

/// The same command with at most 1,024 open files.
fn limited(command: &Command) -> Command {
    let mut limited = Command::new("sh");
    limited.args(["-c", r#"ulimit -n 1024 && exec "$0" "$@""#]).arg(command.get_program()).args(command.get_args());
    limited.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    limited
}
