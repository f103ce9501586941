//! A file that grows during a test.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A thread that appends to a file, in pieces of random length that may end inside a line.
#[derive(Debug)]
pub struct Growth {
    thread: Option<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
    written: Arc<AtomicU64>,
}

impl Growth {
    /// Appends `bytes` over about `time`.
    #[must_use]
    pub fn of(path: &Path, bytes: Vec<u8>, time: Duration, seed: u64) -> Self {
        let rate = bytes.len() as f64 / time.as_secs_f64().max(0.001);
        let stop = Arc::new(AtomicBool::new(false));
        let written = Arc::new(AtomicU64::new(0));
        let (stopped, count) = (Arc::clone(&stop), Arc::clone(&written));
        let path = path.to_owned();
        let thread = std::thread::spawn(move || {
            let mut rng = fastrand::Rng::with_seed(seed);
            let mut file = File::options().append(true).create(true).open(&path).expect("open the input to append");
            let begun = Instant::now();
            let mut rest = &bytes[..];
            while !rest.is_empty() && !stopped.load(Ordering::Relaxed) {
                let most = (rate / 20.0) as usize + 2;
                let (piece, after) = rest.split_at(rng.usize(1..=most).min(rest.len()));
                file.write_all(piece).expect("append to the input");
                rest = after;
                let total = bytes.len() - rest.len();
                count.store(total as u64, Ordering::Relaxed);
                // This sleep sets the pace of the growth; the test does not wait for it.
                let due = Duration::from_secs_f64(total as f64 / rate);
                std::thread::sleep(due.saturating_sub(begun.elapsed()).min(Duration::from_millis(200)));
            }
        });
        Self { thread: Some(thread), stop, written }
    }

    /// Waits until everything is appended.
    pub fn wait(&mut self) {
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the growing file");
        }
    }

    /// Stops the growth early.
    pub fn stop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.wait();
    }

    /// Whether the file still grows.
    #[must_use]
    pub fn runs(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }

    /// The number of bytes appended so far.
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
