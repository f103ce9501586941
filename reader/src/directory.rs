//! The [`Directory`] of the producer on a real disk: the folder around the input, and the state
//! file.

use crate::scanner::Scanner;
use crate::source_file::DiskFile;
use crate::state::StateFile;
use delivery::files::{Identified, Inode, KnownContents};
use delivery::fingerprint::Fingerprint;
use delivery::manifest::Manifest;
use delivery::producer::{Directory, Stored};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::time::Duration;

/// The folder around the input, and the state file.
#[derive(Debug)]
pub(crate) struct InputDirectory {
    pub(crate) scanner: Scanner,
    pub(crate) state: StateFile,
}

impl Directory for InputDirectory {
    type File = DiskFile;

    fn scan(&mut self, known: &KnownContents, open: &[(u64, &DiskFile)], now: Duration) -> Identified {
        self.scanner.scan(known, open, now)
    }

    fn has_changed(&self) -> bool {
        self.scanner.has_changed()
    }

    fn open(&mut self, key: usize) -> io::Result<DiskFile> {
        self.scanner.open(key)
    }

    fn prints(&self, key: usize) -> Option<Fingerprint> {
        self.scanner.prints(key).cloned()
    }

    fn input(&mut self) -> io::Result<Option<Inode>> {
        match std::fs::metadata(self.scanner.input()) {
            Ok(_) if !self.scanner.has_input() => Ok(None),
            Ok(metadata) => Ok(Some(Inode { dev: metadata.dev(), ino: metadata.ino() })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn load(&mut self) -> io::Result<Stored> {
        self.state.load()
    }

    fn store(&mut self, manifest: &Manifest) -> io::Result<()> {
        self.state.store(manifest)
    }
}
