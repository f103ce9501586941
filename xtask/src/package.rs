//! What users install: a Debian package and tarballs, with checksums and a list of what is in them.
//!
//! | file | subject |
//! |---|---|
//! | `package/tree.rs` | the files that are installed |
//! | `package/deb.rs` | the Debian package around them |
//! | `package/musl.rs` | programs that need no library |
//! | `package/sbom.rs` | what the programs are built from |
//!
//! In `/usr/bin` the programs are `line-stream-reader` and `line-stream-writer`, since `reader` and
//! `writer` are names that others may have. The tools are those that every Debian has: `dpkg-deb`,
//! `tar`, and `objcopy` of binutils.

mod deb;
mod musl;
mod sbom;
mod tree;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Args;

use crate::cargo;
use crate::child::Child;
use crate::interrupt::Interrupt;
use crate::{During as _, Error, Result};
use tree::Tree;

#[derive(Args)]
pub(crate) struct PackageArgs {
    /// The folder to write to [default: target/package]
    #[arg(long, value_name = "FOLDER")]
    to: Option<PathBuf>,

    /// Build nothing, and make a Debian package of the programs in this folder alone
    #[arg(long, value_name = "FOLDER")]
    from: Option<PathBuf>,

    /// Fail if the static tarball cannot be made here, instead of leaving it out
    #[arg(long, conflicts_with = "from")]
    all: bool,
}

const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The names of the programs as built.
const PROGRAMS: [&str; 2] = ["reader", "writer"];
/// The release with line tables, which go into files of their own.
const PROFILE: &str = "dist";

pub(crate) fn run(args: &PackageArgs) -> Result<()> {
    let interrupt = Interrupt::watch()?;
    let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let to = args.to.as_deref().map_or_else(|| Ok(cargo::target()?.join("package")), |to| Ok(absolute(to)))?;
    // Nothing of an earlier version is published with this one.
    let _ = fs::remove_dir_all(&to);
    fs::create_dir_all(&to).during(|| format!("making {}", to.display()))?;
    let host = host()?;
    let binaries = match &args.from {
        Some(from) => absolute(from),
        None => build(&host, &[], &interrupt)?,
    };
    let workspace = cargo::workspace()?;
    let tree = Tree::lay(&workspace, &binaries, &to.join("root"), &interrupt)?;
    let mut made = vec![deb::build(&tree, &to)?];
    if args.from.is_none() {
        made.extend(tree.tarballs(&to, &host)?);
        match musl::environment(&host) {
            Ok((target, environment)) => {
                let binaries = build(&target, &environment, &interrupt)?;
                PROGRAMS.iter().try_for_each(|name| musl::must_be_static(&binaries.join(name)))?;
                let tree = Tree::lay(&workspace, &binaries, &to.join("root"), &interrupt)?;
                made.extend(tree.tarballs(&to, &target)?);
            }
            Err(Error::Failed(why)) if !args.all => eprintln!("xtask: left out: the static tarball: {why}"),
            Err(error) => return Err(error),
        }
    }
    fs::remove_dir_all(to.join("root")).during(|| "removing what was packed".to_owned())?;
    let bill = to.join(format!("line-stream-{VERSION}.cdx.json"));
    fs::write(&bill, sbom::of_programs()?).during(|| "writing the SBOM".to_owned())?;
    made.push(bill);
    let names = made.iter().filter_map(|path| path.file_name());
    let sums = said(Command::new("sha256sum").current_dir(&to).args(names))?;
    fs::write(to.join("SHA256SUMS"), &sums).during(|| "writing the checksums".to_owned())?;
    print!("{sums}");
    println!("written: {}", to.display());
    Ok(())
}

/// Builds the programs for a target; the folder that they are in.
fn build(target: &str, environment: &[(String, String)], interrupt: &Interrupt) -> Result<PathBuf> {
    println!("building reader and writer for {target}");
    let mut command = cargo::command(&["build", "--locked", "--profile", PROFILE, "--target", target, "--bins"])?;
    command.args(PROGRAMS.iter().flat_map(|name| ["--package", name])).envs(environment.iter().cloned());
    Child::spawn("cargo build", &mut command)?.must_succeed(interrupt)?;
    Ok(cargo::target()?.join(target).join(PROFILE))
}

/// The target triple of this machine.
fn host() -> Result<String> {
    let version = said(Command::new(rustc()).arg("-vV"))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).ok_or_else(|| Error::new("rustc -vV names no host"))
}

/// The compiler that cargo uses.
fn rustc() -> PathBuf {
    std::env::var_os("RUSTC").map_or_else(|| "rustc".into(), PathBuf::from)
}

/// Runs a command that must succeed; returns its output.
fn said(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().during(|| format!("running {name}"))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(Error::new(format!("{name}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim())))
    }
}
