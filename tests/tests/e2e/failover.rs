//! Reader and writer keep working while their server is replaced.

use std::time::Duration;

use e2e::rig::STREAM;
use e2e::{Growth, RedisServer, Rig, Service, check, text, wait};

/// A growing input, and both services on it.
pub(crate) struct Stage<'a> {
    pub(crate) reader: Service,
    pub(crate) writer: Service,
    growth: Growth,
    lines: u64,
    rig: &'a Rig,
}

impl<'a> Stage<'a> {
    /// Starts both on the Redis at `url`, with an input of this many lines that grows for this many
    /// seconds.
    pub(crate) fn start(rig: &'a Rig, url: &str, lines: u64, seconds: u64, seed: u64) -> Self {
        let growth = Growth::of(&rig.input, text::numbered(0..lines, seed), Duration::from_secs(seconds), seed);
        let reader = rig.reader().set("--redis-url", url).start();
        let writer = rig.writer().set("--redis-url", url).start();
        Self { reader, writer, growth, lines, rig }
    }

    /// Waits until everything is delivered through this server, and checks the result.
    pub(crate) fn finish(mut self, server: &RedisServer) {
        self.growth.wait();
        self.rig.wait_delivered();
        wait::until("nothing is pending on the server", || {
            let Ok(Ok(pending)) = server.try_call(&["XPENDING", STREAM, "writers"]) else { return false };
            pending.list()[0].int() == 0
        });
        assert_eq!(self.writer.metric("writer_gap_bytes_total"), 0.0);
        assert_eq!(self.reader.metric("reader_generations_total"), 1.0, "sent again with the same IDs");
        self.reader.stop();
        self.writer.stop();
        self.rig.assert_identical();
        check::numbered(&self.rig.output_bytes(), self.lines).unwrap();
    }
}
