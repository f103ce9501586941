//! A batch: the entries that one transaction adds, and the state of Redis that it requires.

use crate::entry::Field;
use crate::manifest::{Guard, Position};
use resp::StreamId;
use std::fmt;

/// How large a batch may become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchSize {
    /// How many entries it has at most. Larger batches are no faster; smaller ones keep memory and
    /// latency low.
    pub entries: u64,
    /// How many bytes of the source it is filled up to. A single longer line makes a larger batch.
    pub bytes: u64,
}

impl Default for BatchSize {
    fn default() -> Self {
        Self { entries: 4096, bytes: 512 << 10 }
    }
}

/// The state of the source record and the stream that a batch requires.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Expected {
    /// The bytes of the record's guard field.
    pub guard: Option<Vec<u8>>,
    /// The record's field that names the newest generation; it must be there. `None` while there is
    /// none.
    pub link: Option<String>,
    /// Whether there is a stream.
    pub stream: bool,
}

/// How the state of Redis differs from the expected one: another reader was faster, or data was
/// lost. The reader then observes Redis again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Changed {
    /// Another reader wrote the source record.
    OtherReader,
    /// The source record is gone, or an older one.
    RecordLost,
    /// The stream is gone.
    StreamGone,
    /// The stream has lost entries.
    EntriesLost,
    /// The input no longer holds the content that was begun.
    InputChanged,
}

impl fmt::Display for Changed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OtherReader => "the source record or the stream was changed meanwhile",
            Self::RecordLost => "Redis lost the source record",
            Self::StreamGone => "the stream is gone",
            Self::EntriesLost => "the stream lost entries",
            Self::InputChanged => "the input changed while it was being read",
        })
    }
}

impl Expected {
    /// Compares with what Redis answered: the guard field, whether the link is there, and whether
    /// the stream exists.
    ///
    /// # Errors
    /// What has changed.
    pub fn check(&self, guard: Option<&[u8]>, link: bool, stream: bool) -> Result<(), Changed> {
        if guard != self.guard.as_deref() || link != self.link.is_some() {
            return Err(match (&self.guard, guard) {
                (_, Some(_)) if link == self.link.is_some() => Changed::OtherReader,
                _ => Changed::RecordLost,
            });
        }
        // A writer may have created the stream meanwhile. If the stream is gone, Redis lost its
        // entries.
        if self.stream && !stream { Err(Changed::StreamGone) } else { Ok(()) }
    }
}

/// One entry to add.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Its ID.
    pub id: StreamId,
    /// The name of its first field.
    pub field: Field,
    /// The value of its first field.
    pub payload: &'a [u8],
    /// The value of its second field, if it has one: where this partition's previous entry ended.
    pub after: Option<u64>,
    /// Whether the stream must exist: it must not be recreated behind a gap.
    pub no_create: bool,
}

/// A batch that is on the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// How many entries it has.
    pub entries: u64,
    /// The number of lines that begin in them.
    pub lines: u64,
    /// How many bytes of the source they cover.
    pub bytes: u64,
    /// Where it ends.
    pub end: Position,
    /// Every entry of this partition that begins before this offset is in this batch or an earlier
    /// one.
    pub read_to: u64,
    /// The state of Redis that it requires.
    pub expected: Expected,
    /// The checksum of the last bytes before its end, and that of the previous batch.
    pub guard: Guard,
    /// The source record's fields that it sets, with their values.
    pub fields: Vec<(String, Vec<u8>)>,
    /// The largest payload, as a power of two.
    pub longest: u64,
}

impl Batch {
    /// The state of Redis after this batch.
    #[must_use]
    pub fn leaves(&self) -> Expected {
        Expected { guard: self.fields.first().map(|(_, value)| value.clone()), stream: true, ..self.expected.clone() }
    }
}

/// The result of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It was executed.
    Added {
        /// How many entries the stream holds now, if Redis was asked.
        len: Option<u64>,
    },
    /// Nothing of it was executed: the source record changed.
    Aborted,
    /// Nothing of it was executed: the script found another state of Redis than it expects.
    Differs {
        /// The bytes of the record's guard field.
        guard: Option<Vec<u8>>,
        /// Whether the record names the newest generation.
        link: bool,
        /// Whether there is a stream.
        stream: bool,
    },
    /// An ID was refused: only a foreign producer can have taken it.
    Refused,
    /// There was no stream to add to.
    NoStream,
}
