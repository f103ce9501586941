//! The inputs of many files: patterns, the names of their sources, and exclusions.

use delivery::source_name::SourceName;
use globset::{GlobBuilder, GlobMatcher, GlobSet, GlobSetBuilder};
use service::Failure;
use std::ffi::{OsStr, OsString};
use std::fs::{self, FileType};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

/// Maximum depth of a walk, so that it ends even if links form a loop.
const DEPTH: usize = 64;

/// One `--input`: a pattern, or the path of one file.
#[derive(Debug)]
pub(crate) struct Pattern {
    /// The pattern as given, for messages.
    pub(crate) text: String,
    /// The fixed part. Names are relative to it.
    pub(crate) base: PathBuf,
    parts: Vec<Part>,
}

/// What one component of a path must match.
#[derive(Debug)]
enum Part {
    Name(OsString),
    /// Hidden names only if the pattern begins with a dot.
    Glob {
        matcher: GlobMatcher,
        hidden: bool,
    },
    /// `**`: any number of folders.
    Deep,
}

/// The files that a walk finds.
pub(crate) trait Found {
    /// A folder, before it is listed.
    fn folder(&mut self, path: &Path);
    /// A file.
    fn file(&mut self, path: PathBuf);
    /// A folder that cannot be listed.
    fn unlisted(&mut self, path: &Path, error: io::Error);
}

/// Whether a path has characters that patterns are made of.
pub(crate) fn is_glob(path: &Path) -> bool {
    path.as_os_str().as_bytes().iter().any(|byte| b"*?[{".contains(byte))
}

impl Part {
    fn new(component: &OsStr) -> Result<Self, String> {
        if !is_glob(Path::new(component)) {
            return Ok(Self::Name(component.to_owned()));
        }
        let text = component.to_str().ok_or("a pattern that is not UTF-8")?;
        if text == "**" {
            return Ok(Self::Deep);
        }
        let glob = GlobBuilder::new(text).literal_separator(true).build();
        let matcher = glob.map_err(|error| error.kind().to_string())?.compile_matcher();
        Ok(Self::Glob { matcher, hidden: text.starts_with('.') })
    }

    fn is_match(&self, name: &OsStr) -> bool {
        match self {
            Self::Name(own) => own == name,
            Self::Glob { matcher, hidden } => (*hidden || !is_hidden(name)) && matcher.is_match(Path::new(name)),
            Self::Deep => !is_hidden(name),
        }
    }
}

fn is_hidden(name: &OsStr) -> bool {
    name.as_bytes().first() == Some(&b'.')
}

impl Pattern {
    /// The pattern that `input` is: a path without pattern characters, or the name of a file that
    /// exists, stands for one file.
    ///
    /// # Errors
    /// Why it is none, and what is allowed.
    pub(crate) fn new(input: &Path) -> Result<Self, String> {
        let text = input.display().to_string();
        let path = std::path::absolute(input).map_err(|error| format!("{error}; allowed: a path, or a pattern"))?;
        let is_plain = !is_glob(input) || path.symlink_metadata().is_ok();
        // Only what was given is a pattern, not the folder that it is relative to.
        let given = input.components().filter(|component| matches!(component, Component::Normal(_))).count();
        let all = path.components().count();
        let mut base = PathBuf::new();
        let mut parts = Vec::new();
        for (nth, component) in path.components().enumerate() {
            let is_last = nth.saturating_add(1) == all;
            let is_given = nth.saturating_add(given) >= all;
            match component {
                Component::Normal(name) if is_plain && is_last => parts.push(Part::Name(name.to_owned())),
                Component::Normal(name)
                    if !is_plain && (!parts.is_empty() || is_last || is_given && is_glob(Path::new(name))) =>
                {
                    let part = Part::new(name)
                        .map_err(|why| format!("{why}; allowed: a pattern of * ? [a-z] {{a,b}} and **"))?;
                    parts.push(part);
                }
                Component::ParentDir if !parts.is_empty() => {
                    return Err("a pattern with .. in it; allowed: .. before the pattern".to_owned());
                }
                other => base.push(other),
            }
        }
        match parts.last() {
            None => Err("a folder; allowed: a file's path, or a pattern such as '/var/log/*.log'".to_owned()),
            Some(Part::Deep) => {
                Err("a pattern of folders; allowed: one of files, such as '/var/log/**/*.log'".to_owned())
            }
            Some(Part::Name(_)) if is_plain && path.is_dir() => {
                Err("a folder; allowed: a file's path, or a pattern such as '/var/log/*.log'".to_owned())
            }
            Some(_) => Ok(Self { text, base, parts }),
        }
    }

    /// The path, when this is the path of one file.
    pub(crate) fn plain(&self) -> Option<PathBuf> {
        match &self.parts[..] {
            [Part::Name(name)] => Some(self.base.join(name)),
            _ => None,
        }
    }

    /// The name of the source at this path, if the pattern matches it.
    pub(crate) fn name_of(&self, path: &Path) -> Option<Result<SourceName, delivery::source_name::WrongName>> {
        let below = path.strip_prefix(&self.base).ok()?;
        let names: Vec<&OsStr> = below.iter().collect();
        matches(&self.parts, &names).then(|| SourceName::new(below.as_os_str().as_bytes()))
    }

    /// Visits the folders that the pattern leads through, and the files that match.
    pub(crate) fn walk(&self, found: &mut impl Found) {
        walk(&self.base, &self.parts, DEPTH, found);
    }
}

fn matches(parts: &[Part], names: &[&OsStr]) -> bool {
    match (parts.split_first(), names.split_first()) {
        (None, None) => true,
        (Some((Part::Deep, rest)), first) => {
            matches(rest, names)
                || first.is_some_and(|(name, below)| Part::Deep.is_match(name) && matches(parts, below))
        }
        (Some((part, rest)), Some((name, below))) => part.is_match(name) && matches(rest, below),
        _ => false,
    }
}

fn walk(folder: &Path, parts: &[Part], depth: usize, found: &mut impl Found) {
    let Some((part, rest)) = parts.split_first() else { return };
    found.folder(folder);
    if let (Part::Name(name), true) = (part, !rest.is_empty()) {
        if depth > 0 {
            walk(&folder.join(name), rest, depth.saturating_sub(1), found);
        }
        return;
    }
    if let Part::Name(name) = part {
        let path = folder.join(name);
        if path.is_file() {
            found.file(path);
        }
        return;
    }
    // The last names below `**` are those of the files beside its folders.
    let beside = match (part, rest) {
        (Part::Deep, [file]) => Some(file),
        (_, []) => Some(part),
        _ => None,
    };
    if let (Part::Deep, [_, _, ..]) = (part, rest) {
        walk(folder, rest, depth, found);
    }
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return,
        Err(error) => return found.unlisted(folder, error),
    };
    for entry in entries.filter_map(Result::ok) {
        let (name, kind) = (entry.file_name(), entry.file_type().ok());
        let is_link = kind.as_ref().is_some_and(FileType::is_symlink);
        let path = folder.join(&name);
        let is_file = || if is_link { path.is_file() } else { kind.as_ref().is_some_and(FileType::is_file) };
        // A link to a folder is followed where the pattern ends; `**` could follow it forever.
        let is_folder = match part {
            Part::Deep => kind.as_ref().is_some_and(FileType::is_dir),
            _ if is_link => path.is_dir(),
            _ => kind.as_ref().is_some_and(FileType::is_dir),
        };
        if is_folder && depth > 0 && part.is_match(&name) {
            match part {
                Part::Deep => walk(&path, parts, depth.saturating_sub(1), found),
                _ if !rest.is_empty() => walk(&path, rest, depth.saturating_sub(1), found),
                _ => {}
            }
        } else if beside.is_some_and(|part| part.is_match(&name)) && is_file() {
            found.file(path);
        }
    }
}

/// The patterns of `--exclude`.
#[derive(Debug)]
pub(crate) struct Excluded {
    /// Those without a slash, for the names of files.
    names: GlobSet,
    /// Those with one, for names of sources and for paths.
    paths: GlobSet,
}

impl Excluded {
    /// # Errors
    /// Text that is not a pattern.
    pub(crate) fn new(patterns: &[String]) -> Result<Self, Failure> {
        let (mut names, mut paths) = (GlobSetBuilder::new(), GlobSetBuilder::new());
        for text in patterns {
            let wrong = |why: String| {
                let from = service::args::origin("exclude");
                Failure::config(format!(
                    "--exclude {text:?}{from}: {why}; allowed: a pattern of * ? [a-z] {{a,b}} and **"
                ))
            };
            if text.is_empty() {
                return Err(wrong("it is empty".to_owned()));
            }
            let glob = GlobBuilder::new(text).literal_separator(true).build();
            let glob = glob.map_err(|error| wrong(error.kind().to_string()))?;
            if text.contains('/') {
                paths.add(glob)
            } else {
                names.add(glob)
            };
        }
        let build = |set: GlobSetBuilder| set.build().map_err(|error| Failure::config(format!("--exclude: {error}")));
        Ok(Self { names: build(names)?, paths: build(paths)? })
    }

    pub(crate) fn has(&self, path: &Path, name: &SourceName) -> bool {
        path.file_name().is_some_and(|file| self.names.is_match(Path::new(file)))
            || self.paths.is_match(name.path())
            || self.paths.is_match(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[derive(Default)]
    struct Collected(BTreeSet<PathBuf>, BTreeSet<PathBuf>);

    impl Found for Collected {
        fn folder(&mut self, path: &Path) {
            self.1.insert(path.to_owned());
        }
        fn file(&mut self, path: PathBuf) {
            self.0.insert(path);
        }
        fn unlisted(&mut self, _: &Path, _: io::Error) {}
    }

    #[test]
    fn patterns_find_what_they_match_and_name_it() {
        let folder = tempfile::tempdir().unwrap();
        for path in ["a.log", "b.txt", ".c.log", "one/a.log", "one/two/a.log", "one/two/.h/a.log", "three/a.log/x"] {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "x\n").unwrap();
        }
        let found = |pattern: &str| {
            let pattern = Pattern::new(&folder.path().join(pattern)).unwrap();
            let mut collected = Collected::default();
            pattern.walk(&mut collected);
            let name = |path: PathBuf| pattern.name_of(&path).unwrap().unwrap().escaped();
            collected.0.into_iter().map(name).collect::<Vec<_>>()
        };
        assert_eq!(found("*.log"), ["a.log"]);
        assert_eq!(found(".*.log"), [".c.log"]);
        assert_eq!(found("*"), ["a.log", "b.txt"]);
        assert_eq!(found("**/*.log"), ["a.log", "one/a.log", "one/two/a.log"]);
        assert_eq!(found("*/a.log"), ["one/a.log"]);
        assert_eq!(found("one/*/*.log"), ["two/a.log"]);
        assert_eq!(found("**/two/*.log"), ["one/two/a.log"]);
        assert_eq!(found("{one,three}/**/*.log"), ["one/a.log", "one/two/a.log"]);
        assert_eq!(found("a.log"), ["a.log"]);
        assert!(Pattern::new(folder.path()).unwrap_err().contains("a folder"));
        assert!(Pattern::new(Path::new("/x/**")).unwrap_err().contains("one of files"));
        assert!(Pattern::new(Path::new("/x/[")).unwrap_err().contains("allowed"));
    }

    #[test]
    fn a_file_that_is_called_like_a_pattern_is_itself() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a[1].log"), "x\n").unwrap();
        let pattern = Pattern::new(&folder.path().join("a[1].log")).unwrap();
        assert_eq!(pattern.plain(), Some(folder.path().join("a[1].log")));
    }

    #[test]
    fn exclusions_look_at_names_or_paths() {
        let excluded = Excluded::new(&["*.gz".to_owned(), "old/**".to_owned()]).unwrap();
        let has = |path: &str| excluded.has(Path::new("/logs").join(path).as_path(), &SourceName::new(path).unwrap());
        assert!(has("a/b.gz") && has("old/a.log"));
        assert!(!has("a.log") && !has("new/old.log"));
        assert!(Excluded::new(&["[".to_owned()]).is_err());
    }
}
