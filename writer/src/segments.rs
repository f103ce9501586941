//! The positions of source bytes in the outputs, read from their journals. Used by `verify` and
//! `merge`; read-only.

use crate::file_buffer::hash_of;
use crate::journal_file::path_of;
use delivery::entry::Span;
use delivery::journal::{Parsed, join};
use delivery::output::Refusal;
use service::Failure;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// An output.
#[derive(Debug)]
pub(crate) struct Part {
    /// The path of the output.
    pub(crate) path: PathBuf,
    /// The open file.
    pub(crate) file: File,
    /// The length of the output before the writer's first commit.
    pub(crate) base: u64,
    /// Bytes after the last commit; not part of the output.
    pub(crate) torn: u64,
}

/// Contiguous bytes of a content in one of the outputs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Segment {
    /// The file ID of the content.
    pub(crate) file_id: u64,
    /// The bytes of the content.
    pub(crate) span: Span,
    /// The index of the output.
    pub(crate) part: usize,
    /// The offset in the output.
    pub(crate) offset: u64,
}

impl Segment {
    /// The offset in the output of a byte of the content.
    pub(crate) const fn offset_of(&self, byte: u64) -> u64 {
        self.offset.saturating_add(byte.saturating_sub(self.span.start))
    }

    /// The offset in the output after the last byte.
    pub(crate) const fn end(&self) -> u64 {
        self.offset_of(self.span.end)
    }
}

/// Several outputs, and the segments in them.
#[derive(Debug)]
pub(crate) struct Segments {
    /// The outputs.
    pub(crate) parts: Vec<Part>,
    /// The segments, in the order of the source.
    pub(crate) segments: Vec<Segment>,
}

impl Segments {
    /// Reads the journals of these outputs. `None` if there is a single output without a journal.
    pub(crate) fn read(outputs: &[PathBuf]) -> Result<Option<Self>, Failure> {
        let mut segments = Self { parts: Vec::new(), segments: Vec::new() };
        for path in outputs {
            // Read the length of the output first: a running writer appends to the journal before
            // it appends to the output.
            let (file, len) = open(path)?;
            let journal = path_of(path);
            let bytes = match std::fs::read(&journal) {
                Ok(bytes) => bytes,
                Err(error) if error.kind() == io::ErrorKind::NotFound && outputs.len() == 1 => return Ok(None),
                Err(error) => return Err(unreadable(path, &journal, &error)),
            };
            let refused = |refusal: Refusal| {
                Failure::config(format!("--output {}: {}: {refusal}", path.display(), journal.display()))
            };
            let part = segments.parts.len();
            let (base, committed) = match Parsed::read(&bytes).map_err(|error| refused(error.into()))? {
                None => (len, len),
                Some(parsed) => {
                    let recovered = parsed
                        .recover(len, |span| hash_of(&file, span))
                        .map_err(|error| unreadable(path, path, &error))?
                        .map_err(refused)?;
                    let mut joined = Vec::new();
                    recovered.records.iter().for_each(|record| join(&mut joined, record));
                    segments.segments.extend(joined.into_iter().map(|record| Segment {
                        file_id: record.file,
                        span: record.span,
                        part,
                        offset: record.offset,
                    }));
                    (recovered.base, recovered.cut.start)
                }
            };
            let torn = len.saturating_sub(committed);
            segments.parts.push(Part { path: path.clone(), file, base, torn });
        }
        segments.segments.sort_by_key(|segment| (segment.file_id, segment.span.start, segment.span.end));
        Ok(Some(segments))
    }

    /// The segments of each content, in the order of the source.
    pub(crate) fn contents(&self) -> impl Iterator<Item = &[Segment]> {
        self.segments.chunk_by(|one, next| one.file_id == next.file_id)
    }
}

/// Opens a file named on the command line.
fn open(path: &Path) -> Result<(File, u64), Failure> {
    let opened = File::open(path).and_then(|file| file.metadata().map(|metadata| (file, metadata.len())));
    opened.map_err(|error| unreadable(path, path, &error))
}

fn unreadable(output: &Path, file: &Path, error: &io::Error) -> Failure {
    let what = if output == file { String::new() } else { format!("reading {}: ", file.display()) };
    let todo = match error.kind() {
        io::ErrorKind::NotFound => "allowed: a file that a writer wrote, with its journal beside it",
        _ => service::advice::reading(error),
    };
    Failure::config(format!("--output {}: {what}{error}; {todo}", output.display()))
}
