//! Names that point at other things point at something.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use e2e::{Program, Rig, text};
use serde_json::Value;

use crate::kustomize::variants;
use crate::manifests::{containers_of, find, list, object, selects, service_of, title, word, workloads_of};

/// The environment variables that a service knows: its help names one with each flag.
pub(crate) fn variables(program: Program) -> BTreeSet<String> {
    let help = Command::new(program.path()).arg("--help").output().expect("--help");
    let help = String::from_utf8(help.stdout).expect("text");
    let names = help.split("[env: ").skip(1).filter_map(|rest| rest.split(['=', ']']).next());
    names.map(|name| name.trim().to_owned()).collect()
}

pub(crate) fn labels(workload: &Value) -> &Value {
    &workload["spec"]["template"]["metadata"]["labels"]
}

pub(crate) fn containers(workload: &Value) -> Vec<&Value> {
    containers_of(&workload["spec"]["template"]["spec"])
}

/// The named ports of a workload.
fn ports(workload: &Value) -> BTreeMap<&str, i64> {
    let ports = containers(workload).into_iter().flat_map(|container| list(&container["ports"]));
    ports.map(|port| (word(&port["name"]), port["containerPort"].as_i64().expect("a number"))).collect()
}

#[test]
fn services_find_pods_and_their_ports() {
    for (variant, objects) in variants() {
        println!("{variant}");
        check_services(&objects);
    }
}

fn check_services(objects: &[Value]) {
    let workloads = workloads_of(objects);
    let services: Vec<_> = objects.iter().filter(|one| one["kind"] == "Service").collect();
    for service in &services {
        let spec = &service["spec"];
        let found: Vec<_> = workloads.iter().filter(|one| selects(&spec["selector"], labels(one))).collect();
        let [workload] = found[..] else { panic!("{}: {} workloads", title(service), found.len()) };
        for port in list(&spec["ports"]) {
            assert!(ports(workload).contains_key(word(&port["targetPort"])), "{}: {port}", title(service));
        }
    }
    for workload in &workloads {
        assert!(selects(&workload["spec"]["selector"]["matchLabels"], labels(workload)), "{}", title(workload));
        if let Some(name) = workload["spec"]["serviceName"].as_str() {
            assert!(services.iter().any(|service| service["metadata"]["name"] == name), "{name}");
        }
    }
}

#[test]
fn network_policies_and_budgets_name_pods_and_ports_that_exist() {
    for (variant, objects) in variants() {
        println!("{variant}");
        check_policies(&objects);
        check_budgets(&objects);
    }
}

pub(crate) fn check_policies(objects: &[Value]) {
    let workloads = workloads_of(objects);
    let matches = |selector: &Value, workload: &Value| {
        let expressions = list(&selector["matchExpressions"])
            .iter()
            .all(|one| list(&one["values"]).contains(&labels(workload)[word(&one["key"])]));
        expressions && (selector["matchLabels"].is_null() || selects(&selector["matchLabels"], labels(workload)))
    };
    for policy in objects.iter().filter(|one| one["kind"] == "NetworkPolicy") {
        let spec = &policy["spec"];
        let of: Vec<_> = workloads.iter().filter(|one| matches(&spec["podSelector"], one)).collect();
        assert!(!of.is_empty(), "{}", title(policy));
        for rule in list(&spec["ingress"]).iter().chain(list(&spec["egress"])) {
            let peers = list(&rule["from"]).iter().chain(list(&rule["to"]));
            let peers: Vec<_> = peers
                .map(|peer| workloads.iter().find(|one| matches(&peer["podSelector"], one)).expect("a peer"))
                .collect();
            let targets = if rule["to"].is_null() { &of } else { &peers };
            for port in list(&rule["ports"]).iter().filter_map(|port| port["port"].as_str()) {
                assert!(targets.iter().all(|target| ports(target).contains_key(port)), "{}: {port}", title(policy));
            }
        }
    }
}

fn check_budgets(objects: &[Value]) {
    let budgets: Vec<_> = objects.iter().filter(|one| one["kind"] == "PodDisruptionBudget").collect();
    assert!(!budgets.is_empty());
    for budget in budgets {
        let workload = find(objects, "StatefulSet", word(&budget["metadata"]["name"]));
        assert!(selects(&budget["spec"]["selector"]["matchLabels"], labels(&workload)), "{}", title(budget));
        // More would never let a node be drained, less is no bound.
        assert_eq!(budget["spec"]["maxUnavailable"], 1, "{}", title(budget));
    }
}

#[test]
fn volumes_maps_accounts_and_roles_exist() {
    for (variant, objects) in variants() {
        println!("{variant}");
        check_volumes(&objects);
    }
}

fn check_volumes(objects: &[Value]) {
    let exists =
        |kind: &str, name: &Value| objects.iter().any(|one| one["kind"] == kind && one["metadata"]["name"] == *name);
    for workload in workloads_of(objects) {
        let (title, pod) = (title(&workload), &workload["spec"]["template"]["spec"]);
        let claims = list(&workload["spec"]["volumeClaimTemplates"]).iter().map(|claim| &claim["metadata"]["name"]);
        let names: Vec<_> = list(&pod["volumes"]).iter().map(|volume| &volume["name"]).chain(claims).collect();
        for volume in list(&pod["volumes"]) {
            let (map, claim) = (&volume["configMap"]["name"], &volume["persistentVolumeClaim"]["claimName"]);
            assert!(map.is_null() || exists("ConfigMap", map), "{title}: {map}");
            assert!(claim.is_null() || exists("PersistentVolumeClaim", claim), "{title}: {claim}");
        }
        for container in containers_of(pod) {
            for mount in list(&container["volumeMounts"]) {
                assert!(names.contains(&&mount["name"]), "{title}: {mount}");
            }
            for from in list(&container["envFrom"]) {
                assert!(from["configMapRef"].is_null() || exists("ConfigMap", &from["configMapRef"]["name"]));
                assert!(from["secretRef"].is_null() || from["secretRef"]["optional"] == true, "{title}: {from}");
            }
        }
        let account = &pod["serviceAccountName"];
        assert!(account.is_null() || exists("ServiceAccount", account), "{title}: {account}");
    }
    for binding in objects.iter().filter(|one| one["roleRef"].is_object()) {
        let role = &binding["roleRef"]["name"];
        let built_in = ["system:auth-delegator", "extension-apiserver-authentication-reader"];
        assert!(built_in.contains(&word(role)) || exists("ClusterRole", role), "{}: {role}", title(binding));
    }
}

#[test]
fn variables_are_flags_and_commands_are_binaries_of_the_image() {
    for (variant, objects) in variants() {
        println!("{variant}");
        check_variables(&objects);
    }
}

fn check_variables(objects: &[Value]) {
    for program in [Program::Reader, Program::Writer] {
        let (name, known) = (program.name(), variables(program));
        assert!(known.contains("REDIS_URL") && known.len() > 5, "{known:?}");
        let (_, container) = service_of(objects, name);
        let shared = find(objects, "ConfigMap", "line-stream")["data"].clone();
        let own = list(&container["env"]).iter().map(|one| word(&one["name"]).to_owned());
        for variable in own.chain(shared.as_object().expect("data").keys().cloned()) {
            assert!(known.contains(&variable), "{name}: {variable} is none of {known:?}");
        }
    }
}

#[test]
fn the_services_take_the_values_and_serve_the_probes() {
    let rig = Rig::new();
    rig.write_input(text::numbered(0..100, 1));
    for (kind, program) in [("Deployment", Program::Reader), ("StatefulSet", Program::Writer)] {
        let workload = object(kind, program.name());
        let container = containers(&workload)[0];
        let mut launch = match program {
            Program::Reader => rig.reader(),
            Program::Writer => rig.writer().unset("--consumer").env("LINE_STREAM_CONSUMER", "writer-0"),
        };
        for one in list(&container["env"]).iter().filter(|one| one["value"].is_string()) {
            launch = launch.env(word(&one["name"]), word(&one["value"]));
        }
        let mut service = launch.start();
        service.wait_for_metric("line_stream_redis_up", |up| up == 1.0);
        for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
            let (port, path) = (&container[probe]["httpGet"]["port"], word(&container[probe]["httpGet"]["path"]));
            assert_eq!(ports(&workload).get(word(port)), Some(&8080), "the default of --http-addr");
            assert_eq!(path, if probe == "readinessProbe" { "/readyz" } else { "/healthz" }, "{probe}");
            e2e::wait::until(path, || service.get(path).0 == 200);
        }
        assert_eq!(service.get("/metrics").0, 200);
        service.stop();
    }
}
