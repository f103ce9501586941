//! The file side with a folder in memory: a reader that does what `identify` says must send every
//! byte that belongs to the input once, and nothing else.

#![allow(clippy::unwrap_used, clippy::panic)]

use delivery::files::{
    Compared, Content, Current, Found, Identified, Inode, KnownContents, Neighbour, Notice, Prefix, Question, Relation,
    ScanHistory, Sighting, Snapshot, probes, resolve,
};
use delivery::fingerprint::{Fingerprint, Span, TailChecksum};
use delivery::rotated_names::{NameKind, classify};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A file: its names lead to it.
#[derive(Debug, Clone, Default)]
struct File {
    bytes: Vec<u8>,
    /// The content of a compressed file.
    packed: Option<Vec<u8>>,
    modified: i128,
    created: i128,
    unreadable: bool,
}

/// A folder, and a reader of `input.txt` in it.
#[derive(Debug, Default)]
struct World {
    names: BTreeMap<String, u64>,
    files: BTreeMap<u64, File>,
    now: i128,
    next: u64,
    unlisted: bool,
    /// A file without a name that the reader holds open.
    unlinked: Option<u64>,
    /// Whether the file system tells when a file was created.
    without_created: bool,
    // The reader.
    known: KnownContents,
    next_id: u64,
    /// The sent bytes, in order.
    sent: Vec<u8>,
    /// The bytes of contents that the reader holds open, by file ID.
    open: BTreeMap<u64, u64>,
    /// Length and times of each file at the previous scan, and whether it had a rotated name.
    seen: BTreeMap<u64, (usize, i128, i128, bool)>,
    history: ScanHistory,
    notices: BTreeSet<Notice>,
    questions: usize,
}

const INPUT: &str = "input.txt";

fn lines(prefix: &str, range: std::ops::Range<usize>) -> Vec<u8> {
    range.flat_map(|n| format!("{prefix} {n}\n").into_bytes()).collect()
}

impl World {
    fn new() -> Self {
        Self { now: 1000, next: 1, next_id: 1, ..Self::default() }
    }

    fn tick(&mut self) -> i128 {
        self.now += 1_000_000_000;
        self.now
    }

    fn create(&mut self, name: &str, bytes: &[u8]) {
        let now = self.tick();
        let file = File { bytes: bytes.to_vec(), modified: now, created: now, ..File::default() };
        self.files.insert(self.next, file);
        self.names.insert(name.to_owned(), self.next);
        self.next += 1;
    }

    fn file(&mut self, name: &str) -> &mut File {
        let now = self.tick();
        let file = self.files.get_mut(&self.names[name]).unwrap();
        file.modified = now;
        file
    }

    fn bytes(&self, name: &str) -> Vec<u8> {
        self.files[&self.names[name]].bytes.clone()
    }

    fn append(&mut self, name: &str, bytes: &[u8]) {
        self.file(name).bytes.extend(bytes);
    }

    /// Writes a file in place.
    fn write(&mut self, name: &str, bytes: &[u8]) {
        self.file(name).bytes = bytes.to_vec();
    }

    fn rename(&mut self, from: &str, to: &str) {
        let ino = self.names.remove(from).unwrap();
        self.names.insert(to.to_owned(), ino);
    }

    fn copy(&mut self, from: &str, to: &str) {
        let bytes = self.bytes(from);
        self.create(to, &bytes);
    }

    fn remove(&mut self, name: &str) {
        self.names.remove(name);
    }

    /// A new file takes the place of a name, as `rsync`, `sed -i` and editors do.
    fn replace(&mut self, name: &str, bytes: &[u8]) {
        self.create(".temporary", bytes);
        self.rename(".temporary", name);
    }

    fn compress(&mut self, name: &str) {
        let file = self.files[&self.names[name]].clone();
        self.remove(name);
        self.create(&format!("{name}.gz"), b"compressed");
        // It keeps the time of the file, as gzip does.
        let packed = self.file(&format!("{name}.gz"));
        (packed.packed, packed.modified) = (Some(file.bytes), file.modified);
    }

    fn snapshot(&mut self) -> Snapshot {
        if self.unlisted {
            let mut only = self.listing();
            only.retain(|sighting| sighting.name_kind == NameKind::Input);
            return Snapshot { sightings: only, unlisted: vec![("/logs".to_owned(), "permission denied".to_owned())] };
        }
        Snapshot { sightings: self.listing(), unlisted: Vec::new() }
    }

    fn listing(&mut self) -> Vec<Sighting> {
        let mut sightings: Vec<Sighting> = Vec::new();
        let names = self.names.clone();
        let input = names.get(INPUT).copied();
        let unlinked = self.unlinked.map(|ino| (String::new(), ino));
        let order = names.iter().filter(|(name, _)| *name == INPUT).chain(names.iter().filter(|(name, ino)| {
            *name != INPUT && Some(**ino) != input && !names.contains_key(&format!("{name}.journal"))
        }));
        let order = order.chain(unlinked.iter().map(|(name, ino)| (name, ino)));
        for (name, &ino) in order {
            let file = &self.files[&ino];
            let name_kind = match name.as_str() {
                INPUT => NameKind::Input,
                "" => NameKind::Unlinked,
                _ => classify(name, INPUT),
            };
            let packed = matches!(name_kind, NameKind::Compressed(_));
            let now = (file.bytes.len(), file.modified, file.created, name_kind.is_rotated());
            let before = self.seen.insert(ino, now);
            let is_written = |before: (usize, i128, i128, bool)| {
                before.3 && before.2 == now.2 && (before.0, before.1) != (now.0, now.1)
            };
            let changing = before.is_some_and(is_written);
            let prints = match file {
                File { unreadable: true, .. } => Prefix::Unreadable("permission denied".to_owned()),
                _ if packed => Prefix::Partial(Fingerprint::default()),
                file => Prefix::Whole(Fingerprint::of(&file.bytes)),
            };
            let hashes = if packed { BTreeMap::new() } else { hashes(&self.known, &file.bytes) };
            sightings.push(Sighting {
                key: ino as usize,
                path: name.clone(),
                inode: Inode { dev: 1, ino },
                name_kind,
                len: file.bytes.len() as u64,
                modified: file.modified,
                created: (!self.without_created).then_some(file.created),
                changing,
                was_input: false,
                prints,
                hashes,
                compared: BTreeMap::new(),
            });
        }
        sightings
    }

    /// What the reader's I/O does: takes a snapshot, and answers questions until there are none.
    fn identify(&mut self) -> Identified {
        let mut snapshot = self.snapshot();
        let mut history = std::mem::take(&mut self.history);
        let now = Duration::from_nanos(self.now as u64);
        let mut questions = 0;
        let identified = resolve(&mut snapshot, &self.known, &mut history, now, |question, snapshot| {
            questions += 1;
            self.answer(question, snapshot);
        });
        assert_eq!(identified.questions, [], "it asks again and again");
        self.history = history;
        self.questions += questions;
        self.notices.extend(identified.notices.iter().cloned());
        identified
    }

    fn answer(&self, question: &Question, snapshot: &mut Snapshot) {
        match question {
            Question::Unpack { key, up_to } => {
                let bytes = self.files[&(*key as u64)].packed.clone().unwrap();
                let sighting = snapshot.sightings.iter_mut().find(|s| s.key == *key).unwrap();
                if *up_to < bytes.len() as u64 {
                    sighting.prints = Prefix::Partial(Fingerprint::of(&bytes[..*up_to as usize]));
                } else {
                    sighting.prints = Prefix::Whole(Fingerprint::of(&bytes));
                    sighting.hashes = hashes(&self.known, &bytes);
                    sighting.len = bytes.len() as u64;
                }
            }
            Question::Compare { key, file_id, from, to, with, tail } => {
                let unpacked = |ino: u64| self.files[&ino].packed.as_ref().unwrap_or(&self.files[&ino].bytes);
                let new = unpacked(*key as u64);
                let old = self.open.get(file_id).copied().or(with.map(|key| key as u64));
                let old = old.filter(|ino| *ino != *key as u64).map(unpacked);
                let range = *from as usize..(*to as usize).min(new.len());
                let same = old.map(|old| range.clone().find(|&at| old.get(at) != new.get(at)).unwrap_or(range.end));
                let line_start = new[..same.unwrap_or(range.start)].iter().rposition(|&b| b == b'\n');
                let tail_at = tail.as_ref().and_then(|tail| {
                    let ends = (0..=new.len()).filter(|&at| at == new.len() || at > 0 && new[at - 1] == b'\n');
                    ends.rev().find(|&at| tail.ends(&new[..at]))
                });
                let compared = Compared {
                    same_until: same.map(|at| at as u64),
                    line_start: line_start.map_or(0, |at| at as u64 + 1),
                    tail_at: tail_at.map(|at| at as u64),
                };
                let sighting = snapshot.sightings.iter_mut().find(|s| s.key == *key).unwrap();
                sighting.compared.insert(*file_id, compared);
            }
        }
    }

    fn content(&self, found: &Found) -> Vec<u8> {
        let file = &self.files[&(found.key as u64)];
        file.packed.as_ref().unwrap_or(&file.bytes).clone()
    }

    /// Sends what a file has behind an offset, as a content.
    fn send(&mut self, found: &Found, id: u64, from: u64) {
        let bytes = self.content(found);
        self.sent.extend(&bytes[from as usize..]);
        let content = self.known.contents.iter_mut().find(|content| content.file_id == id).unwrap();
        content.frontier = bytes.len() as u64;
        content.seen_len = content.frontier.max(content.seen_len);
        content.fingerprint = Fingerprint::of(&bytes);
        content.tail = Some(TailChecksum::new(content.frontier, &bytes));
        self.is_in(found, id);
    }

    /// This file holds this content.
    fn is_in(&mut self, found: &Found, id: u64) {
        let ino = found.key as u64;
        let content = self.known.contents.iter_mut().find(|content| content.file_id == id).unwrap();
        content.inode = Some(Inode { dev: 1, ino });
        content.created = (!self.without_created).then_some(self.files[&ino].created);
        self.open.insert(id, ino);
    }

    fn begin(&mut self, found: &Found, start: u64) {
        for content in &mut self.known.contents {
            content.finished = true;
        }
        let id = self.next_id;
        self.next_id += 1;
        self.known.contents.push(Content { file_id: id, frontier: start, ..Content::default() });
        self.send(found, id, start);
    }

    /// The producer's reaction to the answer.
    fn scan(&mut self) -> Identified {
        let identified = self.identify();
        // What is left of known contents, oldest first.
        for (id, holders) in &identified.holders {
            let content = self.known.contents.iter().find(|content| content.file_id == *id).unwrap();
            let (frontier, best) = (content.frontier, &holders[0]);
            if !matches!(best.relation, Relation::Shorter(_)) && best.len > frontier {
                self.send(best, *id, frontier);
            }
        }
        for found in &identified.unseen {
            self.begin(found, start(found.relation));
        }
        if let Current::Found(found) = &identified.current {
            match found.relation {
                Relation::New if found.len == 0 => {}
                Relation::New | Relation::Derived { .. } => {
                    self.begin(found, start(found.relation));
                }
                // What is read before its frontier now counts.
                Relation::Edited(id) => self.send(found, id, found.len),
                Relation::Whole(id) => self.is_in(found, id),
                Relation::Shorter(_) => {}
            }
        }
        self.known.siblings = identified.siblings();
        identified
    }

    fn forget_open_files(&mut self) {
        self.open.clear();
        self.history = ScanHistory::default();
        self.seen.clear();
    }

    fn assert_sent(&self, expected: &[u8]) {
        let same = self.sent.iter().zip(expected).take_while(|(a, b)| a == b).count();
        let around = |bytes: &[u8]| {
            let end = bytes.len().min(same + 60);
            String::from_utf8_lossy(&bytes[same.saturating_sub(30).min(end)..end]).into_owned()
        };
        assert!(
            self.sent == expected,
            "sent {} bytes, expected {}; they differ at {same}: {:?} instead of {:?}; {:?}",
            self.sent.len(),
            expected.len(),
            around(&self.sent),
            around(expected),
            self.notices
        );
    }
}

fn start(relation: Relation) -> u64 {
    match relation {
        Relation::Derived { start, .. } => start,
        _ => 0,
    }
}

fn hashes(known: &KnownContents, bytes: &[u8]) -> BTreeMap<Span, u64> {
    let within = probes(known, &Fingerprint::of(bytes)).into_iter().filter(|span| span.end <= bytes.len() as u64);
    within.map(|span| (span, delivery::hash(&bytes[span.start as usize..span.end as usize]))).collect()
}

/// A world in which `input.txt` was sent.
fn sent(bytes: &[u8]) -> World {
    let mut world = World::new();
    world.create(INPUT, bytes);
    world.scan();
    world.assert_sent(bytes);
    world.tick();
    world
}

const MANY: std::ops::Range<usize> = 0..1000;

#[test]
fn appended_lines_and_renamed_files() {
    for count in [1, 3, 1000] {
        let mut world = sent(&lines("first", 0..count));
        world.append(INPUT, b"more\n");
        world.scan();
        world.rename(INPUT, "input.txt.1");
        world.append("input.txt.1", b"late\n");
        world.create(INPUT, b"second\n");
        world.scan();
        world.append("input.txt.1", b"very late\n");
        world.scan();
        world.assert_sent(&[&lines("first", 0..count)[..], b"more\nlate\nsecond\nvery late\n"].concat());
        assert!(world.notices.is_empty(), "{:?}", world.notices);
    }
}

#[test]
fn a_copy_that_is_shorter_than_what_was_sent_is_not_sent_again() {
    for (down, count) in [(false, 3), (true, 3), (false, 1000), (true, 1000)] {
        let mut world = sent(&lines("first", 0..count));
        world.copy(INPUT, "input.txt.1");
        world.append(INPUT, &lines("late", 0..10));
        world.scan();
        let all = world.bytes(INPUT);
        world.write(INPUT, b"");
        if down {
            world.forget_open_files();
        } else {
            world.scan();
        }
        world.append(INPUT, b"second\n");
        world.scan();
        world.scan();
        world.assert_sent(&[&all[..], b"second\n"].concat());
    }
}

#[test]
fn a_copy_that_is_longer_than_what_was_sent_has_the_rest() {
    for count in [3, 1000] {
        let mut world = sent(&lines("first", 0..count));
        world.append(INPUT, b"unsent\n");
        let all = world.bytes(INPUT);
        world.copy(INPUT, "input.txt.1");
        world.write(INPUT, b"second\n");
        world.scan();
        world.assert_sent(&[&all[..], b"second\n"].concat());
    }
}

#[test]
fn a_replaced_file_continues_behind_what_was_sent() {
    // A temporary file and a rename; in place; restored with its old times.
    for count in [2, 30, 1000] {
        for how in 0..3 {
            let first = lines("first", 0..count);
            let longer = [&first[..], b"more\n"].concat();
            let mut world = sent(&first);
            match how {
                0 => world.replace(INPUT, &longer),
                1 => world.write(INPUT, &longer),
                _ => {
                    world.remove(INPUT);
                    world.create(INPUT, &longer);
                    world.file(INPUT).modified = 500;
                }
            }
            world.scan();
            world.append(INPUT, b"again\n");
            world.scan();
            world.assert_sent(&[&longer[..], b"again\n"].concat());
        }
    }
}

#[test]
fn an_older_version_is_a_beginning_of_what_was_sent() {
    for in_place in [false, true] {
        for kept in [100, 700] {
            let first = lines("first", MANY);
            let mut world = sent(&first);
            let older = lines("first", 0..kept);
            if in_place {
                world.write(INPUT, &older);
            } else {
                world.replace(INPUT, &older);
            }
            for _ in 0..3 {
                let found = world.scan();
                assert_eq!(found.current.found().unwrap().relation, Relation::Shorter(1));
                world.tick();
            }
            world.append(INPUT, b"new\n");
            world.scan();
            world.append(INPUT, &lines("new", 0..1000));
            world.scan();
            world.assert_sent(&[&first[..], b"new\n", &lines("new", 0..1000)].concat());
        }
    }
}

#[test]
fn an_older_version_and_lines_after_it_at_once() {
    for (in_place, down) in [(false, false), (true, false), (false, true)] {
        let first = lines("first", MANY);
        let mut world = sent(&first);
        let (older, new) = (lines("first", 0..700), lines("new", 0..100));
        let longer = [&older[..], &new].concat();
        if in_place {
            world.write(INPUT, &longer);
        } else {
            world.replace(INPUT, &longer);
        }
        if down {
            world.forget_open_files();
        }
        world.scan();
        let again = world.sent.len() - first.len() - new.len();
        assert!(world.sent.ends_with(&new));
        if in_place {
            assert_eq!(again, older.len(), "it may as well be another content with the same header");
        } else if down {
            assert!(again <= older.len() / 8 + 20, "{again}");
        } else {
            assert_eq!(again, 0, "the open file tells exactly");
        }
    }
}

#[test]
fn a_copy_in_place_is_waited_for() {
    let first = lines("first", MANY);
    let mut world = sent(&first);
    for len in [0, 1000, 2000, 5000] {
        world.write(INPUT, &first[..len]);
        world.scan();
    }
    world.write(INPUT, &[&first[..], b"more\n"].concat());
    world.scan();
    world.assert_sent(&[&first[..], b"more\n"].concat());
}

#[test]
fn a_file_that_shrank_by_a_few_bytes() {
    for shrink in [1, 5, 10, 11, 40] {
        let first = lines("first", MANY);
        let mut world = sent(&first);
        world.write(INPUT, &first[..first.len() - shrink]);
        assert_eq!(world.scan().current.found().unwrap().relation, Relation::Shorter(1));
        world.append(INPUT, b"\nnew line\n");
        world.scan();
        assert!(world.sent.ends_with(b"new line\n"));
        let again = world.sent.len() - first.len();
        assert!(again < 60, "{shrink}: {again} bytes again");
    }
}

#[test]
fn an_edit_does_not_send_everything_again() {
    let first = lines("first", MANY);
    for edit in ["same length", "longer", "shorter", "first line", "hole"] {
        for in_place in [true, false] {
            let mut world = sent(&first);
            let text = String::from_utf8(first.clone()).unwrap();
            let edited = match edit {
                "same length" => text.replace("first 500\n", "FIRST 500\n"),
                "longer" => text.replace("first 500\n", "the line first 500\n"),
                "shorter" => text.replace("first 500\n", ""),
                "first line" => text.replacen("first 0\n", "", 1),
                _ => format!("{}{}", "\0".repeat(4096), &text[4096..]),
            };
            if in_place {
                world.write(INPUT, edited.as_bytes());
            } else {
                world.replace(INPUT, edited.as_bytes());
            }
            world.scan();
            world.append(INPUT, b"appended\n");
            world.scan();
            world.assert_sent(&[&first[..], b"appended\n"].concat());
            assert_eq!(world.notices.len(), 1, "{:?}", world.notices);
            if edit == "same length" {
                assert!(matches!(world.notices.first(), Some(Notice::Edited { .. })), "{:?}", world.notices);
            }
        }
    }
}

#[test]
fn an_edit_and_lines_after_it_at_once() {
    let first = lines("first", MANY);
    for down in [true, false] {
        let mut world = sent(&first);
        let edited = String::from_utf8(first.clone()).unwrap().replace("first 500\n", "");
        world.replace(INPUT, &[edited.as_bytes(), b"appended\n"].concat());
        if down {
            world.forget_open_files();
        }
        world.scan();
        world.assert_sent(&[&first[..], b"appended\n"].concat());
    }
}

#[test]
fn the_same_header_is_sent_with_every_content() {
    let header = b"id,name,a header of some length,and more columns\n".to_vec();
    for (name, count) in [("rename", 1), ("rename", 500), ("truncate", 1), ("truncate", 500), ("recreate", 500)] {
        let first = [&header[..], &lines("first", 0..count)].concat();
        let second = [&header[..], &lines("second", 0..3)].concat();
        let mut world = sent(&first);
        match name {
            "rename" => {
                world.rename(INPUT, "input.txt.1");
                world.create(INPUT, &second);
            }
            "truncate" => {
                world.write(INPUT, b"");
                world.scan();
                world.append(INPUT, &second);
            }
            _ => {
                world.remove(INPUT);
                world.create(INPUT, &second);
            }
        }
        world.scan();
        world.assert_sent(&[&first[..], &second].concat());
    }
}

#[test]
fn a_long_header_is_sent_with_every_content_that_is_written_in_place() {
    let header = lines("header", 0..5000);
    for down in [true, false] {
        let mut all = [&header[..], &lines("first", 0..100)].concat();
        let mut world = sent(&all);
        for n in 0..3 {
            let next = [&header[..], &lines(&format!("next {n}"), 0..200)].concat();
            world.write(INPUT, &next);
            if down {
                world.forget_open_files();
            }
            world.scan();
            all.extend(next);
        }
        world.assert_sent(&all);
    }
}

#[test]
fn an_unseen_content_that_begins_like_the_one_before_it() {
    for count in [1, 100] {
        let header = lines("header", 0..count);
        let mut world = sent(&header);
        world.forget_open_files();
        let all = [&header[..], &header, b"second\n", &header, b"third\n"].concat();
        world.rename(INPUT, "input.txt.2");
        world.create("input.txt.1", &[&header[..], b"second\n"].concat());
        world.create(INPUT, &[&header[..], b"third\n"].concat());
        world.scan();
        world.assert_sent(&all);
    }
}

#[test]
fn a_header_alone_that_was_rotated_does_not_cost_the_next_one_its_head() {
    for count in [1, 100] {
        let header = lines("header", 0..count);
        let second = [&header[..], b"second\n"].concat();
        let mut world = sent(&header);
        world.rename(INPUT, "input.txt.1");
        world.create(INPUT, &second);
        world.scan();
        world.assert_sent(&[&header[..], &second].concat());
        assert!(matches!(world.notices.first(), Some(Notice::SameBeginning { .. })));
    }
    // Rotated and deleted, so that only its record is left.
    let mut world = sent(b"header\n");
    world.rename(INPUT, "input.txt.1");
    world.create(INPUT, b"other\n");
    world.scan();
    world.remove("input.txt.1");
    world.rename(INPUT, "input.txt.1");
    world.create(INPUT, b"header\nthird\n");
    world.scan();
    world.assert_sent(b"header\nother\nheader\nthird\n");
}

#[test]
fn a_header_that_is_written_alone_at_first_is_sent() {
    for count in [1, 60] {
        let header = lines("header", 0..count);
        let first = [&header[..], &lines("first", MANY)].concat();
        let mut world = sent(&first);
        world.rename(INPUT, "input.txt.1");
        world.create(INPUT, &header);
        world.scan();
        world.assert_sent(&[&first[..], &header].concat());
    }
}

#[test]
fn a_header_in_a_truncated_file_is_sent_again() {
    let mut world = sent(b"header\n");
    world.write(INPUT, b"");
    world.scan();
    world.append(INPUT, b"header\nsecond\n");
    world.scan();
    world.assert_sent(b"header\nheader\nsecond\n");
}

#[test]
fn a_header_in_an_inode_that_is_used_again_is_sent() {
    let mut world = sent(b"header\n");
    let ino = world.names[INPUT];
    world.remove(INPUT);
    world.create(INPUT, b"other\n");
    world.scan();
    world.remove(INPUT);
    let now = world.tick();
    let file = File { bytes: b"header\nthird\n".to_vec(), modified: now, created: now, ..File::default() };
    world.files.insert(ino, file);
    world.names.insert(INPUT.to_owned(), ino);
    world.forget_open_files();
    world.scan();
    world.assert_sent(b"header\nother\nheader\nthird\n");
}

#[test]
fn a_rotated_file_that_was_changed_is_not_sent_again() {
    for how in ["sed -i", "in place", "cut", "cut and more"] {
        for down in [true, false] {
            let first = lines("first", MANY);
            let mut world = sent(&first);
            world.rename(INPUT, "input.txt.1");
            world.create(INPUT, b"second\n");
            world.scan();
            if down {
                world.forget_open_files();
            }
            let edited = String::from_utf8(first.clone()).unwrap().replacen("first 0\n", "", 1).into_bytes();
            match how {
                "sed -i" => world.replace("input.txt.1", &edited),
                "in place" => world.write("input.txt.1", &edited),
                "cut" => world.write("input.txt.1", &first[..1000]),
                _ => world.write("input.txt.1", &[&first[..1000], b"else"].concat()),
            }
            if !down {
                world.scan();
            }
            world.rename("input.txt.1", "input.txt.2");
            world.rename(INPUT, "input.txt.1");
            world.create(INPUT, b"third\n");
            let identified = world.scan();
            assert_eq!(identified.unseen, [], "{how}, down: {down}");
            world.assert_sent(&[&first[..], b"second\nthird\n"].concat());
        }
    }
}

#[test]
fn contents_that_came_and_went_unseen_are_sent_in_order() {
    for compressed in [false, true] {
        for without_created in [false, true] {
            let mut world = World::new();
            world.without_created = without_created;
            world.create("input.txt.7", b"older than the source\n");
            world.create(INPUT, &lines("first", 0..100));
            world.scan();
            assert!(matches!(world.notices.pop_first(), Some(Notice::LooksRotated { more: 0, .. })));
            world.forget_open_files();
            world.append(INPUT, b"rest\n");
            world.rename(INPUT, "input.txt.4");
            world.create("input.txt.3", b"second\n");
            world.create("input.txt.2", b"third\n");
            if compressed {
                world.compress("input.txt.4");
                world.compress("input.txt.3");
            }
            world.create(INPUT, b"fourth\n");
            world.scan();
            world.assert_sent(&[&lines("first", 0..100)[..], b"rest\nsecond\nthird\nfourth\n"].concat());
            assert!(world.notices.is_empty(), "{:?}", world.notices);
            world.scan();
            world.append(INPUT, b"more\n");
            world.scan();
            assert!(world.sent.ends_with(b"fourth\nmore\n"));
        }
    }
}

#[test]
fn neighbours_are_never_sent() {
    let mut world = World::new();
    let rotated = ["input.txt.5", "input.txt-20261101", "input-2026-11-01.txt"];
    for name in rotated.iter().chain(&["input-2.txt", "input2.txt", "input.txt2", "input.txt.2024", "input.txt~"]) {
        world.create(name, &lines("not ours", 0..20));
    }
    world.create(INPUT, &lines("first", 0..20));
    world.scan();
    // While the reader runs: somebody makes and writes a file with a rotated name.
    world.create("input.txt.9", b"not ours\n");
    world.scan();
    for step in 0..3 {
        world.append("input-2.txt", b"not ours\n");
        world.append("input.txt.9", b"not ours\n");
        world.append("input.txt.2024", b"not ours\n");
        world.append("input.txt.5", b"not ours\n");
        world.rename(INPUT, &format!("input.txt.{}", 3 - step));
        world.create(INPUT, b"next\n");
        world.scan();
        world.scan();
    }
    world.assert_sent(&[&lines("first", 0..20)[..], b"next\nnext\nnext\n"].concat());
}

#[test]
fn an_output_in_the_same_folder_is_not_ours() {
    let mut world = sent(&lines("first", 0..100));
    world.forget_open_files();
    world.create("input.txt.2", &lines("copied", 0..100));
    world.create("input.txt.2.journal", b"");
    world.rename(INPUT, "input.txt.1");
    world.create(INPUT, b"new\n");
    world.scan();
    world.assert_sent(&[&lines("first", 0..100)[..], b"new\n"].concat());
}

/// `first` was sent; `second` came and went unseen, and `third` is there.
fn unseen() -> (World, Vec<u8>) {
    let mut world = sent(&lines("first", 0..100));
    world.forget_open_files();
    world.rename(INPUT, "input.txt.2");
    world.create("input.txt.1", b"second\n");
    world.create(INPUT, b"third\n");
    (world, lines("first", 0..100))
}

#[test]
fn an_unseen_file_that_is_still_written_comes_late() {
    let (mut world, first) = unseen();
    world.identify();
    for _ in 0..3 {
        world.append("input.txt.1", b"late\n");
        world.scan();
        world.assert_sent(&[&first[..], b"third\n"].concat());
    }
    assert!(matches!(world.notices.first(), Some(Notice::StillWritten { path }) if path == "input.txt.1"));
    world.now += 20_000_000_000;
    world.scan();
    world.scan();
    world.assert_sent(&[&first[..], b"third\nsecond\nlate\nlate\nlate\n"].concat());
    // And what comes next.
    world.append(INPUT, b"more\n");
    world.scan();
    world.rename(INPUT, "input.txt.0");
    world.create(INPUT, b"fourth\n");
    world.scan();
    assert!(world.sent.ends_with(b"late\nmore\nfourth\n"));
}

#[test]
fn the_input_changes_before_it_is_renamed() {
    let mut world = sent(&lines("first", 0..100));
    world.rename(INPUT, "input.txt.2");
    world.create(INPUT, b"second\n");
    world.identify();
    world.append(INPUT, b"more\n");
    world.rename(INPUT, "input.txt.1");
    world.create(INPUT, b"third\n");
    world.scan();
    world.assert_sent(&[&lines("first", 0..100)[..], b"second\nmore\nthird\n"].concat());
}

#[test]
fn a_clock_that_is_set_makes_no_neighbour() {
    for hours in [-2, 2] {
        let (mut world, first) = unseen();
        let file = world.file("input.txt.1");
        file.modified += hours * 3_600_000_000_000;
        file.created += hours * 3_600_000_000_000;
        world.scan();
        world.assert_sent(&[&first[..], b"second\nthird\n"].concat());
    }
}

#[test]
fn a_copy_of_an_unknown_input_that_is_under_way_is_no_content() {
    for truncated_first in [true, false] {
        let mut world = sent(&lines("first", 0..100));
        world.rename(INPUT, "input.txt.2");
        let second = lines("second", 0..100);
        world.create(INPUT, &second);
        world.create("input.txt.1", b"");
        for len in [0, 5, 60, 700] {
            world.write("input.txt.1", &second[..len]);
            assert_eq!(world.identify().unseen, []);
        }
        world.write("input.txt.1", &second);
        if !truncated_first {
            world.scan();
        }
        world.write(INPUT, b"third\n");
        world.scan();
        world.assert_sent(&[&lines("first", 0..100)[..], &second, b"third\n"].concat());
    }
}

#[test]
fn a_content_that_was_found_in_a_copy_goes_on_in_its_original() {
    let mut world = sent(&lines("first", 0..100));
    world.copy(INPUT, "input.txt.1");
    let copy = world.names["input.txt.1"];
    let content = &mut world.known.contents[0];
    (content.inode, content.created) = (Some(Inode { dev: 1, ino: copy }), Some(world.files[&copy].created));
    world.forget_open_files();
    world.append(INPUT, b"more\n");
    world.scan();
    world.assert_sent(&[&lines("first", 0..100)[..], b"more\n"].concat());
}

#[test]
fn an_unseen_file_that_could_not_be_found_or_read_comes_late() {
    // Also when the clock was set back between the unseen file and the one after it.
    let cases = [(true, false), (false, false), (true, true), (false, true)];
    for ((unlisted, down), hours) in cases.into_iter().flat_map(|case| [(case, 0), (case, 2)]) {
        let (mut world, first) = unseen();
        world.unlisted = unlisted;
        let unseen = world.names["input.txt.1"];
        let file = world.files.get_mut(&unseen).unwrap();
        file.unreadable = !unlisted;
        file.created += hours * 3_600_000_000_000;
        file.modified += hours * 3_600_000_000_000;
        for _ in 0..3 {
            world.scan();
        }
        world.assert_sent(&[&first[..], b"third\n"].concat());
        if down {
            world.forget_open_files();
        }
        world.unlisted = false;
        world.files.get_mut(&unseen).unwrap().unreadable = false;
        world.scan();
        world.scan();
        world.assert_sent(&[&first[..], b"third\nsecond\n"].concat());
    }
}

#[test]
fn an_archive_that_is_being_written_is_sent_as_soon_as_it_is_complete() {
    for (down, keeps_time) in [(false, true), (true, true), (false, false), (true, false)] {
        let mut world = sent(&lines("first", 0..100));
        world.forget_open_files();
        world.rename(INPUT, "input.txt.2");
        let modified = world.tick();
        world.create(INPUT, b"third\n");
        world.create("input.txt.1.gz", b"");
        let archive = world.names["input.txt.1.gz"];
        world.files.get_mut(&archive).unwrap().unreadable = true;
        for _ in 0..3 {
            world.append("input.txt.1.gz", b"compressed");
            world.scan();
        }
        world.assert_sent(&[&lines("first", 0..100)[..], b"third\n"].concat());
        if down {
            world.forget_open_files();
        }
        let archive = world.file("input.txt.1.gz");
        (archive.packed, archive.unreadable) = (Some(b"second\n".to_vec()), false);
        if keeps_time {
            archive.modified = modified;
        }
        world.scan();
        world.assert_sent(&[&lines("first", 0..100)[..], b"third\nsecond\n"].concat());
    }
}

#[test]
fn a_file_that_waits_to_be_sent_may_be_compressed() {
    for (down, in_pieces) in [(false, false), (false, true), (true, false), (true, true)] {
        let (mut world, first) = unseen();
        world.identify();
        world.append("input.txt.1", b"late\n");
        world.scan();
        world.assert_sent(&[&first[..], b"third\n"].concat());
        if in_pieces {
            world.create("input.txt.1.gz", b"c");
            world.file("input.txt.1.gz").unreadable = true;
            world.scan();
            world.file("input.txt.1.gz").unreadable = false;
            world.file("input.txt.1.gz").packed = Some(b"second\nlate\n".to_vec());
            world.scan();
            world.remove("input.txt.1");
        }
        if down {
            world.forget_open_files();
        }
        if !in_pieces {
            world.compress("input.txt.1");
        }
        world.scan();
        world.assert_sent(&[&first[..], b"third\nsecond\nlate\n"].concat());
    }
}

#[test]
fn a_file_whose_archive_was_sent_is_not_sent_although_it_is_open() {
    let mut world = sent(&lines("first", 0..100));
    world.rename(INPUT, "input.txt.2");
    world.create(INPUT, b"second\n");
    let opened = world.names[INPUT];
    let created = Some(world.files[&opened].created);
    world.known.unknown.push(Neighbour { dev: 1, ino: opened, created });
    world.rename(INPUT, "input.txt.1");
    world.create(INPUT, b"third\n");
    world.compress("input.txt.1");
    world.scan();
    world.scan();
    let all = [&lines("first", 0..100)[..], b"second\nthird\n"].concat();
    world.assert_sent(&all);
    world.unlinked = Some(opened);
    world.scan();
    world.assert_sent(&all);
}

#[test]
fn a_copy_that_waits_to_be_sent_is_not_forgotten_while_the_reader_is_down() {
    let mut world = sent(&lines("first", 0..100));
    world.rename(INPUT, "input.txt.2");
    world.create(INPUT, b"second\n");
    world.create("input.txt.1", b"sec");
    world.identify();
    world.append("input.txt.1", b"ond\n");
    world.file("input.txt.1").unreadable = true;
    world.write(INPUT, b"third\n");
    world.scan();
    world.assert_sent(&[&lines("first", 0..100)[..], b"third\n"].concat());
    world.forget_open_files();
    world.file("input.txt.1").unreadable = false;
    world.scan();
    world.assert_sent(&[&lines("first", 0..100)[..], b"third\nsecond\n"].concat());
}

#[test]
fn a_neighbour_stays_one_while_it_is_there() {
    let mut world = World::new();
    world.create("input.txt.7", b"header\nnot ours\n");
    world.create(INPUT, b"first\n");
    world.scan();
    // Another folder of the input cannot be listed, and the neighbour begins like a content.
    world.unlisted = true;
    world.scan();
    world.unlisted = false;
    world.rename(INPUT, "input.txt.2");
    world.create(INPUT, b"header\nnot ours\nsecond\n");
    world.scan();
    world.scan();
    world.known.contents.pop();
    world.rename(INPUT, "input.txt.1");
    world.create(INPUT, b"third\n");
    assert!(world.scan().unseen.iter().all(|found| found.key as u64 == world.names["input.txt.1"]));
}

#[test]
fn a_neighbour_s_inode_that_is_used_again_is_another_file() {
    let mut world = World::new();
    world.create("input.txt.7", b"not ours\n");
    let ino = world.names["input.txt.7"];
    world.create(INPUT, b"first\n");
    world.scan();
    world.remove("input.txt.7");
    world.rename(INPUT, "input.txt.2");
    let now = world.tick();
    let file = File { bytes: b"second\n".to_vec(), modified: now, created: now, ..File::default() };
    world.files.insert(ino, file);
    world.names.insert("input.txt.1".to_owned(), ino);
    world.create(INPUT, b"third\n");
    world.scan();
    world.assert_sent(b"first\nsecond\nthird\n");
}

#[test]
fn without_a_record_of_the_neighbours_the_first_content_s_age_decides() {
    let mut world = World::new();
    world.create("input.txt.7", b"not ours\n");
    world.create(INPUT, b"first\n");
    let now = world.now;
    world.files.values_mut().for_each(|file| file.created = now);
    world.scan();
    world.rename(INPUT, "input.txt.3");
    world.create("input.txt.2", b"second\n");
    world.create(INPUT, b"third\n");
    world.known.contents[0].finished = true;
    let third = world.identify().current.found().cloned().unwrap();
    world.begin(&third, 0);
    world.forget_open_files();
    world.known.siblings.neighbours = None;
    world.rename(INPUT, "input.txt.1");
    world.create(INPUT, b"fourth\n");
    world.scan();
    world.assert_sent(b"first\nthird\nsecond\nfourth\n");
}

#[test]
fn a_neighbour_in_a_folder_that_cannot_be_listed_at_first_is_not_sent() {
    let mut world = World::new();
    world.create("input.txt.7", b"not ours\n");
    world.create(INPUT, b"first\n");
    world.unlisted = true;
    world.scan();
    world.unlisted = false;
    world.rename(INPUT, "input.txt.2");
    world.create("input.txt.1", b"second\n");
    world.create(INPUT, b"third\n");
    world.scan();
    world.assert_sent(b"first\nsecond\nthird\n");
}

#[test]
fn a_truncated_file_that_is_renamed_before_it_was_seen_is_sent() {
    for count in [10, 1000] {
        let first = lines("first", 0..count);
        let mut world = sent(&first);
        world.forget_open_files();
        world.copy(INPUT, "input.txt.3");
        world.write(INPUT, b"second\n");
        world.copy(INPUT, "input.txt.2");
        world.write(INPUT, b"");
        world.scan();
        world.append(INPUT, b"third\n");
        world.rename(INPUT, "input.txt.1");
        world.create(INPUT, b"fourth\n");
        world.scan();
        world.scan();
        world.assert_sent(&[&first[..], b"second\nthird\nfourth\n"].concat());
    }
}

#[test]
fn an_input_that_is_rotated_before_the_source_begins_is_sent() {
    let mut world = World::new();
    world.create("input.txt.7", b"not ours\n");
    world.create(INPUT, b"first\n");
    world.known.siblings = world.identify().siblings();
    world.rename(INPUT, "input.txt.2");
    world.create("input.txt.1", b"second\n");
    world.create(INPUT, b"third\n");
    world.known.siblings = world.identify().siblings();
    world.scan();
    world.assert_sent(b"first\nsecond\nthird\n");
}

#[test]
fn an_input_that_is_copied_and_truncated_before_the_source_begins_is_sent() {
    let mut world = World::new();
    world.create("input.txt.7", &lines("not ours", 0..20));
    world.create(INPUT, b"first\n");
    world.known.siblings = world.identify().siblings();
    world.copy(INPUT, "input.txt.1");
    world.create("input.txt.2", b"another program's\n");
    world.write(INPUT, b"second\n");
    world.scan();
    world.assert_sent(b"first\nsecond\n");
}

/// As `delaycompress` of logrotate has it: a rotated file is compressed at the next rotation.
#[test]
fn a_neighbour_stays_one_when_it_is_compressed() {
    for down in [false, true] {
        let mut world = World::new();
        world.create("input.txt.1", &lines("not ours", 0..100));
        world.create(INPUT, b"first\n");
        world.scan();
        if down {
            world.forget_open_files();
        }
        world.compress("input.txt.1");
        world.rename("input.txt.1.gz", "input.txt.2.gz");
        world.rename(INPUT, "input.txt.1");
        world.create(INPUT, b"second\n");
        world.scan();
        // One of ours that came and went is compressed, too.
        world.rename("input.txt.1", "input.txt.4");
        world.compress(INPUT);
        world.rename("input.txt.gz", "input.txt.3.gz");
        world.create("input.txt.1", &lines("third", 0..100));
        world.compress("input.txt.1");
        world.create(INPUT, b"fourth\n");
        world.scan();
        world.assert_sent(&[b"first\nsecond\n", &lines("third", 0..100)[..], b"fourth\n"].concat());
    }
}

#[test]
fn an_unknown_file_that_is_open_and_has_no_name_any_more_is_sent() {
    let (mut world, first) = unseen();
    world.identify();
    world.unlinked = Some(world.names["input.txt.1"]);
    world.remove("input.txt.1");
    world.scan();
    world.assert_sent(&[&first[..], b"second\nthird\n"].concat());
}

#[test]
fn a_file_that_was_opened_as_the_input_is_sent_from_itself_and_not_from_its_copy() {
    let mut world = sent(&lines("first", 0..100));
    world.rename(INPUT, "input.txt.2");
    world.create(INPUT, b"second\n");
    let opened = world.names[INPUT];
    world.compress(INPUT);
    world.rename("input.txt.gz", "input.txt.1.gz");
    world.create(INPUT, b"third\n");
    world.identify();
    world.unlinked = Some(opened);
    world.known.unknown.push(Neighbour { dev: 1, ino: opened, created: Some(world.files[&opened].created) });
    world.scan();
    world.files.get_mut(&opened).unwrap().bytes.extend(b"late\n");
    world.scan();
    world.assert_sent(&[&lines("first", 0..100)[..], b"second\nthird\nlate\n"].concat());
}

#[test]
fn what_cannot_be_read_is_named_and_stops_nothing() {
    let mut world = sent(&lines("first", 0..100));
    world.forget_open_files();
    world.create("input.txt.20240101", b"secret\n");
    world.file("input.txt.20240101").unreadable = true;
    world.rename(INPUT, "input.txt.1");
    world.create(INPUT, b"new\n");
    world.scan();
    world.assert_sent(&[&lines("first", 0..100)[..], b"new\n"].concat());
    let notice = world.notices.pop_first().unwrap();
    assert!(matches!(&notice, Notice::Unreadable { path, .. } if path == "input.txt.20240101"), "{notice}");
    world.unlisted = true;
    world.append(INPUT, b"more\n");
    world.scan();
    assert!(world.sent.ends_with(b"more\n"));
    assert!(matches!(world.notices.first(), Some(Notice::Unlisted { .. })));
}

#[test]
fn a_known_content_that_cannot_be_read_is_not_gone() {
    let mut world = sent(&lines("first", 0..100));
    world.append(INPUT, b"rest\n");
    world.rename(INPUT, "input.txt.1");
    world.file("input.txt.1").unreadable = true;
    world.create(INPUT, b"new\n");
    let identified = world.identify();
    assert_eq!(identified.blocked.get(&1).map(String::as_str), Some("permission denied"));
    assert!(matches!(identified.notices.first(), Some(Notice::Unreadable { path, .. }) if path == "input.txt.1"));
}

#[test]
fn a_copy_of_a_truncated_file_that_shares_only_the_header_is_sent() {
    for appended in [&b""[..], b"third\n"] {
        let mut world = sent(b"#header\n");
        // Unseen: lines, a copy of all, and the same header again.
        world.create("input.txt.1", b"#header\nsecond\n");
        world.write(INPUT, &[b"#header\n", appended].concat());
        world.scan();
        assert!(world.sent.ends_with(b"second\n") || world.sent.ends_with(b"second\nthird\n"), "{:?}", world.notices);
        assert!(world.notices.iter().any(|notice| matches!(notice, Notice::SameBeginning { .. })));
    }
}

#[test]
fn a_truncated_file_with_the_same_header_that_is_renamed_is_sent() {
    let first = [b"#header\n".to_vec(), lines("first", 0..50)].concat();
    let mut world = sent(&first);
    // Its copy lacks the last bytes.
    world.create("input.txt.2", &first[..first.len() - 10]);
    world.write(INPUT, b"#header\nsecond\n");
    world.rename(INPUT, "input.txt.1");
    world.create(INPUT, b"#header\nthird\n");
    world.scan();
    world.scan();
    world.assert_sent(&[&first[..], b"#header\nsecond\n#header\nthird\n"].concat());
}

#[test]
fn a_short_content_that_was_rotated_away_is_not_the_next_one_that_begins_alike() {
    let mut world = sent(b"#header\n");
    world.rename(INPUT, "input.txt.1");
    world.create(INPUT, b"");
    world.scan();
    world.remove("input.txt.1");
    world.replace(INPUT, b"#header\nsecond\n");
    world.scan();
    world.assert_sent(b"#header\n#header\nsecond\n");
}

#[test]
fn known_contents_tell_the_order_when_a_clock_was_set_back() {
    for (older, newer) in [("input.txt.2", "input.txt.1"), ("input.txt.1", "input.txt.2")] {
        let mut world = sent(&lines("first", 0..100));
        let known = if older == "input.txt.2" { "input.txt.3" } else { "input.txt.0" };
        world.rename(INPUT, known);
        world.create("input.txt.9", b"not ours\n");
        world.known.siblings.neighbours.as_mut().unwrap().push(Neighbour {
            dev: 1,
            ino: world.names["input.txt.9"],
            created: Some(world.now),
        });
        world.create(older, b"second\n");
        world.now -= 100_000_000_000;
        world.create(newer, b"third\n");
        world.create(INPUT, b"fourth\n");
        world.scan();
        world.assert_sent(&[&lines("first", 0..100)[..], b"second\nthird\nfourth\n"].concat());
    }
}

#[test]
fn an_edit_and_lines_after_it_are_sent_when_it_was_rotated_at_once() {
    let first = lines("first", MANY);
    let mut world = sent(&first);
    let edited = String::from_utf8(first.clone()).unwrap().replacen("first 0\n", "FIRST 0\n", 1).into_bytes();
    world.replace(INPUT, &[&edited[..], b"more\n"].concat());
    world.rename(INPUT, "input.txt.1");
    world.create(INPUT, b"second\n");
    world.scan();
    world.scan();
    world.assert_sent(&[&first[..], b"more\nsecond\n"].concat());
}

#[test]
fn a_copy_that_is_under_way_does_not_make_a_replaced_input_a_new_one() {
    let first = lines("first", MANY);
    let mut world = sent(&first);
    world.create("input.txt.1", &first[..first.len() * 3 / 4]);
    world.replace(INPUT, &[&first[..], b"more\n"].concat());
    world.scan();
    world.assert_sent(&[&first[..], b"more\n"].concat());
}

#[test]
fn an_empty_file_with_a_rotated_name_may_be_a_copy_that_begins() {
    let mut world = sent(b"#header\n");
    world.create("input.txt.1", b"");
    world.scan();
    world.write("input.txt.1", b"#header\nsecond\n");
    world.write(INPUT, b"#header\n");
    world.scan();
    world.now += 20_000_000_000;
    world.scan();
    world.assert_sent(b"#header\n#header\nsecond\n");
}

#[test]
fn an_unseen_file_is_sent_when_the_folder_can_be_listed_at_last() {
    for down in [false, true] {
        let mut world = World::new();
        world.create("input.txt.9", b"not ours\n");
        world.unlisted = true;
        world.create(INPUT, b"first\n");
        world.scan();
        world.rename(INPUT, "input.txt.2");
        world.create("input.txt.1", b"second\n");
        world.create(INPUT, b"third\n");
        world.scan();
        world.unlisted = false;
        if down {
            world.forget_open_files();
        }
        world.scan();
        world.assert_sent(b"first\nthird\nsecond\n");
        assert!(world.notices.iter().any(|notice| matches!(notice, Notice::LooksRotated { .. })));
    }
}

#[test]
fn a_link_that_flips_back() {
    for count in [2, 1000] {
        let mut world = World::new();
        world.create("a.log", &lines("first", 0..count));
        world.create("b.log", b"second\n");
        let link = |world: &mut World, to: &str| {
            let ino = world.names[to];
            world.names.insert(INPUT.to_owned(), ino);
        };
        link(&mut world, "a.log");
        world.scan();
        link(&mut world, "b.log");
        world.scan();
        world.append("a.log", b"late\n");
        link(&mut world, "a.log");
        world.scan();
        world.assert_sent(&[&lines("first", 0..count)[..], b"second\nlate\n"].concat());
        link(&mut world, "b.log");
        world.append("b.log", b"late, too\n");
        world.scan();
        world.scan();
        assert!(world.sent.ends_with(b"second\nlate\nlate, too\n"));
    }
}

/// The link leads to the second file for a moment only, while the first one is still waited for.
#[test]
fn a_target_of_the_link_that_was_not_begun_in_time_is_sent() {
    let mut world = World::new();
    world.create("a.log", &lines("first", 0..100));
    world.names.insert(INPUT.to_owned(), world.names["a.log"]);
    world.scan();
    world.create("b.log", b"second\n");
    world.names.insert(INPUT.to_owned(), world.names["b.log"]);
    world.identify();
    world.create("c.log", b"third\n");
    world.create("other.log", b"not ours\n");
    world.names.insert(INPUT.to_owned(), world.names["c.log"]);
    world.identify();
    world.scan();
    world.assert_sent(&[&lines("first", 0..100)[..], b"second\nthird\n"].concat());
}

#[test]
fn another_target_of_the_link_while_the_reader_was_down() {
    let mut world = World::new();
    world.create("a.log", &lines("first", 0..100));
    world.names.insert(INPUT.to_owned(), world.names["a.log"]);
    world.scan();
    world.forget_open_files();
    world.append("a.log", b"rest\n");
    world.create("b.log", b"second\n");
    world.names.insert(INPUT.to_owned(), world.names["b.log"]);
    world.scan();
    world.assert_sent(&[&lines("first", 0..100)[..], b"rest\nsecond\n"].concat());
}

#[test]
fn an_editor_that_keeps_the_version_before() {
    for count in [10, 1000] {
        let first = lines("first", 0..count);
        let mut world = sent(&first);
        world.rename(INPUT, "input.txt~");
        world.create(INPUT, &[&first[..], b"more\n"].concat());
        world.scan();
        world.append(INPUT, b"and more\n");
        world.scan();
        world.assert_sent(&[&first[..], b"more\nand more\n"].concat());
    }
}

#[test]
fn an_inode_that_is_used_again() {
    let mut world = sent(&lines("first", 0..100));
    let ino = world.names[INPUT];
    world.remove(INPUT);
    let now = world.tick();
    let file = File { bytes: b"another\n".to_vec(), modified: now, created: now, ..File::default() };
    world.files.insert(ino, file);
    world.names.insert(INPUT.to_owned(), ino);
    world.forget_open_files();
    world.scan();
    world.assert_sent(&[&lines("first", 0..100)[..], b"another\n"].concat());
}

#[test]
fn a_known_content_is_read_from_its_compressed_copy() {
    let first = lines("first", 0..20_000);
    let mut world = sent(&first);
    world.forget_open_files();
    world.append(INPUT, b"rest\n");
    world.rename(INPUT, "input.txt.1");
    world.compress("input.txt.1");
    world.create("input.txt.2.gz", b"");
    world.file("input.txt.2.gz").packed = Some(lines("older", 0..20_000));
    world.file("input.txt.2.gz").created = 1;
    world.known.siblings.neighbours = None;
    world.create(INPUT, b"second\n");
    world.scan();
    world.assert_sent(&[&first[..], b"rest\nsecond\n"].concat());
    // Nothing is left to look for.
    world.questions = 0;
    world.scan();
    assert_eq!(world.questions, 0);
}

#[test]
fn a_replica_in_the_folder_is_not_needed_while_the_input_is_there() {
    let mut world = World::new();
    world.create("input.txt.1.gz", b"");
    world.file("input.txt.1.gz").packed = Some(lines("older", 0..20));
    world.create(INPUT, b"first\n");
    world.scan();
    world.append(INPUT, b"second\n");
    world.scan();
    assert_eq!(world.questions, 0);
    world.assert_sent(b"first\nsecond\n");
}

/// Actions of programs and administrators in the folder.
#[derive(Debug, Clone, Copy)]
enum Operation {
    /// The application appends lines.
    Append(u8),
    /// `create`: renames, and a new file.
    Rename(u8),
    /// `copytruncate`; `true`: lines are appended and sent between the copy and the truncation.
    CopyTruncate(u8, bool),
    /// A file with the same bytes and more takes the place of the input.
    Replace(u8),
    /// The input is written in place, with the same bytes and more.
    Rewrite(u8),
    /// An editor keeps the version before.
    Editor(u8),
    /// A rotated file gets late lines.
    Late(u8),
    Compress(u8),
    /// A rotated file that was sent is deleted.
    Delete(u8),
    /// Another program writes to a file of its own.
    Neighbour(u8),
    /// The reader stops for a while.
    Down,
    Scan,
}

fn operation() -> impl Strategy<Value = Operation> {
    use Operation::*;
    prop_oneof![
        4 => (8..40u8).prop_map(Append),
        2 => (8..40u8).prop_map(Rename),
        2 => (8..40u8, any::<bool>()).prop_map(|(n, late)| CopyTruncate(n, late)),
        1 => (0..40u8).prop_map(Replace),
        1 => (0..40u8).prop_map(Rewrite),
        1 => (0..40u8).prop_map(Editor),
        1 => any::<u8>().prop_map(Late),
        1 => any::<u8>().prop_map(Compress),
        1 => any::<u8>().prop_map(Delete),
        2 => any::<u8>().prop_map(Neighbour),
        2 => Just(Down),
        4 => Just(Scan),
    ]
}

/// A folder in which operations happen, and what must be sent of it.
struct Story {
    world: World,
    header: Vec<u8>,
    expected: Vec<u8>,
    line: usize,
    neighbours: Vec<String>,
    /// Whether lines that are only in the input were not sent.
    unsent: bool,
}

impl Story {
    fn lines(&mut self, count: u8) -> Vec<u8> {
        let lines = lines("a line of the application that writes", self.line..self.line + usize::from(count));
        self.line += usize::from(count);
        self.expected.extend(&lines);
        self.unsent = true;
        lines
    }

    /// The first bytes of a new file of the application.
    fn first(&mut self, count: u8) -> Vec<u8> {
        self.expected.extend(&self.header);
        [self.header.clone(), self.lines(count)].concat()
    }

    fn scan(&mut self) {
        // Contents that are sent one after the other may be found one after the other.
        for _ in 0..3 {
            self.world.scan();
        }
        self.unsent = false;
    }

    fn rotated(&self) -> Vec<String> {
        let names = self.world.names.keys();
        names.filter(|name| name.starts_with("input.txt.") && !self.neighbours.contains(name)).cloned().collect()
    }

    /// Makes room for `input.txt.1`, as logrotate does.
    fn shift(&mut self) {
        for index in (1..200).rev() {
            for ending in ["", ".gz"] {
                let (from, to) = (format!("input.txt.{index}{ending}"), format!("input.txt.{}{ending}", index + 1));
                if self.world.names.contains_key(&from) && !self.neighbours.contains(&from) {
                    self.world.rename(&from, &to);
                }
            }
        }
    }

    fn perform(&mut self, operation: Operation) {
        let pick = |names: &[String], n: u8| names.get(usize::from(n) % names.len().max(1)).cloned();
        match operation {
            Operation::Append(count) => {
                let lines = self.lines(count);
                self.world.append(INPUT, &lines);
            }
            Operation::Rename(count) => {
                self.shift();
                self.world.rename(INPUT, "input.txt.1");
                let first = self.first(count);
                self.world.create(INPUT, &first);
            }
            Operation::CopyTruncate(count, late) => {
                self.shift();
                self.world.copy(INPUT, "input.txt.1");
                if late {
                    let lines = self.lines(count);
                    self.world.append(INPUT, &lines);
                    self.scan();
                }
                self.world.write(INPUT, b"");
                let first = self.first(count);
                self.world.append(INPUT, &first);
            }
            Operation::Replace(count) => {
                let longer = [self.world.bytes(INPUT), self.lines(count)].concat();
                self.world.replace(INPUT, &longer);
                // Copied or renamed before that, it may as well be another content that begins
                // alike.
                self.scan();
            }
            Operation::Rewrite(count) => {
                let longer = [self.world.bytes(INPUT), self.lines(count)].concat();
                self.world.write(INPUT, &longer);
            }
            Operation::Editor(count) => {
                let longer = [self.world.bytes(INPUT), self.lines(count)].concat();
                self.world.rename(INPUT, "input.txt~");
                self.world.create(INPUT, &longer);
                self.scan();
                self.world.remove("input.txt~");
            }
            Operation::Late(n) => {
                let names: Vec<_> = self.rotated().into_iter().filter(|name| !name.ends_with(".gz")).collect();
                self.scan();
                if let Some(name) = pick(&names, n) {
                    let is_whole = self.world.scan().holders.values().flatten().any(|found| {
                        found.key as u64 == self.world.names[&name] && matches!(found.relation, Relation::Whole(_))
                    });
                    if is_whole {
                        let lines = self.lines(1);
                        self.world.append(&name, &lines);
                        self.scan();
                    }
                }
            }
            Operation::Compress(n) => {
                let names: Vec<_> = self.rotated().into_iter().filter(|name| !name.ends_with(".gz")).collect();
                if let Some(name) = pick(&names, n) {
                    self.world.compress(&name);
                }
            }
            Operation::Delete(n) => {
                self.scan();
                if let Some(name) = pick(&self.rotated(), n) {
                    self.world.remove(&name);
                }
            }
            Operation::Neighbour(n) => {
                let name = self.neighbours[usize::from(n) % self.neighbours.len()].clone();
                self.world.append(&name, b"not ours\n");
            }
            Operation::Down => self.world.forget_open_files(),
            Operation::Scan => self.scan(),
        }
    }
}

/// A few stories; `PROPTEST_CASES` asks for more.
fn config() -> ProptestConfig {
    let cases = if std::env::var_os("PROPTEST_CASES").is_some() { ProptestConfig::default().cases } else { 64 };
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn whatever_happens_every_line_is_sent_once_and_nothing_foreign(
        header in 0..4usize,
        operations in proptest::collection::vec(operation(), 1..40),
    ) {
        let mut world = World::new();
        let neighbours = ["input.txt.201", "input-2.txt", "input2.txt", "input.txt-20250101", "other.txt"];
        let neighbours: Vec<String> = neighbours.iter().map(|name| (*name).to_owned()).collect();
        for name in &neighbours {
            world.create(name, b"not ours\n");
        }
        let header = lines("# header", 0..header);
        let mut story = Story { world, header, expected: Vec::new(), line: 0, neighbours, unsent: false };
        let first = story.first(10);
        story.world.create(INPUT, &first);
        story.scan();
        for operation in operations {
            story.perform(operation);
        }
        story.scan();
        let sorted = |bytes: &[u8]| {
            let mut lines: Vec<_> = bytes.split_inclusive(|&b| b == b'\n').map(<[u8]>::to_vec).collect();
            lines.sort();
            lines
        };
        let (sent, expected) = (sorted(&story.world.sent), sorted(&story.expected));
        let text = |line: &Vec<u8>| String::from_utf8_lossy(line).into_owned();
        let differs = sent.iter().zip(&expected).find(|(a, b)| a != b).map(|(a, b)| (text(a), text(b)));
        prop_assert!(
            sent == expected,
            "{} of {} lines: {:?}; {:?}", sent.len(), expected.len(), differs, story.world.notices
        );
    }
}

#[test]
fn a_rotated_file_that_begins_like_a_short_content_is_sent_and_reported() {
    let mut world = World::new();
    let (short, rest, next) = (lines("a", 0..5), lines("b", 0..9), lines("c", 0..3));
    world.create(INPUT, &short);
    world.scan();
    world.append(INPUT, &rest);
    world.copy(INPUT, "input.txt.1");
    world.replace(INPUT, &next);
    world.unlisted = true;
    world.forget_open_files();
    world.scan();
    world.unlisted = false;
    world.scan();
    world.assert_sent(&[&short[..], &next, &short, &rest].concat());
    let expected = Notice::SameBeginning { path: "input.txt.1".to_owned(), bytes: short.len() as u64 };
    assert!(world.notices.contains(&expected), "{:?}", world.notices);
}

#[test]
fn a_rotated_file_that_was_made_of_another_one_is_sent_and_reported() {
    let mut world = World::new();
    let (first, last) = (lines("a", 0..100), lines("c", 0..3));
    world.create(INPUT, &first);
    world.scan();
    world.rename(INPUT, "input.txt.2");
    // Somebody restored the beginning of it, and few lines followed before the next rotation.
    let restored = [&first[..320], b"x\n"].concat();
    world.create("input.txt.1", &restored);
    world.create(INPUT, &last);
    world.scan();
    world.assert_sent(&[&first[..], &restored, &last].concat());
    let expected = Notice::SameBeginning { path: "input.txt.1".to_owned(), bytes: 320 };
    assert!(world.notices.contains(&expected), "{:?}", world.notices);
}

#[test]
fn an_edit_is_found_by_what_was_sent_and_not_by_what_another_partition_read() {
    let mut world = World::new();
    let old = lines("a", 0..100);
    world.create(INPUT, &old);
    world.scan();
    let new = [&old[..old.len() - 2], b"x\n", &lines("b", 0..30)].concat();
    world.replace(INPUT, &new);
    world.known.contents[0].fingerprint = Fingerprint::of(&new);
    world.forget_open_files();
    let current = world.identify().current;
    let relation = current.found().map(|found| found.relation);
    assert_eq!(relation, Some(Relation::Derived { from: 1, start: old.len() as u64 - 5 }));
}

#[test]
fn a_shorter_copy_that_lost_its_name_while_it_was_open_is_still_a_copy() {
    let mut world = World::new();
    let first = lines("first", 0..1000);
    world.create(INPUT, &first);
    world.scan();
    world.create("input.txt.1", &first[..first.len() / 10 * 9]);
    world.write(INPUT, &lines("second", 0..100));
    world.scan();
    let copy = world.names["input.txt.1"];
    world.remove("input.txt.1");
    world.unlinked = Some(copy);
    let identified = world.identify();
    let holders: Vec<u64> = identified.holders[&1].iter().map(|found| found.key as u64).collect();
    assert_eq!(holders, [copy], "Redis may have lost what is in it");
}
