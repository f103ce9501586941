//! What is done with one connection: stream what the contents hold, in order.

use crate::batch::Batch;
use crate::content::{Content, Inode};
use crate::cursor::Cursor;
use crate::follow::{Reader, WORK};
use crate::interrupt::Interrupt;
use crate::resume::Next;
use crate::telemetry;
use delivery::split::Behind;
use log::{error, info, warn};
use metrics::{counter, gauge, histogram};
use resp::Connection;
use resp::streams::XLen;
use std::io;
use std::time::{Duration, Instant};

/// How long the stream must have had room before it is told again that it is full.
const FULL_AGAIN: Duration = Duration::from_secs(60);
/// With more than this on its way to the socket, it goes out before the next batch is made: long lines, which would pile up. 4 MiB, far more than
/// a batch of short ones.
const SEND_FIRST: usize = 4 << 20;
/// How often an idle reader looks whether Redis still holds what it believes.
const IDLE_CHECK: Duration = Duration::from_secs(2);

/// What there is to do when everything that was read is confirmed.
enum Idle {
    /// Look again.
    Again,
    /// This content is finished or gone; another one follows.
    Next(Box<Cursor>),
    /// The work is done.
    Done,
}

impl Reader {
    /// Resumes, then streams until there is nothing left to do (`--once`).
    pub(crate) async fn session(&mut self, connection: &mut Connection) -> Result<(), Interrupt> {
        self.server.begin();
        let mut cursor = self.resume(connection).await?;
        // On the wire without its EXEC; on the wire with it.
        let mut queued: Option<Batch> = None;
        let mut executing: Option<Batch> = None;
        let mut confirmed = cursor.position(&self.lineage);
        loop {
            self.health.progress();
            if queued.is_none() && !self.shutdown.is_requested() {
                if cursor.generation.is_none() && executing.is_none() && (cursor.begin.at_once || cursor.has_bytes()?) {
                    self.begin(connection, &mut cursor).await?;
                    confirmed = cursor.position(&self.lineage);
                }
                if let Some(generation) = cursor.generation {
                    if connection.buffered() > SEND_FIRST {
                        connection.flush().await?;
                    }
                    // Ahead of the batch's own questions, outside of any transaction.
                    self.server.ask(connection);
                    let ahead = executing.as_ref().map_or(0, |batch| batch.entries);
                    let room = self.room().saturating_sub(ahead);
                    let leaves = executing.as_ref().map(Batch::leaves);
                    let expected = leaves.as_ref().unwrap_or(&self.expected);
                    queued = Batch::write(connection, &self.keys, &mut cursor, generation, confirmed, expected, room)
                        .map_err(|error| Interrupt::input("read", cursor.content.path(), &error))?;
                }
            }
            if executing.is_none() {
                self.server.hear(connection).await?;
                if let Some(mut batch) = queued.take() {
                    if std::mem::take(&mut cursor.fresh) {
                        self.still_begins_so(&cursor)?;
                    }
                    batch.execute(connection).await?;
                    executing = Some(batch);
                    continue;
                }
                if self.shutdown.is_requested() {
                    return Err(Interrupt::Shutdown);
                }
                match self.idle(connection, &mut cursor).await? {
                    Idle::Again => {}
                    Idle::Next(next) => {
                        let left = std::mem::replace(&mut cursor, *next);
                        let elsewhere = left.content.inode() != cursor.content.inode();
                        self.left = elsewhere.then_some((left.content, left.len));
                        confirmed = cursor.position(&self.lineage);
                    }
                    Idle::Done => return Ok(()),
                }
                continue;
            }
            if let Some(batch) = executing.take() {
                let done = batch.confirm(connection).await?;
                self.confirmed(&batch, done.stream_len, &cursor.content);
                confirmed = batch.end;
                // What was added since the start is for the next run, however fast it comes.
                if self.once_done(&cursor, batch.read_to, u64::MAX) == Some(true) {
                    return Ok(());
                }
            }
        }
    }

    /// Between the look at its first bytes and the reading of them, a content can be truncated and written anew.
    fn still_begins_so(&self, cursor: &Cursor) -> Result<(), Interrupt> {
        let Some(generation) = cursor.generation.and_then(|g| self.lineage.get(g)) else { return Ok(()) };
        match cursor.content.has_head_of(generation) {
            Ok(true) => Ok(()),
            Ok(false) => Err(Interrupt::Changed("the input was written anew")),
            Err(error) => Err(Interrupt::input("read", cursor.content.path(), &error)),
        }
    }

    /// How many entries the stream may still take: its share of the bound, so that no partition that stands still holds up another, or its share of what
    /// all of them together have left.
    fn room(&self) -> u64 {
        let count = u64::from(self.partition.count());
        match self.args.max_backlog {
            0 => u64::MAX,
            bound => {
                let own = (bound / count).max(1).saturating_sub(self.stream_len);
                own.max(self.totals.left_of(bound) / count)
            }
        }
    }

    fn confirmed(&mut self, batch: &Batch, stream_len: u64, content: &Content) {
        self.expected = batch.leaves();
        self.lineage.guard = Some(batch.guard);
        self.stream_len = stream_len;
        self.last_id = batch.end.id();
        self.backoff.reset();
        self.health.redis_works(WORK);
        self.pace.add(&self.keys.stream, batch);
        counter!(telemetry::LINES).increment(batch.lines);
        counter!(telemetry::BYTES).increment(batch.bytes);
        counter!(telemetry::BATCHES).increment(1);
        let took = batch.executed.elapsed();
        histogram!(telemetry::BATCH_SECONDS).record(took);
        self.health.batch(batch.lines, batch.bytes, took);
        self.totals.position(batch.read_to);
        if let Ok(len) = content.len() {
            gauge!(telemetry::INPUT_SIZE).set(len as f64);
        }
        self.totals.stream_len(stream_len);
    }

    /// Everything that was read is confirmed, or the stream is full.
    async fn idle(&mut self, connection: &mut Connection, cursor: &mut Cursor) -> Result<Idle, Interrupt> {
        if self.room() == 0 {
            self.wait_for_room(connection).await?;
            return Ok(Idle::Again);
        }
        let fault = |path: &std::path::Path, error: &io::Error| Interrupt::input("read", path, error);
        let offset = cursor.window.offset();
        let len = cursor.content.len().map_err(|e| fault(cursor.content.path(), &e))?;
        gauge!(telemetry::INPUT_SIZE).set(len as f64);
        self.totals.position(offset);
        if let Some(generation) = cursor.generation {
            self.seen = Some((generation, cursor.len.max(len)));
        }
        let pending = cursor.window.bytes().len() as u64;
        let unchanged = || cursor.window.unchanged(&cursor.content).map_err(|e| fault(cursor.content.path(), &e));
        if len < offset + pending || !unchanged()? {
            return self.truncated(cursor, offset).await;
        }
        if len > cursor.len {
            cursor.replaced = None;
        }
        let grown = len > offset + pending;
        cursor.len = len;
        let at_path = Inode::at(self.folder.input()).map_err(|e| fault(self.folder.input(), &e))?;
        let replaced = at_path.is_some_and(|inode| inode != cursor.content.inode());
        cursor.blocked = cursor.blocked.take().filter(|_| replaced);
        self.health.file(match (at_path, &cursor.blocked) {
            (Some(_), Some(why)) => Err(why.clone()),
            (Some(_), None) => Ok(()),
            (None, _) => Err(format!("{} is gone; following the file that was there", self.folder.input().display())),
        });

        let once = self.once_done(cursor, offset, len);
        if once == Some(true) {
            return Ok(Idle::Done);
        }
        if grown {
            cursor.behind = Behind::More;
            return Ok(Idle::Again);
        }
        // At the end of the file, perhaps with an unfinished line in the window.
        if once == Some(false) && pending > 0 {
            cursor.flush_rest();
            return Ok(Idle::Again);
        }
        if replaced && cursor.quiet_since_replaced(self.args.service.once) {
            let Some(generation) = cursor.generation.and_then(|g| self.lineage.get(g).cloned()) else {
                // Nothing was ever sent of it, since it was empty: look at the path again.
                return Err(Interrupt::Changed("the empty input was replaced"));
            };
            self.agree().await?;
            let next = match self.look_for_next(&generation, cursor.frontier(), cursor.seen()) {
                // A folder at the input's path, or a file without the right to read it: what is read now may still grow.
                Err(Interrupt::Input(why)) => {
                    service::metrics::error("input");
                    cursor.blocked = Some(why);
                    None
                }
                next => {
                    cursor.blocked = None;
                    next?
                }
            };
            // Whoever writes may not have noticed yet, as long as there is nothing in the new one.
            let written = |next: Next| self.args.service.once || next.content.len().is_ok_and(|len| len > 0);
            if next.is_some_and(written) {
                if pending > 0 {
                    cursor.flush_rest();
                    return Ok(Idle::Again);
                }
                let end = cursor.frontier();
                let next = self.next_content(&generation, end, Some(end), cursor.seen())?;
                return Ok(next.map_or(Idle::Again, |next| Idle::Next(Box::new(next))));
            }
            cursor.replaced = None;
        }
        self.wait(connection).await?;
        Ok(Idle::Again)
    }

    /// The file was truncated, perhaps written anew: what it holds now is another content. What was not read may lie in a copy.
    async fn truncated(&mut self, cursor: &mut Cursor, offset: u64) -> Result<Idle, Interrupt> {
        if cursor.generation.is_some() && !cursor.window.bytes().is_empty() {
            // The beginning of a line that was read in time.
            cursor.flush_rest();
            return Ok(Idle::Again);
        }
        if !cursor.truncated {
            cursor.truncated = true;
            let path = cursor.content.path().display();
            warn!("{path}: truncated; it held {} bytes, of which {offset} were sent", cursor.len);
        }
        let Some(generation) = cursor.generation.and_then(|g| self.lineage.get(g).cloned()) else {
            return Err(Interrupt::Changed("the input was truncated before anything was sent of it"));
        };
        let fault = |error: io::Error| Interrupt::input("read", self.folder.input(), &error);
        let end = cursor.frontier();
        let copy = self.folder.find(&self.lineage, &generation, end).map_err(fault)?;
        if let Some(copy) = copy
            && copy.len().map_err(fault)? > offset
        {
            info!("generation {}: going on in {}, a copy of it", generation.generation, copy.path().display());
            return Err(Interrupt::Changed("the input was truncated, a copy of it is left"));
        }
        let finished = (cursor.len <= offset).then_some(end);
        self.agree().await?;
        match self.next_content(&generation, end, finished, cursor.seen())? {
            Some(next) => Ok(Idle::Next(Box::new(next))),
            None => {
                self.wake.wait().await;
                Ok(Idle::Again)
            }
        }
    }

    /// Waits for news of the file; now and then looks whether Redis still holds what it should.
    async fn wait(&mut self, connection: &mut Connection) -> Result<(), Interrupt> {
        tokio::select! {
            () = self.wake.wait() => {}
            () = self.shutdown.requested() => {}
        }
        if self.checked.elapsed() >= IDLE_CHECK {
            self.server.ask(connection);
            self.server.hear(connection).await?;
            self.look_at_left();
            self.expected.ask(connection, &self.keys);
            self.expected.check(connection).await?;
            self.stream_len = connection.send(&XLen::new(&self.keys.stream)).await?;
            self.totals.stream_len(self.stream_len);
            self.health.redis_works(WORK);
            self.checked = Instant::now();
        }
        Ok(())
    }

    /// Somebody may still write to a file after it was quiet, replaced, and left.
    fn look_at_left(&mut self) {
        if let Some((content, left_at)) = &mut self.left
            && let Ok(len) = content.len()
            && len > *left_at
        {
            let more = self.partition.within(*left_at..len).map(|part| part.end - part.start).sum::<u64>();
            if more > 0 {
                let path = content.path().display();
                error!(
                    "{path}: {more} bytes were written to it after it had been replaced and left; they are not sent"
                );
                counter!(telemetry::UNREADABLE).increment(more);
            }
            *left_at = len;
        }
    }

    /// Waits until the stream holds fewer entries than `--max-backlog`.
    async fn wait_for_room(&mut self, connection: &mut Connection) -> Result<(), Interrupt> {
        const LOOK: Duration = Duration::from_millis(100);
        // A stream that hovers at its bound is one state, told once.
        if self.full_since.is_none_or(|told| told.elapsed() >= FULL_AGAIN) {
            warn!(
                "stream {}: {} entries, as many as --max-backlog {} allows{}; waiting for writers to take them; \
                 is a writer running?",
                self.keys.stream,
                self.stream_len,
                self.args.max_backlog,
                if self.partition.is_whole() { "" } else { " for its share" }
            );
        }
        self.totals.waiting(true);
        while self.room() == 0 && !self.shutdown.is_requested() {
            self.full_since = Some(Instant::now());
            self.health.progress();
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                () = self.shutdown.requested() => {}
            }
            self.server.ask(connection);
            self.server.hear(connection).await?;
            self.stream_len = connection.send(&XLen::new(&self.keys.stream)).await?;
            self.health.redis_works(WORK);
            self.totals.stream_len(self.stream_len);
        }
        self.totals.waiting(false);
        Ok(())
    }
}
