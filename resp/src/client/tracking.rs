//! Client-side caching across reconnects. Calls record it; the driver enables it again.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::command;

/// The maximum number of commands to remember. Each may add prefixes.
const MAX_COMMANDS: usize = 64;

/// The commands that enabled client-side caching (`CLIENT TRACKING ON`) on a connection, so that
/// the driver can repeat them on the next one.
#[derive(Debug, Default)]
pub(super) struct Tracking(Mutex<VecDeque<Bytes>>);

impl Tracking {
    fn lock(&self) -> MutexGuard<'_, VecDeque<Bytes>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records a command that is about to be sent. Returns a token for [`failed`](Self::failed) if
    /// it enables tracking.
    pub(super) fn note(&self, encoded: &[u8]) -> Option<Bytes> {
        let is_on = command::tracking(encoded)?;
        let mut commands = self.lock();
        if !is_on {
            commands.clear();
            return None;
        }
        commands.retain(|known| known != encoded);
        if commands.len() == MAX_COMMANDS {
            commands.pop_front();
        }
        let encoded = Bytes::copy_from_slice(encoded);
        commands.push_back(encoded.clone());
        Some(encoded)
    }

    /// Forgets a command that was refused, or did not reach the server.
    pub(super) fn failed(&self, encoded: &Bytes) {
        self.lock().retain(|known| known != encoded);
    }

    /// Returns the commands to repeat on a new connection.
    pub(super) fn commands(&self) -> Vec<Bytes> {
        self.lock().iter().cloned().collect()
    }
}
