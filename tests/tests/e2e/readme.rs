//! What the README says of the tests is true.

const README: &str = include_str!("../../../README.md");

#[test]
fn the_tests_that_the_guarantees_name_exist() {
    let table = README.split("## ").find(|part| part.starts_with("What it guarantees")).unwrap();
    let named: Vec<&str> = table.split('`').filter(|word| word.contains("::")).collect();
    assert!(named.len() > 20, "{named:?}");
    for name in named {
        let (file, function) = name.split_once("::").unwrap();
        let path = format!("{}/tests/e2e/{file}.rs", env!("CARGO_MANIFEST_DIR"));
        let source = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        assert!(source.contains(&format!("#[test]\nfn {function}() {{")), "README: there is no test {name}");
    }
}

#[test]
fn the_messages_in_the_docs_are_those_of_the_services() {
    let docs = include_str!("../../../docs/messages.md");
    let words = include_str!("../../../service/src/words.rs");
    let advice: Vec<&str> = words.split('"').skip(1).step_by(2).collect();
    assert!(advice.len() > 8, "{advice:?}");
    for text in advice {
        assert!(docs.contains(&format!("| {text} |")), "docs/messages.md: {text:?} is missing");
    }
    let sources = [
        "writer/src/fetch_log.rs",
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
        "somebody cut it",
        "cannot be read any more",
        "foreign entries",
        "going on in a new file",
        "lacks generation",
        "holds up trimming",
        "looks like a rotated file",
        "leaves no larger one",
    ] {
        assert!(docs.contains(said) && sources.iter().any(|source| source.contains(said)), "{said}");
    }
}
