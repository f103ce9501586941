//! The temporary folder of a test; kept if the test fails.

use std::path::{Path, PathBuf};

/// A temporary folder. It is removed when dropped. If the thread panics or `KEEP` is set in the
/// environment, it is kept and its path is printed.
#[derive(Debug)]
pub struct Folder {
    dir: Option<tempfile::TempDir>,
}

impl Folder {
    /// Creates an empty folder. Its path is short, because paths of Unix sockets are limited.
    #[must_use]
    pub fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("e2e-").tempdir().expect("a temporary folder");
        Self { dir: Some(dir) }
    }

    /// The path of the folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.dir.as_ref().expect("only Drop takes it").path()
    }

    /// The path of a file in the folder.
    #[must_use]
    pub fn join(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    /// Keeps the folder when dropped. Returns its path.
    pub fn keep(&mut self) -> PathBuf {
        let path = self.path().to_owned();
        if let Some(dir) = self.dir.as_mut() {
            dir.disable_cleanup(true);
        }
        path
    }
}

impl Default for Folder {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if std::thread::panicking() || std::env::var_os("KEEP").is_some() {
            println!("kept: {}", self.keep().display());
        }
    }
}
