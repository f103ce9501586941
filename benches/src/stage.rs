//! Reader, writer, and the programs that they are compared with, as processes on one private Redis,
//! with one input and one output.
//!
//! The services run with all guarantees: fsync before XACK. `READER_BIN` and `WRITER_BIN` are their
//! paths; `PEERS_DIR` is the folder of the programs built from `examples/`. `cargo xtask bench`
//! sets all three.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::rounds::Rounds;
use crate::server::Server;
use crate::usage::{self, Running, Usage};

/// The key of the stream.
pub const STREAM: &str = "line_stream";
/// The consumer group.
pub const GROUP: &str = "writers";
/// Clients with a program in `examples/` that does the services' work.
pub const PEERS: [&str; 3] = ["redis", "fred", "rustis"];
/// Time between two checks whether the output is complete.
const LOOK: Duration = Duration::from_micros(500);

/// How lines become entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// One entry per line.
    Line,
    /// Many lines per entry.
    Chunk,
}

impl Framing {
    /// The value of `--framing`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Line => "line",
            Self::Chunk => "chunk",
        }
    }
}

/// The environment of the services.
#[derive(Debug)]
pub struct Stage {
    reader: PathBuf,
    writer: PathBuf,
    peers: Option<PathBuf>,
    server: Server,
    folder: tempfile::TempDir,
}

/// The resources used by several processes and Redis.
#[derive(Debug, Clone, Copy)]
pub struct Needed {
    /// From the start of the first process to the exit of the last one.
    pub wall: Duration,
    /// Processor time of Redis meanwhile.
    pub redis: Duration,
    /// Maximum resident set size of Redis.
    pub redis_peak: u64,
}

/// The resources used from file to file.
#[derive(Debug, Clone, Copy)]
pub struct FileToFile {
    /// All processes together.
    pub needed: Needed,
    /// The reader.
    pub reader: Usage,
    /// The writer; for several writers, the sum of their processor times and the maximum of their
    /// sizes.
    pub writer: Usage,
}

impl Stage {
    /// Prints a message and returns `None` if a program is missing.
    ///
    /// # Panics
    ///
    /// If a named program does not exist.
    #[must_use]
    pub fn set() -> Option<Self> {
        Self::set_on(Server::start)
    }

    /// As [`Self::set`], with a Redis that writes an append-only file.
    ///
    /// # Panics
    ///
    /// If a named program does not exist.
    #[must_use]
    pub fn set_with_log() -> Option<Self> {
        Self::set_on(Server::start_with_log)
    }

    fn set_on(start: impl FnOnce() -> Option<Server>) -> Option<Self> {
        let named = |name: &str| std::env::var_os(name).filter(|path| !path.is_empty()).map(PathBuf::from);
        let (Some(reader), Some(writer)) = (named("READER_BIN"), named("WRITER_BIN")) else {
            println!("skipped: READER_BIN and WRITER_BIN are not set; `cargo xtask bench` sets them");
            return None;
        };
        for program in [&reader, &writer] {
            assert!(program.is_file(), "{}: there is no such file", program.display());
        }
        let server = start()?;
        // `BENCH_DIR` selects the disk for the services' files.
        let folder = match named("BENCH_DIR") {
            Some(parent) => tempfile::tempdir_in(parent),
            None => tempfile::tempdir(),
        };
        let folder = folder.expect("a temporary folder");
        let stage = Self { reader, writer, peers: named("PEERS_DIR"), server, folder };
        stage.clear();
        Some(stage)
    }

    /// Uses these programs from now on.
    pub fn use_programs(&mut self, reader: &Path, writer: &Path) {
        (self.reader, self.writer) = (reader.to_owned(), writer.to_owned());
    }

    /// Whether the writer knows a flag.
    ///
    /// # Panics
    ///
    /// If the writer cannot be run.
    #[must_use]
    pub fn writer_knows(&self, flag: &str) -> bool {
        let help = Command::new(&self.writer).arg("--help").output().expect("run writer --help");
        String::from_utf8_lossy(&help.stdout).contains(flag)
    }

    /// The path of a file in the folder of the stage, which is deleted at the end.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The private Redis.
    #[must_use]
    pub const fn server(&self) -> &Server {
        &self.server
    }

    /// Whether the disk has room for this many bytes; prints a message if not.
    ///
    /// # Panics
    ///
    /// If the free space cannot be determined.
    #[must_use]
    pub fn has_room(&self, bytes: u64) -> bool {
        let disk = rustix::fs::statvfs(self.folder.path()).expect("look at the disk");
        let free = disk.f_bavail * disk.f_frsize;
        if free < bytes {
            let (free, bytes) = (free >> 20, bytes >> 20);
            println!("skipped: {bytes} MiB are needed in {}, {free} MiB are free", self.folder.path().display());
        }
        free >= bytes
    }

    /// Removes all data in Redis, the outputs, and the state.
    ///
    /// # Panics
    ///
    /// If that fails.
    pub fn clear(&self) {
        let mut redis = TcpStream::connect(("127.0.0.1", self.server.port())).expect("connect");
        redis.write_all(b"FLUSHALL\r\nMEMORY PURGE\r\n").expect("write");
        let mut reply = [0; 10];
        redis.read_exact(&mut reply).expect("read");
        assert_eq!(&reply, b"+OK\r\n+OK\r\n");
        for name in ["state", "out"] {
            let _ = fs::remove_dir_all(self.path(name));
            fs::create_dir(self.path(name)).expect("create a folder");
        }
    }

    /// Runs `work`, and measures Redis meanwhile.
    pub fn needed<T>(&self, work: impl FnOnce() -> T) -> (T, Needed) {
        let redis = self.server.id();
        usage::forget_peak(redis);
        let (before, begun) = (usage::processor(redis), Instant::now());
        let done = work();
        let wall = begun.elapsed();
        let needed =
            Needed { wall, redis: usage::processor(redis).saturating_sub(before), redis_peak: usage::peak(redis) };
        (done, needed)
    }

    /// The path of the writer's output.
    #[must_use]
    pub fn output(&self, nth: usize) -> PathBuf {
        self.path(&format!("out/output-{nth}.txt"))
    }

    fn service(program: &Path, url: &str) -> Command {
        let mut command = Command::new(program);
        command
            .args(["--redis-url", url, "--stream", STREAM, "--http-addr", "127.0.0.1:0"])
            .env("RUST_LOG", "error")
            .stdin(Stdio::null());
        command
    }

    /// A command for a reader of this file.
    #[must_use]
    pub fn reader(&self, input: &Path, framing: Framing) -> Command {
        self.reader_at(&self.server.url(), input, framing)
    }

    /// As [`Self::reader`], with another Redis.
    #[must_use]
    pub fn reader_at(&self, url: &str, input: &Path, framing: Framing) -> Command {
        let mut reader = Self::service(&self.reader, url);
        reader.arg("--input").arg(input).arg("--state-dir").arg(self.path("state")).args(["--framing", framing.name()]);
        reader
    }

    /// A command for a writer to [`Self::output`].
    #[must_use]
    pub fn writer(&self, nth: usize) -> Command {
        self.writer_at(&self.server.url(), nth)
    }

    /// As [`Self::writer`], with another Redis.
    #[must_use]
    pub fn writer_at(&self, url: &str, nth: usize) -> Command {
        let mut writer = Self::service(&self.writer, url);
        writer.arg("--output").arg(self.output(nth)).args(["--group", GROUP, "--consumer", &format!("bench-{nth}")]);
        writer
    }

    /// A command for a writer that mirrors all sources to [`Self::mirrored`].
    #[must_use]
    pub fn mirror(&self) -> Command {
        let mut writer = Self::service(&self.writer, &self.server.url());
        writer.arg("--output-dir").arg(self.mirrored()).args(["--group", GROUP, "--consumer", "bench"]);
        writer
    }

    /// The folder of the outputs of [`Self::mirror`].
    #[must_use]
    pub fn mirrored(&self) -> PathBuf {
        self.path("out/mirrored")
    }

    /// Waits until the outputs of [`Self::mirror`] together have this many bytes.
    ///
    /// # Panics
    ///
    /// If nothing arrives.
    pub fn wait_for_mirror(&self, writer: &Running, bytes: u64) {
        let len = || {
            let files = fs::read_dir(self.mirrored()).into_iter().flatten().flatten();
            let outputs = files.filter(|file| !file.file_name().to_string_lossy().ends_with(".journal"));
            outputs.filter_map(|file| file.metadata().ok()).map(|data| data.len()).sum::<u64>()
        };
        let (mut before, mut since) = (0, Instant::now());
        loop {
            let now = len();
            if now >= bytes {
                return;
            }
            if now > before {
                (before, since) = (now, Instant::now());
            }
            assert!(writer.is_running(), "the writer ended");
            assert!(
                since.elapsed() < Duration::from_secs(60),
                "the writer makes no progress at {now} of {bytes} bytes"
            );
            // Looking at many files takes time from the services.
            std::thread::sleep(10 * LOOK);
        }
    }

    /// Verifies that the outputs of [`Self::mirror`] have the bytes of the files in this folder
    /// exactly once.
    ///
    /// # Panics
    ///
    /// If they do not.
    pub fn is_mirrored(&self, inputs: &Path) {
        let mut verify = Command::new(&self.writer);
        verify.arg("verify").arg("--input-dir").arg(inputs).arg("--output-dir").arg(self.mirrored());
        let said = verify.output().expect("run writer verify");
        assert!(said.status.success(), "writer verify: {}", String::from_utf8_lossy(&said.stdout));
    }

    /// A command that does the reader's work with another client; `None` if it was not built.
    #[must_use]
    pub fn sender(&self, peer: &str, input: &Path, framing: Framing) -> Option<Command> {
        let mut sender = self.peer(peer)?;
        sender.args(["send", &self.server.url(), STREAM]).arg(input).arg(framing.name());
        Some(sender)
    }

    /// A command that does the writer's work with another client; `None` if it was not built.
    #[must_use]
    pub fn receiver(&self, peer: &str, bytes: u64, framing: Framing) -> Option<Command> {
        let mut receiver = self.peer(peer)?;
        receiver.args(["receive", &self.server.url(), STREAM, GROUP]).arg(self.output(0));
        receiver.args([&bytes.to_string(), framing.name()]);
        Some(receiver)
    }

    fn peer(&self, name: &str) -> Option<Command> {
        let program = self.peers.as_ref()?.join(format!("peer_{name}"));
        program.is_file().then(|| Command::new(program))
    }

    /// Streams the file through the reader and this many writers at once, and verifies that the
    /// outputs have its bytes exactly once.
    ///
    /// # Panics
    ///
    /// If they do not, or if a service fails.
    #[must_use]
    pub fn file_to_file(&self, input: &Path, framing: Framing, writers: usize) -> FileToFile {
        self.clear();
        let bytes = fs::metadata(input).expect("look at the input").len();
        let ((reader, writers), needed) = self.needed(|| {
            let running: Vec<Running> =
                (0..writers).map(|nth| Running::start("writer", &mut self.writer(nth))).collect();
            let reader = Running::start("reader", self.reader(input, framing).arg("--once"));
            self.wait_for_outputs(&running, bytes);
            // The outputs are durable once the writers have exited cleanly.
            running.iter().for_each(Running::terminate);
            let writers: Vec<Usage> = running.into_iter().map(Running::ends_well).collect();
            (reader.ends_well(), writers)
        });
        self.is_delivered(input, writers.len());
        let writer = Usage {
            wall: needed.wall,
            processor: writers.iter().map(|usage| usage.processor).sum(),
            peak: writers.iter().map(|usage| usage.peak).max().unwrap_or(0),
        };
        FileToFile { needed, reader, writer }
    }

    /// Waits until the outputs together have this many bytes.
    ///
    /// # Panics
    ///
    /// If nothing arrives.
    pub fn wait_for_outputs(&self, writers: &[Running], bytes: u64) {
        let len = |nth| fs::metadata(self.output(nth)).map_or(0, |data| data.len());
        let (mut before, mut since) = (0, Instant::now());
        loop {
            let now: u64 = (0..writers.len()).map(len).sum();
            if now >= bytes {
                return;
            }
            if now > before {
                (before, since) = (now, Instant::now());
            }
            assert!(writers.iter().all(Running::is_running), "a writer ended");
            assert!(since.elapsed() < Duration::from_secs(60), "the writers stand still at {now} of {bytes} bytes");
            std::thread::sleep(LOOK);
        }
    }

    /// Verifies with `writer verify` that outputs whose lines are not in order have the bytes of
    /// the input exactly once.
    ///
    /// # Panics
    ///
    /// If they do not.
    pub fn is_merged(&self, input: &Path, outputs: usize) {
        let mut verify = Command::new(&self.writer);
        verify.arg("verify").arg("--input").arg(input);
        for nth in 0..outputs {
            verify.arg("--output").arg(self.output(nth));
        }
        let said = verify.output().expect("run writer verify");
        assert!(said.status.success(), "writer verify: {}", String::from_utf8_lossy(&said.stdout));
    }

    /// Verifies that the outputs have the bytes of the input exactly once: a single output by
    /// comparison, several with `writer verify`.
    ///
    /// # Panics
    ///
    /// If they do not.
    pub fn is_delivered(&self, input: &Path, outputs: usize) {
        if outputs == 1 {
            assert!(are_equal(input, &self.output(0)), "the output is not the input");
            return;
        }
        self.is_merged(input, outputs);
    }
}

/// The number of lines for a test run, or for a measurement.
#[must_use]
pub const fn scaled(rounds: &Rounds, quick: usize, measured: usize) -> usize {
    if rounds.is_test() { quick } else { measured }
}

fn are_equal(one: &Path, other: &Path) -> bool {
    const PIECE: usize = 1 << 20;
    let open = |path: &Path| File::open(path).expect("open");
    let (mut one, mut other) = (open(one), open(other));
    let (mut ours, mut theirs) = (Vec::with_capacity(PIECE), Vec::with_capacity(PIECE));
    loop {
        for (file, piece) in [(&mut one, &mut ours), (&mut other, &mut theirs)] {
            piece.clear();
            file.take(PIECE as u64).read_to_end(piece).expect("read");
        }
        if ours != theirs {
            return false;
        }
        if ours.is_empty() {
            return true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_compared_to_the_last_byte() {
        let folder = tempfile::tempdir().expect("a folder");
        let (one, other) = (folder.path().join("one"), folder.path().join("other"));
        let mut bytes = vec![7; (1 << 20) + 5];
        fs::write(&one, &bytes).expect("write");
        fs::write(&other, &bytes).expect("write");
        assert!(are_equal(&one, &other));
        bytes.push(7);
        fs::write(&other, &bytes).expect("write");
        assert!(!are_equal(&one, &other), "longer");
        bytes.pop();
        bytes[1 << 20] = 8;
        fs::write(&other, &bytes).expect("write");
        assert!(!are_equal(&one, &other), "another byte");
    }
}
