//! The output and its journal: torn, on a full disk, replaced.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use e2e::rig::{self, STREAM};
use e2e::{Growth, Mount, Rig, text, wait};

fn journal(rig: &Rig) -> PathBuf {
    PathBuf::from(format!("{}.journal", rig.output.display()))
}

#[test]
fn existing_output_bytes_are_kept() {
    let rig = Rig::new();
    fs::write(&rig.output, "not ours\nno newline").unwrap();
    let bytes = text::numbered(0..1000, 1);
    rig.write_input(&bytes);
    rig.reader().once().run_ok();
    rig.writer().once().run_ok();
    rig.writer().once().run_ok();
    assert!(rig.output_bytes() == [b"not ours\nno newline", &bytes[..]].concat());
}

#[test]
fn garbage_after_the_output_is_cut_off() {
    let rig = Rig::new();
    for round in 0..3 {
        rig.append_input(text::numbered(round * 500..(round + 1) * 500, 1));
        rig.reader().once().run_ok();
        rig.writer().once().run_ok();
        rig::append(&rig.output, [&b"garbage \0 \xff "[..], &vec![b'x'; 100_000]].concat());
    }
    rig.writer().once().run_ok();
    rig.assert_identical();
}

#[test]
fn garbage_after_the_journal_is_cut_off() {
    let rig = Rig::new();
    for (round, garbage) in [&b"\0"[..], &[0; 64], &[0xff; 64], &[7; 1000], &[0; 4096]].into_iter().enumerate() {
        let from = round as u64 * 500;
        rig.append_input(text::numbered(from..from + 500, 1));
        rig.reader().once().run_ok();
        rig.writer().once().run_ok();
        rig.assert_identical();
        rig::append(&journal(&rig), garbage);
    }
    rig.writer().once().run_ok();
    rig.assert_identical();
}

/// The writer is killed while it is working. Acknowledged bytes are durable and must be kept. After
/// them, a power loss may have torn both files anywhere.
#[test]
fn files_torn_after_the_acknowledged_bytes() {
    let seed = e2e::seed();
    let mut rng = fastrand::Rng::with_seed(seed);
    let rig = Rig::new();
    let mut growth = Growth::of(&rig.input, text::numbered(0..60_000, seed), Duration::from_secs(6), seed);
    let mut reader = rig.reader().start();
    let mut torn = 0;
    while growth.runs() || torn < 4 {
        let mut writer = rig.writer().start();
        wait::random_moment(&mut rng, 30..400);
        writer.kill9();
        // On a fast disk hardly any entry is ever pending. Then add enough lines to keep the writer
        // busy until it is killed.
        if !growth.runs() {
            rig.append_input(text::numbered(60_000..160_000, seed));
        }
        // The first pending line begins where the durable bytes end: the input has one generation,
        // and the output began empty.
        let groups = rig.redis.try_call(&["XPENDING", STREAM, "writers"]).unwrap();
        let Some(first) =
            groups.ok().map(|pending| pending.list()[1].clone()).filter(|first| *first != e2e::Value::Nil)
        else {
            continue;
        };
        let first = first.text();
        let entry = rig.redis.call(&["XRANGE", STREAM, &first, &first]);
        let fields = entry.list()[0].list()[1].clone();
        let newline = u64::from(fields.list()[0].bytes() == b"line");
        let end: u64 = first.split_once('-').unwrap().1.parse().unwrap();
        let durable = end - fields.list()[1].bytes().len() as u64 - newline;
        let length = rig::len(&rig.output);
        assert!(length >= durable, "{} bytes were acknowledged before they were written", durable - length);
        // A batch may be synced and not acknowledged. The next record of the journal then says so,
        // and the bytes stay.
        let durable = durable.max(last_record(&rig).map_or(0, |record| record.durable));
        if length <= durable {
            continue;
        }
        let output = fs::File::options().write(true).open(&rig.output).unwrap();
        match torn % 4 {
            // The tail is missing,
            0 => output.set_len(rng.u64(durable..length)).unwrap(),
            // or the length is right, but the bytes are not,
            1 => {
                let from = rng.u64(durable..length);
                output.set_len(from).unwrap();
                output.set_len(length).unwrap();
            }
            // or the output is complete and the last record of the journal is not,
            2 => {
                if last_record(&rig).is_some_and(|record| record.begin >= durable) {
                    let path = journal(&rig);
                    let cut = rig::len(&path) - rng.u64(1..64);
                    fs::File::options().write(true).open(&path).unwrap().set_len(cut).unwrap();
                }
            }
            // or both.
            _ => {
                output.set_len(rng.u64(durable..length)).unwrap();
                rig::append(&journal(&rig), &[0; 64][..rng.usize(1..64)]);
            }
        }
        torn += 1;
    }
    growth.wait();
    println!("torn {torn} times");
    let mut writer = rig.writer().start();
    rig.wait_delivered();
    wait::until("nothing is pending", || rig.pending() == 0);
    reader.stop();
    writer.stop();
    rig.assert_identical();
}

/// The last record of the journal.
struct Record {
    /// The start of its range in the source.
    begin: u64,
    /// The synced length of the output when it was written.
    durable: u64,
}

fn last_record(rig: &Rig) -> Option<Record> {
    let journal = fs::read(journal(rig)).ok()?;
    let (records, _) = journal.get(32..)?.as_chunks::<64>();
    let word = |at: usize| Some(u64::from_le_bytes(records.last()?[at..at + 8].try_into().ok()?));
    Some(Record { begin: word(8)?, durable: word(32)? })
}

#[test]
fn a_full_disk_is_waited_for() {
    let rig = Rig::new();
    let disk = rig.folder.join("disk");
    fs::create_dir(&disk).unwrap();
    let Some(mount) = Mount::new("tmpfs", "size=2m", &disk) else { return };
    let output = disk.join("output.txt");
    let bytes = text::numbered(0..60_000, 1);
    rig.write_input(&bytes);
    rig.reader().once().run_ok();
    let mut writer = rig.writer().set("--output", &output).start();
    let line = writer.wait_for_log(&["space"]);
    assert!(line.contains("output.txt"), "{line}");
    assert_eq!(writer.healthz().0, 200);
    let (status, reason) = writer.readyz();
    assert_eq!(status, 503);
    assert!(reason.to_lowercase().contains("space"), "{reason}");
    // Killed and restarted while the disk is full: it waits again.
    writer.kill9();
    let mut writer = rig.writer().set("--output", &output).start();
    writer.wait_for_log(&["space"]);
    assert!(mount.change("size=64m"));
    rig.wait_len_of(&output, bytes.len() as u64);
    wait::until("ready", || writer.readyz().0 == 200);
    writer.stop();
    e2e::assert_identical(&rig.input, &output);
}

#[test]
fn an_output_removed_under_a_running_writer_is_reported() {
    let rig = Rig::new();
    rig.write_input("one\n");
    let mut reader = rig.reader().start();
    let mut writer = rig.writer().start();
    rig.wait_delivered();
    fs::remove_file(&rig.output).unwrap();
    rig.append_input("two\n");
    writer.wait_for_log(&["output.txt", "removed"]);
    writer.wait_for_log(&["are lost", "copy them from the source"]);
    reader.stop();
}

#[test]
fn a_journal_that_cannot_be_rewritten_is_one_state() {
    let rig = Rig::new();
    rig.write_input("one\n");
    let mut reader = rig.reader().start();
    let mut writer = rig.writer().start();
    rig.wait_delivered();
    let journal = format!("{}.journal", rig.output.display());
    fs::remove_file(&journal).unwrap();
    fs::create_dir(&journal).unwrap();
    rig.append_input("two\n");
    wait::until("the writer has tried again and again", || {
        writer.readyz().0 == 503 && writer.metric("line_stream_errors_total") >= 5.0
    });
    assert_eq!(writer.log().matches("rewritten").count(), 0, "it was not: {}", writer.log());
    assert_eq!(writer.log().matches("WARN").count(), 1, "{}", writer.log());
    fs::remove_dir(&journal).unwrap();
    rig.wait_delivered();
    writer.wait_for_log(&["rewritten"]);
    reader.stop();
    writer.stop();
    rig.assert_identical();
}

#[test]
fn an_output_truncated_under_a_running_writer_is_reported() {
    let rig = Rig::new();
    rig.write_input(text::numbered(0..1000, 1));
    let mut reader = rig.reader().start();
    let mut writer = rig.writer().start();
    rig.wait_delivered();
    fs::File::options().write(true).open(&rig.output).unwrap().set_len(100).unwrap();
    rig.append_input("more\n");
    // The exact lost bytes are known only up to one commit.
    writer.wait_for_metric("writer_gap_bytes_total", |bytes| bytes > 0.0);
    writer.wait_for_log(&["output.txt", "are lost"]);
    reader.stop();
}

#[test]
fn an_output_truncated_while_the_writer_was_down_is_reported() {
    // Durable and acknowledged bytes are lost, and Redis does not have them any more. This must be
    // reported.
    let rig = Rig::new();
    rig.write_input(text::numbered(0..1000, 1));
    rig.reader().once().run_ok();
    rig.writer().once().run_ok();
    fs::File::options().write(true).open(&rig.output).unwrap().set_len(1000).unwrap();
    let mut writer = rig.writer().start();
    writer.wait_for_log(&["output.txt", "are lost"]);
    let missing = rig::len(&rig.input) - 1000;
    rig.append_input("more\n");
    let _reader = rig.reader().start();
    writer.wait_for_metric("writer_gap_bytes_total", |bytes| bytes >= missing as f64);
}

#[test]
fn every_way_to_sync_gives_the_same_output() {
    for fsync in ["always", "interval", "never"] {
        let rig = Rig::new();
        let mut reader = rig.reader().start();
        let mut writer = rig.writer().set("--fsync", fsync).start();
        rig.write_input(text::numbered(0..20_000, 1));
        rig.wait_delivered();
        wait::until("nothing is pending", || rig.pending() == 0);
        writer.kill9();
        rig.append_input(text::numbered(20_000..30_000, 1));
        let mut writer = rig.writer().set("--fsync", fsync).start();
        rig.wait_delivered();
        reader.stop();
        writer.stop();
        rig.assert_identical();
    }
}

#[test]
fn the_journal_stays_small() {
    let seed = e2e::seed();
    let rig = Rig::new();
    let mut reader = rig.reader().start();
    let mut writer = rig.writer().start();
    let mut growth = Growth::of(&rig.input, text::numbered(0..60_000, seed), Duration::from_secs(6), seed);
    growth.wait();
    rig.wait_delivered();
    reader.stop();
    writer.stop();
    rig.assert_identical();
    rig.writer().once().run_ok();
    // One content, in order, is a single run.
    let length = rig::len(&journal(&rig));
    assert!(length < 100_000, "the journal has {length} bytes");
}
