//! `compose.yaml`: the tests run without a container engine, so they compare its names with files,
//! binaries, the image and the manifests.

use std::collections::{BTreeMap, BTreeSet};

use e2e::{Folder, Program};
use serde_json::Value;

use crate::manifests::{config, documents, list, objects, repository, text, word, workloads};
use crate::references::variables;
use crate::rules::{promtool, tool};

fn recipe() -> Value {
    let mut recipe: serde_yaml_ng::Value = serde_yaml_ng::from_str(&text("compose.yaml")).expect("YAML");
    recipe.apply_merge().expect("merge keys");
    serde_json::to_value(recipe).expect("JSON")
}

fn services(recipe: &Value) -> BTreeMap<&str, &Value> {
    recipe["services"].as_object().expect("services").iter().map(|(name, service)| (name.as_str(), service)).collect()
}

/// Volumes: what is mounted, where, and whether only for reading.
fn mounts(service: &Value) -> Vec<(String, String, bool)> {
    let volumes = list(&service["volumes"]).iter().map(|volume| {
        // A default holds a colon, too.
        let volume = word(volume).replace("${INPUT_DIR:-./data}", "./data");
        let (volume, reads) = volume.strip_suffix(":ro").map_or((&volume[..], false), |volume| (volume, true));
        let (from, to) = volume.split_once(':').unwrap_or_else(|| panic!("{volume}"));
        (from.to_owned(), to.to_owned(), reads)
    });
    volumes.collect()
}

/// The images that the manifests run.
fn images() -> BTreeSet<String> {
    let workloads = workloads();
    let pods = workloads.iter().map(|workload| &workload["spec"]["template"]["spec"]);
    pods.flat_map(|pod| list(&pod["containers"])).map(|container| word(&container["image"]).to_owned()).collect()
}

#[test]
fn what_it_names_is_there() {
    let recipe = recipe();
    let services = services(&recipe);
    let volumes: BTreeSet<&String> = recipe["volumes"].as_object().expect("volumes").keys().collect();
    let mut used = BTreeSet::new();
    for (name, service) in &services {
        for (from, to, _) in mounts(service) {
            assert!(to.starts_with('/'), "{name}: {to}");
            match from.strip_prefix("./") {
                // The user makes this one.
                Some("data") => {}
                Some(file) => assert!(repository().join(file).exists(), "{name}: there is no {file}"),
                None => {
                    assert!(volumes.contains(&from), "{name}: {from} is no volume");
                    used.insert(from);
                }
            }
        }
        let depends: Vec<&str> = match &service["depends_on"] {
            Value::Array(names) => names.iter().map(word).collect(),
            Value::Object(conditions) => conditions.keys().map(String::as_str).collect(),
            _ => Vec::new(),
        };
        for other in depends {
            assert!(services.contains_key(other), "{name} depends on {other}");
        }
        if let Some(build) = service["build"].as_object() {
            let folder = repository().join(word(&build["context"]));
            assert!(folder.join(word(&build["dockerfile"])).is_file(), "{name}");
        }
    }
    assert_eq!(used.iter().collect::<Vec<_>>(), volumes.into_iter().collect::<Vec<_>>(), "volumes that are mounted");
}

#[test]
fn images_are_those_of_the_manifests() {
    let images = images();
    for (name, service) in services(&recipe()) {
        let image = word(&service["image"]);
        let (_, tag) = image.rsplit_once(':').unwrap_or_else(|| panic!("{name}: {image} without a tag"));
        assert!(tag != "latest" && tag.chars().any(|c| c.is_ascii_digit()), "{name}: {image}");
        // The manifests leave Grafana to the cluster.
        assert!(images.contains(image) || name == "grafana", "{name}: {image} is none of {images:?}");
    }
}

#[test]
fn the_services_are_given_what_they_know_and_may_write_where_they_must() {
    let recipe = recipe();
    let services = services(&recipe);
    let user = text("Containerfile").lines().find_map(|line| line.strip_prefix("USER ").map(str::to_owned));
    let user = user.expect("the image's user");
    let owned = &services["volumes"];
    let owner: Vec<&str> = list(&owned["command"]).iter().map(word).collect();
    assert_eq!(owner[..2], ["chown", &user]);
    for program in [Program::Reader, Program::Writer] {
        let (name, service) = (program.name(), services[program.name()]);
        assert_eq!(service["command"], serde_json::json!([format!("/usr/local/bin/{name}")]));
        assert_eq!(word(&service["user"]), user, "{name}");
        let known = variables(program);
        let environment = service["environment"].as_object().expect("an environment");
        for variable in environment.keys() {
            assert!(known.contains(variable), "{name}: {variable} is none of {known:?}");
        }
        assert_eq!(environment["REDIS_URL"], "redis://redis:6379");
        // Its own volume is given to the user, and is where it writes.
        let mounted = mounts(service);
        let (_, at, _) = mounted.iter().find(|(from, ..)| from == name).unwrap_or_else(|| panic!("{name}"));
        let given = mounts(owned).into_iter().find(|(from, ..)| from == name).expect("its volume is given to the user");
        assert!(owner.contains(&given.1.as_str()), "{name}: {owner:?}");
        let writes = if program == Program::Reader { "LINE_STREAM_STATE_DIR" } else { "LINE_STREAM_OUTPUT" };
        assert!(word(&environment[writes]).starts_with(at.as_str()), "{name}: {writes} lies in {at}");
        // The input is mounted where both look for it, and can only be read.
        let (_, input, reads) = mounted.iter().find(|(from, ..)| from == "./data").expect("the input's folder");
        assert!(*reads && input == "/input", "{name}");
        assert!(program == Program::Writer || word(&environment["LINE_STREAM_INPUT"]).starts_with("/input/"));
    }
    assert_eq!(
        services["writer"]["environment"]["LINE_STREAM_CONSUMER"], "writer",
        "a host's name is new in every container"
    );
}

#[test]
fn redis_is_set_as_in_the_manifests() {
    let recipe = recipe();
    let words: Vec<&str> = list(&recipe["services"]["redis"]["command"]).iter().map(word).collect();
    let settings: BTreeMap<&str, &str> =
        words[1..].chunks(2).map(|pair| (pair[0].trim_start_matches("--"), pair[1])).collect();
    let file = config("redis", "redis.conf");
    let of_file: BTreeMap<&str, &str> = file.lines().filter_map(|line| line.split_once(' ')).collect();
    assert!(settings.len() >= 5, "{settings:?}");
    for (name, value) in settings {
        assert_eq!(of_file.get(name).map(|value| value.trim_matches('"')), Some(value), "{name}");
    }
    let reader = objects().into_iter().find(|one| one["kind"] == "Deployment" && one["metadata"]["name"] == "reader");
    let reader = reader.expect("the reader");
    let variables = list(&reader["spec"]["template"]["spec"]["containers"][0]["env"]);
    let backlog =
        variables.iter().find(|one| one["name"] == "LINE_STREAM_MAX_BACKLOG").expect("a bound for this memory");
    assert_eq!(recipe["services"]["reader"]["environment"]["LINE_STREAM_MAX_BACKLOG"], backlog["value"]);
}

#[test]
fn ports_are_open_on_this_machine_only_and_differ() {
    let recipe = recipe();
    let mut taken = BTreeSet::new();
    for (name, service) in services(&recipe) {
        for port in list(&service["ports"]) {
            let (at, inner) = word(port).rsplit_once(':').expect("a port");
            assert!(at.starts_with("127.0.0.1:"), "{name}: {port}");
            assert!(taken.insert(at.to_owned()), "{name}: {port} is taken");
            let listens = match name {
                "prometheus" => "9090",
                "grafana" => "3000",
                _ => "8080",
            };
            assert_eq!(inner, listens, "{name}");
        }
    }
    assert_eq!(taken.len(), 4);
}

#[test]
fn prometheus_has_the_rules_jobs_and_labels_of_the_manifests() {
    assert_eq!(text("compose/rules.yml"), config("prometheus", "rules.yml"), "compose/rules.yml");
    let recipe = recipe();
    let ours = documents("compose/prometheus.yml", &text("compose/prometheus.yml")).remove(0);
    let theirs = documents("prometheus.yml", &config("prometheus", "prometheus.yml")).remove(0);
    assert_eq!(ours["rule_files"], theirs["rule_files"]);
    let (ours, theirs) = (list(&ours["scrape_configs"]), list(&theirs["scrape_configs"]));
    assert_eq!(ours.len(), theirs.len());
    for (job, their) in ours.iter().zip(theirs) {
        assert_eq!(job["job_name"], their["job_name"]);
        let [group] = list(&job["static_configs"]) else { panic!("{job}") };
        for target in list(&group["targets"]) {
            let (host, port) = word(target).split_once(':').expect("host:port");
            assert!(recipe["services"][host].is_object() && port == "8080", "{target}");
        }
        let labels = group["labels"].as_object().expect("labels");
        let relabels: BTreeMap<&str, &Value> = list(&their["relabel_configs"])
            .iter()
            .map(|one| (word(&one["target_label"]), &one["replacement"]))
            .collect();
        assert_eq!(labels.keys().map(String::as_str).collect::<BTreeSet<_>>(), relabels.keys().copied().collect());
        for (name, value) in labels.iter().filter(|(name, _)| !["pod", "namespace"].contains(&name.as_str())) {
            assert_eq!(&value, &relabels[name.as_str()], "{name}");
        }
    }
    // The services say themselves which stream and group they work on.
    assert!(ours.iter().all(|job| job["static_configs"][0]["labels"]["stream"].is_null()));
}

#[test]
fn promtool_accepts_prometheus_configuration() {
    let Some(program) = tool("promtool") else { return };
    let folder = Folder::new();
    for (from, to, _) in mounts(&recipe()["services"]["prometheus"]) {
        if let (Some(file), Some(name)) = (from.strip_prefix("./"), to.strip_prefix("/etc/prometheus/")) {
            let text = text(file).replace("/etc/prometheus", &folder.path().display().to_string());
            std::fs::write(folder.join(name), text).expect("a file");
        }
    }
    let command = recipe()["services"]["prometheus"]["command"].clone();
    let file = list(&command).iter().find_map(|flag| word(flag).strip_prefix("--config.file=/etc/prometheus/"));
    promtool(&program, folder.path(), &["check", "config", "--lint-fatal", file.expect("a configuration")]);
}

#[test]
fn grafana_has_the_dashboard_and_its_data() {
    let recipe = recipe();
    let grafana = &recipe["services"]["grafana"];
    let mounts = mounts(grafana);
    let (_, dashboard, _) =
        mounts.iter().find(|(from, ..)| from == "./k8s/components/monitoring/dashboard.json").expect("the dashboard");
    assert_eq!(word(&grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]), dashboard);
    let (folder, ..) =
        mounts.iter().find(|(_, to, _)| to == "/etc/grafana/provisioning").expect("what Grafana reads at its start");
    let folder = folder.trim_start_matches("./");
    let provider = documents("provider", &text(&format!("{folder}/dashboards/line-stream.yml"))).remove(0);
    let path = word(&provider["providers"][0]["options"]["path"]);
    assert!(dashboard.starts_with(&format!("{path}/")), "{dashboard} lies in {path}");
    let source = documents("source", &text(&format!("{folder}/datasources/prometheus.yml"))).remove(0);
    let source = &source["datasources"][0];
    assert_eq!((word(&source["type"]), word(&source["url"])), ("prometheus", "http://prometheus:9090"));
    assert_eq!(source["isDefault"], true, "the dashboard's variable begins with the default");
    let dashboard: Value = serde_json::from_str(&text("k8s/components/monitoring/dashboard.json")).expect("JSON");
    let variable = list(&dashboard["templating"]["list"]).iter().find(|one| one["name"] == "datasource");
    assert_eq!(variable.expect("a variable for the data source")["query"], source["type"]);
}
