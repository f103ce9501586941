//! One transaction on the wire.
//!
//! A batch is written in two steps. [`Batch::write`] puts everything but the `EXEC` on the wire:
//!
//! ```text
//! WATCH <source>   HMGET <source> guard next:…   EXISTS <stream>   MULTI   XADD …   HSET <source> …   XLEN <stream>
//! ```
//!
//! The `EXEC` follows when the batch before is confirmed and the source record is what that batch left. So a batch can neither overtake one
//! that failed, nor land behind a hole when Redis lost data in between, nor mix with another reader's.

use crate::cursor::Cursor;
use crate::interrupt::Interrupt;
use delivery::entry::{AFTER, Piece};
use delivery::source::{CONFIRMED_FIELD, GUARD_FIELD, Guard, Position};
use resp::streams::{XAdd, XLen};
use resp::{Connection, ErrorKind, Frame, StreamId, cmd};
use std::io;
use std::time::Instant;

/// How many entries a batch holds at most. Larger ones are no faster, and smaller ones keep memory and latency low.
const ENTRIES: u64 = 4096;
/// How many bytes of the source a batch is filled up to: 512 KiB. A single longer line makes a larger batch.
const BYTES: u64 = 512 << 10;

/// The fields of a source record, from the reply to `HGETALL`.
pub(crate) fn fields(frame: &Frame) -> impl Iterator<Item = (&[u8], &[u8])> {
    frame.value().pairs().filter_map(|(name, value)| Some((name.as_bytes()?, value.as_bytes()?)))
}

/// What is told when the stream is not there any more.
const GONE: &str = "the stream is gone";

/// The keys of a source.
#[derive(Debug, Clone)]
pub(crate) struct Keys {
    /// The stream.
    pub(crate) stream: String,
    /// The source record.
    pub(crate) source: String,
}

/// What the source record and the stream must look like before a batch may land.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Expected {
    /// The bytes of the record's guard field.
    pub(crate) guard: Option<Vec<u8>>,
    /// The record's field that names the present generation; it must be there. `None` while no generation is begun.
    pub(crate) link: Option<String>,
    /// Whether there is a stream.
    pub(crate) stream: bool,
}

impl Expected {
    /// Puts the questions on the wire.
    pub(crate) fn ask(&self, connection: &mut Connection, keys: &Keys) {
        let link = self.link.as_deref().unwrap_or_default();
        connection.queue(&cmd("HMGET").arg(&keys.source).arg(GUARD_FIELD).arg(link));
        connection.queue(&cmd("EXISTS").arg(&keys.stream));
    }

    /// Reads the answers and compares.
    pub(crate) async fn check(&self, connection: &mut Connection) -> Result<(), Interrupt> {
        let fields = connection.receive().await?.into_result()?;
        let exists = connection.receive().await?.into_result()?;
        let mut fields = fields.value().children().map(resp::Value::as_bytes);
        let (guard, link) = (fields.next().flatten(), fields.next().flatten());
        if guard != self.guard.as_deref() || link.is_some() != self.link.is_some() {
            return Err(Interrupt::Changed(match (&self.guard, guard) {
                (Some(_), Some(_)) | (None, Some(_)) => "another reader is at work",
                _ => "Redis lost the source record",
            }));
        }
        // A writer may have created the stream meanwhile; that it is gone means that it lost what it held.
        if self.stream && exists.value().as_u64() != Some(1) {
            return Err(Interrupt::Changed(GONE));
        }
        Ok(())
    }
}

/// A batch that is on the wire.
#[derive(Debug)]
pub(crate) struct Batch {
    /// Commands between `MULTI` and `EXEC`.
    commands: usize,
    /// Entries among them; they come first.
    pub(crate) entries: u64,
    pub(crate) lines: u64,
    pub(crate) bytes: u64,
    /// Where it ends.
    pub(crate) end: Position,
    /// With it, everything of this partition is on its way that begins before this offset.
    pub(crate) read_to: u64,
    /// What must be there before it may land.
    expected: Expected,
    /// The bytes at its end.
    pub(crate) guard: Guard,
    /// What the record's guard field holds after it.
    guard_field: Vec<u8>,
    /// When its `EXEC` was sent.
    pub(crate) executed: Instant,
}

/// What a confirmed batch tells.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Confirmed {
    /// Entries in the stream after it.
    pub(crate) stream_len: u64,
}

impl Batch {
    /// Takes the next pieces and puts them on the wire, all but the `EXEC`. `None`: there is nothing to send.
    ///
    /// `confirmed`: a position of which it is certain that everything before it was added. `room`: how many entries the stream may still take.
    pub(crate) fn write(
        connection: &mut Connection,
        keys: &Keys,
        cursor: &mut Cursor,
        generation: u64,
        confirmed: Position,
        expected: &Expected,
        room: u64,
    ) -> io::Result<Option<Self>> {
        let (mut entries, mut lines, mut bytes, mut first) = (0, 0, 0, 0);
        while entries < ENTRIES.min(room) && bytes < BYTES {
            let (len, behind) = cursor.at_hand()?;
            let Some(piece) = cursor.splitter.next(&cursor.window.bytes()[..len], behind) else {
                if !cursor.read_on()? {
                    break;
                }
                continue;
            };
            if entries == 0 {
                connection.queue(&cmd("WATCH").arg(&keys.source));
                expected.ask(connection, keys);
                connection.queue_multi();
                first = piece.span.end;
            }
            let Piece { field, payload, span } = piece;
            let id = StreamId { ms: generation, seq: span.end };
            let before = cursor.frontier();
            // Nothing is allocated for entries that adjoin: nearly all.
            let after = if span.start == before { String::new() } else { before.to_string() };
            let fields = [(field.name(), payload), (AFTER, after.as_bytes())];
            let add = XAdd::new(keys.stream.as_bytes(), id, &fields[..1 + usize::from(span.start != before)]);
            // A stream that is deleted after it was asked for must not begin anew behind a hole. It costs a twentieth of Redis' time, but whatever is noticed
            // afterwards only, a writer may have seen before.
            connection.queue(&if expected.stream { add.no_create() } else { add });
            entries += 1;
            lines += field.lines(payload);
            bytes += span.end - span.start;
            cursor.take(span);
        }
        if entries == 0 {
            return Ok(None);
        }
        let end = Position { generation, offset: cursor.frontier() };
        let guard = Guard::new(generation, first, end.offset, cursor.before());
        let guard_field = serde_json::to_vec(&guard).map_err(io::Error::other)?;
        connection.queue(
            &cmd("HSET")
                .arg(&keys.source)
                .arg(GUARD_FIELD)
                .arg(&guard_field)
                .arg(CONFIRMED_FIELD)
                .arg(confirmed.id().to_string()),
        );
        connection.queue(&XLen::new(&keys.stream));
        let commands = usize::try_from(entries).map_err(io::Error::other)? + 2;
        let expected = expected.clone();
        let read_to = cursor.window.offset();
        let executed = Instant::now();
        Ok(Some(Self { commands, entries, lines, bytes, end, read_to, expected, guard, guard_field, executed }))
    }

    /// What must be there after this batch.
    pub(crate) fn leaves(&self) -> Expected {
        Expected { guard: Some(self.guard_field.clone()), link: self.expected.link.clone(), stream: true }
    }

    /// Sends the `EXEC`, when everything is as expected.
    pub(crate) async fn execute(&mut self, connection: &mut Connection) -> Result<(), Interrupt> {
        connection.receive().await?.into_result()?;
        self.expected.check(connection).await?;
        connection.queue_exec();
        self.executed = Instant::now();
        Ok(())
    }

    /// Waits for Redis to say what became of it.
    pub(crate) async fn confirm(&self, connection: &mut Connection) -> Result<Confirmed, Interrupt> {
        connection.receive_queued(self.commands).await?;
        let Some(frame) = connection.receive_exec().await? else {
            return Err(Interrupt::Changed("another reader is at work"));
        };
        self.read(&frame)
    }

    fn read(&self, frame: &Frame) -> Result<Confirmed, Interrupt> {
        let mut stream_len = 0;
        for (index, value) in frame.value().children().enumerate() {
            if value.as_error().is_some() {
                let Err(error) = frame.extract(value).into_result() else { continue };
                return Err(match error.kind() {
                    ErrorKind::IdTooSmall => Interrupt::Refused,
                    _ => Interrupt::Redis(error),
                });
            }
            if (index as u64) < self.entries && value.is_null() {
                return Err(Interrupt::Changed(GONE));
            }
            if index + 1 == self.commands {
                stream_len = value.as_u64().unwrap_or(0);
            }
        }
        Ok(Confirmed { stream_len })
    }
}
