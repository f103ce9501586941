//! A batch: runs of source bytes, which are committed together, and the entries that are
//! acknowledged together.

use super::lease::Advance;
use crate::entry::Span;
use resp::StreamId;
use std::time::{Instant, SystemTime};

/// A buffer that grew beyond this size is released after its batch: 2 MiB.
pub const KEEP_CAPACITY: usize = 2 << 20;

/// Contiguous source bytes of one content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// The file ID of the content.
    pub file_id: u64,
    /// The bytes of that content.
    pub span: Span,
    /// The number of lines that begin in them.
    pub lines: u64,
}

/// Bytes to commit, and the entries to acknowledge after that.
#[derive(Debug, Default)]
pub struct Batch {
    /// The index of the partition within this process.
    pub partition: usize,
    /// The bytes of all runs, concatenated.
    pub data: Vec<u8>,
    /// The runs.
    pub runs: Vec<Run>,
    /// The entries to acknowledge, including skipped ones.
    pub ids: Vec<StreamId>,
    /// Entries of an exclusive consumer, past which the group moves.
    pub advance: Option<Advance>,
    /// When the first entry arrived.
    pub came_at: Option<Instant>,
    /// When the bytes became durable.
    pub durable_at: Option<SystemTime>,
}

impl Batch {
    /// An empty batch for this partition.
    pub fn of(partition: usize) -> Self {
        Self { partition, ..Self::default() }
    }

    /// Adds a range to the runs. Its bytes are in `data` already.
    pub fn extend(&mut self, file_id: u64, span: Span, lines: u64) {
        match self.runs.last_mut() {
            Some(run) if run.file_id == file_id && run.span.end == span.start => {
                run.span.end = span.end;
                run.lines += lines;
            }
            _ => self.runs.push(Run { file_id, span, lines }),
        }
    }

    /// Whether there is nothing to write or acknowledge.
    pub const fn is_empty(&self) -> bool {
        self.ids.is_empty() && self.advance.is_none() && self.runs.is_empty()
    }

    /// The number of entries.
    pub fn entries(&self) -> u64 {
        (self.ids.len() as u64).saturating_add(self.advance.map_or(0, |advance| advance.entries))
    }

    /// The first and the last ID of these entries.
    pub fn entry_range(&self) -> Option<(StreamId, StreamId)> {
        match self.advance {
            Some(advance) => Some((advance.first, advance.to)),
            None => self.ids.first().copied().zip(self.ids.last().copied()),
        }
    }

    /// Adds entries of an exclusive consumer.
    pub(super) fn advance(&mut self, by: Advance) {
        self.advance = Some(match self.advance.filter(|before| before.session == by.session) {
            Some(before) => Advance { first: before.first, entries: before.entries.saturating_add(by.entries), ..by },
            None => by,
        });
    }

    /// The number of lines that begin in the batch.
    pub fn lines(&self) -> u64 {
        self.runs.iter().map(|run| run.lines).sum()
    }

    /// Releases the bytes after they became durable. The acknowledgement is still due.
    pub fn release_data(&mut self) {
        self.data.clear();
        self.data.shrink_to(KEEP_CAPACITY);
    }

    /// Clears the batch for reuse.
    pub fn clear(&mut self) {
        self.release_data();
        self.runs.clear();
        self.runs.shrink_to(KEEP_CAPACITY / size_of::<Run>());
        self.came_at = None;
        self.advance = None;
        self.durable_at = None;
        self.ids.clear();
        self.ids.shrink_to(KEEP_CAPACITY / size_of::<StreamId>());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contiguous_bytes_are_one_run() {
        let mut batch = Batch::default();
        batch.extend(1, 0..5, 1);
        batch.extend(1, 5..9, 1);
        batch.extend(1, 12..14, 1);
        batch.extend(2, 14..15, 1);
        let runs: Vec<_> = batch.runs.iter().map(|run| (run.file_id, run.span.clone(), run.lines)).collect();
        assert_eq!(runs, [(1, 0..9, 2), (1, 12..14, 1), (2, 14..15, 1)]);
    }
}
