//! `reader --add-field`: constant fields for other consumers.

use e2e::rig::{STREAM, append};
use e2e::{Program, Rig, Service, text};

/// The fields of each entry of a stream, in order: names and values.
fn fields(rig: &Rig, stream: &str) -> Vec<Vec<String>> {
    let entries = rig.redis.call(&["XRANGE", stream, "-", "+"]);
    let of = |entry: &e2e::Value| {
        let [_, fields] = entry.list() else { panic!("an entry: {entry:?}") };
        fields.list().iter().map(e2e::Value::text).collect()
    };
    entries.list().iter().map(of).collect()
}

/// Asserts that each entry of the stream ends with these fields.
#[track_caller]
fn assert_end(rig: &Rig, stream: &str, added: &[&str]) -> usize {
    let entries = fields(rig, stream);
    assert!(!entries.is_empty(), "{stream}");
    for entry in &entries {
        let own = entry.len().checked_sub(added.len()).unwrap();
        let (first, end) = entry.split_at(own);
        assert!(end == added && matches!(first.len(), 2 | 4), "{entry:?}");
    }
    entries.len()
}

fn host() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap().trim().to_owned()
}

#[track_caller]
fn assert_nothing_foreign(writer: &mut Service, rig: &Rig) {
    rig.wait_delivered();
    rig.assert_identical();
    assert_eq!(writer.metric("writer_foreign_entries_total"), 0.0);
    writer.stop();
}

/// A few lines go out as a script, many as a transaction; the last line has no newline at first.
#[test]
fn each_entry_has_the_fields_and_the_writer_ignores_them() {
    for framing in ["line", "chunk"] {
        let rig = Rig::new();
        let file = rig.input.display().to_string();
        let added = ["env", "prod", "file", &file, "host", &host()];
        let reader = || {
            let reader = rig.reader().set("--framing", framing).word("--add-field=env=prod");
            reader.word("--add-field=file={file}").word("--add-field=host={host}").once()
        };
        rig.write_input("one\ntwo\nthr");
        reader().run_ok();
        append(&rig.input, text::numbered(0..3000, 1));
        reader().run_ok();
        // The reader recognises its own last entry, and adds nothing twice.
        let count = assert_end(&rig, STREAM, &added);
        reader().run_ok();
        assert_eq!(assert_end(&rig, STREAM, &added), count, "{framing}");
        let mut writer = rig.writer().start();
        assert_nothing_foreign(&mut writer, &rig);
        rig.command(Program::Writer).word("verify").set("--input", &rig.input).set("--output", &rig.output).run_ok();
    }
}

#[test]
fn the_fields_follow_the_position_that_partitions_need() {
    let rig = Rig::new();
    rig.write_input(text::numbered(0..20_000, 1));
    let reader = rig.reader().set("--partitions", "2").set("--add-field", "env=prod");
    reader.once().run_ok();
    for partition in 0..2 {
        let stream = format!("{STREAM}:{{{partition}}}");
        assert_end(&rig, &stream, &["env", "prod"]);
        let entries = fields(&rig, &stream);
        assert!(entries.iter().any(|entry| entry[2] == "after"), "partition {partition}");
    }
    let mut writer = rig.writer().set("--partitions", "2").once().run();
    assert_eq!(writer.code(), Some(0), "{}", writer.log());
    assert!(!writer.log().contains("foreign"), "{}", writer.log());
    assert_eq!(std::fs::metadata(&rig.output).unwrap().len(), std::fs::metadata(&rig.input).unwrap().len());
}

#[test]
fn of_many_files_each_has_its_own_path() {
    let rig = Rig::new();
    let path = |name: &str| rig.folder.join("in").join(name);
    let reader = || rig.service(Program::Reader).set("--input", path("*.log")).set("--add-field", "file={file}");
    for name in ["a.log", "b.log"] {
        append(&path(name), "one\ntwo\n");
    }
    let checked = reader().word("check").run().process().stdout();
    let checked = String::from_utf8_lossy(&checked).into_owned();
    assert!(checked.contains("--add-field: each entry of") && checked.contains("in/a.log\""), "{checked}");
    reader().once().run_ok();
    for name in ["a.log", "b.log"] {
        let file = path(name).display().to_string();
        assert_eq!(assert_end(&rig, &format!("{STREAM}:{{{name}}}"), &["file", &file]), 2);
    }
    let mut refused = reader().set("--add-field", "after=1").once().run();
    let log = refused.log();
    assert_eq!(refused.code(), Some(2), "{log}");
    assert!(log.lines().last().unwrap().starts_with("reader: --add-field \"after=1\": "), "{log}");
}
