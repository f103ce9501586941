//! A private server for each test. `REDIS_SERVER=/path` chooses the binary.
#![allow(dead_code, reason = "each test uses some of it")]

pub(crate) mod certificates;
pub(crate) mod proxy;

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use resp::{Config, Connection, Endpoint};

pub(crate) struct Server {
    child: Child,
    folder: tempfile::TempDir,
    pub(crate) port: u16,
}

impl Server {
    /// Starts a server on a Unix socket and a free port.
    pub(crate) fn start() -> Self {
        Self::with(&[])
    }

    pub(crate) fn with(options: &[&str]) -> Self {
        Self::with_file(&[], options)
    }

    /// The same with a configuration file and what stands behind it.
    fn with_file(file: &[&str], options: &[&str]) -> Self {
        // Another process can take the port between the look and the start.
        for _ in 0..10 {
            if let Some(server) = Self::try_start(file, options) {
                return server;
            }
        }
        panic!("redis-server does not start; REDIS_SERVER=/path chooses the binary");
    }

    /// Starts a server that speaks TLS too, with files of this folder. `None`, and a word about it, when it was built without TLS.
    pub(crate) fn with_tls(files: &std::path::Path, clients: &str) -> Option<(Self, u16)> {
        // Every server refuses this; one with TLS, because it misses a certificate.
        let probe = Command::new(binary()).args(["--port", "0", "--tls-port", "1", "--save", ""]).output().unwrap();
        if !String::from_utf8_lossy(&probe.stdout).contains("tls-cert-file") {
            skipped("TLS: this server was built without it");
            return None;
        }
        Some(Self::tls(&[], files, clients, &[]))
    }

    /// Starts a Sentinel that speaks TLS too, and names the server at this port of 127.0.0.1 as the master `m`.
    pub(crate) fn sentinel_with_tls(files: &std::path::Path, master: u16) -> (Self, u16) {
        let file = files.join("sentinel.conf");
        std::fs::write(&file, format!("sentinel monitor m 127.0.0.1 {master} 1\n")).unwrap();
        Self::tls(&[file.to_str().unwrap(), "--sentinel"], files, "no", &[])
    }

    /// Starts a cluster of one node that has all slots. Over TCP, as its topology says.
    pub(crate) async fn cluster() -> Self {
        let bus = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
        let server = Self::with(&["--cluster-enabled", "yes", "--cluster-port", &bus]);
        let mut connection = Connection::connect(&server.tcp()).await.unwrap();
        let slots = resp::cmd::<resp::Frame>("CLUSTER ADDSLOTS").args(0..16384_u32);
        connection.send(&slots).await.unwrap();
        loop {
            let info = connection.send(&resp::cmd::<resp::Frame>("CLUSTER INFO")).await.unwrap();
            if info.value().as_str().unwrap().contains("cluster_state:ok") {
                return server;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Starts a cluster of one node, without slots, that speaks TLS too.
    pub(crate) fn cluster_with_tls(files: &std::path::Path) -> (Self, u16) {
        let bus = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
        Self::tls(&[], files, "no", &["--cluster-enabled", "yes", "--tls-cluster", "yes", "--cluster-port", &bus])
    }

    fn tls(first: &[&str], files: &std::path::Path, clients: &str, more: &[&str]) -> (Self, u16) {
        let file = |name: &str| files.join(name).to_str().unwrap().to_owned();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let options = [
            "--tls-port",
            &port.to_string(),
            "--tls-cert-file",
            &file("server.pem"),
            "--tls-key-file",
            &file("server.key"),
            "--tls-ca-cert-file",
            &file("ca.pem"),
            "--tls-auth-clients",
            clients,
        ];
        (Self::with_file(first, &[&options[..], more].concat()), port)
    }

    fn try_start(file: &[&str], options: &[&str]) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let binary = binary();
        let mut child = Command::new(&binary)
            .args(file)
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .args(["--unixsocket", "redis.sock", "--dir", "."])
            .args(options)
            .current_dir(folder.path())
            .stdout(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", binary.display()));
        let deadline = Instant::now() + Duration::from_secs(20);
        while Instant::now() < deadline {
            if std::os::unix::net::UnixStream::connect(folder.path().join("redis.sock")).is_ok() {
                return Some(Self { child, folder, port });
            }
            if child.try_wait().unwrap().is_some() {
                return None;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = child.kill();
        let _ = child.wait();
        None
    }

    pub(crate) fn folder(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    /// Over the Unix socket.
    pub(crate) fn config(&self) -> Config {
        Config::new(Endpoint::unix(self.folder.path().join("redis.sock")))
    }

    /// Over TCP.
    pub(crate) fn tcp(&self) -> Config {
        Config::new(Endpoint::tcp("127.0.0.1", self.port))
    }

    pub(crate) async fn connect(&self) -> Connection {
        Connection::connect(&self.config()).await.unwrap()
    }

    /// One connection that speaks RESP2 and one that speaks RESP3.
    pub(crate) async fn both(&self) -> [Connection; 2] {
        [Connection::connect(&self.config().resp2(true)).await.unwrap(), self.connect().await]
    }

    /// Whether the server is of this version of Redis at least. When it is not, says what is left out.
    pub(crate) async fn since(&self, version: (u32, u32), what: &str) -> bool {
        let this = self.version().await;
        if this < version {
            skipped(&format!("{what}: came with Redis {}.{}, this is {}.{}", version.0, version.1, this.0, this.1));
        }
        this >= version
    }

    /// The major and minor version of Redis that the server is, or is compatible with.
    pub(crate) async fn version(&self) -> (u32, u32) {
        let info = self.connect().await.send(&resp::cmd::<resp::Frame>("INFO server")).await.unwrap();
        let text = info.value().as_str().unwrap().to_owned();
        let version = text.lines().find_map(|line| line.strip_prefix("redis_version:")).unwrap();
        let mut parts = version.split('.').map(|part| part.parse().unwrap());
        (parts.next().unwrap(), parts.next().unwrap())
    }
}

/// Says that something was not tested.
pub(crate) fn skipped(what: &str) {
    eprintln!("SKIPPED {what}");
}

/// The server's program.
fn binary() -> std::ffi::OsString {
    std::env::var_os("REDIS_SERVER").filter(|path| !path.is_empty()).unwrap_or_else(|| "redis-server".into())
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
