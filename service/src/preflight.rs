//! Preflight checks of `reader check` and `writer check`: the findings, and the checks that both
//! share (Redis, the key of the stream, folders, the port).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use delivery::manifest::{begun_with, record_key};
use delivery::partition::Partition;
use indicatif::HumanBytes;
use resp::{Cmd, Command as _, Connection, Error, ErrorKind, Frame, cmd};

use crate::advice::noun;
use crate::args::ServiceArgs;
use crate::connector::is_final;
use crate::logs::one_line;
use crate::redis_info::fields;
use crate::{Failure, advice, logs, usage};

/// Timeout of each command.
const PATIENCE: Duration = Duration::from_secs(5);
/// Less free space than this on a disk is reported.
const LITTLE_SPACE: u64 = 256 << 20;
/// The oldest supported Redis version.
const OLDEST: (u32, u32) = (6, 2);

/// The severity of a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    /// As expected.
    Ok,
    /// It works; the user should know about it.
    Note,
    /// The service would start, and wait until this is resolved.
    Waits,
    /// The service cannot work like this.
    Wrong,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Waits => "waits",
            Self::Wrong => "WRONG",
        }
    }
}

/// The findings, printed as they are found, without duplicates.
#[derive(Debug, Default)]
pub struct Preflight {
    /// Print one JSON document at the end instead.
    json: bool,
    waits: u64,
    wrong: u64,
    printed: BTreeSet<String>,
    findings: Vec<serde_json::Value>,
    /// `INFO` has reported memory and role, so errors that follow from these are not repeated.
    informed: bool,
    /// Whether Redis writes every command to an append-only file or to a replica.
    logs_commands: bool,
    /// The `run_id` of each server that was checked.
    servers: BTreeSet<String>,
    /// The service is already running with the same source and destination.
    running: bool,
}

/// A stream that the service would use.
#[derive(Debug)]
pub struct Found {
    /// The partition of the source that the stream carries.
    pub partition: Partition,
    /// The key of the stream.
    pub key: String,
    /// A connection to its node, if Redis is usable there.
    pub connection: Option<Connection>,
}

impl Found {
    /// Suffix for a finding about something that each stream has: empty for a single stream, else `
    /// of <key>`.
    #[must_use]
    pub fn of_stream(&self) -> String {
        if self.partition.is_whole() { String::new() } else { format!(" of {}", self.key) }
    }
}

/// Commands that a service sends to one key.
#[derive(Debug)]
pub struct Commands<'a> {
    /// A connection to the node of the key.
    pub connection: &'a mut Connection,
    /// The key for `WATCH`.
    pub watched: String,
    /// The other commands; the first one must be read-only.
    pub commands: Vec<Cmd>,
}

/// The replies of Redis to the commands that were tried.
#[derive(Debug, Default)]
struct Rights {
    /// Commands that the user may not run, each with what Redis said.
    forbidden: BTreeMap<String, String>,
    /// Another error.
    refused: Option<Error>,
    /// The server accepts `MULTI` but begins no transaction.
    no_transactions: bool,
}

impl Rights {
    /// Queues the commands in a transaction that is discarded, so that none is executed. `WATCH`,
    /// which Redis refuses inside a transaction, is tried by itself.
    async fn attempt(&mut self, asked: Commands<'_>, is_told: impl Fn(ErrorKind) -> bool) {
        let Commands { connection, watched, commands } = asked;
        for command in [cmd::<Frame>("WATCH").arg(&watched), cmd::<Frame>("UNWATCH")] {
            self.send(connection, &command).await;
        }
        if self.send(connection, &cmd::<Frame>("MULTI")).await.is_none() {
            return;
        }
        // The first of them only reads: should what answers have no transactions, nothing has been
        // done.
        let mut is_begun = true;
        for command in &commands {
            match connection.send(command).await {
                Err(error) if is_told(error.kind()) => {}
                Err(error) => self.refuse(command.name(), error),
                Ok(reply) => is_begun = reply.value().as_bytes() == Some(b"QUEUED"),
            }
            if !is_begun {
                self.no_transactions = true;
                break;
            }
        }
        // Without a transaction there is nothing to discard.
        let _ = connection.send(&cmd::<Frame>("DISCARD")).await;
    }

    async fn send(&mut self, connection: &mut Connection, command: &Cmd) -> Option<Frame> {
        connection.send(command).await.map_err(|error| self.refuse(command.name(), error)).ok()
    }

    fn refuse(&mut self, name: &str, error: Error) {
        if error.kind() == ErrorKind::NoPerm {
            self.forbidden.entry(name.to_owned()).or_insert_with(|| error.message().to_owned());
        } else {
            self.refused.get_or_insert(error);
        }
    }

    /// The missing permissions, with advice; `None` if none is missing.
    fn lacking(&self) -> Option<(String, String)> {
        let why = self.forbidden.values().next()?;
        let names: Vec<&str> = self.forbidden.keys().map(String::as_str).collect();
        let rights: Vec<String> = names.iter().map(|name| format!("+{}", name.to_lowercase())).collect();
        Some((
            format!("redis: the user lacks permission for {}: {why}", names.join(", ")),
            format!("ACL SETUSER its-name {}, and ~ the keys of the stream and its record", rights.join(" ")),
        ))
    }
}

/// At the start of a service: the user must have the rights for all of these commands. Whatever
/// else Redis says to them, it will say again.
///
/// # Errors
///
/// The configuration is wrong: which rights are missing.
pub async fn must_be_allowed(commands: Commands<'_>) -> Result<(), Failure> {
    let mut rights = Rights::default();
    rights.attempt(commands, |_| false).await;
    rights.lacking().map_or(Ok(()), |(what, todo)| Err(Failure::config(format!("{what}; {todo}"))))
}

impl Preflight {
    fn print(&mut self, kind: Kind, what: &str, more: &str) {
        if self.json {
            self.findings.push(serde_json::json!({"kind": kind.name().to_lowercase(), "what": what, "advice": more}));
            return;
        }
        let mut out = std::io::stdout().lock();
        // Ignore errors: there is no place to report them.
        let _ = writeln!(out, "{:<6} {}", kind.name(), one_line(what));
        if !more.is_empty() {
            let _ = writeln!(out, "       → {}", one_line(more));
        }
    }

    /// Prints a finding unless it was printed before. Returns whether it is new.
    fn report(&mut self, kind: Kind, what: impl Display, more: &str) -> bool {
        let what = what.to_string();
        let is_new = self.printed.insert(format!("{kind:?} {what}"));
        if is_new {
            self.print(kind, &what, more);
        }
        is_new
    }

    /// Whether Redis is known to write every command to an append-only file or to a replica.
    #[must_use]
    pub const fn logs_commands(&self) -> bool {
        self.logs_commands
    }

    /// Reports that this is as expected.
    pub fn ok(&mut self, what: impl Display) {
        self.report(Kind::Ok, what, "");
    }

    /// Reports something that works and that the user should know about.
    pub fn note(&mut self, what: impl Display, advice: &str) {
        self.report(Kind::Note, what, advice);
    }

    /// Reports something that would make the service wait, and what to do about it.
    pub fn waits(&mut self, what: impl Display, advice: &str) {
        let is_new = self.report(Kind::Waits, what, advice);
        self.waits = self.waits.saturating_add(is_new.into());
    }

    /// Reports something that will not work, and what to do about it.
    pub fn wrong(&mut self, what: impl Display, advice: &str) {
        let is_new = self.report(Kind::Wrong, what, advice);
        self.wrong = self.wrong.saturating_add(is_new.into());
    }

    /// Reports an error from Redis: the service waits out an error unless it is final.
    pub fn redis(&mut self, what: impl Display, error: &Error) {
        // `INFO` has reported this already.
        if self.informed && matches!(error.kind(), ErrorKind::Loading | ErrorKind::Oom | ErrorKind::ReadOnly) {
            return;
        }
        let text = format!("{what}: {error}");
        match is_final(error) {
            false => self.waits(text, advice::redis(error.kind())),
            true => self.wrong(text, advice::redis(error.kind())),
        }
    }

    /// Whether the service is already running with the same source and destination: then its locks
    /// and port are expected.
    #[must_use]
    pub const fn is_running(&self) -> bool {
        self.running
    }

    /// Prints the verdict. Returns the exit code: 2 if the service would exit, 1 if it would wait,
    /// else 0.
    fn end(mut self, name: &str) -> ExitCode {
        let (wrong, waits) = (self.wrong, self.waits);
        let listed = |number, one| format!("{number} {}, listed above", noun(number, one));
        let code = match (wrong, waits) {
            (0, 0) if self.running => {
                self.print(Kind::Ok, &format!("{name} is running"), "");
                0
            }
            (0, 0) => {
                self.print(Kind::Ok, &format!("{name} can start"), "");
                0
            }
            (0, _) => {
                self.print(Kind::Waits, &format!("{name} would start and wait: {}", listed(waits, "reason")), "");
                1
            }
            _ => {
                self.print(Kind::Wrong, &format!("{name} cannot start: {}", listed(wrong, "problem")), "");
                2
            }
        };
        if self.json {
            let report = serde_json::json!({"service": name, "exit_code": code, "findings": self.findings});
            // Ignore errors: there is no place to report them.
            let _ = writeln!(std::io::stdout(), "{report}");
        }
        ExitCode::from(code)
    }

    /// Checks a folder that the service creates if it does not exist.
    pub fn folder_to_create(&mut self, flag: &str, folder: &Path) {
        if folder.symlink_metadata().is_ok() {
            self.folder(flag, folder);
            return;
        }
        let above = folder.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let probe = above.join(format!(".check.{}", std::process::id()));
        match std::fs::create_dir(&probe).and_then(|()| std::fs::remove_dir(&probe)) {
            Ok(()) => self.ok(format!("{flag}: {} does not exist yet, and will be created", folder.display())),
            Err(error) => self.wrong(format!("{flag}: creating {}: {error}", folder.display()), advice::io(&error)),
        }
    }

    /// Checks that files can be created in a folder, and that its disk has free space. Returns
    /// whether files can be created.
    pub fn folder(&mut self, flag: &str, folder: &Path) -> bool {
        let shown = folder.display();
        let probe = folder.join(format!(".check.{}", std::process::id()));
        match std::fs::write(&probe, b"").and_then(|()| std::fs::remove_file(&probe)) {
            Ok(()) => self.ok(format!("{flag}: files can be created in {shown}")),
            Err(error) => {
                self.wrong(format!("{flag}: creating a file in {shown}: {error}"), advice::io(&error));
                return false;
            }
        }
        match rustix::fs::statvfs(folder) {
            Ok(disk) => {
                let left = disk.f_bavail.saturating_mul(disk.f_frsize);
                let text = format!("disk: {} left in {shown}", HumanBytes(left));
                if left < LITTLE_SPACE {
                    self.waits(text, "free some space, or use another disk");
                } else {
                    self.ok(text);
                }
            }
            Err(error) => self.note(format!("disk: the space left in {shown} is not known: {error}"), ""),
        }
        true
    }

    /// Whether Redis would take these commands of this user now.
    pub async fn commands(&mut self, asked: Vec<Commands<'_>>) {
        let mut rights = Rights::default();
        for commands in asked {
            // `INFO` has reported this already.
            let is_reported =
                |kind| self.informed && matches!(kind, ErrorKind::Loading | ErrorKind::Oom | ErrorKind::ReadOnly);
            rights.attempt(commands, is_reported).await;
        }
        if rights.no_transactions {
            let what = "redis: the server does not support transactions (MULTI)";
            return self.wrong(what, advice::redis(ErrorKind::UnknownCommand));
        }
        if let Some((what, todo)) = rights.lacking() {
            self.wrong(what, &todo);
        }
        if let Some(error) = &rights.refused {
            self.redis("redis", error);
        }
        if rights.forbidden.is_empty() && rights.refused.is_none() {
            self.ok("redis: the user may run all commands that are needed");
        }
    }

    /// Checks that the source was started with the same number of partitions as the flags say.
    /// `connection` leads to the key of the unpartitioned stream.
    async fn begun(&mut self, connection: &mut Connection, args: &ServiceArgs) {
        let ServiceArgs { stream, partitions, .. } = args;
        let record = record_key(stream);
        let reply = match connection.send(&cmd::<Frame>("HGETALL").arg(&record)).await {
            Ok(reply) => reply,
            // With one partition, the check of the record reports this; with several, the check of
            // commands does.
            Err(error) if *partitions == 1 || error.kind() == ErrorKind::NoPerm => return,
            Err(error) => return self.redis(format!("source: reading {record}"), &error),
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
                "remove foreign fields from this key, or choose another --stream",
            ),
        }
    }
}

/// Runs the shared checks, then `more`. `more` gets the streams of these partitions and, with
/// several partitions, a connection to the key of the unpartitioned stream; each only if Redis is
/// usable there. Moves no lines, and changes nothing in Redis. Returns exit code 0, 1 if the
/// service would wait, or 2 if it would exit.
pub fn run(
    name: &str,
    flow: &str,
    args: &ServiceArgs,
    json: bool,
    more: impl AsyncFnOnce(&mut Preflight, Vec<Found>, Option<Connection>),
) -> ExitCode {
    let partitions = match args.taken() {
        Ok(partitions) => partitions,
        Err(failure) => {
            logs::last_words(args.log_format, name, &failure.to_string());
            return ExitCode::from(&failure);
        }
    };
    let mut checks = Preflight { json, ..Preflight::default() };
    for warning in usage::environment_warnings() {
        checks.note(warning, "");
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            logs::last_words(args.log_format, name, &format!("check: {error}"));
            return ExitCode::FAILURE;
        }
    };
    runtime.block_on(async {
        port(&mut checks, name, flow, args);
        let config = match args.redis() {
            Ok(config) => Some(config.command_timeout(Some(PATIENCE))),
            Err(Failure::Config(text) | Failure::Failed(text)) => {
                checks.wrong(text, "correct the flag or the file");
                None
            }
        };
        let password_source = args.password_source();
        let mut found = Vec::new();
        for partition in partitions {
            let key = partition.stream(&args.stream);
            let mut connection = match &config {
                Some(config) => redis(&mut checks, &config.clone().for_key(&key), &password_source).await,
                None => None,
            };
            if let Some(open) = &mut connection
                && !stream(&mut checks, open, &key).await
            {
                // Nothing else of this key can be checked.
                connection = None;
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
                    base = redis(&mut checks, config, &password_source).await;
                }
                if let Some(connection) = &mut base {
                    checks.begun(connection, args).await;
                }
            }
            _ => {}
        }
        more(&mut checks, found, base).await;
    });
    checks.end(name)
}

fn port(checks: &mut Preflight, name: &str, flow: &str, args: &ServiceArgs) {
    let addr = &args.http_addr;
    let addrs = match addr.resolve() {
        Ok(addrs) if addrs.is_empty() => return checks.ok("--http-addr: off"),
        Ok(addrs) => addrs,
        Err(error) => return checks.wrong(format!("--http-addr: {addr}: {error}"), advice::listening(&error)),
    };
    match TcpListener::bind(&*addrs) {
        Ok(_) => checks.ok(format!("--http-addr: {addr} is free")),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse && is_ours(&addrs, name, flow) => {
            checks.running = true;
            checks.ok(format!("--http-addr: {name} is running, and listens on {addr}"));
        }
        Err(error) => checks.wrong(format!("--http-addr: listening on {addr}: {error}"), advice::listening(&error)),
    }
}

/// Whether the service at this address is this one, with the same source and destination.
fn is_ours(addrs: &[SocketAddr], name: &str, flow: &str) -> bool {
    let ask = |addr: &SocketAddr| -> std::io::Result<String> {
        let mut addr = *addr;
        if addr.ip().is_unspecified() {
            addr.set_ip(if addr.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() });
        }
        let mut stream = TcpStream::connect_timeout(&addr, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(b"GET /status.json HTTP/1.0\r\n\r\n")?;
        let mut answer = String::new();
        // Limit the size: any program may be listening there.
        stream.take(1 << 20).read_to_string(&mut answer)?;
        Ok(answer)
    };
    addrs.iter().filter_map(|addr| ask(addr).ok()).any(|answer| {
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        let status: serde_json::Value = serde_json::from_str(body).unwrap_or_default();
        let is = |field, value: &str| status.get(field).is_some_and(|found| found == value);
        is("service", name) && is("flow", flow)
    })
}

/// Connects to Redis, and checks `INFO` once per server.
async fn redis(checks: &mut Preflight, config: &resp::Config, password_source: &str) -> Option<Connection> {
    let mut connection = match Connection::connect(config).await {
        Ok(connection) => connection,
        // In the words of the service, which would exit with them.
        Err(error) if is_final(&error) => {
            let allowed = advice::redis_url(config, &error, password_source);
            checks.wrong(format!("--redis-url {config}: {}", advice::reason(&error)), &allowed);
            return None;
        }
        Err(error) => {
            checks.redis("redis", &error);
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
            checks.note("redis: the user may not run INFO: version, memory and persistence are unknown", "");
        }
        Err(error) => {
            checks.redis(format!("redis: INFO of {config}"), &error);
            return None;
        }
    }
    Some(connection)
}

/// Checks the type of a stream's key. Returns whether the key may be used.
async fn stream(checks: &mut Preflight, connection: &mut Connection, key: &str) -> bool {
    match connection.send(&cmd::<Frame>("TYPE").arg(key)).await {
        Ok(kind) => match String::from_utf8_lossy(kind.value().as_bytes().unwrap_or_default()).as_ref() {
            "stream" => checks.ok(format!("--stream: {key} is a stream")),
            "none" => checks.ok(format!("--stream: {key} does not exist yet, and will be created")),
            other => {
                let advice = advice::redis(ErrorKind::WrongType);
                checks.wrong(format!("--stream: the key {key} holds a {other}"), advice);
                return false;
            }
        },
        Err(error) => checks.redis(format!("--stream: reading the type of {key}"), &error),
    }
    true
}

/// Checks the fields of `INFO`.
fn judge(checks: &mut Preflight, config: &resp::Config, info: &BTreeMap<&str, &str>) {
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
        checks.waits("redis: this is a replica, which cannot be written to", "use the address of its primary");
    }
    if number("loading") == 1 {
        // While loading, the server reports wrong figures for memory and persistence.
        return checks.waits("redis: it is loading its data", advice::redis(ErrorKind::Loading));
    }
    checks.logs_commands |= field("aof_enabled") == "1" || number("connected_slaves") > 0;
    match (field("aof_enabled"), field("aof_last_write_status")) {
        ("1", "ok" | "") => checks.ok("redis: the append-only file is on"),
        ("1", _) => checks.waits("redis: the append-only file cannot be written", "check Redis' disk and log"),
        _ => checks.note(
            "redis: the append-only file is off: a restart loses what is in the stream",
            "lines whose source bytes still exist are sent again; for the others: CONFIG SET appendonly yes",
        ),
    }
    let (most, used, policy) = (number("maxmemory"), number("used_memory"), field("maxmemory_policy"));
    match most {
        0 => checks.ok(format!("redis: {} in use, without a limit", HumanBytes(used))),
        _ if used >= most => checks.waits(
            format!("redis: {} of {} in use: nothing can be added", HumanBytes(used), HumanBytes(most)),
            advice::redis(ErrorKind::Oom),
        ),
        _ if used >= (most / 10).saturating_mul(9) => checks.note(
            format!("redis: {} of {} in use: little is left", HumanBytes(used), HumanBytes(most)),
            advice::redis(ErrorKind::Oom),
        ),
        _ => checks.ok(format!("redis: {} of {} in use", HumanBytes(used), HumanBytes(most))),
    }
    if let Some(what) = advice::evicts(most, policy) {
        checks.wrong(format!("redis: {what}"), advice::NO_EVICTION);
    } else if !policy.is_empty() {
        checks.ok(format!("redis: maxmemory-policy {policy} keeps the stream"));
    }
}
