//! The report of `writer verify`, as text and as JSON.

use delivery::entry::{Span, span_len};
use serde::{Serialize, Serializer};
use service::advice::noun;
use std::fmt;

/// Maximum number of listed ranges of a kind; further ones are only counted in bytes.
const LISTED: usize = 1000;

/// Byte ranges of one kind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Ranges {
    listed: Vec<Span>,
    bytes: u64,
}

impl Ranges {
    /// Adds a range. Joins it to the last one if they are adjacent.
    pub(crate) fn add(&mut self, span: Span) {
        if span.is_empty() {
            return;
        }
        self.bytes = self.bytes.saturating_add(span_len(&span));
        let is_full = self.listed.len() >= LISTED;
        match self.listed.last_mut() {
            Some(last) if last.end == span.start => last.end = span.end,
            _ if !is_full => self.listed.push(span),
            _ => {}
        }
    }

    /// Whether there is none.
    pub(crate) const fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// The total number of bytes.
    #[cfg(test)]
    pub(crate) const fn bytes(&self) -> u64 {
        self.bytes
    }

    #[cfg(test)]
    pub(crate) fn listed(&self) -> &[Span] {
        &self.listed
    }
}

impl Serialize for Ranges {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.listed.iter().map(|span| [span.start, span.end]))
    }
}

/// The differences in one input. Offsets are offsets in the input.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct InputReport {
    /// The path of the input.
    pub(crate) path: String,
    /// The length of the input.
    pub(crate) bytes: u64,
    /// The file ID of its content; `None` if no output has bytes of it, or if there is no journal.
    pub(crate) content: Option<u64>,
    /// The file ID of the content whose first bytes it has, if it is a copy of another input.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) copy_of: Option<u64>,
    /// Why a compressed input could not be read further. `bytes` is the length up to there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) broken: Option<String>,
    /// Missing in all outputs.
    pub(crate) missing: Ranges,
    /// More than once in the outputs.
    pub(crate) doubled: Ranges,
    /// In the outputs, but with other bytes.
    pub(crate) different: Ranges,
    /// In the outputs, but after the end of the input.
    pub(crate) beyond: Ranges,
}

/// The differences in one output. Offsets are offsets in the output.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct OutputReport {
    /// The path of the output.
    pub(crate) path: String,
    /// The number of compared bytes.
    pub(crate) bytes: u64,
    /// Whether the ranges are in the order of the source.
    pub(crate) in_order: bool,
    /// Bytes from before the writer's first commit; not compared.
    pub(crate) before: u64,
    /// Bytes after the last commit; not part of the output.
    pub(crate) torn: u64,
    /// Bytes that belong to none of the inputs.
    pub(crate) extra: Ranges,
}

/// The result of `writer verify`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Report {
    /// One report per input.
    pub(crate) inputs: Vec<InputReport>,
    /// One report per output.
    pub(crate) outputs: Vec<OutputReport>,
}

impl Report {
    /// Whether the outputs contain every byte of the inputs exactly once, and nothing else.
    pub(crate) fn is_identical(&self) -> bool {
        let inputs =
            self.inputs.iter().flat_map(|input| [&input.missing, &input.doubled, &input.different, &input.beyond]);
        inputs.chain(self.outputs.iter().map(|output| &output.extra)).all(|ranges| ranges.bytes == 0)
    }

    /// The report as JSON.
    pub(crate) fn json(&self) -> String {
        self.value().to_string()
    }

    fn value(&self) -> serde_json::Value {
        let sums = self.sums();
        serde_json::json!({
            "identical": self.is_identical(),
            "bytes": sums.bytes,
            "missing_bytes": sums.missing,
            "doubled_bytes": sums.doubled,
            "different_bytes": sums.different,
            "extra_bytes": sums.extra,
            "inputs": self.inputs,
            "outputs": self.outputs,
        })
    }

    fn sums(&self) -> Sums {
        let mut sums = Sums::default();
        for input in &self.inputs {
            // The bytes of a copy are those of another input.
            sums.add(&Sums {
                bytes: if input.copy_of.is_some() { 0 } else { input.bytes },
                missing: input.missing.bytes,
                doubled: input.doubled.bytes,
                different: input.different.bytes,
                extra: input.beyond.bytes,
            });
        }
        for output in &self.outputs {
            sums.add(&Sums { extra: output.extra.bytes, ..Sums::default() });
        }
        sums
    }

    /// One line per finding.
    fn findings(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for output in &self.outputs {
            if output.before > 0 {
                writeln!(
                    f,
                    "{}: its first {} bytes are from before the writer; not compared",
                    output.path, output.before
                )?;
            }
            if output.torn > 0 {
                writeln!(
                    f,
                    "{}: its last {} bytes were never committed; not part of the output",
                    output.path, output.torn
                )?;
            }
            if !output.in_order {
                writeln!(f, "{}: not in the order of the source (writer merge restores it)", output.path)?;
            }
        }
        for input in &self.inputs {
            if let Some(why) = &input.broken {
                writeln!(f, "{}: decompressed only up to byte {}: {why}", input.path, input.bytes)?;
            }
            if input.copy_of.is_some() {
                writeln!(f, "{}: a copy of another input", input.path)?;
            }
            let kinds = [
                (&input.missing, "missing in the output"),
                (&input.doubled, "more than once in the output"),
                (&input.different, "different in the output"),
                (&input.beyond, "in the output, after the end of the input"),
            ];
            for (ranges, what) in kinds {
                list(f, &input.path, ranges, what)?;
            }
        }
        for output in &self.outputs {
            list(f, &output.path, &output.extra, "of none of the inputs")?;
        }
        Ok(())
    }
}

/// Numbers of bytes.
#[derive(Debug, Clone, Copy, Default)]
struct Sums {
    bytes: u64,
    missing: u64,
    doubled: u64,
    different: u64,
    extra: u64,
}

impl Sums {
    fn add(&mut self, other: &Self) {
        let Self { bytes, missing, doubled, different, extra } = self;
        let pairs = [
            (bytes, other.bytes),
            (missing, other.missing),
            (doubled, other.doubled),
            (different, other.different),
            (extra, other.extra),
        ];
        pairs.into_iter().for_each(|(sum, more)| *sum = sum.saturating_add(more));
    }
}

/// `10 bytes 3 missing, 4 doubled`.
impl fmt::Display for Sums {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { bytes, missing, doubled, different, extra } = *self;
        write!(f, "{bytes} {}", noun(bytes, "byte"))?;
        let sums =
            [(missing, "missing"), (doubled, "doubled"), (different, "different"), (extra, "that do not belong there")];
        let mut separator = "";
        for (bytes, what) in sums.into_iter().filter(|(bytes, _)| *bytes > 0) {
            write!(f, "{separator} {bytes} {what}")?;
            separator = ",";
        }
        Ok(())
    }
}

/// One line per finding, the verdict last.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.findings(f)?;
        match self.is_identical() {
            true => write!(f, "identical: {}, each exactly once", self.sums()),
            false => write!(f, "NOT identical: of {}", self.sums()),
        }
    }
}

/// The result of `writer verify` for a tree.
#[derive(Debug, Clone, Default)]
pub(crate) struct TreeReport {
    /// The name and the report of each source.
    sources: Vec<(String, Report)>,
    /// The number of sources that differ.
    differing: u64,
    sums: Sums,
}

impl TreeReport {
    /// Adds the report of a source.
    pub(crate) fn add(&mut self, name: String, report: Report) {
        self.differing = self.differing.saturating_add(u64::from(!report.is_identical()));
        self.sums.add(&report.sums());
        self.sources.push((name, report));
    }

    /// Whether all sources are identical.
    pub(crate) const fn is_identical(&self) -> bool {
        self.differing == 0
    }

    /// The report as JSON: the fields of a report, with the reports of the sources in a list.
    pub(crate) fn json(&self) -> String {
        let source = |(name, report): &(String, Report)| {
            let mut value = report.value();
            if let Some(fields) = value.as_object_mut() {
                fields.insert("name".to_owned(), name.as_str().into());
            }
            value
        };
        let value = serde_json::json!({
            "identical": self.is_identical(),
            "differing_sources": self.differing,
            "bytes": self.sums.bytes,
            "missing_bytes": self.sums.missing,
            "doubled_bytes": self.sums.doubled,
            "different_bytes": self.sums.different,
            "extra_bytes": self.sums.extra,
            "sources": self.sources.iter().map(source).collect::<Vec<_>>(),
        });
        value.to_string()
    }
}

/// One line per finding, the verdict over all sources last.
impl fmt::Display for TreeReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (_, report) in &self.sources {
            report.findings(f)?;
        }
        let (count, sums) = (self.sources.len() as u64, &self.sums);
        let sources = noun(count, "source");
        match self.is_identical() {
            true => write!(f, "identical: {count} {sources}, {sums}, each exactly once"),
            false => write!(f, "NOT identical: {} of {count} {sources}: of {sums}", self.differing),
        }
    }
}

fn list(f: &mut fmt::Formatter<'_>, path: &str, ranges: &Ranges, what: &str) -> fmt::Result {
    for span in &ranges.listed {
        let bytes = span_len(span);
        writeln!(f, "{path}: bytes {}..{} ({bytes} {}): {what}", span.start, span.end, noun(bytes, "byte"))?;
    }
    let listed: u64 = ranges.listed.iter().map(span_len).sum();
    let more = ranges.bytes.saturating_sub(listed);
    if more > 0 {
        writeln!(f, "{path}: and {more} {} more: {what}", noun(more, "byte"))?;
    }
    Ok(())
}
