//! The metrics of a service: names, descriptions and buckets. All metrics are registered at
//! startup.

use std::io;

use metrics::{SharedString, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

use crate::About;

/// Errors, by kind.
pub const ERRORS: &str = "line_stream_errors_total";
/// Connections to Redis made after the first one.
pub const REDIS_RECONNECTS: &str = "line_stream_redis_reconnects_total";
/// Whether Redis is usable.
pub const REDIS_UP: &str = "line_stream_redis_up";
/// Always 1; its labels carry the version.
pub const BUILD_INFO: &str = "line_stream_build_info";

/// Upper bounds for `_seconds` histograms: 100 µs (less than an fsync) to an hour.
const SECONDS: [f64; 20] = [
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
    60.0, 600.0, 3600.0,
];

/// A metric of a service. A service lists its metrics once, in [`crate::About::metrics`]. Metrics
/// without labels are exported as 0 from the start, so a rate includes the first event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metric {
    kind: Kind,
    name: &'static str,
    help: &'static str,
    first: First,
}

/// The initial value of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum First {
    /// 0.
    Zero,
    /// NaN: not measured yet.
    Unknown,
    /// Not exported until first used, because its labels are not known.
    Absent,
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
        Self { kind: Kind::Counter, name, help, first: First::Zero }
    }

    /// A number that goes up and down.
    #[must_use]
    pub const fn gauge(name: &'static str, help: &'static str) -> Self {
        Self { kind: Kind::Gauge, name, help, first: First::Zero }
    }

    /// A distribution of durations in seconds; its name ends in `_seconds`.
    #[must_use]
    pub const fn histogram(name: &'static str, help: &'static str) -> Self {
        Self { kind: Kind::Histogram, name, help, first: First::Zero }
    }

    /// The metric has labels, so it is exported from its first use on.
    #[must_use]
    pub const fn labelled(mut self) -> Self {
        self.first = First::Absent;
        self
    }

    /// A gauge that is NaN until it is first measured.
    #[must_use]
    pub const fn unknown(mut self) -> Self {
        self.first = First::Unknown;
        self
    }

    fn register(self) {
        match self.kind {
            Kind::Counter => describe_counter!(self.name, self.help),
            Kind::Gauge => describe_gauge!(self.name, self.help),
            Kind::Histogram => describe_histogram!(self.name, self.help),
        }
        match (self.kind, self.first) {
            (_, First::Absent) => {}
            (Kind::Counter, _) => counter!(self.name).absolute(0),
            (Kind::Gauge, First::Zero) => gauge!(self.name).set(0.0),
            (Kind::Gauge, First::Unknown) => gauge!(self.name).set(f64::NAN),
            (Kind::Histogram, _) => drop(histogram!(self.name)),
        }
    }
}

/// The metrics every service has.
const SHARED: [Metric; 4] = [
    Metric::counter(ERRORS, "Errors, by kind").labelled(),
    Metric::counter(REDIS_RECONNECTS, "Connections to Redis made after the first one"),
    Metric::gauge(REDIS_UP, "1 while Redis can be used, else 0; NaN before the first attempt to connect").unknown(),
    Metric::gauge(BUILD_INFO, "Always 1; the labels tell the version").labelled(),
];

/// Kinds of errors exported as 0 from the start, so that the first error is an increase.
const KINDS: [&str; 13] = [
    "blocked",
    "disk",
    "disturbed",
    "foreign_entry",
    "input",
    "redis_connection",
    "redis_io",
    "redis_loading",
    "redis_no_group",
    "redis_no_perm",
    "redis_oom",
    "redis_refused",
    "redis_timeout",
];

/// Counts an error in [`ERRORS`]. Kinds are a small, fixed set in lower snake case.
pub fn error(kind: impl Into<SharedString>) {
    counter!(ERRORS, "kind" => kind.into()).increment(1);
}

/// Counts an error of the Redis connection or of a command in [`ERRORS`], as `redis_<kind>`.
pub fn redis_error(kind: resp::ErrorKind) {
    error(format!("redis_{}", name_of(kind)));
}

/// The name of an error kind in lower snake case.
pub(crate) fn name_of(kind: resp::ErrorKind) -> String {
    let mut name = String::new();
    for c in format!("{kind:?}").chars() {
        if c.is_ascii_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(c.to_ascii_lowercase());
    }
    name
}

/// The recorded metrics, as exported by `/metrics`.
#[derive(Clone)]
pub(crate) struct Recorded {
    handle: PrometheusHandle,
    process: metrics_process::Collector,
}

impl Recorded {
    /// Installs the recorder of this process, and registers the shared metrics and those of the
    /// service.
    ///
    /// All metrics carry `labels`, which distinguish several pairs of services in one Prometheus.
    pub(crate) fn install(about: &About) -> io::Result<Self> {
        let labels = about.labels.iter();
        let handle = labels
            .fold(PrometheusBuilder::new(), |builder, (name, value)| builder.add_global_label(*name, value))
            .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)
            .and_then(PrometheusBuilder::install_recorder)
            .map_err(io::Error::other)?;
        for metric in SHARED.iter().chain(about.metrics) {
            metric.register();
        }
        for kind in KINDS {
            counter!(ERRORS, "kind" => kind).absolute(0);
        }
        gauge!(BUILD_INFO, "service" => about.name, "version" => about.version).set(1.0);
        let process = metrics_process::Collector::default();
        process.describe();
        Ok(Self { handle, process })
    }

    /// The body of `/metrics`.
    pub(crate) fn render(&self) -> String {
        self.process.collect();
        self.handle.render()
    }

    /// As [`Self::render`], without the process metrics.
    pub(crate) fn render_work(&self) -> String {
        self.handle.render()
    }

    /// Compacts recorded samples. Call it periodically, because nobody may scrape `/metrics`.
    pub(crate) fn upkeep(&self) {
        self.handle.run_upkeep();
    }
}
