//! Removes passwords from everything that is shown.

/// Removes what may be a password: everything between `://` and the last `@`, and the values of
/// query parameters that carry secrets. Use it for user input that may be a URL, even a malformed
/// one.
///
/// # Examples
///
/// ```
/// assert_eq!(service::redact("redis://me:pa@ss@host:6379/0"), "redis://***@host:6379/0");
/// assert_eq!(service::redact("redis://host:6379"), "redis://host:6379");
/// ```
#[must_use]
#[expect(clippy::arithmetic_side_effects, reason = "positions in a text that is in memory")]
pub fn redact(text: &str) -> String {
    // Placeholder in help texts and errors; not a secret.
    const PLACEHOLDER: &str = "[user:password@]";
    if let Some((before, behind)) = text.split_once(PLACEHOLDER) {
        return format!("{}{PLACEHOLDER}{}", redact(before), redact(behind));
    }
    let mut shown = match (text.find("://"), text.rfind('@')) {
        (Some(scheme), Some(at)) if scheme + 3 <= at => {
            format!("{}***{}", &text[..scheme + 3], &text[at..])
        }
        // No scheme, or an `@` before it: the text before the `@` may be a password.
        (_, Some(at)) => format!("***{}", &text[at..]),
        (_, None) => text.to_owned(),
    };
    for name in ["password=", "pass=", "auth=", "token="] {
        let mut from = 0;
        while let Some(found) = shown[from..].find(name) {
            let begin = from + found + name.len();
            let end = shown[begin..].find(['&', '#', ' ']).map_or(shown.len(), |n| begin + n);
            shown.replace_range(begin..end, "***");
            from = begin;
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::redact;

    #[test]
    fn passwords_are_removed_from_every_form_of_url() {
        for (text, shown) in [
            ("it has the form redis://[user:password@]host", "it has the form redis://[user:password@]host"),
            ("redis://host", "redis://host"),
            ("redis://:secret@host:1", "redis://***@host:1"),
            ("redis://u:se@c/r#e?t@host:1/3", "redis://***@host:1/3"),
            ("u:secret@host", "***@host"),
            ("u:secret@x://y", "***@x://y"),
            ("unix:///run/r.sock?password=secret&db=1", "unix:///run/r.sock?password=***&db=1"),
            (
                "redis-sentinel://:secret@a:1,b/m?sentinel_user=s&sentinel_password=secret",
                "redis-sentinel://***@a:1,b/m?sentinel_user=s&sentinel_password=***",
            ),
            ("http://", "http://"),
            ("", ""),
            ("@", "***@"),
        ] {
            assert_eq!(redact(text), shown);
        }
    }
}
