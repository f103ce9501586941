//! Statements of the documentation about tests and messages are correct.

const README: &str = include_str!("../../../README.md");
const DELIVERY: &str = include_str!("../../../docs/delivery.md");

/// The tests named in a section.
fn tests_named(page: &'static str, section: &str) -> Vec<&'static str> {
    let section = page.split("\n## ").find(|part| part.starts_with(section)).unwrap();
    section.split('`').filter(|word| word.contains("::")).collect()
}

#[test]
fn the_tests_that_the_guarantees_name_exist() {
    let (short, all) = (tests_named(README, "What it guarantees"), tests_named(DELIVERY, "What each test proves"));
    assert!(short.len() > 10 && all.len() > 50, "{} {}", short.len(), all.len());
    for name in short.into_iter().chain(all) {
        let (file, function) = name.split_once("::").unwrap();
        let path = format!("{}/tests/e2e/{file}.rs", env!("CARGO_MANIFEST_DIR"));
        let source = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        assert!(source.contains(&format!("#[test]\nfn {function}() {{")), "there is no test {name}");
    }
}

#[test]
fn the_messages_in_the_docs_are_those_of_the_services() {
    let docs = include_str!("../../../docs/messages.md");
    let words = include_str!("../../../service/src/advice.rs");
    let advice: Vec<&str> = words.split('"').skip(1).step_by(2).collect();
    assert!(advice.len() > 8, "{advice:?}");
    for text in advice {
        assert!(docs.contains(&format!("| {text} |")), "docs/messages.md: {text:?} is missing");
    }
    let sources = [
        "writer/src/consume_log.rs",
        "writer/src/group.rs",
        "writer/src/acknowledge.rs",
        "writer/src/run.rs",
        "writer/src/commit.rs",
        "delivery/src/producer/notice.rs",
        "delivery/src/producer/locate.rs",
        "delivery/src/files.rs",
    ];
    let sources =
        sources.map(|path| std::fs::read_to_string(format!("{}/../{path}", env!("CARGO_MANIFEST_DIR"))).unwrap());
    for said in [
        "gap: bytes",
        "truncated or replaced by another program",
        "cannot be read any more",
        "not written by a reader",
        "continuing in a new file",
        "lacks generation",
        "holds up trimming",
        "looks like a rotated file",
        "leaves no larger one",
    ] {
        assert!(docs.contains(said) && sources.iter().any(|source| source.contains(said)), "{said}");
    }
}
