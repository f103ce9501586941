//! The file side: which file holds which content, what comes next, and what is left.
//!
//! [`identify`] is a pure function of a [`Snapshot`] of the folder and of what is [`Known`]. The
//! reader takes the snapshot, answers the [`Question`]s that `identify` returns with further reads,
//! and calls it again. The producing side acts on the result, [`Identified`].
//!
//! A file is a known content when their common prefix is the same, whatever its name, device, inode
//! and length. When two readings are possible, the one that cannot lose bytes wins, and a [`Notice`]
//! reports it.

use crate::fingerprint::{Fingerprint, Span, TailChecksum};
use std::collections::BTreeMap;
use std::fmt;

/// How many neighbours are remembered at most.
pub const NEIGHBOURS: usize = 64;

/// Which file it is on this machine, until it is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Inode {
    /// The device.
    pub dev: u64,
    /// The number on that device. A file system gives it to another file after a deletion.
    pub ino: u64,
}

/// What the input's folder, and the folder that a symbolic link leads to, hold at one moment.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// The regular files that may matter; each file once, whatever the number of its names.
    pub sightings: Vec<Sighting>,
    /// Folders that could not be listed, with the reason.
    pub unlisted: Vec<(String, String)>,
}

/// One file as it was seen.
#[derive(Debug, Clone)]
pub struct Sighting {
    /// What the driver opens it by; unique in the snapshot.
    pub key: usize,
    /// Its path.
    pub path: String,
    /// Its device and inode.
    pub inode: Inode,
    /// What its name says.
    pub place: Place,
    /// Its length in bytes; of a compressed file, that of its content as far as it is known.
    pub len: u64,
    /// When it was last written to: nanoseconds since the epoch on the file system's clock.
    pub modified: i128,
    /// When it was created, on the same clock; `None` when the file system does not tell.
    pub created: Option<i128>,
    /// Its fingerprint.
    pub prints: Prints,
    /// The hashes of the ranges that [`probes`] names, as far as the file reaches.
    pub hashes: BTreeMap<Span, u64>,
    /// Answers to [`Question::Compare`], by file ID.
    pub compared: BTreeMap<u64, Compared>,
}

/// What is known of a file's first bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Prints {
    /// The fingerprint of all that it holds (or of as much as any known content has).
    Whole(Fingerprint),
    /// A compressed file: only so much of its content was unpacked. At first nothing.
    Partial(Fingerprint),
    /// It cannot be read, for this reason.
    Unreadable(String),
}

/// What the name of a file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// It is at the input's path.
    Input,
    /// A name that rotation gives to the input.
    Rotated(Order),
    /// A compressed copy of the input (`None`) or of a rotated file, by its name.
    Compressed(Option<Order>),
    /// Any other name.
    Other,
}

/// Where a rotated name is in the order of rotations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// The number in it: larger is older.
    Index(u32),
    /// The digits of the date in it: larger is newer.
    Date(String),
}

/// What is known of a source before looking at the folder.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// The contents, oldest first. None: the source has not begun.
    pub contents: Vec<Content>,
    /// When the source began, on the file system's clock (the input's last modification then).
    pub began: Option<i128>,
    /// Siblings that are known to be no contents of the input: [`Identified::neighbours`] of an
    /// earlier look. `None`: never recorded (an older state file); ages are compared instead.
    pub neighbours: Option<Vec<Neighbour>>,
}

/// A sibling that is not ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct Neighbour {
    /// Its device.
    pub dev: u64,
    /// Its inode.
    pub ino: u64,
    /// When it was created, if the file system tells: an inode's number is used again.
    pub created: Option<i128>,
}

/// What is known of one content.
#[derive(Debug, Clone, Default)]
pub struct Content {
    /// Its file ID.
    pub file_id: u64,
    /// The hashes of its first bytes, as far as it was read.
    pub fingerprint: Fingerprint,
    /// Length and hash of its head, in manifests that have no fingerprint.
    pub head: Option<(u64, u64)>,
    /// The file that held it when it was last seen.
    pub inode: Option<Inode>,
    /// When that file was created.
    pub created: Option<i128>,
    /// Up to where it was sent.
    pub frontier: u64,
    /// A checksum of the bytes before the frontier, or before a position that was sent once.
    pub tail: Option<TailChecksum>,
    /// The largest length that it was seen with.
    pub seen_len: u64,
    /// Whether a later content has begun.
    pub finished: bool,
    /// Whether the file that held it was seen truncated.
    pub truncated: bool,
}

/// A file that was found for something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The sighting's key.
    pub key: usize,
    /// What it is.
    pub relation: Relation,
    /// How long it is.
    pub len: u64,
}

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relation {
    /// This content: everything that was sent of it, and perhaps more.
    Whole(u64),
    /// The beginning of this content: there is nothing to send.
    Shorter(u64),
    /// This content, edited before its frontier without changing a length. Continue there.
    Edited(u64),
    /// A content of its own whose bytes before `start` were sent as those of `from`: the file
    /// shrank, was rolled back or edited, and grew. Begin a new content at `start`.
    Derived {
        /// The file ID of the content that it was made of.
        from: u64,
        /// Where the new bytes begin; a line begins there when possible.
        start: u64,
    },
    /// A content of its own: begin a new content at 0.
    New,
}

impl Relation {
    /// The content that it is, if it is a known one.
    #[must_use]
    pub const fn file_id(self) -> Option<u64> {
        match self {
            Self::Whole(id) | Self::Shorter(id) | Self::Edited(id) => Some(id),
            Self::Derived { .. } | Self::New => None,
        }
    }
}

/// Which file is which content.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identified {
    /// What is at the input's path; `None` when nothing is, or it cannot be read.
    pub current: Option<Found>,
    /// The files that hold a known content, the best first: those with everything that was sent
    /// before shorter ones, the original before copies.
    pub holders: BTreeMap<u64, Vec<Found>>,
    /// Contents that came and went unseen: rotated files that are no known content, oldest first.
    pub unseen: Vec<Found>,
    /// All siblings that are not ours now. Store them with the present content when they changed.
    pub neighbours: Vec<Neighbour>,
    /// What to report, each once.
    pub notices: Vec<Notice>,
    /// What to find out before this is final. Empty: it is final.
    pub questions: Vec<Question>,
}

/// A read that would decide something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question {
    /// Unpack a compressed file up to this offset (or to its end, when that comes first), and
    /// compute its fingerprint and hashes.
    Unpack {
        /// The sighting's key.
        key: usize,
        /// How many bytes of its content.
        up_to: u64,
    },
    /// Compare a file with a content that it shares bytes with; see [`Compared`].
    Compare {
        /// The sighting's key.
        key: usize,
        /// The content's file ID.
        file_id: u64,
        /// The files are known to be the same up to here ...
        from: u64,
        /// ... and to differ before this offset.
        to: u64,
        /// Another file that has the content's bytes there, if there is one.
        with: Option<usize>,
        /// The end of what was sent of the content, to search for.
        tail: Option<TailChecksum>,
    },
}

/// The answer to [`Question::Compare`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compared {
    /// Up to where the bytes are the same: exactly, when the old bytes could still be read, else
    /// the `from` of the question.
    pub same_until: u64,
    /// Where the line begins that has the byte at `same_until`.
    pub line_start: u64,
    /// Where the last bytes that were sent end in this file, if they are in it.
    pub tail_at: Option<u64>,
}

/// Something that a user should know. Report each once.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Notice {
    /// A file that may matter cannot be read.
    Unreadable {
        /// Its path.
        path: String,
        /// Why.
        why: String,
    },
    /// A folder cannot be listed.
    Unlisted {
        /// Its path.
        path: String,
        /// Why.
        why: String,
    },
    /// Before the source began: a sibling looks like a rotated file.
    LooksRotated {
        /// The newest one.
        path: String,
        /// How many more there are.
        more: usize,
    },
    /// A file begins with all that was sent of a content, yet is taken for a new one.
    SameBeginning {
        /// Its path.
        path: String,
        /// How many bytes may be sent a second time.
        bytes: u64,
    },
    /// A file was edited before the frontier; the edited bytes are not sent again.
    Edited {
        /// Its path.
        path: String,
    },
    /// A file has lost bytes that were sent, or was edited; what follows is sent from an offset on.
    Changed {
        /// Its path.
        path: String,
        /// The offset.
        start: u64,
    },
    /// A rotated file was changed after it was sent; it is not sent again.
    RotatedChanged {
        /// Its path.
        path: String,
    },
    /// A sibling with a rotated name is still being written to; it is not sent.
    StillWritten {
        /// Its path.
        path: String,
    },
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable { path, why } => write!(f, "cannot read {path}: {why}; continuing without it"),
            Self::Unlisted { path, why } => {
                write!(f, "cannot list the folder {path}: {why}; rotated files in it are not found")
            }
            Self::LooksRotated { path, more } => {
                write!(f, "{path} ")?;
                if *more > 0 {
                    write!(f, "(and {more} more) ")?;
                }
                write!(
                    f,
                    "exists beside the input and looks like a rotated file; it is not sent, because the source begins now"
                )
            }
            Self::SameBeginning { path, bytes } => write!(
                f,
                "{path} begins with the same {bytes} bytes as an earlier content; it is sent from its beginning, so they \
                 may be sent twice"
            ),
            Self::Edited { path } => {
                write!(f, "{path} was edited in a part that is already sent; the edited bytes are not sent again")
            }
            Self::Changed { path, start } => {
                write!(f, "{path} was cut or edited in a part that is already sent; sending what follows byte {start}")
            }
            Self::RotatedChanged { path } => {
                write!(f, "{path} was changed after it had been rotated and sent; it is not sent again")
            }
            Self::StillWritten { path } => {
                write!(f, "{path} looks like a rotated file, but another program still writes to it; it is not sent")
            }
        }
    }
}

/// The ranges whose hashes a [`Sighting`] must have, besides its fingerprint.
#[must_use]
pub fn probes(known: &Known) -> Vec<Span> {
    let heads = known.contents.iter().filter_map(|c| c.head).map(|(end, _)| Span { start: 0, end });
    let mut spans: Vec<Span> =
        known.contents.iter().filter_map(|c| c.tail.as_ref()).flat_map(TailChecksum::probes).collect();
    spans.extend(heads);
    spans.sort_unstable();
    spans.dedup();
    spans
}

/// Tells which file is which content.
#[must_use]
pub fn identify(_snapshot: &Snapshot, _known: &Known) -> Identified {
    // Filled in by the next commits.
    Identified::default()
}
