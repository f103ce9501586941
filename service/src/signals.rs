//! Signal handling: SIGTERM and SIGINT request shutdown, SIGHUP requests a scan of the files.

use std::sync::Arc;

use log::{info, warn};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;

use crate::Shutdown;

/// The handled signals.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    /// Installs the handlers. Needs the context of a tokio runtime with I/O.
    pub(crate) fn install() -> std::io::Result<Self> {
        // The default action would end the process at the limit of `ulimit -f`. With a handler, the
        // write fails instead, and the service reports it and waits.
        let _handler = signal(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw()))?;
        let [terminate, interrupt, hangup] = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()];
        Ok(Self { terminate: signal(terminate)?, interrupt: signal(interrupt)?, hangup: signal(hangup)? })
    }

    /// Requests a clean shutdown on the first signal, and exits immediately on the second. Runs on
    /// another thread than the work, so that work blocked in a system call cannot delay the exit.
    pub(crate) async fn obey(mut self, shutdown: Shutdown, hangup: Arc<Notify>) {
        let name = self.next(&hangup).await;
        info!("{name}: stopping after the work in progress; a second signal stops at once");
        shutdown.request();
        let name = self.next(&hangup).await;
        warn!("{name} again: stopping at once");
        std::process::exit(1);
    }

    async fn next(&mut self, hangup: &Notify) -> &'static str {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return "SIGTERM",
                _ = self.interrupt.recv() => return "SIGINT",
                _ = self.hangup.recv() => {
                    info!("SIGHUP: scanning the files");
                    hangup.notify_one();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Signals;
    use rustix::process::{Resource, getrlimit, setrlimit};
    use std::io::ErrorKind;
    use std::os::unix::fs::FileExt;

    #[test]
    fn a_write_beyond_the_limit_of_file_sizes_fails_and_ends_nothing() {
        const LIMIT: u64 = 16 << 20;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let _runtime = runtime.enter();
        let _signals = Signals::install().unwrap();
        let mut limit = getrlimit(Resource::Fsize);
        limit.current = Some(LIMIT);
        setrlimit(Resource::Fsize, limit).unwrap();
        let error = tempfile::tempfile().unwrap().write_at(b"x", LIMIT).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::FileTooLarge);
    }
}
