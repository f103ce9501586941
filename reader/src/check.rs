//! `reader check`: checks whether the configuration can work, and changes nothing.

use crate::added_fields::{self, AddedFields};
use crate::args::{CheckArgs, ReaderArgs};
use crate::directory::InputDirectory;
use crate::driver;
use crate::source_file::DiskFile;
use crate::state::StateFile;
use delivery::files::{Identified, Inode, KnownContents};
use delivery::fingerprint::Fingerprint;
use delivery::manifest::{Manifest, record_key};
use delivery::partition::Partition;
use delivery::producer::{Directory, Producer, StepError, Stored};
use delivery::source_file::SourceFile as _;
use resp::streams::XInfoGroups;
use resp::{Config, Connection, Discovery, Endpoint, ErrorKind, Frame, Topology, cmd};
use service::args::ServiceArgs;
use service::preflight::{self, Commands, Found, Preflight};
use service::source_record::RecordFault;
use service::{SourceRecord, advice};
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

pub(crate) fn run(CheckArgs { reader: args, json }: &CheckArgs) -> ExitCode {
    preflight::run("reader", &args.flow(), &args.service, *json, async |checks, mut streams, mut base| {
        if args.is_many() {
            return many(checks, args, streams).await;
        }
        let input = match args.input() {
            Ok(input) => input,
            Err(failure) => return checks.wrong(failure, "correct --input"),
        };
        open(checks, &input);
        added(checks, args, &input);
        let folder = args.state_dir.as_deref().or_else(|| input.parent()).unwrap_or(Path::new("/"));
        match args.state_dir {
            Some(_) => checks.folder_to_create("--state-dir", folder),
            // It may be created together with the input, which the reader waits for.
            None if !folder.exists() => {}
            None => {
                checks.folder("--state-dir", folder);
            }
        }
        let mut needed = Vec::new();
        for Found { partition, key, connection } in &mut streams {
            let state = StateFile::new(folder, &input, &args.service.stream, *partition);
            known(checks, &state, args);
            let Some(connection) = connection else { continue };
            source(checks, connection, args, &input, folder, (*partition, key)).await;
            backlog(checks, connection, key, args.max_backlog).await;
            scripts(checks, connection).await;
            needed.push(commands(connection, key));
        }
        if let Some(connection) = &mut base {
            let record = record_key(&args.service.stream);
            let commands = vec![
                cmd::<Frame>("HGETALL").arg(&record),
                cmd::<Frame>("HSET").arg(&record).arg("partitions").arg(""),
                cmd::<Frame>("HDEL").arg(&record).arg("partitions"),
                cmd::<Frame>("TIME"),
            ];
            needed.push(Commands { connection, watched: record, commands });
        }
        if !needed.is_empty() {
            checks.commands(needed).await;
        }
    })
}

/// How many files and sources are named, one by one, that stand in the way.
const NAMED: usize = 20;

/// Checks all files of all inputs, and their sources.
async fn many(checks: &mut Preflight, args: &ReaderArgs, streams: Vec<Found>) {
    let (candidates, listings, unlisted) = match crate::many::candidates(args) {
        Ok(found) => found,
        Err(failure) => return checks.wrong(failure, "correct --input"),
    };
    if let Some(why) = unlisted {
        checks.waits(format!("--input: {why}"), "the reader follows the files of the other folders");
    }
    let mut unreadable = 0_usize;
    for (_, path, _) in &candidates {
        if let Err(error) = DiskFile::open(path).and_then(|file| file.bytes(0, 1))
            && error.kind() != io::ErrorKind::NotFound
        {
            unreadable = unreadable.saturating_add(1);
            if unreadable <= NAMED {
                checks.waits(format!("--input: reading {}: {error}", path.display()), advice::reading(&error));
            }
        }
    }
    let count = candidates.len();
    match count {
        0 => checks.note(format!("--input: no file matches {} yet", args.inputs()), "the reader waits for one"),
        _ if unreadable == 0 => {
            checks.ok(format!("--input: {count} {}, all readable", advice::noun(count as u64, "file")));
        }
        _ => checks.note(
            format!("--input: {unreadable} of {count} {} cannot be read", advice::noun(count as u64, "file")),
            "the reader follows the others",
        ),
    }
    added(checks, args, candidates.first().map_or(Path::new(""), |(_, path, _)| path));
    let folders: BTreeSet<&Path> = candidates.iter().map(|(_, _, folder)| folder.as_path()).collect();
    for folder in folders {
        match args.state_dir {
            Some(_) => checks.folder_to_create("--state-dir", folder),
            None => {
                checks.folder("--state-dir", folder);
            }
        }
    }
    let Some(first) = streams.into_iter().next().and_then(|found| found.connection) else { return };
    let mut nodes = match Nodes::new(args, first).await {
        Ok(nodes) => nodes,
        Err(error) => return checks.redis("redis: asking for the nodes of the cluster", &error),
    };
    let stream = &args.service.stream;
    if let Ok(loaded) = SourceRecord::of(stream).load(&mut nodes.first).await
        && let Some(begun) = loaded.partitions
    {
        checks.wrong(crate::many::carries_one_file(stream, begun), "choose another --stream");
    }
    let registry = delivery::source_name::registry_key(stream);
    let listed = match nodes.of(&registry).await {
        Ok(connection) => connection.send(&cmd::<u64>("HLEN").arg(&registry)).await.map(drop),
        Err(error) => Err(error),
    };
    if let Err(error) = listed.as_ref()
        && error.kind() != ErrorKind::NoPerm
    {
        checks.redis(format!("--stream: reading the list of sources {registry}"), error);
    }
    let listings = Arc::new(listings);
    let mut refused = 0_usize;
    for (name, path, state_dir) in &candidates {
        let Some(source) = listings.sources().named(name) else { continue };
        let (options, directory) = crate::many::source::parts(args, &listings, source, (name, path, state_dir));
        let record = SourceRecord::of(&options.stream);
        let connection = match nodes.of(&record.stream).await {
            Ok(connection) => connection,
            Err(error) => return checks.redis(format!("source {name}: connecting"), &error),
        };
        let why = match record.observe(connection, None).await {
            Err(RecordFault::Redis(error)) => return checks.redis(format!("source: reading {}", record.key), &error),
            Err(RecordFault::Unreadable(error)) => Some(format!("{}: {error}", record.key)),
            Ok((observed, ..)) => match Producer::new(options, DryRun(directory)).observed(observed, None) {
                Err(StepError::Refused(why)) => Some(why),
                _ => None,
            },
        };
        if let Some(why) = why {
            refused = refused.saturating_add(1);
            if refused <= NAMED {
                checks.waits(
                    format!("source {name}: {why}"),
                    "the reader would not follow it, and try again every minute",
                );
            }
        }
    }
    if refused == 0 && unreadable == 0 && count > 0 {
        checks.ok(format!("source: {count} {} can be followed", advice::noun(count as u64, "source")));
    }
    let stream =
        candidates.first().map_or_else(|| args.service.stream.clone(), |(name, ..)| name.key(&args.service.stream));
    match nodes.of(&stream).await {
        Ok(connection) => {
            scripts(checks, connection).await;
            checks.commands(vec![commands(connection, &stream)]).await;
        }
        Err(error) => checks.redis("redis: connecting", &error),
    }
    if let Ok(connection) = nodes.of(&registry).await {
        let commands = vec![cmd::<Frame>("HSET").arg(&registry).arg("").arg(""), cmd::<Frame>("HLEN").arg(&registry)];
        checks.commands(vec![Commands { connection, watched: registry, commands }]).await;
    }
}

/// Connections to the nodes that have the sources.
struct Nodes {
    config: Config,
    /// `None`: a single node has all.
    topology: Option<Topology>,
    first: Connection,
    open: BTreeMap<String, Connection>,
}

impl Nodes {
    async fn new(args: &ReaderArgs, first: Connection) -> Result<Self, resp::Error> {
        let config = args.service.redis_url.config().clone();
        let config = args.service.redis().unwrap_or(config);
        let topology = match config.endpoint() {
            Endpoint::Cluster { .. } => Some(Discovery::new(config.clone()).topology().await?),
            _ => None,
        };
        Ok(Self { config, topology, first, open: BTreeMap::new() })
    }

    /// A connection to the node that has a key.
    async fn of(&mut self, key: &str) -> Result<&mut Connection, resp::Error> {
        let Some(owner) = self.topology.as_ref().and_then(|topology| topology.owner_of(key)) else {
            return Ok(&mut self.first);
        };
        match self.open.entry(owner.to_string()) {
            Entry::Occupied(open) => Ok(open.into_mut()),
            Entry::Vacant(entry) => {
                let config = self.config.clone().with_endpoint(owner.clone());
                Ok(entry.insert(Connection::connect(&config).await?))
            }
        }
    }
}

/// Shows the fields that the entries of this file get for other consumers.
fn added(checks: &mut Preflight, args: &ReaderArgs, file: &Path) {
    match AddedFields::new(&args.add_field, file, &added_fields::host()) {
        Ok(added) if added.is_empty() => {}
        Ok(added) => checks.ok(format!("--add-field: each entry of {} also has {added}", file.display())),
        Err(failure) => checks.wrong(failure, "correct --add-field"),
    }
}

/// Checks the state file.
fn known(checks: &mut Preflight, state: &StateFile, args: &ReaderArgs) {
    if let Ok(Some((begun, file))) = state.other_number() {
        let ServiceArgs { stream, partitions, .. } = &args.service;
        checks.wrong(
            format!(
                "--partitions {partitions}: stream {stream} was begun with --partitions {begun} (recorded in {})",
                file.display()
            ),
            &format!("give --partitions {begun}, or choose another --stream"),
        );
    }
    match state.load() {
        Ok(Stored::Missing | Stored::Manifest(_)) => {}
        Ok(Stored::Unreadable(why)) => checks.note(
            format!("--state-dir: cannot read {}: {why}", state.path().display()),
            "the source record in Redis is used if there is one, and the file is rewritten",
        ),
        Err(error) => {
            checks.wrong(format!("--state-dir: reading {}: {error}", state.path().display()), advice::io(&error));
        }
    }
}

/// A directory that decides as the reader does at startup, and changes nothing.
#[derive(Debug)]
struct DryRun(InputDirectory);

impl Directory for DryRun {
    type File = DiskFile;

    fn scan(&mut self, known: &KnownContents, open: &[(u64, &DiskFile)], now: Duration) -> Identified {
        self.0.scan(known, open, now)
    }

    fn has_changed(&self) -> bool {
        self.0.has_changed()
    }

    fn open(&mut self, key: usize) -> io::Result<DiskFile> {
        self.0.open(key)
    }

    fn prints(&self, key: usize) -> Option<Fingerprint> {
        self.0.prints(key)
    }

    fn input(&mut self) -> io::Result<Option<Inode>> {
        self.0.input()
    }

    fn load(&mut self) -> io::Result<Stored> {
        self.0.load()
    }

    fn store(&mut self, _: &Manifest) -> io::Result<()> {
        Ok(())
    }
}

/// Checks that the stream carries this file, and that the reader could continue.
async fn source(
    checks: &mut Preflight,
    connection: &mut Connection,
    args: &ReaderArgs,
    input: &Path,
    state_dir: &Path,
    (partition, key): (Partition, &str),
) {
    let record = SourceRecord::of(key);
    let (options, directory) = driver::producer_parts(args, input, state_dir, partition, key);
    let observed = match record.observe(connection, None).await {
        Ok((observed, ..)) => observed,
        Err(RecordFault::Redis(error)) => {
            return checks.redis(format!("source: reading {}", record.key), &error);
        }
        Err(RecordFault::Unreadable(error)) => {
            let advice = "remove foreign fields from this key, or choose another --stream";
            return checks.wrong(format!("source: {}: {error}", record.key), advice);
        }
    };
    match Producer::new(options, DryRun(directory)).observed(observed, None) {
        Err(StepError::Refused(why)) => checks.wrong(format!("source: {why}"), "the reader would end with exit code 2"),
        _ => checks.ok(format!("source: stream {key} carries this file, or nothing yet")),
    }
}

/// Checks whether Redis takes more entries: whether the stream is full, and which group holds it
/// up.
async fn backlog(checks: &mut Preflight, connection: &mut Connection, key: &str, bound: u64) {
    let Ok(info) = connection.send(&resp::streams::XInfoStream::new(key)).await else { return };
    let last = info.last_generated_id;
    if Manifest::default().next_number(0, last).is_none() {
        checks.waits(
            format!("--stream: the last ID of {key}, {last}, leaves no larger one, so Redis takes no more entries"),
            "read what the stream holds, then delete it; the reader sends the rest",
        );
    }
    let groups = connection.send(&XInfoGroups::new(key)).await.unwrap_or_default();
    if bound > 0 && info.length >= bound {
        let stream = service::source_record::state(&info);
        let why = crate::report::full(key, "", &stream, bound, &groups);
        checks.waits(format!("--max-backlog: {why}"), "the reader waits until the stream has room");
    }
}

/// Whether small batches can be sent as scripts, which nothing depends on.
async fn scripts(checks: &mut Preflight, connection: &mut Connection) {
    // They are queued and never executed.
    let queued = connection.send(&cmd::<Frame>("MULTI")).await;
    if queued.is_err() {
        return;
    }
    for command in [cmd::<Frame>("SCRIPT LOAD").arg(""), cmd::<Frame>("EVALSHA").arg("").arg(0)] {
        if let Err(error) = connection.send(&command).await
            && error.kind() == ErrorKind::NoPerm
        {
            checks.note(
                "redis: the user may not execute scripts (SCRIPT LOAD, EVALSHA)",
                "optional: without them a lone line takes two round trips, and more of Redis' time",
            );
            break;
        }
    }
    let _ = connection.send(&cmd::<Frame>("DISCARD")).await;
}

/// The commands that the reader sends to the stream and its record.
pub(crate) fn commands<'a>(connection: &'a mut Connection, stream: &str) -> Commands<'a> {
    let key = record_key(stream);
    let commands = vec![
        cmd::<Frame>("XINFO").arg("STREAM").arg(stream),
        cmd::<Frame>("XRANGE").arg(stream).arg("-").arg("+"),
        cmd::<Frame>("XLEN").arg(stream),
        cmd::<Frame>("EXISTS").arg(stream),
        cmd::<Frame>("XADD").arg(stream).arg("*").arg("line").arg(""),
        cmd::<Frame>("HGETALL").arg(&key),
        cmd::<Frame>("HMGET").arg(&key).arg("guard"),
        cmd::<Frame>("HSET").arg(&key).arg("guard").arg(""),
        cmd::<Frame>("HDEL").arg(&key).arg("guard"),
        cmd::<Frame>("TIME"),
    ];
    Commands { connection, watched: key, commands }
}

fn open(checks: &mut Preflight, input: &Path) {
    match DiskFile::open(input).and_then(|file| file.bytes(0, 1).map(|_| file)) {
        Ok(file) => {
            let len = file.len().unwrap_or(0);
            checks.ok(format!("--input: {} can be read, {len} {}", input.display(), advice::noun(len, "byte")));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound && input.parent().is_some_and(Path::is_dir) => {
            checks.note(format!("--input: {} does not exist yet", input.display()), "the reader waits for it");
        }
        // The reader waits for a file that it can read.
        Err(error) => checks.waits(format!("--input: reading {}: {error}", input.display()), advice::reading(&error)),
    }
}
