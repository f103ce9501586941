//! Scans the folder of the input, and answers the questions of [`delivery::files`].
//!
//! A scan lists the folder of the input, the folder of the file that a link at its path leads to,
//! and the folders of known contents. It hashes the ranges that the decision needs. Hashes are
//! cached while the length and times of a file are unchanged, so a scan of an unchanged folder
//! reads nothing.

use crate::source_file::{DiskFile, Format, inode, nanoseconds};
use delivery::files::{
    self, Compared, Identified, Inode, KnownContents, Prefix, Question, ScanHistory, Sighting, Snapshot, UNNAMED,
};
use delivery::fingerprint::{Fingerprint, Span, TailChecksum};
use delivery::hash;
use delivery::rotated_names::{NameKind, RotationOrder, classify, prefix};
use delivery::source_file::SourceFile;
use rustix::io::Errno;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::{DirEntryExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// Maximum number of folders that are listed.
const FOLDERS: usize = 8;
/// Maximum number of files with unrelated names that are compared.
const OTHERS: usize = 256;
/// How much of the end of an edited file is searched for the last sent bytes: 4 MiB.
const SEARCHED: u64 = 4 << 20;
/// A file modified more recently than this may change again without getting another timestamp.
const COARSE: Duration = Duration::from_millis(100);

/// From this many names on, a folder is read in several parts: the system returns 32 KiB at a time,
/// and a name takes at most 280 bytes.
const SEVERAL_PARTS: usize = 117;
/// How often a large folder that changes all the time is listed for one scan.
const LISTINGS: usize = 3;

/// Scans the folder of an input.
#[derive(Debug)]
pub(crate) struct Scanner {
    input: PathBuf,
    /// The files of the latest scan, by key.
    files: Vec<ListedFile>,
    measured: HashMap<Inode, Measured>,
    /// The folders of the latest scan, with their times before they were listed.
    folders: Vec<(PathBuf, Listed)>,
    history: ScanHistory,
    /// Files of the latest scan that were found at the input's path before the source began.
    was_input: HashSet<Inode>,
    /// With many files: what all sources know of the folders.
    listings: Option<Arc<dyn Listings>>,
}

/// Folders that many scanners look at: each is listed once for all of them.
pub(crate) trait Listings: std::fmt::Debug + Send + Sync {
    /// The names in a folder that begin with one of `stems`, and those of the files `known`, with
    /// their inodes; without those that are inputs of other sources.
    ///
    /// # Errors
    /// The error of the file system.
    fn names(&self, folder: &Path, listed: Listed, stems: &[&str], known: &HashSet<u64>) -> io::Result<Vec<Name>>;

    /// Whether the file at the input's path is this source's own.
    fn has_input(&self) -> bool;

    /// Other paths at which files of this source are.
    fn strays(&self) -> Vec<PathBuf>;

    /// Whether a file with this name and inode may belong to this source, and to no other one.
    fn may_have(&self, path: &Path, ino: u64) -> bool;

    /// Whether an open file that was not read yet was found for another source since.
    fn was_found_for_another(&self, file: &DiskFile) -> bool;
}

/// A name in a folder.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Name {
    pub(crate) name: OsString,
    pub(crate) ino: u64,
}

/// When a name was last added to or removed from a folder. `None`: unreliable, because a later
/// change may have the same time.
pub(crate) type Listed = Option<SystemTime>;

/// A file of the latest scan.
#[derive(Debug)]
struct ListedFile {
    path: PathBuf,
    inode: Inode,
    format: Option<Format>,
    /// It is an archive at the input's path: what can be read of it counts, also when it is
    /// damaged.
    is_archive: bool,
    /// The file has no name any more.
    unlinked: Option<DiskFile>,
}

impl ListedFile {
    fn open(&self) -> io::Result<DiskFile> {
        match (&self.unlinked, self.format) {
            (Some(file), _) => Ok(file.share()),
            (None, Some(format)) if self.is_archive => DiskFile::open_archive(&self.path, format),
            (None, Some(format)) => DiskFile::open_compressed(&self.path, format),
            (None, None) => DiskFile::open(&self.path),
        }
    }
}

/// The attributes that identify the state of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct State {
    len: u64,
    modified: i128,
    changed: (i64, i64),
}

impl State {
    fn of(metadata: &Metadata) -> Self {
        let modified = metadata.modified().map_or(0, nanoseconds);
        Self { len: metadata.len(), modified, changed: (metadata.ctime(), metadata.ctime_nsec()) }
    }
}

impl State {
    /// Whether the file was written to. A rename changes `ctime` only.
    fn is_written_since(self, now: Self) -> bool {
        (self.len, self.modified) != (now.len, now.modified)
    }
}

/// The hashes of a file in one state.
#[derive(Debug)]
struct Measured {
    state: State,
    created: Option<i128>,
    /// Whether the file had a name given by log rotation.
    rotated: bool,
    /// Whether it was hashed so soon after a change that the next change may have the same times.
    unsure: bool,
    prints: Prefix,
    hashes: BTreeMap<Span, u64>,
    /// The decompressed length of a compressed file, if known.
    unpacked: Option<u64>,
    /// Whether it is compressed, and no system error was why it could not be read.
    is_damaged: bool,
    compared: Vec<(Question, Compared)>,
}

/// When a folder was last changed, if no later change can have the same time.
fn listed_of(folder: &Path) -> Listed {
    let modified = fs::metadata(folder).and_then(|metadata| metadata.modified()).ok()?;
    modified.elapsed().is_ok_and(|age| age >= COARSE).then_some(modified)
}

/// A name in one of the folders.
struct Candidate {
    path: PathBuf,
    name_kind: NameKind,
}

impl Scanner {
    /// `input` must be absolute; its last component may be a symbolic link.
    pub(crate) fn new(input: PathBuf) -> Self {
        let history = ScanHistory::default();
        Self {
            input,
            files: Vec::new(),
            measured: HashMap::new(),
            folders: Vec::new(),
            history,
            was_input: HashSet::new(),
            listings: None,
        }
    }

    /// A scanner that shares what is known of folders.
    pub(crate) fn sharing(input: PathBuf, listings: Arc<dyn Listings>) -> Self {
        Self { listings: Some(listings), ..Self::new(input) }
    }

    pub(crate) fn input(&self) -> &Path {
        &self.input
    }

    /// Whether the file at the input's path, if there is one, is not another source's.
    pub(crate) fn has_input(&self) -> bool {
        self.listings.as_ref().is_none_or(|listings| listings.has_input())
    }

    /// Determines which file holds which content. `open` are the files that are already open, by
    /// file ID.
    pub(crate) fn scan(&mut self, known: &KnownContents, open: &[(u64, &DiskFile)], now: Duration) -> Identified {
        let mut snapshot = self.snapshot(known, open);
        let mut history = std::mem::take(&mut self.history);
        let identified = files::resolve(&mut snapshot, known, &mut history, now, |question, snapshot| {
            self.answer(question, snapshot, known, open);
        });
        self.history = history;
        identified
    }

    /// Whether names may have been added or removed since the latest scan.
    pub(crate) fn has_changed(&self) -> bool {
        self.folders.iter().any(|(folder, listed)| listed.is_none() || listed_of(folder) != *listed)
    }

    /// Whether the next scan may decompress a file: with many files, the input may be compressed,
    /// or a file beside it whose name begins like it.
    pub(crate) fn may_decompress(&self) -> bool {
        let Some(listings) = &self.listings else { return false };
        if Format::of(&self.input).is_some() {
            return true;
        }
        if !self.folders.is_empty() && !self.has_changed() {
            return false;
        }
        let (Some(folder), Some(name)) = (self.input.parent(), name_of(&self.input)) else { return false };
        let names = listings.names(folder, listed_of(folder), &[prefix(&name)], &HashSet::new());
        names.is_ok_and(|names| names.iter().any(|one| Format::of(Path::new(&one.name)).is_some()))
    }

    /// Opens a file of the latest scan.
    pub(crate) fn open(&self, key: usize) -> io::Result<DiskFile> {
        let seen = self.files.get(key).ok_or(Errno::NOENT)?;
        let known = self.measured.get(&seen.inode);
        let file = seen.open()?.with_unpacked_len(known.and_then(|known| known.unpacked));
        // Another file may have its name by now, and also its inode.
        let is_same = file.inode() == seen.inode && known.is_none_or(|known| known.created == file.created());
        if is_same { Ok(file) } else { Err(Errno::NOENT.into()) }
    }

    /// The fingerprint of a file of the latest scan.
    pub(crate) fn prints(&self, key: usize) -> Option<&Fingerprint> {
        match &self.measured.get(&self.files.get(key)?.inode)?.prints {
            Prefix::Whole(prints) | Prefix::Partial(prints) => Some(prints),
            Prefix::Unreadable(_) => None,
        }
    }

    fn snapshot(&mut self, known: &KnownContents, open: &[(u64, &DiskFile)]) -> Snapshot {
        let mut snapshot = Snapshot::default();
        self.was_input.clear();
        let candidates = self.candidates(known, &mut snapshot.unlisted);
        self.files.clear();
        let mut before = std::mem::take(&mut self.measured);
        for Candidate { path, name_kind } in candidates {
            let metadata = if name_kind == NameKind::Input { fs::metadata(&path) } else { fs::symlink_metadata(&path) };
            match metadata {
                Ok(metadata) if metadata.is_file() => {
                    let is_archive = name_kind == NameKind::Input && self.listings.is_some();
                    let format =
                        Format::of(&path).filter(|_| is_archive || matches!(name_kind, NameKind::Compressed(_)));
                    let seen = ListedFile { inode: inode(&metadata), path, format, is_archive, unlinked: None };
                    self.add(&mut snapshot, &mut before, seen, name_kind, &metadata, known);
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                faulty if name_kind == NameKind::Input => {
                    let why = faulty.map_or_else(|error| error.to_string(), |_| "not a regular file".to_owned());
                    self.add_unreadable(&mut snapshot, path, why);
                }
                _ => {}
            }
        }
        for (file_id, file) in open {
            if *file_id == UNNAMED
                && self.listings.as_ref().is_some_and(|listings| listings.was_found_for_another(file))
            {
                continue;
            }
            let listed = self.files.iter().any(|seen| seen.inode == file.inode());
            if let (false, Ok(metadata)) = (listed, file.metadata()) {
                let file = file.share();
                let path = PathBuf::from(file.path());
                let seen =
                    ListedFile { inode: file.inode(), path, format: None, is_archive: false, unlinked: Some(file) };
                self.add(&mut snapshot, &mut before, seen, NameKind::Unlinked, &metadata, known);
            }
        }
        snapshot
    }

    /// The names that may matter, the input first; the best name of a file before its other names.
    fn candidates(&mut self, known: &KnownContents, unlisted: &mut Vec<(String, String)>) -> Vec<Candidate> {
        // Names that log rotation may change: the input, the file that a link there leads to, and
        // earlier targets of that link.
        let has_input = self.has_input();
        let mut bases = vec![self.input.clone()];
        bases.extend(fs::canonicalize(&self.input).ok().filter(|_| has_input));
        let paths = known.contents.iter().rev().map(|content| &content.path);
        let mut former: Vec<PathBuf> = paths.filter(|path| !path.is_empty()).map(PathBuf::from).collect();
        let own =
            self.input.parent().and_then(|folder| Some(fs::canonicalize(folder).ok()?.join(self.input.file_name()?)));
        former.retain(|path| !bases.contains(path) && own.as_ref() != Some(path));
        bases.extend_from_slice(&former);
        let mut folders: Vec<PathBuf> = Vec::new();
        for folder in bases.iter().filter_map(|base| base.parent()) {
            let folder = fs::canonicalize(folder).unwrap_or_else(|_| folder.to_owned());
            if !folders.contains(&folder) && folders.len() < FOLDERS {
                folders.push(folder);
            }
        }
        let names: BTreeSet<String> = bases.iter().filter_map(|base| name_of(base)).collect();
        let pending = known.siblings.pending.iter().map(|file| file.ino);
        let known = known.contents.iter().filter_map(|content| content.inode).map(|inode| inode.ino);
        let known: HashSet<u64> = known.chain(self.history.inodes()).chain(pending).collect();
        let mut found = Vec::new();
        let mut others = 0;
        self.folders.clear();
        for folder in folders {
            let listed = listed_of(&folder);
            self.folders.push((folder.clone(), listed));
            let entries = match &self.listings {
                Some(listings) => {
                    let stems: Vec<&str> = names.iter().map(|base| prefix(base)).collect();
                    listings.names(&folder, listed, &stems, &known)
                }
                None => names_in(&folder),
            };
            let entries = match entries {
                Ok(entries) => entries,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => {
                    unlisted.push((folder.to_string_lossy().into_owned(), error.to_string()));
                    continue;
                }
            };
            let journals = entries.iter().map(|entry| &entry.name);
            let journals: HashSet<&OsString> =
                journals.filter(|name| name.to_string_lossy().ends_with(".journal")).collect();
            for Name { name: file_name, ino } in &entries {
                let name = file_name.to_string_lossy();
                let kinds = names.iter().map(|base| classify(&name, base));
                let name_kind = match kinds.max_by_key(rank).unwrap_or(NameKind::Other) {
                    // The link led there: the newest of what was there before it led elsewhere.
                    NameKind::Other if former.contains(&folder.join(file_name)) => {
                        NameKind::Rotated(RotationOrder::Index(0))
                    }
                    kind => kind,
                };
                let is_output = || {
                    let mut journal = file_name.clone();
                    journal.push(".journal");
                    journals.contains(&journal)
                };
                let alike = || names.iter().any(|base| name.starts_with(prefix(base)));
                let matters = match name_kind {
                    _ if known.contains(ino) => true,
                    NameKind::Other if alike() && others < OTHERS => {
                        others = others.saturating_add(1);
                        true
                    }
                    NameKind::Other => false,
                    _ => true,
                };
                if matters && !is_output() {
                    found.push(Candidate { path: folder.join(file_name), name_kind });
                }
            }
        }
        found.sort_by_key(|candidate| std::cmp::Reverse(rank(&candidate.name_kind)));
        let mut candidates = Vec::new();
        if has_input {
            candidates.push(Candidate { path: self.input.clone(), name_kind: NameKind::Input });
        }
        candidates.extend(found);
        let strays = self.listings.iter().flat_map(|listings| {
            let own = |path: PathBuf| {
                let metadata = fs::metadata(&path).ok().filter(|file| listings.may_have(&path, file.ino()))?;
                Some((path, inode(&metadata)))
            };
            listings.strays().into_iter().filter_map(own)
        });
        for (path, inode) in strays {
            self.was_input.insert(inode);
            candidates.push(Candidate { path, name_kind: NameKind::Other });
        }
        candidates
    }

    fn add(
        &mut self,
        snapshot: &mut Snapshot,
        before: &mut HashMap<Inode, Measured>,
        seen: ListedFile,
        name_kind: NameKind,
        metadata: &Metadata,
        known: &KnownContents,
    ) {
        // A file with several names counts once.
        if self.files.iter().any(|other| other.inode == seen.inode) {
            return;
        }
        let state = State::of(metadata);
        let earlier = before.remove(&seen.inode);
        let created = metadata.created().ok().map(nanoseconds);
        let earlier = earlier.filter(|earlier| earlier.created == created);
        let changing = earlier.as_ref().is_some_and(|earlier| earlier.rotated && earlier.state.is_written_since(state));
        let mut measured = earlier.filter(|earlier| earlier.state == state && !earlier.unsure).unwrap_or_else(|| {
            let age = metadata.modified().ok().and_then(|at| SystemTime::now().duration_since(at).ok());
            Measured {
                state,
                created,
                rotated: false,
                unsure: age.is_none_or(|age| age < COARSE),
                prints: match seen.format {
                    Some(_) if !seen.is_archive => Prefix::Partial(Fingerprint::default()),
                    _ => Prefix::Whole(Fingerprint::default()),
                },
                hashes: BTreeMap::new(),
                unpacked: None,
                is_damaged: false,
                compared: Vec::new(),
            }
        });
        measured.rotated = name_kind.is_rotated();
        let needed = match &measured.prints {
            Prefix::Whole(_) if seen.format.is_some() && measured.unpacked.is_none() => {
                let unpacked = seen.open().and_then(|file| file.len().inspect(|_| file.tell_damage()));
                unpacked.and_then(|len| {
                    measured.unpacked = Some(len);
                    self.measure(&seen, &mut measured, known)
                })
            }
            Prefix::Partial(_) => Ok(()),
            // The same bytes are damaged in the same place.
            Prefix::Unreadable(_) if measured.is_damaged => Ok(()),
            _ => self.measure(&seen, &mut measured, known),
        };
        let (inode, path) = (seen.inode, seen.path.to_string_lossy().into_owned());
        match needed {
            Ok(()) => {}
            // The file was deleted after it was listed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            // Report an unreadable file only if its name or history suggests that it was the input.
            Err(_) if name_kind == NameKind::Other && !known.contents.iter().any(|c| c.inode == Some(inode)) => return,
            Err(error) => measured.prints = Prefix::Unreadable(error.to_string()),
        }
        snapshot.sightings.push(Sighting {
            key: self.files.len(),
            path,
            inode,
            name_kind,
            len: measured.unpacked.unwrap_or(state.len),
            modified: state.modified,
            created,
            changing,
            was_input: self.was_input.contains(&inode),
            prints: measured.prints.clone(),
            hashes: measured.hashes.clone(),
            compared: BTreeMap::new(),
        });
        self.measured.insert(inode, measured);
        self.files.push(seen);
    }

    /// Adds an input that cannot be read.
    fn add_unreadable(&mut self, snapshot: &mut Snapshot, path: PathBuf, why: String) {
        let inode = Inode { dev: 0, ino: 0 };
        snapshot.sightings.push(Sighting {
            key: self.files.len(),
            path: path.to_string_lossy().into_owned(),
            inode,
            name_kind: NameKind::Input,
            len: 0,
            modified: 0,
            created: None,
            changing: false,
            was_input: false,
            prints: Prefix::Unreadable(why),
            hashes: BTreeMap::new(),
            compared: BTreeMap::new(),
        });
        self.files.push(ListedFile { path, inode, format: None, is_archive: false, unlinked: None });
    }

    /// Hashes the ranges that a decision needs and that are not cached.
    fn measure(&self, seen: &ListedFile, measured: &mut Measured, known: &KnownContents) -> io::Result<()> {
        let prints = match std::mem::replace(&mut measured.prints, Prefix::Unreadable(String::new())) {
            Prefix::Whole(prints) | Prefix::Partial(prints) => prints,
            Prefix::Unreadable(_) => Fingerprint::default(),
        };
        let len = measured.unpacked.unwrap_or(measured.state.len);
        let open = || Ok::<_, io::Error>(seen.open()?.with_unpacked_len(measured.unpacked));
        let mut prints = prints;
        let mut file = None;
        // Open the file even if no hash is missing, to learn whether it is readable.
        if prints.missing(len).next().is_some() || prints.covered() == 0 {
            extend(&mut prints, file.insert(open()?), len)?;
        }
        let probes: Vec<Span> = files::probes(known, &prints).into_iter().filter(|probe| probe.end <= len).collect();
        measured.hashes.retain(|span, _| probes.binary_search(span).is_ok());
        let missing: Vec<Span> = probes.into_iter().filter(|probe| !measured.hashes.contains_key(probe)).collect();
        if !missing.is_empty() {
            let file = file.map_or_else(open, Ok)?;
            hashes(&file, missing, &mut measured.hashes)?;
        }
        measured.prints = Prefix::Whole(prints);
        Ok(())
    }

    fn answer(
        &mut self,
        question: &Question,
        snapshot: &mut Snapshot,
        known: &KnownContents,
        open: &[(u64, &DiskFile)],
    ) {
        let (Question::Unpack { key, .. } | Question::Compare { key, .. }) = question;
        let Some(inode) = self.files.get(*key).map(|seen| seen.inode) else { return };
        let Some(mut measured) = self.measured.remove(&inode) else { return };
        let sighting = snapshot.sightings.iter_mut().find(|sighting| sighting.key == *key);
        if let Some(sighting) = sighting {
            match question {
                Question::Unpack { up_to, .. } => {
                    if let Err(error) = self.unpack(*key, *up_to, &mut measured, known) {
                        measured.is_damaged = error.raw_os_error().is_none();
                        measured.prints = Prefix::Unreadable(error.to_string());
                    }
                    sighting.prints = measured.prints.clone();
                    sighting.hashes = measured.hashes.clone();
                    sighting.len = measured.unpacked.unwrap_or(sighting.len);
                }
                Question::Compare { file_id, .. } => {
                    let before =
                        measured.compared.iter().find(|(asked, _)| asked == question).map(|(_, answer)| *answer);
                    let answer = before.map_or_else(|| self.compare(question, open), Ok);
                    // An unreadable file has nothing in common with another one.
                    let nothing = Compared { same_until: None, line_start: 0, tail_at: None };
                    let answer = answer.unwrap_or(nothing);
                    sighting.compared.insert(*file_id, answer);
                    measured.compared.retain(|(asked, _)| asked != question);
                    measured.compared.push((question.clone(), answer));
                }
            }
        }
        self.measured.insert(inode, measured);
    }

    fn unpack(&self, key: usize, up_to: u64, measured: &mut Measured, known: &KnownContents) -> io::Result<()> {
        let file = self.open(key)?;
        if up_to < u64::MAX && file.bytes(up_to, up_to.saturating_add(1))?.len() == 1 {
            let mut prints = Fingerprint::default();
            extend(&mut prints, &file, up_to)?;
            measured.prints = Prefix::Partial(prints);
            return Ok(());
        }
        let len = file.len()?;
        let mut prints = Fingerprint::default();
        extend(&mut prints, &file, len)?;
        let probes = files::probes(known, &prints).into_iter().filter(|probe| probe.end <= len).collect();
        hashes(&file, probes, &mut measured.hashes)?;
        measured.unpacked = Some(len);
        measured.prints = Prefix::Whole(prints);
        Ok(())
    }

    fn compare(&self, question: &Question, open: &[(u64, &DiskFile)]) -> io::Result<Compared> {
        let Question::Compare { key, file_id, from, to, with, tail } = question else {
            return Err(Errno::INVAL.into());
        };
        let new = self.open(*key)?;
        let held = open.iter().find(|(id, file)| id == file_id && file.inode() != new.inode()).map(|(_, file)| *file);
        let opened = with.and_then(|key| self.open(key).ok());
        let same_until = match held.or(opened.as_ref()) {
            Some(old) => Some(first_difference(old, &new, *from, *to)?),
            None => None,
        };
        let tail_at = match tail {
            Some(tail) => find_tail(&new, tail, *from)?,
            None => None,
        };
        Ok(Compared { same_until, line_start: new.line_start(same_until.unwrap_or(*from))?, tail_at })
    }
}

/// All names in a folder. A large folder is read in parts, and a file that is renamed meanwhile may
/// be in none of them under either name; then the folder is listed again, and what any listing had
/// counts.
pub(crate) fn names_in(folder: &Path) -> io::Result<Vec<Name>> {
    let mut names = list(folder)?;
    for _ in 1..LISTINGS {
        if names.len() < SEVERAL_PARTS || listed_of(folder).is_some() {
            break;
        }
        names.extend(list(folder)?);
        names.sort_unstable();
        names.dedup();
    }
    Ok(names)
}

fn list(folder: &Path) -> io::Result<Vec<Name>> {
    fs::read_dir(folder)?.map(|entry| entry.map(|entry| Name { name: entry.file_name(), ino: entry.ino() })).collect()
}

fn name_of(path: &Path) -> Option<String> {
    path.file_name().map(|name| name.to_string_lossy().into_owned())
}

/// Ranks the names of a file by how much they say.
const fn rank(name_kind: &NameKind) -> u8 {
    match name_kind {
        NameKind::Input => 5,
        NameKind::Rotated(_) => 4,
        NameKind::Compressed(_) => 3,
        NameKind::Backup => 2,
        NameKind::Unlinked => 1,
        NameKind::Other => 0,
    }
}

/// Extends a fingerprint to the first `len` bytes of a file.
pub(crate) fn extend(prints: &mut Fingerprint, file: &impl SourceFile, len: u64) -> io::Result<()> {
    let mut first = Vec::new();
    for Span { start, end } in prints.missing(len) {
        // The first block contains many checkpoints.
        let bytes = if start == 0 {
            if (first.len() as u64) < end {
                first = file.bytes(0, len.min(delivery::fingerprint::BLOCK))?;
            }
            usize::try_from(end).ok().and_then(|end| first.get(..end)).map(<[u8]>::to_vec)
        } else {
            Some(file.bytes(start, end)?).filter(|bytes| bytes.len() as u64 == end.saturating_sub(start))
        };
        // The file shrank meanwhile.
        let Some(bytes) = bytes else { break };
        prints.push(hash(&bytes));
    }
    Ok(())
}

/// Hashes ranges of a file, and omits ranges that the file does not have.
fn hashes(file: &DiskFile, mut spans: Vec<Span>, hashes: &mut BTreeMap<Span, u64>) -> io::Result<()> {
    spans.sort_unstable();
    for ranges in spans.chunk_by(|a, b| a.start == b.start) {
        let Some(Span { start, end }) = ranges.last().copied() else { continue };
        let bytes = file.bytes(start, end)?;
        for span in ranges {
            if let Some(bytes) = usize::try_from(span.end.saturating_sub(start)).ok().and_then(|len| bytes.get(..len)) {
                hashes.insert(*span, hash(bytes));
            }
        }
    }
    Ok(())
}

/// The offset of the first difference between two files, from `from` on, at most `up_to`.
fn first_difference(old: &impl SourceFile, new: &impl SourceFile, from: u64, up_to: u64) -> io::Result<u64> {
    const STEP: u64 = 64 << 10;
    let mut at = from;
    while at < up_to {
        let end = up_to.min(at.saturating_add(STEP));
        let (a, b) = (old.bytes(at, end)?, new.bytes(at, end)?);
        let same = a.iter().zip(&b).take_while(|(a, b)| a == b).count() as u64;
        at = at.saturating_add(same);
        if at < end {
            break;
        }
    }
    Ok(at)
}

/// Searches a file after `from` for the bytes of a tail checksum, near the end of the file. Returns
/// the offset after them, which is the end of a line.
fn find_tail(file: &impl SourceFile, tail: &TailChecksum, from: u64) -> io::Result<Option<u64>> {
    let len = file.len()?;
    let start = from.max(tail.end / 2).max(len.saturating_sub(SEARCHED));
    // Include the bytes before the first candidate.
    let begin = start.saturating_sub(delivery::fingerprint::TAIL_LEN);
    let bytes = file.bytes(begin, len)?;
    let offset = |at: usize| begin.saturating_add(at as u64);
    let ends = memchr::memchr_iter(b'\n', &bytes).map(|at| at.saturating_add(1)).chain([bytes.len()]);
    let mut found = None;
    for at in ends.filter(|at| offset(*at) > start) {
        let before = bytes.get(..at).unwrap_or_default();
        if !tail.ends(before) {
            continue;
        }
        // A match of the whole block is better than a match of its end.
        if TailChecksum::new(tail.end, before).hash == tail.hash {
            return Ok(Some(offset(at)));
        }
        found = found.or(Some(offset(at)));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use delivery::files::{Content, Neighbour, Notice, Relation};

    /// A folder with an input, and the state of a reader.
    struct Fixture {
        folder: tempfile::TempDir,
        scanner: Scanner,
        known: KnownContents,
    }

    impl Fixture {
        fn new(bytes: &[u8]) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let scanner = Scanner::new(folder.path().join("input.txt"));
            let fixture = Self { folder, scanner, known: KnownContents::default() };
            fixture.write("input.txt", bytes);
            fixture
        }

        fn path(&self, name: &str) -> PathBuf {
            self.folder.path().join(name)
        }

        fn write(&self, name: &str, bytes: &[u8]) {
            fs::write(self.path(name), bytes).unwrap();
        }

        fn rename(&self, from: &str, to: &str) {
            fs::rename(self.path(from), self.path(to)).unwrap();
        }

        fn scan(&mut self) -> Identified {
            let identified = self.scanner.scan(&self.known, &[], Duration::from_secs(1));
            assert_eq!(identified.questions, []);
            identified
        }

        fn current(&mut self) -> Option<Relation> {
            self.scan().current.found().map(|found| found.relation)
        }

        /// Marks everything in a file as sent.
        fn send(&mut self, name: &str) {
            let file = DiskFile::open(&self.path(name)).unwrap();
            let bytes = fs::read(self.path(name)).unwrap();
            let path = fs::canonicalize(self.path(name)).unwrap().to_string_lossy().into_owned();
            for content in &mut self.known.contents {
                content.finished = true;
            }
            self.known.contents.push(Content {
                file_id: self.known.contents.len() as u64 + 1,
                fingerprint: Fingerprint::of(&bytes),
                inode: Some(file.inode()),
                created: file.created(),
                path,
                frontier: bytes.len() as u64,
                tail: Some(TailChecksum::new(bytes.len() as u64, &bytes)),
                seen_len: bytes.len() as u64,
                ..Content::default()
            });
            self.known.siblings = self.scan().siblings();
        }
    }

    fn lines(prefix: &str, count: usize) -> Vec<u8> {
        (0..count).flat_map(|n| format!("{prefix} {n}\n").into_bytes()).collect()
    }

    #[test]
    fn a_renamed_file_and_its_successor() {
        let mut fixture = Fixture::new(&lines("first", 1000));
        assert_eq!(fixture.current(), Some(Relation::New));
        fixture.send("input.txt");
        assert_eq!(fixture.current(), Some(Relation::Whole(1)));
        fixture.rename("input.txt", "input.txt.1");
        assert_eq!(fixture.current(), None);
        fixture.write("input.txt", b"second\n");
        let identified = fixture.scan();
        assert_eq!(identified.current.found().unwrap().relation, Relation::New);
        let holder = fixture.scanner.open(identified.holders[&1][0].key).unwrap();
        assert!(holder.path().ends_with("input.txt.1"));
        assert_eq!(identified.unseen, []);
    }

    /// logrotate's `delaycompress` removes `input.txt.1` and creates it again, and file systems
    /// give its inode to the new file.
    #[test]
    fn a_file_that_took_name_and_inode_of_a_scanned_one_is_not_opened_for_it() {
        let first = lines("first", 100);
        let mut fixture = Fixture::new(&first);
        fixture.send("input.txt");
        fixture.rename("input.txt", "input.txt.1");
        let key = fixture.scan().holders[&1][0].key;
        assert!(fixture.scanner.open(key).is_ok());
        let created = fs::metadata(fixture.path("input.txt.1")).unwrap().created();
        fs::remove_file(fixture.path("input.txt.1")).unwrap();
        fixture.write("input.txt.1", &lines("second", 200));
        let again = fs::metadata(fixture.path("input.txt.1")).unwrap().created();
        // Not all file systems tell.
        if created.is_ok() && again.unwrap() != created.unwrap() {
            assert!(fixture.scanner.open(key).is_err());
        }
    }

    #[test]
    fn only_growth_after_rotation_counts_as_still_written() {
        let mut fixture = Fixture::new(&lines("first", 100));
        fixture.send("input.txt");
        fixture.rename("input.txt", "input.txt.2");
        fixture.write("input.txt", b"second\n");
        fixture.scan();
        // It grew while it was the input, and was then renamed.
        fixture.write("input.txt", b"second\nmore\n");
        fixture.rename("input.txt", "input.txt.1");
        fixture.write("input.txt", b"third\n");
        assert_eq!(fixture.scan().unseen.len(), 1);
        fixture.write("input.txt.1", b"second\nmore\nlate\n");
        let identified = fixture.scan();
        assert_eq!(identified.unseen, []);
        assert!(matches!(&identified.notices[..], [Notice::StillWritten { .. }]));
    }

    #[test]
    fn an_edit_that_keeps_length_and_times_is_detected() {
        let mut fixture = Fixture::new(&lines("first", 1000));
        fixture.send("input.txt");
        assert_eq!(fixture.current(), Some(Relation::Whole(1)));
        let mut bytes = lines("first", 1000);
        bytes[3000..3010].fill(b'!');
        fixture.write("input.txt", &bytes);
        assert_eq!(fixture.current(), Some(Relation::Edited(1)));
    }

    #[test]
    fn an_edited_file_continues_after_the_last_sent_bytes() {
        let mut fixture = Fixture::new(&lines("first", 1000));
        fixture.send("input.txt");
        let text = String::from_utf8(lines("first", 1000)).unwrap().replace("first 500\n", "");
        fixture.write(".edited", format!("{text}more\n").as_bytes());
        fixture.rename(".edited", "input.txt");
        assert_eq!(fixture.current(), Some(Relation::Derived { from: 1, start: text.len() as u64 }));
    }

    #[test]
    fn a_replaced_file_is_compared_with_the_open_one() {
        let first = lines("first", 1000);
        let mut fixture = Fixture::new(&first);
        fixture.send("input.txt");
        let old = DiskFile::open(&fixture.path("input.txt")).unwrap();
        let kept = lines("first", 700).len();
        fixture.write(".older", &[&first[..kept], b"another line\n"].concat());
        fixture.rename(".older", "input.txt");
        let identified = fixture.scanner.scan(&fixture.known, &[(1, &old)], Duration::from_secs(1));
        let relation = identified.current.found().unwrap().relation;
        assert_eq!(relation, Relation::Derived { from: 1, start: kept as u64 });
        // The file has no name any more, but is still readable.
        let unlinked = fixture.scanner.open(identified.holders[&1][0].key).unwrap();
        assert_eq!(unlinked.bytes(0, 8).unwrap(), b"first 0\n");
    }

    #[test]
    fn a_compressed_copy_of_a_missing_content_is_read() {
        let first = lines("first", 20_000);
        let mut fixture = Fixture::new(&first);
        fixture.send("input.txt");
        let all = [&first[..], b"rest\n"].concat();
        fs::remove_file(fixture.path("input.txt")).unwrap();
        fixture.write("input.txt.1.zst", &zstd::encode_all(&all[..], 1).unwrap());
        fixture.write("input.txt.2.gz", b"not gzip");
        fixture.write("input.txt", b"second\n");
        let identified = fixture.scan();
        let holder = &identified.holders[&1][0];
        assert_eq!((holder.relation, holder.len), (Relation::Whole(1), all.len() as u64));
        let file = fixture.scanner.open(holder.key).unwrap();
        assert_eq!(file.bytes(first.len() as u64, u64::from(u32::MAX)).unwrap(), b"rest\n");
    }

    #[test]
    fn neighbours_and_outputs_are_ignored() {
        let mut fixture = Fixture::new(&lines("first", 100));
        fixture.write("input.txt.5", b"older\n");
        fixture.write("input-2.txt", b"another program\n");
        assert!(
            matches!(&fixture.scan().notices[..], [Notice::LooksRotated { path, .. }] if path.ends_with("input.txt.5"))
        );
        fixture.send("input.txt");
        fixture.write("input.txt.2", b"an output\n");
        fixture.write("input.txt.2.journal", b"");
        fixture.rename("input.txt", "input.txt.1");
        fixture.write("input.txt", b"second\n");
        let identified = fixture.scan();
        assert_eq!(identified.unseen, []);
        fixture.write("input.txt.6", b"unseen\n");
        assert_eq!(fixture.scan().unseen.len(), 1);
    }

    #[test]
    fn symbolic_links_and_their_target_folders_are_scanned() {
        use std::os::unix::fs::symlink;
        let mut fixture = Fixture::new(b"");
        fs::remove_file(fixture.path("input.txt")).unwrap();
        for (folder, bytes) in [("a", "first\n"), ("b", "second\n")] {
            fs::create_dir(fixture.path(folder)).unwrap();
            fixture.write(&format!("{folder}/app.log"), bytes.as_bytes());
        }
        symlink(fixture.path("a/app.log"), fixture.path("input.txt")).unwrap();
        fixture.send("input.txt");
        assert_eq!(fixture.current(), Some(Relation::Whole(1)));
        fixture.rename("a/app.log", "a/app.log.1");
        fixture.write("a/app.log.1", b"first\nrest\n");
        symlink(fixture.path("b/app.log"), fixture.path("link")).unwrap();
        fixture.rename("link", "input.txt");
        let identified = fixture.scan();
        assert_eq!(identified.current.found().unwrap().relation, Relation::New);
        assert!(identified.holders[&1][0].len == 11, "the old target is found in its folder");
        // A hard link is another name of the same file.
        fs::hard_link(fixture.path("b/app.log"), fixture.path("b/app.log.1")).unwrap();
        assert_eq!(fixture.scan().unseen, []);
    }

    /// As kubelet does when a container starts again: the link leads to `1.log`, and what was
    /// written to `0.log` after its last rotation was never seen.
    #[test]
    fn an_unseen_file_at_a_former_target_of_the_link_is_found() {
        use std::os::unix::fs::symlink;
        let mut fixture = Fixture::new(b"");
        fs::remove_file(fixture.path("input.txt")).unwrap();
        fs::create_dir(fixture.path("pod")).unwrap();
        fixture.write("pod/0.log", &lines("first", 100));
        symlink(fixture.path("pod/0.log"), fixture.path("input.txt")).unwrap();
        fixture.send("input.txt");
        fixture.rename("pod/0.log", "pod/0.log.20261201-120000");
        fixture.write("pod/0.log", &lines("unseen", 100));
        fixture.write("pod/1.log", &lines("third", 100));
        fixture.write("pod/2.log", &lines("other", 100));
        symlink(fixture.path("pod/1.log"), fixture.path("link")).unwrap();
        fixture.rename("link", "input.txt");
        let unseen = fixture.scan().unseen;
        assert_eq!(unseen.len(), 1, "{unseen:?}");
        assert!(fixture.scanner.open(unseen[0].key).unwrap().path().ends_with("pod/0.log"));
    }

    /// The source's file is at another path than the source.
    #[derive(Debug)]
    struct Strayed(PathBuf);

    impl Listings for Strayed {
        fn names(&self, folder: &Path, _: Listed, _: &[&str], _: &HashSet<u64>) -> io::Result<Vec<Name>> {
            names_in(folder)
        }

        fn has_input(&self) -> bool {
            true
        }

        fn strays(&self) -> Vec<PathBuf> {
            vec![self.0.clone()]
        }

        fn may_have(&self, _: &Path, _: u64) -> bool {
            true
        }

        fn was_found_for_another(&self, _: &DiskFile) -> bool {
            false
        }
    }

    /// A temporary file that matches the pattern is found, and renamed before Redis can be asked.
    #[test]
    fn a_file_that_was_renamed_before_its_source_began_is_sent() {
        let mut fixture = Fixture::new(b"first\n");
        fixture.rename("input.txt", "final.txt");
        let strayed = Arc::new(Strayed(fixture.path("final.txt")));
        fixture.scanner = Scanner::sharing(fixture.path("input.txt"), strayed);
        let unseen = fixture.scan().unseen;
        assert_eq!(unseen.len(), 1, "{unseen:?}");
        // The same when it was opened before it was rotated.
        let mut fixture = Fixture::new(b"first\n");
        let held = DiskFile::open(&fixture.path("input.txt")).unwrap();
        fixture.rename("input.txt", "input.txt.1");
        assert_eq!(fixture.scan().unseen, []);
        let Inode { dev, ino } = held.inode();
        fixture.known.unknown.push(Neighbour { dev, ino, created: held.created() });
        assert_eq!(fixture.scan().unseen.len(), 1);
    }

    #[test]
    fn a_file_that_is_renamed_while_a_large_folder_is_listed_is_found() {
        let folder = tempfile::tempdir().unwrap();
        for n in 0..3000 {
            fs::write(folder.path().join(format!("{n}.log")), b"").unwrap();
        }
        let path = |n: u32| folder.path().join(format!("app.log.{n}"));
        fs::write(path(0), b"").unwrap();
        let ino = fs::metadata(path(0)).unwrap().ino();
        let is_done = std::sync::atomic::AtomicBool::new(false);
        let (lists, missed) = std::thread::scope(|scope| {
            scope.spawn(|| {
                let names = (0..400).cycle().zip((1..400).chain([0]).cycle());
                let mut names = names.take_while(|_| !is_done.load(std::sync::atomic::Ordering::Relaxed));
                names.try_for_each(|(from, to)| fs::rename(path(from), path(to))).unwrap();
            });
            let has = |names: Vec<Name>| names.iter().any(|name| name.ino == ino);
            let missed = (0..60).filter(|_| !has(names_in(folder.path()).unwrap())).count();
            is_done.store(true, std::sync::atomic::Ordering::Relaxed);
            (60, missed)
        });
        assert!(missed * 20 < lists, "{missed} of {lists} listings lack the file");
    }

    #[test]
    fn missing_and_irregular_files_are_skipped() {
        let mut fixture = Fixture::new(&lines("first", 100));
        fixture.send("input.txt");
        fs::create_dir(fixture.path("input.txt.3")).unwrap();
        std::os::unix::fs::symlink("nowhere", fixture.path("input.txt.4")).unwrap();
        assert_eq!(fixture.current(), Some(Relation::Whole(1)));
        fs::remove_file(fixture.path("input.txt")).unwrap();
        fs::create_dir(fixture.path("input.txt")).unwrap();
        assert_eq!(fixture.scan().current, delivery::files::Current::Unreadable("not a regular file".to_owned()));
        fs::remove_dir_all(fixture.folder.path()).unwrap();
        assert_eq!(fixture.scan().current, delivery::files::Current::Missing);
    }
}
