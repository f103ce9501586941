//! The exact message for each problem with many files, and for what is easily confused: the stream
//! of one file and those of many.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use e2e::{Launch, Program, Rig};

use crate::messages::says;

fn reader(rig: &Rig) -> Launch {
    rig.service(Program::Reader).once().set("--input", rig.folder.join("in/*.log"))
}

fn writer(rig: &Rig) -> Launch {
    rig.service(Program::Writer).once().set("--output-dir", rig.folder.join("mirror"))
}

/// The same configuration, checked.
fn check(launch: &Launch, program: Program, rig: &Rig) -> (Option<i32>, String) {
    let (flag, value) = match program {
        Program::Reader => ("--input", "in/*.log"),
        Program::Writer => ("--output-dir", "mirror"),
    };
    let checked = rig.service(program).word("check").set(flag, rig.folder.join(value));
    let mut run = launch.clone().run();
    let expected = run.code();
    let mut run = checked.run();
    let text = String::from_utf8(run.process().stdout()).unwrap();
    assert_eq!(run.code(), expected, "the service ends with {expected:?}: {text}");
    (run.code(), text)
}

#[test]
fn a_stream_of_one_file_does_not_carry_many() {
    let rig = Rig::new();
    rig.write_input("one\n");
    rig.reader().once().run_ok();
    fs::write(rig.folder.join("in/a.log"), "a\n").unwrap();
    let line = "--stream line_stream: it carries a single file already (--partitions 1); allowed: another --stream for many files";
    let launch = reader(&rig);
    let refused = launch.run();
    assert_eq!(refused.log().lines().last(), Some(format!("reader: {line}").as_str()), "{}", refused.log());
    let (code, text) = check(&launch, Program::Reader, &rig);
    assert!(code == Some(2) && text.contains(&format!("WRONG  {line}")), "{text}");
    assert!(!rig.folder.join("in/.line_stream.sources").exists(), "a refused start changes nothing");
    // A writer of many outputs would wait without a word.
    let mut run = writer(&rig).run();
    let warned = run.log().lines().filter(|line| line.contains("WARN")).count();
    assert!(run.code() == Some(0) && warned == 1, "{}", run.log());
    let why = "line_stream:sources lists no source, and line_stream is the stream of a single file";
    assert!(run.log().contains(why), "{}", run.log());
    let (_, text) = check(&writer(&rig), Program::Writer, &rig);
    assert!(text.contains(&format!("note   sources: {why}")), "{text}");
}

#[test]
fn a_single_output_for_many_files_is_noticed() {
    let rig = Rig::new();
    fs::write(rig.folder.join("in/a.log"), "a\n").unwrap();
    reader(&rig).run_ok();
    let mut run = rig.writer().once().run();
    let said: Vec<_> = run.log().lines().filter(|line| line.contains("WARN")).map(str::to_owned).collect();
    assert_eq!(run.code(), Some(0), "{}", run.log());
    let expected = "stream line_stream was empty, but line_stream:sources lists 1 source of many files; to write those, use --output-dir instead of --output";
    assert!(matches!(&said[..], [line] if line.ends_with(expected)), "{said:?}");
}

#[test]
fn the_list_of_sources_is_a_key_of_another_program() {
    let rig = Rig::new();
    fs::write(rig.folder.join("in/a.log"), "a\n").unwrap();
    rig.redis.cli("SET line_stream:sources x");
    for (program, launch, command) in [(Program::Reader, reader(&rig), "HSET"), (Program::Writer, writer(&rig), "HLEN")]
    {
        let run = launch.run();
        let line = format!(
            "--stream: the key line_stream:sources holds another type ({command}: WRONGTYPE Operation against a key \
             holding the wrong kind of value); allowed: a hash, or a key that does not exist"
        );
        assert!(run.log().lines().last().is_some_and(|last| last.ends_with(&line)), "{}", run.log());
        let (code, _) = check(&launch, program, &rig);
        assert_eq!(code, Some(2));
    }
}

#[test]
fn patterns_that_overlap_are_one_set_of_files() {
    let rig = Rig::new();
    fs::write(rig.folder.join("in/a.log"), "a\n").unwrap();
    reader(&rig).set("--input", rig.folder.join("in/a*")).run_ok();
    assert_eq!(rig.redis.cli("XLEN line_stream:{a.log}").int(), 1);
}

/// The other files are sent.
#[test]
fn a_file_that_cannot_be_read_is_named() {
    let rig = Rig::new();
    let (a, b, state) = (rig.folder.join("in/a.log"), rig.folder.join("in/b.log"), rig.folder.join("state"));
    fs::write(&a, "a\n").unwrap();
    fs::write(&b, "b\n").unwrap();
    fs::create_dir(&state).unwrap();
    fs::set_permissions(&b, PermissionsExt::from_mode(0o000)).unwrap();
    fs::set_permissions(&state, PermissionsExt::from_mode(0o777)).unwrap();
    let nobody = |launch: Launch| match rustix::process::geteuid().is_root() {
        true => launch.under(&["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]),
        false => launch,
    };
    let launch = || nobody(rig.service(Program::Reader)).set("--input", rig.folder.join("in/*.log"));
    let why = format!(
        "cannot read {}: Permission denied (os error 13); waiting; use a regular file, and allow the service's user to read it",
        b.display()
    );
    let mut run = launch().once().set("--state-dir", &state).run();
    assert_eq!(run.code(), Some(2), "{}", run.log());
    assert_eq!(run.log().lines().last(), Some(format!("reader: {why}").as_str()), "{}", run.log());
    assert_eq!(rig.redis.cli("XLEN line_stream:{a.log}").int(), 1);
    let mut reader = launch().set("--state-dir", &state).start();
    reader.wait_for_log(&["WARN", &format!("source b.log: {why}")]);
    reader.stop();
    let mut run = launch().word("check").set("--state-dir", &state).run();
    let text = String::from_utf8(run.process().stdout()).unwrap();
    assert!(run.code() == Some(1) && text.contains("waits  --input: reading "), "{text}");
}

#[test]
fn a_file_where_a_folder_should_be() {
    let rig = Rig::new();
    fs::write(rig.folder.join("mirror"), "").unwrap();
    let line = format!(
        "writer: --output-dir {}: it is not a folder; allowed: a folder, or one that can be created",
        rig.folder.join("mirror").display()
    );
    says(&writer(&rig), 2, &line);
    assert_eq!(check(&writer(&rig), Program::Writer, &rig).0, Some(2));
}

/// A refused start leaves no folder.
#[test]
fn the_state_folder_is_created_with_the_first_file() {
    let rig = Rig::new();
    rig.write_input("one\n");
    fs::write(rig.folder.join("in/a.log"), "a\n").unwrap();
    let state = rig.folder.join("state");
    for (launch, name) in [
        (rig.reader().once(), ".input.txt.line_stream.source.json"),
        (reader(&rig).set("--stream", "many"), ".many.sources"),
    ] {
        let launch = launch.set("--state-dir", &state);
        let refused = launch.clone().set("--redis-url", format!("redis://127.0.0.1:{}/99", rig.redis.port()));
        assert_eq!(refused.run().code(), Some(2));
        assert!(!state.exists());
        launch.run_ok();
        assert!(state.join(name).exists());
        fs::remove_dir_all(&state).unwrap();
    }
    let missing = rig.folder.join("a/b");
    says(
        &rig.reader().once().set("--state-dir", &missing),
        2,
        &format!(
            "reader: --state-dir {}: No such file or directory (os error 2); allowed: a folder that can be created in an existing one",
            missing.display()
        ),
    );
}

/// `check` and the service agree.
#[test]
fn certificates_that_cannot_be_read() {
    let rig = Rig::new();
    rig.write_input("one\n");
    let url = format!("rediss://127.0.0.1:{}", rig.redis.port());
    for (parameters, why) in [
        ("ca=/nowhere", "/nowhere: No such file or directory (os error 2)"),
        ("cert=/nowhere", "a client certificate needs its key, and the reverse"),
    ] {
        let launch = rig.reader().set("--redis-url", format!("{url}?{parameters}"));
        let allowed = "allowed: certificates and a key that can be read, in ca=, cert= and key=";
        says(&launch, 2, &format!("reader: --redis-url {url}: TLS: {why}; {allowed}"));
        let check = rig.service(Program::Reader).word("check").set("--input", &rig.input);
        assert_eq!(check.set("--redis-url", format!("{url}?{parameters}")).run().code(), Some(2));
    }
}
