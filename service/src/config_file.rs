//! The TOML file of `--config`: the flags by their names, below the command line and the environment.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::parser::ValueSource;
use clap::{ArgMatches, Command};

use crate::redact;

/// Where the file's flags go among the arguments, and what they are.
pub(crate) struct Found {
    pub(crate) path: PathBuf,
    pub(crate) args: Vec<OsString>,
}

/// The subcommand that has the flags of the service, too.
const CHECK: &str = "check";

/// The arguments with those that the file has and neither the command line nor the environment. `None`: there is no `--config`.
///
/// `args` led to `matches`.
pub(crate) fn add(command: &Command, matches: &ArgMatches, args: &[OsString]) -> Result<Option<Found>, String> {
    let (command, matches, place) = match matches.subcommand() {
        None => (command, matches, 1),
        Some((CHECK, inner)) => match command.find_subcommand(CHECK) {
            Some(check) => (check, inner, 2),
            None => return Ok(None),
        },
        Some(_) => return Ok(None),
    };
    let Ok(Some(path)) = matches.try_get_one::<PathBuf>("config") else { return Ok(None) };
    let wrong = |what: String| format!("--config {}: {what}", path.display());
    let text = std::fs::read_to_string(path).map_err(|error| wrong(format!("{error}; allowed: a TOML file")))?;
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
        // Its `Display` shows the line, which may hold a password.
        let line = error.span().map_or(0, |span| text[..span.start.min(text.len())].matches('\n').count() + 1);
        wrong(format!("line {line}: {}", error.message()))
    })?;
    let mut named = Vec::new();
    for (key, value) in &table {
        let arg = command.get_arguments().find(|arg| arg.get_long() == Some(key.as_str()));
        let Some(arg) = arg.filter(|arg| !matches!(key.as_str(), "config" | "help" | "version") && !arg.is_hide_set())
        else {
            return Err(wrong(format!("{key}: no such key; allowed: {}", keys(command).join(", "))));
        };
        let is_set = matches.value_source(arg.get_id().as_str());
        if matches!(is_set, Some(ValueSource::CommandLine | ValueSource::EnvVariable)) {
            continue;
        }
        let value = match value {
            toml::Value::String(text) => text.clone(),
            toml::Value::Integer(number) => number.to_string(),
            toml::Value::Boolean(on) if !arg.get_action().takes_values() => {
                if *on {
                    named.push(OsString::from(format!("--{key}")));
                }
                continue;
            }
            _ => return Err(wrong(format!("{key}: a {} is not allowed here", value.type_str()))),
        };
        if !arg.get_action().takes_values() {
            return Err(wrong(format!("{key} {:?}: allowed: true, false", redact(&value))));
        }
        named.push(OsString::from(format!("--{key}={value}")));
    }
    let (before, after) = args.split_at(place.min(args.len()));
    let args = [before, &named, after].concat();
    Ok(Some(Found { path: Path::to_owned(path), args }))
}

/// The keys that a file may have.
fn keys(command: &Command) -> Vec<&str> {
    let flags = command.get_arguments().filter(|arg| !arg.is_hide_set()).filter_map(clap::Arg::get_long);
    flags.filter(|flag| !matches!(*flag, "config" | "help" | "version")).collect()
}
