//! `k8s/jobs/render.sh`: the Jobs that prove and merge what the writers wrote.

use std::process::{Command, Output};

use e2e::Program;
use serde_json::Value;

use crate::manifests::{documents, find, list, object, repository, title, word};
use crate::pods::breaks_restricted;
use crate::types;

fn run(args: &[&str]) -> Output {
    run_for("", args)
}

fn run_for(stream: &str, args: &[&str]) -> Output {
    let mut command = Command::new("sh");
    command.env("STREAM", stream);
    command.arg(repository().join("k8s/jobs/render.sh")).args(args).env("INPUTS", "input.txt input.txt.1");
    command.output().expect("sh")
}

fn rendered(kind: &str, writers: &str) -> Vec<Value> {
    let output = run(&[kind, writers]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    documents(kind, &String::from_utf8(output.stdout).expect("text"))
}

#[test]
fn jobs_mount_every_volume_and_give_flags_that_exist() {
    for kind in ["verify", "merge"] {
        let objects = rendered(kind, "3");
        for object in &objects {
            assert_eq!(types::check(object), Some(Ok(())), "{}", title(object));
        }
        let pod = find(&objects, "Job", kind)["spec"]["template"]["spec"].clone();
        assert_eq!(breaks_restricted(&pod), [""; 0], "{kind}");
        let container = &list(&pod["containers"])[0];
        let writer = object("StatefulSet", "writer")["spec"]["template"]["spec"].clone();
        assert_eq!(container["image"], writer["containers"][0]["image"]);
        assert_eq!(pod["securityContext"], writer["securityContext"], "it may read what the writers wrote");
        let claims: Vec<&str> =
            list(&pod["volumes"]).iter().map(|one| word(&one["persistentVolumeClaim"]["claimName"])).collect();
        let last = if kind == "verify" { "reader-data" } else { "merged" };
        assert_eq!(claims, ["data-writer-0", "data-writer-1", "data-writer-2", last]);
        let help = Command::new(Program::Writer.path()).args([kind, "--help"]).output().expect("--help");
        let help = String::from_utf8(help.stdout).expect("text");
        let args: Vec<&str> = list(&container["args"]).iter().map(word).collect();
        let mounts: Vec<&str> = list(&container["volumeMounts"]).iter().map(|one| word(&one["mountPath"])).collect();
        for arg in &args {
            let (flag, path) = arg.split_once('=').expect("--flag=path");
            assert!(help.contains(flag), "{flag}");
            assert!(mounts.iter().any(|mount| path.starts_with(mount)), "{path}");
        }
        let inputs = args.iter().filter(|arg| arg.starts_with("--input=")).count();
        assert_eq!((args.len() - inputs, inputs), if kind == "verify" { (3, 2) } else { (4, 0) }, "{args:?}");
    }
}

/// The claims are those of the chart.
#[test]
fn a_stream_with_a_name_has_jobs_of_its_own() {
    for (kind, last) in [("verify", "reader-orders-data"), ("merge", "merged-orders")] {
        let output = run_for("orders", &[kind, "2"]);
        let objects = documents(kind, &String::from_utf8(output.stdout).expect("text"));
        let job = find(&objects, "Job", &format!("{kind}-orders"));
        let volumes = &job["spec"]["template"]["spec"]["volumes"];
        let claims: Vec<&str> =
            list(volumes).iter().map(|one| word(&one["persistentVolumeClaim"]["claimName"])).collect();
        assert_eq!(claims, ["data-writer-orders-0", "data-writer-orders-1", last]);
    }
}

#[test]
fn what_cannot_be_rendered_is_refused() {
    for args in [&[][..], &["verify"], &["verify", "0"], &["verify", "x"], &["other", "1"]] {
        let output = run(args);
        assert!(!output.status.success() && output.stdout.is_empty(), "{args:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("usage"), "{args:?}");
    }
}
