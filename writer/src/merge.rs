//! `writer merge`: merges the outputs of several writers into the order of the source.

use crate::file_buffer::hash_of;
use crate::journal_file::{folder_of, lock, sync_folder_of, with_suffix};
use crate::progress::progress;
use crate::segments::{Part, Segment, Segments};
use crate::tree;
use delivery::entry::Span;
use indicatif::ProgressBar;
use service::Failure;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

/// Interval of progress updates, and of syncs of `--into`, in bytes.
const PIECE: u64 = if cfg!(test) { 64 << 10 } else { 64 << 20 };

/// Writes the bytes of all outputs in the order of the source, each once, to standard output or to
/// a file.
pub(crate) fn run(outputs: &[PathBuf], into: Option<&Path>) -> Result<(), Failure> {
    let segments = read_segments(outputs)?;
    let plan = Plan::of(&segments);
    let bar = progress("merged", plan.len());
    let done = match into {
        Some(path) => merge_into(&segments, &plan, path, &bar),
        None => merge_to_stdout(&segments, &plan, &bar),
    };
    bar.finish_and_clear();
    if let Merged::ReaderGone = done? {
        // The program at the other end of the pipe has exited.
        return Ok(());
    }
    for hole in &plan.holes {
        let _ = writeln!(
            io::stderr(),
            "writer merge: content {}: bytes {}..{} are in none of the outputs",
            hole.file_id,
            hole.span.start,
            hole.span.end
        );
    }
    if plan.holes.is_empty() { Ok(()) } else { Err(Failure::failed("bytes are missing in the outputs")) }
}

/// Merges each source of a tree into a file with its name below `into`. Continues after a source
/// that lacks bytes, and fails at the end.
pub(crate) fn run_tree(outputs: &[PathBuf], into: &Path) -> Result<(), Failure> {
    let mut lacking: u64 = 0;
    let sources = tree::outputs(outputs)?;
    let count = sources.len();
    for (name, files) in sources {
        let path = into.join(name);
        std::fs::create_dir_all(folder_of(&path))
            .map_err(|error| Failure::failed(format!("--into {}: creating its folder: {error}", path.display())))?;
        match run(&files.outputs, Some(&path)) {
            Err(failure) if failure.code() == 1 => {
                let _ = writeln!(io::stderr(), "writer merge: {}: {failure}", path.display());
                lacking = lacking.saturating_add(1);
            }
            done => done?,
        }
    }
    if lacking == 0 { Ok(()) } else { Err(Failure::failed(format!("{lacking} of {count} sources are incomplete"))) }
}

/// How the merge ended.
#[derive(Debug, PartialEq, Eq)]
enum Merged {
    /// All bytes were written.
    All,
    /// The pipe was closed.
    ReaderGone,
}

/// The parts of the outputs to copy, in the order of the source.
#[derive(Debug, Default)]
struct Plan {
    pieces: Vec<Piece>,
    /// Bytes of the source that no output has.
    holes: Vec<Segment>,
}

/// Consecutive bytes of an output.
#[derive(Debug, Clone, Copy)]
struct Piece {
    part: usize,
    offset: u64,
    len: u64,
}

impl Plan {
    fn of(segments: &Segments) -> Self {
        let mut plan = Self::default();
        for segments in segments.contents() {
            let mut at = segments.first().map_or(0, |segment| segment.span.start);
            for segment in segments {
                if segment.span.start > at {
                    plan.holes.push(Segment { span: at..segment.span.start, ..segment.clone() });
                }
                // Skip bytes that an earlier output has too.
                let from = at.max(segment.span.start);
                if from < segment.span.end {
                    let (offset, len) = (segment.offset_of(from), segment.span.end.saturating_sub(from));
                    plan.pieces.push(Piece { part: segment.part, offset, len });
                    at = segment.span.end;
                }
            }
        }
        plan
    }

    fn len(&self) -> u64 {
        self.pieces.iter().map(|piece| piece.len).sum()
    }

    /// The pieces after the first `skip` bytes, each with its offset in the result. Pieces are
    /// split at multiples of [`PIECE`].
    fn from(&self, skip: u64) -> impl Iterator<Item = (u64, Piece)> {
        let mut at = 0_u64;
        let all = self.pieces.iter().map(move |piece| {
            let begin = at;
            at = at.saturating_add(piece.len);
            (begin..at, *piece)
        });
        all.filter(move |(placed, _)| placed.end > skip).flat_map(move |(Span { start, end }, piece)| {
            let mut next = start.max(skip);
            std::iter::from_fn(move || {
                let until = end.min((next / PIECE).saturating_add(1).saturating_mul(PIECE));
                let offset = piece.offset.saturating_add(next.saturating_sub(start));
                let part = Piece { offset, len: until.checked_sub(next)?, ..piece };
                let placed = (next, part);
                next = until;
                (part.len > 0).then_some(placed)
            })
        })
    }

    /// Identifies the plan, so that an unfinished file is only continued with the same plan.
    fn hash(&self) -> u64 {
        let mut hasher = delivery::Hasher::default();
        for piece in &self.pieces {
            for number in [piece.part as u64, piece.offset, piece.len] {
                hasher.update(&number.to_le_bytes());
            }
        }
        hasher.finish()
    }
}

fn read_segments(outputs: &[PathBuf]) -> Result<Segments, Failure> {
    Segments::read(outputs)?.ok_or_else(|| {
        let path = outputs.first().map(|path| path.display().to_string()).unwrap_or_default();
        Failure::config(format!(
            "--output {path}: there is no journal {path}.journal beside it; allowed: a file that a writer wrote"
        ))
    })
}

fn part_of<'a>(segments: &'a Segments, piece: &Piece) -> Result<&'a Part, Failure> {
    segments.parts.get(piece.part).ok_or_else(|| Failure::failed("an output is missing"))
}

fn merge_to_stdout(segments: &Segments, plan: &Plan, bar: &ProgressBar) -> Result<Merged, Failure> {
    let stdout = io::stdout().as_fd().try_clone_to_owned();
    let mut stdout = File::from(stdout.map_err(|error| Failure::failed(format!("standard output: {error}")))?);
    copy_all(segments, plan, 0, &mut stdout, bar)
}

fn copy_all(segments: &Segments, plan: &Plan, skip: u64, to: &mut File, bar: &ProgressBar) -> Result<Merged, Failure> {
    for (_, piece) in plan.from(skip) {
        let part = part_of(segments, &piece)?;
        match copy(&part.file, piece.offset, piece.len, to) {
            Ok(()) => bar.inc(piece.len),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(Merged::ReaderGone),
            Err(error) => return Err(Failure::failed(format!("copying {}: {error}", part.path.display()))),
        }
    }
    Ok(Merged::All)
}

/// Copies a range, inside the kernel if possible.
fn copy(mut from: &File, offset: u64, len: u64, to: &mut File) -> io::Result<()> {
    from.seek(SeekFrom::Start(offset))?;
    let copied = io::copy(&mut from.take(len), to)?;
    if copied == len {
        Ok(())
    } else {
        Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file is shorter than expected"))
    }
}

/// Merges into a file that appears under its name once it is complete and durable. Continues an
/// unfinished file, and compares a complete one.
fn merge_into(segments: &Segments, plan: &Plan, path: &Path, bar: &ProgressBar) -> Result<Merged, Failure> {
    let failed = |error: io::Error| Failure::failed(format!("--into {}: {error}", path.display()));
    match File::open(path) {
        Ok(there) => return compare(segments, plan, &there, path, bar),
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        Err(_) => {}
    }
    let begun = with_suffix(path, &format!(".{:016x}.part", plan.hash()));
    let mut file = File::options().create(true).truncate(false).read(true).write(true).open(&begun).map_err(failed)?;
    if !lock(&file).map_err(failed)? {
        return Err(Failure::config(format!("--into {}: another writer merges into it", path.display())));
    }
    // Only whole pieces are durable: after a power loss, the bytes after them may be garbage.
    let begun_len = file.metadata().map_err(failed)?.len().min(plan.len());
    let durable = begun_len.saturating_sub(begun_len % PIECE);
    file.set_len(durable).map_err(failed)?;
    file.seek(SeekFrom::End(0)).map_err(failed)?;
    bar.inc(durable);
    for (at, piece) in plan.from(durable) {
        let part = part_of(segments, &piece)?;
        copy(&part.file, piece.offset, piece.len, &mut file).map_err(|error| {
            let (from, to) = (part.path.display(), path.display());
            Failure::failed(format!("copying {from} to {to}: {error}; run this again to continue"))
        })?;
        bar.inc(piece.len);
        if at.saturating_add(piece.len).is_multiple_of(PIECE) {
            file.sync_data().map_err(failed)?;
        }
    }
    file.sync_all().map_err(failed)?;
    std::fs::rename(&begun, path).and_then(|()| sync_folder_of(path)).map_err(failed)?;
    Ok(Merged::All)
}

/// Compares an existing file with the result of the merge.
fn compare(segments: &Segments, plan: &Plan, there: &File, path: &Path, bar: &ProgressBar) -> Result<Merged, Failure> {
    let failed = |error: io::Error| Failure::failed(format!("--into {}: {error}", path.display()));
    let is_same = || -> Result<bool, Failure> {
        if there.metadata().map_err(failed)?.len() != plan.len() {
            return Ok(false);
        }
        for (at, piece) in plan.from(0) {
            let ours = hash_of(&part_of(segments, &piece)?.file, piece.offset..piece.offset.saturating_add(piece.len))
                .map_err(failed)?;
            if ours != hash_of(there, at..at.saturating_add(piece.len)).map_err(failed)? {
                return Ok(false);
            }
            bar.inc(piece.len);
        }
        Ok(true)
    };
    if is_same()? {
        return Ok(Merged::All);
    }
    let path = path.display();
    Err(Failure::config(format!("--into {path}: there is another file; allowed: a new one, or the same result")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_outputs::write_output;

    fn merged(outputs: &[PathBuf]) -> (Vec<u8>, Vec<Segment>) {
        let mut to = tempfile::tempfile().unwrap();
        let segments = read_segments(outputs).unwrap();
        let plan = Plan::of(&segments);
        assert_eq!(copy_all(&segments, &plan, 0, &mut to, &ProgressBar::hidden()), Ok(Merged::All));
        to.seek(SeekFrom::Start(0)).unwrap();
        let mut bytes = Vec::new();
        to.read_to_end(&mut bytes).unwrap();
        (bytes, plan.holes)
    }

    #[test]
    fn merge_restores_the_source() {
        let folder = tempfile::tempdir().unwrap();
        let one = write_output(&folder.path().join("one"), &[(7, 0, b"a\n"), (7, 4, b"c\n"), (9, 0, b"x\n")]);
        let two = write_output(&folder.path().join("two"), &[(9, 2, b"y\n"), (7, 2, b"b\n")]);
        assert_eq!(merged(&[one, two]), (b"a\nb\nc\nx\ny\n".to_vec(), vec![]));
    }

    #[test]
    fn merge_skips_duplicates_and_reports_holes() {
        let folder = tempfile::tempdir().unwrap();
        let one = write_output(&folder.path().join("one"), &[(7, 0, b"a\nb\n")]);
        let two = write_output(&folder.path().join("two"), &[(7, 2, b"b\nc\n"), (7, 8, b"e\n")]);
        let (bytes, holes) = merged(&[one, two]);
        assert_eq!(bytes, b"a\nb\nc\ne\n");
        assert_eq!(holes.iter().map(|hole| hole.span.clone()).collect::<Vec<_>>(), [6..8]);
    }

    #[test]
    fn an_unfinished_file_is_continued_after_its_durable_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let bytes: Vec<u8> =
            (0..PIECE + PIECE / 2).map(|at| if at % 8 == 7 { b'\n' } else { (at / 8 % 251) as u8 | 128 }).collect();
        let (head, tail) = bytes.split_at(1000);
        let one = write_output(&folder.path().join("one"), &[(7, 0, head)]);
        let two = write_output(&folder.path().join("two"), &[(7, 1000, tail)]);
        let outputs = [one, two];
        let into = folder.path().join("merged.txt");
        let begun = with_suffix(&into, &format!(".{:016x}.part", Plan::of(&read_segments(&outputs).unwrap()).hash()));
        // The first piece is durable and recognisable; the bytes after it were lost.
        let mut there = vec![b'!'; PIECE as usize];
        there.extend(b"garbage");
        std::fs::write(&begun, &there).unwrap();
        run(&outputs, Some(&into)).unwrap();
        let result = std::fs::read(&into).unwrap();
        assert!(
            result[..PIECE as usize] == there[..PIECE as usize] && result[PIECE as usize..] == bytes[PIECE as usize..]
        );
        assert!(!begun.exists());

        // Merge from the beginning, and once more over the complete file.
        std::fs::remove_file(&into).unwrap();
        for _ in 0..2 {
            run(&outputs, Some(&into)).unwrap();
            assert!(std::fs::read(&into).unwrap() == bytes);
        }
        // A different file is not replaced.
        std::fs::write(&into, b"another").unwrap();
        assert_eq!(run(&outputs, Some(&into)).unwrap_err().code(), 2);
        assert_eq!(std::fs::read(&into).unwrap(), b"another");
    }

    #[test]
    fn each_source_of_a_tree_is_merged_into_its_own_file() {
        let folder = tempfile::tempdir().unwrap();
        let [one, two, into] = ["one", "two", "into"].map(|name| folder.path().join(name));
        for root in [&one, &two] {
            std::fs::create_dir_all(root.join("sub")).unwrap();
        }
        write_output(&one.join("sub/a.log"), &[(7, 0, b"a\n"), (7, 4, b"c\n")]);
        write_output(&two.join("sub/a.log"), &[(7, 2, b"b\n")]);
        write_output(&two.join("b.log"), &[(7, 0, b"x\n")]);
        run_tree(&[one.clone(), two.clone()], &into).unwrap();
        assert_eq!(std::fs::read(into.join("sub/a.log")).unwrap(), b"a\nb\nc\n");
        assert_eq!(std::fs::read(into.join("b.log")).unwrap(), b"x\n");

        // A source that lacks bytes does not keep the others from being merged.
        std::fs::remove_dir_all(&into).unwrap();
        write_output(&one.join("a.log"), &[(7, 0, b"a\n"), (7, 4, b"c\n")]);
        assert_eq!(run_tree(&[one, two], &into).unwrap_err().code(), 1);
        assert_eq!(std::fs::read(into.join("b.log")).unwrap(), b"x\n");
    }
}
