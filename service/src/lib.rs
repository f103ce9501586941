//! The shell that both services stand in.
//!
//! A binary parses its flags with [`args::parse`], and hands its work to [`run()`], which brings the rest: logs, metrics, the HTTP
//! endpoint, signals, and the exit code. The work gets a [`Context`]: when to stop ([`Shutdown`]), where to report its state
//! ([`Health`]), and how to reach Redis ([`Connector`]).
//!
//! # Layout
//!
//! | file | what it is |
//! |---|---|
//! | `args.rs` | the flags both binaries share, and errors of one line |
//! | `redact.rs` | passwords out of everything that is shown |
//! | `run.rs` | from flags to exit code |
//! | `failure.rs` | why a service ends, and with which exit code |
//! | `shutdown.rs` | the request to stop |
//! | `signals.rs` | SIGTERM and SIGINT become that request |
//! | `health.rs` | heartbeat, Redis, file: what `/healthz` and `/readyz` tell |
//! | `connector.rs` | a connection to Redis, however long it takes |
//! | `metrics.rs` | names, descriptions, buckets |
//! | `http.rs` | the bounded HTTP server |
//! | `pages.rs` | what it answers |

pub mod args;
mod connector;
mod failure;
mod health;
mod http;
pub mod metrics;
mod pages;
mod redact;
mod run;
mod shutdown;
mod signals;

pub use connector::{Connector, Stop};
pub use failure::Failure;
pub use health::{HEARTBEAT_LIMIT, Health};
pub use redact::redact;
pub use run::{About, Context, run};
pub use shutdown::Shutdown;
