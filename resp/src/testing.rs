//! A server for tests that follows a script in memory. Cargo feature `testing`.
//!
//! Everything connects to it as to a real server: [`Client`](crate::Client),
//! [`Connection`](crate::Connection), [`Consumer`](crate::Consumer), Sentinels and clusters. Each
//! connection follows one [`Script`]; without a script left, the server refuses connections.
//!
//! ```
//! use resp::testing::{Script, ScriptedServer, reply};
//! use resp::{Client, ErrorKind, cmd};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), resp::Error> {
//! let server = ScriptedServer::new([Script::new()
//!     .on(cmd::<()>("GET").arg("name"), reply::bulk("ann"))
//!     .on_name("INCR", reply::error("WRONGTYPE not a number"))]);
//! let client = Client::connect(&server.config()).await?;
//! let name: String = client.send(cmd("GET").arg("name")).await?;
//! assert_eq!(name, "ann");
//! let error = client.send(cmd::<u64>("INCR").arg("name")).await.unwrap_err();
//! assert_eq!(error.kind(), ErrorKind::WrongType);
//! // All was asked for, and nothing else.
//! server.finish().await
//! # }
//! ```

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::watch;

use crate::command::{self, Command};
use crate::{Config, Decoder, Endpoint, Error, ErrorKind, Frame};

/// The capacity of a connection in each direction.
const BUFFER: usize = 64 * 1024;
/// The last command of the handshake.
const LAST_GREETING: &str = "CLIENT SETINFO LIB-VER";
/// How long [`ScriptedServer::finish`] waits for missing commands.
const PATIENCE: Duration = Duration::from_secs(5);

/// The steps of a [`ScriptedServer`] on one connection.
///
/// The greeting is not part of it: `HELLO`, `AUTH`, `SELECT` and `CLIENT` are answered as a server
/// does, unless the first step is about one of them. All other steps come behind it. A command that
/// the next step is not about is answered with an error, and is what
/// [`finish`](ScriptedServer::finish) complains about.
#[derive(Clone, Debug)]
pub struct Script {
    steps: VecDeque<Step>,
    resp2: bool,
}

#[derive(Clone, Debug)]
enum Step {
    /// Waits for exactly this command, and replies.
    Command { encoded: Bytes, reply: Bytes },
    /// Waits for a command of this name, and replies.
    Name { name: String, reply: Bytes },
    /// Sends bytes unasked.
    Send(Bytes),
    /// Reads this many bytes.
    Take(usize),
    /// Closes the connection.
    Close,
}

impl Script {
    /// Creates a script for a server that supports RESP3.
    #[must_use]
    pub const fn new() -> Self {
        Self { steps: VecDeque::new(), resp2: false }
    }

    /// Creates a script for a server without `HELLO`.
    #[must_use]
    pub const fn resp2() -> Self {
        Self { steps: VecDeque::new(), resp2: true }
    }

    /// Waits for exactly this command, and replies with these bytes: see [`reply`].
    #[must_use]
    pub fn on<C: Command>(self, command: C, reply: impl Into<Bytes>) -> Self {
        let mut encoded = BytesMut::new();
        command::encode(&command, &mut encoded);
        self.step(Step::Command { encoded: encoded.freeze(), reply: reply.into() })
    }

    /// Waits for a command of this name, such as `XADD` or `XGROUP CREATE`, with any arguments, and
    /// replies with these bytes.
    #[must_use]
    pub fn on_name(self, name: &str, reply: impl Into<Bytes>) -> Self {
        self.step(Step::Name { name: name.to_owned(), reply: reply.into() })
    }

    /// Sends these bytes unasked, for example a push message.
    #[must_use]
    pub fn send(self, bytes: impl Into<Bytes>) -> Self {
        self.step(Step::Send(bytes.into()))
    }

    /// Reads this many bytes, and sends nothing.
    #[must_use]
    pub fn take(self, bytes: usize) -> Self {
        self.step(Step::Take(bytes))
    }

    /// Closes the connection. Without this step, the connection stays open and silent.
    #[must_use]
    pub fn close(self) -> Self {
        self.step(Step::Close)
    }

    fn step(mut self, step: Step) -> Self {
        self.steps.push_back(step);
        self
    }
}

impl Default for Script {
    fn default() -> Self {
        Self::new()
    }
}

/// The progress of one connection's script.
#[derive(Clone, Debug)]
enum Progress {
    /// The expected command.
    Waits(String),
    Done,
    /// An unexpected command.
    Failed(String),
}

/// A server in memory that follows one [`Script`] per connection, in order.
#[derive(Debug)]
pub struct ScriptedServer {
    scripts: Arc<Mutex<VecDeque<Script>>>,
    sessions: Arc<Mutex<Vec<watch::Receiver<Progress>>>>,
}

impl ScriptedServer {
    /// Creates a server that accepts one connection per script.
    #[must_use]
    pub fn new(scripts: impl IntoIterator<Item = Script>) -> Self {
        Self { scripts: Arc::new(Mutex::new(scripts.into_iter().collect())), sessions: Arc::default() }
    }

    /// Returns the configuration to connect with, inside a tokio runtime.
    #[must_use]
    pub fn config(&self) -> Config {
        self.at(Endpoint::tcp("scripted", 6379))
    }

    /// Returns the configuration for another endpoint, such as Sentinels or a cluster; this server
    /// plays all of their servers.
    #[must_use]
    pub fn at(&self, endpoint: Endpoint) -> Config {
        let (scripts, sessions) = (Arc::clone(&self.scripts), Arc::clone(&self.sessions));
        Config::new(endpoint).connector(move |_| {
            let script = lock(&scripts).pop_front();
            let stream = script.map(|script| {
                let (theirs, ours) = tokio::io::duplex(BUFFER);
                let (progress, watched) = watch::channel(Progress::Waits(String::new()));
                lock(&sessions).push(watched);
                tokio::spawn(ScriptedConnection { stream: ours, script, input: BytesMut::new(), progress }.run());
                theirs
            });
            async move { stream.ok_or_else(|| io::Error::new(io::ErrorKind::ConnectionRefused, "no script is left")) }
        })
    }

    /// Waits until all scripts are complete.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Usage`]: an unexpected command came, or an expected one did not come within
    /// some seconds.
    pub async fn finish(self) -> Result<(), Error> {
        let wrong = |nth: usize, what: String| Err(Error::new(ErrorKind::Usage, format!("connection {nth}: {what}")));
        let sessions = std::mem::take(&mut *lock(&self.sessions));
        for (nth, mut session) in (1..).zip(sessions) {
            let ended = session.wait_for(|progress| !matches!(progress, Progress::Waits(_)));
            let _ = tokio::time::timeout(PATIENCE, ended).await;
            match session.borrow().clone() {
                Progress::Done => {}
                Progress::Waits(what) => return wrong(nth, format!("{what} did not come")),
                Progress::Failed(what) => return wrong(nth, what),
            }
        }
        match lock(&self.scripts).len() {
            0 => Ok(()),
            left => Err(Error::new(ErrorKind::Usage, format!("{left} connections more were expected"))),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One connection.
struct ScriptedConnection {
    stream: DuplexStream,
    script: Script,
    input: BytesMut,
    progress: watch::Sender<Progress>,
}

impl ScriptedConnection {
    async fn run(mut self) {
        // The progress tells what was missing when the peer closed the connection.
        let _ = self.follow().await;
    }

    async fn follow(&mut self) -> io::Result<()> {
        let mut greets = true;
        let mut decoder = Decoder::default();
        loop {
            self.say_progress();
            match self.script.steps.front().cloned() {
                Some(Step::Send(bytes)) if !greets => self.stream.write_all(&bytes).await?,
                Some(Step::Take(bytes)) if !greets => {
                    while self.input.len() < bytes {
                        self.read().await?;
                    }
                    let _ = self.input.split_to(bytes);
                }
                Some(Step::Close) if !greets => {
                    self.progress.send_replace(Progress::Done);
                    return Ok(());
                }
                step => {
                    let command = self.next_command(&mut decoder).await?;
                    let reply = match step {
                        Some(Step::Command { encoded, reply }) if *command.as_wire() == encoded => reply,
                        Some(Step::Name { name, reply }) if is_named(&command, &name) => reply,
                        _ => match greeting(&command, self.script.resp2).filter(|_| greets) {
                            Some(greeting) => {
                                greets = !is_named(&command, LAST_GREETING);
                                self.stream.write_all(greeting).await?;
                                continue;
                            }
                            None => return self.fail(&command).await,
                        },
                    };
                    greets = false;
                    self.stream.write_all(&reply).await?;
                }
            }
            self.script.steps.pop_front();
        }
    }

    async fn next_command(&mut self, decoder: &mut Decoder) -> io::Result<Frame> {
        loop {
            if let Some(command) = decoder.decode(&mut self.input)? {
                return Ok(command);
            }
            self.read().await?;
        }
    }

    async fn read(&mut self) -> io::Result<()> {
        match self.stream.read_buf(&mut self.input).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    fn say_progress(&self) {
        self.progress.send_replace(match self.script.steps.front() {
            None => Progress::Done,
            Some(Step::Command { encoded, .. }) => {
                let command = Decoder::default().decode(&mut BytesMut::from(&encoded[..]));
                Progress::Waits(command.ok().flatten().map(|command| words(&command)).unwrap_or_default())
            }
            Some(Step::Name { name, .. }) => Progress::Waits(name.clone()),
            Some(Step::Take(bytes)) => Progress::Waits(format!("{bytes} bytes")),
            Some(Step::Send(_) | Step::Close) => Progress::Waits(String::new()),
        });
    }

    /// Refuses an unexpected command.
    async fn fail(&mut self, command: &Frame) -> io::Result<()> {
        let came = words(command);
        let what = match &*self.progress.borrow() {
            Progress::Waits(expected) => format!("expected {expected}, got {came}"),
            _ => format!("expected no more commands, got {came}"),
        };
        self.progress.send_replace(Progress::Failed(what.clone()));
        self.stream.write_all(&reply::error(&format!("ERR not in the script: {what}"))).await
    }
}

/// Returns the words of a command.
fn words(command: &Frame) -> String {
    let words = command.value().children().map(|word| word.as_bytes().unwrap_or_default().escape_ascii().to_string());
    words.collect::<Vec<_>>().join(" ")
}

fn is_named(command: &Frame, name: &str) -> bool {
    let mut words = command.value().children().map(|word| word.as_bytes().unwrap_or_default());
    name.split_ascii_whitespace()
        .all(|part| words.next().is_some_and(|word| word.eq_ignore_ascii_case(part.as_bytes())))
}

/// Returns a server's reply to a command of the handshake.
fn greeting(command: &Frame, resp2: bool) -> Option<&'static [u8]> {
    if is_named(command, "HELLO") {
        return Some(match resp2 {
            true => b"-ERR unknown command 'HELLO'\r\n",
            false => b"%2\r\n+proto\r\n:3\r\n+id\r\n:1\r\n",
        });
    }
    ["AUTH", "SELECT", "CLIENT"].iter().any(|name| is_named(command, name)).then_some(b"+OK\r\n")
}

/// Encoded replies.
///
/// ```
/// use resp::testing::reply;
///
/// assert_eq!(reply::array([reply::integer(1), reply::bulk("a")]), "*2\r\n:1\r\n$1\r\na\r\n");
/// ```
pub mod reply {
    use bytes::{Bytes, BytesMut};

    /// `+OK`
    #[must_use]
    pub const fn ok() -> Bytes {
        Bytes::from_static(b"+OK\r\n")
    }

    /// `_`, RESP3's null.
    #[must_use]
    pub const fn null() -> Bytes {
        Bytes::from_static(b"_\r\n")
    }

    /// An integer.
    #[must_use]
    pub fn integer(n: i64) -> Bytes {
        format!(":{n}\r\n").into()
    }

    /// A string.
    #[must_use]
    pub fn bulk(bytes: impl AsRef<[u8]>) -> Bytes {
        let bytes = bytes.as_ref();
        [format!("${}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat().into()
    }

    /// An error, whose first word is its code. Line breaks become spaces.
    #[must_use]
    pub fn error(text: &str) -> Bytes {
        format!("-{}\r\n", text.replace(['\r', '\n'], " ")).into()
    }

    /// An array of replies.
    #[must_use]
    pub fn array(replies: impl IntoIterator<Item = Bytes>) -> Bytes {
        aggregate('*', 1, replies)
    }

    /// A map of RESP3: keys and values in turn.
    #[must_use]
    pub fn map(replies: impl IntoIterator<Item = Bytes>) -> Bytes {
        aggregate('%', 2, replies)
    }

    /// A push message of RESP3.
    #[must_use]
    pub fn push(replies: impl IntoIterator<Item = Bytes>) -> Bytes {
        aggregate('>', 1, replies)
    }

    fn aggregate(kind: char, each: usize, replies: impl IntoIterator<Item = Bytes>) -> Bytes {
        let replies: Vec<Bytes> = replies.into_iter().collect();
        let mut out =
            BytesMut::from(format!("{kind}{}\r\n", replies.len().checked_div(each).unwrap_or_default()).as_str());
        replies.iter().for_each(|reply| out.extend_from_slice(reply));
        out.freeze()
    }
}
