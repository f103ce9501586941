//! The `reader` and `writer` processes: flags, logs, metrics, signals.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use rustix::process::Signal;

use crate::binaries::Program;
use crate::http::{self, Metrics};
use crate::process::Process;
use crate::wait;

/// Timeout of a run that must exit by itself.
const RUN: Duration = Duration::from_secs(240);

/// A service to be started, as `rig.reader()` and `rig.writer()` return.
#[derive(Debug, Clone)]
#[must_use = "nothing runs before start() or run()"]
pub struct Launch {
    program: Program,
    /// A command that wraps it.
    under: Vec<String>,
    words: Vec<OsString>,
    flags: BTreeMap<String, Option<String>>,
    env: BTreeMap<String, OsString>,
    logs: PathBuf,
}

impl Launch {
    /// `program` without flags; its logs go to the folder `logs`.
    pub fn new(program: Program, logs: &Path) -> Self {
        Self {
            program,
            under: Vec::new(),
            words: Vec::new(),
            flags: BTreeMap::new(),
            env: BTreeMap::new(),
            logs: logs.to_owned(),
        }
    }

    /// Sets the value of a flag, and replaces an earlier value.
    pub fn set(mut self, flag: &str, value: impl AsRef<std::ffi::OsStr>) -> Self {
        self.flags.insert(flag.to_owned(), Some(value.as_ref().to_string_lossy().into_owned()));
        self
    }

    /// Sets a flag without a value.
    pub fn flag(mut self, flag: &str) -> Self {
        self.flags.insert(flag.to_owned(), None);
        self
    }

    /// Removes a flag.
    pub fn unset(mut self, flag: &str) -> Self {
        self.flags.remove(flag);
        self
    }

    /// `--once`.
    pub fn once(self) -> Self {
        self.flag("--once")
    }

    /// Adds a word before all flags: a subcommand, or a flag that is given several times.
    pub fn word(mut self, word: impl AsRef<std::ffi::OsStr>) -> Self {
        self.words.push(word.as_ref().to_owned());
        self
    }

    /// Runs it under another command that executes it, as `setpriv` and `nice` do.
    pub fn under(mut self, command: &[&str]) -> Self {
        self.under = command.iter().map(|&word| word.to_owned()).collect();
        self
    }

    /// Sets an environment variable.
    pub fn env(mut self, name: &str, value: impl AsRef<std::ffi::OsStr>) -> Self {
        self.env.insert(name.to_owned(), value.as_ref().to_owned());
        self
    }

    /// Starts the service.
    #[must_use]
    pub fn start(&self) -> Service {
        let mut args = self.words.clone();
        for (flag, value) in &self.flags {
            args.push(flag.into());
            args.extend(value.as_ref().map(OsString::from));
        }
        let name = self.program.name();
        let log = (1..).map(|n| self.logs.join(format!("{name}-{n}.log"))).find(|log| !log.exists());
        let log = log.expect("there is always a larger number");
        let mut path = self.program.path();
        if let [command, rest @ ..] = &self.under[..] {
            args.insert(0, path.into_os_string());
            args.splice(0..0, rest.iter().map(OsString::from));
            path = PathBuf::from(command);
        }
        Service { process: Process::start(name, &path, args, &self.env, log) }
    }

    /// Starts the service, and waits until it exits by itself.
    #[track_caller]
    #[must_use]
    pub fn run(&self) -> Service {
        let mut service = self.start();
        service.wait_exit(RUN);
        service
    }

    /// Starts the service, and waits until it exits by itself with code 0.
    #[track_caller]
    pub fn run_ok(&self) {
        let mut service = self.run();
        assert_eq!(service.code(), Some(0), "{}: {}", self.program.name(), service.log());
    }
}

/// A started service.
#[derive(Debug)]
pub struct Service {
    process: Process,
}

impl Service {
    /// The process.
    #[must_use]
    pub const fn process(&self) -> &Process {
        &self.process
    }

    /// SIGKILL.
    pub fn kill9(&mut self) {
        self.process.kill9();
    }

    /// Sends SIGTERM, and waits for exit code 0.
    #[track_caller]
    pub fn stop(&mut self) {
        self.stop_with(0);
    }

    /// Sends SIGTERM, and waits for this exit code.
    pub fn stop_with(&mut self, code: i32) {
        // Before the endpoint answers, the signal handlers may not be installed yet.
        let _ = self.healthz();
        self.sigterm();
        self.wait_exit(Duration::from_secs(30));
        assert_eq!(self.code(), Some(code), "{} after SIGTERM: {}", self.process.name(), self.log());
    }

    /// SIGTERM.
    pub fn sigterm(&self) {
        self.process.signal(Signal::TERM);
    }

    /// SIGHUP.
    pub fn sighup(&self) {
        self.process.signal(Signal::HUP);
    }

    /// SIGSTOP.
    pub fn freeze(&self) {
        self.process.signal(Signal::STOP);
    }

    /// SIGCONT.
    pub fn thaw(&self) {
        self.process.signal(Signal::CONT);
    }

    /// Waits for the exit.
    #[track_caller]
    pub fn wait_exit(&mut self, deadline: Duration) -> ExitStatus {
        self.process.wait_exit(deadline)
    }

    /// The exit code, if it has exited and was not killed.
    pub fn code(&mut self) -> Option<i32> {
        self.process.try_exit().and_then(|status| status.code())
    }

    /// Whether it is running.
    pub fn runs(&mut self) -> bool {
        self.process.try_exit().is_none()
    }

    /// The standard error so far.
    #[must_use]
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Waits for a line on standard error that contains all of `parts`, ignoring case. Returns the
    /// line.
    #[track_caller]
    pub fn wait_for_log(&mut self, parts: &[&str]) -> String {
        let what = format!("{} says {parts:?}", self.process.name());
        wait::within(wait::SOON, &what, || {
            let ended = self.process.try_exit();
            let found = self.find_log(parts);
            assert!(found.is_some() || ended.is_none(), "it ended before: {what}");
            found
        })
    }

    /// The first line on standard error that contains all of `parts`, ignoring case.
    #[must_use]
    pub fn find_log(&self, parts: &[&str]) -> Option<String> {
        let holds = |line: &str| {
            let line = line.to_lowercase();
            parts.iter().all(|part| line.contains(&part.to_lowercase()))
        };
        self.log().lines().find(|line| holds(line)).map(str::to_owned)
    }

    /// The address of its HTTP endpoint, from its log.
    #[track_caller]
    pub fn http_addr(&mut self) -> SocketAddr {
        let line = self.wait_for_log(&["listening on http://"]);
        let (_, addr) = line.rsplit_once("http://").expect("just searched for");
        addr.trim().parse().unwrap_or_else(|_| panic!("an address: {line}"))
    }

    /// A page of its HTTP endpoint: status and body.
    #[track_caller]
    pub fn get(&mut self, path: &str) -> (u16, String) {
        let addr = self.http_addr();
        http::get(addr, path).unwrap_or_else(|error| panic!("{}: GET {path}: {error}", self.process.name()))
    }

    /// `/healthz`.
    #[track_caller]
    pub fn healthz(&mut self) -> (u16, String) {
        self.get("/healthz")
    }

    /// `/readyz`.
    #[track_caller]
    pub fn readyz(&mut self) -> (u16, String) {
        self.get("/readyz")
    }

    /// `/metrics`.
    #[track_caller]
    pub fn metrics(&mut self) -> Metrics {
        Metrics::parse(&self.get("/metrics").1)
    }

    /// One metric, summed over its labels.
    #[track_caller]
    pub fn metric(&mut self, name: &str) -> f64 {
        let metrics = self.metrics();
        metrics.get(name).unwrap_or_else(|| panic!("{} has no metric {name}", self.process.name()))
    }

    /// Waits until a metric satisfies `condition`. Returns its value.
    #[track_caller]
    pub fn wait_for_metric(&mut self, name: &str, condition: impl Fn(f64) -> bool) -> f64 {
        let what = format!("metric {name} of {}", self.process.name());
        wait::within(wait::SOON, &what, || Some(self.metric(name)).filter(|value| condition(*value)))
    }
}
