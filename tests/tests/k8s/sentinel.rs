//! `k8s/components/sentinel` and TLS: Redis and Sentinels are started by their containers' command,
//! with their configuration, on addresses of the loopback interface.

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;

use e2e::{Folder, Port, Process, Program, Rig, Service, redis, text, wait};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use serde_json::Value;

use crate::cluster::{PASSWORD, is_major, may_connect, values};
use crate::kustomize::render;
use crate::manifests::{config, find, list, object, own_objects, text as file, word};
use crate::references::containers;
use crate::rules::tool;

const OVERLAY: &str = "k8s/overlays/sentinel";

#[test]
fn all_name_the_same_nodes() {
    let Some(objects) = render(OVERLAY) else { return };
    let nodes = find(&objects, "StatefulSet", "redis-sentinel");
    let service = find(&objects, "Service", word(&nodes["spec"]["serviceName"]));
    assert_eq!(service["spec"]["clusterIP"], "None");
    assert_eq!(service["spec"]["publishNotReadyAddresses"], true, "they find each other before they are ready");
    let replicas = nodes["spec"]["replicas"].as_u64().expect("a number");
    let hosts: Vec<String> = (0..replicas).map(|pod| format!("redis-sentinel-{pod}.redis-sentinel")).collect();
    let script = file("k8s/components/sentinel/start.sh");
    assert!(script.contains(r#"echo "redis-sentinel-$1.redis-sentinel""#));
    assert!(script.contains(r#"nodes="$(host 0) $(host 1) $(host 2)""#) && replicas == 3);
    let seeds: Vec<String> = hosts.iter().map(|host| format!("{host}:26379")).collect();
    let url = format!("redis-sentinel://{}/line-stream", seeds.join(","));
    assert_eq!(find(&objects, "ConfigMap", "line-stream")["data"]["REDIS_URL"], url);
    let with_tls = file("k8s/components/sentinel-tls/kustomization.yaml");
    let url = url.replacen("redis-", "rediss-", 1);
    assert!(with_tls.contains(&format!("REDIS_URL: {url}?ca=/tls/ca.crt&server_name=redis-sentinel\n")), "{url}");
}

#[test]
fn services_reach_redis_and_sentinels_and_these_each_other() {
    let Some(objects) = render(OVERLAY) else { return };
    let nodes = "redis-sentinel";
    for port in ["redis", "sentinel"] {
        for from in ["reader", "writer", nodes] {
            assert!(may_connect(&objects, from, nodes, port), "{from}: {port}");
        }
        assert!(!may_connect(&objects, "prometheus", nodes, port), "{port}");
    }
    assert!(!may_connect(&objects, nodes, "reader", "http"));
}

/// The arguments of a pod.
#[derive(Clone)]
struct Settings {
    password: &'static str,
    tls: Option<PathBuf>,
    ports: (u16, u16),
}

impl Settings {
    /// A text of the manifests, for the folder that stands for the container's.
    fn adapt(&self, text: &str, folder: &Path) -> String {
        let at = folder.display().to_string();
        let tls = self.tls.as_ref().map_or_else(|| at.clone(), |tls| tls.display().to_string());
        let text = text.replace("redis-sentinel-$1.redis-sentinel", "127.0.0.2$1");
        let text = text.replace("exec redis-server", &format!("exec {}", redis::program().display()));
        // In two steps, because 26379 contains 6379.
        let text = text.replace("26379", "@sentinel").replace("6379", "@redis");
        let text = text.replace("@sentinel", &self.ports.1.to_string()).replace("@redis", &self.ports.0.to_string());
        let text = text.replace("/run/redis", &format!("{at}/run")).replace("/etc/redis", &format!("{at}/etc"));
        let text = text.replace("/data", &format!("{at}/data")).replace("/tls/", &format!("{tls}/"));
        // Its log shows what it did.
        let text = text.replace("set -eu\n", "set -eux\n");
        // They notice sooner than in a real network who is gone.
        text.replace(" line-stream 5000", " line-stream 500").replace(" line-stream 30000", " line-stream 2000")
    }

    fn env(&self, pod: &str) -> Vec<(&'static str, String)> {
        let mut env = vec![
            ("POD_NAME", pod.to_owned()),
            ("REDIS_PASSWORD", self.password.to_owned()),
            // How long all servers must be silent before the installation counts as new.
            ("NEW_AFTER", "1".to_owned()),
        ];
        if self.tls.is_some() {
            env.push(("REDIS_TLS", "yes".to_owned()));
        }
        env
    }

    fn cli(&self, port: u16, host: Ipv4Addr) -> Command {
        let mut cli = Command::new("redis-cli");
        if let Some(tls) = &self.tls {
            cli.arg("--tls").arg("--cacert").arg(tls.join("ca.crt"));
        }
        cli.args(["-e", "-h", &host.to_string(), "-p", &port.to_string()]).env("REDISCLI_AUTH", self.password);
        cli
    }

    fn percent_encoded(&self) -> String {
        self.password.bytes().map(|byte| format!("%{byte:02X}")).collect()
    }
}

/// A pod of the StatefulSet, without a cluster around it.
struct Pod {
    name: String,
    folder: PathBuf,
    address: Ipv4Addr,
    /// Redis and its Sentinel.
    processes: Vec<Process>,
    starts: usize,
}

impl Pod {
    /// Mounts its volumes.
    fn mount(&self, settings: &Settings) {
        for folder in ["data", "run", "etc"] {
            std::fs::create_dir_all(self.folder.join(folder)).expect("a folder");
        }
        for name in ["redis.conf", "start.sh"] {
            let text = settings.adapt(&file(&format!("k8s/components/sentinel/{name}")), &self.folder);
            std::fs::write(self.folder.join("etc").join(name), text).expect("a file");
        }
    }

    /// Starts its container of this name.
    fn start(&mut self, name: &str, set: &Value, settings: &Settings) {
        self.starts += 1;
        let container = containers(set).into_iter().find(|one| one["name"] == name).expect("a container");
        let command = list(&container["command"]).iter().map(|one| settings.adapt(word(one), &self.folder));
        let mut args: Vec<String> = command.skip(1).collect();
        args.extend(["--bind", &self.address.to_string()].map(String::from));
        if name == "redis" {
            args.extend(["--repl-diskless-sync-delay", "0"].map(String::from));
        }
        let log = self.folder.join(format!("{name}-{}.log", self.starts));
        let env = settings.env(&self.name);
        self.processes.push(Process::start(&self.name, Path::new("/bin/sh"), args, env, log));
    }

    /// Whether the readiness probe of Redis' container finds it ready.
    fn is_ready(&self, set: &Value, settings: &Settings) -> bool {
        let probe = list(&containers(set)[0]["readinessProbe"]["exec"]["command"]);
        let words: Vec<String> = probe.iter().map(|one| settings.adapt(word(one), &self.folder)).collect();
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).env("REDIS_PASSWORD", settings.password);
        command.output().expect("the probe").status.success()
    }

    fn kill9(&mut self) {
        self.processes.drain(..).for_each(|mut process| process.kill9());
    }

    fn lose_volume(&self) {
        std::fs::remove_dir_all(self.folder.join("data")).expect("a volume");
    }
}

/// The three pods.
struct Trio {
    pods: Vec<Pod>,
    set: Value,
    settings: Settings,
    _ports: (Port, Port),
}

impl Trio {
    /// `None`, and a word about it, where this machine cannot.
    fn start(folder: &Path, tls: Option<PathBuf>) -> Option<Self> {
        tool("redis-cli")?;
        if !is_major(7) {
            return None;
        }
        if TcpListener::bind((Ipv4Addr::new(127, 0, 0, 20), 0)).is_err() {
            eprintln!("SKIPPED: this machine has one loopback address");
            return None;
        }
        let pod = |nth: u8| {
            let name = format!("redis-sentinel-{nth}");
            let folder = folder.join(&name);
            Pod { name, folder, address: Ipv4Addr::new(127, 0, 0, 20 + nth), processes: Vec::new(), starts: 0 }
        };
        let ports = (Port::take(), Port::take());
        let settings = Settings { password: PASSWORD, tls, ports: (ports.0.number(), ports.1.number()) };
        let set = find(&own_objects("sentinel"), "StatefulSet", "redis-sentinel");
        let mut trio = Self { pods: (0..3).map(pod).collect(), set, settings, _ports: ports };
        // Sentinel looks for new replicas every ten seconds, so that the tests start it last.
        trio.pods.iter().for_each(|pod| pod.mount(&trio.settings));
        trio.pods.iter_mut().for_each(|pod| pod.start("redis", &trio.set, &trio.settings));
        trio.wait_ready();
        trio.pods.iter_mut().for_each(|pod| pod.start("sentinel", &trio.set, &trio.settings));
        trio.wait_known();
        Some(trio)
    }

    /// Starts those that do not run, and waits until all are ready.
    fn start_all(&mut self) {
        for pod in self.pods.iter_mut().filter(|pod| pod.processes.is_empty()) {
            pod.mount(&self.settings);
            pod.start("redis", &self.set, &self.settings);
            pod.start("sentinel", &self.set, &self.settings);
        }
        self.wait_ready();
        self.wait_known();
    }

    fn wait_ready(&self) {
        wait::until("all Redis are ready", || self.pods.iter().all(|pod| pod.is_ready(&self.set, &self.settings)));
    }

    /// Waits until the Sentinels know each other and the replicas: from then on a failover
    /// succeeds.
    fn wait_known(&self) {
        wait::until("the Sentinels know two replicas", || {
            (0..3).all(|of| {
                self.sentinel(of, &["MASTER", "line-stream"]).contains("num-slaves\n2\nnum-other-sentinels\n2\n")
            })
        });
    }

    fn kill_all(&mut self) {
        self.pods.iter_mut().for_each(Pod::kill9);
    }

    fn sentinel(&self, of: usize, command: &[&str]) -> String {
        let mut cli = self.settings.cli(self.settings.ports.1, self.pods[of].address);
        let output = cli.arg("SENTINEL").args(command).output().expect("redis-cli");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Which one the Sentinels that run name as the master, once they agree.
    fn master(&self) -> usize {
        wait::within(wait::SOON, "the Sentinels agree", || {
            let running = (0..3).filter(|nth| !self.pods[*nth].processes.is_empty());
            let mut named: Vec<String> =
                running.map(|of| self.sentinel(of, &["GET-MASTER-ADDR-BY-NAME", "line-stream"])).collect();
            named.dedup();
            let [one] = &named[..] else { return None };
            self.pods.iter().position(|pod| one.starts_with(&format!("{}\n", pod.address)))
        })
    }

    fn wait_other_than(&self, old: usize) -> usize {
        wait::within(wait::SOON, "another master", || Some(self.master()).filter(|master| *master != old))
    }

    fn redis(&self, of: usize, command: &[&str]) -> String {
        let output = self.settings.cli(self.settings.ports.0, self.pods[of].address).args(command).output();
        String::from_utf8_lossy(&output.expect("redis-cli").stdout).trim_end().to_owned()
    }

    fn url(&self) -> String {
        let seeds: Vec<String> =
            self.pods.iter().map(|pod| format!("{}:{}", pod.address, self.settings.ports.1)).collect();
        let (scheme, ca) = match &self.settings.tls {
            Some(tls) => {
                ("rediss-sentinel", format!("&ca={}&server_name=redis-sentinel", tls.join("ca.crt").display()))
            }
            None => ("redis-sentinel", String::new()),
        };
        let password = self.settings.percent_encoded();
        format!("{scheme}://:{password}@{}/line-stream?sentinel_password={password}{ca}", seeds.join(","))
    }
}

/// A service with what the manifests give it.
fn start(rig: &Rig, program: Program, kind: &str, url: &str) -> Service {
    let mut launch = match program {
        Program::Reader => rig.reader(),
        Program::Writer => rig.writer(),
    };
    launch = launch.unset("--redis-url").env("REDIS_URL", url);
    for (name, value) in values(&object(kind, program.name())) {
        if !["LINE_STREAM_INPUT", "LINE_STREAM_OUTPUT", "LINE_STREAM_GROUP"].contains(&name.as_str()) {
            launch = launch.env(&name, &value);
        }
    }
    launch.start()
}

#[test]
fn masters_are_lost_and_the_output_is_the_input() {
    let rig = Rig::new();
    let Some(mut trio) = Trio::start(&rig.folder.join("nodes"), None) else { return };
    assert_eq!(trio.master(), 0, "the first pod of a new installation");
    rig.write_input(text::numbered(0..5_000, 1));
    let mut reader = start(&rig, Program::Reader, "Deployment", &trio.url());
    let mut writer = start(&rig, Program::Writer, "StatefulSet", &trio.url());
    rig.wait_delivered();

    // The master's pod is lost: another one is the master, and lines flow.
    trio.pods[0].kill9();
    let second = trio.wait_other_than(0);
    rig.append_input(text::numbered(5_000..10_000, 1));
    rig.wait_delivered();
    // It comes back, and is a replica from the start.
    trio.start_all();
    assert_eq!(trio.master(), second);
    assert!(trio.redis(0, &["ROLE"]).starts_with("slave"), "{}", trio.redis(0, &["ROLE"]));

    // The master's volume is lost, and it is back before the Sentinels have noticed: nobody copies
    // the emptiness.
    let before = trio.redis(0, &["DBSIZE"]);
    for of in (0..3).filter(|of| *of != second) {
        trio.sentinel(of, &["SET", "line-stream", "down-after-milliseconds", "2500"]);
    }
    trio.pods[second].kill9();
    trio.pods[second].lose_volume();
    trio.start_all();
    let third = trio.master();
    assert_ne!(third, second);
    for of in 0..3 {
        assert_eq!(trio.redis(of, &["DBSIZE"]), before, "{of}");
    }
    rig.append_input(text::numbered(10_000..15_000, 1));
    rig.wait_delivered();

    // All are lost together, and come back with another password.
    trio.kill_all();
    trio.settings.password = "another";
    trio.start_all();
    for of in 0..3 {
        assert_eq!(trio.redis(of, &["DBSIZE"]), before, "{of}");
    }
    reader.stop();
    writer.stop();
    rig.append_input(text::numbered(15_000..20_000, 1));
    let mut reader = start(&rig, Program::Reader, "Deployment", &trio.url());
    let mut writer = start(&rig, Program::Writer, "StatefulSet", &trio.url());
    rig.wait_delivered();
    reader.stop();
    writer.stop();
    rig.assert_identical();
}

/// The Secret `redis-tls`, as cert-manager writes it, with a certificate for these names.
pub(crate) fn certificates(folder: &Path, names: impl IntoIterator<Item = String>) -> PathBuf {
    let folder = folder.join("certificates");
    std::fs::create_dir_all(&folder).expect("a folder");
    let mut ca = CertificateParams::default();
    // Another name than that of the certificate, which would pass for self-signed.
    ca.distinguished_name.push(DnType::CommonName, "ca");
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().expect("a key");
    std::fs::write(folder.join("ca.crt"), ca.self_signed(&key).expect("a certificate").pem()).expect("a file");
    let ca = Issuer::new(ca, key);
    let key = KeyPair::generate().expect("a key");
    let names: Vec<String> = names.into_iter().collect();
    let certificate = CertificateParams::new(names).expect("names").signed_by(&key, &ca).expect("a certificate");
    std::fs::write(folder.join("tls.crt"), certificate.pem()).expect("a file");
    std::fs::write(folder.join("tls.key"), key.serialize_pem()).expect("a file");
    folder
}

/// Whether this redis-server can serve TLS.
pub(crate) fn has_tls() -> bool {
    let probe = Command::new(redis::program()).args(["--port", "0", "--tls-port", "1", "--save", ""]).output();
    let has = !String::from_utf8_lossy(&probe.expect("redis-server").stdout).contains("FATAL CONFIG FILE ERROR");
    if !has {
        eprintln!("SKIPPED: this redis-server has no TLS");
    }
    has
}

#[test]
fn sentinels_and_redis_speak_tls_and_nothing_else() {
    if !has_tls() {
        return;
    }
    let rig = Rig::new();
    let tls = certificates(rig.folder.path(), ["redis-sentinel".to_owned()]);
    let Some(trio) = Trio::start(&rig.folder.join("nodes"), Some(tls)) else { return };
    rig.write_input(text::numbered(0..5_000, 1));
    let mut reader = start(&rig, Program::Reader, "Deployment", &trio.url());
    let mut writer = start(&rig, Program::Writer, "StatefulSet", &trio.url());
    rig.wait_delivered();
    let mut plain = trio.settings.clone();
    plain.tls = None;
    for port in [trio.settings.ports.0, trio.settings.ports.1] {
        let answer = plain.cli(port, trio.pods[0].address).arg("PING").output().expect("redis-cli");
        assert!(!answer.status.success(), "without TLS: {answer:?}");
    }
    reader.stop();
    writer.stop();
    rig.assert_identical();
}

/// `k8s/redis.yaml` with `components/redis-tls`.
#[test]
fn one_redis_speaks_tls() {
    if tool("redis-cli").is_none() || !has_tls() {
        return;
    }
    let rig = Rig::new();
    let folder = Folder::new();
    let tls = certificates(folder.path(), ["127.0.0.1".to_owned()]);
    let port = Port::take();
    let settings = Settings { password: PASSWORD, tls: Some(tls), ports: (port.number(), 0) };
    for name in ["data", "run", "etc"] {
        std::fs::create_dir_all(folder.join(name)).expect("a folder");
    }
    let conf = settings.adapt(&config("redis", "redis.conf"), folder.path());
    std::fs::write(folder.join("etc/redis.conf"), conf).expect("a file");
    let set = object("StatefulSet", "redis");
    let container = &containers(&set)[0];
    let script = settings.adapt(word(&container["args"][0]), folder.path());
    let log = folder.join("redis.log");
    let process = Process::start("redis", Path::new("/bin/sh"), ["-ec", &script], settings.env("redis-0"), log);
    let ready = settings.adapt(word(&container["readinessProbe"]["exec"]["command"][2]), folder.path());
    wait::until("it is ready", || {
        let mut probe = Command::new("/bin/sh");
        probe.args(["-c", &ready]).env("REDIS_PASSWORD", PASSWORD).output().expect("the probe").status.success()
    });
    rig.write_input(text::numbered(0..1_000, 1));
    let ca = settings.tls.as_ref().expect("a folder").join("ca.crt");
    let url = format!("rediss://:{}@127.0.0.1:{}?ca={}", settings.percent_encoded(), port.number(), ca.display());
    let mut services =
        [start(&rig, Program::Reader, "Deployment", &url), start(&rig, Program::Writer, "StatefulSet", &url)];
    rig.wait_delivered();
    services.iter_mut().for_each(Service::stop);
    rig.assert_identical();
    drop(process);
}
