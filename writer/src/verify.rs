//! `writer verify`: checks that the outputs together contain every byte of the inputs exactly once.
//!
//! The journals give the position of each content in the outputs. Every byte is then compared with
//! the input. Contents are paired with inputs by their bytes, so the order of the inputs on the
//! command line does not matter.
//!
//! With `--input-dir`, it does so for each source of a tree.

use crate::compare::{Cause, compare};
use crate::file_buffer::FileBuffer;
use crate::progress::progress;
use crate::report::{InputReport, OutputReport, Ranges, Report, TreeReport};
use crate::segments::{Segment, Segments};
use crate::tree;
use delivery::entry::{Span, span_len};
use flate2::bufread::MultiGzDecoder;
use indicatif::ProgressBar;
use service::Failure;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufReader, Read, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Number of bytes at each end of a content that must match an input to pair them.
const PROBE: u64 = 4 << 10;

/// Verifies and prints the report. Fails if the files do not match, or cannot be read.
pub(crate) fn run(inputs: &[PathBuf], outputs: &[PathBuf], json: bool) -> Result<(), Failure> {
    let report = verify(inputs, outputs)?;
    print(&if json { report.json() } else { report.to_string() }, report.is_identical())
}

/// Verifies each source of a tree, and prints the report. Fails as [`run`] does.
pub(crate) fn run_tree(inputs: &Path, outputs: &[PathBuf], json: bool) -> Result<(), Failure> {
    let report = verify_tree(inputs, outputs)?;
    print(&if json { report.json() } else { report.to_string() }, report.is_identical())
}

fn print(text: &str, is_identical: bool) -> Result<(), Failure> {
    writeln!(io::stdout(), "{text}").map_err(|error| Failure::failed(format!("standard output: {error}")))?;
    if is_identical { Ok(()) } else { Err(Failure::failed("verify: the outputs differ from the inputs")) }
}

/// An open input.
struct Input<'a> {
    path: &'a Path,
    file: File,
    len: u64,
    /// Why its compressed file could not be read further.
    broken: Option<String>,
}

pub(crate) fn verify(inputs: &[PathBuf], outputs: &[PathBuf]) -> Result<Report, Failure> {
    let inputs: Vec<Input<'_>> = inputs.iter().map(|path| open_input(path)).collect::<Result<_, _>>()?;
    let bar = progress("compared", inputs.iter().map(|input| input.len).sum());
    let report = match (Segments::read(outputs)?, outputs) {
        (Some(segments), _) => by_journal(&inputs, &segments, &bar),
        (None, [output]) => {
            let wrong = |why: &dyn std::fmt::Display| Failure::config(format!("--output {}: {why}", output.display()));
            let file = File::open(output).map_err(|error| wrong(&error))?;
            if file.metadata().is_ok_and(|found| found.is_dir()) {
                return Err(wrong(
                    &"a folder; allowed: a writer's file; for the folder of --output-dir, use that flag",
                ));
            }
            not_an_input(&inputs, output, &file)?;
            plainly(&inputs, output, &file, &bar)
        }
        (None, _) => return Err(Failure::config("--output: several outputs need their journals beside them")),
    };
    bar.finish_and_clear();
    report.map_err(|error| comparing(&error))
}

/// A file that is compared with itself proves nothing.
fn not_an_input(inputs: &[Input<'_>], output: &Path, file: &File) -> Result<(), Failure> {
    let id = |file: &File| file.metadata().ok().map(|metadata| (metadata.dev(), metadata.ino()));
    match inputs.iter().find(|input| id(&input.file).is_some_and(|input| Some(input) == id(file))) {
        Some(input) => Err(Failure::config(format!(
            "--output {}: it is the input {} itself; allowed: the file that a writer wrote",
            output.display(),
            input.path.display()
        ))),
        None => Ok(()),
    }
}

fn comparing(error: &io::Error) -> Failure {
    Failure::failed(format!("comparing: {error}"))
}

/// Verifies one source after the other, so that a tree of any size needs few open files.
pub(crate) fn verify_tree(inputs: &Path, outputs: &[PathBuf]) -> Result<TreeReport, Failure> {
    let mut sources = tree::outputs(outputs)?;
    tree::add_inputs(&mut sources, inputs)?;
    let bar = progress("compared", 0);
    let mut report = TreeReport::default();
    for (name, files) in sources {
        let inputs: Vec<Input<'_>> = files.inputs.iter().map(|path| open_unpacked(path)).collect::<Result<_, _>>()?;
        bar.inc_length(inputs.iter().map(|input| input.len).sum());
        let of_source = match Segments::read(&files.outputs)? {
            Some(segments) => {
                let mut found = by_journal(&inputs, &segments, &bar).map_err(|error| comparing(&error))?;
                find_copies(&inputs, &segments, &mut found).map_err(|error| comparing(&error))?;
                found
            }
            None => continue,
        };
        report.add(name.display().to_string(), of_source);
    }
    bar.finish_and_clear();
    Ok(report)
}

/// Opens an input. A compressed one is decompressed into a temporary file, as far as it is
/// readable.
fn open_unpacked(path: &Path) -> Result<Input<'_>, Failure> {
    let mut input = open_input(path)?;
    let failed = |error: io::Error| Failure::failed(format!("decompressing {}: {error}", path.display()));
    let packed = BufReader::new(&input.file);
    let mut decoder: Box<dyn Read + '_> = match path.extension().and_then(OsStr::to_str) {
        Some("gz") => Box::new(MultiGzDecoder::new(packed)),
        Some("zst") => Box::new(zstd::Decoder::with_buffer(packed).map_err(failed)?),
        _ => return Ok(input),
    };
    let mut plain = tempfile::tempfile().map_err(failed)?;
    let (mut len, mut block, mut broken) = (0_u64, vec![0; 64 << 10], None);
    loop {
        match decoder.read(&mut block) {
            Ok(0) => break,
            Ok(read) => {
                plain.write_all(block.get(..read).unwrap_or_default()).map_err(failed)?;
                len = len.saturating_add(read as u64);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                broken = Some(error.to_string());
                break;
            }
        }
    }
    drop(decoder);
    (input.file, input.len, input.broken) = (plain, len, broken);
    Ok(input)
}

/// Recognises copies: inputs without a content of their own whose bytes are the first bytes of a
/// content, such as a backup copy, or a file that is being compressed.
fn find_copies(inputs: &[Input<'_>], segments: &Segments, report: &mut Report) -> io::Result<()> {
    let mut buffers: Vec<FileBuffer<'_>> = segments.parts.iter().map(|part| FileBuffer::new(&part.file)).collect();
    for (input, found) in inputs.iter().zip(&mut report.inputs) {
        if found.content.is_some() || input.len == 0 {
            continue;
        }
        for content in segments.contents() {
            let mut compared = empty(input);
            check_content(input, content, &mut buffers, &mut compared, &ProgressBar::hidden())?;
            if compared.missing.is_empty() && compared.different.is_empty() {
                let is_paired = content.first().map(|segment| segment.file_id);
                found.missing = Ranges::default();
                found.copy_of = is_paired;
                break;
            }
        }
    }
    Ok(())
}

fn open_input(path: &Path) -> Result<Input<'_>, Failure> {
    let opened = File::open(path).and_then(|file| file.metadata().map(|metadata| (file, metadata)));
    match opened {
        Ok((file, metadata)) if metadata.is_file() => Ok(Input { path, file, len: metadata.len(), broken: None }),
        Ok(_) => Err(Failure::config(format!(
            "--input {}: not a regular file; allowed: a file that a reader read",
            path.display()
        ))),
        Err(error) => {
            let todo = match error.kind() {
                io::ErrorKind::NotFound => "allowed: a file that a reader read",
                _ => service::advice::reading(&error),
            };
            Err(Failure::config(format!("--input {}: {error}; {todo}", path.display())))
        }
    }
}

/// With journals: compares each segment at its position.
fn by_journal(inputs: &[Input<'_>], segments: &Segments, bar: &ProgressBar) -> io::Result<Report> {
    let mut buffers: Vec<FileBuffer<'_>> = segments.parts.iter().map(|part| FileBuffer::new(&part.file)).collect();
    let mut report = Report {
        inputs: inputs.iter().map(empty).collect(),
        outputs: segments
            .parts
            .iter()
            .map(|part| OutputReport {
                path: part.path.display().to_string(),
                in_order: true,
                before: part.base,
                torn: part.torn,
                ..OutputReport::default()
            })
            .collect(),
    };
    let mut ends = vec![0; segments.parts.len()];
    for segments in segments.contents() {
        for segment in segments {
            let (Some(output), Some(end)) = (report.outputs.get_mut(segment.part), ends.get_mut(segment.part)) else {
                continue;
            };
            output.bytes = output.bytes.saturating_add(span_len(&segment.span));
            output.in_order &= segment.offset >= *end;
            *end = segment.end();
        }
    }
    let contents: Vec<&[Segment]> = segments.contents().collect();
    let paired = pair(inputs, &contents, &mut buffers)?;
    for (segments, paired) in contents.into_iter().zip(paired) {
        let of_input = paired.and_then(|at| Some((inputs.get(at)?, report.inputs.get_mut(at)?)));
        if let Some((input, input_report)) = of_input {
            check_content(input, segments, &mut buffers, input_report, bar)?;
            continue;
        }
        for segment in segments {
            if let Some(output) = report.outputs.get_mut(segment.part) {
                output.extra.add(segment.offset..segment.end());
            }
        }
    }
    for (input, input_report) in inputs.iter().zip(&mut report.inputs) {
        if input_report.content.is_none() {
            input_report.missing.add(0..input.len);
        }
    }
    Ok(report)
}

/// Pairs contents with inputs. Prefers an input that matches both ends of the content. Because a
/// byte may have been changed, falls back to one that matches the beginning, and then to the first
/// input that is left.
fn pair(
    inputs: &[Input<'_>],
    contents: &[&[Segment]],
    buffers: &mut [FileBuffer<'_>],
) -> io::Result<Vec<Option<usize>>> {
    let mut paired = vec![None; contents.len()];
    let mut free: Vec<usize> = (0..inputs.len()).collect();
    for strictness in [Fit::BothEnds, Fit::Beginning, Fit::Any] {
        for (segments, paired) in contents.iter().zip(&mut paired).filter(|(_, paired)| paired.is_none()) {
            let mut found = None;
            for (place, &at) in free.iter().enumerate() {
                let Some(input) = inputs.get(at) else { continue };
                if fit(input, segments, buffers)? >= strictness {
                    found = Some(place);
                    break;
                }
            }
            *paired = found.map(|place| free.remove(place));
        }
    }
    Ok(paired)
}

/// How well an input matches a content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fit {
    /// An empty input has no content.
    No,
    Any,
    Beginning,
    BothEnds,
}

fn fit(input: &Input<'_>, segments: &[Segment], buffers: &mut [FileBuffer<'_>]) -> io::Result<Fit> {
    let (Some(first), Some(last)) = (segments.first(), segments.last()) else { return Ok(Fit::No) };
    if input.len == 0 {
        return Ok(Fit::No);
    }
    let begin = first.span.start..first.span.end.min(first.span.start.saturating_add(PROBE));
    if !has(input, first, begin, buffers)? {
        return Ok(Fit::Any);
    }
    let end = last.span.start.max(last.span.end.saturating_sub(PROBE))..last.span.end;
    Ok(if has(input, last, end, buffers)? { Fit::BothEnds } else { Fit::Beginning })
}

/// Whether the input has the bytes of this part of a segment.
fn has(input: &Input<'_>, segment: &Segment, span: Span, buffers: &mut [FileBuffer<'_>]) -> io::Result<bool> {
    let Some(buffer) = buffers.get_mut(segment.part) else { return Ok(false) };
    let actual = buffer.at(segment.offset_of(span.start), span_len(&span))?;
    let mut expected = vec![0; actual.len()];
    let len = crate::file_buffer::read_full(&input.file, &mut expected, span.start)?;
    Ok(len == actual.len() && expected == actual)
}

fn check_content(
    input: &Input<'_>,
    segments: &[Segment],
    buffers: &mut [FileBuffer<'_>],
    report: &mut InputReport,
    bar: &ProgressBar,
) -> io::Result<()> {
    let mut source = FileBuffer::new(&input.file);
    let mut covered = 0;
    for segment in segments {
        report.content = Some(segment.file_id);
        let Some(buffer) = buffers.get_mut(segment.part) else { continue };
        let span = &segment.span;
        report.missing.add(covered..span.start.min(input.len));
        report.doubled.add(span.start..span.end.min(covered));
        report.beyond.add(span.start.max(input.len)..span.end);
        let mut at = span.start;
        while at < span.end.min(input.len) {
            let expected = source.at(at, span.end.saturating_sub(at))?;
            let actual = buffer.at(segment.offset_of(at), expected.len() as u64)?;
            let len = expected.len().min(actual.len());
            if len == 0 {
                // One of the files shrank while it was being read.
                report.different.add(at..span.end.min(input.len));
                break;
            }
            let (expected, actual) = (expected.get(..len).unwrap_or_default(), actual.get(..len).unwrap_or_default());
            if expected != actual {
                for (byte, (expected, actual)) in (at..).zip(expected.iter().zip(actual)) {
                    if expected != actual {
                        report.different.add(byte..byte.saturating_add(1));
                    }
                }
            }
            at = at.saturating_add(len as u64);
            bar.inc(len as u64);
        }
        covered = covered.max(span.end);
    }
    report.missing.add(covered..input.len);
    Ok(())
}

/// Without a journal: compares the output with the concatenated inputs.
fn plainly(inputs: &[Input<'_>], path: &Path, file: &File, bar: &ProgressBar) -> io::Result<Report> {
    let len = file.metadata()?.len();
    let mut output =
        OutputReport { path: path.display().to_string(), bytes: len, in_order: true, ..OutputReport::default() };
    let mut buffer = FileBuffer::new(file);
    let mut at = 0;
    let mut reports = Vec::new();
    for (index, input) in inputs.iter().enumerate() {
        let mut report = empty(input);
        let is_last = index.saturating_add(1) == inputs.len();
        at = compare(&mut FileBuffer::new(&input.file), input.len, &mut buffer, at, len, is_last, |cause, span| {
            match cause {
                Cause::Missing => report.missing.add(span),
                Cause::Doubled => report.doubled.add(span),
                Cause::Different => report.different.add(span),
                Cause::Extra => output.extra.add(span),
                Cause::None => bar.inc(span_len(&span)),
            }
        })?;
        reports.push(report);
    }
    Ok(Report { inputs: reports, outputs: vec![output] })
}

fn empty(input: &Input<'_>) -> InputReport {
    InputReport {
        path: input.path.display().to_string(),
        bytes: input.len,
        broken: input.broken.clone(),
        ..InputReport::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_outputs::write_output;
    use std::os::unix::fs::FileExt as _;

    fn file(folder: &Path, name: &str, bytes: &[u8]) -> PathBuf {
        let path = folder.join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    #[test]
    fn several_outputs_together_match_the_input() {
        let folder = tempfile::tempdir().unwrap();
        let input = file(folder.path(), "in", b"a\nb\nc\n");
        let one = write_output(&folder.path().join("one"), &[(7, 0, b"a\n"), (7, 4, b"c\n")]);
        let two = write_output(&folder.path().join("two"), &[(7, 2, b"b\n")]);
        let report = verify(&[input], &[one, two]).unwrap();
        assert!(report.is_identical(), "{report}");
        assert!(report.to_string().ends_with("identical: 6 bytes, each exactly once"), "{report}");
        assert!(report.json().contains("\"identical\":true"));
    }

    #[test]
    fn every_kind_of_difference_is_reported_with_its_range() {
        let folder = tempfile::tempdir().unwrap();
        let input = file(folder.path(), "in", b"aa\nbb\ncc\ndd\nee\n");
        let one = write_output(&folder.path().join("one"), &[(7, 0, b"aa\nxb\n"), (7, 9, b"dd\nee\nff\n")]);
        let two = write_output(&folder.path().join("two"), &[(7, 9, b"dd\n")]);
        let report = verify(&[input], &[one, two]).unwrap();
        let found = &report.inputs[0];
        assert_eq!(found.missing.listed(), [6..9]);
        assert_eq!(found.doubled.listed(), [9..12]);
        assert_eq!(found.different.listed(), [3..4]);
        assert_eq!(found.beyond.listed(), [15..18]);
        assert!(!report.is_identical());
        assert!(report.to_string().contains("in: bytes 6..9 (3 bytes): missing in the output"), "{report}");
        let json: serde_json::Value = serde_json::from_str(&report.json()).unwrap();
        assert_eq!(json["inputs"][0]["missing"], serde_json::json!([[6, 9]]));
        assert_eq!(json["missing_bytes"], 3);
    }

    #[test]
    fn a_byte_changed_after_its_commit_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let text = b"0123456789\n".repeat(300_000);
        let input = file(folder.path(), "in", &text);
        let output = write_output(&folder.path().join("out"), &[(7, 0, &text), (7, text.len() as u64, b"end\n")]);
        let input = {
            let mut longer = std::fs::read(&input).unwrap();
            longer.extend_from_slice(b"end\n");
            file(folder.path(), "in", &longer)
        };
        std::fs::OpenOptions::new().write(true).open(&output).unwrap().write_all_at(b"!", 2_500_000).unwrap();
        let report = verify(&[input], &[output]).unwrap();
        assert_eq!(report.inputs[0].different.listed(), [2_500_000..2_500_001]);
    }

    #[test]
    fn rotated_inputs_are_paired_by_their_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let inputs = [
            file(folder.path(), "a", b"a\n"),
            file(folder.path(), "empty", b""),
            file(folder.path(), "lost", b"lost\n"),
            file(folder.path(), "b", b"b\n"),
        ];
        let output = write_output(&folder.path().join("out"), &[(7, 0, b"a\n"), (9, 0, b"b\n")]);
        let mut of_names = Vec::new();
        // In any order: a shell glob puts the newest file first.
        for inputs in [inputs.to_vec(), inputs.iter().rev().cloned().collect()] {
            let report = verify(&inputs, std::slice::from_ref(&output)).unwrap();
            let mut contents: Vec<_> =
                report.inputs.iter().map(|input| (input.path.clone(), input.content, input.missing.bytes())).collect();
            contents.sort();
            of_names.push(contents.into_iter().map(|(_, content, missing)| (content, missing)).collect::<Vec<_>>());
        }
        let expected = vec![(Some(7), 0), (Some(9), 0), (None, 0), (None, 5)];
        assert_eq!(of_names, [expected.clone(), expected]);
    }

    #[test]
    fn inputs_with_equal_beginnings_are_paired_by_their_ends() {
        let folder = tempfile::tempdir().unwrap();
        let header = b"header\n".repeat(2000);
        let [one, two] = [b"one\n", b"two\n"].map(|end| [&header[..], end].concat());
        let inputs = [file(folder.path(), "in", &two), file(folder.path(), "in.1", &one)];
        let output = write_output(&folder.path().join("out"), &[(7, 0, &one), (9, 0, &two)]);
        let report = verify(&inputs, &[output]).unwrap();
        assert!(report.is_identical(), "{report}");
        assert_eq!(report.inputs.iter().map(|input| input.content).collect::<Vec<_>>(), [Some(9), Some(7)]);
    }

    #[test]
    fn an_input_with_changed_first_bytes_is_paired_with_the_remaining_content() {
        let folder = tempfile::tempdir().unwrap();
        let inputs = [file(folder.path(), "in", b"b\n"), file(folder.path(), "in.1", b"X\nc\n")];
        let output = write_output(&folder.path().join("out"), &[(7, 0, b"a\nc\n"), (9, 0, b"b\n")]);
        let report = verify(&inputs, &[output]).unwrap();
        assert_eq!(report.inputs[1].different.listed(), [0..1], "{report}");
        assert_eq!(report.inputs[0].missing.bytes(), 0);
    }

    #[test]
    fn a_content_without_an_input_is_extra() {
        let folder = tempfile::tempdir().unwrap();
        let input = file(folder.path(), "in", b"a\n");
        let output = write_output(&folder.path().join("out"), &[(7, 0, b"a\n"), (9, 0, b"b\n")]);
        let report = verify(&[input], &[output]).unwrap();
        assert_eq!(report.outputs[0].extra.listed(), [2..4]);
        assert!(!report.is_identical());
    }

    #[test]
    fn a_torn_tail_is_not_part_of_the_output() {
        let folder = tempfile::tempdir().unwrap();
        let input = file(folder.path(), "in", b"a\n");
        let output = write_output(&folder.path().join("out"), &[(7, 0, b"a\n")]);
        std::fs::write(&output, b"a\ntorn").unwrap();
        let report = verify(&[input], std::slice::from_ref(&output)).unwrap();
        assert!(report.is_identical() && report.outputs[0].torn == 4, "{report}");
        assert_eq!(std::fs::read(&output).unwrap(), b"a\ntorn", "read-only");
    }

    #[test]
    fn a_single_output_needs_no_journal_and_several_do() {
        let folder = tempfile::tempdir().unwrap();
        let inputs = [file(folder.path(), "in1", b"a\nb\n"), file(folder.path(), "in2", b"c\n")];
        let output = file(folder.path(), "out", b"a\nb\nc\n");
        assert!(verify(&inputs, std::slice::from_ref(&output)).unwrap().is_identical());
        let error = verify(&inputs, &[output.clone(), output]).unwrap_err();
        assert_eq!(error.code(), 2);
        let short = file(folder.path(), "short", b"a\nb\n");
        let report = verify(&inputs, &[short]).unwrap();
        assert_eq!(report.inputs[1].missing.listed(), [0..2]);
    }

    /// A folder of inputs and one of outputs with two sources; `b.log` was rotated and compressed.
    fn tree(folder: &Path) -> (PathBuf, PathBuf) {
        let (inputs, outputs) = (folder.join("in"), folder.join("out"));
        for root in [&inputs, &outputs] {
            std::fs::create_dir_all(root.join("sub")).unwrap();
        }
        file(&inputs, "a.log", b"a\n");
        write_output(&outputs.join("a.log"), &[(7, 0, b"a\n")]);
        file(&inputs, "sub/b.log", b"new\n");
        std::fs::write(inputs.join("sub/b.log.1.gz"), gzip(b"old\nolder\n")).unwrap();
        std::fs::write(inputs.join("sub/b.log.2.zst"), zstd::encode_all(&b"oldest\n"[..], 0).unwrap()).unwrap();
        let runs: [(u64, u64, &[u8]); 3] = [(7, 0, b"oldest\n"), (8, 0, b"old\nolder\n"), (9, 0, b"new\n")];
        write_output(&outputs.join("sub/b.log"), &runs);
        (inputs, outputs)
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn a_tree_is_compared_source_by_source() {
        let folder = tempfile::tempdir().unwrap();
        let (inputs, outputs) = tree(folder.path());
        let report = verify_tree(&inputs, std::slice::from_ref(&outputs)).unwrap();
        assert_eq!(report.to_string(), "identical: 2 sources, 23 bytes, each exactly once");
        let json: serde_json::Value = serde_json::from_str(&report.json()).unwrap();
        assert_eq!(json["identical"], true);
        assert_eq!(json["sources"][1]["name"], "sub/b.log");

        // The same bytes in the output of another source are missing in their own.
        let runs: [(u64, u64, &[u8]); 2] = [(7, 0, b"a\n"), (8, 0, b"old\nolder\n")];
        std::fs::remove_dir_all(&outputs).unwrap();
        std::fs::create_dir_all(outputs.join("sub")).unwrap();
        write_output(&outputs.join("a.log"), &runs);
        write_output(&outputs.join("sub/b.log"), &[(7, 0, b"oldest\n"), (9, 0, b"nEw\n")]);
        file(&inputs, "c.log", b"c\n");
        let report = verify_tree(&inputs, &[outputs]).unwrap();
        assert!(!report.is_identical());
        let text = report.to_string();
        for line in [
            "out/a.log: bytes 2..12 (10 bytes): of none of the inputs",
            "in/sub/b.log.1.gz: bytes 0..10 (10 bytes): missing in the output",
            "in/sub/b.log: bytes 1..2 (1 byte): different in the output",
            "in/c.log: bytes 0..2 (2 bytes): missing in the output",
            "NOT identical: 3 of 3 sources: of 25 bytes 12 missing, 1 different, 10 that do not belong there",
        ] {
            assert!(text.contains(line), "{line}: {text}");
        }
    }

    #[test]
    fn a_copy_of_a_content_is_no_other_content() {
        let folder = tempfile::tempdir().unwrap();
        let (inputs, outputs) = tree(folder.path());
        file(&inputs, "sub/b.log.1", b"old\nold");
        let report = verify_tree(&inputs, std::slice::from_ref(&outputs)).unwrap();
        assert!(report.is_identical(), "{report}");
        assert!(report.to_string().contains("b.log.1: a copy of another input"), "{report}");
        file(&inputs, "sub/b.log.1", b"old\nolD");
        assert!(!verify_tree(&inputs, &[outputs]).unwrap().is_identical());
    }

    #[test]
    fn a_truncated_archive_is_compared_as_far_as_it_is_readable() {
        let folder = tempfile::tempdir().unwrap();
        let (inputs, outputs) = tree(folder.path());
        let path = inputs.join("sub/b.log.1.gz");
        let whole = std::fs::read(&path).unwrap();
        // Without the checksum at its end.
        std::fs::write(&path, &whole[..whole.len() - 6]).unwrap();
        let report = verify_tree(&inputs, &[outputs]).unwrap();
        assert!(report.to_string().contains("b.log.1.gz: decompressed only up to byte 10: "), "{report}");
        assert!(report.is_identical(), "{report}");
    }
}
