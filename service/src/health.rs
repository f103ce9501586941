//! The state behind `/healthz` and `/readyz`: the heartbeat of the work, and whether Redis and the
//! file are usable.
//!
//! The work reports to [`Health`]; the HTTP endpoint and the status page read it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ::metrics::gauge;
use log::{debug, info, warn};
use resp::ErrorKind;

use crate::advice;
use crate::connector;
use crate::metrics::{self, REDIS_UP};
use crate::redis_info::ServerState;

/// Maximum age of the heartbeat before `/healthz` fails.
pub const HEARTBEAT_LIMIT: Duration = Duration::from_secs(30);

/// Maximum number of distinct reasons logged per outage; the rest are logged at debug level.
const REASONS_LOGGED: usize = 8;

/// The state of the service, as reported by its work. Clones share the state.
///
/// # Examples
///
/// ```
/// let health = service::Health::new();
/// health.progress();
/// assert!(health.alive().is_ok());
/// assert!(health.ready().is_err(), "neither Redis nor the file is known yet");
/// health.redis(Ok(()));
/// health.file(Ok(()));
/// assert!(health.ready().is_ok());
/// health.redis(Err("connection refused".into()));
/// assert_eq!(health.ready().unwrap_err(), "redis: connection refused");
/// ```
#[derive(Debug, Clone)]
pub struct Health {
    inner: Arc<Inner>,
    /// The index of the stream that this clone reports about.
    nth: usize,
    /// Prefix of reasons: the name of the stream, when there are several.
    stream: Arc<str>,
}

#[derive(Debug)]
struct Inner {
    limit: Duration,
    begun: Instant,
    /// The last heartbeat, in milliseconds after `begun`.
    heartbeat: AtomicU64,
    redis: Part,
    file: Part,
    /// The consumers of each stream's groups.
    groups: Mutex<BTreeMap<usize, Vec<Member>>>,
    server: Mutex<Option<(ServerState, Instant)>>,
    last_batch: Mutex<Option<LastBatch>>,
    /// How long the way from the reader to the output took, and when that was measured.
    latency: Mutex<Option<(Duration, Instant)>>,
}

/// The most recent batch, for the status page.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LastBatch {
    pub(crate) lines: u64,
    pub(crate) bytes: u64,
    pub(crate) took: Duration,
    pub(crate) done: Instant,
}

/// A consumer of a group, for the status page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The name of its group.
    pub group: String,
    /// The name of the consumer.
    pub name: String,
    /// Delivered entries that it has not acknowledged.
    pub pending: u64,
    /// Time since its last command.
    pub idle: Duration,
}

/// A dependency that must be usable before the service is ready.
#[derive(Debug)]
struct Part {
    name: &'static str,
    /// A gauge that is 1 while the dependency is usable, else 0.
    gauge: Option<&'static str>,
    state: Mutex<State>,
}

/// The work that a report is about: the index of its stream, and its name.
type Work = (usize, &'static str);

#[derive(Debug, Default)]
struct State {
    /// `None` until the first report.
    well: Option<Result<(), Fault>>,
    /// Classes of faults logged since the dependency was last usable.
    logged: Vec<Cow<'static, str>>,
    /// Work that fails now, and why.
    failing: Vec<(Work, Fault)>,
    /// The last report of each stream; `None` before its first one.
    reported: BTreeMap<usize, Option<Result<(), Fault>>>,
}

/// Why a dependency is unusable.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Fault {
    /// The message for the user.
    text: String,
    /// Groups the different messages of one fault: a killed server first resets connections, then
    /// refuses them.
    class: Cow<'static, str>,
}

impl Fault {
    fn of_redis(error: &resp::Error) -> Self {
        let class = match error.kind() {
            ErrorKind::Io | ErrorKind::Timeout | ErrorKind::Closed => "connection".into(),
            kind => metrics::name_of(kind).into(),
        };
        Self { text: connector::describe(error), class }
    }

    fn text(text: String) -> Self {
        Self { class: text.clone().into(), text }
    }

    /// Prefixes the message with the stream that it is about.
    fn about(mut self, stream: &str) -> Self {
        self.text.insert_str(0, stream);
        self
    }
}

impl Health {
    /// Nothing is known yet; the first heartbeat is now.
    #[must_use]
    pub fn new() -> Self {
        Self::with_limit(HEARTBEAT_LIMIT)
    }

    /// As [`Self::new`], with another maximum age of the heartbeat.
    #[must_use]
    pub fn with_limit(limit: Duration) -> Self {
        let inner = Inner {
            limit,
            begun: Instant::now(),
            heartbeat: AtomicU64::new(0),
            redis: Part::new("redis", Some(REDIS_UP)),
            file: Part::new("file", None),
            groups: Mutex::default(),
            server: Mutex::default(),
            last_batch: Mutex::default(),
            latency: Mutex::default(),
        };
        Self { inner: Arc::new(inner), nth: 0, stream: Arc::default() }
    }

    /// A clone that reports about stream number `nth`. The service is ready when all streams are.
    /// Reasons carry the name of the stream.
    ///
    /// ```
    /// let health = service::Health::new();
    /// let (one, two) = (health.for_stream(0, "s:{0}"), health.for_stream(1, "s:{1}"));
    /// health.file(Ok(()));
    /// one.redis(Ok(()));
    /// assert!(health.ready().is_err(), "the second stream has not reported yet");
    /// two.redis(Err("away".into()));
    /// one.redis(Ok(()));
    /// assert_eq!(health.ready().unwrap_err(), "redis: stream s:{1}: away");
    /// two.redis(Ok(()));
    /// assert!(health.ready().is_ok());
    /// ```
    #[must_use]
    pub fn for_stream(&self, nth: usize, stream: &str) -> Self {
        self.inner.redis.lock().reported.entry(nth).or_default();
        Self { inner: Arc::clone(&self.inner), nth, stream: format!("stream {stream}: ").into() }
    }

    /// A clone that reports about one of many sources. The service may be ready before a source has
    /// reported, but not while one fails.
    #[must_use]
    pub fn for_source(&self, nth: usize, name: &str) -> Self {
        Self { inner: Arc::clone(&self.inner), nth, stream: format!("source {name}: ").into() }
    }

    /// A clone that reports about a node of a cluster, as [`Self::for_source`] does about a source.
    #[must_use]
    pub(crate) fn for_node(&self, nth: usize, address: &str) -> Self {
        // Sources are counted from below.
        let nth = usize::MAX.saturating_sub(nth);
        Self { inner: Arc::clone(&self.inner), nth, stream: format!("node {address}: ").into() }
    }

    /// Withdraws all reports of this clone about Redis.
    pub(crate) fn forget(&self) {
        self.inner.redis.forget(self.nth);
    }

    /// Records a heartbeat. Call it for every batch, and every few seconds while waiting.
    pub fn progress(&self) {
        let now = u64::try_from(self.inner.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.inner.heartbeat.store(now, Ordering::Relaxed);
    }

    /// Reports whether Redis is usable. Logs each change of state once.
    ///
    /// `Ok` has no effect while the work of some stream fails: see [`Self::redis_fails`].
    pub fn redis(&self, well: Result<(), String>) {
        self.inner.redis.set(self.nth, well.map_err(|reason| Fault::text(reason).about(&self.stream)));
    }

    /// Reports that Redis does not do what the work `whose` needs. Redis may still accept
    /// connections and serve other commands, so the fault persists until [`Self::redis_works`].
    /// Otherwise each new connection would report Redis as usable.
    ///
    /// ```
    /// let health = service::Health::new();
    /// health.file(Ok(()));
    /// health.redis_fails("acknowledging", "no right to XACK".into());
    /// health.redis(Ok(()));
    /// assert_eq!(health.ready().unwrap_err(), "redis: no right to XACK");
    /// health.redis_works("acknowledging");
    /// assert!(health.ready().is_ok());
    /// ```
    pub fn redis_fails(&self, whose: &'static str, reason: String) {
        self.inner.redis.fails((self.nth, whose), Fault::text(reason).about(&self.stream));
    }

    /// As [`Self::redis_fails`], for an error of the client. One fault is logged once, whichever
    /// errors it causes.
    pub fn redis_failed(&self, whose: &'static str, error: &resp::Error) {
        self.inner.redis.fails((self.nth, whose), Fault::of_redis(error).about(&self.stream));
    }

    /// Reports that there is no connection to Redis.
    pub(crate) fn redis_down(&self, error: &resp::Error) {
        self.inner.redis.set(self.nth, Err(Fault::of_redis(error).about(&self.stream)));
    }

    /// Reports that Redis does what the work `whose` needs.
    pub fn redis_works(&self, whose: &'static str) {
        self.inner.redis.works((self.nth, whose));
    }

    /// Reports whether the file is usable. Logs each change of state once.
    pub fn file(&self, well: Result<(), String>) {
        // All streams use the same file.
        self.inner.file.set(self.nth, well.map_err(Fault::text));
    }

    /// Reports that the file is unusable because of `error`. A fault of the disk is logged once,
    /// however many files are on it.
    ///
    /// ```
    /// use std::io::{Error, ErrorKind};
    /// let health = service::Health::new();
    /// health.file_failed("a.log: no space".into(), &Error::from(ErrorKind::StorageFull));
    /// assert_eq!(health.file_fault().as_deref(), Some("a.log: no space"));
    /// ```
    pub fn file_failed(&self, reason: String, error: &io::Error) {
        let is_of_disk = matches!(
            error.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::ReadOnlyFilesystem
        );
        let fault = match is_of_disk {
            true => Fault { text: reason, class: error.kind().to_string().into() },
            false => Fault::text(reason),
        };
        self.inner.file.set(self.nth, Err(fault));
    }

    /// The last fault of its file that this clone reported; `None` if the file is usable.
    #[must_use]
    pub fn file_fault(&self) -> Option<String> {
        let state = self.inner.file.lock();
        let reported = state.reported.get(&self.nth)?.as_ref()?;
        reported.as_ref().err().map(|fault| fault.text.clone())
    }

    /// Sets the current consumers of this stream's groups.
    pub fn set_group(&self, members: Vec<Member>) {
        self.inner.groups.lock().unwrap_or_else(PoisonError::into_inner).insert(self.nth, members);
    }

    /// The consumers of all streams' groups, as last reported.
    pub(crate) fn group(&self) -> Vec<Member> {
        let groups = self.inner.groups.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<Member> = Vec::new();
        for member in groups.values().flatten() {
            match all.iter_mut().find(|known| known.group == member.group && known.name == member.name) {
                Some(known) => {
                    known.pending = known.pending.saturating_add(member.pending);
                    known.idle = known.idle.min(member.idle);
                }
                None => all.push(member.clone()),
            }
        }
        all
    }

    /// Sets what the server reports about itself; `None` if it denies `INFO`.
    pub fn set_server(&self, state: Option<ServerState>) {
        let mut known = self.inner.server.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(state) = &state
            && known.as_ref().is_none_or(|(known, _)| known.policy != state.policy)
            && let Some(what) = advice::evicts(state.max_memory.unwrap_or(0), &state.policy)
        {
            warn!(event = "eviction", policy = state.policy; "redis: {what}; {}", advice::NO_EVICTION);
        }
        *known = state.map(|state| (state, Instant::now()));
    }

    /// What the server reported about itself, and when.
    pub(crate) fn server(&self) -> Option<(ServerState, Instant)> {
        self.inner.server.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Records a finished batch.
    pub fn batch(&self, lines: u64, bytes: u64, took: Duration) {
        let last = LastBatch { lines, bytes, took, done: Instant::now() };
        *self.inner.last_batch.lock().unwrap_or_else(PoisonError::into_inner) = Some(last);
    }

    /// How long the way from the reader to the output takes now.
    pub fn set_latency(&self, latency: Duration) {
        *self.inner.latency.lock().unwrap_or_else(PoisonError::into_inner) = Some((latency, Instant::now()));
    }

    /// How long that way took when it was last measured, and when that was.
    pub(crate) fn latency(&self) -> Option<(Duration, Instant)> {
        *self.inner.latency.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The most recent batch.
    pub(crate) fn last_batch(&self) -> Option<LastBatch> {
        *self.inner.last_batch.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether Redis was usable at the last report.
    pub(crate) fn redis_is_well(&self) -> bool {
        self.inner.redis.reason().is_none()
    }

    /// Whether the work makes progress, independently of Redis.
    ///
    /// # Errors
    ///
    /// The body of `/healthz` when the heartbeat is older than the limit.
    pub fn alive(&self) -> Result<(), String> {
        let last = Duration::from_millis(self.inner.heartbeat.load(Ordering::Relaxed));
        let age = self.inner.begun.elapsed().saturating_sub(last);
        if age < self.inner.limit {
            return Ok(());
        }
        Err(format!("no progress for {} s (limit {} s)", age.as_secs(), self.inner.limit.as_secs_f64()))
    }

    /// Whether Redis and the file are usable.
    ///
    /// # Errors
    ///
    /// The body of `/readyz`: one reason per unusable dependency, joined by `; `.
    pub fn ready(&self) -> Result<(), String> {
        let reasons: Vec<String> = self.parts().filter_map(Part::reason).collect();
        if reasons.is_empty() { Ok(()) } else { Err(reasons.join("; ")) }
    }

    /// Name and state of each dependency, for the status page.
    pub(crate) fn states(&self) -> impl Iterator<Item = (&'static str, String)> {
        self.parts().map(|part| {
            let shown = match &part.lock().well {
                None => "not known yet".to_owned(),
                Some(Ok(())) => "ok".to_owned(),
                Some(Err(fault)) => fault.text.clone(),
            };
            (part.name, shown)
        })
    }

    fn parts(&self) -> impl Iterator<Item = &Part> {
        [&self.inner.redis, &self.inner.file].into_iter()
    }
}

impl Default for Health {
    fn default() -> Self {
        Self::new()
    }
}

impl Part {
    const fn new(name: &'static str, gauge: Option<&'static str>) -> Self {
        let state = State { well: None, logged: Vec::new(), failing: Vec::new(), reported: BTreeMap::new() };
        Self { name, gauge, state: Mutex::new(state) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fails(&self, whose: Work, fault: Fault) {
        let mut state = self.lock();
        state.failing.retain(|(other, _)| *other != whose);
        state.failing.push((whose, fault.clone()));
        self.change(&mut state, Some(Err(fault)));
    }

    fn works(&self, whose: Work) {
        let mut state = self.lock();
        let before = state.failing.len();
        state.failing.retain(|(other, _)| *other != whose);
        if state.failing.len() < before {
            let whole = state.whole();
            self.change(&mut state, whole);
        }
    }

    fn set(&self, nth: usize, well: Result<(), Fault>) {
        let mut state = self.lock();
        state.reported.insert(nth, Some(well.clone()));
        let whole = if well.is_ok() { state.whole() } else { Some(well) };
        self.change(&mut state, whole);
    }

    fn forget(&self, nth: usize) {
        let mut state = self.lock();
        let before = (state.reported.len(), state.failing.len());
        state.reported.remove(&nth);
        state.failing.retain(|((other, _), _)| *other != nth);
        if (state.reported.len(), state.failing.len()) != before {
            let whole = state.whole();
            self.change(&mut state, whole);
        }
    }

    /// Sets the combined state, and logs a change. `None`: some stream has not reported yet.
    fn change(&self, state: &mut State, well: Option<Result<(), Fault>>) {
        let Some(well) = well.filter(|well| state.well.as_ref() != Some(well)) else { return };
        // Set the gauge first: a client that sees the change in the log or in `/readyz` then reads
        // a gauge that agrees.
        if let Some(name) = self.gauge {
            gauge!(name).set(if well.is_ok() { 1.0 } else { 0.0 });
        }
        match &well {
            Ok(()) => {
                info!(event = "ready", part = self.name; "{}: ready", self.name);
                state.logged.clear();
            }
            Err(Fault { text, class }) if !state.logged.contains(class) && state.logged.len() < REASONS_LOGGED => {
                warn!(event = "fault", part = self.name, kind = class.as_ref(); "{}: {text}", self.name);
                state.logged.push(class.clone());
            }
            Err(Fault { text, class }) => {
                debug!(event = "fault", part = self.name, kind = class.as_ref(); "{}: {text}", self.name);
            }
        }
        state.well = Some(well);
    }

    fn reason(&self) -> Option<String> {
        match &self.lock().well {
            None => Some(format!("{}: not known yet", self.name)),
            Some(Ok(())) => None,
            Some(Err(fault)) => Some(format!("{}: {}", self.name, fault.text)),
        }
    }
}

impl State {
    /// Combines all reports: usable, or the first fault. `None` while some stream has not reported.
    fn whole(&self) -> Option<Result<(), Fault>> {
        if let Some((_, fault)) = self.failing.last() {
            return Some(Err(fault.clone()));
        }
        let mut known = true;
        for report in self.reported.values() {
            match report {
                Some(Err(fault)) => return Some(Err(fault.clone())),
                Some(Ok(())) => {}
                None => known = false,
            }
        }
        known.then_some(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_heartbeat_fails_liveness_and_a_new_one_recovers() {
        let health = Health::with_limit(Duration::ZERO);
        let reason = health.alive().unwrap_err();
        assert!(reason.starts_with("no progress for 0 s"), "{reason}");

        let health = Health::new();
        health.inner.heartbeat.store(0, Ordering::Relaxed);
        assert_eq!(health.alive(), Ok(()));
        health.redis(Err("away".into()));
        assert_eq!(health.alive(), Ok(()), "alive does not depend on Redis");
    }

    #[test]
    fn ready_names_every_unusable_dependency() {
        let health = Health::new();
        health.redis(Err("away".into()));
        assert_eq!(health.ready().unwrap_err(), "redis: away; file: not known yet");
        health.file(Err("missing".into()));
        assert_eq!(health.ready().unwrap_err(), "redis: away; file: missing");
        health.redis(Ok(()));
        assert_eq!(health.ready().unwrap_err(), "file: missing");
        health.file(Ok(()));
        assert_eq!(health.ready(), Ok(()));
    }

    #[test]
    fn a_full_disk_is_one_fault_of_all_files_on_it() {
        let health = Health::new();
        let sources: Vec<_> = (1..=20).map(|nth| health.for_source(nth, "s")).collect();
        let logged = || health.inner.file.lock().logged.len();
        for (nth, source) in sources.iter().enumerate() {
            source.file_failed(format!("{nth}.log: no space"), &io::ErrorKind::StorageFull.into());
        }
        assert_eq!(logged(), 1);
        sources[1].file_failed("1.log: no right".to_owned(), &io::ErrorKind::PermissionDenied.into());
        sources[2].file_failed("2.log: no right".to_owned(), &io::ErrorKind::PermissionDenied.into());
        assert_eq!(logged(), 3, "another file, another fault");
        assert_eq!(sources[0].file_fault().as_deref(), Some("0.log: no space"));
        sources[0].file(Ok(()));
        assert_eq!(sources[0].file_fault(), None);
        assert!(health.ready().unwrap_err().contains("1.log: no right"));
    }

    #[test]
    fn connection_errors_share_one_fault_class() {
        let connect = |port| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let config = resp::Config::from_url(&format!("redis://127.0.0.1:{port}")).unwrap();
            runtime.block_on(resp::Connection::connect(&config)).unwrap_err()
        };
        let health = Health::new();
        let (one, two) = (health.for_stream(0, "s:{0}"), health.for_stream(1, "s:{1}"));
        one.redis_down(&connect(1));
        two.redis_failed("adding", &connect(2));
        assert_eq!(health.inner.redis.lock().logged, ["connection"]);
        one.redis_fails("adding", "no room".into());
        assert_eq!(health.inner.redis.lock().logged, ["connection", "no room"]);
    }

    #[test]
    fn flapping_reasons_are_logged_a_bounded_number_of_times() {
        let health = Health::new();
        for nth in 0..1000 {
            health.redis(Err(format!("reason {}", nth % 20)));
        }
        assert_eq!(health.inner.redis.lock().logged.len(), REASONS_LOGGED);
        health.redis(Ok(()));
        assert!(health.inner.redis.lock().logged.is_empty());
    }
}
