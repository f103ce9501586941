//! A writer that has its group to itself: `--consume exclusive`. It moves the group and has nothing
//! pending, and a lease keeps others out.

use std::path::{Path, PathBuf};
use std::time::Duration;

use e2e::rig::{STREAM, len};
use e2e::{Growth, Launch, Persistence, Program, Rig, Service, Value, text, wait};

const LEASE: &str = "{line_stream}:lease:writers";

fn exclusive(rig: &Rig) -> Launch {
    rig.writer().set("--consume", "exclusive").set("--lease", "1s")
}

/// A writer with another name and another output.
fn other(rig: &Rig, launch: Launch) -> (Launch, PathBuf) {
    let output = rig.folder.join("out/other.txt");
    (launch.set("--consumer", "two").set("--output", &output), output)
}

/// Together, the outputs hold each byte of the input once.
#[track_caller]
fn assert_once(rig: &Rig, outputs: &[&Path]) {
    let mut verify = rig.command(Program::Writer).word("verify").word("--input").word(&rig.input);
    for output in outputs {
        verify = verify.word("--output").word(output);
    }
    verify.run_ok();
}

/// The group has everything behind it, and Redis knows that.
#[track_caller]
fn wait_done(rig: &Rig) {
    wait::until("nothing is left or pending", || {
        matches!(rig.group_field("lag"), Value::Int(0)) && rig.pending() == 0 && rig.stream_len() == 0
    });
}

#[test]
fn it_moves_the_group_and_has_nothing_pending() {
    let rig = Rig::new();
    rig.write_input(text::numbered(0..5000, 1));
    rig.reader().once().run_ok();
    let other_group = rig.redis.call(&["XGROUP", "CREATE", STREAM, "others", "0"]);
    assert_eq!(other_group.text(), "OK");
    exclusive(&rig).once().run_ok();
    rig.assert_identical();
    assert_eq!(rig.pending(), 0);
    assert_eq!((rig.group_field("lag").int(), rig.group_field("entries-read").int()), (0, 5000));
    assert_eq!(rig.stream_len(), 5000, "another group needs them");
    assert_eq!(rig.redis.call(&["EXISTS", LEASE]).int(), 0, "the lease is given back");
}

#[test]
fn both_modes_follow_each_other_under_kills() {
    let mut rig = Rig::with(Persistence::Everysec);
    let mut rng = fastrand::Rng::with_seed(1);
    let mut growth = Growth::of(&rig.input, text::numbered(0..60_000, 2), Duration::from_secs(5), 3);
    let mut reader = rig.reader().start();
    let mut nth = 0;
    while growth.runs() {
        let launch = if nth % 2 == 0 { exclusive(&rig) } else { rig.writer() };
        let mut writer = launch.start();
        wait::random_moment(&mut rng, 50..400);
        writer.kill9();
        if nth == 4 {
            // The latest moves of the group are lost.
            rig.redis.kill9();
            rig.redis.lose_tail(30_000);
            rig.redis.start_again();
        }
        nth += 1;
    }
    growth.wait();
    let mut writer = exclusive(&rig).start();
    rig.wait_delivered();
    wait_done(&rig);
    reader.stop();
    writer.stop();
    rig.assert_identical();
}

#[test]
fn redis_loses_everything_under_it() {
    let rig = Rig::new();
    let mut growth = Growth::of(&rig.input, text::numbered(0..40_000, 2), Duration::from_secs(3), 3);
    let mut reader = rig.reader().start();
    let mut writer = exclusive(&rig).start();
    let mut rng = fastrand::Rng::with_seed(5);
    for _ in 0..4 {
        wait::random_moment(&mut rng, 100..700);
        rig.redis.flushall();
    }
    growth.wait();
    rig.wait_delivered();
    wait_done(&rig);
    reader.stop();
    writer.stop();
    rig.assert_identical();
}

/// Entries that came while the process was stopped are another writer's when it goes on.
#[test]
fn a_writer_that_slept_longer_than_its_lease_writes_nothing_of_the_next_one() {
    let rig = Rig::new();
    rig.write_input(text::numbered(0..100, 1));
    let mut reader = rig.reader().start();
    let mut first = exclusive(&rig).start();
    rig.wait_delivered();
    wait_done(&rig);
    first.freeze();
    // The answer to its read is waiting for it.
    rig.append_input(text::numbered(100..200, 1));
    let (launch, output) = other(&rig, exclusive(&rig));
    let mut second = launch.start();
    second.wait_for_log(&["one had group writers", "taken over"]);
    let total = len(&rig.input);
    let written = |output: &Path| len(&rig.output) + len(output);
    wait::until("the second one has the new lines", || written(&output) == total);
    wait_done(&rig);
    let at = rig.group_field("last-delivered-id").text();
    first.thaw();
    first.wait_for_log(&["two has group writers", "to itself"]);
    assert_eq!(rig.group_field("last-delivered-id").text(), at, "it does not move the group");
    // Now it waits, and continues when the second one has ended.
    second.stop();
    rig.append_input(text::numbered(200..300, 1));
    let total = len(&rig.input);
    wait::until("the first one continues", || written(&output) == total);
    reader.stop();
    first.stop();
    assert_once(&rig, &[&rig.output, &output]);
}

#[test]
fn of_two_that_start_at_once_one_waits() {
    let rig = Rig::new();
    let mut reader = rig.reader().start();
    let (launch, output) = other(&rig, exclusive(&rig));
    let mut growth = Growth::of(&rig.input, text::numbered(0..20_000, 2), Duration::from_secs(3), 3);
    let (mut one, mut two) = (exclusive(&rig).start(), launch.start());
    let waits = |service: &Service| service.find_log(&["has group writers", "to itself", "waiting"]).is_some();
    wait::until("one of them waits", || waits(&one) || waits(&two));
    if waits(&one) {
        std::mem::swap(&mut one, &mut two);
    }
    assert!(!waits(&one), "one of them has the group");
    assert!(two.readyz().1.contains("to itself"), "{}", two.readyz().1);
    one.stop();
    growth.wait();
    let total = len(&rig.input);
    wait::until("the other one continues", || len(&rig.output) + len(&output) == total);
    reader.stop();
    two.stop();
    assert_once(&rig, &[&rig.output, &output]);
}

#[test]
fn a_group_and_an_exclusive_writer_refuse_each_other() {
    let rig = Rig::new();
    rig.write_input(text::numbered(0..100, 1));
    rig.reader().once().run_ok();
    let mut writer = exclusive(&rig).start();
    rig.wait_delivered();
    let (group, _) = other(&rig, rig.writer());
    let mut refused = group.once().run();
    assert_eq!(refused.code(), Some(2), "{}", refused.log());
    refused.wait_for_log(&["--group writers", "one has this group", "to itself"]);
    let check = rig.service(Program::Writer).word("check").set("--output", rig.folder.join("out/third.txt")).run();
    let told = String::from_utf8_lossy(&check.process().stdout()).into_owned();
    assert!(told.contains("writer one has writers to itself"), "{told}");
    writer.stop();
    let mut writer = rig.writer().start();
    writer.wait_for_log(&["file: ready"]);
    wait::until("it is in the group", || rig.group_field("consumers").int() == 1);
    let (exclusive, _) = other(&rig, exclusive(&rig));
    let mut refused = exclusive.once().run();
    assert_eq!(refused.code(), Some(2), "{}", refused.log());
    refused.wait_for_log(&["--consume exclusive", "one is at work"]);
    writer.stop();
    let mut both = exclusive_claims(&rig).run();
    assert_eq!(both.code(), Some(2), "{}", both.log());
    both.wait_for_log(&["--claim-idle", "--consume exclusive"]);
}

fn exclusive_claims(rig: &Rig) -> Launch {
    exclusive(rig).set("--claim-idle", "30s").once()
}

#[test]
fn a_consumer_that_joins_is_reported() {
    let rig = Rig::new();
    rig.write_input(text::numbered(0..100, 1));
    let mut reader = rig.reader().start();
    let mut writer = exclusive(&rig).start();
    rig.wait_delivered();
    wait_done(&rig);
    // Somebody moves the group back: what is there is read again, and not written.
    rig.redis.call(&["XGROUP", "SETID", STREAM, "writers", "0"]);
    writer.wait_for_log(&["group writers", "was moved to 0-0"]);
    rig.append_input(text::numbered(100..200, 1));
    rig.wait_delivered();
    wait_done(&rig);
    rig.redis.call(&["XGROUP", "CREATECONSUMER", STREAM, "writers", "stranger"]);
    writer.wait_for_log(&["stranger reads from group writers", "to itself"]);
    reader.stop();
    writer.stop();
    rig.assert_identical();
}

/// A writer must be able to make room.
#[test]
fn a_lease_is_renewed_while_redis_is_full() {
    let rig = Rig::new();
    rig.write_input(text::numbered(0..1000, 1));
    let mut reader = rig.reader().start();
    let mut writer = exclusive(&rig).start();
    rig.wait_delivered();
    wait_done(&rig);
    rig.redis.config_set("maxmemory", "1");
    let renewals = || rig.redis.call(&["PEXPIRETIME", LEASE]).int();
    let before = renewals();
    wait::until("the lease is renewed again and again", || renewals() > before + 5);
    rig.redis.config_set("maxmemory", "0");
    rig.append_input(text::numbered(1000..2000, 1));
    rig.wait_delivered();
    assert!(writer.find_log(&["lease was taken over"]).is_none(), "{}", writer.log());
    reader.stop();
    writer.stop();
    rig.assert_identical();
}

/// The stream fills Redis while no writer runs, so the writer that starts then must make room.
fn a_full_redis_is_emptied(writer: &dyn Fn(&Rig) -> Launch) {
    let rig = Rig::new();
    rig.write_input(text::numbered(0..100, 1));
    let mut reader = rig.reader().start();
    let mut killed = writer(&rig).start();
    rig.wait_delivered();
    wait_done(&rig);
    killed.kill9();
    rig.append_input(text::numbered(100..2000, 1));
    wait::until("all lines are in the stream", || rig.stream_len() == 1900);
    rig.redis.config_set("maxmemory", "1");
    let mut second = writer(&rig).start();
    rig.wait_delivered();
    wait_done(&rig);
    rig.redis.config_set("maxmemory", "0");
    reader.stop();
    second.stop();
    rig.assert_identical();
}

/// The first writer of a group starts when Redis is full already: it must be able to create the
/// group.
fn the_first_writer_reads_a_full_redis(writer: &dyn Fn(&Rig) -> Launch) {
    let rig = Rig::new();
    rig.write_input(text::numbered(0..2000, 1));
    let mut reader = rig.reader().start();
    wait::until("all lines are in the stream", || rig.stream_len() == 2000);
    rig.redis.config_set("maxmemory", "1");
    let mut first = writer(&rig).start();
    rig.wait_delivered();
    rig.redis.config_set("maxmemory", "0");
    wait_done(&rig);
    reader.stop();
    first.stop();
    rig.assert_identical();
}

#[test]
fn the_first_writer_of_a_group_reads_a_full_redis() {
    the_first_writer_reads_a_full_redis(&Rig::writer);
    the_first_writer_reads_a_full_redis(&exclusive);
}

#[test]
fn a_restarted_exclusive_writer_empties_a_full_redis() {
    a_full_redis_is_emptied(&exclusive);
}

#[test]
fn a_restarted_writer_empties_a_full_redis() {
    a_full_redis_is_emptied(&Rig::writer);
}

/// An entry that is deleted before it is read makes the number of entries read wrong.
#[test]
fn the_lag_is_right_after_deletions() {
    let rig = Rig::new();
    rig.write_input(text::numbered(0..100, 1));
    rig.reader().once().run_ok();
    let (id, ..) = &rig.entries()[50];
    rig.redis.call(&["XGROUP", "CREATE", STREAM, "others", "0"]);
    rig.redis.call(&["XDEL", STREAM, id]);
    let mut writer = exclusive(&rig).start();
    writer.wait_for_log(&["gap: bytes"]);
    wait::until("the lag is 0", || matches!(rig.group_field("lag"), Value::Int(0)));
    writer.wait_for_metric("line_stream_backlog_entries", |entries| entries == 0.0);
    writer.stop();
    assert!(len(&rig.output) < len(&rig.input), "one line was deleted");
}
