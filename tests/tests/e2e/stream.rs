//! The entries of the stream, and changes by other programs.

use e2e::rig::STREAM;
use e2e::{Growth, Proxy, Rig, text, wait};
use std::time::Duration;

#[test]
fn entries_are_plain_for_any_other_consumer() {
    let rig = Rig::new();
    rig.write_input("first line\n\nthird line\n");
    rig.reader().once().run_ok();
    let entries = rig.entries();
    let fields: Vec<_> = entries.iter().map(|(_, field, payload)| (field.as_str(), payload.as_slice())).collect();
    assert_eq!(fields, [("line", &b"first line"[..]), ("line", b""), ("line", b"third line")]);
    let ends: Vec<_> = entries.iter().map(|(id, ..)| id.split_once('-').unwrap().1).collect();
    assert_eq!(ends, ["11", "12", "23"], "an ID tells where its line ends in the file");
}

#[test]
fn chunks_hold_whole_lines() {
    let rig = Rig::new();
    let bytes = text::numbered(0..20_000, 1);
    rig.write_input(&bytes);
    rig.reader().once().set("--framing", "chunk").run_ok();
    let entries = rig.entries();
    assert!(entries.iter().all(|(_, field, payload)| field == "lines" && payload.ends_with(b"\n")));
    let joined: Vec<u8> = entries.into_iter().flat_map(|(.., payload)| payload).collect();
    assert!(joined == bytes);
}

#[test]
fn a_foreign_producer_loses_no_line() {
    let rig = Rig::new();
    rig.write_input(text::numbered(0..1000, 1));
    rig.reader().once().run_ok();
    rig.redis.call(&["XADD", STREAM, "*", "greeting", "hello"]);
    rig.append_input(text::numbered(1000..2000, 1));
    rig.reader().once().run_ok();
    rig.redis.call(&["XADD", STREAM, "*", "line", "a foreign line in our field"]);
    rig.append_input(text::numbered(2000..3000, 1));
    rig.reader().once().run_ok();
    let mut writer = rig.writer().start();
    rig.wait_delivered();
    writer.wait_for_metric("writer_foreign_entries_total", |foreign| foreign == 2.0);
    writer.stop();
    rig.assert_identical();
    assert_eq!(rig.pending(), 0);
}

#[test]
fn a_foreign_producer_under_load_loses_no_line() {
    let seed = e2e::seed();
    let rig = Rig::new();
    let mut growth = Growth::of(&rig.input, text::numbered(0..30_000, seed), Duration::from_secs(4), seed);
    let mut reader = rig.reader().start();
    let mut writer = rig.writer().start();
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut foreign = 0;
    while growth.runs() {
        wait::random_moment(&mut rng, 50..400);
        rig.redis.call(&["XADD", STREAM, "*", "foreign", "entry"]);
        foreign += 1;
    }
    growth.wait();
    rig.wait_delivered();
    writer.wait_for_metric("writer_foreign_entries_total", |seen| seen == f64::from(foreign));
    reader.stop();
    writer.stop();
    rig.assert_identical();
    assert_eq!(rig.pending(), 0);
}

#[test]
fn another_file_for_the_same_stream_is_refused() {
    let mut rig = Rig::new();
    rig.write_input(text::numbered(0..100, 1));
    rig.reader().once().run_ok();
    rig.input = rig.folder.join("other.txt");
    rig.write_input(text::numbered(0..100, 2));
    let mut reader = rig.reader().once().run();
    assert_eq!(reader.code(), Some(2), "{}", reader.log());
    let line = reader.log().lines().last().unwrap().to_owned();
    assert!(line.contains("--stream") || line.contains("--input"), "{line}");
    assert!(line.contains("other.txt") && line.contains("input.txt"), "{line}");
    assert_eq!(rig.stream_len(), 100, "nothing was added");
}

#[test]
fn entries_deleted_by_hand_are_reported_as_a_gap() {
    let rig = Rig::new();
    let lines: Vec<Vec<u8>> = (0..100).map(|n| text::numbered(n..n + 1, 1)).collect();
    rig.write_input(lines.concat());
    rig.reader().once().run_ok();
    let entries = rig.entries();
    let victims = [17, 18, 40];
    for n in victims {
        rig.redis.call(&["XDEL", STREAM, &entries[n].0]);
    }
    let mut writer = rig.writer().start();
    let missing: usize = victims.iter().map(|&n| lines[n].len()).sum();
    writer.wait_for_metric("writer_gap_bytes_total", |bytes| bytes == missing as f64);
    // The range from the start of line 17 to the end of line 18.
    let begin: usize = lines[..17].iter().map(Vec::len).sum();
    let end: usize = lines[..19].iter().map(Vec::len).sum();
    writer.wait_for_log(&[&begin.to_string(), &end.to_string()]);
    writer.wait_for_metric("lines_written_total", |count| count == 97.0);
    writer.stop();
    let rest: Vec<u8> = (0..100).filter(|n| !victims.contains(n)).flat_map(|n| lines[n].clone()).collect();
    assert!(rig.output_bytes() == rest);
    assert_eq!(rig.pending(), 0);
}

#[test]
fn many_gaps_are_few_lines_in_the_log() {
    let rig = Rig::new();
    rig.write_input(text::numbered(0..2000, 1));
    rig.reader().once().run_ok();
    let entries = rig.entries();
    let victims = entries.iter().skip(1).step_by(2).map(|(id, ..)| id.as_str());
    let deleted = rig.redis.call(&["XDEL", STREAM].into_iter().chain(victims).collect::<Vec<_>>()).int();
    assert_eq!(deleted, 1000);
    let mut writer = rig.writer().once().run();
    assert_eq!(writer.code(), Some(0));
    let log = writer.log();
    assert!(log.matches("gap: bytes").count() <= 10, "{log}");
    assert!(log.contains("990 more gaps") && log.contains("take them from the source"), "{log}");
}

#[test]
fn entries_deleted_while_pending_are_reported_and_acknowledged() {
    let rig = Rig::new();
    let lines: Vec<Vec<u8>> = (0..100).map(|n| text::numbered(n..n + 1, 1)).collect();
    rig.write_input(lines.concat());
    rig.reader().once().run_ok();
    // The writer `one` received ten entries and died; then three of them were deleted.
    rig.redis.call(&["XGROUP", "CREATE", STREAM, "writers", "0"]);
    rig.redis.call(&["XREADGROUP", "GROUP", "writers", "one", "COUNT", "10", "STREAMS", STREAM, ">"]);
    let entries = rig.entries();
    for n in [3, 4, 5] {
        rig.redis.call(&["XDEL", STREAM, &entries[n].0]);
    }
    let mut writer = rig.writer().start();
    writer.wait_for_metric("lines_written_total", |count| count == 97.0);
    let missing: usize = lines[3..6].iter().map(Vec::len).sum();
    writer.wait_for_metric("writer_gap_bytes_total", |bytes| bytes == missing as f64);
    wait::until("nothing is pending", || rig.pending() == 0);
    writer.stop();
    assert!(rig.output_bytes() == [lines[..3].concat(), lines[6..].concat()].concat());
    let log = writer.log();
    let lines = log.matches("pending, the last one").count();
    assert!((1..3).contains(&lines), "a line a read, not one an entry: {log}");
    assert!(!log.contains("while it was pending"), "{log}");
}

#[test]
fn the_stream_is_trimmed_once_everything_is_acknowledged() {
    let rig = Rig::new();
    let mut reader = rig.reader().start();
    let mut writer = rig.writer().start();
    rig.write_input(text::numbered(0..50_000, 1));
    rig.wait_delivered();
    wait::until("the stream is short", || rig.stream_len() < 1000);
    // The services continue after the trim.
    rig.append_input(text::numbered(50_000..51_000, 1));
    rig.wait_delivered();
    reader.stop();
    writer.stop();
    rig.assert_identical();
    // A reader that starts on a trimmed stream sends nothing twice.
    rig.append_input("last\n");
    rig.reader().once().run_ok();
    rig.writer().once().run_ok();
    rig.assert_identical();
}

#[test]
fn a_group_that_lags_behind_loses_nothing_to_trimming() {
    let rig = Rig::new();
    rig.redis.call(&["XGROUP", "CREATE", STREAM, "slow", "0", "MKSTREAM"]);
    rig.write_input(text::numbered(0..20_000, 1));
    let mut reader = rig.reader().start();
    let mut writer = rig.writer().start();
    rig.wait_delivered();
    // The slow group has acknowledged 15,000 entries, has one pending entry, and has not read the
    // rest.
    let take = |count: &str| {
        let reply = rig.redis.call(&["XREADGROUP", "GROUP", "slow", "s", "COUNT", count, "STREAMS", STREAM, ">"]);
        let entries = reply.list().first().map(|stream| stream.list()[1].list().to_vec()).unwrap_or_default();
        entries.iter().map(|entry| entry.list()[0].text()).collect::<Vec<_>>()
    };
    let acknowledge = |ids: &[String]| {
        let command = ["XACK", STREAM, "slow"].into_iter().chain(ids.iter().map(String::as_str));
        rig.redis.call(&command.collect::<Vec<_>>());
    };
    acknowledge(&take("15000"));
    let held = take("1");
    rig.append_input(text::numbered(20_000..25_000, 1));
    rig.wait_delivered();
    wait::until("what all groups have acknowledged is trimmed", || rig.stream_len() < 11_000);
    let first = || rig.redis.call(&["XRANGE", STREAM, &held[0], &held[0]]).list().len();
    assert_eq!(first(), 1, "the entry that the slow group holds is still there");
    let rest = take("100000");
    assert_eq!(rest.len(), 25_000 - 15_001, "nothing that it has not seen is gone");
    acknowledge(&rest);
    acknowledge(&held);
    rig.append_input("one more\n");
    acknowledge(&wait::within(wait::SOON, "the last entry", || Some(take("1")).filter(|ids| !ids.is_empty())));
    wait::until("the stream is short", || rig.stream_len() < 1000);
    reader.stop();
    writer.stop();
    rig.assert_identical();
}

#[test]
fn two_groups_get_everything() {
    let rig = Rig::new();
    rig.redis.call(&["XGROUP", "CREATE", STREAM, "others", "0", "MKSTREAM"]);
    let other = rig.folder.join("out/other.txt");
    rig.write_input(text::numbered(0..1000, 1));
    rig.reader().once().run_ok();
    rig.writer().once().run_ok();
    rig.writer().set("--group", "others").set("--output", &other).once().run_ok();
    rig.assert_identical();
    e2e::assert_identical(&rig.input, &other);
}

#[test]
fn entries_trimmed_before_a_late_group_are_reported() {
    let rig = Rig::new();
    rig.write_input(text::numbered(0..1000, 1));
    rig.reader().once().run_ok();
    rig.writer().once().run_ok();
    let trimmed = e2e::rig::len(&rig.input);
    rig.append_input("more\n");
    rig.reader().once().run_ok();
    let mut late = rig.writer().set("--group", "late").set("--output", rig.folder.join("out/late.txt")).start();
    late.wait_for_metric("writer_gap_bytes_total", |bytes| bytes == trimmed as f64);
    late.stop();
}

#[test]
fn a_stream_with_a_hash_tag_and_strange_bytes_in_its_name_works() {
    for stream in ["lines:{0}", "lines with spaces", "zeilen–ü", "a}b{c"] {
        let rig = Rig::new();
        rig.write_input(text::numbered(0..100, 1));
        rig.reader().set("--stream", stream).once().run_ok();
        assert_eq!(rig.redis.call(&["XLEN", stream]).int(), 100);
        rig.writer().set("--stream", stream).once().run_ok();
        rig.assert_identical();
    }
}

#[test]
fn a_foreign_field_in_the_source_record_is_reported_once_and_stops_the_reader() {
    let rig = Rig::new();
    rig.write_input("one\n");
    let (mut reader, mut writer) = (rig.reader().start(), rig.writer().start());
    rig.wait_delivered();
    let key = format!("{{{STREAM}}}:source");
    rig.redis.call(&["HSET", &key, "next:7", "junk"]);
    for n in 1..=5 {
        rig.redis.call(&["XADD", STREAM, "*", "field", "foreign"]);
        writer.wait_for_metric("writer_foreign_entries_total", |seen| seen >= f64::from(n));
    }
    assert_eq!(writer.log().matches("next:7").count(), 1, "{}", writer.log());
    assert!(writer.log().contains("remove the fields that are not the reader's"), "{}", writer.log());
    // With an unreadable record, the reader cannot know its position: it loads the record again
    // when its ID is taken.
    rig.append_input("two\n");
    wait::until("the reader has ended", || !reader.runs());
    assert_eq!(reader.code(), Some(2), "{}", reader.log());
    let log = reader.log();
    let last = log.lines().last().unwrap_or_default();
    assert!(last.contains("next:7") && last.contains("remove") && last.contains(&key), "{last}");
    rig.redis.call(&["HDEL", &key, "next:7"]);
    let mut reader = rig.reader().start();
    rig.wait_delivered();
    reader.stop();
    writer.stop();
    rig.assert_identical();
}

#[test]
fn a_writer_that_makes_the_stream_leaves_the_readers_record_alone() {
    let rig = Rig::new();
    let proxy = Proxy::start(rig.redis.port());
    proxy.hold_requests_before(b"*1\r\n$5\r\nMULTI\r\n");
    let mut writer = rig.writer().set("--redis-url", proxy.url()).start();
    wait::until("the writer is about to make the stream", || proxy.holds_requests());
    rig.write_input(text::numbered(0..100, 1));
    rig.reader().once().run_ok();
    proxy.heal();
    rig.wait_delivered();
    assert_eq!(rig.redis.call(&["HEXISTS", "{line_stream}:source", "guard"]).int(), 1);
    writer.stop();
    rig.assert_identical();
}

/// How often Redis executed a command since the last `CONFIG RESETSTAT`.
fn calls(rig: &Rig, command: &str) -> u64 {
    let stats = rig.redis.cli("INFO commandstats").text();
    let line = stats.lines().find_map(|line| line.strip_prefix(&format!("cmdstat_{command}:calls=")));
    line.and_then(|line| line.split(',').next()?.parse().ok()).unwrap_or(0)
}

#[test]
fn a_lone_line_is_one_command_or_a_transaction_where_scripts_are_forbidden() {
    let rig = Rig::new();
    rig.write_input("first\n");
    let (mut reader, mut writer) = (rig.reader().start(), rig.writer().start());
    rig.wait_delivered();
    let append = |line: &str| {
        rig.redis.cli("CONFIG RESETSTAT");
        rig.append_input(line);
        rig.wait_delivered();
        (calls(&rig, "evalsha"), calls(&rig, "exec"), calls(&rig, "xadd"))
    };
    assert_eq!(append("second\n"), (1, 0, 1));
    // Without the script, and then without the permission to use it, the batch is a transaction.
    rig.redis.cli("SCRIPT FLUSH");
    let (_, exec, xadd) = append("third\n");
    assert!(exec >= 1 && xadd == 1, "{exec} transactions, {xadd} entries");
    rig.redis.cli("ACL SETUSER default -@scripting");
    reader.stop();
    reader = rig.reader().start();
    append("fourth\n");
    assert_eq!(append("fifth\n"), (0, 1, 1));
    reader.stop();
    writer.stop();
    rig.assert_identical();
}
