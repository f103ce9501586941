//! From the append of a line to the input until it is durable in the output, at several rates,
//! beside what the disk needs for one append and fdatasync in the same round.
//!
//! Durable means acknowledged: the writer acknowledges what it has synced, so what the group has
//! neither pending nor before it is durable. An entry's ID ends in its line's offset in the input,
//! so the group's state tells which lines these are. It is asked for all the time, each 0.1 ms or
//! so, by which the figures are too large at most.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a bench that cannot do its work ends")]

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::sync::mpsc::{self, Receiver, TryRecvError};
use std::time::{Duration, Instant};

use benches::rounds::Unit::Seconds;
use benches::stage::{GROUP, STREAM};
use benches::usage::Running;
use benches::{Figure, Framing, Measured, Rounds, Stage};
use resp::streams::{XInfoGroups, XPending};
use resp::{Config, Connection, Transaction};
use tokio::runtime::{Builder, Runtime};

/// 86 bytes with the newline.
const LINE: &[u8; 86] = b"a line of 86 bytes, as long as the lines of package lists are on average, no more l.s\n";
/// Lines a second, and how many seconds of them are a round.
const RATES: [(u32, f64); 3] = [(10, 30.0), (1000, 10.0), (50_000, 5.0)];
/// Above this rate, several lines are appended at once, so that appends are this far apart.
const TICK: Duration = Duration::from_millis(1);
/// Between two questions for the group's state.
const LOOK: Duration = Duration::from_micros(50);
const QUANTILES: [(&str, f64); 3] = [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)];

fn main() {
    let Some(stage) = Stage::set() else { return };
    let mut rounds = Rounds::from_env();
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    for (rate, seconds) in RATES {
        let time = Duration::from_secs_f64(if rounds.is_test() { 0.3 } else { seconds });
        let names = QUANTILES.map(|(quantile, _)| format!("{rate} lines/s, {quantile}"));
        let figures = [0, 1, 2].map(|nth| Figure { section: "latency", name: &names[nth], unit: Seconds });
        let mut subjects: Vec<(&str, Measured<'_>)> = vec![
            ("one append and fdatasync", Box::new(|| quantiles(disk(&stage.path("bare"), time)))),
            ("append to durable", Box::new(|| quantiles(services(&stage, &runtime, rate, time)))),
        ];
        rounds.run_measured(&figures, &mut subjects);
    }
}

fn quantiles(mut times: Vec<Duration>) -> Vec<Option<f64>> {
    times.sort();
    let at = |quantile: f64| ((times.len() as f64 * quantile) as usize).min(times.len() - 1);
    QUANTILES.map(|(_, quantile)| Some(times[at(quantile)].as_secs_f64())).into()
}

/// Appends a line and syncs it, a thousand times a second.
fn disk(path: &Path, time: Duration) -> Vec<Duration> {
    let mut file = File::create(path).unwrap();
    let mut times = Vec::new();
    let begun = Instant::now();
    let time = time.min(Duration::from_secs(3));
    while begun.elapsed() < time {
        let append = Instant::now();
        file.write_all(LINE).unwrap();
        file.sync_data().unwrap();
        times.push(append.elapsed());
        std::thread::sleep(TICK.saturating_sub(append.elapsed()));
    }
    times
}

/// Lines that were appended at once: where they end in the input, when, and how many.
type Appended = (u64, Instant, u32);

fn services(stage: &Stage, runtime: &Runtime, rate: u32, time: Duration) -> Vec<Duration> {
    stage.clear();
    let input = stage.path("latency.txt");
    // One line shows that everything is up.
    fs::write(&input, LINE).unwrap();
    let writer = Running::start("writer", &mut stage.writer(0));
    let reader = Running::start("reader", &mut stage.reader(&input, Framing::Line));
    let mut group = runtime.block_on(AskGroup::connect(stage));
    let begun = Instant::now();
    while runtime.block_on(group.durable()) < LINE.len() as u64 {
        assert!(begun.elapsed() < Duration::from_secs(20), "the first line does not arrive");
        std::thread::sleep(TICK);
    }
    let (tell, told) = mpsc::channel();
    let times = std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut file = File::options().append(true).open(&input).unwrap();
            let every = TICK.max(Duration::from_secs(1) / rate);
            let at_once = (f64::from(rate) * every.as_secs_f64()).round() as u32;
            let bytes = LINE.repeat(at_once as usize);
            let (mut end, mut next) = (LINE.len() as u64, Instant::now());
            let last = next + time;
            while next < last {
                std::thread::sleep(next.saturating_duration_since(Instant::now()));
                let now = Instant::now();
                file.write_all(&bytes).unwrap();
                end += bytes.len() as u64;
                tell.send((end, now, at_once)).unwrap();
                next += every;
            }
            drop(tell);
        });
        watch(&told, || runtime.block_on(group.durable()))
    });
    reader.terminate();
    writer.terminate();
    let _ = (reader.ends_well(), writer.ends_well());
    stage.is_delivered(&input, 1);
    times
}

/// How long each line took until it was durable.
fn watch(told: &Receiver<Appended>, mut durable: impl FnMut() -> u64) -> Vec<Duration> {
    let (mut waiting, mut times) = (VecDeque::new(), Vec::new());
    let (mut all_told, mut progress) = (false, Instant::now());
    while !all_told || !waiting.is_empty() {
        loop {
            match told.try_recv() {
                Ok(appended) => waiting.push_back(appended),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => {
                    all_told = true;
                    break;
                }
            }
        }
        let (end, now) = (durable(), Instant::now());
        while let Some(&(_, at, lines)) = waiting.front().filter(|(of_lines, ..): &&Appended| *of_lines <= end) {
            waiting.pop_front();
            times.extend((0..lines).map(|_| now - at));
            progress = now;
        }
        assert!(waiting.is_empty() || progress.elapsed() < Duration::from_secs(30), "lines do not arrive");
        std::thread::sleep(LOOK);
    }
    times
}

/// Asks for the group's state.
struct AskGroup(Connection);

impl AskGroup {
    async fn connect(stage: &Stage) -> Self {
        Self(Connection::connect(&Config::from_url(&stage.server().url()).unwrap()).await.unwrap())
    }

    /// The offset in the input up to which everything is acknowledged.
    async fn durable(&mut self) -> u64 {
        let mut questions = Transaction::new();
        let pending = questions.add(XPending::new(STREAM, GROUP));
        let groups = questions.add(XInfoGroups::new(STREAM));
        let mut replies = self.0.exec(&questions).await.unwrap();
        // Not begun: no stream, or no group.
        let (Ok(pending), Ok(groups)) = (replies.take(pending), replies.take(groups)) else { return 0 };
        match (pending.first, groups.first()) {
            // The first that is pending begins somewhere before its end; what ends before that is
            // done.
            (Some(first), _) => first.seq - 1,
            (None, Some(group)) => group.last_delivered_id.seq,
            (None, None) => 0,
        }
    }
}
