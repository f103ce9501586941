//! Finds the comments in Rust code.

/// For each line, whether it begins outside of string literals and block comments.
pub(crate) fn begins_in_code(text: &str) -> Vec<bool> {
    let bytes = text.as_bytes();
    let mut begins = vec![true];
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let rest = bytes.get(at..).unwrap_or_default();
        let is_word = at.checked_sub(1).and_then(|before| bytes.get(before)).is_some_and(u8::is_ascii_alphanumeric);
        let literal = match byte {
            b'/' if rest.starts_with(b"//") => Some(rest.iter().position(|&b| b == b'\n').unwrap_or(rest.len())),
            b'/' if rest.starts_with(b"/*") => Some(block_comment(rest)),
            b'"' => Some(string(rest)),
            b'r' if !is_word || bytes.get(at.wrapping_sub(1)) == Some(&b'b') => raw_string(rest),
            b'\'' => character(rest),
            _ => None,
        };
        match literal {
            Some(len) => {
                let newlines = rest.iter().take(len).filter(|&&byte| byte == b'\n').count();
                begins.extend(std::iter::repeat_n(false, newlines));
                at += len.max(1);
            }
            None => {
                if byte == b'\n' {
                    begins.push(true);
                }
                at += 1;
            }
        }
    }
    begins
}

/// The length of the block comment at the beginning; block comments nest.
fn block_comment(bytes: &[u8]) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
        if rest.starts_with(b"/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if rest.starts_with(b"*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    bytes.len()
}

/// The length of the string literal at the beginning.
fn string(bytes: &[u8]) -> usize {
    let mut at = 1;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// The length of the raw string literal at the beginning, if there is one.
fn raw_string(bytes: &[u8]) -> Option<usize> {
    let hashes = bytes.get(1..)?.iter().take_while(|&&byte| byte == b'#').count();
    let body = bytes.get(1 + hashes..)?.strip_prefix(b"\"")?;
    let end = [&b"\""[..], &b"#".repeat(hashes)].concat();
    let len = body.windows(end.len()).position(|window| window == end)?;
    Some(2 + hashes + len + end.len())
}

/// The length of the character literal at the beginning, unless it is a lifetime.
fn character(bytes: &[u8]) -> Option<usize> {
    if bytes.get(1) == Some(&b'\\') {
        let end = bytes.get(3..)?.iter().position(|&byte| byte == b'\'')?;
        return Some(3 + end + 1);
    }
    let text = std::str::from_utf8(bytes.get(1..bytes.len().min(6))?);
    let text = match text {
        Ok(text) => text,
        Err(error) => std::str::from_utf8(bytes.get(1..1 + error.valid_up_to())?).ok()?,
    };
    let one = text.chars().next()?.len_utf8();
    (text.as_bytes().get(one) == Some(&b'\'')).then_some(one + 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_that_look_like_comments_are_not_comments() {
        let text = "let a = \"x\n// in a string\";\n// a comment \" with a quote\nlet b = r#\"\n// raw \"\n\"#;\nlet c = '\"'; let d: &'static str = \"\\\"\n// escaped\";\n/* /* nested\n*/ // still\n*/\n// a comment\n";
        let lines: Vec<(&str, bool)> = text.lines().zip(begins_in_code(text)).collect();
        let code: Vec<&str> = lines.iter().filter(|(_, code)| *code).map(|(line, _)| *line).collect();
        assert_eq!(
            code,
            [
                "let a = \"x",
                "// a comment \" with a quote",
                "let b = r#\"",
                "let c = '\"'; let d: &'static str = \"\\\"",
                "/* /* nested",
                "// a comment"
            ]
        );
    }

    #[test]
    fn this_source_is_parsed_to_the_end() {
        let text = include_str!("rust.rs");
        let begins = begins_in_code(text);
        assert_eq!(begins.len(), text.lines().count() + 1);
        assert_eq!(begins.last(), Some(&true));
    }
}
