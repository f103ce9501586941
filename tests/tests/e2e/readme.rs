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
