//! Redis refuses commands, or the stream is full: the services wait, report why, and continue.

use e2e::{Growth, Persistence, Rig, text, wait};
use std::time::Duration;

#[test]
fn redis_out_of_memory_is_waited_for() {
    for framing in ["line", "chunk"] {
        let rig = Rig::new();
        let used: u64 = rig.redis.info("used_memory").unwrap().parse().unwrap();
        rig.redis.config_set("maxmemory-policy", "noeviction");
        rig.redis.config_set("maxmemory", &(used + 3_000_000).to_string());
        rig.write_input(text::numbered(0..100_000, 1));
        let mut reader = rig.reader().set("--framing", framing).start();
        let line = reader.wait_for_log(&["memory"]);
        assert!(!line.contains("panicked"), "{line}");
        assert_eq!(reader.healthz().0, 200);
        reader.wait_for_metric("line_stream_errors_total", |errors| errors >= 1.0);
        let before = rig.stream_len();
        assert!(before > 0, "it filled what there was");
        rig.redis.config_set("maxmemory", "0");
        let mut writer = rig.writer().start();
        rig.wait_delivered();
        wait::until("ready", || reader.readyz().0 == 200);
        reader.stop();
        writer.stop();
        rig.assert_identical();
    }
}

#[test]
fn redis_out_of_memory_again_and_again_under_load() {
    let seed = e2e::seed();
    let mut rng = fastrand::Rng::with_seed(seed);
    let rig = Rig::new();
    let lines = 50_000;
    let mut growth = Growth::of(&rig.input, text::numbered(0..lines, seed), Duration::from_secs(6), seed);
    let mut reader = rig.reader().start();
    let mut writer = rig.writer().start();
    while growth.runs() {
        rig.redis.config_set("maxmemory", "1");
        wait::random_moment(&mut rng, 1..400);
        rig.redis.config_set("maxmemory", "0");
        wait::random_moment(&mut rng, 1..400);
    }
    growth.wait();
    rig.wait_delivered();
    reader.stop();
    writer.stop();
    rig.assert_identical();
    e2e::check::numbered(&rig.output_bytes(), lines).unwrap();
}

#[test]
fn a_read_only_redis_is_waited_for() {
    let rig = Rig::new();
    rig.write_input(text::numbered(0..1000, 1));
    let mut reader = rig.reader().start();
    let mut writer = rig.writer().start();
    rig.wait_delivered();
    // A replica without a master keeps its data and refuses writes.
    rig.redis.cli("REPLICAOF 127.0.0.1 1");
    rig.append_input(text::numbered(1000..2000, 1));
    reader.wait_for_log(&["readonly"]);
    assert_eq!(reader.healthz().0, 200);
    assert_eq!(writer.healthz().0, 200);
    rig.redis.cli("REPLICAOF NO ONE");
    rig.wait_delivered();
    reader.stop();
    writer.stop();
    assert!(!writer.log().contains("is gone from"), "nothing was lost: {}", writer.log());
    rig.assert_identical();
}

#[test]
fn a_redis_that_cannot_save_is_waited_for() {
    let rig = Rig::new();
    rig.write_input(text::numbered(0..1000, 1));
    let mut reader = rig.reader().start();
    let mut writer = rig.writer().start();
    rig.wait_delivered();
    // MISCONF: a snapshot is due and its file cannot be written.
    std::fs::create_dir(rig.folder.join("redis/dump.rdb")).unwrap();
    rig.redis.config_set("save", "3600 1");
    rig.redis.cli("SET something new");
    rig.redis.cli("BGSAVE");
    wait::until("the snapshot fails", || rig.redis.info("rdb_last_bgsave_status").as_deref() == Some("err"));
    rig.append_input(text::numbered(1000..2000, 1));
    reader.wait_for_log(&["misconf"]);
    assert_eq!(reader.healthz().0, 200);
    rig.redis.config_set("save", "");
    rig.wait_delivered();
    reader.stop();
    writer.stop();
    rig.assert_identical();
}

#[test]
fn a_redis_that_loads_its_data_is_waited_for() {
    // Loading takes half a millisecond per command, seconds in total.
    let mut rig = Rig::with_redis(Persistence::Always, &["--key-load-delay", "500"]);
    rig.write_input(text::numbered(0..5000, 1));
    let mut reader = rig.reader().start();
    let mut writer = rig.writer().start();
    rig.wait_delivered();
    rig.redis.kill9();
    rig.append_input(text::numbered(5000..6000, 1));
    rig.redis.start_again();
    for service in [&mut reader, &mut writer] {
        service.wait_for_log(&["loading"]);
        assert_eq!(service.healthz().0, 200);
    }
    rig.wait_delivered();
    reader.stop();
    writer.stop();
    rig.assert_identical();
}

#[test]
fn a_cluster_that_is_down_is_waited_for() {
    let rig = Rig::with_redis(Persistence::None, &["--cluster-enabled", "yes"]);
    rig.write_input(text::numbered(0..1000, 1));
    let mut reader = rig.reader().start();
    let mut writer = rig.writer().start();
    for service in [&mut reader, &mut writer] {
        service.wait_for_log(&["clusterdown"]);
        assert_eq!((service.healthz().0, service.readyz().0), (200, 503));
    }
    rig.redis.cli("CLUSTER ADDSLOTSRANGE 0 16383");
    rig.wait_delivered();
    rig.redis.cli("CLUSTER DELSLOTSRANGE 0 16383");
    rig.append_input(text::numbered(1000..2000, 1));
    wait::until("the reader is not ready", || reader.readyz().0 == 503);
    rig.redis.cli("CLUSTER ADDSLOTSRANGE 0 16383");
    rig.wait_delivered();
    reader.stop();
    writer.stop();
    rig.assert_identical();
}

#[test]
fn a_password_that_changes_while_they_run_is_waited_for() {
    let rig = Rig::new();
    rig.write_input(text::numbered(0..1000, 1));
    let mut reader = rig.reader().start();
    let mut writer = rig.writer().start();
    rig.wait_delivered();
    let mut admin = rig.redis.client();
    let mut run = |command: &[&str]| admin.call(command).unwrap().unwrap();
    run(&["CONFIG", "SET", "requirepass", "new"]);
    run(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
    rig.append_input(text::numbered(1000..2000, 1));
    for service in [&mut reader, &mut writer] {
        service.wait_for_log(&["noauth"]);
        assert_eq!((service.healthz().0, service.readyz().0), (200, 503));
    }
    run(&["CONFIG", "SET", "requirepass", ""]);
    rig.wait_delivered();
    reader.stop();
    writer.stop();
    rig.assert_identical();
}

#[test]
fn the_reader_waits_while_the_stream_is_full() {
    for (framing, bound, lines) in [("line", "3000", 30_000), ("chunk", "20", 100_000)] {
        let rig = Rig::new();
        rig.write_input(text::numbered(0..lines, 1));
        let mut reader = rig.reader().set("--framing", framing).set("--max-backlog", bound).start();
        reader.wait_for_log(&[bound, "--max-backlog"]);
        reader.wait_for_metric("reader_backpressure", |waits| waits == 1.0);
        assert_eq!(reader.healthz().0, 200);
        let held = rig.stream_len();
        assert_eq!(held.to_string(), bound, "entries in the stream");
        let mut writer = rig.writer().start();
        rig.wait_delivered();
        reader.wait_for_metric("reader_backpressure", |waits| waits == 0.0);
        reader.stop();
        writer.stop();
        rig.assert_identical();
        let told = reader.log().lines().filter(|line| line.contains("--max-backlog")).count();
        assert!(told <= 3, "{told} lines in the log tell the same");
    }
}

#[test]
fn a_full_stream_does_not_end_once_early() {
    let rig = Rig::new();
    rig.write_input(text::numbered(0..10_000, 1));
    let mut reader = rig.reader().set("--max-backlog", "2000").once().start();
    reader.wait_for_log(&["--max-backlog"]);
    assert!(reader.runs());
    let mut writer = rig.writer().start();
    reader.wait_exit(wait::SOON);
    assert_eq!(reader.code(), Some(0));
    rig.wait_delivered();
    writer.stop();
    rig.assert_identical();
}
