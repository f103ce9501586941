//! `k8s/overlays/cluster`: its Redis nodes are started by their container's command, with their
//! configuration, on addresses of the loopback interface, and the reconciler's script makes a
//! cluster of them.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use e2e::{Folder, Port, Process, Program, Rig, Service, redis, text, wait};
use serde_json::Value;

use crate::kustomize::render;
use crate::manifests::{find, list, own_objects, repository, selects, text as file, word, workloads_of};
use crate::references::{containers, labels};
use crate::rules::tool;

const OVERLAY: &str = "k8s/overlays/cluster";
/// One that the shell, redis.conf and a URL each write in another way.
const PASSWORD: &str = r#"a 'quoted' "word" \ $HOME"#;

/// The variables of a workload's first container that have a value.
fn values(workload: &Value) -> BTreeMap<String, String> {
    let env = list(&containers(workload)[0]["env"]).iter();
    let valued = env.filter_map(|one| Some((word(&one["name"]).to_owned(), one["value"].as_str()?.to_owned())));
    valued.collect()
}

fn reconciler() -> BTreeMap<String, String> {
    values(&find(&own_objects("cluster"), "Deployment", "redis-cluster-reconciler"))
}

/// The ranges of slots that the masters of a new cluster get.
fn ranges() -> Vec<(u16, u16)> {
    let slots = reconciler()["SLOTS"].clone();
    let ends = slots.split(' ').map(|range| range.split_once('-').expect("a range"));
    ends.map(|(first, last)| (first.parse().expect("a slot"), last.parse().expect("a slot"))).collect()
}

#[test]
fn there_is_a_writer_for_each_partition_and_none_for_two() {
    let Some(objects) = render(OVERLAY) else { return };
    let writer = find(&objects, "StatefulSet", "writer");
    let shared = &find(&objects, "ConfigMap", "line-stream")["data"];
    assert_eq!(word(&shared["LINE_STREAM_PARTITIONS"]), writer["spec"]["replicas"].to_string());
    let env = list(&containers(&writer)[0]["env"]);
    let of = |name: &str| env.iter().find(|one| one["name"] == name).unwrap_or_else(|| panic!("{name}"));
    for name in ["LINE_STREAM_PARTITION", "LINE_STREAM_CONSUMER"] {
        assert_eq!(of(name)["valueFrom"]["fieldRef"]["fieldPath"], "metadata.name", "{name}");
    }
    assert_eq!(of("LINE_STREAM_CLAIM_IDLE")["value"], "off");
    assert_eq!(of("LINE_STREAM_GROUP")["value"], "writers");
    // Nobody changes the number of writers.
    let scales = |one: &&Value| one["kind"] == "HorizontalPodAutoscaler" || one["kind"] == "ScaledObject";
    assert!(!objects.iter().any(|one| scales(&one)), "{objects:?}");
}

#[test]
fn all_name_the_same_nodes() {
    let Some(objects) = render(OVERLAY) else { return };
    let nodes = find(&objects, "StatefulSet", "redis-cluster");
    let service = find(&objects, "Service", word(&nodes["spec"]["serviceName"]));
    assert_eq!(service["spec"]["clusterIP"], "None");
    assert_eq!(service["spec"]["publishNotReadyAddresses"], true, "nodes find each other before they are ready");
    assert_eq!(nodes["spec"]["podManagementPolicy"], "Parallel", "none is ready before all are there");
    let replicas = nodes["spec"]["replicas"].as_u64().expect("a number");
    let seeds: Vec<String> = (0..replicas).map(|pod| format!("redis-cluster-{pod}.redis-cluster:6379")).collect();
    let reconciler = reconciler();
    assert_eq!(reconciler["NODES"].split(' ').collect::<Vec<_>>(), seeds);
    let url = find(&objects, "ConfigMap", "line-stream")["data"]["REDIS_URL"].clone();
    assert_eq!(word(&url), format!("redis-cluster://{}", seeds.join(",")));
    let command = word(&containers(&nodes)[0]["args"][0]);
    assert!(command.contains(r#"--cluster-announce-hostname "$POD_NAME.redis-cluster""#), "{command}");
    // Each master has a replica.
    assert_eq!(reconciler["MASTERS"].parse::<u64>().expect("a number") * 2, replicas);
}

#[test]
fn each_master_has_as_many_streams_as_the_others_and_the_docs_say_where_they_are() {
    let Some(objects) = render(OVERLAY) else { return };
    let shared = find(&objects, "ConfigMap", "line-stream")["data"].clone();
    let partitions: usize = word(&shared["LINE_STREAM_PARTITIONS"]).parse().expect("a number");
    let ranges = ranges();
    assert_eq!(reconciler()["MASTERS"], ranges.len().to_string());
    assert_eq!((ranges[0].0, ranges[ranges.len() - 1].1), (0, 16383));
    assert!(ranges.windows(2).all(|pair| pair[0].1 + 1 == pair[1].0), "{ranges:?}");
    let usual = [(0, 5460), (5461, 10922), (10923, 16383)];
    let (mut ours, mut theirs) = (vec![0; ranges.len()], vec![0; usual.len()]);
    let docs = file("docs/kubernetes.md");
    for partition in 0..partitions {
        let slot = resp::cluster::slot(format!("{}:{{{partition}}}", word(&shared["LINE_STREAM_STREAM"])).as_bytes());
        let master =
            |ranges: &[(u16, u16)]| ranges.iter().position(|(a, b)| (*a..=*b).contains(&slot)).expect("a master");
        ours[master(&ranges)] += 1;
        theirs[master(&usual)] += 1;
        let row = format!("| {partition} | {slot} | `redis-cluster-{}` |", master(&ranges));
        assert!(docs.contains(&row), "docs/kubernetes.md has no {row}");
    }
    assert!(ours.iter().all(|streams| streams * ranges.len() == partitions), "{ours:?}");
    let [one, two, three] = theirs[..] else { panic!("{theirs:?}") };
    let said = format!("{one}, {two} and {three} streams");
    assert!(docs.contains(&said), "docs/kubernetes.md does not say: {said}");
}

/// Whether the policies let a pod of one workload connect to a port of another's.
fn may_connect(objects: &[Value], from: &str, to: &str, port: &str) -> bool {
    let workloads = workloads_of(objects);
    let pod = |name: &str| labels(workloads.iter().find(|one| one["metadata"]["name"] == name).expect("a workload"));
    let is_selected = |selector: &Value, pod: &Value| {
        let expressions = list(&selector["matchExpressions"]);
        expressions.iter().all(|one| list(&one["values"]).contains(&pod[word(&one["key"])]))
            && (selector["matchLabels"].is_null() || selects(&selector["matchLabels"], pod))
    };
    let allows = |at: &str, direction: &str, peers: &str, other: &str| {
        objects.iter().filter(|one| one["kind"] == "NetworkPolicy").any(|policy| {
            is_selected(&policy["spec"]["podSelector"], pod(at))
                && list(&policy["spec"][direction]).iter().any(|rule| {
                    list(&rule["ports"]).iter().any(|one| one["port"] == port)
                        && list(&rule[peers]).iter().any(|peer| is_selected(&peer["podSelector"], pod(other)))
                })
        })
    };
    allows(from, "egress", "to", to) && allows(to, "ingress", "from", from)
}

#[test]
fn who_belongs_to_the_cluster_reaches_it_and_nobody_else() {
    let Some(objects) = render(OVERLAY) else { return };
    let nodes = "redis-cluster";
    for (from, to, port) in [
        ("reader", nodes, "redis"),
        ("writer", nodes, "redis"),
        ("redis-cluster-reconciler", nodes, "redis"),
        (nodes, nodes, "redis"),
        (nodes, nodes, "bus"),
        ("prometheus", "reader", "http"),
        ("prometheus", "writer", "http"),
    ] {
        assert!(may_connect(&objects, from, to, port), "{from} to {to}: {port}");
    }
    for (from, to, port) in
        [("reader", nodes, "bus"), ("redis-cluster-reconciler", nodes, "bus"), ("prometheus", nodes, "redis")]
    {
        assert!(!may_connect(&objects, from, to, port), "{from} to {to}: {port}");
    }
}

/// A pod of the StatefulSet, without a cluster around it.
struct Pod {
    name: String,
    folder: PathBuf,
    address: Ipv4Addr,
    port: Port,
    bus: Port,
    process: Option<Process>,
    starts: usize,
}

impl Pod {
    /// Starts it at another address than before, as a pod that starts again has one.
    fn start(&mut self, container: &Value, address: Ipv4Addr) {
        std::fs::create_dir_all(self.folder.join("data")).expect("a volume");
        let at = self.folder.display();
        // Where the image has its files, and where the volumes are mounted.
        let config = file(&format!("{OVERLAY}/redis.conf"));
        let config = config.replace("dir /data", &format!("dir {at}/data")).replace("/run/redis", &at.to_string());
        std::fs::write(self.folder.join("redis.conf"), config).expect("a file");
        let script = word(&container["args"][0]).trim_end();
        let script = script.replace("/run/redis", &at.to_string()).replace("/etc/redis", &at.to_string());
        let script = script.replace("exec redis-server", &format!("exec {}", redis::program().display()));
        let (port, bus) = (self.port.number().to_string(), self.bus.number().to_string());
        let mut args: Vec<String> = list(&container["command"])[1..].iter().map(|one| word(one).to_owned()).collect();
        args.push(format!("{script} \"$@\""));
        args.extend(
            ["redis", "--bind", &address.to_string(), "--port", &port, "--cluster-port", &bus].map(String::from),
        );
        let env =
            [("POD_NAME", self.name.clone()), ("POD_IP", address.to_string()), ("REDIS_PASSWORD", PASSWORD.to_owned())];
        self.starts += 1;
        self.address = address;
        let log = self.folder.with_extension(format!("{}.log", self.starts));
        self.process = Some(Process::start(&self.name, Path::new("/bin/sh"), args, env, log));
    }

    fn kill9(&mut self) {
        self.process.take().expect("it runs").kill9();
    }

    fn seed(&self) -> String {
        format!("{}:{}", self.address, self.port.number())
    }

    /// What redis-cli says for a command; `None` when it cannot be carried out.
    fn ask(&self, command: &[&str]) -> Option<String> {
        let mut cli = Command::new("redis-cli");
        cli.args(["-e", "-h", &self.address.to_string(), "-p", &self.port.number().to_string()]).args(command);
        let output = cli.env("REDISCLI_AUTH", PASSWORD).output().expect("redis-cli");
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
    }
}

/// The pods of the StatefulSet, and the reconciler.
struct Nodes {
    pods: Vec<Pod>,
    container: Value,
    shells: Vec<Vec<&'static str>>,
    state: PathBuf,
    rounds: usize,
}

impl Nodes {
    /// Starts all nodes, none of which knows another. `None`, and a word about it, where this
    /// machine cannot.
    fn start(folder: &Path) -> Option<Self> {
        tool("redis-cli")?;
        let version = Command::new(redis::program()).arg("--version").output().expect("redis-server --version");
        let version = String::from_utf8_lossy(&version.stdout).into_owned();
        let major = version.split("v=").nth(1).and_then(|rest| rest.split('.').next()?.parse::<u32>().ok());
        if major.is_none_or(|major| major < 7) {
            eprintln!("SKIPPED: host names of a cluster's nodes want Redis 7.0: {version}");
            return None;
        }
        if TcpListener::bind((address(1, 0), 0)).is_err() {
            eprintln!("SKIPPED: this machine has one loopback address");
            return None;
        }
        let set = find(&own_objects("cluster"), "StatefulSet", "redis-cluster");
        let pod = |ordinal| Pod {
            name: format!("redis-cluster-{ordinal}"),
            folder: folder.join(format!("redis-cluster-{ordinal}")),
            address: Ipv4Addr::LOCALHOST,
            port: Port::take(),
            bus: Port::take(),
            process: None,
            starts: 0,
        };
        let state = folder.join("state");
        std::fs::create_dir_all(&state).expect("a folder");
        // That of this machine, and that of the image where it is here, too.
        let mut shells = vec![vec!["sh"]];
        shells.extend(Command::new("busybox").arg("true").output().is_ok().then(|| vec!["busybox", "sh"]));
        let pods = (0..set["spec"]["replicas"].as_u64().expect("a number")).map(pod).collect();
        let mut nodes = Self { pods, container: containers(&set)[0].clone(), shells, state, rounds: 0 };
        nodes.start_all(1);
        Some(nodes)
    }

    /// Starts all that do not run, in another network.
    fn start_all(&mut self, network: u8) {
        for (ordinal, pod) in self.pods.iter_mut().enumerate().filter(|(_, pod)| pod.process.is_none()) {
            pod.start(&self.container, address(network, ordinal));
        }
        wait::until("all nodes answer", || self.pods.iter().all(|pod| pod.ask(&["PING"]).as_deref() == Some("PONG")));
    }

    /// One round of the reconciler, by the shells in turn.
    fn round(&mut self) -> Output {
        let shell = &self.shells[self.rounds % self.shells.len()];
        self.rounds += 1;
        let mut command = Command::new(shell[0]);
        command.args(&shell[1..]).arg(repository().join(OVERLAY).join("reconcile.sh")).arg("once");
        let seeds: Vec<String> = self.pods.iter().map(Pod::seed).collect();
        command.envs(reconciler()).env("NODES", seeds.join(" ")).env("STATE", &self.state);
        command.env("REDIS_PASSWORD", PASSWORD).output().expect("a shell")
    }

    /// Rounds of the reconciler until the cluster is complete.
    fn reconcile(&mut self) {
        let mut said = String::new();
        let done = wait::try_within(wait::SOON, || {
            let output = self.round();
            said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            let is_complete = output.status.success();
            assert_eq!(self.state.join("complete").exists(), is_complete, "{said}");
            is_complete.then_some(())
        });
        assert!(done.is_some(), "{said}");
        assert_eq!(said, "the cluster is complete\n");
    }

    /// What a node tells of all of them, by their pods' names: these fields of CLUSTER NODES, the
    /// last one (8) with all slots.
    fn table(&self, of: usize, fields: &[usize]) -> BTreeMap<String, Vec<String>> {
        let said = self.pods[of].ask(&["CLUSTER", "NODES"]).expect("CLUSTER NODES");
        let rows = said.lines().map(|line| {
            let words: Vec<&str> = line.split(' ').collect();
            let (_, host) = words[1].split_once(',').unwrap_or_else(|| panic!("a host name: {line}"));
            let of_field = |field: &usize| match field {
                2 => words[2].trim_start_matches("myself,").to_owned(),
                8 => words[8..].join(" "),
                &field => words[field].to_owned(),
            };
            (host.split('.').next().expect("a name").to_owned(), fields.iter().map(of_field).collect())
        });
        rows.collect()
    }

    /// ID, role, master and slots of all nodes.
    fn roles(&self) -> BTreeMap<String, Vec<String>> {
        self.table(0, &[0, 2, 3, 8])
    }

    /// Which node has these slots.
    fn owner(&self, slots: &str) -> usize {
        let roles = self.roles();
        let found = roles.iter().find(|(_, row)| row[1] == "master" && row[3] == slots);
        ordinal(found.unwrap_or_else(|| panic!("nobody has {slots}: {roles:?}")).0)
    }

    /// A pod is gone, and its volume, too.
    fn lose(&mut self, ordinal: usize) {
        self.pods[ordinal].kill9();
        std::fs::remove_dir_all(&self.pods[ordinal].folder).expect("a volume");
    }

    fn kill_all(&mut self) {
        self.pods.iter_mut().for_each(Pod::kill9);
    }

    /// The URL for the services, with all nodes as seeds.
    fn url(&self) -> String {
        let seeds: Vec<String> = self.pods.iter().map(Pod::seed).collect();
        let password: String = PASSWORD.bytes().map(|byte| format!("%{byte:02X}")).collect();
        format!("redis-cluster://:{password}@{}", seeds.join(","))
    }
}

/// An address of the loopback interface.
fn address(network: u8, ordinal: usize) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, network, 10 + u8::try_from(ordinal).expect("few nodes"))
}

/// The number in a pod's name.
fn ordinal(pod: &str) -> usize {
    pod.rsplit('-').next().and_then(|ordinal| ordinal.parse().ok()).unwrap_or_else(|| panic!("{pod}"))
}

/// One column of a table.
fn column(table: &BTreeMap<String, Vec<String>>, column: usize) -> Vec<&str> {
    table.values().map(|row| row[column].as_str()).collect()
}

#[test]
fn six_nodes_become_a_cluster_once_and_find_each_other_again_at_other_addresses() {
    let folder = Folder::new();
    let Some(mut nodes) = Nodes::start(folder.path()) else { return };
    nodes.reconcile();
    let roles = nodes.roles();
    assert_eq!(roles.len(), 6, "{roles:?}");
    for (ordinal, (first, last)) in ranges().into_iter().enumerate() {
        let master = &roles[&format!("redis-cluster-{ordinal}")];
        assert_eq!(master[1..], ["master", "-", &format!("{first}-{last}")]);
        assert_eq!(column(&roles, 2).iter().filter(|of| **of == master[0]).count(), 1, "its replica: {roles:?}");
    }
    // A key of the second master.
    let (key, slots) = ("line_stream:{1}", &roles["redis-cluster-1"][3]);
    assert_eq!(nodes.pods[0].ask(&["-c", "SET", key, "kept"]).as_deref(), Some("OK"));

    // What is complete stays as it is.
    nodes.reconcile();
    assert_eq!(nodes.roles(), roles);

    // All pods start again, at other addresses, with what their volumes hold.
    nodes.kill_all();
    nodes.start_all(2);
    nodes.reconcile();
    assert_eq!(column(&nodes.roles(), 0), column(&roles, 0), "the nodes are those that they were");
    for (pod, row) in nodes.table(0, &[1]) {
        assert!(row[0].starts_with(&format!("{}@", nodes.pods[ordinal(&pod)].seed())), "{row:?}");
    }
    assert_eq!(nodes.pods[0].ask(&["-c", "GET", key]).as_deref(), Some("kept"));

    // A master comes back without its volume: its replica has the slots and the keys, and it is a
    // replica now.
    let lost = nodes.owner(slots);
    nodes.lose(lost);
    nodes.start_all(3);
    nodes.reconcile();
    let lost = format!("redis-cluster-{lost}");
    for of in 0..nodes.pods.len() {
        let now = nodes.table(of, &[0, 2, 8]);
        assert_eq!(now.len(), 6, "the node that is lost is forgotten: {now:?}");
        assert_ne!(now[&lost][0], roles[&lost][0]);
        assert_eq!(now[&lost][1], "slave", "{now:?}");
        assert!(now.values().any(|row| row[1] == "master" && row[2] == *slots), "{now:?}");
    }
    assert_eq!(nodes.pods[0].ask(&["-c", "GET", key]).as_deref(), Some("kept"));

    // A master and its replica lose theirs. The slots have an owner again; the keys are gone.
    let (now, master) = (nodes.roles(), nodes.owner(slots));
    let id = &now[&format!("redis-cluster-{master}")][0];
    let replicas = now.iter().filter(|(_, row)| row[2] == *id).map(|(pod, _)| ordinal(pod));
    for lost in replicas.chain([master]) {
        nodes.lose(lost);
    }
    nodes.start_all(4);
    nodes.reconcile();
    let now = nodes.roles();
    let sorted = |roles| {
        let mut slots = column(roles, 3).into_iter().map(str::to_owned).collect::<Vec<_>>();
        slots.sort();
        slots
    };
    assert_eq!((now.len(), sorted(&now)), (6, sorted(&roles)), "{now:?}");
    for master in now.values().filter(|row| row[1] == "master") {
        assert_eq!(column(&now, 2).iter().filter(|of| **of == master[0]).count(), 1, "its replica: {now:?}");
    }
    assert_eq!(nodes.pods[0].ask(&["-c", "GET", key]).as_deref(), Some(""));
}

#[test]
fn a_node_that_is_away_is_told_and_nothing_is_done_about_it() {
    let folder = Folder::new();
    let Some(mut nodes) = Nodes::start(folder.path()) else { return };
    // Five of six are no cluster yet.
    nodes.pods[5].kill9();
    let said = |output: &Output| String::from_utf8_lossy(&output.stdout).into_owned();
    wait::until("the others know each other", || {
        let output = nodes.round();
        assert!(!output.status.success() && said(&output).contains(&nodes.pods[5].seed()), "{}", said(&output));
        !said(&output).contains("CLUSTER MEET")
    });
    let again = nodes.round();
    assert!(!again.status.success() && !said(&again).contains("CLUSTER "), "{}", said(&again));
    assert_eq!(nodes.pods[0].ask(&["CLUSTER", "NODES"]).map(|nodes| nodes.contains("0-")), Some(false));
    nodes.start_all(2);
    nodes.reconcile();
    assert_eq!(nodes.roles().values().filter(|row| row[1] == "slave").count(), 3);
}

/// The whole overlay: what the reader and six writers are given, on its Redis.
#[test]
fn a_writer_for_each_partition_has_its_lines_and_together_they_have_all() {
    let Some(objects) = render(OVERLAY) else { return };
    let rig = Rig::new();
    let Some(mut nodes) = Nodes::start(&rig.folder.join("nodes")) else { return };
    nodes.reconcile();
    let shared = find(&objects, "ConfigMap", "line-stream")["data"].clone();
    let given = |kind: &str, program: Program| {
        let own = values(&find(&objects, kind, program.name()));
        let mut launch = rig.command(program).set("--http-addr", "127.0.0.1:0").env("REDIS_URL", &nodes.url());
        for (name, value) in
            own.iter().filter(|(name, _)| !["LINE_STREAM_INPUT", "LINE_STREAM_OUTPUT"].contains(&name.as_str()))
        {
            launch = launch.env(name, value);
        }
        for name in ["LINE_STREAM_STREAM", "LINE_STREAM_PARTITIONS"] {
            launch = launch.env(name, word(&shared[name]));
        }
        launch
    };
    // More than the first blocks, so that every partition has lines.
    rig.write_input(text::numbered(0..40_000, 1));
    let mut reader = given("Deployment", Program::Reader).set("--input", &rig.input).start();
    let replicas = find(&objects, "StatefulSet", "writer")["spec"]["replicas"].as_u64().expect("a number");
    let outputs: Vec<PathBuf> = (0..replicas).map(|pod| rig.folder.join(&format!("output-{pod}.txt"))).collect();
    let start = |(pod, output): (usize, &PathBuf)| {
        let name = format!("writer-{pod}");
        let launch = given("StatefulSet", Program::Writer).set("--output", output);
        launch.env("LINE_STREAM_PARTITION", &name).env("LINE_STREAM_CONSUMER", &name).start()
    };
    let mut writers: Vec<Service> = outputs.iter().enumerate().map(start).collect();
    let total = |outputs: &[PathBuf]| outputs.iter().map(|output| e2e::rig::len(output)).sum::<u64>();
    wait::progress_to(e2e::rig::len(&rig.input), || total(&outputs)).expect("all lines");
    for (partition, writer) in writers.iter_mut().enumerate() {
        wait::until("its backlog", || writer.metrics().get("line_stream_partition_backlog_entries") == Some(0.0));
        let metrics = writer.metrics();
        let told: Vec<&str> =
            metrics.iter().map(|(name, _)| name).filter(|name| name.starts_with("stream_partition_")).collect();
        assert_eq!(told, [format!("line_stream_partition_backlog_entries{{partition=\"{partition}\"}}")]);
    }
    assert!(outputs.iter().all(|output| e2e::rig::len(output) > 0), "every partition has lines");
    reader.stop();
    writers.iter_mut().for_each(Service::stop);
    let mut proof = rig.command(Program::Writer).word("verify").set("--input", &rig.input);
    for output in &outputs {
        proof = proof.word(format!("--output={}", output.display()));
    }
    proof.run_ok();
}
