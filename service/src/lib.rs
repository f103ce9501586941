//! The shell that both services stand in.
//!
//! A binary parses its flags with [`args::parse`], and hands its work to [`run()`], which brings
//! the rest: logs, metrics, the HTTP endpoint, signals, and the exit code. The work gets
//! a [`Context`]: when to stop ([`Shutdown`]), where to report its state ([`Health`]), and how to
//! reach Redis ([`Connector`]).
//!
//! # Layout
//!
//! | file | what it is |
//! |---|---|
//! | `args.rs` | the flags both binaries share, and errors of one line |
//! | `usage.rs` | errors in flags, variables and the file: one line each |
//! | `config_file.rs` | the file of `--config`, below flags and environment |
//! | `redact.rs` | passwords out of everything that is shown |
//! | `run.rs` | from flags to exit code |
//! | `failure.rs` | why a service ends, and with which exit code |
//! | `shutdown.rs` | the request to stop |
//! | `signals.rs` | SIGTERM and SIGINT become that request |
//! | `health.rs` | heartbeat, Redis, file: what `/healthz` and `/readyz` tell |
//! | `connector.rs` | a connection to Redis, however long it takes |
//! | `logs.rs` | text or JSON, and the latest warnings |
//! | `preflight.rs` | findings of `reader check` and `writer check`, and what both look at |
//! | `metrics.rs` | names, descriptions, buckets |
//! | `http.rs` | the bounded HTTP server |
//! | `reasons.rs` | why something cannot be used, and what is allowed |
//! | `advice.rs` | what a user can do about a fault |
//! | `pages.rs` | what it answers |
//! | `status.rs` | `/status.json`, and what the status page shows, too |
//! | `html.rs`, `status.html`, `plot.rs` | the status page |
//! | `progress.rs` | the bar of `--once` on a terminal |
//! | `manuals.rs` | shell completions and man pages |
//! | `history.rs` | the last minutes, and a summary a minute |
//! | `trend.rs` | where the backlog goes |
//! | `redis_info.rs` | what the Redis server says of itself |
//! | `source_record.rs` | the source record in Redis |
//! | `streams.rs` | the streams that a source is spread over |

pub mod advice;
pub mod args;
mod config_file;
mod connector;
mod failure;
mod health;
mod history;
mod html;
mod http;
mod logs;
pub mod manuals;
pub mod metrics;
mod pages;
mod plot;
pub mod preflight;
mod progress;
mod reasons;
mod redact;
mod redis_info;
mod run;
mod shutdown;
mod signals;
pub mod source_record;
mod status;
mod streams;
mod trend;
mod usage;

pub use connector::{Connector, Stop, in_words};
pub use failure::Failure;
pub use health::{HEARTBEAT_LIMIT, Health, Member};
pub use history::Series;
pub use logs::LogFormat;
pub use redact::redact;
pub use redis_info::{OwnConnection, ServerState, ServerWatch};
pub use run::{About, Context, run};
pub use shutdown::Shutdown;
pub use source_record::SourceRecord;
pub use streams::Stream;

/// The version with the commit and the target that it was built from and for, as `--version` shows
/// it.
pub const VERSION: &str =
    concat!(env!("CARGO_PKG_VERSION"), " (commit ", env!("BUILD_COMMIT"), ", ", env!("BUILD_TARGET"), ")");
