//! The writer's output is renamed, as log rotation does. Its journal is renamed too; no line is
//! lost, duplicated, or reported as lost.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use e2e::{Growth, Program, Rig, rig, text, wait};

fn renamed(rig: &Rig, suffix: &str) -> PathBuf {
    let to = PathBuf::from(format!("{}.{suffix}", rig.output.display()));
    fs::rename(&rig.output, &to).unwrap();
    to
}

/// Asserts that `writer verify` finds every byte of the input exactly once in these outputs.
fn assert_verified(rig: &Rig, outputs: &[&Path]) {
    let mut verify = rig.command(Program::Writer).word("verify").word("--input").word(&rig.input);
    for output in outputs {
        verify = verify.word("--output").word(output);
    }
    verify.run_ok();
}

#[test]
fn sighup_after_a_rename_continues_in_a_new_file() {
    let rig = Rig::new();
    let (one, two) = (text::numbered(0..15_000, 1), text::numbered(15_000..30_000, 2));
    let all = [&one[..], &two].concat();
    rig.write_input(&one);
    let mut reader = rig.reader().start();
    let mut writer = rig.writer().start();
    rig.wait_delivered();
    let first = renamed(&rig, "1");
    let before = rig::len(&first);
    writer.sighup();
    writer.wait_for_log(&["renamed to", "output.txt.1"]);
    rig.append_input(&two);
    rig.wait_output_len(all.len() as u64 - before);
    let together = [fs::read(&first).unwrap(), rig.output_bytes()].concat();
    assert!(together == all, "{} and {} bytes", before, rig.output_bytes().len());
    assert_verified(&rig, &[&first, &rig.output]);
    assert_eq!(writer.metric("writer_gap_bytes_total"), 0.0);
    assert!(writer.find_log(&["are lost"]).is_none(), "{}", writer.log());
    assert!(writer.find_log(&["SIGHUP"]).is_some());
    reader.stop();
    writer.stop();
}

#[test]
fn writer_rotate_renames_the_output_of_a_writer_at_work() {
    let rig = Rig::new();
    rig.write_input(text::numbered(0..1_000, 1));
    let (mut reader, mut writer) = (rig.reader().start(), rig.writer().start());
    rig.wait_delivered();
    let mut rotate = rig.command(Program::Writer).word("rotate").env("LINE_STREAM_OUTPUT", &rig.output).run();
    assert_eq!(rotate.code(), Some(0), "{}", rotate.log());
    let said = String::from_utf8(rotate.process().stdout()).unwrap();
    let first = PathBuf::from(said.trim_end());
    assert!(first.to_string_lossy().starts_with(&format!("{}-20", rig.output.display())), "{said}");
    assert!(Path::new(&format!("{}.journal", first.display())).exists(), "{said}");
    rig.append_input("last\n");
    rig.wait_output_len(5);
    assert_verified(&rig, &[&first, &rig.output]);
    // Merge all outputs in a folder into a file.
    let into = rig.folder.join("merged.txt");
    let folder = rig.output.parent().unwrap();
    rig.command(Program::Writer).word("merge").word("--folder").word(folder).word("--into").word(&into).run_ok();
    assert_eq!(fs::read(&into).unwrap(), fs::read(&rig.input).unwrap());
    reader.stop();
    writer.stop();
}

#[test]
fn a_writer_waits_until_the_output_is_unlocked() {
    let rig = Rig::new();
    rig.write_input(text::numbered(0..100, 1));
    let mut reader = rig.reader().start();
    let mut before = rig.writer().start();
    rig.wait_delivered();
    let mut after = rig.writer().set("--lock-wait", "60s").start();
    after.wait_for_log(&["another writer is writing to it", "waiting for its end"]);
    assert_eq!(after.get("/healthz").0, 200);
    before.stop();
    rig.append_input("last\n");
    rig.wait_delivered();
    after.stop();
    reader.stop();
}

#[test]
fn lines_in_a_rotated_output_are_not_written_again() {
    let rig = Rig::new();
    rig.write_input(text::numbered(0..5_000, 1));
    let mut reader = rig.reader().start();
    let mut writer = rig.writer().start();
    rig.wait_delivered();
    let first = renamed(&rig, "1");
    // The rename is detected without a signal, too.
    writer.wait_for_log(&["renamed to", "output.txt.1"]);
    // Everything is delivered again.
    rig.redis.flushall();
    writer.wait_for_metric("writer_redelivered_total", |entries| entries >= 5_000.0);
    rig.append_input("last\n");
    rig.wait_output_len(5);
    assert_eq!(rig.output_bytes(), b"last\n");
    assert_verified(&rig, &[&first, &rig.output]);
    reader.stop();
    writer.stop();
}

#[test]
fn a_rename_while_no_writer_runs_is_found_at_startup() {
    let rig = Rig::new();
    rig.write_input(text::numbered(0..1_000, 1));
    rig.reader().once().run_ok();
    rig.writer().once().run_ok();
    let first = renamed(&rig, "2026-11-24");
    rig.append_input("last\n");
    rig.reader().once().run_ok();
    let writer = rig.writer().once().run();
    assert!(writer.find_log(&["was renamed to"]).is_some(), "{}", writer.log());
    assert!(writer.find_log(&["are lost"]).is_none(), "{}", writer.log());
    assert_eq!(rig.output_bytes(), b"last\n");
    assert_verified(&rig, &[&first, &rig.output]);
}

#[test]
fn several_renames_under_load_lose_and_duplicate_nothing() {
    let rig = Rig::new();
    let mut growth = Growth::of(&rig.input, text::numbered(0..40_000, 1), Duration::from_secs(2), 1);
    let mut reader = rig.reader().start();
    let mut writer = rig.writer().start();
    let mut outputs = Vec::new();
    for round in 1..=4 {
        wait::until("there is something in the output", || rig::len(&rig.output) > 0);
        outputs.push(renamed(&rig, &round.to_string()));
        writer.sighup();
        writer.wait_for_log(&["renamed to", &format!("output.txt.{round};")]);
    }
    growth.wait();
    let total = || outputs.iter().map(|path| rig::len(path)).sum::<u64>() + rig::len(&rig.output);
    assert_eq!(wait::progress_to(rig::len(&rig.input), total), Ok(()));
    reader.stop();
    writer.stop();
    let mut all: Vec<u8> = outputs.iter().flat_map(|path| fs::read(path).unwrap()).collect();
    all.extend(rig.output_bytes());
    assert!(all == fs::read(&rig.input).unwrap());
}

#[test]
fn a_rename_after_the_journal_was_rewritten_is_found() {
    for is_renamed_to in ["1", "old"] {
        let rig = Rig::new();
        rig.write_input(text::numbered(0..1_000, 1));
        let mut reader = rig.reader().start();
        let mut writer = rig.writer().start();
        rig.wait_delivered();
        fs::remove_file(format!("{}.journal", rig.output.display())).unwrap();
        writer.wait_for_log(&["journal was changed or removed", "rewritten"]);
        writer.stop();
        let first = renamed(&rig, is_renamed_to);
        let mut writer = rig.writer().start();
        writer.wait_for_log(&["was renamed to"]);
        // Everything is delivered again.
        rig.redis.flushall();
        writer.wait_for_metric("writer_redelivered_total", |entries| entries >= 1_000.0);
        rig.append_input("last\n");
        rig.wait_output_len(5);
        reader.stop();
        writer.stop();
        assert!(writer.find_log(&["are lost"]).is_none(), "{}", writer.log());
        assert_verified(&rig, &[&first, &rig.output]);
    }
}

#[test]
fn an_input_in_the_same_folder_is_not_taken_for_the_renamed_output() {
    let rig = Rig::new();
    let input = rig.folder.join("out/input.txt");
    fs::write(&input, text::numbered(0..1_000, 1)).unwrap();
    rig.reader().set("--input", &input).once().run_ok();
    rig.writer().once().run_ok();
    fs::remove_file(&rig.output).unwrap();
    let writer = rig.writer().once().run();
    assert!(writer.find_log(&["are lost"]).is_some(), "{}", writer.log());
    assert!(writer.find_log(&["was renamed to"]).is_none(), "{}", writer.log());
}
