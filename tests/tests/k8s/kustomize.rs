//! `kubectl kustomize` renders everything.

use std::process::Command;

use serde_json::Value;

use crate::manifests::{ORDER, documents, list, objects, overlays, repository, text, title};
use crate::types;

/// What `kubectl kustomize` makes of a folder; `None`, and a word about it, where there is no
/// kubectl that can.
pub(crate) fn render(folder: &str) -> Option<Vec<Value>> {
    let output = match Command::new("kubectl").arg("kustomize").arg(repository().join(folder)).output() {
        Ok(output) => output,
        Err(error) => {
            eprintln!("SKIPPED: {folder} is not rendered: kubectl: {error}");
            return None;
        }
    };
    assert!(output.status.success(), "{folder}: {}", String::from_utf8_lossy(&output.stderr));
    Some(documents(folder, &String::from_utf8(output.stdout).expect("text")))
}

/// `k8s/` and every overlay; no overlay where there is no kubectl that can render it.
pub(crate) fn variants() -> Vec<(String, Vec<Value>)> {
    let overlays = overlays().into_iter().map(|name| format!("k8s/overlays/{name}"));
    let rendered = overlays.map_while(|folder| render(&folder).map(|objects| (folder, objects)));
    std::iter::once(("k8s".to_owned(), objects())).chain(rendered).collect()
}

fn titles(objects: &[Value]) -> Vec<String> {
    let mut titles: Vec<String> = objects.iter().map(title).collect();
    titles.sort();
    titles
}

#[test]
fn together_is_the_same_as_one_by_one() {
    let Some(rendered) = render("k8s") else { return };
    assert_eq!(titles(&rendered), titles(&objects()));
}

#[test]
fn overlays_add_and_leave_out_what_they_say() {
    let expected = [
        ("no-demo", &[][..], &[][..]),
        ("keda", &["HorizontalPodAutoscaler/writer", "prometheus-adapter"], &["ScaledObject/writer"]),
        (
            "monitoring",
            &[],
            &["ServiceMonitor/writer", "PrometheusRule/line-stream", "ConfigMap/line-stream-dashboard"],
        ),
        ("own-redis", &["/redis", "/redis-from-services"], &["Deployment/reader"]),
        (
            "cluster",
            &["/redis", "HorizontalPodAutoscaler/writer", "prometheus-adapter"],
            &["StatefulSet/redis-cluster", "Deployment/redis-cluster-reconciler", "ConfigMap/redis-cluster"],
        ),
    ];
    let mut names: Vec<&str> = expected.iter().map(|(name, ..)| *name).collect();
    names.sort_unstable();
    assert_eq!(names, overlays());
    for (name, without, with) in expected {
        let Some(rendered) = render(&format!("k8s/overlays/{name}")) else { return };
        let titles = titles(&rendered);
        for part in without {
            assert!(!titles.iter().any(|title| title.ends_with(part)), "{name}: {part} in {titles:?}");
        }
        for title in with {
            assert!(titles.contains(&(*title).to_owned()), "{name}: no {title} in {titles:?}");
        }
        for object in &rendered {
            if let Some(judged) = types::check(object) {
                assert_eq!(judged, Ok(()), "{name}: {}", title(object));
            }
        }
        let reader = rendered.iter().find(|one| title(one) == "Deployment/reader").expect("the reader");
        let containers = list(&reader["spec"]["template"]["spec"]["containers"]);
        assert_eq!(containers.iter().any(|one| one["name"] == "demo"), name != "no-demo", "{name}");
    }
}

#[test]
fn the_docs_apply_every_file_in_this_order() {
    let docs = text("docs/kubernetes.md");
    let at = |name: &&str| docs.find(&format!("`k8s/{name}`")).unwrap_or_else(|| panic!("{name}"));
    let places: Vec<usize> = ORDER.iter().map(at).collect();
    assert!(places.is_sorted(), "{places:?}");
    let kustomization = text("k8s/base/kustomization.yaml");
    let listed: Vec<&str> = kustomization.lines().filter_map(|line| line.trim().strip_prefix("- ")).collect();
    assert_eq!(listed, ORDER);
}
