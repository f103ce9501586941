//! SIGTERM and SIGINT become the request to stop.

use log::{info, warn};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::Shutdown;

/// The signals that ask for the end.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Takes the signals over, from now on. Needs the context of a tokio runtime with I/O.
    pub(crate) fn install() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// The first signal asks for a clean end, the second one ends the process at once. Runs beside the work, on another thread, so that
    /// work that hangs in a system call cannot keep the process from ending.
    pub(crate) async fn obey(mut self, shutdown: Shutdown) {
        let name = self.next().await;
        info!("{name}: stopping, after what is under way; a second signal stops at once");
        shutdown.request();
        let name = self.next().await;
        warn!("{name} again: stopping at once");
        std::process::exit(1);
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
