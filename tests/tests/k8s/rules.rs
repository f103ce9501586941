//! Configuration and rules, judged by promtool.

use std::path::{Path, PathBuf};
use std::process::Command;

use e2e::Folder;

use crate::manifests::{config, text};

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
