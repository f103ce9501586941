//! Flags.

use clap::{Parser, ValueEnum};
use delivery::split::Framing;
use service::args::ServiceArgs;
use std::path::PathBuf;

/// Follows a text file and streams its lines into a Redis Stream, each exactly once.
#[derive(Debug, Clone, Parser)]
#[command(name = "reader", version)]
pub(crate) struct ReaderArgs {
    #[command(flatten)]
    pub(crate) service: ServiceArgs,

    /// The file to follow
    #[arg(long, env, value_name = "FILE", default_value = "/data/input.txt")]
    pub(crate) input: PathBuf,

    /// Where the small file with the input's identity lies [default: the input's folder]
    #[arg(long, env, value_name = "FOLDER")]
    pub(crate) state_dir: Option<PathBuf>,

    /// How lines become entries: one entry a line, or many whole lines in one entry
    #[arg(long, env, value_name = "FRAMING", default_value = "line")]
    pub(crate) framing: FramingArg,

    /// Where a file never seen before starts
    #[arg(long, env, value_name = "WHERE", default_value = "beginning")]
    pub(crate) from: From,

    /// Entries in the stream above which the reader waits; 0 = no bound
    #[arg(long, env, value_name = "ENTRIES", default_value_t = 10_000_000)]
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
