//! What may be shown of a server's texts: no passwords, and no characters that control a terminal
//! or a log. Errors and connections use it.

use std::borrow::Cow;
use std::fmt::{self, Write as _};

/// Escapes control characters, line breaks and bidirectional marks, as in string literals.
pub(crate) fn escape_control(text: Cow<'static, str>) -> Cow<'static, str> {
    if !text.contains(must_be_escaped) {
        return text;
    }
    let mut shown = String::with_capacity(text.len().saturating_add(16));
    for c in text.chars() {
        // Writing to a string does not fail.
        let _ = if must_be_escaped(c) { write!(shown, "{}", c.escape_default()) } else { shown.write_char(c) };
    }
    shown.into()
}

fn must_be_escaped(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A text that is never shown.
#[derive(Clone)]
pub(crate) struct Secret(String);

impl Secret {
    pub(crate) const fn new(secret: String) -> Self {
        Self(secret)
    }

    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// The passwords of a configuration, which no error may repeat.
#[derive(Clone, Debug, Default)]
pub(crate) struct Secrets(Vec<Secret>);

/// The minimum length of a password without punctuation for the comparison without punctuation.
const MIN_BARE: usize = 6;

/// The minimum length of a password that is searched in the names of servers.
const MIN_IN_NAME: usize = 8;

impl Secrets {
    pub(crate) fn new<'a>(secrets: impl IntoIterator<Item = &'a Secret>) -> Self {
        Self(secrets.into_iter().filter(|secret| !secret.reveal().is_empty()).cloned().collect())
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns whether the name of a server repeats a password. A short password may well be part
    /// of a name.
    pub(crate) fn occur_in_name(&self, name: &str) -> bool {
        self.0.iter().any(|secret| secret.reveal().len() >= MIN_IN_NAME) && self.occur_in(name)
    }

    /// Returns whether a text repeats a password: verbatim, percent-encoded, escaped, quoted, or in
    /// pieces.
    pub(crate) fn occur_in(&self, text: &str) -> bool {
        if self.0.is_empty() {
            return false;
        }
        let (decoded, bare_text) = (decoded(text), bare(text));
        let bare_decoded = bare(&decoded);
        self.0.iter().any(|secret| {
            let secret = secret.reveal();
            let bare_secret = bare(secret);
            text.contains(secret)
                || decoded.contains(secret)
                || (bare_secret.len() >= MIN_BARE
                    && (bare_text.contains(&bare_secret) || bare_decoded.contains(&bare_secret)))
        })
    }
}

/// Returns letters and digits in lower case.
fn bare(text: &str) -> String {
    text.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

/// Decodes `%41` and `\x41` to `A` wherever possible.
fn decoded(text: &str) -> String {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, behind)) = rest.split_first() {
        let digits = match byte {
            b'%' => Some(behind),
            b'\\' => behind.strip_prefix(b"x"),
            _ => None,
        };
        let digit = |at: usize| digits?.get(at).and_then(|digit| char::from(*digit).to_digit(16));
        match (digit(0), digit(1), digits.and_then(|digits| digits.get(2..))) {
            (Some(high), Some(low), Some(after)) => {
                decoded.push(hex_byte(high, low));
                rest = after;
            }
            _ => {
                decoded.push(byte);
                rest = behind;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

/// Returns the byte that two hex digits mean.
pub(crate) fn hex_byte(high: u32, low: u32) -> u8 {
    u8::try_from(high.saturating_mul(16).saturating_add(low)).unwrap_or_default()
}

/// Replies to `AUTH` and `HELLO` that contain no arguments.
const KNOWN: [&str; 19] = [
    "WRONGPASS invalid username-password pair or user is disabled.",
    "WRONGPASS invalid username-password pair",
    "ERR invalid password",
    "ERR AUTH <password> called without any password configured for the default user. Are you sure your configuration is correct?",
    "ERR Client sent AUTH, but no password is set",
    "NOAUTH Authentication required.",
    "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH <user> <pass> option can be used to authenticate the client and select the RESP protocol version at the same time",
    "NOPROTO unsupported protocol version",
    "NOPROTO sorry, this protocol version is not supported.",
    "NOPERM this user has no permissions to run the 'auth' command",
    "NOPERM this user has no permissions to run the 'auth' command or its subcommand",
    "NOPERM this user has no permissions to run the 'hello' command",
    "NOPERM this user has no permissions to run the 'hello' command or its subcommand",
    "ERR wrong number of arguments for 'auth' command",
    "ERR wrong number of arguments for 'hello' command",
    "ERR syntax error",
    "LOADING Redis is loading the dataset in memory",
    "LOADING Valkey is loading the dataset in memory",
    "ERR max number of clients reached",
];

/// Returns whether a text contains none of the data that was sent to the server.
pub(crate) fn is_safe_auth_reply(text: &str) -> bool {
    KNOWN.contains(&text)
}

/// Commands whose name has two words.
const CONTAINERS: [&str; 17] = [
    "ACL", "CLIENT", "CLUSTER", "COMMAND", "CONFIG", "DEBUG", "FUNCTION", "LATENCY", "MEMORY", "MODULE", "OBJECT",
    "PUBSUB", "SCRIPT", "SENTINEL", "SLOWLOG", "XGROUP", "XINFO",
];

/// Returns the words that name a command, without the arguments that may follow them.
pub(crate) fn command_name(command: &str) -> &str {
    let command = command.trim_start();
    let mut ends = command.match_indices(|c: char| c.is_ascii_whitespace()).map(|(at, _)| at);
    let mut up_to_next = || command.get(..ends.next()?);
    match up_to_next() {
        Some(first) if CONTAINERS.iter().any(|container| first.eq_ignore_ascii_case(container)) => {
            up_to_next().unwrap_or(command)
        }
        first => first.unwrap_or(command),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secrets(passwords: &[&str]) -> Secrets {
        let passwords: Vec<Secret> = passwords.iter().map(|password| Secret::new((*password).to_owned())).collect();
        Secrets::new(&passwords)
    }

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(
            escape_control("a\r\n\u{1b}[31m\u{0}\u{202e}\u{9b}\u{2028}é".into()),
            "a\\r\\n\\u{1b}[31m\\u{0}\\u{202e}\\u{9b}\\u{2028}é"
        );
        assert!(matches!(escape_control("plain \\n".into()), Cow::Borrowed("plain \\n")));
    }

    #[test]
    fn repetitions_of_a_password_are_found() {
        let known = secrets(&["s3cret-pä&ss"]);
        for text in [
            "ERR 's3cret-pä&ss'",
            "ERR s3cret-p%C3%A4%26ss",
            "ERR \\x733cret-p\\xc3\\xa4&ss",
            "ERR 's3cret' '-pä&ss'",
            "ERR S3CRET PÄ SS",
            "ERR s-3-c-r-e-t-p-ä-s-s",
        ] {
            assert!(known.occur_in(text), "{text}");
        }
        for text in ["", "ERR secret", "ERR 100% s3 cret", "%", "%4"] {
            assert!(!known.occur_in(text), "{text}");
        }
        let short = secrets(&["a-b", ""]);
        assert!(short.occur_in("xa-bx") && !short.occur_in("about"));
        assert!(!secrets(&[""]).occur_in("x"));
    }

    #[test]
    fn the_name_of_a_command_has_no_arguments() {
        for (command, name) in [
            ("GET", "GET"),
            ("auth s3cret", "auth"),
            (" HELLO\t3 AUTH a b", "HELLO"),
            ("acl setuser me >s3cret", "acl setuser"),
            ("CONFIG SET requirepass s3cret", "CONFIG SET"),
            ("XGROUP CREATE", "XGROUP CREATE"),
            ("CLIENT", "CLIENT"),
            ("", ""),
        ] {
            assert_eq!(command_name(command), name);
        }
    }
}
