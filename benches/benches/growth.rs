//! Cost as the work grows: from file to file, more lines, longer lines, more writers. In a case the
//! subjects are sizes: a ratio of 1 says that a line, or a byte, costs as much as it does at the
//! smallest size.

#![allow(clippy::unwrap_used, missing_docs, reason = "a bench that cannot do its work ends")]

use std::fs;
use std::path::Path;

use benches::rounds::Unit::{Bytes, Seconds};
use benches::stage::{FileToFile, scaled};
use benches::{Figure, Framing, Measured, Rounds, Stage, text};

/// Bytes of an average line of a made text.
const LINE: u64 = 86;

fn main() {
    let Some(stage) = Stage::set() else { return };
    let mut rounds = Rounds::from_env();
    for framing in [Framing::Line, Framing::Chunk] {
        lines(&stage, &mut rounds, framing);
    }
    for framing in [Framing::Line, Framing::Chunk] {
        lengths(&stage, &mut rounds, framing);
    }
    writers(&stage, &mut rounds);
}

/// The figures' names: of the time, then of the memory of each process.
fn names(of_time: &[&str], framing: Framing) -> Vec<String> {
    let memory = ["memory of the reader", "memory of the writer", "memory of Redis"];
    of_time.iter().chain(&memory).map(|name| format!("{name}, {}", framing.name())).collect()
}

fn figures<'a>(section: &'a str, names: &'a [String]) -> Vec<Figure<'a>> {
    let unit = |name: &str| if name.starts_with("memory") { Bytes } else { Seconds };
    names.iter().map(|name| Figure { section, name, unit: unit(name) }).collect()
}

fn memory(done: &FileToFile) -> impl Iterator<Item = Option<f64>> {
    [done.reader.peak, done.writer.peak, done.needed.redis_peak].into_iter().map(|bytes| Some(bytes as f64))
}

fn lines(stage: &Stage, rounds: &mut Rounds, framing: Framing) {
    let names = names(&["time a line"], framing);
    let figures = figures("growth, number of lines", &names);
    if !rounds.wants(figures[0].section, figures[0].name) {
        return;
    }
    let mut inputs = Vec::new();
    for (name, quick, measured) in
        [("1 M lines", 1000, 1_000_000), ("10 M lines", 4000, 10_000_000), ("50 M lines", 8000, 50_000_000)]
    {
        let lines = scaled(rounds, quick, measured);
        // The input, the output, and as much again for everything else.
        if !stage.has_room(lines as u64 * LINE * 3) {
            break;
        }
        let path = stage.path(&format!("{lines}.txt"));
        text::write(&path, lines);
        inputs.push((name, path, lines));
    }
    let mut subjects: Vec<(&str, Measured<'_>)> = Vec::new();
    for (name, input, lines) in &inputs {
        let work = move || {
            let done = stage.file_to_file(input, framing, 1);
            let time = done.needed.wall.as_secs_f64() / *lines as f64;
            std::iter::once(Some(time)).chain(memory(&done)).collect()
        };
        subjects.push((name, Box::new(work)));
    }
    rounds.run_measured(&figures, &mut subjects);
    drop(subjects);
    remove(inputs.iter().map(|(_, path, _)| path.as_path()));
    stage.clear();
}

fn lengths(stage: &Stage, rounds: &mut Rounds, framing: Framing) {
    let names = names(&["time a MiB", "time a line"], framing);
    let figures = figures("growth, length of lines", &names);
    if !rounds.wants(figures[0].section, figures[0].name) {
        return;
    }
    let mut inputs = Vec::new();
    for (name, len, lines) in
        [("10 B", 10, 2_000_000), ("100 B", 100, 1_000_000), ("1 KiB", 1 << 10, 200_000), ("100 KiB", 100 << 10, 4000)]
    {
        let lines = scaled(rounds, 40, lines);
        let path = stage.path(&format!("of-{len}.txt"));
        text::write_of_length(&path, lines, len);
        inputs.push((name, path, lines, len));
    }
    let mut subjects: Vec<(&str, Measured<'_>)> = Vec::new();
    for (name, input, lines, len) in &inputs {
        let work = move || {
            let done = stage.file_to_file(input, framing, 1);
            let (wall, lines) = (done.needed.wall.as_secs_f64(), *lines as f64);
            let mebibytes = lines * *len as f64 / f64::from(1 << 20);
            [wall / mebibytes, wall / lines].map(Some).into_iter().chain(memory(&done)).collect()
        };
        subjects.push((name, Box::new(work)));
    }
    rounds.run_measured(&figures, &mut subjects);
    drop(subjects);
    remove(inputs.iter().map(|(_, path, ..)| path.as_path()));
}

fn writers(stage: &Stage, rounds: &mut Rounds) {
    let lines = scaled(rounds, 2000, 2_000_000);
    let input = stage.path("writers.txt");
    text::write(&input, lines);
    for framing in [Framing::Line, Framing::Chunk] {
        let names = ["time a line", "processor time of all writers, a million lines"]
            .map(|name| format!("{name}, {}", framing.name()));
        let figures = figures("growth, number of writers", &names);
        let mut subjects: Vec<(&str, Measured<'_>)> = Vec::new();
        for (name, writers) in [("1 writer", 1), ("2 writers", 2), ("4 writers", 4)] {
            let input = &input;
            let work = move || {
                let done = stage.file_to_file(input, framing, writers);
                let wall = done.needed.wall.as_secs_f64() / lines as f64;
                vec![Some(wall), Some(done.writer.processor.as_secs_f64() / lines as f64 * 1e6)]
            };
            subjects.push((name, Box::new(work)));
        }
        rounds.run_measured(&figures, &mut subjects);
    }
}

fn remove<'a>(inputs: impl Iterator<Item = &'a Path>) {
    for input in inputs {
        fs::remove_file(input).unwrap();
    }
}
