//! `reader`: follows a text file and streams its lines into a Redis Stream, each exactly once.
//!
//! | file | subject |
//! |---|---|
//! | `args.rs` | flags |
//! | `check.rs` | `reader check` |
//! | `content.rs` | an open file, and whether it is a content that is known |
//! | `window.rs` | the bytes at hand, read in large blocks |
//! | `cursor.rs` | how far a content was read, and what of it is a partition's |
//! | `source_file.rs` | an open file, compressed or not |
//! | `scanner.rs` | what is in the input's folder, for the decision which file is which content |
//! | `folder.rs` | finding contents: the input's path, and where rotation put the earlier ones |
//! | `state.rs` | the small file with the input's identity |
//! | `session.rs` | what is done with one connection: resume, then stream |
//! | `resume.rs` | where to go on, from what Redis and the folder hold |
//! | `roots.rs` | the names of contents, which all partitions share |
//! | `batch.rs` | one transaction on the wire |
//! | `follow.rs` | what the partitions have in common; the loop over sessions of each |
//! | `interrupt.rs` | why a session ends before the work does |
//! | `wake.rs` | file events |
//! | `pace.rs` | a line in the log now and then, as long as data flows |
//! | `telemetry.rs`, `totals.rs` | metrics |
//! | `allocations.rs` | tests: what is allocated |

#[cfg(test)]
mod allocations;
mod args;
mod batch;
mod check;
mod content;
mod cursor;
mod folder;
mod follow;
mod interrupt;
mod pace;
mod resume;
mod roots;
#[allow(dead_code, reason = "the producer is about to use it")]
mod scanner;
mod session;
#[allow(dead_code, reason = "the producer is about to use it")]
mod source_file;
mod state;
mod telemetry;
mod totals;
mod wake;
mod window;

use service::manuals;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli: args::Cli = match service::args::parse() {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    match &cli.command {
        Some(args::Command::Check(args)) => return check::run(args),
        Some(args::Command::Completions { shell }) => return manuals::completions::<args::Cli>(*shell),
        Some(args::Command::Man { folder }) => return manuals::man::<args::Cli>(folder),
        None => {}
    }
    let args = cli.args;
    let about = service::About {
        name: "reader",
        version: service::VERSION,
        flow: format!("{} → {}", args.input.display(), args.service.streams()),
        metrics: &telemetry::METRICS,
        series: telemetry::SERIES,
    };
    let service = args.service.clone();
    service::run(about, &service, async move |context| follow::run(args, context).await)
}
