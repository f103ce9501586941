//! Why the work with one connection ends before all is sent.

use delivery::producer::{Changed, Trouble};
use service::source_record::RecordFault;
use service::{Failure, SourceRecord};

/// Why the work with one connection ends before all is sent. The next attempt begins by looking at
/// what Redis holds.
#[derive(Debug)]
pub(crate) enum Interrupt {
    /// Redis refused, or the connection was lost.
    Redis(resp::Error),
    /// Redis or the folder hold something else than was expected.
    Changed(Changed),
    /// A file cannot be used.
    Input(String),
    /// Somebody has to do something first.
    Blocked(String),
    /// Trying again cannot help.
    Failure(Failure),
    /// The service was asked to stop.
    Shutdown,
}

impl Interrupt {
    /// A record cannot be used.
    pub(crate) fn of_record(record: &SourceRecord, fault: RecordFault) -> Self {
        match fault {
            RecordFault::Redis(error) => Self::Redis(error),
            RecordFault::Unreadable(error) => Self::Failure(record.unreadable(&error)),
        }
    }
}

impl From<resp::Error> for Interrupt {
    fn from(error: resp::Error) -> Self {
        Self::Redis(error)
    }
}

impl From<Trouble> for Interrupt {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::File { doing, path, error } => {
                let advice = service::advice::io(&error);
                Self::Input(format!("cannot {doing} {path}: {error}; trying again within 5 s; {advice}"))
            }
            Trouble::Changed(changed) => Self::Changed(changed),
            Trouble::Blocked(why) => Self::Blocked(why),
            Trouble::Refused(why) => Self::Failure(Failure::config(why)),
        }
    }
}
