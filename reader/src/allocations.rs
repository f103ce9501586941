//! What the reader allocates: nothing a line, and little a batch.

use crate::args::Cli;
use crate::driver;
use clap::Parser as _;
use e2e::{Persistence, RedisServer};
use std::process::ExitCode;
use std::time::Instant;

/// Lines that are read; with the framing `line` about two hundred batches.
const LINES: usize = 800_000;
/// More than a start, an end and the batches need, and far from one for a line.
const MOST: u64 = LINES as u64 / 64;
/// More than a sample of the metrics needs; one is taken every second, however long the run takes.
const A_SAMPLE: u64 = 1_000;

/// How often the whole reader allocates, as `main` runs it, against a real Redis: its work runs on
/// the calling thread, which is the one that is counted.
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
fn nothing_is_allocated_a_line() {
    let begun = Instant::now();
    let count = allocations("line");
    let samples = begun.elapsed().as_secs() + 1;
    println!("{count} allocations for {LINES} lines and {samples} samples");
    assert!(count < MOST + samples * A_SAMPLE, "{count} allocations for {LINES} lines and {samples} samples");
}
