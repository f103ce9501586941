use crate::{CommandWriter, StreamId};

/// How much of a stream is kept, for [`XTrim`](super::XTrim) and [`XAdd`](super::XAdd). Exact
/// unless said otherwise.
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

/// What happens to the references that consumer groups hold to an entry when it is removed from the
/// stream. Redis 8.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum References {
    /// `KEEPREF`: they stay; the server's default.
    Keep,
    /// `DELREF`: they are removed too.
    Delete,
    /// `ACKED`: only entries that all groups have acknowledged are removed.
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
    /// Keeps so many entries, the newest ones.
    #[must_use]
    pub const fn max_len(entries: u64) -> Self {
        Self { keep: Keep::MaxLen(entries), approximate: false, limit: None, references: None }
    }

    /// Keeps the entries with this ID and above. Redis 6.2.
    #[must_use]
    pub const fn min_id(id: StreamId) -> Self {
        Self { keep: Keep::MinId(id), approximate: false, limit: None, references: None }
    }

    /// Lets the server keep somewhat more (`~`), which is much cheaper for it.
    #[must_use]
    pub const fn approximately(mut self) -> Self {
        self.approximate = true;
        self
    }

    /// Removes at most so many entries; implies [`approximately`](Self::approximately). Redis 6.2.
    #[must_use]
    pub const fn limit(mut self, entries: u64) -> Self {
        self.approximate = true;
        self.limit = Some(entries);
        self
    }

    /// What happens to references of consumer groups. Redis 8.2.
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
