//! The commit journal as a file: locked, appended to, replaced.

use rustix::fs::{FlockOperation, flock};
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

/// How often a journal that is replaced while it is opened is opened again.
const ATTEMPTS: usize = 100;

/// The journal that belongs to an output: the same name, `.journal` behind it.
pub(crate) fn path_of(output: &Path) -> PathBuf {
    with_suffix(output, ".journal")
}

/// A path with something behind its name.
pub(crate) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    PathBuf::from(name)
}

/// Makes a folder's entries durable: files created or renamed in it.
pub(crate) fn sync_folder_of(path: &Path) -> io::Result<()> {
    File::open(folder_of(path))?.sync_all()
}

/// The folder in which a file is.
pub(crate) fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Takes the exclusive lock of a file. `Ok(false)`: another process has it.
pub(crate) fn lock(file: &File) -> io::Result<bool> {
    match flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// Whether `path` names this open file, and not another one (or none).
pub(crate) fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let here = file.metadata()?;
    match std::fs::metadata(path) {
        Ok(there) => Ok((here.dev(), here.ino()) == (there.dev(), there.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Shortens a file. One that is shorter already stays as it is: bytes that somebody cut off must
/// not become zeros.
pub(crate) fn cut_back(file: &File, len: u64) -> io::Result<()> {
    if file.metadata()?.len() > len { file.set_len(len) } else { Ok(()) }
}

/// Opens a file for reading and writing and takes its lock. `create`: makes it when there is none.
pub(crate) fn open_locked(path: &Path, create: bool) -> io::Result<Locked> {
    for _ in 0..ATTEMPTS {
        let file = match OpenOptions::new().read(true).write(true).create(create).truncate(false).open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound && !create => return Ok(Locked::Missing),
            Err(error) => return Err(error),
        };
        if !lock(&file)? {
            return Ok(Locked::ByAnother);
        }
        // Another process may have replaced it between opening and locking: then this is the old
        // file, which nobody reads.
        if is_at(&file, path)? {
            return Ok(Locked::Ours(file));
        }
    }
    Err(io::Error::other("another program replaces it all the time"))
}

/// What came of locking a file.
#[derive(Debug)]
pub(crate) enum Locked {
    /// It is open, and ours until it is closed.
    Ours(File),
    /// Another process has the lock.
    ByAnother,
    /// There is none.
    Missing,
}

/// An open journal, locked as long as this lives.
#[derive(Debug)]
pub(crate) struct JournalFile {
    path: PathBuf,
    file: File,
}

impl JournalFile {
    /// The journal at this path, which is open and locked.
    pub(crate) const fn new(path: PathBuf, file: File) -> Self {
        Self { path, file }
    }

    /// Puts a journal with these bytes in the place of this one, and locks the new file before it
    /// takes the old one's place.
    pub(crate) fn replace(&mut self, bytes: &[u8]) -> io::Result<()> {
        let fresh_path = with_suffix(&self.path, ".new");
        let fresh = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&fresh_path)?;
        if !lock(&fresh)? {
            return Err(io::Error::other(format!("{} is locked by another process", fresh_path.display())));
        }
        fresh.write_all_at(bytes, 0)?;
        fresh.sync_all()?;
        std::fs::rename(&fresh_path, &self.path)?;
        // The lock of the old file goes with it; who waits for that one finds that its name is
        // gone.
        self.file = fresh;
        sync_folder_of(&self.path)
    }

    /// Writes bytes at an offset.
    pub(crate) fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, at)
    }

    /// Shortens it.
    pub(crate) fn cut_back(&self, len: u64) -> io::Result<()> {
        cut_back(&self.file, len)
    }

    /// Makes what was written durable.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Its length. `None`: it is not at its path any more.
    pub(crate) fn len(&self) -> io::Result<Option<u64>> {
        Ok(if is_at(&self.file, &self.path)? { Some(self.file.metadata()?.len()) } else { None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened(path: &Path) -> Locked {
        open_locked(path, true).unwrap()
    }

    #[test]
    fn a_second_process_does_not_get_the_lock() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.journal");
        let Locked::Ours(first) = opened(&path) else { panic!("nobody else has it") };
        assert!(matches!(opened(&path), Locked::ByAnother));
        drop(first);
        assert!(matches!(opened(&path), Locked::Ours(_)));
    }

    #[test]
    fn the_lock_survives_replacing_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.journal");
        let Locked::Ours(file) = opened(&path) else { panic!("nobody else has it") };
        let mut journal = JournalFile::new(path.clone(), file);
        journal.replace(b"new").unwrap();
        assert!(matches!(opened(&path), Locked::ByAnother));
        assert_eq!((journal.len().unwrap(), std::fs::read(&path).unwrap()), (Some(3), b"new".to_vec()));
    }

    #[test]
    fn a_file_that_somebody_cut_is_not_filled_with_zeros() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        std::fs::write(&path, "12345").unwrap();
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        for (len, left) in [(9, "12345"), (3, "123"), (5, "123")] {
            cut_back(&file, len).unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), left);
        }
    }
}
