//! A socket that only drains a stream and acknowledges: the baseline for a writer.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use memchr::memchr;

/// Reads all entries of `stream` as a consumer of `group`, which it creates. Reads 1000 entries at
/// a time, and sends each acknowledgement with the next read. Returns the number of payload bytes.
///
/// # Panics
///
/// If the server does not reply as expected.
#[must_use]
pub fn drain(port: u16, stream: &str, group: &str) -> usize {
    let mut socket = TcpStream::connect(("127.0.0.1", port)).expect("connect");
    socket.set_nodelay(true).expect("set TCP_NODELAY");
    let mut input = Input { socket: socket.try_clone().expect("a second handle"), bytes: Vec::new(), at: 0 };
    let read = command(&["XREADGROUP", "GROUP", group, "drain", "COUNT", "1000", "STREAMS", stream, ">"]);
    let mut request = command(&["XGROUP", "CREATE", stream, group, "0"]);
    request.extend_from_slice(&read);
    socket.write_all(&request).expect("write");
    assert_eq!(input.line(), b"+OK");
    let mut bytes = 0;
    loop {
        // *1 *2 $stream *n, then n times: *2 $id *2 $field $payload
        if input.number() < 0 {
            return bytes;
        }
        input.number();
        input.bulk();
        let entries = usize::try_from(input.number()).expect("a count");
        let mut acknowledge = format!("*{}\r\n$4\r\nXACK\r\n", entries + 3).into_bytes();
        for word in [stream, group] {
            acknowledge.extend_from_slice(format!("${}\r\n{word}\r\n", word.len()).as_bytes());
        }
        for _ in 0..entries {
            input.number();
            let id = input.bulk();
            acknowledge.extend_from_slice(format!("${}\r\n", id.len()).as_bytes());
            acknowledge.extend_from_slice(id);
            acknowledge.extend_from_slice(b"\r\n");
            input.number();
            input.bulk();
            bytes += input.bulk().len();
        }
        acknowledge.extend_from_slice(&read);
        socket.write_all(&acknowledge).expect("write");
        input.forget();
        assert_eq!(input.line(), format!(":{entries}").as_bytes());
    }
}

fn command(words: &[&str]) -> Vec<u8> {
    let mut request = format!("*{}\r\n", words.len());
    for word in words {
        request.push_str(&format!("${}\r\n{word}\r\n", word.len()));
    }
    request.into_bytes()
}

/// The received bytes, and the position of the parser.
struct Input {
    socket: TcpStream,
    bytes: Vec<u8>,
    at: usize,
}

impl Input {
    fn more(&mut self) {
        let len = self.bytes.len();
        self.bytes.resize(len + (64 << 10), 0);
        let read = self.socket.read(&mut self.bytes[len..]).expect("read");
        assert!(read > 0, "the server closed the connection");
        self.bytes.truncate(len + read);
    }

    fn line(&mut self) -> &[u8] {
        let mut from = self.at;
        let end = loop {
            match memchr(b'\n', &self.bytes[from..]) {
                Some(found) => break from + found,
                None => {
                    from = self.bytes.len();
                    self.more();
                }
            }
        };
        let begin = std::mem::replace(&mut self.at, end + 1);
        &self.bytes[begin..end - 1]
    }

    /// The number after a type marker.
    fn number(&mut self) -> i64 {
        let line = self.line();
        assert!(matches!(line[0], b'*' | b'$' | b':'), "{}", String::from_utf8_lossy(line));
        std::str::from_utf8(&line[1..]).ok().and_then(|digits| digits.parse().ok()).expect("a number")
    }

    fn bulk(&mut self) -> &[u8] {
        let len = usize::try_from(self.number()).expect("a length");
        while self.bytes.len() < self.at + len + 2 {
            self.more();
        }
        let begin = self.at;
        self.at += len + 2;
        &self.bytes[begin..begin + len]
    }

    /// Drops the parsed bytes.
    fn forget(&mut self) {
        self.bytes.drain(..self.at);
        self.at = 0;
    }
}
