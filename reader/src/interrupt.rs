//! Why a session ends before the work does.

use service::Failure;
use std::io;
use std::path::Path;

/// Why a session ends before the work does. The next one begins by looking at what Redis holds.
#[derive(Debug)]
pub(crate) enum Interrupt {
    /// Redis refused, or the connection was lost.
    Redis(resp::Error),
    /// Redis holds something else than was believed: another reader was faster, or data was lost.
    Changed(&'static str),
    /// Redis refused an ID that nobody but a foreign producer can have taken.
    Refused,
    /// The input cannot be read.
    Input(String),
    /// Trying again cannot help.
    Failure(Failure),
    /// The service was asked to stop.
    Shutdown,
}

impl Interrupt {
    /// An error on a file.
    pub(crate) fn input(doing: &str, path: &Path, error: &io::Error) -> Self {
        let advice = service::words::io(error);
        Self::Input(format!("cannot {doing} {}: {error}; trying again within 5 s; {advice}", path.display()))
    }
}

impl From<resp::Error> for Interrupt {
    fn from(error: resp::Error) -> Self {
        Self::Redis(error)
    }
}

impl From<Failure> for Interrupt {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}
