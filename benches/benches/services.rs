//! The reader and the writer, compared in paired rounds with the least that Redis needs for the same work: `redis-cli --pipe` on ready-made
//! commands, and a socket that drains and acknowledges.
//!
//! The services run with all guarantees: fsync before XACK. `READER_BIN` and `WRITER_BIN` name them (`cargo xtask bench` does). The text is made,
//! 886,323 lines of 86 bytes on average; `BENCH_INPUT` names another one.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a bench that cannot do its work ends")]

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use benches::rounds::Work;
use benches::server::on_path;
use benches::{Case, Rounds, Server, drain, text};

const STREAM: &str = "line_stream";
const GROUP: &str = "writers";
const LINES: usize = 886_323;
/// Bytes of lines in a ready-made entry of the framing `chunk`.
const CHUNK: usize = 64 << 10;

fn main() {
    let (Some(reader), Some(writer)) = (program("READER_BIN"), program("WRITER_BIN")) else {
        println!("skipped: READER_BIN and WRITER_BIN are not set; `cargo xtask bench services` sets them");
        return;
    };
    let Some(server) = Server::start() else { return };
    let Some(cli) = on_path("redis-cli").or_else(|| on_path("valkey-cli")) else {
        println!("skipped: there is no redis-cli on the PATH");
        return;
    };
    let mut rounds = Rounds::from_env();
    let folder = tempfile::tempdir().unwrap();
    let input = match std::env::var_os("BENCH_INPUT") {
        Some(named) => PathBuf::from(named),
        None => {
            let path = folder.path().join("input.txt");
            text::write(&path, if rounds.is_test() { 2000 } else { LINES });
            path
        }
    };
    let bytes = fs::read(&input).unwrap();
    let bench = Bench { reader, writer, cli, server, folder: folder.path().to_owned(), input, bytes };
    bench.measure(&mut rounds);
}

fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os(name).filter(|path| !path.is_empty()).map(PathBuf::from)?;
    assert!(path.is_file(), "{name}={}: there is no such file", path.display());
    Some(path)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Framing {
    Line,
    Chunk,
}

impl Framing {
    const fn name(self) -> &'static str {
        match self {
            Self::Line => "line",
            Self::Chunk => "chunk",
        }
    }
}

struct Bench {
    reader: PathBuf,
    writer: PathBuf,
    cli: PathBuf,
    server: Server,
    folder: PathBuf,
    input: PathBuf,
    bytes: Vec<u8>,
}

impl Bench {
    fn measure(&self, rounds: &mut Rounds) {
        let lines = self.bytes.iter().filter(|&&byte| byte == b'\n').count();
        let operations = u32::try_from(lines).unwrap();
        for framing in [Framing::Line, Framing::Chunk] {
            let protocol = self.protocol(framing);
            let mut subjects: Vec<(&str, Work<'_>)> = vec![
                ("redis-cli --pipe", Box::new(|| self.pipe(&protocol))),
                ("reader --once", Box::new(|| self.read(framing))),
            ];
            let name = format!("--framing {}, a line", framing.name());
            rounds.run(Case { section: "reader", name: &name, operations }, &mut subjects);
        }
        for framing in [Framing::Line, Framing::Chunk] {
            let mut subjects: Vec<(&str, Work<'_>)> = vec![
                ("drain and acknowledge", Box::new(|| self.drain(framing))),
                ("writer --once", Box::new(|| self.write(framing))),
            ];
            let name = format!("--framing {}, a line", framing.name());
            rounds.run(Case { section: "writer", name: &name, operations }, &mut subjects);
        }
        let protocol = self.protocol(Framing::Line);
        let mut subjects: Vec<(&str, Work<'_>)> = vec![
            ("pipe, then drain", Box::new(|| self.pipe(&protocol) + self.drain_what_is_there())),
            ("reader and writer, line", Box::new(|| self.file_to_file(Framing::Line))),
            ("reader and writer, chunk", Box::new(|| self.file_to_file(Framing::Chunk))),
        ];
        rounds.run(Case { section: "file to file", name: "all at once, a line", operations }, &mut subjects);
    }

    /// The commands that add the file, ready-made, in a file of their own.
    fn protocol(&self, framing: Framing) -> PathBuf {
        let path = self.folder.join(format!("protocol-{}", framing.name()));
        let mut out = Vec::with_capacity(self.bytes.len() * 3);
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
        for line in self.bytes.split_inclusive(|&byte| byte == b'\n') {
            end += line.len();
            match framing {
                Framing::Line => add(line.strip_suffix(b"\n").unwrap_or(line), "line", end),
                Framing::Chunk if end - begin >= CHUNK || end == self.bytes.len() => {
                    add(&self.bytes[begin..end], "lines", end);
                    begin = end;
                }
                Framing::Chunk => {}
            }
        }
        fs::write(&path, out).unwrap();
        path
    }

    /// Nothing in Redis, no output, no state.
    fn begin(&self) {
        let mut redis = TcpStream::connect(("127.0.0.1", self.server.port())).unwrap();
        redis.write_all(b"FLUSHALL\r\n").unwrap();
        let mut reply = [0; 5];
        redis.read_exact(&mut reply).unwrap();
        assert_eq!(&reply, b"+OK\r\n");
        for name in ["state", "out"] {
            let _ = fs::remove_dir_all(self.folder.join(name));
            fs::create_dir(self.folder.join(name)).unwrap();
        }
    }

    fn pipe(&self, protocol: &Path) -> Duration {
        self.begin();
        let begun = Instant::now();
        let run = Command::new(&self.cli)
            .args(["-p", &self.server.port().to_string(), "--pipe"])
            .stdin(File::open(protocol).unwrap())
            .output()
            .unwrap();
        let took = begun.elapsed();
        let said = String::from_utf8_lossy(&run.stdout);
        assert!(run.status.success() && said.contains("errors: 0"), "redis-cli --pipe: {said}");
        took
    }

    fn service(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command
            .args(["--redis-url", &self.server.url(), "--stream", STREAM, "--http-addr", "127.0.0.1:0"])
            .env("RUST_LOG", "error")
            .stdin(Stdio::null());
        command
    }

    fn reader(&self, framing: Framing) -> Command {
        let mut reader = self.service(&self.reader);
        reader.arg("--input").arg(&self.input).arg("--state-dir").arg(self.folder.join("state"));
        reader.args(["--framing", framing.name(), "--once"]);
        reader
    }

    fn output(&self) -> PathBuf {
        self.folder.join("out/output.txt")
    }

    fn writer(&self) -> Command {
        let mut writer = self.service(&self.writer);
        writer.arg("--output").arg(self.output()).args(["--group", GROUP, "--consumer", "bench"]);
        writer
    }

    fn read(&self, framing: Framing) -> Duration {
        self.begin();
        let begun = Instant::now();
        ends_well(&mut self.reader(framing).spawn().unwrap(), "reader");
        begun.elapsed()
    }

    fn drain(&self, framing: Framing) -> Duration {
        self.read(framing);
        self.drain_what_is_there()
    }

    fn drain_what_is_there(&self) -> Duration {
        let begun = Instant::now();
        let drained = drain(self.server.port(), STREAM, GROUP);
        let took = begun.elapsed();
        assert!(drained > 0 && drained <= self.bytes.len());
        took
    }

    fn write(&self, framing: Framing) -> Duration {
        self.read(framing);
        let begun = Instant::now();
        ends_well(self.writer().arg("--once").spawn().as_mut().unwrap(), "writer");
        let took = begun.elapsed();
        self.is_identical();
        took
    }

    fn file_to_file(&self, framing: Framing) -> Duration {
        self.begin();
        let begun = Instant::now();
        let mut writer = self.writer().spawn().unwrap();
        let mut reader = self.reader(framing).spawn().unwrap();
        let len = || fs::metadata(self.output()).map_or(0, |data| data.len());
        while len() < self.bytes.len() as u64 {
            assert!(writer.try_wait().unwrap().is_none(), "the writer ended");
            assert!(begun.elapsed() < Duration::from_secs(600), "the writer stands still");
            std::thread::sleep(Duration::from_micros(500));
        }
        // What the output holds now is durable when the writer has ended in an orderly way.
        terminate(&writer);
        ends_well(&mut writer, "writer");
        let took = begun.elapsed();
        ends_well(&mut reader, "reader");
        self.is_identical();
        took
    }

    fn is_identical(&self) {
        assert!(fs::read(self.output()).unwrap() == self.bytes, "the output is not the input");
    }
}

fn ends_well(service: &mut Child, name: &str) {
    let status = service.wait().unwrap();
    assert!(status.success(), "{name}: {status}");
}

fn terminate(service: &Child) {
    rustix::process::kill_process(rustix::process::Pid::from_child(service), rustix::process::Signal::TERM).unwrap();
}
