//! The results, as the benches wrote them.

use std::collections::HashMap;

use benches::rounds::{Spread, Unit};
use serde::Deserialize;

use crate::{Error, Result};

/// All results, in the order of measurement.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Results {
    pub(crate) sections: Vec<Section>,
}

/// Cases of one kind.
#[derive(Debug, PartialEq)]
pub(crate) struct Section {
    pub(crate) name: String,
    pub(crate) cases: Vec<Case>,
}

/// Subjects that did the same work in paired rounds.
#[derive(Debug, PartialEq)]
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) unit: Unit,
    /// How many rounds there were.
    pub(crate) rounds: usize,
    pub(crate) subjects: Vec<Subject>,
}

/// One of them.
#[derive(Debug, PartialEq)]
pub(crate) struct Subject {
    pub(crate) name: String,
    /// What was measured.
    pub(crate) figure: Spread,
    /// Its figure divided by that of the case's first subject, round by round.
    pub(crate) ratio: Spread,
}

/// A line of the file.
#[derive(Deserialize)]
struct Line {
    section: String,
    case: String,
    subject: String,
    unit: Unit,
    samples: Vec<f64>,
}

impl Results {
    pub(crate) fn read(text: &str) -> Result<Self> {
        let mut results = Self::default();
        // The samples of each case's first subject.
        let mut firsts: HashMap<(String, String), Vec<f64>> = HashMap::new();
        for (number, line) in text.lines().enumerate() {
            let wrong = |what: &str| Error::new(format!("line {} of the results: {what}", number + 1));
            let Line { section, case, subject, unit, samples } =
                serde_json::from_str(line).map_err(|error| wrong(&error.to_string()))?;
            let first = firsts.entry((section.clone(), case.clone())).or_insert_with(|| samples.clone());
            if samples.is_empty() || samples.len() != first.len() {
                return Err(wrong("its samples are not paired with those of the first subject"));
            }
            let ratios: Vec<f64> = samples.iter().zip(first.iter()).map(|(theirs, first)| theirs / first).collect();
            let subject = Subject { name: subject, figure: Spread::of(&samples), ratio: Spread::of(&ratios) };
            let at = position(&results.sections, |known| known.name == section).unwrap_or_else(|| {
                results.sections.push(Section { name: section, cases: Vec::new() });
                results.sections.len() - 1
            });
            let cases = &mut results.sections[at].cases;
            match position(cases, |known| known.name == case) {
                Some(at) => cases[at].subjects.push(subject),
                None => cases.push(Case { name: case, unit, rounds: samples.len(), subjects: vec![subject] }),
            }
        }
        Ok(results)
    }
}

fn position<T>(all: &[T], is_it: impl FnMut(&T) -> bool) -> Option<usize> {
    all.iter().position(is_it)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_paired_with_those_of_the_first_subject() {
        let text = r#"{"section":"a","case":"b","subject":"ours","unit":"s","less_is_better":true,"samples":[1.0,2.0,4.0]}
{"section":"a","case":"b","subject":"theirs","unit":"s","less_is_better":true,"samples":[2.0,6.0,4.0]}
{"section":"a","case":"c","subject":"alone","unit":"B","less_is_better":true,"samples":[1.0]}
{"section":"b","case":"b","subject":"ours","unit":"s","less_is_better":true,"samples":[1.0]}
{"section":"a","case":"b","subject":"late","unit":"s","less_is_better":true,"samples":[3.0,6.0,12.0]}
"#;
        let results = Results::read(text).unwrap();
        let [section, _] = &results.sections[..] else { panic!("{results:?}") };
        let [paired, alone] = &section.cases[..] else { panic!("{results:?}") };
        assert_eq!(paired.subjects[1].ratio, Spread { least: 1.0, median: 2.0, most: 3.0 });
        assert_eq!(paired.subjects[2].ratio.median, 3.0, "compared with the first, wherever it is");
        assert_eq!((paired.unit, alone.unit), (Unit::Seconds, Unit::Bytes));
        assert_eq!(alone.subjects[0].ratio, Spread { least: 1.0, median: 1.0, most: 1.0 });
        let unpaired = text.replace("[2.0,6.0,4.0]", "[2.0]");
        assert!(Results::read(&unpaired).is_err());
    }
}
