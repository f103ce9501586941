//! A batch: entries become runs of source bytes, to be committed and acknowledged together.

use super::lease::Advance;
use crate::entry::Span;
use resp::StreamId;
use std::time::{Instant, SystemTime};

/// Buffers that grew beyond this for one batch are given back: 2 MiB.
pub const KEEP_CAPACITY: usize = 2 << 20;

/// Contiguous source bytes of one content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// The content, named by its file ID.
    pub file_id: u64,
    /// The bytes of that content.
    pub span: Span,
    /// How many lines begin in them.
    pub lines: u64,
}

/// What is written and acknowledged together.
#[derive(Debug, Default)]
pub struct Batch {
    /// Which of this process's partitions it is of, counted from 0.
    pub partition: usize,
    /// The bytes of all runs, one behind the other.
    pub data: Vec<u8>,
    /// What the bytes are.
    pub runs: Vec<Run>,
    /// The entries to acknowledge, the skipped ones included.
    pub ids: Vec<StreamId>,
    /// The entries that were read exclusively, behind which the group is to be moved.
    pub advance: Option<Advance>,
    /// When the first of them came.
    pub came_at: Option<Instant>,
    /// When its bytes were durable.
    pub durable_at: Option<SystemTime>,
}

impl Batch {
    /// An empty one for this partition.
    pub fn of(partition: usize) -> Self {
        Self { partition, ..Self::default() }
    }

    /// Appends a run's first or further bytes: the bytes themselves are in `data` already.
    pub fn extend(&mut self, file_id: u64, span: Span, lines: u64) {
        match self.runs.last_mut() {
            Some(run) if run.file_id == file_id && run.span.end == span.start => {
                run.span.end = span.end;
                run.lines += lines;
            }
            _ => self.runs.push(Run { file_id, span, lines }),
        }
    }

    /// Whether there is nothing to write and nothing to acknowledge.
    pub const fn is_empty(&self) -> bool {
        self.ids.is_empty() && self.advance.is_none() && self.runs.is_empty()
    }

    /// How many entries are done when it is durable.
    pub fn entries(&self) -> u64 {
        (self.ids.len() as u64).saturating_add(self.advance.map_or(0, |advance| advance.entries))
    }

    /// The first and the last of these entries.
    pub fn entry_range(&self) -> Option<(StreamId, StreamId)> {
        match self.advance {
            Some(advance) => Some((advance.first, advance.to)),
            None => self.ids.first().copied().zip(self.ids.last().copied()),
        }
    }

    /// Adds entries that were read exclusively.
    pub(super) fn advance(&mut self, by: Advance) {
        self.advance = Some(match self.advance.filter(|before| before.session == by.session) {
            Some(before) => Advance { first: before.first, entries: before.entries.saturating_add(by.entries), ..by },
            None => by,
        });
    }

    /// How many lines begin in it.
    pub fn lines(&self) -> u64 {
        self.runs.iter().map(|run| run.lines).sum()
    }

    /// Lets go of the bytes: they are durable, only the acknowledgement is missing.
    pub fn release_data(&mut self) {
        self.data.clear();
        self.data.shrink_to(KEEP_CAPACITY);
    }

    /// Empties it, to be filled again.
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
