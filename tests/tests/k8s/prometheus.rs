//! A real Prometheus scrapes the real services, by the configuration of the manifests.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;

use e2e::{Folder, Launch, Port, Process, Program, Rig, Service, Tamper, rig, text, wait};
use serde_json::Value;

use crate::adapter::autoscaler_query;
use crate::manifests::{config, documents, list, text as file, word};
use crate::rules::{promtool, tool};

/// A Prometheus with the configuration of the manifests, but for where its targets are and how
/// often it asks them.
struct Prometheus {
    _process: Process,
    promtool: PathBuf,
    folder: Folder,
    port: Port,
}

impl Prometheus {
    fn start(promtool: PathBuf, reader: SocketAddr, writers: &[SocketAddr]) -> Option<Self> {
        let program = tool("prometheus")?;
        let (folder, port) = (Folder::new(), Port::take());
        let mut settings = documents("prometheus.yml", &config("prometheus", "prometheus.yml")).remove(0);
        settings["global"] =
            serde_json::json!({"scrape_interval": "250ms", "scrape_timeout": "250ms", "evaluation_interval": "250ms"});
        settings["rule_files"] = serde_json::json!([folder.join("rules.yml")]);
        for job in settings["scrape_configs"].as_array_mut().expect("jobs") {
            let targets: Vec<String> = match word(&job["job_name"]) {
                "reader" => vec![reader.to_string()],
                "writer" => writers.iter().map(ToString::to_string).collect(),
                other => panic!("job {other}"),
            };
            let by_dns = job.as_object_mut().expect("a job").remove("dns_sd_configs");
            assert!(by_dns.is_some_and(|found| word(&found[0]["names"][0]).starts_with("_http._tcp.")));
            // What the DNS of a cluster says of a pod.
            let target = format!("pod-0.{}.line-stream.svc.cluster.local.", word(&job["job_name"]));
            let labels = serde_json::json!({"__meta_dns_srv_record_target": target});
            job["static_configs"] = serde_json::json!([{"targets": targets, "labels": labels}]);
        }
        let rules = config("prometheus", "rules.yml").replace("interval: 5s", "interval: 250ms");
        std::fs::write(folder.join("prometheus.yml"), settings.to_string()).expect("a file");
        std::fs::write(folder.join("rules.yml"), rules).expect("a file");
        let args = [
            format!("--config.file={}", folder.join("prometheus.yml").display()),
            format!("--storage.tsdb.path={}", folder.join("data").display()),
            format!("--web.listen-address=127.0.0.1:{}", port.number()),
        ];
        let none: [(&str, &str); 0] = [];
        let process = Process::start("prometheus", &program, args, none, folder.join("prometheus.log"));
        let ready = || {
            e2e::http::get(([127, 0, 0, 1], port.number()).into(), "/-/ready").is_ok_and(|(status, _)| status == 200)
        };
        wait::until("Prometheus is ready", ready);
        Some(Self { _process: process, promtool, folder, port })
    }

    /// The samples that a query gives now.
    fn query(&self, query: &str) -> Vec<Value> {
        let url = format!("http://127.0.0.1:{}", self.port.number());
        let said = promtool(&self.promtool, self.folder.path(), &["query", "instant", "--format=json", &url, query]);
        serde_json::from_str(&said).unwrap_or_else(|error| panic!("{query}: {error}: {said}"))
    }

    fn values(&self, query: &str) -> Vec<f64> {
        self.query(query).iter().map(|sample| word(&sample["value"][1]).parse().expect("a number")).collect()
    }
}

/// The queries of the dashboard.
fn dashboard() -> Vec<String> {
    let page: Value = serde_json::from_str(&file("k8s/components/monitoring/dashboard.json")).expect("JSON");
    let targets = list(&page["panels"]).iter().flat_map(|panel| list(&panel["targets"]));
    targets.map(|target| word(&target["expr"]).replace("$namespace", ".*")).collect()
}

/// The names of metrics in a query.
fn metrics_in(query: &str) -> BTreeSet<String> {
    // Labels stand in braces, or in parentheses behind `by` and `on`.
    let mut plain = String::new();
    let mut depth = 0;
    for c in query.replace("by (", "by {").replace("on (", "on {").chars() {
        match c {
            '{' => depth += 1,
            // What closes the parenthesis that was made a brace.
            '}' | ')' if depth > 0 => depth -= 1,
            c if depth == 0 => plain.push(c),
            _ => {}
        }
    }
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let words = plain.split(|c| !is_part(c)).filter(|word| word.contains('_'));
    words.filter(|word| !["histogram_quantile", "predict_linear"].contains(word)).map(str::to_owned).collect()
}

fn names(service: &mut Service) -> BTreeSet<String> {
    service.metrics().iter().map(|(name, _)| name.split('{').next().unwrap_or_default().to_owned()).collect()
}

#[test]
fn names_of_metrics_are_found_in_queries() {
    let found = |query: &str| metrics_in(query).into_iter().collect::<Vec<_>>();
    assert_eq!(found(r#"max by (a_b) (x_y{c_d="1"} and on (job, e_f) z_up{g_h="x"} == 1)"#), ["x_y", "z_up"]);
    assert_eq!(found("rate(a_total[5m]) / (b_bytes > 0)"), ["a_total", "b_bytes"]);
}

#[test]
fn rules_and_dashboard_ask_for_metrics_that_the_services_have() {
    let rig = Rig::new();
    rig.write_input(text::numbered(0..100, 1));
    let (mut reader, mut writer) = (rig.reader().start(), rig.writer().start());
    rig.wait_delivered();
    // It appears when Redis has been asked.
    wait::until("the backlog", || writer.metrics().get("line_stream_partition_backlog_entries").is_some());
    let rules = documents("rules", &config("prometheus", "rules.yml")).remove(0);
    let rules: Vec<Value> = list(&rules["groups"]).iter().flat_map(|group| list(&group["rules"]).to_vec()).collect();
    let mut known = names(&mut reader);
    known.extend(names(&mut writer));
    known.extend(rules.iter().filter_map(|rule| rule["record"].as_str().map(str::to_owned)));
    // It appears with the first error.
    known.insert("line_stream_errors_total".to_owned());
    // Those of many files, one of which has no output.
    std::fs::create_dir_all(rig.folder.join("many")).expect("a folder");
    for name in ["a.log", "b.log"] {
        rig::append(&rig.folder.join("many").join(name), "a line\n");
    }
    std::fs::create_dir_all(rig.folder.join("tree/b.log")).expect("a folder");
    let many = |launch: Launch| launch.set("--stream", "many");
    let mut reader = many(rig.service(Program::Reader)).set("--input", rig.folder.join("many/*.log")).start();
    let writer = many(rig.writer()).unset("--output").unset("--consumer");
    let mut writer = writer.set("--output-dir", rig.folder.join("tree")).start();
    wait::until("a source failed", || names(&mut writer).contains("line_stream_source_failed"));
    wait::until("the positions", || names(&mut reader).contains("line_stream_source_position_bytes"));
    known.extend(names(&mut reader));
    known.extend(names(&mut writer));
    for query in rules.iter().map(|rule| word(&rule["expr"]).to_owned()).chain(dashboard()) {
        for name in metrics_in(&query) {
            assert!(known.contains(&name), "{name} in: {query}");
        }
    }
}

#[test]
fn the_autoscaler_gets_the_backlog_once_however_many_writers_tell_it() {
    const LINES: u64 = 1000;
    const PENDING: usize = 137;
    let Some(promtool) = tool("promtool") else { return };
    let rig = Rig::new();
    rig.write_input(text::numbered(0..LINES, 1));
    rig.reader().once().run_ok();
    // Somebody of the group takes entries and does not finish them.
    rig.redis.call(&["XGROUP", "CREATE", rig::STREAM, "writers", "0"]);
    let count = PENDING.to_string();
    rig.redis.call(&["XREADGROUP", "GROUP", "writers", "gone", "COUNT", &count, "STREAMS", rig::STREAM, ">"]);

    let mut reader = rig.reader().start();
    let mut one = rig.writer().start();
    let mut two = rig.writer().set("--output", rig.folder.join("out/two.txt")).set("--consumer", "two").start();
    for writer in [&mut one, &mut two] {
        writer.wait_for_metric("line_stream_backlog_entries", |entries| entries == PENDING as f64);
    }
    let writers = [one.http_addr(), two.http_addr()];
    let Some(prometheus) = Prometheus::start(promtool, reader.http_addr(), &writers) else { return };
    let query = autoscaler_query();
    // Not for a moment, while one of the two is not scraped yet, but as long as both have been for
    // a while.
    let lasting = |entries: usize| {
        let series = query.replace("max(", "").replace(')', "");
        let held = |bound: &str| prometheus.values(&format!("{bound}_over_time({series}[2s])")) == [entries as f64];
        prometheus
            .values("min_over_time(count(line_stream_partition_backlog_entries and on (instance) line_stream_redis_up == 1)[2s:250ms])")
            == [2.0]
            && prometheus.values(&query) == [entries as f64]
            && held("min")
            && held("max")
    };
    wait::until("the backlog", || lasting(PENDING));
    let labelled = prometheus.query(r#"up{job="reader",namespace="line-stream",pod="pod-0"}"#);
    assert_eq!(labelled.len(), 1, "namespace and pod are read from the name in DNS");
    wait::until("its age", || prometheus.values("stream:oldest_pending_seconds:max").first() > Some(&0.0));

    // Redis does not know the lag any more after a deletion behind what was delivered.
    one.freeze();
    two.freeze();
    rig.append_input(text::numbered(LINES..LINES + 50, 1));
    reader.wait_for_metric("lines_read_total", |lines| lines == 50.0);
    let last = rig.entries().pop().expect("an entry").0;
    rig.redis.call(&["XDEL", rig::STREAM, &last]);
    one.thaw();
    two.thaw();
    wait::until("all that can be written is", || rig.pending() == PENDING as i64);
    let mut both = [one, two];
    for writer in &mut both {
        writer.wait_for_metric("line_stream_lag_entries", |entries| entries == 0.0);
    }
    wait::until("the backlog, still", || lasting(PENDING));

    let free = prometheus.values("writer_output_free_bytes / writer_output_capacity_bytes");
    assert!(free.len() == 2 && free.iter().all(|part| *part > 0.0 && *part <= 1.0), "{free:?}");

    for query in dashboard() {
        wait::until(&format!("the dashboard's {query}"), || {
            !prometheus.query(&query).is_empty()
                || query.contains("line_stream_errors_total{namespace") && query.contains("kind")
        });
    }
}

/// Three partitions: one writer has the first, one the others, and one all of them.
#[test]
fn the_autoscaler_gets_the_sum_over_partitions_each_of_them_once() {
    const PENDING: [usize; 3] = [5, 70, 900];
    let Some(promtool) = tool("promtool") else { return };
    let rig = Rig::new();
    rig.write_input(text::numbered(0..40_000, 1));
    rig.reader().set("--partitions", "3").once().run_ok();
    for (partition, count) in PENDING.iter().enumerate() {
        let (stream, count) = (format!("{}:{{{partition}}}", rig::STREAM), count.to_string());
        rig.redis.call(&["XGROUP", "CREATE", &stream, "writers", "0"]);
        rig.redis.call(&["XREADGROUP", "GROUP", "writers", "gone", "COUNT", &count, "STREAMS", &stream, ">"]);
    }
    let mut reader = rig.reader().set("--partitions", "3").start();
    let writer = |name: &str| {
        let output = rig.folder.join(&format!("out/{name}.txt"));
        rig.writer().set("--partitions", "3").set("--output", output).set("--consumer", name)
    };
    let mut writers = [writer("one").set("--partition", "0"), writer("two").set("--partition", "1,2"), writer("all")]
        .map(|w| w.start());
    let undone = [PENDING[0], PENDING[1] + PENDING[2], PENDING.iter().sum()];
    for (writer, undone) in writers.iter_mut().zip(undone) {
        for name in ["line_stream_partition_backlog_entries", "line_stream_backlog_entries"] {
            wait::until(name, || writer.metrics().get(name) == Some(undone as f64));
        }
    }
    let targets: Vec<SocketAddr> = writers.iter_mut().map(Service::http_addr).collect();
    let Some(prometheus) = Prometheus::start(promtool, reader.http_addr(), &targets) else { return };
    let scraped = "count(line_stream_partition_backlog_entries and on (instance) line_stream_redis_up == 1)";
    wait::until("all writers tell", || prometheus.values(scraped) == [6.0]);
    // The rule is evaluated at intervals.
    wait::until("the sum", || prometheus.values(&autoscaler_query()) == [undone[2] as f64]);
}

/// Entries that were not delivered yet count too, also when Redis cannot tell how many they are.
#[test]
fn the_autoscaler_gets_the_true_backlog_when_redis_does_not_know_the_lag() {
    const LINES: u64 = 50_000;
    let Some(promtool) = tool("promtool") else { return };
    if !Tamper::is_possible() {
        return;
    }
    let rig = Rig::new();
    rig.write_input(text::numbered(0..100, 1));
    let (mut reader, mut writer) = (rig.reader().start(), rig.writer().start());
    rig.wait_delivered();
    wait::until("all is acknowledged", || rig.pending() == 0);
    // Nothing is finished any more.
    let _tamper = Tamper::start(&writer, &rig.folder.join("logs"), "pwrite64,ftruncate", "EIO");
    rig.append_input(text::numbered(100..LINES, 1));
    reader.wait_for_metric("lines_read_total", |lines| lines == LINES as f64);
    let Some(prometheus) = Prometheus::start(promtool, reader.http_addr(), &[writer.http_addr()]) else { return };
    let query = autoscaler_query();
    let undone = (LINES - 100) as f64;
    wait::until("the backlog", || prometheus.values(&query) == [undone]);
    assert!(writer.metric("line_stream_lag_entries") > 0.0 && writer.metric("line_stream_pending_entries") > 0.0);

    // An entry that is deleted between what was delivered and what comes: the lag is not known from
    // here on.
    let entries = rig.entries();
    let inside = &entries[entries.len() - 10].0;
    rig.redis.call(&["XDEL", rig::STREAM, inside]);
    wait::until("the backlog without what was deleted", || prometheus.values(&query) == [undone - 1.0]);
    if rig.redis.info("redis_version").is_some_and(|version| version.starts_with("7.")) {
        assert!(matches!(rig.group_field("lag"), e2e::Value::Nil), "{:?}", rig.group_field("lag"));
    }
}
