//! `writer check`: checks whether the configuration can work, and changes nothing.

use crate::args::{CheckArgs, ConsumeMode};
use crate::group::{Group, read_lease, state};
use crate::journal_file::{Locked, folder_of, open_locked, path_of};
use crate::output::{impossible, verdict};
use crate::output_folder::OutputFolder;
use crate::run::file_of;
use delivery::consumer::trim::holder;
use delivery::consumer::{self, AT_WORK, GroupState, Record};
use delivery::entry::{Piece, span_len};
use delivery::journal::Identity;
use delivery::manifest::record_key;
use delivery::output::{JournalWas, Verdict};
use delivery::ranges::RangeSet;
use resp::streams::{Entry, StreamInfo, XInfoConsumers, XInfoStream, XLen};
use resp::{Cmd, Connection, Error, ErrorKind, Frame, cmd};
use service::advice;
use service::preflight::{self, Commands, Preflight};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

pub(crate) fn run(args: &CheckArgs) -> ExitCode {
    let flow = args.writer.flow(&args.service);
    preflight::run("writer", &flow, &args.service, args.json, async |checks, mut streams, mut base| {
        if let Some(folder) = &args.writer.output_dir {
            let connection = streams.first_mut().and_then(|found| found.connection.as_mut());
            return crate::many::check(checks, args, folder, connection).await;
        }
        let partitions = args.service.taken().unwrap_or_default();
        let identity = Identity::new(&args.service.stream, &args.writer.group, &partitions);
        let is_running = output(checks, &args.writer.output, &identity);
        if let Err(failure) = args.writer.check(&args.service) {
            checks.wrong(failure.to_string(), "leave out one of the two");
        }
        let claims = args.writer.claim_idle.is_some_and(|idle| idle.0.is_some());
        let mut needed = Vec::new();
        for found in &mut streams {
            let of_stream = found.of_stream();
            let Some(connection) = &mut found.connection else { continue };
            let group = Group::new(found.key.clone(), args.writer.group.clone(), args.writer.consumer());
            let record = record(checks, connection, &group, &args.writer.output).await;
            look_at(checks, connection, &group, &of_stream, is_running, &record).await;
            if args.writer.consume == ConsumeMode::Group {
                recommend_exclusive(checks, connection, &group, &of_stream).await;
            }
            if !is_running {
                look_at_lease(checks, connection, &group, &of_stream).await;
            }
            let commands = commands(&group, claims, args.writer.consume == ConsumeMode::Exclusive);
            needed.push(Commands { connection, watched: group.stream, commands });
        }
        if let Some(connection) = &mut base {
            let record = record_key(&args.service.stream);
            let commands = vec![cmd::<Frame>("HGETALL").arg(&record)];
            needed.push(Commands { connection, watched: record, commands });
        }
        if !needed.is_empty() {
            checks.commands(needed).await;
        }
    })
}

/// Checks the output, and reports what a start would do. Returns whether a writer is working on it.
fn output(checks: &mut Preflight, output: &Path, identity: &Identity) -> bool {
    let shown = output.display();
    let folder = folder_of(output);
    let is_writable = checks.folder("--output", folder);
    let journal = path_of(output);
    for path in [output, &journal] {
        let path_shown = path.display();
        match impossible(path) {
            Ok(None) => continue,
            Ok(Some(why)) => {
                checks
                    .wrong(format!("--output: {path_shown}: {why}"), "name a path of regular files, or of nothing yet");
            }
            Err(error) => checks.wrong(format!("--output: checking {path_shown}: {error}"), advice::io(&error)),
        }
        return false;
    }
    // Opens for writing, but creates and writes nothing.
    for path in [output, &journal] {
        match open_locked(path, false) {
            Ok(Locked::Ours(file)) if path == output => {
                let Ok(metadata) = file.metadata() else { continue };
                checks.ok(format!(
                    "--output: {shown} can be written, {} {}",
                    metadata.len(),
                    advice::noun(metadata.len(), "byte")
                ));
                let volumes = std::fs::metadata(folder).map(|folder| folder.dev() == metadata.dev());
                if let Ok(false) = volumes {
                    checks.wrong(
                        format!(
                            "--output: {shown} is on another volume than its journal, which is in {}",
                            folder.display()
                        ),
                        "name the file itself, not a link to it on another volume",
                    );
                }
            }
            Ok(Locked::Ours(_)) => {}
            Ok(Locked::Missing) if !is_writable => return false,
            Ok(Locked::Missing) if path == output => {
                checks.ok(format!("--output: {shown} does not exist yet, and will be created"));
            }
            Ok(Locked::Missing) => {}
            Ok(Locked::ByAnother) if checks.is_running() => {
                checks.ok(format!("--output: the running writer writes to {shown}"));
                return true;
            }
            Ok(Locked::ByAnother) => {
                checks.wrong(
                    format!("--output: another writer is writing to {shown}"),
                    "stop that one, or give this one an --output of its own",
                );
                return true;
            }
            Err(error) => {
                checks.wrong(format!("--output: opening {}: {error}", path.display()), advice::io(&error));
                return false;
            }
        }
    }
    match verdict(output, identity, None) {
        Ok(verdict) => start(checks, output, &journal, verdict),
        Err(error) => checks.wrong(format!("journal: reading {}: {error}", journal.display()), advice::io(&error)),
    }
    false
}

/// Reports what a start would do with the output.
fn start(checks: &mut Preflight, output: &Path, journal: &Path, verdict: Verdict) {
    let (shown, journal) = (output.display(), journal.display());
    let opening = match verdict {
        Verdict::Refuse(refusal) => {
            checks.wrong(format!("journal: {journal}: {refusal}"), "the writer would not start");
            return;
        }
        Verdict::Adopt(name, _) => {
            let became = OutputFolder::new(output).path(&name);
            checks.note(
                format!("journal: {shown} was renamed to {}", became.display()),
                "the writer would rename its journal after it, and begin a new output",
            );
            return;
        }
        Verdict::Open(opening) => opening,
    };
    match opening.journal {
        JournalWas::New => {}
        JournalWas::Missing => checks.note(
            format!("journal: {journal} is missing beside an output that is not empty"),
            "a writer refuses that when its group has delivered entries before; restore the journal, or move the output away",
        ),
        JournalWas::Read { restored: 0 } => checks.ok(format!("journal: {journal} can be read")),
        JournalWas::Read { restored } => checks.note(
            format!("journal: {journal} has damaged records: {restored}"),
            "the writer would restore them from the others; check the disk",
        ),
    }
    let cut = span_len(&opening.cut);
    if cut > 0 {
        let advice = if opening.keep {
            "the writer would move them to a file beside it, which ends in .cut, or refuse to start when the group has \
             acknowledged entries that the journal lacks"
        } else {
            "the writer would cut them off"
        };
        checks.note(format!("--output: {cut} bytes of {shown} are after the last commit"), advice);
    }
    let lost: u64 = opening.lost.values().map(RangeSet::bytes).sum();
    if lost > 0 {
        checks.note(
            format!("--output: {lost} bytes of {shown} were committed and are missing"),
            "the writer would report them and continue; restore output and journal from one backup if you have one",
        );
    }
}

/// Loads the source record, and checks that the output is not the source's input.
async fn record(checks: &mut Preflight, connection: &mut Connection, group: &Group, output: &Path) -> Record {
    match connection.send(&group.ask_record()).await {
        Ok(reply) => {
            checks.ok(format!("source: {} can be read", group.record));
            let record = group.read_record(&reply);
            let here = record.input_path().and_then(|path| std::fs::metadata(path).ok());
            if let Some(own) = record.is_read_from(&file_of(output), here.map(|file| (file.dev(), file.ino()))) {
                checks.wrong(
                    format!("--output: {} is the source's input, {}", output.display(), own.path),
                    "give the writer a file of its own: this one would feed itself and grow until the disk is full",
                );
            }
            return record;
        }
        Err(error) if error.kind() == ErrorKind::NoPerm => {}
        Err(error) => checks.redis(format!("source: reading {}", group.record), &error),
    }
    Record::default()
}

/// Reports entries whose position in the source is unknown.
fn orphans(checks: &mut Preflight, group: &Group, info: &StreamInfo, record: &Record) {
    let lacks = |entry: &Entry<'_>| {
        let (field, payload) = entry.fields.and_then(|mut fields| fields.next())?;
        let is_decodable = Piece::new(field, payload, entry.id.seq).is_some();
        (is_decodable && record.judge(entry.id.ms) == consumer::Verdict::Missing).then_some(entry.id)
    };
    if let Some(id) = [info.first_entry(), info.last_entry()].iter().flatten().find_map(lacks) {
        checks.waits(
            format!("source: {} lacks generation {} of entry {id}, so a writer would wait", group.record, id.ms),
            "start the reader with its state file, which restores the record",
        );
    }
}

/// Reports groups that hold up trimming: they lack entries that this group has acknowledged.
async fn holders(
    checks: &mut Preflight,
    connection: &mut Connection,
    group: &Group,
    states: &[GroupState],
    length: u64,
) -> Result<(), Error> {
    let Some(holder) = holder(&group.name, states) else { return Ok(()) };
    let consumers = connection.send(&XInfoConsumers::new(&group.stream, &holder.name)).await?;
    let read = match consumers.iter().map(|one| one.idle).min() {
        Some(idle) if idle < AT_WORK => return Ok(()),
        Some(idle) => format!("nobody has read it for {} s", idle.as_secs()),
        None => "it has no consumer".to_owned(),
    };
    let (stream, name) = (&group.stream, String::from_utf8_lossy(&holder.name));
    let entries = holder.lag(length, None).saturating_add(holder.pending);
    checks.note(
        format!("--stream {stream}: group {name} holds up trimming: {entries} entries wait for it, and {read}"),
        &format!("start its writer, or remove it: XGROUP DESTROY {stream} {name}"),
    );
    Ok(())
}

/// `1 entry waits`, `2 entries wait`.
pub(crate) fn wait(entries: u64) -> String {
    format!("{entries} {} {}", advice::noun(entries, "entry"), if entries == 1 { "waits" } else { "wait" })
}

/// The commands that the writer sends.
pub(crate) fn commands(group: &Group, claims: bool, is_exclusive: bool) -> Vec<Cmd> {
    let Group { stream, record, lease, name, consumer } = group;
    let mut commands = vec![
        cmd::<Frame>("XINFO").arg("STREAM").arg(stream),
        cmd::<Frame>("XINFO").arg("GROUPS").arg(stream),
        cmd::<Frame>("XINFO").arg("CONSUMERS").arg(stream).arg(name),
        cmd::<Frame>("XLEN").arg(stream),
        cmd::<Frame>("XPENDING").arg(stream).arg(name),
        cmd::<Frame>("XGROUP").arg("CREATE").arg(stream).arg(name).arg("0").arg("MKSTREAM"),
        cmd::<Frame>("XREADGROUP").arg("GROUP").arg(name).arg(consumer).arg("STREAMS").arg(stream).arg(">"),
        cmd::<Frame>("XACK").arg(stream).arg(name).arg("0-1"),
        cmd::<Frame>("XTRIM").arg(stream).arg("MINID").arg("0-1"),
        cmd::<Frame>("XGROUP").arg("DELCONSUMER").arg(stream).arg(name).arg(consumer),
        cmd::<Frame>("HGETALL").arg(record),
        cmd::<Frame>("HMGET").arg(record).arg("guard"),
        cmd::<Frame>("HDEL").arg(record).arg("guard"),
        cmd::<Frame>("HSET").arg(record).arg("shared").arg("0-0"),
        cmd::<Frame>("HSETNX").arg(record).arg("output").arg("0"),
        cmd::<Frame>("HMGET").arg(lease).arg("token"),
        cmd::<Frame>("HDEL").arg(lease).arg("token"),
    ];
    if is_exclusive {
        commands.push(cmd::<Frame>("PEXPIRETIME").arg(lease));
        commands.push(cmd::<Frame>("XREAD").arg("STREAMS").arg(stream).arg("0"));
        commands.push(cmd::<Frame>("XGROUP").arg("SETID").arg(stream).arg(name).arg("0"));
        commands.push(cmd::<Frame>("HSET").arg(lease).arg("token").arg("0"));
        commands.push(cmd::<Frame>("PEXPIREAT").arg(lease).arg("0"));
    }
    if claims {
        commands.push(cmd::<Frame>("XAUTOCLAIM").arg(stream).arg(name).arg(consumer).arg("60000").arg("0"));
    }
    commands
}

/// Checks the group on one stream. `of_stream` names the stream, when there are several.
async fn look_at(
    checks: &mut Preflight,
    connection: &mut Connection,
    group: &Group,
    of_stream: &str,
    is_running: bool,
    record: &Record,
) {
    match look_at_group(checks, connection, group, of_stream, is_running, record).await {
        Ok(()) => {}
        Err(error) if matches!(error.kind(), ErrorKind::NoSuchKey | ErrorKind::NoGroup) => {
            checks.ok(format!("--group: {}{of_stream} does not exist yet, and will be created", group.name));
        }
        // Another check reports this error.
        Err(error) if matches!(error.kind(), ErrorKind::WrongType | ErrorKind::NoPerm) => {}
        Err(error) => checks.redis(format!("--group: checking {} of {}", group.name, group.stream), &error),
    }
}

/// Recommends `--consume exclusive` if the group has no other consumer and Redis writes what a
/// group costs to an append-only file or a replica.
async fn recommend_exclusive(checks: &mut Preflight, connection: &mut Connection, group: &Group, of_stream: &str) {
    // Errors are reported by other checks; Redis before 7.0 does not know the command.
    let Ok(consumers) = connection.send(&group.ask_consumers()).await else { return };
    let is_known = connection.send(&cmd::<Frame>("PEXPIRETIME").arg(&group.lease)).await.is_ok();
    let is_alone = consumers.iter().all(|one| one.name == group.consumer.as_bytes());
    if checks.logs_commands() && is_known && is_alone && !consumers.is_empty() {
        checks.note(
            format!(
                "--group: {}{of_stream} has one consumer, and Redis logs two commands per entry for it",
                group.name
            ),
            "--consume exclusive saves them, if this writer stays the only one",
        );
    }
}

/// Reports the lease of a writer that has the group to itself.
async fn look_at_lease(checks: &mut Preflight, connection: &mut Connection, group: &Group, of_stream: &str) {
    // Missing permissions are reported with the commands.
    let Ok(reply) = connection.send(&group.ask_lease()).await else { return };
    if let Some(lease) = read_lease(&reply, None) {
        checks.note(
            format!("--group: writer {} has {}{of_stream} to itself (--consume exclusive)", lease.consumer, group.name),
            "another writer would wait until that one ends, or until it has not renewed its lease for a while",
        );
    }
}

async fn look_at_group(
    checks: &mut Preflight,
    connection: &mut Connection,
    group: &Group,
    of_stream: &str,
    is_running: bool,
    record: &Record,
) -> Result<(), Error> {
    let asked_at = Instant::now();
    let info = connection.send(&XInfoStream::new(&group.stream)).await?;
    orphans(checks, group, &info, record);
    let length = connection.send(&XLen::new(&group.stream)).await?;
    let groups = connection.send(&group.ask_groups()).await?;
    let Some(own) = groups.iter().find(|one| one.name == group.name.as_bytes()) else {
        checks.ok(format!(
            "--group: {}{of_stream} does not exist yet, and will be created; {}",
            group.name,
            wait(length)
        ));
        return Ok(());
    };
    let states: Vec<_> = groups.iter().map(state).collect();
    let waiting = state(own).lag(length, Some(info.last_generated_id)).saturating_add(own.pending);
    checks.ok(format!("--group: {}{of_stream} exists, {}", group.name, wait(waiting)));
    holders(checks, connection, group, &states, length).await?;
    let consumers = connection.send(&group.ask_consumers()).await?;
    let notes = connection.send(&group.ask_notes()).await?;
    let lease = connection.send(&group.ask_lease()).await?;
    let view = group.view(asked_at, own, &consumers, &notes, &lease);
    if view.member(&group.consumer).is_some_and(|namesake| namesake.idle < AT_WORK) && !is_running {
        checks.wrong(
            format!("--consumer: another writer is at work as {} in {}{of_stream}", group.consumer, group.name),
            "give each writer a --consumer of its own, else it is refused",
        );
    }
    if !view.is_alone(&group.consumer) {
        checks.note(
            format!("--group: other consumers are at work in {}{of_stream}", group.name),
            "each needs an --output and a --consumer of its own",
        );
    }
    Ok(())
}
