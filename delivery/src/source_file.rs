//! [`SourceFile`]: an open input file, reduced to what the delivery rules need.
//!
//! The reader implements it for a real file, and the simulation for a file in memory. This crate
//! itself does no I/O.

use crate::files::Inode;
use std::io;

/// An open file. It stays the same file when another file takes its name.
pub trait SourceFile {
    /// Reads at an offset; 0 at the end of the file.
    ///
    /// # Errors
    /// I/O errors of the file.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// The current length in bytes.
    ///
    /// # Errors
    /// I/O errors of the file.
    fn len(&self) -> io::Result<u64>;

    /// The identity of the file.
    fn inode(&self) -> Inode;

    /// The path at which it was opened, for messages.
    fn path(&self) -> String;

    /// The path with links resolved at the time of opening.
    fn real_path(&self) -> Option<String> {
        None
    }

    /// The creation time in nanoseconds since the epoch on the file system's clock, if available.
    fn created(&self) -> Option<i128> {
        None
    }

    /// The modification time, on the same clock.
    fn modified(&self) -> Option<i128> {
        None
    }

    /// Frees the memory that makes reading faster. Called when no more reads are expected.
    fn free_memory(&self) {}

    /// Whether the file is empty now.
    ///
    /// # Errors
    /// I/O errors of the file.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// The bytes `start..end`, or fewer at the end of the file.
    ///
    /// # Errors
    /// I/O errors of the file.
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

    /// The offset after the last newline; 0 if there is none.
    ///
    /// # Errors
    /// I/O errors of the file.
    fn end_of_last_line(&self) -> io::Result<u64> {
        self.line_start(self.len()?)
    }

    /// The start of the line that contains the byte before `offset`; `offset` if a line begins
    /// there.
    ///
    /// # Errors
    /// I/O errors of the file.
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
