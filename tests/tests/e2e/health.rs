//! Metrics are correct, and the health endpoint always answers.

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use e2e::{Proxy, Rig, http, text, wait};

#[test]
fn metrics_are_correct() {
    for framing in ["line", "chunk"] {
        let rig = Rig::new();
        let bytes = text::numbered(0..20_000, 1);
        rig.write_input(&bytes);
        let mut reader = rig.reader().set("--framing", framing).start();
        let mut writer = rig.writer().start();
        rig.wait_delivered();
        reader.wait_for_metric("lines_read_total", |lines| lines == 20_000.0);
        writer.wait_for_metric("lines_written_total", |lines| lines == 20_000.0);
        assert_eq!(reader.metric("reader_bytes_read_total"), bytes.len() as f64);
        assert_eq!(writer.metric("writer_bytes_written_total"), bytes.len() as f64);
        assert_eq!(reader.metric("reader_input_size_bytes"), bytes.len() as f64);
        assert_eq!(reader.metric("reader_input_position_bytes"), bytes.len() as f64);
        assert_eq!(writer.metric("writer_gap_bytes_total"), 0.0);
        for service in [&mut reader, &mut writer] {
            assert_eq!(service.metric("line_stream_redis_up"), 1.0);
            assert_eq!(service.metric("line_stream_build_info"), 1.0);
            assert_eq!(service.metric("line_stream_redis_reconnects_total"), 0.0);
            assert!(service.metric("process_resident_memory_bytes") > 0.0);
        }
    }
}

#[test]
fn every_metric_has_a_help_and_a_type() {
    let rig = Rig::new();
    rig.write_input("one\n");
    let (mut reader, mut writer) = (rig.reader().start(), rig.writer().start());
    rig.wait_delivered();
    for service in [&mut reader, &mut writer] {
        let page = service.get("/metrics").1;
        for (name, _) in http::Metrics::parse(&page).iter() {
            let name = name.split('{').next().unwrap();
            let family =
                ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(name);
            let declared = |what: &str| [name, family].iter().any(|name| page.contains(&format!("# {what} {name} ")));
            assert!(declared("HELP") && declared("TYPE"), "{name} is not described");
        }
    }
}

#[test]
fn readiness_depends_on_redis_and_liveness_does_not() {
    let mut rig = Rig::new();
    rig.write_input("one\n");
    let (mut reader, mut writer) = (rig.reader().start(), rig.writer().start());
    rig.wait_delivered();
    for service in [&mut reader, &mut writer] {
        wait::until("ready", || service.readyz().0 == 200);
    }
    rig.redis.kill9();
    for service in [&mut reader, &mut writer] {
        wait::until("not ready", || service.readyz().0 == 503);
        assert!(service.readyz().1.contains("redis"));
        assert_eq!(service.healthz().0, 200);
        assert_eq!(service.metric("line_stream_redis_up"), 0.0);
    }
    rig.redis.start_again();
    for service in [&mut reader, &mut writer] {
        wait::until("ready", || service.readyz().0 == 200);
        assert!(service.metric("line_stream_redis_reconnects_total") >= 1.0);
        assert_eq!(service.metric("line_stream_redis_up"), 1.0);
    }
}

#[test]
fn a_hanging_redis_fails_readiness_but_not_liveness() {
    let rig = Rig::new();
    rig.write_input("one\n");
    let (mut reader, mut writer) = (rig.reader().start(), rig.writer().start());
    rig.wait_delivered();
    rig.redis.freeze();
    for service in [&mut reader, &mut writer] {
        wait::until("not ready", || service.readyz().0 == 503);
        assert_eq!(service.healthz().0, 200);
    }
    rig.redis.thaw();
    for service in [&mut reader, &mut writer] {
        wait::until("ready", || service.readyz().0 == 200);
    }
}

#[test]
fn a_reader_without_an_input_notices_that_redis_is_gone() {
    let mut rig = Rig::new();
    let mut reader = rig.reader().start();
    wait::until("it waits for its input", || reader.readyz().1.contains("does not exist"));
    wait::until("Redis is there", || reader.metric("line_stream_redis_up") == 1.0);
    rig.redis.kill9();
    wait::until("it says that Redis is gone", || {
        let (code, reason) = reader.readyz();
        code == 503 && reason.contains("redis: ") && reader.metric("line_stream_redis_up") == 0.0
    });
    rig.redis.start_again();
    rig.write_input("one\n");
    wait::until("both are there", || reader.readyz().0 == 200);
    reader.stop();
    rig.writer().once().run_ok();
    rig.assert_identical();
}

/// How many commands Redis denied.
fn refused(rig: &Rig) -> i64 {
    rig.redis.cli("ACL LOG").list().iter().map(|entry| entry.field("count").int()).sum()
}

#[test]
fn a_redis_that_takes_connections_and_refuses_the_work_is_one_state() {
    let rig = Rig::new();
    rig.write_input("one\n");
    let (mut reader, mut writer) = (rig.reader().start(), rig.writer().start());
    rig.wait_delivered();
    rig.redis.cli("ACL SETUSER default -xadd -xreadgroup");
    rig.append_input("two\n");
    reader.wait_for_log(&["NOPERM", "xadd"]);
    writer.wait_for_log(&["NOPERM", "xreadgroup"]);
    rig.append_input("three\n");
    reader.wait_for_metric("reader_input_size_bytes", |size| size == 14.0);
    let before = refused(&rig);
    wait::until("both were refused again and again", || refused(&rig) > before + 6);
    for service in [&mut reader, &mut writer] {
        let (code, reason) = service.readyz();
        assert!(code == 503 && reason.contains("NOPERM") && reason.contains("ACL SETUSER"), "{code} {reason}");
        let log = service.log();
        assert_eq!(log.matches("NOPERM").count(), 1, "told once: {log}");
        assert_eq!(log.matches("redis: ready").count(), 1, "it was ready at the start only: {log}");
    }
    rig.redis.cli("ACL SETUSER default +@all");
    rig.wait_delivered();
    for service in [&mut reader, &mut writer] {
        wait::until("ready again", || service.readyz().0 == 200);
    }
}

#[test]
fn a_script_that_blocks_redis_is_waited_for() {
    let rig = Rig::new();
    rig.redis.cli("CONFIG SET lua-time-limit 1");
    rig.write_input("one\n");
    let mut reader = rig.reader().start();
    wait::until("the first line is in the stream", || rig.stream_len() == 1);
    let mut client = rig.redis.client();
    let blocked = std::thread::spawn(move || client.call(&["EVAL", "while true do end", "0"]));
    // More lines than a script takes.
    rig.append_input(text::numbered(0..100, 1));
    reader.wait_for_log(&["redis: ", "BUSY", "SCRIPT KILL"]);
    // Each attempt begins with a new connection, which Redis refuses, too.
    reader.wait_for_metric("line_stream_errors_total", |errors| errors >= 5.0);
    rig.redis.cli("SCRIPT KILL");
    blocked.join().unwrap().unwrap().unwrap_err();
    let _writer = rig.writer().start();
    rig.wait_delivered();
    assert!(reader.runs(), "{}", reader.log());
}

#[test]
fn a_reader_stops_when_redis_begins_no_transactions() {
    let rig = Rig::new();
    rig.write_input("one\n");
    let mut reader = rig.reader().start();
    wait::until("the first line is in the stream", || rig.redis.cli("XLEN line_stream").int() == 1);
    rig.redis.cli("ACL SETUSER default -multi");
    // More lines than a script takes.
    rig.append_input(text::numbered(0..100, 1));
    let status = reader.wait_exit(wait::SOON);
    let log = reader.log();
    assert_eq!(status.code(), Some(1), "{log}");
    assert_eq!(rig.redis.cli("XLEN line_stream").int(), 1, "nothing was added outside of a transaction");
    assert!(log.contains("began no transaction") && log.contains("NOPERM") && log.contains("ACL SETUSER"), "{log}");
    // The next reader detects it before it sends anything.
    rig.append_input("four\n");
    let before = rig.redis.cli("XLEN line_stream").int();
    let mut reader = rig.reader().run();
    let log = reader.log();
    assert_eq!(reader.code(), Some(2), "{log}");
    assert!(log.contains("no transactions") && log.contains("NOPERM"), "{log}");
    assert_eq!(rig.redis.cli("XLEN line_stream").int(), before);
    rig.redis.cli("ACL SETUSER default +multi");
    rig.reader().once().run_ok();
    rig.writer().once().run_ok();
    rig.assert_identical();
}

#[test]
fn a_reader_whose_transactions_are_taken_away_leaves_no_gap() {
    let rig = Rig::new();
    let proxy = Proxy::start(rig.redis.port());
    rig.write_input("first\n");
    let mut reader = rig.reader().set("--redis-url", proxy.url()).start();
    wait::until("the first line is in the stream", || rig.stream_len() == 1);
    // Hold one batch at its EXEC, with the next one queued after it.
    proxy.hold_requests_before(b"*1\r\n$4\r\nEXEC\r\n");
    rig.append_input(text::numbered(0..20_000, 1));
    wait::until("a batch is about to be executed", || proxy.holds_requests());
    rig.redis.cli("ACL SETUSER default -@transaction");
    proxy.heal();
    reader.wait_exit(wait::SOON);
    let log = reader.log();
    assert!(matches!(reader.code(), Some(1 | 2)) && log.contains("ACL SETUSER"), "{log}");
    assert_eq!(rig.stream_len(), 1, "neither batch was added: {log}");
    rig.redis.cli("ACL SETUSER default +@all");
    rig.reader().once().run_ok();
    rig.writer().once().run_ok();
    rig.assert_identical();
}

#[test]
fn a_writer_without_permission_to_trim_is_not_ready() {
    let rig = Rig::new();
    rig.write_input("one\n");
    let (mut reader, mut writer) = (rig.reader().start(), rig.writer().start());
    rig.wait_delivered();
    wait::until("ready", || writer.readyz().0 == 200);
    rig.redis.cli("ACL SETUSER default -xtrim");
    for n in 1..=4 {
        rig.append_input("more\n");
        rig.wait_delivered();
        wait::until("trimming was refused", || refused(&rig) >= n);
        // The group is still measured successfully.
        let len = rig.stream_len() as f64;
        writer.wait_for_metric("line_stream_length_entries", |measured| measured >= len);
    }
    let (code, reason) = writer.readyz();
    assert!(code == 503 && reason.contains("xtrim"), "{code} {reason}");
    assert_eq!(writer.log().matches("redis: ready").count(), 1, "{}", writer.log());
    rig.redis.cli("ACL SETUSER default +@all");
    // No further entries need to be acknowledged.
    wait::until("ready again", || writer.readyz().0 == 200);
    reader.stop();
    writer.stop();
}

#[test]
fn slow_and_hostile_clients_do_not_block_health() {
    let rig = Rig::new();
    rig.write_input("one\n");
    let (mut reader, mut writer) = (rig.reader().start(), rig.writer().start());
    for service in [&mut reader, &mut writer] {
        let addr = service.http_addr();
        let mut hostile = Vec::new();
        for n in 0..200 {
            let Ok(mut stream) = TcpStream::connect(addr) else { break };
            let _ = match n % 4 {
                0 => Ok(()),
                1 => stream.write_all(b"GET /metrics HTT"),
                2 => stream.write_all(b"GET /metrics HTTP/1.1\r\nContent-Length: 100000000\r\n\r\n"),
                _ => stream.write_all(&[0xFF; 4096]),
            };
            hostile.push(stream);
        }
        for _ in 0..5 {
            let begun = Instant::now();
            assert_eq!(service.healthz().0, 200);
            assert!(begun.elapsed() < Duration::from_secs(5), "held up for {:?}", begun.elapsed());
        }
        drop(hostile);
    }
    rig.wait_delivered();
    rig.assert_identical();
}

#[test]
fn the_endpoint_changes_nothing() {
    let rig = Rig::new();
    rig.write_input("one\n");
    let (mut reader, mut writer) = (rig.reader().start(), rig.writer().start());
    rig.wait_delivered();
    for service in [&mut reader, &mut writer] {
        let addr = service.http_addr();
        for method in ["POST", "PUT", "DELETE", "PATCH"] {
            for path in ["/", "/metrics", "/healthz", "/readyz", "/quit"] {
                let (status, _) = http::request(addr, method, path).unwrap();
                assert!(status == 405 || status == 404, "{method} {path}: {status}");
            }
        }
        assert!(service.runs());
        assert_eq!(service.get("/").0, 200);
        assert_eq!(service.get("/nothing").0, 404);
    }
}
