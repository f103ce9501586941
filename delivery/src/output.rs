//! The output side: recovery at startup, and the state machine of commits. It does no I/O.
//!
//! [`startup`] decides whether a file is the writer's output, which ranges it contains, what to cut
//! off, and what to refuse. It queries a [`Folder`], and changes nothing. A [`Ledger`] then runs
//! the commits: its driver (the writer, or the simulation) performs one [`Effect`] after another,
//! and reports each result as an [`Answer`].
//!
//! A commit appends its records to the journal, then its bytes to the output, and syncs both at the
//! same time. Bytes after the last record are therefore never those of a killed writer. After a
//! power loss they can be, but only those of one commit of at most [`COMMIT_LIMIT`] bytes, because
//! a larger commit syncs its records first. If there are more bytes after the last record, the
//! journal is older than its output.

use crate::entry::Span;
use crate::hash;
use crate::journal::{
    self, Damage, Header, Identity, NotAJournal, Owner, Parsed, RECORD_LEN, Record, join, ranges, tail,
};
use crate::ranges::RangeSet;
use std::collections::BTreeMap;
use std::fmt;

/// A commit of more bytes than this syncs its records before it appends to the output: 4 MiB.
pub const COMMIT_LIMIT: u64 = 4 << 20;
/// Maximum number of bytes without proof of durability that are rewritten at startup: 256 MiB. Only
/// `--fsync never` leaves more.
const MOST_WRITTEN_AGAIN: u64 = 256 << 20;
/// A journal shorter than this is not compacted: 1 MiB, 16,384 commits.
const COMPACT_ABOVE: u64 = 1 << 20;
/// A journal is compacted when it has this many times more records than necessary.
const COMPACT_RATIO: u64 = 4;

/// The folder of the output, as [`startup`] reads it. Names are names of files in the folder.
pub trait Folder {
    /// An error of the file system.
    type Error;

    /// The names of the regular files in the folder.
    ///
    /// # Errors
    ///
    /// If the folder cannot be listed.
    fn names(&mut self) -> Result<Vec<Vec<u8>>, Self::Error>;

    /// The length of a file. `None` if the file does not exist.
    ///
    /// # Errors
    ///
    /// If the length cannot be determined.
    fn len(&mut self, name: &[u8]) -> Result<Option<u64>, Self::Error>;

    /// The first bytes of a file, at most `most`. `None` if the file does not exist, or if it is
    /// not one of the writer's files and cannot be read.
    ///
    /// # Errors
    ///
    /// If the file cannot be read.
    fn read(&mut self, name: &[u8], most: u64) -> Result<Option<Vec<u8>>, Self::Error>;

    /// The [`hash`] of a range of a file. Ranges may be large: read them in pieces, with a
    /// [`Hasher`](crate::Hasher). `None` if the file does not have the whole range, or if it is not
    /// one of the writer's files and cannot be read.
    ///
    /// # Errors
    ///
    /// If the file cannot be read.
    fn hash(&mut self, name: &[u8], span: Span) -> Result<Option<u64>, Self::Error>;

    /// Whether another process has locked the file.
    ///
    /// # Errors
    ///
    /// If that cannot be determined.
    fn is_locked(&mut self, name: &[u8]) -> Result<bool, Self::Error>;
}

/// The decision of [`startup`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Open the output. It belongs to this writer, or does not exist yet.
    Open(Box<Opening>),
    /// The output was renamed to this name while no writer ran. Open it there, with the journal
    /// still at its old path. The [`Job::Recover`] renames the journal too, and ends with
    /// [`Outcome::Rotated`]. Then call [`startup`] again.
    Adopt(Vec<u8>, Box<Opening>),
    /// Do not use the output, and change nothing.
    Refuse(Refusal),
}

/// The state of an output at startup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opening {
    /// The state of its journal.
    pub journal: JournalWas,
    /// The ranges in the output and in its rotated files, by content.
    pub held: BTreeMap<u64, RangeSet>,
    /// The ranges that were durable in the output and are missing now, by content.
    pub lost: BTreeMap<u64, RangeSet>,
    /// The bytes after the last commit, to be cut off.
    pub cut: Span,
    /// Whether these bytes may be more than an unfinished commit: then they are kept in a file
    /// beside the output before anything is changed.
    pub keep: bool,
    /// Journals of rotated files of this output that are damaged and cannot be used.
    pub unusable: Vec<Vec<u8>>,
    /// The ledger to continue with. Run its [`Job::Recover`] first.
    pub ledger: Ledger,
}

/// The state of a journal when it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JournalWas {
    /// Neither journal nor output has any bytes yet.
    New,
    /// The output has bytes, but its journal is missing or empty. The origin of the bytes is
    /// unknown: if the group has delivered entries to this consumer before, the bytes are probably
    /// those.
    Missing,
    /// The journal was read.
    Read {
        /// The number of damaged records and header copies that were restored.
        restored: u64,
    },
}

/// Why an output is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// The file at the journal's path is not a journal.
    NotAJournal,
    /// The journal belongs to an output of another source, group or partition set.
    Owner {
        /// The identity in the journal.
        found: Box<Identity>,
        /// The identity of this writer.
        ours: Box<Identity>,
    },
    /// Records in the middle of the journal are damaged and cannot be restored.
    Damaged(Damage),
    /// The output does not contain the bytes that the journal describes in this range.
    Differs(Span),
    /// The output is so much longer than the journal describes that the journal must be older.
    Longer {
        /// The end of the last record.
        recorded: u64,
        /// The output's length.
        len: u64,
    },
}

impl From<NotAJournal> for Refusal {
    fn from(_: NotAJournal) -> Self {
        Self::NotAJournal
    }
}

/// The reason and what to do, to be appended to the names of output and journal.
impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAJournal => write!(
                f,
                "{NotAJournal}; nothing was changed; move it away together with the output, or restore it from a backup"
            ),
            Self::Owner { found, ours } => write!(
                f,
                "it belongs to an output of {found}, not of {ours}; allowed: {found}, or an --output of its own"
            ),
            Self::Damaged(Damage { output, .. }) => write!(
                f,
                "damaged records, for bytes {}..{} of the output, cannot be restored; nothing was changed; restore both \
                 files from one backup, or move both away",
                output.start, output.end
            ),
            Self::Differs(span) => write!(
                f,
                "bytes {}..{} of the output are not those that were committed; nothing was changed; restore both files \
                 from one backup, or move both away",
                span.start, span.end
            ),
            Self::Longer { recorded, len } => write!(
                f,
                "it ends at byte {recorded} of an output of {len} bytes, so it is older than the output; nothing was \
                 changed; restore the journal that belongs to it, or move both away"
            ),
        }
    }
}

/// Decides what to do with the output of this name, and changes nothing. `fresh_id` is a random
/// number, used as the ID of a new output.
///
/// # Errors
/// Errors of the folder.
pub fn startup<F: Folder>(
    folder: &mut F,
    output: &[u8],
    identity: &Identity,
    fresh_id: u64,
) -> Result<Verdict, F::Error> {
    let len = folder.len(output)?;
    let parsed = match Parsed::read(&folder.read(&journal_of(output), u64::MAX)?.unwrap_or_default()) {
        Ok(parsed) => parsed,
        Err(error) => return Ok(Verdict::Refuse(error.into())),
    };
    let owner = match parsed.as_ref().and_then(|parsed| parsed.header.owner.clone()) {
        Some(owner) if !owner.identity.admits(identity) => {
            return Ok(Verdict::Refuse(Refusal::Owner {
                found: Box::new(owner.identity),
                ours: Box::new(identity.clone()),
            }));
        }
        owner => owner,
    };
    let rotated = Rotated::find(folder, output, identity, owner.as_ref())?;
    let owner_now = Owner {
        id: owner.as_ref().map(|owner| owner.id).or(rotated.id).unwrap_or(fresh_id),
        name: output.to_vec(),
        identity: identity.clone(),
    };
    let Some(parsed) = parsed else {
        let base = len.unwrap_or(0);
        let (held, unusable) = rotated.held(folder, &BTreeMap::new())?;
        return Ok(Verdict::Open(Box::new(Opening {
            journal: if base == 0 { JournalWas::New } else { JournalWas::Missing },
            held,
            lost: BTreeMap::new(),
            cut: base..base,
            keep: false,
            unusable,
            ledger: Ledger {
                is_left_alone: base > 0,
                ..Ledger::new(owner_now, base, &[], base..base, Trust::Journal { touched: false })
            },
        })));
    };
    if let Some(damage) = parsed.damage {
        return Ok(Verdict::Refuse(Refusal::Damaged(damage)));
    }
    let mut became = None;
    if !is_same_output(folder, output, len, &parsed)? {
        became = renamed(folder, output, &parsed)?;
        if let (None, Some((span, _))) = (&became, evidence(&parsed, len.unwrap_or(0).min(parsed.durable()))) {
            return Ok(Verdict::Refuse(Refusal::Differs(span)));
        }
    }
    let (name, len) = match &became {
        Some(name) => (name.as_slice(), folder.len(name)?),
        None => (output, len),
    };
    let recovered = match parsed.recover(len.unwrap_or(0), |span| folder.hash(name, span))? {
        Ok(recovered) => recovered,
        Err(refusal) => return Ok(Verdict::Refuse(refusal)),
    };
    let is_as_we_write_it = !recovered.changed && owner.as_ref() == Some(&owner_now);
    let (held, unusable) = rotated.held(folder, &ranges(&recovered.records))?;
    let mut ledger = Ledger::new(
        owner_now,
        recovered.base,
        &recovered.records,
        recovered.unproven.clone(),
        if is_as_we_write_it { Trust::Sound } else { Trust::Neither { attempt: u64::MAX } },
    );
    ledger.keeps_tail = recovered.keep;
    ledger.is_left_alone = recovered.keep && became.is_none();
    if is_as_we_write_it {
        ledger.journal_len = recovered.journal_len;
        ledger.marked = ledger.committed;
    }
    let mut all = held;
    for (file, held) in ranges(&recovered.records) {
        let one = all.entry(file).or_default();
        held.iter().for_each(|span| one.insert(span));
    }
    let opening = Box::new(Opening {
        journal: JournalWas::Read { restored: recovered.restored },
        held: all,
        lost: recovered.lost,
        cut: recovered.cut,
        keep: recovered.keep,
        unusable,
        ledger,
    });
    Ok(match became {
        Some(name) => Verdict::Adopt(name, opening),
        None => Verdict::Open(opening),
    })
}

/// The name of the journal of a file.
#[must_use]
pub fn journal_of(name: &[u8]) -> Vec<u8> {
    [name, b".journal"].concat()
}

/// The name of the file that keeps bytes which were cut off a file.
#[must_use]
pub fn cut_of(name: &[u8]) -> Vec<u8> {
    [name, b".cut"].concat()
}

/// Whether the file at the output's path is the output that the journal describes: it contains the
/// last bytes known to be durable or, if it is shorter, the last described bytes that it can
/// contain.
fn is_same_output<F: Folder>(
    folder: &mut F,
    output: &[u8],
    len: Option<u64>,
    parsed: &Parsed,
) -> Result<bool, F::Error> {
    match len {
        Some(len) if len > parsed.header.base => match evidence(parsed, len.min(parsed.durable())) {
            Some((span, hash)) => Ok(folder.hash(output, span)? == Some(hash)),
            None => Ok(len >= parsed.durable()),
        },
        _ => Ok(parsed.output_len() == parsed.header.base),
    }
}

/// The last part of the output up to `end` whose hash is known.
fn evidence(parsed: &Parsed, end: u64) -> Option<(Span, u64)> {
    parsed.records.iter().rev().filter(|record| record.output_end() <= end).find_map(Record::evidence)
}

/// The present name of an output that log rotation renamed: that of a file without a journal that
/// contains the last described bytes. Files with other names are not considered, because the
/// source's own file contains these bytes too.
fn renamed<F: Folder>(folder: &mut F, output: &[u8], parsed: &Parsed) -> Result<Option<Vec<u8>>, F::Error> {
    let recorded = parsed.output_len();
    let mut looked_for: Vec<(Span, u64)> = Vec::new();
    for end in [recorded, parsed.durable()] {
        looked_for.extend(evidence(parsed, end).filter(|one| !looked_for.contains(one)));
    }
    let mut names = folder.names()?;
    names.sort();
    let has_journal = |name: &Vec<u8>| names.binary_search(&journal_of(name)).is_ok();
    let is_own = |name: &Vec<u8>| name.ends_with(b".journal") || *name == cut_of(output);
    let mut candidates: Vec<(&Vec<u8>, u64)> = Vec::new();
    for name in names.iter().filter(|name| is_rotated(name, output) && !is_own(name) && !has_journal(name)) {
        candidates.extend(folder.len(name)?.map(|len| (name, len)));
    }
    // A rewritten journal of version 1 has no hash, only the length.
    if looked_for.is_empty() {
        return Ok(candidates.iter().find(|(_, len)| *len == recorded).map(|(name, _)| (*name).clone()));
    }
    // A file with all described bytes comes before one with the durable ones only.
    for (span, hash) in looked_for {
        for (name, _) in candidates.iter().filter(|(_, len)| span.end <= *len) {
            if folder.hash(name, span.clone())? == Some(hash) {
                return Ok(Some((*name).clone()));
            }
        }
    }
    Ok(None)
}

/// Whether log rotation can have given this name to the output: `output.txt.1`,
/// `output.txt-20261124`, `output-20261124.txt`.
fn is_rotated(name: &[u8], output: &[u8]) -> bool {
    let behind = name.strip_prefix(output).is_some_and(|suffix| suffix.starts_with(b".") || suffix.starts_with(b"-"));
    let dot = output.iter().rposition(|&byte| byte == b'.').unwrap_or(output.len());
    let (stem, extension) = output.split_at(dot);
    let inside = name.strip_prefix(stem).and_then(|rest| rest.strip_suffix(extension));
    behind || inside.is_some_and(is_number)
}

/// Whether this suffix is one of log rotation: a number, a date or a time.
fn is_number(suffix: &[u8]) -> bool {
    let [b'.' | b'-', number @ ..] = suffix else { return false };
    number.first().is_some_and(u8::is_ascii_digit)
        && number.iter().all(|byte| byte.is_ascii_digit() || b"-_.:TZ".contains(byte))
}

/// The journals of the rotated files of an output.
struct Rotated {
    /// The ID of the output, if a journal contains it.
    id: Option<u64>,
    /// The names of journals with that ID.
    journals: Vec<Vec<u8>>,
    /// The names of journals of version 1. They contain no owner, and are recognised by name.
    unnamed: Vec<Vec<u8>>,
}

impl Rotated {
    /// Finds the journals. `owner` is the owner in the output's present journal, if there is one.
    fn find<F: Folder>(
        folder: &mut F,
        output: &[u8],
        identity: &Identity,
        owner: Option<&Owner>,
    ) -> Result<Self, F::Error> {
        let mut found = Self { id: None, journals: Vec::new(), unnamed: Vec::new() };
        let own = journal_of(output);
        let mut names = folder.names()?;
        names.retain(|name| name.ends_with(b".journal") && *name != own);
        names.sort();
        let mut others = Vec::new();
        for name in names {
            let Some(bytes) = folder.read(&name, journal::MAX_HEADER_LEN as u64)? else { continue };
            match Header::read(&bytes) {
                Some((Header { owner: Some(of), .. }, ..)) if of.identity.admits(identity) => others.push((name, of)),
                Some((Header { owner: None, .. }, ..)) if is_numbered(&name, output) && !folder.is_locked(&name)? => {
                    found.unnamed.push(name);
                }
                _ => {}
            }
        }
        // An output without a journal was rotated if another journal has its name.
        let of_same_name = || others.iter().find(|(_, of)| of.name == output).map(|(_, of)| of.id);
        found.id = owner.map(|owner| owner.id).or_else(of_same_name);
        let of_this_output = |(name, of): (Vec<u8>, Owner)| (Some(of.id) == found.id).then_some(name);
        found.journals = others.into_iter().filter_map(of_this_output).collect();
        Ok(found)
    }

    /// The ranges in the rotated files, and the unusable journals. `own`: the ranges in the output
    /// itself.
    #[allow(clippy::type_complexity)]
    fn held<F: Folder>(
        &self,
        folder: &mut F,
        own: &BTreeMap<u64, RangeSet>,
    ) -> Result<(BTreeMap<u64, RangeSet>, Vec<Vec<u8>>), F::Error> {
        let (mut held, mut unusable) = (BTreeMap::<u64, RangeSet>::new(), Vec::new());
        for name in self.journals.iter().chain(&self.unnamed) {
            let bytes = folder.read(name, u64::MAX)?.unwrap_or_default();
            let Ok(Some(parsed)) = Parsed::read(&bytes) else {
                unusable.push(name.clone());
                continue;
            };
            if parsed.damage.is_some() {
                unusable.push(name.clone());
            }
            // An output that was refused and moved away may end with a torn commit.
            let file = name.strip_suffix(b".journal").unwrap_or(name);
            let (is_there, durable) = (folder.len(file)?.is_some(), parsed.durable());
            let mut records = Vec::new();
            for record in &parsed.records {
                let in_doubt = is_there && record.output_end() > durable && record.data_hash != 0;
                if !in_doubt || folder.hash(file, record.offset..record.output_end())? == Some(record.data_hash) {
                    records.push(record);
                }
            }
            let ranges = ranges(records);
            // An output never contains ranges of its own rotated files, so this journal belongs to
            // another writer.
            let overlaps = |(file, ranges): (&u64, &RangeSet)| {
                own.get(file).is_some_and(|own| ranges.iter().any(|span| !own.missing(span.clone()).eq([span])))
            };
            if self.unnamed.contains(name) && ranges.iter().any(overlaps) {
                continue;
            }
            for (file, ranges) in ranges {
                let one = held.entry(file).or_default();
                ranges.iter().for_each(|span| one.insert(span));
            }
        }
        Ok((held, unusable))
    }
}

/// Whether the name alone says that this may be the journal of a rotated output.
fn is_numbered(journal: &[u8], output: &[u8]) -> bool {
    journal.strip_prefix(output).and_then(|rest| rest.strip_suffix(b".journal")).is_some_and(is_number)
}

/// The certain contents of an output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovered {
    /// The length of the output before the first record.
    pub base: u64,
    /// The valid records.
    pub records: Vec<Record>,
    /// Ranges that were durable and are missing now, by content: the output was truncated.
    pub lost: BTreeMap<u64, RangeSet>,
    /// The bytes after the last commit.
    pub cut: Span,
    /// Whether these bytes may be more than one unfinished commit.
    pub keep: bool,
    /// Committed bytes that no record proves to be durable.
    unproven: Span,
    /// Whether the records differ from those in the journal, so that the journal must be rewritten.
    changed: bool,
    journal_len: u64,
    restored: u64,
}

impl Parsed {
    /// Determines which records have their bytes in the output.
    ///
    /// `len` is the length of the output. `hash_of` hashes a range of the output, or returns `None`
    /// if the range is not complete. It is called only for records after the known durable length.
    ///
    /// # Errors
    ///
    /// Errors of `hash_of`. The inner error: journal and output do not belong together.
    pub fn recover<E>(
        mut self,
        len: u64,
        mut hash_of: impl FnMut(Span) -> Result<Option<u64>, E>,
    ) -> Result<Result<Recovered, Refusal>, E> {
        if let Some(damage) = self.damage {
            return Ok(Err(Refusal::Damaged(damage)));
        }
        let (durable, recorded) = (self.durable(), self.output_len());
        // An unfinished commit is never this long. (With a journal of version 1, it can be.)
        if self.header.owner.is_some() && len.saturating_sub(recorded) > COMMIT_LIMIT {
            return Ok(Err(Refusal::Longer { recorded, len }));
        }
        let mut keep = 0_usize;
        for record in &self.records {
            let end = record.output_end();
            let is_there = end <= len
                && (end <= durable || hash_of(record.offset..end)?.is_some_and(|hash| hash == record.data_hash));
            if !is_there {
                break;
            }
            keep = keep.saturating_add(1);
        }
        let dropped = self.records.split_off(keep);
        let mut lost = Vec::new();
        // Missing bytes that were durable were removed by another program; the rest is a normal
        // torn tail.
        for record in dropped.iter().filter(|r| !r.is_mark() && r.output_end() <= durable) {
            // A run that was truncated in the middle still has its first bytes.
            let there = len.saturating_sub(record.offset).min(record.bytes());
            let cut = record.span.start.saturating_add(there);
            lost.push(Record { span: cut..record.span.end, ..record.clone() });
            if there > 0 {
                self.records.push(Record { span: record.span.start..cut, data_hash: 0, ..record.clone() });
            }
        }
        let base = self.header.base.min(len);
        let committed = self.records.last().map_or(base, Record::output_end).min(len);
        let unproven = committed.saturating_sub(durable);
        // Only one record was dropped, and its bytes are incomplete: that commit never finished.
        let is_unfinished = dropped.len() == 1 && len < recorded;
        Ok(Ok(Recovered {
            lost: ranges(&lost),
            cut: committed..len,
            keep: committed < len && !is_unfinished,
            unproven: if unproven <= MOST_WRITTEN_AGAIN {
                durable.min(committed)..committed
            } else {
                committed..committed
            },
            changed: !dropped.is_empty()
                || base != self.header.base
                || self.torn > 0
                || self.restored > 0
                || committed != len
                || durable < committed,
            journal_len: self.header_len.saturating_add(len_of(self.records.len())),
            restored: self.restored,
            base,
            records: self.records,
        }))
    }
}

/// A task for the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Job {
    /// Bring both files into the state that [`startup`] decided on.
    Recover,
    /// Commit the runs of [`Ledger::prepare`], durably if `sync`.
    Commit {
        /// Whether the commit must be durable when the job ends.
        sync: bool,
    },
    /// Maintain the files: detect changes by other programs, and compact the journal. With `sync`,
    /// sync what is not durable yet.
    Maintain {
        /// Whether a sync is due.
        sync: bool,
    },
    /// Sync everything, and mark it as durable in the journal.
    Finish,
    /// Sync everything, and rename the journal after the output was renamed.
    Rotate,
}

/// The next step for the driver, which reports the result to [`Ledger::on`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Inspect both files, and answer [`Answer::Inspected`].
    Inspect,
    /// Truncate the output, and the journal if there is a length for it. Leave a file that is
    /// already shorter.
    CutBack {
        /// The length of the output.
        output: u64,
        /// The length of the journal.
        journal: Option<u64>,
    },
    /// Durably copy this part of the output to a file beside it, because it is about to be cut off.
    Keep(Span),
    /// Rewrite this part of the output with its present bytes, in pieces, and sync all of it. After
    /// a failed sync, the kernel may have dropped dirty pages and marked them clean.
    WriteAgain(Span),
    /// Hash this part of the output, and answer [`Answer::Hash`].
    HashTail(Span),
    /// Replace the journal atomically and durably by [`Ledger::journal_bytes`].
    ReplaceJournal {
        /// Whether the reason is that another program changed or removed the journal.
        touched: bool,
    },
    /// Write [`Ledger::journal_bytes`] to the journal at this offset.
    AppendJournal {
        /// The offset.
        at: u64,
        /// Whether the journal must be durable before the next effect.
        sync: bool,
    },
    /// Write the bytes of the commit to the output at this offset.
    AppendOutput {
        /// The offset.
        at: u64,
    },
    /// Sync both files.
    Sync,
    /// Rename the journal as the output was renamed.
    MoveJournal,
    /// The job has ended.
    End(Outcome),
}

/// The result of an [`Effect`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The effect succeeded.
    Done,
    /// The effect failed, perhaps partially.
    Failed,
    /// The state of both files.
    Inspected(FileStates),
    /// The requested hash.
    Hash(u64),
}

/// The state of both files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileStates {
    /// The length of the output.
    pub len: u64,
    /// The location of the output.
    pub place: Place,
    /// The length of the journal. `None`: the journal is no longer at its path.
    pub journal_len: Option<u64>,
}

/// The location of the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// At its path.
    Here,
    /// In the same folder, under another name.
    Renamed,
    /// Elsewhere, or deleted.
    Gone,
}

/// The result of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The job succeeded.
    Done,
    /// An effect failed. The output contains nothing of the job, which can be retried.
    Failed,
    /// Another program changed the output, which must be opened again.
    Disturbed(Disturbance),
    /// The output was renamed, and its journal too. Open a new output.
    Rotated,
}

/// A change by another program to an output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disturbance {
    /// The output was removed or replaced.
    Replaced,
    /// The output is shorter than its commits.
    Truncated,
    /// The output is longer than its commits.
    Extended,
}

impl fmt::Display for Disturbance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Replaced => "it was removed or replaced by another program",
            Self::Truncated => "it was truncated by another program",
            Self::Extended => "another program wrote to it",
        })
    }
}

/// The size of this many records in a journal.
const fn len_of(records: usize) -> u64 {
    (records as u64).saturating_mul(RECORD_LEN as u64)
}

/// Which files are in a known state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trust {
    /// Both files are as the ledger says.
    Sound,
    /// The output is as the ledger says. The journal must be rewritten.
    Journal {
        /// Whether the reason is that another program changed or removed the journal.
        touched: bool,
    },
    /// Neither file is. The output is truncated to the last commit, the bytes not known to be
    /// durable are rewritten, and the journal is rewritten.
    Neither {
        /// Maximum number of bytes after the last commit that the writer itself wrote.
        attempt: u64,
    },
}

/// The effect that the driver is performing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Idle,
    Inspecting,
    Keeping,
    CuttingBack,
    WritingAgain,
    Hashing,
    Replacing,
    Syncing,
    AppendingJournal,
    AppendingOutput,
    /// Syncing the commit.
    Committing,
    Marking,
    Moving,
    /// Truncating both files after a failed write.
    TakingBack,
}

/// The committed state of an output, and the state machine of its jobs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ledger {
    owner: Owner,
    base: u64,
    /// The length of the output up to the last commit.
    committed: u64,
    /// The length that is certainly durable.
    durable: u64,
    /// The durable length according to the journal.
    marked: u64,
    /// The length of the journal up to the last commit.
    journal_len: u64,
    /// The committed records; adjacent ones are joined.
    joined: Vec<Record>,
    trust: Trust,
    /// The writer has not yet verified that the journal belongs to the output: change nothing
    /// before the first commit.
    is_left_alone: bool,
    /// The bytes after the last commit may be more than an unfinished commit.
    keeps_tail: bool,
    job: Job,
    phase: Phase,
    /// The last tail checksum, and the length of the output for which it was computed.
    tail: Option<(u64, u64)>,
    /// The records of the commit in progress.
    records: Vec<Record>,
    /// The number of bytes of the commit in progress.
    bytes: u64,
    /// The bytes to write for [`Effect::AppendJournal`] and [`Effect::ReplaceJournal`].
    buffer: Vec<u8>,
}

impl Ledger {
    fn new(owner: Owner, base: u64, records: &[Record], unproven: Span, trust: Trust) -> Self {
        let mut joined = Vec::new();
        records.iter().for_each(|record| join(&mut joined, record));
        Self {
            owner,
            base,
            committed: unproven.end,
            durable: unproven.start,
            marked: 0,
            journal_len: 0,
            joined,
            trust,
            is_left_alone: false,
            keeps_tail: false,
            job: Job::Recover,
            phase: Phase::Idle,
            tail: None,
            records: Vec::new(),
            bytes: 0,
            buffer: Vec::new(),
        }
    }

    /// The length of the output up to the last commit.
    #[must_use]
    pub const fn committed(&self) -> u64 {
        self.committed
    }

    /// The owner of the output.
    #[must_use]
    pub const fn owner(&self) -> &Owner {
        &self.owner
    }

    /// The ranges in the output, by content.
    #[must_use]
    pub fn held(&self) -> BTreeMap<u64, RangeSet> {
        ranges(&self.joined)
    }

    /// The bytes to write to the journal.
    #[must_use]
    pub fn journal_bytes(&self) -> &[u8] {
        &self.buffer
    }

    /// Prepares the commit of these runs (file ID, range, lines). `data` contains their bytes,
    /// concatenated.
    pub fn prepare(&mut self, runs: impl IntoIterator<Item = (u64, Span, u64)>, data: &[u8]) {
        self.records.clear();
        let mut at = 0_usize;
        for (file, span, lines) in runs {
            let len = usize::try_from(span.end.saturating_sub(span.start)).unwrap_or(usize::MAX);
            let bytes = data.get(at..at.saturating_add(len)).unwrap_or_default();
            let offset = self.committed.saturating_add(at as u64);
            self.records.push(Record { file, span, offset, durable: 0, data_hash: hash(bytes), lines });
            at = at.saturating_add(bytes.len());
        }
        self.bytes = data.len() as u64;
    }

    /// The writer has verified that the journal belongs to the output and is not too old.
    pub const fn judged(&mut self) {
        self.is_left_alone = false;
    }

    /// Starts a job.
    pub fn begin(&mut self, job: Job) -> Effect {
        self.job = job;
        if self.is_left_alone && !matches!(job, Job::Commit { .. }) {
            return self.end(Outcome::Done);
        }
        self.is_left_alone = false;
        self.go(Phase::Inspecting, Effect::Inspect)
    }

    /// Continues after an effect.
    pub fn on(&mut self, answer: Answer) -> Effect {
        match (self.phase, answer) {
            (Phase::Inspecting, Answer::Inspected(seen)) => return self.seen(seen),
            (Phase::Keeping, Answer::Done) => self.keeps_tail = false,
            (Phase::Hashing, Answer::Hash(hash)) => self.tail = Some((self.committed, hash)),
            (Phase::CuttingBack, Answer::Done) => {
                let again = self.durable..self.committed;
                return self.go(Phase::WritingAgain, Effect::WriteAgain(again));
            }
            (Phase::WritingAgain, Answer::Done) => {
                self.durable = self.committed;
                self.trust = Trust::Journal { touched: false };
            }
            (Phase::Replacing, Answer::Done) => {
                self.journal_len = self.buffer.len() as u64;
                self.marked = self.committed;
                self.trust = Trust::Sound;
            }
            (Phase::Syncing, Answer::Done) => self.durable = self.committed,
            (Phase::AppendingJournal, Answer::Done) => {
                return self.go(Phase::AppendingOutput, Effect::AppendOutput { at: self.committed });
            }
            (Phase::AppendingOutput, Answer::Done) if self.job == Job::Commit { sync: true } => {
                return self.go(Phase::Committing, Effect::Sync);
            }
            (Phase::AppendingOutput, Answer::Done) => self.commit(),
            (Phase::Committing, Answer::Done) => {
                self.commit();
                self.durable = self.committed;
            }
            (Phase::Marking, Answer::Done) => {
                self.journal_len = self.journal_len.saturating_add(len_of(1));
                self.marked = self.committed;
            }
            (Phase::Moving, Answer::Done) => return self.end(Outcome::Rotated),
            // If the sync failed, the kernel may have dropped dirty pages.
            (Phase::AppendingJournal, _) if self.bytes > COMMIT_LIMIT => return self.fail(),
            (Phase::AppendingJournal | Phase::AppendingOutput | Phase::Marking, _) => {
                let back = Effect::CutBack { output: self.committed, journal: Some(self.journal_len) };
                return self.go(Phase::TakingBack, back);
            }
            (Phase::TakingBack, Answer::Done) => return self.end(Outcome::Failed),
            (Phase::TakingBack | Phase::Syncing | Phase::Committing, _) => return self.fail(),
            _ => return self.end(Outcome::Failed),
        }
        self.next()
    }

    fn seen(&mut self, seen: FileStates) -> Effect {
        if seen.len < self.committed {
            return self.end(Outcome::Disturbed(Disturbance::Truncated));
        }
        let own = match self.trust {
            Trust::Neither { attempt } => attempt,
            Trust::Sound | Trust::Journal { .. } => 0,
        };
        match seen.place {
            Place::Here if seen.len.saturating_sub(self.committed) > own => {
                return self.end(Outcome::Disturbed(Disturbance::Extended));
            }
            Place::Here => {}
            Place::Renamed => self.job = Job::Rotate,
            Place::Gone => return self.end(Outcome::Disturbed(Disturbance::Replaced)),
        }
        if self.keeps_tail && seen.len > self.committed {
            return self.go(Phase::Keeping, Effect::Keep(self.committed..seen.len));
        }
        if self.trust == Trust::Sound && seen.journal_len != Some(self.journal_len) {
            self.trust = Trust::Journal { touched: true };
        }
        self.next()
    }

    /// The next effect of the job.
    fn next(&mut self) -> Effect {
        match self.trust {
            Trust::Neither { .. } => {
                let back = Effect::CutBack { output: self.committed, journal: None };
                return self.go(Phase::CuttingBack, back);
            }
            Trust::Journal { touched } => return self.replace(touched),
            Trust::Sound => {}
        }
        match self.job {
            Job::Commit { .. } if self.records.is_empty() => self.end(Outcome::Done),
            Job::Commit { .. } => self.append_records(),
            Job::Recover => self.end(Outcome::Done),
            Job::Maintain { sync } if sync && self.durable < self.committed => self.go(Phase::Syncing, Effect::Sync),
            Job::Maintain { .. } if self.is_bloated() => self.replace(false),
            Job::Maintain { .. } if self.durable < self.committed => self.end(Outcome::Done),
            Job::Finish | Job::Rotate if self.durable < self.committed => self.go(Phase::Syncing, Effect::Sync),
            Job::Maintain { .. } | Job::Finish | Job::Rotate if self.marked != self.committed => self.mark(),
            Job::Rotate => self.go(Phase::Moving, Effect::MoveJournal),
            Job::Maintain { .. } | Job::Finish => self.end(Outcome::Done),
        }
    }

    /// Rewrites the journal from the committed records, which must be durable first.
    fn replace(&mut self, touched: bool) -> Effect {
        if self.durable < self.committed {
            return self.go(Phase::Syncing, Effect::Sync);
        }
        match self.tail_mark() {
            Err(tail) => self.go(Phase::Hashing, Effect::HashTail(tail)),
            Ok(mark) => {
                self.buffer = journal::encode(self.base, &self.owner, &self.joined, &mark);
                self.go(Phase::Replacing, Effect::ReplaceJournal { touched })
            }
        }
    }

    /// Appends a mark that the last commit is durable. Losing the mark in a crash is harmless.
    fn mark(&mut self) -> Effect {
        match self.tail_mark() {
            Err(tail) => self.go(Phase::Hashing, Effect::HashTail(tail)),
            Ok(mark) => {
                self.buffer.clear();
                self.buffer.extend_from_slice(&mark.encode(self.next_index()));
                self.go(Phase::Marking, Effect::AppendJournal { at: self.journal_len, sync: false })
            }
        }
    }

    /// The mark for the committed length; or the range to hash for it.
    fn tail_mark(&self) -> Result<Record, Span> {
        let tail = tail(self.base, self.committed);
        match self.tail {
            _ if tail.is_empty() => Ok(Record::mark(self.committed, tail, 0)),
            Some((len, hash)) if len == self.committed => Ok(Record::mark(len, tail, hash)),
            _ => Err(tail),
        }
    }

    fn append_records(&mut self) -> Effect {
        self.buffer.clear();
        let first = self.next_index();
        for (index, record) in (first..).zip(&mut self.records) {
            record.durable = self.durable;
            self.buffer.extend_from_slice(&record.encode(index));
        }
        let sync = self.bytes > COMMIT_LIMIT;
        self.go(Phase::AppendingJournal, Effect::AppendJournal { at: self.journal_len, sync })
    }

    /// The records of the commit are now part of the journal.
    fn commit(&mut self) {
        self.journal_len = self.journal_len.saturating_add(len_of(self.records.len()));
        self.committed = self.committed.saturating_add(std::mem::take(&mut self.bytes));
        for record in self.records.drain(..) {
            join(&mut self.joined, &record);
        }
    }

    /// The index of the next record in the journal.
    fn next_index(&self) -> u64 {
        self.journal_len.saturating_sub(self.header_len()).div_euclid(RECORD_LEN as u64)
    }

    fn header_len(&self) -> u64 {
        Header::len(&self.owner) as u64
    }

    /// Whether compaction would make the journal much smaller.
    fn is_bloated(&self) -> bool {
        self.journal_len > COMPACT_ABOVE && self.journal_len > len_of(self.joined.len()).saturating_mul(COMPACT_RATIO)
    }

    /// Bytes after the known durable length can no longer be trusted.
    fn fail(&mut self) -> Effect {
        self.trust = Trust::Neither { attempt: self.bytes };
        self.end(Outcome::Failed)
    }

    fn end(&mut self, outcome: Outcome) -> Effect {
        if outcome != Outcome::Done {
            self.records.clear();
        }
        self.go(Phase::Idle, Effect::End(outcome))
    }

    const fn go(&mut self, phase: Phase, effect: Effect) -> Effect {
        self.phase = phase;
        effect
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::partition::Partition;
    use proptest::prelude::*;
    use std::convert::Infallible;

    fn identity(group: &str) -> Identity {
        Identity::new("line_stream", group, &[Partition::WHOLE])
    }

    /// A file of the model: its present bytes, and those that a power loss certainly preserves.
    #[derive(Debug, Clone, Default, PartialEq, Eq)]
    struct File {
        bytes: Vec<u8>,
        synced: Vec<u8>,
        /// The ranges that the next sync writes.
        dirty: Vec<std::ops::Range<usize>>,
    }

    impl File {
        fn write(&mut self, bytes: &[u8], at: u64) {
            let at = at as usize;
            self.bytes.resize(self.bytes.len().max(at + bytes.len()), 0);
            self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
            self.dirty.push(at..at + bytes.len());
        }

        /// Ranges that a failed sync could not write are clean afterwards.
        fn sync(&mut self, fails: bool) {
            let dirty = std::mem::take(&mut self.dirty);
            if !fails {
                self.synced.resize(self.bytes.len(), 0);
                for dirty in dirty {
                    let dirty = dirty.start.min(self.bytes.len())..dirty.end.min(self.bytes.len());
                    self.synced[dirty.clone()].copy_from_slice(&self.bytes[dirty]);
                }
            }
        }
    }

    /// A folder in memory.
    #[derive(Debug, Clone, Default, PartialEq, Eq)]
    struct Disk(BTreeMap<Vec<u8>, File>);

    impl Folder for Disk {
        type Error = Infallible;

        fn names(&mut self) -> Result<Vec<Vec<u8>>, Infallible> {
            Ok(self.0.keys().cloned().collect())
        }

        fn len(&mut self, name: &[u8]) -> Result<Option<u64>, Infallible> {
            Ok(self.0.get(name).map(|file| file.bytes.len() as u64))
        }

        fn read(&mut self, name: &[u8], most: u64) -> Result<Option<Vec<u8>>, Infallible> {
            let most = usize::try_from(most).unwrap_or(usize::MAX);
            Ok(self.0.get(name).map(|file| file.bytes[..file.bytes.len().min(most)].to_vec()))
        }

        fn hash(&mut self, name: &[u8], span: Span) -> Result<Option<u64>, Infallible> {
            assert!(span.end - span.start <= 2 * COMMIT_LIMIT, "a bounded amount is read");
            Ok(self.0.get(name).and_then(|file| file.bytes.get(span.start as usize..span.end as usize)).map(hash))
        }

        fn is_locked(&mut self, _: &[u8]) -> Result<bool, Infallible> {
            Ok(false)
        }
    }

    const OUT: &[u8] = b"out";

    impl Disk {
        fn file(&mut self, name: &[u8]) -> &mut File {
            self.0.entry(name.to_vec()).or_default()
        }

        fn out(&mut self) -> &mut Vec<u8> {
            &mut self.file(OUT).bytes
        }

        fn journal(&mut self) -> &mut Vec<u8> {
            &mut self.file(b"out.journal").bytes
        }

        fn rename(&mut self, from: &[u8], to: &[u8]) {
            let file = self.0.remove(from).unwrap();
            self.0.insert(to.to_vec(), file);
        }

        fn startup(&mut self, group: &str) -> Verdict {
            let Ok(verdict) = startup(self, OUT, &identity(group), 42);
            verdict
        }

        fn refused(&mut self) -> Refusal {
            let before = self.clone();
            let Verdict::Refuse(refusal) = self.startup("writers") else { panic!("not refused") };
            assert_eq!(*self, before);
            refusal
        }

        fn open(&mut self) -> Opening {
            match self.startup("writers") {
                Verdict::Open(mut opening) => {
                    opening.ledger.judged();
                    assert_eq!(self.finish(&mut opening.ledger, Job::Recover, b""), Outcome::Done);
                    *opening
                }
                other => panic!("not opened: {other:?}"),
            }
        }

        /// Adopts a renamed output: runs the job that renames its journal. Returns the new name.
        fn adopt(&mut self) -> Vec<u8> {
            let Verdict::Adopt(name, mut opening) = self.startup("writers") else { panic!("not renamed") };
            let new = self.0.remove(OUT);
            self.rename(&name, OUT);
            let mut effect = opening.ledger.begin(Job::Recover);
            while effect != Effect::End(Outcome::Rotated) {
                let answer = match effect {
                    Effect::MoveJournal => {
                        self.rename(b"out.journal", &journal_of(&name));
                        Answer::Done
                    }
                    effect => match self.perform(&opening.ledger, effect, b"") {
                        Answer::Inspected(seen) => Answer::Inspected(FileStates { place: Place::Renamed, ..seen }),
                        answer => answer,
                    },
                };
                effect = opening.ledger.on(answer);
            }
            self.rename(OUT, &name);
            self.0.extend(new.map(|new| (OUT.to_vec(), new)));
            name
        }

        /// Runs a job to its end.
        fn finish(&mut self, ledger: &mut Ledger, job: Job, data: &[u8]) -> Outcome {
            self.run(ledger, job, data, &mut { u64::MAX }).unwrap()
        }

        /// Runs a job, and interrupts it before the effect at which `left` reaches 0. Writes and
        /// syncs of two files count as separate effects.
        fn run(&mut self, ledger: &mut Ledger, job: Job, data: &[u8], left: &mut u64) -> Option<Outcome> {
            let mut effect = ledger.begin(job);
            loop {
                if let Effect::End(outcome) = effect {
                    return Some(outcome);
                }
                *left = left.checked_sub(1)?;
                let answer = self.perform(ledger, effect, data);
                effect = ledger.on(answer);
            }
        }

        fn perform(&mut self, ledger: &Ledger, effect: Effect, data: &[u8]) -> Answer {
            let bytes = ledger.journal_bytes();
            match effect {
                Effect::Inspect => {
                    let len = self.out().len() as u64;
                    let journal_len = self.0.get(&b"out.journal"[..]).map(|file| file.bytes.len() as u64);
                    return Answer::Inspected(FileStates { len, place: Place::Here, journal_len });
                }
                Effect::CutBack { output, journal } => {
                    self.out().truncate(output as usize);
                    if let Some(len) = journal {
                        self.journal().truncate(len as usize);
                    }
                }
                Effect::Keep(span) => {
                    let tail = self.out()[span.start as usize..span.end as usize].to_vec();
                    self.file(b"out.cut").bytes.extend(tail);
                }
                Effect::WriteAgain(span) => {
                    let again = self.out()[span.start as usize..span.end as usize].to_vec();
                    self.file(OUT).write(&again, span.start);
                    self.file(OUT).sync(false);
                }
                Effect::HashTail(span) => {
                    return Answer::Hash(hash(&self.out()[span.start as usize..span.end as usize]));
                }
                Effect::ReplaceJournal { .. } => {
                    let (bytes, synced) = (bytes.to_vec(), bytes.to_vec());
                    *self.file(b"out.journal") = File { bytes, synced, dirty: Vec::new() };
                }
                Effect::AppendJournal { at, sync } => {
                    self.file(b"out.journal").write(bytes, at);
                    if sync {
                        self.file(b"out.journal").sync(false);
                    }
                }
                Effect::AppendOutput { at } => self.file(OUT).write(data, at),
                Effect::Sync => self.0.values_mut().for_each(|file| file.sync(false)),
                Effect::MoveJournal | Effect::End(_) => unreachable!(),
            }
            Answer::Done
        }

        /// Commits bytes of a content, from `start` on.
        fn commit(&mut self, ledger: &mut Ledger, start: u64, data: &[u8]) {
            ledger.prepare([(5, start..start + data.len() as u64, 1)], data);
            assert_eq!(self.finish(ledger, Job::Commit { sync: true }, data), Outcome::Done);
        }
    }

    /// An output with these commits of one content.
    fn committed(sizes: &[u64]) -> (Disk, Ledger) {
        let mut disk = Disk::default();
        let mut ledger = disk.open().ledger;
        let mut at = 0;
        for &size in sizes {
            disk.commit(&mut ledger, at, &content(at..at + size));
            at += size;
        }
        (disk, ledger)
    }

    fn content(span: Span) -> Vec<u8> {
        span.map(|at| (at * 7 % 251) as u8).collect()
    }

    fn finish(disk: &mut Disk, ledger: &mut Ledger) {
        assert_eq!(disk.finish(ledger, Job::Finish, b""), Outcome::Done);
    }

    fn spans(held: &BTreeMap<u64, RangeSet>) -> Vec<Span> {
        held.get(&5).map(|held| held.iter().collect()).unwrap_or_default()
    }

    #[test]
    fn committed_ranges_are_held_at_the_next_start() {
        let (mut disk, mut ledger) = committed(&[10, 20]);
        let opening = disk.open();
        assert_eq!((spans(&opening.held), opening.journal), (vec![0..30], JournalWas::Read { restored: 0 }));
        finish(&mut disk, &mut ledger);
        let before = disk.clone();
        assert_eq!(spans(&disk.open().held), [0..30]);
        assert_eq!(disk, before, "an unchanged output is not written to");
    }

    #[test]
    fn a_journal_of_another_identity_is_refused() {
        let (mut disk, _) = committed(&[10]);
        let Verdict::Refuse(refusal) = disk.startup("others") else { panic!("not refused") };
        let text = refusal.to_string();
        assert!(text.contains("--group writers") && text.contains("--group others"), "{text}");
    }

    #[test]
    fn the_journal_of_another_output_is_not_a_rotated_one() {
        for name in [&b"out.b"[..], b"out.1", b"out.2026-11-24"] {
            let (mut disk, _) = committed(&[10]);
            disk.rename(OUT, name);
            disk.rename(b"out.journal", &journal_of(name));
            // One of another group, which has the same lines; and one of this group for another
            // output, which has other lines.
            let own = Owner { id: 1, name: name.to_vec(), identity: identity("others") };
            let other = Owner { identity: identity("writers"), ..own.clone() };
            let record = Record { file: 5, span: 0..10, offset: 0, durable: 0, data_hash: 0, lines: 1 };
            for owner in [own, other] {
                let bytes = journal::encode(0, &owner, std::slice::from_ref(&record), &Record::mark(10, 0..0, 0));
                disk.file(&journal_of(name)).bytes = bytes;
                assert!(disk.clone().open().held.is_empty(), "{name:?}");
            }
        }
    }

    #[test]
    fn rotated_files_count_under_any_name() {
        let (mut disk, ledger) = committed(&[10]);
        disk.rename(OUT, b"archive-7");
        disk.rename(b"out.journal", b"archive-7.journal");
        let opening = disk.open();
        assert_eq!((spans(&opening.held), opening.ledger.owner()), (vec![0..10], ledger.owner()));
        // Also when the next output has its own journal, and continues the content.
        let mut next = opening.ledger;
        disk.commit(&mut next, 10, &content(10..15));
        assert_eq!(spans(&disk.open().held), [0..15]);
    }

    #[test]
    fn a_torn_commit_of_an_output_that_was_moved_away_is_not_held() {
        let (mut disk, _) = committed(&[10, 20]);
        disk.rename(OUT, b"out.1");
        disk.rename(b"out.journal", b"out.1.journal");
        assert_eq!(spans(&disk.open().held), [0..30]);
        disk.file(b"out.1").bytes[15] ^= 1;
        assert_eq!(spans(&disk.open().held), [0..10]);
        // Of an output that was compressed, the journal is believed.
        disk.0.remove(&b"out.1"[..]);
        assert_eq!(spans(&disk.open().held), [0..30]);
    }

    #[test]
    fn an_output_renamed_while_no_writer_ran_is_found() {
        for (finished, replaced, name) in [
            (false, false, &b"out.1"[..]),
            (true, false, b"out-2026"),
            (true, true, b"out.old"),
            (true, true, b"out.1"),
        ] {
            let (mut disk, mut ledger) = committed(&[1000, 2000]);
            if finished {
                finish(&mut disk, &mut ledger);
            }
            if replaced {
                disk.0.remove(&b"out.journal"[..]);
                assert_eq!(disk.finish(&mut ledger, Job::Maintain { sync: false }, b""), Outcome::Done);
            }
            disk.rename(OUT, name);
            disk.file(b"a").bytes = vec![1; 5000];
            assert_eq!(disk.clone().adopt(), name, "{finished} {replaced}");
            // Another file has taken its name.
            disk.file(OUT).bytes = b"new".to_vec();
            assert_eq!(disk.clone().adopt(), name);
            disk.file(OUT).bytes = vec![2; 4000];
            assert_eq!(disk.adopt(), name);
        }
    }

    #[test]
    fn a_file_with_only_some_of_the_bytes_is_not_the_renamed_output() {
        let (mut disk, _) = committed(&[1000, 2000]);
        disk.rename(OUT, b"out.old");
        disk.file(b"out.1").bytes = content(0..1000);
        assert_eq!(disk.clone().adopt(), b"out.old");
        // The bytes of a torn commit, which was written again.
        disk.0.remove(&b"out.1"[..]);
        disk.file(b"out.old").bytes.truncate(2500);
        disk.file(b"out.cut").bytes = content(0..1000);
        assert_eq!(disk.adopt(), b"out.old");
    }

    #[test]
    fn a_torn_commit_is_cut_off_a_renamed_output() {
        let (mut disk, _) = committed(&[1000, 2000]);
        disk.out().truncate(2500);
        disk.rename(OUT, b"out.1");
        assert_eq!(disk.adopt(), b"out.1");
        assert_eq!(disk.file(b"out.1").bytes, content(0..1000));
        assert_eq!(spans(&disk.open().held), [0..1000], "the rest must be written again");
    }

    #[test]
    fn a_file_with_the_same_bytes_is_not_the_output() {
        let (mut disk, _) = committed(&[1000, 2000]);
        disk.rename(OUT, b"input");
        assert_eq!(disk.open().lost[&5].iter().collect::<Vec<_>>(), [0..1000]);
        for (name, expected) in [
            ("o.txt.1", true),
            ("o.txt-20261124", true),
            ("o-20261124.txt", true),
            ("o.txt.bak", true),
            ("o-2.txt", true),
            ("o2.txt", false),
            ("o-old.txt", false),
            ("o.txt2", false),
            ("i.txt", false),
        ] {
            assert_eq!(is_rotated(name.as_bytes(), b"o.txt"), expected, "{name}");
        }
    }

    #[test]
    fn an_output_with_changed_bytes_is_refused() {
        let (mut disk, mut ledger) = committed(&[1000, 2000]);
        finish(&mut disk, &mut ledger);
        disk.out()[2500] ^= 1;
        assert_eq!(disk.refused(), Refusal::Differs(0..3000));
    }

    #[test]
    fn a_missing_or_empty_journal_is_reported_and_a_zeroed_one_refused() {
        let (mut disk, mut ledger) = committed(&[1000]);
        finish(&mut disk, &mut ledger);
        for journal in [None, Some(vec![])] {
            let mut disk = disk.clone();
            match journal {
                None => drop(disk.0.remove(&b"out.journal"[..])),
                Some(bytes) => *disk.journal() = bytes,
            }
            let opening = disk.open();
            assert_eq!((opening.journal, opening.held.len(), opening.cut), (JournalWas::Missing, 0, 1000..1000));
        }
        for byte in [0, b'x'] {
            disk.journal().fill(byte);
            assert_eq!(disk.refused(), Refusal::NotAJournal);
        }
    }

    #[test]
    fn a_journal_of_version_1_is_rewritten_and_its_rotated_files_count() {
        let record = |span: Span, offset| Record { file: 5, span, offset, durable: offset, data_hash: 0, lines: 1 };
        let mark = |len| Record::mark(len, 0..0, 0).encode(1);
        let one = |record: Record| [&journal::header_1(0)[..], &record.encode(0), &mark(record.output_end())].concat();
        let mut disk = Disk::default();
        *disk.out() = content(10..30);
        *disk.journal() = one(record(10..30, 0));
        for (name, span) in [("out.1", 0..10), ("out.2026-11-24", 30..40), ("out.b", 40..50), ("out.3", 20..60)] {
            disk.file(&journal_of(name.as_bytes())).bytes = one(record(span, 0));
        }
        let opening = disk.open();
        assert_eq!(spans(&opening.held), [0..40], "one has another name, and one of them the same bytes");
        assert!(disk.journal().starts_with(&journal::MAGIC));
        assert_eq!(spans(&disk.open().held), [0..40]);
    }

    #[test]
    fn bytes_cut_off_by_an_older_journal_are_kept() {
        let (mut disk, mut ledger) = committed(&[1000]);
        finish(&mut disk, &mut ledger);
        let older = disk.journal().clone();
        disk.commit(&mut ledger, 1000, &content(1000..3000));
        disk.commit(&mut ledger, 3000, &content(3000..4000));
        *disk.journal() = older.clone();
        let Verdict::Open(opening) = disk.startup("writers") else { panic!("refused") };
        assert_eq!((opening.cut.clone(), opening.keep), (1000..4000, true));
        // Nothing is changed before the writer has verified the journal.
        let (mut judged, mut settling) = (disk.clone(), opening.ledger);
        for job in [Job::Recover, Job::Maintain { sync: true }, Job::Finish] {
            assert_eq!(judged.finish(&mut settling, job, b""), Outcome::Done);
            assert_eq!((judged.out().len(), *judged.journal() == older), (4000, true), "{job:?}");
        }
        settling.judged();
        assert_eq!(judged.finish(&mut settling, Job::Maintain { sync: true }, b""), Outcome::Done);
        assert_eq!((judged.out().len(), &judged.file(b"out.cut").bytes), (1000, &content(1000..4000)));
        let long = vec![b'x'; COMMIT_LIMIT as usize];
        disk.commit(&mut ledger, 4000, &long);
        *disk.journal() = older;
        assert_eq!(disk.refused(), Refusal::Longer { recorded: 1000, len: 4000 + COMMIT_LIMIT });
    }

    #[test]
    fn a_large_commit_makes_its_records_durable_first() {
        let (mut disk, mut ledger) = committed(&[10]);
        let large = vec![b'x'; COMMIT_LIMIT as usize + 1];
        ledger.prepare([(5, 10..10 + large.len() as u64, 1)], &large);
        // The power fails after the output is written. All of the output reached the disk, but only
        // the synced part of the journal.
        assert_eq!(disk.run(&mut ledger, Job::Commit { sync: true }, &large, &mut 3), None);
        *disk.journal() = disk.file(b"out.journal").synced.clone();
        disk.out()[5000] = 0;
        let opening = disk.open();
        assert_eq!((opening.cut, spans(&opening.held)), (10..10 + large.len() as u64, vec![0..10]));
    }

    #[test]
    fn a_truncated_output_is_not_extended_after_a_failed_sync() {
        let (mut disk, mut ledger) = committed(&[10]);
        ledger.prepare([(5, 10..20, 1)], &content(10..20));
        let mut effect = ledger.begin(Job::Commit { sync: true });
        while effect != Effect::Sync {
            let answer = disk.perform(&ledger, effect, &content(10..20));
            effect = ledger.on(answer);
        }
        assert_eq!(ledger.on(Answer::Failed), Effect::End(Outcome::Failed));
        let mut retried = (disk.clone(), ledger.clone());
        disk.out().truncate(5);
        let disturbed = Outcome::Disturbed(Disturbance::Truncated);
        assert_eq!(disk.finish(&mut ledger, Job::Maintain { sync: false }, b""), disturbed);
        let (disk, ledger) = (&mut retried.0, &mut retried.1);
        disk.commit(ledger, 10, &content(10..30));
        assert_eq!((spans(&disk.open().held), disk.out().clone()), (vec![0..30], content(0..30)));
    }

    #[test]
    fn changes_by_other_programs_are_detected() {
        let (mut disk, mut ledger) = committed(&[10]);
        let mut inspect = |len, place| {
            assert_eq!(ledger.begin(Job::Maintain { sync: false }), Effect::Inspect);
            ledger.on(Answer::Inspected(FileStates { len, place, journal_len: Some(disk.journal().len() as u64) }))
        };
        let disturbed = |how| Effect::End(Outcome::Disturbed(how));
        assert_eq!(inspect(9, Place::Here), disturbed(Disturbance::Truncated));
        assert_eq!(inspect(11, Place::Here), disturbed(Disturbance::Extended));
        assert_eq!(inspect(10, Place::Gone), disturbed(Disturbance::Replaced));
        assert_eq!(inspect(10, Place::Renamed), Effect::HashTail(0..10), "the mark comes first");
        assert!(matches!(ledger.on(Answer::Hash(1)), Effect::AppendJournal { .. }));
        assert_eq!(ledger.on(Answer::Done), Effect::MoveJournal);
        assert_eq!(ledger.on(Answer::Done), Effect::End(Outcome::Rotated));
    }

    proptest! {
        /// A power loss at any effect: each file keeps its synced bytes, and any part of the bytes
        /// written since.
        #[test]
        fn durable_bytes_survive_a_power_loss_at_any_effect(
            sizes in prop::collection::vec((1u64..50, any::<bool>()), 1..8),
            effects in 0u64..60,
            kept in (0usize..80, 0usize..150),
            zeroed in any::<bool>(),
        ) {
            let mut disk = Disk::default();
            let mut ledger = disk.open().ledger;
            let (mut at, mut left, mut acknowledged) = (0, effects, 0);
            for (size, is_idle) in sizes {
                let data = content(at..at + size);
                ledger.prepare([(5, at..at + size, 1)], &data);
                if disk.run(&mut ledger, Job::Commit { sync: true }, &data, &mut left).is_none() {
                    break;
                }
                at += size;
                acknowledged = at;
                if is_idle && disk.run(&mut ledger, Job::Finish, b"", &mut left).is_none() {
                    break;
                }
            }
            for (name, kept) in [(OUT, kept.0), (b"out.journal", kept.1)] {
                let file = disk.file(name);
                let (len, synced) = (file.bytes.len(), file.synced.len());
                let kept = (synced + kept).min(len);
                prop_assert!(file.bytes.starts_with(&file.synced));
                file.bytes.truncate(kept);
                file.bytes.resize(if zeroed { len } else { kept }, 0);
            }
            let opening = disk.open();
            let held = spans(&opening.held);
            let end = held.first().map_or(0, |held| held.end);
            prop_assert!(held.len() <= 1 && end >= acknowledged, "{held:?} of {acknowledged}");
            prop_assert!(opening.lost.is_empty());
            prop_assert_eq!(disk.out().clone(), content(0..end));
            // The next commits succeed.
            let mut ledger = opening.ledger;
            disk.commit(&mut ledger, end, &content(end..end + 10));
            prop_assert_eq!(spans(&disk.open().held), [0..end + 10]);
        }

        /// Effects fail, fully or partially, and failed syncs drop dirty pages; then the power
        /// fails.
        #[test]
        fn acknowledged_bytes_survive_failing_effects(
            sizes in prop::collection::vec((1u64..50, any::<bool>()), 1..8),
            fails in prop::collection::vec(prop::option::weighted(0.25, any::<bool>()), 0..80),
        ) {
            let mut disk = Disk::default();
            let mut ledger = disk.open().ledger;
            let mut fails = fails.into_iter();
            let mut at = 0;
            // Some commits become durable only with a later job, at the latest with the last one.
            let jobs = sizes.into_iter().map(|(size, sync)| (size, Job::Commit { sync })).chain([(0, Job::Finish)]);
            for (size, job) in jobs {
                let data = content(at..at + size);
                let mut outcome = Outcome::Failed;
                while outcome == Outcome::Failed {
                    ledger.prepare([(5, at..at + size, 1)].into_iter().filter(|_| size > 0), &data);
                    let mut effect = ledger.begin(job);
                    outcome = loop {
                        if let Effect::End(outcome) = effect {
                            break outcome;
                        }
                        let answer = match fails.next().flatten() {
                            None => disk.perform(&ledger, effect, &data),
                            Some(is_done) => {
                                if effect == Effect::Sync {
                                    disk.0.values_mut().for_each(|file| file.sync(!is_done));
                                } else if is_done && effect != Effect::Inspect {
                                    disk.perform(&ledger, effect, &data);
                                }
                                Answer::Failed
                            }
                        };
                        effect = ledger.on(answer);
                    };
                }
                prop_assert_eq!(outcome, Outcome::Done);
                at += size;
            }
            for file in disk.0.values_mut() {
                file.bytes.clone_from(&file.synced);
                file.dirty.clear();
            }
            prop_assert_eq!(spans(&disk.open().held), [0..at]);
            prop_assert_eq!(disk.out().clone(), content(0..at));
        }

        /// Bit flips in the journal or in the last bytes of the output: recovery reports true
        /// ranges, or refuses.
        #[test]
        fn flipped_bits_are_repaired_or_refused(
            sizes in prop::collection::vec(1u64..50, 1..8),
            is_idle in any::<bool>(),
            of_output in any::<bool>(),
            flips in prop::collection::vec(any::<prop::sample::Index>(), 1..5),
        ) {
            let (mut disk, mut ledger) = committed(&sizes);
            if is_idle {
                finish(&mut disk, &mut ledger);
            }
            let whole: u64 = sizes.iter().sum();
            let file = if of_output { disk.out() } else { disk.journal() };
            let is_known = is_idle && flips.len() < 4;
            for flip in flips {
                let bit = flip.index(file.len() * 8);
                file[bit / 8] ^= 1 << (bit % 8);
            }
            let is_changed = *disk.out() != content(0..whole);
            match disk.startup("writers") {
                Verdict::Refuse(_) => {}
                Verdict::Open(opening) => {
                    prop_assert!(opening.cut.is_empty() || opening.keep);
                    prop_assert!(!is_known || opening.cut.is_empty(), "everything was marked as durable");
                    prop_assert!(!is_known || !is_changed, "the tail checksum detects it");
                    prop_assert_eq!(spans(&opening.held).first().map_or(0, |held| held.end), opening.cut.start);
                }
                Verdict::Adopt(name, _) => prop_assert!(false, "{name:?}"),
            }
        }
    }
}
