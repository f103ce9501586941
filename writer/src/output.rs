//! The output and its journal as one thing that is committed to.
//!
//! A commit appends a batch's bytes to the output and its records to the journal, and makes both durable at the same time.
//! Whatever fails, the output goes back to the last commit; so a batch is in it as a whole or not at all, and can be tried again.

use crate::args::Fsync;
use crate::failpoint;
use crate::journal_file::{self, JournalFile, is_at, lock, sync_folder_of};
use crate::rotate;
use delivery::consumer::Batch;
use delivery::entry::Span;
use delivery::hash;
use delivery::journal::{Parsed, Record};
use delivery::ranges::RangeSet;
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// With `--fsync interval`, how often the files are made durable.
pub(crate) const SYNC_INTERVAL: Duration = Duration::from_secs(1);
/// Bytes that are written a second time are moved in pieces of this size: 1 MiB.
const PIECE: usize = 1 << 20;

/// Why the output cannot be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    /// It will not work like this, however often it is tried.
    #[error("{0}")]
    Config(String),
    /// The disk, now.
    #[error("{what} {path}: {source}")]
    Io {
        /// What was being done.
        what: &'static str,
        /// To which file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// Why a batch was not committed. It can be tried again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommitError {
    /// The disk.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: &'static str,
        /// What the system says.
        source: io::Error,
    },
    /// The output was renamed, and its journal went with it; a new one is to be opened.
    #[error("renamed to {0}")]
    Rotated(PathBuf),
    /// Somebody else changed the output; it must be opened anew.
    #[error("{0}")]
    Disturbed(&'static str),
    /// The batch waited so long that another consumer may have taken it over.
    #[error("a batch waited for too long")]
    Stale,
}

/// Whether a commit failed at making durable what the disk had taken.
pub(crate) fn is_of_sync(what: &str) -> bool {
    what.starts_with("syncing")
}

fn failed(what: &'static str) -> impl Fn(io::Error) -> CommitError {
    move |source| CommitError::Io { what, source }
}

/// An output that was just opened, and what is known of it.
#[derive(Debug)]
pub(crate) struct Opened {
    /// The output.
    pub(crate) output: Output,
    /// The ranges it holds, by content.
    pub(crate) held: BTreeMap<u64, RangeSet>,
    /// Ranges (content, bytes) that it held once, durably, and holds no more.
    pub(crate) lost: Vec<(u64, Span)>,
    /// Bytes behind the last commit that were cut off.
    pub(crate) torn: u64,
}

/// The output and its journal, both locked as long as this lives.
#[derive(Debug)]
pub(crate) struct Output {
    path: PathBuf,
    file: File,
    journal: JournalFile,
    fsync: Fsync,
    /// The length up to the last commit.
    committed: u64,
    /// The length that is durable for certain.
    durable: u64,
    synced_at: Instant,
    /// The length up to which the journal says that the output is durable.
    marked: u64,
    /// How long the latest sync took, until it was asked for.
    sync_took: Option<Duration>,
    /// A sync failed, or a commit could not be taken back: nothing behind `durable` can be trusted to reach the disk.
    suspect: bool,
    records: Vec<Record>,
    buffer: Vec<u8>,
}

impl Output {
    /// Opens or creates the output and its journal, and cuts both back to the last commit.
    pub(crate) fn open(path: &Path, fsync: Fsync) -> Result<Opened, OpenError> {
        let at = |what: &'static str, path: &Path| {
            let path = path.to_owned();
            move |source: io::Error| OpenError::Io { what, path, source }
        };
        if let Some(became) = rotate::adopt(path).map_err(at("looking for what became of", path))? {
            log::info!("{}: was renamed to {}; its journal went with it", path.display(), became.display());
        }
        let file = open_regular(path)?;
        let journal_path = journal_file::path_of(path);
        let journal = JournalFile::open(journal_path.clone()).map_err(at("opening", &journal_path))?;
        let locked = lock(&file).map_err(at("locking", path))?;
        let Some(mut journal) = journal.filter(|_| locked) else {
            return Err(OpenError::Config(format!("--output {}: another writer is writing to it", path.display())));
        };
        let len = file.metadata().map_err(at("looking at", path))?.len();
        let bytes = journal.bytes().map_err(at("reading", &journal_path))?;
        let parsed = Parsed::read(&bytes).map_err(|error| {
            OpenError::Config(format!("--output {}: {}: {error}", path.display(), journal_path.display()))
        })?;
        let marked = parsed.as_ref().map_or(len, Parsed::durable);
        let (mut held, lost, committed) = match parsed {
            None => {
                journal.begin(len).map_err(at("creating", &journal_path))?;
                sync_folder_of(path).map_err(at("syncing the folder of", path))?;
                (BTreeMap::new(), Vec::new(), len)
            }
            Some(parsed) => {
                let recovered = parsed.recover(len, hash_of(&file)).map_err(at("reading", path))?;
                // An output cut back into the bytes that are not ours: from now on, fewer of them are not ours.
                let base = recovered.base.min(len);
                let committed = recovered.output_len().min(len);
                if committed != len {
                    file.set_len(committed).map_err(at("truncating", path))?;
                }
                file.sync_all().map_err(at("syncing", path))?;
                let settled = if recovered.changed || base != recovered.base {
                    journal.rewrite(base, &recovered.records)
                } else {
                    journal.resume(base, &recovered.records)
                };
                settled.map_err(at("writing", &journal_path))?;
                (recovered.held(), recovered.lost, committed)
            }
        };
        rotate::add_rotated(path, &mut held).map_err(at("reading the journals beside", path))?;
        let output = Self {
            path: path.to_owned(),
            file,
            journal,
            fsync,
            committed,
            durable: committed,
            synced_at: Instant::now(),
            marked,
            sync_took: None,
            suspect: false,
            records: Vec::new(),
            buffer: Vec::new(),
        };
        Ok(Opened { output, held, lost, torn: len.saturating_sub(committed) })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The length up to the last commit.
    pub(crate) const fn len(&self) -> u64 {
        self.committed
    }

    /// What was committed, by content.
    pub(crate) fn held(&self) -> BTreeMap<u64, RangeSet> {
        let mut held: BTreeMap<u64, RangeSet> = BTreeMap::new();
        for record in self.journal.records() {
            held.entry(record.root).or_default().insert(record.span.clone());
        }
        held
    }

    /// How long the sync took that was done since the last question.
    pub(crate) const fn sync_took(&mut self) -> Option<Duration> {
        self.sync_took.take()
    }

    /// Appends a batch; when this returns, it is as durable as `--fsync` says. After an error nothing of it is in the output.
    pub(crate) fn commit(&mut self, batch: &Batch) -> Result<(), CommitError> {
        self.settle()?;
        if batch.runs.is_empty() {
            return Ok(());
        }
        if let Err(error) = self.append(batch) {
            self.roll_back();
            return Err(error);
        }
        let len = self.committed + batch.data.len() as u64;
        if self.fsync == Fsync::Always {
            if let Err(error) = self.sync_files() {
                self.suspect = true;
                return Err(error);
            }
            self.durable = len;
        }
        self.committed = len;
        self.journal.commit(&self.records);
        Ok(())
    }

    /// What is to be done now and then: syncs when `--fsync interval` is due, keeps the journal small, looks whether somebody
    /// else changed the files.
    pub(crate) fn tend(&mut self) -> Result<(), CommitError> {
        self.settle()?;
        let due = self.fsync == Fsync::Interval && self.synced_at.elapsed() >= SYNC_INTERVAL;
        let bloated = self.journal.is_bloated();
        if due || bloated {
            self.make_durable()?;
        }
        if bloated {
            self.journal.compact().map_err(failed("writing the journal anew"))?;
            self.marked = self.durable;
        }
        self.mark()
    }

    /// Makes everything that was committed durable, and says so in the journal.
    pub(crate) fn finish(&mut self) -> Result<(), CommitError> {
        self.settle()?;
        self.make_durable()?;
        self.mark()
    }

    /// Makes everything that was committed durable.
    fn make_durable(&mut self) -> Result<(), CommitError> {
        if self.durable == self.committed {
            return Ok(());
        }
        if let Err(error) = self.sync_files() {
            self.suspect = true;
            return Err(error);
        }
        self.durable = self.committed;
        Ok(())
    }

    /// Says in the journal that the last commit is durable, too. It is no loss when this does not reach the disk.
    fn mark(&mut self) -> Result<(), CommitError> {
        if self.durable < self.committed || self.marked == self.committed {
            return Ok(());
        }
        let mark = [Record::mark(self.committed)];
        if let Err(error) = self.journal.append(&mark, &mut self.buffer) {
            self.roll_back();
            return Err(failed("writing the journal")(error));
        }
        self.journal.commit(&mark);
        self.marked = self.committed;
        Ok(())
    }

    /// Brings the files back to the last commit when something went wrong with them.
    fn settle(&mut self) -> Result<(), CommitError> {
        if self.suspect {
            self.mend()?;
        }
        if !self.journal.is_untouched().map_err(failed("looking at the journal"))? {
            self.make_durable()?;
            self.journal.compact().map_err(failed("writing the journal anew"))?;
            log::warn!("{}: its journal was changed or removed by somebody else; written anew", self.path.display());
        }
        let len = self.file.metadata().map_err(failed("looking at the output"))?.len();
        if !is_at(&self.file, &self.path).map_err(failed("looking at the output"))? {
            if let Some(became) = rotate::moved_to(&self.file, &self.path).map_err(failed("looking for the output"))? {
                return Err(self.rotated(became)?);
            }
            return Err(CommitError::Disturbed("it was removed or replaced by somebody else"));
        }
        if len < self.committed {
            return Err(CommitError::Disturbed("it was truncated by somebody else"));
        }
        if len > self.committed {
            return Err(CommitError::Disturbed("somebody else wrote to it"));
        }
        Ok(())
    }

    /// The output has another name now: what it holds is made durable, and the journal follows.
    fn rotated(&mut self, became: PathBuf) -> Result<CommitError, CommitError> {
        self.make_durable()?;
        self.mark()?;
        rotate::move_journal(&self.path, &became).map_err(failed("moving the journal"))?;
        Ok(CommitError::Rotated(became))
    }

    /// After a failed sync the system may have dropped the bytes it could not write, and call them clean. So what is not known to be
    /// durable is written once more, into files that are then synced again.
    fn mend(&mut self) -> Result<(), CommitError> {
        self.file.set_len(self.committed).map_err(failed("truncating the output"))?;
        let mut piece = vec![0; PIECE.min(usize::try_from(self.committed - self.durable).unwrap_or(PIECE))];
        let mut at = self.durable;
        while at < self.committed {
            let len = piece.len().min(usize::try_from(self.committed - at).unwrap_or(piece.len()));
            self.file.read_exact_at(&mut piece[..len], at).map_err(failed("reading the output"))?;
            self.file.write_all_at(&piece[..len], at).map_err(failed("writing the output"))?;
            at += len as u64;
        }
        self.file.sync_all().map_err(failed("syncing the output"))?;
        self.journal.compact().map_err(failed("writing the journal anew"))?;
        self.durable = self.committed;
        self.suspect = false;
        Ok(())
    }

    fn append(&mut self, batch: &Batch) -> Result<(), CommitError> {
        self.records.clear();
        let mut at = 0_usize;
        for run in &batch.runs {
            let len = usize::try_from(run.span.end - run.span.start).unwrap_or(usize::MAX);
            let bytes = batch.data.get(at..at.saturating_add(len)).unwrap_or_default();
            self.records.push(Record {
                root: run.root,
                span: run.span.clone(),
                offset: self.committed + at as u64,
                durable: self.durable,
                data_hash: hash(bytes),
                lines: run.lines,
            });
            at += len;
        }
        failpoint::reach("before-append");
        self.file.write_all_at(&batch.data, self.committed).map_err(failed("writing the output"))?;
        failpoint::reach("after-append");
        self.journal.append(&self.records, &mut self.buffer).map_err(failed("writing the journal"))?;
        failpoint::reach("after-journal");
        Ok(())
    }

    /// Takes back what was appended without being committed.
    fn roll_back(&mut self) {
        let taken_back = self.file.set_len(self.committed).and_then(|()| self.journal.roll_back());
        self.suspect |= taken_back.is_err();
    }

    /// Both at once: two files, one wait.
    fn sync_files(&mut self) -> Result<(), CommitError> {
        let begun = Instant::now();
        let (file, journal) = (&self.file, &self.journal);
        let (of_file, of_journal) = std::thread::scope(|scope| {
            let beside = scope.spawn(|| journal.sync());
            let of_file = file.sync_data();
            (of_file, beside.join().unwrap_or_else(|_| Err(io::Error::other("the syncing thread died"))))
        });
        of_file.map_err(failed("syncing the output"))?;
        of_journal.map_err(failed("syncing the journal"))?;
        failpoint::reach("after-sync");
        self.synced_at = Instant::now();
        self.sync_took = Some(begun.elapsed());
        Ok(())
    }
}

/// The hash of a range of an output, for the recovery of its journal.
pub(crate) fn hash_of(file: &File) -> impl FnMut(Span) -> io::Result<u64> {
    let mut bytes = Vec::new();
    move |span| {
        // As long as a batch: it lies within the file, and its record is sealed.
        bytes.resize(usize::try_from(span.end - span.start).unwrap_or(usize::MAX), 0);
        file.read_exact_at(&mut bytes, span.start)?;
        Ok(hash(&bytes))
    }
}

fn open_regular(path: &Path) -> Result<File, OpenError> {
    let config = |why: &str| OpenError::Config(format!("--output {}: {why}", path.display()));
    let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
    let file = match opened {
        Ok(file) => file,
        Err(error) => {
            return Err(match error.kind() {
                io::ErrorKind::NotFound => {
                    config("its folder does not exist; allowed: a file in a folder that is there")
                }
                io::ErrorKind::NotADirectory => config("a part of its path is not a folder"),
                io::ErrorKind::IsADirectory => config("it is a folder; allowed: a regular file"),
                io::ErrorKind::PermissionDenied => {
                    config("permission denied; the writer must be able to write it and its folder")
                }
                _ => OpenError::Io { what: "opening", path: path.to_owned(), source: error },
            });
        }
    };
    match file.metadata() {
        Ok(metadata) if metadata.is_file() => Ok(file),
        Ok(_) => Err(config("not a regular file; allowed: a regular file, or a path where nothing is yet")),
        Err(source) => Err(OpenError::Io { what: "looking at", path: path.to_owned(), source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::{batch, write_output};
    use delivery::journal::{HEADER_LEN, RECORD_LEN};
    use std::io::Write as _;

    fn open(path: &Path) -> Opened {
        Output::open(path, Fsync::Always).unwrap()
    }

    fn held(opened: &Opened, root: u64) -> Vec<Span> {
        opened.held.get(&root).map(|held| held.iter().collect()).unwrap_or_default()
    }

    fn config_error(path: &Path) -> String {
        match Output::open(path, Fsync::Always) {
            Err(OpenError::Config(text)) => text,
            other => panic!("expected a configuration error, got {other:?}"),
        }
    }

    #[test]
    fn what_was_committed_is_there_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let path = write_output(&folder.path().join("out"), &[(7, 0, b"a\n"), (7, 2, b"b\n"), (8, 0, b"x\n")]);
        let opened = open(&path);
        assert_eq!(std::fs::read(&path).unwrap(), b"a\nb\nx\n");
        assert_eq!((held(&opened, 7), held(&opened, 8)), (vec![0..4], vec![0..2]));
        assert_eq!((opened.lost.len(), opened.torn), (0, 0));
    }

    #[test]
    fn a_torn_tail_of_either_file_is_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        let path = write_output(&folder.path().join("out"), &[(7, 0, b"a\n"), (7, 2, b"b\n")]);
        let journal = journal_file::path_of(&path);
        for file in [&path, &journal] {
            OpenOptions::new().append(true).open(file).unwrap().write_all(b"garbage").unwrap();
        }
        let mut opened = open(&path);
        assert_eq!((opened.torn, held(&opened, 7)), (7, vec![0..4]));
        opened.output.commit(&batch(&[(7, 4, b"c\n")])).unwrap();
        drop(opened);
        assert_eq!(std::fs::read(&path).unwrap(), b"a\nb\nc\n");
        assert_eq!(std::fs::metadata(&journal).unwrap().len() as usize, HEADER_LEN + 3 * RECORD_LEN);
        assert_eq!(held(&open(&path), 7), [0..6]);
    }

    #[test]
    fn every_point_at_which_a_commit_can_stop_is_recovered() {
        // The bytes of the third commit that reached each file, in any combination.
        for output_bytes in 0..=2u64 {
            for journal_bytes in [0, 1, RECORD_LEN as u64 - 1, RECORD_LEN as u64] {
                let folder = tempfile::tempdir().unwrap();
                let path = write_output(&folder.path().join("out"), &[(7, 0, b"a\n"), (7, 2, b"b\n"), (7, 4, b"c\n")]);
                let cut = |path: &Path, len| OpenOptions::new().write(true).open(path).unwrap().set_len(len).unwrap();
                cut(&path, 4 + output_bytes);
                cut(&journal_file::path_of(&path), (HEADER_LEN + 2 * RECORD_LEN) as u64 + journal_bytes);
                let whole = output_bytes == 2 && journal_bytes == RECORD_LEN as u64;
                let opened = open(&path);
                let kept: u64 = if whole { 6 } else { 4 };
                assert_eq!(held(&opened, 7), [0..kept], "{output_bytes} bytes, {journal_bytes} of the journal");
                assert_eq!(std::fs::metadata(&path).unwrap().len(), kept);
                assert!(opened.lost.is_empty(), "what was not durable was not lost");
            }
        }
    }

    #[test]
    fn bytes_that_were_there_before_stay() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        std::fs::write(&path, "before\n").unwrap();
        write_output(&path, &[(7, 0, b"a\n")]);
        drop(open(&path));
        assert_eq!(std::fs::read(&path).unwrap(), b"before\na\n");
    }

    #[test]
    fn an_output_cut_by_somebody_names_what_is_lost() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        std::fs::write(&path, "before\n").unwrap();
        write_output(&path, &[(7, 0, b"a\n"), (7, 2, b"b\n"), (7, 4, b"c\n"), (7, 6, b"d\n")]);
        for (len, lost, kept) in [(10, vec![(7, 3..4), (7, 4..6)], vec![0..3]), (3, vec![(7, 0..3)], vec![])] {
            OpenOptions::new().write(true).open(&path).unwrap().set_len(len).unwrap();
            let opened = open(&path);
            assert_eq!((opened.lost.clone(), held(&opened, 7)), (lost, kept));
            drop(opened);
            assert!(open(&path).lost.is_empty(), "told once");
            assert_eq!(std::fs::metadata(&path).unwrap().len(), len);
        }
    }

    #[test]
    fn the_last_commit_of_a_writer_that_finished_is_known_to_be_durable() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        let mut output = open(&path).output;
        output.commit(&batch(&[(7, 0, b"a\n")])).unwrap();
        for _ in 0..3 {
            output.finish().unwrap();
        }
        output.commit(&batch(&[(7, 2, b"b\n")])).unwrap();
        output.tend().unwrap();
        drop(output);
        let journal = std::fs::metadata(journal_file::path_of(&path)).unwrap().len() as usize;
        assert_eq!(journal, HEADER_LEN + 4 * RECORD_LEN, "one mark a commit");
        assert_eq!(held(&open(&path), 7), [0..4]);
        OpenOptions::new().write(true).open(&path).unwrap().set_len(3).unwrap();
        assert_eq!(open(&path).lost, [(7, 3..4)]);
    }

    #[test]
    fn an_output_that_somebody_changes_is_noticed_before_the_next_commit() {
        type Change = fn(&Path);
        let changes: [(&str, Change); 5] = [
            ("removed or replaced", |path| std::fs::remove_file(path).unwrap()),
            ("removed or replaced", |path| {
                std::fs::remove_file(path).unwrap();
                std::fs::write(path, "a\n").unwrap();
            }),
            ("renamed to", |path| {
                std::fs::rename(path, path.with_extension("1")).unwrap();
                std::fs::write(path, "a\n").unwrap();
            }),
            ("truncated", |path| std::fs::write(path, "").unwrap()),
            ("wrote to it", |path| OpenOptions::new().append(true).open(path).unwrap().write_all(b"x").unwrap()),
        ];
        for (expected, change) in changes {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("out");
            let mut output = open(&path).output;
            output.commit(&batch(&[(7, 0, b"a\n")])).unwrap();
            change(&path);
            let error = output.commit(&batch(&[(7, 2, b"b\n")])).unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
        }
    }

    #[test]
    fn a_journal_that_somebody_removes_is_written_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        let mut output = open(&path).output;
        output.commit(&batch(&[(7, 0, b"a\n")])).unwrap();
        std::fs::remove_file(journal_file::path_of(&path)).unwrap();
        output.commit(&batch(&[(7, 2, b"b\n")])).unwrap();
        drop(output);
        assert_eq!(held(&open(&path), 7), [0..4]);
    }

    #[test]
    fn a_failed_sync_writes_again_what_was_not_durable() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        let mut output = Output::open(&path, Fsync::Never).unwrap().output;
        output.commit(&batch(&[(7, 0, b"a\n")])).unwrap();
        output.suspect = true;
        output.commit(&batch(&[(7, 2, b"b\n")])).unwrap();
        assert_eq!((output.durable, output.suspect), (2, false));
        drop(output);
        assert_eq!(std::fs::read(&path).unwrap(), b"a\nb\n");
        assert_eq!(held(&open(&path), 7), [0..4]);
    }

    #[test]
    fn a_second_writer_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        let first = open(&path);
        assert!(config_error(&path).contains("another writer"));
        // Also by another name, with a journal of its own.
        std::os::unix::fs::symlink(&path, folder.path().join("alias")).unwrap();
        assert!(config_error(&folder.path().join("alias")).contains("another writer"));
        drop(first);
        open(&path);
    }

    #[test]
    fn what_cannot_be_an_output_is_said_in_one_line() {
        let folder = tempfile::tempdir().unwrap();
        assert!(config_error(&folder.path().join("no/such/out")).contains("its folder does not exist"));
        assert!(config_error(folder.path()).contains("it is a folder"));
        let path = folder.path().join("out");
        std::fs::write(journal_file::path_of(&path), "dear diary, today I wrote some notes").unwrap();
        let text = config_error(&path);
        assert!(text.contains("out.journal") && text.contains("not those of a commit journal"), "{text}");
        assert!(std::fs::read(journal_file::path_of(&path)).unwrap().starts_with(b"dear diary"), "left alone");
    }
}
