//! The harness of the end-to-end tests: real binaries, a private redis-server per test, real
//! signals, real files.
//!
//! # Layout
//!
//! | file | subject |
//! |---|---|
//! | `rig.rs` | the folder, Redis, input and output of one test; the entry point |
//! | `service.rs` | the `reader` and `writer` processes: flags, logs, metrics, signals |
//! | `redis.rs` | a private redis-server: persistence, crashes, replicas |
//! | `cluster.rs` | a Redis Cluster of three masters and three replicas |
//! | `sentinel.rs` | a master with two replicas, and three Sentinels that watch them |
//! | `client.rs` | a minimal RESP client, so that the tests do not rely on the project's own library |
//! | `process.rs` | a child process that cannot outlive its test |
//! | `binaries.rs` | locates and builds the binaries |
//! | `browser.rs` | headless Chromium |
//! | `port.rs` | TCP ports that no other test uses |
//! | `partitions.rs` | a source with several partitions: streams, outputs, and their comparison with the source |
//! | `http.rs` | HTTP GET, and Prometheus' text format |
//! | `proxy.rs` | a TCP proxy that injects faults |
//! | `mount.rs` | file systems mounted for a test |
//! | `tamper.rs` | injected failures of system calls |
//! | `text.rs` | inputs: real text, difficult bytes, numbered lines |
//! | `growth.rs` | a file that grows during a test |
//! | `check.rs` | compares output and input |
//! | `wait.rs` | waiting for a condition, with a deadline |
//! | `chaos/` | random faults of all components, followed by a check |
//!
//! Everything here panics on failure, which fails the test.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod binaries;
pub mod browser;
pub mod chaos;
pub mod check;
pub mod client;
mod cluster;
mod folder;
pub mod growth;
pub mod http;
mod mount;
pub mod partitions;
mod port;
mod process;
pub mod proxy;
pub mod redis;
pub mod rig;
pub mod sentinel;
pub mod service;
mod tamper;
pub mod text;
pub mod wait;

pub use binaries::{Program, reconciler};
pub use browser::Browser;
pub use check::assert_identical;
pub use client::Value;
pub use cluster::Cluster;
pub use folder::Folder;
pub use growth::Growth;
pub use mount::Mount;
pub use port::Port;
pub use process::Process;
pub use proxy::Proxy;
pub use redis::{Persistence, RedisServer};
pub use rig::Rig;
pub use sentinel::{Sentinel, SentinelSet};
pub use service::{Launch, Service};
pub use tamper::Tamper;

/// A seed for the random numbers of a test: `SEED` from the environment, else a random one. It is
/// printed, so that a run can be repeated.
#[must_use]
pub fn seed() -> u64 {
    let seed =
        std::env::var("SEED").ok().and_then(|text| text.parse().ok()).unwrap_or_else(|| fastrand::u64(..1 << 32));
    println!("SEED={seed}");
    seed
}
