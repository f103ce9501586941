//! A private redis-server: persistence, crashes, replicas.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;

use crate::client::{Client, Value};
use crate::port::Port;
use crate::process::Process;
use crate::wait;

/// The persistence of Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Persistence {
    /// Nothing.
    None,
    /// The append-only file, synced every second.
    Everysec,
    /// The append-only file, synced before every reply.
    Always,
}

/// A redis-server (or valkey-server) of its own, on a Unix socket and on a TCP port of 127.0.0.1.
/// Killed when dropped.
#[derive(Debug)]
pub struct RedisServer {
    process: Option<Process>,
    port: Port,
    folder: PathBuf,
    socket: PathBuf,
    persistence: Persistence,
    extra: Vec<String>,
    starts: usize,
}

impl RedisServer {
    /// Starts a server with its files in `folder`, and waits until it answers.
    #[must_use]
    pub fn start(folder: &Path, persistence: Persistence) -> Self {
        Self::start_with(folder, persistence, &[])
    }

    /// As [`Self::start`], with more arguments for redis-server.
    #[must_use]
    pub fn start_with(folder: &Path, persistence: Persistence, extra: &[&str]) -> Self {
        std::fs::create_dir_all(folder).expect("a folder for Redis");
        let mut server = Self {
            process: None,
            port: Port::take(),
            folder: folder.to_owned(),
            socket: folder.join("s"),
            persistence,
            extra: extra.iter().map(|arg| (*arg).to_owned()).collect(),
            starts: 0,
        };
        server.start_again();
        server
    }

    /// Starts a replica of `master`, and waits until it is in sync.
    #[must_use]
    pub fn start_replica_of(master: &Self, folder: &Path) -> Self {
        let of = master.port().to_string();
        let replica = Self::start_with(
            folder,
            Persistence::None,
            &["--replicaof", "127.0.0.1", &of, "--repl-diskless-sync-delay", "0"],
        );
        replica.wait_in_sync();
        replica
    }

    /// Waits until it is in sync with its master.
    pub fn wait_in_sync(&self) {
        wait::until("the replica is in sync", || self.info("master_link_status").as_deref() == Some("up"));
    }

    /// Its role: `master` or `slave`.
    #[must_use]
    pub fn role(&self) -> Option<String> {
        let Ok(Ok(role)) = self.try_call(&["ROLE"]) else { return None };
        role.list().first().map(Value::text)
    }

    /// Starts the server again on the same files and port, and waits until it answers.
    pub fn start_again(&mut self) {
        assert!(self.process.is_none(), "Redis runs");
        self.starts += 1;
        let log = self.folder.join(format!("redis-{}.log", self.starts));
        let (append, fsync) = match self.persistence {
            Persistence::None => ("no", "no"),
            Persistence::Everysec => ("yes", "everysec"),
            Persistence::Always => ("yes", "always"),
        };
        let mut args: Vec<String> =
            ["--port", &self.port.number().to_string(), "--bind", "127.0.0.1"].map(String::from).into();
        args.extend(
            ["--unixsocket", &self.socket.to_string_lossy(), "--dir", &self.folder.to_string_lossy()].map(String::from),
        );
        args.extend(["--save", "", "--appendonly", append, "--appendfsync", fsync].map(String::from));
        args.extend(self.extra.iter().cloned());
        let none: [(&str, &str); 0] = [];
        // Redis logs to standard output by default.
        args.extend(["--logfile", &log.with_extension("server").to_string_lossy()].map(String::from));
        self.process = Some(Process::start("redis", &program(), args, none, log));
        wait::until("Redis answers PING", || {
            let ended = self.process.as_mut().and_then(Process::try_exit);
            assert!(ended.is_none(), "redis-server ended: {}", self.server_log());
            match self.try_call(&["PING"]) {
                Ok(Ok(_)) => true,
                Ok(Err(refusal)) => refusal.starts_with("NOAUTH"),
                Err(_) => false,
            }
        });
    }

    /// Sends SIGKILL.
    pub fn kill9(&mut self) {
        self.process.take().expect("Redis runs").kill9();
    }

    /// Sends SIGTERM: Redis saves its data and exits.
    pub fn stop(&mut self) {
        let mut process = self.process.take().expect("Redis runs");
        process.signal(Signal::TERM);
        process.wait_exit(Duration::from_secs(30));
    }

    /// Kills the server, and starts it again at once.
    pub fn crash(&mut self) {
        self.kill9();
        self.start_again();
    }

    /// Freezes it (SIGSTOP).
    pub fn freeze(&self) {
        self.process.as_ref().expect("Redis runs").signal(Signal::STOP);
    }

    /// Ends [`Self::freeze`] (SIGCONT).
    pub fn thaw(&self) {
        self.process.as_ref().expect("Redis runs").signal(Signal::CONT);
    }

    /// While the server is down: removes up to `bytes` bytes from the end of the append-only file,
    /// as a power loss removes unsynced bytes. Returns the number of removed bytes.
    pub fn lose_tail(&mut self, bytes: u64) -> u64 {
        assert!(self.process.is_none(), "Redis runs");
        let dir = self.folder.join("appendonlydir");
        let file = std::fs::read_dir(&dir)
            .into_iter()
            .flatten()
            .map(|entry| entry.expect("a folder entry").path())
            .filter(|path| path.to_string_lossy().ends_with(".incr.aof"))
            .max()
            .unwrap_or_else(|| self.folder.join("appendonly.aof"));
        let file = std::fs::File::options().write(true).open(&file).expect("the append-only file");
        let length = file.metadata().expect("the append-only file").len();
        let lost = bytes.min(length);
        file.set_len(length - lost).expect("cut the append-only file");
        lost
    }

    /// Sends a command on its own connection.
    ///
    /// # Errors
    ///
    /// An I/O error, or inside, Redis' error reply.
    pub fn try_call<A: AsRef<[u8]>>(&self, args: &[A]) -> std::io::Result<Result<Value, String>> {
        Client::connect(&self.socket)?.call(args)
    }

    /// Sends a command that must succeed.
    #[track_caller]
    pub fn call<A: AsRef<[u8]>>(&self, args: &[A]) -> Value {
        let name = String::from_utf8_lossy(args[0].as_ref()).into_owned();
        match self.try_call(args) {
            Ok(Ok(value)) => value,
            Ok(Err(refusal)) => panic!("{name}: {refusal}"),
            Err(error) => panic!("{name}: {error}"),
        }
    }

    /// Sends a command line, split at spaces.
    #[track_caller]
    pub fn cli(&self, command: &str) -> Value {
        self.call(&command.split(' ').collect::<Vec<_>>())
    }

    /// Opens a connection.
    #[must_use]
    pub fn client(&self) -> Client {
        Client::connect(&self.socket).expect("Redis listens")
    }

    /// Removes all data.
    pub fn flushall(&self) {
        self.call(&["FLUSHALL"]);
    }

    /// CONFIG SET.
    pub fn config_set(&self, name: &str, value: &str) {
        self.call(&["CONFIG", "SET", name, value]);
    }

    /// A field of INFO.
    #[must_use]
    pub fn info(&self, field: &str) -> Option<String> {
        let info = self.call(&["INFO"]).text();
        info.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':').map(str::to_owned))
    }

    /// Its TCP port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port.number()
    }

    /// The data that survives its death.
    #[must_use]
    pub const fn persistence(&self) -> Persistence {
        self.persistence
    }

    /// Its URL over TCP.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port())
    }

    /// Its URL over the Unix socket.
    #[must_use]
    pub fn unix_url(&self) -> String {
        format!("unix://{}", self.socket.display())
    }

    fn server_log(&self) -> String {
        let log = self.folder.join(format!("redis-{}.server", self.starts));
        std::fs::read_to_string(log).unwrap_or_default()
    }
}

/// `REDIS_SERVER` of the environment, else the first one on the PATH.
#[must_use]
pub fn program() -> PathBuf {
    if let Some(path) = std::env::var_os("REDIS_SERVER") {
        return path.into();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    ["redis-server", "valkey-server"]
        .iter()
        .flat_map(|name| std::env::split_paths(&path).map(move |folder| folder.join(name)))
        .find(|program| program.exists())
        .expect("redis-server or valkey-server on the PATH, or REDIS_SERVER set")
}
