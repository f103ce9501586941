//! The examples, run against a real server.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

mod support;

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use resp::streams::{XLen, XPending};
use support::Server;
#[cfg(feature = "tls")]
use support::certificates::make_files;

/// Builds the examples like the tests, and returns their folder.
fn build() -> PathBuf {
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--quiet", "--offline", "--package", env!("CARGO_PKG_NAME"), "--examples"]);
    if cfg!(feature = "tls") {
        build.args(["--features", "tls"]);
    }
    let built = build.current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    std::env::current_exe().unwrap().ancestors().nth(2).unwrap().join("examples")
}

/// Returns the output of an example that succeeds.
fn said(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn producer_and_consumer_group_are_short() {
    for name in ["producer", "consumer_group"] {
        let source = format!("{}/examples/{name}.rs", env!("CARGO_MANIFEST_DIR"));
        assert!(std::fs::read_to_string(&source).unwrap().lines().count() < 40, "{source}");
    }
}

#[tokio::test]
async fn every_example_runs() {
    let server = Server::start();
    let mut connection = server.connect().await;
    let url = format!("redis://127.0.0.1:{}", server.port);
    let examples = build();

    // The producer adds 2,500 lines.
    let mut producer = Command::new(examples.join("producer"))
        .args([&url, "events"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines: String = (0..2500).map(|n| format!("line {n}\n")).collect();
    producer.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    assert!(producer.wait().unwrap().success());
    assert_eq!(connection.send(XLen::new("events")).await.unwrap(), 2500);

    // The consumer group reads them, and ends with Ctrl-C.
    let mut consumer = Command::new(examples.join("consumer_group"))
        .args([&url, "events", "workers", "me"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines: Vec<_> =
        BufReader::new(consumer.stdout.take().unwrap()).lines().take(2500).map(Result::unwrap).collect();
    for (n, line) in lines.iter().enumerate() {
        assert!(line.ends_with(&format!("{{\"line\": \"line {n}\"}}")), "{line}");
    }
    let killed = Command::new("kill").args(["-INT", &consumer.id().to_string()]).status().unwrap();
    assert!(killed.success() && consumer.wait().unwrap().success());
    assert_eq!(connection.send(XPending::new("events", "workers")).await.unwrap().count, 0);

    if server.since((7, 0), "example custom_command: PEXPIRE with NX").await {
        let custom = said(Command::new(examples.join("custom_command")).arg(&url));
        assert_eq!(custom, "attempt 1: true\nattempt 2: false\n");
    }
    // Without a server, they report that.
    let nowhere = Command::new(examples.join("producer")).arg("redis://127.0.0.1:1").output().unwrap();
    assert!(String::from_utf8_lossy(&nowhere.stderr).contains("connecting to redis://127.0.0.1:1"), "{nowhere:?}");
}

#[cfg(feature = "tls")]
#[test]
fn the_example_for_tls_runs() {
    let files = tempfile::tempdir().unwrap();
    make_files(files.path());
    let Some((_server, port)) = Server::with_tls(files.path(), "yes") else { return };
    let file = |name: &str| files.path().join(name);
    let mut tls = Command::new(build().join("tls"));
    tls.arg(format!("rediss://localhost:{port}")).args([file("ca.pem"), file("client.pem"), file("client.key")]);
    assert!(said(&mut tls).starts_with("\"PONG\" over"));

    // The system trusts this authority.
    let Some((_server, port)) = Server::with_tls(files.path(), "no") else { return };
    let mut tls = Command::new(build().join("tls"));
    tls.arg(format!("rediss://localhost:{port}"));
    assert!(said(tls.env("SSL_CERT_FILE", file("ca.pem"))).starts_with("\"PONG\" over"));
    let refused = tls.env("SSL_CERT_FILE", file("other-ca.pem")).output().unwrap();
    assert!(String::from_utf8_lossy(&refused.stderr).contains("TLS: "), "{refused:?}");
}
