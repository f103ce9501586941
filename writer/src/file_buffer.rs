//! Reading a file at any offset, in large pieces.

use delivery::Hasher;
use delivery::entry::Span;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

/// How many bytes are read at once: 1 MiB.
pub(crate) const BUFFER_LEN: usize = 1 << 20;

/// The part of a file that is in memory.
#[derive(Debug)]
pub(crate) struct FileBuffer<'f> {
    file: &'f File,
    buffer: Vec<u8>,
    start: u64,
    len: usize,
}

impl<'f> FileBuffer<'f> {
    /// A window on a file; nothing is read yet.
    pub(crate) const fn new(file: &'f File) -> Self {
        Self { file, buffer: Vec::new(), start: 0, len: 0 }
    }

    /// The bytes from `offset` on: at most `most`, at least one; none at the end of the file.
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

/// Fills the buffer from `offset` on, as far as the file goes.
pub(crate) fn read_full(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut len = 0;
    while let Some(rest) = buffer.get_mut(len..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, offset + len as u64) {
            Ok(0) => break,
            Ok(read) => len += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(len)
}

/// The hash of a range of a file, read in pieces. `None`: it does not have all of it.
pub(crate) fn hash_of(file: &File, span: Span) -> io::Result<Option<u64>> {
    let (mut window, mut hasher, mut at) = (FileBuffer::new(file), Hasher::default(), span.start);
    while at < span.end {
        let bytes = window.at(at, span.end - at)?;
        if bytes.is_empty() {
            return Ok(None);
        }
        hasher.update(bytes);
        at += bytes.len() as u64;
    }
    Ok(Some(hasher.finish()))
}
