//! Ctrl-C and SIGTERM: everything that was started is stopped and cleaned up.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::{During, Error, Result};

/// Exit code of a process that Ctrl-C ended.
const INTERRUPTED: i32 = 130;

/// Whether the user wants this to end. Clones see the same.
#[derive(Clone)]
pub(crate) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// From now on the first signal is noticed by [`Self::check`]; a second one ends the process at
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

    /// For tests: nobody interrupts.
    #[cfg(test)]
    pub(crate) fn never() -> Self {
        Self(Arc::default())
    }

    /// Whether a signal came.
    pub(crate) fn check(&self) -> Result<()> {
        if self.0.load(Ordering::Relaxed) { Err(Error::Interrupted) } else { Ok(()) }
    }

    /// The pause between two checks of something that cannot be awaited.
    pub(crate) fn pause(&self, time: Duration) -> Result<()> {
        std::thread::sleep(time);
        self.check()
    }
}
