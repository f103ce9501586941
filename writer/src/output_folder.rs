//! The folder of an output: implements [`Folder`] for `delivery`, and renames journals after their
//! outputs.
//!
//! The journal of an output is renamed when the output is: `output.txt` renamed to `output.txt.1`
//! has `output.txt.1.journal`. Ranges in rotated outputs still count for deduplication, so nothing
//! is written twice.

use crate::file_buffer::hash_of;
use crate::journal_file::{folder_of, path_of, sync_folder_of, with_suffix};
use delivery::entry::Span;
use delivery::output::{Folder, journal_of};
use rustix::fs::{FlockOperation, flock};
use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};

/// The folder of an output.
#[derive(Debug)]
pub(crate) struct OutputFolder<'a> {
    output: &'a Path,
    others: Option<&'a Journals>,
}

/// The journals of the outputs that one process writes to, by folder. They are where their outputs
/// are, so none of them is the journal of another output that was rotated: a start looks into a
/// thousand of them only once.
#[derive(Debug, Default)]
pub(crate) struct Journals(RwLock<HashMap<PathBuf, HashSet<Vec<u8>>>>);

impl Journals {
    /// Adds the journal of an output.
    pub(crate) fn add(&self, output: &Path) {
        let mut journals = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let name = output.file_name().map_or(&b""[..], OsStr::as_bytes);
        journals.entry(folder_of(output).to_owned()).or_default().insert(journal_of(name));
    }
}

impl<'a> OutputFolder<'a> {
    /// The folder of this output.
    pub(crate) const fn new(output: &'a Path) -> Self {
        Self::among(output, None)
    }

    /// The folder of this output, without the journals of others.
    pub(crate) const fn among(output: &'a Path, others: Option<&'a Journals>) -> Self {
        Self { output, others }
    }

    /// The path of a file in the folder.
    pub(crate) fn path(&self, name: &[u8]) -> PathBuf {
        folder_of(self.output).join(OsStr::from_bytes(name))
    }

    /// The name of the output in the folder.
    pub(crate) fn name(&self) -> &[u8] {
        self.output.file_name().map_or(b"", OsStr::as_bytes)
    }

    /// Whether this is the output or its journal, without which the writer cannot work.
    fn is_own(&self, name: &[u8]) -> bool {
        name == self.name() || name == journal_of(self.name())
    }

    /// Opens a file. `None` if it does not exist, or if it is not the writer's own and permission
    /// is denied.
    fn open(&self, name: &[u8]) -> io::Result<Option<File>> {
        match File::open(self.path(name)) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied && !self.is_own(name) => {
                log::debug!("{}: {error}; ignored", self.path(name).display());
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

impl Folder for OutputFolder<'_> {
    type Error = io::Error;

    fn names(&mut self) -> io::Result<Vec<Vec<u8>>> {
        let mut names = Vec::new();
        let others = self.others.map(|others| others.0.read().unwrap_or_else(PoisonError::into_inner));
        let others = others.as_ref().and_then(|others| others.get(folder_of(self.output)));
        for entry in std::fs::read_dir(folder_of(self.output))? {
            let entry = entry?;
            let name = entry.file_name().into_vec();
            if others.is_some_and(|others| others.contains(&name)) && !self.is_own(&name) {
                continue;
            }
            // The file may have been deleted since it was listed.
            if entry.file_type().is_ok_and(|kind| kind.is_file()) {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn len(&mut self, name: &[u8]) -> io::Result<Option<u64>> {
        match std::fs::metadata(self.path(name)) {
            Ok(metadata) => Ok(Some(metadata.len())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn read(&mut self, name: &[u8], most: u64) -> io::Result<Option<Vec<u8>>> {
        let Some(file) = self.open(name)? else { return Ok(None) };
        let mut bytes = Vec::new();
        file.take(most).read_to_end(&mut bytes)?;
        Ok(Some(bytes))
    }

    fn hash(&mut self, name: &[u8], span: Span) -> io::Result<Option<u64>> {
        let Some(file) = self.open(name)? else { return Ok(None) };
        hash_of(&file, span)
    }

    fn is_locked(&mut self, name: &[u8]) -> io::Result<bool> {
        let Some(file) = self.open(name)? else { return Ok(false) };
        match flock(&file, FlockOperation::NonBlockingLockShared) {
            Ok(()) => Ok(false),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(true),
            Err(errno) => Err(errno.into()),
        }
    }
}

/// The present path of this open file in its folder, if its name is no longer that of `output`.
pub(crate) fn moved_to(file: &File, output: &Path) -> io::Result<Option<PathBuf>> {
    let here = file.metadata()?;
    let mut beside = OutputFolder::new(output);
    let is_it = |path: &PathBuf| {
        std::fs::symlink_metadata(path).is_ok_and(|there| (there.dev(), there.ino()) == (here.dev(), here.ino()))
    };
    let mut names = beside.names()?;
    names.retain(|name| name != beside.name());
    Ok(names.iter().map(|name| beside.path(name)).find(is_it))
}

/// Renames the journal of `output` after its output was renamed to `became`. If that file already
/// has a journal, this one gets a unique name: it still counts for deduplication, but `writer
/// verify` does not find it.
pub(crate) fn move_journal(output: &Path, became: &Path) -> io::Result<()> {
    let mut to = path_of(became);
    if to.exists() {
        let millis = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis());
        to = with_suffix(output, &format!(".{millis}.journal"));
    }
    std::fs::rename(path_of(output), &to)?;
    sync_folder_of(output)
}
