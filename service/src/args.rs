//! The flags that both binaries share, and one-line errors.

use std::ffi::OsString;
use std::fmt;
use std::io::{IsTerminal as _, Read as _};
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;

use clap::builder::styling::{AnsiColor, Styles};
use clap::error::ErrorKind;
use clap::{ArgAction, Args, Command, Parser};
use delivery::partition::Partition;

use crate::advice;
use crate::logs::one_line;
pub use crate::usage::origin;
use crate::usage::{self, Origins};
use crate::{Failure, LogFormat, config_file};

/// The flags that both binaries share. Each has an environment variable: its name in upper snake
/// case with the prefix `LINE_STREAM_`. An empty variable counts as unset.
#[derive(Debug, Clone, Args)]
#[non_exhaustive]
pub struct ServiceArgs {
    /// A TOML file with flags by name (redis-url = "…"); the command line and the environment take
    /// precedence
    #[arg(long, env = "LINE_STREAM_CONFIG", value_name = "FILE", help_heading = "Service")]
    pub config: Option<PathBuf>,

    /// The address and the credentials of Redis.
    #[arg(help_heading = "Redis")]
    #[arg(help = "Address of Redis: redis://[user:password@]host[:port][/db], rediss://… for TLS, unix:///path, \
                  redis-sentinel://[user:password@]host[:port],…/master[/db] (credentials of the Sentinels: ?sentinel_user=…&sentinel_password=…), \
                  or redis-cluster://[user:password@]host[:port],…")]
    #[arg(long, env, value_name = "URL", default_value = "redis://127.0.0.1:6379", hide_env_values = true)]
    pub redis_url: RedisUrl,

    /// A file that contains the password for Redis, as an alternative to a password in the URL
    #[arg(long, env, value_name = "FILE", help_heading = "Redis")]
    pub redis_password_file: Option<PathBuf>,

    /// The key of the stream
    #[arg(help_heading = "Redis")]
    #[arg(long, env = "LINE_STREAM_STREAM", value_name = "KEY", default_value = "line_stream", value_parser = stream_key)]
    pub stream: String,

    /// The number of streams that the source is spread over; with more than one they are KEY:{0},
    /// KEY:{1} …; set the same number for the reader and all writers
    #[arg(help_heading = "Redis")]
    #[arg(long, env = "LINE_STREAM_PARTITIONS", value_name = "N", default_value_t = 1, value_parser = partitions)]
    pub partitions: u32,

    /// The partitions of this process: numbers from 0 (0,2 or 0-9), or the name of a pod in a
    /// StatefulSet, which ends in a number (writer-2) [default: all]
    #[arg(help_heading = "Redis")]
    #[arg(long, env = "LINE_STREAM_PARTITION", value_name = "NUMBER", value_delimiter = ',', value_parser = some_partitions)]
    pub partition: Vec<RangeInclusive<u32>>,

    /// The address of /metrics, /healthz, /readyz and the status page: an IP address or a host
    /// name, with a port, or off; port 0 selects a free port and logs it
    #[arg(help_heading = "Service")]
    #[arg(long, env = "LINE_STREAM_HTTP_ADDR", value_name = "HOST:PORT", default_value = "0.0.0.0:8080", value_parser = HttpAddr::from_str)]
    pub http_addr: HttpAddr,

    /// With many files, the number of sources that have their own series on /metrics, those with
    /// the largest backlogs first, or all; the others are summed up
    #[arg(help_heading = "Service")]
    #[arg(long, env = "LINE_STREAM_SOURCE_METRICS", value_name = "N", default_value = "20", value_parser = source_metrics)]
    pub source_metrics: usize,

    /// The format of log lines: text for people, json for programs; RUST_LOG sets the levels
    #[arg(
        long,
        env = "LINE_STREAM_LOG_FORMAT",
        value_name = "FORMAT",
        default_value = "text",
        help_heading = "Service"
    )]
    pub log_format: LogFormat,

    /// Finish the available work, then exit
    #[arg(help_heading = "Service")]
    #[arg(long, env = "LINE_STREAM_ONCE", action = ArgAction::SetTrue, value_parser = boolean)]
    pub once: bool,

    /// Log only warnings and errors
    #[arg(help_heading = "Service", conflicts_with = "verbose")]
    #[arg(short, long, env = "LINE_STREAM_QUIET", action = ArgAction::SetTrue, value_parser = boolean)]
    pub quiet: bool,

    /// Also log each step
    #[arg(help_heading = "Service")]
    #[arg(short, long, env = "LINE_STREAM_VERBOSE", action = ArgAction::SetTrue, value_parser = boolean)]
    pub verbose: bool,
}

impl ServiceArgs {
    /// The partitions of this process, in order and without duplicates: all, unless `--partition`
    /// names some.
    ///
    /// # Errors
    ///
    /// If `--partition` names one that does not exist.
    pub fn taken(&self) -> Result<Vec<Partition>, Failure> {
        let count = self.partitions;
        if let Some(asked) = self.partition.iter().find(|asked| *asked.end() >= count) {
            let (index, last) = (asked.end(), count.saturating_sub(1));
            let allowed = if last == 0 { "0".to_owned() } else { format!("0 to {last}") };
            let from = origin("partition");
            return Err(Failure::config(format!(
                "--partition {index}{from}: --partitions is {count}; allowed: {allowed}"
            )));
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
            // Startup reports the error.
            Err(_) => self.stream.clone(),
        }
    }

    /// The configuration of connections: the URL, with the password of `--redis-password-file` if
    /// that is set.
    ///
    /// # Errors
    ///
    /// If that file is unreadable or empty, or if the URL has a password as well. The text never
    /// contains the password.
    pub fn redis(&self) -> Result<resp::Config, Failure> {
        // In a cluster, connections lead to the node that has the stream, and with it the source
        // record.
        let config = self.redis_url.config().clone().for_key(&self.stream);
        config.check().map_err(|error| {
            let (from, allowed) = (origin("redis-url"), advice::CERTIFICATES);
            Failure::config(format!("--redis-url {config}{from}: {error}; {allowed}"))
        })?;
        let Some(path) = &self.redis_password_file else { return Ok(config) };
        let wrong = |why: &str| {
            let from = origin("redis-password-file");
            Failure::config(format!("--redis-password-file {}{from}: {why}", path.display()))
        };
        let allowed = "allowed: a readable file that contains the password";
        let text = read_text(path).map_err(|why| wrong(&format!("{why}; {allowed}")))?;
        if config.has_password() {
            let from = origin("redis-url");
            return Err(wrong(&format!("--redis-url{from} has a password, too; allowed: one of the two")));
        }
        match text.trim_end_matches(['\n', '\r']) {
            "" => Err(wrong(&format!("it is empty; {allowed}"))),
            password => Ok(config.password(password)),
        }
    }

    /// The source of the password, or the place where it is missing.
    pub(crate) fn password_source(&self) -> String {
        match &self.redis_password_file {
            Some(path) => format!("--redis-password-file {}", path.display()),
            None => format!("--redis-url{}", origin("redis-url")),
        }
    }
}

/// The address and the credentials of Redis. Displayed without secrets.
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

/// Parses the environment variables of flags without a value, in the common spellings.
pub(crate) fn boolean(text: &str) -> Result<bool, &'static str> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Ok(true),
        "false" | "0" | "no" | "off" => Ok(false),
        _ => Err("allowed: true, false, 1, 0, yes, no, on, off"),
    }
}

/// The most bytes of the stream's key. It is part of the state file's name, which may have 255.
const LONGEST_KEY: usize = 200;

fn stream_key(text: &str) -> Result<String, String> {
    match name(text) {
        Ok(key) if key.len() <= LONGEST_KEY => Ok(key),
        _ => Err(format!("allowed: a key of 1 to {LONGEST_KEY} bytes, without control characters")),
    }
}

/// The most bytes of a file of flags, or of the file with the password.
const LONGEST_FILE: u64 = 1 << 20;

/// Reads a file that is named by a flag.
///
/// # Errors
///
/// Why it cannot be used.
pub(crate) fn read_text(path: &std::path::Path) -> Result<String, String> {
    let mut bytes = Vec::new();
    let mut file = std::fs::File::open(path).map_err(|error| error.to_string())?.take(LONGEST_FILE.saturating_add(1));
    match file.read_to_end(&mut bytes) {
        Ok(len) if len as u64 > LONGEST_FILE => Err("larger than 1 MiB".to_owned()),
        Ok(_) => String::from_utf8(bytes).map_err(|_| "not UTF-8".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// Parses a name that messages contain: control characters would break their lines, or change what
/// a terminal shows.
///
/// # Errors
///
/// If it is empty or has a control character: what is allowed.
pub fn name(text: &str) -> Result<String, &'static str> {
    match text.is_empty() || text.contains(char::is_control) {
        true => Err("allowed: a name of at least one byte, without control characters"),
        false => Ok(text.to_owned()),
    }
}

/// A message that the source of `stream` has another number of partitions.
#[must_use]
pub fn other_partitions(stream: &str, asked: u32, begun: u32) -> String {
    format!(
        "--partitions {asked}: stream {stream} was begun with --partitions {begun}; allowed: {begun}, or another --stream"
    )
}

fn source_metrics(text: &str) -> Result<usize, &'static str> {
    if text == "all" {
        return Ok(usize::MAX);
    }
    text.parse().map_err(|_| "allowed: a whole number, or all")
}

fn partitions(text: &str) -> Result<u32, String> {
    let most = delivery::partition::MAX;
    text.parse()
        .ok()
        .filter(|count| (1..=most).contains(count))
        .ok_or_else(|| format!("allowed: a whole number from 1 to {most}"))
}

/// Parses a number, a range such as `0-9`, or a name that ends in a dash and a number, such as the
/// name of a pod in a StatefulSet.
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

/// Where the HTTP endpoint listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HttpAddr {
    /// There is none.
    Off,
    /// At this address or name, and this port.
    At(String, u16),
}

impl HttpAddr {
    /// The addresses that it stands for; none when it is off.
    ///
    /// # Errors
    ///
    /// When the name cannot be resolved.
    pub fn resolve(&self) -> std::io::Result<Vec<SocketAddr>> {
        match self {
            Self::Off => Ok(Vec::new()),
            Self::At(host, port) => Ok((host.trim_matches(['[', ']']), *port).to_socket_addrs()?.collect()),
        }
    }
}

impl FromStr for HttpAddr {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const ALLOWED: &str = "allowed: HOST:PORT, such as 0.0.0.0:8080, localhost:0 or [::]:8080, or off";
        if text == "off" {
            return Ok(Self::Off);
        }
        let (host, port) = text.rsplit_once(':').ok_or(ALLOWED)?;
        let port = port.parse().map_err(|_| ALLOWED)?;
        let is_name = |host: &str| {
            let mut bytes = host.bytes();
            !host.is_empty() && bytes.all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'))
        };
        match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            Some(inner) => drop(inner.parse::<std::net::Ipv6Addr>().map_err(|_| ALLOWED)?),
            None if is_name(host) => {}
            None => return Err(ALLOWED),
        }
        Ok(Self::At(host.to_owned(), port))
    }
}

impl fmt::Display for HttpAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::At(host, port) => write!(f, "{host}:{port}"),
        }
    }
}

/// Parses the flags of this process.
///
/// # Errors
///
/// The exit code, after the output was printed: 0 after help or version, 2 after the one-line
/// description of a wrong flag.
pub fn parse<T: Parser>() -> Result<T, ExitCode> {
    parse_from(std::env::args_os()).map_err(|stop| stop.print())
}

/// As [`parse`], from the given arguments (the program's name first), without printing.
///
/// # Errors
///
/// The text to print.
pub fn parse_from<T: Parser>(args: impl IntoIterator<Item = impl Into<OsString> + Clone>) -> Result<T, NotRun> {
    let command = lenient(T::command());
    let args: Vec<OsString> = args.into_iter().map(Into::into).collect();
    let mut origins = Origins::new(&command, &args);
    let mut matches = command.clone().try_get_matches_from(&args).map_err(|error| NotRun::new(&origins, &error))?;
    let found = config_file::add(&command, &matches, &args)
        .map_err(|what| NotRun::Wrong(format!("{}: {}", command.get_name(), what)))?;
    if let Some(found) = found {
        origins = origins.with_file(found.path, found.lines);
        matches = command.clone().try_get_matches_from(&found.args).map_err(|error| NotRun::new(&origins, &error))?;
    }
    origins.keep();
    T::from_arg_matches(&matches).map_err(|error| NotRun::new(&origins, &error))
}

/// Why the arguments do not start the service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotRun {
    /// Help or version was asked for.
    Info(String),
    /// The arguments are wrong; one line.
    Wrong(String),
}

impl NotRun {
    fn new(origins: &Origins<'_>, error: &clap::Error) -> Self {
        match error.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Self::Info(text_of(error)),
            _ => Self::Wrong(usage::one_line(origins, error)),
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
                let _ = writeln!(std::io::stderr(), "{}", one_line(text));
                ExitCode::from(2)
            }
        }
    }
}

/// The text of help and version, in colour on a terminal.
fn text_of(error: &clap::Error) -> String {
    let text = error.render();
    let is_seen = std::io::stdout().is_terminal()
        && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
        && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
    if is_seen { text.ansi().to_string() } else { text.to_string() }
}

/// Makes parsing lenient. An empty environment variable counts as unset, because deployment
/// templates often leave some empty. `-1` is a value, so the error states what is allowed. `Line`
/// means `line`.
fn lenient(command: Command) -> Command {
    let (bold, plain) = (AnsiColor::Green.on_default().bold(), AnsiColor::Cyan.on_default());
    command
        .styles(
            Styles::styled().header(bold).usage(bold).literal(AnsiColor::Cyan.on_default().bold()).placeholder(plain),
        )
        .mut_args(|arg| {
            let arg = match arg.get_env().map(std::env::var_os) {
                Some(Some(value)) if value.is_empty() => arg.env(None::<&str>),
                _ => arg,
            };
            let has_names = !arg.get_possible_values().is_empty();
            if arg.get_action().takes_values() { arg.allow_negative_numbers(true).ignore_case(has_names) } else { arg }
        })
        .mut_subcommands(lenient)
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
        #[arg(long, default_value_t = 0)]
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
        assert_eq!(flags.service.http_addr.to_string(), "0.0.0.0:8080");
        assert!(!flags.service.once);
        assert!(self::flags(&["--once"]).unwrap().service.once);
    }

    #[test]
    fn errors_are_one_line_with_flag_value_and_what_is_allowed() {
        for (args, line) in [
            (
                &["--http-addr", "8080"][..],
                "reader: --http-addr \"8080\": allowed: HOST:PORT, such as 0.0.0.0:8080, localhost:0 or [::]:8080, or off",
            ),
            (&["--framing", "word"], "reader: --framing \"word\": allowed: line, chunk"),
            (&["--stream", ""], "reader: --stream \"\": allowed: a key of 1 to 200 bytes, without control characters"),
            (&["--streem", "x"], "reader: --streem: no such flag, did you mean --stream? (see reader --help)"),
            (&["--stream"], "reader: --stream: needs a value (see reader --help)"),
            (&["--framing"], "reader: --framing \"\": allowed: line, chunk"),
            (&["--once=1"], "reader: --once \"1\": allowed: --once alone, without a value"),
            (&["--qqqq"], "reader: --qqqq: no such flag (see reader --help)"),
            (&["--once", "more"], "reader: more: no such command (see reader --help)"),
            (
                &["verify", "--input", "a", "more"],
                "reader: more: neither a flag nor a flag's value; for a file, write --input more (see reader verify --help)",
            ),
            (&["--max-backlog", "many"], "reader: --max-backlog \"many\": allowed: a whole number from 0"),
            (&["--partitions", "0"], "reader: --partitions \"0\": allowed: a whole number from 1 to 16384"),
            (&["--partitions", "16385"], "reader: --partitions \"16385\": allowed: a whole number from 1 to 16384"),
            (&["--max-backlog", "-1"], "reader: --max-backlog \"-1\": allowed: a whole number from 0"),
            (&["verify"], "reader: missing: --input <INPUT> (see reader verify --help)"),
            (&["varify"], "reader: varify: no such command, did you mean verify? (see reader --help)"),
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
            ("streem = \"x\"", &["streem: no such key, did you mean stream?"][..]),
            ("size = 1", &["size: no such key", "stream, "]),
            ("config = \"x\"", &["config: no such key"]),
            ("framing = \"word\"", &["--framing \"word\" (from line 1 of ", "): allowed: line, chunk"]),
            ("\nstream = [1]", &["line 2: stream: a list is not allowed here; allowed: a string or a whole number"]),
            ("max-backlog = 1.5", &["line 1: max-backlog: a number with a fraction is not allowed here"]),
            ("max_backlog = 1", &["line 1: max_backlog: no such key, did you mean max-backlog?"]),
            ("\nmax-backlog = -1", &["--max-backlog \"-1\" (from line 2 of ", "): allowed: a whole number from 0"]),
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
        assert_eq!(
            flags(&["--config", self::file("partitions = 3\npartition = [0, 2]").path().to_str().unwrap()])
                .map(|flags| flags.service.partition.len()),
            Ok(2)
        );
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
        let twice = self::flags(&["--redis-password-file", path, "--redis-url", "redis://:other@h"]).unwrap();
        let failure = twice.service.redis().unwrap_err().to_string();
        assert!(failure.ends_with(": --redis-url has a password, too; allowed: one of the two"), "{failure}");
        std::fs::write(file.path(), "\n").unwrap();
        let failure = flags.service.redis().unwrap_err();
        assert!(failure.code() == 2 && failure.to_string().contains("it is empty"), "{failure}");
    }

    #[test]
    fn an_http_address_is_an_address_a_name_or_off() {
        for (text, shown) in [
            ("off", Some("off")),
            ("localhost:80", Some("localhost:80")),
            ("[::1]:0", Some("[::1]:0")),
            ("0.0.0.0:65535", Some("0.0.0.0:65535")),
            ("8080", None),
            (":8080", None),
            ("::1:80", None),
            ("[x]:80", None),
            ("a b:80", None),
            ("h:65536", None),
            ("http://h:80", None),
        ] {
            assert_eq!(text.parse::<HttpAddr>().ok().map(|addr| addr.to_string()).as_deref(), shown, "{text}");
        }
        assert!("off".parse::<HttpAddr>().unwrap().resolve().unwrap().is_empty());
        let addrs = "localhost:0".parse::<HttpAddr>().unwrap().resolve().unwrap();
        assert!(addrs.iter().all(|addr| addr.ip().is_loopback()) && !addrs.is_empty());
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
