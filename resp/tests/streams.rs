//! The stream commands on a real server, in RESP2 and RESP3.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

mod support;

use std::time::{Duration, Instant};

use resp::streams::*;
use resp::{BlockTimeout, ErrorKind, Frame, Pipeline, RespVersion, StreamId, Transaction, cmd};
use support::Server;

fn id(ms: u64, seq: u64) -> StreamId {
    StreamId::new(ms, seq)
}

#[tokio::test]
async fn both_protocols_give_the_same_values() {
    let server = Server::start();
    let is_7 = server.since((7, 0), "half-given IDs, counters, deleted IDs of XAUTOCLAIM, lag").await;
    let [two, three] = server.both().await;
    assert_eq!((two.protocol(), three.protocol()), (RespVersion::Resp2, RespVersion::Resp3));
    for mut connection in [two, three] {
        connection.send(cmd::<()>("FLUSHALL")).await.unwrap();
        let c = &mut connection;

        // Nothing there yet.
        assert_eq!(c.send(XLen::new("s")).await.unwrap(), 0);
        assert!(c.send(XRange::new("s", ..)).await.unwrap().is_empty());
        assert!(c.send(XRead::new("s", StreamId::ZERO)).await.unwrap().is_empty());
        let missing = c.send(XInfoStream::new("s")).await.unwrap_err();
        assert_eq!(missing.kind(), ErrorKind::NoSuchKey, "{missing}");
        let missing = c.send(XInfoGroups::new("s")).await.unwrap_err();
        assert_eq!(missing.kind(), ErrorKind::NoSuchKey, "{missing}");
        let missing = c.send(XGroupCreate::new("s", "g", StreamId::ZERO)).await.unwrap_err();
        assert_eq!(missing.kind(), ErrorKind::NoSuchKey, "{missing}");
        let missing = c.send(XReadGroup::new("s", "g", "c", GroupFrom::New)).await.unwrap_err();
        assert_eq!((missing.kind(), missing.code()), (ErrorKind::NoGroup, "NOGROUP"), "{missing}");
        assert!(missing.to_string().starts_with("XREADGROUP s: NOGROUP"), "{missing}");

        // Adding.
        let fields = [(&b"line"[..], &b"\0\r\n\xff"[..]), (b"", b""), (b"line", b"again")];
        assert_eq!(c.send(XAdd::new("s", id(5, 1), &fields)).await.unwrap(), id(5, 1));
        let second = if is_7 { AddId::AutoSeq(5) } else { id(5, 2).into() };
        assert_eq!(c.send(XAdd::new("s", second, &fields)).await.unwrap(), id(5, 2));
        let small = c.send(XAdd::new("s", id(5, 2), &fields)).await.unwrap_err();
        assert_eq!(small.kind(), ErrorKind::IdTooSmall, "{small}");
        assert_eq!(c.send(XAdd::new("none", AddId::Auto, &fields).no_create()).await.unwrap(), None);
        let auto = c.send(XAdd::new("s", AddId::Auto, &fields)).await.unwrap();
        assert!(auto > id(5, 2));
        assert_eq!(c.send(XLen::new("s")).await.unwrap(), 3);

        // Reading.
        let entries = c.send(XRange::new("s", id(5, 1)..=id(5, 2))).await.unwrap();
        assert_eq!(entries.ids().collect::<Vec<_>>(), [id(5, 1), id(5, 2)]);
        for entry in &entries {
            assert_eq!(entry.fields.unwrap().collect::<Vec<_>>(), fields);
            assert_eq!(entry.id_bytes, entry.id.to_string().as_bytes());
            assert_eq!(entry.field(b"line"), Some(&b"\0\r\n\xff"[..]));
            assert_eq!(entries.share(entry.field(b"line").unwrap()), &b"\0\r\n\xff"[..]);
        }
        let backwards = c.send(XRevRange::new("s", ..auto).count(1)).await.unwrap();
        assert_eq!(backwards.ids().collect::<Vec<_>>(), [id(5, 2)]);

        // A group.
        let create = XGroupCreate::new("s", "g", StreamId::ZERO).make_stream();
        c.send(&create).await.unwrap();
        assert_eq!(c.send(&create).await.unwrap_err().kind(), ErrorKind::BusyGroup);
        let read = c.send(XReadGroup::new("s", "g", "c", GroupFrom::New).count(2)).await.unwrap();
        assert_eq!(read.ids().collect::<Vec<_>>(), [id(5, 1), id(5, 2)]);
        let streams: Vec<_> = read.streams().map(|(key, entries)| (key.to_vec(), entries.len())).collect();
        assert_eq!(streams, [(b"s".to_vec(), 2)]);

        let pending = c.send(XPending::new("s", "g")).await.unwrap();
        assert_eq!((pending.count, pending.first, pending.last), (2, Some(id(5, 1)), Some(id(5, 2))));
        assert_eq!(pending.consumers, [("c".into(), 2)]);
        let one_by_one = XPending::new("s", "g").entries(.., 10).consumer("c").idle(Duration::ZERO);
        let one_by_one = c.send(&one_by_one).await.unwrap();
        assert_eq!(
            one_by_one.iter().map(|entry| (entry.id, entry.deliveries)).collect::<Vec<_>>(),
            [(id(5, 1), 1), (id(5, 2), 1)]
        );

        // An entry that is deleted while it is pending has an ID and no fields.
        assert_eq!(c.send(XDel::new("s", &[id(5, 1)])).await.unwrap(), 1);
        let again = c.send(XReadGroup::new("s", "g", "c", GroupFrom::Pending(StreamId::ZERO))).await.unwrap();
        let again: Vec<_> = again.into_iter().map(|entry| (entry.id, entry.fields.is_some())).collect();
        assert_eq!(again, [(id(5, 1), false), (id(5, 2), true)]);

        // Another consumer takes over.
        let claimed = c.send(XClaim::new("s", "g", "d", Duration::ZERO, [id(5, 2)])).await.unwrap();
        assert_eq!(claimed.ids().collect::<Vec<_>>(), [id(5, 2)]);
        let ids = c.send(XClaim::new("s", "g", "e", Duration::ZERO, [id(5, 2)]).just_id()).await.unwrap();
        assert_eq!(ids, [id(5, 2)]);
        let claimed = c.send(XAutoClaim::new("s", "g", "d", Duration::ZERO, StreamId::ZERO)).await.unwrap();
        assert_eq!(claimed.next, StreamId::ZERO);
        assert_eq!(claimed.entries.ids().collect::<Vec<_>>(), [id(5, 2)]);
        // Before, deleted entries stayed pending; acknowledge them here.
        assert_eq!(claimed.deleted, if is_7 { vec![id(5, 1)] } else { vec![] });

        let acknowledged = c.send(XAck::new("s", "g", [id(5, 1), id(5, 2), id(9, 9)])).await.unwrap();
        assert_eq!(acknowledged, if is_7 { 1 } else { 2 });
        let none = c.send(XPending::new("s", "g")).await.unwrap();
        assert_eq!((none.count, none.first, none.consumers.len()), (0, None, 0));
        let read = c.send(XReadGroup::new("s", "g", "c", GroupFrom::New)).await.unwrap();
        assert_eq!(c.send(XAck::new("s", "g", read.ids())).await.unwrap(), 1);
        let nothing = c.send(XReadGroup::new("s", "g", "c", GroupFrom::New)).await.unwrap();
        assert!(nothing.is_empty());

        // What the server knows.
        let info = c.send(XInfoStream::new("s")).await.unwrap();
        assert_eq!((info.length, info.last_generated_id, info.groups), (2, auto, 1));
        let counters = if is_7 { (Some(3), Some(id(5, 1))) } else { (None, None) };
        assert_eq!((info.entries_added, info.max_deleted_entry_id), counters);
        assert_eq!(info.first_entry().unwrap().id, id(5, 2));
        assert_eq!(info.last_entry().unwrap().field(b"line"), Some(&b"\0\r\n\xff"[..]));
        let groups = c.send(XInfoGroups::new("s")).await.unwrap();
        assert_eq!(groups.len(), 1);
        assert_eq!((&groups[0].name[..], groups[0].pending, groups[0].last_delivered_id), (&b"g"[..], 0, auto));
        let consumers = c.send(XInfoConsumers::new("s", "g")).await.unwrap();
        assert_eq!(consumers.iter().map(|consumer| &consumer.name[..]).collect::<Vec<_>>(), [b"c", b"d", b"e"]);

        // A lag that the server does not know is `None`.
        c.send(XGroupSetId::new("s", "g", id(5, 1))).await.unwrap();
        c.send(XDel::new("s", &[auto])).await.unwrap();
        assert_eq!(c.send(XInfoGroups::new("s")).await.unwrap()[0].lag, None);

        // Remove consumers and groups.
        assert!(c.send(XGroupCreateConsumer::new("s", "g", "f")).await.unwrap());
        assert!(!c.send(XGroupCreateConsumer::new("s", "g", "f")).await.unwrap());
        assert_eq!(c.send(XGroupDelConsumer::new("s", "g", "f")).await.unwrap(), 0);
        assert!(c.send(XGroupDestroy::new("s", "g")).await.unwrap());
        assert!(!c.send(XGroupDestroy::new("s", "g")).await.unwrap());

        // Trimming keeps the last ID.
        assert_eq!(c.send(XTrim::new("s", Trim::max_len(0))).await.unwrap(), 1);
        let info = c.send(XInfoStream::new("s")).await.unwrap();
        assert_eq!((info.length, info.last_generated_id), (0, auto));
        assert!(info.first_entry().is_none() && info.last_entry().is_none());
        let set = XSetId::new("s", StreamId::new(u64::MAX - 1, 0));
        c.send(&if is_7 { set.counters(9, id(7, 7)) } else { set }).await.unwrap();
        let last = [("a", "b")];
        c.send(XAdd::new("s", StreamId::MAX, &last).trim(Trim::min_id(id(6, 0)).limit(5))).await.unwrap();

        // A key of another type.
        c.send(cmd::<()>("SET").arg("text").arg(1)).await.unwrap();
        let wrong = c.send(XLen::new("text")).await.unwrap_err();
        assert_eq!((wrong.kind(), wrong.is_transient()), (ErrorKind::WrongType, false), "{wrong}");
    }
}

#[tokio::test]
async fn several_streams() {
    let server = Server::start();
    for mut c in server.both().await {
        c.send(cmd::<()>("FLUSHALL")).await.unwrap();
        for (key, ms) in [("a", 1), ("b", 2), ("b", 3)] {
            c.send(XAdd::new(key, id(ms, 0), &[("f", "v")])).await.unwrap();
        }
        let read = XRead::new("a", StreamId::ZERO).and("none", StreamId::ZERO).and("b", id(2, 0)).count(5);
        let read = c.send(&read).await.unwrap();
        let streams: Vec<_> = read.streams().map(|(key, entries)| (key, entries.ids().collect::<Vec<_>>())).collect();
        assert_eq!(streams, [(&b"a"[..], vec![id(1, 0)]), (b"b", vec![id(3, 0)])]);
        assert_eq!(read.len(), 2);
    }
}

#[tokio::test]
async fn a_blocking_read_waits_and_ends() {
    let server = Server::start();
    for mut c in server.both().await {
        c.send(cmd::<()>("FLUSHALL")).await.unwrap();
        c.set_command_timeout(Some(Duration::from_millis(1)));
        let began = Instant::now();
        let read = XRead::new("s", ReadFrom::New).block(BlockTimeout::For(Duration::from_millis(50)));
        assert!(c.send_blocking(&read).await.unwrap().is_empty());
        assert!(began.elapsed() >= Duration::from_millis(50));

        let mut other = server.connect().await;
        let read = XRead::new("s", ReadFrom::New).block(BlockTimeout::Forever);
        let add = async {
            // The reader blocks before the entry is added.
            while !clients(&mut other).await.contains("cmd=xread") {}
            other.send(XAdd::new("s", id(1, 1), &[("a", "b")])).await.unwrap();
        };
        let (read, ()) = tokio::join!(c.send_blocking(&read), add);
        assert_eq!(read.unwrap().ids().collect::<Vec<_>>(), [id(1, 1)]);
    }
}

async fn clients(connection: &mut resp::Connection) -> String {
    let list = connection.send(cmd::<Frame>("CLIENT LIST")).await.unwrap();
    list.value().as_str().unwrap().to_owned()
}

#[tokio::test]
async fn pipelines_and_transactions() {
    let server = Server::start();
    for mut c in server.both().await {
        c.send(cmd::<()>("FLUSHALL")).await.unwrap();
        let mut pipeline = Pipeline::new();
        let first = pipeline.add(XAdd::new("s", id(1, 1), &[("a", "b")]));
        let second = pipeline.add(XAdd::new("s", id(1, 1), &[("a", "b")]));
        let length = pipeline.add(XLen::new("s"));
        let mut replies = c.run(&pipeline).await.unwrap();
        assert_eq!(replies.take(length).unwrap(), 1);
        assert_eq!(replies.take(first).unwrap(), id(1, 1));
        assert_eq!(replies.take(second).unwrap_err().kind(), ErrorKind::IdTooSmall);

        let mut transaction = Transaction::new();
        let added = transaction.add(XAdd::new("s", id(2, 1), &[("a", "b")]));
        let again = transaction.add(XAdd::new("s", id(2, 1), &[("a", "b")]));
        let range = transaction.add(XRange::new("s", ..));
        let mut replies = c.exec(&transaction).await.unwrap();
        assert_eq!(replies.take(added).unwrap(), id(2, 1));
        assert_eq!(replies.take(again).unwrap_err().kind(), ErrorKind::IdTooSmall);
        let range = replies.take(range).unwrap();
        assert_eq!(range.ids().collect::<Vec<_>>(), [id(1, 1), id(2, 1)]);
        assert_eq!(range.last().unwrap().field(b"a"), Some(&b"b"[..]));

        // Refused before it begins: nothing is executed.
        let mut transaction = Transaction::new();
        transaction.add(XAdd::new("s", id(3, 1), &[("a", "b")]));
        transaction.add(cmd::<()>("NOSUCH"));
        let error = c.exec(&transaction).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnknownCommand, "{error}");
        assert_eq!(c.send(XLen::new("s")).await.unwrap(), 2);

        // A watched key that changes.
        c.send(cmd::<()>("WATCH").arg("s")).await.unwrap();
        let mut other = server.connect().await;
        other.send(XAdd::new("s", id(4, 1), &[("a", "b")])).await.unwrap();
        let mut transaction = Transaction::new();
        transaction.add(XLen::new("s"));
        let error = c.exec(&transaction).await.unwrap_err();
        assert_eq!((error.kind(), error.sent()), (ErrorKind::WatchFailed, resp::Sent::No));
        assert_eq!(c.exec(&transaction).await.unwrap().frames().count(), 1, "the watch is over");
    }
}

#[tokio::test]
async fn the_next_transaction_travels_behind_this_one() {
    const BATCH: usize = 1000;
    let server = Server::start();
    for mut c in server.both().await {
        c.send(cmd::<()>("FLUSHALL")).await.unwrap();
        let queue = |c: &mut resp::Connection, batch: u64| {
            c.queue_multi();
            for n in 0..BATCH as u64 {
                c.queue(XAdd::new("s", id(batch, n), &[("line", "text")]));
            }
        };
        queue(&mut c, 1);
        for batch in 1..=5 {
            c.queue_exec();
            queue(&mut c, batch + 1);
            c.receive_queued(BATCH).await.unwrap();
            let result = c.receive_exec().await.unwrap().unwrap();
            assert_eq!(result.value().children().len(), BATCH);
            assert!(result.value().children().all(|reply| !reply.kind().is_error()));
        }
        // A refusal is reported after all replies were read.
        c.receive_queued(BATCH).await.unwrap();
        c.queue(cmd::<Frame>("DISCARD"));
        c.receive().await.unwrap().into_result().unwrap();
        c.queue_multi();
        c.queue(cmd::<Frame>("NOSUCH"));
        c.queue(XLen::new("s"));
        c.queue_exec();
        let refused = c.receive_queued(2).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::UnknownCommand);
        assert_eq!(c.receive_exec().await.unwrap_err().kind(), ErrorKind::ExecAbort);
        assert_eq!(c.owed(), 0);
        assert_eq!(c.send(XLen::new("s")).await.unwrap(), 5 * BATCH as u64);
    }
}

/// The encoded command.
fn wire(command: &impl resp::Command) -> String {
    use tokio_util::codec::Encoder;
    let mut out = bytes::BytesMut::new();
    resp::RespCodec::default().encode(command, &mut out).unwrap();
    let frame = resp::Decoder::default().decode(&mut out).unwrap().unwrap();
    assert!(out.is_empty());
    let words: Vec<_> = frame.value().children().map(|word| word.as_str().unwrap().to_owned()).collect();
    words.join(" ")
}

#[test]
fn options_are_written_where_the_server_looks_for_them() {
    let fields = [("f", "v")];
    let add = || XAdd::new("s", id(1, 2), &fields);
    let ids = [id(1, 1), id(1, 2)];
    let second = Duration::from_secs(1);
    let table = [
        (wire(&XAdd::new("s", AddId::Auto, &fields)), "XADD s * f v"),
        (wire(&add().no_create().trim(Trim::max_len(5))), "XADD s NOMKSTREAM MAXLEN = 5 1-2 f v"),
        (wire(&add().trim(Trim::min_id(id(9, 9)).limit(3))), "XADD s MINID ~ 9-9 LIMIT 3 1-2 f v"),
        (wire(&add().references(References::Delete).once("me", "7")), "XADD s DELREF IDMP me 7 1-2 f v"),
        (wire(&add().once_by_content("me")), "XADD s IDMPAUTO me 1-2 f v"),
        (
            wire(&XTrim::new("s", Trim::max_len(5).limit(2).references(References::Acknowledged))),
            "XTRIM s MAXLEN ~ 5 LIMIT 2 ACKED",
        ),
        (
            wire(
                XRead::new("a", ReadFrom::New)
                    .and("b", id(1, 2))
                    .count(3)
                    .max_count(4)
                    .max_size(5)
                    .block(BlockTimeout::For(Duration::from_micros(1)))
                    .command(),
            ),
            "XREAD COUNT 3 MAXCOUNT 4 MAXSIZE 5 BLOCK 1 STREAMS a b $ 1-2",
        ),
        (
            wire(
                XReadGroup::new("a", "g", "c", GroupFrom::New)
                    .and("b", GroupFrom::Pending(id(1, 2)))
                    .count(3)
                    .max_count(4)
                    .max_size(5)
                    .claim(second)
                    .no_ack()
                    .block(BlockTimeout::Forever)
                    .command(),
            ),
            "XREADGROUP GROUP g c COUNT 3 MAXCOUNT 4 MAXSIZE 5 BLOCK 0 CLAIM 1000 NOACK STREAMS a b > 1-2",
        ),
        (wire(&XAckDel::new("s", "g", &ids).references(References::Keep)), "XACKDEL s g KEEPREF IDS 2 1-1 1-2"),
        (wire(&XDelEx::new("s", &ids)), "XDELEX s IDS 2 1-1 1-2"),
        (
            wire(&XNack::new("s", "g", NackReason::Fail, &ids).retry_count(3).force()),
            "XNACK s g FAIL IDS 2 1-1 1-2 RETRYCOUNT 3 FORCE",
        ),
        (wire(&XCfgSet::new("s").once_for(second).once_at_most(9)), "XCFGSET s IDMP-DURATION 1 IDMP-MAXSIZE 9"),
        (
            wire(&XClaim::new("s", "g", "c", second, &ids).idle(second).retry_count(2).force().last_id(id(3, 4))),
            "XCLAIM s g c 1000 1-1 1-2 IDLE 1000 RETRYCOUNT 2 FORCE LASTID 3-4",
        ),
        (
            wire(&XAutoClaim::new("s", "g", "c", second, id(0, 0)).count(5).just_id()),
            "XAUTOCLAIM s g c 1000 0-0 COUNT 5 JUSTID",
        ),
        (
            wire(&XPending::new("s", "g").entries(..id(5, 5), 7).idle(second).consumer("c")),
            "XPENDING s g IDLE 1000 - (5-5 7 c",
        ),
        (wire(&XRevRange::new("s", id(1, 1)..=id(2, 2)).count(1)), "XREVRANGE s 2-2 1-1 COUNT 1"),
        (
            wire(&XGroupCreate::new("s", "g", GroupStart::New).make_stream().entries_read(3)),
            "XGROUP CREATE s g $ MKSTREAM ENTRIESREAD 3",
        ),
        (wire(&XInfoStream::new("s").full().count(0)), "XINFO STREAM s FULL COUNT 0"),
    ];
    for (written, expected) in table {
        assert_eq!(written, expected);
    }
}

#[tokio::test]
async fn the_long_form_of_xinfo() {
    let server = Server::start();
    let lag = server.since((7, 0), "lag").await.then_some(1);
    for mut c in server.both().await {
        c.send(cmd::<()>("FLUSHALL")).await.unwrap();
        for n in 1..=3 {
            c.send(XAdd::new("s", id(n, 0), &[("f", "v")])).await.unwrap();
        }
        c.send(XGroupCreate::new("s", "g", StreamId::ZERO)).await.unwrap();
        c.send(XReadGroup::new("s", "g", "c", GroupFrom::New).count(2)).await.unwrap();
        let info = c.send(XInfoStream::new("s").full()).await.unwrap();
        assert_eq!((info.length, info.entries.len(), info.groups.len()), (3, 3, 1));
        assert_eq!(info.entries.get(2).unwrap().field(b"f"), Some(&b"v"[..]));
        let group = &info.groups[0];
        assert_eq!((&group.name[..], group.pending, group.lag), (&b"g"[..], 2, lag));
        assert_eq!(group.pending_entries[1].id, id(2, 0));
        assert_eq!(group.pending_entries[1].consumer.as_deref(), Some(&b"c"[..]));
        let consumer = &group.consumers[0];
        assert_eq!((&consumer.name[..], consumer.pending), (&b"c"[..], 2));
        assert_eq!((consumer.pending_entries[0].id, consumer.pending_entries[0].deliveries), (id(1, 0), 1));
        assert!(consumer.seen.elapsed().unwrap() < Duration::from_secs(60));
    }
}

#[tokio::test]
async fn newer_commands_work_or_are_typed_errors() {
    let server = Server::start();
    let version = server.version().await;
    let mut c = server.connect().await;
    let fields = [("f", "v")];
    for n in 1..=3 {
        c.send(XAdd::new("s", id(n, 0), &fields)).await.unwrap();
    }
    c.send(XGroupCreate::new("s", "g", StreamId::ZERO)).await.unwrap();
    c.send(XReadGroup::new("s", "g", "c", GroupFrom::New).count(2)).await.unwrap();

    // A server that is too old reports an unknown command or option.
    let refused = |error: &resp::Error, since: (u32, u32)| {
        assert!(matches!(error.kind(), ErrorKind::UnknownCommand | ErrorKind::Syntax), "{error}");
        assert!(version < since, "{error}, though it came with {since:?}");
        support::skipped(&format!(
            "{error}: came with Redis {}.{}, this is {}.{}",
            since.0, since.1, version.0, version.1
        ));
    };
    match c.send(XAckDel::new("s", "g", [id(1, 0), id(9, 9)])).await {
        Ok(removed) => assert_eq!(removed, [Removed::Removed, Removed::Missing]),
        Err(error) => refused(&error, (8, 2)),
    }
    match c.send(XDelEx::new("s", [id(2, 0), id(1, 9)]).references(References::Acknowledged)).await {
        Ok(removed) => assert_eq!(removed, [Removed::Referenced, Removed::Missing]),
        Err(error) => refused(&error, (8, 2)),
    }
    match c.send(XTrim::new("s", Trim::max_len(100).references(References::Delete))).await {
        Ok(removed) => assert_eq!(removed, 0),
        Err(error) => refused(&error, (8, 2)),
    }
    let trim = Trim::min_id(id(1, 0)).limit(10);
    match c.send(XAdd::new("s", id(4, 0), &fields).no_create().references(References::Acknowledged).trim(trim)).await {
        Ok(added) => assert_eq!(added, Some(id(4, 0))),
        Err(error) => refused(&error, (8, 2)),
    }
    match c.send(XReadGroup::new("s", "g", "d", GroupFrom::New).claim(Duration::ZERO)).await {
        Ok(read) => assert!(read.entries().first().unwrap().deliveries.is_some()),
        Err(error) => refused(&error, (8, 4)),
    }
    match c.send(XAdd::new("s", AddId::Auto, &fields).once("me", "1")).await {
        Ok(first) => assert_eq!(c.send(XAdd::new("s", AddId::Auto, &fields).once("me", "1")).await.unwrap(), first),
        Err(error) => refused(&error, (8, 6)),
    }
    match c.send(XCfgSet::new("s").once_at_most(5)).await {
        Ok(()) => {}
        Err(error) => refused(&error, (8, 6)),
    }
    match c.send(XNack::new("s", "g", NackReason::Silent, [id(2, 0)])).await {
        Ok(given_back) => assert_eq!(given_back, 1),
        Err(error) => refused(&error, (8, 8)),
    }
    match c.send(XRead::new("s", StreamId::ZERO).max_count(1)).await {
        Ok(read) => assert_eq!(read.len(), 1),
        Err(error) => refused(&error, (8, 10)),
    }
}

#[tokio::test]
async fn replies_are_what_is_asked_for() {
    use std::collections::{BTreeMap, HashMap, HashSet};

    let server = Server::start();
    for mut c in server.both().await {
        c.send(cmd::<()>("FLUSHALL")).await.unwrap();
        let c = &mut c;
        let ok: String = c.send(cmd("SET").arg("k").arg("v")).await.unwrap();
        let value: String = c.send(cmd("GET").arg("k")).await.unwrap();
        let missing: Option<String> = c.send(cmd("GET").arg("missing")).await.unwrap();
        let bytes: bytes::Bytes = c.send(cmd("GET").arg("k")).await.unwrap();
        assert_eq!((&*ok, &*value, missing, &*bytes), ("OK", "v", None, &b"v"[..]));

        let added: u32 = c.send(cmd("HSET").arg("h").arg([("a", 1), ("b", 2)])).await.unwrap();
        let map: HashMap<String, u8> = c.send(cmd("HGETALL").arg("h")).await.unwrap();
        let pairs: Vec<(String, i64)> = c.send(cmd("HGETALL").arg("h")).await.unwrap();
        let fields: (Option<u8>, Option<u8>) = c.send(cmd("HMGET").arg("h").arg(["a", "x"])).await.unwrap();
        assert_eq!((added, map.len(), pairs.len(), fields), (2, 2, 2, (Some(1), None)));

        c.send(cmd::<()>("ZADD").arg("z").arg((1.5, "ann")).arg((f64::INFINITY, "bob"))).await.unwrap();
        let score: f64 = c.send(cmd("ZSCORE").arg("z").arg("ann")).await.unwrap();
        let board: BTreeMap<String, f64> = c.send(cmd("ZRANGE").arg("z").arg((0, -1)).arg("WITHSCORES")).await.unwrap();
        assert_eq!((score, board["bob"]), (1.5, f64::INFINITY));

        c.send(cmd::<()>("SADD").arg("set").args(["x", "y"])).await.unwrap();
        let set: HashSet<String> = c.send(cmd("SMEMBERS").arg("set")).await.unwrap();
        let is_member: bool = c.send(cmd("SISMEMBER").arg("set").arg("x")).await.unwrap();
        assert_eq!((set.len(), is_member), (2, true));

        let id: StreamId = c.send(cmd("XADD").arg("s").arg(id(1, 1)).arg(("a", "b"))).await.unwrap();
        let entries: Entries = c.send(cmd("XRANGE").arg("s").arg(('-', '+'))).await.unwrap();
        assert_eq!(entries.ids().next(), Some(id));

        // In pipelines and transactions too.
        let mut transaction = Transaction::new();
        let count = transaction.add(cmd::<u64>("INCR").arg("n"));
        let list = transaction.add(cmd("LRANGE").arg("l").arg(0).arg(-1));
        let mut replies = c.exec(&transaction).await.unwrap();
        let list: Vec<String> = replies.take(list).unwrap();
        assert_eq!((replies.take(count).unwrap(), list.len()), (1, 0));

        let error = c.send(cmd::<u64>("GET").arg("k")).await.unwrap_err();
        assert_eq!(
            (error.kind(), error.to_string().as_str()),
            (ErrorKind::UnexpectedReply, "GET: expected u64, got string of 1 byte")
        );
    }
}
