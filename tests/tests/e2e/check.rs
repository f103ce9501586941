//! `reader check` and `writer check` report problems with advice, and change nothing.

use std::fs;
use std::net::TcpListener;

use e2e::rig::STREAM;
use e2e::{Launch, Persistence, Program, Rig, text};

fn check(rig: &Rig, program: Program) -> Launch {
    let launch = rig.service(program).word("check");
    match program {
        Program::Reader => launch.set("--input", &rig.input),
        Program::Writer => launch.set("--output", &rig.output),
    }
}

/// Exit code and findings.
#[track_caller]
fn findings(launch: &Launch) -> (Option<i32>, String) {
    let mut run = launch.run();
    (run.code(), String::from_utf8(run.process().stdout()).unwrap())
}

/// Asserts that `check` reports this as wrong, with advice.
#[track_caller]
fn finds(launch: &Launch, parts: &[&str]) {
    finds_as("WRONG", 2, launch, parts);
}

/// Asserts that `check` reports that the service would wait for this, with advice.
#[track_caller]
fn waits(launch: &Launch, parts: &[&str]) {
    finds_as("waits", 1, launch, parts);
}

#[track_caller]
fn finds_as(kind: &str, exit: i32, launch: &Launch, parts: &[&str]) {
    let (code, text) = findings(launch);
    assert_eq!(code, Some(exit), "{text}");
    let mut lines = text.lines();
    let found = lines.find(|line| line.starts_with(kind) && parts.iter().all(|part| line.contains(part)));
    assert!(found.is_some(), "{parts:?} is not in {text}");
    assert!(lines.next().is_some_and(|line| line.contains('→')), "nothing to do about it: {text}");
}

#[test]
fn check_reports_success_and_changes_nothing() {
    let rig = Rig::with(Persistence::Everysec);
    rig.write_input("one\n");
    for program in [Program::Reader, Program::Writer] {
        let (code, text) = findings(&check(&rig, program));
        assert_eq!(code, Some(0), "{text}");
        for part in ["redis: ", "append-only file is on", "maxmemory-policy", "--stream", "left in", "can start"] {
            assert!(text.contains(part), "{part:?} is not in {text}");
        }
    }
    assert_eq!(rig.redis.cli("DBSIZE").int(), 0, "nothing was made in Redis");
    assert!(!rig.output.exists() && fs::read_dir(rig.folder.join("in")).unwrap().count() == 1);
    rig.reader().once().run_ok();
    let (code, text) = findings(&check(&rig, Program::Writer));
    assert!(code == Some(0) && text.contains("1 entry waits"), "{text}");
    assert_eq!(rig.stream_len(), 1);
}

#[test]
fn check_reports_an_unreachable_redis_and_a_missing_password() {
    let mut rig = Rig::with_redis(Persistence::None, &["--requirepass", "hunter2"]);
    rig.write_input("one\n");
    for program in [Program::Reader, Program::Writer] {
        finds(&check(&rig, program), &["--redis-url ", "NOAUTH: this Redis requires a password"]);
        let wrong = format!("redis://:wrong-secret@127.0.0.1:{}", rig.redis.port());
        let (_, text) = findings(&check(&rig, program).set("--redis-url", &wrong));
        assert!(!text.contains("wrong-secret"), "{text}");
    }
    rig.redis.kill9();
    waits(&check(&rig, Program::Reader), &["redis: ", "refused"]);
}

/// The condition that the service waits for, and its exit code otherwise.
#[test]
fn check_agrees_with_the_reader() {
    let rig = Rig::new();
    let missing = rig.folder.join("later/input.txt");
    waits(&check(&rig, Program::Reader).set("--input", &missing), &["--input: reading ", "No such file"]);
    let looped = rig.folder.join("in/loop.txt");
    std::os::unix::fs::symlink("loop.txt", &looped).unwrap();
    waits(&check(&rig, Program::Reader).set("--input", &looped), &["--input: reading ", "symbolic links"]);
    rig.write_input("one\n");
    for url in ["redis-cluster://127.0.0.1:PORT", "redis://127.0.0.1:PORT/99", "redis://eve@127.0.0.1:PORT"] {
        let url = url.replace("PORT", &rig.redis.port().to_string());
        let service = rig.reader().set("--redis-url", &url).run();
        let log = service.log();
        let said = log.lines().last().unwrap_or_default().strip_prefix("reader: ").unwrap_or_default();
        let (_, text) = findings(&check(&rig, Program::Reader).set("--redis-url", &url));
        let mut lines = text.lines().skip_while(|line| !line.starts_with("WRONG"));
        let what = lines.next().unwrap_or_default().trim_start_matches("WRONG").trim();
        let advice = lines.next().unwrap_or_default().trim_start_matches(" →").trim();
        assert_eq!(format!("{what}; {}", advice.trim_start_matches(['→', ' '])), said, "{text}");
    }
    // Nothing can be added behind the largest ID, and the reader waits until somebody deletes it.
    rig.redis.call(&["XADD", STREAM, "18446744073709551615-1", "a", "b"]);
    waits(&check(&rig, Program::Reader), &["--stream: ", "leaves no larger one"]);
}

#[test]
fn check_reports_a_redis_that_may_lose_the_stream() {
    let rig = Rig::new();
    rig.write_input("one\n");
    rig.redis.config_set("maxmemory", "100mb");
    rig.redis.config_set("maxmemory-policy", "allkeys-lru");
    finds(&check(&rig, Program::Reader), &["allkeys-lru"]);
    rig.redis.config_set("maxmemory-policy", "noeviction");
    rig.redis.config_set("maxmemory", "1");
    waits(&check(&rig, Program::Writer), &["nothing can be added"]);
    rig.redis.config_set("maxmemory", "0");
    rig.redis.call(&["SET", STREAM, "a string"]);
    finds(&check(&rig, Program::Writer), &[STREAM, "string"]);
}

#[test]
fn wrong_files_and_ports_are_found() {
    let rig = Rig::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    finds(&check(&rig, Program::Writer).set("--http-addr", &addr), &["--http-addr", &addr]);
    finds(&check(&rig, Program::Writer).set("--output", rig.folder.join("nowhere/out")), &["--output", "nowhere"]);
    finds(&check(&rig, Program::Reader).set("--input", rig.folder.join("in")), &["--input", "a folder"]);
    fs::write(format!("{}.journal", rig.output.display()), text::numbered(0..10, 1)).unwrap();
    finds(&check(&rig, Program::Writer), &["journal"]);
}

#[test]
fn another_source_and_another_writer_are_found() {
    let rig = Rig::new();
    rig.write_input("one\n");
    rig.reader().once().run_ok();
    let other = rig.folder.join("out/other.txt");
    fs::write(&other, "another text\n").unwrap();
    finds(&check(&rig, Program::Reader).set("--input", &other), &["another file", "input.txt"]);
    let mut writer = rig.writer().start();
    rig.wait_delivered();
    finds(&check(&rig, Program::Writer), &["another writer"]);
    let beside = |name: &str| {
        check(&rig, Program::Writer).set("--output", rig.folder.join("out/beside.txt")).set("--consumer", name)
    };
    finds(&beside("one"), &["--consumer", "another writer is at work as one"]);
    let (code, text) = findings(&beside("two"));
    assert!(code == Some(0) && text.contains("other consumers are at work"), "{text}");
    writer.stop();
    let (code, text) = findings(&beside("one"));
    assert_eq!(code, Some(0), "{text}");
}

#[test]
fn check_reports_missing_permissions_and_changes_nothing() {
    let rig = Rig::with(Persistence::Everysec);
    rig.write_input("one\n");
    let as_user = |name: &str| format!("redis://{name}:pw@127.0.0.1:{}", rig.redis.port());
    rig.redis.cli("ACL SETUSER sees on >pw ~* +@read +@connection +@transaction");
    rig.redis.cli("ACL SETUSER alone on >pw ~* +@all -multi");
    rig.redis.cli("ACL SETUSER elsewhere on >pw ~other +@all");
    rig.redis.cli("ACL SETUSER all on >pw ~* +@all -info -client");
    for (program, writes) in [
        (Program::Reader, "HDEL, HSET, TIME, XADD: "),
        (Program::Writer, "HDEL, HSET, HSETNX, XACK, XGROUP, XREADGROUP, XTRIM: "),
    ] {
        let launch = |user: &str| check(&rig, program).set("--redis-url", as_user(user));
        finds(&launch("sees"), &["redis: ", "lacks permission for ", writes]);
        finds(&launch("alone"), &["redis: the user lacks permission for MULTI: "]);
        finds(&launch("elsewhere"), &["redis: ", "lacks permission for ", "keys"]);
        let (code, text) = findings(&launch("all"));
        assert!(code == Some(0) && text.contains("may run all commands"), "{text}");
    }
    assert_eq!(rig.redis.cli("DBSIZE").int(), 0, "nothing was made in Redis");
}

#[test]
fn check_reports_a_redis_that_refuses_writes() {
    let rig = Rig::new();
    rig.write_input("one\n");
    rig.redis.config_set("min-replicas-to-write", "1");
    for program in [Program::Reader, Program::Writer] {
        waits(&check(&rig, program), &["redis: ", "NOREPLICAS"]);
    }
    rig.redis.config_set("min-replicas-to-write", "0");
    let used: u64 = rig.redis.info("used_memory").unwrap().parse().unwrap();
    rig.redis.config_set("maxmemory", &(used + used / 50).to_string());
    let (code, text) = findings(&check(&rig, Program::Reader));
    assert!(code == Some(0) && text.contains("little is left"), "{text}");
}

#[test]
fn a_source_record_of_another_type_and_an_output_that_is_a_folder_are_found() {
    let rig = Rig::new();
    rig.write_input("one\n");
    rig.redis.call(&["SET", &format!("{{{STREAM}}}:source"), "a string"]);
    finds(&check(&rig, Program::Reader), &["source: ", "WRONGTYPE"]);
    finds(&check(&rig, Program::Writer), &["source: ", "WRONGTYPE"]);
    for name in ["out", "out/", "out/new/"] {
        finds(&check(&rig, Program::Writer).set("--output", rig.folder.join(name)), &["--output", name]);
    }
}

#[test]
fn check_reports_a_running_instance() {
    let rig = Rig::new();
    rig.write_input("one\n");
    let (mut reader, mut writer) = (rig.reader().start(), rig.writer().start());
    rig.wait_delivered();
    for (program, service) in [(Program::Reader, &mut reader), (Program::Writer, &mut writer)] {
        let addr = service.http_addr().to_string();
        let same = check(&rig, program).set("--http-addr", &addr);
        let same = if program == Program::Writer { same.set("--consumer", "one") } else { same };
        let (code, text) = findings(&same);
        assert_eq!(code, Some(0), "{text}");
        assert!(text.ends_with(&format!("ok     {} is running\n", program.name())), "{text}");
        // Another source on the port of the running instance.
        finds(&same.set("--stream", "other"), &["--http-addr", "already in use"]);
    }
}

#[test]
fn findings_are_available_as_json() {
    let rig = Rig::new();
    rig.write_input("one\n");
    let report =
        |launch: Launch| -> serde_json::Value { serde_json::from_str(&findings(&launch.flag("--json")).1).unwrap() };
    let well = report(check(&rig, Program::Reader));
    assert_eq!((&well["service"], &well["exit_code"]), (&"reader".into(), &0.into()), "{well}");
    let wrong = report(check(&rig, Program::Writer).set("--output", "-"));
    assert_eq!(wrong["exit_code"], 2);
    let found = wrong["findings"].as_array().unwrap().iter().find(|found| found["kind"] == "wrong").unwrap();
    assert!(found["what"].as_str().unwrap().starts_with("--output: -: standard output"), "{found}");
    assert!(!found["advice"].as_str().unwrap().is_empty());
}
