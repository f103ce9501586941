//! `reader`: follows a text file and sends its lines to a Redis Stream, each exactly once.
//!
//! # Layout
//!
//! | file | subject |
//! |---|---|
//! | `args.rs` | flags |
//! | `check.rs` | `reader check` |
//! | `driver.rs` | performs the steps of [`delivery::producer`], one producer per partition |
//! | `added_fields.rs` | `--add-field`: the fields for other consumers |
//! | `redis.rs` | the Redis commands of those steps |
//! | `many/` | many files: patterns, parked and active sources, a pool of connections |
//! | `registry.rs` | the file IDs of contents, shared by all partitions |
//! | `directory.rs` | the producer's view of the disk, from the scanner and the state file |
//! | `scanner.rs`, `source_file.rs` | scans the files around the input; an open file |
//! | `state.rs` | the state file |
//! | `watch.rs` | file events |
//! | `error.rs` | why the work with a connection ends |
//! | `report.rs`, `metric_names.rs`, `totals.rs` | logs and metrics |
//! | `allocations.rs` | tests of allocations |

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

mod added_fields;
#[cfg(test)]
mod allocations;
mod args;
mod check;
mod directory;
mod driver;
mod error;
mod many;
mod metric_names;
mod redis;
mod registry;
mod report;
mod scanner;
mod source_file;
mod state;
mod totals;
mod watch;

use service::manuals;
use std::process::ExitCode;

/// The FILES section of the man page.
const FILES: [(&str, &str); 3] = [
    (
        ".NAME.STREAM.source.json",
        "Beside the input, or in --state-dir: the fingerprints of the contents of the input. Keep it with the input: \
         it lets the reader recognise the file after Redis lost its data.",
    ),
    (
        ".STREAM.sources",
        "The same for many files: a folder in the fixed part of each pattern, or in --state-dir, with a file for each \
         source.",
    ),
    (
        "/etc/line-stream/reader-NAME.toml",
        "The configuration of the unit line-stream-reader@NAME, as --config takes it.",
    ),
];

fn main() -> ExitCode {
    let cli: args::Cli = match service::args::parse() {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    match &cli.command {
        Some(args::Command::Check(args)) => return check::run(args),
        Some(args::Command::Completions { shell }) => return manuals::completions::<args::Cli>(*shell),
        Some(args::Command::Man { folder }) => return manuals::man::<args::Cli>(folder, &FILES),
        None => {}
    }
    let args = cli.args;
    let about = about(&args);
    let service = args.service.clone();
    service::run(about, &service, async move |context| driver::run(args, context).await)
}

/// The description of the service.
fn about(args: &args::ReaderArgs) -> service::About {
    service::About {
        name: "reader",
        version: service::VERSION,
        flow: args.flow(),
        labels: vec![("stream", args.service.stream.clone()), ("input", args.inputs())],
        metrics: &metric_names::METRICS,
        series: metric_names::SERIES,
    }
}
