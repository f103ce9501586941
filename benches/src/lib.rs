//! What the benches share.
//!
//! # Layout
//!
//! | file | what it is |
//! |---|---|
//! | `drain.rs` | a socket that drains a stream |
//! | `replies.rs` | replies to decode |
//! | `rounds.rs` | paired rounds: several subjects do the same work in turn |
//! | `server.rs` | a private redis-server |
//! | `text.rs` | texts to stream |

#![allow(clippy::expect_used, clippy::panic, reason = "a bench that cannot do its work ends")]

mod drain;
mod replies;
pub mod rounds;
pub mod server;
pub mod text;

pub use drain::drain;
pub use replies::read_group_reply;
pub use rounds::{Case, Rounds};
pub use server::Server;
