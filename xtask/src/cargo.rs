//! Builds.

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
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .map(Path::to_owned)
        .ok_or_else(|| Error::new("the xtask crate lies in no workspace"))
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
    Ok(command)
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

/// Builds a package's examples (release); the folder where they are.
pub(crate) fn build_examples(package: &str, interrupt: &Interrupt) -> Result<PathBuf> {
    let mut build = command(&["build", "--package", package, "--examples", "--release"])?;
    Child::spawn("cargo build", &mut build)?.must_succeed(interrupt)?;
    Ok(target()?.join("release/examples"))
}
