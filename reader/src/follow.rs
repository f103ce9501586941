//! The loop over sessions: connect, resume, stream; after a fault, again.

use crate::args::ReaderArgs;
use crate::batch::{Expected, Keys};
use crate::content::{Content, Inode};
use crate::cursor::Cursor;
use crate::folder::Folder;
use crate::interrupt::Interrupt;
use crate::pace::Pace;
use crate::roots::Roots;
use crate::state::StateFile;
use crate::totals::Totals;
use crate::wake::{Events, Wake};
use delivery::partition::Partition;
use delivery::source::{Guard, Lineage, record_key};
use log::{Level, info};
use resp::{Backoff, Connection, ErrorKind, StreamId, cmd};
use service::args::{ServiceArgs, other_partitions};
use service::{Connector, Context, Failure, Health, ServerWatch, Shutdown, Stop, Stream};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// How long a stop waits for a batch on the wire.
const DRAIN: Duration = Duration::from_secs(5);

/// The name of the reader's work, where health is concerned.
pub(crate) const WORK: &str = "adding";

/// How often it is told that something changed under the reader.
const CHANGED_AGAIN: Duration = Duration::from_secs(10);

/// What outlives a connection: all that one partition needs.
#[derive(Debug)]
pub(crate) struct Reader {
    pub(crate) args: ReaderArgs,
    pub(crate) partition: Partition,
    /// Names its stream at the beginning of what is logged; empty for the only one.
    pub(crate) name: String,
    /// The names of contents, when there are other partitions.
    pub(crate) roots: Option<Rc<Roots>>,
    pub(crate) totals: Totals,
    pub(crate) keys: Keys,
    pub(crate) folder: Folder,
    pub(crate) state: StateFile,
    pub(crate) wake: Wake,
    pub(crate) health: Health,
    /// What Redis says of itself, for the status page.
    pub(crate) server: ServerWatch,
    pub(crate) shutdown: Shutdown,
    pub(crate) backoff: Backoff,
    pub(crate) lineage: Lineage,
    /// What Redis must hold before the next batch may land.
    pub(crate) expected: Expected,
    /// Entries in the stream, as last told.
    pub(crate) stream_len: u64,
    /// The stream's last-generated ID, as last told.
    pub(crate) last_id: StreamId,
    /// Whether the last batch was refused for a foreign entry in its way.
    pub(crate) refused: bool,
    /// The content (its root) that was finished last, and where, and its last bytes.
    pub(crate) finished: Option<(u64, u64, Option<Guard>)>,
    /// Whether there was no input when nothing was known of it yet.
    pub(crate) missed: bool,
    /// A file that was left for its successor, and its length then.
    pub(crate) left: Option<(Content, u64)>,
    /// What was last told to be read: a path and its generation.
    pub(crate) told: Option<(PathBuf, Option<u64>)>,
    /// When something changed under the reader, and was told.
    changed: Option<Instant>,
    /// When the stream was last seen full.
    pub(crate) full_since: Option<Instant>,
    /// What was added lately, for the log.
    pub(crate) pace: Pace,
    /// When it was last looked at whether Redis holds what it should.
    pub(crate) checked: Instant,
    /// A generation, and the largest length its content was seen with.
    pub(crate) seen: Option<(u64, u64)>,
    /// `--once`: the file at the start, and how much of it there was.
    once: Option<(Inode, u64)>,
}

/// Follows the input until there is nothing left to do (`--once`) or the service stops.
pub(crate) async fn run(args: ReaderArgs, context: Context) -> Result<(), Stop> {
    let shared = Shared::new(args, &context)?;
    let partitions = shared.args.service.taken()?;
    let readers: Vec<_> =
        partitions.into_iter().map(|p| shared.reader(context.stream(&shared.args.service.stream, p))).collect();
    let shutdown = context.shutdown;
    let readers =
        futures_util::future::try_join_all(readers.into_iter().map(|(reader, connector)| reader.run(connector)));
    let work = async {
        match &shared.roots {
            Some(roots) => roots.beside(readers).await,
            None => readers.await,
        }
    };
    let stop = async {
        shutdown.requested().await;
        tokio::time::sleep(DRAIN).await;
    };
    tokio::select! {
        done = work => done.map(|_| ()),
        () = stop => {
            info!("stopping with a batch unconfirmed; the next start asks Redis what became of it");
            Err(Stop::Shutdown)
        }
    }
}

/// What the partitions of a source have in common.
struct Shared {
    args: ReaderArgs,
    input: PathBuf,
    state_dir: PathBuf,
    shutdown: Shutdown,
    roots: Option<Rc<Roots>>,
    events: Events,
    totals: Totals,
}

impl Shared {
    fn new(args: ReaderArgs, context: &Context) -> Result<Self, Failure> {
        let input = std::path::absolute(&args.input).map_err(|error| {
            Failure::config(format!("--input {}: {error}; allowed: a file's path", args.input.display()))
        })?;
        if input.file_name().is_none() || input.is_dir() {
            return Err(Failure::config(format!("--input {}: a folder; allowed: a file's path", args.input.display())));
        }
        let state_dir = args.state_dir.as_deref().or_else(|| input.parent()).unwrap_or(Path::new("/")).to_owned();
        writable(&state_dir, args.state_dir.is_some())?;
        let ServiceArgs { stream, partitions, .. } = &args.service;
        if let Some(first) = Partition::new(0, *partitions)
            && let Ok(Some((begun, file))) = StateFile::new(&state_dir, &input, stream, first).other_number()
        {
            return Err(Failure::config(format!(
                "{}; {} says so",
                other_partitions(stream, *partitions, begun),
                file.display()
            )));
        }
        let config = context.connector.config().clone();
        let roots = (*partitions > 1).then(|| Rc::new(Roots::new(config, stream.clone(), *partitions)));
        let totals = Totals::new();
        Ok(Self { input, state_dir, shutdown: context.shutdown.clone(), roots, events: Events::new(), totals, args })
    }

    /// The reader of one partition, and what connects it.
    fn reader(&self, stream: Stream) -> (Reader, Connector) {
        let Stream { partition, key, connector, health } = stream;
        // The page has room for one server.
        let server = ServerWatch::new(health.clone()).with_groups_of(&key);
        let is_first = self.totals.is_empty();
        let mut reader = Reader {
            partition,
            name: if partition.is_whole() { String::new() } else { format!("stream {key}: ") },
            roots: self.roots.clone(),
            totals: self.totals.of(partition),
            state: StateFile::new(&self.state_dir, &self.input, &self.args.service.stream, partition),
            folder: Folder::new(self.input.clone()),
            wake: self.events.wake(),
            server: if is_first { server } else { server.without_server() },
            keys: Keys { source: record_key(&key), stream: key },
            health,
            shutdown: self.shutdown.clone(),
            backoff: Backoff::new(Duration::from_millis(20), Duration::from_secs(5)),
            lineage: Lineage::default(),
            expected: Expected { guard: None, link: None, stream: false },
            stream_len: 0,
            last_id: StreamId::ZERO,
            refused: false,
            told: None,
            changed: None,
            finished: None,
            missed: false,
            left: None,
            full_since: None,
            pace: Pace::new(),
            checked: Instant::now(),
            seen: None,
            once: None,
            args: self.args.clone(),
        };
        if let Ok(Some(content)) = reader.folder.current() {
            reader.aim(&content);
        }
        // Before any of them names a content: Redis may have lost a name, and where it was used may be away. What cannot be read is told on resuming.
        if let (Some(roots), Ok((known, _))) = (&self.roots, reader.state.load()) {
            roots.learn(&known);
        }
        (reader, connector)
    }
}

/// What the next session runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    /// The same connection.
    Resume,
    /// A new one.
    Reconnect,
}

impl Reader {
    /// Follows the input until there is nothing left to do (`--once`) or the service stops.
    async fn run(mut self, mut connector: Connector) -> Result<(), Stop> {
        loop {
            let mut connection = connector.connect().await?;
            loop {
                match self.session(&mut connection).await {
                    Ok(()) => return Ok(()),
                    Err(interrupt) => {
                        if self.recover(interrupt, &mut connection).await? == Then::Reconnect {
                            break;
                        }
                    }
                }
            }
        }
    }

    /// After an interrupt: says what happened, waits as long as it makes sense, and clears the connection.
    async fn recover(&mut self, interrupt: Interrupt, connection: &mut Connection) -> Result<Then, Stop> {
        match interrupt {
            Interrupt::Redis(error) if error.kind() == ErrorKind::WrongType => {
                return Err(Stop::Failure(Failure::config(format!(
                    "--stream {}: the key holds another type ({error}); allowed: a stream, or a key that does not exist",
                    self.keys.stream
                ))));
            }
            Interrupt::Redis(error) => {
                service::metrics::error(if error.is_server() { "redis_refused" } else { "redis_connection" });
                self.health.redis_fails(WORK, service::in_words(&error));
            }
            Interrupt::Refused => {
                service::metrics::error("foreign_entry");
                self.refused = true;
            }
            // Two readers on one file see this all the time.
            Interrupt::Changed(what) => {
                let quiet = self.changed.is_some_and(|told| told.elapsed() < CHANGED_AGAIN);
                log::log!(
                    if quiet { Level::Debug } else { Level::Info },
                    "{}{what}; looking at what Redis and the folder hold",
                    self.name
                );
                self.changed = if quiet { self.changed } else { Some(Instant::now()) };
            }
            Interrupt::Input(what) => {
                service::metrics::error("input");
                self.health.file(Err(what));
            }
            Interrupt::Failure(failure) => return Err(Stop::Failure(failure)),
            Interrupt::Shutdown => return Err(Stop::Shutdown),
        }
        let delay = self.backoff.next_delay();
        self.health.progress();
        tokio::select! {
            () = tokio::time::sleep(delay) => {}
            () = self.shutdown.requested() => return Err(Stop::Shutdown),
        }
        // What is on the wire without an EXEC is taken back; Redis answers with an error when nothing is.
        match connection.send(&cmd("DISCARD")).await {
            Err(error) if error.closes_connection() => Ok(Then::Reconnect),
            _ => Ok(Then::Resume),
        }
    }

    /// What lies at the input's path; waits while nothing does.
    pub(crate) async fn wait_for_input(&mut self) -> Result<Content, Interrupt> {
        loop {
            let path = self.folder.input();
            match self.folder.current().map_err(|e| Interrupt::input("open", path, &e))? {
                Some(content) => {
                    self.health.file(Ok(()));
                    self.aim(&content);
                    return Ok(content);
                }
                None => {
                    // Redis has answered, and there is nothing to ask it now.
                    self.health.redis_works(WORK);
                    self.health.file(Err(format!("{} does not exist; waiting for it", path.display())));
                }
            }
            self.health.progress();
            tokio::select! {
                () = self.wake.wait() => {}
                () = self.shutdown.requested() => return Err(Interrupt::Shutdown),
            }
        }
    }

    /// `--once`: what the input holds now is what there is to do.
    fn aim(&mut self, content: &Content) {
        if self.once.is_none()
            && let Ok(len) = content.len()
        {
            self.once = Some((content.inode(), len));
        }
    }

    /// `--once`: whether all that the input held at the start is confirmed, `offset` bytes being confirmed and the file `len` bytes long.
    /// `None`: the service runs on.
    pub(crate) fn once_done(&self, cursor: &Cursor, offset: u64, len: u64) -> Option<bool> {
        if !self.args.service.once {
            return None;
        }
        let here = cursor.content.inode();
        let done = match self.once {
            Some((inode, aim)) if inode == here => offset >= aim.min(len),
            // Another one has taken its place.
            _ => Inode::at(self.folder.input()).ok().flatten() == Some(here),
        };
        Some(done)
    }
}

/// Refuses a state folder that cannot be written to.
fn writable(folder: &Path, named: bool) -> Result<(), Failure> {
    let probe = folder.join(format!(".reader-probe.{}", std::process::id()));
    let tried = std::fs::write(&probe, b"").and_then(|()| std::fs::remove_file(&probe));
    match tried {
        // The input's folder may come with the input.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !named => Ok(()),
        Err(error) => Err(Failure::config(format!(
            "--state-dir {}: {error}; allowed: a folder that can be written to",
            folder.display()
        ))),
        Ok(()) => Ok(()),
    }
}
