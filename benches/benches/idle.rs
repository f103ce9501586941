//! What the reader and the writer need while nothing happens, after they have streamed a text:
//! processor time and resident size.

#![allow(clippy::unwrap_used, missing_docs, reason = "a bench that cannot do its work ends")]

use std::time::{Duration, Instant};

use benches::rounds::Unit::{Bytes, Percent};
use benches::stage::scaled;
use benches::usage::{Running, processor, resident};
use benches::{Figure, Framing, Measured, Rounds, Stage, text};

fn main() {
    let Some(stage) = Stage::set() else { return };
    let mut rounds = Rounds::from_env();
    let figures = [("processor, of one core", Percent), ("resident size", Bytes)];
    let figures = figures.map(|(name, unit)| Figure { section: "idle", name, unit });
    if !rounds.wants(figures[0].section, figures[0].name) {
        return;
    }
    let (settle, time) = if rounds.is_test() { (0.0, 0.5) } else { (3.0, 10.0) };
    let input = stage.path("input.txt");
    text::write(&input, scaled(&rounds, 2000, 886_323));
    let writer = Running::start("writer", &mut stage.writer(0));
    let reader = Running::start("reader", &mut stage.reader(&input, Framing::Line));
    let writers = [writer];
    stage.wait_for_outputs(&writers, std::fs::metadata(&input).unwrap().len());
    let [writer] = writers;
    std::thread::sleep(Duration::from_secs_f64(settle));
    let of = |process: &Running| {
        let (id, begun, before) = (process.id(), Instant::now(), processor(process.id()));
        std::thread::sleep(Duration::from_secs_f64(time));
        let used = processor(id).saturating_sub(before);
        vec![Some(used.as_secs_f64() / begun.elapsed().as_secs_f64() * 100.0), Some(resident(id) as f64)]
    };
    let mut subjects: Vec<(&str, Measured<'_>)> =
        vec![("reader", Box::new(|| of(&reader))), ("writer", Box::new(|| of(&writer)))];
    rounds.run_measured(&figures, &mut subjects);
    drop(subjects);
    reader.terminate();
    writer.terminate();
    let _ = (reader.ends_well(), writer.ends_well());
}
