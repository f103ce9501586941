//! The commit journal as a file: locked, appended to, written anew.

use delivery::journal::{HEADER_LEN, RECORD_LEN, Record, encode_header, join};
use rustix::fs::{FlockOperation, flock};
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

/// A journal shorter than this is never written anew: 1 MiB, 16,384 commits.
const COMPACT_ABOVE: u64 = 1 << 20;
/// A journal is written anew when it holds this many times more records than it needs.
const COMPACT_RATIO: u64 = 4;

/// The journal that belongs to an output: the same name, `.journal` behind it.
pub(crate) fn path_of(output: &Path) -> PathBuf {
    let mut name = OsString::from(output);
    name.push(".journal");
    PathBuf::from(name)
}

/// Makes a folder's entries durable: files created or renamed in it.
pub(crate) fn sync_folder_of(path: &Path) -> io::Result<()> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    File::open(folder)?.sync_all()
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

/// An open journal, locked as long as this lives.
#[derive(Debug)]
pub(crate) struct JournalFile {
    path: PathBuf,
    file: File,
    base: u64,
    /// The bytes that are committed; whatever lies behind them in the file is not ours.
    len: u64,
    /// The committed records, neighbours joined.
    joined: Vec<Record>,
}

impl JournalFile {
    /// Opens and locks the journal, creating an empty file when there is none. `None`: another process has the lock.
    pub(crate) fn open(path: PathBuf) -> io::Result<Option<Self>> {
        loop {
            let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path)?;
            if !lock(&file)? {
                return Ok(None);
            }
            // Written anew by another process between opening and locking: then this is the old file, which nobody reads.
            if is_at(&file, &path)? {
                return Ok(Some(Self { path, file, base: 0, len: 0, joined: Vec::new() }));
            }
        }
    }

    /// All bytes of the file.
    pub(crate) fn bytes(&mut self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.file.seek(SeekFrom::Start(0))?;
        self.file.read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// Begins an empty journal in this file, durably: from here on, the output's first `base` bytes are somebody else's.
    pub(crate) fn begin(&mut self, base: u64) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.write_all_at(&encode_header(base), 0)?;
        self.file.sync_all()?;
        sync_folder_of(&self.path)?;
        (self.base, self.len) = (base, HEADER_LEN as u64);
        self.joined.clear();
        Ok(())
    }

    /// Goes on behind these records, which the file holds and the output too; cuts off what lies behind them.
    pub(crate) fn resume(&mut self, base: u64, records: &[Record]) -> io::Result<()> {
        self.base = base;
        self.len = (HEADER_LEN + records.len() * RECORD_LEN) as u64;
        self.joined = join(records);
        if self.file.metadata()?.len() != self.len {
            self.file.set_len(self.len)?;
        }
        self.file.sync_all()
    }

    /// Writes the journal anew with these records, which all are durable in the output, and locks the new file before it takes
    /// the old one's place.
    pub(crate) fn rewrite(&mut self, base: u64, records: &[Record]) -> io::Result<()> {
        let joined = join(records);
        let mut bytes = Vec::with_capacity(HEADER_LEN + joined.len() * RECORD_LEN);
        bytes.extend_from_slice(&encode_header(base));
        for (index, record) in (0..).zip(&joined) {
            bytes.extend_from_slice(&record.encode(index));
        }
        let mut fresh_path = self.path.clone().into_os_string();
        fresh_path.push(".new");
        let fresh_path = PathBuf::from(fresh_path);
        let fresh = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&fresh_path)?;
        if !lock(&fresh)? {
            return Err(io::Error::other(format!("{} is locked by another process", fresh_path.display())));
        }
        fresh.write_all_at(&bytes, 0)?;
        fresh.sync_all()?;
        std::fs::rename(&fresh_path, &self.path)?;
        // The lock of the old file goes with it; who waits for that one finds that its name is gone.
        self.file = fresh;
        (self.base, self.len, self.joined) = (base, bytes.len() as u64, joined);
        sync_folder_of(&self.path)
    }

    /// The committed records, neighbours joined.
    pub(crate) fn records(&self) -> &[Record] {
        &self.joined
    }

    /// Whether writing it anew would make it much smaller.
    pub(crate) fn is_bloated(&self) -> bool {
        self.len > COMPACT_ABOVE && self.len > COMPACT_RATIO * (self.joined.len() * RECORD_LEN) as u64
    }

    /// Writes the journal anew with what it holds, which all is durable.
    pub(crate) fn compact(&mut self) -> io::Result<()> {
        let records = std::mem::take(&mut self.joined);
        let done = self.rewrite(self.base, &records);
        if done.is_err() {
            self.joined = records;
        }
        done
    }

    /// Writes records behind the committed ones, without committing them. `buffer` is working space.
    pub(crate) fn append(&mut self, records: &[Record], buffer: &mut Vec<u8>) -> io::Result<()> {
        let first = (self.len - HEADER_LEN as u64) / RECORD_LEN as u64;
        buffer.clear();
        for (index, record) in (first..).zip(records) {
            buffer.extend_from_slice(&record.encode(index));
        }
        self.file.write_all_at(buffer, self.len)
    }

    /// The records that were appended last are in the file for good.
    pub(crate) fn commit(&mut self, records: &[Record]) {
        self.len += (records.len() * RECORD_LEN) as u64;
        for record in records.iter().filter(|record| !record.is_mark()) {
            match self.joined.last_mut() {
                Some(last) if last.precedes(record) => {
                    last.span.end = record.span.end;
                    last.lines += record.lines;
                }
                _ => self.joined.push(record.clone()),
            }
        }
    }

    /// Takes back what was appended without being committed.
    pub(crate) fn roll_back(&self) -> io::Result<()> {
        self.file.set_len(self.len)
    }

    /// Makes what was written durable.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Whether the file is still the one at its path, with everything that was written.
    pub(crate) fn is_untouched(&self) -> io::Result<bool> {
        Ok(self.file.metadata()?.len() == self.len && is_at(&self.file, &self.path)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use delivery::journal::Parsed;

    fn record(start: u64, end: u64, offset: u64) -> Record {
        Record { root: 1, span: start..end, offset, durable: 0, data_hash: 9, lines: 1 }
    }

    fn begun(folder: &Path) -> JournalFile {
        let mut journal = JournalFile::open(folder.join("out.journal")).unwrap().unwrap();
        journal.begin(0).unwrap();
        journal
    }

    #[test]
    fn a_second_process_does_not_get_the_lock() {
        let folder = tempfile::tempdir().unwrap();
        let journal = begun(folder.path());
        assert!(JournalFile::open(folder.path().join("out.journal")).unwrap().is_none());
        drop(journal);
        assert!(JournalFile::open(folder.path().join("out.journal")).unwrap().is_some());
    }

    #[test]
    fn the_lock_survives_writing_it_anew() {
        let folder = tempfile::tempdir().unwrap();
        let mut journal = begun(folder.path());
        journal.compact().unwrap();
        assert!(JournalFile::open(folder.path().join("out.journal")).unwrap().is_none());
    }

    #[test]
    fn commits_that_adjoin_become_one_record() {
        let folder = tempfile::tempdir().unwrap();
        let mut journal = begun(folder.path());
        for at in 0..10 {
            let records = [record(at * 10, at * 10 + 10, at * 10)];
            journal.append(&records, &mut Vec::new()).unwrap();
            journal.commit(&records);
        }
        assert_eq!(Parsed::read(&journal.bytes().unwrap()).unwrap().unwrap().records.len(), 10);
        journal.compact().unwrap();
        let parsed = Parsed::read(&journal.bytes().unwrap()).unwrap().unwrap();
        assert_eq!((parsed.records.len(), parsed.output_len(), parsed.torn), (1, 100, 0));
        // And it goes on behind them.
        let records = [record(100, 110, 100)];
        journal.append(&records, &mut Vec::new()).unwrap();
        journal.commit(&records);
        assert_eq!(Parsed::read(&journal.bytes().unwrap()).unwrap().unwrap().output_len(), 110);
    }

    #[test]
    fn what_was_not_committed_can_be_taken_back() {
        let folder = tempfile::tempdir().unwrap();
        let mut journal = begun(folder.path());
        journal.append(&[record(0, 10, 0)], &mut Vec::new()).unwrap();
        journal.roll_back().unwrap();
        assert_eq!(journal.bytes().unwrap().len(), HEADER_LEN);
    }
}
