//! `writer`: appends the lines of a Redis Stream to a file, each exactly once; `verify` and `merge` for what was written.
//!
//! # Layout
//!
//! | file | what it is |
//! |---|---|
//! | `args.rs` | flags and environment |
//! | `run.rs` | the service: three stages that overlap, the first and the last once for each partition |
//! | `agreement.rs` | with how many partitions the source was begun |
//! | `fetch.rs` | stage 1: reads the stream, fills batches |
//! | `contents.rs`, `batch.rs` | from entries to bytes of contents; what is held is skipped |
//! | `gaps.rs`, `gap_log.rs` | noticing bytes that were never delivered, and telling them |
//! | `commit.rs` | stage 2: batches to the disk, whatever the disk says |
//! | `output.rs`, `journal_file.rs` | the output and its journal |
//! | `space.rs` | the room on its file system |
//! | `rotate.rs` | outputs that were renamed, and the journals that belong to them |
//! | `acknowledge.rs` | stage 3: XACK, and the housekeeping of the group |
//! | `group.rs`, `trim.rs`, `backlog.rs` | what the group is asked, what is trimmed and measured |
//! | `totals.rs` | the backlog of all partitions together |
//! | `check.rs` | `writer check` |
//! | `names.rs` | the metrics |
//! | `verify.rs`, `compare.rs`, `report.rs` | `writer verify` |
//! | `merge.rs` | `writer merge` |
//! | `progress.rs` | how far these two are |
//! | `layout.rs`, `window.rs` | where the bytes lie in outputs, and reading them |
//! | `failpoint.rs` | where tests end the process |
//! | `allocations.rs` | tests: what is allocated |

// In tests a list of one range is just that.
#![cfg_attr(test, allow(clippy::single_range_in_vec_init))]

mod acknowledge;
mod agreement;
#[cfg(test)]
mod allocations;
mod args;
mod backlog;
mod batch;
mod check;
mod commit;
mod compare;
mod contents;
mod failpoint;
mod fetch;
mod gap_log;
mod gaps;
mod group;
mod journal_file;
mod layout;
mod merge;
mod names;
mod output;
mod progress;
mod report;
mod rotate;
mod run;
#[cfg(test)]
mod sample;
mod space;
mod totals;
mod trim;
mod verify;
mod window;

use args::{Args, Command};
use delivery::partition::Partition;
use service::{About, Failure, manuals};
use std::io::Write as _;
use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Args = match service::args::parse() {
        Ok(args) => args,
        Err(code) => return code,
    };
    match args.command {
        Some(Command::Check(args)) => match args.writer.partitions(&args.service) {
            Ok(partitions) => check::run(&args, partitions),
            Err(failure) => finish(Err(failure)),
        },
        Some(Command::Verify { input, output, json }) => finish(verify::run(&input, &output, json)),
        Some(Command::Merge { output }) => finish(merge::run(&output)),
        Some(Command::Completions { shell }) => manuals::completions::<Args>(shell),
        Some(Command::Man { folder }) => manuals::man::<Args>(&folder),
        None => {
            let partitions = match args.writer.partitions(&args.service) {
                Ok(partitions) => partitions,
                Err(failure) => return finish(Err(failure)),
            };
            let about = About {
                name: "writer",
                version: service::VERSION,
                flow: format!("{} → {}", streams(&args.service.stream, &partitions), args.writer.output.display()),
                metrics: names::ALL,
                series: names::SERIES,
            };
            let service = args.service.clone();
            service::run(about, &service, async |context| {
                run::run(&args.service, &args.writer, &partitions, context).await
            })
        }
    }
}

/// What is read, for people.
fn streams(stream: &str, partitions: &[Partition]) -> String {
    match partitions {
        [partition] => partition.stream(stream),
        many => {
            let count = many.first().map_or(0, |partition| partition.count());
            format!("{stream} ({} of {count} partitions)", many.len())
        }
    }
}

fn finish(done: Result<(), Failure>) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let _ = writeln!(std::io::stderr(), "writer: {failure}");
            ExitCode::from(&failure)
        }
    }
}
