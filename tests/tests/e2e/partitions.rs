//! One source in several streams: what the reader adds, which services are refused, and what both
//! services report.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use e2e::partitions::{self, BASE_RECORD, THREE, stream};
use e2e::{Growth, Launch, Rig, Service, rig, text, wait};

/// A reader of a source with this many partitions.
fn reader_of(rig: &Rig, count: u32) -> Launch {
    rig.reader().set("--partitions", count.to_string())
}

/// A writer of all of them.
fn writer_of(rig: &Rig, count: u32) -> Launch {
    rig.writer().set("--partitions", count.to_string())
}

fn stream_len(rig: &Rig, index: u32) -> i64 {
    rig.redis.call(&["XLEN", &stream(index)]).int()
}

/// Waits until the reader has sent this many bytes of the input.
#[track_caller]
fn wait_sent(reader: &mut Service, bytes: u64) {
    let position = || reader.metrics().get("reader_input_position_bytes").unwrap_or_default() as u64;
    wait::progress_to(bytes, position).unwrap_or_else(|at| panic!("the reader stopped at {at} of {bytes} bytes"));
}

/// Numbered lines, some of which span several blocks; no newline at the end.
fn text_with_long_lines(seed: u64, lines: u64) -> Vec<u8> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut text = Vec::new();
    for begin in (0..lines).step_by(5000) {
        text.extend(text::numbered(begin..lines.min(begin + 5000), seed));
        let long = rng.usize(1..300_000);
        text.extend(std::iter::repeat_with(|| rng.alphanumeric() as u8).take(long));
        text.push(b'\n');
    }
    text.extend(b"no newline at the end");
    text
}

#[test]
fn every_line_is_in_one_partition_whole_and_in_order() {
    let seed = e2e::seed();
    // Small and large blocks, and more partitions than blocks.
    for (count, framing, lines) in
        [(THREE, "line", 40_000), (2, "chunk", 180_000), (40, "line", 5000), (99, "chunk", 5000)]
    {
        let rig = Rig::new();
        let content = text_with_long_lines(seed, lines);
        rig.write_input(&content);
        reader_of(&rig, count).set("--framing", framing).once().run_ok();
        partitions::assert_complete(&rig.redis, &content, 0, count);
        assert_eq!(rig.stream_len(), 0, "the stream that would be the only one");
        // Another run adds nothing.
        let before: Vec<_> = (0..count).map(|index| stream_len(&rig, index)).collect();
        reader_of(&rig, count).set("--framing", framing).once().run_ok();
        assert_eq!(before, (0..count).map(|index| stream_len(&rig, index)).collect::<Vec<_>>());
    }
}

#[test]
fn pieces_of_an_over_long_line_stay_in_its_partition() {
    let rig = Rig::new();
    let long = vec![b'x'; (66 << 20) + 77];
    let content = [&text::numbered(0..1000, 1), &long, &b"\n"[..], &text::numbered(1000..20_000, 1)].concat();
    rig.write_input(&content);
    reader_of(&rig, THREE).once().run_ok();
    partitions::assert_complete(&rig.redis, &content, 0, THREE);
    let mut pieces = Vec::new();
    for index in 0..THREE {
        let of_line = |entry: partitions::Entry| (entry.field != "line").then_some((index, entry.field));
        pieces.extend(partitions::entries(&rig.redis, index).into_iter().filter_map(of_line));
    }
    let begin = content.len() as u64 - text::numbered(1000..20_000, 1).len() as u64 - long.len() as u64 - 1;
    assert!(pieces.iter().all(|(index, _)| *index == partitions::owner(begin, THREE)), "{pieces:?}");
    assert_eq!(pieces.iter().map(|(_, field)| field.as_str()).collect::<Vec<_>>(), ["part", "rest", "rest", "rest"]);
    // The writer detects that no byte between them is missing.
    let mut writer = writer_of(&rig, THREE).start();
    rig.wait_delivered();
    assert_eq!(writer.metric("writer_gap_bytes_total"), 0.0);
    writer.stop();
    partitions::assert_proven(&rig.folder, &[&rig.input], std::slice::from_ref(&rig.output));
}

/// Lets a file grow while its reader is killed repeatedly.
fn survives_kills(framing: &str) {
    let seed = e2e::seed();
    let mut rng = fastrand::Rng::with_seed(seed);
    let rig = Rig::new();
    let content = text::numbered(0..50_000, seed);
    let mut growth = Growth::of(&rig.input, content.clone(), Duration::from_secs(5), seed);
    let launch = reader_of(&rig, THREE).set("--framing", framing);
    let mut reader = launch.start();
    while growth.runs() {
        wait::random_moment(&mut rng, 10..500);
        reader.kill9();
        reader = launch.start();
    }
    growth.wait();
    wait_sent(&mut reader, content.len() as u64);
    reader.stop();
    partitions::assert_complete(&rig.redis, &content, 0, THREE);
}

#[test]
fn a_reader_killed_at_random_moments_leaves_every_partition_complete() {
    survives_kills("line");
}

#[test]
fn a_reader_killed_at_random_moments_leaves_every_partition_complete_with_chunks() {
    survives_kills("chunk");
}

#[test]
fn two_readers_on_one_file_add_every_line_once() {
    let seed = e2e::seed();
    let rig = Rig::new();
    let content = text::numbered(0..50_000, seed);
    // Both wait for the file, and register it at the same time.
    let mut readers = [reader_of(&rig, THREE).start(), reader_of(&rig, THREE).start()];
    for reader in &mut readers {
        reader.wait_for_log(&["does not exist"]);
    }
    let mut growth = Growth::of(&rig.input, content.clone(), Duration::from_secs(4), seed);
    growth.wait();
    for reader in &mut readers {
        wait_sent(reader, content.len() as u64);
        reader.stop();
    }
    partitions::assert_complete(&rig.redis, &content, 0, THREE);
}

#[test]
fn readers_share_the_partitions_of_a_file() {
    let seed = e2e::seed();
    let rig = Rig::new();
    let mut growth = Growth::of(&rig.input, text::numbered(0..60_000, seed), Duration::from_secs(2), seed);
    let mut readers = ["0", "1-2"].map(|some| reader_of(&rig, THREE).set("--partition", some).start());
    growth.wait();
    for reader in &mut readers {
        wait_sent(reader, rig::len(&rig.input));
        reader.stop();
    }
    partitions::assert_complete(&rig.redis, &std::fs::read(&rig.input).unwrap(), 0, THREE);
    assert_eq!(readers[0].find_log(&["line_stream:{1}"]), None, "that is the other's");
}

#[test]
fn from_end_all_partitions_begin_after_the_last_whole_line() {
    let rig = Rig::new();
    let old = text::numbered(0..5000, 1);
    rig.write_input(&old);
    rig.append_input("begun, ");
    let launch = reader_of(&rig, THREE).set("--from", "end");
    let mut reader = launch.start();
    let begins = format!("begins at byte {}", old.len());
    wait::until("all partitions have begun", || reader.log().matches(&begins).count() == 3);
    reader.kill9();
    rig.append_input("and ended\n");
    rig.append_input(text::numbered(5000..10_000, 1));
    let content = std::fs::read(&rig.input).unwrap();
    let mut reader = launch.start();
    wait_sent(&mut reader, content.len() as u64);
    partitions::assert_complete(&rig.redis, &content, old.len() as u64, THREE);
    let mut writer = writer_of(&rig, THREE).start();
    rig.wait_output_len((content.len() - old.len()) as u64);
    assert_eq!(writer.metric("writer_gap_bytes_total"), 0.0);
    reader.stop();
    writer.stop();
    partitions::assert_order(&content, old.len() as u64, &rig.output_bytes(), THREE);
}

#[test]
fn max_backlog_is_divided_among_partitions() {
    let rig = Rig::new();
    let content = text::numbered(0..30_000, 1);
    rig.write_input(&content);
    let mut reader = reader_of(&rig, THREE).set("--max-backlog", "3001").start();
    let lens = || (0..THREE).map(|index| stream_len(&rig, index)).collect::<Vec<_>>();
    for index in 0..THREE {
        reader.wait_for_log(&["--max-backlog 3001", &stream(index)]);
    }
    reader.wait_for_metric("reader_backpressure", |waits| waits == 1.0);
    let full = lens();
    assert!(full.iter().all(|&len| len >= 1000) && full.iter().sum::<i64>() <= 2 * 3001, "{full:?}");
    assert_eq!(reader.metric("line_stream_length_entries"), full.iter().sum::<i64>() as f64);
    // Full partitions do not block the others.
    let first = partitions::output(&rig.folder, "first");
    let named = |name: &str| partitions::named(writer_of(&rig, THREE), &rig.folder, name);
    let mut taker = named("first").set("--partition", "0").start();
    let wanted = partitions::lines_of(&content, 0, THREE);
    rig.wait_len_of(&first, wanted.len() as u64);
    assert!(std::fs::read(&first).unwrap() == wanted);
    let later = lens();
    assert!(later.iter().sum::<i64>() <= 2 * 3001, "{later:?}");
    let mut others = named("others").set("--partition", "2,1").start();
    let outputs = [first, partitions::output(&rig.folder, "others")];
    partitions::wait_total(&outputs, content.len() as u64);
    reader.wait_for_metric("reader_backpressure", |waits| waits == 0.0);
    reader.stop();
    for service in [&mut taker, &mut others] {
        assert_eq!(service.metric("writer_gap_bytes_total"), 0.0);
        service.stop();
    }
    partitions::assert_proven(&rig.folder, &[&rig.input], &outputs);
}

/// Everything in Redis, and in the folders of input and output.
fn everything(rig: &Rig) -> BTreeMap<String, Vec<u8>> {
    fn files(folder: &Path, all: &mut BTreeMap<String, Vec<u8>>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                files(&path, all);
            } else {
                all.insert(path.display().to_string(), std::fs::read(&path).unwrap());
            }
        }
    }
    let mut all = BTreeMap::new();
    for name in ["in", "out"] {
        files(&rig.folder.join(name), &mut all);
    }
    for key in rig.redis.call(&["KEYS", "*"]).list() {
        all.insert(key.text(), rig.redis.call(&[b"DUMP", key.bytes()]).bytes().to_vec());
    }
    all
}

/// Asserts exit code 2, and a single line that says why.
#[track_caller]
fn refused(mut service: Service, asked: u32, begun: u32) {
    assert_eq!(service.code(), Some(2), "{}", service.log());
    let log = service.log();
    let last = log.lines().last().unwrap_or_default();
    let says =
        format!("--partitions {asked}: stream line_stream was begun with --partitions {begun}; allowed: {begun}");
    assert!(last.contains(&says), "{log}");
    assert_eq!(log.matches("--partitions").count(), says.matches("--partitions").count(), "one line: {log}");
}

#[test]
fn another_number_of_partitions_is_refused_and_changes_nothing() {
    for (begun, asked) in [(1, 3), (3, 1), (3, 2)] {
        let rig = Rig::new();
        rig.write_input(text::numbered(0..3000, 1));
        reader_of(&rig, begun).once().run_ok();
        writer_of(&rig, begun).once().run_ok();
        rig.append_input(text::numbered(3000..6000, 1));
        reader_of(&rig, begun).once().run_ok();
        let before = everything(&rig);
        refused(reader_of(&rig, asked).run(), asked, begun);
        // The journal of the output may cause the refusal first.
        let mut writer = writer_of(&rig, asked).run();
        match writer.log().contains("it belongs to an output of") {
            true => assert_eq!(writer.code(), Some(2), "{}", writer.log()),
            false => refused(writer, asked, begun),
        }
        assert!(everything(&rig) == before, "{begun} → {asked}: something changed");
        // Without the state files, only Redis has the number.
        let state = rig.folder.join("state");
        std::fs::create_dir(&state).unwrap();
        refused(reader_of(&rig, asked).set("--state-dir", &state).run(), asked, begun);
        assert!(everything(&rig) == before, "{begun} → {asked}: something changed");
        assert_eq!(std::fs::read_dir(&state).unwrap().count(), 0, "nothing is left there");
        // Without Redis, only the state files have the number.
        rig.redis.flushall();
        refused(reader_of(&rig, asked).run(), asked, begun);
        assert_eq!(rig.redis.cli("DBSIZE").int(), 0, "{begun} → {asked}");
        let mut writer = writer_of(&rig, asked).run();
        assert_eq!(writer.code(), Some(2), "{}", writer.log());
        assert!(writer.log().contains("it belongs to an output of"), "the journal knows, too: {}", writer.log());
        // With another output, a writer detects the number once Redis is filled again.
        let other = rig.output.with_file_name("other.txt");
        let mut wrong = writer_of(&rig, asked).set("--output", &other).start();
        wait::until("it is at work", || wrong.readyz().0 == 200);
        reader_of(&rig, begun).once().run_ok();
        wrong.wait_exit(wait::SOON);
        refused(wrong, asked, begun);
        writer_of(&rig, begun).once().run_ok();
        // The output of the refused writer has the lines that it wrote before. Some of them are in
        // the first output, too.
        partitions::assert_merged(&rig.folder, &[&rig.input], &[rig.output.clone(), other]);
    }
}

#[test]
fn metrics_cover_all_partitions_and_the_backlog_of_each() {
    let rig = Rig::new();
    let content = text::numbered(0..20_000, 1);
    rig.write_input(&content);
    let mut reader = reader_of(&rig, THREE).start();
    wait_sent(&mut reader, content.len() as u64);
    assert_eq!(reader.metric("lines_read_total"), 20_000.0);
    assert_eq!(reader.metric("reader_bytes_read_total"), content.len() as f64);
    assert_eq!(reader.metric("reader_input_size_bytes"), content.len() as f64);
    assert_eq!(reader.metric("line_stream_length_entries"), 20_000.0);
    // Another consumer of the group has pending entries in each stream.
    for (index, count) in [(0, "10"), (1, "20"), (2, "30")] {
        rig.redis.call(&["XGROUP", "CREATE", &stream(index), "writers", "0"]);
        rig.redis.call(&["XREADGROUP", "GROUP", "writers", "slow", "COUNT", count, "STREAMS", &stream(index), ">"]);
    }
    let of_each = |writer: &mut Service| -> Vec<(String, f64)> {
        let metrics = writer.metrics();
        let of_partition = |(name, value): (&str, f64)| {
            let labels = name.strip_prefix("line_stream_partition_backlog_entries{")?;
            let (_, partition) = labels.split_once("partition=\"")?;
            Some((partition.split_once('"')?.0.to_owned(), value))
        };
        metrics.iter().filter_map(of_partition).collect()
    };
    let all = [("0", 10.0), ("1", 20.0), ("2", 30.0)].map(|(index, count)| (index.to_owned(), count));
    let mut one = partitions::named(writer_of(&rig, THREE), &rig.folder, "second").set("--partition", "1").start();
    wait::until("its partition's backlog", || of_each(&mut one) == all[1..2]);
    one.wait_for_metric("line_stream_backlog_entries", |entries| entries == 20.0);
    one.stop();
    let mut writer = writer_of(&rig, THREE).start();
    wait::until("the backlog of each partition", || of_each(&mut writer) == all);
    writer.wait_for_metric("line_stream_backlog_entries", |entries| entries == 60.0);
    assert_eq!(writer.metric("line_stream_pending_entries"), 60.0);
    assert_eq!(writer.metric("line_stream_lag_entries"), 0.0);
    let of_others = [0, 2].map(|index| partitions::lines(&partitions::lines_of(&content, index, THREE)).count());
    let lines = of_others.iter().sum::<usize>() - 10 - 30;
    writer.wait_for_metric("lines_written_total", |written| written == lines as f64);
    reader.stop();
    writer.stop();
}

#[test]
fn a_stream_without_permissions_is_reported_and_blocks_no_other() {
    let rig = Rig::new();
    let first = text::numbered(0..5000, 1);
    rig.write_input(&first);
    let (mut reader, mut writer) = (reader_of(&rig, THREE).start(), writer_of(&rig, THREE).start());
    rig.wait_delivered();
    for service in [&mut reader, &mut writer] {
        wait::until("ready", || service.readyz().0 == 200);
    }
    // The record and the lease are beside the stream.
    rig.redis.cli(&format!("ACL SETUSER default resetkeys ~{BASE_RECORD} ~{}* ~{}*", stream(0), stream(2)));
    let second = text::numbered(5000..15_000, 1);
    rig.append_input(&second);
    for service in [&mut reader, &mut writer] {
        wait::until("not ready", || service.readyz().0 == 503);
        let reason = service.readyz().1;
        assert!(reason.contains(&stream(1)) && reason.contains("NOPERM"), "{reason}");
        assert!(!reason.contains(&stream(0)) && !reason.contains(&stream(2)), "{reason}");
        assert_eq!(service.healthz().0, 200);
    }
    let content = [first.clone(), second].concat();
    let held_up = partitions::lines_of(&content, 1, THREE).len() - partitions::lines_of(&first, 1, THREE).len();
    rig.wait_output_len((content.len() - held_up) as u64);
    rig.redis.cli("ACL SETUSER default allkeys");
    rig.wait_delivered();
    for service in [&mut reader, &mut writer] {
        wait::until("ready again", || service.readyz().0 == 200);
    }
    assert_eq!(writer.metric("writer_gap_bytes_total"), 0.0);
    reader.stop();
    writer.stop();
    partitions::assert_proven(&rig.folder, &[&rig.input], std::slice::from_ref(&rig.output));
}

#[test]
fn a_stream_of_another_type_is_reported() {
    let rig = Rig::new();
    rig.write_input(text::numbered(0..5000, 1));
    let names_it = |service: &mut Service| {
        service.wait_exit(wait::SOON);
        assert_eq!(service.code(), Some(2), "{}", service.log());
        let last = service.log().lines().last().unwrap_or_default().to_owned();
        assert!(last.contains("--stream") && last.contains(&stream(1)), "{last}");
    };
    rig.redis.call(&["SET", &stream(1), "a string"]);
    for launch in [reader_of(&rig, THREE), writer_of(&rig, THREE)] {
        names_it(&mut launch.start());
        assert_eq!(rig.redis.call(&["GET", &stream(1)]).text(), "a string");
    }
    // The same while the services are running.
    rig.redis.call(&["DEL", &stream(1)]);
    let (mut reader, mut writer) = (reader_of(&rig, THREE).start(), writer_of(&rig, THREE).start());
    rig.wait_delivered();
    rig.redis.call(&["DEL", &stream(1)]);
    rig.redis.call(&["SET", &stream(1), "a string"]);
    rig.append_input(text::numbered(5000..10_000, 1));
    for service in [&mut reader, &mut writer] {
        names_it(service);
    }
    // Once the key is free, the stream is filled again.
    rig.redis.call(&["DEL", &stream(1)]);
    reader_of(&rig, THREE).once().run_ok();
    writer_of(&rig, THREE).once().run_ok();
    partitions::assert_proven(&rig.folder, &[&rig.input], std::slice::from_ref(&rig.output));
}
