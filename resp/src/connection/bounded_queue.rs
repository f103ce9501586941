//! A queue for messages that nobody has asked for yet. It drops the oldest ones when it is full.
//! [`Connection`](super::Connection) and the events of a [`Client`](crate::Client) use it.

use std::collections::VecDeque;

/// The maximum number of items.
pub(crate) const MAX_ITEMS: usize = 1024;
/// The maximum number of bytes. A single larger item is kept.
pub(crate) const MAX_BYTES: usize = 16 << 20;

/// The newest items of a series, bounded in number and in bytes.
#[derive(Debug)]
pub(crate) struct BoundedQueue<T> {
    items: VecDeque<(T, usize)>,
    bytes: usize,
}

impl<T> BoundedQueue<T> {
    pub(crate) const fn new() -> Self {
        Self { items: VecDeque::new(), bytes: 0 }
    }

    /// Adds an item of this many bytes. Returns how many of the oldest items were dropped.
    pub(crate) fn push(&mut self, item: T, bytes: usize) -> u64 {
        self.items.push_back((item, bytes));
        self.bytes = self.bytes.saturating_add(bytes);
        let mut dropped = 0u64;
        while self.items.len() > MAX_ITEMS || (self.bytes > MAX_BYTES && self.items.len() > 1) {
            self.pop();
            dropped = dropped.saturating_add(1);
        }
        dropped
    }

    /// Takes the oldest item.
    pub(crate) fn pop(&mut self) -> Option<T> {
        let (item, bytes) = self.items.pop_front()?;
        self.bytes = self.bytes.saturating_sub(bytes);
        Some(item)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_are_kept_within_both_bounds() {
        let mut kept = BoundedQueue::new();
        assert_eq!((0..3000).map(|n| kept.push(n, 1)).sum::<u64>(), 3000 - MAX_ITEMS as u64);
        assert_eq!(kept.pop(), Some(3000 - MAX_ITEMS as i32));
        assert_eq!(kept.push(1, MAX_BYTES - 3), MAX_ITEMS as u64 - 4);
        assert_eq!(kept.push(2, MAX_BYTES * 2), 4);
        assert_eq!((kept.pop(), kept.pop(), kept.bytes), (Some(2), None, 0), "the newest is there, however large");
    }
}
