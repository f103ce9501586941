//! Following a file while it grows.

use std::time::Duration;

use e2e::{Growth, Mount, Rig, Tamper, text};

#[test]
fn a_real_text_arrives_while_the_file_grows() {
    let seed = e2e::seed();
    let rig = Rig::new();
    let mut growth = Growth::of(&rig.input, text::real(text::REAL_LINES), Duration::from_secs(10), seed);
    let mut writer = rig.writer().start();
    let mut reader = rig.reader().start();
    growth.wait();
    rig.wait_delivered();
    assert_eq!(reader.metric("lines_read_total"), text::REAL_LINES as f64);
    writer.wait_for_metric("lines_written_total", |lines| lines >= text::REAL_LINES as f64);
    reader.stop();
    writer.stop();
    rig.assert_identical();
    assert_eq!(rig.pending(), 0);
}

#[test]
fn a_line_is_delivered_before_the_next_one_is_written() {
    let rig = Rig::new();
    rig.write_input("");
    let _reader = rig.reader().start();
    let _writer = rig.writer().start();
    for n in 0..50 {
        rig.append_input(format!("line {n}\n"));
        rig.wait_delivered();
    }
    rig.assert_identical();
}

#[test]
fn a_missing_file_is_waited_for() {
    let rig = Rig::new();
    let mut reader = rig.reader().start();
    reader.wait_for_log(&["input.txt", "does not exist"]);
    assert_eq!(reader.healthz().0, 200);
    let (status, reason) = reader.readyz();
    assert_eq!(status, 503);
    assert!(reason.contains("input.txt"), "{reason}");
    let _writer = rig.writer().start();
    rig.write_input("here it is\n");
    rig.wait_delivered();
    rig.assert_identical();
    e2e::wait::until("ready", || reader.readyz().0 == 200);
}

#[test]
fn a_missing_folder_is_waited_for() {
    let mut rig = Rig::new();
    rig.input = rig.folder.join("later/input.txt");
    // The state file is in the folder of the input, so the reader has to wait for it as well.
    let mut reader = rig.reader().start();
    reader.wait_for_log(&["later", "does not exist"]);
    assert!(reader.runs());
    let _writer = rig.writer().start();
    std::fs::create_dir(rig.folder.join("later")).unwrap();
    rig.write_input("here it is\n");
    rig.wait_delivered();
    rig.assert_identical();
}

/// Root may read everything, so permission is denied by failing system calls.
#[test]
fn revoked_and_restored_permissions_lose_no_line() {
    if !Tamper::is_possible() {
        return;
    }
    let mut rig = Rig::new();
    rig.write_input(text::numbered(0..1000, 1));
    let mut reader = rig.reader().start();
    let mut writer = rig.writer().start();
    rig.wait_delivered();
    let tamper = Tamper::start(&reader, &rig.folder.join("logs"), "openat,open", "EACCES");
    rig.append_input(text::numbered(1000..1100, 1));
    std::fs::rename(&rig.input, rig.folder.join("in/input.txt.1")).unwrap();
    rig.write_input(text::numbered(1100..2000, 1));
    reader.wait_for_log(&["input.txt", "permission denied"]);
    assert_eq!((reader.healthz().0, reader.readyz().0), (200, 503));
    // A new connection makes the reader search for the content by name, too.
    rig.redis.kill9();
    rig.redis.start_again();
    drop(tamper);
    let all = text::numbered(0..2000, 1);
    rig.wait_output_len(all.len() as u64);
    e2e::wait::until("ready", || reader.readyz().0 == 200);
    reader.stop();
    writer.stop();
    assert!(rig.output_bytes() == all);
}

#[test]
fn without_file_events_the_reader_scans_periodically() {
    if !Tamper::is_possible() {
        return;
    }
    let rig = Rig::new();
    rig.write_input("one\n");
    let mut reader = rig.reader().start();
    let mut writer = rig.writer().start();
    rig.wait_delivered();
    let _tamper = Tamper::start(&reader, &rig.folder.join("logs"), "inotify_init1,inotify_add_watch", "EMFILE");
    std::fs::rename(&rig.input, rig.folder.join("in/input.txt.1")).unwrap();
    let mut all = b"one\n".to_vec();
    for n in 0..20 {
        let line = format!("line {n}\n");
        rig.append_input(&line);
        all.extend(line.bytes());
        rig.wait_output_len(all.len() as u64);
    }
    reader.stop();
    writer.stop();
    assert!(rig.output_bytes() == all);
}

/// A file system that does not report changes made elsewhere, as network file systems do.
#[test]
fn a_file_system_without_events_is_followed() {
    let mut rig = Rig::new();
    let [shown, server, empty] = ["shown", "server", "empty"].map(|name| rig.folder.join(name));
    for folder in [&shown, &server, &empty] {
        std::fs::create_dir(folder).unwrap();
    }
    let layers = format!("lowerdir={}:{}", server.display(), empty.display());
    let Some(_mount) = Mount::new("overlay", &layers, &shown) else { return };
    rig.input = server.join("input.txt");
    rig.write_input("one\n");
    let input = shown.join("input.txt");
    let mut reader = rig.reader().set("--input", &input).set("--state-dir", rig.folder.join("in")).start();
    let mut writer = rig.writer().start();
    rig.wait_delivered();
    for n in 0..20 {
        rig.append_input(format!("line {n}\n"));
        rig.wait_delivered();
    }
    reader.stop();
    writer.stop();
    rig.assert_identical();
}

#[test]
fn two_readers_on_one_file_duplicate_nothing() {
    let seed = e2e::seed();
    let rig = Rig::new();
    let lines = 30_000;
    let mut growth = Growth::of(&rig.input, text::numbered(0..lines, seed), Duration::from_secs(4), seed);
    let state = |name: &str| {
        let folder = rig.folder.join(name);
        std::fs::create_dir(&folder).unwrap();
        folder
    };
    // Each has its own state folder, as on two machines.
    let mut readers =
        [rig.reader().set("--state-dir", state("a")).start(), rig.reader().set("--state-dir", state("b")).start()];
    let mut writer = rig.writer().start();
    growth.wait();
    rig.wait_delivered();
    for reader in &mut readers {
        reader.stop();
    }
    writer.stop();
    rig.assert_identical();
    e2e::check::numbered(&rig.output_bytes(), lines).unwrap();
}

#[test]
fn two_readers_with_one_state_folder_duplicate_nothing() {
    let seed = e2e::seed();
    let rig = Rig::new();
    let mut growth = Growth::of(&rig.input, text::numbered(0..20_000, seed), Duration::from_secs(3), seed);
    let mut readers = [rig.reader().start(), rig.reader().set("--framing", "chunk").start()];
    let mut writer = rig.writer().start();
    growth.wait();
    rig.wait_delivered();
    for reader in &mut readers {
        reader.stop();
    }
    writer.stop();
    rig.assert_identical();
}

#[test]
fn from_end_skips_the_existing_content() {
    let rig = Rig::new();
    rig.write_input("old\n");
    let mut reader = rig.reader().set("--from", "end").start();
    let _writer = rig.writer().start();
    e2e::wait::until("ready", || reader.readyz().0 == 200);
    rig.append_input("new\n");
    rig.wait_output_len(4);
    assert_eq!(rig.output_bytes(), b"new\n");
    // A restart continues, whatever --from says.
    reader.stop();
    rig.append_input("while it was down\n");
    let _reader = rig.reader().set("--from", "end").start();
    rig.wait_output_len(4 + 18);
    assert_eq!(rig.output_bytes(), b"new\nwhile it was down\n");
}

#[test]
fn ten_gigabytes_are_resumed_without_reading_them_again() {
    const LARGE: u64 = 10_000_000_000;
    let rig = Rig::new();
    // A hole in place of the bytes of a long line, and a short one.
    rig.write_input("");
    std::fs::File::options().write(true).open(&rig.input).unwrap().set_len(LARGE - 7).unwrap();
    rig.append_input("\nshort\n");
    let mut reader = rig.reader().set("--from", "end").start();
    let _writer = rig.writer().start();
    e2e::wait::until("ready", || reader.readyz().0 == 200);
    rig.append_input("new\n");
    rig.wait_output_len(4);
    reader.stop();
    rig.append_input("while it was down\n");
    let reader = rig.reader().start();
    rig.wait_output_len(4 + 18);
    assert_eq!(rig.output_bytes(), b"new\nwhile it was down\n");
    // The fingerprint of any content has a few blocks for each octave of its length.
    let read = reader.process().bytes_read().unwrap();
    assert!((22..4 << 20).contains(&read), "{read} bytes were read");
}

#[test]
fn a_read_only_input_folder_works_with_a_state_folder() {
    let rig = Rig::new();
    rig.write_input("one\n");
    let state = rig.folder.join("state");
    std::fs::create_dir(&state).unwrap();
    rig.reader().set("--state-dir", &state).once().run_ok();
    let names = |folder: &std::path::Path| -> Vec<_> {
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect()
    };
    assert_eq!(names(rig.input.parent().unwrap()), ["input.txt"], "nothing is written beside the input");
    assert_eq!(names(&state), [".input.txt.line_stream.source.json"]);
    rig.writer().once().run_ok();
    rig.assert_identical();
}

#[test]
fn a_moved_file_is_continued() {
    let mut rig = Rig::new();
    rig.write_input(text::numbered(0..1000, 1));
    rig.reader().once().run_ok();
    assert_eq!(rig.stream_len(), 1000);
    // A copy as from a backup: another inode, another folder, the same bytes.
    let moved = rig.folder.join("restored.txt");
    std::fs::copy(&rig.input, &moved).unwrap();
    std::fs::remove_file(&rig.input).unwrap();
    rig.input = moved;
    rig.append_input("one more\n");
    rig.reader().once().run_ok();
    assert_eq!(rig.stream_len(), 1001);
    rig.writer().once().run_ok();
    rig.assert_identical();
}

#[test]
fn a_restored_file_of_the_same_name_is_continued() {
    let rig = Rig::new();
    rig.write_input(text::numbered(0..5000, 1));
    rig.reader().once().run_ok();
    let copy = rig.folder.join("copy");
    std::fs::copy(&rig.input, &copy).unwrap();
    std::fs::remove_dir_all(rig.input.parent().unwrap()).unwrap();
    std::fs::create_dir(rig.input.parent().unwrap()).unwrap();
    std::fs::copy(&copy, &rig.input).unwrap();
    rig.append_input(text::numbered(5000..6000, 1));
    rig.reader().once().run_ok();
    assert_eq!(rig.stream_len(), 6000);
    rig.writer().once().run_ok();
    rig.assert_identical();
}
