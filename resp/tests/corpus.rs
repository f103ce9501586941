//! The fuzz targets on their kept corpus, so that what fuzzing has found is looked at with every test run.
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
        // And on the beginnings of inputs, and on none.
        target(&[]);
    }
}
