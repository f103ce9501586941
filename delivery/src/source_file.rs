//! An open input file, as far as the rules need one: [`SourceFile`].
//!
//! The reader implements it over a real file, the simulation over one in memory. Nothing here
//! touches a disk.

use crate::files::Inode;
use std::io;

/// An open file. It stays the same file when another one takes its name.
pub trait SourceFile {
    /// Reads at an offset; 0 at the end of the file.
    ///
    /// # Errors
    /// What the file system reports.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// The file's length in bytes, now.
    ///
    /// # Errors
    /// What the file system reports.
    fn len(&self) -> io::Result<u64>;

    /// Which file it is.
    fn inode(&self) -> Inode;

    /// The path that it was opened at, for messages.
    fn path(&self) -> String;

    /// The path with links resolved, when it was opened.
    fn real_path(&self) -> Option<String> {
        None
    }

    /// When it was created: nanoseconds since the epoch on the file system's clock, if that tells.
    fn created(&self) -> Option<i128> {
        None
    }

    /// When it was last written to, on the same clock.
    fn modified(&self) -> Option<i128> {
        None
    }

    /// Whether the file is empty, now.
    ///
    /// # Errors
    /// What the file system reports.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// The bytes `start..end`, or as many as there are.
    ///
    /// # Errors
    /// What the file system reports.
    fn bytes(&self, start: u64, end: u64) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(end.saturating_sub(start)).map_err(io::Error::other)?];
        let mut filled = 0;
        while filled < bytes.len() {
            match self.read_at(&mut bytes[filled..], start.saturating_add(filled as u64))? {
                0 => break,
                n => filled += n,
            }
        }
        bytes.truncate(filled);
        Ok(bytes)
    }

    /// The offset behind the last newline; 0 when there is none.
    ///
    /// # Errors
    /// What the file system reports.
    fn end_of_last_line(&self) -> io::Result<u64> {
        self.line_start(self.len()?)
    }

    /// Where the line begins that has the byte before `offset`; `offset` when a line begins there.
    ///
    /// # Errors
    /// What the file system reports.
    fn line_start(&self, offset: u64) -> io::Result<u64> {
        const BLOCK: u64 = 64 << 10;
        let mut end = offset;
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

/// A file in memory, for tests.
#[cfg(test)]
pub(crate) mod memory {
    use super::SourceFile;
    use crate::files::Inode;
    use std::cell::RefCell;
    use std::io;
    use std::rc::Rc;

    #[derive(Debug, Clone, Default)]
    pub(crate) struct MemoryFile(pub(crate) Rc<RefCell<Vec<u8>>>);

    impl MemoryFile {
        pub(crate) fn new(bytes: &[u8]) -> Self {
            Self(Rc::new(RefCell::new(bytes.to_vec())))
        }

        pub(crate) fn set(&self, bytes: &[u8]) {
            *self.0.borrow_mut() = bytes.to_vec();
        }
    }

    impl SourceFile for MemoryFile {
        fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
            let bytes = self.0.borrow();
            let rest = bytes.get(offset as usize..).unwrap_or_default();
            let len = rest.len().min(buffer.len());
            buffer[..len].copy_from_slice(&rest[..len]);
            Ok(len)
        }

        fn len(&self) -> io::Result<u64> {
            Ok(self.0.borrow().len() as u64)
        }

        fn inode(&self) -> Inode {
            Inode { dev: 1, ino: 1 }
        }

        fn path(&self) -> String {
            "input.txt".to_owned()
        }
    }
}
