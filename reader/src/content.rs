//! An open file, and whether it is a content that is known.

use delivery::hash;
use delivery::source::{GUARD_LEN, Generation, Guard, HEAD_LEN};
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

/// An open file. It stays the same content when its name goes to another one.
#[derive(Debug)]
pub(crate) struct Content {
    file: File,
    path: PathBuf,
    inode: Inode,
}

/// Which file it is on this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Inode {
    pub(crate) dev: u64,
    pub(crate) ino: u64,
}

impl Inode {
    pub(crate) fn of(metadata: &Metadata) -> Self {
        Self { dev: metadata.dev(), ino: metadata.ino() }
    }

    /// The file that a path leads to now; `None` when there is none.
    pub(crate) fn at(path: &Path) -> io::Result<Option<Self>> {
        match std::fs::metadata(path) {
            Ok(metadata) => Ok(Some(Self::of(&metadata))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl Content {
    /// Opens a regular file.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        // A pipe would block in open, and has no positions.
        if !std::fs::metadata(path)?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        let file = File::open(path)?;
        let inode = Inode::of(&file.metadata()?);
        Ok(Self { file, path: path.to_owned(), inode })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) const fn inode(&self) -> Inode {
        self.inode
    }

    /// The file's length in bytes, now.
    pub(crate) fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// Reads at an offset; 0 at the end of the file.
    pub(crate) fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        loop {
            match self.file.read_at(buffer, offset) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => return other,
            }
        }
    }

    /// The bytes `start..end`, or as many as there are.
    pub(crate) fn bytes(&self, start: u64, end: u64) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(end.saturating_sub(start)).map_err(io::Error::other)?];
        let mut filled = 0;
        while filled < bytes.len() {
            match self.read_at(&mut bytes[filled..], start + filled as u64)? {
                0 => break,
                n => filled += n,
            }
        }
        bytes.truncate(filled);
        Ok(bytes)
    }

    /// The fingerprint of the first bytes as they are now: how many, and their hash.
    pub(crate) fn head(&self) -> io::Result<(u64, u64)> {
        let bytes = self.bytes(0, HEAD_LEN as u64)?;
        Ok((bytes.len() as u64, hash(&bytes)))
    }

    /// Whether the first bytes are those of a generation's content.
    pub(crate) fn has_head_of(&self, generation: &Generation) -> io::Result<bool> {
        let bytes = self.bytes(0, generation.head_len.min(HEAD_LEN as u64))?;
        Ok(bytes.len() as u64 == generation.head_len && hash(&bytes) == generation.head_hash)
    }

    /// Whether this is the content of a generation, of which everything before `frontier` was sent: it is long enough, begins with the same
    /// bytes, and has the same bytes before the guard's position.
    pub(crate) fn is(&self, generation: &Generation, frontier: u64, guard: Option<&Guard>) -> io::Result<bool> {
        if self.len()? < frontier || !self.has_head_of(generation)? {
            return Ok(false);
        }
        let Some(guard) = guard else { return Ok(true) };
        // A guard behind the frontier speaks of bytes that Redis lost again; a content that shrank below it is another one all the same.
        let bytes = self.bytes(guard.end.saturating_sub(guard.len.min(GUARD_LEN as u64)), guard.end)?;
        Ok(bytes.len() as u64 == guard.len && hash(&bytes) == guard.hash)
    }

    /// The offset behind the last newline; 0 when there is none.
    pub(crate) fn end_of_last_line(&self) -> io::Result<u64> {
        const BLOCK: u64 = 64 << 10;
        let mut end = self.len()?;
        while end > 0 {
            let start = end.saturating_sub(BLOCK);
            if let Some(at) = memchr::memrchr(b'\n', &self.bytes(start, end)?) {
                return Ok(start + at as u64 + 1);
            }
            end = start;
        }
        Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generation(content: &Content) -> Generation {
        let (head_len, head_hash) = content.head().unwrap();
        Generation {
            generation: 1,
            root: 1,
            start: 0,
            previous_end: None,
            previous_guard: None,
            path: String::new(),
            dev: 0,
            ino: 0,
            head_len,
            head_hash,
        }
    }

    fn content(folder: &tempfile::TempDir, bytes: &[u8]) -> Content {
        let path = folder.path().join("input.txt");
        std::fs::write(&path, bytes).unwrap();
        Content::open(&path).unwrap()
    }

    #[test]
    fn growth_is_the_same_content_and_another_head_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let known = generation(&content(&folder, b"header\none\n"));
        assert!(content(&folder, b"header\none\ntwo\n").is(&known, 11, None).unwrap());
        assert!(!content(&folder, b"Header\none\ntwo\n").is(&known, 11, None).unwrap());
        assert!(!content(&folder, b"header\none").is(&known, 11, None).unwrap(), "shorter than what was sent");
    }

    #[test]
    fn the_guard_tells_contents_with_the_same_head_apart() {
        let folder = tempfile::tempdir().unwrap();
        let known = generation(&content(&folder, b"header\n"));
        let guard = Guard::new(1, 11, 11, b"header\none\n");
        assert!(content(&folder, b"header\none\ntwo\n").is(&known, 11, Some(&guard)).unwrap());
        assert!(!content(&folder, b"header\nONE\ntwo\n").is(&known, 11, Some(&guard)).unwrap());
    }

    #[test]
    fn the_end_of_the_last_line_is_found_far_from_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let mut bytes = b"one\n".to_vec();
        bytes.resize(300_000, b'x');
        assert_eq!(content(&folder, &bytes).end_of_last_line().unwrap(), 4);
        assert_eq!(content(&folder, b"").end_of_last_line().unwrap(), 0);
    }
}
