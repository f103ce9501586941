//! Configuration and rules, judged by promtool.

use std::path::{Path, PathBuf};
use std::process::Command;

use e2e::Folder;

use crate::manifests::{config, documents, text};

/// A program of Prometheus; `None`, and a word about it, where there is none. `cargo xtask test`
/// installs them where it can.
pub(crate) fn tool(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|folder| folder.join(name)).find(|program| program.is_file());
    if found.is_none() {
        eprintln!("SKIPPED: no {name} on this machine");
    }
    found
}

/// Runs promtool, which must succeed; its standard output.
#[track_caller]
pub(crate) fn promtool(program: &Path, folder: &Path, args: &[&str]) -> String {
    let output = Command::new(program).current_dir(folder).args(args).output().expect("promtool");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "promtool {args:?}: {said}{}", String::from_utf8_lossy(&output.stderr));
    said
}

/// Puts configuration and rules into a folder.
fn write(folder: &Folder) {
    let at = folder.path().display().to_string();
    let prometheus = config("prometheus", "prometheus.yml").replace("/etc/prometheus", &at);
    std::fs::write(folder.join("prometheus.yml"), prometheus).expect("a file");
    std::fs::write(folder.join("rules.yml"), config("prometheus", "rules.yml")).expect("a file");
}

#[test]
fn promtool_accepts_configuration_and_rules() {
    let Some(program) = tool("promtool") else { return };
    let folder = Folder::new();
    write(&folder);
    promtool(&program, folder.path(), &["check", "config", "--lint-fatal", "prometheus.yml"]);
}

#[test]
fn every_alert_fires_when_it_should_and_is_silent_when_not() {
    let Some(program) = tool("promtool") else { return };
    let folder = Folder::new();
    write(&folder);
    let cases = text("tests/tests/k8s/rules_test.yaml");
    std::fs::write(folder.join("rules_test.yaml"), &cases).expect("a file");
    promtool(&program, folder.path(), &["test", "rules", "rules_test.yaml"]);

    // Each alert has a case in which it fires.
    let rules = config("prometheus", "rules.yml");
    let alerts: Vec<_> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(alerts.len() >= 9, "{alerts:?}");
    for alert in alerts {
        let of_alert = cases.split("alertname: ").skip(1).filter(|case| case.split_whitespace().next() == Some(alert));
        assert!(of_alert.into_iter().any(|case| case.contains("exp_labels")), "{alert} has no case in which it fires");
    }
}

#[test]
fn the_alerts_of_redis_fire_and_the_docs_explain_them() {
    let rule = documents("rule", &text("k8s/components/redis-exporter/prometheusrule.yaml")).remove(0);
    let docs = text("docs/kubernetes.md");
    let rules = serde_json::json!({"groups": rule["spec"]["groups"]});
    for alert in rules["groups"][0]["rules"].as_array().expect("rules") {
        let name = alert["alert"].as_str().expect("a name");
        assert!(docs.contains(&format!("\n### {name}\n")), "docs/kubernetes.md has no section {name}");
        assert_eq!(alert["annotations"]["runbook"], format!("docs/kubernetes.md#{}", name.to_lowercase()));
    }
    let Some(program) = tool("promtool") else { return };
    let folder = Folder::new();
    std::fs::write(folder.join("rules.yml"), rules.to_string()).expect("a file");
    let series = |values: [&str; 5]| {
        let names = [
            "redis_memory_used_bytes",
            "redis_memory_max_bytes",
            "redis_aof_last_write_status",
            "redis_master_link_up",
            "redis_connected_slave_lag_seconds",
        ];
        let series = names.iter().zip(values).map(|(name, value)| {
            serde_json::json!({"series": format!("{name}{{job=\"redis\",pod=\"redis-0\"}}"), "values": format!("{value}x60")})
        });
        series.collect::<Vec<_>>()
    };
    let case = |values, fires: &[&str]| {
        let rules = rules["groups"][0]["rules"].as_array().expect("rules").iter();
        let tests: Vec<_> = rules
            .map(|rule| {
                let name = rule["alert"].as_str().expect("a name");
                let labels =
                    serde_json::json!({"severity": rule["labels"]["severity"], "job": "redis", "pod": "redis-0"});
                let fires = fires.contains(&name);
                let expected = if fires { vec![serde_json::json!({"exp_labels": labels})] } else { vec![] };
                serde_json::json!({"eval_time": "14m", "alertname": name, "exp_alerts": expected})
            })
            .collect();
        serde_json::json!({"interval": "15s", "input_series": series(values), "alert_rule_test": tests})
    };
    let all = ["LineStreamRedisMemoryFilling", "LineStreamRedisAofFailing", "LineStreamRedisReplicaBehind"];
    let mut cases = vec![case(["50+0", "100+0", "1+0", "1+0", "1+0"], &[])];
    cases.push(case(["95+0", "100+0", "0+0", "0+0", "1+0"], &all));
    cases.push(case(["95+0", "0+0", "1+0", "1+0", "60+0"], &all[2..]));
    // The text of an alert is not compared.
    let mut plain = rules.clone();
    for rule in plain["groups"][0]["rules"].as_array_mut().expect("rules") {
        rule.as_object_mut().expect("a rule").remove("annotations");
    }
    promtool(&program, folder.path(), &["check", "rules", "rules.yml"]);
    std::fs::write(folder.join("rules.yml"), plain.to_string()).expect("a file");
    let test = serde_json::json!({"rule_files": ["rules.yml"], "evaluation_interval": "15s", "tests": cases});
    std::fs::write(folder.join("test.yml"), test.to_string()).expect("a file");
    promtool(&program, folder.path(), &["test", "rules", "test.yml"]);
}
