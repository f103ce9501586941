//! Rotation of a source with several partitions: all partitions process the contents in the same
//! order and under the same file IDs.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use e2e::partitions::{self, BASE_RECORD, THREE, record};
use e2e::{Launch, Rig, Service, rig, text, wait};

/// The contents so far, and a writer per partition.
struct Log {
    rig: Rig,
    /// Each content in its own file, the present one last.
    contents: Vec<PathBuf>,
    next: u64,
    writers: Vec<Service>,
}

impl Log {
    fn new() -> Self {
        let rig = Rig::new();
        fs::create_dir(rig.folder.join("contents")).unwrap();
        let writers = partitions::writers(&rig.writer(), &rig.folder, THREE).iter().map(Launch::start).collect();
        let mut log = Self { rig, contents: Vec::new(), next: 0, writers };
        log.begin();
        log
    }

    fn reader(&self) -> Service {
        self.rig.reader().set("--partitions", "3").start()
    }

    /// Starts a new content.
    fn begin(&mut self) {
        self.contents.push(self.rig.folder.join(&format!("contents/{}", self.contents.len())));
    }

    /// Appends lines to the input; creates it if necessary.
    fn write(&mut self, lines: u64) {
        let bytes = text::numbered(self.next..self.next + lines, 9);
        self.next += lines;
        self.append(&bytes);
    }

    fn append(&self, bytes: &[u8]) {
        self.rig.append_input(bytes);
        rig::append(self.contents.last().unwrap(), bytes);
    }

    /// Renames the input.
    fn rename(&mut self) {
        let written = std::time::Instant::now();
        let name = format!("{}.{:03}", self.rig.input.display(), self.contents.len());
        fs::rename(&self.rig.input, name).unwrap();
        self.begin();
        // The modification time orders contents that the reader has not seen.
        wait::until("the file system's clock has ticked", || written.elapsed().as_millis() > 20);
    }

    /// Copies the input and truncates it.
    fn copy_and_truncate(&mut self) {
        fs::copy(&self.rig.input, format!("{}.{:03}", self.rig.input.display(), self.contents.len())).unwrap();
        fs::File::options().write(true).open(&self.rig.input).unwrap().set_len(0).unwrap();
        self.begin();
    }

    fn outputs(&self) -> Vec<PathBuf> {
        partitions::names(THREE).iter().map(|name| partitions::output(&self.rig.folder, name)).collect()
    }

    #[track_caller]
    fn wait_delivered(&self) {
        partitions::wait_total(&self.outputs(), self.contents.iter().map(|content| rig::len(content)).sum());
    }

    /// The file IDs in a source record.
    fn names(&self, record: &str) -> BTreeSet<u64> {
        let fields = self.rig.redis.call(&["HGETALL", record]);
        let named = fields.list().chunks_exact(2).filter(|pair| pair[0].text().starts_with("next:"));
        let root = |json: &[u8]| serde_json::from_slice::<serde_json::Value>(json).unwrap()["root"].as_u64().unwrap();
        named.map(|pair| root(pair[1].bytes())).collect()
    }

    #[track_caller]
    fn finish(mut self, reader: &mut Service) {
        self.wait_delivered();
        // Partitions without lines of the last content reach it, too.
        let names = self.names(BASE_RECORD);
        wait::until("all partitions have begun the last content", || {
            (0..THREE).all(|index| self.names(&record(index)).last() == names.last())
        });
        reader.stop();
        for writer in &mut self.writers {
            assert_eq!(writer.metric("writer_gap_bytes_total"), 0.0, "{}", writer.log());
            writer.stop();
        }
        let contents: Vec<Vec<u8>> = self.contents.iter().map(|content| fs::read(content).unwrap()).collect();
        for (index, output) in (0..).zip(self.outputs()) {
            let lines = contents.iter().flat_map(|content| partitions::lines_of(content, index, THREE));
            let wanted: Vec<u8> = lines.collect();
            assert!(
                fs::read(output).unwrap() == wanted,
                "partition {index}: other than its lines of the contents in order"
            );
        }
        let paths: Vec<&Path> = self.contents.iter().map(PathBuf::as_path).collect();
        partitions::assert_proven(&self.rig.folder, &paths, &self.outputs());
        assert_eq!(names.len(), self.contents.len(), "a name for each content");
        for index in 0..THREE {
            let has = self.names(&record(index));
            assert!(has.is_subset(&names), "partition {index} has the names that all have");
            // A partition does not begin a content without lines that came and went while the
            // reader was down.
            for (name, content) in names.iter().zip(&contents) {
                let is_needed = !partitions::lines_of(content, index, THREE).is_empty();
                assert!(!is_needed || has.contains(name), "partition {index} has begun {name}");
            }
        }
    }
}

#[test]
fn renamed_and_created_again() {
    let mut log = Log::new();
    log.write(3000);
    let mut reader = log.reader();
    // A content that the reader never saw at the input's path is not part of the input.
    log.wait_delivered();
    for lines in [3000, 100, 5000] {
        log.write(lines);
        // Without waiting: the rest of the old content must be delivered first.
        log.rename();
        log.write(lines);
        log.wait_delivered();
    }
    log.finish(&mut reader);
}

#[test]
fn renamed_twice_in_a_row() {
    let mut log = Log::new();
    log.write(3000);
    let mut reader = log.reader();
    log.wait_delivered();
    for lines in [100, 3000, 1000] {
        log.rename();
        log.write(lines);
        log.rename();
        log.write(3000);
        log.wait_delivered();
    }
    log.finish(&mut reader);
}

#[test]
fn renamed_several_times_while_the_reader_is_down() {
    let mut log = Log::new();
    log.write(3000);
    let mut reader = log.reader();
    log.wait_delivered();
    for times in 1..4 {
        reader.kill9();
        for _ in 0..times {
            log.write(1500);
            log.rename();
        }
        log.write(100);
        reader = log.reader();
        log.wait_delivered();
    }
    log.finish(&mut reader);
}

#[test]
fn copied_and_truncated() {
    let mut log = Log::new();
    log.write(3000);
    let mut reader = log.reader();
    for lines in [3000, 100, 5000, 10] {
        // `copytruncate` inherently loses unread bytes, so wait until they are read.
        log.wait_delivered();
        log.copy_and_truncate();
        log.write(lines);
    }
    log.finish(&mut reader);
}

#[test]
fn copied_and_truncated_while_the_reader_is_down() {
    let mut log = Log::new();
    log.write(3000);
    let mut reader = log.reader();
    log.wait_delivered();
    for lines in [3000, 100, 5000] {
        reader.stop();
        log.write(lines);
        log.copy_and_truncate();
        log.write(lines);
        reader = log.reader();
        log.wait_delivered();
    }
    log.finish(&mut reader);
}

#[test]
fn all_partitions_distinguish_contents_with_equal_beginnings() {
    for is_down in [true, false] {
        let mut log = Log::new();
        let header = b"id,name,value\n";
        log.append(header);
        let mut reader = log.reader();
        // At its beginning, nothing more is known about it; and most partitions have nothing to
        // send of it.
        log.wait_delivered();
        log.write(100);
        log.wait_delivered();
        if is_down {
            reader.kill9();
        }
        for lines in [3000, 10] {
            log.rename();
            log.append(header);
            log.write(lines);
        }
        if is_down {
            reader = log.reader();
        }
        log.wait_delivered();
        log.finish(&mut reader);
    }
}

#[test]
fn rotations_with_losses_and_kills_between_them() {
    let seed = e2e::seed();
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut log = Log::new();
    log.write(1000);
    let mut reader = log.reader();
    log.wait_delivered();
    for _ in 0..4 {
        log.write(rng.u64(1..4000));
        let is_down = rng.bool();
        let is_renamed = rng.bool();
        // A rename loses nothing, even if nothing was read.
        if !is_renamed {
            log.wait_delivered();
        }
        if is_down {
            reader.kill9();
        }
        match rng.u32(0..4) {
            0 => log.rig.redis.flushall(),
            1 => drop(log.rig.redis.call(&["DEL", &record(rng.u32(0..THREE))])),
            2 => drop(log.rig.redis.call(&["DEL", BASE_RECORD])),
            _ => {}
        }
        if is_renamed {
            log.rename();
        } else {
            log.copy_and_truncate();
        }
        log.write(rng.u64(1..4000));
        if is_down {
            reader = log.reader();
        }
        log.wait_delivered();
    }
    log.finish(&mut reader);
}

#[test]
fn a_rotation_with_foreign_entries_on_one_partition() {
    let mut log = Log::new();
    log.write(3000);
    let mut reader = log.reader();
    log.wait_delivered();
    // Foreign IDs in the future: the generations of this partition must have larger numbers.
    let now = log.rig.redis.call(&["TIME"]).list()[0].int();
    for (nth, lines) in [(1, 3000), (2, 100), (3, 3000)] {
        let id = format!("{}-0", (now + nth * 1_000_000) * 1000);
        log.rig.redis.call(&["XADD", &partitions::stream(1), &id, "foreign", "entry"]);
        log.rename();
        log.write(lines);
        log.wait_delivered();
    }
    log.finish(&mut reader);
}

/// Replaces the input by a new file, as editors and `sed -i` do.
fn replace(rig: &Rig, bytes: &[u8]) {
    let temporary = rig.folder.join(".temporary");
    fs::write(&temporary, bytes).unwrap();
    fs::rename(&temporary, &rig.input).unwrap();
}

/// Runs a reader to the end of the input. Nothing may be reported as lost.
#[track_caller]
fn run_once(rig: &Rig) {
    let mut reader = rig.reader().set("--partitions", "3").once().run();
    assert_eq!(reader.code(), Some(0), "{}", reader.log());
    assert!(!reader.log().contains("ERROR"), "{}", reader.log());
}

#[test]
fn a_file_that_was_edited_while_the_reader_was_down_is_not_sent_again() {
    type Edit = fn(&[u8]) -> Vec<u8>;
    let edits: [Edit; 3] = [
        |old| old[old.iter().position(|&byte| byte == b'\n').unwrap() + 1..].to_vec(),
        |old| [b"a header\n", old].concat(),
        |old| [b"X", old].concat(),
    ];
    // Within the first block, and over several.
    for (lines, edit) in [(200, edits[0]), (200, edits[1]), (20_000, edits[2])] {
        let rig = Rig::new();
        let old = text::numbered(0..lines, 7);
        rig.write_input(&old);
        run_once(&rig);
        replace(&rig, &edit(&old));
        run_once(&rig);
        let more = text::numbered(lines..lines + 100, 7);
        rig.append_input(&more);
        run_once(&rig);
        let entries = (0..THREE).flat_map(|index| partitions::entries(&rig.redis, index));
        let sent: Vec<Vec<u8>> = entries.map(|entry| entry.bytes).collect();
        let sent = sent.iter().flat_map(|bytes| partitions::lines(bytes).map(|(_, line)| line));
        let mut sent: Vec<&[u8]> = sent.collect();
        sent.sort_unstable();
        let all = [old, more].concat();
        let mut expected: Vec<&[u8]> = partitions::lines(&all).map(|(_, line)| line).collect();
        expected.sort_unstable();
        assert!(sent == expected, "{} lines were sent instead of {}", sent.len(), expected.len());
    }
}

#[test]
fn once_ends_when_the_input_has_less_than_was_sent() {
    for partitions in ["1", "3"] {
        let rig = Rig::new();
        let old = text::numbered(0..200, 7);
        rig.write_input(&old);
        let reader = rig.reader().set("--partitions", partitions).once();
        reader.run_ok();
        replace(&rig, &old[..old.len() - 20]);
        reader.run_ok();
    }
}
