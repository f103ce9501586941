//! File systems mounted for a test.

use std::path::{Path, PathBuf};

use crate::text;

/// A mounted file system; unmounted when dropped.
#[derive(Debug)]
pub struct Mount(PathBuf);

impl Mount {
    /// Mounts a file system of this type on a folder. Prints a message and returns `None` without
    /// the permission to mount.
    #[must_use]
    pub fn new(kind: &str, options: &str, folder: &Path) -> Option<Self> {
        let mounted = text::can("mount", &["-t", kind, "-o", options, kind, &folder.to_string_lossy()]);
        if !mounted {
            println!("skipped: no right to mount a file system of type {kind}");
        }
        mounted.then(|| Self(folder.to_owned()))
    }

    /// Changes the mount options; returns whether that succeeded.
    #[must_use]
    pub fn change(&self, options: &str) -> bool {
        text::can("mount", &["-o", &format!("remount,{options}"), &self.0.to_string_lossy()])
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Lazily, because files may be open, and the folder is about to be removed.
        let _ = text::can("umount", &["-l", &self.0.to_string_lossy()]);
    }
}
