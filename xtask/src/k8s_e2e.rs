//! The story of docs/kubernetes.md, on the cluster that `KUBECONFIG` names: install, load, scale,
//! force deletes, restarts and losses, proof, uninstall. It prints a table of what held and how
//! long it took.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};

use crate::cargo;
use crate::interrupt::Interrupt;
use crate::{During, Error, Result};

/// The namespace of the manifests.
const NAMESPACE: &str = "line-stream";
/// The image in the manifests.
const IMAGE: &str = concat!("docker.io/library/line-stream:", env!("CARGO_PKG_VERSION"));
/// How often a state that is awaited is looked at.
const POLL: Duration = Duration::from_secs(2);
/// How long an ordinary step may take.
const SOON: Duration = Duration::from_secs(300);
/// How long the autoscaler may take from five writers to one.
const QUIET: Duration = Duration::from_secs(900);

#[derive(Args)]
pub(crate) struct K8sArgs {
    /// What to install
    #[arg(long, value_enum, default_value_t = Variant::Base)]
    variant: Variant,

    /// The image, where the cluster finds it
    #[arg(long, value_name = "NAME:TAG", default_value = IMAGE)]
    image: String,

    /// How many lines to load
    #[arg(long, value_name = "N", default_value_t = 5_000_000)]
    lines: u64,

    /// Leave the installation, to look at it
    #[arg(long)]
    keep: bool,
}

/// What to install.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Variant {
    /// One Redis, adapter and autoscaler
    Base,
    /// The same with KEDA
    Keda,
    /// Three Redis with Sentinels
    Sentinel,
    /// A Redis Cluster, and a writer for each partition
    Cluster,
    /// The Helm chart, with two streams
    Chart,
}

impl Variant {
    /// What kustomize renders; `None` for the chart.
    const fn folder(self) -> Option<&'static str> {
        match self {
            Self::Base => Some("k8s"),
            Self::Keda => Some("k8s/overlays/keda"),
            Self::Sentinel => Some("k8s/overlays/sentinel"),
            Self::Cluster => Some("k8s/overlays/cluster"),
            Self::Chart => None,
        }
    }

    /// The names of the streams, which end the names of their objects.
    const fn streams(self) -> &'static [&'static str] {
        if matches!(self, Self::Chart) { &["orders", "audit"] } else { &[""] }
    }

    /// The StatefulSet of Redis.
    const fn redis(self) -> &'static str {
        match self {
            Self::Base | Self::Keda | Self::Chart => "redis",
            Self::Sentinel => "redis-sentinel",
            Self::Cluster => "redis-cluster",
        }
    }

    /// How many writers there can have been.
    const fn writers(self) -> u32 {
        if matches!(self, Self::Cluster) { 6 } else { 5 }
    }
}

pub(crate) fn run(args: &K8sArgs) -> Result<()> {
    let interrupt = Interrupt::watch()?;
    let story = Story {
        kubectl: "kubectl".into(),
        helm: "helm".into(),
        workspace: cargo::workspace()?,
        args,
        interrupt: &interrupt,
    };
    let found = story.kubectl(&["get", "namespace", NAMESPACE, "--ignore-not-found", "-o", "name"])?;
    if !found.trim().is_empty() {
        return Err(Error::new(format!(
            "the namespace {NAMESPACE} exists; this would delete it with all its volumes: remove it, or name another cluster with KUBECONFIG"
        )));
    }
    let mut rows = Vec::new();
    let done = story.tell(&mut rows);
    if !args.keep {
        rows.push(timed("uninstall", || story.uninstall()));
    }
    print!("{}", table(&rows));
    done.and_then(|()| rows.pop().map_or(Ok(()), |row| row.result))
}

/// A step of the story.
struct Row {
    name: &'static str,
    took: Duration,
    result: Result<()>,
}

fn timed(name: &'static str, step: impl FnOnce() -> Result<()>) -> Row {
    println!("== {name}");
    let begun = Instant::now();
    let result = step();
    Row { name, took: begun.elapsed(), result }
}

fn table(rows: &[Row]) -> String {
    let width = rows.iter().map(|row| row.name.len()).max().unwrap_or(0);
    let mut text = "\n".to_owned();
    for Row { name, took, result } in rows {
        let verdict = match result {
            Ok(()) => "ok".to_owned(),
            Err(error) => format!("FAILED: {error}"),
        };
        let _ = writeln!(text, "{name:width$}  {:>6.1} s  {verdict}", took.as_secs_f64());
    }
    text
}

struct Story<'a> {
    kubectl: PathBuf,
    helm: PathBuf,
    workspace: PathBuf,
    args: &'a K8sArgs,
    interrupt: &'a Interrupt,
}

impl Story<'_> {
    /// All steps, until one fails.
    fn tell(&self, rows: &mut Vec<Row>) -> Result<()> {
        type Step = (&'static str, fn(&Story<'_>) -> Result<()>);
        let variant = self.args.variant;
        let is_scaled = variant != Variant::Cluster;
        let mut steps: Vec<Step> = vec![("install", |story| story.install()), ("load", |story| story.load())];
        if is_scaled {
            steps.push(("scale up", |story| story.await_writers(SOON, |writers| writers > 1)));
        }
        if variant.redis() != "redis" {
            steps.push(("all of Redis restarts together", |story| story.restart_redis()));
            steps.push(("a master's volume is lost", |story| story.lose_master()));
            steps.push(("another password", |story| story.change_password()));
        }
        steps.push(("force deletes", |story| story.force_deletes()));
        steps.push(("a machine is drained", |story| story.drain_machine()));
        steps.push(("all lines arrive", |story| story.drain()));
        if is_scaled {
            steps.push(("scale down", |story| story.await_writers(QUIET, |writers| writers == 1)));
        }
        steps.push(("proof", |story| story.prove()));
        for (name, step) in steps {
            rows.push(timed(name, || step(self)));
            if let Some(Row { result: Err(error), .. }) = rows.last() {
                return Err(Error::new(format!("{name}: {error}")));
            }
        }
        Ok(())
    }

    fn install(&self) -> Result<()> {
        if let Some(folder) = self.args.variant.folder() {
            let folder = self.workspace.join(folder);
            let rendered = self.kubectl(&["kustomize", &folder.to_string_lossy()])?;
            self.apply(&rendered.replace(IMAGE, &self.args.image))?;
        } else {
            self.install_chart()?;
        }
        self.await_ready()
    }

    fn install_chart(&self) -> Result<()> {
        let chart = self.workspace.join("charts/line-stream");
        let mut helm = Command::new(&self.helm);
        helm.args(["install", "line-stream"]).arg(chart).args(["--namespace", NAMESPACE, "--create-namespace"]);
        for (nth, name) in self.args.variant.streams().iter().enumerate() {
            helm.args(["--set", &format!("streams[{nth}].name={name},streams[{nth}].stream={name}")]);
        }
        // A port of the registry may stand before the last slash.
        let (repository, version) = match self.args.image.split_once('@') {
            Some((repository, digest)) => (repository, format!("image.digest={digest}")),
            None => match self.args.image.rsplit_once(':').filter(|(_, tag)| !tag.contains('/')) {
                Some((repository, tag)) => (repository, format!("image.tag={tag}")),
                None => (self.args.image.as_str(), "image.tag=latest".to_owned()),
            },
        };
        helm.args(["--set-string", &format!("image.repository={repository},{version}")]);
        output(&mut helm, None).map(drop)
    }

    /// All workloads, Redis first.
    fn await_ready(&self) -> Result<()> {
        let mut workloads = vec![format!("sts/{}", self.args.variant.redis())];
        if self.args.variant == Variant::Cluster {
            workloads.push("deploy/redis-cluster-reconciler".to_owned());
        }
        workloads.extend(self.readers());
        workloads.extend(self.writers());
        workloads.push("deploy/prometheus".to_owned());
        for workload in &workloads {
            self.inside(&["rollout", "status", workload, "--timeout", &format!("{}s", SOON.as_secs())])?;
        }
        Ok(())
    }

    fn readers(&self) -> Vec<String> {
        self.args.variant.streams().iter().map(|name| format!("deploy/{}", named("reader", name))).collect()
    }

    fn writers(&self) -> Vec<String> {
        self.args.variant.streams().iter().map(|name| format!("sts/{}", named("writer", name))).collect()
    }

    fn load(&self) -> Result<()> {
        let lines = format!("seq 1 {} >>/data/input.txt", self.args.lines);
        for reader in self.readers() {
            self.inside(&["exec", &reader, "-c", "demo", "--", "sh", "-c", &lines])?;
        }
        Ok(())
    }

    fn await_writers(&self, patience: Duration, is_it: impl Fn(u32) -> bool) -> Result<()> {
        self.await_that("the number of writers", patience, || {
            for writer in self.writers() {
                let replicas = self.inside(&["get", &writer, "-o", "jsonpath={.status.readyReplicas}"])?;
                if !is_it(replicas.trim().parse().unwrap_or(0)) {
                    return Ok(false);
                }
            }
            Ok(true)
        })
    }

    fn force_deletes(&self) -> Result<()> {
        for name in [self.args.variant.redis(), "reader", "writer"] {
            let selector = format!("app.kubernetes.io/name={name}");
            let pods = self.inside(&["get", "pod", "-l", &selector, "-o", "name"])?;
            if let Some(pod) = pods.lines().next() {
                self.inside(&["delete", pod, "--force", "--grace-period=0", "--wait=false"])?;
            }
            self.await_ready()?;
        }
        Ok(())
    }

    /// The machine of a writer.
    fn drain_machine(&self) -> Result<()> {
        let writer = "app.kubernetes.io/name=writer";
        let node = self.inside(&["get", "pod", "-l", writer, "-o", "jsonpath={.items[0].spec.nodeName}"])?;
        let ours = "--pod-selector=app.kubernetes.io/part-of=line-stream";
        let drained = self.kubectl(&["drain", &node, ours, "--delete-emptydir-data", "--timeout=90s"]);
        self.kubectl(&["uncordon", &node])?;
        if let Err(error) = drained {
            // A pod whose volume stays on the machine cannot start elsewhere, and a budget then
            // lets no second one go.
            println!("   not all pods could go: {error}");
        }
        self.await_ready()
    }

    fn restart_redis(&self) -> Result<()> {
        let selector = format!("app.kubernetes.io/name={}", self.args.variant.redis());
        self.inside(&["delete", "pod", "-l", &selector, "--wait=true"])?;
        self.await_ready()
    }

    fn lose_master(&self) -> Result<()> {
        let (master, replica) = if self.args.variant == Variant::Cluster {
            // The first master of all, and the pod of its replica.
            let nodes = self.redis_cli("redis-cluster-0", "cluster nodes")?;
            let (master, replica) = pair_of(&nodes)
                .ok_or_else(|| Error::new(format!("CLUSTER NODES has no master with a replica: {nodes}")))?;
            (master, Some(replica))
        } else {
            let ask = "-p 26379 --raw sentinel get-master-addr-by-name line-stream";
            let named = self.redis_cli("redis-sentinel-0", ask)?;
            (named.split('.').next().unwrap_or_default().to_owned(), None)
        };
        println!("   {master} loses its volume{}", if replica.is_some() { ", its replica restarts" } else { "" });
        self.inside(&["delete", "pvc", &format!("data-{master}"), "--wait=false"])?;
        let mut delete = vec!["delete", "pod", &master];
        delete.extend(replica.as_deref());
        self.inside(&[delete.as_slice(), &["--force", "--grace-period=0"]].concat())?;
        self.await_ready()
    }

    fn change_password(&self) -> Result<()> {
        let password = "s3cret";
        let url = self.inside(&["get", "cm", "-o", "jsonpath={.items[*].data.REDIS_URL}"])?;
        let mut url = url.trim().replace("://", &format!("://:{password}@"));
        let mut restarted = vec!["rollout", "restart", "deploy/reader", "sts/writer"];
        match self.args.variant {
            Variant::Cluster => restarted.push("deploy/redis-cluster-reconciler"),
            Variant::Sentinel => url = format!("{url}?sentinel_password={password}"),
            Variant::Base | Variant::Keda | Variant::Chart => {}
        }
        self.inside(&[
            "create",
            "secret",
            "generic",
            "line-stream-redis",
            &format!("--from-literal=REDIS_PASSWORD={password}"),
            &format!("--from-literal=REDIS_URL={url}"),
        ])?;
        let selector = format!("app.kubernetes.io/name={}", self.args.variant.redis());
        self.inside(&["delete", "pod", "-l", &selector])?;
        self.inside(&restarted)?;
        self.await_ready()
    }

    /// No line comes any more, then nothing waits.
    fn drain(&self) -> Result<()> {
        let no_demo = r#"[{"op": "remove", "path": "/spec/template/spec/containers/1"}]"#;
        for reader in self.readers() {
            self.inside(&["patch", &reader, "--type", "json", "--patch", no_demo])?;
        }
        self.await_ready()?;
        for query in ["sum(reader_input_size_bytes - reader_input_position_bytes)", "sum(stream:backlog_entries:sum)"] {
            // Long enough for a scrape and a rule of Prometheus to have seen the last change.
            let query = format!("max_over_time(({query})[30s:5s])");
            self.await_that(&query, QUIET, || Ok(self.query(&query)? == Some(0.0)))?;
        }
        Ok(())
    }

    fn prove(&self) -> Result<()> {
        if self.args.variant == Variant::Keda {
            self.inside(&["annotate", "scaledobject/writer", "autoscaling.keda.sh/paused=true"])?;
        }
        let claims = self.inside(&["get", "pvc", "-o", "name"])?;
        for workload in self.readers().iter().chain(&self.writers()) {
            self.inside(&["scale", workload, "--replicas", "0"])?;
        }
        for name in ["reader", "writer"] {
            let selector = format!("app.kubernetes.io/name={name}");
            self.inside(&["wait", "--for=delete", "pod", "-l", &selector, "--timeout", "300s"])?;
        }
        self.args.variant.streams().iter().try_for_each(|stream| self.prove_stream(stream, &claims))
    }

    fn prove_stream(&self, stream: &str, claims: &str) -> Result<()> {
        let of_writers = format!("/data-{}-", named("writer", stream));
        let writers = claims.lines().filter(|claim| claim.contains(&of_writers)).count();
        if writers == 0 || writers > self.args.variant.writers() as usize {
            return Err(Error::new(format!("{writers} volumes of writers: {claims}")));
        }
        let mut render = Command::new("sh");
        render.arg(self.workspace.join("k8s/jobs/render.sh")).args(["verify", &writers.to_string()]);
        let rendered = output(render.env("IMAGE", &self.args.image).env("STREAM", stream), None)?;
        self.inside_with(&["apply", "-f", "-"], Some(&rendered))?;
        let job = format!("job/{}", named("verify", stream));
        self.await_that("the proof", QUIET, || {
            let status = self.inside(&["get", &job, "-o", "jsonpath={.status.succeeded}/{.status.failed}"])?;
            match status.trim().split_once('/') {
                Some(("1", _)) => Ok(true),
                Some((_, "")) => Ok(false),
                _ => Err(Error::new(self.inside(&["logs", &job])?)),
            }
        })?;
        print!("{}", self.inside(&["logs", &job])?);
        Ok(())
    }

    fn uninstall(&self) -> Result<()> {
        let ours = ["--selector", "app.kubernetes.io/part-of=line-stream"];
        self.kubectl(&["delete", "namespace", NAMESPACE, "--ignore-not-found"])?;
        self.kubectl(&[&["delete", "apiservice,clusterrole,clusterrolebinding"][..], &ours].concat())?;
        self.kubectl(&[&["delete", "rolebinding", "--namespace", "kube-system"][..], &ours].concat()).map(drop)
    }

    fn redis_cli(&self, pod: &str, command: &str) -> Result<String> {
        self.inside(&[
            "exec",
            pod,
            "-c",
            "redis",
            "--",
            "sh",
            "-c",
            &format!("REDISCLI_AUTH=\"$REDIS_PASSWORD\" redis-cli {command}"),
        ])
    }

    /// The value of a query with one result.
    fn query(&self, query: &str) -> Result<Option<f64>> {
        let said = self.inside(&[
            "exec",
            "deploy/prometheus",
            "--",
            "promtool",
            "query",
            "instant",
            "http://localhost:9090",
            query,
        ])?;
        Ok(said.lines().last().and_then(|line| line.split("=> ").nth(1)?.split(' ').next()?.parse().ok()))
    }

    fn await_that(&self, what: &str, patience: Duration, mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
        let begun = Instant::now();
        while !holds()? {
            if begun.elapsed() > patience {
                return Err(Error::new(format!("waited {} s in vain: {what}", patience.as_secs())));
            }
            self.interrupt.check()?;
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    fn apply(&self, objects: &str) -> Result<()> {
        output(Command::new(&self.kubectl).args(["apply", "-f", "-"]), Some(objects)).map(drop)
    }

    /// kubectl in the namespace.
    fn inside(&self, args: &[&str]) -> Result<String> {
        self.inside_with(args, None)
    }

    fn inside_with(&self, args: &[&str], input: Option<&str>) -> Result<String> {
        output(Command::new(&self.kubectl).args(["--namespace", NAMESPACE]).args(args), input)
    }

    fn kubectl(&self, args: &[&str]) -> Result<String> {
        output(Command::new(&self.kubectl).args(args), None)
    }
}

/// The name of an object of a stream.
fn named(name: &str, stream: &str) -> String {
    if stream.is_empty() { name.to_owned() } else { format!("{name}-{stream}") }
}

/// The pods of a master with slots and of its replica, from `CLUSTER NODES`.
fn pair_of(nodes: &str) -> Option<(String, String)> {
    let rows: Vec<Vec<&str>> = nodes.lines().map(|line| line.split(' ').collect()).collect();
    let pod = |row: &[&str]| Some(row.get(1)?.split_once(',')?.1.split('.').next()?.to_owned());
    rows.iter().filter(|row| row.len() > 8).find_map(|master| {
        let replica = rows.iter().find(|row| row.get(3) == master.first())?;
        Some((pod(master)?, pod(replica)?))
    })
}

/// Runs a command that must succeed; its standard output.
fn output(command: &mut Command, input: Option<&str>) -> Result<String> {
    let shown = format!("{command:?}").replace('"', "");
    let during = |what: &str| format!("{what} {}", Path::new(command.get_program()).display());
    let (starting, feeding, awaiting) = (during("starting"), during("writing to"), during("waiting for"));
    let stdin = if input.is_some() { Stdio::piped() } else { Stdio::null() };
    let child = command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = child.during(|| starting)?;
    if let (Some(mut stdin), Some(input)) = (child.stdin.take(), input) {
        stdin.write_all(input.as_bytes()).during(|| feeding)?;
    }
    let done = child.wait_with_output().during(|| awaiting)?;
    if done.status.success() {
        return Ok(String::from_utf8_lossy(&done.stdout).into_owned());
    }
    Err(Error::new(format!("{shown}: {}", String::from_utf8_lossy(&done.stderr).trim())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    /// A kubectl, and a Helm, that notes what it is asked, and answers as if all went well.
    const KUBECTL: &str = r#"#!/bin/sh
echo "$*" >>"$(dirname "$0")/asked"
case "$*" in
    *readyReplicas*) grep -q "patch deploy/reader" "$(dirname "$0")/asked" && echo 1 || echo 3 ;;
    *promtool*) echo '{} => 0 @[1700000000]' ;;
    *"get pvc"*) printf 'persistentvolumeclaim/data-writer%s-0\n' "" "" -orders -audit ;;
    *"get cm"*) echo 'redis-x://redis:6379' ;;
    *get-master-addr-by-name*) printf 'redis-sentinel-2.redis-sentinel\n6379\n' ;;
    *nodeName*) printf machine-1 ;;
    *"get pod"*) echo pod/one ;;
    *jsonpath=*succeeded*) echo 1/ ;;
    *"cluster nodes"*)
        echo 'aa 10.0.0.1:1@2,redis-cluster-1.redis-cluster master - 0 0 1 connected 0-16383'
        echo 'bb 10.0.0.2:1@2,redis-cluster-4.redis-cluster slave aa 0 0 1 connected' ;;
esac
"#;

    fn asked(variant: Variant) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        let kubectl = folder.path().join("kubectl");
        std::fs::write(&kubectl, KUBECTL).unwrap();
        std::fs::set_permissions(&kubectl, std::fs::Permissions::from_mode(0o755)).unwrap();
        let args = K8sArgs { variant, image: "ours:1".to_owned(), lines: 10, keep: false };
        let interrupt = Interrupt::watch().unwrap();
        let helm = kubectl.clone();
        let workspace = cargo::workspace().unwrap();
        let story = Story { kubectl, helm, workspace, args: &args, interrupt: &interrupt };
        let mut rows = Vec::new();
        story.tell(&mut rows).map_err(|error| error.to_string()).unwrap();
        rows.push(timed("uninstall", || story.uninstall()));
        let table = table(&rows);
        assert!(!table.contains("FAILED") && table.contains("proof"), "{table}");
        let asked = std::fs::read_to_string(folder.path().join("asked")).unwrap();
        asked.lines().map(str::to_owned).collect()
    }

    #[test]
    fn the_proof_comes_when_no_line_comes_nothing_waits_and_nobody_writes() {
        for variant in Variant::value_variants() {
            let asked = asked(*variant);
            let at = |part: &str| {
                asked.iter().position(|line| line.contains(part)).unwrap_or_else(|| panic!("{part}: {asked:?}"))
            };
            let order = [
                if *variant == Variant::Chart { "install line-stream" } else { "kustomize" },
                "seq 1 10",
                "drain machine-1",
                "uncordon machine-1",
                "patch deploy/reader",
                "stream:backlog_entries:sum",
                "scale deploy/reader",
                "scale sts/writer",
                "wait --for=delete pod -l app.kubernetes.io/name=writer",
                "job/verify",
                "delete namespace",
            ];
            assert!(order.map(at).is_sorted(), "{asked:?}");
            let has = |part: &str| asked.iter().any(|line| line.contains(part));
            assert_eq!(has("delete pod redis-cluster-1 redis-cluster-4 --force"), *variant == Variant::Cluster);
            assert_eq!(has("delete pod redis-sentinel-2 --force"), *variant == Variant::Sentinel);
            assert_eq!(has("REDIS_URL=redis-x://:s3cret@redis:6379?sentinel_password"), *variant == Variant::Sentinel);
            assert_eq!(has("paused=true"), *variant == Variant::Keda);
            let installed = "--set streams[1].name=audit,streams[1].stream=audit --set-string \
                             image.repository=ours,image.tag=1";
            assert_eq!(has(installed), *variant == Variant::Chart);
            for of_chart in ["scale sts/writer-audit --replicas 0", "get job/verify-orders"] {
                assert_eq!(has(of_chart), *variant == Variant::Chart, "{of_chart}");
            }
        }
    }

    #[test]
    fn what_failed_is_in_the_table() {
        let rows = [timed("one", || Ok(())), timed("another", || Err(Error::new("why")))];
        let table = table(&rows);
        assert!(table.contains("one         0.0 s  ok\n"), "{table}");
        assert!(table.contains("FAILED: why"), "{table}");
    }
}
