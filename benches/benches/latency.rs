//! From the append of a line to the input until it is durable in the output, at several rates,
//! beside what cannot be avoided: one append and fdatasync, and one round trip to Redis, measured
//! in the same rounds.
//!
//! Durable means acknowledged: the writer acknowledges what it has synced, so what the group has
//! neither pending nor before it is durable. An entry's ID ends in its line's offset in the input,
//! so the group's state tells which lines these are. To watch it all the time would slow down what
//! is measured by a tenth of a millisecond and more on two cores. So each line is asked about once
//! at most, and the answers guide the [`Search`] for the quantiles.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a bench that cannot do its work ends")]

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

use benches::rounds::Unit::Seconds;
use benches::rounds::{Spread, shown};
use benches::stage::{GROUP, STREAM};
use benches::usage::Running;
use benches::{Figure, Framing, Measured, Rounds, Stage};
use resp::streams::{XInfoGroups, XPending};
use resp::{Config, Connection, Transaction};
use tokio::runtime::{Builder, Runtime};

const SECTION: &str = "latency";
/// 86 bytes with the newline.
const LINE: &[u8; 86] = b"a line of 86 bytes, as long as the lines of package lists are on average, no more l.s\n";
/// Lines a second, and how many seconds of them are a round.
const RATES: [(u32, f64); 3] = [(10, 20.0), (TARGET_RATE, 10.0), (50_000, 5.0)];
/// The rate for which there is a target.
const TARGET_RATE: u32 = 1000;
/// The target for the median: this many appends with fdatasync, and this many round trips.
const SYNCS: f64 = 2.0;
const ROUND_TRIPS: f64 = 3.0;
/// The target for the 99th percentile: this many medians.
const MEDIANS: f64 = 4.0;
/// Above this rate, several lines are appended at once, so that appends are this far apart.
const TICK: Duration = Duration::from_millis(1);
/// How long a line may take.
const PATIENCE: Duration = Duration::from_secs(30);
const QUANTILES: [(&str, f64); 2] = [("p50", 0.5), ("p99", 0.99)];
/// The largest change of a delay by one answer.
const STEP: f64 = 0.1;

fn main() {
    let Some(stage) = Stage::set() else { return };
    let mut rounds = Rounds::from_env();
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    for (rate, seconds) in RATES {
        let time = Duration::from_secs_f64(if rounds.is_test() { 0.3 } else { seconds });
        let names = QUANTILES.map(|(quantile, _)| format!("{rate} lines/s, {quantile}"));
        let figures = [0, 1].map(|nth| Figure { section: SECTION, name: &names[nth], unit: Seconds });
        let services = |flags| services(&stage, &runtime, flags, rate, time);
        let mut subjects: Vec<(&str, Measured<'_>)> = vec![
            ("one append and fdatasync", Box::new(|| quantiles(disk(&stage.path("bare"), time)))),
            ("one round trip", Box::new(|| quantiles(round_trip(&stage, time)))),
            ("append to durable, group", Box::new(|| services(&[]))),
            ("append to durable, exclusive", Box::new(|| services(&["--consume", "exclusive"]))),
        ];
        let samples = rounds.run_measured(&figures, &mut subjects);
        if rate == TARGET_RATE
            && let [disk, trip, services @ ..] = &samples[..]
        {
            for (mode, samples) in ["group", "exclusive"].into_iter().zip(services) {
                verdict(&mut rounds, mode, disk, trip, samples);
            }
        }
    }
}

/// Compares with the targets, round by round.
fn verdict(
    rounds: &mut Rounds,
    mode: &str,
    disk: &[Vec<Option<f64>>],
    trip: &[Vec<Option<f64>>],
    ours: &[Vec<Option<f64>>],
) {
    let of = |samples: &[Vec<Option<f64>>], quantile: usize| -> Vec<f64> {
        samples.iter().map(|round| round[quantile].unwrap()).collect()
    };
    let (p50, p99) = (of(ours, 0), of(ours, 1));
    let floor: Vec<f64> =
        of(disk, 0).iter().zip(of(trip, 0)).map(|(disk, trip)| SYNCS * disk + ROUND_TRIPS * trip).collect();
    let four: Vec<f64> = p50.iter().map(|p50| MEDIANS * p50).collect();
    for (quantile, target, target_name, ours) in
        [("p50", floor, "2 × (append + fdatasync) + 3 round trips", p50), ("p99", four, "4 × p50", p99)]
    {
        let ratio = Spread::of(&ours.iter().zip(&target).map(|(ours, target)| ours / target).collect::<Vec<_>>());
        let name = format!("{TARGET_RATE} lines/s, {mode}: {quantile} and its target");
        let figure = Figure { section: SECTION, name: &name, unit: Seconds };
        println!(
            "{}: {mode}, {quantile} {}, which is {:.2} × {}, the target ({target_name})",
            if ratio.median <= 1.0 { "met" } else { "missed" },
            shown(Spread::of(&ours).median),
            ratio.median,
            shown(Spread::of(&target).median),
        );
        rounds.tell(figure, &[(target_name, target), ("append to durable", ours)]);
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
    paced(time, || {
        file.write_all(LINE).unwrap();
        file.sync_data().unwrap();
    })
}

/// Sends a command on a bare socket and waits for its reply, a thousand times a second.
fn round_trip(stage: &Stage, time: Duration) -> Vec<Duration> {
    let mut socket = TcpStream::connect(("127.0.0.1", stage.server().port())).unwrap();
    socket.set_nodelay(true).unwrap();
    let mut reply = [0; 7];
    paced(time, || {
        socket.write_all(b"PING\r\n").unwrap();
        socket.read_exact(&mut reply).unwrap();
    })
}

fn paced(time: Duration, mut work: impl FnMut()) -> Vec<Duration> {
    let mut times = Vec::new();
    let begun = Instant::now();
    let time = time.min(Duration::from_secs(3));
    while begun.elapsed() < time {
        let started = Instant::now();
        work();
        times.push(started.elapsed());
        std::thread::sleep(TICK.saturating_sub(started.elapsed()));
    }
    times
}

/// Appends lines, and asks about some of them. How long lines took until they were durable.
fn services(stage: &Stage, runtime: &Runtime, flags: &[&str], rate: u32, time: Duration) -> Vec<Option<f64>> {
    stage.clear();
    let input = stage.path("latency.txt");
    // One line shows that everything is up.
    fs::write(&input, LINE).unwrap();
    let writer = Running::start("writer", stage.writer(0).args(flags));
    let reader = Running::start("reader", &mut stage.reader(&input, Framing::Line));
    let mut group = runtime.block_on(AskGroup::connect(stage));
    let mut end = LINE.len() as u64;
    group.wait_for(runtime, end);

    let mut file = File::options().append(true).open(&input).unwrap();
    let every = TICK.max(Duration::from_secs(1) / rate);
    let at_once = (f64::from(rate) * every.as_secs_f64()).round() as usize;
    let bytes = LINE.repeat(at_once);
    let mut searches = QUANTILES.map(|(_, quantile)| Search::new(quantile));
    let mut turn = 0;
    // The lines that are asked about next: where they end, when they were appended, and when to ask.
    let mut question: Option<(u64, Instant, Instant)> = None;
    let mut next = Instant::now();
    let last = next + time;
    while next < last {
        match question.filter(|(.., at)| *at < next) {
            Some((of_lines, appended, at)) => {
                std::thread::sleep(at.saturating_duration_since(Instant::now()));
                let asked = Instant::now();
                let is_durable = runtime.block_on(group.durable()) >= of_lines;
                // Redis looked in the middle of the round trip.
                searches[turn].found(asked - appended + asked.elapsed() / 2, is_durable);
                turn = (turn + 1) % searches.len();
                question = None;
            }
            None => {
                std::thread::sleep(next.saturating_duration_since(Instant::now()));
                let now = Instant::now();
                file.write_all(&bytes).unwrap();
                end += bytes.len() as u64;
                question.get_or_insert((end, now, now + searches[turn].delay));
                next += every;
            }
        }
    }
    group.wait_for(runtime, end);
    reader.terminate();
    writer.terminate();
    let _ = (reader.ends_well(), writer.ends_well());
    stage.is_delivered(&input, 1);
    searches.map(|search| search.quantile().map(|delay| delay.as_secs_f64())).into()
}

/// Searches a quantile of a time by questions whether it has passed: each answer moves the delay of
/// the next question, so that it stays where this part of the answers is yes.
struct Search {
    quantile: f64,
    delay: Duration,
    asked: Vec<Duration>,
}

impl Search {
    const fn new(quantile: f64) -> Self {
        Self { quantile, delay: Duration::from_micros(300), asked: Vec::new() }
    }

    fn found(&mut self, after: Duration, has_passed: bool) {
        self.asked.push(after);
        let step = if has_passed { self.quantile - 1.0 } else { self.quantile };
        self.delay = self.delay.mul_f64(1.0 + STEP * step);
    }

    /// The median of the delays, once they have settled.
    fn quantile(mut self) -> Option<Duration> {
        let mut settled = self.asked.split_off(self.asked.len() / 2);
        settled.sort();
        settled.get(settled.len() / 2).copied()
    }
}

/// Asks for the group's state.
struct AskGroup(Connection);

impl AskGroup {
    async fn connect(stage: &Stage) -> Self {
        Self(Connection::connect(&Config::from_url(&stage.server().url()).unwrap()).await.unwrap())
    }

    /// Waits until everything up to this offset is acknowledged.
    fn wait_for(&mut self, runtime: &Runtime, end: u64) {
        let begun = Instant::now();
        while runtime.block_on(self.durable()) < end {
            assert!(begun.elapsed() < PATIENCE, "lines do not arrive");
            std::thread::sleep(TICK);
        }
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
