//! The view of a user: a separate crate that contains only the programs of the README.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

mod support;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use resp::streams::{XLen, XPending};
use support::Server;

/// Returns the programs in a text, without the fences.
fn programs(text: &str) -> Vec<&str> {
    text.split("```rust,no_run\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect()
}

#[tokio::test]
async fn the_programs_of_the_readme_run() {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = std::fs::read_to_string(package.join("README.md")).unwrap();
    let [producer, consumer] = programs(&readme)[..] else { panic!("a producer and a consumer") };
    let server = Server::start();
    let url = format!("redis://127.0.0.1:{}", server.port);

    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    std::fs::create_dir_all(root.join("src/bin")).unwrap();
    for (name, program) in [("producer", producer), ("consumer", consumer)] {
        assert!(program.lines().count() < 40, "{name} is long");
        let program = program.replace("redis://localhost", &url);
        std::fs::write(root.join(format!("src/bin/{name}.rs")), program).unwrap();
    }
    let manifest = format!(
        "[package]\nname = \"outside\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\n[dependencies]\n\
         resp-streams = {{ path = {:?} }}\ntokio = {{ version = \"1\", features = [\"macros\", \"rt-multi-thread\", \"signal\"] }}\n",
        package.display().to_string()
    );
    std::fs::write(root.join("Cargo.toml"), manifest).unwrap();
    // The locked versions, so that nothing is downloaded; kept between runs.
    let lock = package.join("../Cargo.lock");
    if lock.exists() {
        std::fs::copy(lock, root.join("Cargo.lock")).unwrap();
    }
    let target = std::env::current_exe().unwrap().ancestors().nth(3).unwrap().join("outside");
    let build = Command::new(env!("CARGO"))
        .args(["build", "--offline", "--quiet", "--bins"])
        .current_dir(root)
        .env("CARGO_TARGET_DIR", &target)
        .output()
        .unwrap();
    assert!(build.status.success(), "{}", String::from_utf8_lossy(&build.stderr));
    let program = |name: &str| Command::new(target.join("debug").join(name));

    let produced = program("producer").output().unwrap();
    assert!(produced.status.success(), "{}", String::from_utf8_lossy(&produced.stderr));
    assert_eq!(String::from_utf8_lossy(&produced.stdout).matches("added as ").count(), 100);
    let mut connection = server.connect().await;
    assert_eq!(connection.send(XLen::new("events")).await.unwrap(), 100);

    let mut consumer = program("consumer").stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(consumer.stdout.take().unwrap()).lines().take(100);
    let mut texts: Vec<_> = lines.map(|line| line.unwrap().split_once(' ').unwrap().1.to_owned()).collect();
    // Ctrl-C.
    let killed = Command::new("kill").args(["-INT", &consumer.id().to_string()]).status().unwrap();
    assert!(killed.success() && consumer.wait().unwrap().success());
    texts.sort_unstable();
    texts.dedup();
    assert_eq!(texts.len(), 100);
    assert_eq!(connection.send(XPending::new("events", "workers")).await.unwrap().count, 0);
}
