//! Outputs that were renamed (rotated), and the journals that belong to them.
//!
//! A journal goes where its output goes: `output.txt` that became `output.txt.1` has `output.txt.1.journal`. What rotated journals say is held
//! still counts as held, so that nothing is written a second time.

use crate::journal_file::{path_of, sync_folder_of};
use crate::output::hash_of;
use delivery::journal::{Parsed, Record};
use delivery::ranges::RangeSet;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// The regular files beside an output, the output itself left out.
fn beside(output: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder_of(output))? {
        let entry = entry?;
        if entry.file_type()?.is_file() && Some(entry.file_name().as_os_str()) != output.file_name() {
            files.push(entry.path());
        }
    }
    Ok(files)
}

/// Where in its folder this open file is now, when its name is not `output` any more.
pub(crate) fn moved_to(file: &File, output: &Path) -> io::Result<Option<PathBuf>> {
    let here = file.metadata()?;
    let is_it = |path: &PathBuf| {
        std::fs::symlink_metadata(path).is_ok_and(|there| (there.dev(), there.ino()) == (here.dev(), here.ino()))
    };
    Ok(beside(output)?.into_iter().find(is_it))
}

/// Moves the journal of `output` beside the file that the output became. Where a journal lies already, it gets a name of its own, with which it
/// still tells what is held, and `writer verify` does not find it.
pub(crate) fn move_journal(output: &Path, became: &Path) -> io::Result<PathBuf> {
    let mut to = path_of(became);
    if to.exists() || !starts_with_name(&to, output) {
        let millis = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis());
        let mut name = OsString::from(output);
        name.push(format!(".{millis}.journal"));
        to = PathBuf::from(name);
    }
    std::fs::rename(path_of(output), &to)?;
    sync_folder_of(output)?;
    Ok(to)
}

fn starts_with_name(journal: &Path, output: &Path) -> bool {
    let (Some(journal), Some(output)) = (journal.file_name(), output.file_name()) else { return false };
    let prefix = [output.as_bytes(), b"."].concat();
    journal.as_bytes().starts_with(&prefix)
}

/// An output that was renamed while no writer ran: its journal goes with it. What it became.
pub(crate) fn adopt(output: &Path) -> io::Result<Option<PathBuf>> {
    // What is wrong with it is told by whoever opens it.
    let Ok(journal) = std::fs::read(path_of(output)) else { return Ok(None) };
    let Ok(Some(parsed)) = Parsed::read(&journal) else { return Ok(None) };
    let Some(last) = parsed.records.iter().rev().find(|record| !record.is_mark()) else { return Ok(None) };
    if holds(output, last)? {
        return Ok(None);
    }
    for path in beside(output)? {
        if starts_with_name(&path, output) && !path_of(&path).exists() && holds(&path, last)? {
            move_journal(output, &path)?;
            return Ok(Some(path));
        }
    }
    Ok(None)
}

/// Whether a file holds the bytes of a record where it says.
fn holds(path: &Path, record: &Record) -> io::Result<bool> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    let span = record.offset..record.output_end();
    Ok(file.metadata()?.len() >= span.end && hash_of(&file)(span)? == record.data_hash)
}

/// Adds what the journals of rotated outputs say.
pub(crate) fn add_rotated(output: &Path, held: &mut BTreeMap<u64, RangeSet>) -> io::Result<()> {
    for path in beside(output)? {
        let is_journal = path.extension().is_some_and(|extension| extension == "journal");
        if !is_journal || path == path_of(output) || !starts_with_name(&path, output) {
            continue;
        }
        let Ok(Some(parsed)) = Parsed::read(&std::fs::read(&path)?) else {
            log::warn!("{}: not a journal, or an empty one; left alone", path.display());
            continue;
        };
        for record in parsed.records.into_iter().filter(|record| !record.is_mark()) {
            held.entry(record.root).or_default().insert(record.span);
        }
    }
    Ok(())
}
