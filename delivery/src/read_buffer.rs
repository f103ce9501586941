//! The read buffer: reads a file in large blocks, and holds the bytes that are not consumed yet.
//!
//! The [line reader](crate::line_reader) owns one per file.

use crate::manifest::GUARD_LEN;
use crate::source_file::SourceFile;
use std::io;

/// Size of a read: 256 KiB.
pub const BLOCK: usize = 256 << 10;
/// Number of bytes that each read reads again, to detect a rewritten file.
const OVERLAP: usize = 64;

/// The bytes of a file that were read and not consumed, preceded by the last consumed bytes.
#[derive(Debug)]
pub struct ReadBuffer {
    /// Size of a read.
    block: usize,
    /// History, then unconsumed bytes, then free space.
    buffer: Vec<u8>,
    /// Start of the unconsumed bytes.
    taken: usize,
    /// End of the unconsumed bytes.
    filled: usize,
    /// The offset in the content of `buffer[taken]`.
    offset: u64,
}

impl ReadBuffer {
    /// A buffer that starts at an offset.
    ///
    /// # Errors
    /// I/O errors of the file.
    pub fn open(file: &impl SourceFile, block: usize, offset: u64) -> io::Result<Self> {
        let mut buffer = file.bytes(offset.saturating_sub(GUARD_LEN as u64), offset)?;
        let taken = buffer.len();
        buffer.resize(taken + block, 0);
        Ok(Self { block, buffer, taken, filled: taken, offset })
    }

    /// The unconsumed bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.buffer[self.taken..self.filled]
    }

    /// The last bytes before the offset, at most [`GUARD_LEN`].
    #[must_use]
    pub fn history(&self) -> &[u8] {
        &self.buffer[self.taken.saturating_sub(GUARD_LEN)..self.taken]
    }

    /// The offset in the content of the first unconsumed byte.
    #[must_use]
    pub const fn offset(&self) -> u64 {
        self.offset
    }

    /// Consumes bytes.
    pub fn take(&mut self, bytes: u64) {
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX).min(self.filled - self.taken);
        self.taken += bytes;
        self.offset += bytes as u64;
    }

    /// Whether the file still has the bytes around the offset, and the last bytes that were read.
    ///
    /// # Errors
    ///
    /// I/O errors of the file.
    pub fn unchanged(&self, file: &impl SourceFile) -> io::Result<bool> {
        let around = self.taken - self.history().len()..self.filled.min(self.taken + GUARD_LEN);
        let last = self.filled.saturating_sub(OVERLAP)..self.filled;
        let is_covered = around.start <= last.start && last.end <= around.end;
        for range in [Some(around), (!is_covered).then_some(last)].into_iter().flatten() {
            let start = self.offset + range.start as u64 - self.taken as u64;
            let read = &self.buffer[range];
            if file.bytes(start, start + read.len() as u64)? != read {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Reads more bytes. Returns 0 at the end of the file, and if the file no longer has the bytes
    /// before it.
    ///
    /// # Errors
    ///
    /// I/O errors of the file.
    pub fn fill(&mut self, file: &impl SourceFile) -> io::Result<usize> {
        let history = self.taken.min(GUARD_LEN);
        let pending = self.filled - self.taken;
        if self.buffer.len() - self.filled < self.block {
            // Move the unconsumed bytes to the front: usually less than a line.
            self.buffer.copy_within(self.taken - history..self.filled, 0);
            self.taken = history;
            self.filled = history + pending;
            // Shrink a buffer that grew for a long line.
            if self.buffer.len() > 4 * self.block && self.filled < self.block {
                self.buffer = self.buffer[..self.filled].to_vec();
            }
            // A line longer than the buffer: grow by an eighth, so that the work stays linear and
            // memory close to the size of the line.
            let wanted = (self.filled + self.block).max(self.filled + self.filled / 8);
            if self.buffer.len() < self.filled + self.block {
                self.buffer.reserve_exact(wanted - self.buffer.len());
                self.buffer.resize(wanted, 0);
            }
        }
        // Read a few bytes again to detect a file that was truncated and rewritten in between.
        let overlap = self.filled.min(OVERLAP);
        let mut before = [0; OVERLAP];
        before[..overlap].copy_from_slice(&self.buffer[self.filled - overlap..self.filled]);
        let room = self.filled - overlap..self.buffer.len().min(self.filled + self.block.max(self.filled / 8));
        let from = self.offset + pending as u64 - overlap as u64;
        let read = file.read_at(&mut self.buffer[room.clone()], from)?;
        let same = read >= overlap && self.buffer[room.start..self.filled] == before[..overlap];
        if !same {
            self.buffer[room.start..self.filled].copy_from_slice(&before[..overlap]);
            return Ok(0);
        }
        self.filled += read - overlap;
        Ok(read - overlap)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source_file::memory::MemoryFile;

    #[test]
    fn a_file_rewritten_between_two_reads_is_not_mixed_in() {
        let content = MemoryFile::new(b"old content\n");
        let mut buffer = ReadBuffer::open(&content, BLOCK, 0).unwrap();
        assert_eq!(buffer.fill(&content).unwrap(), 12);
        content.set(b"new content\nthat is longer\n");
        assert_eq!(buffer.fill(&content).unwrap(), 0);
        assert_eq!(buffer.bytes(), b"old content\n");
        assert!(!buffer.unchanged(&content).unwrap());
    }

    #[test]
    fn a_rewritten_file_stops_fill_and_is_changed() {
        // The same first bytes, far more than the history, followed by different ones.
        let content = MemoryFile::new(&[b'a'; 5000]);
        let mut buffer = ReadBuffer::open(&content, BLOCK, 0).unwrap();
        buffer.fill(&content).unwrap();
        assert!(buffer.unchanged(&content).unwrap());
        content.set(&[[b'a'; 4000], [b'b'; 4000]].concat());
        assert_eq!(buffer.fill(&content).unwrap(), 0);
        assert!(!buffer.unchanged(&content).unwrap());
    }

    #[test]
    fn every_byte_is_read_once_and_history_is_kept() {
        let text: Vec<u8> = (0..3 * BLOCK as u32 + 77).map(|i| (i % 251) as u8).collect();
        let content = MemoryFile::new(&text);
        for step in [1000, 100_000, text.len()] {
            let mut buffer = ReadBuffer::open(&content, BLOCK, 5).unwrap();
            assert_eq!(buffer.history(), &text[..5]);
            let mut seen = text[..5].to_vec();
            loop {
                while buffer.bytes().len() < step && buffer.fill(&content).unwrap() > 0 {}
                let take = buffer.bytes().len().min(step);
                if take == 0 {
                    break;
                }
                seen.extend_from_slice(&buffer.bytes()[..take]);
                buffer.take(take as u64);
                assert_eq!(buffer.offset(), seen.len() as u64);
                assert_eq!(buffer.history(), &seen[seen.len().saturating_sub(GUARD_LEN)..]);
            }
            assert!(seen == text);
        }
    }
}
