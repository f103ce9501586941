//! The source of a stream and its record in Redis: other files, lost state, foreign IDs, and
//! partially executed transactions.

use std::path::Path;

use e2e::rig::STREAM;
use e2e::{Proxy, Rig, Service, text, wait};

const RECORD: &str = "{line_stream}:source";

/// Asserts exit code 2, and a last line that contains all of `parts`.
#[track_caller]
fn refused(service: &mut Service, parts: &[&str]) {
    assert_eq!(service.code(), Some(2), "{}", service.log());
    let log = service.log();
    let last = log.lines().last().unwrap_or_default();
    assert!(parts.iter().all(|part| last.contains(part)), "{parts:?} are not in {last:?}");
}

fn names_in(folder: &Path) -> Vec<String> {
    let names = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

#[test]
fn a_second_file_on_a_stream_is_refused_every_time() {
    for framing in ["line", "chunk"] {
        let rig = Rig::new();
        let header = "id,name,value\n";
        rig.write_input(header);
        rig.reader().set("--framing", framing).once().run_ok();
        // In the same folder and in another one; the first file begins with exactly the sent bytes.
        let elsewhere = rig.folder.join("elsewhere");
        std::fs::create_dir(&elsewhere).unwrap();
        let beside = rig.input.with_file_name("other.txt");
        let others =
            [(beside, format!("{header}1,a,b\n")), (elsewhere.join("other.txt"), "quite another\n".to_owned())];
        for (other, bytes) in others {
            std::fs::write(&other, bytes).unwrap();
            let before = names_in(other.parent().unwrap());
            for _ in 0..3 {
                let mut reader = rig.reader().set("--framing", framing).set("--input", &other).once().run();
                refused(&mut reader, &["already carries another file", "input.txt", "another --stream"]);
                assert_eq!(names_in(other.parent().unwrap()), before, "a refused start writes nothing");
            }
            let mut check = rig.reader().word("check").set("--input", &other).run();
            assert_eq!(check.code(), Some(2), "{}", check.log());
        }
        assert_eq!(rig.stream_len(), 1);
        // The original file is still accepted.
        rig.append_input("1,x,y\n");
        rig.reader().set("--framing", framing).once().run_ok();
        rig.writer().once().run_ok();
        rig.assert_identical();
    }
}

fn generations(state: &[u8]) -> serde_json::Value {
    serde_json::from_slice::<serde_json::Value>(state).unwrap()["generations"].take()
}

#[test]
fn an_unreadable_state_file_beside_an_empty_redis_is_refused() {
    let rig = Rig::new();
    rig.write_input(text::numbered(0..1000, 1));
    rig.reader().once().run_ok();
    rig.writer().once().run_ok();
    let state = rig.input.with_file_name(".input.txt.line_stream.source.json");
    let good = std::fs::read(&state).unwrap();
    let newer = String::from_utf8(good.clone()).unwrap().replace("\"version\": 1", "\"version\": 9");
    for bad in [vec![0; 300], good[..100].to_vec(), Vec::new(), newer.into_bytes()] {
        rig.redis.flushall();
        std::fs::write(&state, &bad).unwrap();
        refused(&mut rig.reader().run(), &["cannot read the state file", "restore the file, or remove it"]);
        assert_eq!(rig.redis.call(&["EXISTS", STREAM, RECORD]).int(), 0, "a refused start writes nothing");
        assert_eq!(std::fs::read(&state).unwrap(), bad, "not even the state file");
        // The state file alone restores everything.
        std::fs::write(&state, &good).unwrap();
        rig.reader().once().run_ok();
        // While Redis has the record, the file is not needed, and is rewritten.
        std::fs::write(&state, &bad).unwrap();
        rig.reader().once().run_ok();
        assert_eq!(generations(&std::fs::read(&state).unwrap()), generations(&good));
    }
    rig.writer().once().run_ok();
    rig.assert_identical();
}

#[test]
fn exhausted_ids_are_one_state_and_not_a_loop() {
    let rig = Rig::new();
    rig.write_input(text::numbered(0..100, 1));
    let (mut reader, mut writer) = (rig.reader().start(), rig.writer().start());
    rig.wait_delivered();
    let max = u64::MAX;
    rig.redis.call(&["XADD", STREAM, &format!("{max}-{max}"), "a", "b"]);
    rig.append_input(text::numbered(100..200, 1));
    wait::until("the reader says why it waits", || {
        let (code, reason) = reader.readyz();
        code == 503 && reason.contains("leaves no larger one") && reason.contains("delete it")
    });
    let fields = rig.redis.call(&["HLEN", RECORD]).int();
    let tried = reader.metric("reader_resumes_total");
    reader.wait_for_metric("reader_resumes_total", |now| now >= tried + 3.0);
    assert_eq!(rig.redis.call(&["HLEN", RECORD]).int(), fields, "the record does not grow");
    assert_eq!(reader.metric("reader_generations_total"), 1.0);
    assert_eq!(reader.log().matches("foreign XADD").count(), 1, "{}", reader.log());
    rig.redis.call(&["DEL", STREAM]);
    rig.wait_delivered();
    reader.stop();
    writer.stop();
    rig.assert_identical();
}

#[test]
fn a_permanent_foreign_producer_does_not_grow_the_record() {
    let rig = Rig::new();
    rig.write_input("first\n");
    let (mut reader, mut writer) = (rig.reader().start(), rig.writer().start());
    rig.wait_delivered();
    for n in 0..150 {
        rig.redis.call(&["XADD", STREAM, "*", "line", "a foreign entry"]);
        rig.append_input(format!("line {n}\n"));
        rig.wait_delivered();
    }
    assert!(reader.metric("reader_generations_total") > 100.0, "each foreign entry makes a new one");
    let fields = rig.redis.call(&["HLEN", RECORD]).int();
    assert!(fields <= 64 + 10, "{fields} fields in the record");
    let state = rig.input.with_file_name(".input.txt.line_stream.source.json");
    assert!(generations(&std::fs::read(state).unwrap()).as_array().unwrap().len() <= 65);
    reader.stop();
    writer.stop();
    rig.assert_identical();
    // Sending everything again does not need the dropped generations.
    rig.redis.flushall();
    rig.append_input("last\n");
    rig.reader().once().run_ok();
    rig.writer().once().run_ok();
    rig.assert_identical();
}

#[test]
fn a_permission_revoked_inside_a_transaction_begins_no_generation() {
    let rig = Rig::new();
    let proxy = Proxy::start(rig.redis.port());
    rig.write_input("first\nsecond\n");
    let mut reader = rig.reader().set("--redis-url", proxy.url()).start();
    wait::until("the first lines are there", || rig.stream_len() == 2);
    for round in 1..=3 {
        // Redis executes the HSET of the transaction and denies each XADD.
        proxy.hold_requests_before(b"*1\r\n$4\r\nEXEC\r\n");
        rig.append_input(text::numbered(round * 50..(round + 1) * 50, 1));
        wait::until("the batch is about to be executed", || proxy.holds_requests());
        rig.redis.cli("ACL SETUSER default -xadd");
        proxy.heal();
        wait::until("Redis refuses the entries", || reader.readyz().0 == 503);
        let tried = reader.metric("reader_resumes_total");
        reader.wait_for_metric("reader_resumes_total", |now| now >= tried + 3.0);
        rig.redis.cli("ACL SETUSER default +@all");
        wait::until("all lines are there", || rig.stream_len() as u64 == 2 + round * 50);
    }
    assert_eq!(reader.metric("reader_generations_total"), 1.0, "{}", reader.log());
    reader.stop();
    rig.writer().once().run_ok();
    rig.assert_identical();
}

#[test]
fn entries_of_a_partial_transaction_are_recognised() {
    // An append-only file that was truncated inside a transaction, and then appended to, restores a
    // part of it.
    let rig = Rig::new();
    rig.write_input("first\n");
    rig.reader().once().run_ok();
    let last = rig.redis.call(&["XINFO", "STREAM", STREAM]).field("last-generated-id").text();
    let (generation, _) = last.split_once('-').unwrap();
    rig.append_input("second\nthird\nfourth\n");
    rig.redis.call(&["XADD", STREAM, &format!("{generation}-13"), "line", "second"]);
    rig.redis.call(&["XADD", STREAM, &format!("{generation}-19"), "line", "third"]);
    let mut reader = rig.reader().start();
    wait::until("the rest is there", || rig.stream_len() == 4);
    assert_eq!(reader.metric("reader_generations_total"), 0.0, "{}", reader.log());
    reader.stop();
    rig.writer().once().run_ok();
    rig.assert_identical();
    // An entry of another format at the same position is foreign.
    rig.append_input("fifth\nsixth\n");
    rig.redis.call(&["XADD", STREAM, &format!("{generation}-30"), "other", "fifth"]);
    rig.reader().once().run_ok();
    rig.writer().once().run_ok();
    rig.assert_identical();
}

#[test]
fn an_older_state_of_the_stream_is_detected_under_load() {
    let rig = Rig::new();
    rig.write_input(text::numbered(0..1000, 1));
    let mut reader = rig.reader().start();
    wait::until("the stream is filled", || rig.stream_len() == 1000);
    let dump = rig.redis.call(&["DUMP", STREAM]);
    for n in 1..=5 {
        rig.append_input(text::numbered(n * 1000..(n + 1) * 1000, 1));
        wait::until("the lines are there", || rig.stream_len() as u64 == (n + 1) * 1000);
    }
    // The record remains, so the reader adds its next lines after a gap before it can detect it.
    rig.redis.call(&[&b"RESTORE"[..], STREAM.as_bytes(), b"0", dump.bytes(), b"REPLACE"]);
    rig.append_input(text::numbered(6000..7000, 1));
    let mut writer = rig.writer().start();
    rig.wait_output_len(std::fs::metadata(&rig.input).unwrap().len());
    reader.stop();
    writer.stop();
    let mut lines: Vec<&[u8]> = Vec::new();
    let output = rig.output_bytes();
    lines.extend(output.split_inclusive(|&byte| byte == b'\n'));
    lines.sort_unstable();
    let input = std::fs::read(&rig.input).unwrap();
    let mut expected: Vec<&[u8]> = input.split_inclusive(|&byte| byte == b'\n').collect();
    expected.sort_unstable();
    assert!(lines == expected, "every line exactly once");
}

#[test]
fn an_unread_group_is_reported() {
    let rig = Rig::new();
    rig.write_input(text::numbered(0..100, 1));
    let mut reader = rig.reader().set("--max-backlog", "1000").start();
    let mut writer = rig.writer().start();
    rig.wait_delivered();
    rig.redis.call(&["XGROUP", "CREATE", STREAM, "abandoned", "0"]);
    rig.append_input(text::numbered(100..5000, 1));
    wait::until("the reader names the group", || {
        let (code, reason) = reader.readyz();
        code == 503 && reason.contains("group abandoned holds it up") && reason.contains("XGROUP DESTROY")
    });
    let mut check = rig.reader().word("check").set("--max-backlog", "1000").run();
    assert_eq!(check.code(), Some(1));
    let found = String::from_utf8(check.process().stdout()).unwrap();
    assert!(found.contains("group abandoned holds it up"), "{found}");
    rig.redis.call(&["XGROUP", "DESTROY", STREAM, "abandoned"]);
    rig.wait_delivered();
    wait::until("the reader is ready", || reader.readyz().0 == 200);
    reader.stop();
    writer.stop();
    rig.assert_identical();
}

#[test]
fn two_readers_on_one_state_folder_start_at_once() {
    let rig = Rig::new();
    rig.write_input(text::numbered(0..2000, 1));
    // Process IDs are equal in different containers; at least the file names must not collide.
    let mut readers: Vec<Service> = (0..6).map(|_| rig.reader().start()).collect();
    wait::until("all lines are there", || rig.stream_len() == 2000);
    readers.iter_mut().for_each(Service::stop);
    rig.writer().once().run_ok();
    rig.assert_identical();
    let left: Vec<String> = names_in(rig.input.parent().unwrap());
    assert!(left.iter().all(|name| !name.contains("tmp") && !name.contains("probe")), "{left:?}");
}
