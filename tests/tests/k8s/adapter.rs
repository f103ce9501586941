//! The way of the backlog from Prometheus to the autoscaler.

use serde_json::Value;

use crate::manifests::{config, documents, list, object, word};

/// The query by which the adapter answers the autoscaler.
pub(crate) fn autoscaler_query() -> String {
    let rule = rule();
    let metric = &object("HorizontalPodAutoscaler", "writer")["spec"]["metrics"][0]["external"]["metric"];
    let labels = metric["selector"]["matchLabels"].as_object().expect("labels");
    let mut matchers = vec![r#"namespace="line-stream""#.to_owned()];
    matchers.extend(labels.iter().map(|(name, value)| format!("{name}=\"{}\"", word(value))));
    let query = word(&rule["metricsQuery"]).replace("<<.Series>>", &series(&rule));
    query.replace("<<.LabelMatchers>>", &matchers.join(","))
}

/// The only rule of the adapter.
fn rule() -> Value {
    let rules = documents("adapter", &config("prometheus-adapter", "config.yaml")).remove(0);
    let [rule] = list(&rules["externalRules"]) else { panic!("one rule: {rules}") };
    rule.clone()
}

fn series(rule: &Value) -> String {
    word(&rule["seriesQuery"]).split('{').next().expect("a name").to_owned()
}

#[test]
fn the_autoscaler_asks_for_what_the_adapter_serves() {
    let (hpa, rule) = (object("HorizontalPodAutoscaler", "writer"), rule());
    let spec = &hpa["spec"];
    let target = object(word(&spec["scaleTargetRef"]["kind"]), word(&spec["scaleTargetRef"]["name"]));
    assert_eq!(target["apiVersion"], spec["scaleTargetRef"]["apiVersion"]);
    let external = &spec["metrics"][0]["external"];
    assert_eq!(external["metric"]["name"], rule["name"]["as"]);
    assert_eq!(external["target"]["type"], "AverageValue");
    assert_eq!(spec["minReplicas"], 1);
    let records = config("prometheus", "rules.yml");
    assert!(records.contains(&format!("record: {}\n", series(&rule))), "what is asked for is recorded");

    // Stream and group are those that the services work on.
    let labels = &external["metric"]["selector"]["matchLabels"];
    assert_eq!(labels["stream"], object("ConfigMap", "line-stream")["data"]["STREAM"]);
    let writer = object("StatefulSet", "writer");
    let env = list(&writer["spec"]["template"]["spec"]["containers"][0]["env"]);
    assert!(env.iter().any(|one| one["name"] == "GROUP" && one["value"] == labels["group"]));
}

#[test]
fn the_api_is_served_by_the_adapter() {
    let api = object("APIService", "v1beta1.external.metrics.k8s.io");
    let service = object("Service", word(&api["spec"]["service"]["name"]));
    assert_eq!(service["metadata"]["namespace"], api["spec"]["service"]["namespace"]);
    assert_eq!(list(&service["spec"]["ports"])[0]["port"], api["spec"]["service"]["port"]);
    let account =
        serde_json::json!([{"kind": "ServiceAccount", "name": "prometheus-adapter", "namespace": "line-stream"}]);
    assert_eq!(object("ClusterRoleBinding", "line-stream-adapter-auth-delegator")["subjects"], account);
    let reader = object("RoleBinding", "line-stream-adapter-auth-reader");
    assert_eq!((&reader["subjects"], word(&reader["metadata"]["namespace"])), (&account, "kube-system"));
    let args =
        object("Deployment", "prometheus-adapter")["spec"]["template"]["spec"]["containers"][0]["args"].to_string();
    let prometheus = object("Service", "prometheus");
    assert!(args.contains(&format!("http://prometheus:{}/", list(&prometheus["spec"]["ports"])[0]["port"])));
}
