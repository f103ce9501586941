//! A child process that cannot outlive its test.

use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal};

use crate::binaries::leash;
use crate::wait;

/// How much of the end of a log is printed when a test fails.
const SHOWN: usize = 4000;

/// A child process whose standard error goes to a file, which is printed if the test fails. It is
/// killed when this value is dropped, and when the thread that started it ends. That thread must
/// therefore outlive it.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    ended: Option<ExitStatus>,
}

impl Process {
    /// Starts `program`. Standard output goes to `<log>.out`, standard error to `log`.
    #[must_use]
    pub fn start(
        name: &str,
        program: &Path,
        args: impl IntoIterator<Item = impl AsRef<OsStr>>,
        env: impl IntoIterator<Item = (impl AsRef<OsStr>, impl AsRef<OsStr>)>,
        log: PathBuf,
    ) -> Self {
        let mut command = match leash() {
            Some(leash) => {
                let mut command = Command::new(leash);
                command.arg(std::process::id().to_string()).arg(program);
                command
            }
            None => Command::new(program),
        };
        let out = File::create(stdout_of(&log)).expect("a file for standard output");
        let err = File::create(&log).expect("a file for the log");
        let child = command
            .args(args)
            .envs(env)
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .spawn()
            .unwrap_or_else(|error| panic!("start {}: {error}", program.display()));
        Self { name: name.to_owned(), child, log, ended: None }
    }

    /// The process ID.
    #[must_use]
    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Sends a signal, unless the process has ended.
    pub fn signal(&self, signal: Signal) {
        // The child is a zombie until it is waited for, so its ID cannot belong to another process.
        if self.ended.is_none() {
            rustix::process::kill_process(self.pid(), signal).expect("signal a child");
        }
    }

    /// Sends SIGKILL, and waits for the exit.
    pub fn kill9(&mut self) {
        self.signal(Signal::KILL);
        self.ended = Some(self.child.wait().expect("wait for a child"));
    }

    /// The exit status, if it has ended.
    pub fn try_exit(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().expect("look at a child");
        }
        self.ended
    }

    /// Waits until it exits by itself.
    #[track_caller]
    pub fn wait_exit(&mut self, deadline: Duration) -> ExitStatus {
        let what = format!("{} ends", self.name);
        wait::within(deadline, &what, || self.try_exit())
    }

    /// The standard error so far.
    #[must_use]
    pub fn log(&self) -> String {
        read(&self.log)
    }

    /// The standard output so far.
    #[must_use]
    pub fn stdout(&self) -> Vec<u8> {
        std::fs::read(stdout_of(&self.log)).unwrap_or_default()
    }

    /// The path of the file with its standard output.
    #[must_use]
    pub fn stdout_path(&self) -> PathBuf {
        stdout_of(&self.log)
    }

    /// Its name in messages.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How many bytes it has read from files and sockets.
    #[must_use]
    pub fn bytes_read(&self) -> Option<u64> {
        let counted = std::fs::read_to_string(format!("/proc/{}/io", self.child.id())).ok()?;
        counted.lines().find_map(|line| line.strip_prefix("rchar: "))?.parse().ok()
    }

    /// The maximum resident set size, in bytes.
    #[must_use]
    pub fn peak_memory(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
        let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
        Some(kib * 1024)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.try_exit().is_none() {
            self.kill9();
        }
        if std::thread::panicking() {
            let log = self.log();
            let mut from = log.len().saturating_sub(SHOWN);
            while !log.is_char_boundary(from) {
                from += 1;
            }
            let how = self.ended.map_or_else(|| "running".to_owned(), |status| status.to_string());
            println!("--- {} ({how}), {}:\n{}", self.name, self.log.display(), &log[from..]);
        }
    }
}

fn stdout_of(log: &Path) -> PathBuf {
    log.with_extension("out")
}

fn read(path: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned()
}
