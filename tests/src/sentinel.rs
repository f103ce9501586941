//! A master with two replicas, and three Sentinels that watch them.

use std::path::{Path, PathBuf};

use rustix::process::Signal;

use crate::client::{Client, Value};
use crate::port::Port;
use crate::process::Process;
use crate::redis::{self, Persistence, RedisServer};
use crate::wait;

/// The name of the master in the Sentinels' configuration.
pub const MASTER: &str = "mymaster";

/// A master with two replicas, and three Sentinels that detect its failure within a second.
#[derive(Debug)]
pub struct SentinelSet {
    /// The servers; the first one is the initial master.
    pub servers: Vec<RedisServer>,
    /// The Sentinels.
    pub sentinels: Vec<Sentinel>,
}

impl SentinelSet {
    /// Starts all servers, and waits until they know each other.
    #[must_use]
    pub fn start(folder: &Path) -> Self {
        Self::start_with(folder, &[], &[])
    }

    /// As [`Self::start`], with more arguments for the servers and more lines for the Sentinels'
    /// configuration.
    #[must_use]
    pub fn start_with(folder: &Path, extra: &[&str], lines: &[&str]) -> Self {
        let mut servers = Vec::new();
        for nth in 0..3 {
            let mut args = vec!["--repl-diskless-sync-delay", "0"];
            args.extend(extra);
            let of = servers.first().map(|master: &RedisServer| master.port().to_string());
            if let Some(of) = &of {
                args.extend(["--replicaof", "127.0.0.1", of]);
            }
            servers.push(RedisServer::start_with(&folder.join(format!("server-{nth}")), Persistence::None, &args));
        }
        let sentinels = (0..3)
            .map(|nth| Sentinel::start(&folder.join(format!("sentinel-{nth}")), servers[0].port(), lines))
            .collect();
        let set = Self { servers, sentinels };
        set.wait_complete();
        set
    }

    /// Waits until all Sentinels know each other and the replicas, and the replicas are in sync:
    /// from then on a failover succeeds.
    pub fn wait_complete(&self) {
        for sentinel in &self.sentinels {
            wait::until("the Sentinels know each other and the replicas", || {
                let master = sentinel.call(&["SENTINEL", "MASTER", MASTER]);
                let number = |name| master.field(name).int();
                (number("num-slaves"), number("num-other-sentinels")) == (2, 2)
                    && master.field("flags").text() == "master"
            });
        }
        let master = self.master();
        wait::until("both replicas are in sync", || {
            let Ok(Ok(role)) = self.servers[master].try_call(&["ROLE"]) else { return true };
            role.list().get(2).is_some_and(|replicas| replicas.list().len() == 2)
        });
    }

    /// The URL of the present master.
    #[must_use]
    pub fn url(&self) -> String {
        let addresses: Vec<_> =
            self.sentinels.iter().map(|sentinel| format!("127.0.0.1:{}", sentinel.port())).collect();
        format!("redis-sentinel://{}/{MASTER}", addresses.join(","))
    }

    /// The index of the server that the Sentinels report as the master, once they agree.
    #[must_use]
    pub fn master(&self) -> usize {
        wait::within(wait::SOON, "the Sentinels agree on the master", || {
            let ports: Vec<_> = self.sentinels.iter().map(Sentinel::named).collect();
            let port = ports[0].filter(|port| ports.iter().all(|other| *other == Some(*port)))?;
            self.servers.iter().position(|server| server.port() == port)
        })
    }

    /// Waits until a server other than `old` is the master. Returns its index.
    pub fn wait_failover(&self, old: usize) -> usize {
        wait::within(wait::SOON, "a failover", || {
            let master = self.master();
            (master != old && self.servers[master].role().as_deref() == Some("master")).then_some(master)
        })
    }
}

/// A Sentinel. Killed when dropped.
#[derive(Debug)]
pub struct Sentinel {
    process: Process,
    port: Port,
    socket: PathBuf,
}

impl Sentinel {
    fn start(folder: &Path, master: u16, lines: &[&str]) -> Self {
        std::fs::create_dir_all(folder).expect("a folder for a Sentinel");
        let (port, socket, file) = (Port::take(), folder.join("s"), folder.join("sentinel.conf"));
        let log = folder.join("sentinel.log");
        // Sentinel writes its state into its configuration file.
        let mut text = format!(
            "port {}\nbind 127.0.0.1\nunixsocket {}\ndir {}\nlogfile {}\nsentinel monitor {MASTER} 127.0.0.1 {master} 2\n\
             sentinel down-after-milliseconds {MASTER} 1000\nsentinel failover-timeout {MASTER} 3000\n\
             sentinel parallel-syncs {MASTER} 2\n",
            port.number(),
            socket.display(),
            folder.display(),
            log.with_extension("server").display(),
        );
        for line in lines {
            text += line;
            text.push('\n');
        }
        std::fs::write(&file, text).expect("write a Sentinel's configuration");
        let none: [(&str, &str); 0] = [];
        let args = [file.to_string_lossy().into_owned(), "--sentinel".to_owned()];
        let process = Process::start("sentinel", &redis::program(), args, none, log);
        let sentinel = Self { process, port, socket };
        wait::until("the Sentinel listens", || Client::connect(&sentinel.socket).is_ok());
        sentinel
    }

    /// Sends a command that must succeed.
    #[track_caller]
    pub fn call(&self, args: &[&str]) -> Value {
        let mut client = Client::connect(&self.socket).expect("the Sentinel listens");
        client.call(args).expect("the Sentinel answers").unwrap_or_else(|refusal| panic!("{args:?}: {refusal}"))
    }

    /// The port of the server that it reports as the master.
    #[must_use]
    pub fn named(&self) -> Option<u16> {
        let named = self.call(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER]);
        named.list().get(1).and_then(|port| port.text().parse().ok())
    }

    /// Its TCP port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port.number()
    }

    /// SIGKILL.
    pub fn kill9(&mut self) {
        self.process.kill9();
    }

    /// Freezes it (SIGSTOP).
    pub fn freeze(&self) {
        self.process.signal(Signal::STOP);
    }

    /// Ends [`Self::freeze`] (SIGCONT).
    pub fn thaw(&self) {
        self.process.signal(Signal::CONT);
    }
}
