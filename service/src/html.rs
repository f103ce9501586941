//! The status page. The server renders it completely, so it works without JavaScript.

use std::fmt::Write as _;
use std::time::Duration;

use indicatif::{HumanBytes, HumanCount, HumanDuration};

use crate::advice::noun;
use crate::history::{Snapshot, whole};
use crate::pages::ServicePages;
use crate::plot::plot;
use crate::sources::Query;
use crate::trend::about;
use crate::{logs, status};

/// The template around the data. It is self-contained: style, script and icon are inline.
const PAGE: &str = include_str!("status.html");

/// The Content-Security-Policy of the page: only its own style and script, identified by their
/// hashes, and requests to this service. Markup injected through a name cannot run.
pub(crate) const POLICY: &str = concat!(
    "default-src 'none'; style-src 'sha256-",
    env!("PAGE_STYLE"),
    "'; script-src 'sha256-",
    env!("PAGE_SCRIPT"),
    "'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
);

/// A consumer idle for less than this counts as active.
const ACTIVE: Duration = Duration::from_secs(2);

/// Marks data from Redis that is stale while Redis is unreachable.
const LAST_SEEN: &str = "as of the last connection to Redis";

/// Renders the page.
pub(crate) fn page(pages: &ServicePages, query: Query<'_>) -> String {
    let shown = pages.history.snapshot();
    let mut body = String::new();
    header(&mut body, pages, &shown);
    tiles(&mut body, pages, &shown);
    body += "<section class=plots>\n";
    let count = |n| HumanCount(whole(n)).to_string();
    plot(&mut body, "Lines per second", &shown.rates(|s| s.lines), count);
    plot(&mut body, "Bytes per second", &shown.rates(|s| s.bytes), bytes);
    if has_backlog(pages, &shown) {
        plot(&mut body, shown.backlog_title, &shown.samples.iter().map(|s| s.backlog).collect::<Vec<_>>(), count);
    }
    body += "</section>\n";
    errors(&mut body);
    state(&mut body, pages);
    consumers(&mut body, pages);
    partitions(&mut body, pages);
    sources(&mut body, pages, query);
    let title = format!("{} {} on {}", pages.name, pages.flow, host());
    PAGE.replacen("{title}", &escape(&title), 1).replacen("{body}", &body, 1)
}

fn header(body: &mut String, pages: &ServicePages, shown: &Snapshot) {
    let (class, words) = match pages.health.alive().and_then(|()| pages.health.ready()) {
        Err(reason) => ("bad", reason),
        Ok(()) if shown.is_waiting => ("slow", "waiting: the stream is full".to_owned()),
        Ok(()) if recent_warnings() > 0 => {
            let (count, work) = (recent_warnings(), if shown.lines_per_second > 0.0 { "working" } else { "ready" });
            ("slow", format!("{work}, with {count} {} in the last minute", noun(count, "warning")))
        }
        Ok(()) if shown.lines_per_second > 0.0 => ("ok", "working".to_owned()),
        Ok(()) if shown.position.is_some_and(|(at, size)| at < size) => {
            ("ok", "ready, the rest of the file is not confirmed yet".to_owned())
        }
        Ok(()) => ("ok", "ready, nothing new".to_owned()),
    };
    // The first clause says what is wrong; the rest (what happens now, advice) is shown smaller.
    let (what, todo) = words.split_once("; ").unwrap_or((&words, ""));
    let todo = if todo.is_empty() { String::new() } else { format!("<span class=todo>{}</span>", escape(todo)) };
    let _ = writeln!(
        body,
        "<header><h1>{}</h1><p class=flow>{}<br><small>{} · {}</small></p><p class=\"state {class}\" role=status>{}{todo}</p></header>",
        escape(pages.name),
        escape(&pages.flow),
        escape(&pages.redis),
        escape(&host()),
        escape(what)
    );
}

/// Whether the service measures its backlog in entries. A reader of many files does not.
fn has_backlog(pages: &ServicePages, shown: &Snapshot) -> bool {
    !(shown.has_position && pages.sources.is_used())
}

fn tiles(body: &mut String, pages: &ServicePages, shown: &Snapshot) {
    *body += "<section class=tiles>\n";
    let mut tile = |name: &str, figure: String, share: Option<f64>, more: String| {
        let share =
            share.map(|share| format!("<progress max=1 value={share:.4} aria-label=\"{}\"></progress>", escape(name)));
        let _ = writeln!(
            body,
            "<div><h2>{}</h2><p class=figure>{}</p>{}<p class=more>{}</p></div>",
            escape(name),
            escape(&figure),
            share.unwrap_or_default(),
            escape(&more)
        );
    };
    let rate = |rate: f64, text: String| if rate.is_nan() { "unknown".to_owned() } else { format!("{text}/s") };
    tile(
        "Lines",
        rate(shown.lines_per_second, HumanCount(whole(shown.lines_per_second)).to_string()),
        None,
        format!("{} since the start", HumanCount(whole(shown.last.lines))),
    );
    tile(
        "Bytes",
        rate(shown.bytes_per_second, bytes(shown.bytes_per_second)),
        None,
        format!("{} since the start", bytes(shown.last.bytes)),
    );
    if shown.has_position && shown.position.is_none() {
        tile(
            "Position in the file",
            "unknown".to_owned(),
            None,
            match pages.sources.is_used() {
                true => format!("not known yet of {} of the sources below", HumanCount(pages.sources.unknown() as u64)),
                false => "no file is being read, or its position is not confirmed yet".to_owned(),
            },
        );
    }
    if let Some((at, size)) = shown.position {
        let share = if size > 0.0 { at / size } else { 1.0 };
        let mut more = format!("{} of {}, {} left", bytes(at), bytes(size), bytes(size - at));
        if let Some(seconds) = shown.seconds_left().filter(|seconds| *seconds >= 1.0 && pages.health.redis_is_well()) {
            more += &format!(", about {}", about(seconds));
        }
        // Round down, so that an unfinished file does not show 100 %.
        let percent = if size > at { (share * 1000.0).floor() / 10.0 } else { 100.0 };
        tile("Position in the file", format!("{percent:.1} %"), Some(share), more);
    }
    if let Some((size, free)) = shown.output {
        tile("Output", bytes(size), None, format!("{} left on its disk", bytes(free)));
    }
    if has_backlog(pages, shown) {
        let backlog = shown.last.backlog;
        let figure = if backlog.is_nan() { "unknown".to_owned() } else { HumanCount(whole(backlog)).to_string() };
        let is_well = pages.health.redis_is_well();
        let more = if is_well { status::trend(pages, shown).words() } else { "Redis cannot be used".to_owned() };
        tile(shown.backlog_title, figure, None, more);
    }
    if let Some(last) = pages.health.last_batch() {
        tile(
            "Last batch",
            time(last.took),
            None,
            format!(
                "{} {}, {}, {}",
                HumanCount(last.lines),
                noun(last.lines, "line"),
                HumanBytes(last.bytes),
                ago(last.done.elapsed())
            ),
        );
    }
    if let Some((latency, measured)) = pages.health.latency() {
        tile(
            "From reader to disk",
            time(latency),
            None,
            format!("the last batch measured, {}", ago(measured.elapsed())),
        );
    }
    if let Some((server, _)) = pages.health.server().filter(|_| pages.health.redis_is_well()) {
        let used = HumanBytes(server.used_memory).to_string();
        let (share, more) = match server.max_memory {
            Some(most) => {
                let share = whole(server.used_memory as f64 / most as f64 * 100.0);
                (Some(share as f64 / 100.0), format!("{share} % of {}, {}", HumanBytes(most), server.policy))
            }
            None => (None, format!("without a limit, {}", server.policy)),
        };
        tile("Redis memory", used, share, more);
    }
    *body += "</section>\n";
}

fn state(body: &mut String, pages: &ServicePages) {
    *body += "<section><h2>State</h2><table>\n";
    for (name, state) in pages.health.states() {
        // The full sentence is in the header already.
        row(body, &[name, if state.contains("; ") { "cannot be used, see above" } else { &state }]);
    }
    let server = match pages.health.server() {
        Some((server, at)) => {
            let file = if server.append_only { "append-only file on" } else { "append-only file off" };
            format!("{}, {file}, queried {}", server.version, ago(at.elapsed()))
        }
        None => "unknown: not queried yet, or the user may not run INFO".to_owned(),
    };
    row(body, &["server", &server]);
    row(body, &["running for", &HumanDuration(pages.begun.elapsed()).to_string()]);
    row(body, &["version", pages.version]);
    *body += "</table></section>\n";
}

/// The consumers of the group. With many sources, each has a group of its own, and the list of the
/// sources has the number of its consumers.
fn consumers(body: &mut String, pages: &ServicePages) {
    if pages.sources.is_used() {
        return;
    }
    let members = pages.health.group();
    *body += "<section><h2>Consumers of the group</h2>\n";
    if !pages.health.redis_is_well() {
        let _ = writeln!(body, "<p class=more>{LAST_SEEN}</p>");
    }
    if members.is_empty() {
        *body += "<p class=more>none</p>\n";
    } else {
        *body += "<table>\n<tr><th scope=col>name</th><th scope=col>group</th><th scope=col class=number>pending</th><th scope=col>active</th></tr>\n";
        for member in &members {
            let pending = HumanCount(member.pending).to_string();
            numbers(body, &[&member.name, &member.group], &pending, &ago(member.idle));
        }
        *body += "</table>\n";
    }
    *body += "</section>\n";
}

/// The backlog of each partition, when there are several.
fn partitions(body: &mut String, pages: &ServicePages) {
    let partitions = pages.history.partitions();
    if partitions.len() < 2 {
        return;
    }
    *body += "<section><h2>Partitions</h2><table>\n<tr><th scope=col>partition</th><th scope=col class=number>entries waiting</th></tr>\n";
    for (partition, waiting) in partitions {
        let waiting = if waiting.is_nan() { "unknown".to_owned() } else { HumanCount(whole(waiting)).to_string() };
        let _ = writeln!(body, "<tr><th scope=row>{partition}</th><td class=number>{waiting}</td></tr>");
    }
    *body += "</table></section>\n";
}

/// The sources, when there are many: those that need attention first, or as the query says.
fn sources(body: &mut String, pages: &ServicePages, query: Query<'_>) {
    if !pages.sources.is_used() {
        return;
    }
    let (rows, count) = pages.sources.page(query);
    let has_groups = rows.iter().any(|row| row.consumers.is_some());
    let consumers = if has_groups { "<th scope=col class=number>consumers</th>" } else { "" };
    let states: Vec<String> = pages.sources.states().iter().map(|(state, count)| format!("{count} {state}")).collect();
    let _ = writeln!(
        body,
        "<section><h2>Sources</h2><p class=more>{} in all: {}</p><table>\n<tr><th scope=col><a href=\"/?sort=name\">name</a></th>\
         <th scope=col><a href=\"/?sort=state\">state</a></th><th scope=col class=number><a href=\"/\">waiting</a></th>\
         <th scope=col class=number><a href=\"/?sort=bytes\">bytes</a></th>{consumers}</tr>",
        HumanCount(count as u64),
        escape(&states.join(", "))
    );
    for row in rows {
        let waiting = row.backlog.map_or_else(|| "unknown".to_owned(), |waiting| HumanCount(waiting).to_string());
        let state = row.reason.map_or_else(|| row.state.to_owned(), |reason| format!("{}: {reason}", row.state));
        let consumers = row.consumers.map_or_else(|| "unknown".to_owned(), |count| HumanCount(count).to_string());
        let consumers = if has_groups { format!("<td class=number>{consumers}</td>") } else { String::new() };
        let _ = writeln!(
            body,
            "<tr><td>{}</td><td>{}</td><td class=number>{waiting}</td><td class=number>{}</td>{consumers}</tr>",
            escape(&row.name),
            escape(&state),
            HumanCount(row.bytes)
        );
    }
    *body += "</table>\n";
    if let Some(next) = query.next(count) {
        let _ = writeln!(body, "<p class=more><a href=\"/?{}\">more</a></p>", escape(&next));
    }
    *body += "</section>\n";
}

/// A row with texts, a number and a final text.
fn numbers(body: &mut String, texts: &[&str], number: &str, more: &str) {
    *body += "<tr>";
    for text in texts {
        let _ = write!(body, "<td>{}</td>", escape(text));
    }
    let _ = writeln!(body, "<td class=number>{}</td><td>{}</td></tr>", escape(number), escape(more));
}

/// The host name.
fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

fn errors(body: &mut String) {
    *body += "<section><h2>Last warnings and errors</h2>\n";
    let warnings = logs::latest();
    if warnings.is_empty() {
        *body += "<p class=more>none since the start</p>\n";
    } else {
        *body += "<table>\n";
        for warning in warnings {
            let passed = Duration::from_millis(u64::try_from(logs::now().saturating_sub(warning.at)).unwrap_or(0));
            let times = if warning.count > 1 { format!("{} times: ", warning.count) } else { String::new() };
            row(body, &[&ago(passed), &format!("{times}{}", warning.text)]);
        }
        *body += "</table>\n";
    }
    *body += "</section>\n";
}

/// The number of warnings and errors in the last minute.
fn recent_warnings() -> u64 {
    let now = logs::now();
    logs::latest().iter().filter(|warning| now.saturating_sub(warning.at) < 60_000).map(|warning| warning.count).sum()
}

fn row(body: &mut String, cells: &[&str]) {
    *body += "<tr>";
    for (nth, cell) in cells.iter().enumerate() {
        let (tag, scope) = if nth == 0 { ("th", " scope=row") } else { ("td", "") };
        let _ = write!(body, "<{tag}{scope}>{}</{tag}>", escape(cell));
    }
    *body += "</tr>\n";
}

fn bytes(number: f64) -> String {
    HumanBytes(whole(number)).to_string()
}

/// A time that may be short.
fn time(time: Duration) -> String {
    match time.as_secs_f64() {
        seconds if seconds < 1.0 => format!("{:.1} ms", seconds * 1000.0),
        seconds if seconds < 10.0 => format!("{seconds:.1} s"),
        _ => HumanDuration(time).to_string(),
    }
}

fn ago(time: Duration) -> String {
    if time < ACTIVE { "just now".to_owned() } else { format!("{} ago", HumanDuration(time)) }
}

/// Escapes text for use between tags and in attributes.
pub(crate) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;").replace('\'', "&#39;")
}
