//! The sources of a service that has many of them: the list of `/status.json` and of the status
//! page, and the series of `/metrics`, whose number is bounded.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};

/// How many sources a page lists unless it is asked for more or fewer.
const PAGE: usize = 50;
/// At most this many.
const LONGEST_PAGE: usize = 1000;
/// The source of the series that sums up all sources without one of their own. No name of a source
/// begins like this.
const REST: &str = "{rest}";

/// One source.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SourceRow {
    /// Its escaped name.
    pub name: String,
    /// Its state in a word.
    pub state: &'static str,
    /// How far the service has come in it, in bytes.
    pub bytes: u64,
    /// How much waits for this service. `None`: unknown.
    pub backlog: Option<u64>,
    /// How many consumers its group has. `None`: unknown, or the service has no group.
    pub consumers: Option<u64>,
    /// Why it cannot go on.
    pub reason: Option<String>,
}

impl SourceRow {
    /// A source of this name, in this state.
    #[must_use]
    pub fn new(name: String, state: &'static str) -> Self {
        Self { name, state, ..Self::default() }
    }
}

/// The sources of a service, as its work last listed them. Clones share the list.
#[derive(Debug, Clone, Default)]
pub struct SourceList {
    inner: Arc<Mutex<Listed>>,
    /// How many sources have series of their own.
    series: usize,
    /// In what backlogs are counted: `entries` or `bytes`.
    unit: &'static str,
}

#[derive(Debug, Default)]
struct Listed {
    rows: Vec<SourceRow>,
    /// How far each was at the list before, to find those that moved.
    before: BTreeMap<String, u64>,
    is_used: bool,
}

/// The part of the list that a page shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Query<'a> {
    sort: &'a str,
    offset: usize,
    limit: usize,
}

impl<'a> Query<'a> {
    /// From a query string: `sort` (`name`, `state`, `bytes`, `backlog`), `offset`, `limit`. What
    /// cannot be read counts as not there.
    pub(crate) fn read(query: &'a str) -> Self {
        let mut read = Self { sort: "", offset: 0, limit: PAGE };
        for (name, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
            match name {
                "sort" => read.sort = value,
                "offset" => read.offset = value.parse().unwrap_or(0),
                "limit" => read.limit = value.parse().unwrap_or(PAGE).min(LONGEST_PAGE),
                _ => {}
            }
        }
        read
    }

    /// The query of the next page of a list of `count`.
    pub(crate) fn next(self, count: usize) -> Option<String> {
        let Self { sort, offset, limit } = self;
        let next = offset.saturating_add(limit);
        (next < count && limit > 0).then(|| format!("sort={sort}&offset={next}&limit={limit}"))
    }
}

impl SourceList {
    /// An empty list; this many of its sources have series of their own on `/metrics`, and backlogs
    /// are counted in `unit`.
    #[must_use]
    pub fn new(series: usize, unit: &'static str) -> Self {
        Self { inner: Arc::default(), series, unit }
    }

    /// Replaces the list.
    pub fn set(&self, rows: Vec<SourceRow>) {
        let mut listed = self.lock();
        listed.before = listed.rows.drain(..).map(|row| (row.name, row.bytes)).collect();
        listed.rows = rows;
        listed.is_used = true;
    }

    fn lock(&self) -> MutexGuard<'_, Listed> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the service has many sources.
    pub(crate) fn is_used(&self) -> bool {
        self.lock().is_used
    }

    /// A part of the list, and how many there are in all.
    pub(crate) fn page(&self, query: Query<'_>) -> (Vec<SourceRow>, usize) {
        let listed = self.lock();
        let mut rows: Vec<&SourceRow> = listed.rows.iter().collect();
        match query.sort {
            "name" => rows.sort_by(|one, other| one.name.cmp(&other.name)),
            "state" => rows.sort_by_key(|row| (row.state, &row.name)),
            "bytes" => rows.sort_by_key(|row| (Reverse(row.bytes), &row.name)),
            // What needs attention comes first.
            _ => rows.sort_by_key(|row| (row.reason.is_none(), Reverse(row.backlog), &row.name)),
        }
        (rows.into_iter().skip(query.offset).take(query.limit).cloned().collect(), listed.rows.len())
    }

    /// A part of the list as JSON. `null` for a service with one source.
    pub(crate) fn json(&self, query: Query<'_>) -> Value {
        if !self.is_used() {
            return Value::Null;
        }
        let (rows, count) = self.page(query);
        let list: Vec<Value> = rows
            .into_iter()
            .map(|row| {
                json!({
                    "name": row.name,
                    "state": row.state,
                    "bytes": row.bytes,
                    "backlog": row.backlog,
                    "consumers": row.consumers,
                    "reason": row.reason,
                })
            })
            .collect();
        json!({"count": count, "states": self.states(), "offset": query.offset, "list": list})
    }

    /// The number of sources whose backlog is unknown.
    pub(crate) fn unknown(&self) -> usize {
        self.lock().rows.iter().filter(|row| row.backlog.is_none()).count()
    }

    /// How many sources are in each state.
    pub(crate) fn states(&self) -> BTreeMap<&'static str, usize> {
        let mut states = BTreeMap::new();
        for row in &self.lock().rows {
            let count = states.entry(row.state).or_insert(0_usize);
            *count = count.saturating_add(1);
        }
        states
    }

    /// The series of the sources with the largest backlogs, of those that moved last, and of the
    /// rest together; in Prometheus' text format, each with these labels.
    pub(crate) fn render(&self, labels: &[(&'static str, String)]) -> String {
        let mut out = String::new();
        if !self.is_used() {
            return out;
        }
        let labels: String = labels.iter().map(|(name, value)| format!("{name}=\"{}\",", escape(value))).collect();
        help(&mut out, "line_stream_sources", "Sources by state");
        for (state, count) in self.states() {
            let _ = writeln!(out, "line_stream_sources{{{labels}state=\"{state}\"}} {count}");
        }
        let listed = self.lock();
        let moved = |row: &SourceRow| row.bytes.saturating_sub(listed.before.get(&row.name).copied().unwrap_or(0));
        let mut rows: Vec<&SourceRow> = listed.rows.iter().collect();
        rows.sort_by_cached_key(|row| (row.reason.is_none(), Reverse(row.backlog), Reverse(moved(row)), &row.name));
        let (own, rest) = rows.split_at(self.series.min(rows.len()));
        let metric = format!("line_stream_source_backlog_{}", self.unit);
        let what = format!("Backlog in {}, of the sources that have most", self.unit);
        help(&mut out, &metric, &what);
        for row in own {
            let backlog = row.backlog.map_or_else(|| "NaN".to_owned(), |backlog| backlog.to_string());
            let _ = writeln!(out, "{metric}{{{labels}source=\"{}\"}} {backlog}", escape(&row.name));
        }
        if !rest.is_empty() {
            let backlog: Option<u64> = rest.iter().map(|row| row.backlog).sum();
            let backlog = backlog.map_or_else(|| "NaN".to_owned(), |backlog| backlog.to_string());
            let _ = writeln!(out, "{metric}{{{labels}source=\"{REST}\"}} {backlog}");
        }
        help(&mut out, "line_stream_source_failed", "1 for a source that cannot go on; the rest: how many");
        for row in own.iter().filter(|row| row.reason.is_some()) {
            let _ = writeln!(out, "line_stream_source_failed{{{labels}source=\"{}\"}} 1", escape(&row.name));
        }
        let failed = rest.iter().filter(|row| row.reason.is_some()).count();
        if failed > 0 {
            let _ = writeln!(out, "line_stream_source_failed{{{labels}source=\"{REST}\"}} {failed}");
        }
        help(&mut out, "line_stream_source_position_bytes", "How far the service is in each of these sources");
        for row in own {
            let (name, bytes) = (escape(&row.name), row.bytes);
            let _ = writeln!(out, "line_stream_source_position_bytes{{{labels}source=\"{name}\"}} {bytes}");
        }
        if !rest.is_empty() {
            let bytes: u64 = rest.iter().map(|row| row.bytes).sum();
            let _ = writeln!(out, "line_stream_source_position_bytes{{{labels}source=\"{REST}\"}} {bytes}");
        }
        out
    }
}

fn help(out: &mut String, name: &str, what: &str) {
    let _ = writeln!(out, "# HELP {name} {what}\n# TYPE {name} gauge");
}

/// The value of a label.
fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(series: usize) -> SourceList {
        let list = SourceList::new(series, "entries");
        let row = |name: &str, state, bytes, backlog| SourceRow {
            bytes,
            backlog: Some(backlog),
            ..SourceRow::new(name.to_owned(), state)
        };
        let failed = SourceRow { reason: Some("no room".to_owned()), ..row("d", "failed", 4, 0) };
        list.set(vec![row("a", "idle", 1, 0), row("b", "active", 2, 9), row("c", "idle", 3, 0), failed]);
        list
    }

    #[test]
    fn the_list_is_sorted_and_paged() {
        let list = list(2);
        let names = |query| {
            let (rows, count) = list.page(Query::read(query));
            assert_eq!(count, 4);
            rows.into_iter().map(|row| row.name).collect::<String>()
        };
        assert_eq!(names(""), "dbac", "what needs attention comes first");
        assert_eq!(names("sort=name"), "abcd");
        assert_eq!(names("sort=bytes&limit=2"), "dc");
        assert_eq!(names("sort=state&offset=1"), "dac");
        assert_eq!(names("sort=evil&offset=-1&limit=x"), "dbac");
        assert_eq!(names("offset=99"), "");
    }

    #[test]
    fn only_some_sources_have_series_and_the_rest_is_one() {
        let text = list(2).render(&[("stream", "s".to_owned())]);
        let series = |text: &str| text.lines().filter(|line| line.starts_with("line_stream_source_backlog")).count();
        assert_eq!(series(&text), 3, "{text}");
        assert!(text.contains("line_stream_source_position_bytes{stream=\"s\",source=\"{rest}\"} 4\n"), "{text}");
        assert!(text.contains("line_stream_sources{stream=\"s\",state=\"idle\"} 2\n"), "{text}");
        assert_eq!(series(&list(99).render(&[])), 4);
        let failed = |text: &str| {
            let lines = text.lines().filter(|line| line.starts_with("line_stream_source_failed"));
            lines.map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(failed(&list(1).render(&[])), ["line_stream_source_failed{source=\"d\"} 1"]);
        assert_eq!(failed(&list(0).render(&[])), ["line_stream_source_failed{source=\"{rest}\"} 1"]);
        assert_eq!(SourceList::new(2, "bytes").render(&[]), "", "a service with one source has none");
    }
}
