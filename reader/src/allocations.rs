//! What the reader allocates: nothing a line, and little a batch.

use crate::args::Cli;
use crate::{driver, telemetry};
use clap::Parser as _;
use e2e::{Persistence, RedisServer};
use std::process::ExitCode;

/// Lines that are read; with the framing `line` about a hundred batches.
const LINES: usize = 400_000;
/// Much more than a start, an end and a batch or two need, and far from one for a line.
const MOST: u64 = LINES as u64 / 50;

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
    let about = service::About {
        labels: Vec::new(),
        name: "reader",
        version: "",
        flow: String::new(),
        metrics: &telemetry::METRICS,
        series: telemetry::SERIES,
    };
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
    let count = allocations("line");
    println!("{count} allocations for {LINES} lines");
    assert!(count < MOST, "{count} allocations for {LINES} lines");
}
