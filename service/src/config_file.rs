//! The TOML file of `--config`. Its keys are the names of the flags; the command line and the
//! environment take precedence.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command};
use toml::{Spanned, Value};

use crate::{redact, usage};

/// Flags that the file adds to the command line.
pub(crate) struct Found {
    pub(crate) path: PathBuf,
    /// The command line with the flags of the file inserted.
    pub(crate) args: Vec<OsString>,
    /// The flags of the file, each with its line number.
    pub(crate) lines: Vec<(String, usize)>,
}

/// The subcommand that accepts the flags of the service.
const CHECK: &str = "check";

/// Inserts the flags that the file sets and neither the command line nor the environment does.
/// Returns `None` without `--config`.
///
/// `matches` is what clap parsed from `args`.
pub(crate) fn add(command: &Command, matches: &ArgMatches, args: &[OsString]) -> Result<Option<Found>, String> {
    let program = command;
    let (command, matches, place) = match matches.subcommand() {
        None => (command, matches, 1),
        Some((CHECK, inner)) => match command.find_subcommand(CHECK) {
            Some(check) => (check, inner, 2),
            None => return Ok(None),
        },
        Some(_) => return Ok(None),
    };
    let Ok(Some(path)) = matches.try_get_one::<PathBuf>("config") else { return Ok(None) };
    let origin = match matches.value_source("config") {
        Some(ValueSource::EnvVariable) => " (from LINE_STREAM_CONFIG)",
        _ => "",
    };
    let wrong = |what: String| format!("--config {}{origin}: {what}", path.display());
    let text = crate::args::read_text(path).map_err(|why| wrong(format!("{why}; allowed: a TOML file")))?;
    let line_of = |at: usize| text.bytes().take(at).filter(|&byte| byte == b'\n').count().saturating_add(1);
    let table: BTreeMap<Spanned<String>, Spanned<Value>> = toml::from_str(&text).map_err(|error| {
        // The `Display` of the error quotes the line, which may contain a password.
        let line = line_of(error.span().map_or(0, |span| span.start));
        let example = "allowed: lines such as stream = \"lines\", each key once";
        wrong(format!("line {line}: {}; {example}", error.message().replace('\n', ", ")))
    })?;
    let (mut named, mut lines) = (Vec::new(), Vec::new());
    for (key, value) in &table {
        let (key, line) = (key.get_ref().as_str(), line_of(key.span().start));
        let wrong = |what: String| wrong(format!("line {line}: {what}"));
        let Some(arg) = keys(command).find(|arg| arg.get_long() == Some(key)) else {
            let name = program.get_name();
            let all: Vec<&str> = keys(command).filter_map(Arg::get_long).collect();
            return Err(wrong(match usage::similar(key, all.iter().copied()) {
                Some(known) => format!("{key}: no such key, did you mean {known}?"),
                None => match usage::other_program(name, &format!("--{key}")) {
                    Some(other) => format!("{key}: no such key of {name}; it is one of {other}"),
                    None => format!("{key}: no such key; allowed: {}", all.join(", ")),
                },
            }));
        };
        let is_set = matches.value_source(arg.get_id().as_str());
        if matches!(is_set, Some(ValueSource::CommandLine | ValueSource::EnvVariable)) {
            continue;
        }
        let takes_value = arg.get_action().takes_values();
        let given = value.get_ref();
        let value = match given {
            Value::Boolean(on) if !takes_value => {
                if *on {
                    named.push(OsString::from(format!("--{key}")));
                    lines.push((key.to_owned(), line));
                }
                continue;
            }
            value if !takes_value => {
                return Err(wrong(format!(
                    "{key} {}: allowed: true, false",
                    plain(value).map_or_else(|| kind_of(value).to_owned(), |text| format!("{:?}", redact(&text)))
                )));
            }
            Value::Array(values) if values.is_empty() => {
                return Err(wrong(format!(
                    "{key}: the list is empty; allowed: at least one value, or leave out the key"
                )));
            }
            Value::Array(values) if arg.get_value_delimiter().is_some() => {
                values.iter().map(plain).collect::<Option<Vec<String>>>().map(|values| values.join(","))
            }
            Value::Array(values) if matches!(arg.get_action(), ArgAction::Append) => {
                let values = values.iter().map(plain).collect::<Option<Vec<String>>>();
                let Some(values) = values else {
                    return Err(wrong(format!("{key}: allowed: a list of strings")));
                };
                named.extend(values.iter().map(|value| OsString::from(format!("--{key}={value}"))));
                lines.push((key.to_owned(), line));
                continue;
            }
            value => plain(value),
        };
        let Some(value) = value else {
            let kind = kind_of(given);
            return Err(wrong(format!("{key}: {kind} is not allowed here; allowed: a string or a whole number")));
        };
        named.push(OsString::from(format!("--{key}={value}")));
        lines.push((key.to_owned(), line));
    }
    let (before, after) = args.split_at(place.min(args.len()));
    let args = [before, &named, after].concat();
    Ok(Some(Found { path: Path::to_owned(path), args, lines }))
}

/// A value as written on the command line; `None` if no flag accepts its type.
fn plain(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Integer(number) => Some(number.to_string()),
        _ => None,
    }
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Float(_) => "a number with a fraction",
        Value::Boolean(_) => "true or false",
        Value::Datetime(_) => "a date or time",
        Value::Array(_) => "a list",
        Value::Table(_) => "a table",
        _ => "this",
    }
}

/// The flags that the file may set.
fn keys(command: &Command) -> impl Iterator<Item = &Arg> {
    command.get_arguments().filter(|arg| {
        let long = arg.get_long();
        !arg.is_hide_set() && long.is_some_and(|flag| !matches!(flag, "config" | "help" | "json" | "version"))
    })
}
