//! Which content is sent next, and from which file: locating, moving on, and beginning a
//! generation.

use super::resume::{Observed, Resume};
use super::stream::{Streaming, extend};
use super::{Begin, Change, Changed, Directory, Notice, Phase, Producer, Stage, Step, StepError, Wait};
use crate::entry::Span;
use crate::files::{Content, Current, Found, Identified, Inode, KnownContents, Neighbour, Pending, Relation, UNNAMED};
use crate::fingerprint::{Fingerprint, TailChecksum};
use crate::hash;
use crate::line_reader::LineReader;
use crate::manifest::{Generation, Guard, HEAD_LEN, Manifest, Position, next_field};
use crate::source_file::SourceFile;
use resp::StreamId;
use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

/// A file that has at least this many bytes of a content, and all that was sent of it, is that
/// content although it is at another path: 4 KiB.
const DISTINCT: u64 = 4 << 10;
/// How many times the producer waits for Redis's clock to pass the new number.
const TRIES: u32 = 5;

/// Checks of the content that is being sent; the manifest does not have them.
#[derive(Debug, Clone)]
pub(super) struct Present {
    pub(super) file_id: u64,
    /// The length up to which it was checked.
    pub(super) offset: u64,
    /// The bytes before that.
    pub(super) tail: TailChecksum,
}

/// What to send next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    /// A known content, from an offset on; in a known generation if Redis lost its entries.
    Known { file_id: u64, key: usize, start: u64, generation: Option<u64>, until: Option<u64> },
    /// A new content. `is_empty`: it had no bytes yet by which a known content could be recognised.
    New { key: usize, start: u64, is_empty: bool },
}

impl<D: Directory> Producer<D> {
    /// Determines which file holds which content, given that `position` is delivered.
    pub(super) fn scan(
        &mut self,
        manifest: &Manifest,
        position: Option<Position>,
        present: Option<&Present>,
    ) -> Identified {
        let known = self.known(manifest, position, present);
        // Redis recorded its generation, but the reply was lost.
        let mut named = Vec::new();
        for open in self.open.iter_mut().filter(|open| open.file_id == UNNAMED) {
            let mut all = self.others.iter().chain(manifest.iter());
            if let Some(of) = all.find(|known| open.is_of(known, manifest.prints.get(&known.file_id))) {
                open.file_id = of.file_id;
                named.push((of.file_id, open.len));
            }
        }
        named.into_iter().for_each(|(file_id, len)| self.saw(file_id, len));
        let mut open: Vec<(u64, &D::File)> = self.open.iter().map(|open| (open.file_id, &open.file)).collect();
        if let Phase::Streaming(streaming) = &self.phase {
            open.push((streaming.file_id, streaming.reader.file()));
        }
        let identified = self.directory.scan(&known, &open, self.now);
        for notice in &identified.notices {
            self.report(Notice::File(notice.clone()));
        }
        self.manifest.siblings = identified.siblings();
        let longest = |found: &Vec<Found>| found.iter().map(|found| found.len).max().unwrap_or(0);
        self.found = identified.holders.iter().map(|(&file_id, found)| (file_id, longest(found))).collect();
        self.found.extend(identified.blocked.keys().map(|&file_id| (file_id, u64::MAX)));
        for (&file_id, holders) in &identified.holders {
            // These files can be truncated before they are read.
            holders.iter().filter(|found| is_whole(found)).for_each(|found| self.saw(file_id, found.len));
        }
        self.unlisted = identified.unlisted;
        self.has_unseen = !identified.unseen.is_empty();
        self.pending = identified.pending.values().copied().collect();
        self.note_owed(manifest, position, present, &identified);
        for (_, left) in std::mem::take(&mut self.owed) {
            self.report_unreadable(left);
        }
        self.input_state = match &identified.current {
            Current::Found(_) => Ok(()),
            Current::Missing => Err(self.options.missing()),
            Current::Unreadable(why) => {
                let input = &self.options.input;
                Err(format!(
                    "cannot read {input}: {why}; waiting; use a regular file, and allow the service's user to read it"
                ))
            }
        };
        identified
    }

    fn known(&self, manifest: &Manifest, position: Option<Position>, present: Option<&Present>) -> KnownContents {
        let delivered = self.delivered(manifest, position);
        let mut all: BTreeMap<u64, &Generation> = BTreeMap::new();
        all.extend(self.others.contents().chain(manifest.contents()).map(|content| (content.file_id, content)));
        let newest = all.keys().next_back().copied();
        let mut ends: BTreeMap<u64, u64> = BTreeMap::new();
        for generation in manifest.iter() {
            let end = ends.entry(generation.file_id).or_insert(0);
            *end = manifest.end(generation.generation).unwrap_or(0).max(*end);
        }
        let own_newest = ends.keys().next_back().copied();
        let last = manifest.last().map(|last| last.file_id);
        let is_owed = |file_id| Some(file_id) > own_newest || Some(file_id) == last;
        // If no generation was dropped, a content without one was never sent by this partition.
        let has_all = manifest.len() < self.options.limits.generations;
        let is_unsent = |file_id| has_all && !ends.contains_key(&file_id);
        // Another file may have replaced the one in which it was begun.
        let open = match &self.phase {
            Phase::Streaming(streaming) => Some((streaming.file_id, streaming.reader.file())),
            _ => None,
        };
        let content = |(&file_id, generation): (&u64, &&Generation)| {
            let kept = || self.open.iter().rev().find(|open| open.file_id == file_id && open.is_content);
            let open = open.filter(|(of, _)| *of == file_id).map(|(_, file)| file).or_else(|| Some(&kept()?.file));
            let prints = [&manifest.prints, &self.others_prints].into_iter().filter_map(|prints| prints.get(&file_id));
            let fingerprint = prints.max_by_key(|prints| prints.covered()).cloned().unwrap_or_default();
            let covered = fingerprint.covered();
            let head = (covered == 0).then_some((generation.head_len, generation.head_hash));
            let present = present.filter(|present| present.file_id == file_id);
            let frontier = delivered.get(&file_id).copied().unwrap_or(0);
            // Other partitions own all bytes up to the offset that one of them has sent.
            let is_ahead = |tail: &&TailChecksum| {
                tail.end > frontier && self.options.read.partition.within(frontier..tail.end).next().is_none()
            };
            let others = self.others_tails.get(&file_id).filter(is_ahead);
            let frontier = others.map_or(frontier, |tail| tail.end);
            Content {
                file_id,
                fingerprint,
                head,
                inode: Some(Inode { dev: generation.dev, ino: generation.ino }),
                created: generation.created.map(i128::from),
                open: open.map(Neighbour::opened),
                frontier: present.map_or(frontier, |present| present.offset),
                tail: manifest
                    .tail(file_id)
                    .into_iter()
                    .chain(others.into_iter().chain(present.map(|present| &present.tail)))
                    .max_by_key(|tail| tail.end)
                    .cloned(),
                path: generation.real_path.clone().unwrap_or_default(),
                seen_len: match self.seen.get(&file_id).max(ends.get(&file_id)).copied().unwrap_or(0) {
                    // Other partitions have read this much of it, perhaps before this process
                    // started.
                    seen if is_unsent(file_id) => seen.max(covered),
                    seen => seen,
                },
                finished: Some(file_id) != newest,
                is_owed: is_owed(file_id),
            }
        };
        KnownContents {
            contents: all.iter().map(content).collect(),
            began: manifest.began.map(i128::from),
            siblings: self.manifest.siblings.clone(),
            unknown: self
                .open
                .iter()
                .filter(|open| open.file_id == UNNAMED)
                .map(|open| Neighbour::opened(&open.file))
                .collect(),
        }
    }

    /// Whether the file at the input's path is a content of this record, rather than a file with
    /// the same first bytes.
    pub(super) fn is_known_file(&mut self, record: &Manifest) -> bool {
        let position =
            record.guard.as_ref().map(|guard| Position { generation: guard.generation, offset: guard.tail.end });
        let before = std::mem::take(&mut self.manifest.siblings);
        let identified = self.scan(record, position, None);
        self.manifest.siblings = before;
        self.notices.clear();
        self.reported.clear();
        let Some(current) = identified.current.found() else { return false };
        let Ok(Some(inode)) = self.directory.input() else { return false };
        let is_file_of = |file_id: u64| {
            record.iter().any(|known| (known.file_id, known.dev, known.ino) == (file_id, inode.dev, inode.ino))
        };
        // Another file may have the same first lines, but not this many equal bytes.
        let is_moved = position.is_some_and(|position| position.offset >= DISTINCT);
        let is_whole = matches!(current.relation, Relation::Whole(_));
        current.relation.file_id().is_some_and(|file_id| is_file_of(file_id) || is_moved && is_whole)
    }

    /// Whether the stream's last entry has the bytes of the content at its position.
    pub(super) fn verified(&mut self, observed: &Observed, manifest: &Manifest, resume: Resume) -> Resume {
        let Resume::Verify(position, otherwise) = resume else { return resume };
        let file_id = manifest.get(position.generation).map(|generation| generation.file_id);
        let (Some(file_id), Some(span)) = (file_id, observed.last_span()) else { return Resume::Renumber(otherwise) };
        let identified = self.scan(manifest, Some(otherwise), None);
        let holder =
            identified.holders.get(&file_id).and_then(|found| found.iter().find(|found| found.len >= span.end));
        let bytes =
            holder.and_then(|found| self.directory.open(found.key).ok()).map(|file| file.bytes(span.start, span.end));
        match bytes {
            Some(Ok(bytes)) if bytes == observed.last_bytes() => Resume::At(position),
            _ => Resume::Renumber(otherwise),
        }
    }

    /// Finds the file to continue with.
    pub(super) fn locate(&mut self, resume: Resume, now: Duration) -> Result<Step, StepError> {
        let (position, renumber) = match resume {
            Resume::Fresh => return self.locate_first(now),
            Resume::At(position) => (position, false),
            Resume::Renumber(position) | Resume::Verify(_, position) => (self.manifest.joined(position), true),
        };
        let manifest = self.manifest.clone();
        let Some(generation) = manifest.get(position.generation) else { return Err(Changed::RecordLost.into()) };
        let file_id = generation.file_id;
        let end = manifest.end(position.generation);
        let is_complete = manifest.is_void(position.generation) || end.is_some_and(|end| position.offset >= end);
        let identified = self.scan(&manifest, Some(position), None);
        if renumber || !is_complete {
            let holders = identified.holders.get(&file_id).map(Vec::as_slice).unwrap_or_default();
            let has_more = |found: &&Found| {
                let has_own = || self.options.read.partition.within(position.offset..found.len).next().is_some();
                // A service continues in the file when it grows.
                goes_on(found, position.offset) && (!self.options.once || is_whole(found) || has_own())
            };
            if let Some(found) = holders.iter().find(has_more) {
                let number = (!renumber).then_some(position.generation);
                let (start, until) = (position.offset, bound(found, end));
                let target = Target::Known { file_id, key: found.key, start, generation: number, until };
                self.go(target, Some(position), None)?;
                return self.step(now);
            }
        }
        // Another partition's node may be unreachable, and is needed only to choose the next
        // content.
        if self.needs_others() {
            return Ok(Step::Agree);
        }
        let target = self.next_target(&manifest, &identified, position, Some(file_id).filter(|_| is_complete));
        match target {
            Some((target, after)) => {
                if !is_complete && !self.is_made_from(&manifest, &identified, file_id) {
                    self.report_unreadable(position);
                }
                self.go(target, Some(after), None)?;
                self.step(now)
            }
            None if self.options.once && self.is_all_sent(&identified) => {
                self.report_unconfirmed();
                self.phase = Phase::Done;
                Ok(Step::Done)
            }
            None => Ok(self.wait_for_input(now)),
        }
    }

    /// Whether the input is a prefix of what was sent, and no file beside it is still to be sent.
    fn is_all_sent(&self, identified: &Identified) -> bool {
        let is_waited_for = self.pending.iter().any(|pending| *pending != Pending::Copy);
        let current = identified.current.found().map(|current| current.relation);
        matches!(current, Some(Relation::Shorter(_))) && !is_waited_for && identified.blocked.is_empty()
    }

    fn locate_first(&mut self, now: Duration) -> Result<Step, StepError> {
        if self.needs_others() {
            return Ok(Step::Agree);
        }
        let manifest = Manifest::default();
        let identified = self.scan(&manifest, None, None);
        // Other partitions may have begun long ago, so this record lacks earlier contents that they
        // have sent.
        if let Some(target) = self.choose(&manifest, &identified, None, None) {
            if let Target::New { key, is_empty, .. } = target {
                let file = self.open_file(key)?;
                // A file that appears while the reader waits for it is sent from its first byte.
                let start = match self.from.filter(|(inode, _)| *inode == file.inode()) {
                    _ if !self.options.from_end || self.missed => 0,
                    Some((_, start)) => start,
                    None => file.end_of_last_line().map_err(|error| self.trouble("read", &error))?,
                };
                self.from = Some((file.inode(), start));
                self.go(Target::New { key, start, is_empty }, None, None)?;
            } else {
                self.go(target, None, None)?;
            }
            return self.step(now);
        }
        self.missed = true;
        Ok(self.wait_for_input(now))
    }

    /// Whether contents that other partitions know must be asked for before another content is
    /// chosen.
    pub(super) fn needs_others(&self) -> bool {
        !self.options.read.partition.is_whole() && !self.has_agreed
    }

    /// There is nothing to send until the input changes. Meanwhile the producer checks whether
    /// Redis loses data.
    fn wait_for_input(&self, now: Duration) -> Step {
        match self.stopping {
            true => Step::Stopped,
            false if now >= self.next_check => self.check(),
            false => Step::Wait(Wait::Input),
        }
    }

    /// The target after `position`, and the position up to which the source is delivered then: a
    /// generation whose entries Redis lost, or the result of [`choose`](Self::choose). `present` is
    /// the completed content.
    fn next_target(
        &mut self,
        manifest: &Manifest,
        identified: &Identified,
        position: Position,
        present: Option<u64>,
    ) -> Option<(Target, Position)> {
        let mut passed = position;
        while let Some(next) = manifest.successor(passed.generation) {
            let holders = identified.holders.get(&next.file_id).map(Vec::as_slice).unwrap_or_default();
            if let Some(found) = holders.iter().find(|found| goes_on(found, next.start)) {
                let number = Some(next.generation).filter(|number| *number > self.stream.last_id.ms);
                let until = bound(found, manifest.end(next.generation));
                return Some((
                    Target::Known {
                        file_id: next.file_id,
                        key: found.key,
                        start: next.start,
                        generation: number,
                        until,
                    },
                    passed,
                ));
            }
            let end = manifest.end(next.generation);
            if end.is_none_or(|end| end > next.start) {
                self.report_when_confirmed(Notice::Gone { file_id: next.file_id, start: next.start, end });
            }
            passed = next.begin();
        }
        // A file that cannot be found now may be there later: what Redis lost of it is not
        // delivered.
        self.choose(manifest, identified, Some(position), present).map(|target| (target, position))
    }

    /// The next target if no known generation follows: first the rest of an earlier content, then
    /// contents that came and went between two scans, then the file at the input's path.
    fn choose(
        &self,
        manifest: &Manifest,
        identified: &Identified,
        position: Option<Position>,
        present: Option<u64>,
    ) -> Option<Target> {
        if let Some(target) = self.earlier(manifest, identified, position, present) {
            return Some(target);
        }
        if let Some(found) = identified.unseen.first() {
            return Some(unseen(found));
        }
        let current = identified.current.found()?;
        let delivered = self.delivered(manifest, position);
        let key = current.key;
        match current.relation {
            Relation::Whole(file_id) | Relation::Edited(file_id) if Some(file_id) != present => {
                let start = delivered.get(&file_id).copied().unwrap_or_else(|| self.start_of(file_id));
                Some(Target::Known { file_id, key, start, generation: None, until: None })
            }
            Relation::Whole(_) | Relation::Edited(_) | Relation::Shorter(_) => None,
            Relation::Derived { start, .. } => Some(Target::New { key, start, is_empty: false }),
            Relation::New => Some(Target::New { key, start: 0, is_empty: current.len == 0 }),
        }
    }

    /// An earlier content with unsent bytes.
    fn earlier(
        &self,
        manifest: &Manifest,
        identified: &Identified,
        position: Option<Position>,
        present: Option<u64>,
    ) -> Option<Target> {
        let delivered = self.delivered(manifest, position);
        let current = identified.current.found().map(|current| current.key);
        identified.holders.iter().filter(|(file_id, _)| Some(**file_id) != present).find_map(|(&file_id, holders)| {
            let start = delivered.get(&file_id).copied().unwrap_or_else(|| self.start_of(file_id));
            let looked_at = self.nothing_up_to.get(&file_id).copied().unwrap_or(0);
            let found = holders.iter().find(|found| found.len > start.max(looked_at))?;
            let is_ours = self.options.read.partition.within(start..found.len).next().is_some();
            (Some(found.key) != current && is_ours).then_some(Target::Known {
                file_id,
                key: found.key,
                start,
                generation: None,
                until: Some(found.len),
            })
        })
    }

    /// The sent length of each content, given that everything up to `position` is delivered.
    fn delivered(&self, manifest: &Manifest, position: Option<Position>) -> BTreeMap<u64, u64> {
        let mut delivered = position.map_or_else(BTreeMap::new, |position| manifest.delivered(position));
        for (file_id, left) in &self.owed {
            delivered.entry(*file_id).and_modify(|offset| *offset = left.offset.min(*offset));
        }
        delivered
    }

    /// The start of a content that only other partitions have sent.
    fn start_of(&self, file_id: u64) -> u64 {
        self.others.get(file_id).map_or(0, |generation| generation.start)
    }

    /// Continues with late lines of an earlier file, or with a content that could not be sent in
    /// its turn. Returns `false` if there are none.
    pub(super) fn late_target(&mut self, present: &Present, position: Position) -> bool {
        let manifest = self.manifest.clone();
        let identified = self.scan(&manifest, Some(position), Some(present));
        let is_live = identified.current.found().is_some_and(|found| found.relation.file_id() == Some(present.file_id));
        let unseen = identified.unseen.first().filter(|_| is_live).map(unseen);
        let earlier = self.earlier(&manifest, &identified, Some(position), Some(present.file_id));
        let Some(target) = earlier.or(unseen) else { return false };
        let guard = self.guard_of(position, present);
        self.leave(present, position);
        self.go(target, Some(position), Some(guard)).is_ok()
    }

    /// The content to send after the present one. With `only_if_written` an empty file
    /// does not count.
    pub(super) fn find_next(
        &mut self,
        present: &Present,
        position: Position,
        only_if_written: bool,
    ) -> Option<(Target, Position)> {
        let manifest = self.manifest.clone();
        let identified = self.scan(&manifest, Some(position), Some(present));
        let (target, after) = self.next_target(&manifest, &identified, position, Some(present.file_id))?;
        let is_empty = |key: usize, start: u64| {
            let mut found =
                identified.current.found().into_iter().chain(&identified.unseen).filter(|found| found.key == key);
            found.all(|found| found.len <= start)
        };
        match target {
            Target::New { key, start, .. } if only_if_written && is_empty(key, start) => None,
            _ => Some((target, after)),
        }
    }

    /// Continues with the next target. Returns `false` if there is none yet.
    pub(super) fn move_on(
        &mut self,
        present: &Present,
        position: Position,
        only_if_written: bool,
    ) -> Result<bool, StepError> {
        let Some((target, after)) = self.find_next(present, position, only_if_written) else { return Ok(false) };
        let guard = self.guard_of(position, present);
        self.leave(present, position);
        self.go(target, Some(after), Some(guard))?;
        Ok(true)
    }

    /// The present file no longer holds the content: continues in a copy of it, if one has more
    /// bytes.
    pub(super) fn continue_in_copy(&mut self, present: &Present, position: Position) -> Result<bool, StepError> {
        let manifest = self.manifest.clone();
        let identified = self.scan(&manifest, Some(position), Some(present));
        let holders = identified.holders.get(&present.file_id).map(Vec::as_slice).unwrap_or_default();
        let Some(found) = holders.iter().find(|found| found.len > present.offset) else { return Ok(false) };
        let is_current = identified.current.found().is_some_and(|current| current.key == found.key);
        let (file_id, start) = (present.file_id, position.offset);
        let until = bound(found, manifest.end(position.generation));
        let target = Target::Known { file_id, key: found.key, start, generation: Some(position.generation), until };
        self.go(target, Some(position), None)?;
        if !is_current && let Phase::Streaming(streaming) = &self.phase {
            self.notices.push(Notice::Copy { path: streaming.reader.file().path(), file_id });
        }
        Ok(true)
    }

    /// The file at the input's path, if it holds the present content.
    pub(super) fn present_at_input(&mut self, present: &Present, position: Position) -> Option<Found> {
        let manifest = self.manifest.clone();
        let identified = self.scan(&manifest, Some(position), Some(present));
        let current = identified.current.found()?;
        (is_whole(current) && current.relation.file_id() == Some(present.file_id)).then(|| current.clone())
    }

    /// Another file has taken the name of the present one. Continues in it if it holds the same
    /// content.
    pub(super) fn continue_at_input(&mut self, present: &Present, position: Position) -> Result<bool, StepError> {
        let Some(current) = self.present_at_input(present, position) else { return Ok(false) };
        let (file_id, start, generation) = (present.file_id, position.offset, position.generation);
        let until = self.manifest.end(generation);
        let target = Target::Known { file_id, key: current.key, start, generation: Some(generation), until };
        self.go(target, Some(position), None)?;
        Ok(true)
    }

    fn guard_of(&self, position: Position, present: &Present) -> Guard {
        let first = present.offset;
        Guard { generation: position.generation, tail: present.tail.clone(), first, before: None }
    }

    /// Keeps the present file open, because a program may still write to it.
    fn leave(&mut self, present: &Present, position: Position) {
        let left = Position { offset: present.offset, ..position };
        if self.known_end(left).is_some() {
            self.report_unreadable(left);
        }
        if let Phase::Streaming(streaming) = std::mem::replace(&mut self.phase, Phase::Observing) {
            let Streaming { reader, file_id, .. } = *streaming;
            // Another file with this content may have more bytes.
            self.nothing_up_to.insert(file_id, reader.offset());
            self.keep_open(file_id, reader);
        }
    }

    fn open_file(&mut self, key: usize) -> Result<D::File, StepError> {
        let opened = self.directory.open(key);
        opened.map_err(|error| self.trouble("open", &error))
    }

    pub(super) fn trouble(&self, doing: &'static str, error: &io::Error) -> StepError {
        trouble(&self.options.input, doing, error)
    }

    /// Opens a target.
    fn go(&mut self, target: Target, after: Option<Position>, guard: Option<Guard>) -> Result<(), StepError> {
        let (Target::Known { key, start, .. } | Target::New { key, start, .. }) = target;
        let until = if let Target::Known { until, .. } = target { until } else { None };
        let file = self.open_file(key)?;
        let path = file.path();
        let reader = LineReader::open(file, self.options.read, start, until).map_err(|error| StepError::File {
            doing: "read",
            path,
            error,
        })?;
        if let Target::Known { file_id, .. } = target
            && let Some(tail) = self.manifest.tail(file_id)
            && tail.end == start
            && !tail.matches(start, reader.history())
        {
            // Since the check, it was rewritten, or another file took its name.
            return Err(Changed::InputChanged.into());
        }
        self.input_state = Ok(());
        if let Target::Known { file_id, .. } = target
            && let Some(prints) = self.directory.prints(key)
            && self
                .manifest
                .prints
                .get(&file_id)
                .is_none_or(|known| known.covered() < start || known.agreement(&prints).differs.is_some())
        {
            self.manifest.prints.insert(file_id, prints.up_to(start));
        }
        let head = head_of(reader.file(), HEAD_LEN as u64).map_err(|error| self.trouble("read", &error))?;
        match target {
            Target::Known { file_id, generation: Some(generation), .. } => {
                self.owed.remove(&file_id);
                self.tell_reading(&reader, Some(generation));
                let position = Position { generation, offset: start };
                self.phase = Phase::Streaming(Box::new(Streaming::new(reader, file_id, position, head)));
            }
            Target::Known { file_id, .. } => {
                let stage = Stage::NUMBERING;
                let begin = Begin { reader, file_id: Some(file_id), after, guard, until, head, stage };
                self.phase = Phase::Beginning(Box::new(begin));
            }
            Target::New { is_empty, .. } => {
                self.tell_reading(&reader, None);
                let stage = Stage::NoBytes { was_empty: is_empty };
                let begin = Begin { reader, file_id: None, after, guard, until: None, head, stage };
                self.phase = Phase::Beginning(Box::new(begin));
            }
        }
        Ok(())
    }

    fn tell_reading(&mut self, reader: &LineReader<D::File>, generation: Option<u64>) {
        self.report(Notice::Reading { path: reader.file().path(), offset: reader.offset(), generation });
    }

    /// The next step of beginning a generation.
    pub(super) fn begin(&mut self, now: Duration) -> Result<Step, StepError> {
        let is_whole = self.options.read.partition.is_whole();
        let input = self.directory.input();
        let input = input.map_err(|error| self.trouble("open", &error))?;
        let at_once = self.options.from_end && self.manifest.is_empty();
        let Phase::Beginning(begin) = &mut self.phase else { return self.step(now) };
        match &begin.stage {
            &Stage::NoBytes { was_empty } => {
                let start = begin.reader.offset();
                let len = begin.reader.file().len().map_err(|error| self.trouble("read", &error))?;
                if len > start && was_empty && !self.is_new_now() {
                    return self.step(now);
                }
                let Phase::Beginning(begin) = &mut self.phase else { return self.step(now) };
                if len > start || (at_once && len == start) {
                    begin.stage = if is_whole { Stage::NUMBERING } else { Stage::Agreeing };
                    return self.begin(now);
                }
                let is_done = self.stopping
                    || self.options.once && input.is_none_or(|input| input == begin.reader.file().inode());
                if is_done && len == start {
                    self.report_unconfirmed();
                    return Ok(if self.stopping { Step::Stopped } else { Step::Done });
                }
                if len < start || input != Some(begin.reader.file().inode()) {
                    // Nothing of it was ever sent: check the path again.
                    let after = begin.after;
                    self.phase = Phase::Locating(after.map_or(Resume::Fresh, Resume::At));
                }
                Ok(self.wait_for_input(now))
            }
            Stage::Agreeing => Ok(Step::Agree),
            Stage::Naming(None) => self.name(now),
            Stage::Naming(Some(named)) => {
                let after = self.others.last().map_or(0, |last| last.generation);
                Ok(Step::Name { named: named.clone(), after })
            }
            Stage::Numbering { pause: Some(pause), tries } => {
                let (pause, tries) = (*pause, *tries);
                begin.stage = Stage::Numbering { tries, pause: None };
                Ok(Step::Wait(Wait::Pause(pause)))
            }
            Stage::Numbering { .. } => {
                let above = self.stream.last_id.ms.max(self.manifest.last().map_or(0, |last| last.generation));
                match begin.file_id {
                    // The file ID of a content is also the number of its first generation, unless
                    // a larger number is taken.
                    Some(file_id) if file_id > above => {
                        self.record(file_id)?;
                        self.begin(now)
                    }
                    _ => Ok(Step::Clock),
                }
            }
            Stage::Recording(generation, _) => {
                let is_there = has_head_of(begin.reader.file(), generation);
                if !is_there.map_err(|error| trouble(&self.options.input, "read", &error))? {
                    return Err(Changed::InputChanged.into());
                }
                if self.manifest.is_empty() && self.manifest.began.is_none() {
                    // Another reader with this state file may have begun the source, and Redis lost
                    // its record.
                    if self.load(&Manifest::default())?.last().is_some() {
                        return Err(Changed::OtherReader.into());
                    }
                    let Phase::Beginning(begin) = &mut self.phase else { return self.step(now) };
                    // Store now which siblings are older than the source, in case of a crash.
                    self.manifest.began =
                        begin.reader.file().modified().and_then(|modified| i64::try_from(modified).ok());
                    self.store()?;
                }
                // Store now which siblings are older than this content, in case of a crash.
                self.store_siblings()?;
                self.change().map(|change| Step::Record(Box::new(change)))
            }
        }
    }

    /// Checks again whether a file that was empty, and counted as a new content, is one now that it
    /// has bytes. A known content may have been copied to the input, or the file replaced twice. If
    /// it is not new, locates again.
    fn is_new_now(&mut self) -> bool {
        let Phase::Beginning(begin) = &self.phase else { return false };
        let (after, inode) = (begin.after, begin.reader.file().inode());
        let manifest = self.manifest.clone();
        let identified = self.scan(&manifest, after, None);
        let is_current = self.directory.input().is_ok_and(|input| input == Some(inode));
        let relation = identified.current.found().map(|current| current.relation);
        if !is_current || relation == Some(Relation::New) && identified.unseen.is_empty() {
            if let Phase::Beginning(begin) = &mut self.phase
                && let Ok(head) = head_of(begin.reader.file(), HEAD_LEN as u64)
            {
                begin.head = head;
            }
            return true;
        }
        self.phase = Phase::Locating(after.map_or(Resume::Fresh, Resume::At));
        false
    }

    /// The name of the content for all partitions: given by another partition, or new.
    fn name(&mut self, now: Duration) -> Result<Step, StepError> {
        let present = self.manifest.iter().map(|known| known.file_id).max().unwrap_or(0);
        let Phase::Beginning(begin) = &mut self.phase else { return self.step(now) };
        let inode = begin.reader.file().inode();
        let fault = |error: &io::Error| trouble(&self.options.input, "read", error);
        let mut named = None;
        for known in self.others.iter().filter(|known| known.file_id > present) {
            let is_same_file = (known.dev, known.ino) == (inode.dev, inode.ino);
            if is_same_file && has_head_of(begin.reader.file(), known).map_err(|e| fault(&e))? {
                named = Some((known.file_id, known.start));
                break;
            }
        }
        let after = begin.after;
        let named = named.or_else(|| self.named_by_bytes(after, inode));
        let Some((file_id, start)) = named else { return Ok(Step::Clock) };
        let Phase::Beginning(begin) = &mut self.phase else { return self.step(now) };
        if start != begin.reader.offset() {
            let begun = begin.reader.begin_at(start);
            begun.map_err(|error| trouble(&self.options.input, "read", &error))?;
        }
        (begin.file_id, begin.stage) = (Some(file_id), Stage::NUMBERING);
        self.begin(now)
    }

    /// The name that another partition gave to the content of a file. That partition may have read
    /// the content in another file, which was copied, replaced or compressed since.
    fn named_by_bytes(&mut self, after: Option<Position>, inode: Inode) -> Option<(u64, u64)> {
        let is_news = |known: &Generation| !self.begun.contains(&known.file_id);
        let others: Vec<(u64, u64)> =
            self.others.iter().filter(|known| is_news(known)).map(|known| (known.file_id, known.start)).collect();
        if others.is_empty() {
            return None;
        }
        let manifest = self.manifest.clone();
        let identified = self.scan(&manifest, after, None);
        others.into_iter().find(|(file_id, _)| {
            let holders = identified.holders.get(file_id).into_iter().flatten().filter(|found| is_whole(found));
            holders.map(|found| self.directory.open(found.key)).any(|file| file.is_ok_and(|file| file.inode() == inode))
        })
    }

    /// Answers [`Step::Clock`]: milliseconds since the epoch, as Redis has them.
    ///
    /// # Errors
    /// When the IDs of the stream are exhausted, or the file cannot be read.
    pub fn clock(&mut self, now_ms: u64) -> Result<(), StepError> {
        let Phase::Beginning(begin) = &self.phase else { return Ok(()) };
        let naming = matches!(begin.stage, Stage::Naming(_));
        let number = match naming {
            true => self.others.next_number(now_ms, StreamId::ZERO),
            false => self.manifest.next_number(now_ms, self.stream.last_id),
        };
        let Some(number) = number else {
            return Err(StepError::Blocked(format!(
                "cannot add to stream {}: its last ID {} leaves no larger one, so Redis takes no more entries; nothing is lost; \
                 read what the stream holds, then delete it, and the reader sends the rest",
                self.options.stream, self.stream.last_id
            )));
        };
        if naming {
            let mut named = self.describe(number, number)?;
            (named.previous_end, named.previous_guard, named.resumes) = (None, None, None);
            if let Phase::Beginning(begin) = &mut self.phase {
                begin.stage = Stage::Naming(Some(Box::new(named)));
            }
            return Ok(());
        }
        if let Phase::Beginning(begin) = &mut self.phase
            && let Stage::Numbering { tries, pause } = &mut begin.stage
            && number >= now_ms
            && *tries < TRIES
        {
            // An entry of another program cannot take a number in the past.
            *tries += 1;
            *pause = Some(Duration::from_millis((number - now_ms).saturating_add(1).min(20)));
            return Ok(());
        }
        self.record(number)
    }

    /// Prepares the generation with this number for the source record.
    fn record(&mut self, number: u64) -> Result<(), StepError> {
        let file_id = match &self.phase {
            Phase::Beginning(begin) => begin.file_id.unwrap_or(number),
            _ => return Ok(()),
        };
        let generation = self.describe(number, file_id)?;
        let mut prints = self.manifest.prints.get(&file_id).cloned().unwrap_or_default();
        if let Phase::Beginning(begin) = &mut self.phase {
            let file = begin.reader.file();
            extend(&mut prints, file, generation.head_len).map_err(|error| trouble(&file.path(), "read", &error))?;
            begin.stage = Stage::Recording(Box::new(generation), prints);
        }
        Ok(())
    }

    /// The generation that begins in this file.
    fn describe(&self, number: u64, file_id: u64) -> Result<Generation, StepError> {
        let Phase::Beginning(begin) = &self.phase else { return Err(Changed::InputChanged.into()) };
        let file = begin.reader.file();
        let head = |len: u64| head_of(file, len).map_err(|error| trouble(&self.options.input, "read", &error));
        // The file can be truncated and rewritten at any time.
        if head(begin.head.0)? != begin.head {
            return Err(Changed::InputChanged.into());
        }
        let (head_len, head_hash) = head(HEAD_LEN as u64)?;
        let inode = file.inode();
        let last = self.manifest.last().map(|last| last.generation);
        let before = || self.manifest.guard.as_ref().filter(|guard| Some(guard.generation) == last);
        let follows = begin.after.is_none_or(|after| Some(after.generation) == last);
        Ok(Generation {
            generation: number,
            file_id,
            start: begin.reader.frontier(),
            previous_end: begin.after.filter(|_| follows).map(|after| after.offset),
            previous_guard: begin.guard.as_ref().or_else(before).cloned().filter(|_| follows),
            resumes: begin.after.filter(|_| !follows),
            path: self.options.input.clone(),
            dev: inode.dev,
            ino: inode.ino,
            created: file.created().and_then(|created| i64::try_from(created).ok()),
            real_path: file.real_path().filter(|path| *path != self.options.input),
            head_len,
            head_hash,
        })
    }

    /// The source record with the generation that is to be begun.
    fn change(&self) -> Result<Change, StepError> {
        let mut after = self.manifest.clone();
        let Phase::Beginning(begin) = &self.phase else { return Err(Changed::InputChanged.into()) };
        let Stage::Recording(generation, prints) = &begin.stage else { return Err(Changed::InputChanged.into()) };
        after.insert((**generation).clone());
        after.prints.insert(generation.file_id, prints.clone());
        let limits = &self.options.limits;
        if after.len() > limits.generations {
            let oldest = self.stream.oldest.unwrap_or(self.stream.last_id.ms).min(self.stream.last_id.ms);
            let is_kept =
                |file_id: u64| file_id == generation.file_id || self.open.iter().any(|open| open.file_id == file_id);
            let dropped = after.droppable(limits.generations, oldest, |file_id| {
                !is_kept(file_id) && !self.found.contains_key(&file_id)
            });
            after.drop_all(&dropped);
        }
        if after.len() > limits.most_generations {
            return Err(StepError::Blocked(format!(
                "stream {}: entries of {} generations wait to be read, because other programs add entries between them; \
                 waiting for a writer; give the other programs a stream of their own",
                self.options.stream,
                after.len()
            )));
        }
        Ok(Change { before: self.manifest.clone(), guard: self.expected.guard.clone(), after })
    }

    /// The generation is in the source record.
    pub(super) fn begun(&mut self, begin: Begin<D::File>, after: Manifest) -> Result<(), StepError> {
        let Stage::Recording(generation, _) = begin.stage else { return Ok(()) };
        self.report_unconfirmed();
        let (number, file_id, start) = (generation.generation, generation.file_id, generation.start);
        self.owed.remove(&file_id);
        self.begun.insert(file_id);
        self.stored = Some((file_id, after.prints.get(&file_id).map_or(0, Fingerprint::covered)));
        let before = after.before(number).map_or(0, |before| before.generation);
        self.expected.link = Some(next_field(before));
        let siblings = std::mem::take(&mut self.manifest.siblings);
        self.manifest = after;
        self.manifest.siblings = siblings;
        self.whole_at.get_or_insert(Position { generation: number, offset: start });
        self.notices.push(Notice::Begun { path: begin.reader.file().path(), generation: number, file_id, start });
        let (position, head) =
            (Position { generation: number, offset: start }, (generation.head_len, generation.head_hash));
        let mut streaming = Streaming::new(begin.reader, file_id, position, head);
        streaming.late = begin.until.is_some();
        self.phase = Phase::Streaming(Box::new(streaming));
        self.store()
    }

    /// Whether the input was made from this content, so that sending continues after its sent
    /// bytes.
    fn is_made_from(&self, manifest: &Manifest, identified: &Identified, file_id: u64) -> bool {
        match identified.current.found().map(|current| current.relation) {
            Some(Relation::Derived { from, .. }) => from == file_id,
            // Another partition found this, and named the content.
            Some(Relation::Whole(of) | Relation::Edited(of) | Relation::Shorter(of)) => {
                let is_begun = manifest.iter().any(|known| known.file_id == of);
                !is_begun && of > file_id && self.start_of(of) > 0
            }
            Some(Relation::New) | None => false,
        }
    }

    /// The known length of the content of a position: a scan saw these bytes in a file, or they
    /// were sent.
    fn known_end(&self, position: Position) -> Option<u64> {
        let file_id = self.manifest.get(position.generation)?.file_id;
        self.seen.get(&file_id).copied().max(self.manifest.end(position.generation))
    }

    /// Leaves a content at this position. Known bytes after it are reported if no file has them any
    /// more; otherwise they are sent later.
    fn report_unreadable(&mut self, position: Position) {
        let Some(file_id) = self.manifest.get(position.generation).map(|generation| generation.file_id) else { return };
        let (looked_at, found) = (self.nothing_up_to.get(&file_id), self.found.get(&file_id));
        let Some(from) = unreadable_from(position.offset, looked_at, found).filter(|_| !self.unlisted) else {
            self.owed.insert(file_id, position);
            return;
        };
        match self.known_end(position) {
            Some(end) => self.note_unreadable(file_id, from..end.max(from)),
            None => {
                let (start, end, bytes) = (position.offset, None, None);
                self.report_when_confirmed(Notice::Unreadable { file_id, start, end, bytes });
            }
        }
    }

    /// Reports bytes of a content that no file has any more, except those already reported.
    fn note_unreadable(&mut self, file_id: u64, span: Span) {
        let reported = self.unreadable.get(&file_id).cloned().unwrap_or_default();
        for Span { start, end } in reported.missing(span.start..span.end.max(span.start)) {
            let parts = self.options.read.partition.within(start..end);
            let bytes = parts.map(|part| part.end.saturating_sub(part.start)).sum::<u64>();
            // Its known length may have grown since the last note.
            self.unconfirmed.retain(|known| {
                !matches!(known, Notice::Unreadable { file_id: of, start: at, .. } if (*of, *at) == (file_id, start))
            });
            if bytes > 0 {
                self.report_when_confirmed(Notice::Unreadable { file_id, start, end: Some(end), bytes: Some(bytes) });
            }
        }
    }

    /// Notes earlier contents with undelivered bytes. Another reader may have left them early, and
    /// another partition of this process may have seen more bytes of them.
    fn note_owed(
        &mut self,
        manifest: &Manifest,
        position: Option<Position>,
        present: Option<&Present>,
        identified: &Identified,
    ) {
        let Some(position) = position else { return };
        let here = manifest.get(position.generation).map(|generation| generation.file_id);
        let here = present.map(|present| present.file_id).or(here);
        for (file_id, offset) in manifest.delivered(position) {
            if Some(file_id) == here
                || self.is_made_from(manifest, identified, file_id)
                || self.seen.get(&file_id).is_none_or(|seen| *seen <= offset)
            {
                continue;
            }
            let newest = manifest.iter().rev().find(|generation| generation.file_id == file_id);
            if let Some(generation) = newest {
                let left = Position { generation: generation.generation, offset };
                self.owed.entry(file_id).or_insert(left);
            }
        }
        // Contents that another partition has sent, and whose file was deleted before this
        // partition reached them.
        let passed =
            self.others.iter().filter(|known| Some(known.file_id) < here && !self.begun.contains(&known.file_id));
        let gone: Vec<(u64, Span)> = passed
            .filter(|known| !self.unlisted && self.found.get(&known.file_id).is_none_or(|found| *found <= known.start))
            .filter_map(|known| Some((known.file_id, known.start..*self.seen.get(&known.file_id)?)))
            .collect();
        for (file_id, span) in gone {
            self.note_unreadable(file_id, span);
        }
    }
}

/// Whether a file has all known bytes of its content, and perhaps more.
const fn is_whole(found: &Found) -> bool {
    matches!(found.relation, Relation::Whole(_) | Relation::Edited(_))
}

/// The target for a content that came and went between two scans. Bytes that it shares with the
/// known content from which it was made are not sent again.
const fn unseen(found: &Found) -> Target {
    let start = if let Relation::Derived { start, .. } = found.relation { start } else { 0 };
    Target::New { key: found.key, start, is_empty: false }
}

/// Whether this file can supply a content from this offset on. A file that was cut still has the
/// bytes to send again.
const fn goes_on(found: &Found, offset: u64) -> bool {
    found.len > offset || is_whole(found) && found.len == offset
}

/// The offset up to which a file supplies a content. In a file that was cut, later bytes may belong
/// to another content.
fn bound(found: &Found, end: Option<u64>) -> Option<u64> {
    if is_whole(found) { end } else { Some(end.map_or(found.len, |end| end.min(found.len))) }
}

/// The offset from which no file has the bytes of a content that was delivered up to `offset`, and
/// whose files were checked up to `looked_at`. `None` if a file has more.
fn unreadable_from(offset: u64, looked_at: Option<&u64>, found: Option<&u64>) -> Option<u64> {
    // A partition's last entry may end far before the checked bytes: the rest belongs to other
    // partitions.
    let from = looked_at.map_or(offset, |looked_at| offset.max(*looked_at));
    found.is_none_or(|found| *found <= from).then_some(from)
}

/// Length and hash of a file's first bytes, at most `len`.
pub(super) fn head_of(file: &impl SourceFile, len: u64) -> io::Result<(u64, u64)> {
    let head = file.bytes(0, len.min(HEAD_LEN as u64))?;
    Ok((head.len() as u64, hash(&head)))
}

/// Whether a file begins with the bytes that a generation was begun with.
fn has_head_of(file: &impl SourceFile, generation: &Generation) -> io::Result<bool> {
    Ok(head_of(file, generation.head_len)? == (generation.head_len, generation.head_hash))
}

/// A file cannot be used.
pub(super) fn trouble(path: &str, doing: &'static str, error: &io::Error) -> StepError {
    let error = match error.raw_os_error() {
        Some(code) => io::Error::from_raw_os_error(code),
        None => io::Error::new(error.kind(), error.to_string()),
    };
    StepError::File { doing, path: path.to_owned(), error }
}

#[cfg(test)]
mod tests {
    use super::unreadable_from;

    #[test]
    fn what_is_behind_a_file_that_was_read_to_its_end_is_unreadable() {
        assert_eq!(unreadable_from(385, None, None), Some(385), "no file is left");
        assert_eq!(unreadable_from(385, None, Some(&453)), None, "it is to be read");
        assert_eq!(unreadable_from(385, Some(&453), Some(&453)), Some(453), "it was read, and has nothing");
        assert_eq!(unreadable_from(385, Some(&453), Some(&478)), None, "another copy has more");
        assert_eq!(unreadable_from(453, Some(&385), Some(&453)), Some(453));
    }
}
