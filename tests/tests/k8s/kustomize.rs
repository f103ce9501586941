//! `kubectl kustomize` renders everything.

use std::path::Path;
use std::process::Command;

use e2e::Folder;
use serde_json::Value;

use crate::manifests::{
    ORDER, components, containers_of, documents, find, list, objects, overlays, repository, service_of, text, title,
    word, workloads_of,
};
use crate::types;

/// What `kubectl kustomize` makes of a folder; `None`, and a word about it, where there is no
/// kubectl that can.
pub(crate) fn render(folder: &str) -> Option<Vec<Value>> {
    render_in(&repository(), folder)
}

fn render_in(root: &Path, folder: &str) -> Option<Vec<Value>> {
    let output = match Command::new("kubectl").arg("kustomize").arg(root.join(folder)).output() {
        Ok(output) => output,
        Err(error) => {
            eprintln!("SKIPPED: {folder} is not rendered: kubectl: {error}");
            return None;
        }
    };
    assert!(output.status.success(), "{folder}: {}", String::from_utf8_lossy(&output.stderr));
    Some(documents(folder, &String::from_utf8(output.stdout).expect("text")))
}

/// `k8s/` and every overlay, and combinations of components; of these none where there is no
/// kubectl that can render them.
pub(crate) fn variants() -> Vec<(String, Vec<Value>)> {
    let overlays = overlays().into_iter().map(|name| format!("k8s/overlays/{name}"));
    let rendered = overlays.map_while(|folder| render(&folder).map(|objects| (folder, objects)));
    let all = std::iter::once(("k8s".to_owned(), objects())).chain(rendered);
    let largest = LARGEST.map(|some| some.to_owned() + REST);
    let largest: Vec<Vec<&str>> = largest.iter().map(|some| some.split(' ').collect()).collect();
    all.chain(combinations(largest.iter().map(Vec::as_slice))).collect()
}

/// A copy of `k8s/` that a test may change.
struct Tree {
    folder: Folder,
}

impl Tree {
    fn new() -> Self {
        let folder = Folder::new();
        let copied = Command::new("cp").arg("-R").arg(repository().join("k8s")).arg(folder.path()).status();
        assert!(copied.expect("cp").success());
        Self { folder }
    }

    /// Renders the base with these components, and with more in its kustomization.
    fn combine(&self, components: &[&str], more: &str) -> Option<Vec<Value>> {
        let mut text = "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: [../../base]\n\
                        components:\n"
            .to_owned();
        for component in components.iter().chain(&["common"]) {
            text = text + "  - ../../components/" + component + "\n";
        }
        self.write("overlays/combined/kustomization.yaml", &(text + more));
        self.render("overlays/combined")
    }

    fn render(&self, folder: &str) -> Option<Vec<Value>> {
        render_in(self.folder.path(), &format!("k8s/{folder}"))
    }

    fn write(&self, file: &str, text: &str) {
        let path = self.folder.join(&format!("k8s/{file}"));
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        std::fs::write(path, text).expect("a file");
    }

    fn replace(&self, file: &str, from: &str, to: &str) {
        let text = text(&format!("k8s/{file}"));
        assert!(text.contains(from), "{file}: {from}");
        self.write(file, &text.replace(from, to));
    }
}

/// As many components as can be combined.
const LARGEST: [&str; 5] = [
    "cluster keda redis-exporter",
    "cluster writer-per-partition redis-exporter cluster-tls",
    "own-redis keda",
    "redis-exporter redis-tls",
    "sentinel redis-exporter sentinel-tls",
];
/// Those that fit to all of these.
const REST: &str = " monitoring no-demo no-tail openshift read-write-once-pod";

/// Renders combinations; none where there is no kubectl.
pub(crate) fn combinations<'a>(sets: impl IntoIterator<Item = &'a [&'a str]>) -> Vec<(String, Vec<Value>)> {
    let tree = Tree::new();
    sets.into_iter().map_while(|set| Some((set.join(" + "), tree.combine(set, "")?))).collect()
}

#[test]
fn every_component_stands_alone() {
    let names: Vec<String> = components().into_iter().filter(|name| name != "common").collect();
    let known = format!("{} {REST} no-autoscaler sidecar", LARGEST.join(" "));
    for name in &names {
        assert!(known.split(' ').any(|known| known == name), "say here with what {name} fits");
    }
    // Each alone; variants() has as many as fit together.
    let alone: Vec<[&str; 1]> =
        names.iter().map(|name| [name.as_str()]).filter(|[name]| *name != "writer-per-partition").collect();
    let combinations = combinations(alone.iter().map(<[&str; 1]>::as_slice));
    for (names, objects) in &combinations {
        for object in objects {
            if let Some(judged) = types::check(object) {
                assert_eq!(judged, Ok(()), "{names}: {}", title(object));
            }
            let namespace = &object["metadata"]["namespace"];
            assert!(namespace.is_null() || namespace == "line-stream" || namespace == "kube-system", "{names}");
        }
        let titles = titles(objects);
        let mut unique = titles.clone();
        unique.dedup();
        assert_eq!(titles, unique, "{names}: no object twice");
    }
    assert!(combinations.is_empty() || combinations.len() == names.len() - 1, "{}", combinations.len());
}

#[test]
fn every_object_has_its_type_and_the_recommended_labels() {
    for (variant, objects) in variants().iter().skip(1) {
        let titles = titles(objects);
        assert!(titles.windows(2).all(|pair| pair[0] != pair[1]), "{variant}: no object twice: {titles:?}");
        for object in objects {
            if let Some(judged) = types::check(object) {
                assert_eq!(judged, Ok(()), "{variant}: {}", title(object));
            }
            let labels = &object["metadata"]["labels"];
            for label in ["name", "part-of", "version", "managed-by"] {
                let value = &labels[format!("app.kubernetes.io/{label}")];
                assert!(value.is_string() || object["kind"] == "Namespace", "{variant}: {}: {label}", title(object));
            }
        }
        for workload in workloads_of(objects) {
            let labels = &workload["spec"]["template"]["metadata"]["labels"];
            assert!(labels["app.kubernetes.io/component"].is_string(), "{variant}: {}", title(&workload));
            // A claim template cannot be changed, so that a version in it would end all upgrades.
            let claims = &workload["spec"]["volumeClaimTemplates"][0]["metadata"]["labels"];
            assert!(claims["app.kubernetes.io/version"].is_null(), "{variant}: {}", title(&workload));
        }
    }
}

#[test]
fn one_place_has_the_image_of_every_overlay() {
    let tree = Tree::new();
    let version = env!("CARGO_PKG_VERSION");
    tree.replace(
        "components/common/kustomization.yaml",
        &format!("newName: docker.io/library/line-stream\n    newTag: {version}\n"),
        "newName: registry.example/ours\n    digest: sha256:0123\n",
    );
    for folder in std::iter::once(".".to_owned()).chain(overlays().iter().map(|name| format!("overlays/{name}"))) {
        let Some(objects) = tree.render(&folder) else { return };
        let images: Vec<String> = workloads_of(&objects)
            .iter()
            .flat_map(|workload| {
                containers_of(&workload["spec"]["template"]["spec"]).into_iter().cloned().collect::<Vec<_>>()
            })
            .map(|container| word(&container["image"]).to_owned())
            .collect();
        assert!(!images.iter().any(|image| image.contains("line-stream")), "{folder}: {images:?}");
        let ours = images.iter().filter(|image| *image == "registry.example/ours@sha256:0123").count();
        let expected =
            if titles(&objects).iter().any(|one| one == "Deployment/redis-cluster-reconciler") { 3 } else { 2 };
        assert_eq!(ours, expected, "{folder}: {images:?}");
    }
}

#[test]
fn a_changed_config_map_is_rolled_out() {
    let changes = [
        ("base/reader.yaml", "STREAM: line_stream", "STREAM: other", ["reader", "writer"].as_slice()),
        ("base/redis.yaml", "maxmemory 384mb", "maxmemory 385mb", &["redis"]),
        ("base/prometheus-configmap.yaml", "for: 2m", "for: 3m", &["prometheus"]),
        ("base/prometheus-adapter.yaml", "as: stream_backlog_entries", "as: other", &["prometheus-adapter"]),
        ("components/cluster/redis.conf", "maxmemory 384mb", "maxmemory 385mb", &["redis-cluster"]),
        ("components/sentinel/start.sh", "line-stream 5000", "line-stream 6000", &["redis-sentinel"]),
    ];
    for (file, from, to, expected) in changes {
        let tree = Tree::new();
        let folder = ["cluster", "sentinel"].into_iter().find(|name| file.contains(name));
        let folder = folder.map_or_else(|| ".".to_owned(), |name| format!("overlays/{name}"));
        let Some(before) = tree.render(&folder) else { return };
        tree.replace(file, from, to);
        let after = tree.render(&folder).expect("as before");
        let changed: Vec<String> = workloads_of(&before)
            .iter()
            .zip(workloads_of(&after))
            .filter(|(before, after)| before["spec"]["template"] != after["spec"]["template"])
            .map(|(before, _)| word(&before["metadata"]["name"]).to_owned())
            .collect();
        assert_eq!(changed, expected, "{file}");
    }
}

#[test]
fn an_installation_can_be_in_another_namespace() {
    let tree = Tree::new();
    let more = |transformer: &str| format!("namespace: elsewhere\ntransformers: [../../transformers/{transformer}]\n");
    for (components, transformer) in [
        (&[][..], "namespace-with-adapter"),
        (&["openshift", "monitoring", "read-write-once-pod"], "namespace-with-adapter"),
        (&["keda", "monitoring", "cluster"], "namespace"),
        (&["cluster", "writer-per-partition", "no-demo"], "namespace"),
    ] {
        let Some(objects) = tree.combine(components, &more(transformer)) else { return };
        find(&objects, "Namespace", "elsewhere");
        for object in &objects {
            let namespace = object["metadata"]["namespace"].as_str();
            let expected = if object["roleRef"]["kind"] == "Role" { "kube-system" } else { "elsewhere" };
            assert!(namespace.is_none_or(|namespace| namespace == expected), "{components:?}: {}", title(object));
            for subject in list(&object["subjects"]) {
                let expected = if subject["name"] == "prometheus-adapter" { "elsewhere" } else { "kube-system" };
                assert_eq!(subject["namespace"], expected, "{}", title(object));
            }
            let text = object.to_string();
            for hidden in ["line-stream.svc", "namespace=\\\"line-stream", "\"namespace\":\"line-stream"] {
                assert!(!text.contains(hidden), "{}: {hidden}", title(object));
            }
        }
    }
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
        (
            "sidecar",
            &["Deployment/reader", "reader-data", "HorizontalPodAutoscaler/writer", "prometheus-adapter"],
            &["Deployment/app", "PersistentVolumeClaim/app-logs", "Service/reader", "StatefulSet/writer"],
        ),
        ("sentinel", &["/redis"], &["StatefulSet/redis-sentinel", "ConfigMap/redis-sentinel"]),
        (
            "second",
            &["/redis", "HorizontalPodAutoscaler/writer", "prometheus-adapter"],
            &["StatefulSet/redis-cluster", "ScaledObject/writer", "PrometheusRule/line-stream"],
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
        let (reader, _) = service_of(&rendered, "reader");
        let containers = list(&reader["spec"]["template"]["spec"]["containers"]);
        assert_eq!(
            containers.iter().any(|one| one["name"] == "demo"),
            !["no-demo", "second", "sidecar"].contains(&name),
            "{name}"
        );
    }
}

/// The reader in the pod of an application sees its logs, outlives it, and the writers mirror them.
#[test]
fn a_sidecar_follows_the_logs_of_its_application() {
    let Some(objects) = render("k8s/overlays/sidecar") else { return };
    let (app, reader) = service_of(&objects, "reader");
    assert_eq!(reader["restartPolicy"], "Always");
    let pod = &app["spec"]["template"]["spec"];
    let env = |container: &Value, name: &str| {
        let found = list(&container["env"]).iter().find(|one| one["name"] == name);
        found.map(|one| word(&one["value"]).to_owned())
    };
    let input = env(&reader, "LINE_STREAM_INPUT").expect("the input");
    let (folder, _) = input.rsplit_once('/').expect("a path");
    let mounts = |container: &Value| {
        let mount = list(&container["volumeMounts"]).iter().find(|one| one["mountPath"] == folder);
        mount.map(|mount| word(&mount["name"]).to_owned())
    };
    assert!(mounts(&reader).is_some() && mounts(&reader) == mounts(&pod["containers"][0]), "{folder}");
    // A volume that lives as long as the pod would lose what was not sent yet.
    let volume = list(&pod["volumes"]).iter().find(|one| Some(word(&one["name"])) == mounts(&reader).as_deref());
    assert!(volume.expect("a volume")["persistentVolumeClaim"].is_object());
    let (_, writer) = service_of(&objects, "writer");
    assert_eq!(env(&writer, "LINE_STREAM_OUTPUT"), None);
    assert_eq!(env(&writer, "LINE_STREAM_OUTPUT_DIR").as_deref(), Some("/data"));
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
