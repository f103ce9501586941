//! A simulated file system: inodes, names, open handles, and the effects of a power loss.
//!
//! The input's folder and each writer's folder are file systems of their own. A name leads to an
//! inode or, as a symbolic link, to another path. An inode exists as long as a name or a handle
//! leads to it. Its number is then free, and the next file gets it, as on ext4. The folder of a
//! path is the part before its last slash; folders exist implicitly.
//!
//! Writes are visible at once, and durable after a sync. At a power loss, a random part of each
//! unsynced write has reached the disk, and a name changed without a sync of its folder may revert
//! to its old state.

use crate::random::Random;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// The number of an inode.
pub type Inode = u64;

/// The content in an inode, by the oracle's numbering.
pub type ContentId = usize;

/// Why an operation failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Errno {
    /// No such file.
    NotFound,
    /// Permission denied.
    Denied,
    /// No space left on device.
    NoSpace,
    /// Input/output error.
    Io,
    /// Too many links, or a link to itself.
    Loop,
}

/// The target of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Name {
    File(Inode),
    Link(String),
}

/// A file.
#[derive(Debug, Clone, Default)]
pub struct File {
    bytes: Vec<u8>,
    /// The last modification, in milliseconds on the file system's clock.
    pub modified: u64,
    /// The last change of its name or its bytes.
    pub changed: u64,
    /// The creation time.
    pub created: u64,
    /// Whether the services may read the file.
    pub readable: bool,
    /// The application's content that its bytes belong to; they are a prefix of it.
    pub content: Option<ContentId>,
    /// Whether the file is compressed: [`PACKED`], followed by the bytes of the content.
    pub packed: bool,
    /// The change counter of the file system at the latest change of the file's bytes.
    pub version: u64,
    handles: u32,
    /// The number of handles held by services.
    served: u32,
    /// The process that holds the file's lock.
    locked_by: Option<u32>,
    durable: Vec<u8>,
    /// Ranges written and not synced yet.
    unsynced: Vec<Range<usize>>,
}

/// The first bytes of a compressed file (those of gzip). The simulated compressor stores the rest
/// unchanged.
pub const PACKED: [u8; 2] = [0x1f, 0x8b];

impl File {
    /// The current bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The bytes as the application wrote them: decompressed.
    #[must_use]
    pub fn plain(&self) -> &[u8] {
        if self.packed { self.bytes.get(PACKED.len()..).unwrap_or_default() } else { &self.bytes }
    }

    /// The length in bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Whether the file is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Whether a service has the file open.
    #[must_use]
    pub const fn is_served(&self) -> bool {
        self.served > 0
    }

    /// Whether all of it would survive a power loss.
    #[must_use]
    pub fn is_durable(&self) -> bool {
        self.bytes == self.durable
    }
}

/// A fault of the next matching operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskFault {
    /// A write stores a part of its bytes and fails: the disk is full.
    Full,
    /// A sync fails, and the system marks the unsynced bytes as clean.
    Sync,
    /// A read fails.
    Read,
}

/// The files of one machine.
#[derive(Debug, Clone, Default)]
pub struct FileSystem {
    files: BTreeMap<Inode, File>,
    names: BTreeMap<String, Name>,
    /// The names at the latest sync of their folder.
    durable_names: BTreeMap<String, Name>,
    freed: BTreeSet<Inode>,
    next: Inode,
    changes: u64,
    /// The number of closed handles of services.
    pub closed: u64,
    unlistable: BTreeSet<String>,
    /// The clock for file times, in milliseconds.
    pub now: u64,
    /// The fault of the next operation of that kind.
    pub fault: Option<DiskFault>,
    /// Whether power losses are simulated; otherwise durability is not tracked.
    keeps_durable: bool,
}

/// The folder of a path.
#[must_use]
pub fn folder_of(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(folder, _)| folder)
}

impl FileSystem {
    /// An empty file system. `keeps_durable`: whether power losses will be simulated.
    #[must_use]
    pub fn new(now: u64, keeps_durable: bool) -> Self {
        Self { now, keeps_durable, next: 10, ..Self::default() }
    }

    // Names.

    /// The inode that a path leads to, through symbolic links.
    ///
    /// # Errors
    /// When there is none.
    pub fn resolve(&self, path: &str) -> Result<Inode, Errno> {
        let mut at = path;
        for _ in 0..8 {
            match self.names.get(at) {
                Some(Name::File(inode)) => return Ok(*inode),
                Some(Name::Link(target)) => at = target,
                None => return Err(Errno::NotFound),
            }
        }
        Err(Errno::Loop)
    }

    /// The path after resolving symbolic links; `None` for a dangling link.
    #[must_use]
    pub fn canonical(&self, path: &str) -> Option<String> {
        let mut at = path;
        for _ in 0..8 {
            match self.names.get(at)? {
                Name::File(_) => return Some(at.to_owned()),
                Name::Link(target) => at = target,
            }
        }
        None
    }

    /// Whether the name exists, as a file or a link.
    #[must_use]
    pub fn exists(&self, path: &str) -> bool {
        self.names.contains_key(path)
    }

    /// The target of a symbolic link; `None` if the name is not a link.
    #[must_use]
    pub fn link_target(&self, path: &str) -> Option<&str> {
        match self.names.get(path) {
            Some(Name::Link(target)) => Some(target),
            _ => None,
        }
    }

    /// The regular files in a folder: path and inode, by name.
    ///
    /// # Errors
    /// If the folder may not be listed.
    pub fn list(&self, folder: &str) -> Result<Vec<(&str, Inode)>, Errno> {
        if self.unlistable.contains(folder) {
            return Err(Errno::Denied);
        }
        let files = self.names.iter().filter(|(path, _)| folder_of(path) == folder);
        Ok(files
            .filter_map(|(path, name)| if let Name::File(i) = name { Some((path.as_str(), *i)) } else { None })
            .collect())
    }

    /// All names of files and links.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.names.keys().map(String::as_str)
    }

    /// All names of an inode, without symbolic links.
    pub fn names_of(&self, inode: Inode) -> impl Iterator<Item = &str> {
        self.names.iter().filter(move |(_, name)| **name == Name::File(inode)).map(|(path, _)| path.as_str())
    }

    /// Allows or forbids listing a folder.
    pub fn set_listable(&mut self, folder: &str, listable: bool) {
        if listable {
            self.unlistable.remove(folder);
        } else {
            self.unlistable.insert(folder.to_owned());
        }
    }

    /// Creates an empty file, or returns the existing one.
    pub fn create(&mut self, path: &str) -> Inode {
        match self.resolve(path) {
            Ok(inode) => inode,
            Err(_) => {
                let at = self.link_target(path).unwrap_or(path).to_owned();
                let inode = self.allocate();
                self.point(&at, Some(Name::File(inode)));
                inode
            }
        }
    }

    fn allocate(&mut self) -> Inode {
        let inode = self.freed.pop_first().unwrap_or_else(|| {
            self.next += 1;
            self.next
        });
        let file = File { readable: true, modified: self.now, changed: self.now, created: self.now, ..File::default() };
        self.files.insert(inode, file);
        inode
    }

    /// Changes the target of a name, and frees an inode without names or handles.
    fn point(&mut self, path: &str, name: Option<Name>) {
        let old = match name {
            Some(name) => self.names.insert(path.to_owned(), name),
            None => self.names.remove(path),
        };
        if let Some(Name::File(inode)) = old {
            self.free(inode);
        }
    }

    fn free(&mut self, inode: Inode) {
        let named = |names: &BTreeMap<String, Name>| names.values().any(|name| *name == Name::File(inode));
        let open = self.files.get(&inode).is_some_and(|file| file.handles > 0);
        if !open && !named(&self.names) && !named(&self.durable_names) && self.files.remove(&inode).is_some() {
            self.freed.insert(inode);
        }
    }

    /// Renames a file, and replaces a file with the new name.
    ///
    /// # Errors
    /// If the name does not exist.
    pub fn rename(&mut self, from: &str, to: &str) -> Result<(), Errno> {
        let name = self.names.get(from).cloned().ok_or(Errno::NotFound)?;
        if self.names.get(to) == Some(&name) {
            return Ok(());
        }
        if let Name::File(inode) = name
            && let Some(file) = self.files.get_mut(&inode)
        {
            file.changed = self.now;
        }
        self.point(to, Some(name));
        self.names.remove(from);
        Ok(())
    }

    /// Adds a hard link to a file.
    ///
    /// # Errors
    /// If the file does not exist.
    pub fn link(&mut self, path: &str, further: &str) -> Result<(), Errno> {
        let inode = self.resolve(path)?;
        self.point(further, Some(Name::File(inode)));
        Ok(())
    }

    /// Creates a symbolic link, or replaces an existing one.
    pub fn symlink(&mut self, target: &str, path: &str) {
        self.point(path, Some(Name::Link(target.to_owned())));
    }

    /// Removes a name.
    ///
    /// # Errors
    /// If the name does not exist.
    pub fn unlink(&mut self, path: &str) -> Result<(), Errno> {
        if !self.exists(path) {
            return Err(Errno::NotFound);
        }
        self.point(path, None);
        Ok(())
    }

    // Handles.

    /// Opens a file as a service does.
    ///
    /// # Errors
    /// If the file does not exist, or services may not read it.
    pub fn open(&mut self, path: &str) -> Result<Inode, Errno> {
        let inode = self.resolve(path)?;
        if !self.file(inode).is_some_and(|file| file.readable) {
            return Err(Errno::Denied);
        }
        self.hold(inode);
        if let Some(file) = self.files.get_mut(&inode) {
            file.served += 1;
        }
        Ok(inode)
    }

    /// Adds a handle to a file that a service has open; returns false if none has.
    pub fn serve(&mut self, inode: Inode) -> bool {
        match self.files.get_mut(&inode) {
            Some(file) if file.served > 0 => {
                (file.handles, file.served) = (file.handles + 1, file.served + 1);
                true
            }
            _ => false,
        }
    }

    /// Adds a handle to a file as a program does.
    pub fn hold(&mut self, inode: Inode) {
        if let Some(file) = self.files.get_mut(&inode) {
            file.handles += 1;
        }
    }

    /// Closes a handle from [`open`](Self::open).
    pub fn close_served(&mut self, inode: Inode) {
        self.closed += 1;
        if let Some(file) = self.files.get_mut(&inode) {
            file.served = file.served.saturating_sub(1);
        }
        self.close(inode);
    }

    /// Closes a handle of a program.
    pub fn close(&mut self, inode: Inode) {
        if let Some(file) = self.files.get_mut(&inode) {
            file.handles = file.handles.saturating_sub(1);
        }
        self.free(inode);
    }

    /// Locks a file for a process; returns false if another process holds the lock.
    pub fn lock(&mut self, inode: Inode, process: u32) -> bool {
        let Some(file) = self.files.get_mut(&inode) else { return false };
        *file.locked_by.get_or_insert(process) == process
    }

    /// The process that holds the lock of a file.
    #[must_use]
    pub fn lock_holder(&self, inode: Inode) -> Option<u32> {
        self.file(inode)?.locked_by
    }

    /// Releases all locks of a process.
    pub fn unlock_all(&mut self, process: u32) {
        for file in self.files.values_mut().filter(|file| file.locked_by == Some(process)) {
            file.locked_by = None;
        }
    }

    // Files.

    /// A file by its inode.
    #[must_use]
    pub fn file(&self, inode: Inode) -> Option<&File> {
        self.files.get(&inode)
    }

    /// A mutable reference to a file by its inode.
    pub fn file_mut(&mut self, inode: Inode) -> Option<&mut File> {
        self.files.get_mut(&inode)
    }

    /// A file by its path.
    #[must_use]
    pub fn at(&self, path: &str) -> Option<&File> {
        self.file(self.resolve(path).ok()?)
    }

    /// All files that a name or a handle leads to.
    pub fn files(&self) -> impl Iterator<Item = (Inode, &File)> {
        self.files.iter().map(|(inode, file)| (*inode, file))
    }

    /// Reads a range of a file, or fewer bytes at its end.
    ///
    /// # Errors
    /// If the disk has a read fault.
    pub fn read(&mut self, inode: Inode, range: Range<u64>) -> Result<Vec<u8>, Errno> {
        self.meet(DiskFault::Read, Errno::Io)?;
        let bytes = self.file(inode).ok_or(Errno::NotFound)?.plain();
        let at = |offset: u64| usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
        Ok(bytes.get(at(range.start)..at(range.end)).unwrap_or_default().to_vec())
    }

    fn meet(&mut self, fault: DiskFault, errno: Errno) -> Result<(), Errno> {
        if self.fault == Some(fault) {
            self.fault = None;
            return Err(errno);
        }
        Ok(())
    }

    /// Appends to a file.
    pub fn append(&mut self, inode: Inode, bytes: &[u8]) {
        let end = self.file(inode).map_or(0, File::len);
        let _ = self.write(inode, end, bytes);
    }

    /// Writes at an offset, and extends the file if necessary.
    ///
    /// # Errors
    /// If the disk is full. The file then has the first half of the bytes.
    pub fn write(&mut self, inode: Inode, offset: u64, bytes: &[u8]) -> Result<(), Errno> {
        let met = self.meet(DiskFault::Full, Errno::NoSpace);
        let taken = if met.is_err() { &bytes[..bytes.len() / 2] } else { bytes };
        let (now, keeps) = (self.now, self.keeps_durable);
        self.changes += 1;
        let version = self.changes;
        let file = self.files.get_mut(&inode).ok_or(Errno::NotFound)?;
        file.version = version;
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let end = start + taken.len();
        if file.bytes.len() < end {
            file.bytes.resize(end, 0);
        }
        file.bytes[start..end].copy_from_slice(taken);
        (file.modified, file.changed) = (now, now);
        if keeps && start < end {
            file.unsynced.push(start..end);
        }
        met
    }

    /// Truncates a file, or extends it with zeros.
    pub fn set_len(&mut self, inode: Inode, len: u64) {
        let (now, keeps) = (self.now, self.keeps_durable);
        self.changes += 1;
        let version = self.changes;
        let Some(file) = self.files.get_mut(&inode) else { return };
        file.version = version;
        let (old, len) = (file.bytes.len(), usize::try_from(len).unwrap_or(usize::MAX));
        file.bytes.resize(len, 0);
        (file.modified, file.changed) = (now, now);
        for range in &mut file.unsynced {
            *range = range.start.min(len)..range.end.min(len);
        }
        file.unsynced.retain(|range| !range.is_empty());
        if keeps && old < len {
            file.unsynced.push(old..len);
        }
    }

    /// Overwrites a file in place, as some editors do.
    pub fn rewrite(&mut self, inode: Inode, bytes: &[u8]) {
        self.set_len(inode, 0);
        let _ = self.write(inode, 0, bytes);
    }

    /// Copies a file; the copy has the same content.
    ///
    /// # Errors
    /// If the file does not exist.
    pub fn copy(&mut self, from: &str, to: &str) -> Result<Inode, Errno> {
        let (bytes, content, packed) = {
            let file = self.at(from).ok_or(Errno::NotFound)?;
            (file.bytes.clone(), file.content, file.packed)
        };
        if self.exists(to) {
            self.unlink(to)?;
        }
        let inode = self.create(to);
        self.append(inode, &bytes);
        if let Some(file) = self.files.get_mut(&inode) {
            (file.content, file.packed) = (content, packed);
        }
        Ok(inode)
    }

    /// Compresses a file as gzip does: creates a file with a longer name, and removes the old name.
    ///
    /// # Errors
    /// If the file does not exist.
    pub fn compress(&mut self, path: &str) -> Result<Inode, Errno> {
        let (plain, content, modified, packed) = {
            let file = self.at(path).ok_or(Errno::NotFound)?;
            (file.plain().to_vec(), file.content, file.modified, file.packed)
        };
        if packed {
            return Err(Errno::NotFound);
        }
        let inode = self.create(&format!("{path}.gz"));
        self.rewrite(inode, &PACKED);
        self.append(inode, &plain);
        if let Some(file) = self.files.get_mut(&inode) {
            (file.content, file.packed, file.modified) = (content, true, modified);
        }
        self.unlink(path)?;
        Ok(inode)
    }

    // Durability.

    /// Syncs a file.
    ///
    /// # Errors
    /// If the disk has a sync fault. The unsynced bytes stay unsynced unless they are rewritten; a
    /// further sync succeeds without them.
    pub fn sync(&mut self, inode: Inode) -> Result<(), Errno> {
        let met = self.meet(DiskFault::Sync, Errno::Io);
        let Some(file) = self.files.get_mut(&inode) else { return Err(Errno::NotFound) };
        let unsynced = std::mem::take(&mut file.unsynced);
        met?;
        let len = file.bytes.len();
        file.durable.resize(len, 0);
        for range in unsynced {
            if let (Some(to), Some(from)) = (file.durable.get_mut(range.clone()), file.bytes.get(range)) {
                to.copy_from_slice(from);
            }
        }
        Ok(())
    }

    /// Syncs the names in a folder.
    ///
    /// # Errors
    /// If the disk has a sync fault.
    pub fn sync_folder(&mut self, folder: &str) -> Result<(), Errno> {
        self.meet(DiskFault::Sync, Errno::Io)?;
        let old: Vec<Inode> =
            self.durable_names.values().filter_map(|n| if let Name::File(i) = n { Some(*i) } else { None }).collect();
        self.durable_names.retain(|path, _| folder_of(path) != folder);
        let present = self.names.iter().filter(|(path, _)| folder_of(path) == folder);
        self.durable_names.extend(present.map(|(path, name)| (path.clone(), name.clone())));
        old.into_iter().for_each(|inode| self.free(inode));
        Ok(())
    }

    /// Syncs everything: the state of the machine before the simulation begins.
    pub fn settle(&mut self) {
        for file in self.files.values_mut() {
            file.durable.clone_from(&file.bytes);
            file.unsynced.clear();
        }
        self.durable_names = self.names.clone();
    }

    /// Simulates a power loss. No process has a file open.
    pub fn power_cut(&mut self, random: &mut Random) {
        // A new name often reaches the disk without a sync.
        if random.chance(50) {
            self.names = self.durable_names.clone();
        }
        self.durable_names = self.names.clone();
        for file in self.files.values_mut() {
            (file.handles, file.served, file.locked_by) = (0, 0, None);
            file.lose_unsynced(random);
        }
        let inodes: Vec<Inode> = self.files.keys().copied().collect();
        inodes.into_iter().for_each(|inode| self.free(inode));
    }

    /// Flips one bit of a file. `None`: the file has no such byte.
    pub fn flip(&mut self, inode: Inode, at: usize, bit: u32) -> Option<Flip> {
        let file = self.files.get_mut(&inode)?;
        for bytes in [&mut file.bytes, &mut file.durable] {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << (bit % 8);
            }
        }
        let around = file.bytes.get(at..)?.iter().take(32).copied().collect::<Vec<u8>>();
        (!around.is_empty()).then_some(Flip { inode, at, bit, around })
    }

    /// Reverts a flip, as an operator who restores a backup does, unless those bytes were changed
    /// since.
    pub fn flip_back(&mut self, flip: &Flip) {
        let present = self.file(flip.inode).and_then(|file| file.bytes.get(flip.at..flip.at + flip.around.len()));
        if present == Some(&flip.around[..]) {
            self.flip(flip.inode, flip.at, flip.bit);
        }
    }
}

/// A flipped bit.
#[derive(Debug, Clone)]
pub struct Flip {
    inode: Inode,
    at: usize,
    bit: u32,
    /// The bytes from there on, after the flip.
    around: Vec<u8>,
}

impl File {
    /// Decides which unsynced bytes reached the disk.
    fn lose_unsynced(&mut self, random: &mut Random) {
        /// The unit of an atomic disk write. It is small, so that simulated writes of a few bytes
        /// can be torn.
        const SECTOR: usize = 8;
        let mut disk = std::mem::take(&mut self.durable);
        let (old, new) = (disk.len(), self.bytes.len());
        // The length reaches the disk before, with, or after the bytes.
        let len = match random.below(3) {
            0 => old,
            1 => new,
            _ => old.min(new) + random.index(old.abs_diff(new) + 1),
        };
        disk.resize(len, if random.chance(50) { 0 } else { 0xa5 });
        for range in std::mem::take(&mut self.unsynced) {
            // Usually a write is either completely on the disk or not at all.
            let percent = *random.pick(&[0, 50, 100, 100]).unwrap_or(&100);
            let mut at = range.start;
            while at < range.end {
                let end = (at / SECTOR * SECTOR + SECTOR).min(range.end);
                if random.chance(percent)
                    && let (Some(to), Some(from)) = (disk.get_mut(at..end.min(len)), self.bytes.get(at..end.min(len)))
                {
                    to.copy_from_slice(from);
                }
                at = end;
            }
        }
        self.bytes.clone_from(&disk);
        self.durable = disk;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(bytes: &[u8]) -> (FileSystem, Inode) {
        let mut files = FileSystem::new(0, true);
        let inode = files.create("logs/app.log");
        files.append(inode, bytes);
        (files, inode)
    }

    #[test]
    fn a_handle_outlives_the_name() {
        let (mut files, inode) = folder(b"one\n");
        assert_eq!(files.open("logs/app.log"), Ok(inode));
        files.unlink("logs/app.log").unwrap();
        assert_eq!(files.read(inode, 0..10).unwrap(), b"one\n");
        let other = files.create("logs/app.log");
        assert_ne!(other, inode, "its number is not free while it is open");
        files.close(inode);
        assert!(files.file(inode).is_none());
        assert_eq!(files.create("logs/next.log"), inode, "a free number is given to the next file");
    }

    #[test]
    fn a_rename_takes_the_other_name_away() {
        let (mut files, inode) = folder(b"one\n");
        let target = files.create("logs/app.log.1");
        files.rename("logs/app.log", "logs/app.log.1").unwrap();
        assert_eq!(files.resolve("logs/app.log.1"), Ok(inode));
        assert!(files.file(target).is_none());
        assert_eq!(files.resolve("logs/app.log"), Err(Errno::NotFound));
    }

    #[test]
    fn hard_links_and_symbolic_links_lead_to_the_file() {
        let (mut files, inode) = folder(b"one\n");
        files.link("logs/app.log", "logs/hard").unwrap();
        files.symlink("logs/app.log", "current");
        assert_eq!(files.resolve("current"), Ok(inode));
        files.unlink("logs/app.log").unwrap();
        assert_eq!(files.resolve("current"), Err(Errno::NotFound));
        assert_eq!(files.at("logs/hard").unwrap().bytes(), b"one\n");
        files.symlink("current", "current");
        assert_eq!(files.resolve("current"), Err(Errno::Loop));
    }

    #[test]
    fn a_folder_that_may_not_be_listed_can_still_be_opened_in() {
        let (mut files, inode) = folder(b"one\n");
        files.set_listable("logs", false);
        assert_eq!(files.list("logs"), Err(Errno::Denied));
        assert_eq!(files.open("logs/app.log"), Ok(inode));
        files.file_mut(inode).unwrap().readable = false;
        assert_eq!(files.open("logs/app.log"), Err(Errno::Denied));
    }

    #[test]
    fn what_was_synced_survives_every_power_cut() {
        for seed in 0..500 {
            let (mut files, inode) = folder(b"synced, ");
            files.sync(inode).unwrap();
            files.sync_folder("logs").unwrap();
            files.append(inode, b"perhaps lost");
            files.power_cut(&mut Random::new(seed));
            let file = files.at("logs/app.log").unwrap();
            assert!(file.bytes().starts_with(b"synced, ") && file.len() <= 20, "seed {seed}");
            assert!(file.is_durable());
        }
    }

    #[test]
    fn unsynced_writes_are_lost_torn_or_kept() {
        let mut seen = BTreeSet::new();
        for seed in 0..500 {
            let (mut files, inode) = folder(b"");
            files.sync_folder("logs").unwrap();
            files.append(inode, &[b'x'; 24]);
            files.power_cut(&mut Random::new(seed));
            let bytes = files.at("logs/app.log").unwrap().bytes();
            seen.insert((bytes.len() == 24, bytes.contains(&b'x'), bytes.iter().all(|&b| b == b'x')));
        }
        assert!(seen.contains(&(true, true, true)), "kept: {seen:?}");
        assert!(seen.contains(&(false, false, true)) || seen.contains(&(false, false, false)), "lost: {seen:?}");
        assert!(seen.contains(&(true, true, false)), "torn: {seen:?}");
    }

    #[test]
    fn a_failed_sync_is_not_made_good_by_the_next() {
        let (mut files, inode) = folder(b"lost");
        files.sync_folder("logs").unwrap();
        files.fault = Some(DiskFault::Sync);
        assert_eq!(files.sync(inode), Err(Errno::Io));
        assert_eq!(files.sync(inode), Ok(()));
        assert!(!files.file(inode).unwrap().is_durable());
        files.write(inode, 0, b"lost").unwrap();
        files.sync(inode).unwrap();
        assert!(files.file(inode).unwrap().is_durable(), "written again, it is");
    }

    #[test]
    fn a_full_disk_takes_a_part() {
        let (mut files, inode) = folder(b"");
        files.fault = Some(DiskFault::Full);
        assert_eq!(files.write(inode, 0, b"abcd"), Err(Errno::NoSpace));
        assert_eq!(files.file(inode).unwrap().bytes(), b"ab");
        assert_eq!(files.write(inode, 0, b"abcd"), Ok(()));
    }

    #[test]
    fn a_rename_without_a_sync_of_the_folder_may_be_undone() {
        let mut outcomes = BTreeSet::new();
        for seed in 0..100 {
            let (mut files, inode) = folder(b"old");
            files.settle();
            let temporary = files.create("logs/app.tmp");
            files.append(temporary, b"new");
            files.sync(temporary).unwrap();
            files.rename("logs/app.tmp", "logs/app.log").unwrap();
            assert!(files.file(inode).is_some(), "the disk still has the old name");
            files.power_cut(&mut Random::new(seed));
            outcomes.insert(files.at("logs/app.log").unwrap().bytes().to_vec());
        }
        assert_eq!(outcomes.into_iter().collect::<Vec<_>>(), [b"new".to_vec(), b"old".to_vec()]);
    }

    #[test]
    fn a_compressed_copy_holds_the_same_content() {
        let (mut files, inode) = folder(b"one\n");
        files.file_mut(inode).unwrap().content = Some(3);
        let packed = files.compress("logs/app.log").unwrap();
        let file = files.at("logs/app.log.gz").unwrap();
        assert_eq!((file.plain(), file.content), (&b"one\n"[..], Some(3)));
        assert!(file.bytes().starts_with(&PACKED));
        assert!(files.compress("logs/app.log.gz").is_err());
        assert_ne!(packed, inode);
        assert!(!files.exists("logs/app.log"));
    }
}
