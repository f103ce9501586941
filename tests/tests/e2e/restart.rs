//! Stopping and restarting the reader, the writer and Redis at any time.

use std::time::Duration;

use e2e::{Growth, Persistence, Rig, Service, text, wait};

/// How long the file grows. The rate keeps the services busy all the time.
const GROWTH: Duration = Duration::from_secs(6);
const LINES: u64 = 60_000;

/// Lets a file grow while `strike` injects faults; then the output must equal the input.
fn survives(
    persistence: Persistence,
    framing: &str,
    mut strike: impl FnMut(&mut Rig, &mut Service, &mut Service, &mut fastrand::Rng),
) {
    let seed = e2e::seed();
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut rig = Rig::with(persistence);
    let launch = rig.reader().set("--framing", framing);
    let mut growth = Growth::of(&rig.input, text::numbered(0..LINES, seed), GROWTH, seed);
    let mut reader = launch.start();
    let mut writer = rig.writer().start();
    while growth.runs() {
        wait::random_moment(&mut rng, 10..400);
        strike(&mut rig, &mut reader, &mut writer, &mut rng);
        if !reader.runs() {
            reader = launch.start();
        }
        if !writer.runs() {
            writer = rig.writer().start();
        }
    }
    growth.wait();
    rig.wait_delivered();
    wait::until("nothing is pending", || rig.pending() == 0);
    reader.stop();
    writer.stop();
    rig.assert_identical();
    e2e::check::numbered(&rig.output_bytes(), LINES).unwrap();
}

#[test]
fn reader_killed_at_random_moments() {
    survives(Persistence::None, "line", |_, reader, _, _| reader.kill9());
}

#[test]
fn reader_killed_at_random_moments_with_chunks() {
    survives(Persistence::None, "chunk", |_, reader, _, _| reader.kill9());
}

#[test]
fn writer_killed_at_random_moments() {
    survives(Persistence::None, "line", |_, _, writer, _| writer.kill9());
}

#[test]
fn writer_killed_at_random_moments_with_chunks() {
    survives(Persistence::None, "chunk", |_, _, writer, _| writer.kill9());
}

#[test]
fn both_stopped_in_an_orderly_way_at_random_moments() {
    survives(
        Persistence::None,
        "line",
        |_, reader, writer, rng| if rng.bool() { reader.stop() } else { writer.stop() },
    );
}

#[test]
fn redis_killed_with_a_log_synced_every_second() {
    survives(Persistence::Everysec, "line", |rig, _, _, _| rig.redis.crash());
}

#[test]
fn redis_killed_with_a_log_synced_always() {
    survives(Persistence::Always, "chunk", |rig, _, _, _| rig.redis.crash());
}

#[test]
fn redis_stopped_in_an_orderly_way() {
    survives(Persistence::Everysec, "line", |rig, _, _, rng| {
        rig.redis.stop();
        wait::random_moment(rng, 0..300);
        rig.redis.start_again();
    });
}

#[test]
fn redis_frozen() {
    survives(Persistence::None, "line", |rig, _, _, rng| {
        rig.redis.freeze();
        wait::random_moment(rng, 0..800);
        rig.redis.thaw();
    });
}

#[test]
fn reader_frozen_while_another_takes_over() {
    // An unresponsive pod is replaced, and becomes responsive again later.
    let seed = e2e::seed();
    let rig = Rig::new();
    let mut growth = Growth::of(&rig.input, text::numbered(0..LINES, seed), GROWTH, seed);
    let mut first = rig.reader().start();
    let mut writer = rig.writer().start();
    rig.wait_output_len(50_000);
    first.freeze();
    let mut second = rig.reader().start();
    rig.wait_output_len(growth.written());
    first.thaw();
    growth.wait();
    rig.wait_delivered();
    first.stop();
    second.stop();
    writer.stop();
    rig.assert_identical();
}

#[test]
fn sigterm_ends_a_service_that_waits_for_redis() {
    let mut rig = Rig::new();
    rig.write_input("one\n");
    rig.redis.kill9();
    let mut reader = rig.reader().start();
    let mut writer = rig.writer().start();
    // Both services are in their main loop.
    e2e::wait::until("the reader says that Redis is unreachable", || reader.readyz().1.contains("redis"));
    e2e::wait::until("the writer says that Redis is unreachable", || writer.readyz().1.contains("redis"));
    reader.stop();
    writer.stop();
}

#[test]
fn sigterm_ends_a_service_that_is_idle() {
    let rig = Rig::new();
    rig.write_input("one\n");
    let mut reader = rig.reader().start();
    let mut writer = rig.writer().start();
    rig.wait_delivered();
    let begun = std::time::Instant::now();
    reader.stop();
    writer.stop();
    assert!(begun.elapsed() < Duration::from_secs(10), "a pod has 30 s to end");
}

#[test]
fn once_that_is_stopped_before_its_work_is_done_does_not_end_with_0() {
    let rig = Rig::new();
    rig.write_input("one\n");
    let mut waits_for_redis = rig.reader().once().set("--redis-url", "redis://127.0.0.1:1").start();
    e2e::wait::until("the reader says what it waits for", || waits_for_redis.readyz().1.contains("refused"));
    waits_for_redis.stop_with(1);
}

#[test]
fn once_that_is_stopped_while_the_stream_is_full_does_not_end_with_0() {
    let rig = Rig::new();
    rig.write_input("one\ntwo\nthree\n");
    let mut reader = rig.reader().once().set("--max-backlog", "1").start();
    e2e::wait::until("the reader waits for room", || reader.log().contains("--max-backlog"));
    reader.stop_with(1);
}
