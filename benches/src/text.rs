//! Generated texts for the benchmarks.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

/// Writes lines that resemble a package list: 20 to 152 bytes each, 86 on average. The text is the
/// same every time.
///
/// # Panics
///
/// If the file cannot be written.
pub fn write(path: &Path, lines: usize) {
    write_lines(path, lines, |random| 20 + usize::try_from(random % 133).unwrap_or(0));
}

/// Writes lines of `len` bytes each, including the newline.
///
/// # Panics
///
/// If the file cannot be written.
pub fn write_of_length(path: &Path, lines: usize, len: usize) {
    write_lines(path, lines, |_| len);
}

fn write_lines(path: &Path, lines: usize, len: impl Fn(u64) -> usize) {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut out = BufWriter::with_capacity(1 << 20, File::create(path).expect("create the text"));
    let mut line = Vec::new();
    for number in 0..lines {
        // xorshift64*, by Vigna: "An experimental exploration of Marsaglia's xorshift generators,
        // scrambled".
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        let random = state.wrapping_mul(0x2545_F491_4F6C_DD1D);
        let len = len(random);
        line.clear();
        let _ = write!(line, "package-{number}\t{random:x}\t");
        while line.len() < len - 1 {
            line.extend_from_slice(b"a description of it ");
        }
        line.truncate(len - 1);
        line.push(b'\n');
        out.write_all(&line).expect("write the text");
    }
    out.flush().expect("write the text");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl Fn(&Path)) -> Vec<u8> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("text");
        write(&path);
        std::fs::read(&path).expect("read it")
    }

    #[test]
    fn the_text_has_the_documented_number_and_lengths_of_lines() {
        let text = written(|path| write(path, 10_000));
        let lines: Vec<&[u8]> = text.split_inclusive(|&byte| byte == b'\n').collect();
        assert_eq!(lines.len(), 10_000);
        assert!(lines.iter().all(|line| (20..=152).contains(&line.len())));
        assert!((850_000..870_000).contains(&text.len()), "{}", text.len());
    }

    #[test]
    fn lines_have_the_given_length() {
        let text = written(|path| write_of_length(path, 100, 10));
        assert_eq!(text.len(), 1000);
        assert!(text.split_inclusive(|&byte| byte == b'\n').all(|line| line.len() == 10));
    }
}
