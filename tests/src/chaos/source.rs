//! The input of a round: a growing file that is rotated.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::{rig, text};

/// A thread that appends numbered lines to the input, in pieces that may end inside a line. It
/// appends the same bytes to a second file, which is never rotated.
#[derive(Debug)]
pub(super) struct Source {
    files: Arc<Mutex<Files>>,
    stop: Arc<AtomicBool>,
    lines: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

/// Held during a write or a rotation: bytes written between a copy and its truncation would be
/// lost, as is inherent to `copytruncate`.
#[derive(Debug)]
struct Files {
    input: PathBuf,
    all: PathBuf,
    rotated: usize,
}

impl Source {
    /// Appends `rate` bytes per second to `input` and to `all`.
    pub(super) fn start(input: &Path, all: &Path, rate: f64, seed: u64) -> Self {
        let files = Files { input: input.to_owned(), all: all.to_owned(), rotated: 0 };
        let mut source =
            Self { files: Arc::new(Mutex::new(files)), stop: Arc::default(), lines: Arc::default(), thread: None };
        let (files, stop, lines) = (Arc::clone(&source.files), Arc::clone(&source.stop), Arc::clone(&source.lines));
        source.thread = Some(std::thread::spawn(move || {
            let mut rng = fastrand::Rng::with_seed(seed);
            let (begun, mut total) = (Instant::now(), 0_usize);
            loop {
                let is_last = stop.load(Ordering::Relaxed);
                let from = lines.fetch_add(100, Ordering::Relaxed);
                let bytes = text::numbered(from..from + 100, seed);
                let mut rest = &bytes[..];
                while !rest.is_empty() {
                    let (piece, after) = rest.split_at(rng.usize(1..=(rate / 20.0) as usize + 2).min(rest.len()));
                    let held = lock(&files);
                    rig::append(&held.input, piece);
                    rig::append(&held.all, piece);
                    drop(held);
                    rest = after;
                    total += piece.len();
                    // This sleep sets the pace of the growth; the test does not wait for it.
                    let due = Duration::from_secs_f64(total as f64 / rate);
                    std::thread::sleep(due.saturating_sub(begun.elapsed()).min(Duration::from_millis(200)));
                }
                if is_last {
                    break;
                }
            }
        }));
        source
    }

    /// Rotates as logrotate's `create` does: increments the number of each rotated file, renames
    /// the input to number 1, and creates a new input.
    pub(super) fn rename(&self) {
        let mut files = lock(&self.files);
        files.make_room();
        fs::rename(&files.input, files.number(1)).expect("rename the input");
        File::create(&files.input).expect("create the input");
    }

    /// Rotates as logrotate's `copytruncate` does.
    pub(super) fn copy_and_truncate(&self) {
        let mut files = lock(&self.files);
        files.make_room();
        fs::copy(&files.input, files.number(1)).expect("copy the input");
        File::options().write(true).open(&files.input).and_then(|file| file.set_len(0)).expect("truncate the input");
    }

    /// Appends a few more lines, and ends. Returns the number of all lines.
    ///
    /// The reader goes on from a renamed file to the new one when that one has bytes. The last
    /// lines are written after the last rotation, so the input is never empty in the end.
    pub(super) fn finish(&mut self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the growing file");
        }
        self.lines.load(Ordering::Relaxed)
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

impl Files {
    fn number(&self, nth: usize) -> PathBuf {
        PathBuf::from(format!("{}.{nth}", self.input.display()))
    }

    fn make_room(&mut self) {
        for nth in (1..=self.rotated).rev() {
            fs::rename(self.number(nth), self.number(nth + 1)).expect("rename a rotated file");
        }
        self.rotated += 1;
        // The growth may not have begun yet.
        rig::append(&self.input, b"");
    }
}

fn lock(files: &Mutex<Files>) -> MutexGuard<'_, Files> {
    files.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Folder, wait};

    #[test]
    fn rotations_keep_every_byte() {
        let folder = Folder::new();
        let (input, all) = (folder.join("input.txt"), folder.join("all"));
        let mut source = Source::start(&input, &all, 1e7, 1);
        for nth in 1..=6 {
            wait::until("it grows", || rig::len(&input) > 1000);
            if nth % 2 == 0 { source.rename() } else { source.copy_and_truncate() }
        }
        let lines = source.finish();
        assert_ne!(rig::len(&input), 0);
        let bytes = fs::read(&all).unwrap();
        let files = lock(&source.files);
        let oldest_first = (1..=files.rotated).rev().map(|nth| files.number(nth)).chain([input]);
        assert_eq!(bytes, oldest_first.flat_map(|path| fs::read(path).unwrap()).collect::<Vec<u8>>());
        assert_eq!(crate::check::numbered(&bytes, lines), Ok(()));
    }
}
