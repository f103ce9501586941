//! Child processes that end with this one.
//!
//! Each runs in a process group of its own. Ctrl-C at the terminal therefore reaches only this
//! process, which ends its children in order. If this process is killed, the kernel ends them (on
//! Linux): an internal command of this program requests a signal for the death of its parent and
//! then executes the child's command.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use clap::Args;
use rustix::process::{Pid, Signal, kill_process_group};

use crate::interrupt::Interrupt;
use crate::{During, Error, Result};

/// The name of the internal command.
pub(crate) const TIED: &str = "tied";

/// How long a process may take to end after SIGTERM.
const PATIENCE: Duration = Duration::from_secs(10);
/// The pause between two checks of a process.
const LOOK: Duration = Duration::from_millis(5);
/// Lines of standard error that are kept for error messages.
const KEPT_LINES: usize = 20;

#[derive(Args)]
pub(crate) struct TiedArgs {
    parent: i32,
    program: PathBuf,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<OsString>,
}

/// Executes the command, which exits when its parent does.
pub(crate) fn run_tied(args: &TiedArgs) -> Result<()> {
    #[cfg(target_os = "linux")]
    {
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
            .during(|| "asking for a signal at the parent's death".to_owned())?;
        // The parent may have died before the signal was requested.
        if rustix::process::getppid().map(|parent| parent.as_raw_nonzero().get()) != Some(args.parent) {
            return Err(Error::Interrupted);
        }
    }
    let error = Command::new(&args.program).args(&args.args).exec();
    Err(Error::new(format!("{}: {error}", args.program.display())))
}

/// A command in its own process group that exits with this process.
pub(crate) fn tied(program: impl AsRef<Path>) -> Command {
    // /proc leads to the program even after a build has replaced it.
    let this = Path::new("/proc/self/exe");
    let mut command = if this.exists() {
        let mut command = Command::new(this);
        command.arg(TIED).arg(std::process::id().to_string()).arg(program.as_ref());
        command
    } else {
        Command::new(program.as_ref())
    };
    command.process_group(0).stdin(Stdio::null());
    command
}

/// A running process; stopped when dropped.
pub(crate) struct Child {
    name: &'static str,
    child: std::process::Child,
    ended: Option<ExitStatus>,
    tail: Arc<Mutex<VecDeque<String>>>,
    /// Reads standard error.
    hearing: Option<JoinHandle<()>>,
}

impl Child {
    pub(crate) fn spawn(name: &'static str, command: &mut Command) -> Result<Self> {
        let child = command.spawn().during(|| format!("starting {name}"))?;
        Ok(Self { name, child, ended: None, tail: Arc::default(), hearing: None })
    }

    /// As [`Self::spawn`], and reads standard error line by line: passes each line to `seen`, and
    /// keeps the last ones for error messages.
    pub(crate) fn spawn_heard(
        name: &'static str,
        command: &mut Command,
        mut seen: impl FnMut(&str) + Send + 'static,
    ) -> Result<Self> {
        let mut this = Self::spawn(name, command.stderr(Stdio::piped()))?;
        let Some(stderr) = this.child.stderr.take() else { return Ok(this) };
        let tail = Arc::clone(&this.tail);
        this.hearing = Some(std::thread::spawn(move || {
            each_line(stderr, |line| {
                seen(line);
                let mut tail = tail.lock().unwrap_or_else(PoisonError::into_inner);
                if tail.len() == KEPT_LINES {
                    tail.pop_front();
                }
                tail.push_back(line.to_owned());
            });
        }));
        Ok(this)
    }

    /// Standard output, if it is a pipe.
    pub(crate) fn stdout(&mut self) -> Option<std::process::ChildStdout> {
        self.child.stdout.take()
    }

    /// Waits until the standard error of a process that has exited is read completely.
    pub(crate) fn heard_out(&mut self) {
        if let Some(hearing) = self.hearing.take() {
            let _ = hearing.join();
        }
    }

    /// The last line the process wrote to its standard error.
    pub(crate) fn last_line(&self) -> String {
        self.tail.lock().unwrap_or_else(PoisonError::into_inner).back().cloned().unwrap_or_default()
    }

    /// The exit status, if the process has exited.
    pub(crate) fn ended(&mut self) -> Result<Option<ExitStatus>> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().during(|| format!("waiting for {}", self.name))?;
        }
        Ok(self.ended)
    }

    /// Fails if the process has exited, whatever its exit code.
    pub(crate) fn must_run(&mut self) -> Result<()> {
        match self.ended()? {
            None => Ok(()),
            Some(status) => Err(self.failure(status)),
        }
    }

    /// Waits for the exit; fails unless the process succeeded.
    pub(crate) fn must_succeed(&mut self, interrupt: &Interrupt) -> Result<()> {
        loop {
            match self.ended()? {
                None => interrupt.pause(LOOK)?,
                Some(status) if status.success() => return Ok(()),
                Some(status) => return Err(self.failure(status)),
            }
        }
    }

    /// Asks the process to exit, and waits for it.
    pub(crate) fn stop(&mut self) -> Result<ExitStatus> {
        self.signal(Signal::TERM);
        let asked = Instant::now();
        while asked.elapsed() < PATIENCE {
            if let Some(status) = self.ended()? {
                return Ok(status);
            }
            std::thread::sleep(LOOK);
        }
        self.signal(Signal::KILL);
        let status = self.child.wait().during(|| format!("waiting for {}", self.name))?;
        self.ended = Some(status);
        Ok(status)
    }

    pub(crate) fn failure(&mut self, status: ExitStatus) -> Error {
        self.heard_out();
        let tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
        let mut why = format!("{} ended with {status}", self.name);
        for line in tail.iter() {
            why.push_str("\n    ");
            why.push_str(line);
        }
        Error::Failed(why)
    }

    fn signal(&mut self, signal: Signal) {
        if self.ended.is_some() {
            return;
        }
        let group = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        if let Some(group) = group {
            // It may have exited just now.
            let _ = kill_process_group(group, signal);
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if matches!(self.ended(), Ok(None)) {
            let _ = self.stop();
        }
    }
}

/// Passes each line to `seen` until the end; replaces invalid UTF-8.
pub(crate) fn each_line(from: impl Read, mut seen: impl FnMut(&str)) {
    let mut from = BufReader::new(from);
    let mut line = Vec::new();
    while from.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
        seen(String::from_utf8_lossy(&line).trim_end());
        line.clear();
    }
}
