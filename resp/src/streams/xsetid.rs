//! `XSETID`.

use super::decode;
use crate::{Command, CommandWriter, Error, Frame, StreamId};

/// `XSETID`: sets a stream's last ID. Redis 5.0.
///
/// ```no_run
/// # async fn example(connection: &mut resp::Connection) -> Result<(), resp::Error> {
/// use resp::StreamId;
/// use resp::streams::XSetId;
///
/// connection.send(XSetId::new("events", StreamId::new(7, 0))).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct XSetId<'a> {
    key: &'a [u8],
    last: StreamId,
    entries_added: Option<u64>,
    max_deleted: Option<StreamId>,
}

impl<'a> XSetId<'a> {
    /// Sets the last ID of a stream, which must exist.
    pub fn new(key: &'a (impl AsRef<[u8]> + ?Sized), last: StreamId) -> Self {
        Self { key: key.as_ref(), last, entries_added: None, max_deleted: None }
    }

    /// Also sets how many entries were ever added, and the largest deleted ID. Redis 7.0.
    #[must_use]
    pub const fn counters(mut self, entries_added: u64, max_deleted: StreamId) -> Self {
        self.entries_added = Some(entries_added);
        self.max_deleted = Some(max_deleted);
        self
    }
}

impl Command for XSetId<'_> {
    type Reply = ();

    fn name(&self) -> &str {
        "XSETID"
    }

    fn key(&self) -> Option<&[u8]> {
        Some(self.key)
    }

    fn encode(&self, out: &mut CommandWriter<'_>) {
        out.command("XSETID", if self.entries_added.is_some() { 6 } else { 2 });
        out.arg(self.key);
        out.arg_id(self.last);
        if let (Some(entries_added), Some(max_deleted)) = (self.entries_added, self.max_deleted) {
            out.arg("ENTRIESADDED");
            out.arg_int(entries_added);
            out.arg("MAXDELETEDID");
            out.arg_id(max_deleted);
        }
    }

    fn decode(frame: Frame) -> Result<(), Error> {
        decode::ok(&frame)
    }
}
