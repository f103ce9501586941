//! A stream with its consumer groups.

use super::command::{ConsumerInfo, Delivered, Entry, GroupInfo, Name, PendingInfo, ReadFrom, Refusal, StreamInfo};
use resp::StreamId;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::rc::Rc;

/// A stream.
#[derive(Debug, Clone, Default)]
pub struct Stream {
    entries: BTreeMap<StreamId, Rc<Entry>>,
    last_id: StreamId,
    max_deleted: StreamId,
    entries_added: u64,
    groups: BTreeMap<Name, Group>,
}

/// A consumer group.
#[derive(Debug, Clone, Default)]
pub struct Group {
    last_delivered: StreamId,
    /// The number of entries read, if Redis knows it.
    entries_read: Option<u64>,
    pending: BTreeMap<StreamId, Pending>,
    /// The time of each consumer's last read.
    consumers: BTreeMap<Name, u64>,
}

#[derive(Debug, Clone)]
struct Pending {
    consumer: Name,
    delivered_at: u64,
}

impl Stream {
    /// Adds an entry. Its ID must be larger than all previous ones.
    pub fn add(&mut self, id: StreamId, entry: Rc<Entry>) -> Result<(), Refusal> {
        if self.last_id == StreamId::MAX {
            return Err(Refusal::Exhausted);
        }
        if id <= self.last_id {
            return Err(Refusal::IdTooSmall);
        }
        self.last_id = id;
        self.entries_added += 1;
        self.entries.insert(id, entry);
        Ok(())
    }

    /// The ID that `XADD *` gives at this time.
    pub fn next_id(&self, now: u64) -> Result<StreamId, Refusal> {
        if now > self.last_id.ms {
            return Ok(StreamId::new(now, 0));
        }
        self.last_id.next().ok_or(Refusal::Exhausted)
    }

    /// The ID of the latest entry that was ever added.
    pub const fn last_id(&self) -> StreamId {
        self.last_id
    }

    /// The entries.
    pub const fn entries(&self) -> &BTreeMap<StreamId, Rc<Entry>> {
        &self.entries
    }

    /// The groups.
    pub const fn groups(&self) -> &BTreeMap<Name, Group> {
        &self.groups
    }

    /// Deletes entries. Returns their number.
    pub fn delete(&mut self, ids: &[StreamId]) -> u64 {
        let mut deleted = 0;
        for &id in ids {
            if self.entries.remove(&id).is_some() {
                self.max_deleted = self.max_deleted.max(id);
                deleted += 1;
            }
        }
        deleted
    }

    /// Deletes the entries before an ID. Returns their number.
    pub fn trim_below(&mut self, min: StreamId) -> u64 {
        let kept = self.entries.split_off(&min);
        let trimmed = self.entries.len() as u64;
        self.entries = kept;
        trimmed
    }

    /// Deletes the oldest entries, except for `len`. Returns their number.
    pub fn trim_to(&mut self, len: usize) -> u64 {
        let excess = self.entries.len().saturating_sub(len);
        match self.entries.keys().nth(excess).copied() {
            Some(min) => self.trim_below(min),
            None => {
                self.entries.clear();
                excess as u64
            }
        }
    }

    /// The reply to `XINFO STREAM`.
    pub fn info(&self) -> StreamInfo {
        StreamInfo {
            length: self.entries.len() as u64,
            last_id: self.last_id,
            first: self.entries.keys().next().copied(),
            max_deleted: self.max_deleted,
            entries_added: self.entries_added,
        }
    }

    /// Creates a group.
    pub fn create_group(&mut self, name: &Name, at: StreamId) -> Result<(), Refusal> {
        if self.groups.contains_key(name) {
            return Err(Refusal::BusyGroup);
        }
        self.groups.insert(name.clone(), Group { last_delivered: at, ..Group::default() });
        Ok(())
    }

    /// Removes a group with its pending entries.
    pub fn destroy_group(&mut self, name: &Name) -> bool {
        self.groups.remove(name).is_some()
    }

    /// A group by its name.
    pub fn group_mut(&mut self, name: &Name) -> Result<&mut Group, Refusal> {
        self.groups.get_mut(name).ok_or(Refusal::NoGroup)
    }

    /// The reply to `XINFO GROUPS`.
    pub fn group_infos(&self) -> Vec<GroupInfo> {
        let info = |(name, group): (&Name, &Group)| GroupInfo {
            name: name.clone(),
            consumers: group.consumers.len() as u64,
            pending: group.pending.len() as u64,
            first_pending: group.pending.keys().next().copied(),
            last_delivered: group.last_delivered,
            entries_read: group.entries_read,
        };
        self.groups.iter().map(info).collect()
    }

    /// Delivers entries to a consumer.
    pub fn read(
        &mut self,
        group: &Name,
        consumer: &Name,
        from: ReadFrom,
        count: usize,
        now: u64,
    ) -> Result<Vec<Delivered>, Refusal> {
        let marks = (self.last_id, self.max_deleted, self.entries_added);
        let group = self.groups.get_mut(group).ok_or(Refusal::NoGroup)?;
        group.consumers.insert(consumer.clone(), now);
        match from {
            ReadFrom::New => {
                let behind = (Bound::Excluded(group.last_delivered), Bound::Unbounded);
                let new: Vec<Delivered> =
                    self.entries.range(behind).take(count).map(|(id, entry)| (*id, Some(entry.clone()))).collect();
                for (id, _) in &new {
                    let counts = group.entries_read.filter(|_| self.entries.is_empty() || *id > self.max_deleted);
                    group.entries_read =
                        counts.map_or_else(|| estimate(&self.entries, marks, *id), |read| Some(read + 1));
                    group.last_delivered = *id;
                    // After `XGROUP SETID` has moved the group back, an entry may be pending
                    // already. The new consumer gets it.
                    group.pending.insert(*id, Pending { consumer: consumer.clone(), delivered_at: now });
                }
                Ok(new)
            }
            ReadFrom::Pending(after) => {
                let behind = (Bound::Excluded(after), Bound::Unbounded);
                let own = group.pending.range_mut(behind).filter(|(_, one)| one.consumer == *consumer).take(count);
                Ok(own
                    .map(|(id, one)| {
                        one.delivered_at = now;
                        (*id, self.entries.get(id).cloned())
                    })
                    .collect())
            }
        }
    }

    /// `XAUTOCLAIM`: the next start, the claimed entries, and the deleted ones.
    pub fn claim(
        &mut self,
        group: &Name,
        consumer: &Name,
        idle: u64,
        from: StreamId,
        count: usize,
        now: u64,
    ) -> Result<(StreamId, Vec<Delivered>, Vec<StreamId>), Refusal> {
        let group = self.groups.get_mut(group).ok_or(Refusal::NoGroup)?;
        group.consumers.insert(consumer.clone(), now);
        let (mut claimed, mut deleted) = (Vec::new(), Vec::new());
        let mut next = StreamId::ZERO;
        for (id, one) in group.pending.range_mut(from..) {
            if claimed.len() + deleted.len() == count {
                next = *id;
                break;
            }
            if now.saturating_sub(one.delivered_at) < idle {
                continue;
            }
            match self.entries.get(id) {
                Some(entry) => {
                    *one = Pending { consumer: consumer.clone(), delivered_at: now };
                    claimed.push((*id, Some(entry.clone())));
                }
                None => deleted.push(*id),
            }
        }
        for id in &deleted {
            group.pending.remove(id);
        }
        Ok((next, claimed, deleted))
    }
}

/// The number of entries added up to this one, if it can be known:
/// `streamEstimateDistanceFromFirstEverEntry` of Redis.
fn estimate(
    entries: &BTreeMap<StreamId, Rc<Entry>>,
    (last, max_deleted, added): (StreamId, StreamId, u64),
    id: StreamId,
) -> Option<u64> {
    let length = entries.len() as u64;
    if id == last {
        return Some(added);
    }
    if id < max_deleted || id > last {
        return None;
    }
    let first = entries.keys().next().copied()?;
    match id.cmp(&first) {
        std::cmp::Ordering::Less if max_deleted < first => Some(added - length),
        std::cmp::Ordering::Equal if max_deleted < first => Some(added - length + 1),
        _ => None,
    }
}

impl Group {
    /// Acknowledges entries. Returns how many were pending.
    pub fn acknowledge(&mut self, ids: &[StreamId]) -> u64 {
        ids.iter().filter(|id| self.pending.remove(id).is_some()).count() as u64
    }

    /// Moves the group.
    pub const fn set_id(&mut self, at: StreamId, entries_read: Option<u64>) {
        (self.last_delivered, self.entries_read) = (at, entries_read);
    }

    /// The last delivered ID.
    pub const fn last_delivered(&self) -> StreamId {
        self.last_delivered
    }

    /// The pending IDs, with their consumers.
    pub fn pending(&self) -> impl Iterator<Item = (StreamId, &Name)> {
        self.pending.iter().map(|(id, one)| (*id, &one.consumer))
    }

    /// Whether an entry is pending.
    pub fn is_pending(&self, id: StreamId) -> bool {
        self.pending.contains_key(&id)
    }

    /// Removes a consumer with its pending entries. Returns their number.
    pub fn delete_consumer(&mut self, consumer: &Name) -> u64 {
        self.consumers.remove(consumer);
        let before = self.pending.len();
        self.pending.retain(|_, one| one.consumer != *consumer);
        (before - self.pending.len()) as u64
    }

    /// The reply to `XINFO CONSUMERS`.
    pub fn consumer_infos(&self, now: u64) -> Vec<ConsumerInfo> {
        let info = |(name, at): (&Name, &u64)| ConsumerInfo {
            name: name.clone(),
            pending: self.pending.values().filter(|one| one.consumer == *name).count() as u64,
            idle: now.saturating_sub(*at),
        };
        self.consumers.iter().map(info).collect()
    }

    /// The reply to `XPENDING` with a range.
    pub fn pending_infos(&self, consumer: Option<&Name>, count: usize, now: u64) -> Vec<PendingInfo> {
        let wanted = self.pending.iter().filter(|(_, one)| consumer.is_none_or(|name| one.consumer == *name));
        wanted
            .take(count)
            .map(|(id, one)| PendingInfo {
                id: *id,
                consumer: one.consumer.clone(),
                idle: now.saturating_sub(one.delivered_at),
            })
            .collect()
    }
}
