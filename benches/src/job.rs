//! The parts of a service that are independent of Redis: reading lines from a file in batches, and
//! writing lines to a file durably. The programs in `examples/`, which do the services' work with
//! other clients, share them.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};

/// Number of entries in a batch of lines. Ten times as many are not faster with any client.
const BATCH: usize = 1000;
/// COUNT of a read of lines, and of chunks: with fewer lines the clients are slower, with more
/// chunks they need hundreds of MiB.
const COUNT: usize = 10_000;
const COUNT_CHUNKS: usize = 100;
/// Minimum size of an entry with the framing `chunk`, in bytes of whole lines.
pub const CHUNK: usize = 64 << 10;
/// Number of entries in a batch of chunks.
const CHUNKS: usize = 8;

/// The task of a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Job {
    /// Sends the lines of a file to a stream.
    Send {
        /// The URL of Redis.
        url: String,
        /// The key of the stream.
        stream: String,
        /// The path of the file.
        input: PathBuf,
        /// Whether to put many lines into an entry.
        chunked: bool,
    },
    /// Writes the entries of a stream to a file.
    Receive {
        /// The URL of Redis.
        url: String,
        /// The key of the stream.
        stream: String,
        /// The consumer group, which the program creates.
        group: String,
        /// The path of the file.
        output: PathBuf,
        /// The length of the file at the end.
        bytes: u64,
        /// COUNT of a read.
        count: usize,
    },
}

impl Job {
    /// Parses the command line: `send URL STREAM INPUT line|chunk`, or `receive URL STREAM GROUP
    /// OUTPUT BYTES line|chunk`.
    ///
    /// # Errors
    ///
    /// If the command line has neither form.
    pub fn from_args() -> io::Result<Self> {
        Self::parse(&std::env::args().skip(1).collect::<Vec<_>>())
    }

    fn parse(args: &[String]) -> io::Result<Self> {
        let words: Vec<&str> = args.iter().map(String::as_str).collect();
        let job = match words[..] {
            ["send", url, stream, input, framing @ ("line" | "chunk")] => Some(Self::Send {
                url: url.to_owned(),
                stream: stream.to_owned(),
                input: input.into(),
                chunked: framing == "chunk",
            }),
            ["receive", url, stream, group, output, bytes, framing @ ("line" | "chunk")] => {
                bytes.parse().ok().map(|bytes| Self::Receive {
                    url: url.to_owned(),
                    stream: stream.to_owned(),
                    group: group.to_owned(),
                    output: output.into(),
                    bytes,
                    count: if framing == "chunk" { COUNT_CHUNKS } else { COUNT },
                })
            }
            _ => None,
        };
        job.ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::InvalidInput,
                "usage: send URL STREAM INPUT line|chunk, or receive URL STREAM GROUP OUTPUT BYTES line|chunk",
            )
        })
    }
}

/// The lines of a file, in batches of payloads.
#[derive(Debug)]
pub struct Batches {
    input: BufReader<File>,
    chunked: bool,
}

impl Batches {
    /// Opens a file at its beginning.
    ///
    /// # Errors
    ///
    /// If the file cannot be opened.
    pub fn open(input: &Path, chunked: bool) -> io::Result<Self> {
        Ok(Self { input: BufReader::with_capacity(256 << 10, File::open(input)?), chunked })
    }

    /// The name of the field for a payload.
    #[must_use]
    pub const fn field(&self) -> &'static str {
        if self.chunked { "lines" } else { "line" }
    }

    /// The next payloads; empty at the end of the file.
    ///
    /// # Errors
    ///
    /// If the file cannot be read.
    pub fn next_batch(&mut self) -> io::Result<Vec<Vec<u8>>> {
        let most = if self.chunked { CHUNKS } else { BATCH };
        let mut payloads = Vec::with_capacity(most);
        while payloads.len() < most {
            let mut payload = Vec::with_capacity(if self.chunked { CHUNK + 1024 } else { 0 });
            while self.input.read_until(b'\n', &mut payload)? > 0 && self.chunked && payload.len() < CHUNK {}
            if payload.is_empty() {
                break;
            }
            if !self.chunked {
                payload.pop();
            }
            payloads.push(payload);
        }
        Ok(payloads)
    }
}

/// A file with durable appends.
#[derive(Debug)]
pub struct Output {
    file: File,
    buffer: Vec<u8>,
    len: u64,
}

impl Output {
    /// Creates the file.
    ///
    /// # Errors
    ///
    /// If the file cannot be created.
    pub fn create(path: &Path) -> io::Result<Self> {
        Ok(Self { file: File::create(path)?, buffer: Vec::new(), len: 0 })
    }

    /// Buffers the payload of an entry.
    pub fn take(&mut self, field: &[u8], payload: &[u8]) {
        self.buffer.extend_from_slice(payload);
        if field == b"line" {
            self.buffer.push(b'\n');
        }
    }

    /// Appends the buffered payloads durably. Returns the length of the file.
    ///
    /// # Errors
    ///
    /// If writing or syncing fails.
    pub fn commit(&mut self) -> io::Result<u64> {
        self.file.write_all(&self.buffer)?;
        self.file.sync_data()?;
        self.len += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn received_lines_equal_sent_lines() {
        let folder = tempfile::tempdir().expect("a folder");
        let (input, output) = (folder.path().join("in"), folder.path().join("out"));
        crate::text::write(&input, 5000);
        for chunked in [false, true] {
            let mut batches = Batches::open(&input, chunked).expect("open");
            let mut out = Output::create(&output).expect("create");
            let mut entries = 0;
            loop {
                let batch = batches.next_batch().expect("read");
                if batch.is_empty() {
                    break;
                }
                entries += batch.len();
                batch.iter().for_each(|payload| out.take(batches.field().as_bytes(), payload));
                out.commit().expect("write");
            }
            assert_eq!(entries, if chunked { 7 } else { 5000 });
            assert!(std::fs::read(&input).expect("read") == std::fs::read(&output).expect("read"));
        }
    }

    #[test]
    fn jobs_are_parsed_from_arguments() {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let job = Job::parse(&words("send redis://h s in chunk")).expect("a job");
        assert!(matches!(job, Job::Send { chunked: true, .. }), "{job:?}");
        let job = Job::parse(&words("receive redis://h s g out 12 line")).expect("a job");
        assert!(matches!(job, Job::Receive { bytes: 12, count: 10_000, .. }), "{job:?}");
        assert!(Job::parse(&words("send redis://h s in words")).is_err());
    }
}
