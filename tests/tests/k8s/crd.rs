//! Checks objects of other projects' kinds against the schemas of their CustomResourceDefinitions.
//! The schemas in `crds/` are shortened: a field that no manifest uses has a name and no schema.

use serde_json::Value;

use crate::adapter::autoscaler_query;
use crate::manifests::{config, documents, list, object, text, title, word};

/// What is wrong with `value`, by a structural schema.
fn judge(value: &Value, schema: &Value, path: &str, wrong: &mut Vec<String>) {
    if schema["x-kubernetes-int-or-string"] == true {
        if !(value.is_string() || value.is_i64()) {
            wrong.push(format!("{path}: neither a number nor a string"));
        }
        return;
    }
    let fits = match schema["type"].as_str() {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("boolean") => value.is_boolean(),
        Some("integer") => value.is_i64() || value.is_u64(),
        Some("number") => value.is_number(),
        _ => true,
    };
    if !fits {
        wrong.push(format!("{path}: not of type {}", schema["type"]));
    }
    if let Some(allowed) = schema["enum"].as_array()
        && !allowed.contains(value)
    {
        wrong.push(format!("{path}: {value} is none of {allowed:?}"));
    }
    for name in list(&schema["required"]) {
        if value.get(word(name)).is_none() {
            wrong.push(format!("{path}: {name} is missing"));
        }
    }
    if let Some(fields) = value.as_object() {
        let (properties, additional) = (schema.get("properties"), schema.get("additionalProperties"));
        let is_open = schema["x-kubernetes-preserve-unknown-fields"] == true || path == ".metadata";
        for (name, field) in fields {
            let path = format!("{path}.{name}");
            match properties.and_then(|known| known.get(name)).or(additional) {
                Some(schema) => judge(field, schema, &path, wrong),
                None if is_open => {}
                None => wrong.push(format!("{path}: no such field")),
            }
        }
    }
    for (at, item) in list(value).iter().enumerate() {
        judge(item, &schema["items"], &format!("{path}[{at}]"), wrong);
    }
}

fn faults(value: &Value, schema: &Value) -> Vec<String> {
    let mut wrong = Vec::new();
    judge(value, schema, "", &mut wrong);
    wrong
}

fn schema(name: &str) -> Value {
    serde_json::from_str(&text(&format!("tests/tests/k8s/crds/{name}.json"))).expect("a schema")
}

/// Holds an object of another project's kind against its schema.
pub(crate) fn check(object: &Value) -> Result<(), String> {
    let kind = word(&object["kind"]);
    if !["PodMonitor", "PrometheusRule", "ScaledObject", "ServiceMonitor"].contains(&kind) {
        return Err(format!("{kind}: an unknown kind"));
    }
    let faults = faults(object, &schema(&kind.to_lowercase()));
    if faults.is_empty() { Ok(()) } else { Err(faults.join(", ")) }
}

fn overlay(file: &str) -> Vec<Value> {
    documents(file, &text(&format!("k8s/components/{file}.yaml")))
}

#[test]
fn overlays_fit_the_schemas_of_their_kinds() {
    for (file, name) in [
        ("keda/scaledobject", "scaledobject"),
        ("monitoring/servicemonitor", "servicemonitor"),
        ("monitoring/prometheusrule", "prometheusrule"),
        ("redis-exporter/podmonitor", "podmonitor"),
        ("redis-exporter/prometheusrule", "prometheusrule"),
    ] {
        let schema = schema(name);
        for object in overlay(file) {
            assert_eq!(faults(&object, &schema), [""; 0], "{}", title(&object));
        }
    }
}

#[test]
fn the_schemas_find_what_is_wrong() {
    let (schema, mut object) = (schema("scaledobject"), overlay("keda/scaledobject").remove(0));
    object["spec"]["minReplicas"] = 1.into();
    object["spec"]["maxReplicaCount"] = "5".into();
    object["spec"]["triggers"][0].as_object_mut().unwrap().remove("type");
    let found = faults(&object, &schema);
    for part in [".spec.minReplicas: no such field", ".spec.maxReplicaCount: not of", ".spec.triggers[0]: \"type\" is"]
    {
        assert!(found.iter().any(|fault| fault.starts_with(part)), "{part}: {found:?}");
    }
}

/// Both ways of monitoring have the same rules, and both ways of scaling the same bounds and goal.
#[test]
fn overlays_say_the_same_as_what_they_replace() {
    let rules = &documents("rules", &config("prometheus", "rules.yml"))[0];
    assert_eq!(overlay("monitoring/prometheusrule")[0]["spec"]["groups"], rules["groups"]);

    let (hpa, scaled) = (object("HorizontalPodAutoscaler", "writer"), overlay("keda/scaledobject").remove(0));
    let (hpa, scaled) = (&hpa["spec"], &scaled["spec"]);
    assert_eq!(scaled["minReplicaCount"], hpa["minReplicas"]);
    assert_eq!(scaled["maxReplicaCount"], hpa["maxReplicas"]);
    assert_eq!(scaled["scaleTargetRef"]["name"], hpa["scaleTargetRef"]["name"]);
    assert_eq!(scaled["advanced"]["horizontalPodAutoscalerConfig"]["behavior"], hpa["behavior"]);
    let [trigger] = list(&scaled["triggers"]) else { panic!("one trigger: {scaled}") };
    let (goal, asked) = (&hpa["metrics"][0]["external"]["target"], &trigger["metadata"]);
    assert_eq!(trigger["metricType"], goal["type"]);
    assert_eq!(asked["threshold"], goal["averageValue"]);
    assert_eq!(word(&asked["query"]), autoscaler_query());
    let prometheus = object("Service", "prometheus");
    let port = &list(&prometheus["spec"]["ports"])[0]["port"];
    assert_eq!(word(&asked["serverAddress"]), format!("http://prometheus.line-stream.svc:{port}"));
}

#[test]
fn service_monitors_find_the_services() {
    for monitor in overlay("monitoring/servicemonitor") {
        let service = object("Service", word(&monitor["metadata"]["name"]));
        assert!(crate::manifests::selects(&monitor["spec"]["selector"]["matchLabels"], &service["metadata"]["labels"]));
        let port = &monitor["spec"]["endpoints"][0]["port"];
        assert!(list(&service["spec"]["ports"]).iter().any(|one| one["name"] == *port), "{port}");
    }
}
