//! The baseline: the ratios of an earlier run, which travel with the code. Figures of two machines
//! cannot be compared, but their ratios within rounds can.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use benches::rounds::Spread;
use serde::{Deserialize, Serialize};

use super::results::Results;
use crate::{Error, Result};

/// A ratio has changed when it is this much beyond the spread of the baseline.
const MARGIN: f64 = 0.1;

/// The ratios by section, case and subject.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Baseline(BTreeMap<String, BTreeMap<String, BTreeMap<String, Ratio>>>);

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Ratio {
    least: f64,
    median: f64,
    most: f64,
}

impl Ratio {
    fn of(spread: Spread) -> Self {
        let rounded = |ratio: f64| (ratio * 1000.0).round() / 1000.0;
        Self { least: rounded(spread.least), median: rounded(spread.median), most: rounded(spread.most) }
    }
}

impl Baseline {
    pub(crate) fn read(text: &str) -> Result<Self> {
        serde_json::from_str(text).map_err(|error| Error::new(format!("benches/baseline.json: {error}")))
    }

    /// Replaces the known results of the sections that `results` has.
    pub(crate) fn learn(&mut self, results: &Results) {
        for section in &results.sections {
            let cases = section.cases.iter().map(|case| {
                let others = case.subjects.iter().skip(1);
                (case.name.clone(), others.map(|one| (one.name.clone(), Ratio::of(one.ratio))).collect())
            });
            self.0.insert(section.name.clone(), cases.collect());
        }
    }

    pub(crate) fn text(&self) -> Result<String> {
        let text = serde_json::to_string_pretty(self).map_err(|error| Error::new(format!("the baseline: {error}")))?;
        Ok(text + "\n")
    }

    /// What has changed: a line for each ratio, and one that counts them.
    pub(crate) fn compare(&self, results: &Results) -> String {
        let (mut text, mut known, mut changed) = (String::new(), 0, 0);
        for section in &results.sections {
            for case in &section.cases {
                for subject in &case.subjects {
                    let Some(before) =
                        self.0.get(&section.name).and_then(|cases| cases.get(&case.name)?.get(&subject.name))
                    else {
                        continue;
                    };
                    known += 1;
                    let now = subject.ratio.median;
                    if now < before.least * (1.0 - MARGIN) || now > before.most * (1.0 + MARGIN) {
                        changed += 1;
                        let (first, Ratio { least, median, most }) = (&case.subjects[0].name, before);
                        let _ = writeln!(
                            text,
                            "changed: {}, {}: {} needs {now:.2} × {first}; {median:.2} in the baseline ({least:.2} to {most:.2})",
                            section.name, case.name, subject.name,
                        );
                    }
                }
            }
        }
        let _ = writeln!(text, "{changed} of {known} ratios are not those of benches/baseline.json");
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn results(theirs: f64) -> Results {
        let text = format!(
            r#"{{"section":"a","case":"b","subject":"ours","unit":"s","samples":[1.0,2.0]}}
{{"section":"a","case":"b","subject":"theirs","unit":"s","samples":[{theirs},{}]}}"#,
            2.0 * theirs
        );
        Results::read(&text).unwrap()
    }

    #[test]
    fn only_what_is_beyond_the_spread_has_changed() {
        let mut baseline = Baseline::default();
        baseline.learn(&results(1.5));
        let baseline = Baseline::read(&baseline.text().unwrap()).unwrap();
        for (now, changed) in [(1.5, false), (1.6, false), (1.7, true), (1.4, false), (1.3, true)] {
            let text = baseline.compare(&results(now));
            assert_eq!(text.contains("changed: a, b: theirs needs"), changed, "{now}: {text}");
        }
        assert!(baseline.compare(&results(3.0)).ends_with("1 of 1 ratios are not those of benches/baseline.json\n"));
        assert!(Baseline::read("{").is_err());
    }
}
