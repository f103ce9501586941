//! Finding contents: at the input's path, and where rotation put the earlier ones.

use crate::content::{Content, Inode};
use delivery::source::{Generation, Lineage};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

/// The input's path and the folders around it.
#[derive(Debug)]
pub(crate) struct Folder {
    input: PathBuf,
}

impl Folder {
    /// `input` is absolute, its last part may be a symbolic link.
    pub(crate) const fn new(input: PathBuf) -> Self {
        Self { input }
    }

    pub(crate) fn input(&self) -> &Path {
        &self.input
    }

    /// What lies at the input's path now; `None` when nothing does.
    pub(crate) fn current(&self) -> io::Result<Option<Content>> {
        match Content::open(&self.input) {
            Ok(content) => Ok(Some(content)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The file that holds a generation's content, of which everything before `frontier` was sent.
    ///
    /// The same inode is believed first, wherever it was moved to; then the same bytes at the input's path (a restored or copied file); then
    /// the same bytes in a rotated file (a copy made before the input was truncated).
    pub(crate) fn find(
        &self,
        lineage: &Lineage,
        generation: &Generation,
        frontier: u64,
    ) -> io::Result<Option<Content>> {
        let (end, guard) = lineage.seal(generation.root);
        let (frontier, guard) = (frontier.max(end), guard.as_ref());
        let inode = Inode { dev: generation.dev, ino: generation.ino };
        let current = self.current()?;
        let mut rest = Vec::new();
        for content in current.into_iter().chain(self.siblings()?) {
            if content.inode() == inode && content.is(generation, frontier, guard)? {
                return Ok(Some(content));
            }
            if content.path() == self.input || self.is_rotated_name(content.path()) {
                rest.push(content);
            }
        }
        for content in rest {
            if content.is(generation, frontier, guard)? {
                return Ok(Some(content));
            }
        }
        Ok(None)
    }

    /// Rotated files that are no known content and were written to since `since_ms` (milliseconds since the epoch), the oldest first.
    ///
    /// `offset`: how far the newest generation was sent. A file with the head of a known content is still another one when it is shorter than
    /// what was sent of that, or has other bytes at its guard.
    pub(crate) fn unknown_rotated(&self, lineage: &Lineage, since_ms: u64, offset: u64) -> io::Result<Vec<Content>> {
        let current = Inode::at(&self.input)?;
        let since = UNIX_EPOCH + Duration::from_millis(since_ms);
        let mut found = Vec::new();
        for content in self.siblings()? {
            let unknown = || {
                for generation in lineage.iter() {
                    let (end, guard) = lineage.seal(generation.root);
                    let end = if end == 0 { offset } else { end };
                    if content.is(generation, end, guard.as_ref())? {
                        return Ok::<_, io::Error>(false);
                    }
                }
                Ok(true)
            };
            let modified = fs::metadata(content.path()).and_then(|m| m.modified())?;
            if Some(content.inode()) != current
                && self.is_rotated_name(content.path())
                && modified >= since
                && content.len()? > 0
                && unknown()?
            {
                found.push((modified, content));
            }
        }
        found.sort_by_key(|(modified, _)| *modified);
        Ok(found.into_iter().map(|(_, content)| content).collect())
    }

    /// The other regular files in the input's folder, and in the folder that a symbolic link leads to. One that cannot be opened is
    /// none.
    fn siblings(&self) -> io::Result<Vec<Content>> {
        let mut folders: Vec<PathBuf> = self.input.parent().map(Path::to_owned).into_iter().collect();
        if let Some(real) = fs::canonicalize(&self.input).ok().as_deref().and_then(Path::parent)
            && !folders.iter().any(|f| fs::canonicalize(f).is_ok_and(|f| f == real))
        {
            folders.push(real.to_owned());
        }
        let mut siblings = Vec::new();
        for folder in folders {
            for entry in fs::read_dir(folder)? {
                let path = entry?.path();
                if path != self.input
                    && fs::symlink_metadata(&path).is_ok_and(|m| m.is_file())
                    && let Ok(content) = Content::open(&path)
                {
                    siblings.push(content);
                }
            }
        }
        Ok(siblings)
    }

    /// Whether a name is one that rotation gives: the input's name and a number or date behind it, or before its extension
    /// (`input.txt.1`, `input.txt-20261123`, `input-2026-11-23.txt`). Compressed files are none: their bytes are others.
    fn is_rotated_name(&self, path: &Path) -> bool {
        let text = |p: Option<&std::ffi::OsStr>| p.map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let name = text(path.file_name());
        let (input, stem) = (text(self.input.file_name()), text(self.input.file_stem()));
        let marks = |middle: &str| {
            middle.bytes().any(|b| b.is_ascii_digit())
                && middle.bytes().all(|b| b.is_ascii_digit() || b"._-T:".contains(&b))
        };
        let behind = name.strip_prefix(&input).is_some_and(marks);
        let extension = input.strip_prefix(&stem).unwrap_or_default();
        let inside = name.strip_prefix(&stem).and_then(|n| n.strip_suffix(extension)).is_some_and(marks);
        behind || inside
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generation(content: &Content) -> Generation {
        let (head_len, head_hash) = content.head().unwrap();
        let inode = content.inode();
        Generation {
            generation: 1,
            root: 1,
            start: 0,
            previous_end: None,
            previous_guard: None,
            path: String::new(),
            dev: inode.dev,
            ino: inode.ino,
            head_len,
            head_hash,
        }
    }

    #[test]
    fn rotated_names() {
        let folder = Folder::new("/logs/input.txt".into());
        for name in ["input.txt.1", "input.txt-20261123", "input-2026-11-23.txt", "input.1.txt"] {
            assert!(folder.is_rotated_name(Path::new(name)), "{name}");
        }
        for name in ["input.txt", "input.txt.journal", "input.txt.1.gz", "output.txt.1", "input.txt.bak", "input.txt~"]
        {
            assert!(!folder.is_rotated_name(Path::new(name)), "{name}");
        }
    }

    #[test]
    fn a_renamed_file_is_found_before_its_successor_with_the_same_head() {
        let temp = tempfile::tempdir().unwrap();
        let input = temp.path().join("input.txt");
        let folder = Folder::new(input.clone());
        fs::write(&input, "header\n").unwrap();
        let known = generation(&folder.current().unwrap().unwrap());
        fs::rename(&input, temp.path().join("input.txt.1")).unwrap();
        fs::write(&input, "header\nnew\n").unwrap();
        let found = folder.find(&Lineage::default(), &known, 7).unwrap().unwrap();
        assert!(found.path().ends_with("input.txt.1"));
    }

    #[test]
    fn a_truncated_input_is_found_in_its_copy() {
        let temp = tempfile::tempdir().unwrap();
        let input = temp.path().join("input.txt");
        let folder = Folder::new(input.clone());
        fs::write(&input, "one\ntwo\n").unwrap();
        let known = generation(&folder.current().unwrap().unwrap());
        fs::copy(&input, temp.path().join("input.txt.1")).unwrap();
        fs::write(&input, "three\n").unwrap();
        let found = folder.find(&Lineage::default(), &known, 4).unwrap().unwrap();
        assert!(found.path().ends_with("input.txt.1"));
        let mut lineage = Lineage::default();
        lineage.insert(known);
        assert!(folder.unknown_rotated(&lineage, 0, 4).unwrap().is_empty(), "the copy is no content of its own");
    }

    #[test]
    fn the_same_header_does_not_make_the_same_content() {
        let temp = tempfile::tempdir().unwrap();
        let input = temp.path().join("input.txt");
        let folder = Folder::new(input.clone());
        fs::write(&input, "header\n").unwrap();
        let first = generation(&folder.current().unwrap().unwrap());
        let end = b"header\none\n".len() as u64;
        let sealed = delivery::source::Guard::new(1, end, end, b"header\none\n");
        let second = Generation {
            generation: 2,
            root: 2,
            previous_end: Some(end),
            previous_guard: Some(sealed),
            ino: 0,
            head_len: 3,
            head_hash: 7,
            ..first.clone()
        };
        let mut lineage = Lineage::default();
        lineage.insert(first.clone());
        lineage.insert(second);
        fs::write(&input, "header\ntwo and more\n").unwrap();
        fs::write(temp.path().join("input.txt.1"), "header\nthree and more\n").unwrap();
        assert!(folder.find(&lineage, &first, 0).unwrap().is_none(), "another content with the same header");
        assert_eq!(folder.unknown_rotated(&lineage, 0, 0).unwrap().len(), 1);
        fs::write(temp.path().join("input.txt.1"), "header\none\n").unwrap();
        assert!(folder.find(&lineage, &first, 0).unwrap().is_some());
        assert!(folder.unknown_rotated(&lineage, 0, 0).unwrap().is_empty());
    }

    #[test]
    fn contents_rotated_away_unseen_are_found_in_order() {
        let temp = tempfile::tempdir().unwrap();
        let input = temp.path().join("input.txt");
        let folder = Folder::new(input.clone());
        for (index, name) in ["input.txt.3", "input.txt.2", "input.txt.1", "input.txt"].iter().enumerate() {
            let path = temp.path().join(name);
            fs::write(&path, format!("content {index}\n")).unwrap();
            let modified = UNIX_EPOCH + Duration::from_secs(1000 + index as u64);
            fs::File::options().write(true).open(&path).unwrap().set_modified(modified).unwrap();
        }
        let mut lineage = Lineage::default();
        lineage.insert(generation(&Content::open(&temp.path().join("input.txt.3")).unwrap()));
        let names: Vec<_> =
            folder.unknown_rotated(&lineage, 0, 4).unwrap().iter().map(|c| c.path().to_owned()).collect();
        assert_eq!(names, [temp.path().join("input.txt.2"), temp.path().join("input.txt.1")]);
        assert!(folder.unknown_rotated(&lineage, 5_000_000, 4).unwrap().is_empty(), "not written to since then");
    }
}
