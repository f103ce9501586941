//! Servers that can all answer the same question, and the order in which they are asked.
//!
//! [`Candidates`] is the memory of a [`Discovery`](super::Discovery): Sentinels of one master, or
//! nodes of one cluster. [`Round`] is one pass over them within a deadline; the Sentinel and the
//! cluster discovery each run one per attempt to connect.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::config::Endpoint;
use crate::{Error, ErrorKind, Sent};

/// The servers to ask, most promising first. A server that did not answer moves to the end.
#[derive(Debug, Default)]
pub(super) struct Candidates(Mutex<Vec<Endpoint>>);

impl Candidates {
    fn lock(&self) -> MutexGuard<'_, Vec<Endpoint>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the servers in the order to ask them: the configured ones and the learned ones.
    pub(super) fn ordered(&self, configured: &[Endpoint]) -> Vec<Endpoint> {
        let mut servers = self.lock();
        add_missing(&mut servers, configured);
        servers.clone()
    }

    /// Replaces the learned servers. The order of those that stay is kept.
    pub(super) fn learn(&self, learned: &[Endpoint]) {
        let mut servers = self.lock();
        // `ordered` adds the configured ones again.
        let current: HashSet<_> = learned.iter().collect();
        servers.retain(|server| current.contains(server));
        add_missing(&mut servers, learned);
    }

    /// Moves a server to the end: it did not answer, or its answer was wrong.
    pub(super) fn deprioritize(&self, server: &Endpoint) {
        let mut servers = self.lock();
        if let Some(at) = servers.iter().position(|one| one == server) {
            let server = servers.remove(at);
            servers.push(server);
        }
    }
}

/// Appends the servers that are not in the list. Linear, because a cluster may have thousands.
fn add_missing(servers: &mut Vec<Endpoint>, others: &[Endpoint]) {
    let known: HashSet<_> = servers.iter().collect();
    let missing: Vec<_> = others.iter().filter(|server| !known.contains(server)).cloned().collect();
    servers.extend(missing);
}

/// One pass over the candidates, which ends with the first usable answer.
///
/// Each candidate gets an equal share of the remaining time, and one share is reserved for using
/// the answer. A dead server therefore costs one share, and is asked last in the next round.
#[derive(Debug)]
pub(super) struct Round<'a> {
    candidates: &'a Candidates,
    remaining: std::vec::IntoIter<Endpoint>,
    deadline: Instant,
    failures: Failures,
}

impl<'a> Round<'a> {
    /// Begins a round that must be over at `deadline`.
    pub(super) fn new(candidates: &'a Candidates, configured: &[Endpoint], deadline: Instant) -> Self {
        let remaining = candidates.ordered(configured).into_iter();
        Self { candidates, remaining, deadline, failures: Failures::default() }
    }

    /// Returns the next candidate, and the deadline for its answer.
    pub(super) fn next(&mut self) -> Option<(Endpoint, Instant)> {
        let now = Instant::now();
        let shares = u32::try_from(self.remaining.len()).unwrap_or(u32::MAX).saturating_add(1);
        let share = self.deadline.saturating_duration_since(now).checked_div(shares).unwrap_or_default();
        Some((self.remaining.next()?, now.checked_add(share).unwrap_or(self.deadline)))
    }

    /// Records that a candidate gave no usable answer.
    pub(super) fn failed(&mut self, server: &Endpoint, error: Error) {
        self.candidates.deprioritize(server);
        self.failures.add(error);
    }

    /// Returns why no candidate gave a usable answer.
    pub(super) fn into_error(self) -> Error {
        self.failures.into_error()
    }
}

/// Why no candidate gave a usable answer.
#[derive(Debug, Default)]
struct Failures {
    /// Most informative first.
    reasons: Vec<Error>,
    /// How many further reasons were dropped.
    dropped: usize,
}

/// How many reasons an error names.
const MAX_REASONS: usize = 8;

impl Failures {
    fn add(&mut self, error: Error) {
        // Several servers often fail for the same reason.
        if self.reasons.iter().any(|known| known.to_string() == error.to_string()) {
            return;
        }
        let place = self.reasons.partition_point(|known| Self::rank(known) <= Self::rank(&error));
        self.reasons.insert(place, error);
        if self.reasons.len() > MAX_REASONS {
            self.reasons.truncate(MAX_REASONS);
            self.dropped = self.dropped.saturating_add(1);
        }
    }

    /// Ranks replies before timeouts, and transient replies before permanent ones. The first reason
    /// decides the kind of the whole error, so that it is permanent only if all reasons are.
    fn rank(error: &Error) -> u8 {
        match error.kind() {
            ErrorKind::NotMaster => 0,
            kind if kind.closes_connection() => 2,
            kind if kind.is_transient() => 1,
            _ => 3,
        }
    }

    fn into_error(self) -> Error {
        let mut text = self.reasons.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        if self.dropped > 0 {
            text = format!("{text}; and {} more", self.dropped);
        }
        match self.reasons.into_iter().next() {
            Some(first) => first.with_text(text).with_sent(Sent::No),
            None => Error::new(ErrorKind::Usage, "no Sentinel and no cluster node is configured").with_sent(Sent::No),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn endpoints() -> Vec<Endpoint> {
        (1..=3).map(|port| Endpoint::tcp("h", port)).collect()
    }

    fn port(endpoint: &Endpoint) -> u16 {
        match endpoint {
            Endpoint::Tcp { port, .. } => *port,
            _ => 0,
        }
    }

    fn round(candidates: &Candidates, deadline: Instant) -> Round<'_> {
        Round::new(candidates, &endpoints(), deadline)
    }

    #[test]
    fn a_server_that_does_not_answer_is_asked_last_in_the_next_round() {
        let candidates = Candidates::default();
        let deadline = Instant::now() + Duration::from_secs(60);
        let mut pass = round(&candidates, deadline);
        let (first, _) = pass.next().unwrap();
        assert_eq!(port(&first), 1);
        pass.failed(&first, Error::closed());
        assert_eq!(port(&pass.next().unwrap().0), 2);
        let mut pass = round(&candidates, deadline);
        let order: Vec<_> = std::iter::from_fn(|| pass.next()).map(|(endpoint, _)| port(&endpoint)).collect();
        assert_eq!(order, [2, 3, 1]);
    }

    #[test]
    fn a_silent_server_costs_one_share_of_the_time() {
        let begun = Instant::now();
        let candidates = Candidates::default();
        let mut pass = round(&candidates, begun + Duration::from_secs(60));
        let shares: Vec<_> =
            std::iter::from_fn(|| pass.next()).map(|(_, until)| (until - begun).as_secs_f64().round() as u64).collect();
        assert_eq!(shares, [15, 20, 30]);
    }

    #[test]
    fn the_error_names_all_reasons_and_is_permanent_only_if_all_are() {
        let unknown = || Error::new(ErrorKind::UnknownMaster, "no such master");
        let failed = |errors: Vec<Error>| {
            let candidates = Candidates::default();
            let mut pass = round(&candidates, Instant::now());
            for error in errors {
                let (endpoint, _) = pass.next().unwrap();
                pass.failed(&endpoint, error);
            }
            pass.into_error()
        };
        let error = failed(vec![unknown(), Error::new(ErrorKind::Io, "refused"), unknown()]);
        assert!(error.is_transient(), "{error}");
        assert_eq!(error.to_string(), "refused; no such master");
        let error = failed(vec![unknown(), unknown()]);
        assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::UnknownMaster, "no such master"));
        let error = failed(vec![Error::new(ErrorKind::Io, "refused"), Error::new(ErrorKind::NotMaster, "a replica")]);
        assert_eq!(error.kind(), ErrorKind::NotMaster);
    }

    #[test]
    fn thousands_of_nodes_are_handled_in_linear_time() {
        let nodes = |from: u32| (from..from + 20_000).map(|n| Endpoint::tcp(format!("h{n}"), 1)).collect::<Vec<_>>();
        let candidates = Candidates::default();
        let begun = Instant::now();
        candidates.learn(&nodes(0));
        candidates.learn(&nodes(10_000));
        assert_eq!(candidates.ordered(&nodes(20_000)).len(), 30_000);
        let mut failures = Failures::default();
        for n in 0..20_000 {
            failures.add(Error::new(ErrorKind::Io, format!("node {n} is down")));
        }
        failures.add(Error::new(ErrorKind::NotMaster, "a replica"));
        let error = failures.into_error();
        assert_eq!((error.kind(), error.to_string().len() < 300), (ErrorKind::NotMaster, true), "{error}");
        assert!(error.to_string().ends_with("and 19993 more"), "{error}");
        // The quadratic version took minutes.
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    }
}
