//! `--once`: processes the available lines, then exits with code 0.

use e2e::{Rig, rig, text};

#[test]
fn a_real_text_comes_out_as_it_went_in() {
    let rig = Rig::new();
    text::write_real(&rig.input, text::REAL_LINES);
    rig.reader().once().run_ok();
    assert_eq!(rig.stream_len(), text::REAL_LINES as i64);
    rig.writer().once().run_ok();
    rig.assert_identical();
    assert_eq!(rig.pending(), 0);
}

#[test]
fn a_real_text_comes_out_as_it_went_in_as_chunks() {
    let rig = Rig::new();
    text::write_real(&rig.input, text::REAL_LINES);
    rig.reader().once().set("--framing", "chunk").run_ok();
    let entries = rig.stream_len();
    assert!(entries < text::REAL_LINES as i64 / 50, "{entries} entries are no chunks");
    rig.writer().once().run_ok();
    rig.assert_identical();
    assert_eq!(rig.pending(), 0);
}

#[test]
fn an_empty_file_is_done_at_once() {
    let rig = Rig::new();
    rig.write_input("");
    rig.reader().once().run_ok();
    rig.writer().once().run_ok();
    rig.assert_identical();
}

#[test]
fn one_newline_is_one_empty_line() {
    let rig = Rig::new();
    rig.write_input("\n");
    rig.reader().once().run_ok();
    assert_eq!(rig.stream_len(), 1);
    rig.writer().once().run_ok();
    rig.assert_identical();
}

#[test]
fn a_second_run_adds_nothing() {
    for framing in ["line", "chunk"] {
        let rig = Rig::new();
        rig.write_input([&text::numbered(0..1000, 1)[..], b"no newline"].concat());
        for _ in 0..3 {
            rig.reader().once().set("--framing", framing).run_ok();
            rig.writer().once().run_ok();
            rig.assert_identical();
        }
        // Every added entry raises the last ID, and trimming does not lower it.
        let last = || rig.redis.call(&["XINFO", "STREAM", rig::STREAM]).field("last-generated-id").bytes().to_vec();
        let before = last();
        rig.reader().once().set("--framing", framing).run_ok();
        assert_eq!(last(), before, "{framing}");
    }
}

#[test]
fn a_last_line_that_grows_after_it_was_sent_comes_out_whole() {
    for framing in ["line", "chunk"] {
        let rig = Rig::new();
        // Every piece except the last ends inside a line.
        for piece in ["one\ntw", "o", "\n", "three\nfo", "ur", "r\nfive\n\nsi", "x\n", "seven", "\n"] {
            rig.append_input(piece);
            rig.reader().once().set("--framing", framing).run_ok();
            rig.writer().once().run_ok();
            rig.assert_identical();
        }
    }
}

#[test]
fn a_last_line_that_grows_before_the_writer_runs_comes_out_whole() {
    let rig = Rig::new();
    for piece in ["one\ntw", "o", "\n", "three\nfo", "ur"] {
        rig.append_input(piece);
        rig.reader().once().run_ok();
    }
    rig.writer().once().run_ok();
    rig.assert_identical();
}

#[test]
fn framings_can_change_in_the_middle() {
    let rig = Rig::new();
    for (n, framing) in ["line", "chunk", "line", "chunk"].into_iter().enumerate() {
        let from = n as u64 * 1000;
        rig.append_input(text::numbered(from..from + 1000, 5));
        rig.append_input("a fragment ");
        rig.reader().once().set("--framing", framing).run_ok();
    }
    rig.writer().once().run_ok();
    rig.assert_identical();
}

#[test]
fn a_unix_socket_and_a_numbered_database_work() {
    let rig = Rig::new();
    rig.write_input(text::numbered(0..1000, 1));
    rig.reader().once().set("--redis-url", rig.redis.unix_url()).run_ok();
    rig.writer().once().set("--redis-url", rig.redis.unix_url()).run_ok();
    rig.assert_identical();

    let rig = Rig::new();
    rig.write_input(text::numbered(0..1000, 1));
    let url = format!("{}/3", rig.redis.url());
    rig.reader().once().set("--redis-url", &url).run_ok();
    assert_eq!(rig.stream_len(), 0, "database 0 stays empty");
    rig.writer().once().set("--redis-url", &url).run_ok();
    rig.assert_identical();
}

#[test]
fn flags_come_from_the_environment_too() {
    let rig = Rig::new();
    rig.write_input("one\ntwo\n");
    let with_env = |launch: e2e::Launch| {
        launch
            .env("REDIS_URL", rig.redis.url())
            .env("LINE_STREAM_STREAM", "other")
            .env("LINE_STREAM_HTTP_ADDR", "127.0.0.1:0")
            .env("LINE_STREAM_ONCE", "true")
    };
    with_env(rig.command(e2e::Program::Reader)).env("LINE_STREAM_INPUT", &rig.input).run_ok();
    assert_eq!(rig.redis.cli("XLEN other").int(), 2);
    with_env(rig.command(e2e::Program::Writer)).env("LINE_STREAM_OUTPUT", &rig.output).run_ok();
    rig.assert_identical();
}
