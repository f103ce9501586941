//! Which of the files that the inputs match are sources, and whose the others are.
//!
//! A name that rotation gives to a source's file, and a file that a source was read from under
//! another name, belong to that source, also when the name is that of another one. Two names of one
//! file are one source. So no file is read for two sources, and none for nobody.

use crate::files::Inode;
use crate::manifest::{Generation, Manifest};
use crate::rotated_names::{COMPRESSED, NameKind, TAI64N_INPUT, classify};
use crate::source_name::SourceName;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

/// Queries about the files.
pub trait Tree {
    /// The file that a path leads to, through links; `None` if there is none.
    fn file(&self, path: &Path) -> Option<FileId>;

    /// The hash of the first `len` bytes of a file, unpacked; `None` if it has fewer, or cannot be
    /// read.
    fn head(&self, path: &Path, len: u64) -> Option<u64>;
}

/// The identity of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileId {
    /// Its device and inode.
    pub inode: Inode,
    /// When it was created, if that is known.
    pub created: Option<i64>,
}

/// The decisions after a scan of the files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// A new source, with the next number.
    Follow(usize),
    /// A file of this source came.
    Wake(usize),
    /// The file at this path is read for a source with another path.
    Moved(PathBuf, usize),
    /// The path is not read, because this source has its name.
    SameName(PathBuf, usize),
}

/// A file that a source was read from.
#[derive(Debug, Clone, Copy)]
struct KnownFile {
    source: usize,
    file: FileId,
    head_len: u64,
    head_hash: u64,
}

impl KnownFile {
    /// Whether it can be this file. Inodes are used again.
    fn may_be(&self, file: FileId) -> bool {
        let is_as_old = match (self.file.created, file.created) {
            (Some(known), Some(created)) => known == created,
            _ => self.head_len > 0,
        };
        self.file.inode == file.inode && is_as_old
    }
}

#[derive(Debug)]
struct Source {
    name: SourceName,
    path: PathBuf,
    /// Inodes of the files that it was read from.
    inodes: Vec<u64>,
    /// Paths at which its files are, though their names do not tell.
    strays: Vec<PathBuf>,
}

/// A path that is not the source's own, though the file there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Other {
    source: usize,
    file: FileId,
}

/// The sources, by number.
#[derive(Debug, Default)]
pub struct Sources {
    list: Vec<Source>,
    paths: HashMap<PathBuf, usize>,
    names: HashMap<SourceName, usize>,
    /// By inode.
    files: HashMap<u64, Vec<KnownFile>>,
    others: HashMap<PathBuf, Other>,
}

impl Sources {
    /// How many there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The path of a source.
    #[must_use]
    pub fn path(&self, source: usize) -> Option<&Path> {
        self.list.get(source).map(|source| source.path.as_path())
    }

    /// The source with this name.
    #[must_use]
    pub fn named(&self, name: &SourceName) -> Option<usize> {
        self.names.get(name).copied()
    }

    /// Adds a source, whose file need not be there.
    pub fn add(&mut self, path: PathBuf, name: SourceName) -> usize {
        let source = self.list.len();
        self.paths.insert(path.clone(), source);
        self.names.insert(name.clone(), source);
        self.list.push(Source { name, path, inodes: Vec::new(), strays: Vec::new() });
        source
    }

    /// The files of a source, according to its record.
    pub fn know(&mut self, source: usize, manifest: &Manifest) {
        let Some(known) = self.list.get_mut(source) else { return };
        if manifest.contents().next().is_none() {
            // It was not read yet. What was seen of the file counts.
            return;
        }
        for inode in std::mem::take(&mut known.inodes) {
            if let Some(files) = self.files.get_mut(&inode) {
                files.retain(|file| file.source != source);
            }
        }
        for content in manifest.contents() {
            let Generation { dev, ino, created, head_len, head_hash, .. } = *content;
            let file = FileId { inode: Inode { dev, ino }, created };
            self.know_file(KnownFile { source, file, head_len, head_hash });
        }
    }

    fn know_file(&mut self, known: KnownFile) {
        let ino = known.file.inode.ino;
        self.files.entry(ino).or_default().push(known);
        if let Some(source) = self.list.get_mut(known.source) {
            source.inodes.push(ino);
        }
    }

    /// Finds new sources among the files that the inputs match, and files of known ones. `all`:
    /// these are all files, and others are not there any more.
    pub fn find(&mut self, found: &BTreeMap<PathBuf, SourceName>, all: bool, tree: &impl Tree) -> Vec<Effect> {
        if all {
            // No pattern need match a name that rotation gave to a file of another source.
            self.others.retain(|path, other| found.contains_key(path) || tree.file(path) == Some(other.file));
            let others = &self.others;
            for (source, known) in self.list.iter_mut().enumerate() {
                known.strays.retain(|path| others.get(path).is_some_and(|other| other.source == source));
            }
        }
        let mut effects = Vec::new();
        for path in found.keys() {
            self.place(path, found, tree, &mut effects);
        }
        effects
    }

    /// The source whose own path this is, after it was added if need be.
    fn place(
        &mut self,
        path: &Path,
        found: &BTreeMap<PathBuf, SourceName>,
        tree: &impl Tree,
        effects: &mut Vec<Effect>,
    ) -> Option<usize> {
        if let Some(&source) = self.paths.get(path) {
            if !self.has_input(source, tree) {
                self.is_of_another(path, None, tree, effects);
            }
            return Some(source);
        }
        let name = found.get(path)?;
        // A name is that of a rotated file only if there is a source with the name before.
        let is_rotated = rotated_from(path).find_map(|base| self.place(&base, found, tree, effects)).is_some();
        let rotated = if is_rotated { self.rotated(path, tree) } else { None };
        if self.is_of_another(path, rotated, tree, effects) {
            return None;
        }
        if let Some(other) = self.named(name) {
            effects.push(Effect::SameName(path.to_owned(), other));
            return None;
        }
        let source = self.add(path.to_owned(), name.clone());
        // Known before its record is, because it can be renamed at once.
        if let Some(file) = tree.file(path) {
            self.know_file(KnownFile { source, file, head_len: 0, head_hash: crate::hash(b"") });
        }
        effects.push(Effect::Follow(source));
        Some(source)
    }

    /// Whether the file at a path is another source's: that one is woken when it came.
    fn is_of_another(
        &mut self,
        path: &Path,
        rotated: Option<usize>,
        tree: &impl Tree,
        effects: &mut Vec<Effect>,
    ) -> bool {
        let owner = self.owner(path, rotated, tree);
        let Some(source) = owner.or(rotated) else { return false };
        // It may have been renamed since it was found, and is found under its next name.
        let Some(file) = tree.file(path) else { return true };
        let other = Other { source, file };
        if self.others.insert(path.to_owned(), other) != Some(other) {
            if Some(source) != rotated {
                effects.push(Effect::Moved(path.to_owned(), source));
                self.stray(source, path);
            }
            effects.push(Effect::Wake(source));
        }
        true
    }

    fn stray(&mut self, source: usize, path: &Path) {
        if let Some(known) = self.list.get_mut(source).filter(|known| !known.strays.iter().any(|at| at == path)) {
            known.strays.push(path.to_owned());
        }
    }

    /// The source that was read from the file at a path. `likely` need not be proved by its bytes:
    /// a file can be truncated.
    fn owner(&self, path: &Path, likely: Option<usize>, tree: &impl Tree) -> Option<usize> {
        let file = tree.file(path)?;
        let known = self.files.get(&file.inode.ino)?;
        let known = || known.iter().filter(|known| known.may_be(file));
        let is_likely = known().any(|known| Some(known.source) == likely);
        // A second name of the file at a source's own path is the same file, even after a
        // truncation.
        let is_own = |known: &&KnownFile| self.path(known.source).and_then(|own| tree.file(own)) == Some(file);
        let has_head = |known: &&KnownFile| tree.head(path, known.head_len) == Some(known.head_hash);
        let proved = || known().find(|known| is_own(known) || has_head(known));
        if is_likely { likely } else { proved().map(|known| known.source) }
    }

    /// The source of whose file this is a rotated name. Of several, as `app.log` and `app.log.1`
    /// for `app.log.1.gz`, the one that knows the content, else the first.
    fn rotated(&self, path: &Path, tree: &impl Tree) -> Option<usize> {
        let of: Vec<usize> = rotated_from(path).filter_map(|base| self.paths.get(&base).copied()).collect();
        let knows = |source: &&usize| {
            let inodes = self.list.get(**source).into_iter().flat_map(|source| &source.inodes);
            let known = inodes.filter_map(|ino| self.files.get(ino)).flatten().filter(|known| known.source == **source);
            known
                .into_iter()
                .any(|known| known.head_len > 0 && tree.head(path, known.head_len) == Some(known.head_hash))
        };
        let known = if of.len() > 1 { of.iter().find(knows) } else { None };
        known.or(of.first()).copied()
    }

    /// Whether the file at a source's own path is its own.
    #[must_use]
    pub fn has_input(&self, source: usize, tree: &impl Tree) -> bool {
        let Some(path) = self.path(source) else { return false };
        match self.owner(path, Some(source), tree) {
            Some(owner) => owner == source,
            // It may have been a source before the one of which it has a rotated name.
            None => !rotated_from(path).any(|base| self.paths.contains_key(&base)),
        }
    }

    /// Whether a file in a folder, with this name and inode, can be one of a source. One of another
    /// source is remembered for that one, which does not look into this folder.
    pub fn may_have(&mut self, source: usize, path: &Path, ino: u64, tree: &impl Tree) -> bool {
        let of = self.paths.get(path).copied();
        if of.is_some_and(|of| of != source && self.has_input(of, tree)) {
            return false;
        }
        let owner = if self.files.contains_key(&ino) { self.owner(path, Some(source), tree) } else { None };
        if let Some(other) = owner.filter(|owner| *owner != source)
            && let Some(file) = tree.file(path)
            && self.path(other).and_then(Path::parent) != path.parent()
        {
            self.others.insert(path.to_owned(), Other { source: other, file });
            self.stray(other, path);
        }
        owner.or_else(|| self.rotated(path, tree)).is_none_or(|owner| owner == source)
    }

    /// Whether a file, which a source has open and has not read, was found for another one since.
    #[must_use]
    pub fn was_found_for_another(&self, source: usize, file: FileId) -> bool {
        let known = || self.files.get(&file.inode.ino).into_iter().flatten().filter(|known| known.file == file);
        known().next().is_some() && known().all(|known| known.source != source)
    }

    /// Paths at which files of a source are, though their names do not tell.
    pub fn strays(&self, source: usize) -> impl Iterator<Item = &Path> {
        self.list.get(source).into_iter().flat_map(|source| source.strays.iter().map(PathBuf::as_path))
    }

    /// The sources that something at a path is about.
    pub fn about(&self, path: &Path) -> impl Iterator<Item = usize> {
        let own = self.paths.get(path).copied();
        let other = self.others.get(path).map(|other| other.source);
        let rotated = || rotated_from(path).find_map(|base| self.paths.get(&base).copied());
        let by_name = if own.is_none() && other.is_none() { rotated() } else { None };
        own.into_iter().chain(other).chain(by_name)
    }

    /// The name of a source.
    #[must_use]
    pub fn name(&self, source: usize) -> Option<&SourceName> {
        self.list.get(source).map(|source| &source.name)
    }
}

/// The paths whose file can have been renamed to this path by rotation.
fn rotated_from(path: &Path) -> impl Iterator<Item = PathBuf> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let unpacked = COMPRESSED.iter().find_map(|ending| name.strip_suffix(ending));
    let plain = unpacked.unwrap_or(name);
    let extension = plain.rfind('.').and_then(|dot| plain.get(dot..)).unwrap_or_default();
    let separators = plain.match_indices(['.', '-', '_']).map(|(at, _)| at);
    let stems = separators.filter_map(|at| plain.get(..at)).filter(|stem| !stem.is_empty());
    let bases = stems.flat_map(move |stem| [stem.to_owned(), format!("{stem}{extension}")]);
    let tai64n = name.starts_with('@').then(|| TAI64N_INPUT.to_owned());
    let bases = bases.chain(unpacked.map(str::to_owned)).chain(tai64n).filter(move |base| base != name);
    let is_rotated =
        move |base: &String| matches!(classify(name, base), NameKind::Rotated(_) | NameKind::Compressed(_));
    bases.filter(is_rotated).map(|base| path.with_file_name(base))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Files: inode, creation time, bytes.
    #[derive(Default)]
    struct Files(BTreeMap<PathBuf, (u64, i64, &'static str)>);

    impl Tree for Files {
        fn file(&self, path: &Path) -> Option<FileId> {
            let (ino, created, _) = *self.0.get(path)?;
            Some(FileId { inode: Inode { dev: 1, ino }, created: Some(created) })
        }

        fn head(&self, path: &Path, len: u64) -> Option<u64> {
            let (.., bytes) = self.0.get(path)?;
            bytes.as_bytes().get(..usize::try_from(len).unwrap()).map(crate::hash)
        }
    }

    /// Sources of `/l`, and what a look at all of it told.
    #[derive(Default)]
    struct World {
        files: Files,
        sources: Sources,
    }

    impl World {
        fn put(&mut self, name: &str, ino: u64, bytes: &'static str) {
            self.files.0.insert(Path::new("/l").join(name), (ino, 5, bytes));
        }

        fn rename(&mut self, from: &str, to: &str) {
            let file = self.files.0.remove(&Path::new("/l").join(from)).unwrap();
            self.files.0.insert(Path::new("/l").join(to), file);
        }

        fn look(&mut self) -> Vec<String> {
            let name = |path: &Path| path.strip_prefix("/l").unwrap().to_str().unwrap().to_owned();
            let found = self.files.0.keys().map(|path| (path.clone(), SourceName::new(name(path)).unwrap()));
            let effects = self.sources.find(&found.collect(), true, &self.files);
            let of = |source| name(self.sources.path(source).unwrap());
            let told = effects.into_iter().map(|effect| match effect {
                Effect::Follow(source) => format!("new {}", of(source)),
                Effect::Wake(source) => format!("wake {}", of(source)),
                Effect::Moved(path, source) => format!("{} is of {}", name(&path), of(source)),
                Effect::SameName(path, source) => format!("{} has the name of {}", name(&path), of(source)),
            });
            told.collect()
        }

        /// A source has read the file at its path.
        fn read(&mut self, name: &str) {
            let path = Path::new("/l").join(name);
            let source = self.sources.paths[&path];
            let (ino, created, bytes) = self.files.0[&path];
            let mut manifest = Manifest::default();
            manifest.insert(Generation {
                generation: 1,
                file_id: 1,
                start: 0,
                previous_end: None,
                previous_guard: None,
                resumes: None,
                path: String::new(),
                dev: 1,
                ino,
                created: Some(created),
                real_path: None,
                head_len: bytes.len() as u64,
                head_hash: crate::hash(bytes.as_bytes()),
            });
            self.sources.know(source, &manifest);
        }

        fn has_input(&self, name: &str) -> bool {
            self.sources.has_input(self.sources.paths[&Path::new("/l").join(name)], &self.files)
        }

        fn may_have(&mut self, source: &str, name: &str) -> bool {
            let path = Path::new("/l").join(name);
            let (ino, ..) = self.files.0[&path];
            let source = self.sources.paths[&Path::new("/l").join(source)];
            self.sources.may_have(source, &path, ino, &self.files)
        }
    }

    #[test]
    fn a_rotated_name_leads_to_its_input() {
        let bases = |path: &str| rotated_from(Path::new(path)).collect::<Vec<_>>();
        for path in
            ["/l/app.log.1", "/l/app.log.2.gz", "/l/app.log.zst", "/l/app-2026-11-23.log", "/l/app.log-20261123.gz"]
        {
            assert!(bases(path).contains(&PathBuf::from("/l/app.log")), "{path}: {:?}", bases(path));
        }
        assert_eq!(bases("/l/web.1"), [PathBuf::from("/l/web")]);
        assert_eq!(bases("/l/@400000006a3c2b1f0a1b2c3d.s"), [PathBuf::from("/l/current")]);
        for path in ["/l/a.b.log.10", "/l/a.b.1.log"] {
            assert!(bases(path).contains(&PathBuf::from("/l/a.b.log")), "{path}");
        }
        for path in ["/l/app.log", "/l/app-2.log", "/l/webs", "/l/app.log.tar", "/"] {
            assert_eq!(bases(path), [] as [PathBuf; 0], "{path}");
        }
    }

    #[test]
    fn rotated_files_are_no_sources_when_there_is_one_before() {
        let mut world = World::default();
        world.put("app-20261123.log", 1, "old\n");
        world.put("app.log", 2, "new\n");
        world.put("app.log.1", 3, "before\n");
        assert_eq!(world.look(), ["new app.log", "wake app.log", "wake app.log"]);
        assert_eq!(world.look(), [] as [&str; 0], "nothing has changed");
        // Also one that was renamed since it was listed.
        let listed = [("/l/app.log.2".into(), SourceName::new("app.log.2").unwrap())];
        assert_eq!(world.sources.find(&listed.into(), false, &world.files), []);
        // Without one, each is a source of its own.
        let mut world = World::default();
        world.put("app-20261123.log", 1, "one day\n");
        world.put("app-20261124.log", 2, "the next\n");
        assert_eq!(world.look(), ["new app-20261123.log", "new app-20261124.log"]);
    }

    /// A link to a file that is a source is no source; so what has a rotated name of the link is
    /// one.
    #[test]
    fn a_name_after_one_that_is_no_source_is_a_source() {
        let mut world = World::default();
        world.put("app-20261123.log", 1, "one day\n");
        assert_eq!(world.look(), ["new app-20261123.log"]);
        world.put("app.log", 1, "one day\n");
        world.put("app-20261124.log", 2, "the next\n");
        let told = world.look();
        assert!(told.contains(&"new app-20261124.log".to_owned()), "{told:?}");
        assert!(told.contains(&"app.log is of app-20261123.log".to_owned()), "{told:?}");
    }

    #[test]
    fn two_names_of_one_file_are_one_source() {
        let mut world = World::default();
        world.put("a.log", 1, "one\n");
        world.put("b.log", 1, "one\n");
        assert_eq!(world.look(), ["new a.log", "b.log is of a.log", "wake a.log"]);
        assert!(world.has_input("a.log"));
        // Also a new name, when the file was truncated before.
        world.read("a.log");
        for name in ["a.log", "b.log", "c.log"] {
            world.put(name, 1, "");
        }
        assert_eq!(world.look(), ["c.log is of a.log", "wake a.log"]);
    }

    #[test]
    fn a_source_that_was_rotated_before_there_was_its_successor_stays_what_it_is() {
        let mut world = World::default();
        world.put("app.log.1", 1, "first\n");
        assert_eq!(world.look(), ["new app.log.1"]);
        world.read("app.log.1");
        world.put("app.log", 2, "second\n");
        assert_eq!(world.look(), ["new app.log"]);
        world.read("app.log");
        assert!(world.has_input("app.log.1") && !world.may_have("app.log", "app.log.1"));
        world.rename("app.log.1", "app.log.2");
        world.rename("app.log", "app.log.1");
        world.put("app.log", 3, "third\n");
        let told = world.look();
        assert!(told.contains(&"app.log.1 is of app.log".to_owned()), "{told:?}");
        assert!(told.contains(&"app.log.2 is of app.log.1".to_owned()), "{told:?}");
        assert!(!world.has_input("app.log.1") && world.may_have("app.log", "app.log.1"));
        assert!(!world.may_have("app.log", "app.log.2") && world.may_have("app.log.1", "app.log.2"));
        // An archive is of the one that knows its content.
        for (bytes, source, other) in [("first\n", "app.log.1", "app.log"), ("third\n", "app.log", "app.log.1")] {
            world.put("app.log.1.gz", 7, bytes);
            assert!(world.may_have(source, "app.log.1.gz") && !world.may_have(other, "app.log.1.gz"), "{bytes}");
        }
        // A copy is of the source that it has a rotated name of.
        world.put("app.log.1", 9, "second\n");
        assert!(!world.has_input("app.log.1") && world.may_have("app.log", "app.log.1"));
    }

    #[test]
    fn swapped_files_stay_with_their_sources() {
        let mut world = World::default();
        world.put("a.log", 1, "of a\n");
        world.put("b.log", 2, "of b\n");
        assert_eq!(world.look(), ["new a.log", "new b.log"]);
        world.read("a.log");
        world.read("b.log");
        world.rename("a.log", "tmp");
        world.rename("b.log", "a.log");
        world.rename("tmp", "b.log");
        assert_eq!(world.look(), ["a.log is of b.log", "wake b.log", "b.log is of a.log", "wake a.log"]);
        assert!(!world.has_input("a.log") && !world.has_input("b.log"));
        let b = world.sources.paths[Path::new("/l/b.log")];
        assert_eq!(world.sources.strays(b).collect::<Vec<_>>(), [Path::new("/l/a.log")]);
        assert_eq!(world.sources.about(Path::new("/l/a.log")).collect::<Vec<_>>(), [0, b]);
        assert!(world.may_have("b.log", "a.log") && !world.may_have("b.log", "b.log"));
        // A new file there is the source's own again.
        world.put("a.log", 3, "new\n");
        assert_eq!(world.look(), [] as [&str; 0]);
        assert!(world.has_input("a.log") && !world.may_have("b.log", "a.log"));
    }

    #[test]
    fn an_open_file_is_of_the_source_that_it_was_found_for() {
        let mut world = World::default();
        world.put("a.log", 1, "of a\n");
        world.look();
        world.read("a.log");
        // It was at `a.log` for a moment.
        world.put("b.log", 2, "of b\n");
        world.look();
        let file = |ino| FileId { inode: Inode { dev: 1, ino }, created: Some(5) };
        let of_another = |source, ino| world.sources.was_found_for_another(source, file(ino));
        assert!(of_another(0, 2) && !of_another(1, 2));
        assert!(!of_another(0, 1) && of_another(1, 1));
        assert!(!of_another(0, 3), "no source has it");
    }

    #[test]
    fn another_sources_file_under_a_rotated_name_stays_with_its_source() {
        let mut world = World::default();
        world.put("a.log", 1, "of a\n");
        world.put("b.log", 2, "of b\n");
        world.look();
        world.read("a.log");
        world.read("b.log");
        world.rename("b.log", "a.log.1");
        assert_eq!(world.look(), ["a.log.1 is of b.log", "wake b.log"]);
        assert!(!world.may_have("a.log", "a.log.1") && world.may_have("b.log", "a.log.1"));
    }

    /// Two files were swapped, and one was rotated in the folder of the other.
    #[test]
    fn a_file_that_a_source_does_not_look_for_is_found_by_another_one() {
        let mut world = World::default();
        world.put("a.log", 1, "of a\n");
        world.put("deep/b.log", 2, "of b\n");
        world.look();
        world.read("a.log");
        world.read("deep/b.log");
        world.rename("deep/b.log", "a.log.1");
        let b = world.sources.paths[Path::new("/l/deep/b.log")];
        let strays = |world: &World| world.sources.strays(b).map(Path::to_owned).collect::<Vec<_>>();
        assert!(!world.may_have("a.log", "a.log.1"));
        assert_eq!(strays(&world), [Path::new("/l/a.log.1")]);
        // The pattern does not match it.
        assert_eq!(world.sources.find(&BTreeMap::new(), true, &world.files), []);
        assert_eq!(strays(&world), [Path::new("/l/a.log.1")]);
        world.files.0.clear();
        world.look();
        assert_eq!(strays(&world), [] as [&Path; 0]);
    }

    #[test]
    fn a_new_file_with_the_inode_of_a_known_one_is_a_source() {
        let mut world = World::default();
        world.put("a.log", 1, "#head\nof a\n");
        world.look();
        world.read("a.log");
        world.files.0.clear();
        world.put("b.log", 1, "#head\nof b\n");
        assert_eq!(world.look(), ["new b.log"]);
        // Also when it begins alike, and was created at another time.
        world.files.0.insert("/l/c.log".into(), (1, 6, "#head\nof a\n"));
        assert_eq!(world.look(), ["new c.log"]);
    }
}
