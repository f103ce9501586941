//! Decoding XREADGROUP replies to typed entries, compared with other clients' decoders in paired
//! rounds.
//!
//! The work is the same for all: from the bytes of the reply to entries with an ID and a payload
//! that the program can read. The lengths of the payloads are added up. Each client is used through
//! its public API: `resp` and `redis-protocol` through their decoders, `redis` through its parser
//! and `StreamReadReply`, `rustis` through the entry points it has for benches and its
//! `StreamEntry`. `fred` decodes with `redis-protocol` and converts the frames by code that cannot
//! be called without a connection, so it is not here.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a bench that cannot do its work ends")]

use std::collections::HashMap;
use std::hint::black_box;
use std::io::Read;
use std::time::Instant;

use benches::rounds::Work;
use benches::{Case, Rounds, read_group_reply};
use bytes::{Bytes, BytesMut};
use redis::FromRedisValue;
use redis_protocol::resp3::types::BytesFrame;
use resp::streams::XReadGroup;
use resp::{Command, Decoder, DecoderLimits, StreamId};

/// As much as a read from a socket brings.
const CHUNK: usize = 16 << 10;

fn main() {
    let mut rounds = Rounds::from_env();
    for (entries, size) in [(1000, 100), (1000, 1024), (10, 64 << 10)] {
        let reply = read_group_reply(entries, size).freeze();
        let expected = entries * size;
        // About 100 MB a work.
        let times = u32::try_from(if rounds.is_test() { 1 } else { 100_000_000 / reply.len() }).unwrap();
        for (how, chunk) in [("one-shot", reply.len()), ("in chunks of 16 KiB", CHUNK)] {
            let name = format!("{entries} x {size} B, {how}");
            let mut subjects: Vec<(&str, Work<'_>)> = vec![
                ("resp", repeat(times, expected, ours(reply.clone(), chunk))),
                ("redis-protocol", repeat(times, expected, redis_protocol(reply.clone(), chunk))),
                ("redis", repeat(times, expected, redis_rs(reply.clone(), chunk))),
                ("rustis", repeat(times, expected, rustis(reply.clone(), chunk))),
            ];
            rounds.run(Case { section: "decode", name: &name, operations: times }, &mut subjects);
        }
        // The same decoder, whole against in chunks.
        let name = format!("{entries} x {size} B, resp alone");
        let mut subjects: Vec<(&str, Work<'_>)> = vec![
            ("one-shot", repeat(times, expected, ours(reply.clone(), reply.len()))),
            ("in chunks of 16 KiB", repeat(times, expected, ours(reply.clone(), CHUNK))),
        ];
        rounds.run(Case { section: "decode", name: &name, operations: times }, &mut subjects);
    }
}

/// Decodes this many times, and checks the result.
fn repeat<'a>(times: u32, expected: usize, mut decode: impl FnMut() -> usize + 'a) -> Work<'a> {
    Box::new(move || {
        let begun = Instant::now();
        for _ in 0..times {
            assert_eq!(black_box(decode()), expected);
        }
        begun.elapsed()
    })
}

fn ours(reply: Bytes, chunk: usize) -> impl FnMut() -> usize {
    let mut decoder = Decoder::new(DecoderLimits::default());
    let mut buffer = BytesMut::new();
    move || {
        for chunk in reply.chunks(chunk) {
            buffer.extend_from_slice(chunk);
            if let Some(frame) = decoder.decode(&mut buffer).unwrap() {
                let entries = XReadGroup::decode(frame).unwrap();
                return entries
                    .entries()
                    .iter()
                    .map(|entry| {
                        black_box(entry.id);
                        entry.field(b"line").unwrap().len()
                    })
                    .sum();
            }
        }
        panic!("the reply is whole");
    }
}

/// Frames by the library; from frames to entries as a user of it writes it.
fn redis_protocol(reply: Bytes, chunk: usize) -> impl FnMut() -> usize {
    struct Entry {
        id: StreamId,
        fields: Vec<(Bytes, Bytes)>,
    }
    fn bytes(frame: BytesFrame) -> Bytes {
        match frame {
            BytesFrame::BlobString { data, .. } | BytesFrame::SimpleString { data, .. } => data,
            other => panic!("{other:?}"),
        }
    }
    fn list(frame: BytesFrame) -> Vec<BytesFrame> {
        match frame {
            BytesFrame::Array { data, .. } => data,
            other => panic!("{other:?}"),
        }
    }
    fn entry(frame: BytesFrame) -> Entry {
        let mut parts = list(frame).into_iter();
        let id = std::str::from_utf8(&bytes(parts.next().unwrap())).unwrap().parse().unwrap();
        let mut fields = list(parts.next().unwrap()).into_iter();
        let mut pairs = Vec::new();
        while let (Some(name), Some(value)) = (fields.next(), fields.next()) {
            pairs.push((bytes(name), bytes(value)));
        }
        Entry { id, fields: pairs }
    }
    let mut buffer = BytesMut::new();
    move || {
        for chunk in reply.chunks(chunk) {
            buffer.extend_from_slice(chunk);
            let decoded = redis_protocol::resp3::decode::complete::decode_bytes_mut(&mut buffer).unwrap();
            let Some((frame, _, _)) = decoded else { continue };
            let BytesFrame::Map { data, .. } = frame else { panic!("a map") };
            let entries: Vec<Entry> = data.into_values().flat_map(list).map(entry).collect();
            return entries
                .iter()
                .map(|entry| {
                    black_box(entry.id);
                    entry.fields.iter().find(|(name, _)| name == "line").unwrap().1.len()
                })
                .sum();
        }
        panic!("the reply is whole");
    }
}

/// Gives so much at a time, as a socket does.
struct Chunks<'a> {
    rest: &'a [u8],
    chunk: usize,
}

impl Read for Chunks<'_> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let len = self.chunk.min(into.len());
        self.rest.read(&mut into[..len])
    }
}

fn redis_rs(reply: Bytes, chunk: usize) -> impl FnMut() -> usize {
    move || {
        let value = if chunk >= reply.len() {
            redis::parse_redis_value(&reply).unwrap()
        } else {
            redis::Parser::new().parse_value(Chunks { rest: &reply, chunk }).unwrap()
        };
        let reply = redis::streams::StreamReadReply::from_redis_value(value).unwrap();
        let entries = reply.keys.iter().flat_map(|key| &key.ids);
        entries
            .map(|entry| {
                black_box(&entry.id);
                match &entry.map["line"] {
                    redis::Value::BulkString(line) => line.len(),
                    other => panic!("{other:?}"),
                }
            })
            .sum()
    }
}

fn rustis(reply: Bytes, chunk: usize) -> impl FnMut() -> usize {
    use rustis::commands::StreamEntry;
    use rustis::resp::BulkString;
    use rustis::resp::bench_support::bench_decode_chunked;

    type Reply = HashMap<String, Vec<StreamEntry<BulkString>>>;
    move || {
        let chunks: Vec<&[u8]> = reply.chunks(chunk).collect();
        let reply: Reply = bench_decode_chunked(&chunks).unwrap();
        let entries = reply.values().flatten();
        entries
            .map(|entry| {
                black_box(&entry.stream_id);
                entry.items["line"].as_bytes().len()
            })
            .sum()
    }
}
