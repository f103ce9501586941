//! Identifies files: which file holds which content, which is next, and what is left to send.
//!
//! [`resolve`] is a pure function of a [`Snapshot`] of the folder, the [`KnownContents`] and the
//! [`ScanHistory`]. The reader takes the snapshot, and answers the [`Question`]s that [`resolve`]
//! asks with further reads. The producing side acts on the result, [`Identified`].
//!
//! A file is a known content when their common prefix is the same, whatever its name, device, inode
//! and length. When two readings are possible, the one that cannot lose bytes wins, and a
//! [`Notice`] reports it.

use crate::fingerprint::{Agreement, Fingerprint, Span, TailChecksum};
use crate::rotated_names::{NameKind, RotationOrder};
use crate::source_file::SourceFile;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

/// The file ID of an open file whose content has none yet: it was opened at the input's path.
pub const UNNAMED: u64 = 0;
/// The maximum number of neighbours in the state file.
pub const NEIGHBOURS: usize = 64;

/// Device and inode: identify a file on this machine until it is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Inode {
    /// The device.
    pub dev: u64,
    /// The inode number. A file system may reuse it after the file is deleted.
    pub ino: u64,
}

/// The files in the input's folder, and in the folder that a symbolic link leads to, at one moment.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// The regular files that may matter, each once, however many names it has.
    pub sightings: Vec<Sighting>,
    /// Folders that could not be listed, with the reason.
    pub unlisted: Vec<(String, String)>,
}

/// One file as a scan saw it.
#[derive(Debug, Clone)]
pub struct Sighting {
    /// The key by which the driver opens it; unique in the snapshot.
    pub key: usize,
    /// Its path.
    pub path: String,
    /// Its device and inode.
    pub inode: Inode,
    /// The kind of its name.
    pub name_kind: NameKind,
    /// Its length in bytes; for a compressed file, the length of its content as far as it is known.
    pub len: u64,
    /// The time of its last write: nanoseconds since the epoch on the file system's clock.
    pub modified: i128,
    /// The time of its creation on the same clock; `None` if the file system does not record it.
    pub created: Option<i128>,
    /// Whether it changed between this scan and the previous one, at which it had a rotated name:
    /// the input itself changes, and an inode that is used again is another file.
    pub changing: bool,
    /// Whether it was found at the input's path before the source began, although no scan may have
    /// seen it there.
    pub was_input: bool,
    /// Its fingerprint.
    pub prints: Prefix,
    /// The hashes of the ranges that [`probes`] names, as far as the file reaches.
    pub hashes: BTreeMap<Span, u64>,
    /// Answers to [`Question::Compare`], by file ID.
    pub compared: BTreeMap<u64, Compared>,
}

/// The fingerprint of a file's first bytes, as far as they were read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Prefix {
    /// The fingerprint of the whole file.
    Whole(Fingerprint),
    /// A compressed file, of whose content only this prefix was unpacked. At first it is empty.
    Partial(Fingerprint),
    /// It cannot be read, for this reason.
    Unreadable(String),
}

/// The state of a source before the folder is scanned.
#[derive(Debug, Clone, Default)]
pub struct KnownContents {
    /// The contents, oldest first. Empty if the source has not begun.
    pub contents: Vec<Content>,
    /// When the source began, on the file system's clock (the input's last modification then).
    pub began: Option<i128>,
    /// The files beside the input, as an earlier scan recorded them.
    pub siblings: Siblings,
    /// Open files that were the input before their content was known.
    pub unknown: Vec<Neighbour>,
}

/// What is known of the files beside the input that hold no known content: what must outlive the
/// process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Siblings {
    /// Files that are no contents of the input. `None` if they were never recorded (an older state
    /// file); then ages are compared instead.
    pub neighbours: Option<Vec<Neighbour>>,
    /// The fingerprints of neighbours, also from before they were compressed.
    pub held: Vec<Held>,
    /// Files that are still to be sent.
    pub pending: Vec<Neighbour>,
    /// Whether contents may have come and gone since all folders could last be listed: all others
    /// may be ours.
    pub missed: bool,
}

/// A file beside the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct Neighbour {
    /// Its device.
    pub dev: u64,
    /// Its inode.
    pub ino: u64,
    /// The time of its creation, if the file system records it. It tells files with a reused inode
    /// number apart.
    pub created: Option<i128>,
}

impl Neighbour {
    /// Names an open file.
    pub(crate) fn opened(file: &impl SourceFile) -> Self {
        Self { dev: file.inode().dev, ino: file.inode().ino, created: file.created() }
    }

    /// Names a file.
    const fn of(file: &Sighting) -> Self {
        Self { dev: file.inode.dev, ino: file.inode.ino, created: file.created }
    }

    fn is(&self, file: &Sighting) -> bool {
        (self.dev, self.ino) == (file.inode.dev, file.inode.ino)
            && self.created.zip(file.created).is_none_or(|(a, b)| a == b)
    }
}

/// The fingerprint of a neighbour. A file with another inode and the same fingerprint is its
/// compressed copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct Held {
    /// The neighbour.
    pub neighbour: Neighbour,
    /// How many bytes.
    pub len: u64,
    /// The hash of its fingerprint.
    pub hash: u64,
}

impl Held {
    /// `None` if it is too short to be recognised, or cannot be read.
    fn of(file: &Sighting, limits: &Limits) -> Option<Self> {
        let Prefix::Whole(prints) = &file.prints else { return None };
        let neighbour = Neighbour::of(file);
        (file.len >= limits.distinct).then(|| Self { neighbour, len: file.len, hash: prints.digest() })
    }
}

/// One content of the source.
#[derive(Debug, Clone, Default)]
pub struct Content {
    /// Its file ID.
    pub file_id: u64,
    /// The hashes of its first bytes, as far as they were read.
    pub fingerprint: Fingerprint,
    /// Length and hash of its head, if the fingerprint does not cover it (older manifests).
    pub head: Option<(u64, u64)>,
    /// The file that held it at the latest scan that found it.
    pub inode: Option<Inode>,
    /// When that file was created.
    pub created: Option<i128>,
    /// The file that it is read from now, or was before the connection was lost. It may differ.
    pub open: Option<Neighbour>,
    /// The path of that file with links resolved; empty if unknown. The driver also scans its
    /// folder.
    pub path: String,
    /// The offset up to which it was sent.
    pub frontier: u64,
    /// A checksum of the bytes before the frontier, or before a position that was sent once.
    pub tail: Option<TailChecksum>,
    /// The largest length that any scan saw.
    pub seen_len: u64,
    /// Whether a later content has begun.
    pub finished: bool,
    /// Whether it is still being sent although a later content has begun: other partitions are
    /// ahead, or late lines of it are being sent.
    pub is_owed: bool,
}

/// Bounds of file identification, smaller in simulations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Two files with this many equal bytes count as the same content by their bytes alone. Fewer
    /// bytes may be a header that many files begin with.
    pub distinct: u64,
    /// How long a file must have kept its length to count as rolled back. An unfinished copy is a
    /// prefix of its original, too.
    pub stands: Duration,
    /// How long an unknown rotated file must be unchanged before it is sent.
    pub quiet: Duration,
    /// How many bytes of a compressed file are unpacked to decide whether to unpack the rest.
    pub first_scan: u64,
    /// A longer unfinished line is not sent again from its beginning.
    pub long_line: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            distinct: 256,
            stands: Duration::from_secs(1),
            quiet: Duration::from_secs(10),
            first_scan: 64 << 10,
            long_line: 64 << 10,
        }
    }
}

/// Observations of earlier scans by this process. They are lost with the process; the next one
/// decides without them.
#[derive(Debug, Clone, Default)]
pub struct ScanHistory {
    limits: Limits,
    /// Contents whose file was seen truncated.
    truncated: BTreeSet<u64>,
    /// Contents that were seen rotated away.
    rotated: BTreeSet<u64>,
    /// Whether the input was a prefix of a content.
    beginning: Option<Beginning>,
    /// The file at the input's path, and the known content in it, at the previous scan.
    input: Option<(Neighbour, Option<u64>)>,
    /// The inputs of scans before the source began.
    unsent: Vec<Fingerprint>,
    /// Whether there was a previous scan.
    has_scanned: bool,
    /// Whether rotation gives the newest file the smallest index, according to the names so far.
    newest_first: Option<bool>,
    /// The indices in the names of files.
    indices: BTreeMap<Neighbour, u32>,
    /// Siblings that are neither known yet nor neighbours.
    pending: BTreeMap<Neighbour, Pending>,
    now: Duration,
}

#[derive(Debug, Clone, Copy)]
struct Beginning {
    file_id: u64,
    len: u64,
    /// When it was first and last seen like this.
    since: Duration,
    until: Duration,
}

/// The state of a rotated file that is neither a known content nor a neighbour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pending {
    /// It is sent next, or as soon as it can be read.
    Ready,
    /// It is a prefix of another file, perhaps an unfinished copy.
    Copy,
    /// It was last seen changing at this moment.
    Written(Duration),
}

impl ScanHistory {
    fn pending(&self, file: &Sighting) -> Option<Pending> {
        self.pending.iter().find(|(pending, _)| pending.is(file)).map(|(_, state)| *state)
    }

    /// The inode numbers of files that matter whatever their names are: the input at the previous
    /// scan, and those that wait to be sent.
    pub fn inodes(&self) -> impl Iterator<Item = u64> {
        self.input.iter().map(|(file, _)| file).chain(self.pending.keys()).map(|file| file.ino)
    }

    /// The history before the first scan.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// The length to which a content was rolled back. Bytes after it were appended since.
    fn rolled_back(&self, file_id: u64) -> Option<u64> {
        let stood = |b: &Beginning| b.file_id == file_id && b.until.saturating_sub(b.since) >= self.limits.stands;
        self.beginning.filter(stood).map(|b| b.len)
    }

    fn see(&mut self, snapshot: &Snapshot, known: &KnownContents, identified: &Identified, now: Duration) {
        self.has_scanned = true;
        self.rotated.extend(&identified.rotated);
        self.rotated.retain(|id| known.contents.iter().any(|content| content.file_id == *id));
        self.newest_first = identified.newest_first.or(self.newest_first);
        let index = |file: &Sighting| Some((Neighbour::of(file), index_of(file)?));
        let before = std::mem::replace(&mut self.indices, snapshot.sightings.iter().filter_map(index).collect());
        if self.indices.iter().any(|(file, index)| before.get(file).is_some_and(|before| before < index)) {
            // Older files get larger indices.
            self.newest_first = Some(true);
        }
        self.pending.clone_from(&identified.pending);
        let Some(found) = identified.current.found() else { return };
        let input = snapshot.sightings.iter().find(|file| file.key == found.key);
        self.input = input.map(|file| (Neighbour::of(file), found.relation.file_id()));
        match input.map(|file| &file.prints) {
            _ if !known.contents.is_empty() => self.unsent.clear(),
            Some(Prefix::Whole(prints)) if prints.covered() > 0 => {
                // The same one, grown.
                self.unsent.retain(|before| before.agreement(prints).differs.is_some());
                self.unsent.push(prints.clone());
                let most = self.unsent.len().saturating_sub(NEIGHBOURS);
                self.unsent.drain(..most);
            }
            _ => {}
        }
        let last = known.contents.last();
        match found.relation {
            Relation::Whole(id) | Relation::Edited(id) => {
                self.beginning = None;
                self.truncated.remove(&id);
            }
            Relation::Shorter(file_id) => {
                let len = found.len;
                let since = self.beginning.filter(|b| (b.file_id, b.len) == (file_id, len)).map_or(now, |b| b.since);
                self.beginning = Some(Beginning { file_id, len, since, until: now });
            }
            Relation::Derived { .. } => {}
            Relation::New => self.beginning = None,
        }
        if let (Relation::Shorter(_) | Relation::New, Some(last)) = (found.relation, last)
            && input.is_some_and(|input| was_in(last, input))
        {
            self.truncated.insert(last.file_id);
        }
        self.truncated.retain(|id| known.contents.iter().any(|content| content.file_id == *id));
    }
}

/// A file that holds a content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The sighting's key.
    pub key: usize,
    /// Its content, or its relation to one.
    pub relation: Relation,
    /// How long it is.
    pub len: u64,
}

/// The content of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relation {
    /// This content, with everything that was sent of it and perhaps more.
    Whole(u64),
    /// A prefix of this content: there is nothing to send.
    Shorter(u64),
    /// This content, edited before its frontier without changing a length. Continue there.
    Edited(u64),
    /// A content of its own whose bytes before `start` were sent as those of `from`: the file
    /// shrank, was rolled back or edited, and grew. Begin a new content at `start`.
    Derived {
        /// The file ID of the content from which it was made.
        from: u64,
        /// Where the new bytes begin; a line begins there when possible.
        start: u64,
    },
    /// A content of its own: begin a new content at 0.
    New,
}

impl Relation {
    /// Its content, if that is known.
    #[must_use]
    pub const fn file_id(self) -> Option<u64> {
        match self {
            Self::Whole(id) | Self::Shorter(id) | Self::Edited(id) => Some(id),
            Self::Derived { .. } | Self::New => None,
        }
    }
}

/// The file at the input's path.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Current {
    /// Nothing.
    #[default]
    Missing,
    /// A file that cannot be read, with the reason.
    Unreadable(String),
    /// This file.
    Found(Found),
}

impl Current {
    /// The file, if there is one that can be read.
    #[must_use]
    pub const fn found(&self) -> Option<&Found> {
        match self {
            Self::Found(found) => Some(found),
            Self::Missing | Self::Unreadable(_) => None,
        }
    }
}

/// The result of [`resolve`]: which file holds which content.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identified {
    /// The file at the input's path.
    pub current: Current,
    /// The files that hold a known content, the best first: those with everything that was sent
    /// before shorter ones, the original before copies.
    pub holders: BTreeMap<u64, Vec<Found>>,
    /// Contents that were rotated away.
    pub rotated: Vec<u64>,
    /// Contents whose file exists and cannot be read, with the reason. The reader waits for them.
    pub blocked: BTreeMap<u64, String>,
    /// Whether rotation gives the newest file the smallest index; `None` if the names do not show
    /// it.
    pub newest_first: Option<bool>,
    /// Whether some folder could not be listed. Missing files may be in it.
    pub unlisted: bool,
    /// Contents that were created and rotated away between two scans: rotated files without a known
    /// content, oldest first.
    pub unseen: Vec<Found>,
    /// All siblings that do not belong to the source. `None` if they were never recorded, and not
    /// all folders can be listed now.
    pub neighbours: Option<Vec<Neighbour>>,
    /// The fingerprints of neighbours, present and past.
    pub held: Vec<Held>,
    /// Whether contents may have come and gone that could not be listed.
    pub missed: bool,
    /// The notices to report, each once.
    pub notices: Vec<Notice>,
    /// The rotated files that are no known content and no neighbours: those in `unseen`, and those
    /// that must be scanned again.
    pub pending: BTreeMap<Neighbour, Pending>,
    /// Questions whose answers may change this result. If empty, the result is final.
    pub questions: Vec<Question>,
}

/// A read whose result decides what a file is.
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
    /// The offset up to which the bytes are equal, if the old bytes could still be read.
    pub same_until: Option<u64>,
    /// The start of the line that contains the byte at `same_until`, or else at the question's
    /// `from`.
    pub line_start: u64,
    /// The offset after the last sent bytes in this file, if it contains them.
    pub tail_at: Option<u64>,
}

impl Identified {
    /// What to store of the files beside the input, with the present content, when it changed.
    #[must_use]
    pub fn siblings(&self) -> Siblings {
        let pending = self.pending.keys().copied().take(NEIGHBOURS).collect();
        Siblings { neighbours: self.neighbours.clone(), held: self.held.clone(), pending, missed: self.missed }
    }
}

/// A finding that the user should know. Report each once.
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
    /// A sibling that looks like a rotated file is older than the source.
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
    /// A sibling with a rotated name is still being written to; it is sent when it is quiet.
    StillWritten {
        /// Its path.
        path: String,
    },
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable { path, why } => {
                write!(f, "cannot read {path}: {why}; continuing without it until it can be read")
            }
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
                    "exists beside the input and looks like a rotated file; it is not sent, because it is older than the source"
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
                write!(f, "{path} looks like a rotated file and is still written to; it is sent when that ends")
            }
        }
    }
}

/// The ranges whose hashes the [`Sighting`] of a file with this fingerprint must have: only those
/// that can tell whether it is a known content.
#[must_use]
pub fn probes(known: &KnownContents, prints: &Fingerprint) -> Vec<Span> {
    let alike = known.contents.iter().filter(|content| {
        let agreement = content.fingerprint.agreement(prints);
        !content.is_apart(&agreement)
    });
    let alike: Vec<&Content> = alike.collect();
    let heads = alike.iter().filter_map(|c| c.head).map(|(end, _)| Span { start: 0, end });
    let tails = alike.iter().filter_map(|c| c.tail.as_ref()).flat_map(TailChecksum::probes);
    let mut spans: Vec<Span> = tails.chain(heads).collect();
    spans.sort_unstable();
    spans.dedup();
    spans
}

/// The maximum number of contents with which a file is compared in detail.
const COMPARISONS: usize = 4;

/// The maximum number of rounds of questions; a file that keeps changing changes the answers.
const ROUNDS: usize = 16;

/// Determines which file holds which content. `answer` performs the read that a [`Question`]
/// describes, and stores the result in the snapshot. `now` is a time on a monotonic clock.
pub fn resolve(
    snapshot: &mut Snapshot,
    known: &KnownContents,
    history: &mut ScanHistory,
    now: Duration,
    mut answer: impl FnMut(&Question, &mut Snapshot),
) -> Identified {
    history.now = now;
    if !history.has_scanned {
        history.pending.extend(known.siblings.pending.iter().map(|file| (*file, Pending::Ready)));
    }
    let mut identified = identify(snapshot, known, history);
    for _ in 0..ROUNDS {
        if identified.questions.is_empty() {
            break;
        }
        for question in std::mem::take(&mut identified.questions) {
            answer(&question, snapshot);
        }
        identified = identify(snapshot, known, history);
    }
    history.see(snapshot, known, &identified, now);
    identified
}

/// Determines which file holds which content, as far as possible without the answers to its
/// questions. Most callers want [`resolve`].
#[must_use]
pub fn identify(snapshot: &Snapshot, known: &KnownContents, history: &ScanHistory) -> Identified {
    Identification::new(snapshot, known, history).identify()
}

/// How the bytes of a file compare with what is known of a content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bytes {
    /// Unknown.
    Unknown,
    /// The file has all known bytes of the content.
    Whole,
    /// The file is a prefix of the content; the first `common` bytes are certain.
    Shorter { common: u64 },
    /// They differ in the middle; beginning and end are equal.
    Edited,
    /// They differ: at least the first `common` bytes are equal, and a byte before `differs` is
    /// not.
    Apart { common: u64, differs: u64 },
}

/// The relation of a file beside the input to a known content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Role {
    /// It was changed after it was sent.
    Changed,
    Shorter,
    Edited,
    Whole,
}

impl Content {
    /// The offset up to which its bytes are known.
    fn end(&self) -> u64 {
        let tail = self.tail.as_ref().map_or(0, |tail| tail.end);
        let head = self.head.map_or(0, |(len, _)| len);
        self.frontier.max(tail).max(head).max(self.fingerprint.covered())
    }

    /// Whether it may have bytes that were not sent.
    fn has_more(&self) -> bool {
        !self.finished || self.is_owed || self.frontier < self.seen_len
    }

    /// Whether the fingerprints alone show that a file is another content: few bytes are equal, and
    /// they differ before the tail begins.
    fn is_apart(&self, agreement: &Agreement) -> bool {
        agreement.differs.is_some()
            && agreement.weight < agreement.compared / 4
            && self.tail.as_ref().is_none_or(|tail| agreement.common <= tail.span().start)
    }

    fn compare(&self, file: &Sighting) -> Bytes {
        let (prints, partial) = match &file.prints {
            Prefix::Whole(prints) => (prints, false),
            Prefix::Partial(prints) => (prints, true),
            Prefix::Unreadable(_) => return Bytes::Unknown,
        };
        let found = |span: Span| file.hashes.get(&span).copied();
        let mut agreement = self.fingerprint.agreement(prints);
        if let Some(differs) = agreement.differs.filter(|_| self.is_apart(&agreement)) {
            return Bytes::Apart { common: agreement.common, differs };
        }
        if let Some((len, hash)) = self.head
            && agreement.differs.is_none()
            && agreement.compared < len
        {
            match found(Span { start: 0, end: len }) {
                Some(found) if found == hash => agreement.common = len,
                Some(_) => agreement.differs = Some(len),
                None => {}
            }
        }
        let tail = self.tail.as_ref();
        let same_until = tail.and_then(|tail| tail.same_until(found));
        let differ = |tail: &TailChecksum| {
            let ends = tail.probes().filter(|span| found(*span).is_some()).map(|span| span.end);
            ends.filter(|end| Some(*end) > same_until).min()
        };
        let parted = tail.and_then(differ);
        // Another partition may have extended the fingerprint from a file that was edited since.
        // The tail covers only bytes that were sent.
        agreement.common = match (tail, parted) {
            (Some(tail), Some(parted)) if agreement.common >= parted => same_until.unwrap_or(tail.span().start),
            _ => agreement.common,
        };
        let common = agreement.common.max(same_until.unwrap_or(0));
        let whole_tail = tail.is_none_or(|tail| same_until == Some(tail.end));
        match agreement.differs {
            Some(differs)
                if whole_tail
                    && tail.is_some_and(|tail| differs <= tail.end)
                    && !partial
                    && agreement.weight >= agreement.compared / 4 =>
            {
                Bytes::Edited
            }
            Some(differs) => Bytes::Apart { common: agreement.common, differs },
            None if partial => Bytes::Unknown,
            None if whole_tail && file.len >= self.end() && self.end() > 0 => Bytes::Whole,
            None if parted.is_some() => Bytes::Apart { common, differs: parted.unwrap_or(0) },
            None if common > 0 => Bytes::Shorter { common },
            None => Bytes::Unknown,
        }
    }
}

/// One decision, for one snapshot.
struct Identification<'a> {
    known: &'a KnownContents,
    history: &'a ScanHistory,
    files: &'a [Sighting],
    /// For each file that is not at the input's path: its content, and what it is to it.
    roles: Vec<Option<(&'a Content, Role)>>,
    out: Identified,
}

impl<'a> Identification<'a> {
    fn new(snapshot: &'a Snapshot, known: &'a KnownContents, history: &'a ScanHistory) -> Self {
        let unlisted = snapshot.unlisted.iter().cloned().map(|(path, why)| Notice::Unlisted { path, why });
        let out = Identified {
            notices: unlisted.collect(),
            unlisted: !snapshot.unlisted.is_empty(),
            ..Identified::default()
        };
        let mut all = Self { known, history, files: &snapshot.sightings, roles: Vec::new(), out };
        all.roles = all.files.iter().map(|file| all.role(file)).collect();
        all
    }

    /// A file that was a prefix of a content may have grown since.
    fn compare_beginnings(&mut self) {
        for (nth, file) in self.files.iter().enumerate() {
            let Some((content, Role::Shorter)) = self.roles.get(nth).copied().flatten() else { continue };
            if let Bytes::Shorter { common } = content.compare(file)
                && common < file.len
                && !file.compared.contains_key(&content.file_id)
                && self.holder(content).is_some()
            {
                self.compare(file, content, common, file.len);
            }
        }
    }

    fn identify(mut self) -> Identified {
        self.compare_beginnings();
        let current = self.files.iter().find(|file| file.name_kind == NameKind::Input);
        self.out.current = match current {
            None => Current::Missing,
            Some(Sighting { prints: Prefix::Unreadable(why), .. }) => Current::Unreadable(why.clone()),
            Some(file) => {
                let relation = self.current(file);
                Current::Found(Found { key: file.key, relation, len: file.len })
            }
        };
        let rotated = |content: &&Content| self.elsewhere(content).next().is_some();
        self.out.rotated = self.known.contents.iter().filter(rotated).map(|content| content.file_id).collect();
        self.hold();
        let moved = self.has_moved(current);
        self.out.missed = self.out.unlisted && (moved || self.known.siblings.missed);
        self.unseen(current, moved);
        self.unpack(moved);
        self.out.notices.sort_unstable();
        self.out.notices.dedup();
        self.out
    }

    /// Whether contents may have come and gone between two scans. None can while the live content
    /// is still in its file.
    fn has_moved(&self, current: Option<&Sighting>) -> bool {
        let before = self.history.input;
        let Some(live) = self.known.contents.last() else {
            // The source has not begun, and the input that would begin it may be gone.
            return before.is_some_and(|(before, _)| current.is_none_or(|current| !before.is(current)));
        };
        match self.out.current.found().map(|found| found.relation) {
            Some(Relation::Whole(id) | Relation::Edited(id)) => {
                // A content that was found late has a newer file ID, but is older.
                live.file_id != id && before.is_none_or(|(_, before)| before != Some(id))
            }
            _ => true,
        }
    }

    /// Whether a file is, by its inode, the one that held a content.
    fn is_file_of(&self, file: &Sighting, content: &Content) -> bool {
        was_in(content, file)
            // A file that was truncated holds the later content.
            && !self.known.contents.iter().any(|later| later.file_id > content.file_id && was_in(later, file))
    }

    /// Identifies a file beside the input.
    fn role(&self, file: &'a Sighting) -> Option<(&'a Content, Role)> {
        if file.name_kind == NameKind::Input {
            return None;
        }
        let by_name = file.name_kind.is_rotated();
        // A copy that was opened to read the content, and was deleted since.
        let was_opened = |common| file.name_kind == NameKind::Unlinked && common >= self.history.limits.distinct;
        let roles = self.known.contents.iter().filter_map(|content| {
            let is_file = self.is_file_of(file, content);
            let end = content.end();
            let role = match content.compare(file) {
                Bytes::Whole if is_file || self.is_copy(file, content) => Role::Whole,
                Bytes::Edited => Role::Edited,
                Bytes::Shorter { common }
                    if (is_file || by_name || was_opened(common)) && parted(file, content).is_none() =>
                {
                    Role::Shorter
                }
                Bytes::Apart { .. } if content.finished && made_of(file, content) => Role::Changed,
                // If only a header is equal, the file was rewritten before it was rotated; if more
                // is equal, it was appended to.
                Bytes::Apart { common, .. }
                    if content.finished
                        && is_file
                        && common >= self.history.limits.distinct.min(end / 2)
                        && file.len <= end
                        && !self.was_copied(file, content) =>
                {
                    Role::Changed
                }
                Bytes::Unknown if is_file && end == 0 => Role::Whole,
                _ => return None,
            };
            Some((content, role, is_file))
        });
        let best = roles.max_by_key(|(content, role, is_file)| (*is_file, *role, content.end(), content.file_id));
        best.map(|(content, role, _)| (content, role))
    }

    /// Whether a rotated copy of a content exists. If so, and its original file holds something
    /// else, that file was truncated and holds a later content.
    fn was_copied(&self, file: &Sighting, content: &Content) -> bool {
        let is_copy = |other: &Sighting| other.name_kind.is_rotated() && content.compare(other) == Bytes::Whole;
        self.files.iter().any(|other| other.key != file.key && is_copy(other))
    }

    /// Whether a file beside the input that has all known bytes of a content is a copy of it,
    /// rather than another content with the same first bytes.
    fn is_copy(&self, file: &Sighting, content: &Content) -> bool {
        let is_original = |other: &&Sighting| {
            self.is_file_of(other, content) && matches!(content.compare(other), Bytes::Whole | Bytes::Edited)
        };
        match self.files.iter().find(is_original) {
            // A copy is not longer than its original while the original has a name.
            Some(original) if original.name_kind != NameKind::Unlinked => file.len <= original.len,
            _ if content.end() >= self.history.limits.distinct => true,
            Some(original) => file.len <= original.len,
            None => {
                let is_all = file.len == content.end() || file.len == content.seen_len;
                // It was sent from an archive, which was made of a file that may still be open.
                let is_packed =
                    |other: &Sighting| matches!(other.prints, Prefix::Partial(_)) && self.is_file_of(other, content);
                let may_be = file.name_kind.is_rotated() || self.files.iter().any(is_packed);
                may_be && (!content.finished || is_all)
            }
        }
    }

    /// The files beside the input that show that a content was rotated away: its own file under
    /// another name, or a copy under a name that rotation gives.
    fn elsewhere(&self, content: &Content) -> impl Iterator<Item = &'a Sighting> {
        let shows = |file: &Sighting, role: Option<(&Content, Role)>| {
            let copy = match role.filter(|(of, _)| of.file_id == content.file_id).map(|(_, role)| role) {
                Some(Role::Whole | Role::Edited) => true,
                Some(Role::Shorter) => file.len >= content.end() / 2,
                Some(Role::Changed) | None => false,
            };
            match file.name_kind {
                NameKind::Input | NameKind::Backup | NameKind::Unlinked => false,
                NameKind::Rotated(_) | NameKind::Compressed(_) => copy || self.is_file_of(file, content),
                NameKind::Other => self.is_file_of(file, content),
            }
        };
        let found = self.files.iter().zip(&self.roles).filter(move |(file, role)| shows(file, **role));
        found.map(|(file, _)| file)
    }

    /// Identifies the file at the input's path.
    fn current(&mut self, file: &'a Sighting) -> Relation {
        let mut best: Option<(u64, &Content, Role)> = None;
        let mut rejected = 0;
        for content in &self.known.contents {
            let end = content.end();
            let bytes = content.compare(file);
            let accepted = match bytes {
                Bytes::Whole if self.is_whole(file, content) => (end, content, Role::Whole),
                Bytes::Edited if self.is_whole(file, content) => (end, content, Role::Edited),
                Bytes::Shorter { .. } if self.is_beginning(file, content) => (0, content, Role::Shorter),
                Bytes::Unknown if end == 0 && self.is_file_of(file, content) => (end, content, Role::Whole),
                Bytes::Whole | Bytes::Edited => {
                    rejected = end.max(rejected);
                    continue;
                }
                _ => continue,
            };
            if best.is_none_or(|best| (best.0, best.2) <= (accepted.0, accepted.2)) {
                best = Some(accepted);
            }
        }
        let path = || file.path.clone();
        let relation = match best {
            Some((_, content, Role::Whole)) => Relation::Whole(content.file_id),
            Some((_, content, Role::Edited)) => {
                self.out.notices.push(Notice::Edited { path: path() });
                Relation::Edited(content.file_id)
            }
            Some((_, content, _)) => match self.made_from(file, content) {
                Some(start) => Relation::Derived { from: content.file_id, start },
                None => match parted(file, content) {
                    Some(same) => {
                        rejected = same.max(rejected);
                        self.own(file)
                    }
                    None => Relation::Shorter(content.file_id),
                },
            },
            None => self.own(file),
        };
        match relation {
            Relation::Derived { start, .. } => self.out.notices.push(Notice::Changed { path: path(), start }),
            Relation::New if rejected > 0 => {
                self.out.notices.push(Notice::SameBeginning { path: path(), bytes: rejected });
            }
            _ => {}
        }
        relation
    }

    /// Whether an input that has all known bytes of a content is that content, rather than a new
    /// file with the same first bytes.
    fn is_whole(&self, file: &Sighting, content: &Content) -> bool {
        let distinct = content.end() >= self.history.limits.distinct;
        // A copy that lacks bytes of the input is unfinished.
        let has_all = |other: &&Sighting| self.is_file_of(other, content) || other.len >= content.end().min(file.len);
        let mut elsewhere = self.elsewhere(content).filter(has_all).peekable();
        if self.is_file_of(file, content) {
            let truncated = self.history.truncated.contains(&content.file_id);
            return !truncated || distinct && elsewhere.peek().is_none();
        }
        if elsewhere.peek().is_none() {
            return distinct || !content.finished && !self.history.rotated.contains(&content.file_id);
        }
        // The content was found in a copy of the input; the input is older than the copy.
        let is_older = content.created.zip(file.created).is_some_and(|(copy, original)| original < copy);
        if distinct && is_older {
            return true;
        }
        // A copy with the same times was made on purpose.
        distinct && elsewhere.any(|other| other.len == file.len && other.modified == file.modified)
    }

    /// Whether the input, which is a beginning of a content, has nothing else to send.
    fn is_beginning(&self, file: &Sighting, content: &Content) -> bool {
        let enough = file.len >= self.history.limits.distinct || !content.finished && file.len >= content.end() / 2;
        enough && self.elsewhere(content).next().is_none()
    }

    /// Identifies a file without a known content: it was made from a known content, or is new.
    fn own(&mut self, file: &'a Sighting) -> Relation {
        let input = file.name_kind == NameKind::Input;
        let apart = self.known.contents.iter().filter_map(|content| {
            let Bytes::Apart { common, .. } = content.compare(file) else { return None };
            let likely = common >= self.history.limits.distinct || !content.finished || !input;
            let here = self.elsewhere(content).all(|other| other.key == file.key);
            (likely && here).then_some((common, content))
        });
        let mut apart: Vec<_> = apart.collect();
        apart.sort_unstable_by_key(|(common, content)| (*common, content.file_id));
        for (_, content) in apart.into_iter().rev().take(COMPARISONS) {
            if let Some(start) = self.made_from(file, content) {
                return Relation::Derived { from: content.file_id, start };
            }
        }
        Relation::New
    }

    /// The start of the new bytes in a file that was made from a content by cutting, rolling back
    /// or editing it. `None` if it was not, or must be compared first.
    fn made_from(&mut self, file: &'a Sighting, content: &'a Content) -> Option<u64> {
        let (common, differs, beginning) = match content.compare(file) {
            Bytes::Apart { common, differs } => (common, differs, false),
            Bytes::Shorter { common } => (common, file.len, true),
            _ => return None,
        };
        // A scan saw it before anything was appended.
        let rolled_back = self.history.rolled_back(content.file_id);
        let rolled_back =
            rolled_back.filter(|len| file.name_kind == NameKind::Input && (common..differs).contains(len));
        let Some(compared) = file.compared.get(&content.file_id) else {
            let from = rolled_back.unwrap_or(common);
            self.compare(file, content, from, differs);
            return None;
        };
        let Compared { same_until, line_start, tail_at } = *compared;
        let same = match (same_until, rolled_back, beginning) {
            // Nothing else is in it.
            (Some(same), _, true) if same >= file.len => return None,
            (None, None, true) => return None,
            (same, rolled_back, _) => same.or(rolled_back).unwrap_or(common),
        };
        let line = if same.saturating_sub(line_start) > self.history.limits.long_line { same } else { line_start };
        let (end, half) = (content.end(), content.end() / 2);
        // A file that was rewritten in place may begin with the same header, however long.
        let few = end.saturating_sub(same) <= self.history.limits.distinct.min(end / 16);
        let alike = if was_in(content, file) { few } else { same >= half };
        let much = same >= self.history.limits.distinct && (alike || rolled_back.is_some());
        let start = much.then_some(line.min(content.frontier));
        start.max(tail_at.filter(|&at| at >= half))
    }

    /// A file beside the input that has all known bytes of a content.
    fn holder(&self, content: &Content) -> Option<usize> {
        let holds = |role: Option<(&Content, Role)>| {
            role.is_some_and(|(of, role)| of.file_id == content.file_id && role == Role::Whole)
        };
        self.files.iter().zip(&self.roles).find(|(_, role)| holds(**role)).map(|(file, _)| file.key)
    }

    /// Asks how a file compares with a content.
    fn compare(&mut self, file: &Sighting, content: &Content, from: u64, to: u64) {
        let with = self.holder(content);
        let Content { file_id, tail, .. } = content;
        let question = Question::Compare { key: file.key, file_id: *file_id, from, to, with, tail: tail.clone() };
        self.out.questions.push(question);
    }

    /// Records which files hold which contents.
    fn hold(&mut self) {
        let mut holders = Vec::new();
        let current = self.out.current.found().map(|found| found.relation);
        for (file, role) in self.files.iter().zip(&self.roles) {
            let relation = match (current, role) {
                (Some(relation), _) if file.name_kind == NameKind::Input && relation.file_id().is_some() => relation,
                (_, Some((content, Role::Whole))) => Relation::Whole(content.file_id),
                (_, Some((content, Role::Edited))) => Relation::Edited(content.file_id),
                (_, Some((content, Role::Shorter))) => Relation::Shorter(content.file_id),
                (_, Some((_, Role::Changed))) => {
                    self.out.notices.push(Notice::RotatedChanged { path: file.path.clone() });
                    continue;
                }
                (_, None) => {
                    let (blocks, notice) = self.not_readable(file);
                    self.out.blocked.extend(blocks);
                    self.out.notices.extend(notice);
                    continue;
                }
            };
            let Some(id) = relation.file_id() else { continue };
            let best = match relation {
                Relation::Whole(_) => 2,
                Relation::Edited(_) => 1,
                _ => 0,
            };
            let is_file = self.known.contents.iter().any(|c| c.file_id == id && self.is_file_of(file, c));
            let rank = match file.name_kind {
                NameKind::Input => 3,
                NameKind::Rotated(_) => 2,
                NameKind::Compressed(_) => 1,
                NameKind::Backup | NameKind::Unlinked | NameKind::Other => 0,
            };
            let found = Found { key: file.key, relation, len: file.len };
            // Of several files with only a common header, the oldest is next.
            holders.push((id, (best, rank == 3, is_file, rank, std::cmp::Reverse(file.modified)), found));
        }
        holders.sort_by_key(|(id, rank, _)| (*id, std::cmp::Reverse(*rank)));
        for (id, _, found) in holders {
            self.out.holders.entry(id).or_default().push(found);
        }
        let Identified { holders, blocked, .. } = &mut self.out;
        blocked.retain(|id, _| !holders.contains_key(id));
    }

    /// Determines which contents an unreadable file may hold, and reports it.
    fn not_readable(&self, file: &Sighting) -> (Vec<(u64, String)>, Option<Notice>) {
        let Prefix::Unreadable(why) = &file.prints else { return (Vec::new(), None) };
        let blocks = self.known.contents.iter().filter(|content| self.is_file_of(file, content));
        let blocks: Vec<_> = blocks.map(|content| (content.file_id, why.clone())).collect();
        let stranger = file.name_kind.is_rotated() && !self.known.contents.is_empty() && !self.is_neighbour(file);
        let reported = file.name_kind != NameKind::Input && (stranger || !blocks.is_empty());
        let notice = reported.then(|| Notice::Unreadable { path: file.path.clone(), why: why.clone() });
        (blocks, notice)
    }

    /// Records the neighbours, and the contents that came and went between two scans.
    fn unseen(&mut self, current: Option<&Sighting>, moved: bool) {
        let files = self.files.iter().zip(&self.roles);
        let strangers = files.filter(|(file, role)| role.is_none() && self.is_candidate(file)).map(|(file, _)| file);
        let (mut ours, mut others): (Vec<&'a Sighting>, Vec<&'a Sighting>) =
            strangers.partition(|file| self.may_be_ours(file, moved));
        self.out.newest_first = self.newest_first(&ours);
        sort(&mut ours, self.out.newest_first.or(self.history.newest_first));
        sort(&mut others, None);
        if self.out.unlisted {
            // A file in a folder that cannot be listed may still exist.
            self.out.pending.clone_from(&self.history.pending);
        }
        for file in &ours {
            let readable = matches!(file.prints, Prefix::Whole(_)) && file.len > 0;
            let state = match self.last_written(file) {
                _ if self.is_copied(file, current, &ours) => Pending::Copy,
                Some(at) => Pending::Written(at),
                None => Pending::Ready,
            };
            self.out.pending.insert(Neighbour::of(file), state);
            match state {
                Pending::Ready if readable => {
                    let relation = self.own(file);
                    let live = self.known.contents.last().map(|live| live.file_id).filter(|_| !moved);
                    let alike = self.known.contents.iter().filter_map(|content| match content.compare(file) {
                        Bytes::Whole => Some(content.end().min(file.len)),
                        Bytes::Shorter { .. } => parted(file, content),
                        _ if live == Some(content.file_id) && begins_like(file, content) => {
                            Some(content.end().min(file.len))
                        }
                        _ => None,
                    });
                    if let Some(bytes) = alike.max().filter(|_| relation == Relation::New) {
                        self.out.notices.push(Notice::SameBeginning { path: file.path.clone(), bytes });
                    }
                    // A file that ends where a known content ends has no other bytes.
                    if !matches!(relation, Relation::Derived { start, .. } if start >= file.len) {
                        self.out.unseen.push(Found { key: file.key, relation, len: file.len });
                    }
                }
                Pending::Written(_) => self.out.notices.push(Notice::StillWritten { path: file.path.clone() }),
                Pending::Ready | Pending::Copy => {}
            }
        }
        let begins = self.known.contents.is_empty();
        // Only their ages distinguish them from our own files that could not be listed.
        let is_doubtful = self.known.siblings.missed && self.known.siblings.neighbours.is_none();
        if let (true, Some(newest)) = (begins || is_doubtful, others.last()) {
            let (path, more) = (newest.path.clone(), others.len().saturating_sub(1));
            self.out.notices.push(Notice::LooksRotated { path, more });
        }
        // A neighbour remains one while it exists, however its contents change. Before the source
        // begins, an empty neighbour may turn out to be a copy of the input.
        let known = self.known.siblings.neighbours.iter().flatten().copied();
        let (unlisted, begins) = (self.out.unlisted, self.known.contents.is_empty());
        let is_copy = |file: &Sighting| begins && file.len > 0 && self.is_copied(file, current, &[]);
        let is_there = |neighbour: &Neighbour| {
            let found = self.files.iter().find(|file| neighbour.is(file));
            found.map_or(unlisted, |file| !is_copy(file))
        };
        let known = known.filter(|neighbour| is_there(neighbour));
        // An empty file has no contents to identify yet, and a copy may become all that is left of
        // the input.
        let is_decided =
            |file: &&&Sighting| (file.len > 0 || self.known.contents.is_empty()) && !self.is_copied(file, current, &[]);
        let others = others.iter().filter(is_decided).map(|file| Neighbour::of(file));
        let all: BTreeSet<Neighbour> = known.chain(others).collect();
        let held = self.files.iter().filter(|file| all.iter().any(|neighbour| neighbour.is(file)));
        let held: Vec<Held> = held.filter_map(|file| Held::of(file, &self.history.limits)).collect();
        let is_other = |before: &&Held| held.iter().all(|held| held.neighbour != before.neighbour);
        let before: Vec<Held> = self.known.siblings.held.iter().filter(is_other).copied().collect();
        self.out.held = held.into_iter().chain(before).take(NEIGHBOURS).collect();
        self.out.held.sort_unstable();
        let is_recorded = self.known.siblings.neighbours.is_some() || !unlisted;
        self.out.neighbours = is_recorded.then(|| all.into_iter().take(NEIGHBOURS).collect());
    }

    /// Whether rotation gives the newest file the smallest index, as far as the names of known
    /// contents and of unseen ones, which are newer, tell.
    fn newest_first(&self, unseen: &[&Sighting]) -> Option<bool> {
        // Any content may begin with a header.
        let is_certain = |file: &Sighting, content: &Content, role: Role| {
            role >= Role::Edited && (content.end() >= self.history.limits.distinct || self.is_file_of(file, content))
        };
        let known = self.files.iter().zip(&self.roles).filter_map(|(file, role)| {
            role.filter(|(of, role)| is_certain(file, of, *role)).map(|(of, _)| (of.file_id, file))
        });
        let unseen = unseen.iter().map(|file| (u64::MAX, *file));
        let mut known: Vec<(u64, u32)> =
            known.chain(unseen).filter_map(|(age, file)| Some((age, index_of(file)?))).collect();
        known.sort_unstable();
        let pairs = known.iter().zip(known.iter().skip(1)).filter(|(older, newer)| older.0 < newer.0);
        let (falling, rising): (Vec<_>, Vec<_>) = pairs.partition(|(older, newer)| older.1 > newer.1);
        (falling.len() != rising.len()).then_some(falling.len() > rising.len())
    }

    /// Whether a file without a known content may have been the input between two scans: by its
    /// name, because it was the input and was renamed, or because it is open and has no name.
    fn is_candidate(&self, file: &Sighting) -> bool {
        let was_new = |(before, content): (Neighbour, Option<u64>)| content.is_none() && before.is(file);
        let was_seen = || self.history.pending(file).is_some() || self.history.input.is_some_and(was_new);
        match file.name_kind {
            NameKind::Input => false,
            NameKind::Rotated(_) | NameKind::Compressed(_) => true,
            NameKind::Backup => self.was_input(file),
            NameKind::Unlinked | NameKind::Other => self.was_input(file) || was_seen(),
        }
    }

    /// Whether a file was at the input's path, whether a scan saw it there or not: it was opened
    /// there, or found there before the source began.
    fn was_input(&self, file: &Sighting) -> bool {
        file.was_input || self.known.unknown.iter().any(|open| open.is(file))
    }

    /// Whether a candidate is not a neighbour. Neighbours are recorded, or appear while the input
    /// stays in place.
    fn may_be_ours(&self, file: &Sighting, moved: bool) -> bool {
        // It was the input: a link led to it, or it was renamed in an unusual way.
        if self.was_input(file) || matches!(file.name_kind, NameKind::Unlinked | NameKind::Other) {
            return true;
        }
        !self.is_neighbour(file)
            && (moved
                || self.history.pending(file).is_some()
                || self.was_missed(file)
                || self.is_unsent(file)
                || self.may_be_compressed(file)
                || self.known.contents.last().is_some_and(|live| begins_like(file, live)))
    }

    /// Whether a candidate is a copy of an input that was seen before the source begins, and was
    /// truncated since.
    fn is_unsent(&self, file: &Sighting) -> bool {
        let Prefix::Whole(prints) = &file.prints else { return false };
        let mut agreements = self.history.unsent.iter().map(|unsent| unsent.agreement(prints));
        self.known.contents.is_empty()
            && agreements.any(|agreement| agreement.differs.is_none() && agreement.common > 0)
    }

    /// Whether a candidate may be the compressed copy of a file that waits to be sent.
    fn may_be_compressed(&self, file: &Sighting) -> bool {
        matches!(file.name_kind, NameKind::Compressed(_)) && !self.history.pending.is_empty()
    }

    /// Whether a candidate may be older than the live content: its folder could not be listed then,
    /// or nothing was recorded and the ages decide.
    fn was_missed(&self, file: &Sighting) -> bool {
        let is_older = |live: &Content| live.created.zip(file.created).is_some_and(|(live, other)| other < live);
        let Siblings { neighbours, missed, .. } = &self.known.siblings;
        *missed || neighbours.is_none() && self.known.contents.last().is_some_and(is_older)
    }

    /// The time of the latest change of an unknown file, if it is recent. A former input does not
    /// count: it changed while it was the input. A copy is complete once its original was
    /// truncated, and a compressed file once it can be read to its end.
    fn last_written(&self, file: &Sighting) -> Option<Duration> {
        let was_ours = self.known.contents.iter().any(|content| was_in(content, file));
        let last = match self.history.pending(file) {
            Some(Pending::Copy) => None,
            _ if was_ours => None,
            _ if matches!((&file.name_kind, &file.prints), (NameKind::Compressed(_), Prefix::Whole(_))) => None,
            _ if file.changing => Some(self.history.now),
            Some(Pending::Written(last)) => Some(last),
            _ => None,
        };
        last.filter(|last| self.history.now.saturating_sub(*last) < self.history.limits.quiet)
    }

    /// Whether a file without a known content is a prefix of the input or of another such file: a
    /// copy of it, perhaps unfinished.
    fn is_copied(&self, file: &Sighting, current: Option<&Sighting>, others: &[&Sighting]) -> bool {
        let Prefix::Whole(prints) = &file.prints else { return false };
        let is_copy_of = |other: &Sighting| {
            let Prefix::Whole(of) = &other.prints else { return false };
            // A file with only a header was rotated before the file that begins with this header.
            let is_younger = file.created.zip(other.created).is_some_and(|(copy, original)| copy > original);
            // A former input that is still open is an original, too.
            let kinds = [NameKind::Unlinked, NameKind::Input];
            let rank = |file: &Sighting| (file.len, kinds.iter().position(|kind| *kind == file.name_kind), file.key);
            rank(other) > rank(file)
                && (file.len >= self.history.limits.distinct || is_younger)
                && prints.agreement(of).differs.is_none()
        };
        others.iter().copied().chain(current).any(is_copy_of)
    }

    /// Whether a sibling without a known content does not belong to a source that has begun.
    fn is_neighbour(&self, file: &Sighting) -> bool {
        if self.was_neighbour(file) {
            return true;
        }
        match &self.known.siblings.neighbours {
            Some(known) if known.iter().any(|neighbour| neighbour.is(file)) => return true,
            Some(known) if known.len() < NEIGHBOURS => return false,
            _ => {}
        }
        // Not all were recorded. A file that is older than the source, or than its first content,
        // does not belong to it.
        let born = file.created.unwrap_or(file.modified).min(file.modified);
        let first = self.known.contents.first().and_then(|content| content.created);
        self.known.began.is_some_and(|began| born < began)
            || first.zip(file.created).is_some_and(|(first, created)| created <= first)
    }

    /// Whether a file is the compressed copy of a neighbour: log rotation compresses it late, while
    /// it rotates the input.
    fn was_neighbour(&self, file: &Sighting) -> bool {
        let held = Held::of(file, &self.history.limits).filter(|_| matches!(file.name_kind, NameKind::Compressed(_)));
        held.is_some_and(|held| self.known.siblings.held.iter().any(|of| (of.len, of.hash) == (held.len, held.hash)))
    }

    /// Requests fingerprints of compressed files, if a content is missing and one of them may be
    /// its copy.
    fn unpack(&mut self, moved: bool) {
        let is_missing = |content: &&Content| {
            let mut holders = self.out.holders.get(&content.file_id).into_iter().flatten();
            content.has_more() && holders.all(|found| matches!(found.relation, Relation::Shorter(_)))
        };
        let missing: Vec<&Content> = self.known.contents.iter().filter(is_missing).collect();
        for file in self.files {
            let Prefix::Partial(prints) = &file.prints else { continue };
            let may_be = |content: &&Content| content.compare(file) == Bytes::Unknown;
            if missing.iter().any(may_be) || self.may_be_ours(file, moved) {
                let up_to = if prints.covered() == 0 { self.history.limits.first_scan } else { u64::MAX };
                self.out.questions.push(Question::Unpack { key: file.key, up_to });
            }
        }
    }
}

/// Whether a content was once in this file, regardless of its present contents.
fn was_in(content: &Content, file: &Sighting) -> bool {
    let begun = content.inode.map(|Inode { dev, ino }| Neighbour { dev, ino, created: content.created });
    begun.iter().chain(&content.open).any(|known| known.is(file))
}

/// Whether a file begins with the first bytes of a content. If a file beside the live content does
/// so and is not a copy of it, it is a copy of a content that was truncated since: both have the
/// same header, and only the header was sent.
fn begins_like(file: &Sighting, content: &Content) -> bool {
    matches!(content.compare(file), Bytes::Whole | Bytes::Apart { common: 1.., .. })
}

/// The offset up to which a file has the bytes of the content that it was compared with, if other
/// bytes follow.
fn parted(file: &Sighting, content: &Content) -> Option<u64> {
    file.compared.get(&content.file_id)?.same_until.filter(|&same| same < file.len)
}

/// Whether a file that differs from a content is an edited version of it: it ends with the last
/// bytes that were sent.
fn made_of(file: &Sighting, content: &Content) -> bool {
    let tail_at = file.compared.get(&content.file_id).and_then(|compared| compared.tail_at);
    tail_at.is_some_and(|at| at >= content.end() / 2 && at == file.len)
}

fn order_of(file: &Sighting) -> Option<&RotationOrder> {
    match &file.name_kind {
        NameKind::Rotated(order) | NameKind::Compressed(Some(order)) => Some(order),
        _ => None,
    }
}

fn index_of(file: &Sighting) -> Option<u32> {
    if let Some(RotationOrder::Index(index)) = order_of(file) { Some(*index) } else { None }
}

/// Sorts rotated files, oldest first. Some programs give the newest file the smallest index, some
/// the largest (`newest_first`, if known). If unknown, the files are sorted by the time of their
/// last write, provided that it agrees with the order of their names. If it does not, a clock was
/// changed, and the largest index counts as the oldest, as with logrotate.
fn sort(files: &mut [&Sighting], newest_first: Option<bool>) {
    files.sort_by_key(|file| file.modified);
    let date =
        |file: &Sighting| if let Some(RotationOrder::Date(date)) = order_of(file) { Some(date.clone()) } else { None };
    let indices: Vec<_> = files.iter().filter_map(|file| index_of(file)).collect();
    if indices.len() == files.len() {
        let agrees = indices.is_sorted() || indices.iter().rev().is_sorted();
        let by_time = agrees && files.is_sorted_by(|one, next| one.modified < next.modified);
        match newest_first {
            None if by_time => {}
            Some(false) => files.sort_by_key(|file| index_of(file)),
            None | Some(true) => files.sort_by_key(|file| std::cmp::Reverse(index_of(file))),
        }
    } else if files.iter().all(|file| date(file).is_some()) {
        files.sort_by_key(|file| date(file));
    }
}
