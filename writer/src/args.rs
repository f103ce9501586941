//! Flags and environment.

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};
use delivery::consumer::lease::{LEASE_MAX, LEASE_MIN};
use globset::{Glob, GlobBuilder};
use service::Failure;
use service::args::{ServiceArgs, name};
use service::manuals::Shell;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Appends the lines of a Redis Stream to a file, each exactly once.
#[derive(Debug, Parser)]
#[command(name = "writer", version = service::VERSION, propagate_version = true, subcommand_negates_reqs = true, after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub(crate) struct Args {
    /// What the service needs.
    #[command(flatten)]
    pub(crate) service: ServiceArgs,
    /// What the writer needs.
    #[command(flatten)]
    pub(crate) writer: WriterArgs,
    /// Instead of the service.
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

/// The end of the help.
const EXAMPLES: &str = "Examples:
  writer --redis-url redis://localhost --output out.txt     append new lines until stopped
  writer --output out.txt --once --http-addr 127.0.0.1:0    append the present lines, then exit
  writer --output-dir mirror --sources 'nginx/**'           one output per source of many files
  writer check --config writer.toml                         test the configuration
  writer verify --input app.log --output out.txt            prove that no byte is missing or doubled
  writer verify --input-dir logs --output-dir mirror        the same for every file of a tree
  writer rotate --output out.txt                            rename the output of a running writer";

/// The flags of the service.
#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct WriterArgs {
    /// The file to append to; its commit journal is beside it, as FILE.journal
    #[arg(
        long,
        env = "LINE_STREAM_OUTPUT",
        help_heading = "Output",
        value_name = "FILE",
        default_value = "/data/output.txt"
    )]
    pub(crate) output: PathBuf,

    /// Instead of --output: mirror all sources of many files into this folder, one file per source,
    /// in the same subfolders; created if it does not exist
    #[arg(
        long,
        env = "LINE_STREAM_OUTPUT_DIR",
        help_heading = "Output",
        value_name = "FOLDER",
        conflicts_with = "output"
    )]
    pub(crate) output_dir: Option<PathBuf>,

    /// With --output-dir, write only sources whose names match, such as 'app/*.log' or
    /// '{app,web}/**'; repeatable [default: all]
    #[arg(long, env = "LINE_STREAM_SOURCES", help_heading = "Output", value_name = "GLOB", value_parser = source_glob)]
    pub(crate) sources: Vec<Glob>,

    /// The consumer group; writers of one group share the stream
    #[arg(long, env = "LINE_STREAM_GROUP", help_heading = "Output", value_name = "NAME", default_value = "writers", value_parser = name)]
    pub(crate) group: String,

    /// This writer's name in the group; keep it across restarts [default: the host name and the
    /// output's path]
    #[arg(long, env = "LINE_STREAM_CONSUMER", help_heading = "Output", value_name = "NAME", value_parser = name)]
    pub(crate) consumer: Option<String>,

    /// Share the group with other writers, or consume the group, or each partition's group, alone,
    /// which halves the load on Redis
    #[arg(long, env = "LINE_STREAM_CONSUME", help_heading = "Output", value_enum, value_name = "HOW", default_value_t = ConsumeMode::Group)]
    pub(crate) consume: ConsumeMode,

    /// With --consume exclusive, how long an unresponsive writer keeps other writers out, from 1s
    /// to 10m
    #[arg(long, env = "LINE_STREAM_LEASE", help_heading = "Output", value_name = "TIME", default_value = "10s", value_parser = lease, allow_hyphen_values = true)]
    pub(crate) lease: Time,

    /// Claim entries that have been pending with another consumer for this long, such as 30s, 5m or
    /// 1h [default: off]
    #[arg(long, env = "LINE_STREAM_CLAIM_IDLE", help_heading = "Output", value_name = "TIME", value_parser = claim_idle, allow_hyphen_values = true)]
    pub(crate) claim_idle: Option<ClaimIdle>,

    /// When to sync the output: before entries are acknowledged, once a second, or at the kernel's
    /// discretion
    #[arg(long, env = "LINE_STREAM_FSYNC", help_heading = "Output", value_enum, value_name = "WHEN", default_value_t = Fsync::Always)]
    pub(crate) fsync: Fsync,

    /// How long to wait until another writer releases the output, such as 30s; then exit with 2
    #[arg(long, env = "LINE_STREAM_LOCK_WAIT", help_heading = "Output", value_name = "TIME", default_value = "0s", value_parser = time, allow_hyphen_values = true)]
    pub(crate) lock_wait: Time,
}

impl WriterArgs {
    /// Source and destination, for messages.
    pub(crate) fn flow(&self, service: &ServiceArgs) -> String {
        match &self.output_dir {
            Some(folder) => format!("the sources of {} → {}", service.stream, folder.display()),
            None => format!("{} → {}", service.streams(), self.output.display()),
        }
    }

    /// Checks combinations of flags.
    pub(crate) fn check(&self, service: &ServiceArgs) -> Result<(), Failure> {
        match &self.output_dir {
            Some(_) if service.partitions > 1 => {
                return Err(Failure::config(format!(
                    "--partitions {}: with --output-dir, each source has a stream of its own; allowed: 1",
                    service.partitions
                )));
            }
            Some(_) if self.consume == ConsumeMode::Exclusive => {
                return Err(Failure::config(
                    "--consume exclusive: not with --output-dir, whose sources share connections; allowed: group",
                ));
            }
            None if !self.sources.is_empty() => {
                return Err(Failure::config(
                    "--sources: it selects sources of --output-dir; allowed: both, or neither",
                ));
            }
            _ => {}
        }
        match (self.consume, self.claim_idle.and_then(|idle| idle.0)) {
            (ConsumeMode::Exclusive, Some(idle)) => Err(Failure::config(format!(
                "--claim-idle {}: nobody else has entries pending with --consume exclusive; allowed: off, or --consume group",
                format_args!("{idle:?}")
            ))),
            _ => Ok(()),
        }
    }

    /// The name in the group: of two writers on a host, each has an output of its own.
    pub(crate) fn consumer(&self) -> String {
        self.consumer_of(self.output_dir.as_ref().unwrap_or(&self.output))
    }

    /// The name in the group of a writer with this output.
    pub(crate) fn consumer_of(&self, output: &Path) -> String {
        match &self.consumer {
            Some(name) => name.clone(),
            None => format!(
                "{}:{}",
                host_name(),
                std::path::absolute(output).unwrap_or_else(|_| output.to_owned()).display()
            ),
        }
    }
}

/// When written lines are made durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Fsync {
    /// Before XACK.
    Always,
    /// Once a second.
    Interval,
    /// At the kernel's discretion.
    Never,
}

/// How the entries of the group are consumed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ConsumeMode {
    /// Shared with other writers: XREADGROUP and XACK.
    Group,
    /// By this writer alone: XREAD and XGROUP SETID, under a lease.
    Exclusive,
}

/// How long entries must have been pending with another consumer before this one claims them;
/// `None`: never.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ClaimIdle(pub(crate) Option<Duration>);

/// The flags of `check`: those of the service.
#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct CheckArgs {
    /// What the service needs.
    #[command(flatten)]
    pub(crate) service: ServiceArgs,
    /// What the writer needs.
    #[command(flatten)]
    pub(crate) writer: WriterArgs,
    /// Report as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Instead of the service.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Test the whole configuration without moving a line, and report what to do about problems;
    /// exits with 0, with 1 if the writer would wait, or with 2 if it would exit
    Check(Box<CheckArgs>),
    /// Prove that the outputs together contain every byte of the inputs exactly once
    ///
    /// Exits with 0 if they do, else with 1 and the ranges that are missing, duplicated or
    /// different. The journals beside the outputs locate each range; a single output without a
    /// journal is compared byte by byte. With --input-dir and --output-dir, each source of a tree
    /// is compared.
    Verify {
        /// A file that a reader read; repeat it for rotated files, in any order (without a journal:
        /// in the order in which they were written)
        #[arg(long, required_unless_present = "input_dir", value_name = "FILE")]
        input: Vec<PathBuf>,
        /// A file that a writer wrote
        #[arg(long, required_unless_present_any = ["folder", "output_dir"], value_name = "FILE")]
        output: Vec<PathBuf>,
        /// A folder, for every output in it that has a journal, rotated ones included
        #[arg(long, value_name = "FOLDER")]
        folder: Vec<PathBuf>,
        /// A folder of inputs, for every file below it, rotated and compressed ones included
        #[arg(long, value_name = "FOLDER", requires = "output_dir", conflicts_with_all = ["input", "output", "folder"])]
        input_dir: Option<PathBuf>,
        /// The folder of a writer with --output-dir; repeat it if there are several writers
        #[arg(long, value_name = "FOLDER", requires = "input_dir")]
        output_dir: Vec<PathBuf>,
        /// Report as JSON
        #[arg(long)]
        json: bool,
    },
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Write the man pages into a folder
    #[command(hide = true)]
    Man {
        /// The folder
        folder: PathBuf,
    },
    /// Restore the order of the source from the outputs of several writers, on standard output
    ///
    /// Bytes that two outputs contain are written once. If bytes are missing, exits with 1 and
    /// names their ranges.
    Merge {
        /// A file that a writer wrote
        #[arg(long, required_unless_present_any = ["folder", "output_dir"], value_name = "FILE")]
        output: Vec<PathBuf>,
        /// A folder, for every output in it that has a journal, rotated ones included
        #[arg(long, value_name = "FOLDER")]
        folder: Vec<PathBuf>,
        /// The folder of a writer with --output-dir; each source is written to its own file below
        /// the folder --into
        #[arg(long, value_name = "FOLDER", requires = "into", conflicts_with_all = ["output", "folder"])]
        output_dir: Vec<PathBuf>,
        /// Write to this new file instead of standard output; it appears when it is complete and
        /// durable, and an interrupted merge is resumed
        #[arg(long, value_name = "FILE")]
        into: Option<PathBuf>,
    },
    /// Rename the output (output.txt-20261130T120501.250Z), and wait until the writer continues in
    /// a new file
    ///
    /// Prints the new path. The writer renames the journal too; if none is running, the next one
    /// does.
    Rotate {
        /// The file that the writer appends to
        #[arg(long, env = "LINE_STREAM_OUTPUT", value_name = "FILE", default_value = "/data/output.txt")]
        output: PathBuf,
        /// How long to wait for the writer, such as 10s or 1m
        #[arg(long, value_name = "TIME", default_value = "30s", value_parser = time, allow_hyphen_values = true)]
        patience: Time,
    },
}

/// A time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Time(pub(crate) Duration);

/// As [`claim_idle`], without `off`, and `0s` is allowed.
fn time(text: &str) -> Result<Time, String> {
    if text == "0s" {
        return Ok(Time(Duration::ZERO));
    }
    let time = claim_idle(text).ok().and_then(|idle| idle.0);
    time.map(Time).ok_or_else(|| "allowed: a time such as 500ms, 30s or 5m".to_owned())
}

fn lease(text: &str) -> Result<Time, String> {
    let time = claim_idle(text).ok().and_then(|idle| idle.0);
    let time = time.filter(|time| (LEASE_MIN..=LEASE_MAX).contains(time));
    time.map(Time).ok_or_else(|| "allowed: a time from 1s to 10m".to_owned())
}

/// The name of this host; `writer` when it has none.
fn host_name() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    if name.is_empty() { "writer".to_owned() } else { name }
}

/// A pattern of names of sources: `*` stays within a component, `**` does not.
fn source_glob(text: &str) -> Result<Glob, String> {
    let glob = GlobBuilder::new(text).literal_separator(true).build();
    glob.map_err(|error| format!("{}; allowed: a pattern such as 'app/*.log' or '**/*.log'", error.kind()))
}

fn claim_idle(text: &str) -> Result<ClaimIdle, String> {
    if text == "off" {
        return Ok(ClaimIdle(None));
    }
    let allowed = || "allowed: off, or a time of at least 1ms such as 500ms, 30s, 5m or 1h".to_owned();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| allowed())?;
    let millis = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(allowed()),
    };
    let time = number.checked_mul(millis).filter(|&millis| millis > 0).ok_or_else(allowed)?;
    Ok(ClaimIdle(Some(Duration::from_millis(time))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read() {
        let idle = |text| claim_idle(text).map(|idle| idle.0);
        assert_eq!(idle("30s"), Ok(Some(Duration::from_secs(30))));
        assert_eq!(idle("250ms"), Ok(Some(Duration::from_millis(250))));
        assert_eq!(idle("5m"), Ok(Some(Duration::from_secs(300))));
        assert_eq!(idle("off"), Ok(None));
        for wrong in ["", "5", "s", "0s", "-1s", "5 s", "99999999999999999999h", "1.5h"] {
            assert!(idle(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn two_outputs_on_a_host_have_two_consumers() {
        let consumer = |args: &[&str]| Args::try_parse_from([&["writer"], args].concat()).unwrap().writer.consumer();
        assert_eq!(consumer(&["--output", "/a/b"]), format!("{}:/a/b", host_name()));
        assert_ne!(consumer(&["--output", "a"]), consumer(&["--output", "b"]));
        assert_eq!(consumer(&["--output", "a", "--consumer", "c"]), "c");
    }

    #[test]
    fn a_comma_separates_patterns_within_braces_only() {
        let sources = |args: &[&str]| {
            let args = Args::try_parse_from([&["writer"], args].concat()).unwrap().writer;
            args.sources.iter().map(Glob::compile_matcher).collect::<Vec<_>>()
        };
        let [glob] = &sources(&["--sources", "{a/*.log,b/**}"])[..] else { panic!("one pattern") };
        assert!(glob.is_match("a/x.log") && glob.is_match("b/c/d"));
        assert!(!glob.is_match("a/c/x.log") && !glob.is_match("c/x.log"));
        let [glob] = &sources(&["--sources", "a,b"])[..] else { panic!("one pattern") };
        assert!(glob.is_match("a,b") && !glob.is_match("a"));
        assert_eq!(sources(&["--sources", "a", "--sources", "b"]).len(), 2);
    }

    #[test]
    fn the_flags_are_consistent() {
        use clap::CommandFactory as _;
        Args::command().debug_assert();
    }
}
