//! Redis loses data: its tail, or everything.

use std::time::Duration;

use e2e::rig::STREAM;
use e2e::{Growth, Persistence, Proxy, RedisServer, Rig, text, wait};

#[test]
fn an_emptied_redis_is_filled_again_with_the_same_ids() {
    let rig = Rig::new();
    rig.write_input(text::numbered(0..5000, 1));
    rig.reader().once().run_ok();
    rig.writer().once().run_ok();
    let before = rig.redis.call(&["XINFO", "STREAM", STREAM]).field("last-generated-id").text();
    rig.redis.flushall();
    rig.append_input(text::numbered(5000..6000, 1));
    rig.reader().once().run_ok();
    let after = rig.redis.call(&["XINFO", "STREAM", STREAM]).field("last-generated-id").text();
    assert_eq!(before.split('-').next(), after.split('-').next(), "the generation stays");
    let mut writer = rig.writer().start();
    rig.wait_delivered();
    wait::until("nothing is pending", || rig.pending() == 0);
    writer.stop();
    rig.assert_identical();
}

#[test]
fn an_emptied_redis_is_noticed_by_idle_services() {
    let rig = Rig::new();
    rig.write_input(text::numbered(0..1000, 1));
    let mut reader = rig.reader().start();
    let mut writer = rig.writer().start();
    rig.wait_delivered();
    for round in 1..4 {
        rig.redis.flushall();
        rig.append_input(text::numbered(round * 1000..(round + 1) * 1000, 1));
        rig.wait_delivered();
    }
    reader.stop();
    writer.stop();
    rig.assert_identical();
    let log = writer.log();
    assert_eq!(log.matches("group writers is gone from").count(), 1, "one line a minute: {log}");
    assert_eq!(log.matches("group writers created").count(), 4, "at the start, and after each loss: {log}");
    assert!(!log.contains("start Redis"), "Redis was there all the time: {log}");
}

#[test]
fn a_deleted_stream_is_filled_again() {
    let rig = Rig::new();
    rig.write_input(text::numbered(0..1000, 1));
    let mut reader = rig.reader().start();
    rig.redis.call(&["PING"]);
    wait::until("the stream is filled", || rig.stream_len() == 1000);
    // These lines are not written to the output yet, so they must be delivered again.
    rig.redis.call(&["DEL", STREAM]);
    rig.append_input(text::numbered(1000..2000, 1));
    let mut writer = rig.writer().start();
    rig.wait_delivered();
    reader.stop();
    writer.stop();
    rig.assert_identical();
}

#[test]
fn a_deleted_source_record_is_written_again() {
    let rig = Rig::new();
    rig.write_input(text::numbered(0..1000, 1));
    rig.reader().once().run_ok();
    rig.redis.call(&["DEL", "{line_stream}:source"]);
    rig.append_input(text::numbered(1000..2000, 1));
    rig.reader().once().run_ok();
    rig.writer().once().run_ok();
    rig.assert_identical();
    assert_eq!(rig.redis.call(&["EXISTS", "{line_stream}:source"]).int(), 1);
}

#[test]
fn a_deleted_group_is_created_again() {
    let rig = Rig::new();
    rig.write_input(text::numbered(0..1000, 1));
    let mut reader = rig.reader().start();
    let mut writer = rig.writer().start();
    rig.wait_delivered();
    rig.redis.call(&["XGROUP", "DESTROY", STREAM, "writers"]);
    rig.append_input(text::numbered(1000..2000, 1));
    rig.wait_delivered();
    reader.stop();
    writer.stop();
    rig.assert_identical();
}

#[test]
fn redis_without_persistence_killed_and_emptied_under_load() {
    let seed = e2e::seed();
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut rig = Rig::new();
    let lines = 60_000;
    let mut growth = Growth::of(&rig.input, text::numbered(0..lines, seed), Duration::from_secs(8), seed);
    let mut reader = rig.reader().start();
    let mut writer = rig.writer().start();
    for round in 0..9 {
        wait::random_moment(&mut rng, 200..1000);
        if round % 2 == 0 {
            rig.redis.crash();
        } else {
            rig.redis.flushall();
        }
    }
    growth.wait();
    rig.wait_delivered();
    wait::until("nothing is pending", || rig.pending() == 0);
    assert_eq!(writer.metric("writer_gap_bytes_total"), 0.0);
    assert_eq!(reader.metric("reader_generations_total"), 1.0, "sent again with the same IDs");
    reader.stop();
    writer.stop();
    rig.assert_identical();
    e2e::check::numbered(&rig.output_bytes(), lines).unwrap();
}

#[test]
fn redis_loses_its_tail_in_power_cuts() {
    let seed = e2e::seed();
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut rig = Rig::with(Persistence::Everysec);
    let lines = 60_000;
    let mut growth = Growth::of(&rig.input, text::numbered(0..lines, seed), Duration::from_secs(8), seed);
    let mut reader = rig.reader().start();
    let mut writer = rig.writer().start();
    while growth.runs() {
        wait::random_moment(&mut rng, 200..1500);
        rig.redis.kill9();
        rig.redis.lose_tail(rng.u64(1..1_000_000));
        rig.redis.start_again();
    }
    growth.wait();
    rig.wait_delivered();
    assert_eq!(reader.metric("reader_generations_total"), 1.0, "sent again with the same IDs");
    wait::until("nothing is pending", || rig.pending() == 0);
    reader.stop();
    writer.stop();
    rig.assert_identical();
    e2e::check::numbered(&rig.output_bytes(), lines).unwrap();
}

#[test]
fn redis_loses_its_tail_while_nothing_else_happens() {
    // The file no longer grows, so only a check of the stream's last ID detects the loss.
    let mut rig = Rig::with(Persistence::Everysec);
    rig.write_input(text::numbered(0..5000, 1));
    let mut reader = rig.reader().start();
    wait::until("the stream is filled", || rig.stream_len() == 5000);
    rig.redis.kill9();
    rig.redis.lose_tail(100_000);
    rig.redis.start_again();
    let mut writer = rig.writer().start();
    rig.wait_delivered();
    reader.stop();
    writer.stop();
    rig.assert_identical();
}

#[test]
fn failover_to_a_stale_replica() {
    let seed = e2e::seed();
    let rig = Rig::new();
    let replica = RedisServer::start_replica_of(&rig.redis, &rig.folder.join("replica"));
    let proxy = Proxy::start(rig.redis.port());
    let lines = 40_000;
    let mut growth = Growth::of(&rig.input, text::numbered(0..lines, seed), Duration::from_secs(5), seed);
    let mut reader = rig.reader().set("--redis-url", proxy.url()).start();
    let mut writer = rig.writer().set("--redis-url", proxy.url()).start();
    rig.wait_output_len(500_000);
    // The replica is detached, and the master continues for a while and is then lost.
    replica.cli("REPLICAOF NO ONE");
    rig.wait_output_len(1_500_000);
    proxy.retarget(replica.port());
    growth.wait();
    rig.wait_delivered();
    let pending = || replica.call(&["XPENDING", STREAM, "writers"]).list()[0].int();
    wait::until("nothing is pending", || pending() == 0);
    reader.stop();
    writer.stop();
    rig.assert_identical();
    e2e::check::numbered(&rig.output_bytes(), lines).unwrap();
}

#[test]
fn an_emptied_redis_and_a_lost_state_file_are_a_new_source_for_an_old_output() {
    // Nothing but the file ID in the journal describes the output. The content starts over: no line
    // is lost, and duplicate lines are accepted.
    let rig = Rig::new();
    let bytes = text::numbered(0..1000, 1);
    rig.write_input(&bytes);
    rig.reader().once().run_ok();
    rig.writer().once().run_ok();
    rig.redis.flushall();
    std::fs::remove_file(rig.input.parent().unwrap().join(".input.txt.line_stream.source.json")).unwrap();
    rig.reader().once().run_ok();
    rig.writer().once().run_ok();
    let output = rig.output_bytes();
    assert!(output == bytes || output == [&bytes[..], &bytes[..]].concat(), "all of it, once or twice");
}

/// Deletes the stream after Redis reported that it exists and before the batch is added.
fn deleted_before_a_batch_of(lines: u64, request: &'static [u8]) {
    let rig = Rig::new();
    let proxy = Proxy::start(rig.redis.port());
    rig.write_input("first\nsecond\n");
    let mut reader = rig.reader().set("--redis-url", proxy.url()).start();
    wait::until("the first lines are there", || rig.stream_len() == 2);
    proxy.hold_requests_before(request);
    let more: Vec<String> = (0..lines).map(|line| format!("more {line}\n")).collect();
    rig.append_input(more.concat());
    wait::until("the batch is about to land", || proxy.holds_requests());
    rig.redis.call(&["DEL", STREAM]);
    proxy.heal();
    wait::until("all lines are there", || rig.stream_len() as u64 == 2 + lines);
    let there: Vec<u8> = rig.entries().into_iter().flat_map(|(_, _, line)| [line, b"\n".to_vec()].concat()).collect();
    assert_eq!(there, std::fs::read(&rig.input).unwrap());
    assert_eq!(reader.metric("reader_generations_total"), 1.0, "sent again with the same IDs");
}

#[test]
fn a_stream_deleted_in_the_moment_before_an_entry_is_filled_again() {
    deleted_before_a_batch_of(1, b"$7\r\nEVALSHA\r\n");
}

#[test]
fn a_stream_deleted_in_the_moment_before_a_batch_is_filled_again() {
    deleted_before_a_batch_of(50, b"*1\r\n$4\r\nEXEC\r\n");
}

#[test]
fn a_stream_deleted_again_and_again_under_load_is_filled_again() {
    let seed = e2e::seed();
    let mut rng = fastrand::Rng::with_seed(seed);
    let rig = Rig::new();
    let mut growth = Growth::of(&rig.input, text::numbered(0..60_000, seed), Duration::from_secs(4), seed);
    let mut reader = rig.reader().start();
    let mut writer = rig.writer().start();
    for round in 1..=8 {
        rig.wait_output_len(100_000 * round);
        wait::random_moment(&mut rng, 0..200);
        rig.redis.call(&["DEL", STREAM]);
    }
    growth.wait();
    rig.wait_delivered();
    reader.stop();
    writer.stop();
    rig.assert_identical();
}
