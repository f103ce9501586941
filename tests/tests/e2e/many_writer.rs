//! `writer --output-dir`: all sources of a stream, an output for each.

use std::path::{Path, PathBuf};
use std::time::Duration;

use e2e::rig::{Rig, STREAM, append, len};
use e2e::service::{Launch, Service};
use e2e::{Growth, Mount, Program, assert_identical, redis::Persistence, text, wait};

/// Sources with a reader each, and the folder that mirrors them.
struct Sources {
    rig: Rig,
    names: Vec<String>,
}

impl Sources {
    fn new(persistence: Persistence, names: &[&str]) -> Self {
        let sources = Self { rig: Rig::with(persistence), names: names.iter().map(|&name| name.to_owned()).collect() };
        names.iter().for_each(|name| sources.list(name));
        sources
    }

    fn input(&self, name: &str) -> PathBuf {
        self.rig.folder.join(&format!("in/{}", name.replace('/', "_")))
    }

    fn output(&self, name: &str) -> PathBuf {
        self.rig.folder.join(&format!("out/{name}"))
    }

    fn key(name: &str) -> String {
        format!("{STREAM}:{{{name}}}")
    }

    /// Lists the source in the registry.
    fn list(&self, name: &str) {
        self.rig.redis.call(&["HSET", &format!("{STREAM}:sources"), name, r#"{"state":"followed"}"#]);
    }

    fn reader(&self, name: &str) -> Launch {
        self.rig.reader().set("--stream", Self::key(name)).set("--input", self.input(name))
    }

    /// Writes bytes to the source's input, and sends them.
    fn send(&self, name: &str, bytes: impl AsRef<[u8]>) {
        append(&self.input(name), bytes);
        self.reader(name).once().run_ok();
    }

    fn writer(&self) -> Launch {
        self.rig.writer().unset("--output").unset("--consumer").set("--output-dir", self.rig.folder.join("out"))
    }

    #[track_caller]
    fn wait_mirrored(&self) {
        for name in &self.names {
            self.rig.wait_len_of(&self.output(name), len(&self.input(name)));
            assert_identical(&self.input(name), &self.output(name));
        }
    }
}

fn without_journals(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = entries.filter(|name| !name.ends_with(".journal")).collect();
    names.sort();
    names
}

#[test]
fn a_folder_mirrors_all_sources_and_those_that_come_later() {
    let mut sources = Sources::new(Persistence::None, &["a.log", "deep/er/b.log"]);
    for name in ["../evil", "/etc/evil", "a.log.journal", "%2E%2E/evil"] {
        sources.list(name);
    }
    sources.send("a.log", "1\n2\n");
    sources.send("deep/er/b.log", "1\n");
    let mut writer = sources.writer().start();
    sources.wait_mirrored();
    // One that is parked is woken, and one that comes later is taken up.
    sources.send("a.log", "3\n");
    sources.names.push("late.log".to_owned());
    sources.send("late.log", text::numbered(0..3000, 1));
    sources.list("late.log");
    sources.wait_mirrored();
    assert_eq!(without_journals(&sources.rig.folder.join("out")), ["a.log", "deep", "late.log"]);
    writer.wait_for_log(&["../evil", "has no output"]);
    writer.wait_for_metric("line_stream_backlog_entries", |entries| entries == 0.0);
    wait::until("the status lists the sources", || writer.get("/status.json").1.contains(r#""name":"deep/er/b.log""#));
    wait::until("the status has the consumers of each", || {
        let status = writer.get("/status.json").1;
        status.contains(r#""consumers":null"#) && status.contains(r#""consumers":1"#)
    });
    assert!(!writer.get("/").1.contains("Consumers of the group"));
    writer.wait_for_metric("line_stream_latency_seconds_count", |batches| batches > 0.0);
    wait::until("the latest one has a series", || writer.get("/metrics").1.contains(r#"source="late.log""#));
    writer.stop();
    let consumers = sources.rig.redis.call(&["XINFO", "CONSUMERS", &Sources::key("a.log"), "writers"]);
    assert_eq!(consumers.list().len(), 0, "it leaves the groups");

    // Lines that arrive while it is down are appended, none of them twice.
    sources.send("deep/er/b.log", "2\n");
    sources.writer().once().run_ok();
    sources.wait_mirrored();
    let (input, output) = (sources.input("a.log"), sources.output("a.log"));
    sources.rig.command(Program::Writer).word("verify").set("--input", input).set("--output", output).run_ok();
}

#[test]
fn writers_share_the_sources_by_name() {
    let sources = Sources::new(Persistence::None, &["a/1.log", "a/2.txt", "b/1.log"]);
    for name in &sources.names {
        sources.send(name, format!("{name}\n"));
    }
    sources.writer().set("--sources", "{a/*.log,b/**}").once().run_ok();
    assert_eq!(without_journals(&sources.rig.folder.join("out/a")), ["1.log"]);
    sources.writer().set("--sources", "**/*.txt").once().run_ok();
    sources.wait_mirrored();
}

#[test]
fn sources_survive_kills_of_writer_and_redis() {
    let names = ["a.log", "b.log", "c/d.log", "e.log"];
    let mut sources = Sources::new(Persistence::Everysec, &names);
    let mut readers: Vec<Service> = names.iter().map(|name| sources.reader(name).start()).collect();
    let mut growths: Vec<Growth> = (0_u64..)
        .zip(names)
        .map(|(seed, name)| {
            Growth::of(&sources.input(name), text::numbered(0..8000, seed), Duration::from_millis(1500), seed)
        })
        .collect();
    let mut rng = fastrand::Rng::with_seed(7);
    for round in 0..3 {
        let mut writer = sources.writer().start();
        let _ = writer.healthz();
        wait::random_moment(&mut rng, 100..500);
        if round == 1 {
            sources.rig.redis.crash();
            // The registry may have lost its tail.
            names.iter().for_each(|name| sources.list(name));
            wait::random_moment(&mut rng, 50..300);
        }
        writer.kill9();
    }
    growths.iter_mut().for_each(Growth::wait);
    let mut writer = sources.writer().start();
    sources.wait_mirrored();
    // All of Redis is lost while nothing comes: the readers send what there is to send.
    sources.rig.redis.flushall();
    names.iter().for_each(|name| sources.list(name));
    append(&sources.input("a.log"), "after\n");
    append(&sources.input("c/d.log"), "after\n");
    sources.wait_mirrored();
    writer.stop();
    readers.iter_mut().for_each(Service::stop);
}

#[test]
fn a_fault_of_one_output_leaves_the_others_alone() {
    let sources = Sources::new(Persistence::None, &["bad.log", "full/a.log", "full/b.log", "good.log"]);
    let (full, bad) = (sources.rig.folder.join("out/full"), sources.output("bad.log"));
    std::fs::create_dir_all(&full).unwrap();
    std::fs::create_dir(&bad).unwrap();
    let mount = Mount::new("tmpfs", "size=64k", &full);
    sources.send("bad.log", "1\n");
    sources.send("full/a.log", text::numbered(0..5000, 1));
    sources.send("full/b.log", text::numbered(0..5000, 2));
    sources.send("good.log", "1\n");
    let mut writer = sources.writer().start();
    sources.rig.wait_len_of(&sources.output("good.log"), 2);
    writer.wait_for_log(&["source bad.log", "it is a folder"]);
    if mount.is_some() {
        let shown = |name: &str| format!(r#"{}: writing the output: No space left"#, sources.output(name).display());
        wait::until("the page says so of both", || {
            let status = writer.get("/status.json").1;
            status.contains(&shown("full/a.log")) && status.contains(&shown("full/b.log"))
        });
        let lines = writer.log().lines().filter(|line| line.contains("No space left")).count();
        assert_eq!(lines, 1, "one disk, one line: {}", writer.log());
    }
    let (code, reason) = writer.readyz();
    assert_eq!(code, 503, "{reason}");
    sources.send("good.log", "2\n");
    sources.rig.wait_len_of(&sources.output("good.log"), 4);

    // Repaired, all go on.
    std::fs::remove_dir(&bad).unwrap();
    assert!(mount.as_ref().is_none_or(|mount| mount.change("size=16m")));
    sources.wait_mirrored();
    wait::until("it is ready", || writer.readyz().0 == 200);
    writer.stop();
}

#[test]
fn more_sources_than_open_files() {
    let names: Vec<String> = (0..40).map(|nth| format!("{nth}.log")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let sources = Sources::new(Persistence::None, &names);
    for name in &names[..6] {
        sources.send(name, format!("{name}\n"));
    }
    // Room for eight outputs.
    let limited = sources.writer().under(&["prlimit", "--nofile=176"]);
    let mut writer = limited.start();
    sources.rig.wait_len_of(&sources.output("5.log"), 6);
    wait::until("all outputs were made", || without_journals(&sources.rig.folder.join("out")).len() == 40);
    for name in &names[34..] {
        sources.send(name, format!("{name}\n"));
    }
    sources.send("0.log", "again\n");
    for name in &names {
        if len(&sources.input(name)) > 0 {
            sources.rig.wait_len_of(&sources.output(name), len(&sources.input(name)));
            assert_identical(&sources.input(name), &sources.output(name));
        }
    }
    assert!(writer.metric("process_open_fds") < 60.0);
    writer.stop();
}

#[test]
fn once_ends_with_the_fault_of_one_source_and_all_others_written() {
    let sources = Sources::new(Persistence::None, &["bad.log", "good.log"]);
    std::fs::create_dir_all(sources.output("bad.log")).unwrap();
    sources.send("bad.log", "1\n");
    sources.send("good.log", "1\n");
    let mut writer = sources.writer().once().run();
    assert_eq!(writer.code(), Some(2), "{}", writer.log());
    assert_identical(&sources.input("good.log"), &sources.output("good.log"));
}

#[test]
fn flags_that_do_not_fit_a_folder_are_refused() {
    let sources = Sources::new(Persistence::None, &[]);
    for (flag, value, says) in [
        ("--partitions", "2", "--partitions 2: with --output-dir, each source has a stream of its own; allowed: 1"),
        ("--consume", "exclusive", "allowed: group"),
        ("--sources", "a[", "allowed: a pattern such as"),
        ("--output", "x", "--output-dir"),
    ] {
        let mut writer = sources.writer().set(flag, value).run();
        assert_eq!(writer.code(), Some(2), "{flag}: {}", writer.log());
        assert!(writer.log().lines().last().unwrap_or_default().contains(says), "{flag}: {}", writer.log());
    }
    let mut writer = sources.rig.writer().set("--sources", "*").run();
    assert_eq!(writer.code(), Some(2));
}
