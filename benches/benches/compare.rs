//! Two builds of the services in paired rounds: the present one, and the one that
//! `BASE_READER_BIN` and `BASE_WRITER_BIN` name (`cargo xtask bench compare REV` sets them).
//!
//! From file to file in both framings, with an append-only file (`everysec`); and lines that come
//! one by one.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a bench that cannot do its work ends")]

use std::cell::RefCell;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use benches::rounds::Unit::Seconds;
use benches::stage::scaled;
use benches::usage::Running;
use benches::{Figure, Framing, Measured, Rounds, Stage, text};

const SECTION: &str = "compare";
const LINES: usize = 886_323;
/// Between two lone lines, and for how long they come.
const PAUSE: Duration = Duration::from_millis(1);
const LONE: Duration = Duration::from_secs(5);

type Programs = (PathBuf, PathBuf);

fn main() {
    let named = |name: &str| std::env::var_os(name).filter(|path| !path.is_empty()).map(PathBuf::from);
    let (Some(reader), Some(writer)) = (named("BASE_READER_BIN"), named("BASE_WRITER_BIN")) else {
        println!("skipped: BASE_READER_BIN and BASE_WRITER_BIN are not set; `cargo xtask bench compare REV` sets them");
        return;
    };
    let Some(stage) = Stage::set_with_log() else { return };
    let present = (named("READER_BIN").unwrap(), named("WRITER_BIN").unwrap());
    let builds = [("base", (reader, writer)), ("present", present)];
    let mut rounds = Rounds::from_env();
    let stage = RefCell::new(stage);
    for framing in [Framing::Line, Framing::Chunk] {
        let input = stage.borrow().path("compare.txt");
        let lines = scaled(&rounds, 2000, LINES) * if framing == Framing::Chunk { 4 } else { 1 };
        text::write(&input, lines);
        let million = lines as f64 / 1e6;
        let names =
            ["time", "reader", "writer", "Redis"].map(|what| format!("a million lines, {}: {what}", framing.name()));
        measure(&mut rounds, &stage, &builds, &names, &|stage| {
            let all = stage.file_to_file(&input, framing, 1);
            let times = [all.needed.wall, all.reader.processor, all.writer.processor, all.needed.redis];
            times.map(|time| time.as_secs_f64() / million)
        });
    }
    let time = if rounds.is_test() { Duration::from_millis(300) } else { LONE };
    let names =
        ["until it is in the output, median", "reader", "writer", "Redis"].map(|what| format!("a lone line: {what}"));
    measure(&mut rounds, &stage, &builds, &names, &|stage| lone(stage, time));
}

fn measure(
    rounds: &mut Rounds,
    stage: &RefCell<Stage>,
    builds: &[(&'static str, Programs)],
    names: &[String; 4],
    work: &dyn Fn(&Stage) -> [f64; 4],
) {
    let figures = names.each_ref().map(|name| Figure { section: SECTION, name, unit: Seconds });
    let mut subjects: Vec<(&str, Measured<'_>)> = builds
        .iter()
        .map(|(name, (reader, writer))| -> (&str, Measured<'_>) {
            let run = move || {
                stage.borrow_mut().use_programs(reader, writer);
                work(&stage.borrow()).map(Some).into()
            };
            (*name, Box::new(run))
        })
        .collect();
    rounds.run_measured(&figures, &mut subjects);
}

/// Appends lines one by one. The median time until one is in the output, and the processor times
/// for each line.
fn lone(stage: &Stage, time: Duration) -> [f64; 4] {
    stage.clear();
    let (input, line) = (stage.path("lone.txt"), b"a line of 40 bytes, which is a short one\n");
    std::fs::write(&input, line).unwrap();
    let ((times, reader, writer), needed) = stage.needed(|| {
        let writer = Running::start("writer", &mut stage.writer(0));
        let reader = Running::start("reader", &mut stage.reader(&input, Framing::Line));
        let mut end = line.len() as u64;
        arrives(&stage.output(0), end);
        let mut file = File::options().append(true).open(&input).unwrap();
        let (mut times, begun) = (Vec::new(), Instant::now());
        while begun.elapsed() < time {
            let appended = Instant::now();
            file.write_all(line).unwrap();
            end += line.len() as u64;
            arrives(&stage.output(0), end);
            times.push(appended.elapsed());
            std::thread::sleep(PAUSE.saturating_sub(appended.elapsed()));
        }
        reader.terminate();
        writer.terminate();
        (times, reader.ends_well(), writer.ends_well())
    });
    stage.is_delivered(&input, 1);
    let lines = times.len() as f64;
    let mut times = times;
    times.sort();
    let median = times[times.len() / 2].as_secs_f64();
    let used = [reader.processor, writer.processor, needed.redis].map(|time| time.as_secs_f64() / lines);
    [median, used[0], used[1], used[2]]
}

fn arrives(output: &Path, bytes: u64) {
    let begun = Instant::now();
    while std::fs::metadata(output).map_or(0, |file| file.len()) < bytes {
        assert!(begun.elapsed() < Duration::from_secs(20), "a line does not arrive");
        std::thread::sleep(Duration::from_micros(20));
    }
}
