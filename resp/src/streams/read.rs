//! What `XREAD` and `XREADGROUP` share: the streams, the limits of the reply, and BLOCK.

use crate::{BlockTimeout, CommandWriter, Routing};

/// The arguments of both commands. `F`: where to start in a stream.
#[derive(Clone, Debug)]
pub(super) struct Read<'a, F> {
    first: (&'a [u8], F),
    more: Vec<(&'a [u8], F)>,
    pub(super) count: Option<u64>,
    pub(super) max_count: Option<u64>,
    pub(super) max_size: Option<u64>,
    pub(super) block: Option<BlockTimeout>,
}

impl<'a, F: Copy> Read<'a, F> {
    pub(super) const fn new(key: &'a [u8], from: F) -> Self {
        Self { first: (key, from), more: Vec::new(), count: None, max_count: None, max_size: None, block: None }
    }

    pub(super) fn and(&mut self, key: &'a [u8], from: F) {
        self.more.push((key, from));
    }

    pub(super) const fn key(&self) -> &'a [u8] {
        self.first.0
    }

    fn streams(&self) -> impl Iterator<Item = (&'a [u8], F)> {
        std::iter::once(self.first).chain(self.more.iter().copied())
    }

    pub(super) fn routing(&self) -> Routing {
        Routing::of_keys(self.streams().map(|(key, _)| key))
    }

    /// The number of arguments that the two methods below write.
    #[expect(clippy::arithmetic_side_effects, reason = "the counts are of arguments in memory")]
    pub(super) fn args(&self) -> usize {
        let pairs = [self.count.is_some(), self.max_count.is_some(), self.max_size.is_some(), self.block.is_some()];
        2 * pairs.iter().filter(|set| **set).count() + 1 + 2 * (1 + self.more.len())
    }

    /// Writes `COUNT n MAXCOUNT n MAXSIZE n BLOCK ms`, as far as they are set.
    pub(super) fn encode_limits(&self, out: &mut CommandWriter<'_>) {
        for (name, limit) in [("COUNT", self.count), ("MAXCOUNT", self.max_count), ("MAXSIZE", self.max_size)] {
            if let Some(limit) = limit {
                out.arg(name);
                out.arg_int(limit);
            }
        }
        if let Some(block) = self.block {
            out.arg("BLOCK");
            out.arg_int(block.millis());
        }
    }

    /// Writes `STREAMS key … from …`.
    pub(super) fn encode_streams(&self, out: &mut CommandWriter<'_>, encode_from: fn(F, &mut CommandWriter<'_>)) {
        out.arg("STREAMS");
        for (key, _) in self.streams() {
            out.arg(key);
        }
        for (_, from) in self.streams() {
            encode_from(from, out);
        }
    }
}
