//! The page with the results. Each section carries its own date and machine, so that one can be
//! measured again alone.

use std::fmt::Write as _;

use super::machine::About;
use super::plot;
use super::results::{Results, Section};

const HEAD: &str = "# Results

Written by `cargo xtask bench`; `cargo xtask bench --help` shows how to measure a part of it.

In every round each subject does the same work once, in an order that changes from round to round.
The ratio is a subject's figure divided by the figure of the first subject of its case in the same
round. The table has the median of all rounds, and the smallest and the largest ratio as the spread.
**Above 1 the first subject is better**: it needs less time or less memory. With lines per second it
is the other way round. The figures are medians too, but compare ratios: figures of two subjects
were not measured at the same moment. Memory is the largest resident size of a process.
";

/// The page: what was there before, with the sections that were measured now in place of the old
/// ones.
pub(crate) fn page(before: &str, results: &Results, about: &About) -> String {
    let mut sections: Vec<(String, String)> = before
        .split("\n## ")
        .skip(1)
        .filter_map(|part| Some((part.split_once('\n')?.0.to_owned(), format!("## {}", part.trim_end()))))
        .collect();
    for section in &results.sections {
        let text = section_text(section, about);
        match sections.iter_mut().find(|(name, _)| *name == section.name) {
            Some((_, old)) => *old = text,
            None => sections.push((section.name.clone(), text)),
        }
    }
    let texts: Vec<String> = sections.into_iter().map(|(_, text)| text).collect();
    format!("{HEAD}\n{}\n", texts.join("\n\n"))
}

fn section_text(section: &Section, about: &About) -> String {
    let About { date, processor, cores, memory, kernel, server, rustc } = about;
    let mut text = format!("## {}\n\n![{0}](plots/{})\n\n", section.name, plot::file_name(&section.name));
    text.push_str("| case | subject | figure | ratio | spread |\n|---|---|--:|--:|--:|\n");
    for case in &section.cases {
        for (nth, subject) in case.subjects.iter().enumerate() {
            let name = if nth == 0 { &case.name[..] } else { "" };
            let ratio = subject.ratio;
            let _ = writeln!(
                text,
                "| {name} | {} | {} | {:.2} | {:.2} to {:.2} |",
                subject.name,
                case.unit.shown(subject.figure.median),
                ratio.median,
                ratio.least,
                ratio.most
            );
        }
    }
    let rounds = match section.cases.first().map_or(0, |case| case.rounds) {
        1 => "1 round".to_owned(),
        rounds => format!("{rounds} rounds"),
    };
    let _ = write!(text, "\n{date}, {rounds}; {processor}, {cores} cores, {memory}, {kernel}; {server}; {rustc}");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about(date: &str) -> About {
        let [processor, memory, kernel, server, rustc] = ["p", "m", "k", "s", "r"].map(str::to_owned);
        About { date: date.to_owned(), processor, cores: 2, memory, kernel, server, rustc }
    }

    fn results(section: &str) -> Results {
        let line = format!(r#"{{"section":"{section}","case":"b","subject":"ours","unit":"s","samples":[1.0]}}"#);
        Results::read(&line).unwrap()
    }

    #[test]
    fn a_section_that_is_measured_again_replaces_the_old_one() {
        let first = page("", &results("one"), &about("2026-01-01"));
        let both = page(&first, &results("two"), &about("2026-01-02"));
        let again = page(&both, &results("one"), &about("2026-01-03"));
        assert_eq!(again.matches("## one").count(), 1);
        assert!(again.find("2026-01-03") < again.find("## two") && again.contains("2026-01-02"), "{again}");
        assert!(!again.contains("2026-01-01"));
        assert!(again.contains("| b | ours | 1.00 s | 1.00 | 1.00 to 1.00 |"), "{again}");
    }
}
