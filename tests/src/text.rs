//! Inputs: real text, difficult bytes, numbered lines.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The number of lines of real text that the tests stream.
pub const REAL_LINES: usize = 886_324;

/// Folders that contain large texts on most machines.
const FOLDERS: [&str; 4] = ["/usr/share", "/usr/lib/python3", "/var/lib/dpkg", "/var/log"];

/// Writes `lines` lines of real text to `path`: from the file in `E2E_TEXT`, else from the largest
/// text on this machine. Repeats a text that is too short.
pub fn write_real(path: &Path, lines: usize) {
    let sources = real_sources();
    let mut out = std::io::BufWriter::new(File::create(path).expect("create the input"));
    let mut left = lines;
    let mut line = Vec::new();
    while left > 0 {
        let before = left;
        for source in &sources {
            let mut source = BufReader::new(File::open(source).expect("open a text"));
            while left > 0 && source.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
                if line.last() != Some(&b'\n') {
                    line.push(b'\n');
                }
                out.write_all(&line).expect("write the input");
                line.clear();
                left -= 1;
            }
        }
        if left == before {
            let made = numbered(0..left as u64, 0);
            out.write_all(&made).expect("write the input");
            left = 0;
        }
    }
    out.flush().expect("write the input");
}

/// The first `lines` lines of the real text.
#[must_use]
pub fn real(lines: usize) -> Vec<u8> {
    let folder = crate::Folder::new();
    let path = folder.join("real");
    write_real(&path, lines);
    std::fs::read(path).expect("read what was just written")
}

fn real_sources() -> Vec<PathBuf> {
    if let Some(path) = std::env::var_os("E2E_TEXT") {
        return vec![path.into()];
    }
    let mut found = Vec::new();
    for folder in FOLDERS {
        texts(Path::new(folder), 2, &mut found);
    }
    found.sort_unstable();
    found.into_iter().rev().take(4).map(|(_, path)| path).collect()
}

fn texts(folder: &Path, depth: usize, found: &mut Vec<(u64, PathBuf)>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let Ok(metadata) = entry.metadata() else { continue };
        let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        if metadata.is_dir() && depth > 0 {
            texts(&path, depth - 1, found);
        } else if metadata.is_file() && matches!(extension, "txt" | "tsv" | "csv" | "json" | "log" | "py" | "list") {
            found.push((metadata.len(), path));
        }
    }
}

/// Lines that contain their number, with lengths from 24 to about 200 bytes; the same `seed` gives
/// the same lines.
#[must_use]
pub fn numbered(numbers: Range<u64>, seed: u64) -> Vec<u8> {
    let mut out = Vec::new();
    for number in numbers {
        let mut rng = fastrand::Rng::with_seed(seed ^ number.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        write!(out, "line {number:012} ").expect("writing to memory");
        let filler = rng.usize(5..180);
        out.extend(std::iter::repeat_with(|| rng.alphanumeric() as u8).take(filler));
        out.push(b'\n');
    }
    out
}

/// The number of whole lines.
#[must_use]
pub fn lines_in(bytes: &[u8]) -> usize {
    bytes.iter().filter(|&&byte| byte == b'\n').count()
}

/// The number in a line from [`numbered`].
#[must_use]
pub fn number_of(line: &[u8]) -> Option<u64> {
    let whole = line.ends_with(b"\n") && line.len() >= 24;
    if !whole { None } else { str::from_utf8(line.strip_prefix(b"line ")?.get(..12)?).ok()?.parse().ok() }
}

/// Bytes that break careless programs: NUL, CRLF, lone CR, invalid UTF-8, empty lines, lines that
/// look like RESP, every byte value, one line of `long` bytes, no newline at the end.
#[must_use]
pub fn hard(seed: u64, long: usize) -> Vec<u8> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut pieces: Vec<Vec<u8>> = vec![
        b"\0".to_vec(),
        b"\0\0nul\0inside\0".to_vec(),
        b"carriage return and newline\r".to_vec(),
        b"\r".to_vec(),
        b"\rlone\rcarriage\rreturns".to_vec(),
        b"invalid \xff\xfe\x80 utf-8 \xc3".to_vec(),
        "överlång ünïcode – 日本語 \u{1F980}\u{2028}\u{85}".into(),
        b"*2\r\n$4\r\nPING\r".to_vec(),
        b"$-1\r".to_vec(),
        b"-ERR not an error\r".to_vec(),
        b"+OK\r".to_vec(),
        b":1\r".to_vec(),
        b"*3\r".to_vec(),
        b"%1\r".to_vec(),
        b"$5\r".to_vec(),
        b"_\r".to_vec(),
        b"XADD line_stream * line x".to_vec(),
        b"1700000000000-5".to_vec(),
        b"FLUSHALL\r".to_vec(),
        b"   ".to_vec(),
        b"\t".to_vec(),
        b"\x1b[31mred\x1b[0m\x07".to_vec(),
        (0..=255).filter(|byte| *byte != b'\n').collect(),
        vec![b'\r'; 3000],
        vec![0; 65536],
        vec![b'x'; 65535],
    ];
    pieces.extend(std::iter::repeat_n(Vec::new(), 30));
    for _ in 0..2000 {
        let length = rng.usize(0..300);
        pieces.push(std::iter::repeat_with(|| rng.u8(..)).filter(|byte| *byte != b'\n').take(length).collect());
    }
    rng.shuffle(&mut pieces);
    let middle = pieces.len() / 2;
    pieces.insert(middle, std::iter::repeat_with(|| rng.u8(b' '..)).take(long).collect());
    let mut out = b"\n\n".to_vec();
    for piece in pieces {
        out.extend_from_slice(&piece);
        out.push(b'\n');
    }
    out.extend_from_slice(b"\n\n\nno newline at the end \xff\0\r");
    out
}

/// Runs a command such as `mount`; returns whether it succeeded.
#[must_use]
pub fn can(program: &str, args: &[&str]) -> bool {
    Command::new(program).args(args).output().is_ok_and(|output| output.status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_contains_its_number() {
        let lines = numbered(7..9, 3);
        let numbers: Vec<_> = lines.split_inclusive(|&byte| byte == b'\n').map(number_of).collect();
        assert_eq!(numbers, [Some(7), Some(8)]);
        assert_eq!(numbered(7..9, 3), lines);
        assert_ne!(numbered(7..9, 4), lines);
    }

    #[test]
    fn hard_bytes_are_the_same_for_a_seed_and_have_no_final_newline() {
        let bytes = hard(1, 1000);
        assert_eq!(bytes, hard(1, 1000));
        assert_ne!(bytes.last(), Some(&b'\n'));
        assert!((0..=255).all(|byte| bytes.contains(&byte)));
    }

    #[test]
    fn real_text_has_as_many_lines_as_asked_for() {
        assert_eq!(real(1000).iter().filter(|&&byte| byte == b'\n').count(), 1000);
    }
}
