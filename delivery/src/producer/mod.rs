//! The producer of one partition of a source: decides what the reader sends next.
//!
//! [`Producer`] is a state machine. Its driver asks it for the next [`Step`], performs it, and
//! reports the result by the method that the step names. It reads files through the [`Directory`]
//! that the driver provides; Redis, the clock and waiting are steps. So the reader and the
//! simulation run the same decisions.
//!
//! ```text
//! Observing ─► Restoring ─► Locating ─► Beginning ─► Streaming
//!     ▲                        ▲ └──────────────────────┘ │
//!     └── connection lost ──┐  └──── next content ────────┤
//!         Redis changed  ───┴─────────────────────────────┘
//! ```

mod batch;
mod locate;
mod notice;
pub mod resume;
mod stream;

pub use batch::{Batch, BatchSize, Changed, Entry, Expected, Outcome};
pub use notice::Notice;

use crate::files::{Identified, Inode, KnownContents, Pending, Siblings, UNNAMED};
use crate::fingerprint::{Fingerprint, TailChecksum};
use crate::line_reader::{LineReader, ReadOptions};
use crate::manifest::{Generation, Guard, HEAD_LEN, Manifest, Position, next_field};
use crate::partition::Partition;
use crate::ranges::RangeSet;
use crate::source_file::SourceFile;
use resp::StreamId;
use resume::{Observed, Resume, StreamState};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::time::Duration;

/// The input's folder and the state file, as far as the producer needs them.
pub trait Directory {
    /// An open file.
    type File: SourceFile;

    /// Determines which file holds which content. `open` lists open files by file ID; they may have
    /// been renamed or deleted. `now` is a time on a monotonic clock.
    fn scan(&mut self, known: &KnownContents, open: &[(u64, &Self::File)], now: Duration) -> Identified;

    /// Whether files may have been created, renamed or deleted in the folders since the latest
    /// scan.
    fn has_changed(&self) -> bool;

    /// Opens a file of the latest scan.
    ///
    /// # Errors
    /// The error of the file system.
    fn open(&mut self, key: usize) -> io::Result<Self::File>;

    /// The fingerprint of a file of the latest scan.
    fn prints(&self, key: usize) -> Option<Fingerprint>;

    /// Which file the input's path leads to now; `None` when there is none.
    ///
    /// # Errors
    /// The error of the file system.
    fn input(&mut self) -> io::Result<Option<Inode>>;

    /// Reads the state file.
    ///
    /// # Errors
    /// The error of the file system.
    fn load(&mut self) -> io::Result<Stored>;

    /// Replaces the state file, durably.
    ///
    /// # Errors
    /// The error of the file system.
    fn store(&mut self, manifest: &Manifest) -> io::Result<()>;
}

/// The contents of the state file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stored {
    /// There is none.
    Missing,
    /// A manifest.
    Manifest(Box<Manifest>),
    /// Bytes that cannot be parsed, with the reason.
    Unreadable(String),
}

/// The settings of a producer.
#[derive(Debug, Clone)]
pub struct Options {
    /// The input's absolute path.
    pub input: String,
    /// The state file's path, for messages.
    pub state: String,
    /// The stream's key, for messages.
    pub stream: String,
    /// How files are cut into entries.
    pub read: ReadOptions,
    /// Whether a file that was never seen before starts at its end.
    pub from_end: bool,
    /// Whether the work ends once the bytes that the input had at startup are sent.
    pub once: bool,
    /// Entries in all streams above which the reader waits; 0: no bound.
    pub max_backlog: u64,
    /// Bounds, smaller in simulations.
    pub limits: Limits,
}

impl Options {
    /// No file is at the input's path. A former input that is still open is read to its end.
    fn missing(&self) -> String {
        format!("{} does not exist; waiting for it; create it, or correct --input", self.input)
    }
}

/// Bounds of a producer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The size of a batch.
    pub batch: BatchSize,
    /// How many generations are kept before the oldest are dropped.
    pub generations: usize,
    /// The maximum number of generations while none can be dropped; beyond it, the reader waits.
    pub most_generations: usize,
    /// How many files of earlier contents are kept open.
    pub open_files: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { batch: BatchSize::default(), generations: 64, most_generations: 1024, open_files: 8 }
    }
}

/// What the driver does next, and the method that takes the result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Read the state of Redis: [`Producer::observed`]. `below`: also the last entry up to this ID.
    Observe {
        /// Whether the entries up to this position are in doubt.
        below: Option<StreamId>,
    },
    /// Read which contents other partitions know: [`Producer::agreed`].
    Agree,
    /// Name a content for all partitions, if the last one that is known has this file ID:
    /// [`Producer::named`].
    Name {
        /// The content.
        named: Box<Generation>,
        /// The file ID of the last known content; 0 when there is none.
        after: u64,
    },
    /// Ask Redis for its time: [`Producer::clock`].
    Clock,
    /// Change the source record if it is as expected: [`Producer::recorded`].
    Record(Box<Change>),
    /// Put the next batch on the wire, all but its `EXEC`: [`Producer::fill`].
    Fill,
    /// Compare the state of Redis with what the batch on the wire requires:
    /// [`Producer::may_execute`]; then send its `EXEC`. Or let a script compare and execute in one
    /// step: [`Producer::executes_if_expected`].
    Execute,
    /// Receive the result of the batch that was executed: [`Producer::confirmed`].
    Confirm,
    /// Check that the state of Redis is as expected: [`Producer::checked`]. `stream`: check the
    /// stream as well.
    Check {
        /// Whether to ask for the stream's state.
        stream: bool,
    },
    /// Wait, and ask for the next step.
    Wait(Wait),
    /// All is sent that was to be sent.
    Done,
    /// Nothing is on the wire any more, as [`Producer::stop`] requested.
    Stopped,
}

/// The condition that a producer waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// The input appears, grows, or is replaced.
    Input,
    /// The stream has room.
    Room,
    /// Time passes.
    Pause(Duration),
}

/// A change of the source record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The generations that the record must have.
    pub before: Manifest,
    /// The bytes of its guard field.
    pub guard: Option<Vec<u8>>,
    /// The record after the change.
    pub after: Manifest,
}

/// Fields of the source record.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fields {
    /// The fields to delete.
    pub gone: Vec<String>,
    /// The fields to set, with their values.
    pub set: Vec<(String, Vec<u8>)>,
}

impl Change {
    /// The record's fields to delete and those to set.
    ///
    /// # Errors
    /// When a generation cannot be written as JSON, which does not happen.
    pub fn fields(&self) -> Result<Fields, serde_json::Error> {
        let before: BTreeMap<_, _> = self.before.links().collect();
        let after: BTreeMap<_, _> = self.after.links().collect();
        let mut gone: Vec<String> = before.keys().filter(|field| !after.contains_key(*field)).cloned().collect();
        gone.extend(
            self.before
                .prints
                .keys()
                .filter(|file_id| !self.after.prints.contains_key(file_id))
                .map(|file_id| crate::manifest::prints_field(*file_id)),
        );
        let changed = after.iter().filter(|(field, generation)| before.get(*field) != Some(generation));
        let mut set = Vec::new();
        for (field, generation) in changed {
            set.push((field.clone(), serde_json::to_vec(generation)?));
        }
        let prints =
            self.after.prints.iter().filter(|(file_id, prints)| self.before.prints.get(*file_id) != Some(*prints));
        for (file_id, prints) in prints {
            set.push((crate::manifest::prints_field(*file_id), serde_json::to_vec(prints)?));
        }
        Ok(Fields { gone, set })
    }
}

/// Observations of contents that the partitions of one process share, by file ID.
#[derive(Debug, Clone, Default)]
pub struct ObservedContents {
    /// The largest lengths.
    lengths: BTreeMap<u64, u64>,
    /// The longest fingerprints.
    prints: BTreeMap<u64, Fingerprint>,
    /// The tails with the highest ends.
    tails: BTreeMap<u64, TailChecksum>,
    /// The partitions that have not read the state of their streams yet.
    expected: BTreeSet<u32>,
}

impl ObservedContents {
    /// Adds the fingerprints and tails of a manifest.
    pub fn learn(&mut self, manifest: &Manifest) {
        keep_longer(&mut self.prints, by_file_id(&manifest.prints), Fingerprint::covered);
        keep_longer(&mut self.tails, manifest.tails(), tail_end);
    }

    /// This partition of the process will read the state of its stream.
    pub fn expect(&mut self, partition: Partition) {
        self.expected.insert(partition.index());
    }
}

fn keep_longer<'a, T: Clone + 'a>(
    kept: &mut BTreeMap<u64, T>,
    others: impl Iterator<Item = (u64, &'a T)>,
    end: impl Fn(&T) -> u64,
) {
    for (file_id, other) in others {
        if kept.get(&file_id).is_none_or(|known| end(known) < end(other)) {
            kept.insert(file_id, other.clone());
        }
    }
}

fn by_file_id<T>(map: &BTreeMap<u64, T>) -> impl Iterator<Item = (u64, &T)> {
    map.iter().map(|(file_id, value)| (*file_id, value))
}

const fn tail_end(tail: &TailChecksum) -> u64 {
    tail.end
}

/// Why there is no next step.
#[derive(Debug)]
pub enum StepError {
    /// A file cannot be used. Trying again may help.
    File {
        /// The operation: a verb.
        doing: &'static str,
        /// With which file.
        path: String,
        /// The error of the file system.
        error: io::Error,
    },
    /// The state of Redis is not as expected. Restart at once.
    Changed(Changed),
    /// The user must act first. Trying again later may help.
    Blocked(String),
    /// The configuration is wrong; trying again cannot help.
    Refused(String),
}

impl From<Changed> for StepError {
    fn from(changed: Changed) -> Self {
        Self::Changed(changed)
    }
}

/// How often an idle producer checks the state of Redis.
const CHECK: Duration = Duration::from_secs(2);
/// How long the last known length of the stream counts as current.
const LEN_KNOWN: Duration = Duration::from_millis(100);
/// How long a file must be unchanged after another one took its name. Its program may still write
/// to it.
const GRACE: Duration = Duration::from_secs(1);
/// The maximum time for which such a file delays the next one.
const LEAVE: Duration = Duration::from_secs(3);
/// The minimum time between two checks for changes of the folder.
const FOLDER: Duration = Duration::from_millis(50);
/// The minimum time between two searches for new siblings.
const SIBLINGS: Duration = Duration::from_secs(1);
/// The pause between two checks of earlier files for late lines. It doubles after each check that
/// finds some.
const LATE: Duration = Duration::from_secs(2);
/// The longest such pause.
const LATEST: Duration = Duration::from_secs(60);
/// How long an earlier file is kept open after its last write.
const KEEP_OPEN: Duration = Duration::from_secs(60);
/// The maximum number of inputs that are kept open while Redis is unreachable. Later ones are found
/// while they have a name.
const HELD: usize = 8;
/// How long a partition waits for the others of its process to read the state of their streams. The
/// node of one may be unreachable.
const HEAR_ALL: Duration = Duration::from_secs(1);
/// How often it checks whether they have.
const HEAR: Duration = Duration::from_millis(5);

/// The state machine of one partition.
#[derive(Debug)]
pub struct Producer<D: Directory> {
    options: Options,
    directory: D,
    /// The manifest: the source record, extended by the state file.
    manifest: Manifest,
    /// Contents that other partitions know.
    others: Manifest,
    /// The fingerprints that other partitions of this process have computed.
    others_prints: BTreeMap<u64, Fingerprint>,
    /// The tail checksums of the contents that they have sent.
    others_tails: BTreeMap<u64, TailChecksum>,
    /// Whether some of them have not read the state of their streams yet.
    is_early: bool,
    /// Whether this one has.
    has_observed: bool,
    /// Whether Redis was asked for them.
    has_agreed: bool,
    /// The contents that some file held at the latest scan, with the length there. Unreadable ones
    /// count as complete.
    found: BTreeMap<u64, u64>,
    /// Whether some folder could not be listed then.
    unlisted: bool,
    /// Whether that scan found contents that came and went since the scan before.
    has_unseen: bool,
    /// Files beside the input that wait to be sent.
    pending: Vec<Pending>,
    /// Contents that were left before all known bytes were sent, with the sent length.
    owed: BTreeMap<u64, Position>,
    /// The state of Redis that the next batch requires.
    expected: Expected,
    stream: StreamState,
    /// Entries that were added since the stream's state was asked for.
    added_since: u64,
    /// The time at which Redis last reported the stream's length.
    len_known_at: Option<Duration>,
    /// The entries of all partitions together.
    total_len: u64,
    /// Whether the last batch was refused because a foreign entry had taken an ID.
    refused: bool,
    /// The position up to which the stream was complete when entries after it were lost.
    in_doubt: Option<Position>,
    /// The position at which the stream was last found complete.
    whole_at: Option<Position>,
    /// The generation that the record was last asked for beside the work.
    checked_generation: u64,
    phase: Phase<D::File>,
    /// Files that are kept open, by file ID: of earlier contents, or of the present one after a
    /// lost connection. A content without a name has the file ID [`UNNAMED`].
    open: Vec<Open<D::File>>,
    /// The largest length that any scan saw, by file ID.
    seen: BTreeMap<u64, u64>,
    /// The contents of which this partition has had a generation since the start, by file ID.
    begun: BTreeSet<u64>,
    /// Notices that are reported once Redis has shown that no other reader sent the bytes.
    unconfirmed: Vec<Notice>,
    /// The bytes that were reported as unreadable, by file ID.
    unreadable: BTreeMap<u64, RangeSet>,
    /// The lengths up to which files of earlier contents were checked and had nothing to send.
    nothing_up_to: BTreeMap<u64, u64>,
    /// The content whose file was seen truncated.
    truncated: Option<u64>,
    /// `--once`: the file at the start, and how much of it there was.
    aim: Option<(Inode, u64)>,
    /// Whether there was no input when the source had not begun.
    missed: bool,
    /// The ID of the last entry that this process had confirmed.
    last_sent: Option<StreamId>,
    /// The position of the latest observation, and the record's guard at that time.
    delivered_to: Option<(Position, Option<Vec<u8>>)>,
    /// `--from end`: the file that was there at the start, and where its last line ended.
    from: Option<(Inode, u64)>,
    /// Whether the folder need not be scanned before Redis has answered.
    has_looked: bool,
    /// The siblings that were there when the input was first seen, if Redis had not answered yet.
    first_siblings: Option<Siblings>,
    /// The content, and how much of it the state file's fingerprint covers.
    stored: Option<(u64, u64)>,
    /// The siblings that the state file lists.
    stored_siblings: Siblings,
    stopping: bool,
    input_state: Result<(), String>,
    notices: Vec<Notice>,
    reported: BTreeSet<Notice>,
    now: Duration,
    next_check: Duration,
    next_late: Duration,
    /// When new siblings are looked for again, at the earliest.
    next_siblings: Duration,
    late_pause: Duration,
}

/// A file that is kept open.
#[derive(Debug)]
struct Open<F> {
    file_id: u64,
    file: F,
    len: u64,
    /// The fingerprint of its first bytes at that length.
    prints: Fingerprint,
    /// Since when it has had that length.
    since: Duration,
    /// Whether no other content was seen in it.
    is_content: bool,
}

impl<F: SourceFile> Open<F> {
    fn new(file_id: u64, file: F, is_content: bool) -> Self {
        let len = file.len().unwrap_or(0);
        let prints = first_prints(&file, len);
        Self { file_id, file, len, prints, since: Duration::ZERO, is_content }
    }

    /// Whether a generation was begun in this file with the content that it had when it was kept.
    /// It may have held another content before or since.
    fn is_of(&self, generation: &Generation, known: Option<&Fingerprint>) -> bool {
        let Inode { dev, ino } = self.file.inode();
        (generation.dev, generation.ino) == (dev, ino)
            && generation.created.map(i128::from) == self.file.created()
            && known.is_none_or(|known| known.agreement(&self.prints).differs.is_none())
    }

    /// Reads the file's length. Returns `false` if it was truncated and may hold another content.
    fn look(&mut self, now: Duration) -> bool {
        let len = self.file.len().unwrap_or(self.len);
        if len == self.len && self.since != Duration::ZERO {
            return self.is_content;
        }
        let prints = first_prints(&self.file, len);
        self.is_content &= len >= self.len && prints.agreement(&self.prints).differs.is_none();
        (self.len, self.since, self.prints) = (len, now, prints);
        self.is_content
    }
}

/// The fingerprint of the first bytes of a file.
fn first_prints(file: &impl SourceFile, len: u64) -> Fingerprint {
    let mut prints = Fingerprint::default();
    // A file that cannot be read has none.
    let _ = stream::extend(&mut prints, file, len.min(HEAD_LEN as u64));
    prints
}

#[derive(Debug)]
enum Phase<F> {
    /// The state of Redis is to be read.
    Observing,
    /// Redis lost generations, which must be written again first.
    Restoring(Box<Change>, Resume),
    /// The next file must be found.
    Locating(Resume),
    /// A file was found whose content, or whose rest, has no generation yet.
    Beginning(Box<Begin<F>>),
    /// Entries are added.
    Streaming(Box<stream::Streaming<F>>),
    /// All is sent.
    Done,
}

/// A generation that is to be begun.
#[derive(Debug)]
struct Begin<F> {
    reader: LineReader<F>,
    /// The content's file ID, if it has one.
    file_id: Option<u64>,
    /// Up to where the source is delivered; `None`: nothing of it was ever sent.
    after: Option<Position>,
    /// The last checked bytes of the previous content.
    guard: Option<Guard>,
    /// It ends here: late lines of an earlier content.
    until: Option<u64>,
    /// Length and hash of its first bytes when it was found.
    head: (u64, u64),
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// There is nothing to send yet. `was_empty`: nor was there anything that tells which content
    /// it is.
    NoBytes { was_empty: bool },
    /// Other partitions may have named it.
    Agreeing,
    /// It is to be named for all partitions, like this once there is a number.
    Naming(Option<Box<Generation>>),
    /// It needs a number. A pause comes before the next try.
    Numbering { tries: u32, pause: Option<Duration> },
    /// It is to be written to the source record, with the fingerprint of its content.
    Recording(Box<Generation>, Fingerprint),
}

impl Stage {
    const NUMBERING: Self = Self::Numbering { tries: 0, pause: None };
}

impl<D: Directory> Producer<D> {
    /// A producer that has not observed anything yet.
    pub fn new(options: Options, directory: D) -> Self {
        Self {
            options,
            directory,
            manifest: Manifest::default(),
            others: Manifest::default(),
            others_prints: BTreeMap::new(),
            others_tails: BTreeMap::new(),
            is_early: false,
            has_observed: false,
            has_agreed: false,
            found: BTreeMap::new(),
            unlisted: false,
            has_unseen: false,
            pending: Vec::new(),
            owed: BTreeMap::new(),
            expected: Expected::default(),
            stream: StreamState::default(),
            added_since: 0,
            len_known_at: None,
            total_len: 0,
            refused: false,
            in_doubt: None,
            whole_at: None,
            checked_generation: 0,
            phase: Phase::Observing,
            open: Vec::new(),
            seen: BTreeMap::new(),
            begun: BTreeSet::new(),
            unconfirmed: Vec::new(),
            unreadable: BTreeMap::new(),
            nothing_up_to: BTreeMap::new(),
            truncated: None,
            aim: None,
            missed: false,
            last_sent: None,
            delivered_to: None,
            from: None,
            has_looked: false,
            first_siblings: None,
            stored: None,
            stored_siblings: Siblings::default(),
            stopping: false,
            input_state: Ok(()),
            notices: Vec::new(),
            reported: BTreeSet::new(),
            now: Duration::ZERO,
            next_check: Duration::ZERO,
            next_late: Duration::ZERO,
            next_siblings: Duration::ZERO,
            late_pause: LATE,
        }
    }

    /// The folder and the state file.
    pub const fn directory(&mut self) -> &mut D {
        &mut self.directory
    }

    /// The manifest of the source.
    pub const fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The stream's state, as last reported.
    pub const fn stream(&self) -> &StreamState {
        &self.stream
    }

    /// The state of Redis that the next batch requires.
    #[must_use]
    pub fn next_expected(&self) -> Expected {
        match &self.phase {
            Phase::Streaming(streaming) => streaming.leaves().unwrap_or_else(|| self.expected.clone()),
            _ => self.expected.clone(),
        }
    }

    /// What Redis must hold when [`Step::Check`] asks: as [`next_expected`](Self::next_expected),
    /// but each time another generation. No batch would notice the loss of an earlier one, which
    /// writers may wait for.
    pub fn expected_at_check(&mut self) -> Expected {
        let expected = self.next_expected();
        let next = self.manifest.after(self.checked_generation).or_else(|| self.manifest.first());
        self.checked_generation = next.map_or(0, |next| next.generation);
        let before = self.manifest.before(self.checked_generation).map_or(0, |before| before.generation);
        Expected { link: expected.link.map(|_| next_field(before)), ..expected }
    }

    /// Whether the next batch must report the length of the stream. A small batch need not report
    /// it while the stream has room for many more entries, even if nobody trims it.
    #[must_use]
    pub fn must_ask_len(&self) -> bool {
        let is_old = self.len_known_at.is_none_or(|at| self.now.saturating_sub(at) >= LEN_KNOWN);
        is_old || self.room() <= self.stream.len
    }

    /// How many entries the batch has whose confirmation is awaited.
    #[must_use]
    pub fn executing(&self) -> u64 {
        if let Phase::Streaming(streaming) = &self.phase { streaming.executing_entries() } else { 0 }
    }

    /// Everything of this partition that begins before this offset of the present content is
    /// confirmed.
    #[must_use]
    pub fn position(&self) -> Option<(u64, u64)> {
        if let Phase::Streaming(streaming) = &self.phase { Some(streaming.progress()) } else { None }
    }

    /// The present length of the content that is being sent, which grows while the producer waits.
    pub fn present_len(&self) -> Option<u64> {
        if let Phase::Streaming(streaming) = &self.phase { streaming.present_len() } else { None }
    }

    /// Whether the input can be read; else why not.
    pub const fn input_state(&self) -> &Result<(), String> {
        &self.input_state
    }

    /// The notices since the last call.
    pub fn take_notices(&mut self) -> Vec<Notice> {
        std::mem::take(&mut self.notices)
    }

    /// How many entries the streams of all partitions hold together.
    pub const fn set_total_len(&mut self, entries: u64) {
        self.total_len = entries;
    }

    /// Exchanges with the other partitions of this process what was seen of the contents: a byte
    /// that one of them has seen and another one cannot read any more is reported, and a file is
    /// recognised by the bytes that any of them has read.
    pub fn exchange(&mut self, all: &mut ObservedContents) {
        for (&file_id, &len) in &self.seen {
            let known = all.lengths.entry(file_id).or_insert(0);
            *known = len.max(*known);
        }
        all.lengths.iter().for_each(|(&file_id, &len)| self.saw(file_id, len));
        all.learn(&self.manifest);
        keep_longer(&mut self.others_prints, by_file_id(&all.prints), Fingerprint::covered);
        keep_longer(&mut self.others_tails, by_file_id(&all.tails), tail_end);
        if self.has_observed {
            all.expected.remove(&self.options.read.partition.index());
        }
        self.is_early = !all.expected.is_empty();
    }

    /// How many entries the stream holds, as asked for beside the steps.
    pub const fn set_len(&mut self, entries: u64) {
        self.stream.len = entries;
    }

    /// Finishes what is on the wire, and sends nothing more.
    pub const fn stop(&mut self) {
        self.stopping = true;
    }

    /// Revokes [`stop`](Self::stop).
    pub const fn go_on(&mut self) {
        self.stopping = false;
    }

    /// Whether only a change of the input or of its folder can add work, so that this producer can
    /// be replaced by a new one. `with_open`: even if it has files open that have lost their names.
    #[must_use]
    pub fn is_settled(&self, with_open: bool) -> bool {
        let is_waiting = match &self.phase {
            Phase::Streaming(streaming) => streaming.is_settled(),
            Phase::Locating(_) | Phase::Beginning(_) | Phase::Done => true,
            Phase::Observing | Phase::Restoring(..) => false,
        };
        let present = if let Phase::Streaming(streaming) = &self.phase { Some(streaming.inode()) } else { None };
        is_waiting
            && (with_open || !self.waits_for_quiet() && self.open.iter().all(|open| Some(open.file.inode()) == present))
    }

    /// Whether a file beside the input will be sent once it is unchanged for a while. No event
    /// announces that moment.
    #[must_use]
    pub fn waits_for_quiet(&self) -> bool {
        self.pending.iter().any(|state| matches!(state, Pending::Written(_)))
    }

    /// Whether only a change of the input file can add work, so that this producer can be dropped
    /// and created again later. `with_open`: even if it has files open that have lost their names
    /// and were not written to for some time.
    #[must_use]
    pub fn may_rest(&self, with_open: bool) -> bool {
        let has_left = self.input_state.is_err() && self.position().is_some();
        self.is_settled(with_open) && (with_open || !has_left)
    }

    /// Whether a batch is on the wire.
    #[must_use]
    pub fn is_on_wire(&self) -> bool {
        if let Phase::Streaming(streaming) = &self.phase { streaming.is_on_wire() } else { false }
    }

    /// Keeps a file open that may lose its name before Redis answers.
    pub fn hold(&mut self, file: D::File) {
        self.open.push(Open::new(UNNAMED, file, true));
    }

    /// Scans the folder while Redis is unreachable. Call it regularly, because the input may be
    /// rotated meanwhile. If the source has not begun, the input is kept open, and the files
    /// beside it at the first scan are older than the source.
    pub fn look(&mut self, now: Duration) {
        if self.has_looked || self.options.from_end {
            return;
        }
        self.now = now;
        self.has_looked = !matches!(self.directory.load(), Ok(Stored::Missing)) || !self.manifest.is_empty();
        if self.has_looked {
            return;
        }
        if let Some(first) = self.first_siblings.take() {
            self.manifest.siblings = first;
        }
        // If Redis knows the source, these files are not neighbours, and there is nothing to
        // report.
        let (told, reported) = (self.notices.len(), self.reported.clone());
        let identified = self.scan(&Manifest::default(), None, None);
        self.notices.truncate(told);
        self.reported = reported;
        self.first_siblings = Some(std::mem::take(&mut self.manifest.siblings));
        if let Some(found) = identified.current.found()
            && self.open.len() < HELD
            && let Ok(file) = self.directory.open(found.key)
            && self.open.iter().all(|open| open.file.inode() != file.inode())
        {
            self.hold(file);
        }
    }

    /// `--once`: sets the present contents of the input as the work to do.
    pub fn aim(&mut self, inode: Inode, len: u64) {
        self.aim.get_or_insert((inode, len));
    }

    /// Starts again by reading the state of Redis, after a lost connection and after every
    /// [`StepError`]. Files stay open.
    pub fn restart(&mut self) {
        match std::mem::replace(&mut self.phase, Phase::Observing) {
            Phase::Streaming(streaming) => {
                let stream::Streaming { reader, file_id, len, .. } = *streaming;
                self.saw(file_id, len);
                self.keep_open(file_id, reader);
            }
            Phase::Beginning(begin) => self.keep_open(begin.file_id.unwrap_or(UNNAMED), begin.reader),
            _ => {}
        }
    }

    /// The next step. `now` is a time on a monotonic clock.
    ///
    /// # Errors
    /// Why there is nothing to do now; [`restart`](Self::restart) follows.
    pub fn step(&mut self, now: Duration) -> Result<Step, StepError> {
        self.now = now;
        match &mut self.phase {
            Phase::Observing => Ok(Step::Observe { below: self.in_doubt.map(Position::id) }),
            Phase::Restoring(change, _) => Ok(Step::Record(change.clone())),
            // Whether a file was made from a known content depends on the bytes that all partitions
            // have sent.
            Phase::Locating(_) if self.is_early && now < HEAR_ALL => Ok(Step::Wait(Wait::Pause(HEAR))),
            Phase::Locating(resume) => {
                let resume = *resume;
                self.locate(resume, now)
            }
            Phase::Beginning(_) => self.begin(now),
            Phase::Streaming(_) => self.stream_step(now),
            Phase::Done => Ok(Step::Done),
        }
    }

    /// Answers [`Step::Observe`].
    ///
    /// # Errors
    /// When the stream carries another file, or the state file cannot be used.
    pub fn observed(&mut self, mut observed: Observed, below: Option<StreamId>) -> Result<(), StepError> {
        if self.refused {
            observed.first_is_ours = Some(false);
        }
        let local = self.load(&observed.record)?;
        self.refuse_other_source(&observed.record, &local)?;
        if self.in_doubt.is_none()
            && let Some(whole) = observed.doubtful_from().or_else(|| self.doubtful_from(&observed))
        {
            self.in_doubt = Some(whole);
            return Err(Changed::EntriesLost.into());
        }
        let lost = resume::lost(&observed.record, &local);
        let mut manifest = observed.record.clone();
        lost.iter().for_each(|generation| manifest.insert(generation.clone()));
        for known in [&self.manifest, &local] {
            for (file_id, prints) in &known.prints {
                manifest.prints.entry(*file_id).or_insert_with(|| prints.clone());
            }
        }
        // A tail checksum describes a content, not Redis, so it remains valid if Redis lost it.
        let guards = [manifest.guard.take(), self.manifest.guard.take(), local.guard.clone()];
        let known = guards.into_iter().flatten().filter(|guard| manifest.get(guard.generation).is_some());
        manifest.guard = known.max_by_key(|guard| (guard.generation, guard.tail.end));
        manifest.began = local.began;
        let mut seen = std::mem::take(&mut self.manifest.siblings);
        (self.has_looked, self.has_observed) = (true, true);
        if let Some(first) = self.first_siblings.take().filter(|_| manifest.is_empty()) {
            seen = first;
        }
        manifest.siblings = if seen == Siblings::default() { local.siblings.clone() } else { seen };
        self.stored_siblings.clone_from(&local.siblings);
        let mut resume = observed.resume(&manifest);
        // The stream's last entry is the last one that this process had confirmed, even if the
        // record lost it.
        let confirmed = self.last_sent.filter(|id| observed.last_id() == *id && manifest.get(id.ms).is_some());
        resume = confirmed.map_or(resume, |id| Resume::At(Position::of(id)));
        if let Some(lower) = self.lower_position(&observed, &manifest, resume) {
            resume = Resume::Renumber(lower);
        }
        if let Some(doubtful) = self.in_doubt.take() {
            // An older stream was restored, with a gap after its last entry and newer entries above
            // the gap. If the entry before the gap is trimmed, the start of the gap is unknown; the
            // source is sent again, and the writer drops what it holds.
            let start = manifest.first().map_or(doubtful, Generation::begin);
            let known = below.filter(|id| manifest.get(id.ms).is_some());
            let from = known.map_or(start, |id| manifest.last_valid(Position::of(id)));
            resume = match resume {
                Resume::At(at) | Resume::Renumber(at) if at <= from => resume,
                Resume::Verify(_, at) => Resume::Renumber(at.min(from)),
                _ => Resume::Renumber(from),
            };
        }
        if let Resume::Verify(..) = resume {
            resume = self.verified(&observed, &manifest, resume);
        }
        if let Resume::At(position) | Resume::Renumber(position) = resume {
            self.delivered_to = Some((position, observed.guard_field.clone()));
        }
        if let Resume::Renumber(from) = resume {
            self.report(Notice::Foreign { last_id: observed.last_id(), offset: from.offset });
        }
        let link = manifest.last().map(|last| next_field(manifest.before(last.generation).map_or(0, |g| g.generation)));
        self.expected = Expected { guard: observed.guard_field.clone(), link, stream: observed.stream.is_some() };
        // Nothing was ever added to a stream that does not exist.
        self.stream = observed.stream.unwrap_or(StreamState { added: Some(0), ..StreamState::default() });
        self.added_since = 0;
        self.next_check = self.now.saturating_add(CHECK);
        self.nothing_up_to.clear();
        // Another reader may have sent the bytes that this one could not read.
        self.unconfirmed.clear();
        self.begun.extend(manifest.iter().map(|known| known.file_id));
        self.whole_at = if let Resume::At(position) = resume { Some(position) } else { None };
        self.notices.push(Notice::Resumed);
        if lost.is_empty() {
            let is_stored = manifest.same_generations(&local);
            self.manifest = manifest;
            if !is_stored && !self.manifest.is_empty() {
                self.store()?;
            }
            self.phase = Phase::Locating(resume);
        } else {
            if let Some(first) = lost.first() {
                self.notices.push(Notice::Restoring { generation: first.generation });
            }
            let (before, guard) = (observed.record, observed.guard_field);
            self.manifest = manifest.clone();
            self.phase = Phase::Restoring(Box::new(Change { before, guard, after: manifest }), resume);
        }
        Ok(())
    }

    /// As [`Observed::doubtful_from`], from the last entry that this process had confirmed: the
    /// record of an older stream may not show it.
    fn doubtful_from(&self, observed: &Observed) -> Option<Position> {
        let added = self.stream.added?.checked_add(self.added_since)?;
        let (sent, now, last_id) = (self.last_sent?, observed.stream?.added?, observed.last_id());
        self.whole_at.filter(|_| last_id == sent && now != added || last_id > sent && now < added)
    }

    /// The position of the previous observation, if `resume` is after it although no reader has
    /// added anything since. An older stream was restored before that observation, and a foreign
    /// entry hides what it lacks.
    fn lower_position(&self, observed: &Observed, manifest: &Manifest, resume: Resume) -> Option<Position> {
        let (Resume::At(now) | Resume::Renumber(now)) = resume else { return None };
        let (before, guard) = self.delivered_to.as_ref()?;
        let file_of = |position: Position| manifest.get(position.generation).map(|known| known.file_id);
        let is_same = now.offset == before.offset && file_of(now) == file_of(*before);
        let is_later = now > *before && !is_same;
        (is_later && *guard == observed.guard_field && file_of(*before).is_some()).then_some(*before)
    }

    /// Contents that other partitions know, as far as this process knows without asking Redis.
    pub fn learn(&mut self, others: &Manifest) {
        others.iter().for_each(|content| self.others.insert(content.clone()));
    }

    /// Answers [`Step::Agree`]: the contents that other partitions know.
    pub fn agreed(&mut self, others: Manifest) {
        let is_news = |known: &Generation| self.others.get(known.generation).is_none();
        let has_news = others.iter().any(|known| is_news(known) && !self.begun.contains(&known.file_id));
        self.others = others;
        self.has_agreed = true;
        match std::mem::replace(&mut self.phase, Phase::Observing) {
            // These contents were unknown when the file was classified as new.
            Phase::Beginning(begin) if has_news && matches!(begin.stage, Stage::Agreeing) => {
                let after = begin.after;
                self.keep_open(UNNAMED, begin.reader);
                self.phase = Phase::Locating(after.map_or(Resume::Fresh, Resume::At));
            }
            Phase::Beginning(mut begin) if matches!(begin.stage, Stage::Agreeing) => {
                begin.stage = Stage::Naming(None);
                self.phase = Phase::Beginning(begin);
            }
            phase => self.phase = phase,
        }
    }

    /// Answers [`Step::Name`]: whether the content got this name. Otherwise another partition named
    /// one.
    pub fn named(&mut self, done: bool) {
        let Phase::Beginning(begin) = &mut self.phase else { return };
        let Stage::Naming(Some(named)) = &begin.stage else { return };
        if done {
            self.others.insert((**named).clone());
            begin.file_id = Some(named.file_id);
            begin.stage = Stage::NUMBERING;
        } else {
            begin.stage = Stage::Agreeing;
        }
    }

    /// Answers [`Step::Record`]: whether the record was what was expected, and is changed.
    ///
    /// # Errors
    /// When it was not.
    pub fn recorded(&mut self, change: Change, done: bool) -> Result<(), StepError> {
        if !done {
            return Err(Changed::OtherReader.into());
        }
        match std::mem::replace(&mut self.phase, Phase::Observing) {
            Phase::Restoring(_, resume) => {
                self.store()?;
                self.phase = Phase::Locating(resume);
                Ok(())
            }
            Phase::Beginning(begin) => self.begun(*begin, change.after),
            other => {
                self.phase = other;
                Ok(())
            }
        }
    }

    pub(super) fn load(&mut self, record: &Manifest) -> Result<Manifest, StepError> {
        let path = self.options.state.clone();
        let stored = self.directory.load().map_err(|error| StepError::File { doing: "read", path, error })?;
        match stored {
            Stored::Missing => Ok(Manifest::default()),
            Stored::Manifest(manifest) => Ok(*manifest),
            Stored::Unreadable(why) if record.is_empty() => Err(StepError::Refused(format!(
                "cannot read the state file {}: {why}; Redis has no record of the source either, so everything would be sent \
                 again as new; restore the file, or remove it to begin a new source",
                self.options.state
            ))),
            Stored::Unreadable(why) => {
                let notice = Notice::StateUnreadable { path: self.options.state.clone(), why };
                self.report(notice);
                Ok(Manifest::default())
            }
        }
    }

    fn store(&mut self) -> Result<(), StepError> {
        self.directory.store(&self.manifest).map_err(|error| StepError::File {
            doing: "write",
            path: self.options.state.clone(),
            error,
        })?;
        self.stored_siblings.clone_from(&self.manifest.siblings);
        Ok(())
    }

    /// Stores what is known of the siblings when it has changed.
    fn store_siblings(&mut self) -> Result<(), StepError> {
        if self.manifest.siblings == self.stored_siblings { Ok(()) } else { self.store() }
    }

    /// Reports something once.
    fn report(&mut self, notice: Notice) {
        if self.reported.len() < 1024 && self.reported.insert(notice.clone()) {
            self.notices.push(notice);
        }
    }

    /// Reports a notice once Redis has shown that no other reader was faster. A faster reader may
    /// have read the bytes before they were lost.
    fn report_when_confirmed(&mut self, notice: Notice) {
        if !self.unconfirmed.contains(&notice) {
            self.unconfirmed.push(notice);
        }
    }

    /// No other reader was faster.
    fn report_unconfirmed(&mut self) {
        for notice in std::mem::take(&mut self.unconfirmed) {
            if let Notice::Unreadable { file_id, start, end: Some(end), .. } = notice {
                self.unreadable.entry(file_id).or_default().insert(start..end);
            }
            self.report(notice);
        }
    }

    /// The stream carries one file. Another one at another path is refused, and nothing is written.
    fn refuse_other_source(&mut self, record: &Manifest, local: &Manifest) -> Result<(), StepError> {
        let Some(newest) = record.last() else { return Ok(()) };
        let is_ours = newest.path == self.options.input
            || local.get(newest.generation) == Some(newest)
            || self.manifest.get(newest.generation) == Some(newest);
        if is_ours || self.is_known_file(record) {
            return Ok(());
        }
        let Options { input, stream, .. } = &self.options;
        Err(StepError::Refused(format!(
            "--input {input}: stream {stream} already carries another file, {}; allowed: that file, or another --stream",
            newest.path
        )))
    }

    /// How many entries this stream may still take: its share of the bound, so that a stalled
    /// partition does not block the others, or its share of the total room that is left.
    fn room(&self) -> u64 {
        let count = u64::from(self.options.read.partition.count());
        match self.options.max_backlog {
            0 => u64::MAX,
            bound => {
                let own = (bound / count).max(1).saturating_sub(self.stream.len);
                own.max(bound.saturating_sub(self.total_len) / count)
            }
        }
    }

    /// The largest known length of a content.
    fn saw(&mut self, file_id: u64, len: u64) {
        let seen = self.seen.entry(file_id).or_insert(0);
        *seen = len.max(*seen);
    }

    fn keep_open(&mut self, file_id: u64, reader: LineReader<D::File>) {
        let is_unchanged = reader.unchanged().unwrap_or(false);
        let open = Open::new(file_id, reader.into_file(), is_unchanged);
        if is_unchanged {
            self.saw(file_id, open.len);
        }
        self.open.retain(|other| other.file_id != file_id || other.file.inode() != open.file.inode());
        open.file.free_memory();
        self.open.push(open);
        // Those of known contents and those of others do not displace each other.
        let mut alike =
            self.open.iter().enumerate().filter(|(_, open)| (open.file_id == UNNAMED) == (file_id == UNNAMED));
        if let Some((oldest, _)) = alike.next()
            && alike.count() >= self.options.limits.open_files
        {
            self.open.remove(oldest);
        }
    }

    /// Closes files that were left long ago.
    fn close_quiet_files(&mut self, now: Duration) {
        let Self { open, seen, .. } = self;
        open.retain_mut(|open| {
            if open.look(now) && open.file_id != UNNAMED {
                // The file can be truncated before it is read.
                let known = seen.entry(open.file_id).or_insert(0);
                *known = open.len.max(*known);
            }
            open.file_id == UNNAMED || now.saturating_sub(open.since) < KEEP_OPEN
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source_file::memory::MemoryFile;

    /// Marks a file as truncated: bytes that are written after copytruncate do not belong to its
    /// former content.
    #[test]
    fn an_open_file_that_was_truncated_does_not_lengthen_the_content_that_it_had() {
        let now = Duration::from_secs(1);
        let file = MemoryFile::new(b"first\n");
        let mut open = Open::new(1, file.clone(), true);
        file.set(b"first\nmore\n");
        assert!(open.look(now));
        file.set(b"");
        assert!(!open.look(now));
        file.set(b"second, which is longer\n");
        assert!(!open.look(now));
        // The file was truncated before the reader moved on.
        let mut open = Open::new(1, file.clone(), false);
        file.set(b"second, which is longer\nmore\n");
        assert!(!open.look(now));
    }
}
