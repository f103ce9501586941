//! Shell completions and man pages, made from the flags as they are.

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use clap::CommandFactory;
pub use clap_complete::Shell;

/// Writes what a shell needs to complete this program's flags to standard output.
#[must_use]
pub fn completions<T: CommandFactory>(shell: Shell) -> ExitCode {
    let mut command = T::command();
    let name = command.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, name, &mut script);
    // Nobody is left to tell when the terminal is gone.
    let _ = std::io::stdout().write_all(&script);
    ExitCode::SUCCESS
}

/// Writes the man pages of this program and of its commands into a folder.
#[must_use]
pub fn man<T: CommandFactory>(folder: &Path) -> ExitCode {
    // The usual options of a program need no pages of their own.
    let command = T::command().disable_help_subcommand(true);
    let name = command.get_name().to_owned();
    match std::fs::create_dir_all(folder).and_then(|()| clap_mangen::generate_to(command, folder)) {
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
