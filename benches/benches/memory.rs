//! Memory: the resident sizes while 10 GB pass from file to file, once for each framing, and while
//! the longest lines that are not cut do. The stream is trimmed as the writer acknowledges,
//! and the reader waits while it is long (`--max-backlog`), so Redis stays bounded, too.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a bench that cannot do its work ends")]

use std::fs;
use std::time::{Duration, Instant};

use benches::rounds::Unit::Bytes;
use benches::usage::{Running, resident};
use benches::{Figure, Framing, Rounds, Stage, text};

/// Bytes from file to file.
const ALL: u64 = 10_000_000_000;
/// Bytes of an average line of a made text.
const LINE: u64 = 86;
/// Between two looks at the resident sizes.
const LOOK: Duration = Duration::from_millis(20);
/// Parts of the work: up to which share of the output each goes.
const PARTS: [(&str, f64); 3] = [("first tenth", 0.1), ("up to the half", 0.5), ("second half", 1.0)];
const PROCESSES: [&str; 3] = ["reader", "writer", "Redis"];

fn main() {
    let Some(stage) = Stage::set() else { return };
    let mut rounds = Rounds::from_env();
    for framing in [Framing::Line, Framing::Chunk] {
        flat(&stage, &mut rounds, framing);
    }
    long_lines(&stage, &mut rounds);
}

fn flat(stage: &Stage, rounds: &mut Rounds, framing: Framing) {
    let section = "memory over 10 GB";
    let cases = PROCESSES.map(|process| format!("{process}, {}", framing.name()));
    if !rounds.wants(section, &cases[0]) {
        return;
    }
    let bytes = if rounds.is_test() { 10_000_000 } else { ALL };
    // The input, the output, and a little.
    if !stage.has_room(bytes * 22 / 10) {
        return;
    }
    stage.clear();
    let input = stage.path("large.txt");
    if fs::metadata(&input).is_err() {
        println!("making a text of {} MB", bytes / 1_000_000);
        text::write(&input, usize::try_from(bytes / LINE).unwrap());
    }
    let bytes = fs::metadata(&input).unwrap().len();
    let begun = Instant::now();
    let writer = Running::start("writer", &mut stage.writer(0));
    let mut reader = stage.reader(&input, framing);
    let backlog = if framing == Framing::Line { "100000" } else { "1000" };
    let reader = Running::start("reader", reader.args(["--once", "--max-backlog", backlog]));
    let ids = [reader.id(), writer.id(), stage.server().id()];
    let mut largest = [[0; PARTS.len()]; PROCESSES.len()];
    let (mut before, mut since) = (0, Instant::now());
    loop {
        let written = fs::metadata(stage.output(0)).map_or(0, |data| data.len());
        let share = written as f64 / bytes as f64;
        let part = PARTS.iter().position(|(_, upto)| share <= *upto).unwrap_or(PARTS.len() - 1);
        for (of_process, id) in largest.iter_mut().zip(ids) {
            of_process[part] = of_process[part].max(resident(id));
        }
        if written >= bytes {
            break;
        }
        if written > before {
            (before, since) = (written, Instant::now());
        }
        assert!(writer.is_running() && since.elapsed() < Duration::from_secs(60), "the writer makes no progress");
        std::thread::sleep(LOOK);
    }
    writer.terminate();
    let _ = (reader.ends_well(), writer.ends_well());
    println!("{} MB in {:.1} s; comparing", bytes / 1_000_000, begun.elapsed().as_secs_f64());
    stage.is_delivered(&input, 1);
    for (case, of_process) in cases.iter().zip(largest) {
        let samples: Vec<_> = PARTS
            .iter()
            .zip(of_process)
            // Work of a moment has no sample in every part.
            .filter(|(_, size)| *size > 0)
            .map(|((part, _), size)| (*part, vec![size as f64]))
            .collect();
        rounds.tell(Figure { section, name: case, unit: Bytes }, &samples);
    }
    stage.clear();
    if framing == Framing::Chunk {
        fs::remove_file(&input).unwrap();
    }
}

/// The longest lines that travel in one piece: 64 MiB.
fn long_lines(stage: &Stage, rounds: &mut Rounds) {
    let section = "memory with lines of 64 MiB";
    if !rounds.wants(section, Framing::Line.name()) {
        return;
    }
    let input = stage.path("long.txt");
    let (lines, len) = if rounds.is_test() { (2, 1 << 20) } else { (6, 64 << 20) };
    text::write_of_length(&input, lines, len);
    for framing in [Framing::Line, Framing::Chunk] {
        let done = stage.file_to_file(&input, framing, 1);
        let sizes = [done.reader.peak, done.writer.peak, done.needed.redis_peak];
        let samples: Vec<_> = PROCESSES.into_iter().zip(sizes).map(|(name, size)| (name, vec![size as f64])).collect();
        rounds.tell(Figure { section, name: framing.name(), unit: Bytes }, &samples);
    }
}
