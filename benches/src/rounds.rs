//! Paired rounds.
//!
//! On a machine with other load, two figures that were measured one after another are not
//! comparable. In each round, every subject therefore does the same work once, in an order that
//! rotates from round to round. The results are the ratios within the rounds: their median, and
//! their range as the spread.

use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

/// The work of a subject: runs it once and returns the time.
pub type Work<'a> = Box<dyn FnMut() -> Duration + 'a>;

/// The work of a subject with several figures: runs it once and returns each figure, or `None` for
/// a figure that it lacks.
pub type Measured<'a> = Box<dyn FnMut() -> Vec<Option<f64>> + 'a>;

/// The unit of a figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Unit {
    /// Seconds.
    #[serde(rename = "s")]
    Seconds,
    /// Bytes.
    #[serde(rename = "B")]
    Bytes,
    /// Percent of one core.
    #[serde(rename = "%")]
    Percent,
    /// Lines per second: more is better.
    #[serde(rename = "1/s")]
    PerSecond,
    /// A number of things.
    #[serde(rename = "")]
    Count,
}

impl Unit {
    /// Formats a figure with a suitable unit.
    #[must_use]
    pub fn shown(self, figure: f64) -> String {
        match self {
            Self::Seconds => shown(figure),
            Self::Bytes => format!("{:.1} MiB", figure / f64::from(1 << 20)),
            Self::Percent => format!("{figure:.2} %"),
            Self::PerSecond => format!("{:.2} M/s", figure / 1e6),
            Self::Count => format!("{figure:.0}"),
        }
    }
}

/// A figure to measure.
#[derive(Debug, Clone, Copy)]
pub struct Figure<'a> {
    /// The section of the results.
    pub section: &'a str,
    /// The name within the section.
    pub name: &'a str,
    /// The unit.
    pub unit: Unit,
}

/// The number of rounds, and the destination of the results.
#[derive(Debug)]
pub struct Rounds {
    rounds: usize,
    /// Run everything once, to test it.
    once: bool,
    filter: Option<String>,
    results: Option<File>,
}

/// A case to measure.
#[derive(Debug, Clone, Copy)]
pub struct Case<'a> {
    /// The section of the results.
    pub section: &'a str,
    /// The name within the section.
    pub name: &'a str,
    /// The number of operations in a subject's work; figures are per operation.
    pub operations: u32,
}

impl Rounds {
    /// From the command line of `cargo bench` and the environment. `--test` runs everything once; a
    /// word selects the cases whose names contain it. `BENCH_ROUNDS` sets the number of rounds
    /// (default 9), `BENCH_RESULTS` the file to which results are appended, one JSON object per
    /// line.
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

    /// Whether each benchmark runs once only, as a test of the benchmark.
    #[must_use]
    pub const fn is_test(&self) -> bool {
        self.once
    }

    /// Whether this case is selected.
    #[must_use]
    pub fn wants(&self, section: &str, name: &str) -> bool {
        self.filter.as_ref().is_none_or(|filter| format!("{section} {name}").contains(filter.as_str()))
    }

    /// Measures the case, and prints a line per subject. The first subject is the baseline.
    pub fn run(&mut self, case: Case<'_>, subjects: &mut [(&str, Work<'_>)]) {
        let Case { section, name, operations } = case;
        let mut measured: Vec<(&str, Measured<'_>)> = Vec::with_capacity(subjects.len());
        for (subject, work) in subjects {
            measured.push((subject, Box::new(move || vec![Some(work().as_secs_f64() / f64::from(operations))])));
        }
        self.run_measured(&[Figure { section, name, unit: Unit::Seconds }], &mut measured);
    }

    /// Measures several figures at once, and prints a line per figure and subject. The first
    /// subject that has a figure is its baseline. Does nothing if the first figure is not selected.
    ///
    /// Returns the samples: per subject, round and figure.
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
            // The first run warms up caches and connections.
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

    /// Prints the samples of one figure, one per round and subject, and appends them to the
    /// results.
    ///
    /// # Panics
    ///
    /// If the results cannot be written.
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

/// Median and range of some samples.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// The minimum.
    pub least: f64,
    /// The median; with an even number of samples, the mean of the two middle ones.
    pub median: f64,
    /// The maximum.
    pub most: f64,
}

impl Spread {
    /// The spread of at least one sample.
    ///
    /// # Panics
    ///
    /// Without samples.
    #[must_use]
    pub fn of(figures: &[f64]) -> Self {
        let mut sorted = figures.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (least, most) = (sorted[0], sorted[sorted.len() - 1]);
        let median = f64::midpoint(sorted[(sorted.len() - 1) / 2], sorted[sorted.len() / 2]);
        Self { least, median, most }
    }
}

/// Formats seconds with a suitable unit.
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
    fn the_spread_is_median_and_range() {
        assert_eq!(Spread::of(&[3.0, 1.0, 2.0]), Spread { least: 1.0, median: 2.0, most: 3.0 });
        assert_eq!(Spread::of(&[4.0, 1.0]).median, 2.5);
    }

    #[test]
    fn times_are_formatted_with_a_suitable_unit() {
        let all = [2.5e-9, 3.0e-5, 0.25, 12.0].map(shown);
        assert_eq!(all, ["2.50 ns", "30.00 µs", "250.00 ms", "12.00 s"]);
    }

    #[test]
    fn every_subject_runs_once_per_round_and_once_before() {
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
    fn a_work_has_several_figures_and_missing_ones_are_omitted() {
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
    fn figures_are_formatted_in_their_unit() {
        assert_eq!(Unit::Bytes.shown(3_145_728.0), "3.0 MiB");
        assert_eq!(Unit::Percent.shown(0.123), "0.12 %");
    }
}
