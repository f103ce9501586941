//! What `reader check` and `writer check` find, and what both look at: Redis, the stream's key, folders, the port.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::io::Write as _;
use std::net::TcpListener;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use delivery::manifest::{begun_with, record_key};
use delivery::partition::Partition;
use indicatif::HumanBytes;
use resp::{Cmd, Connection, ErrorKind, Frame, cmd};

use crate::args::ServiceArgs;
use crate::server::fields;
use crate::{Failure, logs, words};

/// How long Redis may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// With less space left than this on a disk, the work stops soon.
const LITTLE_SPACE: u64 = 256 << 20;
/// The oldest Redis with all that is used.
const OLDEST: (u32, u32) = (6, 2);

/// The findings, printed as they come, each once.
#[derive(Debug, Default)]
pub struct Checks {
    wrong: usize,
    told: BTreeSet<String>,
    /// INFO has told whether there is memory left and whether this is a primary.
    informed: bool,
    /// The servers that INFO was asked of.
    servers: BTreeSet<String>,
}

/// One of the streams that the service would use.
#[derive(Debug)]
pub struct Found {
    /// Which part of the source it carries.
    pub partition: Partition,
    /// Its key.
    pub key: String,
    /// A connection to where it is, when that can be used.
    pub connection: Option<Connection>,
}

impl Found {
    /// What a finding says behind the name of something that each stream has: nothing when there is one stream only, else ` of <key>`.
    #[must_use]
    pub fn of_stream(&self) -> String {
        if self.partition.is_whole() { String::new() } else { format!(" of {}", self.key) }
    }
}

/// Commands that a service sends where a stream, or the record of a source, is.
#[derive(Debug)]
pub struct Commands<'a> {
    /// Leads there.
    pub connection: &'a mut Connection,
    /// What it watches with `WATCH`.
    pub watched: String,
    /// The others; the first one only reads.
    pub commands: Vec<Cmd>,
}

impl Checks {
    fn print(kind: &str, what: &str, more: &str) {
        let mut out = std::io::stdout().lock();
        // Nobody is left to tell when standard output is gone.
        let _ = writeln!(out, "{kind:<6} {what}");
        if !more.is_empty() {
            let _ = writeln!(out, "       → {more}");
        }
    }

    /// Prints this unless it was; whether it was not.
    fn tell(&mut self, kind: &str, what: impl Display, more: &str) -> bool {
        let what = what.to_string();
        let is_new = self.told.insert(format!("{kind} {what}"));
        if is_new {
            Self::print(kind, &what, more);
        }
        is_new
    }

    /// This is as it should be.
    pub fn ok(&mut self, what: impl Display) {
        self.tell("ok", what, "");
    }

    /// This works, and there is something to know about it.
    pub fn note(&mut self, what: impl Display, advice: &str) {
        self.tell("note", what, advice);
    }

    /// This will not work; what to do about it.
    pub fn wrong(&mut self, what: impl Display, advice: &str) {
        self.wrong += usize::from(self.tell("WRONG", what, advice));
    }

    /// A folder must be one that files can be made in, on a disk with space left.
    pub fn folder(&mut self, flag: &str, folder: &Path) {
        let shown = folder.display();
        let probe = folder.join(format!(".check.{}", std::process::id()));
        match std::fs::write(&probe, b"").and_then(|()| std::fs::remove_file(&probe)) {
            Ok(()) => self.ok(format!("{flag}: files can be made in {shown}")),
            Err(error) => return self.wrong(format!("{flag}: making a file in {shown}: {error}"), words::io(&error)),
        }
        match rustix::fs::statvfs(folder) {
            Ok(disk) => {
                let left = disk.f_bavail.saturating_mul(disk.f_frsize);
                let text = format!("disk: {} left in {shown}", HumanBytes(left));
                if left < LITTLE_SPACE {
                    self.wrong(text, "free some space, or use another disk");
                } else {
                    self.ok(text);
                }
            }
            Err(error) => self.note(format!("disk: the space left in {shown} is not known: {error}"), ""),
        }
    }

    /// Whether Redis would take these commands of this user now: they are queued in transactions that are discarded, so none is executed.
    /// The first one of each must be one that only reads. `WATCH`, which no transaction takes, is tried by itself.
    pub async fn commands(&mut self, asked: Vec<Commands<'_>>) {
        let (mut forbidden, mut refused) = (Vec::new(), None);
        for Commands { connection, watched, commands } in asked {
            for command in [cmd::<Frame>("WATCH").arg(&watched), cmd::<Frame>("UNWATCH")] {
                match connection.send(&command).await {
                    Err(error) if error.kind() == ErrorKind::NoPerm => forbidden.push(error.message().to_owned()),
                    done => refused = refused.or(done.err()),
                }
            }
            let mut begun = match connection.send(&cmd::<Frame>("MULTI")).await {
                Ok(_) => true,
                Err(error) => {
                    refused = Some(error);
                    false
                }
            };
            // The first of them only reads: should what answers have no transactions, nothing has been done.
            for command in &commands {
                if !begun {
                    break;
                }
                match connection.send(command).await {
                    Ok(reply) => begun = reply.value().as_bytes() == Some(b"QUEUED"),
                    Err(error) if error.kind() == ErrorKind::NoPerm => forbidden.push(error.message().to_owned()),
                    // That has been told.
                    Err(error) if self.informed && matches!(error.kind(), ErrorKind::Oom | ErrorKind::ReadOnly) => {}
                    Err(error) => refused = refused.or(Some(error)),
                }
            }
            // Without a transaction there is nothing to discard.
            let _ = connection.send(&cmd::<Frame>("DISCARD")).await;
            if !begun && refused.is_none() {
                let what = "redis: what answers has no transactions (MULTI)";
                return self.wrong(what, words::redis(ErrorKind::UnknownCommand));
            }
        }
        let mut known = BTreeSet::new();
        forbidden.retain(|what| known.insert(what.clone()));
        if !forbidden.is_empty() {
            let what = format!("redis: the user lacks rights: {}", forbidden.join("; "));
            self.wrong(what, words::redis(ErrorKind::NoPerm));
        }
        if let Some(error) = &refused {
            self.wrong(format!("redis: {error}"), words::redis(error.kind()));
        }
        if forbidden.is_empty() && refused.is_none() {
            self.ok("redis: the user may run all commands that are needed");
        }
    }

    /// Whether the source was begun with as many partitions as the flags say. `connection` leads to the key of the stream that would be the
    /// only one.
    async fn begun(&mut self, connection: &mut Connection, args: &ServiceArgs) {
        let ServiceArgs { stream, partitions, .. } = args;
        let record = record_key(stream);
        let reply = match connection.send(&cmd::<Frame>("HGETALL").arg(&record)).await {
            Ok(reply) => reply,
            // Of the only stream, that is told with everything else about its record; of others, with the commands that are needed.
            Err(error) if *partitions == 1 || error.kind() == ErrorKind::NoPerm => return,
            Err(error) => {
                return self.wrong(format!("source: reading {record}: {error}"), words::redis(error.kind()));
            }
        };
        let pairs = reply.value().pairs().filter_map(|(name, value)| Some((name.as_bytes()?, value.as_bytes()?)));
        match begun_with(pairs) {
            Ok(Some(begun)) if begun == *partitions => {
                if begun > 1 {
                    self.ok(format!("--partitions: stream {stream} was begun with {begun}"));
                }
            }
            Ok(Some(begun)) => self.wrong(
                format!("--partitions {partitions}: stream {stream} was begun with --partitions {begun}"),
                &format!("give --partitions {begun}, or choose another --stream"),
            ),
            Ok(None) => {}
            Err(error) => self.wrong(
                format!("source: {record}: {error}"),
                "remove what is not the reader's from this key, or choose another --stream",
            ),
        }
    }
}

/// Checks what both services need, then what `more` looks at; it gets the streams of these partitions and, when there are several, a connection to the
/// key of the stream that would be the only one, each when Redis can be used there. Moves nothing and changes nothing in Redis. Exit code 0, or 1
/// when something is wrong.
pub fn run(
    name: &str,
    args: &ServiceArgs,
    more: impl AsyncFnOnce(&mut Checks, Vec<Found>, Option<Connection>),
) -> ExitCode {
    let partitions = match args.taken() {
        Ok(partitions) => partitions,
        Err(failure) => {
            logs::last_words(args.log_format, name, &failure.to_string());
            return ExitCode::from(&failure);
        }
    };
    let mut checks = Checks::default();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            logs::last_words(args.log_format, name, &format!("check: {error}"));
            return ExitCode::FAILURE;
        }
    };
    runtime.block_on(async {
        port(&mut checks, args);
        let config = match args.redis() {
            Ok(config) => Some(config.command_timeout(Some(PATIENCE))),
            Err(Failure::Config(text) | Failure::Failed(text)) => {
                checks.wrong(text, "correct the flag or the file");
                None
            }
        };
        let mut found = Vec::new();
        for partition in partitions {
            let key = partition.stream(&args.stream);
            let mut connection = match &config {
                Some(config) => redis(&mut checks, &config.clone().for_key(&key)).await,
                None => None,
            };
            if let Some(connection) = &mut connection {
                stream(&mut checks, connection, &key).await;
            }
            found.push(Found { partition, key, connection });
        }
        let mut base = None;
        match found.first_mut() {
            Some(Found { partition, connection: Some(connection), .. }) if partition.is_whole() => {
                checks.begun(connection, args).await;
            }
            Some(Found { partition, .. }) if !partition.is_whole() => {
                if let Some(config) = &config {
                    base = redis(&mut checks, config).await;
                }
                if let Some(connection) = &mut base {
                    checks.begun(connection, args).await;
                }
            }
            _ => {}
        }
        more(&mut checks, found, base).await;
    });
    match checks.wrong {
        0 => {
            Checks::print("ok", &format!("{name} can start"), "");
            ExitCode::SUCCESS
        }
        wrong => {
            Checks::print("WRONG", &format!("{wrong} of these would stop {name}"), "");
            ExitCode::FAILURE
        }
    }
}

fn port(checks: &mut Checks, args: &ServiceArgs) {
    let addr = args.http_addr;
    match TcpListener::bind(addr) {
        Ok(_) => checks.ok(format!("--http-addr: {addr} is free")),
        Err(error) => checks.wrong(
            format!("--http-addr: listening on {addr}: {error}"),
            match error.kind() {
                std::io::ErrorKind::PermissionDenied => {
                    "choose a port above 1023, or give the service the right to this one"
                }
                std::io::ErrorKind::AddrNotAvailable => "choose an address of this machine",
                _ => "is the service running already? Else choose another port, or port 0 for any that is free",
            },
        ),
    }
}

/// A connection to a Redis that answers, and what it says of itself, unless that was asked of it.
async fn redis(checks: &mut Checks, config: &resp::Config) -> Option<Connection> {
    let mut connection = match Connection::connect(config).await {
        Ok(connection) => connection,
        Err(error) => {
            checks.wrong(format!("redis: {config}: {error}"), words::redis(error.kind()));
            return None;
        }
    };
    match connection.send(&cmd::<Frame>("INFO")).await {
        Ok(reply) => {
            let text = String::from_utf8_lossy(reply.value().as_bytes().unwrap_or_default()).into_owned();
            let info = fields(&text);
            if checks.servers.insert(info.get("run_id").copied().unwrap_or_default().to_owned()) {
                judge(checks, config, &info);
            }
            checks.informed = true;
        }
        Err(error) if error.kind() == ErrorKind::NoPerm => {
            checks.note("redis: this user may not ask INFO: version, memory and persistence are not known", "");
        }
        Err(error) => {
            checks.wrong(format!("redis: asking {config} for INFO: {error}"), words::redis(error.kind()));
            return None;
        }
    }
    Some(connection)
}

async fn stream(checks: &mut Checks, connection: &mut Connection, key: &str) {
    match connection.send(&cmd::<Frame>("TYPE").arg(key)).await {
        Ok(kind) => match String::from_utf8_lossy(kind.value().as_bytes().unwrap_or_default()).as_ref() {
            "stream" => checks.ok(format!("--stream: {key} is a stream")),
            "none" => checks.ok(format!("--stream: {key} does not exist yet, and will be made")),
            other => checks.wrong(
                format!("--stream: the key {key} holds a {other}"),
                "choose another --stream, or delete the key",
            ),
        },
        Err(error) => checks.wrong(format!("--stream: looking at {key}: {error}"), words::redis(error.kind())),
    }
}

/// What INFO says.
fn judge(checks: &mut Checks, config: &resp::Config, info: &BTreeMap<&str, &str>) {
    let field = |name: &str| info.get(name).copied().unwrap_or_default();
    let number = |name: &str| field(name).parse::<u64>().unwrap_or(0);
    let version = field("redis_version");
    let mut parts = version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    if (parts.next().unwrap_or(0), parts.next().unwrap_or(0)) < OLDEST {
        checks.wrong(format!("redis: {config} is version {version}"), "use Redis 6.2 or later, or Valkey");
    } else {
        checks.ok(format!("redis: {config} answers, version {version}"));
    }
    if field("role") == "slave" {
        checks.wrong("redis: this is a replica, which cannot be written to", "use the address of its primary");
    }
    if number("loading") == 1 {
        checks.note("redis: it still loads its data", "the services wait for it");
    }
    match (field("aof_enabled"), field("aof_last_write_status")) {
        ("1", "ok" | "") => checks.ok("redis: the append-only file is on"),
        ("1", _) => checks.wrong("redis: the append-only file cannot be written", "look at Redis' disk and log"),
        _ => checks.note(
            "redis: the append-only file is off: a restart loses what is in the stream",
            "lines whose source bytes still exist are sent again; for the others: CONFIG SET appendonly yes",
        ),
    }
    let (most, used, policy) = (number("maxmemory"), number("used_memory"), field("maxmemory_policy"));
    match most {
        0 => checks.ok(format!("redis: {} in use, without a limit", HumanBytes(used))),
        _ if used >= most => checks.wrong(
            format!("redis: {} of {} in use: nothing can be added", HumanBytes(used), HumanBytes(most)),
            words::redis(ErrorKind::Oom),
        ),
        _ if used >= most / 10 * 9 => checks.note(
            format!("redis: {} of {} in use: little is left", HumanBytes(used), HumanBytes(most)),
            words::redis(ErrorKind::Oom),
        ),
        _ => checks.ok(format!("redis: {} of {} in use", HumanBytes(used), HumanBytes(most))),
    }
    if most > 0 && policy.starts_with("allkeys") {
        checks.wrong(
            format!("redis: maxmemory-policy {policy} may throw the whole stream away"),
            "CONFIG SET maxmemory-policy noeviction",
        );
    } else if !policy.is_empty() {
        checks.ok(format!("redis: maxmemory-policy {policy} keeps the stream"));
    }
}
