//! `charts/line-stream`: Helm renders what kustomize renders, and what the values say.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::crd;
use crate::kustomize::combinations;
use crate::manifests::{documents, find, list, name_of, repository, text, title, word, workloads_of};
use crate::pods::breaks_restricted;
use crate::references::{check_policies, containers};
use crate::rules::tool;
use crate::types::{self, lost};

const CHART: &str = "charts/line-stream";
/// How the first line of a file of values begins that kustomize has components for.
const AS_KUSTOMIZE: &str = "# As kustomize:";

/// Runs Helm on the chart; `None`, and a word about it, where there is none.
fn helm(args: &[&str]) -> Option<Output> {
    let mut command = Command::new(tool("helm")?);
    command.current_dir(repository().join(CHART)).args(args).env("HELM_NO_PLUGINS", "1");
    Some(command.output().expect("helm"))
}

/// What Helm makes of the chart with these arguments.
fn rendered(more: &[&str]) -> Option<Vec<Value>> {
    let args = [&["template", "ours", ".", "--namespace", "line-stream"], more].concat();
    let output = helm(&args)?;
    assert!(output.status.success(), "{more:?}: {}", String::from_utf8_lossy(&output.stderr));
    Some(documents("the chart", &String::from_utf8(output.stdout).expect("text")))
}

/// The files of values, each with its first line.
fn matrix() -> Vec<(String, String)> {
    let folder = repository().join(CHART).join("ci");
    let mut files: Vec<String> = std::fs::read_dir(folder)
        .expect("a folder")
        .map(|entry| format!("ci/{}", entry.expect("an entry").file_name().to_string_lossy()))
        .collect();
    files.sort();
    let first = |file: &String| text(&format!("{CHART}/{file}")).lines().next().expect("a line").to_owned();
    files.into_iter().map(|file| (file.clone(), first(&file))).collect()
}

/// The objects by kind and name, without what Helm and kustomize each have in their own way:
/// hashes in names, checksums, the name of the tool, the namespace itself, and the order of
/// variables and volumes.
fn comparable(objects: Vec<Value>) -> BTreeMap<String, Value> {
    let plain = objects.into_iter().filter(|one| one["kind"] != "Namespace").map(|mut object| {
        let title = title(&object);
        object["metadata"]["name"] = name_of(&object).into();
        let labels = object["metadata"]["labels"].as_object_mut().expect("labels");
        labels.remove("app.kubernetes.io/managed-by").expect("who manages it");
        labels.remove("helm.sh/chart");
        drop_annotations(&mut object["metadata"]);
        if let Some(template) = object.pointer_mut("/spec/template") {
            drop_annotations(&mut template["metadata"]);
            let pod = &mut template["spec"];
            sort(pod.get_mut("volumes"));
            for volume in pod.get_mut("volumes").and_then(Value::as_array_mut).into_iter().flatten() {
                volume.pointer_mut("/configMap/name").map(strip);
            }
            for container in pod["containers"].as_array_mut().expect("containers") {
                for from in container.get_mut("envFrom").and_then(Value::as_array_mut).into_iter().flatten() {
                    from.pointer_mut("/configMapRef/name").map(strip);
                }
                sort(container.get_mut("env"));
                sort(container.get_mut("volumeMounts"));
            }
        }
        (title, object)
    });
    plain.collect()
}

/// Sorts a list by its items' names.
fn sort(items: Option<&mut Value>) {
    if let Some(items) = items.and_then(Value::as_array_mut) {
        items.sort_by_key(|one| word(&one["name"]).to_owned());
    }
}

fn drop_annotations(metadata: &mut Value) {
    let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) else { return };
    annotations.retain(|name, _| !["checksum/config", "helm.sh/resource-policy"].contains(&name.as_str()));
    if annotations.is_empty() {
        metadata.as_object_mut().expect("metadata").remove("annotations");
    }
}

/// Takes the hash from the name of a ConfigMap.
fn strip(name: &mut Value) {
    *name = name_of(&json!({"kind": "ConfigMap", "metadata": {"name": name}})).into();
}

#[test]
fn the_chart_renders_what_kustomize_renders() {
    let mut compared = 0;
    for (file, first) in matrix() {
        let Some(components) = first.strip_prefix(AS_KUSTOMIZE) else { continue };
        let components: Vec<&str> = components.split_whitespace().collect();
        let Some(rendered) = rendered(&["--values", &file]) else { return };
        let Some((_, expected)) = combinations([components.as_slice()]).pop() else { return };
        let (ours, theirs) = (comparable(rendered), comparable(expected));
        assert_eq!(ours.keys().collect::<Vec<_>>(), theirs.keys().collect::<Vec<_>>(), "{file}");
        for (title, object) in ours {
            let differs = lost(&object, &theirs[&title], "").or_else(|| lost(&theirs[&title], &object, ""));
            assert_eq!(differs, None, "{file}: {title}");
        }
        compared += 1;
    }
    assert!(compared >= 5, "{compared}");
}

#[test]
fn helm_accepts_every_file_of_values_and_the_objects_have_their_types() {
    for (file, _) in matrix() {
        let Some(linted) = helm(&["lint", "--strict", ".", "--values", &file]) else { return };
        assert!(linted.status.success(), "{file}: {}", String::from_utf8_lossy(&linted.stdout));
        let objects = rendered(&["--values", &file]).expect("as before");
        for object in &objects {
            let judged = types::check(object).unwrap_or_else(|| crd::check(object));
            assert_eq!(judged, Ok(()), "{file}: {}", title(object));
        }
        for workload in workloads_of(&objects) {
            let broken = breaks_restricted(&workload["spec"]["template"]["spec"]);
            assert_eq!(broken, [""; 0], "{file}: {}", title(&workload));
        }
        check_policies(&objects);
    }
}

#[test]
fn two_streams_share_redis_and_nothing_else() {
    let Some(objects) = rendered(&["--values", "ci/two-streams-values.yaml"]) else { return };
    let of = |kind: &str| -> Vec<String> {
        let mut names: Vec<String> =
            objects.iter().filter(|one| one["kind"] == kind).map(|one| name_of(one).to_owned()).collect();
        names.sort();
        names
    };
    assert_eq!(of("StatefulSet"), ["redis", "writer-audit", "writer-orders"]);
    assert_eq!(of("Deployment"), ["prometheus", "prometheus-adapter", "reader-audit", "reader-orders"]);
    assert_eq!(of("PersistentVolumeClaim"), ["reader-audit-data", "reader-orders-data"]);
    assert_eq!(of("PodDisruptionBudget"), ["writer-audit", "writer-orders"]);
    assert_eq!(of("HorizontalPodAutoscaler"), ["writer-orders"], "audit has a writer for each partition");
    // Prometheus finds all pods by one Service of each kind.
    assert_eq!(of("Service"), ["prometheus", "prometheus-adapter", "reader", "redis", "writer"]);
    for name in ["orders", "audit"] {
        let map = find(&objects, "ConfigMap", &format!("line-stream-{name}"));
        assert_eq!(map["data"]["LINE_STREAM_STREAM"], name);
        for (kind, service) in [("Deployment", "reader"), ("StatefulSet", "writer")] {
            let workload = find(&objects, kind, &format!("{service}-{name}"));
            let from = &containers(&workload)[0]["envFrom"];
            assert_eq!(from[0]["configMapRef"]["name"], map["metadata"]["name"], "{service}");
            let selector = &workload["spec"]["selector"]["matchLabels"];
            let others = objects.iter().filter(|one| workloads_of(std::slice::from_ref(one)).len() == 1);
            let found = others
                .filter(|one| crate::manifests::selects(selector, &one["spec"]["template"]["metadata"]["labels"]))
                .count();
            assert_eq!(found, 1, "{service}-{name} selects its own pods alone");
        }
        let budget = find(&objects, "PodDisruptionBudget", &format!("writer-{name}"));
        assert_eq!(budget["spec"]["selector"]["matchLabels"]["app.kubernetes.io/instance"], name);
    }
    let reader = find(&objects, "Deployment", "reader-audit");
    assert_eq!(reader["spec"]["template"]["spec"]["hostname"], "reader-audit");
    let claim = &reader["spec"]["template"]["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"];
    assert_eq!(claim, "reader-audit-data");
    let env = &containers(&reader)[0]["env"];
    assert!(list(env).contains(&json!({"name": "LINE_STREAM_MAX_BACKLOG", "value": "20000000"})), "{env}");
    assert_eq!(containers(&reader)[0]["envFrom"][1]["secretRef"]["name"], "audit-redis");
    assert_eq!(containers(&reader).len(), 1, "a stream's own value goes before that of all");
    assert_eq!(containers(&find(&objects, "Deployment", "reader-orders")).len(), 2);
    let storage = find(&objects, "PersistentVolumeClaim", "reader-audit-data")["spec"].clone();
    assert_eq!(
        (&storage["resources"]["requests"]["storage"], &storage["storageClassName"]),
        (&json!("100Gi"), &json!("fast"))
    );
    let writer = find(&objects, "StatefulSet", "writer-audit");
    assert_eq!(writer["spec"]["replicas"], 2);
    let hpa = find(&objects, "HorizontalPodAutoscaler", "writer-orders")["spec"].clone();
    assert_eq!(hpa["scaleTargetRef"]["name"], "writer-orders");
    let external = &hpa["metrics"][0]["external"];
    assert_eq!(external["metric"]["selector"]["matchLabels"], json!({"stream": "orders", "group": "writers"}));
    assert_eq!((&hpa["maxReplicas"], &external["target"]["averageValue"]), (&json!(8), &json!("2000000")));
}

#[test]
fn every_value_reaches_the_objects() {
    let Some(objects) = rendered(&["--values", "ci/everything-values.yaml"]) else { return };
    let values = &documents("values", &text(&format!("{CHART}/ci/everything-values.yaml")))[0];
    let image = format!("registry.example/ours@{}", word(&values["image"]["digest"]));
    for (kind, name) in [("Deployment", "reader"), ("StatefulSet", "writer"), ("StatefulSet", "redis")] {
        let workload = find(&objects, kind, name);
        let (template, pod) = (&workload["spec"]["template"], &workload["spec"]["template"]["spec"]);
        let main = &containers(&workload)[0];
        if name != "redis" {
            assert_eq!(main["image"], image, "{name}");
        }
        assert_eq!(main["imagePullPolicy"], "Always");
        assert_eq!(pod["imagePullSecrets"], json!([{"name": "registry"}]));
        for field in ["tolerations", "affinity", "priorityClassName", "initContainers"] {
            assert_eq!(pod[field], values["pods"][field], "{name}: {field}");
        }
        let disk = if name == "reader" { "logs" } else { "ssd" };
        assert_eq!(
            pod["nodeSelector"],
            json!({"disk": disk}),
            "what is set for the reader goes before what is for all"
        );
        assert_eq!(template["metadata"]["labels"]["team"], "data");
        assert_eq!(template["metadata"]["annotations"]["example.org/owner"], "data");
        assert!(list(&main["env"]).contains(&values["pods"]["extraEnv"][0]), "{name}");
        assert!(list(&main["volumeMounts"]).contains(&values["pods"]["extraVolumeMounts"][0]), "{name}");
        assert!(list(&pod["volumes"]).contains(&values["pods"]["extraVolumes"][0]), "{name}");
        assert!(containers(&workload).contains(&&values["pods"]["extraContainers"][0]), "{name}");
        assert_eq!(workload["metadata"]["labels"]["cost-center"], "12");
    }
    let env = |kind: &str, name: &str| -> BTreeMap<String, String> {
        let workload = find(&objects, kind, name);
        let valued = list(&containers(&workload)[0]["env"]).iter().filter(|one| one["value"].is_string());
        valued.map(|one| (word(&one["name"]).to_owned(), word(&one["value"]).to_owned())).collect()
    };
    let (reader, writer) = (env("Deployment", "reader"), env("StatefulSet", "writer"));
    assert_eq!(
        (reader["LINE_STREAM_INPUT"].as_str(), reader["LINE_STREAM_FRAMING"].as_str()),
        ("/logs/app.log", "chunk")
    );
    assert_eq!((writer["LINE_STREAM_CLAIM_IDLE"].as_str(), writer["LINE_STREAM_FSYNC"].as_str()), ("1h", "interval"));
    assert_eq!(writer["LINE_STREAM_LOCK_WAIT"], "5m");
    let writer = find(&objects, "StatefulSet", "writer");
    assert_eq!(writer["spec"]["replicas"], 3);
    let claim = &writer["spec"]["volumeClaimTemplates"][0]["spec"];
    assert_eq!((&claim["storageClassName"], &claim["resources"]["requests"]["storage"]), (&json!(""), &json!("20Gi")));
    let reader = find(&objects, "Deployment", "reader");
    assert_eq!(reader["spec"]["template"]["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"], "logs");
    assert!(!objects.iter().any(|one| one["kind"] == "PersistentVolumeClaim"));
    assert_eq!(find(&objects, "ConfigMap", "line-stream")["data"]["REDIS_URL"], "redis://redis:6379/0");
    let conf = word(&find(&objects, "ConfigMap", "redis")["data"]["redis.conf"]).to_owned();
    assert!(conf.contains("\nmaxmemory 2gb\n"), "{conf}");
    let redis = find(&objects, "StatefulSet", "redis");
    assert_eq!(containers(&redis)[0]["resources"]["limits"], json!({"cpu": "1", "memory": "4Gi"}));
    assert_eq!(containers(&redis)[0]["env"][0]["valueFrom"]["secretKeyRef"]["name"], "ours");
    assert_eq!(find(&objects, "ServiceMonitor", "writer")["metadata"]["labels"]["release"], "prometheus");
    let policy = find(&objects, "NetworkPolicy", "allow-scrape-by-operator");
    assert!(policy.to_string().contains("observability") && !policy.to_string().contains("monitoring\""), "{policy}");
    find(&objects, "ConfigMap", "more");
}

#[test]
fn a_changed_setting_restarts_the_pods_that_use_it() {
    let sums = |more: &[&str]| -> Option<BTreeMap<String, Value>> {
        let sum = |one: &Value| one["spec"]["template"]["metadata"]["annotations"]["checksum/config"].clone();
        Some(workloads_of(&rendered(more)?).iter().map(|one| (title(one), sum(one))).collect())
    };
    let Some(before) = sums(&[]) else { return };
    for (value, expected) in [
        ("redis.maxMemory=1gb", &["StatefulSet/redis"][..]),
        ("redis.url=redis://redis:6379/1", &["Deployment/reader", "StatefulSet/writer"]),
    ] {
        let after = sums(&["--set", value]).expect("as before");
        let changed: Vec<_> = before.keys().filter(|title| before[*title] != after[*title]).collect();
        assert_eq!(changed, expected, "{value}");
    }
}

#[test]
fn another_namespace_is_used_throughout() {
    let Some(objects) = rendered(&["--namespace", "elsewhere", "--values", "ci/cluster-keda-values.yaml"]) else {
        return;
    };
    let base = rendered(&["--namespace", "elsewhere"]).expect("as before");
    for object in objects.iter().chain(&base) {
        let text = object.to_string();
        for hidden in ["line-stream.svc", "namespace=\\\"line-stream", "\"namespace\":\"line-stream"] {
            assert!(!text.contains(hidden), "{}: {hidden}", title(object));
        }
    }
}

#[test]
fn values_that_cannot_be_are_refused_with_the_reason() {
    for (values, reason) in [
        (&["redis.mode=standalon"][..], "at '/redis/mode': value must be one of"),
        (&["writer.replica=3"], "additional properties 'replica' not allowed"),
        (&["image.digest=abc"], "at '/image/digest': 'abc' does not match pattern"),
        (&["reader.maxBacklog=many"], "at '/reader/maxBacklog': got string, want integer"),
        (&["streams[0].name=a", "streams[0].stream=x", "streams[1].stream=y"], "the stream y has no name"),
        (
            &["streams[0].name=a", "streams[0].stream=x", "streams[1].name=a", "streams[1].stream=y"],
            "two have the name \"a\"",
        ),
        (
            &["streams[0].name=a", "streams[0].stream=x", "streams[1].name=b", "streams[1].stream=x"],
            "two have the key x",
        ),
        (&["writer.perPartition=true"], "writer.perPartition needs the number of partitions"),
        (&["prometheus.enabled=false"], "the adapter needs prometheus.enabled"),
        (&["prometheus.enabled=false", "writer.autoscaler.kind=keda"], "keda needs prometheus.enabled or"),
        (&["redis.mode=existing", "redis.exporter=true"], "redis.exporter: not for an existing Redis"),
    ] {
        let set: Vec<&str> = values.iter().flat_map(|value| ["--set", value]).collect();
        let Some(output) = helm(&[&["template", "ours", "."], set.as_slice()].concat()) else { return };
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(reason), "{values:?}: {said}");
    }
}

/// A row of the table of values.
struct Row {
    key: String,
    default: Value,
    text: String,
}

/// The values that have a comment which begins with two hyphens.
fn rows(values: &Value, source: &str) -> Vec<Row> {
    let (mut rows, mut path, mut comment) = (Vec::new(), Vec::<(usize, String)>::new(), None::<String>);
    for line in source.lines() {
        let (trimmed, indent) = (line.trim_start(), line.len() - line.trim_start().len());
        if let Some(text) = trimmed.strip_prefix("# -- ") {
            comment = Some(text.to_owned());
        } else if let (Some(text), Some(comment)) = (trimmed.strip_prefix("# "), &mut comment) {
            *comment = format!("{comment} {text}");
        } else if let Some((key, _)) = trimmed.split_once(':')
            && !trimmed.starts_with(['#', '-'])
        {
            path.retain(|(at, _)| *at < indent);
            path.push((indent, key.to_owned()));
            if let Some(text) = comment.take() {
                let keys: Vec<&str> = path.iter().map(|(_, key)| key.as_str()).collect();
                let default = values.pointer(&format!("/{}", keys.join("/"))).unwrap_or_else(|| panic!("{keys:?}"));
                rows.push(Row { key: keys.join("."), default: default.clone(), text });
            }
        }
    }
    rows
}

/// The paths of all values that are not maps, and of empty maps.
fn leaves(value: &Value, path: &str, found: &mut Vec<String>) {
    match value.as_object() {
        Some(fields) if !fields.is_empty() => {
            for (name, field) in fields {
                leaves(field, &if path.is_empty() { name.clone() } else { format!("{path}.{name}") }, found);
            }
        }
        _ => found.push(path.to_owned()),
    }
}

#[test]
fn the_readme_lists_every_value() {
    let source = text(&format!("{CHART}/values.yaml"));
    let values = &documents("values.yaml", &source)[0];
    let rows = rows(values, &source);
    let mut found = Vec::new();
    leaves(values, "", &mut found);
    for leaf in &found {
        let is_documented = |row: &Row| leaf == &row.key || leaf.starts_with(&format!("{}.", row.key));
        assert!(rows.iter().any(is_documented), "values.yaml: {leaf} has no comment");
    }
    let mut table = "| value | default | meaning |\n|---|---|---|\n".to_owned();
    for Row { key, default, text } in rows {
        table += &format!("| `{key}` | `{default}` | {text} |\n");
    }
    let (begin, end) = ("<!-- the values, from values.yaml -->\n\n", "\n<!-- end of the values -->\n");
    let readme = text(&format!("{CHART}/README.md"));
    let (before, rest) = readme.split_once(begin).expect("where the table begins");
    let (_, after) = rest.split_once(end).expect("where the table ends");
    let current = [before, begin, &table, end, after].concat();
    if std::env::var_os("UPDATE_README").is_some() {
        std::fs::write(repository().join(CHART).join("README.md"), &current).expect("README.md");
    } else {
        assert!(readme == current, "not current: UPDATE_README=1 cargo test -p e2e --test k8s the_readme_lists");
    }
}

#[test]
fn the_chart_is_packed_with_the_objects_that_it_loads() {
    let version = env!("CARGO_PKG_VERSION");
    let chart = &documents("Chart.yaml", &text(&format!("{CHART}/Chart.yaml")))[0];
    assert_eq!((&chart["version"], &chart["appVersion"]), (&json!(version), &json!(version)));
    let folder = e2e::Folder::new();
    let to = folder.path().display().to_string();
    let Some(output) = helm(&["package", ".", "--destination", &to]) else { return };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let archive = folder.join(&format!("line-stream-{version}.tgz"));
    let packed =
        helm(&["template", "ours", &archive.display().to_string(), "--namespace", "line-stream"]).expect("as before");
    assert!(packed.status.success(), "{}", String::from_utf8_lossy(&packed.stderr));
    let packed = documents("the archive", &String::from_utf8_lossy(&packed.stdout));
    assert_eq!(packed, rendered(&[]).expect("as before"));
    let listed = Command::new("tar").args(["--list", "--gzip", "--file"]).arg(&archive).output().expect("tar");
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    assert!(Path::new(CHART).is_relative() && listed.contains("line-stream/base/reader.yaml"), "{listed}");
    assert!(!listed.contains("/ci/") && !listed.contains("kustomization"), "{listed}");
}
