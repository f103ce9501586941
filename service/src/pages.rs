//! The pages of the HTTP endpoint. They are read-only, and show no secrets.

use std::time::Instant;

use crate::history::History;
use crate::http::{Answer, Head, Pages};
use crate::metrics::Recorded;
use crate::sources::Query;
use crate::{Health, SourceList, html, status};

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
const HTML: &str = "text/html; charset=utf-8";
/// The content type of Prometheus' text format.
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The pages of a service.
pub(crate) struct ServicePages {
    pub(crate) name: &'static str,
    pub(crate) version: &'static str,
    /// Source and destination, for display.
    pub(crate) flow: String,
    /// The Redis address, without a password.
    pub(crate) redis: String,
    pub(crate) history: History,
    pub(crate) begun: Instant,
    pub(crate) health: Health,
    pub(crate) recorded: Recorded,
    /// The labels of all metrics.
    pub(crate) labels: Vec<(&'static str, String)>,
    pub(crate) sources: SourceList,
}

impl Pages for ServicePages {
    fn answer(&self, head: &Head<'_>) -> Answer {
        if !matches!(head.method, "GET" | "HEAD") {
            return Answer::new(405, TEXT, "only GET and HEAD\n".to_owned());
        }
        match head.path {
            "/metrics" => Answer::new(200, PROMETHEUS, self.recorded.render() + &self.sources.render(&self.labels)),
            "/healthz" => verdict(self.health.alive()),
            "/readyz" => verdict(self.health.ready()),
            "/" => Answer::new(200, HTML, html::page(self, Query::read(head.query))).with_policy(html::POLICY),
            "/status.json" => Answer::new(200, JSON, status::json(self, Query::read(head.query))),
            _ => Answer::new(
                404,
                TEXT,
                "not found; available: /, /status.json, /metrics, /healthz, /readyz\n".to_owned(),
            ),
        }
    }
}

fn verdict(state: Result<(), String>) -> Answer {
    match state {
        Ok(()) => Answer::new(200, TEXT, "ok\n".to_owned()),
        Err(reason) => Answer::new(503, TEXT, format!("{reason}\n")),
    }
}
