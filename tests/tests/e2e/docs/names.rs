//! The tables of flags and of metrics are complete and correct.

use std::collections::BTreeSet;

use e2e::{Program, Rig, Service, text};

use super::flags;
use super::page::Page;

/// The names in backticks in the first column of a page's tables, with the second and third
/// columns.
fn rows(page: &str) -> Vec<(String, String, String)> {
    let page = Page::read(page);
    let cells = |line: &str| line.split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>();
    let rows = page.text.lines().filter(|line| line.starts_with("| `")).map(cells);
    rows.map(|cells| (cells[1].trim_matches('`').to_owned(), cells[2].clone(), cells[3].clone())).collect()
}

#[test]
fn the_table_of_flags_is_complete() {
    let documented = rows("docs/configuration.md");
    for program in [Program::Reader, Program::Writer] {
        let mut known = flags::of(program, None);
        known.retain(|flag| !["--help", "--version"].contains(&flag.as_str()));
        let of = |of: &str| of == "both" || of == program.name();
        let listed: BTreeSet<String> =
            documented.iter().filter(|(_, _, column)| of(column)).map(|(flag, ..)| flag.clone()).collect();
        assert_eq!(listed, known, "{}", program.name());
    }
}

#[test]
fn the_table_of_metrics_is_complete() {
    let documented = rows("docs/metrics.md");
    let rig = Rig::new();
    rig.write_input(text::numbered(0..100, 1));
    let (mut reader, mut writer) = (rig.reader().start(), rig.writer().start());
    rig.wait_delivered();
    for (program, service) in [("reader", &mut reader), ("writer", &mut writer)] {
        let listed: BTreeSet<String> = documented
            .iter()
            .filter(|(_, of, _)| of == "both" || of == program)
            .map(|(name, ..)| name.split('{').next().unwrap_or_default().to_owned())
            .collect();
        let found = names(service);
        for name in &found {
            assert!(
                listed.contains(name) || name.starts_with("process_"),
                "{program} has {name}, docs/metrics.md has not"
            );
        }
        for name in &listed {
            // These appear with the first error, or stand for many metrics.
            let is_there = found.contains(name) || ["line_stream_errors_total", "process_*"].contains(&name.as_str());
            assert!(is_there, "docs/metrics.md has {name}, {program} has not");
        }
    }
}

/// The metric families that a service exports.
fn names(service: &mut Service) -> BTreeSet<String> {
    let (_, page) = service.get("/metrics");
    page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).map(str::to_owned).collect()
}
