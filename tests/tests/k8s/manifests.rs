//! Reading the manifests.

use std::path::{Path, PathBuf};

use serde::Deserialize as _;
use serde_json::Value;

/// The files in the order of docs/kubernetes.md.
pub(crate) const ORDER: [&str; 10] = [
    "namespace.yaml",
    "network-policies.yaml",
    "redis.yaml",
    "reader.yaml",
    "writer.yaml",
    "writer-pdb.yaml",
    "prometheus-configmap.yaml",
    "prometheus-deployment.yaml",
    "prometheus-adapter.yaml",
    "writer-hpa.yaml",
];

/// The repository.
pub(crate) fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace").to_owned()
}

/// A file of the repository.
pub(crate) fn text(path: &str) -> String {
    std::fs::read_to_string(repository().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The documents of a YAML text.
pub(crate) fn documents(name: &str, text: &str) -> Vec<Value> {
    let read = |document| Value::deserialize(document).unwrap_or_else(|error| panic!("{name}: {error}"));
    serde_yaml_ng::Deserializer::from_str(text).map(read).filter(|value: &Value| !value.is_null()).collect()
}

/// Every object of `k8s/`.
pub(crate) fn objects() -> Vec<Value> {
    ORDER.iter().flat_map(|name| documents(name, &text(&format!("k8s/{name}")))).collect()
}

/// The names of the overlays.
pub(crate) fn overlays() -> Vec<String> {
    names_in("k8s/overlays")
}

/// The names of the components.
pub(crate) fn components() -> Vec<String> {
    names_in("k8s/components")
}

fn names_in(folder: &str) -> Vec<String> {
    let folder = std::fs::read_dir(repository().join(folder)).expect("a folder");
    let mut names: Vec<String> =
        folder.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// The objects that a component's own files hold.
pub(crate) fn own_objects(component: &str) -> Vec<Value> {
    let folder = format!("k8s/components/{component}");
    let entries = std::fs::read_dir(repository().join(&folder)).expect("a component");
    let names = entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned());
    let files = names.filter(|name| name.ends_with(".yaml") && name != "kustomization.yaml");
    files.map(|name| format!("{folder}/{name}")).flat_map(|path| documents(&path, &text(&path))).collect()
}

/// The object of this kind and name in `k8s/`.
pub(crate) fn object(kind: &str, name: &str) -> Value {
    find(&objects(), kind, name)
}

/// The object of this kind and name; the name of a ConfigMap may end in a hash.
#[track_caller]
pub(crate) fn find(objects: &[Value], kind: &str, name: &str) -> Value {
    let found = objects.iter().find(|one| one["kind"] == kind && name_of(one) == name);
    found.cloned().unwrap_or_else(|| panic!("{kind}/{name}"))
}

/// Deployments and StatefulSets of `k8s/`.
pub(crate) fn workloads() -> Vec<Value> {
    workloads_of(&objects())
}

/// Deployments and StatefulSets.
pub(crate) fn workloads_of(objects: &[Value]) -> Vec<Value> {
    let is_workload = |one: &&Value| matches!(one["kind"].as_str(), Some("Deployment" | "StatefulSet"));
    objects.iter().filter(is_workload).cloned().collect()
}

/// The containers of a pod: its own, and its sidecars, which are init containers that stay.
pub(crate) fn containers_of(pod: &Value) -> Vec<&Value> {
    let sidecars = list(&pod["initContainers"]).iter().filter(|one| one["restartPolicy"] == "Always");
    list(&pod["containers"]).iter().chain(sidecars).collect()
}

/// The container that runs this binary of the image, and its workload.
#[track_caller]
pub(crate) fn service_of(objects: &[Value], program: &str) -> (Value, Value) {
    let command = serde_json::json!([format!("/usr/local/bin/{program}")]);
    let of = |workload: &Value| {
        let containers = containers_of(&workload["spec"]["template"]["spec"]);
        containers.into_iter().find(|container| container["command"] == command).cloned()
    };
    let found = workloads_of(objects).into_iter().find_map(|workload| of(&workload).map(|one| (workload, one)));
    found.unwrap_or_else(|| panic!("{program}"))
}

/// Kind and name.
pub(crate) fn title(object: &Value) -> String {
    format!("{}/{}", word(&object["kind"]), name_of(object))
}

/// The name, without the hash that kustomize puts behind the name of a ConfigMap.
pub(crate) fn name_of(object: &Value) -> &str {
    let name = word(&object["metadata"]["name"]);
    match name.rsplit_once('-') {
        Some((plain, hash)) if object["kind"] == "ConfigMap" && hash.len() == 10 => plain,
        _ => name,
    }
}

/// A string.
#[track_caller]
pub(crate) fn word(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("a string: {value}"))
}

/// An array; empty when it is not there.
pub(crate) fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// Whether `selector` selects an object with these labels.
pub(crate) fn selects(selector: &Value, labels: &Value) -> bool {
    selector.as_object().is_some_and(|wanted| wanted.iter().all(|(name, value)| labels[name] == *value))
}

/// A key of a ConfigMap.
pub(crate) fn config(map: &str, key: &str) -> String {
    word(&object("ConfigMap", map)["data"][key]).to_owned()
}
