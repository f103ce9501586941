//! Ctrl-C and SIGTERM: stops and cleans up everything that was started.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::{During, Error, Result};

/// Exit code of a process that was ended by Ctrl-C.
const INTERRUPTED: i32 = 130;

/// Whether the user has requested the end. Clones share the state.
#[derive(Clone)]
pub(crate) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Handles signals from now on: [`Self::check`] reports the first one, a second one exits at
    /// once.
    pub(crate) fn watch() -> Result<Self> {
        let seen = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            signal_hook::flag::register_conditional_shutdown(signal, INTERRUPTED, Arc::clone(&seen))
                .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&seen)))
                .during(|| "watching for signals".to_owned())?;
        }
        Ok(Self(seen))
    }

    /// For tests: no signals are handled.
    #[cfg(test)]
    pub(crate) fn never() -> Self {
        Self(Arc::default())
    }

    /// Fails if a signal was received.
    pub(crate) fn check(&self) -> Result<()> {
        if self.0.load(Ordering::Relaxed) { Err(Error::Interrupted) } else { Ok(()) }
    }

    /// Sleeps between two checks of a condition that cannot be awaited.
    pub(crate) fn pause(&self, time: Duration) -> Result<()> {
        std::thread::sleep(time);
        self.check()
    }
}
