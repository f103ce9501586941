//! Writers of a source with several partitions: one output for all of them, or one per partition;
//! gaps; and a wrong number of partitions.

use std::fs;
use std::path::PathBuf;

use e2e::rig::{STREAM, len};
use e2e::{Launch, Program, Rig, Service, text, wait};

const LINES: u64 = 60_000;

/// A source of several MiB, so that every partition has blocks.
fn rig() -> Rig {
    let rig = Rig::new();
    rig.write_input(text::numbered(0..LINES, 1));
    assert!(len(&rig.input) > 2 << 20);
    rig
}

fn stream(partition: u32) -> String {
    format!("{STREAM}:{{{partition}}}")
}

fn output(rig: &Rig, partition: u32) -> PathBuf {
    rig.folder.join(&format!("out/{partition}.txt"))
}

/// Runs `writer verify` or `writer merge` on these outputs.
fn tool(rig: &Rig, word: &str, outputs: &[PathBuf]) -> Service {
    let launch = rig.command(Program::Writer).word(word);
    let launch = if word == "verify" { launch.word("--input").word(&rig.input) } else { launch };
    outputs.iter().fold(launch, |launch, output| launch.word("--output").word(output)).run()
}

/// Asserts that the outputs together contain every line once, and that their merge equals the
/// input.
#[track_caller]
fn assert_complete(rig: &Rig, outputs: &[PathBuf]) {
    let mut proof = tool(rig, "verify", outputs);
    assert_eq!(proof.code(), Some(0), "{}", proof.log());
    let mut merge = tool(rig, "merge", outputs);
    assert_eq!(merge.code(), Some(0), "{}", merge.log());
    e2e::assert_identical(&rig.input, &merge.process().stdout_path());
}

#[test]
fn one_writer_takes_all_partitions_into_one_output() {
    let rig = rig();
    let mut reader = rig.reader().set("--partitions", "3").start();
    let mut writer = rig.writer().set("--partitions", "3").start();
    rig.wait_delivered();
    rig.append_input(text::numbered(LINES..2 * LINES, 2));
    rig.wait_delivered();
    // The metric may date from before the last lines.
    let pending = |partition| rig.redis.call(&["XINFO", "GROUPS", &stream(partition)]).list()[0].field("pending").int();
    wait::until("nothing is pending", || (0..3).all(|partition| pending(partition) == 0));
    writer.wait_for_metric("line_stream_backlog_entries", |entries| entries == 0.0);
    let (_, page) = writer.get("/metrics");
    for partition in 0..3 {
        let label = format!("partition=\"{partition}\"");
        let is_of = |line: &str| line.starts_with("line_stream_partition_backlog_entries{") && line.contains(&label);
        assert!(page.lines().any(|line| is_of(line) && line.ends_with("} 0")), "{label}: {page}");
    }
    assert_eq!(writer.metric("writer_gap_bytes_total"), 0.0);
    assert_eq!(writer.metric("writer_foreign_entries_total"), 0.0);
    reader.stop();
    writer.stop();
    assert_complete(&rig, std::slice::from_ref(&rig.output));
}

#[test]
fn each_partition_has_a_writer_of_its_own() {
    let rig = rig();
    rig.reader().set("--partitions", "3").once().run_ok();
    let outputs: Vec<PathBuf> = (0..3).map(|partition| output(&rig, partition)).collect();
    for (partition, output) in outputs.iter().enumerate() {
        let launch = rig.writer().set("--partitions", "3").set("--output", output).once();
        launch.env("LINE_STREAM_PARTITION", format!("line-writer-{partition}")).run_ok();
        assert!(len(output) > 0 && len(output) < len(&rig.input) / 2);
    }
    assert_complete(&rig, &outputs);
    // Some of them into one output: lines that it already has are not written again.
    rig.redis.flushall();
    rig.reader().set("--partitions", "3").once().run_ok();
    let before = len(&outputs[2]);
    let of_two = rig.writer().set("--partitions", "3").set("--output", &outputs[2]).set("--partition", "2,0").once();
    of_two.run_ok();
    assert_eq!(len(&outputs[2]), before + len(&outputs[0]));
    assert_complete(&rig, &outputs[1..]);
}

#[test]
fn a_partition_that_cannot_acknowledge_blocks_no_other() {
    let rig = Rig::new();
    rig.write_input(text::numbered(0..200_000, 1));
    let goal = len(&rig.input);
    rig.redis.call(&["ACL", "SETUSER", "some", "on", ">pw", "~*", "&*", "+@all"]);
    let field = |partition: u32, name: &str| {
        rig.redis.call(&["XINFO", "GROUPS", &stream(partition)]).list()[0].field(name).int()
    };
    let url = format!("redis://some:pw@127.0.0.1:{}", rig.redis.port());
    let launch = rig.writer().set("--redis-url", &url).set("--partitions", "2");
    let mut writer = launch.start();
    // A permission that is missing at startup would end it; the groups come after that check.
    let has_group = |partition| rig.redis.call(&["EXISTS", &stream(partition)]).int() == 1;
    wait::until("it has begun on both partitions", || has_group(0) && has_group(1));
    let only_first = format!("(+xack ~{})", stream(0));
    if rig.redis.try_call(&["ACL", "SETUSER", "some", "-xack", &only_first]).unwrap().is_err() {
        // Before Redis 7, rights do not depend on the key.
        return;
    }
    rig.reader().set("--partitions", "2").once().run_ok();
    writer.wait_for_log(&["XACK", &stream(1)]);
    let is_done = || field(0, "pending") == 0 && field(0, "lag") == 0;
    wait::until("the first partition is done", || rig.redis.call(&["EXISTS", &stream(0)]).int() == 1 && is_done());
    assert!(field(1, "pending") > 0 && field(1, "lag") > 0, "the other one does not read on without bound");
    writer.stop();
    let consumers = |partition| rig.redis.call(&["XINFO", "CONSUMERS", &stream(partition), "writers"]).list().len();
    assert_eq!((consumers(0), consumers(1)), (0, 1), "the one that has nothing pending left");
    rig.redis.call(&["ACL", "SETUSER", "some", "+xack"]);
    let mut writer = launch.start();
    rig.wait_output_len(goal);
    wait::until("both are done", || field(1, "pending") == 0);
    writer.stop();
    assert_complete(&rig, std::slice::from_ref(&rig.output));
}

#[test]
fn missing_bytes_are_a_gap_and_bytes_of_other_partitions_are_not() {
    let rig = rig();
    rig.reader().set("--partitions", "3").once().run_ok();
    // Delete three entries: one with the field `after`, the entry before it, and one in the middle.
    let entries = rig.redis.call(&["XRANGE", &stream(1), "-", "+"]);
    let entries = entries.list();
    let fields = |nth: usize| entries[nth].list()[1].list();
    let step = (1..entries.len()).rev().find(|&nth| fields(nth).len() == 4).unwrap();
    let missing: u64 = [10, step - 1].iter().map(|&nth: &usize| fields(nth)[1].bytes().len() as u64 + 1).sum();
    for nth in [10, step - 1] {
        rig.redis.call(&["XDEL", &stream(1), &entries[nth].list()[0].text()]);
    }
    let mut writer = rig.writer().set("--partitions", "3").start();
    rig.wait_output_len(len(&rig.input) - missing);
    // A line at the end of a block counts only up to the end of the block.
    let told = writer.wait_for_metric("writer_gap_bytes_total", |bytes| bytes > 0.0);
    assert!(told > 0.0 && told <= missing as f64, "{told} of {missing}");
    writer.wait_for_log(&["gap: bytes"]);
    writer.stop();
    let report = tool(&rig, "verify", std::slice::from_ref(&rig.output));
    assert!(
        report.log().contains("missing")
            || fs::read_to_string(report.process().stdout_path()).unwrap().contains("missing")
    );
}

#[test]
fn contents_of_all_sizes_end_without_a_gap() {
    let rig = Rig::new();
    let long = [vec![b'x'; 300_000], vec![b'\n']].concat();
    let contents = [
        b"one\n".to_vec(),
        [text::numbered(0..3000, 1), long.clone()].concat(),
        [&long[..], b"short\n"].concat(),
        text::numbered(0..20_000, 2),
    ];
    let mut reader = rig.reader().set("--partitions", "3").start();
    let mut writer = rig.writer().set("--partitions", "3").start();
    let mut total = 0;
    let mut inputs = Vec::new();
    for (nth, content) in contents.iter().enumerate() {
        rig.write_input(content);
        total += content.len() as u64;
        rig.wait_output_len(total);
        inputs.push(rig.folder.join(&format!("in/input.txt.{nth}")));
        fs::rename(&rig.input, &inputs[nth]).unwrap();
    }
    writer.wait_for_metric("line_stream_backlog_entries", |entries| entries == 0.0);
    assert_eq!(writer.metric("writer_gap_bytes_total"), 0.0, "{}", writer.log());
    reader.stop();
    writer.stop();
    let launch = rig.command(Program::Writer).word("verify").word("--output").word(&rig.output);
    let mut proof = inputs.iter().fold(launch, |launch, input| launch.word("--input").word(input)).run();
    assert_eq!(proof.code(), Some(0), "{}", proof.log());
}

#[track_caller]
fn refuses(launch: &Launch, line: &str) {
    let mut run = launch.run();
    assert_eq!(run.code(), Some(2), "{}", run.log());
    assert!(run.log().contains(line), "{line} is not in {}", run.log());
}

#[test]
fn another_number_of_partitions_is_refused() {
    let rig = Rig::new();
    rig.write_input("one\n");
    let line = |asked, begun| {
        format!(
            "--partitions {asked}: stream {STREAM} was begun with --partitions {begun}; allowed: {begun}, or another --stream"
        )
    };
    rig.reader().set("--partitions", "3").once().run_ok();
    let keys = rig.redis.cli("DBSIZE").int();
    refuses(&rig.writer().set("--partitions", "2"), &line(2, 3));
    refuses(&rig.writer(), &line(1, 3));
    refuses(
        &rig.writer().set("--partitions", "3").set("--partition", "3"),
        "--partition 3: --partitions is 3; allowed: 0 to 2",
    );
    assert_eq!(rig.redis.cli("DBSIZE").int(), keys, "nothing was made");
    assert!(rig.redis.call(&["XINFO", "GROUPS", &stream(0)]).list().is_empty());
    rig.redis.flushall();
    fs::remove_dir_all(rig.folder.join("in")).unwrap();
    fs::create_dir(rig.folder.join("in")).unwrap();
    rig.write_input("one\n");
    rig.reader().once().run_ok();
    refuses(&rig.writer().set("--partitions", "3"), &line(3, 1));
}

#[test]
fn another_number_of_partitions_is_detected_when_the_source_begins() {
    let rig = Rig::new();
    rig.write_input("one\n");
    // Each has its own group: otherwise one takes entries that another waits for.
    let mut writers = ["1", "2", "3"].map(|count| {
        let output = rig.folder.join(&format!("out/{count}.txt"));
        rig.writer().set("--output", output).set("--group", count).set("--partitions", count).start()
    });
    for writer in &mut writers {
        wait::until("the writer is ready", || writer.readyz().0 == 200);
    }
    rig.reader().set("--partitions", "3").once().run_ok();
    for writer in &mut writers[..2] {
        assert_eq!(writer.wait_exit(wait::SOON).code(), Some(2), "{}", writer.log());
        assert!(writer.log().contains("was begun with --partitions 3"), "{}", writer.log());
    }
    rig.wait_len_of(&rig.folder.join("out/3.txt"), len(&rig.input));
    writers[2].stop();
}

#[test]
fn a_check_looks_at_every_partition() {
    let rig = rig();
    rig.reader().set("--partitions", "3").once().run_ok();
    let check = |program: Program, flags: &[(&str, &str)]| {
        let launch = rig.service(program).word("check");
        let launch = match program {
            Program::Reader => launch.set("--input", &rig.input),
            Program::Writer => launch.set("--output", &rig.output),
        };
        let mut run = flags.iter().fold(launch, |launch, (flag, value)| launch.set(flag, value)).run();
        (run.code(), String::from_utf8(run.process().stdout()).unwrap())
    };
    for program in [Program::Reader, Program::Writer] {
        let (code, text) = check(program, &[("--partitions", "3")]);
        assert_eq!(code, Some(0), "{text}");
        for partition in 0..3 {
            assert!(text.contains(&format!("--stream: {} is a stream", stream(partition))), "{text}");
        }
        assert!(text.contains("was begun with 3"), "{text}");
        let mut lines: Vec<&str> = text.lines().filter(|line| !line.contains('→')).collect();
        let all = lines.len();
        lines.sort_unstable();
        lines.dedup();
        assert_eq!(lines.len(), all, "something is said twice: {text}");
        for count in ["1", "2"] {
            let (code, text) = check(program, &[("--partitions", count)]);
            assert!(code == Some(2) && text.contains("was begun with --partitions 3"), "{text}");
        }
    }
    let (_, text) = check(Program::Writer, &[("--partitions", "3"), ("--partition", "1")]);
    assert!(text.contains(&stream(1)) && !text.contains(&stream(0)), "{text}");
    let (code, _) = check(Program::Writer, &[("--partitions", "3"), ("--partition", "4")]);
    assert_eq!(code, Some(2));
}
