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
#[command(name = "reader", version = service::VERSION, propagate_version = true, args_conflicts_with_subcommands = true, after_help = EXAMPLES)]
pub(crate) struct Cli {
    /// The service.
    #[command(flatten)]
    pub(crate) args: ReaderArgs,
    /// Instead of the service.
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

/// Why an input that is no regular file is refused.
pub(crate) const NO_FILE: &str =
    "a device, pipe or socket, which cannot be read again after a fault; allowed: a regular file";

/// The end of the help.
const EXAMPLES: &str = "Examples:
  reader --redis-url redis://localhost --input app.log             follow app.log until stopped
  reader --input app.log --once --http-addr 127.0.0.1:0            send its present lines, then exit
  reader --input 'logs/**/*.log' --state-dir state                 follow a whole tree
  reader check --config reader.toml                                test the configuration
  REDIS_URL=rediss://redis:6380 reader --framing chunk             many lines in one entry, over TLS";

/// Instead of the service.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum Command {
    /// Test the whole configuration without moving a line, and report what to do about problems;
    /// exits with 0, with 1 if the reader would wait, or with 2 if it would exit
    Check(Box<CheckArgs>),
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
}

/// The flags of `check`: those of the service.
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

    /// The file to follow. For many files, repeat the flag or give a pattern in quotes such as
    /// '/var/log/**/*.log'. Each file then has its own stream KEY:{NAME}, where NAME is its path
    /// below the fixed part of the pattern
    #[arg(
        long,
        env = "LINE_STREAM_INPUT",
        help_heading = "Input",
        value_name = "FILE",
        default_value = "/data/input.txt"
    )]
    pub(crate) input: Vec<PathBuf>,

    /// With many files, a pattern of files to leave out, which is compared with file names or, if
    /// it contains a slash, with paths; repeatable
    #[arg(long, env = "LINE_STREAM_EXCLUDE", help_heading = "Input", value_name = "PATTERN")]
    pub(crate) exclude: Vec<String>,

    /// The folder of the state file, which identifies the contents of the input; created if it does
    /// not exist [default: the input's folder]
    #[arg(long, env = "LINE_STREAM_STATE_DIR", help_heading = "Input", value_name = "FOLDER")]
    pub(crate) state_dir: Option<PathBuf>,

    /// What becomes one entry: a line, or many complete lines
    #[arg(long, env = "LINE_STREAM_FRAMING", help_heading = "Input", value_name = "FRAMING", default_value = "line")]
    pub(crate) framing: FramingArg,

    /// A constant field at the end of each entry, for other consumers, such as 'host={host}';
    /// {file} stands for the input's path, {host} for the name of this host; repeatable
    #[arg(long, env = "LINE_STREAM_ADD_FIELD", help_heading = "Input", value_name = "NAME=VALUE")]
    pub(crate) add_field: Vec<String>,

    /// Where to start in a new file
    #[arg(long, env = "LINE_STREAM_FROM", help_heading = "Input", value_name = "WHERE", default_value = "beginning")]
    pub(crate) from: From,

    /// The number of entries in the stream above which the reader waits; 0: no limit
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
    /// Source and destination, for messages.
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
        if let Some(pattern) = self.exclude.first() {
            let from = service::args::origin("exclude");
            return Err(Failure::config(format!(
                "--exclude {pattern}{from}: --input {} is one file, so there is nothing to leave out; allowed: with a \
                 pattern or several files in --input",
                self.inputs()
            )));
        }
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
            Ok(metadata) if metadata.is_dir() => Err(wrong(&self.a_folder())),
            Ok(metadata) if !metadata.is_file() => Err(wrong(NO_FILE)),
            Err(error) if error.kind() == ErrorKind::InvalidFilename => {
                Err(wrong(&format!("{error}; allowed: a shorter path")))
            }
            Err(error) if error.kind() == ErrorKind::NotADirectory => {
                Err(wrong(&format!("{error}; {}", service::advice::io(&error))))
            }
            Err(error) if once => {
                let (from, todo) = (service::args::origin("input"), service::advice::reading(&error));
                Err(Failure::failed(format!(
                    "--input {shown}{from}: {error}; --once sends what there is and does not wait for a file; {todo}"
                )))
            }
            _ if input.file_name().is_none() => Err(wrong(&self.a_folder())),
            _ => Ok(input),
        }
    }

    /// Why a folder is no input, and how to name the files in it.
    fn a_folder(&self) -> String {
        let pattern = self.one().join("*.log");
        format!("a folder; allowed: a file's path, or a pattern such as '{}'", pattern.display())
    }

    /// Why the input cannot be read, if a permission is missing.
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
    /// Many complete lines per entry, field `lines`
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

/// Where to start in a new file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum From {
    /// At its first byte
    Beginning,
    /// After its last complete line
    End,
}
