use std::fmt;

use crate::command::writer::IdHead;
use crate::protocol::cast::wide;
use crate::protocol::number::{self, Digits};
use crate::{Command, CommandWriter, Error, Frame, FromReply, StreamId};

/// `XADD`s to one stream whose entries have one field of the same name, and whose IDs begin alike.
///
/// What they have in common is encoded once. To encode one of them is then little more than to copy
/// its value, where [`XAdd`](super::XAdd) needs several times as many instructions. Redis 5.0; 6.2
/// with [`no_create`](Self::no_create).
///
/// ```
/// use bytes::BytesMut;
/// use resp::RespCodec;
/// use resp::streams::XAddSeries;
/// use tokio_util::codec::Encoder;
///
/// let mut play = XAddSeries::new("play", 7, "line");
/// let mut out = BytesMut::new();
/// RespCodec::default().encode(&play.entry(18, b"to be or not to be"), &mut out)?;
/// assert_eq!(out, "*5\r\n$4\r\nXADD\r\n$4\r\nplay\r\n$4\r\n7-18\r\n$4\r\nline\r\n$18\r\nto be or not to be\r\n");
/// # Ok::<(), resp::Error>(())
/// ```
pub struct XAddSeries {
    /// How many arguments each has.
    args: usize,
    /// The command up to its ID.
    command: Vec<u8>,
    /// The command up to the second half of its ID, of one length.
    head: Vec<u8>,
    digits: usize,
    ms: u64,
    /// From there to the length of the value.
    field: Vec<u8>,
    key: Vec<u8>,
}

impl XAddSeries {
    /// Entries of this stream with IDs that begin with `ms`, and with this field.
    pub fn new(key: &(impl AsRef<[u8]> + ?Sized), ms: u64, field: &(impl AsRef<[u8]> + ?Sized)) -> Self {
        Self::make(key.as_ref(), ms, field.as_ref(), true)
    }

    /// `NOMKSTREAM`: each does nothing when there is no stream, and its reply is `None` then.
    pub fn no_create(key: &(impl AsRef<[u8]> + ?Sized), ms: u64, field: &(impl AsRef<[u8]> + ?Sized)) -> Self {
        Self::make(key.as_ref(), ms, field.as_ref(), false)
    }

    fn make(key: &[u8], ms: u64, field: &[u8], create: bool) -> Self {
        let args = if create { 5 } else { 6 };
        let mut command = format!("*{args}\r\n$4\r\nXADD\r\n${}\r\n", key.len()).into_bytes();
        command.extend_from_slice(key);
        command.extend_from_slice(if create { b"\r\n" } else { b"\r\n$10\r\nNOMKSTREAM\r\n" });
        let mut middle = format!("\r\n${}\r\n", field.len()).into_bytes();
        middle.extend_from_slice(field);
        middle.extend_from_slice(b"\r\n$");
        Self { args, command, head: Vec::new(), digits: 0, ms, field: middle, key: key.to_vec() }
    }

    /// The entry whose ID ends with `seq`.
    #[inline]
    pub fn entry<'a>(&'a mut self, seq: u64, value: &'a [u8]) -> XAddNext<'a> {
        let digits = number::digits(seq);
        if self.digits != digits {
            self.digits = digits;
            self.head.clone_from(&self.command);
            self.head.extend_from_slice(IdHead::new(self.ms, digits).text.as_bytes());
        }
        XAddNext { series: self, seq, value }
    }
}

impl fmt::Debug for XAddSeries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("XAddSeries").field("ms", &self.ms).finish_non_exhaustive()
    }
}

/// One `XADD` of an [`XAddSeries`]. The reply is the entry's ID; `None` when there is no stream.
#[derive(Clone, Copy, Debug)]
pub struct XAddNext<'a> {
    series: &'a XAddSeries,
    seq: u64,
    value: &'a [u8],
}

impl Command for XAddNext<'_> {
    type Reply = Option<StreamId>;

    fn name(&self) -> &str {
        "XADD"
    }

    fn key(&self) -> Option<&[u8]> {
        Some(&self.series.key)
    }

    #[inline]
    fn encode(&self, out: &mut CommandWriter<'_>) {
        let XAddSeries { args, head, field, .. } = self.series;
        let (seq, len) = (Digits::new(self.seq), Digits::new(wide(self.value.len())).with_crlf());
        out.pieces(*args, [head, seq.as_bytes(), field, len.as_bytes(), self.value, b"\r\n"]);
    }

    fn decode(frame: Frame) -> Result<Self::Reply, Error> {
        FromReply::from_frame(frame)
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::*;
    use crate::command;
    use crate::streams::XAdd;

    #[test]
    fn each_is_encoded_as_an_xadd() {
        for (key, field, ms) in [("line_stream", "line", 1_700_000_000_000), ("", "", 0), ("s", "lines", u64::MAX)] {
            let mut series = [XAddSeries::new(key, ms, field), XAddSeries::no_create(key, ms, field)];
            for seq in [1, 9, 10, 87, 99_999_999, 100_000_000, 5, u64::MAX] {
                let value = vec![b'\r'; (seq % 1000) as usize];
                let mut encoded = [BytesMut::new(), BytesMut::new()];
                let fields = [(field, &value)];
                let add = XAdd::new(key, StreamId::new(ms, seq), &fields);
                command::encode(&add, &mut encoded[0]);
                command::encode(&add.no_create(), &mut encoded[1]);
                for (series, expected) in series.iter_mut().zip(encoded) {
                    let mut out = BytesMut::from("before");
                    command::encode(&series.entry(seq, &value), &mut out);
                    assert_eq!(out.split_off("before".len()), expected);
                }
            }
        }
    }
}
