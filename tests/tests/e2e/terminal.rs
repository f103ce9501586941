//! Output on a terminal: the progress bar of `--once`, completions, man pages.

use std::fs::{File, OpenOptions};
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, Stdio};

use e2e::{Program, Rig, text};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

/// Runs a program with standard error on a terminal of 100 columns. Returns the terminal's output
/// after a successful exit.
fn on_terminal(program: Program, args: &[&str], term: &str) -> String {
    let terminal: OwnedFd = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&terminal).unwrap();
    unlockpt(&terminal).unwrap();
    tcsetwinsize(&terminal, Winsize { ws_row: 30, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
    let name = ptsname(&terminal, Vec::new()).unwrap().into_string().unwrap();
    let standard_error = OpenOptions::new().read(true).write(true).open(name).unwrap();
    let mut child = Command::new(program.path())
        .args(args)
        .env("TERM", term)
        // With `CI` set, log lines are colored whatever the terminal supports.
        .env_remove("CI")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(standard_error)
        .spawn()
        .unwrap();
    let mut got = Vec::new();
    // Reading ends with EIO when the last process has closed the terminal.
    let _ = File::from(terminal).read_to_end(&mut got);
    let got = String::from_utf8_lossy(&got).into_owned();
    assert!(child.wait().unwrap().success(), "{got}");
    got
}

/// The text without control sequences, as if nothing were overwritten.
fn words(got: &str) -> String {
    let mut words = String::new();
    let mut rest = got.chars();
    while let Some(c) = rest.next() {
        match c {
            '\u{1b}' => drop(rest.by_ref().skip(1).find(char::is_ascii_alphabetic)),
            '\r' => words.push('\n'),
            _ => words.push(c),
        }
    }
    words
}

fn flags<'a>(url: &'a str, file: &'a str, path: &'a Path) -> [&'a str; 7] {
    ["--once", "--http-addr", "127.0.0.1:0", "--redis-url", url, file, path.to_str().unwrap()]
}

#[test]
fn a_bar_shows_the_progress() {
    let rig = Rig::new();
    rig.write_input(text::numbered(0..600_000, 1));
    let size = std::fs::metadata(&rig.input).unwrap().len();
    let url = rig.redis.url();
    let reading = on_terminal(Program::Reader, &flags(&url, "--input", &rig.input), "xterm-256color");
    let writing = on_terminal(Program::Writer, &flags(&url, "--output", &rig.output), "xterm-256color");
    e2e::assert_identical(&rig.input, &rig.output);
    let (reading, writing) = (words(&reading), words(&writing));
    let has = |shown: &str, parts: &[&str]| shown.lines().any(|line| parts.iter().all(|part| line.contains(part)));
    let total = format!("{:.2} MiB", size as f64 / f64::from(1 << 20));
    assert!(has(&reading, &[" of ", &total, " lines/s, ", " left"]), "{total}: {reading}");
    assert!(has(&writing, &[" of ", " entries, ", " lines/s, ", " left"]), "{writing}");
    for shown in [&reading, &writing] {
        // Log lines are not garbled by the bar, and the last ones report the total.
        assert!(shown.lines().any(|line| line.starts_with("[20") && line.contains("600,000 lines (")), "{shown}");
        assert!(shown.lines().any(|line| line.starts_with("[20") && line.ends_with(": done")), "{shown}");
    }
}

#[test]
fn no_bar_without_a_capable_terminal() {
    let rig = Rig::new();
    rig.write_input(text::numbered(0..100_000, 1));
    let url = rig.redis.url();
    let dumb = on_terminal(Program::Reader, &flags(&url, "--input", &rig.input), "dumb");
    let mut json = flags(&url, "--output", &rig.output).to_vec();
    json.extend(["--log-format", "json"]);
    let json = on_terminal(Program::Writer, &json, "xterm-256color");
    for shown in [&dumb, &json] {
        assert!(
            shown.contains("100,000 lines (") && !shown.contains('\u{1b}') && !shown.contains("lines/s, "),
            "{shown:?}"
        );
    }
    assert!(json.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()), "{json}");
}

fn output(program: Program, args: &[&str]) -> String {
    let done = Command::new(program.path()).args(args).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap()
}

#[test]
fn bash_completes_flags_and_their_values() {
    let rig = Rig::new();
    for (program, cases) in [
        (Program::Reader, [("--fram", "--framing"), ("--framing=", "chunk"), ("che", "check")]),
        (Program::Writer, [("--claim", "--claim-idle"), ("--fsync=", "interval"), ("ver", "verify")]),
    ] {
        let script = rig.folder.join(&format!("{}.bash", program.name()));
        std::fs::write(&script, output(program, &["completions", "bash"])).unwrap();
        for (typed, expected) in cases {
            let (before, current) = typed.split_once('=').map_or((None, typed), |(flag, value)| (Some(flag), value));
            let words: Vec<&str> = std::iter::once(program.name()).chain(before).chain([current]).collect();
            let ask = format!(
                "source '{}'; COMP_WORDS=({}); COMP_CWORD={}; _{name} {name} '{current}' '{}'; printf '%s\\n' \"${{COMPREPLY[@]}}\"",
                script.display(),
                words.iter().map(|word| format!("'{word}'")).collect::<Vec<_>>().join(" "),
                words.len() - 1,
                words[words.len() - 2],
                name = program.name(),
            );
            let done = Command::new("bash").args(["-c", &ask]).output().unwrap();
            let replies = String::from_utf8_lossy(&done.stdout).into_owned();
            assert!(
                replies.lines().any(|reply| reply == expected),
                "{typed}: {replies} {}",
                String::from_utf8_lossy(&done.stderr)
            );
        }
    }
}

#[test]
fn the_man_pages_have_every_flag_of_the_help() {
    let rig = Rig::new();
    for program in [Program::Reader, Program::Writer] {
        let folder = rig.folder.join("man");
        assert_eq!(output(program, &["man", folder.to_str().unwrap()]), "");
        let page = std::fs::read_to_string(folder.join(format!("{}.1", program.name()))).unwrap().replace('\\', "");
        let help = output(program, &["--help"]);
        let named: Vec<&str> =
            help.split_whitespace().filter(|word| word.starts_with("--") && word.len() > 2).collect();
        for section in ["EXIT STATUS", "FILES", "ENVIRONMENT", "EXAMPLES"] {
            assert!(
                page.contains(&format!(".SH {section}\n")) || page.contains(&format!(".SH \"{section}\"\n")),
                "{section}: {page}"
            );
        }
        assert!(page.contains(&format!("\n{} check --config", program.name())), "examples keep their lines: {page}");
        assert!(named.len() > 10, "{help}");
        for flag in named {
            let flag = flag.trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
            assert!(page.contains(flag), "{flag} is not on the man page: {page}");
        }
        for command in ["check", "completions"] {
            assert!(folder.join(format!("{}-{command}.1", program.name())).is_file());
        }
    }
}
