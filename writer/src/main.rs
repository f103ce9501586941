//! `writer`: appends the lines of a Redis Stream to a file, each exactly once. Its commands
//! `verify`, `merge` and `rotate` work on the files that it wrote.
//!
//! # Layout
//!
//! | file | subject |
//! |---|---|
//! | `args.rs` | flags and environment variables |
//! | `run.rs` | the service: three overlapping stages; the first and the last run once per partition |
//! | `many/` | the service with `--output-dir`: many sources share connections, files and threads |
//! | `partition_check.rs` | checks the number of partitions |
//! | `consume.rs`, `consume_log.rs` | stage 1: reads the stream and fills batches; logs its notices |
//! | `commit.rs` | stage 2: commits batches, and retries disk errors |
//! | `output.rs`, `journal_file.rs` | the output and its journal as files |
//! | `disk_space.rs` | metrics of the free space |
//! | `output_folder.rs` | the folder of an output: rotated outputs and their journals |
//! | `acknowledge.rs` | stage 3: XACK, and maintenance of the group |
//! | `group.rs` | commands on the group and on the source record |
//! | `totals.rs` | gauges of the backlog of all partitions |
//! | `check.rs` | `writer check` |
//! | `metric_names.rs` | the metrics |
//! | `verify.rs`, `compare.rs`, `report.rs` | `writer verify` |
//! | `merge.rs` | `writer merge` |
//! | `find_outputs.rs`, `tree.rs` | `--folder`, and `--input-dir` and `--output-dir`, of these two |
//! | `rotate.rs` | `writer rotate` |
//! | `progress.rs` | the progress bar of `verify` and `merge` |
//! | `segments.rs`, `file_buffer.rs` | positions of source bytes in outputs; reading them |
//! | `failpoint.rs` | places where tests abort the process |
//! | `allocations.rs` | tests of allocations |

// Flags, journals and replies are untrusted: arithmetic on them must not overflow, an index must
// not panic, and no number is truncated.
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
// Tests use lists of a single range.
#![cfg_attr(test, allow(clippy::single_range_in_vec_init))]

mod acknowledge;
#[cfg(test)]
mod allocations;
mod args;
mod check;
mod commit;
#[expect(
    clippy::arithmetic_side_effects,
    reason = "offsets in open files, which are below 2^63, and in bytes that are in memory"
)]
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
mod many;
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
mod tree;
mod verify;

use args::{Args, Command};
use service::{About, Failure, manuals};
use std::io::Write as _;
use std::process::ExitCode;

/// The FILES section of the man page.
const FILES: [(&str, &str); 3] = [
    (
        "OUTPUT.journal",
        "Beside the output: records which bytes of the source are where in it. Move, copy and back up both together.",
    ),
    ("OUTPUT.cut", "Bytes after the last commit when the writer started, such as those of another program."),
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
        Some(Command::Verify { input_dir: Some(inputs), output_dir, json, .. }) => {
            finish(verify::run_tree(&inputs, &output_dir, json))
        }
        Some(Command::Verify { input, output, folder, json, .. }) => {
            finish(find_outputs::outputs(&output, &folder).and_then(|output| verify::run(&input, &output, json)))
        }
        Some(Command::Merge { output_dir, into: Some(into), .. }) if !output_dir.is_empty() => {
            finish(merge::run_tree(&output_dir, &into))
        }
        Some(Command::Merge { output, folder, into, .. }) => {
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

/// The description of the service.
fn about(args: &Args) -> About {
    About {
        name: "writer",
        version: service::VERSION,
        flow: args.writer.flow(&args.service),
        labels: vec![
            ("stream", args.service.stream.clone()),
            ("group", args.writer.group.clone()),
            ("output", args.writer.output_dir.as_ref().unwrap_or(&args.writer.output).display().to_string()),
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
