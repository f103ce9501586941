//! The faults of a round.

/// A fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    ReaderKilled,
    ReaderStopped,
    ReaderFrozen,
    ReaderCut,
    ReaderStalled,
    ReaderRepliesLost,
    ReaderRefused,
    WriterKilled,
    WriterStopped,
    WriterFrozen,
    WriterCut,
    WriterStalled,
    WriterRepliesLost,
    WriterRefused,
    RedisKilled,
    RedisLosesTail,
    RedisFrozen,
    RedisFlushed,
    ReaderAndWriterKilled,
    AllKilled,
    Renamed,
    CopiedAndTruncated,
}

impl Fault {
    pub(super) const ALL: [Self; 22] = [
        Self::ReaderKilled,
        Self::ReaderStopped,
        Self::ReaderFrozen,
        Self::ReaderCut,
        Self::ReaderStalled,
        Self::ReaderRepliesLost,
        Self::ReaderRefused,
        Self::WriterKilled,
        Self::WriterStopped,
        Self::WriterFrozen,
        Self::WriterCut,
        Self::WriterStalled,
        Self::WriterRepliesLost,
        Self::WriterRefused,
        Self::RedisKilled,
        Self::RedisLosesTail,
        Self::RedisFrozen,
        Self::RedisFlushed,
        Self::ReaderAndWriterKilled,
        Self::AllKilled,
        Self::Renamed,
        Self::CopiedAndTruncated,
    ];

    pub(super) const fn is_rotation(self) -> bool {
        matches!(self, Self::Renamed | Self::CopiedAndTruncated)
    }
}
