//! The input is rotated, truncated or replaced; all contents are delivered in order.

use std::fs;
use std::path::PathBuf;

use e2e::{Rig, Service, rig, text, wait};

/// The contents so far, and services that can be stopped for a while.
struct Log {
    rig: Rig,
    /// The expected output.
    all: Vec<u8>,
    next: u64,
}

impl Log {
    fn new() -> Self {
        Self { rig: Rig::new(), all: Vec::new(), next: 0 }
    }

    /// Appends lines to the input; creates it if necessary.
    fn write(&mut self, lines: u64) {
        let bytes = text::numbered(self.next..self.next + lines, 9);
        self.next += lines;
        self.rig.append_input(&bytes);
        self.all.extend_from_slice(&bytes);
    }

    fn rotated(&self, suffix: &str) -> PathBuf {
        PathBuf::from(format!("{}{suffix}", self.rig.input.display()))
    }

    #[track_caller]
    fn wait_delivered(&self) {
        self.rig.wait_output_len(self.all.len() as u64);
    }

    #[track_caller]
    fn check(&self) {
        let expected = self.rig.folder.join("expected");
        fs::write(&expected, &self.all).unwrap();
        e2e::assert_identical(&expected, &self.rig.output);
    }

    #[track_caller]
    fn finish(self, reader: &mut Service, writer: &mut Service) {
        self.wait_delivered();
        reader.stop();
        writer.stop();
        self.check();
        assert_eq!(self.rig.pending(), 0);
    }
}

#[test]
fn renamed_and_created_again() {
    let mut log = Log::new();
    log.write(1000);
    let (mut reader, mut writer) = (log.rig.reader().start(), log.rig.writer().start());
    // A content that the reader never saw at the input's path is not part of the input.
    log.wait_delivered();
    for n in 1..=5 {
        log.write(1000);
        // Without waiting: the rest of the old content must be delivered first.
        fs::rename(&log.rig.input, log.rotated(&format!(".{n}"))).unwrap();
        log.write(1000);
        // Wait until the reader has seen this rotation; another test covers several unseen ones.
        log.wait_delivered();
    }
    log.finish(&mut reader, &mut writer);
}

#[test]
fn renamed_and_written_to_for_a_while_longer() {
    let mut log = Log::new();
    log.write(1000);
    let (mut reader, mut writer) = (log.rig.reader().start(), log.rig.writer().start());
    log.wait_delivered();
    let old = log.rotated(".1");
    fs::rename(&log.rig.input, &old).unwrap();
    // The application still has the old file open, and there is no new one yet.
    let late = text::numbered(log.next..log.next + 500, 9);
    log.next += 500;
    rig::append(&old, &late);
    log.all.extend_from_slice(&late);
    log.wait_delivered();
    log.write(1000);
    log.finish(&mut reader, &mut writer);
}

#[test]
fn renamed_while_the_reader_is_down() {
    let mut log = Log::new();
    log.write(1000);
    let mut writer = log.rig.writer().start();
    let mut reader = log.rig.reader().start();
    log.wait_delivered();
    reader.stop();
    log.write(1000);
    fs::rename(&log.rig.input, log.rotated(".1")).unwrap();
    log.write(1000);
    let mut reader = log.rig.reader().start();
    log.finish(&mut reader, &mut writer);
}

#[test]
fn renamed_several_times_while_the_reader_is_down() {
    let mut log = Log::new();
    log.write(1000);
    let mut writer = log.rig.writer().start();
    let mut reader = log.rig.reader().start();
    log.wait_delivered();
    reader.kill9();
    log.write(500);
    // As logrotate does: .2 ← .1 ← the input.
    fs::rename(&log.rig.input, log.rotated(".1")).unwrap();
    log.write(1000);
    fs::rename(log.rotated(".1"), log.rotated(".2")).unwrap();
    fs::rename(&log.rig.input, log.rotated(".1")).unwrap();
    log.write(1000);
    let mut reader = log.rig.reader().start();
    log.finish(&mut reader, &mut writer);
}

#[test]
fn renamed_with_a_last_line_without_newline() {
    let mut log = Log::new();
    log.write(10);
    log.rig.append_input("the end of the old file");
    log.all.extend_from_slice(b"the end of the old file");
    let (mut reader, mut writer) = (log.rig.reader().start(), log.rig.writer().start());
    wait::until("the reader has begun", || log.rig.output_bytes().len() > 100);
    fs::rename(&log.rig.input, log.rotated(".1")).unwrap();
    log.write(10);
    log.finish(&mut reader, &mut writer);
}

#[test]
fn copied_and_truncated() {
    let mut log = Log::new();
    log.write(1000);
    let (mut reader, mut writer) = (log.rig.reader().start(), log.rig.writer().start());
    for n in 1..=5 {
        log.write(500 * n);
        // `copytruncate` inherently loses unread bytes, so wait until they are read.
        log.wait_delivered();
        fs::copy(&log.rig.input, log.rotated(&format!(".{n}"))).unwrap();
        fs::File::options().write(true).open(&log.rig.input).unwrap().set_len(0).unwrap();
        log.write(300);
    }
    log.finish(&mut reader, &mut writer);
}

#[test]
fn truncated_and_written_larger_between_two_scans() {
    let mut log = Log::new();
    log.write(1000);
    let (mut reader, mut writer) = (log.rig.reader().start(), log.rig.writer().start());
    log.wait_delivered();
    for frozen in [true, false] {
        // The length does not reveal it: the same inode, larger than before.
        if frozen {
            reader.freeze();
        } else {
            reader.stop();
        }
        fs::write(&log.rig.input, b"").unwrap();
        log.write(8000);
        if frozen {
            reader.thaw();
        } else {
            reader = log.rig.reader().start();
        }
        log.wait_delivered();
    }
    log.finish(&mut reader, &mut writer);
}

#[test]
fn rewritten_with_the_same_first_line() {
    let mut log = Log::new();
    let header = b"id,name,value\n";
    let (mut reader, mut writer) = (log.rig.reader().start(), log.rig.writer().start());
    for n in 0..4 {
        fs::write(&log.rig.input, header).unwrap();
        log.all.extend_from_slice(header);
        log.wait_delivered();
        log.write(100 + 400 * n);
        log.wait_delivered();
    }
    log.finish(&mut reader, &mut writer);
}

#[test]
fn rewritten_with_the_same_first_64_kib() {
    let mut log = Log::new();
    let head = text::numbered(0..2000, 77);
    assert!(head.len() > 64 << 10);
    let mut reader = log.rig.reader().start();
    let mut writer = log.rig.writer().start();
    for n in 0..3 {
        fs::write(&log.rig.input, &head).unwrap();
        log.all.extend_from_slice(&head);
        log.write(100 + 400 * n);
        if n > 0 {
            reader = log.rig.reader().start();
        }
        log.wait_delivered();
        reader.stop();
    }
    let mut reader = log.rig.reader().start();
    log.finish(&mut reader, &mut writer);
}

#[test]
fn deleted_and_created_again() {
    let mut log = Log::new();
    let (mut reader, mut writer) = (log.rig.reader().start(), log.rig.writer().start());
    for _ in 0..5 {
        log.write(1000);
        log.wait_delivered();
        // The inode is free now, and most file systems give it to the next file.
        fs::remove_file(&log.rig.input).unwrap();
        log.write(700);
        log.wait_delivered();
    }
    log.finish(&mut reader, &mut writer);
}

#[test]
fn deleted_and_created_again_while_the_reader_is_down() {
    let mut log = Log::new();
    let mut writer = log.rig.writer().start();
    for n in 0..4 {
        log.write(100 + 900 * (n % 2));
        let mut reader = log.rig.reader().start();
        log.wait_delivered();
        reader.stop();
        fs::remove_file(&log.rig.input).unwrap();
    }
    log.write(10);
    let mut reader = log.rig.reader().start();
    log.finish(&mut reader, &mut writer);
}

#[test]
fn deleted_while_it_is_still_being_read() {
    // The reader has the file open, so every byte is still readable.
    let mut log = Log::new();
    let mut reader = log.rig.reader().set("--max-backlog", "1000").start();
    log.write(20_000);
    wait::until("the reader waits", || log.rig.stream_len() >= 1000);
    fs::remove_file(&log.rig.input).unwrap();
    let mut writer = log.rig.writer().start();
    log.wait_delivered();
    wait::until("the reader says that the file is gone", || reader.readyz().1.contains("does not exist"));
    log.write(1000);
    wait::until("the reader is ready again", || reader.readyz().0 == 200);
    log.finish(&mut reader, &mut writer);
}

#[test]
fn deleted_bytes_are_reported() {
    let mut log = Log::new();
    log.write(1000);
    let mut writer = log.rig.writer().start();
    let mut reader = log.rig.reader().start();
    log.wait_delivered();
    reader.stop();
    // Written and deleted while no reader was running: only the record in Redis knows the earlier
    // content.
    let known = log.all.len();
    log.write(1000);
    log.all.truncate(known);
    fs::remove_file(&log.rig.input).unwrap();
    log.write(1000);
    let mut reader = log.rig.reader().start();
    reader.wait_for_metric("reader_unreadable_contents_total", |count| count == 1.0);
    log.finish(&mut reader, &mut writer);
}

#[test]
fn unread_bytes_that_were_truncated_away_are_reported() {
    let mut log = Log::new();
    let mut reader = log.rig.reader().set("--max-backlog", "1000").start();
    log.write(20_000);
    wait::until("the reader waits", || log.rig.stream_len() >= 1000);
    fs::write(&log.rig.input, b"").unwrap();
    log.write(100);
    let mut writer = log.rig.writer().start();
    // The test does not know what was read before. The new content is complete, and the loss is
    // reported.
    let last = text::numbered(20_099..20_100, 9);
    wait::until("the new content is there", || log.rig.output_bytes().ends_with(&last));
    let gone = reader.metric("reader_unreadable_bytes_total");
    let output = log.rig.output_bytes();
    assert!(gone > 0.0, "an unreported loss: the output holds {} of {} bytes", output.len(), log.all.len());
    assert_eq!(gone as usize, log.all.len() - output.len());
    reader.wait_for_log(&["bytes", "cannot be read"]);
    reader.stop();
    writer.stop();
}

#[test]
fn a_retargeted_symlink_is_a_rotation() {
    let mut log = Log::new();
    let target = |n: u32| log.rig.folder.join(&format!("in/data-{n}"));
    let targets: Vec<_> = (0..3).map(target).collect();
    let link = log.rig.input.clone();
    let point = |to: &PathBuf, log: &mut Log| {
        fs::write(to, b"").unwrap();
        let new = log.rig.folder.join("in/new");
        std::os::unix::fs::symlink(to, &new).unwrap();
        fs::rename(&new, &link).unwrap();
        log.write(1000);
    };
    point(&targets[0], &mut log);
    let (mut reader, mut writer) = (log.rig.reader().start(), log.rig.writer().start());
    log.wait_delivered();
    for to in &targets[1..] {
        log.write(500);
        point(to, &mut log);
        log.wait_delivered();
    }
    log.finish(&mut reader, &mut writer);
}

#[test]
fn twelve_rotations_of_four_kinds() {
    let seed = e2e::seed();
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut log = Log::new();
    log.write(1000);
    let mut writer = log.rig.writer().start();
    let mut reader = log.rig.reader().start();
    log.wait_delivered();
    let mut kinds = [0, 1, 2, 3].repeat(3);
    rng.shuffle(&mut kinds);
    for (n, kind) in kinds.into_iter().enumerate() {
        log.write(rng.u64(1..3000));
        let down = rng.bool();
        // A rename loses nothing, even if nothing was read; the other kinds remove unread bytes.
        if kind != 0 {
            log.wait_delivered();
        }
        if down {
            reader.stop();
        }
        match kind {
            0 => fs::rename(&log.rig.input, log.rotated(&format!(".{n}"))).unwrap(),
            1 => {
                fs::copy(&log.rig.input, log.rotated(&format!(".{n}"))).unwrap();
                fs::write(&log.rig.input, b"").unwrap();
            }
            2 => fs::remove_file(&log.rig.input).unwrap(),
            _ => fs::write(&log.rig.input, b"").unwrap(),
        }
        log.write(rng.u64(1..3000));
        if down {
            reader = log.rig.reader().start();
        }
        log.wait_delivered();
    }
    log.finish(&mut reader, &mut writer);
}

#[test]
fn an_emptied_redis_gets_the_rotated_contents_again() {
    let mut log = Log::new();
    log.write(1000);
    let (mut reader, mut writer) = (log.rig.reader().start(), log.rig.writer().start());
    log.wait_delivered();
    writer.kill9();
    log.write(1000);
    fs::rename(&log.rig.input, log.rotated(".1")).unwrap();
    log.write(1000);
    let lines = log.next as f64;
    wait::until("the stream is filled", || reader.metric("lines_read_total") == lines);
    log.rig.redis.flushall();
    let mut writer = log.rig.writer().start();
    log.finish(&mut reader, &mut writer);
}

#[test]
fn contents_that_came_and_went_while_the_reader_was_down() {
    let mut log = Log::new();
    log.write(1000);
    let mut writer = log.rig.writer().start();
    let mut reader = log.rig.reader().start();
    log.wait_delivered();
    reader.kill9();
    // Five contents that no reader saw at the input's path; their modification times order them.
    for n in 1..=6 {
        log.write(100 * n);
        let written = std::time::Instant::now();
        fs::rename(&log.rig.input, log.rotated(&format!(".2026-11-{n:02}"))).unwrap();
        wait::until("the file system's clock has ticked", || written.elapsed().as_millis() > 20);
    }
    log.write(50);
    let mut reader = log.rig.reader().start();
    log.finish(&mut reader, &mut writer);
}

#[test]
fn unread_bytes_are_read_from_the_copy_of_a_truncated_input() {
    let mut log = Log::new();
    log.write(1000);
    let (mut reader, mut writer) = (log.rig.reader().start(), log.rig.writer().start());
    log.wait_delivered();
    reader.freeze();
    log.write(500);
    fs::copy(&log.rig.input, log.rotated(".1")).unwrap();
    fs::File::options().write(true).open(&log.rig.input).unwrap().set_len(0).unwrap();
    reader.thaw();
    log.write(300);
    log.finish(&mut reader, &mut writer);
}

#[test]
fn rewritten_while_a_long_line_is_unfinished() {
    let mut log = Log::new();
    log.write(10);
    let (mut reader, mut writer) = (log.rig.reader().start(), log.rig.writer().start());
    log.wait_delivered();
    let begun = vec![b'a'; 5000];
    log.rig.append_input(&begun);
    wait::until("the reader has seen the unfinished line", || {
        reader.metrics().get("reader_input_size_bytes") == Some(log.all.len() as f64 + 5000.0)
    });
    // The first bytes are equal, more than are compared at the position; different ones follow.
    let mut rewritten = log.all.clone();
    rewritten.extend_from_slice(&[b'a'; 4000]);
    rewritten.extend_from_slice(&[b'b'; 4000]);
    rewritten.push(b'\n');
    let temporary = log.rig.folder.join("rewritten");
    fs::write(&temporary, &rewritten).unwrap();
    reader.freeze();
    fs::write(&log.rig.input, &rewritten).unwrap();
    reader.thaw();
    log.all.extend_from_slice(&begun);
    log.all.extend_from_slice(&rewritten);
    log.finish(&mut reader, &mut writer);
}

#[test]
fn from_end_counts_from_the_first_scan() {
    let mut log = Log::new();
    log.rig.append_input(b"old line\n");
    let mut writer = log.rig.writer().start();
    let mut reader = log.rig.reader().set("--from", "end").start();
    wait::until("the reader has begun", || reader.log().contains("begins at byte 9"));
    reader.kill9();
    log.rig.append_input(b"new\n");
    log.all = b"new\n".to_vec();
    let mut reader = log.rig.reader().set("--from", "end").start();
    log.finish(&mut reader, &mut writer);
}

#[test]
fn the_old_file_is_followed_until_the_new_one_is_written_to() {
    let mut log = Log::new();
    log.write(100);
    let (mut reader, mut writer) = (log.rig.reader().start(), log.rig.writer().start());
    log.wait_delivered();
    let old = log.rotated(".1");
    fs::rename(&log.rig.input, &old).unwrap();
    fs::write(&log.rig.input, b"").unwrap();
    let renamed = std::time::Instant::now();
    wait::until("the old file was quiet for longer than the grace", || renamed.elapsed().as_millis() > 2500);
    let late = b"late line\n";
    std::io::Write::write_all(&mut fs::File::options().append(true).open(&old).unwrap(), late).unwrap();
    log.all.extend_from_slice(late);
    log.wait_delivered();
    log.write(100);
    log.finish(&mut reader, &mut writer);
}

#[test]
fn rotated_beside_the_target_of_a_symlink() {
    let mut log = Log::new();
    // As with the log of a container: the link keeps its name, and its target is rotated.
    let pods = log.rig.folder.join("pods");
    fs::create_dir(&pods).unwrap();
    let target = pods.join("0.log");
    std::os::unix::fs::symlink(&target, &log.rig.input).unwrap();
    log.write(1000);
    let mut writer = log.rig.writer().start();
    let mut reader = log.rig.reader().start();
    log.wait_delivered();
    reader.kill9();
    for n in 1..=3 {
        log.write(100);
        let written = std::time::Instant::now();
        fs::rename(&target, pods.join(format!("0.log.20261124-{n}"))).unwrap();
        wait::until("the file system's clock has ticked", || written.elapsed().as_millis() > 20);
    }
    log.write(50);
    let mut reader = log.rig.reader().start();
    log.finish(&mut reader, &mut writer);
}

#[test]
fn many_rotations_do_not_pile_up() {
    let mut log = Log::new();
    let (mut reader, mut writer) = (log.rig.reader().start(), log.rig.writer().start());
    let rotate = |log: &mut Log| {
        log.write(3);
        log.wait_delivered();
        // Truncate in place: the bytes are gone at once.
        fs::File::options().write(true).open(&log.rig.input).unwrap().set_len(0).unwrap();
    };
    (0..80).for_each(|_| rotate(&mut log));
    // The reader checks the stream every two seconds, and drops generations without entries.
    wait::until("a generation and a fingerprint for each of 64 contents are left", || {
        rotate(&mut log);
        log.rig.redis.cli("HLEN {line_stream}:source").int() <= 2 * 64 + 6
    });
    log.finish(&mut reader, &mut writer);
}

#[test]
fn a_folder_at_the_inputs_path_is_one_state_until_a_file_is_there() {
    let mut log = Log::new();
    log.write(100);
    let (mut reader, mut writer) = (log.rig.reader().start(), log.rig.writer().start());
    log.wait_delivered();
    let old = log.rotated(".1");
    fs::rename(&log.rig.input, &old).unwrap();
    fs::create_dir(&log.rig.input).unwrap();
    reader.wait_for_log(&["file: ", "not a regular file"]);
    let told = std::time::Instant::now();
    wait::until("several looks at the folder", || {
        let (code, reason) = reader.readyz();
        assert!(code == 503 && reason.contains("not a regular file"), "{code} {reason}");
        assert!(reason.contains("use a regular file"), "nothing to do about it: {reason}");
        told.elapsed().as_secs() >= 4
    });
    assert_eq!(reader.log().matches("not a regular file").count(), 1, "{}", reader.log());
    // Meanwhile the old file is followed, because it may still grow.
    let late = b"late line\n";
    std::io::Write::write_all(&mut fs::File::options().append(true).open(&old).unwrap(), late).unwrap();
    log.all.extend_from_slice(late);
    log.wait_delivered();
    fs::remove_dir(&log.rig.input).unwrap();
    log.write(100);
    log.finish(&mut reader, &mut writer);
}

#[test]
fn inputs_that_are_rotated_before_redis_first_answers_are_sent() {
    for copies in [false, true] {
        let mut log = Log::new();
        log.rig.redis.stop();
        let mut reader = log.rig.reader().start();
        for (nth, lines) in [(2, 100), (1, 110)] {
            log.write(lines);
            let seen = rig::len(&log.rig.input) as f64;
            reader.wait_for_metric("reader_input_size_bytes", |size| size == seen);
            let rotated = log.rotated(&format!(".{nth}"));
            if copies {
                fs::copy(&log.rig.input, &rotated).unwrap();
                fs::File::options().write(true).open(&log.rig.input).unwrap().set_len(0).unwrap();
            } else {
                fs::rename(&log.rig.input, &rotated).unwrap();
            }
        }
        log.write(50);
        log.rig.redis.start_again();
        let mut writer = log.rig.writer().start();
        log.finish(&mut reader, &mut writer);
    }
}
