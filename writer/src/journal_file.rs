//! File operations on the commit journal and the output: paths, locks, replacing and truncating.

use rustix::fs::{FlockOperation, flock};
use std::ffi::OsString;
use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};

/// How many times to open a file again that is replaced while it is being opened.
const ATTEMPTS: usize = 100;

/// The journal of an output: its path with `.journal` appended.
pub(crate) fn path_of(output: &Path) -> PathBuf {
    with_suffix(output, ".journal")
}

/// A path with `suffix` appended to its file name.
pub(crate) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    PathBuf::from(name)
}

/// Syncs the folder of a file, which makes created and renamed entries durable.
pub(crate) fn sync_folder_of(path: &Path) -> io::Result<()> {
    File::open(folder_of(path))?.sync_all()
}

/// The folder of a file.
pub(crate) fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Takes the exclusive lock of a file. Returns `false` if another process holds it.
pub(crate) fn lock(file: &File) -> io::Result<bool> {
    match flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// Whether `path` leads to this open file.
pub(crate) fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    is_file_at(&file.metadata()?, path)
}

/// The same of a file's metadata.
pub(crate) fn is_file_at(here: &Metadata, path: &Path) -> io::Result<bool> {
    match std::fs::metadata(path) {
        Ok(there) => Ok((here.dev(), here.ino()) == (there.dev(), there.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Truncates a file. Leaves a shorter file as it is, because extending it would insert zeros.
pub(crate) fn cut_back(file: &File, len: u64) -> io::Result<()> {
    if file.metadata()?.len() > len { file.set_len(len) } else { Ok(()) }
}

/// Opens a file for reading and writing, and locks it. With `create`, creates a missing file.
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
        // Another process may have replaced the file between opening and locking. This handle then
        // leads to the old file, which is not in use.
        if is_at(&file, path)? {
            return Ok(Locked::Ours(file));
        }
    }
    Err(io::Error::other("another program replaces it all the time"))
}

/// The result of locking a file.
#[derive(Debug)]
pub(crate) enum Locked {
    /// The open file, locked until it is closed.
    Ours(File),
    /// Another process holds the lock.
    ByAnother,
    /// The file does not exist.
    Missing,
}

/// An open journal, locked for the lifetime of this value.
#[derive(Debug)]
pub(crate) struct JournalFile {
    path: PathBuf,
    file: Arc<File>,
    /// What syncs it while the output is synced; `None` until then.
    syncing: Option<SyncThread>,
}

/// A thread that syncs files. To start one for each commit would cost more than the commit.
#[derive(Debug)]
struct SyncThread {
    files: Sender<Arc<File>>,
    synced: Receiver<io::Result<()>>,
}

impl SyncThread {
    fn start() -> io::Result<Self> {
        let (files, to_sync) = mpsc::channel::<Arc<File>>();
        let (done, synced) = mpsc::channel();
        let work = move || {
            // Until the journal is closed.
            for file in to_sync {
                let synced = file.sync_data();
                // Closed before anybody hears of it: who opens the journal next takes its lock.
                drop(file);
                if done.send(synced).is_err() {
                    break;
                }
            }
        };
        std::thread::Builder::new().name("journal-sync".to_owned()).spawn(work)?;
        Ok(Self { files, synced })
    }
}

impl JournalFile {
    /// The journal at this path, already open and locked.
    pub(crate) fn new(path: PathBuf, file: File) -> Self {
        Self { path, file: Arc::new(file), syncing: None }
    }

    /// Replaces the journal atomically by one with these bytes. Locks the new file before the
    /// rename.
    pub(crate) fn replace(&mut self, bytes: &[u8]) -> io::Result<()> {
        let fresh_path = with_suffix(&self.path, ".new");
        let fresh = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&fresh_path)?;
        if !lock(&fresh)? {
            return Err(io::Error::other(format!("{} is locked by another process", fresh_path.display())));
        }
        fresh.write_all_at(bytes, 0)?;
        fresh.sync_all()?;
        std::fs::rename(&fresh_path, &self.path)?;
        // Dropping the old file releases its lock. A process that waits for that lock finds another
        // file at the path.
        self.file = Arc::new(fresh);
        sync_folder_of(&self.path)
    }

    /// Writes bytes at an offset.
    pub(crate) fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, at)
    }

    /// Truncates the journal.
    pub(crate) fn cut_back(&self, len: u64) -> io::Result<()> {
        cut_back(&self.file, len)
    }

    /// Syncs the journal.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Makes what was written to it durable while `output` is made durable: two files, one wait.
    /// The outcome for the output, and for the journal.
    pub(crate) fn sync_beside(&mut self, output: &File) -> (io::Result<()>, io::Result<()>) {
        if self.syncing.is_none() {
            self.syncing = SyncThread::start().ok();
        }
        let asked = self.syncing.as_ref().filter(|thread| thread.files.send(Arc::clone(&self.file)).is_ok());
        let of_output = output.sync_data();
        let of_journal = asked.and_then(|thread| thread.synced.recv().ok()).unwrap_or_else(|| {
            // Without a thread, one after the other.
            self.syncing = None;
            self.sync()
        });
        (of_output, of_journal)
    }

    /// The length of the journal. `None` if it is no longer at its path.
    pub(crate) fn len(&self) -> io::Result<Option<u64>> {
        let here = self.file.metadata()?;
        Ok(is_file_at(&here, &self.path)?.then_some(here.len()))
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
    fn a_replaced_journal_stays_locked() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.journal");
        let Locked::Ours(file) = opened(&path) else { panic!("nobody else has it") };
        let mut journal = JournalFile::new(path.clone(), file);
        journal.replace(b"new").unwrap();
        assert!(matches!(opened(&path), Locked::ByAnother));
        assert_eq!((journal.len().unwrap(), std::fs::read(&path).unwrap()), (Some(3), b"new".to_vec()));
    }

    #[test]
    fn a_shorter_file_is_not_extended_with_zeros() {
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
