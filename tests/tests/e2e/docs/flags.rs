//! The flags of the programs, parsed from their help.

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::OnceLock;

use e2e::Program;

use super::page::repository;

/// The flags of `reader`, `writer` or one of their subcommands.
pub(crate) fn of(program: Program, subcommand: Option<&str>) -> BTreeSet<String> {
    of_help(Command::new(program.path()).args(subcommand))
}

/// The commands of `cargo xtask` with their flags.
pub(crate) fn of_xtask() -> &'static [(String, BTreeSet<String>)] {
    static FOUND: OnceLock<Vec<(String, BTreeSet<String>)>> = OnceLock::new();
    FOUND.get_or_init(|| {
        let help = help(&mut xtask());
        let commands = help.split("Commands:").nth(1).unwrap_or_default().split("Options:").next().unwrap_or_default();
        let names = commands.lines().filter(|line| line.starts_with("  ") && !line.starts_with("   "));
        let names: Vec<&str> = names.filter_map(|line| line.split_whitespace().next()).collect();
        assert!(names.contains(&"demo"), "{help}");
        let flags = |name: &str| of_help(xtask().arg(name));
        names.into_iter().filter(|name| *name != "help").map(|name| (name.to_owned(), flags(name))).collect()
    })
}

fn xtask() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(repository()).args(["run", "--quiet", "--package", "xtask", "--"]);
    cargo
}

fn help(command: &mut Command) -> String {
    let output = command.arg("--help").output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn of_help(command: &mut Command) -> BTreeSet<String> {
    let help = help(command);
    let lines = help.lines().map(str::trim_start).filter(|line| line.starts_with('-'));
    let flags = lines.filter_map(|line| line.split_whitespace().find(|word| word.starts_with("--")));
    let flags: BTreeSet<String> = flags.map(|flag| flag.trim_end_matches(',').to_owned()).collect();
    assert!(flags.contains("--help"), "{help}");
    flags
}
