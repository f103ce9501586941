//! Journals that are damaged, missing, older than the output, or belong to another output.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use e2e::{Growth, Launch, Program, Rig, Service, Tamper, partitions, rig, text, wait};

fn journal_of(output: &Path) -> PathBuf {
    PathBuf::from(format!("{}.journal", output.display()))
}

/// The length of a journal's header: two copies, each of which contains its length.
fn header_len(journal: &[u8]) -> usize {
    2 * u64::from_le_bytes(journal[8..16].try_into().unwrap()) as usize
}

/// The files in the output's folder, with their bytes.
fn files(rig: &Rig) -> BTreeMap<PathBuf, Vec<u8>> {
    let entries = fs::read_dir(rig.output.parent().unwrap()).unwrap().map(|entry| entry.unwrap().path());
    let read = |path: &PathBuf| if path.is_file() { fs::read(path).unwrap() } else { Vec::new() };
    entries.map(|path| (read(&path), path)).map(|(bytes, path)| (path, bytes)).collect()
}

/// Asserts that a writer refuses to start: exit code 2, one line that contains all of `parts`, and
/// no file changed.
#[track_caller]
fn is_refused(rig: &Rig, writer: &Launch, parts: &[&str]) {
    let before = files(rig);
    let mut refused = writer.run();
    assert_eq!(refused.code(), Some(2), "{}", refused.log());
    let log = refused.log();
    let last = log.lines().last().unwrap();
    assert!(parts.iter().all(|part| last.contains(part)), "{parts:?}: {last}");
    assert!(files(rig) == before, "a refused start changed something: {:?}", files(rig).keys());
}

/// The output of `writer check`, and its exit code.
fn check(rig: &Rig) -> (Option<i32>, String) {
    let mut run = rig.service(Program::Writer).word("check").set("--output", &rig.output).run();
    (run.code(), String::from_utf8(run.process().stdout()).unwrap())
}

/// Delivers `lines` lines in many commits. Then the writer has exited, and everything is
/// acknowledged. Returns the running reader.
fn delivered_in_many_commits(rig: &Rig, framing: &str, lines: u64) -> Service {
    let reader = rig.reader().set("--framing", framing).start();
    let mut writer = rig.writer().start();
    let mut growth = Growth::of(&rig.input, text::numbered(0..lines, 1), Duration::from_millis(1500), 1);
    growth.wait();
    rig.wait_delivered();
    wait::until("nothing is pending", || rig.pending() == 0);
    writer.stop();
    reader
}

#[test]
fn flipped_bits_anywhere_in_the_journal_are_restored() {
    let seed = e2e::seed();
    let mut rng = fastrand::Rng::with_seed(seed);
    for framing in ["line", "chunk"] {
        let rig = Rig::new();
        let _reader = delivered_in_many_commits(&rig, framing, 10_000);
        let journal = journal_of(&rig.output);
        for round in 0..6 {
            let mut bytes = fs::read(&journal).unwrap();
            let records = (bytes.len() - header_len(&bytes)) / 64;
            // Flip one bit in some records, and one in the header.
            for record in 0..records {
                if round == 0 || rng.u8(0..4) > 0 {
                    continue;
                }
                let at = header_len(&bytes) + record * 64 + rng.usize(0..64);
                bytes[at] ^= 1 << rng.u8(0..8);
            }
            if round % 2 == 0 {
                let at = rng.usize(0..header_len(&bytes));
                bytes[at] ^= 1 << rng.u8(0..8);
            }
            let is_changed = bytes != fs::read(&journal).unwrap();
            fs::write(&journal, bytes).unwrap();
            let (code, text) = check(&rig);
            assert!(code == Some(0) && text.contains("damaged") == is_changed, "{text}");
            let mut writer = rig.writer().start();
            rig.append_input(text::numbered(0..200, round));
            rig.wait_delivered();
            assert_eq!(writer.find_log(&["damaged", "restored"]).is_some(), is_changed, "{}", writer.log());
            assert!(writer.find_log(&["after the last commit"]).is_none() && writer.find_log(&["are lost"]).is_none());
            wait::until("nothing is pending", || rig.pending() == 0);
            writer.stop();
            rig.assert_identical();
        }
    }
}

#[test]
fn the_journal_of_many_ranges_is_restored_and_their_loss_is_a_few_lines() {
    // With one of three partitions, each block is a range of its own.
    let rig = Rig::new();
    rig.write_input(text::numbered(0..50_000, 1));
    rig.reader().set("--partitions", "3").set("--framing", "chunk").once().run_ok();
    let writer = || rig.writer().set("--partitions", "3").set("--partition", "1").once();
    writer().run_ok();
    let lines = partitions::lines_of(&fs::read(&rig.input).unwrap(), 1, 3);
    let journal = journal_of(&rig.output);
    let mut bytes = fs::read(&journal).unwrap();
    let (at, len) = (header_len(&bytes), bytes.len());
    for (nth, record) in bytes[at..].chunks_mut(64).enumerate() {
        record[nth % 64] ^= 1 << (nth % 8);
    }
    assert!((len - at) / 64 > 12, "{len} bytes");
    fs::write(&journal, bytes).unwrap();
    let mut restored = writer().run();
    assert!(restored.code() == Some(0) && restored.find_log(&["restored"]).is_some(), "{}", restored.log());
    assert!(rig.output_bytes() == lines);
    fs::remove_file(&rig.output).unwrap();
    let gone = writer().run();
    assert_eq!(gone.log().matches("ERROR").count(), 11, "{}", gone.log());
    assert!(gone.find_log(&["ERROR", "more ranges", "are lost"]).is_some(), "{}", gone.log());
}

#[test]
fn records_that_are_lost_between_others_are_inferred() {
    let rig = Rig::new();
    let _reader = delivered_in_many_commits(&rig, "line", 10_000);
    let journal = journal_of(&rig.output);
    let mut bytes = fs::read(&journal).unwrap();
    let at = header_len(&bytes);
    // After the mark of the empty output and the first run.
    bytes[at + 3 * 64..at + 6 * 64].fill(0xa5);
    fs::write(&journal, bytes).unwrap();
    rig.append_input("more\n");
    let mut writer = rig.writer().start();
    rig.wait_delivered();
    writer.wait_for_log(&["damaged records", "restored: 3;"]);
    writer.stop();
    rig.assert_identical();
}

#[test]
fn damage_that_cannot_be_restored_is_refused_and_changes_nothing() {
    let rig = Rig::new();
    let _reader = delivered_in_many_commits(&rig, "line", 10_000);
    let journal = journal_of(&rig.output);
    let whole = fs::read(&journal).unwrap();
    let at = header_len(&whole);
    let filled = |range: std::ops::Range<usize>, byte: u8| {
        let mut bytes = whole.clone();
        bytes[range].fill(byte);
        bytes
    };
    for (expected, damaged) in [
        // It is then unknown which content the output's first bytes belong to.
        ("damaged records", filled(at + 64..at + 128, 0xa5)),
        ("damaged records", filled(at..at + 640, 0)),
        ("not those of a commit journal", filled(0..whole.len(), 0)),
        ("not those of a commit journal", filled(0..at, 0xa5)),
        ("not those of a commit journal", b"dear diary, today I wrote down some notes".to_vec()),
    ] {
        fs::write(&journal, damaged).unwrap();
        is_refused(&rig, &rig.writer(), &["--output", "output.txt.journal", expected, "nothing was changed"]);
        let (code, text) = check(&rig);
        assert!(code == Some(2) && text.contains(expected), "{text}");
        let verify = rig.command(Program::Writer).word("verify").word("--input").word(&rig.input);
        let mut verify = verify.word("--output").word(&rig.output).run();
        assert_eq!(verify.code(), Some(2), "{}", verify.log());
    }
    fs::write(&journal, whole).unwrap();
    rig.append_input("more\n");
    let mut writer = rig.writer().start();
    rig.wait_delivered();
    writer.stop();
    rig.assert_identical();
}

#[test]
fn an_output_whose_last_bytes_were_changed_is_refused() {
    let rig = Rig::new();
    rig.write_input(text::numbered(0..1000, 1));
    rig.reader().once().run_ok();
    rig.writer().once().run_ok();
    let mut bytes = rig.output_bytes();
    let at = bytes.len() - 1000;
    bytes[at] ^= 1;
    fs::write(&rig.output, bytes).unwrap();
    is_refused(&rig, &rig.writer(), &["output.txt", "not those that were committed"]);
    // Another file of the same length replaces it.
    fs::write(&rig.output, vec![b'x'; rig::len(&rig.input) as usize]).unwrap();
    is_refused(&rig, &rig.writer(), &["output.txt", "not those that were committed"]);
}

#[test]
fn a_journal_of_another_group_or_stream_is_refused() {
    let rig = Rig::new();
    rig.write_input(text::numbered(0..1000, 1));
    rig.reader().once().run_ok();
    rig.writer().once().run_ok();
    let others = [("--group", "others"), ("--stream", "other_stream")];
    for (flag, value) in others {
        let parts = ["output.txt.journal", "--stream line_stream --group writers", value, "allowed"];
        is_refused(&rig, &rig.writer().set(flag, value), &parts);
    }
    rig.writer().once().run_ok();
}

#[test]
fn a_writer_of_another_partition_is_refused() {
    let rig = Rig::new();
    rig.write_input(text::numbered(0..5000, 1));
    rig.reader().set("--partitions", "2").once().run_ok();
    let writer = |index| rig.writer().set("--partitions", "2").set("--partition", index);
    writer("0").once().run_ok();
    is_refused(&rig, &writer("1"), &["partitions 0 of 2", "partitions 1 of 2", "allowed"]);
    assert_eq!(rig.output_bytes(), partitions::lines_of(&fs::read(&rig.input).unwrap(), 0, 2));
}

#[test]
fn the_output_of_another_group_is_ignored() {
    for other in ["output.txt.b", "output.txt.1", "output.txt-20261124"] {
        let rig = Rig::new();
        rig.write_input(text::numbered(0..1000, 1));
        for group in ["a", "b"] {
            rig.redis.call(&["XGROUP", "CREATE", rig::STREAM, group, "0", "MKSTREAM"]);
        }
        rig.reader().once().run_ok();
        let a = rig.writer().set("--group", "a").once();
        let b = rig.writer().set("--group", "b").set("--output", rig.folder.join("out").join(other)).once();
        // The second writer finds the journal of the first one in the folder.
        a.run_ok();
        b.run_ok();
        rig.append_input(text::numbered(1000..5000, 1));
        rig.reader().once().run_ok();
        b.run_ok();
        a.run_ok();
        rig.assert_identical();
        e2e::assert_identical(&rig.input, &rig.folder.join("out").join(other));
    }
}

#[test]
fn an_older_journal_beside_a_longer_output_destroys_nothing() {
    let rig = Rig::new();
    rig.write_input(text::numbered(0..1000, 1));
    rig.reader().once().run_ok();
    rig.writer().once().run_ok();
    let journal = journal_of(&rig.output);
    let older = fs::read(&journal).unwrap();
    rig.append_input(text::numbered(1000..2000, 1));
    rig.reader().once().run_ok();
    rig.writer().once().run_ok();
    let kept_journal = rig.folder.join("newer.journal");
    fs::copy(&journal, &kept_journal).unwrap();
    fs::write(&journal, &older).unwrap();
    let (code, text) = check(&rig);
    assert!(code == Some(0) && text.contains("after the last commit"), "{text}");
    // The bytes were acknowledged, so they are not from an unfinished commit.
    is_refused(&rig, &rig.writer(), &["--output", "older than the output", "restore"]);
    // Bytes appended by another program were not acknowledged: they are kept, and the writer
    // continues.
    let newer = fs::read(&kept_journal).unwrap();
    fs::write(&journal, &newer).unwrap();
    rig::append(&rig.output, "of another program\n");
    rig.append_input(text::numbered(2000..2010, 1));
    rig.reader().once().run_ok();
    rig.writer().once().run_ok();
    rig.assert_identical();
    let kept = fs::read(format!("{}.cut", rig.output.display())).unwrap();
    assert!(kept == b"of another program\n", "{} bytes were kept", kept.len());
    // More bytes than an unfinished commit can leave: nothing is cut off.
    rig.append_input(text::numbered(0..200_000, 7));
    rig.reader().once().run_ok();
    rig.writer().once().run_ok();
    fs::write(&journal, &older).unwrap();
    is_refused(&rig, &rig.writer(), &["output.txt.journal", "older than the output", "restore"]);
}

#[test]
fn restoring_both_files_under_a_running_writer_loses_nothing_silently() {
    let rig = Rig::new();
    rig.write_input(text::numbered(0..1000, 1));
    let mut reader = rig.reader().start();
    let mut writer = rig.writer().start();
    rig.wait_delivered();
    wait::until("nothing is pending", || rig.pending() == 0);
    let pair = [rig.output.clone(), journal_of(&rig.output)].map(|path| (fs::read(&path).unwrap(), path));
    let before = rig::len(&rig.output);
    rig.append_input(text::numbered(1000..2000, 1));
    rig.wait_delivered();
    wait::until("nothing is pending", || rig.pending() == 0);
    for (bytes, path) in pair {
        fs::write(path, bytes).unwrap();
    }
    let lost = rig::len(&rig.input) - before;
    let line = writer.wait_for_log(&["are lost"]);
    assert!(line.contains("stop this writer"), "{line}");
    writer.wait_for_metric("writer_gap_bytes_total", |bytes| bytes == lost as f64);
    rig.append_input("more\n");
    rig.wait_output_len(before + 5);
    reader.stop();
    writer.stop();
    let all = fs::read(&rig.input).unwrap();
    assert!(rig.output_bytes() == [&all[..before as usize], b"more\n"].concat());
}

#[test]
fn a_missing_or_empty_journal_is_reported() {
    for journal in ["missing", "empty"] {
        let rig = Rig::new();
        rig.write_input(text::numbered(0..1000, 1));
        rig.reader().once().run_ok();
        rig.writer().once().run_ok();
        match journal {
            "missing" => fs::remove_file(journal_of(&rig.output)).unwrap(),
            _ => fs::write(journal_of(&rig.output), "").unwrap(),
        }
        let (_, text) = check(&rig);
        assert!(text.contains("is missing beside an output that is not empty"), "{text}");
        let mut writer = rig.writer().start();
        let line = writer.wait_for_log(&["WARN", "journal is missing"]);
        assert!(line.contains("restore the journal"), "{line}");
        writer.kill9();
        assert_eq!(rig::len(&rig.output), rig::len(&rig.input), "nothing was cut");
    }
}

#[test]
fn a_missing_output_is_reported_as_one_range() {
    let rig = Rig::new();
    let mut reader = delivered_in_many_commits(&rig, "line", 10_000);
    fs::remove_file(&rig.output).unwrap();
    let mut writer = rig.writer().start();
    let len = rig::len(&rig.input);
    writer.wait_for_metric("writer_gap_bytes_total", |bytes| bytes == len as f64);
    assert_eq!(writer.log().matches("ERROR").count(), 1, "{}", writer.log());
    assert!(writer.find_log(&["ERROR", &format!("bytes 0..{len} ")]).is_some(), "{}", writer.log());
    reader.stop();
    writer.stop();
}

#[test]
fn impossible_outputs_are_refused_without_side_effects() {
    let rig = Rig::new();
    let folder = rig.output.parent().unwrap();
    let pipe = folder.join("pipe");
    assert!(text::can("mkfifo", &[&pipe.to_string_lossy()]));
    let _socket = std::os::unix::net::UnixListener::bind(folder.join("socket")).unwrap();
    fs::create_dir(folder.join("folder")).unwrap();
    std::os::unix::fs::symlink("pipe", folder.join("link")).unwrap();
    for (name, why) in [
        ("pipe", "it is a pipe"),
        ("link", "it is a pipe"),
        ("socket", "it is a socket"),
        ("folder", "it is a folder"),
        ("new/", "it names a folder"),
        ("/dev/null", "it is a device"),
        // The standard output of the test processes is a file.
        ("/dev/stdout", "it is a stream of this process"),
        ("/proc/self/fd/1", "it is a stream of this process"),
    ] {
        let path = folder.join(name);
        let launch =
            rig.writer().set("--output", format!("{}{}", path.display(), if name == "new/" { "/" } else { "" }));
        // Also if a journal seems to belong to it: checking a pipe must not open it.
        is_refused(&rig, &launch, &["--output", why, "allowed"]);
        let mut run = rig.service(Program::Writer).word("check").set("--output", &path).run();
        assert_eq!(run.code(), Some(2), "{}", run.log());
        assert!(!journal_of(&path).exists(), "{name}");
    }
    assert!(text::can("mkfifo", &[&journal_of(&rig.output).to_string_lossy()]));
    is_refused(&rig, &rig.writer(), &["--output", "output.txt.journal: it is a pipe", "allowed"]);
    let mut run = rig.service(Program::Writer).word("check").set("--output", &rig.output).run();
    assert_eq!(run.code(), Some(2), "{}", run.log());
}

#[test]
fn an_output_that_changes_continuously_is_reopened_with_backoff() {
    let rig = Rig::new();
    // The output is the writer's own log: each logged line disturbs the next attempt.
    let log = rig.folder.join("logs/writer-1.log");
    let mut writer = rig.writer().set("--output", &log).start();
    let begun = Instant::now();
    let metrics = wait::within(wait::SOON, "the address of its page", || {
        let kept = PathBuf::from(format!("{}.cut", log.display()));
        let said = [fs::read(&log).unwrap_or_default(), fs::read(kept).unwrap_or_default()].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        let (_, addr) = said.split_once("listening on http://")?;
        addr.split_whitespace().next()?.parse::<std::net::SocketAddr>().ok()
    });
    let disturbed = || {
        let page = e2e::http::get(metrics, "/metrics").map(|(_, text)| e2e::http::Metrics::parse(&text));
        page.ok().and_then(|metrics| metrics.get("line_stream_errors_total")).unwrap_or(0.0)
    };
    wait::until("it was disturbed a few times", || disturbed() >= 5.0);
    // 50 ms, 100 ms, 200 ms and 400 ms, each reduced by jitter.
    assert!(begun.elapsed() > Duration::from_millis(300), "{:?}", begun.elapsed());
    writer.kill9();
}

#[test]
fn the_input_as_output_is_found() {
    let rig = Rig::new();
    rig.write_input("one\n");
    rig.reader().once().run_ok();
    let other_name = rig.folder.join("in/link.txt");
    fs::hard_link(&rig.input, &other_name).unwrap();
    for output in [&rig.input, &other_name] {
        let mut run = rig.service(Program::Writer).word("check").set("--output", output).run();
        let text = String::from_utf8(run.process().stdout()).unwrap();
        assert!(run.code() == Some(2) && text.contains("is the source's input"), "{text}");
    }
    let mut run = rig.service(Program::Writer).word("check").set("--output", &rig.output).run();
    assert_eq!(run.code(), Some(0), "{}", run.log());
}

#[test]
fn an_output_truncated_while_syncs_fail_is_not_filled_with_zeros() {
    if !Tamper::is_possible() {
        return;
    }
    let rig = Rig::new();
    rig.write_input(text::numbered(0..1000, 1));
    let mut reader = rig.reader().start();
    let mut writer = rig.writer().start();
    rig.wait_delivered();
    wait::until("all is acknowledged", || rig.pending() == 0);
    let tamper = Tamper::start(&writer, &rig.folder.join("logs"), "fdatasync,fsync", "EIO");
    rig.append_input(text::numbered(1000..2000, 1));
    writer.wait_for_metric("writer_fsync_errors_total", |errors| errors > 0.0);
    fs::File::options().write(true).open(&rig.output).unwrap().set_len(100).unwrap();
    writer.wait_for_log(&["output.txt", "truncated"]);
    drop(tamper);
    writer.wait_for_log(&["are lost"]);
    let gone = writer.metric("writer_gap_bytes_total") as u64;
    rig.wait_output_len(rig::len(&rig.input) - gone);
    reader.stop();
    writer.stop();
    assert!(!rig.output_bytes().contains(&0));
}
