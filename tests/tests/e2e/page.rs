//! The status page and `/status.json` are correct, need no JavaScript, and load nothing from other
//! servers.

use e2e::{Growth, Rig, Service, text, wait};
use serde_json::Value;

pub(crate) fn status(service: &mut Service) -> Value {
    serde_json::from_str(&service.get("/status.json").1).unwrap()
}

#[test]
fn the_page_has_the_figures_without_a_script() {
    let rig = Rig::new();
    let bytes = text::numbered(0..20_000, 1);
    rig.write_input(&bytes);
    let (mut reader, mut writer) = (rig.reader().start(), rig.writer().start());
    rig.wait_delivered();
    for (service, counter) in [(&mut reader, "lines_read_total"), (&mut writer, "lines_written_total")] {
        service.wait_for_metric(counter, |lines| lines == 20_000.0);
        let now = status(service);
        assert_eq!(now["lines"]["total"], 20_000.0, "the figures are those of now");
        assert_eq!(now["bytes"]["total"], bytes.len() as f64);
        assert_eq!(now["ready"]["ok"], true, "{now}");
        wait::until("a plot", || status(service)["history"]["lines_per_second"].as_array().unwrap().len() >= 2);
        let page = service.get("/").1;
        for part in ["20,000 since the start", "<polyline points=\"0.0,", "prefers-color-scheme", "width=device-width"]
        {
            assert!(page.contains(part), "{part:?} is not in {page}");
        }
        let file = if page.contains("<h1>reader") { "input.txt" } else { "output.txt" };
        let title = page.split("<title>").nth(1).and_then(|rest| rest.split("</title>").next()).unwrap();
        assert!(title.contains(file) && title.contains(" on "), "{title}");
        for link in ["/metrics", "/healthz", "/readyz", "/status.json"] {
            assert!(page.contains(&format!("href=\"{link}\"")) && service.get(link).0 == 200, "{link}");
        }
        for elsewhere in ["http://", "https://", "//cdn", "@import", "url("] {
            assert!(!page.contains(elsewhere), "{elsewhere} in {page}");
        }
    }
    assert_eq!(status(&mut reader)["position"]["left"], 0.0);
    wait::until("the consumer is shown", || status(&mut writer)["consumers"][0]["name"] == "one");
}

/// Redis accepts commands and does not answer: until that is known to be a fault, the figures must
/// not be those of before.
#[test]
fn what_is_left_grows_while_redis_hangs() {
    let rig = Rig::new();
    rig.write_input("one\n");
    let mut reader = rig.reader().start();
    wait::until("all is sent", || status(&mut reader)["position"]["left"] == 0.0);
    rig.redis.freeze();
    rig.append_input("two\n");
    wait::until("what is left is seen", || status(&mut reader)["position"]["left"] == 4.0);
    rig.append_input("three\n");
    wait::until("more is left", || status(&mut reader)["position"]["left"] == 10.0);
    assert!(!reader.log().contains(" WARN "), "before the fault is known: {}", reader.log());
    rig.redis.thaw();
    wait::until("all is sent", || status(&mut reader)["position"]["left"] == 0.0);
    reader.stop();
}

#[test]
fn faults_are_described() {
    let mut rig = Rig::new();
    rig.write_input("one\n");
    let (mut reader, mut writer) = (rig.reader().start(), rig.writer().start());
    rig.wait_delivered();
    rig.redis.kill9();
    for service in [&mut reader, &mut writer] {
        wait::until("not ready", || service.readyz().0 == 503);
        wait::until("the page shows it", || !status(service)["errors"].as_array().unwrap().is_empty());
        assert!(status(service)["consumers"].is_null(), "what was seen before may not be so now");
        let (_, reason) = service.readyz();
        for part in ["redis: ", "nothing is lost", "trying again within", "start Redis"] {
            assert!(reason.contains(part), "{part:?} is not in {reason}");
        }
        let page = service.get("/").1;
        assert!(page.contains("class=\"state bad\"") && page.contains("nothing is lost"), "{page}");
        // The problem, then the advice, and the full message once beside the list of warnings.
        assert!(
            page.contains("<span class=todo>nothing is lost") && page.contains("cannot be used, see above"),
            "{page}"
        );
        assert_eq!(page.matches("start Redis").count(), 2, "{page}");
        // Values that only Redis knows are unknown, on the page and in `/status.json`.
        wait::until("the backlog is unknown", || status(service)["backlog"]["entries"].is_null());
        wait::until("the metric is unknown", || service.metric("line_stream_length_entries").is_nan());
        assert!(service.get("/").1.contains("<p class=figure>unknown</p>"));
    }
    // The file grows meanwhile, and the page shows it.
    rig.append_input("two\nthree\n");
    wait::until("what is left is seen", || status(&mut reader)["position"]["left"] == 10.0);
    assert_eq!(status(&mut reader)["position"]["seconds_left"], Value::Null);
    for service in [&mut reader, &mut writer] {
        let told = service.log().lines().filter(|line| line.contains(" WARN ")).count();
        assert_eq!(told, 1, "one fault, one line: {}", service.log());
    }
}

#[test]
fn the_state_of_redis_is_shown() {
    let rig = Rig::new();
    rig.redis.config_set("maxmemory", "200mb");
    rig.redis.config_set("maxmemory-policy", "volatile-ttl");
    rig.write_input(text::numbered(0..1000, 1));
    let (mut reader, mut writer) = (rig.reader().start(), rig.writer().start());
    rig.wait_delivered();
    let version = match (rig.redis.info("valkey_version"), rig.redis.info("redis_version")) {
        (Some(valkey), _) => format!("Valkey {valkey}"),
        (None, redis) => format!("Redis {}", redis.unwrap()),
    };
    for service in [&mut reader, &mut writer] {
        wait::until("Redis was asked", || !status(service)["redis"].is_null());
        let redis = &status(service)["redis"];
        assert_eq!(redis["version"], version, "{redis}");
        assert_eq!(redis["max_memory_bytes"], 200 << 20, "{redis}");
        assert_eq!(redis["eviction_policy"], "volatile-ttl", "{redis}");
        assert_eq!(redis["append_only_file"], false, "{redis}");
        let page = service.get("/").1;
        for part in [&version, "of 200.00 MiB, volatile-ttl", "append-only file off"] {
            assert!(page.contains(part), "{part:?} is not in {page}");
        }
    }
    // An idle reader and an idle writer query Redis again.
    rig.redis.config_set("maxmemory", "0");
    for service in [&mut reader, &mut writer] {
        wait::until("Redis was asked again", || {
            let redis = &status(service)["redis"];
            redis["max_memory_bytes"].is_null() && redis["used_memory_bytes"].as_u64().unwrap() > 100_000
        });
        assert!(service.get("/").1.contains("without a limit, volatile-ttl"));
    }
}

#[test]
fn redis_is_queried_while_lines_flow() {
    let rig = Rig::new();
    let (mut reader, mut writer) = (rig.reader().start(), rig.writer().start());
    for service in [&mut reader, &mut writer] {
        service.wait_for_log(&["ready"]);
    }
    // Longer than any test waits.
    let mut growth = Growth::of(&rig.input, text::numbered(0..600_000, 1), 3 * wait::SOON, 1);
    for service in [&mut reader, &mut writer] {
        wait::until("Redis was asked", || !status(service)["redis"].is_null());
    }
    rig.redis.config_set("maxmemory", "900mb");
    for service in [&mut reader, &mut writer] {
        wait::until("Redis was asked again", || status(service)["redis"]["max_memory_bytes"] == 900 << 20);
    }
    assert!(growth.runs(), "lines flow");
    growth.stop();
    // The growth may have ended inside a line.
    rig.append_input("\n");
    rig.wait_delivered();
    rig.assert_identical();
}

#[test]
fn the_way_from_the_reader_to_the_disk_is_measured() {
    let rig = Rig::new();
    rig.write_input(text::numbered(0..1000, 1));
    let (mut reader, mut writer) = (rig.reader().start(), rig.writer().start());
    rig.wait_delivered();
    // The first batch may have been on its way before the writer looked.
    let mut lines = 1000;
    wait::until("a batch is measured", || {
        rig.append_input(text::numbered(lines..lines + 1, 1));
        lines += 1;
        rig.wait_delivered();
        writer.metric("line_stream_latency_seconds_count") >= 1.0
    });
    let sum = writer.metric("line_stream_latency_seconds_sum");
    assert!((0.000_1..60.0).contains(&sum), "{sum} s");
    let latency = status(&mut writer)["latency"].clone();
    assert!(latency["seconds"].as_f64().unwrap() < 60.0, "{latency}");
    assert!(writer.get("/").1.contains("From reader to disk"));
    // Who writes nothing cannot tell.
    assert_eq!(status(&mut reader)["latency"], Value::Null);
}

#[test]
fn services_work_without_permission_to_run_info() {
    let rig = Rig::new();
    rig.redis.cli("ACL SETUSER worker on >secret ~* &* +@all -info -xinfo|groups -xinfo|consumers");
    let url = rig.redis.url().replace("redis://", "redis://worker:secret@");
    rig.write_input(text::numbered(0..20_000, 1));
    let mut reader = rig.reader().set("--redis-url", &url).start();
    rig.redis.cli("ACL SETUSER other on >secret ~* &* +@all -info");
    let other = url.replace("worker", "other");
    let mut writer = rig.writer().set("--redis-url", other).start();
    rig.wait_delivered();
    rig.assert_identical();
    for service in [&mut reader, &mut writer] {
        wait::until("the lines are counted", || status(service)["lines"]["total"] == 20_000.0);
        let now = status(service);
        assert_eq!((&now["redis"], &now["ready"]["ok"]), (&Value::Null, &Value::Bool(true)), "{now}");
        assert_eq!(now["errors"], Value::Array(Vec::new()), "{now}");
        assert!(service.get("/").1.contains("the user may not run INFO"));
    }
    // Redis was queried, and denied it.
    assert!(rig.redis.cli("ACL LOG").list().len() >= 2);
}

#[test]
fn a_full_stream_shows_the_backlog_and_the_consumers() {
    let rig = Rig::new();
    let bytes = text::numbered(0..50_000, 1);
    rig.write_input(&bytes);
    let mut reader = rig.reader().set("--max-backlog", "1000").start();
    wait::until("the stream is full", || status(&mut reader)["backlog"]["entries"] == 1000.0);
    let now = status(&mut reader);
    let position = &now["position"];
    assert_eq!(position["size"], bytes.len() as f64, "{position}");
    assert_eq!(position["bytes"].as_f64().unwrap() + position["left"].as_f64().unwrap(), bytes.len() as f64);
    assert!(position["left"].as_f64().unwrap() > bytes.len() as f64 / 2.0, "{position}");
    assert_eq!(now["consumers"], Value::Array(Vec::new()), "nobody reads yet");
    wait::until("the trend is known", || status(&mut reader)["backlog"]["trend"] == "steady");
    let page = reader.get("/").1;
    for part in ["waiting: the stream is full", "<p class=more>steady</p>", "<progress max=1 value=0.0"] {
        assert!(page.contains(part), "{part:?} is not in {page}");
    }
    let mut writer = rig.writer().start();
    rig.wait_delivered();
    for service in [&mut reader, &mut writer] {
        wait::until("nothing waits", || status(service)["backlog"]["trend"] == "empty");
        assert_eq!(status(service)["backlog"]["seconds_to_drain"], 0.0);
        wait::until("the consumer is shown", || status(service)["consumers"][0]["name"] == "one");
        assert_eq!(status(service)["consumers"][0]["group"], "writers");
        let last = status(service)["last_batch"].clone();
        assert!(last["lines"].as_u64().unwrap() > 0 && last["seconds"].as_f64().unwrap() > 0.0, "{last}");
    }
    wait::until("all of the output is shown", || status(&mut writer)["output"]["size"] == bytes.len() as f64);
    assert!(status(&mut writer)["output"]["disk_free"].as_f64().unwrap() > 0.0);
}
