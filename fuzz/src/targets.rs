//! The bodies of the fuzz targets: each takes any bytes and panics when a promise is broken.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::str::FromStr;
use std::time::Duration;

use bytes::BytesMut;
use resp::streams::*;
use resp::{
    BlockTimeout, Command, Config, Decoder, DecoderLimits, Frame, ProtocolError, RespCodec, StreamId, Value, ValueKind,
    cmd,
};
use tokio_util::codec::Encoder;

/// A name, and what it does with an input.
pub type Target = (&'static str, fn(&[u8]));

/// All targets by name; the corpus of each lies in a folder of its name.
#[allow(dead_code, reason = "used by the test that runs the corpus")]
pub const TARGETS: [Target; 5] =
    [("decoder", decoder), ("commands", commands), ("replies", replies), ("url", url), ("stream_id", stream_id)];

/// Takes small decisions off the front of the input.
struct Choices<'a>(&'a [u8]);

impl<'a> Choices<'a> {
    fn byte(&mut self) -> u8 {
        let Some((&first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        first
    }

    fn flag(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    fn number(&mut self) -> u64 {
        let len = usize::from(self.byte() % 9);
        self.bytes(len).iter().fold(0, |n, byte| n << 8 | u64::from(*byte))
    }

    fn id(&mut self) -> StreamId {
        StreamId::new(self.number(), self.number())
    }

    fn bytes(&mut self, len: usize) -> &'a [u8] {
        let (bytes, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        bytes
    }

    /// Any bytes, with their length before them.
    fn text(&mut self) -> &'a [u8] {
        let len = usize::from(self.byte());
        self.bytes(len)
    }
}

/// The frames of a stream that comes in pieces, why it ended, and what was left.
fn decode(
    bytes: &[u8],
    limits: DecoderLimits,
    mut piece: impl FnMut() -> usize,
) -> (Vec<Frame>, Option<ProtocolError>, usize) {
    let mut decoder = Decoder::new(limits);
    let mut buf = BytesMut::new();
    let mut frames = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let (next, behind) = rest.split_at(piece().clamp(1, rest.len()));
        rest = behind;
        buf.extend_from_slice(next);
        loop {
            match decoder.decode(&mut buf) {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => {
                    assert_eq!(decoder.decode(&mut buf), Err(error), "an error stays");
                    return (frames, Some(error), 0);
                }
            }
        }
    }
    let left = buf.len();
    assert!(left == 0 || decoder.needed() > left, "{} needed of {left}", decoder.needed());
    (frames, None, left)
}

/// Any cut of any bytes gives the same frames, the same error and the same rest as the whole; a
/// frame's bytes decode to that frame; memory follows the bytes that came. Input: the limits, how
/// many cuts, the lengths of the pieces, then RESP.
pub fn decoder(data: &[u8]) {
    let mut choices = Choices(data);
    let limits = match choices.byte() % 4 {
        0 => DecoderLimits::default().depth(3).bulk(10).aggregate(4).frame(64),
        1 => DecoderLimits::default().depth(8).bulk(64).aggregate(50).frame(300),
        2 => DecoderLimits::default().depth(usize::MAX).bulk(usize::MAX).aggregate(usize::MAX).frame(usize::MAX),
        _ => DecoderLimits::default(),
    };
    let cuts = choices.byte() % 16;
    let pieces = choices.bytes(usize::from(cuts));
    let bytes = choices.0;

    let whole = decode(bytes, limits, || usize::MAX);
    let mut cuts = pieces.iter().cycle();
    let cut = decode(bytes, limits, || cuts.next().map_or(1, |piece| usize::from(*piece)));
    assert_eq!((&whole.0, whole.1, whole.2), (&cut.0, cut.1, cut.2));

    let mut taken = 0;
    for frame in &whole.0 {
        let wire = frame.as_wire();
        assert_eq!(&bytes[taken..][..wire.len()], wire);
        taken += wire.len();
        // NaN is written in several ways, but it is the same text here.
        let (again, error, left) = decode(wire, limits, || usize::MAX);
        assert_eq!((again.len(), error, left), (1, None, 0));
        assert!(again[0] == *frame && !format!("{frame:?}").is_empty());
        walk(frame, frame.value());
        frame.attributes().for_each(|(key, value)| {
            walk(frame, key);
            walk(frame, value);
        });
    }
    let memory = allocation_counter::measure(|| {
        let mut decoder = Decoder::new(limits);
        let mut buf = BytesMut::from(bytes);
        while let Ok(Some(_)) = decoder.decode(&mut buf) {}
    });
    // Room for what a header announces, 64 times what has come, and the tape.
    assert!(memory.bytes_max <= 4096 + 96 * bytes.len() as u64, "{} for {} bytes", memory.bytes_max, bytes.len());
}

/// Asks a value everything.
fn walk(frame: &Frame, value: Value<'_>) {
    let children = value.children();
    assert_eq!(children.len(), value.children().len());
    assert_eq!(children.count(), value.children().len());
    assert!(frame.extract(value).value() == value);
    assert_eq!(frame.slice(value), value.as_bytes().unwrap_or_default());
    if value.kind() == ValueKind::StreamedString {
        let chunks: Vec<_> = value.children().filter_map(Value::as_bytes).collect();
        assert_eq!(value.as_bytes(), Some(&chunks.concat()[..]));
    }
    assert_eq!(frame.attributes_of(value).count(), frame.extract(value).attributes().count());
    if let (Some(n), Some(m)) = (value.as_int(), value.as_u64()) {
        assert_eq!(n as u64, m);
    }
    match value.kind() {
        ValueKind::Integer => assert!(value.as_int().is_some()),
        ValueKind::Double => assert!(value.as_f64().is_some()),
        ValueKind::Boolean => assert!(value.as_bool().is_some()),
        ValueKind::VerbatimString => assert_eq!(value.format().map(<[u8]>::len), Some(3)),
        ValueKind::Map => assert_eq!(value.children().len() % 2, 0),
        _ => {}
    }
    for child in value.children() {
        walk(frame, child);
    }
}

/// Every command is one array of bulk strings, which begins with its name and holds what it was
/// given.
pub fn commands(data: &[u8]) {
    let mut c = Choices(data);
    let which = c.byte() % 20;
    let (key, group, name) = (c.text(), c.text(), c.text());
    let ids: Vec<StreamId> = (0..c.byte() % 5 + 1).map(|_| c.id()).collect();
    let time = Duration::from_nanos(c.number());
    match which {
        0 => {
            let fields: Vec<_> = (0..c.byte() % 5).map(|_| (c.text(), c.text())).collect();
            let id = match c.byte() % 3 {
                0 => AddId::Auto,
                1 => AddId::AutoSeq(c.number()),
                _ => AddId::Id(c.id()),
            };
            let mut add = XAdd::new(key, id, &fields);
            let no_create = c.flag();
            if c.flag() {
                add = add.references(references(&mut c));
            }
            match c.byte() % 3 {
                0 => add = add.once(group, name),
                1 => add = add.once_by_content(group),
                _ => {}
            }
            if c.flag() {
                add = add.trim(trim(&mut c));
            }
            let words = if no_create { check(&add.no_create(), &[key]) } else { check(&add, &[key]) };
            let written = fields.iter().flat_map(|(field, value)| [field.to_vec(), value.to_vec()]);
            assert!(words.ends_with(&written.collect::<Vec<_>>()));
        }
        1 => drop(check(&XTrim::new(key, trim(&mut c)), &[key])),
        2 => {
            let from = if c.flag() { ReadFrom::New } else { ReadFrom::After(c.id()) };
            let mut read = XRead::new(key, from).and(group, ReadFrom::Last);
            if c.flag() {
                read = read.count(c.number()).max_count(c.number()).max_size(c.number());
            }
            check(read.block(BlockTimeout::For(time)).command(), &[key, group]);
        }
        3 => {
            let from = if c.flag() { GroupFrom::New } else { GroupFrom::Pending(c.id()) };
            let mut read = XReadGroup::new(key, group, name, from);
            if c.flag() {
                read = read.count(c.number()).no_ack();
            }
            if c.flag() {
                read = read.claim(time).and(name, GroupFrom::New);
            }
            check(&read, &[group, name, key]);
        }
        4 => drop(check(&XAck::new(key, group, &ids), &[key, group])),
        5 => drop(check(&XAckDel::new(key, group, &ids).references(references(&mut c)), &[key, group])),
        6 => drop(check(&XNack::new(key, group, NackReason::Fail, &ids).retry_count(c.number()), &[key, group])),
        7 => drop(check(&XPending::new(key, group), &[key, group])),
        8 => {
            drop(check(
                &XPending::new(key, group).entries(c.id()..c.id(), c.number()).consumer(name),
                &[key, group, name],
            ));
        }
        9 => drop(check(&XClaim::new(key, group, name, time, &ids).idle(time).force(), &[key, group, name])),
        10 => drop(check(&XClaim::new(key, group, name, time, &ids).just_id(), &[key, group, name])),
        11 => drop(check(&XAutoClaim::new(key, group, name, time, c.id()).count(c.number()), &[key, group, name])),
        12 => drop(check(&XDelEx::new(key, &ids), &[key])),
        13 => drop(check(&XSetId::new(key, c.id()).counters(c.number(), c.id()), &[key])),
        14 => drop(check(&XGroupCreate::new(key, group, c.id()).entries_read(c.number()), &[key, group])),
        15 => drop(check(&XCfgSet::new(key).once_for(time).once_at_most(c.number()), &[key])),
        16 => drop(check(&XRange::new(key, c.id()..=c.id()).count(c.number()), &[key])),
        17 => drop(check(&XInfoStream::new(key).full().count(c.number()), &[key])),
        18 => drop(check(&XDel::new(key, &ids), &[key])),
        _ => {
            let args: Vec<_> = (0..c.byte()).map(|_| c.text()).collect();
            let words = check(&cmd::<Frame>("CONFIG GET").args(&args), &args);
            assert_eq!(words.len(), 2 + args.len());
        }
    }
}

fn references(choices: &mut Choices<'_>) -> References {
    [References::Keep, References::Delete, References::Acknowledged][usize::from(choices.byte() % 3)]
}

fn trim(choices: &mut Choices<'_>) -> Trim {
    let trim = if choices.flag() { Trim::max_len(choices.number()) } else { Trim::min_id(choices.id()) };
    let trim = if choices.flag() { trim.limit(choices.number()) } else { trim };
    if choices.flag() { trim.references(references(choices)) } else { trim }
}

/// The words of a command as the server reads them.
fn check(command: &impl Command, holds: &[&[u8]]) -> Vec<Vec<u8>> {
    let mut out = BytesMut::new();
    RespCodec::default().encode(command, &mut out).unwrap();
    let frame = Decoder::default().decode(&mut out).unwrap().unwrap();
    assert!(out.is_empty() && frame.kind() == ValueKind::Array);
    assert!(frame.value().children().all(|word| word.kind() == ValueKind::BulkString));
    let words: Vec<_> = frame.value().children().map(|word| word.as_bytes().unwrap().to_vec()).collect();
    for (word, name) in words.iter().zip(command.name().split(' ')) {
        assert_eq!(word, name.as_bytes());
    }
    let set: HashSet<&[u8]> = words.iter().map(Vec::as_slice).collect();
    assert!(holds.iter().all(|part| set.contains(part)));
    words
}

/// Whatever a server answers is a typed value or an error, and going through it is safe.
pub fn replies(data: &[u8]) {
    let (frames, _, _) = decode(data, DecoderLimits::default(), || usize::MAX);
    for frame in frames.into_iter().take(16) {
        let mut shown = String::new();
        if frame.kind().is_error() {
            let _ = write!(shown, "{:?}", frame.clone().into_result());
        }
        let ids = [StreamId::MIN];
        let fields = [("f", "v")];
        let ms = Duration::ZERO;
        typed(&XAdd::new("s", AddId::Auto, &fields), &frame, |_| ());
        typed(&XLen::new("s"), &frame, |_| ());
        typed(&XTrim::new("s", Trim::max_len(1)), &frame, |_| ());
        typed(&XRange::new("s", ..), &frame, |entries| {
            entries_are_sound(entries.as_slice(), |part| entries.share(part));
        });
        typed(&XReadGroup::new("s", "g", "c", GroupFrom::New), &frame, |read| {
            entries_are_sound(read.entries(), |part| read.share(part));
            assert_eq!(read.streams().map(|(_, entries)| entries.len()).sum::<usize>(), read.len());
        });
        typed(&XClaim::new("s", "g", "c", ms, &ids), &frame, |entries| {
            entries_are_sound(entries.as_slice(), |part| entries.share(part));
        });
        typed(&XAutoClaim::new("s", "g", "c", ms, ids[0]), &frame, |claimed| {
            entries_are_sound(claimed.entries.as_slice(), |part| claimed.entries.share(part));
        });
        typed(&XClaim::new("s", "g", "c", ms, &ids).just_id(), &frame, |_| ());
        typed(&XAutoClaim::new("s", "g", "c", ms, ids[0]).just_id(), &frame, |_| ());
        typed(&XPending::new("s", "g"), &frame, |_| ());
        typed(&XPending::new("s", "g").entries(.., 1), &frame, |_| ());
        typed(&XAckDel::new("s", "g", &ids), &frame, |_| ());
        typed(&XGroupDestroy::new("s", "g"), &frame, |_| ());
        typed(&XSetId::new("s", ids[0]), &frame, |_| ());
        typed(&XInfoStream::new("s"), &frame, |info| {
            let _ = format!("{:?} {:?}", info.first_entry(), info.last_entry());
        });
        typed(&XInfoStream::new("s").full(), &frame, |info| {
            entries_are_sound(info.entries.as_slice(), |part| info.entries.share(part));
        });
        typed(&XInfoGroups::new("s"), &frame, |_| ());
        typed(&XInfoConsumers::new("s", "g"), &frame, |_| ());
    }
}

fn typed<C: Command<Reply: std::fmt::Debug>>(_: &C, frame: &Frame, sound: impl FnOnce(&C::Reply)) {
    match C::decode(frame.clone()) {
        Ok(reply) => {
            let _ = format!("{reply:?}");
            sound(&reply);
        }
        // Hostile replies make no long errors.
        Err(error) => assert!(format!("{error} {error:?}").len() < 20_000),
    }
}

fn entries_are_sound(entries: EntrySlice<'_>, share: impl Fn(&[u8]) -> bytes::Bytes) {
    assert_eq!(entries.len(), entries.iter().count());
    assert!(entries.ids().eq(entries.iter().map(|entry| entry.id)));
    for (position, entry) in entries.iter().enumerate() {
        assert_eq!(StreamId::parse(entry.id_bytes), Some(entry.id));
        assert_eq!(entries.get(position).map(|entry| entry.id), Some(entry.id));
        let Some(fields) = entry.fields else { continue };
        assert_eq!(fields.len(), fields.count());
        for (field, value) in fields {
            assert!(entry.field(field).is_some());
            assert_eq!(share(value), value);
        }
    }
}

/// No URL panics; what is shown of one is a URL again; a password is never shown, however it is
/// mangled.
pub fn url(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Ok(config) = Config::from_url(&text) {
        let _ = format!("{config} {config:?} {:?}", config.endpoint());
    }
    const SECRET: &str = "s3cret";
    if text.contains(SECRET) {
        return;
    }
    let middle = text.char_indices().nth(text.chars().count() / 2).map_or(0, |(at, _)| at);
    let (before, behind) = text.split_at(middle);
    for url in [
        format!("redis://user:{before}{SECRET}{behind}@host:7/1"),
        format!("redis://:{text}{SECRET}@host"),
        format!("redis://{text}:{SECRET}@host/{behind}?db=1"),
    ] {
        // What stands behind a second `@` is no part of the password.
        let shown = match Config::from_url(&url) {
            Ok(config) => format!("{config} {config:?}"),
            Err(error) => format!("{error} {error:?}"),
        };
        assert!(!shown.contains(SECRET), "{url:?} shows {shown}");
    }
}

/// Stream IDs are read as two numbers of the standard library would be, and come back as they were.
pub fn stream_id(data: &[u8]) {
    let digits = |text: &str| {
        let is_number = !text.is_empty() && text.len() <= 20 && text.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| text.parse().ok()).flatten()
    };
    let expected = std::str::from_utf8(data)
        .ok()
        .and_then(|text| text.split_once('-'))
        .and_then(|(ms, seq)| Some(StreamId::new(digits(ms)?, digits(seq)?)));
    let parsed = StreamId::parse(data);
    assert_eq!(parsed, expected);
    let Some(id) = parsed else { return };
    assert_eq!(StreamId::from_str(&id.to_string()), Ok(id));
    assert!(id.next().is_none_or(|next| next > id && next.previous() == Some(id)));
    assert!(id.previous().is_none_or(|previous| previous < id && previous.next() == Some(id)));
}
