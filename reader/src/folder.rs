//! Finding contents: at the input's path, and where rotation put the earlier ones.

use crate::content::{Content, Inode};
use delivery::source::{GUARD_LEN, Generation, Lineage};
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
        let (frontier, guard) = (frontier.max(end.unwrap_or(0)), guard.as_ref());
        let inode = Inode { dev: generation.dev, ino: generation.ino };
        let mut rest = Vec::new();
        for path in std::iter::once(self.input.clone()).chain(self.siblings()?) {
            if Inode::at(&path)? == Some(inode) {
                // When it cannot be opened, it is not gone: that is an error to wait for.
                let content = Content::open(&path)?;
                if content.inode() == inode && content.is(generation, frontier, guard)? {
                    return Ok(Some(content));
                }
            }
            if path == self.input || self.is_rotated_name(&path) {
                rest.push(path);
            }
        }
        for path in rest {
            if let Ok(content) = Content::open(&path)
                && content.is(generation, frontier, guard)?
            {
                return Ok(Some(content));
            }
        }
        Ok(None)
    }

    /// Rotated files that are no known content and were written to since the source began, the oldest first.
    ///
    /// `offset`: how far the newest content was sent. A file with the head of a known content is still another one when it has other bytes at
    /// that one's guard, or is shorter and no beginning of it.
    pub(crate) fn unknown_rotated(&self, lineage: &Lineage, offset: u64) -> io::Result<Vec<Content>> {
        let current = Inode::at(&self.input)?;
        let since = UNIX_EPOCH + Duration::from_millis(lineage.first().map_or(0, |g| g.generation));
        let mut found = Vec::new();
        for path in self.siblings()? {
            let metadata = fs::metadata(&path)?;
            let modified = metadata.modified()?;
            let written = metadata.len() > 0 && modified >= since && Some(Inode::of(&metadata)) != current;
            if written && self.is_rotated_name(&path) && !self.is_known(&Content::open(&path)?, lineage, offset)? {
                found.push((modified, path));
            }
        }
        found.sort_by_key(|(modified, _)| *modified);
        found.into_iter().map(|(_, path)| Content::open(&path)).collect()
    }

    /// Whether a file is a known content, or a copy of its beginning.
    fn is_known(&self, content: &Content, lineage: &Lineage, offset: u64) -> io::Result<bool> {
        let len = content.len()?;
        for generation in lineage.contents() {
            let (end, guard) = lineage.seal(generation.root);
            let end = end.unwrap_or(offset);
            if content.is(generation, end, guard.as_ref())? {
                return Ok(true);
            }
            if len >= end || !content.has_head_of(generation)? {
                continue;
            }
            // Shorter: a copy that was made on the way ends as the original goes on.
            if let Some(original) = self.find(lineage, generation, 0)?
                && original.inode() != content.inode()
            {
                let from = len.saturating_sub(GUARD_LEN as u64);
                if original.bytes(from, len)? == content.bytes(from, len)? {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// The other regular files in the input's folder, and in the folder that a symbolic link leads to.
    fn siblings(&self) -> io::Result<Vec<PathBuf>> {
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
                if path != self.input && fs::symlink_metadata(&path).is_ok_and(|m| m.is_file()) {
                    siblings.push(path);
                }
            }
        }
        Ok(siblings)
    }

    /// Whether a name is one that rotation gives: the input's name and a number or date behind it, or before its extension
    /// (`input.txt.1`, `input.txt-20261123`, `input-2026-11-23.txt`). Compressed files are none: their bytes are others.
    fn is_rotated_name(&self, path: &Path) -> bool {
        // Behind a symbolic link, it is the file that is rotated.
        let target = fs::canonicalize(&self.input).unwrap_or_else(|_| self.input.clone());
        is_rotated(path, &self.input) || is_rotated(path, &target)
    }
}

fn is_rotated(path: &Path, input: &Path) -> bool {
    let text = |p: Option<&std::ffi::OsStr>| p.map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let name = text(path.file_name());
    let (input, stem) = (text(input.file_name()), text(input.file_stem()));
    let marks = |middle: &str| {
        middle.bytes().any(|b| b.is_ascii_digit())
            && middle.bytes().all(|b| b.is_ascii_digit() || b"._-T:".contains(&b))
    };
    let behind = name.strip_prefix(&input).is_some_and(marks);
    let extension = input.strip_prefix(&stem).unwrap_or_default();
    let inside = name.strip_prefix(&stem).and_then(|n| n.strip_suffix(extension)).is_some_and(marks);
    behind || inside
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
        assert!(folder.unknown_rotated(&lineage, 4).unwrap().is_empty(), "the copy is no content of its own");
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
        assert_eq!(folder.unknown_rotated(&lineage, 0).unwrap().len(), 1);
        fs::write(temp.path().join("input.txt.1"), "header\none\n").unwrap();
        assert!(folder.find(&lineage, &first, 0).unwrap().is_some());
        assert!(folder.unknown_rotated(&lineage, 0).unwrap().is_empty());
        fs::write(temp.path().join("input.txt.2"), "header\non").unwrap();
        assert!(folder.unknown_rotated(&lineage, 0).unwrap().is_empty(), "a copy of the beginning");
    }

    #[test]
    fn a_content_of_which_a_partition_had_nothing_is_known_to_it() {
        let temp = tempfile::tempdir().unwrap();
        let input = temp.path().join("input.txt");
        let folder = Folder::new(input.clone());
        let small = temp.path().join("input.txt.1");
        fs::write(&small, "a small one\n").unwrap();
        fs::write(&input, "the next\n").unwrap();
        let mut lineage = Lineage::default();
        lineage.insert(generation(&Content::open(&small).unwrap()));
        let next = generation(&folder.current().unwrap().unwrap());
        lineage.insert(Generation { generation: 2, root: 2, previous_end: Some(0), ..next });
        assert!(folder.unknown_rotated(&lineage, 1000).unwrap().is_empty(), "however far the next one was sent");
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
        let names: Vec<_> = folder.unknown_rotated(&lineage, 4).unwrap().iter().map(|c| c.path().to_owned()).collect();
        assert_eq!(names, [temp.path().join("input.txt.2"), temp.path().join("input.txt.1")]);
        // Nothing that was there before the source began.
        let mut late = Lineage::default();
        late.insert(Generation { generation: 5_000_000, root: 5_000_000, ..lineage.first().unwrap().clone() });
        assert!(folder.unknown_rotated(&late, 4).unwrap().is_empty());
    }
}
