//! What the application wrote, and the fate of each byte. The oracle compares it with the outputs.
//!
//! A *content* is one physical state of the input, as in `delivery`; the application numbers them.
//! A file that is rolled back or edited and then written to again is a content of its own, which
//! shares its beginning with the original.

use crate::filesystem::{ContentId, File, FileSystem};
use std::collections::BTreeSet;
use std::ops::Range;

/// The fate of one byte.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Fate(u8);

impl Fate {
    /// The byte is gone, and no service made it vanish.
    pub const VANISHED: Self = Self(1);
    /// The byte's entry was removed from Redis, or the group was made to skip it.
    pub const REMOVED: Self = Self(2);
    /// A service reported it as missing.
    pub const REPORTED: Self = Self(4);
    /// The byte may be omitted or sent: both are correct.
    pub const OPTIONAL: Self = Self(8);
    /// A reader knew that it existed.
    pub const SEEN: Self = Self(16);
    /// A reader reported that the byte may be sent twice: the file begins like another one, and is
    /// too short to tell them apart.
    pub const REPEATABLE: Self = Self(32);
    /// It was added to a stream.
    pub const ADDED: Self = Self(64);

    /// Whether all flags of `other` are set.
    #[must_use]
    pub const fn is(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// One content.
#[derive(Debug, Clone, Default)]
pub struct Content {
    /// All bytes ever written to it.
    pub bytes: Vec<u8>,
    fates: Vec<Fate>,
    /// The content with which it shares its first bytes, and their number.
    pub shares: Option<(ContentId, u64)>,
    /// Whether the shared bytes may be sent again, because they are few.
    pub may_repeat: bool,
    /// The offset up to which a reader has sent it.
    pub sent: u64,
    /// A reader reported why it sends this content out of order.
    pub late: bool,
    /// An operator has changed a file of the content, or of the one that it was made from.
    pub is_operated: bool,
    /// A reader reported that it takes two files for two contents which begin alike. If both are
    /// written to, because one is an unfinished copy, the bytes that follow are sent twice, too.
    pub has_double: bool,
    /// The content existed before the source began: its bytes may be sent or not, including those
    /// added later.
    is_earlier: bool,
    /// The number of bytes that were readable at the last check.
    readable: u64,
    /// Its length at the last check.
    looked_at: u64,
}

/// All contents, and the fate of their bytes.
#[derive(Debug, Clone, Default)]
pub struct Truth {
    contents: Vec<Content>,
    has_begun: bool,
    /// Whether the source has several partitions or readers. If a file is deleted while one of them
    /// has it open, the others cannot read it: their bytes of it are lost and reported. Each of
    /// them decides by the bytes that it sent itself whether an edited file is still the same
    /// content.
    pub several_holders: bool,
    /// The partitions with at least one byte in an output.
    pub written: BTreeSet<usize>,
}

impl Truth {
    /// Starts a content with these bytes.
    pub fn begin(&mut self, bytes: &[u8]) -> ContentId {
        let content =
            Content { bytes: bytes.to_vec(), fates: vec![Fate::default(); bytes.len()], ..Content::default() };
        self.contents.push(content);
        self.contents.len() - 1
    }

    /// Starts a content whose first `shared` bytes are those of another one.
    pub fn derive(&mut self, from: ContentId, shared: u64, bytes: &[u8]) -> ContentId {
        let parent = self.contents.get(from).map(|parent| parent.bytes.as_slice()).unwrap_or_default();
        // The next bytes may be equal by chance.
        let same = parent.iter().zip(bytes).take_while(|(a, b)| a == b).count() as u64;
        let shared = shared.max(same);
        // Too short to be distinguished from a header that many files share.
        let may_repeat = shared <= crate::reader::DISTINCT;
        let is_operated = self.contents.get(from).is_some_and(|parent| parent.is_operated);
        let derived = self.begin(bytes);
        let content = &mut self.contents[derived];
        (content.shares, content.may_repeat) = (Some((from, shared)), may_repeat);
        content.is_operated = is_operated;
        derived
    }

    /// Records that an operator changed a file of this content.
    pub fn operate(&mut self, content: ContentId) {
        if let Some(content) = self.contents.get_mut(content) {
            content.is_operated = true;
        }
    }

    /// Appends to a content.
    pub fn append(&mut self, content: ContentId, bytes: &[u8]) {
        if let Some(content) = self.contents.get_mut(content) {
            content.bytes.extend_from_slice(bytes);
            let fate = if content.is_earlier { Fate::OPTIONAL } else { Fate::default() };
            content.fates.resize(content.bytes.len(), fate);
        }
    }

    /// A content by its number.
    #[must_use]
    pub fn get(&self, content: ContentId) -> Option<&Content> {
        self.contents.get(content)
    }

    /// The contents in the order in which they were started.
    #[must_use]
    pub fn contents(&self) -> &[Content] {
        &self.contents
    }

    /// The original of a byte: its position in the content where it was first written.
    #[must_use]
    pub fn origin(&self, content: ContentId, offset: u64) -> (ContentId, u64) {
        let mut at = content;
        while let Some((parent, shared)) = self.contents.get(at).and_then(|content| content.shares) {
            if offset >= shared {
                break;
            }
            at = parent;
        }
        (at, offset)
    }

    /// The fate of a byte.
    #[must_use]
    pub fn fate(&self, content: ContentId, offset: u64) -> Fate {
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        self.contents.get(content).and_then(|content| content.fates.get(offset)).copied().unwrap_or_default()
    }

    /// Records the fate of bytes, also in the content where they were first written. Ignores bytes
    /// that were never written.
    pub fn note(&mut self, content: ContentId, span: Range<u64>, fate: Fate) {
        let len = self.contents.get(content).map_or(0, |content| content.bytes.len() as u64);
        for offset in span.start..span.end.min(len) {
            let (origin, _) = self.origin(content, offset);
            self.contents[origin].fates[usize::try_from(offset).unwrap_or(0)].0 |= fate.0;
        }
    }

    /// A process with knowledge of bytes has ended: unreported bytes need not be reported any more.
    pub fn forget_seen(&mut self) {
        for content in &mut self.contents {
            content.fates.iter_mut().filter(|fate| !fate.is(Fate::REPORTED)).for_each(|fate| fate.0 &= !Fate::SEEN.0);
        }
    }

    fn retract(&mut self, content: ContentId, span: Range<u64>, fate: Fate) {
        for offset in span {
            let (origin, _) = self.origin(content, offset);
            if let Some(noted) = self.contents[origin].fates.get_mut(usize::try_from(offset).unwrap_or(usize::MAX)) {
                noted.0 &= !fate.0;
            }
        }
    }

    /// The source begins with this content. Earlier contents may be sent or not.
    pub fn source_begins(&mut self, content: ContentId) {
        if !std::mem::replace(&mut self.has_begun, true) {
            (0..content).for_each(|earlier| self.is_earlier(earlier));
        }
    }

    /// The content existed before the source began.
    pub fn is_earlier(&mut self, content: ContentId) {
        self.note(content, 0..u64::MAX, Fate::OPTIONAL);
        if let Some(content) = self.contents.get_mut(content) {
            content.is_earlier = true;
        }
    }

    /// A reader reported that it sends a content later than contents that were written after it.
    pub fn comes_late(&mut self, content: ContentId) {
        if let Some(content) = self.contents.get_mut(content) {
            content.late = true;
        }
    }

    /// A reader reported that a file of the content is taken for another content.
    pub fn has_double(&mut self, content: ContentId) {
        if let Some(content) = self.contents.get_mut(content) {
            content.has_double = true;
        }
    }

    /// A reader has sent a content up to this offset.
    pub fn sent(&mut self, content: ContentId, end: u64) {
        if let Some(content) = self.contents.get_mut(content) {
            content.sent = content.sent.max(end);
        }
    }

    /// Checks which bytes are readable: those in a file that has a name or that a service has open.
    /// Unreadable bytes have vanished; bytes that return must be delivered again. `excused`:
    /// whether a program, and not a service, removed them.
    pub fn observe(&mut self, files: &FileSystem, excused: bool) {
        for content in 0..self.contents.len() {
            // A compressed file is recognised only if something is known about its content.
            let is_known = self.contents[content].sent > 0;
            let of_it = files.files().filter(|(inode, file)| {
                file.content == Some(content)
                    && (is_known || !file.packed)
                    && (file.is_served() && !self.several_holders
                        || files.names_of(*inode).any(|name| !name.starts_with("backup/")))
            });
            let known_end = self.known_end(content);
            let readable_in = |file: &File| {
                let len = file.plain().len() as u64;
                if file.packed { len.min(known_end) } else { len }
            };
            let readable = of_it.map(|(_, file)| readable_in(file)).max().unwrap_or(0);
            let known = &self.contents[content];
            let (was, len) = (known.readable, known.bytes.len() as u64);
            let is_sent = known.sent >= len;
            if (readable, len) == (was, known.looked_at) {
                continue;
            }
            (self.contents[content].readable, self.contents[content].looked_at) = (readable, len);
            if readable > was {
                self.retract(content, was..readable, Fate::VANISHED);
            }
            // Bytes written to an unreadable file have vanished, too. A service may let go of a
            // deleted file that it has sent, before Redis loses what was sent.
            if readable < len && (excused || is_sent) {
                self.note_vanished(content, readable..len);
            }
        }
    }

    /// The end of the bytes that a compressed file can contribute. The reader decompresses a file
    /// to read the newest content, or missing bytes of an earlier one. It does not search for late
    /// lines that were compressed before it saw them, because each start would have to decompress
    /// every file.
    fn known_end(&self, content: ContentId) -> u64 {
        if self.contents.iter().skip(content + 1).all(|later| later.sent == 0) {
            return u64::MAX;
        }
        let known = &self.contents[content];
        let seen = known.fates.iter().rposition(|fate| fate.is(Fate::SEEN)).map_or(0, |at| at as u64 + 1);
        known.sent.max(seen)
    }

    /// A shared byte has vanished only if it has vanished from all contents that have it.
    fn note_vanished(&mut self, content: ContentId, span: Range<u64>) {
        for offset in span {
            let origin = self.origin(content, offset).0;
            let elsewhere = (0..self.contents.len()).any(|other| {
                other != content && self.contents[other].readable > offset && self.origin(other, offset).0 == origin
            });
            if !elsewhere {
                self.note(content, offset..offset + 1, Fate::VANISHED);
                // Bytes of a content without a file ID cannot be reported.
                if self.contents[origin].sent == 0 {
                    self.retract(content, offset..offset + 1, Fate::SEEN);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_derived_content_has_its_first_bytes_from_another() {
        let mut truth = Truth::default();
        let first = truth.begin(b"one\ntwo\n");
        truth.sent(first, 8);
        let second = truth.derive(first, 4, b"one\nTWO\n");
        assert_eq!(truth.origin(second, 3), (first, 3));
        assert_eq!(truth.origin(second, 4), (second, 4));
        assert!(truth.get(second).unwrap().may_repeat, "too few bytes to tell");
        truth.note(second, 2..6, Fate::REPORTED);
        let reported = |content, offset| truth.fate(content, offset).is(Fate::REPORTED);
        assert!(reported(first, 2) && reported(first, 3) && !reported(first, 4) && reported(second, 4));
    }

    #[test]
    fn bytes_vanish_with_the_last_file_that_holds_them() {
        let mut files = FileSystem::new(0, false);
        let mut truth = Truth::default();
        let content = truth.begin(b"one\ntwo\n");
        let inode = files.create("logs/app.log");
        files.append(inode, b"one\ntwo\n");
        files.file_mut(inode).unwrap().content = Some(content);
        truth.observe(&files, true);
        files.copy("logs/app.log", "logs/app.log.1").unwrap();
        files.set_len(inode, 4);
        truth.observe(&files, true);
        assert!(!truth.fate(content, 4).is(Fate::VANISHED), "a copy has it");
        files.unlink("logs/app.log.1").unwrap();
        truth.observe(&files, true);
        assert!(truth.fate(content, 4).is(Fate::VANISHED) && !truth.fate(content, 3).is(Fate::VANISHED));
        files.append(inode, b"two\n");
        truth.observe(&files, true);
        assert!(!truth.fate(content, 4).is(Fate::VANISHED), "restored");
        files.open("logs/app.log").unwrap();
        files.unlink("logs/app.log").unwrap();
        truth.observe(&files, true);
        assert!(!truth.fate(content, 0).is(Fate::VANISHED), "a service holds it");
        files.close_served(inode);
        truth.observe(&files, false);
        assert!(!truth.fate(content, 0).is(Fate::VANISHED), "a service that lets go is no excuse");
        truth.sent(content, 8);
        files.create("logs/app.log");
        truth.contents[content].looked_at = 0;
        truth.observe(&files, false);
        assert!(truth.fate(content, 0).is(Fate::VANISHED), "all was sent");
    }
}
