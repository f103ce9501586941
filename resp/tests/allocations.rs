//! Allocation counts: none per entry, and none per command.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use std::fmt::Write;
use std::hint::black_box;

use bytes::BytesMut;
use resp::streams::{XAck, XAdd, XReadGroup};
use resp::{Command, Config, Connection, Decoder, Endpoint, RespCodec, StreamId, cmd};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::codec::Encoder;

/// How often memory was allocated, and how many bytes.
fn counted<T>(work: impl FnOnce() -> T) -> (u64, usize) {
    let info = allocation_counter::measure(|| {
        black_box(work());
    });
    (info.count_total, info.bytes_total as usize)
}

fn reply(entries: usize) -> String {
    let mut text = format!("%1\r\n$1\r\ns\r\n*{entries}\r\n");
    for n in 0..entries {
        let id = format!("1700000000000-{n}");
        write!(text, "*2\r\n${}\r\n{id}\r\n*2\r\n$4\r\nline\r\n$5\r\nhello\r\n", id.len()).unwrap();
    }
    text
}

#[test]
fn no_allocation_an_entry() {
    let mut decoder = Decoder::default();
    let allocations = |decoder: &mut Decoder, entries: usize| {
        let mut buf = BytesMut::from(reply(entries).as_bytes());
        counted(|| {
            let frame = decoder.decode(&mut buf).unwrap().unwrap();
            let reply = XReadGroup::decode(frame).unwrap();
            let bytes: usize = reply.entries().into_iter().map(|entry| entry.field(b"line").unwrap().len()).sum();
            assert_eq!(bytes, 5 * entries);
        })
        .0
    };
    allocations(&mut decoder, 5000); // the decoder learns how long tapes are
    let (few, many) = (allocations(&mut decoder, 5000), allocations(&mut decoder, 5000));
    assert!(few == many && many <= 8, "{few} {many}");
    assert!(allocations(&mut decoder, 10) <= 8);
}

#[test]
fn a_long_reply_in_pieces_is_reserved_once() {
    let reply = reply(20_000);
    let mut decoder = Decoder::default();
    let (count, bytes) = counted(|| {
        let mut buf = BytesMut::new();
        let mut frames = 0;
        for piece in reply.as_bytes().chunks(16 << 10) {
            buf.extend_from_slice(piece);
            frames += usize::from(decoder.decode(&mut buf).unwrap().is_some());
        }
        assert_eq!(frames, 1);
    });
    // The tape doubles as it grows, so it takes as much again. A doubling buffer alone would take
    // twice the reply.
    let tape = 20_000 * 5 * 12 * 4;
    assert!(bytes < reply.len() * 3 / 2 + tape, "{bytes} bytes in {count} allocations for {}", reply.len());
}

#[test]
fn no_allocation_a_scalar_reply() {
    let mut decoder = Decoder::default();
    let mut buf = BytesMut::from(&b"+OK\r\n:1\r\n$3\r\n5-1\r\n".repeat(1000)[..]);
    let (count, _) = counted(|| {
        let mut frames = 0;
        while let Some(frame) = decoder.decode(&mut buf).unwrap() {
            black_box(&frame);
            frames += 1;
        }
        assert_eq!(frames, 3000);
    });
    // One allocation makes the buffer shared.
    assert!(count <= 1, "{count}");
}

#[test]
fn no_allocation_a_command() {
    let mut out = BytesMut::with_capacity(1 << 20);
    let mut codec = RespCodec::default();
    let ids: Vec<_> = (0..1000).map(|n| StreamId::new(5, n)).collect();
    let (count, _) = counted(|| {
        for n in 0..1000 {
            let fields = [(b"line", &b"to be or not to be"[..])];
            codec.encode(&XAdd::new("stream", StreamId::new(7, n), &fields), &mut out).unwrap();
        }
        codec.encode(&XAck::new("stream", "group", &ids), &mut out).unwrap();
    });
    assert_eq!(count, 0);
}

#[test]
fn a_header_allocates_next_to_nothing() {
    for header in [
        "$536870912\r\n",
        "*67108864\r\n",
        "%33554432\r\n",
        "*33554432\r\n*33554432\r\n",
        "=536870912\r\nt",
        "$?\r\n;536870912\r\n",
    ] {
        let mut decoder = Decoder::default();
        let mut buf = BytesMut::from(header);
        let (_, bytes) = counted(|| assert!(decoder.decode(&mut buf).unwrap().is_none()));
        assert!(bytes < 4096, "{header:?} allocated {bytes}");
    }
}

#[test]
fn a_large_payload_is_copied_once() {
    let line = vec![b'x'; 64 << 20];
    let mut out = BytesMut::new();
    let fields = [("line", &line)];
    let (count, bytes) =
        counted(|| RespCodec::default().encode(&XAdd::new("s", StreamId::MIN, &fields), &mut out).unwrap());
    assert!(count < 10 && bytes < line.len() + 4096, "{count} {bytes}");
}

/// Small messages in large blocks of the read buffer, or large messages.
#[test]
fn pushes_that_nobody_takes_are_bounded_in_bytes() {
    let small = ">2\r\n+invalidate\r\n*1\r\n$3\r\nkey\r\n".to_owned();
    let large = format!(">2\r\n+message\r\n$1048576\r\n{}\r\n", "x".repeat(1 << 20));
    let bulk = format!("$200000\r\n{}\r\n", "x".repeat(200_000));
    for (push, reply, count) in [(small, bulk, 1200), (large, "+OK\r\n".to_owned(), 64)] {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let both = format!("{push}{reply}");
        let mut kept = None;
        let memory = allocation_counter::measure(|| {
            kept = Some(runtime.block_on(async {
                let (ours, mut peer) = tokio::io::duplex(64 << 10);
                tokio::spawn(async move {
                    let mut greeting = Vec::new();
                    while !greeting.ends_with(concat!(env!("CARGO_PKG_VERSION"), "\r\n").as_bytes()) {
                        greeting.push(peer.read_u8().await.unwrap());
                    }
                    let mut command = [0; b"*1\r\n$4\r\nPING\r\n".len()];
                    peer.write_all(b"+OK\r\n+OK\r\n").await.unwrap();
                    while peer.read_exact(&mut command).await.is_ok() {
                        peer.write_all(both.as_bytes()).await.unwrap();
                    }
                });
                let config = Config::new(Endpoint::tcp("127.0.0.1", 1)).resp2(true);
                let mut connection = Connection::from_transport(ours, &config).await.unwrap();
                for _ in 0..count {
                    connection.send(cmd::<()>("PING")).await.unwrap();
                }
                connection
            }));
        });
        assert!(memory.bytes_current < 24 << 20, "{} bytes kept", memory.bytes_current);
        assert!(kept.unwrap().take_push().is_some());
    }
}

/// A server that floods with push messages before it reads a large command.
#[test]
fn pushes_during_a_flush_are_bounded_in_bytes() {
    const FLOOD: usize = 128 << 20;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let push = ">2\r\n+message\r\n$1000\r\n".to_owned() + &"x".repeat(1000) + "\r\n";
    let pushes = push.repeat(64);
    let memory = allocation_counter::measure(|| {
        runtime.block_on(async {
            let (ours, mut peer) = tokio::io::duplex(64 << 10);
            let server = tokio::spawn(async move {
                let mut greeting = Vec::new();
                while !greeting.ends_with(concat!(env!("CARGO_PKG_VERSION"), "\r\n").as_bytes()) {
                    greeting.push(peer.read_u8().await.unwrap());
                }
                peer.write_all(b"+OK\r\n+OK\r\n").await.unwrap();
                for _ in 0..FLOOD / pushes.len() {
                    peer.write_all(pushes.as_bytes()).await.unwrap();
                }
                let mut sink = tokio::io::sink();
                peer.write_all(b"+OK\r\n").await.unwrap();
                let _ = tokio::io::copy(&mut peer, &mut sink).await;
            });
            let config = Config::new(Endpoint::tcp("127.0.0.1", 1)).resp2(true);
            let mut connection = Connection::from_transport(ours, &config).await.unwrap();
            connection.queue(cmd::<()>("SET").arg("k").arg(vec![b'y'; 1 << 20]));
            connection.flush().await.unwrap();
            connection.receive().await.unwrap().into_result().unwrap();
            assert!(connection.take_push().is_some());
            drop(connection);
            server.await.unwrap();
        });
    });
    assert!(memory.bytes_max < 48 << 20, "{} bytes at most", memory.bytes_max);
}
