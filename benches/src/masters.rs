//! The masters of a Redis Cluster: private servers whose slots are assigned to spread partitions
//! evenly.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::server::Server;
use crate::usage;

/// The number of slots.
const SLOTS: u16 = 16384;
/// How long the nodes may take to form the cluster.
const PATIENCE: Duration = Duration::from_secs(30);

/// A cluster of masters without replicas.
#[derive(Debug)]
pub struct Masters {
    servers: Vec<Server>,
}

impl Masters {
    /// Starts the masters. The slots of `{0}`, `{1}` … `{partitions - 1}` are assigned round-robin,
    /// so that all masters have the same number of partitions; the remaining slots go to the first
    /// master. Prints a message and returns `None` if there is no redis-server.
    ///
    /// # Panics
    ///
    /// If the nodes do not form a cluster.
    #[must_use]
    pub fn start(masters: usize, partitions: u32) -> Option<Self> {
        let mut servers = Vec::new();
        for _ in 0..masters {
            servers.push(Server::start_in_cluster()?);
        }
        let mut owner = vec![0; usize::from(SLOTS)];
        for partition in 0..partitions {
            owner[usize::from(slot(&partition.to_string()))] = partition as usize % masters;
        }
        for (nth, server) in servers.iter().enumerate() {
            let slots: Vec<String> =
                (0..SLOTS).filter(|&slot| owner[usize::from(slot)] == nth).map(|slot| slot.to_string()).collect();
            ask(server, &format!("CLUSTER SET-CONFIG-EPOCH {}", nth + 1));
            for some in slots.chunks(1000) {
                ask(server, &format!("CLUSTER ADDSLOTS {}", some.join(" ")));
            }
            ask(&servers[0], &format!("CLUSTER MEET 127.0.0.1 {} {}", server.port(), server.bus()));
        }
        let begun = Instant::now();
        for server in &servers {
            while !ask(server, "CLUSTER INFO").contains("cluster_state:ok")
                || ask(server, "CLUSTER SHARDS").matches("127.0.0.1").count() < masters
            {
                assert!(begun.elapsed() < PATIENCE, "the masters do not become a cluster");
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        Some(Self { servers })
    }

    /// The URL of the cluster.
    #[must_use]
    pub fn url(&self) -> String {
        let seeds: Vec<String> = self.servers.iter().map(|server| format!("127.0.0.1:{}", server.port())).collect();
        format!("redis-cluster://{}", seeds.join(","))
    }

    /// The processor time of each master.
    #[must_use]
    pub fn processor(&self) -> Vec<Duration> {
        self.servers.iter().map(|server| usage::processor(server.id())).collect()
    }

    /// Removes all data.
    pub fn clear(&self) {
        self.servers.iter().for_each(|server| drop(ask(server, "FLUSHALL")));
    }
}

/// Sends an inline command followed by another one. Returns the lines of the first reply.
fn ask(server: &Server, command: &str) -> String {
    let mut socket = TcpStream::connect(("127.0.0.1", server.port())).expect("connect");
    write!(socket, "{command}\r\nECHO end-of-reply\r\n").expect("write");
    let mut reply = String::new();
    for line in BufReader::new(socket).lines() {
        let line = line.expect("read");
        if line == "end-of-reply" {
            break;
        }
        reply.push_str(&line);
        reply.push('\n');
    }
    assert!(!reply.starts_with('-'), "{command:.80}: {reply}");
    reply
}

/// The hash slot of a tag: CRC16 (XMODEM) modulo 16384, as in the Redis Cluster specification.
fn slot(tag: &str) -> u16 {
    let mut crc = 0_u16;
    for byte in tag.bytes() {
        crc ^= u16::from(byte) << 8;
        for _ in 0..8 {
            crc = if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 };
        }
    }
    crc % SLOTS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_match_the_specification() {
        assert_eq!([slot("0"), slot("1"), slot("2")], [13907, 9842, 5649]);
        assert_eq!(slot("123456789"), 0x31C3 % SLOTS);
    }
}
