//! Programs that need no library: built with musl.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{rustc, said};
use crate::install::on_path;
use crate::{Error, Result};

/// The target for this machine's architecture, and the variables to build with; why there is none.
pub(super) fn environment(host: &str) -> Result<(String, Vec<(String, String)>)> {
    let architecture = host.split('-').next().unwrap_or(host);
    let target = format!("{architecture}-unknown-linux-musl");
    let library = said(Command::new(rustc()).args(["--print", "target-libdir", "--target", &target]))?;
    if !PathBuf::from(library.trim()).is_dir() {
        return Err(Error::new(format!(
            "this toolchain has no standard library for {target}; get it with: rustup target add {target}"
        )));
    }
    // For what is written in C: ring and zstd.
    let Some(compiler) = on_path("musl-gcc") else {
        return Err(Error::new("no musl-gcc here; get it with: apt-get install musl-tools"));
    };
    let variable = format!("CC_{}", target.replace('-', "_"));
    Ok((target, vec![(variable, compiler.display().to_string())]))
}

/// A program that names no library and no loader.
pub(super) fn must_be_static(program: &Path) -> Result<()> {
    let headers = said(Command::new("objdump").arg("-p").arg(program))?;
    match headers.lines().find(|line| line.contains("NEEDED") || line.contains("INTERP")) {
        Some(line) => Err(Error::new(format!("{}: not static: {}", program.display(), line.trim()))),
        None => Ok(()),
    }
}
