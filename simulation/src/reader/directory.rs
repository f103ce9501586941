//! The folder of the input for a simulated reader: open files, snapshots, and the state file.

use crate::filesystem::{ContentId, Errno, FileSystem, Inode, folder_of};
use crate::programs::INPUT;
use delivery::files::{
    self, Compared, Identified, KnownContents, Limits, Prefix, Question, ScanHistory, Sighting, Snapshot, probes,
};
use delivery::fingerprint::{Fingerprint, Span};
use delivery::manifest::Manifest;
use delivery::producer::{Directory, Stored};
use delivery::rotated_names::{NameKind, classify};
use delivery::source_file::SourceFile;
use delivery::sources::{FileId, Sources, Tree};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

/// The number of equal first bytes from which two files have the same content, in simulations.
pub const DISTINCT: u64 = 64;
/// The device of the input.
const DEVICE: u64 = 1;

/// What a reader process observed of the files, for the oracle.
#[derive(Debug, Default)]
pub struct Noted {
    /// The largest observed length of each content.
    pub seen: BTreeMap<ContentId, u64>,
    /// The content that was last read.
    pub read: Option<ContentId>,
}

/// An open file.
#[derive(Debug)]
pub struct SimulatedFile {
    files: Rc<RefCell<FileSystem>>,
    noted: Rc<RefCell<Noted>>,
    inode: Inode,
    path: String,
}

impl SourceFile for SimulatedFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let end = offset.saturating_add(buffer.len() as u64);
        let bytes = self.files.borrow_mut().read(self.inode, offset..end).map_err(error)?;
        buffer[..bytes.len()].copy_from_slice(&bytes);
        self.noted.borrow_mut().read = self.files.borrow().file(self.inode).and_then(|file| file.content);
        Ok(bytes.len())
    }

    fn len(&self) -> io::Result<u64> {
        let files = self.files.borrow();
        let file = files.file(self.inode).ok_or(io::ErrorKind::NotFound)?;
        let len = file.plain().len() as u64;
        if let Some(content) = file.content {
            let mut noted = self.noted.borrow_mut();
            let seen = noted.seen.entry(content).or_default();
            *seen = len.max(*seen);
        }
        Ok(len)
    }

    fn inode(&self) -> files::Inode {
        files::Inode { dev: DEVICE, ino: self.inode }
    }

    fn path(&self) -> String {
        self.path.clone()
    }

    fn real_path(&self) -> Option<String> {
        self.files.borrow().canonical(&self.path)
    }

    fn created(&self) -> Option<i128> {
        self.files.borrow().file(self.inode).map(|file| nanos(file.created))
    }
}

/// A timestamp of a file, as the services see it.
fn nanos(millis: u64) -> i128 {
    i128::from(millis) * 1_000_000
}

impl Drop for SimulatedFile {
    fn drop(&mut self) {
        self.files.borrow_mut().close_served(self.inode);
    }
}

fn error(errno: Errno) -> io::Error {
    match errno {
        Errno::NotFound | Errno::Loop => io::ErrorKind::NotFound.into(),
        Errno::Denied => io::ErrorKind::PermissionDenied.into(),
        Errno::NoSpace | Errno::Io => io::Error::other("input/output error"),
    }
}

/// The attributes that show whether a file is written to.
#[derive(Debug, Clone, Copy)]
struct Shape {
    len: u64,
    modified: u64,
    created: u64,
    is_input: bool,
}

impl Shape {
    /// Whether the same file was written to under another name than the input's.
    fn changed_since(&self, before: &Self) -> bool {
        !before.is_input && before.created == self.created && (before.len, before.modified) != (self.len, self.modified)
    }
}

/// The state file of a partition. All readers of a source share it.
pub type State = Rc<RefCell<Stored>>;

/// The folder, as seen by one process.
#[derive(Debug)]
pub struct SimulatedDirectory {
    files: Rc<RefCell<FileSystem>>,
    noted: Rc<RefCell<Noted>>,
    state: State,
    /// The files of the latest scan, by key: inode, path, and fingerprint.
    found: Vec<(Inode, String, Option<Fingerprint>)>,
    /// The folders of the latest scan, with the names in them.
    listed: Vec<(String, Vec<(String, Inode)>)>,
    history: ScanHistory,
    /// The state of each file at the previous scan.
    before: BTreeMap<Inode, Shape>,
    /// Known fingerprints, each with the version of the file's bytes.
    fingerprints: BTreeMap<Inode, (u64, Fingerprint)>,
    /// Whether the process is killed before the next write of its state file.
    pub dies_storing: Rc<Cell<bool>>,
    /// The path of the input.
    input: String,
    /// All sources and the number of this one, if there are many.
    among: Option<(Rc<RefCell<Sources>>, usize)>,
}

impl SimulatedDirectory {
    /// A folder with a state file.
    pub fn new(files: Rc<RefCell<FileSystem>>, noted: Rc<RefCell<Noted>>, state: State) -> Self {
        let limits = Limits { distinct: DISTINCT, ..Limits::default() };
        Self {
            files,
            noted,
            state,
            found: Vec::new(),
            listed: Vec::new(),
            history: ScanHistory::new(limits),
            before: BTreeMap::new(),
            fingerprints: BTreeMap::new(),
            dies_storing: Rc::default(),
            input: INPUT.to_owned(),
            among: None,
        }
    }

    /// The folder as one of many sources sees it.
    pub fn among(self, sources: Rc<RefCell<Sources>>, source: usize) -> Self {
        let input = sources.borrow().path(source).map(|path| path.to_string_lossy().into_owned());
        Self { input: input.unwrap_or_default(), among: Some((sources, source)), ..self }
    }

    /// The file at the path of the input, if it is this source's.
    fn own_input(&self, files: &FileSystem) -> Option<Inode> {
        let (sources, source) = self.among.as_ref().map_or((None, 0), |(sources, source)| (Some(sources), *source));
        let is_own = sources.is_none_or(|sources| sources.borrow().has_input(source, files));
        files.resolve(&self.input).ok().filter(|_| is_own)
    }

    /// Whether a file is not another source's.
    fn may_have(&self, files: &FileSystem, path: &str, inode: Inode) -> bool {
        self.among
            .as_ref()
            .is_none_or(|(sources, source)| sources.borrow_mut().may_have(*source, Path::new(path), inode, files))
    }

    /// Other paths at which files of this source are.
    fn strays(&self) -> Vec<String> {
        let sources = self.among.iter();
        let strays = |(sources, source): &(Rc<RefCell<Sources>>, usize)| {
            sources.borrow().strays(*source).map(|path| path.to_string_lossy().into_owned()).collect::<Vec<_>>()
        };
        sources.flat_map(strays).collect()
    }

    /// The candidate files: the input, its siblings, those in the target folder of a link, and open
    /// files.
    fn sightings(&mut self, known: &KnownContents, open: &[(u64, &SimulatedFile)]) -> Snapshot {
        let shared = self.files.clone();
        let files = shared.borrow();
        let mut snapshot = Snapshot::default();
        let mut listed: Vec<(String, Inode, NameKind)> = Vec::new();
        let input = self.own_input(&files);
        listed.extend(input.map(|inode| (self.input.clone(), inode, NameKind::Input)));
        let known_paths = known.contents.iter().map(|content| content.path.clone()).filter(|path| !path.is_empty());
        let mut folders: Vec<(String, String)> = Vec::new();
        let target = files.canonical(&self.input).filter(|_| input.is_some());
        for base in [self.input.clone()].into_iter().chain(target).chain(known_paths) {
            if !folders.iter().any(|(folder, _)| folder == folder_of(&base)) {
                folders.push((folder_of(&base).to_owned(), base));
            }
        }
        self.listed.clear();
        for (folder, base) in folders {
            self.listed.push((folder.clone(), names(&files, &folder)));
            match files.list(&folder) {
                Err(_) => snapshot.unlisted.push((folder, "permission denied".to_owned())),
                Ok(entries) => {
                    for (path, inode) in entries {
                        let name = |path: &str| path.rsplit_once('/').map_or(path, |(_, name)| name).to_owned();
                        if Some(inode) != input && self.may_have(&files, path, inode) {
                            listed.push((path.to_owned(), inode, classify(&name(path), &name(&base))));
                        }
                    }
                }
            }
        }
        let mut was_input: Vec<Inode> = Vec::new();
        for path in self.strays() {
            let inode = files.resolve(&path).ok().filter(|inode| self.may_have(&files, &path, *inode));
            was_input.extend(inode);
            listed.extend(inode.map(|inode| (path, inode, NameKind::Other)));
        }
        for (_, file) in open {
            listed.push((file.path.clone(), file.inode, NameKind::Unlinked));
        }
        self.found.clear();
        let seen_before = std::mem::take(&mut self.before);
        for (path, inode, name_kind) in listed {
            if self.found.iter().any(|(other, ..)| *other == inode) {
                continue;
            }
            let Some(file) = files.file(inode) else { continue };
            let state = Shape {
                len: file.len(),
                modified: file.modified,
                created: file.created,
                is_input: name_kind == NameKind::Input,
            };
            let before = seen_before.get(&inode);
            self.before.insert(inode, state);
            let held = open.iter().any(|(_, open)| open.inode == inode);
            let prints = if !file.readable && !held {
                Prefix::Unreadable("permission denied".to_owned())
            } else if file.packed {
                Prefix::Partial(Fingerprint::default())
            } else {
                let known = self.fingerprints.get(&inode).filter(|(version, _)| *version == file.version);
                let prints = known.map_or_else(|| Fingerprint::of(file.bytes()), |(_, prints)| prints.clone());
                self.fingerprints.insert(inode, (file.version, prints.clone()));
                Prefix::Whole(prints)
            };
            let whole = if let Prefix::Whole(prints) = &prints { Some(prints.clone()) } else { None };
            snapshot.sightings.push(Sighting {
                key: self.found.len(),
                path: path.clone(),
                inode: files::Inode { dev: DEVICE, ino: inode },
                name_kind,
                len: file.len(),
                modified: nanos(file.modified),
                created: Some(nanos(file.created)),
                changing: before.is_some_and(|before| state.changed_since(before)),
                was_input: was_input.contains(&inode),
                hashes: whole
                    .as_ref()
                    .map_or_else(BTreeMap::new, |prints| hashes(&probes(known, prints), file.bytes())),
                prints,
                compared: BTreeMap::new(),
            });
            self.found.push((inode, path, whole));
        }
        snapshot
    }

    fn answer(
        &mut self,
        known: &KnownContents,
        open: &[(u64, &SimulatedFile)],
        question: &Question,
        snapshot: &mut Snapshot,
    ) {
        let files = self.files.borrow();
        let bytes = |key: usize| {
            self.found.get(key).and_then(|(inode, ..)| files.file(*inode)).map(|file| file.plain().to_vec())
        };
        match question {
            Question::Unpack { key, up_to } => {
                let Some(bytes) = bytes(*key) else { return };
                let Some(sighting) = snapshot.sightings.iter_mut().find(|sighting| sighting.key == *key) else {
                    return;
                };
                match bytes.get(..usize::try_from(*up_to).unwrap_or(usize::MAX)) {
                    Some(first) => sighting.prints = Prefix::Partial(Fingerprint::of(first)),
                    None => {
                        let prints = Fingerprint::of(&bytes);
                        sighting.prints = Prefix::Whole(prints.clone());
                        sighting.hashes = hashes(&probes(known, &prints), &bytes);
                        sighting.len = bytes.len() as u64;
                        if let Some(found) = self.found.get_mut(*key) {
                            found.2 = Some(prints);
                        }
                    }
                }
            }
            Question::Compare { key, file_id, from, to, with, tail } => {
                let Some(new) = bytes(*key) else { return };
                let own = self.found.get(*key).map(|(inode, ..)| *inode);
                let held = open.iter().find(|(id, file)| id == file_id && Some(file.inode) != own);
                let old = held.and_then(|(_, file)| files.file(file.inode)).map(|file| file.plain().to_vec());
                let old = old.or_else(|| with.and_then(bytes));
                let index = |offset: u64| usize::try_from(offset).unwrap_or(usize::MAX).min(new.len());
                let range = index(*from)..index(*to);
                let same = old.map(|old| range.clone().find(|&at| old.get(at) != new.get(at)).unwrap_or(range.end));
                let line_start = new[..same.unwrap_or(range.start)].iter().rposition(|&byte| byte == b'\n');
                let tail_at = tail.as_ref().and_then(|tail| {
                    let ends = (0..=new.len()).filter(|&at| at == new.len() || at > 0 && new[at - 1] == b'\n');
                    ends.rev().find(|&at| tail.ends(&new[..at]))
                });
                let compared = Compared {
                    same_until: same.map(|at| at as u64),
                    line_start: line_start.map_or(0, |at| at as u64 + 1),
                    tail_at: tail_at.map(|at| at as u64),
                };
                if let Some(sighting) = snapshot.sightings.iter_mut().find(|sighting| sighting.key == *key) {
                    sighting.compared.insert(*file_id, compared);
                }
            }
        }
    }
}

fn names(files: &FileSystem, folder: &str) -> Vec<(String, Inode)> {
    files.list(folder).into_iter().flatten().map(|(path, inode)| (path.to_owned(), inode)).collect()
}

fn hashes(spans: &[Span], bytes: &[u8]) -> BTreeMap<Span, u64> {
    let of = |span: &Span| {
        let range = usize::try_from(span.start).ok()?..usize::try_from(span.end).ok()?;
        Some((*span, delivery::hash(bytes.get(range)?)))
    };
    spans.iter().filter_map(of).collect()
}

impl Tree for FileSystem {
    fn file(&self, path: &Path) -> Option<FileId> {
        let ino = self.resolve(path.to_str()?).ok()?;
        let created = i64::try_from(nanos(Self::file(self, ino)?.created)).ok();
        Some(FileId { inode: files::Inode { dev: DEVICE, ino }, created })
    }

    fn head(&self, path: &Path, len: u64) -> Option<u64> {
        let bytes = self.at(path.to_str()?).filter(|file| file.readable)?.plain();
        bytes.get(..usize::try_from(len).ok()?).map(delivery::hash)
    }
}

impl Directory for SimulatedDirectory {
    type File = SimulatedFile;

    fn scan(&mut self, known: &KnownContents, open: &[(u64, &SimulatedFile)], now: Duration) -> Identified {
        let mut snapshot = self.sightings(known, open);
        let mut history = std::mem::take(&mut self.history);
        let identified = files::resolve(&mut snapshot, known, &mut history, now, |question, snapshot| {
            self.answer(known, open, question, snapshot);
        });
        self.history = history;
        identified
    }

    fn has_changed(&self) -> bool {
        let files = self.files.borrow();
        self.listed.iter().any(|(folder, before)| names(&files, folder) != *before)
    }

    fn open(&mut self, key: usize) -> io::Result<SimulatedFile> {
        let (inode, path, _) = self.found.get(key).ok_or(io::ErrorKind::NotFound)?;
        let (inode, path) = (*inode, path.clone());
        // Open the file by its name. A file without a name is still open, so reuse that handle.
        let mut files = self.files.borrow_mut();
        if files.resolve(&path) == Ok(inode) {
            files.open(&path).map_err(error)?;
        } else if !files.serve(inode) {
            return Err(io::ErrorKind::NotFound.into());
        }
        drop(files);
        Ok(SimulatedFile { files: self.files.clone(), noted: self.noted.clone(), inode, path })
    }

    fn prints(&self, key: usize) -> Option<Fingerprint> {
        self.found.get(key)?.2.clone()
    }

    fn input(&mut self) -> io::Result<Option<files::Inode>> {
        Ok(self.own_input(&self.files.borrow()).map(|ino| files::Inode { dev: DEVICE, ino }))
    }

    fn load(&mut self) -> io::Result<Stored> {
        Ok(self.state.borrow().clone())
    }

    fn store(&mut self, manifest: &Manifest) -> io::Result<()> {
        if self.dies_storing.get() {
            return Err(io::Error::other("killed"));
        }
        *self.state.borrow_mut() = Stored::Manifest(Box::new(manifest.clone()));
        Ok(())
    }
}
