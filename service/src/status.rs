//! `/status.json`: the data of the status page for programs.

use serde_json::{Value, json};

use crate::health::Member;
use crate::history::{INTERVAL, Snapshot};
use crate::logs;
use crate::pages::ServicePages;
use crate::sources::Query;
use crate::trend::Trend;

/// Renders `/status.json`.
pub(crate) fn json(pages: &ServicePages, query: Query<'_>) -> String {
    let shown = pages.history.snapshot();
    let state = |well: Result<(), String>| json!({"ok": well.is_ok(), "reason": well.err()});
    let trend = trend(pages, &shown);
    let errors: Vec<Value> = logs::latest()
        .into_iter()
        .map(|warning| json!({"unix_ms": u64::try_from(warning.at).ok(), "level": warning.level.as_str(), "text": warning.text, "count": warning.count}))
        .collect();
    json!({
        "service": pages.name,
        "version": pages.version,
        "flow": pages.flow,
        "redis_url": pages.redis,
        "uptime_seconds": pages.begun.elapsed().as_secs(),
        "alive": state(pages.health.alive()),
        "ready": state(pages.health.ready()),
        "states": pages.health.states().collect::<std::collections::BTreeMap<_, _>>(),
        "lines": {"total": shown.last.lines, "per_second": shown.lines_per_second},
        "bytes": {"total": shown.last.bytes, "per_second": shown.bytes_per_second},
        "position": shown.position.map(|(at, size)| json!({
            "bytes": at,
            "size": size,
            "left": size - at,
            "seconds_left": shown.seconds_left().filter(|_| pages.health.redis_is_well()),
        })),
        "output": shown.output.map(|(size, free)| json!({"size": size, "disk_free": free})),
        "backlog": {
            "entries": shown.last.backlog,
            "trend": trend.name(),
            "per_second": trend.per_second(),
            "seconds_to_drain": trend.seconds_to_drain(),
            "in_words": trend.words(),
        },
        "last_batch": pages.health.last_batch().map(|last| json!({
            "lines": last.lines,
            "bytes": last.bytes,
            "seconds": last.took.as_secs_f64(),
            "age_seconds": last.done.elapsed().as_secs_f64(),
        })),
        "latency": pages.health.latency().map(|(latency, measured)| json!({
            "seconds": latency.as_secs_f64(),
            "age_seconds": measured.elapsed().as_secs_f64(),
        })),
        "redis": pages.health.server().map(|(server, at)| json!({
            "version": server.version,
            "used_memory_bytes": server.used_memory,
            "max_memory_bytes": server.max_memory,
            "eviction_policy": server.policy,
            "append_only_file": server.append_only,
            "age_seconds": at.elapsed().as_secs_f64(),
        })),
        "consumers": match pages.sources.is_used() {
            // Each source has a group of its own.
            true => Value::Null,
            // What was seen last is not so any more.
            false if !pages.health.redis_is_well() => Value::Null,
            false => pages.health.group().iter().map(consumer).collect(),
        },
        "sources": pages.sources.json(query),
        "errors": errors,
        "metrics": shown.values,
        "history": {
            "interval_seconds": INTERVAL.as_secs(),
            "lines_per_second": shown.rates(|s| s.lines),
            "bytes_per_second": shown.rates(|s| s.bytes),
            "backlog": shown.samples.iter().map(|s| s.backlog).collect::<Vec<_>>(),
        },
    })
    .to_string()
}

fn consumer(consumer: &Member) -> Value {
    json!({
        "group": consumer.group,
        "name": consumer.name,
        "pending": consumer.pending,
        "idle_seconds": consumer.idle.as_secs_f64(),
    })
}

/// The trend of the backlog; unknown while Redis is unreachable, because the last sample is stale
/// then.
pub(crate) fn trend(pages: &ServicePages, shown: &Snapshot) -> Trend {
    if pages.health.redis_is_well() { shown.trend() } else { Trend::Unknown }
}
