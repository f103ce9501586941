//! The harness of the end-to-end tests: real binaries, a private redis-server each, real signals, real files.
//!
//! # Layout
//!
//! | file | subject |
//! |---|---|
//! | `rig.rs` | one test's folder, Redis, input and output; where a test begins |
//! | `service.rs` | the `reader` and `writer` processes: flags, logs, metrics, signals |
//! | `redis.rs` | a private redis-server: persistence, crashes, replicas |
//! | `cluster.rs` | a Redis Cluster of three masters and three replicas |
//! | `sentinel.rs` | a master with two replicas, and three Sentinels that watch them |
//! | `client.rs` | RESP by hand, so that the harness does not judge the project with the project's own code |
//! | `process.rs` | a child process that cannot outlive its test |
//! | `binaries.rs` | where the built binaries are |
//! | `browser.rs` | Chromium without a window |
//! | `port.rs` | TCP ports that no other test has |
//! | `partitions.rs` | a source with several partitions: streams, outputs, and the proof that they are the source |
//! | `http.rs` | GET, and Prometheus' text format |
//! | `proxy.rs` | a TCP proxy that misbehaves on demand |
//! | `mount.rs` | file systems that are mounted for a test |
//! | `tamper.rs` | system calls that fail on demand |
//! | `text.rs` | inputs: real text, hard bytes, numbered lines |
//! | `growth.rs` | a file that grows while the test goes on |
//! | `check.rs` | whether the output is the input, else the first difference in words |
//! | `wait.rs` | waiting for a condition, with a deadline |
//! | `chaos/` | random faults of everything, then the check |
//!
//! Everything here panics when it cannot do its work: that is how tests fail.

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

/// A seed for the test's random numbers: `SEED` of the environment, else a new one. It is printed, so that a run can be repeated.
#[must_use]
pub fn seed() -> u64 {
    let seed =
        std::env::var("SEED").ok().and_then(|text| text.parse().ok()).unwrap_or_else(|| fastrand::u64(..1 << 32));
    println!("SEED={seed}");
    seed
}
