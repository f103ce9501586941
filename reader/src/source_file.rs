//! Open files: plain ones, and compressed ones, which are decompressed while they are read.

use delivery::files::Inode;
use delivery::source_file::SourceFile;
use flate2::bufread::MultiGzDecoder;
use log::warn;
use std::cell::RefCell;
use std::fs::{File, Metadata};
use std::io::{self, BufReader, Read};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// Minimum number of decompressed bytes kept to read backwards: 512 KiB.
const KEEP: usize = 512 << 10;
/// Number of bytes decompressed at once.
const BLOCK: usize = 64 << 10;
/// Maximum decompressed size of a file that is not an input of its own: 4 GiB.
const MOST: u64 = 4 << 30;
/// The maximum window size of a zstd file, as a power of two: 32 MiB.
const ZSTD_WINDOW: u32 = 25;

/// An open file. It stays the same file when another file takes its name.
#[derive(Debug)]
pub(crate) struct DiskFile {
    file: Arc<File>,
    path: PathBuf,
    inode: Inode,
    created: Option<i128>,
    unpacked: Option<RefCell<Unpacked>>,
}

/// The compression format of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Gzip,
    Zstd,
}

impl Format {
    /// The format that the extension of a file name indicates.
    pub(crate) fn of(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()? {
            "gz" => Some(Self::Gzip),
            "zst" => Some(Self::Zstd),
            _ => None,
        }
    }
}

pub(crate) fn inode(metadata: &Metadata) -> Inode {
    Inode { dev: metadata.dev(), ino: metadata.ino() }
}

/// Nanoseconds since the epoch.
pub(crate) fn nanoseconds(time: SystemTime) -> i128 {
    let nanoseconds = |d: std::time::Duration| i128::try_from(d.as_nanos()).unwrap_or(i128::MAX);
    time.duration_since(UNIX_EPOCH).map_or_else(|before| nanoseconds(before.duration()).saturating_neg(), nanoseconds)
}

impl DiskFile {
    /// Opens a regular file.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        // Opening a pipe would block, and a pipe has no offsets.
        if !std::fs::metadata(path)?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        let created = metadata.created().ok().map(nanoseconds);
        Ok(Self { inode: inode(&metadata), created, path: path.to_owned(), file: Arc::new(file), unpacked: None })
    }

    /// Opens a compressed file. Offsets are those of the decompressed bytes.
    pub(crate) fn open_compressed(path: &Path, format: Format) -> io::Result<Self> {
        let mut opened = Self::open(path)?;
        let file = Arc::clone(&opened.file);
        opened.unpacked = Some(RefCell::new(Unpacked {
            file,
            format,
            decoder: None,
            at: 0,
            kept: Vec::new(),
            len: None,
            ends_at_damage: false,
            damage: None,
        }));
        Ok(opened)
    }

    /// Opens a compressed file that is an input of its own: where it is damaged or ends too soon,
    /// its content ends.
    pub(crate) fn open_archive(path: &Path, format: Format) -> io::Result<Self> {
        let opened = Self::open_compressed(path, format)?;
        if let Some(unpacked) = &opened.unpacked {
            unpacked.borrow_mut().ends_at_damage = true;
        }
        Ok(opened)
    }

    /// Sets the decompressed length, which is known from an earlier pass.
    pub(crate) fn with_unpacked_len(self, len: Option<u64>) -> Self {
        if let Some(unpacked) = &self.unpacked {
            unpacked.borrow_mut().len = len;
        }
        self
    }

    /// Reports up to where an archive can be read, once its length is known.
    pub(crate) fn tell_damage(&self) {
        let Some(unpacked) = &self.unpacked else { return };
        let unpacked = unpacked.borrow();
        if let Some(error) = &unpacked.damage {
            warn!(
                event = "damaged", bytes = unpacked.at;
                "{}: a damaged or truncated archive ({error}); it can be read up to byte {} of its content; restore it",
                self.path.display(), unpacked.at
            );
        }
    }

    /// The same open file, with a state of its own for decompressing it.
    pub(crate) fn share(&self) -> Self {
        let Self { path, inode, created, .. } = self;
        let unpacked = self.unpacked.as_ref().map(|unpacked| {
            let Unpacked { format, ends_at_damage, .. } = *unpacked.borrow();
            let (file, decoder, at, kept) = (Arc::clone(&self.file), None, 0, Vec::new());
            RefCell::new(Unpacked { file, format, decoder, at, kept, len: None, ends_at_damage, damage: None })
        });
        Self { file: Arc::clone(&self.file), path: path.clone(), inode: *inode, created: *created, unpacked }
    }

    pub(crate) fn metadata(&self) -> io::Result<Metadata> {
        self.file.metadata()
    }
}

impl SourceFile for DiskFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        loop {
            let read = match &self.unpacked {
                Some(unpacked) => unpacked.borrow_mut().read_at(buffer, offset),
                None => self.file.read_at(buffer, offset),
            };
            match read {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => return read,
            }
        }
    }

    fn len(&self) -> io::Result<u64> {
        match &self.unpacked {
            Some(unpacked) => unpacked.borrow_mut().len(),
            None => Ok(self.file.metadata()?.len()),
        }
    }

    fn inode(&self) -> Inode {
        self.inode
    }

    fn path(&self) -> String {
        self.path.to_string_lossy().into_owned()
    }

    fn real_path(&self) -> Option<String> {
        let path = std::fs::canonicalize(&self.path).ok()?;
        // The link may lead to another file by now.
        let is_same = std::fs::metadata(&path).is_ok_and(|metadata| inode(&metadata) == self.inode);
        is_same.then(|| path.to_string_lossy().into_owned())
    }

    fn created(&self) -> Option<i128> {
        self.created
    }

    fn free_memory(&self) {
        if let Some(unpacked) = &self.unpacked {
            let mut unpacked = unpacked.borrow_mut();
            (unpacked.decoder, unpacked.kept) = (None, Vec::new());
        }
    }

    fn modified(&self) -> Option<i128> {
        self.file.metadata().ok()?.modified().ok().map(nanoseconds)
    }
}

/// The decompressed bytes of a file, read sequentially. Reading backwards by more than [`KEEP`]
/// bytes restarts at the beginning.
struct Unpacked {
    file: Arc<File>,
    format: Format,
    decoder: Option<Box<dyn Read + Send>>,
    /// Number of bytes decompressed so far.
    at: u64,
    /// The last bytes before that offset.
    kept: Vec<u8>,
    /// The decompressed length, once the end has been reached.
    len: Option<u64>,
    /// Whether an error is the end of the content, and the error.
    ends_at_damage: bool,
    damage: Option<io::Error>,
}

impl std::fmt::Debug for Unpacked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Unpacked").field("format", &self.format).field("at", &self.at).finish_non_exhaustive()
    }
}

impl Unpacked {
    fn read_at(&mut self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        if offset < self.at.saturating_sub(self.kept.len() as u64) {
            self.decoder = None;
        }
        // Read all that is wanted, as from a plain file: the read buffer reads its last bytes again
        // and takes fewer for the end. Less than `KEEP`, so that the bytes at `offset` stay.
        let wanted = offset.saturating_add(buffer.len().min(KEEP / 2) as u64);
        while self.decoder.is_none() || wanted > self.at {
            match self.advance() {
                Ok(0) => break,
                Ok(_) => {}
                // The bytes before the damage come first.
                Err(_) if offset < self.at => break,
                Err(error) => return Err(error),
            }
        }
        let back = usize::try_from(self.at.saturating_sub(offset)).map_err(io::Error::other)?;
        let mut bytes = self.kept.get(self.kept.len().saturating_sub(back)..).unwrap_or_default();
        bytes.read(buffer)
    }

    fn len(&mut self) -> io::Result<u64> {
        while self.len.is_none() {
            self.advance()?;
        }
        Ok(self.len.unwrap_or(self.at))
    }

    /// Decompresses the next block; returns 0 at the end.
    fn advance(&mut self) -> io::Result<usize> {
        if self.decoder.is_some() && self.damage.is_some() && self.len == Some(self.at) {
            return Ok(0);
        }
        let decoder = match &mut self.decoder {
            Some(decoder) => decoder,
            none => {
                (self.at, self.kept) = (0, Vec::new());
                let packed = BufReader::new(FromStart { file: Arc::clone(&self.file), at: 0 });
                none.insert(match self.format {
                    Format::Gzip => Box::new(MultiGzDecoder::new(packed)),
                    Format::Zstd => {
                        let mut decoder = zstd::Decoder::with_buffer(packed)?;
                        decoder.window_log_max(ZSTD_WINDOW)?;
                        Box::new(decoder)
                    }
                })
            }
        };
        if self.at > MOST && !self.ends_at_damage {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "unpacks to more than 4 GiB"));
        }
        if self.kept.len() >= 2 * KEEP {
            self.kept.drain(..KEEP);
        }
        let before = self.kept.len();
        self.kept.resize(before.saturating_add(BLOCK), 0);
        let read = decoder.read(self.kept.get_mut(before..).unwrap_or_default());
        let n = *read.as_ref().unwrap_or(&0);
        self.kept.truncate(before.saturating_add(n));
        self.at = self.at.saturating_add(n as u64);
        let read = match read {
            Err(error) if self.ends_at_damage => {
                self.damage = Some(error);
                Ok(0)
            }
            read => read,
        };
        match read {
            Ok(0) => self.len = Some(self.at),
            Ok(_) => {}
            // After an error, a decoder may pretend that it is at the end.
            Err(_) => self.decoder = None,
        }
        read
    }
}

/// Reads a file from its beginning, with a position of its own.
struct FromStart {
    file: Arc<File>,
    at: u64,
}

impl Read for FromStart {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read_at(buffer, self.at)?;
        self.at = self.at.saturating_add(n as u64);
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    #[test]
    fn compressed_files_are_read_at_any_offset() {
        let folder = tempfile::tempdir().unwrap();
        let text: Vec<u8> = (0..150_000).flat_map(|n| format!("line {n}\n").into_bytes()).collect();
        let (first, second) = text.split_at(text.len() / 3);
        let gzip = folder.path().join("input.txt.1.gz");
        let mut bytes = Vec::new();
        // Two members, as `cat a.gz b.gz` produces.
        for part in [first, second] {
            let mut encoder = flate2::write::GzEncoder::new(&mut bytes, flate2::Compression::fast());
            encoder.write_all(part).unwrap();
            encoder.finish().unwrap();
        }
        std::fs::write(&gzip, &bytes).unwrap();
        let zstd = folder.path().join("input.txt.1.zst");
        std::fs::write(&zstd, zstd::encode_all(&text[..], 1).unwrap()).unwrap();
        for path in [&gzip, &zstd] {
            let file = DiskFile::open_compressed(path, Format::of(path).unwrap()).unwrap();
            for at in [0, 100, 1_500_000, 1_499_000, 5, text.len() - 10] {
                let end = (at + 1000).min(text.len());
                assert_eq!(file.bytes(at as u64, at as u64 + 1000).unwrap(), &text[at..end], "{at}");
            }
            assert_eq!(file.len().unwrap(), text.len() as u64);
            assert_eq!(file.share().bytes(0, 5).unwrap(), b"line ");
            file.free_memory();
            assert!(file.unpacked.as_ref().is_some_and(|unpacked| unpacked.borrow().kept.capacity() == 0));
            assert_eq!(file.bytes(1_000_000, 1_001_000).unwrap(), &text[1_000_000..1_001_000]);
            assert_eq!(file.len().unwrap(), text.len() as u64);
        }
        // As a buffer does that reads its last bytes again: fewer than wanted only at the end.
        let file = DiskFile::open_compressed(&gzip, Format::Gzip).unwrap();
        let (mut at, mut buffer) = (100, vec![0; 100_000]);
        while at < text.len() {
            let from = at - 64;
            let read = file.read_at(&mut buffer, from as u64).unwrap();
            assert_eq!(read, buffer.len().min(text.len() - from), "{at}");
            assert!(buffer[..read] == text[from..from + read], "{at}");
            at = from + read;
        }
        std::fs::write(&gzip, &bytes[..bytes.len() / 2]).unwrap();
        let torn = DiskFile::open_compressed(&gzip, Format::Gzip).unwrap();
        for _ in 0..2 {
            assert!(torn.len().is_err());
        }
        let mut at = 64;
        loop {
            let from = at - 64;
            let read = torn.read_at(&mut buffer, from as u64).unwrap();
            assert!(buffer[..read] == text[from..from + read], "{at}");
            if read == 64 {
                break;
            }
            at = from + read;
        }
        assert!(at > text.len() / 4, "what is before the damage is read");
    }

    #[test]
    fn only_regular_files_are_opened() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(DiskFile::open(folder.path()).unwrap_err().to_string(), "not a regular file");
    }
}
