//! `k8s/overlays/cluster`: its Redis nodes are started by their container's command, with their
//! configuration, on addresses of the loopback interface, and the reconciler makes a
//! cluster of them.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;

use e2e::{Folder, Port, Process, Program, Rig, Service, redis, text, wait};
use rustix::process::Signal;
use serde_json::Value;

use crate::kustomize::render;
use crate::manifests::{find, list, own_objects, selects, text as file, word, workloads_of};
use crate::references::{containers, labels};
use crate::rules::tool;
use crate::sentinel::{certificates, has_tls};

const OVERLAY: &str = "k8s/overlays/cluster";
/// One that the shell, redis.conf and a URL each write in another way.
pub(crate) const PASSWORD: &str = r#"a 'quoted' "word" \ $HOME"#;
/// Two machines, and on which of them the pods are: three on each, but masters and replicas
/// unevenly.
const MACHINES: [&str; 2] = ["machine-a", "machine-b"];
const MACHINE_OF: [usize; 6] = [0, 0, 1, 0, 1, 1];

/// The variables of a workload's first container that have a value.
pub(crate) fn values(workload: &Value) -> BTreeMap<String, String> {
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
    assert_eq!(of("LINE_STREAM_CONSUME")["value"], "exclusive");
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
    let with_tls = file("k8s/components/cluster-tls/kustomization.yaml");
    let url = word(&url).replacen("redis-", "rediss-", 1);
    assert!(with_tls.contains(&format!("REDIS_URL: {url}?ca=/tls/ca.crt&server_name=redis-cluster\n")), "{url}");
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
pub(crate) fn may_connect(objects: &[Value], from: &str, to: &str, port: &str) -> bool {
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

/// Whether this redis-server has at least this major version.
pub(crate) fn is_major(needed: u32) -> bool {
    let version = Command::new(redis::program()).arg("--version").output().expect("redis-server --version");
    let version = String::from_utf8_lossy(&version.stdout).into_owned();
    let major = version.split("v=").nth(1).and_then(|rest| rest.split('.').next()?.parse::<u32>().ok());
    let is = major.is_some_and(|major| major >= needed);
    if !is {
        eprintln!("SKIPPED: host names of nodes need Redis {needed}.0: {version}");
    }
    is
}

/// A pod of the StatefulSet, without a cluster around it.
struct Pod {
    name: String,
    folder: PathBuf,
    address: Ipv4Addr,
    port: Port,
    bus: Port,
    machine: &'static str,
    password: &'static str,
    /// The folder of the Secret with the certificates.
    tls: Option<PathBuf>,
    process: Option<Process>,
    starts: usize,
}

impl Pod {
    fn new(folder: &Path, ordinal: u64, tls: Option<PathBuf>) -> Self {
        let machine = MACHINE_OF[usize::try_from(ordinal).expect("few nodes") % MACHINE_OF.len()];
        Self {
            name: format!("redis-cluster-{ordinal}"),
            folder: folder.join(format!("redis-cluster-{ordinal}")),
            address: Ipv4Addr::LOCALHOST,
            port: Port::take(),
            bus: Port::take(),
            machine: MACHINES[machine],
            password: PASSWORD,
            tls,
            process: None,
            starts: 0,
        }
    }

    /// Starts it at another address than before, as a pod that starts again has one.
    fn start(&mut self, container: &Value, address: Ipv4Addr) {
        std::fs::create_dir_all(self.folder.join("data")).expect("a volume");
        let at = self.folder.display();
        // Where the image has its files, and where the volumes are mounted.
        let config = file("k8s/components/cluster/redis.conf");
        let config = config.replace("dir /data", &format!("dir {at}/data")).replace("/run/redis", &at.to_string());
        std::fs::write(self.folder.join("redis.conf"), config).expect("a file");
        let script = word(&container["args"][0]).trim_end();
        let script = script.replace("/run/redis", &at.to_string()).replace("/etc/redis", &at.to_string());
        let script = script.replace("exec redis-server", &format!("exec {}", redis::program().display()));
        let script =
            self.tls.iter().fold(script, |script, tls| script.replace("/tls/", &format!("{}/", tls.display())));
        let (port, bus) = (self.port.number().to_string(), self.bus.number().to_string());
        let kind = if self.tls.is_some() { "--tls-port" } else { "--port" };
        let mut args: Vec<String> = list(&container["command"])[1..].iter().map(|one| word(one).to_owned()).collect();
        args.push(format!("{script} \"$@\""));
        args.extend(["redis", "--bind", &address.to_string(), kind, &port, "--cluster-port", &bus].map(String::from));
        args.extend(["--cluster-node-timeout", "2000"].map(String::from));
        let env = [
            ("POD_NAME", self.name.clone()),
            ("POD_IP", address.to_string()),
            ("NODE_NAME", self.machine.to_owned()),
            ("REDIS_PASSWORD", self.password.to_owned()),
            ("REDIS_TLS", self.tls.iter().map(|_| "yes").collect()),
        ];
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

    /// Whether the readiness probe finds it ready.
    fn is_ready(&self, container: &Value) -> bool {
        let at = self.folder.display().to_string();
        let probe = list(&container["readinessProbe"]["exec"]["command"]);
        let words: Vec<String> = probe.iter().map(|one| word(one).replace("/run/redis", &at)).collect();
        let mut probe = Command::new(&words[0]);
        probe.args(&words[1..]).env("REDIS_PASSWORD", self.password).output().expect("the probe").status.success()
    }

    /// What redis-cli says for a command; `None` when it cannot be carried out.
    fn ask(&self, command: &[&str]) -> Option<String> {
        let mut cli = Command::new("redis-cli");
        if let Some(tls) = &self.tls {
            cli.arg("--tls").arg("--cacert").arg(tls.join("ca.crt"));
        }
        cli.args(["-e", "-h", &self.address.to_string(), "-p", &self.port.number().to_string()]).args(command);
        let output = cli.env("REDISCLI_AUTH", self.password).output().expect("redis-cli");
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
    }
}

/// The pods of the StatefulSet, and the reconciler.
struct Nodes {
    pods: Vec<Pod>,
    container: Value,
    state: PathBuf,
}

impl Nodes {
    /// Starts all nodes, none of which knows another. `None`, and a word about it, where this
    /// machine cannot.
    fn start(folder: &Path) -> Option<Self> {
        Self::start_with(folder, None)
    }

    /// As [`Self::start`], with these certificates.
    fn start_with(folder: &Path, tls: Option<&Path>) -> Option<Self> {
        tool("redis-cli")?;
        if !is_major(7) {
            return None;
        }
        if TcpListener::bind((address(1, 0), 0)).is_err() {
            eprintln!("SKIPPED: this machine has one loopback address");
            return None;
        }
        let set = find(&own_objects("cluster"), "StatefulSet", "redis-cluster");
        let state = folder.join("state");
        std::fs::create_dir_all(&state).expect("a folder");
        let replicas = set["spec"]["replicas"].as_u64().expect("a number");
        let pods = (0..replicas).map(|ordinal| Pod::new(folder, ordinal, tls.map(Path::to_owned))).collect();
        let mut nodes = Self { pods, container: containers(&set)[0].clone(), state };
        nodes.start_all(1);
        Some(nodes)
    }

    /// Starts all that do not run, in another network. They notice sooner than in a real network
    /// who is gone.
    fn start_all(&mut self, network: u8) {
        for (ordinal, pod) in self.pods.iter_mut().enumerate().filter(|(_, pod)| pod.process.is_none()) {
            pod.start(&self.container, address(network, ordinal));
        }
        wait::until("all nodes answer", || self.pods.iter().all(|pod| pod.ask(&["PING"]).as_deref() == Some("PONG")));
    }

    /// The reconciler, until the cluster is complete.
    fn start_reconciler(&self, log: PathBuf) -> Process {
        self.start_reconciler_to(3, log)
    }

    /// As [`Self::start_reconciler`], for this number of masters.
    fn start_reconciler_to(&self, masters: usize, log: PathBuf) -> Process {
        let mut env = reconciler();
        let seeds: Vec<String> = self.pods.iter().map(Pod::seed).collect();
        env.extend([
            ("NODES".to_owned(), seeds.join(" ")),
            ("STATE".to_owned(), self.state.display().to_string()),
            ("REDIS_PASSWORD".to_owned(), self.pods[0].password.to_owned()),
            ("MASTERS".to_owned(), masters.to_string()),
            ("INTERVAL".to_owned(), "0.1".to_owned()),
            // The manifest's waits are for networks and volumes that come back.
            ("TAKEOVER_AFTER".to_owned(), "1".to_owned()),
        ]);
        if let Some(tls) = &self.pods[0].tls {
            let given = file("k8s/components/cluster-tls/reconciler.yaml");
            for (name, value) in [("REDIS_CA", "/tls/ca.crt"), ("REDIS_SERVER_NAME", "redis-cluster")] {
                assert!(given.contains(&format!("{{name: {name}, value: {value}}}")), "{given}");
                env.insert(name.to_owned(), value.replace("/tls/", &format!("{}/", tls.display())));
            }
        }
        Process::start("reconciler", &e2e::reconciler(), ["--once"], env, log)
    }

    /// Rounds of the reconciler until the cluster is complete; what it did.
    fn reconcile(&self) -> String {
        self.reconcile_to(3)
    }

    /// As [`Self::reconcile`], with this number of masters.
    fn reconcile_to(&self, masters: usize) -> String {
        let mut reconciler = self.start_reconciler_to(masters, self.state.with_extension("log"));
        let done = wait::try_within(wait::SOON, || reconciler.try_exit());
        let said = reconciler.log();
        assert!(done.is_some_and(|status| status.success()), "{said}");
        assert!(self.state.join("complete").exists() && said.ends_with("the cluster is complete\n"), "{said}");
        said
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

    /// One node is introduced to another.
    fn meet(&self, one: usize, other: usize) {
        let pod = &self.pods[other];
        let (address, port, bus) =
            (pod.address.to_string(), pod.port.number().to_string(), pod.bus.number().to_string());
        let said = self.pods[one].ask(&["CLUSTER", "MEET", &address, &port, &bus]);
        assert_eq!(said.as_deref(), Some("OK"));
    }

    /// Two more pods.
    fn grow(&mut self) {
        let folder = self.pods[0].folder.parent().expect("a folder").to_owned();
        self.pods.extend((6..8).map(|ordinal| Pod::new(&folder, ordinal, None)));
        self.start_all(1);
    }

    fn kill_all(&mut self) {
        self.pods.iter_mut().for_each(Pod::kill9);
    }

    /// The URL for the services, with all nodes as seeds.
    fn url(&self) -> String {
        let seeds: Vec<String> = self.pods.iter().map(Pod::seed).collect();
        let password: String = PASSWORD.bytes().map(|byte| format!("%{byte:02X}")).collect();
        match &self.pods[0].tls {
            None => format!("redis-cluster://:{password}@{}", seeds.join(",")),
            Some(tls) => {
                let ca = tls.join("ca.crt");
                let seeds = seeds.join(",");
                format!("rediss-cluster://:{password}@{seeds}?ca={}&server_name=redis-cluster", ca.display())
            }
        }
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

    // No replica is on the machine of its master, as each machine has three of the six.
    let machine = |pod: &str| nodes.pods[ordinal(pod)].machine;
    for (pod, row) in roles.iter().filter(|(_, row)| row[1] == "slave") {
        let master = roles.iter().find(|(_, master)| master[0] == row[2]).expect("its master").0;
        assert_ne!(machine(pod), machine(master), "{pod} and {master}: {roles:?}");
    }

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
fn a_node_that_is_away_is_reported_and_nothing_is_done_about_it() {
    let folder = Folder::new();
    let Some(mut nodes) = Nodes::start(folder.path()) else { return };
    // Five of six are no cluster yet.
    nodes.pods[5].kill9();
    let mut reconciler = nodes.start_reconciler(folder.join("reconciler.log"));
    let count = || nodes.pods[0].ask(&["CLUSTER", "INFO"]).is_some_and(|info| info.contains("cluster_known_nodes:5"));
    wait::until("the others know each other", count);
    wait::until("it waits", || reconciler.log().contains(" 0 of 16384 slots"));
    let said = reconciler.log();
    assert!(said.contains(&nodes.pods[5].seed()) && !said.contains("ADDSLOTS"), "{said}");
    assert!(!nodes.state.join("complete").exists() && reconciler.try_exit().is_none());
    let probe =
        |name: &str| Command::new(e2e::reconciler()).arg(name).env("STATE", &nodes.state).status().expect("a probe");
    assert!(probe("alive").success() && !probe("complete").success());
    reconciler.signal(Signal::TERM);
    assert!(reconciler.wait_exit(wait::SOON).success());
    nodes.start_all(2);
    nodes.reconcile();
    assert_eq!(nodes.roles().values().filter(|row| row[1] == "slave").count(), 3);
    assert!(
        Command::new(e2e::reconciler()).arg("complete").env("STATE", &nodes.state).status().expect("a probe").success()
    );
}

/// Redis corrects the address of a node that it does not reach by what others say of it, and a
/// replica then goes on with the old address of its master.
#[test]
fn a_replica_that_learns_its_masters_address_from_others_is_pointed_at_it() {
    let folder = Folder::new();
    let Some(mut nodes) = Nodes::start(folder.path()) else { return };
    nodes.reconcile();
    let roles = nodes.roles();
    let master = nodes.owner(&roles["redis-cluster-1"][3]);
    let id = &roles[&format!("redis-cluster-{master}")][0];
    let replica = ordinal(roles.iter().find(|(_, row)| row[2] == *id).expect("its replica").0);
    let other = (0..6).find(|other| *other != master && *other != replica).expect("another one");
    nodes.kill_all();
    nodes.start_all(2);
    let line = |nodes: &Nodes| {
        let said = nodes.pods[replica].ask(&["CLUSTER", "NODES"]).expect("CLUSTER NODES");
        said.lines().find(|line| line.starts_with(id)).expect("its master").to_owned()
    };
    wait::until("it misses its master", || line(&nodes).contains("fail"));
    // The others find each other, and the replica finds one of them.
    for known in (0..6).filter(|known| *known != replica) {
        nodes.meet(other, known);
    }
    wait::until("the others know each other", || {
        let said = nodes.pods[other].ask(&["CLUSTER", "NODES"]).expect("CLUSTER NODES");
        let is_known = |pod: &Pod| said.lines().any(|line| line.contains(&pod.seed()) && line.contains(" connected"));
        nodes.pods.iter().enumerate().all(|(nth, pod)| nth == replica || is_known(pod)) && !said.contains("handshake")
    });
    nodes.meet(replica, other);
    let seed = nodes.pods[master].seed();
    wait::until("it has heard of the master's address", || line(&nodes).contains(&seed));
    let said = nodes.reconcile();
    let role = nodes.pods[replica].ask(&["ROLE"]).expect("ROLE");
    assert!(role.contains(&nodes.pods[master].address.to_string()), "{role}: {said}");
}

/// A replica that has started without its master is not elected: it may have missed any time.
#[test]
fn a_stale_replica_takes_over_when_its_masters_volume_is_lost() {
    let folder = Folder::new();
    let Some(mut nodes) = Nodes::start(folder.path()) else { return };
    nodes.reconcile();
    let roles = nodes.roles();
    let (key, slots) = ("line_stream:{1}", &roles["redis-cluster-1"][3]);
    let master = nodes.owner(slots);
    let id = &roles[&format!("redis-cluster-{master}")][0];
    let replica = ordinal(roles.iter().find(|(_, row)| row[2] == *id).expect("its replica").0);
    nodes.pods[replica].ask(&["CONFIG", "SET", "appendfsync", "always"]).expect("CONFIG SET");
    // Until its first append-only file is complete, a new replica has nothing on the disk.
    let is_written =
        |info: String| ["aof_rewrite_in_progress:0", "aof_rewrite_scheduled:0"].iter().all(|one| info.contains(one));
    wait::until("its file", || nodes.pods[replica].ask(&["INFO", "persistence"]).is_some_and(is_written));
    assert_eq!(nodes.pods[0].ask(&["-c", "SET", key, "kept"]).as_deref(), Some("OK"));
    wait::until("it has the key", || nodes.pods[replica].ask(&["DBSIZE"]).as_deref() == Some("1"));
    nodes.pods[replica].kill9();
    nodes.lose(master);
    nodes.start_all(2);
    let said = nodes.reconcile();
    assert!(said.contains("CLUSTER FAILOVER TAKEOVER: OK"), "{said}");
    assert_eq!(nodes.owner(slots), replica);
    assert_eq!(nodes.roles()[&format!("redis-cluster-{master}")][1], "slave");
    assert_eq!(nodes.pods[0].ask(&["-c", "GET", key]).as_deref(), Some("kept"));
}

#[test]
fn all_nodes_get_another_password_at_once_and_at_other_addresses() {
    let folder = Folder::new();
    let Some(mut nodes) = Nodes::start(folder.path()) else { return };
    nodes.reconcile();
    let roles = nodes.roles();
    nodes.kill_all();
    nodes.pods.iter_mut().for_each(|pod| pod.password = "another");
    nodes.start_all(2);
    nodes.reconcile();
    assert_eq!(column(&nodes.roles(), 0), column(&roles, 0));
    // A client with the old one is refused, and says so.
    nodes.pods[0].password = PASSWORD;
    let refused = nodes.start_reconciler(folder.join("reconciler.log"));
    wait::until("it is refused", || refused.log().contains("WRONGPASS"));
}

#[test]
fn a_cluster_grows_to_eight_nodes_and_slots_move() {
    let folder = Folder::new();
    let Some(mut nodes) = Nodes::start(folder.path()) else { return };
    nodes.reconcile();
    nodes.grow();
    let said = nodes.reconcile_to(4);
    let roles = nodes.roles();
    assert_eq!(roles.values().filter(|row| row[1] == "master").count(), 4, "{said}");
    let new = roles.iter().find(|(_, row)| row[1] == "master" && row[3].is_empty()).expect("a master without slots").0;
    let from = nodes.owner(&roles["redis-cluster-0"][3]);
    let from_id = &roles[&format!("redis-cluster-{from}")][0];
    let mut cli = Command::new("redis-cli");
    cli.env("REDISCLI_AUTH", PASSWORD).args(["--cluster", "reshard", &nodes.pods[0].seed(), "--cluster-from", from_id]);
    cli.args(["--cluster-to", &roles[new][0], "--cluster-slots", "1585", "--cluster-yes"]);
    let output = cli.output().expect("redis-cli");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    nodes.reconcile_to(4);
    let roles = nodes.roles();
    assert_eq!(roles[new][3], "0-1584");
    for master in roles.values().filter(|row| row[1] == "master") {
        assert_eq!(column(&roles, 2).iter().filter(|of| **of == master[0]).count(), 1, "its replica: {roles:?}");
    }
}

/// The whole overlay: what the reader and six writers are given, on its Redis.
#[test]
fn a_writer_for_each_partition_has_its_lines_and_together_they_have_all() {
    let Some(objects) = render(OVERLAY) else { return };
    let rig = Rig::new();
    let Some(nodes) = Nodes::start(&rig.folder.join("nodes")) else { return };
    nodes.reconcile();
    let shared = find(&objects, "ConfigMap", "line-stream")["data"].clone();
    let given = |kind: &str, program: Program| {
        let own = values(&find(&objects, kind, program.name()));
        let mut launch = rig.command(program).set("--http-addr", "127.0.0.1:0").env("REDIS_URL", nodes.url());
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
        let backlogs = |writer: &mut Service| -> Vec<(String, f64)> {
            let metrics = writer.metrics();
            let all = metrics.iter().filter(|(name, _)| name.starts_with("line_stream_partition_backlog_entries{"));
            all.map(|(name, value)| (name.to_owned(), value)).collect()
        };
        wait::until("its backlog", || matches!(&backlogs(writer)[..], [(_, 0.0)]));
        let told = backlogs(writer);
        assert!(told[0].0.contains(&format!("partition=\"{partition}\"")), "{told:?}");
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

/// `components/cluster-tls`: nodes, services and the reconciler.
#[test]
fn a_cluster_speaks_tls_and_nothing_else_and_survives_a_master() {
    if !has_tls() {
        return;
    }
    let rig = Rig::new();
    let tls = certificates(rig.folder.path(), ["redis-cluster".to_owned()]);
    let Some(mut nodes) = Nodes::start_with(&rig.folder.join("nodes"), Some(&tls)) else { return };
    nodes.reconcile();
    wait::until("all are ready", || nodes.pods.iter().all(|pod| pod.is_ready(&nodes.container)));
    let tls = nodes.pods[0].tls.take();
    assert_eq!(nodes.pods[0].ask(&["PING"]), None, "without TLS");
    nodes.pods[0].tls = tls;
    let start = |program| {
        let launch = if program == Program::Reader { rig.reader() } else { rig.writer() };
        launch.unset("--redis-url").env("REDIS_URL", nodes.url()).start()
    };
    rig.write_input(text::numbered(0..5_000, 1));
    let mut services = [start(Program::Reader), start(Program::Writer)];
    rig.wait_delivered();
    // Its replica takes over, and the lines that Redis had not copied are sent again.
    let slot = resp::cluster::slot(b"line_stream");
    let (first, last) = ranges().into_iter().find(|(first, last)| (first..=last).contains(&&slot)).expect("a range");
    let master = nodes.owner(&format!("{first}-{last}"));
    nodes.pods[master].kill9();
    rig.append_input(text::numbered(5_000..10_000, 1));
    rig.wait_delivered();
    services.iter_mut().for_each(Service::stop);
    rig.assert_identical();
    // It comes back at another address.
    nodes.start_all(2);
    nodes.reconcile();
}
