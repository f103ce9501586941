//! Wrong input causes one clear line and the right exit code.

use std::net::TcpListener;

use e2e::rig::STREAM;
use e2e::{Launch, Program, Rig, Service};

fn both(rig: &Rig) -> [Launch; 2] {
    rig.write_input("one\n");
    [rig.reader(), rig.writer()]
}

/// Asserts exit code 2, and a last line that contains all of `parts`. Returns the other lines.
#[track_caller]
fn refused(service: &mut Service, parts: &[&str]) -> usize {
    assert_eq!(service.code(), Some(2), "{}", service.log());
    let log = service.log();
    let last = log.lines().last().unwrap_or_default();
    for part in parts {
        assert!(last.contains(part), "{part:?} is not in {last:?}");
    }
    log.lines().count() - 1
}

#[test]
fn a_url_of_another_scheme_is_refused() {
    let rig = Rig::new();
    for launch in both(&rig) {
        let others = refused(
            &mut launch.set("--redis-url", "http://127.0.0.1:6379").run(),
            &["--redis-url", "http", "redis://"],
        );
        assert_eq!(others, 0, "one line");
    }
}

#[test]
fn malformed_urls_are_refused() {
    let rig = Rig::new();
    for url in [
        "",
        "127.0.0.1:6379",
        "redis://",
        "redis://127.0.0.1:99999",
        "redis://127.0.0.1:6379/x",
        "unix://",
        "redis://[::1",
    ] {
        for launch in both(&rig) {
            // An empty variable counts as unset; an empty flag is a value.
            let others = refused(&mut launch.set("--redis-url", url).run(), &["--redis-url"]);
            assert_eq!(others, 0, "one line");
        }
    }
}

#[test]
fn wrong_values_of_flags_are_refused() {
    let rig = Rig::new();
    for (program, flag, value) in [
        (Program::Reader, "--framing", "words"),
        (Program::Reader, "--from", "middle"),
        (Program::Reader, "--max-backlog", "many"),
        (Program::Reader, "--max-backlog", "18446744073709551616"),
        (Program::Reader, "--http-addr", "nowhere"),
        (Program::Reader, "--stream", ""),
        (Program::Writer, "--fsync", "sometimes"),
        (Program::Writer, "--claim-idle", "soon"),
        (Program::Writer, "--group", ""),
        (Program::Writer, "--consumer", ""),
        (Program::Writer, "--http-addr", "127.0.0.1:99999"),
    ] {
        let launch = if program == Program::Reader { rig.reader() } else { rig.writer() };
        let others = refused(&mut launch.set(flag, value).run(), &[flag, value]);
        assert_eq!(others, 0, "one line for {flag} {value:?}");
    }
    for launch in both(&rig) {
        let others = refused(&mut launch.flag("--no-such-flag").run(), &["--no-such-flag"]);
        assert_eq!(others, 0, "one line");
    }
}

#[test]
fn an_unreachable_redis_is_waited_for() {
    let mut rig = Rig::new();
    rig.redis.kill9();
    for launch in both(&rig) {
        let mut service = launch.start();
        service.wait_for_log(&["redis", "refused"]);
        assert_eq!(service.healthz().0, 200);
        let (status, reason) = service.readyz();
        assert_eq!(status, 503);
        assert!(reason.contains("redis"), "{reason}");
        let told =
            |service: &Service| service.log().lines().filter(|line| line.to_lowercase().contains("refused")).count();
        service.wait_for_metric("line_stream_errors_total", |errors| errors >= 3.0);
        assert_eq!(told(&service), 1, "once per change of state: {}", service.log());
        service.stop();
    }
    rig.redis.start_again();
    let (mut reader, mut writer) = (rig.reader().once().run(), rig.writer().once().run());
    assert_eq!((reader.code(), writer.code()), (Some(0), Some(0)));
    rig.assert_identical();
}

#[test]
fn a_redis_that_comes_later_is_found() {
    let mut rig = Rig::new();
    rig.redis.kill9();
    rig.write_input("one\ntwo\n");
    let mut reader = rig.reader().once().start();
    let mut writer = rig.writer().start();
    reader.wait_for_log(&["redis", "refused"]);
    rig.redis.start_again();
    rig.wait_delivered();
    reader.wait_exit(e2e::wait::SOON);
    assert_eq!(reader.code(), Some(0));
    writer.stop();
    rig.assert_identical();
}

#[test]
fn a_wrong_password_is_refused_and_never_shown() {
    let rig = Rig::with_redis(e2e::Persistence::None, &["--requirepass", "right"]);
    let port = rig.redis.port();
    for launch in both(&rig) {
        let url = format!("redis://:wrong-secret@127.0.0.1:{port}");
        let mut service = launch.clone().unset("--redis-url").env("REDIS_URL", &url).env("RUST_LOG", "trace").run();
        refused(&mut service, &["--redis-url"]);
        assert!(!service.log().contains("wrong-secret"), "{}", service.log());
        let mut service = launch.run();
        refused(&mut service, &["--redis-url"]);
    }
    let right = format!("redis://:right@127.0.0.1:{port}");
    rig.reader().set("--redis-url", &right).once().run_ok();
    rig.writer().set("--redis-url", &right).once().run_ok();
    rig.assert_identical();
}

#[test]
fn a_secret_is_on_no_page_and_in_no_log() {
    let rig = Rig::with_redis(e2e::Persistence::None, &["--requirepass", "hunter2"]);
    let url = format!("redis://default:hunter2@127.0.0.1:{}", rig.redis.port());
    for launch in both(&rig) {
        let mut service = launch.unset("--redis-url").env("REDIS_URL", &url).env("RUST_LOG", "trace").start();
        e2e::wait::until("ready", || service.readyz().0 == 200);
        for path in ["/", "/metrics", "/healthz", "/readyz", "/nothing"] {
            assert!(!service.get(path).1.contains("hunter2"), "{path}");
        }
        let pid = service.process().pid().as_raw_nonzero();
        let title = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        assert!(!title.contains("hunter2"));
        service.stop();
        assert!(!service.log().contains("hunter2"));
    }
}

#[test]
fn irregular_files_are_refused() {
    let rig = Rig::new();
    let mut writer = rig.writer().set("--output", "/dev/full").once().run();
    refused(&mut writer, &["--output", "/dev/full", "allowed: a regular file"]);
    assert!(!writer.log().contains(" lines ("), "a summary of a run that did nothing: {}", writer.log());
}

#[test]
fn a_key_of_another_type_is_refused() {
    let rig = Rig::new();
    rig.redis.call(&["SET", STREAM, "a string"]);
    for launch in both(&rig) {
        refused(&mut launch.run(), &["--stream", STREAM]);
    }
    assert_eq!(rig.redis.call(&["GET", STREAM]).text(), "a string");
}

#[test]
fn a_key_that_became_another_type_is_refused() {
    for strike in ["SET", "LPUSH"] {
        let rig = Rig::new();
        rig.write_input("one\n");
        let (mut reader, mut writer) = (rig.reader().start(), rig.writer().start());
        rig.wait_delivered();
        rig.redis.call(&["DEL", STREAM]);
        rig.redis.call(&[strike, STREAM, "something else"]);
        rig.append_input("two\n");
        for service in [&mut reader, &mut writer] {
            service.wait_exit(e2e::wait::SOON);
            refused(service, &["--stream", STREAM]);
        }
    }
}

#[test]
fn a_missing_output_folder_is_refused() {
    let rig = Rig::new();
    let output = rig.folder.join("nowhere/output.txt");
    refused(&mut rig.writer().set("--output", &output).run(), &["--output", "nowhere"]);
}

#[test]
fn an_output_that_is_a_folder_is_refused() {
    let rig = Rig::new();
    let output = rig.folder.join("out");
    refused(&mut rig.writer().set("--output", &output).run(), &["--output"]);
}

#[test]
fn an_input_that_is_a_folder_is_refused() {
    let rig = Rig::new();
    let input = rig.folder.join("in");
    refused(&mut rig.reader().set("--input", &input).run(), &["--input", "/in"]);
}

#[test]
fn a_port_in_use_is_refused() {
    let rig = Rig::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    for launch in both(&rig) {
        let others = refused(&mut launch.set("--http-addr", &addr).run(), &["--http-addr", &addr]);
        assert_eq!(others, 0, "one line");
    }
}

#[test]
fn a_second_writer_on_the_same_output_is_refused() {
    let rig = Rig::new();
    rig.write_input("one\n");
    let mut first = rig.writer().start();
    rig.reader().once().run_ok();
    rig.wait_delivered();
    refused(&mut rig.writer().set("--consumer", "two").run(), &["--output", "output.txt"]);
    rig.append_input("two\n");
    rig.reader().once().run_ok();
    rig.wait_delivered();
    first.stop();
    rig.assert_identical();
}

#[test]
fn help_and_version_are_no_errors() {
    let rig = Rig::new();
    for program in [Program::Reader, Program::Writer] {
        let mut help = rig.command(program).flag("--help").run();
        assert_eq!(help.code(), Some(0));
        let text = String::from_utf8(help.process().stdout()).unwrap();
        for flag in ["--redis-url", "--stream", "--http-addr", "--once", "REDIS_URL"] {
            assert!(text.contains(flag), "{flag} is not in {text}");
        }
        assert_eq!(rig.command(program).flag("--version").run().code(), Some(0));
    }
}
