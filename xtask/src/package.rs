//! Builds the distribution packages: a Debian package and a tarball, with checksums and an SBOM.
//!
//! In `/usr/bin` the programs are named `line-stream-reader` and `line-stream-writer`, because
//! other packages may have a `reader` or `writer`. The debug information is in separate files,
//! which debuggers find through a link in the programs.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Args;

use crate::cargo;
use crate::child::{Child, tied};
use crate::interrupt::Interrupt;
use crate::{During as _, Error, Result};

#[derive(Args)]
pub(crate) struct PackageArgs {
    /// The folder to write to [default: target/package]
    #[arg(long, value_name = "FOLDER")]
    to: Option<PathBuf>,
}

const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The names of the programs as built.
const PROGRAMS: [&str; 2] = ["reader", "writer"];
/// The completions by shell: folder, and prefix and suffix of the file name.
const COMPLETIONS: [(&str, &str, &str, &str); 3] = [
    ("bash", "usr/share/bash-completion/completions", "", ""),
    ("zsh", "usr/share/zsh/vendor-completions", "_", ""),
    ("fish", "usr/share/fish/vendor_completions.d", "", ".fish"),
];
const EXAMPLE: &str =
    "redis-url = \"redis://localhost\"\n# redis-password-file = \"/etc/line-stream/password\"\nstream = \"app\"\n";

pub(crate) fn run(args: &PackageArgs) -> Result<()> {
    let interrupt = Interrupt::watch()?;
    let to = match &args.to {
        Some(to) => std::path::absolute(to).unwrap_or_else(|_| to.clone()),
        None => cargo::target()?.join("package"),
    };
    println!("building reader and writer");
    let binaries = cargo::build(true, &interrupt)?;
    let folder = binaries.reader.parent().map(Path::to_owned).unwrap_or_default();
    let architecture = said(Command::new("dpkg").arg("--print-architecture"))?;
    let made = package(&cargo::workspace()?, &folder, &to, architecture.trim(), &interrupt)?;
    let bill = to.join("line-stream.cdx.json");
    fs::write(&bill, bill_of_materials()?).during(|| "writing the SBOM".to_owned())?;
    let names = made.iter().chain([&bill]).filter_map(|path| path.file_name());
    let sums = said(Command::new("sha256sum").current_dir(&to).args(names))?;
    fs::write(to.join("SHA256SUMS"), &sums).during(|| "writing the checksums".to_owned())?;
    print!("{sums}");
    println!("written: {}", to.display());
    Ok(())
}

/// Packs the programs in `binaries` into the package and the tarballs.
fn package(
    workspace: &Path,
    binaries: &Path,
    to: &Path,
    architecture: &str,
    interrupt: &Interrupt,
) -> Result<Vec<PathBuf>> {
    let (root, debug) = (to.join("root"), to.join("debug"));
    for folder in [&root, &debug] {
        let _ = fs::remove_dir_all(folder);
    }
    let place = |path: &str, bytes: &[u8], mode: u32| -> Result<()> {
        let path = root.join(path);
        let made = path.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| fs::write(&path, bytes));
        let made = made.and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(mode)));
        made.during(|| format!("writing {}", path.display()))
    };
    let read = |path: &str| fs::read_to_string(workspace.join(path)).during(|| format!("reading {path}"));
    let man = root.join("usr/share/man/man1");
    fs::create_dir_all(&man)
        .and_then(|()| fs::create_dir_all(&debug))
        .during(|| format!("making {}", man.display()))?;
    for name in PROGRAMS {
        let (built, installed) = (binaries.join(name), format!("line-stream-{name}"));
        place(
            &format!("usr/bin/{installed}"),
            &fs::read(&built).during(|| format!("reading {}", built.display()))?,
            0o755,
        )?;
        split(&root.join("usr/bin").join(&installed), &debug.join(format!("{installed}.debug")), interrupt)?;
        said(Command::new(&built).arg("man").arg(&man))?;
        for (shell, folder, before, after) in COMPLETIONS {
            let script = said(Command::new(&built).args(["completions", shell]))?;
            // The completions must name the installed program.
            let script = script.replace(&format!(" {name}\n"), &format!(" {installed}\n"));
            place(&format!("{folder}/{before}{installed}{after}"), script.as_bytes(), 0o644)?;
        }
        let unit = read(&format!("systemd/line-stream-{name}@.service"))?;
        let unit = unit.replace(&format!("/usr/local/bin/{name}"), &format!("/usr/bin/{installed}"));
        place(&format!("usr/lib/systemd/system/line-stream-{name}@.service"), unit.as_bytes(), 0o644)?;
        let file = if name == "reader" {
            "input = \"/var/log/app/app.log\"\nhttp-addr = \"127.0.0.1:8080\"\n"
        } else {
            "output = \"/var/lib/line-stream/writer-app/app.out\"\nhttp-addr = \"127.0.0.1:8081\"\n"
        };
        place(
            &format!("usr/share/doc/line-stream/examples/{name}-app.toml"),
            format!("{EXAMPLE}{file}").as_bytes(),
            0o644,
        )?;
    }
    // The man pages are named after the installed programs.
    for entry in fs::read_dir(&man).during(|| "reading the man pages".to_owned())?.flatten() {
        let named = man.join(format!("line-stream-{}", entry.file_name().to_string_lossy()));
        fs::rename(entry.path(), &named).during(|| format!("naming {}", named.display()))?;
    }
    place("usr/lib/sysusers.d/line-stream.conf", read("systemd/line-stream.sysusers.conf")?.as_bytes(), 0o644)?;
    let licences = format!("{}\n\n{}", read("LICENSE-MIT")?, read("LICENSE-APACHE")?);
    place("usr/share/doc/line-stream/copyright", licences.as_bytes(), 0o644)?;

    let tarball = to.join(format!("line-stream-{VERSION}-{architecture}.tar.gz"));
    let debug_tarball = to.join(format!("line-stream-{VERSION}-{architecture}-debug.tar.gz"));
    for (tarball, folder) in [(&tarball, &root), (&debug_tarball, &debug)] {
        said(
            Command::new("tar")
                .args(["--create", "--gzip", "--owner=0", "--group=0", "--numeric-owner", "--file"])
                .arg(tarball)
                .arg("--directory")
                .arg(folder)
                .arg("."),
        )?;
    }
    let control = format!(
        "Package: line-stream\nVersion: {VERSION}\nArchitecture: {architecture}\nMaintainer: line-stream <root@localhost>\nSection: net\nPriority: optional\n\
         Depends: libc6\nSuggests: redis-server\nDescription: moves lines from a file through a Redis Stream into a file, each exactly once\n \
         A reader follows a file and adds its lines to a Redis Stream; a writer appends them to a file.\n"
    );
    place("DEBIAN/control", control.as_bytes(), 0o644)?;
    // The administrator enables instances, each with its configuration file.
    let make_user = "#!/bin/sh\nset -e\nif [ \"$1\" = configure ] && command -v systemd-sysusers >/dev/null; then systemd-sysusers line-stream.conf || true; fi\n\
                     if [ -d /run/systemd/system ]; then systemctl daemon-reload || true; fi\n";
    place("DEBIAN/postinst", make_user.as_bytes(), 0o755)?;
    let reload = "#!/bin/sh\nset -e\nif [ -d /run/systemd/system ]; then systemctl daemon-reload || true; fi\n";
    place("DEBIAN/postrm", reload.as_bytes(), 0o755)?;
    let package = to.join(format!("line-stream_{VERSION}_{architecture}.deb"));
    said(Command::new("dpkg-deb").args(["--build", "--root-owner-group"]).arg(&root).arg(&package))?;
    Ok(vec![package, tarball, debug_tarball])
}

/// Moves the debug information of a program into a separate file.
fn split(program: &Path, debug: &Path, interrupt: &Interrupt) -> Result<()> {
    let is_program = fs::read(program).is_ok_and(|bytes| bytes.starts_with(b"\x7fELF"));
    if !is_program {
        return Ok(());
    }
    let objcopy = |args: &[&str], to: Option<&Path>| -> Result<()> {
        let mut command = tied("objcopy");
        command.args(args).arg(program);
        if let Some(to) = to {
            command.arg(to);
        }
        Child::spawn("objcopy", &mut command)?.must_succeed(interrupt)
    };
    objcopy(&["--only-keep-debug"], Some(debug))?;
    objcopy(&["--strip-all"], None)?;
    objcopy(&[&format!("--add-gnu-debuglink={}", debug.display())], None)
}

/// The SBOM of the programs, as a CycloneDX document.
fn bill_of_materials() -> Result<String> {
    let tree = said(
        cargo::command(&[
            "tree",
            "--package",
            "reader",
            "--package",
            "writer",
            "--edges",
            "normal",
            "--prefix",
            "none",
            "--format",
            "{p}\t{l}",
            "--locked",
        ])?
        .env("CARGO_TERM_COLOR", "never"),
    )?;
    Ok(document(&tree))
}

/// Builds the document from lines of name, version and licence.
fn document(tree: &str) -> String {
    let mut components: Vec<String> = tree
        .lines()
        .filter_map(|line| {
            let (package, licence) = line.split_once('\t')?;
            let mut words = package.split(' ');
            let (name, version) = (words.next()?, words.next()?.strip_prefix('v')?);
            let licence = licence.trim_end_matches(" (*)");
            Some(format!(
                "{{\"type\":\"library\",\"name\":{name:?},\"version\":{version:?},\"purl\":\"pkg:cargo/{name}@{version}\",\"licenses\":[{{\"expression\":{licence:?}}}]}}"
            ))
        })
        .collect();
    components.sort();
    components.dedup();
    format!(
        "{{\"bomFormat\":\"CycloneDX\",\"specVersion\":\"1.5\",\"version\":1,\"metadata\":{{\"component\":{{\"type\":\"application\",\"name\":\"line-stream\",\"version\":{VERSION:?}}}}},\"components\":[\n{}\n]}}\n",
        components.join(",\n")
    )
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Scripts that answer like the two programs.
    fn programs(folder: &Path) {
        for name in PROGRAMS {
            let script = format!(
                "#!/bin/sh\ncase $1 in\nman) echo page >\"$2/{name}.1\" ;;\ncompletions) echo complete {name} ;;\n*) echo {name} runs ;;\nesac\n"
            );
            fs::write(folder.join(name), script).unwrap();
            fs::set_permissions(folder.join(name), fs::Permissions::from_mode(0o755)).unwrap();
        }
    }

    #[test]
    fn a_package_has_programs_units_user_pages_completions_and_examples() {
        if crate::install::on_path("dpkg-deb").is_none() {
            eprintln!("SKIPPED: no dpkg-deb on this machine");
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        programs(folder.path());
        let interrupt = Interrupt::watch().unwrap();
        let to = folder.path().join("to");
        let made = package(&cargo::workspace().unwrap(), folder.path(), &to, "amd64", &interrupt).unwrap();
        let extracted = folder.path().join("extracted");
        said(Command::new("dpkg-deb").arg("--extract").arg(&made[0]).arg(&extracted)).unwrap();
        for path in [
            "usr/lib/systemd/system/line-stream-reader@.service",
            "usr/lib/systemd/system/line-stream-writer@.service",
            "usr/lib/sysusers.d/line-stream.conf",
            "usr/share/man/man1/line-stream-reader.1",
            "usr/share/bash-completion/completions/line-stream-writer",
            "usr/share/doc/line-stream/examples/reader-app.toml",
            "usr/share/doc/line-stream/copyright",
        ] {
            assert!(extracted.join(path).is_file(), "{path}");
        }
        let unit = fs::read_to_string(extracted.join("usr/lib/systemd/system/line-stream-reader@.service")).unwrap();
        assert!(
            unit.contains("ExecStart=/usr/bin/line-stream-reader --config") && !unit.contains("/usr/local"),
            "{unit}"
        );
        assert_eq!(said(&mut Command::new(extracted.join("usr/bin/line-stream-reader"))).unwrap(), "reader runs\n");
        assert!(made.iter().all(|path| path.is_file()), "{made:?}");
    }

    #[test]
    fn a_bill_of_materials_has_each_package_once() {
        let text =
            document("reader v0.1.0 (/x)\tMIT\nlog v0.4.29\tMIT OR Apache-2.0\nlog v0.4.29\tMIT OR Apache-2.0 (*)\n\n");
        assert_eq!(text.matches("\"pkg:cargo/log@0.4.29\"").count(), 1, "{text}");
        assert!(text.contains("\"expression\":\"MIT OR Apache-2.0\""), "{text}");
    }
}
