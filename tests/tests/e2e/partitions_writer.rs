//! The streams of one source into outputs, with one writer for all partitions or one per partition.
//! Whatever happens, the outputs equal the input.

use std::path::PathBuf;
use std::time::Duration;

use e2e::partitions::{self, BASE_RECORD, THREE, record, stream};
use e2e::{Growth, Launch, Rig, Service, Value, text, wait};

/// The writers of a test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Writers {
    /// One writer for all partitions.
    One,
    /// One writer per partition.
    Each,
}

impl Writers {
    fn launches(self, rig: &Rig) -> Vec<Launch> {
        match self {
            Self::One => vec![partitions::named(rig.writer().set("--partitions", "3"), &rig.folder, "writer-0")],
            Self::Each => partitions::writers(&rig.writer(), &rig.folder, THREE),
        }
    }

    fn outputs(self, rig: &Rig) -> Vec<PathBuf> {
        let count = if self == Self::One { 1 } else { THREE };
        partitions::names(count).iter().map(|name| partitions::output(&rig.folder, name)).collect()
    }

    /// Asserts that the outputs equal the input, in order within each partition.
    #[track_caller]
    fn assert_right(self, rig: &Rig) {
        let (content, outputs) = (std::fs::read(&rig.input).unwrap(), self.outputs(rig));
        match self {
            Self::One => partitions::assert_order(&content, 0, &std::fs::read(&outputs[0]).unwrap(), THREE),
            Self::Each => {
                for (index, output) in (0..).zip(&outputs) {
                    let wanted = partitions::lines_of(&content, index, THREE);
                    assert!(std::fs::read(output).unwrap() == wanted, "partition {index}: other than its lines");
                }
            }
        }
        partitions::assert_proven(&rig.folder, &[&rig.input], &outputs);
    }
}

fn reader_of(rig: &Rig) -> Launch {
    rig.reader().set("--partitions", "3")
}

/// Whether the group has acknowledged everything in all streams. False while there is no group, as
/// after a loss.
fn nothing_pending(rig: &Rig) -> bool {
    let pending = |index| match rig.redis.try_call(&["XPENDING", &stream(index), "writers"]) {
        Ok(Ok(pending)) => pending.list()[0].int(),
        _ => i64::MAX,
    };
    (0..THREE).all(|index| pending(index) == 0)
}

/// Lets a file grow while `strike` injects faults; then the outputs must equal the input.
fn survives(writers: Writers, mut strike: impl FnMut(&Rig, &mut Service, &mut [Service], &mut fastrand::Rng)) {
    let seed = e2e::seed();
    let mut rng = fastrand::Rng::with_seed(seed);
    let rig = Rig::new();
    let mut growth = Growth::of(&rig.input, text::numbered(0..40_000, seed), Duration::from_secs(4), seed);
    let mut reader = reader_of(&rig).start();
    let launches = writers.launches(&rig);
    let mut running: Vec<Service> = launches.iter().map(Launch::start).collect();
    while growth.runs() {
        wait::random_moment(&mut rng, 10..400);
        strike(&rig, &mut reader, &mut running, &mut rng);
        if !reader.runs() {
            reader = reader_of(&rig).start();
        }
        for (launch, writer) in launches.iter().zip(&mut running) {
            if !writer.runs() {
                *writer = launch.start();
            }
        }
    }
    growth.wait();
    partitions::wait_total(&writers.outputs(&rig), e2e::rig::len(&rig.input));
    wait::until("nothing is pending", || nothing_pending(&rig));
    let is_whole = |index| rig.redis.call(&["HEXISTS", &record(index), "next:0"]).int() == 1;
    wait::until("every source record is whole", || (0..THREE).all(is_whole));
    for writer in &mut running {
        assert_eq!(writer.metric("writer_gap_bytes_total"), 0.0, "{}", writer.log());
        writer.stop();
    }
    reader.stop();
    writers.assert_right(&rig);
}

/// Deletes a partition's stream while its writer is down, and waits until it is filled again.
fn delete(rig: &Rig, index: u32, writer: &mut Service) {
    // A running writer would create an empty stream, which the reader cannot distinguish from the
    // one that it filled.
    writer.kill9();
    if rig.redis.call(&["DEL", &stream(index)]).int() == 1 {
        wait::until("it is filled again", || rig.redis.call(&["EXISTS", &stream(index)]).int() == 1);
    }
}

#[test]
fn one_writer_takes_all_partitions() {
    // Small blocks, and large ones.
    for (framing, lines) in [("line", 40_000), ("chunk", 170_000)] {
        let rig = Rig::new();
        rig.write_input(text::numbered(0..lines, 1));
        reader_of(&rig).set("--framing", framing).once().run_ok();
        Writers::One.launches(&rig)[0].clone().once().run_ok();
        assert!(nothing_pending(&rig));
        Writers::One.assert_right(&rig);
    }
}

#[test]
fn a_writer_for_each_partition_as_a_stateful_set_has_them() {
    let rig = Rig::new();
    rig.write_input(text::numbered(0..50_000, 1));
    reader_of(&rig).once().run_ok();
    // The partition by number, by a pod name, and by a pod name in the environment.
    let mut launches = Writers::Each.launches(&rig);
    launches[0] = launches[0].clone().set("--partition", "0");
    launches[2] = launches[2].clone().unset("--partition").env("LINE_STREAM_PARTITION", "line-writer-2");
    let mut running: Vec<Service> = launches.iter().map(Launch::start).collect();
    partitions::wait_total(&Writers::Each.outputs(&rig), e2e::rig::len(&rig.input));
    wait::until("nothing is pending", || nothing_pending(&rig));
    for writer in &mut running {
        assert_eq!(writer.metric("writer_gap_bytes_total"), 0.0, "{}", writer.log());
        writer.stop();
    }
    Writers::Each.assert_right(&rig);
}

#[test]
fn writers_of_partitions_killed_in_turn() {
    let mut nth = 0;
    survives(Writers::Each, |_, reader, writers, _| {
        match writers.get_mut(nth % 4) {
            Some(writer) => writer.kill9(),
            None => reader.kill9(),
        }
        nth += 1;
    });
}

#[test]
fn a_writer_of_all_partitions_killed_at_random_moments() {
    survives(Writers::One, |_, reader, writers, rng| if rng.bool() { reader.kill9() } else { writers[0].kill9() });
}

#[test]
fn an_emptied_redis_is_filled_again_in_all_partitions() {
    survives(Writers::Each, |rig, _, _, _| rig.redis.flushall());
}

#[test]
fn one_deleted_stream_is_filled_again() {
    survives(Writers::Each, |rig, _, writers, _| delete(rig, 1, &mut writers[1]));
}

#[test]
fn one_deleted_source_record_is_written_again() {
    survives(Writers::One, |rig, _, _, _| drop(rig.redis.call(&["DEL", &record(1)])));
}

#[test]
fn a_deleted_base_record_is_rewritten() {
    let mut nth = 0;
    survives(Writers::One, |rig, reader, writers, _| {
        // The record is loaded only at startup and when a content begins, so restart the reader
        // every other time.
        if nth % 2 == 1 {
            let begun = || rig.redis.call(&["HGET", BASE_RECORD, "partitions"]) == Value::Bytes(b"3".to_vec());
            wait::until("it is there again", begun);
        }
        rig.redis.call(&["DEL", BASE_RECORD]);
        if nth % 2 == 0 {
            reader.kill9();
        } else {
            writers[0].kill9();
        }
        nth += 1;
    });
}

#[test]
fn losses_of_every_kind_in_any_order() {
    survives(Writers::One, |rig, reader, writers, rng| {
        let index = rng.u32(0..THREE);
        match rng.u32(0..7) {
            0 => rig.redis.flushall(),
            1 => delete(rig, index, &mut writers[0]),
            2 => drop(rig.redis.call(&["DEL", &record(index)])),
            3 => drop(rig.redis.call(&["DEL", BASE_RECORD])),
            4 => drop(rig.redis.try_call(&["XGROUP", "DESTROY", &stream(index), "writers"])),
            5 => reader.kill9(),
            _ => writers[0].kill9(),
        }
    });
}

#[test]
fn a_foreign_producer_on_one_partition_loses_no_line() {
    let seed = e2e::seed();
    let mut rng = fastrand::Rng::with_seed(seed);
    let rig = Rig::new();
    let foreign = |rig: &Rig| rig.redis.call(&["XADD", &stream(1), "*", "foreign", "entry"]);
    // Before the content has a file ID, too: here its generation differs from that of the other
    // partitions.
    foreign(&rig);
    let mut count = 1;
    let mut growth = Growth::of(&rig.input, text::numbered(0..40_000, seed), Duration::from_secs(4), seed);
    let mut reader = reader_of(&rig).start();
    let mut running: Vec<Service> = Writers::Each.launches(&rig).iter().map(Launch::start).collect();
    while growth.runs() {
        wait::random_moment(&mut rng, 50..400);
        foreign(&rig);
        count += 1;
    }
    growth.wait();
    partitions::wait_total(&Writers::Each.outputs(&rig), e2e::rig::len(&rig.input));
    running[1].wait_for_metric("writer_foreign_entries_total", |seen| seen == f64::from(count));
    wait::until("nothing is pending", || nothing_pending(&rig));
    for writer in &mut running {
        assert_eq!(writer.metric("writer_gap_bytes_total"), 0.0, "{}", writer.log());
        writer.stop();
    }
    reader.stop();
    Writers::Each.assert_right(&rig);
}

#[test]
fn a_foreign_entry_before_the_content_has_a_file_id_loses_no_line() {
    for index in 0..THREE {
        let rig = Rig::new();
        rig.redis.call(&["XADD", &stream(index), "*", "foreign", "entry"]);
        rig.write_input(text::numbered(0..5000, 1));
        reader_of(&rig).once().run_ok();
        rig.redis.call(&["XADD", &stream(index), "*", "line", "a foreign line in our field"]);
        rig.append_input(text::numbered(5000..10_000, 1));
        reader_of(&rig).once().run_ok();
        Writers::One.launches(&rig)[0].clone().once().run_ok();
        Writers::One.assert_right(&rig);
    }
}

#[test]
fn entries_deleted_by_hand_in_one_partition_are_a_gap_of_exactly_their_bytes() {
    const LINE: u64 = 64;
    const BLOCK: u64 = 64 << 10;
    const LINES: u64 = BLOCK / LINE;
    let rig = Rig::new();
    // Lines that fill blocks exactly, so that the bounds of each partition's bytes are known: 14
    // blocks.
    let text = |blocks: std::ops::Range<u64>| -> Vec<u8> {
        let line = |n: u64| format!("line {n:058}\n").into_bytes();
        (blocks.start * LINES..blocks.end * LINES).flat_map(line).collect()
    };
    rig.write_input(text(0..14));
    reader_of(&rig).once().run_ok();
    let mut gone: Vec<u64> = Vec::new();
    let generation = partitions::entries(&rig.redis, 1)[0].generation;
    let delete = |index: u32, lines: std::ops::Range<u64>, gone: &mut Vec<u64>| {
        let ids: Vec<String> = lines.clone().map(|line| format!("{generation}-{}", (line + 1) * LINE)).collect();
        let command = ["XDEL".to_owned(), stream(index)].into_iter().chain(ids);
        let deleted = rig.redis.call(&command.collect::<Vec<_>>()).int() as u64;
        assert_eq!(deleted, lines.end - lines.start, "they are partition {index}'s");
        gone.extend(lines);
    };
    // Of the second partition's blocks: some lines within one, all of the next, the last of a
    // block, the first of a block.
    delete(1, LINES + 7..LINES + 10, &mut gone);
    delete(1, 4 * LINES..5 * LINES, &mut gone);
    delete(1, 8 * LINES - 1..8 * LINES, &mut gone);
    delete(1, 10 * LINES..10 * LINES + 2, &mut gone);
    // The first entries of the third partition are trimmed.
    let held = rig.redis.call(&["XLEN", &stream(2)]).int();
    let trimmed = rig.redis.call(&["XTRIM", &stream(2), "MAXLEN", &(held - 10).to_string()]).int();
    assert_eq!(trimmed, 10);
    gone.extend(2 * LINES..2 * LINES + 10);
    let launch = &Writers::One.launches(&rig)[0];
    let mut writer = launch.start();
    let bytes = |gone: &[u64]| (gone.len() as u64 * LINE) as f64;
    writer.wait_for_metric("writer_gap_bytes_total", |told| told == bytes(&gone));
    wait::until("nothing is pending", || nothing_pending(&rig));
    writer.wait_for_log(&["gap: bytes", &(4 * BLOCK).to_string(), &(5 * BLOCK).to_string()]);
    writer.stop();
    // A restarted writer reports later gaps, too.
    let before = gone.len();
    rig.append_input(text(14..20));
    reader_of(&rig).once().run_ok();
    delete(1, 16 * LINES..16 * LINES + 5, &mut gone);
    delete(1, 20 * LINES - 1..20 * LINES, &mut gone);
    let mut writer = launch.start();
    writer.wait_for_metric("writer_gap_bytes_total", |told| told == bytes(&gone[before..]));
    wait::until("nothing is pending", || nothing_pending(&rig));
    assert_eq!(writer.metric("writer_gap_bytes_total"), bytes(&gone[before..]), "and nothing else");
    writer.stop();
    let content = text(0..20);
    let is_there = |start: u64| !gone.contains(&(start / LINE));
    let output = std::fs::read(&Writers::One.outputs(&rig)[0]).unwrap();
    let mut wanted: Vec<&[u8]> =
        partitions::lines(&content).filter(|(at, _)| is_there(*at)).map(|(_, line)| line).collect();
    let mut found: Vec<&[u8]> = partitions::lines(&output).map(|(_, line)| line).collect();
    found.sort_unstable();
    wanted.sort_unstable();
    assert!(found == wanted, "{} lines instead of {}", found.len(), wanted.len());
}

#[test]
fn writers_without_a_partition_scaled_from_one_to_three_to_one_under_load() {
    let seed = e2e::seed();
    let rig = Rig::new();
    let mut growth = Growth::of(&rig.input, text::numbered(0..60_000, seed), Duration::from_secs(6), seed);
    let mut reader = reader_of(&rig).start();
    let names = partitions::names(3);
    let outputs: Vec<PathBuf> = names.iter().map(|name| partitions::output(&rig.folder, name)).collect();
    let launch = |name: &str| partitions::named(rig.writer().set("--partitions", "3"), &rig.folder, name);
    let mut first = launch(&names[0]).start();
    partitions::wait_total(&outputs, 500_000);
    let mut others = [launch(&names[1]).start(), launch(&names[2]).start()];
    wait::until("all three work", || outputs.iter().all(|output| e2e::rig::len(output) > 100_000));
    for other in &mut others {
        other.stop();
    }
    growth.wait();
    partitions::wait_total(&outputs, e2e::rig::len(&rig.input));
    wait::until("nothing is pending", || nothing_pending(&rig));
    reader.stop();
    assert_eq!(first.metric("writer_gap_bytes_total"), 0.0, "what others got is no gap");
    first.stop();
    partitions::assert_proven(&rig.folder, &[&rig.input], &outputs);
}
