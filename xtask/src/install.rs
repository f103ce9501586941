//! Installs packages with the system's package manager.

use std::env;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::child::{Child, tied};
use crate::interrupt::Interrupt;
use crate::{Error, Result};

/// How a package manager installs a package.
struct Manager {
    program: &'static str,
    /// Commands to run first, to update the package lists.
    refresh: &'static [&'static str],
    install: &'static [&'static str],
    /// Packages that contain a Redis server, the preferred one first.
    redis: &'static [&'static str],
    /// Packages that contain Prometheus and promtool.
    prometheus: &'static [&'static str],
    /// Packages that contain Chromium.
    chromium: &'static [&'static str],
    /// Whether it must run as root.
    root: bool,
}

const MANAGERS: [Manager; 7] = [
    Manager {
        program: "apt-get",
        refresh: &["update"],
        install: &[
            "install",
            "--yes",
            "--no-install-recommends",
            "-o",
            "Acquire::Retries=3",
            "-o",
            "DPkg::Lock::Timeout=120",
        ],
        redis: &["redis-server", "valkey-server"],
        prometheus: &["prometheus"],
        chromium: &["chromium"],
        root: true,
    },
    Manager {
        program: "dnf",
        refresh: &[],
        install: &["install", "-y"],
        redis: &["redis", "valkey"],
        prometheus: &["golang-github-prometheus"],
        chromium: &["chromium"],
        root: true,
    },
    Manager {
        program: "yum",
        refresh: &[],
        install: &["install", "-y"],
        redis: &["redis", "valkey"],
        prometheus: &["golang-github-prometheus"],
        chromium: &["chromium"],
        root: true,
    },
    Manager {
        program: "apk",
        refresh: &[],
        install: &["add", "--no-cache"],
        redis: &["redis", "valkey"],
        prometheus: &["prometheus"],
        chromium: &["chromium"],
        root: true,
    },
    Manager {
        program: "pacman",
        refresh: &["-Sy", "--noconfirm"],
        install: &["-S", "--noconfirm", "--needed"],
        redis: &["valkey", "redis"],
        prometheus: &["prometheus"],
        chromium: &["chromium"],
        root: true,
    },
    Manager {
        program: "zypper",
        refresh: &[],
        install: &["--non-interactive", "install"],
        redis: &["redis", "valkey"],
        prometheus: &["golang-github-prometheus-prometheus"],
        chromium: &["chromium"],
        root: true,
    },
    Manager {
        program: "brew",
        refresh: &[],
        install: &["install"],
        redis: &["redis", "valkey"],
        prometheus: &["prometheus"],
        chromium: &["chromium"],
        root: false,
    },
];

/// The environment of package managers. The second variable prevents packages from starting
/// services.
const ENVIRONMENT: [(&str, &str); 2] = [("DEBIAN_FRONTEND", "noninteractive"), ("SYSTEMD_OFFLINE", "1")];

/// How often an installation is tried, because networks fail.
const TRIES: usize = 3;

/// The path of the program on the PATH.
pub(crate) fn on_path(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    // Some systems keep servers in sbin, which is not on every user's PATH.
    env::split_paths(&path)
        .chain(["/usr/sbin", "/usr/local/sbin", "/usr/local/bin", "/opt/homebrew/bin"].map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|file| is_executable(file))
}

fn is_executable(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    file.metadata().is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
}

/// A program that packages provide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// A Redis server.
    Redis,
    /// Prometheus and promtool.
    Prometheus,
    /// A browser, for the tests of the status page.
    Chromium,
    /// Helm and kubectl, from [`crate::helm`]: no package of the system.
    Helm,
}

impl Wanted {
    /// Its name in messages.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Redis => "redis-server or valkey-server",
            Self::Prometheus => "prometheus and promtool",
            Self::Chromium => "chromium",
            Self::Helm => "helm and kubectl",
        }
    }

    /// Advice for the user.
    pub(crate) const fn advice(self) -> &'static str {
        match self {
            Self::Redis => "install redis-server or valkey-server, or set REDIS_SERVER to the path of one",
            Self::Prometheus => "install prometheus and promtool",
            Self::Chromium => "install chromium",
            Self::Helm => "install helm and kubectl",
        }
    }

    /// The disk space that it needs, including dependencies.
    pub(crate) const fn size(self) -> &'static str {
        match self {
            Self::Redis => "10 MB",
            Self::Prometheus => "200 MB",
            Self::Chromium => "400 MB",
            Self::Helm => "120 MB",
        }
    }

    const fn packages(self, manager: &Manager) -> &'static [&'static str] {
        match self {
            Self::Redis => manager.redis,
            Self::Prometheus => manager.prometheus,
            Self::Chromium => manager.chromium,
            Self::Helm => &[],
        }
    }
}

/// Whether packages may be installed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::Args)]
pub(crate) struct Consent {
    /// Install the packages that are missing without asking
    #[arg(long, conflicts_with = "no_install")]
    yes: bool,
    /// Install nothing: skip the tests that need more, and fail if there is no redis-server
    #[arg(long)]
    no_install: bool,
}

impl Consent {
    /// Asks on a terminal, unless the command line has decided. `Err`: why nothing is installed.
    pub(crate) fn ask(self, name: &str, with: &str, size: &str, advice: &str) -> Result<()> {
        if self.yes {
            return Ok(());
        }
        if self.no_install {
            return Err(Error::new(format!("no {name} here, and --no-install was given; {advice}")));
        }
        if !std::io::stdin().is_terminal() {
            return Err(Error::new(format!(
                "no {name} here, and nobody to ask; give --yes to install it with {with}, or {advice}"
            )));
        }
        eprint!("xtask: no {name} here. Install it with {with} (about {size})? No service is started. [y/N] ");
        let mut answer = String::new();
        match std::io::stdin().read_line(&mut answer) {
            Ok(_) if matches!(answer.trim(), "y" | "Y" | "yes") => Ok(()),
            _ => Err(Error::new(format!("nothing installed; {advice}"))),
        }
    }
}

/// Installs it with the package manager of this system, if the user consents.
pub(crate) fn install(wanted: Wanted, consent: Consent, interrupt: &Interrupt) -> Result<()> {
    let (name, advice) = (wanted.name(), wanted.advice());
    let Some((manager, program)) = MANAGERS.iter().find_map(|m| Some((m, on_path(m.program)?))) else {
        return Err(Error::new(format!("no {name} here, and no package manager that is known; {advice}")));
    };
    let as_root = !manager.root || rustix::process::geteuid().is_root();
    let sudo = if as_root { None } else { on_path("sudo") };
    if !as_root && sudo.is_none() {
        return Err(Error::new(format!(
            "no {name} here, and {} needs root (there is no sudo); {advice}",
            manager.program
        )));
    }
    let with = format!("{}{}", if sudo.is_some() { "sudo " } else { "" }, manager.program);
    consent.ask(name, &with, wanted.size(), advice)?;
    let run = |args: &[&str]| -> Result<()> {
        let shown = format!("{} {}", manager.program, args.join(" "));
        let with_sudo = if sudo.is_some() { "sudo " } else { "" };
        eprintln!("xtask: {with_sudo}{shown}");
        // sudo may ask for a password, so it stays in the terminal's process group.
        let mut command = match &sudo {
            Some(sudo) => {
                let mut command = Command::new(sudo);
                command.args(ENVIRONMENT.map(|(name, value)| format!("{name}={value}"))).arg(&program);
                command
            }
            None => {
                let mut command = tied(&program);
                command.envs(ENVIRONMENT).stdin(Stdio::null());
                command
            }
        };
        Child::spawn(manager.program, command.args(args).stdout(Stdio::null()))?.must_succeed(interrupt)
    };
    let mut last = None;
    for _ in 0..TRIES {
        interrupt.check()?;
        if !manager.refresh.is_empty() {
            // A partially successful refresh may be sufficient.
            match run(manager.refresh) {
                Err(Error::Interrupted) => return Err(Error::Interrupted),
                Err(Error::Failed(why)) => eprintln!("xtask: {why}"),
                Ok(()) => {}
            }
        }
        for package in wanted.packages(manager) {
            match run(&[manager.install, &[package]].concat()) {
                Ok(()) => return Ok(()),
                Err(Error::Interrupted) => return Err(Error::Interrupted),
                Err(Error::Failed(why)) => last = Some(why),
            }
        }
    }
    Err(Error::new(format!("{}; {advice}", last.unwrap_or_default())))
}
