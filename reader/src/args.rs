//! Flags.

use crate::many::pattern::is_glob;
use clap::{Args, Parser, Subcommand, ValueEnum};
use delivery::split::Framing;
use service::Failure;
use service::args::ServiceArgs;
use service::manuals::Shell;
use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

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
    /// Test the whole configuration without moving a line: exit 0, or 1 when the reader would wait,
    /// 2 when it would end; and what to do
    Check(Box<CheckArgs>),
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

/// The flags of the service, to be checked.
#[derive(Debug, Clone, Args)]
pub(crate) struct CheckArgs {
    #[command(flatten)]
    pub(crate) reader: ReaderArgs,
    /// Report as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// The flags of the service.
#[derive(Debug, Clone, Args)]
pub(crate) struct ReaderArgs {
    #[command(flatten)]
    pub(crate) service: ServiceArgs,

    /// The file to follow. Several times, or a pattern in quotes such as '/var/log/**/*.log', for
    /// many files: each has a stream of its own, KEY:{NAME}, where NAME is its path below the fixed
    /// part of the pattern
    #[arg(
        long,
        env = "LINE_STREAM_INPUT",
        help_heading = "Input",
        value_name = "FILE",
        default_value = "/data/input.txt"
    )]
    pub(crate) input: Vec<PathBuf>,

    /// With many files: a pattern of those to leave out, of file names or, with a slash in it, of
    /// paths; may be repeated
    #[arg(long, env = "LINE_STREAM_EXCLUDE", help_heading = "Input", value_name = "PATTERN")]
    pub(crate) exclude: Vec<String>,

    /// Where the small file with the input's identity lies [default: the input's folder]
    #[arg(long, env = "LINE_STREAM_STATE_DIR", help_heading = "Input", value_name = "FOLDER")]
    pub(crate) state_dir: Option<PathBuf>,

    /// How lines become entries: one entry a line, or many whole lines in one entry
    #[arg(long, env = "LINE_STREAM_FRAMING", help_heading = "Input", value_name = "FRAMING", default_value = "line")]
    pub(crate) framing: FramingArg,

    /// A field that each entry gets for other consumers, such as 'host={host}'; {file} is the
    /// input's path, {host} the host's name; may be repeated
    #[arg(long, env = "LINE_STREAM_ADD_FIELD", help_heading = "Input", value_name = "NAME=VALUE")]
    pub(crate) add_field: Vec<String>,

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

impl ReaderArgs {
    /// From where to where.
    pub(crate) fn flow(&self) -> String {
        match &self.input[..] {
            _ if self.is_many() => format!("{} → {}:{{…}}", self.inputs(), self.service.stream),
            _ => format!("{} → {}", self.inputs(), self.service.streams()),
        }
    }

    /// The inputs as they were given.
    pub(crate) fn inputs(&self) -> String {
        self.input.iter().map(|input| input.display().to_string()).collect::<Vec<_>>().join(", ")
    }

    /// Whether there may be many files: several inputs, or a pattern that no file has as its name.
    pub(crate) fn is_many(&self) -> bool {
        let is_pattern = |input: &PathBuf| is_glob(input) && input.symlink_metadata().is_err();
        self.input.len() > 1 || self.input.first().is_some_and(is_pattern)
    }

    fn one(&self) -> &Path {
        self.input.first().map_or(Path::new(""), PathBuf::as_path)
    }

    /// The input's path.
    ///
    /// # Errors
    ///
    /// When no file that can be followed can be there; with `--once` also when there is none that
    /// can be read.
    pub(crate) fn input(&self) -> Result<PathBuf, Failure> {
        let wrong = |why: &str| self.wrong_input(why);
        let shown = self.one().to_string_lossy();
        if shown == "-" {
            return Err(wrong("standard input cannot be read again after a fault; allowed: a file's path"));
        }
        let input =
            std::path::absolute(self.one()).map_err(|error| wrong(&format!("{error}; allowed: a file's path")))?;
        let once = self.service.once;
        let found = std::fs::metadata(&input).and_then(|found| match once && found.is_file() {
            true => File::open(&input).map(|_| found),
            false => Ok(found),
        });
        match found {
            Ok(metadata) if metadata.is_dir() => Err(wrong("a folder; allowed: a file's path")),
            Ok(metadata) if !metadata.is_file() => Err(wrong(
                "a device, pipe or socket, which cannot be read again after a fault; allowed: a regular file",
            )),
            Err(error) if error.kind() == ErrorKind::InvalidFilename => {
                Err(wrong(&format!("{error}; allowed: a shorter path")))
            }
            Err(error) if once => {
                let (from, todo) = (service::args::origin("input"), service::advice::io(&error));
                Err(Failure::failed(format!(
                    "--input {shown}{from}: {error}; --once sends what there is and does not wait for a file; {todo}"
                )))
            }
            _ if input.file_name().is_none() => Err(wrong("a folder; allowed: a file's path")),
            _ => Ok(input),
        }
    }

    /// Why the input cannot be read, when that is for want of rights.
    pub(crate) fn unreadable(&self, input: &Path) -> Option<Failure> {
        let error = File::open(input).err().filter(|error| error.kind() == ErrorKind::PermissionDenied)?;
        Some(
            self.wrong_input(&format!(
                "{error}; allowed: a file in a folder that the service's user can enter and read"
            )),
        )
    }

    pub(crate) fn wrong_input(&self, why: &str) -> Failure {
        Failure::config(format!("--input {}{}: {why}", self.inputs(), service::args::origin("input")))
    }
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
