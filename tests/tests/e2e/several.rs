//! Several writers in one group: their outputs together have every line exactly once. `verify`
//! proves it, and `merge` restores the order.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use e2e::{Growth, Launch, Program, Proxy, Rig, Service, text, wait};

fn output(rig: &Rig, name: &str) -> PathBuf {
    rig.folder.join(&format!("out/{name}.txt"))
}

fn writer(rig: &Rig, name: &str) -> Launch {
    rig.writer().set("--consumer", name).set("--output", output(rig, name))
}

fn verify(rig: &Rig, names: &[&str]) -> Service {
    let mut launch = rig.command(Program::Writer).word("verify").word("--input").word(&rig.input);
    for name in names {
        launch = launch.word("--output").word(output(rig, name));
    }
    launch.run()
}

#[track_caller]
fn merge_is_identical(rig: &Rig, names: &[&str]) {
    let mut launch = rig.command(Program::Writer).word("merge");
    for name in names {
        launch = launch.word("--output").word(output(rig, name));
    }
    let mut merge = launch.run();
    assert_eq!(merge.code(), Some(0), "{}", merge.log());
    e2e::assert_identical(&rig.input, &merge.process().stdout_path());
}

#[test]
fn writers_scaled_from_one_to_three_to_one_under_load() {
    let seed = e2e::seed();
    let rig = Rig::new();
    let mut growth = Growth::of(&rig.input, text::numbered(0..60_000, seed), Duration::from_secs(8), seed);
    let mut reader = rig.reader().start();
    let names = ["one", "two", "three"];
    let total = |rig: &Rig| names.iter().map(|name| e2e::rig::len(&output(rig, name))).sum::<u64>();
    let mut first = writer(&rig, "one").start();
    wait::until("one works", || total(&rig) > 500_000);
    let mut others = [writer(&rig, "two").start(), writer(&rig, "three").start()];
    wait::until("all three work", || names.iter().all(|name| e2e::rig::len(&output(&rig, name)) > 100_000));
    for other in &mut others {
        other.stop();
    }
    growth.wait();
    let goal = e2e::rig::len(&rig.input);
    wait::progress_to(goal, || total(&rig)).unwrap();
    wait::until("nothing is pending", || rig.pending() == 0);
    reader.stop();
    first.stop();
    assert_eq!(total(&rig), goal, "nothing is doubled");
    let mut proof = verify(&rig, &names);
    assert_eq!(proof.code(), Some(0), "{}", proof.log());
    merge_is_identical(&rig, &names);
    // Writers that exited without pending entries left the group, too.
    let consumers = rig.redis.call(&["XINFO", "CONSUMERS", e2e::rig::STREAM, "writers"]);
    let left: Vec<String> = consumers.list().iter().map(|consumer| consumer.field("name").text()).collect();
    assert!(!left.contains(&"two".to_owned()) && !left.contains(&"three".to_owned()), "{left:?}");
}

#[test]
fn a_writer_stopped_under_load_leaves_nothing_pending() {
    let rig = Rig::new();
    rig.write_input(text::numbered(0..400_000, 1));
    rig.reader().once().run_ok();
    // Each is a different consumer, which never returns.
    for number in 0..8 {
        let name = format!("gone-{number}");
        let mut writer = writer(&rig, &name).start();
        wait::until("it works", || e2e::rig::len(&output(&rig, &name)) > 10_000);
        writer.stop();
        assert_eq!(rig.pending(), 0, "after {name}");
    }
    assert!(rig.group_field("lag").int() > 0, "all were stopped while there was work");
    // A writer that blocks in a read exits just as fast.
    let mut idle = writer(&rig, "idle").start();
    wait::until("it has nothing to do", || rig.group_field("lag").int() == 0 && rig.pending() == 0);
    idle.stop();
    let names: Vec<String> = (0..8).map(|number| format!("gone-{number}")).chain(["idle".to_owned()]).collect();
    merge_is_identical(&rig, &names.iter().map(String::as_str).collect::<Vec<_>>());
}

#[test]
fn a_writer_killed_for_good_is_taken_over() {
    let seed = e2e::seed();
    let rig = Rig::new();
    let mut growth = Growth::of(&rig.input, text::numbered(0..60_000, seed), Duration::from_secs(6), seed);
    let mut reader = rig.reader().start();
    let names = ["one", "two"];
    let mut staying = writer(&rig, "one").set("--claim-idle", "1s").start();
    let proxy = Proxy::start(rig.redis.port());
    let mut dying = writer(&rig, "two").set("--redis-url", proxy.url()).start();
    let both = |rig: &Rig| names.iter().all(|name| e2e::rig::len(&output(rig, name)) > 100_000);
    wait::until("both work", || both(&rig));
    // The writer dies with delivered, unacknowledged entries.
    proxy.stall();
    let pending = |consumer: &str| {
        let consumers = rig.redis.call(&["XINFO", "CONSUMERS", e2e::rig::STREAM, "writers"]);
        let of_name = |one: &&e2e::Value| one.field("name").text() == consumer;
        consumers.list().iter().find(of_name).map_or(0, |one| one.field("pending").int())
    };
    wait::until("it has entries pending", || pending("two") > 0);
    dying.kill9();
    assert!(pending("two") > 0);
    growth.wait();
    reader.wait_for_metric("lines_read_total", |lines| lines == 60_000.0);
    reader.stop();
    // The pending entries of the dead writer are taken over.
    wait::until("nothing is pending or undelivered", || rig.pending() == 0 && rig.group_field("lag").int() == 0);
    staying.stop();
    merge_is_identical(&rig, &names);
}

#[test]
fn a_writer_that_returns_after_a_takeover_duplicates_nothing_in_the_merge() {
    let seed = e2e::seed();
    let rig = Rig::new();
    let mut growth = Growth::of(&rig.input, text::numbered(0..60_000, seed), Duration::from_secs(6), seed);
    let mut reader = rig.reader().start();
    let names = ["one", "two"];
    let mut staying = writer(&rig, "one").set("--claim-idle", "1s").start();
    let mut frozen = writer(&rig, "two").set("--claim-idle", "1s").start();
    let both = |rig: &Rig| names.iter().all(|name| e2e::rig::len(&output(rig, name)) > 100_000);
    wait::until("both work", || both(&rig));
    frozen.freeze();
    growth.wait();
    wait::until("nothing is pending or undelivered", || rig.pending() == 0 && rig.group_field("lag").int() == 0);
    frozen.thaw();
    wait::until("it is back", || frozen.healthz().0 == 200);
    frozen.stop();
    staying.stop();
    reader.stop();
    merge_is_identical(&rig, &names);
}

#[test]
fn several_writers_and_an_emptied_redis_lose_nothing() {
    let seed = e2e::seed();
    let rig = Rig::new();
    let mut growth = Growth::of(&rig.input, text::numbered(0..40_000, seed), Duration::from_secs(5), seed);
    let mut reader = rig.reader().start();
    let names = ["one", "two", "three"];
    let mut writers: Vec<Service> = names.iter().map(|name| writer(&rig, name).start()).collect();
    let mut rng = fastrand::Rng::with_seed(seed);
    while growth.runs() {
        wait::random_moment(&mut rng, 300..1500);
        rig.redis.flushall();
    }
    growth.wait();
    let end = e2e::rig::len(&rig.input).to_string();
    wait::until("everything is acknowledged", || {
        let info = rig.redis.try_call(&["XINFO", "STREAM", e2e::rig::STREAM]).unwrap();
        let whole = info.is_ok_and(|info| info.field("last-generated-id").text().ends_with(&format!("-{end}")));
        whole
            && rig.redis.try_call(&["XINFO", "GROUPS", e2e::rig::STREAM]).unwrap().is_ok_and(|groups| {
                let group = groups.list().first();
                group
                    .is_some_and(|group| group.field("pending").int() == 0 && *group.field("lag") == e2e::Value::Int(0))
            })
    });
    reader.stop();
    for writer in &mut writers {
        writer.stop();
    }
    merge_is_identical(&rig, &names);
}

#[test]
fn verify_proves_an_output_and_finds_what_is_wrong() {
    let rig = Rig::new();
    let bytes = text::numbered(0..1000, 1);
    rig.write_input(&bytes);
    rig.reader().once().run_ok();
    writer(&rig, "one").once().run_ok();
    assert_eq!(verify(&rig, &["one"]).code(), Some(0));

    let says = |mut proof: Service, parts: &[&str]| {
        assert_eq!(proof.code(), Some(1), "{}", proof.log());
        let said = String::from_utf8_lossy(&proof.process().stdout()).into_owned() + &proof.log();
        for part in parts {
            assert!(said.contains(part), "{part:?} is not in {said:?}");
        }
    };
    // One byte differs.
    let mut output_bytes = bytes.clone();
    output_bytes[5000] ^= 1;
    fs::write(output(&rig, "one"), &output_bytes).unwrap();
    says(verify(&rig, &["one"]), &["5000"]);
    fs::write(output(&rig, "one"), &bytes).unwrap();
    assert_eq!(verify(&rig, &["one"]).code(), Some(0));
    // The input has grown, so its end is missing.
    rig.append_input("more\n");
    says(verify(&rig, &["one"]), &["missing", &bytes.len().to_string(), &(bytes.len() + 5).to_string()]);
}

#[test]
fn verify_reports_a_missing_output() {
    let rig = Rig::new();
    rig.write_input("one\n");
    let mut proof = verify(&rig, &["nowhere"]);
    assert_eq!(proof.code(), Some(2), "{}", proof.log());
    assert!(proof.log().contains("--output") && proof.log().contains("nowhere"), "{}", proof.log());
}

#[test]
fn verify_finds_duplicates() {
    let rig = Rig::new();
    rig.write_input(text::numbered(0..1000, 1));
    rig.redis.cli("XGROUP CREATE line_stream others 0 MKSTREAM");
    rig.reader().once().run_ok();
    writer(&rig, "one").once().run_ok();
    // A writer of another group has everything, too, so every line is a duplicate.
    writer(&rig, "two").set("--group", "others").once().run_ok();
    let mut proof = verify(&rig, &["one", "two"]);
    assert_eq!(proof.code(), Some(1), "{}", proof.log());
    let said = String::from_utf8_lossy(&proof.process().stdout()).into_owned() + &proof.log();
    assert!(said.contains("doubled"), "{said}");
    merge_is_identical(&rig, &["one", "two"]);
}

#[test]
fn verify_and_merge_understand_rotated_inputs() {
    let rig = Rig::new();
    let rotated = rig.folder.join("in/input.txt.1");
    let names = ["one", "two"];
    let mut reader = rig.reader().start();
    let mut writers = names.map(|name| writer(&rig, name).start());
    let total = |rig: &Rig| names.iter().map(|name| e2e::rig::len(&output(rig, name))).sum::<u64>();
    let [old, new] = [0..5000, 5000..9000].map(|numbers| text::numbered(numbers, 1));
    rig.write_input(&old);
    wait::progress_to(old.len() as u64, || total(&rig)).unwrap();
    fs::rename(&rig.input, &rotated).unwrap();
    rig.write_input(&new);
    wait::progress_to((old.len() + new.len()) as u64, || total(&rig)).unwrap();
    reader.stop();
    writers.iter_mut().for_each(Service::stop);

    let verify = |inputs: &[&std::path::Path], json: bool| {
        let verify = rig.command(Program::Writer).word("verify");
        let verify = inputs.iter().fold(verify, |verify, input| verify.word("--input").word(input));
        let verify = names.iter().fold(verify, |verify, name| verify.word("--output").word(output(&rig, name)));
        if json { verify.word("--json") } else { verify }.run()
    };
    // In the order of a shell glob, and in chronological order.
    for inputs in [[&rig.input, &rotated], [&rotated, &rig.input]] {
        let mut proof = verify(&inputs.map(PathBuf::as_path), false);
        assert_eq!(proof.code(), Some(0), "{}", proof.log());
    }
    // A rotated input that is not named is not part of the inputs.
    let mut proof = verify(&[&rig.input], true);
    assert_eq!(proof.code(), Some(1));
    let report = String::from_utf8(proof.process().stdout()).unwrap();
    assert!(report.contains("\"identical\":false"), "{report}");
    assert!(report.contains(&format!("\"extra_bytes\":{}", old.len())), "{report}");

    let all = rig.folder.join("all");
    fs::write(&all, [old, new].concat()).unwrap();
    let merge = rig.command(Program::Writer).word("merge");
    let mut merge = names.iter().fold(merge, |merge, name| merge.word("--output").word(output(&rig, name))).run();
    assert_eq!(merge.code(), Some(0), "{}", merge.log());
    e2e::assert_identical(&all, &merge.process().stdout_path());
}
