//! The project's own commands: `cargo xtask`.
//!
//! # Layout
//!
//! | file | subject |
//! |---|---|
//! | `demo.rs`, `demo/` | streams a file through both services and proves the output identical |
//! | `test.rs` | runs all tests, and installs required programs |
//! | `simulate.rs`, `mutants.rs` | the simulation, and the check that it detects mistakes |
//! | `lint.rs`, `lint/` | line length, phrases, commits and dependencies |
//! | `chaos.rs` | faults at random moments, for minutes or hours |
//! | `bench.rs`, `bench/` | runs the comparing benches, and writes `benches/RESULTS.md` |
//! | `server.rs` | finds or installs redis-server, starts a private instance |
//! | `k8s_e2e.rs` | the walk-through of the manifests on a real cluster |
//! | `image.rs` | the container image |
//! | `package.rs` | the Debian package and the tarball |
//! | `manuals.rs` | shell completions and man pages |
//! | `install.rs` | the system's package manager |
//! | `clients.rs` | Redis clients of other languages, for the tests of the documentation |
//! | `child.rs` | child processes that end with this one |
//! | `interrupt.rs` | Ctrl-C and SIGTERM, noticed while waiting |
//! | `cargo.rs` | builds |

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod bench;
mod cargo;
mod chaos;
mod child;
mod clients;
mod demo;
mod helm;
mod image;
mod install;
mod interrupt;
mod k8s_e2e;
mod lint;
mod manuals;
mod mutants;
mod package;
mod server;
mod simulate;
mod test;

/// The project's own commands
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version)]
struct Xtask {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Stream a file through Redis into another file, and prove that both are identical
    Demo(demo::DemoArgs),
    /// Run all tests, with an installed redis-server, which is installed if missing
    Test(test::TestArgs),
    /// Kill, freeze and cut everything at random moments while a file grows, and prove the output
    /// identical
    Chaos(chaos::ChaosArgs),
    /// Drive the state machines of both services in a simulated world, from random seeds
    Simulate(simulate::SimulateArgs),
    /// Remove safety lines of the production code, and prove that the simulation notices
    Mutants(mutants::MutantArgs),
    /// Check line length, phrases, commits and dependencies
    Lint(lint::LintArgs),
    /// Measure against other programs in paired rounds, and write benches/RESULTS.md
    Bench(bench::BenchArgs),
    /// Build the container image of both services, with podman, buildah or docker
    Image(image::ImageArgs),
    /// Install, load, disturb and prove the manifests on the cluster that KUBECONFIG names, and
    /// print a table
    #[command(name = "k8s-e2e")]
    K8sE2e(k8s_e2e::K8sArgs),
    /// Build what users install: a Debian package and a tarball, with checksums and an SBOM
    Package(package::PackageArgs),
    /// Write shell completions for both services
    Completions(manuals::ManualArgs),
    /// Write man pages for both services
    Man(manuals::ManualArgs),
    /// Run a command that ends when its parent does (internal)
    #[command(name = child::TIED, hide = true)]
    Tied(child::TiedArgs),
}

/// A result whose error is shown to the user.
type Result<T> = std::result::Result<T, Error>;

/// Why a command did not succeed.
#[derive(Debug)]
enum Error {
    /// Ctrl-C or SIGTERM.
    Interrupted,
    /// What went wrong, and what the user can do.
    Failed(String),
}

impl Error {
    fn new(what: impl std::fmt::Display) -> Self {
        Self::Failed(what.to_string())
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Interrupted => f.write_str("interrupted; everything that was started has been stopped"),
            Self::Failed(why) => f.write_str(why),
        }
    }
}

/// The operation that failed.
trait During<T> {
    fn during(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: std::fmt::Display> During<T> for std::result::Result<T, E> {
    fn during(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| Error::Failed(format!("{}: {error}", what())))
    }
}

fn main() -> ExitCode {
    let done = match Xtask::parse().command {
        Command::Demo(args) => demo::run(&args),
        Command::Test(args) => test::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Chaos(args) => chaos::run(&args),
        Command::Simulate(args) => simulate::run(&args),
        Command::Mutants(args) => mutants::run(&args),
        Command::Lint(args) => lint::run(&args),
        Command::Image(args) => image::run(&args),
        Command::K8sE2e(args) => k8s_e2e::run(&args),
        Command::Package(args) => package::run(&args),
        Command::Completions(args) => manuals::completions(&args),
        Command::Man(args) => manuals::man(&args),
        Command::Tied(args) => child::run_tied(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error}");
            if matches!(error, Error::Interrupted) { ExitCode::from(130) } else { ExitCode::FAILURE }
        }
    }
}
