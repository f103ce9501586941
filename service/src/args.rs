//! The flags both binaries share, and errors of one line.

use std::ffi::OsString;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{ArgAction, Args, Command, Parser};

use crate::{Failure, LogFormat, config_file, redact};

/// The flags both binaries share. Each has an environment variable of the same name in upper snake case; one that is empty counts as
/// not set.
#[derive(Debug, Clone, Args)]
#[non_exhaustive]
pub struct ServiceArgs {
    /// A TOML file with flags by their names (redis-url = "…"); the command line and the environment go before it
    #[arg(long, env, value_name = "FILE", help_heading = "Service")]
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
    #[arg(long, env, value_name = "KEY", default_value = "line_stream", value_parser = stream_key)]
    pub stream: String,

    /// Over how many streams the source is spread: 1 is the key of --stream itself, more are KEY:{0}, KEY:{1} …; the same for reader and writers
    #[arg(help_heading = "Redis")]
    #[arg(long, env, value_name = "N", default_value_t = 1, value_parser = partitions)]
    pub partitions: u32,

    /// Where to serve /metrics, /healthz, /readyz and a status page; port 0 picks a free port and logs it
    #[arg(help_heading = "Service")]
    #[arg(long, env, value_name = "IP:PORT", default_value = "0.0.0.0:8080", value_parser = http_addr)]
    pub http_addr: SocketAddr,

    /// How log lines look: text for people, json for machines (RUST_LOG says what is logged)
    #[arg(long, env, value_name = "FORMAT", default_value = "text", help_heading = "Service")]
    pub log_format: LogFormat,

    /// Finish the work there is, then exit
    #[arg(help_heading = "Service")]
    #[arg(long, env, action = ArgAction::SetTrue, value_parser = boolean)]
    pub once: bool,
}

impl ServiceArgs {
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

fn partitions(text: &str) -> Result<u32, String> {
    let most = delivery::partition::MAX;
    text.parse()
        .ok()
        .filter(|count| (1..=most).contains(count))
        .ok_or_else(|| format!("allowed: a whole number from 1 to {most}"))
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
