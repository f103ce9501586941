//! Options of trimming, for `XADD` and `XTRIM`.

use crate::{CommandWriter, StreamId};

/// How much of a stream to keep, for [`XTrim`](super::XTrim) and [`XAdd`](super::XAdd). Exact by
/// default.
///
/// ```
/// use resp::streams::Trim;
///
/// let cheap = Trim::max_len(1_000_000).approximately();
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trim {
    keep: Keep,
    approximate: bool,
    limit: Option<u64>,
    references: Option<References>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keep {
    MaxLen(u64),
    MinId(StreamId),
}

/// What to do with references of consumer groups to removed entries. Redis 8.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum References {
    /// `KEEPREF`: keep them; the server's default.
    Keep,
    /// `DELREF`: remove them too.
    Delete,
    /// `ACKED`: only remove entries that all groups have acknowledged.
    Acknowledged,
}

impl References {
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Keep => "KEEPREF",
            Self::Delete => "DELREF",
            Self::Acknowledged => "ACKED",
        }
    }
}

impl Trim {
    /// Keeps the newest entries, at most this many.
    #[must_use]
    pub const fn max_len(entries: u64) -> Self {
        Self { keep: Keep::MaxLen(entries), approximate: false, limit: None, references: None }
    }

    /// Keeps the entries from this ID on. Redis 6.2.
    #[must_use]
    pub const fn min_id(id: StreamId) -> Self {
        Self { keep: Keep::MinId(id), approximate: false, limit: None, references: None }
    }

    /// Allows the server to keep somewhat more (`~`), which is much cheaper.
    #[must_use]
    pub const fn approximately(mut self) -> Self {
        self.approximate = true;
        self
    }

    /// Removes at most this many entries; implies [`approximately`](Self::approximately). Redis
    /// 6.2.
    #[must_use]
    pub const fn limit(mut self, entries: u64) -> Self {
        self.approximate = true;
        self.limit = Some(entries);
        self
    }

    /// Sets what to do with references of consumer groups. Redis 8.2.
    #[must_use]
    pub const fn references(mut self, references: References) -> Self {
        self.references = Some(references);
        self
    }

    #[expect(clippy::arithmetic_side_effects, reason = "the counts are of arguments in memory")]
    pub(super) const fn args(&self) -> usize {
        3 + if self.limit.is_some() { 2 } else { 0 } + if self.references.is_some() { 1 } else { 0 }
    }

    pub(super) fn encode(&self, out: &mut CommandWriter<'_>) {
        let how = if self.approximate { "~" } else { "=" };
        match self.keep {
            Keep::MaxLen(entries) => {
                out.arg("MAXLEN");
                out.arg(how);
                out.arg_int(entries);
            }
            Keep::MinId(id) => {
                out.arg("MINID");
                out.arg(how);
                out.arg_id(id);
            }
        }
        if let Some(limit) = self.limit {
            out.arg("LIMIT");
            out.arg_int(limit);
        }
        if let Some(references) = self.references {
            out.arg(references.word());
        }
    }
}
