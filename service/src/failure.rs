//! [`Failure`]: why a service exits before its work is done, and with which exit code.

use std::fmt;
use std::process::ExitCode;

use rustix::io::Errno;

/// Why a service exits before its work is done. The text is one line for the user: the operation,
/// its subject, the cause, and advice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// The work failed: exit code 1.
    Failed(String),
    /// The configuration is wrong and a retry cannot help: exit code 2. The text names the flag,
    /// its value, and the allowed values.
    Config(String),
}

impl Failure {
    /// The work failed: exit code 1.
    ///
    /// ```
    /// let failure = service::Failure::failed("the input shrank while it was read");
    /// assert_eq!(failure.to_string(), "the input shrank while it was read");
    /// ```
    pub fn failed(what: impl fmt::Display) -> Self {
        Self::Failed(what.to_string())
    }

    /// The configuration is wrong: exit code 2.
    ///
    /// ```
    /// let failure = service::Failure::config("--stream \"\": must not be empty");
    /// assert_eq!(failure.code(), 2);
    /// ```
    pub fn config(what: impl fmt::Display) -> Self {
        Self::Config(what.to_string())
    }

    /// The process's exit code.
    #[must_use]
    pub const fn code(&self) -> u8 {
        match self {
            Self::Failed(_) => 1,
            Self::Config(_) => 2,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Failed(text) | Self::Config(text)) = self;
        // Causes may contain line breaks; the message is one line.
        for (nth, line) in text.lines().map(str::trim).filter(|line| !line.is_empty()).enumerate() {
            if nth > 0 {
                f.write_str("; ")?;
            }
            f.write_str(line)?;
        }
        Ok(())
    }
}

impl std::error::Error for Failure {}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        match error.raw_os_error() == Some(Errno::MFILE.raw_os_error()) {
            true => Self::Failed(format!("{error}; raise the limit of open files (ulimit -n, LimitNOFILE=)")),
            false => Self::Failed(error.to_string()),
        }
    }
}

impl From<&Failure> for ExitCode {
    fn from(failure: &Failure) -> Self {
        Self::from(failure.code())
    }
}

#[cfg(test)]
mod tests {
    use super::Failure;

    #[test]
    fn a_failure_is_one_line() {
        assert_eq!(Failure::failed("one\n  two\r\n\n").to_string(), "one; two");
    }
}
