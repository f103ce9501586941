//! Servers that can all answer the same question, asked in turn.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::config::Endpoint;
use crate::{Error, ErrorKind, Sent};

/// In which order servers are asked: one that did not answer goes to the end. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Known(Arc<Mutex<Vec<Endpoint>>>);

impl Known {
    /// Whom to ask, in order: those that were given, and those that were learned.
    pub(crate) fn in_order(&self, given: &[Endpoint]) -> Vec<Endpoint> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        add_missing(&mut known, given);
        known.clone()
    }

    /// Others can answer too.
    pub(crate) fn learn(&self, others: &[Endpoint]) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Nodes come and go; those that were given are added again when they are missing.
        let there: HashSet<_> = others.iter().collect();
        known.retain(|endpoint| there.contains(endpoint));
        add_missing(&mut known, others);
    }

    /// This one did not answer, or answered what is not so.
    pub(crate) fn to_the_end(&self, endpoint: &Endpoint) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = known.iter().position(|one| one == endpoint) {
            let endpoint = known.remove(at);
            known.push(endpoint);
        }
    }
}

/// Adds those that are not there. A cluster may have thousands of nodes.
fn add_missing(known: &mut Vec<Endpoint>, others: &[Endpoint]) {
    let there: HashSet<_> = known.iter().collect();
    let missing: Vec<_> = others.iter().filter(|endpoint| !there.contains(endpoint)).cloned().collect();
    known.extend(missing);
}

/// One round: one after the other until one answers with something that can be used, and why none
/// did.
///
/// Each gets a share of the time that is left, and one share is kept for what is done with the
/// answer; so a server that is dead costs its share only, and the next time it is asked last.
#[derive(Debug)]
pub(crate) struct Turns {
    known: Known,
    left: std::vec::IntoIter<Endpoint>,
    deadline: Instant,
    failures: Failures,
}

impl Turns {
    /// Whom to ask, and until when the round must be over.
    pub(crate) fn new(known: &Known, given: &[Endpoint], deadline: Instant) -> Self {
        let left = known.in_order(given).into_iter();
        Self { known: known.clone(), left, deadline, failures: Failures::default() }
    }

    /// Whom to ask next, and until when it may take to answer.
    pub(crate) fn next(&mut self) -> Option<(Endpoint, Instant)> {
        let now = Instant::now();
        let shares = u32::try_from(self.left.len()).unwrap_or(u32::MAX).saturating_add(1);
        let until = now + self.deadline.saturating_duration_since(now) / shares;
        Some((self.left.next()?, until))
    }

    /// This one did not answer, or not with what can be used.
    pub(crate) fn failed(&mut self, endpoint: &Endpoint, error: Error) {
        self.known.to_the_end(endpoint);
        self.failures.add(error);
    }

    /// Why nobody gave an answer.
    pub(crate) fn into_error(self) -> Error {
        self.failures.into_error()
    }
}

/// The moment so long from now.
pub(crate) fn deadline(limit: Duration) -> Instant {
    // Nobody waits for longer than a year.
    Instant::now() + limit.min(Duration::from_secs(365 * 24 * 60 * 60))
}

/// As much of the time until a moment as is left.
pub(crate) async fn within<T>(until: Instant, what: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let limit = until.saturating_duration_since(Instant::now());
    match tokio::time::timeout(limit, what).await {
        Ok(done) => done,
        Err(_) => Err(Error::timeout(limit)),
    }
}

/// Why nobody gave an answer.
#[derive(Debug, Default)]
struct Failures {
    /// What tells the most goes first.
    reasons: Vec<Error>,
    /// So many more are not kept.
    more: usize,
}

/// So many reasons are named.
const MAX_REASONS: usize = 8;

impl Failures {
    fn add(&mut self, error: Error) {
        // One reason that all have is said once.
        if self.reasons.iter().any(|known| known.to_string() == error.to_string()) {
            return;
        }
        let place = self.reasons.partition_point(|known| Self::rank(known) <= Self::rank(&error));
        self.reasons.insert(place, error);
        if self.reasons.len() > MAX_REASONS {
            self.reasons.truncate(MAX_REASONS);
            self.more += 1;
        }
    }

    /// An answer before a silence, and of answers one that will change before one that will not.
    fn rank(error: &Error) -> u8 {
        match error.kind() {
            ErrorKind::NotMaster => 0,
            kind if kind.closes_connection() => 2,
            kind if kind.is_transient() => 1,
            // Only when all agree that waiting does not help, it does not.
            _ => 3,
        }
    }

    fn into_error(self) -> Error {
        let mut text = self.reasons.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        if self.more > 0 {
            text = format!("{text}; and {} more", self.more);
        }
        match self.reasons.into_iter().next() {
            Some(first) => first.with_text(text).with_sent(Sent::No),
            None => Error::new(ErrorKind::Usage, "there is no server to ask").with_sent(Sent::No),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoints() -> Vec<Endpoint> {
        (1..=3).map(|port| Endpoint::tcp("h", port)).collect()
    }

    fn port(endpoint: &Endpoint) -> u16 {
        match endpoint {
            Endpoint::Tcp { port, .. } => *port,
            _ => 0,
        }
    }

    fn turns(known: &Known, deadline: Instant) -> Turns {
        Turns::new(known, &endpoints(), deadline)
    }

    #[test]
    fn who_does_not_answer_is_asked_last_the_next_time() {
        let known = Known::default();
        let deadline = Instant::now() + Duration::from_secs(60);
        let mut round = turns(&known, deadline);
        let (first, _) = round.next().unwrap();
        assert_eq!(port(&first), 1);
        round.failed(&first, Error::closed());
        assert_eq!(port(&round.next().unwrap().0), 2);
        let mut round = turns(&known.clone(), deadline);
        let order: Vec<_> = std::iter::from_fn(|| round.next()).map(|(endpoint, _)| port(&endpoint)).collect();
        assert_eq!(order, [2, 3, 1]);
    }

    #[test]
    fn a_silent_one_costs_its_share_of_the_time() {
        let begun = Instant::now();
        let mut round = turns(&Known::default(), begun + Duration::from_secs(60));
        let shares: Vec<_> = std::iter::from_fn(|| round.next())
            .map(|(_, until)| (until - begun).as_secs_f64().round() as u64)
            .collect();
        assert_eq!(shares, [15, 20, 30]);
    }

    #[test]
    fn the_error_says_all_reasons_and_is_final_only_when_all_are() {
        let unknown = || Error::new(ErrorKind::UnknownMaster, "no such master");
        let failed = |errors: Vec<Error>| {
            let mut round = turns(&Known::default(), Instant::now());
            for error in errors {
                let (endpoint, _) = round.next().unwrap();
                round.failed(&endpoint, error);
            }
            round.into_error()
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
    fn thousands_of_nodes_are_known_and_fail_in_linear_time() {
        let nodes = |from: u32| (from..from + 20_000).map(|n| Endpoint::tcp(format!("h{n}"), 1)).collect::<Vec<_>>();
        let known = Known::default();
        let begun = Instant::now();
        known.learn(&nodes(0));
        known.learn(&nodes(10_000));
        assert_eq!(known.in_order(&nodes(20_000)).len(), 30_000);
        let mut failures = Failures::default();
        for n in 0..20_000 {
            failures.add(Error::new(ErrorKind::Io, format!("node {n} is away")));
        }
        failures.add(Error::new(ErrorKind::NotMaster, "a replica"));
        let error = failures.into_error();
        assert_eq!((error.kind(), error.to_string().len() < 300), (ErrorKind::NotMaster, true), "{error}");
        assert!(error.to_string().ends_with("and 19993 more"), "{error}");
        // When it was quadratic, this took minutes.
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    }
}
