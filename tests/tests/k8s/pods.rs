//! What every pod keeps: the restricted Pod Security Standard, probes, resources, graceful ends.

use serde_json::Value;

use crate::kustomize::variants;
use crate::manifests::{containers_of, list, object, title, word, workloads, workloads_of};

/// The rules of the restricted Pod Security Standard that a pod of ours can break.
pub(crate) fn breaks_restricted(pod: &Value) -> Vec<String> {
    let mut broken = Vec::new();
    let mut must = |holds: bool, what: String| {
        if !holds {
            broken.push(what);
        }
    };
    let context = &pod["securityContext"];
    must(context["runAsNonRoot"] == true, "runAsNonRoot".into());
    must(context["runAsUser"] != 0, "runAsUser".into());
    must(context["seccompProfile"]["type"] == "RuntimeDefault", "seccompProfile".into());
    for field in ["hostNetwork", "hostPID", "hostIPC"] {
        must(pod[field].is_null(), field.into());
    }
    for container in list(&pod["containers"]).iter().chain(list(&pod["initContainers"])) {
        let (name, context) = (word(&container["name"]), &container["securityContext"]);
        must(context["allowPrivilegeEscalation"] == false, format!("{name}: allowPrivilegeEscalation"));
        must(context["capabilities"]["drop"] == serde_json::json!(["ALL"]), format!("{name}: capabilities"));
        must(context["capabilities"]["add"].is_null(), format!("{name}: capabilities"));
        must(context["privileged"].is_null(), format!("{name}: privileged"));
        must(list(&container["ports"]).iter().all(|port| port["hostPort"].is_null()), format!("{name}: hostPort"));
    }
    let allowed = ["configMap", "emptyDir", "persistentVolumeClaim", "secret", "projected"];
    for volume in list(&pod["volumes"]) {
        must(allowed.iter().any(|kind| !volume[*kind].is_null()), format!("volume {}", volume["name"]));
    }
    broken
}

#[test]
fn pods_keep_the_restricted_standard() {
    let namespace = object("Namespace", "line-stream");
    assert_eq!(namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"], "restricted");
    for (variant, objects) in variants() {
        for workload in workloads_of(&objects) {
            // OpenShift assigns a user; elsewhere an image may have root as its own.
            let user = &workload["spec"]["template"]["spec"]["securityContext"]["runAsUser"];
            assert!(variant.contains("openshift") || user.as_i64() > Some(0), "{variant}: {}", title(&workload));
            let broken = breaks_restricted(&workload["spec"]["template"]["spec"]);
            assert_eq!(broken, [""; 0], "{variant}: {}", title(&workload));
        }
    }
    let mut pod = object("Deployment", "reader")["spec"]["template"]["spec"].clone();
    pod["containers"][0]["securityContext"]["capabilities"]["drop"] = serde_json::json!([]);
    pod["volumes"][0] = serde_json::json!({"name": "data", "hostPath": {"path": "/"}});
    assert_eq!(breaks_restricted(&pod).len(), 2, "what breaks it is found");
}

#[test]
fn pods_are_run_with_care() {
    assert_eq!(workloads().len(), 5);
    for (variant, workload) in variants()
        .iter()
        .flat_map(|(variant, objects)| workloads_of(objects).into_iter().map(move |workload| (variant, workload)))
    {
        let pod = &workload["spec"]["template"]["spec"];
        let speaks_with_the_api = workload["metadata"]["name"] == "prometheus-adapter";
        let title = format!("{variant}: {}", title(&workload));
        assert_eq!(pod["automountServiceAccountToken"], speaks_with_the_api, "{title}");
        assert!(pod["terminationGracePeriodSeconds"].as_i64() >= Some(30), "{title}");
        let labels = &workload["spec"]["template"]["metadata"]["labels"];
        assert_eq!(
            pod["topologySpreadConstraints"][0]["labelSelector"]["matchLabels"]["app.kubernetes.io/name"],
            labels["app.kubernetes.io/name"]
        );
        for container in containers_of(pod) {
            let name = format!("{title}: {}", container["name"]);
            assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true, "{name}");
            for kind in ["requests", "limits"] {
                for resource in ["cpu", "memory"] {
                    assert!(container["resources"][kind][resource].is_string(), "{name}: {kind} {resource}");
                }
            }
            let (_, tag) = word(&container["image"]).rsplit_once(':').unwrap_or_else(|| panic!("{name}: no tag"));
            assert!(tag != "latest" && !tag.contains('/'), "{name}: {tag}");
            // An image that was loaded into the cluster is not asked for elsewhere.
            assert_eq!(container["imagePullPolicy"], "IfNotPresent", "{name}");
        }
        // What the pod is there for; in the pod of an application, the sidecar.
        let main = list(&pod["initContainers"]).first().unwrap_or(&pod["containers"][0]);
        for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
            // The readiness of a sidecar is that of the pod: an application must not need Redis.
            let expected = main["restartPolicy"] != "Always" || probe != "readinessProbe";
            assert_eq!(main[probe].is_object(), expected, "{title}: {probe}");
        }
    }
}

#[test]
fn nothing_is_lost_when_writers_go() {
    let writer = object("StatefulSet", "writer");
    for policy in ["whenDeleted", "whenScaled"] {
        assert_eq!(writer["spec"]["persistentVolumeClaimRetentionPolicy"][policy], "Retain");
    }
    // The autoscaler's number must not be taken back when the file is applied again.
    assert!(writer["spec"]["replicas"].is_null());
    let env = list(&writer["spec"]["template"]["spec"]["containers"][0]["env"]);
    let of = |name: &str| env.iter().find(|one| one["name"] == name).unwrap_or_else(|| panic!("{name}"));
    assert_eq!(of("LINE_STREAM_CONSUMER")["valueFrom"]["fieldRef"]["fieldPath"], "metadata.name");
    assert_eq!(of("LINE_STREAM_FSYNC")["value"], "always");
    assert_ne!(of("LINE_STREAM_CLAIM_IDLE")["value"], "off", "what a writer left that is gone must be taken over");
}
