//! Shared parts of the benchmarks.
//!
//! # Layout
//!
//! | file | subject |
//! |---|---|
//! | `drain.rs` | a socket that drains a stream |
//! | `job.rs` | the parts of a service that have nothing to do with Redis, for the programs in `examples/` that other clients are measured with |
//! | `masters.rs` | the masters of a Redis Cluster |
//! | `replies.rs` | replies to decode |
//! | `rounds.rs` | paired rounds: several subjects do the same work in turn |
//! | `server.rs` | a private redis-server |
//! | `stage.rs` | reader, writer, and what they are compared with, as processes on one private Redis |
//! | `text.rs` | texts to stream |
//! | `usage.rs` | the processor time and the memory of a process |

#![allow(clippy::expect_used, clippy::panic, reason = "a bench that cannot do its work ends")]

mod drain;
pub mod job;
pub mod masters;
mod replies;
pub mod rounds;
pub mod server;
pub mod stage;
pub mod text;
pub mod usage;

pub use drain::drain;
pub use replies::read_group_reply;
pub use rounds::{Case, Figure, Measured, Rounds, Unit};
pub use server::Server;
pub use stage::{Framing, Stage};
