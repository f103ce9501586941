//! `writer merge`: the outputs of several writers, back in the order of the source.

use crate::layout::{Layout, Segment};
use crate::progress::progress;
use indicatif::ProgressBar;
use service::Failure;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::fd::AsFd as _;
use std::path::PathBuf;

/// The progress is told after so many bytes.
const PIECE: u64 = 64 << 20;

/// Writes the bytes of all outputs to standard output, in the order of the source, each once.
pub(crate) fn run(outputs: &[PathBuf]) -> Result<(), Failure> {
    let stdout = io::stdout()
        .as_fd()
        .try_clone_to_owned()
        .map_err(|error| Failure::failed(format!("standard output: {error}")))?;
    let holes = match merge(outputs, &mut File::from(stdout))? {
        Merged::All(holes) => holes,
        // Whoever reads has seen enough.
        Merged::ReaderGone => return Ok(()),
    };
    for hole in &holes {
        let _ = writeln!(
            io::stderr(),
            "writer merge: content {}: bytes {}..{} are in none of the outputs",
            hole.root,
            hole.span.start,
            hole.span.end
        );
    }
    if holes.is_empty() { Ok(()) } else { Err(Failure::failed("bytes are missing in the outputs")) }
}

/// How merging ended.
#[derive(Debug, PartialEq, Eq)]
enum Merged {
    /// Everything was written; between the bytes of a content these were missing.
    All(Vec<Segment>),
    /// The pipe was closed.
    ReaderGone,
}

fn merge(outputs: &[PathBuf], to: &mut File) -> Result<Merged, Failure> {
    let Some(layout) = Layout::read(outputs)? else {
        let path = outputs.first().map(|path| path.display().to_string()).unwrap_or_default();
        return Err(Failure::config(format!("--output {path}: there is no journal {path}.journal beside it")));
    };
    let bar = progress("merged", layout.segments.iter().map(|segment| segment.span.end - segment.span.start).sum());
    let merged = merge_all(&layout, to, &bar);
    bar.finish_and_clear();
    merged
}

fn merge_all(layout: &Layout, to: &mut File, bar: &ProgressBar) -> Result<Merged, Failure> {
    let mut holes = Vec::new();
    for segments in layout.contents() {
        let mut at = segments.first().map_or(0, |segment| segment.span.start);
        for segment in segments {
            if segment.span.start > at {
                holes.push(Segment { span: at..segment.span.start, ..segment.clone() });
            }
            let from = at.max(segment.span.start);
            // What another output holds, too, is left out.
            bar.inc(from.min(segment.span.end) - segment.span.start);
            if from >= segment.span.end {
                continue;
            }
            let Some(part) = layout.parts.get(segment.part) else { continue };
            let offset = segment.offset + (from - segment.span.start);
            match copy(&part.file, offset, segment.span.end - from, to, bar) {
                Ok(()) => at = segment.span.end,
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(Merged::ReaderGone),
                Err(error) => return Err(Failure::failed(format!("copying {}: {error}", part.path.display()))),
            }
        }
    }
    Ok(Merged::All(holes))
}

/// Copies a range; the kernel does it where it can.
fn copy(mut from: &File, offset: u64, mut len: u64, to: &mut File, bar: &ProgressBar) -> io::Result<()> {
    from.seek(SeekFrom::Start(offset))?;
    while len > 0 {
        let copied = io::copy(&mut from.take(len.min(PIECE)), to)?;
        if copied == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        len -= copied;
        bar.inc(copied);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::write_output;

    fn merged(outputs: &[PathBuf]) -> (Vec<u8>, Merged) {
        let mut to = tempfile::tempfile().unwrap();
        let done = merge(outputs, &mut to).unwrap();
        to.seek(SeekFrom::Start(0)).unwrap();
        let mut bytes = Vec::new();
        to.read_to_end(&mut bytes).unwrap();
        (bytes, done)
    }

    #[test]
    fn the_source_comes_back() {
        let folder = tempfile::tempdir().unwrap();
        let one = write_output(&folder.path().join("one"), &[(7, 0, b"a\n"), (7, 4, b"c\n"), (9, 0, b"x\n")]);
        let two = write_output(&folder.path().join("two"), &[(9, 2, b"y\n"), (7, 2, b"b\n")]);
        assert_eq!(merged(&[one, two]), (b"a\nb\nc\nx\ny\n".to_vec(), Merged::All(vec![])));
    }

    #[test]
    fn doubles_are_left_out_and_holes_named() {
        let folder = tempfile::tempdir().unwrap();
        let one = write_output(&folder.path().join("one"), &[(7, 0, b"a\nb\n")]);
        let two = write_output(&folder.path().join("two"), &[(7, 2, b"b\nc\n"), (7, 8, b"e\n")]);
        let (bytes, done) = merged(&[one, two]);
        assert_eq!(bytes, b"a\nb\nc\ne\n");
        let Merged::All(holes) = done else { panic!("the file takes everything") };
        assert_eq!(holes.iter().map(|hole| hole.span.clone()).collect::<Vec<_>>(), [6..8]);
    }
}
