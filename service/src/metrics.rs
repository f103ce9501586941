//! Names, descriptions, buckets: every metric is registered in one place, and is there from the start.

use std::io;

use metrics::{SharedString, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

/// Errors, by kind.
pub const ERRORS: &str = "errors_total";
/// Connections to Redis made after the first one.
pub const REDIS_RECONNECTS: &str = "redis_reconnects_total";
/// Whether there is a connection to Redis.
pub const REDIS_UP: &str = "redis_up";
/// Always 1; its labels tell the version.
pub const BUILD_INFO: &str = "build_info";

/// Upper bounds for `_seconds` histograms: 100 µs (less than an fsync) to 60 s.
const SECONDS: [f64; 18] = [
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
    60.0,
];

/// A metric of a service. A service lists its metrics once, in [`crate::About::metrics`]; those without labels are there with value 0 from
/// the start, so that a rate is right from the first event on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metric {
    kind: Kind,
    name: &'static str,
    help: &'static str,
    labelled: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
}

impl Metric {
    /// A number that only grows; its name ends in `_total`.
    #[must_use]
    pub const fn counter(name: &'static str, help: &'static str) -> Self {
        Self { kind: Kind::Counter, name, help, labelled: false }
    }

    /// A number that goes up and down.
    #[must_use]
    pub const fn gauge(name: &'static str, help: &'static str) -> Self {
        Self { kind: Kind::Gauge, name, help, labelled: false }
    }

    /// A distribution of durations in seconds; its name ends in `_seconds`.
    #[must_use]
    pub const fn histogram(name: &'static str, help: &'static str) -> Self {
        Self { kind: Kind::Histogram, name, help, labelled: false }
    }

    /// The metric has labels, so it appears with its first use.
    #[must_use]
    pub const fn labelled(mut self) -> Self {
        self.labelled = true;
        self
    }

    fn register(self) {
        match self.kind {
            Kind::Counter => describe_counter!(self.name, self.help),
            Kind::Gauge => describe_gauge!(self.name, self.help),
            Kind::Histogram => describe_histogram!(self.name, self.help),
        }
        if self.labelled {
            return;
        }
        match self.kind {
            Kind::Counter => counter!(self.name).absolute(0),
            Kind::Gauge => gauge!(self.name).set(0.0),
            Kind::Histogram => drop(histogram!(self.name)),
        }
    }
}

/// The metrics every service has.
const SHARED: [Metric; 4] = [
    Metric::counter(ERRORS, "Errors, by kind").labelled(),
    Metric::counter(REDIS_RECONNECTS, "Connections to Redis made after the first one"),
    Metric::gauge(REDIS_UP, "1 while Redis can be used, else 0"),
    Metric::gauge(BUILD_INFO, "Always 1; the labels tell the version").labelled(),
];

/// Counts an error in [`ERRORS`]. Kinds are few and fixed, in lower snake case.
pub fn error(kind: impl Into<SharedString>) {
    counter!(ERRORS, "kind" => kind.into()).increment(1);
}

/// Counts an error of the connection to Redis, or of a command, in [`ERRORS`]: `redis_` and its kind.
pub fn redis_error(kind: resp::ErrorKind) {
    let mut name = "redis".to_owned();
    for c in format!("{kind:?}").chars() {
        if c.is_ascii_uppercase() {
            name.push('_');
        }
        name.push(c.to_ascii_lowercase());
    }
    error(name);
}

/// What is measured, as `/metrics` shows it.
#[derive(Clone)]
pub(crate) struct Recorded {
    handle: PrometheusHandle,
    process: metrics_process::Collector,
}

impl Recorded {
    /// Takes over the recording for this process, and registers the shared metrics and those of the service.
    pub(crate) fn install(name: &'static str, version: &'static str, metrics: &[Metric]) -> io::Result<Self> {
        let handle = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)
            .and_then(PrometheusBuilder::install_recorder)
            .map_err(io::Error::other)?;
        for metric in SHARED.iter().chain(metrics) {
            metric.register();
        }
        gauge!(BUILD_INFO, "service" => name, "version" => version).set(1.0);
        let process = metrics_process::Collector::default();
        process.describe();
        Ok(Self { handle, process })
    }

    /// The text of `/metrics`.
    pub(crate) fn render(&self) -> String {
        self.process.collect();
        self.handle.render()
    }

    /// As [`Self::render`], without looking at the process.
    pub(crate) fn render_work(&self) -> String {
        self.handle.render()
    }

    /// Moves samples to where they take no room; from time to time, also when nobody asks for `/metrics`.
    pub(crate) fn upkeep(&self) {
        self.handle.run_upkeep();
    }
}
