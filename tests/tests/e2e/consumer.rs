//! The group, its consumers or the source record have changed since the writer used them. The
//! writer waits, reports, or refuses; it never loses or duplicates a line silently.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use e2e::partitions::{self, THREE};
use e2e::rig::STREAM;
use e2e::{Launch, Rig, Service, Value, text, wait};

const RECORD: &str = "{line_stream}:source";

/// The framing and the number of partitions.
#[derive(Debug, Clone, Copy)]
enum Form {
    Lines,
    Chunks,
    Partitions,
}

const FORMS: [Form; 3] = [Form::Lines, Form::Chunks, Form::Partitions];

impl Form {
    fn set(self, launch: Launch) -> Launch {
        match self {
            Self::Lines => launch,
            Self::Chunks => launch.set("--framing", "chunk"),
            Self::Partitions => launch.set("--partitions", "3"),
        }
    }

    fn reader(self, rig: &Rig) -> Launch {
        self.set(rig.reader())
    }

    fn writer(self, rig: &Rig) -> Launch {
        match self {
            Self::Chunks => rig.writer(),
            form => form.set(rig.writer()),
        }
    }

    fn streams(self) -> Vec<String> {
        match self {
            Self::Partitions => (0..THREE).map(partitions::stream).collect(),
            _ => vec![STREAM.to_owned()],
        }
    }

    fn records(self) -> Vec<String> {
        match self {
            Self::Partitions => (0..THREE).map(partitions::record).collect(),
            _ => vec![RECORD.to_owned()],
        }
    }

    fn entries(self, rig: &Rig) -> i64 {
        self.streams().iter().map(|stream| rig.redis.call(&["XLEN", stream]).int()).sum()
    }

    #[track_caller]
    fn assert_identical(self, rig: &Rig) {
        match self {
            Self::Partitions => {
                partitions::assert_proven(&rig.folder, &[&rig.input], std::slice::from_ref(&rig.output));
            }
            _ => rig.assert_identical(),
        }
    }
}

/// Several blocks per partition.
fn first_lines() -> Vec<u8> {
    text::numbered(0..12_000, 1)
}

fn more_lines() -> Vec<u8> {
    text::numbered(12_000..24_000, 1)
}

fn last_lines() -> Vec<u8> {
    text::numbered(24_000..24_500, 1)
}

#[track_caller]
fn refused(launch: &Launch, code: i32, parts: &[&str]) -> String {
    let mut run = launch.run();
    assert_eq!(run.code(), Some(code), "{}", run.log());
    let log = run.log();
    let last = log.lines().last().unwrap_or_default();
    assert!(last.starts_with("writer: ") && parts.iter().all(|part| last.contains(part)), "{parts:?}: {last}");
    log
}

#[test]
fn entries_wait_for_a_missing_source_record() {
    for form in FORMS {
        let rig = Rig::new();
        rig.write_input(first_lines());
        form.reader(&rig).once().run_ok();
        let entries = form.entries(&rig);
        for record in form.records() {
            rig.redis.call(&["DEL", &record]);
        }
        let mut check = form.writer(&rig).word("check").run();
        let text = String::from_utf8(check.process().stdout()).unwrap();
        assert!(check.code() == Some(1) && text.contains("lacks generation"), "{form:?}: {text}");
        refused(&form.writer(&rig).once(), 1, &["source", "lacks generation", "start the reader"]);
        let mut writer = form.writer(&rig).start();
        wait::until("it says why it waits", || {
            let (code, reason) = writer.readyz();
            code == 503 && reason.contains("lacks generation")
        });
        assert_eq!((form.entries(&rig), rig.output_bytes().len()), (entries, 0), "{form:?}: nothing is trimmed");
        assert_eq!(writer.metric("writer_foreign_entries_total"), 0.0, "{form:?}");
        form.reader(&rig).once().run_ok();
        rig.wait_delivered();
        wait::until("it is well", || writer.readyz().0 == 200);
        writer.stop();
        form.assert_identical(&rig);
        let lines = writer.log().matches("lacks generation").count();
        assert_eq!(lines, form.records().len(), "{form:?}: once for each stream: {}", writer.log());
    }
}

#[test]
fn a_stop_while_entries_wait_for_the_record_leaves_them_pending() {
    let rig = Rig::new();
    rig.write_input(first_lines());
    rig.reader().once().run_ok();
    rig.redis.call(&["DEL", RECORD]);
    let mut writer = rig.writer().start();
    writer.wait_for_log(&["lacks generation"]);
    writer.stop();
    assert!(rig.pending() > 0);
    rig.reader().once().run_ok();
    rig.writer().once().run_ok();
    rig.assert_identical();
}

#[test]
fn a_record_that_lacks_the_newest_generation_is_waited_for() {
    let rig = Rig::new();
    rig.write_input(first_lines());
    let mut reader = rig.reader().start();
    wait::until("the first content is sent", || rig.stream_len() == 12_000);
    fs::rename(&rig.input, rig.folder.join("in/input.txt.1")).unwrap();
    rig.write_input(last_lines());
    wait::until("the second content is sent", || rig.stream_len() == 12_500);
    reader.stop();
    let fields = rig.redis.call(&["HKEYS", RECORD]);
    let newest = fields.list().iter().map(Value::text).filter(|field| field.starts_with("next:")).max().unwrap();
    rig.redis.call(&["HDEL", RECORD, &newest]);
    let mut writer = rig.writer().start();
    writer.wait_for_log(&["lacks generation"]);
    rig.wait_output_len(first_lines().len() as u64);
    assert_eq!(writer.metric("writer_foreign_entries_total"), 0.0);
    rig.reader().once().run_ok();
    rig.wait_output_len((first_lines().len() + last_lines().len()) as u64);
    writer.stop();
    assert!(rig.output_bytes() == [first_lines(), last_lines()].concat());
}

#[test]
fn entries_of_unknown_generations_are_foreign_when_the_record_is_complete() {
    let rig = Rig::new();
    rig.write_input(first_lines());
    rig.reader().once().run_ok();
    let last = rig.entries().last().unwrap().0.clone();
    let generation: u64 = last.split_once('-').unwrap().0.parse().unwrap();
    rig.redis.call(&["XADD", STREAM, &format!("{}-500", generation + 5), "line", "a foreign line"]);
    let mut writer = rig.writer().start();
    writer.wait_for_metric("writer_foreign_entries_total", |seen| seen == 1.0);
    wait::until("it is acknowledged", || rig.pending() == 0);
    writer.stop();
    rig.assert_identical();
}

/// An administrator changes the group while the writer is down. Entries added meanwhile, or pending
/// entries, are then missing.
fn loses(form: Form, change: impl Fn(&Rig, &str)) {
    let rig = Rig::new();
    rig.write_input(first_lines());
    form.reader(&rig).once().run_ok();
    // Kill it, so that its consumer remains.
    let mut writer = form.writer(&rig).start();
    rig.wait_delivered();
    wait::until("all is acknowledged", || form.entries(&rig) < 100);
    writer.kill9();
    rig.append_input(more_lines());
    form.reader(&rig).once().run_ok();
    for stream in form.streams() {
        change(&rig, &stream);
    }
    let lost = more_lines().len() as f64;
    let (from, until) = (first_lines().len(), first_lines().len() + more_lines().len());
    let mut writer = form.writer(&rig).start();
    writer.wait_for_metric("writer_gap_bytes_total", |bytes| bytes == lost);
    if !matches!(form, Form::Partitions) {
        writer.wait_for_log(&["gap", &format!("{from}..{until}")]);
    }
    let noted = |record: &String| rig.redis.call(&["HEXISTS", record, "shared:writers"]).int() == 1;
    wait::until("it is noted", || form.records().iter().all(noted));
    writer.kill9();
    // The gap is reported once.
    let mut writer = form.writer(&rig).start();
    rig.append_input(last_lines());
    form.reader(&rig).once().run_ok();
    rig.wait_output_len((first_lines().len() + last_lines().len()) as u64);
    assert_eq!(writer.metric("writer_gap_bytes_total"), 0.0, "{form:?}: {}", writer.log());
    writer.stop();
}

#[test]
fn a_group_moved_forward_while_the_writer_is_down_is_a_gap() {
    for form in FORMS {
        loses(form, |rig, stream| {
            rig.redis.call(&["XGROUP", "SETID", stream, "writers", "$"]);
        });
    }
}

#[test]
fn a_group_recreated_at_the_end_while_the_writer_is_down_is_a_gap() {
    for form in FORMS {
        loses(form, |rig, stream| {
            rig.redis.call(&["XGROUP", "DESTROY", stream, "writers"]);
            rig.redis.call(&["XGROUP", "CREATE", stream, "writers", "$"]);
        });
    }
}

#[test]
fn a_consumer_deleted_with_its_pending_entries_is_a_gap() {
    for form in FORMS {
        loses(form, |rig, stream| {
            rig.redis.call(&["XREADGROUP", "GROUP", "writers", "one", "COUNT", "1000000", "STREAMS", stream, ">"]);
            assert!(rig.redis.call(&["XGROUP", "DELCONSUMER", stream, "writers", "one"]).int() > 0);
        });
    }
}

#[test]
fn a_group_moved_forward_under_a_running_writer_is_a_gap() {
    let rig = Rig::new();
    rig.write_input(first_lines());
    rig.reader().once().run_ok();
    let mut writer = rig.writer().start();
    rig.wait_delivered();
    freeze(&rig, &writer);
    rig.append_input(more_lines());
    rig.reader().once().run_ok();
    rig.redis.call(&["XGROUP", "SETID", STREAM, "writers", "$"]);
    writer.thaw();
    writer.wait_for_metric("writer_gap_bytes_total", |bytes| bytes == more_lines().len() as f64);
    writer.stop();
}

#[test]
fn a_group_moved_back_duplicates_nothing() {
    let rig = Rig::new();
    rig.redis.call(&["XGROUP", "CREATE", STREAM, "keeps", "0", "MKSTREAM"]);
    rig.write_input(first_lines());
    rig.reader().once().run_ok();
    let mut writer = rig.writer().start();
    rig.wait_delivered();
    wait::until("nothing is pending", || rig.pending() == 0);
    rig.redis.call(&["XGROUP", "SETID", STREAM, "writers", "0"]);
    writer.wait_for_metric("writer_redelivered_total", |again| again == 12_000.0);
    assert_eq!(writer.metric("writer_gap_bytes_total"), 0.0);
    writer.stop();
    rig.assert_identical();
}

#[test]
fn entries_consumed_by_other_writers_are_not_a_gap() {
    let rig = Rig::new();
    let output = |name: &str| rig.folder.join(&format!("out/{name}.txt"));
    let writer = |name: &str| rig.writer().set("--consumer", name).set("--output", output(name));
    rig.write_input(first_lines());
    rig.reader().once().run_ok();
    writer("one").once().run_ok();
    // Only the other writer is running while these lines are added.
    rig.append_input(more_lines());
    rig.reader().once().run_ok();
    let mut one = writer("one").start();
    wait::until("it takes the lines", || rig.pending() == 0 && rig.group_field("lag").int() == 0);
    freeze(&rig, &one);
    let mut two = writer("two").start();
    rig.append_input(last_lines());
    rig.reader().once().run_ok();
    let wanted = e2e::rig::len(&rig.input);
    let total = || e2e::rig::len(&output("one")) + e2e::rig::len(&output("two"));
    wait::until("the other one takes some", || e2e::rig::len(&output("two")) > 0);
    one.kill9();
    two.stop();
    let mut one = writer("one").start();
    wait::progress_to(wanted, total).unwrap();
    wait::until("nothing is pending", || rig.pending() == 0);
    one.stop();
    let mut one = writer("one").start();
    one.wait_for_metric("line_stream_lag_entries", |lag| lag == 0.0);
    rig.append_input("one more\n");
    rig.reader().once().run_ok();
    wait::progress_to(wanted + 9, total).unwrap();
    assert_eq!(one.metric("writer_gap_bytes_total"), 0.0, "{}", one.log());
    one.stop();
}

/// Freezes a writer that blocks in a read, and waits until Redis no longer delivers entries to it.
fn freeze(rig: &Rig, writer: &Service) {
    writer.freeze();
    wait::until("no read waits in Redis", || rig.redis.info("blocked_clients").as_deref() == Some("0"));
}

fn named(rig: &Rig, output: &str) -> (Launch, PathBuf) {
    let path = rig.folder.join(&format!("out/{output}.txt"));
    (rig.writer().set("--output", &path), path)
}

#[test]
fn a_second_writer_under_the_same_name_is_refused() {
    for partitions in [false, true] {
        let rig = Rig::new();
        let set = |launch: Launch| if partitions { launch.set("--partitions", "3") } else { launch };
        rig.write_input(first_lines());
        let mut reader = set(rig.reader()).start();
        let mut first = set(rig.writer()).start();
        rig.wait_delivered();
        let (second, path) = named(&rig, "second");
        refused(&set(second), 2, &["--consumer one", "another writer"]);
        assert_eq!(e2e::rig::len(&path), 0);
        rig.append_input(more_lines());
        rig.wait_delivered();
        first.stop();
        reader.stop();
    }
}

#[test]
fn a_writer_takes_over_the_consumer_name_of_a_stopped_writer() {
    let rig = Rig::new();
    rig.write_input(first_lines());
    rig.reader().once().run_ok();
    let mut gone = rig.writer().start();
    rig.wait_delivered();
    wait::until("nothing is pending", || rig.pending() == 0);
    gone.kill9();
    rig.append_input(more_lines());
    rig.reader().once().run_ok();
    let (launch, path) = named(&rig, "second");
    let mut writer = launch.start();
    rig.wait_len_of(&path, more_lines().len() as u64);
    writer.stop();
    assert!(fs::read(path).unwrap() == more_lines());
}

#[test]
fn a_writer_whose_name_was_taken_over_stops() {
    let rig = Rig::new();
    rig.write_input(first_lines());
    let mut reader = rig.reader().start();
    let mut first = rig.writer().start();
    rig.wait_delivered();
    freeze(&rig, &first);
    let (launch, path) = named(&rig, "second");
    let mut second = launch.start();
    rig.append_input(more_lines());
    rig.wait_len_of(&path, 1);
    first.thaw();
    first.wait_exit(Duration::from_secs(60));
    assert_eq!(first.code(), Some(2), "{}", first.log());
    assert!(first.log().lines().last().unwrap().contains("took this name over"), "{}", first.log());
    second.stop();
    reader.stop();
}

#[test]
fn consumers_of_stopped_writers_are_removed() {
    let rig = Rig::new();
    rig.write_input("one\n");
    rig.reader().once().run_ok();
    for number in 0..40 {
        rig.redis.call(&["HSET", RECORD, &format!("output:writers:gone-{number}"), "1-1"]);
    }
    rig.writer().once().run_ok();
    let fields = rig.redis.call(&["HKEYS", RECORD]);
    let names: Vec<String> =
        fields.list().iter().map(Value::text).filter(|field| field.starts_with("output:")).collect();
    assert_eq!(names, ["output:writers:one"]);
}

#[test]
fn an_unread_group_is_reported() {
    for framing in ["line", "chunk"] {
        let rig = Rig::new();
        rig.redis.call(&["XGROUP", "CREATE", STREAM, "old", "0", "MKSTREAM"]);
        rig.write_input(text::numbered(0..200_000, 1));
        rig.reader().set("--framing", framing).once().run_ok();
        let mut writer = rig.writer().start();
        rig.wait_delivered();
        if framing == "line" {
            writer.wait_for_log(&[
                "group old of stream line_stream holds up trimming",
                "200000 entries",
                "XGROUP DESTROY",
            ]);
        }
        let mut check = rig.writer().word("check").set("--output", rig.folder.join("out/other.txt")).run();
        let text = String::from_utf8(check.process().stdout()).unwrap();
        assert!(
            text.contains("group old holds up trimming") && text.contains("XGROUP DESTROY line_stream old"),
            "{text}"
        );
        let _ = check.code();
        rig.redis.call(&["XGROUP", "DESTROY", STREAM, "old"]);
        rig.append_input("more\n");
        rig.reader().set("--framing", framing).once().run_ok();
        wait::until("the stream is trimmed", || rig.stream_len() < 100);
        writer.stop();
        rig.assert_identical();
    }
}

#[test]
fn an_output_that_is_the_input_is_refused_before_anything_is_read() {
    type Alias = fn(&Path, &Path);
    let aliases: [Alias; 3] = [
        |_, _| {},
        |input, alias| std::os::unix::fs::symlink(input, alias).unwrap(),
        |input, alias| fs::hard_link(input, alias).unwrap(),
    ];
    for (nth, alias) in aliases.iter().enumerate() {
        for form in FORMS {
            let rig = Rig::new();
            rig.write_input(first_lines());
            form.reader(&rig).once().run_ok();
            let path = if nth == 0 { rig.input.clone() } else { rig.folder.join("in/alias.txt") };
            alias(&rig.input, &path);
            let launch = form.writer(&rig).set("--output", &path);
            refused(&launch, 2, &["--output", "the source's input"]);
            assert!(fs::read(&rig.input).unwrap() == first_lines(), "{nth} {form:?}");
            let pending = |stream: &String| rig.redis.try_call(&["XPENDING", stream, "writers"]).unwrap();
            let streams = form.streams();
            let delivered = streams.iter().filter_map(|stream| pending(stream).ok()).map(|p| p.list()[0].int());
            assert_eq!(delivered.sum::<i64>(), 0, "{nth} {form:?}: nothing was read");
        }
    }
}

#[test]
fn an_output_whose_journal_is_missing_is_refused() {
    let rig = Rig::new();
    rig.write_input(first_lines());
    rig.reader().once().run_ok();
    rig.writer().once().run_ok();
    rig.append_input(more_lines());
    rig.reader().once().run_ok();
    let journal = PathBuf::from(format!("{}.journal", rig.output.display()));
    let kept = fs::read(&journal).unwrap();
    fs::remove_file(&journal).unwrap();
    for _ in 0..2 {
        refused(&rig.writer(), 2, &["--output", "journal is missing"]);
        assert!(rig.output_bytes() == first_lines());
    }
    fs::write(&journal, kept).unwrap();
    rig.writer().once().run_ok();
    rig.assert_identical();
}

#[test]
fn long_lines_behind_short_ones_stay_within_memory() {
    // Two lines of 64 MiB, and some 30 MiB, of which half are the pages of an unoptimised program.
    const MOST: u64 = 176 << 20;
    let rig = Rig::new();
    let mut bytes = text::numbered(0..20_000, 1);
    for number in 0..90_u8 {
        bytes.extend(std::iter::repeat_n(b'a' + number % 26, 4_000_000));
        bytes.push(b'\n');
    }
    for number in 0..3_u8 {
        bytes.extend(std::iter::repeat_n(b'A' + number, 64 << 20));
        bytes.push(b'\n');
    }
    bytes.extend(text::numbered(20_000..22_000, 1));
    rig.write_input(&bytes);
    rig.reader().once().run_ok();
    assert_eq!(rig.stream_len(), 22_093);
    let mut writer = rig.writer().start();
    rig.wait_delivered();
    let peak = writer.process().peak_memory().expect("it runs");
    assert!(peak < MOST, "{peak} bytes in memory");
    assert!(!writer.log().contains("WARN") && !writer.log().contains("ERROR"), "{}", writer.log());
    writer.stop();
    rig.assert_identical();
}

#[test]
fn a_repeatedly_deleted_group_is_recreated_with_backoff() {
    let rig = Rig::new();
    rig.write_input("one\n");
    rig.reader().once().run_ok();
    let mut writer: Service = rig.writer().start();
    rig.wait_delivered();
    let begun = std::time::Instant::now();
    while begun.elapsed() < Duration::from_secs(2) {
        let _ = rig.redis.try_call(&["XGROUP", "DESTROY", STREAM, "writers"]);
    }
    let lines = writer.log().matches("is gone from").count();
    assert!((1..=42).contains(&lines), "{lines} times in 2 s, with at least 50 ms between");
    rig.append_input("two\n");
    rig.reader().once().run_ok();
    rig.wait_delivered();
    writer.stop();
    rig.assert_identical();
}
