//! Finds paragraphs of Markdown, and fills them.
//!
//! Comments contain Markdown too. A paragraph is filled only if one of its lines is too long; all
//! other line breaks are kept.

/// The column at which comments and Markdown are wrapped.
pub(crate) const COLUMNS: usize = 100;
/// Minimum number of columns for a deeply indented comment.
const LEAST: usize = 40;

/// The lines, with all paragraphs filled that had a long line.
#[derive(Debug, Default)]
pub(crate) struct Wrapped {
    pub(crate) lines: Vec<String>,
    /// The indices of the long lines.
    pub(crate) long: Vec<usize>,
}

/// Wraps these lines at `width` characters.
///
/// Keeps code blocks, tables, headings, link definitions, quotes and HTML, and paragraphs whose
/// words are aligned with several spaces.
pub(crate) fn wrap(lines: &[&str], width: usize) -> Wrapped {
    let width = width.max(LEAST);
    let mut wrapped = Wrapped::default();
    let mut fence: Option<&str> = None;
    // The lines of the present paragraph so far.
    let mut paragraph: Vec<&str> = Vec::new();
    let mut previous_is_blank = true;
    // A line indented by four more columns than the last list item is code.
    let mut code_at = 4;
    for (number, &line) in lines.iter().enumerate() {
        let text = line.trim_start();
        let indent = line.len() - text.len();
        let marker = marker_len(text);
        let opens = ["```", "~~~"].into_iter().find(|mark| text.starts_with(mark));
        let is_code = previous_is_blank && indent >= code_at && marker.is_none();
        if fence.is_some() || opens.is_some() || is_code || is_verbatim(text) {
            wrapped.fill(&mut paragraph, number, width);
            wrapped.lines.push(line.to_owned());
            // The lines of an indented code block are consecutive.
            previous_is_blank = text.is_empty() || is_code && fence.is_none();
            fence = match fence {
                Some(mark) if text.trim_end() == mark => None,
                Some(mark) => Some(mark),
                None => opens,
            };
            continue;
        }
        if let Some(marker) = marker {
            wrapped.fill(&mut paragraph, number, width);
            code_at = indent + marker + 4;
        } else if indent == 0 && previous_is_blank {
            code_at = 4;
        }
        paragraph.push(line);
        previous_is_blank = false;
        if line.ends_with("  ") || line.ends_with('\\') {
            // A hard line break of the author.
            wrapped.fill(&mut paragraph, number + 1, width);
        }
    }
    wrapped.fill(&mut paragraph, lines.len(), width);
    wrapped
}

impl Wrapped {
    /// Adds a paragraph that ends before line `end`. Fills it if one of its lines is too long.
    fn fill(&mut self, paragraph: &mut Vec<&str>, end: usize, width: usize) {
        let lines = std::mem::take(paragraph);
        let Some(&first) = lines.first() else { return };
        let is_aligned = |line: &&str| line.trim().contains("   ");
        let is_long = |line: &str| line.chars().count() > width;
        let filled = filled(&lines, first, width);
        if !lines.iter().any(|line| is_long(line)) || lines.iter().any(is_aligned) || filled == lines {
            self.lines.extend(lines.into_iter().map(str::to_owned));
            return;
        }
        let numbers = end.saturating_sub(lines.len())..;
        self.long.extend(numbers.zip(lines).filter(|(_, line)| is_long(line)).map(|(number, _)| number));
        self.lines.extend(filled);
    }
}

/// The lines of a filled paragraph, with as many words in each as fit.
fn filled(lines: &[&str], first: &str, width: usize) -> Vec<String> {
    let text = first.trim_start();
    let indent = first.len() - text.len();
    let marker = marker_len(text).unwrap_or(0);
    let (head, start) = first.split_at(indent + marker);
    let text: Vec<&str> = std::iter::once(start).chain(lines.iter().skip(1).copied()).map(str::trim).collect();
    let mut filled = Vec::new();
    let (mut line, mut is_empty) = (head.to_owned(), true);
    for word in words(&text.join(" ")) {
        if !is_empty && line.chars().count() + 1 + word.chars().count() > width {
            filled.push(std::mem::replace(&mut line, " ".repeat(indent + marker)));
            is_empty = true;
        }
        if !is_empty {
            line.push(' ');
        }
        line.push_str(&word);
        is_empty = false;
    }
    if lines.last().is_some_and(|last| last.ends_with("  ")) {
        line.push_str("  ");
    }
    filled.push(line);
    filled
}

/// Whether a line is not part of a paragraph.
fn is_verbatim(text: &str) -> bool {
    let is_link = text.starts_with('[') && text.contains("]:");
    let is_rule = text.len() >= 3 && text.bytes().all(|byte| b"-=*_ ".contains(&byte));
    text.is_empty() || text.starts_with(['|', '#', '>', '<']) || is_link || is_rule
}

/// The length of a list item's marker with the following space.
fn marker_len(text: &str) -> Option<usize> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let mark = if digits > 0 { digits + 1 } else { 1 };
    let is_mark = match text.as_bytes().get(mark - 1)? {
        b'-' | b'*' | b'+' => digits == 0,
        b'.' | b')' => (1..=3).contains(&digits),
        _ => false,
    };
    let rest = text.get(mark..)?;
    let spaces = rest.len() - rest.trim_start_matches(' ').len();
    (is_mark && spaces > 0).then_some(mark + spaces)
}

/// The pieces between which a line may be broken: words, and whole code spans.
///
/// A word that would have another meaning at the start of a line stays with the previous word.
fn words(text: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut open = false;
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        let begins_block = marker_len(&format!("{word} ")).is_some() || is_verbatim(word) || word.starts_with("```");
        match words.last_mut() {
            Some(last) if open || begins_block => {
                last.push(' ');
                last.push_str(word);
            }
            _ => words.push(word.to_owned()),
        }
        if word.matches('`').count() % 2 == 1 {
            open = !open;
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrap_text(text: &str) -> String {
        wrap(&text.lines().collect::<Vec<_>>(), LEAST).lines.join("\n")
    }

    #[test]
    fn only_paragraphs_with_long_lines_are_filled() {
        let text = "Short,\nas it is.\n\nThis paragraph has a line that is much too long,\nand is filled.";
        let filled = "Short,\nas it is.\n\nThis paragraph has a line that is much\ntoo long, and is filled.";
        assert_eq!(wrap_text(text), filled);
        assert_eq!(wrap_text(filled), filled);
    }

    #[test]
    fn list_items_keep_their_indentation() {
        let text = "* An item whose text does not fit into one line.\n  - A nested one that does not fit into it.\n10. Ten, also with more words than fit in.";
        let filled = "* An item whose text does not fit into\n  one line.\n  - A nested one that does not fit into\n    it.\n10. Ten, also with more words than fit\n    in.";
        assert_eq!(wrap_text(text), filled);
    }

    #[test]
    fn code_tables_headings_and_links_are_kept() {
        let text = "# A heading that is longer than the forty columns\n\n| a table | that is longer than the forty columns |\n\n```text\ncode that is longer than the forty columns is\n```\n\n    code that is longer than the forty columns\n    is code again, and longer than the columns\n\n[a link]: https://example.com/which-is-longer-than-forty\n\nhttps://example.com/which-is-longer-than-forty-columns";
        assert_eq!(wrap_text(text), text);
    }

    #[test]
    fn code_spans_stay_whole_and_no_word_becomes_a_marker() {
        assert_eq!(
            wrap_text("The command is `cargo xtask lint --fix` for all of it."),
            "The command is `cargo xtask lint --fix`\nfor all of it."
        );
        assert_eq!(
            wrap_text("Forty columns are taken by this here all - and then a dash."),
            "Forty columns are taken by this here\nall - and then a dash."
        );
    }

    #[test]
    fn aligned_text_and_hard_breaks_are_kept() {
        let text = "reader    reads the input and sends its lines\nwriter    writes the output";
        assert_eq!(wrap_text(text), text);
        let text = "A line that the author broke by hand, and long.  \nThe next line.";
        assert_eq!(wrap_text(text), "A line that the author broke by hand,\nand long.  \nThe next line.");
    }
}
