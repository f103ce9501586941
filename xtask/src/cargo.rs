//! Runs cargo: builds, and where they put their results.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::child::{Child, tied};
use crate::interrupt::Interrupt;
use crate::{Error, Result};

/// The cargo that runs this.
pub(crate) fn cargo() -> PathBuf {
    env::var_os("CARGO").map_or_else(|| "cargo".into(), PathBuf::from)
}

/// The workspace's folder.
pub(crate) fn workspace() -> Result<PathBuf> {
    // Cargo sets the variable, so a binary that was built elsewhere works on the present checkout.
    let package = env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
    package.parent().map(Path::to_owned).ok_or_else(|| Error::new("the xtask crate is in no workspace"))
}

/// The folder that cargo builds into.
pub(crate) fn target() -> Result<PathBuf> {
    let workspace = workspace()?;
    Ok(match env::var_os("CARGO_TARGET_DIR") {
        Some(target) if !target.is_empty() => workspace.join(target),
        _ => workspace.join("target"),
    })
}

/// A cargo command in the workspace.
pub(crate) fn command(args: &[&str]) -> Result<Command> {
    let mut command = tied(cargo());
    command.current_dir(workspace()?).args(args);
    for name in env::vars_os().map(|(name, _)| name).filter(|name| is_of_this_run(&name.to_string_lossy())) {
        command.env_remove(name);
    }
    Ok(command)
}

/// Whether a variable describes the program that cargo is running now. Some build scripts depend on
/// such variables, and would run again.
fn is_of_this_run(name: &str) -> bool {
    const NAMES: [&str; 5] =
        ["CARGO_MANIFEST_DIR", "CARGO_MANIFEST_PATH", "CARGO_BIN_NAME", "CARGO_CRATE_NAME", "CARGO_PRIMARY_PACKAGE"];
    name.starts_with("CARGO_PKG_") || NAMES.contains(&name)
}

/// The two services, and the reconciler.
pub(crate) struct Binaries {
    pub(crate) reader: PathBuf,
    pub(crate) writer: PathBuf,
    pub(crate) reconciler: PathBuf,
}

/// Builds the two services and the reconciler.
pub(crate) fn build(release: bool, interrupt: &Interrupt) -> Result<Binaries> {
    let mut args = vec!["build", "--package", "reader", "--package", "writer", "--package", "reconciler", "--bins"];
    if release {
        args.push("--release");
    }
    Child::spawn("cargo build", &mut command(&args)?)?.must_succeed(interrupt)?;
    let folder = target()?.join(if release { "release" } else { "debug" });
    Ok(Binaries { reader: folder.join("reader"), writer: folder.join("writer"), reconciler: folder.join("reconciler") })
}

/// Builds the examples of a package in release mode; returns their folder.
pub(crate) fn build_examples(package: &str, interrupt: &Interrupt) -> Result<PathBuf> {
    let mut build = command(&["build", "--package", package, "--examples", "--release"])?;
    Child::spawn("cargo build", &mut build)?.must_succeed(interrupt)?;
    Ok(target()?.join("release/examples"))
}

#[cfg(test)]
mod tests {
    /// Otherwise `cargo build` after `cargo xtask demo` would rebuild everything that depends on a
    /// build script.
    #[test]
    fn an_inner_cargo_does_not_see_what_the_outer_one_runs() {
        let command = super::command(&["build"]).unwrap();
        let removed: Vec<_> = command.get_envs().filter(|(_, value)| value.is_none()).map(|(name, _)| name).collect();
        for name in ["CARGO_MANIFEST_DIR", "CARGO_PKG_NAME", "CARGO_PKG_VERSION"] {
            assert!(removed.iter().any(|removed| *removed == name), "{name}: {removed:?}");
        }
        assert!(!super::is_of_this_run("CARGO_HOME") && !super::is_of_this_run("CARGO_TARGET_DIR"));
    }
}
