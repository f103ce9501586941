//! Texts to stream.

use std::io::Write as _;
use std::path::Path;

/// Lines of a text that looks like a package list: 86 bytes each on average, from 20 to 152, the same every time.
///
/// # Panics
///
/// When the file cannot be written.
pub fn write(path: &Path, lines: usize) {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut text = Vec::with_capacity(lines * 87);
    for number in 0..lines {
        // xorshift64*, by Vigna: "An experimental exploration of Marsaglia's xorshift generators, scrambled".
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        let random = state.wrapping_mul(0x2545_F491_4F6C_DD1D);
        let len = 20 + usize::try_from(random % 133).unwrap_or(0);
        let begin = text.len();
        let _ = write!(text, "package-{number}\t{random:x}\t");
        while text.len() < begin + len - 1 {
            text.extend_from_slice(b"a description of it ");
        }
        text.truncate(begin + len - 1);
        text.push(b'\n');
    }
    std::fs::write(path, text).expect("write the text");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_are_as_many_and_as_long_as_said() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("text");
        write(&path, 10_000);
        let text = std::fs::read(&path).expect("read it");
        let lines: Vec<&[u8]> = text.split_inclusive(|&byte| byte == b'\n').collect();
        assert_eq!(lines.len(), 10_000);
        assert!(lines.iter().all(|line| (20..=152).contains(&line.len())));
        assert!((850_000..870_000).contains(&text.len()), "{}", text.len());
    }
}
