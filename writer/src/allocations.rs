//! Tests that the writer allocates per batch, not per line.

use crate::args::Args;
use crate::{args, output, run};
use clap::Parser as _;
use delivery::consumer::Batch;
use e2e::{Persistence, RedisServer};
use resp::streams::XAdd;
use resp::{Config, Connection, Pipeline, StreamId, cmd};
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

const LINES: u64 = 400_000;
/// More than startup, shutdown and a few allocations per reply of a thousand entries need, and far
/// fewer than one per line.
const MOST: u64 = LINES / 64;
/// More than a sample of the metrics needs; one is taken per second, so a slow run takes more of
/// them.
const A_SAMPLE: u64 = 1_000;
const LINE: &[u8] = b"a line of no special length, of which there are many";
const GENERATION: u64 = 1_700_000_000_000;

/// Fills a stream as a reader does.
async fn fill(url: &str) {
    let mut connection = Connection::connect(&Config::from_url(url).unwrap()).await.unwrap();
    let record = format!(
        r#"{{"generation":{GENERATION},"root":{GENERATION},"start":0,"previous_end":null,"path":"/in","dev":1,"ino":1,"head_len":0,"head_hash":0}}"#
    );
    connection.send(&cmd::<()>("HSET").arg("{line_stream}:source").arg("next:0").arg(&record)).await.unwrap();
    let len = LINE.len() as u64 + 1;
    for first in (1..=LINES).step_by(10_000) {
        let mut entries = Pipeline::new();
        for number in first..first + 10_000 {
            entries.add(XAdd::new("line_stream", StreamId::new(GENERATION, number * len), &[("line", LINE)]));
        }
        connection.run(&entries).await.unwrap().check().unwrap();
    }
}

/// Counts the allocations of the whole writer, run as `main` does, against a real Redis. Reading,
/// consuming and acknowledging all run on the calling thread, which is the one that is counted.
fn allocations(folder: &Path, url: &str) -> u64 {
    let output = folder.join("output.txt").display().to_string();
    let flags = ["--redis-url", url, "--output", &output, "--http-addr", "127.0.0.1:0", "--once"];
    let args = Args::try_parse_from(std::iter::once("writer").chain(flags)).unwrap();
    let counted = allocation_counter::measure(|| {
        let code = service::run(crate::about(&args), &args.service, async |context| {
            run::run(&args.service, &args.writer, context).await
        });
        assert_eq!(code, ExitCode::SUCCESS);
    });
    let written = std::fs::metadata(output).unwrap().len();
    assert_eq!(written, LINES * (LINE.len() as u64 + 1));
    counted.count_total
}

#[test]
fn the_writer_does_not_allocate_per_line() {
    let folder = tempfile::tempdir().unwrap();
    let redis = RedisServer::start(&folder.path().join("redis"), Persistence::None);
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(fill(&redis.url()));
    let begun = Instant::now();
    let count = allocations(folder.path(), &redis.url());
    let samples = begun.elapsed().as_secs() + 1;
    println!("{count} allocations for {LINES} lines and {samples} samples");
    assert!(count < MOST + samples * A_SAMPLE, "{count} allocations for {LINES} lines and {samples} samples");
}

/// The commit runs on a thread of its own, so it is measured separately.
#[test]
fn a_commit_does_not_allocate_per_line() {
    const BATCH: u64 = 10_000;
    let folder = tempfile::tempdir().unwrap();
    let mut output = output::Output::open(
        &folder.path().join("output.txt"),
        &crate::test_outputs::identity(),
        args::Fsync::Never,
        None,
    )
    .unwrap()
    .output;
    let mut batch = Batch::default();
    for number in 0..BATCH {
        batch.data.extend_from_slice(LINE);
        let (start, len) = (number * LINE.len() as u64, LINE.len() as u64);
        batch.extend(GENERATION, start..start + len, 1);
        batch.ids.push(StreamId::new(GENERATION, start + len));
    }
    let counted = allocation_counter::measure(|| output.commit(&batch).unwrap());
    assert_eq!(output.len(), BATCH * LINE.len() as u64);
    assert!(counted.count_total < 20, "{counted:?}");
}
