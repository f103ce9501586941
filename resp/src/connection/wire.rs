//! Buffered I/O over a transport, in both directions at once. [`Connection`](super::Connection) and
//! the driver of a [`Client`](crate::Client) own one each.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::AsyncWrite;
use tokio::time::Instant;
use tokio_util::io::poll_read_buf;

use super::deadline::Deadline;
use super::demoted::is_redirect;
use super::transport::Transport;
use crate::config::Config;
use crate::protocol::cast::wide;
use crate::redact::Secrets;
use crate::{Decoder, Error, Frame, ProtocolError, Sent, error};

/// The initial capacity for one read.
const MIN_READ: usize = 16 * 1024;
/// The maximum capacity for one read.
const MAX_READ: usize = 1024 * 1024;
/// After this many bytes without a wait, the task yields to other tasks and to its own timers.
const YIELD_AFTER: usize = MAX_READ;
/// How many bytes are read during a flush before they are decoded.
const DECODE_AFTER: usize = MAX_READ;
/// An empty write buffer that is larger than this is freed.
const KEEP_WRITE: usize = 4 * 1024 * 1024;

/// A transport with its write buffer, its read buffer and the decoder of the frame in progress.
///
/// Writing never blocks reading, nor the reverse, so two full sockets cannot deadlock.
pub(crate) struct Wire {
    transport: Transport,
    out: BytesMut,
    input: BytesMut,
    decoder: Decoder,
    /// The capacity for the next read.
    read_size: usize,
    /// Bytes that the transport has taken, and bytes that were queued since the beginning.
    written: u64,
    queued: u64,
    must_flush: bool,
    /// Why writing has failed; there may still be data to read.
    write_error: Option<io::Error>,
    broken: bool,
    /// Bytes read since the last read that had to wait.
    read_since_wait: usize,
    /// How long no byte may move while a reply is awaited.
    stall_timeout: Option<Duration>,
    /// Passwords that no error may repeat.
    secrets: Secrets,
    keeps_redirects: bool,
}

impl Wire {
    pub(super) fn new(transport: Transport, config: &Config) -> Self {
        Self {
            transport,
            out: BytesMut::new(),
            input: BytesMut::new(),
            decoder: Decoder::new(config.limits),
            read_size: MIN_READ,
            written: 0,
            queued: 0,
            must_flush: false,
            write_error: None,
            broken: false,
            read_since_wait: 0,
            stall_timeout: config.stall_timeout,
            secrets: config.secrets(),
            keeps_redirects: false,
        }
    }

    /// Appends to the write buffer.
    #[inline]
    pub(crate) fn queue(&mut self, write: impl FnOnce(&mut BytesMut)) {
        let before = self.out.len();
        write(&mut self.out);
        self.queued = self.queued.saturating_add(wide(self.out.len().saturating_sub(before)));
    }

    /// Moves all bytes of a buffer to the write buffer. The emptied buffer can be used again.
    pub(crate) fn queue_all(&mut self, bytes: &mut BytesMut) {
        self.queued = self.queued.saturating_add(wide(bytes.len()));
        if self.out.is_empty() {
            std::mem::swap(&mut self.out, bytes);
        } else {
            self.out.extend_from_slice(bytes);
        }
        bytes.clear();
    }

    /// Returns how many bytes wait in the write buffer.
    pub(crate) fn buffered(&self) -> usize {
        self.out.len()
    }

    /// Returns how many bytes were queued since the beginning: a mark for [`Self::sent`].
    pub(crate) const fn queued(&self) -> u64 {
        self.queued
    }

    /// Returns whether everything up to a mark may have reached the server.
    pub(crate) const fn sent(&self, mark: u64) -> Sent {
        if self.written < mark { Sent::No } else { Sent::Maybe }
    }

    pub(super) const fn is_broken(&self) -> bool {
        self.broken
    }

    /// Ends I/O in both directions.
    #[cold]
    pub(super) fn close(&mut self) {
        self.broken = true;
        self.out = BytesMut::new();
        self.input = BytesMut::new();
    }

    /// Returns the next frame, if it has arrived.
    #[inline]
    pub(crate) fn next_frame(&mut self) -> Result<Option<Frame>, ProtocolError> {
        if self.input.is_empty() {
            return Ok(None);
        }
        let frame = self.decoder.decode(&mut self.input)?;
        match frame {
            Some(frame) if self.decoder.saw_error() && !(self.keeps_redirects && is_redirect(&frame)) => {
                Ok(Some(error::redact_frame(frame, &self.secrets)))
            }
            frame => Ok(frame),
        }
    }

    /// Sets whether cluster redirects are kept as they are, even if they repeat a password: for an
    /// owner that follows them, and redacts what it shows.
    pub(crate) const fn keep_redirects(&mut self, keep: bool) {
        self.keeps_redirects = keep;
    }

    pub(super) fn recycle(&mut self, frame: Frame) {
        self.decoder.recycle(frame);
    }

    /// Removes up to `max` repetitions of a fixed reply from the read buffer, and returns their
    /// number.
    pub(super) fn skip_repeated(&mut self, reply: &[u8], max: usize) -> usize {
        if !self.decoder.is_idle() {
            return 0;
        }
        let count = self.input.chunks_exact(reply.len()).take(max).take_while(|chunk| *chunk == reply).count();
        self.input.advance(count.saturating_mul(reply.len()));
        count
    }

    /// Waits until bytes arrive. Writes the write buffer meanwhile.
    pub(super) async fn fill(&mut self, deadline: &mut Deadline) -> Result<(), Error> {
        self.until(deadline, Self::poll_fill).await
    }

    /// Waits until everything is written, or enough was read meanwhile to be decoded first. Returns
    /// whether everything is written.
    pub(super) async fn flush(&mut self, deadline: &mut Deadline) -> Result<bool, Error> {
        let decode_at = self.input.len().saturating_add(DECODE_AFTER);
        self.until(deadline, |wire, cx, moved| wire.poll_flush(cx, moved, decode_at)).await?;
        Ok(self.out.is_empty() && !self.must_flush)
    }

    /// Polls until the operation is done, the deadline has passed, or no byte has moved for too
    /// long.
    async fn until(
        &mut self,
        deadline: &mut Deadline,
        mut poll: impl FnMut(&mut Self, &mut Context<'_>, &mut bool) -> Poll<io::Result<()>>,
    ) -> Result<(), Error> {
        if self.broken {
            return Err(Error::closed());
        }
        loop {
            let now = Instant::now();
            let end = deadline.fix(now);
            // A peer that sends without pause keeps the timer from firing, so the deadline is
            // checked here too.
            if let Some((at, limit)) = end
                && at <= now
            {
                if !self.decoder.is_idle() && deadline.extend() {
                    continue;
                }
                self.close();
                return Err(Error::timeout(limit));
            }
            let stall_timeout = self.stall_timeout.filter(|_| !deadline.may_be_silent());
            let stalled = stall_timeout.and_then(|limit| Some((now.checked_add(limit)?, limit)));
            let stalls_first = stalled.is_some_and(|(at, _)| end.is_none_or(|(end, _)| at < end));
            let mut moved = false;
            let step = std::future::poll_fn(|cx| match poll(self, cx, &mut moved) {
                Poll::Ready(done) => Poll::Ready(Some(done)),
                // Reset the timer: a stall counts from the last byte that moved.
                Poll::Pending if moved && stalls_first => Poll::Ready(None),
                Poll::Pending => Poll::Pending,
            });
            let step = match if stalls_first { stalled } else { end } {
                None => step.await,
                Some((at, limit)) => match tokio::time::timeout_at(at, step).await {
                    Ok(step) => step,
                    Err(_) if stalls_first => {
                        self.close();
                        return Err(Error::stalled(limit));
                    }
                    Err(_) => None,
                },
            };
            match step {
                Some(Ok(())) => {
                    if self.should_yield() {
                        tokio::task::yield_now().await;
                    }
                    return Ok(());
                }
                Some(Err(error)) => {
                    self.close();
                    return Err(Error::io(error));
                }
                None => {}
            }
        }
    }

    /// Returns whether so much was read without a wait that the task should yield.
    pub(crate) const fn has_read_enough(&self) -> bool {
        self.read_since_wait >= YIELD_AFTER
    }

    /// Returns whether the task should yield after reading without a wait. Resets the count.
    pub(crate) fn should_yield(&mut self) -> bool {
        let enough = self.has_read_enough();
        if enough {
            self.read_since_wait = 0;
        }
        enough
    }

    /// Writes what can be written, then reads once. Sets `moved` if bytes were written.
    pub(crate) fn poll_fill(&mut self, cx: &mut Context<'_>, moved: &mut bool) -> Poll<io::Result<()>> {
        if self.write_error.is_none()
            && let Poll::Ready(Err(error)) = self.poll_write(cx, moved)
        {
            // The peer may have sent the reason before it closed the connection, so read that
            // first.
            self.write_error = Some(error);
        }
        self.poll_read(cx).map_err(|error| self.write_error.take().unwrap_or(error))
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>, moved: &mut bool, decode_at: usize) -> Poll<io::Result<()>> {
        loop {
            if let Poll::Ready(done) = self.poll_write(cx, moved) {
                return Poll::Ready(done);
            }
            ready!(self.poll_read(cx))?;
            *moved = true;
            if self.input.len() >= decode_at {
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Writes as much as the transport takes. Ready when nothing is left.
    fn poll_write(&mut self, cx: &mut Context<'_>, moved: &mut bool) -> Poll<io::Result<()>> {
        while !self.out.is_empty() {
            let n = ready!(Pin::new(&mut self.transport).poll_write(cx, &self.out))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.out.advance(n);
            self.written = self.written.saturating_add(wide(n));
            self.must_flush = true;
            *moved = true;
            if self.out.is_empty() && self.out.try_reclaim(KEEP_WRITE) {
                self.out = BytesMut::new();
            }
        }
        if self.must_flush {
            ready!(Pin::new(&mut self.transport).poll_flush(cx))?;
            self.must_flush = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Reads once. Costs no system call unless the runtime has noticed that something arrived.
    pub(crate) fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.input.is_empty() && self.input.capacity() > 2 * MAX_READ {
            // Free the memory of a very large reply.
            self.input = BytesMut::new();
        }
        self.make_room();
        let room = self.input.capacity().saturating_sub(self.input.len());
        let Poll::Ready(n) = poll_read_buf(Pin::new(&mut self.transport), cx, &mut self.input)? else {
            self.read_since_wait = 0;
            return Poll::Pending;
        };
        self.read_since_wait = self.read_since_wait.saturating_add(n);
        if n == 0 {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed the connection")));
        }
        // The capacity adapts: it doubles after a full read, and halves after a mostly empty one.
        if n == room {
            self.read_size = self.read_size.saturating_mul(2).min(MAX_READ);
        } else if n < self.read_size / 4 {
            self.read_size = (self.read_size / 2).max(MIN_READ);
        }
        Poll::Ready(Ok(()))
    }

    fn make_room(&mut self) {
        let room = self.input.capacity().saturating_sub(self.input.len());
        let missing = self.decoder.needed().saturating_sub(self.input.len());
        if room < missing.clamp(MIN_READ / 4, self.read_size) {
            self.input.reserve(self.read_size);
        }
    }
}
