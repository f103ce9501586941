//! `--add-field`: constant fields at the end of each entry, for other consumers. The writer ignores
//! them.

use delivery::entry::is_reserved;
use service::Failure;
use std::fmt;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::rc::Rc;

/// How many bytes the fields of an entry may have together, names included: 4 KiB. They are in the
/// memory of Redis with each entry, and in each reply to a writer.
const MOST: usize = 4096;

/// Names and values, the same for each entry of a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct AddedFields(Rc<[(Vec<u8>, Vec<u8>)]>);

impl AddedFields {
    /// The fields of a file's entries, from the values of the flag.
    ///
    /// # Errors
    ///
    /// When a value of the flag is wrong, or the fields are too long.
    pub(crate) fn new(flags: &[String], file: &Path, host: &str) -> Result<Self, Failure> {
        let mut fields: Vec<(Vec<u8>, Vec<u8>)> = Vec::with_capacity(flags.len());
        let mut len = 0_usize;
        for flag in flags {
            let of = |shown: &str, why: String| {
                let from = service::args::origin("add-field");
                Failure::config(format!("--add-field {shown:?}{from}: {why}"))
            };
            let wrong = |why: String| of(flag, why);
            let Some((name, value)) = flag.split_once('=') else {
                return Err(wrong("no = in it; allowed: NAME=VALUE".to_owned()));
            };
            if name.is_empty() {
                return Err(wrong("the name is empty; allowed: NAME=VALUE".to_owned()));
            }
            if is_reserved(name.as_bytes()) {
                return Err(wrong(format!(
                    "the reader has a field {name} of its own; allowed: names other than line, lines, part, rest and \
                     after"
                )));
            }
            if fields.iter().any(|(other, _)| other == name.as_bytes()) {
                return Err(wrong(format!("the field {name} is given twice; allowed: each name once")));
            }
            let value = expand(value, file, host);
            len = len.saturating_add(name.len()).saturating_add(value.len());
            if len > MOST {
                let why = format!("the fields have {len} bytes together; allowed: up to {MOST}");
                return Err(of(&format!("{name}=…"), why));
            }
            fields.push((name.as_bytes().to_vec(), value));
        }
        Ok(Self(fields.into()))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.0.iter().map(|(name, value)| (name.as_slice(), value.as_slice()))
    }
}

impl FromIterator<(Vec<u8>, Vec<u8>)> for AddedFields {
    fn from_iter<T: IntoIterator<Item = (Vec<u8>, Vec<u8>)>>(fields: T) -> Self {
        Self(fields.into_iter().collect())
    }
}

impl fmt::Display for AddedFields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (name, value)) in self.iter().enumerate() {
            let between = if index > 0 { ", " } else { "" };
            write!(f, "{between}{}={:?}", name.escape_ascii(), String::from_utf8_lossy(value))?;
        }
        Ok(())
    }
}

/// The value with the placeholders replaced. Other braces stay as they are.
fn expand(value: &str, file: &Path, host: &str) -> Vec<u8> {
    let (file, host) = (("{file}", file.as_os_str().as_bytes()), ("{host}", host.as_bytes()));
    let mut expanded = Vec::with_capacity(value.len());
    let mut rest = value;
    while let Some(at) = rest.find('{') {
        let (before, from) = rest.split_at(at);
        expanded.extend_from_slice(before.as_bytes());
        let found = [file, host].iter().find_map(|(mark, with)| Some((from.strip_prefix(mark)?, *with)));
        let (behind, with) = found.unwrap_or((from.strip_prefix('{').unwrap_or_default(), b"{"));
        expanded.extend_from_slice(with);
        rest = behind;
    }
    expanded.extend_from_slice(rest.as_bytes());
    expanded
}

/// The name of this host.
pub(crate) fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(flags: &[&str]) -> Result<AddedFields, String> {
        let flags: Vec<String> = flags.iter().map(|&flag| flag.to_owned()).collect();
        AddedFields::new(&flags, Path::new("/logs/{host}.log"), "web-1").map_err(|failure| failure.to_string())
    }

    #[test]
    fn placeholders_are_replaced_once() {
        let fields = fields(&["env=prod", "from={host}:{file}", "json={\"a\":{}}{", "empty=", "eq=a=b"]).unwrap();
        let expected: [(&[u8], &[u8]); 5] = [
            (b"env", b"prod"),
            (b"from", b"web-1:/logs/{host}.log"),
            (b"json", b"{\"a\":{}}{"),
            (b"empty", b""),
            (b"eq", b"a=b"),
        ];
        assert_eq!(fields.iter().collect::<Vec<_>>(), expected);
        assert!(fields.to_string().starts_with(r#"env="prod", from="web-1:/logs/{host}.log", json="#), "{fields}");
    }

    #[test]
    fn wrong_flags_are_refused_in_one_line() {
        let long = format!("x={}", "y".repeat(MOST));
        for (flags, part) in [
            (&["env"][..], "no = in it"),
            (&["=prod"], "the name is empty"),
            (&["line=x"], "a field line of its own"),
            (&["lines=x"], "a field lines of its own"),
            (&["part=x"], "a field part of its own"),
            (&["rest=x"], "a field rest of its own"),
            (&["after=1"], "a field after of its own"),
            (&["a=1", "a=2"], "the field a is given twice"),
            (&[&long], "the fields have 4097 bytes together; allowed: up to 4096"),
        ] {
            let why = fields(flags).unwrap_err();
            assert!(why.starts_with("--add-field \"") && why.contains(part) && why.contains("allowed: "), "{why}");
            assert!(why.lines().count() == 1 && why.len() < 160, "{why}");
        }
    }
}
