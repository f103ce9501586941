//! A file that grows while the test goes on.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::text;

/// A thread that appends to a file in pieces of random length, which end anywhere, also inside a line.
#[derive(Debug)]
pub struct Growth {
    thread: Option<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
    written: Arc<AtomicU64>,
    lines: Arc<AtomicU64>,
}

impl Growth {
    /// Appends `bytes`, spread over about `time`.
    #[must_use]
    pub fn of(path: &Path, bytes: Vec<u8>, time: Duration, seed: u64) -> Self {
        let rate = bytes.len() as f64 / time.as_secs_f64().max(0.001);
        let mut left = Some(bytes);
        Self::start(path.to_owned(), rate, seed, move || left.take())
    }

    /// Appends numbered lines, `rate` bytes a second, until [`Self::finish`].
    #[must_use]
    pub fn of_lines(path: &Path, rate: f64, seed: u64) -> Self {
        let lines = Arc::new(AtomicU64::new(0));
        let next = Arc::clone(&lines);
        let mut growth = Self::start(path.to_owned(), rate, seed, move || {
            let from = next.fetch_add(100, Ordering::Relaxed);
            Some(text::numbered(from..from + 100, seed))
        });
        growth.lines = lines;
        growth
    }

    fn start(path: PathBuf, rate: f64, seed: u64, mut more: impl FnMut() -> Option<Vec<u8>> + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let written = Arc::new(AtomicU64::new(0));
        let (stopped, count) = (Arc::clone(&stop), Arc::clone(&written));
        let thread = std::thread::spawn(move || {
            let mut rng = fastrand::Rng::with_seed(seed);
            let mut file = File::options().append(true).create(true).open(&path).expect("open the input to append");
            let begun = Instant::now();
            let mut total = 0_u64;
            while !stopped.load(Ordering::Relaxed) {
                let Some(bytes) = more() else { break };
                let mut rest = &bytes[..];
                while !rest.is_empty() {
                    let most = (rate / 20.0) as usize + 2;
                    let (piece, after) = rest.split_at(rng.usize(1..=most).min(rest.len()));
                    file.write_all(piece).expect("append to the input");
                    rest = after;
                    total += piece.len() as u64;
                    count.store(total, Ordering::Relaxed);
                    // The pace of the growth; nobody waits for it.
                    let due = Duration::from_secs_f64(total as f64 / rate);
                    std::thread::sleep(due.saturating_sub(begun.elapsed()).min(Duration::from_millis(200)));
                }
            }
        });
        Self { thread: Some(thread), stop, written, lines: Arc::new(AtomicU64::new(0)) }
    }

    /// Waits until everything is appended.
    pub fn wait(&mut self) {
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the growing file");
        }
    }

    /// Ends the growth of lines, at the end of a line. How many lines there are.
    pub fn finish(&mut self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.wait();
        self.lines.load(Ordering::Relaxed)
    }

    /// Whether it still grows.
    #[must_use]
    pub fn runs(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }

    /// How many bytes were appended so far.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }
}

impl Drop for Growth {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
