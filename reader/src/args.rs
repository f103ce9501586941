//! Flags.

use clap::{Args, Parser, Subcommand, ValueEnum};
use delivery::split::Framing;
use service::args::ServiceArgs;
use service::manuals::Shell;
use std::path::PathBuf;

/// Follows a text file and streams its lines into a Redis Stream, each exactly once.
#[derive(Debug, Clone, Parser)]
#[command(name = "reader", version = service::VERSION, args_conflicts_with_subcommands = true, after_help = EXAMPLES)]
pub(crate) struct Cli {
    /// The service.
    #[command(flatten)]
    pub(crate) args: ReaderArgs,
    /// Instead of the service.
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

/// The end of the help.
const EXAMPLES: &str = "Examples:
  reader --redis-url redis://localhost --input app.log             follow app.log until stopped
  reader --input app.log --once --http-addr 127.0.0.1:0            send what it holds now, then end
  reader check --config reader.toml                                look whether all of this can work
  REDIS_URL=rediss://redis:6380 reader --framing chunk             many lines in one entry, over TLS";

/// Instead of the service.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum Command {
    /// Test the whole configuration without moving a line: exit 0, or 1 and what is wrong and what to do
    Check(Box<ReaderArgs>),
    /// Print what a shell needs to complete the flags
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
}

/// The flags of the service.
#[derive(Debug, Clone, Args)]
pub(crate) struct ReaderArgs {
    #[command(flatten)]
    pub(crate) service: ServiceArgs,

    /// The file to follow
    #[arg(
        long,
        env = "LINE_STREAM_INPUT",
        help_heading = "Input",
        value_name = "FILE",
        default_value = "/data/input.txt"
    )]
    pub(crate) input: PathBuf,

    /// Where the small file with the input's identity lies [default: the input's folder]
    #[arg(long, env = "LINE_STREAM_STATE_DIR", help_heading = "Input", value_name = "FOLDER")]
    pub(crate) state_dir: Option<PathBuf>,

    /// How lines become entries: one entry a line, or many whole lines in one entry
    #[arg(long, env = "LINE_STREAM_FRAMING", help_heading = "Input", value_name = "FRAMING", default_value = "line")]
    pub(crate) framing: FramingArg,

    /// Where a file never seen before starts
    #[arg(long, env = "LINE_STREAM_FROM", help_heading = "Input", value_name = "WHERE", default_value = "beginning")]
    pub(crate) from: From,

    /// Entries in the stream above which the reader waits; 0 = no bound
    #[arg(
        long,
        env = "LINE_STREAM_MAX_BACKLOG",
        help_heading = "Input",
        value_name = "ENTRIES",
        default_value_t = 10_000_000
    )]
    pub(crate) max_backlog: u64,
}

/// How lines become entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum FramingArg {
    /// One entry per line, field `line`
    Line,
    /// Many whole lines in one entry, field `lines`
    Chunk,
}

impl FramingArg {
    pub(crate) const fn framing(self) -> Framing {
        match self {
            Self::Line => Framing::Line,
            Self::Chunk => Framing::Chunk,
        }
    }
}

/// Where a file never seen before starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum From {
    /// At its first byte
    Beginning,
    /// Behind its last whole line
    End,
}
