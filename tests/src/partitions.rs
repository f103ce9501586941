//! A source with several partitions: its streams and their entries, an output per partition, and a
//! check that together they equal the source.
//!
//! This module computes the partition of a line by itself, so that the tests do not rely on the
//! project's own code.

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::binaries::Program;
use crate::check;
use crate::client::Value;
use crate::folder::Folder;
use crate::redis::RedisServer;
use crate::rig::{STREAM, len};
use crate::service::Launch;
use crate::wait;

/// The number of partitions in most tests.
pub const THREE: u32 = 3;
/// The source record that all partitions share.
pub const BASE_RECORD: &str = "{line_stream}:source";

/// The key of a partition's stream.
#[must_use]
pub fn stream(index: u32) -> String {
    format!("{STREAM}:{{{index}}}")
}

/// The key of a partition's source record.
#[must_use]
pub fn record(index: u32) -> String {
    format!("{}:source", stream(index))
}

/// The partition of a line that begins at this offset: blocks of 64 KiB up to 16 MiB, and of 1 MiB
/// from there on, are assigned round-robin.
#[must_use]
pub const fn owner(offset: u64, count: u32) -> u32 {
    const MIB: u64 = 1 << 20;
    let block = if offset < 16 * MIB { offset / (64 << 10) } else { 256 + (offset - 16 * MIB) / MIB };
    (block % count as u64) as u32
}

/// The lines of a content that belong to a partition, in order: the expected output of a writer of
/// this partition.
#[must_use]
pub fn lines_of(content: &[u8], index: u32, count: u32) -> Vec<u8> {
    lines(content).filter(|(start, _)| owner(*start, count) == index).flat_map(|(_, line)| line.to_vec()).collect()
}

/// The lines of a content, each with the offset at which it begins.
pub fn lines(content: &[u8]) -> impl Iterator<Item = (u64, &[u8])> {
    let mut at = 0;
    content.split_inclusive(|&byte| byte == b'\n').map(move |line| {
        let start = at;
        at += line.len() as u64;
        (start, line)
    })
}

/// An entry of a partition's stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its ID.
    pub id: String,
    /// The generation that carries it.
    pub generation: u64,
    /// The bytes of the content that it covers.
    pub span: Range<u64>,
    /// The end of the partition's previous entry, if the entry contains it.
    pub after: Option<u64>,
    /// Its first field.
    pub field: String,
    /// The source bytes.
    pub bytes: Vec<u8>,
}

impl Entry {
    fn of(value: &Value) -> Self {
        let [id, fields] = value.list() else { panic!("an entry: {value:?}") };
        let (field, payload, after) = match fields.list() {
            [field, payload] => (field.text(), payload.bytes(), None),
            [field, payload, name, after] if name.bytes() == b"after" => {
                (field.text(), payload.bytes(), Some(after.text().parse().expect("an offset")))
            }
            _ => panic!("one field, or a second one `after`: {value:?}"),
        };
        let mut bytes = payload.to_vec();
        bytes.extend(if field == "line" { &b"\n"[..] } else { b"" });
        let id = id.text();
        let (generation, end) = id.split_once('-').expect("an ID");
        let (generation, end) = (generation.parse().expect("a number"), end.parse::<u64>().expect("a number"));
        Self { generation, span: end - bytes.len() as u64..end, after, field, bytes, id }
    }
}

/// The entries of a partition's stream.
#[must_use]
pub fn entries(redis: &RedisServer, index: u32) -> Vec<Entry> {
    redis.call(&["XRANGE", &stream(index), "-", "+"]).list().iter().map(Entry::of).collect()
}

/// Asserts that the streams contain all of `content` from `from` on, in one generation. Every line
/// must be complete, in order, and only in the stream of its partition. An entry must contain the
/// end of the previous one exactly if the two are not adjacent.
#[track_caller]
pub fn assert_complete(redis: &RedisServer, content: &[u8], from: u64, count: u32) {
    let mut spans = Vec::new();
    for index in 0..count {
        let entries = entries(redis, index);
        let generations: BTreeSet<u64> = entries.iter().map(|entry| entry.generation).collect();
        assert!(generations.len() <= 1, "partition {index}: generations {generations:?}");
        let mut before = from;
        for Entry { id, span, after, field, bytes, .. } in entries {
            assert_eq!(after, (span.start != before).then_some(before), "partition {index}: after of {id}");
            assert!(content[span.start as usize..span.end as usize] == bytes, "partition {index}: other bytes in {id}");
            for (nth, (start, line)) in lines(&bytes).enumerate() {
                let start = span.start + start;
                let begins = start == from || content[start as usize - 1] == b'\n';
                assert!(begins || nth == 0 && field == "rest", "partition {index}: {id} begins inside a line");
                assert!(!begins || owner(start, count) == index, "partition {index}: the line at {start} is another's");
                let ends = line.ends_with(b"\n") || span.end == content.len() as u64;
                assert!(ends || field == "part" || field == "rest", "partition {index}: {id} ends inside a line");
            }
            before = span.end;
            spans.push(span);
        }
    }
    spans.sort_by_key(|span| span.start);
    let mut at = from;
    for span in spans {
        assert_eq!(span.start, at, "missing, or twice");
        at = span.end;
    }
    assert_eq!(at, content.len() as u64, "missing at the end");
}

/// Asserts that an output contains all of `content` from `from` on, in the order of the source
/// within each partition. All lines must be distinct.
#[track_caller]
pub fn assert_order(content: &[u8], from: u64, output: &[u8], count: u32) {
    let owners: HashMap<&[u8], u32> = lines(content).map(|(start, line)| (line, owner(start, count))).collect();
    let mut found = vec![Vec::new(); count as usize];
    for (at, line) in lines(output) {
        let owner = owners.get(line).unwrap_or_else(|| panic!("the output's line at {at} is none of the input's"));
        found[*owner as usize].extend_from_slice(line);
    }
    for (index, found) in (0..count).zip(&found) {
        let wanted = lines(content).filter(|(start, _)| *start >= from && owner(*start, count) == index);
        let wanted: Vec<u8> = wanted.flat_map(|(_, line)| line.to_vec()).collect();
        assert!(*found == wanted, "partition {index}: {} bytes in another order than {}", found.len(), wanted.len());
    }
}

/// The output of a writer of this name.
#[must_use]
pub fn output(folder: &Folder, name: &str) -> PathBuf {
    folder.join(&format!("out/{name}.txt"))
}

/// A writer with this name and its own output.
pub fn named(writer: Launch, folder: &Folder, name: &str) -> Launch {
    writer.set("--consumer", name).set("--output", output(folder, name))
}

/// The names of the writers that [`writers`] creates.
#[must_use]
pub fn names(count: u32) -> Vec<String> {
    (0..count).map(|index| format!("writer-{index}")).collect()
}

/// One writer per partition, as in a StatefulSet: partition, consumer and output follow from the
/// name of the pod.
#[must_use]
pub fn writers(writer: &Launch, folder: &Folder, count: u32) -> Vec<Launch> {
    let partitions = writer.clone().set("--partitions", count.to_string());
    names(count).iter().map(|name| named(partitions.clone(), folder, name).set("--partition", name)).collect()
}

/// Waits until these outputs together have this many bytes, as long as they grow.
#[track_caller]
pub fn wait_total(outputs: &[PathBuf], bytes: u64) {
    let total = || outputs.iter().map(|output| len(output)).sum();
    if let Err(at) = wait::progress_to(bytes, total) {
        panic!("the outputs stand still at {at} of {bytes} bytes");
    }
}

/// Asserts that `merge` of the outputs gives the contents one after another, and that `verify`
/// reports nothing missing or duplicate.
#[track_caller]
pub fn assert_proven(folder: &Folder, contents: &[&Path], outputs: &[PathBuf]) {
    assert_merged(folder, contents, outputs);
    let verify = contents.iter().fold(command(folder, "verify"), |launch, path| launch.word("--input").word(path));
    let mut verify = with_outputs(verify, outputs).run();
    let said = String::from_utf8_lossy(&verify.process().stdout()).into_owned() + &verify.log();
    assert_eq!(verify.code(), Some(0), "verify: {said}");
    assert!(said.contains("identical"), "verify: {said}");
}

/// Asserts that `writer merge` restores the contents from the outputs. A range may be in several
/// outputs.
#[track_caller]
pub fn assert_merged(folder: &Folder, contents: &[&Path], outputs: &[PathBuf]) {
    let mut merge = with_outputs(command(folder, "merge"), outputs).run();
    assert_eq!(merge.code(), Some(0), "merge: {}", merge.log());
    let all = folder.join("all");
    let read = |path: &&Path| std::fs::read(path).expect("read an input");
    std::fs::write(&all, contents.iter().flat_map(read).collect::<Vec<u8>>()).expect("write all inputs");
    check::assert_identical(&all, &merge.process().stdout_path());
}

fn command(folder: &Folder, word: &str) -> Launch {
    Launch::new(Program::Writer, &folder.join("logs")).word(word)
}

fn with_outputs(launch: Launch, outputs: &[PathBuf]) -> Launch {
    outputs.iter().fold(launch, |launch, path| launch.word("--output").word(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_assigned_round_robin() {
        let owners = [0, 65_535, 65_536, 3 * 65_536 - 1, 3 * 65_536].map(|offset| owner(offset, 3));
        assert_eq!(owners, [0, 0, 1, 2, 0]);
        // 256 small blocks, then large ones.
        let owners = [16, 17, 18, 19].map(|mib: u64| owner(mib << 20, 3));
        assert_eq!(owners, [256 % 3, 257 % 3, 258 % 3, 259 % 3]);
    }

    #[test]
    fn a_line_belongs_to_the_partition_of_its_first_byte() {
        let content = [&[b'a'; 65_530][..], b"\nlong line\nb\n"].concat();
        assert!(lines_of(&content, 0, 2) == content[..65_541]);
        assert_eq!(lines_of(&content, 1, 2), b"b\n");
        assert_eq!(lines_of(&content, 0, 1), content);
    }
}
