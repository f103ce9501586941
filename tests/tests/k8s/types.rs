//! Every object has the type that its kind names, and no field beside it.

use k8s_openapi::api;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::manifests::{documents, objects, title, word};

/// Reads the object as `T` and writes it again. What got lost on the way is no field of `T`.
fn through<T: DeserializeOwned + Serialize>(object: &Value) -> Result<(), String> {
    let typed: T = serde_json::from_value(object.clone()).map_err(|error| error.to_string())?;
    let again = serde_json::to_value(&typed).map_err(|error| error.to_string())?;
    lost(object, &again, "").map_or(Ok(()), |path| Err(format!("no such field: {path}")))
}

/// The first value that is in `before` and not in `after`.
pub(crate) fn lost(before: &Value, after: &Value, path: &str) -> Option<String> {
    match (before, after) {
        (Value::Object(before), Value::Object(after)) => before.iter().find_map(|(name, value)| {
            let path = format!("{path}.{name}");
            match after.get(name) {
                Some(kept) => lost(value, kept, &path),
                // An empty selector or an empty volume may be omitted.
                None if value.as_object().is_some_and(serde_json::Map::is_empty) => None,
                None => Some(path),
            }
        }),
        (Value::Array(before), Value::Array(after)) if before.len() == after.len() => {
            let mut pairs = before.iter().zip(after).enumerate();
            pairs.find_map(|(at, (value, kept))| lost(value, kept, &format!("{path}[{at}]")))
        }
        _ => (before != after).then(|| path.to_owned()),
    }
}

/// Validates a native object against its type; `None` for a kind that Kubernetes does not define.
pub(crate) fn check(object: &Value) -> Option<Result<(), String>> {
    Some(match (word(&object["apiVersion"]), word(&object["kind"])) {
        ("v1", "Namespace") => through::<api::core::v1::Namespace>(object),
        ("v1", "Service") => through::<api::core::v1::Service>(object),
        ("v1", "ConfigMap") => through::<api::core::v1::ConfigMap>(object),
        ("v1", "ServiceAccount") => through::<api::core::v1::ServiceAccount>(object),
        ("v1", "PersistentVolumeClaim") => through::<api::core::v1::PersistentVolumeClaim>(object),
        ("batch/v1", "Job") => through::<api::batch::v1::Job>(object),
        ("apps/v1", "Deployment") => through::<api::apps::v1::Deployment>(object),
        ("apps/v1", "StatefulSet") => through::<api::apps::v1::StatefulSet>(object),
        ("autoscaling/v2", "HorizontalPodAutoscaler") => {
            through::<api::autoscaling::v2::HorizontalPodAutoscaler>(object)
        }
        ("policy/v1", "PodDisruptionBudget") => through::<api::policy::v1::PodDisruptionBudget>(object),
        ("networking.k8s.io/v1", "NetworkPolicy") => through::<api::networking::v1::NetworkPolicy>(object),
        ("rbac.authorization.k8s.io/v1", "ClusterRole") => through::<api::rbac::v1::ClusterRole>(object),
        ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding") => through::<api::rbac::v1::ClusterRoleBinding>(object),
        ("rbac.authorization.k8s.io/v1", "RoleBinding") => through::<api::rbac::v1::RoleBinding>(object),
        ("apiregistration.k8s.io/v1", "APIService") => through::<APIService>(object),
        _ => return None,
    })
}

#[test]
fn every_object_is_of_its_type_without_a_field_too_many() {
    let objects = objects();
    assert!(objects.len() > 30, "{}", objects.len());
    for object in &objects {
        let judged = check(object).unwrap_or_else(|| Err("an unknown kind".to_owned()));
        assert_eq!(judged, Ok(()), "{}", title(object));
    }
}

#[test]
fn a_misspelt_field_and_a_wrong_type_are_found() {
    let service = |spec: &str| {
        let text = format!("apiVersion: v1\nkind: Service\nmetadata: {{name: x}}\nspec: {spec}\n");
        check(&documents("x", &text)[0]).expect("a Service is known")
    };
    assert_eq!(service("{clusterIP: None, ports: [{port: 1}]}"), Ok(()));
    assert_eq!(service("{clusterIp: None}"), Err("no such field: .spec.clusterIp".to_owned()));
    assert_eq!(
        service("{ports: [{port: 1, targetport: 2}]}"),
        Err("no such field: .spec.ports[0].targetport".to_owned())
    );
    assert!(service("{ports: [{port: many}]}").is_err());
}
