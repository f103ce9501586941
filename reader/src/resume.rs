//! Where to go on, from what Redis and the folder hold. Starting up and recovering are the same.

use crate::args::From;
use crate::batch::{Expected, fields};
use crate::content::Content;
use crate::cursor::Cursor;
use crate::follow::Reader;
use crate::interrupt::Interrupt;
use crate::telemetry;
use delivery::entry::{AFTER, Field};
use delivery::resume::{Plan, Resume, View, carried_by};
use delivery::source::{GUARD_FIELD, Generation, Guard, Lineage, Position, begun_with, next_field};
use log::{error, info, warn};
use metrics::counter;
use resp::streams::{XInfoStream, XRange};
use resp::{Connection, ErrorKind, Frame, StreamId, Transaction, cmd};
use service::Failure;
use service::args::other_partitions;
use std::collections::BTreeMap;
use std::time::Duration;

/// How many generations are kept before the oldest are forgotten.
const GENERATIONS: usize = 64;

/// How a content's generation is to begin, once there are bytes to send.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Begin {
    /// The content's root, when it has one already.
    pub(crate) root: Option<u64>,
    pub(crate) start: u64,
    pub(crate) previous_end: Option<u64>,
    pub(crate) previous_guard: Option<Guard>,
    /// Whether it begins without waiting for the first bytes.
    pub(crate) at_once: bool,
}

/// What comes before the first content.
const NOTHING: Generation = Generation {
    generation: 0,
    root: 0,
    start: 0,
    previous_end: None,
    previous_guard: None,
    path: String::new(),
    dev: 0,
    ino: 0,
    head_len: 0,
    head_hash: 0,
};

/// A content that comes next.
#[derive(Debug)]
pub(crate) struct Next {
    pub(crate) content: Content,
    /// The generation that carries it, when there is one already.
    generation: Option<u64>,
    begin: Begin,
    /// Roots of contents before it that are gone.
    gone: Vec<u64>,
}

impl Reader {
    /// Asks Redis what it holds, and opens the content at the position to go on from. Waits while there is no file.
    pub(crate) async fn resume(&mut self, connection: &mut Connection) -> Result<Cursor, Interrupt> {
        let local = self.load_state()?;
        if local.is_empty() {
            self.agree().await?;
        }
        connection.send(&cmd("WATCH").arg(&self.keys.source)).await?;
        let (last_id, length) = match connection.send(&XInfoStream::new(&self.keys.stream)).await {
            Ok(info) => (info.last_generated_id, Some(info.length)),
            Err(error) if error.kind() == ErrorKind::NoSuchKey => (StreamId::ZERO, None),
            Err(error) => return Err(error.into()),
        };
        let frame = connection.send(&cmd("HGETALL").arg(&self.keys.source)).await?;
        self.refuse_other_number(&frame)?;
        let redis = self.lineage_of(&frame)?;
        let guard = fields(&frame).find(|(name, _)| *name == GUARD_FIELD.as_bytes()).map(|(_, value)| value.to_vec());
        let first_is_ours = match redis.guard {
            _ if std::mem::take(&mut self.refused) => Some(false),
            Some(guard) => {
                let first = StreamId { ms: guard.generation, seq: guard.first };
                let entries = connection.send(&XRange::new(&self.keys.stream, first..=first)).await?;
                entries
                    .first()
                    .and_then(|e| e.fields)
                    .map(|mut f| f.all(|(name, _)| name == AFTER || Field::from_name(name).is_some()))
            }
            None => None,
        };
        self.expected = Expected { guard, link: None, stream: length.is_some() };
        self.stream_len = length.unwrap_or(0);
        self.totals.stream_len(self.stream_len);
        self.last_id = last_id;

        let redis_empty = redis.is_empty();
        let same_source = redis_empty || redis.shares(&local);
        let plan = View { redis, local: local.clone(), last_id, first_is_ours }.plan();
        self.restore(connection, &plan).await?;
        // A guard speaks of a content, not of what Redis holds: one that Redis lost is still true.
        let guard = self.lineage.guard;
        self.lineage = plan.lineage;
        self.lineage.guard = self.lineage.guard.or(guard);
        self.expected.link = self.link();
        if !self.lineage.same_generations(&local) {
            self.store_state()?;
        }
        if let Some(roots) = &self.roots {
            roots.learn(&self.lineage);
        }
        counter!(telemetry::RESUMES).increment(1);
        let resumed = match plan.resume {
            Resume::Fresh => self.first_content().await,
            Resume::At(position) => self.locate(position, false, same_source).await,
            Resume::Renumber(position) => {
                warn!(
                    "stream {}: its last ID {last_id} is none of ours; going on at byte {} in a new generation",
                    self.keys.stream, position.offset
                );
                self.locate(position, true, same_source).await
            }
        };
        resumed.inspect(|cursor| self.tell(cursor))
    }

    /// Learns which contents other partitions know, before one is looked for. Who has begun one of this source can read that without them, so that a
    /// node that is away holds up only who needs it.
    pub(crate) async fn agree(&self) -> Result<(), Interrupt> {
        match &self.roots {
            Some(roots) => roots.agree().await,
            None => Ok(()),
        }
    }

    /// Says what is read; once, however often it is resumed.
    fn tell(&mut self, cursor: &Cursor) {
        let told = Some((cursor.content.path().to_owned(), cursor.generation));
        if self.told != told {
            info!(
                "{}reading {} from byte {} ({})",
                self.name,
                cursor.content.path().display(),
                cursor.window.offset(),
                cursor.generation.map_or_else(|| "not begun".to_owned(), |g| format!("generation {g}")),
            );
            self.told = told;
        }
    }

    /// Writes generations to Redis that it does not know (any more).
    async fn restore(&self, connection: &mut Connection, plan: &Plan) -> Result<(), Interrupt> {
        if let Some(first) = plan.restore.first() {
            warn!(
                "{}Redis lost generation {} of the source and what follows it; sending what is missing again",
                self.name, first.generation
            );
        }
        let mut transaction = Transaction::new();
        for generation in &plan.restore {
            let before = plan.lineage.before(generation.generation).map_or(0, |g| g.generation);
            transaction.add(self.set_next(before, generation)?);
        }
        // Entries that another reader added between the questions look like somebody else's.
        if transaction.is_empty() && matches!(plan.resume, Resume::Renumber(_)) {
            transaction.add(cmd("EXISTS").arg(&self.keys.source));
        }
        if transaction.is_empty() {
            connection.send(&cmd("UNWATCH")).await?;
        } else if connection.exec(&transaction).await?.is_none() {
            return Err(Interrupt::Changed("another reader is at work"));
        }
        Ok(())
    }

    /// The command that names the generation after `before`.
    fn set_next(&self, before: u64, generation: &Generation) -> Result<resp::Cmd, Interrupt> {
        let json = serde_json::to_vec(generation).map_err(|e| Failure::failed(e.to_string()))?;
        Ok(cmd("HSETNX").arg(&self.keys.source).arg(next_field(before)).arg(json))
    }

    /// The field of the source record that names the newest generation.
    fn link(&self) -> Option<String> {
        let last = self.lineage.last()?;
        Some(next_field(self.lineage.before(last.generation).map_or(0, |g| g.generation)))
    }

    fn lineage_of(&self, frame: &Frame) -> Result<Lineage, Interrupt> {
        Lineage::from_fields(fields(frame)).map_err(|error| {
            let key = &self.keys.source;
            Interrupt::Failure(Failure::config(format!(
                "--stream {}: {error}; remove what is not the reader's from the key {key}, or choose another --stream",
                self.keys.stream
            )))
        })
    }

    /// The only partition has no record of its own beside its source record: that one says when there are more.
    fn refuse_other_number(&self, frame: &Frame) -> Result<(), Interrupt> {
        match begun_with(fields(frame)) {
            Ok(Some(begun)) if self.partition.is_whole() && begun != 1 => {
                Err(Interrupt::Failure(Failure::config(other_partitions(&self.keys.stream, 1, begun))))
            }
            // What cannot be read in it is told by whoever reads the rest.
            _ => Ok(()),
        }
    }

    /// The input, of which nothing was ever sent.
    async fn first_content(&mut self) -> Result<Cursor, Interrupt> {
        // Others may have begun long ago: what they have sent of contents before this one is missing here.
        while self.roots.as_ref().is_some_and(|roots| !roots.is_empty()) {
            if let Some(cursor) = self.next_content(&NOTHING, 0, None, None)? {
                if cursor.begin.root.is_none() {
                    self.refuse_other_input(false)?;
                }
                return Ok(cursor);
            }
            self.wait_for_input().await?;
        }
        let there = self.folder.current().map_err(|e| Interrupt::input("read", self.folder.input(), &e))?.is_some();
        self.missed |= !there;
        let content = self.wait_for_input().await?;
        let start = match self.args.from {
            // A file that appears while it is waited for is new from its first byte on.
            From::End if !self.missed => {
                content.end_of_last_line().map_err(|e| Interrupt::input("read", content.path(), &e))?
            }
            _ => 0,
        };
        // What lies behind the end must count from now on, whatever happens before the first of it is sent.
        let at_once = self.args.from == From::End;
        self.open(content, None, Begin { start, at_once, ..Begin::default() }, start)
    }

    /// The content of a position's generation; when it is gone, the one that follows.
    async fn locate(&mut self, at: Position, renumber: bool, same_source: bool) -> Result<Cursor, Interrupt> {
        let Some(generation) = self.lineage.get(at.generation).cloned() else {
            return Err(Interrupt::Changed("the generation is not in the source record"));
        };
        let begin =
            Begin { root: Some(generation.root), start: at.offset, previous_end: Some(at.offset), ..Begin::default() };
        loop {
            let found = self.folder.find(&self.lineage, &generation, at.offset);
            match found.map_err(|e| Interrupt::input("read", self.folder.input(), &e))? {
                Some(content) => {
                    if content.path() != self.folder.input() {
                        self.refuse_other_input(same_source)?;
                    }
                    let number = (!renumber).then_some(generation.generation);
                    return self.open(content, number, begin, at.offset);
                }
                None => self.refuse_other_input(same_source)?,
            }
            self.agree().await?;
            if let Some(cursor) = self.next_content(&generation, at.offset, None, None)? {
                return Ok(cursor);
            }
            self.wait_for_input().await?;
        }
    }

    /// Another file at another path is not the next content of this source.
    fn refuse_other_input(&self, same_source: bool) -> Result<(), Interrupt> {
        let path = self.folder.input().to_string_lossy();
        let lineage = self.all_contents();
        let known = lineage.last().map(|g| g.path.as_str()).unwrap_or_default();
        if same_source || lineage.iter().any(|g| g.path == path) {
            return Ok(());
        }
        Err(Interrupt::Failure(Failure::config(format!(
            "--input {path}: stream {} already carries another file, {known}; allowed: that file, or another --stream",
            self.keys.stream
        ))))
    }

    /// The content that comes after a generation's: a known one, one that was rotated away unseen, or what lies at the input's path. `None`:
    /// there is none yet.
    ///
    /// `finished`: where the present content was finished; `None` when it is gone, and `offset` is how far it was sent. `seen`: the last bytes that were
    /// looked at.
    pub(crate) fn next_content(
        &mut self,
        present: &Generation,
        offset: u64,
        finished: Option<u64>,
        seen: Option<Guard>,
    ) -> Result<Option<Cursor>, Interrupt> {
        if let Some(end) = finished {
            self.finished = Some((present.root, end, seen));
        }
        let Some(next) = self.look_for_next(present, offset, seen)? else { return Ok(None) };
        if present.generation > 0 && next.begin.previous_end.is_none_or(|end| offset < end) {
            self.report_gone(present, offset);
        }
        for root in next.gone {
            error!(
                "the content of generation {root} is gone; what was not sent of it cannot be read any more; restore it"
            );
            counter!(telemetry::UNREADABLE_CONTENTS).increment(1);
        }
        info!("{}{}: going on with the next content", self.name, next.content.path().display());
        self.open(next.content, next.generation, next.begin, next.begin.start).map(Some)
    }

    /// Looks for the content after a generation's, and changes nothing.
    pub(crate) fn look_for_next(
        &self,
        present: &Generation,
        offset: u64,
        seen: Option<Guard>,
    ) -> Result<Option<Next>, Interrupt> {
        let fault = |error: std::io::Error| Interrupt::input("read", self.folder.input(), &error);
        let finished = self.finished.filter(|&(root, ..)| root == present.root);
        let previous_end = finished.map(|(_, end, _)| end).or(self.lineage.seal(present.root).0);
        let root_of = |generation: u64| self.lineage.get(generation).map(|g| g.root);
        let sent = self.lineage.guard.filter(|guard| root_of(guard.generation) == Some(present.root));
        // A partition may have sent little or nothing of what it has seen to the end.
        let seen = seen.or(finished.and_then(|(.., seen)| seen)).or(sent);
        let previous_guard = seen.filter(|guard| finished.is_some() || previous_end == Some(guard.end));
        let begin = Begin { previous_end, previous_guard, ..Begin::default() };

        // Contents that are known come first, in their order.
        let mut lineage = self.all_contents();
        lineage.guard = seen.or(lineage.guard);
        let mut later: BTreeMap<u64, Vec<&Generation>> = BTreeMap::new();
        for generation in lineage.iter().filter(|g| g.root > present.root) {
            later.entry(generation.root).or_default().push(generation);
        }
        let mut gone = Vec::new();
        for (root, generations) in later {
            let Some(first) = generations.first() else { continue };
            let Some(content) = self.folder.find(&lineage, first, first.start).map_err(fault)? else {
                gone.push(root);
                continue;
            };
            let above = present.generation.max(self.last_id.ms);
            // One that only other partitions know is yet to be begun here.
            let ours = generations.iter().map(|g| g.generation).filter(|&number| self.lineage.get(number).is_some());
            let generation = carried_by(ours, above);
            let start = generation.and_then(|n| self.lineage.get(n)).map_or(first.start, |g| g.start);
            return Ok(Some(Next { content, generation, begin: Begin { root: Some(root), start, ..begin }, gone }));
        }
        let unknown = self.folder.unknown_rotated(&lineage, offset).map_err(fault)?.into_iter().next();
        let content = match unknown {
            Some(content) => Some(content),
            None => self.folder.current().map_err(fault)?,
        };
        Ok(content.map(|content| Next { content, generation: None, begin, gone }))
    }

    /// The lineage, with the contents that only other partitions know.
    fn all_contents(&self) -> Lineage {
        self.roots.as_ref().map_or_else(|| self.lineage.clone(), |roots| roots.with_others(&self.lineage))
    }

    fn report_gone(&self, generation: &Generation, offset: u64) {
        let number = generation.generation;
        let seen = self.seen.filter(|&(seen, len)| seen == number && len > offset);
        let bytes =
            seen.map(|(_, len)| self.partition.within(offset..len).map(|part| part.end - part.start).sum::<u64>());
        if bytes == Some(0) {
            return;
        }
        counter!(telemetry::UNREADABLE_CONTENTS).increment(1);
        match seen.zip(bytes) {
            Some(((_, len), bytes)) => {
                counter!(telemetry::UNREADABLE).increment(bytes);
                error!(
                    "{}generation {number}: bytes {offset}..{len} ({bytes} bytes) were in the input and cannot be read any more; \
                     restore them from where they were written",
                    self.name
                );
            }
            _ => error!(
                "{name}generation {number}: its content is gone; sent up to byte {offset}, what may have followed cannot be read any more; \
                 restore it from where it was written",
                name = self.name
            ),
        }
    }

    /// Gives a content its generation: one of its own, or the one that another reader was faster to give it.
    pub(crate) async fn begin(&mut self, connection: &mut Connection, cursor: &mut Cursor) -> Result<(), Interrupt> {
        let fault = |error: std::io::Error| Interrupt::input("read", self.folder.input(), &error);
        let (head_len, head_hash) = cursor.content.head().map_err(fault)?;
        let inode = cursor.content.inode();
        let Begin { root, start, previous_end, previous_guard, .. } = cursor.begin;
        let mut ours = Generation {
            generation: 0,
            root: root.unwrap_or(0),
            start,
            previous_end,
            previous_guard,
            path: self.folder.input().to_string_lossy().into_owned(),
            dev: inode.dev,
            ino: inode.ino,
            head_len,
            head_hash,
        };
        if let (Some(roots), None) = (&self.roots, root) {
            let present = self.lineage.iter().map(|known| known.root).max().unwrap_or(0);
            let named = roots.name(present, &cursor.content, &ours).await?;
            if named.start != start {
                cursor.begin_at(named.start).map_err(fault)?;
            }
            ours = Generation { previous_end, previous_guard, ..named };
        }
        // A content's name is its number, too, where no other number has come above it.
        let above = self.last_id.ms.max(self.lineage.last().map_or(0, |last| last.generation));
        ours.generation = if ours.root > above { ours.root } else { self.next_number(connection).await? };
        if ours.root == 0 {
            ours.root = ours.generation;
        }
        let number = ours.generation;
        let before = self.lineage.last().map_or(0, |g| g.generation);
        // Only when the record is still what was resumed from: another reader may have been faster, Redis may have lost it.
        connection.send(&cmd("WATCH").arg(&self.keys.source)).await?;
        let frame = connection.send(&cmd("HGETALL").arg(&self.keys.source)).await?;
        self.refuse_other_number(&frame)?;
        let known = self.lineage_of(&frame)?.same_generations(&self.lineage);
        if !known || !self.load_state()?.missing_in(&self.lineage).is_empty() {
            return Err(Interrupt::Changed("the source record is another one now"));
        }
        let mut transaction = Transaction::new();
        transaction.add(self.set_next(before, &ours)?);
        if connection.exec(&transaction).await?.is_none() {
            return Err(Interrupt::Changed("another reader began the generation"));
        }
        info!("{}{}: generation {number} begins at byte {}", self.name, cursor.content.path().display(), ours.start);
        counter!(telemetry::GENERATIONS).increment(1);
        self.lineage.insert(ours);
        self.expected.link = self.link();
        cursor.generation = Some(number);
        cursor.fresh = true;
        self.forget(connection).await?;
        self.store_state()
    }

    /// Forgets the oldest generations when there are many: those whose content is gone, and whose entries every group has acknowledged
    /// (they were trimmed).
    async fn forget(&mut self, connection: &mut Connection) -> Result<(), Interrupt> {
        let many = self.lineage.iter().count().saturating_sub(GENERATIONS);
        if many == 0 {
            return Ok(());
        }
        let entries = connection.send(&XRange::new(&self.keys.stream, ..).count(1)).await?;
        let oldest = entries.first().map_or(self.last_id.ms, |entry| entry.id.ms);
        let mut gone = Vec::new();
        for generation in self.lineage.iter().take(many.min(16)) {
            let fault = |error: std::io::Error| Interrupt::input("read", self.folder.input(), &error);
            let acknowledged = generation.generation < oldest;
            if !acknowledged || self.folder.find(&self.lineage, generation, generation.start).map_err(fault)?.is_some()
            {
                break;
            }
            gone.push(generation.generation);
        }
        let frame = connection.send(&cmd("HGETALL").arg(&self.keys.source)).await?;
        for (name, value) in fields(&frame).filter(|(name, _)| name.starts_with(b"next:")) {
            if serde_json::from_slice::<Generation>(value).is_ok_and(|g| gone.contains(&g.generation)) {
                connection.send(&cmd("HDEL").arg(&self.keys.source).arg(name)).await?;
            }
        }
        for generation in gone {
            self.lineage.remove(generation);
        }
        Ok(())
    }

    /// A number for the next generation. When others use the stream, it is worth a few milliseconds to get one of the past, which none of
    /// their entries can get any more.
    async fn next_number(&self, connection: &mut Connection) -> Result<u64, Interrupt> {
        let mut number = 0;
        for _ in 0..5 {
            let frame = connection.send(&cmd("TIME")).await?;
            let mut time = frame.value().children().map(|v| v.as_u64().unwrap_or(0));
            let (seconds, micros) = (time.next().unwrap_or(0), time.next().unwrap_or(0));
            let now = seconds * 1000 + micros / 1000;
            number = self.lineage.next_number(now, self.last_id);
            if number < now {
                break;
            }
            tokio::time::sleep(Duration::from_millis((number - now + 1).min(20))).await;
        }
        Ok(number)
    }

    fn open(
        &mut self,
        content: Content,
        generation: Option<u64>,
        begin: Begin,
        offset: u64,
    ) -> Result<Cursor, Interrupt> {
        self.wake.watch(content.path());
        let framing = self.args.framing.framing();
        let cursor = Cursor::open(content, framing, self.partition, generation, begin, offset)
            .map_err(|error| Interrupt::input("read", self.folder.input(), &error))?;
        self.health.file(Ok(()));
        Ok(cursor)
    }

    fn load_state(&self) -> Result<Lineage, Interrupt> {
        let (lineage, complaint) =
            self.state.load().map_err(|e| Interrupt::input("read the state file", self.state.path(), &e))?;
        if let Some(complaint) = complaint {
            warn!("{}: not readable ({complaint}); Redis's record is used", self.state.path().display());
        }
        Ok(lineage)
    }

    pub(crate) fn store_state(&self) -> Result<(), Interrupt> {
        self.state
            .store(&self.keys.stream, &self.lineage)
            .map_err(|e| Interrupt::input("write the state file", self.state.path(), &e))
    }
}
