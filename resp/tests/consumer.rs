//! Consumer groups on a real server.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

mod support;

use std::collections::BTreeSet;
use std::time::Duration;

use resp::streams::{AddId, GroupFrom, XAdd, XDel, XGroupCreate, XPending, XReadGroup};
use resp::{
    Backoff, BatchOrigin, Connection, Consumer, ConsumerOptions, ErrorKind, Frame, GroupReader, Pipeline, StreamId, cmd,
};
use support::Server;

fn options(server: &Server, name: &str) -> ConsumerOptions {
    ConsumerOptions::new(server.config(), "s", "g", name)
        .count(10)
        .block(Duration::from_millis(100))
        .backoff(Backoff::new(Duration::from_millis(1), Duration::from_millis(10)))
}

async fn add(connection: &mut Connection, numbers: std::ops::Range<u64>) {
    for n in numbers {
        let id = StreamId::new(1, n + 1);
        connection.send(XAdd::new("s", id, &[("n", n.to_string())])).await.unwrap();
    }
}

async fn pending(connection: &mut Connection) -> u64 {
    connection.send(XPending::new("s", "g")).await.unwrap().count
}

/// Returns the IDs of the next `count` entries.
async fn take(consumer: &mut Consumer, entries: usize) -> (Vec<u64>, BTreeSet<Origin2>) {
    let (mut ids, mut origins) = (Vec::new(), BTreeSet::new());
    while ids.len() < entries {
        let batch = consumer.next().await.unwrap().unwrap();
        ids.extend(batch.ids().map(|id| id.seq - 1));
        origins.insert(Origin2::from(batch.origin()));
        consumer.ack(batch.ids());
    }
    (ids, origins)
}

/// The origin in a form that can be sorted.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Origin2 {
    Pending,
    Claimed,
    New,
}

impl From<BatchOrigin> for Origin2 {
    fn from(origin: BatchOrigin) -> Self {
        match origin {
            BatchOrigin::Pending => Self::Pending,
            BatchOrigin::Claimed => Self::Claimed,
            BatchOrigin::New => Self::New,
        }
    }
}

#[tokio::test]
async fn pending_entries_come_before_new_ones() {
    let server = Server::start();
    let mut other = server.connect().await;
    add(&mut other, 0..25).await;
    {
        // Reads entries and disappears.
        let mut consumer = options(&server, "c").connect().await.unwrap();
        assert_eq!(consumer.next().await.unwrap().unwrap().entries().len(), 10);
    }
    other.send(XDel::new("s", [StreamId::new(1, 3)])).await.unwrap();
    let mut consumer = options(&server, "c").connect().await.unwrap();
    let batch = consumer.next().await.unwrap().unwrap();
    assert_eq!((batch.origin(), batch.entries().len()), (BatchOrigin::Pending, 10));
    // Deleted meanwhile, so it has no fields.
    assert!(batch.entries().get(2).unwrap().fields.is_none());
    consumer.ack(batch.ids());
    let (ids, origins) = take(&mut consumer, 15).await;
    assert_eq!(ids, (10..25).collect::<Vec<_>>());
    assert_eq!(origins, [Origin2::New].into());
    assert_eq!(consumer.unconfirmed(), 5);
    consumer.stopper().stop();
    assert!(consumer.next().await.unwrap().is_none());
    assert_eq!((consumer.unconfirmed(), pending(&mut other).await), (0, 0));
}

#[tokio::test]
async fn a_dropped_next_loses_nothing() {
    let server = Server::start();
    let mut other = server.connect().await;
    let mut consumer = options(&server, "c").connect().await.unwrap();
    let mut seen = Vec::new();
    for n in 0..100 {
        let add = add(&mut other, n..n + 1);
        tokio::pin!(add);
        tokio::select! {
            biased;
            batch = consumer.next() => {
                let batch = batch.unwrap().unwrap();
                seen.extend(batch.ids().map(|id| id.seq - 1));
                consumer.ack(batch.ids());
                add.await;
            }
            () = &mut add => {}
        }
    }
    while seen.len() < 100 {
        let batch = consumer.next().await.unwrap().unwrap();
        seen.extend(batch.ids().map(|id| id.seq - 1));
        consumer.ack(batch.ids());
    }
    assert_eq!(seen, (0..100).collect::<Vec<_>>());
    consumer.flush().await.unwrap();
    assert_eq!(pending(&mut other).await, 0);
}

#[tokio::test]
async fn broken_connections_lose_nothing() {
    let server = Server::start();
    let mut other = server.connect().await;
    let mut consumer = options(&server, "c").connect().await.unwrap();
    let mut seen = BTreeSet::new();
    for round in 0..30u64 {
        add(&mut other, round * 10..round * 10 + 10).await;
        other.send(cmd::<()>("CLIENT KILL").args(["TYPE", "normal", "SKIPME", "yes"])).await.unwrap();
        while seen.len() < (round as usize + 1) * 10 {
            let batch = consumer.next().await.unwrap().unwrap();
            seen.extend(batch.ids());
            consumer.ack(batch.ids());
        }
    }
    consumer.stopper().stop();
    assert!(consumer.next().await.unwrap().is_none());
    assert_eq!(pending(&mut other).await, 0);
}

#[tokio::test]
async fn a_lost_group_is_created_again() {
    let server = Server::start();
    let mut other = server.connect().await;
    let mut consumer = options(&server, "c").connect().await.unwrap();
    add(&mut other, 0..5).await;
    assert_eq!(take(&mut consumer, 5).await.0.len(), 5);
    other.send(cmd::<()>("FLUSHALL")).await.unwrap();
    add(&mut other, 0..7).await;
    assert_eq!(take(&mut consumer, 7).await.0, (0..7).collect::<Vec<_>>());

    // Except when the group must not be created.
    let mut strict = options(&server, "c").create_group(None).connect().await.unwrap();
    other.send(cmd::<()>("FLUSHALL")).await.unwrap();
    assert_eq!(strict.next().await.unwrap_err().kind(), ErrorKind::NoGroup);
    other.send(cmd::<()>("SET").arg("s").arg(1)).await.unwrap();
    assert_eq!(strict.next().await.unwrap_err().kind(), ErrorKind::WrongType);
    assert_eq!(options(&server, "c").connect().await.unwrap_err().kind(), ErrorKind::WrongType);
}

#[tokio::test]
async fn entries_of_dead_consumers_are_claimed() {
    let server = Server::start();
    let mut other = server.connect().await;
    let mut consumer = options(&server, "c").claim_idle(Some(Duration::from_millis(20))).connect().await.unwrap();
    add(&mut other, 0..25).await;
    other.send(XReadGroup::new("s", "g", "dead", GroupFrom::New).count(23)).await.unwrap();
    let (mut ids, origins) = take(&mut consumer, 25).await;
    ids.sort_unstable();
    assert_eq!(ids, (0..25).collect::<Vec<_>>());
    assert_eq!(origins, [Origin2::Claimed, Origin2::New].into());
}

#[tokio::test]
async fn a_blocked_consumer_stops_at_once() {
    let server = Server::start();
    let mut consumer = options(&server, "c").block(Duration::from_secs(60)).connect().await.unwrap();
    let stopper = consumer.stopper();
    let mut other = server.connect().await;
    let stop = async {
        // Not before it blocks in the server.
        loop {
            let list = other.send(cmd::<Frame>("CLIENT LIST")).await.unwrap();
            if list.value().as_str().unwrap().contains("cmd=xreadgroup") {
                break stopper.stop();
            }
        }
    };
    let (end, ()) =
        tokio::time::timeout(Duration::from_secs(10), async { tokio::join!(consumer.next(), stop) }).await.unwrap();
    assert!(end.unwrap().is_none());
}

#[tokio::test]
async fn a_stopped_consumer_returns_the_entries_in_flight() {
    let server = Server::start();
    let mut other = server.connect().await;
    let mut consumer = options(&server, "c").block(Duration::from_secs(60)).connect().await.unwrap();
    // The read blocks in the server, and nobody waits for it.
    assert!(tokio::time::timeout(Duration::from_millis(50), consumer.next()).await.is_err());
    add(&mut other, 0..1).await;
    consumer.stopper().stop();
    let last = tokio::time::timeout(Duration::from_secs(10), consumer.next()).await.unwrap().unwrap().unwrap();
    assert_eq!((last.origin(), last.entries().len()), (BatchOrigin::New, 1));
    consumer.ack(last.ids());
    assert!(consumer.next().await.unwrap().is_none());
    assert_eq!(pending(&mut other).await, 0);
}

#[tokio::test]
async fn drain_returns_the_last_reply() {
    let server = Server::start();
    let mut other = server.connect().await;
    for resp2 in [false, true] {
        let block = if resp2 { Duration::from_millis(300) } else { Duration::from_secs(60) };
        let options = ConsumerOptions::new(server.config().resp2(resp2), "s", "g", "c").block(block);
        let mut consumer = options.connect().await.unwrap();
        assert!(consumer.drain().await.unwrap().is_none(), "nothing was asked for");
        assert!(tokio::time::timeout(Duration::from_millis(50), consumer.next()).await.is_err());
        let last = tokio::time::timeout(Duration::from_secs(10), consumer.drain()).await.unwrap();
        assert!(last.unwrap().is_none(), "nothing came");

        let mut reader = GroupReader::new(server.connect().await, "s", "g", "r");
        assert!(reader.read_once(None).await.unwrap().is_none(), "nothing is pending");
        add(&mut other, if resp2 { 1..2 } else { 0..1 }).await;
        reader.prefetch().await.unwrap();
        let last = reader.drain().await.unwrap().unwrap();
        assert_eq!(last.entries().len(), 1);
        reader.ack(last.ids());
        reader.flush().await.unwrap();
        assert_eq!((pending(&mut other).await, reader.unconfirmed()), (0, 0));
    }
}

/// A reader over its own connection, in the group `g` of the stream `s`.
async fn reader(server: &Server) -> GroupReader {
    let mut connection = server.connect().await;
    connection.send(XGroupCreate::new("s", "g", StreamId::ZERO).make_stream()).await.unwrap();
    GroupReader::new(connection, "s", "g", "c").count(10)
}

/// As [`take`], without blocking.
async fn read_all(consumer: &mut GroupReader) -> (Vec<u64>, Vec<u64>) {
    let (mut pending, mut new) = (Vec::new(), Vec::new());
    while let Some(batch) = consumer.read(None).await.unwrap() {
        let ids = batch.ids().map(|id| id.seq - 1);
        if batch.origin() == BatchOrigin::Pending {
            pending.extend(ids);
        } else {
            new.extend(ids);
        }
        consumer.ack(batch.ids());
    }
    (pending, new)
}

/// `None` from `read` means that there is nothing to read, whatever was looked for.
#[tokio::test]
async fn a_loop_over_reads_ends_when_there_is_nothing() {
    let server = Server::start();
    let mut other = server.connect().await;
    let idle = Duration::from_millis(20);
    let mut consumer = reader(&server).await.claim_idle(Some(idle));
    let read_as = async |name: &str, connection: &mut Connection| {
        connection.send(XReadGroup::new("s", "g", name, GroupFrom::New)).await.unwrap().entries().len()
    };
    // Pending with a consumer that is gone, pending with this one, new.
    add(&mut other, 0..15).await;
    assert_eq!(read_as("gone", &mut other).await, 15);
    tokio::time::sleep(idle).await;
    add(&mut other, 15..30).await;
    assert_eq!(read_as("c", &mut other).await, 15);
    add(&mut other, 30..45).await;
    let mut origins = BTreeSet::new();
    let mut seen = BTreeSet::new();
    while let Some(batch) = consumer.read(None).await.unwrap() {
        origins.insert(Origin2::from(batch.origin()));
        seen.extend(batch.ids().map(|id| id.seq - 1));
        consumer.ack(batch.ids());
    }
    assert_eq!(seen, (0..45).collect());
    assert_eq!(origins, BTreeSet::from([Origin2::Pending, Origin2::Claimed, Origin2::New]));

    // It also waits for what becomes claimable meanwhile.
    add(&mut other, 45..46).await;
    assert_eq!(read_as("gone", &mut other).await, 1);
    let batch = consumer.read(Some(Duration::MAX)).await.unwrap().unwrap();
    assert_eq!((batch.origin(), batch.ids().next()), (BatchOrigin::Claimed, Some(StreamId::new(1, 46))));

    // A single request looks for one thing only.
    let mut consumer = GroupReader::new(server.connect().await, "s", "g", "another").count(10);
    add(&mut other, 46..47).await;
    assert!(consumer.read_once(None).await.unwrap().is_none() && !consumer.has_pending(), "nothing is pending");
    assert_eq!(consumer.read_once(None).await.unwrap().unwrap().origin(), BatchOrigin::New);
    assert!(consumer.read(Some(Duration::from_millis(1))).await.unwrap().is_none(), "the time is over");
}

#[tokio::test]
async fn a_group_reader_works_step_by_step() {
    let server = Server::start();
    let mut other = server.connect().await;
    let mut consumer = GroupReader::new(server.connect().await, "s", "g", "c").count(10);
    // It does not create the group.
    assert_eq!(consumer.read(None).await.unwrap_err().kind(), ErrorKind::NoGroup);
    other.send(cmd::<()>("XGROUP").args(["CREATE", "s", "g", "0", "MKSTREAM"])).await.unwrap();
    add(&mut other, 0..25).await;
    assert!(consumer.has_pending(), "it does not know yet");
    assert_eq!(read_all(&mut consumer).await, (vec![], (0..25).collect()));
    // Without blocking there is nothing; with blocking there is the new entry.
    let (batch, ()) = tokio::join!(consumer.read(Some(Duration::from_secs(30))), add(&mut other, 25..26));
    assert_eq!(batch.unwrap().unwrap().entries().len(), 1);

    // Unacknowledged entries are pending for the next reader, in batches of the requested size.
    drop(consumer);
    let mut consumer = GroupReader::new(server.connect().await, "s", "g", "c").count(10);
    consumer.set_count(100);
    let left = pending(&mut other).await as usize;
    assert_eq!(consumer.read(None).await.unwrap().unwrap().entries().len(), left);
    // It does not reconnect.
    other.send(cmd::<()>("CLIENT KILL").args(["TYPE", "normal", "SKIPME", "yes"])).await.unwrap();
    assert!(consumer.read(None).await.unwrap_err().closes_connection());
    assert!(consumer.read(None).await.unwrap_err().closes_connection());
    assert!(consumer.is_closed());
}

#[tokio::test]
async fn behind_an_id_nothing_becomes_pending() {
    let server = Server::start();
    let mut other = server.connect().await;
    let mut consumer = reader(&server).await;
    add(&mut other, 0..30).await;
    assert!(consumer.read_once(None).await.unwrap().is_none(), "nothing is pending");
    consumer.set_behind(Some(StreamId::ZERO));
    let first = consumer.read(None).await.unwrap().unwrap();
    // Each reply moves the position, of reads ahead, too.
    consumer.prefetch().await.unwrap();
    let second = consumer.read(None).await.unwrap().unwrap();
    let ids = first.ids().chain(second.ids()).map(|id| id.seq - 1);
    assert_eq!(ids.collect::<Vec<_>>(), (0..20).collect::<Vec<_>>());
    assert_eq!((second.origin(), pending(&mut other).await), (BatchOrigin::New, 0));
    // The group was not moved.
    consumer.set_behind(None);
    assert_eq!(consumer.read(None).await.unwrap().unwrap().ids().next().map(|id| id.seq), Some(1));
    consumer.set_behind(Some(StreamId::new(u64::MAX, 0)));
    assert!(consumer.read(Some(Duration::from_millis(1))).await.unwrap().is_none());
}

#[tokio::test]
async fn prefetching_and_sending_between_reads_shift_nothing() {
    let server = Server::start();
    let mut other = server.connect().await;
    let mut consumer = reader(&server).await;
    add(&mut other, 0..100).await;
    assert!(consumer.read_once(None).await.unwrap().is_none(), "nothing is pending");
    let mut seen = Vec::new();
    while let Some(batch) = consumer.read(None).await.unwrap() {
        consumer.prefetch().await.unwrap();
        consumer.prefetch().await.unwrap();
        assert!(consumer.has_read_in_flight());
        // The server has already sent the next ones.
        for _ in 0..2 {
            let reply = consumer.send(cmd::<Frame>("ECHO").arg("between")).await.unwrap();
            assert_eq!(reply.value().as_str(), Some("between"));
        }
        seen.extend(batch.ids().map(|id| id.seq - 1));
        consumer.ack(batch.ids());
    }
    assert_eq!(seen, (0..100).collect::<Vec<_>>());
    consumer.flush().await.unwrap();
    assert_eq!(pending(&mut other).await, 0);
}

#[tokio::test]
async fn dropped_reads_and_sends_lose_nothing() {
    let server = Server::start();
    let mut other = server.connect().await;
    let mut consumer = reader(&server).await;
    let mut seen = Vec::new();
    for n in 0..60 {
        let add = add(&mut other, n..n + 1);
        tokio::pin!(add);
        let (mut got, mut is_added) = (None, false);
        tokio::select! {
            biased;
            batch = consumer.read(Some(Duration::from_millis(20))) => got = batch.unwrap(),
            () = &mut add => is_added = true,
        }
        if !is_added {
            add.await;
        }
        let echo = cmd::<Frame>("ECHO").arg("dropped");
        tokio::select! { biased; _ = consumer.send(&echo) => {}, () = tokio::task::yield_now() => {} }
        let reply = consumer.send(cmd::<Frame>("ECHO").arg(n.to_string())).await.unwrap();
        assert_eq!(reply.value().as_str(), Some(&n.to_string()[..]));
        if let Some(batch) = got {
            seen.extend(batch.ids().map(|id| id.seq - 1));
        }
    }
    while let Some(batch) = consumer.read(None).await.unwrap() {
        seen.extend(batch.ids().map(|id| id.seq - 1));
    }
    assert_eq!(seen, (0..60).collect::<Vec<_>>());
}

/// Acknowledgements do not pile up when batches are larger than one XACK.
#[tokio::test]
async fn all_acknowledgements_travel_with_the_next_read() {
    let server = Server::start();
    let mut other = server.connect().await;
    let mut pipeline = Pipeline::new();
    for n in 1..=75_000 {
        pipeline.add(XAdd::new("s", StreamId::new(1, n), &[("a", "b")]));
    }
    other.run(&pipeline).await.unwrap().check().unwrap();
    let mut consumer = options(&server, "c").count(25_000).connect().await.unwrap();
    for _ in 0..3 {
        let batch = consumer.next().await.unwrap().unwrap();
        assert_eq!((batch.entries().len(), consumer.unconfirmed()), (25_000, 0));
        consumer.ack(batch.ids());
    }
    consumer.flush().await.unwrap();
    assert_eq!(pending(&mut other).await, 0);
}

/// However the key disappears while the server blocks, the group is created again.
#[tokio::test]
async fn a_key_deleted_under_a_blocked_read() {
    let server = Server::start();
    let mut other = server.connect().await;
    for how in ["DEL s", "FLUSHALL", "RENAME s t", "XGROUP DESTROY s g"] {
        let mut consumer = options(&server, "c").block(Duration::from_secs(60)).connect().await.unwrap();
        let reading = tokio::spawn(async move { consumer.next().await.unwrap().unwrap().ids().next() });
        until_one_waits(&mut other).await;
        other.send(cmd::<()>(how)).await.unwrap();
        until_one_waits(&mut other).await;
        let id = other.send(XAdd::new("s", AddId::Auto, &[("a", "b")])).await.unwrap();
        assert_eq!(reading.await.unwrap(), Some(id), "{how}");
        other.send(cmd::<()>("FLUSHALL")).await.unwrap();
    }
}

/// Waits until a read blocks in the server.
async fn until_one_waits(connection: &mut Connection) {
    loop {
        let clients = connection.send(cmd::<Frame>("INFO clients")).await.unwrap();
        if clients.value().as_str().unwrap().contains("blocked_clients:1") {
            break;
        }
        tokio::task::yield_now().await;
    }
}

/// A flush after each batch does not open a connection.
#[tokio::test]
async fn acknowledgements_are_flushed_over_the_readers_connection() {
    let server = Server::start();
    let mut other = server.connect().await;
    add(&mut other, 0..30).await;
    let mut consumer = options(&server, "c").connect().await.unwrap();
    let before = connections(&mut other).await;
    for left in [20, 10, 0] {
        let batch = consumer.next().await.unwrap().unwrap();
        consumer.ack(batch.ids());
        consumer.flush().await.unwrap();
        assert_eq!((pending(&mut other).await, consumer.unconfirmed()), (0, 0), "{left} left");
    }
    assert_eq!(connections(&mut other).await, before);
}

/// Returns how many connections the server has accepted.
async fn connections(connection: &mut Connection) -> String {
    let stats: String = connection.send(cmd("INFO stats")).await.unwrap();
    stats.lines().find(|line| line.starts_with("total_connections_received")).unwrap().to_owned()
}

/// A server that cannot create the group yet is retried like an unreachable one.
#[tokio::test]
async fn a_transient_refusal_to_create_the_group_is_retried() {
    let server = Server::start();
    let mut other = server.connect().await;
    let mut consumer = options(&server, "c").connect().await.unwrap();
    other.send(cmd::<()>("CONFIG SET maxmemory 1")).await.unwrap();
    other.send(cmd::<()>("DEL").arg("s")).await.unwrap();
    let reading = tokio::spawn(async move { consumer.next().await.map(|batch| batch.unwrap().ids().count()) });
    // It tries to create the group several times, and is refused.
    loop {
        let refused = other.send(cmd::<Frame>("INFO errorstats")).await.unwrap();
        let oom = refused.value().as_str().unwrap().lines().find_map(|line| line.strip_prefix("errorstat_OOM:count="));
        if oom.is_some_and(|count| count.parse::<u64>().unwrap() > 3) {
            break;
        }
        assert!(!reading.is_finished(), "{:?}", reading.await);
    }
    other.send(cmd::<()>("CONFIG SET maxmemory 0")).await.unwrap();
    add(&mut other, 0..1).await;
    assert_eq!(reading.await.unwrap().unwrap(), 1);
}

#[tokio::test]
async fn a_stopped_consumer_ends_without_a_server() {
    let server = Server::start();
    add(&mut server.connect().await, 0..3).await;
    let config = server.config().command_timeout(Some(Duration::from_millis(200)));
    let mut consumer = ConsumerOptions::new(config, "s", "g", "c").connect().await.unwrap();
    let batch = consumer.next().await.unwrap().unwrap();
    consumer.ack(batch.ids());
    drop(server);
    consumer.stopper().stop();
    assert!(consumer.next().await.unwrap().is_none());
    assert_eq!(consumer.unconfirmed(), 3);
}

#[tokio::test]
async fn a_consumer_stream_yields_all_batches_and_ends_when_stopped() {
    use futures_util::{StreamExt as _, TryStreamExt as _};

    let server = Server::start();
    let mut other = server.connect().await;
    add(&mut other, 0..100).await;
    let mut batches = options(&server, "c").connect().await.unwrap().into_stream();
    // One after the other.
    let first = batches.next().await.unwrap().unwrap();
    batches.ack(first.ids());
    // Concurrently; the last batches are acknowledged while the stream waits for more.
    let (acknowledger, stopper) = (batches.acknowledger(), batches.stopper());
    let mut left = 100 - first.entries().len();
    let rest = batches.try_for_each_concurrent(4, |batch| {
        left -= batch.entries().len();
        let (acknowledger, stopper, is_last) = (acknowledger.clone(), stopper.clone(), left == 0);
        async move {
            tokio::task::yield_now().await;
            acknowledger.ack(batch.ids());
            if is_last {
                stopper.stop();
            }
            Ok(())
        }
    });
    tokio::time::timeout(Duration::from_secs(10), rest).await.unwrap().unwrap();
    assert_eq!(pending(&mut other).await, 0);
}
