//! Streaming: batches, one after the other, and what to do when there is nothing to send.

use super::batch::{Batch, Changed, Entry, Outcome};
use super::locate::{Present, head_of, trouble};
use super::resume::StreamState;
use super::{
    CHECK, Directory, FOLDER, GRACE, LATE, LATEST, LEAVE, Notice, Phase, Producer, SIBLINGS, Step, StepError, Wait,
};
use crate::fingerprint::{Fingerprint, TailChecksum};
use crate::hash;
use crate::line_reader::LineReader;
use crate::manifest::{
    Before, CONFIRMED_FIELD, GUARD_FIELD, Guard, LONG_FIELD, LONGEST_FIELD, Position, SHORT, prints_field,
};
use crate::source_file::SourceFile;
use resp::StreamId;
use std::io;
use std::time::Duration;

/// With payloads above this size, Redis is not asked for the stream's state beside the work: the
/// answer has the first and the last entry in it.
const SHORT_ENTRIES: u64 = 1 << 20;

/// A content that is being sent.
#[derive(Debug)]
pub(super) struct Streaming<F> {
    pub(super) reader: LineReader<F>,
    pub(super) file_id: u64,
    /// The generation, and where its confirmed entries end.
    pub(super) confirmed: Position,
    /// On the wire without its `EXEC`.
    queued: Option<Batch>,
    /// On the wire with it.
    executing: Option<Batch>,
    /// Whether there was nothing to send when it was last looked.
    is_drained: bool,
    /// Whether nothing was sent since the file was opened.
    is_fresh: bool,
    /// Length and hash of the first bytes of the content, as it was found in the file.
    head: (u64, u64),
    /// Whether these are late lines of a content that was left.
    pub(super) late: bool,
    /// Since when another file has been at the input's path, and since when this one has not grown.
    replaced: Option<Replaced>,
    /// The content's length at the last check.
    pub(super) len: u64,
    /// When the path was last checked beside the work.
    looked_at: Duration,
    /// Whether nothing more is put on the wire before it was looked around.
    is_paused: bool,
}

#[derive(Debug, Clone, Copy)]
struct Replaced {
    since: Duration,
    quiet_since: Duration,
    /// The content's length then. All of that comes before the next content.
    len: u64,
}

impl<F: SourceFile> Streaming<F> {
    pub(super) fn new(reader: LineReader<F>, file_id: u64, confirmed: Position, head: (u64, u64)) -> Self {
        let len = reader.file().len().unwrap_or(0);
        Self {
            reader,
            file_id,
            confirmed,
            queued: None,
            executing: None,
            is_drained: false,
            is_fresh: true,
            head,
            late: false,
            replaced: None,
            len,
            looked_at: Duration::ZERO,
            is_paused: false,
        }
    }

    /// The state of Redis after the batch that is being executed.
    pub(super) fn leaves(&self) -> Option<super::Expected> {
        self.executing.as_ref().map(Batch::leaves)
    }

    pub(super) fn executing_entries(&self) -> u64 {
        self.executing.as_ref().map_or(0, |batch| batch.entries)
    }

    /// How far the content is read, and how long it was at the last check.
    pub(super) fn progress(&self) -> (u64, u64) {
        (self.reader.offset(), self.len)
    }

    pub(super) fn present_len(&self) -> Option<u64> {
        self.reader.file().len().ok()
    }

    pub(super) fn inode(&self) -> crate::files::Inode {
        self.reader.file().inode()
    }

    pub(super) const fn is_on_wire(&self) -> bool {
        self.queued.is_some() || self.executing.is_some()
    }

    /// Whether the file is still the one at the input's path, and nothing is on the wire.
    pub(super) const fn is_settled(&self) -> bool {
        self.replaced.is_none() && !self.is_on_wire()
    }

    fn present(&self) -> Present {
        let offset = self.reader.offset();
        Present { file_id: self.file_id, offset, tail: TailChecksum::new(offset, self.reader.history()) }
    }
}

impl<D: Directory> Producer<D> {
    fn offset(&self) -> u64 {
        if let Phase::Streaming(streaming) = &self.phase { streaming.reader.offset() } else { 0 }
    }

    fn streaming(&mut self) -> Option<&mut Streaming<D::File>> {
        if let Phase::Streaming(streaming) = &mut self.phase { Some(streaming) } else { None }
    }

    pub(super) fn stream_step(&mut self, now: Duration) -> Result<Step, StepError> {
        let (stopping, next_check, next_late) = (self.stopping, self.next_check, self.next_late);
        let has_earlier = !self.pending.is_empty()
            || self.manifest.iter().any(|known| Some(known.file_id) != self.manifest.last().map(|last| last.file_id));
        let is_aim_reached = self.options.once && self.once_done(self.offset(), u64::MAX) == Some(true);
        let Some(streaming) = self.streaming() else { return self.step(now) };
        let is_due = is_aim_reached
            || now >= next_check
            || has_earlier && now >= next_late
            || now.saturating_sub(streaming.looked_at) >= GRACE;
        // Beside the work, too, but never between two batches that are on the wire.
        streaming.is_paused |= is_due && !streaming.is_fresh;
        if streaming.queued.is_none() && !stopping && !streaming.is_drained && !streaming.is_paused {
            return Ok(Step::Fill);
        }
        if streaming.executing.is_some() {
            return Ok(Step::Confirm);
        }
        if streaming.queued.is_some() {
            if streaming.is_fresh {
                self.still_begins_so()?;
            }
            if let Some(streaming) = self.streaming() {
                streaming.is_fresh = false;
            }
            return Ok(Step::Execute);
        }
        if stopping {
            return Ok(Step::Stopped);
        }
        if now >= next_check {
            return Ok(self.check());
        }
        self.scan_directory(now)
    }

    /// Asks whether Redis still holds what it should.
    pub(super) const fn check(&self) -> Step {
        Step::Check { stream: self.manifest.longest <= SHORT_ENTRIES }
    }

    /// Between the scan of its first bytes and the reading of them, a file can be truncated and
    /// rewritten.
    fn still_begins_so(&self) -> Result<(), StepError> {
        let Phase::Streaming(streaming) = &self.phase else { return Ok(()) };
        match head_of(streaming.reader.file(), streaming.head.0) {
            Ok(head) if head == streaming.head => Ok(()),
            Ok(_) => Err(Changed::InputChanged.into()),
            Err(error) => Err(trouble(&self.options.input, "read", &error)),
        }
    }

    /// Answers [`Step::Fill`]: takes the next pieces and gives each to `add` as an entry. `None`:
    /// there is nothing to send. Otherwise the batch's fields are to be set, too, and its `EXEC` is
    /// to be withheld.
    ///
    /// # Errors
    /// Those of the file.
    pub fn fill(&mut self, mut add: impl FnMut(&Entry<'_>)) -> Result<Option<&Batch>, StepError> {
        let limits = self.options.limits;
        let room = self.room();
        let last_id = self.stream.last_id;
        let expected = self.expected.clone();
        let Phase::Streaming(streaming) = &mut self.phase else { return Ok(None) };
        let ahead = streaming.executing.as_ref();
        let room = room.saturating_sub(ahead.map_or(0, |batch| batch.entries)).min(limits.batch.entries);
        let expected = ahead.map_or(expected, Batch::leaves);
        let from = ahead.map_or(streaming.confirmed, |batch| batch.end);
        let before = ahead.map_or(last_id, |batch| batch.end.id());
        let generation = streaming.confirmed.generation;
        let (mut entries, mut lines, mut bytes, mut first, mut largest) = (0, 0, 0, 0, 0);
        let mut long = None;
        if room > 0 {
            let wanted = |piece: &crate::entry::Piece<'_>, frontier: u64| {
                let end = piece.span.end;
                let id = StreamId { ms: generation, seq: end };
                let after = (piece.span.start != frontier).then_some(frontier);
                let entry = Entry { id, field: piece.field, payload: piece.payload, after, no_create: expected.stream };
                if entries == 0 {
                    first = end;
                }
                add(&entry);
                entries += 1;
                lines += piece.field.lines(piece.payload);
                bytes += end - piece.span.start;
                largest = piece.payload.len().max(largest);
                if piece.payload.len() as u64 > SHORT {
                    long = Some(id);
                }
                entries < room && bytes < limits.batch.bytes
            };
            let taken = streaming.reader.take_pieces(wanted);
            taken.map_err(|error| trouble(&streaming.reader.file().path(), "read", &error))?;
        }
        // What was read was seen, also what is others': they may come too late for it.
        let seen = self.seen.entry(streaming.file_id).or_insert(0);
        *seen = streaming.reader.seen().max(*seen);
        if entries == 0 {
            streaming.is_drained = true;
            return Ok(None);
        }
        let end = Position { generation, offset: streaming.reader.frontier() };
        let since = self.added_since.saturating_add(ahead.map_or(0, |batch| batch.entries)).saturating_add(entries);
        let added = self.stream.added.map(|added| added.saturating_add(since));
        let whole = self.whole_at;
        let before = Some(Before { ms: before.ms, seq: before.seq, offset: from.offset, added, whole });
        let guard = Guard { before, ..Guard::new(generation, first, end.offset, streaming.reader.before()) };
        let confirmed = streaming.confirmed.id().to_string().into_bytes();
        let json = |value: serde_json::Result<Vec<u8>>| value.map_err(|error| StepError::Blocked(error.to_string()));
        let mut fields =
            vec![(GUARD_FIELD.to_owned(), json(serde_json::to_vec(&guard))?), (CONFIRMED_FIELD.to_owned(), confirmed)];
        // What a consumer must know to bound the bytes of a reply by the number of its entries.
        let longest = (largest as u64).next_power_of_two().max(SHORT);
        if longest > self.manifest.longest {
            fields.push((LONGEST_FIELD.to_owned(), longest.to_string().into_bytes()));
        }
        if let Some(long) = long {
            fields.push((LONG_FIELD.to_owned(), long.to_string().into_bytes()));
        }
        let read_to = streaming.reader.offset();
        let prints = self.manifest.prints.entry(streaming.file_id).or_default();
        let covered = prints.covered();
        let grown = extend(prints, streaming.reader.file(), read_to);
        grown.map_err(|error| trouble(&streaming.reader.file().path(), "read", &error))?;
        if prints.covered() != covered {
            fields.push((prints_field(streaming.file_id), json(serde_json::to_vec(prints))?));
        }
        let batch = Batch { entries, lines, bytes, end, read_to, expected, guard, fields, longest };
        Ok(Some(&*streaming.queued.insert(batch)))
    }

    /// Answers [`Step::Execute`]: compares what Redis answered with what the batch expects. The
    /// batch's `EXEC` follows.
    ///
    /// # Errors
    /// What has changed; the `EXEC` must not be sent.
    pub fn may_execute(&mut self, guard: Option<&[u8]>, link: bool, stream: bool) -> Result<(), StepError> {
        let Some(streaming) = self.streaming() else { return Ok(()) };
        let Some(batch) = streaming.queued.take() else { return Ok(()) };
        batch.expected.check(guard, link, stream)?;
        streaming.executing = Some(batch);
        Ok(())
    }

    /// Answers [`Step::Execute`] in the other way: Redis compares what it holds with what the batch
    /// expects, in the same step in which it executes the batch, and [`Outcome::Differs`] tells.
    pub fn executes_if_expected(&mut self) {
        if let Some(streaming) = self.streaming() {
            streaming.executing = streaming.queued.take();
        }
    }

    /// Answers [`Step::Confirm`]. Returns the batch that was added.
    ///
    /// # Errors
    /// Why it was not.
    pub fn confirmed(&mut self, outcome: Outcome) -> Result<Option<Batch>, StepError> {
        let Some(streaming) = self.streaming() else { return Ok(None) };
        let Some(batch) = streaming.executing.take() else { return Ok(None) };
        let len = match outcome {
            Outcome::Added { len } => len,
            Outcome::Differs { guard, link, stream } => {
                batch.expected.check(guard.as_deref(), link, stream)?;
                return Err(Changed::OtherReader.into());
            }
            Outcome::Aborted => return Err(Changed::OtherReader.into()),
            Outcome::NoStream => return Err(Changed::StreamGone.into()),
            Outcome::Refused => {
                self.refused = true;
                return Err(Changed::EntriesLost.into());
            }
        };
        self.refused = false;
        self.report_unconfirmed();
        let Some(streaming) = self.streaming() else { return Ok(None) };
        let begins_at = std::mem::replace(&mut streaming.confirmed, batch.end);
        streaming.is_drained = false;
        let file_id = streaming.file_id;
        if self.whole_at.is_none() && self.stream.added == Some(0) && self.added_since == 0 {
            // The stream began with this batch.
            self.whole_at = Some(begins_at);
        }
        self.expected = batch.leaves();
        self.manifest.guard = Some(batch.guard.clone());
        self.manifest.longest = self.manifest.longest.max(batch.longest);
        if len.is_some() {
            self.len_known_at = Some(self.now);
        }
        // Others only take away from it.
        self.stream.len = len.unwrap_or(self.stream.len.saturating_add(batch.entries));
        self.stream.last_id = batch.end.id();
        self.added_since += batch.entries;
        self.last_sent = Some(batch.end.id());
        // The state file is to know the content when Redis loses everything; so seldom, it costs
        // nothing.
        let covered = self.manifest.prints.get(&file_id).map_or(0, Fingerprint::covered);
        if covered / 2 >= self.stored.filter(|stored| stored.0 == file_id).map_or(0, |stored| stored.1) {
            self.store()?;
            self.stored = Some((file_id, covered));
        }
        Ok(Some(batch))
    }

    /// Answers [`Step::Check`]: what the record holds, whether the stream exists and how many
    /// entries it has, and its state when that was asked for.
    ///
    /// # Errors
    /// What has changed.
    pub fn checked(
        &mut self,
        guard: Option<&[u8]>,
        link: bool,
        stream: Option<u64>,
        state: Option<StreamState>,
        now: Duration,
    ) -> Result<(), StepError> {
        self.next_check = now + CHECK;
        self.expected.check(guard, link, stream.is_some())?;
        if let Some(state) = state {
            let known = self.stream;
            let expected = known.added.map(|added| added.saturating_add(self.added_since));
            // Above our last entry are foreign ones; below it, nobody else adds any.
            let is_another = |(added, expected): (u64, u64)| match state.last_id > known.last_id {
                true => added <= expected,
                false => added != expected,
            };
            if state.last_id < known.last_id || state.added.zip(expected).is_some_and(is_another) {
                // The entries that were added since are above a gap. It begins at the last position
                // up to which the stream was complete, or before that.
                self.in_doubt = self.whole_at.filter(|_| state.last_id >= known.last_id);
                return Err(Changed::EntriesLost.into());
            }
            (self.stream.added, self.stream.oldest, self.added_since) = (state.added, state.oldest, 0);
            if let Phase::Streaming(streaming) = &self.phase {
                self.whole_at = Some(streaming.confirmed);
            }
        }
        self.report_unconfirmed();
        self.stream.len = stream.unwrap_or(0);
        Ok(())
    }

    /// Everything that was taken is confirmed: what now?
    fn scan_directory(&mut self, now: Duration) -> Result<Step, StepError> {
        let (has_room, once, needs_others) = (self.room() > 0, self.options.once, self.needs_others());
        let has_unseen = self.has_unseen;
        let input = self.directory.input();
        let input = input.map_err(|error| self.trouble("open", &error))?;
        let Phase::Streaming(streaming) = &mut self.phase else { return self.step(now) };
        let path = streaming.reader.file().path();
        let fault = |error: &io::Error| trouble(&path, "read", error);
        let was_paused = std::mem::take(&mut streaming.is_paused);
        streaming.looked_at = now;
        let (file_id, confirmed) = (streaming.file_id, streaming.confirmed);
        let len = streaming.reader.file().len().map_err(|e| fault(&e))?;
        // Of a partition's blocks, nothing may have been read yet that would tell.
        if streaming.is_fresh && len < streaming.len {
            self.still_begins_so()?;
        }
        let Phase::Streaming(streaming) = &mut self.phase else { return self.step(now) };
        let (offset, pending) = (streaming.reader.offset(), streaming.reader.pending());
        let is_changed = len < offset + pending || !streaming.reader.unchanged().map_err(|e| fault(&e))?;
        if !is_changed {
            self.saw(file_id, len);
        }
        let Phase::Streaming(streaming) = &mut self.phase else { return self.step(now) };
        if !has_room {
            streaming.is_drained = false;
            self.next_check = now;
            return Ok(Step::Wait(Wait::Room));
        }
        let present = streaming.present();
        let is_at_limit = streaming.reader.is_at_limit();
        if needs_others && (is_at_limit || is_changed) {
            return Ok(Step::Agree);
        }
        if is_at_limit {
            // Of late lines, and of a generation that is sent again, nothing more is to be sent.
            return self.after(&present, confirmed, now);
        }
        if is_changed {
            return self.truncated(&present, confirmed, now);
        }
        let has_grown = len > streaming.len;
        streaming.len = len;
        // Another file was at the path, and may have been renamed since, too.
        let is_replaced = input.map_or(has_unseen, |input| input != streaming.reader.file().inode());
        streaming.replaced = match streaming.replaced.filter(|_| is_replaced) {
            Some(replaced) if has_grown => Some(Replaced { quiet_since: now, ..replaced }),
            None if is_replaced => Some(Replaced { since: now, quiet_since: now, len }),
            replaced => replaced,
        };
        let may_leave = streaming.replaced.is_some_and(|replaced| {
            let is_quiet = now.saturating_sub(replaced.quiet_since) >= GRACE;
            let is_late = now.saturating_sub(replaced.since) >= LEAVE && offset >= replaced.len;
            is_quiet || once || is_late
        });
        self.input_state = match input {
            Some(_) => Ok(()),
            None => Err(self.options.missing()),
        };
        if !is_replaced {
            self.notice_siblings(&present, confirmed, now)?;
        }
        let once_done = self.once_done(offset, len);
        if once_done == Some(true) && needs_others {
            return Ok(Step::Agree);
        }
        if once_done == Some(true) && !self.has_late(&present, confirmed, now) {
            self.report_unconfirmed();
            self.phase = Phase::Done;
            return Ok(Step::Done);
        }
        let Some(streaming) = self.streaming() else { return self.step(now) };
        let is_at_end = len <= offset + pending;
        let is_left_growing = may_leave && was_paused && has_grown;
        if !is_at_end && !is_left_growing {
            streaming.reader.expect_growth();
            streaming.is_drained = false;
            if was_paused && self.has_late(&present, confirmed, now) {
                return self.step(now);
            }
            return Ok(Step::Fill);
        }
        if is_replaced && is_at_end && self.continue_at_input(&present, confirmed)? {
            return self.step(now);
        }
        let Some(streaming) = self.streaming() else { return self.step(now) };
        // At the end of the file, perhaps with an unfinished line at hand.
        if once_done == Some(false) && pending > 0 && is_at_end {
            streaming.reader.flush_rest();
            streaming.is_drained = false;
            return Ok(Step::Fill);
        }
        if may_leave && needs_others {
            return Ok(Step::Agree);
        }
        if may_leave {
            if pending > 0 && self.find_next(&present, confirmed, !once).is_some() {
                let Some(streaming) = self.streaming() else { return self.step(now) };
                streaming.reader.flush_rest();
                streaming.is_drained = false;
                return Ok(Step::Fill);
            }
            if pending == 0 && self.move_on(&present, confirmed, !once)? {
                return self.step(now);
            }
        } else if self.has_late(&present, confirmed, now) {
            return self.step(now);
        }
        Ok(Step::Wait(Wait::Input))
    }

    /// Everything up to the limit is confirmed.
    fn after(&mut self, present: &Present, confirmed: Position, now: Duration) -> Result<Step, StepError> {
        if self.move_on(present, confirmed, false)? {
            return self.step(now);
        }
        let input = self.directory.input().ok().flatten();
        let is_there = self.present_at_input(present, confirmed).is_some();
        if let Some(streaming) = self.streaming().filter(|_| is_there)
            && input == Some(streaming.reader.file().inode())
        {
            // It is the present content again. What is behind the limit may have been read already.
            streaming.reader.lift_limit();
            streaming.late = false;
            streaming.is_drained = false;
        }
        Ok(Step::Wait(Wait::Input))
    }

    /// The file was truncated or rewritten. What was not read may be in a copy.
    fn truncated(&mut self, present: &Present, confirmed: Position, now: Duration) -> Result<Step, StepError> {
        let file_id = present.file_id;
        let is_first = self.truncated != Some(file_id);
        self.truncated = Some(file_id);
        let Phase::Streaming(streaming) = &mut self.phase else { return self.step(now) };
        let (path, len) = (streaming.reader.file().path(), streaming.len);
        if is_first {
            self.notices.push(Notice::Truncated { path, len, sent: present.offset });
        }
        self.saw(file_id, len);
        let Phase::Streaming(streaming) = &mut self.phase else { return self.step(now) };
        if streaming.reader.pending() > 0 {
            // The beginning of a line that was read in time.
            streaming.reader.flush_rest();
            streaming.is_drained = false;
            return Ok(Step::Fill);
        }
        if self.continue_in_copy(present, confirmed)? {
            return self.step(now);
        }
        if self.move_on(present, confirmed, false)? {
            return self.step(now);
        }
        Ok(Step::Wait(Wait::Input))
    }

    /// A sibling that appears while the present file is at the input's path was never the input,
    /// whatever its name. After the next rotation that could not be told any more. One that appears
    /// while no file is there may have been the input for a moment.
    fn notice_siblings(&mut self, present: &Present, confirmed: Position, now: Duration) -> Result<(), StepError> {
        if now < self.next_siblings {
            return Ok(());
        }
        self.next_siblings = now + FOLDER;
        if !self.directory.has_changed() {
            return Ok(());
        }
        self.next_siblings = now + SIBLINGS;
        let manifest = self.manifest.clone();
        self.scan(&manifest, Some(confirmed), Some(present));
        self.store_siblings()
    }

    /// Goes on with late lines of an earlier content, if there are any and it is time to look.
    fn has_late(&mut self, present: &Present, confirmed: Position, now: Duration) -> bool {
        let is_last = self.manifest.last().is_some_and(|last| last.generation == confirmed.generation);
        if now < self.next_late && !self.options.once {
            return false;
        }
        self.close_quiet_files(now);
        if self.needs_others() {
            // Late lines do not hold up the present ones when another partition's node is
            // unreachable.
            self.next_late = now + LATE;
            return false;
        }
        // A folder can be large: it is listed only when there is an earlier content.
        let has_earlier = self.manifest.iter().chain(self.others.iter()).any(|known| known.file_id != present.file_id);
        let is_late = is_last && (has_earlier || !self.pending.is_empty()) && self.late_target(present, confirmed);
        self.late_pause = if is_late { (self.late_pause * 2).min(LATEST) } else { LATE };
        self.next_late = now + self.late_pause;
        is_late
    }

    /// `--once`: whether all that the input held at the start is confirmed, `offset` bytes being
    /// confirmed and the file `len` bytes long. `None`: the service runs on.
    fn once_done(&mut self, offset: u64, len: u64) -> Option<bool> {
        if !self.options.once {
            return None;
        }
        let Phase::Streaming(streaming) = &self.phase else { return Some(false) };
        let here = streaming.reader.file().inode();
        let late = streaming.late;
        Some(match self.aim {
            Some((inode, aim)) if inode == here => offset >= aim.min(len),
            // Another one has taken its place.
            _ => !late && self.directory.input().ok().flatten() == Some(here) && (len == u64::MAX || offset >= len),
        })
    }
}

/// Adds the checkpoints that a content has up to an offset.
pub(super) fn extend(prints: &mut Fingerprint, file: &impl SourceFile, up_to: u64) -> io::Result<()> {
    for span in prints.missing(up_to) {
        let bytes = file.bytes(span.start, span.end)?;
        if bytes.len() as u64 != span.end - span.start {
            break;
        }
        prints.push(hash(&bytes));
    }
    Ok(())
}
