//! Recognition of contents: copies, replaced and edited files, unrelated files, links. Every byte
//! of the input is delivered exactly once, and no other byte is.

use std::fs;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use e2e::{Launch, Rig, Service, partitions, rig, text, wait};

/// The framing and the number of partitions.
#[derive(Debug, Clone, Copy)]
struct Shape {
    framing: &'static str,
    partitions: u32,
}

const LINE: Shape = Shape { framing: "line", partitions: 1 };
const CHUNK: Shape = Shape { framing: "chunk", partitions: 1 };
const PARTITIONED: Shape = Shape { framing: "line", partitions: 2 };
const PARTITIONED_CHUNKS: Shape = Shape { framing: "chunk", partitions: 2 };
const ALL: [Shape; 4] = [LINE, CHUNK, PARTITIONED, PARTITIONED_CHUNKS];

/// An input, and the expected output.
struct Log {
    rig: Rig,
    shape: Shape,
    input: PathBuf,
    expected: Vec<u8>,
    next: u64,
    reader: Option<Service>,
    writers: Vec<Service>,
    outputs: Vec<PathBuf>,
}

impl Log {
    /// An input of which this many lines are delivered.
    fn begun(shape: Shape, lines: u64) -> Self {
        Self::begun_at(shape, "input.txt", lines)
    }

    fn begun_at(shape: Shape, name: &str, lines: u64) -> Self {
        let mut log = Self::new(shape, name);
        log.append(lines);
        log.start();
        log.wait();
        log
    }

    fn new(shape: Shape, name: &str) -> Self {
        let mut rig = Rig::new();
        rig.input = rig.folder.join("in").join(name);
        let input = rig.input.clone();
        let mut log = Self {
            rig,
            shape,
            input,
            expected: Vec::new(),
            next: 0,
            reader: None,
            writers: Vec::new(),
            outputs: Vec::new(),
        };
        let writer = log.rig.writer();
        let writers = match shape.partitions {
            1 => vec![writer],
            count => partitions::writers(&writer, &log.rig.folder, count),
        };
        log.outputs = match shape.partitions {
            1 => vec![log.rig.output.clone()],
            count => partitions::names(count).iter().map(|name| partitions::output(&log.rig.folder, name)).collect(),
        };
        log.writers = writers.iter().map(Launch::start).collect();
        log
    }

    fn launch(&self) -> Launch {
        let launch = self.rig.reader().set("--framing", self.shape.framing);
        launch.set("--partitions", self.shape.partitions.to_string())
    }

    fn start(&mut self) {
        self.reader = Some(self.launch().start());
    }

    fn stop(&mut self) {
        self.reader().stop();
    }

    fn reader(&mut self) -> &mut Service {
        self.reader.as_mut().unwrap()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.rig.folder.join("in").join(name)
    }

    /// The next lines, which are also added to the expected output.
    fn lines(&mut self, count: u64) -> Vec<u8> {
        let lines = text::numbered(self.next..self.next + count, 13);
        self.next += count;
        self.expected.extend_from_slice(&lines);
        lines
    }

    /// Appends the next lines to the input; creates it if necessary.
    fn append(&mut self, count: u64) {
        let lines = self.lines(count);
        rig::append(&self.input, lines);
    }

    fn rotated(&self, suffix: &str) -> PathBuf {
        PathBuf::from(format!("{}{suffix}", self.input.display()))
    }

    fn rotate(&self, suffix: &str) {
        fs::rename(&self.input, self.rotated(suffix)).unwrap();
    }

    fn truncate(&self, to: u64) {
        fs::File::options().write(true).open(&self.input).unwrap().set_len(to).unwrap();
    }

    /// Replaces the input by a new file, as `rsync`, `sed -i` and editors do.
    fn replace(&self, bytes: &[u8]) {
        let temporary = self.path(".temporary");
        fs::write(&temporary, bytes).unwrap();
        fs::rename(&temporary, &self.input).unwrap();
    }

    #[track_caller]
    fn wait(&self) {
        partitions::wait_total(&self.outputs, self.expected.len() as u64);
    }

    fn output(&self) -> Vec<u8> {
        self.outputs.iter().flat_map(|output| fs::read(output).unwrap_or_default()).collect()
    }

    /// Waits until a further line and everything before it is delivered; then compares the output
    /// with the expected one.
    #[track_caller]
    fn finish(mut self, what: &str) {
        self.settle();
        self.check(what);
    }

    /// Waits until further lines of all partitions are delivered.
    #[track_caller]
    fn settle(&mut self) {
        let blocks = if self.shape.partitions > 1 { 2000 } else { 1 };
        self.append(blocks);
        let last = text::numbered(self.next - 1..self.next, 13);
        let first = text::numbered(self.next - blocks..self.next - blocks + 1, 13);
        wait::until("the last lines are delivered", || {
            let output = self.output();
            memchr::memmem::find(&output, &last).is_some() && memchr::memmem::find(&output, &first).is_some()
        });
        if self.shape.partitions > 1 {
            self.wait();
        }
        self.stop();
        for writer in &mut self.writers {
            writer.stop();
        }
    }

    #[track_caller]
    fn check(&mut self, what: &str) {
        let (mut output, mut expected) = (self.output(), self.expected.clone());
        if self.shape.partitions > 1 {
            // The order is defined only within each partition.
            (output, expected) = (sorted(&output), sorted(&expected));
        }
        if output != expected {
            let folder = self.rig.folder.join("expected");
            fs::write(&folder, &self.expected).unwrap();
            let at = output.iter().zip(&expected).take_while(|(a, b)| a == b).count();
            let around = |bytes: &[u8]| {
                String::from_utf8_lossy(&bytes[at.min(bytes.len())..bytes.len().min(at + 100)]).into_owned()
            };
            let reader = self.reader().log();
            panic!(
                "{what}, {:?}: {} bytes of {}; at {at}: {:?} instead of {:?}\n{}",
                self.shape,
                output.len(),
                expected.len(),
                around(&output),
                around(&expected),
                reader
            );
        }
    }
}

fn sorted(bytes: &[u8]) -> Vec<u8> {
    let mut lines: Vec<_> = bytes.split_inclusive(|&b| b == b'\n').collect();
    lines.sort_unstable();
    lines.concat()
}

fn run(program: &str, args: &[&dyn AsRef<std::ffi::OsStr>]) {
    let output = Command::new(program).args(args.iter().map(AsRef::as_ref)).output().unwrap();
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_copy_that_was_made_under_load_is_not_sent_again() {
    for shape in ALL {
        for down in [false, true] {
            let mut log = Log::begun(shape, 2000);
            fs::copy(&log.input, log.rotated(".1")).unwrap();
            log.append(50);
            log.wait();
            if down {
                log.stop();
            }
            log.truncate(0);
            log.append(100);
            if down {
                log.start();
            }
            log.finish(&format!("down: {down}"));
        }
    }
}

#[test]
fn unsent_bytes_are_read_from_the_copy_after_a_truncation() {
    for shape in ALL {
        let mut log = Log::begun(shape, 2000);
        log.stop();
        log.append(500);
        fs::copy(&log.input, log.rotated(".1")).unwrap();
        log.truncate(0);
        log.append(100);
        log.start();
        log.finish("copied with unsent lines");
    }
}

#[test]
fn logrotate_rotates_under_load() {
    if !text::can("logrotate", &["--version"]) {
        return;
    }
    for (n, options) in
        ["copytruncate", "create", "copytruncate compress", "create compress", "create dateext dateformat -%s"]
            .into_iter()
            .enumerate()
    {
        let mut log = Log::begun([LINE, CHUNK][n % 2], 1000);
        let configuration = log.path(".logrotate.conf");
        let text = format!("{} {{\n rotate 9\n {}\n}}\n", log.input.display(), options.replace(' ', "\n "));
        fs::write(&configuration, text.replace("dateformat\n ", "dateformat ")).unwrap();
        fs::set_permissions(&configuration, fs::Permissions::from_mode(0o644)).unwrap();
        for round in 0..4 {
            let down = round % 2 == 1;
            if down {
                log.stop();
            }
            // Copytruncate loses lines written between copy and truncation, so write none there.
            log.append(200);
            if options.contains("%s") {
                let before = std::time::Instant::now();
                wait::until("the next second", || before.elapsed().as_millis() > 1000);
            }
            run("logrotate", &[&"-f", &"-s", &log.path(".logrotate.state"), &configuration]);
            log.append(200);
            if down {
                log.start();
            }
            log.wait();
        }
        log.finish(options);
    }
}

#[test]
fn a_file_with_the_same_beginning_replaces_the_input() {
    for shape in ALL {
        for down in [false, true] {
            let mut log = Log::begun(shape, 2000);
            for round in 0..3 {
                if down {
                    log.stop();
                }
                let before = fs::read(&log.input).unwrap();
                let longer = [before, log.lines(100)].concat();
                match round {
                    0 => log.replace(&longer),
                    1 => fs::write(&log.input, &longer).unwrap(),
                    _ => {
                        fs::remove_file(&log.input).unwrap();
                        fs::write(&log.input, &longer).unwrap();
                    }
                }
                if down {
                    log.start();
                }
                log.wait();
            }
            log.finish(&format!("down: {down}"));
        }
    }
}

#[test]
fn rsync_replaces_the_input() {
    if !text::can("rsync", &["--version"]) {
        return;
    }
    let mut log = Log::new(LINE, "input.txt");
    let source = log.path("remote");
    log.start();
    for options in
        [vec!["-t"], vec!["-t", "--inplace"], vec!["-t", "--append"], vec!["-t", "--backup"], vec!["--ignore-times"]]
    {
        let lines = log.lines(700);
        rig::append(&source, lines);
        let mut args: Vec<&dyn AsRef<std::ffi::OsStr>> = Vec::new();
        args.extend(options.iter().map(|option| option as &dyn AsRef<std::ffi::OsStr>));
        args.push(&source);
        args.push(&log.input);
        run("rsync", &args);
        log.wait();
    }
    log.finish("rsync");
}

#[test]
fn sed_and_editors_change_lines_that_were_sent() {
    let edits: [(&str, &[&str]); 6] = [
        ("sed", &["-i", "500s/line/LINE/"]),
        ("sed", &["-i", "500s/line/a longer line/"]),
        ("sed", &["-i", "500d"]),
        ("sed", &["-i", "1d"]),
        ("sed", &["-i.bak", "500d"]),
        ("ex", &["-s", "-c", "set backup", "-c", "500d", "-c", "wq"]),
    ];
    for (n, (program, args)) in edits.into_iter().enumerate() {
        if program == "ex" && !text::can("ex", &["-s", "-c", "q"]) {
            continue;
        }
        for down in [false, true] {
            let mut log = Log::begun([LINE, CHUNK][n % 2], 1000);
            if down {
                log.stop();
            }
            let mut args: Vec<&dyn AsRef<std::ffi::OsStr>> =
                args.iter().map(|arg| arg as &dyn AsRef<std::ffi::OsStr>).collect();
            let input = log.input.clone();
            args.push(&input);
            run(program, &args);
            log.append(10);
            if down {
                log.start();
            }
            log.wait();
            log.finish(&format!("{program} {n}, down: {down}"));
        }
    }
}

#[test]
fn an_older_version_comes_back_and_grows() {
    for shape in [LINE, CHUNK, PARTITIONED] {
        let mut log = Log::begun(shape, 2000);
        // The new file is compared with the open one.
        let older = text::numbered(0..1500, 13);
        let longer = [older, log.lines(30)].concat();
        log.replace(&longer);
        log.wait();
        log.finish("rolled back and longer");
    }
    // Truncated in place, step by step: a prefix of the sent bytes contains nothing new.
    let mut log = Log::begun(LINE, 2000);
    for lines in [100, 1000, 1999] {
        fs::write(&log.input, text::numbered(0..lines, 13)).unwrap();
    }
    let longer = [text::numbered(0..2000, 13), log.lines(10)].concat();
    fs::write(&log.input, longer).unwrap();
    log.wait();
    log.finish("rolled back and restored");
}

#[test]
fn a_file_that_lost_its_last_bytes_and_grows() {
    for down in [false, true] {
        for cut in [1, 10] {
            let mut log = Log::begun(LINE, 1000);
            let before = log.expected.len();
            if down {
                log.stop();
            }
            log.truncate(before as u64 - cut);
            rig::append(&log.input, "\n");
            log.append(10);
            if down {
                log.start();
            }
            log.settle();
            let (output, new) = (log.output(), log.expected.split_off(before));
            assert!(output.starts_with(&log.expected) && output.ends_with(&new), "{}", log.reader().log());
            let again = output.len() - before - new.len();
            assert!(again < 600, "{again} bytes again after {cut} were cut off, down: {down}");
        }
    }
}

#[test]
fn a_hole_in_the_sent_bytes() {
    for down in [false, true] {
        let mut log = Log::begun(LINE, 1000);
        if down {
            log.stop();
        }
        fs::File::options().write(true).open(&log.input).unwrap().write_all_at(&[0; 8192], 0).unwrap();
        log.append(10);
        if down {
            log.start();
        }
        log.wait();
        log.finish(&format!("down: {down}"));
    }
}

#[test]
fn every_content_has_the_same_header() {
    for header_lines in [1, 40] {
        let header: Vec<u8> = (0..header_lines).flat_map(|n| format!("# header line {n}\n").into_bytes()).collect();
        for down in [false, true] {
            let mut log = Log::new(LINE, "input.txt");
            log.start();
            for round in 0..6 {
                if down && round > 0 {
                    log.stop();
                }
                match round % 3 {
                    _ if round == 0 => {}
                    0 => log.rotate(&format!(".{}", 9 - round)),
                    1 => log.truncate(0),
                    _ => fs::remove_file(&log.input).unwrap(),
                }
                log.expected.extend_from_slice(&header);
                rig::append(&log.input, &header);
                log.append(100 + 30 * round);
                if down && round > 0 {
                    log.start();
                }
                log.wait();
            }
            log.finish(&format!("{header_lines} lines, down: {down}"));
        }
    }
}

#[test]
fn a_header_that_is_all_of_the_finished_content() {
    for down in [false, true] {
        let mut log = Log::new(LINE, "input.txt");
        let header = b"id,name,value\n";
        log.start();
        for round in 0..3 {
            log.expected.extend_from_slice(header);
            rig::append(&log.input, header);
            log.wait();
            if down {
                log.stop();
            }
            log.rotate(&format!(".{}", 3 - round));
            log.expected.extend_from_slice(header);
            rig::append(&log.input, header);
            log.append(3);
            if down {
                log.start();
            }
            log.wait();
            log.rotate(&format!(".{}", 7 - round));
        }
        log.finish(&format!("down: {down}"));
    }
}

#[test]
fn lines_that_come_late_to_a_renamed_file() {
    for shape in ALL {
        let mut log = Log::begun(shape, 1000);
        log.rotate(".1");
        log.append(1000);
        log.wait();
        // The new content has begun, so the old one counted as finished.
        let late = log.lines(10);
        rig::append(&log.rotated(".1"), late);
        log.wait();
        log.stop();
        let late = log.lines(10);
        rig::append(&log.rotated(".1"), late);
        log.append(10);
        log.start();
        log.wait();
        fs::rename(log.rotated(".1"), log.rotated(".2")).unwrap();
        log.rotate(".1");
        log.append(10);
        log.wait();
        for suffix in [".2", ".1"] {
            let late = log.lines(10);
            rig::append(&log.rotated(suffix), late);
            log.wait();
        }
        log.settle();
        // The position of late lines is not defined.
        log.expected = sorted(&log.expected);
        let output = sorted(&log.output());
        assert!(output == log.expected, "{:?}: {} of {} bytes", shape, output.len(), log.expected.len());
    }
}

#[test]
fn an_old_file_that_is_written_to_all_the_time_does_not_delay_the_new_one() {
    let mut log = Log::begun(LINE, 100);
    log.rotate(".1");
    log.append(100);
    let new = text::numbered(199..200, 13);
    let old = log.rotated(".1");
    let mut last = std::time::Instant::now();
    wait::until("the new file's lines", || {
        if last.elapsed().as_millis() > 300 {
            last = std::time::Instant::now();
            rig::append(&old, "a late line\n");
        }
        memchr::memmem::find(&log.output(), &new).is_some()
    });
    let late = fs::read(&old).unwrap().len() - text::numbered(0..100, 13).len();
    log.expected.extend(b"a late line\n".repeat(late / 12));
    log.wait();
    log.settle();
    assert!(sorted(&log.output()) == sorted(&log.expected));
}

#[test]
fn neighbours_are_never_sent() {
    for (name, neighbours) in [
        (
            "app.log",
            &["app-2.log", "app2.log", "app.log2", "app.log.bak", "app.log~", "app.log.old", "app_error.log"][..],
        ),
        ("access.log", &["access-8080.log", "access.8080.log", "access.log.2024"]),
        ("worker1.log", &["worker10.log", "worker1.log.state", "worker-1.log"]),
        ("input.txt", &["input.txt.5", "input.txt-20251123", "input-2025-11-23.txt"]),
    ] {
        for down in [false, true] {
            let mut log = Log::new(LINE, name);
            let grow = |log: &Log| {
                for neighbour in neighbours {
                    rig::append(&log.path(neighbour), "a line of another program\n".repeat(20));
                }
            };
            grow(&log);
            log.append(200);
            log.start();
            log.wait();
            for round in 0..3 {
                if down {
                    log.stop();
                }
                grow(&log);
                log.append(10);
                log.rotate(&format!(".{}", 3 - round));
                log.append(10);
                grow(&log);
                if down {
                    log.start();
                }
                log.wait();
                grow(&log);
            }
            log.finish(&format!("{name}, down: {down}"));
        }
    }
}

/// The state files of the input, which list unrelated files beside it.
fn recorded(log: &Log) -> Vec<String> {
    let files = |folder: &Path| fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>();
    let (folders, mut states): (Vec<_>, Vec<_>) = files(&log.path("")).into_iter().partition(|path| path.is_dir());
    states.extend(folders.iter().flat_map(|folder| files(folder)));
    let states = states.iter().filter(|path| path.to_string_lossy().ends_with(".json"));
    states.filter_map(|path| fs::read_to_string(path).ok()).collect()
}

#[test]
fn a_sibling_that_appears_while_the_input_is_there_is_never_sent() {
    for shape in [LINE, PARTITIONED] {
        let mut log = Log::begun(shape, 200);
        for name in ["input.txt-20261130", "input.txt.7"] {
            fs::write(log.path(name), "a line of another program\n".repeat(20)).unwrap();
            let ino = fs::metadata(log.path(name)).unwrap().ino().to_string();
            wait::until("all partitions have recorded it", || {
                recorded(&log).iter().filter(|state| state.contains(&ino)).count() >= shape.partitions as usize
            });
        }
        log.rotate(".1");
        log.append(10);
        log.wait();
        log.finish(&format!("{shape:?}"));
    }
}

#[test]
fn an_output_beside_the_input_is_not_read() {
    let mut log = Log::new(LINE, "input.txt");
    let output = log.path("input.txt.2");
    // Create the second group before the first group's writer trims entries.
    log.rig.redis.call(&["XGROUP", "CREATE", rig::STREAM, "other", "0", "MKSTREAM"]);
    let mut writer =
        log.rig.writer().set("--output", &output).set("--group", "other").set("--consumer", "other").start();
    log.append(500);
    log.start();
    log.wait();
    for suffix in [".9", ".8"] {
        log.stop();
        log.rotate(suffix);
        log.append(100);
        log.start();
        log.wait();
    }
    log.rig.wait_len_of(&output, log.expected.len() as u64);
    writer.stop();
    log.finish("an output named like a rotated input");
}

#[test]
fn an_unreadable_sibling_does_not_stop_the_reader() {
    let nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    if !text::can(nobody[0], &[&nobody[1..], &["true"]].concat()) {
        return;
    }
    let mut log = Log::new(LINE, "input.txt");
    for folder in [log.rig.folder.path(), &log.rig.folder.join("in")] {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o777)).unwrap();
    }
    log.append(100);
    let start = |log: &mut Log| log.reader = Some(log.launch().under(&nobody).start());
    start(&mut log);
    if !log.reader().runs() {
        return;
    }
    log.wait();
    for (round, secret) in ["input.txt.20240101", "input.txt.8"].into_iter().enumerate() {
        if round == 1 {
            log.stop();
        }
        fs::write(log.path(secret), "secret\n").unwrap();
        fs::set_permissions(log.path(secret), fs::Permissions::from_mode(0o600)).unwrap();
        log.rotate(&format!(".{}", 2 - round));
        log.append(100);
        if round == 1 {
            start(&mut log);
            let path = log.path(secret).to_string_lossy().into_owned();
            log.reader().wait_for_log(&["cannot read", &path]);
        }
        log.wait();
    }
    // An unreadable folder is no problem either.
    fs::set_permissions(log.rig.folder.join("in"), fs::Permissions::from_mode(0o333)).unwrap();
    log.append(100);
    log.wait();
    fs::set_permissions(log.rig.folder.join("in"), fs::Permissions::from_mode(0o777)).unwrap();
    log.finish("unreadable siblings");
}

#[test]
fn a_rotated_file_that_is_edited_or_cut_is_not_sent_again() {
    for down in [false, true] {
        for how in 0..4 {
            let mut log = Log::begun(LINE, 1000);
            log.rotate(".1");
            log.append(1000);
            log.wait();
            if down {
                log.stop();
            }
            let old = log.rotated(".1");
            match how {
                0 => run("sed", &[&"-i", &"1d", &old]),
                1 => run("sed", &[&"-i", &"s/line/LINE/", &old]),
                2 => fs::write(&old, text::numbered(0..300, 13)).unwrap(),
                _ => fs::write(&old, [text::numbered(0..300, 13), text::numbered(500..700, 13)].concat()).unwrap(),
            }
            if !down {
                log.append(1);
                log.wait();
            }
            fs::rename(&old, log.rotated(".2")).unwrap();
            log.rotate(".1");
            log.append(10);
            if down {
                log.start();
            }
            log.wait();
            log.finish(&format!("{how}, down: {down}"));
        }
    }
}

#[test]
fn the_rest_of_a_content_is_read_from_its_compressed_copy() {
    for (program, ending) in [("gzip", ".gz"), ("zstd", ".zst")] {
        if !text::can(program, &["--version"]) {
            continue;
        }
        for shape in ALL {
            let mut log = Log::begun(shape, 2000);
            log.stop();
            log.append(1000);
            log.rotate(".2");
            // A content that was never seen at the input's path is compressed, too.
            log.append(1000);
            log.rotate(".1");
            for suffix in [".2", ".1"] {
                match program {
                    "gzip" => run(program, &[&log.rotated(suffix)]),
                    _ => run(program, &[&"-q", &"--rm", &log.rotated(suffix)]),
                }
                assert!(log.rotated(&format!("{suffix}{ending}")).exists());
            }
            log.append(10);
            log.start();
            log.wait();
            log.finish(program);
        }
    }
}

#[test]
fn a_file_that_is_rotated_and_compressed_while_redis_is_away() {
    let mut log = Log::begun(LINE, 1000);
    log.rig.redis.freeze();
    log.append(1000);
    log.rotate(".1");
    run("gzip", &[&log.rotated(".1")]);
    log.append(10);
    log.rig.redis.thaw();
    log.wait();
    log.finish("compressed meanwhile");
}

fn point(link: &Path, to: &Path) {
    let new = link.with_file_name(".link");
    symlink(to, &new).unwrap();
    fs::rename(&new, link).unwrap();
}

#[test]
fn a_link_flips_between_two_files() {
    for shape in [LINE, CHUNK, PARTITIONED] {
        for down in [false, true] {
            let mut log = Log::new(shape, "input.txt");
            let link = log.input.clone();
            let targets = [log.path("a.log"), log.path("b.log")];
            fs::write(&targets[0], log.lines(1000)).unwrap();
            point(&link, &targets[0]);
            log.start();
            log.wait();
            for round in 1..5 {
                if down {
                    log.stop();
                }
                let lines = log.lines(300);
                rig::append(&targets[round % 2], lines);
                point(&link, &targets[round % 2]);
                if down {
                    log.start();
                }
                log.wait();
            }
            log.finish(&format!("down: {down}"));
        }
    }
}

#[test]
fn a_link_that_leads_to_another_folder_while_the_reader_is_down() {
    let mut log = Log::new(LINE, "input.txt");
    let link = log.input.clone();
    let targets = ["a", "b"].map(|name| log.path(name).join("app.log"));
    for target in &targets {
        fs::create_dir(target.parent().unwrap()).unwrap();
    }
    fs::write(&targets[0], log.lines(1000)).unwrap();
    point(&link, &targets[0]);
    log.start();
    log.wait();
    log.stop();
    let rest = log.lines(100);
    rig::append(&targets[0], rest);
    fs::write(&targets[1], log.lines(100)).unwrap();
    point(&link, &targets[1]);
    log.start();
    log.wait();
    log.finish("the old target's rest");
}

#[test]
fn a_backup_is_restored() {
    for down in [false, true] {
        let mut log = Log::begun(LINE, 1000);
        let backup = log.rig.folder.join("backup");
        run("cp", &[&"-p", &log.input, &backup]);
        if down {
            log.stop();
        }
        fs::remove_file(&log.input).unwrap();
        run("cp", &[&"-p", &backup, &log.input]);
        log.append(10);
        if down {
            log.start();
        }
        log.wait();
        log.finish(&format!("down: {down}"));
    }
}

#[test]
fn a_hard_link_is_a_rename() {
    for down in [false, true] {
        let mut log = Log::begun(LINE, 1000);
        if down {
            log.stop();
        }
        log.append(100);
        fs::hard_link(&log.input, log.rotated(".1")).unwrap();
        fs::remove_file(&log.input).unwrap();
        log.append(100);
        if down {
            log.start();
        }
        log.wait();
        log.finish(&format!("down: {down}"));
    }
}

#[test]
fn a_rotated_file_from_before_the_first_scan_is_reported() {
    let mut log = Log::new(LINE, "input.txt");
    fs::write(log.rotated(".1"), "rotated between the start and the first look\n").unwrap();
    log.append(100);
    log.start();
    log.wait();
    let path = log.rotated(".1").to_string_lossy().into_owned();
    log.reader().wait_for_log(&[&path, "looks like a rotated file"]);
    log.finish("it is not sent");
}

#[test]
fn an_inode_is_reused() {
    let mut log = Log::begun(LINE, 1000);
    for round in 0..6 {
        let down = round % 2 == 1;
        if down {
            log.stop();
        }
        // Most file systems give the inode to the next file.
        fs::remove_file(&log.input).unwrap();
        log.append(700);
        if down {
            log.start();
        }
        log.wait();
    }
    log.finish("deleted and created again");
}
