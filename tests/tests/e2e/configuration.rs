//! Flags from a file, a password from a file, and JSON logs.

use std::fs;

use e2e::{Launch, Persistence, Program, Rig};

#[test]
fn the_environment_and_the_command_line_override_the_file() {
    let rig = Rig::new();
    rig.write_input("one\ntwo\n");
    let config = rig.folder.join("reader.toml");
    let text = format!(
        "redis-url = \"{}\"\nstream = \"of-the-file\"\nhttp-addr = \"127.0.0.1:0\"\ninput = \"{}\"\nonce = true\n",
        rig.redis.url(),
        rig.input.display()
    );
    fs::write(&config, &text).unwrap();
    let reader = || rig.command(Program::Reader).set("--config", &config);
    reader().run_ok();
    reader().env("LINE_STREAM_STREAM", "of-the-environment").run_ok();
    reader().env("LINE_STREAM_STREAM", "of-the-environment").set("--stream", "of-the-command-line").run_ok();
    for stream in ["of-the-file", "of-the-environment", "of-the-command-line"] {
        assert_eq!(rig.redis.call(&["XLEN", stream]).int(), 2, "{stream}");
    }
    let mut checked = reader().word("check").run();
    assert_eq!(checked.code(), Some(0), "{}", String::from_utf8_lossy(&checked.process().stdout()));

    fs::write(&config, format!("{text}streem = \"x\"\n")).unwrap();
    let mut refused = reader().run();
    assert_eq!(refused.code(), Some(2));
    assert!(refused.log().contains("streem: no such key"), "{}", refused.log());
}

#[test]
fn a_password_comes_from_a_file() {
    let rig = Rig::with_redis(Persistence::None, &["--requirepass", "hunter2"]);
    rig.write_input("one\n");
    let password = rig.folder.join("password");
    fs::write(&password, "hunter2\n").unwrap();
    let with = |launch: Launch| launch.once().set("--redis-password-file", &password).env("RUST_LOG", "trace");
    for launch in [with(rig.reader()), with(rig.writer())] {
        let mut service = launch.run();
        assert_eq!(service.code(), Some(0), "{}", service.log());
        assert!(!service.log().contains("hunter2"), "{}", service.log());
    }
    rig.assert_identical();
    fs::remove_file(&password).unwrap();
    let mut refused = with(rig.reader()).run();
    assert_eq!(refused.code(), Some(2));
    assert!(refused.log().contains("--redis-password-file"), "{}", refused.log());
}

#[test]
fn every_line_of_a_log_for_machines_is_json() {
    let rig = Rig::new();
    rig.write_input("one\n");
    let json = |launch: Launch| launch.once().set("--log-format", "json").run();
    let failing = rig.writer().set("--output", rig.folder.join("nowhere/out"));
    for (launch, code) in [(rig.reader(), 0), (rig.writer(), 0), (failing, 2)] {
        let mut service = json(launch);
        assert_eq!(service.code(), Some(code));
        let log = service.log();
        assert!(log.lines().count() > 1, "{log}");
        for line in log.lines() {
            let value: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
            for field in ["timestamp", "level", "target", "message"] {
                assert!(value[field].is_string(), "{field}: {line}");
            }
        }
    }
}

#[test]
fn the_version_names_commit_and_target() {
    let rig = Rig::new();
    for program in [Program::Reader, Program::Writer] {
        let version = rig.command(program).flag("--version").run();
        let text = String::from_utf8(version.process().stdout()).unwrap();
        assert!(text.contains("(commit ") && text.contains(std::env::consts::ARCH), "{text}");
    }
}

#[test]
fn settings_that_silence_the_log_are_reported() {
    let rig = Rig::new();
    rig.write_input("one\n");
    let log = |spec: &str| {
        let mut reader = rig.reader().once().env("RUST_LOG", spec).run();
        assert_eq!(reader.code(), Some(0), "{}", reader.log());
        reader.log()
    };
    // A misspelt level is parsed as the name of a module that does not exist.
    assert!(log("inof").contains("RUST_LOG \"inof\": it disables all logs"), "{}", log("inof"));
    assert!(log("reader=loud").contains("invalid logging spec 'loud'; using info instead; allowed: info"));
    assert!(log("reader=loud").contains("reader: done"), "a wrong variable counts as not set");
    assert_eq!(log("off"), "");
    assert!(log("").contains("reader: done"), "an empty variable counts as not set");
    assert!(!log("reader=warn").contains("RUST_LOG"));
}
