//! `reader check`: whether the configuration can work, without moving a line.

use crate::args::ReaderArgs;
use crate::content::Content;
use crate::state::StateFile;
use delivery::source::{Lineage, record_key};
use resp::{Connection, cmd};
use service::checks::{self, Checks};
use service::words;
use std::io;
use std::path::Path;
use std::process::ExitCode;

pub(crate) fn run(args: &ReaderArgs) -> ExitCode {
    checks::run("reader", &args.service, async |checks, connection| {
        let input = match std::path::absolute(&args.input) {
            Ok(input) => input,
            Err(error) => return checks.wrong(format!("--input {}: {error}", args.input.display()), "name a file"),
        };
        let content = open(checks, &input);
        let folder = args.state_dir.as_deref().or_else(|| input.parent()).unwrap_or(Path::new("/"));
        checks.folder("--state-dir", folder);
        let state = StateFile::new(folder, &input, &args.service.stream, delivery::partition::Partition::WHOLE);
        let mut known = Lineage::default();
        match state.load() {
            Ok((lineage, None)) => known = lineage,
            Ok((_, Some(complaint))) => checks.note(
                format!("--state-dir: {} cannot be understood: {complaint}", state.path().display()),
                "Redis' record is used; the file is written anew when the next content begins",
            ),
            Err(error) => {
                checks.wrong(format!("--state-dir: reading {}: {error}", state.path().display()), words::io(&error));
            }
        }
        if let Some(mut connection) = connection {
            source(checks, &mut connection, args, &input, content.as_ref(), &known).await;
            let stream = &args.service.stream;
            let key = record_key(stream);
            let commands = [
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
            checks.commands(&mut connection, &key, &commands).await;
        }
    })
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
    args: &ReaderArgs,
    input: &Path,
    content: Option<&Content>,
    known: &Lineage,
) {
    let key = record_key(&args.service.stream);
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
        checks.ok(format!("source: stream {} carries this file, or nothing yet", args.service.stream));
    } else {
        let other = lineage.last().map(|generation| generation.path.clone()).unwrap_or_default();
        checks.wrong(
            format!("source: stream {} already carries another file, {other}", args.service.stream),
            "choose another --stream, or that --input",
        );
    }
}
