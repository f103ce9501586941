//! [`Interrupt`]: why the work with a connection ends before everything is sent.

use delivery::producer::{Changed, StepError};
use resp::ErrorKind;
use service::source_record::RecordFault;
use service::{Failure, SourceRecord};

/// Why the work with a connection ends before everything is sent. The next attempt begins by
/// loading the state from Redis.
#[derive(Debug)]
pub(crate) enum Interrupt {
    /// Redis refused a command, or the connection was lost.
    Redis(resp::Error),
    /// Redis refused a script. A transaction does the same, and tells better why it is refused.
    Script(resp::Error),
    /// Redis or the folder are not in the expected state.
    Changed(Changed),
    /// A file is unusable.
    Input(String),
    /// The reader waits for an administrator.
    Blocked(String),
    /// A retry cannot help.
    Failure(Failure),
    /// Shutdown was requested.
    Shutdown,
}

impl Interrupt {
    /// Turns an error of Redis that a retry cannot help into [`Self::Failure`].
    pub(crate) fn or_failure(self, record: &SourceRecord) -> Self {
        match self {
            Self::Redis(error) if error.kind() == ErrorKind::WrongType => Self::Failure(record.wrong_type(&error)),
            Self::Redis(error) if error.kind() == ErrorKind::NotAtomic => Self::Failure(Failure::failed(format!(
                "redis: {error}; stopping, because order can only be kept by transactions; {}",
                service::advice::redis(error.kind())
            ))),
            other => other,
        }
    }

    /// The source record is unusable.
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

impl From<StepError> for Interrupt {
    fn from(trouble: StepError) -> Self {
        match trouble {
            StepError::File { doing, path, error } => {
                let advice = service::advice::io(&error);
                Self::Input(format!("cannot {doing} {path}: {error}; trying again within 5 s; {advice}"))
            }
            StepError::Changed(changed) => Self::Changed(changed),
            StepError::Blocked(why) => Self::Blocked(why),
            StepError::Refused(why) => Self::Failure(Failure::config(why)),
        }
    }
}
