//! The commands that the simulated Redis knows, and its replies.

use crate::filesystem::ContentId;
use resp::StreamId;
use std::ops::Range;
use std::rc::Rc;

/// A key or a name.
pub type Name = Rc<str>;
/// A hash's field or value, or a payload.
pub type Bytes = Rc<[u8]>;

/// Where an entry's bytes come from. The services cannot see it; the oracle can.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The content that the reader took the bytes from.
    pub content: ContentId,
    /// The bytes of that content.
    pub span: Range<u64>,
}

/// An entry of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its fields and values.
    pub fields: Vec<(Bytes, Bytes)>,
    /// Where its bytes come from; `None` for an entry that no reader added.
    pub origin: Option<Origin>,
}

/// The ID that an `XADD` asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddId {
    /// `*`.
    Auto,
    /// This one.
    Exact(StreamId),
}

/// What an `XREADGROUP` asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadFrom {
    /// `>`: entries that no consumer of the group was given.
    New,
    /// The consumer's own pending entries behind this ID.
    Pending(StreamId),
}

/// A command. Each has the name of Redis' own.
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

/// What the reader's script adds, and what it expects: see `SCRIPT` in `reader/src/redis.rs`.
#[derive(Debug, Clone)]
pub struct Script {
    /// The stream's key.
    pub stream: Name,
    /// The record's key.
    pub record: Name,
    /// The field of the record that is compared, and what it must hold.
    pub guard: (Bytes, Option<Bytes>),
    /// The field of the record that must be there; none when this is empty.
    pub link: Bytes,
    /// Its `XADD`s, in order.
    pub entries: Vec<Command>,
    /// What is set in the record.
    pub pairs: Vec<(Bytes, Bytes)>,
}

/// What a user of Redis may be forbidden to do.
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
    /// The right that the command needs; `None` for those that nobody is ever refused here.
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

    /// Whether it may change what Redis holds.
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

    /// Whether Redis refuses it when its memory is full.
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
    /// The stream's last ID is the largest there is.
    Exhausted,
    /// There is no such group.
    NoGroup,
    /// There is no such key.
    NoSuchKey,
    /// The group exists already.
    BusyGroup,
    /// The key holds something else.
    WrongType,
    /// The user has no right to this command.
    NoPermission,
    /// Memory is full.
    OutOfMemory,
    /// `EXEC` after a command that was refused.
    ExecAbort,
    /// The server is loading, is a replica, or otherwise does not serve.
    Unavailable,
}

/// What `XINFO STREAM` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamInfo {
    /// Entries in it.
    pub length: u64,
    /// The ID of the latest entry that was ever added.
    pub last_id: StreamId,
    /// The ID of its first entry; `None` when it is empty.
    pub first: Option<StreamId>,
    /// The largest ID that was ever deleted by `XDEL`.
    pub max_deleted: StreamId,
    /// How many entries were ever added.
    pub entries_added: u64,
}

/// What `XINFO GROUPS` says of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupInfo {
    /// Its name.
    pub name: Name,
    /// How many consumers it has.
    pub consumers: u64,
    /// How many entries are pending.
    pub pending: u64,
    /// The smallest pending ID.
    pub first_pending: Option<StreamId>,
    /// The last ID that was given to a consumer.
    pub last_delivered: StreamId,
    /// How many entries were read up to there; `None`: Redis does not know.
    pub entries_read: Option<u64>,
}

/// What `XINFO CONSUMERS` says of a consumer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumerInfo {
    /// Its name.
    pub name: Name,
    /// How many entries are pending for it.
    pub pending: u64,
    /// Milliseconds since it last asked for entries.
    pub idle: u64,
}

/// One entry that is pending.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingInfo {
    /// Its ID.
    pub id: StreamId,
    /// Whose it is.
    pub consumer: Name,
    /// Milliseconds since it was delivered.
    pub idle: u64,
}

/// An entry as a reply holds it; without one when it was deleted while it was pending.
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
    /// What `XAUTOCLAIM` answers: where to go on, what was claimed, and what had been deleted.
    Claimed {
        next: StreamId,
        entries: Vec<Delivered>,
        deleted: Vec<StreamId>,
    },
    Stream(StreamInfo),
    Groups(Vec<GroupInfo>),
    Consumers(Vec<ConsumerInfo>),
    Pending(Vec<PendingInfo>),
    /// What `EXEC` answers: one reply a command.
    Several(Vec<Self>),
    Refused(Refusal),
}
