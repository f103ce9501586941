//! Runs all tests, and installs the programs that they need.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use clap::Args;

use crate::child::{Child, each_line};
use crate::clients;
use crate::install::{Consent, Wanted, install, on_path};
use crate::interrupt::Interrupt;
use crate::server::{self, REDIS_SERVER};
use crate::{Error, Result, cargo, helm};

#[derive(Args)]
pub(crate) struct TestArgs {
    #[command(flatten)]
    consent: Consent,
    /// Arguments for cargo nextest run or cargo test: which tests to run, and how
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

/// The number of tests that cargo-nextest runs in parallel.
const TEST_THREADS: &str = "NEXTEST_TEST_THREADS";

/// The number of tests in a step, by result.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Counts {
    passed: u64,
    failed: u64,
    skipped: u64,
}

/// One row of the summary.
struct Step {
    name: &'static str,
    counts: Counts,
    succeeded: bool,
    took: Duration,
}

pub(crate) fn run(args: &TestArgs) -> Result<()> {
    let interrupt = Interrupt::watch()?;
    let begun = Instant::now();
    let server = server::find_or_install(args.consent, &interrupt)?;
    println!("redis-server: {}", server.display());
    get(
        Wanted::Prometheus,
        &["prometheus", "promtool"],
        "the tests of the rules with a real Prometheus",
        args.consent,
        &interrupt,
    )?;
    get(Wanted::Chromium, &["chromium"], "the test of the status page in a real browser", args.consent, &interrupt)?;
    let path = helm::path(args.consent, &interrupt)?;
    let clients = cargo::target()?.join("clients");
    clients::get(&clients, args.consent, &interrupt)?;
    println!("building reader and writer");
    let binaries = cargo::build(false, &interrupt)?;

    let step = |name: &'static str, args: &[&str]| -> Result<Step> {
        let mut command = cargo::command(args)?;
        command.env("PATH", &path).env("RECONCILER_BIN", &binaries.reconciler).env("CLIENTS", &clients);
        command.env(REDIS_SERVER, &server).env("READER_BIN", &binaries.reader).env("WRITER_BIN", &binaries.writer);
        if std::env::var_os(TEST_THREADS).is_none() {
            // Most tests spend their time waiting for processes.
            let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
            command.env(TEST_THREADS, (2 * cores).to_string());
        }
        run_step(name, &mut command, &interrupt)
    };
    let more: Vec<&str> = args.args.iter().map(String::as_str).collect();
    let tests = if has_nextest() {
        &["nextest", "run", "--no-fail-fast", "--config-file", "xtask/nextest.toml"][..]
    } else {
        &["test", "--all-targets", "--no-fail-fast"]
    };
    // If packages are named, only those are tested.
    let names_packages = more.iter().any(|arg| arg.starts_with("-p") || arg.starts_with("--package"));
    let workspace = if names_packages { &["--all-features"][..] } else { &["--workspace", "--all-features"] };
    let tests = [tests, workspace, &more].concat();
    let mut steps = vec![step("tests", &tests)?];
    // The examples in the documentation run only together with all tests.
    if more.is_empty() {
        steps.push(step("examples in the documentation", &["test", "--doc", "--workspace", "--all-features"])?);
    }

    print!("{}", summary(&steps, begun.elapsed()));
    if steps.iter().all(|step| step.succeeded) { Ok(()) } else { Err(Error::new("there are tests that failed")) }
}

/// Installs programs that only some tests need; if that fails, reports which tests are skipped.
fn get(wanted: Wanted, programs: &[&str], left_out: &str, consent: Consent, interrupt: &Interrupt) -> Result<()> {
    if programs.iter().all(|program| on_path(program).is_some()) {
        return Ok(());
    }
    match install(wanted, consent, interrupt) {
        Err(Error::Failed(why)) => eprintln!("xtask: left out: {left_out}: {why}"),
        done => done?,
    }
    Ok(())
}

fn has_nextest() -> bool {
    Command::new(cargo::cargo())
        .args(["nextest", "--version"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Runs a step; passes its output on and parses the counts.
fn run_step(name: &'static str, command: &mut Command, interrupt: &Interrupt) -> Result<Step> {
    let begun = Instant::now();
    if std::io::stderr().is_terminal() {
        command.env("CARGO_TERM_COLOR", "always");
    }
    let counts = Arc::new(Mutex::new(Counts::default()));
    let heard = Arc::clone(&counts);
    let mut child = Child::spawn_heard(name, command.stdout(Stdio::piped()), move |line| {
        eprintln!("{line}");
        heard.lock().unwrap_or_else(PoisonError::into_inner).add(line);
    })?;
    let heard = Arc::clone(&counts);
    let stdout = child.stdout().map(|stdout| {
        std::thread::spawn(move || {
            each_line(stdout, |line| {
                println!("{line}");
                heard.lock().unwrap_or_else(PoisonError::into_inner).add(line);
            });
        })
    });
    let succeeded = match child.must_succeed(interrupt) {
        Ok(()) => true,
        Err(Error::Failed(_)) => false,
        Err(Error::Interrupted) => return Err(Error::Interrupted),
    };
    child.heard_out();
    if let Some(stdout) = stdout {
        let _ = stdout.join();
    }
    let _ = std::io::stdout().flush();
    let counts = *counts.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(Step { name, counts, succeeded, took: begun.elapsed() })
}

impl Counts {
    /// Adds the counts from a line of `cargo test` or `cargo nextest run`.
    fn add(&mut self, line: &str) {
        let plain = without_colour(line);
        // Indented lines are output of a failed test, which is counted already.
        let of_cargo = plain.starts_with("test result:");
        let of_nextest = plain.trim_start().starts_with("Summary [") && plain.contains("run: ");
        if !of_cargo && !of_nextest {
            return;
        }
        let words: Vec<&str> = plain.split(|c: char| !c.is_ascii_alphanumeric()).filter(|w| !w.is_empty()).collect();
        for pair in words.windows(2) {
            let (Ok(number), kind) = (pair[0].parse::<u64>(), pair[1]) else { continue };
            match kind {
                "passed" => self.passed += number,
                "failed" | "timed" | "exec" => self.failed += number,
                "ignored" | "skipped" => self.skipped += number,
                _ => {}
            }
        }
    }
}

fn without_colour(line: &str) -> String {
    let mut plain = String::with_capacity(line.len());
    let mut rest = line.chars();
    while let Some(c) = rest.next() {
        if c == '\x1b' {
            rest.by_ref().find(char::is_ascii_alphabetic);
        } else {
            plain.push(c);
        }
    }
    plain
}

fn summary(steps: &[Step], took: Duration) -> String {
    let mut text = "\n".to_owned();
    for Step { name, counts: Counts { passed, failed, skipped }, succeeded, took } in steps {
        let verdict = if *succeeded { "ok    " } else { "FAILED" };
        let _ = writeln!(
            text,
            "{verdict}  {name}: {passed} passed, {failed} failed, {skipped} skipped in {:.1} s",
            took.as_secs_f64()
        );
    }
    let _ = writeln!(text, "total: {:.1} s, build included", took.as_secs_f64());
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_runners_are_understood() {
        let mut counts = Counts::default();
        counts.add("test result: ok. 16 passed; 0 failed; 2 ignored; 0 measured; 0 filtered out; finished in 5.01s");
        counts.add("\x1b[32;1m     Summary\x1b[0m [   1.234s] \x1b[1m5\x1b[0m tests run: \x1b[1m3\x1b[0m passed, 2 failed, 1 skipped");
        counts.add(
            "    test result: FAILED. 0 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.18s",
        );
        counts.add("     Summary [   9.0s] 3/9 tests run: 1 passed (1 slow), 1 failed, 1 timed out, 6 skipped");
        counts.add("test a_test_that_says_7 passed");
        assert_eq!(counts, Counts { passed: 20, failed: 4, skipped: 9 });
    }
}
