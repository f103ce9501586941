//! The decoder: tables from the RESP specification, input split anywhere, hostile peers.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

use bytes::{BufMut, BytesMut};
use proptest::prelude::*;
use resp::{Decoder, DecoderLimits, Frame, ProtocolError, RespCodec, StreamId, ValueKind, cmd};
use tokio_util::codec::{Decoder as _, Encoder};

fn decode(text: impl AsRef<[u8]>) -> Result<Option<Frame>, ProtocolError> {
    Decoder::default().decode(&mut BytesMut::from(text.as_ref()))
}

/// Returns the frames that result when the bytes arrive in these pieces.
fn in_pieces<'a>(
    pieces: impl IntoIterator<Item = &'a [u8]>,
    limits: DecoderLimits,
) -> (Vec<Frame>, Option<ProtocolError>) {
    let mut decoder = Decoder::new(limits);
    let mut buf = BytesMut::new();
    let mut frames = Vec::new();
    for piece in pieces {
        buf.extend_from_slice(piece);
        loop {
            match decoder.decode(&mut buf) {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => return (frames, Some(error)),
            }
        }
    }
    (frames, None)
}

#[test]
fn every_type_of_the_specification() {
    // The input, and the Debug text of its value.
    let table = [
        ("+OK\r\n", "\"OK\""),
        ("+\r\n", "\"\""),
        ("-ERR unknown command 'asdf'\r\n", "error \"ERR unknown command \\'asdf\\'\""),
        (":0\r\n", "0"),
        (":+1000\r\n", "+1000"),
        (":-9223372036854775808\r\n", "-9223372036854775808"),
        (":9223372036854775807\r\n", "9223372036854775807"),
        ("$5\r\nhello\r\n", "\"hello\""),
        ("$0\r\n\r\n", "\"\""),
        ("$4\r\n\r\n\r\n\r\n", "\"\\r\\n\\r\\n\""),
        ("$-1\r\n", "null"),
        ("*0\r\n", "[]"),
        ("*-1\r\n", "null"),
        ("*2\r\n$5\r\nhello\r\n$5\r\nworld\r\n", "[\"hello\", \"world\"]"),
        ("*3\r\n$5\r\nhello\r\n$-1\r\n$5\r\nworld\r\n", "[\"hello\", null, \"world\"]"),
        ("*2\r\n*3\r\n:1\r\n:2\r\n:3\r\n*2\r\n+Hello\r\n-World\r\n", "[[1, 2, 3], [\"Hello\", error \"World\"]]"),
        ("*2\r\n*0\r\n*1\r\n*0\r\n", "[[], [[]]]"),
        ("_\r\n", "null"),
        ("#t\r\n", "t"),
        ("#f\r\n", "f"),
        (",1.23\r\n", "1.23"),
        (",10\r\n", "10"),
        (",-1.5e-3\r\n", "-1.5e-3"),
        (",inf\r\n", "inf"),
        (",-inf\r\n", "-inf"),
        (",nan\r\n", "nan"),
        (",-nan\r\n", "-nan"),
        ("(3492890328409238509324850943850943825024385\r\n", "3492890328409238509324850943850943825024385"),
        ("(-1\r\n", "-1"),
        ("!21\r\nSYNTAX invalid syntax\r\n", "error \"SYNTAX invalid syntax\""),
        ("=15\r\ntxt:Some string\r\n", "\"Some string\""),
        ("=4\r\ntxt:\r\n", "\"\""),
        ("%2\r\n+first\r\n:1\r\n+second\r\n:2\r\n", "{\"first\": 1, \"second\": 2}"),
        ("%0\r\n", "{}"),
        ("~3\r\n:1\r\n#t\r\n+a\r\n", "[1, t, \"a\"]"),
        (">2\r\n+message\r\n+hi\r\n", "push [\"message\", \"hi\"]"),
        ("$?\r\n;4\r\nHell\r\n;5\r\no wor\r\n;2\r\nld\r\n;0\r\n", "[\"Hell\", \"o wor\", \"ld\"]"),
        ("$?\r\n;0\r\n", "[]"),
        ("*?\r\n:1\r\n*?\r\n.\r\n$1\r\na\r\n.\r\n", "[1, [], \"a\"]"),
        ("%?\r\n+a\r\n:1\r\n+b\r\n*1\r\n:2\r\n.\r\n", "{\"a\": 1, \"b\": [2]}"),
        ("~?\r\n.\r\n", "[]"),
        ("|1\r\n+key\r\n+value\r\n:7\r\n", "7"),
        ("|1\r\n+key\r\n+value\r\n*1\r\n:7\r\n", "[7]"),
        ("*2\r\n|1\r\n+ttl\r\n:3600\r\n:1\r\n|0\r\n:2\r\n", "[1, 2]"),
        ("*1\r\n|1\r\n+a\r\n*1\r\n|1\r\n+b\r\n:1\r\n:2\r\n*2\r\n$1\r\nx\r\n:3\r\n", "[[\"x\", 3]]"),
        ("%1\r\n|1\r\n+a\r\n+b\r\n+key\r\n|1\r\n+c\r\n+d\r\n+value\r\n", "{\"key\": \"value\"}"),
    ];
    for (input, shown) in table {
        let frame = decode(input).unwrap_or_else(|error| panic!("{input:?}: {error}"));
        let frame = frame.unwrap_or_else(|| panic!("{input:?} is not complete"));
        assert_eq!(format!("{frame:?}"), shown, "{input:?}");
        assert_eq!(frame.as_wire(), input);
        for cut in 0..input.len() {
            assert_eq!(decode(&input[..cut]), Ok(None), "{:?}", &input[..cut]);
            let (frames, error) =
                in_pieces([&input.as_bytes()[..cut], &input.as_bytes()[cut..]], DecoderLimits::default());
            assert_eq!((frames.len(), error), (1, None), "{input:?} cut at {cut}");
            assert_eq!(frames[0], frame, "{input:?} cut at {cut}");
        }
    }
}

#[test]
fn invalid_input() {
    use ProtocolError::*;
    let table = [
        ("hello\r\n", UnknownType(b'h')),
        ("\r\n", UnknownType(b'\r')),
        ("\0", UnknownType(0)),
        ("$\r\n", InvalidLength),
        ("$abc", InvalidLength),
        ("$+5\r\nhello\r\n", InvalidLength),
        ("$-2\r\n", InvalidLength),
        ("$99999999999999999999\r\n", InvalidLength),
        ("$1234567890123\r\n", BulkTooLong),
        ("$5\nhello\r\n", InvalidLength),
        ("$5\r\nhello!!", MissingTerminator),
        ("$5\r\nhello\n\r", MissingTerminator),
        ("*1x\r\n", InvalidLength),
        ("%-1\r\n", InvalidLength),
        ("%4294967295\r\n", AggregateTooLong),
        ("*1152921504606846976\r\n", AggregateTooLong),
        ("%9223372036854775807\r\n", AggregateTooLong),
        ("|4294967295\r\n", AggregateTooLong),
        (":\r\n", InvalidInteger),
        (":1.5\r\n", InvalidInteger),
        (":9223372036854775808\r\n", InvalidInteger),
        (":-9223372036854775809\r\n", InvalidInteger),
        (": 1\r\n", InvalidInteger),
        (",\r\n", InvalidDouble),
        (",1,5\r\n", InvalidDouble),
        (",\u{661}\r\n", InvalidDouble),
        ("(12a\r\n", InvalidBigNumber),
        ("(-\r\n", InvalidBigNumber),
        ("#true\r\n", InvalidBoolean),
        ("_null\r\n", InvalidNull),
        ("=3\r\ntxt\r\n", InvalidVerbatim),
        ("=5\r\nabcde\r\n", InvalidVerbatim),
        ("=-1\r\n", InvalidLength),
        ("=?\r\n", InvalidLength),
        ("+a\nb\r\n", InvalidLine),
        ("+a\rb\r\n", InvalidLine),
        (".\r\n", UnexpectedChunk),
        (";1\r\na\r\n", UnexpectedChunk),
        ("*1\r\n.\r\n", UnexpectedChunk),
        ("|0\r\n.\r\n", UnexpectedChunk),
        ("$?\r\n$1\r\na\r\n", UnexpectedChunk),
        ("$?\r\n;?\r\n", InvalidLength),
        ("$?\r\n;-1\r\n", InvalidLength),
        ("*?\r\n.x", InvalidLine),
        ("%?\r\n:1\r\n.\r\n", OddMap),
        ("|?\r\n:1\r\n.\r\n", OddMap),
    ];
    for (input, error) in table {
        assert_eq!(decode(input), Err(error), "{input:?}");
        let (frames, cut) = in_pieces(input.as_bytes().chunks(1), DecoderLimits::default());
        assert_eq!((frames.len(), cut), (0, Some(error)), "{input:?} byte by byte");
    }
}

#[test]
fn an_error_stays() {
    let mut decoder = Decoder::default();
    let mut buf = BytesMut::from("x+OK\r\n");
    for _ in 0..3 {
        assert_eq!(decoder.decode(&mut buf), Err(ProtocolError::UnknownType(b'x')));
    }
}

#[test]
fn limits_hold() {
    let limits = DecoderLimits::default().depth(3).bulk(10).aggregate(4).frame(100);
    let one = |input: &str| {
        let (mut frames, error) = in_pieces([input.as_bytes()], limits);
        error.map_or_else(|| Ok(frames.pop()), Err)
    };
    assert!(one("*1\r\n*1\r\n*1\r\n:1\r\n").unwrap().is_some());
    assert_eq!(one("*1\r\n*1\r\n*1\r\n*1\r\n"), Err(ProtocolError::TooDeep));
    assert_eq!(one("*1\r\n*1\r\n*1\r\n*0\r\n"), Err(ProtocolError::TooDeep));
    assert!(one("$10\r\n0123456789\r\n").unwrap().is_some());
    assert_eq!(one("$11\r\n"), Err(ProtocolError::BulkTooLong));
    assert_eq!(one("*1\r\n$11\r\n01234567890\r\n"), Err(ProtocolError::BulkTooLong));
    assert_eq!(one("+0123456789A"), Err(ProtocolError::BulkTooLong));
    assert_eq!(one("+0123456789A\r\n"), Err(ProtocolError::BulkTooLong));
    assert_eq!(one("*5\r\n"), Err(ProtocolError::AggregateTooLong));
    assert_eq!(one("%3\r\n"), Err(ProtocolError::AggregateTooLong));
    assert_eq!(one("*?\r\n:1\r\n:1\r\n:1\r\n:1\r\n:1\r\n.\r\n"), Err(ProtocolError::AggregateTooLong));
    let long = format!("*4\r\n{}", "*4\r\n$1\r\na\r\n$1\r\na\r\n$1\r\na\r\n$1\r\na\r\n".repeat(4));
    assert_eq!(one(&long), Err(ProtocolError::FrameTooLong));
    assert_eq!(one(&"|0\r\n".repeat(50)), Err(ProtocolError::FrameTooLong));
}

#[test]
fn limits_do_not_depend_on_how_the_bytes_are_cut() {
    let limits = DecoderLimits::default().depth(3).bulk(10).aggregate(4);
    use ProtocolError::*;
    let nines = "$9\r\n012345678\r\n";
    let table = [
        // The longest allowed line, without its end.
        ("+0123456789\r\n".to_owned(), None),
        ("+0123456789A\r\n".to_owned(), Some(BulkTooLong)),
        ("+0123456789A\nB".to_owned(), Some(BulkTooLong)),
        // An endless streamed aggregate, with an error after its limit.
        (format!("*?\r\n{}", ":1\r\n".repeat(5)), Some(AggregateTooLong)),
        (format!("*?\r\n{}x", "$1\r\na\r\n".repeat(5)), Some(AggregateTooLong)),
        (format!("*?\r\n{}x", "*1\r\n:1\r\n".repeat(5)), Some(AggregateTooLong)),
        (format!("$?\r\n{}", ";1\r\na\r\n".repeat(5)), Some(AggregateTooLong)),
        (format!("*?\r\n{}.\r\n", "$1\r\na\r\n".repeat(4)), None),
        // An error after the longest frame.
        (format!("*3\r\n*2\r\n{nines}{nines}*2\r\n{nines}{nines}x"), Some(FrameTooLong)),
        (format!("*2\r\n*4\r\n{nines}{nines}{nines}$3\r\nabc\r\n*99\r\n"), Some(FrameTooLong)),
        (format!("*4\r\n{nines}{nines}{nines}$6\r\n012345\r\n"), None),
    ];
    for (input, expected) in table {
        for piece in [1, 2, 3, 7, input.len()] {
            // The 62 bytes of the second frame that is too long, and its 6 values.
            let frame = if expected == Some(FrameTooLong) { 62 + 6 * 12 } else { 300 };
            let (frames, error) = in_pieces(input.as_bytes().chunks(piece), limits.frame(frame));
            assert_eq!((frames.len(), error), (usize::from(expected.is_none()), expected), "{input:?} by {piece}");
        }
    }
}

#[test]
fn the_deepest_values_can_be_shown_and_compared() {
    let limits = DecoderLimits::default().depth(usize::MAX);
    let deep = |depth: usize| format!("{}:1\r\n", "*1\r\n".repeat(depth));
    let (frames, error) = in_pieces([deep(512).as_bytes()], limits);
    assert_eq!(error, None);
    assert!(format!("{:?} {:#?}", frames[0], frames[0]).contains('1') && frames[0] == frames[0].clone());
    assert_eq!(in_pieces([deep(513).as_bytes()], limits).1, Some(ProtocolError::TooDeep));
}

#[test]
fn messages_about_large_replies_are_short() {
    use resp::Command;
    use resp::streams::XLen;
    let large = format!("*10000\r\n{}", "$5\r\nhello\r\n".repeat(10_000));
    let large = decode(large).unwrap().unwrap();
    let made = allocation_counter::measure(|| {
        let error = XLen::decode(large).unwrap_err();
        assert!(error.to_string().len() < 600 && error.to_string().ends_with('…'), "{error}");
    });
    assert!(made.bytes_max < 10_000, "{made:?}");
    let large = decode(format!("-ERR {}\r\n", "x".repeat(10_000_000))).unwrap().unwrap();
    let error = large.into_result().unwrap_err();
    assert!(error.to_string().len() < 5000 && error.code() == "ERR");
}

#[test]
fn a_bomb_of_depth_is_an_error() {
    for header in ["*1\r\n", "%1\r\n", "~1\r\n", ">1\r\n", "|1\r\n", "*?\r\n", "%?\r\n"] {
        assert_eq!(decode(header.repeat(1_000_000)), Err(ProtocolError::TooDeep), "{header:?}");
    }
}

#[test]
fn attributes_are_found() {
    let frame = decode("|2\r\n+a\r\n:1\r\n+b\r\n*1\r\n:2\r\n%1\r\n+k\r\n|1\r\n+x\r\n+y\r\n+v\r\n").unwrap().unwrap();
    let attributes: Vec<_> = frame.attributes().map(|(key, value)| format!("{key:?} {value:?}")).collect();
    assert_eq!(attributes, ["\"a\" 1", "\"b\" [2]"]);
    assert_eq!(frame.value().get(b"k").unwrap().as_str(), Some("v"));
    assert_eq!(decode(":1\r\n").unwrap().unwrap().attributes().count(), 0);
}

#[test]
fn attributes_of_elements_are_found() {
    let wire = "*4\r\n|1\r\n+a\r\n:1\r\n+x\r\n+y\r\n|1\r\n+b\r\n|1\r\n+lost\r\n+l\r\n:2\r\n|1\r\n+c\r\n$?\r\n;1\r\n3\r\n;1\r\n3\r\n;0\r\n\
        *2\r\n|1\r\n+d\r\n:4\r\n:1\r\n:2\r\n|1\r\n+e\r\n:5\r\n:3\r\n";
    for piece in [1, 5, wire.len()] {
        let (frames, error) = in_pieces(wire.as_bytes().chunks(piece), DecoderLimits::default());
        assert_eq!(error, None);
        let frame = &frames[0];
        assert_eq!(frame.as_wire(), wire);
        assert_eq!(format!("{frame:?}"), "[\"x\", \"y\", [1, 2], 3]");
        let shown = |value| format!("{:?}", frame.attributes_of(value));
        let elements: Vec<_> = frame.value().children().collect();
        assert_eq!(shown(frame.value()), "{}");
        assert_eq!(
            elements.iter().map(|value| shown(*value)).collect::<Vec<_>>(),
            ["{\"a\": 1}", "{}", "{\"b\": 2, \"c\": [\"3\", \"3\"]}", "{\"e\": 5}"]
        );
        assert_eq!(frame.attributes_of(elements[2]).nth(1).unwrap().1.as_int(), Some(33));
        assert_eq!(shown(elements[2].children().next().unwrap()), "{\"d\": 4}");
        // A value keeps its attributes.
        let inner = frame.extract(elements[2]);
        assert_eq!(inner.attributes().next().unwrap().1.as_int(), Some(2));
        assert_eq!(format!("{:?}", inner.attributes_of(inner.value().children().next().unwrap())), "{\"d\": 4}");
        assert_eq!(inner.value(), elements[2]);
        assert_eq!(format!("{:?}", frame.extract(elements[0]).attributes()), "{\"a\": 1}");
        // A value of another frame has none here.
        assert_eq!(format!("{:?}", inner.attributes_of(elements[0])), "{}");
    }
}

/// Otherwise the attribute would describe the next value outside.
#[test]
fn an_attribute_without_a_value_is_an_error() {
    for end in [
        "*?\r\n:1\r\n|1\r\n+a\r\n+b\r\n.\r\n",
        "*?\r\n|0\r\n.\r\n",
        "*2\r\n*?\r\n|1\r\n+a\r\n+b\r\n.\r\n:1\r\n",
        "%?\r\n+k\r\n+v\r\n|1\r\n+a\r\n+b\r\n.\r\n",
        "~?\r\n|?\r\n+a\r\n+b\r\n.\r\n.\r\n",
        "|?\r\n+k\r\n+v\r\n|1\r\n+a\r\n+b\r\n.\r\n:1\r\n",
        "*?\r\n:1\r\n|1\r\n|1\r\n+x\r\n+y\r\n+a\r\n+b\r\n|0\r\n.\r\n",
    ] {
        assert_eq!(decode(end).unwrap_err(), ProtocolError::AttributeOfNothing, "{end:?}");
    }
    let described = decode("*?\r\n|1\r\n+a\r\n+b\r\n*?\r\n.\r\n|0\r\n:1\r\n.\r\n").unwrap().unwrap();
    let first = described.value().children().next().unwrap();
    assert_eq!((described.value().children().len(), described.attributes_of(first).count()), (2, 1));
}

/// Splitting a frame into its elements is linear in its length, whatever its attributes.
#[test]
fn elements_with_attributes_are_taken_out_in_linear_time() {
    let time = |elements: usize, element: &str| {
        let wire = format!("*{elements}\r\n{}", element.repeat(elements));
        let frame = decode(&wire).unwrap().unwrap();
        let begun = on_processor();
        let taken: Vec<_> = frame.value().children().map(|element| frame.extract(element)).collect();
        assert!(taken.iter().all(|element| element.attributes().count() == 1));
        on_processor().saturating_sub(begun)
    };
    for element in [
        "|1\r\n+a\r\n+b\r\n:1\r\n",
        "|1\r\n+a\r\n*2\r\n|1\r\n+x\r\n+y\r\n:1\r\n:2\r\n*1\r\n|1\r\n+c\r\n+d\r\n:2\r\n",
        "|0\r\n|1\r\n+a\r\n$?\r\n;1\r\na\r\n;1\r\nb\r\n;0\r\n$?\r\n;1\r\nc\r\n;1\r\nd\r\n;0\r\n",
    ] {
        // The quadratic version took ten seconds.
        let time = time(20_000, element);
        assert!(time < std::time::Duration::from_secs(2), "{time:?} for {element:?}");
    }
}

/// Returns the CPU time of this thread, which other load on the machine does not affect.
fn on_processor() -> std::time::Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    std::time::Duration::from_nanos(stat.split(' ').next().and_then(|nanos| nanos.parse().ok()).unwrap_or(0))
}

#[test]
fn streamed_strings_are_strings() {
    let wire = "*5\r\n$?\r\n;2\r\nab\r\n;1\r\nc\r\n;0\r\n$?\r\n;0\r\n$?\r\n;2\r\n42\r\n;0\r\n*1\r\n$?\r\n;1\r\n4\r\n;1\r\n3\r\n;0\r\n+z\r\n";
    for piece in [1, 3, wire.len()] {
        let (frames, error) = in_pieces(wire.as_bytes().chunks(piece), DecoderLimits::default());
        assert_eq!(error, None);
        let frame = &frames[0];
        assert_eq!(frame.as_wire(), wire);
        let [abc, empty, n, inner, z] = frame.value().children().collect::<Vec<_>>()[..] else { panic!("five") };
        assert_eq!((abc.as_str(), abc.children().len()), (Some("abc"), 2));
        assert_eq!((empty.as_bytes(), empty.children().len()), (Some(&b""[..]), 0));
        assert_eq!((n.as_int(), n.as_u64(), n.as_f64()), (Some(42), Some(42), Some(42.0)));
        let forty_three = inner.children().next().unwrap();
        assert_eq!((forty_three.as_int(), z.as_str()), (Some(43), Some("z")));
        let slice = frame.slice(abc);
        assert_eq!((slice.as_ptr(), &slice[..]), (abc.as_bytes().unwrap().as_ptr(), &b"abc"[..]));
        assert_eq!(frame.extract(abc).value().as_str(), Some("abc"));
        assert_eq!(frame.extract(inner).value(), inner);
    }
    let map =
        decode("%1\r\n$?\r\n;1\r\nk\r\n;1\r\ney\r\n;0\r\n:1\r\n".replace(";1\r\ney", ";2\r\ney")).unwrap().unwrap();
    assert_eq!(map.value().get(b"key").and_then(resp::Value::as_int), Some(1));
}

/// Typed commands decode them.
#[test]
fn entries_of_streamed_strings() {
    use resp::Command;
    use resp::streams::XRange;
    let wire = "*?\r\n*2\r\n$?\r\n;2\r\n5-\r\n;1\r\n1\r\n;0\r\n*2\r\n$?\r\n;4\r\nline\r\n;0\r\n$?\r\n;3\r\nto \r\n;2\r\nbe\r\n;0\r\n.\r\n";
    let entries = XRange::decode(decode(wire).unwrap().unwrap()).unwrap();
    let entry = entries.first().unwrap();
    assert_eq!((entry.id, entry.field(b"line")), (StreamId::new(5, 1), Some(&b"to be"[..])));
}

#[test]
fn the_limit_of_a_frame_is_one_of_memory() {
    let limit = 1 << 20;
    // The shortest values; each takes 12 bytes on the tape.
    let many = limit / 3;
    for wire in [
        format!("*{many}\r\n{}", "_\r\n".repeat(many)),
        format!("*?\r\n{}", "_\r\n".repeat(many)),
        format!("*{many}\r\n{}", "*?\r\n.\r\n".repeat(many / 2)),
        format!("*{many}\r\n{}", "|0\r\n+\r\n".repeat(many / 2)),
        format!("*{many}\r\n{}", "$?\r\n;2\r\nxx\r\n;9000\r\n".repeat(many / 2)),
        format!("$?\r\n{}", ";1\r\nx\r\n".repeat(many / 2)),
    ] {
        let wire = wire.into_bytes();
        let made = allocation_counter::measure(|| {
            let (frames, error) = in_pieces(wire.chunks(16 << 10), DecoderLimits::default().frame(limit));
            assert_eq!(frames.len(), 0);
            assert!(error.is_some());
        });
        assert!(
            made.bytes_max < 3 * limit as u64,
            "{made:?} for {:?}",
            wire.get(..30).map(<[u8]>::escape_ascii).map(|text| text.to_string())
        );
    }
    // Three values of 4 bytes fit in exactly this limit.
    let wire = "*3\r\n:1\r\n:2\r\n:3\r\n";
    assert!(
        Decoder::new(DecoderLimits::default().frame(16 + 3 * 12)).decode(&mut BytesMut::from(wire)).unwrap().is_some()
    );
    let less = Decoder::new(DecoderLimits::default().frame(16 + 3 * 12 - 1)).decode(&mut BytesMut::from(wire));
    assert_eq!(less, Err(ProtocolError::FrameTooLong));
}

#[test]
fn values_answer_what_they_can() {
    let one = |text: &str| decode(text).unwrap().unwrap();
    assert_eq!(one("=15\r\nmkd:Some string\r\n").value().format(), Some(&b"mkd"[..]));
    assert_eq!(one("$2\r\n42\r\n").value().as_int(), Some(42));
    assert_eq!(one(":-42\r\n").value().as_u64(), None);
    assert_eq!(one(":+42\r\n").value().as_u64(), Some(42));
    assert_eq!(one(",1.5\r\n").value().as_f64(), Some(1.5));
    assert!(one(",nan\r\n").value().as_f64().unwrap().is_nan());
    assert_eq!(one(":1\r\n").value().as_bool(), Some(true));
    assert_eq!(one("#f\r\n").value().as_bool(), Some(false));
    assert_eq!(one("-ERR x\r\n").value().as_error(), Some(&b"ERR x"[..]));
    let array = one("*2\r\n*1\r\n:1\r\n$1\r\nx\r\n");
    let [first, second] = array.value().children().collect::<Vec<_>>()[..] else { panic!("two children") };
    assert_eq!((first.as_bytes(), first.as_int(), first.children().len()), (None, None, 1));
    assert_eq!(second.children().count(), 0);
    let inner = array.extract(first);
    assert_eq!((inner.kind(), inner.value().children().next().unwrap().as_int()), (ValueKind::Array, Some(1)));
    let alone = array.extract(second);
    assert_eq!(alone.value().as_str(), Some("x"));
    // A value of another frame is copied.
    assert_eq!(one(":1\r\n").extract(second).value().as_str(), Some("x"));
    assert_eq!(one(":1\r\n").slice(second), "x");
}

#[test]
fn slices_share_the_buffer() {
    let frame = decode("*2\r\n$5\r\nhello\r\n$0\r\n\r\n").unwrap().unwrap();
    let child = frame.value().children().next().unwrap();
    let slice = frame.slice(child);
    assert_eq!(slice.as_ptr(), child.as_bytes().unwrap().as_ptr());
}

/// A value of any kind, encoded.
fn value() -> impl Strategy<Value = Vec<u8>> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..40);
    let line = || "[a-zA-Z0-9 _\u{e4}]{0,20}";
    let bulk = |marker: char, bytes: Vec<u8>| {
        let mut out = format!("{marker}{}\r\n", bytes.len()).into_bytes();
        out.extend(bytes);
        out.extend(b"\r\n");
        out
    };
    let leaf = prop_oneof![
        4 => bytes().prop_map(move |bytes| bulk('$', bytes)),
        1 => bytes().prop_map(move |bytes| bulk('!', bytes)),
        1 => bytes().prop_map(move |bytes| bulk('=', [b"txt:", &bytes[..]].concat())),
        1 => line().prop_map(|text| format!("+{text}\r\n").into_bytes()),
        1 => line().prop_map(|text| format!("-{text}\r\n").into_bytes()),
        1 => any::<i64>().prop_map(|n| format!(":{n}\r\n").into_bytes()),
        1 => any::<f64>().prop_map(|n| format!(",{n:e}\r\n").into_bytes()),
        1 => "[+-]?[0-9]{1,40}".prop_map(|n| format!("({n}\r\n").into_bytes()),
        1 => prop::sample::select(vec!["$-1\r\n", "*-1\r\n", "_\r\n", "#t\r\n", "#f\r\n", "*0\r\n", "%0\r\n"])
            .prop_map(|text| text.as_bytes().to_vec()),
        1 => prop::collection::vec(prop::collection::vec(any::<u8>(), 1..9), 0..4).prop_map(move |chunks| {
            let mut out = b"$?\r\n".to_vec();
            chunks.into_iter().for_each(|chunk| out.extend(bulk(';', chunk)));
            out.extend(b";0\r\n");
            out
        }),
    ];
    leaf.prop_recursive(4, 64, 8, |inner| {
        let aggregate = |marker: char, size: usize, parts: Vec<Vec<u8>>| {
            [format!("{marker}{}\r\n", parts.len() / size).into_bytes(), parts.concat()].concat()
        };
        let streamed = |marker: char, parts: Vec<Vec<u8>>| {
            [format!("{marker}?\r\n").into_bytes(), parts.concat(), b".\r\n".to_vec()].concat()
        };
        let list = prop::collection::vec(inner.clone(), 0..8);
        let map = prop::collection::vec((inner.clone(), inner.clone()), 0..4)
            .prop_map(|pairs| pairs.into_iter().flat_map(|(key, value)| [key, value]).collect::<Vec<_>>());
        prop_oneof![
            (prop::sample::select(vec!['*', '~', '>']), list.clone())
                .prop_map(move |(marker, parts)| aggregate(marker, 1, parts)),
            map.clone().prop_map(move |parts| aggregate('%', 2, parts)),
            (prop::sample::select(vec!['*', '~']), list).prop_map(move |(marker, parts)| streamed(marker, parts)),
            map.clone().prop_map(move |parts| streamed('%', parts)),
            (map, inner).prop_map(move |(parts, value)| [aggregate('|', 2, parts), value].concat()),
        ]
    })
}

proptest! {
    #[test]
    fn any_cut_gives_the_same_frames(
        values in prop::collection::vec(value(), 1..4),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
    ) {
        let bytes = values.concat();
        let (whole, error) = in_pieces([&bytes[..]], DecoderLimits::default());
        prop_assert_eq!(error, None);
        prop_assert_eq!(whole.len(), values.len());
        for (frame, value) in whole.iter().zip(&values) {
            prop_assert_eq!(frame.as_wire(), value);
        }
        let (each, error) = in_pieces(bytes.chunks(1), DecoderLimits::default());
        prop_assert_eq!(error, None);
        prop_assert_eq!(&each, &whole);

        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        let pieces: Vec<_> = cuts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
        let (cut, error) = in_pieces(pieces, DecoderLimits::default());
        prop_assert_eq!(error, None);
        prop_assert_eq!(&cut, &whole);
    }

    #[test]
    fn any_bytes_do_no_harm(
        bytes in prop::collection::vec(prop_oneof![
            4 => prop::sample::select(b"$*%~>|=!+-:_#,(;.?\r\n0123".to_vec()),
            2 => Just(b'\r'), 2 => Just(b'\n'), 1 => any::<u8>()], 0..200),
        at in any::<prop::sample::Index>(),
    ) {
        let limits = DecoderLimits::default().depth(5).bulk(100).aggregate(50).frame(150);
        let (whole, error) = in_pieces([&bytes[..]], limits);
        let at = at.index(bytes.len() + 1);
        let (cut, cut_error) = in_pieces([&bytes[..at], &bytes[at..]], limits);
        prop_assert_eq!(whole, cut);
        prop_assert_eq!(error, cut_error);
    }

    #[test]
    fn damaged_frames_do_no_harm(bytes in value(), at in any::<prop::sample::Index>(), byte: u8) {
        let mut bytes = bytes;
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let (whole, error) = in_pieces([&bytes[..]], DecoderLimits::default());
        let (cut, cut_error) = in_pieces(bytes.chunks(1), DecoderLimits::default());
        prop_assert_eq!(whole, cut);
        prop_assert_eq!(error, cut_error);
    }

    #[test]
    fn commands_round_trip(name in "[A-Z]{1,12}", args in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..20)) {
        let mut out = BytesMut::new();
        let mut codec = RespCodec::default();
        codec.encode(&cmd::<Frame>(&name).args(&args), &mut out).unwrap();
        let frame = codec.decode(&mut out).unwrap().unwrap();
        let parts: Vec<_> = frame.value().children().map(|part| part.as_bytes().unwrap().to_vec()).collect();
        prop_assert_eq!(&parts[0], name.as_bytes());
        prop_assert_eq!(&parts[1..], &args);
        prop_assert!(out.is_empty());
    }

    #[test]
    fn ids_and_numbers_round_trip(ms: u64, seq: u64, n: i64, m: u64) {
        let mut out = BytesMut::new();
        let mut codec = RespCodec::default();
        codec.encode(&cmd::<Frame>("X").arg(StreamId::new(ms, seq)).arg(n).arg(m), &mut out).unwrap();
        let frame = codec.decode(&mut out).unwrap().unwrap();
        let parts: Vec<_> = frame.value().children().map(|part| part.as_str().unwrap().to_owned()).collect();
        prop_assert_eq!(&parts[1..], &[format!("{ms}-{seq}"), n.to_string(), m.to_string()]);
    }
}

#[test]
fn work_is_linear_however_the_bytes_are_cut() {
    // A frame of 2 MB that arrives byte by byte takes seconds if anything is read twice, and
    // milliseconds otherwise.
    let mut bytes = Vec::new();
    bytes.put_slice(b"*3\r\n$1000000\r\n");
    bytes.resize(bytes.len() + 1_000_000, b'x');
    bytes.put_slice(b"\r\n+");
    bytes.resize(bytes.len() + 500_000, b'y');
    bytes.put_slice(b"\r\n*100000\r\n");
    bytes.extend(b":1\r\n".repeat(100_000));
    let mut decoder = Decoder::default();
    let mut buf = BytesMut::with_capacity(bytes.len());
    let began = std::time::Instant::now();
    let mut frames = 0;
    for byte in bytes {
        buf.put_u8(byte);
        frames += usize::from(decoder.decode(&mut buf).unwrap().is_some());
    }
    assert_eq!(frames, 1);
    assert!(began.elapsed() < std::time::Duration::from_secs(20), "{:?}", began.elapsed());
}
