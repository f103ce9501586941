//! Folders that many scanners look at, each listed once for all of them.

use crate::scanner::{Listed, Listings, Name, names_in};
use crate::source_file::{self, DiskFile, Format, nanoseconds};
use delivery::source_file::SourceFile as _;
use delivery::sources::{FileId, Sources, Tree};
use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How many folders are cached. Others are listed again when needed.
const FOLDERS: usize = 256;

/// The listed folders, and whose the files in them are.
#[derive(Debug, Default)]
pub(crate) struct SharedListings {
    folders: Mutex<HashMap<PathBuf, Listing>>,
    sources: Mutex<Sources>,
}

impl SharedListings {
    /// Which files are sources, and whose the others are.
    pub(crate) fn sources(&self) -> MutexGuard<'_, Sources> {
        self.sources.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The folders as one source may see them.
#[derive(Debug)]
pub(crate) struct SourceListings {
    pub(crate) shared: Arc<SharedListings>,
    pub(crate) source: usize,
}

/// The files of this machine.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DiskTree;

impl Tree for DiskTree {
    fn file(&self, path: &Path) -> Option<FileId> {
        let metadata = std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file)?;
        let created = metadata.created().ok().and_then(|created| i64::try_from(nanoseconds(created)).ok());
        Some(FileId { inode: source_file::inode(&metadata), created })
    }

    fn head(&self, path: &Path, len: u64) -> Option<u64> {
        let file = match Format::of(path) {
            Some(format) => DiskFile::open_archive(path, format),
            None => DiskFile::open(path),
        };
        let head = file.and_then(|file| file.bytes(0, len)).ok()?;
        (head.len() as u64 == len).then(|| delivery::hash(&head))
    }
}

/// The names of a folder, sorted.
#[derive(Debug)]
struct Listing {
    listed: Listed,
    names: Vec<Name>,
    by_ino: HashMap<u64, Vec<usize>>,
}

impl Listings for SourceListings {
    fn has_input(&self) -> bool {
        self.shared.sources().has_input(self.source, &DiskTree)
    }

    fn strays(&self) -> Vec<PathBuf> {
        self.shared.sources().strays(self.source).map(Path::to_owned).collect()
    }

    fn may_have(&self, path: &Path, ino: u64) -> bool {
        self.shared.sources().may_have(self.source, path, ino, &DiskTree)
    }

    fn was_found_for_another(&self, file: &DiskFile) -> bool {
        let created = file.created().and_then(|created| i64::try_from(created).ok());
        let file = FileId { inode: file.inode(), created };
        self.shared.sources().was_found_for_another(self.source, file)
    }

    fn names(&self, folder: &Path, listed: Listed, stems: &[&str], known: &HashSet<u64>) -> io::Result<Vec<Name>> {
        let mut folders = self.shared.folders.lock().unwrap_or_else(PoisonError::into_inner);
        let is_current = listed.is_some() && folders.get(folder).is_some_and(|listing| listing.listed == listed);
        if !is_current {
            let mut names = names_in(folder)?;
            names.sort_unstable_by(|a, b| a.name.cmp(&b.name));
            let mut by_ino: HashMap<u64, Vec<usize>> = HashMap::new();
            for (index, Name { ino, .. }) in names.iter().enumerate() {
                by_ino.entry(*ino).or_default().push(index);
            }
            if folders.len() >= FOLDERS {
                folders.clear();
            }
            folders.insert(folder.to_owned(), Listing { listed, names, by_ino });
        }
        let Some(listing) = folders.get(folder) else { return Ok(Vec::new()) };
        let mut found: Vec<usize> = Vec::new();
        for stem in stems {
            let from = listing.names.partition_point(|name| name.name.as_os_str() < OsStr::new(stem));
            let alike = listing.names.iter().enumerate().skip(from);
            found.extend(
                alike.take_while(|(_, name)| name.name.as_bytes().starts_with(stem.as_bytes())).map(|(index, _)| index),
            );
        }
        found.extend(known.iter().filter_map(|ino| listing.by_ino.get(ino)).flatten());
        found.sort_unstable();
        found.dedup();
        let own = found.iter().filter_map(|index| listing.names.get(*index));
        Ok(own.filter(|name| self.may_have(&folder.join(&name.name), name.ino)).cloned().collect())
    }
}
