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

    /// The number of bytes of one kind, in all inputs.
    fn total(&self, kind: fn(&InputReport) -> &Ranges) -> u64 {
        self.inputs.iter().map(|input| kind(input).bytes).sum()
    }

    /// The number of bytes in the outputs that belong to no input.
    fn extra(&self) -> u64 {
        let unknown = self.outputs.iter().map(|output| output.extra.bytes);
        unknown.fold(self.total(|input| &input.beyond), u64::saturating_add)
    }

    /// The report as JSON.
    pub(crate) fn json(&self) -> String {
        let value = serde_json::json!({
            "identical": self.is_identical(),
            "bytes": self.inputs.iter().map(|input| input.bytes).sum::<u64>(),
            "missing_bytes": self.total(|input| &input.missing),
            "doubled_bytes": self.total(|input| &input.doubled),
            "different_bytes": self.total(|input| &input.different),
            "extra_bytes": self.extra(),
            "inputs": self.inputs,
            "outputs": self.outputs,
        });
        value.to_string()
    }
}

/// One line per finding, the verdict last.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
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
        let bytes: u64 = self.inputs.iter().map(|input| input.bytes).sum();
        if self.is_identical() {
            return write!(f, "identical: {bytes} {}, each exactly once", noun(bytes, "byte"));
        }
        write!(f, "NOT identical: of {bytes} {}", noun(bytes, "byte"))?;
        let sums = [
            (self.total(|input| &input.missing), "missing"),
            (self.total(|input| &input.doubled), "doubled"),
            (self.total(|input| &input.different), "different"),
            (self.extra(), "that do not belong there"),
        ];
        let mut separator = "";
        for (bytes, what) in sums.into_iter().filter(|(bytes, _)| *bytes > 0) {
            write!(f, "{separator} {bytes} {what}")?;
            separator = ",";
        }
        Ok(())
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
