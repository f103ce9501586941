//! Redis clients of other languages, for the test of the programs in `docs/consuming.md` and for
//! the programs in `benches/peers/`.

use std::path::{Path, PathBuf};

use crate::child::{Child, tied};
use crate::install::{Consent, on_path};
use crate::interrupt::Interrupt;
use crate::{During as _, Error, Result};

/// The clients of a language.
struct Clients {
    /// The package manager, and the folder below `clients/`.
    program: &'static str,
    folder: &'static str,
    packages: &'static [&'static str],
    /// What is there when they are installed, in the folder.
    sign: &'static str,
    install: &'static [&'static str],
    size: &'static str,
}

const CLIENTS: [Clients; 3] = [
    Clients {
        program: "python3",
        folder: "python",
        packages: &["redis==8.1.0", "hiredis==3.5.0"],
        sign: "hiredis",
        install: &["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target", "."],
        size: "4 MB",
    },
    Clients {
        program: "npm",
        folder: "node",
        packages: &["redis@6.3.1", "ioredis@6.0.0"],
        sign: "node_modules/ioredis",
        install: &["install", "--silent", "--no-audit", "--no-fund", "--prefix", "."],
        size: "15 MB",
    },
    Clients {
        program: "go",
        folder: "go",
        packages: &["github.com/redis/go-redis/v9@v9.9.0"],
        sign: "go.sum",
        install: &["get"],
        size: "10 MB",
    },
];

/// Gets what is missing into `folder`, if the user consents. A client that cannot be obtained is
/// reported, and what needs it is skipped.
pub(crate) fn get(folder: &Path, consent: Consent, interrupt: &Interrupt) -> Result<()> {
    for clients in &CLIENTS {
        let of_language = folder.join(clients.folder);
        if of_language.join(clients.sign).exists() {
            continue;
        }
        let names = clients.packages.join(", ");
        let done = match on_path(clients.program) {
            None => Err(Error::new(format!("no {} here", clients.program))),
            Some(program) => clients.install(&program, of_language, consent, interrupt),
        };
        match done {
            Err(Error::Failed(why)) => {
                eprintln!("xtask: left out: programs that use {names}: {why}");
            }
            done => done?,
        }
    }
    Ok(())
}

impl Clients {
    fn install(&self, program: &Path, folder: PathBuf, consent: Consent, interrupt: &Interrupt) -> Result<()> {
        let names = self.packages.join(", ");
        consent.ask(&names, self.program, self.size, "install it yourself to run their test")?;
        std::fs::create_dir_all(&folder).during(|| format!("making {}", folder.display()))?;
        // Go wants to know to which module the package is added.
        if self.program == "go" {
            std::fs::write(folder.join("go.mod"), "module consuming\n\ngo 1.24\n")
                .during(|| format!("writing {}/go.mod", folder.display()))?;
        }
        eprintln!("xtask: {} {} {}", self.program, self.install.join(" "), self.packages.join(" "));
        let mut command = tied(program);
        command.args(self.install).args(self.packages).current_dir(folder);
        Child::spawn(self.program, command.stdin(std::process::Stdio::null()))?.must_succeed(interrupt)
    }
}
