//! The systemd units, judged by systemd-analyze, and held against the real binaries.

use std::collections::BTreeMap;
use std::process::{Command, Output};

use e2e::{Folder, Program};

use crate::manifests::{repository, text};
use crate::references::variables;
use crate::rules::tool;

const PROGRAMS: [Program; 2] = [Program::Reader, Program::Writer];

fn unit(program: Program) -> String {
    text(&format!("systemd/line-stream-{}@.service", program.name()))
}

/// Runs systemd-analyze on an instance of the unit, with the built binary in the place of the
/// installed one.
fn analyze(program: Program, args: &[&str]) -> Option<Output> {
    let systemd_analyze = tool("systemd-analyze")?;
    let folder = Folder::new();
    let name = format!("line-stream-{}@app.service", program.name());
    let installed = format!("/usr/local/bin/{}", program.name());
    let unit = unit(program).replace(&installed, &program.path().display().to_string());
    std::fs::write(folder.join(&name), unit).expect("a unit");
    let mut command = Command::new(systemd_analyze);
    command.args(args).arg(folder.join(&name)).env("SYSTEMD_COLORS", "0");
    Some(command.output().expect("systemd-analyze"))
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn systemd_accepts_the_units() {
    for program in PROGRAMS {
        let Some(output) = analyze(program, &["verify"]) else { return };
        // It warns with exit code 0, too.
        let name = format!("line-stream-{}", program.name());
        let ours: Vec<String> = said(&output).lines().filter(|line| line.contains(&name)).map(str::to_owned).collect();
        assert!(output.status.success() && ours.is_empty(), "{}: {}", program.name(), said(&output));
    }
}

#[test]
fn the_units_are_closed_to_what_they_do_not_need() {
    for program in PROGRAMS {
        // Tenths of a point; what has no protection at all gets 96.
        let Some(output) = analyze(program, &["security", "--no-pager", "--offline=true", "--threshold=20"]) else {
            return;
        };
        if said(&output).contains("unrecognized option") {
            eprintln!("SKIPPED: this systemd-analyze cannot judge a unit that does not run");
            return;
        }
        assert!(output.status.success(), "{}", said(&output));
    }
}

#[test]
fn the_units_start_the_binaries_with_flags_and_variables_that_they_know() {
    for program in PROGRAMS {
        let (name, unit) = (program.name(), unit(program));
        let all: Vec<(&str, &str)> = unit.lines().filter_map(|line| line.split_once('=')).collect();
        let one: BTreeMap<&str, &str> = all.iter().copied().collect();
        let start: Vec<&str> = one["ExecStart"].split(' ').collect();
        assert_eq!(start[0], format!("/usr/local/bin/{name}"));
        assert_eq!(start[1..], ["--config", &format!("/etc/line-stream/{name}-%i.toml")]);
        let help = Command::new(program.path()).arg("--help").output().expect("--help");
        assert!(String::from_utf8_lossy(&help.stdout).contains("--config <FILE>"));
        let known = variables(program);
        for variable in all.iter().filter(|(key, _)| *key == "Environment") {
            let (variable, _) = variable.1.split_once('=').expect("a variable");
            assert!(known.contains(variable), "{name}: {variable}");
        }
        assert_eq!(one["StateDirectory"], format!("line-stream/{name}-%i"));
        assert_eq!(one["RestartPreventExitStatus"], "2", "a wrong configuration is not cured by starting again");
        let made = text("systemd/line-stream.sysusers.conf");
        assert!(made.contains(&format!("u {} ", one["User"])), "sysusers makes the user");
    }
    assert!(repository().join("docs/recipes/systemd.md").is_file());
}
