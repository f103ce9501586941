//! The reader and the writer, compared in paired rounds with the least that Redis needs for the
//! same work (`redis-cli --pipe` on ready-made commands, and a socket that drains and
//! acknowledges), and with programs that do the same with other clients (`examples/`). Of the same
//! runs: the time, the processor time of each process and of Redis, and the memory.
//!
//! The texts are made: 886,323 lines of 86 bytes on average for `--framing line`, and four times as
//! many for `--framing chunk`, of which so few would be done before the processes have started.
//! `BENCH_INPUT` names another one for both.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a bench that cannot do its work ends")]

use std::fs::{self, File};
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use benches::job::CHUNK;
use benches::rounds::Unit::{Bytes, Seconds};
use benches::server::on_path;
use benches::stage::{GROUP, Needed, PEERS, STREAM, scaled};
use benches::usage::{Running, Usage};
use benches::{Figure, Framing, Measured, Rounds, Stage, drain, text};

const LINES: usize = 886_323;

fn main() {
    let Some(stage) = Stage::set() else { return };
    let Some(cli) = on_path("redis-cli").or_else(|| on_path("valkey-cli")) else {
        println!("skipped: there is no redis-cli on the PATH");
        return;
    };
    let mut rounds = Rounds::from_env();
    let texts = [(Framing::Line, LINES), (Framing::Chunk, 4 * LINES)]
        .map(|(framing, lines)| Text::made(&stage, framing, scaled(&rounds, 2000, lines)));
    let bench = Bench { stage, cli, texts };
    for framing in [Framing::Line, Framing::Chunk] {
        bench.readers(&mut rounds, framing);
    }
    for framing in [Framing::Line, Framing::Chunk] {
        bench.writers(&mut rounds, framing);
    }
    bench.file_to_file(&mut rounds);
}

/// The commands that add the text, ready-made, in a file of their own.
fn protocol(stage: &Stage, text: &[u8], framing: Framing) -> PathBuf {
    let path = stage.path(&format!("protocol-{}", framing.name()));
    let mut out = Vec::with_capacity(text.len() * 3);
    let (mut end, mut begin) = (0, 0);
    let mut add = |payload: &[u8], field: &str, end: usize| {
        let id = format!("1700000000000-{end}");
        let _ = write!(
            out,
            "*5\r\n$4\r\nXADD\r\n$11\r\n{STREAM}\r\n${}\r\n{id}\r\n${}\r\n{field}\r\n${}\r\n",
            id.len(),
            field.len(),
            payload.len()
        );
        out.extend_from_slice(payload);
        out.extend_from_slice(b"\r\n");
    };
    for line in text.split_inclusive(|&byte| byte == b'\n') {
        end += line.len();
        match framing {
            Framing::Line => add(line.strip_suffix(b"\n").unwrap_or(line), "line", end),
            Framing::Chunk if end - begin >= CHUNK || end == text.len() => {
                add(&text[begin..end], "lines", end);
                begin = end;
            }
            Framing::Chunk => {}
        }
    }
    fs::write(&path, out).unwrap();
    path
}

/// The input and the commands of one framing.
struct Text {
    path: PathBuf,
    bytes: u64,
    lines: f64,
    /// The commands that add it.
    protocol: PathBuf,
}

impl Text {
    fn made(stage: &Stage, framing: Framing, lines: usize) -> Self {
        let path = match std::env::var_os("BENCH_INPUT") {
            Some(named) => PathBuf::from(named),
            None => {
                let path = stage.path(&format!("input-{}.txt", framing.name()));
                text::write(&path, lines);
                path
            }
        };
        // Nothing large stays in this process.
        let text = fs::read(&path).unwrap();
        let lines = text.iter().filter(|&&byte| byte == b'\n').count() as f64;
        Self { protocol: protocol(stage, &text, framing), path, bytes: text.len() as u64, lines }
    }
}

struct Bench {
    stage: Stage,
    cli: PathBuf,
    texts: [Text; 2],
}

impl Bench {
    fn text(&self, framing: Framing) -> &Text {
        &self.texts[usize::from(framing == Framing::Chunk)]
    }

    /// The figures of one process and Redis, in the order of [`Self::one_process`].
    fn of(text: &Text, process: Option<Usage>, needed: Needed) -> Vec<Option<f64>> {
        let million = text.lines / 1e6;
        vec![
            Some(needed.wall.as_secs_f64() / text.lines),
            process.map(|usage| usage.processor.as_secs_f64() / million),
            Some(needed.redis.as_secs_f64() / million),
            process.map(|usage| usage.peak as f64),
            Some(needed.redis_peak as f64),
        ]
    }

    fn one_process(&self, rounds: &mut Rounds, what: &str, framing: Framing, subjects: &mut [(&str, Measured<'_>)]) {
        let framing = framing.name();
        let case = format!("--framing {framing}, a line");
        let names = [format!("{what}, {framing}"), format!("Redis meanwhile: {what}, {framing}")];
        let figures = [
            Figure { section: what, name: &case, unit: Seconds },
            Figure { section: "processor time of a million lines", name: &names[0], unit: Seconds },
            Figure { section: "processor time of a million lines", name: &names[1], unit: Seconds },
            Figure { section: "memory", name: &names[0], unit: Bytes },
            Figure { section: "memory", name: &names[1], unit: Bytes },
        ];
        rounds.run_measured(&figures, subjects);
    }

    /// File to stream.
    fn readers(&self, rounds: &mut Rounds, framing: Framing) {
        let text = self.text(framing);
        let run = |name: &'static str, command: &mut Command| {
            self.stage.clear();
            let (usage, needed) = self.stage.needed(|| Running::start(name, command).ends_well());
            Self::of(text, Some(usage), needed)
        };
        let mut subjects: Vec<(&str, Measured<'_>)> = vec![
            ("redis-cli --pipe", Box::new(|| run("redis-cli", &mut self.pipe(framing)))),
            ("reader --once", Box::new(|| run("reader", self.stage.reader(&text.path, framing).arg("--once")))),
        ];
        for peer in PEERS {
            if let Some(mut sender) = self.stage.sender(peer, &text.path, framing) {
                subjects.push((peer, Box::new(move || run(peer, &mut sender))));
            }
        }
        self.one_process(rounds, "reader", framing, &mut subjects);
    }

    /// Stream to file.
    fn writers(&self, rounds: &mut Rounds, framing: Framing) {
        let text = self.text(framing);
        let fill = || {
            self.stage.clear();
            let _ = Running::start("reader", self.stage.reader(&text.path, framing).arg("--once")).ends_well();
        };
        let run = |name: &'static str, command: &mut Command| {
            fill();
            let (usage, needed) = self.stage.needed(|| Running::start(name, command).ends_well());
            self.stage.is_delivered(&text.path, 1);
            Self::of(text, Some(usage), needed)
        };
        let mut subjects: Vec<(&str, Measured<'_>)> = vec![
            (
                "drain and acknowledge",
                Box::new(|| {
                    fill();
                    let ((), needed) = self.stage.needed(|| self.drain(text));
                    Self::of(text, None, needed)
                }),
            ),
            ("writer --once", Box::new(|| run("writer", self.stage.writer(0).arg("--once")))),
        ];
        for peer in PEERS {
            if let Some(mut receiver) = self.stage.receiver(peer, text.bytes, framing) {
                subjects.push((peer, Box::new(move || run(peer, &mut receiver))));
            }
        }
        self.one_process(rounds, "writer", framing, &mut subjects);
    }

    fn file_to_file(&self, rounds: &mut Rounds) {
        let names = ["reader's part", "writer's part", "Redis meanwhile"].map(|part| format!("file to file, {part}"));
        let times = names.iter().map(|name| (&name[..], "processor time of a million lines", Seconds));
        let sizes = names.iter().map(|name| (&name[..], "memory", Bytes));
        let wall = [("all at once, a line", "file to file", Seconds)];
        let figures = wall.into_iter().chain(times).chain(sizes);
        let figures: Vec<_> = figures.map(|(name, section, unit)| Figure { section, name, unit }).collect();
        let of = |text: &Text, parts: Option<(Usage, Usage)>, needed: Needed| {
            let million = text.lines / 1e6;
            let part = |get: fn(&Usage) -> f64| [parts.map(|both| get(&both.0)), parts.map(|both| get(&both.1))];
            let [reader, writer] = part(|usage| usage.processor.as_secs_f64());
            let [reader_peak, writer_peak] = part(|usage| usage.peak as f64);
            vec![
                Some(needed.wall.as_secs_f64() / text.lines),
                reader.map(|time| time / million),
                writer.map(|time| time / million),
                Some(needed.redis.as_secs_f64() / million),
                reader_peak,
                writer_peak,
                Some(needed.redis_peak as f64),
            ]
        };
        let ours = |framing| {
            let text = self.text(framing);
            let done = self.stage.file_to_file(&text.path, framing, 1);
            of(text, Some((done.reader, done.writer)), done.needed)
        };
        let floor = || {
            let text = self.text(Framing::Line);
            self.stage.clear();
            let ((), needed) = self.stage.needed(|| {
                let _ = Running::start("redis-cli", &mut self.pipe(Framing::Line)).ends_well();
                self.drain(text);
            });
            of(text, None, needed)
        };
        let mut subjects: Vec<(&str, Measured<'_>)> = vec![
            ("pipe, then drain", Box::new(floor)),
            ("reader and writer, line", Box::new(|| ours(Framing::Line))),
            ("reader and writer, chunk", Box::new(|| ours(Framing::Chunk))),
        ];
        for (peer, framing, name) in [
            ("redis", Framing::Line, "redis, line"),
            ("redis", Framing::Chunk, "redis, chunk"),
            ("fred", Framing::Line, "fred, line"),
            ("fred", Framing::Chunk, "fred, chunk"),
            ("rustis", Framing::Line, "rustis, line"),
            ("rustis", Framing::Chunk, "rustis, chunk"),
        ] {
            let text = self.text(framing);
            let both = (self.stage.sender(peer, &text.path, framing), self.stage.receiver(peer, text.bytes, framing));
            if let (Some(mut sender), Some(mut receiver)) = both {
                subjects.push((
                    name,
                    Box::new(move || {
                        self.stage.clear();
                        let (parts, needed) = self.stage.needed(|| {
                            let receiving = Running::start(peer, &mut receiver);
                            let sending = Running::start(peer, &mut sender);
                            (sending.ends_well(), receiving.ends_well())
                        });
                        self.stage.is_delivered(&text.path, 1);
                        of(text, Some(parts), needed)
                    }),
                ));
            }
        }
        rounds.run_measured(&figures, &mut subjects);
    }

    fn pipe(&self, framing: Framing) -> Command {
        let mut pipe = Command::new(&self.cli);
        // It fails when Redis refused a command.
        pipe.args(["-p", &self.stage.server().port().to_string(), "--pipe"])
            .stdin(File::open(&self.text(framing).protocol).unwrap())
            .stdout(Stdio::null());
        pipe
    }

    fn drain(&self, text: &Text) {
        let drained = drain(self.stage.server().port(), STREAM, GROUP) as u64;
        assert!(drained > 0 && drained <= text.bytes);
    }
}
