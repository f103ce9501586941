//! One file over the masters of a Redis Cluster: what each process needs for a line, with more
//! masters and with more partitions, and what follows from that for machines with more cores than
//! this one.

#![allow(clippy::unwrap_used, missing_docs, reason = "a bench that cannot do its work ends")]

use std::time::Duration;

use benches::masters::Masters;
use benches::rounds::Unit::{PerSecond, Seconds};
use benches::stage::scaled;
use benches::usage::Running;
use benches::{Figure, Framing, Measured, Rounds, Stage, text};

/// The section of the results.
const SECTION: &str = "several masters";

/// Masters and partitions.
const LAYOUTS: [(&str, usize, u32); 6] = [
    ("1 stream on 1 master", 1, 1),
    ("6 partitions on 1 master", 1, 6),
    ("6 partitions on 2 masters", 2, 6),
    ("6 partitions on 3 masters", 3, 6),
    ("100 partitions on 3 masters", 3, 100),
    ("1,000 partitions on 3 masters", 3, 1000),
];

/// What is measured of a layout; the first four for a million lines.
const MEASURED: [&str; 6] = [
    "processor time of all masters, a million lines",
    "processor time of the busiest master, a million lines",
    "processor time of the reader, a million lines",
    "processor time of the writer, a million lines",
    "file to streams, all on the cores of this machine, a million lines",
    "streams to file, all on the cores of this machine, a million lines",
];

fn main() {
    let Some(stage) = Stage::set() else { return };
    let mut rounds = Rounds::from_env();
    if !rounds.wants(SECTION, "") {
        return;
    }
    // What a start costs, with all its connections, is not a line's: a small file is sent, too, and
    // the difference counts.
    let (few, lines) = (1000, scaled(&rounds, 4000, 4_000_000));
    let (small, input) = (stage.path("few.txt"), stage.path("masters.txt"));
    text::write(&small, few);
    text::write(&input, lines);
    for framing in [Framing::Line, Framing::Chunk] {
        let names = MEASURED.map(|name| format!("{name}, {}", framing.name()));
        let figures = names.each_ref().map(|name| Figure { section: SECTION, name, unit: Seconds });
        let mut clusters = Vec::new();
        for (name, masters, partitions) in LAYOUTS {
            let Some(cluster) = Masters::start(masters, partitions) else { return };
            clusters.push((name, cluster, partitions));
        }
        let mut subjects: Vec<(&str, Measured<'_>)> = Vec::new();
        for (name, cluster, partitions) in &clusters {
            let (stage, small, input) = (&stage, &small, &input);
            let work = move || {
                let least = through(stage, cluster, *partitions, small, framing);
                let all = through(stage, cluster, *partitions, input, framing);
                let of_lines = all.iter().zip(least).map(|(all, least)| all.saturating_sub(least).as_secs_f64());
                of_lines.map(|time| Some(time.max(1e-6) * 1e6 / (lines - few) as f64)).collect()
            };
            subjects.push((name, Box::new(work)));
        }
        let samples = rounds.run_measured(&figures, &mut subjects);
        calculate(&mut rounds, framing, &samples);
    }
}

/// The file goes into the streams, then out of them: what that needs, in the order of [`MEASURED`].
fn through(
    stage: &Stage,
    cluster: &Masters,
    partitions: u32,
    input: &std::path::Path,
    framing: Framing,
) -> [Duration; MEASURED.len()] {
    stage.clear();
    cluster.clear();
    let (url, partitions) = (cluster.url(), partitions.to_string());
    let all = ["--partitions", &partitions, "--once"];
    let before = cluster.processor();
    let reader = Running::start("reader", stage.reader_at(&url, input, framing).args(all)).ends_well();
    let writer = Running::start("writer", stage.writer_at(&url, 0).args(all)).ends_well();
    let masters: Vec<Duration> =
        cluster.processor().iter().zip(before).map(|(after, before)| after.saturating_sub(before)).collect();
    stage.is_merged(input, 1);
    let busiest = masters.iter().max().copied().unwrap_or_default();
    [masters.iter().sum(), busiest, reader.processor, writer.processor, reader.wall, writer.wall]
}

/// What this many partitions would carry, each with a master and a writer of its own, each of those
/// with a core of its own: as much as the process that is busiest. The cost of a line is that
/// measured with about as many partitions.
fn calculate(rounds: &mut Rounds, framing: Framing, samples: &[Vec<Vec<Option<f64>>>]) {
    let cost = |layout: usize, figure: usize| -> Vec<f64> {
        samples[layout].iter().map(|of_round| of_round[figure].unwrap_or(f64::NAN) / 1e6).collect()
    };
    let layouts = [(1, 0), (10, 3), (100, 4), (1000, 5)];
    for (name, readers_of) in [
        ("calculated lines a second, one reader", u32::MAX),
        ("calculated lines a second, a reader for every 10 partitions", 10),
    ] {
        let name = format!("{name}, {}", framing.name());
        let rates: Vec<(String, Vec<f64>)> = layouts
            .iter()
            .map(|&(partitions, like): &(u32, usize)| {
                let readers = partitions.div_ceil(readers_of);
                let costs = [(0, partitions), (2, readers), (3, partitions)].map(|(figure, many)| {
                    cost(like, figure).into_iter().map(|time| f64::from(many) / time).collect::<Vec<f64>>()
                });
                let least = (0..costs[0].len()).map(|round| costs.iter().map(|c| c[round]).fold(f64::MAX, f64::min));
                (format!("{partitions} partitions"), least.collect())
            })
            .collect();
        let shown: Vec<(&str, Vec<f64>)> = rates.iter().map(|(name, rates)| (&name[..], rates.clone())).collect();
        rounds.tell(Figure { section: SECTION, name: &name, unit: PerSecond }, &shown);
    }
}
