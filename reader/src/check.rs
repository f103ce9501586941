//! `reader check`: whether the configuration can work, without moving a line.

use crate::args::ReaderArgs;
use crate::content::Content;
use crate::state::StateFile;
use delivery::source::{Lineage, record_key};
use resp::{Connection, cmd};
use service::args::ServiceArgs;
use service::checks::{self, Checks, Commands, Found};
use service::words;
use std::io;
use std::path::Path;
use std::process::ExitCode;

pub(crate) fn run(args: &ReaderArgs) -> ExitCode {
    checks::run("reader", &args.service, async |checks, mut streams, mut base| {
        let input = match std::path::absolute(&args.input) {
            Ok(input) => input,
            Err(error) => return checks.wrong(format!("--input {}: {error}", args.input.display()), "name a file"),
        };
        let content = open(checks, &input);
        let folder = args.state_dir.as_deref().or_else(|| input.parent()).unwrap_or(Path::new("/"));
        checks.folder("--state-dir", folder);
        let mut needed = Vec::new();
        for Found { partition, key, connection } in &mut streams {
            let state = StateFile::new(folder, &input, &args.service.stream, *partition);
            let known = known(checks, &state, args);
            let Some(connection) = connection else { continue };
            source(checks, connection, key, &input, content.as_ref(), &known).await;
            needed.push(commands(connection, key));
        }
        if let Some(connection) = &mut base {
            let record = record_key(&args.service.stream);
            let commands = vec![
                cmd("HGETALL").arg(&record),
                cmd("HSETNX").arg(&record).arg("partitions").arg(""),
                cmd("HDEL").arg(&record).arg("partitions"),
                cmd("TIME"),
            ];
            needed.push(Commands { connection, watched: record, commands });
        }
        if !needed.is_empty() {
            checks.commands(needed).await;
        }
    })
}

/// What the state file holds.
fn known(checks: &mut Checks, state: &StateFile, args: &ReaderArgs) -> Lineage {
    if let Ok(Some((begun, file))) = state.other_number() {
        let ServiceArgs { stream, partitions, .. } = &args.service;
        checks.wrong(
            format!(
                "--partitions {partitions}: stream {stream} was begun with --partitions {begun}, says {}",
                file.display()
            ),
            &format!("give --partitions {begun}, or choose another --stream"),
        );
    }
    match state.load() {
        Ok((lineage, None)) => return lineage,
        Ok((_, Some(complaint))) => checks.note(
            format!("--state-dir: {} cannot be understood: {complaint}", state.path().display()),
            "Redis' record is used; the file is written anew when the next content begins",
        ),
        Err(error) => {
            checks.wrong(format!("--state-dir: reading {}: {error}", state.path().display()), words::io(&error));
        }
    }
    Lineage::default()
}

/// What the reader asks of Redis where a stream is.
fn commands<'a>(connection: &'a mut Connection, stream: &str) -> Commands<'a> {
    let key = record_key(stream);
    let commands = vec![
        cmd("XINFO").arg("STREAM").arg(stream),
        cmd("XRANGE").arg(stream).arg("-").arg("+"),
        cmd("XLEN").arg(stream),
        cmd("EXISTS").arg(stream),
        cmd("XADD").arg(stream).arg("*").arg("line").arg(""),
        cmd("HGETALL").arg(&key),
        cmd("HMGET").arg(&key).arg("guard"),
        cmd("HSET").arg(&key).arg("guard").arg(""),
        cmd("HSETNX").arg(&key).arg("guard").arg(""),
        cmd("HDEL").arg(&key).arg("guard"),
        cmd("TIME"),
    ];
    Commands { connection, watched: key, commands }
}

fn open(checks: &mut Checks, input: &Path) -> Option<Content> {
    match Content::open(input).and_then(|content| content.bytes(0, 1).map(|_| content)) {
        Ok(content) => {
            checks.ok(format!("--input: {} can be read, {} bytes", input.display(), content.len().unwrap_or(0)));
            Some(content)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound && input.parent().is_some_and(Path::is_dir) => {
            checks.note(format!("--input: {} does not exist yet", input.display()), "the reader waits for it");
            None
        }
        Err(error) => {
            checks.wrong(format!("--input: reading {}: {error}", input.display()), words::io(&error));
            None
        }
    }
}

/// Whether what the stream carries is this file.
async fn source(
    checks: &mut Checks,
    connection: &mut Connection,
    stream: &str,
    input: &Path,
    content: Option<&Content>,
    known: &Lineage,
) {
    let key = record_key(stream);
    let reply = match connection.send(&cmd("HGETALL").arg(&key)).await {
        Ok(reply) => reply,
        Err(error) => return checks.wrong(format!("source: reading {key}: {error}"), words::redis(error.kind())),
    };
    let pairs = reply.value().pairs().filter_map(|(name, value)| Some((name.as_bytes()?, value.as_bytes()?)));
    let lineage = match Lineage::from_fields(pairs) {
        Ok(lineage) => lineage,
        Err(error) => {
            let advice = "remove what is not the reader's from this key, or choose another --stream";
            return checks.wrong(format!("source: {key}: {error}"), advice);
        }
    };
    let path = input.to_string_lossy();
    let is_ours = lineage.is_empty()
        || lineage.shares(known)
        || lineage.iter().any(|generation| generation.path == path)
        || content.is_some_and(|content| lineage.iter().any(|known| content.has_head_of(known).unwrap_or(false)));
    if is_ours {
        checks.ok(format!("source: stream {stream} carries this file, or nothing yet"));
    } else {
        let other = lineage.last().map(|generation| generation.path.clone()).unwrap_or_default();
        checks.wrong(
            format!("source: stream {stream} already carries another file, {other}"),
            "choose another --stream, or that --input",
        );
    }
}
