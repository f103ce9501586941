//! Compares output and input, and describes the first difference.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

/// Asserts that the output equals the input.
#[track_caller]
pub fn assert_identical(input: &Path, output: &Path) {
    if let Err(difference) = identical(input, output) {
        panic!("{difference}");
    }
}

/// Compares two files.
///
/// # Errors
///
/// A description of the first difference.
pub fn identical(input: &Path, output: &Path) -> Result<(), String> {
    let open =
        |path: &Path| File::open(path).map(BufReader::new).map_err(|error| format!("{}: {error}", path.display()));
    let (mut left, mut right) = (open(input)?, open(output)?);
    let (mut offset, mut line) = (0, 1);
    loop {
        let (a, b) = (fill(&mut left)?, fill(&mut right)?);
        let common = a.len().min(b.len());
        if let Some(at) = (0..common).find(|&at| a[at] != b[at]) {
            line += newlines(&a[..at]);
            return Err(format!(
                "the output differs at byte {} (line {line}): {} instead of {}; lengths {} and {}",
                offset + at,
                excerpt(&b[at..]),
                excerpt(&a[at..]),
                crate::rig::len(output),
                crate::rig::len(input),
            ));
        }
        if common == 0 {
            return match (a.is_empty(), b.is_empty()) {
                (true, true) => Ok(()),
                (true, false) => {
                    Err(format!("the output goes on where the input ends, at byte {offset}: {}", excerpt(b)))
                }
                _ => Err(format!("the output ends at byte {offset} (line {line}), before {}", excerpt(a))),
            };
        }
        line += newlines(&a[..common]);
        offset += common;
        left.consume(common);
        right.consume(common);
    }
}

/// Checks the numbers of numbered lines (see [`crate::text::numbered`]).
///
/// # Errors
///
/// The number of missing, duplicate and unordered lines among 0 to `count`, with an example of
/// each.
pub fn numbered(output: &[u8], count: u64) -> Result<(), String> {
    let mut seen = vec![0_u32; usize::try_from(count).expect("fits in memory")];
    let (mut last, mut disorder, mut strange) = (None, None, None);
    for line in output.split_inclusive(|&byte| byte == b'\n') {
        let number = crate::text::number_of(line);
        let Some(count) = number.and_then(|n| seen.get_mut(usize::try_from(n).ok()?)) else {
            strange.get_or_insert_with(|| excerpt(line));
            continue;
        };
        *count += 1;
        if last > number {
            disorder.get_or_insert((last, number));
        }
        last = number;
    }
    let bad = |wrong: fn(u32) -> bool| {
        let lines: Vec<usize> = (0..seen.len()).filter(|&n| wrong(seen[n])).collect();
        (lines.len(), lines.first().copied())
    };
    let (missing, doubled) = (bad(|times| times == 0), bad(|times| times > 1));
    if missing.0 == 0 && doubled.0 == 0 && disorder.is_none() && strange.is_none() {
        return Ok(());
    }
    Err(format!("missing: {missing:?}, doubled: {doubled:?}, first out of order: {disorder:?}, unknown: {strange:?}"))
}

fn fill(file: &mut BufReader<File>) -> Result<&[u8], String> {
    file.fill_buf().map_err(|error| error.to_string())
}

fn newlines(bytes: &[u8]) -> usize {
    bytes.iter().filter(|&&byte| byte == b'\n').count()
}

fn excerpt(bytes: &[u8]) -> String {
    format!("{:?}", String::from_utf8_lossy(&bytes[..bytes.len().min(60)]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text;

    #[test]
    fn differences_are_described() {
        let folder = crate::Folder::new();
        let (a, b) = (folder.join("a"), folder.join("b"));
        std::fs::write(&a, "one\ntwo\nthree\n").unwrap();
        std::fs::write(&b, "one\ntwo\nthree\n").unwrap();
        assert_eq!(identical(&a, &b), Ok(()));
        std::fs::write(&b, "one\ntXo\n").unwrap();
        assert!(identical(&a, &b).unwrap_err().contains("byte 5 (line 2)"));
        std::fs::write(&b, "one\n").unwrap();
        assert!(identical(&a, &b).unwrap_err().contains("ends at byte 4"));
        assert!(identical(&b, &a).unwrap_err().contains("goes on where the input ends, at byte 4"));
    }

    #[test]
    fn missing_duplicate_and_unordered_numbers_are_described() {
        let lines = text::numbered(0..4, 1);
        assert_eq!(numbered(&lines, 4), Ok(()));
        assert!(numbered(&lines, 5).unwrap_err().contains("missing: (1, Some(4))"));
        let swapped = [text::numbered(1..2, 1), text::numbered(0..1, 1)].concat();
        assert!(numbered(&swapped, 2).unwrap_err().contains("out of order: Some((Some(1), Some(0)))"));
        assert!(numbered(&[&lines[..], &lines[..]].concat(), 4).unwrap_err().contains("doubled: (4, Some(0))"));
    }
}
