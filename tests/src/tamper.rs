//! Injects failures into system calls of a running service, with `strace`.

use std::path::Path;

use crate::process::Process;
use crate::service::Service;
use crate::{text, wait};

/// While this value lives, some system calls of a service return an error and are not executed.
#[derive(Debug)]
pub struct Tamper {
    strace: Process,
}

impl Tamper {
    /// Whether `strace` exists on this machine and may attach. Prints a message if not.
    #[must_use]
    pub fn is_possible() -> bool {
        let possible = text::can("strace", &["-qq", "-e", "inject=getpid:error=EIO", "true"]);
        if !possible {
            println!("skipped: there is no strace here that may change the system calls of a process");
        }
        possible
    }

    /// Makes these system calls (such as `fdatasync`, or several, separated by commas) fail with
    /// this error (such as `EIO`).
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
    /// Ends the failures.
    fn drop(&mut self) {
        // SIGKILL detaches `strace` at once; SIGTERM may wait for a sleeping thread.
        self.strace.kill9();
    }
}
