//! What `writer verify` found, for people and for programs.

use delivery::entry::Span;
use serde::{Serialize, Serializer};
use service::advice::noun;
use std::fmt;

/// So many ranges of a kind are listed one by one; the bytes of further ones are counted.
const LISTED: usize = 1000;

/// Byte ranges of one kind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Ranges {
    listed: Vec<Span>,
    bytes: u64,
}

impl Ranges {
    /// Adds a range; one that adjoins the last is joined to it.
    pub(crate) fn add(&mut self, span: Span) {
        if span.is_empty() {
            return;
        }
        self.bytes += span.end - span.start;
        let is_full = self.listed.len() >= LISTED;
        match self.listed.last_mut() {
            Some(last) if last.end == span.start => last.end = span.end,
            _ if !is_full => self.listed.push(span),
            _ => {}
        }
    }

    /// How many bytes they are.
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

/// What was found for one input. Offsets are those of the input.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct InputReport {
    /// Its path.
    pub(crate) path: String,
    /// Its length.
    pub(crate) bytes: u64,
    /// The generation that named it first; `None` when no output has anything of it, or there is no
    /// journal.
    pub(crate) content: Option<u64>,
    /// In none of the outputs.
    pub(crate) missing: Ranges,
    /// In the outputs more than once.
    pub(crate) doubled: Ranges,
    /// In the outputs, but with other bytes.
    pub(crate) different: Ranges,
    /// In the outputs, but behind the end of the input.
    pub(crate) beyond: Ranges,
}

/// What was found for one output. Offsets are those of the output.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct OutputReport {
    /// Its path.
    pub(crate) path: String,
    /// Bytes that were compared.
    pub(crate) bytes: u64,
    /// Whether what it holds stands in the order of the source.
    pub(crate) in_order: bool,
    /// Bytes that were there before the writer was; not compared.
    pub(crate) before: u64,
    /// Bytes behind the last commit; not part of the output.
    pub(crate) torn: u64,
    /// Bytes that are of none of the inputs.
    pub(crate) extra: Ranges,
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Report {
    /// For each input.
    pub(crate) inputs: Vec<InputReport>,
    /// For each output.
    pub(crate) outputs: Vec<OutputReport>,
}

impl Report {
    /// Whether the outputs hold every byte of the inputs exactly once, and nothing else.
    pub(crate) fn is_identical(&self) -> bool {
        let inputs =
            self.inputs.iter().flat_map(|input| [&input.missing, &input.doubled, &input.different, &input.beyond]);
        inputs.chain(self.outputs.iter().map(|output| &output.extra)).all(|ranges| ranges.bytes == 0)
    }

    /// The report as JSON.
    pub(crate) fn json(&self) -> String {
        let total = |of: fn(&InputReport) -> &Ranges| self.inputs.iter().map(|input| of(input).bytes).sum::<u64>();
        let value = serde_json::json!({
            "identical": self.is_identical(),
            "bytes": self.inputs.iter().map(|input| input.bytes).sum::<u64>(),
            "missing_bytes": total(|input| &input.missing),
            "doubled_bytes": total(|input| &input.doubled),
            "different_bytes": total(|input| &input.different),
            "extra_bytes": total(|input| &input.beyond) + self.outputs.iter().map(|output| output.extra.bytes).sum::<u64>(),
            "inputs": self.inputs,
            "outputs": self.outputs,
        });
        value.to_string()
    }
}

/// In words, one line a finding, the judgement last.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for output in &self.outputs {
            if output.before > 0 {
                writeln!(
                    f,
                    "{}: its first {} bytes were there before the writer; not compared",
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
                (&input.beyond, "in the output, behind the end of the input"),
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
        let total = |of: fn(&InputReport) -> &Ranges| self.inputs.iter().map(|input| of(input).bytes).sum::<u64>();
        let extra = total(|input| &input.beyond) + self.outputs.iter().map(|output| output.extra.bytes).sum::<u64>();
        let sums = [
            (total(|input| &input.missing), "missing"),
            (total(|input| &input.doubled), "doubled"),
            (total(|input| &input.different), "different"),
            (extra, "that do not belong there"),
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
        let bytes = span.end - span.start;
        writeln!(f, "{path}: bytes {}..{} ({bytes} {}): {what}", span.start, span.end, noun(bytes, "byte"))?;
    }
    let listed: u64 = ranges.listed.iter().map(|span| span.end - span.start).sum();
    if listed < ranges.bytes {
        let more = ranges.bytes - listed;
        writeln!(f, "{path}: and {more} {} more: {what}", noun(more, "byte"))?;
    }
    Ok(())
}
