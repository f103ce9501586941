//! What a producer tells the file side about contents that it has not left yet.

#![allow(clippy::unwrap_used)]

use delivery::files::{Content, Current, Found, Identified, Inode, KnownContents, Relation, Siblings};
use delivery::fingerprint::Fingerprint;
use delivery::line_reader::ReadOptions;
use delivery::manifest::{Generation, Guard, Manifest, Position};
use delivery::partition::Partition;
use delivery::producer::Changed;
use delivery::producer::resume::{Observed, StreamState};
use delivery::producer::{
    Directory, Limits, Notice, ObservedContents, Options, Producer, Step, StepError, Stored, Wait,
};
use delivery::source_file::SourceFile;
use delivery::split::Framing;
use resp::StreamId;
use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::time::Duration;

/// A folder with given answers to its scans. It remembers what it was asked, and what was
/// stored of the siblings.
#[derive(Clone)]
struct Folder {
    /// The answer to the scan with this number.
    scan: fn(usize) -> Identified,
    /// The content of its second file.
    second: &'static [u8],
    asked: Rc<RefCell<Vec<KnownContents>>>,
    stored: Rc<RefCell<Siblings>>,
}

impl Folder {
    fn new(scan: fn(usize) -> Identified) -> Self {
        Self { scan, second: b"", asked: Rc::default(), stored: Rc::default() }
    }

    /// A folder in which the input was renamed twice: the second file holds what was sent, the
    /// first one nothing that is known, and nothing is at the input's path. A folder could not be
    /// listed.
    fn vacated(second: &'static [u8]) -> Self {
        let scan = |_| {
            let sent = Found { key: 2, relation: Relation::Whole(10), len: 4 };
            let unseen = vec![Found { key: 1, relation: Relation::New, len: 4 }];
            Identified { holders: [(10, vec![sent])].into(), unseen, missed: true, ..Identified::default() }
        };
        Self { second, ..Self::new(scan) }
    }

    /// The last question.
    fn known(&self) -> KnownContents {
        self.asked.borrow().last().unwrap().clone()
    }
}

#[derive(Debug)]
struct Bytes(&'static [u8], u64);

impl SourceFile for Bytes {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let rest = usize::try_from(offset).ok().and_then(|offset| self.0.get(offset..)).unwrap_or_default();
        let len = rest.len().min(buffer.len());
        buffer[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.len() as u64)
    }

    fn inode(&self) -> Inode {
        Inode { dev: 1, ino: self.1 }
    }

    fn path(&self) -> String {
        format!("/in.{}", self.1)
    }
}

impl Directory for Folder {
    type File = Bytes;

    fn scan(&mut self, known: &KnownContents, _: &[(u64, &Bytes)], _: Duration) -> Identified {
        let mut asked = self.asked.borrow_mut();
        asked.push(known.clone());
        (self.scan)(asked.len())
    }

    fn has_changed(&self) -> bool {
        false
    }

    fn open(&mut self, key: usize) -> io::Result<Bytes> {
        Ok(if key == 2 { Bytes(self.second, 2) } else { Bytes(b"new\n", 1) })
    }

    fn prints(&self, _: usize) -> Option<Fingerprint> {
        None
    }

    fn input(&mut self) -> io::Result<Option<Inode>> {
        Ok(None)
    }

    fn load(&mut self) -> io::Result<Stored> {
        Ok(Stored::Missing)
    }

    fn store(&mut self, manifest: &Manifest) -> io::Result<()> {
        self.stored.replace(manifest.siblings.clone());
        Ok(())
    }
}

fn manifest(contents: &[(u64, u64)]) -> Manifest {
    let mut manifest = Manifest::default();
    for (number, &(generation, file_id)) in contents.iter().enumerate() {
        manifest.insert(Generation {
            generation,
            file_id,
            start: 0,
            previous_end: (number > 0).then_some(0),
            previous_guard: None,
            resumes: None,
            path: "/in".to_owned(),
            dev: 1,
            ino: file_id,
            created: None,
            real_path: None,
            head_len: 1,
            head_hash: file_id,
        });
    }
    manifest
}

fn options(partition: Partition, limits: Limits) -> Options {
    Options {
        input: "/in".to_owned(),
        state: "/state".to_owned(),
        stream: "s".to_owned(),
        read: ReadOptions::new(Framing::Line, partition),
        from_end: false,
        once: false,
        max_backlog: 0,
        limits,
    }
}

/// The contents that the file side learns of, when other partitions have read `read` bytes of each
/// of theirs.
fn known(own: &[(u64, u64)], others: &[(u64, u64)], read: u64, limits: Limits) -> Vec<Content> {
    let options = options(Partition::new(1, 3).unwrap(), limits);
    let folder = Folder::new(|_| Identified::default());
    let mut producer = Producer::new(options, folder.clone());
    producer.step(Duration::ZERO).unwrap();
    producer.agreed(manifest(others));
    let mut theirs = manifest(others);
    for &(_, file_id) in others {
        let prints = theirs.prints.entry(file_id).or_default();
        prints.missing(read).for_each(|span| prints.push(span.end));
    }
    let mut exchanged = ObservedContents::default();
    exchanged.learn(&theirs);
    producer.exchange(&mut exchanged);
    let observed = Observed { record: manifest(own), stream: Some(StreamState::default()), ..Observed::default() };
    producer.observed(observed, None).unwrap();
    producer.step(Duration::ZERO).unwrap();
    folder.known().contents
}

/// The contents that the file side learns of, by file ID, and whether each is owed.
fn owed(own: &[(u64, u64)], others: &[(u64, u64)]) -> Vec<(u64, bool)> {
    let contents = known(own, others, 0, Limits::default());
    contents.iter().map(|content| (content.file_id, content.is_owed)).collect()
}

#[test]
fn a_partition_scans_its_folder_when_all_have_read_their_streams_or_one_does_not_answer() {
    let folder = Folder::new(|_| Identified::default());
    let partition = |index| Partition::new(index, 2).unwrap();
    let mut exchanged = ObservedContents::default();
    let mut both = [0, 1].map(|index| {
        exchanged.expect(partition(index));
        Producer::new(options(partition(index), Limits::default()), folder.clone())
    });
    let mut observe = |producer: &mut Producer<Folder>| {
        producer.observed(Observed { record: manifest(&[(10, 10)]), ..at_the_end(1) }, None).unwrap();
        producer.exchange(&mut exchanged);
    };
    observe(&mut both[0]);
    let waits = |step| matches!(step, Step::Wait(Wait::Pause(_)));
    assert!(waits(both[0].step(Duration::ZERO).unwrap()) && folder.asked.borrow().is_empty());
    assert!(!waits(both[0].step(Duration::from_secs(1)).unwrap()), "the other one may be unreachable");
    assert!(!folder.asked.take().is_empty());
    observe(&mut both[1]);
    assert!(!waits(both[1].step(Duration::ZERO).unwrap()), "it was the last one");
}

/// While this partition is behind, a content of which only a compressed copy is left must be looked
/// for, although another partition has begun the next one.
#[test]
fn a_content_that_another_partition_has_left_is_owed() {
    let all = [(10, 10), (20, 20), (30, 30)];
    assert_eq!(owed(&all[..2], &all), [(10, false), (20, true), (30, true)]);
    assert_eq!(owed(&[], &all), [(10, true), (20, true), (30, true)], "it has not begun");
}

#[test]
fn a_content_whose_late_lines_are_being_sent_is_owed() {
    let own = [(10, 10), (20, 20), (30, 10)];
    assert_eq!(owed(&own, &own[..2]), [(10, true), (20, false)]);
}

/// A content that this partition has passed over, and that another one has read, may be left in a
/// compressed copy only.
#[test]
fn a_content_that_was_never_sent_here_is_as_long_as_others_have_read_it() {
    let (own, all) = ([(10, 10), (30, 30)], [(10, 10), (20, 20), (30, 30)]);
    let seen = |limits| {
        let contents = known(&own, &all, 1024, limits);
        contents.iter().map(|content| content.seen_len).collect::<Vec<_>>()
    };
    assert_eq!(seen(Limits::default()), [0, 1024, 0]);
    assert_eq!(seen(Limits { generations: 2, ..Limits::default() }), [0, 0, 0], "it may have been sent and dropped");
}

#[test]
fn a_content_that_came_and_went_is_sent_while_nothing_is_at_the_path() {
    let folder = Folder::vacated(b"old\n");
    let stored = folder.stored.clone();
    let mut producer = Producer::new(options(Partition::WHOLE, Limits::default()), folder);
    producer.step(Duration::ZERO).unwrap();
    let mut record = manifest(&[(10, 10)]);
    record.guard = Some(Guard::new(10, 4, 4, b"old\n"));
    let stream = StreamState { last_id: StreamId::new(10, 4), ..StreamState::default() };
    producer.observed(Observed { record, stream: Some(stream), ..Observed::default() }, None).unwrap();
    let mut now = Duration::ZERO;
    while now < Duration::from_secs(4) {
        match producer.step(now).unwrap() {
            Step::Fill => assert!(producer.fill(|_| ()).unwrap().is_none(), "all of it was sent"),
            Step::Check { .. } => {
                let link = producer.next_expected().link.is_some();
                producer.checked(None, link, Some(0), None, now).unwrap();
            }
            Step::Wait(_) => now += Duration::from_millis(250),
            Step::Clock => producer.clock(1000).unwrap(),
            Step::Record(_) => {
                assert!(stored.borrow().missed, "what could not be listed is known if the process ends now");
                return;
            }
            step => panic!("{step:?}"),
        }
    }
    panic!("it stays at the first file");
}

#[test]
fn a_file_that_was_written_again_between_the_scan_and_its_opening_is_not_sent() {
    let mut producer = Producer::new(options(Partition::WHOLE, Limits::default()), Folder::vacated(b"another\n"));
    producer.step(Duration::ZERO).unwrap();
    producer.observed(at_the_end(1), None).unwrap();
    let error = producer.step(Duration::ZERO).unwrap_err();
    assert!(matches!(error, StepError::Changed(Changed::InputChanged)), "{error:?}");
}

/// A producer that has sent all of the first file, at an ID that the stream has.
fn streaming(added: u64) -> Producer<Folder> {
    let mut producer = Producer::new(options(Partition::WHOLE, Limits::default()), Folder::vacated(b"old\n"));
    producer.step(Duration::ZERO).unwrap();
    producer.observed(at_the_end(added), None).unwrap();
    assert_eq!(producer.step(Duration::ZERO).unwrap(), Step::Fill);
    producer
}

fn at_the_end(added: u64) -> Observed {
    let mut record = manifest(&[(10, 10)]);
    record.guard = Some(Guard::new(10, 4, 4, b"old\n"));
    Observed { record, stream: Some(state(4, added)), ..Observed::default() }
}

fn state(seq: u64, added: u64) -> StreamState {
    StreamState { last_id: StreamId::new(10, seq), len: 1, added: Some(added), oldest: Some(10) }
}

#[test]
fn a_stream_with_another_number_of_entries_is_another_stream() {
    let check = |seq: u64, added: u64| {
        let mut producer = streaming(3);
        let link = producer.next_expected().link.is_some();
        let now = Duration::from_secs(2);
        producer.checked(None, link, Some(1), Some(state(seq, added)), now).is_ok()
    };
    assert!(check(4, 3));
    assert!(!check(4, 2), "entries are missing");
    assert!(!check(4, 5), "an older state that had more entries than the present one");
    assert!(check(9, 4), "a foreign entry");
    assert!(!check(9, 3), "a foreign entry, and one of ours is missing");
    assert!(!check(3, 3));
}

#[test]
fn the_resumption_goes_back_to_the_first_generation_when_nothing_tells_where_a_gap_begins() {
    let mut producer = streaming(3);
    let link = producer.next_expected().link.is_some();
    let now = Duration::from_secs(2);
    assert!(producer.checked(None, link, Some(1), Some(state(4, 2)), now).is_err());
    producer.restart();
    let Step::Observe { below } = producer.step(now).unwrap() else { panic!("it looks again") };
    assert_eq!(below, Some(StreamId::new(10, 4)));
    // An earlier generation; its entries are trimmed.
    let mut observed = at_the_end(2);
    let mut record = manifest(&[(8, 8), (10, 10)]);
    let second = Generation { start: 2, ..record.get(10).unwrap().clone() };
    record.insert(second);
    record.guard = observed.record.guard.take();
    observed.record = record;
    producer.observed(observed, None).unwrap();
    let notices = producer.take_notices();
    assert!(notices.contains(&Notice::Foreign { last_id: StreamId::new(10, 4), offset: 0 }), "{notices:?}");
}

#[test]
fn a_foreign_entry_above_an_older_stream_does_not_hide_what_that_lacks() {
    let mut producer = Producer::new(options(Partition::WHOLE, Limits::default()), Folder::vacated(b"old\n"));
    producer.step(Duration::ZERO).unwrap();
    let guard_field = Some(b"guard".to_vec());
    producer.observed(Observed { guard_field: guard_field.clone(), ..at_the_end(1) }, None).unwrap();
    producer.restart();
    producer.step(Duration::ZERO).unwrap();
    // The record is a newer one than the stream.
    let mut record = at_the_end(1).record;
    record.confirmed = Some(Position { generation: 10, offset: 40 });
    record.insert(Generation {
        file_id: 10,
        start: 40,
        previous_end: Some(40),
        ..manifest(&[(20, 20)]).last().unwrap().clone()
    });
    let last_id = StreamId::new(15, 1);
    let stream = Some(StreamState { last_id, ..state(4, 2) });
    producer.observed(Observed { record, guard_field, stream, ..Observed::default() }, None).unwrap();
    let notices = producer.take_notices();
    assert!(notices.contains(&Notice::Foreign { last_id, offset: 4 }), "{notices:?}");
}

#[test]
fn what_redis_lost_of_a_file_that_cannot_be_found_is_not_delivered() {
    let folder = Folder::new(|_| {
        let current = Current::Found(Found { key: 1, relation: Relation::New, len: 4 });
        Identified { current, ..Identified::default() }
    });
    let mut producer = Producer::new(options(Partition::WHOLE, Limits::default()), folder);
    producer.step(Duration::ZERO).unwrap();
    // Up to byte 4 was sent, and Redis lost the second half and what came next.
    let mut record = manifest(&[(10, 10)]);
    record.guard = Some(Guard::new(10, 2, 2, b"ol"));
    record.insert(Generation { previous_end: Some(4), ..manifest(&[(20, 20)]).last().unwrap().clone() });
    producer.observed(Observed { record, stream: Some(state(2, 1)), ..Observed::default() }, None).unwrap();
    assert_eq!(producer.step(Duration::ZERO).unwrap(), Step::Clock);
    producer.clock(100).unwrap();
    let Step::Record(change) = producer.step(Duration::ZERO).unwrap() else { panic!("it begins the new file") };
    assert_eq!(change.after.last().unwrap().resumes, Some(Position { generation: 10, offset: 2 }));
    let end = Position { generation: change.after.last().unwrap().generation, offset: 4 };
    assert_eq!(change.after.delivered(end).get(&10), Some(&2));
}

#[test]
fn a_content_that_a_foreign_entry_held_up_twice_is_sent_before_the_next_one() {
    let mut producer = Producer::new(options(Partition::WHOLE, Limits::default()), Folder::vacated(b"old\n"));
    producer.step(Duration::ZERO).unwrap();
    // Nothing of it was added yet, in two generations, and another program was faster than both.
    let mut record = manifest(&[(10, 10)]);
    record.insert(Generation { file_id: 10, previous_end: Some(0), ..manifest(&[(20, 20)]).last().unwrap().clone() });
    record.confirmed = Some(Position { generation: 10, offset: 0 });
    let stream = Some(StreamState { last_id: StreamId::new(30, 0), ..state(0, 1) });
    producer.observed(Observed { record, stream, ..Observed::default() }, None).unwrap();
    assert_eq!(producer.step(Duration::ZERO).unwrap(), Step::Clock);
    producer.clock(100).unwrap();
    let Step::Record(change) = producer.step(Duration::ZERO).unwrap() else { panic!("it begins a generation") };
    producer.recorded(*change, true).unwrap();
    assert_eq!(producer.step(Duration::ZERO).unwrap(), Step::Fill);
    let mut sent = Vec::new();
    producer.fill(|entry| sent.push(entry.payload.to_vec())).unwrap();
    assert_eq!(sent, [b"old"]);
}

#[test]
fn a_file_that_was_read_when_the_connection_was_lost_is_still_its_content() {
    let folder = Folder::vacated(b"old\n");
    let mut producer = Producer::new(options(Partition::WHOLE, Limits::default()), folder.clone());
    for _ in 0..2 {
        producer.step(Duration::ZERO).unwrap();
        producer.observed(at_the_end(1), None).unwrap();
        assert_eq!(producer.step(Duration::ZERO).unwrap(), Step::Fill);
        producer.restart();
    }
    // Not the one that the content was begun in: an archive, for example.
    let content = folder.known().contents.remove(0);
    assert_eq!(content.open.map(|file| file.ino), Some(2));
    assert_ne!(content.inode.map(|inode| inode.ino), Some(2));
}

#[test]
fn checks_ask_for_one_generation_after_the_other() {
    let folder = Folder::vacated(b"old\n");
    let mut producer = Producer::new(options(Partition::WHOLE, Limits::default()), folder);
    producer.step(Duration::ZERO).unwrap();
    let record = manifest(&[(10, 10), (20, 20), (30, 30)]);
    producer.observed(Observed { record, stream: Some(state(2, 1)), ..Observed::default() }, None).unwrap();
    let asked: Vec<_> = (0..4).filter_map(|_| producer.expected_at_check().link).collect();
    assert_eq!(asked, ["next:0", "next:10", "next:20", "next:0"]);
}

/// What the file side receives after Redis has answered.
fn after_an_outage(observed: Observed, from_end: bool) -> KnownContents {
    // The input is renamed after the first scan.
    let folder = Folder::new(|nth| {
        let current = match nth {
            1 => Current::Found(Found { key: 1, relation: Relation::New, len: 4 }),
            _ => Current::Missing,
        };
        Identified { current, neighbours: Some(Vec::new()), ..Identified::default() }
    });
    let options = Options { from_end, ..options(Partition::WHOLE, Limits::default()) };
    let mut producer = Producer::new(options, folder.clone());
    producer.look(Duration::ZERO);
    producer.look(Duration::ZERO);
    assert_eq!(folder.asked.borrow().len(), if from_end { 0 } else { 2 }, "it looks until Redis answers");
    producer.observed(observed, None).unwrap();
    producer.look(Duration::ZERO);
    producer.step(Duration::ZERO).unwrap();
    folder.known()
}

#[test]
fn the_input_that_was_there_before_redis_answered_belongs_to_the_source() {
    let known = after_an_outage(Observed::default(), false);
    assert_eq!(known.unknown.iter().map(|file| file.ino).collect::<Vec<_>>(), [1]);
    assert_eq!(known.siblings.neighbours, Some(Vec::new()));
    // Redis knows the source: what was beside the input may be contents of it.
    assert_eq!(after_an_outage(at_the_end(1), false).siblings.neighbours, None);
    // What the input held at the start is to be skipped.
    assert_eq!(after_an_outage(Observed::default(), true).unknown, []);
}
