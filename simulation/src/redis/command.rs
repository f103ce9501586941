//! The commands and replies of the simulated Redis.

use crate::filesystem::ContentId;
use resp::StreamId;
use std::ops::Range;
use std::rc::Rc;

/// A key or a name.
pub type Name = Rc<str>;
/// A hash's field or value, or a payload.
pub type Bytes = Rc<[u8]>;

/// The origin of an entry's bytes. The oracle can see it, the services cannot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The content from which the reader took the bytes.
    pub content: ContentId,
    /// The bytes of that content.
    pub span: Range<u64>,
}

/// An entry of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The fields and values.
    pub fields: Vec<(Bytes, Bytes)>,
    /// The origin of its bytes; `None` for an entry that no reader added.
    pub origin: Option<Origin>,
}

/// The ID of an `XADD`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddId {
    /// `*`.
    Auto,
    /// An explicit ID.
    Exact(StreamId),
}

/// The kind of entries that an `XREADGROUP` reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadFrom {
    /// `>`: entries that were not delivered to the group.
    New,
    /// The consumer's own pending entries after this ID.
    Pending(StreamId),
}

/// A command, named as in Redis.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub enum Command {
    XAdd { key: Name, id: AddId, entry: Rc<Entry>, no_create: bool },
    XDel { key: Name, ids: Vec<StreamId> },
    XTrimMinId { key: Name, min: StreamId },
    XTrimMaxLen { key: Name, len: usize },
    XLen { key: Name },
    XRange { key: Name, from: StreamId, to: StreamId, count: usize },
    XInfoStream { key: Name },
    XInfoGroups { key: Name },
    XInfoConsumers { key: Name, group: Name },
    XGroupCreate { key: Name, group: Name, at: StreamId, make_stream: bool },
    XGroupSetId { key: Name, group: Name, at: StreamId, entries_read: Option<u64> },
    XGroupDestroy { key: Name, group: Name },
    XGroupDelConsumer { key: Name, group: Name, consumer: Name },
    XReadGroup { key: Name, group: Name, consumer: Name, from: ReadFrom, count: usize },
    XRead { key: Name, behind: StreamId, count: usize },
    XAck { key: Name, group: Name, ids: Vec<StreamId> },
    XPending { key: Name, group: Name, consumer: Option<Name>, count: usize },
    XAutoClaim { key: Name, group: Name, consumer: Name, idle: u64, from: StreamId, count: usize },
    HSet { key: Name, pairs: Vec<(Bytes, Bytes)> },
    HSetNx { key: Name, field: Bytes, value: Bytes },
    HDel { key: Name, fields: Vec<Bytes> },
    HMGet { key: Name, fields: Vec<Bytes> },
    PExpireAt { key: Name, at: u64 },
    PExpireTime { key: Name },
    HGetAll { key: Name },
    Exists { key: Name },
    Del { key: Name },
    Rename { key: Name, to: Name },
    FlushAll,
    Time,
}

/// The arguments of the reader's script: see `SCRIPT` in `reader/src/redis.rs`.
#[derive(Debug, Clone)]
pub struct Script {
    /// The stream's key.
    pub stream: Name,
    /// The record's key.
    pub record: Name,
    /// The field of the record to compare, and its expected value.
    pub guard: (Bytes, Option<Bytes>),
    /// The field of the record that must exist; empty for none.
    pub link: Bytes,
    /// The `XADD` commands, in order.
    pub entries: Vec<Command>,
    /// The fields to set in the record.
    pub pairs: Vec<(Bytes, Bytes)>,
}

/// A right that a Redis user may lack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Right {
    /// `XADD`.
    Add,
    /// `HSET`, `HSETNX` and `HDEL`.
    Hash,
    /// `XACK`.
    Acknowledge,
    /// `XTRIM`.
    Trim,
    /// `XGROUP`.
    Group,
    /// `XREADGROUP`, `XREAD` and `XAUTOCLAIM`.
    Read,
    /// `EVALSHA`.
    Script,
}

impl Command {
    /// The right that the command needs; `None` if the simulation never refuses it.
    #[must_use]
    pub const fn right(&self) -> Option<Right> {
        match self {
            Self::XAdd { .. } => Some(Right::Add),
            Self::HSet { .. } | Self::HSetNx { .. } | Self::HDel { .. } => Some(Right::Hash),
            Self::XAck { .. } => Some(Right::Acknowledge),
            Self::XTrimMinId { .. } | Self::XTrimMaxLen { .. } => Some(Right::Trim),
            Self::XGroupCreate { .. }
            | Self::XGroupSetId { .. }
            | Self::XGroupDestroy { .. }
            | Self::XGroupDelConsumer { .. } => Some(Right::Group),
            Self::XReadGroup { .. } | Self::XRead { .. } | Self::XAutoClaim { .. } => Some(Right::Read),
            _ => None,
        }
    }

    /// Whether the command may change data.
    #[must_use]
    pub const fn writes(&self) -> bool {
        !matches!(
            self,
            Self::XLen { .. }
                | Self::XRange { .. }
                | Self::XRead { .. }
                | Self::XInfoStream { .. }
                | Self::XInfoGroups { .. }
                | Self::XInfoConsumers { .. }
                | Self::XPending { .. }
                | Self::HMGet { .. }
                | Self::PExpireTime { .. }
                | Self::HGetAll { .. }
                | Self::Exists { .. }
                | Self::Time
        )
    }

    /// Whether Redis refuses the command when its memory is full.
    #[must_use]
    pub const fn takes_memory(&self) -> bool {
        matches!(self, Self::XAdd { .. } | Self::HSet { .. } | Self::HSetNx { .. } | Self::XGroupCreate { .. })
    }
}

/// Why Redis refused a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The ID is not larger than the stream's last one.
    IdTooSmall,
    /// The stream's last ID is the largest possible one.
    Exhausted,
    /// The group does not exist.
    NoGroup,
    /// The key does not exist.
    NoSuchKey,
    /// The group exists already.
    BusyGroup,
    /// The key holds a value of another type.
    WrongType,
    /// The user may not execute this command.
    NoPermission,
    /// Memory is full.
    OutOfMemory,
    /// `EXEC` after a command that was refused.
    ExecAbort,
    /// The server is loading, is a replica, or otherwise does not serve.
    Unavailable,
}

/// The reply to `XINFO STREAM`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamInfo {
    /// The number of entries.
    pub length: u64,
    /// The ID of the latest entry that was ever added.
    pub last_id: StreamId,
    /// The ID of the first entry; `None` for an empty stream.
    pub first: Option<StreamId>,
    /// The largest ID that was ever deleted by `XDEL`.
    pub max_deleted: StreamId,
    /// The number of entries ever added.
    pub entries_added: u64,
}

/// A group in the reply to `XINFO GROUPS`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupInfo {
    /// Its name.
    pub name: Name,
    /// The number of consumers.
    pub consumers: u64,
    /// The number of pending entries.
    pub pending: u64,
    /// The smallest pending ID.
    pub first_pending: Option<StreamId>,
    /// The last delivered ID.
    pub last_delivered: StreamId,
    /// The number of entries read; `None` if Redis does not know it.
    pub entries_read: Option<u64>,
}

/// A consumer in the reply to `XINFO CONSUMERS`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumerInfo {
    /// Its name.
    pub name: Name,
    /// The number of its pending entries.
    pub pending: u64,
    /// Milliseconds since its last read.
    pub idle: u64,
}

/// A pending entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingInfo {
    /// Its ID.
    pub id: StreamId,
    /// Its consumer.
    pub consumer: Name,
    /// Milliseconds since it was delivered.
    pub idle: u64,
}

/// An entry in a reply; `None` if it was deleted while pending.
pub type Delivered = (StreamId, Option<Rc<Entry>>);

/// A reply.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub enum Reply {
    Ok,
    Nil,
    Queued,
    Number(u64),
    Id(StreamId),
    /// Milliseconds since the epoch.
    Time(u64),
    Values(Vec<Option<Bytes>>),
    Pairs(Vec<(Bytes, Bytes)>),
    Entries(Vec<Delivered>),
    /// The reply to `XAUTOCLAIM`: the next start, the claimed entries, and the deleted ones.
    Claimed {
        next: StreamId,
        entries: Vec<Delivered>,
        deleted: Vec<StreamId>,
    },
    Stream(StreamInfo),
    Groups(Vec<GroupInfo>),
    Consumers(Vec<ConsumerInfo>),
    Pending(Vec<PendingInfo>),
    /// The reply to `EXEC`: one reply per command.
    Several(Vec<Self>),
    Refused(Refusal),
}
