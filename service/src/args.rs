//! The flags both binaries share, and errors of one line.

use std::ffi::OsString;
use std::fmt;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{ArgAction, Args, Command, Parser};
use delivery::partition::Partition;

use crate::{Failure, LogFormat, config_file, redact};

/// The flags both binaries share. Each has an environment variable: its name in upper snake case behind `LINE_STREAM_`. One that is empty counts as
/// not set.
#[derive(Debug, Clone, Args)]
#[non_exhaustive]
pub struct ServiceArgs {
    /// A TOML file with flags by their names (redis-url = "…"); the command line and the environment go before it
    #[arg(long, env = "LINE_STREAM_CONFIG", value_name = "FILE", help_heading = "Service")]
    pub config: Option<PathBuf>,

    /// Where Redis is, and how to get in.
    #[arg(help_heading = "Redis")]
    #[arg(help = "Redis: redis://[user:password@]host[:port][/db], rediss://… for TLS, unix:///path, \
                  redis-sentinel://[user:password@]host[:port],…/master[/db] (the Sentinels' own: ?sentinel_user=…&sentinel_password=…), \
                  or redis-cluster://[user:password@]host[:port],…")]
    #[arg(long, env, value_name = "URL", default_value = "redis://127.0.0.1:6379", hide_env_values = true)]
    pub redis_url: RedisUrl,

    /// A file that holds the password for Redis, in place of one in the URL
    #[arg(long, env, value_name = "FILE", help_heading = "Redis")]
    pub redis_password_file: Option<PathBuf>,

    /// The key of the stream
    #[arg(help_heading = "Redis")]
    #[arg(long, env = "LINE_STREAM_STREAM", value_name = "KEY", default_value = "line_stream", value_parser = stream_key)]
    pub stream: String,

    /// Over how many streams the source is spread: 1 is the key of --stream itself, more are KEY:{0}, KEY:{1} …; the same for reader and writers
    #[arg(help_heading = "Redis")]
    #[arg(long, env = "LINE_STREAM_PARTITIONS", value_name = "N", default_value_t = 1, value_parser = partitions)]
    pub partitions: u32,

    /// Which partitions this process takes: numbers from 0 (0,2 or 0-9), or the name of a StatefulSet's pod, which ends in one (writer-2) [default: all of them]
    #[arg(help_heading = "Redis")]
    #[arg(long, env = "LINE_STREAM_PARTITION", value_name = "NUMBER", value_delimiter = ',', value_parser = some_partitions)]
    pub partition: Vec<RangeInclusive<u32>>,

    /// Where to serve /metrics, /healthz, /readyz and a status page; port 0 picks a free port and logs it
    #[arg(help_heading = "Service")]
    #[arg(long, env = "LINE_STREAM_HTTP_ADDR", value_name = "IP:PORT", default_value = "0.0.0.0:8080", value_parser = http_addr)]
    pub http_addr: SocketAddr,

    /// How log lines look: text for people, json for machines (RUST_LOG says what is logged)
    #[arg(
        long,
        env = "LINE_STREAM_LOG_FORMAT",
        value_name = "FORMAT",
        default_value = "text",
        help_heading = "Service"
    )]
    pub log_format: LogFormat,

    /// Finish the work there is, then exit
    #[arg(help_heading = "Service")]
    #[arg(long, env = "LINE_STREAM_ONCE", action = ArgAction::SetTrue, value_parser = boolean)]
    pub once: bool,
}

impl ServiceArgs {
    /// The partitions that this process takes, in order, each once: all of them unless `--partition` names some.
    ///
    /// # Errors
    ///
    /// When it names one that there is not.
    pub fn taken(&self) -> Result<Vec<Partition>, Failure> {
        let count = self.partitions;
        if let Some(asked) = self.partition.iter().find(|asked| *asked.end() >= count) {
            let (index, last) = (asked.end(), count - 1);
            let allowed = if last == 0 { "0".to_owned() } else { format!("0 to {last}") };
            return Err(Failure::config(format!("--partition {index}: --partitions is {count}; allowed: {allowed}")));
        }
        let is_taken = |partition: &Partition| {
            self.partition.is_empty() || self.partition.iter().any(|asked| asked.contains(&partition.index()))
        };
        Ok(Partition::all(count).filter(is_taken).collect())
    }

    /// The streams of these partitions, for people.
    #[must_use]
    pub fn streams(&self) -> String {
        match self.taken().as_deref() {
            Ok([partition]) => partition.stream(&self.stream),
            Ok(many) => format!("{} ({} of {} partitions)", self.stream, many.len(), self.partitions),
            // Will be told.
            Err(_) => self.stream.clone(),
        }
    }

    /// How to connect: the URL, with the password of `--redis-password-file` when there is one.
    ///
    /// # Errors
    ///
    /// When that file cannot be read or holds no password; the text never shows what it holds.
    pub fn redis(&self) -> Result<resp::Config, Failure> {
        // In a cluster, connections lead to the node that has the stream, and with it the source record.
        let config = self.redis_url.config().clone().for_key(&self.stream);
        let Some(path) = &self.redis_password_file else { return Ok(config) };
        let wrong = |why: &str| {
            Failure::config(format!(
                "--redis-password-file {}: {why}; allowed: a readable file that holds the password",
                path.display()
            ))
        };
        let text = std::fs::read_to_string(path).map_err(|error| wrong(&error.to_string()))?;
        match text.trim_end_matches(['\n', '\r']) {
            "" => Err(wrong("it is empty")),
            password => Ok(config.password(password)),
        }
    }
}

/// Where Redis is, and how to get in. Shown without what is secret.
#[derive(Clone)]
pub struct RedisUrl(resp::Config);

impl RedisUrl {
    /// How to connect.
    #[must_use]
    pub const fn config(&self) -> &resp::Config {
        &self.0
    }
}

impl FromStr for RedisUrl {
    type Err = resp::ConfigError;

    fn from_str(url: &str) -> Result<Self, Self::Err> {
        resp::Config::from_url(url).map(Self)
    }
}

impl fmt::Display for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// For flags that are on or off, so that their variables take what people write.
fn boolean(text: &str) -> Result<bool, &'static str> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Ok(true),
        "false" | "0" | "no" | "off" => Ok(false),
        _ => Err("allowed: true, false, 1, 0, yes, no, on, off"),
    }
}

fn stream_key(text: &str) -> Result<String, String> {
    if text.is_empty() { Err("allowed: a key of at least one byte".to_owned()) } else { Ok(text.to_owned()) }
}

/// The source of `stream` has another number of partitions than was asked for.
#[must_use]
pub fn other_partitions(stream: &str, asked: u32, begun: u32) -> String {
    format!(
        "--partitions {asked}: stream {stream} was begun with --partitions {begun}; allowed: {begun}, or another --stream"
    )
}

fn partitions(text: &str) -> Result<u32, String> {
    let most = delivery::partition::MAX;
    text.parse()
        .ok()
        .filter(|count| (1..=most).contains(count))
        .ok_or_else(|| format!("allowed: a whole number from 1 to {most}"))
}

/// A number, two with a dash between them for all from one to the other, or a name that ends in a dash and a number, as the pods of a StatefulSet
/// have it.
fn some_partitions(text: &str) -> Result<RangeInclusive<u32>, &'static str> {
    let number = |text: &str| text.parse().ok().filter(|_: &u32| text.bytes().all(|byte| byte.is_ascii_digit()));
    let named = match text.rsplit_once('-') {
        Some((first, last)) => number(last).map(|last| number(first).unwrap_or(last)..=last),
        None => number(text).map(|one| one..=one),
    };
    // `-1` is no name, and `9-0` no range.
    named
        .filter(|range| !range.is_empty() && !text.starts_with('-'))
        .ok_or("allowed: whole numbers from 0, such as 0, 0,2 or 0-9, or a name that ends in one, such as writer-2")
}

fn http_addr(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "allowed: IP:PORT, such as 0.0.0.0:8080, 127.0.0.1:0 or [::]:8080".to_owned())
}

/// The flags of this process. `Err` holds the exit code of a process that has nothing more to do: help and version were
/// printed (0), or one line that says what is wrong with the flags (2).
///
/// # Errors
///
/// The exit code to end with; what there is to say has been printed.
pub fn parse<T: Parser>() -> Result<T, ExitCode> {
    parse_from(std::env::args_os()).map_err(|stop| stop.print())
}

/// As [`parse`], from the given arguments (the program's name first), and nothing is printed.
///
/// # Errors
///
/// What would be printed.
pub fn parse_from<T: Parser>(args: impl IntoIterator<Item = impl Into<OsString> + Clone>) -> Result<T, NotRun> {
    let mut command = without_empty_env(T::command());
    let args: Vec<OsString> = args.into_iter().map(Into::into).collect();
    let mut matches = command.try_get_matches_from_mut(&args).map_err(|error| NotRun::new(&command, &error))?;
    let found = config_file::add(&command, &matches, &args)
        .map_err(|what| NotRun::Wrong(format!("{}: {}", command.get_name(), what.replace(['\n', '\r'], " "))))?;
    if let Some(found) = found {
        matches =
            command.try_get_matches_from_mut(&found.args).map_err(|error| match NotRun::new(&command, &error) {
                NotRun::Wrong(line) => NotRun::Wrong(format!("{line} (in {})", found.path.display())),
                info => info,
            })?;
    }
    T::from_arg_matches(&matches).map_err(|error| NotRun::new(&command, &error))
}

/// Why the arguments do not lead to work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotRun {
    /// Help or version was asked for.
    Info(String),
    /// The arguments are wrong; one line.
    Wrong(String),
}

impl NotRun {
    fn new(command: &Command, error: &clap::Error) -> Self {
        match error.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Self::Info(error.render().to_string()),
            _ => Self::Wrong(one_line(command, error)),
        }
    }

    fn print(&self) -> ExitCode {
        use std::io::Write as _;
        // Nobody is left to tell when the terminal is gone.
        match self {
            Self::Info(text) => {
                let _ = std::io::stdout().write_all(text.as_bytes());
                ExitCode::SUCCESS
            }
            Self::Wrong(text) => {
                let _ = writeln!(std::io::stderr(), "{text}");
                ExitCode::from(2)
            }
        }
    }
}

/// An environment variable that is empty counts as not set, as deployment templates like to leave them.
fn without_empty_env(command: Command) -> Command {
    command
        .mut_args(|arg| match arg.get_env().map(std::env::var_os) {
            Some(Some(value)) if value.is_empty() => arg.env(None::<&str>),
            _ => arg,
        })
        .mut_subcommands(without_empty_env)
}

/// One line that names the flag, its value, and what is allowed, in place of clap's paragraphs.
fn one_line(command: &Command, error: &clap::Error) -> String {
    let name = command.get_name();
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(redact(text)),
        Some(ContextValue::Strings(texts)) if !texts.is_empty() => Some(redact(&texts.join(", "))),
        _ => None,
    };
    let arg = text(ContextKind::InvalidArg).unwrap_or_default();
    // `--http-addr <IP:PORT>` → `--http-addr`
    let flag = arg.split(' ').next().unwrap_or_default();
    let value = text(ContextKind::InvalidValue).unwrap_or_default();
    let what = match error.kind() {
        ErrorKind::InvalidValue if value.is_empty() && text(ContextKind::ValidValue).is_none() => {
            format!("{flag}: needs a value (see {name} --help)")
        }
        ErrorKind::TooManyValues => format!("{flag} {value:?}: allowed: {flag} alone, without a value"),
        ErrorKind::InvalidValue | ErrorKind::ValueValidation => {
            let allowed = match text(ContextKind::ValidValue) {
                Some(values) => format!("allowed: {values}"),
                None => std::error::Error::source(error).map_or_else(
                    || format!("allowed: {}", arg.trim_start_matches(flag).trim()),
                    |source| match source.downcast_ref::<std::num::ParseIntError>() {
                        Some(_) => "allowed: a whole number".to_owned(),
                        None => redact(&source.to_string()),
                    },
                ),
            };
            format!("{flag} {value:?}: {allowed}")
        }
        ErrorKind::UnknownArgument => match text(ContextKind::SuggestedArg) {
            Some(similar) => {
                format!("{arg}: no such flag, did you mean {similar}? (see {name} --help)")
            }
            None if arg.starts_with('-') => format!("{arg}: no such flag (see {name} --help)"),
            None => format!("{arg}: neither a flag nor a flag's value (see {name} --help)"),
        },
        ErrorKind::InvalidSubcommand => {
            let value = text(ContextKind::InvalidSubcommand).unwrap_or_default();
            format!("{value}: no such command (see {name} --help)")
        }
        ErrorKind::MissingRequiredArgument => format!("missing: {arg} (see {name} --help)"),
        // clap's own first line says it; what follows are hints about usage.
        _ => {
            let rendered = error.render().to_string();
            let first = rendered.lines().next().unwrap_or_default();
            format!("{} (see {name} --help)", redact(first.trim_start_matches("error: ")))
        }
    };
    format!("{name}: {}", what.replace(['\n', '\r'], " "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Parser)]
    #[command(name = "reader", version)]
    struct Flags {
        #[command(flatten)]
        service: ServiceArgs,
        /// How entries are cut
        #[arg(long, value_parser = ["line", "chunk"], default_value = "line")]
        framing: String,
        #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
        max_backlog: u64,
        #[command(subcommand)]
        command: Option<Sub>,
    }

    #[derive(Debug, clap::Subcommand)]
    enum Sub {
        Verify {
            #[arg(long)]
            input: String,
        },
    }

    fn flags(args: &[&str]) -> Result<Flags, NotRun> {
        parse_from(std::iter::once("reader").chain(args.iter().copied()))
    }

    fn wrong(args: &[&str]) -> String {
        match flags(args).unwrap_err() {
            NotRun::Wrong(line) => {
                assert!(!line.contains('\n'), "{line}");
                line
            }
            NotRun::Info(text) => panic!("{text}"),
        }
    }

    #[test]
    fn defaults_are_those_of_the_contract() {
        let flags = flags(&[]).unwrap();
        assert_eq!(flags.service.redis_url.to_string(), "redis://127.0.0.1:6379");
        assert_eq!(flags.service.stream, "line_stream");
        assert_eq!(flags.service.http_addr, "0.0.0.0:8080".parse().unwrap());
        assert!(!flags.service.once);
        assert!(self::flags(&["--once"]).unwrap().service.once);
    }

    #[test]
    fn errors_are_one_line_with_flag_value_and_what_is_allowed() {
        for (args, line) in [
            (
                &["--http-addr", "8080"][..],
                "reader: --http-addr \"8080\": allowed: IP:PORT, such as 0.0.0.0:8080, 127.0.0.1:0 or [::]:8080",
            ),
            (&["--framing", "word"], "reader: --framing \"word\": allowed: line, chunk"),
            (&["--stream", ""], "reader: --stream \"\": allowed: a key of at least one byte"),
            (&["--streem", "x"], "reader: --streem: no such flag, did you mean --stream? (see reader --help)"),
            (&["--stream"], "reader: --stream: needs a value (see reader --help)"),
            (&["--framing"], "reader: --framing \"\": allowed: line, chunk"),
            (&["--once=1"], "reader: --once \"1\": allowed: --once alone, without a value"),
            (&["--qqqq"], "reader: --qqqq: no such flag (see reader --help)"),
            (&["--once", "more"], "reader: more: no such command (see reader --help)"),
            (
                &["verify", "--input", "a", "more"],
                "reader: more: neither a flag nor a flag's value (see reader --help)",
            ),
            (&["--max-backlog", "many"], "reader: --max-backlog \"many\": allowed: a whole number"),
            (&["--partitions", "0"], "reader: --partitions \"0\": allowed: a whole number from 1 to 16384"),
            (&["--partitions", "16385"], "reader: --partitions \"16385\": allowed: a whole number from 1 to 16384"),
            (&["--max-backlog", "-1"], "reader: --max-backlog \"-1\": allowed: a whole number"),
            (&["verify"], "reader: missing: --input <INPUT> (see reader --help)"),
            (&["varify"], "reader: varify: no such command (see reader --help)"),
        ] {
            assert_eq!(wrong(args), line);
        }
    }

    fn taken(args: &[&str]) -> Result<Vec<u32>, String> {
        let flags = flags(args).map_err(|error| format!("{error:?}"))?;
        let partitions = flags.service.taken().map_err(|failure| {
            assert_eq!(failure.code(), 2);
            failure.to_string()
        })?;
        assert!(partitions.iter().all(|partition| partition.count() == flags.service.partitions));
        Ok(partitions.into_iter().map(Partition::index).collect())
    }

    #[test]
    fn all_partitions_are_taken_unless_some_are_named() {
        assert_eq!(taken(&[]), Ok(vec![0]));
        assert_eq!(taken(&["--partition", "0"]), Ok(vec![0]));
        assert_eq!(taken(&["--partitions", "3"]), Ok(vec![0, 1, 2]));
        assert_eq!(taken(&["--partitions", "3", "--partition", "2,0"]), Ok(vec![0, 2]));
        assert_eq!(taken(&["--partitions", "3", "--partition", "1", "--partition", "0,1"]), Ok(vec![0, 1]));
        assert_eq!(taken(&["--partitions", "3", "--partition", "line-writer-2"]), Ok(vec![2]));
        assert_eq!(taken(&["--partitions", "9", "--partition", "1-3,6"]), Ok(vec![1, 2, 3, 6]));
    }

    #[test]
    fn a_partition_that_there_is_not_is_refused() {
        let allowed = |partition, count| taken(&["--partitions", count, "--partition", partition]).unwrap_err();
        assert_eq!(allowed("3", "3"), "--partition 3: --partitions is 3; allowed: 0 to 2");
        assert_eq!(allowed("0,writer-7", "2"), "--partition 7: --partitions is 2; allowed: 0 to 1");
        assert_eq!(allowed("0-3", "3"), "--partition 3: --partitions is 3; allowed: 0 to 2");
        assert_eq!(allowed("1", "1"), "--partition 1: --partitions is 1; allowed: 0");
        for wrong in ["-1", "2-0", "+1", "writer", "writer-", "writer-+1", "0,", "1.5", "99999999999"] {
            let error = taken(&["--partitions", "3", &format!("--partition={wrong}")]).unwrap_err();
            assert!(error.contains("allowed: whole numbers from 0"), "{wrong}: {error}");
        }
    }

    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        file
    }

    #[test]
    fn a_file_gives_what_the_command_line_does_not() {
        let file = file("stream = \"from-file\"\nframing = \"chunk\"\nmax-backlog = 7\nonce = true\n");
        let path = file.path().to_str().unwrap();
        let flags = flags(&["--config", path, "--stream", "from-flag"]).unwrap();
        assert_eq!((flags.service.stream.as_str(), flags.framing.as_str()), ("from-flag", "chunk"));
        assert_eq!((flags.max_backlog, flags.service.once), (7, true));
    }

    #[test]
    fn a_wrong_file_is_named_with_what_is_allowed() {
        for (text, parts) in [
            ("streem = \"x\"", &["streem: no such key", "stream, "][..]),
            ("config = \"x\"", &["config: no such key"]),
            ("framing = \"word\"", &["--framing \"word\": allowed: line, chunk"]),
            ("stream = [1]", &["stream: a array is not allowed"]),
            ("once = \"maybe\"", &["once \"maybe\": allowed: true, false"]),
            ("stream = \"x\"\nredis-url = \"redis://:hunter2@host", &["line 2"]),
        ] {
            let file = file(text);
            let line = wrong(&["--config", file.path().to_str().unwrap()]);
            for part in parts.iter().chain([&file.path().to_str().unwrap()]) {
                assert!(line.contains(part), "{part:?} is not in {line}");
            }
            assert!(!line.contains("hunter2"), "{line}");
        }
        assert!(wrong(&["--config", "/nowhere/x.toml"]).starts_with("reader: --config /nowhere/x.toml: No such file"));
    }

    #[test]
    fn a_password_comes_from_a_file_and_is_not_shown() {
        let file = file("hunter2\n");
        let path = file.path().to_str().unwrap();
        let flags = flags(&["--redis-password-file", path]).unwrap();
        assert!(!format!("{flags:?}").contains("hunter2"));
        let config = flags.service.redis().unwrap();
        assert_eq!(config.to_string(), "redis://:***@127.0.0.1:6379");
        std::fs::write(file.path(), "\n").unwrap();
        let failure = flags.service.redis().unwrap_err();
        assert!(failure.code() == 2 && failure.to_string().contains("it is empty"), "{failure}");
    }

    #[test]
    fn help_and_version_are_no_errors() {
        assert!(matches!(flags(&["--version"]), Err(NotRun::Info(text)) if text.starts_with("reader ")));
        assert!(matches!(flags(&["--help"]), Err(NotRun::Info(text)) if text.contains("REDIS_URL")));
    }

    #[test]
    fn no_password_is_shown() {
        let flags = flags(&["--redis-url", "redis://me:hunter2@host:6379"]).unwrap();
        assert!(!format!("{flags:?}").contains("hunter2"));
        assert!(!flags.service.redis_url.to_string().contains("hunter2"));
        assert!(!wrong(&["redis://:hunter2@host"]).contains("hunter2"));
        assert!(!wrong(&["--http-addr", "redis://:hunter2@host"]).contains("hunter2"));
    }
}
