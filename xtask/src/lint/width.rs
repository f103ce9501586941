//! Wraps comments and Markdown at 100 columns.

use super::markdown::{COLUMNS, Wrapped, wrap};
use super::{Finding, Source, rust};

/// The wrapped text of a file, and findings for its long lines.
pub(crate) fn wrapped(source: &Source) -> (String, Vec<Finding>) {
    let Wrapped { lines, long } = if source.path.extension().is_some_and(|extension| extension == "md") {
        wrap(&source.text.lines().collect::<Vec<_>>(), COLUMNS)
    } else {
        comments(&source.text)
    };
    let mut text = lines.join("\n");
    if source.text.ends_with('\n') {
        text.push('\n');
    }
    let what = format!("more than {COLUMNS} columns: `cargo xtask lint --fix` wraps it");
    (text, long.into_iter().map(|line| Finding::at(&source.path, line + 1, &what)).collect())
}

/// The lines of Rust code with wrapped comments.
fn comments(text: &str) -> Wrapped {
    let mut wrapped = Wrapped::default();
    // The comment being collected: the prefix of its lines, and their text.
    let (mut before, mut comment) = ("", Vec::new());
    let mut number = 0;
    for (line, in_code) in text.lines().zip(rust::begins_in_code(text)) {
        let parts = if in_code { split(line) } else { None };
        if parts.is_none_or(|(here, _)| here != before) {
            end(&mut wrapped, before, &mut comment, number);
        }
        match parts {
            Some((here, rest)) => {
                before = here;
                comment.push(rest);
            }
            None => wrapped.lines.push(line.to_owned()),
        }
        number += 1;
    }
    end(&mut wrapped, before, &mut comment, number);
    wrapped
}

/// Wraps a comment that ends before line `end`.
fn end(wrapped: &mut Wrapped, before: &str, comment: &mut Vec<&str>, end: usize) {
    // Each line has a space after the slashes.
    let width = COLUMNS.saturating_sub(before.chars().count() + 1);
    let inner: Vec<&str> = comment.iter().map(|line| line.strip_prefix(' ').unwrap_or(line)).collect();
    let Wrapped { lines, long } = wrap(&inner, width);
    let begin = end.saturating_sub(comment.len());
    wrapped.long.extend(long.into_iter().map(|line| begin + line));
    for line in lines {
        wrapped.lines.push(if line.is_empty() { before.to_owned() } else { format!("{before} {line}") });
    }
    comment.clear();
}

/// Splits a comment line into indentation with slashes, and text.
fn split(line: &str) -> Option<(&str, &str)> {
    let indent = line.len() - line.trim_start().len();
    let text = line.get(indent..)?;
    let slashes = ["//!", "///", "//"].into_iter().find(|slashes| text.starts_with(slashes))?;
    let (before, rest) = line.split_at(indent + slashes.len());
    (rest.is_empty() || rest.starts_with(' ')).then_some((before, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(path: &str, text: &str) -> Source {
        Source { path: path.into(), text: text.to_owned() }
    }

    #[test]
    fn comments_are_wrapped_and_code_is_not() {
        let long = "word ".repeat(30);
        let text = format!(
            "/// {}\n///\n/// ```\n/// {}\n/// ```\nfn f() {{}} // {long}\nconst A: &str = \"\n// {long}\";\n",
            long.trim(),
            long.trim()
        );
        let source = source("a.rs", &text);
        let (wrapped, findings) = wrapped(&source);
        let lines: Vec<&str> = wrapped.lines().collect();
        assert_eq!(lines[0], format!("/// {}", "word ".repeat(19).trim()));
        assert_eq!(lines[1], format!("/// {}", "word ".repeat(11).trim()));
        assert_eq!(lines[2..].join("\n"), text.lines().skip(1).collect::<Vec<_>>().join("\n"));
        let places: Vec<&str> = findings.iter().map(|finding| finding.place.as_str()).collect();
        assert_eq!(places, ["a.rs:1"]);
    }

    #[test]
    fn short_lines_are_kept() {
        let text = "//! One.\n//!\n//!   Indented.\n\n// a\n//\n//// four\n    //  two spaces\n//b\n";
        assert_eq!(wrapped(&source("a.rs", text)), (text.to_owned(), Vec::new()));
    }
}
