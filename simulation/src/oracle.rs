//! The final verdict on the outputs, once all services are idle.
//!
//! Every byte that the application wrote and that was readable long enough is in an output exactly
//! once, or it was removed and a service reported it. The outputs contain nothing else. Each writer
//! writes in the order of the input.

use crate::filesystem::ContentId;
use crate::story::excerpt;
use crate::truth::{Fate, Truth};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::ops::Range;

/// Bytes of an output and their origin according to the journal, in output order.
#[derive(Debug, Clone)]
pub struct Written {
    /// The index of the output.
    pub output: usize,
    /// The file ID of the content.
    pub file_id: u64,
    /// The bytes of that content.
    pub span: Range<u64>,
    /// The bytes in the output.
    pub bytes: Vec<u8>,
}

/// The exceptions that a seed allows.
#[derive(Debug, Clone, Copy, Default)]
#[allow(clippy::struct_excessive_bools)]
pub struct Terms {
    /// Several writers share the group. Each sees only a part, so none can report removed entries.
    pub several_writers: bool,
    /// Bytes may be in several outputs, because Redis lost data or entries were taken over.
    pub may_repeat: bool,
    /// The bytes of a content may be out of order.
    pub unordered: bool,
    /// The contents may be out of order.
    pub contents_unordered: bool,
    /// Delivered bytes may have been reported as missing, because they were redelivered.
    pub comes_back: bool,
    /// Redis holds a history that branched off: missing bytes are reported, and may not be sent
    /// again.
    pub branched_off: bool,
    /// The reader ended early, so unsent bytes are missing.
    pub unfinished: bool,
}

/// The numbering of the services, and their reports.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    /// The content of each generation, as the reader sent it.
    contents: BTreeMap<u64, ContentId>,
}

impl Ledger {
    /// Records that a reader sent an entry of this generation from this content.
    pub fn sent(&mut self, generation: u64, content: ContentId) {
        self.contents.insert(generation, content);
    }

    /// The content of a file ID or generation.
    #[must_use]
    pub fn content(&self, number: u64) -> Option<ContentId> {
        self.contents.get(&number).copied()
    }
}

/// Judges the outputs.
///
/// # Errors
/// A description of what is wrong.
pub fn judge(truth: &Truth, ledger: &Ledger, written: &[Written], terms: Terms) -> Result<(), String> {
    let mut counts: Vec<Vec<u8>> = truth.contents().iter().map(|content| vec![0; content.bytes.len()]).collect();
    let mut last: BTreeMap<(usize, ContentId), u64> = BTreeMap::new();
    let mut first_seen: Vec<(usize, ContentId)> = Vec::new();
    for one in written {
        for (content, span) in explain(truth, ledger, one, &counts)? {
            for offset in span.clone() {
                let (origin, at) = truth.origin(content, offset);
                counts[origin][index(at)] = counts[origin][index(at)].saturating_add(1);
            }
            let is_late = truth.get(content).is_some_and(|content| content.late);
            if !first_seen.contains(&(one.output, content)) && !truth.fate(content, 0).is(Fate::OPTIONAL) && !is_late {
                first_seen.push((one.output, content));
            }
            let before = last.insert((one.output, content), span.end).unwrap_or(0);
            let is_edited = truth.several_holders && truth.get(content).is_some_and(|content| content.is_operated);
            let is_again = truth.fate(content, span.start).is(Fate::REPEATABLE)
                || is_edited
                || repeats(truth, content, span.start)
                || span.end <= crate::reader::DISTINCT && is_beginning_of_another(truth, content, span.end);
            if !terms.unordered && !terms.several_writers && span.start < before && !is_again {
                return Err(format!(
                    "output {}: bytes {}..{} of content {content} come after its byte {before}",
                    one.output, span.start, span.end
                ));
            }
        }
    }
    if !terms.contents_unordered && !terms.several_writers {
        for pair in first_seen.windows(2) {
            if pair[0].0 == pair[1].0 && pair[0].1 > pair[1].1 {
                return Err(format!("content {} comes after content {}", pair[1].1, pair[0].1));
            }
        }
    }
    let mut wrong = String::new();
    for (content, known) in truth.contents().iter().enumerate() {
        let own = known.shares.map_or(0, |(_, shared)| shared);
        let ambiguous = beginning_of_another(truth, content);
        let mut faults: Vec<(u64, &'static str)> = Vec::new();
        for offset in own.max(ambiguous)..known.bytes.len() as u64 {
            if let Some(fault) = fault_of(truth, terms, content, offset, counts[content][index(offset)]) {
                faults.push((offset, fault));
            }
        }
        describe(&mut wrong, content, &known.bytes, &faults);
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong) }
}

/// How many first bytes of a content are indistinguishable from a shorter copy of another one: all
/// bytes that were readable long enough or were sent, if another content begins with them.
fn beginning_of_another(truth: &Truth, content: ContentId) -> u64 {
    let Some(known) = truth.get(content) else { return 0 };
    let len = known.bytes.len() as u64;
    let readable = (0..len).find(|&offset| truth.fate(content, offset).is(Fate::VANISHED)).unwrap_or(len);
    let begins = |first: &u64| is_beginning_of_another(truth, content, *first);
    [len, readable, known.sent.min(len)].into_iter().find(begins).unwrap_or(0)
}

/// Whether another content begins with the first bytes of this one: a header, for example.
fn is_beginning_of_another(truth: &Truth, content: ContentId, first: u64) -> bool {
    let Some(known) = truth.get(content) else { return false };
    let first = known.bytes.get(..index(first)).unwrap_or_default();
    truth.contents().iter().enumerate().any(|(other, of)| other != content && of.bytes.starts_with(first))
}

/// The fault of a byte that is in the outputs `count` times.
fn fault_of(truth: &Truth, terms: Terms, content: ContentId, offset: u64, count: u8) -> Option<&'static str> {
    let fate = truth.fate(content, offset);
    let reported = fate.is(Fate::REPORTED);
    let removed = fate.is(Fate::REMOVED);
    let vanished = fate.is(Fate::VANISHED);
    let is_operated = truth.get(content).is_some_and(|content| content.is_operated);
    let has_double = truth.get(content).is_some_and(|content| content.has_double);
    let is_unknown = truth.get(content).is_none_or(|content| content.sent == 0);
    match count {
        0 if fate.is(Fate::OPTIONAL) => None,
        0 if removed && (reported || terms.several_writers) => None,
        // Nobody needs to know about a content of which nothing was sent.
        0 if vanished && (reported || !fate.is(Fate::SEEN) || is_unknown) => None,
        // Only the waiting reader knows about bytes that were never added, or that Redis lost
        // again.
        0 if terms.unfinished && (terms.comes_back || !fate.is(Fate::ADDED)) => None,
        0 if reported && terms.branched_off => None,
        0 if removed || vanished => Some("missing, and nobody reported it"),
        0 if reported => Some("reported as missing, though nobody took it away"),
        0 => Some("missing"),
        1 if reported && !terms.comes_back => Some("reported as missing, though it is there"),
        1 => None,
        _ if terms.may_repeat || fate.is(Fate::REPEATABLE) => None,
        _ if repeats(truth, content, offset) => None,
        _ if is_operated && (truth.several_holders || has_double) => None,
        _ => Some("there more than once"),
    }
}

/// Whether a byte may be sent again. It may if it is shared with a content that diverged from this
/// one before the last sent byte, or if it is in the line of divergence, which is sent whole.
fn repeats(truth: &Truth, content: ContentId, offset: u64) -> bool {
    truth.contents().iter().enumerate().any(|(other, known)| {
        let Some((_, shared)) = known.shares.filter(|_| truth.origin(other, offset) == (content, offset)) else {
            return false;
        };
        let before = known.bytes.get(..index(shared)).unwrap_or_default();
        let line = before.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at as u64 + 1);
        let parent = known.shares.and_then(|(parent, _)| truth.get(parent));
        let parted_before = parent.is_some_and(|parent| parent.sent > shared);
        other != content && (known.may_repeat || parted_before || offset >= line)
    })
}

/// The contents that the written bytes belong to. If several match, prefers the one that the reader
/// named, and then one in which they are still missing.
fn explain(
    truth: &Truth,
    ledger: &Ledger,
    written: &Written,
    counts: &[Vec<u8>],
) -> Result<Vec<(ContentId, Range<u64>)>, String> {
    let Written { output, file_id, span, bytes } = written;
    let said = ledger.content(*file_id);
    let mut explained = Vec::new();
    let mut at = span.start;
    while at < span.end {
        let rest = &bytes[index(at - span.start)..];
        let same = |content: ContentId| {
            let there = truth.contents()[content].bytes.get(index(at)..).unwrap_or_default();
            there.iter().zip(rest).take_while(|(a, b)| a == b).count()
        };
        let is_new = |content: ContentId| {
            let (origin, at) = truth.origin(content, at);
            counts[origin].get(index(at)) == Some(&0)
        };
        let candidates = (0..truth.contents().len()).map(|content| (same(content), content));
        // Each partition has numbers of its own, so the reader's word counts less there.
        let is_said = |content: ContentId| said == Some(content);
        let best = candidates.max_by_key(|&(len, content)| match truth.several_holders {
            true => (len, is_new(content), is_said(content)),
            false => (len, is_said(content), is_new(content)),
        });
        let Some((len, content)) = best.filter(|&(len, _)| len > 0) else {
            return Err(format!(
                "output {output}: what it holds as byte {at} of file {file_id} was never written: {}",
                excerpt(rest)
            ));
        };
        let end = at + len as u64;
        explained.push((content, at..end));
        at = end;
    }
    Ok(explained)
}

/// Adds one line per range of bytes with the same fault.
fn describe(text: &mut String, content: ContentId, bytes: &[u8], faults: &[(u64, &'static str)]) {
    let mut at = 0;
    while let Some(&(start, fault)) = faults.get(at) {
        let mut end = start;
        while let Some(&(offset, same)) = faults.get(at)
            && offset == end
            && same == fault
        {
            (end, at) = (end + 1, at + 1);
        }
        let shown = excerpt(&bytes[index(start)..index(end)]);
        let _ = writeln!(text, "bytes {start}..{end} of content {content} are {fault}: {shown}");
    }
}

fn index(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn truth() -> Truth {
        let mut truth = Truth::default();
        truth.begin(b"#head\none\ntwo\n");
        truth.begin(b"#head\nthree\n");
        truth
    }

    fn written(file_id: u64, start: u64, bytes: &[u8]) -> Written {
        Written { output: 0, file_id, span: start..start + bytes.len() as u64, bytes: bytes.to_vec() }
    }

    fn all() -> Vec<Written> {
        vec![written(5, 0, b"#head\none\ntwo\n"), written(9, 0, b"#head\nthree\n")]
    }

    fn verdict(truth: &Truth, written: &[Written]) -> Result<(), String> {
        judge(truth, &Ledger::default(), written, Terms::default())
    }

    #[test]
    fn everything_once_and_in_order_is_right() {
        assert_eq!(verdict(&truth(), &all()), Ok(()));
    }

    #[test]
    fn what_is_missing_doubled_foreign_or_out_of_order_is_named() {
        let complaint = |written: &[Written]| verdict(&truth(), written).unwrap_err();
        assert!(complaint(&all()[..1]).contains("bytes 0..12 of content 1 are missing"));
        let mut twice = all();
        twice.push(written(11, 6, b"three\n"));
        let text =
            judge(&truth(), &Ledger::default(), &twice, Terms { unordered: true, ..Terms::default() }).unwrap_err();
        assert!(text.contains("bytes 6..12 of content 1 are there more than once"), "{text}");
        let mut foreign = all();
        foreign.push(written(11, 12, b"FOREIGN"));
        assert!(complaint(&foreign).contains("never written"));
        let mut late = vec![written(5, 6, b"one\ntwo\n"), written(5, 0, b"#head\n")];
        late.push(all().remove(1));
        assert!(complaint(&late).contains("come after"));
    }

    #[test]
    fn what_vanished_unseen_needs_no_report_and_what_was_seen_does() {
        let mut truth = truth();
        truth.note(1, 6..12, Fate::VANISHED);
        let head = [all().remove(0), written(9, 0, b"#head\n")];
        assert_eq!(verdict(&truth, &head), Ok(()));
        truth.note(1, 6..12, Fate::SEEN);
        truth.sent(1, 6);
        assert!(verdict(&truth, &head).unwrap_err().contains("bytes 6..12 of content 1 are missing, and nobody"));
        truth.note(1, 6..12, Fate::REPORTED);
        assert_eq!(verdict(&truth, &head), Ok(()));
        assert!(verdict(&truth, &all()).unwrap_err().contains("though it is there"));
    }

    #[test]
    fn a_report_without_a_cause_is_a_loss() {
        let mut truth = truth();
        truth.note(1, 0..12, Fate::REPORTED);
        assert!(verdict(&truth, &all()[..1]).unwrap_err().contains("though nobody took it away"));
        truth.note(1, 0..12, Fate::REMOVED);
        assert_eq!(verdict(&truth, &all()[..1]), Ok(()));
    }

    #[test]
    fn an_edited_file_under_its_old_number_is_explained_by_both() {
        let mut truth = Truth::default();
        let first = truth.begin(b"one\ntwo\n");
        truth.sent(first, 8);
        truth.derive(first, 5, b"one\ntXo\nthree\n");
        let written = [written(5, 0, b"one\ntwo\nthree\n")];
        truth.note(1, 5..8, Fate::OPTIONAL);
        assert_eq!(verdict(&truth, &written), Ok(()));
    }
}
