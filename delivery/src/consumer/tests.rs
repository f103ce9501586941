//! The machine against a stream, a group and a record in memory.

use super::record::output_field;
use super::*;
use crate::manifest::{Generation, Guard, Manifest};
use proptest::prelude::*;

const GROUP: &str = "writers";
const NAME: &str = "one";

fn generation(number: u64, file_id: u64, start: u64) -> Generation {
    Generation {
        generation: number,
        file_id,
        start,
        previous_end: None,
        previous_guard: None,
        resumes: None,
        created: None,
        real_path: None,
        path: "/in".to_owned(),
        dev: 1,
        ino: 2,
        head_len: 3,
        head_hash: crate::hash(b"abc"),
    }
}

/// Everything that the machine talks to.
struct World {
    now: Instant,
    fields: BTreeMap<String, String>,
    entries: Vec<(StreamId, &'static str, &'static str)>,
    last_delivered: StreamId,
    pending: Vec<StreamId>,
    others: Vec<Member>,
    entries_read: Option<u64>,
    /// How idle our consumer was, and since when.
    namesake: Option<(Duration, Instant)>,
    /// Whether somebody reads under our name.
    namesake_is_awake: bool,
    /// Whether the clock of Redis is behind the time of the latest read.
    clock_is_back: bool,
    /// The last ID that somebody has set.
    set_id: StreamId,
    here: Option<(u64, u64)>,
    batch: Batch,
    written: Vec<u8>,
    reports: Vec<Report>,
    foreign: u64,
    redelivered: u64,
    /// The group is not there before the consumer makes it.
    makes_group: bool,
    read_after: StreamId,
    ahead: Option<Vec<usize>>,
    on_hand: Vec<usize>,
    pauses: u32,
    largest_count: u64,
    lease: Option<Lease>,
    checkpoint: Option<Checkpoint>,
    /// The result of the latest move of the group.
    moved: Option<Moved>,
    is_restarted: bool,
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            now: Instant::now(),
            fields: BTreeMap::new(),
            entries: Vec::new(),
            last_delivered: StreamId::ZERO,
            pending: Vec::new(),
            others: Vec::new(),
            entries_read: None,
            namesake: None,
            namesake_is_awake: false,
            clock_is_back: false,
            set_id: StreamId::ZERO,
            here: None,
            batch: Batch::default(),
            written: Vec::new(),
            reports: Vec::new(),
            foreign: 0,
            redelivered: 0,
            makes_group: false,
            read_after: StreamId::ZERO,
            ahead: None,
            on_hand: Vec::new(),
            pauses: 0,
            largest_count: 0,
            lease: None,
            checkpoint: None,
            moved: None,
            is_restarted: false,
        };
        world.begin(0, &generation(5, 5, 0));
        world
    }

    fn begin(&mut self, predecessor: u64, generation: &Generation) {
        self.fields.insert(format!("next:{predecessor}"), serde_json::to_string(generation).unwrap());
    }

    /// Adds lines of four bytes to generation 5.
    fn add(&mut self, lines: u64) {
        for _ in 0..lines {
            let end = self.entries.last().map_or(0, |(id, ..)| id.seq) + 4;
            self.entries.push((StreamId::new(5, end), "line", "abc"));
        }
        let end = self.entries.last().map_or(0, |(id, ..)| id.seq);
        self.fields.insert("guard".to_owned(), serde_json::to_string(&Guard::new(5, end, end, b"")).unwrap());
    }

    fn record(&self) -> Record {
        Record::read(self.fields.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())), GROUP, NAME)
    }

    fn notes(&self) -> Notes {
        Notes::read(Notes::fields(GROUP, NAME).iter().map(|field| self.fields.get(field).map(String::as_bytes)))
    }

    fn view(&self) -> GroupView {
        let mut members = self.others.clone();
        if let Some((idle, since)) = self.namesake {
            let idle = match self.namesake_is_awake {
                true => Duration::from_millis(1),
                false if self.clock_is_back => Duration::ZERO,
                false => idle + (self.now - since),
            };
            members.push(Member { name: NAME.into(), pending: self.pending.len() as u64, idle });
        }
        GroupView {
            asked_at: self.now,
            last_delivered: self.last_delivered,
            lag: None,
            entries_read: self.entries_read,
            members,
            notes: self.notes(),
            lease: self.lease.clone(),
        }
    }

    /// What a read brings: places in `entries`.
    fn read(&mut self, pending: bool, behind: Option<StreamId>, count: u64) -> Vec<usize> {
        self.largest_count = self.largest_count.max(count);
        if let Some(behind) = behind {
            let new = (0..self.entries.len()).filter(|&nth| self.entries[nth].0 > behind);
            return new.take(usize::try_from(count).unwrap()).collect();
        }
        let is_wanted = |id: StreamId| match pending {
            true => self.pending.contains(&id) && id > self.read_after,
            false => id > self.last_delivered,
        };
        let count = usize::try_from(count).unwrap();
        let found: Vec<usize> =
            (0..self.entries.len()).filter(|&nth| is_wanted(self.entries[nth].0)).take(count).collect();
        if let Some(&last) = found.last() {
            self.read_after = self.entries[last].0;
            if !pending {
                self.last_delivered = self.entries[last].0;
                self.pending.extend(found.iter().map(|&nth| self.entries[nth].0));
            }
        }
        found
    }

    /// Performs effects until it refuses, is done, reads new entries in vain, or waits for the
    /// tenth time.
    fn drive(&mut self, consumer: &mut Consumer) -> Option<Refusal> {
        self.drive_until(consumer, |_, _| false)
    }

    /// As [`drive`](Self::drive), and until `is_enough`.
    fn drive_until(
        &mut self,
        consumer: &mut Consumer,
        mut is_enough: impl FnMut(&Self, &Effect) -> bool,
    ) -> Option<Refusal> {
        loop {
            self.now += Duration::from_millis(20);
            let now = self.now;
            let effect = consumer.next(now);
            if is_enough(self, &effect) {
                break;
            }
            match effect {
                Effect::Reconnect => {
                    consumer.connected(now);
                    (self.read_after, self.ahead) = (StreamId::ZERO, None);
                }
                Effect::LoadRecord => consumer.record_loaded(self.record(), self.here),
                Effect::MakeGroup => consumer.group_made(self.makes_group),
                Effect::InspectGroup => consumer.group_inspected(&self.view(), now),
                Effect::Join => consumer.joined(),
                Effect::ReadNotes => consumer.notes_read(&self.notes(), now),
                Effect::WriteNotes(changes) => {
                    let mut is_claimed = true;
                    for change in changes {
                        match change {
                            Change::Claim(field, _) if self.fields.contains_key(&field) => is_claimed = false,
                            Change::Claim(field, value) | Change::Set(field, value) => {
                                self.fields.insert(field, value);
                            }
                            Change::Remove(field) => {
                                self.fields.remove(&field);
                            }
                        }
                    }
                    consumer.notes_written(is_claimed, now);
                }
                Effect::Pause(time) => {
                    self.now += time;
                    self.pauses += 1;
                    if self.pauses.is_multiple_of(10) {
                        break;
                    }
                }
                Effect::ReadLease => consumer.lease_read(self.lease.clone(), now),
                Effect::WriteLease { seen, lease } => {
                    let is_as_seen = self.lease == seen;
                    if is_as_seen {
                        self.lease = lease;
                    }
                    consumer.lease_written(is_as_seen, now);
                }
                Effect::Restart => {
                    self.is_restarted = true;
                    break;
                }
                Effect::ReadAhead { behind, count } => self.ahead = Some(self.read(false, behind, count)),
                Effect::Read { pending, behind, count, block } => {
                    let found = self.ahead.take().unwrap_or_else(|| self.read(pending, behind, count));
                    let is_idle = found.is_empty() && block.is_some() && self.now_judged(consumer);
                    self.deliver(consumer, found);
                    if is_idle {
                        break;
                    }
                }
                Effect::Drain => {
                    let found = self.ahead.take().unwrap_or_default();
                    self.deliver(consumer, found);
                }
                Effect::Claim { .. } => consumer.claimed(0, StreamId::ZERO),
                Effect::Take => {
                    let rest = self.on_hand.iter().map(|&nth| {
                        let (id, field, payload) = self.entries[nth];
                        (id, Some([(field.as_bytes(), payload.as_bytes())].into_iter()))
                    });
                    let taken = consumer.take(rest, &mut self.batch);
                    self.on_hand.drain(..taken.entries);
                    self.foreign += taken.foreign;
                    self.redelivered += taken.redelivered;
                }
                Effect::HandOver { .. } => {
                    self.written.extend_from_slice(&self.batch.data);
                    let ids = std::mem::take(&mut self.batch.ids);
                    self.pending.retain(|id| !ids.contains(id));
                    if let Some(advance) = self.batch.advance {
                        self.advance(consumer, &advance);
                    }
                    self.batch.clear();
                    consumer.handed_over(now);
                }
                Effect::ReadLastId => {
                    let last = self.entries.last().map_or(StreamId::ZERO, |(id, ..)| *id);
                    consumer.last_id(last.max(self.set_id));
                }
                Effect::Refuse(refusal) => {
                    self.reports.extend(consumer.take_reports());
                    return Some(refusal);
                }
                Effect::Done => break,
            }
        }
        self.reports.extend(consumer.take_reports());
        None
    }

    /// Moves the group as the stage that acknowledges does.
    fn advance(&mut self, consumer: &Consumer, advance: &Advance) {
        let Some(session) = consumer.session() else { return };
        if self.checkpoint.as_ref().is_none_or(|checkpoint| checkpoint.session() != session.number) {
            let mut checkpoint = Checkpoint::new(session.clone());
            if !checkpoint.watched(self.lease.as_ref()) {
                self.moved = Some(Moved::Lost);
                return;
            }
            self.checkpoint = Some(checkpoint);
        }
        let checkpoint = self.checkpoint.as_mut().unwrap();
        checkpoint.advance(advance);
        while let Some(step) = checkpoint.next(self.now) {
            let is_mine = self.lease.as_ref().is_some_and(|lease| lease.is_of(&session.lease));
            if is_mine {
                self.lease = step.renew.clone().or_else(|| self.lease.take());
                if let Some((at, read)) = step.group {
                    (self.last_delivered, self.entries_read) = (at, read);
                }
            }
            self.moved = Some(checkpoint.done(&step, self.now, is_mine, self.lease.as_ref()));
            if self.moved == Some(Moved::Lost) {
                return;
            }
        }
    }

    fn now_judged(&self, consumer: &Consumer) -> bool {
        matches!(consumer.idle, Idle::Judged(..))
    }

    fn deliver(&mut self, consumer: &mut Consumer, found: Vec<usize>) {
        let last = found.last().map(|&nth| self.entries[nth]);
        consumer.delivered(
            Reply {
                entries: found.len() as u64,
                last: last.map_or(StreamId::ZERO, |(id, ..)| id),
                last_size: last.map_or(0, |(.., payload)| payload.len()),
            },
            self.now,
        );
        self.on_hand = found;
    }

    fn gaps(&self) -> Vec<Span> {
        let gap = |report: &Report| match report {
            Report::Gap(gap, _) => Some(gap.span.clone()),
            _ => None,
        };
        self.reports.iter().filter_map(gap).collect()
    }
}

fn settings(held: Span) -> Settings {
    let mut ranges = BTreeMap::new();
    if !held.is_empty() {
        ranges.entry(5).or_insert_with(RangeSet::new).insert(held);
    }
    Settings {
        group: GROUP.to_owned(),
        consumer: NAME.to_owned(),
        output: Output { id: "a".to_owned(), held: ranges, ..Output::default() },
        ..Settings::default()
    }
}

fn consumer(held: Span) -> Consumer {
    Consumer::new(Partition::WHOLE, settings(held))
}

/// A writer that held the first ten lines, noted its output, and ended.
fn ended(world: &mut World) {
    world.add(10);
    world.last_delivered = StreamId::new(5, 40);
    world.fields.insert(output_field(GROUP, NAME), "a".to_owned());
}

#[test]
fn everything_is_written_once_and_then_it_waits() {
    let mut world = World::new();
    world.add(5000);
    let mut one = consumer(0..0);
    assert_eq!(world.drive(&mut one), None);
    assert_eq!((world.written.len(), world.pending.len()), (20_000, 0));
    assert_eq!((world.gaps(), world.largest_count), (vec![], MAX_COUNT));
    assert_eq!(world.fields.get("output:writers:one").map(String::as_str), Some("a"));
    world.add(3);
    assert_eq!(world.drive(&mut one), None);
    assert_eq!(world.written.len(), 20_012);
    one.stop();
    assert_eq!(world.drive(&mut one), None);
    assert_eq!(one.next(world.now), Effect::Done);
}

#[test]
fn once_ends_when_nothing_is_left() {
    let mut world = World::new();
    world.add(20);
    let mut one = Consumer::new(Partition::WHOLE, Settings { once: true, ..settings(0..0) });
    assert_eq!(world.drive(&mut one), None);
    assert_eq!((world.written.len(), one.next(world.now)), (80, Effect::Done));
}

#[test]
fn entries_wait_for_a_missing_record_and_are_written_when_it_is_back() {
    let mut world = World::new();
    world.add(100);
    let kept = std::mem::take(&mut world.fields);
    let mut one = consumer(0..0);
    assert_eq!(world.drive(&mut one), None);
    assert_eq!((world.written.len(), world.foreign), (0, 0));
    assert!(!world.pending.is_empty(), "they stay pending");
    assert_eq!(world.reports, [Report::WaitsForRecord(StreamId::new(5, 4))], "reported once");
    world.fields.extend(kept);
    assert_eq!(world.drive(&mut one), None);
    assert_eq!((world.written.len(), world.pending.len(), world.gaps()), (400, 0, vec![]));
    assert!(world.reports.contains(&Report::RecordComplete));
}

#[test]
fn once_refuses_an_incomplete_record() {
    let mut world = World::new();
    world.add(100);
    world.fields.clear();
    let mut one = Consumer::new(Partition::WHOLE, Settings { once: true, ..settings(0..0) });
    assert_eq!(world.drive(&mut one), Some(Refusal::RecordIncomplete(StreamId::new(5, 4))));
    assert!(!world.pending.is_empty() && world.written.is_empty());
}

#[test]
fn a_foreign_entry_of_our_form_is_foreign_only_when_the_record_is_complete() {
    let mut world = World::new();
    world.add(3);
    world.entries.push((StreamId::new(8, 4), "line", "xyz"));
    world.entries.push((StreamId::new(9, 0), "line", "no position"));
    assert_eq!(world.drive(&mut consumer(0..0)), None);
    assert_eq!((world.written.len(), world.foreign), (12, 2));
}

#[test]
fn the_record_says_which_generations_it_may_have_lost() {
    let mut world = World::new();
    world.begin(5, &generation(7, 7, 0));
    world.begin(7, &generation(9, 9, 0));
    let judge = |world: &World, number| world.record().judge(number);
    assert_eq!([4, 6, 8, 10].map(|number| judge(&world, number)), [Verdict::Foreign; 4]);
    assert_eq!(judge(&world, 7), Verdict::Known);
    world.fields.remove("next:5");
    assert_eq!([6, 7, 8].map(|number| judge(&world, number)), [Verdict::Missing; 3], "a hole");
    assert_eq!(judge(&world, 10), Verdict::Foreign);
    world.begin(5, &generation(7, 7, 0));
    world.fields.remove("next:0");
    assert_eq!((judge(&world, 5), judge(&world, 8)), (Verdict::Missing, Verdict::Foreign), "the oldest is forgotten");
    world.begin(0, &generation(5, 5, 0));
    world.fields.remove("next:7");
    let guard = Guard::new(9, 1, 1, b"");
    world.fields.insert("guard".to_owned(), serde_json::to_string(&guard).unwrap());
    assert_eq!([9, 10].map(|number| judge(&world, number)), [Verdict::Missing; 2], "the guard names one that is gone");
    world.fields.insert("next:9".to_owned(), "junk".to_owned());
    assert!(world.record().complaint.is_some());
    assert_eq!(Record::default().judge(5), Verdict::Foreign);
    assert_eq!(Record::read([], GROUP, NAME).judge(5), Verdict::Missing, "no record at all");
}

#[test]
fn what_was_delivered_and_nobody_has_is_a_gap_once() {
    let mut world = World::new();
    ended(&mut world);
    world.add(10);
    world.last_delivered = StreamId::new(5, 80);
    let mut one = consumer(0..40);
    assert_eq!(world.drive(&mut one), None);
    assert_eq!(world.gaps(), [40..80]);
    world.reports.clear();
    assert_eq!(world.drive(&mut consumer(0..40)), None);
    assert_eq!(world.gaps(), [], "reported before");
    world.add(1);
    assert_eq!(world.drive(&mut consumer(0..40)), None);
    assert_eq!((world.gaps(), world.written.len()), (vec![], 4));
}

#[test]
fn what_the_record_does_not_show_yet_is_looked_at_after_a_restart() {
    let mut world = World::new();
    ended(&mut world);
    world.add(5);
    let older = world.fields["guard"].clone();
    world.add(5);
    let newer = world.fields.insert("guard".to_owned(), older).unwrap();
    // Somebody has moved the group behind entries that the record, which was read before, lacks.
    world.last_delivered = StreamId::new(5, 80);
    assert_eq!(world.drive(&mut consumer(0..40)), None);
    assert_eq!((world.gaps(), world.notes().shared), (vec![40..60], Some(StreamId::new(5, 60))));
    world.reports.clear();
    world.fields.insert("guard".to_owned(), newer);
    assert_eq!(world.drive(&mut consumer(0..40)), None);
    assert_eq!(world.gaps(), [60..80]);
}

#[test]
fn what_is_pending_or_was_reported_as_lost_is_no_gap() {
    let mut world = World::new();
    ended(&mut world);
    world.add(10);
    world.last_delivered = StreamId::new(5, 80);
    world.pending = (11..=15).map(|line| StreamId::new(5, 4 * line)).collect();
    let mut settings = settings(0..40);
    settings.output.lost = vec![(5, 70..80)];
    assert_eq!(world.drive(&mut Consumer::new(Partition::WHOLE, settings)), None);
    assert_eq!((world.gaps(), world.written.len()), (vec![60..70], 20));
}

#[test]
fn what_others_may_have_is_no_gap() {
    for shared in [StreamId::MAX, StreamId::new(5, 80)] {
        let mut world = World::new();
        ended(&mut world);
        world.add(10);
        world.last_delivered = StreamId::new(5, 80);
        world.fields.insert(shared_field(GROUP), shared.to_string());
        assert_eq!(world.drive(&mut consumer(0..40)), None);
        assert_eq!(world.gaps(), []);
        assert_eq!(world.notes().shared, Some(StreamId::new(5, 80)), "it is alone from here on");
    }
    // Another writer had these entries before this one came, also when this one is started again.
    for held in [0..0, 0..40] {
        let mut world = moved_on();
        world.fields.remove(&output_field(GROUP, NAME));
        world.fields.insert(output_field(GROUP, "two"), "b".to_owned());
        for _ in 0..2 {
            assert_eq!(world.drive(&mut consumer(held.clone())), None);
            assert_eq!((world.gaps(), world.notes().shared), (vec![], Some(StreamId::new(5, 80))));
        }
    }
    // A group that another writer created for a new output.
    let mut world = moved_on();
    world.fields.remove(&output_field(GROUP, NAME));
    assert_eq!(world.drive(&mut consumer(0..0)), None);
    assert_eq!(world.gaps(), []);
}

/// A writer that held the first ten lines and is down; the group is ten lines ahead.
fn moved_on() -> World {
    let mut world = World::new();
    ended(&mut world);
    world.add(10);
    world.last_delivered = StreamId::new(5, 80);
    world
}

#[test]
fn what_was_delivered_before_anything_was_written_is_a_gap() {
    let mut world = moved_on();
    world.pending = vec![StreamId::new(5, 12)];
    assert_eq!(world.drive(&mut consumer(0..0)), None);
    assert_eq!((world.gaps(), world.written.len()), (vec![0..8, 12..80], 4));
    // The group was moved before the writer that created it read it.
    let mut world = moved_on();
    world.fields.remove(&output_field(GROUP, NAME));
    world.makes_group = true;
    assert_eq!(world.drive(&mut consumer(0..0)), None);
    assert_eq!(world.gaps(), [0..80]);
}

#[test]
fn what_was_delivered_is_a_gap_when_the_notes_are_gone_or_name_the_output_otherwise() {
    for former in [None, Some("an-old-host")] {
        let mut world = moved_on();
        world.fields.remove(&output_field(GROUP, NAME));
        if let Some(former) = former {
            world.fields.insert(output_field(GROUP, former), "a".to_owned());
        }
        assert_eq!(world.drive(&mut consumer(0..40)), None);
        assert_eq!(world.gaps(), [40..80]);
        assert_eq!(world.drive(&mut consumer(0..40)), None);
        assert_eq!(world.gaps(), [40..80], "once");
    }
}

#[test]
fn what_was_delivered_while_the_record_was_lost_is_a_gap_when_it_is_back() {
    let mut world = moved_on();
    let kept = std::mem::take(&mut world.fields);
    let mut one = consumer(0..40);
    assert_eq!(world.drive(&mut one), None);
    assert_eq!(world.gaps(), []);
    world.fields = kept;
    world.add(1);
    assert_eq!(world.drive(&mut one), None);
    assert_eq!((world.gaps(), world.written.len()), (vec![40..80], 4));
}

#[test]
fn what_the_output_has_of_a_later_generation_hides_no_gap_in_an_earlier_one() {
    // Foreign entries made the reader send the content again, and the group has only got to 80 in
    // the first generation: the end of the output is there, too.
    let mut world = moved_on();
    world.begin(5, &generation(6, 5, 0));
    world.add(0);
    assert_eq!(world.drive(&mut consumer(0..40)), None);
    assert_eq!(world.gaps(), [40..80]);
    // The group was moved over what the output lacks, and not over what it has behind that.
    let mut world = moved_on();
    world.last_delivered = StreamId::new(5, 60);
    let mut settings = settings(0..40);
    settings.output.held.entry(5).or_default().insert(70..80);
    assert_eq!(world.drive(&mut Consumer::new(Partition::WHOLE, settings)), None);
    assert_eq!(world.gaps(), [40..60]);
}

#[test]
fn a_hole_between_entries_that_come_again_is_a_gap() {
    // Entry 44 was deleted before it was delivered; its neighbours were never taken.
    for held in [0, 36] {
        let mut world = moved_on();
        world.entries.retain(|(id, ..)| id.seq != 44);
        world.pending = world.entries.iter().map(|(id, ..)| *id).filter(|id| id.seq > held).collect();
        assert_eq!(world.drive(&mut consumer(0..held)), None);
        assert_eq!((world.gaps(), world.written.len() as u64), (vec![40..44], 76 - held));
    }
}

#[test]
fn entries_count_as_idle_from_when_they_were_asked_for() {
    let mut world = World::new();
    world.add(5000);
    let mut one = consumer(0..0);
    let (mut sent_at, mut ahead_at, mut seen) = (None, None, 0);
    world.drive_until(&mut one, |world, effect| {
        match effect {
            Effect::ReadAhead { .. } => ahead_at = Some(world.now),
            Effect::Read { .. } => sent_at = ahead_at.take().or(Some(world.now)),
            Effect::HandOver { .. } if !world.batch.ids.is_empty() => {
                assert_eq!(world.batch.came_at, sent_at);
                seen += 1;
            }
            _ => {}
        }
        seen > 5
    });
    assert!(seen > 5);
}

#[test]
fn others_are_noted_when_they_come_and_when_they_go() {
    let mut world = World::new();
    world.add(10);
    let mut one = consumer(0..0);
    world.others.push(Member { name: b"two".to_vec(), pending: 1, idle: Duration::ZERO });
    assert_eq!(world.drive(&mut one), None);
    assert_eq!(world.notes().shared, Some(StreamId::MAX));
    world.others.clear();
    world.now += group::GONE;
    one.group_observed(&world.view(), world.now);
    world.add(1);
    assert_eq!(world.drive(&mut one), None);
    assert_eq!(world.notes().shared, Some(StreamId::new(5, 40)));
}

#[test]
fn an_output_is_noted_only_when_the_group_knows_its_consumer() {
    let mut world = World::new();
    let mut one = consumer(0..0);
    world.drive_until(&mut one, |world, effect| {
        assert!(world.notes().output.is_none(), "noted");
        *effect == Effect::Join
    });
    // Another one read and left.
    world.add(10);
    world.last_delivered = StreamId::new(5, 40);
    assert_eq!(world.drive(&mut one), None);
    assert_eq!(world.notes().shared, Some(StreamId::new(5, 40)));
    // A writer that begins only now cannot be sure that no other consumer received these entries.
    assert_eq!(world.drive(&mut consumer(0..0)), None);
    assert_eq!(world.gaps(), []);
}

#[test]
fn an_id_of_somebody_else_in_the_present_generation_is_no_gap() {
    let mut world = World::new();
    world.add(10);
    let mut one = consumer(0..0);
    world.set_id = StreamId::new(5, 90);
    assert_eq!(world.drive(&mut one), None);
    assert_eq!((world.gaps(), world.written.len()), (vec![], 40), "XSETID");
    // A foreign entry that was deleted while it was pending.
    world.entries.push((StreamId::new(5, 70), "message", "abc"));
    world.pending = vec![StreamId::new(5, 70)];
    world.last_delivered = StreamId::new(5, 70);
    world.entries.pop();
    assert_eq!(world.drive(&mut consumer(0..40)), None);
    assert_eq!(world.gaps(), []);
    // Entries of ours that somebody deleted are still a gap.
    (world.last_delivered, world.pending) = (StreamId::new(5, 40), Vec::new());
    world.add(2);
    let end = world.entries.pop().map(|(id, ..)| id);
    world.set_id = StreamId::new(5, 90);
    assert_eq!(end, Some(StreamId::new(5, 48)));
    assert_eq!(world.drive(&mut consumer(0..40)), None);
    assert_eq!(world.gaps(), [44..48]);
}

#[test]
fn what_is_missing_before_a_pending_entry_is_reported_before_that_is_written() {
    let mut world = World::new();
    ended(&mut world);
    world.add(10);
    world.last_delivered = StreamId::new(5, 80);
    world.pending = vec![StreamId::new(5, 60)];
    let mut one = consumer(0..40);
    world.drive_until(&mut one, |world, effect| {
        matches!(effect, Effect::HandOver { .. }) && !world.batch.data.is_empty()
    });
    assert_eq!(world.gaps(), [40..56]);
    assert_eq!(world.drive(&mut one), None);
    assert_eq!(world.gaps(), [40..56, 60..80]);
}

#[test]
fn a_group_moved_far_forward_is_a_gap_up_to_where_the_reader_is() {
    let mut world = World::new();
    ended(&mut world);
    world.add(10);
    world.last_delivered = StreamId::MAX;
    let mut one = consumer(0..40);
    assert_eq!(world.drive(&mut one), None);
    assert_eq!(world.gaps(), [40..80]);
    world.reports.clear();
    world.add(5);
    world.now += Duration::from_secs(1);
    assert_eq!(world.drive(&mut one), None);
    assert_eq!(world.gaps(), [80..100], "and so is what comes later");
}

#[test]
fn a_namesake_is_refused_when_it_is_alive_and_replaced_when_it_is_not() {
    let mut world = World::new();
    world.add(10);
    world.fields.insert(output_field(GROUP, NAME), "another".to_owned());
    world.namesake = Some((Duration::from_secs(1), world.now));
    world.namesake_is_awake = true;
    assert_eq!(world.drive(&mut consumer(0..0)), Some(Refusal::NameTaken));
    assert_eq!((world.last_delivered, world.pauses), (StreamId::ZERO, 2), "nothing was read");
    world.namesake_is_awake = false;
    world.pauses = 0;
    let mut one = consumer(0..0);
    assert_eq!(world.drive(&mut one), None);
    assert!((5..10).contains(&world.pauses), "{}", world.pauses);
    assert!(world.reports.contains(&Report::NameTakenOver));
    assert_eq!((world.notes().output.as_deref(), world.written.len()), (Some("a"), 40));
    // Then that one comes back.
    world.fields.insert(output_field(GROUP, NAME), "another".to_owned());
    world.now += Duration::from_secs(1);
    one.group_observed(&world.view(), world.now);
    assert_eq!(world.drive(&mut one), Some(Refusal::NameLost));
}

#[test]
fn a_clock_of_redis_that_is_set_back_does_not_look_like_a_namesake() {
    let mut world = World::new();
    world.add(10);
    world.fields.insert(output_field(GROUP, NAME), "another".to_owned());
    // Far back: everybody seems to have read just now, again and again.
    world.namesake = Some((Duration::from_secs(1), world.now));
    world.clock_is_back = true;
    let mut one = consumer(0..0);
    for _ in 0..3 {
        assert_eq!(world.drive(&mut one), None);
    }
    assert_eq!((world.pauses, world.written.len()), (PROBES, 40));
    // A little, once.
    let mut world = World::new();
    world.add(10);
    world.fields.insert(output_field(GROUP, NAME), "another".to_owned());
    world.namesake = Some((Duration::from_secs(3), world.now));
    let mut one = consumer(0..0);
    world.drive_until(&mut one, |world, effect| world.pauses == 1 && *effect == Effect::InspectGroup);
    world.namesake = Some((Duration::from_secs(1), world.now));
    assert_eq!(world.drive(&mut one), None);
    assert_eq!(world.written.len(), 40);
}

#[test]
fn its_own_restart_waits_for_nobody() {
    let mut world = World::new();
    ended(&mut world);
    world.namesake = Some((Duration::ZERO, world.now));
    world.namesake_is_awake = true;
    assert_eq!((world.drive(&mut consumer(0..40)), world.pauses), (None, 0));
    // After a rotation of the output, too.
    let mut settings = settings(0..40);
    (settings.output.id, settings.output.former) = ("b".to_owned(), vec!["a".to_owned()]);
    assert_eq!((world.drive(&mut Consumer::new(Partition::WHOLE, settings)), world.pauses), (None, 0));
    assert_eq!(world.notes().output.as_deref(), Some("b"));
}

#[test]
fn a_view_from_before_the_name_was_taken_over_does_not_count() {
    let mut world = World::new();
    world.add(1);
    world.fields.insert(output_field(GROUP, NAME), "another".to_owned());
    let before = world.view();
    let mut one = consumer(0..0);
    assert_eq!(world.drive(&mut one), None);
    one.group_observed(&before, world.now);
    assert_eq!(world.drive(&mut one), None);
}

#[test]
fn an_output_that_is_the_input_is_refused_before_anything_is_read() {
    let refusal = |file: FileIdentity, here| {
        let mut world = World::new();
        world.add(1);
        world.here = here;
        let mut settings = settings(0..0);
        settings.output.file = file;
        let refusal = world.drive(&mut Consumer::new(Partition::WHOLE, settings));
        assert!(refusal.is_none() || world.last_delivered == StreamId::ZERO);
        refusal
    };
    let file = |ino, head: &[u8]| FileIdentity { dev: 1, ino, head: head.to_vec() };
    assert_eq!(refusal(file(2, b"abcdef"), Some((1, 2))), Some(Refusal::OutputIsInput("/in".to_owned())));
    assert_eq!(refusal(file(2, b"abcdef"), None), None, "another host, whose numbers happen to be the same");
    assert_eq!(refusal(file(2, b"xyz"), Some((1, 2))), None, "the number was used again");
    assert_eq!(refusal(file(3, b"abcdef"), Some((1, 2))), None);
}

#[test]
fn a_missing_journal_is_refused_when_entries_were_delivered() {
    let refusal = |last: u64, has_others: bool, pending: u64| {
        let mut world = World::new();
        world.add(10);
        world.entries_read = Some(last / 4);
        world.pending = (1..=pending).map(|line| StreamId::new(5, 4 * line)).collect();
        world.namesake = Some((Duration::ZERO, world.now)).filter(|_| pending > 0);
        world.last_delivered = StreamId::new(if last > 0 { 5 } else { 0 }, last);
        if has_others {
            world.others.push(Member { name: b"two".to_vec(), pending: 1, idle: Duration::ZERO });
        }
        let mut settings = settings(0..0);
        settings.output.journal_is_missing = true;
        world.drive(&mut Consumer::new(Partition::WHOLE, settings))
    };
    assert_eq!(refusal(20, false, 0), Some(Refusal::JournalMissing));
    assert_eq!(refusal(20, true, 0), None, "the others had them");
    assert_eq!(refusal(0, false, 0), None, "a new group");
    assert_eq!(refusal(20, false, 5), None, "nothing was acknowledged: all of it comes again");
    assert_eq!(refusal(20, false, 4), Some(Refusal::JournalMissing));
}

#[test]
fn a_journal_that_lacks_what_was_acknowledged_is_refused() {
    let refusal = |held: Span, pending: u64, shared: Option<u64>| {
        let mut world = World::new();
        ended(&mut world);
        world.pending = (10 - pending + 1..=10).map(|line| StreamId::new(5, 4 * line)).collect();
        world.namesake = Some((Duration::ZERO, world.now)).filter(|_| pending > 0);
        let note = shared.map(|seq| (shared_field(GROUP), StreamId::new(5, seq).to_string()));
        world.fields.extend(note);
        let mut settings = settings(held);
        settings.output.has_unknown_tail = true;
        world.drive(&mut Consumer::new(Partition::WHOLE, settings))
    };
    assert_eq!(refusal(0..20, 0, None), Some(Refusal::JournalOlder));
    assert_eq!(refusal(0..40, 0, None), None, "all that was acknowledged is there");
    assert_eq!(refusal(0..20, 5, None), None, "an unfinished commit comes again");
    assert_eq!(refusal(0..20, 0, Some(40)), None, "another writer may have had it");
}

#[test]
fn another_number_of_partitions_is_refused() {
    let mut world = World::new();
    world.fields.insert("partitions".to_owned(), "3".to_owned());
    let mut one = Consumer::new(Partition::WHOLE, Settings { partitions: Some(1), ..settings(0..0) });
    assert_eq!(world.drive(&mut one), Some(Refusal::OtherPartitions(3)));
}

#[test]
fn names_that_are_gone_are_removed_when_there_are_many() {
    let mut world = World::new();
    for number in 0..=NAMES {
        world.fields.insert(output_field(GROUP, &format!("gone-{number}")), "x".to_owned());
    }
    world.others.push(Member { name: b"gone-3".to_vec(), pending: 0, idle: group::GONE });
    assert_eq!(world.drive(&mut consumer(0..0)), None);
    let names: Vec<String> = world.record().names.into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["gone-3", NAME], "those that are still there stay");
}

#[test]
fn a_large_reply_is_handed_over_in_parts() {
    let line: &'static str = Box::leak("x".repeat(1 << 20).into_boxed_str());
    let mut one = consumer(0..0);
    one.record_loaded(Record::default(), None);
    one.dedup.learn(&{
        let mut manifest = Manifest::default();
        manifest.insert(generation(5, 5, 0));
        manifest
    });
    (one.phase, one.origin) = (Phase::Take { is_fresh: false }, Origin::New);
    let entry = |nth: u64| {
        let fields = [(&b"line"[..], line.as_bytes())];
        (StreamId::new(5, (nth + 1) * ((1 << 20) + 1)), Some(fields.into_iter()))
    };
    let (mut batch, mut taken) = (Batch::default(), 0);
    while taken < 20 {
        let now = Instant::now();
        assert_eq!(one.next(now), Effect::Take);
        taken += one.take((taken..20).map(entry), &mut batch).entries as u64;
        assert!(batch.data.len() <= SPLIT + 2 * line.len());
        assert!(matches!(one.next(now), Effect::HandOver { .. }));
        batch.clear();
        one.handed_over(now);
    }
}

#[derive(Debug, Clone)]
enum Event {
    Add(u64),
    Run,
    /// Killed: what was handed over is in the output, and what was not acknowledged is pending.
    Restart,
    MoveBack(u64),
    LoseRecord,
    RestoreRecord,
    Foreign,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        (1u64..30).prop_map(Event::Add),
        Just(Event::Run),
        Just(Event::Restart),
        (0u64..60).prop_map(Event::MoveBack),
        Just(Event::LoseRecord),
        Just(Event::RestoreRecord),
        Just(Event::Foreign),
    ];
    proptest::collection::vec(event, 1..40)
}

proptest! {
    #[test]
    fn whatever_happens_every_line_is_written_once(events in events()) {
        let mut world = World::new();
        let mut one = consumer(0..0);
        let mut kept = BTreeMap::new();
        let mut lines = 0;
        let mut foreign = 0;
        for event in events.into_iter().chain([Event::RestoreRecord, Event::Run, Event::Run]) {
            match event {
                Event::Add(count) if kept.is_empty() => {
                    // Foreign entries have larger IDs, so lines are added only before the first of
                    // them.
                    if foreign == 0 {
                        world.add(count);
                        lines += count;
                    }
                }
                Event::Run => prop_assert_eq!(world.drive(&mut one), None),
                Event::Restart => {
                    world.batch.clear();
                    one = consumer(0..world.written.len() as u64);
                }
                Event::MoveBack(to) => {
                    world.last_delivered = world.last_delivered.min(StreamId::new(5, 4 * to.min(lines)));
                }
                Event::LoseRecord if kept.is_empty() => kept = std::mem::take(&mut world.fields),
                Event::RestoreRecord => {
                    for (field, value) in std::mem::take(&mut kept) {
                        world.fields.entry(field).or_insert(value);
                    }
                }
                Event::Foreign => {
                    foreign += 1;
                    world.entries.push((StreamId::new(6, 8 * foreign), "line", "xyz"));
                }
                Event::Add(_) | Event::LoseRecord => {}
            }
        }
        prop_assert_eq!(world.written.len() as u64, 4 * lines);
        prop_assert!(world.pending.is_empty());
        prop_assert_eq!(world.gaps(), Vec::<Span>::new());
        prop_assert!(world.foreign >= foreign);
    }
}

fn exclusive(token: &str, held: Span) -> Settings {
    let consume = Consumption::Exclusive { token: token.to_owned(), lease: lease::LEASE };
    Settings { consume, ..settings(held) }
}

/// A writer with another output, which has the lease.
fn other_lease(renewals: u64) -> Option<Lease> {
    let text = |text: &str| text.to_owned();
    Some(Lease { consumer: text("two"), output: text("b"), token: text("t2"), renewals, time: lease::LEASE })
}

#[test]
fn an_exclusive_consumer_moves_the_group_and_leaves_nothing_pending() {
    let mut world = World::new();
    world.entries_read = Some(0);
    world.add(5000);
    let mut one = Consumer::new(Partition::WHOLE, exclusive("t1", 0..0));
    assert_eq!(world.drive(&mut one), None);
    assert_eq!((world.written.len(), world.pending.len(), world.gaps()), (20_000, 0, vec![]));
    assert_eq!((world.last_delivered, world.entries_read), (StreamId::new(5, 20_000), Some(5000)));
    world.add(3);
    assert_eq!(world.drive(&mut one), None);
    assert_eq!((world.written.len(), world.entries_read), (20_012, Some(5003)));
    assert!(!world.reports.iter().any(|report| !matches!(report, Report::GapsReported)), "{:?}", world.reports);
}

#[test]
fn both_modes_follow_each_other_at_any_restart() {
    let mut world = World::new();
    world.add(10);
    let mut group = consumer(0..0);
    // It is killed with entries pending.
    world.drive_until(&mut group, |world, effect| matches!(effect, Effect::HandOver { .. }) && world.pending.len() > 4);
    let written = world.written.len() as u64;
    world.on_hand.clear();
    world.batch.clear();
    assert!(!world.pending.is_empty());
    let mut alone = Consumer::new(Partition::WHOLE, exclusive("t1", 0..written));
    assert_eq!(world.drive(&mut alone), None);
    assert_eq!((world.written.len(), world.pending.len(), world.gaps()), (40, 0, vec![]));
    // It is killed with entries that are written and of which the group does not know.
    world.add(10);
    let before = world.last_delivered;
    assert_eq!(world.drive(&mut alone), None);
    world.last_delivered = before;
    assert!(world.lease.is_some(), "it did not give the lease back");
    let mut group = consumer(0..80);
    world.add(1);
    assert_eq!(world.drive(&mut group), None);
    assert_eq!((world.written.len(), world.pending.len(), world.gaps()), (84, 0, vec![]));
    assert_eq!((world.lease.clone(), world.redelivered), (None, 10));
}

#[test]
fn the_second_writer_waits_until_the_lease_has_not_changed_for_its_time() {
    for second in [exclusive("t1", 0..0), settings(0..0)] {
        let mut world = World::new();
        world.add(10);
        let is_group = second.consume == Consumption::Group;
        let mut one = Consumer::new(Partition::WHOLE, second);
        // The owner renews it each time.
        for renewals in 0..3 {
            world.lease = other_lease(renewals);
            assert_eq!(world.drive(&mut one), None);
            assert_eq!((world.written.len(), world.lease.clone()), (0, other_lease(renewals)));
        }
        assert_eq!(world.reports, [Report::WaitsForLease("two".to_owned())], "reported once");
        let began = world.now;
        while world.written.is_empty() {
            assert_eq!(world.drive(&mut one), None);
        }
        // The last change came five seconds before.
        assert!(world.now - began > lease::LEASE - Duration::from_secs(5), "{:?}", world.now - began);
        assert_eq!((world.written.len(), world.gaps()), (40, vec![]));
        assert_eq!(world.lease.is_none(), is_group);
        assert!(world.reports.contains(&Report::LeaseTakenOver("two".to_owned())));
        assert!(world.reports.contains(&Report::WaitEnded));
    }
}

#[test]
fn with_once_a_lease_that_is_renewed_is_refused() {
    for second in [exclusive("t1", 0..0), settings(0..0)] {
        let mut world = World::new();
        world.add(10);
        world.lease = other_lease(0);
        let mut one = Consumer::new(Partition::WHOLE, Settings { once: true, ..second });
        assert_eq!(world.drive(&mut one), None, "its owner may be gone");
        world.lease = other_lease(1);
        assert_eq!(world.drive(&mut one), Some(Refusal::Leased("two".to_owned())));
    }
}

#[test]
fn an_exclusive_consumer_waits_for_others_at_work() {
    let busy = |secs| Member { name: b"two".to_vec(), pending: 0, idle: Duration::new(secs, 1) };
    let mut world = World::new();
    world.add(10);
    world.others = vec![busy(0)];
    let mut one = Consumer::new(Partition::WHOLE, exclusive("t1", 0..0));
    assert_eq!(world.drive(&mut one), None);
    assert_eq!(world.reports, [Report::WaitsForConsumer("two".to_owned())]);
    assert!(world.written.is_empty() && world.lease.is_some(), "it keeps others from beginning");
    let mut hurried = Consumer::new(Partition::WHOLE, Settings { once: true, ..exclusive("t1", 0..0) });
    assert_eq!(world.drive(&mut hurried), Some(Refusal::Shared("two".to_owned())));
    world.others = vec![busy(11)];
    assert_eq!(world.drive(&mut one), None);
    assert_eq!(world.written.len(), 40);
    world.others = vec![busy(0)];
    let view = world.view();
    one.group_observed(&view, world.now);
    one.group_observed(&view, world.now);
    let intruders = one.take_reports().into_iter().filter(|report| matches!(report, Report::Intruder(_)));
    assert_eq!(intruders.collect::<Vec<_>>(), [Report::Intruder("two".to_owned())], "reported once");
}

#[test]
fn what_the_writer_got_that_was_waited_for_is_no_gap() {
    let mut world = World::new();
    world.add(10);
    // This output has had the group before.
    world.fields.insert(output_field(GROUP, NAME), "a".to_owned());
    world.lease = other_lease(0);
    let mut one = Consumer::new(Partition::WHOLE, exclusive("t1", 0..0));
    assert_eq!(world.drive(&mut one), None);
    world.last_delivered = StreamId::new(5, 20);
    world.lease = None;
    assert_eq!(world.drive(&mut one), None);
    assert_eq!(world.written.len(), 20, "{:?}", world.reports);
    assert!(!world.reports.iter().any(|report| matches!(report, Report::Gap(..))), "{:?}", world.reports);
}

#[test]
fn a_writer_that_dies_between_its_notes_reports_no_gap_later() {
    let mut world = World::new();
    world.add(10);
    world.lease = other_lease(0);
    let mut one = Consumer::new(Partition::WHOLE, exclusive("t1", 0..0));
    assert_eq!(world.drive(&mut one), None);
    world.last_delivered = StreamId::new(5, 20);
    world.lease = None;
    let mut notes = Vec::new();
    world.drive_until(&mut one, |_, effect| {
        if let Effect::WriteNotes(changes) = effect {
            notes.clone_from(changes);
        }
        !notes.is_empty()
    });
    assert_eq!(notes.len(), 2, "the name, and what others have got");
    let (Change::Claim(field, value) | Change::Set(field, value)) = notes.swap_remove(0) else { panic!("{notes:?}") };
    world.fields.insert(field, value);
    world.reports.clear();
    let mut again = Consumer::new(Partition::WHOLE, exclusive("t2", 0..0));
    assert_eq!(world.drive(&mut again), None);
    assert_eq!(world.written.len(), 20);
    assert!(!world.reports.iter().any(|report| matches!(report, Report::Gap(..))), "{:?}", world.reports);
}

#[test]
fn a_lease_that_somebody_took_over_ends_the_work() {
    let mut world = World::new();
    world.add(10);
    let mut one = Consumer::new(Partition::WHOLE, exclusive("t1", 0..0));
    assert_eq!(world.drive(&mut one), None);
    world.lease = other_lease(0);
    one.group_observed(&world.view(), world.now);
    assert_eq!(one.next(world.now), Effect::Restart);
    // So, too, when the connection was lost meanwhile, and the other one is gone again.
    let mut world = World::new();
    world.add(10);
    let mut one = Consumer::new(Partition::WHOLE, exclusive("t1", 0..0));
    assert_eq!(world.drive(&mut one), None);
    world.lease = None;
    one.connected(world.now);
    assert_eq!(world.drive(&mut one), None);
    assert!(world.is_restarted);
}

#[test]
fn a_group_consumer_that_slept_looks_before_it_reads() {
    let mut world = World::new();
    world.add(10);
    let mut one = consumer(0..0);
    assert_eq!(world.drive(&mut one), None);
    world.lease = other_lease(0);
    world.add(10);
    world.now += Duration::from_secs(60);
    assert_eq!(world.drive(&mut one), None);
    assert_eq!((world.written.len(), world.last_delivered), (40, StreamId::new(5, 40)));
    assert!(world.reports.contains(&Report::WaitsForLease("two".to_owned())));
}

#[test]
fn a_session_that_ended_begins_again_where_the_group_is() {
    let mut world = World::new();
    world.add(10);
    let mut one = Consumer::new(Partition::WHOLE, exclusive("t1", 0..0));
    assert_eq!(world.drive(&mut one), None);
    let first = one.session().unwrap().number;
    world.last_delivered = StreamId::new(5, 20);
    assert!(world.checkpoint.as_ref().unwrap().is_moved(world.last_delivered));
    one.end_session();
    assert_eq!(world.drive(&mut one), None);
    assert_eq!((world.written.len(), world.redelivered), (40, 5), "read again, and not written");
    assert_eq!(world.last_delivered, StreamId::new(5, 40));
    assert!(one.session().unwrap().number > first);
}
