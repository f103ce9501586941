//! [`SourceName`]: the name of one of many sources, as the key of its stream, the registry, and the
//! writer's folder of outputs have it.
//!
//! A name is a relative path. Both sides refuse one that could lead out of a folder, and both
//! escape it in one way only, so that no two keys stand for one output.

use std::ffi::OsStr;
use std::fmt::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use thiserror::Error;

/// The longest name of a file, in bytes.
const COMPONENT: usize = 255;
/// The longest name, in bytes.
const LONGEST: usize = 4000;
/// The endings of files that a writer keeps beside an output.
const WRITERS_OWN: [&str; 2] = [".journal", ".cut"];

/// The name of a source: its path below the fixed part of the pattern that found it.
///
/// ```
/// use delivery::source_name::SourceName;
/// let name = SourceName::new("nginx/access {1}.log").unwrap();
/// assert_eq!(name.key("logs"), "logs:{nginx/access %7B1%7D.log}");
/// assert_eq!(SourceName::parse("nginx/access %7B1%7D.log").unwrap(), name);
/// assert!(SourceName::parse("../etc/passwd").is_err());
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceName(Box<[u8]>);

/// Why a name is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum WrongName {
    /// It is empty.
    #[error("an empty name")]
    Empty,
    /// It begins with `/`.
    #[error("an absolute path; allowed: a path below a folder")]
    Absolute,
    /// A component is empty, `.` or `..`.
    #[error("a component that is empty, . or ..; allowed: names of files and folders")]
    Component,
    /// It contains a NUL byte.
    #[error("a NUL byte")]
    Nul,
    /// A component, or the whole, is too long.
    #[error("too long; allowed: at most 255 bytes for each component, and 4000 for all")]
    TooLong,
    /// An escape is not the one that this byte has, or it needs none.
    #[error(
        "not escaped as readers escape names: %XX, with capital letters, for all but A-Z a-z 0-9 . _ - + @ , = / and space"
    )]
    Escape,
}

impl SourceName {
    /// The name with these bytes.
    ///
    /// # Errors
    /// When it is no relative path that stays below its folder.
    pub fn new(name: impl AsRef<[u8]>) -> Result<Self, WrongName> {
        let name = name.as_ref();
        if name.is_empty() {
            return Err(WrongName::Empty);
        }
        if name.starts_with(b"/") {
            return Err(WrongName::Absolute);
        }
        if name.contains(&0) {
            return Err(WrongName::Nul);
        }
        let mut components = name.split(|byte| *byte == b'/');
        if components.clone().any(|component| matches!(component, b"" | b"." | b"..")) {
            return Err(WrongName::Component);
        }
        if name.len() > LONGEST || components.any(|component| component.len() > COMPONENT) {
            return Err(WrongName::TooLong);
        }
        Ok(Self(name.into()))
    }

    /// The name that [`escaped`](Self::escaped) has made into this text.
    ///
    /// # Errors
    /// When no name has.
    pub fn parse(escaped: &str) -> Result<Self, WrongName> {
        let mut name = Vec::with_capacity(escaped.len());
        let mut bytes = escaped.bytes();
        while let Some(byte) = bytes.next() {
            let byte = match byte {
                b'%' => {
                    let (high, low) = (bytes.next().and_then(digit), bytes.next().and_then(digit));
                    let escaped = high.zip(low).map(|(high, low)| high << 4 | low);
                    escaped.filter(|byte| !is_plain(*byte)).ok_or(WrongName::Escape)?
                }
                plain if is_plain(plain) => plain,
                _ => return Err(WrongName::Escape),
            };
            name.push(byte);
        }
        Self::new(name)
    }

    /// The name as text, with every unusual byte as `%XX`.
    #[must_use]
    pub fn escaped(&self) -> String {
        self.to_string()
    }

    /// The key of the source's stream.
    #[must_use]
    pub fn key(&self, stream: &str) -> String {
        format!("{stream}:{{{self}}}")
    }

    /// The name's bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The name as a relative path.
    #[must_use]
    pub fn path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.0))
    }

    /// Whether a writer keeps files of its own under such a name, beside the output of another
    /// source. Its sources can be read, and have no output in a folder.
    ///
    /// ```
    /// use delivery::source_name::SourceName;
    /// assert!(SourceName::new("app.log.journal").unwrap().is_writers_own());
    /// assert!(!SourceName::new("app.log").unwrap().is_writers_own());
    /// ```
    #[must_use]
    pub fn is_writers_own(&self) -> bool {
        let mut components = self.0.split(|byte| *byte == b'/');
        components.any(|component| WRITERS_OWN.iter().any(|ending| component.ends_with(ending.as_bytes())))
    }
}

impl fmt::Display for SourceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| match is_plain(*byte) {
            true => f.write_char(char::from(*byte)),
            false => write!(f, "%{byte:02X}"),
        })
    }
}

const fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b'+' | b'@' | b',' | b'=' | b'/' | b' ')
}

/// The value of a hexadecimal digit; small letters are none.
const fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => byte.checked_sub(b'0'),
        b'A'..=b'F' => byte.checked_sub(b'A' - 10),
        _ => None,
    }
}

/// The key of the registry of the sources of `stream`: a hash with an escaped name as each field.
/// It is a directory; positions are in the source records.
#[must_use]
pub fn registry_key(stream: &str) -> String {
    format!("{stream}:sources")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_that_leave_the_folder_are_refused() {
        let wrong = |name: &[u8]| SourceName::new(name).unwrap_err();
        assert_eq!(wrong(b""), WrongName::Empty);
        assert_eq!(wrong(b"/etc/passwd"), WrongName::Absolute);
        for name in [&b".."[..], b"../a", b"a/../b", b"a/..", ".".as_bytes(), b"./a", b"a//b", b"a/"] {
            assert_eq!(wrong(name), WrongName::Component);
        }
        assert_eq!(wrong(b"a\0b"), WrongName::Nul);
        assert_eq!(wrong(&[b'a'; 256]), WrongName::TooLong);
        assert_eq!(wrong(&b"a/".repeat(2001)[..4001]), WrongName::TooLong);
        for name in [&b"..."[..], b"..a", b"a..", b".hidden", &[b'a'; 255]] {
            SourceName::new(name).unwrap();
        }
    }

    #[test]
    fn a_name_is_escaped_in_one_way_only() {
        let name = SourceName::new(b"a b{}%\n\xFF~.log").unwrap();
        assert_eq!(name.escaped(), "a b%7B%7D%25%0A%FF%7E.log");
        assert_eq!(SourceName::parse(&name.escaped()).unwrap(), name);
        for text in ["%41", "%7b", "%7", "%", "~", "ä", "a%2Fb", "%ZZ", "%2E%2E/a"] {
            assert_eq!(SourceName::parse(text), Err(WrongName::Escape), "{text}");
        }
        assert_eq!(SourceName::parse("%00"), Err(WrongName::Nul));
        assert_eq!(SourceName::parse("a/.."), Err(WrongName::Component));
    }

    proptest! {
        #[test]
        fn every_name_survives_its_key(bytes in proptest::collection::vec(any::<u8>(), 1..40)) {
            if let Ok(name) = SourceName::new(&bytes) {
                let key = name.key("s");
                prop_assert_eq!(name.as_bytes(), &bytes[..]);
                let escaped = key.strip_prefix("s:{").and_then(|key| key.strip_suffix('}')).unwrap();
                let has_braces = escaped.contains(['{', '}']);
                prop_assert!(!has_braces);
                prop_assert_eq!(SourceName::parse(escaped), Ok(name));
            }
        }

        #[test]
        fn what_can_be_parsed_is_escaped_as_it_was(text in "[a-c%0-9A-F./{}]{0,12}") {
            if let Ok(name) = SourceName::parse(&text) {
                prop_assert_eq!(name.escaped(), text);
            }
        }
    }
}
