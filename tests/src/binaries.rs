//! Locates and builds the binaries under test.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// A binary of the project.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// The reader.
    Reader,
    /// The writer.
    Writer,
}

impl Program {
    /// The binary's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Reader => "reader",
            Self::Writer => "writer",
        }
    }

    /// The path of the binary: `READER_BIN` or `WRITER_BIN` from the environment, else the one that
    /// cargo builds in the profile of this build.
    #[must_use]
    pub fn path(self) -> PathBuf {
        let variable = match self {
            Self::Reader => "READER_BIN",
            Self::Writer => "WRITER_BIN",
        };
        std::env::var_os(variable).map_or_else(|| built().join(self.name()), PathBuf::from)
    }
}

/// The path of the reconciler for Redis Cluster: `RECONCILER_BIN` from the environment, else the
/// one that cargo builds.
#[must_use]
pub fn reconciler() -> PathBuf {
    std::env::var_os("RECONCILER_BIN").map_or_else(|| built().join("reconciler"), PathBuf::from)
}

/// The program that ties child processes to their parent, if it was built.
pub(crate) fn leash() -> Option<&'static Path> {
    static LEASH: OnceLock<Option<PathBuf>> = OnceLock::new();
    let find = || Some(profile_folder().join("leash")).filter(|path| path.exists());
    LEASH.get_or_init(find).as_deref()
}

/// Builds the binaries with cargo, once per test process. Returns their folder.
fn built() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let folder = profile_folder();
        let profile = match folder.file_name().and_then(|name| name.to_str()) {
            Some("debug") | None => "dev",
            Some(profile) => profile,
        };
        let target = folder.parent().expect("a profile's folder lies in the target folder");
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.current_dir(env!("CARGO_MANIFEST_DIR")).args(["build", "--quiet", "--profile", profile]);
        cargo.args([
            "-p",
            "reader",
            "-p",
            "writer",
            "-p",
            "reconciler",
            "-p",
            "e2e",
            "--bin",
            "reader",
            "--bin",
            "writer",
            "--bin",
            "reconciler",
            "--bin",
            "leash",
        ]);
        let status = cargo.arg("--target-dir").arg(target).status().expect("cargo runs");
        assert!(status.success(), "cargo build of the binaries under test: {status}");
        folder
    })
}

/// `target/<profile>`, the folder that contains this executable.
fn profile_folder() -> PathBuf {
    let exe = std::env::current_exe().expect("the path of this executable");
    let folder = exe.parent().expect("a file lies in a folder");
    let folder = if folder.ends_with("deps") { folder.parent().expect("deps lies in a folder") } else { folder };
    folder.to_owned()
}
