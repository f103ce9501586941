//! Checks the subjects and bodies of commits.

use std::path::Path;

use super::{Finding, git};
use crate::{Error, Result};

/// Maximum length of a subject.
const SUBJECT: usize = 72;
/// Maximum length of a line in a body.
const BODY: usize = 100;

/// The findings in the commits after `base`; `None` if the repository lacks it, as a shallow clone
/// or an archive does.
pub(crate) fn check(root: &Path, base: &str) -> Result<Option<Vec<Finding>>> {
    if git(root, &["merge-base", "--is-ancestor", base, "HEAD"]).is_none() {
        return Ok(None);
    }
    let range = format!("{base}..HEAD");
    let log = git(root, &["log", "-z", "--no-merges", "--format=%h%n%B", &range]);
    let log = log.ok_or_else(|| Error::new(format!("git log {range} failed")))?;
    let commits = log.split('\0').filter_map(|commit| commit.split_once('\n'));
    Ok(Some(commits.flat_map(|(hash, message)| judge(hash, message)).collect()))
}

fn judge(hash: &str, message: &str) -> Vec<Finding> {
    let mut lines = message.trim_end().lines();
    let subject = lines.next().unwrap_or_default();
    let (area, what) = subject.split_once(": ").unwrap_or_default();
    let is_area = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_-./, ".contains(c);
    let blank = lines.next();
    let mut wrong = Vec::new();
    if subject.chars().count() > SUBJECT {
        wrong.push(format!("the subject has {} characters; at most {SUBJECT}", subject.chars().count()));
    }
    if area.is_empty() || !area.chars().all(is_area) || what.is_empty() || what.ends_with('.') {
        wrong.push("the subject is not `area: what it changes`, without a full stop".to_owned());
    }
    match blank {
        None => wrong.push("there is no body that says why".to_owned()),
        Some("") => {}
        Some(_) => wrong.push("there is no empty line between subject and body".to_owned()),
    }
    if lines.any(|line| line.chars().count() > BODY && line.contains(' ') && !line.contains("://")) {
        wrong.push(format!("the body has lines of more than {BODY} characters"));
    }
    wrong
        .into_iter()
        .map(|what| Finding { place: format!("commit {hash}"), what: format!("{what}: {subject}") })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_says_area_and_change_and_a_body_says_why() {
        let wrong = |message: &str| judge("abc", message).len();
        assert_eq!(wrong("resp: refuse a second @\n\nIt hides a password.\n"), 0);
        assert_eq!(wrong("resp: refuse a second @\n"), 1, "no body");
        assert_eq!(wrong("resp: refuse a second @\nIt hides a password.\n"), 1, "no empty line");
        assert_eq!(wrong("Refuse a second @\n\nWhy.\n"), 1, "no area");
        assert_eq!(wrong("resp: refuse a second @.\n\nWhy.\n"), 1, "a full stop");
        assert_eq!(wrong(&format!("resp: {}\n\nWhy.\n", "a".repeat(67))), 1);
        assert_eq!(wrong(&format!("resp: {}\n\nWhy.\n", "a".repeat(66))), 0);
        assert_eq!(wrong(&format!("resp: a\n\n{}\n", "word ".repeat(21).trim())), 1);
        assert_eq!(wrong(&format!("resp: a\n\nhttps://{}\n", "word".repeat(25))), 0);
    }
}
