//! Finds or installs redis-server, and starts a private instance of it.

use std::env;
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::child::{Child, tied};
use crate::install::{Consent, Wanted, install, on_path};
use crate::interrupt::Interrupt;
use crate::{During, Error, Result};

/// Overrides the search for a server.
pub(crate) const REDIS_SERVER: &str = "REDIS_SERVER";

/// Servers with the protocol and streams, the preferred one first.
const NAMES: [&str; 3] = ["redis-server", "valkey-server", "keydb-server"];

/// Timeout of the first PING.
const START: Duration = Duration::from_secs(20);

/// The path of the server: `REDIS_SERVER`, else a server on the PATH, else one that is installed
/// now.
pub(crate) fn find_or_install(consent: Consent, interrupt: &Interrupt) -> Result<PathBuf> {
    if let Some(named) = env::var_os(REDIS_SERVER).filter(|named| !named.is_empty()) {
        let program = PathBuf::from(&named);
        return if program.is_file() {
            Ok(program)
        } else {
            Err(Error::new(format!("REDIS_SERVER={}: there is no such file", program.display())))
        };
    }
    if let Some(program) = find() {
        return Ok(program);
    }
    install(Wanted::Redis, consent, interrupt)?;
    find().ok_or_else(|| Error::new("the package that was installed brought no redis-server or valkey-server"))
}

fn find() -> Option<PathBuf> {
    NAMES.into_iter().find_map(on_path)
}

/// A private server on a Unix socket, without a TCP port, with an append-only file. Stopped when
/// dropped; the caller owns its folder.
pub(crate) struct Server {
    child: Child,
    socket: PathBuf,
}

impl Server {
    pub(crate) fn start(program: &Path, folder: &Path, interrupt: &Interrupt) -> Result<Self> {
        let socket = folder.join("redis.sock");
        let log = folder.join("redis.log");
        let output = File::create(&log).during(|| format!("creating {}", log.display()))?;
        let mut command = tied(program);
        command
            .args(["--port", "0", "--unixsocket"])
            .arg(&socket)
            .args(["--unixsocketperm", "700", "--dir"])
            .arg(folder)
            .args(["--appendonly", "yes", "--appendfsync", "everysec", "--save", "", "--daemonize", "no"])
            .stdout(Stdio::from(output));
        let child = Child::spawn_heard("redis-server", &mut command, |_| {})?;
        let mut server = Self { child, socket };
        let begun = Instant::now();
        while !server.answers() {
            if let Some(status) = server.child.ended()? {
                let said = std::fs::read_to_string(&log).unwrap_or_default();
                let last = said.lines().last().unwrap_or_default().to_owned();
                return Err(Error::new(format!("{} ended with {status}: {last}", program.display())));
            }
            if begun.elapsed() > START {
                return Err(Error::new(format!("{} does not answer within {START:?}", program.display())));
            }
            interrupt.pause(Duration::from_millis(10))?;
        }
        Ok(server)
    }

    /// The URL for clients.
    pub(crate) fn url(&self) -> String {
        format!("unix://{}", self.socket.display())
    }

    /// Fails if the server has exited.
    pub(crate) fn must_run(&mut self) -> Result<()> {
        self.child.must_run()
    }

    fn answers(&self) -> bool {
        let ping = || -> std::io::Result<bool> {
            let mut stream = UnixStream::connect(&self.socket)?;
            stream.set_read_timeout(Some(Duration::from_secs(1)))?;
            stream.write_all(b"PING\r\n")?;
            let mut answer = [0; 7];
            stream.read_exact(&mut answer)?;
            Ok(&answer == b"+PONG\r\n")
        };
        ping().unwrap_or(false)
    }
}
