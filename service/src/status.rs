//! The status page and `/status.json`: the same figures for people and for programs.

use std::fmt::Write as _;
use std::time::Duration;

use indicatif::{HumanBytes, HumanCount, HumanDuration};
use serde_json::{Value, json};

use crate::history::{INTERVAL, Snapshot, rate, whole};
use crate::pages::ServicePages;
use crate::{health, logs};

/// The page around the figures. It has all it needs in it: style, script and icon.
const PAGE: &str = include_str!("status.html");

/// The plot, in units of its own.
const WIDTH: f64 = 600.0;
const HEIGHT: f64 = 140.0;

/// `/status.json`.
pub(crate) fn json(pages: &ServicePages) -> String {
    let shown = pages.history.snapshot();
    let state = |well: Result<(), String>| json!({"ok": well.is_ok(), "reason": well.err()});
    let rates = |of: fn(&crate::history::Sample) -> f64| -> Vec<f64> {
        shown.samples.windows(2).filter_map(|pair| Some(rate(pair.first()?, pair.get(1)?, of).max(0.0))).collect()
    };
    let consumers: Vec<Value> = pages.health.group().iter().map(consumer).collect();
    let told: Vec<Value> = logs::latest()
        .into_iter()
        .map(|told| json!({"unix_ms": u64::try_from(told.at).ok(), "level": told.level.as_str(), "text": told.text}))
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
        "position": shown.position.map(|(at, size)| json!({"bytes": at, "size": size, "left": size - at})),
        "backlog": {
            "entries": shown.last.backlog,
            "per_second": shown.backlog_per_second,
            "seconds_to_drain": shown.seconds_to_drain(),
        },
        "last_batches": shown.last_batches.map(|last| json!({
            "count": last.count,
            "lines": last.lines,
            "seconds_each": last.seconds / last.count,
        })),
        "consumers": consumers,
        "errors": told,
        "metrics": shown.values,
        "history": {
            "interval_seconds": INTERVAL.as_secs(),
            "lines_per_second": rates(|s| s.lines),
            "bytes_per_second": rates(|s| s.bytes),
            "backlog": shown.samples.iter().map(|s| s.backlog).collect::<Vec<_>>(),
        },
    })
    .to_string()
}

fn consumer(consumer: &health::Member) -> Value {
    json!({"name": consumer.name, "pending": consumer.pending, "idle_seconds": consumer.idle.as_secs_f64()})
}

/// The page.
pub(crate) fn html(pages: &ServicePages) -> String {
    let shown = pages.history.snapshot();
    let ready = pages.health.alive().and_then(|()| pages.health.ready());
    let mut body = String::new();
    let (class, words) = match &ready {
        Ok(()) => ("ok", "working"),
        Err(reason) => ("bad", reason.as_str()),
    };
    let _ = writeln!(
        body,
        "<header><h1>{}</h1><p class=flow>{}<br><small>{}</small></p><p class=\"state {class}\" role=status>{}</p></header>",
        escape(pages.name),
        escape(&pages.flow),
        escape(&pages.redis),
        escape(words)
    );
    body += "<section class=tiles>\n";
    let mut tile = |name: &str, value: String, more: String| {
        let _ = writeln!(
            body,
            "<div><h2>{}</h2><p class=figure>{}</p><p class=more>{}</p></div>",
            escape(name),
            escape(&value),
            escape(&more)
        );
    };
    tile(
        "Lines per second",
        HumanCount(whole(shown.lines_per_second)).to_string(),
        format!("{} since the start", HumanCount(whole(shown.last.lines))),
    );
    tile(
        "Bytes per second",
        HumanBytes(whole(shown.bytes_per_second)).to_string(),
        format!("{} since the start", HumanBytes(whole(shown.last.bytes))),
    );
    if let Some((at, size)) = shown.position {
        let share = if size > 0.0 { at / size * 100.0 } else { 100.0 };
        let left = whole(size - at);
        tile(
            "Position in the file",
            format!("{share:.1} %"),
            format!("{} of {}, {} left", HumanBytes(whole(at)), HumanBytes(whole(size)), HumanBytes(left)),
        );
    }
    tile("Entries waiting", HumanCount(whole(shown.last.backlog)).to_string(), trend(&shown));
    if let Some(last) = shown.last_batches {
        tile(
            "Last batches",
            format!("{:.1} ms each", last.seconds / last.count * 1000.0),
            format!("{} batches, {} lines", whole(last.count), HumanCount(whole(last.lines))),
        );
    }
    body += "</section>\n";
    let lines: Vec<f64> = shown
        .samples
        .windows(2)
        .filter_map(|pair| Some(rate(pair.first()?, pair.get(1)?, |s| s.lines).max(0.0)))
        .collect();
    plot(&mut body, "Lines per second", &lines);
    plot(&mut body, "Entries waiting", &shown.samples.iter().map(|s| s.backlog).collect::<Vec<_>>());
    body += "<section><h2>State</h2><table>\n";
    for (name, state) in pages.health.states() {
        row(&mut body, &[name, &state]);
    }
    row(&mut body, &["running for", &HumanDuration(pages.begun.elapsed()).to_string()]);
    row(&mut body, &["version", pages.version]);
    body += "</table></section>\n";
    let group = pages.health.group();
    if !group.is_empty() {
        body += "<section><h2>Consumers of the group</h2><table>\n";
        for member in group {
            let pending = format!("{} pending", HumanCount(member.pending));
            row(&mut body, &[&member.name, &pending, &format!("active {} ago", HumanDuration(member.idle))]);
        }
        body += "</table></section>\n";
    }
    body += "<section><h2>Last warnings and errors</h2>\n";
    let told = logs::latest();
    if told.is_empty() {
        body += "<p class=more>none since the start</p>\n";
    } else {
        body += "<table>\n";
        for told in told {
            let ago = Duration::from_millis(u64::try_from(logs::now().saturating_sub(told.at)).unwrap_or(0));
            row(&mut body, &[&format!("{} ago", HumanDuration(ago)), &told.text]);
        }
        body += "</table>\n";
    }
    body += "</section>\n";
    PAGE.replacen("{title}", &escape(pages.name), 1).replacen("{body}", &body, 1)
}

fn trend(shown: &Snapshot) -> String {
    let speed = HumanCount(whole(shown.backlog_per_second.abs()));
    match shown.seconds_to_drain() {
        Some(0.0) => "nothing waits".to_owned(),
        Some(seconds) => {
            let left = HumanDuration(Duration::from_secs_f64(seconds.clamp(1.0, 1e9)));
            format!("shrinking by {speed}/s, drained in {left}")
        }
        None if shown.backlog_per_second > 0.0 => format!("growing by {speed}/s"),
        None => "neither growing nor shrinking".to_owned(),
    }
}

fn row(body: &mut String, cells: &[&str]) {
    *body += "<tr>";
    for (nth, cell) in cells.iter().enumerate() {
        let tag = if nth == 0 { "th" } else { "td" };
        let _ = write!(body, "<{tag}>{}</{tag}>", escape(cell));
    }
    *body += "</tr>\n";
}

/// A plot of the last minutes, drawn here so that it is there without a script.
#[expect(clippy::cast_precision_loss, reason = "some hundred samples")]
fn plot(body: &mut String, title: &str, values: &[f64]) {
    let most = values.iter().copied().fold(0.0, f64::max);
    let top = most.max(1.0);
    let step = WIDTH / (values.len().saturating_sub(1).max(1)) as f64;
    let mut points = String::new();
    for (nth, value) in values.iter().enumerate() {
        let _ = write!(points, "{:.1},{:.1} ", nth as f64 * step, HEIGHT - value / top * (HEIGHT - 4.0));
    }
    let span = HumanDuration(INTERVAL * u32::try_from(values.len()).unwrap_or(0));
    let name = escape(title);
    let _ = writeln!(
        body,
        "<figure><figcaption><b>{name}</b><span>at most {most}</span></figcaption>\
         <svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" preserveAspectRatio=none role=img aria-label=\"{name}, the last {span}\">\
         <polygon points=\"0,{HEIGHT} {points}{WIDTH},{HEIGHT}\"/><polyline points=\"{points}\"/></svg>\
         <p class=axis><span>{span} ago</span><span>now</span></p></figure>",
        most = HumanCount(whole(most)),
    );
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
