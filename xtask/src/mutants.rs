//! Checks that the simulation detects mistakes: removes one safety line of the production code
//! after another, and expects a failure.
//!
//! `simulation/mutants.toml` lists the mutants. They are built in a copy of the crates that the
//! simulation needs, so the working tree is unchanged, and with a profile that compiles fast.

use std::fs;
use std::io::{Read, Write as _};
use std::path::Path;
use std::process::Stdio;
use std::time::Instant;

use clap::Args;
use serde::Deserialize;

use crate::child::{Child, tied};
use crate::interrupt::Interrupt;
use crate::{During, Error, Result, cargo};

/// The crates that the simulation needs.
const CRATES: [&str; 3] = ["resp", "delivery", "simulation"];
/// The file with the seeds that fail without a mutant.
const EXCEPT: &str = "except";

#[derive(Args)]
pub(crate) struct MutantArgs {
    /// Run only mutants whose name contains this
    #[arg(value_name = "NAME")]
    only: Option<String>,
}

/// The list of mutants.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    mutant: Vec<Mutant>,
}

/// A safety line, and its replacement.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Mutant {
    /// The name of the removed protection.
    name: String,
    /// The file, from the workspace's folder.
    file: String,
    /// Text that occurs in the file exactly once.
    find: String,
    /// The replacement.
    replace: String,
    /// The number of seeds within which it must be detected.
    seeds: u64,
    /// Whether the world has many files.
    #[serde(default)]
    many: bool,
}

pub(crate) fn run(args: &MutantArgs) -> Result<()> {
    let interrupt = Interrupt::watch()?;
    let workspace = cargo::workspace()?;
    let list = workspace.join("simulation/mutants.toml");
    let text = fs::read_to_string(&list).during(|| format!("reading {}", list.display()))?;
    let List { mutant: mutants } = toml::from_str(&text).during(|| format!("reading {}", list.display()))?;
    // Check all mutants before the first build, so that a changed line is reported early.
    for mutant in &mutants {
        mutant.apply(&workspace)?;
    }
    let folder = cargo::target()?.join("tmp/mutants");
    copy_crates(&workspace, &folder)?;
    let wanted = |mutant: &&Mutant| args.only.as_ref().is_none_or(|only| mutant.name.contains(only));
    let (mut survived, mut found) = (Vec::new(), 0);
    // Seeds that fail without a mutant prove nothing about a mutant.
    let most = mutants.iter().filter(wanted).map(|mutant| mutant.seeds).max().unwrap_or(0);
    fs::write(folder.join(EXCEPT), "").during(|| format!("writing {}", folder.display()))?;
    let faulty = simulate(&folder, &["--seeds", &most.to_string(), "--keep-going", "--all"], &interrupt)?;
    println!("the code as it is: {} of {most} seeds fail, and are left out", faulty.len());
    let except: Vec<String> = faulty.iter().map(u64::to_string).collect();
    fs::write(folder.join(EXCEPT), except.join(" ")).during(|| format!("writing {}", folder.display()))?;
    for mutant in mutants.iter().filter(wanted) {
        let path = folder.join(&mutant.file);
        let original = fs::read_to_string(&path).during(|| format!("reading {}", path.display()))?;
        fs::write(&path, mutant.apply(&folder)?).during(|| format!("writing {}", path.display()))?;
        print!("{}: ", mutant.name);
        let _ = std::io::stdout().flush();
        let begun = Instant::now();
        let (seeds, many) = (mutant.seeds.to_string(), mutant.many.then_some("--many"));
        let args: Vec<&str> = many.into_iter().chain(["--seeds", &seeds]).collect();
        match simulate(&folder, &args, &interrupt)?.first() {
            Some(seed) => {
                found += 1;
                println!("found by seed {seed} of at most {} ({:.0} s)", mutant.seeds, begun.elapsed().as_secs_f64());
            }
            None => {
                println!("SURVIVED {} seeds", mutant.seeds);
                survived.push(mutant.name.as_str());
            }
        }
        fs::write(&path, original).during(|| format!("writing {}", path.display()))?;
    }
    println!("{found} found, {} survived", survived.len());
    if survived.is_empty() { Ok(()) } else { Err(Error::new(format!("not found: {}", survived.join(", ")))) }
}

/// Builds the copy and runs the seeds; returns those that failed.
fn simulate(folder: &Path, args: &[&str], interrupt: &Interrupt) -> Result<Vec<u64>> {
    let mut build = tied(cargo::cargo());
    build.current_dir(folder).args([
        "build",
        "--quiet",
        "--offline",
        "--profile",
        "mutants",
        "--package",
        "simulation",
    ]);
    build.env("CARGO_TARGET_DIR", folder.join("target")).env("RUSTFLAGS", "--cap-lints allow");
    Child::spawn_heard("cargo build", &mut build, |line| eprintln!("{line}"))?.must_succeed(interrupt)?;
    let mut run = tied(folder.join("target/mutants/simulation"));
    run.current_dir(folder).args(args).arg("--except").arg(EXCEPT).stdout(Stdio::piped());
    let mut child = Child::spawn_heard("simulation", &mut run, |_| {})?;
    let mut text = String::new();
    if let Some(mut stdout) = child.stdout() {
        let _ = stdout.read_to_string(&mut text);
    }
    match child.must_succeed(interrupt) {
        Ok(()) => Ok(Vec::new()),
        Err(Error::Failed(why)) => {
            let seeds =
                text.lines().filter_map(|line| line.strip_prefix("seed ")?.strip_suffix(" fails:")?.parse().ok());
            let seeds: Vec<u64> = seeds.collect();
            if seeds.is_empty() { Err(Error::Failed(why)) } else { Ok(seeds) }
        }
        Err(interrupted) => Err(interrupted),
    }
}

impl Mutant {
    /// The file's text with the line removed.
    fn apply(&self, workspace: &Path) -> Result<String> {
        let path = workspace.join(&self.file);
        let text = fs::read_to_string(&path).during(|| format!("reading {}", path.display()))?;
        match text.matches(&self.find).count() {
            1 => Ok(text.replacen(&self.find, &self.replace, 1)),
            count => Err(Error::new(format!(
                "mutant \"{}\": its text is {count} times in {}; it must be there once: update simulation/mutants.toml",
                self.name, self.file
            ))),
        }
    }
}

/// Copies the sources without dev-dependencies, and keeps earlier build results.
fn copy_crates(workspace: &Path, folder: &Path) -> Result<()> {
    for name in CRATES {
        let _ = fs::remove_dir_all(folder.join(name));
        copy(&workspace.join(name), &folder.join(name))?;
        let path = folder.join(name).join("Cargo.toml");
        let text = fs::read_to_string(&path).during(|| format!("reading {}", path.display()))?;
        let parts = text.split("\n[").filter(|part| !part.starts_with("dev-dependencies"));
        fs::write(&path, parts.collect::<Vec<_>>().join("\n[")).during(|| format!("writing {}", path.display()))?;
    }
    let manifest = workspace.join("Cargo.toml");
    let text = fs::read_to_string(&manifest).during(|| format!("reading {}", manifest.display()))?;
    let mut lines: Vec<String> =
        text.lines().filter(|line| !line.starts_with("default-members")).map(str::to_owned).collect();
    for line in lines.iter_mut().filter(|line| line.starts_with("members")) {
        *line = format!("members = {CRATES:?}");
    }
    fs::write(folder.join("Cargo.toml"), lines.join("\n")).during(|| format!("writing {}", folder.display()))?;
    copy(&workspace.join("Cargo.lock"), &folder.join("Cargo.lock"))
}

/// Copies a file or a folder.
fn copy(from: &Path, to: &Path) -> Result<()> {
    let during = || format!("copying {}", from.display());
    if from.is_dir() {
        fs::create_dir_all(to).during(during)?;
        for entry in fs::read_dir(from).during(during)? {
            let name = entry.during(during)?.file_name();
            copy(&from.join(&name), &to.join(&name))?;
        }
        return Ok(());
    }
    fs::copy(from, to).during(during).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A change of a safety line must change its mutant too.
    #[test]
    fn every_mutant_applies_to_the_code_as_it_is() {
        let workspace = cargo::workspace().unwrap();
        let text = fs::read_to_string(workspace.join("simulation/mutants.toml")).unwrap();
        let List { mutant: mutants } = toml::from_str(&text).unwrap();
        assert!(mutants.len() >= 20, "{}", mutants.len());
        for mutant in mutants {
            assert!(mutant.find != mutant.replace, "{}", mutant.name);
            mutant.apply(&workspace).unwrap();
        }
    }
}
