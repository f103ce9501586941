//! Reads a file at any offset in large blocks, for `verify`, `merge` and hashing.

use delivery::Hasher;
use delivery::entry::Span;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

/// Size of a read: 1 MiB.
pub(crate) const BUFFER_LEN: usize = 1 << 20;

/// A file, and the part of it that is in memory.
#[derive(Debug)]
pub(crate) struct FileBuffer<'f> {
    file: &'f File,
    buffer: Vec<u8>,
    start: u64,
    len: usize,
}

impl<'f> FileBuffer<'f> {
    /// A buffer over a file; reads nothing yet.
    pub(crate) const fn new(file: &'f File) -> Self {
        Self { file, buffer: Vec::new(), start: 0, len: 0 }
    }

    /// The bytes from `offset` on: at least one and at most `most`, or none at the end of the file.
    pub(crate) fn at(&mut self, offset: u64, most: u64) -> io::Result<&[u8]> {
        let inside =
            offset.checked_sub(self.start).and_then(|skip| usize::try_from(skip).ok()).filter(|&skip| skip < self.len);
        let skip = match inside {
            Some(skip) => skip,
            None => {
                self.buffer.resize(BUFFER_LEN, 0);
                (self.start, self.len) = (offset, 0);
                self.len = read_full(self.file, &mut self.buffer, offset)?;
                0
            }
        };
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        let bytes = self.buffer.get(skip..self.len).unwrap_or_default();
        Ok(bytes.get(..most).unwrap_or(bytes))
    }
}

/// Fills the buffer from `offset` on, up to the end of the file.
pub(crate) fn read_full(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut len = 0;
    while let Some(rest) = buffer.get_mut(len..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, offset.saturating_add(len as u64)) {
            Ok(0) => break,
            Ok(read) => len = len.saturating_add(read),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(len)
}

/// Hashes a range of a file in blocks. `None` if the file does not have the whole range.
pub(crate) fn hash_of(file: &File, span: Span) -> io::Result<Option<u64>> {
    let (mut buffer, mut hasher, mut at) = (FileBuffer::new(file), Hasher::default(), span.start);
    while at < span.end {
        let bytes = buffer.at(at, span.end.saturating_sub(at))?;
        if bytes.is_empty() {
            return Ok(None);
        }
        hasher.update(bytes);
        at = at.saturating_add(bytes.len() as u64);
    }
    Ok(Some(hasher.finish()))
}
