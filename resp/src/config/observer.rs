//! Hooks for tracing and metrics. [`Connection`](crate::Connection) and the clients report to the
//! configuration's [`Observer`].

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Config;
use crate::Error;

/// Receives the results of calls and attempts to connect, for metrics and traces. See
/// [`Config::observer`].
///
/// The task that makes the call also calls the observer, so it must be quick. A call whose future
/// is dropped is not reported.
///
/// ```
/// use std::sync::Arc;
/// use std::sync::atomic::{AtomicU64, Ordering};
/// use resp::testing::{Script, ScriptedServer, reply};
/// use resp::{CompletedCall, Client, Observer, cmd};
///
/// #[derive(Default)]
/// struct Counts {
///     calls: AtomicU64,
///     errors: AtomicU64,
/// }
///
/// impl Observer for Counts {
///     fn called(&self, call: &CompletedCall<'_>) {
///         self.calls.fetch_add(1, Ordering::Relaxed);
///         if let Some(error) = call.error {
///             eprintln!("{} failed after {:?}: {error}", call.name, call.took);
///             self.errors.fetch_add(1, Ordering::Relaxed);
///         }
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), resp::Error> {
/// let counts = Arc::new(Counts::default());
/// let server = ScriptedServer::new([Script::new().on_name("GET", reply::error("WRONGTYPE a hash"))]);
/// let client = Client::connect(&server.config().observer(Arc::clone(&counts))).await?;
/// assert!(client.send(cmd::<String>("GET").arg("name")).await.is_err());
/// assert_eq!(counts.calls.load(Ordering::Relaxed), 1);
/// assert_eq!(counts.errors.load(Ordering::Relaxed), 1);
/// # Ok(())
/// # }
/// ```
pub trait Observer: Send + Sync {
    /// A command, pipeline or transaction was answered, or has failed.
    fn called(&self, call: &CompletedCall<'_>) {
        let _ = call;
    }

    /// An attempt to connect has ended.
    fn connected(&self, attempt: &ConnectAttempt<'_>) {
        let _ = attempt;
    }
}

impl<O: Observer + ?Sized> Observer for Arc<O> {
    fn called(&self, call: &CompletedCall<'_>) {
        (**self).called(call);
    }

    fn connected(&self, attempt: &ConnectAttempt<'_>) {
        (**self).connected(attempt);
    }
}

/// A call that has ended.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct CompletedCall<'a> {
    /// The command's name, such as `XADD`; `pipeline` or `MULTI` for several.
    pub name: &'a str,
    /// How many commands it sent.
    pub commands: usize,
    /// How long it took, including the wait for room and for a connection.
    pub took: Duration,
    /// Why it failed. Errors of single commands in a pipeline are not reported.
    pub error: Option<&'a Error>,
}

/// An attempt to connect that has ended.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct ConnectAttempt<'a> {
    /// The configuration. Its text does not contain the password.
    pub config: &'a Config,
    /// How long it took.
    pub took: Duration,
    /// Why it failed.
    pub error: Option<&'a Error>,
}

/// The observer of a configuration, if it has one.
#[derive(Clone, Default)]
pub(crate) struct Observed(Option<Arc<dyn Observer>>);

impl Observed {
    pub(crate) fn by(observer: impl Observer + 'static) -> Self {
        Self(Some(Arc::new(observer)))
    }

    /// Reports a call.
    pub(crate) async fn call<T>(
        &self,
        name: &str,
        commands: usize,
        call: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let Some(observer) = &self.0 else { return call.await };
        let begun = Instant::now();
        let done = call.await;
        let name = crate::redact::command_name(name);
        observer.called(&CompletedCall { name, commands, took: begun.elapsed(), error: done.as_ref().err() });
        done
    }

    /// Reports an attempt to connect.
    pub(crate) async fn connect<T>(
        &self,
        config: &Config,
        attempt: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let Some(observer) = &self.0 else { return attempt.await };
        let begun = Instant::now();
        let done = attempt.await;
        observer.connected(&ConnectAttempt { config, took: begun.elapsed(), error: done.as_ref().err() });
        done
    }
}

impl fmt::Debug for Observed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Observer" } else { "none" })
    }
}
