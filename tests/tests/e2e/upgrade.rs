//! The services continue from the files and the source record of earlier versions
//! (`tests/fixtures/README.md`).

use std::fs;
use std::path::{Path, PathBuf};

use e2e::{Rig, rig, text};

const STATE_FILE: &str = ".input.txt.line_stream.source.json";

/// The formats for which there are fixtures.
const FORMATS: [&str; 2] = ["format-1", "format-2"];

fn fixture(format: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(format)
}

/// A source, an output and their Redis, as services with this format left them.
fn left_by(format: &str) -> Rig {
    let (rig, fixture) = (Rig::new(), fixture(format));
    for (from, to) in [
        ("in/input.txt", "in/input.txt"),
        ("in/input.txt.1", "in/input.txt.1"),
        ("in/source.json", &format!("in/{STATE_FILE}")),
        ("out/output.txt", "out/output.txt"),
        ("out/output.txt.journal", "out/output.txt.journal"),
    ] {
        fs::copy(fixture.join(from), rig.folder.join(to)).unwrap();
    }
    for line in fs::read_to_string(fixture.join("redis.jsonl")).unwrap().lines() {
        let words: Vec<String> = serde_json::from_str(line).unwrap();
        rig.redis.call(&words.iter().map(String::as_str).collect::<Vec<_>>());
    }
    rig
}

/// Both services process the rest; the output must be the whole source, each line once.
#[track_caller]
fn goes_on(rig: &Rig, format: &str) {
    rig.append_input(text::numbered(0..50, 1));
    for launch in [rig.reader(), rig.writer()] {
        let mut service = launch.once().run();
        assert_eq!(service.code(), Some(0), "{format}: {}", service.log());
    }
    let source = [fs::read(rig.folder.join("in/input.txt.1")).unwrap(), fs::read(&rig.input).unwrap()].concat();
    assert!(rig.output_bytes() == source, "{format}: {} of {} bytes", rig::len(&rig.output), source.len());
}

#[test]
fn services_continue_from_the_files_and_the_redis_of_earlier_versions() {
    for format in FORMATS {
        let rig = left_by(format);
        goes_on(&rig, format);
        let journal = fs::read(rig.folder.join("out/output.txt.journal")).unwrap();
        assert_eq!(&journal[..8], b"LSJRNL02", "{format}: rewritten in the present format");
    }
}

#[test]
fn the_state_files_and_journals_of_earlier_versions_survive_an_emptied_redis() {
    for format in FORMATS {
        let rig = left_by(format);
        rig.redis.call(&["FLUSHALL"]);
        goes_on(&rig, format);
    }
}
