//! Tests that the reader allocates per batch, not per line.

use crate::args::Cli;
use crate::driver;
use clap::Parser as _;
use e2e::{Persistence, RedisServer};
use std::process::ExitCode;
use std::time::Instant;

/// Number of lines: about two hundred batches with the framing `line`.
const LINES: usize = 800_000;
/// More than startup, shutdown and the batches need, and far fewer than one allocation per line.
const MOST: u64 = LINES as u64 / 50;
/// More than a sample of the metrics needs; one is taken per second, so a slow run takes more of
/// them.
const A_SAMPLE: u64 = 1_000;

/// Counts the allocations of the whole reader, run as `main` does, against a real Redis. Its work
/// runs on the calling thread, which is the one that is counted.
fn allocations(framing: &str) -> u64 {
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("input.txt");
    std::fs::write(&input, "a line of no special length, of which there are many\n".repeat(LINES)).unwrap();
    let redis = RedisServer::start(&folder.path().join("redis"), Persistence::None);
    let (url, input) = (redis.url(), input.display().to_string());
    let flags = ["--redis-url", &url, "--input", &input, "--http-addr", "127.0.0.1:0", "--framing", framing, "--once"];
    let args = Cli::try_parse_from(std::iter::once("reader").chain(flags)).unwrap().args;
    let about = crate::about(&args);
    let service = args.service.clone();
    let counted = allocation_counter::measure(|| {
        let code = service::run(about, &service, async move |context| driver::run(args, context).await);
        assert_eq!(code, ExitCode::SUCCESS);
    });
    assert!(redis.call(&["XLEN", "line_stream"]).int() > 0);
    counted.count_total
}

#[test]
fn the_reader_does_not_allocate_per_line() {
    let begun = Instant::now();
    let count = allocations("line");
    let samples = begun.elapsed().as_secs() + 1;
    println!("{count} allocations for {LINES} lines and {samples} samples");
    assert!(count < MOST + samples * A_SAMPLE, "{count} allocations for {LINES} lines and {samples} samples");
}
