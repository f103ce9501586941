//! The output of a simulated writer: performs the effects of [`delivery::output`], one at a time.

use crate::filesystem::{Errno, FileSystem, Inode};
use delivery::consumer::Batch;
use delivery::entry::Span;
use delivery::output::{self, Answer, Effect, FileStates, Folder, Job, Ledger, Outcome, Place, cut_of, journal_of};

/// The folder of all outputs.
pub const FOLDER: &str = "out";

/// The path of a file in the folder.
#[must_use]
pub fn path(name: &[u8]) -> String {
    format!("{FOLDER}/{}", String::from_utf8_lossy(name))
}

/// The folder of the outputs, for a starting writer.
pub struct StartupFolder<'a> {
    /// The files.
    pub files: &'a mut FileSystem,
    /// The writer's process.
    pub process: u32,
}

impl Folder for StartupFolder<'_> {
    type Error = Errno;

    fn names(&mut self) -> Result<Vec<Vec<u8>>, Errno> {
        let files = self.files.list(FOLDER)?;
        Ok(files.into_iter().filter_map(|(path, _)| path.rsplit_once('/')).map(|(_, name)| name.into()).collect())
    }

    fn len(&mut self, name: &[u8]) -> Result<Option<u64>, Errno> {
        Ok(self.files.at(&path(name)).map(crate::filesystem::File::len))
    }

    fn read(&mut self, name: &[u8], most: u64) -> Result<Option<Vec<u8>>, Errno> {
        match self.files.resolve(&path(name)) {
            Ok(inode) => self.files.read(inode, 0..most).map(Some),
            Err(_) => Ok(None),
        }
    }

    fn hash(&mut self, name: &[u8], span: Span) -> Result<Option<u64>, Errno> {
        let Ok(inode) = self.files.resolve(&path(name)) else { return Ok(None) };
        let bytes = self.files.read(inode, span.clone())?;
        Ok((bytes.len() as u64 == span.end.saturating_sub(span.start)).then(|| delivery::hash(&bytes)))
    }

    fn is_locked(&mut self, name: &[u8]) -> Result<bool, Errno> {
        let holder = self.files.resolve(&path(name)).ok().and_then(|inode| self.files.lock_holder(inode));
        Ok(holder.is_some_and(|holder| holder != self.process))
    }
}

/// An open output.
#[derive(Debug)]
pub struct Open {
    name: Vec<u8>,
    process: u32,
    file: Inode,
    journal: Inode,
    /// The state machine of the output.
    pub ledger: Ledger,
    next: Option<Effect>,
    /// The batch that is being committed.
    pub committing: Option<Batch>,
}

impl Open {
    /// Opens both files, and creates missing ones. `at`: the current name of the output. `None` if
    /// another process has them open.
    pub fn new(files: &mut FileSystem, name: &[u8], at: &[u8], process: u32, ledger: Ledger) -> Option<Self> {
        let file = files.create(&path(at));
        let journal = files.create(&path(&journal_of(name)));
        if !files.lock(file, process) || !files.lock(journal, process) {
            return None;
        }
        let mut open = Self { name: name.to_vec(), process, file, journal, ledger, next: None, committing: None };
        open.begin(Job::Recover);
        Some(open)
    }

    /// The inode of the output.
    #[must_use]
    pub const fn inode(&self) -> Inode {
        self.file
    }

    /// Whether no job is running.
    #[must_use]
    pub const fn is_idle(&self) -> bool {
        self.next.is_none()
    }

    /// Starts a job.
    pub fn begin(&mut self, job: Job) {
        self.next = Some(self.ledger.begin(job));
    }

    /// Accepts a batch to commit.
    pub fn receive(&mut self, batch: Batch) {
        self.committing = Some(batch);
    }

    /// Starts to commit a batch.
    fn commit(&mut self, batch: Batch, sync: bool) {
        let runs = batch.runs.iter().map(|run| (run.file_id, run.span.clone(), run.lines));
        self.ledger.prepare(runs, &batch.data);
        self.committing = Some(batch);
        self.begin(Job::Commit { sync });
    }

    /// Starts to commit the accepted batch, or retries the failed one.
    pub fn commit_received(&mut self, sync: bool) {
        if let Some(batch) = self.committing.take() {
            self.commit(batch, sync);
        }
    }

    /// Performs one effect. Returns the outcome when the job has ended.
    pub fn step(&mut self, files: &mut FileSystem) -> Option<Outcome> {
        let effect = self.next.take()?;
        if let Effect::End(outcome) = effect {
            return Some(outcome);
        }
        let answer = self.perform(files, &effect).unwrap_or(Answer::Failed);
        self.next = Some(self.ledger.on(answer));
        None
    }

    fn perform(&mut self, files: &mut FileSystem, effect: &Effect) -> Result<Answer, Errno> {
        match effect {
            Effect::Inspect => return Ok(Answer::Inspected(self.inspect(files))),
            Effect::CutBack { output, journal } => {
                for (inode, len) in [(self.file, Some(*output)), (self.journal, *journal)] {
                    if let Some(len) = len
                        && files.file(inode).is_some_and(|file| file.len() > len)
                    {
                        files.set_len(inode, len);
                    }
                }
            }
            Effect::Keep(span) => {
                let inode = files.create(&path(&cut_of(&self.name)));
                let bytes = files.read(self.file, span.clone())?;
                files.append(inode, &bytes);
            }
            Effect::WriteAgain(span) => {
                let bytes = files.read(self.file, span.clone())?;
                files.write(self.file, span.start, &bytes)?;
                files.sync(self.file)?;
            }
            Effect::HashTail(span) => return Ok(Answer::Hash(delivery::hash(&files.read(self.file, span.clone())?))),
            Effect::ReplaceJournal { .. } => {
                let own = path(&journal_of(&self.name));
                let new = format!("{own}.new");
                let _ = files.unlink(&new);
                let inode = files.create(&new);
                files.lock(inode, self.process);
                files.write(inode, 0, self.ledger.journal_bytes())?;
                files.sync(inode)?;
                files.rename(&new, &own)?;
                self.journal = inode;
                files.sync_folder(FOLDER)?;
            }
            Effect::AppendJournal { at, sync } => {
                files.write(self.journal, *at, self.ledger.journal_bytes())?;
                if *sync {
                    files.sync(self.journal)?;
                }
            }
            Effect::AppendOutput { at } => {
                let data = self.committing.as_ref().map(|batch| batch.data.as_slice()).unwrap_or_default();
                files.write(self.file, *at, data)?;
            }
            Effect::Sync => {
                files.sync(self.file)?;
                files.sync(self.journal)?;
            }
            Effect::MoveJournal => {
                let became = files.names_of(self.file).next().map(str::to_owned).ok_or(Errno::NotFound)?;
                files.rename(&path(&journal_of(&self.name)), &format!("{became}.journal"))?;
                files.sync_folder(FOLDER)?;
            }
            Effect::End(_) => {}
        }
        Ok(Answer::Done)
    }

    fn inspect(&self, files: &FileSystem) -> FileStates {
        let is_at = |name: &[u8], inode| files.resolve(&path(name)) == Ok(inode);
        let place = if is_at(&self.name, self.file) {
            Place::Here
        } else if files.names_of(self.file).next().is_some() {
            Place::Renamed
        } else {
            Place::Gone
        };
        let journal = is_at(&journal_of(&self.name), self.journal).then(|| files.file(self.journal)).flatten();
        FileStates {
            len: files.file(self.file).map_or(0, crate::filesystem::File::len),
            place,
            journal_len: journal.map(crate::filesystem::File::len),
        }
    }
}

/// Decides what to do with an output at startup.
///
/// # Errors
/// Errors of the disk.
pub fn startup(
    files: &mut FileSystem,
    process: u32,
    name: &[u8],
    identity: &delivery::journal::Identity,
    fresh_id: u64,
) -> Result<output::Verdict, Errno> {
    output::startup(&mut StartupFolder { files, process }, name, identity, fresh_id)
}
