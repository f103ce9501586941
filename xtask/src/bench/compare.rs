//! Compares the present checkout with another revision: builds both, and measures them in paired
//! rounds.

use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Args;

use crate::cargo::{self, Binaries};
use crate::child::{Child, tied};
use crate::install::Consent;
use crate::interrupt::Interrupt;
use crate::server::{self, REDIS_SERVER};
use crate::{During, Error, Result};

#[derive(Args)]
pub(crate) struct CompareArgs {
    /// What to compare with: anything that git takes for a commit
    revision: String,

    /// Paired rounds of each case
    #[arg(long, default_value_t = 9, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,

    /// Run everything once, briefly, to see that it works
    #[arg(long)]
    quick: bool,

    #[command(flatten)]
    consent: Consent,
}

pub(crate) fn run(args: &CompareArgs) -> Result<()> {
    let interrupt = Interrupt::watch()?;
    let server = server::find_or_install(args.consent, &interrupt)?;
    let commit = git(&["rev-parse", "--verify", "--short=12", &format!("{}^{{commit}}", args.revision)])?;
    let base = build_base(&commit, &interrupt)?;
    println!("building reader and writer (release)");
    let Binaries { reader, writer, .. } = cargo::build(true, &interrupt)?;
    println!("base: {commit}; ratios below 1: the present checkout needs less");
    let mut words = vec!["bench", "--quiet", "--package", "benches", "--bench", "compare"];
    if args.quick {
        words.extend(["--", "--test"]);
    }
    let mut command = cargo::command(&words)?;
    command
        .env(REDIS_SERVER, &server)
        .env("READER_BIN", &reader)
        .env("WRITER_BIN", &writer)
        .env("BASE_READER_BIN", base.join("reader"))
        .env("BASE_WRITER_BIN", base.join("writer"))
        .env("BENCH_ROUNDS", args.rounds.to_string());
    Child::spawn("cargo bench", &mut command)?.must_succeed(&interrupt)
}

/// Builds a commit's services, unless that was done before. The folder where they are.
fn build_base(commit: &str, interrupt: &Interrupt) -> Result<PathBuf> {
    let compare = cargo::target()?.join("compare");
    let built = compare.join(commit);
    if built.join("writer").is_file() {
        return Ok(built);
    }
    println!("building reader and writer of {commit} (release)");
    let tree = compare.join("tree");
    let path = tree.to_str().ok_or_else(|| Error::new(format!("{}: not UTF-8", tree.display())))?;
    // One that an interrupted run has left.
    let _ = git(&["worktree", "remove", "--force", path]);
    git(&["worktree", "add", "--detach", "--force", path, commit])?;
    let mut build = tied(cargo::cargo());
    build
        .args(["build", "--release", "--package", "reader", "--package", "writer", "--bins"])
        .current_dir(&tree)
        .env("CARGO_TARGET_DIR", compare.join("target"));
    let done = Child::spawn("cargo build", &mut build).and_then(|mut child| child.must_succeed(interrupt));
    let removed = git(&["worktree", "remove", "--force", path]);
    done.and(removed)?;
    std::fs::create_dir_all(&built).during(|| format!("creating {}", built.display()))?;
    // The writer last: it says that both are there.
    for name in ["reader", "writer"] {
        copy(&compare.join("target/release").join(name), &built.join(name))?;
    }
    Ok(built)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::copy(from, to).map(|_| ()).during(|| format!("copying {} to {}", from.display(), to.display()))
}

/// The output of git, trimmed.
fn git(args: &[&str]) -> Result<String> {
    let mut command = Command::new("git");
    let output = command.current_dir(cargo::workspace()?).args(args).output().during(|| "running git".to_owned())?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    let why = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(Error::new(format!("git {}: {why}", args.join(" "))))
}
