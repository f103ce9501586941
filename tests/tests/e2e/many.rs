//! Many files in one reader: each is a source with a stream of its own.

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;

use e2e::{Launch, Persistence, Program, Rig, Service, rig, wait};

/// A reader of `in/*.log` and below, and what it should have sent.
struct Many {
    rig: Rig,
}

impl Many {
    fn new() -> Self {
        Self { rig: Rig::new() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.rig.folder.join("in").join(name)
    }

    fn append(&self, name: &str, bytes: &str) {
        rig::append(&self.path(name), bytes);
    }

    fn reader(&self) -> Launch {
        self.rig.service(Program::Reader).set("--input", self.path("**/*.log"))
    }

    /// The bytes that a source's stream holds.
    fn sent(&self, name: &str) -> String {
        let entries = self.rig.redis.call(&["XRANGE", &format!("line_stream:{{{name}}}"), "-", "+"]);
        let line = |entry: &e2e::Value| {
            let [_, fields] = entry.list() else { panic!("an entry: {entry:?}") };
            format!("{}\n", fields.list()[1].text())
        };
        entries.list().iter().map(line).collect()
    }

    #[track_caller]
    fn wait_sent(&self, name: &str, bytes: &str) {
        wait::until(&format!("{name} is sent"), || self.sent(name) == bytes);
    }

    fn ready(&self) -> Service {
        let mut reader = self.reader().start();
        wait::until("the reader is ready", || reader.readyz().0 == 200);
        reader
    }
}

#[test]
fn each_file_is_a_source_and_new_ones_are_found() {
    let many = Many::new();
    many.append("a.log", "a 1\n");
    fs::create_dir(many.path("sub")).unwrap();
    many.append("sub/b {x}.log", "b 1\nb 2\n");
    many.append("c.txt", "no\n");
    let mut reader = many.ready();
    many.wait_sent("a.log", "a 1\n");
    many.wait_sent("sub/b %7Bx%7D.log", "b 1\nb 2\n");
    let registry = many.rig.redis.call(&["HGET", "line_stream:sources", "sub/b %7Bx%7D.log"]).text();
    assert!(registry.contains("followed") && registry.contains("/in/sub/b {x}.log"), "{registry}");
    many.append("new.log", "n 1\n");
    fs::create_dir_all(many.path("later/deep")).unwrap();
    many.append("later/deep/d.log", "d 1\n");
    many.wait_sent("new.log", "n 1\n");
    many.wait_sent("later/deep/d.log", "d 1\n");
    many.append("a.log", "a 2\n");
    many.wait_sent("a.log", "a 1\na 2\n");
    assert_eq!(many.rig.redis.call(&["HLEN", "line_stream:sources"]).int(), 4);
    reader.stop();
}

/// The users of docs/security.md may do all that many files need, and no key is missing.
#[test]
fn users_with_the_documented_rights_move_many_files() {
    let docs = include_str!("../../../docs/security.md");
    let many = Many::new();
    for user in ["many-reader", "many-writer"] {
        let command = format!("redis-cli ACL SETUSER {user} ");
        let rights = docs.lines().find_map(|line| line.strip_prefix(&command)).unwrap();
        let rights = rights.replace('\'', "").replace("secure-fleet", "line_stream");
        let words = ["ACL", "SETUSER", user].into_iter().chain(rights.split(' ')).collect::<Vec<_>>();
        assert_eq!(many.rig.redis.call(&words).text(), "OK");
    }
    let port = many.rig.redis.port();
    let url = |user: &str, password: &str| format!("redis://{user}:{password}@127.0.0.1:{port}");
    let reader = || many.reader().set("--redis-url", url("many-reader", "of-reader"));
    let output = many.rig.folder.join("mirror");
    let writer = || {
        let writer = many.rig.service(Program::Writer).set("--redis-url", url("many-writer", "of-writer"));
        writer.set("--output-dir", &output)
    };
    many.append("a.log", "1\n");
    fs::create_dir(many.path("sub")).unwrap();
    many.append("sub/b.log", "1\n2\n");
    reader().word("check").run_ok();
    reader().once().run_ok();
    writer().word("check").run_ok();
    let mut running = [reader().start(), writer().start()];
    let mirrored = |name: &str, bytes: &str| {
        wait::until(&format!("{name} is mirrored"), || {
            fs::read_to_string(output.join(name)).is_ok_and(|found| found == bytes)
        });
    };
    mirrored("a.log", "1\n");
    mirrored("sub/b.log", "1\n2\n");
    // Sources that are parked on both sides are asked about, and wake.
    let parked = || many.rig.redis.call(&["INFO", "commandstats"]).text();
    wait::until("both park", || parked().contains("cmdstat_hget:") && parked().contains("cmdstat_xread:"));
    many.append("a.log", "2\n");
    many.append("c.log", "1\n");
    mirrored("a.log", "1\n2\n");
    mirrored("c.log", "1\n");
    // Scripts are optional.
    let refused = many.rig.redis.call(&["ACL", "LOG"]);
    let refused = refused.list().iter().map(|entry| entry.field("object").text());
    assert_eq!(refused.filter(|object| object != "script|load").collect::<Vec<_>>(), [""; 0]);
    running.iter_mut().for_each(Service::stop);
}

#[test]
fn rotated_files_are_the_rest_of_their_sources() {
    let many = Many::new();
    many.append("a.log", "a 1\n");
    many.append("b.log", "b 1\n");
    let mut reader = many.rig.service(Program::Reader).set("--input", many.path("*.log*")).start();
    many.wait_sent("a.log", "a 1\n");
    many.wait_sent("b.log", "b 1\n");
    reader.kill9();
    // While nobody looks: by rename, with late lines; and compressed.
    many.append("a.log", "a 2\n");
    fs::rename(many.path("a.log"), many.path("a.log.1")).unwrap();
    many.append("a.log.1", "a 3\n");
    many.append("a.log", "a 4\n");
    many.append("b.log", "b 2\n");
    fs::copy(many.path("b.log"), many.path("b.log.1")).unwrap();
    assert!(std::process::Command::new("gzip").arg(many.path("b.log.1")).status().unwrap().success());
    fs::write(many.path("b.log"), "b 3\n").unwrap();
    let mut reader = many.rig.service(Program::Reader).set("--input", many.path("*.log*")).start();
    many.wait_sent("a.log", "a 1\na 2\na 3\na 4\n");
    many.wait_sent("b.log", "b 1\nb 2\nb 3\n");
    // While it follows.
    fs::rename(many.path("a.log.1"), many.path("a.log.2")).unwrap();
    fs::rename(many.path("a.log"), many.path("a.log.1")).unwrap();
    many.append("a.log.1", "a 5\n");
    many.append("a.log", "a 6\n");
    many.wait_sent("a.log", "a 1\na 2\na 3\na 4\na 5\na 6\n");
    assert_eq!(many.rig.redis.call(&["HLEN", "line_stream:sources"]).int(), 2);
    reader.stop();
}

#[test]
fn a_renamed_file_is_no_new_source() {
    let many = Many::new();
    many.append("a.log", "a 1\n");
    let mut reader = many.ready();
    many.wait_sent("a.log", "a 1\n");
    fs::rename(many.path("a.log"), many.path("z.log")).unwrap();
    many.append("z.log", "a 2\n");
    many.append("a.log", "new\n");
    many.wait_sent("a.log", "a 1\na 2\nnew\n");
    assert_eq!(many.sent("z.log"), "");
    reader.stop();
}

/// Whatever names files get: each byte is sent once, for the source that was read from the file.
#[test]
fn files_that_are_swapped_moved_and_linked_stay_with_their_sources() {
    let many = Many::new();
    for folder in ["x", "y"] {
        fs::create_dir(many.path(folder)).unwrap();
    }
    for name in ["a.log", "b.log", "x/c.log"] {
        many.append(name, &format!("{name} 1\n"));
    }
    let rename = |from: &str, to: &str| fs::rename(many.path(from), many.path(to)).unwrap();
    let mut reader = many.ready();
    for name in ["a.log", "b.log", "x/c.log"] {
        many.wait_sent(name, &format!("{name} 1\n"));
    }
    // Two sources are swapped; one moves to another folder.
    rename("a.log", "between");
    rename("b.log", "a.log");
    rename("between", "b.log");
    rename("x/c.log", "y/c.log");
    many.append("a.log", "b.log 2\n");
    many.append("b.log", "a.log 2\n");
    many.append("y/c.log", "x/c.log 2\n");
    for name in ["a.log", "b.log", "x/c.log"] {
        many.wait_sent(name, &format!("{name} 1\n{name} 2\n"));
    }
    // So it is for the next process. Other names of the file of a source are none.
    reader.kill9();
    fs::hard_link(many.path("a.log"), many.path("hard.log")).unwrap();
    std::os::unix::fs::symlink(many.path("y/c.log"), many.path("link.log")).unwrap();
    many.append("a.log", "b.log 3\n");
    many.append("y/c.log", "x/c.log 3\n");
    many.append(".d.log", "d 1\n");
    let mut reader = many.ready();
    many.wait_sent("b.log", "b.log 1\nb.log 2\nb.log 3\n");
    many.wait_sent("x/c.log", "x/c.log 1\nx/c.log 2\nx/c.log 3\n");
    // A file from outside the pattern is a source when it gets a name inside.
    rename(".d.log", "d.log");
    many.append("d.log", "d 2\n");
    many.wait_sent("d.log", "d 1\nd 2\n");
    // A folder is made again, and its file is a new content of the source with this name.
    fs::remove_dir_all(many.path("x")).unwrap();
    fs::create_dir(many.path("x")).unwrap();
    many.append("x/c.log", "new\n");
    many.wait_sent("x/c.log", "x/c.log 1\nx/c.log 2\nx/c.log 3\nnew\n");
    many.append("x/e.log", "e\n");
    many.wait_sent("x/e.log", "e\n");
    assert_eq!(many.sent("a.log"), "a.log 1\na.log 2\n");
    for other in ["y/c.log", "hard.log", "link.log"] {
        assert_eq!(many.sent(other), "", "{other}");
    }
    reader.stop();
}

/// What docs/recipes/many-files.md says of sources that are gone: no byte is lost or doubled.
#[test]
fn a_source_that_is_gone_can_be_removed_by_hand() {
    let many = Many::new();
    let output = many.rig.folder.join("out");
    let writer = || many.rig.service(Program::Writer).set("--output-dir", &output).set("--consumer", "one");
    for name in ["a.log", "deep/b.log"] {
        fs::create_dir_all(many.path(name).parent().unwrap()).unwrap();
        many.append(name, "old\n");
    }
    many.reader().once().run_ok();
    writer().once().run_ok();
    fs::remove_file(many.path("deep/b.log")).unwrap();
    many.rig.redis.call(&["HDEL", "line_stream:sources", "deep/b.log"]);
    assert_eq!(many.rig.redis.call(&["DEL", "line_stream:{deep/b.log}", "line_stream:{deep/b.log}:source"]).int(), 2);
    fs::remove_file(many.path(".line_stream.sources/deep%2Fb.log.json")).unwrap();
    let (mut reader, mut writer) = (many.ready(), writer().start());
    many.append("a.log", "new\n");
    many.rig.wait_len_of(&output.join("a.log"), 8);
    assert_eq!(many.rig.redis.call(&["HLEN", "line_stream:sources"]).int(), 1);
    // Another file with this name goes on in the output.
    many.append("deep/b.log", "another\n");
    many.rig.wait_len_of(&output.join("deep/b.log"), 12);
    assert_eq!(fs::read_to_string(output.join("deep/b.log")).unwrap(), "old\nanother\n");
    reader.stop();
    writer.stop();
}

/// logrotate with all that it can do, for patterns that match the names it gives and that do not.
#[test]
fn logrotate_rotates_many_files() {
    const FILES: usize = 8;
    if !e2e::text::can("logrotate", &["--version"]) {
        return;
    }
    for (pattern, how) in [
        ("*.log*", "create\ncompress\nrotate 9"),
        ("*.log", "copytruncate\ncompress\ndelaycompress\nrotate 9"),
        ("*.log*", "nocreate\ndateext\ndateformat -%s\ncompress\ndelaycompress\nrotate 9"),
    ] {
        let many = Many::new();
        let configuration = many.rig.folder.join("logrotate.conf");
        fs::write(&configuration, format!("{} {{\nmissingok\n{how}\n}}\n", many.path("*.log").display())).unwrap();
        let mut rotated_at = 0;
        let second = || std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
        let mut rotate = || {
            // Else two would have one name.
            wait::until("another second", || !how.contains("dateext") || second() > rotated_at);
            rotated_at = second();
            let state = many.rig.folder.join("logrotate.state");
            let mut logrotate = std::process::Command::new("logrotate");
            let done = logrotate.arg("-f").arg("-s").arg(state).arg(&configuration).output().unwrap();
            assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        };
        let mut expected = vec![String::new(); FILES];
        let mut grow = |round: usize| {
            for (n, expected) in expected.iter_mut().enumerate() {
                let lines = format!("{n} {round} a\n{n} {round} b\n");
                many.append(&format!("{n}.log"), &lines);
                expected.push_str(&lines);
            }
            expected.clone()
        };
        let all_sent = |expected: &[String]| {
            for (n, expected) in expected.iter().enumerate() {
                many.wait_sent(&format!("{n}.log"), expected);
            }
        };
        let launch = || many.rig.service(Program::Reader).set("--input", many.path(pattern));
        let mut reader = launch().start();
        all_sent(&grow(0));
        for round in 1..3 {
            grow(2 * round - 1);
            // Also compressed while nobody looks.
            if round == 2 {
                reader.kill9();
            }
            rotate();
            if round == 2 {
                reader = launch().start();
            }
            all_sent(&grow(2 * round));
        }
        assert_eq!(many.rig.redis.call(&["HLEN", "line_stream:sources"]).int(), FILES as i64, "{pattern} {how}");
        reader.stop();
    }
}

#[test]
fn what_redis_lost_is_sent_again_also_of_files_at_rest() {
    const FILES: i64 = 200;
    let many = Many::new();
    // More than have a turn at once.
    for n in 0..FILES {
        many.append(&format!("{n}.log"), &format!("{n} 1\n{n} 2\n"));
    }
    let mut reader = many.ready();
    let all = |many: &Many| (0..FILES).all(|n| many.sent(&format!("{n}.log")) == format!("{n} 1\n{n} 2\n"));
    wait::until("all is sent", || all(&many));
    many.rig.redis.call(&["FLUSHALL"]);
    wait::until("all is sent again", || all(&many));
    wait::until("the registry is back", || many.rig.redis.call(&["HLEN", "line_stream:sources"]).int() == FILES);
    reader.stop();
}

#[test]
fn kills_of_reader_and_redis_lose_nothing() {
    let mut many = Many { rig: Rig::with(Persistence::Always) };
    let name = |n: usize| format!("{n}.log");
    let mut expected = vec![String::new(); 30];
    let mut reader = many.reader().start();
    for round in 0..6 {
        for (n, expected) in expected.iter_mut().enumerate().skip(round % 3) {
            let lines = format!("{n} {round} a\n{n} {round} b\n");
            many.append(&name(n), &lines);
            expected.push_str(&lines);
        }
        match round {
            1 | 4 => {
                wait::until("something is sent", || !many.sent(&name(5)).is_empty());
                reader.kill9();
                reader = many.reader().start();
            }
            2 => {
                many.rig.redis.kill9();
                many.rig.redis.start_again();
            }
            _ => {}
        }
    }
    for (n, expected) in expected.iter().enumerate() {
        many.wait_sent(&name(n), expected);
    }
    reader.stop();
}

#[test]
fn once_sends_all_there_is() {
    let many = Many::new();
    for n in 0..40 {
        many.append(&format!("{n}.log"), &format!("{n}\nlast"));
    }
    many.reader().set("--exclude", "7.*").once().run_ok();
    assert_eq!(many.sent("39.log"), "39\nlast\n");
    assert_eq!(many.sent("7.log"), "");
    let mut none = many.rig.service(Program::Reader).set("--input", many.path("*.none")).once().run();
    assert_eq!(none.code(), Some(1));
    assert!(none.log().contains("no file matches"), "{}", none.log());
}

#[test]
fn an_archive_is_read_as_its_content_up_to_where_it_is_damaged() {
    let many = Many::new();
    let lines: String = (0..50_000).map(|n| format!("line {n} of an archive\n")).collect();
    many.append("a.log", &lines);
    assert!(std::process::Command::new("gzip").arg(many.path("a.log")).status().unwrap().success());
    let whole = fs::read(many.path("a.log.gz")).unwrap();
    fs::write(many.path("a.log.gz"), &whole[..whole.len() / 2]).unwrap();
    let reader = |many: &Many| many.rig.service(Program::Reader).set("--input", many.path("*.gz"));
    let torn = reader(&many).once().run();
    assert!(torn.find_log(&["a.log.gz", "damaged or truncated", "up to byte"]).is_some(), "{}", torn.log());
    let sent = many.sent("a.log.gz");
    let last = sent.trim_end().len();
    assert!(sent.len() > 100_000 && lines.starts_with(&sent[..last]), "{} bytes", sent.len());
    fs::write(many.path("a.log.gz"), &whole).unwrap();
    let mut follow = reader(&many).start();
    let len = |many: &Many| {
        many.rig.redis.call(&["XINFO", "STREAM", "line_stream:{a.log.gz}"]).field("last-generated-id").text()
    };
    wait::until("the rest is sent", || len(&many).ends_with(&format!("-{}", lines.len())));
    follow.stop();
}

#[test]
fn an_archive_that_is_decompressed_for_long_delays_neither_other_files_nor_a_stop() {
    let many = Many::new();
    many.append("a.log", "a 1\n");
    let line = "a line of an archive that takes seconds to decompress, and kilobytes on the disk\n";
    let mut gzip = std::process::Command::new("gzip")
        .arg("-1c")
        .stdin(std::process::Stdio::piped())
        .stdout(fs::File::create(many.path("b.log.gz")).unwrap())
        .spawn()
        .unwrap();
    let mut input = gzip.stdin.take().unwrap();
    for _ in 0..200 {
        input.write_all(line.repeat(20_000).as_bytes()).unwrap();
    }
    drop(input);
    assert!(gzip.wait().unwrap().success());
    let mut reader = many.rig.service(Program::Reader).set("--input", many.path("*")).start();
    let mut sent = "a 1\n".to_owned();
    for n in 2..=5 {
        many.wait_sent("a.log", &sent);
        let more = format!("a {n}\n");
        many.append("a.log", &more);
        sent += &more;
    }
    many.wait_sent("a.log", &sent);
    reader.stop();
    assert!(many.sent("b.log.gz").is_empty(), "its first line comes when its length is known");
}

#[test]
fn what_cannot_be_told_apart_is_refused_in_one_line() {
    let many = Many::new();
    for folder in ["x", "y"] {
        fs::create_dir(many.path(folder)).unwrap();
        many.append(&format!("{folder}/a.log"), "a\n");
    }
    let refused = |launch: Launch, parts: &[&str]| {
        let mut reader = launch.run();
        assert_eq!(reader.code(), Some(2), "{}", reader.log());
        assert!(reader.find_log(parts).is_some(), "{}", reader.log());
    };
    let two = |first: &str| many.rig.service(Program::Reader).word(format!("--input={}", many.path(first).display()));
    refused(two("x/a.log").set("--input", many.path("y/a.log")), &["x/a.log", "y/a.log", "same name"]);
    refused(many.reader().set("--partitions", "2"), &["--partitions 2", "allowed: 1"]);
    refused(two("x/a.log").set("--input", "-"), &["standard input"]);
    assert_eq!(many.rig.redis.call(&["DBSIZE"]).int(), 0);
}
