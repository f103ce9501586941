//! Paired rounds.
//!
//! On a machine with other work, two figures that were measured one after the other cannot be
//! compared. So in every round each subject does the same work once, in an order that is rotated
//! from round to round, and what is compared are the ratios within the rounds: their median, and
//! their range as the spread.

use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

/// A subject's work: does it once and says how long that took.
pub type Work<'a> = Box<dyn FnMut() -> Duration + 'a>;

/// A subject's work that is measured in several ways: does it once and gives a figure for each, or
/// `None` where it has none.
pub type Measured<'a> = Box<dyn FnMut() -> Vec<Option<f64>> + 'a>;

/// What a figure counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Unit {
    /// Seconds.
    #[serde(rename = "s")]
    Seconds,
    /// Bytes.
    #[serde(rename = "B")]
    Bytes,
    /// Hundredths of one core.
    #[serde(rename = "%")]
    Percent,
    /// Lines a second: more is better.
    #[serde(rename = "1/s")]
    PerSecond,
}

impl Unit {
    /// A figure with a unit that fits.
    #[must_use]
    pub fn shown(self, figure: f64) -> String {
        match self {
            Self::Seconds => shown(figure),
            Self::Bytes => format!("{:.1} MiB", figure / f64::from(1 << 20)),
            Self::Percent => format!("{figure:.2} %"),
            Self::PerSecond => format!("{:.2} M/s", figure / 1e6),
        }
    }
}

/// One way in which subjects are measured.
#[derive(Debug, Clone, Copy)]
pub struct Figure<'a> {
    /// What kind of thing.
    pub section: &'a str,
    /// Its name in the section.
    pub name: &'a str,
    /// What is counted.
    pub unit: Unit,
}

/// How many rounds, and where the results go.
#[derive(Debug)]
pub struct Rounds {
    rounds: usize,
    /// Everything once, to see that it works.
    once: bool,
    filter: Option<String>,
    results: Option<File>,
}

/// One thing to measure.
#[derive(Debug, Clone, Copy)]
pub struct Case<'a> {
    /// What kind of thing.
    pub section: &'a str,
    /// Its name in the section.
    pub name: &'a str,
    /// How many operations a subject's work is; figures are for one.
    pub operations: u32,
}

impl Rounds {
    /// From the command line of `cargo bench` and the environment: `--test` does everything once; a
    /// word picks the cases whose names hold it; `BENCH_ROUNDS` says how many rounds (9 unless
    /// set), `BENCH_RESULTS` to which file results are appended, one JSON object a line.
    #[must_use]
    pub fn from_env() -> Self {
        let args: Vec<String> = std::env::args().skip(1).collect();
        let once = args.iter().any(|arg| arg == "--test");
        let rounds = std::env::var("BENCH_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(9);
        let results = std::env::var_os("BENCH_RESULTS").map(PathBuf::from).map(|path| {
            let opened = File::options().append(true).create(true).open(&path);
            opened.unwrap_or_else(|error| panic!("BENCH_RESULTS={}: {error}", path.display()))
        });
        Self {
            rounds: if once { 1 } else { rounds },
            once,
            filter: args.into_iter().find(|arg| !arg.starts_with('-')),
            results,
        }
    }

    /// Whether everything is done but once, to see that it works.
    #[must_use]
    pub const fn is_test(&self) -> bool {
        self.once
    }

    /// Whether this case is wanted.
    #[must_use]
    pub fn wants(&self, section: &str, name: &str) -> bool {
        self.filter.as_ref().is_none_or(|filter| format!("{section} {name}").contains(filter.as_str()))
    }

    /// Measures the case and prints a line for every subject. The first subject is the one the
    /// others are compared with.
    pub fn run(&mut self, case: Case<'_>, subjects: &mut [(&str, Work<'_>)]) {
        let Case { section, name, operations } = case;
        let mut measured: Vec<(&str, Measured<'_>)> = Vec::with_capacity(subjects.len());
        for (subject, work) in subjects {
            measured.push((subject, Box::new(move || vec![Some(work().as_secs_f64() / f64::from(operations))])));
        }
        self.run_measured(&[Figure { section, name, unit: Unit::Seconds }], &mut measured);
    }

    /// Measures works in several ways at once, and prints a line for every figure and subject. The
    /// first subject that has a figure is the one that the others are compared with. Nothing is
    /// done when the first figure is not wanted.
    ///
    /// Answers with what was measured: of each subject, in each round, each figure.
    pub fn run_measured(
        &mut self,
        figures: &[Figure<'_>],
        subjects: &mut [(&str, Measured<'_>)],
    ) -> Vec<Vec<Vec<Option<f64>>>> {
        if figures.first().is_none_or(|first| !self.wants(first.section, first.name)) {
            return Vec::new();
        }
        let mut samples = vec![Vec::new(); subjects.len()];
        if !self.is_test() {
            // The first time is for caches and connections.
            for (_, work) in subjects.iter_mut() {
                work();
            }
        }
        for round in 0..self.rounds {
            for turn in 0..subjects.len() {
                let nth = (turn + round) % subjects.len();
                samples[nth].push(subjects[nth].1());
            }
        }
        for (nth, figure) in figures.iter().enumerate() {
            let of_figure = subjects.iter().zip(&samples).filter_map(|((subject, _), rounds)| {
                Some((*subject, rounds.iter().map(|figures| figures[nth]).collect::<Option<Vec<f64>>>()?))
            });
            self.tell(*figure, &of_figure.collect::<Vec<_>>());
        }
        samples
    }

    /// Prints what was measured, one figure a round for each subject, and appends it to the
    /// results.
    ///
    /// # Panics
    ///
    /// When the results cannot be written.
    pub fn tell(&mut self, figure: Figure<'_>, samples: &[(&str, Vec<f64>)]) {
        let Figure { section, name, unit } = figure;
        println!("{section}: {name}");
        for (subject, of_subject) in samples {
            let ratios = of_subject.iter().zip(&samples[0].1).map(|(theirs, ours)| theirs / ours).collect::<Vec<_>>();
            let spread = Spread::of(&ratios);
            println!(
                "  {subject:<28} {:>12}   × {:.2} ({:.2} to {:.2})",
                unit.shown(Spread::of(of_subject).median),
                spread.median,
                spread.least,
                spread.most
            );
            if let Some(file) = &mut self.results {
                let line = serde_json::json!({
                    "section": section, "case": name, "subject": subject, "unit": unit, "less_is_better": unit != Unit::PerSecond, "samples": of_subject,
                });
                writeln!(file, "{line}").expect("write the results");
            }
        }
    }
}

/// The middle and the ends of some figures.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// The smallest.
    pub least: f64,
    /// The one in the middle; of an even number, the mean of the two.
    pub median: f64,
    /// The largest.
    pub most: f64,
}

impl Spread {
    /// Of at least one figure.
    ///
    /// # Panics
    ///
    /// Without any figure.
    #[must_use]
    pub fn of(figures: &[f64]) -> Self {
        let mut sorted = figures.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (least, most) = (sorted[0], sorted[sorted.len() - 1]);
        let median = f64::midpoint(sorted[(sorted.len() - 1) / 2], sorted[sorted.len() / 2]);
        Self { least, median, most }
    }
}

/// Seconds with a unit that fits.
#[must_use]
pub fn shown(seconds: f64) -> String {
    let (figure, unit) = match seconds {
        s if s < 1e-6 => (s * 1e9, "ns"),
        s if s < 1e-3 => (s * 1e6, "µs"),
        s if s < 1.0 => (s * 1e3, "ms"),
        s => (s, "s"),
    };
    format!("{figure:.2} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_spread_of_figures() {
        assert_eq!(Spread::of(&[3.0, 1.0, 2.0]), Spread { least: 1.0, median: 2.0, most: 3.0 });
        assert_eq!(Spread::of(&[4.0, 1.0]).median, 2.5);
    }

    #[test]
    fn times_are_shown_with_a_unit_that_fits() {
        let all = [2.5e-9, 3.0e-5, 0.25, 12.0].map(shown);
        assert_eq!(all, ["2.50 ns", "30.00 µs", "250.00 ms", "12.00 s"]);
    }

    #[test]
    fn every_subject_works_once_a_round_and_once_before() {
        let mut rounds = Rounds { rounds: 4, once: false, filter: None, results: None };
        let (mut ours, mut theirs) = (0, 0);
        let mut subjects: Vec<(&str, Work<'_>)> = vec![
            (
                "ours",
                Box::new(|| {
                    ours += 1;
                    Duration::from_millis(1)
                }),
            ),
            (
                "theirs",
                Box::new(|| {
                    theirs += 1;
                    Duration::from_millis(2)
                }),
            ),
        ];
        rounds.run(Case { section: "a", name: "b", operations: 1 }, &mut subjects);
        drop(subjects);
        assert_eq!((ours, theirs), (5, 5));
    }

    #[test]
    fn a_work_is_measured_in_several_ways_and_a_figure_that_it_has_not_is_left_out() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("results");
        let results = File::create(&path).expect("a file");
        let mut rounds = Rounds { rounds: 1, once: true, filter: None, results: Some(results) };
        let figures = [("time", Unit::Seconds), ("memory", Unit::Bytes)];
        let figures = figures.map(|(name, unit)| Figure { section: "a", name, unit });
        let mut subjects: Vec<(&str, Measured<'_>)> =
            vec![("floor", Box::new(|| vec![Some(1.0), None])), ("ours", Box::new(|| vec![Some(2.0), Some(3.0)]))];
        rounds.run_measured(&figures, &mut subjects);
        let results = std::fs::read_to_string(&path).expect("results");
        let results: Vec<serde_json::Value> =
            results.lines().map(|line| serde_json::from_str(line).expect("an object")).collect();
        let results: Vec<_> = results.iter().map(|line| (&line["case"], &line["subject"], &line["unit"])).collect();
        assert_eq!(results.len(), 3, "{results:?}");
        assert_eq!(results[2], (&"memory".into(), &"ours".into(), &"B".into()));
    }

    #[test]
    fn figures_are_shown_in_their_unit() {
        assert_eq!(Unit::Bytes.shown(3_145_728.0), "3.0 MiB");
        assert_eq!(Unit::Percent.shown(0.123), "0.12 %");
    }
}
