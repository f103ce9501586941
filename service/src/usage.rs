//! One-line errors about flags, environment variables and the file of `--config`.

use std::any::TypeId;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::num::IntErrorKind;
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

    /// The command that the arguments belong to: the program, or one of its subcommands.
    fn active(&self) -> &Command {
        let word = self.args.get(1).and_then(|word| word.to_str());
        word.and_then(|word| self.command.find_subcommand(word)).unwrap_or(self.command)
    }

    /// The argument or the variable that is not UTF-8, with its flag.
    fn not_utf8(&self) -> Option<String> {
        let mut words = self.args.iter().enumerate().skip(1);
        if let Some((nth, word)) = words.find(|(_, word)| word.to_str().is_none()) {
            let text = word.to_string_lossy();
            let before = nth.checked_sub(1).and_then(|before| self.args.get(before)?.to_str());
            return Some(match (text.split_once('='), before) {
                (Some((flag, value)), _) if flag.starts_with("--") => format!("{flag} {value:?}"),
                (_, Some(flag)) if flag.starts_with("--") => format!("{flag} {text:?}"),
                _ => format!("{text:?}"),
            });
        }
        let args =
            self.active().get_arguments().filter(|arg| arg.get_value_parser().type_id() != TypeId::of::<PathBuf>());
        let mut values =
            args.filter_map(|arg| Some((arg.get_long()?, arg.get_env()?, std::env::var_os(arg.get_env()?)?)));
        let (flag, env, value) = values.find(|(_, _, value)| value.to_str().is_none())?;
        Some(format!("--{flag} {:?} (from {})", value.to_string_lossy(), env.to_string_lossy()))
    }

    /// The argument before this one, if it is a flag that takes no value.
    fn switch_before(&self, word: &str) -> Option<&str> {
        let at = self.args.iter().position(|arg| arg == word)?;
        let flag = self.args.get(at.checked_sub(1)?)?.to_str()?.strip_prefix("--")?;
        let mut args = self.active().get_arguments();
        args.find(|arg| arg.get_long() == Some(flag) && !arg.get_action().takes_values())?.get_long()
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
    let (name, command) = (origins.command.get_name(), origins.active());
    let path = if command.get_name() == name { name.to_owned() } else { format!("{name} {}", command.get_name()) };
    let help = format!("(see {path} --help)");
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(redact(text)),
        Some(ContextValue::Strings(texts)) if !texts.is_empty() => Some(redact(&texts.join(", "))),
        _ => None,
    };
    let arg = text(ContextKind::InvalidArg).unwrap_or_default();
    // `--http-addr <IP:PORT>` → `--http-addr`
    let flag = arg.split(' ').next().unwrap_or_default();
    let value = shown(&text(ContextKind::InvalidValue).unwrap_or_default());
    let from = origins.of(flag);
    let what = match error.kind() {
        ErrorKind::InvalidValue if value.is_empty() && text(ContextKind::ValidValue).is_none() => {
            format!("{flag}{from}: needs a value {help}")
        }
        ErrorKind::TooManyValues => no_value(flag, &value, &from),
        ErrorKind::InvalidValue | ErrorKind::ValueValidation => {
            let allowed = match text(ContextKind::ValidValue) {
                Some(values) => format!("allowed: {values}"),
                None => std::error::Error::source(error).map_or_else(
                    || format!("allowed: {}", arg.trim_start_matches(flag).trim()),
                    |source| match source.downcast_ref().map(std::num::ParseIntError::kind) {
                        Some(IntErrorKind::PosOverflow) => format!("allowed: a whole number from 0 to {}", u64::MAX),
                        Some(_) => "allowed: a whole number from 0".to_owned(),
                        None => redact(&source.to_string()),
                    },
                ),
            };
            format!("{flag} {value:?}{from}: {allowed}")
        }
        ErrorKind::InvalidUtf8 => match origins.not_utf8() {
            Some(what) => format!("{}: not UTF-8; allowed: UTF-8 text", redact(&what)),
            None => first_line(error, &help),
        },
        ErrorKind::UnknownArgument if arg.starts_with('-') => no_such_flag(origins, &arg, text, &help),
        ErrorKind::UnknownArgument => no_such_word(origins, &arg, "neither a flag nor a flag's value", &help),
        ErrorKind::InvalidSubcommand => {
            let word = text(ContextKind::InvalidSubcommand).unwrap_or_default();
            let similar = similar(&word, origins.command.get_subcommands().map(Command::get_name));
            match similar.map(str::to_owned).or_else(|| text(ContextKind::SuggestedSubcommand)) {
                Some(similar) => format!("{word}: no such command, did you mean {similar}? {help}"),
                None => no_such_word(origins, &word, "no such command", &help),
            }
        }
        ErrorKind::MissingRequiredArgument => format!("missing: {arg} {help}"),
        ErrorKind::ArgumentConflict => {
            let prior = text(ContextKind::PriorArg).unwrap_or_default();
            let prior_flag = prior.split(' ').next().unwrap_or_default();
            match error.get(ContextKind::InvalidSubcommand) {
                // Any word after the flags counts as a command to clap.
                Some(ContextValue::String(sub)) if origins.command.find_subcommand(sub).is_none() => {
                    no_such_word(origins, sub, "no such command", &help)
                }
                Some(ContextValue::String(sub)) => {
                    format!("{prior_flag}: must come after {sub}: {name} {sub} … {help}")
                }
                _ if prior == arg => format!("{flag}: given more than once; allowed: once"),
                _ => format!("{flag}{from}: cannot be used with {prior_flag}{} {help}", origins.of(prior_flag)),
            }
        }
        // The first line of clap's text states the error; the rest are usage hints.
        _ => first_line(error, &help),
    };
    format!("{name}: {}", what.replace(['\n', '\r'], " "))
}

/// The most characters of a value that a message repeats.
const SHOWN: usize = 160;

/// A value as messages repeat it: the beginning of one that is long.
fn shown(value: &str) -> String {
    match value.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}… ({} bytes)", value.get(..end).unwrap_or_default(), value.len()),
        None => value.to_owned(),
    }
}

fn first_line(error: &clap::Error, help: &str) -> String {
    let rendered = error.render().to_string();
    let first = rendered.lines().next().unwrap_or_default();
    format!("{} {help}", redact(first.trim_start_matches("error: ")))
}

fn no_value(flag: &str, value: &str, from: &str) -> String {
    format!("{flag} {value:?}{from}: allowed: {flag} alone, without a value")
}

/// `arg` begins with a dash.
fn no_such_flag(origins: &Origins<'_>, arg: &str, text: impl Fn(ContextKind) -> Option<String>, help: &str) -> String {
    // clap reads `-stream` as the flag `-s`.
    let is_whole = |word: &&str| word.len() > arg.len() && word.starts_with(arg) && !word.starts_with("--");
    let mut words = origins.args.iter().skip(1).filter_map(|word| word.to_str());
    let arg = words.find(|word| arg.len() == 2 && is_whole(word)).map_or_else(|| arg.to_owned(), redact);
    let name = origins.command.get_name();
    // Subcommands have flags of their own.
    let has_flags = ["check", name].contains(&origins.active().get_name());
    if let Some(other) = other_program(name, &arg).filter(|_| has_flags) {
        return format!("{arg}: no such flag of {name}; it is one of {other} {help}");
    }
    let similar = similar(&arg, origins.active().get_arguments().filter_map(Arg::get_long));
    match similar.map(|flag| format!("--{flag}")).or_else(|| text(ContextKind::SuggestedArg)) {
        Some(similar) => format!("{arg}: no such flag, did you mean {similar}? {help}"),
        None => format!("{arg}: no such flag {help}"),
    }
}

/// A word where only flags and commands are allowed.
fn no_such_word(origins: &Origins<'_>, word: &str, what: &str, help: &str) -> String {
    let name = origins.command.get_name();
    if let Some(flag) = origins.switch_before(word).filter(|_| crate::args::boolean(word).is_ok()) {
        return no_value(&format!("--{flag}"), word, "");
    }
    if let Some(other) = other_program(name, word) {
        return format!("{word}: no such command of {name}; it is one of {other} {help}");
    }
    // A dash that a word processor has made longer.
    if word.starts_with(['–', '—']) {
        return format!("{word}: flags begin with two hyphens: --{} {help}", word.trim_start_matches(['-', '–', '—']));
    }
    let is_help = origins.args.get(1).is_some_and(|first| first == "help");
    let files = origins.active().get_arguments().filter_map(Arg::get_long).filter(|_| !is_help);
    let files = files.filter(|flag| matches!(*flag, "input" | "output")).map(|flag| format!("--{flag} {word}"));
    match files.collect::<Vec<_>>().join(" or ") {
        files if files.is_empty() => format!("{word}: {what} {help}"),
        files => format!("{word}: {what}; for a file, write {files} {help}"),
    }
}

/// The name that was probably meant.
pub(crate) fn similar<'a>(word: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.trim_start_matches('-').to_lowercase().replace('_', "-");
    let (edits, name) = names.map(|name| (strsim::levenshtein(name, &word), name)).min()?;
    (edits <= 2 && edits.saturating_mul(3) <= word.chars().count()).then_some(name)
}

/// The commands and flags that only this program has.
const OF_READER: [&str; 7] =
    ["--input", "--exclude", "--state-dir", "--framing", "--add-field", "--from", "--max-backlog"];
const OF_WRITER: [&str; 13] = [
    "--output",
    "--output-dir",
    "--sources",
    "--group",
    "--consumer",
    "--consume",
    "--lease",
    "--claim-idle",
    "--fsync",
    "--lock-wait",
    "verify",
    "merge",
    "rotate",
];

/// The program that has this command or flag, if `name` lacks it and the other one has it.
pub(crate) fn other_program(name: &str, word: &str) -> Option<&'static str> {
    match name {
        "reader" => OF_WRITER.contains(&word).then_some("writer"),
        "writer" => OF_READER.contains(&word).then_some("reader"),
        _ => None,
    }
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
