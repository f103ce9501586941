//! The state file: the manifest of the source, for the case that Redis loses its data.

use delivery::files::{Held, Neighbour, Siblings};
use delivery::fingerprint::Fingerprint;
use delivery::manifest::{Generation, Guard, Manifest};
use delivery::partition::Partition;
use delivery::producer::Stored;
use delivery::source_name::SourceName;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use service::Failure;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::Notify;

/// The version of the format. Older files have no version, and are still read.
const VERSION: u32 = 1;
/// A temporary file older than this was left by a killed reader.
const LEFT: Duration = Duration::from_secs(600);

/// The state file. It is rewritten only when a generation begins or ends.
#[derive(Debug)]
pub(crate) struct StateFile {
    path: PathBuf,
    stream: String,
    partitions: u32,
    /// The path of the file with one partition.
    alone: PathBuf,
    /// The path of the folder with several partitions.
    shared: PathBuf,
    /// Whether the file is in a folder of the reader's own.
    has_folder: bool,
    /// The folder of `--state-dir`, created with the first file in it.
    state_dir: Option<PathBuf>,
    /// Makes it durable together with others.
    group: Option<Arc<StateGroup>>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct State {
    #[serde(default = "one")]
    version: u32,
    stream: String,
    #[serde(default = "one")]
    partitions: u32,
    generations: Vec<Generation>,
    #[serde(default)]
    prints: BTreeMap<u64, Fingerprint>,
    #[serde(default)]
    guard: Option<Guard>,
    #[serde(default)]
    began: Option<i64>,
    #[serde(default)]
    neighbours: Option<Vec<Neighbour>>,
    #[serde(default)]
    held: Vec<Held>,
    #[serde(default)]
    pending: Vec<Neighbour>,
    #[serde(default)]
    missed: bool,
}

/// The version alone. It is parsed first, because a newer format may differ in everything else.
#[derive(Debug, Deserialize)]
struct Version {
    #[serde(default = "one")]
    version: u32,
}

/// The default value of a missing field.
const fn one() -> u32 {
    1
}

impl StateFile {
    /// The state file for an input and a stream. Several partitions have theirs in a common folder.
    pub(crate) fn new(folder: &Path, input: &Path, stream: &str, partition: Partition) -> Self {
        let name = input.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let name = bounded(format!("{name}.{}", escaped(stream)), LONGEST);
        let alone = folder.join(format!(".{name}.source.json"));
        let shared = folder.join(format!(".{name}.partitions"));
        let path = match partition.is_whole() {
            true => alone.clone(),
            false => shared.join(format!("{}.json", partition.index())),
        };
        Self {
            path,
            stream: stream.to_owned(),
            partitions: partition.count(),
            alone,
            shared,
            has_folder: !partition.is_whole(),
            state_dir: None,
            group: None,
        }
    }

    /// The state file of one of many sources.
    pub(crate) fn of_source(folder: &Path, stream: &str, name: &SourceName) -> Self {
        let shared = Self::folder_of_sources(folder, stream);
        let path = shared.join(format!("{}.json", file_name(name)));
        Self {
            alone: path.clone(),
            path,
            stream: stream.to_owned(),
            partitions: 1,
            shared,
            has_folder: true,
            state_dir: None,
            group: None,
        }
    }

    /// Is made durable by `group`, and only then.
    pub(crate) fn in_group(self, group: Arc<StateGroup>) -> Self {
        Self { group: Some(group), ..self }
    }

    /// Creates the folder of `--state-dir` with the first file in it, if it does not exist.
    pub(crate) fn in_state_dir(self, folder: Option<&Path>) -> Self {
        Self { state_dir: folder.map(Path::to_owned), ..self }
    }

    /// The folder with the state files of many sources.
    pub(crate) fn folder_of_sources(folder: &Path, stream: &str) -> PathBuf {
        folder.join(format!(".{}.sources", bounded(escaped(stream), LONGEST)))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The number of partitions that the source was started with and the file that says so, if the
    /// number differs. `None` if it is equal or unknown.
    pub(crate) fn other_number(&self) -> io::Result<Option<(u32, &Path)>> {
        let number = |path: &Path| match fs::read(path) {
            Ok(bytes) => Ok(serde_json::from_slice::<State>(&bytes).ok().map(|state| state.partitions)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        };
        let mut begun = number(&self.alone)?.map(|begun| (begun, self.alone.as_path()));
        if begun.is_none() && self.shared.is_dir() {
            for entry in fs::read_dir(&self.shared)? {
                begun = begun.or(number(&entry?.path())?.map(|begun| (begun, self.shared.as_path())));
            }
        }
        Ok(begun.filter(|(begun, _)| *begun != self.partitions))
    }

    /// Loads the file.
    pub(crate) fn load(&self) -> io::Result<Stored> {
        let pending = self.group.as_ref().and_then(|group| group.pending_of(&self.path));
        let read = match pending.map(fs::read) {
            Some(Ok(bytes)) => Ok(bytes),
            // It has its name by now.
            _ => fs::read(&self.path),
        };
        let bytes = match read {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Stored::Missing),
            Err(error) => return Err(error),
        };
        if let Ok(Version { version }) = serde_json::from_slice(&bytes)
            && version > VERSION
        {
            return Ok(Stored::Unreadable(format!(
                "its format {version} is newer than {VERSION}, the newest known one"
            )));
        }
        let State { generations, prints, guard, began, neighbours, held, pending, missed, .. } =
            match serde_json::from_slice(&bytes) {
                Ok(state) => state,
                Err(error) => return Ok(Stored::Unreadable(error.to_string())),
            };
        let mut manifest = Manifest::default();
        (manifest.prints, manifest.guard, manifest.began) = (prints, guard, began);
        manifest.siblings = Siblings { neighbours, held, pending, missed };
        generations.into_iter().for_each(|generation| manifest.insert(generation));
        Ok(Stored::Manifest(Box::new(manifest)))
    }

    /// Replaces the file atomically and durably.
    pub(crate) fn store(&self, manifest: &Manifest) -> io::Result<()> {
        let state = State {
            version: VERSION,
            stream: self.stream.clone(),
            partitions: self.partitions,
            generations: manifest.iter().cloned().collect(),
            prints: manifest.prints.clone(),
            guard: manifest.guard.clone(),
            began: manifest.began,
            neighbours: manifest.siblings.neighbours.clone(),
            held: manifest.siblings.held.clone(),
            pending: manifest.siblings.pending.clone(),
            missed: manifest.siblings.missed,
        };
        let mut bytes = serde_json::to_vec_pretty(&state).map_err(io::Error::other)?;
        bytes.push(b'\n');
        if let Some(folder) = &self.state_dir
            && !folder.is_dir()
        {
            create(folder)?;
            File::open(above(folder))?.sync_all()?;
        }
        if self.has_folder
            && let Some(folder) = self.path.parent()
        {
            create(folder)?;
        }
        let (temporary, mut file) = create_unique(self.path.parent().unwrap_or(Path::new("/")))?;
        if let Some(group) = &self.group {
            return match file.write_all(&bytes) {
                Ok(()) => {
                    group.add(&self.path, temporary);
                    Ok(())
                }
                Err(error) => {
                    let _ = fs::remove_file(&temporary);
                    Err(error)
                }
            };
        }
        let written = file.write_all(&bytes).and_then(|()| file.sync_all());
        if let Err(error) = written.and_then(|()| fs::rename(&temporary, &self.path)) {
            let _ = fs::remove_file(&temporary);
            return Err(error);
        }
        self.path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
    }

    /// Checks that the state folder is writable, and removes temporary files of killed readers.
    pub(crate) fn check_folder(folder: &Path, is_named: bool) -> Result<(), Failure> {
        // A named folder is created together with the first file in it.
        let is_missing = is_named && folder.symlink_metadata().is_err();
        let probe = create_unique(if is_missing { above(folder) } else { folder });
        let tried = probe.and_then(|(path, _)| {
            let now = fs::metadata(&path)?.modified()?;
            fs::remove_file(&path)?;
            if is_missing { Ok(()) } else { remove_left(folder, now) }
        });
        match tried {
            // The input's folder may be created together with the input.
            Err(error) if error.kind() == io::ErrorKind::NotFound && !is_named => Ok(()),
            Err(error) => {
                let whose = if is_named { "" } else { " (the input's folder)" };
                let allowed = match is_missing {
                    true => "a folder that can be created in an existing one",
                    false => "a folder that can be written to",
                };
                Err(Failure::config(format!("--state-dir {}{whose}: {error}; allowed: {allowed}", folder.display())))
            }
            Ok(()) => Ok(()),
        }
    }
}

/// Creates a folder unless it exists.
fn create(folder: &Path) -> io::Result<()> {
    match fs::create_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        created => created,
    }
}

/// The folder that a folder is in.
fn above(folder: &Path) -> &Path {
    folder.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// How many state files are synced at once. The file system commits them together.
const SYNCS: usize = 16;

/// State files that are written and not yet durable. They become durable together, and only then
/// get their names.
#[derive(Debug, Default)]
pub(crate) struct StateGroup {
    /// The temporary file of each.
    pending: Mutex<BTreeMap<PathBuf, PathBuf>>,
    /// Those that are being synced.
    syncing: Mutex<BTreeMap<PathBuf, PathBuf>>,
    failed: Mutex<BTreeMap<PathBuf, io::Error>>,
    done: Notify,
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl StateGroup {
    fn add(&self, path: &Path, temporary: PathBuf) {
        if let Some(older) = lock(&self.pending).insert(path.to_owned(), temporary) {
            let _ = fs::remove_file(older);
        }
    }

    fn pending_of(&self, path: &Path) -> Option<PathBuf> {
        let pending = lock(&self.pending).get(path).cloned();
        pending.or_else(|| lock(&self.syncing).get(path).cloned())
    }

    /// Whether this file is not durable yet.
    pub(crate) fn is_pending(&self, path: &Path) -> bool {
        lock(&self.pending).contains_key(path) || lock(&self.syncing).contains_key(path)
    }

    /// Waits until this file is durable.
    pub(crate) async fn flush(&self, path: &Path) -> io::Result<()> {
        while self.is_pending(path) {
            if lock(&self.syncing).is_empty() {
                self.sync().await;
            } else {
                self.done.notified().await;
            }
        }
        lock(&self.failed).remove(path).map_or(Ok(()), Err)
    }

    /// Makes all durable that are pending now.
    async fn sync(&self) {
        // Those that are about to be written join in.
        tokio::task::yield_now().await;
        if !lock(&self.syncing).is_empty() {
            return;
        }
        let files = std::mem::take(&mut *lock(&self.pending));
        lock(&self.syncing).clone_from(&files);
        let files: Vec<(PathBuf, PathBuf)> = files.into_iter().collect();
        let share = files.len().div_ceil(SYNCS).max(1);
        let shares: Vec<_> = files
            .chunks(share)
            .map(|files| {
                let files = files.to_vec();
                tokio::task::spawn_blocking(move || files.into_iter().map(sync_one).collect::<Vec<_>>())
            })
            .collect();
        let mut folders = BTreeSet::new();
        for share in shares {
            for (path, synced) in share.await.unwrap_or_default() {
                match synced {
                    Ok(()) => folders.extend(path.parent().map(Path::to_owned)),
                    Err(error) => drop(lock(&self.failed).insert(path, error)),
                }
            }
        }
        let synced =
            tokio::task::spawn_blocking(move || folders.iter().try_for_each(|folder| File::open(folder)?.sync_all()));
        if let Ok(Err(error)) = synced.await {
            log::warn!("--state-dir: {error}");
        }
        lock(&self.syncing).clear();
        self.done.notify_waiters();
    }
}

fn sync_one((path, temporary): (PathBuf, PathBuf)) -> (PathBuf, io::Result<()>) {
    let synced = File::open(&temporary).and_then(|file| file.sync_all()).and_then(|()| fs::rename(&temporary, &path));
    if synced.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    (path, synced)
}

/// Every unusual byte as %XX, so that two streams never share a file.
fn escaped(stream: &str) -> String {
    let mut escaped = String::new();
    for byte in stream.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            let _ = write!(escaped, "%{byte:02X}");
        }
    }
    escaped
}

/// A source's name as that of a file: an escaped slash cannot be part of the name itself.
fn file_name(name: &SourceName) -> String {
    bounded(name.escaped().replace('/', "%2F"), LONGEST_SOURCE)
}

/// The most bytes of the names of the input and of its stream together. With what is around them, a
/// file's name has at most 255.
const LONGEST: usize = 220;
/// The most bytes of the name of one of many sources.
const LONGEST_SOURCE: usize = 200;

/// A part of a file's name. A hash stands for the end of one that has more than `longest` bytes.
fn bounded(name: String, longest: usize) -> String {
    if name.len() <= longest {
        return name;
    }
    let end = (0..=longest).rev().find(|&end| name.is_char_boundary(end)).unwrap_or(0);
    format!("{}~{:016x}", name.get(..end).unwrap_or_default(), delivery::hash(name.as_bytes()))
}

/// The suffix of temporary files.
const TEMPORARY: &str = ".reader-tmp";

/// Creates a file with a unique name in a folder. Process IDs alone are equal in different
/// containers.
fn create_unique(folder: &Path) -> io::Result<(PathBuf, File)> {
    let nanos = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_nanos());
    for _ in 0..100 {
        let path = folder.join(format!(".{}-{}{TEMPORARY}", std::process::id(), nanos()));
        match OpenOptions::new().write(true).create_new(true).open(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
            Ok(file) => return Ok((path, file)),
        }
    }
    Err(Errno::EXIST.into())
}

/// Removes old temporary files. `now` is the time on the clock of the folder's file system.
fn remove_left(folder: &Path, now: SystemTime) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let is_temporary =
            entry.file_name().to_str().is_some_and(|name| name.starts_with('.') && name.ends_with(TEMPORARY));
        let is_old = || {
            let modified = entry.metadata().and_then(|metadata| metadata.modified());
            modified.is_ok_and(|modified| now.duration_since(modified).is_ok_and(|age| age >= LEFT))
        };
        if is_temporary && is_old() {
            // Another reader may have removed it.
            let _ = fs::remove_file(entry.path());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_names_become_names_of_files() {
        let folder = tempfile::tempdir().unwrap();
        let (input, stream) = ("ö".repeat(127), ":".repeat(200));
        let stores = |file: StateFile| {
            file.store(&Manifest::default()).unwrap();
            assert!(matches!(file.load().unwrap(), Stored::Manifest(_)));
            file.path().to_owned()
        };
        let one = |stream: &str| stores(StateFile::new(folder.path(), Path::new(&input), stream, Partition::WHOLE));
        assert_ne!(one(&stream), one(&stream.replace("::", ":;")), "the hash is of the whole name");
        let source = SourceName::new(input.as_bytes()).unwrap();
        let folder_of_sources = StateFile::folder_of_sources(folder.path(), &stream);
        fs::create_dir(&folder_of_sources).unwrap();
        stores(StateFile::of_source(folder.path(), &stream, &source));
    }

    #[test]
    fn state_round_trips_and_garbage_is_reported() {
        let folder = tempfile::tempdir().unwrap();
        let file = StateFile::new(folder.path(), Path::new("/data/input.txt"), "line_stream:{0}", Partition::WHOLE);
        assert_eq!(file.load().unwrap(), Stored::Missing);
        let mut manifest = Manifest::default();
        manifest.insert(Generation {
            generation: 5,
            file_id: 5,
            start: 0,
            previous_end: Some(9),
            previous_guard: None,
            resumes: None,
            path: "/data/input.txt".into(),
            dev: 1,
            ino: 2,
            created: None,
            real_path: None,
            head_len: 3,
            head_hash: u64::MAX,
        });
        let sibling = |ino| Neighbour { dev: 1, ino, created: Some(1_796_089_926_414_000_000) };
        let held = vec![Held { neighbour: sibling(3), len: 300, hash: u64::MAX }];
        manifest.siblings =
            Siblings { neighbours: Some(vec![sibling(3)]), held, pending: vec![sibling(4)], missed: true };
        file.store(&manifest).unwrap();
        assert_eq!(file.load().unwrap(), Stored::Manifest(Box::new(manifest)));
        let of = |index, count| {
            let partition = Partition::new(index, count).unwrap();
            StateFile::new(folder.path(), Path::new("/data/input.txt"), "line_stream:{0}", partition)
        };
        assert_eq!(file.other_number().unwrap().map(|(begun, _)| begun), None);
        assert_eq!(of(0, 3).other_number().unwrap().map(|(begun, _)| begun), Some(1));
        fs::write(file.path(), [0; 40]).unwrap();
        assert_eq!(of(0, 3).other_number().unwrap().map(|(begun, _)| begun), None, "unknown");
        of(2, 3).store(&Manifest::default()).unwrap();
        assert_eq!(of(0, 3).other_number().unwrap().map(|(begun, _)| begun), None);
        assert_eq!(of(0, 4).other_number().unwrap().map(|(begun, _)| begun), Some(3));
        assert_eq!(file.other_number().unwrap().map(|(begun, _)| begun), Some(3));
        assert!(matches!(file.load().unwrap(), Stored::Unreadable(_)));
        fs::write(file.path(), r#"{"version": 2, "anything": 7}"#).unwrap();
        assert!(matches!(file.load().unwrap(), Stored::Unreadable(why) if why.contains("newer")));
        // A file of a reader from before versions were written.
        let old = r#"{"stream":"S","generations":[{"generation":5,"root":5,"start":0,"previous_end":null,"path":"/in","dev":1,"ino":2,"head_len":3,"head_hash":4}]}"#;
        fs::write(file.path(), old).unwrap();
        assert!(matches!(file.load().unwrap(), Stored::Manifest(manifest) if manifest.len() == 1));
    }
}
