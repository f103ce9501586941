//! The output and its journal as files: performs the effects that [`delivery::output`] decides on.
//!
//! A commit appends the records of a batch to the journal and its bytes to the output, and syncs
//! both at the same time. After any failure, the output is truncated to the last commit. The output
//! therefore contains a batch completely or not at all, and the batch can be retried.

use crate::args::Fsync;
use crate::failpoint;
use crate::file_buffer::{BUFFER_LEN, hash_of};
use crate::journal_file::{
    self, JournalFile, Locked, cut_back, folder_of, is_file_at, open_locked, sync_folder_of, with_suffix,
};
use crate::output_folder::{self, Journals, OutputFolder};
use delivery::consumer::Batch;
use delivery::entry::{Span, span_len};
use delivery::journal::{Identity, MAGIC};
use delivery::output::{
    self, Answer, Disturbance, Effect, FileStates, Job, JournalWas, Ledger, Opening, Outcome, Place, Verdict,
};
use delivery::ranges::RangeSet;
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::io;
use std::os::unix::fs::{FileExt as _, FileTypeExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;

/// Interval of syncs with `--fsync interval`.
pub(crate) const SYNC_INTERVAL: Duration = Duration::from_secs(1);

/// Why the output cannot be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    /// A retry cannot help.
    #[error("{0}")]
    Config(String),
    /// Another writer holds the lock, and may exit.
    #[error("{0}")]
    Locked(String),
    /// An I/O error, which may be temporary.
    #[error("{what} {path}: {source}")]
    Io {
        /// The operation.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

/// Why a batch was not committed. It can be retried.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommitError {
    /// An I/O error.
    #[error("{what}: {source}")]
    Io {
        /// The operation.
        what: &'static str,
        /// The cause.
        source: io::Error,
    },
    /// The output was renamed, and its journal too. Open a new output.
    #[error("renamed to {0}")]
    Rotated(PathBuf),
    /// Another program changed the output, which must be opened again.
    #[error("{0}")]
    Disturbed(Disturbance),
    /// The batch waited so long that another consumer may have taken it over.
    #[error("a batch waited for too long")]
    Stale,
}

/// Whether a commit failed during a sync.
pub(crate) fn is_of_sync(what: &str) -> bool {
    what.starts_with("syncing")
}

/// An output that was just opened, and its state.
#[derive(Debug)]
pub(crate) struct Opened {
    /// The output.
    pub(crate) output: Output,
    /// The state of its journal.
    pub(crate) journal: JournalWas,
    /// The ranges in the output and its rotated files, by content.
    pub(crate) held: BTreeMap<u64, RangeSet>,
    /// Ranges that were durable in the output and are missing now, by content.
    pub(crate) lost: BTreeMap<u64, RangeSet>,
    /// The number of bytes after the last commit.
    pub(crate) behind: u64,
    /// Whether these bytes may be more than an unfinished commit.
    pub(crate) has_unknown_tail: bool,
}

/// The other outputs of the same process.
#[derive(Debug, Clone)]
pub(crate) struct OneOfMany {
    /// One permit for each thread that may use a disk. The file system syncs in one go what several
    /// of them have written.
    pub(crate) threads: Arc<Semaphore>,
    /// The journals of all of them.
    pub(crate) journals: Arc<Journals>,
}

/// The output and its journal, both locked for the lifetime of this value.
#[derive(Debug)]
pub(crate) struct Output {
    path: PathBuf,
    file: File,
    journal: JournalFile,
    fsync: Fsync,
    ledger: Ledger,
    synced_at: Instant,
    /// Duration of the latest sync, until it is reported.
    sync_took: Option<Duration>,
    /// The new path of the output, once it was renamed.
    became: Option<PathBuf>,
    is_one_of_many: bool,
}

impl Output {
    /// Opens or creates the output and its journal. Truncates both to the last commit, now or once
    /// the writer has verified the journal.
    pub(crate) fn open(
        path: &Path,
        identity: &Identity,
        fsync: Fsync,
        many: Option<&OneOfMany>,
    ) -> Result<Opened, OpenError> {
        loop {
            let journal_path = journal_file::path_of(path);
            is_possible(path, path)?;
            is_possible(path, &journal_path)?;
            // Create nothing before it is certain that nothing is refused.
            let file = locked(path, path, false)?;
            let journal = locked(path, &journal_path, false)?;
            match verdict(path, identity, many.map(|many| &*many.journals)).map_err(at("checking", path))? {
                Verdict::Refuse(refusal) => {
                    let (path, journal) = (path.display(), journal_path.display());
                    return Err(OpenError::Config(format!("--output {path}: {journal}: {refusal}")));
                }
                Verdict::Adopt(name, opening) => {
                    let became = OutputFolder::new(path).path(&name);
                    let (Some(file), Some(journal)) = (locked(path, &became, false)?, journal) else { continue };
                    let output = Self::new(path, file, JournalFile::new(journal_path, journal), fsync, &opening, many);
                    if let Some(opened) = output.recover(*opening)? {
                        return Ok(opened);
                    }
                }
                Verdict::Open(opening) => {
                    let created = |file, path: &Path, of| match file {
                        Some(file) => Ok(Some(file)),
                        None => locked(of, path, true),
                    };
                    let file = created(file, path, path)?;
                    let journal = created(journal, &journal_path, path)?;
                    let (Some(file), Some(journal)) = (file, journal) else { continue };
                    let output = Self::new(path, file, JournalFile::new(journal_path, journal), fsync, &opening, many);
                    if let Some(opened) = output.recover(*opening)? {
                        return Ok(opened);
                    }
                }
            }
        }
    }

    fn new(
        path: &Path,
        file: File,
        journal: JournalFile,
        fsync: Fsync,
        opening: &Opening,
        many: Option<&OneOfMany>,
    ) -> Self {
        Self {
            path: path.to_owned(),
            file,
            journal,
            fsync,
            ledger: opening.ledger.clone(),
            synced_at: Instant::now(),
            sync_took: None,
            became: None,
            is_one_of_many: many.is_some(),
        }
    }

    /// Truncates both files to the last commit. `None`: the output was renamed, and its journal
    /// too.
    fn recover(mut self, opening: Opening) -> Result<Option<Opened>, OpenError> {
        match self.run(Job::Recover, &[]) {
            Ok(()) => {}
            Err(CommitError::Rotated(became)) => {
                let (path, became) = (self.path.display(), became.display());
                log::info!("{path}: was renamed to {became}, and its journal too");
                return Ok(None);
            }
            Err(error) => {
                let (what, source) = match error {
                    CommitError::Io { what, source } => (what, source),
                    other => ("opening", io::Error::other(other)),
                };
                return Err(OpenError::Io { what, path: self.path, source });
            }
        }
        for name in &opening.unusable {
            let path = OutputFolder::new(&self.path).path(name);
            log::warn!(
                "{}: the journal of a rotated output is damaged; lines that only it records may be written twice",
                path.display()
            );
        }
        let Opening { journal, held, lost, cut, keep: has_unknown_tail, .. } = opening;
        let behind = span_len(&cut);
        Ok(Some(Opened { output: self, journal, held, lost, behind, has_unknown_tail }))
    }

    /// Appends bytes that are about to be cut off to a file beside the output, durably.
    fn keep(&self, cut: Span) -> Result<(), CommitError> {
        let path = with_suffix(&self.path, ".cut");
        let failed = |what| move |source| CommitError::Io { what, source };
        let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let kept = opened.map_err(failed("opening OUTPUT.cut"))?;
        let len = kept.metadata().map_err(failed("checking OUTPUT.cut"))?.len();
        let cut_hash = hash_of(&self.file, cut.clone()).map_err(failed("reading the output"))?;
        let last = len.saturating_sub(span_len(&cut))..len;
        // If an earlier start failed after this step, the bytes are in the file already.
        if hash_of(&kept, last).map_err(failed("reading OUTPUT.cut"))? != cut_hash {
            copy(&self.file, cut.clone(), &kept, len).map_err(failed("writing OUTPUT.cut"))?;
        }
        kept.sync_all().and_then(|()| sync_folder_of(&path)).map_err(failed("syncing OUTPUT.cut"))?;
        let (output, bytes, path) = (self.path.display(), span_len(&cut), path.display());
        log::warn!(
            "{output}: {bytes} bytes after the last commit moved to {path}; if a writer wrote them, the journal \
             is older than the output: stop this one and restore both from one backup"
        );
        Ok(())
    }

    /// The path of the output.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The ID of the output, which it keeps when it is rotated.
    pub(crate) const fn id(&self) -> u64 {
        self.ledger.owner().id
    }

    /// The length up to the last commit.
    pub(crate) const fn len(&self) -> u64 {
        self.ledger.committed()
    }

    /// The committed ranges, by content.
    pub(crate) fn held(&self) -> BTreeMap<u64, RangeSet> {
        self.ledger.held()
    }

    /// The duration of the last sync, once.
    pub(crate) const fn sync_took(&mut self) -> Option<Duration> {
        self.sync_took.take()
    }

    /// Appends a batch. On success, the batch is as durable as `--fsync` requires. On failure, the
    /// output contains nothing of it.
    pub(crate) fn commit(&mut self, batch: &Batch) -> Result<(), CommitError> {
        self.ledger.prepare(batch.runs.iter().map(|run| (run.file_id, run.span.clone(), run.lines)), &batch.data);
        self.run(Job::Commit { sync: self.fsync == Fsync::Always }, &batch.data)
    }

    /// Maintains the files: syncs if `--fsync interval` is due, compacts the journal, and detects
    /// changes by other programs. `is_judged`: all partitions have verified that the journal
    /// belongs to the output.
    pub(crate) fn maintain(&mut self, is_judged: bool) -> Result<(), CommitError> {
        if is_judged {
            self.ledger.judged();
        }
        let sync = self.fsync == Fsync::Interval && self.synced_at.elapsed() >= SYNC_INTERVAL;
        self.run(Job::Maintain { sync }, &[])
    }

    /// Syncs everything, and marks it as durable in the journal.
    pub(crate) fn finish(&mut self, is_judged: bool) -> Result<(), CommitError> {
        if is_judged {
            self.ledger.judged();
        }
        self.run(Job::Finish, &[])
    }

    /// Runs a job: performs its effects one after another.
    fn run(&mut self, job: Job, data: &[u8]) -> Result<(), CommitError> {
        let mut effect = self.ledger.begin(job);
        let mut failed = None;
        loop {
            let answer = match effect {
                Effect::End(outcome) => return self.ended(outcome, failed),
                effect => self.perform(effect, data),
            };
            let answer = answer.unwrap_or_else(|error| {
                failed.get_or_insert(error);
                Answer::Failed
            });
            effect = self.ledger.on(answer);
        }
    }

    fn ended(&mut self, outcome: Outcome, failed: Option<CommitError>) -> Result<(), CommitError> {
        match outcome {
            Outcome::Done => Ok(()),
            Outcome::Failed => Err(failed.unwrap_or(CommitError::Disturbed(Disturbance::Replaced))),
            Outcome::Disturbed(how) => Err(CommitError::Disturbed(how)),
            Outcome::Rotated => Err(CommitError::Rotated(self.became.take().unwrap_or_default())),
        }
    }

    fn perform(&mut self, effect: Effect, data: &[u8]) -> Result<Answer, CommitError> {
        let failed = |what| move |source| CommitError::Io { what, source };
        let Self { file, journal, ledger, .. } = self;
        match effect {
            Effect::Inspect => return self.inspect().map(Answer::Inspected).map_err(failed("checking the output")),
            Effect::CutBack { output, journal: to } => {
                cut_back(file, output)
                    .and_then(|()| to.map_or(Ok(()), |len| journal.cut_back(len)))
                    .map_err(failed("truncating the output"))?;
            }
            Effect::Keep(span) => self.keep(span)?,
            Effect::WriteAgain(span) => {
                copy(file, span.clone(), file, span.start).map_err(failed("writing the output"))?;
                file.sync_all().map_err(failed("syncing the output"))?;
            }
            Effect::HashTail(span) => {
                let hash = hash_of(file, span).map_err(failed("reading the output"))?;
                return hash.map(Answer::Hash).ok_or(CommitError::Disturbed(Disturbance::Truncated));
            }
            Effect::ReplaceJournal { touched } => {
                journal.replace(ledger.journal_bytes()).map_err(failed("rewriting the journal"))?;
                if touched {
                    log::warn!(
                        "{}: its journal was changed or removed by another program; rewritten",
                        self.path.display()
                    );
                }
            }
            Effect::AppendJournal { at, sync } => {
                if !data.is_empty() {
                    failpoint::reach("before-append");
                }
                journal.write_at(ledger.journal_bytes(), at).map_err(failed("writing the journal"))?;
                if sync {
                    journal.sync().map_err(failed("syncing the journal"))?;
                }
                if !data.is_empty() {
                    failpoint::reach("after-journal");
                }
            }
            Effect::AppendOutput { at } => {
                file.write_all_at(data, at).map_err(failed("writing the output"))?;
                failpoint::reach("after-append");
            }
            Effect::Sync => self.sync_files()?,
            Effect::MoveJournal => {
                let became = self.became.as_deref().unwrap_or(&self.path);
                output_folder::move_journal(&self.path, became).map_err(failed("moving the journal"))?;
            }
            Effect::End(_) => {}
        }
        Ok(Answer::Done)
    }

    /// Inspects both files.
    fn inspect(&mut self) -> io::Result<FileStates> {
        let here = self.file.metadata()?;
        let place = if is_file_at(&here, &self.path)? {
            Place::Here
        } else {
            self.became = output_folder::moved_to(&self.file, &self.path)?;
            if self.became.is_some() { Place::Renamed } else { Place::Gone }
        };
        Ok(FileStates { len: here.len(), place, journal_len: self.journal.len()? })
    }

    /// Syncs both files; a single output and its journal in parallel, so that the waits overlap.
    fn sync_files(&mut self) -> Result<(), CommitError> {
        let failed = |what| move |source| CommitError::Io { what, source };
        let begun = Instant::now();
        let (of_file, of_journal) = match self.is_one_of_many {
            false => self.journal.sync_beside(&self.file),
            // A thread for each would be too many.
            true => (self.file.sync_data(), self.journal.sync()),
        };
        of_file.map_err(failed("syncing the output"))?;
        of_journal.map_err(failed("syncing the journal"))?;
        failpoint::reach("after-sync");
        self.synced_at = Instant::now();
        self.sync_took = Some(begun.elapsed());
        Ok(())
    }
}

fn at(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> OpenError {
    let path = path.to_owned();
    move |source| OpenError::Io { what, path, source }
}

/// Decides what to do with an output and its journal at startup. Changes nothing.
///
/// `others`: the journals of all outputs of this process, which are no rotated journals of this
/// one.
pub(crate) fn verdict(path: &Path, identity: &Identity, others: Option<&Journals>) -> io::Result<Verdict> {
    let mut beside = OutputFolder::among(path, others);
    let name = beside.name().to_vec();
    output::startup(&mut beside, &name, identity, RandomState::new().build_hasher().finish())
}

/// Copies a range of a file in blocks.
fn copy(from: &File, span: Span, to: &File, mut at: u64) -> io::Result<()> {
    let most = usize::try_from(span_len(&span)).unwrap_or(BUFFER_LEN).min(BUFFER_LEN);
    let (mut piece, mut read_at) = (vec![0; most], span.start);
    while read_at < span.end {
        let len = most.min(usize::try_from(span.end.saturating_sub(read_at)).unwrap_or(most));
        let Some(piece) = piece.get_mut(..len) else {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file is shorter than expected"));
        };
        from.read_exact_at(piece, read_at)?;
        to.write_all_at(piece, at)?;
        (read_at, at) = (read_at.saturating_add(len as u64), at.saturating_add(len as u64));
    }
    Ok(())
}

/// Opens a file of `output` and locks it. `None` if the file does not exist and `create` is false.
fn locked(output: &Path, path: &Path, create: bool) -> Result<Option<File>, OpenError> {
    match open_locked(path, create) {
        Ok(Locked::Ours(file)) => Ok(Some(file)),
        Ok(Locked::Missing) => Ok(None),
        Ok(Locked::ByAnother) => Err(OpenError::Locked(format!(
            "--output {}: another writer is writing to it; stop that writer, give this one another --output, or wait with --lock-wait",
            output.display()
        ))),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            let what = if output == path { String::new() } else { format!("{}: ", path.display()) };
            Err(OpenError::Config(format!(
                "--output {}: {what}permission denied; the writer must be able to write it and its folder",
                output.display()
            )))
        }
        Err(error) => Err(at("opening", path)(error)),
    }
}

/// Checks that the path is a regular file or does not exist. Does not open it, because opening a
/// pipe or a device has effects.
fn is_possible(output: &Path, path: &Path) -> Result<(), OpenError> {
    let which = if path == output { String::new() } else { format!("{}: ", path.display()) };
    match impossible(path) {
        // What a writer would append to another one's journal would damage that.
        Ok(None) if path == output && is_journal(path).unwrap_or(false) => Err(OpenError::Config(format!(
            "--output {}: it is the commit journal of another output; allowed: another file",
            output.display()
        ))),
        Ok(None) => Ok(()),
        Ok(Some(why)) => Err(OpenError::Config(format!("--output {}: {which}{why}", output.display()))),
        Err(error) => Err(at("checking", path)(error)),
    }
}

/// Whether the file begins as commit journals do.
fn is_journal(path: &Path) -> io::Result<bool> {
    let mut first = [0; MAGIC.len()];
    File::open(path)?.read_exact_at(&mut first, 0)?;
    // The last two tell the version.
    Ok(first.iter().zip(&MAGIC).take(6).all(|(one, other)| one == other))
}

/// Why no output can be at this path, and what is allowed.
pub(crate) fn impossible(path: &Path) -> io::Result<Option<&'static str>> {
    if path == Path::new("-") {
        return Ok(Some(
            "standard output; allowed: a regular file, since what was written must be there after a restart",
        ));
    }
    let kind = match std::fs::metadata(path) {
        Ok(metadata) => metadata.file_type(),
        Err(error) => {
            return match error.kind() {
                io::ErrorKind::NotFound if path.as_os_str().as_encoded_bytes().ends_with(b"/") => {
                    Ok(Some("it names a folder; allowed: a regular file"))
                }
                io::ErrorKind::NotFound if !folder_of(path).exists() => {
                    Ok(Some("its folder does not exist; allowed: a file in an existing folder"))
                }
                io::ErrorKind::NotFound => Ok(None),
                io::ErrorKind::NotADirectory => Ok(Some("a component of its path is not a folder; correct the path")),
                io::ErrorKind::InvalidFilename => Ok(Some("its path is too long; allowed: a shorter one")),
                io::ErrorKind::PermissionDenied => {
                    Ok(Some("permission denied; the writer must be able to write it and its folder"))
                }
                _ => Err(error),
            };
        }
    };
    // The open files of a process have names in `/dev` and `/proc` too. Standard output, for
    // example, is not a file that the writer can lock and truncate.
    let folder = folder_of(path).canonicalize()?;
    Ok(Some(if kind.is_dir() {
        "it is a folder; allowed: a regular file"
    } else if kind.is_fifo() {
        "it is a pipe; allowed: a regular file, since what was written must be there after a restart"
    } else if kind.is_socket() {
        "it is a socket; allowed: a regular file, since what was written must be there after a restart"
    } else if kind.is_char_device() || kind.is_block_device() {
        "it is a device; allowed: a regular file, since what was written must be there after a restart"
    } else if folder == Path::new("/dev") || folder.starts_with("/proc") {
        "it is a stream of this process; allowed: the path of a regular file"
    } else {
        return Ok(None);
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_outputs::{batch, identity, write_output};
    use delivery::journal::{Parsed, RECORD_LEN};
    use std::io::Write as _;

    fn open(path: &Path) -> Opened {
        let mut opened = Output::open(path, &identity(), Fsync::Always, None).unwrap();
        if opened.has_unknown_tail {
            opened.output.maintain(true).unwrap();
        }
        opened
    }

    fn held(opened: &Opened, file_id: u64) -> Vec<Span> {
        opened.held.get(&file_id).map(|held| held.iter().collect()).unwrap_or_default()
    }

    fn lost(opened: &Opened, file_id: u64) -> Vec<Span> {
        opened.lost.get(&file_id).map(|lost| lost.iter().collect()).unwrap_or_default()
    }

    /// The length of the journal's header, and the number of its records.
    fn records(path: &Path) -> (u64, usize) {
        let parsed = Parsed::read(&std::fs::read(journal_file::path_of(path)).unwrap()).unwrap().unwrap();
        assert_eq!(parsed.torn, 0);
        (parsed.header_len, parsed.records.len())
    }

    fn config_error(path: &Path) -> String {
        match Output::open(path, &identity(), Fsync::Always, None) {
            Err(OpenError::Config(text) | OpenError::Locked(text)) => text,
            other => panic!("expected a configuration error, got {other:?}"),
        }
    }

    #[test]
    fn commits_survive_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let path = write_output(&folder.path().join("out"), &[(7, 0, b"a\n"), (7, 2, b"b\n"), (8, 0, b"x\n")]);
        let opened = open(&path);
        assert_eq!(std::fs::read(&path).unwrap(), b"a\nb\nx\n");
        assert_eq!((held(&opened, 7), held(&opened, 8)), (vec![0..4], vec![0..2]));
        assert_eq!((opened.lost.len(), opened.behind), (0, 0));
    }

    #[test]
    fn torn_tails_of_both_files_are_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        let path = write_output(&folder.path().join("out"), &[(7, 0, b"a\n"), (7, 2, b"b\n")]);
        let journal = journal_file::path_of(&path);
        for file in [&path, &journal] {
            OpenOptions::new().append(true).open(file).unwrap().write_all(b"garbage").unwrap();
        }
        let mut opened = open(&path);
        let kept = folder.path().join("out.cut");
        assert_eq!((opened.behind, opened.has_unknown_tail, held(&opened, 7)), (7, true, vec![0..4]));
        assert_eq!(std::fs::read(kept).unwrap(), b"garbage", "the origin of the bytes is unknown");
        opened.output.commit(&batch(&[(7, 4, b"c\n")])).unwrap();
        drop(opened);
        assert_eq!(std::fs::read(&path).unwrap(), b"a\nb\nc\n");
        assert_eq!(records(&path).1, 3, "the joined record, a mark, and the last commit");
        assert_eq!(held(&open(&path), 7), [0..6]);
    }

    #[test]
    fn a_commit_interrupted_at_any_point_is_recovered() {
        // Any combination of the bytes of the third commit that reached each file.
        for output_bytes in 0..=2u64 {
            for journal_bytes in [0, 1, RECORD_LEN as u64 - 1, RECORD_LEN as u64] {
                let folder = tempfile::tempdir().unwrap();
                let path = write_output(&folder.path().join("out"), &[(7, 0, b"a\n"), (7, 2, b"b\n"), (7, 4, b"c\n")]);
                let cut = |path: &Path, len| OpenOptions::new().write(true).open(path).unwrap().set_len(len).unwrap();
                cut(&path, 4 + output_bytes);
                // The first record is the mark of an empty output.
                let before = records(&path).0 + 3 * RECORD_LEN as u64;
                cut(&journal_file::path_of(&path), before + journal_bytes);
                let whole = output_bytes == 2 && journal_bytes == RECORD_LEN as u64;
                let opened = open(&path);
                let kept: u64 = if whole { 6 } else { 4 };
                assert_eq!(held(&opened, 7), [0..kept], "{output_bytes} bytes, {journal_bytes} of the journal");
                assert_eq!(std::fs::metadata(&path).unwrap().len(), kept);
                assert!(opened.lost.is_empty(), "bytes that were not durable do not count as lost");
            }
        }
    }

    #[test]
    fn bytes_from_before_the_first_commit_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        std::fs::write(&path, "before\n").unwrap();
        write_output(&path, &[(7, 0, b"a\n")]);
        drop(open(&path));
        assert_eq!(std::fs::read(&path).unwrap(), b"before\na\n");
    }

    #[test]
    fn an_output_without_a_journal_gets_one_with_the_first_commit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        std::fs::write(&path, "before\n").unwrap();
        for _ in 0..2 {
            let mut opened = open(&path);
            opened.output.maintain(false).unwrap();
            assert_eq!((opened.journal, opened.output.len()), (JournalWas::Missing, 7));
            assert_eq!(
                std::fs::read(journal_file::path_of(&path)).unwrap(),
                b"",
                "a start that is refused changes nothing"
            );
        }
        open(&path).output.commit(&batch(&[(7, 0, b"a\n")])).unwrap();
        assert_eq!(open(&path).journal, JournalWas::Read { restored: 0 });
    }

    #[test]
    fn a_truncated_output_reports_the_lost_ranges() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        std::fs::write(&path, "before\n").unwrap();
        write_output(&path, &[(7, 0, b"a\n"), (7, 2, b"b\n"), (7, 4, b"c\n"), (7, 6, b"d\n")]);
        for (len, gone, kept) in [(10, vec![3..6], vec![0..3]), (3, vec![0..3], vec![])] {
            OpenOptions::new().write(true).open(&path).unwrap().set_len(len).unwrap();
            let opened = open(&path);
            assert_eq!((lost(&opened, 7), held(&opened, 7)), (gone, kept), "one range");
            drop(opened);
            assert!(open(&path).lost.is_empty(), "reported once");
            assert_eq!(std::fs::metadata(&path).unwrap().len(), len);
        }
    }

    #[test]
    fn the_last_commit_of_a_finished_writer_is_marked_as_durable() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        let mut output = open(&path).output;
        output.commit(&batch(&[(7, 0, b"a\n")])).unwrap();
        for _ in 0..3 {
            output.finish(true).unwrap();
        }
        output.commit(&batch(&[(7, 2, b"b\n")])).unwrap();
        output.maintain(true).unwrap();
        drop(output);
        assert_eq!(records(&path).1, 1 + 4, "one mark a commit");
        assert_eq!(held(&open(&path), 7), [0..4]);
        OpenOptions::new().write(true).open(&path).unwrap().set_len(3).unwrap();
        assert_eq!(lost(&open(&path), 7), [3..4]);
    }

    #[test]
    fn changes_by_other_programs_are_detected_at_the_next_commit() {
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
    fn a_removed_journal_is_rewritten() {
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
    fn rewriting_keeps_the_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        let mut output = open(&path).output;
        let bytes: Vec<u8> = (0..3 * BUFFER_LEN + 5).map(|at| (at % 251) as u8).collect();
        output.commit(&batch(&[(7, 0, &bytes)])).unwrap();
        output.perform(Effect::WriteAgain(3..bytes.len() as u64), b"").unwrap();
        assert!(std::fs::read(&path).unwrap() == bytes);
    }

    #[test]
    fn cut_off_bytes_are_kept_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = write_output(&folder.path().join("out"), &[(7, 0, b"a\n")]);
        let kept = folder.path().join("out.cut");
        for (bytes, all) in [("one", "one"), ("one", "one"), ("second", "onesecond"), ("one", "onesecondone")] {
            OpenOptions::new().append(true).open(&path).unwrap().write_all(bytes.as_bytes()).unwrap();
            assert_eq!(open(&path).behind, bytes.len() as u64);
            assert_eq!(std::fs::read_to_string(&kept).unwrap(), all);
        }
    }

    #[test]
    fn nothing_is_cut_off_before_the_journal_is_verified() {
        let folder = tempfile::tempdir().unwrap();
        let path = write_output(&folder.path().join("out"), &[(7, 0, b"a\n")]);
        let (journal, kept) = (journal_file::path_of(&path), folder.path().join("out.cut"));
        OpenOptions::new().append(true).open(&path).unwrap().write_all(b"b\n").unwrap();
        let before = (std::fs::read(&path).unwrap(), std::fs::read(&journal).unwrap());
        let mut opened = Output::open(&path, &identity(), Fsync::Always, None).unwrap();
        opened.output.maintain(false).unwrap();
        opened.output.finish(false).unwrap();
        assert_eq!((std::fs::read(&path).unwrap(), std::fs::read(&journal).unwrap()), before);
        assert!(!kept.exists());
        opened.output.commit(&batch(&[(7, 2, b"c\n")])).unwrap();
        assert_eq!(
            (std::fs::read(&path).unwrap(), std::fs::read(&kept).unwrap()),
            (b"a\nc\n".to_vec(), b"b\n".to_vec())
        );
    }

    #[test]
    fn a_second_writer_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        let first = open(&path);
        assert!(config_error(&path).contains("another writer"));
        // Also under another name, with a journal of its own.
        std::os::unix::fs::symlink(&path, folder.path().join("alias")).unwrap();
        assert!(config_error(&folder.path().join("alias")).contains("another writer"));
        drop(first);
        open(&path);
    }

    #[test]
    fn impossible_outputs_are_refused_with_one_line() {
        let folder = tempfile::tempdir().unwrap();
        assert!(config_error(&folder.path().join("no/such/out")).contains("its folder does not exist"));
        assert!(config_error(folder.path()).contains("it is a folder"));
        assert!(config_error(Path::new("/dev/null")).contains("it is a device"));
        let fifo = folder.path().join("fifo");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0).unwrap();
        assert!(config_error(&fifo).contains("it is a pipe"));
        let socket = folder.path().join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        assert!(config_error(&socket).contains("it is a socket"));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2, "nothing was created");
        let path = folder.path().join("out");
        std::fs::write(journal_file::path_of(&path), "dear diary, today I wrote some notes").unwrap();
        let text = config_error(&path);
        assert!(text.contains("out.journal") && text.contains("not those of a commit journal"), "{text}");
        assert!(std::fs::read(journal_file::path_of(&path)).unwrap().starts_with(b"dear diary"), "not changed");
    }
}
