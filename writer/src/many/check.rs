//! `writer check` with `--output-dir`: all sources that the registry lists, in a few lines.

use super::registry::{Listed, listed, read, single_file};
use super::wanted;
use crate::args::CheckArgs;
use crate::check::{commands, wait};
use crate::group::{Group, state};
use crate::journal_file::{Locked, folder_of, open_locked, path_of};
use crate::output::{impossible, verdict};
use crate::output_folder::Journals;
use delivery::journal::Identity;
use delivery::output::Verdict;
use delivery::partition::Partition;
use delivery::source_name::registry_key;
use resp::streams::XLen;
use resp::{ClusterClient, Connection, Endpoint, ErrorKind, Executor, Frame, Pipeline, cmd};
use service::advice::{self, noun};
use service::preflight::{Commands, Preflight};
use std::path::Path;

/// How many groups one round trip queries.
const TOGETHER: usize = 100;

/// Checks the folder and all sources, and reports what would fail.
pub(crate) async fn check(
    checks: &mut Preflight,
    args: &CheckArgs,
    folder: &Path,
    connection: Option<&mut Connection>,
) {
    if let Err(failure) = args.writer.check(&args.service) {
        checks.wrong(failure.to_string(), "leave out one of the two");
    }
    checks.folder_to_create("--output-dir", folder);
    let Some(connection) = connection else { return };
    let Ok(config) = args.service.redis() else { return };
    let key = registry_key(&args.service.stream);
    let cluster = match config.endpoint() {
        Endpoint::Cluster { .. } => match ClusterClient::connect(&config).await {
            Ok(cluster) => Some(cluster),
            Err(error) => return checks.redis("sources: connecting to the cluster", &error),
        },
        _ => None,
    };
    let wanted = match wanted(&args.writer) {
        Ok(wanted) => wanted,
        Err(failure) => return checks.wrong(failure.to_string(), "use fewer patterns"),
    };
    let read = match &cluster {
        Some(cluster) => read(cluster, &key).await,
        None => read(&mut *connection, &key).await,
    };
    let fields = match read {
        Ok(fields) => fields,
        Err(error) => return checks.redis(format!("sources: reading {key}"), &error),
    };
    let mut sources = Vec::new();
    for (field, entry) in &fields {
        match listed(field, entry, wanted.as_ref()) {
            Ok(source) => sources.extend(source),
            Err(why) => checks.note(
                format!("sources: {:?} of {key} has no output: {why}", String::from_utf8_lossy(field)),
                "the writer leaves it out; give the reader's file another name",
            ),
        }
    }
    let (count, listed) = (sources.len() as u64, fields.len() as u64);
    let other = if listed == 0 { single_file(connection, &args.service.stream).await } else { None };
    match other {
        Some(why) => checks.note(format!("sources: {why}"), "to write that, use --output instead of --output-dir"),
        None if listed == 0 => checks.note(format!("sources: {key} lists none yet"), "start the reader of many files"),
        None => checks.ok(format!("sources: {key} lists {listed}; {count} for this writer")),
    }
    outputs(checks, args, folder, &sources);
    let group = |name: &str| {
        let stream = format!("{}:{{{name}}}", args.service.stream);
        Group::new(stream, args.writer.group.clone(), args.writer.consumer_of(&folder.join(name)))
    };
    let groups: Vec<Group> = sources.iter().map(|source| group(&source.name.escaped())).collect();
    let waiting = match &cluster {
        Some(cluster) => waiting(checks, cluster, &groups).await,
        None => waiting(checks, &mut *connection, &groups).await,
    };
    match waiting {
        Ok(Some(waiting)) => checks.ok(format!("--group: {} in all sources", wait(waiting))),
        Ok(None) => {}
        Err(error) => checks.redis(format!("--group: checking {}", args.writer.group), &error),
    }
    let claims = args.writer.claim_idle.is_some_and(|idle| idle.0.is_some());
    let one = groups.into_iter().next().unwrap_or_else(|| group("check"));
    let mut needed = commands(&one, claims, false);
    let listing = vec![cmd::<Frame>("HLEN").arg(&key), cmd::<Frame>("HSCAN").arg(&key).arg(0)];
    if cluster.is_none() {
        needed.extend(listing);
        return checks.commands(vec![Commands { connection, watched: one.stream, commands: needed }]).await;
    }
    let connect = async |key: &str| Connection::connect(&config.clone().for_key(key)).await;
    match (connect(&one.stream).await, connect(&key).await) {
        (Ok(mut of_source), Ok(mut of_registry)) => {
            let source = Commands { connection: &mut of_source, watched: one.stream, commands: needed };
            let registry = Commands { connection: &mut of_registry, watched: key, commands: listing };
            checks.commands(vec![source, registry]).await;
        }
        (Err(error), _) | (_, Err(error)) => checks.redis("redis: connecting", &error),
    }
}

/// Reports the outputs that would be refused.
fn outputs(checks: &mut Preflight, args: &CheckArgs, folder: &Path, sources: &[Listed]) {
    let journals = Journals::default();
    sources.iter().for_each(|source| journals.add(&folder.join(source.name.path())));
    let (mut good, mut busy) = (0_u64, 0_u64);
    for source in sources {
        let output = folder.join(source.name.path());
        let shown = output.display();
        let identity = Identity::new(&source.name.key(&args.service.stream), &args.writer.group, &[Partition::WHOLE]);
        let mut is_busy = false;
        let mut wrong = None;
        for path in [&output, &path_of(&output)] {
            match impossible(path) {
                // Its folder will be made.
                Ok(Some(_)) if !folder_of(path).exists() => {}
                Ok(Some(why)) => wrong = Some(why.to_owned()),
                Err(error) => wrong = Some(error.to_string()),
                Ok(None) => match open_locked(path, false) {
                    Ok(Locked::ByAnother) => is_busy = true,
                    Ok(Locked::Ours(_) | Locked::Missing) => {}
                    Err(error) => wrong = Some(format!("{error}; {}", advice::io(&error))),
                },
            }
        }
        if wrong.is_none() && !is_busy && folder_of(&output).is_dir() {
            wrong = match verdict(&output, &identity, Some(&journals)) {
                Ok(Verdict::Refuse(refusal)) => Some(refusal.to_string()),
                Ok(Verdict::Open(_) | Verdict::Adopt(..)) => None,
                Err(error) => Some(error.to_string()),
            };
        }
        match wrong {
            Some(why) => checks.waits(
                format!("--output-dir: {shown}: {why}"),
                "the writer would write the others, and try this one again",
            ),
            None if is_busy => busy = busy.saturating_add(1),
            None => good = good.saturating_add(1),
        }
    }
    if busy > 0 && !checks.is_running() {
        checks.note(
            format!("--output-dir: a running writer has locked {busy} {}", noun(busy, "output")),
            "give each writer sources of its own with --sources",
        );
    }
    if good > 0 {
        checks.ok(format!("--output-dir: {good} {} can be written", noun(good, "output")));
    }
}

/// How many entries wait in all these groups. `None` if those of a source cannot be counted, which
/// is reported.
async fn waiting(
    checks: &mut Preflight,
    mut redis: impl Executor,
    groups: &[Group],
) -> Result<Option<u64>, resp::Error> {
    let mut waiting = Some(0_u64);
    for groups in groups.chunks(TOGETHER) {
        let mut questions = Pipeline::new();
        let asked: Vec<_> = groups
            .iter()
            .map(|group| (questions.add(group.ask_groups()), questions.add(XLen::new(&group.stream))))
            .collect();
        let mut replies = redis.run(&questions).await?;
        for (group, (infos, length)) in groups.iter().zip(asked) {
            let (infos, length) = match (replies.take(infos), replies.take(length)) {
                (Ok(infos), Ok(length)) => (infos, length),
                // A source without a stream yet.
                (Err(error), _) if error.kind() == ErrorKind::NoSuchKey => continue,
                (Err(error), _) | (_, Err(error)) => {
                    // Missing rights are reported with the commands that need them.
                    if error.kind() != ErrorKind::NoPerm {
                        checks.waits(
                            format!("--group: checking {} of {}: {error}", group.name, group.stream),
                            "the writer would write the other sources, and try this one again",
                        );
                    }
                    waiting = None;
                    continue;
                }
            };
            let ours = infos.iter().find(|one| one.name == group.name.as_bytes()).map(state);
            let waits = ours.map_or(length, |ours| ours.lag(length, None).saturating_add(ours.pending));
            waiting = waiting.map(|waiting| waiting.saturating_add(waits));
        }
    }
    Ok(waiting)
}
