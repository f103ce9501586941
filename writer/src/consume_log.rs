//! What the stage that reads has noticed, in the log and in the metrics: a few lines, however much
//! there is.

use crate::group::Group;
use crate::metric_names;
use delivery::consumer::{Gap, Report, Taken};
use delivery::entry::span_len;
use delivery::source_name::registry_key;
use metrics::counter;
use resp::StreamId;
use service::advice::noun;
use service::repeats;
use std::time::{Duration, Instant};

/// Foreign entries are logged at most this often.
const FOREIGN: Duration = Duration::from_secs(60);
/// This many gaps have a line each, in this time.
const GAPS: u32 = 10;
const GAP_TIME: Duration = Duration::from_secs(60);

/// A group that is gone again and again, as a Redis that evicts keys makes it, is logged this
/// often.
const GONE: Duration = Duration::from_secs(60);

/// `1 entry was`, `2 entries were`.
fn were(entries: u64) -> String {
    format!("{entries} {} {}", noun(entries, "entry"), if entries == 1 { "was" } else { "were" })
}

/// The log of one partition.
#[derive(Debug, Default)]
pub(crate) struct ConsumeLog {
    foreign: u64,
    foreign_at: Option<Instant>,
    gone_at: Option<Instant>,
    is_one_of_many: bool,
    gaps_since: Option<Instant>,
    gap_lines: u32,
    more_gaps: u64,
    more_gap_bytes: u64,
}

impl ConsumeLog {
    /// The log of one of many sources.
    pub(crate) fn of_source() -> Self {
        Self { is_one_of_many: true, ..Self::default() }
    }

    /// The group was created, with the stream if there was none.
    pub(crate) fn group_created(&self, group: &Group, with_stream: bool) {
        let level = if self.is_one_of_many { log::Level::Debug } else { log::Level::Info };
        match with_stream {
            true => log::log!(level, "stream {} and group {} created", group.stream, group.name),
            false => log::log!(level, "group {} created on {}", group.name, group.stream),
        }
    }

    /// There was no stream, and `sources` sources of many files have streams of such names.
    pub(crate) fn stream_is_new(&self, group: &Group, sources: u64) {
        if sources > 0 && !self.is_one_of_many {
            log::warn!(
                "stream {0} was empty, but {1} lists {sources} {2} of many files; to write those, use --output-dir \
                 instead of --output",
                group.stream,
                registry_key(&group.stream),
                noun(sources, "source"),
            );
        }
    }

    /// Logs what is not about health.
    pub(crate) fn tell(&mut self, group: &Group, report: &Report) {
        match report {
            Report::Gap(gap, path) => self.gap(gap, path),
            Report::GapsReported => self.end_gaps(),
            Report::RecordUnreadable(what) => log::warn!(
                "{}: {what}; left out, the others are used; another program changes this key; remove the fields that are not the reader's",
                group.record
            ),
            Report::NameTakenOver => log::warn!(
                "consumer {} of group {} had another output before; what that one holds is not written again, and what is pending \
                 goes to this one; if its file system is not mounted, stop this writer and mount it",
                group.consumer,
                group.name
            ),
            Report::LeaseTakenOver(owner) => log::warn!(
                "writer {owner} had group {} of {} to itself and does not renew its lease any more; taken over",
                group.name,
                group.stream
            ),
            Report::Intruder(other) => log::error!(
                event = "intruder";
                "consumer {other} reads from group {} of {}, which this writer has to itself (--consume exclusive): lines may be in both outputs; \
                 stop it, or use --consume group in all writers",
                group.name,
                group.stream
            ),
            Report::WaitsForRecord(_)
            | Report::RecordComplete
            | Report::WaitsForLease(_)
            | Report::WaitsForConsumer(_)
            | Report::WaitEnded => {}
        }
    }

    /// The group does not exist any more, or its stream.
    pub(crate) fn group_is_gone(&mut self, group: &Group) {
        if self.gone_at.is_none_or(|at| at.elapsed() >= GONE) {
            self.gone_at = Some(Instant::now());
            let is_loud = !self.is_one_of_many || repeats::may_log("their groups are gone; reading from the beginning");
            log::log!(
                if is_loud { log::Level::Warn } else { log::Level::Debug },
                "group {} is gone from {}: Redis lost data, or somebody deleted it; reading from the beginning, and what the output holds is not \
                 written again",
                group.name,
                group.stream
            );
        }
    }

    /// Counts the entries that were taken.
    pub(crate) fn took(&mut self, taken: &Taken) {
        if taken.redelivered > 0 {
            counter!(metric_names::REDELIVERED).increment(taken.redelivered);
        }
        if taken.deleted > 0 {
            counter!(metric_names::DELETED).increment(taken.deleted);
            log::warn!(
                event = "deleted", entries = taken.deleted;
                "{} deleted while pending, the last one {}",
                were(taken.deleted),
                taken.deleted_last
            );
        }
        if taken.foreign > 0 {
            self.foreign(taken.foreign, taken.foreign_last);
        }
    }

    /// Counts what was taken over.
    pub(crate) fn claimed(&self, entries: usize, deleted: usize) {
        if entries > 0 {
            log::info!(
                event = "takeover", entries = entries;
                "{entries} {} taken over that another consumer left pending", noun(entries as u64, "entry")
            );
        }
        if deleted > 0 {
            counter!(metric_names::DELETED).increment(deleted as u64);
            log::warn!(
                event = "deleted", entries = deleted;
                "{} deleted while pending with another consumer", were(deleted as u64)
            );
        }
    }

    fn foreign(&mut self, count: u64, last: StreamId) {
        counter!(metric_names::FOREIGN).increment(count);
        self.foreign = self.foreign.saturating_add(count);
        if self.foreign_at.is_none_or(|at| at.elapsed() >= FOREIGN) {
            log::warn!(
                event = "foreign", entries = self.foreign;
                "{} foreign {}, last ID {last}: not written by a reader; acknowledged, and left out of the output; give that program a stream of its own",
                self.foreign, noun(self.foreign, "entry")
            );
            self.foreign_at = Some(Instant::now());
            self.foreign = 0;
        }
    }

    fn gap(&mut self, Gap { file_id, span }: &Gap, path: &str) {
        let bytes = span_len(span);
        counter!(metric_names::GAP_BYTES).increment(bytes);
        if self.gaps_since.is_none_or(|since| since.elapsed() >= GAP_TIME) {
            self.end_gaps();
            (self.gaps_since, self.gap_lines) = (Some(Instant::now()), 0);
        }
        if self.gap_lines < GAPS {
            self.gap_lines = self.gap_lines.saturating_add(1);
            log::error!(
                event = "gap", content = *file_id, offset = span.start, bytes = bytes;
                "gap: bytes {}..{} ({bytes} bytes) of content {file_id} ({path}) were never delivered to this writer: entries were deleted, or the \
                 group or its consumer was changed by hand; take them from the source",
                span.start,
                span.end,
            );
        } else {
            self.more_gaps = self.more_gaps.saturating_add(1);
            self.more_gap_bytes = self.more_gap_bytes.saturating_add(bytes);
        }
    }

    /// Logs the gaps that have no line of their own.
    pub(crate) fn end_gaps(&mut self) {
        if self.more_gaps > 0 {
            let (gaps, bytes) = (self.more_gaps, self.more_gap_bytes);
            log::error!("{gaps} more {} ({bytes} bytes); `writer verify` lists them", noun(gaps, "gap"));
            (self.more_gaps, self.more_gap_bytes) = (0, 0);
        }
    }
}
