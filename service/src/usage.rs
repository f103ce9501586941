//! One-line errors about flags, environment variables and the file of `--config`.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, Command};

use crate::redact;

/// Prefix of this project's environment variables.
const PREFIX: &str = "LINE_STREAM_";

/// The origin of each flag's value, when that is not the command line.
static ORIGINS: Mutex<BTreeMap<String, String>> = Mutex::new(BTreeMap::new());
/// Warnings about variables that have no effect.
static WARNINGS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// The origin of a flag's value, as a suffix for messages: ` (from REDIS_URL)` or ` (from line 3 of
/// reader.toml)`. Empty for the command line and for a default.
#[must_use]
pub fn origin(flag: &str) -> String {
    let origins = ORIGINS.lock().unwrap_or_else(PoisonError::into_inner);
    origins.get(flag).cloned().unwrap_or_default()
}

/// Finds the origin of a flag's value: the command line, the environment, or the file of
/// `--config`.
pub(crate) struct Origins<'a> {
    command: &'a Command,
    args: &'a [OsString],
    /// The file, and the line of each flag in it.
    file: Option<(PathBuf, Vec<(String, usize)>)>,
}

impl<'a> Origins<'a> {
    /// `args` is the original command line, without the flags of the file.
    pub(crate) const fn new(command: &'a Command, args: &'a [OsString]) -> Self {
        Self { command, args, file: None }
    }

    /// Adds the flags of the file, each with its line.
    pub(crate) fn with_file(mut self, path: PathBuf, lines: Vec<(String, usize)>) -> Self {
        self.file = Some((path, lines));
        self
    }

    /// As [`origin`], for `--flag`.
    fn of(&self, flag: &str) -> String {
        let Some(name) = flag.strip_prefix("--") else { return String::new() };
        let is_given = |arg: &OsString| {
            let rest = arg.to_str().and_then(|arg| arg.strip_prefix(flag));
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('='))
        };
        if self.args.iter().any(is_given) {
            return String::new();
        }
        let env = self.command.get_arguments().find(|arg| arg.get_long() == Some(name)).and_then(Arg::get_env);
        if let Some(env) = env.filter(|env| is_set(env)) {
            return format!(" (from {})", env.to_string_lossy());
        }
        match &self.file {
            Some((path, lines)) => match lines.iter().find(|(key, _)| key == name) {
                Some((_, line)) => format!(" (from line {line} of {})", path.display()),
                None => String::new(),
            },
            None => String::new(),
        }
    }

    /// Stores all origins for [`origin`].
    pub(crate) fn keep(&self) {
        let mut origins = ORIGINS.lock().unwrap_or_else(PoisonError::into_inner);
        for flag in self.command.get_arguments().filter_map(Arg::get_long) {
            origins.insert(flag.to_owned(), self.of(&format!("--{flag}")));
        }
        let set: Vec<String> = std::env::vars_os()
            .filter(|(_, value)| !value.is_empty())
            .filter_map(|(name, _)| name.into_string().ok())
            .collect();
        let warnings = without_prefix(self.command).into_iter().chain(misspelt(self.command, &set)).collect();
        *WARNINGS.lock().unwrap_or_else(PoisonError::into_inner) = warnings;
    }
}

fn is_set(env: &OsStr) -> bool {
    std::env::var_os(env).is_some_and(|value| !value.is_empty())
}

/// Warnings about environment variables of this process that seem to be meant for it and have no
/// effect.
pub(crate) fn environment_warnings() -> Vec<String> {
    WARNINGS.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// A warning for each variable with the prefix whose name is almost that of a flag. A variable with
/// another name may be meant for the other service.
fn misspelt(command: &Command, set: &[String]) -> Vec<String> {
    let known: Vec<&str> = command.get_arguments().filter_map(Arg::get_env).filter_map(OsStr::to_str).collect();
    let unknown = set.iter().filter(|name| name.starts_with(PREFIX) && !known.contains(&name.as_str()));
    let near = unknown.filter_map(|name| {
        let (edits, meant) = known.iter().map(|known| (strsim::levenshtein(name, known), known)).min()?;
        (edits <= 2).then(|| format!("environment: {name} has no effect; did you mean {meant}?"))
    });
    near.collect()
}

/// A warning about variables that are set and have no effect, because they lack the prefix.
fn without_prefix(command: &Command) -> Option<String> {
    let names = command.get_arguments().filter_map(Arg::get_env).filter_map(OsStr::to_str);
    let bare = names.filter_map(|name| Some((name, name.strip_prefix(PREFIX)?)));
    let set: Vec<&str> =
        bare.filter(|(name, bare)| is_set(bare.as_ref()) && !is_set(name.as_ref())).map(|pair| pair.1).collect();
    if set.is_empty() {
        return None;
    }
    let prefixed: Vec<String> = set.iter().map(|bare| format!("{PREFIX}{bare}")).collect();
    let verb = if set.len() == 1 { "has" } else { "have" };
    Some(format!(
        "environment: {} {verb} no effect without the prefix; if meant for this service, set {}",
        set.join(", "),
        prefixed.join(", ")
    ))
}

/// Renders an error as one line that names the flag, its value, its origin, and what is allowed.
/// clap's own rendering takes several paragraphs.
pub(crate) fn one_line(origins: &Origins<'_>, error: &clap::Error) -> String {
    let command = origins.command;
    let name = command.get_name();
    let help = format!("(see {name} --help)");
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(redact(text)),
        Some(ContextValue::Strings(texts)) if !texts.is_empty() => Some(redact(&texts.join(", "))),
        _ => None,
    };
    let arg = text(ContextKind::InvalidArg).unwrap_or_default();
    // `--http-addr <IP:PORT>` → `--http-addr`
    let flag = arg.split(' ').next().unwrap_or_default();
    let value = text(ContextKind::InvalidValue).unwrap_or_default();
    let from = origins.of(flag);
    let what = match error.kind() {
        ErrorKind::InvalidValue if value.is_empty() && text(ContextKind::ValidValue).is_none() => {
            format!("{flag}{from}: needs a value {help}")
        }
        ErrorKind::TooManyValues => format!("{flag} {value:?}{from}: allowed: {flag} alone, without a value"),
        ErrorKind::InvalidValue | ErrorKind::ValueValidation => {
            let allowed = match text(ContextKind::ValidValue) {
                Some(values) => format!("allowed: {values}"),
                None => std::error::Error::source(error).map_or_else(
                    || format!("allowed: {}", arg.trim_start_matches(flag).trim()),
                    |source| match source.downcast_ref::<std::num::ParseIntError>() {
                        Some(_) => "allowed: a whole number from 0".to_owned(),
                        None => redact(&source.to_string()),
                    },
                ),
            };
            format!("{flag} {value:?}{from}: {allowed}")
        }
        ErrorKind::UnknownArgument => match text(ContextKind::SuggestedArg) {
            Some(similar) => format!("{arg}: no such flag, did you mean {similar}? {help}"),
            None if arg.starts_with('-') => format!("{arg}: no such flag {help}"),
            None => match file_flag(command) {
                Some(flag) => format!("{arg}: no such flag; for a file, write --{flag} {arg} {help}"),
                None => format!("{arg}: neither a flag nor a flag's value {help}"),
            },
        },
        ErrorKind::InvalidSubcommand => {
            let value = text(ContextKind::InvalidSubcommand).unwrap_or_default();
            match text(ContextKind::SuggestedSubcommand) {
                Some(similar) => format!("{value}: no such command, did you mean {similar}? {help}"),
                None => no_such_command(&value, command, &help),
            }
        }
        ErrorKind::MissingRequiredArgument => format!("missing: {arg} {help}"),
        ErrorKind::ArgumentConflict => {
            let prior = text(ContextKind::PriorArg).unwrap_or_default();
            match error.get(ContextKind::InvalidSubcommand) {
                // Any word after the flags counts as a command to clap.
                Some(ContextValue::String(sub)) if command.find_subcommand(sub).is_none() => {
                    no_such_command(sub, command, &help)
                }
                Some(ContextValue::String(sub)) => format!("{prior}: must come after {sub}: {name} {sub} … {help}"),
                _ if prior == arg => format!("{flag}: given more than once; allowed: once"),
                _ => format!("{flag}: cannot be used with {prior} {help}"),
            }
        }
        // The first line of clap's text states the error; the rest are usage hints.
        _ => first_line(error, &help),
    };
    format!("{name}: {}", what.replace(['\n', '\r'], " "))
}

fn first_line(error: &clap::Error, help: &str) -> String {
    let rendered = error.render().to_string();
    let first = rendered.lines().next().unwrap_or_default();
    format!("{} {help}", redact(first.trim_start_matches("error: ")))
}

fn no_such_command(word: &str, command: &Command, help: &str) -> String {
    match file_flag(command) {
        Some(flag) => format!("{word}: no such command; for a file, write --{flag} {word} {help}"),
        None => format!("{word}: no such command {help}"),
    }
}

/// The flag that names the file of the service.
fn file_flag(command: &Command) -> Option<&str> {
    command.get_arguments().filter_map(Arg::get_long).find(|flag| matches!(*flag, "input" | "output"))
}

#[cfg(test)]
mod tests {
    use super::misspelt;
    use clap::{Arg, Command};

    #[test]
    fn a_variable_that_is_almost_a_flag_is_reported() {
        let flag = |name: &'static str, env: &'static str| Arg::new(name).long(name).env(env);
        let command =
            Command::new("x").arg(flag("stream", "LINE_STREAM_STREAM")).arg(flag("input", "LINE_STREAM_INPUT"));
        let set = ["STREAMS", "LINE_STREAM_STREAM", "LINE_STREAM_STREAMS", "LINE_STREAM_IMPUT", "LINE_STREAM_OUTPUT"];
        let set = set.map(str::to_owned);
        assert_eq!(
            misspelt(&command, &set),
            [
                "environment: LINE_STREAM_STREAMS has no effect; did you mean LINE_STREAM_STREAM?",
                "environment: LINE_STREAM_IMPUT has no effect; did you mean LINE_STREAM_INPUT?"
            ]
        );
    }
}
