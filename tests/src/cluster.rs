//! A Redis Cluster of three masters and three replicas.

use std::path::Path;
use std::process::Command;

use crate::client::Value;
use crate::port::Port;
use crate::redis::{Persistence, RedisServer};
use crate::wait;

/// The number of masters, and of replicas.
const MASTERS: usize = 3;
/// The number of slots.
const SLOTS: usize = 16384;

/// Three masters, which share the slots, and a replica of each, which is promoted within seconds
/// after its master fails.
#[derive(Debug)]
pub struct Cluster {
    /// The servers: the masters, then their replicas in the same order.
    pub servers: Vec<RedisServer>,
    ids: Vec<String>,
    _buses: Vec<Port>,
}

impl Cluster {
    /// Starts the cluster, and waits until all slots are served and all replicas are in sync.
    /// Prints a message and returns `None` if the server is too old.
    #[must_use]
    pub fn start(folder: &Path) -> Option<Self> {
        let version = RedisServer::start(&folder.join("probe"), Persistence::None).info("redis_version");
        let major = version.as_deref().and_then(|version| version.split('.').next()?.parse().ok());
        if major.is_none_or(|major: u32| major < 7) {
            eprintln!("SKIPPED a cluster wants Redis 7.0: its nodes choose the port that they talk on");
            return None;
        }
        let buses: Vec<Port> = (0..2 * MASTERS).map(|_| Port::take()).collect();
        let start = |(nth, bus): (usize, &Port)| {
            let bus = bus.number().to_string();
            let cluster = ["--cluster-enabled", "yes", "--cluster-node-timeout", "1000", "--cluster-port", &bus];
            let args = [&cluster[..], &["--repl-diskless-sync-delay", "0"]].concat();
            RedisServer::start_with(&folder.join(format!("node-{nth}")), Persistence::None, &args)
        };
        let servers: Vec<RedisServer> = buses.iter().enumerate().map(start).collect();
        for (nth, server) in servers.iter().enumerate() {
            // Assign distinct epochs, so that the nodes need not negotiate them.
            server.cli(&format!("CLUSTER SET-CONFIG-EPOCH {}", nth + 1));
        }
        for (nth, server) in servers[..MASTERS].iter().enumerate() {
            let (first, end) = (nth * SLOTS / MASTERS, (nth + 1) * SLOTS / MASTERS);
            server.cli(&format!("CLUSTER ADDSLOTSRANGE {first} {}", end - 1));
        }
        for (server, bus) in servers.iter().zip(&buses).skip(1) {
            servers[0].cli(&format!("CLUSTER MEET 127.0.0.1 {} {}", server.port(), bus.number()));
        }
        let ids: Vec<String> = servers.iter().map(|server| server.cli("CLUSTER MYID").text()).collect();
        let cluster = Self { servers, ids, _buses: buses };
        wait::until("the nodes know each other", || {
            cluster.servers.iter().all(|server| says(server, "cluster_known_nodes:6"))
        });
        for (replica, master) in cluster.servers[MASTERS..].iter().zip(&cluster.ids) {
            wait::until("a replica follows", || {
                matches!(replica.try_call(&["CLUSTER", "REPLICATE", master]), Ok(Ok(_)))
            });
        }
        cluster.wait_complete();
        Some(cluster)
    }

    /// Waits until all nodes are reachable, all slots are served, and all replicas are in sync.
    pub fn wait_complete(&self) {
        wait::until("the cluster is complete", || {
            self.servers.iter().all(|server| {
                // A node that is loading its master's data rejects all these commands.
                let ask = |command: &str| match server.try_call(&command.split(' ').collect::<Vec<_>>()) {
                    Ok(Ok(told)) => told.text(),
                    _ => String::new(),
                };
                let is_linked = match server.role().as_deref() {
                    Some("slave") => ask("INFO replication").lines().any(|line| line == "master_link_status:up"),
                    role => role == Some("master"),
                };
                let nodes = ask("CLUSTER NODES");
                is_linked
                    && ask("CLUSTER INFO").lines().any(|line| line == "cluster_state:ok")
                    && nodes.matches("slave").count() == MASTERS
                    && !nodes.contains("fail")
            })
        });
    }

    /// Waits until all nodes agree on the owner of each slot.
    pub fn wait_agreed(&self) {
        wait::until("the nodes agree on the slots", || {
            let told = |server: &RedisServer| {
                let nodes = server.cli("CLUSTER NODES").text();
                // The node ID is the first field, the slots begin at the ninth.
                let slots = |line: &str| {
                    let words: Vec<&str> = line.split(' ').collect();
                    (words.first().map(|&id| id.to_owned()), words.get(8..).unwrap_or_default().join(" "))
                };
                let mut slots: Vec<_> = nodes.lines().map(slots).collect();
                slots.sort();
                slots
            };
            let first = told(&self.servers[0]);
            self.servers[1..].iter().all(|server| told(server) == first)
        });
    }

    /// The URL of the cluster, with all nodes as seeds.
    #[must_use]
    pub fn url(&self) -> String {
        let seeds: Vec<_> = self.servers.iter().map(|server| format!("127.0.0.1:{}", server.port())).collect();
        format!("redis-cluster://{}", seeds.join(","))
    }

    /// The index of the running server that owns a key.
    #[must_use]
    pub fn owner(&self, key: &str) -> usize {
        wait::within(wait::SOON, "a node has the key", || {
            self.servers.iter().position(|server| matches!(server.try_call(&["EXISTS", key]), Ok(Ok(_))))
        })
    }

    /// The other server of a master and replica pair.
    #[must_use]
    pub const fn partner(&self, server: usize) -> usize {
        (server + MASTERS) % (2 * MASTERS)
    }

    /// The present masters.
    #[must_use]
    pub fn masters(&self) -> [usize; MASTERS] {
        std::array::from_fn(|pair| {
            let is_master = |server: &usize| self.servers[*server].role().as_deref() == Some("master");
            wait::within(wait::SOON, "a pair has a master", || [pair, self.partner(pair)].into_iter().find(is_master))
        })
    }

    /// Waits until the replica of a failed master is promoted. Returns its index.
    pub fn wait_replaced(&self, master: usize) -> usize {
        let replica = self.partner(master);
        wait::until("the replica takes its place", || self.servers[replica].role().as_deref() == Some("master"));
        replica
    }

    /// Serve slots even while others have no owner.
    pub fn serve_in_part(&self) {
        for server in &self.servers {
            server.config_set("cluster-require-full-coverage", "no");
        }
    }

    /// The slot of a key.
    #[must_use]
    pub fn slot(&self, key: &str) -> String {
        self.servers[0].call(&["CLUSTER", "KEYSLOT", key]).int().to_string()
    }

    /// Starts to migrate a slot from one master to another, without moving its keys.
    pub fn begin_move(&self, slot: &str, from: usize, to: usize) {
        self.servers[to].call(&["CLUSTER", "SETSLOT", slot, "IMPORTING", &self.ids[from]]);
        self.servers[from].call(&["CLUSTER", "SETSLOT", slot, "MIGRATING", &self.ids[to]]);
    }

    /// Moves one key of a migrating slot.
    pub fn move_key(&self, key: &[u8], from: usize, to: usize) {
        let port = self.servers[to].port().to_string();
        let migrate = [b"MIGRATE", &b"127.0.0.1"[..], port.as_bytes(), key, b"0", b"30000"];
        self.servers[from].call(&migrate);
    }

    /// Moves the remaining keys, and assigns the slot.
    pub fn finish_move(&self, slot: &str, from: usize, to: usize) {
        loop {
            let keys = self.servers[from].call(&["CLUSTER", "GETKEYSINSLOT", slot, "100"]);
            if keys.list().is_empty() {
                break;
            }
            for key in keys.list() {
                self.move_key(Value::bytes(key), from, to);
            }
        }
        for server in [to, from] {
            self.servers[server].call(&["CLUSTER", "SETSLOT", slot, "NODE", &self.ids[to]]);
        }
    }

    /// Moves all slots of a master to another one with `redis-cli --cluster reshard`. Returns
    /// whether `redis-cli` exists.
    #[must_use]
    pub fn reshard(&self, from: usize, to: usize) -> bool {
        self.reshard_some(from, to, SLOTS / MASTERS)
    }

    /// As [`Self::reshard`], for the first `slots` slots.
    #[must_use]
    pub fn reshard_some(&self, from: usize, to: usize, slots: usize) -> bool {
        let entry = format!("127.0.0.1:{}", self.servers[from].port());
        let mut cli = Command::new("redis-cli");
        cli.args(["--cluster", "reshard", &entry, "--cluster-from", &self.ids[from], "--cluster-to", &self.ids[to]]);
        cli.args(["--cluster-slots", &slots.to_string(), "--cluster-yes"]);
        match cli.output() {
            Ok(output) => assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return false,
            Err(error) => panic!("redis-cli: {error}"),
        }
        true
    }

    /// Moves a slot from its owner to another master.
    pub fn move_slot(&self, slot: &str, from: usize, to: usize) {
        self.begin_move(slot, from, to);
        self.finish_move(slot, from, to);
    }
}

fn says(server: &RedisServer, line: &str) -> bool {
    server.cli("CLUSTER INFO").text().lines().any(|one| one == line)
}
