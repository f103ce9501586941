//! Shell completions and man pages, generated from the flags.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Command, CommandFactory};
pub use clap_complete::Shell;
use clap_mangen::Man;

/// The command under the name of the program's file: packages install it under a longer one, which
/// is what users type.
fn command_as_installed<T: CommandFactory>() -> Command {
    let command = T::command();
    let file = std::env::args_os().next().map(PathBuf::from);
    match file.as_deref().and_then(Path::file_name).and_then(|name| name.to_str()) {
        // clap takes names that live as long as the process, which ends soon.
        Some(name) if name.ends_with(command.get_name()) => command.name(&*name.to_owned().leak()),
        _ => command,
    }
}

/// Prints the completion script of a shell to standard output.
#[must_use]
pub fn completions<T: CommandFactory>(shell: Shell) -> ExitCode {
    let mut command = command_as_installed::<T>();
    let name = command.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, name, &mut script);
    // Ignore errors: there is no place to report them.
    let _ = std::io::stdout().write_all(&script);
    ExitCode::SUCCESS
}

/// Writes the man pages of the program and of its subcommands into `folder`. `files` are the files
/// of the service and their purpose.
#[must_use]
pub fn man<T: CommandFactory>(folder: &Path, files: &[(&str, &str)]) -> ExitCode {
    // `help` and `--help` need no page.
    let command = command_as_installed::<T>().disable_help_subcommand(true);
    let name = command.get_name().to_owned();
    let written = std::fs::create_dir_all(folder)
        .and_then(|()| clap_mangen::generate_to(command.clone(), folder))
        .and_then(|()| std::fs::write(folder.join(format!("{name}.1")), page(command, files)?));
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(
                std::io::stderr(),
                "{name}: man {}: {error}; allowed: a folder that can be written to",
                folder.display()
            );
            ExitCode::from(2)
        }
    }
}

/// The main page: clap's sections, and those that administrators expect.
fn page(mut command: Command, files: &[(&str, &str)]) -> io::Result<Vec<u8>> {
    command.build();
    let examples = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let variables: Vec<(String, String)> = command
        .get_arguments()
        .filter(|arg| !arg.is_hide_set())
        .filter_map(|arg| {
            let (env, flag) = (arg.get_env()?.to_string_lossy().into_owned(), arg.get_long()?);
            Some((env, format!("As --{flag}.")))
        })
        .collect();
    let man = Man::new(command);
    let mut out = Vec::new();
    man.render_title(&mut out)?;
    man.render_name_section(&mut out)?;
    man.render_synopsis_section(&mut out)?;
    man.render_description_section(&mut out)?;
    man.render_options_section(&mut out)?;
    man.render_subcommands_section(&mut out)?;

    let mut text = String::new();
    section(&mut text, "EXIT STATUS", EXIT_STATUS.iter().copied());
    section(&mut text, "FILES", files.iter().copied());
    let named = variables.iter().map(|(name, what)| (name.as_str(), what.as_str()));
    section(&mut text, "ENVIRONMENT", named.chain(VARIABLES));
    // `.nf` keeps the line breaks of the examples.
    let _ = writeln!(text, ".SH EXAMPLES\n.nf");
    for line in examples.lines().skip(1) {
        let _ = writeln!(text, "{}", escape(line.trim_start()));
    }
    text += ".fi\n";
    man.render_version_section(&mut out)?;
    out.extend_from_slice(text.as_bytes());
    Ok(out)
}

/// The exit codes.
const EXIT_STATUS: [(&str, &str); 3] = [
    ("0", "Done, or asked to stop."),
    (
        "1",
        "Failed; with --once also when it was stopped before the work was done. `check`: the service would start and wait.",
    ),
    (
        "2",
        "The configuration is wrong: the last line names the flag, its value, and what is allowed. Starting again does not help.",
    ),
];

/// Environment variables that are not flags.
const VARIABLES: [(&str, &str); 2] = [
    (
        "RUST_LOG",
        "What is logged, such as info, debug, off or reader=debug,info. Takes precedence over --quiet and --verbose.",
    ),
    ("NO_COLOR", "When set, the help has no colours."),
];

fn section<'a>(text: &mut String, title: &str, entries: impl Iterator<Item = (&'a str, &'a str)>) {
    let _ = writeln!(text, ".SH \"{title}\"");
    for (name, what) in entries {
        let _ = writeln!(text, ".TP\n\\fB{}\\fR\n{}", escape(name), escape(what));
    }
}

/// Escapes text for a line of roff.
fn escape(text: &str) -> String {
    let text = text.replace('\\', "\\\\").replace('-', "\\-");
    if text.starts_with(['.', '\'']) { format!("\\&{text}") } else { text }
}

#[cfg(test)]
mod tests {
    use clap::Arg;

    use super::*;

    #[test]
    fn a_page_has_all_sections_and_keeps_line_breaks_of_examples() {
        let command = Command::new("tool")
            .version("1")
            .arg(Arg::new("input").long("input").env("LINE_STREAM_INPUT").help("The file"))
            .after_help("Examples:\n  tool --input a    one\n  tool --input b    two");
        let page = String::from_utf8(page(command, &[(".state", "remembers")]).unwrap()).unwrap();
        for part in [
            ".SH \"EXIT STATUS\"\n.TP\n\\fB0\\fR\n",
            ".SH \"FILES\"\n.TP\n\\fB\\&.state\\fR\nremembers\n",
            ".SH \"ENVIRONMENT\"\n.TP\n\\fBLINE_STREAM_INPUT\\fR\nAs \\-\\-input.\n",
            ".SH EXAMPLES\n.nf\ntool \\-\\-input a    one\ntool \\-\\-input b    two\n.fi\n",
        ] {
            assert!(page.contains(part), "{part:?} is not in {page}");
        }
    }
}
