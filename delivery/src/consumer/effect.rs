//! The effects that a [`Consumer`](super::Consumer) requests from its driver, and the values that
//! both report.

use super::gaps::Gap;
use super::lease::Lease;
use resp::StreamId;
use std::time::Duration;

/// The next effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Load the source record.
    LoadRecord,
    /// Create the group at the beginning of the stream, unless it exists. Create the stream too.
    MakeGroup,
    /// Read the lease.
    ReadLease,
    /// Change the lease, if it still has the value that was read.
    WriteLease {
        /// The value that was read.
        seen: Option<Lease>,
        /// The new value. `None`: remove the lease.
        lease: Option<Lease>,
    },
    /// Inspect the group, its consumers, the notes, and the lease.
    InspectGroup,
    /// Read entries that cannot exist. This creates the consumer in the group and marks it as
    /// active.
    Join,
    /// Read the notes.
    ReadNotes,
    /// Write the notes.
    WriteNotes(Vec<Change>),
    /// Wait this long.
    Pause(Duration),
    /// Read entries, or receive the reply to [`ReadAhead`](Self::ReadAhead). Return early when the
    /// service stops.
    Read {
        /// Read this consumer's pending entries after the last one that it received, instead of new
        /// entries.
        pending: bool,
        /// Read new entries after this ID with `XREAD`. `None`: use `XREADGROUP`.
        behind: Option<StreamId>,
        /// The maximum number of entries.
        count: u64,
        /// How long to wait if there are no entries.
        block: Option<Duration>,
    },
    /// Send a read of new entries, without waiting for the reply.
    ReadAhead {
        /// As in [`Read`](Self::Read).
        behind: Option<StreamId>,
        /// The maximum number of entries.
        count: u64,
    },
    /// End the read that is blocked in Redis, and receive its entries, or those of the read that
    /// was sent ahead.
    Drain,
    /// Pass the remaining entries of the reply to [`take`](super::Consumer::take).
    Take,
    /// Hand the batch over if the disk is idle or the batch is large. With `now`, wait for the
    /// disk.
    HandOver {
        /// Whether to wait for the disk.
        now: bool,
    },
    /// Read the last-generated ID of the stream.
    ReadLastId,
    /// Claim entries that are pending with other consumers.
    Claim {
        /// The first ID.
        start: StreamId,
        /// The maximum number of entries.
        count: u64,
        /// The minimum idle time of the entries.
        idle: Duration,
    },
    /// Close the connection, and connect again.
    Reconnect,
    /// Drop everything that is not committed, and create a new consumer from the state of the
    /// output. Another writer may have received the same entries.
    Restart,
    /// Stop with an error.
    Refuse(Refusal),
    /// Stop.
    Done,
}

/// A change of a field of the source record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// `HSETNX`. If the field exists, skip the later changes.
    Claim(String, String),
    /// `HSET`.
    Set(String, String),
    /// `HDEL`.
    Remove(String),
}

/// Why a consumer stops with an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// The source has this number of partitions, and the flag another one.
    OtherPartitions(u32),
    /// The output is the input of the reader.
    OutputIsInput(String),
    /// The journal of the output is missing, and the group has delivered entries.
    JournalMissing,
    /// The journal is older than the output: the output has bytes that the journal does not
    /// describe, and the group has acknowledged their entries.
    JournalOlder,
    /// An active writer with another output has this consumer name.
    NameTaken,
    /// Another writer took over this consumer name in the meantime.
    NameLost,
    /// `--once`: the source record lacks the generation of this entry.
    RecordIncomplete(StreamId),
    /// `--once`: the writer with this consumer name consumes the group exclusively.
    Leased(String),
    /// `--once`: this consumer reads from the group, so it cannot be consumed exclusively.
    Shared(String),
}

/// An event to log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// Bytes were never delivered. The path is that of the input.
    Gap(Gap, String),
    /// A field of the source record is unreadable.
    RecordUnreadable(String),
    /// This entry waits because the source record lacks its generation.
    WaitsForRecord(StreamId),
    /// The record is complete again.
    RecordComplete,
    /// A previous consumer of this name had another output. It is gone.
    NameTakenOver,
    /// The writer with this consumer name consumes the group exclusively. This one waits until that
    /// one ends.
    WaitsForLease(String),
    /// This consumer reads from the group. Exclusive consumption waits until it ends.
    WaitsForConsumer(String),
    /// The wait for another writer has ended.
    WaitEnded,
    /// The lease of this consumer expired, and was taken over.
    LeaseTakenOver(String),
    /// This consumer reads from the group although it is consumed exclusively.
    Intruder(String),
    /// All gaps found so far were reported.
    GapsReported,
}

/// The result of a read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reply {
    /// The number of entries.
    pub entries: u64,
    /// The ID of the last entry.
    pub last: StreamId,
    /// The size of the last entry.
    pub last_size: usize,
}

/// The kinds of the entries of one [`take`](super::Consumer::take).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Taken {
    /// The number of entries.
    pub entries: usize,
    /// The number of duplicates.
    pub redelivered: u64,
    /// The number of entries that were deleted while pending.
    pub deleted: u64,
    /// The last deleted entry.
    pub deleted_last: StreamId,
    /// The number of foreign entries.
    pub foreign: u64,
    /// The last foreign entry.
    pub foreign_last: StreamId,
}
