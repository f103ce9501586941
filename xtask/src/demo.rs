//! Streams a file through both services and proves the output identical.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::{Args, ValueEnum};
use tempfile::TempDir;

use crate::cargo::{self, Binaries};
use crate::child::{Child, each_line, tied};
use crate::install::Consent;
use crate::interrupt::Interrupt;
use crate::server::{self, Server};
use crate::{During, Error, Result};

mod compare;
mod input;
mod keys;
mod numbers;
mod progress;
mod scrape;

use input::Input;
use progress::{Progress, Seen};
use scrape::Endpoint;

/// The pause between two measurements of the progress.
const LOOK: Duration = Duration::from_millis(10);
/// The pause between two scrapes of the services' metrics.
const SCRAPE: Duration = Duration::from_millis(200);
/// Without progress for this long, the demo fails.
const STALLED: Duration = Duration::from_secs(60);

#[derive(Args)]
pub(crate) struct DemoArgs {
    #[command(flatten)]
    consent: Consent,
    /// The file to stream [default: a large text of this machine, or a generated one]
    file: Option<PathBuf>,

    /// Use this Redis instead of a private one; the demo deletes its keys at the end
    #[arg(long, value_name = "URL")]
    redis_url: Option<String>,

    /// Put one line, or many whole lines, into an entry
    #[arg(long, value_enum, default_value_t = Framing::Line)]
    framing: Framing,

    /// The folder for output.txt [default: target/demo]
    #[arg(long, value_name = "FOLDER")]
    output_dir: Option<PathBuf>,

    /// Keep the temporary folder, the writer's journal, and the keys in Redis
    #[arg(long)]
    keep: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Framing {
    Line,
    Chunk,
}

impl Framing {
    const fn name(self) -> &'static str {
        match self {
            Self::Line => "line",
            Self::Chunk => "chunk",
        }
    }
}

/// The folder of one demo.
struct Place {
    /// The folder of the server, of the reader's state, and of a generated input. Deleted at the
    /// end.
    temporary: TempDir,
    output: PathBuf,
    redis_url: String,
    stream: String,
}

pub(crate) fn run(args: &DemoArgs) -> Result<()> {
    let interrupt = Interrupt::watch()?;
    if let Some(file) = &args.file
        && !file.is_file()
    {
        return Err(Error::new(format!("{}: there is no such file", file.display())));
    }
    let program = match &args.redis_url {
        Some(url) => {
            keys::check(url)?;
            None
        }
        None => Some(server::find_or_install(args.consent, &interrupt)?),
    };
    println!("building reader and writer (release)");
    let binaries = cargo::build(true, &interrupt)?;

    let mut temporary = tempfile::Builder::new()
        .prefix("line-stream-demo-")
        .tempdir()
        .during(|| "creating a temporary folder".to_owned())?;
    temporary.disable_cleanup(args.keep);
    let input = match &args.file {
        Some(file) => Input::given(file)?,
        None => Input::found_or_made(temporary.path(), &interrupt)?,
    };
    println!("input:  {input}");

    let mut server = None;
    let redis_url = match (&args.redis_url, &program) {
        (Some(url), _) => url.clone(),
        (None, Some(program)) => {
            let started = Server::start(program, temporary.path(), &interrupt)?;
            println!("redis:  a private {} with an append-only file", program.display());
            server.insert(started).url()
        }
        (None, None) => return Err(Error::new("no server")),
    };
    let folder = match &args.output_dir {
        Some(folder) => folder.clone(),
        None => cargo::target()?.join("demo"),
    };
    fs::create_dir_all(&folder).during(|| format!("creating {}", folder.display()))?;
    let place = Place { temporary, output: folder.join("output.txt"), redis_url, stream: fresh_stream() };
    fresh_output(&place.output, &input.path)?;

    let streamed = stream(args, &binaries, &place, &input, server.as_mut(), &interrupt);
    if args.keep {
        println!("kept:   {}; stream {} at Redis", place.temporary.path().display(), place.stream);
        return streamed;
    }
    let tidied = tidy(args, &place, matches!(streamed, Err(Error::Interrupted)));
    // The first error is the cause of later ones.
    streamed.and(tidied)
}

/// Removes what the demo leaves, except its result.
fn tidy(args: &DemoArgs, place: &Place, interrupted: bool) -> Result<()> {
    remove(&journal(&place.output))?;
    if interrupted {
        remove(&place.output)?;
    }
    if args.redis_url.is_some() {
        keys::delete(&place.redis_url, &place.stream)?;
    }
    Ok(())
}

/// A stream name that no other stream of the server has.
fn fresh_stream() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("demo_{}_{}", now.as_millis(), std::process::id())
}

fn journal(output: &Path) -> PathBuf {
    let mut name = output.as_os_str().to_owned();
    name.push(".journal");
    PathBuf::from(name)
}

fn remove(file: &Path) -> Result<()> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::new(format!("removing {}: {error}", file.display())))
        }
        _ => Ok(()),
    }
}

/// Removes what an earlier demo left; never the input.
fn fresh_output(output: &Path, input: &Path) -> Result<()> {
    if output.canonicalize().ok() == Some(input.to_owned()) {
        return Err(Error::new(format!("{} is where the output goes; give another --output-dir", input.display())));
    }
    remove(output)?;
    remove(&journal(output))
}

/// A service, and the address of its HTTP endpoint.
fn start(name: &'static str, program: &Path, place: &Place, args: &[&std::ffi::OsStr]) -> Result<(Child, Endpoint)> {
    let mut command = tied(program);
    command
        // Settings of the user's services must not change the demo.
        .env_clear()
        .envs(std::env::vars_os().filter(|(name, _)| name == "PATH" || name == "HOME" || name == "TMPDIR"))
        .env("REDIS_URL", &place.redis_url)
        .args(["--stream", &place.stream, "--http-addr", "127.0.0.1:0"])
        .args(args);
    let addr = Arc::new(OnceLock::new());
    let heard = Arc::clone(&addr);
    let child = Child::spawn_heard(name, &mut command, move |line| {
        if let Some((_, found)) = line.split_once("listening on http://") {
            let _ = found.trim().parse().map(|found| heard.set(found));
        }
    })?;
    Ok((child, Endpoint::new(addr)))
}

fn stream(
    args: &DemoArgs,
    binaries: &Binaries,
    place: &Place,
    input: &Input,
    mut server: Option<&mut Server>,
    interrupt: &Interrupt,
) -> Result<()> {
    let output_arg = place.output.as_os_str();
    let begun = Instant::now();
    let (mut writer, writer_http) = start("writer", &binaries.writer, place, &["--output".as_ref(), output_arg])?;
    let (mut reader, reader_http) = start(
        "reader",
        &binaries.reader,
        place,
        &[
            "--once".as_ref(),
            "--input".as_ref(),
            input.path.as_os_str(),
            "--state-dir".as_ref(),
            place.temporary.path().as_os_str(),
            "--framing".as_ref(),
            args.framing.name().as_ref(),
        ],
    )?;

    let mut progress = Progress::new(input.bytes);
    let mut seen = Seen::default();
    let mut scraped = Instant::now();
    let mut moved = Instant::now();
    let mut sent = false;
    loop {
        interrupt.check()?;
        if let Some(server) = server.as_deref_mut() {
            server.must_run()?;
        }
        writer.must_run()?;
        if !sent && let Some(status) = reader.ended()? {
            if !status.success() {
                return Err(reader.failure(status));
            }
            sent = true;
        }
        let written = fs::metadata(&place.output).map(|data| data.len()).ok();
        if let Some(written) = written
            && written != seen.bytes
        {
            seen.bytes = written;
            moved = Instant::now();
        }
        if sent && written.is_some_and(|written| written >= input.bytes) {
            break;
        }
        if moved.elapsed() > STALLED {
            return Err(Error::new(format!(
                "nothing moved for {} s\n    reader: {}\n    writer: {}",
                STALLED.as_secs(),
                reader.last_line(),
                writer.last_line()
            )));
        }
        if scraped.elapsed() >= SCRAPE {
            scraped = Instant::now();
            seen.read(&reader_http, &writer_http);
            progress.show(&seen);
        }
        std::thread::sleep(LOOK);
    }
    let took = begun.elapsed();
    progress.finish();
    let status = writer.stop()?;
    if !status.success() {
        return Err(writer.failure(status));
    }
    input.must_be_unchanged()?;

    let counted = compare::identical(&input.path, &place.output, interrupt)?;
    println!("proof:  compared byte by byte: identical");
    println!("proof:  writer verify: {}", verify(binaries, input, place, interrupt)?);
    println!("result: {}", numbers::summary(&counted, took));
    println!("output: {}", from_here(&place.output).display());
    Ok(())
}

/// The shortest way to the file from the current folder.
fn from_here(file: &Path) -> &Path {
    std::env::current_dir().ok().and_then(|here| file.strip_prefix(here).ok()).unwrap_or(file)
}

/// What `writer verify` reports about the output, by its journal.
fn verify(binaries: &Binaries, input: &Input, place: &Place, interrupt: &Interrupt) -> Result<String> {
    let mut command = tied(&binaries.writer);
    command.arg("verify").arg("--input").arg(&input.path).arg("--output").arg(&place.output);
    let mut child = Child::spawn_heard("writer verify", command.stdout(Stdio::piped()), |_| {})?;
    let mut said = String::new();
    if let Some(stdout) = child.stdout() {
        each_line(stdout, |line| {
            said.push_str(if said.is_empty() { "" } else { "\n        " });
            said.push_str(line);
        });
    }
    match child.must_succeed(interrupt) {
        Err(Error::Failed(why)) => Err(Error::new(format!("{why}\n    {said}"))),
        done => done.map(|()| said),
    }
}
