//! What a producer reports.

use super::Changed;
use crate::files;
use resp::StreamId;
use std::fmt;

/// An event that a producer reports, for logs and metrics.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Notice {
    /// It read the state of Redis.
    Resumed,
    /// A file is read from an offset on.
    Reading {
        /// Its path.
        path: String,
        /// The offset.
        offset: u64,
        /// Its generation, once it has one.
        generation: Option<u64>,
    },
    /// A generation was begun.
    Begun {
        /// The path of its file.
        path: String,
        /// Its number.
        generation: u64,
        /// The content's file ID.
        file_id: u64,
        /// The offset at which it begins.
        start: u64,
    },
    /// Redis lost generations from this one on.
    Restoring {
        /// Its number.
        generation: u64,
    },
    /// Foreign entries are in the stream above our last one.
    Foreign {
        /// The stream's last ID.
        last_id: StreamId,
        /// The offset at which a new generation begins.
        offset: u64,
    },
    /// The file was truncated.
    Truncated {
        /// Its path.
        path: String,
        /// How many bytes it held.
        len: u64,
        /// How many of them were sent.
        sent: u64,
    },
    /// A copy of a content is read.
    Copy {
        /// The copy's path.
        path: String,
        /// The content's file ID.
        file_id: u64,
    },
    /// Bytes of a content cannot be read any more.
    Unreadable {
        /// The content's file ID.
        file_id: u64,
        /// From this offset on.
        start: u64,
        /// Up to this one, as far as that was seen.
        end: Option<u64>,
        /// How many of them are this partition's.
        bytes: Option<u64>,
    },
    /// A content that Redis lost cannot be sent again, because no file holds it.
    Gone {
        /// The content's file ID.
        file_id: u64,
        /// From this offset on.
        start: u64,
        /// Up to this one.
        end: Option<u64>,
    },
    /// The state file cannot be parsed.
    StateUnreadable {
        /// Its path.
        path: String,
        /// Why.
        why: String,
    },
    /// Something about the files around the input.
    File(files::Notice),
    /// The state of Redis was not the expected one.
    Changed(Changed),
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Resumed => f.write_str("position taken from Redis"),
            Self::Reading { path, offset, generation: Some(generation) } => {
                write!(f, "reading {path} from byte {offset} (generation {generation})")
            }
            Self::Reading { path, offset, generation: None } => write!(f, "reading {path} from byte {offset}"),
            Self::Begun { path, generation, file_id, start } if generation == file_id => {
                write!(f, "{path}: generation {generation} begins at byte {start}")
            }
            Self::Begun { path, generation, file_id, start } => {
                write!(f, "{path}: generation {generation} begins at byte {start} of content {file_id}")
            }
            Self::Restoring { generation } => write!(
                f,
                "Redis lost generation {generation} of the source and what follows it; sending what is missing again"
            ),
            Self::Foreign { last_id, offset } => write!(
                f,
                "the stream's last ID {last_id} was not written by this reader (foreign XADD); continuing at byte {offset} in a \
                 new generation; give the other program a stream of its own"
            ),
            Self::Truncated { path, len, sent } => {
                write!(f, "{path}: truncated; it held {len} bytes, of which {sent} were sent")
            }
            Self::Copy { path, file_id } => write!(f, "continuing in {path}, a copy of content {file_id}"),
            Self::Unreadable { file_id, start, end: Some(end), bytes } => write!(
                f,
                "content {file_id}: bytes {start}..{end} ({} bytes) were in the input and cannot be read any more; restore them from \
                 where they were written",
                bytes.unwrap_or(end.saturating_sub(*start))
            ),
            Self::Unreadable { file_id, start, end: None, .. } => write!(
                f,
                "content {file_id}: its file is gone; it was sent up to byte {start}, and what may have followed cannot be read any \
                 more; restore it from where it was written"
            ),
            Self::Gone { file_id, start, end: Some(end) } => write!(
                f,
                "content {file_id}: bytes {start}..{end} were sent before Redis lost them, and their file is gone; restore it from a backup"
            ),
            Self::Gone { file_id, start, end: None } => write!(
                f,
                "content {file_id}: what was sent from byte {start} on is lost in Redis, and its file is gone; restore it from a backup"
            ),
            Self::StateUnreadable { path, why } => {
                write!(
                    f,
                    "cannot read the state file {path}: {why}; continuing with the source record in Redis, and writing it again"
                )
            }
            Self::File(notice) => notice.fmt(f),
            Self::Changed(changed) => write!(f, "{changed}; reading the state of Redis and of the folder again"),
        }
    }
}
