//! The writer dies at every point of a commit, and the next one makes the output whole: every byte
//! once, in order.

#![allow(clippy::unwrap_used)]

use resp::streams::{AddId, XAdd, XPending};
use resp::{Config, Connection, Pipeline, StreamId, cmd};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const STREAM: &str = "line_stream";
const GENERATION: u64 = 1_700_000_000_000;

/// A redis-server of this test's own, with a source in its stream.
struct Rig {
    folder: tempfile::TempDir,
    server: Child,
    input: Vec<u8>,
}

impl Rig {
    async fn new(lines: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("redis.sock");
        let program = std::env::var("REDIS_SERVER").unwrap_or_else(|_| "redis-server".to_owned());
        let server = Command::new(program)
            .args(["--port", "0", "--save", "", "--appendonly", "no", "--unixsocket"])
            .arg(&socket)
            .current_dir(folder.path())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let mut rig = Self { folder, server, input: Vec::new() };
        let mut connection = rig.connect().await;
        let record = format!(
            r#"{{"generation":{GENERATION},"root":{GENERATION},"start":0,"previous_end":null,"path":"/in","dev":1,"ino":1,"head_len":0,"head_hash":0}}"#
        );
        connection.send(&cmd::<()>("HSET").arg("{line_stream}:source").arg("next:0").arg(&record)).await.unwrap();
        let mut entries = Pipeline::new();
        for number in 0..lines {
            let line = format!("line {number} {:1000}\r", "");
            rig.input.extend_from_slice(line.as_bytes());
            rig.input.push(b'\n');
            let id = StreamId::new(GENERATION, rig.input.len() as u64);
            entries.add(XAdd::new(STREAM, AddId::Id(id), &[("line", &line)]));
        }
        connection.run(&entries).await.unwrap();
        rig
    }

    fn url(&self) -> String {
        format!("unix://{}", self.folder.path().join("redis.sock").display())
    }

    async fn connect(&self) -> Connection {
        let config = Config::from_url(&self.url()).unwrap();
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            match Connection::connect(&config).await {
                Ok(connection) => return connection,
                Err(error) => assert!(Instant::now() < deadline, "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn output(&self) -> PathBuf {
        self.folder.path().join("output.txt")
    }

    fn writer(&self, failpoint: &str) -> Output {
        Command::new(env!("CARGO_BIN_EXE_writer"))
            .args(["--once", "--http-addr", "127.0.0.1:0", "--consumer", "one", "--redis-url", &self.url(), "--output"])
            .arg(self.output())
            .env("WRITER_FAILPOINT", failpoint)
            .current_dir(self.folder.path())
            .output()
            .unwrap()
    }

    async fn pending(&self) -> u64 {
        self.connect().await.send(&XPending::new(STREAM, "writers")).await.unwrap().count
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

async fn dies_at(failpoint: &str) {
    for passes in 0..3 {
        let rig = Rig::new(3000).await;
        let died = rig.writer(&format!("{failpoint}:{passes}"));
        assert_eq!(died.status.code(), None, "{failpoint}:{passes} was not reached: {}", said(&died));
        let next = rig.writer("");
        assert_eq!(next.status.code(), Some(0), "{}", said(&next));
        assert!(fs::read(rig.output()).unwrap() == rig.input, "{failpoint}:{passes}: the output is not the input");
        assert_eq!(rig.pending().await, 0);
        assert!(verify(&rig.input, &rig.output()), "the journal says the same");
    }
}

/// `writer verify` with a copy of the input.
fn verify(input: &[u8], output: &Path) -> bool {
    let copy = output.with_extension("input");
    fs::write(&copy, input).unwrap();
    let mut verify = Command::new(env!("CARGO_BIN_EXE_writer"));
    verify.arg("verify").arg("--input").arg(&copy).arg("--output").arg(output).stdout(Stdio::null());
    verify.status().unwrap().success()
}

#[tokio::test]
async fn before_the_bytes_are_appended() {
    dies_at("before-append").await;
}

#[tokio::test]
async fn between_the_output_and_the_sync() {
    dies_at("after-append").await;
}

#[tokio::test]
async fn between_the_journal_and_the_output() {
    dies_at("after-journal").await;
}

#[tokio::test]
async fn between_the_sync_and_the_acknowledgement() {
    dies_at("after-sync").await;
}

#[tokio::test]
async fn after_the_acknowledgement() {
    dies_at("after-acknowledge").await;
}
