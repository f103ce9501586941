//! Replies for the decoder benchmarks.

use bytes::BytesMut;

/// A RESP3 reply to XREADGROUP: one stream with `entries` entries, each with one field `line` of
/// `size` bytes.
#[must_use]
pub fn read_group_reply(entries: usize, size: usize) -> BytesMut {
    let line = vec![b'x'; size];
    let mut reply = BytesMut::new();
    reply.extend_from_slice(format!("%1\r\n$11\r\nline_stream\r\n*{entries}\r\n").as_bytes());
    for index in 1..=entries {
        let id = format!("1700000000000-{}", index * (size + 1));
        reply.extend_from_slice(format!("*2\r\n${}\r\n{id}\r\n*2\r\n$4\r\nline\r\n${size}\r\n", id.len()).as_bytes());
        reply.extend_from_slice(&line);
        reply.extend_from_slice(b"\r\n");
    }
    reply
}
