//! System calls of a running service that fail on demand, by `strace`.

use std::path::Path;

use crate::process::Process;
use crate::service::Service;
use crate::{text, wait};

/// As long as this lives, some system calls of a service return an error, without being made.
#[derive(Debug)]
pub struct Tamper {
    strace: Process,
}

impl Tamper {
    /// Whether this machine can: it has `strace`, and lets it in. Says so when not.
    #[must_use]
    pub fn is_possible() -> bool {
        let possible = text::can("strace", &["-qq", "-e", "inject=getpid:error=EIO", "true"]);
        if !possible {
            println!("skipped: there is no strace here that may change the system calls of a process");
        }
        possible
    }

    /// From now on these system calls (such as `fdatasync`, or several, separated by commas) fail
    /// with this error (such as `EIO`).
    #[must_use]
    pub fn start(service: &Service, folder: &Path, calls: &str, error: &str) -> Self {
        let log = folder.join(format!("strace-{calls}-{error}.log"));
        let pid = service.process().pid().as_raw_nonzero().to_string();
        let inject = format!("inject={calls}:error={error}");
        let args = ["-f", "-p", &pid, "-e", &inject, "-o", "/dev/null"];
        let none: [(&str, &str); 0] = [];
        let strace = Process::start("strace", Path::new("strace"), args, none, log);
        wait::until("strace is attached", || strace.log().contains("attached"));
        Self { strace }
    }
}

impl Drop for Tamper {
    /// Everything works again.
    fn drop(&mut self) {
        // Killed, it lets go of the service at once; asked to end, it may wait for a thread that
        // sleeps.
        self.strace.kill9();
    }
}
