//! `writer`: appends the lines of a Redis Stream to a file, each exactly once; `verify`, `merge`
//! and `rotate` for what was written.
//!
//! # Layout
//!
//! | file | what it is |
//! |---|---|
//! | `args.rs` | flags and environment |
//! | `run.rs` | the service: three stages that overlap, the first and the last once for each partition |
//! | `partition_check.rs` | with how many partitions the source was begun |
//! | `consume.rs`, `consume_log.rs` | stage 1: reads the stream, fills batches; what `delivery::consumer` decides |
//! | `commit.rs` | stage 2: batches to the disk, whatever the disk says |
//! | `output.rs`, `journal_file.rs` | the output and its journal |
//! | `disk_space.rs` | the room on its file system |
//! | `output_folder.rs` | the folder of an output: outputs that were renamed, and their journals |
//! | `acknowledge.rs` | stage 3: XACK, and the housekeeping of the group |
//! | `group.rs` | what is asked of the group and of the source record |
//! | `totals.rs` | the backlog of all partitions together |
//! | `check.rs` | `writer check` |
//! | `metric_names.rs` | the metrics |
//! | `verify.rs`, `compare.rs`, `report.rs` | `writer verify` |
//! | `merge.rs` | `writer merge` |
//! | `find_outputs.rs` | the outputs in a folder, for these two |
//! | `rotate.rs` | `writer rotate` |
//! | `progress.rs` | how far these two are |
//! | `segments.rs`, `file_buffer.rs` | where the bytes lie in outputs, and reading them |
//! | `failpoint.rs` | where tests end the process |
//! | `allocations.rs` | tests: what is allocated |

// Production code neither panics on an index nor cuts a number off.
#![cfg_attr(
    not(test),
    warn(
        clippy::indexing_slicing,
        clippy::cast_possible_truncation,
        clippy::cast_possible_wrap,
        clippy::cast_sign_loss
    )
)]
// In tests a list of one range is just that.
#![cfg_attr(test, allow(clippy::single_range_in_vec_init))]

mod acknowledge;
#[cfg(test)]
mod allocations;
mod args;
mod check;
mod commit;
mod compare;
mod consume;
mod consume_log;
mod disk_space;
mod failpoint;
mod file_buffer;
mod find_outputs;
mod group;
mod journal_file;
mod latency;
mod merge;
mod metric_names;
mod output;
mod output_folder;
mod partition_check;
mod progress;
mod report;
mod rotate;
mod run;
mod segments;
#[cfg(test)]
mod test_outputs;
mod totals;
mod verify;

use args::{Args, Command};
use service::{About, Failure, manuals};
use std::io::Write as _;
use std::process::ExitCode;

/// For the man page.
const FILES: [(&str, &str); 3] = [
    (
        "OUTPUT.journal",
        "OutputFolder the output: which bytes of the source are where in it. Move, copy and back up both together.",
    ),
    ("OUTPUT.cut", "Bytes that were behind the last commit when the writer started, such as those of another program."),
    (
        "/etc/line-stream/writer-NAME.toml",
        "The configuration of the unit line-stream-writer@NAME, as --config takes it.",
    ),
];

fn main() -> ExitCode {
    let args: Args = match service::args::parse() {
        Ok(args) => args,
        Err(code) => return code,
    };
    match args.command {
        Some(Command::Check(args)) => check::run(&args),
        Some(Command::Verify { input, output, folder, json }) => {
            finish(find_outputs::outputs(&output, &folder).and_then(|output| verify::run(&input, &output, json)))
        }
        Some(Command::Merge { output, folder, into }) => {
            finish(find_outputs::outputs(&output, &folder).and_then(|output| merge::run(&output, into.as_deref())))
        }
        Some(Command::Rotate { output, patience }) => finish(rotate::run(&output, patience.0)),
        Some(Command::Completions { shell }) => manuals::completions::<Args>(shell),
        Some(Command::Man { folder }) => manuals::man::<Args>(&folder, &FILES),
        None => {
            let service = args.service.clone();
            service::run(about(&args), &service, async |context| run::run(&args.service, &args.writer, context).await)
        }
    }
}

/// What the service is called, and what it shows.
fn about(args: &Args) -> About {
    About {
        name: "writer",
        version: service::VERSION,
        flow: args.writer.flow(&args.service),
        labels: vec![
            ("stream", args.service.stream.clone()),
            ("group", args.writer.group.clone()),
            ("output", args.writer.output.display().to_string()),
        ],
        metrics: metric_names::ALL,
        series: metric_names::SERIES,
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
