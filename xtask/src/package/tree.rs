//! The files that are installed.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{PROGRAMS, VERSION, said};
use crate::child::{Child, tied};
use crate::interrupt::Interrupt;
use crate::{During as _, Result};

/// Where completions go, by shell: folder, and what is around the program's name.
const COMPLETIONS: [(&str, &str, &str, &str); 3] = [
    ("bash", "usr/share/bash-completion/completions", "", ""),
    ("zsh", "usr/share/zsh/vendor-completions", "_", ""),
    ("fish", "usr/share/fish/vendor_completions.d", "", ".fish"),
];
const DOC: &str = "usr/share/doc/line-stream";
/// What the example of each program says beside what both say.
const EXAMPLES: [(&str, &str); 2] = [
    ("reader", "input = \"/var/log/app/app.log\"\nhttp-addr = \"127.0.0.1:8080\"\n"),
    ("writer", "output = \"/var/lib/line-stream/writer-app/app.out\"\nhttp-addr = \"127.0.0.1:8081\"\n"),
];
const EXAMPLE: &str =
    "redis-url = \"redis://localhost\"\n# redis-password-file = \"/etc/line-stream/password\"\nstream = \"app\"\n";

/// A folder that holds what belongs below `/`, and one with the debug information of the programs.
pub(super) struct Tree {
    pub(super) root: PathBuf,
    debug: PathBuf,
}

impl Tree {
    /// Lays the programs in `binaries`, and what belongs to them, into an empty folder.
    pub(super) fn lay(workspace: &Path, binaries: &Path, folder: &Path, interrupt: &Interrupt) -> Result<Self> {
        let _ = fs::remove_dir_all(folder);
        let tree = Self { root: folder.join("files"), debug: folder.join("debug") };
        fs::create_dir_all(&tree.debug).during(|| format!("making {}", tree.debug.display()))?;
        let read = |path: &str| fs::read_to_string(workspace.join(path)).during(|| format!("reading {path}"));
        let man = tree.root.join("usr/share/man/man1");
        fs::create_dir_all(&man).during(|| format!("making {}", man.display()))?;
        for name in PROGRAMS {
            let (built, installed) = (binaries.join(name), format!("line-stream-{name}"));
            let program = tree.root.join("usr/bin").join(&installed);
            let bytes = fs::read(&built).during(|| format!("reading {}", built.display()))?;
            tree.place(&format!("usr/bin/{installed}"), &bytes, 0o755)?;
            split(&program, &tree.debug.join(format!("{installed}.debug")), interrupt)?;
            // Run under its name, so that pages and completions have that.
            said(Command::new(&program).arg("man").arg(&man))?;
            for (shell, folder, before, after) in COMPLETIONS {
                let script = said(Command::new(&program).args(["completions", shell]))?;
                tree.place(&format!("{folder}/{before}{installed}{after}"), script.as_bytes(), 0o644)?;
            }
            let unit = format!("line-stream-{name}@.service");
            let text = read(&format!("systemd/{unit}"))?;
            let text = text.replace(&format!("/usr/local/bin/{name}"), &format!("/usr/bin/{installed}"));
            tree.place(&format!("usr/lib/systemd/system/{unit}"), text.as_bytes(), 0o644)?;
        }
        for (name, more) in EXAMPLES {
            let path = format!("{DOC}/examples/{name}-app.toml");
            tree.place(&path, format!("{EXAMPLE}{more}").as_bytes(), 0o644)?;
        }
        let pages = fs::read_dir(&man).during(|| "reading the man pages".to_owned())?.flatten();
        for page in pages {
            said(Command::new("gzip").args(["--best", "--no-name"]).arg(page.path()))?;
        }
        tree.place(
            "usr/lib/sysusers.d/line-stream.conf",
            read("systemd/line-stream.sysusers.conf")?.as_bytes(),
            0o644,
        )?;
        let licences = format!("{}\n\n{}", read("LICENSE-MIT")?, read("LICENSE-APACHE")?);
        tree.place(&format!("{DOC}/copyright"), licences.as_bytes(), 0o644)?;
        tree.place(&format!("{DOC}/CHANGELOG.md"), read("CHANGELOG.md")?.as_bytes(), 0o644)?;
        Ok(tree)
    }

    /// Writes one of the files.
    pub(super) fn place(&self, path: &str, bytes: &[u8], mode: u32) -> Result<()> {
        let path = self.root.join(path);
        let made = path.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| fs::write(&path, bytes));
        let made = made.and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(mode)));
        made.during(|| format!("writing {}", path.display()))
    }

    /// The installed programs.
    pub(super) fn programs(&self) -> impl Iterator<Item = PathBuf> + '_ {
        PROGRAMS.iter().map(|name| self.root.join(format!("usr/bin/line-stream-{name}")))
    }

    /// Packs both folders, for a target.
    pub(super) fn tarballs(&self, to: &Path, target: &str) -> Result<Vec<PathBuf>> {
        let mut made = Vec::new();
        for (folder, suffix) in [(&self.root, ""), (&self.debug, "-debug")] {
            let tarball = to.join(format!("line-stream-{VERSION}-{target}{suffix}.tar.gz"));
            let options = ["--create", "--gzip", "--owner=0", "--group=0", "--numeric-owner", "--exclude=./DEBIAN"];
            said(
                Command::new("tar").args(options).arg("--file").arg(&tarball).arg("--directory").arg(folder).arg("."),
            )?;
            made.push(tarball);
        }
        Ok(made)
    }
}

/// Moves the debug information of a program into a file of its own, which debuggers find by the
/// link in the program.
fn split(program: &Path, debug: &Path, interrupt: &Interrupt) -> Result<()> {
    let objcopy = |args: &[&str], to: Option<&Path>| -> Result<()> {
        let mut command = tied("objcopy");
        command.args(args).arg(program).args(to);
        Child::spawn("objcopy", &mut command)?.must_succeed(interrupt)
    };
    objcopy(&["--only-keep-debug"], Some(debug))?;
    objcopy(&["--strip-all"], None)?;
    objcopy(&[&format!("--add-gnu-debuglink={}", debug.display())], None)
}
