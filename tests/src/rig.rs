//! The folder, Redis, input and output of one test.

use std::io::Write;
use std::path::{Path, PathBuf};

use crate::binaries::Program;
use crate::check;
use crate::client::Value;
use crate::folder::Folder;
use crate::redis::{Persistence, RedisServer};
use crate::service::Launch;
use crate::wait;

/// The stream's key in tests.
pub const STREAM: &str = "line_stream";

/// The environment of a test. Declare services after it, so that they are dropped first.
#[derive(Debug)]
pub struct Rig {
    /// Its Redis.
    pub redis: RedisServer,
    /// Its folder.
    pub folder: Folder,
    /// The path of the input; the file does not exist initially.
    pub input: PathBuf,
    /// The path of the output; the file does not exist initially.
    pub output: PathBuf,
}

impl Rig {
    /// With a Redis without persistence.
    #[must_use]
    pub fn new() -> Self {
        Self::with(Persistence::None)
    }

    /// With the given persistence.
    #[must_use]
    pub fn with(persistence: Persistence) -> Self {
        Self::with_redis(persistence, &[])
    }

    /// With the given persistence and more arguments for redis-server.
    #[must_use]
    pub fn with_redis(persistence: Persistence, extra: &[&str]) -> Self {
        let folder = Folder::new();
        let redis = RedisServer::start_with(&folder.join("redis"), persistence, extra);
        for name in ["in", "out", "logs"] {
            std::fs::create_dir(folder.join(name)).expect("a folder");
        }
        let (input, output) = (folder.join("in/input.txt"), folder.join("out/output.txt"));
        Self { redis, folder, input, output }
    }

    /// A reader from `input` to the stream, over TCP.
    pub fn reader(&self) -> Launch {
        self.service(Program::Reader).set("--input", &self.input)
    }

    /// A writer from the stream to `output`, over TCP.
    pub fn writer(&self) -> Launch {
        self.service(Program::Writer).set("--output", &self.output).set("--consumer", "one")
    }

    /// `program` with the flags that both services need.
    pub fn service(&self, program: Program) -> Launch {
        self.command(program)
            .set("--redis-url", self.redis.url())
            .set("--stream", STREAM)
            .set("--http-addr", "127.0.0.1:0")
    }

    /// `program` without flags.
    pub fn command(&self, program: Program) -> Launch {
        Launch::new(program, &self.folder.join("logs"))
    }

    /// Replaces the content of the input.
    pub fn write_input(&self, bytes: impl AsRef<[u8]>) {
        std::fs::write(&self.input, bytes).expect("write the input");
    }

    /// Appends `bytes` to the input.
    pub fn append_input(&self, bytes: impl AsRef<[u8]>) {
        append(&self.input, bytes);
    }

    /// The bytes of the output; empty if it does not exist.
    #[must_use]
    pub fn output_bytes(&self) -> Vec<u8> {
        std::fs::read(&self.output).unwrap_or_default()
    }

    /// Waits until the output is as long as the input, as long as it grows.
    #[track_caller]
    pub fn wait_delivered(&self) {
        self.wait_output_len(len(&self.input));
    }

    /// Waits until the output has `bytes` bytes, as long as it grows.
    #[track_caller]
    pub fn wait_output_len(&self, bytes: u64) {
        self.wait_len_of(&self.output, bytes);
    }

    /// As [`Self::wait_output_len`], for another output.
    #[track_caller]
    pub fn wait_len_of(&self, output: &Path, bytes: u64) {
        if let Err(at) = wait::progress_to(bytes, || len(output)) {
            panic!("the output stopped growing at {at} of {bytes} bytes");
        }
    }

    /// Asserts that the output equals the input.
    #[track_caller]
    pub fn assert_identical(&self) {
        check::assert_identical(&self.input, &self.output);
    }

    /// The number of entries in the stream.
    #[must_use]
    pub fn stream_len(&self) -> i64 {
        self.redis.call(&["XLEN", STREAM]).int()
    }

    /// The entries of the stream: ID, field, payload.
    #[must_use]
    pub fn entries(&self) -> Vec<(String, String, Vec<u8>)> {
        self.redis.call(&["XRANGE", STREAM, "-", "+"]).list().iter().map(entry).collect()
    }

    /// The state of the writers' group: a field of XINFO GROUPS.
    #[must_use]
    pub fn group_field(&self, name: &str) -> Value {
        let groups = self.redis.call(&["XINFO", "GROUPS", STREAM]);
        let of_writers = |group: &&Value| group.field("name").bytes() == b"writers";
        groups.list().iter().find(of_writers).expect("the group `writers`").field(name).clone()
    }

    /// The number of pending entries of the writers' group.
    #[must_use]
    pub fn pending(&self) -> i64 {
        self.group_field("pending").int()
    }
}

impl Default for Rig {
    fn default() -> Self {
        Self::new()
    }
}

/// Appends `bytes` to a file.
pub fn append(path: &Path, bytes: impl AsRef<[u8]>) {
    let mut file = std::fs::File::options().append(true).create(true).open(path).expect("open a file to append");
    file.write_all(bytes.as_ref()).expect("append to a file");
}

/// The length of the file; 0 if it does not exist.
#[must_use]
pub fn len(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |metadata| metadata.len())
}

fn entry(value: &Value) -> (String, String, Vec<u8>) {
    let [id, fields] = value.list() else { panic!("an entry: {value:?}") };
    let [field, payload] = fields.list() else { panic!("one field: {value:?}") };
    (id.text(), field.text(), payload.bytes().to_vec())
}
