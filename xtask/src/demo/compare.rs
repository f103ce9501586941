//! Compares two files byte by byte.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use super::numbers::{Counted, grouped};
use crate::interrupt::Interrupt;
use crate::{During, Error, Result};

const BLOCK: usize = 1 << 20;

/// Verifies that both files have the same bytes, and counts bytes and lines. A last line without a
/// newline counts.
pub(super) fn identical(input: &Path, output: &Path, interrupt: &Interrupt) -> Result<Counted> {
    let open = |path: &Path| {
        File::open(path)
            .map(|file| BufReader::with_capacity(BLOCK, file))
            .during(|| format!("opening {}", path.display()))
    };
    let (mut a, mut b) = (open(input)?, open(output)?);
    let (mut left, mut right) = (vec![0; BLOCK], vec![0; BLOCK]);
    let mut counted = Counted { lines: 0, bytes: 0 };
    let mut last = b'\n';
    loop {
        interrupt.check()?;
        let read = fill(&mut a, &mut left).during(|| format!("reading {}", input.display()))?;
        let also = fill(&mut b, &mut right).during(|| format!("reading {}", output.display()))?;
        if let Some(at) = differs(&left[..read], &right[..also]) {
            return Err(Error::new(format!(
                "NOT identical: {} differs from {} at byte {}",
                output.display(),
                input.display(),
                grouped(counted.bytes + at as u64)
            )));
        }
        let Some(end) = left[..read].last() else { break };
        last = *end;
        counted.bytes += read as u64;
        counted.lines += memchr::memchr_iter(b'\n', &left[..read]).count() as u64;
    }
    counted.lines += u64::from(last != b'\n');
    Ok(counted)
}

/// The first position at which the two differ, or at which one of them ends.
fn differs(left: &[u8], right: &[u8]) -> Option<usize> {
    if left == right {
        return None;
    }
    Some(left.iter().zip(right).position(|(a, b)| a != b).unwrap_or(left.len().min(right.len())))
}

/// Reads until the buffer is full, or to the end of the file.
fn fill(file: &mut impl Read, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..])? {
            0 => break,
            n => filled += n,
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compared(left: &[u8], right: &[u8]) -> Result<Counted> {
        let folder = tempfile::tempdir().unwrap();
        let (a, b) = (folder.path().join("a"), folder.path().join("b"));
        std::fs::write(&a, left).unwrap();
        std::fs::write(&b, right).unwrap();
        identical(&a, &b, &Interrupt::never())
    }

    #[test]
    fn equal_bytes_are_counted() {
        let counted = compared(b"a\n\nb", b"a\n\nb").unwrap();
        assert_eq!((counted.lines, counted.bytes), (3, 4));
        let counted = compared(b"", b"").unwrap();
        assert_eq!((counted.lines, counted.bytes), (0, 0));
    }

    #[test]
    fn any_difference_is_found() {
        let large = vec![b'x'; BLOCK + 10];
        let mut other = large.clone();
        other[BLOCK + 3] = b'y';
        for (left, right) in [
            (&b"a"[..], &b"b"[..]),
            (b"a", b"ab"),
            (b"ab", b"a"),
            (b"", b"a"),
            (&large, &other),
            (&large, &large[..BLOCK]),
        ] {
            assert!(matches!(compared(left, right), Err(Error::Failed(why)) if why.contains("NOT identical")));
        }
    }
}
