//! The text that the demo streams: the user's file, a large text of this machine, or a generated
//! one.

use std::fmt;
use std::fs::{self, File};
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use super::numbers::grouped;
use crate::interrupt::Interrupt;
use crate::{During, Error, Result};

/// Folders in which systems keep large texts: word lists, package lists, documentation.
const PLACES: [&str; 4] = ["/usr/share", "/usr/local/share", "/var/lib/apt/lists", "/usr/dict"];
/// Suitable sizes: large enough to be interesting, small enough for the disk.
const SIZES: std::ops::RangeInclusive<u64> = 20_000_000..=1_000_000_000;
/// The search stops after this time with the best file so far.
const SEARCH: Duration = Duration::from_secs(5);
/// Size of the samples at the beginning, in the middle and at the end that distinguish text from
/// other files.
const SAMPLE: usize = 64 * 1024;
/// Typical line lengths of a text.
const LINE: std::ops::RangeInclusive<usize> = 4..=1000;
/// Number of lines of a generated text.
const MADE_LINES: u64 = 1_200_000;

/// The text to stream.
pub(super) struct Input {
    pub(super) path: PathBuf,
    pub(super) bytes: u64,
    modified: Option<SystemTime>,
    origin: &'static str,
}

impl fmt::Display for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} bytes, {})", self.path.display(), grouped(self.bytes), self.origin)
    }
}

impl Input {
    /// A file that the user named.
    pub(super) fn given(file: &Path) -> Result<Self> {
        Self::at(file, "yours")
    }

    /// The largest text of this machine, else a text generated in the folder.
    pub(super) fn found_or_made(folder: &Path, interrupt: &Interrupt) -> Result<Self> {
        if let Some(found) = largest_text(interrupt)? {
            return Self::at(&found, "the largest text of this machine");
        }
        let made = folder.join("input.txt");
        let done = make(&made, interrupt);
        interrupt.check()?;
        done.during(|| format!("making {}", made.display()))?;
        Self::at(&made, "made, as this machine has no large text")
    }

    fn at(path: &Path, origin: &'static str) -> Result<Self> {
        let during = || format!("opening {}", path.display());
        let path = path.canonicalize().during(during)?;
        let data = fs::metadata(&path).during(during)?;
        Ok(Self { bytes: data.len(), modified: data.modified().ok(), path, origin })
    }

    /// Fails if the file has changed, because the output cannot be compared with it then.
    pub(super) fn must_be_unchanged(&self) -> Result<()> {
        let now = Self::at(&self.path, self.origin)?;
        if (now.bytes, now.modified) == (self.bytes, self.modified) {
            return Ok(());
        }
        Err(Error::new(format!(
            "{} changed while the demo ran; give it a file that stays as it is",
            self.path.display()
        )))
    }
}

fn largest_text(interrupt: &Interrupt) -> Result<Option<PathBuf>> {
    let begun = Instant::now();
    let mut candidates = Vec::new();
    let mut folders: Vec<PathBuf> = PLACES.iter().map(PathBuf::from).collect();
    while let Some(folder) = folders.pop() {
        interrupt.check()?;
        if begun.elapsed() > SEARCH {
            break;
        }
        let Ok(entries) = fs::read_dir(folder) else { continue };
        for entry in entries.flatten() {
            // Do not follow links: their targets are searched anyway, or form cycles.
            let Ok(data) = entry.metadata() else { continue };
            if data.is_dir() {
                folders.push(entry.path());
            } else if data.is_file() && SIZES.contains(&data.len()) {
                candidates.push((data.len(), entry.path()));
            }
        }
    }
    candidates.sort_unstable_by(|a, b| b.cmp(a));
    Ok(candidates.into_iter().map(|(_, path)| path).find(|path| is_text(path).unwrap_or(false)))
}

/// Whether samples of the file are lines of text.
fn is_text(path: &Path) -> std::io::Result<bool> {
    let mut file = File::open(path)?;
    let size = file.metadata()?.len();
    let mut sample = Vec::with_capacity(SAMPLE);
    for at in [0, size / 2, size.saturating_sub(SAMPLE as u64)] {
        file.seek(SeekFrom::Start(at))?;
        sample.clear();
        (&file).take(SAMPLE as u64).read_to_end(&mut sample)?;
        let newlines = memchr::memchr_iter(b'\n', &sample).count();
        let strange = sample.iter().filter(|byte| byte.is_ascii_control() && !byte.is_ascii_whitespace()).count();
        // A sample may begin and end inside a character. Invalid bytes in the middle mean that it
        // is not text.
        let invalid = sample.utf8_chunks().filter(|chunk| !chunk.invalid().is_empty()).count();
        if !LINE.contains(&(sample.len() / newlines.max(1))) || strange > 0 || invalid > 2 {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Generates lines that resemble a log; the same ones each time.
fn make(path: &Path, interrupt: &Interrupt) -> std::io::Result<()> {
    const LEVELS: [&str; 6] = ["INFO", "INFO", "INFO", "DEBUG", "WARN", "ERROR"];
    const DOINGS: [&str; 8] = [
        "request served",
        "cache entry refreshed",
        "connection from a client that had gone away was closed and its place given to the next one",
        "payment accepted",
        "retry",
        "größere Bestellung geprüft",
        "background job finished; nothing left in the queue",
        "token renewed",
    ];
    let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for nth in 0..MADE_LINES {
        if nth % 10_000 == 0 && interrupt.check().is_err() {
            return Err(std::io::ErrorKind::Interrupted.into());
        }
        let (seconds, millis) = (nth / 400, random.below(1000));
        writeln!(
            file,
            "2026-01-{:02}T{:02}:{:02}:{:02}.{millis:03}Z {:<5} worker-{} id={:016x} {} ({} ms)",
            1 + seconds / 86400,
            seconds / 3600 % 24,
            seconds / 60 % 60,
            seconds % 60,
            random.of(&LEVELS),
            random.below(16),
            random.next(),
            random.of(&DOINGS),
            random.below(900),
        )?;
    }
    file.flush()
}

/// Marsaglia's xorshift: good enough for distinct lines.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn of(&mut self, words: &[&'static str]) -> &'static str {
        usize::try_from(self.below(words.len() as u64)).map_or("", |nth| words[nth])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generated_text_is_large_enough() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("made.txt");
        make(&path, &Interrupt::never()).unwrap();
        let text = fs::read(&path).unwrap();
        assert!(memchr::memchr_iter(b'\n', &text).count() >= 1_000_000);
        assert!(SIZES.contains(&(text.len() as u64)));
        assert!(is_text(&path).unwrap());
    }

    #[test]
    fn other_files_are_not_taken_for_text() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("other");
        for other in [&b"\x7fELF\0\0\0\n"[..], &[0xff, b'\n', 0xfe, b'\n', 0xfd, b'\n'], &[b'x'; 5000]] {
            fs::write(&path, other).unwrap();
            assert!(!is_text(&path).unwrap());
        }
    }

    #[test]
    fn a_changed_file_is_detected() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("input.txt");
        fs::write(&path, "one\n").unwrap();
        let input = Input::given(&path).unwrap();
        assert!(input.must_be_unchanged().is_ok());
        fs::write(&path, "one\ntwo\n").unwrap();
        assert!(matches!(input.must_be_unchanged(), Err(Error::Failed(why)) if why.contains("changed")));
    }
}
