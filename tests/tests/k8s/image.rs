//! The image: its recipe, and whether the binaries run where there is nothing but what it holds.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Output};

use e2e::{Program, Rig, text};

use crate::manifests::{list, repository, text as file, workloads};

/// Where users put their own image.
pub(crate) const COMMON: &str = "k8s/components/common/kustomization.yaml";

/// The instructions of the Containerfile, with their continuation lines.
fn instructions() -> Vec<(String, String)> {
    let joined = file("Containerfile").replace("\\\n", " ");
    let lines = joined.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| line.split_once(' ').expect("an instruction")).map(|(a, b)| (a.to_owned(), b.to_owned())).collect()
}

fn of(name: &str) -> Vec<String> {
    instructions().into_iter().filter(|(instruction, _)| instruction == name).map(|(_, rest)| rest).collect()
}

/// The workspace's crates that the services stand on, themselves included.
fn crates() -> BTreeSet<String> {
    let workspace = file("Cargo.toml");
    let (mut found, mut open) = (BTreeSet::new(), ["reader", "writer", "reconciler"].map(str::to_owned).to_vec());
    while let Some(name) = open.pop() {
        let manifest = file(&format!("{name}/Cargo.toml"));
        let dependencies =
            manifest.split("[dependencies]").nth(1).unwrap_or_default().split("\n[").next().unwrap_or_default();
        for line in dependencies.lines() {
            let dependency = line.split(['.', ' ', '=']).next().unwrap_or_default();
            let is_here = |line: &str| line.starts_with(&format!("{dependency} = {{")) && line.contains("path = ");
            if !dependency.is_empty() && workspace.lines().any(is_here) {
                open.push(dependency.to_owned());
            }
        }
        found.insert(name);
    }
    found
}

#[test]
fn the_recipe_names_what_there_is() {
    let copies: Vec<String> = of("COPY").into_iter().filter(|copy| !copy.starts_with("--from")).collect();
    let kept: BTreeSet<String> =
        file(".containerignore").lines().filter_map(|line| line.strip_prefix('!').map(str::to_owned)).collect();
    for copy in &copies {
        let words: Vec<&str> = copy.split_whitespace().collect();
        for source in &words[..words.len() - 1] {
            assert!(repository().join(source).exists(), "{copy}");
            let first = Path::new(source).iter().next().expect("a name").to_string_lossy().into_owned();
            assert!(kept.contains(&first), "{first} is ignored");
        }
    }
    let crates = crates();
    assert_eq!(crates.len(), 6, "{crates:?}");
    let members = crates.iter().map(String::as_str).collect::<BTreeSet<_>>();
    let skeleton = file("image/skeleton.sh");
    let listed = skeleton.split("members = [").nth(1).and_then(|rest| rest.split(']').next()).expect("members");
    assert_eq!(listed.split(", ").map(|name| name.trim_matches('"')).collect::<BTreeSet<_>>(), members);
    for name in &crates {
        for copy in [format!("{name}/Cargo.toml {name}/"), format!("{name}/ {name}/")] {
            assert!(copies.contains(&copy), "COPY {copy}");
        }
    }
}

/// The layer with the dependencies: cargo finds every target that the manifests name, although the
/// sources are not there.
#[test]
fn the_empty_sources_are_a_workspace() {
    let folder = e2e::Folder::new();
    // The services' tests name one more.
    for name in crates().into_iter().chain(["tests".to_owned()]) {
        std::fs::create_dir(folder.join(&name)).expect("a folder");
        std::fs::write(folder.join(&name).join("Cargo.toml"), file(&format!("{name}/Cargo.toml"))).expect("a file");
    }
    std::fs::write(folder.join("Cargo.toml"), file("Cargo.toml")).expect("a file");
    let mut make = Command::new("sh");
    assert!(
        make.arg(repository().join("image/skeleton.sh")).current_dir(folder.path()).status().expect("sh").success()
    );
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut ask = Command::new(cargo);
    ask.args(["metadata", "--no-deps", "--offline", "--format-version", "1"]).current_dir(folder.path());
    let output = ask.output().expect("cargo");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(list(&told["packages"]).len(), 7);
}

#[test]
fn the_image_is_run_as_the_manifests_run_it() {
    let user: i64 = of("USER")[0].split(':').next().and_then(|user| user.parse().ok()).expect("a number");
    assert!(user > 0);
    for from in of("FROM") {
        let image = from.split(' ').next().expect("a name");
        assert!(image == "scratch" || image.rsplit_once(':').is_some_and(|(_, tag)| tag != "latest"), "{from}");
    }
    let version = env!("CARGO_PKG_VERSION");
    assert!(of("LABEL")[0].contains(&format!("image.version=\"{version}\"")), "the label's version is not {version}");
    let ours = format!("docker.io/library/line-stream:{version}");
    let mut found = 0;
    for workload in workloads() {
        let pod = &workload["spec"]["template"]["spec"];
        if list(&pod["containers"])[0]["image"] == *ours {
            found += 1;
            assert_eq!(pod["securityContext"]["runAsUser"], user);
        }
    }
    assert_eq!(found, 2, "{ours} in both workloads");
    // Where users put their own tag.
    let kustomization = std::fs::read_to_string(repository().join(COMMON)).expect(COMMON);
    assert!(kustomization.contains(&format!("newTag: {version}\n")), "{COMMON}: newTag is not {version}");
}

/// Runs a command as the image's user in `root`. `None`, and a word about it, where this process
/// may not.
fn within(root: &Path, args: &[&str]) -> Option<Output> {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: only root may change the root folder");
        return None;
    }
    let mut command = Command::new("chroot");
    command.arg("--userspec=65532:65532").arg(root).args(args).env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    Some(command.output().expect("chroot"))
}

#[test]
fn the_binaries_run_where_there_is_nothing_but_what_the_image_holds() {
    let rig = Rig::new();
    let root = rig.folder.join("root");
    let mut make = Command::new("sh");
    make.arg(repository().join("image/rootfs.sh")).arg(&root);
    make.args([Program::Reader.path(), Program::Writer.path(), e2e::reconciler()]);
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: only root may give files to the image's user");
        return;
    }
    assert!(make.status().expect("sh").success(), "rootfs.sh");
    // The kubelet writes this one.
    std::fs::write(root.join("etc/hosts"), "127.0.0.1 localhost redis\n").expect("a file");
    std::fs::create_dir_all(root.join("data")).expect("a folder");
    open_to_all(rig.folder.path());

    let bytes = text::numbered(0..1000, 1);
    std::fs::write(root.join("data/input.txt"), &bytes).expect("the input");
    let url = format!("redis://redis:{}", rig.redis.port());
    for program in ["reader", "writer"] {
        let path = format!("/usr/local/bin/{program}");
        let Some(done) = within(&root, &[&path, "--redis-url", &url, "--http-addr", "127.0.0.1:0", "--once"]) else {
            return;
        };
        assert!(done.status.success(), "{program}: {}", String::from_utf8_lossy(&done.stderr));
    }
    assert_eq!(std::fs::read(root.join("data/output.txt")).expect("the output"), bytes);
    // The roots are those that TLS looks for: with them, a server without a certificate is refused
    // for that reason.
    let roots = std::fs::read_to_string(root.join("etc/ssl/certs/ca-certificates.crt")).expect("TLS roots");
    assert!(roots.contains("BEGIN CERTIFICATE"));
    assert!(!root.join("bin/sh").exists(), "no shell");
    let Some(done) = within(&root, &["/usr/local/bin/reconciler", "--version"]) else { return };
    assert!(done.status.success(), "reconciler: {}", String::from_utf8_lossy(&done.stderr));

    // Without a library that the script found nothing runs: the root is all there is.
    let loader = std::fs::read_dir(root.join("lib64"))
        .or_else(|_| std::fs::read_dir(root.join("lib")))
        .expect("the loader's folder");
    for file in loader.flatten().filter(|file| file.path().is_file()) {
        std::fs::remove_file(file.path()).expect("remove the loader");
    }
    let Some(done) = within(&root, &["/usr/local/bin/writer", "--version"]) else { return };
    assert!(!done.status.success());
}

/// Temporary folders are closed to others.
fn open_to_all(folder: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755)).expect("open the folder");
}
