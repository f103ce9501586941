//! The shared shell of both services: flags, logs, metrics, HTTP endpoint, signals, and the
//! connection to Redis.
//!
//! A binary parses its flags with [`args::parse`] and passes its work to [`run()`], which sets up
//! everything else and determines the exit code. The work gets a [`Context`]: when to stop
//! ([`Shutdown`]), where to report its state ([`Health`]), and how to connect to Redis
//! ([`Connector`]).
//!
//! # Layout
//!
//! | file | subject |
//! |---|---|
//! | `args.rs` | the flags that both binaries share |
//! | `usage.rs` | one-line errors about flags, variables and the configuration file |
//! | `config_file.rs` | the file of `--config` |
//! | `redact.rs` | removes passwords from text |
//! | `run.rs` | runs a service, from flags to exit code |
//! | `failure.rs` | why a service exits, and with which exit code |
//! | `shutdown.rs` | the shutdown request |
//! | `signals.rs` | SIGTERM and SIGINT request shutdown, SIGHUP a scan of the files |
//! | `health.rs` | heartbeat, state of Redis and of the file, for `/healthz` and `/readyz` |
//! | `connector.rs` | connects to Redis, with retries |
//! | `nodes.rs` | the masters of a Redis Cluster, and which of them has a key |
//! | `logs.rs` | text or JSON logs, and the latest warnings |
//! | `preflight.rs` | `reader check` and `writer check`: findings and shared checks |
//! | `metrics.rs` | names, descriptions, buckets |
//! | `http.rs` | the bounded HTTP server |
//! | `pages.rs` | the pages that it serves |
//! | `reasons.rs` | why something is unusable, and what is allowed |
//! | `advice.rs` | what a user can do about a fault |
//! | `status.rs` | `/status.json` |
//! | `html.rs`, `status.html`, `plot.rs` | the status page |
//! | `progress.rs` | the progress bar of `--once` |
//! | `manuals.rs` | shell completions and man pages |
//! | `history.rs` | samples of the last minutes, and a summary per minute |
//! | `trend.rs` | the trend of the backlog |
//! | `redis_info.rs` | state of the Redis server and of consumer groups |
//! | `source_record.rs` | the source record in Redis |
//! | `repeats.rs` | one fault of many sources in a few lines |
//! | `sources.rs` | the sources of a service that has many, for the pages |
//! | `streams.rs` | the streams of a partitioned source |

// Flags, files and replies are untrusted: arithmetic on them must not overflow, an index must not
// panic, and no number is truncated.
#![cfg_attr(
    not(test),
    warn(
        clippy::arithmetic_side_effects,
        clippy::indexing_slicing,
        clippy::cast_possible_truncation,
        clippy::cast_possible_wrap,
        clippy::cast_sign_loss
    )
)]

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
mod nodes;
mod pages;
mod plot;
pub mod preflight;
mod progress;
mod reasons;
mod redact;
mod redis_info;
pub mod repeats;
mod run;
mod shutdown;
mod signals;
pub mod source_record;
pub mod sources;
mod status;
mod streams;
mod trend;
mod usage;

pub use connector::{Connector, Stop, describe};
pub use failure::Failure;
pub use health::{HEARTBEAT_LIMIT, Health, Member};
pub use history::Series;
pub use logs::LogFormat;
pub use nodes::{Node, Nodes};
pub use redact::redact;
pub use redis_info::{OwnConnection, ServerState, ServerWatch};
pub use run::{About, Context, run};
pub use shutdown::Shutdown;
pub use source_record::SourceRecord;
pub use sources::{SourceList, SourceRow};
pub use streams::Stream;

/// The version with its commit and target, as `--version` prints it.
pub const VERSION: &str =
    concat!(env!("CARGO_PKG_VERSION"), " (commit ", env!("BUILD_COMMIT"), ", ", env!("BUILD_TARGET"), ")");
