//! The producer's view of the disk: the folder around the input, and the state file.

use crate::folder::Folder;
use crate::source_file::OpenFile;
use crate::state::StateFile;
use delivery::files::{Identified, Inode, Known};
use delivery::fingerprint::Fingerprint;
use delivery::manifest::Manifest;
use delivery::producer::{Directory, Stored};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::time::Duration;

/// The folder around the input, and the state file.
#[derive(Debug)]
pub(crate) struct InputDirectory {
    pub(crate) folder: Folder,
    pub(crate) state: StateFile,
}

impl Directory for InputDirectory {
    type File = OpenFile;

    fn look(&mut self, known: &Known, open: &[(u64, &OpenFile)], now: Duration) -> Identified {
        self.folder.look(known, open, now)
    }

    fn open(&mut self, key: usize) -> io::Result<OpenFile> {
        self.folder.open(key)
    }

    fn prints(&self, key: usize) -> Option<Fingerprint> {
        self.folder.prints(key).cloned()
    }

    fn input(&mut self) -> io::Result<Option<Inode>> {
        match std::fs::metadata(self.folder.input()) {
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
