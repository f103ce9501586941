//! The encoder. [`Command::encode`](super::Command::encode) writes through it.

use bytes::BytesMut;

use crate::StreamId;
use crate::protocol::cast::wide;
use crate::protocol::number::{self, Backwards, Digits};

/// Encodes one command, directly into the write buffer.
///
/// The writer counts the arguments. The number given to [`command`](Self::command) is a hint that
/// saves a correction of the header; a wrong number is corrected.
///
/// ```
/// use resp::{Command, Error, Frame, CommandWriter};
///
/// struct Touch<'a>(&'a [&'a str]);
///
/// impl Command for Touch<'_> {
///     type Reply = i64;
///
///     fn name(&self) -> &str {
///         "TOUCH"
///     }
///
///     fn encode(&self, out: &mut CommandWriter<'_>) {
///         out.command("TOUCH", self.0.len());
///         for key in self.0 {
///             out.arg(key);
///         }
///     }
///
///     fn decode(frame: Frame) -> Result<i64, Error> {
///         frame.value().as_int().ok_or_else(|| Error::unexpected_reply("an integer", frame.value()))
///     }
/// }
/// ```
#[derive(Debug)]
pub struct CommandWriter<'b> {
    buf: &'b mut BytesMut,
    /// The start of this command in the buffer.
    start: usize,
    /// The end of its header.
    header: usize,
    declared: usize,
    written: usize,
}

impl<'b> CommandWriter<'b> {
    pub(crate) fn new(buf: &'b mut BytesMut) -> Self {
        let start = buf.len();
        Self { buf, start, header: start, declared: 0, written: 0 }
    }

    /// Returns how many arguments were written, including the name.
    pub(crate) const fn written(&self) -> usize {
        self.written
    }

    /// Starts the command with its name, and the number of arguments that follow.
    #[inline]
    pub fn command(&mut self, name: &str, args: usize) {
        if self.written == 0 && self.declared == 0 {
            self.declared = args.saturating_add(1);
            let mut header = Backwards::<24>::new();
            header.crlf();
            header.number(wide(self.declared));
            header.push(b'*');
            self.buf.extend_from_slice(header.as_bytes());
            self.header = self.buf.len();
        }
        self.arg(name);
    }

    /// Reserves capacity for this many bytes.
    #[inline]
    pub fn reserve(&mut self, bytes: usize) {
        self.buf.reserve(bytes);
    }

    /// Adds an argument of any bytes.
    #[inline]
    #[expect(clippy::arithmetic_side_effects, reason = "the argument is in memory, and so shorter than isize::MAX")]
    pub fn arg(&mut self, arg: impl AsRef<[u8]>) {
        let arg = arg.as_ref();
        let mut header = Backwards::<24>::new();
        header.crlf();
        header.number(wide(arg.len()));
        header.push(b'$');
        self.buf.reserve(arg.len() + header.len() + 2);
        self.buf.extend_from_slice(header.as_bytes());
        self.buf.extend_from_slice(arg);
        self.buf.extend_from_slice(b"\r\n");
        self.written += 1;
    }

    /// Adds a number as an argument.
    #[inline]
    pub fn arg_int(&mut self, n: impl Into<i128>) {
        let n: i128 = n.into();
        let Ok(digits) = u64::try_from(n.unsigned_abs()) else { return self.arg(n.to_string()) };
        let mut arg = SmallArg::new();
        arg.crlf();
        arg.number(digits);
        if n < 0 {
            arg.push(b'-');
        }
        self.finish_small(arg);
    }

    /// Adds an entry ID as an argument.
    #[inline]
    pub fn arg_id(&mut self, id: StreamId) {
        let mut arg = SmallArg::new();
        arg.crlf();
        arg.number(id.seq);
        arg.push(b'-');
        arg.number(id.ms);
        self.finish_small(arg);
    }

    /// Adds many IDs. Most have a common prefix and the same length, so the prefix is encoded once.
    #[expect(clippy::arithmetic_side_effects, reason = "the count is of arguments in memory")]
    pub(crate) fn arg_ids(&mut self, ids: impl Iterator<Item = StreamId>) {
        let mut head = IdHead::new(0, 0);
        for id in ids {
            let digits = number::digits(id.seq);
            if head.ms != id.ms || head.digits != digits {
                head = IdHead::new(id.ms, digits);
            }
            self.buf.extend_from_slice(head.text.as_bytes());
            self.buf.extend_from_slice(Digits::new(id.seq).with_crlf().as_bytes());
            self.written += 1;
        }
    }

    /// Adds an entry ID with `(` before it: the exclusive end of a range.
    pub(crate) fn arg_id_exclusive(&mut self, id: StreamId) {
        let mut arg = SmallArg::new();
        arg.crlf();
        arg.number(id.seq);
        arg.push(b'-');
        arg.number(id.ms);
        arg.push(b'(');
        self.finish_small(arg);
    }

    /// Prepends the length to a short argument, and appends both.
    #[inline]
    #[expect(clippy::arithmetic_side_effects, reason = "the argument ends with CR LF")]
    fn finish_small(&mut self, mut arg: SmallArg) {
        let len = arg.len() - 2;
        arg.crlf();
        arg.number(wide(len));
        arg.push(b'$');
        self.buf.extend_from_slice(arg.as_bytes());
        self.written += 1;
    }

    /// Writes a whole command from encoded pieces. `args` counts its arguments, the name included.
    #[inline]
    pub(crate) fn pieces<const N: usize>(&mut self, args: usize, pieces: [&[u8]; N]) {
        self.buf.reserve(pieces.iter().map(|piece| piece.len()).sum());
        for piece in pieces {
            self.buf.extend_from_slice(piece);
        }
        (self.declared, self.written) = (args, args);
    }

    /// Adds arguments that are already encoded.
    pub(crate) fn encoded(&mut self, args: usize, encoded: &[u8]) {
        if self.written == 0 && self.declared == 0 {
            self.declared = args;
            let mut header = Backwards::<24>::new();
            header.crlf();
            header.number(wide(args));
            header.push(b'*');
            self.buf.extend_from_slice(header.as_bytes());
            self.header = self.buf.len();
        }
        self.buf.extend_from_slice(encoded);
        self.written = self.written.saturating_add(args);
    }

    /// Ends the command, and corrects the header if necessary.
    #[inline]
    pub(crate) fn finish(self) {
        if self.written != self.declared || self.written == 0 {
            self.correct();
        }
    }

    #[cold]
    fn correct(mut self) {
        if self.written == 0 {
            // Redis does not answer an empty command; it answers an empty name with an error.
            self.buf.truncate(self.start);
            self.buf.extend_from_slice(b"*1\r\n$0\r\n\r\n");
            return;
        }
        let args = self.buf.split_off(self.header);
        self.buf.truncate(self.start);
        let mut header = Backwards::<24>::new();
        header.crlf();
        header.number(wide(self.written));
        header.push(b'*');
        self.buf.extend_from_slice(header.as_bytes());
        self.buf.extend_from_slice(&args);
        self.header = self.buf.len();
    }
}

/// Holds the longest short argument, `(` and an ID of 41 bytes, with its length: 49 bytes.
type SmallArg = Backwards<56>;

/// How an ID begins as an argument: its length, its first half, and the hyphen.
pub(crate) struct IdHead {
    pub(crate) ms: u64,
    /// How many digits the second half has.
    pub(crate) digits: usize,
    pub(crate) text: Backwards<32>,
}

impl IdHead {
    #[expect(clippy::arithmetic_side_effects, reason = "both halves have at most 20 digits")]
    pub(crate) fn new(ms: u64, digits: usize) -> Self {
        let mut text = Backwards::new();
        text.push(b'-');
        text.number(ms);
        let len = text.len() + digits;
        text.crlf();
        text.number(wide(len));
        text.push(b'$');
        Self { ms, digits, text }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut CommandWriter<'_>)) -> String {
        let mut buf = BytesMut::from("before");
        let mut request = CommandWriter::new(&mut buf);
        write(&mut request);
        request.finish();
        String::from_utf8(buf.to_vec()).unwrap().replace("\r\n", " ")
    }

    #[test]
    fn arguments() {
        let text = written(|out| {
            out.command("X", 3);
            out.arg_int(-12);
            out.arg_id(StreamId::MAX);
            out.arg("");
        });
        assert_eq!(text, "before*4 $1 X $3 -12 $41 18446744073709551615-18446744073709551615 $0  ");
    }

    #[test]
    fn many_ids_are_written_as_each_alone() {
        let halves = [0, 9, 10, 99_999_999, 100_000_000, 1_700_000_000_000, u64::MAX];
        let ids = || halves.iter().flat_map(|&ms| halves.map(|seq| StreamId::new(ms, seq)));
        let alone = written(|out| ids().for_each(|id| out.arg_id(id)));
        assert_eq!(written(|out| out.arg_ids(ids())), alone);
    }

    #[test]
    fn the_longest_short_arguments() {
        assert_eq!(
            written(|out| out.arg_id_exclusive(StreamId::MAX)),
            "before*1 $42 (18446744073709551615-18446744073709551615 "
        );
        assert_eq!(written(|out| out.arg_int(u64::MAX)), "before*1 $20 18446744073709551615 ");
        assert_eq!(written(|out| out.arg_int(i64::MIN)), "before*1 $20 -9223372036854775808 ");
        assert_eq!(written(|out| out.arg_int(i128::MIN)), format!("before*1 $40 {} ", i128::MIN));
    }

    #[test]
    fn a_wrong_count_is_corrected() {
        for guess in [0, 1, 3, 12345] {
            let text = written(|out| {
                out.command("X", guess);
                out.arg("a");
                out.arg("b");
            });
            assert_eq!(text, "before*3 $1 X $1 a $1 b ", "guess {guess}");
        }
        assert_eq!(written(|out| out.arg("X")), "before*1 $1 X ");
        assert_eq!(written(|_| ()), "before*1 $0  ");
    }
}
