//! Network faults.

use std::time::Duration;

use e2e::proxy::Way;
use e2e::{Growth, Launch, Proxy, Rig, text, wait};

const LINES: u64 = 40_000;
const GROWTH: Duration = Duration::from_secs(5);

/// The service whose connections are disturbed.
#[derive(Clone, Copy)]
enum Whose {
    Reader,
    Writer,
}

/// Lets a file grow while `strike` disturbs the connections of one service; then the output must
/// equal the input.
fn survives(whose: Whose, mut strike: impl FnMut(&Proxy, &mut fastrand::Rng)) {
    let seed = e2e::seed();
    let mut rng = fastrand::Rng::with_seed(seed);
    let rig = Rig::new();
    let proxy = Proxy::start(rig.redis.port());
    let through = |launch: Launch| launch.set("--redis-url", proxy.url());
    let (reader, writer) = match whose {
        Whose::Reader => (through(rig.reader()), rig.writer()),
        Whose::Writer => (rig.reader(), through(rig.writer())),
    };
    let mut growth = Growth::of(&rig.input, text::numbered(0..LINES, seed), GROWTH, seed);
    let (mut reader, mut writer) = (reader.start(), writer.start());
    while growth.runs() {
        wait::random_moment(&mut rng, 10..300);
        strike(&proxy, &mut rng);
    }
    growth.wait();
    proxy.heal();
    rig.wait_delivered();
    wait::until("nothing is pending", || rig.pending() == 0);
    reader.stop();
    writer.stop();
    rig.assert_identical();
    e2e::check::numbered(&rig.output_bytes(), LINES).unwrap();
}

fn cut(proxy: &Proxy, _: &mut fastrand::Rng) {
    proxy.cut();
}

fn cut_inside_a_message(proxy: &Proxy, rng: &mut fastrand::Rng) {
    let way = if rng.bool() { Way::Requests } else { Way::Replies };
    proxy.cut_after(way, rng.u64(1..30_000));
}

fn lose_replies(proxy: &Proxy, rng: &mut fastrand::Rng) {
    proxy.drop_replies();
    wait::random_moment(rng, 1..150);
    proxy.cut();
    proxy.heal();
}

fn stall(proxy: &Proxy, rng: &mut fastrand::Rng) {
    proxy.stall();
    wait::random_moment(rng, 1..1000);
    proxy.heal();
}

fn stall_and_cut(proxy: &Proxy, rng: &mut fastrand::Rng) {
    proxy.hold_replies();
    wait::random_moment(rng, 1..300);
    proxy.cut();
    proxy.heal();
}

fn refuse(proxy: &Proxy, rng: &mut fastrand::Rng) {
    proxy.refuse();
    wait::random_moment(rng, 1..500);
    proxy.heal();
}

#[test]
fn the_readers_connection_is_cut() {
    survives(Whose::Reader, cut);
}

#[test]
fn the_readers_connection_is_cut_inside_a_message() {
    survives(Whose::Reader, cut_inside_a_message);
}

#[test]
fn the_readers_replies_are_lost() {
    survives(Whose::Reader, lose_replies);
}

#[test]
fn the_readers_connection_stalls() {
    survives(Whose::Reader, stall);
}

#[test]
fn the_readers_replies_stall_until_it_is_cut() {
    survives(Whose::Reader, stall_and_cut);
}

#[test]
fn the_readers_connections_are_refused() {
    survives(Whose::Reader, refuse);
}

#[test]
fn the_writers_connections_are_cut() {
    survives(Whose::Writer, cut);
}

#[test]
fn the_writers_connections_are_cut_inside_a_message() {
    survives(Whose::Writer, cut_inside_a_message);
}

#[test]
fn the_writers_replies_are_lost() {
    survives(Whose::Writer, lose_replies);
}

#[test]
fn the_writers_connections_stall() {
    survives(Whose::Writer, stall);
}

#[test]
fn the_writers_replies_stall_until_they_are_cut() {
    survives(Whose::Writer, stall_and_cut);
}

#[test]
fn the_writers_connections_are_refused() {
    survives(Whose::Writer, refuse);
}

/// Half-open connections, as behind a firewall that dropped their state: only a timeout detects
/// them.
fn half_open(whose: Whose) {
    let rig = Rig::new();
    let proxy = Proxy::start(rig.redis.port());
    let through = |launch: Launch| launch.set("--redis-url", proxy.url());
    let (reader, writer) = match whose {
        Whose::Reader => (through(rig.reader()), rig.writer()),
        Whose::Writer => (rig.reader(), through(rig.writer())),
    };
    let (mut reader, mut writer) = (reader.start(), writer.start());
    rig.write_input(text::numbered(0..1000, 1));
    rig.wait_delivered();
    for round in 1..3 {
        proxy.half_open();
        rig.append_input(text::numbered(round * 1000..(round + 1) * 1000, 1));
        rig.wait_delivered();
    }
    reader.stop();
    writer.stop();
    rig.assert_identical();
}

#[test]
fn the_readers_connection_is_half_open() {
    half_open(Whose::Reader);
}

#[test]
fn the_writers_connections_are_half_open() {
    half_open(Whose::Writer);
}

#[test]
fn a_slow_network_is_only_slow() {
    let rig = Rig::new();
    let proxy = Proxy::start(rig.redis.port());
    proxy.delay(Duration::from_millis(40));
    rig.write_input(text::numbered(0..5000, 1));
    rig.reader().set("--redis-url", proxy.url()).once().run_ok();
    rig.writer().set("--redis-url", proxy.url()).once().run_ok();
    rig.assert_identical();
    // No timeout occurred: each service has two connections, one of them for the status.
    assert!(proxy.accepted() <= 4, "{} connections", proxy.accepted());
}

#[test]
fn nothing_but_a_stalled_connection_at_the_start() {
    let rig = Rig::new();
    let proxy = Proxy::start(rig.redis.port());
    proxy.stall();
    rig.write_input(text::numbered(0..1000, 1));
    let mut reader = rig.reader().set("--redis-url", proxy.url()).start();
    let mut writer = rig.writer().set("--redis-url", proxy.url()).start();
    assert_eq!(reader.readyz().0, 503);
    assert_eq!(writer.readyz().0, 503);
    assert_eq!(reader.healthz().0, 200);
    assert_eq!(writer.healthz().0, 200);
    proxy.heal();
    rig.wait_delivered();
    reader.stop();
    writer.stop();
    rig.assert_identical();
}

/// Connections that fail with the first batch again and again must not cause a busy loop.
fn is_patient(whose: Whose) {
    let rig = Rig::new();
    rig.write_input(text::numbered(0..1000, 1));
    let proxy = Proxy::start(rig.redis.port());
    let through = |launch: Launch| launch.set("--redis-url", proxy.url());
    let mut service = match whose {
        Whose::Reader => through(rig.reader()),
        Whose::Writer => {
            rig.reader().once().run_ok();
            through(rig.writer())
        }
    }
    .start();
    let begun = std::time::Instant::now();
    let mut seen = 0;
    wait::until("some time passes", || {
        let accepted = proxy.accepted();
        if accepted != seen {
            seen = accepted;
            // Enough for the handshake and a PING, but not for a batch.
            proxy.cut_after(Way::Replies, 600);
        }
        begun.elapsed() > Duration::from_secs(3)
    });
    let accepted = proxy.accepted();
    assert!((2..=60).contains(&accepted), "{accepted} connections in 3 s: {}", service.log());
    proxy.heal();
    proxy.cut();
    let mut other = match whose {
        Whose::Reader => rig.writer(),
        Whose::Writer => rig.reader(),
    }
    .start();
    rig.wait_delivered();
    other.stop();
    service.stop();
    rig.assert_identical();
}

#[test]
fn a_reader_whose_connections_die_with_each_batch_is_patient() {
    is_patient(Whose::Reader);
}

#[test]
fn a_writer_whose_connections_die_with_each_batch_is_patient() {
    is_patient(Whose::Writer);
}
