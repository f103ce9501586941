//! Compares an input with an output that has no journal, and classifies the differences. Used by
//! `writer verify`.

use crate::file_buffer::FileBuffer;
use delivery::entry::Span;
use memchr::memmem;
use std::io;

/// Number of equal bytes that end a difference.
const ANCHOR: usize = 32;
/// Maximum distance at which equal bytes are searched for after a difference: the length of a
/// buffer.
const REACH: u64 = crate::file_buffer::BUFFER_LEN as u64;

/// The kind of a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// Equal bytes (offsets of the input).
    None,
    /// Bytes of the input that are missing in the output.
    Missing,
    /// Bytes of the input that are in the output twice in a row.
    Doubled,
    /// Bytes of the input that differ in the output.
    Different,
    /// Bytes of the output that are not in the input.
    Extra,
}

/// Compares an input with the output from `at` on, and reports each range to `found`. Returns the
/// offset in the output after the bytes of this input. For the last input, the rest of the output
/// is extra.
pub(crate) fn compare(
    input: &mut FileBuffer<'_>,
    input_len: u64,
    output: &mut FileBuffer<'_>,
    mut at: u64,
    output_len: u64,
    is_last: bool,
    mut found: impl FnMut(Cause, Span),
) -> io::Result<u64> {
    let mut source = 0;
    while source < input_len && at < output_len {
        let expected = input.at(source, input_len - source)?;
        let actual = output.at(at, expected.len() as u64)?;
        let len = expected.len().min(actual.len());
        if len == 0 {
            break;
        }
        let equal = match expected.get(..len) == actual.get(..len) {
            true => len,
            false => expected.iter().zip(actual).take_while(|(expected, actual)| expected == actual).count(),
        } as u64;
        found(Cause::None, source..source + equal);
        (source, at) = (source + equal, at + equal);
        if equal == len as u64 {
            continue;
        }
        let expected = copied(input, source, input_len)?;
        let actual = copied(output, at, output_len)?;
        let Some(step) = realign(&expected, &actual) else {
            found(Cause::Different, source..input_len);
            return Ok(if is_last { output_len } else { at.saturating_add(input_len - source).min(output_len) });
        };
        match step {
            Step::Skip(input) => {
                found(Cause::Missing, source..source + input);
                source += input;
            }
            Step::Surplus(output) => {
                // A doubled line is in the input just before this position.
                let back = source.checked_sub(output);
                let before = match back {
                    Some(back) => input.at(back, output)?.to_vec(),
                    None => Vec::new(),
                };
                match back {
                    Some(back) if Some(&before[..]) == actual.get(..before.len()) && before.len() as u64 == output => {
                        found(Cause::Doubled, back..source);
                    }
                    _ => found(Cause::Extra, at..at + output),
                }
                at += output;
            }
            Step::Replace(both) => {
                found(Cause::Different, source..source + both);
                (source, at) = (source + both, at + both);
            }
        }
    }
    found(Cause::Missing, source..input_len);
    if is_last && at < output_len {
        found(Cause::Extra, at..output_len);
        at = output_len;
    }
    Ok(at)
}

fn copied(buffer: &mut FileBuffer<'_>, at: u64, len: u64) -> io::Result<Vec<u8>> {
    let mut bytes = buffer.at(at, (len - at).min(REACH))?.to_vec();
    // The buffer may end soon: read the next one too.
    let more = (len - at).min(REACH) - bytes.len() as u64;
    if more > 0 {
        let next = at + bytes.len() as u64;
        bytes.extend_from_slice(buffer.at(next, more)?);
    }
    Ok(bytes)
}

/// How to continue after a difference.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// The output continues this many bytes later in the input.
    Skip(u64),
    /// The input continues this many bytes later in the output.
    Surplus(u64),
    /// Both continue after this many bytes.
    Replace(u64),
}

/// The shortest step after which the bytes are equal again.
fn realign(expected: &[u8], actual: &[u8]) -> Option<Step> {
    let anchor = |bytes: &'_ [u8]| bytes.len().min(ANCHOR);
    let find = |needle: &[u8], bytes: &[u8]| {
        let needle = needle.get(..anchor(needle))?;
        memmem::find(bytes, needle).filter(|&at| at > 0)
    };
    let skip = find(actual, expected);
    let surplus = find(expected, actual);
    let shortest = skip.into_iter().chain(surplus).min().unwrap_or(usize::MAX);
    let len = expected.len().min(actual.len());
    let mut replace = None;
    // The number of consecutive equal bytes up to here.
    let mut row = 0;
    for (at, (expected, actual)) in expected.iter().zip(actual).enumerate() {
        row = if expected == actual { row + 1 } else { 0 };
        if row >= ANCHOR || row > 0 && at + 1 == len {
            replace = Some(at + 1 - row);
            break;
        }
        if at >= shortest.saturating_add(ANCHOR) {
            break;
        }
    }
    match (replace, skip, surplus) {
        (Some(replace), _, _) if replace <= shortest => Some(Step::Replace(replace as u64)),
        (_, Some(skip), _) if skip == shortest => Some(Step::Skip(skip as u64)),
        (_, _, Some(surplus)) => Some(Step::Surplus(surplus as u64)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn file(bytes: &[u8]) -> std::fs::File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    fn differences(input: &[u8], output: &[u8]) -> Vec<(Cause, Span)> {
        let (input_file, output_file) = (file(input), file(output));
        let mut all = Vec::new();
        let found = |cause, span: Span| {
            if cause != Cause::None && !span.is_empty() {
                all.push((cause, span));
            }
        };
        let (mut theirs, mut ours) = (FileBuffer::new(&input_file), FileBuffer::new(&output_file));
        compare(&mut theirs, input.len() as u64, &mut ours, 0, output.len() as u64, true, found).unwrap();
        all
    }

    fn text() -> Vec<u8> {
        (0..200_000).flat_map(|i| format!("line {i}\n").into_bytes()).collect()
    }

    #[test]
    fn equal_bytes_have_no_difference() {
        assert_eq!(differences(&text(), &text()), []);
        assert_eq!(differences(b"", b""), []);
    }

    #[test]
    fn a_lost_line_is_missing() {
        let text = text();
        let line = text.len() / 2..text.len() / 2 + 12;
        let output = [&text[..line.start], &text[line.end..]].concat();
        let found = differences(&text, &output);
        // The range may be shifted if the bytes at its ends are equal.
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!((found[0].0, found[0].1.end - found[0].1.start), (Cause::Missing, 12));
    }

    #[test]
    fn a_line_written_twice_is_doubled() {
        let text = text();
        let output = [&text[..1200], &text[1100..]].concat();
        let found = differences(&text, &output);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!((found[0].0, found[0].1.end - found[0].1.start), (Cause::Doubled, 100));
    }

    #[test]
    fn changed_bytes_are_different() {
        let text = text();
        let mut output = text.clone();
        output[1_500_000] ^= 1;
        output[1_700_000] ^= 1;
        let expected = [(Cause::Different, 1_500_000..1_500_001), (Cause::Different, 1_700_000..1_700_001)];
        assert_eq!(differences(&text, &output), expected);
    }

    #[test]
    fn missing_and_extra_ends_are_found() {
        assert_eq!(differences(b"a\nb\n", b"a\n"), [(Cause::Missing, 2..4)]);
        assert_eq!(differences(b"a\n", b"a\nb\n"), [(Cause::Extra, 2..4)]);
        assert_eq!(differences(b"", b"b\n"), [(Cause::Extra, 0..2)]);
        let found = differences(b"aaaa", b"bbbbbb");
        assert_eq!(found, [(Cause::Different, 0..4)]);
    }
}
