//! The same bytes decoded by this crate and by `redis-protocol`, in both directions.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

use bytes::BytesMut;
use proptest::prelude::*;
use redis_protocol::resp3::types::{DecodedFrame, FrameKind, Resp3Frame as _, VerbatimStringFormat};
use redis_protocol::{resp2, resp3};
use resp::{Frame, RespCodec, Value, ValueKind, cmd};
use tokio_util::codec::Encoder;

type Frame2 = resp2::types::OwnedFrame;
type Frame3 = resp3::types::OwnedFrame;

/// The meaning of a frame, independent of either crate.
#[derive(Clone, Debug, PartialEq, PartialOrd)]
enum Meaning {
    Null,
    Simple(Vec<u8>),
    Error(Vec<u8>),
    Int(i64),
    Bulk(Vec<u8>),
    Array(Vec<Self>),
    BulkError(Vec<u8>),
    Bool(bool),
    /// Compares bits; all NaN are equal.
    Double(u64),
    BigNumber(Vec<u8>),
    Verbatim(Vec<u8>, Vec<u8>),
    /// Sorted, because `redis-protocol` keeps no order.
    Map(Vec<(Self, Self)>),
    Set(Vec<Self>),
    Push(Vec<Self>),
}

fn double(n: f64) -> Meaning {
    Meaning::Double(if n.is_nan() { f64::NAN.to_bits() } else { n.to_bits() })
}

fn sorted<T: PartialOrd>(mut parts: Vec<T>) -> Vec<T> {
    parts.sort_by(|a, b| a.partial_cmp(b).unwrap());
    parts
}

fn of_ours(value: Value<'_>) -> Meaning {
    let bytes = || value.as_bytes().unwrap().to_vec();
    let parts = || value.children().map(of_ours).collect::<Vec<_>>();
    match value.kind() {
        ValueKind::Null => Meaning::Null,
        ValueKind::SimpleString => Meaning::Simple(bytes()),
        ValueKind::SimpleError => Meaning::Error(bytes()),
        ValueKind::Integer => Meaning::Int(value.as_int().unwrap()),
        ValueKind::BulkString => Meaning::Bulk(bytes()),
        ValueKind::StreamedString => Meaning::Bulk(value.as_bytes().unwrap().to_vec()),
        ValueKind::Array => Meaning::Array(parts()),
        ValueKind::BulkError => Meaning::BulkError(bytes()),
        ValueKind::Boolean => Meaning::Bool(value.as_bool().unwrap()),
        ValueKind::Double => double(value.as_f64().unwrap()),
        ValueKind::BigNumber => Meaning::BigNumber(bytes()),
        ValueKind::VerbatimString => Meaning::Verbatim(value.format().unwrap().to_vec(), bytes()),
        ValueKind::Map => {
            Meaning::Map(sorted(value.pairs().map(|(key, value)| (of_ours(key), of_ours(value))).collect()))
        }
        ValueKind::Set => Meaning::Set(sorted(parts())),
        ValueKind::Push => Meaning::Push(parts()),
        other => panic!("{other:?}"),
    }
}

fn of_theirs2(frame: Frame2) -> Meaning {
    match frame {
        Frame2::SimpleString(text) => Meaning::Simple(text),
        Frame2::Error(text) => Meaning::Error(text.into_bytes()),
        Frame2::Integer(n) => Meaning::Int(n),
        Frame2::BulkString(bytes) => Meaning::Bulk(bytes),
        Frame2::Array(frames) => Meaning::Array(frames.into_iter().map(of_theirs2).collect()),
        Frame2::Null => Meaning::Null,
    }
}

fn of_theirs3(frame: Frame3) -> Meaning {
    let all = |frames: Vec<Frame3>| frames.into_iter().map(of_theirs3).collect::<Vec<_>>();
    match frame {
        Frame3::Null => Meaning::Null,
        Frame3::SimpleString { data, .. } => Meaning::Simple(data),
        Frame3::SimpleError { data, .. } => Meaning::Error(data.into_bytes()),
        Frame3::Number { data, .. } => Meaning::Int(data),
        Frame3::BlobString { data, .. } => Meaning::Bulk(data),
        Frame3::Array { data, .. } => Meaning::Array(all(data)),
        Frame3::BlobError { data, .. } => Meaning::BulkError(data),
        Frame3::Boolean { data, .. } => Meaning::Bool(data),
        Frame3::Double { data, .. } => double(data),
        Frame3::BigNumber { data, .. } => Meaning::BigNumber(data),
        Frame3::VerbatimString { data, format, .. } => {
            let format = if matches!(format, VerbatimStringFormat::Text) { "txt" } else { "mkd" };
            Meaning::Verbatim(format.into(), data)
        }
        Frame3::Map { data, .. } => {
            Meaning::Map(sorted(data.into_iter().map(|(key, value)| (of_theirs3(key), of_theirs3(value))).collect()))
        }
        Frame3::Set { data, .. } => Meaning::Set(sorted(data.into_iter().map(of_theirs3).collect())),
        Frame3::Push { data, .. } => Meaning::Push(all(data)),
        other => panic!("{other:?}"),
    }
}

fn to_theirs2(meaning: &Meaning) -> Frame2 {
    match meaning.clone() {
        Meaning::Simple(text) => Frame2::SimpleString(text),
        Meaning::Error(text) => Frame2::Error(String::from_utf8(text).unwrap()),
        Meaning::Int(n) => Frame2::Integer(n),
        Meaning::Bulk(bytes) => Frame2::BulkString(bytes),
        Meaning::Array(parts) => Frame2::Array(parts.iter().map(to_theirs2).collect()),
        Meaning::Null => Frame2::Null,
        other => panic!("{other:?}"),
    }
}

fn to_theirs3(meaning: &Meaning) -> Frame3 {
    let attributes = None;
    let all = |parts: &[Meaning]| parts.iter().map(to_theirs3).collect::<Vec<_>>();
    match meaning.clone() {
        Meaning::Null => Frame3::Null,
        Meaning::Simple(data) => Frame3::SimpleString { data, attributes },
        Meaning::Error(text) => Frame3::SimpleError { data: String::from_utf8(text).unwrap(), attributes },
        Meaning::Int(data) => Frame3::Number { data, attributes },
        Meaning::Bulk(data) => Frame3::BlobString { data, attributes },
        Meaning::Array(parts) => Frame3::Array { data: all(&parts), attributes },
        Meaning::BulkError(data) => Frame3::BlobError { data, attributes },
        Meaning::Bool(data) => Frame3::Boolean { data, attributes },
        Meaning::Double(bits) => Frame3::Double { data: f64::from_bits(bits), attributes },
        Meaning::BigNumber(data) => Frame3::BigNumber { data, attributes },
        Meaning::Verbatim(format, data) => {
            let format = if format == b"txt" { VerbatimStringFormat::Text } else { VerbatimStringFormat::Markdown };
            Frame3::VerbatimString { data, format, attributes }
        }
        Meaning::Map(pairs) => {
            let data = pairs.iter().map(|(key, value)| (to_theirs3(key), to_theirs3(value))).collect();
            Frame3::Map { data, attributes }
        }
        Meaning::Set(parts) => Frame3::Set { data: parts.iter().map(to_theirs3).collect(), attributes },
        Meaning::Push(parts) => Frame3::Push { data: all(&parts), attributes },
    }
}

/// Encodes a frame by the specification.
fn wire(meaning: &Meaning, streamed: bool, out: &mut Vec<u8>) {
    let line = |out: &mut Vec<u8>, marker: char, text: &[u8]| {
        out.extend([marker as u8]);
        out.extend(text);
        out.extend(b"\r\n");
    };
    let bulk = |out: &mut Vec<u8>, marker: char, text: &[u8]| {
        line(out, marker, text.len().to_string().as_bytes());
        out.extend(text);
        out.extend(b"\r\n");
    };
    let aggregate = |out: &mut Vec<u8>, marker: char, count: usize, parts: &mut dyn Iterator<Item = &Meaning>| {
        line(out, marker, if streamed { "?".to_owned() } else { count.to_string() }.as_bytes());
        parts.for_each(|part| wire(part, false, out));
        if streamed {
            out.extend(b".\r\n");
        }
    };
    match meaning {
        Meaning::Null => out.extend(b"_\r\n"),
        Meaning::Simple(text) => line(out, '+', text),
        Meaning::Error(text) => line(out, '-', text),
        Meaning::Int(n) => line(out, ':', n.to_string().as_bytes()),
        Meaning::Bulk(bytes) if streamed => {
            line(out, '$', b"?");
            bytes.chunks(3).for_each(|chunk| bulk(out, ';', chunk));
            line(out, ';', b"0");
        }
        Meaning::Bulk(bytes) => bulk(out, '$', bytes),
        Meaning::Array(parts) => aggregate(out, '*', parts.len(), &mut parts.iter()),
        Meaning::BulkError(bytes) => bulk(out, '!', bytes),
        Meaning::Bool(yes) => line(out, '#', if *yes { b"t" } else { b"f" }),
        Meaning::Double(bits) => {
            let n = f64::from_bits(*bits);
            let text = if n.is_nan() { "nan".to_owned() } else { format!("{n:?}") };
            line(out, ',', text.as_bytes());
        }
        Meaning::BigNumber(digits) => line(out, '(', digits),
        Meaning::Verbatim(format, text) => bulk(out, '=', &[format, &b":"[..], text].concat()),
        Meaning::Map(pairs) => {
            aggregate(out, '%', pairs.len(), &mut pairs.iter().flat_map(|(key, value)| [key, value]));
        }
        Meaning::Set(parts) => aggregate(out, '~', parts.len(), &mut parts.iter()),
        Meaning::Push(parts) => aggregate(out, '>', parts.len(), &mut parts.iter()),
    }
}

/// Decodes bytes that contain one frame with this crate.
fn ours(bytes: &[u8]) -> Meaning {
    let mut buf = BytesMut::from(bytes);
    let frame = resp::Decoder::default().decode(&mut buf).unwrap().unwrap();
    assert!(buf.is_empty());
    of_ours(frame.value())
}

/// Decodes with `redis-protocol`, which returns streamed values in pieces.
fn theirs3(bytes: &[u8]) -> Meaning {
    let mut rest = bytes;
    let mut next = || {
        let (frame, len) = resp3::decode::streaming::decode(rest).unwrap().unwrap();
        rest = &rest[len..];
        frame
    };
    let frame = match next() {
        DecodedFrame::Complete(frame) => frame,
        DecodedFrame::Streaming(mut frame) => {
            while !frame.is_finished() {
                frame.add_frame(next().into_complete_frame().unwrap());
            }
            frame.take().unwrap()
        }
    };
    assert!(rest.is_empty());
    of_theirs3(frame)
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..40)
}

fn line() -> impl Strategy<Value = Vec<u8>> {
    "[a-zA-Z0-9 _.'\u{e4}\u{4e2d}]{0,20}".prop_map(String::into_bytes)
}

/// The types of RESP2.
fn resp2_value() -> impl Strategy<Value = Meaning> {
    let leaf = prop_oneof![
        Just(Meaning::Null),
        line().prop_map(Meaning::Simple),
        line().prop_map(Meaning::Error),
        any::<i64>().prop_map(Meaning::Int),
        bytes().prop_map(Meaning::Bulk),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| prop::collection::vec(inner, 0..6).prop_map(Meaning::Array))
}

/// The types of RESP3.
fn resp3_value() -> impl Strategy<Value = Meaning> {
    let leaf = prop_oneof![
        Just(Meaning::Null),
        line().prop_map(Meaning::Simple),
        line().prop_map(Meaning::Error),
        any::<i64>().prop_map(Meaning::Int),
        bytes().prop_map(Meaning::Bulk),
        bytes().prop_map(Meaning::BulkError),
        any::<bool>().prop_map(Meaning::Bool),
        prop_oneof![any::<f64>(), Just(f64::NAN), Just(f64::INFINITY), Just(f64::NEG_INFINITY)].prop_map(double),
        "-?[0-9]{1,40}".prop_map(|digits| Meaning::BigNumber(digits.into_bytes())),
        (prop::sample::select(vec!["txt", "mkd"]), bytes())
            .prop_map(|(format, text)| Meaning::Verbatim(format.into(), text)),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        let list = prop::collection::vec(inner.clone(), 0..6);
        prop_oneof![
            list.clone().prop_map(Meaning::Array),
            // Keys and members that `redis-protocol` can hash.
            prop::collection::btree_map(bytes(), inner, 0..5).prop_map(|map| {
                Meaning::Map(sorted(map.into_iter().map(|(key, value)| (Meaning::Bulk(key), value)).collect()))
            }),
            prop::collection::btree_set(bytes(), 0..5)
                .prop_map(|set| Meaning::Set(sorted(set.into_iter().map(Meaning::Bulk).collect()))),
        ]
    })
}

proptest! {
    #[test]
    fn resp2_means_the_same_to_both(value in resp2_value()) {
        let mut written = vec![0; 1 << 20];
        let frame = to_theirs2(&value);
        let len = resp2::encode::encode(&mut written, &frame, false).unwrap();
        written.truncate(len);
        prop_assert_eq!(&ours(&written), &value);
        let (read, len) = resp2::decode::decode(&written).unwrap().unwrap();
        prop_assert_eq!((of_theirs2(read), len), (value, written.len()));
    }

    #[test]
    fn resp3_means_the_same_to_both(value in resp3_value(), is_push: bool) {
        let value = match value {
            Meaning::Array(parts) if is_push => Meaning::Push(parts),
            other => other,
        };
        // Encoded by redis-protocol.
        let mut written = vec![0; 1 << 20];
        let len = resp3::encode::complete::encode(&mut written, &to_theirs3(&value), false).unwrap();
        written.truncate(len);
        prop_assert_eq!(&ours(&written), &value);
        prop_assert_eq!(&theirs3(&written), &value);
        // Encoded by the specification.
        let mut written = Vec::new();
        wire(&value, false, &mut written);
        prop_assert_eq!(&ours(&written), &value);
        prop_assert_eq!(&theirs3(&written), &value);
    }

    #[test]
    fn streamed_values_mean_the_same_to_both(value in resp3_value()) {
        let mut written = Vec::new();
        wire(&value, true, &mut written);
        prop_assert_eq!(&ours(&written), &value);
        prop_assert_eq!(&theirs3(&written), &value);
    }

    #[test]
    fn attributes_mean_the_same_to_both(about in prop::collection::btree_map(bytes(), any::<i64>(), 1..5), value in resp3_value()) {
        prop_assume!(value != Meaning::Null);
        let about: Vec<_> = about.into_iter().map(|(key, n)| (Meaning::Bulk(key), Meaning::Int(n))).collect();
        let mut written = Vec::new();
        wire(&Meaning::Map(sorted(about.clone())), false, &mut written);
        written[0] = b'|';
        wire(&value, false, &mut written);

        let frame = resp::Decoder::default().decode(&mut BytesMut::from(&written[..])).unwrap().unwrap();
        prop_assert_eq!(&of_ours(frame.value()), &value);
        let read: Vec<_> = frame.attributes().map(|(key, value)| (of_ours(key), of_ours(value))).collect();
        prop_assert_eq!(sorted(read), sorted(about.clone()));

        let (frame, _) = resp3::decode::complete::decode(&written).unwrap().unwrap();
        let read = frame.attributes().unwrap().iter();
        let read: Vec<_> = read.map(|(key, value)| (of_theirs3(key.clone()), of_theirs3(value.clone()))).collect();
        prop_assert_eq!(sorted(read), sorted(about));
        prop_assert_eq!(of_theirs3(frame), value);
    }

    #[test]
    fn commands_are_read_by_both(name in "[A-Z]{1,12}", args in prop::collection::vec(bytes(), 0..20)) {
        let mut written = BytesMut::new();
        RespCodec::default().encode(&cmd::<Frame>(&name).args(&args), &mut written).unwrap();
        let mut words = vec![Meaning::Bulk(name.into_bytes())];
        words.extend(args.into_iter().map(Meaning::Bulk));
        let command = Meaning::Array(words);
        prop_assert_eq!(&ours(&written), &command);
        prop_assert_eq!(&theirs3(&written), &command);
        let (read, len) = resp2::decode::decode(&written).unwrap().unwrap();
        prop_assert_eq!((of_theirs2(read), len), (command, written.len()));
    }

    /// Both decoders report every prefix of a frame as incomplete, never as an error.
    #[test]
    fn the_beginning_of_a_frame_is_incomplete_to_both(value in resp3_value()) {
        let mut written = Vec::new();
        wire(&value, false, &mut written);
        for cut in 1..written.len() {
            prop_assert_eq!(resp::Decoder::default().decode(&mut BytesMut::from(&written[..cut])), Ok(None));
            prop_assert!(resp3::decode::complete::decode(&written[..cut]).unwrap().is_none());
        }
    }
}

#[test]
fn streamed_kinds_are_known_by_the_same_names() {
    for (kind, theirs) in
        [(ValueKind::Array, FrameKind::Array), (ValueKind::Map, FrameKind::Map), (ValueKind::Set, FrameKind::Set)]
    {
        let mut start = [0; 4];
        resp3::encode::streaming::encode_start_aggregate_type(&mut start, 0, theirs).unwrap();
        let frame = resp::Decoder::default().decode(&mut BytesMut::from(&[&start[..], b".\r\n"].concat()[..]));
        assert_eq!(frame.unwrap().unwrap().kind(), kind);
    }
}
