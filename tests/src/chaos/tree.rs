//! The input of a round with many files: a tree of files that grow, are rotated in every way that
//! logrotate knows, disappear and appear.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::{rig, text};

/// Rotated files of a source that are kept.
const KEPT: usize = 4;
/// The time between two rotations of a file. The reader waits a moment before it leaves a rotated
/// file, so it could not keep up with faster ones.
const PAUSE: Duration = Duration::from_secs(1);

/// A thread that is the application and logrotate of all files, so that no byte is written between
/// a copy and its truncation.
#[derive(Debug)]
pub(super) struct Tree {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Vec<Source>>>,
}

/// A file of the tree, under all its names.
#[derive(Debug)]
pub(super) struct Source {
    /// The path below the input folder, and below the output folder.
    pub(super) name: String,
    folders: Folders,
    seed: u64,
    /// The number of lines written.
    lines: u64,
    /// The number of bytes written.
    pub(super) bytes: u64,
    /// The number of contents so far: each has a file in the folder of the truth.
    contents: usize,
    /// The length of the present content; `None` if there is no file.
    len: Option<u64>,
    /// The rotated files that exist, newest first: the ending that compression gave to each.
    rotated: Vec<&'static str>,
    rotated_at: Option<Instant>,
    /// Between two rotations.
    pause: Duration,
}

/// The folders of a tree.
#[derive(Debug, Clone)]
pub(super) struct Folders {
    /// What the reader follows.
    pub(super) inputs: PathBuf,
    /// The outputs of the writer, to know which bytes may be deleted.
    pub(super) outputs: PathBuf,
    /// A file for each content that was ever written: `app.log.3` is the third one of `app.log`.
    pub(super) truth: PathBuf,
}

impl Tree {
    /// Lets `count` files grow by `rate` bytes per second altogether. Half of the files exist when
    /// this returns.
    pub(super) fn start(folders: &Folders, count: usize, rate: f64, seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let source = |nth: usize| Source::new(nth, folders, seed);
        let mut sources: Vec<Source> = (0..count).map(source).collect();
        sources.iter_mut().take(count / 2).for_each(|source| source.append(1 + rng.u64(..30), &mut rng));
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let (begun, before) = (Instant::now(), sources.iter().map(|source| source.bytes).sum::<u64>());
            let mut total = before;
            while !stopped.load(Ordering::Relaxed) {
                // A few files are busy; the others are written to now and then.
                let among = if rng.u8(..4) > 0 { (count / 10).max(1) } else { count };
                let source = &mut sources[rng.usize(..among)];
                let was = source.bytes;
                source.act(&mut rng);
                total += source.bytes - was;
                // This sleep sets the pace of the growth; the test does not wait for it.
                let due = Duration::from_secs_f64((total - before) as f64 / rate);
                std::thread::sleep(due.saturating_sub(begun.elapsed()).min(Duration::from_millis(200)));
            }
            // What was rotated last is sent when the file is there again.
            let is_away = |source: &&mut Source| source.len.is_none() && !source.is_delivered();
            sources.iter_mut().filter(is_away).for_each(|source| source.append(1, &mut rng));
            sources
        });
        Self { stop, thread: Some(thread) }
    }

    /// Stops the growth at the end of a line, and returns the files.
    pub(super) fn finish(&mut self) -> Vec<Source> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().map(|thread| thread.join().expect("the tree")).unwrap_or_default()
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let _ = self.finish();
    }
}

impl Source {
    fn new(nth: usize, folders: &Folders, seed: u64) -> Self {
        let name = match nth % 5 {
            0 => format!("app-{nth}.log"),
            1 => format!("service {}/{nth}.log", nth % 7),
            2 => format!("deep/{}/{}/file{{{nth}}}.log", nth % 3, nth % 11),
            3 => format!("deep/{nth}%ü.log"),
            _ => format!("web/worker{nth}.log"),
        };
        let seed = seed ^ (nth as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let folders = folders.clone();
        let rotated = Vec::new();
        Self {
            name,
            folders,
            seed,
            lines: 0,
            bytes: 0,
            contents: 0,
            len: None,
            rotated,
            rotated_at: None,
            pause: PAUSE,
        }
    }

    /// Mostly appends; sometimes rotates, compresses, or deletes.
    fn act(&mut self, rng: &mut fastrand::Rng) {
        match (rng.u8(..100), self.len) {
            (0..4, Some(1..)) if self.may_rotate() => self.rename(rng.bool()),
            (4..7, Some(1..)) if self.may_rotate() => self.copy_and_truncate(),
            (7..12, _) => self.compress(rng),
            (12..14, Some(_)) => self.delete(),
            _ => self.append(1 + rng.u64(..40), rng),
        }
    }

    fn input(&self) -> PathBuf {
        self.folders.inputs.join(&self.name)
    }

    /// The output; it need not exist.
    pub(super) fn output(&self) -> PathBuf {
        self.folders.outputs.join(&self.name)
    }

    /// The file with this content, from 1.
    pub(super) fn content(&self, nth: usize) -> PathBuf {
        self.folders.truth.join(format!("{}.{nth}", self.name))
    }

    /// Everything that was written, in order.
    pub(super) fn written(&self) -> Vec<u8> {
        let read = |nth| fs::read(self.content(nth)).expect("a content");
        (1..=self.contents).flat_map(read).collect()
    }

    /// Appends lines, in pieces that may end inside a line.
    fn append(&mut self, lines: u64, rng: &mut fastrand::Rng) {
        if self.len.is_none() {
            (self.len, self.contents) = (Some(0), self.contents + 1);
        }
        let (input, content) = (self.input(), self.content(self.contents));
        for path in [&input, &content] {
            fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        }
        let bytes = text::numbered(self.lines..self.lines + lines, self.seed);
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(rng.usize(1..=rest.len()));
            rig::append(&content, piece);
            rig::append(&input, piece);
            rest = after;
        }
        self.lines += lines;
        self.bytes += bytes.len() as u64;
        self.len = self.len.map(|len| len + bytes.len() as u64);
    }

    /// The path of a rotated file: `nth` 0 is the newest one.
    fn rotated(&self, nth: usize, ending: &str) -> PathBuf {
        self.folders.inputs.join(format!("{}.{}{ending}", self.name, nth + 1))
    }

    /// Increments the numbers of the rotated files, and deletes those that are delivered, if there
    /// are too many.
    fn make_room(&mut self) {
        if self.rotated.len() >= KEPT && self.is_delivered() {
            while let Some(ending) = self.rotated.pop() {
                fs::remove_file(self.rotated(self.rotated.len(), ending)).expect("delete a rotated file");
            }
        }
        for (nth, ending) in self.rotated.iter().enumerate().rev() {
            fs::rename(self.rotated(nth, ending), self.rotated(nth + 1, ending)).expect("rename");
        }
        self.rotated.insert(0, "");
        self.rotated_at = Some(Instant::now());
    }

    /// Rotates by renaming, as logrotate's `create` (with a new file at once) and `nocreate` do.
    fn rename(&mut self, create: bool) {
        self.make_room();
        fs::rename(self.input(), self.rotated(0, "")).expect("rename the input");
        self.len = None;
        if create {
            File::create(self.input()).expect("create the input");
        }
    }

    fn copy_and_truncate(&mut self) {
        self.make_room();
        fs::copy(self.input(), self.rotated(0, "")).expect("copy the input");
        File::options().write(true).open(self.input()).and_then(|file| file.set_len(0)).expect("truncate the input");
        self.len = None;
    }

    /// Compresses a rotated file as logrotate's `compress` does: the plain file is deleted when the
    /// compressed one is complete.
    fn compress(&mut self, rng: &mut fastrand::Rng) {
        let plain: Vec<usize> = (0..self.rotated.len()).filter(|&nth| self.rotated[nth].is_empty()).collect();
        let Some(&nth) = plain.get(rng.usize(..plain.len().max(1))) else { return };
        let ending = [".gz", ".zst"][rng.usize(..2)];
        let bytes = fs::read(self.rotated(nth, "")).expect("a rotated file");
        let packed = File::create(self.rotated(nth, ending)).expect("create the compressed file");
        let times = packed.try_clone().expect("the same file");
        let done = if ending == ".gz" {
            let mut encoder = GzEncoder::new(packed, Compression::fast());
            in_pieces(&bytes, &mut encoder).and_then(|()| encoder.finish())
        } else {
            let encoder = zstd::Encoder::new(packed, 1);
            encoder.and_then(|mut encoder| in_pieces(&bytes, &mut encoder).and_then(|()| encoder.finish()))
        };
        done.expect("compress a rotated file");
        // As gzip does. The order of files that came and went unseen is read from their times.
        let modified = fs::metadata(self.rotated(nth, "")).and_then(|plain| plain.modified());
        modified.and_then(|modified| times.set_modified(modified)).expect("keep the time");
        fs::remove_file(self.rotated(nth, "")).expect("delete the plain file");
        self.rotated[nth] = ending;
    }

    /// Deletes the file, if everything is delivered: other bytes could not be read any more.
    fn delete(&mut self) {
        if self.is_delivered() {
            fs::remove_file(self.input()).expect("delete the input");
            self.len = None;
        }
    }

    /// Whether the reader knows the source, because a file that was rotated before is not sent, and
    /// has had time for the last rotation.
    fn may_rotate(&self) -> bool {
        self.rotated_at.is_none_or(|at| at.elapsed() >= self.pause) && rig::len(&self.output()) > 0
    }

    /// Whether all bytes are in the output.
    pub(super) fn is_delivered(&self) -> bool {
        rig::len(&self.output()) == self.bytes
    }
}

fn in_pieces(bytes: &[u8], encoder: &mut impl Write) -> std::io::Result<()> {
    bytes.chunks(4 << 10).try_for_each(|piece| encoder.write_all(piece).and_then(|()| encoder.flush()))
}

/// The number of files below a folder, and of their bytes.
pub(super) fn count_below(folder: &Path) -> (u64, u64) {
    let entries = fs::read_dir(folder).expect("a folder").filter_map(Result::ok);
    entries.fold((0, 0), |(files, bytes), entry| match entry.file_type() {
        Ok(kind) if kind.is_dir() => {
            let (more_files, more_bytes) = count_below(&entry.path());
            (files + more_files, bytes + more_bytes)
        }
        Ok(_) => (files + 1, bytes + rig::len(&entry.path())),
        Err(_) => (files, bytes),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Folder;
    use std::io::Read as _;

    /// Without deletions, the files of a source hold what was written, whatever happened to them.
    #[test]
    fn no_byte_is_lost_by_the_tree_itself() {
        let folder = Folder::new();
        let [inputs, outputs, truth] = ["in", "out", "truth"].map(|name| folder.join(name));
        let folders = Folders { inputs, outputs, truth };
        let mut rng = fastrand::Rng::with_seed(1);
        let mut source = Source { pause: Duration::ZERO, ..Source::new(2, &folders, 1) };
        fs::create_dir_all(source.output().parent().unwrap()).unwrap();
        fs::write(source.output(), "the source has begun").unwrap();
        for _ in 0..300 {
            source.act(&mut rng);
        }
        let mut bytes = Vec::new();
        for (nth, &ending) in source.rotated.iter().enumerate().rev() {
            let mut file = File::open(source.rotated(nth, ending)).unwrap();
            match ending {
                ".gz" => flate2::read::GzDecoder::new(file).read_to_end(&mut bytes).unwrap(),
                ".zst" => zstd::Decoder::new(file).unwrap().read_to_end(&mut bytes).unwrap(),
                _ => file.read_to_end(&mut bytes).unwrap(),
            };
        }
        bytes.extend(fs::read(source.input()).unwrap_or_default());
        assert!([".gz", ".zst"].iter().all(|ending| source.rotated.contains(ending)), "{:?}", source.rotated);
        assert!(source.written() == bytes);
        assert_eq!(crate::check::numbered(&bytes, source.lines), Ok(()));
    }
}
