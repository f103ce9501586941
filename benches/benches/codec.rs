//! Decoding an XREADGROUP reply to typed entries, and encoding XADDs: no I/O.

use benches::read_group_reply;
use bytes::BytesMut;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use resp::streams::{XAdd, XReadGroup};
use resp::{Command, Decoder, DecoderLimits, RespCodec, StreamId};
use std::hint::black_box;
use tokio_util::codec::Encoder;

fn decode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decode");
    for (entries, size) in [(1000, 100), (1000, 1024), (10, 64 << 10)] {
        let reply = read_group_reply(entries, size);
        group.throughput(Throughput::Bytes(reply.len() as u64));
        group.bench_function(format!("{entries} x {size} B"), |bencher| {
            let mut decoder = Decoder::new(DecoderLimits::default());
            bencher.iter_batched(
                || reply.clone(),
                |mut bytes| {
                    let Ok(Some(frame)) = decoder.decode(&mut bytes) else { return 0 };
                    let Ok(entries) = XReadGroup::decode(frame) else { return 0 };
                    entries.entries().iter().filter_map(|e| e.field(b"line")).map(<[u8]>::len).sum()
                },
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

fn encode(criterion: &mut Criterion) {
    let line = [b'x'; 86];
    let mut group = criterion.benchmark_group("encode");
    group.throughput(Throughput::Elements(1000));
    group.bench_function("1000 XADD of 86 B", |bencher| {
        let mut codec = RespCodec::default();
        let mut buffer = BytesMut::with_capacity(256 << 10);
        bencher.iter(|| {
            buffer.clear();
            for end in 1..=1000 {
                let id = StreamId::new(1_700_000_000_000, end * 87);
                let fields = [("line", &line[..])];
                let add = XAdd::new("line_stream", id, &fields);
                if codec.encode(&add, &mut buffer).is_err() {
                    return 0;
                }
            }
            black_box(&buffer).len()
        });
    });
    group.finish();
}

criterion_group!(benches, decode, encode);
criterion_main!(benches);
