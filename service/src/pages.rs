//! What the HTTP endpoint answers. Nothing here changes anything, and nothing shows a secret.

use std::time::Instant;

use crate::Health;
use crate::http::{Answer, Head, Pages};
use crate::metrics::Recorded;

const TEXT: &str = "text/plain; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";
/// The content type of Prometheus' text format.
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The pages of a service.
pub(crate) struct ServicePages {
    pub(crate) name: &'static str,
    pub(crate) version: &'static str,
    /// From where to where.
    pub(crate) flow: String,
    pub(crate) begun: Instant,
    pub(crate) health: Health,
    pub(crate) recorded: Recorded,
}

impl Pages for ServicePages {
    fn answer(&self, head: &Head<'_>) -> Answer {
        if !matches!(head.method, "GET" | "HEAD") {
            return Answer::new(405, TEXT, "only GET and HEAD\n".to_owned());
        }
        match head.path {
            "/metrics" => Answer::new(200, PROMETHEUS, self.recorded.render()),
            "/healthz" => verdict(self.health.alive()),
            "/readyz" => verdict(self.health.ready()),
            "/" => Answer::new(200, HTML, self.status()),
            _ => Answer::new(404, TEXT, "here are /, /metrics, /healthz and /readyz\n".to_owned()),
        }
    }
}

fn verdict(state: Result<(), String>) -> Answer {
    match state {
        Ok(()) => Answer::new(200, TEXT, "ok\n".to_owned()),
        Err(reason) => Answer::new(503, TEXT, format!("{reason}\n")),
    }
}

impl ServicePages {
    fn status(&self) -> String {
        let row = |name: &str, value: &str| format!("<tr><th>{}</th><td>{}</td></tr>\n", escape(name), escape(value));
        let well = |state: Result<(), String>| state.err().unwrap_or_else(|| "ok".to_owned());
        let mut rows = row("flow", &self.flow);
        rows += &row("version", self.version);
        rows += &row("running for", &format!("{} s", self.begun.elapsed().as_secs()));
        rows += &row("work", &well(self.health.alive()));
        for (name, state) in self.health.states() {
            rows += &row(name, &state);
        }
        let name = escape(self.name);
        format!(
            "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>{name}</title>\n\
             <style>body{{font:16px/1.5 system-ui,sans-serif;margin:2rem}}th{{text-align:left;padding-right:2rem}}</style>\n\
             <h1>{name}</h1>\n<table>\n{rows}</table>\n\
             <p><a href=\"/metrics\">/metrics</a> <a href=\"/healthz\">/healthz</a> <a href=\"/readyz\">/readyz</a></p>\n</html>\n"
        )
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
