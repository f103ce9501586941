//! Finds phrases with a plainer replacement.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::{Finding, Source};

/// Where the file contains a phrase, and what to write instead.
pub(crate) fn check(
    source: &Source,
    phrases: &BTreeMap<String, String>,
    pending: &BTreeMap<String, Vec<PathBuf>>,
) -> Vec<Finding> {
    let is_checked = |phrase: &String| {
        let pending = pending.get(phrase).map(Vec::as_slice).unwrap_or_default();
        !pending.iter().any(|path| source.path.starts_with(path))
    };
    let phrases: Vec<_> = phrases.iter().filter(|(phrase, _)| is_checked(phrase)).collect();
    let mut findings = Vec::new();
    for (line, number) in source.text.lines().zip(1..) {
        let line = line.to_lowercase();
        for (phrase, instead) in phrases.iter().filter(|(phrase, _)| contains(&line, phrase)) {
            findings.push(Finding::at(&source.path, number, format!("\"{phrase}\": write {instead}")));
        }
    }
    findings
}

/// Whether the line contains the phrase as whole words.
fn contains(line: &str, phrase: &str) -> bool {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(phrase).any(|(at, _)| {
        let before = line.get(..at).and_then(|text| text.chars().next_back());
        let after = line.get(at + phrase.len()..).and_then(|text| text.chars().next());
        !before.is_some_and(is_word) && !after.is_some_and(is_word)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_words_are_found_where_they_are_not_pending() {
        let source =
            |path: &str| Source { path: path.into(), text: "Hence.\nthence, hence_one\nand hence\n".to_owned() };
        let phrases = BTreeMap::from([("hence".to_owned(), "\"therefore\"".to_owned())]);
        let found = check(&source("a/b.rs"), &phrases, &BTreeMap::new());
        let places: Vec<&str> = found.iter().map(|finding| finding.place.as_str()).collect();
        assert_eq!(places, ["a/b.rs:1", "a/b.rs:3"]);
        assert_eq!(found[0].what, "\"hence\": write \"therefore\"");
        let pending = BTreeMap::from([("hence".to_owned(), vec![PathBuf::from("a")])]);
        assert_eq!(check(&source("a/b.rs"), &phrases, &pending), []);
        assert_eq!(check(&source("ab.rs"), &phrases, &pending).len(), 2);
    }
}
