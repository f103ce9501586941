//! The components of a round, and the faults that hit them.

use std::path::PathBuf;

use super::Plan;
use super::fault::Fault;
use super::source::Source;
use crate::binaries::Program;
use crate::proxy::Proxy;
use crate::redis::{Persistence, RedisServer};
use crate::rig::{self, Rig, STREAM};
use crate::service::{Launch, Service};
use crate::wait;

/// Growth of the input in bytes per second.
pub(super) const RATE: f64 = 2_000_000.0;

pub(super) struct Stage {
    // In drop order.
    reader: Runner,
    writers: Vec<Runner>,
    pub(super) source: Source,
    /// All bytes ever written to the input.
    pub(super) all: PathBuf,
    rig: Rig,
}

/// A service behind its own proxy.
pub(super) struct Runner {
    pub(super) service: Service,
    launch: Launch,
    proxy: Proxy,
}

impl Runner {
    pub(super) fn start(launch: Launch, port: u16) -> Self {
        let proxy = Proxy::start(port);
        let launch = launch.set("--redis-url", proxy.url());
        Self { service: launch.start(), launch, proxy }
    }

    fn start_again(&mut self) {
        self.service = self.launch.start();
    }
}

impl Stage {
    pub(super) fn new(plan: Plan) -> Self {
        let rig = Rig::with(plan.persistence);
        let port = rig.redis.port();
        let reader = rig.reader().set("--framing", if plan.chunk { "chunk" } else { "line" });
        let writer = |nth: usize| {
            let writer = rig.writer().set("--consumer", nth.to_string()).set("--output", output(&rig, nth));
            Runner::start(if plan.writers > 1 { writer.set("--claim-idle", "2s") } else { writer }, port)
        };
        let writers = (0..plan.writers).map(writer).collect();
        let all = rig.folder.join("all");
        let source = Source::start(&rig.input, &all, RATE, plan.seed);
        let mut reader = Runner::start(reader, port);
        // Contents that are rotated away before the reader sees them are only reported.
        reader.service.wait_for_log(&["generation", "begins at byte 0"]);
        Self { reader, writers, source, all, rig }
    }

    /// Injects a fault, and ends it after a random time.
    pub(super) fn strike(&mut self, fault: Fault, rng: &mut fastrand::Rng) {
        let Self { reader, writers, source, rig, .. } = self;
        let writer = rng.usize(..writers.len());
        match fault {
            Fault::Renamed => source.rename(),
            Fault::CopiedAndTruncated => source.copy_and_truncate(),
            fault => strike(fault, reader, &mut writers[writer], &mut rig.redis, rng),
        }
    }

    pub(super) fn outputs(&self) -> Vec<PathBuf> {
        (0..self.writers.len()).map(|nth| output(&self.rig, nth)).collect()
    }

    /// Bytes in all outputs.
    pub(super) fn written(&self) -> u64 {
        self.outputs().iter().map(|path| rig::len(path)).sum()
    }

    /// Whether the reader has sent everything, and the group has acknowledged everything.
    ///
    /// # Errors
    ///
    /// What is missing.
    pub(super) fn done(&mut self) -> Result<(), String> {
        let sent = self.reader.service.metric("reader_input_position_bytes");
        let size = rig::len(&self.rig.input);
        if sent != size as f64 {
            return Err(format!("the reader is at {sent} of {size} bytes"));
        }
        let last = self.rig.redis.call(&["XINFO", "STREAM", STREAM]).field("last-generated-id").text();
        let (delivered, pending) = (self.rig.group_field("last-delivered-id").text(), self.rig.pending());
        if delivered == last && pending == 0 {
            return Ok(());
        }
        Err(format!("the group was given the entries up to {delivered} of {last}, and {pending} are pending"))
    }

    /// Checks that the metrics report no loss.
    pub(super) fn check_metrics(&mut self) -> Result<(), String> {
        let of_writers = self.writers.iter_mut().map(|writer| (&mut writer.service, "writer_gap_bytes_total"));
        let of_reader = ["reader_unreadable_bytes_total", "reader_unreadable_contents_total"];
        for (service, name) in of_writers {
            none(service, name)?;
        }
        of_reader.iter().try_for_each(|name| none(&mut self.reader.service, name))
    }

    pub(super) fn stop(&mut self) {
        self.reader.service.stop();
        self.writers.iter_mut().for_each(|writer| writer.service.stop());
    }

    /// Merges all outputs into the order of the source.
    pub(super) fn merge(&self) -> Result<PathBuf, String> {
        merge(&self.rig, &self.outputs())
    }

    pub(super) fn keep(&mut self) -> PathBuf {
        self.rig.folder.keep()
    }

    pub(super) fn logs(&self) -> String {
        let writers = self.writers.iter().map(|writer| ("writer", &writer.service));
        logs([("reader", &self.reader.service)].into_iter().chain(writers))
    }
}

/// Injects a fault of the services, the network or Redis, and ends it after a random time.
pub(super) fn strike(
    fault: Fault,
    reader: &mut Runner,
    writer: &mut Runner,
    redis: &mut RedisServer,
    rng: &mut fastrand::Rng,
) {
    match fault {
        Fault::ReaderKilled => reader.service.kill9(),
        Fault::ReaderStopped => reader.service.stop(),
        Fault::ReaderFrozen => reader.service.freeze(),
        Fault::ReaderCut => reader.proxy.cut(),
        Fault::ReaderStalled => reader.proxy.stall(),
        Fault::ReaderRepliesLost => reader.proxy.drop_replies(),
        Fault::ReaderRefused => reader.proxy.refuse(),
        Fault::WriterKilled => writer.service.kill9(),
        Fault::WriterStopped => writer.service.stop(),
        Fault::WriterFrozen => writer.service.freeze(),
        Fault::WriterCut => writer.proxy.cut(),
        Fault::WriterStalled => writer.proxy.stall(),
        Fault::WriterRepliesLost => writer.proxy.drop_replies(),
        Fault::WriterRefused => writer.proxy.refuse(),
        Fault::RedisKilled | Fault::RedisLosesTail => redis.kill9(),
        Fault::RedisFrozen => redis.freeze(),
        Fault::RedisFlushed => redis.flushall(),
        Fault::ReaderAndWriterKilled | Fault::AllKilled => {
            reader.service.kill9();
            writer.service.kill9();
            if fault == Fault::AllKilled {
                redis.kill9();
            }
        }
        Fault::Renamed | Fault::CopiedAndTruncated => {}
    }
    wait::random_moment(rng, 0..800);
    match fault {
        Fault::ReaderKilled | Fault::ReaderStopped => reader.start_again(),
        Fault::ReaderFrozen => reader.service.thaw(),
        Fault::ReaderStalled | Fault::ReaderRefused => reader.proxy.heal(),
        Fault::WriterKilled | Fault::WriterStopped => writer.start_again(),
        Fault::WriterFrozen => writer.service.thaw(),
        Fault::WriterStalled | Fault::WriterRefused => writer.proxy.heal(),
        // A connection that lost bytes cannot be used any more, so close it.
        Fault::ReaderRepliesLost | Fault::WriterRepliesLost => {
            let proxy = if fault == Fault::ReaderRepliesLost { &reader.proxy } else { &writer.proxy };
            proxy.cut();
            proxy.heal();
        }
        Fault::RedisKilled => redis.start_again(),
        Fault::RedisLosesTail => {
            if redis.persistence() != Persistence::None {
                redis.lose_tail(rng.u64(..2_000_000));
            }
            redis.start_again();
        }
        Fault::RedisFrozen => redis.thaw(),
        Fault::ReaderAndWriterKilled | Fault::AllKilled => {
            if fault == Fault::AllKilled {
                redis.start_again();
            }
            reader.start_again();
            writer.start_again();
        }
        Fault::ReaderCut | Fault::WriterCut | Fault::RedisFlushed | Fault::Renamed | Fault::CopiedAndTruncated => {}
    }
}

/// The last log lines of services.
pub(super) fn logs<'a>(services: impl Iterator<Item = (&'a str, &'a Service)>) -> String {
    let tail = |(name, service): (&str, &Service)| {
        let log = service.log();
        let lines: Vec<&str> = log.lines().collect();
        format!("--- {name}\n{}", lines[lines.len().saturating_sub(20)..].join("\n"))
    };
    services.map(tail).collect::<Vec<_>>().join("\n")
}

/// Merges these outputs into the order of the source.
pub(super) fn merge(rig: &Rig, outputs: &[PathBuf]) -> Result<PathBuf, String> {
    let merge = rig.command(Program::Writer).word("merge");
    let mut merge = outputs.iter().fold(merge, |merge, path| merge.word("--output").word(path)).run();
    match merge.code() {
        Some(0) => Ok(merge.process().stdout_path()),
        code => Err(format!("writer merge ended with {code:?}: {}", merge.log())),
    }
}

fn output(rig: &Rig, nth: usize) -> PathBuf {
    rig.folder.join(&format!("out/output-{nth}.txt"))
}

pub(super) fn none(service: &mut Service, name: &str) -> Result<(), String> {
    match service.metric(name) {
        0.0 => Ok(()),
        bytes => Err(format!("{name} is {bytes}, although nothing was lost")),
    }
}
