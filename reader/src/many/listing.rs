//! Folders that many scanners look at, each listed once for all of them.

use crate::scanner::{Listed, Listings, Name, names_in};
use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// How many folders are kept. More are listed again when they are needed.
const FOLDERS: usize = 256;

/// The listed folders, and the inputs of all sources, which no other source may take for its own.
#[derive(Debug, Default)]
pub(crate) struct SharedListings {
    folders: Mutex<HashMap<PathBuf, Listing>>,
    inputs: Mutex<HashMap<PathBuf, usize>>,
}

impl SharedListings {
    /// The inputs of all sources, and which source each is of.
    pub(crate) fn inputs(&self) -> MutexGuard<'_, HashMap<PathBuf, usize>> {
        self.inputs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The names of a folder, sorted.
#[derive(Debug)]
struct Listing {
    listed: Listed,
    names: Vec<Name>,
    by_ino: HashMap<u64, Vec<usize>>,
}

impl Listings for SharedListings {
    fn names(&self, folder: &Path, listed: Listed, stems: &[&str], known: &HashSet<u64>) -> io::Result<Vec<Name>> {
        let mut folders = self.folders.lock().unwrap_or_else(PoisonError::into_inner);
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
        let inputs = self.inputs();
        let is_free = |name: &&Name| !inputs.contains_key(&folder.join(&name.name));
        Ok(found.iter().filter_map(|index| listing.names.get(*index)).filter(is_free).cloned().collect())
    }
}
