//! What a [`Consumer`](super::Consumer) asks its driver for, and what both report.

use super::gaps::Gap;
use super::lease::Lease;
use resp::StreamId;
use std::time::Duration;

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Load the source record.
    LoadRecord,
    /// Make the group at the stream's beginning, unless it exists; and the stream.
    MakeGroup,
    /// Read the lease.
    ReadLease,
    /// Change the lease, if it is still as it was seen.
    WriteLease {
        /// What was seen.
        seen: Option<Lease>,
        /// What is to be there; `None`: nothing.
        lease: Option<Lease>,
    },
    /// Look at the group, its consumers, the notes, and the lease.
    InspectGroup,
    /// Ask for entries that cannot be there, so that the group knows this consumer, and that it is
    /// at work.
    Join,
    /// Read the notes.
    ReadNotes,
    /// Change the notes.
    WriteNotes(Vec<Change>),
    /// Wait this long.
    Pause(Duration),
    /// Read entries, or receive what was asked for ahead. It ends early when the service is to
    /// stop.
    Read {
        /// What was delivered to this consumer and not acknowledged, behind the last entry that
        /// came, and not new ones.
        pending: bool,
        /// New ones are read behind this ID with `XREAD`. `None`: with `XREADGROUP`.
        behind: Option<StreamId>,
        /// At most this many.
        count: u64,
        /// Wait this long when there are none.
        block: Option<Duration>,
    },
    /// Ask for new entries, and do not wait for the reply.
    ReadAhead {
        /// As in [`Read`](Self::Read).
        behind: Option<StreamId>,
        /// At most this many.
        count: u64,
    },
    /// End the read that waits in Redis, and take what it or the one ahead brings.
    Drain,
    /// Give the entries of the reply that were not taken yet to [`take`](super::Consumer::take).
    Take,
    /// Hand the batch over when the disk is idle or the batch is large; with `now`, wait for the
    /// disk.
    HandOver {
        /// Whether to wait.
        now: bool,
    },
    /// Ask for the stream's last-generated ID.
    ReadLastId,
    /// Take over what others have left pending.
    Claim {
        /// From this ID on.
        start: StreamId,
        /// At most this many.
        count: u64,
        /// Pending for at least this long.
        idle: Duration,
    },
    /// Close the connection and make another one.
    Reconnect,
    /// Drop everything that is under way, and begin again with what the output holds: another
    /// writer may have got those entries.
    Restart,
    /// End: it cannot work like this.
    Refuse(Refusal),
    /// End.
    Done,
}

/// A change of a field of the source record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// `HSETNX`. When the field is there already, none of the later changes count.
    Claim(String, String),
    /// `HSET`.
    Set(String, String),
    /// `HDEL`.
    Remove(String),
}

/// Why a consumer ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// The source was begun with another number of partitions.
    OtherPartitions(u32),
    /// The output is the file that the reader reads.
    OutputIsInput(String),
    /// The output's journal is missing, and the group has delivered entries already.
    JournalMissing,
    /// The output has bytes behind what its journal describes, and the group has acknowledged
    /// entries behind that.
    JournalOlder,
    /// Another writer, with another output, is at work under this consumer name.
    NameTaken,
    /// Another writer took this consumer name over while this one ran.
    NameLost,
    /// `--once`, and the source record lacks the generation of this entry.
    RecordIncomplete(StreamId),
    /// `--once`, and the writer with this consumer name has the group to itself.
    Leased(String),
    /// `--once`, and the group cannot be consumed exclusively: this consumer is at work in it.
    Shared(String),
}

/// What is worth a line in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// Bytes were never delivered; with the input's path.
    Gap(Gap, String),
    /// A field of the source record cannot be read.
    RecordUnreadable(String),
    /// This entry waits for the source record, which lacks its generation.
    WaitsForRecord(StreamId),
    /// The record is complete again.
    RecordComplete,
    /// A consumer of this name with another output was there before, and is gone.
    NameTakenOver,
    /// The writer with this consumer name has the group to itself. This one waits until it ends.
    WaitsForLease(String),
    /// The group is to be consumed exclusively, and this consumer is at work in it.
    WaitsForConsumer(String),
    /// Nobody is waited for any more.
    WaitEnded,
    /// The lease of this consumer had ended, and was taken over.
    LeaseTakenOver(String),
    /// The group is consumed exclusively, and this consumer reads from it nevertheless.
    Intruder(String),
    /// No more gaps will follow for now.
    GapsReported,
}

/// What came of a read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reply {
    /// How many entries.
    pub entries: u64,
    /// The last one's ID.
    pub last: StreamId,
    /// The last one's size.
    pub last_size: usize,
}

/// What the entries were that were just taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Taken {
    /// How many were taken.
    pub entries: usize,
    /// How many were held already.
    pub redelivered: u64,
    /// How many had been deleted while they were pending, and the last one.
    pub deleted: u64,
    /// The last deleted one.
    pub deleted_last: StreamId,
    /// How many were foreign.
    pub foreign: u64,
    /// The last foreign one.
    pub foreign_last: StreamId,
}
