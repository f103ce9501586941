//! Logging as text or JSON. Keeps the latest warnings for the status page.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::io::Write as _;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use log::kv::{Key, Value, VisitSource};
use log::{Level, LevelFilter, Log, Metadata, Record};

use crate::args::ServiceArgs;
use crate::history::whole;
use crate::progress;

/// The format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// Plain text.
    Text,
    /// One JSON object per line: `timestamp`, `level`, `target`, `message`, and fields such as
    /// `event`, `stream` and `bytes`.
    Json,
}

/// Number of warnings and errors kept.
const KEPT: usize = 10;

/// A logged warning or error.
#[derive(Debug, Clone)]
pub(crate) struct Warning {
    /// Milliseconds since the Unix epoch.
    pub(crate) at: u128,
    pub(crate) level: Level,
    pub(crate) text: String,
    /// How many times it was logged.
    pub(crate) count: u64,
}

static LATEST: Mutex<VecDeque<Warning>> = Mutex::new(VecDeque::new());
static LOGGER: OnceLock<Logger> = OnceLock::new();

/// The latest warnings and errors, newest first.
pub(crate) fn latest() -> Vec<Warning> {
    LATEST.lock().unwrap_or_else(PoisonError::into_inner).iter().rev().cloned().collect()
}

/// The current time, in milliseconds since the Unix epoch.
pub(crate) fn now() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_millis()
}

/// Escapes control characters: one in the name of a file would break the line, or change what a
/// terminal shows.
pub(crate) fn one_line(text: &str) -> Cow<'_, str> {
    if !text.contains(char::is_control) {
        return Cow::Borrowed(text);
    }
    let mut line = String::with_capacity(text.len());
    for char in text.chars() {
        if char.is_control() { line.extend(char.escape_default()) } else { line.push(char) }
    }
    Cow::Owned(line)
}

struct Logger(env_logger::Logger);

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= Level::Warn || self.0.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let text = one_line(&record.args().to_string()).into_owned();
        let args = text.clone();
        if record.level() <= Level::Warn {
            let mut latest = LATEST.lock().unwrap_or_else(PoisonError::into_inner);
            let same = latest.iter().position(|known| known.text == text).and_then(|same| latest.remove(same));
            let count = same.map_or(1, |same| same.count.saturating_add(1));
            if latest.len() == KEPT {
                latest.pop_front();
            }
            latest.push_back(Warning { at: now(), level: record.level(), text, count });
        }
        // The inner logger applies the filter.
        progress::aside(|| self.0.log(&record.to_builder().args(format_args!("{args}")).build()));
    }

    fn flush(&self) {
        self.0.flush();
    }
}

fn builder(format: LogFormat, level: &str) -> env_logger::Builder {
    let mut builder = env_logger::Builder::new();
    if let Ok(style) = std::env::var("RUST_LOG_STYLE") {
        builder.parse_write_style(&style);
    }
    match asked_levels() {
        Some((spec, Ok(()))) => builder.parse_filters(&spec),
        // `init` reports an error.
        _ => builder.parse_filters(level),
    };
    builder.format_timestamp_millis().target(env_logger::Target::Stderr);
    if format == LogFormat::Json {
        builder.format(|out, record| {
            let mut fields = Fields(serde_json::Map::new());
            // Fields that cannot be converted are omitted.
            let _ = record.key_values().visit(&mut fields);
            for (name, value) in [
                ("timestamp", out.timestamp_millis().to_string()),
                ("level", record.level().as_str().to_lowercase()),
                ("target", record.target().to_owned()),
                ("message", record.args().to_string()),
            ] {
                fields.0.insert(name.to_owned(), value.into());
            }
            writeln!(out, "{}", serde_json::Value::Object(fields.0))
        });
    }
    builder
}

/// The levels that `RUST_LOG` asks for, and whether they can be parsed. An empty variable counts as
/// unset, as it does for flags.
fn asked_levels() -> Option<(String, Result<(), env_filter::ParseError>)> {
    let spec = std::env::var("RUST_LOG").ok().filter(|spec| !spec.trim().is_empty())?;
    let parsed = env_filter::Builder::new().try_parse(&spec).map(|_| ());
    Some((spec, parsed))
}

/// The fields of a log line, as JSON.
struct Fields(serde_json::Map<String, serde_json::Value>);

impl<'kvs> VisitSource<'kvs> for Fields {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), log::kv::Error> {
        let number = value.to_u64().map(Into::into).or_else(|| {
            let number = value.to_f64()?;
            let is_whole = (0.0..1e15).contains(&number) && number.fract() == 0.0;
            Some(if is_whole { whole(number).into() } else { number.into() })
        });
        let value = number.or_else(|| value.to_bool().map(Into::into)).unwrap_or_else(|| value.to_string().into());
        self.0.insert(key.as_str().to_owned(), value);
        Ok(())
    }
}

/// The crates that log; `RUST_LOG` may name them.
const PARTS: [&str; 5] = ["reader", "writer", "service", "delivery", "resp"];

/// What `RUST_LOG` may contain.
const ALLOWED: &str = "info, debug, off or reader=debug,info";

/// Initializes logging. `RUST_LOG` takes precedence over `--quiet` and `--verbose`.
pub(crate) fn init(args: &ServiceArgs, name: &str) {
    let format = args.log_format;
    let level = match (args.quiet, args.verbose) {
        (true, _) => "warn",
        (false, true) => "debug",
        (false, false) => "info",
    };
    let logger = LOGGER.get_or_init(|| Logger(builder(format, level).build()));
    let heard = |part: &str| logger.0.enabled(&Metadata::builder().level(Level::Error).target(part).build());
    let complaint = match asked_levels() {
        Some((spec, Ok(()))) if spec.trim() != "off" && !PARTS.iter().any(|part| heard(part)) => {
            Some(format!("RUST_LOG {spec:?}: it disables all logs; allowed: {ALLOWED}"))
        }
        Some((spec, Err(error))) => {
            Some(format!("RUST_LOG {spec:?}: {error}; using {level} instead; allowed: {ALLOWED}"))
        }
        _ => None,
    };
    if let Some(complaint) = complaint {
        last_words(format, name, &complaint);
    }
    // `set_logger` fails only in a test that has installed its own logger.
    if log::set_logger(logger).is_ok() {
        log::set_max_level(logger.0.filter().max(LevelFilter::Warn));
    }
}

/// Prints a final line, whatever `RUST_LOG` says: why the process failed, or that it will log
/// nothing more.
pub(crate) fn last_words(format: LogFormat, name: &str, text: &str) {
    // Ignore errors: without standard error there is no place to report them.
    match format {
        LogFormat::Text => drop(writeln!(std::io::stderr(), "{name}: {}", one_line(text))),
        LogFormat::Json => builder(format, "info")
            .filter(None, LevelFilter::Error)
            .build()
            .log(&Record::builder().level(Level::Error).target(name).args(format_args!("{text}")).build()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_do_not_break_a_line() {
        assert_eq!(one_line("/logs/à la carte → 1"), "/logs/à la carte → 1");
        assert_eq!(one_line("/logs/a\nERROR b\x1b[2J\u{9b}\r"), "/logs/a\\nERROR b\\u{1b}[2J\\u{9b}\\r");
    }
}
