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

    /// Starts a server with a configuration file and further arguments.
    fn with_file(file: &[&str], options: &[&str]) -> Self {
        // Another process may take the port before the server starts.
        for _ in 0..10 {
            if let Some(server) = Self::try_start(file, options) {
                return server;
            }
        }
        panic!("redis-server does not start; REDIS_SERVER=/path chooses the binary");
    }

    /// Starts a server that also supports TLS, with files of this folder. `None`, with a message,
    /// if it was built without TLS.
    pub(crate) fn with_tls(files: &std::path::Path, clients: &str) -> Option<(Self, u16)> {
        // Every server refuses this; one with TLS, because a certificate is missing.
        let probe = Command::new(binary()).args(["--port", "0", "--tls-port", "1", "--save", ""]).output().unwrap();
        if !String::from_utf8_lossy(&probe.stdout).contains("tls-cert-file") {
            skipped("TLS: this server was built without it");
            return None;
        }
        Some(Self::tls(&[], files, clients, &[]))
    }

    /// Starts a Sentinel that also supports TLS, and names the server at this port of 127.0.0.1 as
    /// the master `m`.
    pub(crate) fn sentinel_with_tls(files: &std::path::Path, master: u16) -> (Self, u16) {
        let file = files.join("sentinel.conf");
        std::fs::write(&file, format!("sentinel monitor m 127.0.0.1 {master} 1\n")).unwrap();
        Self::tls(&[file.to_str().unwrap(), "--sentinel"], files, "no", &[])
    }

    /// Starts a cluster node without slots, over TCP.
    fn node() -> Self {
        Self::with(&["--cluster-enabled", "yes", "--repl-diskless-sync-delay", "0"])
    }

    /// Starts a one-node cluster with all slots.
    pub(crate) async fn cluster() -> Self {
        let server = Self::node();
        let mut connection = Connection::connect(&server.tcp()).await.unwrap();
        connection.send(resp::cmd::<()>("CLUSTER ADDSLOTS").args(0..16384_u32)).await.unwrap();
        until_says(&mut connection, "CLUSTER INFO", "cluster_state:ok").await;
        server
    }

    /// Starts a cluster of two masters with half of the slots each, and a replica of the first.
    pub(crate) async fn cluster_of_three() -> [Self; 3] {
        let nodes = [Self::node(), Self::node(), Self::node()];
        let mut connections = Vec::new();
        for node in &nodes {
            connections.push(Connection::connect(&node.tcp()).await.unwrap());
        }
        for (connection, slots) in connections.iter_mut().zip([0..8192_u32, 8192..16384]) {
            connection.send(resp::cmd::<()>("CLUSTER ADDSLOTS").args(slots)).await.unwrap();
        }
        for node in &nodes[1..] {
            let meet = resp::cmd::<()>("CLUSTER MEET").arg("127.0.0.1").arg(node.port);
            connections[0].send(meet).await.unwrap();
        }
        let first = connections[0].send(resp::cmd::<resp::Frame>("CLUSTER MYID")).await.unwrap();
        until_says(&mut connections[2], "CLUSTER NODES", first.value().as_str().unwrap()).await;
        connections[2]
            .send(resp::cmd::<resp::Frame>("CLUSTER REPLICATE").arg(first.value().as_bytes().unwrap()))
            .await
            .unwrap();
        until_says(&mut connections[2], "INFO replication", "master_link_status:up").await;
        for connection in &mut connections {
            until_says(connection, "CLUSTER INFO", "cluster_state:ok").await;
            until_says(connection, "CLUSTER INFO", "cluster_known_nodes:3").await;
            until_says(connection, "CLUSTER NODES", "slave ").await;
        }
        nodes
    }

    /// Starts a cluster node without slots that also supports TLS.
    pub(crate) fn cluster_with_tls(files: &std::path::Path) -> (Self, u16) {
        Self::tls(&[], files, "no", &["--cluster-enabled", "yes", "--tls-cluster", "yes"])
    }

    fn tls(first: &[&str], files: &std::path::Path, clients: &str, more: &[&str]) -> (Self, u16) {
        let file = |name: &str| files.join(name).to_str().unwrap().to_owned();
        let port = free_port(more);
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
        let port = free_port(options);
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

    /// Returns whether the server has at least this version of Redis. Otherwise prints what is
    /// skipped.
    pub(crate) async fn since(&self, version: (u32, u32), what: &str) -> bool {
        let this = self.version().await;
        if this < version {
            skipped(&format!("{what}: came with Redis {}.{}, this is {}.{}", version.0, version.1, this.0, this.1));
        }
        this >= version
    }

    /// Returns the major and minor version of Redis that the server is compatible with.
    pub(crate) async fn version(&self) -> (u32, u32) {
        let info = self.connect().await.send(resp::cmd::<resp::Frame>("INFO server")).await.unwrap();
        let text = info.value().as_str().unwrap().to_owned();
        let version = text.lines().find_map(|line| line.strip_prefix("redis_version:")).unwrap();
        let mut parts = version.split('.').map(|part| part.parse().unwrap());
        (parts.next().unwrap(), parts.next().unwrap())
    }
}

/// Returns a free port for a server with these options. A cluster node also needs the port of its
/// bus, which is 10000 higher: Redis 6.2 knows no option for it.
fn free_port(options: &[&str]) -> u16 {
    let is_node = options.contains(&"--cluster-enabled");
    loop {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let is_bus_free = || port.checked_add(10_000).is_some_and(|bus| TcpListener::bind(("127.0.0.1", bus)).is_ok());
        if !is_node || is_bus_free() {
            return port;
        }
    }
}

/// Queries until the reply contains this text.
async fn until_says(connection: &mut Connection, question: &str, text: &str) {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let answer = connection.send(resp::cmd::<resp::Frame>(question)).await.unwrap();
        let answer = answer.value().as_str().unwrap();
        if answer.contains(text) {
            return;
        }
        assert!(Instant::now() < deadline, "no {text} in {answer}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Prints that something was not tested.
pub(crate) fn skipped(what: &str) {
    eprintln!("SKIPPED {what}");
}

/// Returns the path of the server.
fn binary() -> std::ffi::OsString {
    std::env::var_os("REDIS_SERVER").filter(|path| !path.is_empty()).unwrap_or_else(|| "redis-server".into())
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
