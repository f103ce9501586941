//! What was measured, as the benches wrote it.

use benches::rounds::Spread;
use serde::Deserialize;

use crate::{Error, Result};

/// Everything that was measured, in the order in which it was.
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
    pub(crate) subjects: Vec<Subject>,
}

/// One of them.
#[derive(Debug, PartialEq)]
pub(crate) struct Subject {
    pub(crate) name: String,
    /// Seconds an operation.
    pub(crate) time: Spread,
    /// Its time divided by that of the case's first subject, round by round.
    pub(crate) ratio: Spread,
}

/// A line of the file.
#[derive(Deserialize)]
struct Line {
    section: String,
    case: String,
    subject: String,
    samples: Vec<f64>,
}

impl Results {
    pub(crate) fn read(text: &str) -> Result<Self> {
        let mut results = Self::default();
        let mut first: Vec<f64> = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let wrong = |what: &str| Error::new(format!("line {} of the results: {what}", number + 1));
            let Line { section, case, subject, samples } =
                serde_json::from_str(line).map_err(|error| wrong(&error.to_string()))?;
            if results.sections.last().is_none_or(|last| last.name != section) {
                results.sections.push(Section { name: section, cases: Vec::new() });
            }
            let Some(section) = results.sections.last_mut() else { continue };
            if section.cases.last().is_none_or(|last| last.name != case) {
                section.cases.push(Case { name: case, subjects: Vec::new() });
                first.clone_from(&samples);
            }
            let Some(case) = section.cases.last_mut() else { continue };
            if samples.is_empty() || samples.len() != first.len() {
                return Err(wrong("its samples are not paired with those of the first subject"));
            }
            let ratios: Vec<f64> = samples.iter().zip(&first).map(|(theirs, first)| theirs / first).collect();
            case.subjects.push(Subject { name: subject, time: Spread::of(&samples), ratio: Spread::of(&ratios) });
        }
        Ok(results)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_paired_with_those_of_the_first_subject() {
        let text = r#"{"section":"a","case":"b","subject":"ours","unit":"s","less_is_better":true,"samples":[1.0,2.0,4.0]}
{"section":"a","case":"b","subject":"theirs","unit":"s","less_is_better":true,"samples":[2.0,6.0,4.0]}
{"section":"a","case":"c","subject":"alone","unit":"s","less_is_better":true,"samples":[1.0]}
"#;
        let results = Results::read(text).unwrap();
        let [section] = &results.sections[..] else { panic!("{results:?}") };
        let [paired, alone] = &section.cases[..] else { panic!("{results:?}") };
        assert_eq!(paired.subjects[1].ratio, Spread { least: 1.0, median: 2.0, most: 3.0 });
        assert_eq!(alone.subjects[0].ratio, Spread { least: 1.0, median: 1.0, most: 1.0 });
        let unpaired = text.replace("[2.0,6.0,4.0]", "[2.0]");
        assert!(Results::read(&unpaired).is_err());
    }
}
