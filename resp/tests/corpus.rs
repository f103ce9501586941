//! The fuzz targets on their saved corpus, so that every test run repeats what fuzzing found.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    unreachable_pub,
    reason = "helpers of tests fail by panicking"
)]

use std::path::Path;

#[path = "../../fuzz/src/targets.rs"]
mod targets;

#[test]
fn every_target_holds_on_its_corpus() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus");
    for (name, target) in targets::TARGETS {
        let folder = corpus.join(name);
        let mut inputs = 0;
        for file in std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
            let path = file.unwrap().path();
            let input = std::fs::read(&path).unwrap();
            let run = std::panic::catch_unwind(|| target(&input));
            assert!(run.is_ok(), "{} breaks the target {name}", path.display());
            inputs += 1;
        }
        assert!(inputs > 0, "{} is empty", folder.display());
        // Prefixes of inputs, and the empty input.
        target(&[]);
    }
}

/// The most expensive known inputs, measured in memory per byte.
#[test]
fn the_decoder_holds_its_bound_of_memory() {
    let begin = [
        "",
        "*99999\r\n",
        "%49999\r\n",
        "*?\r\n",
        "%?\r\n",
        "$?\r\n",
        "|9999\r\n",
        "|?\r\n",
        "*2\r\n$99999\r\n",
        "=9999\r\n",
        "+",
    ];
    let middle = [
        "_\r\n",
        "|0\r\n",
        "*0\r\n",
        "*1\r\n",
        "*?\r\n",
        "*?\r\n.\r\n",
        "%?\r\n",
        "|?\r\n",
        "|1\r\n",
        "|1\r\n_\r\n_\r\n",
        "|1\r\n_\r\n_\r\n_\r\n",
        "$?\r\n;0\r\n",
        "$?\r\n;1\r\na\r\n;1\r\nb\r\n;0\r\n",
        ";1\r\na\r\n",
        "$0\r\n\r\n",
        "$99\r\n",
        "x",
    ];
    for (begin, middle) in begin.iter().flat_map(|begin| middle.iter().map(move |middle| (begin, middle))) {
        for count in [1, 60, 1000] {
            for mode in [b"\x00\x00", b"\x01\x00", b"\x02\x00", b"\x03\x00"] {
                let input = [&mode[..], begin.as_bytes(), middle.repeat(count).as_bytes()].concat();
                let run = std::panic::catch_unwind(|| targets::decoder(&input));
                assert!(run.is_ok(), "{begin:?} and {count} times {middle:?}, mode {mode:?}");
            }
        }
    }
}
