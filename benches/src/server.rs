//! A private redis-server.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A private server on a free port of 127.0.0.1, without persistence. Killed when dropped.
#[derive(Debug)]
pub struct Server {
    process: Child,
    port: u16,
    bus: u16,
    _folder: tempfile::TempDir,
}

impl Server {
    /// Starts the server in `REDIS_SERVER`, else `redis-server` or `valkey-server` from the PATH.
    /// Prints a message and returns `None` if there is none.
    #[must_use]
    pub fn start() -> Option<Self> {
        Self::start_with(|_| Vec::new())
    }

    /// As [`Self::start`], with an append-only file that is synced every second and never
    /// rewritten.
    #[must_use]
    pub fn start_with_log() -> Option<Self> {
        Self::start_with(|_| {
            let words = ["--appendonly", "yes", "--appendfsync", "everysec", "--auto-aof-rewrite-percentage", "0"];
            words.map(str::to_owned).into()
        })
    }

    /// As [`Self::start`], as a replica of this server.
    #[must_use]
    pub fn start_replica(&self) -> Option<Self> {
        let master = self.port.to_string();
        Self::start_with(|_| ["--replicaof".to_owned(), "127.0.0.1".to_owned(), master].into())
    }

    /// As [`Self::start`], as a node that can join a cluster.
    #[must_use]
    pub fn start_in_cluster() -> Option<Self> {
        Self::start_with(|bus| {
            ["--cluster-enabled", "yes", "--cluster-port", &bus.to_string()].map(str::to_owned).into()
        })
    }

    fn start_with(more: impl FnOnce(u16) -> Vec<String>) -> Option<Self> {
        let Some(program) = program() else {
            println!("skipped: no redis-server on the PATH, and REDIS_SERVER is not set");
            return None;
        };
        let folder = tempfile::tempdir().expect("a temporary folder");
        let sockets = [0, 0].map(|any| TcpListener::bind((Ipv4Addr::LOCALHOST, any)).expect("a free port"));
        let [port, bus] = sockets.each_ref().map(|socket| socket.local_addr().expect("a free port").port());
        drop(sockets);
        let process = Command::new(&program)
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir"])
            .arg(folder.path())
            .args(more(bus))
            .stdout(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", program.display()));
        let begun = Instant::now();
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            assert!(begun.elapsed() < Duration::from_secs(20), "{} does not answer", program.display());
            std::thread::sleep(Duration::from_millis(5));
        }
        Some(Self { process, port, bus, _folder: folder })
    }

    /// The TCP port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The port of the cluster bus.
    #[must_use]
    pub const fn bus(&self) -> u16 {
        self.bus
    }

    /// The process ID.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Sends a command, and returns its reply: a line, or a bulk string.
    ///
    /// # Panics
    ///
    /// If the server does not reply, or with an error.
    #[must_use]
    pub fn ask(&self, command: &str) -> String {
        let mut socket = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).expect("connect");
        socket.write_all(format!("{command}\r\n").as_bytes()).expect("write");
        let mut input = BufReader::new(socket);
        let mut reply = String::new();
        input.read_line(&mut reply).expect("read");
        assert!(!reply.starts_with('-'), "{command}: {reply}");
        let Some(len) = reply.strip_prefix('$') else { return reply[1..].trim_end().to_owned() };
        let mut bulk = String::new();
        input.take(len.trim_end().parse().expect("a length")).read_to_string(&mut bulk).expect("read");
        bulk
    }

    /// The number in a field of `INFO`.
    ///
    /// # Panics
    ///
    /// If there is none.
    #[must_use]
    pub fn info(&self, field: &str) -> u64 {
        let text = self.ask("INFO");
        let value = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':')?.trim().parse().ok());
        value.unwrap_or_else(|| panic!("INFO has no {field}"))
    }

    /// The URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn program() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("REDIS_SERVER").filter(|named| !named.is_empty()) {
        return Some(named.into());
    }
    on_path("redis-server").or_else(|| on_path("valkey-server"))
}

/// The path of a program on the PATH.
#[must_use]
pub fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| Path::is_file(file))
}
